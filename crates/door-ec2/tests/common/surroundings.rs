//! Time, randomness and records as tests need them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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

/// First what a test wants, then distinct and repeatable numbers; nothing here is secret.
#[derive(Default)]
pub(crate) struct Counter {
    count: AtomicU64,
    script: Mutex<VecDeque<u128>>,
}

impl Counter {
    /// The next numbers of 128 bits are these.
    pub(crate) fn say(&self, numbers: &[u128]) {
        *self.script.lock().expect("not poisoned") = numbers.iter().copied().collect();
    }
}

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() == 16
            && let Some(number) = self.script.lock().expect("not poisoned").pop_front()
        {
            bytes.copy_from_slice(&number.to_le_bytes());
            return;
        }
        for chunk in bytes.chunks_mut(8) {
            // From 1 on.
            let next = (self.count.fetch_add(1, Ordering::Relaxed) + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
    }
}
