//! The worker's side: a process that may do nothing but read, compute and write one file.
//!
//! It begins by giving up what it still could do, receives its job, does it and
//! says how it ended.  A panic is an answer too.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use cumulet_bundle::unbundle::{Expected, ImageSink, UnbundleError, unbundle};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::channel::{self, Done, Failed, Job, Report};
use super::format::{FormatError, ImageFacts, classify};
use super::qcow2::{Qcow2, Qcow2Error};
use super::sink::FileSink;
use crate::api::FileFormat;

/// Memory that a worker may take beside what it begins with.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
const DESCRIPTORS_MAX: u64 = 16;
/// A worker has this much CPU time, and more for a larger image.
const CPU_SECONDS: u64 = 120;
/// The slowest machine that is thought of digests and writes so many bytes in a second.
const BYTES_PER_SECOND_MIN: u64 = 8 * 1024 * 1024;

/// The whole of `cumulet image-worker`; its standard input is the socket to the server.
pub fn worker_main() -> ExitCode {
    if close_inherited().is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let socket = UnixStream::from(socket);
    let answer = std::panic::catch_unwind(|| work(&socket));
    let report = match answer {
        Ok(Ok(done)) => Report::Done(done),
        Ok(Err(failure)) => Report::Failed(failure.into()),
        Err(_) => Report::Failed(Failure::Refused("The image could not be read".into()).into()),
    };
    match say(&socket, &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Why a job was not done.
enum Failure {
    /// The image is at fault; for the user.
    Refused(String),
    /// The host is; for the log.
    Host(String),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(text) => Self {
                text,
                is_retryable: false,
            },
            Failure::Host(text) => Self {
                text,
                is_retryable: true,
            },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Host(error.to_string())
    }
}

impl From<UnbundleError> for Failure {
    fn from(error: UnbundleError) -> Self {
        match error {
            UnbundleError::Refused(text) => Self::Refused(text),
            UnbundleError::Io(error) => error.into(),
        }
    }
}

impl From<Qcow2Error> for Failure {
    fn from(error: Qcow2Error) -> Self {
        match error {
            Qcow2Error::Refused(text) => Self::Refused(text),
            Qcow2Error::Io(error) => error.into(),
        }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Refused(text) => Self::Refused(text),
            FormatError::Io(error) => error.into(),
        }
    }
}

fn work(socket: &UnixStream) -> Result<Done, Failure> {
    confine()?;
    let (job, [input, output]) = channel::receive_job(socket.as_fd())?;
    let (input, output) = (File::from(input), File::from(output));
    let size_max = match &job {
        Job::Unbundle { size_bytes, .. } => *size_bytes,
        Job::ImportRaw { size_max_bytes } | Job::ImportQcow2 { size_max_bytes } => *size_max_bytes,
    };
    limit(Resource::Fsize, size_max)?;
    // At the softer limit there is a signal that tells what happened; at the harder one there is
    // only death.
    let seconds = CPU_SECONDS + size_max / BYTES_PER_SECOND_MIN;
    limits(Resource::Cpu, seconds, seconds + 10)?;
    let mut percent = 0;
    let total = match &job {
        Job::Unbundle { size_bytes, .. } => *size_bytes,
        Job::ImportRaw { .. } => input.metadata()?.len(),
        Job::ImportQcow2 { size_max_bytes } => Qcow2::open(&input, *size_max_bytes)?.size(),
    };
    let mut progress = |done: u64| {
        let now = u8::try_from(done.saturating_mul(99) / total.max(1))
            .unwrap_or(99)
            .min(99);
        if now > percent {
            percent = now;
            // When nobody listens any more, the end of the job will show it.
            let _ = say(socket, &Report::Progress(now));
        }
    };
    let mut sink = FileSink::new(&output, &mut progress);
    let format = match &job {
        Job::Unbundle {
            key,
            iv,
            sha1,
            size_bytes,
        } => {
            let expected = Expected {
                key: *key,
                iv: *iv,
                sha1: *sha1,
                size: *size_bytes,
            };
            unbundle(input, &expected, &mut sink)?;
            FileFormat::Raw
        }
        Job::ImportRaw { size_max_bytes } => {
            copy_raw(&input, *size_max_bytes, &mut sink)?;
            FileFormat::Raw
        }
        Job::ImportQcow2 { size_max_bytes } => {
            Qcow2::open(&input, *size_max_bytes)?.read(&mut sink)?;
            FileFormat::Qcow2
        }
    };
    let (sha256, size) = sink.finish()?;
    let contents = classify(&output, size)?;
    Ok(Done {
        sha256,
        size,
        facts: ImageFacts {
            contents,
            format,
            virtual_size: size,
        },
    })
}

fn copy_raw(input: &File, size_max: u64, sink: &mut dyn ImageSink) -> Result<(), Failure> {
    let metadata = input.metadata()?;
    let size = metadata.len();
    if !metadata.is_file() {
        return Err(Failure::Refused(
            "The image must be an ordinary file".into(),
        ));
    }
    if size > size_max {
        let text = format!("The image has {size} bytes, more than the {size_max} allowed");
        return Err(Failure::Refused(text));
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut position = 0;
    while position < size {
        let (start, end) = data_run(input, position, size)?;
        sink.hole(start - position)?;
        position = start;
        while position < end {
            let wanted = usize::try_from(end - position)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let length = match input.read_at(&mut buffer[..wanted], position) {
                Ok(0) => return Err(Failure::Host("the image became shorter".into())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            sink.data(&buffer[..length])?;
            position += length as u64;
        }
    }
    Ok(())
}

/// The next run of data at or after `position`, within `size`.
fn data_run(file: &File, position: u64, size: u64) -> io::Result<(u64, u64)> {
    match seek(file, SeekFrom::Data(position)) {
        Ok(start) => Ok((
            start.min(size),
            seek(file, SeekFrom::Hole(start))?.min(size),
        )),
        // Nothing but a hole follows.
        Err(Errno::NXIO) => Ok((size, size)),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((position, size)),
        Err(error) => Err(error.into()),
    }
}

/// Gives up everything that is not needed: nothing can be started, looked into or left behind.
fn confine() -> io::Result<()> {
    // Read before the process's own files are closed to it.
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    limit(Resource::As, pages * 4096 + MEMORY_BYTES_MAX)?;
    limit(Resource::Nofile, DESCRIPTORS_MAX)?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::Core, 0)?;
    rustix::thread::set_no_new_privs(true)?;
    // Other processes of the same user cannot look into this one.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal)?;
    Ok(())
}

/// Closes what a careless parent of the server left open for all its descendants.
#[expect(unsafe_code, reason = "descriptors of unknown owners are closed")]
fn close_inherited() -> io::Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let descriptors: Vec<i32> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in descriptors {
        // The listing's own descriptor is closed already.
        let is_open = std::fs::symlink_metadata(format!("/proc/self/fd/{descriptor}")).is_ok();
        if descriptor > 2 && is_open {
            // SAFETY: this is the first thing that the process does, so that nothing in it owns a
            // descriptor above the standard three.
            unsafe { rustix::io::close(descriptor) };
        }
    }
    Ok(())
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    limits(resource, most, most)
}

fn limits(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let limits = Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    Ok(setrlimit(resource, limits)?)
}

fn say(mut socket: &UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    socket.write_all(&line)
}
