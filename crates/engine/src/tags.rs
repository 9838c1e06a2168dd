//! Tags: writing them on what the caller owns, taking them away, listing them.
//!
//! Each resource that was written on has one record; what a launch writes on
//! all that it makes is one record of the reservation, so that a launch of any
//! size stays one commit.  An instance's own record takes the place of its
//! launch's from the first change on.  Records go in the commit that forgets
//! their resource.

use std::sync::Arc;

use cumulet_domain::instances::Liveness;
use cumulet_domain::security_groups::GroupRef;
use cumulet_domain::tags::{Removal, TagMap, TaggedId, Tags, check_key, removed, written};
use cumulet_domain::{AccountId, Error, Resource, SubnetId, VpcId};
use cumulet_store::{Change, Plan};

use crate::records::Stored;
use crate::state::State;
use crate::{Caller, Engine};

/// Most resources of one call, EC2's own limit.
pub const RESOURCES_MAX: usize = 1_000;

/// Most records of one commit: a call on a long list is sliced.
const SLICE: usize = 90;

static NONE: TagMap = TagMap::new();

/// One line of DescribeTags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagView {
    pub resource: TaggedId,
    pub key: String,
    pub value: String,
}

impl State {
    /// What is written on a resource; nothing, if it is not there.
    pub fn tags_of(&self, id: impl Into<TaggedId>) -> &TagMap {
        let id = id.into();
        match self.tags.get(&id) {
            Some(own) => &own.tags,
            None => self.launch_tags_of(id).unwrap_or(&NONE),
        }
    }

    /// What the launch of a resource wrote on it.
    fn launch_tags_of(&self, id: TaggedId) -> Option<&TagMap> {
        if self.launch_tags.is_empty() {
            return None;
        }
        let instance = self.instances.get(&id.instance()?)?;
        let launch = self.launch_tags.get(&instance.reservation)?;
        launch.tags.get(&id.kind())
    }

    /// What of an account has a record of tags of its own.
    pub(crate) fn tagged_of(&self, owner: AccountId) -> impl Iterator<Item = TaggedId> + '_ {
        // An image is the least of what carries tags.
        let least = (owner, cumulet_domain::ImageId::from_random(0).into());
        self.tags_by_owner
            .range(least..)
            .take_while(move |(account, _)| *account == owner)
            .map(|(_, id)| *id)
    }

    /// Records of tags whose resource is gone.  There are none: they go in the same commit.
    pub fn stray_tags(&self) -> Vec<String> {
        let own = self.tags.values().filter(|tags| {
            // A disk or a port is gone before its instance is forgotten.
            let id = tags.resource.instance().map_or(tags.resource, Into::into);
            !self.is_own(tags.owner, id)
        });
        let launches = self.launch_tags.keys();
        own.map(|tags| tags.resource.to_string())
            .chain(
                launches
                    .filter(|id| !self.reservations.contains_key(*id))
                    .map(ToString::to_string),
            )
            .collect()
    }

    /// Whether a resource is there and this account's.
    fn is_own(&self, owner: AccountId, id: TaggedId) -> bool {
        match id {
            TaggedId::Image(id) => self.images.get(&id).is_some_and(|it| it.owner == owner),
            TaggedId::Instance(id) => self.instances.get(&id).is_some_and(|it| it.owner == owner),
            // What an instance had goes when it does, before its record.
            TaggedId::NetworkInterface(_) | TaggedId::Volume(_) => id
                .instance()
                .and_then(|id| self.instances.get(&id))
                .is_some_and(|it| it.owner == owner && it.liveness() == Liveness::Alive),
            TaggedId::KeyPair(id) => self.key_pair(owner, id).is_some(),
            TaggedId::SecurityGroup(id) => self.group(owner, &GroupRef::Id(id)).is_ok(),
            TaggedId::Subnet(id) => SubnetId::of(owner) == id,
            TaggedId::Vpc(id) => VpcId::of(owner) == id,
        }
    }
}

/// Every id must be of something that is the caller's: all that are not there are named at once.
fn check_own(state: &State, owner: AccountId, ids: &[TaggedId]) -> Result<(), Error> {
    let missing = |id: &&TaggedId| !state.is_own(owner, **id);
    let Some(first) = ids.iter().find(missing) else {
        return Ok(());
    };
    // An image that one may see does exist; it is another's to write on.
    if let TaggedId::Image(id) = first
        && state.images.get(id).is_some_and(|it| it.may_launch(owner))
    {
        return Err(Error::denied(format!("Not authorized for image:{id}")));
    }
    let alike = ids
        .iter()
        .filter(missing)
        .filter(|id| id.kind() == first.kind());
    Err(Error::not_found_all(
        first.resource(),
        alike.map(ToString::to_string).collect(),
    ))
}

fn check_lists(ids: &[TaggedId]) -> Result<Vec<TaggedId>, Error> {
    if ids.is_empty() {
        return Err(Error::Missing {
            parameter: "ResourceId".into(),
        });
    }
    if ids.len() > RESOURCES_MAX {
        return Err(Error::LimitExceeded {
            resource: Resource::Tag,
            message: format!("One request writes on at most {RESOURCES_MAX} resources"),
        });
    }
    let distinct: std::collections::BTreeSet<TaggedId> = ids.iter().copied().collect();
    Ok(distinct.into_iter().collect())
}

/// The changes that make `after` the tags of a resource.
fn change(state: &State, owner: AccountId, id: TaggedId, after: TagMap) -> Option<Change> {
    if *state.tags_of(id) == after {
        return None;
    }
    let record = Tags {
        resource: id,
        owner,
        tags: after,
    };
    // Without a record those of the launch would be back.
    let is_needed = !record.tags.is_empty() || state.launch_tags_of(id).is_some();
    Some(if is_needed {
        record.put()
    } else {
        record.delete()
    })
}

/// The record of what is written on a new thing.
pub(crate) fn first(id: impl Into<TaggedId>, owner: AccountId, tags: TagMap) -> Option<Change> {
    let record = Tags {
        resource: id.into(),
        owner,
        tags,
    };
    (!record.tags.is_empty()).then(|| record.put())
}

/// The changes that forget what was written on things that go.
pub(crate) fn forget(state: &State, ids: impl IntoIterator<Item = TaggedId>) -> Vec<Change> {
    ids.into_iter()
        .filter_map(|id| state.tags.get(&id))
        .map(|tags| tags.delete())
        .collect()
}

impl Engine {
    /// Writes the same tags on each; a key that is there gets the new value.
    ///
    /// Up to `SLICE` resources are one commit.  A longer list is checked as a whole and then written in
    /// parts: if the disk fills or a resource goes between two of them, those before stay written, and
    /// asking again is safe.
    ///
    /// # Errors
    /// `NotFound` of what does not exist or is somebody else's, `Denied` of somebody else's public
    /// image, `LimitExceeded`, `Missing`; what is so when it is asked is found before anything is written.
    pub async fn create_tags(
        &self,
        caller: &Caller,
        ids: &[TaggedId],
        tags: TagMap,
    ) -> Result<(), Error> {
        if tags.is_empty() {
            return Err(Error::Missing {
                parameter: "Tag".into(),
            });
        }
        let tags = Arc::new(tags);
        self.rewrite_tags(caller, ids, move |before| written(before, &tags))
            .await
    }

    /// Takes tags away; without `removals` all of them.  What is not there is no error.  Long lists
    /// are written as with [`Self::create_tags`].
    ///
    /// # Errors
    /// `NotFound` and `Denied` as [`Self::create_tags`]; `InvalidValue` for a reserved key.
    pub async fn delete_tags(
        &self,
        caller: &Caller,
        ids: &[TaggedId],
        removals: Vec<Removal>,
    ) -> Result<(), Error> {
        for removal in &removals {
            check_key(&removal.key)?;
        }
        let removals = Arc::new(removals);
        self.rewrite_tags(caller, ids, move |before| Ok(removed(before, &removals)))
            .await
    }

    async fn rewrite_tags(
        &self,
        caller: &Caller,
        ids: &[TaggedId],
        rewrite: impl Fn(&TagMap) -> Result<TagMap, Error> + Clone + Send + 'static,
    ) -> Result<(), Error> {
        let ids = check_lists(ids)?;
        let owner = caller.account;
        // Everything is checked before the first commit; a list of usual length needs one only.
        let state = self.snapshot();
        check_own(&state, owner, &ids)?;
        for id in &ids {
            rewrite(state.tags_of(*id))?;
        }
        for slice in ids.chunks(SLICE) {
            let (slice, rewrite) = (slice.to_vec(), rewrite.clone());
            self.commit(move |state| {
                check_own(state, owner, &slice)?;
                let mut changes = vec![];
                for id in slice {
                    let after = rewrite(state.tags_of(id))?;
                    changes.extend(change(state, owner, id, after));
                }
                Ok(Plan {
                    changes,
                    answer: (),
                })
            })
            .await?;
        }
        Ok(())
    }

    /// All tags of what the caller owns, by resource and key.
    pub fn describe_tags(&self, caller: &Caller) -> Vec<TagView> {
        let state = self.snapshot();
        let owner = caller.account;
        let mut ids: Vec<TaggedId> = state.tagged_of(owner).collect();
        if !state.launch_tags.is_empty() {
            let launched = state
                .reservations_of(owner)
                .filter(|it| state.launch_tags.contains_key(&it.id));
            let instances = launched.flat_map(|it| it.instances.iter().copied());
            let things = instances.flat_map(TaggedId::of_instance);
            ids.extend(things.filter(|id| !state.tags.contains_key(id)));
        }
        ids.retain(|id| state.is_own(owner, *id));
        ids.sort_unstable();
        let mut views = vec![];
        for id in ids {
            let tags = state.tags_of(id).iter();
            views.extend(tags.map(|(key, value)| TagView {
                resource: id,
                key: key.clone(),
                value: value.clone(),
            }));
        }
        views
    }
}
