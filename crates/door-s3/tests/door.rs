//! The door as a client that does what no client's library would do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cumulet_auth::sign::{Signer, Unsigned, v4_headers};
use cumulet_auth::{Key, Keys, Principal};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_s3::{Config, Door, Outcome};
use cumulet_objects::ObjectStore;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use zeroize::Zeroizing;

const HOST: &str = "127.0.0.1:8773";
const SECRET: &str = "secret";

/// The library compares signatures with the clock of the system, so that tests must sign with it.
#[expect(
    clippy::disallowed_methods,
    reason = "the S3 library reads the system's clock itself"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

struct TwoKeys;

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

struct Cloud {
    door: Door,
    _dir: tempfile::TempDir,
}

fn cloud() -> Cloud {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        region: "us-east-1".into(),
        domains: vec!["s3.cloud.test".into()],
        clock: Arc::new(now),
    };
    let store = ObjectStore::open(dir.path()).unwrap();
    Cloud {
        door: Door::new(store, Arc::new(TwoKeys), config),
        _dir: dir,
    }
}

#[derive(Clone)]
struct Ask<'a> {
    method: &'a str,
    target: &'a str,
    host: &'a str,
    key: &'a str,
    region: &'a str,
    body: &'a [u8],
    /// Sent in place of `body`, which is what was signed.
    sent: Option<&'a [u8]>,
    headers: Vec<(&'static str, String)>,
    unsigned: Vec<(&'static str, String)>,
}

fn ask<'a>(method: &'a str, target: &'a str, body: &'a [u8]) -> Ask<'a> {
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

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    outcome: Outcome,
}

impl Answer {
    fn code(&self) -> &str {
        let found = self.body.split_once("<Code>");
        let found = found.and_then(|(_, rest)| rest.split_once("</Code>"));
        found.map_or("", |(code, _)| code)
    }
}

impl Cloud {
    async fn signed(&self, ask: Ask<'_>) -> Answer {
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

    async fn send(
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

    async fn with_bucket(self) -> Self {
        let made = self.signed(ask("PUT", "/bucket", b"")).await;
        assert_eq!(made.status, 200, "{}", made.body);
        self
    }
}

fn base64(bytes: &[u8]) -> String {
    cumulet_wire::base64::encode(bytes)
}

#[tokio::test]
async fn an_object_goes_in_and_comes_out() {
    let cloud = cloud().with_bucket().await;
    let put = cloud.signed(ask("PUT", "/bucket/a%20b", b"hello")).await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.headers["etag"], "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(put.headers["x-amz-request-id"], "REQUEST1");
    assert_eq!(put.outcome.action, "PutObject");
    assert_eq!(put.outcome.account, Some(AccountId::from_random(1)));
    let got = cloud.signed(ask("GET", "/bucket/a%20b", b"")).await;
    assert_eq!(got.body, "hello");
    // The same bucket as a label of the host.
    let mut by_host = ask("GET", "/a%20b", b"");
    by_host.host = "bucket.s3.cloud.test:8773";
    assert_eq!(cloud.signed(by_host).await.body, "hello");
    let missing = cloud.signed(ask("GET", "/bucket/none", b"")).await;
    assert_eq!(
        (missing.status.as_u16(), missing.code()),
        (404, "NoSuchKey")
    );
    for part in [
        "<Resource>/bucket/none<",
        "<RequestId>REQUEST1<",
        "<HostId>",
    ] {
        assert!(missing.body.contains(part), "{}", missing.body);
    }
    assert_eq!(missing.outcome.code.as_deref(), Some("NoSuchKey"));
    let head = cloud.signed(ask("HEAD", "/bucket/none", b"")).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (404, ""));
}

#[tokio::test]
async fn wrong_digests_are_refused_and_nothing_is_kept() {
    let cloud = cloud().with_bucket().await;
    let cases = [
        ("content-md5", base64(&[0; 16]), "BadDigest"),
        ("content-md5", "nonsense!".into(), "InvalidDigest"),
        ("x-amz-checksum-crc32", base64(&[0; 4]), "BadDigest"),
        ("x-amz-checksum-crc32c", base64(&[0; 4]), "BadDigest"),
        ("x-amz-checksum-crc64nvme", base64(&[0; 8]), "BadDigest"),
        ("x-amz-checksum-sha1", base64(&[0; 20]), "BadDigest"),
        ("x-amz-checksum-sha256", base64(&[0; 32]), "BadDigest"),
        ("x-amz-checksum-sha256", base64(&[0; 31]), "InvalidRequest"),
    ];
    for (name, value, code) in cases {
        let mut put = ask("PUT", "/bucket/key", b"hello");
        put.headers.push((name, value.clone()));
        let refused = cloud.signed(put).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, code),
            "{name}"
        );
        // A document: nothing is deleted.
        let document = b"<Delete><Object><Key>key</Key></Object></Delete>";
        let mut delete = ask("POST", "/bucket?delete", document);
        delete.headers.push((name, value));
        assert_eq!(
            cloud.signed(delete).await.code(),
            code,
            "{name} of a document"
        );
    }
    for (target, method, signed, sent) in [
        ("/bucket/key", "PUT", &b"hello"[..], &b"hellO"[..]),
        (
            "/bucket?delete",
            "POST",
            b"<Delete><Object><Key>a</Key></Object></Delete>",
            b"<Delete><Object><Key>b</Key></Object></Delete>",
        ),
    ] {
        let mut other = ask(method, target, signed);
        other.sent = Some(sent);
        let refused = cloud.signed(other).await;
        let found = (refused.status.as_u16(), refused.code());
        assert_eq!(
            found,
            (400, "XAmzContentSHA256Mismatch"),
            "{}",
            refused.body
        );
    }
    let list = cloud.signed(ask("GET", "/bucket", b"")).await;
    assert!(!list.body.contains("<Contents>"), "{}", list.body);
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let cloud = cloud().with_bucket().await;
    cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
    let code = async |ask: Ask<'_>| cloud.signed(ask).await.code().to_owned();
    let get = ask("GET", "/bucket/key", b"");
    assert_eq!(
        code(Ask {
            key: "AKIDOTHER",
            ..get.clone()
        })
        .await,
        "AccessDenied"
    );
    assert_eq!(
        code(Ask {
            key: "AKIDNOBODY",
            ..get.clone()
        })
        .await,
        "InvalidAccessKeyId"
    );
    assert_eq!(
        code(Ask {
            key: "AKIDOLD",
            ..get.clone()
        })
        .await,
        "InvalidRequest"
    );
    let elsewhere = cloud
        .signed(Ask {
            region: "eu-west-1",
            ..get.clone()
        })
        .await;
    assert_eq!(elsewhere.code(), "AuthorizationHeaderMalformed");
    assert!(
        elsewhere.body.contains("<Region>us-east-1</Region>"),
        "{}",
        elsewhere.body
    );
    let anonymous = cloud.send("GET", "/bucket/key", HOST, &[], b"").await;
    assert_eq!(
        (anonymous.status.as_u16(), anonymous.code()),
        (403, "AccessDenied")
    );
    let anonymous = cloud.send("PUT", "/other-bucket", HOST, &[], b"").await;
    assert_eq!(anonymous.code(), "AccessDenied");

    // A header that somebody added on the way.
    let mut added = ask("PUT", "/bucket/key", b"hello");
    added.unsigned.push(("x-amz-acl", "public-read".into()));
    assert_eq!(code(added).await, "AccessDenied");
    let mut token = get.clone();
    token.headers.push(("x-amz-security-token", "token".into()));
    assert_eq!(code(token).await, "InvalidToken");
    // Names that only the library would decode, beside a header.
    for target in [
        "/bucket/key?%53ignature=x&AWSAccessKeyI%64=AKIDNEW&Expires=9999999999",
        "/bucket/key?Signature=x&AWSAccessKeyId=AKIDNEW&Expires=9999999999",
        "/bucket/key?X-Amz-%53ignature=x",
    ] {
        let refused = cloud
            .signed(Ask {
                target,
                key: "AKIDNEW",
                ..get.clone()
            })
            .await;
        assert_eq!(refused.status, 400, "{target} {}", refused.body);
    }
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let cloud = cloud().with_bucket().await;
    for (method, target) in [
        ("GET", "/bucket?tagging"),
        ("GET", "/bucket?policy"),
        ("PUT", "/bucket?versioning"),
        ("GET", "/bucket/key?tagging"),
        ("GET", "/bucket?lifecycle"),
    ] {
        let body: &[u8] = match (method, target) {
            ("PUT", _) => {
                b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            }
            _ => b"",
        };
        let refused = cloud.signed(ask(method, target, body)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (501, "NotImplemented"),
            "{target}"
        );
    }
    let mut encrypted = ask("PUT", "/bucket/key", b"hello");
    encrypted
        .headers
        .push(("x-amz-server-side-encryption", "AES256".into()));
    assert_eq!(cloud.signed(encrypted).await.code(), "NotImplemented");
    for name in ["services", "image", "Bad_Name", "192.168.5.4"] {
        let target = format!("/{name}");
        let refused = cloud.signed(ask("PUT", &target, b"")).await;
        assert_eq!(refused.code(), "InvalidBucketName", "{name}");
    }
    let typed =
        b"<!DOCTYPE Delete [<!ENTITY a \"b\">]><Delete><Object><Key>&a;</Key></Object></Delete>";
    let refused = cloud.signed(ask("POST", "/bucket?delete", typed)).await;
    assert_eq!(refused.code(), "MalformedXML");
    let long = vec![b' '; 3 * 1024 * 1024];
    let refused = cloud.signed(ask("POST", "/bucket?delete", &long)).await;
    assert_eq!(refused.code(), "MaxMessageLengthExceeded");
}

#[tokio::test]
async fn nonsense_is_refused_and_never_an_internal_error() {
    let cloud = cloud().with_bucket().await;
    let targets = [
        "/",
        "//",
        "/?location",
        "/%ff",
        "/bucket/%00",
        "/bucket/a%00b",
        "/bucket/%ff%fe",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/bucket/../../etc/passwd",
        "/bucket?list-type=2&max-keys=-1",
        "/bucket?list-type=2&max-keys=99999999999",
        "/bucket?list-type=2&continuation-token=!!",
        "/bucket?list-type=3",
        "/bucket?encoding-type=morse",
        "/bucket?uploads&max-uploads=x",
        "/bucket?uploads&key-marker=%00&upload-id-marker=a",
        "/bucket?versions",
        "/bucket?prefix=%00&delimiter=%00",
        "/bucket/key?uploadId=none",
        "/bucket/key?uploadId=%00%00&partNumber=1",
        "/bucket/key?partNumber=0&uploadId=a",
        "/bucket/key?partNumber=99999999999&uploadId=a",
        "/bucket/key?acl",
        "/bucket/key?versionId=3",
        "/bucket?acl&acl",
        "/bucket?location=%E0%A4%A",
    ];
    let bodies: [&[u8]; 4] = [b"", b"<", b"<!DOCTYPE a><Delete/>", b"<Delete></Delete>"];
    for target in targets {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            for body in bodies {
                // Some of these cannot even be signed, which is also an answer.
                let found = cloud.send(method, target, HOST, &[], body).await;
                let status = found.status.as_u16();
                assert!(
                    status < 500 || status == 501,
                    "{method} {target}: {}",
                    found.body
                );
                if target.contains("%ff") || target.contains("%A") {
                    continue;
                }
                let found = cloud.signed(ask(method, target, body)).await;
                let status = found.status.as_u16();
                assert!(
                    status < 500 || status == 501,
                    "{method} {target}: {}",
                    found.body
                );
                let is_told = status < 400 || method == "HEAD" || !found.code().is_empty();
                assert!(is_told, "{method} {target}: {}", found.body);
            }
        }
    }
    for range in [
        "bytes=5-1",
        "bytes=a-b",
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=-0",
    ] {
        cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
        let mut get = ask("GET", "/bucket/key", b"");
        get.headers.push(("range", range.into()));
        let found = cloud.signed(get).await;
        assert!(found.status.as_u16() < 500, "{range}: {}", found.body);
    }
    for authorization in [
        "AWS",
        "AWS ",
        "AWS a",
        "AWS a:b",
        "AWS4-HMAC-SHA256",
        "Basic eA==",
        "\u{7f}",
    ] {
        let Ok(value) = http::HeaderValue::from_bytes(authorization.as_bytes()) else {
            continue;
        };
        let text = value.to_str().unwrap_or("x").to_owned();
        let headers = [("authorization".to_owned(), text)];
        let found = cloud.send("GET", "/bucket/key", HOST, &headers, b"").await;
        let status = found.status.as_u16();
        assert!(
            (400..500).contains(&status),
            "{authorization}: {}",
            found.body
        );
    }
}
