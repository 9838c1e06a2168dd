//! `cargo xtask check`: the rules of the repository that the compiler does not know.
//!
//! Collects every breach before it answers, so that one run shows all of them.
//! Needs neither the network nor a build of the crates.

mod dependencies;
mod durability;
mod layers;
mod licences;
mod sources;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// Checks everything.
///
/// # Errors
/// All breaches, one a line.
pub(crate) fn run() -> Result<(), String> {
    let root = root();
    let metadata = metadata(root)?;
    let policy = policy(root)?;
    let mut breaches = vec![];
    dependencies::check(&metadata, &policy, &mut breaches);
    layers::check(&metadata, &mut breaches);
    sources::check(root, &mut breaches)?;
    durability::check(root, &mut breaches)?;
    if breaches.is_empty() {
        return Ok(());
    }
    let count = breaches.len();
    breaches.sort();
    Err(format!("{}\n{count} breaches", breaches.join("\n")))
}

fn metadata(root: &Path) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .map_err(|cause| format!("cargo metadata: {cause}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata: {text}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|cause| format!("cargo metadata: {cause}"))
}

fn policy(root: &Path) -> Result<toml::Table, String> {
    read(&root.join("deny.toml"))?
        .parse()
        .map_err(|cause| format!("deny.toml: {cause}"))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))
}

/// The elements of an array in JSON, none when it is something else.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// A string in JSON, empty when it is something else.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
