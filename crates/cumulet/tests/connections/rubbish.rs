//! Bytes that are no request, requests that are too large, and other protocols.

use std::fmt::Write as _;

use crate::support::{BUCKET, Good, Watched, say, signed_head, status_of};

const FORM: &str = "content-type: application/x-www-form-urlencoded";

/// What is sent, and the statuses that may answer it; 0 is a connection closed without a word.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
    /// Words that the answer must have.
    says: &'static str,
}

fn case(
    what: &'static str,
    bytes: impl Into<Vec<u8>>,
    statuses: &'static [u16],
    says: &'static str,
) -> Case {
    Case {
        what,
        bytes: bytes.into(),
        statuses,
        says,
    }
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn heads() -> Vec<Case> {
    let hello = [
        &[
            0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03,
        ][..],
        &[0x5a; 190],
    ]
    .concat();
    let headers = |count: usize| {
        let mut text = String::from("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        for number in 0..count {
            let _ = write!(text, "x-{number}: y\r\n");
        }
        text + "\r\n"
    };
    vec![
        case("nothing", "", &[0], ""),
        case("ends of lines", "\r\n".repeat(50_000), &[0, 400, 431], ""),
        case("zeros", vec![0; 100_000], &[400], ""),
        case("no protocol", "\u{1}\u{2}nonsense\r\n\r\n", &[400], ""),
        case("TLS", hello, &[400], ""),
        case(
            "HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\u{12}\u{4}\0\0\0\0\0",
            &[0, 400, 505],
            "",
        ),
        case("SSH", "SSH-2.0-OpenSSH_9.2\r\n", &[400], ""),
        case(
            "a line without end",
            format!("GET /{}", "a".repeat(300_000)),
            &[414, 431],
            "",
        ),
        case(
            "a header without end",
            format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(300_000)),
            &[431],
            "",
        ),
        case("many headers", headers(5_000), &[431], ""),
        // More than the limit, and less than what is read before anybody looks.
        case(
            "a header that is too long",
            format!(
                "GET /_cumulet/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n",
                "a".repeat(70_000)
            ),
            &[431],
            "",
        ),
        case("a few headers", headers(40), &[200, 403], ""),
        case(
            "bad UTF-8 in a header",
            b"GET /_cumulet/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: \xff\xfe\r\n\r\n"
                .to_vec(),
            &[200],
            "ok",
        ),
        case(
            "bad UTF-8 in the path",
            b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(),
            &[400],
            "",
        ),
        case(
            "bad UTF-8 in the host",
            b"GET / HTTP/1.1\r\nhost: \xff\xfe\r\nconnection: close\r\n\r\n".to_vec(),
            &[200, 400, 403],
            "",
        ),
        case(
            "a bad escape in the path",
            "GET /a%zz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            &[400, 404],
            "",
        ),
        case(
            "two lengths",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            &[400],
            "",
        ),
        case(
            "a length and chunks",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400],
            "",
        ),
        case(
            "a negative length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
            &[400],
            "",
        ),
        case(
            "a length beyond all numbers",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            &[400],
            "",
        ),
        case(
            "a bad chunk",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            ),
            &[400],
            "MalformedInput",
        ),
        case(
            "a chunk beyond all numbers",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\na"
            ),
            &[400],
            "",
        ),
        case(
            "a chunk's extension without end",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\n1;{}",
                "e".repeat(300_000)
            ),
            &[400],
            "",
        ),
        case(
            "CONNECT",
            "CONNECT a:1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            &[400, 403, 405, 501],
            "",
        ),
        case(
            "a method of its own",
            "RUBBISH / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            &[400, 403, 405, 501],
            "",
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let parameters = |count: usize| {
        let mut text = String::from("Action=DescribeInstances&Version=2016-11-15");
        for number in 0..count {
            let _ = write!(text, "&p{number}=1");
        }
        text
    };
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("10000\r\n{}\r\n", "a".repeat(0x10000)).repeat(20)
    );
    vec![
        case(
            "a large body, announced",
            post(FORM, &vec![b'a'; 2_000_000]),
            &[0, 413],
            "",
        ),
        case("a large body, in chunks", chunked, &[0, 413], ""),
        case(
            "bad UTF-8 in the form",
            post(FORM, b"Action=\xff\xfe&Version=2016-11-15"),
            &[400],
            "<Code>",
        ),
        case(
            "a bad escape in the form",
            post(FORM, b"Action=%zz"),
            &[400],
            "<Code>",
        ),
        case(
            "no form at all",
            post("content-type: application/json", b"{}"),
            &[400, 403],
            "<Code>",
        ),
        case(
            "no type at all",
            post("x: y", b"\0\x01\x02"),
            &[400, 403],
            "<Code>",
        ),
        case(
            "an image",
            post("content-type: image/png", &[0x89; 5000]),
            &[400, 403],
            "<Code>",
        ),
        case(
            "many parameters",
            post(FORM, parameters(20_000).as_bytes()),
            &[400],
            "<Code>",
        ),
        case(
            "a long name",
            post(
                FORM,
                format!("Action=A&{}=1", "n".repeat(100_000)).as_bytes(),
            ),
            &[400],
            "<Code>",
        ),
        case(
            "a long value",
            post(FORM, format!("Action={}", "n".repeat(900_000)).as_bytes()),
            &[400],
            "<Code>",
        ),
        case(
            "an unsigned call",
            post(FORM, b"Action=DescribeInstances&Version=2016-11-15"),
            &[401, 403, 400],
            "<Code>",
        ),
    ]
}

fn objects(watched: &Watched) -> Vec<Case> {
    let client = watched.client();
    let path = format!("/{BUCKET}/rubbish");
    let body = vec![b'a'; 50_000];
    let put = |framing: &str, sent: &[u8]| {
        let framing = format!("connection: close\r\n{framing}");
        let head = signed_head(&client, "s3", ("PUT", &path), &body, &framing);
        [head.as_bytes(), sent].concat()
    };
    let form = |length: usize, sent: &[u8]| {
        let head = format!(
            "POST /{BUCKET} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), sent].concat()
    };
    let document = |text: &str| {
        let head = format!(
            "PUT /{BUCKET}?acl HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        (head + text).into_bytes()
    };
    vec![
        case(
            "fewer bytes than announced",
            put("content-length: 50000", &body[..49_000]),
            &[0, 400],
            "",
        ),
        case(
            "other bytes than signed",
            put("content-length: 50000", &vec![b'b'; 50_000]),
            &[400],
            "XAmzContentSHA256Mismatch",
        ),
        case(
            "more bytes than fit",
            put("content-length: 6000000000000", b"a"),
            &[0, 400, 411],
            "",
        ),
        case(
            "chunks without end",
            put("transfer-encoding: chunked", b"3e8\r\naaa"),
            &[0, 400, 411],
            "",
        ),
        case(
            "bytes behind the body",
            put("content-length: 9", &body),
            &[400],
            "",
        ),
        case(
            "a form without end",
            form(
                90_000,
                b"--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk",
            ),
            &[0, 400, 403],
            "",
        ),
        case(
            "a form that is none",
            form(9, b"rubbish! "),
            &[400, 403],
            "<Code>",
        ),
        case(
            "a form too large",
            form(200_000_000, &[b'a'; 100]),
            &[0, 400, 403],
            "",
        ),
        case(
            "a form with too many fields",
            form(
                3_000_000,
                "--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\nv\r\n"
                    .repeat(55_000)
                    .as_bytes(),
            ),
            &[0, 400, 403],
            "",
        ),
        case(
            "a document too large",
            document(&" ".repeat(3 << 20)),
            &[400],
            "MaxMessageLengthExceeded",
        ),
        case(
            "a document that is none",
            document("\u{0}<<<"),
            &[400, 403],
            "<Code>",
        ),
        case(
            "a document of definitions",
            document("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"),
            &[400, 403],
            "<Code>",
        ),
    ]
}

#[test]
fn rubbish_is_refused_and_changes_nothing() {
    let watched = Watched::start(&[("CUMULET_LIMITS_HEADER_TIMEOUT_MS", "5000")]);
    let good = Good::start(&watched);
    let address = watched.cloud.address();
    for case in heads().into_iter().chain(bodies()).chain(objects(&watched)) {
        // What is never whole ends with the client's half.  A whole request must not be ended so:
        // the server takes that for a client that is gone, and does not answer.
        let answer = say(address, &case.bytes, case.statuses.contains(&0));
        let status = status_of(&answer);
        let begin: String = answer.chars().take(600).collect();
        // A refusal whose request was not read to its end may be lost with the connection.
        let is_lost = answer.is_empty() && case.bytes.len() > 60_000;
        assert!(
            is_lost || (case.statuses.contains(&status) && answer.contains(case.says)),
            "{}: {status}: {begin}",
            case.what
        );
    }
    good.end();
    watched.wait_for_descriptors();
    watched.check();
}

/// Good requests with rubbish behind them on the same connection: each is answered, the rubbish
/// ends it.
#[test]
fn pipelined_rubbish_does_not_reach_the_next_request() {
    let watched = Watched::start(&[]);
    let good = Good::start(&watched);
    let health = "GET /_cumulet/health HTTP/1.1\r\nhost: a\r\n\r\n";
    for rubbish in [
        "\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let bytes = format!("{}{rubbish}{health}", health.repeat(3));
        let answer = say(watched.cloud.address(), bytes.as_bytes(), true);
        assert_eq!(
            answer.matches("HTTP/1.1 200 OK").count(),
            3,
            "{rubbish:?}: {answer}"
        );
        assert!(
            answer.matches("HTTP/1.1 400").count() <= 1,
            "{rubbish:?}: {answer}"
        );
    }
    // A request in the body of another one stays there.
    let client = watched.client();
    let inner = "POST / HTTP/1.1\r\nhost: a\r\n\r\n";
    let path = format!("/{BUCKET}/object");
    let length = format!("content-length: {}", inner.len());
    let head = signed_head(&client, "s3", ("GET", &path), inner.as_bytes(), &length);
    let bytes = format!("{head}{inner}{health}");
    let answer = say(watched.cloud.address(), bytes.as_bytes(), true);
    assert!(answer.matches("HTTP/1.1").count() <= 2, "{answer}");
    good.end();
    watched.check();
}
