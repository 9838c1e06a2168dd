//! The facts of an instance as the tree that a version shows.
//!
//! A tree is built for each request: it is small, and nothing of it can be out
//! of date then.

use std::collections::BTreeMap;

use bytes::Bytes;
use cumulet_wire::time::format_iso8601;
use serde_json::json;

use crate::facts::Facts;
use crate::version::Version;

/// Shown in place of a manifest's path by images that have none, as EC2 does.
const NO_MANIFEST: &str = "(unknown)";
/// Version of the identity document's own shape.
const DOCUMENT_VERSION: &str = "2017-09-30";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// Text, or bytes of a kind of their own.
    Leaf(Bytes),
    Branch(Branch),
}

/// Children by name; listed in the order of their names, as EC2 lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Branch {
    children: BTreeMap<String, Node>,
    /// What a child is listed as, where that is not its name.
    labels: BTreeMap<String, String>,
    /// At the top EC2 lists branches without a slash, below with one.
    is_bare: bool,
}

impl Branch {
    fn leaf(&mut self, name: &str, text: impl Into<String>) {
        self.insert(name, Node::Leaf(Bytes::from(text.into())));
    }

    /// Adds a branch at `path`, or finds it.
    fn branch(&mut self, path: &[&str]) -> &mut Self {
        let Some((name, rest)) = path.split_first() else {
            return self;
        };
        let child = self
            .children
            .entry((*name).to_owned())
            .or_insert_with(|| Node::Branch(Self::default()));
        if matches!(child, Node::Leaf(_)) {
            *child = Node::Branch(Self::default());
        }
        match child {
            Node::Branch(branch) => branch.branch(rest),
            Node::Leaf(_) => unreachable!("made a branch above"),
        }
    }

    fn insert(&mut self, name: &str, node: Node) {
        self.children.insert(name.to_owned(), node);
    }

    /// One child a line, without an end of line after the last.
    pub(crate) fn listing(&self) -> String {
        let lines: Vec<String> = self
            .children
            .iter()
            .map(|(name, node)| match node {
                _ if self.labels.contains_key(name) => self.labels[name].clone(),
                Node::Branch(_) if !self.is_bare => format!("{name}/"),
                Node::Branch(_) | Node::Leaf(_) => name.clone(),
            })
            .collect();
        lines.join("\n")
    }

    /// What lies at `path` below.
    pub(crate) fn find<'a>(&'a self, path: &[&str]) -> Option<Found<'a>> {
        let Some((name, rest)) = path.split_first() else {
            return Some(Found::Branch(self));
        };
        match (self.children.get(*name)?, rest) {
            (Node::Leaf(bytes), []) => Some(Found::Leaf(bytes)),
            (Node::Leaf(_), _) => None,
            (Node::Branch(branch), rest) => branch.find(rest),
        }
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Leaf(&'a Bytes),
    Branch(&'a Branch),
}

/// Everything below `/<version>/`.
pub(crate) fn build(facts: &Facts, version: Version) -> Branch {
    let mut root = Branch {
        is_bare: true,
        ..Branch::default()
    };
    fill_meta_data(root.branch(&["meta-data"]), facts, version);
    if let Some(user_data) = &facts.user_data {
        root.insert("user-data", Node::Leaf(user_data.clone()));
    }
    if version.has("2009-04-04") {
        let dynamic = root.branch(&["dynamic"]);
        dynamic
            .branch(&["instance-identity"])
            .leaf("document", identity_document(facts));
        dynamic
            .branch(&["fws"])
            .leaf("instance-monitoring", "disabled");
    }
    root
}

fn fill_meta_data(tree: &mut Branch, facts: &Facts, version: Version) {
    let public_ipv4 = facts.public_ipv4.map(|address| address.to_string());
    // Name, the version that introduced it, and the text if there is one.
    let leaves: Vec<(&str, &str, Option<String>)> = vec![
        ("ami-id", "1.0", Some(facts.image.to_string())),
        (
            "ami-launch-index",
            "1.0",
            Some(facts.launch_index.to_string()),
        ),
        (
            "ami-manifest-path",
            "1.0",
            Some(
                facts
                    .manifest_path
                    .clone()
                    .unwrap_or_else(|| NO_MANIFEST.to_owned()),
            ),
        ),
        ("hostname", "1.0", Some(facts.local_host_name.clone())),
        ("instance-id", "1.0", Some(facts.instance.to_string())),
        ("local-ipv4", "1.0", Some(facts.local_ipv4.to_string())),
        ("reservation-id", "1.0", Some(facts.reservation.to_string())),
        ("security-groups", "1.0", lines(&facts.security_groups)),
        (
            "local-hostname",
            "2007-01-19",
            Some(facts.local_host_name.clone()),
        ),
        (
            "public-hostname",
            "2007-01-19",
            Some(facts.public_host_name.clone()),
        ),
        ("public-ipv4", "2007-01-19", public_ipv4),
        ("product-codes", "2007-03-01", lines(&facts.product_codes)),
        (
            "instance-type",
            "2007-08-29",
            Some(facts.instance_type.clone()),
        ),
        (
            "kernel-id",
            "2008-02-01",
            facts.kernel.map(|kernel| kernel.to_string()),
        ),
        ("ramdisk-id", "2008-02-01", facts.ramdisk.clone()),
        ("instance-action", "2008-09-01", Some("none".to_owned())),
        ("mac", "2011-01-01", Some(facts.mac.clone())),
        (
            "instance-life-cycle",
            "2019-10-01",
            Some("on-demand".to_owned()),
        ),
    ];
    for (name, since, text) in leaves {
        if let Some(text) = text
            && version.has(since)
        {
            tree.leaf(name, text);
        }
    }
    if let Some(key) = &facts.public_key {
        let keys = tree.branch(&["public-keys"]);
        keys.labels.insert("0".into(), format!("0={}", key.name));
        // Scripts append it to a file of keys as it comes: it ends its line.
        keys.branch(&["0"]).leaf(
            "openssh-key",
            format!("{} {}\n", key.openssh.trim(), key.name),
        );
    }
    if version.has("2007-12-15") {
        for (name, device) in &facts.block_devices {
            tree.branch(&["block-device-mapping"])
                .leaf(name, device.clone());
        }
    }
    if version.has("2008-02-01") {
        tree.branch(&["placement"])
            .leaf("availability-zone", facts.zone.clone());
    }
    if version.has("2020-10-27") {
        tree.branch(&["placement"])
            .leaf("region", facts.region.clone());
    }
    if version.has("2011-01-01") {
        fill_interface(
            tree.branch(&["network", "interfaces", "macs", &facts.mac]),
            facts,
        );
    }
    if version.has("2014-02-25") {
        tree.branch(&["services"])
            .leaf("domain", facts.services_domain.clone());
    }
    if version.has("2015-10-20") {
        tree.branch(&["services"]).leaf("partition", "aws");
    }
}

fn fill_interface(tree: &mut Branch, facts: &Facts) {
    tree.leaf("device-number", "0");
    tree.leaf("local-hostname", facts.local_host_name.clone());
    tree.leaf("local-ipv4s", facts.local_ipv4.to_string());
    tree.leaf("mac", facts.mac.clone());
    tree.leaf("owner-id", facts.account.to_string());
    if let Some(groups) = lines(&facts.security_groups) {
        tree.leaf("security-groups", groups);
    }
    if let Some(public) = facts.public_ipv4 {
        tree.leaf("public-hostname", facts.public_host_name.clone());
        tree.leaf("public-ipv4s", public.to_string());
        tree.branch(&["ipv4-associations"])
            .leaf(&public.to_string(), facts.local_ipv4.to_string());
    }
}

/// One a line, or `None` for no lines.
fn lines(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join("\n"))
}

/// The document by which an instance names itself.  It is not signed: we have no certificate that
/// anybody would check it by, and so there is no `signature` beside it.
fn identity_document(facts: &Facts) -> String {
    let codes = (!facts.product_codes.is_empty()).then_some(&facts.product_codes);
    let document = json!({
        "accountId": facts.account.to_string(),
        "architecture": facts.architecture,
        "availabilityZone": facts.zone,
        "billingProducts": null,
        "devpayProductCodes": codes,
        "marketplaceProductCodes": null,
        "imageId": facts.image.to_string(),
        "instanceId": facts.instance.to_string(),
        "instanceType": facts.instance_type,
        "kernelId": facts.kernel.map(|kernel| kernel.to_string()),
        "pendingTime": pending_time(facts),
        "privateIp": facts.local_ipv4.to_string(),
        "ramdiskId": facts.ramdisk,
        "region": facts.region,
        "version": DOCUMENT_VERSION,
    });
    // A map of strings and nulls always prints.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// To the second, as in EC2's document.
fn pending_time(facts: &Facts) -> String {
    let text = format_iso8601(facts.launched);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
