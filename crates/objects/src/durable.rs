//! Files that are whole or absent, whatever happens.
//!
//! The one place that knows the order: write under a temporary name, sync the
//! file, rename, sync the directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces `path` by `bytes`.  When it returns, the new content survives a loss of power; when it
/// fails, the old content is still there.  The temporary file lies beside it, `.tmp` appended.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        publish(&file, &temporary, path)?;
        sync_parent(path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Syncs a finished file and gives it its name.  The caller syncs the directory, which many files
/// may share.
///
/// # Errors
/// Those of the file system.
pub fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    sync_file(file)?;
    fs::rename(temporary, path)
}

/// # Errors
/// Those of the file system.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    sync_file(&File::open(dir)?)
}

fn sync_file(file: &File) -> io::Result<()> {
    #[cfg(test)]
    crate::power_loss::files::before_sync(file)?;
    file.sync_all()
}

/// Syncs the directory that `path` is in.
///
/// # Errors
/// Those of the file system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => sync_dir(dir),
        _ => sync_dir(Path::new(".")),
    }
}
