//! Keeper and QEMU run without root and with nothing in their environment; /proc tells.

use std::fs;

use crate::harness::{cloud, guest, register, wait_for};
use crate::host::pids_of;

#[test]
fn keeper_and_qemu_have_no_privileges_and_no_environment() {
    let cloud = cloud(&[]);
    let image = register(&cloud, &guest("mini"), "privileges");
    let ec2 = cloud.ec2();
    let parameters = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let answer = ec2.call("RunInstances", &parameters).expect("RunInstances");
    let id = answer.text("instancesSet/item/instanceId");
    let instance = wait_for(&ec2, &id, "running");
    let pids = pids_of(instance.address.parse().expect("an address"));
    assert_eq!(pids.len(), 2, "a keeper and a QEMU");
    let mut programs = vec![];
    for pid in pids {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).expect("readable");
        assert_eq!(read("environ"), b"", "the environment of {pid}");
        let status = String::from_utf8(read("status")).expect("UTF-8");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("{name} in {status}"));
            line.split_once(':')
                .expect("a field")
                .1
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for name in ["Uid", "Gid"] {
            assert!(
                field(name).iter().all(|it| it != "0"),
                "{name} of {pid}: {:?}",
                field(name)
            );
        }
        assert!(
            !field("Groups").contains(&"0".to_owned()),
            "no group of root"
        );
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(name), ["0000000000000000"], "{name} of {pid}");
        }
        assert_eq!(field("NoNewPrivs"), ["1"], "{pid} may gain no privileges");
        let program = fs::read_link(format!("/proc/{pid}/exe")).expect("a program");
        programs.push(
            program
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
        );
    }
    programs.sort();
    assert_eq!(programs, ["cumulet", "qemu-system-x86_64"]);
    ec2.call("TerminateInstances", &[("InstanceId.1", &id)])
        .expect("TerminateInstances");
    wait_for(&ec2, &id, "terminated");
}
