//! Time, randomness and records as tests need them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cumulet_domain::Timestamp;
use cumulet_engine::environment::{Clock, Entropy};
use cumulet_store::{Batch, Change, MemoryEngine, Revision, StoreError};

use super::NOW;

/// Records in memory, on a disk that may be full.
pub(super) struct Records {
    pub(super) kept: MemoryEngine,
    pub(super) is_disk_full: Arc<AtomicBool>,
}

impl cumulet_store::Engine for Records {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        self.kept.load(sink)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        if self.is_disk_full.load(Ordering::Relaxed) {
            return Err(StoreError::NoSpace);
        }
        self.kept.commit(batch)
    }
}

pub(super) struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// Distinct and repeatable; nothing here is secret.
pub(super) struct Counter(pub(super) AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self
                .0
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
    }
}
