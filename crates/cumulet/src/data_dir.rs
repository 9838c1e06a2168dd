//! The directory of everything that is kept.
//!
//! ```text
//!   lock            held while a program has the directory open
//!   cloud-id        eight hexadecimal digits; names of things on the host carry them
//!   sealing.key     with it secrets are sealed; mode 0600, left out of backups
//!   store.redb      records
//!   objects/ images/ disks/ overlays/ run/ consoles/ kernels/   by their crates
//!   client/         what the first user's tools need, in clear
//!   control.sock    the operator's door while a server runs
//!   address         where the running server listens
//!   restoring       while a backup is being restored; no server starts with it
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cumulet_auth::seal::KEY_LEN;
use cumulet_durable as durable;
use zeroize::Zeroizing;

/// How long a lock is waited for that no living server seems to hold.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Name of the mark of a restore that is under way.
const RESTORING: &str = "restoring";

/// Another process has the directory open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse(pub(crate) PathBuf);

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "another cumulet server uses {}; stop it first, or give this one another --data-dir",
            self.0.display()
        )
    }
}

impl std::error::Error for InUse {}

/// An open data directory; nobody else has it until this is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    cloud_id: String,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is absent, and locks it.
    ///
    /// # Errors
    /// [`InUse`]; whatever the file system answers; a restore that did not finish.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let dir = Self::locked(path)?;
        if dir.join(RESTORING).exists() {
            bail!(
                "{} holds a restore that did not finish: delete the directory and restore again",
                dir.path.display()
            );
        }
        Ok(dir)
    }

    /// Makes and locks a directory that a backup is restored to, with an id of its own unless one
    /// is given.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn begin_restore(path: &Path, cloud_id: Option<&str>) -> anyhow::Result<Self> {
        make_private(path).with_context(|| format!("{} cannot be made", path.display()))?;
        write_durably(&path.join(RESTORING), b"", 0o600)?;
        if let Some(id) = cloud_id {
            write_durably(&path.join("cloud-id"), format!("{id}\n").as_bytes(), 0o600)?;
        }
        Self::locked(path)
    }

    /// From here it is like any other.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn end_restore(&self) -> anyhow::Result<()> {
        fs::remove_file(self.join(RESTORING))
            .and_then(|()| durable::sync_directory(&self.path))
            .context("the restore cannot be finished")
    }

    fn locked(path: &Path) -> anyhow::Result<Self> {
        make_private(path).with_context(|| format!("{} cannot be made", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("{} cannot be opened", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("{} cannot be written to", path.display()))?;
        take(&lock, &path)?;
        let cloud_id = cloud_id(&path)?;
        Ok(Self {
            path,
            cloud_id,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Eight hexadecimal digits, made once.
    pub(crate) fn cloud_id(&self) -> &str {
        &self.cloud_id
    }

    /// The key that secrets are sealed with.  Made when there is neither a key nor a store.
    ///
    /// # Errors
    /// When a store is there and its key is not: a new one would open nothing.
    pub(crate) fn sealing_key(&self) -> anyhow::Result<Zeroizing<[u8; KEY_LEN]>> {
        let file = self.join("sealing.key");
        match fs::read(&file) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let key: [u8; KEY_LEN] = bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| anyhow::anyhow!("{} is damaged", file.display()))?;
                Ok(Zeroizing::new(key))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                if self.join("store.redb").exists() {
                    bail!(
                        "{} is missing: the records' secrets cannot be opened without it; put it back from where your backup keeps it",
                        file.display()
                    );
                }
                let mut key = Zeroizing::new([0; KEY_LEN]);
                aws_lc_rs::rand::fill(key.as_mut_slice())
                    .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
                write_durably(&file, key.as_slice(), 0o600)?;
                Ok(key)
            }
            Err(cause) => Err(cause).with_context(|| format!("{} cannot be read", file.display())),
        }
    }
}

impl DataDir {
    /// Takes a key that was kept elsewhere.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn keep_sealing_key(&self, key: &[u8; KEY_LEN]) -> anyhow::Result<()> {
        write_durably(&self.join("sealing.key"), key, 0o600)
    }
}

/// Takes the lock.  A server that was just killed may leave it held for a moment: a child that it
/// was about to start has a copy of every descriptor until it becomes another program.  So it is
/// waited for, unless a server answers.
fn take(lock: &File, path: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + LOCK_PATIENCE;
    let mut has_waited = false;
    loop {
        match lock.try_lock() {
            Ok(()) => {
                // The child closes its copies one after the other: also those of the records.
                if has_waited {
                    std::thread::sleep(LOCK_PAUSE);
                }
                return Ok(());
            }
            Err(TryLockError::WouldBlock) => {
                if Instant::now() >= until || crate::control::answers(path) {
                    return Err(InUse(path.to_owned()).into());
                }
                has_waited = true;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::Error(cause)) => {
                return Err(cause).context("the data directory cannot be locked");
            }
        }
    }
}

/// The id of the cloud in `path`, if there is one.
pub(crate) fn find_cloud_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path.join("cloud-id")).ok()?;
    let id = text.trim();
    let is_id = id.len() == 8
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then(|| id.to_owned())
}

fn cloud_id(path: &Path) -> anyhow::Result<String> {
    let file = path.join("cloud-id");
    if file.exists() {
        return find_cloud_id(path).with_context(|| format!("{} is damaged", file.display()));
    }
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let id = hex::encode(bytes);
    write_durably(&file, format!("{id}\n").as_bytes(), 0o600)?;
    Ok(id)
}

/// A directory that only its owner enters; parents are made as the system makes them.
///
/// # Errors
/// Those of the file system; also when it is there and belongs to somebody else.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => durable::sync_parent(path),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path)?;
            if !metadata.is_dir() {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "it is not a directory",
                ));
            }
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it belongs to another user",
                ));
            }
            // A directory that others use must not become ours: it would be closed to them now, and
            // removed by a purge.
            let is_known = |name: &str| path.join(name).exists();
            let is_ours = is_known("cloud-id") || is_known("lock");
            let is_empty = || fs::read_dir(path).map(|mut entries| entries.next().is_none());
            if metadata.permissions().mode() & 0o077 != 0 && !is_ours && !is_empty()? {
                return Err(io::Error::new(
                    io::ErrorKind::DirectoryNotEmpty,
                    "it is open to others and holds files that are no cloud's: name a new or an empty directory",
                ));
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        Err(cause) => Err(cause),
    }
}

/// Writes a whole file: under a temporary name, synced, renamed, directory synced.
///
/// # Errors
/// Those of the file system; the file is then as it was.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    durable::write(path, bytes, mode)
        .with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_keeps_its_id_and_is_open_once() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("deep/cloud");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let refused = DataDir::open(&path).err().unwrap();
        assert!(refused.is::<InUse>());
        let (id, key) = (dir.cloud_id().to_owned(), dir.sealing_key().unwrap());
        drop(dir);
        let again = DataDir::open(&path).unwrap();
        assert_eq!(again.cloud_id(), id);
        assert_eq!(*again.sealing_key().unwrap(), *key);
    }

    #[test]
    fn a_store_without_its_key_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud")).unwrap();
        fs::write(dir.join("store.redb"), b"").unwrap();
        assert!(dir.sealing_key().is_err());
    }
}
