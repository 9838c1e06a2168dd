//! What the engine is handed besides store and host: the world's clock, counted
//! randomness, no secrets.

use std::sync::Arc;

use async_trait::async_trait;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_engine::environment::{
    Clock, CreatedKey, Entropy, Environment, ImageObjects, ImportedKey, KeyForge, ObjectError,
    ObjectReader, Sealer,
};
use zeroize::Zeroizing;

use super::world::Shared;

pub(crate) fn environment(shared: &Arc<Shared>) -> Environment {
    let given = Arc::new(Given(shared.clone()));
    Environment {
        clock: given.clone(),
        entropy: given.clone(),
        sealer: given.clone(),
        forge: given.clone(),
        objects: given,
    }
}

struct Given(Arc<Shared>);

impl Clock for Given {
    fn now(&self) -> Timestamp {
        self.0.lock().now()
    }
}

impl Entropy for Given {
    /// Never the same twice, over all restarts.
    fn fill(&self, bytes: &mut [u8]) {
        let mut world = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            world.entropy += 1;
            let drawn = world.entropy.to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

impl Sealer for Given {
    fn seal(&self, _context: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok(plain.to_vec())
    }

    fn open(&self, _context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

impl KeyForge for Given {
    fn create(&self, _kind: KeyType) -> Result<CreatedKey, String> {
        Err("keys are imported here: making one takes a thread".into())
    }

    fn parse_public(&self, material: &[u8]) -> Result<ImportedKey, String> {
        let openssh = String::from_utf8_lossy(material).into_owned();
        Ok(ImportedKey {
            fingerprint: format!("{:02x}", material.len()),
            openssh,
            key_type: KeyType::Rsa,
        })
    }
}

#[async_trait]
impl ImageObjects for Given {
    async fn read_small(
        &self,
        _caller: AccountId,
        bucket: &str,
        key: &str,
        _bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        Err(ObjectError::NotFound(format!("{bucket}/{key}")))
    }

    async fn has_buckets(&self, _owner: AccountId) -> Result<bool, ObjectError> {
        Ok(false)
    }

    fn open(&self, _: AccountId, bucket: &str, key: &str) -> Result<ObjectReader, ObjectError> {
        Err(ObjectError::NotFound(format!("{bucket}/{key}")))
    }
}
