//! Makes the tables of `cumulet-ec2-model` and `docs/compatibility.md` from `models/`.
//!
//! The facts are names, types and version labels; what is written from them is
//! checked in, so that neither a build nor a check needs anything but this
//! repository.  `run(true)` compares and writes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

mod behaviours;
mod compatibility;
mod soap_types;

const GENERATED: &str = "crates/ec2-model/src/generated";
const HISTORY: &str = "models/ec2-api-history.json";
const REQUESTS: &str = "models/ec2-requests.txt";
const SOAP: &str = "models/ec2-soap.txt";
const LATER: &str = "models/ec2-later-operations.txt";

/// Writes the generated files, or with `check_only` says which of them differ.
///
/// # Errors
/// A text: what of the models cannot be read, or what is not current.
pub(crate) fn run(check_only: bool) -> Result<(), String> {
    let root = root();
    let facts = Facts::read(&root)?;
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    files.insert(format!("{GENERATED}/mod.rs"), index_file(&facts));
    files.insert(format!("{GENERATED}/versions.rs"), versions_file(&facts));
    files.insert(format!("{GENERATED}/known.rs"), known_file(&facts));
    let soap_types = facts.soap_types.file(&facts.operations);
    files.insert(format!("{GENERATED}/soap_types.rs"), soap_types);
    for operation in &facts.operations {
        let path = format!("{GENERATED}/{}.rs", snake(&operation.name));
        files.insert(path, operation_file(&facts, operation)?);
    }
    files.insert(
        "docs/compatibility.md".into(),
        compatibility::page(&root, &facts)?,
    );
    let mut stale = vec![];
    for (path, text) in &files {
        let is_current = std::fs::read_to_string(root.join(path)).is_ok_and(|old| old == *text);
        if is_current {
            continue;
        }
        if check_only {
            stale.push(path.clone());
        } else {
            write(&root.join(path), text)?;
        }
    }
    stale.extend(left_over(&root, &files)?);
    if stale.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "not current: {}; run `cargo xtask codegen` (files that nothing generates have to be deleted)",
            stale.join(", ")
        ))
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |cause: std::io::Error| format!("{}: {cause}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// Files of the generated folder that are not generated any more.
fn left_over(root: &Path, files: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let entries =
        std::fs::read_dir(root.join(GENERATED)).map_err(|cause| format!("{GENERATED}: {cause}"))?;
    let mut found = vec![];
    for entry in entries {
        let entry = entry.map_err(|cause| format!("{GENERATED}: {cause}"))?;
        let path = format!("{GENERATED}/{}", entry.file_name().to_string_lossy());
        if !files.contains_key(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

struct Facts {
    history: Value,
    versions: Vec<String>,
    operations: Vec<Operation>,
    soap_types: soap_types::Types,
    /// Every operation that is known: first version, and the last one if it went away.
    known: BTreeMap<String, (String, Option<String>)>,
}

struct Operation {
    name: String,
    parameters: Vec<Parameter>,
    /// Elements of its SOAP request, by path.
    soap: Vec<SoapField>,
}

struct SoapField {
    path: String,
    /// A parameter of the Query API with what it sets beside, or `=` and the one value that is accepted.
    meaning: String,
    first: String,
    last: Option<String>,
}

struct Parameter {
    name: String,
    kind: String,
    first: String,
    last: Option<String>,
    rule: String,
}

impl Facts {
    fn read(root: &Path) -> Result<Self, String> {
        let read = |path: &str| {
            std::fs::read_to_string(root.join(path)).map_err(|cause| format!("{path}: {cause}"))
        };
        let history: Value =
            serde_json::from_str(&read(HISTORY)?).map_err(|cause| format!("{HISTORY}: {cause}"))?;
        let mut versions: Vec<String> = array(&history["versions"])?
            .iter()
            .filter_map(|entry| entry["version"].as_str())
            .map(str::to_owned)
            .collect();
        versions.sort();
        let mut known = BTreeMap::new();
        for (name, entry) in object(&history["operations"])? {
            let first = dated(text(&entry["first_seen"])?);
            known.insert(
                name.clone(),
                (first, entry["last_seen"].as_str().map(dated)),
            );
        }
        for line in read(LATER)?.lines().filter(|line| !line.starts_with('#')) {
            known.insert(line.trim().to_owned(), ("2016-11-15".to_owned(), None));
        }
        let mut operations = parse_requests(&read(REQUESTS)?, &versions)?;
        let soap_types = soap_types::Types::parse(&read(soap_types::TYPES)?, &versions)?;
        soap_types.compare(&history, &versions)?;
        add_soap(&read(SOAP)?, &history, &versions, &mut operations)?;
        for operation in &operations {
            if !known.contains_key(&operation.name) {
                return Err(format!(
                    "{REQUESTS}: {} is not in the history",
                    operation.name
                ));
            }
        }
        Ok(Self {
            history,
            versions,
            operations,
            soap_types,
            known,
        })
    }

    /// The shapes of an answer: path, first and last version.
    fn fields(&self, operation: &str) -> Result<Vec<Field>, String> {
        let mut fields = vec![];
        for (path, entry) in object(&self.history["response_fields"][operation]["fields"])? {
            fields.push(Field {
                path: path.clone(),
                first: dated(text(&entry["first"])?),
                last: entry["last"].as_str().map(dated),
                kind: text(&entry["type"])?.to_owned(),
            });
        }
        Ok(fields)
    }

    fn first_of(&self, operation: &str) -> &str {
        self.known
            .get(operation)
            .map_or("", |(first, _)| first.as_str())
    }
}

struct Field {
    path: String,
    first: String,
    last: Option<String>,
    kind: String,
}

/// `2016-11-15 (as amended …)` is that version too.
fn dated(label: &str) -> String {
    label.chars().take(10).collect()
}

fn parse_requests(text: &str, versions: &[String]) -> Result<Vec<Operation>, String> {
    let mut operations: Vec<Operation> = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| format!("{REQUESTS}:{number}: {what}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("operation ") {
            operations.push(Operation {
                name: name.trim().to_owned(),
                parameters: vec![],
                soap: vec![],
            });
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, kind, first, last, rule] = words.as_slice() else {
            return Err(wrong("a parameter has five columns"));
        };
        if !["string", "integer", "boolean", "base64", "time"].contains(kind) {
            return Err(wrong("unknown type"));
        }
        let is_version = |text: &str| versions.iter().any(|version| version == text);
        if !is_version(first) || !(*last == "-" || is_version(last)) {
            return Err(wrong("not a version of the history"));
        }
        if !["honoured", "required", "refused", "soap"].contains(rule) && !rule.starts_with("only:")
        {
            return Err(wrong("unknown rule"));
        }
        let operation = operations
            .last_mut()
            .ok_or_else(|| wrong("no operation yet"))?;
        operation.parameters.push(Parameter {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            first: (*first).to_owned(),
            last: (*last != "-").then(|| (*last).to_owned()),
            rule: (*rule).to_owned(),
        });
    }
    Ok(operations)
}

/// What an element stands for, and from which version on if that is not the first.
type Meaning = (String, Option<String>);

/// Reads where the elements of SOAP requests go, and compares with the history: every element that
/// holds a value must go somewhere, and to a parameter that there is.
fn add_soap(
    text: &str,
    history: &Value,
    versions: &[String],
    operations: &mut [Operation],
) -> Result<(), String> {
    let mut lines: BTreeMap<(String, String), Vec<Meaning>> = BTreeMap::new();
    let mut operation = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| format!("{SOAP}:{number}: {what}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("operation ") {
            name.trim().clone_into(&mut operation);
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (path, meaning, from) = match words.as_slice() {
            [path, meaning] => (*path, *meaning, None),
            [path, meaning, from] => (*path, *meaning, Some((*from).to_owned())),
            _ => return Err(wrong("an element has two or three columns")),
        };
        if from.as_ref().is_some_and(|it| !versions.contains(it)) {
            return Err(wrong("not a version of the history"));
        }
        let place = (operation.clone(), path.to_owned());
        let meanings = lines.entry(place).or_default();
        meanings.push((meaning.to_owned(), from));
    }
    for operation in operations.iter_mut() {
        let known = &history["soap_request_fields"][&operation.name];
        let Some(fields) = known["fields"].as_object() else {
            continue;
        };
        let gone = known["versions_with_operation"][1].as_str();
        for (path, entry) in fields {
            let place = (operation.name.clone(), path.clone());
            let Some(meanings) = lines.remove(&place) else {
                if self::text(&entry["type"])?.starts_with('(') {
                    continue;
                }
                return Err(format!("{SOAP}: {} {path} goes nowhere", operation.name));
            };
            let span = (
                dated(self::text(&entry["first"])?),
                entry["last"].as_str().or(gone).map(dated),
            );
            operation.soap.extend(spans(path, meanings, span, versions));
        }
        let attributes: Vec<_> = lines
            .keys()
            .filter(|(name, path)| *name == operation.name && path.contains("/@"))
            .cloned()
            .collect();
        for place in attributes {
            let element = place.1.split("/@").next().unwrap_or_default();
            let first = self::text(&fields[element]["first"])?;
            let span = (dated(first), gone.map(dated));
            let meanings = lines.remove(&place).unwrap_or_default();
            operation
                .soap
                .extend(spans(&place.1, meanings, span, versions));
        }
        for field in &operation.soap {
            for named in named_by(&field.meaning) {
                if !operation.parameters.iter().any(|it| it.name == named) {
                    let name = &operation.name;
                    return Err(format!("{SOAP}: {name} has no parameter {named}"));
                }
            }
        }
    }
    match lines.keys().next() {
        Some((operation, path)) => Err(format!("{SOAP}: {operation} has no {path}")),
        None => Ok(()),
    }
}

/// The parameters that a meaning sets.
fn named_by(meaning: &str) -> Vec<&str> {
    if meaning.starts_with('=') {
        return vec![];
    }
    let words = meaning.split('+').filter(|word| !word.is_empty());
    words.filter_map(|word| word.split('=').next()).collect()
}

/// A meaning as the table has it.
fn meaning_text(meaning: &str) -> String {
    if let Some(value) = meaning.strip_prefix('=') {
        return format!("Meaning::Always(\"{value}\")");
    }
    let Some((parameter, sets)) = meaning.split_once('+') else {
        return format!("Meaning::Parameter(\"{meaning}\")");
    };
    let sets: Vec<String> = sets
        .split('+')
        .filter_map(|set| set.split_once('='))
        .map(|(name, value)| format!("(\"{name}\", \"{value}\")"))
        .collect();
    let parameter = match parameter {
        "" => "None".to_owned(),
        name => format!("Some(\"{name}\")"),
    };
    format!("Meaning::Sets({parameter}, &[{}])", sets.join(", "))
}

/// What an element means from when to when.
fn spans(
    path: &str,
    meanings: Vec<Meaning>,
    (first, last): (String, Option<String>),
    versions: &[String],
) -> Vec<SoapField> {
    let mut fields: Vec<SoapField> = vec![];
    for (meaning, from) in meanings {
        if let (Some(from), Some(before)) = (&from, fields.last_mut()) {
            let place = versions.iter().position(|it| it == from).unwrap_or(0);
            before.last = versions.get(place.saturating_sub(1)).cloned();
        }
        fields.push(SoapField {
            path: path.to_owned(),
            meaning,
            first: from.unwrap_or_else(|| first.clone()),
            last: last.clone(),
        });
    }
    fields
}

fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("{HISTORY}: a list was expected"))
}

fn object(value: &Value) -> Result<&serde_json::Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{HISTORY}: a map was expected"))
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{HISTORY}: a text was expected"))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, character) in name.chars().enumerate() {
        if index > 0 && character.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}

const HEAD: &str = "// Generated by `cargo xtask codegen` from models/. Do not edit.\n";

fn version_name(version: &str) -> String {
    format!("V{}", version.replace('-', "_"))
}

fn last_name(last: Option<&String>) -> String {
    last.map_or("None".into(), |last| {
        format!("Some({})", version_name(last))
    })
}

fn index_file(facts: &Facts) -> String {
    let mut out = format!(
        "//! Tables of the EC2 API by version.\n{HEAD}\npub(crate) mod known;\npub(crate) mod soap_types;\npub(crate) mod versions;\n"
    );
    for operation in &facts.operations {
        let _ = writeln!(out, "mod {};", snake(&operation.name));
    }
    let mut names: Vec<&str> = facts
        .operations
        .iter()
        .map(|operation| operation.name.as_str())
        .collect();
    names.sort_unstable();
    out.push_str("\n/// Operations implemented here, by name.\npub(crate) static OPERATIONS: &[&crate::model::Operation] = &[\n");
    for name in names {
        let _ = writeln!(out, "    &{}::OPERATION,", snake(name));
    }
    out.push_str("];\n");
    out.push_str(
        "\n/// Hands every implemented operation to the macro `$each`, as `file_name \"Name\";`, so that what\n\
         /// must be there for each of them fails to compile where it is not.\n\
         #[macro_export]\nmacro_rules! for_each_operation {\n    ($each:ident) => {\n        $each! {\n",
    );
    for operation in &facts.operations {
        let name = &operation.name;
        let _ = writeln!(out, "            {} \"{name}\";", snake(name));
    }
    out.push_str("        }\n    };\n}\n");
    out
}

fn versions_file(facts: &Facts) -> String {
    let mut out =
        format!("//! The dated versions, oldest first.\n{HEAD}\nuse crate::version::Version;\n\n");
    for (index, version) in facts.versions.iter().enumerate() {
        let _ = writeln!(
            out,
            "pub const {}: Version = Version({index});",
            version_name(version)
        );
    }
    out.push_str("\npub(crate) static NAMES: &[&str] = &[\n");
    for version in &facts.versions {
        let _ = writeln!(out, "    \"{version}\",");
    }
    out.push_str("];\n");
    out
}

fn known_file(facts: &Facts) -> String {
    let mut out = format!(
        "//! Every operation that EC2 is known to have had, by name, with its first and last version.\n{HEAD}\nuse super::versions::*;\nuse crate::version::Version;\n\npub(crate) static KNOWN: &[(&str, Version, Option<Version>)] = &[\n"
    );
    for (position, (name, (first, last))) in facts.known.iter().enumerate() {
        let _ = write!(
            out,
            "{}(\"{name}\", {}, {}),{}",
            if position % 2 == 0 { "    " } else { " " },
            version_name(first),
            last_name(last.as_ref()),
            if position % 2 == 1 || position + 1 == facts.known.len() {
                "\n"
            } else {
                ""
            },
        );
    }
    out.push_str("];\n");
    out
}

fn operation_file(facts: &Facts, operation: &Operation) -> Result<String, String> {
    let name = &operation.name;
    let mut out = format!(
        "//! {name}.\n{HEAD}\n#[allow(clippy::wildcard_imports)]\nuse super::versions::*;\nuse crate::model::{{Kind, {}Operation, Parameter, Rule, Shape{}}};\n\n",
        if operation.soap.is_empty() {
            ""
        } else {
            "Meaning, "
        },
        if operation.soap.is_empty() {
            ""
        } else {
            ", SoapField"
        },
    );
    let _ = write!(
        out,
        "pub(crate) static OPERATION: Operation = Operation {{\n    name: \"{name}\",\n    first: {},\n    parameters: PARAMETERS,\n    answer: ANSWER,\n    soap: {},\n}};\n\n",
        version_name(facts.first_of(name)),
        if operation.soap.is_empty() {
            "&[]"
        } else {
            "SOAP"
        },
    );
    let mut parameters: Vec<&Parameter> = operation.parameters.iter().collect();
    parameters.sort_by(|one, other| one.name.cmp(&other.name));
    out.push_str("static PARAMETERS: &[Parameter] = &[\n");
    for it in parameters {
        let rule = match it.rule.as_str() {
            "honoured" => "Rule::Honoured".to_owned(),
            "required" => "Rule::Required".to_owned(),
            "refused" => "Rule::Refused".to_owned(),
            "soap" => "Rule::Soap".to_owned(),
            other => format!("Rule::Only(\"{}\")", other.trim_start_matches("only:")),
        };
        let kind = match it.kind.as_str() {
            "string" => "Text",
            "integer" => "Integer",
            "boolean" => "Boolean",
            "base64" => "Base64",
            _ => "Time",
        };
        let _ = writeln!(
            out,
            "    Parameter {{ name: \"{}\", kind: Kind::{kind}, first: {}, last: {}, rule: {rule} }},",
            it.name,
            version_name(&it.first),
            last_name(it.last.as_ref())
        );
    }
    out.push_str("];\n\nstatic ANSWER: &[Shape] = &[\n");
    let fields = facts.fields(name)?;
    shapes(&fields, "", 1, &mut out);
    out.push_str("];\n");
    if !operation.soap.is_empty() {
        soap_table(&operation.soap, &mut out);
    }
    Ok(out)
}

fn soap_table(fields: &[SoapField], out: &mut String) {
    let mut fields: Vec<&SoapField> = fields.iter().collect();
    fields.sort_by_key(|it| (&it.path, &it.first));
    out.push_str("\nstatic SOAP: &[SoapField] = &[\n");
    for it in fields {
        let meaning = meaning_text(&it.meaning);
        let _ = writeln!(
            out,
            "    SoapField {{ path: \"{}\", meaning: {meaning}, first: {}, last: {} }},",
            it.path,
            version_name(&it.first),
            last_name(it.last.as_ref())
        );
    }
    out.push_str("];\n");
}

/// The children of `parent`, each with its own.
fn shapes(fields: &[Field], parent: &str, depth: usize, out: &mut String) {
    let is_below = |field: &&Field| {
        let above = field.path.rsplit_once('/').map_or("", |(above, _)| above);
        above == parent
    };
    let mut children: Vec<&Field> = fields.iter().filter(is_below).collect();
    children.sort_by(|one, other| one.path.cmp(&other.path));
    for field in children {
        let name = field.path.rsplit('/').next().unwrap_or(&field.path);
        let indent = "    ".repeat(depth);
        let is_container = field.kind.starts_with('(');
        let _ = write!(
            out,
            "{indent}Shape {{ name: \"{name}\", first: {}, last: {}, is_container: {is_container}, children: &[",
            version_name(&field.first),
            last_name(field.last.as_ref())
        );
        if fields
            .iter()
            .any(|other| other.path.starts_with(&format!("{}/", field.path)))
        {
            out.push('\n');
            shapes(fields, &field.path, depth + 1, out);
            out.push_str(&indent);
        }
        out.push_str("] },\n");
    }
}
