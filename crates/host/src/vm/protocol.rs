//! What the server and a keeper say to each other, and what a keeper leaves behind.
//!
//! Old keepers meet new servers: a keeper lives as long as its guest, while the
//! server is upgraded.  Fields are therefore only added, and [`VERSION`] rises
//! when a keeper can do something new.  The keeper knows no instance types,
//! layouts or networks: it gets a finished command line in which the numbers of
//! its descriptors are still open.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cumulet_domain::Timestamp;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::api::Exit;

pub(crate) const VERSION: u32 = 1;

/// Names in the keeper's directory.
pub(crate) const KEEPER_FILE: &str = "keeper.json";
pub(crate) const EXIT_FILE: &str = "exit.json";
/// Empty, so that making it takes no room; there while the guest waits for some.
pub(crate) const OUT_OF_ROOM_FILE: &str = "out-of-room";
pub(crate) const CONTROL_SOCKET: &str = "keeper.sock";
pub(crate) const QMP_SOCKET: &str = "qmp.sock";

/// Largest message in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// More descriptors than any VM needs.
const DESCRIPTORS_MAX: usize = 16;

/// What a keeper is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) version: u32,
    pub(crate) qemu: String,
    /// `%name%` stands for the number of the descriptor of that name.
    pub(crate) arguments: Vec<String>,
    /// Names of the descriptors that come beside this message, in order.
    pub(crate) descriptors: Vec<String>,
}

/// The keeper's directory, its working directory from then on; not passed on.
pub(crate) const RUN_DESCRIPTOR: &str = "run";
/// Held by keeper and QEMU; never read or written.
pub(crate) const LOCK_DESCRIPTOR: &str = "lock";
/// The console's ring file; not passed on.
pub(crate) const CONSOLE_DESCRIPTOR: &str = "console";
/// The keeper's own end of QMP, which it makes itself.
pub(crate) const QMP_DESCRIPTOR: &str = "qmp";

/// The keeper's only answer to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Started,
    Failed { detail: String },
}

/// What the server asks of a living keeper, one line of JSON per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Power button; a reset when the guest has not gone down in time.
    Reboot { patience_ms: u64 },
    /// Power button; the plug when the guest has not gone down in time.
    Stop { patience_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Refused { detail: String },
}

/// `keeper.json`: there once the guest's CPUs have started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeeperRecord {
    pub(crate) version: u32,
    pub(crate) pid: u32,
    pub(crate) qemu_pid: u32,
    pub(crate) since: Timestamp,
}

/// `exit.json`: there before QEMU is let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) exit: Exit,
}

/// Sends one message with descriptors over a socket that keeps messages apart.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::other("the message is too large"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent == text.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

/// Receives one message; an end of the other side is `UnexpectedEof`.  The descriptors are
/// inheritable, since most of them are for QEMU.
pub(crate) fn receive<T: serde::de::DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::empty(),
        )
    })?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let text = text.get(..received.bytes).unwrap_or_default();
    Ok((serde_json::from_slice(text)?, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ExitCause;

    #[test]
    fn records_of_the_first_version_stay_readable() {
        let exit: ExitRecord =
            serde_json::from_str(r#"{"version":1,"at":7,"cause":{"crashed":{"detail":"x"}}}"#)
                .unwrap();
        assert_eq!(exit.exit.cause, ExitCause::Crashed { detail: "x".into() });
        let request: Request = serde_json::from_str(r#"{"reboot":{"patience_ms":5}}"#).unwrap();
        assert_eq!(request, Request::Reboot { patience_ms: 5 });
        let keeper: KeeperRecord =
            serde_json::from_str(r#"{"version":1,"pid":2,"qemu_pid":3,"since":4,"new":5}"#)
                .unwrap();
        assert_eq!(keeper.since, Timestamp(4));
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (one, two) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&one, &Reply::Started, &[file.as_fd(), one.as_fd()]).unwrap();
        let (reply, descriptors) = receive::<Reply>(&two).unwrap();
        assert_eq!((reply, descriptors.len()), (Reply::Started, 2));
        drop((one, descriptors));
        assert!(receive::<Reply>(&two).is_err());
    }
}
