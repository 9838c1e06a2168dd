//! Signatures of EC2 and S3 requests.

use std::collections::BTreeSet;

use cumulet_auth::{Key, Keys, Principal, QueryPolicy, Request, s3::precheck, verify_query};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_wire::query::Params;
use zeroize::Zeroizing;

use super::{Runner, Target, request};
use crate::harness::shape;

/// 2026-01-02T03:04:05Z, as in the corpus.
const NOW: Timestamp = Timestamp(1_767_323_045_000);

const DICTIONARY: &[&[u8]] = &[
    b"\n",
    b": ",
    b"&",
    b"=",
    b",",
    b";",
    b"/",
    b"%2F",
    b"%00",
    b"..",
    b"//",
    b"AWS4-HMAC-SHA256 ",
    b"Credential=",
    b"SignedHeaders=",
    b"Signature=",
    b"AWS ",
    b"AKIDFUZZ",
    b"/20260102/us-east-1/ec2/aws4_request",
    b"/20260102/us-east-1/s3/aws4_request",
    b"20260102T030405Z",
    b"2026-01-02T03:04:05Z",
    b"Fri, 02 Jan 2026 03:04:05 GMT",
    b"X-Amz-Algorithm=AWS4-HMAC-SHA256",
    b"X-Amz-Credential=",
    b"X-Amz-Date=",
    b"X-Amz-Expires=",
    b"X-Amz-SignedHeaders=host",
    b"X-Amz-Signature=",
    b"AWSAccessKeyId=",
    b"SignatureVersion=",
    b"SignatureMethod=HmacSHA256",
    b"Timestamp=",
    b"Expires=",
    b"authorization: ",
    b"x-amz-date: ",
    b"date: ",
    b"host: ",
    b"x-amz-content-sha256: ",
];

pub(crate) static QUERY: Target = Target {
    name: "ec2-signatures",
    dictionary: DICTIONARY,
    length_max: 16 * 1024,
    prepare: prepare_query,
};

pub(crate) static S3: Target = Target {
    name: "s3-signatures",
    dictionary: DICTIONARY,
    length_max: 16 * 1024,
    prepare: prepare_s3,
};

/// One key whose secret has signed nothing.
struct OneKey;

impl Keys for OneKey {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        (access_key_id == "AKIDFUZZ").then(|| Key {
            secret: Zeroizing::new("a secret that nobody has used".into()),
            versions: BTreeSet::from([0, 1, 2, 4]),
            principal: Principal {
                account: AccountId::from_random(1),
                user: "user".into(),
                access_key_id: access_key_id.to_owned(),
            },
        })
    }
}

fn prepare_query() -> Runner {
    Box::new(|input| {
        let Some(request) = request::read(input) else {
            return 1;
        };
        let host = request::host(&request);
        let query = request.uri().query();
        let params = match Params::parse(query, Some(request.body())) {
            Ok(params) => params,
            // A body that is no form is signed all the same.
            Err(_) => Params::parse(query, None).unwrap_or_default(),
        };
        let asked = Request {
            method: request.method(),
            raw_path: request.uri().path(),
            raw_query: query,
            headers: request.headers(),
            host: &host,
            body: request.body(),
            now: NOW,
        };
        let policy = QueryPolicy {
            service: "ec2",
            region: "us-east-1",
            is_global: false,
            allows_host_scope: true,
        };
        let _ = cumulet_auth::scope_service(request.headers(), query);
        match verify_query(&asked, &params, &OneKey, &policy) {
            Ok(verified) => panic!("believed: {verified:?}"),
            Err(error) => shape(&format!("{error:?}")),
        }
    })
}

fn prepare_s3() -> Runner {
    Box::new(|input| {
        let Some(request) = request::read(input) else {
            return 1;
        };
        let found = precheck(request.headers(), request.uri().query(), "us-east-1", NOW);
        shape(&format!("{found:?}"))
    })
}
