//! Lays and removes what all instances share: the namespace, the veth pair,
//! routes, tables, and the host's forwarding.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::command::{ip_batch, nft, run};
use super::names::{CloudId, UPLINK, instance_of};
use super::namespace::{disable_ipv6, link_index, links, set_sysctl};
use super::rules::{self, Element, METADATA};
use super::{GATEWAY_MAC, NetConfig};
use super::{forwarding, namespace};
use crate::api::Result;

/// Settings of the namespace.  A new namespace may inherit any value from the host, so that each
/// one that matters is written.
const SETTINGS: &[(&str, &str)] = &[
    ("ip_forward", "1"),
    ("conf/all/rp_filter", "1"),
    ("conf/default/rp_filter", "1"),
    ("conf/all/accept_redirects", "0"),
    ("conf/default/accept_redirects", "0"),
    ("conf/all/secure_redirects", "0"),
    ("conf/default/secure_redirects", "0"),
    ("conf/all/send_redirects", "0"),
    ("conf/default/send_redirects", "0"),
    ("conf/all/accept_source_route", "0"),
    ("conf/default/accept_source_route", "0"),
    ("conf/all/proxy_arp", "0"),
    ("conf/default/proxy_arp", "0"),
    ("conf/all/arp_ignore", "0"),
    ("conf/default/arp_ignore", "0"),
    ("conf/all/arp_filter", "0"),
    ("conf/default/arp_filter", "0"),
    ("conf/all/accept_local", "0"),
    ("conf/default/accept_local", "0"),
    ("conf/all/route_localnet", "0"),
    ("conf/default/route_localnet", "0"),
];

/// True afterwards: the ground is laid, whatever was there of it, and the rules admit what they
/// admitted before and what is `known`, as far as there are taps for it.  Blocking.
pub(super) fn ensure(cloud: &CloudId, config: &NetConfig, known: &[Element]) -> Result<()> {
    namespace::ensure(cloud)?;
    ensure_pair(cloud)?;
    namespace::inside(cloud, || ensure_inside(config, known))?;
    ensure_host_side(cloud, config)?;
    forwarding::ensure_on()
}

/// The veth pair, with one end in the namespace; a pair whose other end is elsewhere is replaced.
fn ensure_pair(cloud: &CloudId) -> Result<()> {
    let link = cloud.host_link();
    let doing = format!("could not make the link {link}");
    let is_inside = namespace::inside(cloud, || Ok(link_index(UPLINK)?.is_some()))?;
    let is_outside = link_index(&link)?.is_some();
    if is_inside && is_outside {
        return Ok(());
    }
    let mut lines = String::new();
    if is_outside {
        let _ = writeln!(lines, "link del dev {link}");
    }
    let _ = writeln!(
        lines,
        "link add {link} type veth peer name {UPLINK} netns {}",
        cloud.namespace()
    );
    if is_inside {
        namespace::inside(cloud, || {
            ip_batch(&doing, &format!("link del dev {UPLINK}\n"))
        })?;
    }
    ip_batch(&doing, &lines)
}

/// Inside the namespace: settings, then rules, and only then links that are up.
fn ensure_inside(config: &NetConfig, known: &[Element]) -> Result<()> {
    for scope in ["all", "default"] {
        disable_ipv6(scope)?;
    }
    for (name, value) in SETTINGS {
        set_sysctl(&format!("ipv4/{name}"), value)?;
    }
    let taps = links()?;
    let mut elements = read_elements()?;
    elements.retain(|element| known.iter().all(|other| other.tap != element.tap));
    elements.extend_from_slice(known);
    elements.retain(|element| taps.contains(&element.tap));
    nft(
        "could not load the cloud's rules",
        &rules::inside(config, &elements),
    )?;
    let plan = &config.plan;
    let mut lines = format!(
        "link set dev lo up\n\
         addr replace {}/32 dev lo\n\
         addr replace {METADATA}/32 dev lo\n\
         addr replace {}/30 dev {UPLINK}\n\
         link set dev {UPLINK} up\n\
         route replace default via {} dev {UPLINK}\n\
         route replace unreachable {}/{}\n",
        plan.gateway, plan.uplink_inside, plan.uplink_host, plan.guest_network, plan.guest_prefix,
    );
    for element in &elements {
        // The kernel drops these routes when the gateway's address, which they name, goes.
        lines.push_str(&tap_up(element, plan.gateway));
    }
    ip_batch("could not set up the cloud's namespace", &lines)
}

/// Lines for `ip` after which the tap is up, with the route and the neighbour of its guest.
pub(super) fn tap_up(element: &Element, gateway: Ipv4Addr) -> String {
    let Element { tap, mac, address } = element;
    format!(
        "link set dev {tap} address {GATEWAY_MAC} up\n\
         route replace {address}/32 dev {tap} src {gateway}\n\
         neigh replace {address} lladdr {mac} nud permanent dev {tap}\n"
    )
}

/// What taps may send now, in the caller's namespace; nothing where no rules are loaded.
pub(super) fn read_elements() -> Result<Vec<Element>> {
    let doing = "could not read the ports from nftables";
    match run(doing, "nft", rules::LIST_ELEMENTS, "") {
        Ok(json) => rules::parse_elements(&json),
        Err(error) => {
            let tables = run(doing, "nft", &["list", "tables", "inet"], "")?;
            if tables.trim().is_empty() {
                Ok(vec![])
            } else {
                Err(error)
            }
        }
    }
}

fn ensure_host_side(cloud: &CloudId, config: &NetConfig) -> Result<()> {
    let link = cloud.host_link();
    nft(
        "could not load the host's rules",
        &rules::host(cloud, config),
    )?;
    disable_ipv6(&link)?;
    let plan = &config.plan;
    let lines = format!(
        "addr replace {}/30 dev {link}\n\
         link set dev {link} up\n\
         route replace {}/{} via {} dev {link}\n",
        plan.uplink_host, plan.guest_network, plan.guest_prefix, plan.uplink_inside,
    );
    ip_batch("could not set up the host's side of the cloud", &lines)
}

/// True afterwards: nothing of the cloud is on the host's network, and settings are as they were
/// found.  Blocking.
///
/// The links are deleted one by one and not left to the end of the namespace, since a descriptor
/// that somebody still holds would keep it, nameless, alive.
pub(super) fn ensure_absent(cloud: &CloudId) -> Result<()> {
    let doing = "could not remove the cloud's network";
    if namespace::exists(cloud)? {
        namespace::inside(cloud, || {
            let mut lines = String::new();
            for tap in links()?.iter().filter(|name| instance_of(name).is_some()) {
                let _ = writeln!(lines, "link del dev {tap}");
            }
            if lines.is_empty() {
                Ok(())
            } else {
                ip_batch(doing, &lines)
            }
        })?;
    }
    let link = cloud.host_link();
    if link_index(&link)?.is_some() {
        ip_batch(doing, &format!("link del dev {link}\n"))?;
    }
    nft(doing, &rules::host_absent(cloud))?;
    namespace::ensure_absent(cloud)?;
    forwarding::restore(cloud)
}
