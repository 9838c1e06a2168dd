//! WS-Security: who signed a SOAP message, with an X.509 certificate.
//!
//! One form is accepted, the one that EC2's clients send: in the header a
//! `BinarySecurityToken`, a `Timestamp` and a `Signature` over that timestamp and
//! the body, by exclusive canonicalisation, RSA and SHA-1 or SHA-256.  All else
//! is refused, since what a verifier understands beyond need is what gets it
//! wrong.
//!
//! Invariants, against wrapping of signed parts in others:
//!
//! * The body that is executed and the timestamp whose age is judged are found by
//!   their place in the envelope, never by an id; the signature must then name
//!   exactly these elements.
//! * An id is on one element.
//! * The certificate only names a key: it is looked up among those registered, and
//!   compared whole; its chain is never trusted.

mod canonical;
mod replays;
pub mod sign;

use std::collections::HashMap;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::signature::{
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RsaParameters, UnparsedPublicKey,
};
use cumulet_domain::{AccountId, Timestamp, shown};
use cumulet_wire::soap::{ENVELOPE, Envelope, SoapError};
use cumulet_wire::{base64, time};
use roxmltree::{Node, NodeId};

use self::canonical::canonical;
use self::replays::Noted;
pub use self::replays::Replays;

const WSSE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const WSU: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const RSA_SHA1: &str = "http://www.w3.org/2000/09/xmldsig#rsa-sha1";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const SHA1: &str = "http://www.w3.org/2000/09/xmldsig#sha1";
const SHA256_URI: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const BASE64: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";
const X509: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#X509v3";

/// How far the time of signing may be from ours, either way.
pub const SKEW_MS: i64 = 5 * 60 * 1000;

/// Longest certificate, and longest signature, in bytes.
const TOKEN_LEN_MAX: usize = 16 * 1024;
const SIGNATURE_LEN_MAX: usize = 1024;
/// Most parts of the message that are signed.
const REFERENCES_MAX: usize = 8;
/// Most elements and texts of what is signed by the key itself.
const SIGNED_INFO_NODES_MAX: usize = 512;
/// Most prefixes of a list of namespaces.
const PREFIXES_MAX: usize = 32;

/// Why a message is not from whom it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WssError {
    #[error("the message has no security header")]
    NoHeader,
    /// Not of the one form that is accepted; what is wrong.
    #[error("the security header cannot be accepted: {0}")]
    Form(String),
    /// A header that the sender wants understood, and that is unknown here.
    #[error("the header {0} must be understood, and is not")]
    MustUnderstand(String),
    #[error("the certificate is unknown")]
    UnknownCertificate,
    #[error("the signature does not match")]
    Mismatch,
    #[error("the message is too old or too new: {0}")]
    Expired(String),
    #[error("the message was received before")]
    Replayed,
    #[error("too many messages arrive to tell new ones from old ones")]
    TooMany,
}

/// Where certificates are found.
pub trait Certificates {
    /// By the SHA-1 of the DER form, in hex.
    fn find(&self, fingerprint: &str) -> Option<Holder>;
}

/// Whose a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub account: AccountId,
    pub user: String,
    /// The certificate.
    pub der: Vec<u8>,
}

/// Who signed, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    pub account: AccountId,
    pub user: String,
    /// Of the certificate: SHA-1 of its DER form, in hex.
    pub fingerprint: String,
}

type Result<T> = std::result::Result<T, WssError>;

fn form<T>(what: impl Into<String>) -> Result<T> {
    Err(WssError::Form(what.into()))
}

impl From<SoapError> for WssError {
    fn from(cause: SoapError) -> Self {
        WssError::Form(cause.to_string())
    }
}

/// Finds out who signed the body of an envelope, now and for the first time.
///
/// # Errors
/// See [`WssError`]; nobody is believed then.
pub fn verify(
    envelope: &Envelope<'_>,
    now: Timestamp,
    certificates: &dyn Certificates,
    replays: &Replays,
) -> Result<Signer> {
    let parts = Parts::find(envelope)?;
    let ids = ids(envelope.root())?;
    let (window_end, is_fresh) = validity(parts.timestamp, now)?;

    let signed_info = only(parts.signature, (DS, "SignedInfo"))?;
    let token = token(&parts, &ids)?;
    let fingerprint = hex::encode(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &token));
    let holder = certificates
        .find(&fingerprint)
        .filter(|holder| holder.der == token)
        .ok_or(WssError::UnknownCertificate)?;

    let value = decoded(
        only(parts.signature, (DS, "SignatureValue"))?,
        SIGNATURE_LEN_MAX,
    )?;
    let method = method(signed_info)?;
    let inclusive = canonicalisation(only(signed_info, (DS, "CanonicalizationMethod"))?)?;
    // Nobody has signed it yet: it is looked at no further than it has to be.
    if signed_info.descendants().count() > SIGNED_INFO_NODES_MAX {
        return form("its SignedInfo is too long");
    }
    let info = canonical(envelope.text(), signed_info, &inclusive);
    let info = info.map_or_else(|| form("its SignedInfo is too long"), Ok)?;
    check_rsa(method, &token, &info, &value)?;
    check_references(envelope, signed_info, &ids, &parts)?;

    // Only now it is known that the timestamp is the signer's.
    is_fresh?;
    let message = digest::digest(&SHA256, &info);
    let message = message
        .as_ref()
        .try_into()
        .map_err(|_| WssError::Mismatch)?;
    match replays.note(message, &holder.der, window_end, now) {
        Noted::New => Ok(Signer {
            account: holder.account,
            user: holder.user,
            fingerprint,
        }),
        Noted::Seen => Err(WssError::Replayed),
        Noted::Full => Err(WssError::TooMany),
    }
}

/// The elements that a signature is about, by their place.
struct Parts<'d, 'a> {
    body: Node<'d, 'a>,
    token: Node<'d, 'a>,
    timestamp: Node<'d, 'a>,
    signature: Node<'d, 'a>,
}

impl<'d, 'a> Parts<'d, 'a> {
    fn find(envelope: &'d Envelope<'a>) -> Result<Self> {
        let header = envelope.header().ok_or(WssError::NoHeader)?;
        let mut security = None;
        let mut other = None;
        for child in header.children().filter(Node::is_element) {
            if child.has_tag_name((WSSE, "Security")) {
                if security.replace(child).is_some() {
                    return form("there are two of it");
                }
                continue;
            }
            let must_understand = matches!(
                child.attribute((ENVELOPE, "mustUnderstand")),
                Some("1" | "true")
            );
            let name = child.tag_name().name();
            // That of a draft, which says what it is read by once it is clear that it is the only one.
            if name == "Security" && (other.is_none() || must_understand) {
                other = Some((child, must_understand));
            } else if must_understand {
                return Err(WssError::MustUnderstand(shown(name)));
            }
        }
        let security = match (security, other) {
            (Some(_), Some((other, true))) => {
                return Err(WssError::MustUnderstand(shown(other.tag_name().name())));
            }
            (Some(security), _) => security,
            (None, Some((other, _))) => {
                let given = shown(other.tag_name().namespace().unwrap_or_default());
                return form(format!("its namespace is {given:?}, and {WSSE:?} is read"));
            }
            (None, None) => return Err(WssError::NoHeader),
        };
        let known = [
            (WSSE, "BinarySecurityToken"),
            (WSU, "Timestamp"),
            (DS, "Signature"),
        ];
        for child in security.children().filter(Node::is_element) {
            if !known.iter().any(|name| child.has_tag_name(*name)) {
                let name = shown(child.tag_name().name());
                return form(format!("{name} is unknown"));
            }
        }
        Ok(Self {
            body: envelope.body()?,
            token: only(security, known[0])?,
            timestamp: only(security, known[1])?,
            signature: only(security, known[2])?,
        })
    }
}

/// The one child of that name.
fn only<'d, 'a>(parent: Node<'d, 'a>, name: (&'static str, &'static str)) -> Result<Node<'d, 'a>> {
    let mut found = parent.children().filter(|it| it.has_tag_name(name));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => form(format!("{} has no {}", parent.tag_name().name(), name.1)),
        (Some(_), Some(_)) => form(format!(
            "{} has several elements {}",
            parent.tag_name().name(),
            name.1
        )),
    }
}

/// The text of an element that has nothing else.
fn text<'d>(element: Node<'d, '_>) -> Result<&'d str> {
    let mut children = element.children();
    match (children.next(), children.next()) {
        (None, _) => Ok(""),
        (Some(only), None) if only.is_text() => Ok(only.text().unwrap_or_default().trim()),
        _ => form(format!(
            "{} must hold text alone",
            element.tag_name().name()
        )),
    }
}

fn decoded(element: Node<'_, '_>, len_max: usize) -> Result<Vec<u8>> {
    let name = element.tag_name().name();
    base64::decode(text(element)?, len_max)
        .or_else(|_| form(format!("{name} is no base64, or too long")))
}

/// All elements that have an id, by it.  What is called so in any namespace counts: another reader
/// may go by it.
fn ids(root: Node<'_, '_>) -> Result<HashMap<String, NodeId>> {
    let mut ids = HashMap::new();
    for element in root.descendants().filter(Node::is_element) {
        for attribute in element.attributes() {
            if attribute.name().eq_ignore_ascii_case("id") {
                let id = attribute.value().to_owned();
                match ids.insert(id, element.id()) {
                    Some(other) if other != element.id() => {
                        return form("an id is on two elements");
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
    Ok(ids)
}

/// Until when the message may be accepted, and whether now is within its time.
fn validity(timestamp: Node<'_, '_>, now: Timestamp) -> Result<(Timestamp, Result<()>)> {
    let created = only(timestamp, (WSU, "Created"))?;
    let (created, written) = (at(created)?, text(created)?);
    let newest = Timestamp(created.0.saturating_add(SKEW_MS));
    let end = match timestamp
        .children()
        .any(|it| it.has_tag_name((WSU, "Expires")))
    {
        true => at(only(timestamp, (WSU, "Expires"))?)?.min(newest),
        false => newest,
    };
    let is_early = created.0 > now.0.saturating_add(SKEW_MS);
    let is_fresh = if is_early || end < now {
        Err(WssError::Expired(format!(
            "it was signed at {written}, and it is {} here",
            time::format_iso8601(now)
        )))
    } else {
        Ok(())
    };
    Ok((end, is_fresh))
}

fn at(element: Node<'_, '_>) -> Result<Timestamp> {
    let written = text(element)?;
    time::parse_iso8601(written)
        .map_or_else(|| form(format!("{:?} is no time", shown(written))), Ok)
}

/// The certificate, which the signature must name by the token's id.
fn token(parts: &Parts<'_, '_>, ids: &HashMap<String, NodeId>) -> Result<Vec<u8>> {
    let key_info = only(parts.signature, (DS, "KeyInfo"))?;
    let named = only(
        only_child(key_info, (WSSE, "SecurityTokenReference"))?,
        (WSSE, "Reference"),
    )?;
    let uri = named.attribute("URI").unwrap_or_default();
    let id = uri.strip_prefix('#').and_then(|id| ids.get(id));
    if id != Some(&parts.token.id()) {
        return form("its KeyInfo does not name the BinarySecurityToken");
    }
    if parts
        .token
        .attribute("EncodingType")
        .is_some_and(|it| it != BASE64)
    {
        return form("its token must be in base64");
    }
    if parts
        .token
        .attribute("ValueType")
        .is_some_and(|it| it != X509)
    {
        return form("its token must be an X.509 certificate");
    }
    decoded(parts.token, TOKEN_LEN_MAX)
}

/// The one child of that name, which no other element is beside.
fn only_child<'d, 'a>(
    parent: Node<'d, 'a>,
    name: (&'static str, &'static str),
) -> Result<Node<'d, 'a>> {
    if parent.children().filter(Node::is_element).count() > 1 {
        return form(format!(
            "{} must hold one element",
            parent.tag_name().name()
        ));
    }
    only(parent, name)
}

fn algorithm<'d>(element: Node<'d, '_>) -> &'d str {
    element.attribute("Algorithm").unwrap_or_default()
}

fn method(signed_info: Node<'_, '_>) -> Result<&'static RsaParameters> {
    let method = only(signed_info, (DS, "SignatureMethod"))?;
    match algorithm(method) {
        RSA_SHA1 => Ok(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        RSA_SHA256 => Ok(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        other => form(format!("the algorithm {:?} is not accepted", shown(other))),
    }
}

/// The prefixes of an exclusive canonicalisation's list.
fn canonicalisation<'d>(element: Node<'d, '_>) -> Result<Vec<&'d str>> {
    if algorithm(element) != EXCLUSIVE {
        let given = shown(algorithm(element));
        return form(format!("the canonicalisation {given:?} is not accepted"));
    }
    let mut children = element.children().filter(Node::is_element);
    let prefixes: Vec<&str> = match (children.next(), children.next()) {
        (None, _) => vec![],
        (Some(list), None) if list.has_tag_name((EXCLUSIVE, "InclusiveNamespaces")) => {
            let list = list.attribute("PrefixList").unwrap_or_default();
            let prefixes = list.split_ascii_whitespace();
            prefixes
                .map(|it| if it == "#default" { "" } else { it })
                .collect()
        }
        _ => return form("a canonicalisation has parameters that are not accepted"),
    };
    if prefixes.len() > PREFIXES_MAX {
        return form("a list of namespaces is too long");
    }
    Ok(prefixes)
}

fn check_rsa(
    method: &'static RsaParameters,
    certificate: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<()> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| WssError::UnknownCertificate)?;
    let key = &parsed.public_key().subject_public_key.data;
    UnparsedPublicKey::new(method, key)
        .verify(message, signature)
        .map_err(|_| WssError::Mismatch)
}

/// Every reference must fit, and body and timestamp be among them.
fn check_references(
    envelope: &Envelope<'_>,
    signed_info: Node<'_, '_>,
    ids: &HashMap<String, NodeId>,
    parts: &Parts<'_, '_>,
) -> Result<()> {
    let mut signed = vec![];
    for child in signed_info.children().filter(Node::is_element) {
        if !child.has_tag_name((DS, "Reference")) {
            continue;
        }
        if signed.len() == REFERENCES_MAX {
            return form("it signs too many parts");
        }
        let uri = child.attribute("URI").unwrap_or_default();
        let id = uri.strip_prefix('#').and_then(|id| ids.get(id));
        let element = id.and_then(|id| parts.body.document().get_node(*id));
        let Some(element) = element else {
            let uri = shown(uri);
            return form(format!("it signs {uri:?}, which is not there"));
        };
        check_digest(envelope, child, element)?;
        signed.push(element.id());
    }
    if !signed.contains(&parts.body.id()) {
        return form("it does not sign the Body");
    }
    if !signed.contains(&parts.timestamp.id()) {
        return form("it does not sign the Timestamp");
    }
    Ok(())
}

fn check_digest(
    envelope: &Envelope<'_>,
    reference: Node<'_, '_>,
    element: Node<'_, '_>,
) -> Result<()> {
    let transforms = only(reference, (DS, "Transforms"))?;
    let transform = only_child(transforms, (DS, "Transform"))?;
    let inclusive = canonicalisation(transform)?;
    let method = match algorithm(only(reference, (DS, "DigestMethod"))?) {
        SHA1 => &SHA1_FOR_LEGACY_USE_ONLY,
        SHA256_URI => &SHA256,
        other => return form(format!("the digest {:?} is not accepted", shown(other))),
    };
    let given = decoded(only(reference, (DS, "DigestValue"))?, SIGNATURE_LEN_MAX)?;
    let canonical = canonical(envelope.text(), element, &inclusive);
    let canonical = canonical.map_or_else(|| form("a signed part is too long"), Ok)?;
    let found = digest::digest(method, &canonical);
    if found.as_ref() == given {
        Ok(())
    } else {
        Err(WssError::Mismatch)
    }
}
