//! Servers that end: guests stay, unless the server was told otherwise; then the next one boots
//! them again on their own disks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use cumulet_testkit::cloud::wait_until;

use crate::harness::{Described, GUEST_PATIENCE, cloud, guest, instances, register, wait_for};
use crate::host::{Inventory, expected, inventory, pids_of};

#[test]
fn guests_stay_when_the_server_stops_unless_told_otherwise() {
    let patience = ("CUMULET_INSTANCES_SHUTDOWN_PATIENCE_MS", "200");
    let mut cloud = cloud(&[patience]);
    let ami = register(&cloud, &guest("halt"), "stopping");
    let run = [
        ("ImageId", ami.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
    ];
    let answer = cloud.ec2().call("RunInstances", &run);
    let id = answer
        .expect("RunInstances")
        .text("instancesSet/item/instanceId");
    let before: Vec<Described> = vec![wait_for(&cloud.ec2(), &id, "running")];

    cloud.stop();
    assert_eq!(inventory(&cloud), expected(&before), "the guest stays");

    let mut command = cloud.command(&["serve", "--stop-instances", "--listen", "127.0.0.1:0"]);
    let mut server = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert!(line.starts_with("ready http://"), "{line:?}");
    let told = Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status();
    assert!(told.expect("kill runs").success());
    assert!(server.wait().expect("it ends").success());
    let stopped = Inventory {
        processes: vec![],
        ..expected(&before)
    };
    assert_eq!(inventory(&cloud), stopped, "only the processes are gone");

    cloud.restart();
    wait_until("the guest runs again", GUEST_PATIENCE, || {
        (inventory(&cloud) == expected(&before)).then_some(())
    });
    assert_eq!(
        instances(&cloud.ec2()),
        before,
        "the same instance as before"
    );
}

/// A data directory that was lost takes the records and the directory of each machine with it.
#[test]
fn guests_of_a_lost_data_directory_are_ended_by_uninstall() {
    let mut cloud = cloud(&[]);
    let ami = register(&cloud, &guest("halt"), "lost");
    let run = [
        ("ImageId", ami.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
    ];
    let answer = cloud.ec2().call("RunInstances", &run);
    let id = answer
        .expect("RunInstances")
        .text("instancesSet/item/instanceId");
    let instance = wait_for(&cloud.ec2(), &id, "running");
    let address = instance.address.parse().expect("an address");
    assert_eq!(pids_of(address).len(), 2, "a keeper and a QEMU");

    cloud.kill();
    // As after a restore that keeps the cloud's id.
    for name in ["run", "store.redb"] {
        let path = cloud.data_directory().join(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.expect("removed");
    }
    let said = cloud.run(&["uninstall"]);
    assert!(said.contains(&instance.address), "{said}");
    wait_until("the guest has ended", GUEST_PATIENCE, || {
        pids_of(address).is_empty().then_some(())
    });
}
