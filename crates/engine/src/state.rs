//! Everything that is known, in memory, with the indexes that queries need.
//!
//! Built from records by [`View::apply`] and from nothing else, so that a
//! restart gives the same state.  Cloning is cheap: the maps are persistent.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use cumulet_domain::accounts::{AccessKey, Account, Certificate, CloudIdentity, User};
use cumulet_domain::images::{BundleSource, Image, Kernel};
use cumulet_domain::instances::{Instance, Liveness, Reservation};
use cumulet_domain::keypairs::KeyPair;
use cumulet_domain::network::AddressBlock;
use cumulet_domain::products::{Product, Subscription, Usage};
use cumulet_domain::security_groups::SecurityGroup;
use cumulet_domain::tags::{LaunchTags, TaggedId, Tags};
use cumulet_domain::{
    AccountId, ImageId, InstanceId, KernelId, KeyPairId, ReservationId, SecurityGroupId,
};
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, Revision, View, ViewError};
use imbl::{OrdMap, OrdSet};

use crate::records::{self, AccountUsage, HostUsage, Stored};

/// A snapshot of all records.
#[derive(Clone, Default)]
pub struct State {
    pub accounts: OrdMap<AccountId, Arc<Account>>,
    pub users: OrdMap<(AccountId, Arc<str>), Arc<User>>,
    pub access_keys: OrdMap<Arc<str>, Arc<AccessKey>>,
    pub certificates: OrdMap<Arc<str>, Arc<Certificate>>,
    pub identity: Option<Arc<CloudIdentity>>,
    pub ground: Option<Arc<GroundPlan>>,
    pub images: OrdMap<ImageId, Arc<Image>>,
    pub bundle_sources: OrdMap<ImageId, Arc<BundleSource>>,
    pub kernels: OrdMap<KernelId, Arc<Kernel>>,
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    pub reservations: OrdMap<ReservationId, Arc<Reservation>>,
    pub user_data: OrdMap<ReservationId, Bytes>,
    pub key_pairs: OrdMap<(AccountId, Arc<str>), Arc<KeyPair>>,
    /// Those that were made, and each `default` that was changed.
    pub security_groups: OrdMap<SecurityGroupId, Arc<SecurityGroup>>,
    pub address_blocks: OrdMap<Ipv4Addr, Arc<AddressBlock>>,
    pub host_usage: HostUsage,
    pub account_usage: OrdMap<AccountId, u32>,
    pub products: OrdMap<Arc<str>, Arc<Product>>,
    pub subscriptions: OrdMap<(AccountId, Arc<str>), Arc<Subscription>>,
    pub product_usage: OrdMap<(Arc<str>, InstanceId), Arc<Usage>>,
    /// What was written on single resources; [`State::tags_of`] says what counts.
    pub tags: OrdMap<TaggedId, Arc<Tags>>,
    pub launch_tags: OrdMap<ReservationId, Arc<LaunchTags>>,
    // Indexes.
    pub(crate) key_pair_names: OrdMap<KeyPairId, (AccountId, Arc<str>)>,
    pub reservations_by_owner: OrdSet<(AccountId, ReservationId)>,
    pub client_tokens: OrdMap<(AccountId, Arc<str>), ReservationId>,
    pub groups_by_name: OrdMap<(AccountId, Arc<str>), SecurityGroupId>,
    /// Which launches named a group.
    pub reservations_by_group: OrdSet<(SecurityGroupId, ReservationId)>,
    /// Instances that hold something on a host.
    pub live_instances: OrdSet<InstanceId>,
    pub live_by_owner: OrdSet<(AccountId, InstanceId)>,
    pub instance_by_address: OrdMap<Ipv4Addr, InstanceId>,
    pub(crate) tags_by_owner: OrdSet<(AccountId, TaggedId)>,
}

fn read<T: Stored>(change: &Change, bytes: &Bytes) -> Result<T, ViewError> {
    T::read(bytes).map_err(|cause| ViewError::new(format!("{} {}: {cause}", T::KIND, change.key)))
}

fn parse<T: std::str::FromStr>(change: &Change) -> Result<T, ViewError> {
    change.key.parse().map_err(|_| {
        ViewError::new(format!(
            "the key {:?} of a record cannot be read",
            change.key
        ))
    })
}

/// Splits the keys that are `account/name`.
fn owned_key(change: &Change) -> Result<(AccountId, Arc<str>), ViewError> {
    let bad = || {
        ViewError::new(format!(
            "the key {:?} of a record cannot be read",
            change.key
        ))
    };
    let (account, name) = change.key.split_once('/').ok_or_else(bad)?;
    Ok((account.parse().map_err(|_| bad())?, name.into()))
}

/// Splits the keys that are `code/instance`.
fn usage_key(change: &Change) -> Result<(Arc<str>, InstanceId), ViewError> {
    let parts = change.key.split_once('/');
    let parts = parts.and_then(|(code, id)| Some((code.into(), id.parse().ok()?)));
    parts.ok_or_else(|| {
        ViewError::new(format!(
            "the key {:?} of a record cannot be read",
            change.key
        ))
    })
}

macro_rules! apply_to {
    ($map:expr, $change:expr, $key:expr, $type:ty) => {{
        let key = $key;
        match &$change.value {
            Some(bytes) => {
                $map.insert(key, Arc::new(read::<$type>($change, bytes)?));
            }
            None => {
                $map.remove(&key);
            }
        }
    }};
}

impl View for State {
    fn apply(&mut self, _revision: Revision, change: &Change) -> Result<(), ViewError> {
        match change.kind {
            records::ACCOUNT => apply_to!(self.accounts, change, parse(change)?, Account),
            records::USER => apply_to!(self.users, change, owned_key(change)?, User),
            records::ACCESS_KEY => {
                apply_to!(self.access_keys, change, change.key.clone(), AccessKey)
            }
            records::CERTIFICATE => {
                apply_to!(self.certificates, change, change.key.clone(), Certificate)
            }
            records::CLOUD => {
                self.identity = change
                    .value
                    .as_ref()
                    .map(|b| read::<CloudIdentity>(change, b).map(Arc::new))
                    .transpose()?;
            }
            records::GROUND => {
                self.ground = change
                    .value
                    .as_ref()
                    .map(|b| read::<GroundPlan>(change, b).map(Arc::new))
                    .transpose()?;
            }
            records::IMAGE => apply_to!(self.images, change, parse(change)?, Image),
            records::BUNDLE_SOURCE => {
                apply_to!(self.bundle_sources, change, parse(change)?, BundleSource)
            }
            records::KERNEL => apply_to!(self.kernels, change, parse(change)?, Kernel),
            records::INSTANCE => self.apply_instance(change)?,
            records::RESERVATION => self.apply_reservation(change)?,
            records::USER_DATA => {
                let id = parse(change)?;
                match &change.value {
                    Some(bytes) => self.user_data.insert(id, bytes.clone()),
                    None => self.user_data.remove(&id),
                };
            }
            records::KEY_PAIR => self.apply_key_pair(change)?,
            records::SECURITY_GROUP => self.apply_security_group(change)?,
            records::ADDRESS_BLOCK => {
                apply_to!(self.address_blocks, change, parse(change)?, AddressBlock)
            }
            records::HOST_USAGE => {
                self.host_usage = change
                    .value
                    .as_ref()
                    .map(|b| read(change, b))
                    .transpose()?
                    .unwrap_or_default();
            }
            records::ACCOUNT_USAGE => {
                let account = parse(change)?;
                match &change.value {
                    Some(bytes) => {
                        self.account_usage
                            .insert(account, read::<AccountUsage>(change, bytes)?.instances);
                    }
                    None => {
                        self.account_usage.remove(&account);
                    }
                }
            }
            records::PRODUCT => apply_to!(self.products, change, change.key.clone(), Product),
            records::SUBSCRIPTION => {
                apply_to!(self.subscriptions, change, owned_key(change)?, Subscription)
            }
            records::PRODUCT_USAGE => {
                apply_to!(self.product_usage, change, usage_key(change)?, Usage)
            }
            records::TAGS => self.apply_tags(change)?,
            records::LAUNCH_TAGS => {
                apply_to!(self.launch_tags, change, parse(change)?, LaunchTags)
            }
            other => {
                return Err(ViewError::new(format!(
                    "records of the kind {other} are unknown"
                )));
            }
        }
        Ok(())
    }
}

impl State {
    fn apply_instance(&mut self, change: &Change) -> Result<(), ViewError> {
        let id: InstanceId = parse(change)?;
        let before = self.instances.get(&id).cloned();
        let after = change
            .value
            .as_ref()
            .map(|b| read::<Instance>(change, b))
            .transpose()?;
        if let Some(before) = before {
            self.live_by_owner.remove(&(before.owner, id));
            if self.instance_by_address.get(&before.address) == Some(&id) {
                self.instance_by_address.remove(&before.address);
            }
        }
        self.live_instances.remove(&id);
        match after {
            Some(instance) => {
                if instance.liveness() == Liveness::Alive {
                    self.instance_by_address.insert(instance.address, id);
                    self.live_instances.insert(id);
                    self.live_by_owner.insert((instance.owner, id));
                }
                self.instances.insert(id, Arc::new(instance));
            }
            None => {
                self.instances.remove(&id);
            }
        }
        Ok(())
    }

    fn apply_key_pair(&mut self, change: &Change) -> Result<(), ViewError> {
        let key = owned_key(change)?;
        if let Some(before) = self.key_pairs.remove(&key) {
            self.key_pair_names.remove(&before.id);
        }
        if let Some(bytes) = &change.value {
            let key_pair = read::<KeyPair>(change, bytes)?;
            self.key_pair_names.insert(key_pair.id, key.clone());
            self.key_pairs.insert(key, Arc::new(key_pair));
        }
        Ok(())
    }

    fn apply_security_group(&mut self, change: &Change) -> Result<(), ViewError> {
        let id: SecurityGroupId = parse(change)?;
        if let Some(before) = self.security_groups.get(&id).cloned() {
            self.groups_by_name
                .remove(&(before.owner, before.name.as_str().into()));
        }
        match &change.value {
            Some(bytes) => {
                let group = read::<SecurityGroup>(change, bytes)?;
                self.groups_by_name
                    .insert((group.owner, group.name.as_str().into()), id);
                self.security_groups.insert(id, Arc::new(group));
            }
            None => {
                self.security_groups.remove(&id);
            }
        }
        Ok(())
    }

    fn apply_reservation(&mut self, change: &Change) -> Result<(), ViewError> {
        let id: ReservationId = parse(change)?;
        if let Some(before) = self.reservations.get(&id).cloned() {
            self.reservations_by_owner.remove(&(before.owner, id));
            for group in &before.groups {
                self.reservations_by_group.remove(&(group.id, id));
            }
            if let Some(token) = &before.client_token {
                self.client_tokens
                    .remove(&(before.owner, token.token.as_str().into()));
            }
        }
        match change
            .value
            .as_ref()
            .map(|b| read::<Reservation>(change, b))
            .transpose()?
        {
            Some(reservation) => {
                self.reservations_by_owner.insert((reservation.owner, id));
                for group in &reservation.groups {
                    self.reservations_by_group.insert((group.id, id));
                }
                if let Some(token) = &reservation.client_token {
                    self.client_tokens
                        .insert((reservation.owner, token.token.as_str().into()), id);
                }
                self.reservations.insert(id, Arc::new(reservation));
            }
            None => {
                self.reservations.remove(&id);
            }
        }
        Ok(())
    }

    fn apply_tags(&mut self, change: &Change) -> Result<(), ViewError> {
        let id: TaggedId = parse(change)?;
        if let Some(before) = self.tags.remove(&id) {
            self.tags_by_owner.remove(&(before.owner, id));
        }
        if let Some(bytes) = &change.value {
            let tags = read::<Tags>(change, bytes)?;
            self.tags_by_owner.insert((tags.owner, id));
            self.tags.insert(id, Arc::new(tags));
        }
        Ok(())
    }

    /// The kernel that root file systems boot with.
    pub fn default_kernel(&self) -> Option<&Arc<Kernel>> {
        self.kernels.values().find(|kernel| kernel.is_default)
    }

    /// The reservations of an account, oldest id first.
    pub fn reservations_of(&self, owner: AccountId) -> impl Iterator<Item = &Arc<Reservation>> {
        let least = (owner, ReservationId::from_random(0));
        self.reservations_by_owner
            .range(least..)
            .take_while(move |(account, _)| *account == owner)
            .filter_map(|(_, id)| self.reservations.get(id))
    }

    /// As [`Self::reservations_of`], from after `after` on.
    pub fn reservations_after(
        &self,
        owner: AccountId,
        after: Option<ReservationId>,
    ) -> impl Iterator<Item = &Arc<Reservation>> {
        let least = (owner, after.unwrap_or(ReservationId::from_random(0)));
        self.reservations_by_owner
            .range(least..)
            .take_while(move |(account, _)| *account == owner)
            .filter(move |(_, id)| after.is_none_or(|after| after < *id))
            .filter_map(|(_, id)| self.reservations.get(id))
    }

    /// The products that an account is subscribed to.
    pub fn subscriptions_of(&self, account: AccountId) -> impl Iterator<Item = &Arc<Subscription>> {
        let least: (AccountId, Arc<str>) = (account, "".into());
        self.subscriptions
            .range(least..)
            .take_while(move |((owner, _), _)| *owner == account)
            .map(|(_, subscription)| subscription)
    }

    /// Certificates that may sign for an account.
    pub fn certificates_of(&self, owner: AccountId) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates
            .values()
            .filter(move |certificate| certificate.account == owner)
    }
}
