//! Checks of S3 requests that the S3 library leaves to us.
//!
//! The library verifies the signatures themselves; this looks at the scope, the
//! age of presigned requests and which key uses which version.

use cumulet_domain::Timestamp;

use crate::query::check_presigned_time;
use crate::v4::{self, Header, Scope};
use crate::{AuthError, SKEW_MS};
use cumulet_wire::time;

/// Who claims to have signed an S3 request, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Credential {
    pub access_key_id: String,
    /// 2 or 4.
    pub version: u8,
    pub region: Option<String>,
}

/// Reads the credential of a request, `None` for an anonymous one, and checks the scope's service,
/// its region, and times.
///
/// # Errors
/// See [`AuthError`].
pub fn precheck(
    headers: &http::HeaderMap,
    raw_query: Option<&str>,
    region: &str,
    now: Timestamp,
) -> Result<Option<S3Credential>, AuthError> {
    let header = headers.get(http::header::AUTHORIZATION).map(|value| {
        value
            .to_str()
            .map_err(|_| AuthError::Malformed("the Authorization header is not plain text".into()))
    });
    let query = |name: &str| query_value(raw_query, name);
    if let Some(header) = header.transpose()? {
        if query("X-Amz-Signature")?.is_some() || query("AWSAccessKeyId")?.is_some() {
            return Err(AuthError::TwoSources);
        }
        if let Some(rest) = header.strip_prefix("AWS ") {
            let (key, _) = rest
                .split_once(':')
                .ok_or_else(|| AuthError::Malformed("AWS KEY:SIGNATURE".into()))?;
            check_header_time(headers, now)?;
            return Ok(Some(S3Credential {
                access_key_id: key.to_owned(),
                version: 2,
                region: None,
            }));
        }
        let scope = Header::parse(header)?.scope;
        check_header_time(headers, now)?;
        return checked(scope, region).map(Some);
    }
    if let Some(algorithm) = query("X-Amz-Algorithm")? {
        if algorithm != v4::ALGORITHM {
            return Err(AuthError::Malformed(
                "X-Amz-Algorithm only supports AWS4-HMAC-SHA256".into(),
            ));
        }
        let scope = Scope::parse(
            &query("X-Amz-Credential")?.ok_or(AuthError::Missing("X-Amz-Credential"))?,
        )?;
        let date = query("X-Amz-Date")?.ok_or(AuthError::Missing("X-Amz-Date"))?;
        let signed = time::parse_iso8601(&date)
            .ok_or_else(|| AuthError::Malformed("X-Amz-Date is not a time".into()))?;
        check_presigned_time(
            signed,
            &query("X-Amz-Expires")?.ok_or(AuthError::Missing("X-Amz-Expires"))?,
            now,
        )?;
        return checked(scope, region).map(Some);
    }
    match query("AWSAccessKeyId")? {
        Some(access_key_id) => {
            let expires = query("Expires")?.ok_or(AuthError::Missing("Expires"))?;
            let seconds: i64 = expires
                .parse()
                .map_err(|_| AuthError::Malformed("Expires is not a number".into()))?;
            if seconds.saturating_mul(1000) < now.0 {
                return Err(AuthError::Expired("Request has expired".into()));
            }
            Ok(Some(S3Credential {
                access_key_id,
                version: 2,
                region: None,
            }))
        }
        None => Ok(None),
    }
}

fn checked(scope: Scope, region: &str) -> Result<S3Credential, AuthError> {
    if scope.service != "s3" {
        return Err(AuthError::WrongService {
            given: scope.service,
            expected: "s3".into(),
        });
    }
    if scope.region != region {
        return Err(AuthError::WrongRegion {
            given: scope.region,
            expected: region.to_owned(),
        });
    }
    Ok(S3Credential {
        access_key_id: scope.access_key_id,
        version: 4,
        region: Some(scope.region),
    })
}

fn check_header_time(headers: &http::HeaderMap, now: Timestamp) -> Result<(), AuthError> {
    let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let text = get("x-amz-date")
        .or_else(|| get("date"))
        .ok_or(AuthError::Missing("Date"))?;
    let signed = time::parse_iso8601(text).or_else(|| time::parse_http(text));
    let signed = signed.ok_or_else(|| AuthError::Malformed("the date cannot be read".into()))?;
    if now.millis_since(signed).abs() <= SKEW_MS {
        return Ok(());
    }
    Err(AuthError::Expired(
        "The difference between the request time and the current time is too large.".into(),
    ))
}

fn query_value(raw_query: Option<&str>, name: &str) -> Result<Option<String>, AuthError> {
    let mut found = raw_query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name);
    let Some((_, value)) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(AuthError::TwoSources);
    }
    let decoded = cumulet_wire::query::decode(value)
        .map_err(|cause| AuthError::Malformed(cause.to_string()))?;
    Ok(Some(decoded))
}
