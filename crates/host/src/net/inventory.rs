//! What of a cloud is on this host, and what of the host stands in its way;
//! read from the kernel alone, for `doctor`, `uninstall` and tests.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::command::run;
use super::names::{CloudId, instance_of};
use super::{forwarding, namespace};
use crate::api::{HostError, Result};

/// Everything on the host that carries the cloud's name, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    pub namespaces: Vec<String>,
    /// Links of the host.
    pub links: Vec<String>,
    /// Links in the namespace that belong to instances.
    pub ports: Vec<String>,
    pub routes: Vec<String>,
    pub tables: Vec<String>,
    /// Settings of the host that were changed, as they were before; shared by all clouds.
    pub settings: Vec<String>,
}

impl Inventory {
    /// Whether nothing of the cloud is here.  Settings do not count: another cloud may need them.
    pub fn is_empty(&self) -> bool {
        let Self {
            namespaces,
            links,
            ports,
            routes,
            tables,
            settings: _,
        } = self;
        [namespaces, links, ports, routes, tables]
            .iter()
            .all(|list| list.is_empty())
    }
}

/// Lists what of the cloud is on this host.  Blocking.
///
/// # Errors
/// When the host cannot be asked.
pub fn inventory(cloud_id: &str) -> Result<Inventory> {
    let cloud = CloudId::parse(cloud_id)?;
    let mut found = Inventory::default();
    if namespace::exists(&cloud)? {
        found.namespaces.push(cloud.namespace());
        found.ports = namespace::inside(&cloud, namespace::links)?
            .iter()
            .filter_map(|name| instance_of(name))
            .map(|id| id.to_string())
            .collect();
    }
    let link = cloud.host_link();
    if namespace::link_index(&link)?.is_some() {
        let doing = "could not list the routes";
        let json = run(
            doing,
            "ip",
            &["-j", "-4", "route", "show", "dev", &link],
            "",
        )?;
        let routes: Value =
            serde_json::from_str(&json).map_err(|error| HostError::new(doing, error))?;
        let destinations = routes.as_array().into_iter().flatten();
        found.routes = destinations
            .filter_map(|route| route["dst"].as_str().map(str::to_owned))
            .collect();
        found.links.push(link);
    }
    let table = format!("table inet {}", cloud.host_table());
    let tables = run(
        "could not list the nftables tables",
        "nft",
        &["list", "tables", "inet"],
        "",
    )?;
    found.tables = tables
        .lines()
        .filter(|line| *line == table)
        .map(str::to_owned)
        .collect();
    let saved = forwarding::saved()?.unwrap_or_default();
    found.settings = saved
        .into_iter()
        .filter(|(_, before)| before != "1")
        .map(|(name, before)| format!("net/{name} was {before}"))
        .collect();
    Ok(found)
}

/// Private addresses of all instances whose place is laid in the cloud's namespace, whether a record
/// tells of them or not.  Blocking.
///
/// # Errors
/// When the host cannot be asked.
pub fn guest_addresses(cloud_id: &str) -> Result<Vec<Ipv4Addr>> {
    let cloud = CloudId::parse(cloud_id)?;
    if !namespace::exists(&cloud)? {
        return Ok(vec![]);
    }
    let doing = "could not list the routes to instances";
    let json = namespace::inside(&cloud, || {
        run(doing, "ip", &["-j", "-4", "route", "show"], "")
    })?;
    let routes: Value =
        serde_json::from_str(&json).map_err(|error| HostError::new(doing, error))?;
    let routes = routes.as_array().into_iter().flatten();
    Ok(routes
        .filter(|route| {
            route["dev"]
                .as_str()
                .is_some_and(|dev| instance_of(dev).is_some())
        })
        .filter_map(|route| route["dst"].as_str()?.parse().ok())
        .collect())
}

/// Other tables of this host that drop what is forwarded, such as Docker's or ufw's: guests behind
/// them do not reach the world until they are told to let our links pass.  Blocking.
///
/// # Errors
/// When nftables cannot be asked.
pub fn forwarding_blockers() -> Result<Vec<String>> {
    let doing = "could not list the nftables chains";
    let json = run(doing, "nft", &["-j", "list", "chains"], "")?;
    parse_blockers(&json).map_err(|error| HostError::new(doing, error))
}

fn parse_blockers(json: &str) -> serde_json::Result<Vec<String>> {
    let value: Value = serde_json::from_str(json)?;
    let items = value["nftables"].as_array().into_iter().flatten();
    let chains = items.filter_map(|item| item.get("chain"));
    let is_blocker = |chain: &&Value| {
        chain["hook"] == "forward"
            && chain["policy"] == "drop"
            && !chain["table"]
                .as_str()
                .unwrap_or_default()
                .starts_with("cumulet_")
    };
    Ok(chains
        .filter(is_blocker)
        .map(|chain| {
            let word = |key: &str| chain[key].as_str().unwrap_or("?").to_owned();
            format!(
                "chain {} of table {} {}",
                word("name"),
                word("family"),
                word("table")
            )
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropping_forward_chain_is_named() {
        let json = r#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "cumulet_0a1b2c3d", "name": "forward", "hook": "forward", "policy": "accept"}}]}"#;
        assert_eq!(
            parse_blockers(json).unwrap(),
            ["chain FORWARD of table ip filter"]
        );
    }
}
