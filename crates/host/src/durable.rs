//! Files that are whole or absent, also after a power cut.
//!
//! Everything that this crate keeps is written under a temporary name, synced,
//! renamed and its directory synced.  Leftovers of a crash carry
//! [`TEMPORARY_PREFIX`] and are swept when a directory is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names that begin so are never a finished file.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// A temporary file that disappears unless it is published.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    file: File,
    is_published: bool,
}

impl Temporary {
    /// Creates an empty file, mode 0600, in `directory`; `name` makes it recognisable and must be
    /// unique among the files that are being written at one time.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(format!("{TEMPORARY_PREFIX}{name}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            is_published: false,
        })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its mode and final name; after `Ok` it survives a power cut.
    ///
    /// # Errors
    /// Those of the file system; the temporary file is then removed.
    pub fn publish(mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.file
            .set_permissions(fs::Permissions::from_mode(mode))?;
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.is_published = true;
        sync_parent(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes `bytes` to `path`, replacing what was there.
///
/// # Errors
/// Those of the file system; the old file, if any, is then untouched.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = Temporary::create(directory_of(path), &name_of(path)?)?;
    temporary.file.write_all(bytes)?;
    temporary.publish(path, mode)
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates a directory (and its parents) with `mode` and opens it to nobody else.
///
/// # Errors
/// Those of the file system.
pub fn ensure_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes what a crash left half written in `directory`.
///
/// # Errors
/// Those of the file system.
pub fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(TEMPORARY_PREFIX)
        {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn name_of(path: &Path) -> io::Result<String> {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, b"one", 0o600).unwrap();
        let mut half = Temporary::create(directory.path(), "a").unwrap();
        half.file_mut().write_all(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::write(directory.path().join(".tmp-left"), b"x").unwrap();
        sweep(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
