//! Security groups, beside launches into them: who asks, what they were told, and
//! what must hold at every commit.
//!
//! One client makes, changes and deletes the groups of an account and so knows
//! what they must be; others launch into them and end what they launched.  All
//! are of one account, whose groups and rules are made here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cumulet_domain::instances::Liveness;
use cumulet_domain::security_groups::{Era, GroupRef, SecurityGroup, Source, Traffic};
use cumulet_domain::tags::{TagMap, TaggedId};
use cumulet_domain::{Error, Resource, SecurityGroupId};
use cumulet_engine::launch::Launch;
use cumulet_engine::security_groups::{RuleAsked, SourceAsked};
use cumulet_engine::{Engine, State};
use tokio::task::JoinSet;

use super::clients::caller;
use super::ledger::Known;
use super::rng::Rng;
use super::run::{Life, Runtime, all, calm, found, in_a_life, rest};
use super::scene::{end_all, image, launch_of, own, register_image};
use super::world::{Faults, Shared, World};

pub(crate) const WEB: &str = "web";
pub(crate) const DB: &str = "db";

/// Lives with clients, before the last one.
const LIVES: u64 = 4;
const LAUNCHERS: u64 = 3;
/// What each client does in one life.
const STEPS: u64 = 30;

/// What a permission lets in; each is two rules, which are there together or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Everybody, to the ports 0 and 1.
    Everybody,
    /// Members of the other group, to the ports 2 and 3.
    Other,
}

impl Permission {
    fn asked(self, group: &str) -> Vec<RuleAsked> {
        let (first, source) = match self {
            Permission::Everybody => {
                let everybody = Source::network("0.0.0.0/0").expect("a network");
                (0, SourceAsked::Known(everybody))
            }
            Permission::Other => {
                let other = SourceAsked::Group {
                    owner: None,
                    group: GroupRef::Name(other(group).into()),
                    name: None,
                };
                (2, other)
            }
        };
        let rule = |port| RuleAsked {
            traffic: Traffic::Tcp {
                from: port,
                to: port,
            },
            source: source.clone(),
            description: None,
        };
        vec![rule(first), rule(first + 1)]
    }

    fn is_in(self, state: &State, group: &str) -> bool {
        let port = match self {
            Permission::Everybody => 0,
            Permission::Other => 2,
        };
        let rules = id_of(state, group).and_then(|id| state.security_groups.get(&id));
        rules.is_some_and(|group| group.ingress.iter().any(|it| port_of(it.traffic) == port))
    }
}

fn port_of(traffic: Traffic) -> u16 {
    match traffic {
        Traffic::Tcp { from, .. } => from,
        _ => u16::MAX,
    }
}

fn other(group: &str) -> &'static str {
    if group == WEB { DB } else { WEB }
}

fn id_of(state: &State, name: &str) -> Option<SecurityGroupId> {
    let key = (caller(0).account, name.into());
    state.groups_by_name.get(&key).copied()
}

/// What the only client that changes groups knows of them, and how often it was told what.
#[derive(Default)]
pub(crate) struct Told {
    groups: BTreeMap<&'static str, Known>,
    permissions: BTreeMap<(&'static str, Permission), Known>,
    pub(crate) tally: Tally,
}

/// How often things happened, so that a run in which they do not is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub made: u64,
    pub deleted: u64,
    /// Deletions that were refused because of members or rules.
    pub in_use: u64,
    pub authorized: u64,
    pub revoked: u64,
    pub launched: u64,
    /// Launches into a group that was not there.
    pub homeless: u64,
    /// Calls whose answer was that the service is unavailable.
    pub unanswered: u64,
}

impl Told {
    fn group(&self, name: &str) -> Known {
        self.groups.get(name).copied().unwrap_or(Known::Absent)
    }

    fn permission(&self, name: &'static str, permission: Permission) -> Known {
        let known = self.permissions.get(&(name, permission));
        known.copied().unwrap_or(Known::Absent)
    }

    fn forget_permissions(&mut self, name: &str) {
        self.permissions.retain(|(group, _), _| *group != name);
    }

    /// What durable records show otherwise than it was acknowledged.
    pub(crate) fn broken(&self, state: &State) -> Option<String> {
        let is_other = |known, is_there: bool| match known {
            Known::Present => !is_there,
            Known::Absent => is_there,
            Known::Unknown => false,
        };
        let mut groups = self.groups.iter();
        if let Some((name, known)) =
            groups.find(|(name, known)| is_other(**known, id_of(state, name).is_some()))
        {
            return Some(format!("the group {name} is not {known:?}"));
        }
        let mut permissions = self.permissions.iter();
        let is_broken = |name: &str, permission: Permission, known| {
            self.group(name) == Known::Present && is_other(known, permission.is_in(state, name))
        };
        permissions
            .find(|((name, permission), known)| is_broken(name, *permission, **known))
            .map(|(permission, known)| format!("the permission {permission:?} is not {known:?}"))
    }
}

/// What must be true of groups in every durable state.
pub(crate) fn check_groups(world: &mut World, after: &State) {
    for ((owner, name), id) in &after.groups_by_name {
        let is_it = |it: &Arc<SecurityGroup>| it.owner == *owner && *it.name == **name;
        if !after.security_groups.get(id).is_some_and(is_it) {
            world.breach(format!("the name {name} leads to another group than {id}"));
        }
    }
    if after.groups_by_name.len() != after.security_groups.len() {
        world.breach("two groups of an account have one name");
    }
    for instance in after.instances.values() {
        if instance.liveness() != Liveness::Alive {
            continue;
        }
        let Some(reservation) = after.reservations.get(&instance.reservation) else {
            continue;
        };
        for group in &reservation.groups {
            let recorded = after.security_groups.get(&group.id);
            let is_there = group.id == SecurityGroupId::of(instance.owner)
                || recorded.is_some_and(|it| it.owner == instance.owner && it.name == group.name);
            if !is_there {
                let id = instance.id;
                world.breach(format!("{id} lives in {}, which is gone", group.id));
            }
            let is_listed = (group.id, reservation.id);
            if !after.reservations_by_group.contains(&is_listed) {
                world.breach(format!("{} is not found as a member", instance.id));
            }
        }
    }
    for group in after.security_groups.values() {
        for rule in &group.ingress {
            if let Source::Group { owner, id, .. } = &rule.source
                && *owner == group.owner
                && !after.security_groups.contains_key(id)
            {
                world.breach(format!("a rule of {} names {id}, which is gone", group.id));
            }
            let twin = port_of(rule.traffic) ^ 1;
            if !group.ingress.iter().any(|it| port_of(it.traffic) == twin) {
                world.breach(format!("{} has half of a permission", group.id));
            }
        }
        if !after.tags.contains_key(&TaggedId::from(group.id)) {
            world.breach(format!("{} was made without its tags", group.id));
        }
    }
}

/// Whether the durable records have a reason not to delete the group.
fn is_used(state: &State, name: &str) -> bool {
    let Some(id) = id_of(state, name) else {
        return false;
    };
    let has_member = state.instances.values().any(|instance| {
        let reservation = state.reservations.get(&instance.reservation);
        let is_in = reservation.is_some_and(|it| it.groups.iter().any(|group| group.id == id));
        is_in && instance.liveness() == Liveness::Alive
    });
    let mut groups = state.security_groups.values();
    has_member || groups.any(|group| group.id != id && group.names(id))
}

/// Asks for things, and holds each answer against what is known and what is durable.
#[derive(Clone)]
pub(crate) struct Asker {
    shared: Arc<Shared>,
    engine: Engine,
}

impl Asker {
    pub(crate) fn of(life: &Life) -> Self {
        Self {
            shared: life.shared.clone(),
            engine: life.engine.clone(),
        }
    }

    /// An answer that says neither yes nor no.
    fn unanswered(world: &mut World, what: &str, error: &Error) -> Known {
        world.ledger.told.tally.unanswered += 1;
        let is_fair = world.has_store_failed || world.faults.disk_full > 0;
        if !is_fair || !matches!(error, Error::ServiceUnavailable { .. }) {
            world.breach(format!("{what} was refused: {error:?}"));
        }
        Known::Unknown
    }

    /// From now until the answer nobody knows.
    fn asks(&self, name: &'static str) -> (Known, bool) {
        let mut world = self.shared.lock();
        let known = world.ledger.told.group(name);
        world.ledger.told.groups.insert(name, Known::Unknown);
        (known, is_used(&world.state, name))
    }

    fn knows(world: &mut World, name: &'static str, known: Known) {
        world.ledger.told.groups.insert(name, known);
        if known != Known::Unknown {
            world.ledger.answered += 1;
        }
        if known == Known::Absent {
            world.ledger.told.forget_permissions(name);
        }
        world.check_promises();
    }

    pub(crate) async fn create(&self, name: &'static str) {
        let (known, _) = self.asks(name);
        let tags = TagMap::from([("Name".to_owned(), name.to_owned())]);
        let (me, text) = (caller(0), "simulated".to_owned());
        let made = self
            .engine
            .create_security_group(&me, name.into(), text, tags);
        let answer = made.await;
        let mut world = self.shared.lock();
        let now_known = match answer {
            Ok(group) => {
                world.ledger.told.tally.made += 1;
                if known == Known::Present {
                    world.breach(format!("{name} was made twice"));
                }
                if id_of(&world.state, name) != Some(group.id) {
                    world.breach(format!("{name} was answered and is not durable"));
                }
                world.ledger.told.forget_permissions(name);
                Known::Present
            }
            Err(Error::AlreadyExists { .. }) => {
                if known == Known::Absent {
                    world.breach(format!("{name} exists and was never made"));
                }
                Known::Present
            }
            Err(error) => Self::unanswered(&mut world, "a new group", &error),
        };
        Self::knows(&mut world, name, now_known);
    }

    pub(crate) async fn delete(&self, name: &'static str) {
        let (known, was_used) = self.asks(name);
        let group = GroupRef::Name(name.into());
        let answer = self.engine.delete_security_group(&caller(0), group).await;
        let mut world = self.shared.lock();
        let now_known = match answer {
            Ok(_) => {
                world.ledger.told.tally.deleted += 1;
                if known == Known::Absent {
                    world.breach(format!("{name} was deleted and never made"));
                }
                Known::Absent
            }
            Err(Error::NotFound { .. }) => {
                if known == Known::Present {
                    world.breach(format!("{name} was lost"));
                }
                Known::Absent
            }
            Err(Error::IncorrectState { .. }) => {
                world.ledger.told.tally.in_use += 1;
                if !was_used && !is_used(&world.state, name) {
                    world.breach(format!("nothing uses {name}, and it is not deleted"));
                }
                Known::Present
            }
            Err(error) => Self::unanswered(&mut world, "a deletion", &error),
        };
        Self::knows(&mut world, name, now_known);
    }

    pub(crate) async fn authorize(&self, name: &'static str, permission: Permission) {
        self.change(name, permission, Known::Present).await;
    }

    pub(crate) async fn revoke(&self, name: &'static str, permission: Permission) {
        self.change(name, permission, Known::Absent).await;
    }

    /// Makes a permission be there, or not.
    async fn change(&self, name: &'static str, permission: Permission, wish: Known) {
        let key = (name, permission);
        let known = {
            let mut world = self.shared.lock();
            let known = world.ledger.told.permission(name, permission);
            world.ledger.told.permissions.insert(key, Known::Unknown);
            known
        };
        let (group, rules) = (GroupRef::Name(name.into()), permission.asked(name));
        let (me, era) = (caller(0), Era::Classic);
        let answer = if wish == Known::Present {
            self.engine.authorize_ingress(&me, group, era, rules).await
        } else {
            self.engine.revoke_ingress(&me, group, era, rules).await
        };
        let mut world = self.shared.lock();
        let told = &world.ledger.told;
        let has_all = told.group(name) == Known::Present
            && (permission == Permission::Everybody || told.group(other(name)) == Known::Present);
        let now_known = match answer {
            Ok(_) if known == wish => {
                world.breach(format!("{key:?} was {wish:?} before"));
                wish
            }
            Ok(_) => {
                match wish {
                    Known::Present => world.ledger.told.tally.authorized += 1,
                    _ => world.ledger.told.tally.revoked += 1,
                }
                wish
            }
            // It is as it was wished already.
            Err(
                Error::AlreadyExists { .. }
                | Error::NotFound {
                    resource: Resource::Permission,
                    ..
                },
            ) => {
                if known != wish && known != Known::Unknown {
                    world.breach(format!("{key:?} was {known:?} and is {wish:?}"));
                }
                wish
            }
            Err(Error::NotFound { .. }) => {
                if has_all {
                    world.breach(format!("{key:?} was refused, and its groups are there"));
                }
                known
            }
            Err(error) => Self::unanswered(&mut world, "a change of rules", &error),
        };
        if now_known != Known::Unknown {
            world.ledger.answered += 1;
        }
        world.ledger.told.permissions.insert(key, now_known);
        world.check_promises();
    }

    /// Whether there was an answer of instances.
    pub(crate) async fn launch_into(&self, name: &'static str, token: Option<&str>) -> bool {
        let request = Launch {
            security_groups: vec![GroupRef::Name(name.into())],
            client_token: token.map(str::to_owned),
            ..launch_of(image(), "")
        };
        let id = || id_of(&self.shared.lock().state, name);
        let before = id();
        let answer = self.engine.launch(&caller(0), request.clone()).await;
        let after = id();
        let mut world = self.shared.lock();
        match answer {
            Ok(view) => {
                world.ledger.told.tally.launched += 1;
                world.told_launch(caller(0).account, &request, &view);
                let groups = &view.reservation.groups;
                if groups.len() != 1 || groups[0].name != name {
                    world.breach(format!("a launch into {name} is in {groups:?}"));
                }
                return true;
            }
            Err(Error::NotFound { .. }) => {
                world.ledger.told.tally.homeless += 1;
                if before.is_some() && before == after {
                    world.breach(format!("{name} was there and is not found"));
                }
            }
            Err(Error::LimitExceeded { .. } | Error::InsufficientCapacity { .. }) => {}
            Err(error) => {
                Self::unanswered(&mut world, "a launch", &error);
            }
        }
        false
    }

    async fn end_one(&self, dice: &mut Rng) {
        let id = {
            let world = self.shared.lock();
            let known = world.ledger.instances.iter().map(|(_, id)| *id);
            let live: Vec<_> = known
                .filter(|id| world.state.instances.contains_key(id) && !world.is_to_end(*id))
                .collect();
            dice.choose(&live)
        };
        let Some(id) = id else { return };
        self.shared.lock().ledger.ask_to_end(id);
        let answer = self.engine.terminate(&caller(0), vec![id]).await;
        let mut world = self.shared.lock();
        match answer {
            Ok(_) => world.told_end(id),
            Err(error) => {
                Self::unanswered(&mut world, "a termination", &error);
            }
        }
    }

    async fn administrate(self, mut dice: Rng) {
        for _ in 0..STEPS {
            pause(&mut dice).await;
            let name = if dice.percent(50) { WEB } else { DB };
            let permission = if dice.percent(60) {
                Permission::Everybody
            } else {
                Permission::Other
            };
            match dice.below(10) {
                0..3 => self.create(name).await,
                3..6 => self.delete(name).await,
                6..8 => self.authorize(name, permission).await,
                _ => self.revoke(name, permission).await,
            }
        }
    }

    async fn come_and_go(self, mut dice: Rng) {
        for _ in 0..STEPS {
            pause(&mut dice).await;
            let name = if dice.percent(50) { WEB } else { DB };
            if dice.percent(40) {
                self.launch_into(name, None).await;
            } else {
                self.end_one(&mut dice).await;
            }
        }
    }
}

async fn pause(dice: &mut Rng) {
    let most_ms = dice.choose(&[3, 3, 300, 3_000]).unwrap_or(3);
    tokio::time::sleep(Duration::from_millis(dice.below(most_ms))).await;
}

/// The scene: two groups, rules of both sorts, members, and one group deleted when they are gone.
pub(super) async fn act(life: &Life) {
    let asker = Asker::of(life);
    asker.create(WEB).await;
    asker.authorize(WEB, Permission::Everybody).await;
    asker.create(DB).await;
    asker.authorize(WEB, Permission::Other).await;
    asker.launch_into(DB, Some("scene")).await;
    asker.delete(DB).await;
    asker.revoke(WEB, Permission::Other).await;
    asker.delete(DB).await;
    end_all(life).await;
    calm(&life.shared).await;
    asker.delete(DB).await;
}

/// What the scene leaves.
pub(super) fn check_scene(world: &mut World) {
    let is_right = world.state.security_groups.len() == 1
        && Permission::Everybody.is_in(&world.state, WEB)
        && !Permission::Other.is_in(&world.state, WEB);
    if !is_right {
        let groups = &world.state.security_groups;
        let text = format!("other groups than asked for: {groups:?}");
        world.breach(text);
    }
}

/// A launch into a group and its deletion, asked for at once: one of them is refused.
pub(super) async fn deleted_while_launching(life: &Life) {
    register_image(life, image(), 1).await;
    calm(&life.shared).await;
    let asker = Asker::of(life);
    for (name, is_launch_first) in [(WEB, true), (DB, false)] {
        asker.create(name).await;
        let before = life.shared.lock().ledger.told.tally;
        if is_launch_first {
            tokio::join!(biased; asker.launch_into(name, None), asker.delete(name));
        } else {
            tokio::join!(biased; asker.delete(name), asker.launch_into(name, None));
        }
        let mut world = life.shared.lock();
        let now = world.ledger.told.tally;
        let launched = now.launched - before.launched == 1 && now.in_use - before.in_use == 1;
        let deleted = now.deleted - before.deleted == 1 && now.homeless - before.homeless == 1;
        if (launched, deleted) != (is_launch_first, !is_launch_first) {
            world.breach(format!("from {before:?} to {now:?}"));
        }
    }
}

/// Runs one seed: lives with clients that are cut short, and a last one in which all is taken away.
///
/// # Errors
/// The first invariant that did not hold, with what happened before.
pub fn play_groups(seed: u64, runtime: Runtime) -> Result<Tally, String> {
    let shared = Shared::new(seed, None);
    let mut dice = shared.lock().rng.split();
    found(&shared, runtime);
    in_a_life(&shared, runtime, 0, async |life| {
        register_image(life, image(), 1).await;
        rest(life).await;
    });
    shared.lock().faults = Faults {
        slow: 10,
        commit_lost: 1,
        disk_full: 2,
        ..Faults::default()
    };
    for _ in 0..LIVES {
        let longest_ms = dice.choose(&[500, 8_000, 60_000]).unwrap_or(8_000);
        let dies_after = Duration::from_millis(dice.below(longest_ms));
        in_a_life(&shared, runtime, 1_000, async |life| {
            let asker = Asker::of(life);
            let mut clients = JoinSet::new();
            clients.spawn(asker.clone().administrate(dice.split()));
            for _ in 0..LAUNCHERS {
                clients.spawn(asker.clone().come_and_go(dice.split()));
            }
            tokio::select! {
                biased;
                _ = life.store.failed() => tokio::time::sleep(Duration::from_millis(300)).await,
                () = tokio::time::sleep(dies_after) => {}
                () = all(&mut clients) => {}
            }
        });
    }
    shared.lock().faults = Faults::default();
    in_a_life(&shared, runtime, 0, async |life| {
        take_all_away(life).await;
        rest(life).await;
    });
    let mut world = shared.lock();
    world.check_promises();
    if !world.state.security_groups.is_empty() {
        world.breach("groups are left that nothing uses");
    }
    match world.violation.clone() {
        None => Ok(world.ledger.told.tally),
        Some(violation) => Err(format!("seed {seed}: {}", world.story(&violation))),
    }
}

async fn take_all_away(life: &Life) {
    {
        // Those that nobody was told of, too.
        let mut world = life.shared.lock();
        let all: Vec<_> = world.state.instances.values().cloned().collect();
        world.ledger.instances = all.iter().map(|it| (it.owner, it.id)).collect();
    }
    if !own(life).is_empty() {
        end_all(life).await;
    }
    calm(&life.shared).await;
    let asker = Asker::of(life);
    for name in [WEB, DB] {
        asker.revoke(name, Permission::Other).await;
    }
    for name in [WEB, DB] {
        asker.delete(name).await;
    }
}
