//! Launches to the durable answer, against commits of the same records on the same disk.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cumulet_store::{Batch, Change, EmbeddedEngine, Engine as _, Kind};

use crate::Plan;
use crate::client::Connection;
use crate::describe::cloud_with_image;
use crate::process::Threads;
use crate::report::{Report, Value, median};

const WINDOW: Duration = Duration::from_secs(2);
const RECORD: Kind = Kind::new("record");
/// Bytes of the records of one launch, as they are found in a store: reservation, instance, and
/// what every launch rewrites (addresses, memory, the account's count).
const FRESH_BYTES: [usize; 2] = [330, 690];
const SHARED_BYTES: [usize; 3] = [85, 35, 60];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for clients in [1, 64] {
        let (cloud, image) = cloud_with_image(plan)?;
        let mut raw = Raw::open(&cloud.scratch().join("raw.redb"))?;
        let (mut own, mut other, mut plain, mut spent) = (vec![], vec![], vec![], vec![]);
        let server = cloud.server_pid().unwrap_or_default();
        for _ in 0..plan.turns(9) {
            let before = Threads::of(server)?;
            let start = Instant::now();
            let done = launches(cloud.address(), &image, clients)?;
            own.push(rate(done, start)?);
            // What was launched last is recorded as running before the disk is another's.
            std::thread::sleep(Duration::from_millis(500));
            let cpu = Threads::of(server)?.since(&before).as_secs_f64();
            spent.push(cpu / f64::from(u32::try_from(done)?));
            other.push(raw.commits(clients)?);
            plain.push(writes(&cloud.scratch().join("raw.log"), clients)?);
        }
        report.versus(
            &format!("launches to durable answer, {clients} clients, against raw group commits of {clients}"),
            Value::PerSecond(median(own.clone())),
            Value::PerSecond(median(other)),
            if clients == 1 { "-" } else { "at least 0.80" },
        );
        report.versus(
            &format!("the same against write and fdatasync of the same bytes, twice for each group of {clients}"),
            Value::PerSecond(median(own)),
            Value::PerSecond(median(plain)),
            "-",
        );
        report.alone(
            &format!("CPU of the server for each of these launches, until it is recorded as running, {clients} clients"),
            Value::Seconds(median(spent)),
            "-",
        );
    }
    Ok(())
}

fn rate(count: usize, start: Instant) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(count)?) / start.elapsed().as_secs_f64())
}

/// Launches by so many clients, each waiting for its answer before it asks again.
fn launches(address: SocketAddr, image: &str, clients: usize) -> anyhow::Result<usize> {
    let call = format!("Action=RunInstances&ImageId={image}&MinCount=1&MaxCount=1");
    let connections: Vec<Connection> = (0..clients)
        .map(|_| Connection::open(address))
        .collect::<Result<_, _>>()?;
    let done = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let asking: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                let (call, done) = (&call, &done);
                scope.spawn(move || -> anyhow::Result<()> {
                    while start.elapsed() < WINDOW {
                        connection.ec2(call)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        asking
            .into_iter()
            .try_for_each(|client| client.join().expect("a client panicked"))
    })?;
    Ok(done.into_inner())
}

/// The store's engine without anything above it.
struct Raw {
    engine: EmbeddedEngine,
    number: u64,
}

impl Raw {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let mut engine = EmbeddedEngine::open(path, &[RECORD])?;
        engine.load(&mut |_, _| Ok(()))?;
        Ok(Self { engine, number: 0 })
    }

    /// Launches a second that commits of `group` launches each would make.
    fn commits(&mut self, group: usize) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < WINDOW {
            let mut batch = Batch::default();
            for _ in 0..group {
                for size in FRESH_BYTES {
                    self.number += 1;
                    // Keys are as random as ids.
                    let key = format!("i-{:017x}", self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    batch.changes.push(Change::put(RECORD, key, filler(size)));
                }
                for (place, size) in SHARED_BYTES.into_iter().enumerate() {
                    let key = format!("shared-{place}");
                    batch.changes.push(Change::put(RECORD, key, filler(size)));
                }
            }
            self.engine.commit(&batch)?;
            done += group;
        }
        rate(done, start)
    }
}

fn filler(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

/// The disk alone.
fn writes(path: &Path, group: usize) -> anyhow::Result<f64> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let size: usize = FRESH_BYTES.iter().chain(&SHARED_BYTES).sum();
    let bytes = filler(size * group);
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < WINDOW {
        file.write_all(&bytes)?;
        file.sync_data()?;
        file.write_all(b"x")?;
        file.sync_data()?;
        done += group;
    }
    rate(done, start)
}
