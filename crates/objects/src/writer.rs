//! Taking in the bytes of an object: in blocks, hashed and written off the
//! async threads, in constant memory.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::bodies::{Bodies, BodyId, OpenBody, StagedFile};
use crate::checksums::{Algorithm, Digests, Expected, Hasher, compare};
use crate::error::{Error, Result};

/// Bytes that are hashed and written at once; twice as many are in memory for each upload.
const BLOCK_LEN: usize = 1024 * 1024;

struct Sink {
    bodies: Arc<Bodies>,
    body: Option<OpenBody>,
    hasher: Hasher,
    size: u64,
}

impl Sink {
    fn write(&mut self, blocks: &[Bytes]) -> Result<()> {
        let length = blocks.iter().map(|block| block.len() as u64).sum();
        self.bodies.check_room(length)?;
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(self.bodies.create()?),
        };
        for block in blocks {
            self.hasher.update(block);
            body.file
                .write_all(block)
                .map_err(|cause| Error::io("write an object", &cause))?;
        }
        self.size += length;
        Ok(())
    }
}

/// A body that is coming in.  Dropped before [`BodyWriter::finish`], nothing of it stays.
pub struct BodyWriter {
    sink: Option<Sink>,
    running: Option<JoinHandle<Result<Sink>>>,
    pending: Vec<Bytes>,
    pending_len: usize,
    received: u64,
    size_max: u64,
    workers: Arc<Semaphore>,
}

impl BodyWriter {
    pub(crate) fn new(
        bodies: Arc<Bodies>,
        algorithms: &BTreeSet<Algorithm>,
        size_max: u64,
        workers: Arc<Semaphore>,
    ) -> Self {
        Self {
            sink: Some(Sink {
                bodies,
                body: None,
                hasher: Hasher::new(algorithms),
                size: 0,
            }),
            running: None,
            pending: vec![],
            pending_len: 0,
            received: 0,
            size_max,
            workers,
        }
    }

    /// Takes bytes; waits when the disk is slower than the sender.
    ///
    /// # Errors
    /// `EntityTooLarge`, `StorageFull`, `Disk`.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.received += bytes.len() as u64;
        if self.received > self.size_max {
            return Err(Error::EntityTooLarge { max: self.size_max });
        }
        self.pending_len += bytes.len();
        self.pending.push(bytes);
        if self.pending_len < BLOCK_LEN {
            return Ok(());
        }
        let mut sink = self.idle_sink().await?;
        let blocks = self.take_pending();
        let permit = worker(&self.workers).await?;
        self.running = Some(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            sink.write(&blocks).map(|()| sink)
        }));
        Ok(())
    }

    /// Ends the body: compares, syncs, names.  The digests asked for in the beginning are in the
    /// answer.
    ///
    /// # Errors
    /// `BadDigest`, `IncompleteBody`, and as [`Self::write`].
    pub async fn finish(mut self, expected: Expected) -> Result<StagedBody> {
        let mut sink = self.idle_sink().await?;
        let blocks = self.take_pending();
        let permit = worker(&self.workers).await?;
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if !blocks.is_empty() || sink.body.is_none() {
                sink.write(&blocks)?;
            }
            let digests = sink.hasher.finish();
            compare(&expected, &digests, sink.size)?;
            let body = sink.body.ok_or(Error::Closed)?;
            Ok(StagedBody {
                size: sink.size,
                digests,
                file: body.publish()?,
            })
        });
        joined(work).await
    }

    async fn idle_sink(&mut self) -> Result<Sink> {
        match self.running.take() {
            Some(running) => joined(running).await,
            // Gone only after an error, which the caller has seen.
            None => self.sink.take().ok_or(Error::Closed),
        }
    }

    fn take_pending(&mut self) -> Vec<Bytes> {
        self.pending_len = 0;
        std::mem::take(&mut self.pending)
    }
}

pub(crate) async fn worker(workers: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let permit = workers.clone().acquire_owned().await;
    permit.map_err(|_| Error::Closed)
}

pub(crate) async fn joined<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    match work.await {
        Ok(done) => done,
        Err(cause) => Err(Error::disk("work on an object", cause)),
    }
}

/// A whole, compared and synced body that is no object yet.  Dropped, its file goes.
pub struct StagedBody {
    /// Bytes.
    pub size: u64,
    pub digests: Digests,
    file: StagedFile,
}

impl StagedBody {
    pub(crate) fn dir(&self) -> PathBuf {
        self.file.dir.clone()
    }

    /// From here the file stays; see [`StagedFile::keep`].
    pub(crate) fn keep(self) -> BodyId {
        self.file.keep()
    }
}
