//! DescribeNetworkInterfaces: the port of each instance that is alive.

use std::sync::Arc;

use cumulet_domain::instances::{Instance, Reservation};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{Error, InstanceId, NetworkInterfaceId, Resource, SubnetId, VpcId};
use cumulet_ec2_model::Answer;
use cumulet_engine::State;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::instance_ports::Port;
use crate::paging::Page;
use crate::regions::zone_id;
use crate::reservation::{Surroundings, write_groups};
use crate::tags;

const FILTERS: Known = Known {
    names: &[
        "addresses.primary",
        "addresses.private-ip-address",
        "attachment.attach-time",
        "attachment.attachment-id",
        "attachment.delete-on-termination",
        "attachment.device-index",
        "attachment.instance-id",
        "attachment.instance-owner-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "description",
        "group-id",
        "group-name",
        "interface-type",
        "mac-address",
        "network-interface-id",
        "operator.managed",
        "owner-id",
        "private-dns-name",
        "private-ip-address",
        "requester-managed",
        "source-dest-check",
        "status",
        "subnet-id",
        "tag-key",
        "tag-value",
        "tag:",
        "vpc-id",
    ],
    without_value: &[
        "addresses.association.ip-owner-id",
        "addresses.association.owner-id",
        "addresses.association.public-ip",
        "association.allocation-id",
        "association.association-id",
        "association.ip-owner-id",
        "association.public-dns-name",
        "association.public-ip",
        "attachment.nat-gateway-id",
        "ipv6-addresses.ipv6-address",
        "operator.principal",
        "outpost-arn",
        "requester-id",
    ],
};

/// Least page.
const RESULTS_MIN: usize = 5;

/// A port, with what is said of it here and not with its instance.
struct Described<'a> {
    port: Port<'a>,
    instance: &'a Instance,
    reservation: &'a Reservation,
    tags: &'a TagMap,
    surroundings: &'a Surroundings,
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let mut ids = vec![];
    for text in call.request.list("NetworkInterfaceId") {
        let id = text
            .parse()
            .map_err(|error: cumulet_domain::IdError| Error::Malformed {
                resource: Resource::NetworkInterface,
                id: error.text,
                form: error.form.to_owned(),
            })?;
        ids.push(id);
    }
    let filters = Filters::of(&call.request, &FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "NetworkInterfaceId")?;
    let surroundings = Surroundings::of(&call.engine);
    let state = call.engine.snapshot();
    let with_reservation = |instance: Arc<Instance>| {
        let reservation = state.reservations.get(&instance.reservation)?.clone();
        Some((instance, reservation))
    };
    let keep = |(instance, reservation): &(Arc<Instance>, Arc<Reservation>)| {
        Described::of(&state, &surroundings, instance, reservation)
            .is_some_and(|it| filters.pass(|name| it.values(name)))
    };
    let (shown, next) = if ids.is_empty() {
        let after: Option<NetworkInterfaceId> = page.after()?;
        let after = after.map(|id| InstanceId::of_parts(id.parts()));
        let live = call.engine.live_instances(&call.caller, after);
        let passing = live.filter_map(with_reservation).filter(keep);
        page.take(call.request.operation.name, passing, |(instance, _)| {
            NetworkInterfaceId::of(instance.id).to_string()
        })
    } else {
        let found = call.engine.describe_ports(&call.caller, &ids)?;
        let passing = found.into_iter().filter_map(with_reservation).filter(keep);
        (passing.collect(), None)
    };
    let mut answer = call.answer();
    answer.list(
        "networkInterfaceSet",
        &shown,
        |answer, (instance, reservation)| {
            if let Some(it) = Described::of(&state, &surroundings, instance, reservation) {
                it.write(answer);
            }
        },
    );
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

impl<'a> Described<'a> {
    fn of(
        state: &'a State,
        surroundings: &'a Surroundings,
        instance: &'a Instance,
        reservation: &'a Reservation,
    ) -> Option<Self> {
        let port = Port::of(surroundings, reservation, instance)?;
        Some(Self {
            tags: state.tags_of(port.id()),
            port,
            instance,
            reservation,
            surroundings,
        })
    }

    fn write(&self, answer: &mut Answer) {
        let instance = self.instance;
        answer.value("networkInterfaceId", self.port.id());
        answer.value("subnetId", SubnetId::of(instance.owner));
        answer.value("vpcId", VpcId::of(instance.owner));
        answer.leaf("availabilityZone", &self.surroundings.zone);
        answer.leaf("description", self.port.description());
        answer.value("ownerId", instance.owner);
        answer.leaf("requesterManaged", "false");
        answer.leaf("status", "in-use");
        answer.leaf("macAddress", &self.port.mac());
        answer.value("privateIpAddress", instance.address);
        answer.optional("privateDnsName", self.port.private_name());
        // A guest may send from its own address only, and receive for it only.
        answer.leaf("sourceDestCheck", "true");
        write_groups(answer, self.reservation);
        answer.structure("attachment", |answer| {
            answer.leaf("attachmentId", &self.port.attachment_id());
            answer.value("instanceId", instance.id);
            answer.value("instanceOwnerId", instance.owner);
            answer.leaf("deviceIndex", "0");
            answer.leaf("status", self.port.attachment_status());
            answer.leaf("attachTime", &format_iso8601(instance.launched));
            answer.leaf("deleteOnTermination", "true");
            answer.leaf("networkCardIndex", "0");
        });
        tags::write(answer, self.tags);
        answer.list("privateIpAddressesSet", [()], |answer, ()| {
            answer.value("privateIpAddress", instance.address);
            answer.optional("privateDnsName", self.port.private_name());
            answer.leaf("primary", "true");
        });
        answer.leaf("interfaceType", "interface");
        answer.structure("ipv6AddressesSet", |_| {});
        answer.leaf("ipv6Native", "false");
        answer.structure("operator", |answer| answer.leaf("managed", "false"));
        answer.leaf("availabilityZoneId", &zone_id(&self.surroundings.region));
    }

    fn values(&self, name: &str) -> Vec<String> {
        match name {
            "availability-zone-id" => vec![zone_id(&self.surroundings.region)],
            "interface-type" => vec!["interface".to_owned()],
            _ => self.port.filter_values(name),
        }
    }
}
