//! The door over a store of its own, and requests to it that this crate signs itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use cumulet_auth::sign::{Signer, Unsigned, v4_headers};
use cumulet_auth::{Key, Keys, Principal};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_s3::{Config, Door, Outcome};
use cumulet_objects::ObjectStore;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use zeroize::Zeroizing;

pub(crate) const HOST: &str = "127.0.0.1:8773";
pub(crate) const SECRET: &str = "secret";

/// The library compares signatures with the clock of the system, so that tests must sign with it.
#[expect(
    clippy::disallowed_methods,
    reason = "the S3 library reads the system's clock itself"
)]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

pub(crate) struct TwoKeys;

impl Keys for TwoKeys {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        let (number, versions) = match access_key_id {
            "AKIDBOTH" => (1, BTreeSet::from([2, 4])),
            "AKIDNEW" => (1, BTreeSet::from([4])),
            "AKIDOLD" => (1, BTreeSet::from([2])),
            "AKIDOTHER" => (2, BTreeSet::from([2, 4])),
            _ => return None,
        };
        Some(Key {
            secret: Zeroizing::new(SECRET.into()),
            versions,
            principal: Principal {
                account: AccountId::from_random(number),
                user: "user".into(),
                access_key_id: access_key_id.into(),
            },
        })
    }
}

pub(crate) struct Cloud {
    pub(crate) door: Door,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn cloud() -> Cloud {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud_in(dir.path());
    Cloud {
        _dir: Some(dir),
        ..cloud
    }
}

/// Over a directory that the caller keeps.
pub(crate) fn cloud_in(dir: &Path) -> Cloud {
    let config = Config {
        held: cumulet_wire::held::Held::new(256 << 20),
        region: "us-east-1".into(),
        domains: vec!["s3.cloud.test".into()],
        clock: Arc::new(now),
    };
    let store = ObjectStore::open(dir).unwrap();
    Cloud {
        door: Door::new(store, Arc::new(TwoKeys), config),
        _dir: None,
    }
}

#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    pub(crate) key: &'a str,
    pub(crate) region: &'a str,
    pub(crate) body: &'a [u8],
    /// Sent in place of `body`, which is what was signed.
    pub(crate) sent: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) unsigned: Vec<(&'static str, String)>,
}

pub(crate) fn ask<'a>(method: &'a str, target: &'a str, body: &'a [u8]) -> Ask<'a> {
    Ask {
        method,
        target,
        host: HOST,
        key: "AKIDBOTH",
        region: "us-east-1",
        body,
        sent: None,
        headers: vec![],
        unsigned: vec![],
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) outcome: Outcome,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        let found = self.body.split_once("<Code>");
        let found = found.and_then(|(_, rest)| rest.split_once("</Code>"));
        found.map_or("", |(code, _)| code)
    }
}

impl Cloud {
    pub(crate) async fn signed(&self, ask: Ask<'_>) -> Answer {
        let (path, query) = match ask.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (ask.target, None),
        };
        let mut extra = HeaderMap::new();
        for (name, value) in &ask.headers {
            extra.insert(*name, value.parse().unwrap());
        }
        let signer = Signer {
            access_key_id: ask.key,
            secret: SECRET,
            region: ask.region,
            service: "s3",
        };
        let unsigned = Unsigned {
            method: ask.method,
            host: ask.host,
            raw_path: path,
            raw_query: query,
            body: ask.body,
            now: now(),
        };
        let signature = v4_headers(&signer, &unsigned, &extra).unwrap();
        let mut all: Vec<(String, String)> = signature;
        let others = ask.headers.into_iter().chain(ask.unsigned);
        all.extend(others.map(|(name, value)| (name.to_owned(), value)));
        let sent = ask.sent.unwrap_or(ask.body);
        self.send(ask.method, ask.target, ask.host, &all, sent)
            .await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        host: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", host)
            .header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let response = self
            .door
            .answer(request.body(body).unwrap(), "REQUEST1")
            .await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            outcome: head.extensions.get::<Outcome>().cloned().unwrap(),
        }
    }

    pub(crate) async fn with_bucket(self) -> Self {
        let made = self.signed(ask("PUT", "/bucket", b"")).await;
        assert_eq!(made.status, 200, "{}", made.body);
        self
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    cumulet_wire::base64::encode(bytes)
}

/// An address signed with version 2, good until `expires`.
pub(crate) fn v2_query(method: &str, path: &str, expires: i64) -> String {
    let text = format!("{method}\n\n\n{expires}\n{path}");
    let signature = percent(&v2_signature(&text));
    format!("{path}?AWSAccessKeyId=AKIDBOTH&Expires={expires}&Signature={signature}")
}

/// A `Date` and an `Authorization` of version 2.
pub(crate) fn v2_headers(method: &str, path: &str, amz: &[(&str, &str)]) -> Vec<(String, String)> {
    let date = cumulet_wire::time::format_http(now());
    let lines: String = amz
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let signature = v2_signature(&format!("{method}\n\n\n{date}\n{lines}{path}"));
    let own = [
        ("date".to_owned(), date),
        (
            "authorization".to_owned(),
            format!("AWS AKIDBOTH:{signature}"),
        ),
    ];
    let others = amz
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    others.chain(own).collect()
}

fn v2_signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    base64(hmac::sign(&key, text.as_bytes()).as_ref())
}

pub(crate) fn percent(text: &str) -> String {
    text.replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
}

/// An address signed with version 4, good for `seconds`.
pub(crate) fn v4_query(method: &str, path: &str, seconds: u64) -> String {
    let stamp = cumulet_wire::time::format_basic(now());
    let scope = format!("{}/us-east-1/s3/aws4_request", &stamp[..8]);
    let credential = percent(&format!("AKIDBOTH/{scope}"));
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={stamp}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
    );
    let request = format!("{method}\n{path}\n{query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request.as_bytes());
    let text = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        hex::encode(digest)
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [&stamp[..8], "us-east-1", "s3", "aws4_request", &text] {
        let with = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&with, part.as_bytes()).as_ref().to_vec();
    }
    format!("{path}?{query}&X-Amz-Signature={}", hex::encode(key))
}
