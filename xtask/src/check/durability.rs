//! What is kept is written by a helper that makes it durable.
//!
//! A file that must survive a loss of power is written under another name,
//! synced, renamed, and its directory synced.  The crate `durable` does that.
//! Everything else that makes, renames or syncs files is listed here with its
//! reason.

use std::collections::BTreeSet;
use std::path::Path;

use super::read;
use super::sources::files;

/// Calls that make a file or give it a name.
const CALLS: &[&str] = &[
    "fs::write(",
    "fs::copy(",
    "fs::rename(",
    "fs::hard_link(",
    "File::create(",
    "File::create_new(",
    ".sync_all(",
    ".sync_data(",
];

/// The helper itself, and crates of tests and tools, which keep nothing.
const ELSEWHERE: &[&str] = &[
    "crates/durable/",
    "crates/bench/",
    "crates/fuzz/",
    "crates/testkit/",
];

/// File, call, and why it may.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "crates/bundle/src/bundle.rs",
        "File::create(",
        "parts of a bundle for the user who made it; cut off, it is made again",
    ),
    (
        "crates/bundle/src/package.rs",
        "fs::write(",
        "the manifest of such a bundle",
    ),
    (
        "crates/host/src/kernel/build.rs",
        "fs::copy(",
        "scratch, which the kernel store then imports durably",
    ),
    (
        "crates/host/src/kernel/build.rs",
        "fs::write(",
        "scratch, as above",
    ),
    (
        "crates/host/src/net/host_lock.rs",
        "File::create(",
        "a lock, which holds no bytes",
    ),
    (
        "crates/host/src/net/forwarding.rs",
        "fs::write(",
        "about this boot of the host alone, below /run",
    ),
    (
        "crates/host/src/net/forwarding.rs",
        "fs::rename(",
        "as above",
    ),
    (
        "crates/host/src/net/namespace.rs",
        "fs::write(",
        "settings of the kernel, below /proc",
    ),
    (
        "crates/objects/src/bodies.rs",
        "File::create_new(",
        "a temporary file, which durable::publish names",
    ),
];

pub(crate) fn check(root: &Path, breaches: &mut Vec<String>) -> Result<(), String> {
    let mut used = BTreeSet::new();
    for path in files(&root.join("crates"))? {
        let name = path.strip_prefix(root).unwrap_or(&path);
        let name = name.display().to_string();
        let is_ours = name.contains("/src/")
            && name.ends_with(".rs")
            && !ELSEWHERE.iter().any(|it| name.starts_with(it));
        if is_ours && !is_test(root, &name)? {
            source(&name, &read(&path)?, &mut used, breaches);
        }
    }
    for (place, (name, call, _)) in ALLOWED.iter().enumerate() {
        if !used.contains(&place) {
            breaches.push(format!(
                "{name}: does not call {call}) any more; strike it from xtask/src/check/durability.rs"
            ));
        }
    }
    Ok(())
}

/// Whether the file is of a module that only tests have: one that its parent declares so.
fn is_test(root: &Path, name: &str) -> Result<bool, String> {
    let Some((folder, file)) = name.rsplit_once('/') else {
        return Ok(false);
    };
    let stem = file.trim_end_matches(".rs");
    if stem == "tests" || folder.ends_with("/tests") {
        return Ok(true);
    }
    let mut found = false;
    // The parent of a/b.rs is a.rs, a/mod.rs or a/lib.rs; that of a/b/c.rs may itself be a test.
    for (folder, module) in [(folder, stem)].into_iter().chain(folder.rsplit_once('/')) {
        for parent in ["mod.rs", "lib.rs", "main.rs"].map(|it| format!("{folder}/{it}")) {
            let path = root.join(&parent);
            if path.is_file() {
                let text = read(&path)?;
                let declared = [
                    format!("mod {module};"),
                    format!("pub(crate) mod {module};"),
                ];
                let mut before = "";
                for line in text.lines().map(str::trim) {
                    found |= before == "#[cfg(test)]" && declared.iter().any(|it| it == line);
                    before = line;
                }
            }
        }
    }
    Ok(found)
}

fn source(name: &str, text: &str, used: &mut BTreeSet<usize>, breaches: &mut Vec<String>) {
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        // Tests are at the end.
        if before == "#[cfg(test)]" && line.starts_with("mod ") && line.ends_with('{') {
            return;
        }
        before = line;
        let code = line.split("//").next().unwrap_or_default();
        for call in CALLS.iter().filter(|call| code.contains(*call)) {
            let place = ALLOWED
                .iter()
                .position(|(file, allowed, _)| file == &name && allowed == call);
            match place {
                Some(place) => {
                    used.insert(place);
                }
                None => breaches.push(format!(
                    "{name}:{}: {call}) bypasses the helper that makes files durable",
                    number + 1
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bypass_is_found_and_tests_may() {
        let text = "fn a() {\n    std::fs::write(path, b\"\");\n}\n#[cfg(test)]\nmod tests {\n    fs::write(path);\n}\n";
        let mut breaches = vec![];
        source(
            "crates/x/src/a.rs",
            text,
            &mut BTreeSet::new(),
            &mut breaches,
        );
        assert_eq!(breaches.len(), 1, "{breaches:?}");
        assert!(breaches[0].starts_with("crates/x/src/a.rs:2: fs::write("));

        let mut used = BTreeSet::new();
        let (name, call, _) = ALLOWED[0];
        source(name, &format!("{call}path)"), &mut used, &mut breaches);
        assert_eq!((breaches.len(), used.len()), (1, 1));
    }
}
