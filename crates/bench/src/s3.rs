//! Objects of two sizes, against copying a file and digesting it.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use aws_lc_rs::digest::{SHA256, digest};
use cumulet_testkit::Cloud;

use crate::Plan;
use crate::client::Connection;
use crate::report::{Report, Value};

const SMALL: usize = 4 * 1024;
const LARGE: usize = 16 * 1024 * 1024;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let cloud = Cloud::start(&plan.program, &[("CUMULET_COMPUTE", "simulated")]);
    let mut connection = Connection::open(cloud.address())?;
    connection.s3("PUT", "/bench", b"")?;
    let own = Own {
        connection: &mut connection,
        number: 0,
    };
    let files = cloud.scratch().join("files");
    std::fs::create_dir(&files)?;
    small(plan, report, own, &files)?;
    let own = Own {
        connection: &mut connection,
        number: 1_000_000,
    };
    large(plan, report, own, &files)
}

struct Own<'a> {
    connection: &'a mut Connection,
    number: usize,
}

impl Own<'_> {
    fn put(&mut self, body: &[u8]) -> anyhow::Result<Duration> {
        self.number += 1;
        let path = format!("/bench/object-{}", self.number);
        Ok(self.connection.s3("PUT", &path, body)?.took)
    }

    fn get(&mut self, size: usize) -> anyhow::Result<Duration> {
        let answer = self
            .connection
            .s3("GET", &format!("/bench/object-{}", self.number), b"")?;
        if answer.body.len() != size {
            bail!("the object has {} bytes", answer.body.len());
        }
        Ok(answer.took)
    }
}

/// Bytes that no other object has.
fn distinct(size: usize, turn: usize) -> Vec<u8> {
    let mut state = turn as u64 + 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Programs would take longer to start than the work takes: the reference is done in this process.
fn small(plan: &Plan, report: &mut Report, mut own: Own<'_>, files: &Path) -> anyhow::Result<()> {
    let (mut puts, mut gets, mut copies, mut reads) = (vec![], vec![], vec![], vec![]);
    for turn in 0..plan.turns(300) {
        let body = distinct(SMALL, turn);
        puts.push(own.put(&body)?);
        gets.push(own.get(SMALL)?);
        let path = files.join(format!("small-{turn}"));
        copies.push(timed(|| stored(&path, &body))?);
        reads.push(timed(|| {
            std::hint::black_box(digest(&SHA256, &std::fs::read(&path)?));
            Ok(())
        })?);
    }
    report.versus(
        "S3 put of 4 KiB, against write, fsync, rename, fsync and SHA-256",
        Value::median_of(puts),
        Value::median_of(copies),
        "-",
    );
    report.versus(
        "S3 get of 4 KiB, against read and SHA-256",
        Value::median_of(gets),
        Value::median_of(reads),
        "-",
    );
    Ok(())
}

fn large(plan: &Plan, report: &mut Report, mut own: Own<'_>, files: &Path) -> anyhow::Result<()> {
    let (mut puts, mut gets, mut copies, mut reads) = (vec![], vec![], vec![], vec![]);
    let (source, copy) = (files.join("source"), files.join("copy"));
    for turn in 0..plan.turns(15) {
        let body = distinct(LARGE, turn);
        std::fs::write(&source, &body)?;
        File::open(&source)?.sync_all()?;
        puts.push(own.put(&body)?);
        gets.push(own.get(LARGE)?);
        copies.push(timed(|| {
            shell(
                "cp \"$0\" \"$1\" && sync \"$1\" && sha256sum \"$1\"",
                &source,
                &copy,
            )
        })?);
        reads.push(timed(|| {
            shell(
                "cp \"$0\" \"$1\" && sha256sum \"$1\"",
                &source,
                &files.join("fetched"),
            )
        })?);
        std::fs::remove_file(&copy)?;
        std::fs::remove_file(files.join("fetched"))?;
    }
    report.versus(
        "S3 put of 16 MiB, against cp, sync and sha256sum",
        Value::median_of(puts),
        Value::median_of(copies),
        "SHA-256 and the disk",
    );
    report.versus(
        "S3 get of 16 MiB, against cp and sha256sum",
        Value::median_of(gets),
        Value::median_of(reads),
        "SHA-256 and the disk",
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn stored(path: &Path, body: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    std::hint::black_box(digest(&SHA256, body));
    std::fs::write(&new, body)?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn shell(script: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
    let done = Command::new("bash")
        .args(["-c", script])
        .args([from, to])
        .output()?;
    if !done.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
