//! Clients that have the server hold as much as it will: forms, documents, parameters, answers.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use cumulet_testkit::cloud::wait_until;

use crate::support::{BUCKET, Good, PATIENCE, Watched, say, signed_head, status_of};

const CONNECTIONS_MAX: usize = 200;
const HELD_MAX: usize = 8 << 20;
/// Of each connection: buffers of the head and of pieces, and what is not counted of a body.
const CONNECTION_COST_MAX: usize = 384 * 1024;
/// Threads, the allocator's reserves, and what the client that behaves needs.
const REST_MAX: usize = 32 << 20;

fn start() -> Watched {
    Watched::start(&[
        ("CUMULET_LIMITS_CONNECTIONS", &CONNECTIONS_MAX.to_string()),
        ("CUMULET_LIMITS_HELD_BYTES", &HELD_MAX.to_string()),
        ("CUMULET_LIMITS_INSTANCES_PER_ACCOUNT", "2000"),
    ])
}

/// What so many clients may cost, whatever they send: growing buffers may be twice what is in them.
fn bound(clients: usize) -> usize {
    2 * HELD_MAX + clients * CONNECTION_COST_MAX + REST_MAX
}

/// Many clients each send most of a large body and stop; all of it would be far more than may be
/// held.
fn fill(head: &str, piece: &[u8], pieces: usize, cost_of_piece: usize) {
    const CLIENTS: usize = 60;
    let watched = start();
    let good = Good::start(&watched);
    good.is_served();
    let peak = watched.memory_peak();
    let (tell, told) = mpsc::channel::<Option<TcpStream>>();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (tell, watched) = (tell.clone(), &watched);
            scope.spawn(move || {
                let mut stream = watched.connect();
                // A server that may hold no more refuses, and reads on only for a while.
                stream
                    .set_write_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                let mut is_whole = stream.write_all(head.as_bytes()).is_ok();
                for _ in 0..pieces {
                    is_whole = is_whole && stream.write_all(piece).is_ok();
                }
                tell.send(is_whole.then_some(stream)).expect("heard");
            });
        }
    });
    drop(tell);
    let held: Vec<TcpStream> = told.iter().flatten().collect();
    good.is_served();
    let cost = watched.memory_peak() - peak;
    let bound = bound(CLIENTS);
    println!("{cost} bytes of {bound}");
    assert!(cost < bound, "{cost} bytes, {bound} are allowed");
    let all = CLIENTS * pieces * cost_of_piece;
    assert!(all > bound, "holding all would cost {all} only");
    drop(held);
    good.end();
    watched.wait_for_descriptors();
    watched.check();
    // Everything is given back: a large form is read again, and refused for what it is.
    let form = vec![b'a'; HELD_MAX / 2];
    let head = format!(
        "POST /{BUCKET} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    let answer = say(
        watched.cloud.address(),
        &[head.as_bytes(), &form].concat(),
        true,
    );
    assert!(status_of(&answer) != 503, "{answer}");
    watched.check();
}

#[test]
fn forms_of_strangers_are_not_held_without_end() {
    let head = format!(
        "POST /{BUCKET} HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 60000000\r\n\r\n\
         --b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n"
    );
    fill(&head, &[b'a'; 1 << 20], 8, 1 << 20);
}

#[test]
fn chunks_of_one_byte_cost_little() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n";
    // Kept as it comes, each chunk has a handle of 32 bytes beside its six on the wire.
    fill(head, "1\r\na\r\n".repeat(20_000).as_bytes(), 2, 20_000 * 38);
}

/// A page that nobody takes, many times: some are refused, and the next good client is served.
#[test]
fn answers_that_nobody_takes_are_not_held_without_end() {
    const LAUNCHES: usize = 10;
    const EACH: &str = "80";
    const CLIENTS: usize = 60;
    let watched = start();
    let image = watched.cloud.scratch().join("image");
    std::fs::write(&image, vec![7; 100_000]).unwrap();
    let path = image.to_str().unwrap();
    watched
        .cloud
        .run(&["image", "import", path, "--name", "an-image"]);
    let client = watched.client();
    let images = client.call("DescribeImages", &[]).unwrap();
    let image = images.text("imagesSet/item/imageId");
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", EACH),
        ("MaxCount", EACH),
    ];
    for _ in 0..LAUNCHES {
        client.call("RunInstances", &run).unwrap();
    }
    let page = || client.call("DescribeInstances", &[]);
    let count = page().unwrap();
    let count = count.at("reservationSet/item/instancesSet/item").len();
    assert_eq!(count, LAUNCHES * 80);
    let good = Good::start(&watched);
    good.is_served();
    let peak = watched.memory_peak();
    let describe = b"Action=DescribeInstances&Version=2016-11-15";
    let length = format!("content-length: {}", describe.len());
    let mut held = vec![];
    for _ in 0..CLIENTS {
        let mut stream = crate::slow::narrow(&watched);
        let mut call = signed_head(&client, "ec2", ("POST", "/"), describe, &length);
        call.push_str(std::str::from_utf8(describe).unwrap());
        stream.write_all(call.repeat(5).as_bytes()).unwrap();
        held.push(stream);
    }
    wait_until("a page is refused", PATIENCE, || {
        let refused = page().err()?;
        assert_eq!(refused.code(), "Unavailable");
        Some(())
    });
    good.is_served();
    let cost = watched.memory_peak() - peak;
    // An answer is written in text that grows, on every thread of the server at once.
    let bound = bound(CLIENTS) + 32 * (4 << 20);
    println!("{cost} bytes of {bound}");
    assert!(cost < bound, "{cost} bytes, {bound} are allowed");
    drop(held);
    wait_until("a page is answered again", PATIENCE, || page().ok());
    good.end();
    let log = watched.cloud.log_text();
    assert!(!log.contains("panicked"), "{log}");
}
