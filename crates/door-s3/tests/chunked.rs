//! Bodies in signed chunks and with trailers, made by hand.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use cumulet_auth::{Key, Keys, Principal};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_s3::{Config, Door};
use cumulet_objects::{Acl, Bucket, ObjectStore};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use zeroize::Zeroizing;

const HOST: &str = "127.0.0.1:8773";
const SECRET: &str = "secret";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[expect(
    clippy::disallowed_methods,
    reason = "the S3 library reads the system's clock itself"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

struct OneKey;

impl Keys for OneKey {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        Some(Key {
            secret: Zeroizing::new(SECRET.into()),
            versions: BTreeSet::from([4]),
            principal: Principal {
                account: AccountId::from_random(1),
                user: "user".into(),
                access_key_id: access_key_id.into(),
            },
        })
    }
}

async fn door(dir: &std::path::Path) -> Door {
    let store = ObjectStore::open(dir).unwrap();
    let bucket = Bucket {
        name: "bucket".into(),
        owner: AccountId::from_random(1),
        acl: Acl::PublicRead,
        created: now(),
        location: "us-east-1".into(),
    };
    store.create_bucket(bucket).await.unwrap();
    let config = Config {
        held: cumulet_wire::held::Held::new(256 << 20),
        region: "us-east-1".into(),
        domains: vec![],
        clock: Arc::new(now),
    };
    Door::new(store, Arc::new(OneKey), config)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// Signs what the specification of chunked uploads says is signed.
struct Signer {
    time: String,
    scope: String,
    key: Vec<u8>,
}

impl Signer {
    fn new() -> Self {
        let time = cumulet_wire::time::format_basic(now());
        let date = &time[..8];
        let key = ["us-east-1", "s3", "aws4_request"].iter().fold(
            mac(format!("AWS4{SECRET}").as_bytes(), date),
            |key, part| mac(&key, part),
        );
        Self {
            scope: format!("{date}/us-east-1/s3/aws4_request"),
            key,
            time,
        }
    }

    fn sign(&self, kind: &str, rest: &str) -> String {
        let text = format!("{kind}\n{}\n{}\n{rest}", self.time, self.scope);
        hex::encode(mac(&self.key, &text))
    }

    /// Headers and the signature of the request itself, from which those of the chunks follow.
    fn request(
        &self,
        payload: &str,
        length: usize,
        trailer: Option<&str>,
    ) -> (Vec<(String, String)>, String) {
        let mut headers = vec![
            ("host".to_owned(), HOST.to_owned()),
            ("x-amz-content-sha256".into(), payload.into()),
            ("x-amz-date".into(), self.time.clone()),
            ("x-amz-decoded-content-length".into(), length.to_string()),
        ];
        headers.extend(trailer.map(|name| ("x-amz-trailer".to_owned(), name.to_owned())));
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!("PUT\n/bucket/key\n\n{lines}\n{names}\n{payload}");
        let signature = self.sign("AWS4-HMAC-SHA256", &sha256(canonical.as_bytes()));
        headers.push((
            "authorization".into(),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKID/{}, SignedHeaders={names}, Signature={signature}",
                self.scope
            ),
        ));
        headers.push(("content-encoding".into(), "aws-chunked".into()));
        (headers, signature)
    }

    /// The body in chunks; `seed` is the request's signature.
    fn chunks(&self, blocks: &[&[u8]], seed: &str) -> (Vec<u8>, String) {
        let mut body = vec![];
        let mut before = seed.to_owned();
        for block in blocks.iter().copied().chain([&b""[..]]) {
            let rest = format!("{before}\n{EMPTY}\n{}", sha256(block));
            before = self.sign("AWS4-HMAC-SHA256-PAYLOAD", &rest);
            let head = format!("{:x};chunk-signature={before}\r\n", block.len());
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(block);
            if !block.is_empty() {
                body.extend_from_slice(b"\r\n");
            }
        }
        (body, before)
    }
}

async fn send(
    door: &Door,
    method: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
) -> (u16, String) {
    let mut request = Request::builder()
        .method(method)
        .uri("/bucket/key")
        .header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = door.answer(request, "R").await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// What anybody finds under the key.
async fn is_there(door: &Door) -> bool {
    let (status, text) = send(door, "GET", &[("host".into(), HOST.into())], vec![]).await;
    assert!(
        status == 403 || status == 404,
        "the object is private: {text}"
    );
    status == 403
}

const CRC32_OF_HELLO_WORLD: &str = "DUoRhQ==";

#[tokio::test]
async fn trailing_checksums_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let door = door(dir.path()).await;
    let signer = Signer::new();
    let name = Some("x-amz-checksum-crc32");
    let body =
        |trailer: &str| format!("6\r\nhello \r\n5\r\nworld\r\n0\r\n{trailer}\r\n").into_bytes();
    let (headers, _) = signer.request("STREAMING-UNSIGNED-PAYLOAD-TRAILER", 11, name);

    let wrong = body("x-amz-checksum-crc32:AAAAAA==\r\n");
    let (status, text) = send(&door, "PUT", &headers, wrong).await;
    assert!(status == 400 && text.contains("<Code>BadDigest<"), "{text}");
    let (status, text) = send(&door, "PUT", &headers, body("")).await;
    assert_eq!(status, 400, "no trailer: {text}");
    let mut cut = body("");
    cut.truncate(10);
    let (status, text) = send(&door, "PUT", &headers, cut).await;
    assert_eq!(status, 400, "cut: {text}");
    assert!(!is_there(&door).await);

    let right = body(&format!("x-amz-checksum-crc32:{CRC32_OF_HELLO_WORLD}\r\n"));
    let (status, text) = send(&door, "PUT", &headers, right).await;
    assert_eq!(status, 200, "{text}");
    assert!(is_there(&door).await);
}

#[tokio::test]
async fn every_chunk_must_be_signed_well() {
    let dir = tempfile::tempdir().unwrap();
    let door = door(dir.path()).await;
    let signer = Signer::new();
    let (headers, seed) = signer.request("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", 11, None);
    let (mut body, _) = signer.chunks(&[b"hello ", b"world"], &seed);
    body.extend_from_slice(b"\r\n");

    for at in [
        body.windows(5).position(|five| five == b"world").unwrap(),
        body.windows(5).position(|five| five == b"hello").unwrap(),
        body.windows(10)
            .position(|ten| ten == b"signature=")
            .unwrap()
            + 12,
    ] {
        let mut other = body.clone();
        other[at] = if other[at] == b'0' { b'1' } else { b'0' };
        let (status, text) = send(&door, "PUT", &headers, other).await;
        let is_refused = status == 403 && text.contains("<Code>SignatureDoesNotMatch<");
        assert!(is_refused, "{status} {text}");
    }
    // Whole chunks are missing at the end; the length that was signed tells.
    let (short, _) = signer.chunks(&[b"hello "], &seed);
    let (status, text) = send(&door, "PUT", &headers, short).await;
    assert_eq!(status, 400, "{text}");
    assert!(!is_there(&door).await);

    let (status, text) = send(&door, "PUT", &headers, body).await;
    assert_eq!(status, 200, "{text}");
    assert!(is_there(&door).await);
}
