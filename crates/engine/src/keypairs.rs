//! Key pairs.

use std::collections::BTreeSet;
use std::sync::Arc;

use cumulet_domain::keypairs::{KeyPair, KeyType, check_key_name};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{AccountId, Error, KeyPairId, Resource};
use cumulet_store::Plan;
use zeroize::Zeroizing;

use crate::draws::Draws;
use crate::records::Stored;
use crate::state::State;
use crate::tags;
use crate::{Caller, Engine};

/// Answer of CreateKeyPair; the only time that the private half is seen.
pub struct KeyPairCreated {
    pub key_pair: KeyPair,
    pub private_pem: Zeroizing<String>,
}

fn plan_new(
    state: &State,
    mut key_pair: KeyPair,
    mut draws: Draws,
    tags: TagMap,
) -> Result<Plan<KeyPair>, Error> {
    if state
        .key_pairs
        .contains_key(&(key_pair.owner, key_pair.name.as_str().into()))
    {
        return Err(Error::AlreadyExists {
            resource: Resource::KeyPair,
            id: key_pair.name,
        });
    }
    draws.settle(&mut key_pair.id, KeyPairId::mint, |id| {
        state.shows_key_pair(id)
    })?;
    let mut changes = vec![key_pair.put()];
    changes.extend(tags::first(key_pair.id, key_pair.owner, tags));
    Ok(Plan {
        changes,
        answer: key_pair,
    })
}

impl State {
    /// A key pair of the account, by its id.
    pub fn key_pair(&self, owner: AccountId, id: KeyPairId) -> Option<&Arc<KeyPair>> {
        let key = self.key_pair_names.get(&id)?;
        self.key_pairs.get(key).filter(|it| it.owner == owner)
    }
}

impl Engine {
    /// Makes a key pair, of 2048 bits if it is RSA, and keeps its public half.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidValue`, `Missing`.
    pub async fn create_key_pair(
        &self,
        caller: &Caller,
        name: String,
        kind: KeyType,
        tags: TagMap,
    ) -> Result<KeyPairCreated, Error> {
        check_key_name(&name)?;
        if self
            .snapshot()
            .key_pairs
            .contains_key(&(caller.account, name.as_str().into()))
        {
            return Err(Error::AlreadyExists {
                resource: Resource::KeyPair,
                id: name,
            });
        }
        let forge = self.environment().forge.clone();
        let created = tokio::task::spawn_blocking(move || forge.create(kind)).await;
        let created = created.map_err(Error::internal)?.map_err(Error::internal)?;
        let mut draws = self.draw(1);
        let key_pair = KeyPair {
            id: draws.next(KeyPairId::mint)?,
            owner: caller.account,
            fingerprint: created.fingerprint,
            public_key: format!("{} {name}", created.openssh),
            name,
            key_type: kind,
            created: self.environment().now(),
        };
        let plan = move |state: &State| plan_new(state, key_pair, draws, tags);
        let key_pair = self.commit(plan).await?;
        Ok(KeyPairCreated {
            key_pair,
            private_pem: created.private_pem,
        })
    }

    /// # Errors
    /// `AlreadyExists`, `InvalidValue` with the parameter `PublicKeyMaterial`.
    pub async fn import_key_pair(
        &self,
        caller: &Caller,
        name: String,
        material: Vec<u8>,
        tags: TagMap,
    ) -> Result<KeyPair, Error> {
        check_key_name(&name)?;
        let forge = self.environment().forge.clone();
        let imported = forge
            .parse_public(&material)
            .map_err(|reason| Error::invalid("PublicKeyMaterial", reason))?;
        let mut draws = self.draw(1);
        let key_pair = KeyPair {
            id: draws.next(KeyPairId::mint)?,
            owner: caller.account,
            fingerprint: imported.fingerprint,
            public_key: format!("{} {name}", imported.openssh),
            name,
            key_type: imported.key_type,
            created: self.environment().now(),
        };
        self.commit(move |state| plan_new(state, key_pair, draws, tags))
            .await
    }

    /// All of the caller's key pairs by name, or those named, in their order and each once.
    ///
    /// # Errors
    /// `NotFound` naming the first name that does not exist.
    pub fn describe_key_pairs(
        &self,
        caller: &Caller,
        names: &[String],
    ) -> Result<Vec<Arc<KeyPair>>, Error> {
        let state = self.snapshot();
        if names.is_empty() {
            let own = state
                .key_pairs
                .iter()
                .filter(|((owner, _), _)| *owner == caller.account);
            return Ok(own.map(|(_, key_pair)| key_pair.clone()).collect());
        }
        let find = |name: &String| {
            let found = state
                .key_pairs
                .get(&(caller.account, name.as_str().into()))
                .cloned();
            found.ok_or_else(|| Error::not_found(Resource::KeyPair, name))
        };
        let mut seen = BTreeSet::new();
        let distinct = names.iter().filter(|name| seen.insert(*name));
        distinct.map(find).collect()
    }

    /// Deletes the pair; a name that does not exist is no error, as EC2 answers true for it.
    /// Returns the id of what was deleted.
    ///
    /// # Errors
    /// Only those of the store.
    pub async fn delete_key_pair(
        &self,
        caller: &Caller,
        name: String,
    ) -> Result<Option<KeyPairId>, Error> {
        let owner = caller.account;
        self.commit(move |state| {
            let found = state.key_pairs.get(&(owner, name.as_str().into()));
            let mut changes: Vec<_> = found.iter().map(|pair| pair.delete()).collect();
            changes.extend(tags::forget(state, found.map(|pair| pair.id.into())));
            Ok(Plan {
                changes,
                answer: found.map(|pair| pair.id),
            })
        })
        .await
    }
}
