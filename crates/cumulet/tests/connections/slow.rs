//! Clients that take their time: with heads, with bodies, with answers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cumulet_testkit::cloud::wait_until;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

use crate::support::{BUCKET, Good, PATIENCE, Watched, is_closed, s3, signed_head, status_of};

/// Short, so that the test is; the real ones are tens of seconds.
const LIMITS: &[(&str, &str)] = &[
    ("CUMULET_LIMITS_HEADER_TIMEOUT_MS", "1500"),
    ("CUMULET_LIMITS_BODY_TIMEOUT_MS", "1500"),
    ("CUMULET_LIMITS_ANSWER_TIMEOUT_MS", "1500"),
];
const EACH: usize = 8;

/// Sends a byte now and then until the server has had enough; gives what it said.
fn trickle(mut stream: TcpStream, begin: &str, then: &[u8]) -> String {
    stream.write_all(begin.as_bytes()).expect("the beginning");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("a second handle");
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) && writer.write_all(then).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut answer = vec![];
        let mut piece = [0; 4096];
        while let Ok(size @ 1..) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..size]);
        }
        over.store(true, Ordering::Relaxed);
        let _ = stream.shutdown(Shutdown::Both);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

#[test]
fn slow_clients_are_ended_and_hinder_nobody() {
    let watched = Watched::start(LIMITS);
    let good = Good::start(&watched);
    let client = watched.client();
    let query = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let body = vec![b'a'; 10_000];
    let path = format!("/{BUCKET}/never");
    let length = format!("content-length: {}", body.len());
    let put = signed_head(&client, "s3", ("PUT", &path), &body, &length);
    let form = format!(
        "POST /{BUCKET} HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    );
    let document = format!("PUT /{BUCKET}?acl HTTP/1.1\r\nhost: a\r\ncontent-length: 9999\r\n\r\n");
    // What is begun, what then drips, and what may be answered in the end.
    let cases: Vec<(&str, String, &[u8], &[u16])> = vec![
        ("nothing", String::new(), b"", &[0, 408]),
        ("a request line", "GET /".into(), b"a", &[0, 408]),
        ("a head", format!("{query}x-slow: "), b"a", &[0, 408]),
        ("many headers", query.into(), b"a:b\r\n", &[0, 408, 431]),
        (
            "a body",
            format!("{query}content-length: 9999\r\n\r\n"),
            b"a",
            &[408],
        ),
        (
            "chunks",
            format!("{query}transfer-encoding: chunked\r\n\r\n"),
            b"1\r\na\r\n",
            &[408],
        ),
        ("an object", put, b"a", &[400]),
        (
            "a form",
            format!("{form}content-length: 9999\r\n\r\n--b\r\n"),
            b"a",
            &[400],
        ),
        ("a document", document, b"a", &[400, 403]),
    ];
    std::thread::scope(|scope| {
        let cases = &cases;
        let watched = &watched;
        let threads: Vec<_> = cases
            .iter()
            .flat_map(|case| (0..EACH).map(move |_| case))
            .map(|(what, begin, then, statuses)| {
                scope.spawn(move || {
                    let answer = trickle(watched.connect(), begin, then);
                    let status = status_of(&answer);
                    assert!(statuses.contains(&status), "{what}: {status}: {answer}");
                })
            })
            .collect();
        good.is_served();
        for thread in threads {
            thread.join().expect("each slow client ends as it must");
        }
    });
    good.end();
    watched.wait_for_descriptors();
    watched.check();
}

/// A connection that takes in next to nothing.
pub(crate) fn narrow(watched: &Watched) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 2048).unwrap();
    rustix::net::connect(&socket, &watched.cloud.address()).unwrap();
    TcpStream::from(socket)
}

#[test]
fn clients_that_do_not_take_their_answers_are_ended() {
    const OBJECT: usize = 12 << 20;
    let watched = Watched::start(LIMITS);
    let client = watched.client();
    let path = format!("/{BUCKET}/large");
    assert_eq!(s3(&client, "PUT", &path, &vec![7; OBJECT]).0, 200);
    let good = Good::start(&watched);
    let describe = b"Action=DescribeKeyPairs&Version=2016-11-15";
    let length = format!("content-length: {}", describe.len());
    let mut held = vec![];
    for number in 0..2 * EACH {
        let mut stream = narrow(&watched);
        if number % 2 == 0 {
            let get = signed_head(&client, "s3", ("GET", &path), b"", "accept: a/b");
            stream.write_all(get.as_bytes()).unwrap();
        } else {
            // Pipelined calls, until the server reads no more of them.
            let mut call = signed_head(&client, "ec2", ("POST", "/"), describe, &length);
            call.push_str(std::str::from_utf8(describe).unwrap());
            stream
                .set_write_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            while stream.write_all(call.as_bytes()).is_ok() {}
        }
        held.push(stream);
    }
    good.is_served();
    // None of them closes: the server does, in its time.
    watched.wait_for_descriptors();
    drop(held);
    good.end();
    assert_eq!(s3(&client, "GET", &path, b"").1.len(), OBJECT);
    assert_eq!(s3(&client, "DELETE", &path, b"").0, 204);
    watched.check();
}

/// All places taken by clients that drip their bodies: whoever has not proven who it is makes room.
#[test]
fn slow_bodies_do_not_keep_the_places() {
    let watched = Watched::start(&[
        ("CUMULET_LIMITS_CONNECTIONS", "40"),
        ("CUMULET_LIMITS_BODY_TIMEOUT_MS", "3600000"),
    ]);
    let mut held = vec![];
    for _ in 0..40 {
        let mut stream = watched.connect();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 999\r\n\r\nA";
        stream.write_all(head.as_bytes()).unwrap();
        held.push(stream);
    }
    let good = Good::start(&watched);
    good.end();
    wait_until("one of them was closed", PATIENCE, || {
        held.iter_mut().any(is_closed).then_some(())
    });
    drop(held);
    watched.wait_for_descriptors();
    watched.check();
}
