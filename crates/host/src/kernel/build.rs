//! Makes the default kernel and ramdisk from the distribution's cloud kernel.
//!
//! Only Debian and its relatives: the package is fetched with `apt-get
//! download` and unpacked beside, never installed.  The ramdisk holds a static
//! busybox, the drivers of our virtual hardware and `init.sh`; nothing of it
//! stays in the guest's memory after the image's own init has started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, GzBuilder};

use super::{KernelFiles, OPENSSH_KEY_PATH, cpio, modules};
use crate::api::{HostError, Result};

/// The package whose newest dependency is the kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

const INIT: &[u8] = include_bytes!("init.sh");

/// Without these no instance starts.
const DRIVERS_REQUIRED: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci",
    "virtio_scsi",
    "sd_mod",
    "virtio_net",
    "ext4",
];

/// Loaded if the kernel has them: entropy, the report of a panic, the power button, and what
/// systemd asks for; the image itself has no modules for this kernel.
const DRIVERS_WISHED: &[&str] = &[
    "virtio_rng",
    "pvpanic_mmio",
    "button",
    "evdev",
    "autofs4",
    "binfmt_misc",
    "af_packet",
    "unix",
];

/// Makes `vmlinuz` and `ramdisk` in `work_directory` (which must exist); `progress` is told in
/// words what is being done.
///
/// # Errors
/// Retryable where the archive could not be reached.  What to do is in the text.
pub fn build_kernel(work_directory: &Path, progress: &dyn Fn(&str)) -> Result<KernelFiles> {
    let doing = |what: &'static str| move |cause: io::Error| HostError::new(what, cause);
    progress("finding the distribution's newest cloud kernel");
    let package = kernel_package().map_err(doing("finding the cloud kernel"))?;
    progress(&format!("downloading {package}"));
    let unpacked =
        fetch(work_directory, &package).map_err(doing("downloading the cloud kernel"))?;
    let version = package
        .strip_prefix("linux-image-")
        .unwrap_or(&package)
        .trim_end_matches("-unsigned")
        .to_owned();
    let busybox = busybox(work_directory, progress).map_err(doing("finding a static busybox"))?;

    progress("making the ramdisk");
    let kernel = work_directory.join("vmlinuz");
    fs::copy(unpacked.join(format!("boot/vmlinuz-{version}")), &kernel)
        .map_err(doing("copying the kernel"))?;
    let module_root = [
        format!("lib/modules/{version}"),
        format!("usr/lib/modules/{version}"),
    ]
    .iter()
    .map(|path| unpacked.join(path))
    .find(|path| path.is_dir())
    .ok_or_else(|| HostError::new("finding the kernel's modules", "the package has none"))?;
    let ramdisk = work_directory.join("ramdisk");
    write_ramdisk(&ramdisk, &module_root, &busybox).map_err(doing("making the ramdisk"))?;
    let _ = fs::remove_dir_all(package_directory(work_directory, &package));
    Ok(KernelFiles {
        kernel,
        ramdisk,
        version,
    })
}

/// An archive that adds an instance's public key to a ramdisk.
///
/// # Errors
/// Only if the key is absurdly long.
pub fn key_archive(openssh_key: &str) -> io::Result<Vec<u8>> {
    let mut archive = cpio::Archive::new(Vec::new());
    archive.directory("cumulet")?;
    let line = format!("{}\n", openssh_key.trim_end());
    archive.file(OPENSSH_KEY_PATH, 0o644, line.as_bytes())?;
    archive.finish()
}

fn kernel_package() -> io::Result<String> {
    let listing = run(Command::new("apt-cache").args(["depends", META_PACKAGE])).map_err(
        |cause| {
            io::Error::other(format!(
                "{cause} (the distribution must have the package {META_PACKAGE}; apt-get update may help)"
            ))
        },
    )?;
    find_dependency(&listing).ok_or_else(|| {
        io::Error::other(format!(
            "the package {META_PACKAGE} depends on no kernel; apt-get update may help"
        ))
    })
}

fn find_dependency(listing: &str) -> Option<String> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// Downloads a package and unpacks it; the directory is below `work_directory`.
fn fetch(work_directory: &Path, package: &str) -> io::Result<PathBuf> {
    let into = package_directory(work_directory, package);
    if into.exists() {
        fs::remove_dir_all(&into)?;
    }
    let download = into.join("download");
    let unpacked = into.join("unpacked");
    fs::create_dir_all(&download)?;
    run(Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root", package])
        .current_dir(&download))?;
    let deb = fs::read_dir(&download)?
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .ok_or_else(|| io::Error::other("apt-get downloaded nothing"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked))?;
    fs::remove_dir_all(&download)?;
    Ok(unpacked)
}

fn package_directory(work_directory: &Path, package: &str) -> PathBuf {
    work_directory.join(format!("package-{package}"))
}

/// The installed busybox if it is static, else the one of the distribution's package.
fn busybox(work_directory: &Path, progress: &dyn Fn(&str)) -> io::Result<Vec<u8>> {
    for path in ["/bin/busybox", "/usr/bin/busybox"] {
        if let Ok(bytes) = fs::read(path)
            && is_static(&bytes)
        {
            return Ok(bytes);
        }
    }
    progress("downloading busybox-static");
    let unpacked = fetch(work_directory, "busybox-static")?;
    let bytes = fs::read(unpacked.join("bin/busybox"))
        .or_else(|_| fs::read(unpacked.join("usr/bin/busybox")))?;
    let _ = fs::remove_dir_all(package_directory(work_directory, "busybox-static"));
    Ok(bytes)
}

/// Whether a 64-bit program names no interpreter (program header type 3).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0_u64, |sum, it| sum << 8 | u64::from(*it));
        usize::try_from(value).ok()
    };
    let headers = || -> Option<(usize, usize, usize)> {
        Some((number(32, 8)?, number(54, 2)?, number(56, 2)?))
    };
    let Some((offset, size, count)) = headers() else {
        return false;
    };
    elf.starts_with(b"\x7fELF\x02")
        && (0..count).all(|index| {
            let at = size
                .checked_mul(index)
                .and_then(|skip| offset.checked_add(skip));
            at.and_then(|at| number(at, 4))
                .is_some_and(|kind| kind != 3)
        })
}

fn write_ramdisk(path: &Path, module_root: &Path, busybox: &[u8]) -> io::Result<()> {
    let found = modules::resolve(module_root, DRIVERS_REQUIRED, DRIVERS_WISHED)?;
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    let mut archive = cpio::Archive::new(gzip);
    for directory in ["bin", "dev", "modules"] {
        archive.directory(directory)?;
    }
    archive.character_device("dev/console", (5, 1))?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.file("init", 0o755, INIT)?;
    let mut order = String::new();
    for module in &found {
        let name = format!("{}.ko", module.name);
        archive.file(
            &format!("modules/{name}"),
            0o644,
            &modules::read(&module.path)?,
        )?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    let mut bytes = archive.finish()?.finish()?;
    // An instance's own archive may follow; the kernel wants it at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    fs::write(path, bytes)
}

fn run(command: &mut Command) -> io::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .output()
        .map_err(|cause| io::Error::other(format!("running {program}: {cause}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(format!("{program} failed: {said}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let listing = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-40-cloud-amd64\n";
        assert_eq!(
            find_dependency(listing).as_deref(),
            Some("linux-image-6.1.0-40-cloud-amd64")
        );
        assert_eq!(find_dependency("N: Unable to locate package\n"), None);
    }

    #[test]
    fn a_text_is_no_static_program() {
        assert!(!is_static(b""));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&fs::read("/bin/ls").unwrap()));
    }
}
