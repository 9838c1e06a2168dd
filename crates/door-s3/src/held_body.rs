//! A body that somebody holds in memory, counted as it arrives.
//!
//! Forms and documents are read whole before it is known whether the caller may
//! do what they ask for, so that a stranger decides how much is held.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use cumulet_wire::held::{Held, Share};
use http_body::{Body, Frame, SizeHint};

use crate::shared_body::{Broken, SharedBody};

/// What one piece costs beside its bytes: a chunked body may come byte by byte.
const PIECE_COST: usize = 256;
/// Of one body so many bytes are not counted, so that small requests are answered while others
/// hold all that is counted.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// What one request holds; kept until it is answered.
#[derive(Clone)]
pub(crate) struct Holding(Arc<Mutex<State>>);

struct State {
    share: Share,
    seen: usize,
    is_refused: bool,
}

impl Holding {
    pub(crate) fn new(held: &Held) -> Self {
        Self(Arc::new(Mutex::new(State {
            share: held.share(),
            seen: 0,
            is_refused: false,
        })))
    }

    /// The body, counted.
    pub(crate) fn count(&self, body: SharedBody) -> HeldBody {
        HeldBody {
            inner: body,
            holding: self.clone(),
        }
    }

    /// Whether the body broke off because others hold all that may be held.
    pub(crate) fn is_refused(&self) -> bool {
        self.state().is_refused
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that breaks off when no more may be held.
pub(crate) struct HeldBody {
    inner: SharedBody,
    holding: Holding,
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let cost = frame.data_ref().map_or(0, Bytes::len) + PIECE_COST;
            let mut state = self.holding.state();
            state.seen += cost;
            if state.seen > UNCOUNTED_BYTES && !state.share.grow(cost) {
                state.is_refused = true;
                let cause = "no more may be held in memory";
                return Poll::Ready(Some(Err(Broken(cause.into()))));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
