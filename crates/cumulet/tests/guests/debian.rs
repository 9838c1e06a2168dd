//! Real Debian 12 guests with systemd, OpenSSH and cloud-init: a root file system under the
//! cloud's kernel, and a disk with its own boot loader.

use cumulet_testkit::Cloud;

use crate::harness::{
    cloud, console_with, guest, instance_of, key_pair, proof, register, ssh, ssh_until, wait_for,
};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn a_debian_root_file_system_runs() {
    debian("debian_rootfs");
}

#[test]
fn a_debian_disk_boots_through_firmware() {
    debian("debian_disk");
}

fn debian(image: &str) {
    let mut cloud = cloud(&[]);
    let ami = register(&cloud, &guest(image), "debian");
    let key = key_pair(&cloud, "debian");
    let nonce = "a-nonce-of-debian";
    // What a user of cloud-init writes: a script that the first boot runs.
    let script = format!(
        "#!/bin/sh\nid=$(cat /var/lib/cloud/data/instance-id)\n\
         echo \"CUMULET-PROOF $(printf '%s%s' {nonce} \"$id\" | sha256sum | cut -d' ' -f1)\" >/dev/console\n"
    );
    let ec2 = cloud.ec2();
    let parameters = [
        ("ImageId", ami.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("KeyName", "debian"),
        ("UserData", &cumulet_wire::base64::encode(script.as_bytes())),
    ];
    let answer = ec2.call("RunInstances", &parameters).expect("RunInstances");
    let id = answer.text("instancesSet/item/instanceId");
    console_with(&ec2, &id, " login:");
    console_with(&ec2, &id, &format!("CUMULET-PROOF {}", proof(nonce, &id)));
    let address = instance_of(&ec2, &id).address;
    let user = "debian";
    let boot_id = ssh_until(&key, user, &address, BOOT_ID);
    let source = ssh_until(&key, user, &address, "cloud-id");
    assert_eq!(source, "aws", "cloud-init found the EC2 data source");
    kill_and_compare(&mut cloud, &key, user, &id, &boot_id);
    cloud
        .ec2()
        .call("TerminateInstances", &[("InstanceId.1", &id)])
        .expect("TerminateInstances");
    wait_for(&cloud.ec2(), &id, "terminated");
}

fn kill_and_compare(cloud: &mut Cloud, key: &std::path::Path, user: &str, id: &str, boot_id: &str) {
    let before = instance_of(&cloud.ec2(), id);
    cloud.kill();
    let alone = ssh(key, user, &before.address, BOOT_ID);
    assert!(alone.status.success(), "the guest answers without a server");
    cloud.restart();
    assert_eq!(instance_of(&cloud.ec2(), id), before);
    assert_eq!(
        ssh_until(key, user, &before.address, BOOT_ID),
        boot_id,
        "the same boot"
    );
}
