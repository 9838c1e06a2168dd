//! The traits between the engine and a host.
//!
//! Every `ensure_…` may be repeated and says what is true after it returned;
//! names of things on the host follow from ids alone, so that what a record
//! lists can always be found and removed.  Observation has three values:
//! present, absent, and an error, which means *unknown* and is never taken for
//! absence.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use cumulet_domain::{Digest, InstanceId, KernelId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::inventory::Inventory;

/// A failure on the host.  `Display` may carry paths and command lines: it is
/// for the log.  `user_reason` is what the instance's owner may read.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {cause}")]
pub struct HostError {
    /// What was being done: "could not create tap device tap-i-0abc".
    pub doing: String,
    pub cause: String,
    /// Short text without paths, commands or addresses; ends in no full stop.
    pub user_reason: String,
    /// Whether repeating the same call later may succeed.
    pub is_retryable: bool,
}

impl HostError {
    pub fn new(doing: impl Into<String>, cause: impl ToString) -> Self {
        let doing = doing.into();
        Self {
            user_reason: "Internal error on launch".into(),
            cause: cause.to_string(),
            doing,
            is_retryable: true,
        }
    }

    /// An error that repeating cannot mend, with the reason that the user sees.
    pub fn permanent(
        doing: impl Into<String>,
        cause: impl ToString,
        user_reason: impl Into<String>,
    ) -> Self {
        Self {
            doing: doing.into(),
            cause: cause.to_string(),
            user_reason: user_reason.into(),
            is_retryable: false,
        }
    }
}

pub type Result<T> = std::result::Result<T, HostError>;

/// Six bytes, printed `02:00:0a:…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The instance's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub instance: InstanceId,
    pub mac: Mac,
    pub address: Ipv4Addr,
    /// Short host name, sent by DHCP (option 12): `ip-10-210-0-4`.
    pub host_name: String,
}

/// The network as it was laid: recorded once, then kept for the cloud's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroundPlan {
    /// Guests' range, for example 10.210.0.0/16, chosen to avoid what the host routes.
    pub guest_network: Ipv4Addr,
    pub guest_prefix: u8,
    /// First usable address; on the namespace's `lo`, seen by guests as router, DHCP and API host.
    pub gateway: Ipv4Addr,
    /// The two ends of the veth pair (a /30 or /31 outside the guests' range).
    pub uplink_host: Ipv4Addr,
    pub uplink_inside: Ipv4Addr,
}

#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Lays namespace, veth pair, routes, tables, DHCP; safe to repeat, also over a half-laid or
    /// older ground.  Everything it makes is named after the cloud's id.
    async fn ensure_ground(&self) -> Result<()>;

    /// Removes all that `ensure_ground` and `ensure_port` made, and restores what it changed.
    async fn remove_ground(&self) -> Result<()>;

    /// Tap, rules (before the link is up), route, neighbour entry, DHCP lease.
    async fn ensure_port(&self, port: &Port) -> Result<()>;

    /// Removes all that `ensure_port` made; true even if it never ran or half ran.
    async fn ensure_port_absent(&self, instance: InstanceId) -> Result<()>;

    /// A descriptor of the instance's tap, to be handed to its VM.
    async fn open_tap(&self, instance: InstanceId) -> Result<OwnedFd>;

    /// Whether a VM holds the instance's tap: one that runs without it was cut off, since the tap or
    /// its namespace was deleted and made again.
    async fn is_plugged(&self, _instance: InstanceId) -> Result<bool> {
        Ok(true)
    }

    /// Ports that exist on the host now, whoever asked for them.
    async fn ports(&self) -> Result<Vec<InstanceId>>;

    /// Whether the guest answers ARP on its own tap within `patience_ms`.
    async fn is_reachable(&self, instance: InstanceId, patience_ms: u64) -> Result<bool>;
}

/// What makes a disk that an instance boots from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    pub instance: InstanceId,
    /// The stored image, by digest of its raw bytes.
    pub image: Digest,
    pub layout: Layout,
}

/// How the image becomes the disk that the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The 2007 disk: partition 1 the image, 2 an empty ext3 of this size, 3 swap.
    Classic { ephemeral_mib: u64, swap_mib: u64 },
    /// The image is a whole disk; grown (not shrunk) to at least this size.
    Whole { size_mib: u64 },
}

/// An image that is stored on this host, ready for overlays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    pub digest: Digest,
    pub size_bytes: u64,
    pub kind: ImageKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A file system without a kernel; booted with the default kernel and ramdisk.
    Rootfs,
    /// A disk with a boot loader; booted through firmware.
    Disk,
}

/// One part of an encrypted bundle: its bytes and the SHA-1 that the manifest promises.
pub struct BundlePart {
    pub open: Box<dyn FnOnce() -> std::io::Result<Box<dyn std::io::Read + Send>> + Send>,
    pub sha1: [u8; 20],
}

/// Where an image's bytes come from.
pub enum ImageSource {
    Bundle {
        parts: Vec<BundlePart>,
        key: [u8; 16],
        iv: [u8; 16],
        /// SHA-1 of the stream before compression, as the manifest says.
        sha1: [u8; 20],
        /// Size of the image in bytes, as the manifest says.
        size_bytes: u64,
    },
    File {
        file: std::fs::File,
        format: FileFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    Raw,
    Qcow2,
}

/// Called now and then with the percentage done.
pub type Progress = Arc<dyn Fn(u8) + Send + Sync>;

#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Unpacks and checks `source` in an unprivileged child, stores it by digest, durably.
    /// Bytes that were not there before are marked as unrecorded before they have their name.
    /// An error with `is_retryable == false` is the image's own fault.
    async fn store_image(
        &self,
        source: ImageSource,
        size_max_bytes: u64,
        progress: Progress,
    ) -> Result<StoredImage>;

    async fn has_image(&self, image: Digest) -> Result<bool>;

    /// Digests of the images stored now.
    async fn images(&self) -> Result<Vec<Digest>>;

    /// Removes the bytes, what was prepared of them, and last their mark.
    async fn ensure_image_absent(&self, image: Digest) -> Result<()>;

    /// Digests that are marked: stored, and perhaps never recorded.
    async fn unrecorded_images(&self) -> Result<Vec<Digest>>;

    /// Takes the mark away: a record names these bytes.
    async fn mark_image_recorded(&self, image: Digest) -> Result<()>;

    /// The prepared base (once per image and layout) and the instance's overlay on it.  An existing
    /// overlay is kept as it is: its bytes are the user's.
    async fn ensure_disk(&self, spec: &DiskSpec) -> Result<()>;

    /// Removes the instance's overlay; bases stay until no image needs them.
    async fn ensure_disk_absent(&self, instance: InstanceId) -> Result<()>;

    /// Instances that have an overlay now.
    async fn disks(&self) -> Result<Vec<InstanceId>>;

    /// All files of machines and disks, for comparing them with the records.
    async fn inventory(&self) -> Result<Inventory>;
}

/// Everything that is needed to start a virtual machine, from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    pub instance: InstanceId,
    /// User (and group) id of this instance's processes.
    pub uid: u32,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// QEMU machine type, recorded with the instance, for example `pc-q35-7.2`.
    pub machine: String,
    pub mac: Mac,
    pub disk: DiskSpec,
    pub boot: Boot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Our kernel and ramdisk; `openssh_key` goes to the ephemeral store as `openssh_id.pub`.
    Kernel {
        kernel: KernelId,
        openssh_key: Option<String>,
    },
    /// The disk's own boot loader.
    Firmware,
}

/// What is known of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Keeper and QEMU live and the guest's CPUs run.
    Running {
        /// When this process was started.
        since: Timestamp,
    },
    /// The VM has ended (or was never started: then `exit` is `None`).
    Absent { exit: Option<Exit> },
}

/// How a VM ended, as its keeper saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub at: Timestamp,
    pub cause: ExitCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The guest powered itself off.
    GuestShutdown,
    /// We asked it to end (`stop`).
    Requested,
    /// The guest's kernel panicked and the machine reported it.
    GuestPanic,
    /// QEMU ended by itself or by a signal; text for the log.
    Crashed { detail: String },
}

/// The serial console's last bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// At most 64 KiB, the newest.
    pub bytes: Vec<u8>,
    /// When the last byte was written.
    pub updated: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// ACPI power button, then the plug after `patience_ms`.
    Graceful {
        patience_ms: u64,
    },
    Now,
}

#[async_trait]
pub trait Vms: Send + Sync + 'static {
    /// Starts keeper and VM unless they live.  After an `Ok` the VM survives this program.
    async fn ensure_started(&self, spec: &VmSpec, tap: OwnedFd) -> Result<()>;

    async fn observe(&self, instance: InstanceId) -> Result<VmState>;

    /// Whether a VM that runs is paused since the host has no room for what its guest writes; it
    /// goes on by itself.
    async fn is_out_of_room(&self, _instance: InstanceId) -> Result<bool> {
        Ok(false)
    }

    /// Resolves when something about any VM may have changed (a guest powered off, a keeper died);
    /// a reason to observe again, nothing more.
    async fn changed(&self);

    /// ACPI first; a reset if the guest has not rebooted within `patience_ms`.  Returns when the
    /// request was handed to the VM; `Ok` also when there is no VM.
    async fn reboot(&self, instance: InstanceId, patience_ms: u64) -> Result<()>;

    /// Returns when the VM is absent.
    async fn ensure_stopped(&self, instance: InstanceId, how: Stop) -> Result<()>;

    /// Removes the run directory of a VM that is absent; its console is kept apart until
    /// `forget_console`.
    async fn ensure_removed(&self, instance: InstanceId) -> Result<()>;

    async fn console(&self, instance: InstanceId) -> Result<Option<Console>>;

    async fn forget_console(&self, instance: InstanceId) -> Result<()>;

    /// Instances that have a run directory or a live process now.
    async fn vms(&self) -> Result<Vec<InstanceId>>;
}

/// What the host offers, found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProfile {
    /// Memory that may be given to guests.
    pub memory_mib: u64,
    pub vcpus: u32,
    /// `kvm` or `tcg`, proven by a probe; `simulated`.
    pub acceleration: String,
    /// Machine type for new instances.
    pub machine: String,
    pub is_simulated: bool,
    /// Whether the rules of security groups decide who reaches an instance; else nobody does.
    pub carries_rules_out: bool,
    pub ground: GroundPlan,
    /// Further words for `doctor` and the log.
    pub notes: BTreeMap<String, String>,
}

/// One host, whole.
#[derive(Clone)]
pub struct Host {
    pub profile: HostProfile,
    pub vms: Arc<dyn Vms>,
    pub disks: Arc<dyn Disks>,
    pub network: Arc<dyn Network>,
}
