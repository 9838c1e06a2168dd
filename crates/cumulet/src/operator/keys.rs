//! Access keys of users.

use std::collections::BTreeSet;

use cumulet_auth::keys;
use cumulet_domain::accounts::AccessKey;
use cumulet_domain::{Error, Resource};
use cumulet_engine::Engine;
use cumulet_engine::environment::Entropy as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;
use super::when;
use crate::surroundings::SystemEntropy;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Id and secret are drawn unless they are given.
    Create {
        account: Option<String>,
        user: String,
        signature_versions: BTreeSet<u8>,
        access_key_id: Option<String>,
        secret_access_key: Option<String>,
    },
    List {
        account: Option<String>,
    },
    Show {
        id: String,
    },
    Delete {
        id: String,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Create {
            account,
            user,
            signature_versions,
            access_key_id,
            secret_access_key,
        } => {
            let account = find_account(engine, account.as_deref())?;
            let is_known = |version: &u8| matches!(version, 0 | 1 | 2 | 4);
            if signature_versions.is_empty() || !signature_versions.iter().all(is_known) {
                return Err(Error::invalid(
                    "signature_versions",
                    "The signature versions are 0, 1, 2 and 4",
                ));
            }
            let id = match access_key_id {
                Some(id) if keys::is_access_key_id(&id) => id,
                Some(_) => {
                    return Err(Error::invalid(
                        "access_key_id",
                        "An access key id has 3 to 128 letters, digits, - or _",
                    ));
                }
                None => keys::access_key_id(&random()),
            };
            let secret = match secret_access_key {
                Some(secret) if secret.len() < 8 => {
                    return Err(Error::invalid(
                        "secret_access_key",
                        "A secret has at least 8 characters",
                    ));
                }
                Some(secret) => zeroize::Zeroizing::new(secret),
                None => keys::secret_access_key(&random()),
            };
            let key = engine
                .create_access_key(account.id, user, id, &secret, signature_versions)
                .await?;
            let mut shown = show_key(&key);
            shown["secret_access_key"] = json!(secret.as_str());
            Ok(shown)
        }
        Request::List { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            let of = state.access_keys.values();
            Ok(of
                .filter(|key| account.as_ref().is_none_or(|it| it.id == key.account))
                .map(|key| show_key(key))
                .collect())
        }
        Request::Show { id } => {
            let state = engine.snapshot();
            let key = state.access_keys.get(id.as_str());
            Ok(show_key(key.ok_or_else(|| {
                Error::not_found(Resource::AccessKey, &id)
            })?))
        }
        Request::Delete { id } => {
            engine.delete_access_key(id.clone()).await?;
            Ok(json!({ "deleted": id }))
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

fn show_key(key: &AccessKey) -> Value {
    json!({
        "access_key_id": key.id,
        "account": key.account,
        "user": key.user,
        "created": when(key.created),
        "signature_versions": key.signature_versions,
    })
}
