//! An old keeper under a new server: it lives as long as its guest, while programs come and go.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::wait_until;
use cumulet_testkit::ec2::Ec2;

use crate::harness::{Described, GUEST_PATIENCE, cloud, guest, instance_of, register, wait_for};
use crate::host::{expected, inventory, pids_of};

fn running(ec2: &Ec2, ami: &str) -> Described {
    let parameters = [
        ("ImageId", ami),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
    ];
    let answer = ec2.call("RunInstances", &parameters).expect("RunInstances");
    let id = answer.text("instancesSet/item/instanceId");
    wait_for(ec2, &id, "running")
}

fn pids(instance: &Described) -> Vec<u32> {
    let mut pids = pids_of(instance.address.parse().expect("an address"));
    pids.sort_unstable();
    pids
}

fn folder(cloud: &Cloud, instance: &Described) -> PathBuf {
    cloud
        .data_directory()
        .join("run")
        .join(&instance.id)
        .join("vm")
}

/// Has the keeper's record say what a keeper of this version would: the fields that have always
/// been there, and some that we do not know.
fn pretend(cloud: &Cloud, instance: &Described, version: u32) {
    let path = folder(cloud, instance).join("keeper.json");
    let text = fs::read_to_string(&path).expect("the keeper's record");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["version"] = version.into();
    record["of_another_version"] = serde_json::json!({ "a": [1, 2] });
    fs::write(&path, record.to_string()).expect("written");
}

/// A keeper that understands no word: what it is asked it refuses, each time in another way.
fn refuse_everything(cloud: &Cloud, instance: &Described) {
    let folder = folder(cloud, instance);
    let path = folder.join("keeper.sock");
    fs::remove_file(&path).expect("the real keeper hears nobody now");
    // The path may be longer than a socket's address can be.
    let near = cloud.scratch().join("k");
    let listener = UnixListener::bind(&near).expect("a socket");
    fs::rename(&near, &path).expect("moved");
    let owner = fs::metadata(&folder).expect("a folder");
    let (uid, gid) = (
        std::os::unix::fs::MetadataExt::uid(&owner),
        std::os::unix::fs::MetadataExt::gid(&owner),
    );
    chown(&path, Some(uid), Some(gid)).expect("its own");
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let answer: &[u8] = match number % 3 {
                0 => b"{\"refused\":{\"detail\":\"the request cannot be understood\"}}\n",
                1 => b"{\"an_answer\":\"of another version\"}\n",
                _ => b"",
            };
            let _ = stream.write_all(answer);
        }
    });
}

#[test]
fn keepers_of_other_versions_are_adopted_shown_and_ended() {
    let mut cloud = cloud(&[("CUMULET_INSTANCES_SHUTDOWN_PATIENCE_MS", "200")]);
    let ami = register(&cloud, &guest("halt"), "upgrade");
    let ec2 = cloud.ec2();
    let [old, newer, deaf] = [(); 3].map(|()| running(&ec2, &ami));
    let before = [&old, &newer, &deaf].map(pids);

    // As an upgrade does it: the server is told to end, another one starts.
    cloud.stop();
    pretend(&cloud, &old, 0);
    pretend(&cloud, &newer, 99);
    pretend(&cloud, &deaf, 99);
    refuse_everything(&cloud, &deaf);
    cloud.restart();

    let all = [&old, &newer, &deaf].map(|it| instance_of(&ec2, &it.id));
    for instance in &all {
        assert_eq!(instance.state, "running");
    }
    assert_eq!(inventory(&cloud), expected(&all));
    let after = [&old, &newer, &deaf].map(pids);
    assert_eq!(after, before, "the guests run on, in the same processes");

    for instance in &all {
        let id = [("InstanceId.1", instance.id.as_str())];
        ec2.call("TerminateInstances", &id).expect("it is accepted");
    }
    for instance in &all {
        wait_for(&ec2, &instance.id, "terminated");
    }
    wait_until("nothing is left", GUEST_PATIENCE, || {
        (inventory(&cloud) == expected(&[])).then_some(())
    });
}
