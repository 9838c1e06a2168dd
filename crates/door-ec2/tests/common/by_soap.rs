//! The message that says by SOAP what parameters say by Query.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use cumulet_ec2_model::model::{self, Meaning, SoapField};
use cumulet_ec2_model::{Version, dates, soap};

use super::{Client, Reply, form};

/// Operations and versions that were asked so.
pub(crate) type Told = Arc<Mutex<BTreeSet<(String, String)>>>;

/// An element, and where its items stand.
#[derive(Default)]
struct Node {
    name: String,
    /// In the order of their names.
    attributes: Vec<(String, String)>,
    children: Vec<Node>,
    text: String,
}

impl Node {
    /// The child of this name; the how manieth of them counts for items only.
    fn child(&mut self, name: &str, number: usize) -> &mut Node {
        let nth = if name == "item" { number } else { 1 };
        while self.children.iter().filter(|it| it.name == name).count() < nth {
            self.children.push(Node {
                name: name.to_owned(),
                ..Node::default()
            });
        }
        let mut named = self.children.iter_mut().filter(|it| it.name == name);
        named.nth(nth - 1).expect("made above")
    }

    fn write(&self, out: &mut String) {
        out.push_str(&format!("<{}", self.name));
        for (name, value) in &self.attributes {
            out.push_str(&format!(" {name}=\"{value}\""));
        }
        out.push('>');
        cumulet_wire::xml::escape(&self.text, out);
        for child in &self.children {
            child.write(out);
        }
        out.push_str(&format!("</{}>", self.name));
    }
}

/// What a request's element holds, in canonical form; `None` if the version's messages have no
/// words for all of the parameters.
pub(crate) fn message(action: &str, version: &str, parameters: &[(&str, &str)]) -> Option<String> {
    let version = Version::parse(version).filter(|version| *version <= soap::LAST)?;
    let operation = model::operation(action)?;
    let renamed: Vec<(String, &str)> = parameters
        .iter()
        .map(|(name, value)| (name_by_soap(action, version, name), *value))
        .collect();
    let is_given =
        |name: &str, value: &str| renamed.iter().any(|it| *it == (name.to_owned(), value));
    let fields: Vec<&SoapField> = operation
        .soap
        .iter()
        .filter(|it| version.is_within(it.first, it.last))
        .collect();
    let mut root = Node::default();
    let mut said: Vec<&str> = vec![];
    for (name, value) in &renamed {
        for field in &fields {
            let (pattern, others) = match field.meaning {
                Meaning::Parameter(pattern) => (pattern, &[][..]),
                Meaning::Sets(Some(pattern), others) => (pattern, others),
                Meaning::Sets(None, _) | Meaning::Always(_) => continue,
            };
            let Some(numbers) = numbers(pattern, name) else {
                continue;
            };
            if others.iter().all(|(name, value)| is_given(name, value)) {
                put(&mut root, field.path, &numbers, value);
                said.push(name);
                said.extend(others.iter().map(|(name, _)| *name));
                break;
            }
        }
    }
    // What is said by an element that is empty.
    for (name, _) in &renamed {
        let field = fields.iter().find(|field| match field.meaning {
            Meaning::Sets(None, others) => {
                others.iter().any(|(other, _)| other == name)
                    && others.iter().all(|(name, value)| is_given(name, value))
            }
            _ => false,
        });
        if let Some(field) = field.filter(|_| !said.contains(&name.as_str())) {
            put(&mut root, field.path, &[], "");
            if let Meaning::Sets(None, others) = field.meaning {
                said.extend(others.iter().map(|(name, _)| *name));
            }
        }
    }
    for field in &fields {
        let place = field.path.split_once("/@");
        if let (Meaning::Always(value), Some((element, attribute))) = (field.meaning, place) {
            let mut elements = root.children.iter_mut();
            if let Some(node) = elements.find(|it| it.name == element) {
                node.attributes
                    .push((attribute.to_owned(), value.to_owned()));
                node.attributes.sort();
            }
        }
    }
    let is_all = renamed
        .iter()
        .all(|(name, _)| said.contains(&name.as_str()));
    is_all.then(|| {
        let mut out = String::new();
        for child in &root.children {
            child.write(&mut out);
        }
        out
    })
}

/// Until 2007-03-01 messages list the images of a launch; that one InstanceId may be numbered is
/// Query's alone.
fn name_by_soap(action: &str, version: Version, name: &str) -> String {
    if action == "GetConsoleOutput" && name == "InstanceId.1" {
        return "InstanceId".to_owned();
    }
    if action.ends_with("SecurityGroupIngress") {
        // What Query says flat is a list of one.
        return match name {
            "IpProtocol" | "FromPort" | "ToPort" => format!("IpPermissions.1.{name}"),
            "CidrIp" => "IpPermissions.1.IpRanges.1.CidrIp".to_owned(),
            _ => name.to_owned(),
        };
    }
    let is_listed = ["ImageId", "MinCount", "MaxCount", "KeyName"].contains(&name);
    if action == "RunInstances" && is_listed && version <= dates::V2007_03_01 {
        format!("InstancesSet.1.{name}")
    } else {
        name.to_owned()
    }
}

/// The numbers of a name's list indexes, if it is of the pattern.
fn numbers(pattern: &str, name: &str) -> Option<Vec<usize>> {
    let (patterns, parts): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), name.split('.').collect());
    let mut numbers = vec![];
    for (pattern, part) in patterns.iter().zip(&parts) {
        match *pattern {
            "n" => numbers.push(part.parse().ok()?),
            word if word == *part => {}
            _ => return None,
        }
    }
    (patterns.len() == parts.len()).then_some(numbers)
}

fn put(root: &mut Node, path: &str, numbers: &[usize], value: &str) {
    let mut numbers = numbers.iter();
    let mut node = root;
    for name in path.split('/') {
        let number = match name {
            "item" => numbers.next().copied().unwrap_or(1),
            _ => 1,
        };
        node = node.child(name, number);
    }
    value.clone_into(&mut node.text);
}

impl Client {
    /// The same request by SOAP, and its answer without the envelope; `None` if it cannot be said.
    pub(crate) async fn ask_by_soap(
        &self,
        action: &str,
        version: &str,
        parameters: &[(&str, &str)],
    ) -> Option<Reply> {
        let message = message(action, version, parameters)?;
        let mut reply = self.soap(action, version, &message).await;
        let said = form(parameters);
        assert!(reply.status == 200, "{action} {said}: {}", reply.text);
        let inside = reply.text.split_once("<SOAP-ENV:Body>");
        let inside = inside.and_then(|(_, rest)| rest.split_once("</SOAP-ENV:Body>"));
        let (inside, _) = inside.expect("a body");
        reply.text = inside.to_owned();
        Some(reply)
    }
}

#[test]
fn parameters_are_said_in_the_shape_of_the_version() {
    let say = |action: &str, version: &str, parameters: &[(&str, &str)]| {
        message(action, version, parameters).expect("it can be said")
    };
    let run = [("ImageId", "ami-1"), ("MinCount", "1")];
    assert_eq!(
        say("RunInstances", "2007-03-01", &run),
        "<instancesSet><item><imageId>ami-1</imageId><minCount>1</minCount></item></instancesSet>"
    );
    assert_eq!(
        say("RunInstances", "2008-02-01", &run),
        "<imageId>ami-1</imageId><minCount>1</minCount>"
    );
    let ids = [("InstanceId.1", "i-1"), ("InstanceId.2", "i-2 & i-3")];
    assert_eq!(
        say("DescribeInstances", "2007-03-01", &ids),
        "<instancesSet><item><instanceId>i-1</instanceId></item><item><instanceId>i-2 &amp; i-3</instanceId></item></instancesSet>"
    );
    let attribute = [("ImageId", "ami-1"), ("Attribute", "launchPermission")];
    assert_eq!(
        say("DescribeImageAttribute", "2007-03-01", &attribute),
        "<imageId>ami-1</imageId><launchPermission></launchPermission>"
    );
    assert_eq!(
        message("RunInstances", "2007-03-01", &[("DryRun", "true")]),
        None
    );
    assert_eq!(message("DescribeInstances", "2016-11-15", &[]), None);
}
