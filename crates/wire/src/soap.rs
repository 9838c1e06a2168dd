//! SOAP 1.1 envelopes: reading one within limits, and writing faults.
//!
//! Reading has two passes.  The first goes over the bytes with a pull reader and
//! refuses what no honest client sends: a document type, a comment, a processing
//! instruction, too many or too deep elements, too many attributes.  Only then a
//! tree is built, since building it costs more than linear time in some of these.
//! What is read here is shape alone; who signed it is found out in `auth`.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use roxmltree::{Document, Node, ParsingOptions};

use crate::xml::escape;

/// The namespace of SOAP 1.1.
pub const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// Longest envelope; user data of 16 KiB for each of 20 images fits.
pub const BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// Most elements.
pub const ELEMENTS_MAX: usize = 20_000;
/// Most attributes of one element, declarations of namespaces included.
pub const ATTRIBUTES_MAX: usize = 32;
/// Most attributes of all elements.
pub const ATTRIBUTES_SUM_MAX: usize = 4_000;
/// Longest name of an element or attribute.
pub const NAME_LEN_MAX: usize = 128;
/// Most declarations of namespaces, and the longest name of one: a canonical form may repeat it at
/// every element.
pub const DECLARATIONS_MAX: usize = 64;
pub const NAMESPACE_LEN_MAX: usize = 256;
/// Most values of a request, and the longest path to one.
pub const LEAVES_MAX: usize = 4_000;
pub const PATH_LEN_MAX: usize = 512;

/// Why an envelope was refused.  The texts are for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoapError {
    #[error("the message is longer than {BYTES_MAX} bytes")]
    Long,
    #[error("the message is not UTF-8")]
    Utf8,
    #[error("the message is not well-formed XML: {0}")]
    Malformed(String),
    #[error("a SOAP message must not have a {0}")]
    Forbidden(&'static str),
    #[error("the message has too many {0}")]
    TooMany(&'static str),
    #[error("the message is no SOAP 1.1 envelope: {0}")]
    Shape(&'static str),
    /// Of another version of SOAP.
    #[error("the envelope is of the namespace {0:?}, and SOAP 1.1 is spoken here")]
    Version(String),
}

/// An envelope whose shape is right: a header at most, and one body.
pub struct Envelope<'a> {
    text: &'a str,
    document: Document<'a>,
}

impl<'a> Envelope<'a> {
    /// # Errors
    /// See [`SoapError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SoapError> {
        if bytes.len() > BYTES_MAX {
            return Err(SoapError::Long);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SoapError::Utf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        check_limits(text)?;
        let options = ParsingOptions {
            allow_dtd: false,
            // Elements, texts between them, and the root.
            nodes_limit: u32::try_from(2 * ELEMENTS_MAX + 2).unwrap_or(u32::MAX),
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options)
            .map_err(|cause| SoapError::Malformed(cause.to_string()))?;
        let envelope = Self { text, document };
        envelope.check_shape()?;
        Ok(envelope)
    }

    fn check_shape(&self) -> Result<(), SoapError> {
        let root = self.root();
        if root.tag_name().name() != "Envelope" {
            return Err(SoapError::Shape("its root is no Envelope"));
        }
        let namespace = root.tag_name().namespace().unwrap_or_default();
        if namespace != ENVELOPE {
            return Err(SoapError::Version(namespace.to_owned()));
        }
        let children: Vec<Node<'_, '_>> = root.children().filter(Node::is_element).collect();
        let is = |node: &Node<'_, '_>, name| node.has_tag_name((ENVELOPE, name));
        match children.as_slice() {
            [body] if is(body, "Body") => Ok(()),
            [header, body] if is(header, "Header") && is(body, "Body") => Ok(()),
            _ => Err(SoapError::Shape(
                "it must have one Body, a Header before it at most, and nothing else",
            )),
        }
    }

    /// The text that ranges of nodes refer to.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The element `Envelope`.
    pub fn root(&self) -> Node<'_, 'a> {
        self.document.root_element()
    }

    /// The one element `Header`, if there is one.
    pub fn header(&self) -> Option<Node<'_, 'a>> {
        let mut children = self.root().children().filter(Node::is_element);
        children.find(|node| node.has_tag_name((ENVELOPE, "Header")))
    }

    /// The one element `Body`.
    ///
    /// # Errors
    /// There always is one; `parse` has looked.
    pub fn body(&self) -> Result<Node<'_, 'a>, SoapError> {
        let mut children = self.root().children().filter(Node::is_element);
        let found = children.find(|node| node.has_tag_name((ENVELOPE, "Body")));
        found.ok_or(SoapError::Shape("it has no Body"))
    }

    /// The one element in the body: the operation, in the namespace of its version.
    ///
    /// # Errors
    /// The body is empty, or holds several elements or text.
    pub fn payload(&self) -> Result<Node<'_, 'a>, SoapError> {
        let mut found = None;
        for child in self.body()?.children() {
            let is_blank = child.text().is_some_and(|text| text.trim().is_empty());
            match found {
                None if child.is_element() => found = Some(child),
                _ if child.is_text() && is_blank => {}
                _ => return Err(SoapError::Shape("its Body must hold one element")),
            }
        }
        found.ok_or(SoapError::Shape("its Body is empty"))
    }
}

/// A value of a message, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Names from below the payload on, joined by slashes; an attribute's has an `@`.
    pub path: String,
    /// For each `item` of the path, the how manieth of its parent it is, from 1 on.
    pub numbers: Vec<u32>,
    /// Without the white space around it; empty for an element that has neither text nor elements.
    pub text: String,
}

/// All values below an element: elements without elements in them, and attributes without a prefix.
///
/// # Errors
/// An element with both text and elements; one of another namespace than `element`; what is nil
/// says nothing and is left out.
pub fn leaves(element: Node<'_, '_>) -> Result<Vec<Leaf>, SoapError> {
    let mut found = vec![];
    let namespace = element.tag_name().namespace();
    collect(element, namespace, "", &[], &mut found)?;
    Ok(found)
}

/// Adds a value.
fn push(found: &mut Vec<Leaf>, leaf: Leaf) -> Result<(), SoapError> {
    if found.len() == LEAVES_MAX {
        return Err(SoapError::TooMany("values"));
    }
    found.push(leaf);
    Ok(())
}

fn collect(
    element: Node<'_, '_>,
    namespace: Option<&str>,
    path: &str,
    numbers: &[u32],
    found: &mut Vec<Leaf>,
) -> Result<(), SoapError> {
    if !own_text(element).trim().is_empty() {
        return Err(SoapError::Shape("its Body has text between elements"));
    }
    let mut items = 0;
    for child in element.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        let own = child.tag_name().namespace();
        // Some clients qualify the operation alone.
        if own.is_some_and(|it| !it.is_empty()) && own != namespace {
            return Err(SoapError::Shape("its Body mixes namespaces"));
        }
        let path = match path {
            "" => name.to_owned(),
            _ => format!("{path}/{name}"),
        };
        if path.len() > PATH_LEN_MAX {
            return Err(SoapError::TooMany("long names in each other"));
        }
        let mut numbers = numbers.to_vec();
        if name == "item" {
            items += 1;
            numbers.push(items);
        }
        for attribute in child.attributes().filter(|it| it.namespace().is_none()) {
            let leaf = Leaf {
                path: format!("{path}/@{}", attribute.name()),
                numbers: numbers.clone(),
                text: attribute.value().to_owned(),
            };
            push(found, leaf)?;
        }
        if child.children().any(|it| it.is_element()) {
            collect(child, namespace, &path, &numbers, found)?;
        } else if !is_nil(child) {
            let leaf = Leaf {
                path,
                numbers,
                text: own_text(child).trim().to_owned(),
            };
            push(found, leaf)?;
        }
    }
    Ok(())
}

/// The text between the elements of an element.
fn own_text(element: Node<'_, '_>) -> String {
    let texts = element.children().filter(Node::is_text);
    texts.filter_map(|it| it.text()).collect()
}

fn is_nil(element: Node<'_, '_>) -> bool {
    const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
    matches!(element.attribute((INSTANCE, "nil")), Some("true" | "1"))
}

/// What the first pass counts.
#[derive(Default)]
struct Counts {
    depth: usize,
    elements: usize,
    attributes: usize,
    declarations: usize,
}

/// The first pass: what must not be there, and how much there is.
fn check_limits(text: &str) -> Result<(), SoapError> {
    let mut reader = Reader::from_str(text);
    let mut counts = Counts::default();
    let mut is_first = true;
    loop {
        let event = reader
            .read_event()
            .map_err(|cause| SoapError::Malformed(cause.to_string()))?;
        match event {
            Event::Start(start) => {
                counts.depth += 1;
                counts.element(&start)?;
            }
            Event::Empty(start) => counts.element(&start)?,
            Event::End(_) => counts.depth = counts.depth.saturating_sub(1),
            Event::DocType(_) => return Err(SoapError::Forbidden("document type")),
            Event::Comment(_) => return Err(SoapError::Forbidden("comment")),
            // One reader's declaration is another one's instruction, unless it comes first.
            Event::Decl(_) if is_first => {}
            Event::PI(_) | Event::Decl(_) => {
                return Err(SoapError::Forbidden("processing instruction"));
            }
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {}
            Event::Eof => return Ok(()),
        }
        is_first = false;
        counts.check()?;
    }
}

impl Counts {
    fn check(&self) -> Result<(), SoapError> {
        for (count, max, what) in [
            (self.depth, DEPTH_MAX, "levels of elements"),
            (self.elements, ELEMENTS_MAX, "elements"),
            (self.attributes, ATTRIBUTES_SUM_MAX, "attributes"),
            (self.declarations, DECLARATIONS_MAX, "namespaces"),
        ] {
            if count > max {
                return Err(SoapError::TooMany(what));
            }
        }
        Ok(())
    }

    fn element(&mut self, start: &BytesStart<'_>) -> Result<(), SoapError> {
        self.elements += 1;
        check_name(start.name().as_ref())?;
        let mut count = 0;
        // Whether names repeat is found out by the second pass; here it would cost their square.
        for attribute in start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|cause| SoapError::Malformed(cause.to_string()))?;
            let name = attribute.key.as_ref();
            check_name(name)?;
            if name == b"xmlns" || name.starts_with(b"xmlns:") {
                self.declarations += 1;
                if attribute.value.len() > NAMESPACE_LEN_MAX {
                    return Err(SoapError::TooMany("letters in a namespace"));
                }
            }
            count += 1;
            if count > ATTRIBUTES_MAX {
                return Err(SoapError::TooMany("attributes"));
            }
        }
        self.attributes += count;
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Result<(), SoapError> {
    if name.len() > NAME_LEN_MAX {
        return Err(SoapError::TooMany("letters in a name"));
    }
    Ok(())
}

/// The namespace in which services of the time put what they added to a fault.
const FAULT: &str = "http://webservices.amazon.com/AWSFault/2005-15-09";

/// The fault document.  `code` has its prefix, `Client.` or `Server.`, and stands bare, as the tools
/// of 2007 print it.
pub fn fault(code: &str, message: &str, request_id: &str) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<SOAP-ENV:Envelope xmlns:SOAP-ENV=\"{ENVELOPE}\"><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>"
    );
    escape(code, &mut text);
    text.push_str("</faultcode><faultstring>");
    escape(message, &mut text);
    text.push_str("</faultstring><detail><aws:RequestId xmlns:aws=\"");
    text.push_str(FAULT);
    text.push_str("\">");
    escape(request_id, &mut text);
    text.push_str("</aws:RequestId></detail></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>");
    text
}

/// Puts an answer, a whole document with its declaration, into an envelope.
pub fn enveloped(answer: &str) -> String {
    let (declaration, answer) = match answer.split_once("?>\n") {
        Some((_, answer)) => ("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", answer),
        None => ("", answer),
    };
    format!(
        "{declaration}<SOAP-ENV:Envelope xmlns:SOAP-ENV=\"{ENVELOPE}\"><SOAP-ENV:Body>{answer}</SOAP-ENV:Body></SOAP-ENV:Envelope>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(inside: &str) -> String {
        format!("<S:Envelope xmlns:S=\"{ENVELOPE}\">{inside}</S:Envelope>")
    }

    fn refusal(text: &str) -> String {
        match Envelope::parse(text.as_bytes()) {
            Ok(envelope) => match envelope.payload() {
                Ok(_) => panic!("accepted: {text:.100}"),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_envelope_has_one_operation_in_one_body() {
        let text = envelope("<S:Header/> <S:Body>\n <a xmlns=\"urn:a\"/> </S:Body>");
        let read = Envelope::parse(text.as_bytes()).unwrap();
        assert!(read.payload().unwrap().has_tag_name(("urn:a", "a")));
        assert!(read.header().is_some());
        for inside in [
            "",
            "<S:Body/>",
            "<S:Body>a</S:Body>",
            "<S:Body><a/><b/></S:Body>",
            "<S:Body><a/>b</S:Body>",
            "<S:Body><a/></S:Body><S:Body><a/></S:Body>",
            "<S:Body><a/></S:Body><S:Header/>",
            "<S:Header/><S:Header/><S:Body><a/></S:Body>",
            "<S:Header/><S:Body><a/></S:Body><b/>",
            "<Body><a/></Body>",
        ] {
            assert!(refusal(&envelope(inside)).contains("SOAP 1.1"), "{inside}");
        }
        assert!(refusal("<Envelope/>").contains("SOAP 1.1 is spoken"));
        assert!(refusal(&format!("<a xmlns=\"{ENVELOPE}\"/>")).contains("no Envelope"));
    }

    #[test]
    fn what_no_honest_client_sends_is_refused() {
        let body = "<S:Body><a/></S:Body>";
        let doctype = format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{}", envelope(body));
        let cases = [
            (doctype, "document type"),
            (envelope("<S:Body><a>b<!-- -->c</a></S:Body>"), "comment"),
            (
                format!("<?a b?>{}", envelope(body)),
                "processing instruction",
            ),
            (envelope("<S:Body><a>&b;</a></S:Body>"), "not well-formed"),
            (
                envelope("<S:Body><a b=\"\" b=\"\"/></S:Body>"),
                "not well-formed",
            ),
            (envelope("<S:Body><a></b></S:Body>"), "not well-formed"),
            (envelope("<S:Body><T:a/></S:Body>"), "not well-formed"),
            (String::new(), "not well-formed"),
            (
                envelope(&format!(
                    "{}{}",
                    "<a>".repeat(50_000),
                    "</a>".repeat(50_000)
                )),
                "levels",
            ),
            (envelope(&"<a/>".repeat(50_000)), "elements"),
            (
                envelope(&format!(
                    "<S:Body><a {}/></S:Body>",
                    (0..50_000)
                        .map(|it| format!("a{it}=\"\" "))
                        .collect::<String>()
                )),
                "attributes",
            ),
            (
                envelope(&format!(
                    "<S:Body>{}</S:Body>",
                    "<a b=\"\"/>".repeat(10_000)
                )),
                "attributes",
            ),
            (envelope(&" ".repeat(BYTES_MAX)), "longer"),
            (
                envelope("<S:Body><a>b<?xml\tx?>c</a></S:Body>"),
                "processing instruction",
            ),
            (
                envelope("<S:Body><a><?xml version='1.0'?></a></S:Body>"),
                "processing instruction",
            ),
            (
                envelope(&format!("<S:Body><{}/></S:Body>", "a".repeat(200))),
                "letters in a name",
            ),
            (
                envelope(&format!("<S:Body><a {}=''/></S:Body>", "a".repeat(200))),
                "letters in a name",
            ),
            (
                envelope(&format!(
                    "<S:Body><a xmlns:b='{}'/></S:Body>",
                    "b".repeat(300)
                )),
                "letters in a namespace",
            ),
            (
                envelope(&format!(
                    "<S:Body>{}</S:Body>",
                    "<a xmlns='urn:a'/>".repeat(100)
                )),
                "namespaces",
            ),
        ];
        for (text, said) in cases {
            let refused = refusal(&text);
            assert!(refused.contains(said), "{text:.80}: {refused}");
        }
        assert!(matches!(
            Envelope::parse(b"\xff<a/>").err(),
            Some(SoapError::Utf8)
        ));
    }

    #[test]
    fn values_are_told_by_path_and_number() {
        let text = envelope(
            "<S:Body><a xmlns='urn:a' xmlns:x='http://www.w3.org/2001/XMLSchema-instance'>\
             <b><item><c> 1 </c></item><item><c>2</c><d><item>3</item></d></item></b>\
             <e v='4' x:type='t'/><f x:nil='true'/><g xmlns=''>5</g></a></S:Body>",
        );
        let read = Envelope::parse(text.as_bytes()).unwrap();
        let found: Vec<String> = leaves(read.payload().unwrap())
            .unwrap()
            .iter()
            .map(|it| format!("{} {:?} {}", it.path, it.numbers, it.text))
            .collect();
        assert_eq!(
            found,
            [
                "b/item/c [1] 1",
                "b/item/c [2] 2",
                "b/item/d/item [2, 1] 3",
                "e/@v [] 4",
                "e [] ",
                "g [] 5"
            ]
        );
        for inside in [
            "<a xmlns='urn:a'><d>e<f/></d></a>",
            "<a xmlns='urn:a'><b xmlns='urn:b'/></a>",
        ] {
            let text = envelope(&format!("<S:Body>{inside}</S:Body>"));
            let read = Envelope::parse(text.as_bytes()).unwrap();
            assert!(leaves(read.payload().unwrap()).is_err(), "{inside}");
        }
    }

    #[test]
    fn what_values_cost_is_bounded() {
        let name = "a".repeat(NAME_LEN_MAX);
        let deep = format!("<{name}>").repeat(10);
        let ends = format!("</{name}>").repeat(10);
        for (inside, said) in [
            (format!("<o>{deep}{ends}</o>"), "long names"),
            (
                format!("<o>{}</o>", "<b/>".repeat(LEAVES_MAX + 1)),
                "values",
            ),
        ] {
            let text = envelope(&format!("<S:Body>{inside}</S:Body>"));
            let read = Envelope::parse(text.as_bytes()).unwrap();
            let refused = leaves(read.payload().unwrap()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }

    #[test]
    fn faults_and_answers_are_envelopes() {
        let text = fault("Client.AuthFailure", "a < b", "id");
        let read = Envelope::parse(text.as_bytes()).unwrap();
        let fault = read.payload().unwrap();
        let texts: Vec<_> = fault.descendants().filter_map(|it| it.text()).collect();
        assert!(texts.contains(&"Client.AuthFailure") && texts.contains(&"a < b"));
        let mut writer = crate::xml::Writer::new();
        writer.open("AResponse", Some("urn:a"));
        let text = enveloped(&writer.finish());
        let read = Envelope::parse(text.as_bytes()).unwrap();
        assert!(read.payload().unwrap().has_tag_name(("urn:a", "AResponse")));
    }
}
