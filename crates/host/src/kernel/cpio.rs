//! Archives in the `newc` form of cpio, as the Linux kernel unpacks for its ramdisk.
//!
//! Writing only.  Times are zero and inodes are numbered in order, so that the
//! same files make the same bytes.  Several archives may follow one another,
//! each starting at a multiple of four; that is how an instance's key is added
//! to a ramdisk that all share.

use std::io::{self, Write};

/// Writes members one after another; [`Archive::finish`] ends the archive.
pub struct Archive<W> {
    writer: W,
    inode: u32,
    written: usize,
}

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// The archive's length is a multiple of this, as GNU cpio's.
const BLOCK: usize = 512;

impl<W: Write> Archive<W> {
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            inode: 0,
            written: 0,
        }
    }

    /// # Errors
    /// Those of the writer; the parents of `path` must have been written before.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.member(path, S_IFDIR | 0o755, (0, 0), &[])
    }

    /// # Errors
    /// Those of the writer.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.member(path, S_IFREG | mode, (0, 0), bytes)
    }

    /// # Errors
    /// Those of the writer.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.member(path, S_IFLNK | 0o777, (0, 0), target.as_bytes())
    }

    /// # Errors
    /// Those of the writer.
    pub fn character_device(&mut self, path: &str, device: (u32, u32)) -> io::Result<()> {
        self.member(path, S_IFCHR | 0o600, device, &[])
    }

    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(BLOCK)?;
        Ok(self.writer)
    }

    fn member(
        &mut self,
        path: &str,
        mode: u32,
        device: (u32, u32),
        bytes: &[u8],
    ) -> io::Result<()> {
        let too_large = |_| io::Error::other(format!("{path} is too large for a cpio archive"));
        let size = u32::try_from(bytes.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.inode += 1;
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08X}").as_bytes())?;
        }
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(bytes)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.writer.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gnu_cpio_lists_what_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dev").unwrap();
        archive.character_device("dev/console", (5, 1)).unwrap();
        archive.file("init", 0o755, b"#!/bin/sh\n").unwrap();
        archive.link("sh", "init").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        // Each header is six bytes and thirteen numbers of eight digits, aligned to four.
        assert_eq!(&bytes[..6], b"070701");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5);
        assert!(text.contains("000041ED"), "the directory's mode");
        assert!(text.contains("TRAILER!!!"));
    }
}
