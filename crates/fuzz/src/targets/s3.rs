//! The S3 door as a whole: what stands before the library, the library, and what we do with what it read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cumulet_auth::sign::{Signer, Unsigned, v4_headers};
use cumulet_auth::{Key, Keys, Principal};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_s3::{Config, Door};
use cumulet_objects::ObjectStore;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{Runner, Target, request};
use crate::harness::{shape, work_directory};

const HOST: &str = "127.0.0.1:8773";
const SECRET: &str = "secret";
/// 2026-01-02T03:04:05Z, as in the corpus.
const THEN: Timestamp = Timestamp(1_767_323_045_000);
/// Inputs after which the store is begun anew, so that it does not grow for hours.
const INPUTS_PER_STORE: u32 = 10_000;

pub(crate) static REQUEST: Target = Target {
    name: "s3-requests",
    dictionary: &[
        b"GET ",
        b"PUT ",
        b"POST ",
        b"HEAD ",
        b"DELETE ",
        b"/",
        b"//",
        b"/bucket",
        b"/bucket/key",
        b"?",
        b"&",
        b"=",
        b"%",
        b"%2F",
        b"%00",
        b"%2e%2e",
        b"..",
        b"acl",
        b"uploads",
        b"uploadId=",
        b"partNumber=",
        b"list-type=2",
        b"prefix=",
        b"delimiter=",
        b"max-keys=",
        b"marker=",
        b"continuation-token=",
        b"encoding-type=url",
        b"versionId=",
        b"response-content-type=",
        b"delete",
        b"location",
        b"\nrange: bytes=",
        b"\nx-amz-copy-source: /bucket/key",
        b"\nx-amz-copy-source-range: bytes=0-1",
        b"\nif-match: \"",
        b"\nif-modified-since: Fri, 02 Jan 2026 03:04:05 GMT",
        b"\ncontent-md5: ",
        b"\nx-amz-meta-",
        b"\nx-amz-acl: public-read",
        b"\nx-amz-grant-read: id=",
        b"\nx-amz-checksum-crc32: ",
        b"\nx-amz-sdk-checksum-algorithm: ",
        b"\nx-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        b"\nx-amz-content-sha256: UNSIGNED-PAYLOAD",
        b"\nx-amz-decoded-content-length: ",
        b"\ncontent-encoding: aws-chunked",
        b"\ncontent-type: multipart/form-data; boundary=x",
        b"\nhost: bucket.s3.cloud.test",
        b"\nauthorization: AWS AKIDFUZZ:",
        b"\nexpect: 100-continue",
        b"\ndate: Fri, 02 Jan 2026 03:04:05 GMT",
        b"AWSAccessKeyId=AKIDFUZZ&Expires=1867323045&Signature=",
        b"5;chunk-signature=0\r\n",
        b"0\r\n\r\n",
    ],
    length_max: 16 * 1024,
    prepare: prepare_request,
};

/// The first line names the operation, the rest is its document.
pub(crate) static XML: Target = Target {
    name: "s3-xml",
    dictionary: &[
        b"<Delete>",
        b"</Delete>",
        b"<Object>",
        b"</Object>",
        b"<Key>",
        b"</Key>",
        b"<Quiet>true</Quiet>",
        b"<CompleteMultipartUpload>",
        b"</CompleteMultipartUpload>",
        b"<Part>",
        b"</Part>",
        b"<PartNumber>",
        b"</PartNumber>",
        b"<ETag>",
        b"</ETag>",
        b"<CreateBucketConfiguration>",
        b"<LocationConstraint>",
        b"<AccessControlPolicy>",
        b"<Owner>",
        b"<ID>",
        b"<AccessControlList>",
        b"<Grant>",
        b"<Grantee ",
        b"xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"",
        b"<Permission>READ</Permission>",
        b"<!DOCTYPE x [",
        b"<!doctype x [",
        b"<!ENTITY a \"b\">",
        b"]>",
        b"&a;",
        b"&amp;",
        b"&#0;",
        b"&#xFFFF;",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"-->",
        b"<?xml version=\"1.0\" encoding=\"UTF-16\"?>",
        b"<a>",
        b"</a>",
        b"\xff\xfe",
        b" a=\"\"",
    ],
    length_max: 256 * 1024,
    prepare: prepare_xml,
};

#[expect(
    clippy::disallowed_methods,
    reason = "the S3 library reads the system's clock itself"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

struct OneKey;

impl Keys for OneKey {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        (access_key_id == "AKIDFUZZ").then(|| Key {
            secret: Zeroizing::new(SECRET.into()),
            versions: BTreeSet::from([2, 4]),
            principal: Principal {
                account: AccountId::from_random(1),
                user: "user".into(),
                access_key_id: access_key_id.to_owned(),
            },
        })
    }
}

struct Cloud {
    runtime: Runtime,
    store: ObjectStore,
    /// With the system's clock, as the library has it.
    door: Door,
    /// With the corpus's time, for requests that are signed in it.
    past: Door,
    inputs: u32,
    _directory: tempfile::TempDir,
}

impl Cloud {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let directory = tempfile::Builder::new()
            .prefix("s3-")
            .tempdir_in(work_directory());
        let directory = directory.expect("a directory");
        let store = ObjectStore::open(directory.path()).expect("a store");
        let door = |clock: fn() -> Timestamp| {
            let config = Config {
                held: cumulet_wire::held::Held::new(256 << 20),
                region: "us-east-1".into(),
                domains: vec!["s3.cloud.test".into()],
                clock: Arc::new(clock),
            };
            Door::new(store.clone(), Arc::new(OneKey), config)
        };
        let cloud = Self {
            door: door(now),
            past: door(|| THEN),
            store: store.clone(),
            runtime,
            inputs: 0,
            _directory: directory,
        };
        cloud.fill();
        cloud
    }

    /// The bucket and the key that inputs name.
    fn fill(&self) {
        for (target, body) in [("/bucket", ""), ("/bucket/key", "0123456789")] {
            let request = Request::put(target)
                .body(Bytes::from(body))
                .expect("a request");
            let _ = self.signed(request);
        }
    }

    /// The cloud for the next input.
    fn next(&mut self) {
        self.inputs += 1;
        if self.inputs == INPUTS_PER_STORE {
            let old = std::mem::replace(self, Self::new());
            old.runtime.block_on(old.store.close());
        } else if self.inputs.is_multiple_of(100) {
            self.fill();
        }
    }

    fn ask(&self, door: &Door, request: Request<Bytes>) -> u64 {
        self.runtime.block_on(async {
            let response = door
                .answer(request.map(Full::new), "0123456789ABCDEF")
                .await;
            let status = response.status();
            let action = response
                .extensions()
                .get::<cumulet_door_s3::Outcome>()
                .cloned();
            let body = response.into_body().collect().await;
            let text = body.map_or_else(
                |_| "cut".into(),
                |body| String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            );
            assert!(status != 500, "{text}");
            let letter = char::from(
                b'a'.wrapping_add(u8::try_from(status.as_u16() % 251).unwrap_or_default()),
            );
            let action = action.map_or_else(String::new, |outcome| outcome.action);
            let text = text.split("<Resource>").next().unwrap_or_default();
            shape(&format!("{letter} {action} {}", text.replace('"', "")))
        })
    }

    fn signed(&self, mut request: Request<Bytes>) -> u64 {
        let host = request::host(&request);
        let host = if host.is_empty() {
            HOST.to_owned()
        } else {
            host
        };
        let signer = Signer {
            access_key_id: "AKIDFUZZ",
            secret: SECRET,
            region: "us-east-1",
            service: "s3",
        };
        let unsigned = Unsigned {
            method: request.method().as_str(),
            host: &host,
            raw_path: request.uri().path(),
            raw_query: request.uri().query(),
            body: request.body(),
            now: now(),
        };
        let mut extra = HeaderMap::new();
        for (name, value) in request.headers() {
            if name.as_str().starts_with("x-amz-") {
                extra.insert(name.clone(), value.clone());
            }
        }
        let Ok(signature) = v4_headers(&signer, &unsigned, &extra) else {
            return 2;
        };
        let headers = request.headers_mut();
        for (name, value) in extra {
            if let Some(name) = name {
                headers.insert(name, value);
            }
        }
        if let Ok(value) = host.parse() {
            headers.insert(http::header::HOST, value);
        }
        for (name, value) in signature {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
        self.ask(&self.door, request)
    }
}

/// As it is, and signed.
fn prepare_request() -> Runner {
    let mut cloud = Cloud::new();
    Box::new(move |input| {
        let Some(request) = request::read(input) else {
            return 1;
        };
        cloud.next();
        let as_it_is = cloud.ask(&cloud.past, request.clone());
        as_it_is.rotate_left(1) ^ cloud.signed(request)
    })
}

fn prepare_xml() -> Runner {
    let mut cloud = Cloud::new();
    Box::new(move |input| {
        let end = input
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(input.len());
        let (method, target) = match &input[..end] {
            b"delete" => ("POST", "/bucket?delete"),
            b"create" => ("PUT", "/other"),
            b"complete" => (
                "POST",
                "/bucket/key?uploadId=0123456789abcdef0123456789abcdef",
            ),
            b"acl" => ("PUT", "/bucket?acl"),
            b"object-acl" => ("PUT", "/bucket/key?acl"),
            b"tagging" => ("PUT", "/bucket/key?tagging"),
            b"lifecycle" => ("PUT", "/bucket?lifecycle"),
            _ => return 1,
        };
        cloud.next();
        let body = Bytes::copy_from_slice(input.get(end + 1..).unwrap_or_default());
        let request = Request::builder().method(method).uri(target).body(body);
        cloud.signed(request.expect("a request"))
    })
}
