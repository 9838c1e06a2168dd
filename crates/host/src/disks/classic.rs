//! The disk of 2007: root, ephemeral store and swap as partitions 1, 2 and 3.
//!
//! A real partition table, so that `/dev/sda1..3` are true for the kernel, for
//! udev and for systemd.  The image is copied behind the table as it is; the
//! ephemeral store is an empty ext3 that `mke2fs` makes in a file of its own, so
//! that no tool of the host ever looks at the user's bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use cumulet_domain::Digest;

use super::{MIB, sparse};
use cumulet_durable::Temporary;

const SECTOR: u64 = 512;
/// Where the first partition begins, and what all sizes are rounded to.
const ALIGNMENT: u64 = MIB;
const TYPE_LINUX: u8 = 0x83;
const TYPE_SWAP: u8 = 0x82;
/// Bytes of disk per file of the ephemeral store; few inodes, since each is written down.
const BYTES_PER_INODE: u64 = 256 * 1024;

/// Makes the disk at `path`, durably; nothing is there if it fails.
pub(super) fn make(
    image: &Path,
    path: &Path,
    digest: Digest,
    ephemeral_mib: u64,
    swap_mib: u64,
) -> io::Result<()> {
    let image = File::open(image)?;
    let plan = Plan::new(image.metadata()?.len(), ephemeral_mib, swap_mib)?;
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .to_string_lossy()
        .into_owned();
    let disk = Temporary::create(directory, &name)?;
    disk.file().set_len(plan.total)?;
    disk.file().write_all_at(&plan.table(digest), 0)?;
    sparse::copy(&image, disk.file(), plan.root.start)?;
    if plan.ephemeral.length > 0 {
        let store = Temporary::create(directory, &format!("{name}-ephemeral"))?;
        store.file().set_len(plan.ephemeral.length)?;
        make_ext3(store.path(), digest)?;
        sparse::copy(store.file(), disk.file(), plan.ephemeral.start)?;
    }
    if plan.swap.length > 0 {
        disk.file()
            .write_all_at(&swap_header(plan.swap.length, digest)?, plan.swap.start)?;
    }
    disk.publish(path, 0o444)
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    start: u64,
    length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    root: Extent,
    ephemeral: Extent,
    swap: Extent,
    total: u64,
}

impl Plan {
    fn new(image_bytes: u64, ephemeral_mib: u64, swap_mib: u64) -> io::Result<Self> {
        let too_large = || io::Error::other("the disk is larger than its partition table allows");
        let mebibytes = |count: u64| count.checked_mul(MIB).ok_or_else(too_large);
        let root = Extent {
            start: ALIGNMENT,
            length: image_bytes
                .checked_next_multiple_of(ALIGNMENT)
                .ok_or_else(too_large)?,
        };
        let after = |it: Extent| it.start.checked_add(it.length).ok_or_else(too_large);
        let ephemeral = Extent {
            start: after(root)?,
            length: mebibytes(ephemeral_mib)?,
        };
        let swap = Extent {
            start: after(ephemeral)?,
            length: mebibytes(swap_mib)?,
        };
        let total = after(swap)?;
        // The table counts sectors in 32 bits.
        u32::try_from(total / SECTOR).map_err(|_| too_large())?;
        Ok(Self {
            root,
            ephemeral,
            swap,
            total,
        })
    }

    fn table(&self, digest: Digest) -> [u8; 512] {
        let mut table = [0; 512];
        // The disk's signature: any fixed number that differs between images.
        table[440..444].copy_from_slice(&digest.0[..4]);
        let parts = [
            (self.root, TYPE_LINUX),
            (self.ephemeral, TYPE_LINUX),
            (self.swap, TYPE_SWAP),
        ];
        for (index, (extent, kind)) in parts.into_iter().enumerate() {
            if extent.length == 0 {
                continue;
            }
            let sectors =
                |bytes: u64| u32::try_from(bytes / SECTOR).expect("the total fits, as was checked");
            let entry = &mut table[446 + 16 * index..446 + 16 * (index + 1)];
            // Addresses by cylinder are of no use at these sizes; this is how tools say so.
            entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
            entry[4] = kind;
            entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
            entry[8..12].copy_from_slice(&sectors(extent.start).to_le_bytes());
            entry[12..16].copy_from_slice(&sectors(extent.length).to_le_bytes());
        }
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        table
    }
}

/// An empty file system on a file that holds nothing yet.
fn make_ext3(path: &Path, digest: Digest) -> io::Result<()> {
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext3", "-m", "0"])
        .args(["-O", "^resize_inode", "-J", "size=16"])
        .args(["-i", &BYTES_PER_INODE.to_string()])
        .args(["-E", "nodiscard,root_owner=0:0"])
        .args(["-U", &uuid(digest, 1)])
        .arg(path)
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|cause| io::Error::other(format!("running mke2fs: {cause}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("No space left") {
        return Err(io::Error::new(io::ErrorKind::StorageFull, said));
    }
    Err(io::Error::other(format!("mke2fs failed: {said}")))
}

/// The first page of a swap area (Linux, `include/linux/swap.h`, `union swap_header`).
fn swap_header(length: u64, digest: Digest) -> io::Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let pages = length / PAGE;
    let last = u32::try_from(pages.saturating_sub(1))
        .map_err(|_| io::Error::other("the swap area is too large"))?;
    let mut page = vec![0; 4096];
    page[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&last.to_le_bytes());
    page[1036..1052].copy_from_slice(&uuid_bytes(digest, 2));
    page[4086..].copy_from_slice(b"SWAPSPACE2");
    Ok(page)
}

/// Fixed for an image, so that the same image makes the same disk.
fn uuid_bytes(digest: Digest, which: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[16..]);
    bytes[0] ^= which;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn uuid(digest: Digest, which: u8) -> String {
    let hex: String = uuid_bytes(digest, which)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn image(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("image");
        let file = File::create(&path).unwrap();
        file.set_len(3 * MIB + 512).unwrap();
        file.write_all_at(b"root", 0).unwrap();
        path
    }

    #[test]
    fn the_disk_is_what_tools_take_it_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let digest = Digest([7; 32]);
        make(&image(directory.path()), &path, digest, 64, 32).unwrap();
        let disk = File::open(&path).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), (1 + 4 + 64 + 32) * MIB);
        assert_eq!(disk.metadata().unwrap().mode() & 0o777, 0o444);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        let mut table = [0; 512];
        disk.read_exact_at(&mut table, 0).unwrap();
        assert_eq!(table[446 + 8..446 + 12], 2048_u32.to_le_bytes());
        assert_eq!(table[462 + 8..462 + 12], (5 * 2048_u32).to_le_bytes());
        let mut root = [0; 4];
        disk.read_exact_at(&mut root, MIB).unwrap();
        assert_eq!(&root, b"root");

        let probe = |offset: u64| {
            let output = Command::new("blkid")
                .args(["-p", "-o", "value", "-s", "TYPE", "-O"])
                .arg(offset.to_string())
                .arg(&path)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(probe(5 * MIB), "ext3");
        assert_eq!(probe((5 + 64) * MIB), "swap");
    }

    #[test]
    fn a_large_ephemeral_store_costs_little() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let image = image(directory.path());
        make(&image, &path, Digest([1; 32]), 149 * 1024, 896).unwrap();
        let used = File::open(&path).unwrap().metadata().unwrap().blocks() * 512;
        assert!(used < 64 * MIB, "{used} bytes");
    }

    #[test]
    fn what_the_table_cannot_say_is_refused() {
        assert!(Plan::new(MIB, 3 << 20, 0).is_err());
        assert!(Plan::new(u64::MAX - 5, 0, 0).is_err());
        let plan = Plan::new(MIB, 0, 0).unwrap();
        assert_eq!(plan.total, 2 * MIB);
    }
}
