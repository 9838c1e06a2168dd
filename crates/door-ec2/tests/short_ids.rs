//! Ids of 8 digits, as in 2007: given out where the operator wants them, and read in both bindings.

mod common;

use common::{Client, Cloud, Reply, Setup};
use cumulet_domain::ImageId;
use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::Preparation;
use cumulet_domain::instances::InstanceState;

const OLD: &str = "2007-03-01";
const NEW: &str = "2016-11-15";

/// Bits that an id of 8 digits has no room for.
const HIGH: u128 = 0xabc << 32;

async fn cloud() -> Cloud {
    let id_format = IdFormat::Short;
    Cloud::start_as(Setup {
        id_format,
        ..Setup::default()
    })
    .await
}

async fn register(cloud: &Cloud, client: &Client, name: &str, draws: &[u128]) -> String {
    cloud.upload_bundle(name, &[], false);
    let location = format!("bucket/{name}.manifest.xml");
    let draws: Vec<u128> = draws.iter().map(|it| it | HIGH).collect();
    cloud.random.say(&draws);
    let pairs = [("ImageLocation", location.as_str())];
    let reply = client.ask("RegisterImage", OLD, &pairs).await.ok();
    let id = reply.value("imageId").expect("an id");
    cloud
        .wait_for_image(id.parse().expect("an image's id"))
        .await;
    id
}

/// The answer to the same question in both bindings.
async fn both(client: &Client, action: &str, pairs: &[(&str, &str)]) -> [Reply; 2] {
    let by_soap = client.ask_by_soap(action, OLD, pairs).await;
    let by_soap = by_soap.expect("it can be said by SOAP");
    [client.ask(action, OLD, pairs).await.ok(), by_soap]
}

#[tokio::test(flavor = "multi_thread")]
async fn short_ids_are_given_out_and_read() {
    let cloud = cloud().await;
    let client = cloud.client();
    let image = register(&cloud, &client, "one", &[0x10]).await;
    assert_eq!(image, "ami-00000010");
    for reply in both(&client, "DescribeImages", &[("ImageId.1", &image)]).await {
        assert_eq!(reply.values("imageId"), ["ami-00000010"]);
    }

    cloud.random.say(&[0x20 | HIGH]);
    let pairs = [("KeyName", "key")];
    let key = client.ask("CreateKeyPair", NEW, &pairs).await.ok();
    assert_eq!(key.value("keyPairId").as_deref(), Some("key-00000020"));
    let keys = client.ask("DescribeKeyPairs", NEW, &pairs[..0]).await.ok();
    assert_eq!(keys.values("keyPairId"), ["key-00000020"]);

    cloud.random.say(&[0x30 | HIGH]);
    let pairs = [("GroupName", "web"), ("GroupDescription", "of a test")];
    let group = client.ask("CreateSecurityGroup", NEW, &pairs).await.ok();
    assert_eq!(group.value("groupId").as_deref(), Some("sg-00000030"));
    let pairs = [("GroupId.1", "sg-00000030")];
    let groups = client.ask("DescribeSecurityGroups", NEW, &pairs).await.ok();
    assert_eq!(groups.value("groupName").as_deref(), Some("web"));

    cloud.random.say(&[0x40, 0x51, 0x52].map(|it| it | HIGH));
    let pairs = [
        ("ImageId", image.as_str()),
        ("MinCount", "2"),
        ("MaxCount", "2"),
        ("KeyName", "key"),
        ("SecurityGroup.1", "web"),
    ];
    let launched = client.ask("RunInstances", OLD, &pairs).await.ok();
    let reservation = launched.value("reservationId");
    assert_eq!(reservation.as_deref(), Some("r-00000040"));
    assert_eq!(launched.values("instanceId"), ["i-00000051", "i-00000052"]);
    let id = "i-00000052".parse().expect("an instance's id");
    cloud.wait_for(id, InstanceState::Running).await;
    let pairs = [("InstanceId.1", "i-00000052")];
    for reply in both(&client, "DescribeInstances", &pairs).await {
        assert_eq!(reply.values("instanceId"), ["i-00000052"]);
        assert_eq!(reply.values("reservationId"), ["r-00000040"]);
    }
    // What follows from an instance has its digits.
    let reply = client.ask("DescribeInstances", NEW, &pairs).await.ok();
    assert_eq!(reply.values("networkInterfaceId"), ["eni-00000052"]);
    assert_eq!(reply.values("volumeId"), ["vol-00000052"]);

    // An id of 17 digits is read as ever.
    let pairs = [("InstanceId.1", "i-00000000000000052")];
    let reply = client.ask("DescribeInstances", OLD, &pairs).await;
    let code = reply.value("Code");
    assert_eq!(code.as_deref(), Some("InvalidInstanceID.NotFound"));
    for reply in both(
        &client,
        "TerminateInstances",
        &[("InstanceId.1", "i-00000052")],
    )
    .await
    {
        assert_eq!(reply.values("instanceId"), ["i-00000052"]);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_registered_again_when_its_id_is_taken() {
    let cloud = cloud().await;
    let client = cloud.client();
    assert_eq!(register(&cloud, &client, "one", &[7]).await, "ami-00000007");
    let second = register(&cloud, &client, "two", &[7, 7, 8]).await;
    assert_eq!(second, "ami-00000008");
    let images = cloud.engine.snapshot().images.clone();
    let locations = images.values().map(|it| it.location.as_str());
    let expected = ["bucket/one.manifest.xml", "bucket/two.manifest.xml"];
    assert_eq!(locations.collect::<Vec<_>>(), expected);
    // The key of a bundle was sealed for the id that the image got: it opens.
    let second: ImageId = second.parse().expect("an image's id");
    let second = &images[&second];
    let is_ready = matches!(second.preparation, Preparation::Ready { .. });
    assert!(is_ready, "{:?}", second.preparation);

    // 17 draws, all in use.
    cloud.upload_bundle("three", &[], false);
    cloud.random.say(&[7; 17]);
    let pairs = [("ImageLocation", "bucket/three.manifest.xml")];
    let reply = client.ask("RegisterImage", OLD, &pairs).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.value("Code").as_deref(), Some("Unavailable"));
    assert_eq!(cloud.engine.snapshot().images.len(), 2);
    cloud.stop().await;
}
