//! Asks the case's request in each binding, each of a fresh cloud, and compares the answer.

use cumulet_domain::instances::InstanceState;
use cumulet_ec2_model::Version;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::case::{self, Case, Given};
use crate::common::tree::{Bindings, Element};
use crate::common::{self, Client, Cloud, REQUEST_ID, Reply, Setup, account};

/// The last API version before signature version 2.
const LAST_OF_V1: &str = "2008-08-08";

/// What the reference prints for the parameters of the signature.
const SIGNED_HERE: &str = "...auth parameters...";

#[derive(Debug, Clone, Copy)]
enum Binding {
    Get,
    Post,
    Soap,
}

/// Every case of a file, in every binding that it has.
pub(crate) async fn conforms(operation: &str, file: &str) {
    for case in case::parse(file) {
        for binding in [Binding::Get, Binding::Post, Binding::Soap] {
            let has = match binding {
                Binding::Get | Binding::Post => case.query.is_some(),
                Binding::Soap => case.soap.is_some(),
            };
            if has {
                ask(operation, &case, binding).await;
            }
        }
    }
}

async fn ask(operation: &str, case: &Case, binding: Binding) {
    let setup = Setup {
        // A cloud like any other: what the simulation adds to answers is no part of a literal.
        says_simulated: false,
        ..Setup::default()
    };
    let cloud = Cloud::start_as(setup).await;
    let client = cloud.old_client().await;
    let mut bindings = Bindings::from([
        ("{account}".to_owned(), account(1).to_string()),
        ("{stranger}".to_owned(), account(2).to_string()),
        ("{request}".to_owned(), REQUEST_ID.to_owned()),
    ]);
    let mut stranger = None;
    cloud.add_kernel().await;
    for given in &case.given {
        if let Given::Request {
            is_strangers: true, ..
        } = given
            && stranger.is_none()
        {
            stranger = Some(cloud.stranger().await);
        }
        let caller = match given {
            Given::Request {
                is_strangers: true, ..
            } => stranger.as_ref().expect("made above"),
            _ => &client,
        };
        provide(&cloud, caller, case.version, given, &mut bindings).await;
    }
    let reply = match binding {
        // As everybody signed at the time; the texts of later operations have several readings.
        Binding::Get => {
            let query = query_of(operation, case, &bindings);
            if case.is_ambiguous {
                // What version 1 would sign says no single thing: refused, as version 2 shows.
                let refused = client.get_v1(&query).await;
                assert_eq!(refused.code(401), "AuthFailure", "{}", refused.text);
                client.get_v2_query(&query).await
            } else if case.version.as_str() <= LAST_OF_V1 {
                client.get_v1(&query).await
            } else {
                client.get_v2_query(&query).await
            }
        }
        Binding::Post => {
            let form = query_of(operation, case, &bindings);
            client.post_form(form, "ec2").await
        }
        Binding::Soap => {
            let text = filled(case.soap.as_deref().expect("asked above"), &bindings);
            let canonical = canonical(&text);
            // What is signed is the canonical form; what is sent is what the reference prints.
            let envelope = common::enveloped(&canonical);
            assert!(envelope.contains(&canonical));
            let envelope = envelope.replacen(&canonical, &text, 1);
            client.post_soap(operation, &envelope).await
        }
    };
    let found = match binding {
        Binding::Soap => payload(&reply),
        Binding::Get | Binding::Post => Element::parse(&reply.text),
    };
    assert_eq!(reply.status, 200, "{}", reply.text);
    let expected = Element::parse(&case.reply);
    if let Err(difference) = found.conforms(&expected, &mut bindings) {
        panic!(
            "{operation} {} ({}), {binding:?}: {difference}\n\nthe answer: {}",
            case.version, case.title, reply.text
        );
    }
    cloud.stop().await;
}

async fn provide(
    cloud: &Cloud,
    caller: &Client,
    version: Version,
    given: &Given,
    bindings: &mut Bindings,
) {
    match given {
        Given::Bundle {
            bucket,
            name,
            codes,
        } => {
            let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
            cloud.upload_bundle_to(bucket, name, &codes, false);
        }
        Given::Request { query, gives, .. } => {
            let mut form = filled(query, bindings);
            if !form.contains("&Version=") {
                form = format!("{form}&Version={version}");
            }
            let reply = caller.post_form(form, "ec2").await.ok();
            let mut seen: Vec<&str> = vec![];
            for (element, placeholder) in gives {
                let values = reply.values(element);
                // Named again, it is the next one.
                let place = seen.iter().filter(|it| *it == element).count();
                seen.push(element);
                let value = values.get(place);
                let value = value.unwrap_or_else(|| panic!("no {element} in {}", reply.text));
                bindings.insert(placeholder.clone(), value.clone());
            }
        }
        Given::Message(message) => {
            let envelope = common::enveloped(&filled(message, bindings));
            let reply = caller.post_soap("", &envelope).await.ok();
            assert!(!reply.text.contains("Fault"), "{}", reply.text);
        }
        Given::State { placeholder, state } => {
            let id = bindings.get(placeholder);
            let id = id.unwrap_or_else(|| panic!("{placeholder} is not bound"));
            let state = match state.as_str() {
                "prepared" => return cloud.wait_for_image(id.parse().expect("an id")).await,
                "running" => InstanceState::Running,
                "terminated" => InstanceState::Terminated,
                other => panic!("the state {other}"),
            };
            cloud.wait_for(id.parse().expect("an id"), state).await;
        }
    }
}

/// The text with what placeholders stand for.
fn filled(text: &str, bindings: &Bindings) -> String {
    let mut text = text.to_owned();
    for (placeholder, value) in bindings {
        text = text.replace(placeholder, value);
    }
    assert!(
        !text.contains('{'),
        "not all placeholders are known: {text}"
    );
    text
}

/// The printed request without what is not sent, and with its version.
fn query_of(operation: &str, case: &Case, bindings: &Bindings) -> String {
    let printed = case.query.as_deref().expect("asked above");
    let (_, query) = printed.split_once("/?").expect("a URL");
    let (query, _) = query
        .split_once(&format!("&{SIGNED_HERE}"))
        .expect("a place for the signature");
    assert!(query.starts_with(&format!("Action={operation}")), "{query}");
    format!("{}&Version={}", filled(query, bindings), case.version)
}

/// The element in canonical form: no empty tags, attributes in order.
fn canonical(text: &str) -> String {
    let mut reader = Reader::from_str(text);
    let mut out = String::new();
    loop {
        let event = reader.read_event().expect("well-formed");
        let (tag, is_empty) = match &event {
            Event::Start(tag) => (tag, false),
            Event::Empty(tag) => (tag, true),
            Event::End(tag) => {
                let name = tag.name();
                out.push_str(&format!("</{}>", String::from_utf8_lossy(name.as_ref())));
                continue;
            }
            Event::Text(text) => {
                out.push_str(&text.decode().expect("UTF-8"));
                continue;
            }
            Event::Eof => return out,
            other => panic!("{other:?} has no place in a request"),
        };
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = text_of(tag.name().as_ref());
        let mut attributes: Vec<(String, String)> = tag
            .attributes()
            .map(|it| it.expect("an attribute"))
            .map(|it| (text_of(it.key.as_ref()), text_of(&it.value)))
            .collect();
        attributes.sort_by_key(|(name, _)| (name != "xmlns", name.clone()));
        out.push_str(&format!("<{name}"));
        for (name, value) in attributes {
            out.push_str(&format!(" {name}=\"{value}\""));
        }
        out.push('>');
        if is_empty {
            out.push_str(&format!("</{name}>"));
        }
    }
}

/// What is in the body of an envelope.
fn payload(reply: &Reply) -> Element {
    const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";
    let mut envelope = Element::parse(&reply.text);
    assert_eq!(
        (envelope.namespace.as_str(), envelope.name.as_str()),
        (ENVELOPE, "Envelope")
    );
    let mut body = envelope.children.pop().expect("a body");
    assert_eq!(
        (body.namespace.as_str(), body.name.as_str()),
        (ENVELOPE, "Body")
    );
    assert_eq!(body.children.len(), 1, "{}", reply.text);
    body.children.remove(0)
}

#[test]
fn what_is_signed_is_canonical() {
    assert_eq!(
        canonical("<a xmlns=\"urn:a\"> <b y=\"2\" x=\"1\"/><c>d</c>\n</a>"),
        "<a xmlns=\"urn:a\"> <b x=\"1\" y=\"2\"></b><c>d</c>\n</a>"
    );
}
