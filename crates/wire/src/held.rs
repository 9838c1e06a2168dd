//! Bytes of requests and answers that are held in memory, counted over all
//! connections.
//!
//! Each request has limits of its own, but a thousand of them together would
//! still be more than a machine has.  What is held beyond a little is therefore
//! taken from one [`Held`], and whoever finds it empty refuses instead of
//! holding more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What may be held altogether; clones share it.
#[derive(Debug, Clone)]
pub struct Held(Arc<AtomicUsize>);

impl Held {
    /// So many bytes, over all that share this.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes_max)))
    }

    /// A share that holds nothing yet.
    pub fn share(&self) -> Share {
        Share {
            left: self.0.clone(),
            bytes: 0,
        }
    }

    /// A share of so many bytes, or nothing when there are not so many left.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let mut share = self.share();
        share.grow(bytes).then_some(share)
    }
}

/// Bytes that one request or answer holds; given back when dropped.
#[derive(Debug)]
pub struct Share {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    /// Takes more; false, and nothing taken, when there is not so much left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let order = Ordering::Relaxed;
        let taken = self
            .left
            .fetch_update(order, order, |left| left.checked_sub(bytes));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_there_is_and_all_comes_back() {
        let held = Held::new(100);
        let mut one = held.take(60).unwrap();
        assert!(held.take(41).is_none());
        assert!(one.grow(40));
        assert!(!one.grow(1));
        assert!(!held.share().grow(1));
        drop(one);
        assert!(held.take(101).is_none());
        assert!(held.take(100).is_some());
        assert!(held.take(100).is_some(), "what was dropped is back");
    }
}
