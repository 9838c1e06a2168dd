//! Messages that were accepted, for as long as they could be accepted again.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use cumulet_domain::Timestamp;

/// Most messages that are remembered: over 100 a second for as long as each is valid.
const MESSAGES_MAX: usize = 65_536;

/// A digest of what was signed.
pub(super) type Message = [u8; 32];

#[derive(Default)]
struct Inner {
    seen: HashSet<Message>,
    /// When each may be forgotten.
    ends: BTreeSet<(Timestamp, Message)>,
}

/// What was accepted in this life of the program.  A restart forgets, and the time window alone is
/// left for messages of the minutes before it.
#[derive(Default)]
pub struct Replays(Mutex<Inner>);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    New,
    Seen,
    /// No more can be remembered.
    Full,
}

impl Replays {
    /// Remembers a message until `end`.
    pub(super) fn note(&self, message: Message, end: Timestamp, now: Timestamp) -> Noted {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, old)) = inner.ends.first().copied().filter(|it| it.0 < now) {
            inner.ends.pop_first();
            inner.seen.remove(&old);
        }
        if inner.seen.contains(&message) {
            return Noted::Seen;
        }
        if inner.seen.len() >= MESSAGES_MAX {
            return Noted::Full;
        }
        inner.seen.insert(message);
        inner.ends.insert((end, message));
        Noted::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize) -> Message {
        let mut message = [0; 32];
        message[..8].copy_from_slice(&number.to_le_bytes());
        message
    }

    #[test]
    fn a_message_is_new_once_until_it_has_ended() {
        let replays = Replays::default();
        let note = |end, now| replays.note(message(1), Timestamp(end), Timestamp(now));
        assert_eq!(note(100, 0), Noted::New);
        assert_eq!(note(100, 100), Noted::Seen);
        assert_eq!(note(200, 101), Noted::New, "its time alone refuses it now");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_is_forgotten_early() {
        let replays = Replays::default();
        for number in 0..MESSAGES_MAX {
            let noted = replays.note(message(number), Timestamp(100), Timestamp(0));
            assert_eq!(noted, Noted::New);
        }
        let note = |number, now| replays.note(message(number), Timestamp(200), Timestamp(now));
        assert_eq!(note(MESSAGES_MAX, 0), Noted::Full);
        assert_eq!(note(0, 0), Noted::Seen);
        assert_eq!(note(MESSAGES_MAX, 101), Noted::New);
    }
}
