//! Signatures of EC2 and S3 requests.

use std::collections::BTreeSet;

use cumulet_auth::{
    Key, Keys, Principal, QueryPolicy, Readings, Request, s3::precheck, sign, verify_query,
};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_ec2_model::readings;
use cumulet_ec2_model::request::check;
use cumulet_wire::query::Params;
use cumulet_wire::time;
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

/// As the door has it.
#[derive(Debug)]
struct Ec2;

impl Readings for Ec2 {
    fn check(&self, signed: &str, params: &Params) -> Result<(), String> {
        readings::others(signed, params).map_err(|unclear| unclear.to_string())
    }
}

/// A query, of which the text is made that version 1 signs.
pub(crate) static READINGS: Target = Target {
    name: "ec2-readings",
    dictionary: &[
        b"&",
        b"=",
        b".1",
        b".2",
        b".10",
        b"Action=DescribeKeyPairs",
        b"Operation=RunInstances",
        b"&AWSAccessKeyId=AKIDFUZZ&SignatureVersion=1",
        b"&Timestamp=2026-01-02T03:04:05Z",
        b"&Expires=2026-01-02T03:04:05Z",
        b"&Version=2007-03-01",
        b"&ImageId=ami-12345678",
        b"&InstanceId.1=i-12345678",
        b"KeyName",
        b"MaxCount1",
        b"MinCount1",
        b"SecurityGroup.1",
        b"UserData",
        b"Version2007-03-01",
        b"SignatureVersion1",
    ],
    length_max: 32 * 1024,
    prepare: prepare_readings,
};

fn prepare_readings() -> Runner {
    Box::new(|input| {
        let Ok(query) = std::str::from_utf8(input) else {
            return 1;
        };
        let params = match Params::parse(Some(query), None) {
            Ok(params) => params,
            Err(error) => return shape(&format!("{error:?}")),
        };
        let signed = sign::v1_text(&params);
        let verdict = readings::others(&signed, &params);
        // Two parameters made one are signed alike: not both are taken.
        let pairs: Vec<(&str, &str)> = params.iter().collect();
        for pair in pairs.windows(2) {
            let [(name, value), (next, rest)] = pair else {
                continue;
            };
            let mut merged = Params::default();
            for (other, text) in params.iter().filter(|it| it.0 != *name && it.0 != *next) {
                let _ = merged.insert(other.into(), text.into());
            }
            let _ = merged.insert((*name).into(), format!("{value}{next}{rest}"));
            let is_alike = sign::v1_text(&merged) == signed;
            // The values of this operation's parameters are of any form, so that both are requests.
            let are_requests = check(&params)
                .is_ok_and(|it| it.operation.name == "DescribeKeyPairs")
                && check(&merged).is_ok();
            if is_alike && are_requests && is_signed(&params) && is_signed(&merged) {
                let one = verdict.is_ok();
                let other = readings::others(&signed, &merged).is_ok();
                assert!(!(one && other), "{params:?} and {merged:?}");
            }
        }
        shape(&format!("{verdict:?}"))
    })
}

/// Whether the request has what a signature of version 1 needs.
fn is_signed(params: &Params) -> bool {
    let is_time = |name| params.get(name).map(|it| time::parse_iso8601(it).is_some());
    params.get("AWSAccessKeyId") == Some("AKIDFUZZ")
        && params.get("SignatureVersion") == Some("1")
        && matches!(
            (is_time("Timestamp"), is_time("Expires")),
            (Some(true), None) | (None, Some(true))
        )
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
            readings: Some(&Ec2),
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
