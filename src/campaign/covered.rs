//! What the cases of a campaign reached: counted afterwards, from the cases alone, which are pure
//! functions of their numbers; so it costs the campaign nothing and is the same for any number of
//! threads.
//!
//! Not covered: what single steps of a campaign's cases skipped; the self-test counts that
//! (`super::selftest_matrix`).

use super::check::Source;
use super::part::{Places, Shard};
use crate::engine::{Coverage, Reach};

/// All of the first cases are looked at; of the next as many every second, then every third, and so
/// on: of a hundred million some 200,000.
const ALL_OF: u64 = 20_000;

/// Counts what cases of a shard reach, of what they can. Which cases are looked at depends on their
/// numbers alone, so that the counts of all shards add up to those of the whole campaign.
pub fn covered(source: &Source<'_>, shard: Shard, done: &Places, reach: Reach) -> Coverage {
    let mut coverage = Coverage::within(reach);
    for case in done.iter().map(|place| shard.case(place)).filter(|&case| is_looked_at(case)) {
        coverage.count(&source(case));
    }
    coverage
}

/// Uneven steps: what comes round with the case number must not be missed.
const fn is_looked_at(case: u64) -> bool {
    let mixed = case.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    mixed.is_multiple_of(1 + case / ALL_OF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CaseName, PROFILES, generate};

    #[test]
    fn all_first_cases_and_ever_fewer_later_ones_are_looked_at() {
        assert!((0..ALL_OF).all(is_looked_at));
        let cases = ALL_OF * 8;
        let seen: Vec<u64> = (0..cases).filter(|&case| is_looked_at(case)).collect();
        let count = seen.len() as u64;
        // 1 + 1/2 + ... + 1/8 is 2.7.
        assert!((ALL_OF * 26 / 10..ALL_OF * 28 / 10).contains(&count), "{count}");
        for rest in 0..4 {
            let of_rest = seen.iter().filter(|case| **case % 4 == rest).count() as u64;
            assert!(of_rest > count / 5, "{of_rest} cases leave {rest} when divided by 4");
        }
        assert!(seen.last().is_some_and(|&last| last > cases - 200));
    }

    #[test]
    fn the_coverage_of_all_shards_is_that_of_the_campaign() {
        let source = |case| generate(&PROFILES[0], CaseName { seed: 1, case });
        let all = |cases| {
            let mut places = Places::default();
            places.add(0..cases);
            places
        };
        let whole = covered(&source, Shard::WHOLE, &all(50), Reach::ALL);
        let mut sum = Coverage::within(Reach::ALL);
        for index in 0..3 {
            let shard = Shard::new(index, 3).expect("one of three");
            sum.merge(&covered(&source, shard, &all(shard.share(50)), Reach::ALL));
        }
        assert_eq!((sum.cases(), sum.reached()), (50, whole.reached()));
        assert_eq!((sum.goals(), sum.lacking()), (whole.goals(), whole.lacking()));
        assert!(whole.reached().0 > 100);
    }
}
