//! Products: what sellers charge for, who is subscribed, and the hours that were used.
//!
//! A product is a code that an account owns and images carry.  Whoever launches
//! such an image is subscribed to its product, or is the seller; each hour that
//! an instance begins while it runs is one that was used.
//!
//! Hours are counted from the launch: hour `n` begins `n` hours after it, and is
//! used if the instance runs at any moment of it.  [`Usage::count`] says when it
//! ran and may be told again and again: an hour is counted once, since what was
//! counted is a mark that only rises.  So a clock that is set back counts nothing
//! for the second time.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, InstanceId, Timestamp, shown};

/// What a product is charged by.
pub const HOUR_MS: i64 = 3_600_000;
/// How long used hours are kept: 400 days, so that a year can be billed after it has ended.
pub const USAGE_KEPT_MS: i64 = 400 * 24 * HOUR_MS;
/// Longest product code.
pub const CODE_LEN_MAX: usize = 32;

/// A code and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    pub code: String,
    /// The seller.
    pub owner: AccountId,
    pub created: Timestamp,
}

/// An account may launch images with this code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub account: AccountId,
    pub code: String,
    pub since: Timestamp,
}

/// What one instance used of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub code: String,
    pub instance: InstanceId,
    /// Who owned the product when this began.
    pub seller: AccountId,
    /// Whose instance it is.
    pub account: AccountId,
    pub launched: Timestamp,
    /// No hour before this one is counted any more; it never falls.
    pub next_hour: u32,
    /// The hours that were used and are kept, in their order.
    pub hours: Vec<Hours>,
}

/// Hours without a gap between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    pub first: u32,
    pub count: u32,
}

/// When a machine ran, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Usage {
    /// Counts the hours of which the instance saw a part, and that were not counted before.
    /// Counting the same again, or anything earlier, changes nothing.
    pub fn count(&mut self, ran: Ran) {
        let last = hour_of(self.launched, ran.until);
        // Where the clock was set back meanwhile, only its end is known.
        let first = hour_of(self.launched, ran.since.min(ran.until));
        let first = first.max(self.next_hour);
        if first > last {
            return;
        }
        let count = (last - first).saturating_add(1);
        match self.hours.last_mut() {
            Some(before) if before.end() == first => {
                before.count = before.count.saturating_add(count);
            }
            _ => self.hours.push(Hours { first, count }),
        }
        self.next_hour = last.saturating_add(1);
    }

    /// Forgets the hours that began before `at`; what was counted stays counted.
    pub fn forget_before(&mut self, at: Timestamp) {
        self.hours = self.within(Some(at), None).collect();
    }

    /// The kept hours that began at `from` or later, and before `until`.
    pub fn within(
        &self,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> impl Iterator<Item = Hours> + '_ {
        let least = from.map_or(0, |at| first_hour_from(self.launched, at));
        let end = until.map_or(u32::MAX, |at| first_hour_from(self.launched, at));
        self.hours.iter().filter_map(move |hours| {
            let first = hours.first.max(least);
            let count = hours.end().min(end).checked_sub(first)?;
            (count > 0).then_some(Hours { first, count })
        })
    }

    /// When an hour began.
    pub fn began(&self, hour: u32) -> Timestamp {
        let since_ms = i64::from(hour).saturating_mul(HOUR_MS);
        self.launched.plus_millis(since_ms)
    }
}

impl Hours {
    /// The hour after them.
    pub fn end(self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// The hour since `launched` in which `at` is; the first one for what is before it.
pub fn hour_of(launched: Timestamp, at: Timestamp) -> u32 {
    let hour = at.millis_since(launched).max(0) / HOUR_MS;
    // The last number is left out, so that there is always a next one.
    u32::try_from(hour).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

/// The first hour that begins at `at` or later.
fn first_hour_from(launched: Timestamp, at: Timestamp) -> u32 {
    let after_ms = at.millis_since(launched).max(0).saturating_add(HOUR_MS - 1);
    u32::try_from(after_ms / HOUR_MS).unwrap_or(u32::MAX)
}

/// A code of eight hexadecimal digits, as EC2 made them in 2007.
pub fn code_of(random: u32) -> String {
    format!("{random:08X}")
}

/// Checks a code that somebody chose: letters and digits, as those of EC2 have.
///
/// # Errors
/// [`Error::InvalidValue`].
pub fn check_code(code: &str) -> Result<(), Error> {
    let is_good = !code.is_empty()
        && code.len() <= CODE_LEN_MAX
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_good {
        return Ok(());
    }
    Err(Error::invalid(
        "ProductCode",
        format!(
            "A product code has 1 to {CODE_LEN_MAX} letters and digits: '{}'",
            shown(code)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAUNCHED: Timestamp = Timestamp(1_000_000);

    fn usage() -> Usage {
        Usage {
            code: "774F4FF8".into(),
            instance: InstanceId::from_random(1),
            seller: AccountId::from_random(1),
            account: AccountId::from_random(2),
            launched: LAUNCHED,
            next_hour: 0,
            hours: vec![],
        }
    }

    /// A moment in minutes after the launch.
    fn minute(minutes: i64) -> Timestamp {
        LAUNCHED.plus_millis(minutes * 60_000)
    }

    fn ran(since: i64, until: i64) -> Ran {
        Ran {
            since: minute(since),
            until: minute(until),
        }
    }

    fn hours(usage: &Usage) -> Vec<u32> {
        let all = usage.hours.iter();
        all.flat_map(|hours| hours.first..hours.end()).collect()
    }

    #[test]
    fn each_hour_that_it_begins_is_counted_once_whatever_the_clock_does() {
        // What is told one after the other, and what is counted in the end.
        type Case<'a> = (&'a [(i64, i64)], &'a [u32]);
        let cases: &[Case<'_>] = &[
            (&[(0, 0)], &[0]),
            (&[(1, 59)], &[0]),
            (&[(1, 60)], &[0, 1]),
            (&[(1, 59), (1, 59), (1, 61), (1, 61)], &[0, 1]),
            // Nobody looked for three hours.
            (&[(1, 10), (1, 190)], &[0, 1, 2, 3]),
            // It waited for its image for over an hour.
            (&[(70, 80)], &[1]),
            // It did not run from the second hour to the fifth.
            (&[(1, 30), (1, 65), (310, 320)], &[0, 1, 5]),
            // Started again within one hour.
            (&[(1, 10), (12, 20), (22, 30)], &[0]),
            // Set back, and then on again.
            (&[(1, 130), (1, 10), (1, 70), (1, 190)], &[0, 1, 2, 3]),
            // Started when the clock was ahead.
            (&[(600, 5)], &[0]),
            (&[(600, 601), (600, 5), (600, 70), (600, 670)], &[10, 11]),
            // Set to before the launch.
            (&[(1, -500)], &[0]),
        ];
        for (told, expected) in cases {
            let mut usage = usage();
            for (since, until) in *told {
                usage.count(ran(*since, *until));
            }
            assert_eq!(hours(&usage), *expected, "{told:?}");
        }
    }

    #[test]
    fn hours_without_a_gap_are_one_entry() {
        let mut usage = usage();
        for hour in 0..500 {
            usage.count(ran(0, hour * 60 + 3));
        }
        assert_eq!(
            usage.hours,
            [Hours {
                first: 0,
                count: 500
            }]
        );
        assert_eq!(usage.began(499), minute(499 * 60));
    }

    #[test]
    fn what_is_old_is_forgotten_and_not_counted_again() {
        let mut usage = usage();
        usage.count(ran(0, 130));
        usage.count(ran(360, 450));
        assert_eq!(hours(&usage), [0, 1, 2, 6, 7]);
        for (minutes, left) in [
            (-5, vec![0, 1, 2, 6, 7]),
            (0, vec![0, 1, 2, 6, 7]),
            (1, vec![1, 2, 6, 7]),
            (120, vec![2, 6, 7]),
            (200, vec![6, 7]),
            (361, vec![7]),
            (9_000, vec![]),
        ] {
            usage.forget_before(minute(minutes));
            assert_eq!(hours(&usage), left, "{minutes}");
        }
        usage.count(ran(0, 450));
        assert_eq!(hours(&usage), [0; 0]);
        usage.count(ran(0, 481));
        assert_eq!(hours(&usage), [8]);
    }

    #[test]
    fn hours_are_asked_for_by_when_they_began() {
        let mut usage = usage();
        usage.count(ran(0, 130));
        usage.count(ran(360, 450));
        for (from, until, expected) in [
            (None, None, vec![0, 1, 2, 6, 7]),
            (Some(60), Some(120), vec![1]),
            (Some(61), Some(361), vec![2, 6]),
            (Some(200), Some(100), vec![]),
            (None, Some(0), vec![]),
        ] {
            let found = usage.within(from.map(minute), until.map(minute));
            let found: Vec<u32> = found.flat_map(|it| it.first..it.end()).collect();
            assert_eq!(found, expected, "{from:?} {until:?}");
        }
    }

    #[test]
    fn a_clock_at_the_end_of_time_counts_and_does_not_break() {
        let mut usage = usage();
        usage.count(Ran {
            since: LAUNCHED,
            until: Timestamp(i64::MAX),
        });
        usage.count(Ran {
            since: Timestamp(i64::MIN),
            until: Timestamp(i64::MAX),
        });
        assert_eq!(usage.hours.len(), 1);
        usage.forget_before(Timestamp(i64::MAX));
        assert_eq!(usage.hours, []);
    }

    #[test]
    fn codes_are_letters_and_digits() {
        assert_eq!(code_of(0x774f_4ff8), "774F4FF8");
        assert_eq!(code_of(7), "00000007");
        for good in ["774F4FF8", "a", "8fvdn95s5ev33cprr62nq3q7t"] {
            check_code(good).unwrap();
        }
        for bad in ["", "a/b", "a b", "é", &"a".repeat(33)] {
            assert!(matches!(check_code(bad), Err(Error::InvalidValue { .. })));
        }
    }
}
