//! From an image to encrypted parts, in constant memory and on all cores.
//!
//! One thread reads the image (holes are not read) and digests the stream,
//! several compress members of 1 MiB (gzip files one after the other are a gzip
//! file), and the caller's thread encrypts them in order and cuts parts.
//! Members that are all zeros are compressed once.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use aws_lc_rs::cipher::{AES_128, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use aws_lc_rs::iv::FixedLength;
use flate2::Compression;
use flate2::write::GzEncoder;
use thiserror::Error;

use crate::manifest::{FILENAME_BYTES_MAX, PARTS_MAX, Part};

/// Size of every part but the last.
pub const PART_BYTES: usize = 10 * 1024 * 1024;
const MEMBER_BYTES: usize = 1024 * 1024;
const TAR_BLOCK: u64 = 512;
/// GNU tar writes records of 20 blocks.
const TAR_RECORD: u64 = 20 * TAR_BLOCK;
const BLOCK_BYTES: usize = 16;

/// What is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A tar archive with the image as its only member; what every tool reads.
    Tar,
    /// The image itself, as the first tools did.
    Raw,
}

pub struct Options<'a> {
    /// Begins the names of the parts, and names the image in the archive.
    pub prefix: &'a str,
    pub form: Form,
    pub key: &'a [u8; 16],
    pub iv: &'a [u8; 16],
    /// Compressing threads; at least one is used.
    pub threads: usize,
    /// Of gzip, 1 to 9.
    pub level: u32,
}

/// What the manifest has to say of the parts that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundled {
    pub parts: Vec<Part>,
    /// SHA-1 of the stream before compression.
    pub digest: [u8; 20],
    /// Bytes of the image.
    pub size: u64,
    pub bundled_size: u64,
}

#[derive(Debug, Error)]
pub enum BundleError {
    #[error("the prefix {0:?} cannot be a file name")]
    Prefix(String),
    #[error("the image must be an ordinary file and not empty")]
    NoImage,
    #[error("the image became shorter while it was read")]
    Shorter,
    #[error("the bundle would have more than {PARTS_MAX} parts")]
    TooManyParts,
    #[error("encryption failed")]
    Encryption,
    #[error("could not read the image")]
    Read(#[source] io::Error),
    #[error("could not write a part")]
    Write(#[source] io::Error),
}

/// Where parts are put.
pub trait PartSink {
    /// Begins the part with this name; the one before is complete.
    ///
    /// # Errors
    /// When it cannot be made.
    fn begin(&mut self, filename: &str) -> io::Result<()>;

    /// More bytes of the part.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Parts as files of a directory.
pub struct Directory {
    path: PathBuf,
    file: Option<File>,
}

impl Directory {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
        }
    }
}

impl PartSink for Directory {
    fn begin(&mut self, filename: &str) -> io::Result<()> {
        self.file = Some(File::create(self.path.join(filename))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("no part was begun"))?
            .write_all(bytes)
    }
}

/// Bundles `image`.  Blocking, and busy on `threads` cores.
///
/// # Errors
/// Parts that were begun stay where they are.
pub fn bundle(
    image: &File,
    options: &Options<'_>,
    sink: &mut dyn PartSink,
) -> Result<Bundled, BundleError> {
    let prefix = options.prefix;
    let is_name = !prefix.is_empty() && prefix != "." && prefix != "..";
    let is_plain = !prefix.contains(|it: char| it == '/' || it == '\\' || it.is_control());
    // Names in a tar header have at most 100 bytes; ".part.NNNN" follows.
    if !is_name || !is_plain || prefix.len() > 100.min(FILENAME_BYTES_MAX - 16) {
        return Err(BundleError::Prefix(prefix.to_owned()));
    }
    let metadata = image.metadata().map_err(BundleError::Read)?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(BundleError::NoImage);
    }
    let source = Source::new(image, metadata.len(), options);
    let mut encrypting = Encrypting::new(options, sink)?;
    let threads = options.threads.max(1);
    let (jobs, work) = sync_channel::<Job>(threads);
    let work = Mutex::new(work);
    let zeros = OnceLock::new();
    let (order, results) = sync_channel::<Receiver<io::Result<Vec<u8>>>>(2 * threads);
    let digest = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| compress_all(&work, options.level, &zeros));
        }
        let reader = scope.spawn(move || source.read_all(&jobs, &order));
        let mut failure = None;
        for result in results {
            // A compressing thread that is gone has panicked, which the scope passes on.
            let Ok(member) = result.recv() else { break };
            if let Err(error) = member
                .map_err(BundleError::Read)
                .and_then(|it| encrypting.push(&it))
            {
                failure = Some(error);
                break;
            }
        }
        // The end of `results` is what makes the reader stop after a failure.
        let digest = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        failure.map_or(digest, Err)
    })?;
    let (parts, bundled_size) = encrypting.finish()?;
    Ok(Bundled {
        parts,
        digest,
        size: metadata.len(),
        bundled_size,
    })
}

/// One member to be compressed, and where the result goes.
struct Job {
    stream: Vec<u8>,
    result: SyncSender<io::Result<Vec<u8>>>,
}

fn compress_all(work: &Mutex<Receiver<Job>>, level: u32, zeros: &OnceLock<Vec<u8>>) {
    loop {
        // Only `recv` happens under the lock; it does not panic.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let is_zero = job.stream.len() == MEMBER_BYTES && is_zero(&job.stream);
        let member = match zeros.get().filter(|_| is_zero) {
            Some(member) => Ok(member.clone()),
            None => compress(&job.stream, level),
        };
        if let (true, Ok(member)) = (is_zero, &member) {
            let _ = zeros.set(member.clone());
        }
        // Nobody waits after a failure elsewhere.
        let _ = job.result.send(member);
    }
}

fn compress(stream: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(stream.len() / 2);
    let mut encoder = GzEncoder::new(room, Compression::new(level.clamp(1, 9)));
    encoder.write_all(stream)?;
    encoder.finish()
}

/// Whether all bytes are zero; quick on long slices.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// The stream before compression.
struct Source<'a> {
    image: &'a File,
    size: u64,
    before: Vec<u8>,
    after: u64,
}

impl<'a> Source<'a> {
    fn new(image: &'a File, size: u64, options: &Options<'_>) -> Self {
        match options.form {
            Form::Raw => Self {
                image,
                size,
                before: vec![],
                after: 0,
            },
            Form::Tar => {
                let used = TAR_BLOCK + size.next_multiple_of(TAR_BLOCK) + 2 * TAR_BLOCK;
                let total = used.next_multiple_of(TAR_RECORD);
                let before = tar_header(options.prefix, size);
                Self {
                    image,
                    size,
                    before,
                    after: total - TAR_BLOCK - size,
                }
            }
        }
    }

    /// Reads and hands out everything; returns the stream's SHA-1.
    fn read_all(
        self,
        jobs: &SyncSender<Job>,
        order: &SyncSender<Receiver<io::Result<Vec<u8>>>>,
    ) -> Result<[u8; 20], BundleError> {
        let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        let total = self.before.len() as u64 + self.size + self.after;
        let mut data = Data::default();
        let mut position = 0;
        while position < total {
            let length = (total - position).min(MEMBER_BYTES as u64);
            let mut stream = vec![0; usize::try_from(length).unwrap_or(MEMBER_BYTES)];
            self.fill(position, &mut stream, &mut data)?;
            digest.update(&stream);
            position += length;
            let (result, receiver) = sync_channel(1);
            // The other ends are gone only after a failure that is reported there.
            if order.send(receiver).is_err() || jobs.send(Job { stream, result }).is_err() {
                break;
            }
        }
        Ok(digest
            .finish()
            .as_ref()
            .try_into()
            .expect("a SHA-1 digest has 20 bytes"))
    }

    /// Fills a zeroed buffer with the stream from `position` on.
    fn fill(&self, position: u64, buffer: &mut [u8], data: &mut Data) -> Result<(), BundleError> {
        let before = self.before.len() as u64;
        let mut start = 0;
        if position < before {
            // The header is shorter than a member, so that it is all in the first one.
            start = self.before.len();
            buffer[..start].copy_from_slice(&self.before);
        }
        let mut offset = position.max(before) - before;
        let end = (position + buffer.len() as u64)
            .min(before + self.size)
            .saturating_sub(before);
        while offset < end {
            data.seek(self.image, offset, self.size)
                .map_err(BundleError::Read)?;
            if offset < data.start {
                let hole = data.start.min(end) - offset;
                start += usize::try_from(hole).unwrap_or_default();
                offset += hole;
                continue;
            }
            let length = usize::try_from(data.end.min(end) - offset).unwrap_or_default();
            let wanted = &mut buffer[start..start + length];
            match self.image.read_at(wanted, offset) {
                Ok(0) => return Err(BundleError::Shorter),
                Ok(length) => {
                    start += length;
                    offset += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BundleError::Read(error)),
            }
        }
        Ok(())
    }
}

/// The run of data at or after the place where the image is being read.
#[derive(Default)]
struct Data {
    start: u64,
    end: u64,
}

impl Data {
    fn seek(&mut self, image: &File, offset: u64, size: u64) -> io::Result<()> {
        use rustix::fs::{SeekFrom, seek};
        if offset < self.end {
            return Ok(());
        }
        *self = match seek(image, SeekFrom::Data(offset)) {
            Ok(start) => Self {
                start,
                end: seek(image, SeekFrom::Hole(start))?,
            },
            // Nothing but a hole follows.
            Err(rustix::io::Errno::NXIO) => Self {
                start: size,
                end: size,
            },
            // A file system without holes.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Self {
                start: offset,
                end: size,
            },
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

/// A header in GNU's form: owner and group 0, mode 0600, made at the epoch.
fn tar_header(name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (place, text) in [
        (100, &b"0000600\0"[..]),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (136, b"00000000000\0"),
        (148, b"        "),
        (156, b"0"),
        (257, b"ustar  \0"),
        (265, b"root"),
        (297, b"root"),
    ] {
        block[place..place + text.len()].copy_from_slice(text);
    }
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Encrypts members in order.
struct Encrypting<'a> {
    key: StreamingEncryptingKey,
    buffer: Vec<u8>,
    cutter: Cutter<'a>,
}

impl<'a> Encrypting<'a> {
    fn new(options: &Options<'a>, sink: &'a mut dyn PartSink) -> Result<Self, BundleError> {
        let failed = |_| BundleError::Encryption;
        let unbound = UnboundCipherKey::new(&AES_128, options.key).map_err(failed)?;
        let context = EncryptionContext::Iv128(FixedLength::from(options.iv));
        Ok(Self {
            key: StreamingEncryptingKey::less_safe_cbc_pkcs7(unbound, context).map_err(failed)?,
            buffer: vec![],
            cutter: Cutter {
                prefix: options.prefix,
                sink,
                parts: vec![],
                length: PART_BYTES,
                digest: Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
                total: 0,
            },
        })
    }

    fn push(&mut self, plain: &[u8]) -> Result<(), BundleError> {
        self.buffer.resize(plain.len() + BLOCK_BYTES, 0);
        let update = self.key.update(plain, &mut self.buffer);
        let update = update.map_err(|_| BundleError::Encryption)?;
        self.cutter.put(update.written())
    }

    /// The parts and the sum of their sizes.
    fn finish(self) -> Result<(Vec<Part>, u64), BundleError> {
        let (key, mut cutter) = (self.key, self.cutter);
        let mut last = [0; BLOCK_BYTES];
        let (_, update) = key.finish(&mut last).map_err(|_| BundleError::Encryption)?;
        cutter.put(update.written())?;
        cutter.end_part();
        Ok((cutter.parts, cutter.total))
    }
}

/// Cuts the encrypted stream into parts.
struct Cutter<'a> {
    prefix: &'a str,
    sink: &'a mut dyn PartSink,
    parts: Vec<Part>,
    /// Bytes in the last part and their digest.
    length: usize,
    digest: Context,
    total: u64,
}

impl Cutter<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BundleError> {
        while !bytes.is_empty() {
            if self.length == PART_BYTES {
                self.next_part()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.length));
            self.sink.write(now).map_err(BundleError::Write)?;
            self.digest.update(now);
            self.length += now.len();
            self.total += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn next_part(&mut self) -> Result<(), BundleError> {
        self.end_part();
        if self.parts.len() == PARTS_MAX {
            return Err(BundleError::TooManyParts);
        }
        let filename = format!("{}.part.{:02}", self.prefix, self.parts.len());
        self.sink.begin(&filename).map_err(BundleError::Write)?;
        self.parts.push(Part {
            filename,
            sha1: [0; 20],
        });
        self.length = 0;
        Ok(())
    }

    fn end_part(&mut self) {
        let digest = std::mem::replace(&mut self.digest, Context::new(&SHA1_FOR_LEGACY_USE_ONLY));
        if let Some(part) = self.parts.last_mut() {
            part.sha1.copy_from_slice(digest.finish().as_ref());
        }
    }
}
