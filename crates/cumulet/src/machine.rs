//! The real host: QEMU, disks, the kernel's network; and undoing them.
//!
//! Only [`wiring`](crate::wiring) uses this.  What must stay the same over
//! restarts (where the network lies, whether acceleration was proven) is
//! recorded here before it is used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cumulet_domain::instances::uid_of;
use cumulet_domain::network::Ipv4Net;
use cumulet_engine::State;
use cumulet_engine::accounts::plan_ground;
use cumulet_host::api::{GroundPlan, Host, HostProfile, Network as _, Stop, Vms as _};
use cumulet_host::disks::LocalDisks;
use cumulet_host::kernel::{KernelFiles, KernelStore};
use cumulet_host::net::{self, KernelNetwork, METADATA, NetConfig, RangesLock};
use cumulet_host::vm::{self, Acceleration, KeeperProgram, QemuConfig, QemuVms};
use cumulet_store::{CommitError, Store};
use serde::{Deserialize, Serialize};

use crate::config::{AccelerationSetting, Settings};
use crate::data_dir::{DataDir, write_durably};

/// Port of all doors at the gateway's address, inside the instances' network.
pub(crate) const PORT_INSIDE: u16 = 8773;
/// Port of the metadata service, at 169.254.169.254.
const METADATA_PORT: u16 = 80;
/// How long a kernel may take to prove that acceleration works.
const PROBE_BUDGET: Duration = Duration::from_secs(10);
/// A user id that no instance has: theirs follow from addresses that are given out.
const PROBE_UID: u32 = 0x1fff_ffff;

/// A host that is ready, with what the listeners need of it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) network: KernelNetwork,
}

/// Listeners inside the instances' network.
pub(crate) struct Inside {
    pub(crate) doors: std::net::TcpListener,
    pub(crate) metadata: std::net::TcpListener,
}

impl Machine {
    /// Blocking, for a moment.
    pub(crate) fn listen_inside(&self) -> anyhow::Result<Inside> {
        let gateway = self.host.profile.ground.gateway;
        Ok(Inside {
            doors: self
                .network
                .listen_inside(SocketAddr::from((gateway, PORT_INSIDE)))?,
            metadata: self
                .network
                .listen_inside(SocketAddr::from((METADATA, METADATA_PORT)))?,
        })
    }
}

/// Finds what the host offers, lays the network, adopts what runs.
pub(crate) async fn open(
    dir: &Arc<DataDir>,
    settings: &Settings,
    store: &Store<State>,
) -> anyhow::Result<Machine> {
    let place = {
        let (dir, settings, store) = (dir.clone(), settings.clone(), store.clone());
        move || place_network(&dir, &settings, &store)
    };
    let (network, ground, ranges) = tokio::task::spawn_blocking(place)
        .await
        .context("preparing the network ended badly")??;
    network
        .ensure_ground()
        .await
        .context("the instances' network cannot be laid")?;
    // Now it shows in the routes.
    drop(ranges);
    let (dir, settings, store) = (dir.clone(), settings.clone(), store.clone());
    let prepare = move || prepare(&dir, &settings, &store, network, ground);
    tokio::task::spawn_blocking(prepare)
        .await
        .context("preparing the host ended badly")?
}

/// Whether instances could be run, as far as that shows without making anything.
///
/// # Errors
/// What is missing, with the line that mends it; a range that cannot be used.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    let qemu = vm::find_qemu()
        .context("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")?;
    vm::default_machine(&qemu).context("QEMU cannot be used")?;
    for (name, package) in [
        ("nft", "nftables"),
        ("ip", "iproute2"),
        ("mke2fs", "e2fsprogs"),
    ] {
        if !has_tool(name) {
            bail!("{name} is missing: apt-get install {package}");
        }
    }
    if let Some(text) = &settings.network.guest_range {
        parse_range(text)?;
    }
    Ok(())
}

/// Where the network lies, recorded, and not laid yet.
fn place_network(
    dir: &DataDir,
    settings: &Settings,
    store: &Store<State>,
) -> anyhow::Result<(KernelNetwork, GroundPlan, RangesLock)> {
    let ranges = net::lock_ranges()?;
    let ground = ground(dir, settings, store)?;
    let network = KernelNetwork::new(NetConfig {
        is_private_uplink_allowed: settings.may_use_private_uplink(),
        doors_inside: vec![PORT_INSIDE],
        domain: format!("{}.compute.internal", settings.region),
        dns_upstreams: Some(net::host_resolvers()),
        ..NetConfig::new(dir.cloud_id(), ground.clone())
    })?;
    Ok((network, ground, ranges))
}

fn prepare(
    dir: &DataDir,
    settings: &Settings,
    store: &Store<State>,
    network: KernelNetwork,
    ground: GroundPlan,
) -> anyhow::Result<Machine> {
    let qemu = vm::find_qemu()
        .context("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")?;
    let machine = vm::default_machine(&qemu).context("QEMU cannot be used")?;
    // Kernels are imported by who has the lock, that is by this server, and it has just begun.
    KernelStore::open(dir.path())?.sweep()?;
    let acceleration = acceleration(dir, settings, store, &qemu)?;
    match &acceleration {
        Acceleration::Kvm { .. } => tracing::info!("instances are accelerated by KVM"),
        Acceleration::Emulated { reason } => {
            tracing::warn!(reason, "instances are emulated in software, which is slow");
        }
    }
    let profile = HostProfile {
        memory_mib: settings.memory_mib(crate::surroundings::memory_mib()),
        vcpus: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        acceleration: acceleration.name().to_owned(),
        machine,
        is_simulated: false,
        carries_rules_out: false,
        ground,
        notes: std::collections::BTreeMap::new(),
    };
    let vms = QemuVms::open(QemuConfig {
        data_directory: dir.path().to_path_buf(),
        keeper: KeeperProgram::default(),
        qemu,
        acceleration,
    })?;
    let host = Host {
        profile,
        vms: Arc::new(vms),
        disks: Arc::new(LocalDisks::open(dir.path())?),
        network: Arc::new(network.clone()),
    };
    Ok(Machine { host, network })
}

/// Disks alone, for an operator's command while no server runs.
pub(crate) fn disks(dir: &DataDir) -> anyhow::Result<LocalDisks> {
    Ok(LocalDisks::open(dir.path())?)
}

/// Where the network lies: as recorded, else a free place, which is recorded.
fn ground(dir: &DataDir, settings: &Settings, store: &Store<State>) -> anyhow::Result<GroundPlan> {
    if let Some(recorded) = &store.snapshot().ground {
        return Ok(GroundPlan::clone(recorded));
    }
    let preferred = settings
        .network
        .guest_range
        .as_deref()
        .map(parse_range)
        .transpose()?;
    let proposed = net::plan_ground(preferred, dir.cloud_id())
        .context("no range of addresses for instances was found; set network.guest_range")?;
    let commit = store.commit_blocking(move |state: &State| {
        Ok::<_, std::convert::Infallible>(plan_ground(state, proposed))
    });
    match commit {
        Ok(committed) => Ok(committed.answer),
        Err(CommitError::Refused(never)) => match never {},
        Err(CommitError::Store(cause)) => Err(cause).context("recording the network"),
    }
}

fn parse_range(text: &str) -> anyhow::Result<Ipv4Net> {
    let wrong = || {
        crate::config::ConfigError(format!(
            "network.guest_range has the form 10.210.0.0/16, not {text:?}"
        ))
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    if !(8..=24).contains(&prefix) {
        return Err(wrong().into());
    }
    Ok(Ipv4Net { address, prefix })
}

/// What a probe found, and for what it holds: until the machine boots again, the kernel or QEMU
/// changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probed {
    boot: String,
    kernel: String,
    qemu: String,
    /// Mode and owners of the device, or that there is none.
    device: String,
    /// Group for the device, when it was proven.
    kvm_gid: Option<u32>,
    reason: String,
}

fn device_text(device: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(device) {
        Ok(found) => format!("{:o} {}:{}", found.mode(), found.uid(), found.gid()),
        Err(cause) => cause.kind().to_string(),
    }
}

fn acceleration(
    dir: &DataDir,
    settings: &Settings,
    store: &Store<State>,
    qemu: &Path,
) -> anyhow::Result<Acceleration> {
    if settings.instances.acceleration == AccelerationSetting::Tcg {
        return Ok(Acceleration::Emulated {
            reason: "instances.acceleration says tcg".into(),
        });
    }
    let device = Path::new("/dev/kvm");
    let kernel = store.snapshot().default_kernel().cloned();
    let files = match &kernel {
        Some(kernel) => KernelStore::open(dir.path())?.find(kernel.id),
        None => None,
    };
    let (Some(kernel), Some((image, ramdisk))) = (kernel, files) else {
        let reason = "there is no kernel yet to prove acceleration with: type `cumulet kernel build` and start the server again";
        return Ok(Acceleration::Emulated {
            reason: reason.into(),
        });
    };
    let place = dir.join("acceleration.json");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let now = Probed {
        boot: boot.trim().to_owned(),
        kernel: kernel.id.to_string(),
        qemu: format!(
            "{} {:?}",
            qemu.display(),
            fs::metadata(qemu).and_then(|it| it.modified()).ok()
        ),
        device: device_text(device),
        kvm_gid: None,
        reason: String::new(),
    };
    let earlier: Option<Probed> = fs::read(&place)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(earlier) = earlier
        && (&earlier.boot, &earlier.kernel) == (&now.boot, &now.kernel)
        && (&earlier.qemu, &earlier.device) == (&now.qemu, &now.device)
    {
        return Ok(match earlier.kvm_gid {
            Some(gid) => Acceleration::Kvm { gid },
            None => Acceleration::Emulated {
                reason: earlier.reason,
            },
        });
    }
    let files = KernelFiles {
        kernel: image,
        ramdisk,
        version: kernel.version.clone(),
    };
    let found = vm::probe_acceleration(qemu, device, &files, PROBE_UID, PROBE_BUDGET);
    let probed = match &found {
        Acceleration::Kvm { gid } => Probed {
            kvm_gid: Some(*gid),
            ..now
        },
        Acceleration::Emulated { reason } => Probed {
            reason: reason.clone(),
            ..now
        },
    };
    write_durably(&place, &serde_json::to_vec(&probed)?, 0o600)?;
    Ok(found)
}

/// Ends all guests of the cloud and removes what it made on the host; disks and consoles are data
/// and stay.  Names what was removed.
pub(crate) async fn undo(dir: &DataDir) -> anyhow::Result<Vec<String>> {
    let mut removed = vec![];
    if dir.join("run").exists() {
        let vms = QemuVms::open(QemuConfig {
            data_directory: dir.path().to_path_buf(),
            keeper: KeeperProgram::default(),
            qemu: vm::find_qemu().unwrap_or_default(),
            acceleration: Acceleration::Emulated {
                reason: String::new(),
            },
        })?;
        for id in vms.vms().await? {
            vms.ensure_stopped(id, Stop::Now).await?;
            vms.ensure_removed(id).await?;
            removed.push(format!("virtual machine of {id}"));
        }
    }
    // Only root can have changed the network.
    if rustix::process::geteuid().is_root() {
        let id = dir.cloud_id().to_owned();
        let names = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<String>> {
            if !has_network_tools() {
                return Ok(vec![]);
            }
            let found = net::inventory(&id)?;
            let mut unrecorded = vec![];
            // Guests whose directory is lost run on; their place in the network tells of them.
            for address in net::guest_addresses(&id)? {
                if vm::kill_unrecorded(uid_of(address))? {
                    unrecorded.push(format!("at {address}, of which there was no record"));
                }
            }
            net::uninstall(&id)?;
            let named = [
                ("virtual machine ", unrecorded),
                ("namespace ", found.namespaces),
                ("link ", found.links),
                ("route ", found.routes),
                // These say what they are.
                ("", found.tables),
            ];
            let named = named.into_iter().flat_map(|(what, names)| {
                names.into_iter().map(move |name| format!("{what}{name}"))
            });
            Ok(named.collect())
        })
        .await
        .context("removing the network ended badly")??;
        removed.extend(names);
    }
    Ok(removed)
}

/// Without them no network was ever laid.
fn has_network_tools() -> bool {
    has_tool("ip") && has_tool("nft")
}

/// In the variable's directories, or in those where the host's modules look.
fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
    std::env::split_paths(&path)
        .chain(usual)
        .any(|it| it.join(name).is_file())
}

/// What the host's own modules find for `cumulet doctor`: what, whether it is well, text.
pub(crate) fn findings(settings: &Settings) -> Vec<(&'static str, bool, String)> {
    let mut found = vec![];
    // Nothing is made by asking.
    let is_there = settings.data_dir.join("kernels").is_dir();
    let store = is_there
        .then(|| KernelStore::open(&settings.data_dir).ok())
        .flatten();
    let files = store.and_then(|store| {
        let ids = store.list().ok()?;
        ids.iter().find_map(|id| store.find(*id))
    });
    match &files {
        Some(_) => found.push((
            "kernel",
            true,
            "a kernel and its ramdisk are there".to_owned(),
        )),
        None => found.push((
            "kernel",
            false,
            "there is none: type `cumulet kernel build`".to_owned(),
        )),
    }
    found.push(probe(settings, files));
    found
}

fn probe(
    settings: &Settings,
    files: Option<(std::path::PathBuf, std::path::PathBuf)>,
) -> (&'static str, bool, String) {
    const WHAT: &str = "acceleration";
    if settings.instances.acceleration == AccelerationSetting::Tcg {
        return (
            WHAT,
            true,
            "emulated in software, as instances.acceleration says".into(),
        );
    }
    let (Some((kernel, ramdisk)), Some(qemu)) = (files, vm::find_qemu()) else {
        return (
            WHAT,
            false,
            "it is proven by booting a kernel, of which there is none yet".into(),
        );
    };
    let files = KernelFiles {
        kernel,
        ramdisk,
        version: String::new(),
    };
    match vm::probe_acceleration(
        &qemu,
        Path::new("/dev/kvm"),
        &files,
        PROBE_UID,
        PROBE_BUDGET,
    ) {
        Acceleration::Kvm { .. } => (WHAT, true, "a kernel booted under KVM".into()),
        Acceleration::Emulated { reason } => (
            WHAT,
            false,
            format!("instances are emulated in software, which is slow: {reason}"),
        ),
    }
}
