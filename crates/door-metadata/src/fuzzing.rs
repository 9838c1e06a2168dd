//! The protocol as a function, for the fuzz target and nobody else.

use bytes::Bytes;
use cumulet_domain::Timestamp;
use http::{HeaderMap, Method, Response};

use crate::answer::{self, Asked};
use crate::{Facts, TokenKey};

/// What the instance with these facts is answered.
pub fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    facts: &Facts,
    key: &TokenKey,
    now: Timestamp,
) -> Response<Bytes> {
    let asked = Asked {
        method,
        path,
        headers,
    };
    answer::answer(&asked, facts, key, now).response
}
