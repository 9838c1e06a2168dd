//! Accounts, users, access keys, certificates: the operator's records.

use std::collections::BTreeSet;
use std::sync::Arc;

use cumulet_domain::accounts::{
    AccessKey, Account, Certificate, CloudIdentity, User, check_alias, check_name,
};
use cumulet_domain::{AccountId, Error, Resource, SecurityGroupId};
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, PLAN_CHANGES_MAX, Plan};
use zeroize::Zeroizing;

use crate::records::Stored;
use crate::state::State;
use crate::{Caller, Engine, security_groups, tags};

/// Most groups of others that change in the commit that deletes an account.
const GROUPS_MAX: usize = 40;

/// What a first start puts into a store without an identity, in one commit.
pub struct Bootstrap {
    pub account: Account,
    pub user: User,
    pub access_key: AccessKey,
    pub certificate: Certificate,
    pub identity: CloudIdentity,
}

/// The changes of a first start.  Nothing if the cloud has its identity already.
///
/// A cloud that was restored without its sealing key has accounts and users: those stay as they
/// are, and get the new key and certificate.
pub fn plan_bootstrap(state: &State, bootstrap: &Bootstrap) -> Plan<bool> {
    if state.identity.is_some() {
        return Plan {
            changes: vec![],
            answer: false,
        };
    }
    let mut changes = vec![];
    if !state.accounts.contains_key(&bootstrap.account.id) {
        changes.push(bootstrap.account.put());
    }
    let user = &bootstrap.user;
    if find_user(state, user.account, &user.name).is_err() {
        changes.push(user.put());
    }
    changes.extend([
        bootstrap.access_key.put(),
        bootstrap.certificate.put(),
        bootstrap.identity.put(),
    ]);
    Plan {
        changes,
        answer: true,
    }
}

/// The context that an access key's secret is sealed with.
pub fn secret_context(access_key_id: &str) -> String {
    format!("access-key/{access_key_id}")
}

/// The context that the cloud's private key is sealed with.
pub const IDENTITY_CONTEXT: &str = "cloud-identity";

/// A key's record, and its secret in plain.
pub type OpenedKey = (Arc<AccessKey>, Zeroizing<String>);

impl Engine {
    /// # Errors
    /// `AlreadyExists`, `InvalidValue`.
    pub async fn create_account(
        &self,
        name: String,
        id: Option<AccountId>,
    ) -> Result<Account, Error> {
        check_name("name", &name)?;
        let random = self.environment().random();
        let account = Account {
            id: id.unwrap_or_else(|| AccountId::from_random((random >> 64) as u64)),
            name,
            created: self.environment().now(),
            instance_limit: None,
            alias: None,
        };
        self.commit(move |state| {
            let is_taken = state.accounts.contains_key(&account.id)
                || state
                    .accounts
                    .values()
                    .any(|other| other.name == account.name);
            if is_taken {
                return Err(Error::AlreadyExists {
                    resource: Resource::Account,
                    id: account.name,
                });
            }
            Ok(Plan {
                changes: vec![account.put()],
                answer: account,
            })
        })
        .await
    }

    /// Deletes an account with its users, keys, certificates, subscriptions and tags, and the rules
    /// of other accounts that name its groups.
    ///
    /// A refused account keeps all of them.  Where many groups of others have such rules, these go
    /// some groups at a time before the account does: a crash may leave a part of them gone and the
    /// account there, and deleting it again takes the rest.
    ///
    /// # Errors
    /// `NotFound`; `IncorrectState` while the account owns anything but users, keys, certificates and
    /// subscriptions, or more of these than go at once.
    pub async fn delete_account(&self, id: AccountId) -> Result<(), Error> {
        // An account that gets the same number later would find them as its own.
        let objects = self.environment().objects.clone();
        if objects.has_buckets(id).await.map_err(Error::internal)? {
            return Err(Error::IncorrectState {
                resource: Resource::Account,
                message: format!("The account {id} still owns buckets"),
            });
        }
        while self.commit(move |state| plan_delete(state, id)).await? == Deletion::Begun {}
        Ok(())
    }

    /// Gives an account an alias, or takes it back.
    ///
    /// # Errors
    /// `NotFound`; `InvalidValue`; `AlreadyExists` when another account has it.
    pub async fn set_alias(&self, id: AccountId, alias: Option<String>) -> Result<(), Error> {
        if let Some(alias) = &alias {
            check_alias(alias)?;
        }
        self.commit(move |state| {
            let mut account = Account::clone(find_account(state, id)?.as_ref());
            let mut others = state.accounts.values().filter(|other| other.id != id);
            if let Some(alias) = &alias
                && others.any(|other| other.alias.as_ref() == Some(alias))
            {
                return Err(Error::AlreadyExists {
                    resource: Resource::Account,
                    id: alias.clone(),
                });
            }
            account.alias = alias;
            Ok(Plan {
                changes: vec![account.put()],
                answer: (),
            })
        })
        .await
    }

    /// How many live instances the caller's account may have.
    pub fn instance_limit(&self, caller: &Caller) -> u32 {
        let state = self.snapshot();
        let own = state.accounts.get(&caller.account);
        own.and_then(|account| account.instance_limit)
            .unwrap_or(self.config().instances_per_account)
    }

    /// `None` gives the cloud's default back.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_instance_limit(&self, id: AccountId, limit: Option<u32>) -> Result<(), Error> {
        self.commit(move |state| {
            let mut account = Account::clone(find_account(state, id)?.as_ref());
            account.instance_limit = limit;
            Ok(Plan {
                changes: vec![account.put()],
                answer: (),
            })
        })
        .await
    }

    /// # Errors
    /// `NotFound` of the account, `AlreadyExists`, `InvalidValue`.
    pub async fn create_user(
        &self,
        account: AccountId,
        name: String,
        password_hash: Option<String>,
    ) -> Result<User, Error> {
        check_name("name", &name)?;
        let user = User {
            account,
            name,
            created: self.environment().now(),
            password_hash,
        };
        self.commit(move |state| {
            find_account(state, account)?;
            if state
                .users
                .contains_key(&(account, user.name.as_str().into()))
            {
                return Err(Error::AlreadyExists {
                    resource: Resource::User,
                    id: user.name,
                });
            }
            Ok(Plan {
                changes: vec![user.put()],
                answer: user,
            })
        })
        .await
    }

    /// Deletes a user with all keys and certificates.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_user(&self, account: AccountId, name: String) -> Result<(), Error> {
        self.commit(move |state| {
            let user = find_user(state, account, &name)?;
            let mut changes = vec![user.delete()];
            let is_theirs = |owner: AccountId, user: &str| owner == account && user == name;
            changes.extend(
                state
                    .access_keys
                    .values()
                    .filter(|k| is_theirs(k.account, &k.user))
                    .map(|k| k.delete()),
            );
            changes.extend(
                state
                    .certificates
                    .values()
                    .filter(|c| is_theirs(c.account, &c.user))
                    .map(|c| c.delete()),
            );
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await
    }

    /// Stores an access key whose id and secret the caller made.
    ///
    /// # Errors
    /// `NotFound` of the user, `AlreadyExists`, `Internal` when sealing fails.
    pub async fn create_access_key(
        &self,
        account: AccountId,
        user: String,
        id: String,
        secret: &str,
        signature_versions: BTreeSet<u8>,
    ) -> Result<AccessKey, Error> {
        let sealed_secret = self
            .environment()
            .sealer
            .seal(&secret_context(&id), secret.as_bytes())
            .map_err(Error::internal)?;
        let key = AccessKey {
            id,
            account,
            user,
            created: self.environment().now(),
            sealed_secret,
            signature_versions,
        };
        self.commit(move |state| {
            find_user(state, account, &key.user)?;
            if state.access_keys.contains_key(key.id.as_str()) {
                return Err(Error::AlreadyExists {
                    resource: Resource::AccessKey,
                    id: key.id,
                });
            }
            Ok(Plan {
                changes: vec![key.put()],
                answer: key,
            })
        })
        .await
    }

    /// # Errors
    /// `NotFound`.
    pub async fn delete_access_key(&self, id: String) -> Result<(), Error> {
        self.commit(move |state| {
            let key = state.access_keys.get(id.as_str());
            let key = key.ok_or_else(|| Error::not_found(Resource::AccessKey, &id))?;
            Ok(Plan {
                changes: vec![key.delete()],
                answer: (),
            })
        })
        .await
    }

    /// The key's record and its secret, or `None` when there is no such key.
    ///
    /// # Errors
    /// `Internal` when the secret does not open, for example under another key file.
    pub fn find_access_key(&self, id: &str) -> Result<Option<OpenedKey>, Error> {
        let Some(key) = self.snapshot().access_keys.get(id).cloned() else {
            return Ok(None);
        };
        let secret = self
            .environment()
            .sealer
            .open(&secret_context(id), &key.sealed_secret)
            .map_err(Error::internal)?;
        let secret = String::from_utf8(secret.to_vec()).map_err(Error::internal)?;
        Ok(Some((key, Zeroizing::new(secret))))
    }

    /// # Errors
    /// `NotFound` of the user, `AlreadyExists`.
    pub async fn add_certificate(&self, certificate: Certificate) -> Result<(), Error> {
        self.commit(move |state| {
            find_user(state, certificate.account, &certificate.user)?;
            if state
                .certificates
                .contains_key(certificate.fingerprint.as_str())
            {
                return Err(Error::AlreadyExists {
                    resource: Resource::Certificate,
                    id: certificate.fingerprint,
                });
            }
            Ok(Plan {
                changes: vec![certificate.put()],
                answer: (),
            })
        })
        .await
    }

    /// # Errors
    /// `NotFound`.
    pub async fn delete_certificate(&self, fingerprint: String) -> Result<(), Error> {
        self.commit(move |state| {
            let found = state.certificates.get(fingerprint.as_str());
            let found =
                found.ok_or_else(|| Error::not_found(Resource::Certificate, &fingerprint))?;
            Ok(Plan {
                changes: vec![found.delete()],
                answer: (),
            })
        })
        .await
    }
}

/// How far a plan brings the deletion of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    /// Some groups of others do not let it in any more; it is still there.
    Begun,
    Done,
}

/// One commit of an account's deletion: the last one, or the next of those that come before it.
fn plan_delete(state: &State, id: AccountId) -> Result<Plan<Deletion>, Error> {
    let account = find_deletable(state, id)?;
    let own = own_changes(state, &account);
    let others = security_groups::without_rules_naming(state, id);
    // Looked at in each commit: what cannot go changes nothing of others'.
    let room = PLAN_CHANGES_MAX - others.len().min(GROUPS_MAX);
    if own.len() > room {
        return Err(Error::IncorrectState {
            resource: Resource::Account,
            message: format!(
                "The account {id} has {} users, keys, certificates, subscriptions and other records, and {} can go at once; delete some of them before",
                own.len() - 1,
                room - 1
            ),
        });
    }
    let (mut changes, answer) = match others.len() > GROUPS_MAX {
        true => (vec![], Deletion::Begun),
        false => (own, Deletion::Done),
    };
    changes.extend(others.iter().take(GROUPS_MAX).map(Stored::put));
    Ok(Plan { changes, answer })
}

/// What goes with an account of its own records, the account first.
fn own_changes(state: &State, account: &Account) -> Vec<Change> {
    let id = account.id;
    let mut changes = vec![account.delete()];
    let default = state.security_groups.get(&SecurityGroupId::of(id));
    changes.extend(default.map(|group| group.delete()));
    let users = state.users.values().filter(|user| user.account == id);
    changes.extend(users.map(|user| user.delete()));
    let keys = state.access_keys.values().filter(|key| key.account == id);
    changes.extend(keys.map(|key| key.delete()));
    changes.extend(state.certificates_of(id).map(|it| it.delete()));
    changes.extend(state.subscriptions_of(id).map(|it| it.delete()));
    changes.extend(tags::forget(state, state.tagged_of(id)));
    changes
}

/// Records where the network lies, once; later calls return what was recorded.
pub fn plan_ground(state: &State, proposed: GroundPlan) -> Plan<GroundPlan> {
    match &state.ground {
        Some(recorded) => Plan {
            changes: vec![],
            answer: GroundPlan::clone(recorded),
        },
        None => Plan {
            changes: vec![proposed.put()],
            answer: proposed,
        },
    }
}

fn find_account(state: &State, id: AccountId) -> Result<Arc<Account>, Error> {
    state
        .accounts
        .get(&id)
        .cloned()
        .ok_or_else(|| Error::not_found(Resource::Account, id))
}

/// An account that owns nothing that would be somebody else's once its number is given again.
fn find_deletable(state: &State, id: AccountId) -> Result<Arc<Account>, Error> {
    let account = find_account(state, id)?;
    let owns = state.reservations_of(id).next().is_some()
        || state.images.values().any(|image| image.owner == id)
        || state.key_pairs.keys().any(|(owner, _)| *owner == id)
        || state.products.values().any(|product| product.owner == id)
        || state.groups_of(id).len() > 1;
    if owns {
        let message = format!(
            "The account {id} still owns images, instances, key pairs, security groups or products"
        );
        return Err(Error::IncorrectState {
            resource: Resource::Account,
            message,
        });
    }
    Ok(account)
}

fn find_user(state: &State, account: AccountId, name: &str) -> Result<Arc<User>, Error> {
    state
        .users
        .get(&(account, name.into()))
        .cloned()
        .ok_or_else(|| Error::not_found(Resource::User, name))
}
