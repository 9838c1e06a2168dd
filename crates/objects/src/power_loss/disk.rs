//! The disk of the index: in memory, and with the same power supply as the
//! files.  What is written is kept apart from what is synced; of the rest any
//! sector may survive, or none.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cumulet_durable::power::{Numbers, Power, Unsynced};
use redb::StorageBackend;

/// Disks write this many bytes whole or not at all.
const SECTOR: usize = 512;

enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Default)]
struct Inner {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Step>,
}

/// Clones are the same disk.
#[derive(Clone)]
pub(super) struct Disk {
    inner: Arc<Mutex<Inner>>,
    power: Power,
    root: PathBuf,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a test's disk fits in memory")
}

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Length(length) => bytes.resize(*length, 0),
        Step::Write(offset, data) => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
    }
}

/// Applies the sectors of a step that survive.
fn apply_torn(bytes: &mut Vec<u8>, step: &Step, numbers: &mut Numbers) {
    let Step::Write(offset, data) = step else {
        if numbers.below(2) == 0 {
            apply(bytes, step);
        }
        return;
    };
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
        if numbers.below(2) == 0 {
            apply(bytes, &Step::Write(offset + from, data[from..to].to_vec()));
        }
        from = to;
    }
}

impl Disk {
    pub(super) fn holding(bytes: Vec<u8>, power: Power, root: PathBuf) -> Self {
        let inner = Inner {
            current: bytes.clone(),
            durable: bytes,
            pending: vec![],
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            power,
            root,
        }
    }

    /// What is on the disk when the power is back.
    pub(super) fn after_power_loss(&self, unsynced: Unsynced) -> Vec<u8> {
        let inner = self.inner();
        let mut bytes = inner.durable.clone();
        let mut numbers = match unsynced {
            Unsynced::Torn(seed) => Numbers(seed),
            Unsynced::Lost | Unsynced::Kept => Numbers(0),
        };
        for step in &inner.pending {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Kept => apply(&mut bytes, step),
                Unsynced::Torn(_) => apply_torn(&mut bytes, step, &mut numbers),
            }
        }
        bytes
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, step: Step) -> io::Result<()> {
        self.power.check()?;
        let mut inner = self.inner();
        apply(&mut inner.current, &step);
        inner.pending.push(step);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.power.check()?;
        Ok(self.inner().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.power.check()?;
        let inner = self.inner();
        let found = inner.current.get(index(offset)..index(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Step::Length(index(length)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.power.sync(&self.root)?;
        let mut inner = self.inner();
        inner.durable = inner.current.clone();
        inner.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Step::Write(index(offset), data.to_vec()))
    }
}
