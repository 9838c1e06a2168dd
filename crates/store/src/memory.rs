//! Records that a restart forgets; for tests and for simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::{Batch, Change, Engine, Key, Kind, Revision, StoreError};

type Records = BTreeMap<(Kind, Key), (Revision, Bytes)>;

/// Clones share the records, so that a test can "restart" on what was committed.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    shared: Arc<Mutex<(Revision, Records)>>,
}

impl Engine for MemoryEngine {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, key), (revision, value)) in &shared.1 {
            sink(*revision, Change::put(*kind, key.clone(), value.clone()))?;
        }
        Ok(shared.0)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for condition in &batch.preconditions {
            let found = shared
                .1
                .get(&(condition.kind, condition.key.clone()))
                .map(|(revision, _)| *revision);
            if found != condition.revision {
                return Err(StoreError::Conflict(format!(
                    "{} {}",
                    condition.kind, condition.key
                )));
            }
        }
        shared.0 += 1;
        let revision = shared.0;
        for change in &batch.changes {
            let id = (change.kind, change.key.clone());
            match &change.value {
                Some(value) => shared.1.insert(id, (revision, value.clone())),
                None => shared.1.remove(&id),
            };
        }
        Ok(revision)
    }
}
