//! A connection whose client takes its answers at a pace.
//!
//! An answer is held in memory until the client has taken it, and its
//! connection has a place; a client that takes a byte now and then would keep
//! both for as long as it likes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connections::Handle;

/// Bytes that must move in each stretch of time, of an answer or of a body.
pub(crate) const PACE_BYTES_MIN: usize = 16 * 1024;

/// A stream that breaks off when its client does not take what is written.
pub(crate) struct Paced<S> {
    inner: S,
    patience: Duration,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that were taken since the timer was set.
    moved: usize,
    place: Handle,
}

impl<S> Paced<S> {
    pub(crate) fn new(inner: S, patience: Duration, place: Handle) -> Self {
        Self {
            inner,
            patience,
            timer: None,
            moved: 0,
            place,
        }
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = done {
            self.moved += *done.as_ref().unwrap_or(&0);
            return Poll::Ready(done);
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| {
            self.moved = 0;
            Box::pin(tokio::time::sleep(patience))
        });
        while timer.as_mut().poll(cx).is_ready() {
            if self.moved < PACE_BYTES_MIN {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.moved = 0;
            timer.as_mut().reset(Instant::now() + patience);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// Comes only after everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.timer = None;
            self.place.is_sent();
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::http::Connections;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn pair(room: usize) -> (Paced<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(room);
        let place = Connections::new(1).place(None).await.expect("a place");
        (Paced::new(ours, PATIENCE, place.handle()), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_byte_now_and_then_is_cut() {
        let (mut ours, mut theirs) = pair(1024).await;
        let reader = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        });
        let written = ours.write_all(&[7; 100_000]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_the_pace_gets_everything() {
        let (mut ours, mut theirs) = pair(1024).await;
        let bytes = 10 * PACE_BYTES_MIN;
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; PACE_BYTES_MIN];
            for _ in 0..10 {
                theirs.read_exact(&mut buffer).await.unwrap();
                tokio::time::sleep(PATIENCE / 2).await;
            }
        });
        ours.write_all(&vec![7; bytes]).await.unwrap();
        ours.flush().await.unwrap();
        reader.await.unwrap();
        // Rest between answers is not slowness.
        assert!(ours.timer.is_none());
    }
}
