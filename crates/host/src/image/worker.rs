//! The server's side of the image worker: starts it, feeds it, hears its result.
//!
//! The worker is this program again (`cumulet image-worker`) as a user that owns
//! nothing, with an empty environment, limits on CPU, memory and file size, and
//! only two descriptors: the input and an output file that was opened for it.
//! Nothing secret is in its arguments.  The server checks the SHA-1 of each part
//! while feeding and ends the worker at the first wrong one, so a result is only
//! ever returned when every digest of the manifest was right.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use aws_lc_rs::digest::{Context, SHA256};
use cumulet_bundle::unbundle::{PartError, PartSource, PartsReader};
use cumulet_domain::Digest;
use rustix::process::Signal;

use super::channel::{self, Done, Failed, Job, Report, Reports};
use super::format::ImageFacts;
use crate::api::{FileFormat, HostError, ImageKind, ImageSource, Progress, Result};

/// Longest text of a worker that is shown to a user.
const USER_TEXT_CHARS_MAX: usize = 300;
const DOING: &str = "could not read the image";

/// How a worker is started.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// Program that calls [`super::worker_main`] when started with `arguments`.
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    /// User and group of the worker; both are used when the server is root, else it stays itself.
    pub uid: u32,
    pub gid: u32,
}

impl WorkerProgram {
    /// This very program, as `uid` (for example 65534).
    pub fn own(uid: u32, gid: u32) -> Self {
        Self {
            path: "/proc/self/exe".into(),
            arguments: vec!["image-worker".into()],
            uid,
            gid,
        }
    }
}

/// One image to be turned into raw bytes.
pub struct WorkerJob {
    pub source: ImageSource,
    /// An empty file, open for reading and writing; the worker writes sparsely and sets its length.
    pub output: File,
    /// Largest image that is accepted.
    pub size_max_bytes: u64,
}

/// What a worker found; the output file holds exactly these bytes, not yet synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOutcome {
    /// SHA-256 of the image's raw bytes.
    pub sha256: Digest,
    /// Bytes of the raw image.
    pub size: u64,
    pub facts: ImageFacts,
}

impl WorkerOutcome {
    pub fn kind(&self) -> ImageKind {
        self.facts.kind()
    }
}

/// Runs one job in an unprivileged child and waits for it.  Blocking: call it off the async
/// threads.  After an error the output file holds nothing of use and is to be thrown away; after an
/// `Ok` syncing and renaming it is the caller's.
///
/// # Errors
/// `is_retryable == false` when the image is at fault: a wrong digest, a format that is refused, a
/// size over a limit; `user_reason` then says which.  Otherwise the host could not do it now.
pub fn run_worker(
    program: &WorkerProgram,
    job: WorkerJob,
    progress: &Progress,
) -> Result<WorkerOutcome> {
    let limit = job.size_max_bytes;
    let prepared = Prepared::new(job)?;
    let (ours, theirs) = UnixStream::pair().map_err(retryable)?;
    let mut child = Ended(spawn(program, theirs.into()).map_err(retryable)?);
    let descriptors = [prepared.input.as_fd(), prepared.output.as_fd()];
    let sent = channel::send_job(ours.as_fd(), &prepared.job, descriptors);
    // The worker must be the only reader of the pipe, or its death would not be noticed.
    drop(prepared.input);
    let feeder = prepared.feed.map(|feed| thread::spawn(move || feed.run()));
    let heard = sent.and_then(|()| hear(&ours, progress));
    // A worker that has spoken is done, and has read its input to the end if it was content.
    child.kill();
    let fed = feeder.map_or(Ok(Ok(())), thread::JoinHandle::join);
    let fed = fed.map_err(|_| retryable("the feeding thread panicked"))?;
    let status = child.wait().map_err(retryable)?;
    // What the server saw itself comes first: a wrong part makes the worker fail too.
    let is_fed = match fed {
        Ok(()) => true,
        Err(FeedError::WorkerGone) => false,
        Err(FeedError::Part(error)) => return Err(part_error(&error)),
        Err(FeedError::Io(error)) => return Err(retryable(error)),
    };
    let done = match heard.map_err(retryable)? {
        Some(Report::Done(done)) if is_fed => done,
        Some(Report::Done(_)) => return Err(retryable("the worker did not read all parts")),
        Some(Report::Failed(failed)) => return Err(failure(failed)),
        Some(Report::Progress(_)) | None => return Err(ended(status)),
    };
    check(&done, &prepared.output, limit)?;
    Ok(WorkerOutcome {
        sha256: done.sha256,
        size: done.size,
        facts: done.facts,
    })
}

/// A job with its input opened.
struct Prepared {
    job: Job,
    input: OwnedFd,
    output: File,
    feed: Option<Feed>,
}

impl Prepared {
    fn new(job: WorkerJob) -> Result<Self> {
        let size_max_bytes = job.size_max_bytes;
        let output = job.output;
        match job.source {
            ImageSource::Bundle {
                parts,
                key,
                iv,
                sha1,
                size_bytes,
            } => {
                if size_bytes > size_max_bytes {
                    let text = format!(
                        "The image has {size_bytes} bytes, more than the {size_max_bytes} allowed"
                    );
                    return Err(HostError::permanent(DOING, &text, &text));
                }
                let (input, pipe) = io::pipe().map_err(retryable)?;
                let parts = parts
                    .into_iter()
                    .map(|part| PartSource {
                        open: part.open,
                        sha1: part.sha1,
                    })
                    .collect();
                Ok(Self {
                    job: Job::Unbundle {
                        key,
                        iv,
                        sha1,
                        size_bytes,
                    },
                    input: input.into(),
                    output,
                    feed: Some(Feed { parts, pipe }),
                })
            }
            ImageSource::File { file, format } => Ok(Self {
                job: match format {
                    FileFormat::Raw => Job::ImportRaw { size_max_bytes },
                    FileFormat::Qcow2 => Job::ImportQcow2 { size_max_bytes },
                },
                input: file.into(),
                output,
                feed: None,
            }),
        }
    }
}

/// Copies the parts into the worker's pipe, on a thread of its own.
struct Feed {
    parts: Vec<PartSource>,
    pipe: PipeWriter,
}

enum FeedError {
    /// The worker closed the pipe; why, it says itself.
    WorkerGone,
    Part(PartError),
    Io(io::Error),
}

impl Feed {
    fn run(mut self) -> std::result::Result<(), FeedError> {
        let mut reader = PartsReader::new(self.parts);
        let Err(error) = io::copy(&mut reader, &mut self.pipe) else {
            return Ok(());
        };
        if error.kind() != io::ErrorKind::BrokenPipe {
            return Err(feed_error(error));
        }
        // The worker often stumbles over a damaged part before its end is reached; the user is to
        // hear which part it is.
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => Err(FeedError::WorkerGone),
            Err(error) => Err(feed_error(error)),
        }
    }
}

fn feed_error(error: io::Error) -> FeedError {
    PartError::from_io(error).map_or_else(FeedError::Io, FeedError::Part)
}

fn spawn(program: &WorkerProgram, socket: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        // The standard library drops the supplementary groups too when it changes the user.
        command.gid(program.gid).uid(program.uid);
    }
    command.spawn()
}

/// Reads until the worker says how it ended or closes the socket.
fn hear(socket: &UnixStream, progress: &Progress) -> io::Result<Option<Report>> {
    let mut reports = Reports::new(socket);
    let mut last = 0;
    while let Some(report) = reports.read()? {
        match report {
            Report::Progress(percent) if percent > last && percent <= 100 => {
                last = percent;
                progress(percent);
            }
            Report::Progress(_) => {}
            Report::Done(_) | Report::Failed(_) => return Ok(Some(report)),
        }
    }
    Ok(None)
}

/// The worker may have been taken over by the image: what can be checked is.
fn check(done: &Done, output: &File, size_max: u64) -> Result<()> {
    let length = output.metadata().map_err(retryable)?.len();
    if length != done.size || length > size_max {
        let text = format!("the worker reported {} bytes and wrote {length}", done.size);
        return Err(HostError::permanent(
            DOING,
            text,
            "The image could not be read",
        ));
    }
    // Images are shared by their digest: a wrong one would be another's image.
    let sha256 = digest_of(output, length).map_err(retryable)?;
    if sha256 != done.sha256 {
        return Err(HostError::permanent(
            DOING,
            format!("the worker reported {} and wrote {sha256}", done.sha256),
            "The image could not be read",
        ));
    }
    Ok(())
}

fn digest_of(file: &File, length: u64) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1024 * 1024];
    let mut position = 0;
    while position < length {
        let count = match file.read_at(&mut buffer, position) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..count).unwrap_or_default());
        position += count as u64;
    }
    let digest = context.finish();
    let bytes = digest.as_ref().try_into();
    bytes.map(Digest).map_err(io::Error::other)
}

fn retryable(cause: impl ToString) -> HostError {
    HostError::new(DOING, cause)
}

fn part_error(error: &PartError) -> HostError {
    let text = error.to_string();
    HostError::permanent(DOING, &text, &text)
}

fn failure(failed: Failed) -> HostError {
    if failed.is_retryable {
        return retryable(failed.text);
    }
    let is_plain = |character: &char| !character.is_control();
    let text: String = failed
        .text
        .chars()
        .filter(is_plain)
        .take(USER_TEXT_CHARS_MAX)
        .collect();
    HostError::permanent(DOING, &text, &text)
}

/// A worker that ended without a word: by a limit, or by something on the host.
fn ended(status: std::process::ExitStatus) -> HostError {
    let log = format!("the image worker ended: {status}");
    // Out of CPU time or file size; out of memory, or of stack.  The same image would do it again.
    let by_limit = [Signal::XCPU, Signal::XFSZ, Signal::ABORT, Signal::SEGV].map(Signal::as_raw);
    if status
        .signal()
        .is_some_and(|signal| by_limit.contains(&signal))
    {
        let text = "The image takes too much time or room to unpack";
        return HostError::permanent(DOING, log, text);
    }
    retryable(log)
}

/// A child that is killed and waited for whatever happens.
struct Ended(Child);

impl Ended {
    fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
    }

    fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}
