//! One log line, and one count, per request.

use std::time::Duration;

use cumulet_domain::AccountId;
use http::Response;

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
pub(crate) fn request<B>(request_id: &str, door: Door, response: &Response<B>, took: Duration) {
    let logged = response
        .extensions()
        .get::<Logged>()
        .cloned()
        .unwrap_or_default();
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    metrics::counter!("cumulet_requests_total", "door" => door.name(), "status" => class(status))
        .increment(1);
    metrics::histogram!("cumulet_request_seconds", "door" => door.name())
        .record(took.as_secs_f64());
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

fn class(status: u16) -> &'static str {
    match status {
        0..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500.. => "5xx",
    }
}
