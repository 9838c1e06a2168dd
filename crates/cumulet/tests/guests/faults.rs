//! Faults of the host under running guests: each ends as `docs/operations-faults.md` says, with a
//! reason that the user sees, and the others do not notice.
//!
//! The guests are boot sectors: what is tried is the host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::wait_until;
use cumulet_testkit::ec2::{CallError, Ec2};

use crate::harness::{
    Described, GUEST_PATIENCE, checked, cloud, console, guest, instance_of, instances, register,
    wait_for,
};
use crate::host::{expected, inside, inventory, namespace, pids_of};

const PATIENCE: [(&str, &str); 3] = [
    ("CUMULET_INSTANCES_SHUTDOWN_PATIENCE_MS", "200"),
    ("CUMULET_INSTANCES_REBOOT_PATIENCE_MS", "200"),
    ("CUMULET_INSTANCES_MEMORY_MIB", "1000000"),
];
const ENDED: &str = "ended unexpectedly and is started again";
const CUT_OFF: &str = "network of the instance was removed";

fn launch(ec2: &Ec2, ami: &str, kind: &str) -> Result<String, CallError> {
    let parameters = [
        ("ImageId", ami),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", kind),
    ];
    let answer = ec2.call("RunInstances", &parameters)?;
    Ok(answer.text("instancesSet/item/instanceId"))
}

fn running(ec2: &Ec2, ami: &str) -> Described {
    let id = launch(ec2, ami, "t2.nano").expect("RunInstances");
    wait_for(ec2, &id, "running")
}

fn pids(instance: &Described) -> Vec<u32> {
    let mut pids = pids_of(instance.address.parse().expect("an address"));
    pids.sort_unstable();
    pids
}

/// The keeper's process or QEMU's.
fn pid_of(instance: &Described, program: &str) -> u32 {
    let is_it = |pid: &u32| {
        let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        path.file_name().is_some_and(|name| name == program)
    };
    let found = pids(instance).into_iter().find(is_it);
    found.unwrap_or_else(|| panic!("{} has no {program}", instance.id))
}

fn signal(name: &str, pids: &[u32]) {
    let mut kill = Command::new("kill");
    checked(kill.arg(name).args(pids.iter().map(u32::to_string)));
}

/// Makes the reconciler look at once and not at its next round.
fn nudge(ec2: &Ec2, instance: &Described) {
    ec2.call("RebootInstances", &[("InstanceId.1", &instance.id)])
        .expect("RebootInstances");
}

/// Waits until the instances run in new processes; each must have shown its reason on the way.
fn healed(ec2: &Ec2, faults: &[(&Described, Vec<u32>, &str)]) {
    let mut unseen: Vec<_> = faults.iter().filter(|it| !it.2.is_empty()).collect();
    let mut last = vec![];
    wait_until("what was hurt runs again", GUEST_PATIENCE, || {
        last = instances(ec2);
        let is_seen = |id: &str, reason: &str| {
            let mut all = last.iter();
            all.any(|it| it.id == id && it.reason.contains(reason))
        };
        unseen.retain(|(instance, _, reason)| !is_seen(&instance.id, reason));
        let is_new = |(instance, before, _): &(&Described, Vec<u32>, &str)| {
            let now = pids(instance);
            let state = last.iter().find(|it| it.id == instance.id);
            now.len() == 2
                && now.iter().all(|pid| !before.contains(pid))
                && state.is_some_and(|it| it.state == "running")
        };
        faults.iter().all(is_new).then_some(())
    });
    assert!(
        unseen.is_empty(),
        "no reason was shown: {unseen:?}; {last:?}"
    );
}

/// The host has what it should for these instances, and they are who they were.
fn check(cloud: &Cloud, all: &[&Described]) {
    let all: Vec<Described> = all.iter().map(|it| (*it).clone()).collect();
    wait_until("the host has what the records say", GUEST_PATIENCE, || {
        (inventory(cloud) == expected(&all)).then_some(())
    });
    for instance in &all {
        let now = instance_of(&cloud.ec2(), &instance.id);
        assert_eq!(
            (&now.address, now.state.as_str()),
            (&instance.address, "running")
        );
    }
}

fn tap_of(namespace: &str, instance: &Described) -> String {
    let routes = inside(namespace, &["ip", "-4", "route", "show"]);
    let line = routes
        .lines()
        .find(|it| it.starts_with(&format!("{} ", instance.address)));
    let words: Vec<&str> = line.expect("a route").split_whitespace().collect();
    let at = words.iter().position(|it| *it == "dev").expect("a device");
    words[at + 1].to_owned()
}

#[test]
fn what_is_broken_under_a_guest_is_made_again() {
    let mut cloud = cloud(&PATIENCE);
    let ami = register(&cloud, &guest("halt"), "faults");
    let ec2 = cloud.ec2();
    let [crashed, orphaned, told, lost, unplugged, other] = [(); 6].map(|()| running(&ec2, &ami));
    let all = [&crashed, &orphaned, &told, &lost, &unplugged, &other];
    check(&cloud, &all);
    let space = namespace(&cloud);
    let before = pids(&other);

    // QEMU killed, its keeper killed, the keeper told to end (a second time does not wait for the
    // guest), the run directory deleted, the tap deleted.
    let faults = [
        (&crashed, pids(&crashed), ENDED),
        (&orphaned, pids(&orphaned), ENDED),
        (&told, pids(&told), ""),
        (&lost, pids(&lost), ENDED),
        (&unplugged, pids(&unplugged), CUT_OFF),
    ];
    signal("-KILL", &[pid_of(&crashed, "qemu-system-x86_64")]);
    signal("-KILL", &[pid_of(&orphaned, "cumulet")]);
    let keeper = pid_of(&told, "cumulet");
    signal("-TERM", &[keeper]);
    // Two that come at once would be one.
    wait_until("the first signal is taken", GUEST_PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{keeper}/status")).ok()?;
        let pending = status.lines().find(|it| it.starts_with("ShdPnd:"))?;
        pending.ends_with("0000000000000000").then_some(())
    });
    signal("-TERM", &[keeper]);
    fs::remove_dir_all(cloud.data_directory().join("run").join(&lost.id)).expect("deleted");
    let tap = tap_of(&space, &unplugged);
    inside(&space, &["ip", "link", "del", "dev", &tap]);
    nudge(&ec2, &lost);
    nudge(&ec2, &unplugged);
    healed(&ec2, &faults);
    check(&cloud, &all);
    assert_eq!(pids(&other), before, "the other one did not notice");

    // The image's file: guests run on; one that crashes waits for it, and says so.
    let images = cloud.data_directory().join("images");
    let file = only_file(&images);
    let aside = cloud.scratch().join("aside");
    fs::rename(&file, &aside).expect("moved");
    let (before, reason) = (pids(&other), "The image is no longer available");
    signal("-KILL", &[pid_of(&other, "qemu-system-x86_64")]);
    wait_until("the reason is shown", GUEST_PATIENCE, || {
        let now = instance_of(&ec2, &other.id);
        now.reason.contains(reason).then_some(())
    });
    fs::rename(&aside, &file).expect("moved back");
    healed(&ec2, &[(&other, before, "")]);

    // The namespace: everybody is started again, and guests reach the doors again.
    let faults = all.map(|it| (it, pids(it), CUT_OFF));
    checked(Command::new("ip").args(["netns", "del", &space]));
    for instance in all {
        nudge(&ec2, instance);
    }
    healed(&ec2, &faults);
    check(&cloud, &all);
    wait_until("the metadata service listens again", GUEST_PATIENCE, || {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &space, "bash", "-c"]);
        ip.arg("exec 3<>/dev/tcp/169.254.169.254/80");
        ip.output().ok()?.status.success().then_some(())
    });

    // The host's end: everything that a reboot takes.
    let disks = all.map(|it| inode(&cloud, it));
    cloud.kill();
    let faults = all.map(|it| (it, pids(it), ""));
    for (_, pids, _) in &faults {
        signal("-KILL", pids);
    }
    let id = space.trim_start_matches("cumulet-");
    checked(Command::new("ip").args(["netns", "del", &space]));
    checked(Command::new("nft").args(["delete", "table", "inet", &format!("cumulet_{id}")]));
    let _ = Command::new("ip")
        .args(["link", "del", &format!("cu-{id}")])
        .output();
    cloud.restart();
    let ec2 = cloud.ec2();
    healed(&ec2, &faults);
    check(&cloud, &all);
    assert_eq!(all.map(|it| inode(&cloud, it)), disks, "on their own disks");

    // A keeper of another version is spoken to.
    cloud.stop();
    let record = cloud
        .data_directory()
        .join("run")
        .join(&other.id)
        .join("vm/keeper.json");
    let text = fs::read_to_string(&record).expect("a record");
    let text = text.replace("\"version\":1", "\"version\":99,\"news\":[]");
    assert!(text.contains("99"), "{text}");
    fs::write(&record, text).expect("written");
    let before = pids(&other);
    cloud.restart();
    check(&cloud, &all);
    let printed = console(&ec2, &other.id).len();
    nudge(&ec2, &other);
    wait_until(
        "it was reset, which it ignored no longer",
        GUEST_PATIENCE,
        || (console(&ec2, &other.id).len() > printed).then_some(()),
    );
    assert_eq!(pids(&other), before, "the same processes as before");

    // None of them hears the power button; all of them end.
    for instance in all {
        ec2.call("TerminateInstances", &[("InstanceId.1", &instance.id)])
            .expect("TerminateInstances");
    }
    for instance in all {
        let ended = wait_for(&ec2, &instance.id, "terminated");
        assert!(ended.reason.contains("User initiated"), "{ended:?}");
    }
    assert_eq!(inventory(&cloud), expected(&[]));
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("a folder");
    files.next().expect("a file").expect("readable").path()
}

fn inode(cloud: &Cloud, instance: &Described) -> u64 {
    let overlay = cloud.data_directory().join("overlays").join(&instance.id);
    fs::metadata(overlay).expect("a disk").ino()
}

/// Prints for ever.
const FLOOD: &[u8] = b"\xba\xf8\x03\xb0x\xee\xeb\xfd";
/// Writes the first 32 MiB of the disk again and again, through the BIOS.
const FILL: &[u8] = b"\x31\xc0\x8e\xd8\xbe\x1c\x7c\xb4\x43\xb0\x00\xb2\x80\xcd\x13\x72\x07\
\x83\x06\x24\x7c\x40\xeb\xec\xf4\xeb\xfd\x90\
\x10\x00\x40\x00\x00\x00\x00\x10\x00\x08\x00\x00\x00\x00\x00\x00";

/// The halting disk with another boot sector.
fn disk(cloud: &Cloud, name: &str, code: &[u8]) -> PathBuf {
    let path = cloud.scratch().join(format!("{name}.img"));
    let mut bytes = fs::read(guest("halt")).expect("the disk");
    bytes[..code.len()].copy_from_slice(code);
    fs::write(&path, bytes).expect("written");
    path
}

/// A small file system in a folder, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: PathBuf, size: &str) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]);
        checked(mount.arg(&folder));
        Self(folder)
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        checked(mount.args(["-o", &format!("remount,{size}")]).arg(&self.0));
    }

    /// Bytes that files take.
    fn used(&self) -> u64 {
        let files = fs::read_dir(&self.0).expect("a folder").flatten();
        files
            .filter_map(|it| it.metadata().ok())
            .map(|it| it.blocks() * 512)
            .sum()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_guest_cannot_take_the_host_with_it() {
    // Goes after the cloud, whose last command reads it too.
    let folder = tempfile::tempdir().expect("a directory");
    let types = folder.path().join("types.toml");
    let row = |name: &str, memory: u32| {
        format!(
            "[[instance_types]]\nname = \"{name}\"\nvcpus = 1\nmemory_mib = {memory}\n\
             ephemeral_mib = 64\nswap_mib = 64\ndisk_mib = 64\n"
        )
    };
    fs::write(&types, row("t2.nano", 128) + &row("huge", 700_000)).expect("written");
    let mut settings = PATIENCE.to_vec();
    settings.push(("CUMULET_CONFIG", types.to_str().expect("UTF-8")));
    let cloud = cloud(&settings);
    let ec2 = cloud.ec2();
    let flooding = register(&cloud, &disk(&cloud, "flood", FLOOD), "flood");
    let filling = register(&cloud, &disk(&cloud, "fill", FILL), "fill");
    let quiet = register(&cloud, &guest("halt"), "quiet");

    // A disk with little room: the guest waits for more, launches say why they wait.
    let room = Mounted::new(cloud.data_directory().join("overlays"), "size=4m");
    let other = running(&ec2, &quiet);
    let before = pids(&other);
    let writer = running(&ec2, &filling);
    wait_until("the disk is full", GUEST_PATIENCE, || {
        (room.used() >= (4 << 20) - (64 << 10)).then_some(())
    });
    let late = launch(&ec2, &quiet, "t2.nano").expect("RunInstances");
    wait_until("the reason is shown", GUEST_PATIENCE, || {
        let reason = instance_of(&ec2, &late).reason;
        reason
            .contains("The host has no room for the disk")
            .then_some(())
    });
    let is_paused = || {
        let shown = instance_of(&ec2, &writer.id);
        assert_eq!(shown.state, "running");
        shown.reason.contains("disk of the host is full")
    };
    wait_until("it is said why the guest waits", GUEST_PATIENCE, || {
        is_paused().then_some(())
    });
    let listed = cloud.run(&["instance", "list"]);
    assert!(listed.contains("disk of the host is full"), "{listed}");
    room.resize("size=64m");
    wait_until("the guest goes on", GUEST_PATIENCE, || {
        (room.used() > 8 << 20).then_some(())
    });
    wait_until("and nothing is said any more", GUEST_PATIENCE, || {
        (!is_paused()).then_some(())
    });
    wait_for(&ec2, &late, "running");

    // The console keeps 64 KiB, whatever a guest prints.
    let noisy = running(&ec2, &flooding);
    let kept = wait_until("the console is full", GUEST_PATIENCE, || {
        let text = console(&ec2, &noisy.id);
        (text.len() == 64 << 10).then_some(text)
    });
    assert!(kept.ends_with("xxxx"), "{kept}");
    let ring = cloud.data_directory().join("consoles").join(&noisy.id);
    assert_eq!(fs::metadata(ring).expect("a ring").len(), (64 << 10) + 4096);
    let keeper = pid_of(&noisy, "cumulet");
    let qemu = pid_of(&noisy, "qemu-system-x86_64");
    assert!(
        processor_time(keeper) < processor_time(qemu),
        "the keeper works more than the guest"
    );

    // Memory: what does not fit is refused, and what the kernel does not give is told.
    let huge = launch(&ec2, &quiet, "huge").expect("RunInstances");
    match launch(&ec2, &quiet, "huge") {
        Err(CallError::Refused { code, .. }) => assert_eq!(code, "InsufficientInstanceCapacity"),
        answer => panic!("{answer:?}"),
    }
    wait_until("the reason is shown", GUEST_PATIENCE, || {
        let reason = instance_of(&ec2, &huge).reason;
        reason
            .contains("The host has not enough memory")
            .then_some(())
    });

    assert_eq!(pids(&other), before, "the other one did not notice");
    for id in instances(&ec2).iter().map(|it| &it.id) {
        ec2.call("TerminateInstances", &[("InstanceId.1", id)])
            .expect("TerminateInstances");
    }
    for id in instances(&ec2).iter().map(|it| &it.id) {
        wait_for(&ec2, id, "terminated");
    }
    drop(room);
}

/// Clock ticks that a process has taken.
fn processor_time(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = text.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = [fields[11], fields[12]].map(|it| it.parse::<u64>().expect("a number"));
    ticks.iter().sum()
}
