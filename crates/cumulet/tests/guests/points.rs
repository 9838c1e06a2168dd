//! The server ends itself at the worst points of its work on the real host; the next one makes of
//! it what the records say.

use std::collections::BTreeSet;
use std::fs;

use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::wait_until;

use crate::harness::{
    Described, GUEST_PATIENCE, bundle, cloud, guest, instance_of, instances, register, wait_for,
};
use crate::host::{expected, inventory};

const STOP_AT: &str = "CUMULET_TEST_STOP_AT";

/// Starts the server so that it ends at the point, has it work towards it, and starts it again.
/// What the work was answered does not matter: the server may end first.
fn end_at(cloud: &mut Cloud, point: &str, work: impl FnOnce(&Cloud)) {
    cloud.stop();
    cloud.set(STOP_AT, Some(point));
    cloud.restart();
    work(cloud);
    cloud.wait_for_end();
    cloud.set(STOP_AT, None);
}

/// The one instance that the launch under this token made.
fn launched(cloud: &Cloud, ami: &str, token: &str) -> String {
    let parameters = [
        ("ImageId", ami),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
        ("ClientToken", token),
    ];
    let answer = cloud.ec2().call("RunInstances", &parameters);
    answer
        .expect("RunInstances")
        .text("instancesSet/item/instanceId")
}

/// The host has what the records say, and these run.
fn check(cloud: &Cloud, running: &BTreeSet<String>) {
    let mut last = String::new();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the host has what the records say", GUEST_PATIENCE, || {
            let live: Vec<Described> = instances(&cloud.ec2())
                .into_iter()
                .filter(|it| it.state != "terminated")
                .collect();
            let ids: BTreeSet<String> = live
                .iter()
                .filter(|it| it.state == "running")
                .map(|it| it.id.clone())
                .collect();
            let (wanted, found) = (expected(&live), inventory(cloud));
            last = format!("records {live:?}\nwanted {wanted:?}\nfound {found:?}");
            (ids == *running && live.len() == ids.len() && wanted == found).then_some(())
        });
    }));
    assert!(settled.is_ok(), "not settled:\n{last}");
}

#[test]
fn a_server_that_ended_at_the_worst_points_leaves_what_the_records_say() {
    let mut cloud = cloud(&[("CUMULET_INSTANCES_SHUTDOWN_PATIENCE_MS", "200")]);
    let ami = register(&cloud, &guest("halt"), "points");
    let mut running = BTreeSet::new();
    let first = launched(&cloud, &ami, "first");
    wait_for(&cloud.ec2(), &first, "running");
    running.insert(first.clone());

    for point in ["before-disk", "before-start", "after-start"] {
        end_at(&mut cloud, point, |cloud| {
            let token = [("ClientToken", point)];
            let rest = [
                ("ImageId", ami.as_str()),
                ("MinCount", "1"),
                ("MaxCount", "1"),
                ("InstanceType", "t2.nano"),
            ];
            let _ = cloud
                .ec2()
                .call("RunInstances", &[&rest[..], &token].concat());
        });
        // What is on the host is what the point says; the guests of before run on.
        cloud.restart();
        let id = launched(&cloud, &ami, point);
        wait_for(&cloud.ec2(), &id, "running");
        running.insert(id);
        check(&cloud, &running);
    }

    let ends = running.pop_last().expect("four run");
    end_at(&mut cloud, "after-stop", |cloud| {
        let id = [("InstanceId.1", ends.as_str())];
        let _ = cloud.ec2().call("TerminateInstances", &id);
    });
    let overlays = cloud.data_directory().join("overlays");
    let is_left = |id: &str| {
        let entries = fs::read_dir(&overlays).expect("overlays").flatten();
        let mut names = entries.map(|it| it.file_name().to_string_lossy().into_owned());
        names.any(|name| name.starts_with(id))
    };
    assert!(is_left(&ends), "the point lies before the disk's removal");
    cloud.restart();
    wait_for(&cloud.ec2(), &ends, "terminated");
    check(&cloud, &running);

    // Another image, whose bytes are there when the server ends, and no record of them.
    let mut bytes = fs::read(guest("halt")).expect("an image");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let other = cloud.scratch().join("other.img");
    fs::write(&other, bytes).expect("written");
    let (_, location) = bundle(&cloud, &other, "points-other");
    end_at(&mut cloud, "after-image", |cloud| {
        let location = [("ImageLocation", location.as_str())];
        let _ = cloud.ec2().call("RegisterImage", &location);
    });
    let folder = cloud.data_directory().join("images");
    let files = || fs::read_dir(&folder).expect("images");
    let before = files().count();
    cloud.restart();
    let images = cloud.ec2().call("DescribeImages", &[]).expect("a list");
    let ids = images.texts("imagesSet/item/imageId");
    let other = ids
        .into_iter()
        .find(|id| *id != ami)
        .expect("it was registered");
    let id = launched(&cloud, &other, "other");
    wait_for(&cloud.ec2(), &id, "running");
    running.insert(id);
    check(&cloud, &running);
    let after = files().count();
    assert!(
        after <= before,
        "the bytes are there once: {before}, {after}"
    );

    for id in &running {
        let id = [("InstanceId.1", id.as_str())];
        cloud.ec2().call("TerminateInstances", &id).expect("ends");
    }
    for id in &running {
        assert_eq!(wait_for(&cloud.ec2(), id, "terminated").id, *id);
    }
    check(&cloud, &BTreeSet::new());
    assert_eq!(instance_of(&cloud.ec2(), &first).state, "terminated");
}

#[test]
fn a_stop_that_nobody_knows_is_refused() {
    let mut cloud = cloud(&[]);
    cloud.stop();
    cloud.set(STOP_AT, Some("somewhere"));
    let refused = cloud.output(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("names no point: somewhere"), "{text}");
    cloud.set(STOP_AT, None);
}
