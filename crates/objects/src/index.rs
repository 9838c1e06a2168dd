//! The index: which buckets, objects, uploads and parts there are, in one file.
//!
//! ```text
//!   jobs --queue--> [ sync directories | run all in one transaction | commit ] --> give up bodies --> answers
//! ```
//!
//! Invariants: a job either refuses before it writes or writes all it wants; a
//! body that a durable record names is itself durable before the commit; a file
//! is removed only after the commit that gave it up.  Commits have two phases,
//! since tenants choose the bytes.  After an error of the disk the whole batch
//! is refused and the file is opened again: only that tells what is durable.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use cumulet_durable as durable;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::bodies::{Bodies, BodyId};
use crate::error::{Error, Result};
use crate::records::{Bucket, Object, Part, Upload, decode, encode};

type Bytes = &'static [u8];
type Definition = TableDefinition<'static, Bytes, Bytes>;

/// Bucket name to [`Bucket`].
const BUCKETS: Definition = TableDefinition::new("buckets");
/// `bucket NUL key` to [`Object`].
const OBJECTS: Definition = TableDefinition::new("objects");
/// `bucket NUL key NUL id` to [`Upload`].
const UPLOADS: Definition = TableDefinition::new("uploads");
/// `id` and two bytes of part number to [`Part`].
const PARTS: Definition = TableDefinition::new("parts");
/// Body id to the number of its uses, eight bytes.
const BODIES: Definition = TableDefinition::new("bodies");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The format that this program writes; a newer one is refused untouched.
const FORMAT: u64 = 1;
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Jobs that may wait, and jobs of one commit.
const QUEUE_MAX: usize = 1024;
const BATCH_JOBS_MAX: usize = 256;

/// Any of the tables, in a reading or a writing transaction.
pub(crate) trait Rows: ReadableTable<Bytes, Bytes> {}
impl<T: ReadableTable<Bytes, Bytes>> Rows for T {}

pub(crate) struct Tables<R> {
    pub(crate) buckets: R,
    pub(crate) objects: R,
    pub(crate) uploads: R,
    pub(crate) parts: R,
    pub(crate) bodies: R,
}

pub(crate) type ReadRows = redb::ReadOnlyTable<Bytes, Bytes>;
pub(crate) type WriteRows<'t> = redb::Table<'t, Bytes, Bytes>;

pub(crate) fn key(parts: &[&str]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}

pub(crate) fn part_key(upload: &str, number: u16) -> Vec<u8> {
    [upload.as_bytes(), &number.to_be_bytes()].concat()
}

/// The smallest key after all that begin with `prefix`.  Keys are UTF-8 and separators, so that the
/// last byte can be counted up.
pub(crate) fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last = last.saturating_add(1);
    }
    prefix
}

fn find<T: DeserializeOwned>(rows: &impl Rows, key: &[u8]) -> Result<Option<T>> {
    rows.get(key)?
        .map(|found| decode(found.value()))
        .transpose()
}

impl<R: Rows> Tables<R> {
    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket> {
        self.find_bucket(name)?.ok_or(Error::NoSuchBucket)
    }

    pub(crate) fn find_bucket(&self, name: &str) -> Result<Option<Bucket>> {
        find(&self.buckets, name.as_bytes())
    }

    pub(crate) fn find_object(&self, bucket: &str, name: &str) -> Result<Option<Object>> {
        find(&self.objects, &key(&[bucket, name]))
    }

    pub(crate) fn upload(&self, bucket: &str, name: &str, id: &str) -> Result<Upload> {
        find(&self.uploads, &key(&[bucket, name, id]))?.ok_or(Error::NoSuchUpload)
    }

    pub(crate) fn find_part(&self, upload: &str, number: u16) -> Result<Option<Part>> {
        find(&self.parts, &part_key(upload, number))
    }

    /// Parts with numbers above `after`, ascending.
    pub(crate) fn parts(&self, upload: &str, after: u16, limit: usize) -> Result<Vec<Part>> {
        let Some(first) = after.checked_add(1) else {
            return Ok(vec![]);
        };
        let range = part_key(upload, first)..=part_key(upload, u16::MAX);
        let bounds = range.start().as_slice()..=range.end().as_slice();
        self.parts
            .range::<&[u8]>(bounds)?
            .take(limit)
            .map(|row| decode(row?.1.value()))
            .collect()
    }

    /// How often a body is used; 0 when it is unknown.
    pub(crate) fn uses(&self, id: BodyId) -> Result<u64> {
        let found = self.bodies.get(id.to_bytes().as_slice())?;
        let Some(found) = found else { return Ok(0) };
        let bytes = found.value().try_into();
        let bytes = bytes.map_err(|_| Error::Damaged("a use count".into()))?;
        Ok(u64::from_be_bytes(bytes))
    }
}

/// A writing transaction as jobs see it.
pub(crate) struct Tx<'t> {
    pub(crate) tables: Tables<WriteRows<'t>>,
    freed: Vec<BodyId>,
}

impl Tx<'_> {
    pub(crate) fn put_bucket(&mut self, bucket: &Bucket) -> Result<()> {
        put(&mut self.tables.buckets, bucket.name.as_bytes(), bucket)
    }

    pub(crate) fn delete_bucket(&mut self, name: &str) -> Result<()> {
        self.tables.buckets.remove(name.as_bytes())?;
        Ok(())
    }

    /// Replaces what is there; the uses of the new object's bodies are already counted.
    pub(crate) fn put_object(&mut self, bucket: &str, name: &str, object: &Object) -> Result<()> {
        let old = self.tables.find_object(bucket, name)?;
        put(&mut self.tables.objects, &key(&[bucket, name]), object)?;
        self.give_up(old)
    }

    /// Whether there was one.
    pub(crate) fn delete_object(&mut self, bucket: &str, name: &str) -> Result<bool> {
        let old = self.tables.find_object(bucket, name)?;
        let was_there = old.is_some();
        self.tables
            .objects
            .remove(key(&[bucket, name]).as_slice())?;
        self.give_up(old)?;
        Ok(was_there)
    }

    fn give_up(&mut self, object: Option<Object>) -> Result<()> {
        let segments = object.map(|object| object.segments).unwrap_or_default();
        segments
            .iter()
            .try_for_each(|segment| self.drop_use(segment.body))
    }

    pub(crate) fn put_upload(
        &mut self,
        bucket: &str,
        name: &str,
        id: &str,
        upload: &Upload,
    ) -> Result<()> {
        put(&mut self.tables.uploads, &key(&[bucket, name, id]), upload)
    }

    /// Replaces a part of that number.
    pub(crate) fn put_part(&mut self, upload: &str, part: &Part) -> Result<()> {
        let old = self.tables.find_part(upload, part.number)?;
        put(&mut self.tables.parts, &part_key(upload, part.number), part)?;
        old.map_or(Ok(()), |old| self.drop_use(old.body))
    }

    /// Removes an upload with its parts; bodies that something else uses stay.
    pub(crate) fn delete_upload(&mut self, bucket: &str, name: &str, id: &str) -> Result<()> {
        for part in self.tables.parts(id, 0, usize::MAX)? {
            self.tables
                .parts
                .remove(part_key(id, part.number).as_slice())?;
            self.drop_use(part.body)?;
        }
        self.tables
            .uploads
            .remove(key(&[bucket, name, id]).as_slice())?;
        Ok(())
    }

    pub(crate) fn add_use(&mut self, id: BodyId) -> Result<()> {
        let uses = self.tables.uses(id)? + 1;
        self.set_uses(id, uses)
    }

    fn drop_use(&mut self, id: BodyId) -> Result<()> {
        match self.tables.uses(id)? {
            0 | 1 => {
                self.tables.bodies.remove(id.to_bytes().as_slice())?;
                self.freed.push(id);
                Ok(())
            }
            uses => self.set_uses(id, uses - 1),
        }
    }

    fn set_uses(&mut self, id: BodyId, uses: u64) -> Result<()> {
        let bytes = uses.to_be_bytes();
        self.tables
            .bodies
            .insert(id.to_bytes().as_slice(), bytes.as_slice())?;
        Ok(())
    }
}

fn put<T: Serialize>(rows: &mut WriteRows<'_>, key: &[u8], record: &T) -> Result<()> {
    rows.insert(key, encode(record).as_slice())?;
    Ok(())
}

trait Job: Send {
    /// Directories to sync first.
    fn dirs(&self) -> &[PathBuf];
    /// An error here is the disk's and ends the whole batch; refusals are kept for the answer.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct Call<F, T> {
    dirs: Vec<PathBuf>,
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
    T: Send,
{
    fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        match catch_unwind(AssertUnwindSafe(|| work(tx))) {
            Ok(Err(error @ (Error::Disk { .. } | Error::Damaged(_)))) => Err(error),
            Ok(outcome) => {
                self.outcome = Some(outcome);
                Ok(())
            }
            Err(_) => Err(Error::disk("change the index of objects", "a panic")),
        }
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let outcome = match failure {
            Some(error) => Err(error),
            None => self.outcome.unwrap_or(Err(Error::Closed)),
        };
        // Whoever asked may be gone; what is durable stays.
        let _ = self.reply.send(outcome);
    }
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// Opens the database, for the first time or after an error.
pub(crate) type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

struct Shared {
    opener: Opener,
    /// `None` after an error, until it could be opened again.
    database: RwLock<Option<Database>>,
    bodies: Arc<Bodies>,
}

/// A handle; clones share the index, and the last one to go stops its thread.
#[derive(Clone)]
pub(crate) struct Index {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
}

impl Index {
    pub(crate) fn open(opener: Opener, bodies: Arc<Bodies>) -> Result<Self> {
        let database = opener()?;
        let shared = Arc::new(Shared {
            opener,
            database: RwLock::new(Some(database)),
            bodies,
        });
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("objects-index".into())
            .spawn(move || run(&of_thread, inbox))
            .map_err(|cause| Error::io("start the thread of the index", &cause))?;
        Ok(Self { shared, queue })
    }

    /// Reads the newest durable state.  Blocks for the disk.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Tables<ReadRows>) -> Result<T>) -> Result<T> {
        let guard = self.shared.database.read();
        let guard = guard.unwrap_or_else(PoisonError::into_inner);
        work(&tables_of(guard.as_ref().ok_or(Error::Closed)?)?)
    }

    /// The newest durable state, for as long as it is kept.
    pub(crate) fn tables(&self) -> Result<Tables<ReadRows>> {
        let guard = self.shared.database.read();
        let guard = guard.unwrap_or_else(PoisonError::into_inner);
        tables_of(guard.as_ref().ok_or(Error::Closed)?)
    }

    /// Runs `work` in a transaction, after syncing `dirs`; returns when it is durable.  Dropping
    /// the future takes nothing back.
    pub(crate) async fn write<T, F>(&self, dirs: Vec<PathBuf>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call {
            dirs,
            work: Some(work),
            outcome: None,
            reply,
        });
        let sent = self.queue.send(Message::Job(job)).await;
        sent.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Finishes what is queued and closes the file; every handle then answers `Closed`.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means that the thread has ended, and closed is what was wanted.
            let _ = closed.await;
        }
    }
}

fn tables_of(database: &Database) -> Result<Tables<ReadRows>> {
    let transaction = database.begin_read()?;
    Ok(Tables {
        buckets: transaction.open_table(BUCKETS)?,
        objects: transaction.open_table(OBJECTS)?,
        uploads: transaction.open_table(UPLOADS)?,
        parts: transaction.open_table(PARTS)?,
        bodies: transaction.open_table(BODIES)?,
    })
}

const OPENING: &str = "open the index of objects";

/// The database in a file, which is made if need be: under another name, and given its own when it
/// is complete, since one that is half made could never be opened again.
pub(crate) fn open_file(path: &Path) -> Result<Database> {
    let io = |cause: std::io::Error| Error::io(OPENING, &cause);
    let open = |path: &Path| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(path);
        prepared(database.map_err(|cause| Error::disk(OPENING, cause))?)
    };
    if !path.try_exists().map_err(io)? {
        let unfinished = path.with_extension("redb.new");
        match std::fs::remove_file(&unfinished) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(io(cause)),
            // What an earlier start left behind never had the name, and so no entry of anybody.
            Ok(()) | Err(_) => {}
        }
        drop(open(&unfinished)?);
        let file = File::open(&unfinished).map_err(io)?;
        durable::publish(&file, &unfinished, path).map_err(io)?;
    }
    let database = open(path)?;
    // Also of a file that is not new: whoever made it may have ended before this.
    durable::sync_parent(path).map_err(|cause| Error::io(OPENING, &cause))?;
    Ok(database)
}

/// With all tables, and of a format that we know.
pub(crate) fn prepared(database: Database) -> Result<Database> {
    match format_of(&database)? {
        Some(found) if found > FORMAT => {
            return Err(Error::disk(
                OPENING,
                format!("it has format {found}, and this program knows up to {FORMAT}"),
            ));
        }
        Some(_) => return Ok(database),
        None => {}
    }
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(META)?.insert("format", FORMAT)?;
    for table in [BUCKETS, OBJECTS, UPLOADS, PARTS, BODIES] {
        transaction.open_table(table)?;
    }
    transaction.commit()?;
    Ok(database)
}

/// `None` for a file that was just made.
fn format_of(database: &Database) -> Result<Option<u64>> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|found| found.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

fn run(shared: &Shared, mut queue: mpsc::Receiver<Message>) {
    let mut closing = None;
    while closing.is_none()
        && let Some(first) = queue.blocking_recv()
    {
        let mut jobs = vec![];
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job(job) => jobs.push(job),
                Message::Close(done) => closing = Some(done),
            }
            let is_full = jobs.len() >= BATCH_JOBS_MAX || closing.is_some();
            next = if is_full { None } else { queue.try_recv().ok() };
        }
        if jobs.is_empty() {
            continue;
        }
        let mut failure = commit(shared, &mut jobs).err();
        if let Some(error) = &failure {
            tracing::error!(%error, "objects could not be committed");
            if matches!(error, Error::Disk { .. } | Error::Closed) {
                reopen(shared);
                // The database says no more than that the disk refused; why is seen from the disk.
                if shared.bodies.check_room_of_index() == Err(Error::StorageFull) {
                    failure = Some(Error::StorageFull);
                }
            }
        }
        jobs.into_iter().for_each(|job| job.answer(failure.clone()));
    }
    let database = shared.database.write();
    *database.unwrap_or_else(PoisonError::into_inner) = None;
    if let Some(done) = closing {
        // Whoever asked may be gone.
        let _ = done.send(());
    }
}

fn commit(shared: &Shared, jobs: &mut [Box<dyn Job>]) -> Result<()> {
    // Commits rewrite pages elsewhere before they free the old ones, so that they need room too.
    shared.bodies.check_room_of_index()?;
    let dirs: BTreeSet<&PathBuf> = jobs.iter().flat_map(|job| job.dirs()).collect();
    for dir in dirs {
        durable::sync_directory(dir).map_err(|cause| Error::io("sync objects", &cause))?;
    }
    let guard = shared.database.read();
    let guard = guard.unwrap_or_else(PoisonError::into_inner);
    let mut transaction = guard.as_ref().ok_or(Error::Closed)?.begin_write()?;
    transaction.set_two_phase_commit(true);
    let freed = {
        let mut tx = Tx {
            tables: Tables {
                buckets: transaction.open_table(BUCKETS)?,
                objects: transaction.open_table(OBJECTS)?,
                uploads: transaction.open_table(UPLOADS)?,
                parts: transaction.open_table(PARTS)?,
                bodies: transaction.open_table(BODIES)?,
            },
            freed: vec![],
        };
        jobs.iter_mut().try_for_each(|job| job.run(&mut tx))?;
        tx.freed
    };
    transaction.commit()?;
    drop(guard);
    shared.bodies.release(&freed);
    Ok(())
}

/// What an error left undecided is read back from the file.
fn reopen(shared: &Shared) {
    let mut guard = shared
        .database
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    *guard = None;
    match (shared.opener)() {
        Ok(database) => *guard = Some(database),
        Err(error) => tracing::error!(%error, "the index of objects cannot be opened again"),
    }
}
