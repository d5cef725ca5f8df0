//! What the cases of a campaign reached: counted afterwards, from the cases alone, which are pure
//! functions of their numbers; so it costs the campaign nothing and is the same for any number of
//! threads.
//!
//! Not covered: what single steps of a campaign's cases skipped; the self-test counts that
//! (`super::selftest_matrix`).

use super::check::Source;
use crate::engine::{Coverage, Reach};

/// Cases that are looked at; of longer campaigns a sample, spread over all of it.
const LOOKED_AT: u64 = 20_000;

/// Counts what the cases `first .. first + cases` reach, of what they can.
pub fn covered(source: &Source<'_>, first: u64, cases: u64, reach: Reach) -> Coverage {
    let mut coverage = Coverage::within(reach);
    let step = cases.div_ceil(LOOKED_AT).max(1);
    for nth in 0..cases.div_ceil(step) {
        // Uneven steps: what comes round with the case number must not be missed.
        let case = nth * step + nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % step;
        if case < cases {
            coverage.count(&source(first + case));
        }
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CaseName, PROFILES, generate};
    use std::sync::Mutex;

    #[test]
    fn all_cases_of_a_short_campaign_and_a_spread_sample_of_a_long_one_are_looked_at() {
        let seen = Mutex::new(Vec::new());
        let one = generate(&PROFILES[0], CaseName { seed: 1, case: 0 });
        let source = |case: u64| {
            seen.lock().expect("no reader panics").push(case);
            one.clone()
        };
        assert_eq!(covered(&source, 5, 300, Reach::ALL).cases(), 300);
        assert_eq!(*seen.lock().expect("no reader panics"), (5..305).collect::<Vec<u64>>());
        seen.lock().expect("no reader panics").clear();
        let cases = LOOKED_AT * 8;
        assert!(covered(&source, 0, cases, Reach::ALL).cases() > LOOKED_AT * 9 / 10);
        let seen = seen.lock().expect("no reader panics");
        for rest in 0..4 {
            let of_rest = seen.iter().filter(|case| **case % 4 == rest).count() as u64;
            assert!(of_rest > LOOKED_AT / 8, "{of_rest} cases leave {rest} when divided by 4");
        }
        assert!(seen.last().is_some_and(|&last| last > cases - 16));
    }
}
