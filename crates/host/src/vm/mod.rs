//! Virtual machines: QEMU under a keeper each.
//!
//! [`QemuVms`] starts keepers ([`keeper`]) and otherwise only reads what they
//! leave in `run/<id>/` and asks them over their sockets; it keeps nothing in
//! memory that a restarted server would miss.  A VM lives while the lock
//! `run/<id>/lock` is held, whoever its parent is.  It does not know which VMs
//! should exist.

mod acceleration;
mod client;
mod clock;
mod command;
pub mod keeper;
mod protocol;
mod qmp;
pub mod ring;
mod run_dir;
mod spawn;
mod start;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cumulet_domain::InstanceId;
use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use acceleration::{Acceleration, probe_acceleration, prove};

use crate::api::{Console, HostError, Result, Stop, VmSpec, VmState, Vms};
use cumulet_durable as durable;
use protocol::{Answer, CONTROL_SOCKET, Request};
use run_dir::{RunDir, Seen};

/// How long a VM may be between two states before that counts as unknown.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often is looked while something is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Until a keeper must have answered.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What a VM gets beyond the caller's patience before its processes are killed.
const STOP_EXTRA: Duration = Duration::from_secs(15);
/// Starts that may be under way at once.
const STARTS_MAX: usize = 8;

/// The program that is started as keeper.
#[derive(Debug, Clone)]
pub struct KeeperProgram {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Default for KeeperProgram {
    /// This very program, also when its file was replaced meanwhile: `cumulet keep`.
    fn default() -> Self {
        Self {
            path: "/proc/self/exe".into(),
            arguments: vec!["keep".into()],
        }
    }
}

/// What [`QemuVms`] needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    pub data_directory: PathBuf,
    pub keeper: KeeperProgram,
    /// Full path of `qemu-system-x86_64`; see [`find_qemu`].
    pub qemu: PathBuf,
    pub acceleration: Acceleration,
}

/// VMs of one data directory.
pub struct QemuVms {
    shared: Arc<Shared>,
    starts: tokio::sync::Semaphore,
    changes: Changes,
}

struct Shared {
    config: QemuConfig,
    run: PathBuf,
    consoles: PathBuf,
    inotify: OwnedFd,
}

impl QemuVms {
    /// Opens `run/` and `consoles/` in the data directory and adopts the VMs that live there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(config: QemuConfig) -> Result<Self> {
        let run = config.data_directory.join("run");
        let consoles = config.data_directory.join("consoles");
        let opening = |cause: io::Error| HostError::new("opening the directory of VMs", cause);
        for directory in [&run, &consoles] {
            durable::ensure_directory(directory, 0o700).map_err(opening)?;
        }
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|cause| opening(cause.into()))?;
        let shared = Arc::new(Shared {
            config,
            run,
            consoles,
            inotify,
        });
        let living = shared.instances()?;
        for instance in &living {
            shared.watch_lock(*instance);
        }
        tracing::debug!(count = living.len(), "found run directories");
        Ok(Self {
            shared,
            starts: tokio::sync::Semaphore::new(STARTS_MAX),
            changes: Changes::default(),
        })
    }

    async fn blocking<T, F>(&self, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T> + Send + 'static,
    {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|cause| HostError::new(doing, cause))?
    }

    async fn is_locked(&self, instance: InstanceId) -> Result<bool> {
        self.blocking("looking at a VM's lock", move |shared| {
            shared.run_dir(instance).is_locked().map_err(|cause| {
                HostError::new(format!("looking at the lock of {instance}"), cause)
            })
        })
        .await
    }

    /// Waits until keeper and QEMU are gone; false if they are not by then.
    async fn await_absence(&self, instance: InstanceId, patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        while self.is_locked(instance).await? {
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(true)
    }
}

#[async_trait]
impl Vms for QemuVms {
    async fn ensure_started(&self, spec: &VmSpec, tap: OwnedFd) -> Result<()> {
        let _turn = self
            .starts
            .acquire()
            .await
            .map_err(|cause| HostError::new("starting a VM", cause))?;
        let spec = spec.clone();
        self.blocking("starting a VM", move |shared| {
            start::start(shared, &spec, tap)
        })
        .await
    }

    async fn observe(&self, instance: InstanceId) -> Result<VmState> {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            let seen = self
                .blocking("observing a VM", move |shared| {
                    shared
                        .run_dir(instance)
                        .see()
                        .map_err(|cause| HostError::new(format!("observing {instance}"), cause))
                })
                .await?;
            match seen {
                Seen::State(state) => return Ok(state),
                Seen::Unsettled if Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Seen::Unsettled => {
                    return Err(HostError::new(
                        format!("observing {instance}"),
                        "it has been starting or ending for long",
                    ));
                }
            }
        }
    }

    async fn is_out_of_room(&self, instance: InstanceId) -> Result<bool> {
        self.blocking("observing a VM", move |shared| {
            Ok(shared.run_dir(instance).is_out_of_room())
        })
        .await
    }

    async fn changed(&self) {
        self.changes.next(&self.shared.inotify).await;
    }

    async fn reboot(&self, instance: InstanceId, patience_ms: u64) -> Result<()> {
        self.blocking("rebooting a VM", move |shared| {
            match shared.ask(instance, &Request::Reboot { patience_ms }) {
                Ok(()) => Ok(()),
                Err(cause) => match shared.run_dir(instance).is_locked() {
                    Ok(false) => Ok(()),
                    Ok(true) | Err(_) => {
                        Err(HostError::new(format!("rebooting {instance}"), cause))
                    }
                },
            }
        })
        .await
    }

    async fn ensure_stopped(&self, instance: InstanceId, how: Stop) -> Result<()> {
        if !self.is_locked(instance).await? {
            // Nobody answers for those whose directory was deleted.
            return self
                .blocking("stopping a VM", move |shared| {
                    shared.end_strays(instance).map_err(|cause| {
                        HostError::new(format!("ending what is left of {instance}"), cause)
                    })
                })
                .await;
        }
        let patience_ms = match how {
            Stop::Graceful { patience_ms } => patience_ms,
            Stop::Now => 0,
        };
        let until = Instant::now() + SETTLE_MAX;
        let asked = loop {
            let asked = self
                .blocking("stopping a VM", move |shared| {
                    Ok(shared.ask(instance, &Request::Stop { patience_ms }))
                })
                .await?;
            // A keeper that has only been started does not listen yet.
            if asked.is_ok() || Instant::now() >= until || !self.is_locked(instance).await? {
                break asked;
            }
            tokio::time::sleep(LOOK_EVERY * 4).await;
        };
        let patience = match &asked {
            Ok(()) => Duration::from_millis(patience_ms) + STOP_EXTRA,
            Err(_) => Duration::ZERO,
        };
        if self.await_absence(instance, patience).await? {
            return Ok(());
        }
        tracing::warn!(%instance, ?asked, "a VM does not stop when asked; its processes are killed");
        self.blocking("killing a VM", move |shared| {
            shared
                .run_dir(instance)
                .kill()
                .map_err(|cause| HostError::new(format!("killing the VM of {instance}"), cause))
        })
        .await?;
        if self.await_absence(instance, STOP_EXTRA).await? {
            return Ok(());
        }
        Err(HostError::new(
            format!("stopping {instance}"),
            "its processes do not end",
        ))
    }

    async fn ensure_removed(&self, instance: InstanceId) -> Result<()> {
        self.blocking("removing a VM", move |shared| {
            let run_dir = shared.run_dir(instance);
            let doing = || format!("removing the run directory of {instance}");
            if run_dir
                .is_locked()
                .map_err(|cause| HostError::new(doing(), cause))?
            {
                return Err(HostError::new(doing(), "the VM lives"));
            }
            run_dir
                .remove()
                .map_err(|cause| HostError::new(doing(), cause))
        })
        .await
    }

    async fn console(&self, instance: InstanceId) -> Result<Option<Console>> {
        self.blocking("reading a console", move |shared| {
            let reading =
                |cause| HostError::new(format!("reading the console of {instance}"), cause);
            match File::open(shared.console_path(instance)) {
                Ok(file) => ring::read(&file).map(Some).map_err(reading),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(reading(error)),
            }
        })
        .await
    }

    async fn forget_console(&self, instance: InstanceId) -> Result<()> {
        self.blocking("removing a console", move |shared| {
            durable::remove(&shared.console_path(instance)).map_err(|cause| {
                HostError::new(format!("removing the console of {instance}"), cause)
            })
        })
        .await
    }

    async fn vms(&self) -> Result<Vec<InstanceId>> {
        self.blocking("listing VMs", Shared::instances).await
    }
}

impl Shared {
    fn run_dir(&self, instance: InstanceId) -> RunDir {
        RunDir::new(&self.run, instance)
    }

    fn console_path(&self, instance: InstanceId) -> PathBuf {
        self.consoles.join(instance.to_string())
    }

    fn instances(&self) -> Result<Vec<InstanceId>> {
        let listing = |cause: io::Error| HostError::new("listing VMs", cause);
        let mut found = vec![];
        for entry in std::fs::read_dir(&self.run).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            found.extend(name.to_str().and_then(|it| it.parse::<InstanceId>().ok()));
        }
        Ok(found)
    }

    /// The lock's last descriptor closes when the VM has ended.
    fn watch_lock(&self, instance: InstanceId) {
        let path = self.run_dir(instance).lock_path();
        let watched = inotify::add_watch(&self.inotify, &path, inotify::WatchFlags::CLOSE_WRITE);
        if let Err(cause) = watched
            && cause != rustix::io::Errno::NOENT
        {
            tracing::warn!(%instance, %cause, "the end of a VM will be noticed late");
        }
    }

    /// Kills processes of a VM whose run directory was deleted under it, and waits for their end.
    fn end_strays(&self, instance: InstanceId) -> io::Result<()> {
        let run_dir = self.run_dir(instance);
        let until = Instant::now() + STOP_EXTRA;
        while run_dir.kill_strays()? {
            tracing::warn!(%instance, "a VM without its run directory was killed");
            if Instant::now() >= until {
                return Err(io::Error::other("its processes do not end"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Hands a request to a living keeper.
    fn ask(&self, instance: InstanceId, request: &Request) -> io::Result<()> {
        let run_dir = self.run_dir(instance);
        let (_directory, path) = run_dir.socket(CONTROL_SOCKET)?;
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(io::Read::take(&stream, 4096)).read_line(&mut answer)?;
        match serde_json::from_str::<Answer>(&answer)? {
            Answer::Done => Ok(()),
            Answer::Refused { detail } => Err(io::Error::other(detail)),
        }
    }
}

/// Waiting for the end of any VM.
#[derive(Default)]
struct Changes {
    /// Something was read and not reported, because the waiter was dropped.
    is_pending: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

impl Changes {
    /// The event comes a moment before the lock is free.
    const AFTER_CLOSE: Duration = Duration::from_millis(20);

    async fn next(&self, inotify: &OwnedFd) {
        let _turn = self.turn.lock().await;
        if !self.is_pending.load(Ordering::Acquire) {
            let watched = inotify.try_clone().ok().and_then(watch);
            let Some(watched) = watched else {
                // Without descriptors left, look now and then.
                tokio::time::sleep(Duration::from_secs(1)).await;
                return;
            };
            if watched.readable().await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            self.is_pending.store(true, Ordering::Release);
            let mut buffer = [0; 4096];
            while rustix::io::read(inotify, &mut buffer[..]).is_ok_and(|length| length > 0) {}
        }
        tokio::time::sleep(Self::AFTER_CLOSE).await;
        self.is_pending.store(false, Ordering::Release);
    }
}

#[expect(
    unsafe_code,
    reason = "the runtime cannot see that a descriptor stays open"
)]
fn watch(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is handed over, stays open as long as that
    // lives, and its number never changes.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.ok()
}

/// Kills what runs under an instance's user id, which no record and no directory tells of any more;
/// true if there was anything.  Blocking.
///
/// # Errors
/// `/proc` cannot be read, or the id is no instance's.
pub fn kill_unrecorded(uid: u32) -> Result<bool> {
    let killed = run_dir::kill_all_of(uid);
    killed
        .map(|count| count > 0)
        .map_err(|cause| HostError::new(format!("ending the processes of user {uid}"), cause))
}

/// The QEMU of this host, by the usual places.
pub fn find_qemu() -> Option<PathBuf> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory| directory.join(NAME))
        .find(|it| it.is_file())
}

/// The newest machine type with PCI Express, by its full name (`pc-q35-7.2`), so that instances
/// keep theirs when QEMU is upgraded.
///
/// # Errors
/// If QEMU cannot be run or offers none.
pub fn default_machine(qemu: &Path) -> Result<String> {
    let output = Command::new(qemu)
        .args(["-machine", "help"])
        // Nothing of ours is its business.
        .env_clear()
        .output()
        .map_err(|cause| HostError::new("asking QEMU for its machine types", cause))?;
    find_machine(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        HostError::new(
            "asking QEMU for its machine types",
            "it offers no machine q35",
        )
    })
}

fn find_machine(listing: &str) -> Option<String> {
    let line = listing.lines().find(|it| it.starts_with("q35 "))?;
    let (_, rest) = line.split_once("(alias of ")?;
    Some(rest.split_once(')')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_named_in_full() {
        let listing = "Supported machines are:\nmicrovm  microvm (i386)\n\
            q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)\n\
            pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)\n";
        assert_eq!(find_machine(listing).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(find_machine("none"), None);
    }
}
