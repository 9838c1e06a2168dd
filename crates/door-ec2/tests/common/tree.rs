//! Documents as trees, and whether one is what another one says, up to placeholders.
//!
//! Compared are names, namespaces, attributes, the order of elements, and texts; white space between
//! elements says nothing.  `{name}` for a text or an attribute stands for any value, and for the
//! same one wherever it occurs.

use std::collections::BTreeMap;

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

/// What placeholders stand for.
pub(crate) type Bindings = BTreeMap<String, String>;

impl Element {
    /// # Panics
    /// If the text is no document.
    pub(crate) fn parse(text: &str) -> Self {
        let mut reader = NsReader::from_str(text);
        let mut open = vec![Element::default()];
        loop {
            let (resolved, event) = reader
                .read_resolved_event()
                .unwrap_or_else(|cause| panic!("{cause}: {text}"));
            let namespace = match resolved {
                ResolveResult::Bound(namespace) => {
                    String::from_utf8_lossy(namespace.as_ref()).into_owned()
                }
                _ => String::new(),
            };
            match event {
                Event::Start(tag) => open.push(Self::of(&tag, namespace)),
                Event::Empty(tag) => {
                    let element = Self::of(&tag, namespace);
                    open.last_mut().expect("open").children.push(element);
                }
                Event::End(_) => {
                    let mut element = open.pop().expect("open");
                    if !element.children.is_empty() && element.text.trim().is_empty() {
                        element.text.clear();
                    }
                    open.last_mut().expect("open").children.push(element);
                }
                Event::Text(text) => {
                    let text = text.decode().expect("UTF-8");
                    open.last_mut().expect("open").text.push_str(&text);
                }
                Event::GeneralRef(name) => {
                    let character = match name.resolve_char_ref().expect("a character") {
                        Some(character) => character,
                        None => match name.as_ref() {
                            b"amp" => '&',
                            b"lt" => '<',
                            b"gt" => '>',
                            b"quot" => '"',
                            b"apos" => '\'',
                            other => panic!("the entity {other:?}"),
                        },
                    };
                    open.last_mut().expect("open").text.push(character);
                }
                Event::Eof => break,
                Event::Decl(_) | Event::Comment(_) => {}
                other => panic!("{other:?} has no place here"),
            }
        }
        let mut top = open.pop().expect("the document");
        assert!(open.is_empty() && top.children.len() == 1, "{text}");
        top.children.remove(0)
    }

    fn of(tag: &BytesStart<'_>, namespace: String) -> Self {
        let mut element = Self {
            namespace,
            name: String::from_utf8_lossy(tag.local_name().as_ref()).into_owned(),
            ..Self::default()
        };
        for attribute in tag.attributes() {
            let attribute = attribute.expect("an attribute");
            let name = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
            if name != "xmlns" && !name.starts_with("xmlns:") {
                let value = String::from_utf8_lossy(&attribute.value).into_owned();
                element.attributes.insert(name, value);
            }
        }
        element
    }

    /// Whether `self` is what `expected` says; what it differs in otherwise.
    ///
    /// # Errors
    /// The path of the first difference, and both sides of it.
    pub(crate) fn conforms(
        &self,
        expected: &Element,
        bindings: &mut Bindings,
    ) -> Result<(), String> {
        let named = |one: &Element| format!("{{{}}}{}", one.namespace, one.name);
        same("element", &named(self), &named(expected))?;
        let path = |error: String| format!("{}/{error}", self.name);
        let names = |one: &Element| one.attributes.keys().cloned().collect::<Vec<_>>().join(" ");
        same("attributes", &names(self), &names(expected)).map_err(path)?;
        for (name, value) in &expected.attributes {
            bound(&self.attributes[name], value, bindings).map_err(path)?;
        }
        let names = |one: &Element| {
            let names: Vec<&str> = one.children.iter().map(|it| it.name.as_str()).collect();
            names.join(" ")
        };
        same("elements", &names(self), &names(expected)).map_err(path)?;
        bound(&self.text, &expected.text, bindings).map_err(path)?;
        for (own, expected) in self.children.iter().zip(&expected.children) {
            own.conforms(expected, bindings).map_err(path)?;
        }
        Ok(())
    }
}

fn same(what: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "{what}:\n    found  {found:?}\n expected  {expected:?}"
    ))
}

/// A text that is expected, or stands for another one.
fn bound(found: &str, expected: &str, bindings: &mut Bindings) -> Result<(), String> {
    let is_placeholder = expected.starts_with('{') && expected.ends_with('}');
    if !is_placeholder {
        return same("text", found, expected);
    }
    if let Some(known) = bindings.get(expected) {
        return same(expected, found, known);
    }
    let kind = expected.trim_matches(|it: char| "{}".contains(it) || it.is_ascii_digit());
    if !looks_like(kind, found) {
        return Err(format!("{found:?} is no {kind}"));
    }
    // {instance1} and {instance2} are two.
    let is_sibling = |other: &str| {
        other.trim_matches(|it: char| "{}".contains(it) || it.is_ascii_digit()) == kind
    };
    if let Some((other, _)) = bindings
        .iter()
        .find(|(other, value)| is_sibling(other) && *value == found)
    {
        return Err(format!("{expected} is {found:?}, as {other} is already"));
    }
    bindings.insert(expected.to_owned(), found.to_owned());
    Ok(())
}

/// Whether a value has the form of what a placeholder is called for.
fn looks_like(kind: &str, value: &str) -> bool {
    let prefix = match kind {
        "image" => "ami-",
        "instance" => "i-",
        "reservation" => "r-",
        "pair" => "key-",
        "group" => "sg-",
        "vpc" => "vpc-",
        "subnet" => "subnet-",
        "interface" => "eni-",
        "volume" => "vol-",
        "time" => return cumulet_wire::time::parse_iso8601(value).is_some(),
        _ => return !value.is_empty(),
    };
    let rest = value.strip_prefix(prefix).unwrap_or_default();
    [8, 17].contains(&rest.len()) && rest.bytes().all(|it| it.is_ascii_hexdigit())
}

#[test]
fn placeholders_stand_for_one_value_each() {
    let expected = "<a xmlns='urn:a'>\n <b>{instance1}</b> <c x='{x}'>{instance2}</c><b>{instance1}</b><d/></a>";
    let expected = Element::parse(expected);
    let answer = |first: &str, attribute: &str, second: &str, third: &str| {
        let text = format!(
            "<a xmlns='urn:a'><b>{first}</b><c {attribute}>{second}</c><b>{third}</b><d></d></a>"
        );
        Element::parse(&text).conforms(&expected, &mut Bindings::new())
    };
    let (one, two) = ("i-00000001", "i-00000002");
    assert_eq!(answer(one, "x='1'", two, one), Ok(()));
    for (first, attribute, second, third) in [
        (one, "x='1'", two, two),
        (one, "x='1'", one, one),
        (one, "y='1'", two, one),
        (one, "", two, one),
        ("", "x='1'", two, ""),
        ("i-1", "x='1'", two, "i-1"),
        (one, "x=''", two, one),
    ] {
        assert!(answer(first, attribute, second, third).is_err());
    }
    for other in [
        "<a><b/></a>",
        "<a xmlns='urn:a'><c>1</c><b>1</b></a>",
        "<b xmlns='urn:a'/>",
    ] {
        let other = Element::parse(other);
        assert!(other.conforms(&expected, &mut Bindings::new()).is_err());
    }
    let text = Element::parse("<a>&lt;&#65;&amp;</a>");
    assert_eq!(text.text, "<A&");
}
