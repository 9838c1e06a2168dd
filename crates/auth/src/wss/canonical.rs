//! Exclusive XML canonicalisation, without comments, of one element and all that is in it.
//!
//! <https://www.w3.org/TR/xml-exc-c14n/>.  The tree has no prefixes, so that
//! qualified names are taken from the source text.  Comments and processing
//! instructions are refused before a tree is built, and need no care here.

use std::collections::BTreeSet;

use roxmltree::Node;

/// Longest canonical form: it may be longer than the text, which may repeat a declaration at every
/// element.
const LEN_MAX: usize = 4 * cumulet_wire::soap::BYTES_MAX;

/// Namespaces by prefix that the output has declared, the nearest last; the default one by the empty
/// prefix.  There are few, since declarations are counted before a tree is built.
type Declared<'a> = Vec<(&'a str, &'a str)>;

/// The canonical form of `element`, unless it is too long.  `text` is what the document was parsed
/// from; `inclusive` are the prefixes that are treated as plain canonicalisation would, the default
/// one as the empty one.
pub(super) fn canonical(text: &str, element: Node<'_, '_>, inclusive: &[&str]) -> Option<Vec<u8>> {
    let mut writer = Writer {
        text,
        inclusive,
        declared: vec![],
        out: String::new(),
    };
    writer.write(element)?;
    Some(writer.out.into_bytes())
}

struct Writer<'a> {
    text: &'a str,
    inclusive: &'a [&'a str],
    declared: Declared<'a>,
    out: String,
}

/// Prefix and local name of an element, as they are written.
fn qualified<'t>(text: &'t str, element: Node<'_, '_>) -> (&'t str, &'t str) {
    let start = element.range().start + 1;
    let rest = text.get(start..).unwrap_or_default();
    let end = rest
        .find(|it: char| it.is_ascii_whitespace() || it == '/' || it == '>')
        .unwrap_or(rest.len());
    split(&rest[..end])
}

fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

impl<'a> Writer<'a> {
    /// The depth is bounded by the limits of the envelope; `None` when the output is too long.
    fn write(&mut self, element: Node<'a, '_>) -> Option<()> {
        let (prefix, local) = qualified(self.text, element);
        let attributes = attributes(self.text, element);
        let before = self.declared.len();
        self.out.push('<');
        push_name(prefix, local, &mut self.out);
        self.declare(element, prefix, &attributes);
        for attribute in attributes {
            self.out.push(' ');
            push_name(attribute.prefix, attribute.local, &mut self.out);
            push_value(attribute.value, &mut self.out);
        }
        self.out.push('>');
        for child in element.children() {
            if child.is_element() {
                self.write(child)?;
            } else if let Some(value) = child.text() {
                push_text(value, &mut self.out);
            }
        }
        self.out.push_str("</");
        push_name(prefix, local, &mut self.out);
        self.out.push('>');
        self.declared.truncate(before);
        (self.out.len() <= LEN_MAX).then_some(())
    }

    /// Declares the namespaces that the element itself uses and no ancestor in the output has.
    fn declare(&mut self, element: Node<'a, '_>, own: &'a str, attributes: &[Attribute<'a>]) {
        let prefixes = attributes.iter().map(|it| it.prefix);
        // Attributes without a prefix use no namespace.
        let prefixes = prefixes.filter(|it| !it.is_empty());
        let used: BTreeSet<&'a str> = [own]
            .into_iter()
            .chain(prefixes)
            .chain(self.inclusive.iter().copied())
            // Which is bound by itself.
            .filter(|it| *it != "xml")
            .collect();
        for prefix in used {
            let name = (!prefix.is_empty()).then_some(prefix);
            let bound = element.lookup_namespace_uri(name).unwrap_or_default();
            let declared = self.declared.iter().rev().find(|it| it.0 == prefix);
            if bound == declared.map_or("", |it| it.1) {
                continue;
            }
            self.out.push(' ');
            match prefix {
                "" => self.out.push_str("xmlns"),
                _ => push_name("xmlns", prefix, &mut self.out),
            }
            push_value(bound, &mut self.out);
            self.declared.push((prefix, bound));
        }
    }
}

/// An attribute; in the order of the canonical form, which is that of the fields.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Attribute<'a> {
    namespace: &'a str,
    local: &'a str,
    prefix: &'a str,
    value: &'a str,
}

fn attributes<'a>(text: &'a str, element: Node<'a, '_>) -> Vec<Attribute<'a>> {
    let mut found: Vec<_> = element
        .attributes()
        .map(|it| {
            let name = text.get(it.range_qname()).unwrap_or_default();
            let (prefix, local) = split(name);
            Attribute {
                namespace: it.namespace().unwrap_or_default(),
                local,
                prefix,
                value: it.value(),
            }
        })
        .collect();
    found.sort_unstable();
    found
}

fn push_name(prefix: &str, local: &str, out: &mut String) {
    if !prefix.is_empty() {
        out.push_str(prefix);
        out.push(':');
    }
    out.push_str(local);
}

/// An equals sign and the quoted value of an attribute.
fn push_value(value: &str, out: &mut String) {
    out.push_str("=\"");
    for character in value.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn push_text(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, local: &str, inclusive: &[&str]) -> String {
        let document = roxmltree::Document::parse(text).unwrap();
        let element = document
            .descendants()
            .find(|it| it.tag_name().name() == local)
            .unwrap();
        String::from_utf8(canonical(text, element, inclusive).unwrap()).unwrap()
    }

    #[test]
    fn only_namespaces_that_are_used_are_written_where_they_are_used() {
        let text = r#"<a:r xmlns:a="urn:a" xmlns:b="urn:b" xmlns="urn:d"><a:e><b:f/><g xmlns="urn:d"/><b:h b:i="1"/></a:e></a:r>"#;
        assert_eq!(
            of(text, "e", &[]),
            r#"<a:e xmlns:a="urn:a"><b:f xmlns:b="urn:b"></b:f><g xmlns="urn:d"></g><b:h xmlns:b="urn:b" b:i="1"></b:h></a:e>"#
        );
        assert_eq!(
            of(text, "e", &["b", ""]),
            r#"<a:e xmlns="urn:d" xmlns:a="urn:a" xmlns:b="urn:b"><b:f></b:f><g></g><b:h b:i="1"></b:h></a:e>"#
        );
        assert_eq!(of(text, "e", &["unknown"]), of(text, "e", &[]));
    }

    #[test]
    fn a_default_namespace_that_ends_is_said_to_end() {
        let text = r#"<r xmlns="urn:r"><e xmlns=""><f/></e></r>"#;
        assert_eq!(of(text, "e", &[]), "<e><f></f></e>");
        assert_eq!(
            of(text, "r", &[]),
            r#"<r xmlns="urn:r"><e xmlns=""><f></f></e></r>"#
        );
    }

    #[test]
    fn what_would_be_too_long_is_given_up() {
        let uri = "u".repeat(10_000);
        let text = format!("<r xmlns:p='{uri}'>{}</r>", "<p:a/>".repeat(1_000));
        let document = roxmltree::Document::parse(&text).unwrap();
        assert!(canonical(&text, document.root_element(), &[]).is_none());
        // Declared once for all, it is as long as the text.
        assert!(canonical(&text, document.root_element(), &["p"]).is_some());
    }

    #[test]
    fn attributes_are_sorted_and_everything_is_escaped_one_way() {
        let text = "<r xmlns:b='urn:1' xmlns:a='urn:2' z='&#9;&#10;&#13;&lt;&gt;&amp;&quot;&apos;' a:y='1' b:x='2'  a='3' xml:lang='en'>\r\n&#13;<![CDATA[<&>]]>&gt;</r >";
        assert_eq!(
            of(text, "r", &[]),
            "<r xmlns:a=\"urn:2\" xmlns:b=\"urn:1\" a=\"3\" z=\"&#x9;&#xA;&#xD;&lt;>&amp;&quot;'\" xml:lang=\"en\" b:x=\"2\" a:y=\"1\">\n&#xD;&lt;&amp;&gt;&gt;</r>"
        );
    }
}
