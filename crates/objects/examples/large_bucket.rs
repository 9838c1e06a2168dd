//! A bucket with very many keys: what a page of its listing costs at its
//! beginning, in its middle and at its end.
//!
//! `large_bucket [KEYS]` (a million by default) puts one object and copies it,
//! which goes the whole way through the index's group commit and needs one body
//! only.  It prints times and the memory that the process then holds; run it
//! with `--release`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use cumulet_domain::{AccountId, Timestamp};
use cumulet_objects::{
    Acl, Attributes, Bucket, Condition, CopySource, Expected, ListQuery, NewObject, ObjectStore,
};
use futures::StreamExt as _;

const BUCKET: &str = "large";
/// As many as one commit takes, several times over.
const COPIES_AT_ONCE: usize = 1024;
const ROUNDS: u32 = 50;

fn new_object(key: String) -> NewObject {
    NewObject {
        bucket: BUCKET.into(),
        key,
        acl: Acl::Private,
        attributes: Attributes::default(),
        condition: Condition::None,
        now: Timestamp(1_700_000_000_000),
    }
}

fn name(number: usize) -> String {
    format!("folder-{:03}/object-{number:09}", number / 1000 % 1000)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or("VmRSS unknown").to_owned()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 1_000_000,
    };
    let dir = tempfile::tempdir()?;
    let store = ObjectStore::open(dir.path())?;
    let me = Some(AccountId::from_random(1));
    let bucket = Bucket {
        name: BUCKET.into(),
        owner: AccountId::from_random(1),
        acl: Acl::Private,
        created: Timestamp(1_700_000_000_000),
        location: "us-east-1".into(),
    };
    store.create_bucket(bucket).await?;
    let body = store.begin_body(&BTreeSet::new(), 1);
    let body = body.finish(Expected::default()).await?;
    store.put(me, body, new_object("source".into())).await?;

    let start = Instant::now();
    let copies = futures::stream::iter(0..count).map(|number| {
        let source = CopySource {
            bucket: BUCKET.into(),
            key: "source".into(),
            etag: None,
        };
        store.copy(me, source, new_object(name(number)), true)
    });
    let mut copies = copies.buffer_unordered(COPIES_AT_ONCE);
    while let Some(copied) = copies.next().await {
        copied?;
    }
    drop(copies);
    let mut report = format!("{count} keys made in {:.1?}\n", start.elapsed());

    for (place, delimiter) in [("keys", None), ("folders", Some("/"))] {
        for share in [0, 1, 2] {
            let after = match share {
                0 => None,
                _ => Some(name((count * share / 2).saturating_sub(1001))),
            };
            let query = ListQuery {
                prefix: String::new(),
                delimiter: delimiter.map(str::to_owned),
                after,
                limit: 1000,
            };
            let mut entries = store.list(me, BUCKET, query.clone()).await?.entries.len();
            let start = Instant::now();
            for _ in 0..ROUNDS {
                entries = store.list(me, BUCKET, query.clone()).await?.entries.len();
            }
            let at = ["beginning", "middle", "end"][share];
            let each = start.elapsed() / ROUNDS;
            writeln!(report, "{place}, {at}: {entries} entries in {each:.2?}")?;
        }
    }
    let size = std::fs::metadata(dir.path().join("index.redb"))?.len();
    writeln!(report, "index {} MiB, {}", size >> 20, resident())?;
    std::io::stdout().write_all(report.as_bytes())?;
    store.close().await;
    Ok(())
}
