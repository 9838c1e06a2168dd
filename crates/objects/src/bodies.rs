//! Bytes of objects as files that are named by us, never by a user.
//!
//! A body is written once, below `tmp/`, and moved to `bodies/<group>/<id>`
//! when it is whole.  How often a body is used stands in the index; this module
//! only keeps a body that is no longer used until its last reader has gone.
//!
//! Ids carry the run of the program that made them.  So what is left behind by
//! earlier runs can be told from what this run is writing: an id of an earlier
//! run that the index does not know will never be known.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cumulet_durable as durable;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bodies of one run that lie in one directory; neighbours in time share its sync.
const GROUP_BODIES: u64 = 4096;

/// Bytes that bodies leave free on the disk, so that the index can commit (a deletion, above all).
const BODIES_RESERVE: u64 = 64 * 1024 * 1024;
/// Bytes that a commit of the index leaves free: it must never meet the end of the disk.
const INDEX_RESERVE: u64 = 8 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BodyId {
    run: u64,
    number: u64,
}

impl BodyId {
    pub(crate) fn group(self) -> String {
        format!("{:016x}-{:x}", self.run, self.number / GROUP_BODIES)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.run) << 64) | u128::from(self.number)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (run, number) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            run: u64::from_be_bytes(*run),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.run, self.number)
    }
}

impl FromStr for BodyId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let part = |text: &str| {
            let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(run, number)| {
                Some(BodyId {
                    run: part(run)?,
                    number: part(number)?,
                })
            })
            .ok_or_else(|| format!("{text:?} does not name a body"))
    }
}

impl Serialize for BodyId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BodyId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Default)]
struct Pins {
    readers: HashMap<BodyId, usize>,
    /// Unused by the index, still read by somebody.
    doomed: HashSet<BodyId>,
}

/// The directory of bodies.
pub(crate) struct Bodies {
    dir: PathBuf,
    run: u64,
    next: AtomicU64,
    groups: Mutex<HashSet<String>>,
    pins: Mutex<Pins>,
    /// Held for reading from before a lookup in the index until its bodies are pinned, and for
    /// writing while bodies are given up.
    gate: RwLock<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bodies {
    pub(crate) fn open(dir: &Path, run: u64) -> Result<Self> {
        let doing = "make the directories of objects";
        for part in ["tmp", "bodies"] {
            durable::ensure_directory(&dir.join(part), 0o700)
                .map_err(|cause| Error::io(doing, &cause))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            run,
            next: AtomicU64::new(0),
            groups: Mutex::default(),
            pins: Mutex::default(),
            gate: RwLock::default(),
        })
    }

    fn path(&self, id: BodyId) -> PathBuf {
        self.dir
            .join("bodies")
            .join(id.group())
            .join(id.to_string())
    }

    fn group_dir(&self, id: BodyId) -> PathBuf {
        self.dir.join("bodies").join(id.group())
    }

    pub(crate) fn open_body(&self, id: BodyId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// # Errors
    /// `StorageFull` when a body of `wanted` more bytes would not leave the reserve.
    pub(crate) fn check_room(&self, wanted: u64) -> Result<()> {
        self.check_free(BODIES_RESERVE.saturating_add(wanted))
    }

    /// As [`Self::check_room`], for a commit of the index.
    pub(crate) fn check_room_of_index(&self) -> Result<()> {
        self.check_free(INDEX_RESERVE)
    }

    fn check_free(&self, needed: u64) -> Result<()> {
        let found = rustix::fs::statvfs(&self.dir)
            .map_err(|cause| Error::io("look at the disk of objects", &cause.into()))?;
        if found.f_bavail.saturating_mul(found.f_frsize) < needed {
            return Err(Error::StorageFull);
        }
        Ok(())
    }

    /// A new body, below its temporary name.
    pub(crate) fn create(self: &Arc<Self>) -> Result<OpenBody> {
        let id = BodyId {
            run: self.run,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        };
        let path = self.dir.join("tmp").join(id.to_string());
        let file = File::create_new(&path)
            .map_err(|cause| Error::io("create the file of an object", &cause))?;
        Ok(OpenBody {
            id,
            file,
            temporary: Temporary(path),
            bodies: self.clone(),
        })
    }

    fn ensure_group(&self, id: BodyId) -> io::Result<()> {
        let mut groups = lock(&self.groups);
        if groups.contains(&id.group()) {
            return Ok(());
        }
        let dir = self.group_dir(id);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            // Made before, by a call that could not sync.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(cause),
        }
        durable::sync_parent(&dir)?;
        groups.insert(id.group());
        Ok(())
    }

    /// Runs `lookup` and pins the bodies that it names, so that they stay readable.
    pub(crate) fn pinned<T>(
        self: &Arc<Self>,
        lookup: impl FnOnce() -> Result<(T, Vec<BodyId>)>,
    ) -> Result<(T, Pin)> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (found, ids) = lookup()?;
        let mut pins = lock(&self.pins);
        for id in &ids {
            *pins.readers.entry(*id).or_default() += 1;
        }
        drop(pins);
        Ok((
            found,
            Pin {
                bodies: self.clone(),
                ids,
            },
        ))
    }

    /// Removes bodies that the index has durably given up, now or after their last reader.
    pub(crate) fn release(&self, ids: &[BodyId]) {
        if ids.is_empty() {
            return;
        }
        // Whoever has read the index before the commit has pinned what it found once this is held.
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut pins = lock(&self.pins);
        for id in ids {
            if pins.readers.contains_key(id) {
                pins.doomed.insert(*id);
            } else {
                self.remove(*id);
            }
        }
    }

    fn remove(&self, id: BodyId) {
        if let Err(cause) = fs::remove_file(self.path(id)) {
            tracing::warn!(%id, %cause, "a body that is no longer used could not be removed");
        }
    }

    /// Removes what earlier runs left behind: temporaries, and bodies for which `is_used` says no.
    /// Returns how many files went.
    pub(crate) fn sweep(&self, is_used: impl Fn(BodyId) -> Result<bool>) -> Result<usize> {
        let io = |cause: io::Error| Error::io("look for left-over files of objects", &cause);
        let mut removed = 0;
        for entry in fs::read_dir(self.dir.join("tmp")).map_err(io)? {
            let entry = entry.map_err(io)?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<BodyId>().ok());
            if id.is_none_or(|id| id.run != self.run) {
                fs::remove_file(entry.path()).map_err(io)?;
                removed += 1;
            }
        }
        let own_groups = format!("{:016x}-", self.run);
        for group in fs::read_dir(self.dir.join("bodies")).map_err(io)? {
            let group = group.map_err(io)?;
            if group.file_name().to_string_lossy().starts_with(&own_groups) {
                continue;
            }
            let mut is_empty = true;
            for entry in fs::read_dir(group.path()).map_err(io)? {
                let entry = entry.map_err(io)?;
                match entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
                {
                    Some(id) if !is_used(id)? => {
                        fs::remove_file(entry.path()).map_err(io)?;
                        removed += 1;
                    }
                    // What is not ours is nobody's to remove.
                    Some(_) | None => is_empty = false,
                }
            }
            if is_empty {
                fs::remove_dir(group.path()).map_err(io)?;
            }
        }
        Ok(removed)
    }
}

/// Removes a temporary file unless it was moved away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// A body that is being written; dropped, its file goes.
pub(crate) struct OpenBody {
    id: BodyId,
    pub(crate) file: File,
    temporary: Temporary,
    bodies: Arc<Bodies>,
}

impl OpenBody {
    /// Syncs the file and gives it its final name, which is durable once the group's directory is
    /// synced.
    pub(crate) fn publish(mut self) -> Result<StagedFile> {
        let doing = "finish the file of an object";
        self.bodies
            .ensure_group(self.id)
            .and_then(|()| {
                durable::publish(&self.file, &self.temporary.0, &self.bodies.path(self.id))
            })
            .map_err(|cause| Error::io(doing, &cause))?;
        self.temporary.0 = PathBuf::new();
        Ok(StagedFile {
            id: self.id,
            dir: self.bodies.group_dir(self.id),
            bodies: Some(self.bodies.clone()),
        })
    }
}

/// A whole body that no record names yet; dropped, its file goes.
pub(crate) struct StagedFile {
    pub(crate) id: BodyId,
    /// To be synced before a record names the body.
    pub(crate) dir: PathBuf,
    bodies: Option<Arc<Bodies>>,
}

impl StagedFile {
    /// From here the file stays: a record names it, or the next start collects it.  Removing it
    /// after a commit of which the outcome is unknown could lose an acknowledged object.
    pub(crate) fn keep(mut self) -> BodyId {
        self.bodies = None;
        self.id
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(bodies) = &self.bodies {
            bodies.remove(self.id);
        }
    }
}

/// Keeps bodies on the disk while somebody reads them.
pub(crate) struct Pin {
    bodies: Arc<Bodies>,
    ids: Vec<BodyId>,
}

impl Pin {
    pub(crate) fn open_body(&self, id: BodyId) -> io::Result<File> {
        self.bodies.open_body(id)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.bodies.pins);
        for id in &self.ids {
            let left = pins.readers.get_mut(id).map(|count| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                pins.readers.remove(id);
                if pins.doomed.remove(id) {
                    self.bodies.remove(*id);
                }
            }
        }
    }
}
