//! Every refusal, in both bindings.

use crate::common::Cloud;
use crate::{
    AUTHORIZE, NEW, OLD, REVOKE, WEB, askers, change, code_of, create, inside, launch, pair,
    permission, range, ready_image, yes,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_code_in_both_bindings() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = ready_image(&cloud, &client).await;
    let account = client.account.to_string();
    for name in ["web", "used"] {
        create(&client, name).await;
    }
    launch(&client, OLD, &image, &[("SecurityGroup.1", "used")]).await;
    let web = [&[("GroupName", "web")], &WEB[1..]].concat();
    client.ask(AUTHORIZE, OLD, &web).await.ok();
    let there = permission("tcp", 80, 80, "", &range("0.0.0.0/0"));
    let named = |operation: &'static str, name: &'static str, code: &'static str| {
        let query = match operation {
            "CreateSecurityGroup" => vec![("GroupName", name), ("GroupDescription", "d")],
            "DescribeSecurityGroups" => vec![("GroupName.1", name)],
            _ => vec![("GroupName", name)],
        };
        let message = match operation {
            "CreateSecurityGroup" => {
                format!("<groupName>{name}</groupName><groupDescription>d</groupDescription>")
            }
            "DescribeSecurityGroups" => format!(
                "<securityGroupSet><item><groupName>{name}</groupName></item></securityGroupSet>"
            ),
            _ => format!("<groupName>{name}</groupName>"),
        };
        (operation, query, message, code)
    };
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    let mut cases = vec![
        named("CreateSecurityGroup", "web", "InvalidGroup.Duplicate"),
        named("CreateSecurityGroup", "default", "InvalidGroup.Reserved"),
        named("CreateSecurityGroup", long, "InvalidParameterValue"),
        named("CreateSecurityGroup", "gr\u{fc}n", "InvalidParameterValue"),
        named("CreateSecurityGroup", "", "MissingParameter"),
        named(
            "DescribeSecurityGroups",
            "nobody's",
            "InvalidGroup.NotFound",
        ),
        named("DeleteSecurityGroup", "nobody's", "InvalidGroup.NotFound"),
        named("DeleteSecurityGroup", "default", "InvalidGroup.Reserved"),
        named("DeleteSecurityGroup", "used", "InvalidGroup.InUse"),
        (
            "CreateSecurityGroup",
            vec![("GroupName", "new")],
            "<groupName>new</groupName>".into(),
            "MissingParameter",
        ),
        (
            "RunInstances",
            vec![
                ("ImageId", &image),
                ("MinCount", "1"),
                ("MaxCount", "1"),
                ("SecurityGroup.1", "web"),
                ("SecurityGroup.2", "nobody's"),
            ],
            format!(
                "<instancesSet><item><imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount></item></instancesSet>\
                 <groupSet><item><groupId>web</groupId></item><item><groupId>nobody's</groupId></item></groupSet>"
            ),
            "InvalidGroup.NotFound",
        ),
        (
            REVOKE,
            vec![
                ("GroupName", "web"),
                ("SourceSecurityGroupName", "web"),
                ("SourceSecurityGroupOwnerId", &account),
            ],
            change("web", &[permission("tcp", 1, 2, &pair("", "web"), "")]),
            "InvalidPermission.NotFound",
        ),
        (
            AUTHORIZE,
            vec![
                ("GroupName", "web"),
                ("SourceSecurityGroupName", "nobody's"),
                ("SourceSecurityGroupOwnerId", &account),
            ],
            change("web", &[permission("tcp", 1, 2, &pair("", "nobody's"), "")]),
            "InvalidGroup.NotFound",
        ),
        (
            AUTHORIZE,
            vec![
                ("GroupName", "web"),
                ("SourceSecurityGroupName", "web"),
                ("SourceSecurityGroupOwnerId", "AKIDFIRST"),
            ],
            change(
                "web",
                &[permission("tcp", 1, 2, &pair("AKIDFIRST", "web"), "")],
            ),
            "InvalidUserID.Malformed",
        ),
        (
            REVOKE,
            vec![("GroupName", "web")],
            "<userId></userId><groupName>web</groupName><ipPermissions></ipPermissions>".into(),
            "MissingParameter",
        ),
    ];
    for operation in [AUTHORIZE, REVOKE] {
        for (protocol, from, to, cidr) in [
            ("gre", "0", "0", "0.0.0.0/0"),
            ("-1", "-1", "-1", "0.0.0.0/0"),
            ("tcp", "-1", "-1", "0.0.0.0/0"),
            ("tcp", "0", "65536", "0.0.0.0/0"),
            ("udp", "2", "1", "0.0.0.0/0"),
            ("icmp", "-1", "3", "0.0.0.0/0"),
            ("tcp", "1", "2", "0.0.0.0"),
            ("tcp", "1", "2", "::/0"),
        ] {
            let query = vec![
                ("GroupName", "web"),
                ("IpProtocol", protocol),
                ("FromPort", from),
                ("ToPort", to),
                ("CidrIp", cidr),
            ];
            let (from, to) = (
                from.parse().expect("a number"),
                to.parse().expect("a number"),
            );
            let message = change("web", &[permission(protocol, from, to, "", &range(cidr))]);
            cases.push((operation, query, message, "InvalidPermission.Malformed"));
        }
        let query = [&[("GroupName", "nobody's")], &WEB[1..]].concat();
        let message = change("nobody's", std::slice::from_ref(&there));
        cases.push((operation, query, message, "InvalidGroup.NotFound"));
    }
    cases.push((
        AUTHORIZE,
        web.clone(),
        change("web", &[there]),
        "InvalidPermission.Duplicate",
    ));
    for asker in askers(&cloud).await {
        for (operation, query, message, code) in &cases {
            let found = asker.code(operation, query, message).await;
            assert_eq!(found, *code, "{operation} {query:?}");
        }
    }
    cloud.stop().await;
}

/// Operation, version, lists of parameters, and the code.
type Mixed<'a> = (&'a str, &'a str, Vec<&'a [(&'a str, &'a str)]>, &'a str);

/// What only one binding, or only later versions, can say wrong.
#[tokio::test(flavor = "multi_thread")]
async fn shapes_are_not_mixed_and_not_those_of_other_versions() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let web = create(&client, "web").await;
    let pair = [
        ("SourceSecurityGroupName", "web"),
        ("SourceSecurityGroupOwnerId", "000000000001"),
    ];
    let listed = [
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", "1"),
        ("IpPermissions.1.ToPort", "1"),
    ];
    let named = [("GroupName", "web")];
    let id = [("GroupId", web.as_str())];
    let cidr = [("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8")];
    let other_vpc = [("VpcId", "vpc-12345678")];
    let group = [("GroupName", "new"), ("GroupDescription", "d")];
    let both = [
        ("IpPermissions.1.Groups.1.GroupId", web.as_str()),
        ("IpPermissions.1.Groups.1.GroupName", "default"),
    ];
    let cases: Vec<Mixed<'_>> = vec![
        (
            AUTHORIZE,
            OLD,
            vec![&WEB, &pair],
            "InvalidParameterCombination",
        ),
        (
            AUTHORIZE,
            OLD,
            vec![&WEB, &pair[..1]],
            "InvalidParameterCombination",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&WEB, &listed],
            "InvalidParameterCombination",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &pair, &listed],
            "InvalidParameterCombination",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &id, &listed, &cidr],
            "InvalidParameterCombination",
        ),
        (
            AUTHORIZE,
            OLD,
            vec![&named, &listed, &cidr],
            "UnknownParameter",
        ),
        (AUTHORIZE, OLD, vec![&id, &WEB[1..]], "UnknownParameter"),
        (
            AUTHORIZE,
            OLD,
            vec![&WEB, &[("UserId", "000000000001")]],
            "UnknownParameter",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&WEB, &[("UserId", "000000000001")]],
            "UnknownParameter",
        ),
        (AUTHORIZE, OLD, vec![&named, &pair[..1]], "MissingParameter"),
        (AUTHORIZE, OLD, vec![&named, &pair[1..]], "MissingParameter"),
        (AUTHORIZE, OLD, vec![&WEB[..4]], "MissingParameter"),
        (
            AUTHORIZE,
            OLD,
            vec![&WEB[..3], &WEB[4..]],
            "MissingParameter",
        ),
        (AUTHORIZE, OLD, vec![&WEB[1..]], "MissingParameter"),
        (AUTHORIZE, NEW, vec![&named], "MissingParameter"),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &listed],
            "InvalidPermission.Malformed",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &listed[..1], &cidr],
            "InvalidPermission.Malformed",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &listed[1..], &cidr],
            "MissingParameter",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![
                &named,
                &listed,
                &[("IpPermissions.1.Groups.1.UserId", "000000000001")],
            ],
            "MissingParameter",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![&named, &listed, &both],
            "InvalidGroup.NotFound",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![
                &named,
                &listed,
                &[
                    ("IpPermissions.1.Groups.1.GroupName", "default"),
                    ("IpPermissions.1.Groups.1.UserId", "999999999999"),
                ],
            ],
            "InvalidGroup.NotFound",
        ),
        (
            AUTHORIZE,
            NEW,
            vec![
                &named,
                &listed,
                &[("IpPermissions.1.Ipv6Ranges.1.CidrIpv6", "::/0")],
            ],
            "UnsupportedOperation",
        ),
        (
            "DeleteSecurityGroup",
            NEW,
            vec![&[("GroupId", "web")]],
            "InvalidGroupId.Malformed",
        ),
        (
            "DeleteSecurityGroup",
            NEW,
            vec![&[("GroupId", "sg-12345678")]],
            "InvalidGroup.NotFound",
        ),
        ("DeleteSecurityGroup", NEW, vec![], "MissingParameter"),
        (
            "DescribeSecurityGroups",
            NEW,
            vec![&[("GroupId.1", "sg-1")]],
            "InvalidGroupId.Malformed",
        ),
        (
            "DescribeSecurityGroups",
            NEW,
            vec![&[("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")]],
            "InvalidParameterValue",
        ),
        (
            "CreateSecurityGroup",
            NEW,
            vec![&group, &other_vpc],
            "InvalidVpcID.NotFound",
        ),
        (
            "CreateSecurityGroup",
            NEW,
            vec![&group, &[("VpcId", "mine")]],
            "InvalidVpcID.Malformed",
        ),
        (
            "AuthorizeSecurityGroupEgress",
            NEW,
            vec![&id],
            "UnsupportedOperation",
        ),
        (
            "RevokeSecurityGroupEgress",
            NEW,
            vec![&id],
            "UnsupportedOperation",
        ),
        (
            "RevokeSecurityGroupEgress",
            OLD,
            vec![&named],
            "InvalidAction",
        ),
        (
            "CreateSecurityGroup",
            NEW,
            vec![&group, &[("DryRun", "true")]],
            "DryRunOperation",
        ),
    ];
    for (operation, version, parts, code) in cases {
        let reply = client.ask(operation, version, &parts.concat()).await;
        assert_eq!(
            code_of(&reply),
            code,
            "{operation} {version} {parts:?}: {}",
            reply.text
        );
    }
    // Without any shape the one that the version would use is named.
    for (version, named_there) in [(OLD, "IpProtocol"), (NEW, "IpPermissions")] {
        let reply = client.ask(AUTHORIZE, version, &named).await;
        assert_eq!(code_of(&reply), "MissingParameter");
        let told = format!("the parameter {named_there}<");
        assert!(reply.text.contains(&told), "{}", reply.text);
    }
    let message = change("web", &[permission("tcp", 1, 1, "", &range("0.0.0.0/0"))]);
    for (user, code) in [
        ("000000000002", "AuthFailure"),
        ("AKID", "InvalidUserID.Malformed"),
    ] {
        let message = message.replace("<userId>", &format!("<userId>{user}"));
        let reply = client.soap(AUTHORIZE, OLD, &message).await;
        assert_eq!(code_of(&reply), code, "{}", reply.text);
    }
    let own = message.replace("<userId>", &format!("<userId>{}", client.account));
    assert_eq!(
        inside(&client.soap(AUTHORIZE, OLD, &own).await),
        yes(AUTHORIZE)
    );
    cloud.stop().await;
}
