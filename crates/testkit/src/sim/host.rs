//! The host's traits over the world: each call may be slow, fail, or be carried
//! out without its answer coming back, and each is checked against the records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cumulet_domain::images::{ImageState, Preparation};
use cumulet_domain::instances::{Liveness, mac_of};
use cumulet_domain::{Digest, ImageId, InstanceId};
use cumulet_host::api::{
    Console, DiskSpec, Disks, Exit, ExitCause, GroundPlan, Host, HostError, HostProfile, ImageKind,
    ImageSource, Mac, Network, Port, Progress, Result, Stop as Ending, StoredImage, VmSpec,
    VmState, Vms,
};
use cumulet_host::inventory::Inventory;

use super::world::{Hold, Shared, SimPort, SimVm, Stop, World};

/// Different bytes that images have: few, so that they share them.
pub(crate) const DIGESTS: u64 = 3;
/// What guests may have together.
pub(crate) const MEMORY_MIB: u64 = 20 * 512;
/// Where guests' addresses begin; the gateway is in the first block.
pub(crate) const GUEST_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 0);

pub(crate) fn host(shared: &Arc<Shared>) -> Host {
    let host = Arc::new(SimHost(shared.clone()));
    Host {
        profile: HostProfile {
            memory_mib: MEMORY_MIB,
            vcpus: 4,
            acceleration: "dice".into(),
            machine: "dice".into(),
            is_simulated: false,
            carries_rules_out: true,
            ground: GroundPlan {
                guest_network: GUEST_NETWORK,
                guest_prefix: 22,
                gateway: Ipv4Addr::new(10, 192, 0, 1),
                uplink_host: Ipv4Addr::new(10, 191, 255, 253),
                uplink_inside: Ipv4Addr::new(10, 191, 255, 254),
            },
            notes: BTreeMap::new(),
        },
        vms: host.clone(),
        disks: host.clone(),
        network: host,
    }
}

struct SimHost(Arc<Shared>);

enum Fault {
    None,
    Before { is_retryable: bool },
    AnswerLost,
}

fn failed(what: &str, is_retryable: bool) -> HostError {
    if is_retryable {
        HostError::new(what, "by the dice")
    } else {
        HostError::permanent(what, "by the dice", "The simulated host refused")
    }
}

impl SimHost {
    /// Counts the call, draws its fate, waits, and lets `effect` happen to the world.
    async fn call<T>(
        &self,
        what: &str,
        id: Option<InstanceId>,
        mut effect: impl FnMut(&mut World) -> Result<T> + Send,
    ) -> Result<T> {
        let (number, fault, before_ms, after_ms) = self.draw(what, id).await;
        if self.stops_at(Stop::BeforeCall(number)) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(before_ms)).await;
        if let Fault::Before { is_retryable } = fault {
            return Err(failed(what, is_retryable));
        }
        self.hold(|held| matches!(held, Hold::Before(name) if name == what))
            .await;
        let result = self.take_effect(&mut effect).await;
        self.hold(|held| matches!(held, Hold::After(name) if name == what))
            .await;
        if self.stops_at(Stop::AfterCall(number)) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        if matches!(fault, Fault::AnswerLost) {
            return Err(failed(what, true));
        }
        result
    }

    /// Waits where a race is played.
    async fn hold(&self, is_here: impl Fn(Hold) -> bool) {
        let is_held = {
            let mut world = self.0.lock();
            world.hold.take_if(|held| is_here(*held)).is_some()
        };
        if is_held {
            self.0.held.notify_one();
            self.0.released.notified().await;
        }
    }

    async fn take_effect<T>(
        &self,
        effect: &mut (impl FnMut(&mut World) -> Result<T> + Send),
    ) -> Result<T> {
        if self.0.lock().is_down {
            std::future::pending::<()>().await;
        }
        let mut world = self.0.lock();
        if world.is_twice {
            effect(&mut world)?;
        }
        effect(&mut world)
    }

    async fn draw(&self, what: &str, id: Option<InstanceId>) -> (u64, Fault, u64, u64) {
        if self.0.lock().is_down {
            std::future::pending::<()>().await;
        }
        let mut world = self.0.lock();
        world.calls += 1;
        let number = world.calls;
        let faults = world.faults;
        let scale = if world.rng.percent(faults.slow) {
            20_000
        } else {
            40
        };
        let (before_ms, after_ms) = (world.rng.below(scale), world.rng.below(scale));
        let fault = if world.rng.percent(faults.fails) {
            Fault::Before { is_retryable: true }
        } else if world.rng.percent(faults.fails_for_good) {
            Fault::Before {
                is_retryable: false,
            }
        } else if world.stop == Some(Stop::LoseAnswer(number)) {
            world.stop = None;
            Fault::AnswerLost
        } else if world.rng.percent(faults.answer_lost) {
            Fault::AnswerLost
        } else {
            Fault::None
        };
        let name = id.map_or(String::new(), |id| id.to_string());
        let fate = match fault {
            Fault::None => "",
            Fault::Before { is_retryable: true } => " FAILS",
            Fault::Before { .. } => " FAILS FOR GOOD",
            Fault::AnswerLost => " ANSWER LOST",
        };
        if !matches!(fault, Fault::None)
            && let Some(id) = id
        {
            world.made.excused.insert(id);
        }
        // Looking around changes nothing and would fill the log.
        if fate.is_empty()
            && matches!(
                what,
                "observe" | "ensure port" | "is plugged" | "is out of room"
            )
        {
            world.mark(what.as_bytes());
            world.mark(name.as_bytes());
        } else {
            world.note(format!("call {number}: {what} {name}{fate}"));
        }
        (number, fault, before_ms, after_ms)
    }

    fn stops_at(&self, stop: Stop) -> bool {
        let mut world = self.0.lock();
        let is_here = world.stop == Some(stop);
        if is_here {
            world.stop = None;
            self.0.take_down(&mut world, &format!("{stop:?}"));
        }
        is_here
    }
}

/// What is made for an instance must be in its durable record first.
fn check_allocated(world: &mut World, what: &str, id: InstanceId) {
    let is_recorded = world
        .state
        .instances
        .get(&id)
        .is_some_and(|it| it.liveness() == Liveness::Alive);
    if !is_recorded {
        world.breach(format!("{what} for {id}, which no record says is alive"));
    }
}

/// What runs is stopped only when it is to end, or when its network was taken from under it.
fn check_stopped(world: &mut World, id: InstanceId) {
    if !world.is_to_end(id) && world.is_running(id) && world.is_plugged(id) {
        world.breach(format!(
            "{id} is stopped, and its record does not say that it ends"
        ));
    }
}

/// What is removed must be known to be unwanted.
fn check_unwanted(world: &mut World, what: &str, id: InstanceId) {
    if world.ghosts.contains(&id) {
        world.breach(format!("{what} of {id}, which runs on unseen"));
    }
    if !world.is_to_end(id) {
        world.breach(format!(
            "{what} of {id}, whose record does not say that it ends"
        ));
    }
}

/// What the host cannot remove, however often it is asked.
fn check_stubborn(world: &World, thing: impl ToString) -> Result<()> {
    let thing = thing.to_string();
    match world.stubborn.contains(&thing) {
        true => Err(failed("removing what does not go", true)),
        false => Ok(()),
    }
}

/// Bytes go only when nothing that can be used names them.
fn check_unnamed(world: &mut World, digest: Digest) {
    let alive: BTreeSet<ImageId> = world
        .state
        .instances
        .values()
        .filter(|it| it.liveness() == Liveness::Alive)
        .map(|it| it.image)
        .collect();
    let named = world.state.images.values().find(|image| {
        let has_them =
            matches!(image.preparation, Preparation::Ready { digest: theirs, .. } if theirs == digest);
        has_them && (image.state == ImageState::Available || alive.contains(&image.id))
    });
    if let Some(id) = named.map(|image| image.id) {
        world.breach(format!("the bytes of {id} are removed"));
    }
}

fn start(world: &mut World, spec: &VmSpec) -> Result<()> {
    let id = spec.instance;
    check_allocated(world, "a machine is started", id);
    if world.is_running(id) {
        return Ok(());
    }
    if let Some(record) = world.state.instances.get(&id).cloned() {
        let is_as_recorded = spec.uid == record.uid
            && spec.mac == Mac(mac_of(record.address))
            && spec.memory_mib == record.memory_mib;
        if !is_as_recorded {
            world.breach(format!("{id} is started otherwise than its record says"));
        }
    }
    let exit = world.vms.get(&id).map(|vm| vm.state.clone());
    if let Some(VmState::Absent {
        exit: Some(Exit {
            cause: ExitCause::GuestShutdown,
            ..
        }),
    }) = exit
    {
        world.breach(format!("{id} is started again after its guest shut down"));
    }
    if world.ghosts.contains(&id) {
        return Err(failed("starting a machine whose disk is in use", true));
    }
    if !world.disks.contains(&id) || !world.ports.contains_key(&id) {
        return Err(HostError::new(
            "starting a machine",
            "its disk or port is gone",
        ));
    }
    let running: Vec<(InstanceId, u32, u64)> = world
        .vms
        .iter()
        .filter(|(other, vm)| **other != id && matches!(vm.state, VmState::Running { .. }))
        .map(|(other, vm)| (*other, vm.uid, vm.memory_mib))
        .collect();
    if let Some((other, ..)) = running.iter().find(|(_, uid, _)| *uid == spec.uid) {
        world.breach(format!("{id} and {other} run with the same user id"));
    }
    if running.iter().map(|(_, _, memory)| memory).sum::<u64>() + spec.memory_mib > MEMORY_MIB {
        world.breach(format!("{id} is started and there is no memory for it"));
    }
    let booted = world.event();
    let since = world.now();
    let plug = world.ports.get(&id).map_or(0, |port| port.made);
    world.consoles.insert(id);
    world.vms.insert(
        id,
        SimVm {
            state: VmState::Running { since },
            uid: spec.uid,
            memory_mib: spec.memory_mib,
            plug,
            booted,
        },
    );
    Ok(())
}

#[async_trait]
impl Vms for SimHost {
    async fn ensure_started(&self, spec: &VmSpec, _tap: OwnedFd) -> Result<()> {
        self.call("start", Some(spec.instance), |world| start(world, spec))
            .await
    }

    async fn observe(&self, instance: InstanceId) -> Result<VmState> {
        self.call("observe", Some(instance), |world| {
            let found = world.vms.get(&instance).map(|vm| vm.state.clone());
            Ok(found.unwrap_or(VmState::Absent { exit: None }))
        })
        .await
    }

    async fn changed(&self) {
        self.0.vm_changed.notified().await;
    }

    async fn reboot(&self, instance: InstanceId, _patience_ms: u64) -> Result<()> {
        self.call("reboot", Some(instance), |world| {
            let booted = world.event();
            if world.is_running(instance)
                && let Some(vm) = world.vms.get_mut(&instance)
            {
                vm.booted = booted;
            }
            Ok(())
        })
        .await
    }

    async fn ensure_stopped(&self, instance: InstanceId, _how: Ending) -> Result<()> {
        self.call("stop", Some(instance), |world| {
            check_stopped(world, instance);
            world.ghosts.remove(&instance);
            let at = world.now();
            if world.is_running(instance)
                && let Some(vm) = world.vms.get_mut(&instance)
            {
                vm.state = VmState::Absent {
                    exit: Some(Exit {
                        at,
                        cause: ExitCause::Requested,
                    }),
                };
            }
            Ok(())
        })
        .await
    }

    async fn ensure_removed(&self, instance: InstanceId) -> Result<()> {
        self.call("remove", Some(instance), |world| {
            check_unwanted(world, "the machine is removed", instance);
            if world.is_running(instance) {
                world.breach(format!("{instance} is removed while it runs"));
            }
            world.vms.remove(&instance);
            Ok(())
        })
        .await
    }

    async fn console(&self, instance: InstanceId) -> Result<Option<Console>> {
        self.call("console", None, |world| {
            let updated = world.now();
            Ok(world.consoles.contains(&instance).then(|| Console {
                bytes: b"a console\r\n".to_vec(),
                updated,
            }))
        })
        .await
    }

    async fn is_out_of_room(&self, instance: InstanceId) -> Result<bool> {
        self.call("is out of room", Some(instance), |_world| Ok(false))
            .await
    }

    async fn forget_console(&self, instance: InstanceId) -> Result<()> {
        self.call("forget console", Some(instance), |world| {
            check_stubborn(world, instance)?;
            world.consoles.remove(&instance);
            Ok(())
        })
        .await
    }

    async fn vms(&self) -> Result<Vec<InstanceId>> {
        self.call("list machines", None, |world| {
            Ok(world.vms.keys().copied().collect())
        })
        .await
    }
}

#[async_trait]
impl Disks for SimHost {
    async fn store_image(
        &self,
        source: ImageSource,
        _size_max_bytes: u64,
        progress: Progress,
    ) -> Result<StoredImage> {
        let (digest, size_bytes) = match &source {
            ImageSource::Bundle {
                sha1, size_bytes, ..
            } => {
                let mut digest = [0; 32];
                digest[..20].copy_from_slice(sha1);
                (Digest(digest), *size_bytes)
            }
            // What a file holds is for the dice to say.
            ImageSource::File { .. } => {
                let mut digest = [0; 32];
                let mut world = self.0.lock();
                let drawn = u8::try_from(world.rng.below(DIGESTS)).unwrap_or(0);
                digest[19] = world.file_digest.unwrap_or(drawn);
                (Digest(digest), 1 << 20)
            }
        };
        for percent in [30, 60, 90] {
            self.call("unpack", None, |_world| Ok(())).await?;
            progress(percent);
        }
        self.call("store image", None, |world| {
            world.images.entry(digest).or_insert(false);
            Ok(StoredImage {
                digest,
                size_bytes,
                kind: ImageKind::Disk,
            })
        })
        .await
    }

    async fn has_image(&self, image: Digest) -> Result<bool> {
        self.call("has image", None, |world| {
            Ok(world.images.contains_key(&image))
        })
        .await
    }

    async fn images(&self) -> Result<Vec<Digest>> {
        self.call("list images", None, |world| {
            Ok(world.images.keys().copied().collect())
        })
        .await
    }

    async fn ensure_image_absent(&self, image: Digest) -> Result<()> {
        self.call("remove image", None, |world| {
            check_unnamed(world, image);
            check_stubborn(world, image)?;
            world.images.remove(&image);
            Ok(())
        })
        .await
    }

    async fn unrecorded_images(&self) -> Result<Vec<Digest>> {
        self.call("list unrecorded images", None, |world| {
            let unrecorded = world
                .images
                .iter()
                .filter(|(_, is_recorded)| !**is_recorded);
            Ok(unrecorded.map(|(digest, _)| *digest).collect())
        })
        .await
    }

    async fn mark_image_recorded(&self, image: Digest) -> Result<()> {
        self.call("mark image", None, |world| {
            if let Some(is_recorded) = world.images.get_mut(&image) {
                *is_recorded = true;
            }
            Ok(())
        })
        .await
    }

    async fn inventory(&self) -> Result<Inventory> {
        self.call("inventory", None, |world| {
            Ok(Inventory {
                run: world.vms.keys().copied().collect(),
                consoles: world.consoles.iter().copied().collect(),
                overlays: world.disks.iter().copied().collect(),
                images: world.images.keys().copied().collect(),
                ..Inventory::default()
            })
        })
        .await
    }

    async fn ensure_disk(&self, spec: &DiskSpec) -> Result<()> {
        let id = spec.instance;
        self.call("ensure disk", Some(id), |world| {
            check_allocated(world, "a disk is made", id);
            if world.disks.contains(&id) {
                return Ok(());
            }
            if !world.images.contains_key(&spec.image) {
                world.breach(format!("the bytes of the image of {id} are gone"));
                return Err(failed("making a disk: the image is gone", false));
            }
            if !world.made.disks.insert(id) && !world.made.disks_lost.remove(&id) {
                world.breach(format!("{id} gets an empty disk in place of its own"));
            }
            world.disks.insert(id);
            Ok(())
        })
        .await
    }

    async fn ensure_disk_absent(&self, instance: InstanceId) -> Result<()> {
        self.call("remove disk", Some(instance), |world| {
            check_unwanted(world, "the disk is removed", instance);
            if world.is_running(instance) {
                world.breach(format!("the disk of {instance} is removed while it runs"));
            }
            world.disks.remove(&instance);
            Ok(())
        })
        .await
    }

    async fn disks(&self) -> Result<Vec<InstanceId>> {
        self.call("list disks", None, |world| {
            Ok(world.disks.iter().copied().collect())
        })
        .await
    }
}

#[async_trait]
impl Network for SimHost {
    async fn ensure_ground(&self) -> Result<()> {
        Ok(())
    }

    async fn remove_ground(&self) -> Result<()> {
        Ok(())
    }

    async fn ensure_port(&self, port: &Port) -> Result<()> {
        let id = port.instance;
        self.call("ensure port", Some(id), |world| {
            check_allocated(world, "a port is made", id);
            let twin = world
                .ports
                .values()
                .find(|other| other.port.instance != id && other.port.address == port.address)
                .map(|other| other.port.instance);
            if let Some(twin) = twin {
                world.breach(format!("{id} and {twin} have the address {}", port.address));
            }
            let made = match world.ports.get(&id) {
                Some(known) => known.made,
                None => world.event(),
            };
            let port = port.clone();
            world.ports.insert(id, SimPort { port, made });
            Ok(())
        })
        .await
    }

    async fn ensure_port_absent(&self, instance: InstanceId) -> Result<()> {
        self.call("remove port", Some(instance), |world| {
            check_unwanted(world, "the port is removed", instance);
            if world.is_running(instance) {
                world.breach(format!("the port of {instance} is removed while it runs"));
            }
            world.ports.remove(&instance);
            Ok(())
        })
        .await
    }

    async fn is_plugged(&self, instance: InstanceId) -> Result<bool> {
        self.call("is plugged", Some(instance), |world| {
            if !world.ports.contains_key(&instance) {
                return Err(failed("looking at a port that is not there", true));
            }
            Ok(world.is_plugged(instance))
        })
        .await
    }

    async fn open_tap(&self, instance: InstanceId) -> Result<OwnedFd> {
        self.call("open tap", Some(instance), |world| {
            if !world.ports.contains_key(&instance) {
                return Err(failed("opening a tap that is not there", true));
            }
            let null = std::fs::File::open("/dev/null");
            let null = null.map_err(|cause| HostError::new("opening /dev/null", cause))?;
            Ok(OwnedFd::from(null))
        })
        .await
    }

    async fn ports(&self) -> Result<Vec<InstanceId>> {
        self.call("list ports", None, |world| {
            Ok(world.ports.keys().copied().collect())
        })
        .await
    }

    async fn is_reachable(&self, instance: InstanceId, _patience_ms: u64) -> Result<bool> {
        self.call("probe", None, |world| Ok(world.is_running(instance)))
            .await
    }
}
