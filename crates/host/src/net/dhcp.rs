//! The DHCP server: one socket in the namespace, one thread.
//!
//! Which instance asks is told by the link that the packet came in on, never by
//! the packet.  What is answered is decided in [`super::lease`].
#![expect(unsafe_code, reason = "SO_NO_CHECK has no safe wrapper")]

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use rustix::event::{PollFd, PollFlags, poll};

use super::background::Background;
use super::lease::{self, Terms};
use crate::api::{HostError, Port, Result};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Longest packet that is read; a client that sends more is not one.
const PACKET_LEN_MAX: usize = 2_048;

/// Ports by the index of their link in the namespace.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<u32, Port>>);

impl Leases {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<u32, Port>> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; it ends when this is dropped, which closes one end of a pipe.
pub(super) type Server = Background<OwnedFd>;

/// Serves on a socket that [`bind`] made.
pub(super) fn start(socket: UdpSocket, terms: Terms, leases: Arc<Leases>) -> Result<Server> {
    let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| HostError::new("could not start the DHCP server", error))?;
    Background::start("dhcp", stop, move || {
        serve(&socket, &stopped, &terms, &leases);
    })
}

/// The server's socket, in the caller's namespace.
pub(super) fn bind() -> Result<UdpSocket> {
    let bound = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        send_no_checksums(&socket)?;
        Ok(socket)
    };
    bound().map_err(|error| HostError::new("could not open the DHCP server's socket", error))
}

/// Sends datagrams without a checksum, which UDP allows.  A checksum that is left to the "hardware"
/// is never filled in on its way through a tap, and clients that read raw packets, as the oldest
/// do, drop such packets.
fn send_no_checksums(socket: &UdpSocket) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    let len = u32::try_from(size_of_val(&on)).map_err(std::io::Error::other)?;
    // SAFETY: the option's value is a whole `c_int` of the length that is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            len,
        )
    };
    if done < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

fn serve(socket: &UdpSocket, stopped: &OwnedFd, terms: &Terms, leases: &Leases) {
    loop {
        let mut wait = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut wait, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%error, "the DHCP server cannot wait and ends");
                return;
            }
        }
        let [_, stop] = &wait;
        if !stop.revents().is_empty() {
            return;
        }
        match receive(socket) {
            Ok(Some((link, packet))) => {
                let port = leases.lock().get(&link).cloned();
                let Some(port) = port else {
                    tracing::debug!(link, "DHCP from a link without a port");
                    continue;
                };
                if let Some(reply) = lease::answer(&packet, &port, terms)
                    && let Err(error) = send(socket, link, terms.gateway, &reply)
                {
                    tracing::debug!(instance = %port.instance, %error, "a DHCP reply was not sent");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a DHCP request was not received"),
        }
    }
}

/// The next packet and the link it came in on.
fn receive(socket: &UdpSocket) -> nix::Result<Option<(u32, Vec<u8>)>> {
    let mut packet = vec![0; PACKET_LEN_MAX];
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let received = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    );
    let received = match received {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let link = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        _ => None,
    });
    let len = received.bytes;
    packet.truncate(len);
    Ok(link.map(|link| (link, packet)))
}

fn send(socket: &UdpSocket, link: u32, from: Ipv4Addr, reply: &lease::Reply) -> nix::Result<()> {
    let info = libc::in_pktinfo {
        ipi_ifindex: libc::c_int::try_from(link).map_err(|_| Errno::EINVAL)?,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from(from).to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&reply.bytes)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&SockaddrIn::from(SocketAddrV4::new(reply.to, CLIENT_PORT))),
    )
    .map(drop)
}
