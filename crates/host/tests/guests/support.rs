//! What the tests of guests share: an image, taps, a data directory, waiting.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cumulet_domain::{Digest, InstanceId, KernelId};
use cumulet_host::api::{Boot, DiskSpec, Disks, Layout, Mac, VmSpec, VmState, Vms};
use cumulet_host::disks::LocalDisks;
use cumulet_host::kernel::{KernelFiles, KernelStore};
use cumulet_host::vm::{Acceleration, QemuConfig, QemuVms, default_machine, find_qemu};

/// Until a guest must have done what is awaited; generous, since hosts may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const IMAGE: Digest = Digest([0x5a; 32]);

const LAYOUT: Layout = Layout::Classic {
    ephemeral_mib: 64,
    swap_mib: 16,
};

/// The guest's own init.  The comment of its public key says what it shall do.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t ext3 /dev/sda2 /mnt
$B echo "guest: root is $($B awk '$2 == "/" && $1 != "rootfs" {print $1, $4}' /proc/mounts | $B cut -d, -f1)"
$B echo "guest: key is $($B cat /mnt/openssh_id.pub)"
$B echo "guest: uuid is $($B cat /sys/class/dmi/id/product_uuid)"
$B echo "guest: links are $($B ls /sys/class/net | $B tr '\n' ' ')"
$B mkswap /dev/sda3 >/dev/null && $B swapon /dev/sda3 && $B echo "guest: swap works"
case "$($B cat /mnt/openssh_id.pub)" in
*" off") $B poweroff -f ;;
*" again")
    if [ ! -f /mnt/again ]; then
        $B touch /mnt/again
        $B umount /mnt
        $B reboot -f
    fi
    $B echo "guest: again"
    ;;
*" panic") $B echo c >/proc/sysrq-trigger ;;
*" idle")
    for event in /dev/input/event*; do
        ($B head -c 1 $event >/dev/null; $B echo "guest: the button"; $B poweroff -f) &
    done
    ;;
esac
$B echo "guest: ready"
while :; do $B sleep 60; done
"#;

/// Made once for all tests.
pub(crate) struct Place {
    pub(crate) kernel: KernelFiles,
    pub(crate) image: PathBuf,
    _directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn prepare() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let kernel = crate::kernel::built();
        // Before any thread exists: all that follows lives in a network of its own.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let directory = tempfile::tempdir().expect("a directory");
        let image = directory.path().join("image");
        make_image(directory.path(), &image);
        Self {
            kernel,
            image,
            _directory: directory,
        }
    }
}

fn make_image(directory: &Path, image: &Path) {
    let root = directory.join("root");
    for name in ["bin", "sbin", "dev", "proc", "sys", "mnt"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is installed");
    let init = root.join("sbin/init");
    fs::write(&init, INIT).expect("a file");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("its mode");
    File::create(image)
        .and_then(|file| file.set_len(16 << 20))
        .expect("a file");
    let status = Command::new("mke2fs")
        .args(["-q", "-t", "ext3", "-d"])
        .args([&root, image])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .status()
        .expect("mke2fs runs");
    assert!(status.success());
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A data directory with the image stored, and one instance to be.
pub(crate) struct Cloud {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) data: tempfile::TempDir,
    pub(crate) spec: VmSpec,
}

impl Cloud {
    /// `task` is what the guest shall do: idle, off, panic, again (reboot once) or deaf.
    pub(crate) fn new(place: &Place, task: &str) -> Self {
        Self::without_disk(place, task).with_disk(place)
    }

    pub(crate) fn without_disk(place: &Place, task: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A data directory's name may be long; sockets' names may not.
        let data = tempfile::Builder::new()
            .prefix(&"long-".repeat(24))
            .tempdir()
            .expect("a directory");
        let kernel = KernelId::from_random(1);
        KernelStore::open(data.path())
            .and_then(|store| store.import(kernel, &place.kernel.kernel, &place.kernel.ramdisk))
            .expect("the kernel is stored");
        let instance =
            InstanceId::from_random(u128::from(std::process::id()) << 8 | u128::from(number));
        let disk = DiskSpec {
            instance,
            image: IMAGE,
            layout: LAYOUT,
        };
        let qemu = find_qemu().expect("QEMU is installed");
        let spec = VmSpec {
            instance,
            uid: 0x1000_0000 | (std::process::id() & 0xffff) << 8 | number,
            vcpus: 1,
            memory_mib: 192,
            machine: default_machine(&qemu).expect("QEMU has machines"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            disk,
            boot: Boot::Kernel {
                kernel,
                openssh_key: Some(format!("ssh-rsa AAAA {task}")),
            },
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            runtime,
            data,
            spec,
        }
    }

    /// Stores the tests' image and makes the instance's disk.
    fn with_disk(self, place: &Place) -> Self {
        let disks = self.disks();
        let stored = self.data.path().join(format!("images/{IMAGE}"));
        fs::copy(&place.image, stored).expect("the image is stored");
        self.runtime
            .block_on(disks.ensure_disk(&self.spec.disk))
            .expect("a disk");
        self
    }

    pub(crate) fn disks(&self) -> LocalDisks {
        LocalDisks::open(self.data.path()).expect("disks")
    }

    /// A server that has just come up.
    pub(crate) fn server(&self) -> QemuVms {
        let _inside = self.runtime.enter();
        server(self.data.path())
    }

    /// A server in a process of its own that starts the instance; to be killed.
    pub(crate) fn server_process(&self) -> std::process::Child {
        Command::new("/proc/self/exe")
            .arg(START_WORD)
            .arg(self.data.path())
            .arg(serde_json::to_string(&self.spec).expect("a spec is plain data"))
            .spawn()
            .expect("a process")
    }

    pub(crate) fn start(&self, server: &QemuVms) {
        self.runtime
            .block_on(server.ensure_started(&self.spec, tap()))
            .expect("the guest starts");
    }

    pub(crate) fn state(&self, server: &QemuVms) -> VmState {
        self.runtime
            .block_on(server.observe(self.spec.instance))
            .expect("the guest is observed")
    }

    pub(crate) fn console(&self, server: &QemuVms) -> String {
        let console = self
            .runtime
            .block_on(server.console(self.spec.instance))
            .expect("the console is read")
            .expect("there is a console");
        String::from_utf8_lossy(&console.bytes).into_owned()
    }

    /// Waits until the guest has printed `text` so many times.
    pub(crate) fn await_console(&self, server: &QemuVms, text: &str, times: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let console = self.console(server);
            if console.matches(text).count() >= times {
                return;
            }
            let state = self.state(server);
            assert!(
                Instant::now() < until && matches!(state, VmState::Running { .. }),
                "no {text:?} ({times} times) on the console:\n{console}\n{state:?}",
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the guest's end by the server's own notice.
    pub(crate) fn await_end(&self, server: &QemuVms) -> VmState {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                loop {
                    let state = server.observe(self.spec.instance).await.expect("observed");
                    if matches!(state, VmState::Absent { .. }) {
                        return state;
                    }
                    server.changed().await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("no end; the console:\n{}", self.console(server)))
        })
    }

    /// Ids of keeper and QEMU.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_of(self.spec.uid)
    }

    pub(crate) fn await_no_processes(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            assert!(Instant::now() < until, "processes are left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn server(data: &Path) -> QemuVms {
    QemuVms::open(QemuConfig {
        data_directory: data.to_owned(),
        keeper: cumulet_host::vm::KeeperProgram::default(),
        qemu: find_qemu().expect("QEMU is installed"),
        acceleration: Acceleration::Emulated {
            reason: "for the test".into(),
        },
    })
    .expect("a server")
}

/// What [`Cloud::server_process`] is started with.
pub(crate) const START_WORD: &str = "start-in-this-process";

pub(crate) fn start_in_this_process(data: &Path, spec: &str) {
    let spec: VmSpec = serde_json::from_str(spec).expect("a spec");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let server = server(data);
        server
            .ensure_started(&spec, tap())
            .await
            .expect("the guest starts");
        std::future::pending::<()>().await;
    });
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for pid in self.processes() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn processes_of(uid: u32) -> Vec<u32> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        if status_numbers(pid, "Uid").is_some_and(|ids| ids.contains(&uid)) {
            found.push(pid);
        }
    }
    found
}

/// The numbers of a line in `/proc/<pid>/status`.
pub(crate) fn status_numbers(pid: u32, line: &str) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status
        .lines()
        .find_map(|it| it.strip_prefix(line)?.strip_prefix(':'))?;
    Some(
        rest.split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect(),
    )
}

/// A tap of this test's own network; it goes with its last descriptor.
#[expect(unsafe_code, reason = "a tap is made by an ioctl")]
pub(crate) fn tap() -> OwnedFd {
    nix::ioctl_write_int!(tun_set_interface, b'T', 202);
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("the tun device");
    let mut request = [0_u8; 40];
    request[..9].copy_from_slice(b"guest%d\0\0");
    let flags = u16::try_from(nix::libc::IFF_TAP | nix::libc::IFF_NO_PI | nix::libc::IFF_VNET_HDR)
        .expect("flags of 16 bits");
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq` of 40 bytes at the address, which is that
    // of a live array of 40 bytes.
    unsafe { tun_set_interface(file.as_raw_fd(), request.as_mut_ptr() as nix::libc::c_ulong) }
        .expect("a tap");
    file.into()
}
