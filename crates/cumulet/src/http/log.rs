//! One log line, and one count, per request.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use cumulet_domain::AccountId;
use http::StatusCode;
use metrics::{Counter, Histogram};

use super::Door;

/// What a door tells of a request, as an extension of its response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logged {
    /// The operation, as the protocol names it.
    pub(crate) action: String,
    /// Who asked, once that was proven.
    pub(crate) account: Option<AccountId>,
    /// The error code that was answered.
    pub(crate) code: Option<String>,
    /// What the client was not told.
    pub(crate) log: Option<String>,
}

/// Tells of a request that was answered.
pub(crate) fn request(
    request_id: &str,
    door: Door,
    (status, logged): (StatusCode, &Logged),
    took: Duration,
) {
    let status = status.as_u16();
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    count(door, status, took);
    let account = logged.account.map(|account| account.to_string());
    if let Some(cause) = &logged.log {
        tracing::error!(request_id, cause, "a request failed");
    }
    tracing::info!(
        request_id,
        door = door.name(),
        action = logged.action,
        account = account.as_deref().unwrap_or("-"),
        result = status,
        code = logged.code.as_deref().unwrap_or("-"),
        duration_ms,
        "request"
    );
}

/// Where the requests of a door are counted.
struct Meters {
    door: &'static str,
    /// By the first digit of the status.
    answers: [OnceCell<Counter>; 6],
    seconds: Histogram,
}

fn count(door: Door, status: u16, took: Duration) {
    thread_local! {
        /// Of the doors that this thread has answered for: looking a meter up by its name and
        /// labels costs more than to count.
        static METERS: RefCell<Vec<Meters>> = const { RefCell::new(vec![]) };
    }
    METERS.with_borrow_mut(|all| {
        let name = door.name();
        let found = all.iter().position(|meters| meters.door == name);
        let index = found.unwrap_or_else(|| {
            all.push(Meters {
                door: name,
                answers: Default::default(),
                seconds: metrics::histogram!("cumulet_request_seconds", "door" => name),
            });
            all.len() - 1
        });
        let Some(meters) = all.get(index) else { return };
        let digit = usize::from(status / 100).min(meters.answers.len() - 1);
        let counter = meters.answers[digit].get_or_init(|| {
            metrics::counter!("cumulet_requests_total", "door" => name, "status" => class(status))
        });
        counter.increment(1);
        meters.seconds.record(took.as_secs_f64());
    });
}

fn class(status: u16) -> &'static str {
    match status {
        0..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500.. => "5xx",
    }
}
