//! Ids of requests: unique and in the form of a UUID, as AWS has them.  Nothing is secret about them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A new id.  Asking the system for random bits every time costs more than the rest of it: a
/// process asks once, and counts on from there.
pub(super) fn new() -> String {
    static START: OnceLock<u128> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = *START.get_or_init(|| uuid::Uuid::new_v4().as_u128());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let bits = u128::from(mixed(count)) ^ start ^ (u128::from(mixed(!count)) << 64);
    uuid::Builder::from_random_bytes(bits.to_be_bytes())
        .into_uuid()
        .to_string()
}

/// Another number for every number, with no order to be seen (the last step of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_uuids() {
        let ids: std::collections::BTreeSet<String> = (0..10_000).map(|_| new()).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids {
            let parsed: uuid::Uuid = id.parse().unwrap();
            assert_eq!(parsed.get_version_num(), 4);
            assert_eq!(parsed.to_string(), id);
        }
    }
}
