//! What later versions made of groups, and what machines that are real have of them.

use cumulet_domain::instances::InstanceState;
use cumulet_domain::{SecurityGroupId, VpcId};

use crate::common::{Client, Cloud, Reply, Setup};
use crate::{
    AUTHORIZE, HEAD, NEW, OLD, REVOKE, WEB, code_of, create, describes, launch, listed,
    ready_image, whole,
};

async fn names(client: &Client, version: &str, parameters: &[(&str, &str)]) -> Vec<String> {
    let reply = client.ask("DescribeSecurityGroups", version, parameters);
    reply.await.ok().values("securityGroupInfo/item/groupName")
}

/// The elements below `place` of an answer.
fn below(reply: &Reply, place: &str) -> Vec<(String, String)> {
    let elements = reply.elements().into_iter();
    elements
        .filter_map(|(path, text)| Some((path.strip_prefix(place)?.to_owned(), text)))
        .collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// As boto3 goes about it: by id, with what DescribeSecurityGroups said.
#[tokio::test(flavor = "multi_thread")]
async fn todays_clients_make_and_change_groups_by_id() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let account = client.account.to_string();
    let vpc = VpcId::of(client.account).to_string();
    let new = [
        ("GroupName", "web"),
        ("GroupDescription", "Web"),
        ("VpcId", vpc.as_str()),
        ("TagSpecification.1.ResourceType", "security-group"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", "front"),
    ];
    let created = client.ask("CreateSecurityGroup", NEW, &new).await.ok();
    let id = created.value("groupId").expect("an id");
    assert_eq!(created.value("return").as_deref(), Some("true"));
    let default = SecurityGroupId::of(client.account).to_string();
    let rules = [
        ("GroupId", id.as_str()),
        ("IpPermissions.1.IpProtocol", "6"),
        ("IpPermissions.1.FromPort", "443"),
        ("IpPermissions.1.ToPort", "443"),
        ("IpPermissions.1.IpRanges.1.CidrIp", "10.1.2.3/8"),
        ("IpPermissions.1.IpRanges.1.Description", "the office"),
        ("IpPermissions.1.Groups.1.GroupId", &default),
        ("IpPermissions.1.Groups.1.UserId", &account),
        ("IpPermissions.2.IpProtocol", "-1"),
        ("IpPermissions.2.Groups.1.GroupName", "web"),
        ("IpPermissions.3.IpProtocol", "50"),
        ("IpPermissions.3.IpRanges.1.CidrIp", "0.0.0.0/0"),
    ];
    let authorized = client.ask(AUTHORIZE, NEW, &rules).await.ok();
    let made = authorized.values("securityGroupRuleId");
    assert_eq!(made.len(), 4);
    assert_eq!(authorized.values("ipProtocol"), ["tcp", "tcp", "-1", "50"]);
    assert_eq!(authorized.values("cidrIpv4"), ["10.0.0.0/8", "0.0.0.0/0"]);
    assert_eq!(
        authorized.values("referencedGroupInfo/groupId"),
        [default.as_str(), &id]
    );

    let by_id = [("GroupId.1", id.as_str())];
    let described = client.ask("DescribeSecurityGroups", NEW, &by_id).await.ok();
    let expected = [
        ("ownerId", account.as_str()),
        ("groupId", &id),
        ("groupName", "web"),
        ("groupDescription", "Web"),
        ("vpcId", &vpc),
        ("ipPermissions", ""),
        ("ipPermissions/item", ""),
        ("ipPermissions/item/ipProtocol", "tcp"),
        ("ipPermissions/item/fromPort", "443"),
        ("ipPermissions/item/toPort", "443"),
        ("ipPermissions/item/groups", ""),
        ("ipPermissions/item/groups/item", ""),
        ("ipPermissions/item/groups/item/userId", &account),
        ("ipPermissions/item/groups/item/groupId", &default),
        ("ipPermissions/item/groups/item/groupName", "default"),
        ("ipPermissions/item/ipRanges", ""),
        ("ipPermissions/item/ipRanges/item", ""),
        ("ipPermissions/item/ipRanges/item/cidrIp", "10.0.0.0/8"),
        ("ipPermissions/item/ipRanges/item/description", "the office"),
        ("ipPermissions/item/prefixListIds", ""),
        ("ipPermissions/item/ipv6Ranges", ""),
        ("ipPermissions/item", ""),
        ("ipPermissions/item/ipProtocol", "-1"),
        ("ipPermissions/item/groups", ""),
        ("ipPermissions/item/groups/item", ""),
        ("ipPermissions/item/groups/item/userId", &account),
        ("ipPermissions/item/groups/item/groupId", &id),
        ("ipPermissions/item/groups/item/groupName", "web"),
        ("ipPermissions/item/ipRanges", ""),
        ("ipPermissions/item/prefixListIds", ""),
        ("ipPermissions/item/ipv6Ranges", ""),
        ("ipPermissions/item", ""),
        ("ipPermissions/item/ipProtocol", "50"),
        ("ipPermissions/item/groups", ""),
        ("ipPermissions/item/ipRanges", ""),
        ("ipPermissions/item/ipRanges/item", ""),
        ("ipPermissions/item/ipRanges/item/cidrIp", "0.0.0.0/0"),
        ("ipPermissions/item/prefixListIds", ""),
        ("ipPermissions/item/ipv6Ranges", ""),
        ("ipPermissionsEgress", ""),
        ("ipPermissionsEgress/item", ""),
        ("ipPermissionsEgress/item/ipProtocol", "-1"),
        ("ipPermissionsEgress/item/groups", ""),
        ("ipPermissionsEgress/item/ipRanges", ""),
        ("ipPermissionsEgress/item/ipRanges/item", ""),
        ("ipPermissionsEgress/item/ipRanges/item/cidrIp", "0.0.0.0/0"),
        ("ipPermissionsEgress/item/prefixListIds", ""),
        ("ipPermissionsEgress/item/ipv6Ranges", ""),
        ("tagSet", ""),
        ("tagSet/item", ""),
        ("tagSet/item/key", "Name"),
        ("tagSet/item/value", "front"),
    ];
    assert_eq!(
        below(&described, "securityGroupInfo/item/"),
        owned(&expected)
    );

    // The same words in an old version: three permissions, and ports of every protocol.
    let old = [("GroupName.1", "web")];
    let old = client.ask("DescribeSecurityGroups", OLD, &old).await.ok();
    assert_eq!(
        old.values("ipProtocol"),
        ["tcp", "tcp", "udp", "icmp", "50"]
    );
    assert_eq!(old.values("fromPort"), ["443", "0", "0", "-1", "-1"]);

    // What was described is what is revoked, name and all.
    let echo = [
        ("GroupId", id.as_str()),
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", "443"),
        ("IpPermissions.1.ToPort", "443"),
        ("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8"),
        ("IpPermissions.1.IpRanges.1.Description", "the office"),
        ("IpPermissions.1.Groups.1.GroupId", &default),
        ("IpPermissions.1.Groups.1.GroupName", "default"),
        ("IpPermissions.1.Groups.1.UserId", &account),
        ("IpPermissions.2.IpProtocol", "-1"),
        ("IpPermissions.2.Groups.1.GroupId", &id),
        ("IpPermissions.2.Groups.1.GroupName", "web"),
    ];
    client.ask(REVOKE, NEW, &echo).await.ok();
    let again = client.ask(REVOKE, NEW, &echo).await;
    assert_eq!(code_of(&again), "InvalidPermission.NotFound");
    let left = client.ask("DescribeSecurityGroups", NEW, &by_id).await.ok();
    assert_eq!(left.values("ipPermissions/item/ipProtocol"), ["50"]);
    // An id is worth as much as the name.
    let deleted = [("GroupId", id.as_str())];
    client.ask("DeleteSecurityGroup", NEW, &deleted).await.ok();
    assert_eq!(names(&client, NEW, &[]).await, ["default"]);
    let tags = client.ask("DescribeTags", NEW, &[]).await.ok();
    assert_eq!(tags.values("tagSet/item/value"), Vec::<String>::new());
    assert_eq!(cloud.engine.snapshot().stray_tags(), Vec::<String>::new());
    cloud.stop().await;
}

/// In the versions between, each by its own words.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_somebody_else_may_be_let_in() {
    let cloud = Cloud::start().await;
    let (client, stranger) = (cloud.client(), cloud.stranger().await);
    let theirs = create(&stranger, "theirs").await;
    let other = stranger.account.to_string();
    let grant = [
        ("GroupName", "default"),
        ("SourceSecurityGroupName", "theirs"),
        ("SourceSecurityGroupOwnerId", other.as_str()),
    ];
    for version in ["2006-06-26", "2007-03-01", "2010-11-15", "2011-01-01", NEW] {
        client.ask(AUTHORIZE, version, &grant).await.ok();
        let again = client.ask(AUTHORIZE, version, &grant).await;
        assert_eq!(code_of(&again), "InvalidPermission.Duplicate");
        let shown = client
            .ask("DescribeSecurityGroups", version, &[])
            .await
            .ok();
        let times = if version < "2011-01-01" { 3 } else { 1 };
        let users = shown.values("groups/item/userId");
        assert_eq!(users.iter().filter(|it| **it == other).count(), times);
        client.ask(REVOKE, version, &grant).await.ok();
    }
    client.ask(AUTHORIZE, NEW, &grant).await.ok();
    let shown = client.ask("DescribeSecurityGroups", NEW, &[]).await.ok();
    let vpc = VpcId::of(stranger.account).to_string();
    assert_eq!(shown.values("groups/item/vpcId"), [vpc.as_str()]);
    // Neither can be seen or changed from the other side, and a rule keeps no stranger from
    // deleting what is theirs.
    let by_id = [("GroupId.1", theirs.as_str())];
    let reply = client.ask("DescribeSecurityGroups", NEW, &by_id).await;
    assert_eq!(code_of(&reply), "InvalidGroup.NotFound");
    let by_id = [("GroupId", theirs.as_str())];
    let reply = client.ask("DeleteSecurityGroup", NEW, &by_id).await;
    assert_eq!(code_of(&reply), "InvalidGroup.NotFound");
    stranger.ask("DeleteSecurityGroup", NEW, &by_id).await.ok();
    // Who gets the name later is not let in.
    let later = create(&stranger, "theirs").await;
    let shown = client.ask("DescribeSecurityGroups", NEW, &[]).await.ok();
    let let_in = shown.values("groups/item/groupId");
    assert!(let_in.contains(&theirs) && !let_in.contains(&later));
    // A rule whose source is gone can be revoked in the words that it is shown in, and be granted no
    // more; the group that has the name now is another source.
    client.ask(AUTHORIZE, NEW, &grant).await.ok();
    let shown = [
        ("GroupName", "default"),
        ("IpPermissions.1.IpProtocol", "-1"),
        ("IpPermissions.1.Groups.1.UserId", &other),
        ("IpPermissions.1.Groups.1.GroupId", &theirs),
        ("IpPermissions.1.Groups.1.GroupName", "theirs"),
        ("IpPermissions.1.Groups.1.VpcId", &vpc),
    ];
    client.ask(REVOKE, NEW, &shown).await.ok();
    for action in [REVOKE, AUTHORIZE] {
        let reply = client.ask(action, NEW, &shown).await;
        assert_eq!(code_of(&reply), "InvalidGroup.NotFound");
    }
    let sources = client.ask("DescribeSecurityGroups", NEW, &[]).await.ok();
    assert_eq!(sources.values("groups/item/vpcId").len(), 1);
    assert!(sources.values("groups/item/groupId").contains(&later));
    // By the old words, too: first the one that is there, then the one that is gone.
    stranger
        .ask("DeleteSecurityGroup", NEW, &[("GroupId", &later)])
        .await
        .ok();
    client.ask(REVOKE, OLD, &grant).await.ok();
    let reply = client.ask(REVOKE, OLD, &grant).await;
    assert_eq!(code_of(&reply), "InvalidGroup.NotFound");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_pages_choose_groups() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let account = client.account.to_string();
    let vpc = VpcId::of(client.account).to_string();
    let default = SecurityGroupId::of(client.account).to_string();
    let web = create(&client, "web").await;
    create(&client, "web-2").await;
    let rule = [&[("GroupName", "web")], &WEB[1..]].concat();
    client.ask(AUTHORIZE, NEW, &rule).await.ok();
    let tag = [
        ("ResourceId.1", web.as_str()),
        ("ResourceId.2", &default),
        ("Tag.1.Key", "Name"),
        ("Tag.1.Value", "front"),
    ];
    client.ask("CreateTags", NEW, &tag).await.ok();
    let all: &[&str] = &["default", "web", "web-2"];
    for (filter, value, expected) in [
        ("group-name", "web*", &["web", "web-2"][..]),
        ("group-id", &web, &["web"]),
        ("description", "for tests", &["web", "web-2"]),
        ("description", "default group", &["default"]),
        ("owner-id", &account, all),
        ("owner-id", "000000000002", &[]),
        ("vpc-id", &vpc, all),
        ("ip-permission.cidr", "0.0.0.0/0", &["web"]),
        ("ip-permission.from-port", "80", &["web"]),
        ("ip-permission.to-port", "8?", &["web"]),
        ("ip-permission.protocol", "tcp", &["web"]),
        ("ip-permission.protocol", "-1", &["default"]),
        ("ip-permission.group-id", &default, &["default"]),
        ("ip-permission.group-name", "default", &["default"]),
        ("ip-permission.user-id", &account, &["default"]),
        ("ip-permission.ipv6-cidr", "::/0", &[]),
        ("egress.ip-permission.protocol", "-1", all),
        ("egress.ip-permission.cidr", "0.0.0.0/0", all),
        ("egress.ip-permission.from-port", "*", &[]),
        ("egress.ip-permission.prefix-list-id", "*", &[]),
        ("tag:Name", "front", &["default", "web"]),
        ("tag:name", "*", &[]),
        ("tag-key", "Name", &["default", "web"]),
        ("tag-value", "fr*", &["default", "web"]),
    ] {
        let asked = [("Filter.1.Name", filter), ("Filter.1.Value.1", value)];
        assert_eq!(names(&client, NEW, &asked).await, expected, "{filter}");
    }
    // What a version shows is what its filters look at.
    for (filter, value, expected) in [
        ("ip-permission.protocol", "-1", &[][..]),
        ("ip-permission.protocol", "tcp", &["default", "web"]),
        ("ip-permission.protocol", "icmp", &["default"]),
        ("ip-permission.from-port", "-1", &["default"]),
        ("ip-permission.to-port", "65535", &["default"]),
        ("ip-permission.group-name", "default", &["default"]),
    ] {
        let asked = [("Filter.1.Name", filter), ("Filter.1.Value.1", value)];
        let found = names(&client, "2010-11-15", &asked).await;
        assert_eq!(found, expected, "{filter}");
    }
    // Names and ids together are those of both lists, each once.
    let both = [
        ("GroupName.1", "web-2"),
        ("GroupName.2", "web"),
        ("GroupId.1", &web),
    ];
    assert_eq!(names(&client, NEW, &both).await, ["web-2", "web"]);
    // By pages: each group once.
    for number in 3..9 {
        create(&client, &format!("web-{number}")).await;
    }
    let mut seen: Vec<String> = vec![];
    let mut token = String::new();
    loop {
        let mut asked = vec![("MaxResults", "5")];
        if !token.is_empty() {
            asked.push(("NextToken", &token));
        }
        let page = client.ask("DescribeSecurityGroups", NEW, &asked).await.ok();
        seen.extend(page.values("securityGroupInfo/item/groupName"));
        let Some(next) = page.value("nextToken") else {
            break;
        };
        token = next;
    }
    seen.sort();
    assert_eq!(seen, names(&client, NEW, &[]).await);
    assert_eq!(seen.len(), 9);
    for wrong in [("MaxResults", "4"), ("NextToken", "x")] {
        let reply = client.ask("DescribeSecurityGroups", NEW, &[wrong]).await;
        assert_eq!(reply.status, 400, "{wrong:?}");
    }
    cloud.stop().await;
}

/// Members hold a group while they live, and show it in the words of every version.
#[tokio::test(flavor = "multi_thread")]
async fn instances_are_in_their_groups_until_they_are_gone() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = ready_image(&cloud, &client).await;
    let web = create(&client, "web").await;
    let app = create(&client, "app").await;
    // Names and ids mixed, and one twice.
    let groups = [
        ("SecurityGroup.1", "web"),
        ("SecurityGroupId.1", &app),
        ("SecurityGroupId.2", &web),
    ];
    let launched = launch(&client, NEW, &image, &groups).await;
    assert_eq!(
        launched.values("instancesSet/item/groupSet/item/groupId"),
        [web.as_str(), &app]
    );
    let id = launched.value("instanceId").expect("an id");
    let instance = [("InstanceId.1", id.as_str())];
    let old = client.ask("DescribeInstances", OLD, &instance).await.ok();
    assert_eq!(
        old.values("reservationSet/item/groupSet/item/groupId"),
        ["web", "app"]
    );
    let between = client
        .ask("DescribeInstances", "2011-01-01", &instance)
        .await
        .ok();
    for place in ["groupSet/item/", "instancesSet/item/groupSet/item/"] {
        let of = |name: &str| between.values(&format!("reservationSet/item/{place}{name}"));
        assert_eq!(of("groupId"), [web.as_str(), &app]);
        assert_eq!(of("groupName"), ["web", "app"]);
    }
    for (filter, value, count) in [
        ("group-id", web.as_str(), 1),
        ("group-name", "app", 1),
        ("instance.group-id", &app, 1),
        ("instance.group-name", "web", 1),
        ("instance.group-name", "default", 0),
        ("group-id", "sg-12345678", 0),
    ] {
        let asked = [("Filter.1.Name", filter), ("Filter.1.Value.1", value)];
        let found = client.ask("DescribeInstances", NEW, &asked).await.ok();
        assert_eq!(found.values("instanceId").len(), count, "{filter}");
    }
    let delete = |name: &'static str| {
        let client = client.clone();
        async move {
            let name = [("GroupName", name)];
            client.ask("DeleteSecurityGroup", OLD, &name).await
        }
    };
    assert_eq!(code_of(&delete("web").await), "InvalidGroup.InUse");
    let running = id.parse().expect("an id");
    cloud.wait_for(running, InstanceState::Running).await;
    client.ask("TerminateInstances", OLD, &instance).await.ok();
    cloud.wait_for(running, InstanceState::Terminated).await;
    // A rule of another group holds it, its own does not.
    let grant = |group: &'static str, peer: &'static str| {
        let owner = client.account.to_string();
        let client = client.clone();
        async move {
            let grant = [
                ("GroupName", group),
                ("SourceSecurityGroupName", peer),
                ("SourceSecurityGroupOwnerId", owner.as_str()),
            ];
            client.ask(AUTHORIZE, OLD, &grant).await.ok();
        }
    };
    grant("web", "web").await;
    grant("app", "web").await;
    assert_eq!(code_of(&delete("web").await), "InvalidGroup.InUse");
    delete("app").await.ok();
    delete("web").await.ok();
    assert_eq!(code_of(&delete("web").await), "InvalidGroup.NotFound");
    // The reservation remembers what it was.
    let old = client.ask("DescribeInstances", OLD, &instance).await.ok();
    assert_eq!(
        old.values("reservationSet/item/groupSet/item/groupId"),
        ["web", "app"]
    );
    // And another group of that name is another one.
    assert_ne!(create(&client, "web").await, web);
    delete("web").await.ok();
    cloud.stop().await;
}

/// Where machines are real nothing carries rules out: none is shown, and none can be made.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_nobody_carries_out_are_refused_and_not_shown() {
    let cloud = Cloud::start_as(Setup {
        carries_rules_out: false,
        ..Setup::default()
    })
    .await;
    let client = cloud.client();
    let account = client.account.to_string();
    create(&client, "web").await;
    let rule = [&[("GroupName", "web")], &WEB[1..]].concat();
    for operation in [AUTHORIZE, REVOKE] {
        for version in [OLD, NEW] {
            let reply = client.ask(operation, version, &rule).await;
            assert_eq!(code_of(&reply), "UnsupportedOperation");
            assert!(
                reply.text.contains("Rules of security groups"),
                "{}",
                reply.text
            );
        }
    }
    let shown = client.ask("DescribeSecurityGroups", OLD, &[]).await.ok();
    let expected = describes(&format!(
        "{}{}",
        listed(&account, "default", "default group", ""),
        listed(&account, "web", "for tests", "")
    ));
    assert_eq!(shown.text.trim_start_matches(HEAD), expected);
    assert!(!shown.text.contains(&whole(&account, "default")));
    let asked = [
        ("Filter.1.Name", "ip-permission.user-id"),
        ("Filter.1.Value.1", "*"),
    ];
    assert_eq!(names(&client, NEW, &asked).await, Vec::<String>::new());
    cloud.stop().await;
}
