//! A disk whose calls fail from the n-th on, for every n: nothing acknowledged is lost, reads go
//! on, and nothing panics.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::disk::{Disk, Unsynced};
use crate::power_loss::{COMMITS, Records, changes, check, expected, made};
use cumulet_store::conformance::KINDS;
use cumulet_store::{CommitError, EmbeddedEngine, Plan, Store, StoreError};
use redb::StorageBackend;

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Writing and growing, as on a full disk.
    Full,
    /// All that changes something, as on a disk that turned read-only.
    ReadOnly,
    /// Only this one call.
    Once,
}

/// A disk that fails; clones are the same one.
#[derive(Debug, Clone)]
struct Failing {
    disk: Disk,
    fault: Fault,
    /// The call, counted from one, at which it begins.
    from: usize,
    calls: Arc<AtomicUsize>,
    has_failed: Arc<AtomicBool>,
}

impl Failing {
    fn new(bytes: Vec<u8>, fault: Fault, from: usize) -> Self {
        Self {
            disk: Disk::holding(bytes),
            fault,
            from,
            calls: Arc::default(),
            has_failed: Arc::default(),
        }
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Counts a call that changes something; an error if it has to fail.
    fn call(&self, is_sync: bool) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = match self.fault {
            Fault::Full => number >= self.from && !is_sync,
            Fault::ReadOnly => number >= self.from,
            Fault::Once => number == self.from,
        };
        if !fails {
            return Ok(());
        }
        self.has_failed.store(true, Ordering::SeqCst);
        Err(match self.fault {
            Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
            Fault::ReadOnly => io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
            Fault::Once => io::Error::from_raw_os_error(5),
        })
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(false)?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(true)?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(false)?;
        self.disk.write(offset, data)
    }
}

fn commit(store: &Store<Records>, number: u64) -> Result<u64, StoreError> {
    let planned = store.commit_blocking(move |_: &Records| {
        Ok::<_, ()>(Plan {
            changes: changes(number),
            answer: (),
        })
    });
    match planned {
        Ok(committed) => Ok(committed.revision),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Refused(())) => panic!("the planner refuses nothing"),
    }
}

/// Commits until one fails; returns the last acknowledged one.  The store then answers reads as
/// before and refuses writes.
fn work(disk: &Failing) -> u64 {
    let engine = match EmbeddedEngine::open_backend(disk.clone(), KINDS) {
        Ok(engine) => engine,
        Err(error) => {
            assert!(disk.has_failed(), "only the disk may stop it: {error}");
            return 0;
        }
    };
    let store = Store::open(Box::new(engine), Records::default()).unwrap();
    for number in 1..=COMMITS {
        match commit(&store, number) {
            Ok(revision) => assert_eq!(revision, number),
            Err(StoreError::Io { .. }) => {
                assert!(disk.has_failed(), "only the disk may stop it");
                assert!(
                    *store.snapshot() == expected(number - 1),
                    "reads show what was acknowledged"
                );
                let again = commit(&store, number);
                assert!(
                    matches!(again, Err(StoreError::Failed(_))),
                    "after an error nothing is written until it is opened again: {again:?}"
                );
                return number - 1;
            }
            Err(other) => panic!("commit {number}: {other:?}"),
        }
    }
    COMMITS
}

#[test]
fn an_error_at_any_write_loses_nothing_acknowledged() {
    let made = made();
    for fault in [Fault::Full, Fault::ReadOnly, Fault::Once] {
        let mut stopped = 0;
        for from in 1.. {
            let disk = Failing::new(made.clone(), fault, from);
            let acknowledged = work(&disk);
            if !disk.has_failed() {
                assert_eq!(acknowledged, COMMITS);
                break;
            }
            stopped += 1;
            let unsynced = match from % 3 {
                0 => Unsynced::Lost,
                1 => Unsynced::Kept,
                _ => Unsynced::Torn(from as u64),
            };
            let moment = format!("{fault:?} from call {from}, {unsynced:?}");
            let left = disk.disk.after_power_loss(unsynced);
            check(left, acknowledged, &moment);
        }
        assert!(
            stopped > COMMITS,
            "{fault:?}: each commit writes more than once, but only {stopped} calls failed"
        );
    }
}

#[test]
fn a_full_disk_is_told_before_anything_is_written_and_passes() {
    use cumulet_store::{Batch, Engine};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let engine = EmbeddedEngine::open(&path, KINDS).unwrap();
    let free = rustix::fs::statvfs(dir.path()).unwrap();
    let store = Store::open(Box::new(engine), Records::default()).unwrap();
    assert_eq!(commit(&store, 1).unwrap(), 1);
    drop(store);

    // More than this disk has: the same batch is refused, and a small one is not.
    let mut engine = (0..200)
        .find_map(|_| match EmbeddedEngine::open(&path, KINDS) {
            Ok(engine) => Some(engine),
            Err(_) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                None
            }
        })
        .expect("the writer's thread lets the file go");
    let value = bytes::Bytes::from(vec![7; cumulet_store::VALUE_LEN_MAX - 1]);
    let per_change = value.len() as u64 * 4;
    let count = free.f_bavail * free.f_frsize / per_change + 1;
    let huge = Batch {
        preconditions: vec![],
        changes: (0..count)
            .map(|number| {
                let key = number.to_string();
                cumulet_store::Change::put(cumulet_store::conformance::FIRST, key, value.clone())
            })
            .collect(),
    };
    assert!(matches!(engine.commit(&huge), Err(StoreError::NoSpace)));
    let small = Batch {
        preconditions: vec![],
        changes: changes(2),
    };
    assert_eq!(engine.commit(&small).unwrap(), 2);
}
