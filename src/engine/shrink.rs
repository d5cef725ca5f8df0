//! THE shrinker: makes a scenario that shows something shorter and plainer for as long as it still
//! shows it.
//!
//! It tries candidates in a fixed order and keeps each that is lighter than the best so far and
//! still reproduces: spans of steps left out (halving), snapshots made one, operations plainer,
//! extents shorter and towards 0, the world plainer. It ends when a whole round brings nothing, or
//! when its budget is spent. Pure but for what the caller's predicate does. Not covered: what
//! "shows it" means (the caller decides), flakiness.

use super::shrink_bold::bold_candidates;
use super::shrink_parts::{
    Weight, each_extent, each_label, is_sensible, labels_taken, plainer_extents, plainer_headers,
    plainer_ops, weight,
};
use crate::block::Extent;
use crate::scenario::{Label, Op, Scenario};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How much shrinking may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShrinkBudget {
    /// How long it may take.
    pub time: Duration,
    /// How many candidates may be run.
    pub runs: u64,
}

/// A candidate that was kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ShrinkStep {
    /// What was tried.
    pub what: &'static str,
    /// Steps that are left.
    pub steps: usize,
    /// Candidates run so far.
    pub runs: u64,
}

/// What shrinking came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrunk {
    /// The lightest scenario that reproduced; the original if none did.
    pub scenario: Scenario,
    /// Candidates run.
    pub runs: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether nothing was left to try; otherwise the budget was spent.
    pub finished: bool,
}

/// Shrinks `scenario`, which is taken to reproduce. `reproduces` runs a candidate and says whether
/// it shows the same; `log` hears of every candidate that was kept.
pub fn shrink(
    scenario: &Scenario,
    budget: ShrinkBudget,
    reproduces: &mut dyn FnMut(&Scenario) -> bool,
    log: &mut dyn FnMut(ShrinkStep),
) -> Shrunk {
    let start = Instant::now();
    let (best, best_weight) = (scenario.clone(), weight(scenario));
    let mut work =
        Work { best, best_weight, budget, start, runs: 0, spent: false, reproduces, log };
    loop {
        let before = work.best_weight;
        work.leave_out_spans();
        work.make_snapshots_one();
        work.make_ops_plainer();
        work.make_extents_plainer();
        work.make_the_world_plainer();
        work.renumber();
        if work.best_weight == before {
            // Only where plain candidates bring nothing more.
            work.be_bold();
        }
        if work.spent || work.best_weight == before {
            break;
        }
    }
    let Work { best, runs, spent, .. } = work;
    Shrunk { scenario: best, runs, took: start.elapsed(), finished: !spent }
}

/// How often a scenario reproduces in `tries` runs: a finding that does not always is flaky.
pub fn reproduced_k_of_n(
    scenario: &Scenario,
    tries: u32,
    reproduces: &mut dyn FnMut(&Scenario) -> bool,
) -> u32 {
    (0..tries).map(|_| u32::from(reproduces(scenario))).sum()
}

struct Work<'w> {
    best: Scenario,
    best_weight: Weight,
    budget: ShrinkBudget,
    start: Instant,
    runs: u64,
    spent: bool,
    reproduces: &'w mut dyn FnMut(&Scenario) -> bool,
    log: &'w mut dyn FnMut(ShrinkStep),
}

impl Work<'_> {
    /// Runs a candidate, if it is lighter and means something, and keeps it if it reproduces.
    fn keep(&mut self, what: &'static str, candidate: Scenario) -> bool {
        let candidate_weight = weight(&candidate);
        if candidate_weight >= self.best_weight || !is_sensible(&candidate) {
            return false;
        }
        if self.runs >= self.budget.runs || self.start.elapsed() >= self.budget.time {
            self.spent = true;
        }
        if self.spent {
            return false;
        }
        self.runs += 1;
        if !(self.reproduces)(&candidate) {
            return false;
        }
        (self.best, self.best_weight) = (candidate, candidate_weight);
        let steps = self.best.steps.len();
        (self.log)(ShrinkStep { what, steps, runs: self.runs });
        true
    }

    /// Spans of steps, long ones first, from the end, where most of what follows is needless.
    fn leave_out_spans(&mut self) {
        let mut len = self.best.steps.len().max(1);
        while len > 0 {
            let mut end = self.best.steps.len();
            while end > 0 && !self.spent {
                let start = end.saturating_sub(len);
                let mut candidate = self.best.clone();
                candidate.steps.drain(start..end);
                self.keep("steps left out", candidate);
                end = start.min(self.best.steps.len());
            }
            len /= 2;
        }
    }

    /// Uses an earlier snapshot in place of a later one, which then need not be taken.
    fn make_snapshots_one(&mut self) {
        let taken = labels_taken(&self.best.steps);
        for (place, later) in taken.iter().enumerate().rev() {
            for earlier in &taken[..place] {
                let mut candidate = self.best.clone();
                candidate
                    .steps
                    .retain(|step| !matches!(&step.op, Op::Take { label, .. } if label == later));
                rename(&mut candidate, &BTreeMap::from([(*later, *earlier)]));
                if self.keep("two snapshots made one", candidate) {
                    break;
                }
            }
        }
    }

    /// Each step by itself: no fault, no nesting, waiting, plain kinds.
    fn make_ops_plainer(&mut self) {
        for place in 0..self.best.steps.len() {
            if self.best.steps[place].fault.is_some() {
                let mut candidate = self.best.clone();
                candidate.steps[place].fault = None;
                self.keep("fault left out", candidate);
            }
            // Each kept candidate has plainer ones of its own.
            while let Some(kept) = self.one_plainer_op(place) {
                if !kept {
                    break;
                }
            }
        }
    }

    fn one_plainer_op(&mut self, place: usize) -> Option<bool> {
        for op in plainer_ops(&self.best.steps.get(place)?.op) {
            let mut candidate = self.best.clone();
            candidate.steps[place].op = op;
            if self.keep("plainer operation", candidate) {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Extents: all that are equal together first, then each by itself, then all by whole chunks.
    fn make_extents_plainer(&mut self) {
        let mut all: BTreeSet<Extent> = BTreeSet::new();
        each_extent(&mut self.best.clone(), &mut |extent, _| {
            all.insert(*extent);
        });
        for old in all {
            let mut from = old;
            while let Some(new) = plainer_extents(from).find(|new| {
                let mut candidate = self.best.clone();
                each_extent(&mut candidate, &mut |extent, _| {
                    if *extent == from {
                        *extent = *new;
                    }
                });
                self.keep("plainer extent", candidate)
            }) {
                from = new;
            }
        }
        let mut count = 0;
        each_extent(&mut self.best.clone(), &mut |_, _| count += 1);
        for place in 0..count {
            while self.one_plainer_extent(place) {}
        }
    }

    fn one_plainer_extent(&mut self, place: usize) -> bool {
        let mut old = None;
        each_extent(&mut self.best.clone(), &mut |extent, at| {
            if at == place {
                old = Some(*extent);
            }
        });
        let Some(old) = old else { return false };
        plainer_extents(old).any(|new| {
            let mut candidate = self.best.clone();
            each_extent(&mut candidate, &mut |extent, at| {
                if at == place {
                    *extent = new;
                }
            });
            self.keep("plainer extent", candidate)
        })
    }

    fn make_the_world_plainer(&mut self) {
        loop {
            let kept = plainer_headers(&self.best.header).into_iter().any(|header| {
                let steps = self.best.steps.clone();
                self.keep("plainer world", Scenario { header, steps })
            });
            if !kept {
                break;
            }
        }
    }

    /// Two changes at once; ends with the first that is kept, for then plain ones may do again.
    fn be_bold(&mut self) {
        for (what, candidate) in bold_candidates(&self.best) {
            if self.keep(what, candidate) || self.spent {
                return;
            }
        }
    }

    /// Names the snapshots s0, s1, ... in the order they are taken.
    fn renumber(&mut self) {
        let names: BTreeMap<Label, Label> =
            labels_taken(&self.best.steps).into_iter().zip((0..).map(Label)).collect();
        let mut candidate = self.best.clone();
        rename(&mut candidate, &names);
        self.keep("snapshots renumbered", candidate);
    }
}

fn rename(scenario: &mut Scenario, names: &BTreeMap<Label, Label>) {
    for step in &mut scenario.steps {
        each_label(&mut step.op, &mut |label| {
            *label = names.get(label).copied().unwrap_or(*label);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Lba;
    use crate::engine::testing::{diff, scenario as on, take, write};
    use crate::scenario::SyncSource;
    use proptest::prelude::*;

    const BUDGET: ShrinkBudget = ShrinkBudget { time: Duration::from_secs(600), runs: 100_000 };

    fn scenario(ops: Vec<Op>) -> Scenario {
        on(4096, ops)
    }

    fn shrunk(ops: Vec<Op>, mut reproduces: impl FnMut(&Scenario) -> bool) -> Shrunk {
        shrink(&scenario(ops), BUDGET, &mut reproduces, &mut |_| ())
    }

    /// A made-up array: it loses a discard of data between two snapshots of any names.
    fn loses_a_discard(scenario: &Scenario) -> bool {
        let ops: Vec<&Op> = scenario.steps.iter().map(|step| &step.op).collect();
        let Some(Op::Diff { snap, base: Some(base), .. }) = ops.last() else { return false };
        let place = |label: &Label| {
            ops.iter().position(|op| matches!(op, Op::Take { label: taken, .. } if taken == label))
        };
        let (Some(from), Some(to)) = (place(base), place(snap)) else { return false };
        if from >= to {
            return false;
        }
        ops[..from].iter().any(|written| {
            let Op::Write { at } = written else { return false };
            let lost = |op: &&&Op| matches!(op, Op::Discard { at: gone } if gone.overlaps(*at));
            ops[from..to].iter().any(|op| lost(&op))
        })
    }

    #[test]
    fn a_long_scenario_comes_down_to_the_four_operations_that_matter() {
        let mut ops = Vec::new();
        for round in 0..12u32 {
            let at = u64::from(round) * 100;
            ops.extend([write(at, 70), write(at + 30, 9), take(round + 3), Op::Flush]);
            ops.push(Op::Discard { at: Extent::lbas(at + 7, 40) });
            ops.push(diff(round + 3, round.checked_sub(1).map(|before| before + 3)));
        }
        ops.push(take(99));
        ops.push(diff(99, Some(5)));
        let found = shrunk(ops, loses_a_discard);
        let wanted = [
            write(0, 1),
            take(0),
            Op::Discard { at: Extent::lbas(0, 1) },
            take(1),
            diff(1, Some(0)),
        ];
        let ops: Vec<Op> = found.scenario.steps.iter().map(|step| step.op.clone()).collect();
        assert_eq!(ops, wanted);
        assert!(found.finished && loses_a_discard(&found.scenario));
    }

    #[test]
    fn nesting_faults_and_freedoms_that_do_not_matter_go() {
        let nested = vec![
            Op::Concurrent(vec![write(64, 8), take(4), Op::Flush]),
            Op::Diff {
                snap: Label(4),
                base: None,
                from: Lba::new(70),
                between_pages: Some((2, Box::new(write(0, 1)))),
            },
        ];
        let mut start = scenario(nested);
        start.header.freedoms.uneven_pages = true;
        start.header.page_limit = Some(2);
        let mut full_diff = |s: &Scenario| {
            s.steps.last().is_some_and(|step| matches!(step.op, Op::Diff { base: None, .. }))
        };
        let found = shrink(&start, BUDGET, &mut full_diff, &mut |_| ());
        let ops: Vec<Op> = found.scenario.steps.iter().map(|step| step.op.clone()).collect();
        assert_eq!(ops, [take(0), diff(0, None)]);
        assert!(found.scenario.header.freedoms.is_none());
        assert_eq!(found.scenario.header.page_limit, None);
    }

    #[test]
    fn a_spent_budget_ends_it_and_is_told() {
        let ops: Vec<Op> = (0..50).map(|at| write(at * 10, 5)).collect();
        let budget = ShrinkBudget { runs: 3, ..BUDGET };
        let mut logged = 0;
        let found =
            shrink(&scenario(ops), budget, &mut |s| s.steps.len() > 5, &mut |_| logged += 1);
        assert_eq!((found.runs, found.finished), (3, false));
        assert!(found.scenario.steps.len() > 5 && logged <= 3);
    }

    #[test]
    fn runs_are_counted_for_flaky_findings() {
        let mut turn = 0;
        let mut every_third = |_: &Scenario| {
            turn += 1;
            turn % 3 == 0
        };
        assert_eq!(reproduced_k_of_n(&scenario(vec![]), 9, &mut every_third), 3);
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let extent = (0u64..400, 1u64..90).prop_map(|(at, len)| Extent::lbas(at, len));
        let op = prop_oneof![
            extent.clone().prop_map(|at| Op::Write { at }),
            extent.clone().prop_map(|at| Op::Discard { at }),
            extent.prop_map(|at| Op::Zero { at }),
            (0u32..4, any::<bool>())
                .prop_map(|(label, wait)| Op::Take { label: Label(label), wait }),
            (0u32..4, prop::option::of(0u32..4)).prop_map(|(snap, base)| diff(snap, base)),
            (0u32..4).prop_map(|snap| Op::Sync {
                snap: Label(snap),
                base: None,
                from: SyncSource::Snapshot,
                during: vec![write(1, 1)],
            }),
        ];
        prop::collection::vec(op, 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_comes_out_reproduces_and_is_never_heavier(ops in ops(), least in 0u64..200) {
            // Shows as long as enough LBAs are written in all.
            let mut enough = |s: &Scenario| {
                let written = s.steps.iter().map(|step| match &step.op {
                    Op::Write { at } => at.len_lbas().get(),
                    _ => 0,
                });
                written.sum::<u64>() >= least
            };
            let start = scenario(ops);
            prop_assume!(enough(&start));
            let found = shrink(&start, BUDGET, &mut enough, &mut |_| ());
            prop_assert!(enough(&found.scenario) && found.finished);
            prop_assert!(weight(&found.scenario) <= weight(&start));
            let again = shrink(&found.scenario, BUDGET, &mut enough, &mut |_| ());
            prop_assert_eq!(&again.scenario, &found.scenario, "a local minimum stays one");
            let same = shrink(&start, BUDGET, &mut enough, &mut |_| ());
            prop_assert_eq!(same.scenario, found.scenario);
        }
    }
}
