//! Signature version 4: the string that was signed, and the key that signs it.

use std::cell::RefCell;

use aws_lc_rs::{digest, hmac};
use cumulet_domain::shown;
use cumulet_wire::query::{encode, encode_except};
use http::HeaderMap;
use zeroize::Zeroizing;

use crate::AuthError;

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// `AKID/20261121/us-east-1/ec2/aws4_request`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) access_key_id: String,
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
}

impl Scope {
    pub(crate) fn parse(text: &str) -> Result<Self, AuthError> {
        // What is wrong is told by its place: who swaps the id of a key and its secret, which may
        // hold '/', has the secret here.
        let bad = |what: &str| {
            Err(AuthError::Malformed(format!(
                "the credential has the form KEY/DATE/REGION/SERVICE/aws4_request; {what}"
            )))
        };
        let fields: Vec<&str> = text.split('/').collect();
        let [key, date, region, service, end] = fields.as_slice() else {
            let count = fields.len();
            return bad(&format!("this one has {count} fields, not five"));
        };
        if *end != "aws4_request" {
            return bad("the last field of this one is not aws4_request");
        }
        if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
            return bad("the second field of this one is not a date of eight digits");
        }
        if key.is_empty() {
            return bad("the first field of this one is empty");
        }
        if key.len() > 128 || region.len() > 64 || service.len() > 64 {
            return bad("a field of this one is too long");
        }
        Ok(Self {
            access_key_id: (*key).to_owned(),
            date: (*date).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
        })
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        )
    }
}

/// The `Authorization` header of version 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) scope: Scope,
    pub(crate) signed_headers: Vec<String>,
    pub(crate) signature: String,
}

impl Header {
    /// Reads `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, with or without spaces
    /// after the commas.
    pub(crate) fn parse(text: &str) -> Result<Self, AuthError> {
        let bad = |what: &str| {
            AuthError::Malformed(format!("the Authorization header has no valid {what}"))
        };
        let fields = text.strip_prefix(ALGORITHM).ok_or_else(|| {
            // The first word of several alone: the rest, or the only one, may be a password.
            match text.split_once(' ') {
                Some((given, _)) => bad(&format!(
                    "algorithm: it is {ALGORITHM}, not '{}'",
                    shown(given)
                )),
                None => bad(&format!(
                    "algorithm: it is {ALGORITHM}, and this one has one word"
                )),
            }
        })?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field
                .trim()
                .split_once('=')
                .ok_or_else(|| bad("list of fields"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(bad("list of fields")),
            };
            if slot.replace(value).is_some() {
                return Err(bad("list of fields"));
            }
        }
        Ok(Self {
            scope: Scope::parse(credential.ok_or_else(|| bad("Credential"))?)?,
            signed_headers: signed_headers(signed.ok_or_else(|| bad("SignedHeaders"))?)?,
            signature: signature.ok_or_else(|| bad("Signature"))?.to_owned(),
        })
    }
}

/// The list must be sorted, lower-case and hold `host`, else what is signed would be ambiguous.
pub(crate) fn signed_headers(text: &str) -> Result<Vec<String>, AuthError> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let is_plain = names.iter().all(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    });
    if !is_plain || !names.is_sorted() || names.len() > 64 {
        return Err(AuthError::Malformed(format!(
            "SignedHeaders must be a sorted list of lower-case names, not '{}'",
            shown(text)
        )));
    }
    if !names.iter().any(|name| name == "host") {
        return Err(AuthError::Malformed(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".into(),
        ));
    }
    Ok(names)
}

/// What goes into the canonical request.
pub(crate) struct Canonical<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) host: &'a str,
    pub(crate) signed_headers: &'a [String],
    pub(crate) payload_hash: &'a str,
}

impl Canonical<'_> {
    pub(crate) fn request(&self) -> Result<String, AuthError> {
        let mut text = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for name in self.signed_headers {
            text.push_str(name);
            text.push(':');
            text.push_str(&self.header_value(name)?);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.signed_headers.join(";"));
        text.push('\n');
        text.push_str(self.payload_hash);
        Ok(text)
    }

    fn header_value(&self, name: &str) -> Result<String, AuthError> {
        if name == "host" {
            return Ok(self.host.to_owned());
        }
        let mut values = vec![];
        for value in self.headers.get_all(name) {
            let text = value.to_str().map_err(|_| {
                AuthError::Malformed(format!("the signed header {name} is not plain text"))
            })?;
            values.push(
                text.split(' ')
                    .filter(|word| !word.is_empty())
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        if values.is_empty() {
            return Err(AuthError::Malformed(format!(
                "the signed header {name} is missing"
            )));
        }
        Ok(values.join(","))
    }
}

/// The query, decoded, encoded again and sorted, without `X-Amz-Signature`.
pub(crate) fn canonical_query(raw: Option<&str>) -> Result<String, AuthError> {
    let decode = |text: &str| {
        cumulet_wire::query::decode(text).map_err(|cause| AuthError::Malformed(cause.to_string()))
    };
    let mut pairs = vec![];
    for pair in raw
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?;
        if name != "X-Amz-Signature" {
            pairs.push((encode(&name), encode(&decode(value)?)));
        }
    }
    pairs.sort();
    Ok(pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&"))
}

/// The ways in which clients of services other than S3 sign a path: as sent and encoded once more
/// (the rule), and as sent (old clients that do not encode twice).
pub(crate) fn canonical_paths(raw: &str) -> Vec<String> {
    let twice = encode_except(raw, b"/");
    if twice == raw {
        vec![twice]
    } else {
        vec![twice, raw.to_owned()]
    }
}

pub(crate) fn string_to_sign(time: &str, scope: &Scope, canonical_request: &str) -> String {
    format!(
        "{ALGORITHM}\n{time}\n{}\n{}",
        scope.text(),
        sha256_hex(canonical_request.as_bytes())
    )
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// The signature, 32 bytes.
pub(crate) fn signature(secret: &str, scope: &Scope, string_to_sign: &str) -> [u8; 32] {
    let key = signing_key(secret, scope);
    let tag = hmac::sign(&key, string_to_sign.as_bytes());
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// A key that was derived before, and all that it follows from.
struct Derived {
    secret: Zeroizing<String>,
    date: String,
    region: String,
    service: String,
    key: hmac::Key,
}

/// Derived keys that a thread remembers.
const DERIVED_MAX: usize = 16;

thread_local! {
    /// Keys that were derived of late, the newest last: a client signs with the same one all day.
    /// The secret is part of what is compared, so that another secret is another key.
    static DERIVED: RefCell<Vec<Derived>> = const { RefCell::new(vec![]) };
}

/// The key of a secret for a day, a region and a service.
fn signing_key(secret: &str, scope: &Scope) -> hmac::Key {
    let is_same = |it: &Derived| {
        *it.secret == secret
            && it.date == scope.date
            && it.region == scope.region
            && it.service == scope.service
    };
    DERIVED.with_borrow_mut(|derived| {
        if let Some(found) = derived.iter().find(|it| is_same(it)) {
            return found.key.clone();
        }
        let key = derive(secret, scope);
        if derived.len() >= DERIVED_MAX {
            derived.remove(0);
        }
        derived.push(Derived {
            secret: Zeroizing::new(secret.to_owned()),
            date: scope.date.clone(),
            region: scope.region.clone(),
            service: scope.service.clone(),
            key: key.clone(),
        });
        key
    })
}

fn derive(secret: &str, scope: &Scope) -> hmac::Key {
    let first = Zeroizing::new(format!("AWS4{secret}"));
    let mut key = mac(first.as_bytes(), &scope.date);
    for text in [scope.region.as_str(), &scope.service, "aws4_request"] {
        key = mac(&key, text);
    }
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(date: &str, region: &str, service: &str) -> Scope {
        Scope {
            access_key_id: "AKIA".into(),
            date: date.into(),
            region: region.into(),
            service: service.into(),
        }
    }

    #[test]
    fn a_remembered_key_is_of_its_secret_day_region_and_service() {
        let cases: Vec<(String, Scope)> = ["one", "two"]
            .into_iter()
            .flat_map(|secret| {
                [
                    scope("20260101", "us-east-1", "ec2"),
                    scope("20260102", "us-east-1", "ec2"),
                    scope("20260101", "us-east-2", "ec2"),
                    scope("20260101", "us-east-1", "sts"),
                ]
                .map(|scope| (secret.to_owned(), scope))
            })
            .collect();
        // More than are remembered, and each of them when it is known and when it is not.
        let many = (0..DERIVED_MAX).map(|n| (format!("secret {n}"), scope("20260101", "r", "s")));
        let all: Vec<_> = cases
            .iter()
            .cloned()
            .chain(many)
            .chain(cases.clone())
            .collect();
        let mut seen = std::collections::BTreeMap::new();
        for (secret, scope) in &all {
            for _ in 0..2 {
                let fresh = hmac::sign(&derive(secret, scope), b"text");
                let given = signature(secret, scope, "text");
                assert_eq!(given, fresh.as_ref());
                seen.insert(given, (secret, scope.text()));
            }
        }
        assert_eq!(seen.len(), cases.len() + DERIVED_MAX);
    }
}
