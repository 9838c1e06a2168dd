//! What an operator lives through: backups and restores, full and read-only disks.

mod backup;
mod disks;
mod formats;
mod service;
mod surprises;

use cumulet_auth::sign::{self, Signer, Unsigned};
use cumulet_domain::Timestamp;
use cumulet_testkit::cloud::Cloud;
use cumulet_testkit::ec2::{Ec2, exchange};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cumulet");
const SIMULATED: &[(&str, &str)] = &[("CUMULET_COMPUTE", "simulated")];

/// What a command that must fail says.
fn refusal(cloud: &Cloud, arguments: &[&str]) -> String {
    let output = cloud.output(arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature needs the time of the real server"
)]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since.unwrap().as_millis()).unwrap())
}

/// One signed S3 request: status and body.
fn s3(client: &Ec2, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let host = client.address.to_string();
    let request = Unsigned {
        method,
        host: &host,
        raw_path: path,
        raw_query: None,
        body,
        now: now(),
    };
    let signer = Signer {
        access_key_id: &client.access_key_id,
        secret: &client.secret,
        region: &client.region,
        service: "s3",
    };
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in sign::v4_headers(&signer, &request, &http::HeaderMap::new()).unwrap() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let (status, _, answer) = exchange(client.address, head.as_bytes(), body).unwrap();
    (status, answer)
}

fn key_pairs(client: &Ec2) -> Vec<String> {
    let answer = client.call("DescribeKeyPairs", &[]).unwrap();
    answer.texts("keySet/item/keyName")
}
