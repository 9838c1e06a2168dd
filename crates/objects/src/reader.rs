//! Handing out the bytes of an object, to threads and to streams.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use tokio::sync::Semaphore;

use crate::bodies::Pin;
use crate::error::{Error, Result};
use crate::records::{Object, Segment};
use crate::writer::{joined, worker};

const BLOCK_LEN: usize = 256 * 1024;

/// An object that may be read; what it names stays on the disk as long as this lives, whatever
/// becomes of the key.
pub struct ObjectBody {
    pub object: Object,
    pub(crate) pin: Pin,
    pub(crate) workers: Arc<Semaphore>,
}

impl ObjectBody {
    /// All bytes.  Blocking.
    pub fn reader(self) -> ObjectReader {
        let all = 0..self.object.size;
        self.range_reader(all)
    }

    /// The bytes of `range`, cut to those that there are.  Blocking.
    pub fn range_reader(self, range: Range<u64>) -> ObjectReader {
        let end = range.end.min(self.object.size);
        let mut remaining = end.saturating_sub(range.start);
        let mut skip = range.start;
        let mut segments = VecDeque::new();
        for segment in self.object.segments {
            if skip >= segment.length {
                skip -= segment.length;
                continue;
            }
            let length = (segment.length - skip).min(remaining);
            if length > 0 {
                segments.push_back((skip, Segment { length, ..segment }));
            }
            remaining -= length;
            skip = 0;
        }
        ObjectReader {
            segments,
            open: None,
            pin: self.pin,
        }
    }

    /// The bytes of `range` in blocks; the first is already read, so that a missing file is an
    /// error here and not in the middle of an answer.
    ///
    /// # Errors
    /// `Disk`.
    pub async fn stream(
        self,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
        let workers = self.workers.clone();
        let (first, reader) = next_block(self.range_reader(range), workers.clone()).await?;
        let state = Some((first, reader, workers));
        Ok(futures::stream::unfold(state, |state| async move {
            let (block, reader, workers) = state?;
            if block.is_empty() {
                return None;
            }
            match next_block(reader, workers.clone()).await {
                Ok((next, reader)) => Some((Ok(block), Some((next, reader, workers)))),
                Err(cause) => Some((Err(io::Error::other(cause)), None)),
            }
        }))
    }
}

/// An empty block is the end.
async fn next_block(
    mut reader: ObjectReader,
    workers: Arc<Semaphore>,
) -> Result<(Bytes, ObjectReader)> {
    if reader.is_at_end() {
        return Ok((Bytes::new(), reader));
    }
    let permit = worker(&workers).await?;
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut block = BytesMut::zeroed(reader.remaining_max(BLOCK_LEN));
        reader
            .read_exact(&mut block)
            .map_err(|cause| Error::io("read an object", &cause))?;
        Ok((block.freeze(), reader))
    });
    joined(work).await
}

/// Bytes of an object, for threads.
pub struct ObjectReader {
    /// What is left, with where to begin in each body.
    segments: VecDeque<(u64, Segment)>,
    open: Option<File>,
    pin: Pin,
}

impl ObjectReader {
    fn is_at_end(&self) -> bool {
        self.segments.is_empty()
    }

    fn remaining_max(&self, max: usize) -> usize {
        let left: u64 = self.segments.iter().map(|(_, part)| part.length).sum();
        usize::try_from(left).map_or(max, |left| left.min(max))
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((start, segment)) = self.segments.front_mut() else {
            return Ok(0);
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let mut file = self.pin.open_body(segment.body)?;
                file.seek(SeekFrom::Start(*start))?;
                none.insert(file)
            }
        };
        let wanted =
            usize::try_from(segment.length).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = file.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the body of an object is shorter than its record says",
            ));
        }
        segment.length -= read as u64;
        if segment.length == 0 {
            self.segments.pop_front();
            self.open = None;
        }
        Ok(read)
    }
}
