//! `cumulet doctor`: what this machine can do, and what to do about the rest.

use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::output::say;
use crate::config::{Compute, Settings};
use crate::{data_dir, machine, surroundings};

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// For which way of computing; qemu when not given.
    #[arg(long, value_enum)]
    compute: Option<Compute>,
}

impl DoctorArgs {
    /// Those that are settings.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        self.compute
            .map(|it| ("compute", it.as_str().to_owned()))
            .into_iter()
            .collect()
    }
}

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Ok,
    /// `serve` works, with less.
    Warning,
    /// `serve` would refuse.
    Blocker,
}

/// One line.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    weight: Weight,
    /// What was found, or what to do.
    text: String,
}

fn ok(what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        what,
        weight: Weight::Ok,
        text: text.into(),
    }
}

fn warning(what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        what,
        weight: Weight::Warning,
        text: text.into(),
    }
}

fn blocker(what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        what,
        weight: Weight::Blocker,
        text: text.into(),
    }
}

pub(crate) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let settings = &context.config.settings;
    let mut findings = vec![data(settings), disk_space(settings), clients()];
    if settings.compute == Compute::Qemu {
        findings.extend(for_machines(settings));
    }
    let is_blocked = findings.iter().any(|it| it.weight == Weight::Blocker);
    if context.output.is_json {
        let rows: Vec<Value> = findings
            .iter()
            .map(|it| json!({ "what": it.what, "result": word(it.weight), "text": it.text }))
            .collect();
        context.output.print(&Value::Array(rows));
    } else {
        for finding in &findings {
            say(format_args!(
                "{:8} {:13} {}\n",
                word(finding.weight),
                finding.what,
                finding.text
            ));
        }
    }
    Ok(if is_blocked {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn word(weight: Weight) -> &'static str {
    match weight {
        Weight::Ok => "ok",
        Weight::Warning => "warning",
        Weight::Blocker => "missing",
    }
}

fn for_machines(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![root(), memory(settings)];
    findings.push(qemu());
    findings.push(tool("nftables", "nft", "--version", "nftables"));
    findings.push(tool("iproute2", "ip", "-V", "iproute2"));
    findings.push(tool("e2fsprogs", "mke2fs", "-V", "e2fsprogs"));
    findings.push(device("tun", Path::new("/dev/net/tun"), "modprobe tun"));
    findings.push(namespaces());
    findings.push(forwarding());
    findings.extend(
        machine::findings(settings)
            .into_iter()
            .map(|(what, is_ok, text)| {
                if is_ok {
                    ok(what, text)
                } else {
                    warning(what, text)
                }
            }),
    );
    findings
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        ok("root", "taps, namespaces and user ids can be made")
    } else {
        blocker("root", "virtual machines need root: run with sudo")
    }
}

fn data(settings: &Settings) -> Finding {
    let path = &settings.data_dir;
    if let Err(error) = data_dir::look(path) {
        return blocker("data", format!("{error:#}"));
    }
    let existing = path
        .ancestors()
        .find(|it| it.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        Ok(()) => ok("data", path.display().to_string()),
        Err(cause) => blocker(
            "data",
            format!(
                "{} cannot be written to ({cause}): give another --data-dir",
                existing.display()
            ),
        ),
    }
}

/// Room that a cloud with one small image needs.
const ROOM_MIB: u64 = 2 * 1024;

fn disk_space(settings: &Settings) -> Finding {
    let existing = settings
        .data_dir
        .ancestors()
        .find(|it| it.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let free_mib = found.f_bavail.saturating_mul(found.f_frsize) / (1024 * 1024);
            if free_mib < ROOM_MIB {
                warning(
                    "disk",
                    format!("{free_mib} MiB are free: images and disks want {ROOM_MIB} or more"),
                )
            } else {
                ok("disk", format!("{free_mib} MiB are free"))
            }
        }
        Err(cause) => warning("disk", format!("cannot be asked: {cause}")),
    }
}

fn memory(settings: &Settings) -> Finding {
    let all = surroundings::memory_mib();
    let given = settings.memory_mib(all);
    if given < 512 {
        warning(
            "memory",
            format!(
                "{given} MiB of {all} are left for instances: even a t2.nano does not fit; lower instances.memory_reserve_mib"
            ),
        )
    } else {
        ok("memory", format!("{given} MiB of {all} are for instances"))
    }
}

/// First line that a program prints, on stdout or stderr.
fn first_line(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let bytes = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8_lossy(&bytes);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn tool(what: &'static str, program: &str, argument: &str, package: &str) -> Finding {
    match first_line(program, argument) {
        Some(line) => ok(what, line),
        None => blocker(
            what,
            format!("{program} is missing: apt-get install {package}"),
        ),
    }
}

fn qemu() -> Finding {
    const PROGRAM: &str = "qemu-system-x86_64";
    let Some(line) = first_line(PROGRAM, "--version") else {
        return blocker(
            "qemu",
            format!("{PROGRAM} is missing: apt-get install qemu-system-x86"),
        );
    };
    let major = line
        .split_whitespace()
        .find_map(|word| word.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(major) if major >= 7 => ok("qemu", line),
        _ => blocker("qemu", format!("{line} is too old: 7.2 or newer is needed")),
    }
}

fn device(what: &'static str, path: &Path, mend: &str) -> Finding {
    if path.exists() {
        ok(what, path.display().to_string())
    } else {
        blocker(what, format!("{} is missing: {mend}", path.display()))
    }
}

fn namespaces() -> Finding {
    if Path::new("/proc/self/ns/net").exists() {
        ok("namespaces", "network namespaces")
    } else {
        blocker(
            "namespaces",
            "the kernel has no network namespaces (CONFIG_NET_NS)",
        )
    }
}

/// Whether somebody else's rules drop what is forwarded.
fn forwarding() -> Finding {
    let blockers = match cumulet_host::net::forwarding_blockers() {
        Ok(blockers) => blockers,
        Err(_) => return warning("forwarding", "nft cannot list its chains; run as root"),
    };
    if blockers.is_empty() {
        return ok("forwarding", "nobody else's rules drop it");
    }
    let names = blockers.join(", ");
    let mend = if names.contains("firewalld") {
        "with firewalld: a policy that lets the cloud's link forward"
    } else {
        "with Docker: iptables -I DOCKER-USER -j ACCEPT; with ufw: ufw default allow routed"
    };
    warning(
        "forwarding",
        format!(
            "{names} drops what is forwarded, so that guests reach no other network; accept the guests' range there ({mend})"
        ),
    )
}

/// Oldest botocore that reads `AWS_ENDPOINT_URL` (1.31.0, July 2023).
const ENDPOINT_URL_SINCE: (u32, u32) = (1, 31);

/// Clients that would ignore `AWS_ENDPOINT_URL` and go to the real EC2.
fn clients() -> Finding {
    let found = Command::new("python3")
        .args(["-c", "import botocore; print(botocore.__version__)"])
        .output();
    let version = match found {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => return ok("clients", "no boto3 in the system's Python"),
    };
    let mut numbers = version
        .split('.')
        .filter_map(|word| word.parse::<u32>().ok());
    let pair = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if pair < ENDPOINT_URL_SINCE {
        warning(
            "clients",
            format!(
                "botocore {version} ignores AWS_ENDPOINT_URL and would go to the real EC2: give --endpoint-url, or install a newer one"
            ),
        )
    } else {
        ok(
            "clients",
            format!("botocore {version} reads AWS_ENDPOINT_URL"),
        )
    }
}
