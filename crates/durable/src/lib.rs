//! Files that are whole or absent, also after a loss of power.
//!
//! The one place that knows the order: write under a temporary name, sync the
//! file, rename, sync the directory.  `cargo xtask check` finds code that goes
//! past it.  Leftovers of a crash carry [`TEMPORARY_PREFIX`] and are swept when
//! a directory is opened.
//!
//! Every sync passes by [`power`], where tests stand and cut the power.

pub mod power;

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

    /// Gives the file its mode and final name, in place of what had it; after `Ok` it survives a
    /// loss of power.
    ///
    /// # Errors
    /// Those of the file system; the temporary file is then removed.
    pub fn publish(mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.file
            .set_permissions(fs::Permissions::from_mode(mode))?;
        publish(&self.file, &self.path, path)?;
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

/// Syncs a finished file and gives it its name.  The caller syncs the directory, which many files
/// may share.
///
/// # Errors
/// Those of the file system.
pub fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    sync(file)?;
    fs::rename(temporary, path)
}

/// Gives a synced file another name beside its own, and refuses to replace what has that name.
///
/// # Errors
/// Those of the file system; `AlreadyExists`.
pub fn publish_new(temporary: &Path, path: &Path) -> io::Result<()> {
    // A link, unlike a rename, never replaces what is there.
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)?;
    sync_parent(path)
}

/// Renames a directory whose files are durable, as [`write`] makes them.
///
/// # Errors
/// Those of the file system.
pub fn publish_directory(temporary: &Path, path: &Path) -> io::Result<()> {
    sync_directory(temporary)?;
    fs::rename(temporary, path)?;
    sync_parent(path)
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

/// Creates a directory with `mode` and opens it to nobody else; the parents that are missing are
/// made too.  After `Ok` it survives a loss of power.
///
/// # Errors
/// Those of the file system.
pub fn ensure_directory(path: &Path, mode: u32) -> io::Result<()> {
    let parent = directory_of(path);
    if !parent.is_dir() {
        ensure_directory(parent, mode)?;
    }
    make_directory(path, mode)?;
    // Also when it was there: whoever made it may have ended before this.
    sync_parent(path)
}

/// Creates a directory with `mode`, whose parent is there, and opens it to nobody else; a loss of
/// power may take it.
///
/// # Errors
/// Those of the file system.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
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

/// Makes the names in a directory durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    sync(&File::open(path)?)
}

/// Syncs the directory that `path` is in.
///
/// # Errors
/// Those of the file system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_directory(directory_of(path))
}

fn sync(file: &File) -> io::Result<()> {
    power::before_sync(file)?;
    file.sync_all()
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
    use super::power::{Power, Unsynced};
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

    #[test]
    fn what_is_new_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::write(&old, b"old").unwrap();
        fs::write(&new, b"new").unwrap();
        let refused = publish_new(&new, &old).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&old).unwrap(), b"old");
        fs::remove_file(&old).unwrap();
        publish_new(&new, &old).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"new");
        assert!(!new.exists());
    }

    /// Each promise of this module, cut at every sync.
    #[test]
    fn what_returned_survives_a_loss_of_power() {
        let mut cuts = 0;
        loop {
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path().canonicalize().unwrap().join("root");
            fs::create_dir(&root).unwrap();
            let power = Power::serve(&root, cuts + 1);
            let mut done: Vec<&str> = vec![];
            let work = |done: &mut Vec<&str>| -> io::Result<()> {
                ensure_directory(&root.join("deep/er"), 0o700)?;
                write(&root.join("deep/er/file"), b"first", 0o600)?;
                done.push("first");
                write(&root.join("deep/er/file"), b"second", 0o600)?;
                done.push("second");
                ensure_directory(&root.join("deep/.tmp-folder"), 0o700)?;
                write(&root.join("deep/.tmp-folder/in"), b"inside", 0o600)?;
                publish_directory(&root.join("deep/.tmp-folder"), &root.join("deep/folder"))?;
                done.push("folder");
                remove(&root.join("deep/er/file"))?;
                done.push("removed");
                Ok(())
            };
            let outcome = work(&mut done);
            Power::forget(&root);
            if outcome.is_ok() {
                assert!(!power.is_off());
                break;
            }
            assert!(power.is_off(), "{outcome:?}");
            for unsynced in [Unsynced::Lost, Unsynced::Torn(cuts as u64), Unsynced::Kept] {
                let left = scratch.path().join(format!("{unsynced:?}"));
                power.restore(&left, unsynced).unwrap();
                let file = fs::read(left.join("deep/er/file")).ok();
                let file = file.as_deref();
                let has = |step: &str| done.contains(&step);
                let expected = match () {
                    () if has("removed") => vec![None],
                    () if has("folder") => vec![Some(b"second".as_slice()), None],
                    () if has("second") => vec![Some(b"second".as_slice())],
                    () if has("first") => vec![Some(b"first".as_slice()), Some(b"second")],
                    () => vec![None, Some(b"first".as_slice())],
                };
                assert!(
                    expected.contains(&file),
                    "cut {cuts}, {unsynced:?}, after {done:?}: {file:?}"
                );
                let inside = fs::read(left.join("deep/folder/in")).ok();
                assert!(inside.is_none() || inside.as_deref() == Some(b"inside"));
                assert!(!has("folder") || inside.is_some());
            }
            cuts += 1;
        }
        assert!(cuts >= 12, "only {cuts} syncs");
    }
}
