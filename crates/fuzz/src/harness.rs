//! One run of one target: the corpus as it is, then children of it until the time is over.
//!
//! Without instrumentation of the compiled code the only thing that tells two
//! inputs apart is what was answered: each target gives the shape of its answer,
//! and inputs with a shape that was not seen before become parents too.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::mutate::{Random, mutate};
use crate::targets::Target;
use crate::watch::Watchdog;

/// Inputs that a run remembers.
const CORPUS_MAX: usize = 2_000;

pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    /// Whether what was found is kept for the next run.
    pub(crate) is_kept: bool,
    /// This file alone.
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) inputs: u64,
    pub(crate) kinds: usize,
    pub(crate) corpus: usize,
}

/// What a thread said when it panicked; also of threads that the target started.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Runs a target.
///
/// # Errors
/// When an input made it panic, with the place of a file that holds it.
pub(crate) fn run(target: &Target, options: &Options) -> anyhow::Result<Report> {
    std::panic::set_hook(Box::new(|info| {
        let mut said = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_or_insert_with(|| info.to_string());
    }));
    let work = work_directory();
    let failures = work.join("failures");
    std::fs::create_dir_all(&failures).context("could not make the directory of failures")?;
    let current = failures.join(format!("{}-{}", target.name, std::process::id()));
    let found = work.join("corpus").join(target.name);
    let mut corpus = match &options.replay {
        Some(file) => vec![read(file)?],
        None => {
            let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            let mut corpus = read_all(&kept.join(target.name))?;
            if options.is_kept {
                corpus.extend(read_all(&found)?);
            }
            corpus
        }
    };
    if corpus.is_empty() {
        bail!("{} has no corpus", target.name);
    }
    let mut runner = (target.prepare)();
    let mut session = Session {
        file: File::create(&current).context("could not open the file of the input")?,
        path: current.clone(),
        watchdog: Watchdog::start(&current)?,
        runner: &mut runner,
        inputs: 0,
    };
    let mut kinds = BTreeSet::new();
    for input in &corpus {
        kinds.insert(session.try_one(input)?);
    }
    let mut random = Random::new(options.seed);
    let begin = Instant::now();
    while begin.elapsed() < options.time && options.replay.is_none() {
        let (parent, other) = (random.below(corpus.len()), random.below(corpus.len()));
        let child = mutate(
            &mut random,
            &corpus[parent],
            &corpus[other],
            target.dictionary,
            target.length_max,
        );
        if !kinds.insert(session.try_one(&child)?) {
            continue;
        }
        if options.is_kept {
            keep(&found, &child)?;
        }
        if corpus.len() < CORPUS_MAX {
            corpus.push(child);
        }
    }
    let inputs = session.inputs;
    std::fs::remove_file(&current).context("could not remove the file of the input")?;
    Ok(Report {
        inputs,
        kinds: kinds.len(),
        corpus: corpus.len(),
    })
}

struct Session<'a> {
    /// Holds the input that is running: whatever ends the process, it stays.
    file: File,
    path: PathBuf,
    watchdog: Watchdog,
    runner: &'a mut crate::targets::Runner,
    inputs: u64,
}

impl Session<'_> {
    fn try_one(&mut self, input: &[u8]) -> anyhow::Result<u64> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(input, 0))
            .context("could not write the input")?;
        self.inputs += 1;
        self.watchdog.begin();
        let shape = catch_unwind(AssertUnwindSafe(|| (self.runner)(input)));
        self.watchdog.end();
        let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (shape, said) {
            (Ok(shape), None) => Ok(shape),
            (_, said) => bail!(
                "FAILED: input {} panicked: {}; it is in {}",
                self.inputs,
                said.unwrap_or_default(),
                self.path.display()
            ),
        }
    }
}

/// `target/fuzz` of the workspace, or what `FUZZ_DIR` names.
pub(crate) fn work_directory() -> PathBuf {
    std::env::var_os("FUZZ_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz"),
        PathBuf::from,
    )
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// The files of a directory, by name; none when there is no such directory.
fn read_all(directory: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    if !directory.is_dir() {
        return Ok(vec![]);
    }
    let entries = std::fs::read_dir(directory).context("could not list a corpus")?;
    let mut paths = vec![];
    for entry in entries {
        paths.push(entry.context("could not list a corpus")?.path());
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn keep(directory: &Path, input: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).context("could not make the directory of the corpus")?;
    let name = format!("{:016x}", hash(input));
    std::fs::write(directory.join(name), input).context("could not keep an input")
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The shape of a text: its letters, without numbers, quoted parts and repetition.
pub(crate) fn shape(text: &str) -> u64 {
    const SHOWN: usize = 240;
    let last = Cell::new('\0');
    let is_quoted = Cell::new(false);
    let letters: String = text
        .chars()
        .take(SHOWN)
        .filter(|character| {
            if matches!(character, '"' | '\'') {
                is_quoted.set(!is_quoted.get());
            }
            !is_quoted.get()
                && !character.is_ascii_digit()
                && last.replace(*character) != *character
        })
        .collect();
    hash(letters.as_bytes())
}

/// Part of a seed that differs from run to run.
pub(crate) fn nanos() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or_default()
}
