//! What a launch says of its machine: taken if it is so, and refused with what is so.

mod common;

use common::{Client, Cloud, Reply};
use cumulet_domain::instances::InstanceState;

const NEW: &str = "2016-11-15";

async fn world() -> (Cloud, Client, String) {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = cloud.image(client.account, "an-image", true).await;
    (cloud, client, image.to_string())
}

async fn run(client: &Client, image: &str, more: &[(&str, &str)]) -> Reply {
    let usual = [("ImageId", image), ("MinCount", "1"), ("MaxCount", "1")];
    client
        .ask("RunInstances", NEW, &[&usual, more].concat())
        .await
}

/// What is true of every launch of this image as this type, as tools say it.
const SO: &[&[(&str, &str)]] = &[
    &[
        ("CpuOptions.CoreCount", "2"),
        ("CpuOptions.ThreadsPerCore", "1"),
        ("CpuOptions.AmdSevSnp", "disabled"),
    ],
    &[("CreditSpecification.CpuCredits", "standard")],
    &[("Placement.AvailabilityZoneId", "us-east-1-az1")],
    &[
        ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "standard"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("BlockDeviceMapping.1.Ebs.Encrypted", "false"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sdb"),
        ("BlockDeviceMapping.2.NoDevice", ""),
    ],
    &[
        ("NetworkInterface.1.DeviceIndex", "0"),
        ("NetworkInterface.1.SecondaryPrivateIpAddressCount", "0"),
        ("NetworkInterface.1.Ipv4PrefixCount", "0"),
        ("NetworkInterface.1.PrimaryIpv6", "false"),
    ],
];

/// Parameters, the code that answers them, and what its message says.
type Refusal = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

/// What is not; the message names the value.
const NOT_SO: &[Refusal] = &[
    (
        &[("CpuOptions.CoreCount", "4")],
        "UnsupportedOperation",
        "CpuOptions.CoreCount 4 is not supported here: it is 2",
    ),
    (
        &[("CpuOptions.ThreadsPerCore", "2")],
        "UnsupportedOperation",
        "CpuOptions.ThreadsPerCore 2",
    ),
    (
        &[("MetadataOptions.HttpTokens", "maybe")],
        "InvalidParameterValue",
        "'maybe' for MetadataOptions.HttpTokens",
    ),
    (
        &[("MetadataOptions.HttpPutResponseHopLimit", "65")],
        "InvalidParameterValue",
        "HttpPutResponseHopLimit (65)",
    ),
    (
        &[
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.2.DeviceIndex", "1"),
        ],
        "UnsupportedOperation",
        "NetworkInterface.2 is not supported here",
    ),
    (
        &[("NetworkInterface.1.DeviceIndex", "3")],
        "UnsupportedOperation",
        "NetworkInterface.1.DeviceIndex 3",
    ),
    (
        &[("CreditSpecification.CpuCredits", "unlimited")],
        "UnsupportedOperation",
        "CreditSpecification.CpuCredits",
    ),
    (
        &[("Placement.AvailabilityZoneId", "use1-az2")],
        "InvalidParameterValue",
        "[use1-az2]",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "20"),
        ],
        "UnsupportedOperation",
        "BlockDeviceMapping.1 (a volume of 20 GiB at /dev/sda)",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sdb"),
            ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ],
        "UnsupportedOperation",
        "at /dev/sdb",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
            ("BlockDeviceMapping.1.NoDevice", ""),
        ],
        "UnsupportedOperation",
        "no device at /dev/sda",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sdb"),
            ("BlockDeviceMapping.1.VirtualName", "ephemeral0"),
        ],
        "UnsupportedOperation",
        "ephemeral0 at /dev/sdb",
    ),
    (
        &[("BlockDeviceMapping.1.VirtualName", "ephemeral0")],
        "MissingParameter",
        "BlockDeviceMapping.1.DeviceName",
    ),
    (
        &[("BlockDeviceMapping.1.DeviceName", "/dev/sda")],
        "InvalidParameterCombination",
        "BlockDeviceMapping.1.DeviceName",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
            ("BlockDeviceMapping.1.VirtualName", "ami"),
        ],
        "InvalidParameterCombination",
        "BlockDeviceMapping.1.DeviceName",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "C:"),
            ("BlockDeviceMapping.1.NoDevice", ""),
        ],
        "InvalidParameterValue",
        "device name C:",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
            ("BlockDeviceMapping.1.Ebs.VolumeType", "io2"),
        ],
        "UnsupportedOperation",
        "given as 'io2', is not supported here, unless it is 'standard'",
    ),
    (
        &[
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
            ("BlockDeviceMapping.2.DeviceName", "sda"),
            ("BlockDeviceMapping.2.Ebs.VolumeSize", "8"),
        ],
        "InvalidBlockDeviceMapping",
        "BlockDeviceMapping.2 has the device 'sda'",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_machine_is_taken_if_it_is_so() {
    let (cloud, client, image) = world().await;
    let kind = ("InstanceType", "t3.micro");
    for more in SO {
        let launched = run(&client, &image, &[&[kind], *more].concat()).await.ok();
        assert_eq!(launched.values("instanceId").len(), 1, "{more:?}");
    }
    let before = cloud.engine.snapshot().instances.len();
    for (more, code, says) in NOT_SO {
        let refused = run(&client, &image, &[&[kind], *more].concat()).await;
        assert_eq!(&refused.code(400), code, "{more:?}: {}", refused.text);
        assert!(refused.text.contains(says), "{}", refused.text);
    }
    assert_eq!(cloud.engine.snapshot().instances.len(), before);
    // A token stands for what was said, too.
    let token = ("ClientToken", "once");
    let cores = ("CpuOptions.CoreCount", "2");
    run(&client, &image, &[kind, token, cores]).await.ok();
    run(&client, &image, &[kind, token, cores]).await.ok();
    let otherwise = run(&client, &image, &[kind, token]).await;
    assert_eq!(otherwise.code(400), "IdempotentParameterMismatch");
    cloud.stop().await;
}

/// The disk of 2007, as clients of 2008 named what is on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_devices_of_the_first_images_are_named_as_they_are() {
    const OLD: &str = "2008-02-01";
    let (cloud, client, disk) = world().await;
    cloud.upload_bundle("old", &[], false);
    let location = [("ImageLocation", "bucket/old.manifest.xml")];
    let image = client.ask("RegisterImage", OLD, &location).await.ok();
    let image = image.value("imageId").unwrap();
    let usual = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("BlockDeviceMapping.1.DeviceName", "sda2"),
        ("BlockDeviceMapping.1.VirtualName", "ephemeral0"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sda3"),
        ("BlockDeviceMapping.2.VirtualName", "swap"),
    ];
    cloud.wait_for_image(image.parse().unwrap()).await;
    client.ask("RunInstances", OLD, &usual).await.ok();
    // It boots with the one kernel that there is, as DescribeInstances says, and with no other.
    let boots_with = |kernel: String| {
        let (client, image) = (client.clone(), image.clone());
        async move {
            let kernel = [("KernelId", kernel.as_str())];
            run(&client, &image, &kernel).await
        }
    };
    let other = boots_with("aki-12345678".into()).await;
    assert_eq!(other.code(400), "UnsupportedOperation");
    assert!(
        other.text.contains("KernelId aki-12345678"),
        "{}",
        other.text
    );
    let kernel = cloud.add_kernel().await;
    let launched = boots_with(kernel.to_string()).await.ok();
    assert_eq!(launched.of_instance("kernelId"), [kernel.to_string()]);
    let other = boots_with("aki-12345678".into()).await;
    assert!(other.text.contains(&kernel.to_string()), "{}", other.text);
    let malformed = boots_with("vmlinuz".into()).await;
    assert_eq!(malformed.code(400), "InvalidAMIID.Malformed");
    let of_disk = run(&client, &disk, &[("KernelId", &kernel.to_string())]).await;
    assert_eq!(of_disk.code(400), "UnsupportedOperation");
    let said = |device: &str| {
        format!(
            "<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount><groupSet></groupSet>\
             <blockDeviceMapping><item><virtualName>ephemeral0</virtualName><deviceName>{device}</deviceName></item></blockDeviceMapping>"
        )
    };
    let launched = client.soap("RunInstances", OLD, &said("sda2")).await;
    assert_eq!(launched.status, 200, "{}", launched.text);
    let refused = client.soap("RunInstances", OLD, &said("sdb")).await;
    assert!(
        refused.text.contains("Client.UnsupportedOperation"),
        "{}",
        refused.text
    );
    cloud.stop().await;
}

/// The address of the only instance of an answer.
fn address(reply: &Reply) -> Vec<String> {
    reply.of_instance("privateIpAddress")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_asked_for_is_had_by_one() {
    let (cloud, client, image) = world().await;
    let network = cloud.engine.describe_network(&cumulet_engine::Caller {
        account: client.account,
        user: "alice".into(),
    });
    let [a, b, c, _] = network.range.address.octets();
    let at = |last: u8| format!("{a}.{b}.{c}.{last}");
    let (wanted, other) = (at(77), at(78));
    let token = ("ClientToken", "fixed");
    let ask = [("PrivateIpAddress", wanted.as_str()), token];
    let first = run(&client, &image, &ask).await.ok();
    assert_eq!(address(&first), [wanted.as_str()]);
    // The same token gets the same answer, and not that the address is taken.
    let again = run(&client, &image, &ask).await.ok();
    assert_eq!(again.value("instanceId"), first.value("instanceId"));
    let taken = run(&client, &image, &ask[..1]).await;
    assert_eq!(taken.code(400), "InvalidIPAddress.InUse");
    assert!(taken.text.contains(&wanted), "{}", taken.text);
    // Today's clients say it of the interface, in one of two ways.
    let index = ("NetworkInterface.1.DeviceIndex", "0");
    let listed = "NetworkInterface.1.PrivateIpAddresses.1.PrivateIpAddress";
    let primary = ("NetworkInterface.1.PrivateIpAddresses.1.Primary", "true");
    let listed = [index, primary, (listed, other.as_str())];
    let second = run(&client, &image, &listed).await.ok();
    assert_eq!(address(&second), [other.as_str()]);
    let third = at(79);
    let own = [
        index,
        ("NetworkInterface.1.PrivateIpAddress", third.as_str()),
    ];
    let by_interface = run(&client, &image, &own).await.ok();
    assert_eq!(address(&by_interface), [third.as_str()]);
    // By SOAP since it had the element.
    let fourth = at(80);
    let inside = format!(
        "<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount><privateIpAddress>{fourth}</privateIpAddress>"
    );
    let by_soap = client.soap("RunInstances", "2010-06-15", &inside).await;
    assert!(by_soap.text.contains(&fourth), "{}", by_soap.text);

    let (gateway, last) = (at(1), at(255));
    for (more, code) in [
        (
            vec![("PrivateIpAddress", "8.8.8.8")],
            "InvalidParameterValue",
        ),
        (
            vec![("PrivateIpAddress", "10.0.0")],
            "InvalidParameterValue",
        ),
        (
            vec![("PrivateIpAddress", gateway.as_str())],
            "InvalidParameterValue",
        ),
        (
            vec![("PrivateIpAddress", last.as_str())],
            "InvalidParameterValue",
        ),
        (
            vec![index, ("PrivateIpAddress", "10.0.0.9")],
            "InvalidParameterCombination",
        ),
        (
            [&own[..], &listed[1..]].concat(),
            "InvalidParameterCombination",
        ),
        (vec![index, listed[2]], "UnsupportedOperation"),
    ] {
        let refused = run(&client, &image, &more).await;
        assert_eq!(refused.code(400), code, "{more:?}: {}", refused.text);
    }
    let fifth = at(90);
    let two = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "2"),
        ("PrivateIpAddress", fifth.as_str()),
    ];
    let refused = client.ask("RunInstances", NEW, &two).await;
    assert_eq!(refused.code(400), "InvalidParameterCombination");

    // Of many who ask at once one has it.
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, image, fifth) = (client.clone(), image.clone(), fifth.clone());
        asking.spawn(async move { run(&client, &image, &[("PrivateIpAddress", &fifth)]).await });
    }
    let replies = asking.join_all().await;
    let (won, lost): (Vec<Reply>, Vec<Reply>) =
        replies.into_iter().partition(|it| it.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for reply in &lost {
        assert_eq!(reply.code(400), "InvalidIPAddress.InUse");
    }

    // What others get is none of these, and what is given back may be asked for again.
    let many = [
        ("ImageId", image.as_str()),
        ("MinCount", "80"),
        ("MaxCount", "80"),
    ];
    let many = client.ask("RunInstances", NEW, &many).await.ok();
    let others = address(&many);
    assert_eq!(others.len(), 80);
    for mine in [&wanted, &other, &third, &fourth, &fifth] {
        assert!(!others.contains(mine), "{mine}");
    }
    let id = first.value("instanceId").unwrap();
    let ids = [("InstanceId.1", id.as_str())];
    client.ask("TerminateInstances", NEW, &ids).await.ok();
    cloud
        .wait_for(id.parse().unwrap(), InstanceState::Terminated)
        .await;
    let anew = run(&client, &image, &ask[..1]).await.ok();
    assert_eq!(address(&anew), [wanted]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_is_described_as_it_was_asked_for() {
    let (cloud, client, image) = world().await;
    let index = ("NetworkInterface.1.DeviceIndex", "0");
    let described = ("NetworkInterface.1.Description", "of the web server");
    let token = ("ClientToken", "once");
    let launched = run(&client, &image, &[index, described, token]).await.ok();
    let path = "networkInterfaceSet/item/description";
    assert_eq!(launched.of_instance(path), [described.1]);
    let plain = run(&client, &image, &[index]).await.ok();
    assert_eq!(plain.of_instance(path), [""]);
    let filter = [
        ("Filter.1.Name", "description"),
        ("Filter.1.Value.1", "*web*"),
    ];
    let found = client
        .ask("DescribeNetworkInterfaces", NEW, &filter)
        .await
        .ok();
    assert_eq!(
        found.values("networkInterfaceSet/item/description"),
        [described.1]
    );
    let otherwise = run(&client, &image, &[index, token]).await;
    assert_eq!(otherwise.code(400), "IdempotentParameterMismatch");
    for (length, is_taken) in [(255, true), (256, false)] {
        let text = "\u{e4}".repeat(length);
        let long = ("NetworkInterface.1.Description", text.as_str());
        let reply = run(&client, &image, &[index, long]).await;
        if is_taken {
            assert_eq!(reply.ok().of_instance(path), [text]);
        } else {
            assert_eq!(reply.code(400), "InvalidParameterValue");
        }
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_names_the_groups_of_its_instance() {
    let (cloud, client, image) = world().await;
    let group = [("GroupName", "web"), ("GroupDescription", "web")];
    let group = client.ask("CreateSecurityGroup", NEW, &group).await.ok();
    let group = group.value("groupId").unwrap();
    let index = ("NetworkInterface.1.DeviceIndex", "0");
    let named = ("NetworkInterface.1.SecurityGroupId.1", group.as_str());
    let launched = run(&client, &image, &[index, named]).await.ok();
    for path in [
        "groupSet/item/groupId",
        "networkInterfaceSet/item/groupSet/item/groupId",
    ] {
        let found = launched.of_instance(path);
        assert_eq!(found, [group.as_str()], "{path}: {}", launched.text);
    }
    for (more, code) in [
        (
            vec![index, named, ("SecurityGroupId.1", group.as_str())],
            "InvalidParameterCombination",
        ),
        (
            vec![index, ("SecurityGroup.1", "web")],
            "InvalidParameterCombination",
        ),
        (
            vec![index, ("NetworkInterface.1.SecurityGroupId.1", "web")],
            "InvalidGroupId.Malformed",
        ),
        (
            vec![
                index,
                ("NetworkInterface.1.SecurityGroupId.1", "sg-12345678"),
            ],
            "InvalidGroup.NotFound",
        ),
    ] {
        let refused = run(&client, &image, &more).await;
        assert_eq!(refused.code(400), code, "{more:?}: {}", refused.text);
    }
    let inside = format!(
        "<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount><networkInterfaceSet><item><deviceIndex>0</deviceIndex><groupSet><item><groupId>{group}</groupId></item></groupSet></item></networkInterfaceSet>"
    );
    let by_soap = client.soap("RunInstances", "2013-08-15", &inside).await;
    assert_eq!(
        by_soap.of_instance("groupSet/item/groupId"),
        [group],
        "{}",
        by_soap.text
    );
    cloud.stop().await;
}
