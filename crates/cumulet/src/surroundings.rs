//! What the engine asks of the outside world: the real clock, the system's
//! randomness, sealing with the key file, keys made by the `auth` crate; and how
//! much memory the machine has.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use cumulet_auth::seal::{KEY_LEN, SEAL_NONCE_LEN, SealingKey};
use cumulet_auth::{Key, Keys, Principal, keys, public_keys};
use cumulet_domain::Timestamp;
use cumulet_domain::keypairs::KeyType;
use cumulet_engine::Engine;
use cumulet_engine::environment::{Clock, CreatedKey, Entropy, ImportedKey, KeyForge, Sealer};
use zeroize::Zeroizing;

/// The system's clock.
pub(crate) struct SystemClock;

/// Milliseconds since 1970, as the system's clock has it now.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is handed"
)]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }
}

/// The system's randomness.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes).expect("Linux gives random bytes to every process once it has booted");
    }
}

/// Seals with the cloud's key file.
pub(crate) struct FileSealer(SealingKey);

impl FileSealer {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(SealingKey::new(key))
    }
}

impl Sealer for FileSealer {
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; SEAL_NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| "the system gave no random bytes".to_owned())?;
        self.0.seal(context, nonce, plain)
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        self.0.open(context, sealed)
    }
}

/// Makes key pairs and reads users' public keys.
pub(crate) struct AuthForge;

impl KeyForge for AuthForge {
    fn create(&self, kind: KeyType) -> Result<CreatedKey, String> {
        let created = match kind {
            KeyType::Rsa => keys::generate_rsa().map(|key| CreatedKey {
                private_pem: key.pem,
                fingerprint: key.fingerprint,
                openssh: key.openssh,
            }),
            KeyType::Ed25519 => keys::generate_ed25519().map(|key| CreatedKey {
                private_pem: key.pem,
                fingerprint: key.public.fingerprint,
                openssh: key.public.openssh,
            }),
        };
        created.map_err(|cause| cause.to_string())
    }

    fn parse_public(&self, material: &[u8]) -> Result<ImportedKey, String> {
        let key = public_keys::parse(material)?;
        Ok(ImportedKey {
            fingerprint: key.fingerprint,
            openssh: key.openssh,
            key_type: key.key_type,
        })
    }
}

/// The engine's access keys, as the doors look them up.
pub(crate) struct EngineKeys(pub(crate) Engine);

impl Keys for EngineKeys {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        match self.0.find_access_key(access_key_id) {
            Ok(Some((record, secret))) => Some(Key {
                secret,
                versions: record.signature_versions.clone(),
                principal: Principal {
                    account: record.account,
                    user: record.user.clone(),
                    access_key_id: record.id.clone(),
                },
            }),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(log = error.log(), "an access key's secret does not open");
                None
            }
        }
    }
}

/// All memory of this machine; 0 if it cannot be told.
pub(crate) fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) / 1024
}
