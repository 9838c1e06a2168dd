//! The durable records: an engine of the store that may lose a commit or its
//! answer, and that checks each commit before it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use cumulet_domain::images::Preparation;
use cumulet_domain::instances::{Instance, InstanceState, Liveness, Want};
use cumulet_domain::network::AddressBlock;
use cumulet_domain::{AccountId, InstanceId};
use cumulet_engine::{EngineConfig, State};
use cumulet_store::{Batch, Change, Engine, Revision, StoreError, View};

use super::groups::check_groups;
use super::host::{GUEST_NETWORK, MEMORY_MIB};
use super::hours::check_counted;
use super::world::{Shared, Stop, World};

/// How long what has ended stays visible.
pub(crate) const VISIBLE_MS: i64 = 40_000;
/// Live instances of one account.
pub(crate) const INSTANCES_PER_ACCOUNT: u32 = 8;

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        region: "us-east-1".into(),
        zone: "us-east-1a".into(),
        instance_types: cumulet_domain::instance_types::default_table(),
        instances_per_account: INSTANCES_PER_ACCOUNT,
        image_bytes_max: 1 << 40,
        terminated_visible_ms: VISIBLE_MS,
        shutdown_patience_ms: 1_000,
        reboot_patience_ms: 1_000,
        is_metadata_token_required: false,
        id_format: Default::default(),
    }
}

pub(crate) struct SimEngine(pub(crate) Arc<Shared>);

fn lost(doing: &str) -> StoreError {
    StoreError::Io {
        doing: doing.into(),
        cause: "by the dice".into(),
    }
}

impl Engine for SimEngine {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        let mut engine = self.0.lock().engine.clone();
        engine.load(sink)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        let mut world = self.0.lock();
        if world.is_down {
            return Err(lost("the program is gone"));
        }
        world.commits += 1;
        let number = world.commits;
        if world.stop == Some(Stop::BeforeCommit(number)) {
            world.stop = None;
            self.0.take_down(&mut world, "before a commit");
            return Err(lost("the program is gone"));
        }
        let chance = world.faults.disk_full;
        if world.rng.percent(chance) {
            world.note(format!("commit {number}: THE DISK IS FULL"));
            return Err(StoreError::NoSpace);
        }
        let chance = world.faults.commit_lost;
        let is_armed = [Stop::LoseCommit(number), Stop::LoseCommitAnswer(number)]
            .map(|stop| world.stop == Some(stop));
        if is_armed.contains(&true) {
            world.stop = None;
        }
        let is_lost = world.rng.percent(chance) || is_armed.contains(&true);
        // Durable or not: after an I/O error nobody knows.
        let is_gone = is_armed[0] || !is_armed[1] && is_lost && world.rng.percent(50);
        if is_gone {
            world.note(format!("commit {number} LOST"));
            world.has_store_failed = true;
            return Err(lost("a commit is lost"));
        }
        let before = world.state.clone();
        let mut after = before.clone();
        let mut engine = world.engine.clone();
        let revision = engine.commit(batch)?;
        for change in &batch.changes {
            after.apply(revision, change)?;
        }
        let kinds: Vec<String> = batch
            .changes
            .iter()
            .filter(|change| matches!(change.kind.name(), "instance" | "image" | "reservation"))
            .map(|change| {
                let sign = if change.value.is_some() { "+" } else { "-" };
                format!("{sign}{}", change.key)
            })
            .collect();
        world.note(format!("commit {number}: {}", kinds.join(" ")));
        check_commit(&mut world, &before, &after);
        world.state = after;
        if world.stop == Some(Stop::AfterCommit(number)) {
            world.stop = None;
            self.0.take_down(&mut world, "after a commit");
        }
        if is_lost {
            world.note(format!("commit {number}: ITS ANSWER IS LOST"));
            world.has_store_failed = true;
            return Err(lost("the answer of a commit is lost"));
        }
        Ok(revision)
    }
}

/// All that must be true of every durable state, and of every step from one to the next.
fn check_commit(world: &mut World, before: &State, after: &State) {
    check_shares(world, after);
    check_references(world, after);
    check_groups(world, after);
    check_counted(world, before, after);
    for address in before.instance_by_address.keys() {
        if !after.instance_by_address.contains_key(address) {
            world.made.given_back = Some(*address);
        }
    }
    for address in after.instance_by_address.keys() {
        world.made.addresses.insert(*address, world.commits);
    }
    for old in before.instances.values() {
        match after.instances.get(&old.id) {
            Some(new) if new != old => check_change(world, old, new),
            Some(_) => {}
            None if old.is_forgettable(world.now(), VISIBLE_MS) => {}
            None => world.breach(format!("{} is forgotten too early", old.id)),
        }
    }
    for new in after.instances.values() {
        let is_new = !before.instances.contains_key(&new.id);
        if is_new && !world.made.instance_ids.insert(new.id) {
            world.breach(format!("the id {} is used again", new.id));
        }
    }
}

fn check_change(world: &mut World, old: &Instance, new: &Instance) {
    let id = new.id;
    let is_same = old.address == new.address
        && old.uid == new.uid
        && old.owner == new.owner
        && old.reservation == new.reservation
        && old.memory_mib == new.memory_mib;
    if !is_same {
        world.breach(format!("{id} changed what it was given"));
    }
    let has_risen = matches!(old.intent.want, Want::Terminated { .. })
        && matches!(new.intent.want, Want::Running);
    let is_younger = new.intent.generation < old.intent.generation
        || new.intent.reboots < old.intent.reboots
        || new.observed.reboots < old.observed.reboots
        || new.observed.reboots > new.intent.reboots
        || (old.observed.has_run && !new.observed.has_run)
        || (old.observed.is_removed && !new.observed.is_removed);
    let is_backward = rank(new.state()) < rank(old.state());
    if has_risen || is_younger || is_backward {
        world.breach(format!("{id} went back: {old:?} to {new:?}"));
    }
    let ends =
        matches!(old.intent.want, Want::Running) && !matches!(new.intent.want, Want::Running);
    let is_wished = world.ledger.has_asked_to_end(id);
    if ends && !is_wished && !world.made.excused.contains(&id) {
        let has_image = world
            .state
            .images
            .get(&new.image)
            .is_some_and(|image| !matches!(image.preparation, Preparation::Failed { .. }));
        if has_image {
            world.breach(format!("{id} ends and nothing asked for it: {new:?}"));
        }
    }
    if new.observed.is_removed && !old.observed.is_removed {
        let is_left = world.vms.contains_key(&id)
            || world.ports.contains_key(&id)
            || world.disks.contains(&id);
        if is_left {
            world.breach(format!("{id} is recorded as removed and is not"));
        }
    }
}

/// States are seen in this order and in no other; some may not be seen.
pub(crate) fn rank(state: InstanceState) -> u8 {
    match state {
        InstanceState::Pending => 0,
        InstanceState::Running => 1,
        InstanceState::ShuttingDown => 2,
        InstanceState::Terminated => 3,
    }
}

/// Nothing is given out twice, and the sums are right.
fn check_shares(world: &mut World, after: &State) {
    let mut addresses: BTreeMap<Ipv4Addr, InstanceId> = BTreeMap::new();
    let mut uids = BTreeSet::new();
    let mut memory_mib = 0;
    let mut counts: BTreeMap<AccountId, u32> = BTreeMap::new();
    let alive = |it: &&Arc<Instance>| it.liveness() == Liveness::Alive;
    for instance in after.instances.values().filter(alive) {
        let id = instance.id;
        if let Some(other) = addresses.insert(instance.address, id) {
            world.breach(format!("{id} and {other} have one address"));
        }
        if !uids.insert(instance.uid) {
            world.breach(format!("{id} shares its user id"));
        }
        let base = AddressBlock::base_of(instance.address);
        let last = instance.address.octets()[3];
        let is_taken = after
            .address_blocks
            .get(&base)
            .is_some_and(|block| block.taken[usize::from(last / 64)] >> (last % 64) & 1 == 1);
        if !is_taken {
            world.breach(format!("the address of {id} counts as free"));
        }
        memory_mib += instance.memory_mib;
        *counts.entry(instance.owner).or_default() += 1;
    }
    if memory_mib != after.host_usage.memory_mib || memory_mib > MEMORY_MIB {
        world.breach(format!(
            "{memory_mib} MiB are used and {} are counted",
            after.host_usage.memory_mib
        ));
    }
    for (account, counted) in &after.account_usage {
        let used = counts.get(account).copied().unwrap_or(0);
        if used != *counted || used > INSTANCES_PER_ACCOUNT {
            world.breach(format!("{account} has {used} and {counted} are counted"));
        }
    }
    // Besides those of instances each block holds .0 and .255, and the gateway's the gateway.
    let taken: u32 = after
        .address_blocks
        .values()
        .flat_map(|block| block.taken)
        .map(u64::count_ones)
        .sum();
    let has_gateway = after.address_blocks.contains_key(&GUEST_NETWORK);
    let reserved = after.address_blocks.len() * 2 + usize::from(has_gateway);
    if usize::try_from(taken).unwrap_or(0) != addresses.len() + reserved {
        world.breach(format!(
            "{taken} addresses are taken by {} instances",
            addresses.len()
        ));
    }
}

fn check_references(world: &mut World, after: &State) {
    let mut tokens = BTreeSet::new();
    for reservation in after.reservations.values() {
        if let Some(token) = &reservation.client_token
            && !tokens.insert((reservation.owner, token.token.clone()))
        {
            world.breach(format!("{} has a token of another launch", reservation.id));
        }
        for id in &reservation.instances {
            if !after.instances.contains_key(id) {
                world.breach(format!("{} names {id}, which is gone", reservation.id));
            }
        }
    }
    for instance in after.instances.values() {
        let is_listed = after
            .reservations
            .get(&instance.reservation)
            .is_some_and(|reservation| reservation.instances.contains(&instance.id));
        if !is_listed {
            world.breach(format!("{} is in no reservation", instance.id));
        }
    }
    for reservation in after.reservations.values() {
        if reservation.has_user_data != after.user_data.contains_key(&reservation.id) {
            world.breach(format!("{} lost its user data", reservation.id));
        }
    }
    let is_forgotten = |id: &&_| !after.reservations.contains_key(*id);
    if let Some(id) = after.user_data.keys().find(is_forgotten) {
        world.breach(format!("the user data of {id} is left"));
    }
    let is_forgotten = |id: &&_| !after.images.contains_key(*id);
    if let Some(id) = after.bundle_sources.keys().find(is_forgotten) {
        world.breach(format!("the source of {id} is left"));
    }
    if let Some(id) = after.stray_tags().first() {
        world.breach(format!("the tags of {id} are left"));
    }
    for image in after.images.values() {
        let is_open = matches!(image.preparation, Preparation::Pending { .. });
        if is_open && !after.bundle_sources.contains_key(&image.id) {
            world.breach(format!("{} has no source", image.id));
        }
    }
}

/// A store that was opened again must show what was durable, nothing more and nothing less.
pub(crate) fn check_reopened(world: &mut World, seen: &State) {
    let durable = &world.state;
    let is_same = seen.instances == durable.instances
        && seen.reservations == durable.reservations
        && seen.images == durable.images
        && seen.bundle_sources == durable.bundle_sources
        && seen.key_pairs == durable.key_pairs
        && seen.tags == durable.tags
        && seen.security_groups == durable.security_groups
        && seen.groups_by_name == durable.groups_by_name
        && seen.reservations_by_group == durable.reservations_by_group
        && seen.launch_tags == durable.launch_tags
        && seen.address_blocks == durable.address_blocks
        && seen.host_usage == durable.host_usage
        && seen.account_usage == durable.account_usage
        && seen.user_data == durable.user_data
        && seen.products == durable.products
        && seen.subscriptions == durable.subscriptions
        && seen.product_usage == durable.product_usage
        && seen.client_tokens == durable.client_tokens
        && seen.live_instances == durable.live_instances
        && seen.instance_by_address == durable.instance_by_address
        && seen.reservations_by_owner == durable.reservations_by_owner;
    if !is_same {
        world.breach("the store that was opened again differs from what was committed");
    }
}
