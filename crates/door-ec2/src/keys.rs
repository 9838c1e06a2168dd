//! Access keys, from the engine's records.

use cumulet_auth::{Key, Keys, Principal};
use cumulet_engine::Engine;

/// Looks keys up in the newest state.
pub(crate) struct EngineKeys(pub(crate) Engine);

impl Keys for EngineKeys {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        match self.0.find_access_key(access_key_id) {
            Ok(found) => {
                let (record, secret) = found?;
                Some(Key {
                    secret,
                    versions: record.signature_versions.clone(),
                    principal: Principal {
                        account: record.account,
                        user: record.user.clone(),
                        access_key_id: record.id.clone(),
                    },
                })
            }
            Err(error) => {
                tracing::error!(
                    access_key_id,
                    cause = error.log(),
                    "the secret of an access key does not open"
                );
                None
            }
        }
    }
}
