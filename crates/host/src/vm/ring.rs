//! The console's ring file: the last 64 KiB that a guest printed.
//!
//! Written by the keeper with `pwrite`, read by the server directly, also long
//! after the keeper ended.  Layout, little endian: `magic` (8 bytes), bytes ever
//! written (u64), milliseconds of the last write (i64); the ring begins at 4096.
//! The bytes are written before the header, so that a reader that sees the same
//! header before and after has a true picture.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use cumulet_domain::Timestamp;

use crate::api::Console;

/// How much is kept.
pub const RING_BYTES: usize = 64 * 1024;

const RING: u64 = RING_BYTES as u64;
const MAGIC: [u8; 8] = *b"cmltcon1";
const HEADER_BYTES: usize = 24;
const DATA_OFFSET: u64 = 4096;

/// How often a reader looks again when the writer was faster.
const READS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    total: u64,
    updated: Timestamp,
}

/// Opens the console's file for writing; makes it, whole and with its room reserved, if it is not
/// there.  What an earlier run printed is kept.
///
/// # Errors
/// Those of the file system.
pub fn ensure(path: &Path, now: Timestamp) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if read_header(&file).is_err() {
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            DATA_OFFSET + RING,
        )?;
        let header = Header {
            total: 0,
            updated: now,
        };
        write_header(&file, header)?;
    }
    Ok(file)
}

/// Writes at the ring's end.
#[derive(Debug)]
pub struct Writer {
    file: File,
    total: u64,
}

impl Writer {
    /// Continues behind what the file holds.
    ///
    /// # Errors
    /// If the file is not a ring.
    pub fn open(file: File) -> io::Result<Self> {
        let total = read_header(&file)?.total;
        Ok(Self { file, total })
    }

    /// # Errors
    /// Those of the file system.
    pub fn append(&mut self, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        for piece in bytes.chunks(RING_BYTES / 4) {
            let at = self.total % RING;
            let room = usize::try_from(RING - at).unwrap_or(RING_BYTES);
            let (first, second) = piece.split_at(piece.len().min(room));
            self.file.write_all_at(first, DATA_OFFSET + at)?;
            self.file.write_all_at(second, DATA_OFFSET)?;
            self.total += piece.len() as u64;
            let header = Header {
                total: self.total,
                updated: now,
            };
            write_header(&self.file, header)?;
        }
        Ok(())
    }
}

/// The newest bytes, oldest first.
///
/// # Errors
/// If the file is not a ring, or the file system fails.
pub fn read(file: &File) -> io::Result<Console> {
    let mut before = read_header(file)?;
    let mut ring = vec![0; RING_BYTES];
    for _ in 0..READS_MAX {
        file.read_exact_at(&mut ring, DATA_OFFSET)?;
        let after = read_header(file)?;
        if after == before {
            break;
        }
        before = after;
    }
    let at = usize::try_from(before.total % RING).unwrap_or(0);
    let bytes = if before.total < RING {
        ring.truncate(at);
        ring
    } else {
        ring.rotate_left(at);
        ring
    };
    Ok(Console {
        bytes,
        updated: before.updated,
    })
}

fn write_header(file: &File, header: Header) -> io::Result<()> {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&header.total.to_le_bytes());
    bytes[16..].copy_from_slice(&header.updated.0.to_le_bytes());
    file.write_all_at(&bytes, 0)
}

fn read_header(file: &File) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    let (magic, numbers) = bytes.split_at(8);
    if magic != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a console ring",
        ));
    }
    let number = |at: usize| -> [u8; 8] {
        let mut it = [0; 8];
        it.copy_from_slice(&numbers[at..at + 8]);
        it
    };
    Ok(Header {
        total: u64::from_le_bytes(number(0)),
        updated: Timestamp(i64::from_le_bytes(number(8))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let file = ensure(&path, Timestamp(5)).unwrap();
        assert_eq!(read(&file).unwrap().bytes, b"");
        let all: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut writer = Writer::open(file).unwrap();
        let mut written = 0;
        for piece in all.chunks(30_011) {
            writer.append(piece, Timestamp(9)).unwrap();
            written += piece.len();
            let seen = read(&File::open(&path).unwrap()).unwrap();
            let start = written.saturating_sub(RING_BYTES);
            assert!(seen.bytes == all[start..written], "after {written} bytes");
            assert_eq!(seen.updated, Timestamp(9));
        }
        // A second start of the same instance continues.
        let mut again = Writer::open(ensure(&path, Timestamp(20)).unwrap()).unwrap();
        again.append(b"again", Timestamp(21)).unwrap();
        assert!(
            read(&File::open(&path).unwrap())
                .unwrap()
                .bytes
                .ends_with(b"again")
        );
    }

    #[test]
    fn other_files_are_no_rings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        assert!(read(&File::open(&path).unwrap()).is_err());
    }
}
