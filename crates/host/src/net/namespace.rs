//! The cloud's network namespace, and how to act inside it.
//!
//! `setns` changes one thread only, and an async worker must never be that
//! thread: every act runs on a thread of its own, which ends with it.  Sockets
//! and descriptors that are opened there stay there; so do child processes.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use super::command::run;
use super::names::CloudId;
use crate::api::{HostError, Result};

/// Where `ip netns` keeps its names.
pub(super) const NAMES_DIR: &str = "/run/netns";
/// What a file system of namespaces calls itself.
const NSFS_MAGIC: i64 = 0x6e73_6673;

pub(super) fn path(cloud: &CloudId) -> PathBuf {
    PathBuf::from(NAMES_DIR).join(cloud.namespace())
}

/// Whether the namespace is there.  A name that stands for no namespace (a crash while it was
/// made, or a restart with a kept `/run`) counts as absent.
pub(super) fn exists(cloud: &CloudId) -> Result<bool> {
    let path = path(cloud);
    match rustix::fs::statfs(&path) {
        Ok(found) => Ok(found.f_type == NSFS_MAGIC),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(HostError::new(
            format!("could not look at {}", path.display()),
            error,
        )),
    }
}

/// True afterwards: the namespace exists.
pub(super) fn ensure(cloud: &CloudId) -> Result<()> {
    if exists(cloud)? {
        return Ok(());
    }
    let doing = format!("could not make the namespace {}", cloud.namespace());
    remove_name(cloud)?;
    run(&doing, "ip", &["netns", "add", &cloud.namespace()], "").map(drop)
}

/// True afterwards: the name is gone, and the namespace with it once no process and no socket is
/// in it.
pub(super) fn ensure_absent(cloud: &CloudId) -> Result<()> {
    if exists(cloud)? {
        let doing = format!("could not remove the namespace {}", cloud.namespace());
        run(&doing, "ip", &["netns", "del", &cloud.namespace()], "")?;
    }
    remove_name(cloud)
}

/// Removes a name that stands for nothing.
fn remove_name(cloud: &CloudId) -> Result<()> {
    let path = path(cloud);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(HostError::new(
            format!("could not remove {}", path.display()),
            error,
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Clouds that have a namespace on this host.
pub(super) fn clouds() -> Result<Vec<CloudId>> {
    let entries = match std::fs::read_dir(NAMES_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(HostError::new("could not list the namespaces", error)),
    };
    let mut clouds = vec![];
    for entry in entries {
        let entry =
            entry.map_err(|error| HostError::new("could not list the namespaces", error))?;
        let name = entry.file_name();
        if let Some(cloud) = name.to_str().and_then(CloudId::of_namespace)
            && exists(&cloud)?
        {
            clouds.push(cloud);
        }
    }
    Ok(clouds)
}

/// Does `act` inside the namespace.  Blocking.
///
/// # Errors
/// What `act` says, or that the namespace could not be entered.
pub(super) fn inside<T: Send>(
    cloud: &CloudId,
    act: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = path(cloud);
    let entering = || format!("could not enter the namespace {}", path.display());
    let namespace = File::open(&path).map_err(|error| HostError::new(entering(), error))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("inside".into())
            .spawn_scoped(scope, || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| HostError::new(entering(), error))?;
                act()
            })
            .map_err(|error| HostError::new(entering(), error))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Writes a setting below `/proc/sys/net`, of the caller's namespace.
pub(super) fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value)
        .map_err(|error| HostError::new(format!("could not write {value} to {path}"), error))
}

/// Reads a setting below `/proc/sys/net`, of the caller's namespace.
pub(super) fn sysctl(name: &str) -> Result<String> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::read_to_string(&path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| HostError::new(format!("could not read {path}"), error))
}

/// Turns IPv6 off where the kernel has it.  `scope` is a link, `all` or `default`.
pub(super) fn disable_ipv6(scope: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(HostError::new(
            format!("could not turn IPv6 off through {path}"),
            error,
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the link exists in the caller's namespace, by its index.
pub(super) fn link_index(name: &str) -> Result<Option<u32>> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(nix::errno::Errno::ENODEV | nix::errno::Errno::ENXIO) => Ok(None),
        Err(error) => Err(HostError::new(
            format!("could not look for the link {name}"),
            error,
        )),
    }
}

/// Names of the links in the caller's namespace.
pub(super) fn links() -> Result<Vec<String>> {
    let found = nix::net::if_::if_nameindex()
        .map_err(|error| HostError::new("could not list the links", error))?;
    Ok(found
        .iter()
        .filter_map(|link| link.name().to_str().ok().map(str::to_owned))
        .collect())
}
