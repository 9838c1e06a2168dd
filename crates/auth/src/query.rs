//! Checks the signature of a request to a Query API.
//!
//! Exactly one source of credentials is allowed: the `Authorization` header, a
//! presigned query of version 4, or the parameters of versions 0 to 2.  Routing
//! never relaxes a check: the scope must name this service and this region.

use cumulet_domain::{Timestamp, shown};
use cumulet_wire::base64::{self, Base64Error};
use cumulet_wire::query::Params;
use cumulet_wire::time;

use crate::v4::{self, Canonical, Header, Scope};
use crate::{
    AuthError, Key, Keys, PRESIGN_SECONDS_MAX, Principal, Request, SKEW_MS, is_same, v1, v2,
};

/// What a door demands.
#[derive(Debug, Clone)]
pub struct QueryPolicy<'a> {
    /// Name of the service in a V4 scope.
    pub service: &'a str,
    pub region: &'a str,
    /// STS and IAM are global: they also take `us-east-1`.
    pub is_global: bool,
    /// EC2 alone: a scope that boto 2 made up from an IP address or a bare host name in the signed
    /// Host (`127.0.0.1` gives the region `0` and the service `127`) counts as ours.
    pub allows_host_scope: bool,
    /// `None` where signature versions 0 and 1 are not taken at all.
    pub readings: Option<&'a dyn Readings>,
}

/// Knows what requests of a service look like.
///
/// Version 1 signs names and values without a boundary between them; nothing here can tell which
/// other boundaries would give a request, too.
pub trait Readings: Sync + std::fmt::Debug {
    /// Finds out whether `signed`, the text that version 1 signs of `params`, can be cut into
    /// other parameters that are a request.
    ///
    /// # Errors
    /// What a user is told, when it can.
    fn check(&self, signed: &str, params: &Params) -> Result<(), String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub principal: Principal,
    pub version: u8,
}

/// The service that a V4 scope names, for routing only: nothing is checked.
pub fn scope_service(headers: &http::HeaderMap, raw_query: Option<&str>) -> Option<String> {
    let header = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if let Some(header) = header.filter(|text| text.starts_with(v4::ALGORITHM)) {
        return Header::parse(header)
            .ok()
            .map(|header| header.scope.service);
    }
    let credential = raw_query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    let credential = cumulet_wire::query::decode(credential).ok()?;
    Scope::parse(&credential).ok().map(|scope| scope.service)
}

/// Verifies a request whose parameters (of URL and form together) are `params`.
///
/// # Errors
/// See [`AuthError`].
pub fn verify_query(
    request: &Request<'_>,
    params: &Params,
    keys: &dyn Keys,
    policy: &QueryPolicy<'_>,
) -> Result<Verified, AuthError> {
    let header = header_text(request)?;
    let is_presigned = params.contains("X-Amz-Algorithm") || params.contains("X-Amz-Signature");
    let has_parameters = params.contains("AWSAccessKeyId") || params.contains("Signature");
    match (header, is_presigned, has_parameters) {
        (None, false, false) => Err(AuthError::NoCredentials),
        (Some(header), false, false) => verify_header(request, header, keys, policy),
        (None, true, false) => verify_presigned(request, params, keys, policy),
        (None, false, true) => verify_parameters(request, params, keys, policy),
        _ => Err(AuthError::TwoSources),
    }
}

fn header_text<'a>(request: &Request<'a>) -> Result<Option<&'a str>, AuthError> {
    let mut values = request.headers.get_all(http::header::AUTHORIZATION).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(AuthError::TwoSources);
    }
    let text = first
        .to_str()
        .map_err(|_| AuthError::Malformed("the Authorization header is not plain text".into()))?;
    Ok(Some(text))
}

fn find_key(keys: &dyn Keys, id: &str, version: u8) -> Result<Key, AuthError> {
    let key = keys.find(id).ok_or(AuthError::UnknownKey)?;
    if key.versions.contains(&version) {
        Ok(key)
    } else {
        Err(AuthError::VersionNotAllowed(version))
    }
}

/// Whether a request was signed with a session's token; some clients always send one, and an empty
/// one where they have none.
fn has_token(params: &Params, name: &str) -> bool {
    params.get(name).is_some_and(|token| !token.is_empty())
}

fn verify_header(
    request: &Request<'_>,
    header: &str,
    keys: &dyn Keys,
    policy: &QueryPolicy<'_>,
) -> Result<Verified, AuthError> {
    let header = Header::parse(header)?;
    check_scope(&header.scope, request.host, policy)?;
    let tokens = request.headers.get_all("x-amz-security-token");
    if tokens.iter().any(|token| !token.is_empty()) {
        return Err(AuthError::SessionToken);
    }
    let (time_text, time) = signing_time(request)?;
    check_date(&header.scope, &time_text)?;
    check_skew(time, request.now)?;
    let payload_hash = v4::sha256_hex(request.body);
    if let Some(claimed) = request.headers.get("x-amz-content-sha256")
        && claimed.as_bytes() != payload_hash.as_bytes()
    {
        return Err(AuthError::Mismatch { version: 4 });
    }
    let key = find_key(keys, &header.scope.access_key_id, 4)?;
    let query = v4::canonical_query(request.raw_query)?;
    let given = SignedBy {
        scope: &header.scope,
        signed_headers: &header.signed_headers,
        signature: &header.signature,
    };
    check_v4(request, &given, &time_text, &query, &payload_hash, &key)?;
    Ok(Verified {
        principal: key.principal,
        version: 4,
    })
}

fn verify_presigned(
    request: &Request<'_>,
    params: &Params,
    keys: &dyn Keys,
    policy: &QueryPolicy<'_>,
) -> Result<Verified, AuthError> {
    let get = |name: &'static str| params.get(name).ok_or(AuthError::Missing(name));
    let algorithm = get("X-Amz-Algorithm")?;
    if algorithm != v4::ALGORITHM {
        return Err(AuthError::Malformed(format!(
            "X-Amz-Algorithm must be {}, not '{}'",
            v4::ALGORITHM,
            shown(algorithm)
        )));
    }
    if has_token(params, "X-Amz-Security-Token") {
        return Err(AuthError::SessionToken);
    }
    let scope = Scope::parse(get("X-Amz-Credential")?)?;
    check_scope(&scope, request.host, policy)?;
    let time_text = get("X-Amz-Date")?.to_owned();
    let time = time::parse_iso8601(&time_text).ok_or_else(|| no_time("X-Amz-Date", &time_text))?;
    check_date(&scope, &time_text)?;
    check_presigned_time(time, get("X-Amz-Expires")?, request.now)?;
    let key = find_key(keys, &scope.access_key_id, 4)?;
    let signed_headers = v4::signed_headers(get("X-Amz-SignedHeaders")?)?;
    let given = SignedBy {
        scope: &scope,
        signed_headers: &signed_headers,
        signature: get("X-Amz-Signature")?,
    };
    let query = v4::canonical_query(request.raw_query)?;
    check_v4(
        request,
        &given,
        &time_text,
        &query,
        &v4::sha256_hex(request.body),
        &key,
    )?;
    Ok(Verified {
        principal: key.principal,
        version: 4,
    })
}

pub(crate) fn check_presigned_time(
    time: Timestamp,
    expires: &str,
    now: Timestamp,
) -> Result<(), AuthError> {
    let seconds: u64 = expires.parse().map_err(|_| {
        let given = shown(expires);
        AuthError::Malformed(format!("X-Amz-Expires should be a number, not '{given}'"))
    })?;
    if !(1..=PRESIGN_SECONDS_MAX).contains(&seconds) {
        return Err(AuthError::Malformed(format!(
            "X-Amz-Expires must be between 1 and {PRESIGN_SECONDS_MAX} seconds, not {seconds}"
        )));
    }
    let valid_ms = i64::try_from(seconds).unwrap_or(i64::MAX) * 1000;
    let age_ms = now.millis_since(time);
    if age_ms < -SKEW_MS || age_ms > valid_ms {
        return Err(AuthError::Expired(format!(
            "It was valid for {seconds} seconds from {}",
            time::format_iso8601(time)
        )));
    }
    Ok(())
}

struct SignedBy<'a> {
    scope: &'a Scope,
    signed_headers: &'a [String],
    signature: &'a str,
}

fn check_v4(
    request: &Request<'_>,
    given: &SignedBy<'_>,
    time_text: &str,
    query: &str,
    payload_hash: &str,
    key: &Key,
) -> Result<(), AuthError> {
    let signature = hex::decode(given.signature).unwrap_or_default();
    for path in v4::canonical_paths(request.raw_path) {
        for host in hosts(request) {
            let canonical = Canonical {
                method: request.method.as_str(),
                path: &path,
                query,
                headers: request.headers,
                host,
                signed_headers: given.signed_headers,
                payload_hash,
            };
            let text = v4::string_to_sign(time_text, given.scope, &canonical.request()?);
            if is_same(&v4::signature(&key.secret, given.scope, &text), &signature) {
                return Ok(());
            }
        }
    }
    Err(AuthError::Mismatch { version: 4 })
}

/// The host as it was sent and, if it has a port, without that: EC2 itself never had one, so some
/// clients sign the name alone (Net::Amazon::EC2 of Perl does by version 4, many do by version 2).
/// A signature says which request it is for; at which port of this host it was handed in adds nothing.
fn hosts<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let host = request.host;
    let has_port = |port: &str| !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit());
    let bare = host.rsplit_once(':').filter(|(_, port)| has_port(port));
    std::iter::once(host).chain(bare.map(|(name, _)| name))
}

/// `X-Amz-Date` if it is there, else `Date`.
fn signing_time(request: &Request<'_>) -> Result<(String, Timestamp), AuthError> {
    let get = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if let Some(text) = get("x-amz-date") {
        let time = time::parse_iso8601(text).ok_or_else(|| no_time("X-Amz-Date", text))?;
        return Ok((text.to_owned(), time));
    }
    let text = get("date").ok_or(AuthError::Missing("X-Amz-Date"))?;
    let parsed = time::parse_http(text).or_else(|| time::parse_iso8601(text));
    let time = parsed.ok_or_else(|| no_time("Date", text))?;
    Ok((time::format_basic(time), time))
}

fn check_date(scope: &Scope, time_text: &str) -> Result<(), AuthError> {
    let digits: String = time_text
        .chars()
        .filter(char::is_ascii_digit)
        .take(8)
        .collect();
    if digits == scope.date {
        return Ok(());
    }
    Err(AuthError::Malformed(format!(
        "the date of the credential, {}, is not that of the request, '{}'",
        shown(&scope.date),
        shown(time_text)
    )))
}

fn check_skew(time: Timestamp, now: Timestamp) -> Result<(), AuthError> {
    if now.millis_since(time).abs() <= SKEW_MS {
        return Ok(());
    }
    let text = format!(
        "It was signed for {}; the time here is {}",
        time::format_iso8601(time),
        time::format_iso8601(now)
    );
    Err(AuthError::Expired(text))
}

fn check_scope(scope: &Scope, host: &str, policy: &QueryPolicy<'_>) -> Result<(), AuthError> {
    if policy.allows_host_scope && is_made_from_host(scope, host) {
        return Ok(());
    }
    if scope.service != policy.service {
        return Err(AuthError::WrongService {
            given: scope.service.clone(),
            expected: policy.service.to_owned(),
        });
    }
    let is_ours =
        scope.region == policy.region || (policy.is_global && scope.region == "us-east-1");
    if is_ours {
        return Ok(());
    }
    Err(AuthError::WrongRegion {
        given: scope.region.clone(),
        expected: policy.region.to_owned(),
    })
}

/// boto 2.49 takes the first label of the host as the service and the second (or only) one as the
/// region, unless it was told either; for hosts that are not AWS's this is nonsense, yet tied to
/// the signed Host.
fn is_made_from_host(scope: &Scope, host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    let labels: Vec<&str> = name.split('.').collect();
    let (service, region) = match labels.as_slice() {
        [only] => (*only, *only),
        [first, second, ..] if is_address => (*first, *second),
        _ => return false,
    };
    let is_region_told = scope.region == region;
    (scope.service == service || scope.service == "ec2") && is_region_told
}

fn verify_parameters(
    request: &Request<'_>,
    params: &Params,
    keys: &dyn Keys,
    policy: &QueryPolicy<'_>,
) -> Result<Verified, AuthError> {
    let get = |name: &'static str| params.get(name).ok_or(AuthError::Missing(name));
    let access_key_id = get("AWSAccessKeyId")?;
    let given = get("Signature")?;
    let signature = read_signature(given)?;
    let version: u8 = match get("SignatureVersion")? {
        "0" => 0,
        "1" => 1,
        "2" => 2,
        other => {
            return Err(AuthError::InvalidValue {
                parameter: "SignatureVersion",
                value: shown(other),
                expected: "It must be 2, or 1 or 0 for a key that may use them.".into(),
            });
        }
    };
    // Versions 0 and 1 do not sign that the parameter is there and empty.
    if has_token(params, "SecurityToken") || version < 2 && params.contains("SecurityToken") {
        return Err(AuthError::SessionToken);
    }
    let readings = match version {
        2 => None,
        old => Some(old_readings(params, policy, old)?),
    };
    let time_text = check_parameter_time(params, request.now)?;
    let key = find_key(keys, access_key_id, version)?;
    let is_good = match version {
        0 => {
            let action = params
                .get("Action")
                .or_else(|| params.get("Operation"))
                .ok_or(AuthError::Missing("Action"))?;
            matches_sha1(&key, &v1::string_to_sign_v0(action, &time_text), &signature)
        }
        1 => matches_sha1(&key, &v1::string_to_sign_v1(params), &signature),
        _ => matches_v2(request, params, &key, &signature, get("SignatureMethod")?)?,
    };
    if !is_good {
        return Err(AuthError::Mismatch { version });
    }
    if let (1, Some(readings)) = (version, readings) {
        // After the signature: only who holds the key can make this work.
        readings
            .check(&v1::string_to_sign_v1(params), params)
            .map_err(AuthError::Ambiguous)?;
    }
    Ok(Verified {
        principal: key.principal,
        version,
    })
}

/// Reads a signature that a parameter gives.  A refusal says where it is wrong and shows nothing of
/// it: messages end up in logs and in reports of errors, and it may be good for another quarter of
/// an hour.
fn read_signature(given: &str) -> Result<Vec<u8>, AuthError> {
    if let Some(index) = given.trim_end().chars().position(|it| it == ' ') {
        // The commonest mistake of old clients, which hits one request in three.
        return Err(AuthError::Malformed(format!(
            "the Signature has a space in it, as its character {}: its '+' must be written as %2B in a URL",
            index + 1
        )));
    }
    base64::decode(given, SIGNATURE_LEN_MAX).map_err(|cause| {
        AuthError::Malformed(match cause {
            Base64Error::Malformed => {
                format!("the Signature is not base64: {}", base64::fault(given))
            }
            Base64Error::TooLong(limit) => {
                let count = given.chars().count();
                format!("the Signature is longer than {limit} bytes: it has {count} characters")
            }
        })
    })
}

/// Longest signature of versions 0 to 2, in bytes.
const SIGNATURE_LEN_MAX: usize = 64;

/// What a header or a parameter of version 4 says instead of a time.
fn no_time(name: &str, text: &str) -> AuthError {
    AuthError::Malformed(format!("{name} is not a time: '{}'", shown(text)))
}

/// Who reads requests of version 0 or 1, which carry nothing that came with later versions.
fn old_readings<'a>(
    params: &Params,
    policy: &QueryPolicy<'a>,
    version: u8,
) -> Result<&'a dyn Readings, AuthError> {
    let readings = policy.readings.ok_or_else(|| {
        AuthError::Malformed(format!(
            "SignatureVersion {version} is not taken by this service"
        ))
    })?;
    let is_later = |name: &str| name == "SignatureMethod" || name.starts_with("X-Amz-");
    match params.iter().find(|(name, _)| is_later(name)) {
        Some((name, _)) => Err(AuthError::Malformed(format!(
            "{} has no meaning with SignatureVersion {version}",
            shown(name)
        ))),
        None => Ok(readings),
    }
}

fn matches_sha1(key: &Key, text: &str, signature: &[u8]) -> bool {
    v2::signature("HmacSHA1", &key.secret, text)
        .is_some_and(|computed| is_same(&computed, signature))
}

fn matches_v2(
    request: &Request<'_>,
    params: &Params,
    key: &Key,
    signature: &[u8],
    method: &str,
) -> Result<bool, AuthError> {
    let path = if request.raw_path.is_empty() {
        "/"
    } else {
        request.raw_path
    };
    for host in hosts(request) {
        let text = v2::string_to_sign(request.method.as_str(), host, path, params);
        let computed = v2::signature(method, &key.secret, &text);
        let computed = computed.ok_or_else(|| AuthError::InvalidValue {
            parameter: "SignatureMethod",
            value: shown(method),
            expected: "It must be HmacSHA256 or HmacSHA1.".into(),
        })?;
        if is_same(&computed, signature) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Exactly one of `Timestamp` (good for 15 minutes) and `Expires`.
fn check_parameter_time(params: &Params, now: Timestamp) -> Result<String, AuthError> {
    let parse = |parameter: &'static str, text: &str| {
        // Spaces around it would be signed, and there is no saying where they belong.
        let time = time::parse_iso8601(text).filter(|_| text.trim() == text);
        time.ok_or_else(|| AuthError::InvalidValue {
            parameter,
            value: shown(text),
            expected: "It must be a time of ISO 8601, as in 2007-03-01T12:00:00Z.".into(),
        })
    };
    match (params.get("Timestamp"), params.get("Expires")) {
        (None, None) => Err(AuthError::Missing("Timestamp")),
        (Some(timestamp), Some(expires)) => Err(AuthError::TwoTimes {
            timestamp: shown(timestamp),
            expires: shown(expires),
        }),
        (Some(text), None) => check_skew(parse("Timestamp", text)?, now).map(|()| text.to_owned()),
        (None, Some(text)) => {
            let expires = parse("Expires", text)?;
            if now > expires {
                return Err(AuthError::Expired(format!(
                    "It expired at {}",
                    time::format_iso8601(expires)
                )));
            }
            Ok(text.to_owned())
        }
    }
}
