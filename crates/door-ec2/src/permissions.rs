//! AuthorizeSecurityGroupIngress, RevokeSecurityGroupIngress.
//!
//! A request has one of three shapes: one network with protocol and ports, all
//! traffic of one group's members, or a list of permissions (SOAP messages, and
//! the Query API from 2011-01-01 on).  They are never mixed.

use cumulet_domain::security_groups::{Era, GroupRef, Rule, Source, Traffic};
use cumulet_domain::{AccountId, Error, Resource, SecurityGroupId, VpcId, shown};
use cumulet_ec2_model::{Answer, Request};
use cumulet_engine::security_groups::{RuleAsked, RulesChanged, SourceAsked};

use crate::call::Call;
use crate::error::Refused;
use crate::security_groups::{era_of, parse_id, subject};

pub(crate) async fn authorize(call: &Call<'_>) -> Result<String, Refused> {
    let (group, era, rules) = decode(call)?;
    let RulesChanged { group, rules } = call
        .engine
        .authorize_ingress(&call.caller, group, era, rules)
        .await?;
    let mut answer = call.answer();
    answer.leaf("return", "true");
    answer.list("securityGroupRuleSet", &rules, |answer, rule| {
        write_rule(answer, (group.id, group.owner), rule);
    });
    Ok(answer.finish())
}

pub(crate) async fn revoke(call: &Call<'_>) -> Result<String, Refused> {
    let (group, era, rules) = decode(call)?;
    call.engine
        .revoke_ingress(&call.caller, group, era, rules)
        .await?;
    let mut answer = call.answer();
    answer.leaf("return", "true");
    // What is not there is refused as a whole, so that nothing is left to be named.
    answer.structure("unknownIpPermissionSet", |_| {});
    Ok(answer.finish())
}

fn write_rule(answer: &mut Answer, (group, owner): (SecurityGroupId, AccountId), rule: &Rule) {
    answer.value("securityGroupRuleId", rule.id_in(group));
    answer.value("groupId", group);
    answer.value("groupOwnerId", owner);
    answer.leaf("isEgress", "false");
    answer.leaf("ipProtocol", &rule.traffic.protocol());
    let (from, to) = rule.traffic.range().unwrap_or((-1, -1));
    answer.value("fromPort", from);
    answer.value("toPort", to);
    match &rule.source {
        Source::Network(net) => {
            answer.value("cidrIpv4", format_args!("{}/{}", net.address, net.prefix));
        }
        Source::Group {
            owner: of,
            id: peer,
            ..
        } => answer.structure("referencedGroupInfo", |answer| {
            answer.value("groupId", peer);
            answer.value("userId", of);
            if *of != owner {
                answer.value("vpcId", VpcId::of(*of));
            }
        }),
        Source::Nobody => {}
    }
    answer.optional("description", rule.description.as_ref());
    answer.structure("tagSet", |_| {});
}

/// The group, the words of the version, and the rules.
fn decode(call: &Call<'_>) -> Result<(GroupRef, Era, Vec<RuleAsked>), Refused> {
    let request = &call.request;
    check_user(call)?;
    let group = subject(request)?;
    let era = era_of(request.version);
    let listed = request.indexes("IpPermissions");
    let has = |names: &[&str]| names.iter().any(|name| request.text(name).is_some());
    let is_pair = has(&["SourceSecurityGroupName", "SourceSecurityGroupOwnerId"]);
    let is_network = has(&["IpProtocol", "FromPort", "ToPort", "CidrIp"]);
    let shapes = [is_pair, is_network, !listed.is_empty()];
    if shapes.iter().filter(|it| **it).count() > 1 {
        return Err(Refused::combination(
            "A permission is given by SourceSecurityGroupName and SourceSecurityGroupOwnerId, or by IpProtocol, FromPort, ToPort and CidrIp, or by IpPermissions; these cannot be used together",
        ));
    }
    let rules = if is_pair {
        vec![whole_group(request, era)?]
    } else if listed.is_empty() {
        if !is_network && era == Era::Numbered {
            return Err(missing("IpPermissions").into());
        }
        vec![one_network(request, era)?]
    } else {
        let rules = listed.into_iter().map(|it| permission(request, era, it));
        rules.collect::<Result<Vec<_>, _>>()?.concat()
    };
    Ok((group, era, rules))
}

/// Messages name the owner of the group; it is the caller, or left empty.
fn check_user(call: &Call<'_>) -> Result<(), Refused> {
    match account(call.request.text("UserId"))? {
        Some(other) if other != call.caller.account => Err(Error::denied(format!(
            "Not authorized for security groups of the account {other}"
        ))
        .into()),
        Some(_) | None => Ok(()),
    }
}

fn account(text: Option<&str>) -> Result<Option<AccountId>, Error> {
    let given = text.filter(|it| !it.is_empty());
    let read = given.map(|text| {
        text.parse().map_err(|_| Error::Malformed {
            resource: Resource::Account,
            id: shown(text),
            form: "<12 digits>".into(),
        })
    });
    read.transpose()
}

fn missing(name: &str) -> Error {
    Error::Missing {
        parameter: name.to_owned(),
    }
}

fn whole_group(request: &Request<'_>, era: Era) -> Result<RuleAsked, Refused> {
    let name = request.required("SourceSecurityGroupName")?;
    let owner = account(request.text("SourceSecurityGroupOwnerId"))?;
    if owner.is_none() && era == Era::Classic {
        return Err(missing("SourceSecurityGroupOwnerId").into());
    }
    Ok(RuleAsked {
        traffic: Traffic::All,
        source: SourceAsked::Group {
            owner,
            group: GroupRef::Name(name.to_owned()),
            name: None,
        },
        description: None,
    })
}

fn one_network(request: &Request<'_>, era: Era) -> Result<RuleAsked, Refused> {
    let protocol = request.required("IpProtocol")?;
    if era == Era::Classic {
        request.required("FromPort")?;
        request.required("ToPort")?;
    }
    let network = request.required("CidrIp")?;
    let (from, to) = (request.number("FromPort")?, request.number("ToPort")?);
    Ok(RuleAsked {
        traffic: Traffic::parse(protocol, from, to, era)?,
        source: SourceAsked::Known(Source::network(network)?),
        description: None,
    })
}

/// The rules of `IpPermissions.n`: one for each of its sources.
fn permission(request: &Request<'_>, era: Era, number: u32) -> Result<Vec<RuleAsked>, Refused> {
    let at = |name: &str| format!("IpPermissions.{number}.{name}");
    let protocol = request.required(&at("IpProtocol"))?;
    let from = request.number(&at("FromPort"))?;
    let to = request.number(&at("ToPort"))?;
    let traffic = Traffic::parse(protocol, from, to, era)?;
    let rule = |source: SourceAsked, described: &str| RuleAsked {
        traffic,
        source,
        description: request.text(described).map(str::to_owned),
    };
    let mut rules = vec![];
    let groups = at("Groups");
    for peer in request.indexes(&groups) {
        let at = |name: &str| format!("{groups}.{peer}.{name}");
        rules.push(rule(peer_group(request, &at)?, &at("Description")));
    }
    let ranges = at("IpRanges");
    for range in request.indexes(&ranges) {
        let network = request.required(&format!("{ranges}.{range}.CidrIp"))?;
        let source = SourceAsked::Known(Source::network(network)?);
        rules.push(rule(source, &format!("{ranges}.{range}.Description")));
    }
    // The samples of 2007 have a permission without a source: it lets nobody in, and later versions
    // show and revoke it.
    let may_lack_source =
        era == Era::Classic || request.operation.name == "RevokeSecurityGroupIngress";
    if rules.is_empty() && may_lack_source {
        rules.push(rule(SourceAsked::Known(Source::Nobody), ""));
    }
    if rules.is_empty() {
        return Err(Error::invalid(
            "IpPermissions",
            format!("IpPermissions.{number} has no source: neither Groups nor IpRanges"),
        )
        .into());
    }
    Ok(rules)
}

/// A group of `IpPermissions.n.Groups.m`, by name or by id; who repeats what DescribeSecurityGroups
/// said gives both, and the network of a group of somebody else.
fn peer_group(request: &Request<'_>, at: &dyn Fn(&str) -> String) -> Result<SourceAsked, Refused> {
    let given = |name: &str| request.text(&at(name)).filter(|it| !it.is_empty());
    let owner = account(given("UserId"))?;
    if let Some(vpc) = given("VpcId")
        && owner.is_none_or(|owner| VpcId::of(owner).to_string() != vpc)
    {
        let vpc = shown(vpc);
        return Err(Error::not_found(Resource::Vpc, vpc).into());
    }
    let (group, name) = match (given("GroupId"), given("GroupName")) {
        (Some(id), name) => (GroupRef::Id(parse_id(id)?), name.map(str::to_owned)),
        (None, Some(name)) => (GroupRef::Name(name.to_owned()), None),
        (None, None) => return Err(missing(&at("GroupName")).into()),
    };
    Ok(SourceAsked::Group { owner, group, name })
}
