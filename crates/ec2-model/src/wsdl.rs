//! The WSDL of each version: what a SOAP client is generated from.
//!
//! It has the operations that are implemented here and no others.  It is written once for each
//! version; the address, which is whatever the client reached us by, is put in for each reader.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::OnceLock;

use cumulet_wire::xml::escape;

use crate::Version;
use crate::generated::versions::NAMES;
use crate::soap::LAST;
use crate::soap_types::{self, Kind, Member, Message, Occurs, Type};

/// What was written, before and after the address, by version.
static WRITTEN: [OnceLock<[String; 2]>; NAMES.len()] = [const { OnceLock::new() }; NAMES.len()];

/// The document, or `None` after the last version with a SOAP binding.
pub fn wsdl(version: Version, address: &str) -> Option<String> {
    if version > LAST {
        return None;
    }
    let cell = WRITTEN.get(usize::from(version.0))?;
    let [before, after] = cell.get_or_init(|| write(version));
    let mut out = before.clone();
    escape(address, &mut out);
    out.push_str(after);
    Some(out)
}

fn write(version: Version) -> [String; 2] {
    let messages: Vec<&Message> = soap_types::messages(version).collect();
    let namespace = version.namespace();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <definitions targetNamespace=\"{namespace}\" xmlns=\"http://schemas.xmlsoap.org/wsdl/\" \
         xmlns:soap=\"http://schemas.xmlsoap.org/wsdl/soap/\" xmlns:tns=\"{namespace}\" \
         xmlns:xs=\"http://www.w3.org/2001/XMLSchema\">\n  <types>\n    \
         <xs:schema targetNamespace=\"{namespace}\" elementFormDefault=\"qualified\">\n"
    );
    let mut done = BTreeSet::new();
    for message in &messages {
        let (name, request) = (message.operation, message.request);
        let response = message.response_in(version);
        for (name, it) in [
            (name.to_owned(), request),
            (format!("{name}Response"), response),
        ] {
            let _ = writeln!(
                out,
                "      <xs:element name=\"{name}\" type=\"tns:{}\"/>",
                it.name
            );
        }
        write_type(request, version, false, &mut done, &mut out);
        let has_id = soap_types::has_request_id(version);
        write_type(response, version, has_id, &mut done, &mut out);
    }
    out.push_str("    </xs:schema>\n  </types>\n");
    for Message {
        operation: name, ..
    } in &messages
    {
        let _ = write!(
            out,
            "  <message name=\"{name}RequestMsg\">\n    <part name=\"{name}RequestMsgReq\" element=\"tns:{name}\"/>\n  </message>\n  \
             <message name=\"{name}ResponseMsg\">\n    <part name=\"{name}ResponseMsgResp\" element=\"tns:{name}Response\"/>\n  </message>\n"
        );
    }
    out.push_str("  <portType name=\"AmazonEC2PortType\">\n");
    for Message {
        operation: name, ..
    } in &messages
    {
        let _ = write!(
            out,
            "    <operation name=\"{name}\">\n      <input message=\"tns:{name}RequestMsg\"/>\n      \
             <output message=\"tns:{name}ResponseMsg\"/>\n    </operation>\n"
        );
    }
    out.push_str(
        "  </portType>\n  <binding name=\"AmazonEC2Binding\" type=\"tns:AmazonEC2PortType\">\n    \
         <soap:binding style=\"document\" transport=\"http://schemas.xmlsoap.org/soap/http\"/>\n",
    );
    for Message {
        operation: name, ..
    } in &messages
    {
        let _ = write!(
            out,
            "    <operation name=\"{name}\">\n      <soap:operation soapAction=\"{name}\"/>\n      \
             <input>\n        <soap:body use=\"literal\"/>\n      </input>\n      \
             <output>\n        <soap:body use=\"literal\"/>\n      </output>\n    </operation>\n"
        );
    }
    out.push_str(
        "  </binding>\n  <service name=\"AmazonEC2\">\n    \
         <port name=\"AmazonEC2Port\" binding=\"tns:AmazonEC2Binding\">\n      <soap:address location=\"",
    );
    let after = "\"/>\n    </port>\n  </service>\n</definitions>\n".to_owned();
    [out, after]
}

/// A type, once, and those that its elements have.
fn write_type(
    it: &'static Type,
    version: Version,
    has_id: bool,
    done: &mut BTreeSet<&'static str>,
    out: &mut String,
) {
    if !done.insert(it.name) {
        return;
    }
    let members: Vec<&Member> = it.members_in(version).collect();
    let mixed = if it.is_mixed { " mixed=\"true\"" } else { "" };
    let _ = write!(out, "      <xs:complexType name=\"{}\"{mixed}", it.name);
    if members.is_empty() && !has_id && it.attributes.is_empty() {
        out.push_str("/>\n");
        return;
    }
    out.push_str(">\n        <xs:sequence>\n");
    if has_id {
        out.push_str("          <xs:element name=\"requestId\" type=\"xs:string\"/>\n");
    }
    for run in members.chunk_by(|one, next| is_choice(one) && is_choice(next)) {
        let is_choice = run.first().is_some_and(|it| is_choice(it));
        let indent = if is_choice {
            "            "
        } else {
            "          "
        };
        if is_choice {
            out.push_str("          <xs:choice>\n");
        }
        for member in run {
            write_element(member, indent, out);
        }
        if is_choice {
            out.push_str("          </xs:choice>\n");
        }
    }
    out.push_str("        </xs:sequence>\n");
    for (name, value) in it.attributes {
        let _ = writeln!(
            out,
            "        <xs:attribute name=\"{name}\" type=\"xs:string\" use=\"required\" fixed=\"{value}\"/>"
        );
    }
    out.push_str("      </xs:complexType>\n");
    for member in members {
        if let Kind::Typed(it) = member.kind {
            write_type(it, version, false, done, out);
        }
    }
}

fn is_choice(member: &Member) -> bool {
    member.occurs == Occurs::Choice
}

fn write_element(member: &Member, indent: &str, out: &mut String) {
    let (prefix, kind) = match member.kind {
        Kind::Plain(name) => ("xs", name),
        Kind::Typed(it) => ("tns", it.name),
    };
    let occurs = match member.occurs {
        Occurs::Once | Occurs::Choice => "",
        Occurs::AtMostOnce => " minOccurs=\"0\"",
        Occurs::Any => " minOccurs=\"0\" maxOccurs=\"unbounded\"",
        Occurs::AtLeastOnce => " maxOccurs=\"unbounded\"",
    };
    let name = member.name;
    let _ = writeln!(
        out,
        "{indent}<xs:element name=\"{name}\" type=\"{prefix}:{kind}\"{occurs}/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates::*;

    const ADDRESS: &str = "http://cloud.test:8773/";

    #[test]
    fn the_oldest_and_the_newest_documents_are_of_their_time() {
        let old = wsdl(V2007_03_01, ADDRESS).unwrap();
        assert!(old.contains("targetNamespace=\"http://ec2.amazonaws.com/doc/2007-03-01/\""));
        assert!(old.contains(
            "<xs:element name=\"item\" type=\"tns:RunInstanceItemType\" maxOccurs=\"unbounded\"/>"
        ));
        assert!(old.contains(
            "<xs:attribute name=\"encoding\" type=\"xs:string\" use=\"required\" fixed=\"base64\"/>"
        ));
        assert!(!old.contains("requestId"));
        assert!(!old.contains("DescribeRegions"));
        let new = wsdl(V2013_08_15, ADDRESS).unwrap();
        assert!(new.contains("<xs:element name=\"requestId\" type=\"xs:string\"/>"));
        assert!(new.contains("<soap:operation soapAction=\"DescribeRegions\"/>"));
        assert!(!new.contains("RunInstanceItemType"));
        assert_eq!(wsdl(V2013_10_15, ADDRESS), None);
    }

    #[test]
    fn the_address_is_whoever_asks_for_it() {
        let at = |address: &str| wsdl(V2007_03_01, address).unwrap();
        assert!(at(ADDRESS).contains("<soap:address location=\"http://cloud.test:8773/\"/>"));
        assert!(at("http://a\"<b/").contains("<soap:address location=\"http://a&quot;&lt;b/\"/>"));
    }

    #[test]
    fn every_document_names_only_types_that_it_has() {
        for version in Version::all().filter(|version| *version <= LAST) {
            let text = wsdl(version, ADDRESS).unwrap();
            let named = text.split("type=\"tns:").skip(1);
            for name in named.filter_map(|rest| rest.split('"').next()) {
                let is_there = text.contains(&format!("<xs:complexType name=\"{name}\""))
                    || text.contains(&format!("<portType name=\"{name}\""));
                assert!(is_there, "{version} has no type {name}");
            }
        }
    }
}
