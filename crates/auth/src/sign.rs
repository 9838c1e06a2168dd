//! Signing, for our own clients and for tests.

use cumulet_domain::Timestamp;
use cumulet_wire::query::Params;
use cumulet_wire::{base64, time};
use http::HeaderMap;

use crate::v4::{self, Canonical, Scope};
use crate::{AuthError, v1, v2};

/// A key on the client's side.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub access_key_id: &'a str,
    pub secret: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

/// A request that is to be signed.  `raw_path` and `raw_query` as they will be sent.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub raw_path: &'a str,
    pub raw_query: Option<&'a str>,
    pub body: &'a [u8],
    pub now: Timestamp,
}

/// Headers that make the request a signed one of version 4: `x-amz-date`, `x-amz-content-sha256`
/// and `authorization`.  `extra` headers beginning with `x-amz-` are signed too.
///
/// # Errors
/// `Malformed` for a query or header that cannot be signed.
pub fn v4_headers(
    signer: &Signer<'_>,
    request: &Unsigned<'_>,
    extra: &HeaderMap,
) -> Result<Vec<(String, String)>, AuthError> {
    let time_text = time::format_basic(request.now);
    let payload_hash = v4::sha256_hex(request.body);
    let mut headers = extra.clone();
    let value = |text: &str| {
        http::HeaderValue::from_str(text).map_err(|_| AuthError::Malformed("a header".into()))
    };
    headers.insert("x-amz-date", value(&time_text)?);
    headers.insert("x-amz-content-sha256", value(&payload_hash)?);
    let mut signed: Vec<String> = headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .filter(|name| name.starts_with("x-amz-"))
        .collect();
    signed.push("host".into());
    signed.sort();
    let scope = Scope {
        access_key_id: signer.access_key_id.to_owned(),
        date: time_text[..8].to_owned(),
        region: signer.region.to_owned(),
        service: signer.service.to_owned(),
    };
    // S3 signs the path as it is sent; elsewhere it is encoded once more.
    let twice = v4::canonical_paths(request.raw_path).swap_remove(0);
    let path = if signer.service == "s3" {
        request.raw_path
    } else {
        &twice
    };
    let query = v4::canonical_query(request.raw_query)?;
    let canonical = Canonical {
        method: request.method,
        path,
        query: &query,
        headers: &headers,
        host: request.host,
        signed_headers: &signed,
        payload_hash: &payload_hash,
    };
    let text = v4::string_to_sign(&time_text, &scope, &canonical.request()?);
    let signature = hex::encode(v4::signature(signer.secret, &scope, &text));
    let authorization = format!(
        "{} Credential={}/{}, SignedHeaders={}, Signature={signature}",
        v4::ALGORITHM,
        scope.access_key_id,
        scope.text(),
        signed.join(";")
    );
    Ok(vec![
        ("x-amz-date".into(), time_text),
        ("x-amz-content-sha256".into(), payload_hash),
        ("authorization".into(), authorization),
    ])
}

/// The `Signature` of version 2 (HmacSHA256) over parameters that hold all but it.
pub fn v2_signature(secret: &str, method: &str, host: &str, path: &str, params: &Params) -> String {
    let text = v2::string_to_sign(method, host, path, params);
    let signature = v2::signature("HmacSHA256", secret, &text).expect("HmacSHA256 is known");
    base64::encode(&signature)
}

/// The text that version 1 signs, for those who ask how else it could be read.
pub fn v1_text(params: &Params) -> String {
    v1::string_to_sign_v1(params)
}

/// The `Signature` of version 1 over parameters that hold all but it.
pub fn v1_signature(secret: &str, params: &Params) -> String {
    hmac_sha1(secret, &v1::string_to_sign_v1(params))
}

/// The `Signature` of version 0, which covers the action and `Timestamp` or `Expires` alone.
pub fn v0_signature(secret: &str, action: &str, time: &str) -> String {
    hmac_sha1(secret, &v1::string_to_sign_v0(action, time))
}

fn hmac_sha1(secret: &str, text: &str) -> String {
    let signature = v2::signature("HmacSHA1", secret, text).expect("HmacSHA1 is known");
    base64::encode(&signature)
}
