//! What the server and its image worker say to each other.
//!
//! One Unix socket: the server sends one message, the job as JSON with the
//! descriptors of input and output beside it; the worker answers with lines of
//! JSON.  The server believes nothing of an answer but its shape, since the
//! worker reads hostile bytes.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cumulet_domain::Digest;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::format::ImageFacts;

/// Largest job in bytes of JSON.
const JOB_BYTES_MAX: usize = 4096;
/// Longest line that the server reads from a worker.
const LINE_BYTES_MAX: usize = 4096;
/// Input and output.
const DESCRIPTORS: usize = 2;

/// What the worker is to do.  The input comes as the first descriptor, the output as the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// The input is a pipe with the encrypted parts one after the other.
    Unbundle {
        key: [u8; 16],
        iv: [u8; 16],
        sha1: [u8; 20],
        size_bytes: u64,
    },
    /// The input is a file with the image's bytes.
    ImportRaw { size_max_bytes: u64 },
    /// The input is a qcow2 file.
    ImportQcow2 { size_max_bytes: u64 },
}

/// One line of the worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Progress(u8),
    Done(Done),
    Failed(Failed),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub sha256: Digest,
    pub size: u64,
    pub facts: ImageFacts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// For the user when `is_retryable` is false, else for the log.
    pub text: String,
    /// The host's trouble (disk full) and not the image's fault.
    pub is_retryable: bool,
}

/// Sends the job and its descriptors as one message.
///
/// # Errors
/// When the socket fails.
pub fn send_job(
    socket: BorrowedFd<'_>,
    job: &Job,
    descriptors: [BorrowedFd<'_>; DESCRIPTORS],
) -> io::Result<()> {
    let text = serde_json::to_vec(job)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes()[..], &text].concat();
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent != message.len() {
        return Err(io::Error::other("the job was sent in part"));
    }
    Ok(())
}

/// Receives what [`send_job`] sent.
///
/// # Errors
/// When the socket fails or carries something else.
pub fn receive_job(socket: BorrowedFd<'_>) -> io::Result<(Job, [OwnedFd; DESCRIPTORS])> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0; JOB_BYTES_MAX];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut buffer)],
        &mut control,
        flags,
    )?
    .bytes;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no job for an image worker",
        )
    };
    let (length, text) = buffer
        .get(..received)
        .and_then(|it| it.split_at_checked(4))
        .ok_or_else(wrong)?;
    let length = u32::from_be_bytes(length.try_into().map_err(|_| wrong())?);
    if usize::try_from(length) != Ok(text.len()) {
        return Err(wrong());
    }
    let job = serde_json::from_slice(text)?;
    let descriptors = descriptors.try_into().map_err(|_| wrong())?;
    Ok((job, descriptors))
}

/// Reads lines of a bounded length, each a [`Report`].
pub struct Reports<R> {
    input: R,
    pending: Vec<u8>,
}

impl<R: Read> Reports<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            pending: vec![],
        }
    }

    /// The next report; `None` at the end.
    ///
    /// # Errors
    /// When a line is too long or no report.
    pub fn read(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.pending.len() > LINE_BYTES_MAX {
                let text = "a line of the worker's answer is too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let mut buffer = [0; 1024];
            match self.input.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}
