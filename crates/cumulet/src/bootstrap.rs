//! The first start: one account, user, key, certificate, password, and the
//! cloud's own certificate.
//!
//! What the first user's tools need is kept in `client/`.  The files are
//! written as `client.new/` and synced, then the records are committed, then
//! the directory is renamed; after a crash in between the next start finds
//! either no records (and begins anew) or records and `client.new/`, which it
//! renames.  So there never is a cloud whose only key nobody knows.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::Context;
use cumulet_auth::certificates::{self, Issued};
use cumulet_auth::keys;
use cumulet_domain::accounts::{AccessKey, Account, Certificate, CloudIdentity, User};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_engine::State;
use cumulet_engine::accounts::{Bootstrap, IDENTITY_CONTEXT, plan_bootstrap, secret_context};
use cumulet_engine::environment::Sealer;
use cumulet_store::{CommitError, Store};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{BootstrapSettings, DEFAULT_ACCOUNT, DEFAULT_USER};
use crate::data_dir::{DataDir, make_private, write_durably};
use crate::{password, surroundings};

/// Name of the directory of the first user's files.
pub(crate) const CLIENT_DIR: &str = "client";
const CLIENT_DIR_NEW: &str = "client.new";
const CREDENTIALS: &str = "credentials.json";

/// `client/credentials.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) account_id: AccountId,
    pub(crate) account_name: String,
    pub(crate) user_name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    /// Empty when the user was there before, with a password that is not known here.
    pub(crate) password: String,
    pub(crate) region: String,
    /// File names beside this one.
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) cloud_certificate: String,
}

impl Credentials {
    /// Those of the cloud in `data_dir`.
    ///
    /// # Errors
    /// When there are none, or they were forgotten; the text says what to do.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let file = data_dir.join(CLIENT_DIR).join(CREDENTIALS);
        let text = fs::read(&file).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => anyhow::anyhow!(
                "there are no client files in {}: a new cloud makes them when it starts; after a restore, copy the client directory that you kept there; else make a key with `cumulet key create USER` and give it to your tools yourself",
                data_dir.display()
            ),
            io::ErrorKind::PermissionDenied => anyhow::anyhow!(
                "{} may be read only by the user who started the cloud; try `sudo cumulet env`",
                file.display()
            ),
            _ => anyhow::anyhow!("{} cannot be read: {cause}", file.display()),
        })?;
        let text = Zeroizing::new(text);
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }
}

/// What [`ensure`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// This was the first start.
    pub(crate) is_new: bool,
    /// Settings of a first start that this cloud, which had its own, does not follow: a sentence
    /// each, without secrets.
    pub(crate) differences: Vec<String>,
}

/// Makes the first records and files unless they are there.  Blocking.
///
/// # Errors
/// When files or records cannot be written.
pub(crate) fn ensure(
    dir: &DataDir,
    store: &Store<State>,
    sealer: &dyn Sealer,
    settings: &BootstrapSettings,
    region: &str,
) -> anyhow::Result<Outcome> {
    let state = store.snapshot();
    if state.identity.is_some() {
        finish_rename(dir, &state)?;
        return Ok(Outcome {
            is_new: false,
            differences: differences(&state, sealer, settings),
        });
    }
    let (bootstrap, files) = make(&state, sealer, settings, region, surroundings::now())?;
    write_files(dir, &files)?;
    let commit = store.commit_blocking(move |state: &State| {
        Ok::<_, std::convert::Infallible>(plan_bootstrap(state, &bootstrap))
    });
    match commit {
        Ok(_) => {}
        Err(CommitError::Refused(never)) => match never {},
        Err(CommitError::Store(cause)) => return Err(cause).context("the first records"),
    }
    rename(dir)?;
    Ok(Outcome {
        is_new: true,
        differences: vec![],
    })
}

/// What the settings of a first start ask for and the cloud does not have.
fn differences(state: &State, sealer: &dyn Sealer, settings: &BootstrapSettings) -> Vec<String> {
    let mut found = vec![];
    let mut differs = |name: &str, how: String| {
        found.push(format!(
            "bootstrap.{name} is not followed: {how}; it is for the first start of a new cloud alone"
        ));
    };
    if let Some(id) = settings.account_id
        && !state.accounts.contains_key(&id)
    {
        differs("account_id", format!("this cloud has no account {id}"));
    }
    if let Some(id) = &settings.access_key_id {
        match state.access_keys.get(id.as_str()) {
            None => differs(
                "access_key_id",
                format!("this cloud has no access key {id}"),
            ),
            Some(key) => {
                let ours = sealer.open(&secret_context(id), &key.sealed_secret);
                let given = settings.secret_access_key.as_deref().unwrap_or_default();
                if ours.is_ok_and(|ours| ours.as_slice() != given.as_bytes()) {
                    let how = format!("the access key {id} has another secret");
                    differs("secret_access_key", how);
                }
            }
        }
    }
    // These always have a value: one that was given shows only by not being the usual one.
    let name = &settings.account_name;
    if name != DEFAULT_ACCOUNT && !state.accounts.values().any(|it| it.name == *name) {
        differs("account_name", format!("this cloud has no account {name}"));
    }
    let name = &settings.user_name;
    if name != DEFAULT_USER && !state.users.values().any(|it| it.name == *name) {
        differs("user_name", format!("this cloud has no user {name}"));
    }
    found
}

/// Named contents of the client directory.
type Files = Vec<(String, Zeroizing<String>)>;

fn make(
    state: &State,
    sealer: &dyn Sealer,
    settings: &BootstrapSettings,
    region: &str,
    now: Timestamp,
) -> anyhow::Result<(Bootstrap, Files)> {
    let account_id = settings
        .account_id
        .unwrap_or_else(|| AccountId::from_random(u64::from_le_bytes(random())));
    let user_name = settings.user_name.clone();
    // Each certificate has a key of its own to find, which takes time: together.
    let (user_certificate, cloud_certificate) = std::thread::scope(|scope| {
        let organisation = account_id.to_string();
        let name = user_name.clone();
        let user = scope.spawn(move || certificates::issue(&name, &organisation, now.0));
        let cloud = certificates::issue("ec2", "Cumulet", now.0);
        (user.join(), cloud)
    });
    let user_certificate: Issued = user_certificate
        .map_err(|_| anyhow::anyhow!("issuing a certificate ended badly"))?
        .context("the first user's certificate")?;
    let cloud_certificate = cloud_certificate.context("the cloud's certificate")?;

    let access_key_id = settings
        .access_key_id
        .clone()
        .unwrap_or_else(|| keys::access_key_id(&random()));
    let secret = match &settings.secret_access_key {
        Some(given) => Zeroizing::new(given.clone()),
        None => keys::secret_access_key(&random()),
    };
    let password = password::generate()?;
    let seal = |context: &str, plain: &[u8]| {
        sealer
            .seal(context, plain)
            .map_err(|cause| anyhow::anyhow!("sealing failed: {cause}"))
    };
    let bootstrap = Bootstrap {
        account: Account {
            id: account_id,
            name: settings.account_name.clone(),
            created: now,
            instance_limit: None,
            alias: None,
        },
        user: User {
            account: account_id,
            name: user_name.clone(),
            created: now,
            password_hash: Some(password::hash_generated(&password)?),
        },
        access_key: AccessKey {
            account: account_id,
            user: user_name.clone(),
            created: now,
            sealed_secret: seal(&secret_context(&access_key_id), secret.as_bytes())?,
            // V0 and V1 are forgeable in part: off until switched on for a key.
            signature_versions: BTreeSet::from([2, 4]),
            id: access_key_id.clone(),
        },
        certificate: Certificate {
            fingerprint: user_certificate.fingerprint.clone(),
            account: account_id,
            user: user_name.clone(),
            created: now,
            pem: user_certificate.certificate_pem.clone(),
        },
        identity: CloudIdentity {
            certificate_pem: cloud_certificate.certificate_pem.clone(),
            sealed_private_key: seal(IDENTITY_CONTEXT, &cloud_certificate.private_key_pkcs8)?,
            created: now,
        },
    };
    // After a restore without the key they may be there; they stay as they are.
    let account = state.accounts.get(&account_id);
    let has_user = state
        .users
        .contains_key(&(account_id, user_name.as_str().into()));
    let credentials = Credentials {
        account_id,
        account_name: account
            .map_or(&settings.account_name, |it| &it.name)
            .clone(),
        user_name,
        access_key_id,
        secret_access_key: secret.to_string(),
        password: if has_user {
            String::new()
        } else {
            password.to_string()
        },
        region: region.to_owned(),
        certificate: format!("cert-{}.pem", user_certificate.fingerprint),
        private_key: format!("pk-{}.pem", user_certificate.fingerprint),
        cloud_certificate: "cert-ec2.pem".into(),
    };
    let files = vec![
        (
            CREDENTIALS.to_owned(),
            Zeroizing::new(serde_json::to_string_pretty(&credentials)? + "\n"),
        ),
        (
            credentials.certificate.clone(),
            Zeroizing::new(user_certificate.certificate_pem),
        ),
        (
            credentials.private_key.clone(),
            user_certificate.private_key_pem,
        ),
        (
            credentials.cloud_certificate.clone(),
            Zeroizing::new(cloud_certificate.certificate_pem),
        ),
    ];
    Ok((bootstrap, files))
}

fn random<const N: usize>() -> [u8; N] {
    use cumulet_engine::environment::Entropy;
    let mut bytes = [0; N];
    surroundings::SystemEntropy.fill(&mut bytes);
    bytes
}

fn write_files(dir: &DataDir, files: &Files) -> anyhow::Result<()> {
    let new = dir.join(CLIENT_DIR_NEW);
    // Left by a start that was cut off before its commit: nobody can use what is in it.
    match fs::remove_dir_all(&new) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause).context("an unfinished first start cannot be cleared"),
    }
    make_private(&new).context("the client directory cannot be made")?;
    for (name, text) in files {
        write_durably(&new.join(name), text.as_bytes(), 0o600)?;
    }
    give_to_caller(&new, files)?;
    cumulet_durable::sync_directory(dir.path()).context("the data directory cannot be synced")
}

/// Under sudo the files belong to the user who called it.
fn give_to_caller(new: &Path, files: &Files) -> anyhow::Result<()> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let (Some(uid), gid) = (number("SUDO_UID"), number("SUDO_GID")) else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for (name, _) in files {
        chown(new.join(name), Some(uid), gid).context("a client file cannot be handed over")?;
    }
    chown(new, Some(uid), gid).context("the client directory cannot be handed over")
}

fn rename(dir: &DataDir) -> anyhow::Result<()> {
    cumulet_durable::publish_directory(&dir.join(CLIENT_DIR_NEW), &dir.join(CLIENT_DIR))
        .context("the client directory cannot be put in place")
}

/// Does what a crash right after the commit left undone.
fn finish_rename(dir: &DataDir, state: &State) -> anyhow::Result<()> {
    let (old, new) = (dir.join(CLIENT_DIR), dir.join(CLIENT_DIR_NEW));
    if old.exists() || !new.exists() {
        return Ok(());
    }
    let text = Zeroizing::new(fs::read(new.join(CREDENTIALS)).unwrap_or_default());
    let is_ours = serde_json::from_slice::<Credentials>(&text)
        .is_ok_and(|found| state.access_keys.contains_key(found.access_key_id.as_str()));
    if is_ours { rename(dir) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::Purpose;
    use crate::surroundings::FileSealer;
    use cumulet_engine::records::Stored as _;
    use cumulet_store::MemoryEngine;
    use cumulet_store::Plan;

    fn settings() -> BootstrapSettings {
        BootstrapSettings {
            account_name: "default".into(),
            user_name: "admin".into(),
            account_id: Some("123456789012".parse().unwrap()),
            access_key_id: None,
            secret_access_key: None,
        }
    }

    fn store(engine: &MemoryEngine) -> Store<State> {
        Store::open(Box::new(engine.clone()), State::default()).unwrap()
    }

    #[test]
    fn a_first_start_makes_everything_once() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        let sealer = FileSealer::new(&dir.sealing_key().unwrap());
        let store = store(&MemoryEngine::default());
        let start = || ensure(&dir, &store, &sealer, &settings(), "us-east-1").unwrap();
        assert!(start().is_new);
        assert_eq!(start(), Outcome::default());
        let credentials = Credentials::read(dir.path()).unwrap();
        let state = store.snapshot();
        let key = &state.access_keys[credentials.access_key_id.as_str()];
        let secret = sealer
            .open(&secret_context(&key.id), &key.sealed_secret)
            .unwrap();
        assert_eq!(secret.as_slice(), credentials.secret_access_key.as_bytes());
        assert_eq!(credentials.account_id.to_string(), "123456789012");
        for name in [&credentials.certificate, &credentials.private_key] {
            assert!(dir.join(CLIENT_DIR).join(name).exists());
        }
    }

    #[test]
    fn a_crash_between_commit_and_rename_is_mended() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        let sealer = FileSealer::new(&dir.sealing_key().unwrap());
        let engine = MemoryEngine::default();
        ensure(&dir, &store(&engine), &sealer, &settings(), "us-east-1").unwrap();
        fs::rename(dir.join(CLIENT_DIR), dir.join(CLIENT_DIR_NEW)).unwrap();
        let again = ensure(&dir, &store(&engine), &sealer, &settings(), "us-east-1").unwrap();
        assert!(!again.is_new);
        Credentials::read(dir.path()).unwrap();
    }

    #[test]
    fn a_crash_before_the_commit_begins_anew() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        let sealer = FileSealer::new(&dir.sealing_key().unwrap());
        fs::create_dir(dir.join(CLIENT_DIR_NEW)).unwrap();
        fs::write(dir.join(CLIENT_DIR_NEW).join(CREDENTIALS), "{").unwrap();
        let store = store(&MemoryEngine::default());
        let first = ensure(&dir, &store, &sealer, &settings(), "us-east-1").unwrap();
        assert!(first.is_new);
        Credentials::read(dir.path()).unwrap();
    }

    #[test]
    fn an_account_that_was_restored_without_the_key_stays_as_it_is() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        let sealer = FileSealer::new(&dir.sealing_key().unwrap());
        let account = Account {
            id: settings().account_id.unwrap(),
            name: "restored".into(),
            created: Timestamp(7),
            instance_limit: Some(3),
            alias: None,
        };
        let user = User {
            account: account.id,
            name: "admin".into(),
            created: Timestamp(8),
            password_hash: Some("hash".into()),
        };
        let store = store(&MemoryEngine::default());
        let changes = vec![account.put(), user.put()];
        let plan = |_: &State| {
            let answer = ();
            Ok::<_, std::convert::Infallible>(Plan { changes, answer })
        };
        store.commit_blocking(plan).unwrap();
        let first = ensure(&dir, &store, &sealer, &settings(), "us-east-1").unwrap();
        assert!(first.is_new);
        let state = store.snapshot();
        assert_eq!(*state.accounts[&account.id], account);
        assert_eq!(*state.users[&(user.account, "admin".into())], user);
        let credentials = Credentials::read(dir.path()).unwrap();
        assert_eq!(credentials.account_name, "restored");
        assert_eq!(credentials.password, "");
        assert!(
            state
                .access_keys
                .contains_key(credentials.access_key_id.as_str())
        );
    }

    #[test]
    fn settings_of_another_first_start_are_named_without_secrets() {
        let outer = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&outer.path().join("cloud"), Purpose::Serve).unwrap();
        let sealer = FileSealer::new(&dir.sealing_key().unwrap());
        let store = store(&MemoryEngine::default());
        let given = |id: &str, secret: &str| BootstrapSettings {
            access_key_id: Some(id.into()),
            secret_access_key: Some(secret.into()),
            ..settings()
        };
        let start = |settings| ensure(&dir, &store, &sealer, &settings, "us-east-1").unwrap();
        start(given("AKIAONE", "first-secret"));
        assert_eq!(start(given("AKIAONE", "first-secret")).differences, [""; 0]);
        let named = |settings| start(settings).differences.join("\n");
        let other_secret = named(given("AKIAONE", "second-secret"));
        assert!(other_secret.contains("secret_access_key"), "{other_secret}");
        assert!(!other_secret.contains("second-") && !other_secret.contains("first-"));
        let other = named(BootstrapSettings {
            account_id: Some("000000000001".parse().unwrap()),
            user_name: "operator".into(),
            account_name: "mine".into(),
            ..given("AKIATWO", "s")
        });
        for name in ["account_id", "user_name", "account_name", "access_key_id"] {
            assert!(other.contains(&format!("bootstrap.{name} ")), "{other}");
        }
    }
}
