//! Chooses the ranges of a new cloud: private, and routed by nobody here.
//!
//! The order of attempts follows from the cloud's id, so that two clouds on one
//! host, or on two hosts that meet later, rarely choose the same.  The choice
//! is recorded by the caller and never made again.

use std::net::Ipv4Addr;

use cumulet_domain::network::Ipv4Net;
use serde_json::Value;

use super::command::run;
use super::names::CloudId;
use crate::api::{GroundPlan, HostError, Result};

/// Longest prefix of the guests' range: a /24 has room for 253 guests.
const GUEST_PREFIX_MAX: u8 = 24;
/// Shortest: the namespace's counters and the guests' ARP tables are made for a /16.
const GUEST_PREFIX_MIN: u8 = 16;
/// How many uplinks are tried.
const UPLINK_ATTEMPTS: u32 = 4_096;

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    if one.prefix <= other.prefix {
        one.contains(other.address)
    } else {
        other.contains(one.address)
    }
}

/// Finds a range for guests and one for the uplink that this host does not route yet.  `preferred`
/// is taken or refused, never changed.
///
/// # Errors
/// When the routes cannot be read, when `preferred` is in use or unsuitable, or when every private
/// range is in use.
pub fn plan_ground(preferred: Option<Ipv4Net>, cloud_id: &str) -> Result<GroundPlan> {
    let cloud = CloudId::parse(cloud_id)?;
    let routes = parse_routes(&routes()?)?;
    let routed: Vec<Ipv4Net> = routes.into_iter().map(|route| route.to).collect();
    choose(preferred, cloud.number(), &routed)
}

/// Refuses a recorded plan that another cloud of this host uses, as after a copy of a data
/// directory, or when both were away while one chose.  Routes of others than clouds are their
/// owners' business: ours are more specific, or were there first.
///
/// # Errors
/// When the routes cannot be read; a permanent one naming the other cloud.
pub(super) fn check_alone(cloud: &CloudId, plan: &GroundPlan) -> Result<()> {
    match find_other(&cloud.host_link(), plan, &parse_routes(&routes()?)?) {
        None => Ok(()),
        Some(other) => Err(HostError::permanent(
            "could not use the recorded addresses of the cloud",
            format!(
                "the cloud {} on this host uses {}/{} too, or the same uplink: uninstall one of the two, and make it anew",
                other.trim_start_matches("cu-"),
                plan.guest_network,
                plan.guest_prefix
            ),
            "Internal error on launch",
        )),
    }
}

/// The link of another cloud that has a part of the plan.
fn find_other<'a>(own: &str, plan: &GroundPlan, routes: &'a [Route]) -> Option<&'a str> {
    let guests = Ipv4Net {
        address: plan.guest_network,
        prefix: plan.guest_prefix,
    };
    let uplink = Ipv4Net {
        address: plan.uplink_host,
        prefix: 32,
    };
    let is_other = |route: &&Route| {
        route.link.starts_with("cu-")
            && route.link != own
            && (overlaps(route.to, guests) || overlaps(route.to, uplink))
    };
    routes
        .iter()
        .find(is_other)
        .map(|route| route.link.as_str())
}

fn routes() -> Result<String> {
    run(
        "could not read the routes of this host",
        "ip",
        &["-j", "-4", "route", "show", "table", "all"],
        "",
    )
}

/// A route of this host.
struct Route {
    to: Ipv4Net,
    /// Empty when it leads nowhere.
    link: String,
}

/// Routes without the default route.
fn parse_routes(json: &str) -> Result<Vec<Route>> {
    let bad = |cause: String| HostError::new("could not read the routes of this host", cause);
    let value: Value = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
    let routes = value
        .as_array()
        .ok_or_else(|| bad("no list of routes".into()))?;
    let found = routes.iter().filter_map(|route| {
        Some(Route {
            to: parse_net(route["dst"].as_str()?)?,
            link: route["dev"].as_str().unwrap_or_default().to_owned(),
        })
    });
    Ok(found.filter(|route| route.to.prefix > 0).collect())
}

fn parse_net(text: &str) -> Option<Ipv4Net> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let net = Ipv4Net {
        address: address.parse().ok()?,
        prefix: prefix.parse().ok()?,
    };
    (net.prefix <= 32).then_some(net)
}

fn choose(preferred: Option<Ipv4Net>, seed: u32, routed: &[Ipv4Net]) -> Result<GroundPlan> {
    let is_free = |net: &Ipv4Net| !routed.iter().any(|route| overlaps(*route, *net));
    let refused = |cause: String| {
        HostError::permanent(
            "could not choose the addresses of the cloud",
            cause,
            "Internal error on launch",
        )
    };
    let guests = match preferred {
        Some(net) => {
            check_preferred(net).map_err(refused)?;
            if !is_free(&net) {
                return Err(refused(format!(
                    "the range {}/{} is routed on this host already",
                    net.address, net.prefix
                )));
            }
            net
        }
        None => guest_candidates(seed)
            .find(is_free)
            .ok_or_else(|| refused("this host routes every private /16 already".into()))?,
    };
    let uplink = uplink_candidates(seed)
        .find(|net| is_free(net) && !overlaps(guests, *net))
        .ok_or_else(|| {
            refused("this host routes 172.16.0.0/12 already; no uplink is left".into())
        })?;
    let after = |net: Ipv4Net, count: u32| Ipv4Addr::from(u32::from(net.address) + count);
    Ok(GroundPlan {
        guest_network: guests.address,
        guest_prefix: guests.prefix,
        gateway: after(guests, 1),
        uplink_host: after(uplink, 1),
        uplink_inside: after(uplink, 2),
    })
}

fn check_preferred(net: Ipv4Net) -> std::result::Result<(), String> {
    let text = format!("{}/{}", net.address, net.prefix);
    if !(GUEST_PREFIX_MIN..=GUEST_PREFIX_MAX).contains(&net.prefix) {
        return Err(format!(
            "the range {text} must have a prefix of {GUEST_PREFIX_MIN} to {GUEST_PREFIX_MAX}"
        ));
    }
    if u32::from(net.address).trailing_zeros() < 32 - u32::from(net.prefix) {
        return Err(format!("the range {text} has bits set beyond its prefix"));
    }
    if !net.address.is_private() {
        return Err(format!("the range {text} is not private"));
    }
    Ok(())
}

/// Sixteens of 10.128 to 10.239 first, where fewest others are; then the rest.
fn guest_candidates(seed: u32) -> impl Iterator<Item = Ipv4Net> {
    let upper = (0..112u32).map(move |step| 128 + (seed % 112 + step) % 112);
    let lower = (0..128u32).map(move |step| (seed % 128 + step) % 128);
    let tens = upper.chain(lower).map(|second| (10u32, second));
    let others = (16..31u32)
        .map(|second| (172u32, second))
        .chain([(192, 168)]);
    tens.chain(others).map(|(first, second)| Ipv4Net {
        address: Ipv4Addr::from(first << 24 | second << 16),
        prefix: 16,
    })
}

/// Fours of 172.16.0.0/12.
fn uplink_candidates(seed: u32) -> impl Iterator<Item = Ipv4Net> {
    let base = u32::from(Ipv4Addr::new(172, 16, 0, 0));
    let places = 1u32 << 18;
    // A stride that is odd visits every place; a large one leaves a busy /16 quickly.
    (0..UPLINK_ATTEMPTS).map(move |step| {
        let place = (seed % places).wrapping_add(step.wrapping_mul(40_503)) % places;
        Ipv4Net {
            address: Ipv4Addr::from(base + place * 4),
            prefix: 30,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        parse_net(text).unwrap()
    }

    #[test]
    fn routed_ranges_are_avoided() {
        let routed = parse_routes(
            r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},
                {"dst":"10.0.0.0/8","dev":"tun0"},{"type":"local","dst":"192.0.2.2","dev":"eth0"},
                {"dst":"172.16.0.0/16","dev":"docker0"},{"dst":"0.0.0.0/0"}]"#,
        )
        .unwrap();
        let routed: Vec<Ipv4Net> = routed.into_iter().map(|route| route.to).collect();
        let plan = choose(None, 7, &routed).unwrap();
        assert_eq!(plan.guest_network, Ipv4Addr::new(172, 17, 0, 0));
        assert_eq!(plan.gateway, Ipv4Addr::new(172, 17, 0, 1));
        for address in [plan.uplink_host, plan.uplink_inside] {
            assert!(
                !net("172.17.0.0/16").contains(address) && !net("172.16.0.0/16").contains(address)
            );
        }
    }

    #[test]
    fn a_plan_that_another_cloud_uses_is_seen() {
        let plan = choose(Some(net("10.9.0.0/16")), 7, &[]).unwrap();
        let uplink = plan.uplink_host;
        let other = |dst: &str, dev: &str| {
            let json = format!(r#"[{{"dst":"{dst}","dev":"{dev}"}},{{"dst":"10.9.0.4"}}]"#);
            let routes = parse_routes(&json).unwrap();
            find_other("cu-00000007", &plan, &routes).map(str::to_owned)
        };
        let named = Some("cu-0a1b2c3d".to_owned());
        assert_eq!(other("10.9.0.0/16", "cu-0a1b2c3d"), named);
        assert_eq!(other("10.9.64.0/20", "cu-0a1b2c3d"), named);
        assert_eq!(other(&format!("{uplink}/30"), "cu-0a1b2c3d"), named);
        assert_eq!(other("10.10.0.0/16", "cu-0a1b2c3d"), None);
        assert_eq!(other("10.9.0.0/16", "cu-00000007"), None);
        assert_eq!(other("10.0.0.0/8", "tun0"), None);
    }

    #[test]
    fn two_clouds_choose_differently_and_each_the_same_again() {
        let one = choose(None, 0x0a1b_2c3d, &[]).unwrap();
        let two = choose(None, 0x0a1b_2c3e, &[]).unwrap();
        assert_ne!(one.guest_network, two.guest_network);
        assert_ne!(one.uplink_host, two.uplink_host);
        assert_eq!(one, choose(None, 0x0a1b_2c3d, &[]).unwrap());
    }

    #[test]
    fn a_full_host_and_a_bad_wish_are_refused() {
        let all = [
            net("10.0.0.0/8"),
            net("172.16.0.0/12"),
            net("192.168.0.0/16"),
        ];
        assert!(choose(None, 1, &all).is_err());
        assert!(choose(Some(net("10.9.0.0/16")), 1, &[net("10.9.4.0/24")]).is_err());
        for bad in ["10.0.0.0/8", "10.9.0.0/25", "10.9.1.0/16", "192.0.2.0/24"] {
            assert!(choose(Some(net(bad)), 1, &[]).is_err(), "{bad}");
        }
        let plan = choose(Some(net("10.9.0.0/20")), 1, &[]).unwrap();
        assert_eq!(
            (plan.guest_network, plan.guest_prefix),
            (Ipv4Addr::new(10, 9, 0, 0), 20)
        );
    }
}
