//! Locks that all clouds of a host share: files below `/run`, which the last
//! cloud removes.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::{HostError, Result};

/// What all clouds of a host remember together; lives as long as the host does.
pub(super) const RUN_DIR: &str = "/run/cumulet";

/// Held while forwarding is changed.
pub(super) const FORWARDING: &str = "forwarding.lock";
/// Held from when ranges are chosen until they are laid.
pub(super) const RANGES: &str = "ranges.lock";

/// How long another cloud is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

fn path_of(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(name)
}

fn failed(error: impl ToString) -> HostError {
    HostError::new(
        "could not take a lock that all clouds of this host share",
        error,
    )
}

/// Takes the lock; it is free again when the file is dropped.  Blocks.
pub(super) fn take(name: &str) -> Result<File> {
    let path = path_of(name);
    let until = Instant::now() + PATIENCE;
    loop {
        std::fs::create_dir_all(RUN_DIR).map_err(failed)?;
        let file = match File::create(&path) {
            // The last cloud has just removed the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(failed)?,
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok(file),
            // Whoever had it was the last, and removed it: this is nobody's lock any more.
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(failed(format!("{} is held by another", path.display())));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Removes the files of locks that nobody holds, and the directory when nothing else is in it.
/// `held` is the caller's own, which goes with them.
pub(super) fn remove_all(held: &str) -> Result<()> {
    for name in [FORWARDING, RANGES] {
        let path = path_of(name);
        let is_free = name == held || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if !is_free {
            continue;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let _ = std::fs::remove_dir(RUN_DIR);
    Ok(())
}
