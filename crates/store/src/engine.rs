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
    /// `Conflict` and `NoSpace` change nothing.  After `Io` it is unknown whether the batch is there: the caller
    /// must stop, and open the engine again.
    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError>;

    /// All records as they are now, to be read while commits go on.
    ///
    /// # Errors
    /// As [`Self::load`].
    fn frozen(&mut self) -> Result<Box<dyn Frozen>, StoreError> {
        let mut records = vec![];
        let revision = self.load(&mut |revision, change| {
            records.push((revision, change));
            Ok(())
        })?;
        Ok(Box::new(Copied { revision, records }))
    }
}

/// The records of one revision.
pub trait Frozen: Send + 'static {
    /// As [`Engine::load`], as often as it is called.
    ///
    /// # Errors
    /// As [`Engine::load`], and those of `sink`.
    fn read(
        &self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError>;
}

/// Records that were copied.
struct Copied {
    revision: Revision,
    records: Vec<(Revision, Change)>,
}

impl Frozen for Copied {
    fn read(
        &self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        for (revision, change) in &self.records {
            sink(*revision, change.clone())?;
        }
        Ok(self.revision)
    }
}
