//! The root disks of instances that are alive, as volumes.
//!
//! A disk has no record: it begins with its instance, is as big as the image
//! and the instance's type make it, and goes when the instance does.  Its id
//! has the digits of the instance's (`docs/decisions/0011-root-disks.md`).

use cumulet_domain::disks;
use cumulet_domain::images::Image;
use cumulet_domain::instances::{Instance, Liveness};
use cumulet_domain::{Error, InstanceId, Resource, Timestamp, VolumeId};

use crate::state::State;
use crate::{Caller, Engine};

/// The root disk of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    pub id: VolumeId,
    pub instance: InstanceId,
    /// Size of the disk that the guest sees, rounded up.
    pub size_gib: u64,
    pub created: Timestamp,
    /// Whether the instance has ever run with it; it is still being made otherwise.
    pub is_made: bool,
}

impl Volume {
    /// The disk of an instance of this image; `None` while there is no disk, since the image is not
    /// ready yet, or since the instance is gone.
    pub fn of(instance: &Instance, image: &Image) -> Option<Self> {
        let size_gib = disks::size_gib(&image.preparation, instance.disk_sizes())?;
        if instance.liveness() == Liveness::Gone {
            return None;
        }
        Some(Self {
            id: VolumeId::of(instance.id),
            instance: instance.id,
            size_gib,
            created: instance.launched,
            is_made: instance.observed.has_run,
        })
    }
}

impl State {
    /// The root disk of an instance, if it has one.
    pub fn root_volume(&self, instance: &Instance) -> Option<Volume> {
        Volume::of(instance, self.images.get(&instance.image)?)
    }
}

impl Engine {
    /// The named volumes, each once and in the order of their ids.
    ///
    /// # Errors
    /// `NotFound` naming all that do not exist or are not the caller's.
    pub fn describe_volumes(
        &self,
        caller: &Caller,
        ids: &[VolumeId],
    ) -> Result<Vec<Volume>, Error> {
        let state = self.snapshot();
        let owner_of = |id: &VolumeId| InstanceId::of_parts(id.parts());
        let has_disk = |id: &&VolumeId| {
            let instance = state.instances.get(&owner_of(id));
            instance.is_some_and(|it| it.owner == caller.account && state.root_volume(it).is_some())
        };
        let missing = ids.iter().filter(|id| !has_disk(id));
        let missing: Vec<String> = missing.map(ToString::to_string).collect();
        if !missing.is_empty() {
            return Err(Error::not_found_all(Resource::Volume, missing));
        }
        let wanted = ids.iter().map(|id| (owner_of(id), id.to_string()));
        let live = state.live_with(caller.account, wanted.collect(), Resource::Volume)?;
        Ok(live.iter().filter_map(|it| state.root_volume(it)).collect())
    }

    /// The caller's volumes, in the order of their ids and from after `after` on.
    pub fn volumes(
        &self,
        caller: &Caller,
        after: Option<VolumeId>,
    ) -> impl Iterator<Item = Volume> {
        let state = self.snapshot();
        let after = after.map(|id| InstanceId::of_parts(id.parts()));
        self.live_instances(caller, after)
            .filter_map(move |it| state.root_volume(&it))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use cumulet_domain::images::{Architecture, BootKind, ImageState, Preparation};
    use cumulet_domain::instances::{Intent, MetadataOptions, Observed, Want};
    use cumulet_domain::{AccountId, Digest, ImageId, ReservationId};

    use super::*;

    pub(crate) fn image(size_bytes: u64, kind: BootKind) -> Image {
        let owner = AccountId::from_random(1);
        Image {
            id: ImageId::from_random(1),
            owner,
            location: "b/k".into(),
            created: Timestamp(1),
            state: ImageState::Available,
            name: None,
            description: None,
            architecture: Architecture::X86_64,
            is_public: false,
            launch_accounts: std::iter::empty().collect(),
            product_codes: vec![],
            preparation: Preparation::Ready {
                digest: Digest([0; 32]),
                size_bytes,
                kind,
            },
        }
    }

    pub(crate) fn instance() -> Instance {
        Instance {
            id: "i-2ba64342".parse().unwrap(),
            reservation: ReservationId::from_random(1),
            owner: AccountId::from_random(1),
            image: ImageId::from_random(1),
            launch_index: 0,
            launched: Timestamp(7),
            instance_type: "m1.small".into(),
            vcpus: 1,
            memory_mib: 1,
            ephemeral_mib: 1024,
            swap_mib: 512,
            disk_mib: 8 * 1024,
            key: None,
            product_codes: vec![],
            kernel: None,
            machine: "q35".into(),
            address: std::net::Ipv4Addr::new(10, 0, 0, 4),
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

    #[test]
    fn a_disk_has_the_digits_of_its_instance() {
        let volume = Volume::of(&instance(), &image(1, BootKind::Rootfs)).unwrap();
        assert_eq!(volume.id.to_string(), "vol-2ba64342");
        assert_eq!(volume.size_gib, 2);
    }

    #[test]
    fn there_is_no_disk_before_the_image_is_ready_and_none_once_the_instance_is_gone() {
        let mut pending = image(1, BootKind::Rootfs);
        pending.preparation = Preparation::Pending {
            percent: 1,
            failures: 0,
        };
        assert_eq!(Volume::of(&instance(), &pending), None);
        let mut gone = instance();
        gone.observed.is_removed = true;
        assert_eq!(Volume::of(&gone, &image(1, BootKind::Rootfs)), None);
    }
}
