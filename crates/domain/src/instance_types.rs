//! Sizes of instances.  The 2007 API knows one; clients of today name others.

use serde::{Deserialize, Serialize};

use crate::disks::Sizes;

/// What EC2 gives when a launch names no type.
pub const DEFAULT_INSTANCE_TYPE: &str = "m1.small";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceType {
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// Size of the ephemeral store behind a root file system.
    pub ephemeral_mib: u64,
    pub swap_mib: u64,
    /// Least size of a whole-disk image's disk.
    pub disk_mib: u64,
}

impl InstanceType {
    /// What the disks of its instances are made of.
    pub fn disk_sizes(&self) -> Sizes {
        Sizes {
            ephemeral_mib: self.ephemeral_mib,
            swap_mib: self.swap_mib,
            disk_mib: self.disk_mib,
        }
    }
}

/// The type of this name.  Who names none gets [`DEFAULT_INSTANCE_TYPE`], or the first of a table that
/// does not have it: the versions of the first years have no word for types.
pub fn find<'a>(table: &'a [InstanceType], name: Option<&str>) -> Option<&'a InstanceType> {
    let named = |name: &str| table.iter().find(|it| it.name == name);
    match name {
        Some(name) => named(name),
        None => named(DEFAULT_INSTANCE_TYPE).or_else(|| table.first()),
    }
}

/// The table that applies when the configuration has none.
///
/// `m1.small` is the 2007 instance: 1 CPU, 1.75 GB, 160 GB.  Disks are sparse, so that a size
/// costs nothing until the guest writes.
pub fn default_table() -> Vec<InstanceType> {
    let row = |name: &str, vcpus, memory_mib, ephemeral_gib: u64, swap_mib| InstanceType {
        name: name.into(),
        vcpus,
        memory_mib,
        ephemeral_mib: ephemeral_gib * 1024,
        swap_mib,
        disk_mib: 8 * 1024,
    };
    vec![
        row("m1.small", 1, 1740, 147, 896),
        row("m1.medium", 1, 3840, 400, 896),
        row("m1.large", 2, 7680, 840, 896),
        row("c1.medium", 2, 1740, 340, 896),
        row("t1.micro", 1, 613, 10, 512),
        row("t2.nano", 1, 512, 4, 256),
        row("t2.micro", 1, 1024, 8, 256),
        row("t2.small", 1, 2048, 16, 512),
        row("t3.nano", 2, 512, 4, 256),
        row("t3.micro", 2, 1024, 8, 256),
        row("t3.small", 2, 2048, 16, 512),
        row("m3.medium", 1, 3840, 16, 512),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_no_type_gets_one_all_the_same() {
        let whole = default_table();
        let own: Vec<InstanceType> = whole
            .iter()
            .filter(|it| it.name.starts_with("t3."))
            .cloned()
            .collect();
        for (table, name, found) in [
            (&whole, None, Some("m1.small")),
            (&whole, Some("t2.micro"), Some("t2.micro")),
            (&whole, Some("T2.MICRO"), None),
            (&whole, Some(""), None),
            (&own, None, Some("t3.nano")),
            (&own, Some("m1.small"), None),
        ] {
            let chosen = find(table, name).map(|it| it.name.as_str());
            assert_eq!(chosen, found, "{name:?}");
        }
    }
}
