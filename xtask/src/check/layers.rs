//! Which of our crates may see which: dependencies only point down.
//!
//! A new crate is placed here first.  Tests may use anything but the doors'
//! private parts, so that dev-dependencies are only kept from the program.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{list, text};

/// A crate and what it may depend on, lowest first.  `*` is everything above it in this list.
const LAYERS: &[(&str, &[&str])] = &[
    ("cumulet-domain", &[]),
    ("cumulet-durable", &[]),
    ("cumulet-store", &["cumulet-durable"]),
    ("cumulet-bundle", &[]),
    ("cumulet-objects", &["cumulet-domain", "cumulet-durable"]),
    // The unprivileged worker that unpacks a bundle is a process of the host's.
    (
        "cumulet-host",
        &["cumulet-domain", "cumulet-durable", "cumulet-bundle"],
    ),
    (
        "cumulet-engine",
        &[
            "cumulet-domain",
            "cumulet-store",
            "cumulet-bundle",
            "cumulet-host",
        ],
    ),
    ("cumulet-wire", &["cumulet-domain"]),
    ("cumulet-auth", &["cumulet-domain", "cumulet-wire"]),
    ("cumulet-ec2-model", &["cumulet-wire"]),
    (
        "cumulet-door-ec2",
        &[
            "cumulet-domain",
            "cumulet-engine",
            "cumulet-wire",
            "cumulet-auth",
            "cumulet-ec2-model",
        ],
    ),
    (
        "cumulet-door-s3",
        &[
            "cumulet-domain",
            "cumulet-objects",
            "cumulet-wire",
            "cumulet-auth",
        ],
    ),
    ("cumulet-door-metadata", &["cumulet-domain", "cumulet-wire"]),
    ("cumulet", &["*"]),
    ("cumulet-testkit", &["*"]),
    // Reaches into every crate that parses what comes from outside.
    ("cumulet-fuzz", &["*"]),
    ("cumulet-bench", &["*"]),
    ("xtask", &[]),
];

pub(crate) fn check(metadata: &Value, breaches: &mut Vec<String>) {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let own = |package: &&Value| package["source"].is_null();
    for package in list(metadata, "packages").iter().filter(own) {
        let name = text(package, "name");
        let Some(allowed) = layers.get(name) else {
            breaches.push(format!(
                "{name}: has no place in the layers (xtask/src/check/layers.rs)"
            ));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let target = text(dependency, "name");
            let is_ours = !dependency["path"].is_null();
            let is_test = text(dependency, "kind") == "dev";
            if is_ours && !is_test && !allowed.contains(&target) && !allowed.contains(&"*") {
                breaches.push(format!("{name}: must not depend on {target}"));
            }
            if is_ours && is_test && target == "cumulet" {
                breaches.push(format!("{name}: its tests must not depend on the program"));
            }
        }
    }
}
