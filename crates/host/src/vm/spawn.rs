//! From the keeper to QEMU: descriptors and the child process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

/// Nothing that the server had open by mistake lives as long as a guest.
pub(super) fn close_inherited() -> io::Result<()> {
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|it| *it > 2) {
        // The directory's own descriptor is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

pub(super) fn take(named: &mut Vec<(String, OwnedFd)>, name: &str) -> io::Result<OwnedFd> {
    let at = named.iter().position(|(it, _)| it == name);
    at.map(|at| named.swap_remove(at).1)
        .ok_or_else(|| io::Error::other(format!("the server sent no descriptor {name}")))
}

#[expect(
    unsafe_code,
    reason = "the signal at the parent's death can only be asked for between fork and exec"
)]
pub(super) fn start_qemu(
    program: &str,
    arguments: &[String],
    named: &[(String, OwnedFd)],
) -> io::Result<Child> {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(fill_in(argument, named)?);
    }
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the closure runs in the forked child of a single-threaded process and makes one
    // system call; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(io::Error::from)
        });
    }
    command
        .spawn()
        .map_err(|cause| io::Error::other(format!("starting {program}: {cause}")))
}

/// Puts descriptors' numbers for `%name%`.
fn fill_in(argument: &str, named: &[(String, OwnedFd)]) -> io::Result<String> {
    let mut filled = argument.to_owned();
    for (name, descriptor) in named {
        filled = filled.replace(&format!("%{name}%"), &descriptor.as_raw_fd().to_string());
    }
    if filled.contains('%') {
        return Err(io::Error::other(format!(
            "no descriptor for {argument:?} was sent"
        )));
    }
    Ok(filled)
}
