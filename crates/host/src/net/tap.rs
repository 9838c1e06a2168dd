//! Taps: made persistent in the namespace, opened again for a VM.
//!
//! A tap carries virtio-net headers, since QEMU is given the descriptor ready
//! made.  It has no owner: only a descriptor that we opened reaches it.
#![expect(
    unsafe_code,
    reason = "TUNSETIFF and TUNSETPERSIST have no safe wrapper"
)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::net::if_::InterfaceFlags;
use rustix::fs::{Mode, OFlags};

use crate::api::{HostError, Result};

/// Whether a descriptor holds the tap of the caller's namespace: the kernel gives it a carrier then.
///
/// # Errors
/// When there is no such tap.
pub(super) fn is_held(name: &str) -> Result<bool> {
    let doing = || format!("could not look at the tap {name}");
    let links = nix::ifaddrs::getifaddrs().map_err(|error| HostError::new(doing(), error))?;
    let mut flags = links
        .filter(|link| link.interface_name == name)
        .map(|link| link.flags);
    let flags = flags.next();
    let flags = flags.ok_or_else(|| HostError::new(doing(), "there is no such link"))?;
    // A link that somebody took down shows no carrier either way.
    Ok(!flags.contains(InterfaceFlags::IFF_UP) || flags.contains(InterfaceFlags::IFF_LOWER_UP))
}

mod requests {
    use nix::libc::c_int;
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, std::mem::size_of::<c_int>()),
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        set_persist,
        nix::request_code_write!(b'T', 203, std::mem::size_of::<c_int>())
    );
}

/// Opens the tap of the caller's namespace, making it if it is missing.
///
/// # Errors
/// When another descriptor holds it, or tun devices are not to be had.
pub(super) fn open(name: &str) -> Result<OwnedFd> {
    let doing = || format!("could not open the tap {name}");
    let tap = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|error| HostError::new(doing(), format!("/dev/net/tun: {error}")))?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: `ifreq` is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(flags).map_err(|error| HostError::new(doing(), error))?;
    // The last byte stays zero, whatever the length.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).map_err(|error| HostError::new(doing(), error))?;
    }
    // SAFETY: the request is a whole `ifreq`, as TUNSETIFF wants, alive during the call.
    unsafe { requests::set_interface(tap.as_raw_fd(), &raw const request) }
        .map_err(|error| HostError::new(doing(), error))?;
    Ok(tap)
}

/// True afterwards: the tap exists in the caller's namespace and outlives its descriptors.
pub(super) fn ensure(name: &str) -> Result<()> {
    let tap = open(name)?;
    // SAFETY: TUNSETPERSIST takes a plain number and touches no memory of ours.
    unsafe { requests::set_persist(tap.as_raw_fd(), 1) }
        .map(drop)
        .map_err(|error| HostError::new(format!("could not keep the tap {name}"), error))
}
