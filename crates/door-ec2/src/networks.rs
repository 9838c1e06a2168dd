//! DescribeVpcs, DescribeVpcAttribute and DescribeSubnets: each account has its default network and one subnet of it.

use cumulet_domain::{AccountId, Error, Resource, shown};
use cumulet_engine::networks::NetworkView;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::paging::Page;
use crate::regions::zone_id;
use crate::tags;

/// EC2 takes three spellings of some.
const VPC_FILTERS: Known = Known {
    names: &[
        "cidr",
        "cidr-block",
        "cidr-block-association.association-id",
        "cidr-block-association.cidr-block",
        "cidr-block-association.state",
        "cidrBlock",
        "dhcp-options-id",
        "dhcpOptionsId",
        "is-default",
        "isDefault",
        "owner-id",
        "state",
        "tag-key",
        "tag-value",
        "tag:",
        "vpc-id",
    ],
    without_value: &[
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.ipv6-pool",
        "ipv6-cidr-block-association.state",
    ],
};

const SUBNET_FILTERS: Known = Known {
    names: &[
        "availability-zone",
        "availability-zone-id",
        "availabilityZone",
        "availabilityZoneId",
        "available-ip-address-count",
        "cidr",
        "cidr-block",
        "cidrBlock",
        "default-for-az",
        "defaultForAz",
        "enable-dns64",
        "ipv6-native",
        "map-customer-owned-ip-on-launch",
        "map-public-ip-on-launch",
        "owner-id",
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
        "private-dns-name-options-on-launch.hostname-type",
        "state",
        "subnet-arn",
        "subnet-id",
        "tag-key",
        "tag-value",
        "tag:",
        "vpc-id",
    ],
    without_value: &[
        "customer-owned-ipv4-pool",
        "enable-lni-at-device-index",
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.state",
        "outpost-arn",
    ],
};

/// Least page of both.
const RESULTS_MIN: usize = 5;

/// EC2's word for a network whose DHCP nobody changed.
const DHCP_OPTIONS: &str = "default";

/// Whether `only` is among the ids that were asked for.
///
/// # Errors
/// `Malformed`, or `NotFound` naming all others.
fn is_asked<T: std::str::FromStr<Err = cumulet_domain::IdError> + PartialEq + ToString>(
    asked: &[&str],
    only: &T,
    resource: Resource,
) -> Result<bool, Refused> {
    let mut missing: Vec<String> = vec![];
    for text in asked {
        let id = text.parse::<T>().map_err(|error| Error::Malformed {
            resource,
            id: error.text,
            form: error.form.to_owned(),
        })?;
        if id != *only {
            missing.push(id.to_string());
        }
    }
    if missing.is_empty() {
        Ok(true)
    } else {
        Err(Error::not_found_all(resource, missing).into())
    }
}

/// The one association of a network with its range has its digits.
fn association_id(network: &NetworkView) -> String {
    let vpc = network.vpc.to_string();
    vpc.replacen("vpc-", "vpc-cidr-assoc-", 1)
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let network = call.engine.describe_network(&call.caller);
    let owner = call.caller.account;
    is_asked(&call.request.list("VpcId"), &network.vpc, Resource::Vpc)?;
    let filters = Filters::of(&call.request, &VPC_FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "")?;
    let state = call.engine.snapshot();
    let tags = state.tags_of(network.vpc);
    let passing = filters.pass(|name| {
        tags::filter_values(tags, name).unwrap_or_else(|| vpc_values(&network, owner, name))
    });
    let operation = call.request.operation.name;
    let (shown, next) = page.cut(operation, passing.then_some(&network), |it| {
        it.vpc.to_string()
    });
    let mut answer = call.answer();
    answer.list("vpcSet", shown, |answer, network| {
        answer.value("vpcId", network.vpc);
        answer.leaf("state", "available");
        answer.value("cidrBlock", network.range);
        answer.leaf("dhcpOptionsId", DHCP_OPTIONS);
        tags::write(answer, tags);
        answer.leaf("instanceTenancy", "default");
        answer.leaf("isDefault", "true");
        answer.value("ownerId", owner);
        answer.list("cidrBlockAssociationSet", [()], |answer, ()| {
            answer.leaf("associationId", &association_id(network));
            answer.value("cidrBlock", network.range);
            answer.structure("cidrBlockState", |answer| {
                answer.leaf("state", "associated");
            });
        });
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

/// What tools read of a network beside: whether it has a name server, and names for instances.
///
/// The gateway answers for names, and each instance has one, as in EC2's default networks.
pub(crate) fn describe_attribute(call: &Call<'_>) -> Result<String, Refused> {
    let network = call.engine.describe_network(&call.caller);
    let asked = call.request.required("Attribute")?;
    is_asked(
        &[call.request.required("VpcId")?],
        &network.vpc,
        Resource::Vpc,
    )?;
    let mut answer = call.answer();
    let attributes = [
        ("enableDnsSupport", "true"),
        ("enableDnsHostnames", "true"),
        ("enableNetworkAddressUsageMetrics", "false"),
    ];
    let known = attributes
        .into_iter()
        .find(|(name, _)| *name == asked && answer.has(name));
    let Some((attribute, value)) = known else {
        let asked = shown(asked);
        return Err(Refused::invalid(format!(
            "Value ({asked}) for parameter attribute is invalid. Unknown attribute."
        )));
    };
    answer.value("vpcId", network.vpc);
    answer.structure(attribute, |answer| answer.leaf("value", value));
    Ok(answer.finish())
}

fn vpc_values(network: &NetworkView, owner: AccountId, name: &str) -> Vec<String> {
    vec![match name {
        "cidr" | "cidr-block" | "cidrBlock" | "cidr-block-association.cidr-block" => {
            network.range.to_string()
        }
        "cidr-block-association.association-id" => association_id(network),
        "cidr-block-association.state" => "associated".to_owned(),
        "dhcp-options-id" | "dhcpOptionsId" => DHCP_OPTIONS.to_owned(),
        "is-default" | "isDefault" => "true".to_owned(),
        "owner-id" => owner.to_string(),
        "state" => "available".to_owned(),
        "vpc-id" => network.vpc.to_string(),
        _ => return vec![],
    }]
}

pub(crate) fn describe_subnets(call: &Call<'_>) -> Result<String, Refused> {
    let network = call.engine.describe_network(&call.caller);
    is_asked(
        &call.request.list("SubnetId"),
        &network.subnet,
        Resource::Subnet,
    )?;
    let filters = Filters::of(&call.request, &SUBNET_FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "")?;
    let subnet = Subnet {
        network,
        owner: call.caller.account,
        zone: &call.engine.config().zone,
        region: &call.engine.config().region,
    };
    let state = call.engine.snapshot();
    let tags = state.tags_of(network.subnet);
    let passing =
        filters.pass(|name| tags::filter_values(tags, name).unwrap_or_else(|| subnet.values(name)));
    let operation = call.request.operation.name;
    let (shown, next) = page.cut(operation, passing.then_some(&subnet), |it| {
        it.network.subnet.to_string()
    });
    let mut answer = call.answer();
    answer.list("subnetSet", shown, |answer, subnet| {
        let network = &subnet.network;
        answer.value("subnetId", network.subnet);
        answer.leaf("state", "available");
        answer.value("vpcId", network.vpc);
        answer.value("cidrBlock", network.range);
        answer.value("availableIpAddressCount", network.free);
        answer.leaf("availabilityZone", subnet.zone);
        answer.leaf("defaultForAz", "true");
        // There are no public addresses.
        answer.leaf("mapPublicIpOnLaunch", "false");
        tags::write(answer, tags);
        answer.leaf("availabilityZoneId", &zone_id(subnet.region));
        answer.leaf("mapCustomerOwnedIpOnLaunch", "false");
        answer.value("ownerId", subnet.owner);
        answer.leaf("assignIpv6AddressOnCreation", "false");
        answer.structure("ipv6CidrBlockAssociationSet", |_| {});
        answer.leaf("subnetArn", &subnet.arn());
        answer.leaf("enableDns64", "false");
        answer.leaf("ipv6Native", "false");
        answer.structure("privateDnsNameOptionsOnLaunch", |answer| {
            answer.leaf("hostnameType", "ip-name");
            answer.leaf("enableResourceNameDnsARecord", "false");
            answer.leaf("enableResourceNameDnsAAAARecord", "false");
        });
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

struct Subnet<'a> {
    network: NetworkView,
    owner: AccountId,
    zone: &'a str,
    region: &'a str,
}

impl Subnet<'_> {
    fn arn(&self) -> String {
        format!(
            "arn:aws:ec2:{}:{}:subnet/{}",
            self.region, self.owner, self.network.subnet
        )
    }

    fn values(&self, name: &str) -> Vec<String> {
        let network = &self.network;
        vec![match name {
            "availability-zone" | "availabilityZone" => self.zone.to_owned(),
            "availability-zone-id" | "availabilityZoneId" => zone_id(self.region),
            "available-ip-address-count" => network.free.to_string(),
            "cidr" | "cidr-block" | "cidrBlock" => network.range.to_string(),
            "default-for-az" | "defaultForAz" => "true".to_owned(),
            "enable-dns64"
            | "ipv6-native"
            | "map-customer-owned-ip-on-launch"
            | "map-public-ip-on-launch"
            | "private-dns-name-options-on-launch.enable-resource-name-dns-a-record"
            | "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record" => {
                "false".to_owned()
            }
            "private-dns-name-options-on-launch.hostname-type" => "ip-name".to_owned(),
            "owner-id" => self.owner.to_string(),
            "state" => "available".to_owned(),
            "subnet-arn" => self.arn(),
            "subnet-id" => network.subnet.to_string(),
            "vpc-id" => network.vpc.to_string(),
            _ => return vec![],
        }]
    }
}
