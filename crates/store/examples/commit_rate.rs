//! Measures the store on a disk: how many commits it acknowledges in a second.
//!
//! `cargo run --release -p cumulet-store --example commit_rate -- FOLDER [SECONDS]`
//!
//! Prints, for 1 and for 64 writers, the rate of commits of one record of 1 KiB,
//! and beside it what the same disk does with plain appended writes of 1 KiB,
//! each synced: ratios say more than rates.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cumulet_store::{Change, EmbeddedEngine, Kind, Plan, Revision, Store, View, ViewError};

const RECORD: Kind = Kind::new("record");
const VALUE_LEN: usize = 1024;

#[derive(Clone)]
struct Nothing;

impl View for Nothing {
    fn apply(&mut self, _revision: Revision, _change: &Change) -> Result<(), ViewError> {
        Ok(())
    }
}

fn synced_writes(folder: &Path, time: Duration) -> Result<f64, Box<dyn Error>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let start = Instant::now();
    let mut count = 0.0;
    while start.elapsed() < time {
        file.write_all(&[7; VALUE_LEN])?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(count / start.elapsed().as_secs_f64())
}

/// Commits a second and, of those, how many durable batches.
fn commits(folder: &Path, writers: u64, time: Duration) -> Result<(f64, f64), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(folder)?;
    let engine = EmbeddedEngine::open(&dir.path().join("state.redb"), &[RECORD])?;
    let store = Store::open(Box::new(engine), Nothing)?;
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (store, count) = (&store, count.clone());
            scope.spawn(move || {
                let mut number = 0;
                while start.elapsed() < time {
                    let key = format!("{writer}-{number}");
                    let change = Change::put(RECORD, key, Bytes::from(vec![7; VALUE_LEN]));
                    let planned = store.commit_blocking(|_: &Nothing| {
                        Ok::<_, ()>(Plan {
                            changes: vec![change],
                            answer: (),
                        })
                    });
                    planned.expect("the disk takes the commit");
                    number += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let rate = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
    Ok((rate(count.load(Ordering::Relaxed)), rate(store.revision())))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: commit_rate FOLDER [SECONDS]")?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let (folder, time) = (Path::new(&folder), Duration::from_secs(seconds));
    println!(
        "{:8.0} synced writes of {VALUE_LEN} bytes a second, appended to a plain file",
        synced_writes(folder, time)?
    );
    for writers in [1, 64] {
        let (rate, batches) = commits(folder, writers, time)?;
        println!(
            "{rate:8.0} commits a second from {writers} writers, in {batches:.0} durable batches"
        );
    }
    Ok(())
}
