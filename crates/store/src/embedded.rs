//! Records in one file, by redb.
//!
//! Two-phase commits: with the one-phase kind a crash could let a crafted value
//! pass for a valid page, and tenants choose the values.  The file says which
//! format it has; a newer one is refused before anything is written to it.
//!
//! A commit that the disk has no room for is refused before it begins, since an
//! error in the middle of one ends all writing.
//!
//! A file gets its name when it is complete: redb cannot open one whose making
//! was cut short, and nothing else could tell that from a damaged store.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError,
};

use crate::{Batch, Change, Engine, Frozen, Kind, Revision, StoreError};

/// `kind NUL key` to eight bytes of revision (big-endian) and the value.
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// `format` and `revision`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format that this program writes.
pub(crate) const FORMAT: u64 = 1;

/// Memory that redb may use for pages: all reads come from our own state.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that a commit leaves free on the disk, besides what it may write itself.
const RESERVE: u64 = 4 * 1024 * 1024;
/// How often a changed byte may be written: as a page of its own, before old pages are free.
const WRITTEN_PER_BYTE: u64 = 4;
/// What a change costs at least: pages of the tree above it.
const WRITTEN_PER_CHANGE: u64 = 16 * 1024;

/// The default engine.
pub struct EmbeddedEngine {
    database: Database,
    kinds: Vec<Kind>,
    /// The file, when it lies on a disk whose room can be asked for.
    path: Option<PathBuf>,
}

impl EmbeddedEngine {
    /// Opens the file, or makes it.  `kinds` are those that the program knows.
    ///
    /// # Errors
    /// `InUse` while another process has it open; `NewerFormat`; `Io`.
    pub fn open(path: &Path, kinds: &[Kind]) -> Result<Self, StoreError> {
        let io = |cause: std::io::Error| StoreError::io("making the store", cause);
        let unfinished = path.with_added_extension("new");
        if !path.try_exists().map_err(io)? {
            let file = lock(&unfinished)?;
            // Whoever makes the file holds this lock, so that now it is there or will not be.
            if !path.try_exists().map_err(io)? {
                return Self::make(file, &unfinished, path, kinds);
            }
        }
        refuse_newer(path, kinds)?;
        let database = builder().open(path).map_err(opening)?;
        let engine = Self::with_database(database, kinds)?.at(path);
        if unfinished.try_exists().map_err(io)? {
            std::fs::remove_file(&unfinished).map_err(io)?;
        }
        Ok(engine)
    }

    /// Makes the file under another name, and gives it its own when it is complete.
    fn make(
        file: File,
        unfinished: &Path,
        path: &Path,
        kinds: &[Kind],
    ) -> Result<Self, StoreError> {
        let io = |cause: std::io::Error| StoreError::io("making the store", cause);
        // What an earlier making left behind never had the name, and so no record of anybody.
        file.set_len(0).map_err(io)?;
        let database = builder().create_file(file).map_err(opening)?;
        let engine = Self::with_database(database, kinds)?.at(path);
        cumulet_durable::publish_new(unfinished, path).map_err(io)?;
        Ok(engine)
    }

    /// As [`Self::open`], over storage that a test supplies.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_backend(
        backend: impl redb::StorageBackend,
        kinds: &[Kind],
    ) -> Result<Self, StoreError> {
        let database = builder().create_with_backend(backend).map_err(opening)?;
        Self::with_database(database, kinds)
    }

    fn with_database(database: Database, kinds: &[Kind]) -> Result<Self, StoreError> {
        let engine = Self {
            database,
            kinds: kinds.to_vec(),
            path: None,
        };
        match engine.meta("format")? {
            Some(found) => check_format(found)?,
            None => engine.write(|_, meta| meta("format", FORMAT))?,
        }
        Ok(engine)
    }

    fn at(self, path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
            ..self
        }
    }

    /// Refuses a batch for which the disk has no room.
    fn check_room(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let found = rustix::fs::statvfs(path)
            .map_err(|cause| StoreError::io("looking at the disk of the store", cause))?;
        let changed = batch.changes.iter().map(|change| {
            let length = change.value.as_ref().map_or(0, |value| value.len()) as u64;
            WRITTEN_PER_CHANGE + length.saturating_mul(WRITTEN_PER_BYTE)
        });
        let needed = changed.fold(RESERVE, u64::saturating_add);
        if found.f_bavail.saturating_mul(found.f_frsize) < needed {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    fn reading(&self) -> Result<Reading, StoreError> {
        Reading::of(&self.database, &self.kinds)
    }

    fn meta(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.reading()?.meta(name)
    }

    /// One durable transaction; dropped, and so undone, when `work` fails.
    fn write<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: FnOnce(
            &mut redb::Table<'_, &'static [u8], &'static [u8]>,
            &mut dyn FnMut(&str, u64) -> Result<(), StoreError>,
        ) -> Result<(), StoreError>,
    {
        let io = |cause: &dyn ToString| StoreError::io("writing the store", cause.to_string());
        let mut transaction = self.database.begin_write().map_err(|cause| io(&cause))?;
        transaction.set_two_phase_commit(true);
        {
            let mut records = transaction
                .open_table(RECORDS)
                .map_err(|cause| io(&cause))?;
            let mut table = transaction.open_table(META).map_err(|cause| io(&cause))?;
            let mut meta = |name: &str, value: u64| {
                table
                    .insert(name, value)
                    .map(|_| ())
                    .map_err(|cause| StoreError::io("writing the store", cause))
            };
            work(&mut records, &mut meta)?;
        }
        transaction.commit().map_err(|cause| io(&cause))
    }
}

/// Refuses what a newer program wrote before the file is opened for writing, which by itself changes
/// bytes of it.  A file that was not closed cannot be looked at so; opening it repairs it first.
fn refuse_newer(path: &Path, kinds: &[Kind]) -> Result<(), StoreError> {
    let database = match builder().open_read_only(path) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse),
        // Said by the opening that follows, unless that can mend it.
        Err(_) => return Ok(()),
    };
    let reading = Reading::of(&database, kinds)?;
    if let Some(found) = reading.meta("format")? {
        check_format(found)?;
    }
    reading.check_kinds()
}

fn check_format(found: u64) -> Result<(), StoreError> {
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            found,
            known: FORMAT,
        });
    }
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens the file for the one process that may fill it.
fn lock(path: &Path) -> Result<File, StoreError> {
    let io = |cause: std::io::Error| StoreError::io("making the store", cause);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(cause)) => Err(io(cause)),
    }
}

fn opening(cause: DatabaseError) -> StoreError {
    match cause {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        other => StoreError::io("opening the store", other),
    }
}

fn full_key(kind: Kind, key: &str) -> Vec<u8> {
    [kind.name().as_bytes(), &[0], key.as_bytes()].concat()
}

fn damaged(what: &str) -> StoreError {
    StoreError::io("reading the store", format!("{what} is damaged"))
}

fn revision_of(stored: &[u8]) -> Result<(Revision, &[u8]), StoreError> {
    let (revision, value) = stored
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged("a record"))?;
    Ok((Revision::from_be_bytes(*revision), value))
}

/// A transaction that reads: the records of one revision.
struct Reading {
    transaction: ReadTransaction,
    kinds: Vec<Kind>,
}

impl Reading {
    fn of(database: &impl ReadableDatabase, kinds: &[Kind]) -> Result<Self, StoreError> {
        let transaction = database
            .begin_read()
            .map_err(|cause| StoreError::io("reading the store", cause))?;
        Ok(Self {
            transaction,
            kinds: kinds.to_vec(),
        })
    }

    /// Looks at one key of each kind that is there.
    fn check_kinds(&self) -> Result<(), StoreError> {
        let io = |cause: &dyn ToString| StoreError::io("reading the store", cause.to_string());
        let table = match self.transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(cause) => return Err(io(&cause)),
        };
        let mut from = vec![];
        loop {
            let mut rest = table.range(from.as_slice()..).map_err(|cause| io(&cause))?;
            let Some(entry) = rest.next() else {
                return Ok(());
            };
            let (key, _) = entry.map_err(|cause| io(&cause))?;
            let (kind, _) = self.kind_of(key.value())?;
            // Behind the last key that this kind can have.
            from = [kind.name().as_bytes(), &[1]].concat();
        }
    }

    fn kind_of<'a>(&self, key: &'a [u8]) -> Result<(Kind, &'a str), StoreError> {
        let key = std::str::from_utf8(key).map_err(|_| damaged("a key"))?;
        let (name, key) = key.split_once('\0').ok_or_else(|| damaged("a key"))?;
        let kind = self.kinds.iter().find(|kind| kind.name() == name);
        let kind = *kind.ok_or_else(|| StoreError::UnknownKind(name.to_owned()))?;
        Ok((kind, key))
    }

    fn meta(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let io = |cause: &dyn ToString| StoreError::io("reading the store", cause.to_string());
        let table = match self.transaction.open_table(META) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(cause) => return Err(io(&cause)),
        };
        let found = table.get(name).map_err(|cause| io(&cause))?;
        Ok(found.map(|value| value.value()))
    }
}

impl Frozen for Reading {
    fn read(
        &self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        let io = |cause: &dyn ToString| StoreError::io("reading the store", cause.to_string());
        let table = match self.transaction.open_table(RECORDS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(0),
            Err(cause) => return Err(io(&cause)),
        };
        for entry in table.iter().map_err(|cause| io(&cause))? {
            let (key, value) = entry.map_err(|cause| io(&cause))?;
            let (kind, key) = self.kind_of(key.value())?;
            let (revision, value) = revision_of(value.value())?;
            sink(
                revision,
                Change::put(kind, key, Bytes::copy_from_slice(value)),
            )?;
        }
        Ok(self.meta("revision")?.unwrap_or(0))
    }
}

impl Engine for EmbeddedEngine {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        self.reading()?.read(sink)
    }

    fn frozen(&mut self) -> Result<Box<dyn Frozen>, StoreError> {
        Ok(Box::new(self.reading()?))
    }

    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        self.check_room(batch)?;
        let revision = self.meta("revision")?.unwrap_or(0) + 1;
        self.write(|records, meta| {
            for condition in &batch.preconditions {
                let key = full_key(condition.kind, &condition.key);
                let stored = records
                    .get(key.as_slice())
                    .map_err(|cause| StoreError::io("reading the store", cause))?;
                let found = stored
                    .map(|stored| revision_of(stored.value()).map(|(revision, _)| revision))
                    .transpose()?;
                if found != condition.revision {
                    return Err(StoreError::Conflict(format!(
                        "{} {}",
                        condition.kind, condition.key
                    )));
                }
            }
            for change in &batch.changes {
                let key = full_key(change.kind, &change.key);
                let io = |cause| StoreError::io("writing the store", cause);
                match &change.value {
                    Some(value) => {
                        let stored = [&revision.to_be_bytes()[..], value].concat();
                        records
                            .insert(key.as_slice(), stored.as_slice())
                            .map_err(io)?;
                    }
                    None => {
                        records.remove(key.as_slice()).map_err(io)?;
                    }
                }
            }
            meta("revision", revision)
        })?;
        Ok(revision)
    }
}
