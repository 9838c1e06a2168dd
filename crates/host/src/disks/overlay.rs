//! A fresh qcow2 overlay: four clusters, nothing allocated, no name of a lower layer.
//!
//! Written by us because it is 256 KiB of mostly zeros, because it must not name
//! a backing file, and because a program per launch is slower.  The format is
//! QEMU's `docs/interop/qcow2.txt`, version 3.

use std::io::{self, Write};
use std::path::Path;

use cumulet_durable::Temporary;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// One entry of the first table covers this much of the disk.
const L1_COVERS: u64 = CLUSTER * (CLUSTER / 8);
/// QEMU refuses larger first tables.
const L1_ENTRIES_MAX: u64 = 4 * 1024 * 1024;
const HEADER_BYTES: u32 = 104;
const SECTOR: u64 = 512;

/// Makes an overlay through which the layer below shows everywhere; durable when it returns.
///
/// # Errors
/// Those of the file system, and a size that qcow2 cannot have.
pub(super) fn create(path: &Path, size_bytes: u64) -> io::Result<()> {
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut file = Temporary::create(directory, &name.to_string_lossy())?;
    let bytes = image(size_bytes.next_multiple_of(SECTOR))?;
    file.file_mut().write_all(&bytes)?;
    file.publish(path, 0o600)
}

fn image(size_bytes: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::other("the disk is larger than qcow2 allows");
    let l1_entries = size_bytes.div_ceil(L1_COVERS).max(1);
    if l1_entries > L1_ENTRIES_MAX {
        return Err(too_large());
    }
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    // Header, reference table, reference block, first table.
    let clusters = 3 + l1_clusters;
    let mut bytes = vec![0; usize::try_from(clusters * CLUSTER).map_err(|_| too_large())?];
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    let l1_size = u32::try_from(l1_entries).map_err(|_| too_large())?;
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    header.extend(0_u64.to_be_bytes()); // no backing file name
    header.extend(0_u32.to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size_bytes.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // not encrypted
    header.extend(l1_size.to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes()); // first table
    header.extend(CLUSTER.to_be_bytes()); // reference table
    header.extend(1_u32.to_be_bytes()); // its clusters
    header.extend(0_u32.to_be_bytes()); // snapshots
    header.extend(0_u64.to_be_bytes());
    header.extend([0; 24]); // features: incompatible, compatible, autoclear
    header.extend(4_u32.to_be_bytes()); // reference counts of 16 bits
    header.extend(HEADER_BYTES.to_be_bytes());
    put(&mut bytes, 0, &header);
    put(&mut bytes, CLUSTER, &(2 * CLUSTER).to_be_bytes());
    for cluster in 0..clusters {
        put(&mut bytes, 2 * CLUSTER + cluster * 2, &1_u16.to_be_bytes());
    }
    Ok(bytes)
}

fn put(bytes: &mut [u8], at: u64, what: &[u8]) {
    let at = usize::try_from(at).expect("an offset in a vector");
    bytes[at..at + what.len()].copy_from_slice(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn qemu_img_finds_no_fault() {
        let directory = tempfile::tempdir().unwrap();
        for size in [512, 10 << 20, 160 << 30, 20_u64 << 40] {
            let path = directory.path().join("disk");
            create(&path, size).unwrap();
            let run = |verb: &str| {
                let output = Command::new("qemu-img")
                    .args([verb, "--output=json", "-f", "qcow2"])
                    .arg(&path)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{output:?}");
                serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
            };
            assert_eq!(run("check")["check-errors"], 0);
            let info = run("info");
            assert_eq!(info["virtual-size"], size);
            assert_eq!(info["format-specific"]["data"]["corrupt"], false);
            assert!(info.get("backing-filename").is_none());
        }
        assert!(create(&directory.path().join("huge"), u64::MAX / 2).is_err());
    }
}
