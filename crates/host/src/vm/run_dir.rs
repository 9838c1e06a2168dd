//! `run/<id>/`: what there is of an instance's VM on this host.
//!
//! ```text
//! run/<id>/lock         held by keeper and QEMU as long as either lives
//! run/<id>/vm/          the keeper's directory, owned by the instance's user id
//!   keeper.json           the guest was started
//!   exit.json             how it ended
//!   out-of-room           there while the guest is paused for want of room on the host's disk
//!   keeper.sock qmp.sock  the keeper and QEMU listen here
//! consoles/<id>         the console's ring, kept when the rest is gone
//! ```
//!
//! `run/` and `run/<id>/` are the server's alone, so that the lock is what the
//! server made.  What lies in `vm/` was written by processes that serve a
//! hostile guest: it is opened without following links, bounded, and believed
//! only as far as its shape.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cumulet_domain::{InstanceId, Timestamp};
use rustix::fs::FlockOperation;

use super::protocol::{
    EXIT_FILE, ExitRecord, KEEPER_FILE, KeeperRecord, MESSAGE_BYTES_MAX, OUT_OF_ROOM_FILE, VERSION,
};
use crate::api::{Exit, ExitCause, VmState};
use cumulet_durable as durable;

/// Instances' user ids begin here; nothing below is ever signalled.
const UID_MIN: u32 = 0x1000_0000;

#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    path: PathBuf,
}

/// What the files say; `Unsettled` while a VM is being started or let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    State(VmState),
    Unsettled,
}

impl RunDir {
    pub(crate) fn new(run: &Path, instance: InstanceId) -> Self {
        Self {
            path: run.join(instance.to_string()),
        }
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(crate) fn vm(&self) -> PathBuf {
        self.path.join("vm")
    }

    /// Takes the lock for a new VM; `None` if a VM lives.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        durable::make_directory(&self.path, 0o700)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.lock_path())?;
        // Somebody who only looks holds it for a moment.
        for _ in 0..50 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Whether keeper or QEMU live.
    pub(crate) fn is_locked(&self) -> io::Result<bool> {
        let file = match File::open(self.lock_path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// An empty `vm/` for the user id, without anything of an earlier run.
    pub(crate) fn renew_vm(&self, uid: u32, gid: u32) -> io::Result<File> {
        let vm = self.vm();
        match fs::remove_dir_all(&vm) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        durable::make_directory(&vm, 0o700)?;
        std::os::unix::fs::chown(&vm, Some(uid), Some(gid))?;
        File::open(vm)
    }

    pub(crate) fn see(&self) -> io::Result<Seen> {
        let is_locked = self.is_locked()?;
        // Read after the lock was looked at: whoever let go of it has written all.
        let keeper = self.keeper()?;
        let exit = self.exit()?;
        Ok(match (is_locked, keeper, exit) {
            (true, Some(keeper), None) => Seen::State(VmState::Running {
                since: keeper.since,
            }),
            (true, _, _) => Seen::Unsettled,
            (false, _, Some(exit)) => Seen::State(VmState::Absent { exit: Some(exit) }),
            (false, Some(keeper), None) => Seen::State(VmState::Absent {
                exit: Some(Exit {
                    at: keeper.since,
                    cause: ExitCause::Crashed {
                        detail: "keeper and QEMU ended without a word".into(),
                    },
                }),
            }),
            (false, None, None) => Seen::State(VmState::Absent { exit: None }),
        })
    }

    pub(crate) fn is_out_of_room(&self) -> bool {
        fs::symlink_metadata(self.vm().join(OUT_OF_ROOM_FILE)).is_ok()
    }

    fn keeper(&self) -> io::Result<Option<KeeperRecord>> {
        let Some(text) = read_untrusted(&self.vm().join(KEEPER_FILE))? else {
            return Ok(None);
        };
        // An unreadable record still says that the guest was started.
        Ok(Some(serde_json::from_slice(&text).unwrap_or(
            KeeperRecord {
                version: VERSION,
                pid: 0,
                qemu_pid: 0,
                since: Timestamp::EPOCH,
            },
        )))
    }

    fn exit(&self) -> io::Result<Option<Exit>> {
        let Some(text) = read_untrusted(&self.vm().join(EXIT_FILE))? else {
            return Ok(None);
        };
        let read = serde_json::from_slice::<ExitRecord>(&text);
        Ok(Some(read.map_or_else(
            |cause| Exit {
                at: Timestamp::EPOCH,
                cause: ExitCause::Crashed {
                    detail: format!("the exit record is unreadable: {cause}"),
                },
            },
            |record| record.exit,
        )))
    }

    /// A short path to a socket in `vm/`, valid while the returned directory is open; the real one
    /// may be longer than a socket's address can be.
    pub(crate) fn socket(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let directory = File::open(self.vm())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok((directory, path))
    }

    /// Kills every process of the instance's user id: no two instances share one.
    pub(crate) fn kill(&self) -> io::Result<()> {
        kill_all_of(fs::metadata(self.vm())?.uid()).map(drop)
    }

    /// Kills processes that were started in this directory and are not to be reached any more,
    /// since somebody deleted it: without their lock nothing else tells of them.  True if there
    /// were any.
    pub(crate) fn kill_strays(&self) -> io::Result<bool> {
        let mut found = false;
        for pid in self.strays()? {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else {
                continue;
            };
            let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
            if let Ok(pidfd) = opened
                && self.strays()?.contains(&pid.as_raw_nonzero().get())
            {
                found = true;
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
        }
        Ok(found)
    }

    /// Processes of instances whose working directory is, or was, `vm/`.
    pub(crate) fn strays(&self) -> io::Result<Vec<i32>> {
        let vm = match self.path.parent().map(fs::canonicalize) {
            Some(Ok(run)) => run
                .join(self.path.file_name().unwrap_or_default())
                .join("vm"),
            Some(Err(error)) => return Err(error),
            None => return Ok(vec![]),
        };
        let mut deleted = vm.clone().into_os_string();
        deleted.push(" (deleted)");
        let mut found = vec![];
        for (pid, process) in processes()? {
            // A process that ended meanwhile has no directory any more.
            let Ok(directory) = fs::read_link(process.join("cwd")) else {
                continue;
            };
            let is_here = directory == vm || directory.as_os_str() == deleted;
            if is_here && real_uid(&process).is_some_and(|uid| uid >= UID_MIN) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Kills every process of an instance's user id; how many there were.
pub(crate) fn kill_all_of(uid: u32) -> io::Result<usize> {
    if uid < UID_MIN {
        return Err(io::Error::other(format!("{uid} is no instance's user id")));
    }
    let mut count = 0;
    for pid in processes_of(uid)? {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else {
            continue;
        };
        let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        // The number may have gone to another process: look again behind the descriptor.
        if let Ok(pidfd) = opened
            && processes_of(uid)?.contains(&pid.as_raw_nonzero().get())
        {
            count += 1;
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
    }
    Ok(count)
}

/// Processes that run under a user id now.
fn processes_of(uid: u32) -> io::Result<Vec<i32>> {
    let all = processes()?.into_iter();
    Ok(all
        .filter(|(_, process)| real_uid(process) == Some(uid))
        .map(|(pid, _)| pid)
        .collect())
}

/// All processes with their directories in `/proc`.
fn processes() -> io::Result<Vec<(i32, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) {
            found.push((pid, entry.path()));
        }
    }
    Ok(found)
}

fn real_uid(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A small regular file that its owner may have replaced by anything.
fn read_untrusted(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((nix::libc::O_NOFOLLOW) | nix::libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link where a file belongs: it counts as a record that cannot be read.
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => return Ok(Some(vec![])),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(Some(vec![]));
    }
    let mut bytes = vec![];
    file.take(MESSAGE_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_happened() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir::new(directory.path(), InstanceId::from_random(1));
        let absent = |exit| Seen::State(VmState::Absent { exit });
        assert_eq!(run.see().unwrap(), absent(None));

        let lock = run.lock().unwrap().unwrap();
        fs::create_dir(run.vm()).unwrap();
        assert_eq!(run.see().unwrap(), Seen::Unsettled);
        fs::write(
            run.vm().join(KEEPER_FILE),
            r#"{"version":1,"pid":1,"qemu_pid":2,"since":9}"#,
        )
        .unwrap();
        let since = Timestamp(9);
        assert_eq!(run.see().unwrap(), Seen::State(VmState::Running { since }));
        assert!(run.lock().unwrap().is_none(), "a VM lives");

        drop(lock);
        let Seen::State(VmState::Absent { exit: Some(exit) }) = run.see().unwrap() else {
            panic!("not ended");
        };
        assert!(matches!(exit.cause, ExitCause::Crashed { .. }));
        fs::write(
            run.vm().join(EXIT_FILE),
            r#"{"version":1,"at":12,"cause":"guest_shutdown"}"#,
        )
        .unwrap();
        assert_eq!(
            run.see().unwrap(),
            absent(Some(Exit {
                at: Timestamp(12),
                cause: ExitCause::GuestShutdown
            }))
        );
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(read_untrusted(&link).unwrap(), Some(vec![]));
        assert_eq!(read_untrusted(directory.path()).unwrap(), Some(vec![]));
    }
}
