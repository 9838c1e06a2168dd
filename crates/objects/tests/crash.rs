//! The program killed while it puts, copies and deletes: what was acknowledged
//! is there and whole, and nothing else stays on the disk.
//!
//! The process that is killed is this test binary, run again for the one test
//! [`victim`], which does nothing unless it is told a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_objects::{
    Acl, Attributes, Bucket, Condition, CopySource, Error, Expected, NewObject, ObjectStore,
};

const DIR: &str = "CUMULET_CRASH_TEST_DIR";
const SEED: &str = "CUMULET_CRASH_TEST_SEED";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 6;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A small generator, so that a seed tells all (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn owner() -> AccountId {
    AccountId::from_random(1)
}

/// The content that a number stands for; its length too.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let length = match random.below(4) {
        0 => 0,
        1 | 2 => random.below(5_000),
        _ => random.below(2_500_000),
    };
    let mut bytes = vec![];
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(usize::try_from(length).unwrap());
    bytes
}

fn new_object(key: &str) -> NewObject {
    NewObject {
        bucket: "crash".into(),
        key: key.into(),
        acl: Acl::Private,
        attributes: Attributes::default(),
        condition: Condition::None,
        now: NOW,
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone is no failure of the victim.
    let _ = writeln!(out, "\n{line}").and_then(|()| out.flush());
}

/// Works on keys of its own, saying before each step what it tries and after it that it is done.
async fn write_for_ever(store: ObjectStore, writer: u64, seed: u64) {
    let mut random = Random(seed ^ (writer << 32));
    let me = Some(owner());
    loop {
        let key = format!("{writer}-{}", random.below(4));
        match random.below(8) {
            0 => {
                say(&format!("try {key} none"));
                store
                    .delete(me, "crash", &key, Condition::None)
                    .await
                    .unwrap();
            }
            1 => {
                let number = random.next();
                let from = format!("{writer}-source");
                say(&format!("try {from} {number}"));
                put(&store, &from, number).await;
                say(&format!("ack {from}"));
                say(&format!("try {key} {number}"));
                let source = CopySource {
                    bucket: "crash".into(),
                    key: from,
                    etag: None,
                };
                store
                    .copy(me, source, new_object(&key), true)
                    .await
                    .unwrap();
            }
            _ => {
                let number = random.next();
                say(&format!("try {key} {number}"));
                put(&store, &key, number).await;
            }
        }
        say(&format!("ack {key}"));
    }
}

async fn put(store: &ObjectStore, key: &str, number: u64) {
    let mut body = store.begin_body(&BTreeSet::new(), u64::MAX);
    for block in content(number).chunks(70_000) {
        body.write(Bytes::copy_from_slice(block)).await.unwrap();
    }
    let body = body.finish(Expected::default()).await.unwrap();
    store
        .put(Some(owner()), body, new_object(key))
        .await
        .unwrap();
}

#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = ObjectStore::open(Path::new(&dir)).unwrap();
        let bucket = Bucket {
            name: "crash".into(),
            owner: owner(),
            acl: Acl::Private,
            created: NOW,
            location: "us-east-1".into(),
        };
        match store.create_bucket(bucket).await {
            Ok(()) | Err(Error::BucketOwned) => {}
            Err(error) => panic!("{error}"),
        }
        let mut writers = vec![];
        for writer in 0..WRITERS {
            writers.push(tokio::spawn(write_for_ever(store.clone(), writer, seed)));
        }
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// What a key may be: what was acknowledged last, or what was being tried.
#[derive(Default, Clone)]
struct Expectation {
    settled: Option<u64>,
    trying: Option<Option<u64>>,
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a victim until it has said `lines` lines, and kills it.
fn run_and_kill(dir: &Path, seed: u64, lines: u64, keys: &mut BTreeMap<String, Expectation>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut victim = Victim(child);
    let mut said = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if output.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // A line that the kill has cut is no word of the victim's.
        let Some(whole) = line.strip_suffix('\n') else {
            break;
        };
        let words: Vec<&str> = whole.split(' ').collect();
        match words[..] {
            ["try", key, number] => {
                keys.entry(key.to_owned()).or_default().trying = Some(number.parse().ok());
            }
            ["ack", key] => {
                let key = keys.get_mut(key).unwrap();
                key.settled = key.trying.take().unwrap();
            }
            _ => continue,
        }
        said += 1;
        if said == lines {
            victim.0.kill().unwrap();
        }
    }
    assert!(
        said >= lines,
        "the victim ended by itself after {said} lines"
    );
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => count_files(&entry.path()),
            false => 1,
        })
        .sum()
}

/// Compares what is there with what may be, and settles what was being tried.
async fn check(dir: &Path, keys: &mut BTreeMap<String, Expectation>) {
    let store = ObjectStore::open(dir).unwrap();
    store.swept().await;
    for (key, expected) in keys.iter_mut() {
        let found = match store.get(Some(owner()), "crash", key).await {
            Ok(body) => {
                let size = body.object.size;
                let mut bytes = vec![];
                body.reader().read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, size, "{key} is whole");
                Some(bytes)
            }
            Err(Error::NoSuchKey) => None,
            Err(error) => panic!("{key}: {error}"),
        };
        let candidates = [Some(expected.settled), expected.trying];
        let matching = candidates
            .into_iter()
            .flatten()
            .find(|candidate| candidate.map(content) == found);
        assert!(
            matching.is_some(),
            "{key} is neither what it was nor what it was to be"
        );
        *expected = Expectation {
            settled: matching.flatten(),
            trying: None,
        };
    }
    assert_eq!(
        count_files(&dir.join("tmp")),
        0,
        "temporaries were collected"
    );
    // A body that only copies use is counted once, so that there may be fewer.
    let objects = keys.values().filter(|key| key.settled.is_some()).count();
    let bodies = count_files(&dir.join("bodies"));
    let distinct: BTreeSet<u64> = keys.values().filter_map(|key| key.settled).collect();
    assert!(
        bodies <= objects && bodies >= distinct.len(),
        "{bodies} bodies for {objects} objects with {} contents",
        distinct.len()
    );
    for key in keys.keys() {
        store
            .delete(Some(owner()), "crash", key, Condition::None)
            .await
            .unwrap();
    }
    assert_eq!(
        count_files(&dir.join("bodies")),
        0,
        "every body has its object"
    );
    keys.clear();
    store.close().await;
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let seed: u64 = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => u64::from(std::process::id()),
    };
    println!("seed {seed}: set {SEED} to repeat");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut keys = BTreeMap::new();
    for _ in 0..ROUNDS {
        let lines = 1 + random.below(150);
        run_and_kill(dir.path(), random.next(), lines, &mut keys);
        runtime.block_on(check(dir.path(), &mut keys));
    }
}
