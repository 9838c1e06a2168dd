//! For every dated version, operation and binding: the element tree of an answer is what
//! `ec2-api-history.json` says that version has; nothing beyond it, and nothing less but what
//! [`NOTHING_TO_SAY`] names.

#[path = "versions/asked.rs"]
mod asked;
mod common;
#[path = "versions/described.rs"]
mod described;
#[path = "versions/groups.rs"]
mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use common::{Client, Cloud};
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{ImageId, InstanceId, SecurityGroupId, SubnetId, VpcId};
use cumulet_ec2_model::{Version, soap, soap_types};

/// Elements (with all below them) that a version has and for which this cloud has nothing to say.
/// `@` stands for an instance.  An entry that became wrong makes the test fail.
const NOTHING_TO_SAY: &[(&str, &str)] = &[
    // Nobody launches on another's behalf.
    ("requesterId", "no requester but the owner"),
    ("@/ramdiskId", "a kernel and its ramdisk are one thing here"),
    ("@/platform", "said of Windows only"),
    ("@/ipAddress", "no public addresses yet"),
    ("@/ipv6Address", "no IPv6 yet"),
    ("@/instanceLifecycle", "said of spot instances only"),
    ("@/spotInstanceRequestId", "no spot instances"),
    ("@/license", "no licences"),
    ("@/licenseSet", "no licences"),
    (
        "@/networkInterfaceSet/item/association",
        "no public addresses yet",
    ),
    (
        "@/networkInterfaceSet/item/privateIpAddressesSet/item/association",
        "no public addresses yet",
    ),
    (
        "@/networkInterfaceSet/item/ipv6AddressesSet/item",
        "no IPv6 yet",
    ),
    (
        "@/networkInterfaceSet/item/ipv4PrefixSet/item",
        "no prefixes",
    ),
    (
        "@/networkInterfaceSet/item/ipv6PrefixSet/item",
        "no IPv6 yet",
    ),
    ("@/iamInstanceProfile", "no instance profiles"),
    ("@/sriovNetSupport", "no such devices"),
    ("@/placement/hostId", "no dedicated hosts"),
    ("@/placement/affinity", "no dedicated hosts"),
    ("@/placement/hostResourceGroupArn", "no dedicated hosts"),
    ("@/placement/partitionNumber", "no placement groups"),
    ("@/placement/spreadDomain", "no placement groups"),
    ("@/placement/groupId", "no placement groups"),
    ("@/elasticGpuAssociationSet", "no such devices"),
    (
        "@/elasticInferenceAcceleratorAssociationSet",
        "no such devices",
    ),
    ("@/outpostArn", "no outposts"),
    ("@/cpuOptions/amdSevSnp", "no such processors"),
    ("@/capacityReservationId", "no capacity reservations"),
    (
        "@/capacityReservationSpecification/capacityReservationTarget",
        "no capacity reservations",
    ),
    ("@/bootMode", "said only where an image asks for a mode"),
    ("@/tpmSupport", "no such devices"),
    // Images.
    (
        "imagesSet/item/kernelId",
        "images name no kernel; the default one boots them",
    ),
    ("imagesSet/item/ramdiskId", "images name no ramdisk"),
    ("imagesSet/item/platform", "said of Windows only"),
    ("imagesSet/item/blockDeviceMapping/item", "no volumes yet"),
    ("imagesSet/item/sriovNetSupport", "no such devices"),
    ("imagesSet/item/bootMode", "no image asks for a mode"),
    ("imagesSet/item/tpmSupport", "no such devices"),
    ("imagesSet/item/deprecationTime", "nothing is deprecated"),
    ("imagesSet/item/imdsSupport", "no image asks for a mode"),
    // Attributes of images.
    ("kernel/value", "images name no kernel"),
    ("ramdisk/value", "images name no ramdisk"),
    ("blockDeviceMapping/item", "no volumes yet"),
    ("sriovNetSupport/value", "no such devices"),
    ("bootMode/value", "no image asks for a mode"),
    ("tpmSupport/value", "no such devices"),
    ("uefiData/value", "no such variables are kept"),
    ("imdsSupport/value", "no image asks for a mode"),
    ("lastLaunchedTime", "not recorded"),
    (
        "launchPermission/item/organizationArn",
        "accounts are in no organizations",
    ),
    (
        "launchPermission/item/organizationalUnitArn",
        "accounts are in no organizations",
    ),
    // Status.
    (
        "instanceStatusSet/item/eventsSet/item",
        "nothing is scheduled",
    ),
    (
        "instanceStatusSet/item/systemStatus/details/item/impairedSince",
        "not recorded",
    ),
    (
        "instanceStatusSet/item/instanceStatus/details/item/impairedSince",
        "not recorded",
    ),
    ("instanceStatusSet/item/outpostArn", "no outposts"),
    // Zones.
    (
        "availabilityZoneInfo/item/messageSet/item",
        "nothing to report",
    ),
    ("availabilityZoneInfo/item/parentZoneName", "no local zones"),
    ("availabilityZoneInfo/item/parentZoneId", "no local zones"),
];

type Facts = BTreeMap<String, Vec<(String, String, Option<String>)>>;

/// Path, first and last version of each element, by operation.
fn history() -> Facts {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/ec2-api-history.json"
    );
    let text = std::fs::read_to_string(path).expect("the history is in models/");
    let history: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let dated = |value: &serde_json::Value| value.as_str().map(|label| label[..10].to_owned());
    let mut facts = Facts::new();
    for operation in cumulet_ec2_model::model::operations() {
        let fields = history["response_fields"][operation.name]["fields"]
            .as_object()
            .expect("the history has the operation");
        let fields = fields.iter().map(|(path, entry)| {
            let first = dated(&entry["first"]).expect("first");
            (path.clone(), first, dated(&entry["last"]))
        });
        facts.insert(operation.name.to_owned(), fields.collect());
    }
    facts
}

/// The path as [`NOTHING_TO_SAY`] writes it.
fn short(path: &str) -> String {
    let path = path.strip_prefix("reservationSet/item/").unwrap_or(path);
    match path.strip_prefix("instancesSet/item/") {
        Some(rest) => format!("@/{rest}"),
        None => path.to_owned(),
    }
}

fn excuse(operation: &str, version: Version, path: &str) -> Option<&'static str> {
    let path = short(path);
    // Requests of that time could not say what is to be written on the instances.
    let is_later = version.as_str() < "2016-11-15";
    if operation == "RunInstances" && is_later && path.starts_with("@/tagSet/item") {
        return Some("tags are written later");
    }
    if let Some(excuse) = described::excuse(operation, version, &path) {
        return excuse;
    }
    NOTHING_TO_SAY
        .iter()
        .chain(described::NOTHING_TO_SAY)
        .chain(groups::NOTHING_TO_SAY)
        .map(|(known, _)| *known)
        .find(|known| path == *known || path.starts_with(&format!("{known}/")))
}

struct World {
    cloud: Cloud,
    client: Client,
    image: String,
    running: String,
}

async fn world() -> World {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    cloud.add_kernel().await;
    let mut images = vec![];
    for (name, is_damaged) in [("good", false), ("damaged", true)] {
        cloud.upload_bundle(name, &["774F4FF8"], is_damaged);
        let location = format!("bucket/{name}.manifest.xml");
        let request = [
            ("ImageLocation", location.as_str()),
            ("Name", name),
            ("Description", "for tests"),
        ];
        let reply = client
            .ask("RegisterImage", "2016-11-15", &request)
            .await
            .ok();
        let id = reply.value("imageId").expect("an id");
        cloud
            .wait_for_image(id.parse::<ImageId>().expect("an id"))
            .await;
        images.push(id);
    }
    // An owner with an alias, which public images show.
    let named = cloud
        .engine
        .set_alias(client.account, Some("amazon".into()));
    named.await.expect("an alias");
    let public = [
        ("ImageId", images[0].as_str()),
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserGroup.1", "all"),
    ];
    client
        .ask("ModifyImageAttribute", "2007-03-01", &public)
        .await
        .ok();
    let key = client
        .ask("CreateKeyPair", "2016-11-15", &[("KeyName", "key")])
        .await
        .ok();
    let key = key.value("keyPairId").expect("an id");
    let default = groups::give_rules(&cloud, &client).await;
    let mut running = String::new();
    for _ in 0..6 {
        let reply = asked::run(&client, "2007-03-01", &images[0]).await;
        running = reply.value("instanceId").expect("an id");
        let id: InstanceId = running.parse().expect("an id");
        cloud.wait_for(id, InstanceState::Running).await;
    }
    let mut tags = vec![
        ("Tag.1.Key", "Name"),
        ("Tag.2.Key", "of"),
        ("Tag.2.Value", ""),
    ];
    tags.extend([
        ("ResourceId.1", key.as_str()),
        ("ResourceId.2", running.as_str()),
        ("ResourceId.3", images[0].as_str()),
        ("ResourceId.4", &default),
    ]);
    let own = [
        VpcId::of(client.account).to_string(),
        SubnetId::of(client.account).to_string(),
        running.replace("i-", "eni-"),
        running.replace("i-", "vol-"),
    ];
    let places = [
        "ResourceId.5",
        "ResourceId.6",
        "ResourceId.7",
        "ResourceId.8",
    ];
    tags.extend(places.into_iter().zip(own.iter().map(String::as_str)));
    client.ask("CreateTags", "2010-08-31", &tags).await.ok();
    World {
        cloud,
        client,
        image: images.remove(0),
        running,
    }
}

/// Compares every operation's answers in these versions; gives how many there were, and the excuses
/// that were needed.
async fn compare(world: &World, last: Version) -> (usize, BTreeSet<&'static str>) {
    let facts = history();
    let mut wrong = vec![];
    let mut excuses = BTreeSet::new();
    let mut compared = 0;
    for version in Version::all().filter(|it| *it <= last) {
        for operation in cumulet_ec2_model::model::operations() {
            if version < operation.first {
                continue;
            }
            let label = version.as_str();
            let expected: BTreeSet<String> = facts[operation.name]
                .iter()
                .filter(|(_, first, last)| {
                    first.as_str() <= label
                        && last.as_ref().is_none_or(|last| label <= last.as_str())
                })
                .map(|(path, _, _)| path.clone())
                .collect();
            let found = world.paths(operation.name, label).await;
            compared += 1;
            for path in found.difference(&expected) {
                wrong.push(format!(
                    "{label} {}: {path} is beyond the version",
                    operation.name
                ));
            }
            for path in expected.difference(&found) {
                match excuse(operation.name, version, path) {
                    Some(known) => {
                        excuses.insert(known);
                    }
                    None => wrong.push(format!("{label} {}: {path} is missing", operation.name)),
                }
            }
            for path in &found {
                if let Some(known) = excuse(operation.name, version, path) {
                    wrong.push(format!(
                        "{label} {}: {path} is there, yet {known} is excused",
                        operation.name
                    ));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    (compared, excuses)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_elements_that_their_version_had() {
    let world = world().await;
    let newest = Version::all().next_back().expect("versions");
    let (compared, excuses) = compare(&world, newest).await;
    assert!(compared > 54 * 10, "{compared}");
    let all = NOTHING_TO_SAY.iter();
    let all = all.chain(described::NOTHING_TO_SAY);
    for (known, _) in all.chain(groups::NOTHING_TO_SAY) {
        assert!(excuses.contains(known), "the excuse {known} is not needed");
    }
    world.cloud.stop().await;
}

/// Operations whose messages are of another shape than the parameters that are asked with above.
const SAID_OTHERWISE_BY_SOAP: &[&str] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn answers_by_soap_have_them_too() {
    let mut world = world().await;
    let told = Arc::new(Mutex::default());
    world.client.by_soap = Some(Arc::clone(&told));
    compare(&world, soap::LAST).await;
    let told = told.lock().expect("not poisoned").clone();
    let mut missing = vec![];
    for version in Version::all() {
        for message in soap_types::messages(version) {
            let name = message.operation;
            let asked = (name.to_owned(), version.as_str().to_owned());
            if !SAID_OTHERWISE_BY_SOAP.contains(&name) && !told.contains(&asked) {
                missing.push(asked);
            }
        }
    }
    assert_eq!(missing, [], "not asked by SOAP");
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_namespaces_and_order_are_those_of_the_version() {
    let world = world().await;
    for version in Version::all() {
        let label = version.as_str();
        let reply = world.client.ask("DescribeKeyPairs", label, &[]).await.ok();
        let root =
            format!("<DescribeKeyPairsResponse xmlns=\"http://ec2.amazonaws.com/doc/{label}/\">");
        assert!(reply.text.contains(&root), "{}", reply.text);
        let first = reply.elements().first().map(|(path, _)| path.clone());
        let expected = if label >= "2008-08-08" {
            "requestId"
        } else {
            "keySet"
        };
        assert_eq!(first.as_deref(), Some(expected), "{label}");
    }
    world.cloud.stop().await;
}

/// The order of elements is that of the WSDL of 2007-03-01, which is a sequence.
#[tokio::test(flavor = "multi_thread")]
async fn elements_stand_in_the_order_of_the_wsdl() {
    let world = world().await;
    let order = |reply: &common::Reply, below: &str| -> Vec<String> {
        let mut names: Vec<String> = vec![];
        for (path, _) in reply.elements() {
            let Some(rest) = path.strip_prefix(below) else {
                continue;
            };
            if !rest.contains('/') && !names.contains(&rest.to_owned()) {
                names.push(rest.to_owned());
            }
        }
        names
    };
    let seen = world
        .client
        .ask("DescribeInstances", "2007-03-01", &[])
        .await
        .ok();
    assert_eq!(
        order(&seen, "reservationSet/item/instancesSet/item/"),
        [
            "instanceId",
            "imageId",
            "instanceState",
            "privateDnsName",
            "dnsName",
            "reason",
            "keyName",
            "amiLaunchIndex",
            "productCodes"
        ]
    );
    assert_eq!(
        order(&seen, "reservationSet/item/"),
        ["reservationId", "ownerId", "groupSet", "instancesSet"]
    );
    let seen = world
        .client
        .ask("DescribeImages", "2007-03-01", &[])
        .await
        .ok();
    assert_eq!(
        order(&seen, "imagesSet/item/"),
        [
            "imageId",
            "imageLocation",
            "imageState",
            "imageOwnerId",
            "isPublic",
            "productCodes"
        ]
    );
    world.cloud.stop().await;
}

/// The short list of behaviours that changed between versions.
#[tokio::test(flavor = "multi_thread")]
async fn behaviours_that_changed_are_those_of_the_version() {
    let world = world().await;
    let client = &world.client;
    let groups = |version: &'static str| async move {
        let reply = client.ask("DescribeInstances", version, &[]).await.ok();
        let of = |name: &str| reply.values(name).first().cloned();
        (of("groupSet/item/groupId"), of("groupSet/item/groupName"))
    };
    // groupId was the name.
    assert_eq!(groups("2010-11-15").await, (Some("default".into()), None));
    let id = SecurityGroupId::of(client.account).to_string();
    assert_eq!(
        groups("2011-01-01").await,
        (Some(id), Some("default".into()))
    );

    // An image that failed is a state of the versions that have a reason for it.
    let state = |version: &'static str| async move {
        let reply = client.ask("DescribeImages", version, &[]).await.ok();
        let mut states = reply.values("imageState");
        states.sort();
        states
    };
    assert_eq!(state("2009-08-15").await, ["available", "available"]);
    assert_eq!(state("2009-10-31").await, ["available", "failed"]);

    // The state after TerminateInstances changed its name.
    for (version, name) in [
        ("2009-08-15", "shutdownState"),
        ("2009-10-31", "currentState"),
    ] {
        let ids = [("InstanceId.1", world.running.as_str())];
        let reply = client.ask("TerminateInstances", version, &ids).await.ok();
        assert!(
            reply.paths().contains(&format!("instancesSet/item/{name}")),
            "{version}"
        );
    }

    // Parameters exist from a version on.
    let token = [
        ("ImageId", world.image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("ClientToken", "token"),
    ];
    let refused = client.ask("RunInstances", "2010-06-15", &token).await;
    assert_eq!(refused.code(400), "UnknownParameter");
    client.ask("RunInstances", "2010-08-31", &token).await.ok();
    world.cloud.stop().await;
}
