//! Coverage of the model: which combinations (`super::coverage_cells`) and goals (`super::goals`) the
//! cases of a campaign reach.
//!
//! It looks at scenarios, not at runs: one pass over the operations with a small array of what each
//! LBA was, so that a case costs a few microseconds and nothing is allocated for an operation. Equal
//! cases count the same whoever runs them, and counts add up in any order. Not covered: why a step was
//! skipped; whoever knows that it was says so, and it does not count.

use super::coverage_cells::{Bits, Block, CELLS, Cell, Did, GROUPS, Relation, Upset};
use super::coverage_walk::Walk;
use super::goals::Goal;
use super::reach::Reach;
use crate::scenario::Scenario;
use serde::{Deserialize, Serialize};

/// [`Coverage`] as a file keeps it: a combination that was not reached is not in it. The numbers of
/// combinations and goals hold for one version of this program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoverageRecord {
    v: u32,
    reach: Reach,
    cases: u64,
    /// Number of a combination, and how often it was reached.
    combinations: Vec<(usize, u32)>,
    /// In how many cases each goal was reached, by its number.
    goals: Vec<u64>,
}

/// Counts of what was reached.
#[derive(Clone)]
pub struct Coverage {
    reach: Reach,
    counts: Box<[u32]>,
    goals: [u64; Goal::ALL.len()],
    cases: u64,
    walk: Walk,
}

/// A group of combinations that was not reached as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Operation, relation to snapshots, upset.
    pub words: String,
    /// Its combinations that were reached.
    pub reached: usize,
    /// All of its combinations.
    pub of: usize,
}

/// What a walk tells.
pub(super) struct Tally<'c> {
    counts: &'c mut [u32],
    goals: u64,
}

impl Tally<'_> {
    pub(super) fn cell(&mut self, cell: Cell) {
        if let Some(count) = self.counts.get_mut(cell.place()) {
            *count = count.saturating_add(1);
        }
    }
    pub(super) fn goal_if(&mut self, goal: Goal, reached: bool) {
        self.goals |= u64::from(reached) << goal as u32;
    }
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage::within(Reach::ALL)
    }
}

impl Coverage {
    /// Nothing yet, of cases that cannot reach more than that.
    pub fn within(reach: Reach) -> Coverage {
        Coverage {
            reach,
            counts: vec![0; CELLS].into_boxed_slice(),
            goals: [0; Goal::ALL.len()],
            cases: 0,
            walk: Walk::default(),
        }
    }

    /// Counts a case, all of whose steps ran.
    pub fn count(&mut self, scenario: &Scenario) {
        self.count_but(scenario, &[]);
    }

    /// Counts a case but for these steps, which were skipped; in ascending order.
    pub fn count_but(&mut self, scenario: &Scenario, skipped: &[usize]) {
        let mut tally = Tally { counts: &mut self.counts, goals: 0 };
        self.walk.run(scenario, skipped, &mut tally);
        let reached = tally.goals;
        for (place, count) in self.goals.iter_mut().enumerate() {
            *count += reached >> place & 1;
        }
        self.cases += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        for (count, more) in self.goals.iter_mut().zip(other.goals) {
            *count += more;
        }
        self.cases += other.cases;
    }

    /// As a file keeps it.
    pub fn record(&self) -> CoverageRecord {
        let counts = self.counts.iter().copied().enumerate().filter(|&(_, count)| count > 0);
        CoverageRecord {
            v: 1,
            reach: self.reach,
            cases: self.cases,
            combinations: counts.collect(),
            goals: self.goals.to_vec(),
        }
    }

    /// What a file kept. Combinations and goals that there are not are left out.
    pub fn of_record(record: &CoverageRecord) -> Coverage {
        let mut coverage = Coverage::within(record.reach);
        coverage.cases = record.cases;
        for &(place, times) in &record.combinations {
            if let Some(count) = coverage.counts.get_mut(place) {
                *count = times;
            }
        }
        for (goal, &times) in coverage.goals.iter_mut().zip(&record.goals) {
            *goal = times;
        }
        coverage
    }

    /// Cases that were counted.
    pub const fn cases(&self) -> u64 {
        self.cases
    }

    /// In how many cases a goal was reached.
    pub fn goal(&self, goal: Goal) -> u64 {
        self.goals[goal as usize]
    }

    /// Goals that can be reached, and those of them that never were.
    pub fn goals(&self) -> (usize, Vec<Goal>) {
        let missed = self.reach.goals().filter(|&goal| self.goal(goal) == 0).collect();
        (self.reach.goals().count(), missed)
    }

    /// How often a combination was reached.
    pub fn times(&self, cell: Cell) -> u32 {
        self.counts.get(cell.place()).copied().unwrap_or(0)
    }

    fn cells(&self) -> impl Iterator<Item = Cell> {
        Cell::all().filter(|&cell| self.reach.has(cell))
    }

    /// Combinations that were reached, and all that can be.
    pub fn reached(&self) -> (usize, usize) {
        let reached = self.cells().filter(|&cell| self.times(cell) > 0).count();
        (reached, self.cells().count())
    }

    /// Groups with combinations that were never reached, those that lack most first.
    pub fn lacking(&self) -> Vec<Group> {
        let mut groups: Vec<Option<Group>> = vec![None; GROUPS];
        for cell in self.cells() {
            if let Some(group) = groups.get_mut(cell.group()) {
                let words = || Group { words: cell.group_words(), reached: 0, of: 0 };
                let group = group.get_or_insert_with(words);
                group.of += 1;
                group.reached += usize::from(self.times(cell) > 0);
            }
        }
        let mut lacking: Vec<Group> =
            groups.into_iter().flatten().filter(|group| group.reached < group.of).collect();
        lacking.sort_by_key(|group| std::cmp::Reverse(group.of - group.reached));
        lacking
    }
}

/// The combination that an operation of `walk` makes.
pub(super) const fn cell(
    did: Did,
    block: Block,
    bits: Bits,
    relation: Relation,
    upset: Upset,
) -> Cell {
    Cell { did, block, bits, relation, upset }
}

#[cfg(test)]
mod tests {
    use super::super::{CaseName, PROFILES, generate};
    use super::*;
    use crate::block::Extent;
    use crate::engine::testing::{diff, scenario as on, take, write};
    use crate::scenario::Op;

    fn scenario(ops: Vec<Op>) -> Scenario {
        on(200, ops)
    }

    fn counted(ops: Vec<Op>) -> Coverage {
        let mut coverage = Coverage::default();
        coverage.count(&scenario(ops));
        coverage
    }

    #[test]
    fn an_operation_counts_with_its_block_bits_relation_and_upset() {
        let discard = Op::Discard { at: Extent::lbas(63, 1) };
        let kill = Op::Restart { clean: false };
        let ops = vec![write(63, 1), take(0), kill, discard, take(1), diff(1, Some(0))];
        let coverage = counted(ops);
        let bits = Bits::Bit63;
        let first = cell(Did::Write, Block::Untouched, bits, Relation::NoSnapshot, Upset::Nothing);
        let gone = cell(Did::Discard, Block::OldData, bits, Relation::Settled, Upset::Kill);
        let asked = cell(Did::Diff, Block::OldHole, bits, Relation::Adjacent, Upset::Kill);
        for cell in [first, gone, asked] {
            assert_eq!(coverage.times(cell), 1, "{cell:?}");
        }
        assert_eq!(coverage.goal(Goal::Bit63Alone), 1);
        assert_eq!(coverage.goal(Goal::WriteInCut), 0);
    }

    #[test]
    fn what_was_skipped_does_not_count() {
        let cut = Op::Concurrent(vec![take(1), write(3, 1)]);
        let ops = vec![take(0), cut, take(2), diff(2, Some(0))];
        assert_eq!(counted(ops.clone()).goal(Goal::WriteInCut), 1);
        let mut coverage = Coverage::default();
        coverage.count_but(&scenario(ops), &[1]);
        assert_eq!(coverage.goal(Goal::WriteInCut), 0);
        assert!(coverage.goals().1.contains(&Goal::WriteInCut));
    }

    #[test]
    fn counts_add_up_in_any_order_and_only_what_can_happen_is_reached() {
        let case = |case| generate(&PROFILES[0], CaseName { seed: 5, case });
        let (mut whole, mut even, mut odd) =
            (Coverage::default(), Coverage::default(), Coverage::default());
        for number in 0..600 {
            whole.count(&case(number));
            if number % 2 == 0 { &mut even } else { &mut odd }.count(&case(number));
        }
        odd.merge(&even);
        assert_eq!((&odd.counts, odd.goals, odd.cases), (&whole.counts, whole.goals, 600));
        let possible: u64 = Cell::all().map(|cell| u64::from(whole.times(cell))).sum();
        let all: u64 = whole.counts.iter().map(|&count| u64::from(count)).sum();
        assert_eq!(all, possible, "something was counted that is said not to happen");
    }

    #[test]
    fn every_goal_is_reached_by_the_first_cases_of_the_default_profile() {
        for seed in 1..=3 {
            let mut coverage = Coverage::default();
            for case in 0..2_000 {
                coverage.count(&generate(&PROFILES[0], CaseName { seed, case }));
            }
            let missed: Vec<&str> = coverage.goals().1.into_iter().map(Goal::words).collect();
            assert_eq!(missed, Vec::<&str>::new(), "seed {seed}");
        }
    }
}
