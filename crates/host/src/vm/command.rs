//! QEMU's command line for an instance.
//!
//! Must hold for QEMU 7.2 and newer.  Nothing is probed: formats, backing
//! layers and devices are named here and nowhere else.  Descriptors are written
//! `%name%`; the keeper knows their numbers.

use cumulet_domain::InstanceId;
use serde_json::json;

use super::protocol::{QMP_DESCRIPTOR, QMP_SOCKET};
use crate::api::{Boot, VmSpec};
use crate::vm::Acceleration;

/// `vsyscall=emulate` is for user lands of 2007; names of links stay `eth0` for the same reason.
/// `no_timer_check`: on a busy host an emulated timer may look dead during the kernel's test of it,
/// and the kernel then panics; under KVM Linux leaves that test out by itself.
const KERNEL_WORDS: &str = "root=/dev/sda1 ro console=ttyS0,115200n8 vsyscall=emulate \
                            net.ifnames=0 biosdevname=0 no_timer_check";

/// Everything after the program's name.
pub(crate) fn arguments(spec: &VmSpec, acceleration: &Acceleration) -> Vec<String> {
    let mut line = Line::default();
    line.option("-name", spec.instance.to_string());
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.option("-display", "none");
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // The keeper continues it when it listens; it stays paused after a shutdown until the keeper
    // has written down why.
    line.flag("-S");
    line.option("-action", "reboot=reset,shutdown=pause,panic=pause");
    hardware(&mut line, spec, acceleration);
    disk(&mut line);
    network(&mut line, spec);
    line.option("-object", "rng-random,id=entropy,filename=/dev/urandom");
    line.option("-device", "virtio-rng-pci,rng=entropy");
    line.option("-device", "pvpanic");
    line.option("-chardev", "stdio,id=console,signal=off");
    line.option("-device", "isa-serial,chardev=console");
    line.option(
        "-chardev",
        format!("socket,id=keeper,fd=%{QMP_DESCRIPTOR}%"),
    );
    line.option("-mon", "chardev=keeper,mode=control");
    line.option(
        "-chardev",
        format!("socket,id=server,path={QMP_SOCKET},server=on,wait=off"),
    );
    line.option("-mon", "chardev=server,mode=control");
    if let Boot::Kernel { .. } = spec.boot {
        line.option("-kernel", "/proc/self/fd/%kernel%");
        line.option("-initrd", "/proc/self/fd/%initrd%");
        line.option("-append", KERNEL_WORDS);
    }
    line.0
}

/// The descriptors that [`arguments`] names, besides QMP's.
pub(crate) fn descriptors(boot: &Boot) -> &'static [&'static str] {
    match boot {
        Boot::Kernel { .. } => &["tap", "base", "overlay", "kernel", "initrd"],
        Boot::Firmware => &["tap", "base", "overlay"],
    }
}

/// What the machine says of itself: begins `ec2`, in lower case, as old and new guests look for.
pub(crate) fn system_uuid(instance: InstanceId) -> String {
    let id = instance.to_string();
    let digits = id.strip_prefix(InstanceId::PREFIX).unwrap_or(&id);
    // 32 digits; the id's own, repeated, since nothing else may tell two instances apart.
    let text: String = "ec2"
        .chars()
        .chain(digits.chars().cycle().take(29))
        .collect();
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32)
    )
}

/// For software emulation: the second level of x86-64, which today's distributions ask for.  Not
/// `max`, whose five-level page tables and wide vectors cost time and have had bugs.
pub(crate) const CPU_EMULATED: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand";

fn hardware(line: &mut Line, spec: &VmSpec, acceleration: &Acceleration) {
    let (accelerator, cpu) = match acceleration {
        Acceleration::Kvm { .. } => ("kvm", "host"),
        Acceleration::Emulated { .. } => ("tcg", CPU_EMULATED),
    };
    line.option(
        "-machine",
        format!("{},accel={accelerator},usb=off,vmport=off", spec.machine),
    );
    line.option("-cpu", cpu);
    line.option("-m", format!("size={}M", spec.memory_mib));
    line.option("-smp", spec.vcpus.to_string());
    line.option("-rtc", "base=utc");
    let uuid = system_uuid(spec.instance);
    line.option(
        "-smbios",
        format!(
            "type=1,manufacturer=Cumulet,product=Instance,serial={uuid},uuid={uuid},family=Instance"
        ),
    );
}

fn disk(line: &mut Line) {
    line.option("-add-fd", "fd=%base%,set=1");
    line.option("-add-fd", "fd=%overlay%,set=2");
    for node in [
        json!({"driver": "file", "node-name": "base-file", "filename": "/dev/fdset/1",
               "read-only": true}),
        json!({"driver": "raw", "node-name": "base", "file": "base-file", "read-only": true}),
        json!({"driver": "file", "node-name": "overlay-file", "filename": "/dev/fdset/2",
               "discard": "unmap"}),
        json!({"driver": "qcow2", "node-name": "disk", "file": "overlay-file", "backing": "base",
               "discard": "unmap"}),
    ] {
        line.option("-blockdev", node.to_string());
    }
    line.option("-device", "virtio-scsi-pci,id=scsi");
    line.option("-device", "scsi-hd,bus=scsi.0,drive=disk,bootindex=1");
}

fn network(line: &mut Line, spec: &VmSpec) {
    line.option("-netdev", "tap,id=net,fd=%tap%");
    line.option(
        "-device",
        format!("virtio-net-pci,netdev=net,mac={},romfile=", spec.mac),
    );
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.to_owned());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_begins_as_guests_expect() {
        let uuid = system_uuid("i-0123456789abcdef0".parse().unwrap());
        assert_eq!(uuid, "ec201234-5678-9abc-def0-0123456789ab");
        assert_eq!(
            system_uuid("i-2ba64342".parse().unwrap()),
            "ec22ba64-3422-ba64-3422-ba643422ba64"
        );
    }
}
