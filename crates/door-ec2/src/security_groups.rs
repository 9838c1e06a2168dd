//! CreateSecurityGroup, DescribeSecurityGroups, DeleteSecurityGroup.

use cumulet_domain::security_groups::{Era, GroupRef, Permission, SecurityGroup, Source, Traffic};
use cumulet_domain::tags::{TagMap, TaggedKind};
use cumulet_domain::{Error, Resource, SecurityGroupId, VpcId, shown};
use cumulet_ec2_model::dates::V2011_01_01;
use cumulet_ec2_model::{Answer, Request, Version};

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::paging::Page;
use crate::tags;

/// The words that a version has for rules.
pub(crate) fn era_of(version: Version) -> Era {
    if version < V2011_01_01 {
        Era::Classic
    } else {
        Era::Numbered
    }
}

pub(crate) fn parse_id(text: &str) -> Result<SecurityGroupId, Error> {
    text.parse().map_err(|_| Error::Malformed {
        resource: Resource::SecurityGroup,
        id: shown(text),
        form: "sg-...".into(),
    })
}

/// The groups that two lists name, those with names first.
///
/// # Errors
/// `InvalidGroupId.Malformed`.
pub(crate) fn refs(
    request: &Request<'_>,
    names: &str,
    ids: &str,
) -> Result<Vec<GroupRef>, Refused> {
    let names = request.list(names).into_iter();
    let mut refs: Vec<GroupRef> = names.map(|it| GroupRef::Name(it.to_owned())).collect();
    for id in request.list(ids) {
        refs.push(GroupRef::Id(parse_id(id)?));
    }
    Ok(refs)
}

/// The one group that a request is about.
///
/// # Errors
/// `MissingParameter`, `InvalidParameterCombination`, `InvalidGroupId.Malformed`.
pub(crate) fn subject(request: &Request<'_>) -> Result<GroupRef, Refused> {
    // Old clients that were made from a WSDL send what they leave open as an empty element.
    let given = |name: &str| request.text(name).filter(|it| !it.is_empty());
    match (given("GroupName"), given("GroupId")) {
        (Some(name), None) => Ok(GroupRef::Name(name.to_owned())),
        (None, Some(id)) => Ok(GroupRef::Id(parse_id(id)?)),
        (Some(_), Some(_)) => Err(Refused::combination(
            "A request names its group by GroupName or by GroupId, not by both",
        )),
        (None, None) => Err(Refused::new(
            400,
            "MissingParameter",
            "The request must contain the parameter GroupName",
        )),
    }
}

/// Every account has one network, and its groups are of that.
fn check_vpc(call: &Call<'_>) -> Result<(), Refused> {
    let Some(text) = call.request.text("VpcId").filter(|it| !it.is_empty()) else {
        return Ok(());
    };
    let id: VpcId = text.parse().map_err(|_| Error::Malformed {
        resource: Resource::Vpc,
        id: shown(text),
        form: "vpc-...".into(),
    })?;
    if id == VpcId::of(call.caller.account) {
        Ok(())
    } else {
        Err(Error::not_found(Resource::Vpc, id).into())
    }
}

pub(crate) async fn create(call: &Call<'_>) -> Result<String, Refused> {
    let name = call.request.required("GroupName")?.to_owned();
    let description = call.request.required("GroupDescription")?.to_owned();
    check_vpc(call)?;
    let tags = tags::specification(&call.request, TaggedKind::SecurityGroup)?;
    let group = call
        .engine
        .create_security_group(&call.caller, name, description, tags.clone())
        .await?;
    let mut answer = call.answer();
    answer.leaf("return", "true");
    answer.value("groupId", group.id);
    tags::write(&mut answer, &tags);
    Ok(answer.finish())
}

pub(crate) async fn delete(call: &Call<'_>) -> Result<String, Refused> {
    let group = subject(&call.request)?;
    call.engine
        .delete_security_group(&call.caller, group)
        .await?;
    Ok(call.yes())
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let refs = refs(request, "GroupName", "GroupId")?;
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 5, "GroupId")?;
    Page::of(request, 5, "GroupName")?;
    let mut found = call.engine.describe_security_groups(&call.caller, &refs)?;
    let state = call.engine.snapshot();
    let era = era_of(request.version);
    found.retain(|group| {
        filters.pass(|name| filter_values(group, era, state.tags_of(group.id), name))
    });
    let (found, next) = match page.size() {
        None => (found, None),
        Some(_) => page.cut(request.operation.name, found, |it| it.id.to_string()),
    };
    let mut answer = call.answer();
    answer.list("securityGroupInfo", &found, |answer, group| {
        write(answer, group, state.tags_of(group.id));
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

fn write(answer: &mut Answer, group: &SecurityGroup, tags: &TagMap) {
    let era = era_of(answer.version());
    answer.value("ownerId", group.owner);
    answer.value("groupId", group.id);
    answer.leaf("groupName", &group.name);
    answer.leaf("groupDescription", &group.description);
    answer.value("vpcId", VpcId::of(group.owner));
    answer.list("ipPermissions", group.permissions(era), |answer, it| {
        write_permission(answer, group, &it);
    });
    answer.list("ipPermissionsEgress", [()], |answer, ()| {
        write_egress(answer)
    });
    tags::write(answer, tags);
}

fn write_permission(answer: &mut Answer, group: &SecurityGroup, permission: &Permission<'_>) {
    let traffic = permission.traffic;
    answer.leaf("ipProtocol", &traffic.protocol());
    write_range(answer, traffic);
    let rules = || permission.rules.iter();
    let peers = rules().filter_map(|rule| match &rule.source {
        Source::Group { owner, id, name } => Some((rule, owner, id, name)),
        Source::Network(_) | Source::Nobody => None,
    });
    answer.list("groups", peers, |answer, (rule, owner, id, name)| {
        answer.value("userId", owner);
        answer.value("groupId", id);
        answer.leaf("groupName", name);
        // Said of groups of other networks only.
        if *owner != group.owner {
            answer.value("vpcId", VpcId::of(*owner));
        }
        answer.optional("description", rule.description.as_ref());
    });
    let networks = rules().filter_map(|rule| match &rule.source {
        Source::Network(net) => Some((rule, net)),
        Source::Group { .. } | Source::Nobody => None,
    });
    answer.list("ipRanges", networks, |answer, (rule, net)| {
        answer.value("cidrIp", format_args!("{}/{}", net.address, net.prefix));
        answer.optional("description", rule.description.as_ref());
    });
    answer.structure("prefixListIds", |_| {});
    answer.structure("ipv6Ranges", |_| {});
}

/// Both are required before 2011-01-01, also of a protocol that has neither.
fn write_range(answer: &mut Answer, traffic: Traffic) {
    let range = range_in(era_of(answer.version()), traffic);
    answer.optional("fromPort", range.map(|(from, _)| from));
    answer.optional("toPort", range.map(|(_, to)| to));
}

fn range_in(era: Era, traffic: Traffic) -> Option<(i32, i32)> {
    match era {
        Era::Classic => Some(traffic.range().unwrap_or((-1, -1))),
        Era::Numbered => traffic.range(),
    }
}

/// All may go out, and nothing changes that.
fn write_egress(answer: &mut Answer) {
    answer.leaf("ipProtocol", "-1");
    answer.structure("groups", |_| {});
    answer.list("ipRanges", ["0.0.0.0/0"], |answer, net| {
        answer.leaf("cidrIp", net);
    });
    answer.structure("prefixListIds", |_| {});
    answer.structure("ipv6Ranges", |_| {});
}

const FILTERS: Known = Known {
    names: &[
        "description",
        "egress.ip-permission.cidr",
        "egress.ip-permission.protocol",
        "group-id",
        "group-name",
        "ip-permission.cidr",
        "ip-permission.from-port",
        "ip-permission.group-id",
        "ip-permission.group-name",
        "ip-permission.protocol",
        "ip-permission.to-port",
        "ip-permission.user-id",
        "owner-id",
        "tag-key",
        "tag-value",
        "tag:",
        "vpc-id",
    ],
    without_value: &[
        "egress.ip-permission.from-port",
        "egress.ip-permission.group-id",
        "egress.ip-permission.group-name",
        "egress.ip-permission.ipv6-cidr",
        "egress.ip-permission.prefix-list-id",
        "egress.ip-permission.to-port",
        "egress.ip-permission.user-id",
        "ip-permission.ipv6-cidr",
        "ip-permission.prefix-list-id",
    ],
};

/// What is looked at is what the version shows.
fn filter_values(group: &SecurityGroup, era: Era, tags: &TagMap, name: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    let of_traffic = |value: &dyn Fn(Traffic) -> Option<String>| {
        let permissions = group.permissions(era);
        let values = permissions.iter().filter_map(|it| value(it.traffic));
        values.collect::<Vec<String>>()
    };
    let of_peers = |value: fn(&Source) -> Option<String>| {
        let rules = group.ingress.iter();
        rules.filter_map(|rule| value(&rule.source)).collect()
    };
    match name {
        "description" => one(&group.description),
        "group-id" => vec![group.id.to_string()],
        "group-name" => one(&group.name),
        "owner-id" => vec![group.owner.to_string()],
        "vpc-id" => vec![VpcId::of(group.owner).to_string()],
        "egress.ip-permission.cidr" => one("0.0.0.0/0"),
        "egress.ip-permission.protocol" => one("-1"),
        "ip-permission.protocol" => of_traffic(&|traffic| Some(traffic.protocol())),
        "ip-permission.from-port" => {
            of_traffic(&|traffic| range_in(era, traffic).map(|(from, _)| from.to_string()))
        }
        "ip-permission.to-port" => {
            of_traffic(&|traffic| range_in(era, traffic).map(|(_, to)| to.to_string()))
        }
        "ip-permission.cidr" => of_peers(|source| match source {
            Source::Network(net) => Some(format!("{}/{}", net.address, net.prefix)),
            Source::Group { .. } | Source::Nobody => None,
        }),
        "ip-permission.group-id" => of_peers(|source| match source {
            Source::Group { id, .. } => Some(id.to_string()),
            Source::Network(_) | Source::Nobody => None,
        }),
        "ip-permission.group-name" => of_peers(|source| match source {
            Source::Group { name, .. } => Some(name.clone()),
            Source::Network(_) | Source::Nobody => None,
        }),
        "ip-permission.user-id" => of_peers(|source| match source {
            Source::Group { owner, .. } => Some(owner.to_string()),
            Source::Network(_) | Source::Nobody => None,
        }),
        other => tags::filter_values(tags, other).unwrap_or_default(),
    }
}
