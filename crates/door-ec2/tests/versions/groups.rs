//! Security groups that have something to show in every version.

use cumulet_domain::SecurityGroupId;

use crate::common::{self, Client, Cloud};

/// Elements for which groups have nothing to say.
pub(crate) const NOTHING_TO_SAY: &[(&str, &str)] = &[
    (
        "securityGroupInfo/item/ipPermissions/item/groups/item/peeringStatus",
        "networks have no peers",
    ),
    (
        "securityGroupInfo/item/ipPermissions/item/groups/item/vpcPeeringConnectionId",
        "networks have no peers",
    ),
    (
        "securityGroupInfo/item/ipPermissions/item/ipv6Ranges/item",
        "no IPv6 yet",
    ),
    (
        "securityGroupInfo/item/ipPermissions/item/prefixListIds/item",
        "no prefix lists",
    ),
    ("securityGroupRuleSet/item/cidrIpv6", "no IPv6 yet"),
    ("securityGroupRuleSet/item/prefixListId", "no prefix lists"),
    (
        "securityGroupRuleSet/item/referencedGroupInfo/peeringStatus",
        "networks have no peers",
    ),
    (
        "securityGroupRuleSet/item/referencedGroupInfo/vpcPeeringConnectionId",
        "networks have no peers",
    ),
    (
        "securityGroupRuleSet/item/tagSet/item",
        "rules carry no tags",
    ),
    (
        "unknownIpPermissionSet/item",
        "what is not there is InvalidPermission.NotFound",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/groups/item",
        "all may go out, to anybody",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/fromPort",
        "of all protocols",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/toPort",
        "of all protocols",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/ipRanges/item/description",
        "nobody made that rule",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/ipv6Ranges/item",
        "no IPv6 yet",
    ),
    (
        "securityGroupInfo/item/ipPermissionsEgress/item/prefixListIds/item",
        "no prefix lists",
    ),
];

/// Rules for `default`, which has the id that comes back.
pub(crate) async fn give_rules(cloud: &Cloud, client: &Client) -> String {
    let stranger = cloud.stranger().await.account.to_string();
    let listed = [
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", "443"),
        ("IpPermissions.1.ToPort", "443"),
        ("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8"),
        ("IpPermissions.1.IpRanges.1.Description", "the office"),
        ("IpPermissions.1.Groups.1.GroupName", "default"),
        ("IpPermissions.1.Groups.1.UserId", &stranger),
        ("IpPermissions.1.Groups.1.Description", "friends"),
    ];
    let network = [
        ("IpProtocol", "tcp"),
        ("FromPort", "80"),
        ("ToPort", "80"),
        ("CidrIp", "0.0.0.0/0"),
    ];
    for (version, rule) in [("2007-03-01", &network[..]), ("2016-11-15", &listed[..])] {
        let rule = [&[("GroupName", "default")], rule].concat();
        let reply = client.ask("AuthorizeSecurityGroupIngress", version, &rule);
        reply.await.ok();
    }
    SecurityGroupId::of(client.account).to_string()
}

/// A rule in the fullest words of a version.
pub(crate) fn rule_in(version: &str) -> Vec<(&'static str, String)> {
    let text = str::to_owned;
    let group = ("GroupName", text("default"));
    if version < "2016-11-15" {
        return vec![
            group,
            ("IpProtocol", text("udp")),
            ("FromPort", text("53")),
            ("ToPort", text("53")),
            ("CidrIp", text("10.0.0.0/8")),
        ];
    }
    vec![
        group,
        ("IpPermissions.1.IpProtocol", text("udp")),
        ("IpPermissions.1.FromPort", text("53")),
        ("IpPermissions.1.ToPort", text("53")),
        ("IpPermissions.1.Groups.1.GroupName", text("default")),
        (
            "IpPermissions.1.Groups.1.UserId",
            common::account(2).to_string(),
        ),
        ("IpPermissions.1.IpRanges.1.CidrIp", text("10.0.0.0/8")),
        ("IpPermissions.1.IpRanges.1.Description", text("dns")),
    ]
}

pub(crate) async fn change_rules(client: &Client, operation: &str, version: &str) {
    let rule = rule_in(version);
    let rule: Vec<(&str, &str)> = rule
        .iter()
        .map(|(it, value)| (*it, value.as_str()))
        .collect();
    client.ask(operation, version, &rule).await.ok();
}
