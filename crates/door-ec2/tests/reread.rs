//! What tools of today ask of a launch, and that a re-read equals what was asked.

mod common;

use common::{Client, Cloud, Reply};
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{InstanceId, SubnetId, VpcId};

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

async fn chosen(client: &Client, name: &str, value: &str) -> Vec<String> {
    let filter = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
    let reply = client.ask("DescribeInstances", NEW, &filter).await.ok();
    reply.values("instanceId")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_asked_for_it_reads_again() {
    let (cloud, client, image) = world().await;
    let (vpc, subnet) = (VpcId::of(client.account), SubnetId::of(client.account));
    let (vpc, subnet) = (vpc.to_string(), subnet.to_string());
    // What Terraform's provider sends for an instance that says everything that is so by itself.
    let run = run(
        &client,
        &image,
        &[
            ("InstanceType", "t3.micro"),
            ("ClientToken", "terraform-1"),
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.SubnetId", &subnet),
            ("NetworkInterface.1.DeleteOnTermination", "true"),
            ("NetworkInterface.1.AssociatePublicIpAddress", "false"),
            ("EbsOptimized", "false"),
            ("Monitoring.Enabled", "false"),
            ("DisableApiTermination", "false"),
            ("DisableApiStop", "false"),
            ("HibernationOptions.Configured", "false"),
            ("EnclaveOptions.Enabled", "false"),
            ("CreditSpecification.CpuCredits", "standard"),
            ("MaintenanceOptions.AutoRecovery", "default"),
            ("MetadataOptions.HttpEndpoint", "enabled"),
            ("MetadataOptions.HttpTokens", "required"),
            ("MetadataOptions.HttpPutResponseHopLimit", "2"),
            ("PrivateDnsNameOptions.HostnameType", "ip-name"),
            (
                "CapacityReservationSpecification.CapacityReservationPreference",
                "open",
            ),
            ("Placement.AvailabilityZone", "us-east-1a"),
            ("Placement.Tenancy", "default"),
            ("NetworkPerformanceOptions.BandwidthWeighting", "default"),
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "Name"),
            ("TagSpecification.1.Tag.1.Value", "web"),
        ],
    )
    .await
    .ok();
    let id = run.value("instanceId").unwrap();
    let digits = id.strip_prefix("i-").unwrap().to_owned();
    let instance: InstanceId = id.parse().unwrap();
    cloud.wait_for(instance, InstanceState::Running).await;
    let ids = [("InstanceId.1", id.as_str())];
    let read = client.ask("DescribeInstances", NEW, &ids).await.ok();
    let (interface, volume) = (format!("eni-{digits}"), format!("vol-{digits}"));
    let attachment = format!("eni-attach-{digits}");
    let address = cloud.engine.snapshot().instances[&instance].address;
    let address = address.to_string();
    for (name, wanted) in [
        ("instanceType", "t3.micro"),
        ("clientToken", "terraform-1"),
        ("subnetId", &subnet),
        ("vpcId", &vpc),
        ("privateIpAddress", &address),
        ("sourceDestCheck", "true"),
        ("ebsOptimized", "false"),
        ("monitoring/state", "disabled"),
        ("placement/availabilityZone", "us-east-1a"),
        ("placement/tenancy", "default"),
        ("tagSet/item/key", "Name"),
        ("tagSet/item/value", "web"),
        ("hibernationOptions/configured", "false"),
        ("enclaveOptions/enabled", "false"),
        ("maintenanceOptions/autoRecovery", "default"),
        ("metadataOptions/httpEndpoint", "enabled"),
        ("metadataOptions/httpTokens", "required"),
        ("metadataOptions/httpPutResponseHopLimit", "2"),
        ("privateDnsNameOptions/hostnameType", "ip-name"),
        (
            "capacityReservationSpecification/capacityReservationPreference",
            "open",
        ),
        ("networkPerformanceOptions/bandwidthWeighting", "default"),
        ("platformDetails", "Linux/UNIX"),
        ("usageOperation", "RunInstances"),
        ("usageOperationUpdateTime", "2026-01-02T03:04:05.000Z"),
        ("currentInstanceBootMode", "legacy-bios"),
        ("placement/availabilityZoneId", "us-east-1-az1"),
        ("blockDeviceMapping/item/ebs/volumeId", &volume),
        ("blockDeviceMapping/item/ebs/status", "attached"),
        ("blockDeviceMapping/item/ebs/deleteOnTermination", "true"),
        ("networkInterfaceSet/item/networkInterfaceId", &interface),
        ("networkInterfaceSet/item/subnetId", &subnet),
        ("networkInterfaceSet/item/vpcId", &vpc),
        ("networkInterfaceSet/item/status", "in-use"),
        ("networkInterfaceSet/item/privateIpAddress", &address),
        ("networkInterfaceSet/item/sourceDestCheck", "true"),
        (
            "networkInterfaceSet/item/attachment/attachmentId",
            &attachment,
        ),
        ("networkInterfaceSet/item/attachment/deviceIndex", "0"),
        ("networkInterfaceSet/item/attachment/status", "attached"),
        (
            "networkInterfaceSet/item/attachment/deleteOnTermination",
            "true",
        ),
        (
            "networkInterfaceSet/item/privateIpAddressesSet/item/primary",
            "true",
        ),
    ] {
        assert_eq!(read.of_instance(name), [wanted], "{name}");
    }
    // No public address was asked for, and there is none.
    assert!(
        read.of_instance("networkInterfaceSet/item/association")
            .is_empty()
    );
    // Versions without these elements do not have them.
    let old = client.ask("DescribeInstances", "2009-04-04", &ids).await;
    let old = old.ok();
    assert!(
        old.of_instance("subnetId").is_empty() && old.of_instance("networkInterfaceSet").is_empty()
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_by_what_is_shown() {
    let (cloud, client, image) = world().await;
    let id = run(&client, &image, &[]).await.ok();
    let id = id.value("instanceId").unwrap();
    let gone = run(&client, &image, &[]).await.ok();
    let gone = gone.value("instanceId").unwrap();
    let ids = [("InstanceId.1", gone.as_str())];
    client.ask("TerminateInstances", NEW, &ids).await.ok();
    for (id, state) in [
        (&id, InstanceState::Running),
        (&gone, InstanceState::Terminated),
    ] {
        cloud.wait_for(id.parse().unwrap(), state).await;
    }
    let interface = id.replacen("i-", "eni-", 1);
    let attachment = id.replacen("i-", "eni-attach-", 1);
    let volume = id.replacen("i-", "vol-", 1);
    let vpc = VpcId::of(client.account).to_string();
    let subnet = SubnetId::of(client.account).to_string();
    let tag = [
        ("ResourceId.1", interface.as_str()),
        ("Tag.1.Key", "port"),
        ("Tag.1.Value", "outer"),
    ];
    client.ask("CreateTags", NEW, &tag).await.ok();
    // Of what is gone there is no network left.
    for (name, value) in [
        ("vpc-id", vpc.as_str()),
        ("subnet-id", &subnet),
        ("network-interface.vpc-id", &vpc),
        ("network-interface.subnet-id", &subnet),
        ("network-interface.network-interface-id", &interface),
        ("network-interface.attachment.attachment-id", &attachment),
        ("network-interface.attachment.instance-id", &id),
        ("network-interface.attachment.device-index", "0"),
        ("network-interface.attachment.status", "attached"),
        ("network-interface.addresses.primary", "true"),
        ("network-interface.status", "in-use"),
        ("network-interface.private-dns-name", "ip-*.internal"),
        ("network-interface.mac-address", "??:??:??:??:??:??"),
        ("block-device-mapping.volume-id", &volume),
        ("block-device-mapping.device-name", "/dev/sda*"),
        ("block-device-mapping.delete-on-termination", "true"),
        ("network-interface.tag-key", "port"),
        ("network-interface.tag-value", "o*"),
    ] {
        assert_eq!(chosen(&client, name, value).await, [id.as_str()], "{name}");
    }
    for (name, value, count) in [
        ("source-dest-check", "true", 2),
        ("ebs-optimized", "false", 2),
        ("ebs-optimized", "true", 0),
        ("hibernation-options.configured", "false", 2),
        ("maintenance-options.auto-recovery", "default", 2),
        ("private-dns-name-options.hostname-type", "ip-name", 2),
        ("availability-zone-id", "us-east-1-az1", 2),
        ("current-instance-boot-mode", "legacy-bios", 2),
        ("usage-operation", "RunInstances", 2),
        ("usage-operation-update-time", "2026-01-*", 2),
        (
            "network-performance-options.bandwidth-weighting",
            "default",
            2,
        ),
        ("metadata-options.state", "applied", 2),
        ("metadata-options.http-protocol-ipv4", "enabled", 2),
        ("metadata-options.http-protocol-ipv6", "disabled", 2),
        ("metadata-options.instance-metadata-tags", "disabled", 2),
        ("operator.managed", "false", 2),
        ("operator.principal", "*", 0),
        ("tpm-support", "*", 0),
        ("vpc-id", "vpc-0123456789abcdef0", 0),
        ("network-interface.ipv6-addresses.ipv6-address", "*", 0),
        ("network-interface.association.public-ip", "*", 0),
        ("network-interface.operator.managed", "false", 1),
        ("network-interface.addresses.private-dns-name", "*", 1),
    ] {
        assert_eq!(chosen(&client, name, value).await.len(), count, "{name}");
    }
    // A name that is nearly one chooses nothing, and says so.
    for name in [
        "network-interface.vpc",
        "network-interface.",
        "private-dns-name-options.hostname",
        "association.ip",
        "iam-instance-profile.role",
        "capacity-reservation-specification.preference",
    ] {
        let filter = [("Filter.1.Name", name), ("Filter.1.Value.1", "*")];
        let refused = client.ask("DescribeInstances", NEW, &filter).await;
        assert_eq!(refused.code(400), "InvalidParameterValue", "{name}");
        assert!(refused.text.contains(name), "{}", refused.text);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_so_is_refused() {
    let (cloud, client, image) = world().await;
    let subnet = SubnetId::of(client.account).to_string();
    let other = "subnet-0123456789abcdef0";
    let first = ("NetworkInterface.1.DeviceIndex", "0");
    for (more, code) in [
        (vec![("SubnetId", other)], "InvalidSubnetID.NotFound"),
        (vec![("SubnetId", "subnet-x")], "InvalidSubnetID.Malformed"),
        (
            vec![first, ("NetworkInterface.1.SubnetId", other)],
            "InvalidSubnetID.NotFound",
        ),
        (
            vec![first, ("SubnetId", subnet.as_str())],
            "InvalidParameterCombination",
        ),
        (
            vec![("NetworkInterface.1.SubnetId", subnet.as_str())],
            "MissingParameter",
        ),
        (
            vec![first, ("NetworkInterface.2.DeviceIndex", "1")],
            "UnsupportedOperation",
        ),
        (
            vec![("NetworkInterface.1.DeviceIndex", "1")],
            "UnsupportedOperation",
        ),
        (
            vec![
                first,
                ("NetworkInterface.1.AssociatePublicIpAddress", "true"),
            ],
            "UnsupportedOperation",
        ),
        (
            vec![first, ("NetworkInterface.1.DeleteOnTermination", "false")],
            "UnsupportedOperation",
        ),
        (
            vec![("CreditSpecification.CpuCredits", "unlimited")],
            "UnsupportedOperation",
        ),
    ] {
        let refused = run(&client, &image, &more).await;
        assert_eq!(refused.code(400), code, "{more:?}");
    }
    // Another's subnet is not there either, and a token stands for the subnet, too.
    let stranger = cloud.stranger().await;
    let refused = run(&stranger, &image, &[("SubnetId", &subnet)]).await;
    assert_eq!(refused.code(400), "InvalidSubnetID.NotFound");
    let token = ("ClientToken", "once");
    run(&client, &image, &[token]).await.ok();
    let otherwise = run(&client, &image, &[token, ("SubnetId", &subnet)]).await;
    assert_eq!(otherwise.code(400), "IdempotentParameterMismatch");
    // By SOAP the same element says the same.
    let inside = |subnet: &str| {
        format!(
            "<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount><subnetId>{subnet}</subnetId>"
        )
    };
    let launched = client
        .soap("RunInstances", "2013-08-15", &inside(&subnet))
        .await;
    assert_eq!(launched.status, 200, "{}", launched.text);
    assert!(
        launched
            .text
            .contains(&format!("<subnetId>{subnet}</subnetId>"))
    );
    let refused = client
        .soap("RunInstances", "2013-08-15", &inside(other))
        .await;
    assert!(refused.text.contains("Client.InvalidSubnetID.NotFound"));
    cloud.stop().await;
}
