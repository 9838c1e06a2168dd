//! DescribeNetworkInterfaces: the port of each instance that is alive.

use std::sync::Arc;

use cumulet_domain::instances::{Instance, InstanceState, Reservation, mac_of};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{Error, InstanceId, NetworkInterfaceId, Resource, SubnetId, VpcId};
use cumulet_ec2_model::Answer;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
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
        "addresses.association.",
        "association.",
        "attachment.nat-gateway-id",
        "ipv6-addresses.",
        "operator.principal",
        "outpost-arn",
        "requester-id",
    ],
};

/// Least page.
const RESULTS_MIN: usize = 5;

/// A port, with what is said of it.
struct Port<'a> {
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
    call.stop_if_dry_run()?;
    let surroundings = Surroundings::of(call.engine);
    let state = call.engine.snapshot();
    let with_reservation = |instance: Arc<Instance>| {
        let reservation = state.reservations.get(&instance.reservation)?.clone();
        Some((instance, reservation))
    };
    let keep = |(instance, reservation): &(Arc<Instance>, Arc<Reservation>)| {
        let port = Port {
            instance,
            reservation,
            tags: state.tags_of(NetworkInterfaceId::of(instance.id)),
            surroundings: &surroundings,
        };
        filters
            .pass(|name| tags::filter_values(port.tags, name).unwrap_or_else(|| port.values(name)))
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
            let port = Port {
                instance,
                reservation,
                tags: state.tags_of(NetworkInterfaceId::of(instance.id)),
                surroundings: &surroundings,
            };
            port.write(answer);
        },
    );
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

impl Port<'_> {
    fn id(&self) -> NetworkInterfaceId {
        NetworkInterfaceId::of(self.instance.id)
    }

    /// Its one attachment has its digits.
    fn attachment_id(&self) -> String {
        self.id().to_string().replacen("eni-", "eni-attach-", 1)
    }

    /// A port is laid when its instance is started for the first time.
    fn attachment_status(&self) -> &'static str {
        if self.instance.observed.has_run {
            "attached"
        } else {
            "attaching"
        }
    }

    fn mac(&self) -> String {
        let bytes = mac_of(self.instance.address);
        let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        parts.join(":")
    }

    /// The name is known to the resolver while the instance runs.
    fn private_name(&self) -> Option<String> {
        let is_running = self.instance.state() == InstanceState::Running;
        is_running.then(|| self.surroundings.private_name(self.instance))
    }

    fn write(&self, answer: &mut Answer) {
        let instance = self.instance;
        answer.value("networkInterfaceId", self.id());
        answer.value("subnetId", SubnetId::of(instance.owner));
        answer.value("vpcId", VpcId::of(instance.owner));
        answer.leaf("availabilityZone", &self.surroundings.zone);
        answer.leaf("description", "");
        answer.value("ownerId", instance.owner);
        answer.leaf("requesterManaged", "false");
        answer.leaf("status", "in-use");
        answer.leaf("macAddress", &self.mac());
        answer.value("privateIpAddress", instance.address);
        answer.optional("privateDnsName", self.private_name());
        // A guest may send from its own address only, and receive for it only.
        answer.leaf("sourceDestCheck", "true");
        write_groups(answer, self.reservation);
        answer.structure("attachment", |answer| {
            answer.leaf("attachmentId", &self.attachment_id());
            answer.value("instanceId", instance.id);
            answer.value("instanceOwnerId", instance.owner);
            answer.leaf("deviceIndex", "0");
            answer.leaf("status", self.attachment_status());
            answer.leaf("attachTime", &format_iso8601(instance.launched));
            answer.leaf("deleteOnTermination", "true");
            answer.leaf("networkCardIndex", "0");
        });
        tags::write(answer, self.tags);
        answer.list("privateIpAddressesSet", [()], |answer, ()| {
            answer.value("privateIpAddress", instance.address);
            answer.optional("privateDnsName", self.private_name());
            answer.leaf("primary", "true");
        });
        answer.leaf("interfaceType", "interface");
        answer.structure("ipv6AddressesSet", |_| {});
        answer.leaf("ipv6Native", "false");
        answer.structure("operator", |answer| answer.leaf("managed", "false"));
        answer.leaf("availabilityZoneId", &zone_id(&self.surroundings.region));
    }

    fn values(&self, name: &str) -> Vec<String> {
        let instance = self.instance;
        vec![match name {
            "addresses.primary" | "attachment.delete-on-termination" | "source-dest-check" => {
                "true".to_owned()
            }
            "addresses.private-ip-address" | "private-ip-address" => instance.address.to_string(),
            "attachment.attach-time" => format_iso8601(instance.launched),
            "attachment.attachment-id" => self.attachment_id(),
            "attachment.device-index" => "0".to_owned(),
            "attachment.instance-id" => instance.id.to_string(),
            "attachment.instance-owner-id" | "owner-id" => instance.owner.to_string(),
            "attachment.status" => self.attachment_status().to_owned(),
            "availability-zone" => self.surroundings.zone.clone(),
            "availability-zone-id" => zone_id(&self.surroundings.region),
            "description" => String::new(),
            "group-id" => {
                let groups = self.reservation.groups.iter();
                return groups.map(|group| group.id.to_string()).collect();
            }
            "group-name" => {
                let groups = self.reservation.groups.iter();
                return groups.map(|group| group.name.clone()).collect();
            }
            "interface-type" => "interface".to_owned(),
            "mac-address" => self.mac(),
            "network-interface-id" => self.id().to_string(),
            "operator.managed" | "requester-managed" => "false".to_owned(),
            "private-dns-name" => return self.private_name().into_iter().collect(),
            "status" => "in-use".to_owned(),
            "subnet-id" => SubnetId::of(instance.owner).to_string(),
            "vpc-id" => VpcId::of(instance.owner).to_string(),
            _ => return vec![],
        }]
    }
}
