//! What is stored.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The name of a sort of records, for example `instance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(&'static str);

impl Kind {
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Unique within a kind.
pub type Key = Arc<str>;

/// Grows by one with every durable batch; the empty store has revision 0.
pub type Revision = u64;

/// A put, or a delete when there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub key: Key,
    pub value: Option<Bytes>,
}

impl Change {
    pub fn put(kind: Kind, key: impl Into<Key>, value: Bytes) -> Self {
        Self {
            kind,
            key: key.into(),
            value: Some(value),
        }
    }

    pub fn delete(kind: Kind, key: impl Into<Key>) -> Self {
        Self {
            kind,
            key: key.into(),
            value: None,
        }
    }
}

/// A change that the view could not take; the commit that carried it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record does not fit the state: {0}")]
pub struct ViewError(String);

impl ViewError {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// State in memory, made from records and from nothing else.  Clones must be cheap.
pub trait View: Clone + Send + Sync + 'static {
    /// Takes one change.  After an error the clone is thrown away.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn apply(&mut self, revision: Revision, change: &Change) -> Result<(), ViewError>;
}
