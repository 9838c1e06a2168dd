//! What the metadata service tells instances, from the engine's records.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cumulet_domain::disks::{self, Sizes};
use cumulet_domain::images::{BootKind, Preparation};
use cumulet_domain::instances::{Instance, mac_of};
use cumulet_door_metadata::{Facts, PublicKey, Source};
use cumulet_engine::{Engine, State};
use cumulet_host::api::Mac;

/// Looks instances up in the newest state.
pub(crate) struct EngineFacts(pub(crate) Engine);

impl Source for EngineFacts {
    fn instance_at(&self, address: Ipv4Addr) -> Option<Arc<Facts>> {
        let state = self.0.snapshot();
        let id = state.instance_by_address.get(&address)?;
        let instance = state.instances.get(id)?;
        let config = self.0.config();
        Some(Arc::new(facts(
            &state,
            instance,
            &config.region,
            &config.zone,
        )))
    }
}

fn facts(state: &State, instance: &Instance, region: &str, zone: &str) -> Facts {
    let image = state.images.get(&instance.image);
    // What asks runs, so that its image is ready.
    let kind = match image.map(|image| &image.preparation) {
        Some(Preparation::Ready { kind, .. }) => *kind,
        Some(Preparation::Pending { .. } | Preparation::Failed { .. }) | None => BootKind::Disk,
    };
    let reservation = state.reservations.get(&instance.reservation);
    Facts {
        instance: instance.id,
        image: instance.image,
        manifest_path: image.map(|image| image.location.clone()),
        launch_index: instance.launch_index,
        reservation: instance.reservation,
        local_host_name: format!("{}.{region}.compute.internal", instance.host_name()),
        // There are no public addresses yet: the one address stands for the name that clients are
        // shown, as DescribeInstances has it.
        public_host_name: instance.address.to_string(),
        local_ipv4: instance.address,
        public_ipv4: None,
        mac: Mac(mac_of(instance.address)).to_string(),
        instance_type: instance.instance_type.clone(),
        architecture: image
            .map_or("x86_64", |image| image.architecture.as_str())
            .to_owned(),
        zone: zone.to_owned(),
        region: region.to_owned(),
        account: instance.owner,
        launched: instance.launched,
        security_groups: reservation
            .map(|reservation| {
                reservation
                    .groups
                    .iter()
                    .map(|it| it.name.clone())
                    .collect()
            })
            .unwrap_or_default(),
        public_key: instance.key.as_ref().map(|key| PublicKey {
            name: key.name.clone(),
            openssh: without_comment(&key.public_key),
        }),
        product_codes: instance.product_codes.clone(),
        user_data: state.user_data.get(&instance.reservation).cloned(),
        kernel: instance.kernel.filter(|_| kind == BootKind::Rootfs),
        ramdisk: None,
        block_devices: block_devices(kind, instance.disk_sizes()),
        // Not the domain of the real services: what is built from it must not leave this cloud.
        services_domain: "compute.internal".into(),
        is_enabled: instance.metadata.is_enabled,
        is_token_required: instance.metadata.is_token_required,
        hop_limit: instance.metadata.hop_limit,
    }
}

/// `ssh-rsa AAAA…` alone.
fn without_comment(line: &str) -> String {
    line.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Devices by EC2's names for them; `root` alone is a path.
fn block_devices(kind: BootKind, sizes: Sizes) -> Vec<(String, String)> {
    let told = |name: &str, device: &str| match name {
        "root" => (name.to_owned(), format!("/dev/{device}")),
        _ => (name.to_owned(), device.to_owned()),
    };
    let devices = disks::devices(kind, sizes).into_iter();
    let mut named: Vec<(String, String)> = devices
        .flat_map(|(names, device)| names.iter().map(move |name| told(name, device)))
        .collect();
    named.sort();
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_told_of_the_devices_that_they_have() {
        let sizes = |ephemeral_mib, swap_mib| Sizes {
            ephemeral_mib,
            swap_mib,
            disk_mib: 1024,
        };
        let pair = |name: &str, device: &str| (name.to_owned(), device.to_owned());
        let (root, ami) = (pair("root", "/dev/sda1"), pair("ami", "sda1"));
        let (store, swap) = (pair("ephemeral0", "sda2"), pair("swap", "sda3"));
        for (kind, sizes, devices) in [
            (
                BootKind::Rootfs,
                sizes(1, 1),
                vec![ami.clone(), store.clone(), root.clone(), swap],
            ),
            (
                BootKind::Rootfs,
                sizes(1, 0),
                vec![ami.clone(), store, root.clone()],
            ),
            (BootKind::Rootfs, sizes(0, 0), vec![ami, root]),
            (
                BootKind::Disk,
                sizes(1, 1),
                vec![pair("ami", "sda"), pair("root", "/dev/sda")],
            ),
        ] {
            assert_eq!(block_devices(kind, sizes), devices, "{kind:?} {sizes:?}");
        }
    }
}
