//! Messages that were accepted, for as long as they could be accepted again.
//!
//! Each signer has a share of what is remembered, so that nobody takes the place of the others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use cumulet_domain::Timestamp;

/// Most messages that are remembered, and most of one signer: over 25 a second for as long as each
/// is valid.
const MESSAGES_MAX: usize = 131_072;
const OF_SIGNER_MAX: usize = MESSAGES_MAX / 8;

/// A digest of what was signed.
pub(super) type Message = [u8; 32];

/// The beginning of a digest of the certificate.
type Signer = [u8; 16];

#[derive(Default)]
struct Inner {
    /// With their signers.
    seen: HashMap<Message, Signer>,
    by_signer: HashMap<Signer, usize>,
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
    /// Remembers a message of the holder of `certificate` until `end`.
    pub(super) fn note(
        &self,
        message: Message,
        certificate: &[u8],
        end: Timestamp,
        now: Timestamp,
    ) -> Noted {
        let mut signer = Signer::default();
        signer.copy_from_slice(&digest(&SHA256, certificate).as_ref()[..16]);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        if inner.seen.contains_key(&message) {
            return Noted::Seen;
        }
        let own = inner.by_signer.get(&signer).copied().unwrap_or(0);
        if own >= OF_SIGNER_MAX || inner.seen.len() >= MESSAGES_MAX {
            return Noted::Full;
        }
        inner.seen.insert(message, signer);
        inner.by_signer.insert(signer, own + 1);
        inner.ends.insert((end, message));
        Noted::New
    }
}

impl Inner {
    /// Forgets what has ended.
    fn forget(&mut self, now: Timestamp) {
        while let Some((_, old)) = self.ends.first().copied().filter(|it| it.0 < now) {
            self.ends.pop_first();
            let Some(signer) = self.seen.remove(&old) else {
                continue;
            };
            if let Some(count) = self.by_signer.get_mut(&signer) {
                *count -= 1;
                if *count == 0 {
                    self.by_signer.remove(&signer);
                }
            }
        }
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
        let note = |end, now| replays.note(message(1), b"a", Timestamp(end), Timestamp(now));
        assert_eq!(note(100, 0), Noted::New);
        assert_eq!(note(100, 100), Noted::Seen);
        assert_eq!(note(200, 101), Noted::New, "its time alone refuses it now");
    }

    #[test]
    fn what_is_remembered_is_bounded_for_each_and_nothing_is_forgotten_early() {
        let replays = Replays::default();
        let note = |number: usize, signer: &[u8], now| {
            replays.note(
                message(number),
                signer,
                Timestamp(now + 100),
                Timestamp(now),
            )
        };
        for number in 0..OF_SIGNER_MAX {
            assert_eq!(note(number, b"a", 0), Noted::New);
        }
        let next = OF_SIGNER_MAX;
        assert_eq!(note(next, b"a", 0), Noted::Full);
        assert_eq!(note(0, b"a", 0), Noted::Seen);
        assert_eq!(
            note(next, b"b", 0),
            Noted::New,
            "others have their own share"
        );
        assert_eq!(note(next + 1, b"a", 101), Noted::New);
        assert_eq!(lock_len(&replays), 1);
    }

    fn lock_len(replays: &Replays) -> usize {
        let inner = replays.0.lock().unwrap();
        assert_eq!(inner.by_signer.values().sum::<usize>(), inner.seen.len());
        inner.seen.len()
    }
}
