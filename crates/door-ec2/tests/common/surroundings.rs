//! Time, randomness, keys, records and objects as tests need them.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_engine::environment::{
    Clock, CreatedKey, Entropy, ImageObjects, ImportedKey, KeyForge, ObjectError, ObjectReader,
    Sealer,
};
use cumulet_store::{Batch, Change, MemoryEngine, Revision, StoreError};
use zeroize::Zeroizing;

use super::NOW;
use super::identities::rsa_key;

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

pub(super) struct PlainSealer;

impl Sealer for PlainSealer {
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok([context.as_bytes(), plain].concat())
    }
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let plain = sealed.strip_prefix(context.as_bytes());
        Ok(Zeroizing::new(plain.ok_or("sealed for another")?.to_vec()))
    }
}

/// Makes the same RSA key each time.
pub(super) struct OneKey;

impl KeyForge for OneKey {
    fn create(&self, kind: KeyType) -> Result<CreatedKey, String> {
        if kind == KeyType::Ed25519 {
            let key = cumulet_auth::keys::generate_ed25519().map_err(|cause| cause.to_string())?;
            return Ok(CreatedKey {
                private_pem: key.pem,
                fingerprint: key.public.fingerprint,
                openssh: key.public.openssh,
            });
        }
        let key = rsa_key();
        Ok(CreatedKey {
            private_pem: key.pem.clone(),
            fingerprint: key.fingerprint.clone(),
            openssh: key.openssh.clone(),
        })
    }
    fn parse_public(&self, material: &[u8]) -> Result<ImportedKey, String> {
        let key = cumulet_auth::public_keys::parse(material)?;
        Ok(ImportedKey {
            fingerprint: key.fingerprint,
            openssh: key.openssh,
            key_type: key.key_type,
        })
    }
}

#[derive(Default)]
pub(super) struct Objects {
    /// Bodies by bucket and key.
    pub(super) files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) is_broken: AtomicBool,
}

impl Objects {
    fn find(&self, bucket: &str, key: &str) -> Result<Vec<u8>, ObjectError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(ObjectError::Failed("/srv/objects: an I/O error".into()));
        }
        let name = format!("{bucket}/{key}");
        let files = self.files.lock().expect("not poisoned");
        files.get(&name).cloned().ok_or(ObjectError::NotFound(name))
    }
}

#[async_trait]
impl ImageObjects for Objects {
    async fn read_small(
        &self,
        _caller: AccountId,
        bucket: &str,
        key: &str,
        _bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        self.find(bucket, key)
    }

    async fn has_buckets(&self, _owner: AccountId) -> Result<bool, ObjectError> {
        Ok(false)
    }

    fn open(&self, _: AccountId, bucket: &str, key: &str) -> Result<ObjectReader, ObjectError> {
        let bytes = self.find(bucket, key)?;
        let reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(bytes));
        Ok(reader)
    }
}
