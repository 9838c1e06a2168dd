//! What DescribeInstances' filters look at.

use cumulet_domain::instances::{Instance, InstanceState, Liveness, Reservation, StateReason};
use cumulet_domain::{SubnetId, VpcId};
use cumulet_wire::time::format_iso8601;

use crate::filters::Known;
use crate::instance_ports::Port;
use crate::reservation::{self, Surroundings};
use crate::{images, tags, volumes};

/// The filters of DescribeInstances.
pub(crate) const FILTERS: Known = Known {
    names: &[
        "architecture",
        "availability-zone",
        "availability-zone-id",
        "block-device-mapping.attach-time",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.status",
        "block-device-mapping.volume-id",
        "capacity-reservation-specification.capacity-reservation-preference",
        "client-token",
        "current-instance-boot-mode",
        "dns-name",
        "ebs-optimized",
        "ena-support",
        "enclave-options.enabled",
        "group-id",
        "group-name",
        "hibernation-options.configured",
        "hypervisor",
        "image-id",
        "instance-id",
        "instance-state-code",
        "instance-state-name",
        "instance-type",
        "instance.group-id",
        "instance.group-name",
        "kernel-id",
        "key-name",
        "launch-index",
        "launch-time",
        "maintenance-options.auto-recovery",
        "metadata-options.http-endpoint",
        "metadata-options.http-protocol-ipv4",
        "metadata-options.http-protocol-ipv6",
        "metadata-options.http-put-response-hop-limit",
        "metadata-options.http-tokens",
        "metadata-options.instance-metadata-tags",
        "metadata-options.state",
        "monitoring-state",
        "network-interface.addresses.primary",
        "network-interface.addresses.private-dns-name",
        "network-interface.addresses.private-ip-address",
        "network-interface.attachment.attach-time",
        "network-interface.attachment.attachment-id",
        "network-interface.attachment.delete-on-termination",
        "network-interface.attachment.device-index",
        "network-interface.attachment.instance-id",
        "network-interface.attachment.instance-owner-id",
        "network-interface.attachment.network-card-index",
        "network-interface.attachment.status",
        "network-interface.availability-zone",
        "network-interface.description",
        "network-interface.group-id",
        "network-interface.group-name",
        "network-interface.ipv6-native",
        "network-interface.mac-address",
        "network-interface.network-interface-id",
        "network-interface.operator.managed",
        "network-interface.owner-id",
        "network-interface.private-dns-name",
        "network-interface.private-ip-address",
        "network-interface.requester-managed",
        "network-interface.source-dest-check",
        "network-interface.status",
        "network-interface.subnet-id",
        "network-interface.tag-key",
        "network-interface.tag-value",
        "network-interface.vpc-id",
        "network-performance-options.bandwidth-weighting",
        "operator.managed",
        "owner-id",
        "platform-details",
        "private-dns-name",
        "private-dns-name-options.enable-resource-name-dns-a-record",
        "private-dns-name-options.enable-resource-name-dns-aaaa-record",
        "private-dns-name-options.hostname-type",
        "private-ip-address",
        "product-code",
        "product-code.type",
        "reason",
        "reservation-id",
        "root-device-name",
        "root-device-type",
        "source-dest-check",
        "state-reason-code",
        "state-reason-message",
        "subnet-id",
        "tag-key",
        "tag-value",
        "tag:",
        "tenancy",
        "usage-operation",
        "usage-operation-update-time",
        "virtualization-type",
        "vpc-id",
    ],
    without_value: &[
        "affinity",
        "association.allocation-id",
        "association.association-id",
        "association.ip-owner-id",
        "association.public-ip",
        "boot-mode",
        "capacity-reservation-id",
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn",
        "host-id",
        "iam-instance-profile.arn",
        "iam-instance-profile.id",
        "iam-instance-profile.name",
        "instance-lifecycle",
        "ip-address",
        "ipv6-address",
        "network-interface.addresses.association.allocation-id",
        "network-interface.addresses.association.association-id",
        "network-interface.addresses.association.carrier-ip",
        "network-interface.addresses.association.customer-owned-ip",
        "network-interface.addresses.association.ip-owner-id",
        "network-interface.addresses.association.public-dns-name",
        "network-interface.addresses.association.public-ip",
        "network-interface.association.allocation-id",
        "network-interface.association.association-id",
        "network-interface.association.carrier-ip",
        "network-interface.association.customer-owned-ip",
        "network-interface.association.ip-owner-id",
        "network-interface.association.public-dns-name",
        "network-interface.association.public-ip",
        "network-interface.deny-all-igw-traffic",
        "network-interface.ipv4-prefixes.ipv4-prefix",
        "network-interface.ipv6-address",
        "network-interface.ipv6-addresses.ipv6-address",
        "network-interface.ipv6-addresses.is-primary-ipv6",
        "network-interface.ipv6-prefixes.ipv6-prefix",
        "network-interface.operator.principal",
        "network-interface.outpost-arn",
        "network-interface.public-dns-name",
        "network-interface.requester-id",
        "operator.principal",
        "outpost-arn",
        "placement-group-name",
        "placement-partition-number",
        "platform",
        "ramdisk-id",
        "requester-id",
        "spot-instance-request-id",
        "tpm-support",
    ],
};

/// What the filter of this name looks at.
pub(crate) fn filter_values(
    surroundings: &Surroundings,
    (reservation, instance): (&Reservation, &Instance),
    name: &str,
) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    let reason = |pick: fn(&StateReason) -> &String| {
        let reason = surroundings.reason(instance);
        reason.iter().map(|reason| pick(reason).clone()).collect()
    };
    let is_running = instance.state() == InstanceState::Running;
    let if_running = |text: String| is_running.then_some(text).into_iter().collect();
    let is_alive = instance.liveness() == Liveness::Alive;
    let if_alive = |text: String| is_alive.then_some(text).into_iter().collect();
    let image = surroundings.image(instance);
    match name {
        "architecture" => one(surroundings.architecture(instance)),
        _ if name.starts_with("block-device-mapping.") => {
            let volume = surroundings.state.root_volume(instance);
            let device = images::root_device(image);
            let value = |volume: &_| volumes::mapping_value(volume, device, name);
            volume.iter().filter_map(value).collect()
        }
        "availability-zone" => one(&surroundings.zone),
        "availability-zone-id" => one(&surroundings.zone_id),
        "client-token" => {
            let token = reservation.client_token.as_ref();
            token.iter().map(|token| token.token.clone()).collect()
        }
        "current-instance-boot-mode" => one(reservation::BOOT_MODE),
        "dns-name" => if_running(instance.address.to_string()),
        "group-id" | "instance.group-id" => {
            let groups = reservation.groups.iter();
            groups.map(|group| group.id.to_string()).collect()
        }
        "group-name" | "instance.group-name" => {
            let groups = reservation.groups.iter();
            groups.map(|group| group.name.clone()).collect()
        }
        "hypervisor" => one("xen"),
        "image-id" => vec![instance.image.to_string()],
        "instance-id" => vec![instance.id.to_string()],
        "instance-state-code" => vec![instance.state().code().to_string()],
        "instance-state-name" => one(instance.state().name()),
        "instance-type" => one(&instance.instance_type),
        "kernel-id" => surroundings
            .kernel(instance)
            .map(|id| id.to_string())
            .into_iter()
            .collect(),
        "key-name" => instance.key.iter().map(|key| key.name.clone()).collect(),
        "launch-index" => vec![instance.launch_index.to_string()],
        "launch-time" | "usage-operation-update-time" => {
            vec![format_iso8601(instance.launched)]
        }
        // The endpoint has an address of IPv4, and none of IPv6.
        "metadata-options.http-endpoint" | "metadata-options.http-protocol-ipv4" => {
            one(reservation::endpoint_word(instance))
        }
        "metadata-options.http-protocol-ipv6" | "metadata-options.instance-metadata-tags" => {
            one("disabled")
        }
        "metadata-options.state" => one("applied"),
        "metadata-options.http-put-response-hop-limit" => {
            vec![instance.metadata.hop_limit.to_string()]
        }
        "metadata-options.http-tokens" => one(reservation::tokens_word(instance)),
        "monitoring-state" => one("disabled"),
        "owner-id" => vec![instance.owner.to_string()],
        "platform-details" => one(images::PLATFORM),
        "private-dns-name" => if_running(surroundings.private_name(instance)),
        "private-ip-address" => if_alive(instance.address.to_string()),
        "product-code" => instance.product_codes.clone(),
        "reason" | "state-reason-message" => reason(|reason| &reason.message),
        "state-reason-code" => reason(|reason| &reason.code),
        "reservation-id" => vec![reservation.id.to_string()],
        "root-device-name" => one(images::root_device(image)),
        "root-device-type" => one("instance-store"),
        "tenancy" => one("default"),
        "usage-operation" => one(images::USAGE_OPERATION),
        "virtualization-type" => one("hvm"),
        "capacity-reservation-specification.capacity-reservation-preference" => one("open"),
        "ebs-optimized"
        | "ena-support"
        | "enclave-options.enabled"
        | "hibernation-options.configured"
        | "operator.managed"
        | "private-dns-name-options.enable-resource-name-dns-a-record"
        | "private-dns-name-options.enable-resource-name-dns-aaaa-record" => one("false"),
        "maintenance-options.auto-recovery" | "network-performance-options.bandwidth-weighting" => {
            one("default")
        }
        "private-dns-name-options.hostname-type" => one("ip-name"),
        "product-code.type" => instance
            .product_codes
            .iter()
            .map(|_| "devpay".into())
            .collect(),
        "source-dest-check" => one("true"),
        "subnet-id" => if_alive(SubnetId::of(instance.owner).to_string()),
        "vpc-id" => if_alive(VpcId::of(instance.owner).to_string()),
        other => match other.strip_prefix("network-interface.") {
            Some(rest) => Port::of(surroundings, reservation, instance)
                .map_or(vec![], |port| port.filter_values(rest)),
            None => tags::filter_values(surroundings.tags(instance), other).unwrap_or_default(),
        },
    }
}
