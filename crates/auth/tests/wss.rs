//! WS-Security: what other libraries signed is believed, and nothing else.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use cumulet_auth::certificates::{self, Issued};
use cumulet_auth::der::pem_body;
use cumulet_auth::wss::{Certificates, Holder, Replays, Signer, WssError, verify};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_wire::soap::Envelope;
use cumulet_wire::{base64, time};

const FIXTURES: [(&str, &str); 3] = [
    ("zeep, SHA-1", include_str!("wss/zeep-sha1.xml")),
    ("zeep, SHA-256", include_str!("wss/zeep-sha256.xml")),
    ("xmlsec, lists of namespaces", include_str!("wss/lists.xml")),
];
/// When the fixtures were signed.
const SIGNED: &str = "2026-11-21T12:00:00Z";

/// One certificate that is registered.
struct Registered(Vec<u8>);

impl Certificates for Registered {
    fn find(&self, fingerprint: &str) -> Option<Holder> {
        let own = hex::encode(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.0));
        (own == fingerprint).then(|| Holder {
            account: AccountId::from_random(1),
            user: "user".into(),
            der: self.0.clone(),
        })
    }
}

fn signed_at(minutes: i64) -> Timestamp {
    let signed = time::parse_iso8601(SIGNED).unwrap();
    Timestamp(signed.0 + minutes * 60_000)
}

fn try_verify(
    text: &str,
    now: Timestamp,
    known: &Registered,
    replays: &Replays,
) -> Result<Signer, String> {
    let envelope = Envelope::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    verify(&envelope, now, known, replays).map_err(|error| error.to_string())
}

fn of_fixtures() -> Registered {
    let pem = include_str!("wss/certificate.pem");
    Registered(pem_body(pem, "CERTIFICATE").unwrap())
}

#[test]
fn what_other_libraries_sign_is_believed() {
    let known = of_fixtures();
    for (name, text) in FIXTURES {
        let signer = try_verify(text, signed_at(1), &known, &Replays::default());
        assert_eq!(signer.expect(name).user, "user", "{name}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let known = of_fixtures();
    for (name, text) in FIXTURES {
        let first = text.find("Envelope").unwrap();
        let (mut tried, mut harmless) = (0, 0);
        for place in first..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            let byte = bytes[place];
            // Letters stay letters, so that as many as can be are well-formed.
            bytes[place] = match byte {
                b'a'..=b'y' | b'A'..=b'Y' | b'0'..=b'8' => byte + 1,
                b'z' | b'Z' | b'9' => byte - 1,
                _ => continue,
            };
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            tried += 1;
            if let Ok(signer) = try_verify(&changed, signed_at(1), &known, &Replays::default()) {
                // What is not signed and means nothing may change: the names of unused prefixes, of
                // attributes like the id of the KeyInfo, padding bits of base64.
                assert_eq!(signer.user, "user");
                let payload = |text: &str| {
                    let envelope = Envelope::parse(text.as_bytes()).unwrap();
                    let node = envelope.payload().unwrap();
                    let texts: String = node.descendants().filter_map(|it| it.text()).collect();
                    (format!("{:?}", node.tag_name()), texts)
                };
                assert_eq!(payload(&changed), payload(text), "{name}, byte {place}");
                harmless += 1;
            }
        }
        assert!(tried > 2_000, "{name}: {tried}");
        assert!(harmless < tried / 10, "{name}: {harmless} of {tried}");
    }
}

#[test]
fn old_new_and_repeated_messages_are_refused() {
    let known = of_fixtures();
    let text = FIXTURES[0].1;
    let replays = Replays::default();
    let verified = |minutes| try_verify(text, signed_at(minutes), &known, &replays);
    assert!(verified(6).unwrap_err().contains("too old or too new"));
    assert!(verified(-6).unwrap_err().contains("too old or too new"));
    assert!(verified(-4).is_ok());
    assert_eq!(verified(4).unwrap_err(), WssError::Replayed.to_string());
    let other = Registered(b"another certificate".to_vec());
    let refused = try_verify(text, signed_at(1), &other, &Replays::default());
    assert_eq!(
        refused.unwrap_err(),
        WssError::UnknownCertificate.to_string()
    );
}

/// A user with a certificate, who signs whatever a test asks for.  What is to be signed is written
/// in its canonical form, so that nothing of ours makes it so.
struct User {
    issued: Issued,
    key: RsaKeyPair,
}

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const WSSE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const WSU: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const TRANSFORM: &str =
    "<ds:Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"></ds:Transform>";

fn body(id: &str, operation: &str) -> String {
    format!(
        "<S:Body xmlns:S=\"{SOAP}\" xmlns:wsu=\"{WSU}\" wsu:Id=\"{id}\"><{operation} xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><text>one two</text></{operation}></S:Body>"
    )
}

fn stamp(id: &str, created: &str) -> String {
    format!(
        "<wsu:Timestamp xmlns:wsu=\"{WSU}\" wsu:Id=\"{id}\"><wsu:Created>{created}</wsu:Created></wsu:Timestamp>"
    )
}

/// The pieces of a message.
#[derive(Clone)]
struct Message {
    /// `URI` and what is digested, canonical.
    signed: Vec<(String, String)>,
    transforms: String,
    token: String,
    key_info: String,
    /// In the security header, before its end.
    stamp: String,
    extra: String,
    /// Other headers.
    headers: String,
    body: String,
}

impl User {
    fn new() -> Self {
        let issued = certificates::issue("user", "1", 1_790_000_000_000).unwrap();
        let key = RsaKeyPair::from_pkcs8(&issued.private_key_pkcs8).unwrap();
        Self { issued, key }
    }

    fn known(&self) -> Registered {
        Registered(pem_body(&self.issued.certificate_pem, "CERTIFICATE").unwrap())
    }

    fn message(&self) -> Message {
        let (stamp, body) = (stamp("time", SIGNED), body("body", "DescribeInstances"));
        Message {
            signed: vec![("#time".into(), stamp.clone()), ("#body".into(), body.clone())],
            transforms: TRANSFORM.into(),
            token: format!(
                "<wsse:BinarySecurityToken xmlns:wsu=\"{WSU}\" wsu:Id=\"token\">{}</wsse:BinarySecurityToken>",
                base64::encode(&self.known().0)
            ),
            key_info: "<wsse:SecurityTokenReference><wsse:Reference URI=\"#token\"/></wsse:SecurityTokenReference>".into(),
            stamp,
            extra: String::new(),
            headers: String::new(),
            body,
        }
    }

    fn sign(&self, message: &Message) -> String {
        let references: String = message
            .signed
            .iter()
            .map(|(uri, canonical)| {
                let value = base64::encode(digest::digest(&SHA256, canonical.as_bytes()).as_ref());
                format!(
                    "<ds:Reference URI=\"{uri}\"><ds:Transforms>{}</ds:Transforms><ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"></ds:DigestMethod><ds:DigestValue>{value}</ds:DigestValue></ds:Reference>",
                    message.transforms
                )
            })
            .collect();
        let info = format!(
            "<ds:SignedInfo xmlns:ds=\"{DS}\"><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256\"></ds:SignatureMethod>{references}</ds:SignedInfo>"
        );
        let mut value = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                info.as_bytes(),
                &mut value,
            )
            .unwrap();
        format!(
            "<S:Envelope xmlns:S=\"{SOAP}\"><S:Header><wsse:Security xmlns:wsse=\"{WSSE}\">{}<ds:Signature xmlns:ds=\"{DS}\">{info}<ds:SignatureValue>{}</ds:SignatureValue><ds:KeyInfo>{}</ds:KeyInfo></ds:Signature>{}{}</wsse:Security>{}</S:Header>{}</S:Envelope>",
            message.token,
            base64::encode(&value),
            message.key_info,
            message.stamp,
            message.extra,
            message.headers,
            message.body,
        )
    }
}

#[test]
fn signed_parts_cannot_be_wrapped_moved_or_swapped() {
    let user = User::new();
    let known = user.known();
    assert_eq!(user.key.public_key().as_ref().first(), Some(&0x30));
    let good = user.message();
    let refused = |what: &str, text: &str, said: &str| match try_verify(
        text,
        signed_at(1),
        &known,
        &Replays::default(),
    ) {
        Ok(_) => panic!("{what} is believed"),
        Err(error) => assert!(error.contains(said), "{what}: {error}"),
    };
    let accepted = try_verify(&user.sign(&good), signed_at(1), &known, &Replays::default());
    accepted.unwrap();

    let evil = body("evil", "TerminateInstances");
    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        user.sign(&message)
    };
    let wrapper = |inside: &str| format!("<x:wrapper xmlns:x=\"urn:x\">{inside}</x:wrapper>");
    refused(
        "a body that was moved into a header, another in its place",
        &changed(&|it| {
            it.headers = wrapper(&good.body);
            it.body = evil.clone();
        }),
        "does not sign the Body",
    );
    refused(
        "a body that was moved, another with its id in its place",
        &changed(&|it| {
            it.headers = wrapper(&good.body);
            it.body = evil.replace("evil", "body");
        }),
        "id is on two elements",
    );
    refused(
        "a second body",
        &changed(&|it| it.body = evil.clone() + &good.body),
        "one Body",
    );
    refused(
        "a body in the body",
        &changed(&|it| it.body = evil.replace("<text>one two</text>", &good.body)),
        "does not sign the Body",
    );
    refused(
        "a second operation in the body",
        &changed(&|it| it.body = it.body.replace("</S:Body>", "<a></a></S:Body>")),
        "does not match",
    );
    refused(
        "an id of another kind beside",
        &changed(&|it| it.headers = "<x:a xmlns:x=\"urn:x\" ID=\"body\"/>".into()),
        "id is on two elements",
    );
    refused(
        "another timestamp, the signed one beside it in a header",
        &changed(&|it| {
            it.stamp = stamp("new", "2026-11-21T12:30:00Z");
            it.headers = wrapper(&good.stamp);
        }),
        "does not sign the Timestamp",
    );
    refused(
        "two timestamps",
        &changed(&|it| it.extra = stamp("new", "2026-11-21T12:30:00Z")),
        "several elements Timestamp",
    );
    refused(
        "two signatures",
        &changed(&|it| it.extra = format!("<ds:Signature xmlns:ds=\"{DS}\"></ds:Signature>")),
        "several elements Signature",
    );
    refused(
        "two security headers",
        &changed(&|it| it.headers = format!("<wsse:Security xmlns:wsse=\"{WSSE}\"/>")),
        "two of it",
    );
    refused(
        "something unknown in the security header",
        &changed(&|it| it.extra = format!("<wsse:UsernameToken xmlns:wsse=\"{WSSE}\"/>")),
        "UsernameToken is unknown",
    );
    for (name, transforms) in [
        (
            "XPath",
            "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\"></ds:Transform>",
        ),
        ("none", ""),
        ("two", &format!("{TRANSFORM}{TRANSFORM}")),
        (
            "XSLT after it",
            &format!(
                "{TRANSFORM}<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"></ds:Transform>"
            ),
        ),
        (
            "STR",
            "<ds:Transform Algorithm=\"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#STR-Transform\"></ds:Transform>",
        ),
        (
            "inclusive",
            "<ds:Transform Algorithm=\"http://www.w3.org/TR/2001/REC-xml-c14n-20010315\"></ds:Transform>",
        ),
        (
            "with comments",
            "<ds:Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#WithComments\"></ds:Transform>",
        ),
    ] {
        let text = changed(&|it| it.transforms = transforms.into());
        refused(&format!("the transform {name}"), &text, "security header");
    }
    refused(
        "a body that is not signed",
        &changed(&|it| drop(it.signed.pop())),
        "does not sign the Body",
    );
    refused(
        "a timestamp that is not signed",
        &changed(&|it| drop(it.signed.remove(0))),
        "does not sign the Timestamp",
    );
    refused(
        "no timestamp",
        &changed(&|it| it.stamp.clear()),
        "has no Timestamp",
    );
    for uri in [
        "",
        "#",
        "#nowhere",
        "http://127.0.0.1/",
        "#xpointer(/)",
        "body",
    ] {
        let text = changed(&|it| it.signed[1].0 = uri.into());
        refused(&format!("a reference to {uri:?}"), &text, "not there");
    }
    refused(
        "very many references",
        &changed(&|it| it.signed = vec![it.signed[0].clone(); 9]),
        "too many parts",
    );
    refused(
        "a comment in what was signed",
        &user.sign(&good).replace("one two", "one<!-- --> two"),
        "comment",
    );
    refused(
        "an instruction that calls itself a declaration",
        &user.sign(&good).replace("one two", "one<?xml\tx?> two"),
        "processing instruction",
    );
    refused(
        "much that nobody has signed, where it is looked at first",
        &user.sign(&good).replace(
            "</ds:SignedInfo>",
            &format!("{}</ds:SignedInfo>", "<ds:a/>".repeat(600)),
        ),
        "SignedInfo is too long",
    );
    refused(
        "an instruction in what was signed",
        &user.sign(&good).replace("one two", "one<?a b?> two"),
        "processing instruction",
    );
}

#[test]
fn no_other_key_is_taken() {
    let (user, other) = (User::new(), User::new());
    let known = user.known();
    let good = user.message();
    let refused = |what: &str, text: &str| match try_verify(
        text,
        signed_at(1),
        &known,
        &Replays::default(),
    ) {
        Ok(_) => panic!("{what} is believed"),
        Err(error) => error,
    };
    // Signed by another, who shows the user's certificate.
    assert_eq!(
        refused("another key", &other.sign(&good)),
        WssError::Mismatch.to_string()
    );
    // His own certificate is not registered.
    assert_eq!(
        refused("another certificate", &other.sign(&other.message())),
        WssError::UnknownCertificate.to_string()
    );
    // Both certificates, the user's first.
    let mut both = other.message();
    let own = both.token.replace("\"token\"", "\"own\"");
    both.token = good.token.clone() + &own;
    both.key_info = both.key_info.replace("#token", "#own");
    assert!(refused("two certificates", &other.sign(&both)).contains("several elements"));
    // The key itself, or another way to find it, beside the token.
    let mut message = other.message();
    message.token = good.token.clone();
    for key_info in [
        "<ds:KeyValue></ds:KeyValue>".to_owned(),
        format!("<ds:KeyName>a</ds:KeyName>{}", message.key_info),
        message.key_info.replace("#token", "#body"),
        message.key_info.replace("#token", "token"),
        message.key_info.replace(
            "<wsse:Reference URI=\"#token\"/>",
            "<ds:X509Data></ds:X509Data>",
        ),
        String::new(),
    ] {
        message.key_info = key_info.clone();
        let said = refused(&key_info, &other.sign(&message));
        assert!(said.contains("security header"), "{key_info}: {said}");
    }
    // Types of tokens that are something else.
    for attribute in [
        "ValueType=\"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#X509PKIPathv1\"",
        "EncodingType=\"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#HexBinary\"",
    ] {
        let mut message = good.clone();
        let named = format!("<wsse:BinarySecurityToken {attribute}");
        message.token = message.token.replace("<wsse:BinarySecurityToken", &named);
        assert!(refused(attribute, &user.sign(&message)).contains("its token must be"));
    }
    // A certificate that only begins like the registered one.
    let mut longer = known.0.clone();
    longer.push(0);
    let mut message = good.clone();
    message.token = message
        .token
        .replace(&base64::encode(&known.0), &base64::encode(&longer));
    assert_eq!(
        refused("a longer certificate", &user.sign(&message)),
        WssError::UnknownCertificate.to_string()
    );
}

#[test]
fn headers_that_must_be_understood_are_refused_and_others_ignored() {
    let user = User::new();
    let known = user.known();
    let mut message = user.message();
    message.headers = "<x:a xmlns:x=\"urn:x\"/>".into();
    let verified = |message: &Message| {
        let text = user.sign(message);
        try_verify(&text, signed_at(1), &known, &Replays::default())
    };
    verified(&message).unwrap();
    message.headers = "<x:a xmlns:x=\"urn:x\" S:mustUnderstand=\"1\"/>".into();
    assert!(
        verified(&message)
            .unwrap_err()
            .contains("must be understood")
    );
    let bare = format!(
        "<S:Envelope xmlns:S=\"{SOAP}\">{}</S:Envelope>",
        message.body
    );
    let refused = try_verify(&bare, signed_at(1), &known, &Replays::default());
    assert_eq!(refused.unwrap_err(), WssError::NoHeader.to_string());
}

/// A client of a draft learns what it is that cannot be read, also when it wants it understood.
#[test]
fn security_headers_of_drafts_are_named() {
    let user = User::new();
    let known = user.known();
    let refused =
        |text: &str| try_verify(text, signed_at(1), &known, &Replays::default()).unwrap_err();
    let mut message = user.message();
    let of = |namespace: &str, more: &str| format!("<Security xmlns=\"{namespace}\" {more}/>");
    let alone = |header: String| {
        let body = &message.body;
        refused(&format!(
            "<S:Envelope xmlns:S=\"{SOAP}\"><S:Header>{header}</S:Header>{body}</S:Envelope>"
        ))
    };
    let draft = "http://schemas.xmlsoap.org/ws/2003/06/secext";
    let must = "S:mustUnderstand=\"1\"";
    for more in ["", must] {
        let text = alone(of(draft, more));
        assert!(text.contains("ws/2003/06/secext"), "{text}");
        let text = alone(of("", more));
        assert!(text.contains("its namespace is \"\""), "{text}");
    }
    // What a message repeats is cut.
    let text = alone(of(&format!("urn:{}", "x".repeat(200)), ""));
    assert!(
        text.contains(&"x".repeat(116)) && !text.contains(&"x".repeat(117)),
        "{text}"
    );
    // Beside one that is read it is a header like others.
    message.headers = of(draft, must);
    let text = refused(&user.sign(&message));
    assert!(text.contains("Security must be understood"), "{text}");
    message.headers = of(draft, "");
    let text = user.sign(&message);
    try_verify(&text, signed_at(1), &known, &Replays::default()).unwrap();
}
