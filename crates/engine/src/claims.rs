//! What a launch says of its machines that is so by itself, or not at all.
//!
//! Tools of today describe the whole machine that they expect: its processors, its devices.  None
//! of that is made as they say; a launch is refused of which it is not so.

use std::collections::BTreeSet;

use cumulet_domain::disks::{self, DeviceClaim, Holds};
use cumulet_domain::images::{BootKind, Image, Preparation};
use cumulet_domain::instance_types::InstanceType;
use cumulet_domain::{Error, KernelId};

/// A processor of the guest is a core of one thread.
const THREADS_PER_CORE: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub cores: Option<u32>,
    pub threads_per_core: Option<u32>,
    pub devices: Vec<DeviceClaim>,
    /// What a root file system boots with.
    pub kernel: Option<KernelId>,
}

impl Claims {
    /// # Errors
    /// `Unsupported` with what is so.
    pub(crate) fn check_processors(&self, size: &InstanceType) -> Result<(), Error> {
        let check = |parameter: &str, asked: Option<u32>, is: u32| match asked {
            Some(asked) if asked != is => Err(Error::Unsupported {
                message: format!(
                    "{parameter} {asked} is not supported here: it is {is} for an instance of type {}",
                    size.name
                ),
            }),
            Some(_) | None => Ok(()),
        };
        check("CpuOptions.CoreCount", self.cores, size.vcpus)?;
        let threads = self.threads_per_core;
        check("CpuOptions.ThreadsPerCore", threads, THREADS_PER_CORE)
    }

    /// # Errors
    /// `InvalidValue` for a device that is said to be two things.
    pub(crate) fn check_devices_once(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let twice = self.devices.iter().find(|claim| !seen.insert(claim.name()));
        twice.map_or(Ok(()), |claim| {
            Err(Error::invalid(
                "BlockDeviceMapping",
                format!(
                    "{} has the device '{}', which another one has, too",
                    claim.parameter, claim.device
                ),
            ))
        })
    }

    /// # Errors
    /// As [`DeviceClaim::check`].
    pub(crate) fn check_devices(&self, image: &Image, size: &InstanceType) -> Result<(), Error> {
        let mut devices = self.devices.iter();
        devices.try_for_each(|claim| claim.check(image, size.disk_sizes()))
    }

    /// # Errors
    /// `Unavailable` while nothing is known of the image; `Unsupported` unless an instance of it boots
    /// with the kernel now.
    pub(crate) fn check_kernel(
        &self,
        image: &Image,
        default: Option<KernelId>,
    ) -> Result<(), Error> {
        let Some(asked) = self.kernel else {
            return Ok(());
        };
        let what = match (&image.preparation, default) {
            (Preparation::Ready { kind, .. }, _) if *kind == BootKind::Disk => {
                "is a disk that brings its own".to_owned()
            }
            (Preparation::Ready { .. }, Some(default)) if default == asked => return Ok(()),
            (Preparation::Ready { .. }, Some(default)) => format!("boots with {default}"),
            (Preparation::Ready { .. }, None) => "has no kernel to boot with".to_owned(),
            (Preparation::Pending { .. } | Preparation::Failed { .. }, _) => {
                return Err(disks::unknown_yet(image, "KernelId"));
            }
        };
        Err(Error::Unsupported {
            message: format!(
                "KernelId {asked} is not supported here: the image {} {what}",
                image.id
            ),
        })
    }

    /// Hands each value to a digest, by its name.
    pub(crate) fn digest_into(&self, value: &mut dyn FnMut(&str, &[u8])) {
        if let Some(cores) = self.cores {
            value("cores", cores.to_string().as_bytes());
        }
        if let Some(threads) = self.threads_per_core {
            value("threads-per-core", threads.to_string().as_bytes());
        }
        if let Some(kernel) = self.kernel {
            value("kernel", kernel.to_string().as_bytes());
        }
        for claim in &self.devices {
            value("device", claim.device.as_bytes());
            match &claim.holds {
                Holds::Root { size_gib: None } => value("root", b""),
                Holds::Root {
                    size_gib: Some(size),
                } => value("root", size.to_string().as_bytes()),
                Holds::Named(name) => value("device-name", name.as_bytes()),
                Holds::Nothing => value("no-device", b""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::image;

    #[test]
    fn a_kernel_is_checked_once_the_image_is_known() {
        let kernel = KernelId::from_random(1);
        let claims = Claims {
            kernel: Some(kernel),
            ..Claims::default()
        };
        let ready = image(1, BootKind::Rootfs);
        assert_eq!(claims.check_kernel(&ready, Some(kernel)), Ok(()));
        let refused = claims.check_kernel(&ready, None).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        // Asking again helps, as it does a launch that says nothing of its kernel.
        let mut pending = ready;
        pending.preparation = Preparation::Pending {
            percent: 1,
            failures: 0,
        };
        let refused = claims.check_kernel(&pending, Some(kernel)).unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
        assert!(refused.to_string().contains("KernelId"), "{refused}");
    }
}
