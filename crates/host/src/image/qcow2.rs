//! Reading a user's qcow2 file.
//!
//! Versions 2 and 3 with plain and zlib-compressed clusters.  Whatever would
//! make the reader open or believe something else is refused: backing files,
//! external data files, encryption, snapshots, and every feature bit that is not
//! known.
//! A cluster of the file may stand for one place of the disk only, so that a
//! small file cannot become a large disk of data.  This runs in the image worker.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use cumulet_bundle::unbundle::ImageSink;
use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

/// As in QEMU.
const L1_BYTES_MAX: u64 = 32 * 1024 * 1024;
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
const SECTOR: u64 = 512;

#[derive(Debug, Error)]
pub enum Qcow2Error {
    /// For the user.
    #[error("{0}")]
    Refused(String),
    #[error("could not read the qcow2 file or write the image")]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, Qcow2Error>;

fn refused<T>(text: impl Into<String>) -> Result<T> {
    Err(Qcow2Error::Refused(format!(
        "The qcow2 file is refused: {}",
        text.into()
    )))
}

/// A file whose header is in order.
#[derive(Debug)]
pub struct Qcow2<'a> {
    file: &'a File,
    file_length: u64,
    version: u32,
    cluster_bits: u32,
    size: u64,
    l1_place: u64,
}

impl<'a> Qcow2<'a> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// `Refused` with the reason.
    pub fn open(file: &'a File, size_max: u64) -> Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return refused("it is not a file");
        }
        let mut bytes = [0; 112];
        let length = read_or_zeros(file, &mut bytes, 0)?;
        let at = |offset: usize| {
            u32::from_be_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
        };
        let at64 = |offset: usize| (u64::from(at(offset)) << 32) | u64::from(at(offset + 4));
        if length < 72 || &bytes[..4] != b"QFI\xfb" {
            return refused("it does not begin as one");
        }
        let version = at(4);
        if !matches!(version, 2 | 3) {
            return refused(format!("its version is {version}; 2 and 3 are read"));
        }
        if at64(8) != 0 || at(16) != 0 {
            return refused("it has a backing file");
        }
        if at(32) != 0 {
            return refused("it is encrypted");
        }
        if at(60) != 0 {
            // Whether the disk or one of its snapshots is meant, only its owner knows.
            return refused("it has snapshots; qemu-img convert leaves them out");
        }
        if version == 3 {
            check_features(at64(72), at(100), length, bytes[104])?;
        }
        let (cluster_bits, size) = (at(20), at64(24));
        if !(9..=21).contains(&cluster_bits) {
            return refused("the size of its clusters is wrong");
        }
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return refused("the size of its disk is wrong");
        }
        if size > size_max {
            return refused(format!(
                "its disk has {size} bytes, more than the {size_max} allowed"
            ));
        }
        let image = Self {
            file,
            file_length: metadata.len(),
            version,
            cluster_bits,
            size,
            l1_place: at64(40),
        };
        let needed = image.l1_entries();
        if u64::from(at(36)) < needed || needed * 8 > L1_BYTES_MAX {
            return refused("the size of its first table is wrong");
        }
        image.check_place(image.l1_place, needed * 8)?;
        Ok(image)
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }

    fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.cluster() * self.l2_entries())
    }

    /// A table is at a multiple of the cluster and within the file.
    fn check_place(&self, place: u64, length: u64) -> Result<()> {
        let end = place
            .checked_add(length)
            .filter(|end| *end <= self.file_length);
        if place == 0 || !place.is_multiple_of(self.cluster()) || end.is_none() {
            return refused("a table lies outside of the file");
        }
        Ok(())
    }

    fn table(&self, place: u64, entries: u64) -> Result<Vec<u64>> {
        self.check_place(place, entries * 8)?;
        let length = usize::try_from(entries * 8).unwrap_or_default();
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|it| u64::from_be_bytes(*it))
            .collect())
    }

    /// Gives the whole disk to `sink`.
    ///
    /// # Errors
    /// `Refused` when a table or a compressed cluster is wrong.
    pub fn read(&self, sink: &mut dyn ImageSink) -> Result<()> {
        let mut reading = Reading {
            image: self,
            used: 0,
            buffer: vec![0; usize::try_from(self.cluster()).unwrap_or_default()],
        };
        let per_table = self.cluster() * self.l2_entries();
        for (index, entry) in self
            .table(self.l1_place, self.l1_entries())?
            .into_iter()
            .enumerate()
        {
            let start = index as u64 * per_table;
            let length = per_table.min(self.size - start);
            if entry & !(OFFSET_MASK | 1 << 63) != 0 {
                return refused("an entry of its first table is wrong");
            }
            let place = entry & OFFSET_MASK;
            if place == 0 {
                sink.hole(length)?;
                continue;
            }
            reading.count(self.cluster())?;
            let clusters = self.table(place, self.l2_entries())?;
            let needed = usize::try_from(length.div_ceil(self.cluster())).unwrap_or_default();
            for (index, entry) in clusters.into_iter().take(needed).enumerate() {
                let left = length - index as u64 * self.cluster();
                reading.cluster(entry, left.min(self.cluster()), sink)?;
            }
        }
        Ok(())
    }
}

fn check_features(incompatible: u64, header: u32, length: usize, compression: u8) -> Result<()> {
    if usize::try_from(header).is_ok_and(|header| header < 104) || length < 104 {
        return refused("its header is too short");
    }
    for (bit, name) in [
        (0, "it was not closed properly"),
        (1, "it is marked as damaged"),
        (2, "it has an external data file"),
        (3, "it is compressed in another way than zlib"),
        (4, "it has extended tables"),
    ] {
        if incompatible & 1 << bit != 0 {
            return refused(name);
        }
    }
    if incompatible != 0 {
        return refused(format!(
            "it needs features that are not known ({incompatible:#x})"
        ));
    }
    if header > 104 && compression != 0 {
        return refused("it is compressed in another way than zlib");
    }
    Ok(())
}

struct Reading<'a> {
    image: &'a Qcow2<'a>,
    /// Bytes of the file that entries have pointed to so far.
    used: u64,
    buffer: Vec<u8>,
}

impl Reading<'_> {
    /// What the entries point to cannot be more than there is.
    fn count(&mut self, length: u64) -> Result<()> {
        self.used = self.used.saturating_add(length);
        // The last cluster may be cut.
        if self.used > self.image.file_length.saturating_add(self.image.cluster()) {
            return refused("several places of its disk have the same cluster");
        }
        Ok(())
    }

    fn cluster(&mut self, entry: u64, length: u64, sink: &mut dyn ImageSink) -> Result<()> {
        let wanted = usize::try_from(length).unwrap_or_default();
        if entry & COMPRESSED != 0 {
            self.decompress(entry)?;
            return Ok(sink.data(&self.buffer[..wanted])?);
        }
        let place = entry & OFFSET_MASK;
        let is_zero = entry & ZERO != 0;
        let known = OFFSET_MASK | 1 << 63 | ZERO;
        let is_wrong = entry & !known != 0 || (is_zero && self.image.version == 2);
        if is_wrong
            || !place.is_multiple_of(self.image.cluster())
            || place >= self.image.file_length
        {
            return refused("an entry of its second table is wrong");
        }
        if place == 0 || is_zero {
            return Ok(sink.hole(length)?);
        }
        self.count(self.image.cluster())?;
        read_or_zeros(self.image.file, &mut self.buffer, place)?;
        Ok(sink.data(&self.buffer[..wanted])?)
    }

    fn decompress(&mut self, entry: u64) -> Result<()> {
        let sector_bits = self.image.cluster_bits - 8;
        let place_bits = 62 - sector_bits;
        let place = entry & ((1 << place_bits) - 1);
        let sectors = (entry >> place_bits) & ((1 << sector_bits) - 1);
        let length = (sectors + 1) * SECTOR - place % SECTOR;
        if place >= self.image.file_length || place == 0 {
            return refused("an entry of its second table is wrong");
        }
        let mut compressed = vec![0; usize::try_from(length).unwrap_or_default()];
        let filled = read_or_zeros(self.image.file, &mut compressed, place)?;
        let mut inflate = Decompress::new(false);
        let status = inflate.decompress(
            &compressed[..filled],
            &mut self.buffer,
            FlushDecompress::Finish,
        );
        // What was really used: neighbours share the sector where one ends and the next begins.
        self.count(inflate.total_in())?;
        let is_whole = inflate.total_out() == self.image.cluster();
        match status {
            Ok(Status::StreamEnd | Status::Ok | Status::BufError) if is_whole => Ok(()),
            _ => refused("a compressed cluster is damaged"),
        }
    }
}

/// Fills the buffer; beyond the end of the file there are zeros.  Returns what was read.
fn read_or_zeros(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[filled..].fill(0);
    Ok(filled)
}
