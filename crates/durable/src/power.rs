//! A loss of power, for tests: files go back to what was synced.
//!
//! Every sync of this crate passes by [`before_sync`], which notes what it
//! makes durable: the bytes of a file, or the names in a directory.  When the
//! power fails, what is there at that moment is kept beside what is durable,
//! and [`Power::restore`] builds what a disk may then hold.  In production
//! nobody is served, and a sync costs one load more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    Lost,
    /// Each piece survives or not, by this seed.
    Torn(u64),
    /// All of it had reached the disk, only the answer is missing.
    Kept,
}

/// A small generator, so that a seed tells all (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Whether anybody is served.
static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// Supplies by the directory that they serve.
static SUPPLIES: Mutex<Vec<(PathBuf, Power)>> = Mutex::new(vec![]);

/// A file or directory, whatever its names are.
type Inode = u64;

type Names = BTreeMap<String, Inode>;

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<Inode, Vec<u8>>,
    directories: BTreeMap<Inode, Names>,
}

#[derive(Debug, Default)]
struct Inner {
    syncs: usize,
    cut_at: usize,
    is_off: bool,
    root: Inode,
    durable: Tree,
    /// What is durable is kept open, so that no other file gets its inode.
    open: BTreeMap<Inode, File>,
    /// As it was when the power failed.
    last: Tree,
}

/// One supply, for a directory and for whatever else asks it; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Power(Arc<Mutex<Inner>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

/// Called before each sync of a file or a directory.
pub(crate) fn before_sync(file: &File) -> io::Result<()> {
    if !IS_SERVING.load(Ordering::Relaxed) {
        return Ok(());
    }
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let supplies = lock(&SUPPLIES);
    let found = supplies.iter().find(|(root, _)| path.starts_with(root));
    let Some((root, power)) = found.cloned() else {
        return Ok(());
    };
    drop(supplies);
    power.sync(&root)?;
    let found = file.metadata()?;
    let mut inner = lock(&power.0);
    inner.open.insert(found.ino(), file.try_clone()?);
    if found.is_dir() {
        let names = names(&path)?;
        inner.durable.directories.insert(found.ino(), names);
    } else {
        let bytes = fs::read(&path)?;
        inner.durable.files.insert(found.ino(), bytes);
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Names> {
    let mut found = Names::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A file may go between listing and looking, when other threads work.
        match entry.metadata() {
            Ok(metadata) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.insert(name, metadata.ino());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Leaves holes where there are only zeros: disks of guests are mostly that.
fn write_sparsely(path: &Path, bytes: &[u8]) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    let mut place = 0;
    for block in bytes.chunks(BLOCK) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, place)?;
        }
        place += block.len() as u64;
    }
    Ok(())
}

fn read_tree(directory: &Path, tree: &mut Tree) -> io::Result<()> {
    let found = names(directory)?;
    for (name, inode) in &found {
        let path = directory.join(name);
        if path.is_dir() {
            read_tree(&path, tree)?;
        } else if let Ok(bytes) = fs::read(&path) {
            tree.files.insert(*inode, bytes);
        }
    }
    tree.directories
        .insert(fs::metadata(directory)?.ino(), found);
    Ok(())
}

impl Power {
    /// Serves `root`, which is there and has no link in its path, from now on, until the
    /// `cut_at`-th sync, counted from one.
    pub fn serve(root: &Path, cut_at: usize) -> Self {
        let power = Self::default();
        {
            let mut inner = lock(&power.0);
            inner.cut_at = cut_at;
            inner.root = fs::metadata(root).map_or(0, |found| found.ino());
        }
        lock(&SUPPLIES).push((root.to_owned(), power.clone()));
        IS_SERVING.store(true, Ordering::Relaxed);
        power
    }

    /// Ends serving.
    pub fn forget(root: &Path) {
        lock(&SUPPLIES).retain(|(served, _)| served != root);
    }

    /// Counts a sync; at the chosen one the power fails.
    ///
    /// # Errors
    /// The power is off.
    pub fn sync(&self, root: &Path) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if inner.is_off {
            return Err(off());
        }
        inner.syncs += 1;
        if inner.syncs == inner.cut_at {
            inner.is_off = true;
            let mut tree = Tree::default();
            read_tree(root, &mut tree)?;
            inner.last = tree;
            return Err(off());
        }
        Ok(())
    }

    /// # Errors
    /// The power is off.
    pub fn check(&self) -> io::Result<()> {
        if self.is_off() { Err(off()) } else { Ok(()) }
    }

    pub fn is_off(&self) -> bool {
        lock(&self.0).is_off
    }

    pub fn syncs(&self) -> usize {
        lock(&self.0).syncs
    }

    /// Builds in `to` what is on the disk when the power is back.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn restore(&self, to: &Path, unsynced: Unsynced) -> io::Result<()> {
        let inner = lock(&self.0);
        let mut numbers = match unsynced {
            Unsynced::Torn(seed) => Numbers(seed),
            Unsynced::Lost | Unsynced::Kept => Numbers(0),
        };
        inner.restore(inner.root, to, unsynced, &mut numbers)
    }
}

impl Inner {
    fn restore(
        &self,
        directory: Inode,
        to: &Path,
        unsynced: Unsynced,
        numbers: &mut Numbers,
    ) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let none = Names::new();
        let durable = self.durable.directories.get(&directory).unwrap_or(&none);
        let last = self.last.directories.get(&directory).unwrap_or(&none);
        let all: BTreeSet<&String> = durable.keys().chain(last.keys()).collect();
        for name in all {
            let (old, new) = (durable.get(name), last.get(name));
            // A name whose coming, going or changing was not synced is as before or as after.
            let survivor = match unsynced {
                Unsynced::Lost => old,
                Unsynced::Kept => new,
                Unsynced::Torn(_) if old == new || numbers.below(2) == 0 => new,
                Unsynced::Torn(_) => old,
            };
            let Some(inode) = survivor else { continue };
            let path = to.join(name);
            let is_directory = self.last.directories.contains_key(inode)
                || self.durable.directories.contains_key(inode);
            if is_directory {
                self.restore(*inode, &path, unsynced, numbers)?;
            } else {
                write_sparsely(&path, &self.bytes(*inode, unsynced))?;
            }
        }
        Ok(())
    }

    fn bytes(&self, file: Inode, unsynced: Unsynced) -> Vec<u8> {
        let synced = self.durable.files.get(&file);
        let last = self.last.files.get(&file);
        match (synced, unsynced) {
            (Some(bytes), Unsynced::Lost | Unsynced::Torn(_)) => bytes.clone(),
            (None, Unsynced::Lost) => vec![],
            (None, Unsynced::Torn(_)) => {
                // The length may be there before the bytes are.
                vec![0; last.map_or(0, Vec::len)]
            }
            (_, Unsynced::Kept) => last.or(synced).cloned().unwrap_or_default(),
        }
    }
}
