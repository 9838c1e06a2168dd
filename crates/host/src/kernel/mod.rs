//! Kernels with their ramdisks: made from the distribution's, kept as files.
//!
//! A root file system of the 2007 kind has no kernel of its own, so the cloud
//! gives it one.  [`build::build_kernel`] makes one from Debian's cloud kernel
//! and busybox; [`KernelStore`] keeps any number of them under
//! `kernels/<aki>/{vmlinuz,ramdisk}`.  Which kernel an instance gets is not
//! known here.

pub mod build;
pub mod cpio;
mod modules;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cumulet_domain::KernelId;

use crate::api::{HostError, Result};
use cumulet_durable as durable;

pub use build::build_kernel;

/// Where in the ramdisk the public key of an instance lies.
pub const OPENSSH_KEY_PATH: &str = "cumulet/openssh_id.pub";

/// What our ramdisk prints on the console when it was asked only to show that the kernel runs.
pub const PROBE_MARKER: &str = "cumulet: the kernel runs";

/// The word on the kernel's command line that asks for it.
pub const PROBE_WORD: &str = "cumulet.probe";

/// A kernel and its ramdisk, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    pub kernel: PathBuf,
    pub ramdisk: PathBuf,
    /// As the kernel names itself, for example `6.1.0-40-cloud-amd64`; what the operator stated
    /// for an imported one.
    pub version: String,
}

/// The kernels in a data directory.
#[derive(Debug, Clone)]
pub struct KernelStore {
    directory: PathBuf,
}

impl KernelStore {
    /// Opens (and creates) `kernels/` in the data directory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(data_directory: &Path) -> Result<Self> {
        let directory = data_directory.join("kernels");
        durable::ensure_directory(&directory, 0o700)
            .map_err(|cause| HostError::new("opening the kernels' directory", cause))?;
        Ok(Self { directory })
    }

    /// Removes what a crash left half imported.  Only for who has the data directory to itself and
    /// imports nothing at the time: an import under way looks the same.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sweep(&self) -> Result<()> {
        durable::sweep(&self.directory)
            .map_err(|cause| HostError::new("sweeping the kernels' directory", cause))
    }

    /// Copies a kernel and its ramdisk into the store; after `Ok` both survive a power cut.
    /// Nothing changes if the id is there already.
    ///
    /// # Errors
    /// Those of the file system; a kernel file that is no Linux kernel is a permanent error.
    pub fn import(&self, id: KernelId, kernel: &Path, ramdisk: &Path) -> Result<()> {
        if self.find(id).is_some() {
            return Ok(());
        }
        let doing = || format!("importing kernel {id}");
        let head = read_head(kernel).map_err(|cause| HostError::new(doing(), cause))?;
        if !is_linux_kernel(&head) {
            return Err(HostError::permanent(
                doing(),
                format!("{} is not a bzImage", kernel.display()),
                "The file is not a Linux kernel",
            ));
        }
        let temporary = self
            .directory
            .join(format!("{}{id}", durable::TEMPORARY_PREFIX));
        let publish = || -> io::Result<()> {
            if temporary.exists() {
                fs::remove_dir_all(&temporary)?;
            }
            durable::make_directory(&temporary, 0o700)?;
            for (from, to) in [(kernel, "vmlinuz"), (ramdisk, "ramdisk")] {
                // World-readable: QEMU, which is nobody, opens them by descriptor.
                durable::write(&temporary.join(to), &fs::read(from)?, 0o444)?;
            }
            durable::publish_directory(&temporary, &self.directory.join(id.to_string()))
        };
        publish().map_err(|cause| HostError::new(doing(), cause))
    }

    /// The files of a kernel, if it is here.
    pub fn find(&self, id: KernelId) -> Option<(PathBuf, PathBuf)> {
        let directory = self.directory.join(id.to_string());
        let files = (directory.join("vmlinuz"), directory.join("ramdisk"));
        (files.0.is_file() && files.1.is_file()).then_some(files)
    }

    /// Kernels that are here now.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> Result<Vec<KernelId>> {
        let names = fs::read_dir(&self.directory)
            .and_then(|entries| entries.map(|it| Ok(it?.file_name())).collect())
            .map_err(|cause: io::Error| HostError::new("listing kernels", cause))?;
        let names: Vec<std::ffi::OsString> = names;
        Ok(names
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect())
    }

    /// # Errors
    /// Those of the file system.
    pub fn ensure_absent(&self, id: KernelId) -> Result<()> {
        match fs::remove_dir_all(self.directory.join(id.to_string())) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(HostError::new(format!("removing kernel {id}"), cause)),
        }
    }
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    File::open(path)?.take(0x210).read_to_end(&mut head)?;
    Ok(head)
}

/// `HdrS` at 0x202 is the boot protocol's header (Linux, Documentation/x86/boot.rst).
fn is_linux_kernel(head: &[u8]) -> bool {
    head.get(0x202..0x206) == Some(b"HdrS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_by_id() {
        let directory = tempfile::tempdir().unwrap();
        let store = KernelStore::open(directory.path()).unwrap();
        let id = KernelId::from_random(7);
        let file = directory.path().join("file");
        fs::write(&file, b"no kernel").unwrap();
        let refused = store.import(id, &file, &file).unwrap_err();
        assert!(!refused.is_retryable);
        assert_eq!(store.list().unwrap(), []);

        let mut kernel = vec![0; 0x300];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(&file, &kernel).unwrap();
        let half = directory.path().join("kernels/.tmp-half");
        fs::create_dir(&half).unwrap();
        let store = KernelStore::open(directory.path()).unwrap();
        assert!(half.exists(), "whoever opens it may not be alone");
        store.sweep().unwrap();
        assert!(!half.exists());
        store.import(id, &file, &file).unwrap();
        store.import(id, &file, &file).unwrap();
        assert_eq!(store.list().unwrap(), [id]);
        assert_eq!(fs::read(store.find(id).unwrap().0).unwrap(), kernel);
        store.ensure_absent(id).unwrap();
        assert_eq!(store.find(id), None);
    }
}
