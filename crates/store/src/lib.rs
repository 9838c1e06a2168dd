//! Records with revisions: the shape of etcd, on one machine or in memory.
//!
//! A record has a kind, a key, opaque bytes and the revision that wrote it.  A
//! commit is an atomic batch of puts and deletes, and yields the next revision.
//! Reads come from a [`View`] in memory; a single [`writer`] runs planners
//! against the newest state, groups their changes into one durable write and
//! publishes the result.  Acknowledged means synced.
//!
//! Knows nothing of what the records mean.  Start reading at [`Store`].

pub mod conformance;
mod embedded;
mod engine;
mod memory;
mod record;
mod writer;

pub use embedded::EmbeddedEngine;
pub use engine::{Batch, Engine, Frozen, Precondition};
pub use memory::MemoryEngine;
pub use record::{Change, Key, Kind, Revision, View, ViewError};
pub use writer::{CommitError, Committed, Plan, Stepper, Store};

/// Largest value of a record, in bytes (a limit of etcd that both engines keep).
pub const VALUE_LEN_MAX: usize = 512 * 1024;
/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 512;
/// Most changes of one plan.
pub const PLAN_CHANGES_MAX: usize = 100;

/// A failure of the store.  After `Io` it takes no more commits: what could not be synced may or may
/// not be on the disk, and only opening it again tells.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Limit(String),
    #[error(
        "the store file is of format {found}; this program knows up to {known}: it was written by a newer version"
    )]
    NewerFormat { found: u64, known: u64 },
    #[error(
        "the store holds records of the kind {0:?}, which this program does not know: it was written by a newer version"
    )]
    UnknownKind(String),
    #[error("the store file is in use by another process")]
    InUse,
    /// Nothing was written; the next commit is tried again.
    #[error("the disk of the records is full: commits wait until there is room again")]
    NoSpace,
    #[error("{doing}: {cause}")]
    Io { doing: String, cause: String },
    #[error("a precondition does not hold: {0}")]
    Conflict(String),
    #[error("{0}")]
    View(#[from] ViewError),
    #[error("the planner failed: {0}")]
    Panicked(String),
    #[error("the store has stopped after a failure: {0}")]
    Failed(String),
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(doing: impl Into<String>, cause: impl ToString) -> Self {
        StoreError::Io {
            doing: doing.into(),
            cause: cause.to_string(),
        }
    }
}
