//! Files that a loss of power takes back to what was synced.
//!
//! Every sync of the store passes by [`before_sync`], and notes what it makes
//! durable: the bytes of a file, or the names in a directory.  When the power
//! fails, what is there at that moment is kept beside what is durable, and
//! [`Power::restore`] builds what a disk may then hold.  Names are never used
//! twice by the store, so that a name says which file it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Numbers, Unsynced};

/// Supplies by the directory that they serve; tests of other modules have none.
static SUPPLIES: Mutex<Vec<(PathBuf, Power)>> = Mutex::new(vec![]);

#[derive(Default)]
struct Inner {
    syncs: usize,
    cut_at: usize,
    is_off: bool,
    /// By name.
    synced_files: BTreeMap<String, Vec<u8>>,
    /// By path below the root.
    synced_dirs: BTreeMap<PathBuf, BTreeSet<String>>,
    /// As it was when the power failed.
    last: Tree,
}

#[derive(Default)]
struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    dirs: BTreeMap<PathBuf, BTreeSet<String>>,
}

/// One supply, for a directory and for the index's disk; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Power(Arc<Mutex<Inner>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

/// Called before each sync of a file or a directory.
pub(crate) fn before_sync(file: &File) -> io::Result<()> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let supplies = lock(&SUPPLIES);
    let found = supplies.iter().find(|(root, _)| path.starts_with(root));
    let Some((root, power)) = found.cloned() else {
        return Ok(());
    };
    drop(supplies);
    power.sync(&root)?;
    let mut inner = lock(&power.0);
    if path.is_dir() {
        let below = path.strip_prefix(&root).unwrap_or(&path).to_owned();
        inner.synced_dirs.insert(below, names(&path)?);
    } else {
        inner.synced_files.insert(name(&path), fs::read(&path)?);
    }
    Ok(())
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn names(dir: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn read_tree(root: &Path, below: &Path, tree: &mut Tree) -> io::Result<()> {
    let dir = root.join(below);
    let found = names(&dir)?;
    for name in &found {
        if dir.join(name).is_dir() {
            read_tree(root, &below.join(name), tree)?;
        } else {
            tree.files.insert(name.clone(), fs::read(dir.join(name))?);
        }
    }
    tree.dirs.insert(below.to_owned(), found);
    Ok(())
}

impl Power {
    /// Serves `root` from now on, until the `cut_at`-th sync, counted from one.
    pub(super) fn serve(root: &Path, cut_at: usize) -> Self {
        let power = Self::default();
        lock(&power.0).cut_at = cut_at;
        lock(&SUPPLIES).push((root.to_owned(), power.clone()));
        power
    }

    pub(super) fn forget(root: &Path) {
        lock(&SUPPLIES).retain(|(served, _)| served != root);
    }

    /// Counts a sync; at the chosen one the power fails.
    pub(super) fn sync(&self, root: &Path) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if inner.is_off {
            return Err(off());
        }
        inner.syncs += 1;
        if inner.syncs == inner.cut_at {
            inner.is_off = true;
            let mut tree = Tree::default();
            read_tree(root, Path::new(""), &mut tree)?;
            inner.last = tree;
            return Err(off());
        }
        Ok(())
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if lock(&self.0).is_off {
            Err(off())
        } else {
            Ok(())
        }
    }

    pub(super) fn is_off(&self) -> bool {
        lock(&self.0).is_off
    }

    pub(super) fn syncs(&self) -> usize {
        lock(&self.0).syncs
    }

    /// Builds in `to` what is on the disk when the power is back.
    pub(super) fn restore(&self, to: &Path, unsynced: Unsynced) -> io::Result<()> {
        let inner = lock(&self.0);
        let mut numbers = match unsynced {
            Unsynced::Torn(seed) => Numbers(seed),
            Unsynced::Lost | Unsynced::Kept => Numbers(0),
        };
        inner.restore(Path::new(""), to, unsynced, &mut numbers)
    }
}

impl Inner {
    fn restore(
        &self,
        below: &Path,
        to: &Path,
        unsynced: Unsynced,
        numbers: &mut Numbers,
    ) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let none = BTreeSet::new();
        let durable = self.synced_dirs.get(below).unwrap_or(&none);
        let last = self.last.dirs.get(below).unwrap_or(&none);
        for name in durable.union(last) {
            // A name whose coming or going was not synced is there or not.
            let survives = match unsynced {
                Unsynced::Lost => durable.contains(name),
                Unsynced::Kept => last.contains(name),
                Unsynced::Torn(_) => {
                    let is_settled = durable.contains(name) && last.contains(name);
                    is_settled || numbers.below(2) == 0
                }
            };
            if !survives {
                continue;
            }
            let (inside, path) = (below.join(name), to.join(name));
            let is_dir =
                self.last.dirs.contains_key(&inside) || self.synced_dirs.contains_key(&inside);
            if is_dir {
                self.restore(&inside, &path, unsynced, numbers)?;
                continue;
            }
            let synced = self.synced_files.get(name);
            let last = self.last.files.get(name);
            let bytes = match (synced, unsynced) {
                (Some(bytes), _) => bytes.clone(),
                (None, Unsynced::Lost) => vec![],
                (None, Unsynced::Kept) => last.cloned().unwrap_or_default(),
                // The length may be there before the bytes are.
                (None, Unsynced::Torn(_)) => vec![0; last.map_or(0, Vec::len)],
            };
            fs::write(path, bytes)?;
        }
        Ok(())
    }
}
