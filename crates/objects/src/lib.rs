//! Buckets and objects on the local disk.
//!
//! Bodies are files with ids of ours ([`bodies`]), everything else is in one
//! index ([`index`]).  Acknowledged means: the body and its directory are
//! synced, and then the index entry that names it.  So a crash at any moment
//! leaves the old object or the new one, whole, and at most files that nobody
//! names, which the next start collects.
//!
//! Knows no protocol: authorisation by ACLs is asked here
//! ([`access`]), signatures and XML are a door's.  Time is handed in.  Start
//! reading at [`ObjectStore`].

pub mod access;
mod bodies;
mod buckets;
mod checksums;
mod error;
mod export;
mod index;
mod listing;
mod multipart;
pub mod names;
mod objects;
#[cfg(test)]
mod power_loss;
mod reader;
mod records;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cumulet_domain::AccountId;
use tokio::sync::{Semaphore, watch};

pub use access::{Acl, Grant, Grantee, Permission};
pub use checksums::{Algorithm, ChecksumKind, Checksums, Digests, Expected, Hasher};
pub use error::{Error, Expectation, Result};
pub use export::{BUCKET, BodyName, Export, OBJECT, Row};
pub use listing::{Entry, ListQuery, Listing, UploadEntry, UploadQuery, UploadsListing};
pub use multipart::{CompletedPart, NewUpload, PART_BYTES_MIN, PART_NUMBER_MAX};
pub use objects::{Condition, CopySource, NewObject, OBJECT_BYTES_MAX};
pub use reader::{ObjectBody, ObjectReader};
pub use records::{Attributes, Bucket, Object, Part, Upload};
pub use writer::{BodyWriter, StagedBody};

use bodies::Bodies;
use index::{Index, Opener, ReadRows, Tables};

/// Who asks; `None` when nobody signed.
pub type Caller = Option<AccountId>;

/// Threads that work on bodies and read the index at one time.
const WORKERS_MAX: usize = 24;

/// A handle; clones share the store.
#[derive(Clone)]
pub struct ObjectStore {
    index: Index,
    bodies: Arc<Bodies>,
    workers: Arc<Semaphore>,
    swept: watch::Receiver<bool>,
}

impl ObjectStore {
    /// Opens the store in `dir`, or makes it.  Collects in the background what a crash left behind
    /// (see [`Self::swept`]).
    ///
    /// # Errors
    /// `Disk`: also when another process has it open, or a newer program wrote it.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("index.redb");
        Self::over(dir, Box::new(move || index::open_file(&path)))
    }

    /// As [`Self::open`], with an index that `opener` opens.
    fn over(dir: &Path, opener: Opener) -> Result<Self> {
        let bodies = Arc::new(Bodies::open(dir, rand::random())?);
        let index = Index::open(opener, bodies.clone())?;
        let (done, swept) = watch::channel(false);
        let store = Self {
            index: index.clone(),
            bodies: bodies.clone(),
            workers: Arc::new(Semaphore::new(WORKERS_MAX)),
            swept,
        };
        std::thread::Builder::new()
            .name("objects-sweep".into())
            .spawn(move || {
                let is_used = |id| index.read(|tables| Ok(tables.uses(id)? > 0));
                match bodies.sweep(is_used) {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(count, "removed left-over files of objects"),
                    Err(error) => tracing::warn!(%error, "left-over files of objects remain"),
                }
                done.send_replace(true);
            })
            .map_err(|cause| Error::io("start the thread that sweeps", &cause))?;
        Ok(store)
    }

    /// Returns when the collection that [`Self::open`] began has ended.
    pub async fn swept(&self) {
        let mut swept = self.swept.clone();
        // An error means that the thread is gone, and so has ended.
        let _ = swept.wait_for(|done| *done).await;
    }

    /// Finishes what is queued and gives the directory free, for another process or another
    /// [`Self::open`].  Every clone then answers `Closed`.
    pub async fn close(self) {
        self.swept().await;
        self.index.close().await;
    }

    /// Begins a body of at most `size_max` bytes.  The digests of `algorithms` are computed, and
    /// MD5 always.
    pub fn begin_body(&self, algorithms: &BTreeSet<Algorithm>, size_max: u64) -> BodyWriter {
        BodyWriter::new(
            self.bodies.clone(),
            algorithms,
            size_max,
            self.workers.clone(),
        )
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tables<ReadRows>) -> Result<T> + Send + 'static,
    {
        let index = self.index.clone();
        let permit = writer::worker(&self.workers).await?;
        writer::joined(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            index.read(work)
        }))
        .await
    }
}
