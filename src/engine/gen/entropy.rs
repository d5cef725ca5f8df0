//! Where a generator's choices come from. Zeros mean the simplest choice everywhere, so that a
//! source that shrinks or runs dry leads to simpler scenarios. Not covered: what is drawn with
//! them.

use arbitrary::Unstructured;

/// A source of choices.
pub trait Entropy {
    /// The next 64 bits.
    fn word(&mut self) -> u64;

    /// A number below `n`; 0 if `n` is 0 or 1.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(n)) >> 64) as u64
    }

    /// True `num` times out of `of`.
    fn chance(&mut self, num: u64, of: u64) -> bool {
        self.below(of) >= of.saturating_sub(num)
    }

    /// One of the values.
    ///
    /// # Panics
    /// If there is none.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T
    where
        Self: Sized,
    {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from[at]
    }

    /// Whether only zeros are left.
    fn is_spent(&self) -> bool {
        false
    }
}

/// The seeded source of the bulk of all cases: SplitMix64, a counter and a mixer. Its numbers are
/// part of the generator's version.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

/// The odd constant of SplitMix64: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Seeded {
    /// The choices of case number `case` under `seed`.
    pub const fn new(seed: u64, case: u64) -> Seeded {
        Seeded(mix(mix(seed.wrapping_add(GOLDEN)) ^ case.wrapping_mul(GOLDEN)))
    }
}

impl Entropy for Seeded {
    #[inline]
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
}

/// A list of words, then zeros: the form that a property test can shrink.
#[derive(Clone, Debug)]
pub struct Words<'w> {
    left: &'w [u64],
}

impl Words<'_> {
    /// Reads these.
    pub const fn new(words: &[u64]) -> Words<'_> {
        Words { left: words }
    }
}

impl Entropy for Words<'_> {
    fn word(&mut self) -> u64 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }
    fn is_spent(&self) -> bool {
        self.left.is_empty()
    }
}

/// A fuzzer's bytes, then zeros.
impl Entropy for Unstructured<'_> {
    fn word(&mut self) -> u64 {
        self.arbitrary().unwrap_or(0)
    }
    fn below(&mut self, n: u64) -> u64 {
        // Takes only as many bytes as `n` needs.
        self.int_in_range(0..=n.saturating_sub(1)).unwrap_or(0)
    }
    fn is_spent(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeded_source_never_changes() {
        let mut seeded = Seeded::new(1, 0);
        let words: Vec<u64> = (0..3).map(|_| seeded.word()).collect();
        assert_eq!(words, [0x6ec85f1f8547bc0c, 0x6cf63afcc21a470a, 0x8a27b94cff7526aa]);
        assert_ne!(Seeded::new(1, 1).word(), Seeded::new(1, 0).word());
        assert_ne!(Seeded::new(2, 0).word(), Seeded::new(1, 0).word());
    }

    #[test]
    fn a_spent_source_gives_zeros_and_the_simplest_choice() {
        let bytes = [7u8; 3];
        let (mut words, mut fuzz) = (Words::new(&[u64::MAX]), Unstructured::new(&bytes));
        assert_eq!(words.below(10), 9);
        while !fuzz.is_spent() {
            fuzz.below(10);
        }
        assert!(words.is_spent());
        assert_eq!([words.below(9), fuzz.below(9)], [0, 0]);
        assert!(!words.chance(1, 2) && !fuzz.chance(7, 8));
        assert_eq!(words.pick(&["simplest", "other"]), "simplest");
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut seeded = Seeded::new(3, 4);
        let mut seen = [0u32; 7];
        for _ in 0..7_000 {
            seen[usize::try_from(seeded.below(7)).expect("small")] += 1;
        }
        assert!(seen.iter().all(|&n| n > 700), "{seen:?}");
        assert_eq!([seeded.below(0), seeded.below(1)], [0, 0]);
    }
}
