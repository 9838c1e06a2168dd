//! What stands around the library: checks before it, the form of errors after
//! it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cumulet_auth::{AuthError, s3::precheck};
use cumulet_objects::{Algorithm, Hasher};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use s3s::Body;

use crate::errors::{Refusal, read_document};
use crate::held_body::{HeldBody, Holding};
use crate::identity::Claim;
use crate::payload::{header_checksums, parse_md5};
use crate::prefix::{self, Prefixed};
use crate::shared_body::SharedBody;
use crate::{BodyError, Door, Outcome, XML_BYTES_MAX, signature_v2};

/// How long an XML body may take to arrive.
const XML_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of an error document of the library.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// No document of S3's has one, and what it could define is better not read.
const DOCTYPE: &[u8] = b"<!DOCTYPE";

/// Names of the query by which requests are signed.
pub(crate) const AUTH_PARAMETERS: [&str; 9] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "AWSAccessKeyId",
    "Signature",
    "Expires",
];

/// Parts of an object that are not its bytes.
const SUBRESOURCES: [&str; 9] = [
    "acl",
    "tagging",
    "retention",
    "legal-hold",
    "torrent",
    "restore",
    "select",
    "attributes",
    "encryption",
];

pub(crate) async fn answer<B>(door: &Door, request: Request<B>, request_id: &str) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let (parts, body) = request.into_parts();
    let body = SharedBody::new(body);
    let about = About {
        resource: path_of(door, &parts).to_owned(),
        is_head: parts.method == Method::HEAD,
        has_signed_payload: parts
            .headers
            .get("x-amz-content-sha256")
            .is_some_and(|value| value.len() == 64),
        request_id,
    };
    let waits = parts.headers.contains_key(header::EXPECT);
    let holding = Holding::new(&door.config.held);
    let admitted = admit(door, parts, body.clone(), &holding).await;
    let (mut response, claim) = match admitted {
        Ok((request, claim)) => {
            let answered = match door.inner.call(request).await {
                Ok(response) => response,
                Err(cause) => {
                    tracing::error!(?cause, "the S3 library failed");
                    refused(
                        &Refusal::new(500, "InternalError", crate::errors::INTERNAL),
                        &about,
                    )
                }
            };
            (answered, claim)
        }
        Err(refusal) => (refused(&refusal, &about), Arc::default()),
    };
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if is_error && holding.is_refused() {
        let message = "Please reduce your request rate.";
        response = refused(&Refusal::new(503, "SlowDown", message), &about);
    }
    if is_error && !waits {
        body.drain().await;
    }
    finish(response, &claim, &about).await
}

struct About<'a> {
    resource: String,
    is_head: bool,
    has_signed_payload: bool,
    request_id: &'a str,
}

/// The request as the library may have it.
async fn admit(
    door: &Door,
    mut parts: Parts,
    body: SharedBody,
    holding: &Holding,
) -> Result<(Request<Body>, Arc<Claim>), Refusal> {
    let query = parts.uri.query();
    let decoded = check_parameters(query, &parts.headers)?;
    let has = |name: &str| query.is_some_and(|query| parameters(query).any(|(key, _)| key == name));
    let is_query = !parts.headers.contains_key(header::AUTHORIZATION);
    if parts.headers.contains_key("x-amz-security-token") || has("X-Amz-Security-Token") {
        return Err(Refusal::of_auth(&AuthError::SessionToken, is_query));
    }
    let now = (door.config.clock)();
    let credential = precheck(&parts.headers, query, &door.config.region, now)
        .map_err(|cause| Refusal::of_auth(&cause, is_query))?;
    if let Some(credential) = &credential {
        let key = door.keys.find(&credential.access_key_id);
        let key = key.ok_or_else(|| Refusal::of_auth(&AuthError::UnknownKey, is_query))?;
        if !key.versions.contains(&credential.version) {
            let cause = AuthError::VersionNotAllowed(credential.version);
            return Err(Refusal::of_auth(&cause, is_query));
        }
        if credential.version == 4 {
            check_signed_headers(&parts.headers, query)?;
        } else {
            let bucket = door.domains.bucket(&host_of(&parts));
            if !signature_v2::is_right(&parts, bucket.as_deref(), &decoded, &key.secret) {
                let cause = AuthError::Mismatch { version: 2 };
                return Err(Refusal::of_auth(&cause, is_query));
            }
        }
    }
    let claim = Arc::new(Claim {
        access_key_id: credential.map(|credential| credential.access_key_id),
        ..Claim::default()
    });
    let body = if carries_xml(door, &parts) {
        Body::from(checked_xml(&parts, holding.count(body)).await?)
    } else if is_form(&parts) {
        Body::http_body_unsync(holding.count(body))
    } else {
        Body::http_body_unsync(body)
    };
    parts.extensions.insert(claim.clone());
    if path_of(door, &parts) != parts.uri.path() {
        if is_form(&parts) {
            // The library reads a form before it looks for routes, and a form signs no path.
            let uri = prefix::without(&parts.uri, |_| false);
            parts.uri = uri.ok_or_else(invalid_uri)?;
        } else {
            parts.extensions.insert(Prefixed);
        }
    }
    Ok((Request::from_parts(parts, body), claim))
}

/// Name and value, as they stand.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The parameters, decoded.  Refuses what could be read in two ways: a name of signing that is
/// spelled in another way (the library decodes names, the check of credentials does not), and a
/// name that is there twice (the library leaves such out of what a version 2 signature covers).
fn check_parameters(
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Vec<(String, String)>, Refusal> {
    let has_header = headers.contains_key(header::AUTHORIZATION);
    let mut seen: Vec<(String, String)> = vec![];
    let mut names = BTreeSet::new();
    for (name, value) in query.into_iter().flat_map(parameters) {
        let decode = |text| cumulet_wire::query::decode(text).map_err(|_| invalid_uri());
        let (decoded, value) = (decode(name)?, decode(value)?);
        if AUTH_PARAMETERS.contains(&decoded.as_str()) {
            if decoded != name {
                let cause = AuthError::Malformed(format!("{decoded} is spelled in another way"));
                return Err(Refusal::of_auth(&cause, true));
            }
            if has_header && decoded != "Expires" {
                return Err(Refusal::of_auth(&AuthError::TwoSources, false));
            }
        }
        if !names.insert(decoded.clone()) && !decoded.is_empty() {
            let message = format!("The parameter {decoded} is given more than once");
            return Err(Refusal::new(400, "InvalidArgument", message));
        }
        seen.push((decoded, value));
    }
    Ok(seen)
}

fn invalid_uri() -> Refusal {
    Refusal::new(400, "InvalidURI", "Couldn't parse the specified URI.")
}

/// Bucket and key as they stand in the path, or the key alone when the host names the bucket.
fn path_of<'a>(door: &Door, parts: &'a Parts) -> &'a str {
    let path = parts.uri.path();
    let rest = prefix::rest_of(path).filter(|_| door.domains.bucket(&host_of(parts)).is_none());
    rest.unwrap_or(path)
}

fn is_form(parts: &Parts) -> bool {
    let given = parts.headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
    parts.method == Method::POST
        && given
            .to_ascii_lowercase()
            .starts_with("multipart/form-data")
}

/// The name by which the client reached us; HTTP/2 has no `Host` header but an authority.
fn host_of(parts: &Parts) -> String {
    let header = parts.headers.get(header::HOST);
    let header = header.and_then(|value| value.to_str().ok());
    let authority = parts.uri.authority().map(|found| found.as_str());
    header.or(authority).unwrap_or_default().to_owned()
}

/// A V4 signature must cover the host and every `x-amz-` header, else a header could be added by
/// whoever relays the request.  The payload's hash is part of what is signed anyway.
fn check_signed_headers(headers: &HeaderMap, query: Option<&str>) -> Result<(), Refusal> {
    let from_header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once("SignedHeaders="))
        .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned());
    let from_query = || {
        let query = query?;
        let (_, value) = parameters(query).find(|(name, _)| *name == "X-Amz-SignedHeaders")?;
        cumulet_wire::query::decode(value).ok()
    };
    let signed = from_header.or_else(from_query).unwrap_or_default();
    let signed: BTreeSet<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
    let unsigned = headers.keys().map(header::HeaderName::as_str).find(|name| {
        name.starts_with("x-amz-") && *name != "x-amz-content-sha256" && !signed.contains(*name)
    });
    if unsigned.is_some() || !signed.contains("host") {
        return Err(Refusal::new(
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
        ));
    }
    Ok(())
}

/// Whether the body is a document, which is read before anything else is done.
fn carries_xml(door: &Door, parts: &Parts) -> bool {
    let text = |name: &str| {
        let value = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    // The library must decode these first; it checks their signatures.
    let is_chunked = text("x-amz-content-sha256").starts_with("STREAMING-");
    match parts.method {
        _ if is_chunked => false,
        Method::POST => !is_form(parts),
        Method::PUT => {
            let path = path_of(door, parts).trim_start_matches('/');
            let has_key = match door.domains.bucket(&host_of(parts)) {
                Some(_) => !path.is_empty(),
                None => path.split_once('/').is_some_and(|(_, key)| !key.is_empty()),
            };
            let query = parts.uri.query().unwrap_or_default();
            !has_key || parameters(query).any(|(name, _)| SUBRESOURCES.contains(&name))
        }
        _ => false,
    }
}

/// The document, compared with every digest that came with it.
async fn checked_xml(parts: &Parts, body: HeldBody) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, XML_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(XML_TIME_MAX, limited).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            return Err(Refusal::new(
                400,
                "MaxMessageLengthExceeded",
                "Your request was too big.",
            ));
        }
        Ok(Err(_)) => {
            let message = cumulet_objects::Error::IncompleteBody.to_string();
            return Err(Refusal::new(400, "IncompleteBody", message));
        }
        Err(_) => {
            return Err(Refusal::new(
                400,
                "RequestTimeout",
                "Your socket connection to the server was not read from or written to within the timeout period.",
            ));
        }
    };
    let get = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    // Of a completed upload these are about the object.
    let is_about_object = parts
        .uri
        .query()
        .is_some_and(|query| parameters(query).any(|(name, _)| name == "uploadId"));
    let bad = |cause: s3s::S3Error| {
        let status = cause.status_code().unwrap_or(StatusCode::BAD_REQUEST);
        Refusal::new(
            status.as_u16(),
            cause.code().as_str(),
            cause.message().unwrap_or_default(),
        )
    };
    let checksums = if is_about_object {
        Default::default()
    } else {
        header_checksums(&parts.headers).map_err(bad)?
    };
    let md5 = get("content-md5").map(parse_md5).transpose().map_err(bad)?;
    let mut algorithms: BTreeSet<Algorithm> = checksums.keys().copied().collect();
    algorithms.insert(Algorithm::Sha256);
    let mut hasher = Hasher::new(&algorithms);
    hasher.update(&bytes);
    let found = hasher.finish();
    let differs = checksums
        .iter()
        .any(|(algorithm, value)| found.checksums.get(algorithm) != Some(value));
    if differs || md5.is_some_and(|md5| md5 != found.md5) {
        return Err(Refusal::new(
            400,
            "BadDigest",
            "The Content-MD5 or checksum value that you specified did not match what the server received.",
        ));
    }
    let claimed = get("x-amz-content-sha256").filter(|text| text.len() == 64);
    let sha256 = found.checksums.get(&Algorithm::Sha256).map(hex::encode);
    if claimed.is_some_and(|claimed| Some(claimed.to_ascii_lowercase()) != sha256) {
        return Err(bad(crate::errors::content_sha256_mismatch()));
    }
    if bytes.windows(DOCTYPE.len()).any(|at| at == DOCTYPE) {
        return Err(Refusal::new(
            400,
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        ));
    }
    Ok(bytes)
}

fn refused(refusal: &Refusal, about: &About<'_>) -> Response<Body> {
    let text = refusal.document(
        &about.resource,
        about.request_id,
        &host_id(about.request_id),
    );
    let mut response = Response::new(if about.is_head {
        Body::empty()
    } else {
        Body::from(text)
    });
    *response.status_mut() = refusal.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    if let Some(region) = refusal.region.as_deref().and_then(|text| text.parse().ok()) {
        response.headers_mut().insert("x-amz-bucket-region", region);
    }
    response.extensions_mut().insert(refusal.clone());
    response
}

/// S3 shows an opaque second id; ours only has its form.
fn host_id(request_id: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request_id.as_bytes());
    cumulet_wire::base64::encode(digest.as_ref())
}

/// The library's errors in our form, ids on every answer, and what the log needs.
async fn finish(mut response: Response<Body>, claim: &Claim, about: &About<'_>) -> Response<Body> {
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED {
        // The library writes a document, which such an answer cannot have.
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    // The library forgets it for HEAD.
    if status == StatusCode::OK && response.headers().contains_key(header::CONTENT_RANGE) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let is_error = status.is_client_error() || status.is_server_error();
    let mut refusal = response.extensions_mut().remove::<Refusal>();
    if is_error && refusal.is_none() {
        let headers = std::mem::take(response.headers_mut());
        let found = library_refusal(response, about).await;
        response = refused(&found, about);
        let own = [
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
        ];
        let kept = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)));
        for (name, value) in kept.filter(|(name, _)| !own.contains(name)) {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().remove::<Refusal>();
        refusal = Some(found);
    }
    let seen = claim.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (action, account) = seen.clone();
    drop(seen);
    response.extensions_mut().insert(Outcome {
        action,
        account,
        code: refusal.map(|refusal| refusal.code),
    });
    for (name, value) in [
        ("x-amz-request-id", about.request_id.to_owned()),
        ("x-amz-id-2", host_id(about.request_id)),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn library_refusal(response: Response<Body>, about: &About<'_>) -> Refusal {
    let status = response.status();
    let limited = Limited::new(response.into_body(), ERROR_BYTES_MAX);
    let bytes = limited.collect().await.map(|whole| whole.to_bytes());
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let found = read_document(status, &text);
    // The library says so when it could not read a document's body to its end.
    let is_unread = found.code == "InternalError" && !text.contains("<Message>");
    if is_unread && about.has_signed_payload {
        return Refusal::new(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
    }
    found
}
