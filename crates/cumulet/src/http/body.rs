//! The one type of body that answers have.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// A body may break off while it is sent; the connection then ends.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes in memory or a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is in memory.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
