//! SOAP clients that are bad, and what they get: faults, which are all that they can read.  And what
//! they all begin with: the WSDL.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use cumulet_testkit::ec2::exchange;

use crate::support::{Watched, connect, say};

const ACTION: &str = "soapaction: \"DescribeImages\"\r\ncontent-type: text/xml; charset=utf-8";

fn get(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: cloud.test:81\r\nconnection: close\r\n\r\n");
    let (status, _, body) = exchange(address, head.as_bytes(), b"").expect("an answer");
    (status, String::from_utf8(body).expect("UTF-8"))
}

/// What was refused is a fault with this code, in an answer that SOAP clients read.
fn assert_fault(answer: &str, code: &str) {
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("content-type: text/xml"), "{answer}");
    let wanted = format!("<SOAP-ENV:Fault><faultcode>{code}</faultcode>");
    assert!(answer.contains(&wanted), "{code}: {answer}");
}

#[test]
fn documents_are_served_to_whoever_asks_by_the_name_that_was_asked_for() {
    let watched = Watched::start(&[]);
    let address = watched.client().address;
    let (status, text) = get(address, "GET", "/doc/2007-03-01/AmazonEC2.wsdl");
    assert_eq!(status, 200);
    assert!(text.contains("<soap:address location=\"http://cloud.test:81/\"/>"));
    assert_eq!(
        get(address, "HEAD", "/doc/2007-03-01/AmazonEC2.wsdl"),
        (200, String::new())
    );
    let (status, text) = get(address, "GET", "/doc/2007-03-02/AmazonEC2.wsdl");
    assert_eq!(status, 404);
    assert!(
        text.contains("2007-01-19, 2007-03-01, 2007-08-29"),
        "{text}"
    );
    watched.check();
}

#[test]
fn what_is_refused_before_it_is_read_is_a_fault() {
    let watched = Watched::start(&[
        ("CUMULET_LIMITS_QUERY_BODY_BYTES", "100000"),
        ("CUMULET_LIMITS_BODY_TIMEOUT_MS", "1500"),
        ("CUMULET_LIMITS_HEADER_BYTES", "8192"),
    ]);
    let address = watched.client().address;
    let send = |head: &str, body: &[u8], ends: bool| {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n");
        say(address, &[head.as_bytes(), body].concat(), ends)
    };
    let large = send(&format!("{ACTION}\r\ncontent-length: 100001"), b"", false);
    assert_fault(&large, "Client.RequestEntityTooLarge");
    assert!(large.contains("is larger than 100000 bytes"), "{large}");
    let slow = send(&format!("{ACTION}\r\ncontent-length: 100"), b"<S:", false);
    assert_fault(&slow, "Client.RequestTimeout");
    let cut = send(&format!("{ACTION}\r\ncontent-length: 100"), b"<S:", true);
    assert_fault(&cut, "Client.MalformedInput");
    let name = "x".repeat(9_000);
    let long = send(
        &format!("{ACTION}\r\nx-long: {name}\r\ncontent-length: 0"),
        b"",
        false,
    );
    assert_fault(&long, "Client.RequestHeaderSectionTooLarge");
    // Another client's refusal has the form that it had.
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 100001";
    let query = send(form, b"", false);
    assert!(query.starts_with("HTTP/1.1 413 "), "{query}");
    assert!(
        query.contains("<Response><Errors><Error><Code>RequestEntityTooLarge"),
        "{query}"
    );
    watched.check();
}

#[test]
fn messages_in_a_form_that_is_not_read_are_told_so() {
    let watched = Watched::start(&[]);
    let address = watched.client().address;
    let send = |path: &str, kind: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nsoapaction: \"\"\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        say(address, &[head.as_bytes(), body].concat(), false)
    };
    let wide: Vec<u8> = "\u{feff}<Envelope/>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (path, kind, body, wanted) in [
        ("/", "text/xml; charset=utf-16", &wide[..], "UTF-16"),
        ("/", "text/xml", &wide[2..], "UTF-16"),
        (
            "/",
            "text/xml; charset=\"UTF-16LE\"",
            b"<Envelope/>",
            "UTF-16",
        ),
        (
            "/",
            "multipart/related; type=\"application/xop+xml\"; boundary=b",
            b"--b",
            "attachments",
        ),
        (
            "/services/Eucalyptus",
            "multipart/related; type=\"text/xml\"; boundary=b",
            b"--b",
            "attachments",
        ),
    ] {
        let answer = send(path, kind, body);
        assert_fault(&answer, "Client.InvalidRequest");
        assert!(answer.contains(wanted), "{kind}: {answer}");
    }
    watched.check();
}

/// HTTP/1.0 clients, and some scripts, close their half when they have asked.
#[test]
fn a_client_that_sends_no_more_gets_its_answer() {
    let watched = Watched::start(&[]);
    let address = watched.client().address;
    for _ in 0..20 {
        let mut stream = connect(address);
        let body = "<Envelope/>";
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{ACTION}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("open so far");
        let mut answer = String::new();
        // The connection is not kept for a client that cannot ask again.
        stream
            .read_to_string(&mut answer)
            .expect("an answer, and the end");
        assert_fault(&answer, "Client.InvalidRequest");
    }
    watched.wait_for_descriptors();
    watched.check();
}
