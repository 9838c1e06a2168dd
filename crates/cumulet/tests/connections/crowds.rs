//! Too many connections at once: idle ones, and more than the process may have open.

use std::io::Write;
use std::net::TcpStream;

use cumulet_testkit::cloud::wait_until;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Good, PATIENCE, Watched, is_closed};

const CONNECTIONS_MAX: usize = 1_000;
/// What a connection that waits may cost the server: its buffers for a head that has begun.
const IDLE_COST_MAX: usize = 64 * 1024;

/// Thousands that say nothing, or half a word, or that were answered and stay.
#[test]
fn thousands_of_idle_connections_make_room_for_others() {
    let watched = Watched::start(&[
        ("CUMULET_LIMITS_CONNECTIONS", &CONNECTIONS_MAX.to_string()),
        // Nothing here ends by its time.
        ("CUMULET_LIMITS_HEADER_TIMEOUT_MS", "3600000"),
    ]);
    let good = Good::start(&watched);
    good.is_served();
    let peak = watched.memory_peak();
    let mut crowd: Vec<TcpStream> = vec![];
    for number in 0..3 * CONNECTIONS_MAX {
        let mut stream = watched.connect();
        // One that came too late may be closed already.
        let _ = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nx-begun: "),
            _ => stream.write_all(b"GET /_cumulet/health HTTP/1.1\r\nhost: a\r\n\r\n"),
        };
        crowd.push(stream);
        if number % 500 == 0 {
            good.is_served();
        }
    }
    good.is_served();
    let cost = watched.memory_peak() - peak;
    assert!(
        cost < CONNECTIONS_MAX * IDLE_COST_MAX,
        "{CONNECTIONS_MAX} idle connections took {cost} bytes"
    );
    assert!(
        watched.descriptors() > CONNECTIONS_MAX,
        "they were all used"
    );
    // Those that were closed made room; as many as may be there are.
    wait_until("the others are closed", PATIENCE, || {
        crowd.retain_mut(|stream| !is_closed(stream));
        (crowd.len() <= CONNECTIONS_MAX).then_some(())
    });
    good.is_served();
    drop(crowd);
    watched.wait_for_descriptors();
    good.end();
    watched.check();
}

/// The server lives through a time without descriptors, and takes no processor for it.
#[test]
fn the_server_goes_on_when_descriptors_run_out() {
    let watched = Watched::start(&[]);
    let good = Good::start(&watched);
    good.is_served();
    good.allow_shortage(true);
    let before = limit_descriptors(&watched, Some(watched.descriptors() as u64 + 40));
    let mut crowd = vec![];
    for _ in 0..120 {
        crowd.push(watched.connect());
    }
    wait_until("the log says it", PATIENCE, || {
        let log = watched.cloud.log_text();
        log.contains("connections cannot be accepted for now")
            .then_some(())
    });
    drop(crowd);
    limit_descriptors(&watched, before.current);
    good.allow_shortage(false);
    good.end();
    let told = watched.cloud.log_text();
    let told = told.matches("connections cannot be accepted").count();
    assert!(told < 20, "it is told once each time, not {told} times");
    watched.wait_for_descriptors();
    watched.check();
}

fn limit_descriptors(watched: &Watched, current: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(watched.pid()).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current, maximum };
    prlimit(pid, Resource::Nofile, limit).expect("limits of our own child")
}
