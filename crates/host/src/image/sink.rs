//! Writing an image sparsely, and digesting it on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{Context, SHA256};
use cumulet_bundle::bundle::is_zero;
use cumulet_bundle::unbundle::ImageSink;
use cumulet_domain::Digest;

/// Blocks of zeros of this size, at multiples of it, become holes.
const BLOCK: usize = 4096;
const BUFFER_BYTES: usize = 64 * BLOCK;

/// Writes an image from first to last byte to an empty file; zeros are not written.
pub struct FileSink<'a> {
    file: &'a File,
    digest: Context,
    /// Bytes not yet written; they begin at `start`, a multiple of the block.
    buffer: Vec<u8>,
    start: u64,
    /// Called with the number of bytes that the image has so far.
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> FileSink<'a> {
    pub fn new(file: &'a File, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            file,
            digest: Context::new(&SHA256),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            start: 0,
            progress,
        }
    }

    /// Writes what is left, sets the file's length and gives the SHA-256 of the image's bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let size = self.start + self.buffer.len() as u64;
        self.flush()?;
        self.file.set_len(size)?;
        let digest = self.digest.finish().as_ref().try_into();
        Ok((Digest(digest.expect("a SHA-256 digest has 32 bytes")), size))
    }

    /// Writes the buffer but for its blocks of zeros.
    fn flush(&mut self) -> io::Result<()> {
        let mut run = 0..0;
        for block in (0..self.buffer.len()).step_by(BLOCK) {
            let end = self.buffer.len().min(block + BLOCK);
            if is_zero(&self.buffer[block..end]) {
                self.write(run.clone())?;
                run = end..end;
            } else {
                run.end = end;
            }
        }
        self.write(run)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        (self.progress)(self.start);
        Ok(())
    }

    fn write(&self, run: std::ops::Range<usize>) -> io::Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        self.file
            .write_all_at(&self.buffer[run.clone()], self.start + run.start as u64)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BUFFER_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }
}

impl ImageSink for FileSink<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.append(bytes)
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        static ZEROS: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];
        let mut left = length;
        while left > 0 {
            let now = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(BUFFER_BYTES);
            self.digest.update(&ZEROS[..now]);
            if self.buffer.is_empty() && now == BUFFER_BYTES {
                // A whole buffer of zeros need not be looked at.
                self.start += now as u64;
                (self.progress)(self.start);
            } else {
                self.append(&ZEROS[..now])?;
            }
            left -= now as u64;
        }
        Ok(())
    }
}
