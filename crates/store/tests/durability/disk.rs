//! A disk in memory that can lose its power.
//!
//! What is written is kept apart from what is synced.  At the chosen sync the
//! power fails: that call and every later one answers an error, and what was not
//! synced may be on the disk in part: any sector of any write, or none.  A cut
//! between two syncs leaves a subset of what one at the next sync may leave, so
//! that cutting at every sync covers all moments.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// Disks write this many bytes whole or not at all.
const SECTOR: usize = 512;

/// A small generator of numbers (splitmix64), so that a seed says everything.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What becomes of the writes that were not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unsynced {
    Lost,
    /// Each sector survives or not, by this seed.
    Torn(u64),
    /// All of it had reached the disk, only the answer is missing.
    Kept,
}

#[derive(Debug, Clone)]
enum Step {
    Length(u64),
    Write(u64, Vec<u8>),
}

#[derive(Debug, Default)]
struct Inner {
    /// What readers see.
    current: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    pending: Vec<Step>,
    syncs: usize,
    cut_at: Option<usize>,
    is_off: bool,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a test's disk fits in memory")
}

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Length(length) => bytes.resize(index(*length), 0),
        Step::Write(offset, data) => {
            let end = index(*offset) + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[index(*offset)..end].copy_from_slice(data);
        }
    }
}

/// The sectors of a write that survive.
fn torn(step: &Step, numbers: &mut Numbers) -> Vec<Step> {
    let Step::Write(offset, data) = step else {
        let survives = numbers.below(2) == 0;
        return survives.then(|| step.clone()).into_iter().collect();
    };
    let mut left = vec![];
    let mut from = 0;
    while from < data.len() {
        let in_sector = (index(*offset) + from) % SECTOR;
        let to = data.len().min(from + SECTOR - in_sector);
        if numbers.below(2) == 0 {
            left.push(Step::Write(*offset + from as u64, data[from..to].to_vec()));
        }
        from = to;
    }
    left
}

impl Disk {
    /// A disk whose power fails at its `cut_at`-th sync, counted from one.
    pub(crate) fn failing(bytes: Vec<u8>, cut_at: usize) -> Self {
        let disk = Self::holding(bytes);
        disk.inner().cut_at = Some(cut_at);
        disk
    }

    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            current: bytes.clone(),
            durable: bytes,
            ..Inner::default()
        })))
    }

    pub(crate) fn syncs(&self) -> usize {
        self.inner().syncs
    }

    pub(crate) fn is_off(&self) -> bool {
        self.inner().is_off
    }

    /// What is on the disk when the power is back.
    pub(crate) fn after_power_loss(&self, unsynced: Unsynced) -> Vec<u8> {
        let inner = self.inner();
        let mut bytes = inner.durable.clone();
        match unsynced {
            Unsynced::Lost => {}
            Unsynced::Kept => inner
                .pending
                .iter()
                .for_each(|step| apply(&mut bytes, step)),
            Unsynced::Torn(seed) => {
                let mut numbers = Numbers(seed);
                for step in &inner.pending {
                    for piece in torn(step, &mut numbers) {
                        apply(&mut bytes, &piece);
                    }
                }
            }
        }
        bytes
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test thread dies with the disk")
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.inner();
        match inner.is_off {
            true => Err(io::Error::other("the power is off")),
            false => Ok(inner),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.powered()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.powered()?;
        let end = index(offset) + out.len();
        let found = inner.current.get(index(offset)..end);
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.powered()?;
        let step = Step::Length(len);
        apply(&mut inner.current, &step);
        inner.pending.push(step);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.powered()?;
        inner.syncs += 1;
        if inner.cut_at == Some(inner.syncs) {
            inner.is_off = true;
            return Err(io::Error::other("the power is off"));
        }
        inner.durable = inner.current.clone();
        inner.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.powered()?;
        let step = Step::Write(offset, data.to_vec());
        apply(&mut inner.current, &step);
        inner.pending.push(step);
        Ok(())
    }
}
