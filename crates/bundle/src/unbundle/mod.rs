//! From encrypted parts to the image: join, decrypt, gunzip, take out of tar.
//!
//! Everything is streamed in constant memory and bounded by the size that the
//! manifest declares, which the caller has held against its quota: gzip cannot
//! expand more than about a thousandfold, and a sparse member's holes count as
//! size and are never written.  Nothing of the result may be used unless
//! [`unbundle`] returned `Ok`, since digests are known only at the end.

mod archive;
mod decrypt;

use std::io::{self, BufReader, Read};

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use decrypt::Decrypting;

/// What the stream may hold beside the image: headers, sparse maps, padding.
const OVERHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;
const COPY_BYTES: usize = 128 * 1024;

/// Opens one part when its turn has come.
pub type OpenPart = Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>;

/// One encrypted part and the SHA-1 that the manifest promises.
pub struct PartSource {
    pub open: OpenPart,
    pub sha1: [u8; 20],
}

/// A part that is not what the manifest says; carried inside an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartError {
    #[error("Part {0} of the bundle is damaged: its SHA-1 digest is not the one in the manifest")]
    Digest(usize),
    #[error("Part {0} of the bundle is missing")]
    Missing(usize),
}

impl PartError {
    /// The part's error in an error of [`PartsReader`].
    ///
    /// # Errors
    /// Gives back an error of another kind.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        error.downcast::<Self>()
    }
}

/// The parts one after the other.  The end is only reported when every digest was right; a wrong one
/// is an error at the end of its part.
pub struct PartsReader {
    parts: std::iter::Enumerate<std::vec::IntoIter<PartSource>>,
    current: Option<Current>,
}

struct Current {
    index: usize,
    reader: Box<dyn Read + Send>,
    sha1: [u8; 20],
    digest: Context,
}

impl PartsReader {
    pub fn new(parts: Vec<PartSource>) -> Self {
        Self {
            parts: parts.into_iter().enumerate(),
            current: None,
        }
    }
}

impl Read for PartsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let current = match &mut self.current {
                Some(current) => current,
                None => match self.parts.next() {
                    None => return Ok(0),
                    Some((index, part)) => self.current.insert(open(index, part)?),
                },
            };
            let length = current.reader.read(buffer)?;
            if length > 0 {
                current.digest.update(&buffer[..length]);
                return Ok(length);
            }
            let is_right = current.digest.clone().finish().as_ref() == current.sha1;
            let index = current.index;
            self.current = None;
            if !is_right {
                let error = PartError::Digest(index);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

fn open(index: usize, part: PartSource) -> io::Result<Current> {
    let reader = (part.open)().map_err(|error| {
        // A part that may not be read is missing as far as the bundle's owner is concerned.
        let is_missing = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        if is_missing {
            io::Error::new(io::ErrorKind::NotFound, PartError::Missing(index))
        } else {
            error
        }
    })?;
    Ok(Current {
        index,
        reader,
        sha1: part.sha1,
        digest: Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
    })
}

/// Where the image's bytes go, from first to last.
pub trait ImageSink {
    /// The next bytes.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The next `length` bytes are zero.
    ///
    /// # Errors
    /// As `data`.
    fn hole(&mut self, length: u64) -> io::Result<()>;
}

/// What the manifest says of the stream.
#[derive(Clone)]
pub struct Expected {
    pub key: [u8; 16],
    pub iv: [u8; 16],
    /// SHA-1 of the stream before compression.
    pub sha1: [u8; 20],
    /// Bytes of the image; a larger one is refused.
    pub size: u64,
}

#[derive(Debug, Error)]
pub enum UnbundleError {
    /// The bundle is at fault; the text is for its owner.
    #[error("{0}")]
    Refused(String),
    /// Reading the parts or writing the image failed.
    #[error("could not read the bundle or write the image")]
    Io(#[source] io::Error),
}

impl UnbundleError {
    fn refused(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }
}

/// Reads the joined encrypted parts and gives the image to `sink`; returns the image's size.
///
/// # Errors
/// `Refused` when the bundle is damaged, not as the manifest says, or holds something else than one
/// plain file.
pub fn unbundle(
    input: impl Read,
    expected: &Expected,
    sink: &mut dyn ImageSink,
) -> Result<u64, UnbundleError> {
    let decrypting = Decrypting::new(Input(input), &expected.key, &expected.iv)?;
    let mut stream = Stream {
        inner: MultiGzDecoder::new(BufReader::with_capacity(COPY_BYTES, decrypting)),
        digest: Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
        left: expected.size.saturating_add(OVERHEAD_BYTES_MAX),
    };
    let mut first = [0; archive::BLOCK];
    let length = stream.fill(&mut first)?;
    let first = &first[..length];
    let mut image = Bounded {
        sink,
        size: 0,
        size_max: expected.size,
    };
    match <&[u8; archive::BLOCK]>::try_from(first) {
        Ok(block) if archive::is_header(block) => {
            archive::read_only_member(block, &mut stream, &mut image)?;
        }
        _ => {
            image.data(first)?;
            let mut buffer = vec![0; COPY_BYTES];
            loop {
                let length = stream.fill(&mut buffer)?;
                if length == 0 {
                    break;
                }
                image.data(&buffer[..length])?;
            }
        }
    }
    if stream.digest.finish().as_ref() != expected.sha1 {
        return Err(UnbundleError::refused(
            "The SHA-1 digest of the image is not the one in the manifest",
        ));
    }
    Ok(image.size)
}

/// Marks errors of the input, so that they are told from those of decryption and gzip.
struct Input<R>(R);

#[derive(Debug, Error)]
#[error("could not read the parts")]
struct InputError(#[source] io::Error);

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(InputError(error)),
        })
    }
}

/// The stream before compression: digested and bounded.
struct Stream<R> {
    inner: R,
    digest: Context,
    left: u64,
}

impl<R: Read> Stream<R> {
    /// Reads until the buffer is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, UnbundleError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(stream_error(error)),
            }
        }
        self.left = self.left.checked_sub(filled as u64).ok_or_else(|| {
            UnbundleError::refused("The bundle holds more than its manifest says")
        })?;
        self.digest.update(&buffer[..filled]);
        Ok(filled)
    }

    /// As [`Self::fill`], but an end before the buffer is full is an error.
    fn fill_all(&mut self, buffer: &mut [u8]) -> Result<(), UnbundleError> {
        if self.fill(buffer)? == buffer.len() {
            return Ok(());
        }
        Err(UnbundleError::refused(
            "The archive in the bundle ends too early",
        ))
    }
}

fn stream_error(error: io::Error) -> UnbundleError {
    match error.downcast::<InputError>() {
        Ok(InputError(cause)) => match PartError::from_io(cause) {
            Ok(part) => UnbundleError::refused(part.to_string()),
            Err(cause) => UnbundleError::Io(cause),
        },
        Err(error) => UnbundleError::refused(format!(
            "The bundle cannot be decrypted and unpacked: {error}"
        )),
    }
}

/// Keeps the image within its declared size.
struct Bounded<'a> {
    sink: &'a mut dyn ImageSink,
    size: u64,
    size_max: u64,
}

impl Bounded<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), UnbundleError> {
        self.grow(bytes.len() as u64)?;
        self.sink.data(bytes).map_err(UnbundleError::Io)
    }

    fn hole(&mut self, length: u64) -> Result<(), UnbundleError> {
        self.grow(length)?;
        self.sink.hole(length).map_err(UnbundleError::Io)
    }

    fn grow(&mut self, length: u64) -> Result<(), UnbundleError> {
        let size = self
            .size
            .checked_add(length)
            .filter(|size| *size <= self.size_max);
        self.size = size
            .ok_or_else(|| UnbundleError::refused("The image is larger than its manifest says"))?;
        Ok(())
    }
}
