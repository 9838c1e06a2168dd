//! The machine's clock, for what keepers write down.
//!
//! A keeper is a process of its own that outlives the server, so no environment
//! can hand it the time.

use std::time::{SystemTime, UNIX_EPOCH};

use cumulet_domain::Timestamp;

#[expect(
    clippy::disallowed_methods,
    reason = "a keeper has nobody who could pass it a clock"
)]
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
