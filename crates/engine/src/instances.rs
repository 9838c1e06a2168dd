//! What users ask of instances that exist.

use std::sync::Arc;

use cumulet_domain::instances::{Instance, InstanceState, Reservation, StateReason};
use cumulet_domain::{Error, InstanceId, ReservationId, Resource, Timestamp};
use cumulet_store::Plan;

use crate::records::Stored;
use crate::state::State;
use crate::{Caller, Engine};

/// A reservation with those of its instances that were asked for.
#[derive(Debug, Clone)]
pub struct ReservationView {
    pub reservation: Arc<Reservation>,
    pub instances: Vec<Arc<Instance>>,
}

impl ReservationView {
    pub(crate) fn of(state: &State, reservation: &Arc<Reservation>) -> Self {
        let instances = reservation
            .instances
            .iter()
            .filter_map(|id| state.instances.get(id))
            .cloned()
            .collect();
        Self {
            reservation: reservation.clone(),
            instances,
        }
    }
}

/// One line of TerminateInstances' answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    pub id: InstanceId,
    pub previous: InstanceState,
    pub current: InstanceState,
}

/// The console as it was last posted.
#[derive(Debug, Clone)]
pub struct ConsoleView {
    /// Empty before the guest has written anything.
    pub bytes: Vec<u8>,
    pub updated: Timestamp,
}

/// Some of the caller's instances, in the order of their reservations' ids.
#[derive(Debug, Clone)]
pub struct InstancesPage {
    pub views: Vec<ReservationView>,
    /// The last reservation of this page, when there are more after it.
    pub next: Option<ReservationId>,
}

/// Most changes of one commit: a call on a long list is sliced.
const SLICE: usize = 50;

impl Engine {
    /// The caller's instances by reservation: all, or those of `ids`.
    ///
    /// # Errors
    /// `NotFound` naming all ids that do not exist.  An instance of somebody else is left out
    /// silently, as EC2 leaves it out.
    pub fn describe_instances(
        &self,
        caller: &Caller,
        ids: &[InstanceId],
    ) -> Result<Vec<ReservationView>, Error> {
        let state = self.snapshot();
        if ids.is_empty() {
            let all = state
                .reservations_of(caller.account)
                .map(|reservation| ReservationView::of(&state, reservation));
            return Ok(all.filter(|view| !view.instances.is_empty()).collect());
        }
        let mut views: Vec<ReservationView> = vec![];
        for instance in find_all(&state, ids)? {
            if instance.owner != caller.account {
                continue;
            }
            let view = views
                .iter_mut()
                .find(|view| view.reservation.id == instance.reservation);
            match (view, state.reservations.get(&instance.reservation)) {
                (Some(view), _) if view.instances.iter().any(|known| known.id == instance.id) => {}
                (Some(view), _) => view.instances.push(instance),
                (None, Some(reservation)) => {
                    views.push(ReservationView {
                        reservation: reservation.clone(),
                        instances: vec![instance],
                    });
                }
                (None, None) => {
                    return Err(Error::internal(format!(
                        "{} has no reservation record",
                        instance.id
                    )));
                }
            }
        }
        Ok(views)
    }

    /// The caller's instances that `keep` chooses, from after the reservation `after` on, until there
    /// are `instances_max`.  A reservation is never split: one that is bigger is a page of its own.
    /// Costs what it looks at, not what there is.
    pub fn describe_instances_page(
        &self,
        caller: &Caller,
        after: Option<ReservationId>,
        instances_max: usize,
        keep: impl Fn(&Reservation, &Instance) -> bool,
    ) -> InstancesPage {
        let state = self.snapshot();
        let mut page = InstancesPage {
            views: vec![],
            next: None,
        };
        let mut count = 0;
        for reservation in state.reservations_after(caller.account, after) {
            let mut view = ReservationView::of(&state, reservation);
            view.instances.retain(|it| keep(reservation, it));
            if view.instances.is_empty() {
                continue;
            }
            if count > 0 && count + view.instances.len() > instances_max {
                page.next = page.views.last().map(|view| view.reservation.id);
                return page;
            }
            count += view.instances.len();
            page.views.push(view);
        }
        page
    }

    /// Queues a reboot of each.  Terminated instances are ignored.
    ///
    /// # Errors
    /// `NotFound` naming all ids that are not the caller's; then nothing is rebooted.
    pub async fn reboot(&self, caller: &Caller, ids: Vec<InstanceId>) -> Result<(), Error> {
        check_own(&self.snapshot(), caller, &ids)?;
        for slice in distinct(ids).chunks(SLICE) {
            let slice = slice.to_vec();
            let woken = slice.clone();
            self.commit(move |state| {
                let mut changes = vec![];
                for mut instance in records_of(state, &slice) {
                    if instance.reboot() {
                        changes.push(instance.put());
                    }
                }
                Ok(Plan {
                    changes,
                    answer: (),
                })
            })
            .await?;
            woken.iter().for_each(|id| self.wake().instance(*id));
        }
        Ok(())
    }

    /// Asks for the end of each.  Repeating it succeeds and changes nothing.
    ///
    /// # Errors
    /// `NotFound` naming all ids that are not the caller's; then nothing is terminated.
    pub async fn terminate(
        &self,
        caller: &Caller,
        ids: Vec<InstanceId>,
    ) -> Result<Vec<StateChange>, Error> {
        check_own(&self.snapshot(), caller, &ids)?;
        self.end(ids, StateReason::user_initiated()).await
    }

    /// The same for the operator: of any account, and the owner sees who did it.
    ///
    /// # Errors
    /// `NotFound` naming all ids that do not exist; then nothing is terminated.
    pub async fn terminate_as_operator(
        &self,
        ids: Vec<InstanceId>,
    ) -> Result<Vec<StateChange>, Error> {
        let state = self.snapshot();
        let is_missing = |id: &&InstanceId| !state.instances.contains_key(*id);
        let missing: Vec<String> = ids
            .iter()
            .filter(is_missing)
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Error::not_found_all(Resource::Instance, missing));
        }
        self.end(ids, StateReason::operator_initiated()).await
    }

    async fn end(
        &self,
        ids: Vec<InstanceId>,
        reason: StateReason,
    ) -> Result<Vec<StateChange>, Error> {
        let now = self.environment().now();
        let mut answers = vec![];
        for slice in distinct(ids).chunks(SLICE) {
            let (slice, reason) = (slice.to_vec(), reason.clone());
            let changed = self
                .commit(move |state| {
                    let mut changes = vec![];
                    let mut answer = vec![];
                    for mut instance in records_of(state, &slice) {
                        let previous = instance.state();
                        if instance.terminate(now, reason.clone()) {
                            changes.push(instance.put());
                        }
                        answer.push(StateChange {
                            id: instance.id,
                            previous,
                            current: instance.state(),
                        });
                    }
                    Ok(Plan { changes, answer })
                })
                .await?;
            changed
                .iter()
                .for_each(|change| self.wake().instance(change.id));
            answers.extend(changed);
        }
        Ok(answers)
    }

    /// The last 64 KiB of the serial console.
    ///
    /// # Errors
    /// `NotFound`, also for an instance of somebody else.
    pub async fn console_output(
        &self,
        caller: &Caller,
        id: InstanceId,
    ) -> Result<ConsoleView, Error> {
        let state = self.snapshot();
        check_own(&state, caller, &[id])?;
        let launched = state
            .instances
            .get(&id)
            .map_or(Timestamp::EPOCH, |instance| instance.launched);
        let console = self.host().vms.console(id).await.map_err(Error::internal)?;
        Ok(match console {
            Some(console) => ConsoleView {
                bytes: console.bytes,
                updated: console.updated,
            },
            None => ConsoleView {
                bytes: vec![],
                updated: launched,
            },
        })
    }

    /// User data of a launch.
    pub fn user_data(&self, instance: &Instance) -> Option<bytes::Bytes> {
        self.snapshot()
            .user_data
            .get(&instance.reservation)
            .cloned()
    }
}

fn find_all(state: &State, ids: &[InstanceId]) -> Result<Vec<Arc<Instance>>, Error> {
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !state.instances.contains_key(*id))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(Error::not_found_all(Resource::Instance, missing));
    }
    Ok(ids
        .iter()
        .filter_map(|id| state.instances.get(id))
        .cloned()
        .collect())
}

/// Somebody else's instance does not exist for those who want to change it.
pub(crate) fn check_own(state: &State, caller: &Caller, ids: &[InstanceId]) -> Result<(), Error> {
    let is_own = |id: &&InstanceId| {
        state
            .instances
            .get(*id)
            .is_some_and(|instance| instance.owner == caller.account)
    };
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !is_own(id))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::not_found_all(Resource::Instance, missing))
    }
}

fn records_of<'a>(state: &'a State, ids: &'a [InstanceId]) -> impl Iterator<Item = Instance> + 'a {
    ids.iter()
        .filter_map(|id| state.instances.get(id))
        .map(|instance| Instance::clone(instance))
}

/// Each id once, in the order of the list.
pub(crate) fn distinct(ids: Vec<InstanceId>) -> Vec<InstanceId> {
    let mut seen = std::collections::BTreeSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}
