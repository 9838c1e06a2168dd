//! Image files that say more than they hold, or name what is not theirs: the real program refuses
//! each by name, and neither the records nor the disk notice.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use cumulet_testkit::Cloud;

use crate::harness::{checked, cloud};

const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// The files: how each is made, its format, and what its refusal says.
const FILES: &[(&str, &str, &str, &str)] = &[
    (
        "huge",
        "qemu-img create -q -f qcow2 huge 1T",
        "qcow2",
        "more than the",
    ),
    (
        "over",
        "qemu-img create -q -f qcow2 over 65M",
        "qcow2",
        "more than the",
    ),
    (
        "sparse",
        "truncate -s 8E sparse 2>/dev/null || truncate -s 1T sparse",
        "raw",
        "more than the",
    ),
    (
        "zeros",
        "truncate -s 64M zeros",
        "raw",
        "neither a root file system",
    ),
    (
        "backed",
        "qemu-img create -q -f qcow2 -b /etc/passwd -F raw backed 1M",
        "qcow2",
        "backing file",
    ),
    (
        "outside",
        "qemu-img create -q -f qcow2 -o data_file=beside.raw outside 1M; rm beside.raw",
        "qcow2",
        "external data file",
    ),
    (
        "locked",
        "qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s locked 1M",
        "qcow2",
        "encrypted",
    ),
    (
        "past",
        "qemu-img create -q -f qcow2 past 1M; qemu-img snapshot -c then past",
        "qcow2",
        "snapshots",
    ),
    (
        "table",
        "qemu-img create -q -f qcow2 table 1M",
        "qcow2",
        "first table",
    ),
    (
        "version",
        "qemu-img create -q -f qcow2 version 1M",
        "qcow2",
        "version",
    ),
    // Sixty megabytes of one letter in some thousand bytes, and no file system in them.
    (
        "packed",
        "head -c 60000000 /dev/zero | tr '\\0' x > plain; qemu-img convert -f raw -O qcow2 -c plain packed; rm plain",
        "qcow2",
        "neither a root file system",
    ),
];

/// Blocks that a folder has on the disk, with all that is in it.
fn blocks(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => blocks(&entry.path()),
            _ => entry.metadata().map_or(0, |it| it.blocks()),
        })
        .sum()
}

fn images(cloud: &Cloud) -> usize {
    let answer = cloud.ec2().call("DescribeImages", &[]);
    answer.expect("a list").at("imagesSet/item").len()
}

#[test]
fn image_files_that_claim_too_much_are_refused_before_the_disk_notices() {
    let cloud = cloud(&[("CUMULET_IMAGES_BYTES_MAX", &IMAGE_BYTES_MAX.to_string())]);
    let folders = ["images", "disks"].map(|name| cloud.data_directory().join(name));
    let before = folders.each_ref().map(|it| blocks(it));
    for (name, make, format, says) in FILES {
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", make])
            .current_dir(cloud.scratch());
        checked(&mut shell);
        let path = cloud.scratch().join(name);
        let write = |offset, bytes: &[u8]| {
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.expect("it is there")
                .write_all_at(bytes, offset)
                .expect("written");
        };
        match *name {
            // A first table that is too short for the disk.
            "table" => write(36, &[0; 4]),
            "version" => write(4, &4_u32.to_be_bytes()),
            _ => {}
        }
        let path = path.to_str().expect("UTF-8");
        let output = cloud.output(&["image", "import", path, "--name", name, "--format", format]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains(says), "{name}: {error}");
        assert_eq!(images(&cloud), 0, "{name}");
        assert_eq!(
            folders.each_ref().map(|it| blocks(it)),
            before,
            "{name} left something on the disk"
        );
        fs::remove_file(path).expect("removed");
    }
}
