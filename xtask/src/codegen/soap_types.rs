//! The types of the SOAP binding's schema: read from `models/ec2-soap-types.txt`, compared with the
//! history, and written as a table.
//!
//! The history says which element is in which version and, for 2007-03-01, all of the schema; the
//! list of types says the order and the types' names too.  Where both say something they must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::{HEAD, Operation, array, dated, object, snake, text, version_name};

pub(super) const TYPES: &str = "models/ec2-soap-types.txt";

/// The last version that has the SOAP binding.
const LAST: &str = "2013-08-15";
/// From this version on answers begin with their request's id.
const REQUEST_ID_FIRST: &str = "2008-08-08";
/// The version of which the history has the whole schema.
const WHOLE: &str = "2007-03-01";
const PLAIN: [&str; 4] = ["string", "int", "boolean", "dateTime"];

pub(super) struct Types {
    by_name: BTreeMap<String, Type>,
    /// What an operation answered at first: the type, and the last version with it.
    early: BTreeMap<String, (String, String)>,
}

#[derive(Default)]
struct Type {
    is_mixed: bool,
    members: Vec<Member>,
    /// Name and the only value.
    attributes: Vec<(String, String)>,
}

struct Member {
    name: String,
    kind: String,
    occurs: char,
    first: Option<String>,
    last: Option<String>,
}

impl Member {
    fn is_in(&self, version: &str) -> bool {
        self.first.as_deref().is_none_or(|first| first <= version)
            && self.last.as_deref().is_none_or(|last| version <= last)
    }
}

impl Types {
    pub(super) fn parse(source: &str, versions: &[String]) -> Result<Self, String> {
        let mut types: BTreeMap<String, Type> = BTreeMap::new();
        let mut early = BTreeMap::new();
        let mut current = String::new();
        for (number, line) in (1..).zip(source.lines()) {
            let wrong = |what: &str| format!("{TYPES}:{number}: {what}");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                // A member may be called "type": it is indented.
                ["type", name, rest @ ..] if line.starts_with("type") => {
                    (*name).clone_into(&mut current);
                    let is_mixed = rest == ["mixed"];
                    let new = Type {
                        is_mixed,
                        ..Type::default()
                    };
                    if types.insert(current.clone(), new).is_some() {
                        return Err(wrong("the type is there twice"));
                    }
                }
                ["answer", operation, name, last] if line.starts_with("answer") => {
                    let answer = ((*name).to_owned(), (*last).to_owned());
                    early.insert((*operation).to_owned(), answer);
                }
                [attribute, value] if attribute.starts_with('@') && value.starts_with('=') => {
                    let parent = types
                        .get_mut(&current)
                        .ok_or_else(|| wrong("no type yet"))?;
                    let pair = (attribute.replace('@', ""), value.replace('=', ""));
                    parent.attributes.push(pair);
                }
                [name, kind, occurs, span @ ..] if span.len() < 3 => {
                    if span
                        .iter()
                        .any(|it| !versions.iter().any(|known| known == it))
                    {
                        return Err(wrong("not a version of the history"));
                    }
                    let occurs = match *occurs {
                        "1" | "?" | "*" | "+" | "|" => occurs.chars().next().unwrap_or('1'),
                        _ => return Err(wrong("unknown occurrence")),
                    };
                    let parent = types
                        .get_mut(&current)
                        .ok_or_else(|| wrong("no type yet"))?;
                    parent.members.push(Member {
                        name: (*name).to_owned(),
                        kind: (*kind).to_owned(),
                        occurs,
                        first: span.first().map(|it| (*it).to_owned()),
                        last: span.get(1).map(|it| (*it).to_owned()),
                    });
                }
                _ => return Err(wrong("a member has three to five columns")),
            }
        }
        for (name, it) in &types {
            let unknown = it.members.iter().find(|member| {
                !PLAIN.contains(&member.kind.as_str()) && !types.contains_key(&member.kind)
            });
            if let Some(member) = unknown {
                return Err(format!(
                    "{TYPES}: {name} has a member of no type: {}",
                    member.kind
                ));
            }
        }
        Ok(Self {
            by_name: types,
            early,
        })
    }

    /// Everything that the history says of the SOAP binding must be so here, and nothing else.
    pub(super) fn compare(&self, history: &Value, versions: &[String]) -> Result<(), String> {
        for (table, suffix) in [
            ("soap_request_fields", "Type"),
            ("response_fields", "ResponseType"),
        ] {
            for (operation, entry) in object(&history[table])? {
                let span = array(&entry["versions_with_operation"])?;
                let first = dated(text(&span[0])?);
                let name = format!("{operation}{suffix}");
                for version in versions {
                    let version = version.as_str();
                    if version < first.as_str() || version > LAST {
                        continue;
                    }
                    let mut mine = BTreeMap::new();
                    self.paths(&name, version, "", &mut mine)?;
                    if suffix == "ResponseType" && version >= REQUEST_ID_FIRST {
                        mine.insert("requestId".into(), "string".into());
                    }
                    compare_paths(&mine, &entry["fields"], version)
                        .map_err(|what| format!("{TYPES}: {name} in {version}: {what}"))?;
                }
            }
        }
        self.compare_whole(&history["wsdl_2007_03_01"])
    }

    /// Every path below a type in a version, with the type of what is there.
    fn paths(
        &self,
        name: &str,
        version: &str,
        above: &str,
        out: &mut BTreeMap<String, String>,
    ) -> Result<(), String> {
        let it = self
            .by_name
            .get(name)
            .ok_or_else(|| format!("{TYPES}: there is no type {name}"))?;
        for member in it.members.iter().filter(|member| member.is_in(version)) {
            let path = format!("{above}{}", member.name);
            if !PLAIN.contains(&member.kind.as_str()) {
                self.paths(&member.kind, version, &format!("{path}/"), out)?;
            }
            if out.insert(path.clone(), member.kind.clone()).is_some() {
                return Err(format!("{TYPES}: {name} has {path} twice in {version}"));
            }
        }
        Ok(())
    }

    /// The schema of the one version that the history has whole: names, types, order, occurrence.
    fn compare_whole(&self, wsdl: &Value) -> Result<(), String> {
        for (name, entry) in object(&wsdl["types"])? {
            let mut theirs = vec![];
            for element in array(&entry["elements"])? {
                match element["group_ref"].as_str() {
                    Some(group) => {
                        for element in array(&wsdl["groups"][group])? {
                            theirs.push(element_line(element)?);
                        }
                    }
                    None => theirs.push(element_line(element)?),
                }
            }
            let mine: Vec<String> = self
                .by_name
                .get(name)
                .into_iter()
                .flat_map(|it| &it.members)
                .filter(|member| member.is_in(WHOLE))
                .map(|member| format!("{} {} {}", member.name, member.kind, member.occurs))
                .collect();
            if mine != theirs {
                return Err(format!(
                    "{TYPES}: {name} is {mine:?} in {WHOLE} and was {theirs:?}"
                ));
            }
        }
        Ok(())
    }

    /// The table of what the operations need, types before those that name them.
    pub(super) fn file(&self, operations: &[Operation]) -> String {
        let mut names: Vec<&str> = operations
            .iter()
            .filter(|operation| !operation.soap.is_empty())
            .map(|operation| operation.name.as_str())
            .filter(|name| {
                self.by_name.contains_key(&format!("{name}Type"))
                    && self.by_name.contains_key(&format!("{name}ResponseType"))
            })
            .collect();
        names.sort_unstable();
        let mut out = format!(
            "//! The types of the SOAP binding's schema.\n{HEAD}\n#[allow(clippy::wildcard_imports)]\nuse super::versions::*;\nuse crate::soap_types::{{Kind, Member, Message, Occurs, Type}};\n\n\
             /// What the operations take and answer, by name.\npub(crate) static MESSAGES: &[Message] = &[\n"
        );
        for name in &names {
            let request = constant(&format!("{name}Type"));
            let response = constant(&format!("{name}ResponseType"));
            let early = self.early.get(*name).map_or("None".into(), |(it, last)| {
                format!("Some((&{}, {}))", constant(it), version_name(last))
            });
            let _ = writeln!(
                out,
                "    Message {{ operation: \"{name}\", request: &{request}, response: &{response}, early: {early} }},"
            );
        }
        out.push_str("];\n");
        let mut done = BTreeSet::new();
        for name in names {
            for suffix in ["Type", "ResponseType"] {
                self.write(&format!("{name}{suffix}"), &mut done, &mut out);
            }
            if let Some((early, _)) = self.early.get(name) {
                self.write(early, &mut done, &mut out);
            }
        }
        out
    }

    fn write<'a>(&'a self, name: &str, done: &mut BTreeSet<&'a str>, out: &mut String) {
        let Some((name, it)) = self.by_name.get_key_value(name) else {
            return;
        };
        if !done.insert(name) {
            return;
        }
        for member in &it.members {
            self.write(&member.kind, done, out);
        }
        let attributes: Vec<String> = it
            .attributes
            .iter()
            .map(|(name, value)| format!("(\"{name}\", \"{value}\")"))
            .collect();
        let _ = write!(
            out,
            "\nstatic {}: Type = Type {{ name: \"{name}\", is_mixed: {}, attributes: &[{}], members: &[",
            constant(name),
            it.is_mixed,
            attributes.join(", ")
        );
        for member in &it.members {
            let kind = if PLAIN.contains(&member.kind.as_str()) {
                format!("Kind::Plain(\"{}\")", member.kind)
            } else {
                format!("Kind::Typed(&{})", constant(&member.kind))
            };
            let occurs = match member.occurs {
                '1' => "Once",
                '?' => "AtMostOnce",
                '*' => "Any",
                '+' => "AtLeastOnce",
                _ => "Choice",
            };
            let version = |it: &Option<String>| {
                it.as_deref()
                    .map_or("None".into(), |it| format!("Some({})", version_name(it)))
            };
            let _ = write!(
                out,
                "\n    Member {{ name: \"{}\", kind: {kind}, occurs: Occurs::{occurs}, first: {}, last: {} }},",
                member.name,
                version(&member.first),
                version(&member.last)
            );
        }
        out.push_str(if it.members.is_empty() {
            "] };\n"
        } else {
            "\n] };\n"
        });
    }
}

fn constant(name: &str) -> String {
    snake(name).to_ascii_uppercase()
}

/// An element of the history's schema as a line of the list.
fn element_line(element: &Value) -> Result<String, String> {
    let occurs = match (
        element["choice"].as_bool(),
        element["minOccurs"].as_str(),
        element["maxOccurs"].as_str(),
    ) {
        (Some(true), _, _) => '|',
        (_, Some("0"), Some("unbounded")) => '*',
        (_, _, Some("unbounded")) => '+',
        (_, Some("0"), _) => '?',
        _ => '1',
    };
    let kind = text(&element["type"])?.trim_start_matches("xs:");
    Ok(format!("{} {kind} {occurs}", text(&element["name"])?))
}

fn compare_paths(
    mine: &BTreeMap<String, String>,
    fields: &Value,
    version: &str,
) -> Result<(), String> {
    let mut theirs = BTreeSet::new();
    for (path, entry) in object(fields)? {
        let is_gone = entry["last"]
            .as_str()
            .is_some_and(|last| dated(last).as_str() < version);
        if dated(text(&entry["first"])?).as_str() > version || is_gone {
            continue;
        }
        theirs.insert(path.as_str());
        let kind = text(&entry["type"])?;
        let Some(found) = mine.get(path) else {
            return Err(format!("{path} is missing"));
        };
        let is_same = match kind.strip_prefix("xs:") {
            Some(plain) => plain == found,
            None => !PLAIN.contains(&found.as_str()),
        };
        if !is_same {
            return Err(format!("{path} is {found} and was {kind}"));
        }
    }
    match mine.keys().find(|path| !theirs.contains(path.as_str())) {
        Some(path) => Err(format!("{path} was not there")),
        None => Ok(()),
    }
}
