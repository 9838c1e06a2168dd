//! What a data directory holds of machines and disks, whoever asked for it.
//!
//! For whoever compares the host with the records: what is here and in no
//! record is an orphan.  It reads names only, and works while no server runs.

use std::io;
use std::path::Path;
use std::str::FromStr;

use cumulet_domain::{Digest, InstanceId, KernelId};

use cumulet_durable::TEMPORARY_PREFIX;

/// Everything in no particular order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Run directories: VMs that live or have ended and were not removed.
    pub run: Vec<InstanceId>,
    pub consoles: Vec<InstanceId>,
    pub overlays: Vec<InstanceId>,
    /// Images of which a prepared disk exists; one may be listed several times.
    pub bases: Vec<Digest>,
    pub images: Vec<Digest>,
    pub kernels: Vec<KernelId>,
    /// Half-written files, by path below the data directory.
    pub unfinished: Vec<String>,
}

/// Reads the names below a data directory; directories that do not exist are empty.
///
/// # Errors
/// Those of the file system.
pub fn inventory(data_directory: &Path) -> io::Result<Inventory> {
    let mut unfinished = vec![];
    let mut read = |name: &str| -> io::Result<Vec<String>> {
        let mut found = vec![];
        let entries = match std::fs::read_dir(data_directory.join(name)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let Ok(file) = entry?.file_name().into_string() else {
                continue;
            };
            if file.starts_with(TEMPORARY_PREFIX) {
                unfinished.push(format!("{name}/{file}"));
            } else {
                found.push(file);
            }
        }
        Ok(found)
    };
    let bases = read("disks")?;
    let bases = bases.iter().filter_map(|it| it.split('-').next());
    Ok(Inventory {
        run: parsed(&read("run")?),
        consoles: parsed(&read("consoles")?),
        overlays: parsed(&read("overlays")?),
        bases: bases.filter_map(|it| it.parse().ok()).collect(),
        images: parsed(&read("images")?),
        kernels: parsed(&read("kernels")?),
        unfinished,
    })
}

fn parsed<T: FromStr>(names: &[String]) -> Vec<T> {
    names.iter().filter_map(|it| it.parse().ok()).collect()
}
