//! What is read beside instances: networks, ports, root disks, types and attributes, of whom, by
//! which filters, and page by page.

mod common;

use common::{Client, Cloud, Reply};
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{ImageId, InstanceId, SubnetId, VpcId};

const NEW: &str = "2016-11-15";

async fn image(cloud: &Cloud, client: &Client) -> String {
    cloud.add_kernel().await;
    cloud.upload_bundle("good", &[], false);
    let location = [("ImageLocation", "bucket/good.manifest.xml")];
    let reply = client.ask("RegisterImage", NEW, &location).await.ok();
    let id = reply.value("imageId").expect("an id");
    cloud
        .wait_for_image(id.parse::<ImageId>().expect("an id"))
        .await;
    let public = [
        ("ImageId", id.as_str()),
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserGroup.1", "all"),
    ];
    client.ask("ModifyImageAttribute", NEW, &public).await.ok();
    id
}

/// A running instance with user data.
async fn run(cloud: &Cloud, client: &Client, image: &str, kind: &str) -> String {
    let request = [
        ("ImageId", image),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", kind),
        ("UserData", "aGVsbG8="),
    ];
    let reply = client.ask("RunInstances", NEW, &request).await.ok();
    let id = reply.value("instanceId").expect("an id");
    let parsed: InstanceId = id.parse().expect("an id");
    cloud.wait_for(parsed, InstanceState::Running).await;
    id
}

async fn terminate(cloud: &Cloud, client: &Client, id: &str) {
    let ids = [("InstanceId.1", id)];
    client.ask("TerminateInstances", NEW, &ids).await.ok();
    let parsed: InstanceId = id.parse().expect("an id");
    cloud.wait_for(parsed, InstanceState::Terminated).await;
}

/// The values of an element of all that pass one filter.
async fn filtered(client: &Client, action: &str, filter: (&str, &str), name: &str) -> Vec<String> {
    let pairs = [("Filter.1.Name", filter.0), ("Filter.1.Value.1", filter.1)];
    let reply = client.ask(action, NEW, &pairs).await.ok();
    reply.values(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_account_has_a_network_and_sees_no_other() {
    let cloud = Cloud::start().await;
    let (one, other) = (cloud.client(), cloud.stranger().await);
    for (action, list, element, own, others, code) in [
        (
            "DescribeVpcs",
            "VpcId.1",
            "vpcSet/item/vpcId",
            VpcId::of(one.account).to_string(),
            VpcId::of(other.account).to_string(),
            "InvalidVpcID",
        ),
        (
            "DescribeSubnets",
            "SubnetId.1",
            "subnetSet/item/subnetId",
            SubnetId::of(one.account).to_string(),
            SubnetId::of(other.account).to_string(),
            "InvalidSubnetID",
        ),
    ] {
        for pairs in [vec![], vec![(list, own.as_str())]] {
            let reply = one.ask(action, NEW, &pairs).await.ok();
            assert_eq!(reply.values(element), std::slice::from_ref(&own));
        }
        let refused = one.ask(action, NEW, &[(list, &others)]).await;
        assert_eq!(refused.code(400), format!("{code}.NotFound"));
        let refused = one.ask(action, NEW, &[(list, "vpc-x")]).await;
        assert_eq!(refused.code(400), format!("{code}.Malformed"));
        let dry = one.ask(action, NEW, &[("DryRun", "true")]).await;
        assert_eq!(dry.code(412), "DryRunOperation");
        // A page of one is the last.
        let reply = one.ask(action, NEW, &[("MaxResults", "5")]).await.ok();
        assert_eq!(reply.values(element), std::slice::from_ref(&own));
        assert_eq!(reply.value("nextToken"), None);
        let vpc = VpcId::of(one.account).to_string();
        for (filter, value, is_shown) in [
            ("vpc-id", vpc.as_str(), true),
            ("vpc-id", "vpc-*", true),
            ("cidr", "10.192.0.0/12", true),
            ("cidr", "10.0.0.0/8", false),
            ("state", "pending", false),
            ("owner-id", "000000000001", true),
            ("tag:Name", "*", false),
            ("ipv6-cidr-block-association.state", "*", false),
        ] {
            let found = filtered(&one, action, (filter, value), element).await;
            assert_eq!(
                found.len(),
                usize::from(is_shown),
                "{action} {filter}={value}"
            );
        }
        let unknown = [("Filter.1.Name", "x"), ("Filter.1.Value.1", "y")];
        let refused = one.ask(action, NEW, &unknown).await;
        assert_eq!(refused.code(400), "InvalidParameterValue");
    }
    cloud.stop().await;
}

/// Ansible and Terraform read these of each network that they list.
#[tokio::test(flavor = "multi_thread")]
async fn networks_have_names_for_their_instances() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let own = VpcId::of(client.account).to_string();
    let ask = async |version: &str, vpc: &str, attribute: &str| {
        let pairs = [("VpcId", vpc), ("Attribute", attribute)];
        client.ask("DescribeVpcAttribute", version, &pairs).await
    };
    for (attribute, value) in [
        ("enableDnsSupport", "true"),
        ("enableDnsHostnames", "true"),
        ("enableNetworkAddressUsageMetrics", "false"),
    ] {
        let reply = ask(NEW, &own, attribute).await.ok();
        let path = format!("{attribute}/value");
        assert_eq!(reply.value(&path).as_deref(), Some(value));
        assert_eq!(reply.value("vpcId").as_ref(), Some(&own));
        assert_eq!(reply.values("value").len(), 1, "{}", reply.text);
    }
    let other = VpcId::of(cloud.stranger().await.account).to_string();
    for (version, vpc, attribute, code) in [
        (NEW, own.as_str(), "fun", "InvalidParameterValue"),
        (
            "2015-10-01",
            &own,
            "enableNetworkAddressUsageMetrics",
            "InvalidParameterValue",
        ),
        (NEW, &other, "enableDnsSupport", "InvalidVpcID.NotFound"),
        (NEW, "vpc-x", "enableDnsSupport", "InvalidVpcID.Malformed"),
    ] {
        let refused = ask(version, vpc, attribute).await;
        assert_eq!(refused.code(400), code, "{vpc} {attribute}");
    }
    cloud.stop().await;
}

/// Apache Libcloud asks for them with every list of instances.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_elastic_addresses() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let domain = [("Filter.1.Name", "domain"), ("Filter.1.Value.1", "*")];
    for (version, pairs) in [("2008-02-01", vec![]), (NEW, vec![]), (NEW, domain.into())] {
        let reply = client.ask("DescribeAddresses", version, &pairs).await.ok();
        assert!(reply.text.contains("<addressesSet"), "{}", reply.text);
        assert!(reply.values("publicIp").is_empty());
    }
    for (name, value, code) in [
        ("PublicIp.1", "203.0.113.7", "InvalidAddress.NotFound"),
        ("PublicIp.1", "x", "InvalidParameterValue"),
        (
            "AllocationId.1",
            "eipalloc-0123456789abcdef0",
            "InvalidAllocationID.NotFound",
        ),
        ("AllocationId.1", "eipalloc-x", "InvalidParameterValue"),
        ("Filter.1.Name", "fun", "InvalidParameterValue"),
    ] {
        let pairs = [(name, value), ("Filter.1.Value.1", "x")];
        let pairs = &pairs[..1 + usize::from(name.starts_with("Filter"))];
        let refused = client.ask("DescribeAddresses", NEW, pairs).await;
        assert_eq!(refused.code(400), code, "{value}");
        assert!(refused.text.contains(value), "{}", refused.text);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subnet_counts_addresses_of_live_instances_of_all() {
    let cloud = Cloud::start().await;
    let (one, other) = (cloud.client(), cloud.stranger().await);
    let image = image(&cloud, &one).await;
    let free = |client: Client| async move {
        let reply = client.ask("DescribeSubnets", NEW, &[]).await.ok();
        let text = reply.value("availableIpAddressCount").expect("a count");
        text.parse::<u64>().expect("a number")
    };
    let before = free(one.clone()).await;
    // 4096 blocks without their first and last address, and without the router.
    assert_eq!(before, 4096 * 254 - 1);
    let id = run(&cloud, &one, &image, "m1.small").await;
    run(&cloud, &other, &image, "m1.small").await;
    for client in [&one, &other] {
        assert_eq!(free(client.clone()).await, before - 2);
    }
    terminate(&cloud, &one, &id).await;
    assert_eq!(free(one.clone()).await, before - 1);
    cloud.stop().await;
}

/// Operation, its list of ids, the prefix of an id, the element that holds it, the code's beginning.
const BELONGINGS: [(&str, &str, &str, &str, [&str; 2]); 2] = [
    (
        "DescribeVolumes",
        "VolumeId.1",
        "vol-",
        "volumeSet/item/volumeId",
        ["InvalidVolume.NotFound", "InvalidVolumeID.Malformed"],
    ),
    (
        "DescribeNetworkInterfaces",
        "NetworkInterfaceId.1",
        "eni-",
        "networkInterfaceSet/item/networkInterfaceId",
        [
            "InvalidNetworkInterfaceID.NotFound",
            "InvalidNetworkInterfaceID.Malformed",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn disks_and_ports_come_and_go_with_their_instances() {
    let cloud = Cloud::start().await;
    let (one, other) = (cloud.client(), cloud.stranger().await);
    let image = image(&cloud, &one).await;
    let mine = run(&cloud, &one, &image, "m1.small").await;
    let theirs = run(&cloud, &other, &image, "m1.small").await;
    for (action, list, prefix, element, [missing, malformed]) in BELONGINGS {
        let own = mine.replace("i-", prefix);
        for pairs in [
            vec![],
            vec![(list, own.as_str())],
            vec![("MaxResults", "5")],
        ] {
            let reply = one.ask(action, NEW, &pairs).await.ok();
            assert_eq!(reply.values(element), std::slice::from_ref(&own));
        }
        // Another's is not there, by no way.
        let others = theirs.replace("i-", prefix);
        for (id, code) in [
            (others.as_str(), missing),
            (
                "vol-12345678",
                if prefix == "vol-" { missing } else { malformed },
            ),
            ("x", malformed),
        ] {
            let refused = one.ask(action, NEW, &[(list, id)]).await;
            assert_eq!(refused.code(400), code, "{action} {id}");
        }
        let both = [(list, own.as_str()), ("MaxResults", "5")];
        let refused = one.ask(action, NEW, &both).await;
        assert_eq!(refused.code(400), "InvalidParameterCombination");
        for (filter, value, is_shown) in [
            ("attachment.instance-id", mine.as_str(), true),
            ("attachment.instance-id", theirs.as_str(), false),
            ("attachment.status", "attached", true),
            ("attachment.delete-on-termination", "true", true),
            ("status", "in-use", true),
            ("status", "available", false),
            ("availability-zone", "us-east-1a", true),
            ("tag-key", "of", false),
        ] {
            let found = filtered(&one, action, (filter, value), element).await;
            assert_eq!(
                found.len(),
                usize::from(is_shown),
                "{action} {filter}={value}"
            );
        }
        let tag = [
            ("ResourceId.1", own.as_str()),
            ("Tag.1.Key", "of"),
            ("Tag.1.Value", "me"),
        ];
        one.ask("CreateTags", NEW, &tag).await.ok();
        assert_eq!(
            filtered(&one, action, ("tag:of", "m*"), element).await,
            [own]
        );
    }
    terminate(&cloud, &one, &mine).await;
    for (action, list, prefix, element, [missing, _]) in BELONGINGS {
        let reply = one.ask(action, NEW, &[]).await.ok();
        assert_eq!(reply.values(element), Vec::<String>::new());
        let own = mine.replace("i-", prefix);
        let refused = one.ask(action, NEW, &[(list, &own)]).await;
        assert_eq!(refused.code(400), missing);
    }
    cloud.stop().await;
}

async fn pages(client: &Client, action: &str, element: &str) -> (Vec<String>, usize) {
    let mut found = vec![];
    let mut token: Option<String> = None;
    for count in 1..100 {
        let mut pairs = vec![("MaxResults", "5")];
        pairs.extend(token.as_deref().map(|token| ("NextToken", token)));
        let reply = client.ask(action, NEW, &pairs).await.ok();
        let page = reply.values(element);
        assert!(page.len() <= 5, "{}", reply.text);
        found.extend(page);
        token = reply.value("nextToken");
        if token.is_none() {
            return (found, count);
        }
    }
    panic!("{action} never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_thing_once_and_in_order() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = image(&cloud, &client).await;
    let mut ids = vec![];
    for _ in 0..10 {
        ids.push(run(&cloud, &client, &image, "t2.nano").await);
    }
    ids.sort();
    for (action, _, prefix, element, _) in BELONGINGS {
        let expected: Vec<String> = ids.iter().map(|id| id.replace("i-", prefix)).collect();
        assert_eq!(pages(&client, action, element).await, (expected, 2));
        let few = client.ask(action, NEW, &[("MaxResults", "4")]).await;
        assert_eq!(few.code(400), "InvalidParameterValue");
        let bad = client.ask(action, NEW, &[("NextToken", "x")]).await;
        assert_eq!(bad.code(400), "InvalidNextToken");
    }
    let mut types: Vec<String> = cumulet_domain::instance_types::default_table()
        .into_iter()
        .map(|it| it.name)
        .collect();
    types.sort();
    for (action, element) in [
        ("DescribeInstanceTypes", "instanceTypeSet/item/instanceType"),
        (
            "DescribeInstanceTypeOfferings",
            "instanceTypeOfferingSet/item/instanceType",
        ),
    ] {
        assert_eq!(pages(&client, action, element).await, (types.clone(), 3));
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_those_of_the_table() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let action = "DescribeInstanceTypes";
    let element = "instanceTypeSet/item/instanceType";
    for (filter, value, expected) in [
        (
            "instance-type",
            "t3.*",
            vec!["t3.micro", "t3.nano", "t3.small"],
        ),
        ("memory-info.size-in-mib", "7680", vec!["m1.large"]),
        ("vcpu-info.default-vcpus", "4", vec![]),
        ("burstable-performance-supported", "true", vec![]),
        ("hypervisor", "*", vec![]),
        (
            "instance-storage-info.total-size-in-gb",
            "840",
            vec!["m1.large"],
        ),
    ] {
        let found = filtered(&client, action, (filter, value), element).await;
        assert_eq!(found, expected, "{filter}={value}");
    }
    let asked = [("InstanceType.1", "m1.small"), ("InstanceType.2", "x9.big")];
    let refused = client.ask(action, NEW, &asked).await;
    assert_eq!(refused.code(400), "InvalidInstanceType");
    assert!(refused.text.contains("[x9.big]"), "{}", refused.text);
    for (kind, location) in [
        ("region", Some("us-east-1")),
        ("availability-zone", Some("us-east-1a")),
        ("availability-zone-id", Some("us-east-1-az1")),
        ("outpost", None),
    ] {
        let pairs = [
            ("LocationType", kind),
            ("Filter.1.Name", "instance-type"),
            ("Filter.1.Value.1", "m1.small"),
        ];
        let reply = client
            .ask("DescribeInstanceTypeOfferings", NEW, &pairs)
            .await
            .ok();
        assert_eq!(reply.value("location").as_deref(), location, "{kind}");
    }
    let moon = [("LocationType", "moon")];
    let refused = client
        .ask("DescribeInstanceTypeOfferings", NEW, &moon)
        .await;
    assert_eq!(refused.code(400), "InvalidParameterValue");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_say_what_they_may_use() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let values = |reply: &Reply| {
        let names = reply.values("accountAttributeSet/item/attributeName");
        let values = reply.values("attributeValueSet/item/attributeValue");
        names.into_iter().zip(values).collect::<Vec<_>>()
    };
    let all = client.ask("DescribeAccountAttributes", NEW, &[]).await.ok();
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        values(&all),
        [
            own("supported-platforms", "VPC"),
            own("default-vpc", &VpcId::of(client.account).to_string()),
            own("max-instances", "1000"),
            own("max-elastic-ips", "0"),
            own("vpc-max-elastic-ips", "0"),
        ]
    );
    let limit = cloud.engine.set_instance_limit(client.account, Some(3));
    limit.await.expect("set");
    let one = [("AttributeName.1", "max-instances")];
    let reply = client
        .ask("DescribeAccountAttributes", NEW, &one)
        .await
        .ok();
    assert_eq!(values(&reply), [own("max-instances", "3")]);
    let unknown = [("AttributeName.1", "max-fun")];
    let refused = client.ask("DescribeAccountAttributes", NEW, &unknown).await;
    assert_eq!(refused.code(400), "InvalidParameterValue");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_instances_are_read_by_their_owners() {
    let cloud = Cloud::start().await;
    let (client, other) = (cloud.client(), cloud.stranger().await);
    let image = image(&cloud, &client).await;
    let id = run(&cloud, &client, &image, "t2.micro").await;
    let ask = |client: Client, version: &'static str, id: String, name: &'static str| async move {
        let pairs = [("InstanceId", id.as_str()), ("Attribute", name)];
        client
            .ask("DescribeInstanceAttribute", version, &pairs)
            .await
    };
    for (name, value) in [
        ("instanceType", Some("t2.micro")),
        ("userData", Some("aGVsbG8=")),
        ("disableApiTermination", Some("false")),
        ("disableApiStop", Some("false")),
        ("instanceInitiatedShutdownBehavior", Some("terminate")),
        ("rootDeviceName", Some("/dev/sda1")),
        ("sourceDestCheck", Some("true")),
        ("ebsOptimized", Some("false")),
        ("enaSupport", Some("false")),
        ("ramdisk", None),
        ("sriovNetSupport", None),
    ] {
        let reply = ask(client.clone(), NEW, id.clone(), name).await.ok();
        let found = reply.value(&format!("{name}/value"));
        assert_eq!(found.as_deref(), value, "{name}");
        assert!(reply.paths().contains(name), "{}", reply.text);
    }
    // What a version has no word for it does not answer.
    for (version, name) in [
        ("2009-10-31", "sourceDestCheck"),
        ("2012-06-15", "ebsOptimized"),
        ("2015-10-01", "enaSupport"),
        (NEW, "colour"),
    ] {
        let refused = ask(client.clone(), version, id.clone(), name).await;
        assert_eq!(
            refused.code(400),
            "InvalidParameterValue",
            "{version} {name}"
        );
    }
    let refused = ask(other.clone(), NEW, id.clone(), "userData").await;
    assert_eq!(refused.code(400), "InvalidInstanceID.NotFound");
    let refused = ask(client.clone(), NEW, "i-x".into(), "userData").await;
    assert_eq!(refused.code(400), "InvalidInstanceID.Malformed");
    // Without ids those that may borrow without limit are listed: none.
    let credits = "DescribeInstanceCreditSpecifications";
    let reply = client.ask(credits, NEW, &[]).await.ok();
    assert_eq!(reply.values("cpuCredits"), Vec::<String>::new());
    let by_id = [("InstanceId.1", id.as_str())];
    let refused = other.ask(credits, NEW, &by_id).await;
    assert_eq!(refused.code(400), "InvalidInstanceID.NotFound");
    let gone = [("InstanceId.1", "i-12345678")];
    let refused = client.ask(credits, NEW, &gone).await;
    assert_eq!(refused.code(400), "InvalidInstanceID.NotFound");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_disks_are_no_volumes_of_the_first_versions() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = image(&cloud, &client).await;
    let id = run(&cloud, &client, &image, "m1.small").await;
    let volume = id.replace("i-", "vol-");
    let none = client.ask("DescribeVolumes", "2009-08-15", &[]).await.ok();
    assert_eq!(none.values("volumeId"), Vec::<String>::new());
    let by_id = [("VolumeId.1", volume.as_str())];
    let refused = client.ask("DescribeVolumes", "2009-08-15", &by_id).await;
    assert_eq!(refused.code(400), "InvalidVolume.NotFound");
    let one = client
        .ask("DescribeVolumes", "2009-10-31", &by_id)
        .await
        .ok();
    assert_eq!(one.value("volumeSet/item/size").as_deref(), Some("148"));
    cloud.stop().await;
}
