//! Stores of other formats under this program.
//!
//! `fixtures/cloud-1.tar.gz` is the data directory of a cloud as a program of format 1 left it: a
//! machine image that was bundled, another whose parts were never fetched, a kernel, an instance
//! that was running and one that was terminated, with user data, keys, quotas and objects.  It is
//! never made anew: a new format gets a file beside it.  Kernels, disks and the client's files were
//! left out.
//!
//! `fixtures/records-1.jsonl` has records of kinds that came later, one a line in the form that backups
//! have, as the first program wrote them that knew the kind.  A new kind gets a line; none is changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cumulet_engine::records::{INSTANCE, KINDS};
use cumulet_store::{Batch, Change, EmbeddedEngine, Engine as _, Kind};
use cumulet_testkit::cloud::{ACCOUNT, Cloud};
use serde_json::Value;

use crate::{PROGRAM, SIMULATED, key_pairs, s3};

const FIXTURE: &str = "tests/operations/fixtures/cloud-1.tar.gz";
const RECORDS: &str = include_str!("fixtures/records-1.jsonl");
const RUNNING: &str = "i-8a81ad9bad12999c3";

/// A cloud with the fixture's data directory, not started.
pub(crate) fn old_cloud() -> Cloud {
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let directory = cloud.data_directory();
    std::fs::create_dir(&directory).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(FIXTURE))
        .arg("-C")
        .arg(&directory);
    assert!(tar.status().unwrap().success());
    cloud
}

#[test]
fn a_store_of_format_1_is_read_whole() {
    let mut cloud = old_cloud();
    add_records(&cloud);
    cloud.restart();
    let client = cloud.ec2();
    // The secrets still open: calls are signed with the old key.
    assert_eq!(key_pairs(&client), ["kept-key"]);
    let described = client.call("DescribeInstances", &[]).unwrap();
    let ids = described.texts("reservationSet/item/instancesSet/item/instanceId");
    assert!(ids.contains(&RUNNING.to_owned()), "{ids:?}");
    let images = client.call("DescribeImages", &[]).unwrap();
    assert_eq!(images.at("imagesSet/item").len(), 2);
    // A launch asked again answers as it did then.
    let image = described.texts("reservationSet/item/instancesSet/item/imageId");
    let image = image.first().unwrap();
    let again = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
        ("KeyName", "kept-key"),
        ("UserData", "dXNlciBkYXRhIG9mIGZvcm1hdCAx"),
        ("ClientToken", "kept-token"),
    ];
    let again = client.call("RunInstances", &again).unwrap();
    assert_eq!(again.text("instancesSet/item/instanceId"), RUNNING);
    // Groups were names: the one that everybody had is the same as before, and has its id.
    let groups = client.call("DescribeSecurityGroups", &[]).unwrap();
    let of_groups = |name: &str| groups.texts(&format!("securityGroupInfo/item/{name}"));
    assert_eq!(of_groups("groupName"), ["default", "kept-group"]);
    let permission = |name: &str| of_groups(&format!("ipPermissions/item/{name}"));
    assert_eq!(
        permission("ipProtocol"),
        ["-1", "-1", "tcp", "udp", "icmp", "50"]
    );
    assert_eq!(
        permission("ipRanges/item/cidrIp"),
        ["10.0.0.0/8", "0.0.0.0/0", "0.0.0.0/0"]
    );
    let instance = [("InstanceId.1", RUNNING)];
    let kept = client.call("DescribeInstances", &instance).unwrap();
    for place in ["groupSet/item/", "instancesSet/item/groupSet/item/"] {
        let of = |name: &str| kept.text(&format!("reservationSet/item/{place}{name}"));
        assert_eq!(of("groupName"), "default");
        assert_eq!(of("groupId"), of_groups("groupId")[0]);
    }
    let (status, manifest) = s3(&client, "GET", "/kept-bucket/image.manifest.xml", b"");
    assert_eq!(status, 200);
    assert!(String::from_utf8(manifest).unwrap().contains("<manifest>"));
    assert!(cloud.run(&["account", "list"]).contains(ACCOUNT));
    let quota = cloud.run(&["quota", "show", "--account", "second"]);
    assert!(quota.contains('7'), "{quota}");
    let product = cloud.run(&["product", "show", "774F4FF8"]);
    assert!(product.contains("000000000042"), "{product}");
    let used = cloud.run(&["product", "usage", "--code", "774F4FF8"]);
    let began: Vec<&str> = used
        .lines()
        .filter_map(|it| it.split("  ").nth(2))
        .collect();
    assert_eq!(
        began[1..],
        [
            "2026-11-20T10:20:30.000Z",
            "2026-11-20T11:20:30.000Z",
            "2026-11-20T15:20:30.000Z"
        ],
        "{used}"
    );
    let tags = client.call("DescribeTags", &[]).unwrap();
    let of = |name: &str| tags.texts(&format!("tagSet/item/{name}"));
    assert_eq!(of("value"), ["kept", "format 1", "kept disk"]);
    let disk = RUNNING.replace("i-", "vol-");
    assert_eq!(of("resourceId"), [RUNNING, RUNNING, disk.as_str()]);

    let backup = cloud.scratch().join("backup");
    cloud.run(&["backup", backup.to_str().unwrap(), "--without-images"]);
    let text = std::fs::read_to_string(backup.join("backup.jsonl")).unwrap();
    let found: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["kind"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    // User data, as backups have opaque bytes: in Base64.
    assert!(text.contains("dXNlciBkYXRhIG9mIGZvcm1hdCAx"), "{text}");
    let missing: Vec<&str> = KINDS
        .iter()
        .map(|kind| kind.name())
        .filter(|name| !found.contains(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "no fixture has records of {missing:?}: add lines to records-1.jsonl"
    );
}

/// Puts the records of later kinds into a cloud's store.
fn add_records(cloud: &Cloud) {
    let path = cloud.data_directory().join("store.redb");
    let mut engine = EmbeddedEngine::open(&path, KINDS).unwrap();
    for line in RECORDS.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let kind = KINDS.iter().find(|kind| record["kind"] == kind.name());
        let value = record["value"].to_string().into_bytes();
        let key = record["key"].as_str().unwrap();
        let change = Change::put(*kind.unwrap(), key, value.into());
        commit(&mut engine, change);
    }
}

/// What a newer program wrote is refused by name.
#[test]
fn what_a_newer_program_wrote_is_refused_untouched() {
    const LATER: Kind = Kind::new("of-a-later-program");
    let value = |text: &'static [u8]| text.to_vec().into();
    // A kind of record: not a byte is changed.  Older than format 1 there is nothing, and a newer
    // format of the file is refused in the same way (a test of the store).
    let cloud = old_cloud();
    let path = cloud.data_directory().join("store.redb");
    let mut engine = EmbeddedEngine::open(&path, &[KINDS, &[LATER]].concat()).unwrap();
    commit(&mut engine, Change::put(LATER, "a", value(b"{}")));
    drop(engine);
    let before = std::fs::read(&path).unwrap();
    refused(&cloud, LATER.name());
    assert!(std::fs::read(&path).unwrap() == before, "the file changed");

    // A newer form of a known record: the records are as they were.
    let cloud = old_cloud();
    let path = cloud.data_directory().join("store.redb");
    let id = RUNNING.replace("i-8a", "i-8b");
    let mut engine = EmbeddedEngine::open(&path, KINDS).unwrap();
    commit(
        &mut engine,
        Change::put(INSTANCE, id, value(br#"{"v":999,"r":{}}"#)),
    );
    let before = records(&mut engine);
    drop(engine);
    refused(&cloud, "999");
    let mut engine = EmbeddedEngine::open(&path, KINDS).unwrap();
    assert!(records(&mut engine) == before, "the records changed");
}

fn commit(engine: &mut EmbeddedEngine, change: Change) {
    let batch = Batch {
        changes: vec![change],
        ..Batch::default()
    };
    engine.commit(&batch).unwrap();
}

fn records(engine: &mut EmbeddedEngine) -> Vec<(u64, Change)> {
    let mut found = vec![];
    let mut sink = |revision, change| {
        found.push((revision, change));
        Ok(())
    };
    engine.load(&mut sink).unwrap();
    found
}

fn refused(cloud: &Cloud, says: &str) {
    let output = cloud.output(&["serve", "--listen", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(says), "{says:?} in {text}");
}
