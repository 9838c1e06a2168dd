//! What an image is, found from its headers alone.
//!
//! A root file system or a disk with a partition table; nothing else is taken,
//! and what could be both is refused.  Only a bounded number of bytes at fixed
//! places is read, every number in them is held against the image's size, and
//! no file system is ever mounted or walked.  This runs in the image worker.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::{FileFormat, ImageKind};

const SECTOR: u64 = 512;
/// The last thing that is looked at from the front is the header of btrfs.
const PREFIX_BYTES: usize = 0x1_0000 + 4096;
const GPT_ENTRIES_MAX: u32 = 1024;

/// What is known of an image after it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    pub contents: Contents,
    /// The format it came in; what is stored is always raw.
    pub format: FileFormat,
    /// Bytes of the raw image.
    pub virtual_size: u64,
}

impl ImageFacts {
    pub fn kind(&self) -> ImageKind {
        match self.contents {
            Contents::Rootfs(_) => ImageKind::Rootfs,
            Contents::Disk(_) => ImageKind::Disk,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contents {
    /// A file system without a partition table.
    Rootfs(FileSystem),
    /// A whole disk.
    Disk(TableKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    Ext2,
    Ext3,
    Ext4,
    Xfs,
    Btrfs,
    Reiserfs,
    Jfs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Mbr,
    Gpt,
}

#[derive(Debug, Error)]
pub enum FormatError {
    /// For the user.
    #[error("{0}")]
    Refused(String),
    #[error("could not read the image")]
    Io(#[from] io::Error),
}

fn refused<T>(text: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::Refused(text.into()))
}

/// Classifies a raw image of `size` bytes.
///
/// # Errors
/// `Refused` when it is neither or could be both, and when it is cut.
pub fn classify(image: &File, size: u64) -> Result<Contents, FormatError> {
    let mut bytes = vec![0; PREFIX_BYTES];
    let length = read_at_most(image, &mut bytes, 0)?;
    bytes.truncate(length);
    let prefix = Prefix(&bytes);
    if let Some(name) = foreign(prefix) {
        return refused(format!("The image is {name}; a raw image is needed"));
    }
    let table = table(image, prefix, size)?;
    let file_system = file_system(prefix, size)?;
    match (table, file_system) {
        (Some(table), None) => Ok(Contents::Disk(table)),
        // A GPT takes the place where most file systems have their header, so that what is found
        // behind it is the rest of an older one.
        (Some(TableKind::Gpt), Some(_)) => Ok(Contents::Disk(TableKind::Gpt)),
        (None, Some(file_system)) => Ok(Contents::Rootfs(file_system)),
        (Some(TableKind::Mbr), Some(_)) => {
            refused("The image begins both as a file system and as a disk with partitions")
        }
        (None, None) => refused(
            "The image is neither a root file system (ext2, ext3, ext4, xfs, btrfs, reiserfs, jfs) \
             nor a disk with a partition table (MBR, GPT)",
        ),
    }
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The beginning of an image; what lies beyond its end reads as zero.
#[derive(Clone, Copy)]
struct Prefix<'a>(&'a [u8]);

impl Prefix<'_> {
    fn has(self, offset: usize, magic: &[u8]) -> bool {
        self.0
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    }

    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    fn le16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    fn le32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn le64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }
}

/// Formats that users give by mistake, so that they learn it.
fn foreign(prefix: Prefix<'_>) -> Option<&'static str> {
    [
        (0, &b"QFI\xfb"[..], "a qcow2 file"),
        (0, b"KDMV", "a VMDK file"),
        (0, b"conectix", "a VHD file"),
        (0, b"vhdxfile", "a VHDX file"),
        (0, b"\x1f\x8b", "compressed with gzip"),
        (0, b"BZh", "compressed with bzip2"),
        (0, b"\xfd7zXZ\0", "compressed with xz"),
        (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (257, b"ustar", "a tar archive"),
        (0, b"hsqs", "a squashfs file system"),
        (0, b"\x7fELF", "a program"),
        (0x202, b"HdrS", "a Linux kernel"),
    ]
    .into_iter()
    .find_map(|(offset, magic, name)| prefix.has(offset, magic).then_some(name))
}

fn file_system(prefix: Prefix<'_>, size: u64) -> Result<Option<FileSystem>, FormatError> {
    // (what, bytes that it says it has; `None` when its header is nonsense)
    let found = if prefix.le16(1024 + 0x38) == 0xef53 {
        Some(ext(prefix))
    } else if prefix.has(0, b"XFSB") {
        let block = u32::from_be_bytes(prefix.array(4));
        let blocks = u64::from_be_bytes(prefix.array(8));
        let is_sane = block.is_power_of_two() && (512..=65536).contains(&block);
        let bytes = blocks.checked_mul(block.into()).filter(|_| is_sane);
        Some((FileSystem::Xfs, bytes))
    } else if prefix.has(0x1_0040, b"_BHRfS_M") {
        Some((FileSystem::Btrfs, Some(prefix.le64(0x1_0070))))
    } else if prefix.has(0x1_0034, b"ReIsErFs") || prefix.has(0x1_0034, b"ReIsEr2Fs") {
        let block = u64::from(prefix.le16(0x1_002c));
        Some((
            FileSystem::Reiserfs,
            block.checked_mul(prefix.le32(0x1_0000).into()),
        ))
    } else if prefix.has(0x8000, b"JFS1") {
        let block = u64::from(prefix.le32(0x8000 + 16));
        // Its size counts sectors.
        let bytes = prefix
            .le64(0x8000 + 8)
            .checked_mul(SECTOR)
            .filter(|_| block > 0);
        Some((FileSystem::Jfs, bytes))
    } else {
        None
    };
    match found {
        None => Ok(None),
        Some((_, None | Some(0))) => refused("The header of the image's file system is damaged"),
        Some((_, Some(bytes))) if bytes > size => refused(format!(
            "The image has {size} bytes and its file system {bytes}: the end is missing"
        )),
        Some((file_system, Some(_))) => Ok(Some(file_system)),
    }
}

fn ext(prefix: Prefix<'_>) -> (FileSystem, Option<u64>) {
    const HAS_JOURNAL: u32 = 0x4;
    const IS_64BIT: u32 = 0x80;
    /// Filetype, recover and journal are what ext3 has; everything newer is ext4.
    const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    let at = |offset: usize| prefix.le32(1024 + offset);
    let (log_block, compat, incompat) = (at(0x18), at(0x5c), at(0x60));
    let high = if incompat & IS_64BIT == 0 {
        0
    } else {
        u64::from(at(0x150))
    };
    let blocks = (high << 32) | u64::from(at(4));
    let bytes = (log_block <= 6)
        .then(|| blocks.checked_mul(1024 << log_block))
        .flatten();
    let kind = if incompat & !EXT3_INCOMPAT != 0 {
        FileSystem::Ext4
    } else if compat & HAS_JOURNAL != 0 {
        FileSystem::Ext3
    } else {
        FileSystem::Ext2
    };
    (kind, bytes)
}

/// The partition table; an error when there is one that is wrong.
fn table(image: &File, prefix: Prefix<'_>, size: u64) -> Result<Option<TableKind>, FormatError> {
    if prefix.has(512, b"EFI PART") {
        return gpt(image, prefix, size).map(|()| Some(TableKind::Gpt));
    }
    if prefix.has(4096, b"EFI PART") {
        return refused("The image's partition table has sectors of 4096 bytes; 512 are needed");
    }
    if prefix.le16(510) != 0xaa55 {
        return Ok(None);
    }
    let mut runs = vec![];
    for entry in [446, 462, 478, 494] {
        let [flag] = prefix.array(entry);
        let [kind] = prefix.array(entry + 4);
        let (start, length) = (prefix.le32(entry + 8), prefix.le32(entry + 12));
        if kind == 0 && length == 0 {
            continue;
        }
        // Boot code of a file system may end in the same two bytes and have anything here.
        let is_sane = matches!(flag, 0 | 0x80) && kind != 0 && start > 0 && length > 0;
        if !is_sane {
            return Ok(None);
        }
        runs.push((u64::from(start), u64::from(start) + u64::from(length), kind));
    }
    if runs.is_empty() {
        return Ok(None);
    }
    if runs.iter().any(|(.., kind)| *kind == 0xee) {
        return refused("The image's partition table (GPT) is missing or damaged");
    }
    check_runs(
        runs.into_iter()
            .map(|(start, end, _)| (start, end))
            .collect(),
        size / SECTOR,
    )?;
    Ok(Some(TableKind::Mbr))
}

fn check_runs(mut runs: Vec<(u64, u64)>, sectors: u64) -> Result<(), FormatError> {
    runs.sort_unstable();
    if runs.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return refused("Partitions of the image overlap");
    }
    if runs.iter().any(|(_, end)| *end > sectors) {
        return refused("A partition of the image ends after the image");
    }
    Ok(())
}

fn gpt(image: &File, prefix: Prefix<'_>, size: u64) -> Result<(), FormatError> {
    let damaged = || refused("The image's partition table (GPT) is damaged");
    let at = |offset: usize| prefix.le32(512 + offset);
    let at64 = |offset: usize| prefix.le64(512 + offset);
    let length = at(12) as usize;
    if !(92..=512).contains(&length) || at64(24) != 1 {
        return damaged();
    }
    let mut header = prefix.0.get(512..512 + length).unwrap_or_default().to_vec();
    if header.len() != length {
        return damaged();
    }
    header[16..20].fill(0);
    if crc(&header) != at(16) {
        return damaged();
    }
    let (first, last, place) = (at64(40), at64(48), at64(72));
    let (count, entry_bytes) = (at(80), at(84));
    let sectors = size / SECTOR;
    let is_sane = (1..=GPT_ENTRIES_MAX).contains(&count)
        && matches!(entry_bytes, 128 | 256 | 512)
        && (2..sectors).contains(&place)
        && first <= last;
    if !is_sane {
        return damaged();
    }
    if last >= sectors {
        return refused("The image is shorter than its partition table says: the end is missing");
    }
    let mut entries = vec![0; (count * entry_bytes) as usize];
    if read_at_most(image, &mut entries, place * SECTOR)? != entries.len()
        || crc(&entries) != at(88)
    {
        return damaged();
    }
    let mut runs = vec![];
    for entry in entries.chunks_exact(entry_bytes as usize).map(Prefix) {
        if entry.array(0) == [0; 16] {
            continue;
        }
        let (start, end) = (entry.le64(32), entry.le64(40));
        if start < first || end > last || start > end {
            return damaged();
        }
        runs.push((start, end + 1));
    }
    if runs.is_empty() {
        return refused("The image's partition table is empty");
    }
    check_runs(runs, sectors)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
