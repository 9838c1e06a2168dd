//! Whether the processor's virtualisation can really be used.
//!
//! `/dev/kvm` may exist and still be unable to run an ordinary kernel, as in
//! some nested set-ups.  So a kernel is booted, under the rights that instances
//! have, until it prints a marker or the time is over.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;

use crate::kernel::{KernelFiles, PROBE_MARKER, PROBE_WORD};

/// How guests' instructions are executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceleration {
    /// By the processor; QEMU needs this group for the device.
    Kvm { gid: u32 },
    /// By software; `reason` says why, for the log and `doctor`.
    Emulated { reason: String },
}

impl Acceleration {
    /// QEMU's word: `kvm` or `tcg`.
    pub fn name(&self) -> &'static str {
        match self {
            Acceleration::Kvm { .. } => "kvm",
            Acceleration::Emulated { .. } => "tcg",
        }
    }
}

/// Boots `kernel` with `device` (ordinarily `/dev/kvm`) for at most `budget`, as `uid`, a user id
/// that no instance has.  Leaves nothing running.
pub fn probe_acceleration(
    qemu: &Path,
    device: &Path,
    kernel: &KernelFiles,
    uid: u32,
    budget: Duration,
) -> Acceleration {
    let emulated = |reason: String| Acceleration::Emulated { reason };
    let facts = match std::fs::metadata(device) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return emulated(format!("there is no {}", device.display()));
        }
        Err(error) => return emulated(format!("{}: {error}", device.display())),
    };
    let gid = match group_that_may(facts.mode(), facts.gid(), uid) {
        Some(gid) => gid,
        None => {
            return emulated(format!(
                "{} is for root only (mode {:o}); give it to a group and let the group read and write it",
                device.display(),
                facts.mode() & 0o777
            ));
        }
    };
    match prove(qemu, ("kvm", "host"), kernel, (uid, gid), budget) {
        Ok(()) => Acceleration::Kvm { gid },
        Err(cause) => emulated(format!(
            "{} is there, but a kernel did not run on it: {cause}",
            device.display()
        )),
    }
}

/// The group under which a process that is not root may read and write the device.
fn group_that_may(mode: u32, gid: u32, own: u32) -> Option<u32> {
    if mode & 0o006 == 0o006 {
        Some(own)
    } else if mode & 0o060 == 0o060 && gid != 0 {
        Some(gid)
    } else {
        None
    }
}

/// Boots `kernel` with one accelerator and processor, by QEMU's names, as this user and group,
/// until it shows that it runs.
///
/// # Errors
/// If it does not within `budget`; the text says what happened instead.
#[expect(
    unsafe_code,
    reason = "descriptors are made inheritable for this one child only, between fork and exec"
)]
pub fn prove(
    qemu: &Path,
    (accelerator, cpu): (&str, &str),
    kernel: &KernelFiles,
    (uid, gid): (u32, u32),
    budget: Duration,
) -> io::Result<()> {
    let kernel_file = File::open(&kernel.kernel)?;
    let ramdisk_file = File::open(&kernel.ramdisk)?;
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let (kernel_path, ramdisk_path) = (path(&kernel_file), path(&ramdisk_file));
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", &format!("q35,accel={accelerator}")])
        .args(["-cpu", cpu, "-m", "256M"])
        .args(["-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel_path)
        .arg("-initrd")
        .arg(ramdisk_path)
        .arg("-append")
        .arg(format!("console=ttyS0 panic=-1 {PROBE_WORD}"))
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the closure makes two system calls on descriptors that it owns; it allocates nothing
    // and takes no lock, so it may run between fork and exec of a program with threads.
    unsafe {
        command.pre_exec(move || {
            rustix::io::fcntl_setfd(&kernel_file, FdFlags::empty())?;
            rustix::io::fcntl_setfd(&ramdisk_file, FdFlags::empty())?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let result = await_marker(&mut child, budget);
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn await_marker(child: &mut std::process::Child, budget: Duration) -> io::Result<()> {
    let until = Instant::now() + budget;
    let mut output = child
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("QEMU has no output"))?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut said = vec![];
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                said.extend_from_slice(buffer.get(..length).unwrap_or_default());
                if String::from_utf8_lossy(&said).contains(PROBE_MARKER) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Err(io::Error::other(format!(
                        "it did not come up within {} s",
                        budget.as_secs()
                    )));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
    let _ = child.kill();
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    Err(io::Error::other(format!(
        "QEMU ended: {}",
        complaint.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_must_be_for_more_than_root() {
        assert_eq!(group_that_may(0o100_600, 0, 9), None);
        assert_eq!(group_that_may(0o100_660, 0, 9), None);
        assert_eq!(group_that_may(0o100_660, 106, 9), Some(106));
        assert_eq!(group_that_may(0o100_666, 106, 9), Some(9));
    }
}
