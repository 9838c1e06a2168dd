//! The disk of an instance: how big it is, and what is where on it.
//!
//! An image that is a root file system gets the disk of 2007 around it, with an ephemeral store and
//! swap behind the root; one that is a whole disk has its own table of partitions.  Clients say what
//! they expect to find ([`DeviceClaim`]); nothing is made as they say, and what is not so is refused.

use crate::images::{BootKind, Image, Preparation};
use crate::{Error, Resource, shown};

const MIB: u64 = 1 << 20;
/// What the table of partitions takes before the first one.
const TABLE_MIB: u64 = 1;

/// What the type of an instance gives its disk, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Of the ephemeral store behind a root file system.
    pub ephemeral_mib: u64,
    pub swap_mib: u64,
    /// Least size of a whole disk.
    pub disk_mib: u64,
}

/// What a client says that a device of its instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceClaim {
    /// What the client calls the claim, for whoever is refused.
    pub parameter: String,
    /// `sda1` or `/dev/sda1`.
    pub device: String,
    pub holds: Holds,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The root disk; `size_gib` is its size, if the client says one.
    Root { size_gib: Option<u64> },
    /// What the metadata service calls so: `ami`, `root`, `ephemeral0`, `swap`.
    Named(String),
    /// There is no such device.
    Nothing,
}

/// Size of the disk that the guest sees, rounded up; `None` while the image is not ready.
pub fn size_gib(preparation: &Preparation, sizes: Sizes) -> Option<u64> {
    let Preparation::Ready {
        size_bytes, kind, ..
    } = preparation
    else {
        return None;
    };
    let image_mib = size_bytes.div_ceil(MIB);
    let size_mib = match kind {
        BootKind::Disk => image_mib.max(sizes.disk_mib),
        BootKind::Rootfs => image_mib
            .saturating_add(TABLE_MIB)
            .saturating_add(sizes.ephemeral_mib)
            .saturating_add(sizes.swap_mib),
    };
    Some(size_mib.div_ceil(1024))
}

/// The refusal of what a launch says of an image whose bytes nobody has looked at yet.
pub fn unknown_yet(image: &Image, parameter: &str) -> Error {
    Error::Unavailable {
        resource: Resource::Image,
        id: image.id.to_string(),
        why: Some(format!(
            "it is still being prepared, so that {parameter} cannot be told to be so"
        )),
    }
}

/// What is where, by the names that EC2 has for it; the first is the root.
pub fn devices(kind: BootKind, sizes: Sizes) -> Vec<(&'static [&'static str], &'static str)> {
    const ROOT: &[&str] = &["ami", "root"];
    match kind {
        BootKind::Disk => vec![(ROOT, "sda")],
        BootKind::Rootfs => {
            let mut devices = vec![(ROOT, "sda1")];
            if sizes.ephemeral_mib > 0 {
                devices.push((&["ephemeral0"], "sda2"));
            }
            if sizes.swap_mib > 0 {
                devices.push((&["swap"], "sda3"));
            }
            devices
        }
    }
}

impl DeviceClaim {
    /// Whether it is so of an instance of this image.
    ///
    /// # Errors
    /// `Unavailable` while nothing is known of the image's disk; `Unsupported` with what is so.
    pub fn check(&self, image: &Image, sizes: Sizes) -> Result<(), Error> {
        let (kind, size) = match (&image.preparation, size_gib(&image.preparation, sizes)) {
            (Preparation::Ready { kind, .. }, Some(size)) => (*kind, size),
            _ => return Err(unknown_yet(image, &self.parameter)),
        };
        let devices = devices(kind, sizes);
        let found = devices.iter().find(|(_, it)| *it == self.name());
        let names = found.map_or(&[][..], |(names, _)| names);
        let is_so = match &self.holds {
            Holds::Root { size_gib } => {
                let is_size = size_gib.is_none_or(|asked| asked == size);
                names.contains(&"root") && is_size
            }
            Holds::Named(name) => names.contains(&name.as_str()),
            Holds::Nothing => found.is_none(),
        };
        if is_so {
            return Ok(());
        }
        let there: Vec<String> = devices
            .iter()
            .map(|(names, device)| format!("{} at /dev/{device}", names.join(" or ")))
            .collect();
        Err(Error::Unsupported {
            message: format!(
                "{} ({}) is not supported here: the disk of {size} GiB has {}, and there is no other device",
                self.parameter,
                self.told(),
                there.join(", ")
            ),
        })
    }

    /// The device without its directory.
    pub fn name(&self) -> &str {
        self.device.strip_prefix("/dev/").unwrap_or(&self.device)
    }

    /// The claim in words.
    fn told(&self) -> String {
        let device = shown(&self.device);
        match &self.holds {
            Holds::Root { size_gib: None } => format!("a volume at {device}"),
            Holds::Root {
                size_gib: Some(size),
            } => format!("a volume of {size} GiB at {device}"),
            Holds::Named(name) => format!("{} at {device}", shown(name)),
            Holds::Nothing => format!("no device at {device}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Architecture, ImageState};
    use crate::{AccountId, Digest, ImageId, Timestamp};

    const GIB: u64 = 1 << 30;

    fn image(preparation: Preparation) -> Image {
        Image {
            id: ImageId::from_random(1),
            owner: AccountId::from_random(1),
            location: "b/k".into(),
            created: Timestamp(1),
            state: ImageState::Available,
            name: None,
            description: None,
            architecture: Architecture::X86_64,
            is_public: false,
            launch_accounts: std::iter::empty().collect(),
            product_codes: vec![],
            preparation,
        }
    }

    fn ready(size_bytes: u64, kind: BootKind) -> Preparation {
        Preparation::Ready {
            digest: Digest([0; 32]),
            size_bytes,
            kind,
        }
    }

    fn sizes(ephemeral_mib: u64, swap_mib: u64) -> Sizes {
        Sizes {
            ephemeral_mib,
            swap_mib,
            disk_mib: 8 * 1024,
        }
    }

    #[test]
    fn a_disk_is_as_big_as_image_and_type_make_it() {
        for (size, kind, expected) in [
            // 8 GiB of the type, or the image's own size.
            (GIB, BootKind::Disk, 8),
            (9 * GIB + 1, BootKind::Disk, 10),
            // 1 MiB + 1 GiB + 512 MiB, and the image rounded up to a MiB.
            (1, BootKind::Rootfs, 2),
            (GIB / 2 - (2 << 20), BootKind::Rootfs, 2),
            (GIB / 2 - (1 << 20) + 1, BootKind::Rootfs, 3),
        ] {
            let found = size_gib(&ready(size, kind), sizes(1024, 512));
            assert_eq!(found, Some(expected), "{size} {kind:?}");
        }
        let pending = Preparation::Pending {
            percent: 1,
            failures: 0,
        };
        assert_eq!(size_gib(&pending, sizes(1, 1)), None);
    }

    #[test]
    fn claims_are_taken_that_are_so() {
        let root = |size_gib| Holds::Root { size_gib };
        let named = |name: &str| Holds::Named(name.into());
        let (disk, rootfs) = (BootKind::Disk, BootKind::Rootfs);
        let (full, bare) = (sizes(1024, 512), sizes(0, 0));
        for (kind, sizes, device, holds, is_so) in [
            (disk, full, "/dev/sda", root(None), true),
            (disk, full, "sda", root(Some(8)), true),
            (disk, full, "/dev/sda", root(Some(9)), false),
            (disk, full, "/dev/sda", root(Some(7)), false),
            (disk, full, "/dev/sda1", root(None), false),
            (disk, full, "/dev/xvda", root(None), false),
            (disk, full, "/dev/sda2", named("ephemeral0"), false),
            (disk, full, "/dev/sda", named("ami"), true),
            (disk, full, "/dev/sdb", Holds::Nothing, true),
            (disk, full, "/dev/sda", Holds::Nothing, false),
            (rootfs, full, "/dev/sda1", root(Some(2)), true),
            (rootfs, full, "/dev/sda", root(None), false),
            (rootfs, full, "/dev/sda2", root(None), false),
            (rootfs, full, "sda2", named("ephemeral0"), true),
            (rootfs, full, "/dev/sdb", named("ephemeral0"), false),
            (rootfs, full, "sda2", named("ephemeral1"), false),
            (rootfs, full, "sda3", named("swap"), true),
            (rootfs, full, "sda1", named("root"), true),
            (rootfs, full, "sda3", Holds::Nothing, false),
            // A type without them.
            (rootfs, bare, "sda2", named("ephemeral0"), false),
            (rootfs, bare, "sda3", named("swap"), false),
            (rootfs, bare, "sda2", Holds::Nothing, true),
        ] {
            let claim = DeviceClaim {
                parameter: "Mapping.1".into(),
                device: device.into(),
                holds,
            };
            let checked = claim.check(&image(ready(1, kind)), sizes);
            assert_eq!(checked.is_ok(), is_so, "{claim:?} {kind:?} {sizes:?}");
        }
    }

    #[test]
    fn who_is_refused_learns_what_is_so() {
        let claim = DeviceClaim {
            parameter: "Mapping.1".into(),
            device: "/dev/sdb".into(),
            holds: Holds::Named("ephemeral0".into()),
        };
        let pending = Preparation::Pending {
            percent: 1,
            failures: 0,
        };
        let refused = claim.check(&image(pending), sizes(1024, 512)).unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
        let root = ready(1, BootKind::Rootfs);
        let refused = claim.check(&image(root), sizes(1024, 512)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Mapping.1 (ephemeral0 at /dev/sdb) is not supported here: the disk of 2 GiB has ami or root at /dev/sda1, ephemeral0 at /dev/sda2, swap at /dev/sda3, and there is no other device"
        );
    }
}
