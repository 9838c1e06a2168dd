//! Signatures: bytes in, identity out.
//!
//! Doors hand in what arrived, raw, and get a [`Principal`] or an
//! [`AuthError`].  Nothing here knows an operation or reads a clock; keys are
//! looked up through [`Keys`].  Start reading at [`verify_query`].
//!
//! Also here, since they are about the same keys: making of access keys, key
//! pairs and certificates ([`keys`], [`certificates`], [`public_keys`]) and
//! sealing of secrets ([`seal`]).

pub mod certificates;
pub mod der;
mod error;
pub mod keys;
pub mod public_keys;
mod query;
pub mod s3;
pub mod seal;
pub mod sign;
mod v1;
mod v2;
mod v4;
pub mod wss;

use std::collections::BTreeSet;

use cumulet_domain::{AccountId, Timestamp};
use zeroize::Zeroizing;

pub use error::{AuthError, Profile, Refusal};
pub use query::{QueryPolicy, Readings, Verified, scope_service, verify_query};

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub account: AccountId,
    pub user: String,
    pub access_key_id: String,
}

/// A key as it is needed to check a signature.
pub struct Key {
    pub secret: Zeroizing<String>,
    /// Which of the signature versions 0, 1, 2 and 4 this key may be used with.
    pub versions: BTreeSet<u8>,
    pub principal: Principal,
}

/// Where keys are found.
pub trait Keys: Send + Sync + 'static {
    fn find(&self, access_key_id: &str) -> Option<Key>;
}

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a http::Method,
    /// Path as it stood on the request line, still encoded.
    pub raw_path: &'a str,
    /// Query as it stood on the request line, without the question mark.
    pub raw_query: Option<&'a str>,
    pub headers: &'a http::HeaderMap,
    /// `Host` header, or the authority of HTTP/2.
    pub host: &'a str,
    pub body: &'a [u8],
    pub now: Timestamp,
}

/// How far a signing time may be from ours, either way.
pub const SKEW_MS: i64 = 15 * 60 * 1000;

/// Longest validity of a presigned request, in seconds: seven days.
pub const PRESIGN_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Constant-time comparison of a signature that we computed with one that we were given.
fn is_same(computed: &[u8], given: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(computed, given).is_ok()
}
