//! The SOAP binding: an envelope in, an envelope out, and the same operations between.

use bytes::Bytes;
use cumulet_auth::der::pem_body;
use cumulet_auth::wss::{self, Certificates, Holder, WssError};
use cumulet_domain::shown;
use cumulet_ec2_model::{Version, model, request, soap};
use cumulet_engine::{Caller, Engine};
use cumulet_wire::soap::{Envelope, SoapError, leaves};
use http::{HeaderMap, Method, header};

use crate::call::Call;
use crate::error::Refused;
use crate::router::{ACTION_SHOWN_MAX, dispatch};
use crate::{Handled, RequestContext};

/// Whether a request is a SOAP message, by its head: by the header that SOAP 1.1 demands, or by the
/// type of its body.  What the header says does not matter, as it did not to EC2: the message says
/// what it asks for.  A type without a body says nothing: some clients name it with every request.
pub fn is_soap(method: &Method, headers: &HeaderMap) -> bool {
    let kind = kind(headers);
    let has_body = !matches!(*method, Method::GET | Method::HEAD);
    headers.contains_key("soapaction")
        || has_body
            && ["text/xml", "application/xml", "application/soap+xml"]
                .iter()
                .any(|it| kind.eq_ignore_ascii_case(it))
}

/// The type of the body, without its parameters.
fn kind(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// Messages in several parts, and in other characters than UTF-8, are not read.
///
/// # Errors
/// Which of them it is.
fn check_form(headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    let refuse = |text: &str| Err(Refused::new(400, "InvalidRequest", text));
    let kind = kind(headers).to_ascii_lowercase();
    if kind.starts_with("multipart/") {
        return refuse(
            "A message with attachments (MTOM or SwA) is not read: the operations have none",
        );
    }
    // A mark of byte order, or a first character of two bytes.
    let is_wide = matches!(
        body,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..]
    );
    let charset = headers
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok())
        .and_then(|it| {
            it.to_ascii_lowercase()
                .split_once("charset=")
                .map(|(_, it)| it.to_owned())
        });
    let charset = charset.unwrap_or_default();
    let charset = charset
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .trim_matches(['"', '\'']);
    if is_wide || charset.starts_with("utf-16") || charset.starts_with("utf-32") {
        return refuse("A message is in UTF-8; this one is in UTF-16 or wider");
    }
    Ok(())
}

/// The answer in its envelope.
///
/// # Errors
/// What a fault has to say.
pub(crate) async fn answer(
    engine: &Engine,
    request: &http::Request<Bytes>,
    context: &RequestContext,
    replays: &wss::Replays,
    handled: &mut Handled,
) -> Result<String, Refused> {
    if request.method() != Method::POST {
        let message = format!(
            "A SOAP message is sent by POST, not by {}",
            request.method()
        );
        return Err(Refused::new(405, "UnsupportedProtocol", message));
    }
    check_form(request.headers(), request.body())?;
    let (account, user, params) = {
        let envelope = Envelope::parse(request.body())?;
        let payload = envelope.payload()?;
        let name = payload.tag_name().name();
        handled.action = name.chars().take(ACTION_SHOWN_MAX).collect();
        // Before the signature: whoever speaks a version without the binding, or calls another
        // service, is not helped by being told how to sign.
        let version = version_of(payload.tag_name().namespace().unwrap_or_default())?;
        let known = EngineCertificates(engine);
        let signer = wss::verify(&envelope, context.now, &known, replays)?;
        handled.account = Some(signer.account);
        let operation = match model::find(name, version) {
            model::Found::Implemented(operation) => operation,
            model::Found::Known => {
                return Err(request::ModelError::UnsupportedAction(handled.action.clone()).into());
            }
            model::Found::Unknown => {
                return Err(request::ModelError::unknown_action(name, version).into());
            }
        };
        let params = soap::params(operation, version, &leaves(payload)?)?;
        (signer.account, signer.user, params)
    };
    let caller = Caller { account, user };
    let call = Call::new(engine, caller, request::check_soap(&params)?, context);
    let text = dispatch(&call).await?;
    Ok(cumulet_wire::soap::enveloped(&text))
}

/// The version that the namespace of a request names.
///
/// # Errors
/// It names none, or one that has no SOAP binding.
fn version_of(namespace: &str) -> Result<Version, Refused> {
    match soap::version_of(namespace) {
        Some(version) if version <= soap::LAST => Ok(version),
        Some(version) => Err(Refused::new(
            400,
            "NoSuchVersion",
            format!(
                "Version {version} of service AmazonEC2 has no SOAP binding; the versions up to {} have one",
                soap::LAST
            ),
        )),
        None if namespace.is_empty() => Err(Refused::new(
            400,
            "NoSuchVersion",
            "The message names no version: its operation must be in the namespace http://ec2.amazonaws.com/doc/VERSION/",
        )),
        None => {
            let namespace = shown(namespace);
            Err(request::ModelError::UnknownVersion(namespace).into())
        }
    }
}

/// Certificates, from the engine's records.
struct EngineCertificates<'a>(&'a Engine);

impl Certificates for EngineCertificates<'_> {
    fn find(&self, fingerprint: &str) -> Option<Holder> {
        let state = self.0.snapshot();
        let found = state.certificates.get(fingerprint)?;
        Some(Holder {
            account: found.account,
            user: found.user.clone(),
            der: pem_body(&found.pem, "CERTIFICATE")?,
        })
    }
}

impl From<SoapError> for Refused {
    fn from(error: SoapError) -> Self {
        Self::new(400, "InvalidRequest", capitalised(&error.to_string()))
    }
}

impl From<WssError> for Refused {
    /// `InvalidSecurity` is what EC2's tools showed for a message that is too old.
    fn from(error: WssError) -> Self {
        let text = capitalised(&error.to_string());
        match error {
            WssError::NoHeader
            | WssError::Form(_)
            | WssError::MustUnderstand(_)
            | WssError::Expired(_)
            | WssError::Replayed => Self::new(400, "InvalidSecurity", text),
            WssError::UnknownCertificate | WssError::Mismatch => Self::new(
                401,
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
            ),
            WssError::TooMany => Self::new(503, "Unavailable", text),
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|it| it.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}
