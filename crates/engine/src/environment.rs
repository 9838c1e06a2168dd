//! What the engine needs from outside and does not reach for itself: time,
//! randomness, sealing, making of keys, objects.  Tests hand in other ones.

use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::{AccountId, Timestamp};
use zeroize::Zeroizing;

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

pub trait Entropy: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);
}

/// Seals secrets with the cloud's key file.  `context` is bound in: what was sealed for one record
/// does not open for another.
pub trait Sealer: Send + Sync + 'static {
    /// # Errors
    /// A text for the log.
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, String>;
    /// # Errors
    /// A text for the log: another key file, or tampering.
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// A fresh key pair.
pub struct CreatedKey {
    /// Unencrypted PEM of the form `BEGIN RSA PRIVATE KEY`, or `BEGIN OPENSSH PRIVATE KEY` for Ed25519.
    pub private_pem: Zeroizing<String>,
    /// For RSA SHA-1 over the PKCS#8 DER form, octets joined by colons; for Ed25519 SHA-256 over
    /// OpenSSH's public form, in base64.
    pub fingerprint: String,
    /// `ssh-rsa AAAA…` or `ssh-ed25519 AAAA…`, no comment, no line end.
    pub openssh: String,
}

/// A public key that a user handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedKey {
    pub fingerprint: String,
    pub openssh: String,
    pub key_type: KeyType,
}

/// Makes and reads keys.  Blocking: called off the async threads.
pub trait KeyForge: Send + Sync + 'static {
    /// # Errors
    /// A text for the log.
    fn create(&self, kind: KeyType) -> Result<CreatedKey, String>;
    /// # Errors
    /// A text for the user.
    fn parse_public(&self, material: &[u8]) -> Result<ImportedKey, String>;
}

/// Why an object could not be read for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("there is no object {0}")]
    NotFound(String),
    #[error("access to {0} is denied")]
    Denied(String),
    #[error("{0} is larger than allowed")]
    TooLarge(String),
    /// For the log.
    #[error("{0}")]
    Failed(String),
}

pub type ObjectReader = Box<dyn Read + Send>;

/// Objects as the image service may read them on a caller's behalf.
#[async_trait]
pub trait ImageObjects: Send + Sync + 'static {
    /// The whole of a small object.
    async fn read_small(
        &self,
        caller: AccountId,
        bucket: &str,
        key: &str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError>;

    /// Whether the account owns any bucket.
    async fn has_buckets(&self, owner: AccountId) -> Result<bool, ObjectError>;

    /// A stream; blocking, called off the async threads.
    fn open(&self, caller: AccountId, bucket: &str, key: &str)
    -> Result<ObjectReader, ObjectError>;
}

/// All of it together.
#[derive(Clone)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub sealer: Arc<dyn Sealer>,
    pub forge: Arc<dyn KeyForge>,
    pub objects: Arc<dyn ImageObjects>,
}

impl Environment {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// 128 fresh bits.
    pub fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}
