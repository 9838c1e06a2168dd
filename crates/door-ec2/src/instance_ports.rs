//! The port of an instance, as the instance's description and a launch's request have it.
//!
//! Each instance that is alive has one, in the subnet of its owner; it comes and goes with it.

use cumulet_domain::instances::{Instance, InstanceState, Liveness, Reservation, mac_of};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{Error, NetworkInterfaceId, Resource, SubnetId, VpcId};
use cumulet_ec2_model::{Answer, ModelError, Request};
use cumulet_wire::time::format_iso8601;

use crate::error::Refused;
use crate::reservation::{Surroundings, write_groups};
use crate::tags;

/// The port of an instance that is alive.
pub(crate) struct Port<'a> {
    instance: &'a Instance,
    reservation: &'a Reservation,
    surroundings: &'a Surroundings,
}

impl<'a> Port<'a> {
    pub(crate) fn of(
        surroundings: &'a Surroundings,
        reservation: &'a Reservation,
        instance: &'a Instance,
    ) -> Option<Self> {
        (instance.liveness() == Liveness::Alive).then_some(Self {
            instance,
            reservation,
            surroundings,
        })
    }

    pub(crate) fn id(&self) -> NetworkInterfaceId {
        NetworkInterfaceId::of(self.instance.id)
    }

    /// Its one attachment has its digits.
    pub(crate) fn attachment_id(&self) -> String {
        self.id().to_string().replacen("eni-", "eni-attach-", 1)
    }

    /// A port is laid when its instance is started for the first time.
    pub(crate) fn attachment_status(&self) -> &'static str {
        if self.instance.observed.has_run {
            "attached"
        } else {
            "attaching"
        }
    }

    pub(crate) fn mac(&self) -> String {
        let bytes = mac_of(self.instance.address);
        bytes.map(|byte| format!("{byte:02x}")).join(":")
    }

    pub(crate) fn tags(&self) -> &'a TagMap {
        self.surroundings.state.tags_of(self.id())
    }

    /// The name is known to the resolver while the instance runs.
    pub(crate) fn private_name(&self) -> Option<String> {
        let is_running = self.instance.state() == InstanceState::Running;
        is_running.then(|| self.surroundings.private_name(self.instance))
    }

    /// One of `networkInterfaceSet`.
    pub(crate) fn write(&self, answer: &mut Answer) {
        let instance = self.instance;
        answer.value("networkInterfaceId", self.id());
        answer.value("subnetId", SubnetId::of(instance.owner));
        answer.value("vpcId", VpcId::of(instance.owner));
        answer.leaf("description", "");
        answer.value("ownerId", instance.owner);
        answer.leaf("status", "in-use");
        answer.leaf("macAddress", &self.mac());
        answer.value("privateIpAddress", instance.address);
        answer.leaf("privateDnsName", &self.private_name().unwrap_or_default());
        // A guest may send from its own address only, and receive for it only.
        answer.leaf("sourceDestCheck", "true");
        write_groups(answer, self.reservation);
        answer.structure("attachment", |answer| {
            answer.leaf("attachmentId", &self.attachment_id());
            answer.leaf("deviceIndex", "0");
            answer.leaf("status", self.attachment_status());
            answer.leaf("attachTime", &format_iso8601(instance.launched));
            answer.leaf("deleteOnTermination", "true");
            answer.leaf("networkCardIndex", "0");
        });
        answer.list("privateIpAddressesSet", [()], |answer, ()| {
            answer.value("privateIpAddress", instance.address);
            answer.leaf("privateDnsName", &self.private_name().unwrap_or_default());
            answer.leaf("primary", "true");
        });
        answer.structure("ipv6AddressesSet", |_| {});
        answer.leaf("interfaceType", "interface");
        answer.structure("ipv4PrefixSet", |_| {});
        answer.structure("ipv6PrefixSet", |_| {});
    }

    /// What DescribeNetworkInterfaces' filter of this name, and DescribeInstances'
    /// `network-interface.NAME`, look at.
    pub(crate) fn filter_values(&self, name: &str) -> Vec<String> {
        let instance = self.instance;
        if let Some(values) = tags::filter_values(self.tags(), name) {
            return values;
        }
        vec![match name {
            "addresses.primary" | "attachment.delete-on-termination" | "source-dest-check" => {
                "true".to_owned()
            }
            "addresses.private-ip-address" | "private-ip-address" => instance.address.to_string(),
            "attachment.attach-time" => format_iso8601(instance.launched),
            "attachment.attachment-id" => self.attachment_id(),
            "attachment.device-index" | "attachment.network-card-index" => "0".to_owned(),
            "attachment.instance-id" => instance.id.to_string(),
            "attachment.instance-owner-id" | "owner-id" => instance.owner.to_string(),
            "attachment.status" => self.attachment_status().to_owned(),
            "availability-zone" => self.surroundings.zone.clone(),
            "description" => String::new(),
            "group-id" => {
                let groups = self.reservation.groups.iter();
                return groups.map(|group| group.id.to_string()).collect();
            }
            "group-name" => {
                let groups = self.reservation.groups.iter();
                return groups.map(|group| group.name.clone()).collect();
            }
            "mac-address" => self.mac(),
            "network-interface-id" => self.id().to_string(),
            "private-dns-name" | "addresses.private-dns-name" => {
                return self.private_name().into_iter().collect();
            }
            "ipv6-native" | "operator.managed" | "requester-managed" => "false".to_owned(),
            "status" => "in-use".to_owned(),
            "subnet-id" => SubnetId::of(instance.owner).to_string(),
            "vpc-id" => VpcId::of(instance.owner).to_string(),
            _ => return vec![],
        }]
    }
}

/// Where a launch is to have its port: `SubnetId`, or a list of interfaces that describes the one
/// that it gets anyway.
///
/// # Errors
/// `InvalidSubnetID.Malformed`; `InvalidParameterCombination` of both; `MissingParameter` of the
/// interface's number, and `UnsupportedOperation` for a second one.
pub(crate) fn subnet(request: &Request<'_>) -> Result<Option<SubnetId>, Refused> {
    let parse = |text: &str| {
        text.parse::<SubnetId>().map_err(|error| Error::Malformed {
            resource: Resource::Subnet,
            id: error.text,
            form: error.form.to_owned(),
        })
    };
    let own = request.text("SubnetId").filter(|text| !text.is_empty());
    let interfaces = request.indexes("NetworkInterface");
    let [first, others @ ..] = interfaces.as_slice() else {
        return Ok(own.map(parse).transpose()?);
    };
    if own.is_some() {
        return Err(Refused::combination(
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        ));
    }
    let unsupported = |message: &str| Err(Refused::new(400, "UnsupportedOperation", message));
    if !others.is_empty() {
        return unsupported("An instance has one network interface here");
    }
    let name = format!("NetworkInterface.{first}.DeviceIndex");
    match request.number::<u32>(&name)? {
        None => return Err(ModelError::Missing(name).into()),
        Some(0) => {}
        Some(_) => {
            return unsupported("The one network interface of an instance has the device index 0");
        }
    }
    let subnet = request.text(&format!("NetworkInterface.{first}.SubnetId"));
    Ok(subnet.map(parse).transpose()?)
}
