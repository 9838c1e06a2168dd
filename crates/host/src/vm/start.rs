//! Starting a VM: gathers descriptors, spawns a keeper, waits for its word.
//!
//! Order matters.  The lock is taken first, so that nobody else starts or
//! removes; it passes to the keeper with the job, so that it is free again
//! whenever anything dies on the way.  Nothing counts as started before the
//! keeper has written its record.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cumulet_domain::KernelId;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::clock::now;
use super::protocol::{
    self, CONSOLE_DESCRIPTOR, Job, LOCK_DESCRIPTOR, RUN_DESCRIPTOR, Reply, VERSION,
};
use super::run_dir::RunDir;
use super::{Acceleration, KeeperProgram, Shared, command, ring};
use crate::api::{Boot, HostError, Result, VmSpec};
use crate::disks::Places;
use crate::kernel::{KernelStore, build::key_archive};

/// Until a keeper must have answered; longer than its own limit for QEMU.
const REPLY_MAX: Duration = Duration::from_secs(90);

pub(super) fn start(shared: &Shared, spec: &VmSpec, tap: OwnedFd) -> Result<()> {
    let instance = spec.instance;
    let failed = |cause: io::Error| HostError::new(format!("starting the VM of {instance}"), cause);
    let run_dir = shared.run_dir(instance);
    let Some(lock) = run_dir.lock().map_err(failed)? else {
        return Ok(());
    };
    shared.watch_lock(instance);
    shared
        .end_strays(instance)
        .map_err(|cause| HostError::new(format!("ending an earlier VM of {instance}"), cause))?;
    let descriptors = gather(shared, spec, tap, &run_dir, lock)?;
    let job = Job {
        version: VERSION,
        qemu: shared.config.qemu.to_string_lossy().into_owned(),
        arguments: command::arguments(spec, &shared.config.acceleration),
        descriptors: descriptors
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    };
    let gid = gid_of(spec.uid, &shared.config.acceleration);
    let reply =
        run_keeper(&shared.config.keeper, (spec.uid, gid), &job, &descriptors).map_err(failed)?;
    match reply {
        Reply::Started => Ok(()),
        Reply::Failed { detail } => {
            let user_reason = reason_of(&detail);
            let failed = HostError::new(format!("starting the VM of {instance}"), detail);
            Err(HostError {
                user_reason: user_reason.unwrap_or(&failed.user_reason).to_owned(),
                ..failed
            })
        }
    }
}

/// What the user may read of a keeper's complaint, where it is worth more than that it failed.
fn reason_of(detail: &str) -> Option<&'static str> {
    let is_memory = [
        "cannot set up guest memory",
        "Cannot allocate memory",
        "cannot allocate memory",
    ];
    is_memory
        .iter()
        .any(|it| detail.contains(it))
        .then_some("The host has not enough memory for this instance")
}

/// The instance's own group, or the one that may use the processor's virtualisation.
fn gid_of(uid: u32, acceleration: &Acceleration) -> u32 {
    match acceleration {
        Acceleration::Kvm { gid } => *gid,
        Acceleration::Emulated { .. } => uid,
    }
}

fn gather(
    shared: &Shared,
    spec: &VmSpec,
    tap: OwnedFd,
    run_dir: &RunDir,
    lock: File,
) -> Result<Vec<(&'static str, OwnedFd)>> {
    let instance = spec.instance;
    let at = |what: &'static str| {
        move |cause: io::Error| HostError::new(format!("opening {what} of {instance}"), cause)
    };
    let gid = gid_of(spec.uid, &shared.config.acceleration);
    let run = run_dir
        .renew_vm(spec.uid, gid)
        .map_err(at("the run directory"))?;
    let console = ring::ensure(&shared.console_path(instance), now()).map_err(at("the console"))?;
    let places = Places::new(&shared.config.data_directory);
    let base = File::open(places.base_of(&spec.disk)).map_err(at("the base disk"))?;
    let overlay = OpenOptions::new()
        .read(true)
        .write(true)
        .open(places.overlay_of(instance))
        .map_err(at("the disk"))?;
    let mut found: Vec<(&'static str, OwnedFd)> = vec![
        (RUN_DESCRIPTOR, run.into()),
        (LOCK_DESCRIPTOR, lock.into()),
        (CONSOLE_DESCRIPTOR, console.into()),
    ];
    let mut machine = [
        ("tap", tap),
        ("base", base.into()),
        ("overlay", overlay.into()),
    ]
    .into();
    found.append(&mut machine);
    match &spec.boot {
        Boot::Firmware => {}
        Boot::Kernel {
            kernel,
            openssh_key,
        } => {
            let (image, ramdisk) = boot_files(
                &shared.config.data_directory,
                *kernel,
                openssh_key.as_deref(),
            )?;
            found.push(("kernel", image.into()));
            found.push(("initrd", ramdisk.into()));
        }
    }
    debug_assert!(
        command::descriptors(&spec.boot)
            .iter()
            .all(|it| found.iter().any(|(name, _)| name == it))
    );
    Ok(found)
}

/// The kernel and the ramdisk; with a key, a ramdisk of the instance's own.
fn boot_files(data_directory: &Path, id: KernelId, key: Option<&str>) -> Result<(File, File)> {
    let doing = || format!("opening kernel {id}");
    let Some((kernel, ramdisk)) = KernelStore::open(data_directory)?.find(id) else {
        return Err(HostError::permanent(
            doing(),
            "its files are missing",
            "The kernel of this instance is missing on the host: the operator must run cumulet kernel build",
        ));
    };
    let open = || -> io::Result<(File, File)> {
        let kernel = File::open(kernel)?;
        let mut shared = File::open(&ramdisk)?;
        let Some(key) = key else {
            return Ok((kernel, shared));
        };
        // Without a name: it goes when QEMU goes.
        let mut own = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_TMPFILE)
            .mode(0o600)
            .open(data_directory)?;
        // QEMU opens it by its descriptor, as nobody.
        own.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        let length = io::copy(&mut shared, &mut own)?;
        let padding = usize::try_from(length.next_multiple_of(4) - length).unwrap_or(0);
        own.write_all(&vec![0; padding])?;
        own.write_all(&key_archive(key)?)?;
        Ok((kernel, own))
    };
    open().map_err(|cause| HostError::new(doing(), cause))
}

fn run_keeper(
    program: &KeeperProgram,
    (uid, gid): (u32, u32),
    job: &Job,
    descriptors: &[(&'static str, OwnedFd)],
) -> io::Result<Reply> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_timeout(
        &ours,
        rustix::net::sockopt::Timeout::Recv,
        Some(REPLY_MAX),
    )?;
    // Setting the user id as root also drops the supplementary groups.
    let mut child = tokio::process::Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(false)
        .spawn()
        .map_err(|cause| io::Error::other(format!("starting the keeper: {cause}")))?;
    // Takes the keeper's exit status whenever it ends.  Dropping the child is not enough: an idle
    // runtime does not look for children that nobody waits for.  The task ends with the keeper or
    // the runtime; keepers that outlive this program get another parent.
    tokio::runtime::Handle::current().spawn(async move { child.wait().await });
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(|(_, it)| it.as_fd()).collect();
    protocol::send(&ours, job, &borrowed)?;
    let reply = protocol::receive::<Reply>(&ours).map(|(reply, _)| reply);
    reply.map_err(|cause| {
        io::Error::other(format!("the keeper did not say that it started: {cause}"))
    })
}
