//! `docs/compatibility.md`: which operation there is in which version, by which binding, and what tests it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::{Facts, Parameter, behaviours, snake};

const CASES: &str = "crates/door-ec2/tests/conformance/cases";
const CLIENTS: &str = "tests/clients";
/// What client programs call operations, where that is not the operation's name.
const WORDS: &str = "models/ec2-client-words.txt";

/// What is tested where, as the files of the tests say.
struct Tests {
    /// By operation: versions of its cases, and whether they are asked by SOAP too.
    cases: BTreeMap<String, BTreeMap<String, bool>>,
    /// By operation: names of scripts.
    clients: BTreeMap<String, BTreeSet<String>>,
}

impl Tests {
    fn read(root: &Path, facts: &Facts) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))
        };
        let mut tests = Self {
            cases: BTreeMap::new(),
            clients: BTreeMap::new(),
        };
        let mut words: Vec<(String, String)> = vec![];
        for line in read(&root.join(WORDS))?.lines() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (word, name) = line
                .split_once(' ')
                .ok_or_else(|| format!("{WORDS}: {line}"))?;
            words.push((word.to_owned(), name.trim().to_owned()));
        }
        for operation in &facts.operations {
            let name = &operation.name;
            let path = root.join(CASES).join(format!("{}.txt", snake(name)));
            // The build of the tests demands the file; a table can be made without.
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            tests.cases.insert(name.clone(), versions_of_cases(&text));
            words.push((name.clone(), name.clone()));
            words.push((snake(name), name.clone()));
            words.push((snake(name).replace('_', "-"), name.clone()));
        }
        let entries =
            std::fs::read_dir(root.join(CLIENTS)).map_err(|cause| format!("{CLIENTS}: {cause}"))?;
        for entry in entries {
            let path = entry.map_err(|cause| format!("{CLIENTS}: {cause}"))?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if !path.is_file() {
                continue;
            }
            let text = read(&path)?;
            for (_, name) in words.iter().filter(|(word, _)| has_word(&text, word)) {
                let clients = tests.clients.entry(name.clone()).or_default();
                clients.insert(stem.clone().into_owned());
            }
        }
        Ok(tests)
    }

    fn conformance_of(&self, name: &str) -> String {
        let cases = self.cases.get(name).into_iter().flatten();
        let cases: Vec<String> = cases
            .map(|(version, by_soap)| {
                let how = if *by_soap { "Query, SOAP" } else { "Query" };
                format!("{version} ({how})")
            })
            .collect();
        dash_if_empty(&cases)
    }

    fn clients_of(&self, name: &str) -> String {
        let clients = self.clients.get(name).into_iter().flatten();
        let clients: Vec<String> = clients.map(|it| format!("`{it}`")).collect();
        dash_if_empty(&clients)
    }
}

fn dash_if_empty(texts: &[String]) -> String {
    if texts.is_empty() {
        "-".into()
    } else {
        texts.join(", ")
    }
}

/// The versions of the cases of a file, and whether SOAP is among their bindings.
fn versions_of_cases(text: &str) -> BTreeMap<String, bool> {
    let mut versions = BTreeMap::new();
    let mut version = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("case ") {
            version = rest.chars().take(10).collect();
            versions.entry(version.clone()).or_insert(false);
        } else if line == "soap" {
            versions.insert(version.clone(), true);
        }
    }
    versions
}

/// Whether a text has a word, which letters, digits and `_` would make longer.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text.get(..start).and_then(|it| it.chars().next_back());
        let after = text
            .get(start + word.len()..)
            .and_then(|it| it.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(|it| is_part(it) || it == '-')
    })
}

/// From when to when an operation is had by Query.
fn spans_of(facts: &Facts, operation: &str) -> String {
    let first = facts.first_of(operation);
    match facts.known.get(operation) {
        Some((_, Some(last))) => format!("{first} to {last}"),
        _ => format!("{first} on"),
    }
}

/// From when to when an operation is had by SOAP.
fn soap_of(facts: &Facts, operation: &str) -> String {
    let span = &facts.history["soap_request_fields"][operation]["versions_with_operation"];
    match (span[0].as_str(), span[1].as_str()) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "-".into(),
    }
}

pub(super) fn page(root: &Path, facts: &Facts) -> Result<String, String> {
    let tests = Tests::read(root, facts)?;
    let mut out = String::from(
        "# Compatibility: the EC2 API\n\n\
         <!-- Generated by `cargo xtask codegen` from models/. Do not edit. -->\n\n\
         Every answer has the shape and the namespace of the version that was asked for. ",
    );
    let _ = writeln!(
        out,
        "Versions: the {} dated ones from {} to {}.",
        facts.versions.len(),
        facts.versions.first().map_or("", String::as_str),
        facts.versions.last().map_or("", String::as_str)
    );
    out.push_str(
        "The Query binding has all of them, the SOAP binding those up to 2013-08-15.\n\n\
         ## Operations\n\n\
         *Conformance* names the versions of which the reference's own requests and answers are compared word by word\n\
         (`crates/door-ec2/tests/conformance/cases`, a file per operation).\n\
         *Clients* are the scripts of `tests/clients` that ask for the operation.\n\
         Every operation is asked in every version and binding in `crates/door-ec2/tests/versions.rs`: its answers have no element\n\
         that the version lacks and all that it demands, in their order.\n\n\
         | operation | by Query | by SOAP | conformance | clients |\n| --- | --- | --- | --- | --- |\n",
    );
    for operation in &facts.operations {
        let name = &operation.name;
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} |",
            spans_of(facts, name),
            soap_of(facts, name),
            tests.conformance_of(name),
            tests.clients_of(name),
        );
    }
    let implemented: BTreeSet<&str> = facts.operations.iter().map(|it| it.name.as_str()).collect();
    let others = facts
        .known
        .keys()
        .filter(|name| !implemented.contains(name.as_str()))
        .count();
    let _ = write!(
        out,
        "\nSTS `GetCallerIdentity` (2011-06-15) is answered too. The other {others} operations that EC2 is known to have, or to have had,\n\
         answer `UnsupportedOperation`; a name that EC2 never knew, or that the asked version did not have, answers `InvalidAction`.\n\n\
         ## Behaviour that changed between versions\n\n\
         What differs beyond names and shapes, which the tables have.\n\n\
         | versions | what | tested by (`crates/door-ec2/tests`) |\n| --- | --- | --- |\n{}\n\
         ## Parameters\n\n\
         `only` passes with the value that describes what happens anyway and is `UnsupportedOperation` with another; *refused*\n\
         is `UnsupportedOperation` with any value. What is not listed for a version is `UnknownParameter`.\n",
        behaviours::rows(root, &facts.versions)?
    );
    for operation in &facts.operations {
        let _ = write!(out, "\n### {}\n\n", operation.name);
        for (title, wanted) in [
            ("honoured", ["honoured", "required"]),
            ("refused", ["refused", ""]),
            ("honoured by SOAP alone", ["soap", ""]),
        ] {
            let names: Vec<String> = operation
                .parameters
                .iter()
                .filter(|it| wanted.contains(&it.rule.as_str()))
                .map(span)
                .collect();
            if !names.is_empty() {
                let _ = writeln!(out, "- {title}: {}", names.join(", "));
            }
        }
        let only: Vec<String> = operation
            .parameters
            .iter()
            .filter_map(|it| {
                Some(format!(
                    "{} = `{}`",
                    span(it),
                    it.rule.strip_prefix("only:")?
                ))
            })
            .collect();
        if !only.is_empty() {
            let _ = writeln!(out, "- only: {}", only.join(", "));
        }
    }
    Ok(out)
}

fn span(parameter: &Parameter) -> String {
    let last = parameter
        .last
        .as_ref()
        .map_or(String::new(), |last| format!(" to {last}"));
    format!("`{}` (since {}{last})", parameter.name, parameter.first)
}
