//! Whether an answer is what the schema of its version says: its elements, their order, those that must be there, and the
//! forms of their texts.
//!
//! Every good answer that a test of this door gets is looked at, in the versions that have a schema
//! (up to 2013-08-15).  Old typed clients read no other answers.

use cumulet_ec2_model::soap_types::{self, Kind, Member, Occurs, Type};
use cumulet_ec2_model::{Version, soap};

use super::tree::Element;

/// # Panics
/// If the document, a whole answer of any service, is not what its version says.
pub(crate) fn check(text: &str) {
    let mut document = Element::parse(text);
    if document.name == "Envelope" {
        let body = document.children.pop().expect("a body");
        document = body.children.into_iter().next().expect("an answer");
    }
    let Some(version) = soap::version_of(&document.namespace) else {
        // Another service's.
        return;
    };
    if let Err(cause) = check_document(&document, version) {
        panic!("an answer of {version} is not of that version: {cause}\n\n{text}");
    }
}

fn check_document(document: &Element, version: Version) -> Result<(), String> {
    let name = document.name.strip_suffix("Response");
    let name = name.ok_or_else(|| format!("its root is {}", document.name))?;
    if version > soap::LAST {
        return Ok(());
    }
    let message = soap_types::messages(version).find(|it| it.operation == name);
    // Not everything was had by SOAP.
    let Some(message) = message else {
        return Ok(());
    };
    let mut children = document.children.as_slice();
    if soap_types::has_request_id(version) {
        let (first, rest) = children.split_first().ok_or("it is empty")?;
        if first.name != "requestId" {
            return Err(format!("it begins with {}", first.name));
        }
        children = rest;
    }
    check_members(document, children, message.response_in(version), version)
}

fn check_members(
    parent: &Element,
    mut children: &[Element],
    it: &Type,
    version: Version,
) -> Result<(), String> {
    let at = |what: String| format!("{}: {what}", parent.name);
    if let Some(stranger) = children
        .iter()
        .find(|child| child.namespace != parent.namespace)
    {
        return Err(at(format!(
            "{} is of {:?}",
            stranger.name, stranger.namespace
        )));
    }
    if !parent.text.trim().is_empty() {
        return Err(at(format!("it has the text {:?}", parent.text)));
    }
    let is_choice = |member: &&Member| member.occurs == Occurs::Choice;
    let members: Vec<&Member> = it.members_in(version).collect();
    for run in members.chunk_by(|one, next| is_choice(one) && is_choice(next)) {
        let mut count = 0;
        for member in run {
            while let Some((child, rest)) = children.split_first()
                && child.name == member.name
            {
                check_element(child, member.kind, version).map_err(at)?;
                children = rest;
                count += 1;
            }
        }
        let occurs = run.first().map(|member| member.occurs);
        let is_good = match occurs {
            Some(Occurs::Once | Occurs::Choice) => count == 1,
            Some(Occurs::AtMostOnce) => count <= 1,
            Some(Occurs::AtLeastOnce) => count >= 1,
            Some(Occurs::Any) | None => true,
        };
        if !is_good {
            let names: Vec<&str> = run.iter().map(|member| member.name).collect();
            return Err(at(format!("{} is there {count} times", names.join(" or "))));
        }
    }
    match children.first() {
        Some(child) => Err(at(format!("{} has no place there", child.name))),
        None => Ok(()),
    }
}

fn check_element(element: &Element, kind: Kind, version: Version) -> Result<(), String> {
    let name = match kind {
        Kind::Typed(it) => return check_members(element, &element.children, it, version),
        Kind::Plain(name) => name,
    };
    let text = element.text.as_str();
    let is_good = match name {
        "boolean" => ["true", "false"].contains(&text),
        "int" => text.parse::<i32>().is_ok(),
        "long" | "integer" => text.parse::<i64>().is_ok(),
        "double" => text.parse::<f64>().is_ok(),
        "dateTime" => cumulet_wire::time::parse_iso8601(text).is_some(),
        _ => true,
    };
    if !is_good || !element.children.is_empty() {
        return Err(format!("{}: {text:?} is no {name}", element.name));
    }
    Ok(())
}

#[test]
fn what_is_not_of_the_version_is_found() {
    let answer = |inside: &str| {
        format!(
            "<DescribeKeyPairsResponse xmlns='http://ec2.amazonaws.com/doc/2007-03-01/'>{inside}</DescribeKeyPairsResponse>"
        )
    };
    let good =
        "<keySet><item><keyName>a</keyName><keyFingerprint>b</keyFingerprint></item></keySet>";
    check(&answer(good));
    check(&answer("<keySet/>"));
    for bad in [
        "".to_owned(),
        "<keySet>text</keySet>".into(),
        format!("<requestId>id</requestId>{good}"),
        format!("{good}{good}"),
        good.replace("<keyName>a</keyName>", ""),
        good.replace("</item>", "<keyType>rsa</keyType></item>"),
        good.replace(
            "<keyName>a</keyName><keyFingerprint>b</keyFingerprint>",
            "<keyFingerprint>b</keyFingerprint><keyName>a</keyName>",
        ),
        good.replace("<item>", "<item xmlns='urn:other'>"),
    ] {
        let bad = answer(&bad);
        assert!(std::panic::catch_unwind(|| check(&bad)).is_err(), "{bad}");
    }
}
