//! The protocol: what a request is answered, as a function of the request.

use bytes::Bytes;
use cumulet_domain::Timestamp;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::facts::Facts;
use crate::token::TokenKey;
use crate::tree::{self, Found};
use crate::version::{self, LATEST, Version};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const FORWARDED: &str = "x-forwarded-for";
const TTL_SECONDS_MAX: u32 = 21_600;
/// Longest path that is looked at.
const PATH_LEN_MAX: usize = 1_024;

/// The parts of a request that are looked at.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// An answer, and whether it carries a token and so may not travel far.
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
    pub(crate) has_token: bool,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        Self {
            response,
            has_token: false,
        }
    }
}

/// Answers the instance with these facts.
pub(crate) fn answer(asked: &Asked, facts: &Facts, key: &TokenKey, now: Timestamp) -> Answer {
    if !facts.is_enabled {
        return error(StatusCode::FORBIDDEN).into();
    }
    if *asked.method == Method::PUT {
        return issue_token(asked, facts, key, now);
    }
    if *asked.method != Method::GET && *asked.method != Method::HEAD {
        return not_allowed("GET, HEAD, PUT").into();
    }
    if !may_read(asked.headers, facts, key, now) {
        return error(StatusCode::UNAUTHORIZED).into();
    }
    read(asked.path, facts)
        .unwrap_or_else(|| error(StatusCode::NOT_FOUND))
        .into()
}

/// A token that is sent must be good, whether or not one is required.
fn may_read(headers: &HeaderMap, facts: &Facts, key: &TokenKey, now: Timestamp) -> bool {
    match headers.get(TOKEN) {
        Some(token) => key.is_valid(token.as_bytes(), facts.instance, now),
        None => !facts.is_token_required,
    }
}

fn issue_token(asked: &Asked, facts: &Facts, key: &TokenKey, now: Timestamp) -> Answer {
    // A proxy that forwards for others says so; it must not get a token for them.
    if asked.headers.contains_key(FORWARDED) {
        return error(StatusCode::FORBIDDEN).into();
    }
    let segments: Vec<&str> = segments(asked.path).collect();
    if segments != [LATEST, "api", "token"] {
        return not_allowed("GET, HEAD").into();
    }
    let Some(ttl) = asked.headers.get(TOKEN_TTL).and_then(parse_ttl) else {
        return error(StatusCode::BAD_REQUEST).into();
    };
    let token = key.issue(facts.instance, now.plus_millis(i64::from(ttl) * 1_000));
    let mut response = text(Bytes::from(token));
    response
        .headers_mut()
        .insert(TOKEN_TTL, HeaderValue::from(ttl));
    // The low hop limit stays on the connection, which therefore ends here.
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    Answer {
        response,
        has_token: true,
    }
}

fn parse_ttl(value: &HeaderValue) -> Option<u32> {
    let text = value.to_str().ok()?.trim();
    // `parse` would take a sign too.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let ttl = text.parse().ok().filter(|_| is_number)?;
    (1..=TTL_SECONDS_MAX).contains(&ttl).then_some(ttl)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The text at `path`.  A branch may be asked for without its slash; an item not with one.
fn read(path: &str, facts: &Facts) -> Option<Response<Bytes>> {
    if path.len() > PATH_LEN_MAX {
        return None;
    }
    let segments: Vec<&str> = segments(path).collect();
    let Some((version, below)) = segments.split_first() else {
        return Some(text(Bytes::from(version::list())));
    };
    let version = Version::find(version)?;
    let tree = tree::build(facts, version);
    match tree.find(below)? {
        Found::Branch(branch) => Some(text(Bytes::from(branch.listing()))),
        Found::Leaf(_) if path.ends_with('/') => None,
        Found::Leaf(bytes) if below == ["user-data"] => Some(raw(bytes.clone(), version)),
        Found::Leaf(bytes) => Some(text(bytes.clone())),
    }
}

fn text(body: Bytes) -> Response<Bytes> {
    typed(body, "text/plain")
}

/// User data, in the spelling of the type that the version's documentation has.
fn raw(body: Bytes, version: Version) -> Response<Bytes> {
    if version.has("2008-02-01") {
        typed(body, "application/octet-stream")
    } else {
        typed(body, "application/x-octetstream")
    }
}

fn typed(body: Bytes, content_type: &'static str) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::SERVER, HeaderValue::from_static("EC2ws"));
    response
}

/// A small page, such as EC2 sends: clients look at the status only.
pub(crate) fn error(status: StatusCode) -> Response<Bytes> {
    let code = status.as_u16();
    let reason = status.canonical_reason().unwrap_or("Error");
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n\
         <head><title>{code} - {reason}</title></head>\n\
         <body><h1>{code} - {reason}</h1></body>\n\
         </html>\n"
    );
    let mut response = typed(Bytes::from(page), "text/html");
    *response.status_mut() = status;
    response
}

fn not_allowed(allowed: &'static str) -> Response<Bytes> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests;
