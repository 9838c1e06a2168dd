//! The short list of what operations do otherwise in one version than in another: read, and held against the code.
//!
//! Each entry has a test that is there, and each version by which the door decides has an entry.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::version_name;

const BEHAVIOURS: &str = "models/ec2-behaviours.txt";
const TESTS: &str = "crates/door-ec2/tests";
const DOOR: &str = "crates/door-ec2/src";

/// The rows of the table.
pub(super) fn rows(root: &Path, versions: &[String]) -> Result<String, String> {
    let text = read(&root.join(BEHAVIOURS))?;
    let mut rows = String::new();
    let mut named = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| format!("{BEHAVIOURS}:{number}: {what}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split(" : ").collect();
        let [when, what, test] = columns.as_slice() else {
            return Err(wrong("an entry has three columns"));
        };
        let version = when
            .strip_prefix("since ")
            .or_else(|| when.strip_prefix("until "))
            .filter(|version| versions.iter().any(|known| known == version))
            .ok_or_else(|| wrong("since or until a version of the history"))?;
        let (file, test) = test
            .split_once(' ')
            .ok_or_else(|| wrong("a file and a test"))?;
        let source = read(&root.join(TESTS).join(file))?;
        if !source.contains(&format!("fn {test}(")) {
            return Err(wrong(&format!("{file} has no {test}")));
        }
        named.insert(version_name(version));
        let _ = writeln!(rows, "| {when} | {what} | `{file}`: `{test}` |");
    }
    for (file, version) in decided_by(root)? {
        if !named.contains(&version) {
            return Err(format!(
                "{file} decides by {version}, of which {BEHAVIOURS} says nothing"
            ));
        }
    }
    Ok(rows)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))
}

/// Files of the door, each with a version that it names, as `V2007_03_01`.
fn decided_by(root: &Path) -> Result<BTreeSet<(String, String)>, String> {
    const LENGTH: usize = "V2007_03_01".len();
    let entries = std::fs::read_dir(root.join(DOOR)).map_err(|cause| format!("{DOOR}: {cause}"))?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|cause| format!("{DOOR}: {cause}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_none_or(|it| it != "rs") {
            continue;
        }
        let text = read(&path)?;
        for (start, _) in text.match_indices("V20") {
            let word = text.get(start..start + LENGTH).unwrap_or_default();
            let is_version = word
                .bytes()
                .skip(1)
                .all(|byte| byte.is_ascii_digit() || byte == b'_');
            if is_version && word.len() == LENGTH {
                found.insert((format!("{DOOR}/{name}"), word.to_owned()));
            }
        }
    }
    Ok(found)
}
