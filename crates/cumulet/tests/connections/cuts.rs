//! Connections that break off at any byte of head, body and answer.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::support::{BUCKET, Good, Watched, now, s3, signed_head};

const CUTS: u64 = 150;
const LOST: u64 = 40;

/// A small generator: a seed gives the same cuts again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("small")
    }
}

fn seed() -> u64 {
    let set = std::env::var("TEST_SEED").ok();
    let seed = set.and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| now().0.unsigned_abs());
    println!("TEST_SEED={seed}");
    seed
}

#[test]
fn what_was_not_sent_whole_changes_nothing() {
    let watched = Watched::start(&[]);
    let good = Good::start(&watched);
    let client = watched.client();
    let mut random = Random(seed());
    let large = vec![b'x'; 300_000];
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nformed\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"\r\n\r\n{}\r\n--b--\r\n",
        "y".repeat(5000)
    );
    for cut in 0..CUTS {
        let call = format!("Action=CreateKeyPair&Version=2016-11-15&KeyName=cut-{cut}");
        let path = format!("/{BUCKET}/cut-{cut}");
        let request = match cut % 4 {
            0 => whole(&client, "ec2", "POST", "/", call.as_bytes()),
            1 => whole(&client, "s3", "PUT", &path, &large),
            2 => whole(&client, "s3", "PUT", &format!("/cut-bucket-{cut}"), b" "),
            _ => {
                let head = format!(
                    "POST /{BUCKET} HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n",
                    form.len()
                );
                [head.as_bytes(), form.as_bytes()].concat()
            }
        };
        let sent = random.below(request.len() - 1);
        let mut stream = watched.connect();
        stream
            .write_all(&request[..sent])
            .expect("the server reads");
        match random.below(3) {
            // Gone at once; gone politely; gone after a look at the answer.
            0 => {}
            1 => drop(stream.shutdown(Shutdown::Both)),
            _ => {
                stream.shutdown(Shutdown::Write).expect("open so far");
                let mut answer = vec![];
                let _ = stream.read_to_end(&mut answer);
                let answer = String::from_utf8_lossy(&answer);
                let is_good = answer.lines().any(|line| line.starts_with("HTTP/1.1 2"));
                assert!(!is_good, "{sent} of {} bytes: {answer}", request.len());
            }
        }
    }
    good.end();
    watched.wait_for_descriptors();
    watched.check();
}

fn whole(
    client: &cumulet_testkit::ec2::Ec2,
    service: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Vec<u8> {
    let length = format!("content-length: {}", body.len());
    let head = signed_head(client, service, (method, path), body, &length);
    [head.as_bytes(), body].concat()
}

/// A request that was sent whole is carried out whole, or not at all, whoever waits for the answer.
#[test]
fn a_lost_answer_loses_nothing() {
    let watched = Watched::start(&[]);
    let client = watched.client();
    let mut random = Random(seed());
    let object = format!("/{BUCKET}/large");
    let body: Vec<u8> = (0..3_000_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    assert_eq!(s3(&client, "PUT", &object, &body).0, 200);
    let mut made_again = 0;
    for cut in 0..LOST {
        let name = format!("lost-{cut}");
        let call = format!("Action=CreateKeyPair&Version=2016-11-15&KeyName={name}");
        let mut stream = watched.connect();
        let request = whole(&client, "ec2", "POST", "/", call.as_bytes());
        stream.write_all(&request).expect("the server reads");
        let mut some = vec![0; 1 + random.below(200)];
        if random.below(2) == 0 {
            let _ = stream.read(&mut some);
        }
        drop(stream);
        // Asked again, it is made or was made: there is one.
        match client.call("CreateKeyPair", &[("KeyName", &name)]) {
            Ok(_) => made_again += 1,
            Err(cause) => assert_eq!(cause.code(), "InvalidKeyPair.Duplicate"),
        }
        let found = client.call("DescribeKeyPairs", &[("KeyName.1", &name)]);
        assert_eq!(found.unwrap().texts("keySet/item/keyName"), [name.as_str()]);

        let mut stream = watched.connect();
        let request = whole(&client, "s3", "GET", &object, b"");
        stream.write_all(&request).expect("the server reads");
        let mut some = vec![0; 1 + random.below(100_000)];
        let _ = stream.read_exact(&mut some);
    }
    assert_eq!(s3(&client, "GET", &object, b"").1, body);
    assert_eq!(s3(&client, "DELETE", &object, b"").0, 204);
    watched.wait_for_descriptors();
    println!("{made_again} of {LOST} were not carried out before");
    for cut in 0..LOST {
        let name = format!("lost-{cut}");
        client
            .call("DeleteKeyPair", &[("KeyName", &name)])
            .expect("it is deleted");
    }
    watched.check();
}

/// A client may end its half of the connection when it has asked: the answer is on its way all the
/// same, and then the connection ends.
#[test]
fn a_half_that_is_closed_takes_no_answer_away() {
    let watched = Watched::start(&[]);
    let client = watched.client();
    let object = format!("/{BUCKET}/large");
    let body: Vec<u8> = (0..1_000_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    assert_eq!(s3(&client, "PUT", &object, &body).0, 200);
    let ask = |request: &[u8]| {
        let mut stream = watched.connect();
        stream.write_all(request).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("open so far");
        let mut answer = vec![];
        stream.read_to_end(&mut answer).expect("the end");
        answer
    };
    for round in 0..20 {
        let call = format!("Action=CreateKeyPair&Version=2016-11-15&KeyName=half-{round}");
        let answer = ask(&whole(&client, "ec2", "POST", "/", call.as_bytes()));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("<keyMaterial>"), "round {round}: {answer}");
        let name = format!("half-{round}");
        client
            .call("DeleteKeyPair", &[("KeyName", &name)])
            .expect("it is deleted");
        let answer = ask(&whole(&client, "s3", "GET", &object, b""));
        assert!(
            answer.ends_with(&body),
            "round {round}: {} bytes",
            answer.len()
        );
    }
    // A half that closes in the middle of a head asks for nothing, and is not waited for.
    let cut = ask(b"GET / HTTP/1.1\r\nhost: a\r\n");
    assert!(
        cut.is_empty() || cut.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&cut)
    );
    assert_eq!(s3(&client, "DELETE", &object, b"").0, 204);
    watched.wait_for_descriptors();
    watched.check();
}
