//! DescribeInstanceStatus: what the host and the guest really answer.

use std::sync::Arc;

use cumulet_domain::instances::{Instance, InstanceState, Vm};
use cumulet_domain::{Error, InstanceId, Timestamp};
use cumulet_host::api::VmState;

use crate::instances::{check_own, distinct};
use crate::{Caller, Engine};

/// Result of one reachability check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    Ok,
    /// Did not answer, and was started a short while ago.
    Initializing,
    Impaired,
    /// The instance does not run.
    NotApplicable,
}

#[derive(Debug, Clone)]
pub struct InstanceStatusView {
    pub instance: Arc<Instance>,
    /// Whether the virtual machine itself is there.
    pub system: Reachability,
    /// Whether the guest answers on the network.
    pub guest: Reachability,
}

/// For how long after its start a silent guest counts as starting.
const INITIALIZING_MS: i64 = 5 * 60 * 1000;
/// How long a guest may take to answer.
const PATIENCE_MS: u64 = 1_000;
/// Guests asked at the same time.
pub(crate) const PROBES_MAX: usize = 16;

impl Engine {
    /// Asks each instance, once however often it is named; those that do not run only when
    /// `include_all`.
    ///
    /// # Errors
    /// `NotFound` naming all ids that are not the caller's.
    pub async fn instance_statuses(
        &self,
        caller: &Caller,
        ids: &[InstanceId],
        include_all: bool,
    ) -> Result<Vec<InstanceStatusView>, Error> {
        let state = self.snapshot();
        check_own(&state, caller, ids)?;
        let chosen: Vec<Arc<Instance>> = if ids.is_empty() {
            state
                .reservations_of(caller.account)
                .flat_map(|reservation| reservation.instances.iter())
                .filter_map(|id| state.instances.get(id))
                .cloned()
                .collect()
        } else {
            let named = distinct(ids.to_vec()).into_iter();
            named
                .filter_map(|id| state.instances.get(&id).cloned())
                .collect()
        };
        let chosen: Vec<_> = chosen
            .into_iter()
            .filter(|it| include_all || it.state() == InstanceState::Running)
            .collect();
        let mut views = Vec::with_capacity(chosen.len());
        for batch in chosen.chunks(PROBES_MAX) {
            let probes: Vec<_> = batch
                .iter()
                .cloned()
                .map(|instance| {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.status_of(instance).await })
                })
                .collect();
            for probe in probes {
                views.push(probe.await.map_err(Error::internal)?);
            }
        }
        Ok(views)
    }

    async fn status_of(&self, instance: Arc<Instance>) -> InstanceStatusView {
        let Vm::Running { since } = instance.observed.vm else {
            let not = Reachability::NotApplicable;
            return InstanceStatusView {
                instance,
                system: not,
                guest: not,
            };
        };
        let host = self.host();
        let system = match host.vms.observe(instance.id).await {
            Ok(VmState::Running { .. }) => Reachability::Ok,
            Ok(VmState::Absent { .. }) | Err(_) => Reachability::Impaired,
        };
        // One limit for all callers: a probe of a silent guest holds a thread for its whole time.
        let place = self.probes().acquire().await;
        let guest = match host.network.is_reachable(instance.id, PATIENCE_MS).await {
            Ok(true) => Reachability::Ok,
            Ok(false) | Err(_) => unreachable_since(since, self.environment().now()),
        };
        drop(place);
        InstanceStatusView {
            instance,
            system,
            guest,
        }
    }
}

fn unreachable_since(start: Timestamp, now: Timestamp) -> Reachability {
    if now.millis_since(start) < INITIALIZING_MS {
        Reachability::Initializing
    } else {
        Reachability::Impaired
    }
}
