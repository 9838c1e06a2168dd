//! The host's forwarding switch: the only setting of the host that we change.
//!
//! It is shared by all clouds of a host, so what it was is remembered once, by
//! whoever comes first, in `/run` (which lives as long as the setting does),
//! and put back by whoever goes last.  A lock keeps two clouds from doing both
//! at once.
//!
//! Turning it on also changes, in the kernel, `accept_redirects` of all links
//! and the switch of every single link; these are remembered and put back too.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::host_lock::{self, RUN_DIR};
use super::names::CloudId;
use super::namespace;
use crate::api::{HostError, Result};

const SWITCH: &str = "ipv4/ip_forward";

type Settings = BTreeMap<String, String>;

fn saved_path() -> PathBuf {
    Path::new(RUN_DIR).join("forwarding.json")
}

fn failed(error: impl ToString) -> HostError {
    HostError::new("could not remember the host's forwarding", error)
}

/// What was remembered, or `None` when nobody changed anything.
pub(super) fn saved() -> Result<Option<Settings>> {
    match std::fs::read(saved_path()) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// True afterwards: the host forwards, and what it did before is remembered.
pub(super) fn ensure_on() -> Result<()> {
    let _lock = host_lock::take(host_lock::FORWARDING)?;
    if saved()?.is_none() {
        let bytes = serde_json::to_vec(&current()?).map_err(failed)?;
        let path = saved_path();
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
    }
    if namespace::sysctl(SWITCH)? != "1" {
        namespace::set_sysctl(SWITCH, "1")?;
    }
    Ok(())
}

/// True afterwards: unless another cloud is on this host, the settings are as they were found.
pub(super) fn restore(leaving: &CloudId) -> Result<()> {
    if !Path::new(RUN_DIR).exists() {
        return Ok(());
    }
    let lock = host_lock::take(host_lock::FORWARDING)?;
    if namespace::clouds()?.iter().any(|cloud| cloud != leaving) {
        return Ok(());
    }
    if let Some(saved) = saved()?
        && saved.get(SWITCH).is_some_and(|value| value != "1")
    {
        namespace::set_sysctl(SWITCH, "0")?;
        for (name, value) in &saved {
            restore_one(name, value)?;
        }
    }
    match std::fs::remove_file(saved_path()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // The directory may hold what others put there: then it stays.
    host_lock::remove_all(host_lock::FORWARDING)?;
    drop(lock);
    Ok(())
}

fn restore_one(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if name == SWITCH || !Path::new(&path).exists() {
        // A link that has gone since needs nothing.
        return Ok(());
    }
    if namespace::sysctl(name)? == value {
        return Ok(());
    }
    namespace::set_sysctl(name, value)
}

/// The settings that the switch changes, as they are.
fn current() -> Result<Settings> {
    let mut settings = Settings::new();
    for name in [SWITCH, "ipv4/conf/all/accept_redirects"] {
        settings.insert(name.into(), namespace::sysctl(name)?);
    }
    for entry in std::fs::read_dir("/proc/sys/net/ipv4/conf").map_err(failed)? {
        let link = entry.map_err(failed)?.file_name();
        let Some(link) = link.to_str().filter(|link| *link != "all") else {
            continue;
        };
        let name = format!("ipv4/conf/{link}/forwarding");
        // Links may go while we look; ours are no one's business.
        if !link.starts_with("cu-")
            && let Ok(value) = namespace::sysctl(&name)
        {
            settings.insert(name, value);
        }
    }
    Ok(settings)
}
