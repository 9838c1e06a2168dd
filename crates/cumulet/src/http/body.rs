//! Bodies: the one type that answers have, and requests' bodies that may not
//! stand still.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::connections::Answering;
use super::paced::PACE_BYTES_MIN;

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

/// An answer's body that tells, by its end, when all of it has been handed over.
pub(crate) struct Sent {
    inner: Body,
    _answering: Answering,
}

impl Sent {
    pub(crate) fn new(inner: Body, answering: Answering) -> Self {
        Self {
            inner,
            _answering: answering,
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that breaks off when too little of it arrives in a stretch of time.
pub(crate) struct Timed<B = Incoming> {
    inner: B,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    /// Bytes that arrived since the timer was set.
    moved: usize,
    /// Whether it was the client that was waited for last, and not whoever reads the body.
    is_waiting: bool,
}

impl<B> Timed<B> {
    pub(crate) fn new(inner: B, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            timer: Box::pin(tokio::time::sleep(patience)),
            moved: 0,
            is_waiting: false,
        }
    }
}

impl<B> http_body::Body for Timed<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        // Time in which nobody read is not the client's: a slow disk must not end an upload.
        let was_waiting = std::mem::replace(&mut self.is_waiting, polled.is_pending());
        let now = Instant::now();
        let is_ours = !was_waiting && self.timer.deadline() <= now;
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.moved += frame.data_ref().map_or(0, Bytes::len);
        }
        if is_ours || self.moved >= PACE_BYTES_MIN {
            self.moved = 0;
            let until = now + self.patience;
            self.timer.as_mut().reset(until);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(cause))) => Poll::Ready(Some(Err(cause.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.timer.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err("the body did not arrive in time".into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::StreamBody;

    use super::*;

    async fn read(bytes_each: usize, pause: Duration, count: usize) -> Result<usize, BodyError> {
        let frames = futures::stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![7; bytes_each])))
        });
        let body = StreamBody::new(Box::pin(frames));
        let whole = Timed::new(body, Duration::from_secs(60)).collect().await?;
        Ok(whole.to_bytes().len())
    }

    /// Whoever reads takes longer than the client may.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_end_a_body() {
        let pieces = futures::stream::iter(0..10).then(|_| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"a few bytes")))
        });
        let inner = StreamBody::new(Box::pin(pieces));
        let mut body = Timed::new(inner, Duration::from_secs(60));
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            count += 1;
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        assert_eq!(count, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_keeps_the_pace_or_is_cut() {
        let pause = Duration::from_secs(50);
        let steady = read(PACE_BYTES_MIN, pause, 20).await.unwrap();
        assert_eq!(steady, 20 * PACE_BYTES_MIN);
        assert!(read(1, pause, 20).await.is_err(), "a byte now and then");
        let stop = read(PACE_BYTES_MIN, Duration::from_secs(61), 2).await;
        assert!(stop.is_err(), "nothing at all");
    }
}
