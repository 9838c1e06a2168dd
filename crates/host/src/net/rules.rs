//! The text of the nftables tables: what may pass, and what never.
//!
//! Inside the namespace an instance is an element of sets; adding one touches
//! no rule.  A packet's way there:
//!
//! ```text
//! tap -> prerouting (before connection tracking): own link, own MAC, own address, or DHCP; else dropped
//!         |-> input:   DHCP, metadata, doors, echo; else dropped
//!         `-> forward: only to the uplink, never to what guests must not reach
//! uplink -> forward: from the host itself to any guest, and answers to guests; else dropped
//! ```
//!
//! The kernel remembers connections longer than instances live, and addresses
//! are given out again.  Each connection therefore carries the mark of the
//! instance that it was last used by, and what comes in on it passes only while
//! the address belongs to that instance.
//!
//! On the host one table masquerades what leaves, keeps guests from every
//! address of the host, and keeps everybody but the host itself from the guests.
//!
//! Both tables are always replaced whole in one transaction; the elements are
//! read before and written again.  Connection tracking keeps its own state, so
//! that established connections do not notice.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::NetConfig;
use super::names::{CloudId, UPLINK};
use crate::api::{HostError, Mac, Port, Result};

/// Address of the metadata service, as every guest knows it.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The namespace's table, of the families `inet` and `arp`.
const TABLE: &str = "cumulet";

/// Destinations outside that no guest may have: link-local, other clouds' metadata services,
/// loopback, "this network", multicast and reserved.
const NEVER: &[&str] = &[
    "0.0.0.0/8",
    "100.100.100.200",
    "127.0.0.0/8",
    "168.63.129.16",
    "169.254.0.0/16",
    "192.0.0.192",
    "224.0.0.0/3",
];
/// Private ranges behind the uplink.
const PRIVATE: &[&str] = &[
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
];

/// What a tap may send: an element of the sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) tap: String,
    pub(super) mac: String,
    pub(super) address: Ipv4Addr,
}

impl Element {
    pub(super) fn of(port: &Port) -> Self {
        Self {
            tap: super::names::tap_of(port.instance),
            mac: port.mac.to_string(),
            address: port.address,
        }
    }

    fn change(&self, verb: &str, text: &mut String) {
        let Self { tap, mac, address } = self;
        for family in ["inet", "arp"] {
            let _ = writeln!(
                text,
                "{verb} element {family} {TABLE} ports {{ \"{tap}\" . {mac} . {address} }}"
            );
            let _ = writeln!(
                text,
                "{verb} element {family} {TABLE} macs {{ \"{tap}\" . {mac} }}"
            );
        }
        let mark = self.mark();
        let _ = writeln!(
            text,
            "{verb} element inet {TABLE} marks {{ {address} : {mark} }}\n\
             {verb} element inet {TABLE} current {{ {address} . {mark} }}"
        );
    }

    /// The mark of this instance's connections: a hash of its tap's name (FNV-1a), so that a later
    /// instance with the same address has another one.
    fn mark(&self) -> u32 {
        self.tap.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }
}

/// One transaction after which `wanted` is in and `stale` is out, whatever was there.
pub(super) fn elements_change(stale: &[Element], wanted: Option<&Element>) -> String {
    let mut text = String::new();
    for element in stale {
        // Adding first makes the deletion right also where the element is missing.
        element.change("add", &mut text);
        element.change("delete", &mut text);
    }
    if let Some(element) = wanted {
        element.change("add", &mut text);
    }
    text
}

/// Reads the elements from what `nft -j list set inet cumulet ports` printed.
///
/// # Errors
/// When it is not of that shape.
pub(super) fn parse_elements(json: &str) -> Result<Vec<Element>> {
    let bad = |cause: &str| HostError::new("could not read the ports from nftables", cause);
    let value: Value = serde_json::from_str(json).map_err(|error| bad(&error.to_string()))?;
    let set = value["nftables"]
        .as_array()
        .and_then(|items| items.iter().find_map(|item| item.get("set")))
        .ok_or_else(|| bad("no set in the answer"))?;
    let Some(elements) = set["elem"].as_array() else {
        return Ok(vec![]);
    };
    elements
        .iter()
        .map(|element| {
            let parts = element["concat"]
                .as_array()
                .ok_or_else(|| bad("an element is no tuple"))?;
            let part = |index: usize| parts.get(index).and_then(Value::as_str).unwrap_or_default();
            Ok(Element {
                tap: part(0).to_owned(),
                mac: parse_mac(part(1))
                    .ok_or_else(|| bad("an element has no MAC"))?
                    .to_string(),
                address: part(2)
                    .parse()
                    .map_err(|_| bad("an element has no address"))?,
            })
        })
        .collect()
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

/// Arguments of `nft` that list the elements.
pub(super) const LIST_ELEMENTS: &[&str] = &["-j", "list", "set", "inet", TABLE, "ports"];

fn set_of<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(T::to_string).collect();
    format!("{{ {} }}", values.join(", "))
}

/// The whole of the namespace's tables, with `elements` in their sets.
pub(super) fn inside(config: &NetConfig, elements: &[Element]) -> String {
    let gateway = config.plan.gateway;
    let host = config.plan.uplink_host;
    let limit = config.connections_per_port_max;
    let doors = if config.doors_inside.is_empty() {
        String::new()
    } else {
        format!(
            "ip daddr {gateway} tcp dport {} accept",
            set_of(&config.doors_inside)
        )
    };
    let names = if config.dns_upstreams.is_some() {
        format!("ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept")
    } else {
        String::new()
    };
    let private = if config.is_private_uplink_allowed {
        String::new()
    } else {
        format!("ip daddr {} drop", set_of(PRIVATE))
    };
    let never = set_of(NEVER);
    let mut text = format!(
        r#"add table inet {TABLE}
delete table inet {TABLE}
add table arp {TABLE}
delete table arp {TABLE}
table inet {TABLE} {{
    set ports {{ type ifname . ether_addr . ipv4_addr; }}
    set macs {{ type ifname . ether_addr; }}
    map marks {{ type ipv4_addr : mark; }}
    set current {{ type ipv4_addr . mark; }}
    set connections {{ type ipv4_addr; size 65535; flags dynamic; }}
    chain prerouting {{
        type filter hook prerouting priority raw; policy drop;
        iifname {{ "lo", "{UPLINK}" }} accept
        iifname . ether saddr . ip saddr @ports accept
        ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 iifname . ether saddr @macs accept
    }}
    chain limit_connections {{
        ct state new add @connections {{ ip saddr ct count over {limit} }} drop
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
        iifname "{UPLINK}" ip daddr {gateway} icmp type echo-request accept
        iifname "{UPLINK}" drop
        ip daddr {{ 255.255.255.255, {gateway} }} udp dport 67 accept
        jump limit_connections
        ip daddr {METADATA} tcp dport 80 accept
        {doors}
        {names}
        ip daddr {gateway} icmp type echo-request accept
    }}
    chain from_uplink {{
        ct state established,related ip daddr . ct mark @current accept
        ct state new ip saddr {host} oifname != "{UPLINK}" ct mark set ip daddr map @marks accept
        drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        iifname "{UPLINK}" jump from_uplink
        ct mark set ip saddr map @marks
        ct state established,related accept
        oifname != "{UPLINK}" drop
        ip daddr {never} drop
        {private}
        jump limit_connections
        accept
    }}
}}
table arp {TABLE} {{
    set ports {{ type ifname . ether_addr . ipv4_addr; }}
    set macs {{ type ifname . ether_addr; }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "{UPLINK}" accept
        iifname . arp saddr ether . arp saddr ip @ports accept
        arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept
    }}
}}
"#
    );
    for element in elements {
        element.change("add", &mut text);
    }
    text
}

/// The whole of the host's table.
pub(super) fn host(cloud: &CloudId, config: &NetConfig) -> String {
    let table = cloud.host_table();
    let link = cloud.host_link();
    let guests = format!("{}/{}", config.plan.guest_network, config.plan.guest_prefix);
    format!(
        r#"add table inet {table}
delete table inet {table}
table inet {table} {{
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname != "{link}" accept
        ct state established,related accept
        drop
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname "{link}" ip saddr != {guests} drop
        iifname "{link}" ct state invalid drop
        iifname "{link}" oifname "{link}" drop
        ct state established,related accept
        oifname "{link}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {guests} oifname != "{link}" masquerade
    }}
}}
"#
    )
}

/// After it the host has no table of this cloud.
pub(super) fn host_absent(cloud: &CloudId) -> String {
    let table = cloud.host_table();
    format!("add table inet {table}\ndelete table inet {table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_as_they_are_listed() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "ports",
            "elem": [{"concat": ["t00000000000001", "02:c5:0a:01:00:04", "10.1.0.4"]}]}}]}"#;
        let elements = parse_elements(json).unwrap();
        assert_eq!(
            elements,
            [Element {
                tap: "t00000000000001".into(),
                mac: "02:c5:0a:01:00:04".into(),
                address: Ipv4Addr::new(10, 1, 0, 4),
            }]
        );
        assert_eq!(
            parse_elements(r#"{"nftables": [{"set": {}}]}"#).unwrap(),
            []
        );
        for bad in ["", "{}", r#"{"nftables": [{"set": {"elem": [7]}}]}"#] {
            assert!(parse_elements(bad).is_err(), "{bad}");
        }
    }
}
