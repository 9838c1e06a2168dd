//! Reconciles one instance with its virtual machine.
//!
//! Knows nothing of APIs or placement: the address and the sizes are in the
//! record when it arrives here.  What to do is decided by
//! [`cumulet_domain::instances::plan`]; this file observes and performs.
//!
//! Invariant: what a record lists is given back only in the commit that records
//! the removal, after VM, port and disk are gone.

use cumulet_domain::images::{BootKind, Image, Preparation};
use cumulet_domain::instances::{
    DiskReadiness, EndCause, HEALTHY_AFTER_MS, Instance, Seen, StateReason, Step, Vm, Want,
    backoff_ms, mac_of, plan,
};
use cumulet_domain::network::AddressBlock;
use cumulet_domain::products::Ran;
use cumulet_domain::{Error, InstanceId, KernelId, Timestamp};
use cumulet_host::api::{
    Boot, DiskSpec, Exit, ExitCause, HostError, Layout, Mac, Port, Stop, VmSpec, VmState,
};
use cumulet_store::Plan;

use super::Next;
use crate::Engine;
use crate::records::{AccountUsage, HostUsage, Stored};
use crate::state::State;

/// Steps of one run; more than any instance needs, so that a mistake cannot spin.
const STEPS_MAX: usize = 32;

/// Nothing is to be done until something happens.
pub(super) fn is_settled(instance: &Instance) -> bool {
    let is_running = matches!(instance.observed.vm, Vm::Running { .. })
        && instance.intent.want == Want::Running
        && instance.observed.reboots >= instance.intent.reboots;
    is_running || instance.observed.is_removed
}

impl Engine {
    /// Looks, decides, does one step, and again until nothing differs.
    pub(crate) async fn reconcile_instance(&self, id: InstanceId) -> Next {
        let mut started_for = None;
        for _ in 0..STEPS_MAX {
            // Only then is the state looked at: what waited for a hand must not be old.
            let hand = self.hands().acquire().await;
            let state = self.snapshot();
            let Some(instance) = state.instances.get(&id).cloned() else {
                return Next::WhenWoken;
            };
            if instance.observed.is_removed {
                self.troubles_of_instances().set(id, None);
                return Next::WhenWoken;
            }
            let (seen, ran) = self.see(&instance).await;
            // Before the step: what it ends, or gives back, is counted then.
            if let Some(ran) = ran
                && let Err(error) = self.count_usage(&instance, ran).await
            {
                tracing::warn!(instance = %id, %error, log = error.log(), "the hours of an instance could not be counted");
                return Next::At(self.environment().now().plus_millis(1_000));
            }
            self.note_trouble(&instance, seen).await;
            let disk = disk_readiness(state.images.get(&instance.image).map(AsRef::as_ref));
            let step = plan(&instance, seen, &disk, self.environment().now());
            tracing::debug!(instance = %id, ?seen, ?step, "reconcile");
            // To record what was seen takes no hand.
            let hand = hand
                .ok()
                .filter(|_| !matches!(step, Step::RecordRunning { .. }));
            let performed = self.perform(&instance, step, &mut started_for).await;
            drop(hand);
            match performed {
                Ok(Performed::Again) => {}
                Ok(Performed::Rest(next)) => return next,
                Err(error) => {
                    tracing::warn!(instance = %id, %error, log = error.log(), "a step could not be recorded");
                    return Next::At(self.environment().now().plus_millis(1_000));
                }
            }
        }
        tracing::error!(instance = %id, "an instance does not come to rest");
        Next::At(self.environment().now().plus_millis(10_000))
    }

    /// What the host shows of an instance, and when its machine ran as far as that is known.
    async fn see(&self, instance: &Instance) -> (Seen, Option<Ran>) {
        match self.host().vms.observe(instance.id).await {
            Ok(VmState::Running { since }) => {
                // After a restart of this program the port's lease is known to nobody yet.
                if let Err(error) = self.host().network.ensure_port(&port_of(instance)).await {
                    tracing::warn!(instance = %instance.id, %error, "could not ensure the port of a running instance");
                }
                let until = self.environment().now();
                let ran = Some(Ran { since, until });
                match self.host().network.is_plugged(instance.id).await {
                    Ok(false) => (Seen::CutOff, ran),
                    Ok(true) | Err(_) => (Seen::Running { since }, ran),
                }
            }
            Ok(VmState::Absent { exit: None }) => (Seen::NeverStarted, None),
            Ok(VmState::Absent { exit: Some(exit) }) => {
                let ran = ran_until(instance, &exit);
                let cause = match exit.cause {
                    ExitCause::GuestShutdown => EndCause::GuestShutdown,
                    ExitCause::Requested => EndCause::Requested,
                    ExitCause::GuestPanic => EndCause::Crash,
                    ExitCause::Crashed { detail } => {
                        tracing::warn!(instance = %instance.id, %detail, "the virtual machine ended unexpectedly");
                        EndCause::Crash
                    }
                };
                (Seen::Ended(cause), ran)
            }
            Err(error) => {
                tracing::warn!(instance = %instance.id, %error, "could not observe an instance");
                (Seen::Unknown, None)
            }
        }
    }

    /// Remembers what ails a running guest, and forgets it when that is over.
    async fn note_trouble(&self, instance: &Instance, seen: Seen) {
        let trouble = match seen {
            // Nothing is known that was not known before.
            Seen::Unknown => return,
            Seen::Running { .. } => match self.host().vms.is_out_of_room(instance.id).await {
                Ok(false) => None,
                Ok(true) => Some(StateReason::new(
                    "Server.InternalError",
                    "Server.InternalError: The disk of the host is full; the instance is paused, and goes on by itself when there is room",
                )),
                Err(error) => {
                    tracing::warn!(instance = %instance.id, %error, "could not ask whether an instance waits for room");
                    return;
                }
            },
            Seen::CutOff | Seen::NeverStarted | Seen::Ended(_) => None,
        };
        let is_paused = trouble.is_some();
        if self.troubles_of_instances().set(instance.id, trouble) {
            if is_paused {
                tracing::warn!(instance = %instance.id, "an instance is paused: its host's disk is full");
            } else {
                tracing::info!(instance = %instance.id, "an instance goes on: there is room again");
            }
        }
    }

    /// `started_for` is what [`Intent::reboots`](cumulet_domain::instances::Intent) was when this run
    /// started the VM, if it did.
    async fn perform(
        &self,
        instance: &Instance,
        step: Step,
        started_for: &mut Option<u64>,
    ) -> Result<Performed, Error> {
        let id = instance.id;
        match step {
            Step::Rest | Step::AwaitImage => Ok(Performed::Rest(Next::WhenWoken)),
            Step::Wait { until } => Ok(Performed::Rest(Next::At(until))),
            Step::Start => match self.start_vm(instance).await {
                Ok(()) => {
                    *started_for = Some(instance.intent.reboots);
                    Ok(Performed::Again)
                }
                Err(failure) => self.record_failure(instance, failure).await,
            },
            Step::RecordRunning { since } => {
                // A start carries out every reboot that was asked for before it, and none that was
                // asked for since.  Where nobody knows any more, one too many is done.
                let carried_out = started_for.take().unwrap_or(0);
                self.change_instance(id, move |it| {
                    it.observed.reboots = it.observed.reboots.max(carried_out);
                    if !it.observed.has_run {
                        it.observed.failures = 0;
                    }
                    it.observed.vm = Vm::Running { since };
                    it.observed.has_run = true;
                    it.observed.retry_at = None;
                })
                .await?;
                Ok(Performed::Again)
            }
            Step::RecordEnded => {
                // Something may be left of it that nobody can reach any more, and hold its tap.
                if let Err(failure) = self.host().vms.ensure_stopped(id, Stop::Now).await {
                    return self.record_failure(instance, Failure::from(failure)).await;
                }
                let now = self.environment().now();
                self.change_instance(id, move |it| {
                    let ran_ms = match it.observed.vm {
                        Vm::Running { since } => now.millis_since(since),
                        Vm::NotStarted | Vm::Ended => 0,
                    };
                    it.observed.vm = Vm::Ended;
                    // One crash after a long time is the first; one after another waits longer.
                    if ran_ms >= HEALTHY_AFTER_MS {
                        it.observed.failures = 0;
                    }
                    it.observed.failures += 1;
                    it.observed.retry_at = Some(now.plus_millis(backoff_ms(it.observed.failures)));
                    it.observed.last_failure = Some(StateReason::new(
                        "Server.InternalError",
                        "Server.InternalError: The virtual machine ended unexpectedly and is started again on its disk",
                    ));
                })
                .await?;
                Ok(Performed::Again)
            }
            Step::Restart => {
                tracing::warn!(instance = %id, "the network of an instance was removed under it; it is started again");
                let how = Stop::Graceful {
                    patience_ms: self.config().shutdown_patience_ms,
                };
                if let Err(failure) = self.host().vms.ensure_stopped(id, how).await {
                    return self.record_failure(instance, Failure::from(failure)).await;
                }
                let now = self.environment().now();
                self.change_instance(id, move |it| {
                    it.observed.vm = Vm::Ended;
                    it.observed.failures += 1;
                    it.observed.retry_at = Some(now.plus_millis(backoff_ms(it.observed.failures)));
                    it.observed.last_failure = Some(StateReason::new(
                        "Server.InternalError",
                        "Server.InternalError: The network of the instance was removed on its host; it is started again on its disk",
                    ));
                })
                .await?;
                Ok(Performed::Again)
            }
            Step::Reboot => match self
                .host()
                .vms
                .reboot(id, self.config().reboot_patience_ms)
                .await
            {
                Ok(()) => {
                    let reboots = instance.intent.reboots;
                    self.change_instance(id, move |it| {
                        it.observed.reboots = it.observed.reboots.max(reboots)
                    })
                    .await?;
                    Ok(Performed::Again)
                }
                Err(failure) => self.record_failure(instance, Failure::from(failure)).await,
            },
            Step::GiveUp { reason } => {
                tracing::info!(instance = %id, reason = %reason.message, "an instance ends");
                let now = self.environment().now();
                self.change_instance(id, move |it| {
                    it.terminate(now, reason);
                })
                .await?;
                Ok(Performed::Again)
            }
            Step::Remove => match self.remove(instance).await {
                Ok(()) => {
                    let now = self.environment().now();
                    self.commit_observed(move |state| plan_removed(state, id, now))
                        .await?;
                    Ok(Performed::Again)
                }
                Err(failure) => self.record_failure(instance, Failure::from(failure)).await,
            },
        }
    }

    async fn start_vm(&self, instance: &Instance) -> Result<(), Failure> {
        let state = self.snapshot();
        let host = self.host();
        let image = state
            .images
            .get(&instance.image)
            .map(|image| image.preparation.clone());
        let Some(Preparation::Ready { digest, kind, .. }) = image else {
            return Err(Failure::permanent(
                "the image is gone",
                "The image is no longer available",
            ));
        };
        let (layout, boot) = match kind {
            BootKind::Disk => (
                Layout::Whole {
                    size_mib: instance.disk_mib,
                },
                Boot::Firmware,
            ),
            BootKind::Rootfs => {
                let kernel = self.kernel_for(&state, instance)?;
                let openssh_key = instance.key.as_ref().map(|key| key.public_key.clone());
                let layout = Layout::Classic {
                    ephemeral_mib: instance.ephemeral_mib,
                    swap_mib: instance.swap_mib,
                };
                (
                    layout,
                    Boot::Kernel {
                        kernel,
                        openssh_key,
                    },
                )
            }
        };
        let disk = DiskSpec {
            instance: instance.id,
            image: digest,
            layout,
        };
        // An earlier attempt may have left what nobody can reach any more, and it would hold the disk.
        if instance.observed.failures > 0 {
            host.vms.ensure_stopped(instance.id, Stop::Now).await?;
        }
        host.disks.ensure_disk(&disk).await?;
        host.network.ensure_port(&port_of(instance)).await?;
        let tap = host.network.open_tap(instance.id).await?;
        let spec = VmSpec {
            instance: instance.id,
            uid: instance.uid,
            vcpus: instance.vcpus,
            memory_mib: instance.memory_mib,
            machine: instance.machine.clone(),
            mac: Mac(mac_of(instance.address)),
            disk,
            boot,
        };
        host.vms.ensure_started(&spec, tap).await?;
        Ok(())
    }

    fn kernel_for(&self, state: &State, instance: &Instance) -> Result<KernelId, Failure> {
        let recorded = instance
            .kernel
            .filter(|kernel| state.kernels.contains_key(kernel));
        let kernel = recorded.or_else(|| state.default_kernel().map(|kernel| kernel.id));
        match kernel {
            Some(kernel) => Ok(kernel),
            None if self.host().profile.is_simulated => Ok(KernelId::from_random(0)),
            None => Err(Failure::permanent(
                "no kernel is installed",
                "The image is a root file system and this cloud has no kernel: the operator must run cumulet kernel build",
            )),
        }
    }

    async fn remove(&self, instance: &Instance) -> Result<(), HostError> {
        let host = self.host();
        let id = instance.id;
        let how = Stop::Graceful {
            patience_ms: self.config().shutdown_patience_ms,
        };
        host.vms.ensure_stopped(id, how).await?;
        host.vms.ensure_removed(id).await?;
        host.network.ensure_port_absent(id).await?;
        host.disks.ensure_disk_absent(id).await
    }

    async fn record_failure(
        &self,
        instance: &Instance,
        failure: Failure,
    ) -> Result<Performed, Error> {
        tracing::warn!(instance = %instance.id, error = %failure.log, "a step failed");
        let now = self.environment().now();
        let id = instance.id;
        self.change_instance(id, move |it| {
            let reason = StateReason::new(
                "Server.InternalError",
                format!("Server.InternalError: {}", failure.user_reason),
            );
            let is_hopeless = !failure.is_retryable && !it.observed.has_run;
            it.observed.failures += 1;
            it.observed.last_failure = Some(reason.clone());
            it.observed.retry_at = Some(now.plus_millis(backoff_ms(it.observed.failures)));
            if is_hopeless {
                it.terminate(now, reason);
            }
        })
        .await?;
        Ok(Performed::Again)
    }

    /// Changes the newest record of an instance, unless it is gone.
    async fn change_instance<F>(&self, id: InstanceId, change: F) -> Result<(), Error>
    where
        F: FnOnce(&mut Instance) + Send + 'static,
    {
        self.commit_observed(move |state| {
            let Some(found) = state.instances.get(&id) else {
                return Ok(Plan {
                    changes: vec![],
                    answer: (),
                });
            };
            let mut instance = Instance::clone(found);
            change(&mut instance);
            let changes = if instance == **found {
                vec![]
            } else {
                vec![instance.put()]
            };
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await
    }
}

enum Performed {
    Again,
    Rest(Next),
}

struct Failure {
    log: String,
    user_reason: String,
    is_retryable: bool,
}

impl Failure {
    fn permanent(log: &str, user_reason: &str) -> Self {
        Self {
            log: log.into(),
            user_reason: user_reason.into(),
            is_retryable: false,
        }
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self {
            log: error.to_string(),
            user_reason: error.user_reason,
            is_retryable: error.is_retryable,
        }
    }
}

/// When a machine that has ended ran.  One of which no record says that it did has run if its guest
/// did something, for as long as is known: at its end.
fn ran_until(instance: &Instance, exit: &Exit) -> Option<Ran> {
    let until = exit.at;
    let since = match (instance.observed.vm, &exit.cause) {
        (Vm::Running { since }, _) => since,
        (_, ExitCause::GuestShutdown | ExitCause::GuestPanic) => until,
        (_, ExitCause::Requested | ExitCause::Crashed { .. }) => return None,
    };
    Some(Ran { since, until })
}

fn port_of(instance: &Instance) -> Port {
    Port {
        instance: instance.id,
        mac: Mac(mac_of(instance.address)),
        address: instance.address,
        host_name: instance.host_name(),
    }
}

fn disk_readiness(image: Option<&Image>) -> DiskReadiness {
    let Some(preparation) = image.map(|image| &image.preparation) else {
        return DiskReadiness::Failed(StateReason::new(
            "Server.InternalError",
            "The image is no longer available",
        ));
    };
    match (preparation, preparation.failure()) {
        (_, Some(failure)) => DiskReadiness::Failed(failure),
        (Preparation::Ready { .. }, None) => DiskReadiness::Ready,
        (Preparation::Pending { .. } | Preparation::Failed { .. }, None) => {
            DiskReadiness::Preparing
        }
    }
}

/// Records the removal and gives back the address, the memory and the place in the account's limit.
fn plan_removed(state: &State, id: InstanceId, now: Timestamp) -> Result<Plan<()>, Error> {
    let mut changes = vec![];
    if let Some(found) = state.instances.get(&id)
        && !found.observed.is_removed
    {
        let mut instance = Instance::clone(found);
        instance.observed.is_removed = true;
        instance.observed.removed_at = Some(now);
        instance.observed.vm = Vm::Ended;
        if let Some(block) = state
            .address_blocks
            .get(&AddressBlock::base_of(instance.address))
        {
            let mut block = AddressBlock::clone(block);
            block.release(instance.address);
            changes.push(block.put());
        }
        let memory_mib = state
            .host_usage
            .memory_mib
            .saturating_sub(instance.memory_mib);
        changes.push(HostUsage { memory_mib }.put());
        let used = state
            .account_usage
            .get(&instance.owner)
            .copied()
            .unwrap_or(0);
        changes.push(
            AccountUsage {
                account: instance.owner,
                instances: used.saturating_sub(1),
            }
            .put(),
        );
        changes.push(instance.put());
    }
    Ok(Plan {
        changes,
        answer: (),
    })
}
