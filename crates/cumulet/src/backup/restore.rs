//! Making a data directory of a backup.
//!
//! The backup is read to its end and every record understood before anything
//! is written; then files are copied and compared with their digests.  While
//! this is under way the directory carries a mark with which no server starts.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use cumulet_auth::seal::KEY_LEN;
use cumulet_domain::Digest;
use cumulet_domain::accounts::CloudIdentity;
use cumulet_engine::State;
use cumulet_engine::accounts::IDENTITY_CONTEXT;
use cumulet_engine::environment::Sealer as _;
use cumulet_engine::records::{CLOUD, KINDS, Stored};
use cumulet_objects::{BUCKET, BodyName, OBJECT, ObjectStore, Row};
use cumulet_store::{Batch, Change, EmbeddedEngine, Engine, View};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::LINES;
use super::adapt::{Changed, Found, adapt};
use super::files::{copy, settle};
use super::format::{FileLine, Header, Line, Record, read};
use crate::data_dir::{self, DataDir, Found as Place, InUse, Purpose};
use crate::surroundings::{self, FileSealer};

/// Records of one commit, and rows of objects.
const BATCH: usize = 500;

/// The key that the backup's secrets were sealed with.
pub(crate) enum Key {
    File(PathBuf),
    /// Lost: what it sealed is dropped.
    Lost,
}

/// What is asked for.
pub(crate) struct Restore {
    pub(crate) backup: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) key: Key,
    /// Else the cloud gets a new one.
    pub(crate) keeps_cloud_id: bool,
}

/// A backup that was read and understood.
struct Understood {
    header: Header,
    records: Vec<Change>,
    files: Vec<FileLine>,
    objects: u64,
}

/// Restores, and says what is there now.
///
/// # Errors
/// A backup that cannot be trusted, a directory that is not free, those of the disk.
pub(crate) async fn restore(asked: &Restore) -> anyhow::Result<Value> {
    check_free(&asked.data_dir)?;
    let lines = asked.backup.join(LINES);
    let backup = understand(&lines)?;
    for file in &backup.files {
        let path = asked.backup.join(&file.file);
        let found = fs::metadata(&path)
            .with_context(|| format!("{} of the backup is missing", file.file))?;
        ensure!(
            found.len() == file.bytes,
            "{} of the backup has {} bytes instead of {}",
            file.file,
            found.len(),
            file.bytes
        );
    }
    let key = sealing_key(&asked.key, &backup.records)?;
    let found = found(&backup, key.is_some());
    let (records, changed) = adapt(backup.records, &found)?;
    let mut state = State::default();
    for record in &records {
        state.apply(1, record)?;
    }

    let id = asked
        .keeps_cloud_id
        .then_some(backup.header.cloud_id.as_str());
    let dir = DataDir::begin_restore(&asked.data_dir, id)?;
    copy_objects(&asked.backup, &dir, &backup.files, &lines).await?;
    for file in &backup.files {
        if !file.file.starts_with("objects/") {
            take(&asked.backup, &dir.join(&file.file), file, 0o444)?;
        }
    }
    if let Some(key) = &key {
        dir.keep_sealing_key(key)?;
    } else {
        dir.sealing_key()?;
    }
    write_records(&dir, &records)?;
    settle(dir.path())?;
    dir.end_restore()?;
    Ok(report(
        &dir,
        &backup.header,
        &state,
        backup.objects,
        &changed,
    ))
}

/// Refuses a directory that a server uses or that holds anything.
fn check_free(path: &Path) -> anyhow::Result<()> {
    if let Ok(lock) = File::open(path.join("lock"))
        && matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
    {
        return Err(InUse::of(path, Purpose::Restore).into());
    }
    match data_dir::look(path)? {
        Place::Absent | Place::Free => Ok(()),
        Place::Ours => bail!(
            "{} is not empty: a backup is restored into a new directory only",
            path.display()
        ),
    }
}

/// Reads all lines.
fn understand(path: &Path) -> anyhow::Result<Understood> {
    let file = File::open(path).with_context(|| {
        format!(
            "{} cannot be read: a directory without it is no backup",
            path.display()
        )
    })?;
    let (mut records, mut files, mut objects) = (vec![], vec![], 0);
    let (header, _) = read(BufReader::new(file), |line| {
        match line {
            Line::Record(record) => match row(&record)? {
                Some(row) => {
                    row.check()?;
                    objects += u64::from(row.kind == OBJECT);
                }
                None => records.push(change(&record)?),
            },
            Line::File(file) => {
                check_name(&file)?;
                files.push(file);
            }
        }
        Ok(())
    })?;
    Ok(Understood {
        header,
        records,
        files,
        objects,
    })
}

fn change(record: &Record) -> anyhow::Result<Change> {
    let kind = KINDS.iter().find(|kind| kind.name() == record.kind);
    let kind = kind.with_context(|| {
        format!(
            "the backup has records of the kind {:?}, which this program does not know: it was written by a newer version",
            record.kind
        )
    })?;
    Ok(Change::put(*kind, record.key.as_str(), record.bytes()?))
}

/// A row of the objects' index, if it is one.
fn row(record: &Record) -> anyhow::Result<Option<Row>> {
    if record.kind != BUCKET && record.kind != OBJECT {
        return Ok(None);
    }
    Ok(Some(Row {
        kind: record.kind.clone(),
        key: record.key.clone(),
        value: record.bytes()?.to_vec(),
    }))
}

/// Only names that a backup has: they become paths.
fn check_name(file: &FileLine) -> anyhow::Result<()> {
    let is_known = match file.file.split_once('/') {
        Some(("objects", name)) => name.parse::<BodyName>().is_ok(),
        Some(("images", name)) => name
            .parse::<Digest>()
            .is_ok_and(|digest| digest.to_string() == file.sha256),
        Some(("kernels", name)) => kernel_of(name).is_some(),
        _ => false,
    };
    ensure!(is_known, "the backup names a strange file: {:?}", file.file);
    Ok(())
}

/// Of `<aki>/<file>`.
fn kernel_of(name: &str) -> Option<cumulet_domain::KernelId> {
    let (id, name) = name.split_once('/')?;
    let id: cumulet_domain::KernelId = id.parse().ok()?;
    (name == "vmlinuz" || name == "ramdisk").then_some(id)
}

fn found(backup: &Understood, has_sealing_key: bool) -> Found {
    let names = || backup.files.iter().map(|file| file.file.as_str());
    let images: BTreeSet<Digest> = names()
        .filter_map(|name| name.strip_prefix("images/")?.parse().ok())
        .collect();
    Found {
        is_simulated: backup.header.is_simulated && images.is_empty(),
        images,
        kernels: names()
            .filter_map(|name| kernel_of(name.strip_prefix("kernels/")?))
            .collect(),
        has_objects: backup.header.has_objects,
        has_sealing_key,
        now: surroundings::now(),
    }
}

/// The key, after it has opened the cloud's own secret.
fn sealing_key(key: &Key, records: &[Change]) -> anyhow::Result<Option<Zeroizing<[u8; KEY_LEN]>>> {
    let Key::File(path) = key else {
        return Ok(None);
    };
    let shown = path.display();
    let bytes = fs::read(path).with_context(|| format!("{shown} cannot be read"))?;
    let bytes = Zeroizing::new(bytes);
    let key: [u8; KEY_LEN] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| anyhow::anyhow!("{shown} is no sealing key: it has not {KEY_LEN} bytes"))?;
    let key = Zeroizing::new(key);
    let identity = records.iter().find(|record| record.kind == CLOUD);
    if let Some(value) = identity.and_then(|record| record.value.as_ref()) {
        let identity = CloudIdentity::read(value)?;
        FileSealer::new(&key)
            .open(IDENTITY_CONTEXT, &identity.sealed_private_key)
            .map_err(|_| {
                anyhow::anyhow!(
                    "{shown} is not the key of this backup: it does not open its secrets"
                )
            })?;
    }
    Ok(Some(key))
}

/// Copies a file, which must be what the backup says.
fn take(backup: &Path, to: &Path, file: &FileLine, mode: u32) -> anyhow::Result<()> {
    let mut from = File::open(backup.join(&file.file))
        .with_context(|| format!("{} of the backup cannot be read", file.file))?;
    let copied = copy(&mut from, to, mode)?;
    ensure!(
        copied.bytes == file.bytes && copied.sha256 == file.sha256,
        "{} of the backup was altered or is damaged; the restore ends here, and {} holds only a part",
        file.file,
        to.display()
    );
    Ok(())
}

async fn copy_objects(
    backup: &Path,
    dir: &DataDir,
    files: &[FileLine],
    lines: &Path,
) -> anyhow::Result<()> {
    let place = dir.join("objects");
    let objects = ObjectStore::open(&place)?;
    // Until then bodies without rows are swept away.
    objects.swept().await;
    for file in files {
        if let Some(name) = file.file.strip_prefix("objects/") {
            let name: BodyName = name.parse().map_err(anyhow::Error::msg)?;
            take(backup, &name.path_in(&place), file, 0o600)?;
        }
    }
    settle(&place)?;
    // The rows once more: there may be too many to be kept.
    let (send, mut receive) = tokio::sync::mpsc::channel::<Vec<Row>>(2);
    let reader = BufReader::new(File::open(lines)?);
    let reading = tokio::task::spawn_blocking(move || {
        let mut batch = vec![];
        read(reader, |line| {
            if let Line::Record(record) = line
                && let Some(row) = row(&record)?
            {
                batch.push(row);
                if batch.len() == BATCH {
                    send.blocking_send(std::mem::take(&mut batch))?;
                }
            }
            Ok(())
        })?;
        if !batch.is_empty() {
            send.blocking_send(batch)?;
        }
        anyhow::Ok(())
    });
    while let Some(rows) = receive.recv().await {
        objects.import(rows).await?;
    }
    reading.await.context("reading the backup ended badly")??;
    objects.close().await;
    Ok(())
}

fn write_records(dir: &DataDir, records: &[Change]) -> anyhow::Result<()> {
    let mut engine = EmbeddedEngine::open(&dir.join("store.redb"), KINDS)
        .context("the records cannot be written")?;
    for changes in records.chunks(BATCH) {
        let batch = Batch {
            preconditions: vec![],
            changes: changes.to_vec(),
        };
        engine
            .commit(&batch)
            .context("the records cannot be written")?;
    }
    Ok(())
}

fn report(dir: &DataDir, header: &Header, state: &State, objects: u64, changed: &Changed) -> Value {
    json!({
        "data_dir": dir.path().display().to_string(),
        "backup_of": header.created,
        "cloud_id": dir.cloud_id(),
        "accounts": state.accounts.len(),
        "access_keys": state.access_keys.len(),
        "images": state.images.len(),
        "objects": objects,
        "instances_ended": changed.instances_ended,
        "images_pending": changed.images_pending,
        "images_lost": changed.images_lost,
        "kernels_lost": changed.kernels_lost,
        "access_keys_dropped": changed.access_keys_dropped,
    })
}
