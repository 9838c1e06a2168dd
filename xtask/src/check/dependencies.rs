//! Crates of others: their licences, the ones we do not want, and versions that are built twice.
//!
//! The lists are those of `deny.toml`, which says the reasons.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{licences, list, text};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check(metadata: &Value, policy: &toml::Table, breaches: &mut Vec<String>) {
    let allowed: Vec<&str> = entries(policy, "licenses", "allow")
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let skipped: BTreeSet<&str> = named(policy, "skip")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();

    for package in list(metadata, "packages") {
        let (name, version) = (text(package, "name"), text(package, "version"));
        versions.entry(name).or_default().push(version);
        let Some(source) = package["source"].as_str() else {
            continue;
        };
        if source != REGISTRY {
            breaches.push(format!(
                "{name} {version}: comes from {source}; only crates.io is allowed"
            ));
        }
        // What follows a `+` names a build.
        if version
            .split('+')
            .next()
            .is_some_and(|release| release.contains('-'))
        {
            breaches.push(format!("{name} {version}: pre-releases are not used"));
        }
        match licences::is_allowed(text(package, "license"), &allowed) {
            Ok(true) => {}
            Ok(false) => breaches.push(format!(
                "{name} {version}: its licence {} is not on the list of deny.toml",
                package["license"]
            )),
            Err(problem) => breaches.push(format!("{name} {version}: {problem}")),
        }
    }
    for ban in bans(policy).filter(|ban| versions.contains_key(ban.name)) {
        for user in users(metadata, ban.name) {
            if !ban.wrappers.iter().any(|name| name.as_str() == Some(user)) {
                breaches.push(format!(
                    "{user}: uses {}, which is not wanted: {}",
                    ban.name, ban.reason
                ));
            }
        }
    }
    duplicates(&versions, &skipped, breaches);
}

fn duplicates(
    versions: &BTreeMap<&str, Vec<&str>>,
    skipped: &BTreeSet<&str>,
    breaches: &mut Vec<String>,
) {
    let mut needed = BTreeSet::new();
    for (name, found) in versions.iter().filter(|(_, found)| found.len() > 1) {
        let mut left: Vec<String> = found
            .iter()
            .map(|version| format!("{name}@{version}"))
            .collect();
        left.retain(|full| match skipped.get(full.as_str()) {
            Some(entry) => !needed.insert(*entry),
            None => true,
        });
        if left.len() > 1 {
            breaches.push(format!(
                "{name}: is built more than once ({}); use one version, or name the older one in deny.toml with the reason",
                left.join(", ")
            ));
        }
    }
    for unneeded in skipped.difference(&needed) {
        breaches.push(format!(
            "deny.toml: the entry {unneeded} is not needed any more"
        ));
    }
}

fn entries<'a>(policy: &'a toml::Table, section: &str, name: &str) -> &'a [toml::Value] {
    policy
        .get(section)
        .and_then(|section| section.get(name))
        .and_then(toml::Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A crate that is not wanted.
struct Ban<'a> {
    name: &'a str,
    reason: &'a str,
    /// Those that may use it all the same.
    wrappers: &'a [toml::Value],
}

fn bans(policy: &toml::Table) -> impl Iterator<Item = Ban<'_>> {
    entries(policy, "bans", "deny").iter().filter_map(|entry| {
        let wrappers = entry.get("wrappers").and_then(toml::Value::as_array);
        Some(Ban {
            name: entry.get("crate")?.as_str()?,
            reason: entry.get("reason")?.as_str()?,
            wrappers: wrappers.map_or(&[], Vec::as_slice),
        })
    })
}

/// The names of the crates that use the crate of this name directly.
fn users<'a>(metadata: &'a Value, name: &str) -> BTreeSet<&'a str> {
    let named = |id: &str| -> &'a str {
        let mut packages = list(metadata, "packages").iter();
        packages
            .find(|package| text(package, "id") == id)
            .map_or("", |package| text(package, "name"))
    };
    list(&metadata["resolve"], "nodes")
        .iter()
        .filter(|node| {
            let dependencies = list(node, "deps").iter();
            let mut names = dependencies.map(|dependency| named(text(dependency, "pkg")));
            names.any(|found| found == name)
        })
        .map(|node| named(text(node, "id")))
        .collect()
}

/// The crate and the reason of each entry of `[bans]`.
fn named<'a>(policy: &'a toml::Table, name: &str) -> Vec<(&'a str, &'a str)> {
    let field = |entry: &'a toml::Value, field: &str| entry.get(field).and_then(|v| v.as_str());
    entries(policy, "bans", name)
        .iter()
        .filter_map(|entry| Some((field(entry, "crate")?, field(entry, "reason")?)))
        .collect()
}
