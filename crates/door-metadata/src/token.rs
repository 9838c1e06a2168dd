//! Session tokens of IMDSv2.
//!
//! A token carries its own proof: when it ends, and an HMAC over that and the
//! instance.  Nothing is remembered, so tokens outlive a restart of the program
//! as long as its key is the same, and there is no table to fill.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use cumulet_domain::{InstanceId, Timestamp};

const VERSION: u8 = 1;
const END_LEN: usize = 8;
/// Longest text that is looked at.
const TEXT_LEN_MAX: usize = 128;

/// The key by which tokens are made and checked; kept with the cloud's data.
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// From 32 random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A token for this instance until `end`.
    pub(crate) fn issue(&self, instance: InstanceId, end: Timestamp) -> String {
        let end = end.0.to_be_bytes();
        let proof = hmac::sign(&self.0, &signed(instance, end));
        URL_SAFE.encode([&[VERSION][..], &end, proof.as_ref()].concat())
    }

    /// Whether `text` is a token of this instance that has not ended.
    pub(crate) fn is_valid(&self, text: &[u8], instance: InstanceId, now: Timestamp) -> bool {
        if text.len() > TEXT_LEN_MAX {
            return false;
        }
        let Ok(bytes) = URL_SAFE.decode(text) else {
            return false;
        };
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return false;
        };
        let Some((end, proof)) = rest.split_first_chunk::<END_LEN>() else {
            return false;
        };
        // Compares in constant time.
        hmac::verify(&self.0, &signed(instance, *end), proof).is_ok()
            && now < Timestamp(i64::from_be_bytes(*end))
    }
}

fn signed(instance: InstanceId, end: [u8; END_LEN]) -> Vec<u8> {
    let mut bytes = b"cumulet metadata token 1\0".to_vec();
    bytes.extend(end);
    bytes.extend(instance.to_string().bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_instance_and_time() {
        let key = TokenKey::new(&[7; 32]);
        let mine = "i-0123456789abcdef0".parse().unwrap();
        let other = "i-0123456789abcdef1".parse().unwrap();
        let token = key.issue(mine, Timestamp(1_000));
        assert_eq!(token.len(), 56);
        let is_valid = |text: &str, of, now| key.is_valid(text.as_bytes(), of, Timestamp(now));
        assert!(is_valid(&token, mine, 999));
        assert!(!is_valid(&token, mine, 1_000), "ended");
        assert!(!is_valid(&token, other, 999), "of another instance");
        let again = TokenKey::new(&[7; 32]);
        assert!(
            again.is_valid(token.as_bytes(), mine, Timestamp(0)),
            "after a restart"
        );
        let stranger = TokenKey::new(&[8; 32]);
        assert!(!stranger.is_valid(token.as_bytes(), mine, Timestamp(0)));
        for damaged in [
            "",
            "AAAA",
            &token[1..],
            &token.replace('A', "B"),
            &"A".repeat(5_000),
        ] {
            assert!(!is_valid(damaged, mine, 0), "{damaged}");
        }
    }
}
