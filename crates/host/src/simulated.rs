//! A host that pretends, for tests of API clients.
//!
//! Asked for by name (`--compute simulated`) and visible to users in every
//! instance's state reason and console.  Machines start at once, consoles say
//! that nothing runs, images are read and their digests compared but not
//! unpacked.  Nothing of the machine is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use cumulet_domain::{Digest, InstanceId, Timestamp};

use crate::api::{
    Console, DiskSpec, Disks, Exit, ExitCause, GroundPlan, Host, HostError, HostProfile, ImageKind,
    ImageSource, Network, Port, Progress, Result, Stop, StoredImage, VmSpec, VmState, Vms,
};
use crate::inventory::Inventory;

/// What every simulated console says.
pub const CONSOLE_TEXT: &str =
    "This cloud runs with --compute simulated: no machine was started.\r\n";

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Shared by the three traits.
struct Shared {
    world: Mutex<World>,
    now: Now,
}

#[derive(Default)]
struct World {
    vms: BTreeMap<InstanceId, VmState>,
    consoles: BTreeMap<InstanceId, Timestamp>,
    ports: BTreeSet<InstanceId>,
    disks: BTreeSet<InstanceId>,
    images: BTreeSet<Digest>,
    unrecorded: BTreeSet<Digest>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // Nothing panics while the lock is held.
        self.world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A simulated host with room for `memory_mib`.
pub fn host(memory_mib: u64, now: Now) -> Host {
    let shared = Arc::new(Simulated(Arc::new(Shared {
        world: Mutex::default(),
        now,
    })));
    Host {
        profile: HostProfile {
            memory_mib,
            vcpus: 1,
            acceleration: "simulated".into(),
            machine: "simulated".into(),
            is_simulated: true,
            carries_rules_out: true,
            ground: GroundPlan {
                guest_network: Ipv4Addr::new(10, 192, 0, 0),
                guest_prefix: 12,
                gateway: Ipv4Addr::new(10, 192, 0, 1),
                uplink_host: Ipv4Addr::new(10, 191, 255, 253),
                uplink_inside: Ipv4Addr::new(10, 191, 255, 254),
            },
            notes: BTreeMap::new(),
        },
        vms: shared.clone(),
        disks: shared.clone(),
        network: shared,
    }
}

struct Simulated(Arc<Shared>);

#[async_trait]
impl Vms for Simulated {
    async fn ensure_started(&self, spec: &VmSpec, _tap: OwnedFd) -> Result<()> {
        let now = (self.0.now)();
        let mut world = self.0.world();
        world.consoles.entry(spec.instance).or_insert(now);
        let state = world
            .vms
            .entry(spec.instance)
            .or_insert(VmState::Running { since: now });
        if matches!(state, VmState::Absent { .. }) {
            *state = VmState::Running { since: now };
        }
        Ok(())
    }

    async fn observe(&self, instance: InstanceId) -> Result<VmState> {
        Ok(self
            .0
            .world()
            .vms
            .get(&instance)
            .cloned()
            .unwrap_or(VmState::Absent { exit: None }))
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn reboot(&self, _instance: InstanceId, _patience_ms: u64) -> Result<()> {
        Ok(())
    }

    async fn ensure_stopped(&self, instance: InstanceId, _how: Stop) -> Result<()> {
        let at = (self.0.now)();
        if let Some(state) = self.0.world().vms.get_mut(&instance)
            && matches!(state, VmState::Running { .. })
        {
            *state = VmState::Absent {
                exit: Some(Exit {
                    at,
                    cause: ExitCause::Requested,
                }),
            };
        }
        Ok(())
    }

    async fn ensure_removed(&self, instance: InstanceId) -> Result<()> {
        self.0.world().vms.remove(&instance);
        Ok(())
    }

    async fn console(&self, instance: InstanceId) -> Result<Option<Console>> {
        let updated = self.0.world().consoles.get(&instance).copied();
        Ok(updated.map(|updated| Console {
            bytes: CONSOLE_TEXT.as_bytes().to_vec(),
            updated,
        }))
    }

    async fn forget_console(&self, instance: InstanceId) -> Result<()> {
        self.0.world().consoles.remove(&instance);
        Ok(())
    }

    async fn vms(&self) -> Result<Vec<InstanceId>> {
        Ok(self.0.world().vms.keys().copied().collect())
    }
}

#[async_trait]
impl Disks for Simulated {
    async fn store_image(
        &self,
        source: ImageSource,
        size_max_bytes: u64,
        progress: Progress,
    ) -> Result<StoredImage> {
        let read =
            tokio::task::spawn_blocking(move || read_image(source, size_max_bytes, &progress))
                .await;
        let stored = read.map_err(|cause| HostError::new("reading an image", cause))??;
        let mut world = self.0.world();
        if world.images.insert(stored.digest) {
            world.unrecorded.insert(stored.digest);
        }
        Ok(stored)
    }

    async fn has_image(&self, image: Digest) -> Result<bool> {
        Ok(self.0.world().images.contains(&image))
    }

    async fn images(&self) -> Result<Vec<Digest>> {
        Ok(self.0.world().images.iter().copied().collect())
    }

    async fn ensure_image_absent(&self, image: Digest) -> Result<()> {
        let mut world = self.0.world();
        world.images.remove(&image);
        world.unrecorded.remove(&image);
        Ok(())
    }

    async fn unrecorded_images(&self) -> Result<Vec<Digest>> {
        Ok(self.0.world().unrecorded.iter().copied().collect())
    }

    async fn mark_image_recorded(&self, image: Digest) -> Result<()> {
        self.0.world().unrecorded.remove(&image);
        Ok(())
    }

    async fn ensure_disk(&self, spec: &DiskSpec) -> Result<()> {
        self.0.world().disks.insert(spec.instance);
        Ok(())
    }

    async fn ensure_disk_absent(&self, instance: InstanceId) -> Result<()> {
        self.0.world().disks.remove(&instance);
        Ok(())
    }

    async fn disks(&self) -> Result<Vec<InstanceId>> {
        Ok(self.0.world().disks.iter().copied().collect())
    }

    async fn inventory(&self) -> Result<Inventory> {
        let world = self.0.world();
        Ok(Inventory {
            run: world.vms.keys().copied().collect(),
            consoles: world.consoles.keys().copied().collect(),
            overlays: world.disks.iter().copied().collect(),
            images: world.images.iter().copied().collect(),
            ..Inventory::default()
        })
    }
}

#[async_trait]
impl Network for Simulated {
    async fn ensure_ground(&self) -> Result<()> {
        Ok(())
    }

    async fn remove_ground(&self) -> Result<()> {
        Ok(())
    }

    async fn ensure_port(&self, port: &Port) -> Result<()> {
        self.0.world().ports.insert(port.instance);
        Ok(())
    }

    async fn ensure_port_absent(&self, instance: InstanceId) -> Result<()> {
        self.0.world().ports.remove(&instance);
        Ok(())
    }

    /// There is no tap; the null device stands for it, since no guest will write to it.
    async fn open_tap(&self, _instance: InstanceId) -> Result<OwnedFd> {
        let null = std::fs::File::open("/dev/null")
            .map_err(|cause| HostError::new("opening /dev/null", cause))?;
        Ok(null.into())
    }

    async fn ports(&self) -> Result<Vec<InstanceId>> {
        Ok(self.0.world().ports.iter().copied().collect())
    }

    /// A guest that is only simulated answers as soon as it has a port: clients that wait for the
    /// checks of a launch are what simulation is for.
    async fn is_reachable(&self, instance: InstanceId, _patience_ms: u64) -> Result<bool> {
        Ok(self.0.world().ports.contains(&instance))
    }
}

const DAMAGED: &str = "The image's bundle is damaged";

/// Reads all of an image, compares the digests of its parts, and names it by its bytes.
fn read_image(
    source: ImageSource,
    size_max_bytes: u64,
    progress: &Progress,
) -> Result<StoredImage> {
    let mut whole = Sha::new(&aws_lc_rs::digest::SHA256);
    let mut size_bytes = 0u64;
    match source {
        ImageSource::Bundle {
            parts,
            size_bytes: promised,
            ..
        } => {
            if promised > size_max_bytes {
                return Err(HostError::permanent(
                    "reading an image",
                    "too large",
                    "The image is larger than allowed",
                ));
            }
            let count = parts.len().max(1);
            for (index, part) in parts.into_iter().enumerate() {
                let mut digest = Sha::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
                let reader = (part.open)().map_err(part_missing)?;
                copy(reader, &mut [&mut digest, &mut whole])?;
                if digest.finish() != part.sha1 {
                    return Err(HostError::permanent(
                        "reading an image",
                        "a part's digest differs",
                        DAMAGED,
                    ));
                }
                progress(u8::try_from(index * 100 / count).unwrap_or(99));
            }
            size_bytes = promised;
        }
        ImageSource::File { file, .. } => size_bytes += copy(Box::new(file), &mut [&mut whole])?,
    }
    let digest: [u8; 32] = whole.finish().try_into().expect("SHA-256 has 32 bytes");
    Ok(StoredImage {
        digest: Digest(digest),
        size_bytes,
        kind: ImageKind::Rootfs,
    })
}

fn part_missing(cause: std::io::Error) -> HostError {
    match cause.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            HostError::permanent(
                "reading a part",
                cause,
                "A part of the image's bundle cannot be read",
            )
        }
        _ => HostError::new("reading a part", cause),
    }
}

struct Sha(aws_lc_rs::digest::Context);

impl Sha {
    fn new(algorithm: &'static aws_lc_rs::digest::Algorithm) -> Self {
        Self(aws_lc_rs::digest::Context::new(algorithm))
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

fn copy(mut reader: Box<dyn Read + Send>, digests: &mut [&mut Sha]) -> Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0u64;
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|cause| HostError::new("reading an image", cause))?;
        if read == 0 {
            return Ok(total);
        }
        let (bytes, _) = buffer.split_at(read);
        digests.iter_mut().for_each(|digest| digest.0.update(bytes));
        total += read as u64;
    }
}
