//! A process that commits is killed at any moment: what it acknowledged is there.
//!
//! The child is this test program again, with a variable that names the file.
//! It commits numbered batches from several threads and prints the number of each
//! that was acknowledged.  All rounds use the same file, so that a loss in an
//! early round is seen in every later one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::disk::Numbers;
use bytes::Bytes;
use cumulet_store::conformance::{FIRST, KINDS, SECOND};
use cumulet_store::{Change, EmbeddedEngine, Engine, Plan, Revision, Store, View, ViewError};

const CHILD: &str = "CUMULET_STORE_TEST_CHILD";
const SEED: &str = "CUMULET_TEST_SEED";
const ROUNDS: u64 = 60;
const THREADS: usize = 6;
/// Records of one commit, besides the counter and the marker.
const PIECES: u64 = 4;

/// The child's state: how far it has counted.
#[derive(Clone, Default)]
struct Counter(u64);

impl View for Counter {
    fn apply(&mut self, _revision: Revision, change: &Change) -> Result<(), ViewError> {
        if &*change.key == "counter" {
            let bytes = change.value.as_deref().unwrap_or_default();
            let text = std::str::from_utf8(bytes).map_err(|_| ViewError::new("not text"))?;
            self.0 = text.parse().map_err(|_| ViewError::new("not a number"))?;
        }
        Ok(())
    }
}

fn piece(number: u64, place: u64) -> Bytes {
    let length = usize::try_from(number * 37 % 900 + place).unwrap();
    let mut text = format!("{number} {place} ");
    text.extend(std::iter::repeat_n('x', length));
    Bytes::from(text)
}

/// The next number's batch: its pieces, the counter, and a marker that moves along.
fn count(counter: &Counter) -> Result<Plan<u64>, ()> {
    let number = counter.0 + 1;
    let mut changes: Vec<Change> = (0..PIECES)
        .map(|place| Change::put(FIRST, format!("{number}/{place}"), piece(number, place)))
        .collect();
    changes.push(Change::put(
        SECOND,
        "counter",
        Bytes::from(number.to_string()),
    ));
    changes.push(Change::put(
        SECOND,
        format!("marker-{number}"),
        Bytes::new(),
    ));
    changes.push(Change::delete(SECOND, format!("marker-{}", number - 1)));
    Ok(Plan {
        changes,
        answer: number,
    })
}

/// The child's half; in an ordinary run there is no file and nothing to do.
#[test]
fn child_counts_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let engine = EmbeddedEngine::open(Path::new(&path), KINDS).unwrap();
    let store = Store::open(Box::new(engine), Counter::default()).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                loop {
                    let committed = store.commit_blocking(count).unwrap();
                    let line = format!(
                        "acknowledged {} {} .\n",
                        committed.answer, committed.revision
                    );
                    let mut stdout = std::io::stdout().lock();
                    stdout.write_all(line.as_bytes()).unwrap();
                    stdout.flush().unwrap();
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

/// Kills the child at a moment that the numbers choose; some rounds end while the file is opened.
fn run_and_kill(path: &Path, numbers: &mut Numbers) -> Vec<(u64, Revision)> {
    let lines = match numbers.below(8) {
        0 => 0,
        _ => 1 + usize::try_from(numbers.below(60)).unwrap(),
    };
    kill_after(path, lines, numbers.below(12_000))
}

/// Runs the child, kills it some time after it has acknowledged so many commits, and returns what
/// it acknowledged, with the revisions.
fn kill_after(path: &Path, count: usize, microseconds: u64) -> Vec<(u64, Revision)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_counts_until_it_is_killed"])
        .args(["--nocapture", "--test-threads", "1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = vec![];
    while acknowledged.len() < count {
        let line = lines.next().expect("the child goes on until it is killed");
        acknowledged.extend(parse(&line.unwrap()));
    }
    std::thread::sleep(Duration::from_micros(microseconds));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "the child ends by the signal and not by itself"
    );
    // A line that was cut off in the middle was not acknowledged to anybody.
    let rest = lines.map_while(Result::ok);
    acknowledged.extend(rest.filter_map(|line| parse(&line)));
    acknowledged
}

/// A number and its revision; `None` for the test runner's own words.
fn parse(line: &str) -> Option<(u64, Revision)> {
    let (_, numbers) = line.split_once("acknowledged ")?;
    let (number, rest) = numbers.split_once(' ')?;
    let revision = rest.strip_suffix(" .")?;
    Some((number.parse().ok()?, revision.parse().ok()?))
}

/// Reads the file and checks that it is a whole prefix of the counting; returns how far it goes.
fn check(path: &Path, acknowledged: &BTreeMap<u64, Revision>) -> u64 {
    let mut engine = EmbeddedEngine::open(path, KINDS).unwrap();
    let mut pieces: BTreeMap<String, (Revision, Bytes)> = BTreeMap::new();
    let mut others: BTreeMap<String, Bytes> = BTreeMap::new();
    let newest = engine
        .load(&mut |revision, change| {
            let value = change.value.unwrap_or_default();
            match change.kind == FIRST {
                true => drop(pieces.insert(change.key.to_string(), (revision, value))),
                false => drop(others.insert(change.key.to_string(), value)),
            }
            Ok(())
        })
        .unwrap();
    let Some(counter) = others.remove("counter") else {
        assert!(acknowledged.is_empty() && pieces.is_empty() && newest == 0);
        return 0;
    };
    let last: u64 = std::str::from_utf8(&counter).unwrap().parse().unwrap();
    assert_eq!(
        others.keys().collect::<Vec<_>>(),
        [&format!("marker-{last}")],
        "exactly the last marker is there"
    );
    let mut revisions = BTreeSet::new();
    let mut before = 1;
    for number in 1..=last {
        for place in 0..PIECES {
            let found = pieces.remove(&format!("{number}/{place}"));
            let (revision, value) = found.expect("every piece of a counted batch is there");
            assert_eq!(value, piece(number, place));
            assert!(revision == before || revision == before + 1, "in order");
            if let Some(told) = acknowledged.get(&number) {
                assert_eq!(revision, *told, "the revision is the acknowledged one");
            }
            before = revision;
            revisions.insert(revision);
        }
    }
    assert!(pieces.is_empty(), "nothing half: {:?}", pieces.keys());
    assert!(
        revisions.into_iter().eq(1..=newest),
        "no revision is missing"
    );
    if let Some((highest, _)) = acknowledged.last_key_value() {
        assert!(
            *highest <= last,
            "{highest} was acknowledged, {last} is there"
        );
    }
    last
}

#[test]
fn sixty_kills_lose_nothing_acknowledged() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_070_301);
    println!("{SEED}={seed}");
    let mut numbers = Numbers(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let mut acknowledged = BTreeMap::new();
    for round in 1..=ROUNDS {
        acknowledged.extend(run_and_kill(&path, &mut numbers));
        let last = check(&path, &acknowledged);
        println!(
            "round {round}: {} acknowledged, {last} there",
            acknowledged.len()
        );
    }
    assert!(acknowledged.len() > 100, "the children did some work");
}

#[test]
fn kills_while_the_file_is_made_leave_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..16 {
        let path = dir.path().join(format!("{round}.redb"));
        let mut numbers = Numbers(round);
        let mut acknowledged = BTreeMap::new();
        for _ in 0..2 {
            acknowledged.extend(kill_after(&path, 0, numbers.below(40_000)));
        }
        check(&path, &acknowledged);
    }
}
