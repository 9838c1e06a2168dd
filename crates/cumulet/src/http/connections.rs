//! Places for connections: how many there may be, and which one makes room.
//!
//! A connection that waits for a request costs its client nothing, so that
//! anybody could take all places and keep them.  When a new connection finds no
//! place, the one that has waited longest is therefore closed: nothing has been
//! done for it.  One whose request is being worked on, or whose answer is still
//! on its way, keeps its place; the limits of time are what ends those.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a connection waits undisturbed, so that a new one gets its first request through.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// How often a connection without a place looks for one that may be closed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many connections there may be, over all listeners that share this.
#[derive(Clone)]
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    per_peer_max: usize,
    book: Arc<Mutex<Book>>,
}

/// Who is here.
#[derive(Default)]
struct Book {
    /// Connections that wait for a request, the longest first.
    waiting: BTreeMap<u64, (Instant, Arc<Seat>)>,
    /// The next number for one that begins to wait.
    next: u64,
    by_peer: HashMap<IpAddr, usize>,
}

/// What a connection and its place share.
#[derive(Default)]
struct Seat {
    cut: Notify,
    /// The number under which it waits.
    waits_as: Mutex<Option<u64>>,
    /// Whether the answer has been handed over and only has to be sent.
    is_answered: AtomicBool,
}

/// A place that was given to one connection; given back when dropped.
pub(crate) struct Place {
    handle: Handle,
    _counted: Option<Counted>,
    _permit: OwnedSemaphorePermit,
}

/// By which those who serve a connection tell what it does.
#[derive(Clone)]
pub(crate) struct Handle {
    seat: Arc<Seat>,
    book: Arc<Mutex<Book>>,
}

/// Goes with the body of an answer, and tells when all of it has been handed over.
pub(crate) struct Answering(Handle);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
            per_peer_max: usize::MAX,
            book: Arc::default(),
        }
    }

    /// The same with a limit for each peer's address.
    pub(crate) fn with_peers_max(max: usize, per_peer_max: usize) -> Self {
        Self {
            per_peer_max,
            ..Self::new(max)
        }
    }

    /// Waits for a place, and has others close for it; `None` for one peer too many.
    pub(crate) async fn place(&self, peer: Option<IpAddr>) -> Option<Place> {
        let counted = match peer {
            Some(peer) => Some(self.count(peer)?),
            None => None,
        };
        let permit = loop {
            match self.places.clone().try_acquire_owned() {
                Ok(permit) => break permit,
                Err(tokio::sync::TryAcquireError::Closed) => return None,
                Err(tokio::sync::TryAcquireError::NoPermits) => self.make_room(),
            }
            let freed = self.places.clone().acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK_AGAIN, freed).await {
                break permit;
            }
        };
        let place = Place {
            handle: Handle {
                seat: Arc::default(),
                book: self.book.clone(),
            },
            _counted: counted,
            _permit: permit,
        };
        place.handle.waits();
        Some(place)
    }

    fn count(&self, peer: IpAddr) -> Option<Counted> {
        let mut book = lock(&self.book);
        let count = book.by_peer.entry(peer).or_default();
        if *count >= self.per_peer_max {
            return None;
        }
        *count += 1;
        Some(Counted(self.book.clone(), peer))
    }

    /// Closes the connection that has waited longest, if it has waited long enough.
    pub(crate) fn make_room(&self) {
        let mut book = lock(&self.book);
        let Some(first) = book.waiting.first_entry() else {
            return;
        };
        if first.get().0.elapsed() < UNDISTURBED {
            return;
        }
        let (_, seat) = first.remove();
        drop(book);
        *lock(&seat.waits_as) = None;
        seat.cut.notify_one();
        metrics::counter!("cumulet_connections_closed_for_others_total").increment(1);
    }
}

/// One connection in its peer's count.
struct Counted(Arc<Mutex<Book>>, IpAddr);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut book = lock(&self.0);
        if let Some(count) = book.by_peer.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                book.by_peer.remove(&self.1);
            }
        }
    }
}

impl Place {
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Resolves when the place is needed for another connection.
    pub(crate) async fn is_needed(&self) {
        self.handle.seat.cut.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = lock(&self.handle.book);
        if let Some(number) = lock(&self.handle.seat.waits_as).take() {
            book.waiting.remove(&number);
        }
    }
}

impl Handle {
    /// From now on the connection may be closed for another one.
    pub(crate) fn waits(&self) {
        self.seat.is_answered.store(false, Ordering::Relaxed);
        let mut book = lock(&self.book);
        let number = book.next;
        book.next += 1;
        let waits_as = lock(&self.seat.waits_as).replace(number);
        if let Some(before) = waits_as {
            book.waiting.remove(&before);
        }
        book.waiting
            .insert(number, (Instant::now(), self.seat.clone()));
    }

    /// From now on it may not; false when it is being closed, so that nothing must be begun.
    #[must_use]
    pub(crate) fn works(&self) -> bool {
        let mut book = lock(&self.book);
        let waits_as = lock(&self.seat.waits_as).take();
        match waits_as {
            Some(number) => book.waiting.remove(&number).is_some(),
            // Answered, and the next request was there already.
            None => self.seat.is_answered.swap(false, Ordering::Relaxed),
        }
    }

    /// What has been answered was sent: the connection waits for the next request.
    pub(crate) fn is_sent(&self) {
        if self.seat.is_answered.load(Ordering::Relaxed) {
            self.waits();
        }
    }

    pub(crate) fn answering(&self) -> Answering {
        Answering(self.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.seat.is_answered.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_waiting_makes_room_and_a_working_one_never() {
        let connections = Connections::new(2);
        let working = connections.place(None).await.unwrap();
        assert!(working.handle().works());
        let waiting = connections.place(None).await.unwrap();
        let (third, ()) = tokio::join!(connections.place(None), async {
            waiting.is_needed().await;
            assert!(
                !waiting.handle().works(),
                "one that is closed begins nothing"
            );
            drop(waiting);
        });
        let third = third.unwrap();
        assert!(third.handle().works());
        // Both work now: nobody is closed, and a fourth has to wait for one that ends.
        let (fourth, ()) = tokio::join!(connections.place(None), async {
            for place in [&working, &third] {
                let closed = tokio::time::timeout(UNDISTURBED * 2, place.is_needed()).await;
                assert!(closed.is_err(), "one that works is not closed");
            }
            drop(working);
        });
        assert!(fourth.is_some());
    }

    #[tokio::test]
    async fn an_answer_that_was_sent_lets_the_connection_wait_again() {
        let connections = Connections::new(1);
        let place = connections.place(None).await.unwrap();
        let handle = place.handle();
        assert!(handle.works());
        handle.is_sent();
        assert!(lock(&connections.book).waiting.is_empty(), "not answered");
        drop(handle.answering());
        assert!(lock(&connections.book).waiting.is_empty(), "not sent");
        handle.is_sent();
        assert_eq!(lock(&connections.book).waiting.len(), 1);
        assert!(handle.works());
        drop(handle.answering());
        assert!(handle.works(), "the next request may come at once");
        drop(place);
        assert!(lock(&connections.book).waiting.is_empty());
    }

    #[tokio::test]
    async fn one_peer_has_its_share() {
        let connections = Connections::with_peers_max(8, 2);
        let peer = |last| Some(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let _one = connections.place(peer(1)).await.unwrap();
        let two = connections.place(peer(1)).await.unwrap();
        assert!(connections.place(peer(1)).await.is_none());
        assert!(connections.place(peer(2)).await.is_some());
        drop(two);
        assert!(connections.place(peer(1)).await.is_some());
    }
}
