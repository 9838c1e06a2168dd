//! What must be true when nothing happens any more: the host is what the records say.

use std::collections::BTreeSet;
use std::sync::Arc;

use cumulet_domain::images::{Image, ImageState, Preparation};
use cumulet_domain::instances::{Instance, Liveness, Vm, Want};
use cumulet_domain::{Digest, InstanceId};

use super::world::World;

impl World {
    /// Why the world is not at rest, or nothing.
    pub(crate) fn unrest(&self) -> Option<String> {
        for instance in self.state.instances.values() {
            let id = instance.id;
            match &instance.intent.want {
                Want::Running => {
                    let is_seen = matches!(instance.observed.vm, Vm::Running { .. });
                    if !is_seen || !self.is_running(id) {
                        return Some(format!("{id} is meant to run: {instance:?}"));
                    }
                    if !self.is_plugged(id) {
                        return Some(format!("{id} runs without its network"));
                    }
                    if instance.observed.reboots != instance.intent.reboots {
                        return Some(format!("{id} is not rebooted: {instance:?}"));
                    }
                    if self.missed_reboot(instance) {
                        return Some(format!("a reboot of {id} was promised and never happened"));
                    }
                }
                Want::Terminated { .. } => {
                    if !instance.observed.is_removed {
                        return Some(format!("{id} is meant to end: {instance:?}"));
                    }
                }
            }
        }
        for image in self.state.images.values() {
            if self.is_awaited(image) {
                return Some(format!("{} is not prepared: {image:?}", image.id));
            }
        }
        self.difference()
    }

    /// Whether an image must still become ready: it may be launched, or was and an instance waits.
    fn is_awaited(&self, image: &Image) -> bool {
        let waits = |it: &Arc<Instance>| it.image == image.id && it.liveness() == Liveness::Alive;
        let is_open = matches!(image.preparation, Preparation::Pending { .. });
        let is_available = image.state == ImageState::Available;
        is_open && (is_available || self.state.instances.values().any(waits))
    }

    /// What the host has and no record wants, or the other way round.
    fn difference(&self) -> Option<String> {
        let alive: BTreeSet<InstanceId> = self
            .state
            .instances
            .values()
            .filter(|it| it.liveness() == Liveness::Alive)
            .map(|it| it.id)
            .collect();
        let vms: BTreeSet<InstanceId> = self.vms.keys().copied().collect();
        let ports: BTreeSet<InstanceId> = self.ports.keys().copied().collect();
        for (what, found) in [
            ("machines", &vms),
            ("ports", &ports),
            ("disks", &self.disks),
        ] {
            if *found != alive {
                return Some(format!(
                    "the host's {what} are {found:?}, alive are {alive:?}"
                ));
            }
        }
        if let Some(id) = self.ghosts.first() {
            return Some(format!("{id} runs on unseen"));
        }
        let known: BTreeSet<InstanceId> = self.state.instances.keys().copied().collect();
        if let Some(id) = self.consoles.iter().find(|id| !known.contains(id)) {
            return Some(format!("the console of {id} is left"));
        }
        let images: BTreeSet<Digest> = self
            .state
            .images
            .values()
            .filter_map(|image| match image.preparation {
                Preparation::Ready { digest, .. } => Some(digest),
                Preparation::Pending { .. } | Preparation::Failed { .. } => None,
            })
            .collect();
        // A mark that is left would make a loss of records a loss of bytes.
        if let Some((digest, _)) = self.images.iter().find(|(_, is_recorded)| !**is_recorded) {
            return Some(format!("the bytes {digest} are marked as unrecorded"));
        }
        let found: BTreeSet<Digest> = self.images.keys().copied().collect();
        (images != found).then(|| format!("the host's images are {found:?}, known are {images:?}"))
    }
}
