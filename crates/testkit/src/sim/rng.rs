//! Dice: small, fast, the same for the same seed (splitmix64).

#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of `things`, if there are any.
    pub(crate) fn choose<T: Clone>(&mut self, things: &[T]) -> Option<T> {
        let index = self.below(u64::try_from(things.len().max(1)).unwrap_or(1));
        things.get(usize::try_from(index).unwrap_or(0)).cloned()
    }

    /// Other dice that do not disturb these.
    pub(crate) fn split(&mut self) -> Rng {
        Rng(self.next())
    }
}
