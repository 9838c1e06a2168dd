//! How many instances of each image a launch starts, if there is not room for all that it may have.
//!
//! The reference's rule (6.7): no fewer than the minimum of each image, or nothing at all; towards
//! the maximums as far as there is room, and what is over the minimums is dealt round robin.

/// What a launch asks of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub min: u32,
    /// At least `min`.
    pub max: u32,
}

/// How many of each to start where `room` instances fit; `None` if the minimums do not.
pub fn deal(wanted: &[Wanted], room: u32) -> Option<Vec<u32>> {
    let mut left = u64::from(room).checked_sub(minimum(wanted))?;
    let mut counts: Vec<u32> = wanted.iter().map(|it| it.min).collect();
    loop {
        let before = left;
        for (count, wanted) in counts.iter_mut().zip(wanted) {
            if left > 0 && *count < wanted.max {
                *count += 1;
                left -= 1;
            }
        }
        if left == before {
            return Some(counts);
        }
    }
}

/// The fewest instances that the launch is content with.
pub fn minimum(wanted: &[Wanted]) -> u64 {
    wanted.iter().map(|it| u64::from(it.min)).sum()
}

/// The most instances that the launch may have.
pub fn maximum(wanted: &[Wanted]) -> u64 {
    wanted.iter().map(|it| u64::from(it.max)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(wanted: &[(u32, u32)], room: u32) -> Option<Vec<u32>> {
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|(min, max)| Wanted {
                min: *min,
                max: *max,
            })
            .collect();
        deal(&wanted, room)
    }

    /// Reference 6.7: A 5 to 10, B 20 to 40.
    #[test]
    fn the_guides_example_comes_out() {
        let guide = [(5, 10), (20, 40)];
        assert_eq!(dealt(&guide, 24), None);
        assert_eq!(dealt(&guide, 25), Some(vec![5, 20]));
        assert_eq!(dealt(&guide, 30), Some(vec![8, 22]));
        assert_eq!(dealt(&guide, 40), Some(vec![10, 30]));
        assert_eq!(dealt(&guide, 50), Some(vec![10, 40]));
        assert_eq!(dealt(&guide, 1000), Some(vec![10, 40]));
    }

    #[test]
    fn one_image_gets_what_there_is() {
        assert_eq!(dealt(&[(1, 3)], 0), None);
        assert_eq!(dealt(&[(1, 3)], 2), Some(vec![2]));
        assert_eq!(dealt(&[(1, 3)], 3), Some(vec![3]));
        assert_eq!(dealt(&[], 3), Some(vec![]));
        assert_eq!(dealt(&[(u32::MAX, u32::MAX), (1, 1)], u32::MAX), None);
    }

    /// A small generator (splitmix64), so that a failure is repeated with its seed alone.
    struct Seed(u64);

    impl Seed {
        fn below(&mut self, bound: u32) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u32::try_from((mixed ^ (mixed >> 31)) % u64::from(bound)).unwrap_or(0)
        }
    }

    #[test]
    fn nobody_gets_less_than_the_minimum_or_more_than_the_maximum_and_the_rest_is_dealt_fairly() {
        let given = std::env::var("TEST_SEED").ok();
        let first: u64 = given.and_then(|it| it.parse().ok()).unwrap_or(1);
        for seed in first..first + 5_000 {
            let mut random = Seed(seed);
            let wanted: Vec<Wanted> = (0..=random.below(6))
                .map(|_| {
                    let min = random.below(12);
                    let max = min + random.below(12);
                    Wanted { min, max }
                })
                .collect();
            let room = random.below(120);
            let told = format!("TEST_SEED={seed}: {wanted:?} in {room}");
            let Some(counts) = deal(&wanted, room) else {
                assert!(u64::from(room) < minimum(&wanted), "{told}");
                continue;
            };
            let sum: u64 = counts.iter().map(|it| u64::from(*it)).sum();
            assert_eq!(sum, u64::from(room).min(maximum(&wanted)), "{told}");
            let rows: Vec<(u32, &Wanted)> = counts.iter().copied().zip(&wanted).collect();
            for (place, (count, wanted)) in rows.iter().enumerate() {
                assert!((wanted.min..=wanted.max).contains(count), "{told}");
                // Whoever could have had more is behind nobody by more than its turn.
                if *count == wanted.max {
                    continue;
                }
                let own = count - wanted.min;
                for (other_place, (other, of)) in rows.iter().enumerate() {
                    let turn = u32::from(other_place < place);
                    assert!(other - of.min <= own + turn, "{told}: {counts:?}");
                }
            }
        }
    }
}
