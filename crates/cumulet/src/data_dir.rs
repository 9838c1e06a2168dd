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

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
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

const LOCK: &str = "lock";
const CLOUD_ID: &str = "cloud-id";
/// Name of the mark of a restore that is under way.
const RESTORING: &str = "restoring";
/// A file system of its own has this from the beginning.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// What a program opens the directory for.  It is written into the lock, and decides the advice
/// that others get while it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Serve,
    /// An operator's command that finds no server.
    Command,
    Uninstall,
    Restore,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Purpose::Serve => "serve",
            Purpose::Command => "command",
            Purpose::Uninstall => "uninstall",
            Purpose::Restore => "restore",
        }
    }
}

/// Another process has the directory open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse {
    path: PathBuf,
    /// What this program wanted.
    wanted: Purpose,
    /// As the lock has it: process and purpose.
    holder: String,
}

impl InUse {
    /// Reads who holds the lock of `path`.
    pub(crate) fn of(path: &Path, wanted: Purpose) -> Self {
        Self {
            path: path.to_owned(),
            wanted,
            holder: fs::read_to_string(path.join("lock")).unwrap_or_default(),
        }
    }

    /// `" (process 7)"` while that process lives.
    fn process(&self) -> String {
        let number = self.holder.split(' ').next().unwrap_or_default();
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if is_number && Path::new("/proc").join(number).exists() {
            format!(" (process {number})")
        } else {
            String::new()
        }
    }

    fn is_held_by_a_server(&self) -> bool {
        !["command", "uninstall", "restore"]
            .iter()
            .any(|word| self.holder.trim_end().ends_with(word))
    }
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, process) = (self.path.display(), self.process());
        if !self.is_held_by_a_server() {
            return write!(
                f,
                "another cumulet command{process} uses {path}; try again when it is done"
            );
        }
        match self.wanted {
            Purpose::Serve => write!(
                f,
                "another cumulet server{process} uses {path}; stop it first, or give this one another --data-dir"
            ),
            Purpose::Uninstall => write!(
                f,
                "a cumulet server{process} uses {path}; stop it first (its guests run on until they are uninstalled), then type this again"
            ),
            Purpose::Restore => write!(
                f,
                "another cumulet server{process} uses {path}; a backup is restored into a new directory only: name another with --data-dir"
            ),
            Purpose::Command => write!(
                f,
                "the cumulet server{process} of {path} is starting or stopping and answers no commands yet; try again in a moment"
            ),
        }
    }
}

impl std::error::Error for InUse {}

/// What a path is, for a program that wants its data there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// Empty, or a file system that was just made.
    Free,
    /// A cloud's, also one that is not finished.
    Ours,
}

/// Looks without changing anything.
///
/// # Errors
/// When files are there that are no cloud's, naming one; whatever the file system answers.
pub(crate) fn look(path: &Path) -> anyhow::Result<Found> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(cause) => {
            return Err(cause).with_context(|| format!("{} cannot be used", path.display()));
        }
    };
    let mut names = vec![];
    for entry in entries {
        let name = entry
            .with_context(|| format!("{} cannot be read", path.display()))?
            .file_name();
        names.extend((name != LOST_AND_FOUND).then_some(name));
    }
    if names.is_empty() {
        return Ok(Found::Free);
    }
    if names.iter().any(|it| it == CLOUD_ID || it == RESTORING) {
        return Ok(Found::Ours);
    }
    // A first start that was cut off has made its lock, and begun to write its id.
    let is_begun = |name: &OsString| {
        name == LOCK
            || name
                .to_string_lossy()
                .starts_with(durable::TEMPORARY_PREFIX)
    };
    names.retain(|name| !is_begun(name));
    names.sort();
    match names.first() {
        None => Ok(Found::Ours),
        Some(name) => bail!(
            "{} is no cloud's data directory: it holds {}; name a new or an empty directory",
            path.display(),
            name.display()
        ),
    }
}

/// Deletes everything in a data directory, and itself unless a file system is mounted there.
/// Returns whether the directory is gone.
///
/// # Errors
/// Those of the file system.
pub(crate) fn purge(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOST_AND_FOUND {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(cause)
            if matches!(
                cause.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(false)
        }
        Err(cause) => Err(cause),
    }
}

/// An open data directory; nobody else has it until this is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    cloud_id: String,
    /// Whether the id was made by this program, so that no cloud was here before.
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is absent, and locks it.
    ///
    /// # Errors
    /// [`InUse`]; whatever the file system answers; files that are no cloud's; a restore that did not
    /// finish.
    pub(crate) fn open(path: &Path, purpose: Purpose) -> anyhow::Result<Self> {
        look(path)?;
        let (path, lock) = locked(path, purpose)?;
        if path.join(RESTORING).exists() {
            bail!(
                "{} holds a restore that did not finish: delete the directory and restore again",
                path.display()
            );
        }
        Self::with_id(path, lock)
    }

    /// Makes and locks a directory that a backup is restored to, with an id of its own unless one
    /// is given.  Whether it is free is decided under the lock: before, it may become a cloud's.
    ///
    /// # Errors
    /// [`InUse`]; whatever the file system answers; a directory that holds anything.
    pub(crate) fn begin_restore(path: &Path, cloud_id: Option<&str>) -> anyhow::Result<Self> {
        let (path, lock) = locked(path, Purpose::Restore)?;
        let shown = path.display();
        for entry in fs::read_dir(&path).with_context(|| format!("{shown} cannot be read"))? {
            let name = entry
                .with_context(|| format!("{shown} cannot be read"))?
                .file_name();
            if name != LOCK && name != LOST_AND_FOUND {
                bail!("{shown} is not empty: a backup is restored into a new directory only");
            }
        }
        write_durably(&path.join(RESTORING), b"", 0o600)?;
        if let Some(id) = cloud_id {
            write_durably(&path.join(CLOUD_ID), format!("{id}\n").as_bytes(), 0o600)?;
        }
        Self::with_id(path, lock)
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

    /// Reads the id, or makes it.
    fn with_id(path: PathBuf, lock: File) -> anyhow::Result<Self> {
        let (cloud_id, is_new) = cloud_id(&path)?;
        Ok(Self {
            path,
            cloud_id,
            is_new,
            _lock: lock,
        })
    }

    /// Whether this is the first time that it is open, as the lock's holder knows it.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
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

/// Makes the directory if it is absent, and locks it: its real path, and the lock.
fn locked(path: &Path, purpose: Purpose) -> anyhow::Result<(PathBuf, File)> {
    make_private(path).with_context(|| format!("{} cannot be made", path.display()))?;
    let path = path
        .canonicalize()
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    let doing = || format!("{} cannot be written to", path.display());
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join(LOCK))
        .with_context(doing)?;
    take(&lock, &path, purpose)?;
    sign(&lock, purpose).with_context(doing)?;
    Ok((path, lock))
}

/// Takes the lock.  A server that was just killed may leave it held for a moment: a child that it
/// was about to start has a copy of every descriptor until it becomes another program.  So it is
/// waited for, unless a server answers.
fn take(lock: &File, path: &Path, purpose: Purpose) -> anyhow::Result<()> {
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
                    return Err(InUse::of(path, purpose).into());
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

/// Writes who holds the lock, for others to read.  Nothing depends on it.
fn sign(mut lock: &File, purpose: Purpose) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(format!("{} {}\n", std::process::id(), purpose.word()).as_bytes())
}

/// The id of the cloud in `path`, if there is one.
pub(crate) fn find_cloud_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path.join(CLOUD_ID)).ok()?;
    let id = text.trim();
    let is_id = id.len() == 8
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then(|| id.to_owned())
}

/// The id, and whether it was made just now.
fn cloud_id(path: &Path) -> anyhow::Result<(String, bool)> {
    let file = path.join(CLOUD_ID);
    if file.exists() {
        let id = find_cloud_id(path).with_context(|| format!("{} is damaged", file.display()))?;
        return Ok((id, false));
    }
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let id = hex::encode(bytes);
    write_durably(&file, format!("{id}\n").as_bytes(), 0o600)?;
    Ok((id, true))
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
/// Those of the file system; then the old file stands, or the new one when only the directory could
/// not be synced.
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
        let dir = DataDir::open(&path, Purpose::Serve).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let refused = |wanted| DataDir::open(&path, wanted).err().unwrap().to_string();
        let process = format!("(process {})", std::process::id());
        for (wanted, advice) in [
            (Purpose::Serve, "another --data-dir"),
            (Purpose::Command, "starting or stopping"),
            (Purpose::Uninstall, "stop it first"),
        ] {
            let text = refused(wanted);
            assert!(text.contains(advice) && text.contains(&process), "{text}");
        }
        let (id, key) = (dir.cloud_id().to_owned(), dir.sealing_key().unwrap());
        drop(dir);
        let again = DataDir::open(&path, Purpose::Command).unwrap();
        assert_eq!(again.cloud_id(), id);
        assert_eq!(*again.sealing_key().unwrap(), *key);
        assert!(refused(Purpose::Serve).contains("another cumulet command"));
    }

    #[test]
    fn a_restore_marks_nothing_that_became_a_cloud() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("cloud");
        let dir = DataDir::open(&path, Purpose::Serve).unwrap();
        assert!(dir.is_new());
        let id = dir.cloud_id().to_owned();
        let refused = || {
            let cause = DataDir::begin_restore(&path, Some("01234567")).err();
            assert!(!path.join(RESTORING).exists());
            assert_eq!(find_cloud_id(&path).as_ref(), Some(&id));
            cause.unwrap().to_string()
        };
        assert!(refused().contains("another cumulet server"));
        drop(dir);
        assert!(refused().contains("not empty"));
        assert!(!DataDir::open(&path, Purpose::Serve).unwrap().is_new());

        // What a file system has from the beginning is no hindrance.
        let path = outer.path().join("mounted");
        fs::create_dir_all(path.join(LOST_AND_FOUND)).unwrap();
        let dir = DataDir::begin_restore(&path, Some("01234567")).unwrap();
        assert_eq!(dir.cloud_id(), "01234567");
        drop(dir);
        assert!(DataDir::open(&path, Purpose::Serve).is_err());
    }

    #[test]
    fn a_store_without_its_key_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        fs::write(dir.join("store.redb"), b"").unwrap();
        assert!(dir.sealing_key().is_err());
    }

    #[test]
    fn a_free_directory_is_taken_and_a_strangers_is_named() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("mounted");
        assert_eq!(look(&path).unwrap(), Found::Absent);
        for mode in [0o700, 0o755] {
            fs::create_dir_all(path.join(LOST_AND_FOUND)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look(&path).unwrap(), Found::Free);
            fs::write(path.join("photo.jpg"), b"").unwrap();
            let refused = DataDir::open(&path, Purpose::Serve).err().unwrap();
            assert!(refused.to_string().contains("photo.jpg"), "{refused}");
            assert!(!path.join(LOCK).exists());
            fs::remove_file(path.join("photo.jpg")).unwrap();
            // Cut off between its lock and its id, it is a cloud's all the same.
            fs::write(path.join(LOCK), b"").unwrap();
            assert_eq!(look(&path).unwrap(), Found::Ours);
            drop(DataDir::open(&path, Purpose::Serve).unwrap());
            assert_eq!(look(&path).unwrap(), Found::Ours);
            assert!(!purge(&path).unwrap());
            assert_eq!(look(&path).unwrap(), Found::Free);
        }
        fs::remove_dir(path.join(LOST_AND_FOUND)).unwrap();
        assert!(purge(&path).unwrap());
    }
}
