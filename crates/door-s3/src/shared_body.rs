//! A request's body that can be taken back.
//!
//! A client that sends its body before it reads the answer sees a reset
//! connection instead of a refusal, when the rest of the body is not read.  The
//! library drops bodies; through this the wall keeps hold of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::BodyError;

/// Bytes that are read and forgotten after a refusal, and for how long.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("the body could not be read")]
pub(crate) struct Broken(#[source] pub(crate) BodyError);

#[derive(Clone)]
pub(crate) struct SharedBody(Arc<Mutex<UnsyncBoxBody<Bytes, Broken>>>);

impl SharedBody {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let body = body.map_err(|cause| Broken(cause.into()));
        Self(Arc::new(Mutex::new(body.boxed_unsync())))
    }

    /// Reads what is left, within limits.
    pub(crate) async fn drain(mut self) {
        let work = async {
            let mut read = 0;
            while let Some(Ok(frame)) = self.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > DRAIN_BYTES_MAX {
                    break;
                }
            }
        };
        // Whatever is left then, the connection ends.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, work).await;
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}
