//! The port of an instance, as the instance's description and a launch's request have it.
//!
//! Each instance that is alive has one, in the subnet of its owner; it comes and goes with it.

use std::net::Ipv4Addr;

use cumulet_domain::instances::{Instance, InstanceState, Liveness, Reservation, mac_of};
use cumulet_domain::security_groups::GroupRef;
use cumulet_domain::tags::TagMap;
use cumulet_domain::{Error, NetworkInterfaceId, Resource, SubnetId, VpcId, shown};
use cumulet_ec2_model::{Answer, ModelError, Request};
use cumulet_wire::time::format_iso8601;

use crate::error::Refused;
use crate::reservation::{Surroundings, write_groups};
use crate::security_groups;
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

    /// As its launch has it.
    pub(crate) fn description(&self) -> &str {
        let described = self.reservation.port_description.as_deref();
        described.unwrap_or_default()
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
        answer.leaf("description", self.description());
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
            "description" => self.description().to_owned(),
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

/// Where a launch is to have its port, and what the port is to have.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) subnet: Option<SubnetId>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) description: Option<String>,
    /// Empty means that nothing was said.
    pub(crate) groups: Vec<GroupRef>,
}

/// What a launch says of its port: by itself, or in a list of interfaces that describes the one that
/// an instance gets anyway.
///
/// # Errors
/// `InvalidSubnetID.Malformed`, `InvalidGroupId.Malformed`, `InvalidParameterValue` of an address;
/// `InvalidParameterCombination` of both; `MissingParameter` of the interface's number, and
/// `UnsupportedOperation` for a second one.
pub(crate) fn wanted(request: &Request<'_>) -> Result<Wanted, Refused> {
    let own = Wanted {
        subnet: subnet(request, "SubnetId")?,
        address: address(request, "PrivateIpAddress")?,
        description: None,
        groups: security_groups::refs(request, "SecurityGroup", "SecurityGroupId")?,
    };
    let interfaces = request.indexes("NetworkInterface");
    let [first, others @ ..] = interfaces.as_slice() else {
        return Ok(own);
    };
    let together = |what: &str| {
        Err(Refused::combination(format!(
            "Network interfaces and an instance-level {what} may not be specified on the same request"
        )))
    };
    if own.subnet.is_some() {
        return together("subnet ID");
    }
    if own.address.is_some() {
        return together("private address");
    }
    if !own.groups.is_empty() {
        return together("security groups");
    }
    let unsupported = |what: String| Err(Refused::new(400, "UnsupportedOperation", what));
    if let Some(second) = others.first() {
        return unsupported(format!(
            "NetworkInterface.{second} is not supported here: an instance has one network interface"
        ));
    }
    let at = |name: &str| format!("NetworkInterface.{first}.{name}");
    let name = at("DeviceIndex");
    match request.number::<u32>(&name)? {
        None => return Err(ModelError::Missing(name).into()),
        Some(0) => {}
        Some(other) => {
            return unsupported(format!(
                "{name} {other} is not supported here: the one network interface of an instance has 0"
            ));
        }
    }
    Ok(Wanted {
        subnet: subnet(request, &at("SubnetId"))?,
        address: interface_address(request, &at)?,
        description: request
            .text(&at("Description"))
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        groups: security_groups::refs(request, "", &at("SecurityGroupId"))?,
    })
}

fn subnet(request: &Request<'_>, name: &str) -> Result<Option<SubnetId>, Refused> {
    let given = request.text(name).filter(|text| !text.is_empty());
    let parsed = given.map(|text| {
        text.parse::<SubnetId>().map_err(|error| Error::Malformed {
            resource: Resource::Subnet,
            id: error.text,
            form: error.form.to_owned(),
        })
    });
    Ok(parsed.transpose()?)
}

fn address(request: &Request<'_>, name: &str) -> Result<Option<Ipv4Addr>, Refused> {
    let given = request.text(name).filter(|text| !text.is_empty());
    let parsed = given.map(|text| {
        text.parse().map_err(|_| {
            let text = shown(text);
            Refused::invalid(format!(
                "Invalid value '{text}' for {name}. It is an IPv4 address."
            ))
        })
    });
    parsed.transpose()
}

/// The address of the interface: its own, or the one of its list that is `Primary`.
fn interface_address(
    request: &Request<'_>,
    at: &dyn Fn(&str) -> String,
) -> Result<Option<Ipv4Addr>, Refused> {
    let own = address(request, &at("PrivateIpAddress"))?;
    let list = at("PrivateIpAddresses");
    let listed = request.indexes(&list);
    let [number, others @ ..] = listed.as_slice() else {
        return Ok(own);
    };
    if own.is_some() {
        return Err(Refused::combination(format!(
            "{list} and {} cannot be given together",
            at("PrivateIpAddress")
        )));
    }
    let name = format!("{list}.{number}.PrivateIpAddress");
    if !others.is_empty() || !request.is_true(&format!("{list}.{number}.Primary")) {
        return Err(Refused::new(
            400,
            "UnsupportedOperation",
            format!(
                "{list} names one address here, which is Primary: a network interface has no other"
            ),
        ));
    }
    match address(request, &name)? {
        Some(address) => Ok(Some(address)),
        None => Err(ModelError::Missing(name).into()),
    }
}
