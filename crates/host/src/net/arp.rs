//! Asks a guest, on its own tap, whether it is there: one ARP request and its
//! answer, which every guest with a network gives, whatever its own firewall.
#![expect(
    unsafe_code,
    reason = "the address of a packet socket has no safe type"
)]

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};

use crate::api::{HostError, Mac, Result};

/// An ARP packet in its Ethernet frame.
const FRAME_LEN: usize = 42;
/// How long an answer is awaited before the question is put again.
const REPEAT: Duration = Duration::from_millis(250);

/// The frame that asks who has `target`.
fn request(own: Mac, own_address: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&own.0);
    // EtherType ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&own.0);
    frame[28..32].copy_from_slice(&own_address.octets());
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

/// Whether `frame` says that `mac` has `address`.
fn is_answer(frame: &[u8], mac: Mac, address: Ipv4Addr) -> bool {
    frame.get(12..22) == Some(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2])
        && frame.get(22..28) == Some(&mac.0)
        && frame.get(28..32) == Some(&address.octets())
}

fn socket_on(link: u32) -> std::io::Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ARP)
        .map_err(std::io::Error::other)?
        .to_be();
    // Protocol 0: nothing is received before the socket is bound to its link.
    // SAFETY: no memory is passed; the result is checked before it is owned.
    let raw = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if raw < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call above just made this descriptor, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: `sockaddr_ll` is plain data for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(std::io::Error::other)?;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(link).map_err(std::io::Error::other)?;
    let len = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(std::io::Error::other)?;
    // SAFETY: the address is a whole `sockaddr_ll` of the length that is given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(socket)
}

/// Who is asked, and as whom.
pub(super) struct Question {
    pub(super) link: u32,
    pub(super) own: Mac,
    pub(super) own_address: Ipv4Addr,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
}

/// Whether an answer came within `patience`; in the caller's namespace.  Blocking.
///
/// # Errors
/// When the question could not be put.  A link without a VM behind it is no error: nobody answers.
pub(super) fn answers(question: &Question, patience: Duration) -> Result<bool> {
    let failed = |error: std::io::Error| {
        HostError::new(format!("could not ask {} by ARP", question.address), error)
    };
    let socket = socket_on(question.link).map_err(failed)?;
    let frame = request(question.own, question.own_address, question.address);
    let end = Instant::now() + patience;
    loop {
        match rustix::net::send(&socket, &frame, SendFlags::empty()) {
            // Down: there is no VM to carry it.
            Err(rustix::io::Errno::NETDOWN | rustix::io::Errno::IO) => return Ok(false),
            // A full queue, as of a guest that does not read: the next round tells.
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let round_end = end.min(Instant::now() + REPEAT);
        if heard_before(&socket, question, round_end).map_err(failed)? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}

fn heard_before(socket: &OwnedFd, question: &Question, end: Instant) -> std::io::Result<bool> {
    let mut buffer = [0; 64];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut wait = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut wait, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((count, _)) => {
                let frame = buffer.get(..count).unwrap_or_default();
                if is_answer(frame, question.mac, question.address) {
                    return Ok(true);
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NETDOWN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_answer_counts() {
        let (mac, address) = (Mac([2, 0, 0, 0, 0, 7]), Ipv4Addr::new(10, 1, 0, 7));
        let mut frame = request(mac, address, Ipv4Addr::new(10, 1, 0, 1));
        assert!(!is_answer(&frame, mac, address), "a request is no answer");
        frame[21] = 2;
        assert!(is_answer(&frame, mac, address));
        assert!(!is_answer(&frame, Mac([2, 0, 0, 0, 0, 8]), address));
        assert!(!is_answer(&frame[..30], mac, address));
    }
}
