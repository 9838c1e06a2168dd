//! What an operator can ask, as values: the control socket carries them as
//! JSON, and commands run them in-process when no server runs.

mod images;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cumulet_auth::{certificates, keys};
use cumulet_domain::accounts::{Account, Certificate, User};
use cumulet_domain::{AccountId, Error, ImageId, KernelId, Resource, Timestamp};
use cumulet_engine::Engine;
use cumulet_engine::environment::Entropy;
use cumulet_wire::time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::images::{Import, images, import_image};
use crate::backup::{self, Choice, Source};
use crate::password;
use crate::surroundings::SystemEntropy;

/// Biggest certificate that is read.
const CERTIFICATE_LEN_MAX: usize = 64 * 1024;

/// One request of an operator.  `account` is a number or a name; without it the only account is
/// meant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    AccountCreate {
        name: String,
        id: Option<AccountId>,
    },
    AccountList,
    AccountShow {
        account: String,
    },
    AccountDelete {
        account: String,
    },
    UserCreate {
        account: Option<String>,
        name: String,
        password: Option<String>,
    },
    UserList {
        account: Option<String>,
    },
    UserShow {
        account: Option<String>,
        name: String,
    },
    UserDelete {
        account: Option<String>,
        name: String,
    },
    KeyCreate {
        account: Option<String>,
        user: String,
        signature_versions: BTreeSet<u8>,
        access_key_id: Option<String>,
        secret_access_key: Option<String>,
    },
    KeyList {
        account: Option<String>,
    },
    KeyShow {
        id: String,
    },
    KeyDelete {
        id: String,
    },
    CertificateCreate {
        account: Option<String>,
        user: String,
        pem: Option<String>,
    },
    CertificateList {
        account: Option<String>,
    },
    CertificateShow {
        fingerprint: String,
    },
    CertificateDelete {
        fingerprint: String,
    },
    QuotaShow {
        account: Option<String>,
    },
    QuotaSet {
        account: Option<String>,
        instances: Option<u32>,
    },
    KernelAdd {
        id: KernelId,
        version: String,
    },
    KernelList,
    KernelDelete {
        id: KernelId,
    },
    ImageList,
    ImageShow {
        id: ImageId,
    },
    /// Takes a file on this machine as an image.
    ImageImport {
        account: Option<String>,
        name: String,
        path: PathBuf,
        kind: Option<ImportKind>,
        format: ImportFormat,
        is_public: bool,
    },
    InstanceList,
    /// Writes a backup to a new directory on this machine.
    Backup {
        path: PathBuf,
        objects: bool,
        images: bool,
    },
}

impl Request {
    /// Whether this makes something that was not there.
    pub(crate) fn makes(&self) -> bool {
        matches!(
            self,
            Request::AccountCreate { .. }
                | Request::UserCreate { .. }
                | Request::KeyCreate { .. }
                | Request::CertificateCreate { .. }
                | Request::QuotaSet { .. }
                | Request::KernelAdd { .. }
                | Request::ImageImport { .. }
        )
    }
}

/// What a file is said to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImportKind {
    Rootfs,
    Disk,
}

/// How a file holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImportFormat {
    Raw,
    Qcow2,
}

/// Does what is asked.  Everything that it answers may be shown to the operator; secrets are in it
/// only when they were just made.
///
/// # Errors
/// The engine's.
pub(crate) async fn perform(
    engine: &Engine,
    source: &Source,
    request: Request,
) -> Result<Value, Error> {
    match request {
        Request::Status => status(engine).await,
        Request::AccountCreate { .. }
        | Request::AccountList
        | Request::AccountShow { .. }
        | Request::AccountDelete { .. }
        | Request::QuotaShow { .. }
        | Request::QuotaSet { .. } => accounts(engine, request).await,
        Request::UserCreate { .. }
        | Request::UserList { .. }
        | Request::UserShow { .. }
        | Request::UserDelete { .. } => users(engine, request).await,
        Request::KeyCreate { .. }
        | Request::KeyList { .. }
        | Request::KeyShow { .. }
        | Request::KeyDelete { .. } => access_keys(engine, request).await,
        Request::CertificateCreate { .. }
        | Request::CertificateList { .. }
        | Request::CertificateShow { .. }
        | Request::CertificateDelete { .. } => user_certificates(engine, request).await,
        Request::KernelAdd { .. } | Request::KernelList | Request::KernelDelete { .. } => {
            kernels(engine, request).await
        }
        Request::ImageList | Request::ImageShow { .. } => images(engine, &request),
        Request::ImageImport {
            account,
            name,
            path,
            kind,
            format,
            is_public,
        } => {
            let import = Import {
                account,
                name,
                path,
                kind,
                format,
                is_public,
            };
            import_image(engine, import).await
        }
        Request::InstanceList => Ok(instances(engine)),
        Request::Backup {
            path,
            objects,
            images,
        } => backup::save(source, path, Choice { objects, images })
            .await
            .map_err(|cause| Error::invalid("backup", format!("{cause:#}"))),
    }
}

async fn status(engine: &Engine) -> Result<Value, Error> {
    let state = engine.snapshot();
    let profile = &engine.host().profile;
    Ok(json!({
        "compute": if profile.is_simulated { "simulated" } else { "qemu" },
        "acceleration": profile.acceleration,
        "machine": profile.machine,
        "memory_mib": profile.memory_mib,
        "memory_used_mib": state.host_usage.memory_mib,
        "accounts": state.accounts.len(),
        "images": state.images.len(),
        "instances_live": state.live_instances.len(),
        "default_kernel": state.default_kernel().map(|kernel| kernel.id),
        "orphans": engine.orphans().await?,
    }))
}

fn find_account(engine: &Engine, given: Option<&str>) -> Result<Arc<Account>, Error> {
    let state = engine.snapshot();
    let Some(given) = given else {
        let mut all = state.accounts.values();
        return match (all.next(), all.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(Error::invalid(
                "account",
                "There are several accounts: say which, with --account",
            )),
        };
    };
    let by_id = given
        .parse()
        .ok()
        .and_then(|id: AccountId| state.accounts.get(&id));
    let found = by_id.or_else(|| {
        state
            .accounts
            .values()
            .find(|account| account.name == given)
    });
    found
        .cloned()
        .ok_or_else(|| Error::not_found(Resource::Account, given))
}

fn when(at: Timestamp) -> String {
    time::format_iso8601(at)
}

async fn accounts(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::AccountCreate { name, id } => Ok(show_account(
            &engine.create_account(name, id).await?,
            engine,
        )),
        Request::AccountList => Ok(engine
            .snapshot()
            .accounts
            .values()
            .map(|account| show_account(account, engine))
            .collect()),
        Request::AccountShow { account } => Ok(show_account(
            find_account(engine, Some(&account))?.as_ref(),
            engine,
        )),
        Request::AccountDelete { account } => {
            let account = find_account(engine, Some(&account))?;
            engine.delete_account(account.id).await?;
            Ok(json!({ "deleted": account.id }))
        }
        Request::QuotaShow { account } => Ok(show_quota(
            find_account(engine, account.as_deref())?.as_ref(),
            engine,
        )),
        Request::QuotaSet { account, instances } => {
            let account = find_account(engine, account.as_deref())?;
            engine.set_instance_limit(account.id, instances).await?;
            let account = Account {
                instance_limit: instances,
                ..Account::clone(&account)
            };
            Ok(show_quota(&account, engine))
        }
        _ => Err(Error::internal("a request went to the wrong function")),
    }
}

fn show_account(account: &Account, engine: &Engine) -> Value {
    let state = engine.snapshot();
    let users = state
        .users
        .values()
        .filter(|user| user.account == account.id)
        .count();
    json!({ "id": account.id, "name": account.name, "created": when(account.created), "users": users })
}

fn show_quota(account: &Account, engine: &Engine) -> Value {
    let used = engine
        .snapshot()
        .account_usage
        .get(&account.id)
        .copied()
        .unwrap_or(0);
    let limit = account
        .instance_limit
        .unwrap_or(engine.config().instances_per_account);
    json!({
        "account": account.id,
        "instances": limit,
        "instances_used": used,
        "is_default": account.instance_limit.is_none(),
    })
}

async fn users(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::UserCreate {
            account,
            name,
            password,
        } => {
            let account = find_account(engine, account.as_deref())?;
            let hash = match password {
                Some(password) => {
                    let hashed =
                        tokio::task::spawn_blocking(move || password::hash_chosen(&password)).await;
                    Some(hashed.map_err(Error::internal)?.map_err(Error::internal)?)
                }
                None => None,
            };
            Ok(show_user(
                &engine.create_user(account.id, name, hash).await?,
            ))
        }
        Request::UserList { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            let is_asked =
                |user: &&Arc<User>| account.as_ref().is_none_or(|it| it.id == user.account);
            Ok(state
                .users
                .values()
                .filter(is_asked)
                .map(|user| show_user(user))
                .collect())
        }
        Request::UserShow { account, name } => {
            let account = find_account(engine, account.as_deref())?;
            let state = engine.snapshot();
            let user = state.users.get(&(account.id, name.as_str().into()));
            Ok(show_user(
                user.ok_or_else(|| Error::not_found(Resource::User, &name))?,
            ))
        }
        Request::UserDelete { account, name } => {
            let account = find_account(engine, account.as_deref())?;
            engine.delete_user(account.id, name.clone()).await?;
            Ok(json!({ "deleted": name }))
        }
        _ => Err(Error::internal("a request went to the wrong function")),
    }
}

fn show_user(user: &User) -> Value {
    json!({
        "account": user.account,
        "name": user.name,
        "created": when(user.created),
        "has_password": user.password_hash.is_some(),
    })
}

async fn access_keys(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::KeyCreate {
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
        Request::KeyList { account } => {
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
        Request::KeyShow { id } => {
            let state = engine.snapshot();
            let key = state.access_keys.get(id.as_str());
            Ok(show_key(key.ok_or_else(|| {
                Error::not_found(Resource::AccessKey, &id)
            })?))
        }
        Request::KeyDelete { id } => {
            engine.delete_access_key(id.clone()).await?;
            Ok(json!({ "deleted": id }))
        }
        _ => Err(Error::internal("a request went to the wrong function")),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

fn show_key(key: &cumulet_domain::accounts::AccessKey) -> Value {
    json!({
        "access_key_id": key.id,
        "account": key.account,
        "user": key.user,
        "created": when(key.created),
        "signature_versions": key.signature_versions,
    })
}

async fn user_certificates(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::CertificateCreate { account, user, pem } => {
            let account = find_account(engine, account.as_deref())?;
            create_certificate(engine, account.id, user, pem).await
        }
        Request::CertificateList { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            Ok(state
                .certificates
                .values()
                .filter(|it| {
                    account
                        .as_ref()
                        .is_none_or(|account| account.id == it.account)
                })
                .map(|it| show_certificate(it))
                .collect())
        }
        Request::CertificateShow { fingerprint } => {
            let state = engine.snapshot();
            let found = state.certificates.get(fingerprint.as_str());
            let found =
                found.ok_or_else(|| Error::not_found(Resource::Certificate, &fingerprint))?;
            let mut shown = show_certificate(found);
            shown["certificate"] = json!(found.pem);
            Ok(shown)
        }
        Request::CertificateDelete { fingerprint } => {
            engine.delete_certificate(fingerprint.clone()).await?;
            Ok(json!({ "deleted": fingerprint }))
        }
        _ => Err(Error::internal("a request went to the wrong function")),
    }
}

async fn create_certificate(
    engine: &Engine,
    account: AccountId,
    user: String,
    pem: Option<String>,
) -> Result<Value, Error> {
    let now = engine.environment().now();
    let (fingerprint, pem, private_key) = match pem {
        Some(pem) => {
            let fingerprint = (pem.len() <= CERTIFICATE_LEN_MAX)
                .then(|| certificates::fingerprint(&pem))
                .flatten()
                .ok_or_else(|| {
                    Error::invalid("pem", "This is no X.509 certificate with an RSA key in PEM")
                })?;
            (fingerprint, pem, None)
        }
        None => {
            let (name, organisation) = (user.clone(), account.to_string());
            let issue = move || certificates::issue(&name, &organisation, now.0);
            let issued = tokio::task::spawn_blocking(issue)
                .await
                .map_err(Error::internal)?;
            let issued = issued.map_err(Error::internal)?;
            (
                issued.fingerprint,
                issued.certificate_pem,
                Some(issued.private_key_pem),
            )
        }
    };
    let certificate = Certificate {
        fingerprint,
        account,
        user,
        created: now,
        pem,
    };
    let mut shown = show_certificate(&certificate);
    shown["certificate"] = json!(certificate.pem);
    if let Some(private_key) = private_key {
        shown["private_key"] = json!(private_key.as_str());
    }
    engine.add_certificate(certificate).await?;
    Ok(shown)
}

fn show_certificate(certificate: &Certificate) -> Value {
    json!({
        "fingerprint": certificate.fingerprint,
        "account": certificate.account,
        "user": certificate.user,
        "created": when(certificate.created),
    })
}

async fn kernels(engine: &Engine, request: Request) -> Result<Value, Error> {
    let show = |kernel: &cumulet_domain::images::Kernel| {
        json!({
            "id": kernel.id,
            "version": kernel.version,
            "created": when(kernel.created),
            "is_default": kernel.is_default,
        })
    };
    match request {
        Request::KernelAdd { id, version } => Ok(show(&engine.add_kernel(id, version).await?)),
        Request::KernelList => Ok(engine.kernels().iter().map(|kernel| show(kernel)).collect()),
        Request::KernelDelete { id } => {
            engine.delete_kernel(id).await?;
            Ok(json!({ "deleted": id }))
        }
        _ => Err(Error::internal("a request went to the wrong function")),
    }
}

fn instances(engine: &Engine) -> Value {
    let state = engine.snapshot();
    let show = |instance: &Arc<cumulet_domain::instances::Instance>| {
        json!({
            "id": instance.id,
            "owner": instance.owner,
            "state": instance.state().name(),
            "image": instance.image,
            "type": instance.instance_type,
            "address": instance.address,
            "launched": when(instance.launched),
        })
    };
    state.instances.values().map(show).collect()
}

/// The text that an operator sees: with what users do not see.
pub(crate) fn error_text(error: &Error) -> String {
    match error.log() {
        Some(log) => format!("{error}: {log}"),
        None => error.to_string(),
    }
}
