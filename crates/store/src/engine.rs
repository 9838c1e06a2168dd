//! The trait of what keeps records over a restart.

use crate::{Change, Key, Kind, Revision, StoreError};

/// A condition on the record that a batch builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    pub kind: Kind,
    pub key: Key,
    /// The revision that wrote the record; `None` means that it must not exist.
    pub revision: Option<Revision>,
}

/// An atomic set of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub preconditions: Vec<Precondition>,
    /// Applied in order; a later change of the same key wins.
    pub changes: Vec<Change>,
}

/// Keeps records durably.  Called from one thread at a time.
pub trait Engine: Send + 'static {
    /// Hands every record to `sink`, with the revision that wrote it, and returns the newest
    /// revision.
    ///
    /// # Errors
    /// `UnknownKind` for a kind that is not in the list given when it was opened; `Io`.
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError>;

    /// Makes the batch durable, whole or not at all, and returns its revision.
    ///
    /// # Errors
    /// `Conflict` changes nothing.  After `Io` it is unknown whether the batch is there: the caller
    /// must stop, and open the engine again.
    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError>;
}
