//! What is accepted, and that nothing else is.

mod old_versions;

use std::collections::BTreeSet;

use cumulet_auth::sign::{Signer, Unsigned, v2_signature, v4_headers};
use cumulet_auth::{
    AuthError, Key, Keys, Principal, Profile, QueryPolicy, Readings, Request, Verified,
    verify_query,
};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_wire::query::Params;
use cumulet_wire::time::{format_iso8601, parse_iso8601};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use old_versions::{AT, old, only};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

struct OneKey(&'static [u8]);

impl Keys for OneKey {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        (access_key_id == "AKIDEXAMPLE").then(|| Key {
            secret: SECRET.to_owned().into(),
            versions: BTreeSet::from_iter(self.0.iter().copied()),
            principal: Principal {
                account: "111122223333".parse::<AccountId>().unwrap(),
                user: "admin".into(),
                access_key_id: access_key_id.into(),
            },
        })
    }
}

/// A request with everything owned, so that tests can change one thing.
#[derive(Clone)]
struct Owned {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    host: String,
    body: Vec<u8>,
    now: Timestamp,
}

const EC2: QueryPolicy<'_> = QueryPolicy {
    service: "ec2",
    region: "us-east-1",
    is_global: false,
    allows_host_scope: true,
    readings: Some(&NoPairs),
};

/// A service whose requests have one reading, unless a value holds `PAIR`.
#[derive(Debug)]
struct NoPairs;

impl Readings for NoPairs {
    fn check(&self, signed: &str, params: &Params) -> Result<(), String> {
        assert!(signed.starts_with("Action") || !params.contains("Action"));
        if signed.contains("PAIR") {
            return Err("there are two".into());
        }
        Ok(())
    }
}

impl Owned {
    fn verify(&self, versions: &'static [u8]) -> Result<Verified, AuthError> {
        self.verify_as(versions, &EC2)
    }

    fn verify_as(
        &self,
        versions: &'static [u8],
        policy: &QueryPolicy<'_>,
    ) -> Result<Verified, AuthError> {
        let params = Params::parse(self.query.as_deref(), Some(&self.body)).unwrap();
        let request = Request {
            method: &self.method,
            raw_path: &self.path,
            raw_query: self.query.as_deref(),
            headers: &self.headers,
            host: &self.host,
            body: &self.body,
            now: self.now,
        };
        verify_query(&request, &params, &OneKey(versions), policy)
    }
}

fn now() -> Timestamp {
    parse_iso8601("2026-11-21T07:00:00Z").unwrap()
}

fn v4(service: &str, region: &str, host: &str) -> Owned {
    let body = b"Action=DescribeRegions&Version=2016-11-15".to_vec();
    let signer = Signer {
        access_key_id: "AKIDEXAMPLE",
        secret: SECRET,
        region,
        service,
    };
    let request = Unsigned {
        method: "POST",
        host,
        raw_path: "/",
        raw_query: None,
        body: &body,
        now: now(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in v4_headers(&signer, &request, &HeaderMap::new()).unwrap() {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(&value).unwrap(),
        );
    }
    Owned {
        method: Method::POST,
        path: "/".into(),
        query: None,
        headers,
        host: host.into(),
        body,
        now: now(),
    }
}

fn v2(signed_host: &str, extra: &str) -> Owned {
    let mut query = format!(
        "AWSAccessKeyId=AKIDEXAMPLE&Action=DescribeInstances&InstanceId.1=i-2ba64342&InstanceId.10=x&SignatureMethod=HmacSHA256\
         &SignatureVersion=2&Timestamp={}&Version=2013-02-01{extra}",
        format_iso8601(now()).replace(':', "%3A")
    );
    let params = Params::parse(Some(&query), None).unwrap();
    let signature = v2_signature(SECRET, "GET", signed_host, "/", &params);
    query.push_str(&format!(
        "&Signature={}",
        cumulet_wire::query::encode(&signature)
    ));
    Owned {
        method: Method::GET,
        path: "/".into(),
        query: Some(query),
        headers: HeaderMap::new(),
        host: "cloud:8773".into(),
        body: vec![],
        now: now(),
    }
}

#[test]
fn good_signatures_say_who_signed() {
    let verified = v4("ec2", "us-east-1", "127.0.0.1:8773")
        .verify(&[4])
        .unwrap();
    assert_eq!(
        (verified.version, verified.principal.user.as_str()),
        (4, "admin")
    );
    for host in ["cloud:8773", "cloud"] {
        assert_eq!(
            v2(host, "").verify(&[2]).unwrap().version,
            2,
            "signed for {host}"
        );
    }
}

/// Net::Amazon::EC2 0.36 signs the name of the host alone, by version 4 and by version 2.
#[test]
fn a_host_may_be_signed_without_its_port() {
    let sent_to = |signed: &str, host: &str| {
        let request = Owned {
            host: host.into(),
            ..v4("ec2", "us-east-1", signed)
        };
        request.verify(&[4]).map(|verified| verified.version)
    };
    assert_eq!(sent_to("127.0.0.1", "127.0.0.1:8773"), Ok(4));
    assert_eq!(sent_to("cloud.example", "cloud.example:8773"), Ok(4));
    assert_eq!(sent_to("[::1]", "[::1]:8773"), Ok(4));
    let refused = Err(AuthError::Mismatch { version: 4 });
    for (signed, host) in [
        ("127.0.0.1", "127.0.0.2:8773"),
        ("127.0.0.1:8774", "127.0.0.1:8773"),
        ("127.0.0.1:8773", "127.0.0.1"),
        ("cloud", "cloud:example:8773"),
        ("[:", "[::1]"),
        ("[::", "[::1]"),
    ] {
        assert_eq!(sent_to(signed, host), refused, "{signed} {host}");
    }
}

/// The same sends `SecurityToken` always, and an empty one without a session.
#[test]
fn an_empty_session_token_is_none() {
    assert!(v2("cloud", "&SecurityToken=").verify(&[2]).is_ok());
    let refused = Err(AuthError::SessionToken);
    assert_eq!(v2("cloud", "&SecurityToken=x").verify(&[2]), refused);
    for version in [0, 1] {
        let pairs = "Action=DescribeRegions&SecurityToken=";
        let request = old(version, &format!("{pairs}&{AT}"));
        assert_eq!(request.verify(only(version)), refused);
    }
    for (token, expected) in [("", Ok(4)), ("x", Err(AuthError::SessionToken))] {
        let mut request = v4("ec2", "us-east-1", "cloud");
        let token = HeaderValue::from_str(token).unwrap();
        request.headers.insert("x-amz-security-token", token);
        let verified = request.verify(&[4]).map(|verified| verified.version);
        assert_eq!(verified, expected);
    }
}

#[test]
fn any_change_of_what_was_signed_is_refused() {
    let good = v4("ec2", "us-east-1", "127.0.0.1:8773");
    let mut changed = vec![];
    for index in 0..good.body.len() {
        let mut other = good.clone();
        other.body[index] = if other.body[index] == b'X' {
            b'Y'
        } else {
            b'X'
        };
        changed.push(other);
    }
    changed.push(Owned {
        method: Method::GET,
        ..good.clone()
    });
    changed.push(Owned {
        path: "/x".into(),
        ..good.clone()
    });
    changed.push(Owned {
        query: Some("A=b".into()),
        ..good.clone()
    });
    changed.push(Owned {
        host: "127.0.0.2:8773".into(),
        ..good.clone()
    });
    for other in changed {
        assert!(
            other.verify(&[4]).is_err(),
            "{}",
            String::from_utf8_lossy(&other.body)
        );
    }
    let good = v2("cloud", "");
    let query = good.query.clone().unwrap();
    for (from, to) in [
        ("DescribeInstances", "TerminateInstances"),
        ("i-2ba64342", "i-2ba64343"),
        ("2013-02-01", "2013-02-02"),
    ] {
        let other = Owned {
            query: Some(query.replace(from, to)),
            ..good.clone()
        };
        assert_eq!(
            other.verify(&[2]),
            Err(AuthError::Mismatch { version: 2 }),
            "{to}"
        );
    }
}

#[test]
fn every_flipped_letter_of_a_signature_is_refused() {
    let good = v4("ec2", "us-east-1", "127.0.0.1:8773");
    let header = good.headers["authorization"].to_str().unwrap().to_owned();
    let start = header.find("Signature=").unwrap() + "Signature=".len();
    for index in start..header.len() {
        let mut bytes = header.clone().into_bytes();
        bytes[index] = if bytes[index] == b'0' { b'1' } else { b'0' };
        let mut other = good.clone();
        other
            .headers
            .insert("authorization", HeaderValue::from_bytes(&bytes).unwrap());
        assert_eq!(other.verify(&[4]), Err(AuthError::Mismatch { version: 4 }));
    }
}

#[test]
fn the_time_is_good_for_fifteen_minutes_either_way() {
    for request in [v4("ec2", "us-east-1", "127.0.0.1:8773"), v2("cloud", "")] {
        for (minutes, is_good) in [(-16, false), (-14, true), (14, true), (16, false)] {
            let other = Owned {
                now: now().plus_millis(minutes * 60_000),
                ..request.clone()
            };
            let result = other.verify(&[2, 4]);
            assert_eq!(result.is_ok(), is_good, "{minutes} minutes: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.refusal(Profile::Ec2).code, "RequestExpired");
            }
        }
    }
}

#[test]
fn scopes_must_be_ours() {
    let other = v4("ec2", "eu-west-1", "127.0.0.1:8773").verify(&[4]);
    assert!(matches!(other, Err(AuthError::WrongRegion { .. })));
    assert!(matches!(
        v4("s3", "us-east-1", "cloud.example:1").verify(&[4]),
        Err(AuthError::WrongService { .. })
    ));
    let sts = QueryPolicy {
        service: "sts",
        region: "eu-north-1",
        is_global: true,
        allows_host_scope: false,
        readings: None,
    };
    assert!(
        v4("sts", "us-east-1", "cloud.example:1")
            .verify_as(&[4], &sts)
            .is_ok()
    );
}

/// boto 2.49 makes region and service of the host that it was given (observed with boto 2.49).
#[test]
fn what_boto_makes_of_an_address_counts_as_our_region() {
    assert!(v4("127", "0", "127.0.0.1:8773").verify(&[4]).is_ok());
    assert!(
        v4("localhost", "localhost", "localhost:8773")
            .verify(&[4])
            .is_ok()
    );
    assert!(
        v4("127", "0", "cloud.example:8773").verify(&[4]).is_err(),
        "only if the signed host is that address"
    );
    let sts = QueryPolicy {
        service: "sts",
        allows_host_scope: false,
        ..EC2
    };
    assert!(
        v4("127", "0", "127.0.0.1:8773")
            .verify_as(&[4], &sts)
            .is_err(),
        "only for EC2"
    );
}

#[test]
fn a_key_is_limited_to_its_versions() {
    let refused = v4("ec2", "us-east-1", "127.0.0.1:8773").verify(&[2]);
    assert_eq!(refused, Err(AuthError::VersionNotAllowed(4)));
    assert_eq!(
        v2("cloud", "").verify(&[4]),
        Err(AuthError::VersionNotAllowed(2))
    );
}

#[test]
fn credentials_come_from_one_place() {
    let mut both = v4("ec2", "us-east-1", "127.0.0.1:8773");
    both.query = v2("cloud", "").query;
    both.body = vec![];
    assert_eq!(both.verify(&[2, 4]), Err(AuthError::TwoSources));
    let mut twice = v4("ec2", "us-east-1", "127.0.0.1:8773");
    let header = twice.headers["authorization"].clone();
    twice.headers.append("authorization", header);
    assert_eq!(twice.verify(&[4]), Err(AuthError::TwoSources));
    let none = Owned {
        headers: HeaderMap::new(),
        ..v4("ec2", "us-east-1", "127.0.0.1:8773")
    };
    let refusal = none.verify(&[4]).unwrap_err().refusal(Profile::Ec2);
    assert_eq!((refusal.status, refusal.code), (400, "MissingParameter"));
}

/// Signatures, and secrets that stand where an id belongs, are in no message.
#[test]
fn refusals_repeat_nothing_secret() {
    let refused = |request: &Owned| request.verify(&[2, 4]).unwrap_err().to_string();
    let good = v2("cloud", "").query.unwrap();
    let (unsigned, signature) = good.split_once("&Signature=").unwrap();
    let signature = cumulet_wire::query::decode(signature).unwrap();
    let inside = format!("{} {}", &signature[..10], &signature[10..]);
    let cases = [
        (inside, "as its character 11"),
        (format!("-{signature}ZZ"), "character 1 is not"),
        (format!("{}Z", &signature[..40]), "one letter too many"),
        (signature.repeat(3), "longer than 64 bytes"),
    ];
    for (given, said) in cases {
        let given = cumulet_wire::query::encode(&given);
        let query = Some(format!("{unsigned}&Signature={given}"));
        let text = refused(&Owned {
            query,
            ..v2("cloud", "")
        });
        assert!(text.contains(said), "{text}");
        for part in [&signature[..8], &signature[12..20]] {
            assert!(!text.contains(part), "{text}");
        }
    }

    let scope = "20261121/us-east-1/ec2/aws4_request";
    let plain = SECRET.replace('/', "");
    let cases = [
        (format!("{SECRET}/{scope}"), "6 fields"),
        (format!("{plain}/us-east-1/ec2/aws4_request"), "4 fields"),
        (
            format!("{plain}/2026-11-21/us-east-1/ec2/aws4_request"),
            "second field",
        ),
        (format!("{plain}/20261121/us-east-1/ec2/aws4"), "last field"),
        (format!("/{scope}"), "first field"),
        (format!("{}/{scope}", plain.repeat(4)), "too long"),
    ];
    for (credential, said) in cases {
        let mut request = v4("ec2", "us-east-1", "cloud");
        let header = request.headers["authorization"].to_str().unwrap();
        let header = header.replace(&format!("AKIDEXAMPLE/{scope}"), &credential);
        let header = HeaderValue::from_str(&header).unwrap();
        request.headers.insert("authorization", header);
        let text = refused(&request);
        assert!(text.contains(said), "{text}");
        assert!(
            !text.contains(&SECRET[..12]) && !text.contains("K7MDENG"),
            "{text}"
        );
    }
    for (header, shows) in [("Bearer hunter22", "'Bearer'"), ("hunter22", "one word")] {
        let mut request = v4("ec2", "us-east-1", "cloud");
        let value = HeaderValue::from_static(header);
        request.headers.insert("authorization", value);
        let text = refused(&request);
        assert!(text.contains(shows) && !text.contains("hunter22"), "{text}");
    }
}

#[test]
fn an_unknown_key_is_told_like_ec2_tells_it() {
    let mut other = v4("ec2", "us-east-1", "127.0.0.1:8773");
    let header = other.headers["authorization"]
        .to_str()
        .unwrap()
        .replace("AKIDEXAMPLE", "AKIDOTHER");
    other
        .headers
        .insert("authorization", HeaderValue::from_str(&header).unwrap());
    let error = other.verify(&[4]).unwrap_err();
    assert_eq!(
        (
            error.refusal(Profile::Ec2).status,
            error.refusal(Profile::Ec2).code
        ),
        (401, "AuthFailure")
    );
    assert_eq!(error.refusal(Profile::Sts).code, "InvalidClientTokenId");
}

#[test]
fn timestamp_and_expires_exclude_each_other() {
    let both = v2("cloud", "&Expires=2030-01-01T00%3A00%3A00Z");
    let refusal = both.verify(&[2]).unwrap_err().refusal(Profile::Ec2);
    assert_eq!(
        (refusal.status, refusal.code),
        (400, "InvalidParameterCombination")
    );
    assert!(
        refusal.message.contains("'2030-01-01T00:00:00Z'"),
        "{}",
        refusal.message
    );
}

/// Each value that cannot be read and is no secret is repeated, under the parameter that has it.
#[test]
fn what_cannot_be_read_is_named_with_its_value() {
    let changed = |from: &str, to: &str| Owned {
        query: v2("cloud", "").query.map(|query| query.replace(from, to)),
        ..v2("cloud", "")
    };
    let query = v2("cloud", "").query.unwrap();
    let time = query.split("Timestamp=").nth(1).unwrap();
    let time = time.split('&').next().unwrap();
    for (request, said) in [
        (
            changed(time, "yesterday"),
            "Invalid value 'yesterday' for Timestamp. It must be a time",
        ),
        (
            changed("SignatureVersion=2", "SignatureVersion=3"),
            "Invalid value '3' for SignatureVersion. It must be 2",
        ),
        (
            changed("HmacSHA256", "HmacMD5"),
            "Invalid value 'HmacMD5' for SignatureMethod. It must be HmacSHA256",
        ),
    ] {
        let refusal = request.verify(&[2]).unwrap_err().refusal(Profile::Ec2);
        assert_eq!(
            (refusal.status, refusal.code),
            (400, "InvalidParameterValue")
        );
        assert!(refusal.message.starts_with(said), "{}", refusal.message);
    }
    // A plus sign that was not encoded is a space when it arrives.
    let unencoded = changed("&Signature=", "&Signature=+");
    let refusal = unencoded.verify(&[2]).unwrap_err().refusal(Profile::Ec2);
    assert_eq!(refusal.code, "IncompleteSignature");
    assert!(refusal.message.contains("%2B"), "{}", refusal.message);
    // What some encoders put at the end says nothing.
    for end in ["%20", "%0A", "%0D%0A"] {
        let query = v2("cloud", "").query.map(|query| format!("{query}{end}"));
        let ended = Owned {
            query,
            ..v2("cloud", "")
        };
        assert!(ended.verify(&[2]).is_ok(), "{end}");
    }
    let v4_with = |name: &'static str, value: &str| {
        let mut request = v4("ec2", "us-east-1", "127.0.0.1:8773");
        request
            .headers
            .insert(name, HeaderValue::from_str(value).unwrap());
        let refusal = request.verify(&[4]).unwrap_err().refusal(Profile::Ec2);
        assert_eq!((refusal.status, refusal.code), (400, "IncompleteSignature"));
        refusal.message
    };
    let credential =
        "AWS4-HMAC-SHA256 Credential=A/2/r/ec2/aws4_request, SignedHeaders=host, Signature=0";
    for (name, value, said) in [
        ("x-amz-date", "yesterday", "'yesterday'"),
        ("x-amz-date", "20070301T000000Z", "'20070301T000000Z'"),
        ("authorization", "Basic c2VjcmV0", "not 'Basic'"),
        (
            "authorization",
            credential,
            "second field of this one is not a date",
        ),
    ] {
        let message = v4_with(name, value);
        assert!(message.contains(said), "{message}");
        assert!(!message.contains("c2VjcmV0"), "a password: {message}");
    }
}

#[test]
fn version_2_has_expires_and_both_methods() {
    for method in ["HmacSHA256", "HmacSHA1"] {
        for (expires, is_good) in [
            ("2026-11-21T07:00:01Z", true),
            ("2026-11-21T06:59:59Z", false),
        ] {
            let pairs = [
                ("AWSAccessKeyId", "AKIDEXAMPLE"),
                ("Action", "DescribeImages"),
                ("Expires", expires),
                ("SignatureMethod", method),
                ("SignatureVersion", "2"),
                ("Version", "2009-04-04"),
            ];
            let encode = cumulet_wire::query::encode;
            let query: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", encode(value)))
                .collect();
            let query = query.join("&");
            let text = format!("GET\ncloud:8773\n/\n{query}");
            let algorithm = match method {
                "HmacSHA1" => aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                _ => aws_lc_rs::hmac::HMAC_SHA256,
            };
            let key = aws_lc_rs::hmac::Key::new(algorithm, SECRET.as_bytes());
            let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
            let signature = encode(&cumulet_wire::base64::encode(tag.as_ref()));
            let request = Owned {
                query: Some(format!("{query}&Signature={signature}")),
                ..v2("cloud", "")
            };
            assert_eq!(request.verify(&[2]).is_ok(), is_good, "{method}, {expires}");
        }
    }
    let other = Owned {
        query: v2("cloud", "")
            .query
            .map(|query| query.replace("HmacSHA256", "HmacMD5")),
        ..v2("cloud", "")
    };
    let error = other.verify(&[2]).unwrap_err();
    assert_eq!(error.refusal(Profile::Ec2).code, "InvalidParameterValue");
    for host in ["cloud:80", "cloud:443", "other", "cloud.", ""] {
        assert!(v2(host, "").verify(&[2]).is_err(), "signed for {host}");
    }
}
