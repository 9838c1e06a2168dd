//! Instances: intent, observation, and what users see of the two.
//!
//! ```text
//!            launch                 VM runs            terminate / guest shutdown
//!   (none) ---------> pending ----------------> running -----------> shutting-down
//!                        \                                                |
//!                         `---- could not start: intent = terminate ------'
//!                                                                         | all removed
//!                                                                         v
//!                                                                    terminated
//! ```
//!
//! The API writes [`Intent`]; the reconciler of the host alone writes
//! [`Observed`]; [`Instance::state`] is a pure function of both.
//!
//! Invariants: address, uid and disk name are in the record before the first
//! side effect and stay until `observed.is_removed`; a record whose VM is
//! `Unknown` is never cleaned up on that ground.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::disks::Sizes;
use crate::security_groups::Membership;
use crate::{AccountId, ImageId, InstanceId, KernelId, ReservationId, Timestamp};

/// Most instances of one launch: one atomic commit must hold them.
pub const LAUNCH_COUNT_MAX: u32 = 80;
/// Most bytes of user data, before base64.
pub const USER_DATA_LEN_MAX: usize = 16 * 1024;
/// Longest description of a port, in characters.
pub const PORT_DESCRIPTION_LEN_MAX: usize = 255;
/// Longest client token.
pub const CLIENT_TOKEN_LEN_MAX: usize = 64;

/// The instances that one request started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub id: ReservationId,
    pub owner: AccountId,
    pub created: Timestamp,
    /// The security groups of its instances, each once; never none.
    pub groups: Vec<Membership>,
    pub instances: Vec<InstanceId>,
    /// The token of the request and a digest of its parameters: the same token with the same
    /// parameters gets the same answer, with others `IdempotentParameterMismatch`.
    pub client_token: Option<ClientToken>,
    pub has_user_data: bool,
    /// What the launch calls the ports of its instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    pub token: String,
    pub parameters_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub reservation: ReservationId,
    pub owner: AccountId,
    pub image: ImageId,
    pub launch_index: u32,
    pub launched: Timestamp,
    pub instance_type: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub ephemeral_mib: u64,
    pub swap_mib: u64,
    pub disk_mib: u64,
    pub key: Option<InstanceKey>,
    pub product_codes: Vec<String>,
    /// The default kernel at launch; only root file systems boot with it.
    pub kernel: Option<KernelId>,
    /// QEMU machine type, kept for the instance's life.
    pub machine: String,
    pub address: Ipv4Addr,
    pub uid: u32,
    pub metadata: MetadataOptions,
    pub intent: Intent,
    pub observed: Observed,
}

/// The key pair as it was at launch; deleting the pair later changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceKey {
    pub name: String,
    pub public_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    pub is_token_required: bool,
    pub hop_limit: u8,
    pub is_enabled: bool,
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self {
            is_token_required: false,
            hop_limit: 1,
            is_enabled: true,
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Grows with every change of the intent.
    pub generation: u64,
    pub want: Want,
    /// How often a reboot was asked for.
    pub reboots: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    Running,
    Terminated {
        since: Timestamp,
        reason: StateReason,
    },
}

/// Why an instance is in its state, as `stateReason` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    pub code: String,
    pub message: String,
}

impl StateReason {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    pub fn user_initiated() -> Self {
        Self::new(
            "Client.UserInitiatedShutdown",
            "Client.UserInitiatedShutdown: User initiated shutdown",
        )
    }

    pub fn operator_initiated() -> Self {
        Self::new(
            "Server.OperatorInitiatedShutdown",
            "Server.OperatorInitiatedShutdown: The operator of this cloud terminated the instance",
        )
    }

    pub fn guest_initiated() -> Self {
        Self::new(
            "Client.InstanceInitiatedShutdown",
            "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
        )
    }
}

/// What the host last saw and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Observed {
    pub vm: Vm,
    /// Whether the VM ever ran.
    pub has_run: bool,
    /// How many of `intent.reboots` were carried out.
    pub reboots: u64,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// No step before this time.
    pub retry_at: Option<Timestamp>,
    /// Why the last step failed, or why the VM had to be started again.
    pub last_failure: Option<StateReason>,
    /// VM, port and disk are gone, and what they took is given back.
    pub is_removed: bool,
    pub removed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Vm {
    #[default]
    NotStarted,
    Running {
        since: Timestamp,
    },
    Ended,
}

/// EC2's names and codes of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub fn code(self) -> u16 {
        match self {
            InstanceState::Pending => 0,
            InstanceState::Running => 16,
            InstanceState::ShuttingDown => 32,
            InstanceState::Terminated => 48,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    Gone,
}

impl Instance {
    /// What users see.
    pub fn state(&self) -> InstanceState {
        match (&self.intent.want, self.observed.vm) {
            (Want::Running, Vm::Running { .. }) => InstanceState::Running,
            // A VM that ran and is being started again (its host rebooted, it crashed) is shown as
            // running: EC2 knows no way back to pending, and old tools wait for none.
            (Want::Running, Vm::Ended) if self.observed.has_run => InstanceState::Running,
            (Want::Running, Vm::NotStarted | Vm::Ended) => InstanceState::Pending,
            (Want::Terminated { .. }, _) if self.observed.is_removed => InstanceState::Terminated,
            (Want::Terminated { .. }, _) => InstanceState::ShuttingDown,
        }
    }

    /// Whether it still holds an address, memory and a disk.
    pub fn liveness(&self) -> Liveness {
        if self.observed.is_removed {
            Liveness::Gone
        } else {
            Liveness::Alive
        }
    }

    /// What its type gives its disk.
    pub fn disk_sizes(&self) -> Sizes {
        Sizes {
            ephemeral_mib: self.ephemeral_mib,
            swap_mib: self.swap_mib,
            disk_mib: self.disk_mib,
        }
    }

    pub fn state_reason(&self) -> Option<&StateReason> {
        match &self.intent.want {
            Want::Terminated { reason, .. } => Some(reason),
            // What went wrong before is over once it runs again.
            Want::Running if matches!(self.observed.vm, Vm::Running { .. }) => None,
            Want::Running => self.observed.last_failure.as_ref(),
        }
    }

    /// Asks for the end.  True if this changed anything: terminating twice does not.
    pub fn terminate(&mut self, now: Timestamp, reason: StateReason) -> bool {
        match self.intent.want {
            Want::Running => {
                self.intent.want = Want::Terminated { since: now, reason };
                self.intent.generation += 1;
                self.observed.retry_at = None;
                true
            }
            Want::Terminated { .. } => false,
        }
    }

    /// Asks for a reboot.  Terminated instances ignore it, as EC2 does.
    pub fn reboot(&mut self) -> bool {
        match self.intent.want {
            Want::Running => {
                self.intent.reboots += 1;
                self.intent.generation += 1;
                true
            }
            Want::Terminated { .. } => false,
        }
    }

    /// When the record may be forgotten, given how long terminated instances stay visible.
    pub fn is_forgettable(&self, now: Timestamp, visible_ms: i64) -> bool {
        self.observed
            .removed_at
            .is_some_and(|at| self.observed.is_removed && now.millis_since(at) >= visible_ms)
    }

    /// `ip-10-210-0-4`.
    pub fn host_name(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("ip-{a}-{b}-{c}-{d}")
    }
}

/// The MAC address that belongs to a private address: locally administered, and unique since the
/// address is.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xc5, a, b, c, d]
}

/// The user id under which an instance's processes run.  It follows from the address, and clouds
/// on one host have different ranges, so that no two instances of a host share it: every private
/// address has an id of its own.
pub fn uid_of(address: Ipv4Addr) -> u32 {
    let bits = u32::from(address);
    let offset = match address.octets() {
        [10, ..] => bits & 0x00ff_ffff,
        [172, ..] => 0x0100_0000 | (bits & 0x000f_ffff),
        // 192.168.0.0/16, the last that guests may have.
        _ => 0x0110_0000 | (bits & 0x0000_ffff),
    };
    0x1000_0000 | offset
}

/// What the reconciler sees of the world, for [`plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Running {
        since: Timestamp,
    },
    /// It runs, but its place in the network was removed under it, and it cannot be given another.
    CutOff,
    NeverStarted,
    Ended(EndCause),
    /// The host did not say: nothing may be concluded.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    GuestShutdown,
    Requested,
    Crash,
}

/// What is known of the image's disk, for [`plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskReadiness {
    Preparing,
    Ready,
    /// With the reason for the user, and whose fault it is.
    Failed(StateReason),
}

/// One step of the reconciler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing differs.
    Rest,
    /// Try again at this time.
    Wait {
        until: Timestamp,
    },
    /// Wait until the image is ready; its preparation wakes us.
    AwaitImage,
    /// Network, disk, VM: each "ensure".
    Start,
    /// Write down what was seen.
    RecordRunning {
        since: Timestamp,
    },
    RecordEnded,
    /// Switch it off, and write down why it is started again.
    Restart,
    Reboot,
    /// Change the intent: the guest ended itself, or the launch cannot be met.
    GiveUp {
        reason: StateReason,
    },
    /// Stop, remove VM, port and disk, then record the removal.
    Remove,
}

/// An instance that ran for this long is healthy: a crash after it is the first one again.
pub const HEALTHY_AFTER_MS: i64 = 600_000;

/// Attempts to start an instance that never ran, before it is given up.
pub const START_ATTEMPTS_MAX: u32 = 5;

/// Decides the next step.  Pure; called again after every step.
pub fn plan(instance: &Instance, seen: Seen, disk: &DiskReadiness, now: Timestamp) -> Step {
    if instance.observed.is_removed {
        return Step::Rest;
    }
    if let Some(until) = instance.observed.retry_at
        && now < until
        // A clock that was set back does not make anybody wait longer than ever was meant.
        && until.millis_since(now) <= BACKOFF_MS_MAX
    {
        return Step::Wait { until };
    }
    match instance.intent.want {
        Want::Terminated { .. } => Step::Remove,
        Want::Running => plan_running(instance, seen, disk),
    }
}

fn plan_running(instance: &Instance, seen: Seen, disk: &DiskReadiness) -> Step {
    let observed = &instance.observed;
    match seen {
        Seen::Unknown => Step::Rest,
        Seen::Running { since } if observed.vm != (Vm::Running { since }) => {
            Step::RecordRunning { since }
        }
        Seen::Running { .. } if observed.reboots < instance.intent.reboots => Step::Reboot,
        Seen::Running { .. } => Step::Rest,
        Seen::CutOff => Step::Restart,
        Seen::Ended(EndCause::GuestShutdown) => Step::GiveUp {
            reason: StateReason::guest_initiated(),
        },
        // `NeverStarted`: its run directory is gone.
        Seen::NeverStarted | Seen::Ended(EndCause::Crash)
            if matches!(observed.vm, Vm::Running { .. }) =>
        {
            Step::RecordEnded
        }
        Seen::NeverStarted | Seen::Ended(EndCause::Crash | EndCause::Requested) => {
            plan_start(instance, disk)
        }
    }
}

fn plan_start(instance: &Instance, disk: &DiskReadiness) -> Step {
    if !instance.observed.has_run && instance.observed.failures >= START_ATTEMPTS_MAX {
        let reason = instance.observed.last_failure.clone();
        return Step::GiveUp {
            reason: reason.unwrap_or_else(|| {
                StateReason::new(
                    "Server.InternalError",
                    "Server.InternalError: Internal error on launch",
                )
            }),
        };
    }
    match disk {
        DiskReadiness::Preparing => Step::AwaitImage,
        DiskReadiness::Failed(failure) if !instance.observed.has_run => Step::GiveUp {
            reason: StateReason::new(
                &failure.code,
                format!("{}: {}", failure.code, failure.message),
            ),
        },
        DiskReadiness::Failed(_) | DiskReadiness::Ready => Step::Start,
    }
}

/// The longest wait.
pub const BACKOFF_MS_MAX: i64 = 60_000;

/// How long to wait after `failures` failed attempts: 1, 2, 4 … 60 seconds.
pub fn backoff_ms(failures: u32) -> i64 {
    1000 * (1i64 << failures.saturating_sub(1).min(6)).min(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance {
            id: InstanceId::from_random(1),
            reservation: ReservationId::from_random(1),
            owner: AccountId::from_random(1),
            image: ImageId::from_random(1),
            launch_index: 0,
            launched: Timestamp(0),
            instance_type: "m1.small".into(),
            vcpus: 1,
            memory_mib: 1740,
            ephemeral_mib: 1,
            swap_mib: 1,
            disk_mib: 1,
            key: None,
            product_codes: vec![],
            kernel: None,
            machine: "q35".into(),
            address: Ipv4Addr::new(10, 1, 0, 4),
            uid: 1,
            metadata: MetadataOptions::default(),
            intent: Intent {
                generation: 1,
                want: Want::Running,
                reboots: 0,
            },
            observed: Observed::default(),
        }
    }

    const NOW: Timestamp = Timestamp(1_000);

    #[test]
    fn a_new_instance_is_started_when_its_image_is_ready() {
        let new = instance();
        assert_eq!(new.state(), InstanceState::Pending);
        assert_eq!(
            plan(&new, Seen::NeverStarted, &DiskReadiness::Preparing, NOW),
            Step::AwaitImage
        );
        assert_eq!(
            plan(&new, Seen::NeverStarted, &DiskReadiness::Ready, NOW),
            Step::Start
        );
    }

    #[test]
    fn a_failed_image_ends_the_launch_with_its_reason() {
        let step = plan(
            &instance(),
            Seen::NeverStarted,
            &DiskReadiness::Failed(StateReason::new("Client.InvalidImage", "Part 3 is damaged")),
            NOW,
        );
        let message = "Client.InvalidImage: Part 3 is damaged";
        assert_eq!(
            step,
            Step::GiveUp {
                reason: StateReason::new("Client.InvalidImage", message)
            }
        );
    }

    #[test]
    fn unknown_is_not_absent() {
        let mut running = instance();
        running.observed.vm = Vm::Running { since: NOW };
        assert_eq!(
            plan(&running, Seen::Unknown, &DiskReadiness::Ready, NOW),
            Step::Rest
        );
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_keeps_nobody_waiting() {
        let mut waiting = instance();
        let until = NOW.plus_millis(backoff_ms(u32::MAX));
        waiting.observed.retry_at = Some(until);
        let at = |now| plan(&waiting, Seen::NeverStarted, &DiskReadiness::Ready, now);
        assert_eq!(at(NOW), Step::Wait { until });
        assert_eq!(at(until), Step::Start);
        assert_eq!(at(NOW.plus_millis(86_400_000)), Step::Start);
        assert_eq!(at(NOW.plus_millis(-86_400_000)), Step::Start);
    }

    #[test]
    fn a_vm_without_its_network_or_directory_is_started_again() {
        let mut running = instance();
        running.observed.vm = Vm::Running { since: NOW };
        let at = |seen| plan(&running, seen, &DiskReadiness::Ready, NOW);
        assert_eq!(at(Seen::CutOff), Step::Restart);
        assert_eq!(at(Seen::NeverStarted), Step::RecordEnded);
    }

    #[test]
    fn a_crashed_vm_is_recorded_and_started_again() {
        let mut running = instance();
        running.observed.vm = Vm::Running { since: NOW };
        running.observed.has_run = true;
        let crash = Seen::Ended(EndCause::Crash);
        assert_eq!(
            plan(&running, crash, &DiskReadiness::Ready, NOW),
            Step::RecordEnded
        );
        running.observed.vm = Vm::Ended;
        assert_eq!(running.state(), InstanceState::Running);
        assert_eq!(
            plan(&running, crash, &DiskReadiness::Ready, NOW),
            Step::Start
        );
    }

    #[test]
    fn a_guests_own_shutdown_terminates() {
        let mut running = instance();
        running.observed.vm = Vm::Running { since: NOW };
        let step = plan(
            &running,
            Seen::Ended(EndCause::GuestShutdown),
            &DiskReadiness::Ready,
            NOW,
        );
        assert_eq!(
            step,
            Step::GiveUp {
                reason: StateReason::guest_initiated()
            }
        );
    }

    #[test]
    fn no_two_private_addresses_share_a_user_id() {
        let mut ranges = [
            (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 255, 255, 255)),
            (
                Ipv4Addr::new(172, 16, 0, 0),
                Ipv4Addr::new(172, 31, 255, 255),
            ),
            (
                Ipv4Addr::new(192, 168, 0, 0),
                Ipv4Addr::new(192, 168, 255, 255),
            ),
        ]
        .map(|(first, last)| {
            // Within a range they follow each other.
            let size = u32::from(last) - u32::from(first);
            assert_eq!(uid_of(last) - uid_of(first), size);
            let middle = Ipv4Addr::from(u32::from(first) + size / 2);
            assert_eq!(uid_of(middle) - uid_of(first), size / 2);
            (uid_of(first), uid_of(last))
        });
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        // Of the probe of acceleration, which is nobody's.
        assert!(ranges.iter().all(|range| range.1 < 0x1fff_ffff));
    }

    #[test]
    fn terminate_is_idempotent_and_final() {
        let mut it = instance();
        assert!(it.terminate(NOW, StateReason::user_initiated()));
        assert!(!it.terminate(NOW, StateReason::guest_initiated()));
        assert!(!it.reboot());
        assert_eq!(it.state(), InstanceState::ShuttingDown);
        assert_eq!(
            plan(&it, Seen::Unknown, &DiskReadiness::Preparing, NOW),
            Step::Remove
        );
        it.observed.is_removed = true;
        assert_eq!(it.state(), InstanceState::Terminated);
        assert_eq!(
            plan(&it, Seen::NeverStarted, &DiskReadiness::Ready, NOW),
            Step::Rest
        );
    }

    #[test]
    fn a_launch_that_never_runs_is_given_up() {
        let mut it = instance();
        it.observed.failures = START_ATTEMPTS_MAX;
        assert!(matches!(
            plan(&it, Seen::NeverStarted, &DiskReadiness::Ready, NOW),
            Step::GiveUp { .. }
        ));
    }

    #[test]
    fn a_reboot_is_carried_out_once() {
        let mut it = instance();
        let seen = Seen::Running { since: NOW };
        it.observed.vm = Vm::Running { since: NOW };
        it.observed.has_run = true;
        assert!(it.reboot());
        assert_eq!(plan(&it, seen, &DiskReadiness::Ready, NOW), Step::Reboot);
        it.observed.reboots = it.intent.reboots;
        assert_eq!(plan(&it, seen, &DiskReadiness::Ready, NOW), Step::Rest);
    }
}
