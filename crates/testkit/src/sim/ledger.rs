//! What clients asked for and were told; what they may hold against the cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use cumulet_domain::images::ImageState;
use cumulet_domain::instances::{Instance, InstanceState, Want};
use cumulet_domain::{AccountId, ImageId, InstanceId, ReservationId};
use cumulet_engine::instances::ReservationView;
use cumulet_engine::launch::Launch;

use super::groups::Told;
use super::records::rank;
use super::world::World;

#[derive(Default)]
pub(crate) struct Ledger {
    /// Instances that a client was told of.
    pub(crate) instances: Vec<(AccountId, InstanceId)>,
    /// Whose end a client asked for, answered or not.
    asked_to_end: BTreeSet<InstanceId>,
    /// Whose end a client was promised.
    promised_to_end: BTreeSet<InstanceId>,
    /// Reboots that were promised: the count of events when the last one was asked for.
    pub(crate) reboots: BTreeMap<InstanceId, u64>,
    /// Client tokens, with the only request that is made with each.
    pub(crate) tokens: Vec<(AccountId, Launch)>,
    answers: BTreeMap<(AccountId, String), (ReservationId, Vec<InstanceId>)>,
    /// The furthest state that anybody was shown of an instance.
    seen: BTreeMap<InstanceId, InstanceState>,
    pub(crate) images: Vec<ImageId>,
    /// Key pairs of each client: whether the name exists, as far as its only user can know.
    pub(crate) keys: BTreeMap<(AccountId, String), Known>,
    /// Security groups and what they let in.
    pub(crate) told: Told,
    /// Answers of any sort, so that a run that does nothing is noticed.
    pub(crate) answered: u64,
    /// Of launches that asked for an address.
    pub(crate) addresses_given: u64,
    pub(crate) addresses_refused: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Present,
    Absent,
    /// The answer never came.
    Unknown,
}

impl Ledger {
    pub(crate) fn has_asked_to_end(&self, id: InstanceId) -> bool {
        self.asked_to_end.contains(&id)
    }

    pub(crate) fn ask_to_end(&mut self, id: InstanceId) {
        self.asked_to_end.insert(id);
    }
}

impl World {
    /// A client got this answer to its launch.
    pub(crate) fn told_launch(
        &mut self,
        owner: AccountId,
        launch: &Launch,
        view: &ReservationView,
    ) {
        self.ledger.answered += 1;
        self.ledger.addresses_given += u64::from(launch.address.is_some());
        let id = view.reservation.id;
        let told: Vec<InstanceId> = view.instances.iter().map(|it| it.id).collect();
        if let Some(token) = &launch.client_token {
            let key = (owner, token.clone());
            match self.ledger.answers.get(&key).cloned() {
                // Of the same instances those that are not forgotten yet.
                Some((earlier, instances))
                    if earlier == id && told.iter().all(|it| instances.contains(it)) => {}
                // The token lives as long as its launch is remembered.
                Some((earlier, _)) if !self.state.reservations.contains_key(&earlier) => {
                    self.ledger.answers.insert(key, (id, told));
                }
                Some((earlier, _)) => {
                    self.breach(format!("the token of {earlier} was answered with {id}"));
                }
                None => {
                    self.ledger.answers.insert(key, (id, told));
                }
            }
        }
        for part in &launch.parts {
            let of_image = view.instances.iter().filter(|it| it.image == part.image);
            let count = u32::try_from(of_image.count()).unwrap_or(u32::MAX);
            // By a token only those are answered that are not forgotten yet.
            let is_enough = launch.client_token.is_some() || count >= part.min_count;
            if !is_enough || count > part.max_count {
                self.breach(format!("{id} has {count} of {part:?}"));
            }
        }
        for instance in &view.instances {
            if launch.address.is_some_and(|it| it != instance.address) {
                self.breach(format!("{} has another address than asked", instance.id));
            }
            if !self.state.instances.contains_key(&instance.id) {
                self.breach(format!("{} was answered and is not durable", instance.id));
            }
            if !self.ledger.instances.contains(&(owner, instance.id)) {
                self.ledger.instances.push((owner, instance.id));
            }
        }
    }

    /// A client is about to ask for an address: since which commit somebody else must have had it to
    /// be refused; `None` if somebody has.
    pub(crate) fn ask_address(&self, address: Option<Ipv4Addr>) -> Option<u64> {
        let has = |it| self.state.instance_by_address.contains_key(&it);
        (!address.is_some_and(has)).then_some(self.commits)
    }

    /// A client was told that an address for which it had `asked` is somebody else's.
    pub(crate) fn told_taken(&mut self, address: Ipv4Addr, asked: Option<u64>) {
        self.ledger.answered += 1;
        self.ledger.addresses_refused += 1;
        let last = self.made.addresses.get(&address);
        if asked.is_some_and(|asked| last.is_none_or(|last| *last <= asked)) {
            self.breach(format!("{address} was refused, and nobody had it"));
        }
    }

    /// Whether this launch was answered, and what was answered is still remembered.
    pub(crate) fn is_answered(&self, owner: AccountId, launch: &Launch) -> bool {
        let Some(token) = &launch.client_token else {
            return false;
        };
        let answer = self.ledger.answers.get(&(owner, token.clone()));
        answer.is_some_and(|(id, _)| self.state.reservations.contains_key(id))
    }

    /// A client was shown an instance, as it was a moment ago.
    pub(crate) fn shown(&mut self, instance: &Instance) {
        let (id, now) = (instance.id, instance.state());
        let before = *self.ledger.seen.entry(id).or_insert(now);
        if rank(now) < rank(before) {
            self.breach(format!("{id} was shown as {before:?} and then as {now:?}"));
        }
        self.ledger.seen.insert(id, now);
    }

    /// Whether there is an account, an instance or an image of this id.
    pub(crate) fn has_record(&self, id: &str) -> bool {
        let account = id.parse::<AccountId>();
        let instance = id.parse::<InstanceId>();
        let image = id.parse::<ImageId>();
        account.is_ok_and(|id| self.state.accounts.contains_key(&id))
            || instance.is_ok_and(|id| self.state.instances.contains_key(&id))
            || image.is_ok_and(|id| self.state.images.contains_key(&id))
    }

    pub(crate) fn has_available_image(&self, id: &str) -> bool {
        let image = id
            .parse::<ImageId>()
            .ok()
            .and_then(|id| self.state.images.get(&id));
        image.is_some_and(|image| image.state == ImageState::Available)
    }

    pub(crate) fn has_failed_image(&self, id: &str) -> bool {
        let image = id
            .parse::<ImageId>()
            .ok()
            .and_then(|id| self.state.images.get(&id));
        image.is_some_and(|image| image.preparation.failure().is_some())
    }

    /// A client was told of its new image.
    pub(crate) fn told_image(&mut self, id: ImageId) {
        self.ledger.answered += 1;
        self.ledger.images.push(id);
        if !self.state.images.contains_key(&id) {
            self.breach(format!("{id} was answered and is not durable"));
        }
    }

    /// A client was told that an instance will end.
    pub(crate) fn told_end(&mut self, id: InstanceId) {
        self.ledger.answered += 1;
        self.ledger.promised_to_end.insert(id);
        if self.state.instances.contains_key(&id) && !self.is_to_end(id) {
            self.breach(format!("the end of {id} was answered and is not durable"));
        }
    }

    /// A client was told that an instance will be rebooted; it asked when `events` had happened.
    pub(crate) fn told_reboot(&mut self, id: InstanceId, events: u64) {
        self.ledger.answered += 1;
        self.ledger.reboots.insert(id, events);
    }

    /// Promises that a durable record must show at any time.
    pub(crate) fn check_promises(&mut self) {
        let broken: Vec<InstanceId> = self
            .ledger
            .promised_to_end
            .iter()
            .copied()
            .filter(|id| self.state.instances.contains_key(id) && !self.is_to_end(*id))
            .collect();
        for id in broken {
            self.breach(format!("{id} was promised to end and lives on"));
        }
        if let Some(text) = self.ledger.told.broken(&self.state) {
            self.breach(text);
        }
        let accounts: BTreeSet<AccountId> = self
            .ledger
            .keys
            .keys()
            .map(|(account, _)| *account)
            .collect();
        for account in accounts {
            let wrong: Vec<String> = self
                .ledger
                .keys
                .iter()
                .filter(|((owner, _), known)| *owner == account && **known != Known::Unknown)
                .filter(|((_, name), known)| {
                    let is_there = self
                        .state
                        .key_pairs
                        .contains_key(&(account, name.as_str().into()));
                    is_there != (**known == Known::Present)
                })
                .map(|((_, name), known)| format!("the key {name} is not {known:?}"))
                .collect();
            for text in wrong {
                self.breach(text);
            }
        }
    }

    /// Reboots that were promised for an instance that runs have happened since they were asked for.
    pub(crate) fn missed_reboot(&self, instance: &Instance) -> bool {
        let asked = self.ledger.reboots.get(&instance.id);
        let booted = self.vms.get(&instance.id).map_or(0, |vm| vm.booted);
        instance.intent.want == Want::Running && asked.is_some_and(|asked| booted <= *asked)
    }
}
