//! What of a cloud is on the host, read from the host and not from the program.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use cumulet_testkit::Cloud;

use crate::harness::Described;

/// Everything that one cloud has on the host, in words that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Inventory {
    /// Instances with a run directory.
    pub(crate) run_directories: BTreeSet<String>,
    /// Instances with an overlay.
    pub(crate) overlays: BTreeSet<String>,
    /// Guests' addresses with a route in the cloud's namespace.
    pub(crate) routes: BTreeSet<Ipv4Addr>,
    /// Guests' addresses that the firewall knows.
    pub(crate) firewall: BTreeSet<Ipv4Addr>,
    /// Number of taps.
    pub(crate) taps: usize,
    /// Processes under each instance's own user id.
    pub(crate) processes: Vec<(Ipv4Addr, usize)>,
}

/// What the host must have for these live instances: for each a run directory, an overlay, a tap,
/// a route, an entry in the firewall, a keeper and a QEMU.
pub(crate) fn expected(live: &[Described]) -> Inventory {
    let ids: BTreeSet<String> = live.iter().map(|it| it.id.clone()).collect();
    let addresses: BTreeSet<Ipv4Addr> = live
        .iter()
        .map(|it| it.address.parse().expect("an address"))
        .collect();
    Inventory {
        run_directories: ids.clone(),
        overlays: ids,
        taps: addresses.len(),
        processes: addresses.iter().map(|it| (*it, 2)).collect(),
        firewall: addresses.clone(),
        routes: addresses,
    }
}

/// What the host has.
pub(crate) fn inventory(cloud: &Cloud) -> Inventory {
    let namespace = namespace(cloud);
    let links = inside(&namespace, &["ip", "-o", "link", "show"]);
    let routes = inside(&namespace, &["ip", "-4", "route", "show"]);
    let rules = inside(&namespace, &["nft", "list", "ruleset"]);
    let (network, prefix) = guest_range(&namespace);
    let is_guest = |address: &Ipv4Addr| {
        let mask = u32::MAX << (32 - prefix);
        u32::from(*address) & mask == u32::from(network) && !is_gateway(*address, network)
    };
    let taps = links.lines().filter(|line| is_tap(line)).count();
    let routes: BTreeSet<Ipv4Addr> = routes
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .filter(is_guest)
        .collect();
    let firewall = rules
        .split(|it: char| !(it.is_ascii_digit() || it == '.'))
        .filter_map(|word| word.parse().ok())
        .filter(is_guest)
        .collect();
    Inventory {
        run_directories: names(&cloud.data_directory().join("run")),
        overlays: names(&cloud.data_directory().join("overlays")),
        taps,
        processes: processes(is_guest, network),
        firewall,
        routes,
    }
}

fn is_gateway(address: Ipv4Addr, network: Ipv4Addr) -> bool {
    u32::from(address) <= u32::from(network) + 1
}

fn is_tap(line: &str) -> bool {
    let name = line.split(": ").nth(1).unwrap_or_default();
    let name = name.split('@').next().unwrap_or_default();
    name != "lo" && !line.contains("link-netnsid")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).map(|it| it.flatten().collect::<Vec<_>>());
    entries
        .unwrap_or_default()
        .into_iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter_map(|name| {
            name.starts_with("i-")
                .then(|| name.split('.').next().map(str::to_owned))?
        })
        .collect()
}

/// The cloud's network namespace.
pub(crate) fn namespace(cloud: &Cloud) -> String {
    let id = fs::read_to_string(cloud.data_directory().join("cloud-id")).expect("the cloud's id");
    format!("cumulet-{}", id.trim())
}

/// Whether the namespace is there.
pub(crate) fn has_namespace(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// Runs a command in a network namespace.
pub(crate) fn inside(namespace: &str, command: &[&str]) -> String {
    let mut ip = Command::new("ip");
    ip.args(["netns", "exec", namespace]).args(command);
    crate::harness::checked(&mut ip)
}

/// The guests' range, from the namespace's unreachable route of it.
fn guest_range(namespace: &str) -> (Ipv4Addr, u32) {
    let routes = inside(
        namespace,
        &["ip", "-4", "route", "show", "type", "unreachable"],
    );
    let found = routes.split_whitespace().find_map(|word| {
        let (address, prefix) = word.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    });
    found.unwrap_or_else(|| panic!("no unreachable route of the guests' range in {routes}"))
}

/// Numbers of processes by user ids that stand for guests' addresses.
fn processes(is_guest: impl Fn(&Ipv4Addr) -> bool, network: Ipv4Addr) -> Vec<(Ipv4Addr, usize)> {
    let mut found = std::collections::BTreeMap::new();
    let high = u32::from(network) & 0xff00_0000;
    for uid in all_uids() {
        if uid >> 24 == 0x10 {
            let address = Ipv4Addr::from(high | (uid & 0x00ff_ffff));
            if is_guest(&address) {
                *found.entry(address).or_default() += 1;
            }
        }
    }
    found.into_iter().collect()
}

/// The real user id of every process that is no zombie.
fn all_uids() -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|it| it.is_ascii_digit())
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok())
        .filter(|status| !status.contains("\nState:\tZ"))
        .filter_map(|status| {
            let line = status
                .lines()
                .find(|line| line.starts_with("Uid:"))?
                .to_owned();
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .collect()
}

/// Process ids under one instance's user id.
pub(crate) fn pids_of(address: Ipv4Addr) -> Vec<u32> {
    let uid = 0x1000_0000 | (u32::from(address) & 0x00ff_ffff);
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap_or_default();
        line.split_whitespace().nth(1) == Some(&uid.to_string())
    })
    .collect()
}
