//! Our own files: their length, their first line, what must not be left in them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::read;

/// A file has one subject; past this it has two.
const LINES_MAX: usize = 700;

/// Left-overs, and why they may not stay.  In halves, so that this file does not hold them.
const LEFT_OVERS: &[(&str, &str, &str)] = &[
    ("todo", "!(", "is unfinished work that compiles"),
    ("unimplemented", "!(", "is unfinished work that compiles"),
    ("#[ign", "ore", "hides a test; assert what is true today"),
    ("dbg", "!(", "is for the desk"),
];

pub(crate) fn check(root: &Path, breaches: &mut Vec<String>) -> Result<(), String> {
    for folder in ["crates", "xtask"] {
        for path in files(&root.join(folder))? {
            let name = path.strip_prefix(root).unwrap_or(&path);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => rust(name, &read(&path)?, breaches),
                Some("toml") if path.ends_with("Cargo.toml") => {
                    manifest(name, &read(&path)?, breaches)?;
                }
                _ => {}
            }
        }
    }
    for folder in ["scripts", ".ci", "tests"] {
        for path in files(&root.join(folder))? {
            script(root, &path, breaches)?;
        }
    }
    Ok(())
}

fn rust(name: &Path, source: &str, breaches: &mut Vec<String>) {
    let shown = name.display();
    let is_generated = name
        .components()
        .any(|part| part.as_os_str() == "generated");
    let count = source.lines().count();
    if count > LINES_MAX && !is_generated {
        breaches.push(format!(
            "{shown}: has {count} lines, more than {LINES_MAX}; split it by subject"
        ));
    }
    let first = source
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        breaches.push(format!("{shown}: does not start with what it is for (//!)"));
    }
    for (number, line) in source.lines().enumerate() {
        let place = format!("{shown}:{}", number + 1);
        for (head, tail, reason) in LEFT_OVERS {
            if line.contains(&format!("{head}{tail}")) {
                breaches.push(format!("{place}: {head}{tail} {reason}"));
            }
        }
        let is_exempted = line.contains("(unsafe_code");
        if is_exempted && !name.starts_with("crates/host") && !name.starts_with("xtask") {
            breaches.push(format!("{place}: unsafe code belongs in crates/host"));
        }
    }
}

fn manifest(name: &Path, source: &str, breaches: &mut Vec<String>) -> Result<(), String> {
    let shown = name.display();
    let table: toml::Table = source
        .parse()
        .map_err(|cause| format!("{shown}: {cause}"))?;
    let inherits = |value: Option<&toml::Value>| {
        value.and_then(|value| value.get("workspace")) == Some(&toml::Value::Boolean(true))
    };
    if !inherits(table.get("lints")) {
        breaches.push(format!("{shown}: does not inherit the workspace's lints"));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let entries = table.get(section).and_then(toml::Value::as_table);
        for (dependency, value) in entries.into_iter().flatten() {
            if !inherits(Some(value)) {
                breaches.push(format!(
                    "{shown}: {dependency} takes its version from here and not from the workspace"
                ));
            }
        }
    }
    Ok(())
}

/// Whatever says how it is run can be run; what others include is in a folder `lib`.
fn script(root: &Path, path: &Path, breaches: &mut Vec<String>) -> Result<(), String> {
    let name = path.strip_prefix(root).unwrap_or(path);
    let shown = name.display();
    let problem = |cause| format!("{shown}: {cause}");
    let bytes = std::fs::read(path).map_err(problem)?;
    let mode = std::fs::metadata(path)
        .map_err(problem)?
        .permissions()
        .mode();
    let says_how = bytes.starts_with(b"#!");
    if says_how && mode & 0o100 == 0 {
        breaches.push(format!("{shown}: is a script and cannot be executed"));
    }
    let is_command = name
        .parent()
        .is_some_and(|folder| folder == Path::new("scripts"));
    if is_command && !says_how {
        breaches.push(format!("{shown}: does not say how it is run (#!)"));
    }
    Ok(())
}

/// Every file under `folder`, sorted; nothing when there is no such folder.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let problem = |cause| format!("{}: {cause}", folder.display());
    let mut found = vec![];
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let path = entry.path();
        if entry.file_type().map_err(problem)?.is_dir() {
            if entry.file_name() != "__pycache__" && entry.file_name() != "target" {
                found.extend(files(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
