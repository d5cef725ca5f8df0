//! Makes a scenario shorter while something about it still holds: spans of steps are taken out, long
//! ones first, until no single step can go.
//!
//! Deterministic but for its time budget. Not covered: making what is left simpler (extents, labels,
//! operations in flight together, faults).

use crate::scenario::Scenario;
use std::time::{Duration, Instant};

/// What shrinking may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShrinkBudget {
    /// How long.
    pub time: Duration,
    /// Candidates that are run.
    pub runs: u64,
}

/// A candidate that still reproduces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShrinkStep {
    /// Candidates run so far.
    pub runs: u64,
    /// Steps that are left.
    pub steps: usize,
}

/// What shrinking came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// The shortest scenario that reproduces.
    pub scenario: Scenario,
    /// Candidates that were run.
    pub runs: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether nothing was left to try; otherwise the budget ended it.
    pub finished: bool,
}

/// Shrinks `scenario`, which reproduces, for as long as `reproduces` says yes.
pub fn shrink(
    scenario: &Scenario,
    budget: ShrinkBudget,
    reproduces: &mut dyn FnMut(&Scenario) -> bool,
    log: &mut dyn FnMut(ShrinkStep),
) -> Shrunk {
    let started = Instant::now();
    let mut best = scenario.clone();
    let (mut runs, mut finished) = (0, true);
    let mut span = best.steps.len() / 2;
    'spans: while span > 0 {
        let (mut from, mut shorter) = (0, false);
        while from < best.steps.len() {
            if runs >= budget.runs || started.elapsed() >= budget.time {
                finished = false;
                break 'spans;
            }
            let mut candidate = best.clone();
            let upto = candidate.steps.len().min(from + span);
            candidate.steps.drain(from..upto);
            runs += 1;
            if reproduces(&candidate) {
                best = candidate;
                shorter = true;
                log(ShrinkStep { runs, steps: best.steps.len() });
            } else {
                from += span;
            }
        }
        // Without one step another may have become needless.
        if span > 1 || !shorter {
            span /= 2;
        }
    }
    Shrunk { scenario: best, runs, took: started.elapsed(), finished }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Extent, Policy};
    use crate::scenario::{Header, Op};
    use std::collections::BTreeMap;

    const BUDGET: ShrinkBudget = ShrinkBudget { time: Duration::from_secs(600), runs: 100_000 };

    fn writes(lbas: impl IntoIterator<Item = u64>) -> Scenario {
        let ops = lbas.into_iter().map(|lba| Op::Write { at: Extent::lbas(lba, 1) });
        Scenario::new(Header::new(BTreeMap::new(), Policy::Exact, ""), ops)
    }

    fn has(scenario: &Scenario, lba: u64) -> bool {
        scenario.steps.iter().any(|step| step.op == Op::Write { at: Extent::lbas(lba, 1) })
    }

    #[test]
    fn what_matters_is_left_and_each_step_is_logged() {
        let mut left = Vec::new();
        // 7 needs 90, and 90 alone needs 3.
        let mut reproduces =
            |scenario: &Scenario| has(scenario, 7) && has(scenario, 90) && has(scenario, 3);
        let shrunk =
            shrink(&writes(0..100), BUDGET, &mut reproduces, &mut |step| left.push(step.steps));
        assert_eq!(shrunk.scenario, writes([3, 7, 90]));
        assert!(shrunk.finished && shrunk.runs < 200, "{}", shrunk.runs);
        assert!(left.is_sorted_by(|a, b| a > b) && left.last() == Some(&3), "{left:?}");
    }

    #[test]
    fn a_step_that_another_kept_goes_with_it() {
        // Steps go in pairs only: 4 with 5.
        let mut reproduces =
            |scenario: &Scenario| has(scenario, 9) && has(scenario, 5) <= has(scenario, 4);
        let shrunk = shrink(&writes([4, 5, 9]), BUDGET, &mut reproduces, &mut |_| ());
        assert_eq!(shrunk.scenario, writes([9]));
    }

    #[test]
    fn the_budget_ends_it_and_is_told() {
        let budget = ShrinkBudget { runs: 3, ..BUDGET };
        let shrunk = shrink(&writes(0..100), budget, &mut |_| false, &mut |_| ());
        assert_eq!((shrunk.runs, shrunk.finished), (3, false));
        assert_eq!(shrunk.scenario, writes(0..100));
    }
}
