//! A guest's life: boot, adoption, reboot, every kind of end.

use std::fs;

use cumulet_host::api::{Boot, ExitCause, Stop, VmState, Vms};

use crate::support::{Cloud, Place, status_numbers, tap};

fn cause(state: &VmState) -> &ExitCause {
    match state {
        VmState::Absent { exit: Some(exit) } => &exit.cause,
        VmState::Absent { exit: None } | VmState::Running { .. } => panic!("no end: {state:?}"),
    }
}

pub(crate) fn boots_is_adopted_rebooted_and_stopped(place: &Place) {
    let cloud = Cloud::new(place, "idle");
    let id = cloud.spec.instance;
    let server = cloud.server();
    assert_eq!(cloud.state(&server), VmState::Absent { exit: None });
    cloud.start(&server);
    let before = cloud.state(&server);
    assert!(matches!(before, VmState::Running { .. }));
    // Repeating changes nothing.
    cloud.start(&server);
    assert_eq!(cloud.processes().len(), 2);

    cloud.await_console(&server, "guest: ready", 1);
    let console = cloud.console(&server);
    let uuid = format!("guest: uuid is ec2{}", &id.to_string()[2..7]);
    for line in [
        "guest: root is /dev/sda1 ro",
        "guest: key is ssh-rsa AAAA idle",
        "guest: links are eth0 lo",
        "guest: swap works",
        uuid.as_str(),
    ] {
        assert!(console.contains(line), "no {line:?} in:\n{console}");
    }
    processes_have_no_rights(&cloud);

    // The server goes and comes back.
    drop(server);
    let server = cloud.server();
    assert_eq!(cloud.state(&server), before);
    assert_eq!(cloud.runtime.block_on(server.vms()).unwrap(), [id]);
    assert!(cloud.runtime.block_on(server.ensure_removed(id)).is_err());

    cloud
        .runtime
        .block_on(server.reboot(id, 120_000))
        .expect("the reboot is handed over");
    cloud.await_console(&server, "guest: the button", 1);
    cloud.await_console(&server, "guest: ready", 2);
    assert_eq!(cloud.state(&server), before);

    let patience_ms = 120_000;
    cloud
        .runtime
        .block_on(server.ensure_stopped(id, Stop::Graceful { patience_ms }))
        .expect("the guest stops");
    let ended = cloud.await_end(&server);
    assert_eq!(cause(&ended), &ExitCause::Requested);
    assert!(cloud.console(&server).matches("guest: the button").count() >= 2);
    cloud.await_no_processes();

    // Repeating is fine, before and after the removal.
    for _ in 0..2 {
        cloud
            .runtime
            .block_on(server.ensure_stopped(id, Stop::Now))
            .expect("nothing to stop");
        cloud
            .runtime
            .block_on(server.ensure_removed(id))
            .expect("the directory goes");
        cloud
            .runtime
            .block_on(server.reboot(id, 1))
            .expect("nothing to reboot");
    }
    assert_eq!(cloud.state(&server), VmState::Absent { exit: None });
    assert!(cloud.console(&server).contains("guest: ready"));
    cloud
        .runtime
        .block_on(server.forget_console(id))
        .expect("the console goes");
    assert_eq!(cloud.runtime.block_on(server.console(id)).unwrap(), None);
}

/// Keeper and QEMU: the instance's user id, no other groups, nothing in the environment, and no
/// descriptor that they do not need.
fn processes_have_no_rights(cloud: &Cloud) {
    let uid = cloud.spec.uid;
    let pids = cloud.processes();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        assert_eq!(status_numbers(pid, "Uid").unwrap(), [uid; 4]);
        assert_eq!(status_numbers(pid, "Gid").unwrap(), [uid; 4]);
        assert_eq!(status_numbers(pid, "Groups").unwrap(), [0; 0]);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(environment, b"");
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        let seccomp = status_numbers(pid, "Seccomp").unwrap();
        let mut files = vec![];
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            files.push(fs::read_link(entry.unwrap().path()).unwrap());
        }
        let count = |end: &str| {
            let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
            files.iter().filter(|it| text(it).contains(end)).count()
        };
        assert_eq!(count("/lock"), 1, "{files:?}");
        if name.starts_with("qemu") {
            assert_eq!(seccomp, [2]);
            assert_eq!(count("/consoles/"), 0, "{files:?}");
            assert!(!files.iter().any(|it| it.ends_with("vm")), "{files:?}");
            assert!(count("/disks/") >= 1 && count("/overlays/") >= 1);
        } else {
            assert_eq!(count("/disks/") + count("/overlays/") + count("tun"), 0);
            assert_eq!(count("/consoles/"), 1, "{files:?}");
            // Three of its own, lock, console, QEMU's two pipes, QMP, pidfd, control socket, signals.
            assert!(files.len() <= 12, "{files:?}");
        }
    }
}

pub(crate) fn deaf_guest_is_reset_and_unplugged(place: &Place) {
    let cloud = Cloud::new(place, "deaf");
    let id = cloud.spec.instance;
    let server = cloud.server();
    cloud.start(&server);
    cloud.await_console(&server, "guest: ready", 1);
    cloud
        .runtime
        .block_on(server.reboot(id, 500))
        .expect("the reboot is handed over");
    cloud.await_console(&server, "guest: ready", 2);
    cloud
        .runtime
        .block_on(server.ensure_stopped(id, Stop::Graceful { patience_ms: 500 }))
        .expect("the guest is unplugged");
    assert_eq!(cause(&cloud.state(&server)), &ExitCause::Requested);

    // The same instance again, on its own disk; its console goes on.
    cloud.start(&server);
    assert!(matches!(cloud.state(&server), VmState::Running { .. }));
    cloud.await_console(&server, "guest: ready", 3);
    cloud
        .runtime
        .block_on(server.ensure_stopped(id, Stop::Now))
        .expect("the guest stops");
    assert_eq!(cause(&cloud.state(&server)), &ExitCause::Requested);
}

pub(crate) fn powers_off_unwatched(place: &Place) {
    let cloud = Cloud::new(place, "off");
    let server = cloud.server();
    cloud.start(&server);
    drop(server);
    cloud.await_no_processes();
    let server = cloud.server();
    assert_eq!(cause(&cloud.state(&server)), &ExitCause::GuestShutdown);
}

pub(crate) fn reboots_itself(place: &Place) {
    let cloud = Cloud::new(place, "again");
    let server = cloud.server();
    cloud.start(&server);
    let before = cloud.state(&server);
    cloud.await_console(&server, "guest: again", 1);
    assert_eq!(cloud.state(&server), before);
}

pub(crate) fn panics(place: &Place) {
    let cloud = Cloud::new(place, "panic");
    let server = cloud.server();
    cloud.start(&server);
    assert_eq!(cause(&cloud.await_end(&server)), &ExitCause::GuestPanic);
    assert!(cloud.console(&server).contains("Kernel panic"));
}

pub(crate) fn killed_processes_are_crashes(place: &Place) {
    for victim in ["qemu", "keeper"] {
        let cloud = Cloud::new(place, "deaf");
        let server = cloud.server();
        cloud.start(&server);
        let pid = cloud
            .processes()
            .into_iter()
            .find(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
                name.starts_with("qemu") == (victim == "qemu")
            })
            .expect("both run");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let ended = cloud.await_end(&server);
        let ExitCause::Crashed { detail } = cause(&ended) else {
            panic!("{ended:?}");
        };
        if victim == "qemu" {
            assert!(detail.contains("signal 9"), "{detail}");
        }
        cloud.await_no_processes();
    }
}

/// Killed at several moments: whatever it had done, the next server makes it one whole guest.
pub(crate) fn server_killed_while_starting(place: &Place) {
    let cloud = Cloud::new(place, "deaf");
    let id = cloud.spec.instance;
    for moment_ms in [0, 10, 20, 40, 60, 80, 120, 160, 240, 400, 800] {
        let mut process = cloud.server_process();
        std::thread::sleep(std::time::Duration::from_millis(moment_ms));
        process.kill().expect("it is our child");
        process.wait().expect("it is our child");

        let server = cloud.server();
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        loop {
            // As the engine does: look, start, look again; an error is "unknown".
            let looked = cloud.runtime.block_on(server.observe(id));
            if matches!(looked, Ok(VmState::Running { .. })) {
                break;
            }
            assert!(std::time::Instant::now() < until, "{looked:?}");
            let _ = cloud
                .runtime
                .block_on(server.ensure_started(&cloud.spec, tap()));
        }
        // A keeper that got no job from the killed server takes a moment to leave.
        while cloud.processes().len() != 2 {
            assert!(std::time::Instant::now() < until, "after {moment_ms} ms");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        cloud
            .runtime
            .block_on(server.ensure_stopped(id, Stop::Now))
            .expect("the guest stops");
        cloud.await_no_processes();
        assert_eq!(cause(&cloud.state(&server)), &ExitCause::Requested);
        // Half the rounds begin with the leavings of the one before.
        if moment_ms % 20 == 0 {
            cloud
                .runtime
                .block_on(server.ensure_removed(id))
                .expect("the directory goes");
        }
    }
}

pub(crate) fn refused_start_leaves_nothing(place: &Place) {
    let mut cloud = Cloud::new(place, "idle");
    let server = cloud.server();
    "pc-q35-0.1".clone_into(&mut cloud.spec.machine);
    let error = cloud
        .runtime
        .block_on(server.ensure_started(&cloud.spec, tap()))
        .expect_err("no such machine");
    assert!(
        error.to_string().contains("unsupported machine type"),
        "{error}"
    );
    assert!(!error.user_reason.contains("machine"));
    cloud.await_no_processes();
    assert_eq!(cloud.state(&server), VmState::Absent { exit: None });

    cloud.spec.boot = Boot::Kernel {
        kernel: cumulet_domain::KernelId::from_random(99),
        openssh_key: None,
    };
    let error = cloud
        .runtime
        .block_on(server.ensure_started(&cloud.spec, tap()))
        .expect_err("no such kernel");
    assert!(!error.is_retryable);
    assert_eq!(cloud.state(&server), VmState::Absent { exit: None });
}
