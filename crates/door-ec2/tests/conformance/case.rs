//! Reads the files of cases.  A mistake in one ends the test with the line that has it.

use cumulet_ec2_model::{Version, soap};

/// A request in both bindings, and the answer to both.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) version: Version,
    pub(crate) title: String,
    /// The text that version 1 would sign has several readings.
    pub(crate) is_ambiguous: bool,
    pub(crate) given: Vec<Given>,
    /// As it is printed, from `https://` on.
    pub(crate) query: Option<String>,
    /// The element of the operation.
    pub(crate) soap: Option<String>,
    pub(crate) reply: String,
}

/// What is done before the request.
#[derive(Debug)]
pub(crate) enum Given {
    /// A bundle in the object store, with its product codes.
    Bundle {
        bucket: String,
        name: String,
        codes: Vec<String>,
    },
    /// A request by Query, and what its answer gives: names of elements and of placeholders.
    Request {
        is_strangers: bool,
        query: String,
        gives: Vec<(String, String)>,
    },
    /// A SOAP message in canonical form, by its operation's element.
    Message(String),
    /// The image or instance of this placeholder gets into a state.
    State { placeholder: String, state: String },
}

/// All cases of a file.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    let mut section = "";
    let mut sections: Vec<(&str, String)> = vec![];
    let mut head: Option<(Version, String, Vec<Given>, Option<&str>)> = None;
    let mut is_ambiguous = false;
    for line in text.lines().chain(["case end"]) {
        if let Some(rest) = line.strip_prefix("case ") {
            if let Some(head) = head.take() {
                let mut case = assemble(head, std::mem::take(&mut sections));
                case.is_ambiguous = std::mem::take(&mut is_ambiguous);
                cases.push(case);
            }
            let (date, title) = rest.split_once(' ').unwrap_or((rest, ""));
            if date != "end" {
                let version = Version::parse(date);
                let version = version.unwrap_or_else(|| panic!("no version: {line}"));
                head = Some((version, title.to_owned(), vec![], None));
            }
            section = "";
            continue;
        }
        if let Some(word) = ["query", "soap", "reply"].iter().find(|it| **it == line) {
            section = word;
            sections.push((word, String::new()));
        } else if !section.is_empty() {
            let (_, text) = sections.last_mut().expect("a section");
            text.push_str(line);
            text.push('\n');
        } else if let Some((_, _, givens, only)) = &mut head {
            match line.trim() {
                "" => {}
                "several readings" => is_ambiguous = true,
                "query only" => *only = Some("query"),
                "soap only" => *only = Some("soap"),
                line if line.starts_with('#') => {}
                line => givens.push(given(line)),
            }
        } else {
            let is_comment = line.is_empty() || line.starts_with('#');
            assert!(is_comment, "before the first case: {line}");
        }
    }
    assert!(!cases.is_empty(), "no case");
    cases
}

fn assemble(
    (version, title, given, only): (Version, String, Vec<Given>, Option<&str>),
    sections: Vec<(&str, String)>,
) -> Case {
    let mut case = Case {
        version,
        title,
        is_ambiguous: false,
        given,
        query: None,
        soap: None,
        reply: String::new(),
    };
    for (name, text) in sections {
        let text = text.trim().to_owned();
        assert!(!text.is_empty(), "{}: {name} is empty", case.title);
        match name {
            "query" => case.query = Some(text),
            "soap" => case.soap = Some(text),
            _ => case.reply = text,
        }
    }
    // Leaving a binding out takes a word.
    let has_soap = only != Some("query") && version <= soap::LAST;
    let has_query = only != Some("soap");
    assert_eq!(case.soap.is_some(), has_soap, "{}: soap", case.title);
    assert_eq!(case.query.is_some(), has_query, "{}: query", case.title);
    assert!(!case.reply.is_empty(), "{}: reply", case.title);
    case
}

fn given(line: &str) -> Given {
    let rest = line.strip_prefix("given ");
    let rest = rest.unwrap_or_else(|| panic!("neither given nor a section: {line}"));
    if let Some(message) = rest.strip_prefix("message ") {
        return Given::Message(message.to_owned());
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    match words.as_slice() {
        ["bundle", path, codes @ ..] => {
            let parts = path.strip_suffix(".manifest.xml");
            let (bucket, name) = parts
                .and_then(|it| it.split_once('/'))
                .unwrap_or_else(|| panic!("bucket/name.manifest.xml: {line}"));
            Given::Bundle {
                bucket: bucket.to_owned(),
                name: name.to_owned(),
                codes: codes.iter().map(|it| (*it).to_owned()).collect(),
            }
        }
        ["stranger", query, gives @ ..] if query.starts_with("Action=") => Given::Request {
            is_strangers: true,
            query: (*query).to_owned(),
            gives: self::gives(gives, line),
        },
        [query, gives @ ..] if query.starts_with("Action=") => Given::Request {
            is_strangers: false,
            query: (*query).to_owned(),
            gives: self::gives(gives, line),
        },
        [placeholder, state] if placeholder.starts_with('{') => Given::State {
            placeholder: (*placeholder).to_owned(),
            state: (*state).to_owned(),
        },
        _ => panic!("this cannot be given: {line}"),
    }
}

/// `gives imageId={image} …`.
fn gives(words: &[&str], line: &str) -> Vec<(String, String)> {
    let Some((first, pairs)) = words.split_first() else {
        return vec![];
    };
    assert_eq!(*first, "gives", "{line}");
    let pairs = pairs.iter().map(|pair| {
        let (name, placeholder) = pair.split_once('=').expect("element={placeholder}");
        (name.to_owned(), placeholder.to_owned())
    });
    pairs.collect()
}

#[test]
fn a_case_needs_both_bindings_or_a_word_that_it_does_not() {
    let whole = "# Why.\ncase 2007-03-01 a title\n  given bundle b/n.manifest.xml A B\n  given stranger Action=X&Y=1 gives a={b}\n  given {b} running\nquery\nhttps://x/?Action=A\nsoap\n<A/>\nreply\n<B/>\n";
    let cases = parse(whole);
    assert_eq!(cases.len(), 1);
    assert_eq!(cases[0].given.len(), 3);
    assert_eq!(cases[0].reply, "<B/>");
    let without = whole.replace("soap\n<A/>\n", "");
    assert!(std::panic::catch_unwind(|| parse(&without)).is_err());
    let only = without.replace("a title\n", "a title\n  query only\n");
    assert_eq!(parse(&only).len(), 1);
    assert_eq!(parse(&without.replace("2007-03-01", "2016-11-15")).len(), 1);
}
