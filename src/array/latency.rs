//! How long calls took: a histogram that many threads add to, in little memory however long it goes
//! on. Buckets lie a fourteenth apart (ten for each doubling), which is the error of a quantile.
//!
//! Not covered: what is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling.
const PER_DOUBLING: u32 = 10;
/// From a microsecond on, 32 doublings: an hour and more.
const BUCKETS: usize = 32 * PER_DOUBLING as usize;

/// Counts of how long calls took.
#[derive(Debug)]
pub struct Latency([AtomicU64; BUCKETS]);

/// What a [`Latency`] held at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latency {
    /// Adds a call.
    pub fn add(&self, took: Duration) {
        let micros = took.as_secs_f64() * 1e6;
        let bucket = (micros.max(1.0).log2() * f64::from(PER_DOUBLING)).floor();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and cut at the last bucket"
        )]
        let bucket = (bucket as usize).min(BUCKETS - 1);
        if let Some(count) = self.0.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// What was counted until now.
    pub fn now(&self) -> Latencies {
        Latencies(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Latencies {
    /// How many calls.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }
    /// The calls of these that were not in `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Latencies) -> Latencies {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Latencies(self.0.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect())
    }
    /// How long all but `1 - share` of the calls took at most; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let mut seen = 0;
        let mut bucket = 0u32;
        for (held, number) in self.0.iter().zip(0u32..) {
            seen += held;
            bucket = number;
            #[allow(clippy::cast_precision_loss, reason = "a share of a count need not be exact")]
            if seen as f64 >= share * count as f64 && seen > 0 {
                break;
            }
        }
        let micros = (f64::from(bucket + 1) / f64::from(PER_DOUBLING)).exp2();
        Some(Duration::from_secs_f64(micros / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_calls_but_for_a_fourteenth(
            mut micros in prop::collection::vec(1u64..4_000_000_000, 1..200),
            percent in 1u32..=100,
        ) {
            let latency = Latency::default();
            micros.iter().for_each(|&us| latency.add(Duration::from_micros(us)));
            micros.sort_unstable();
            let rank = (micros.len() * percent as usize).div_ceil(100);
            let exact = u128::from(micros[rank - 1]);
            let said = latency.now().quantile(f64::from(percent) / 100.0).expect("some").as_nanos();
            prop_assert!(said >= exact * 999 && said <= exact * 1074, "{said} ns for {exact} us");
        }
    }

    #[test]
    fn calls_since_a_moment_are_told_apart() {
        let latency = Latency::default();
        assert_eq!(latency.now().quantile(0.5), None);
        latency.add(Duration::from_secs(1));
        let then = latency.now();
        latency.add(Duration::from_millis(1));
        latency.add(Duration::ZERO);
        latency.add(Duration::from_secs(u64::MAX / 2));
        let now = latency.now();
        assert_eq!((now.count(), now.since(&then).count()), (4, 3));
        assert_eq!(now.since(&Latencies::default()), now);
    }
}
