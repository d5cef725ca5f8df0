//! The kill matrix: every planted bug against random checking, the lower-bound-only baseline, the
//! 20 fixed tests and the exhaustive search. The bug is switched on in the target and nobody tells
//! the checker.
//!
//! The matrix is itself under test: an honest row that must stay clean, a canary (an oracle without
//! checks) that must find nothing, so that a green matrix means something.
//! Not covered: how cases are drawn and shrunk ([`Cases`]), how the matrix is shown (`crate::cli`).

use super::case::run_case;
use super::explore::{SmallScope, out_of_alphabet};
use super::second_judge::SecondScore;
use super::selftest::{Found, Planted, in_order, score};
use super::witness::witness;
use crate::engine::explore::Limits;
use crate::engine::{Coverage, Event, Goal};
use crate::oracle::{CheckId, Checks, Kind, Reason, Verdict};
use crate::scenario::{Op, Scenario};
use crate::sim::SimError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where random cases come from, and how one that fails is shortened.
pub trait Cases: Sync {
    /// The case of this name: a pure function.
    fn case(&self, seed: u64, case: u64) -> Scenario;
    /// A shorter scenario for which `reproduces` still holds.
    fn shrink(
        &self,
        scenario: &Scenario,
        reproduces: &mut dyn FnMut(&Scenario) -> bool,
    ) -> Scenario;
    /// What all honest cases together should have reached: none if they are too few to ask.
    fn goals(&self) -> &[Goal];
}

/// How much is spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Seeds 1, 2, ... of random checking.
    pub seeds: u64,
    /// Cases of one seed at most, for each bug.
    pub cases: u64,
    /// Cases of one seed on the honest target.
    pub honest_cases: u64,
    /// Time of one exhaustive search.
    pub explore: Duration,
    /// Depth of the exhaustive search.
    pub explore_depth: usize,
}

/// The first kill of one seed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kill {
    case: u64,
    ops: u64,
    kind: Kind,
    scenario: Scenario,
}

/// A symptom of a bug that the catalogue does not list: it kills nothing, and is not hidden either.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unlisted {
    /// The seed.
    pub seed: u64,
    /// The case of that seed.
    pub case: u64,
    /// The kind it was called.
    pub kind: Kind,
    /// What the oracle said.
    pub sentence: String,
}

/// What random checking made of one target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RandomScore {
    /// Seeds that found it, with a listed kind.
    pub killed: u64,
    /// Operations to the first kill, for the seeds that killed, ascending.
    pub ops: Vec<u64>,
    /// Kinds of the first kills.
    pub kinds: Vec<Kind>,
    /// What was seen before the first kill and is of no listed kind: another symptom of the bug. The
    /// first one of each seed that has one.
    pub unlisted: Vec<Unlisted>,
    /// Steps before the observing one after shrinking, for each kill.
    pub shrunk: Vec<usize>,
}

impl RandomScore {
    /// Median number of operations to the first kill; seeds without a kill count as never.
    pub fn median_ops(&self, seeds: u64) -> Option<u64> {
        let middle = usize::try_from(seeds.saturating_sub(1) / 2).ok()?;
        self.ops.get(middle).copied()
    }
    /// Kinds that are not listed, and in how many seeds each of them was the first symptom.
    pub fn first_seen_as(&self) -> BTreeMap<Kind, u64> {
        let mut seeds = BTreeMap::new();
        for symptom in &self.unlisted {
            *seeds.entry(symptom.kind).or_default() += 1;
        }
        seeds
    }
    /// The longest finding after shrinking.
    pub fn longest(&self) -> Option<usize> {
        self.shrunk.iter().copied().max()
    }
}

/// What the exhaustive search made of a bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExploreScore {
    /// Operations of the shortest sequence that shows it, and the kind.
    pub found: Option<(usize, Kind)>,
    /// The depth that was searched to the end.
    pub depth: usize,
    /// What its witness needs that the alphabet has not.
    pub needs: Option<&'static str>,
}

/// One bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MatrixRow {
    /// Its name.
    pub name: &'static str,
    /// `array` or `pipeline`.
    pub side: &'static str,
    /// Kinds it may be found as.
    pub kinds: &'static [&'static str],
    /// Its listed length.
    pub listed_len: u32,
    /// Fixed tests that catch it.
    pub fixed: Vec<&'static str>,
    /// Random checking with the full oracle.
    pub random: RandomScore,
    /// Seeds in which the lower-bound-only baseline finds it, on the same cases.
    pub baseline_killed: u64,
    /// The exhaustive search; it does without the pipeline.
    pub explore: Option<ExploreScore>,
    /// The second judge on what was found, as it was and shrunk, and on the witness.
    pub second: SecondScore,
}

/// An honest target under the same cases.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HonestRow {
    /// Cases that were run.
    pub cases: u64,
    /// Operations that were run.
    pub ops: u64,
    /// What was wrongly called wrong: the case and the sentence.
    pub false_alarms: Vec<(u64, u64, String)>,
    /// Fixed tests that fail on it.
    pub fixed: Vec<&'static str>,
    /// Cases that could not be judged: how many, and why the first.
    pub unknown: (u64, Option<String>),
    /// Cases in which nothing was there to compare.
    pub nothing_compared: u64,
    /// Goals of coverage that were asked for.
    pub goals: usize,
    /// Those that the cases should have reached and did not.
    pub missed_goals: Vec<&'static str>,
    /// Combinations of coverage that were reached, and all.
    pub combinations: (usize, usize),
    /// The second judge on the first cases of each seed.
    pub second: SecondScore,
}

/// The matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matrix {
    /// Seeds of random checking.
    pub seeds: u64,
    /// The bugs.
    pub rows: Vec<MatrixRow>,
    /// The honest target.
    pub honest: HonestRow,
    /// The bug that the canary planted, and in how many seeds an oracle without checks found it.
    pub canary: Option<(&'static str, u64)>,
}

impl MatrixRow {
    /// Whether only a figure of the fixed suite can show it: speed is not judged elsewhere.
    fn only_a_figure(&self) -> bool {
        self.kinds == [Kind::Figure.name()]
    }
    /// What this row has against a green self-test.
    fn faults(&self, seeds: u64) -> Vec<String> {
        let name = self.name;
        let mut faults = Vec::new();
        let survives = match self.only_a_figure() {
            true => self.fixed.is_empty(),
            false => self.random.killed == 0,
        };
        if survives {
            faults.push(format!("{name} survives"));
        } else if !self.only_a_figure() && self.random.killed < seeds {
            let survived = seeds - self.random.killed;
            faults.push(format!("{name} survives in {survived} of {seeds} seeds"));
        }
        let listed = usize::try_from(self.listed_len).unwrap_or(usize::MAX);
        if let Some(longest) = self.random.longest().filter(|longest| *longest > listed) {
            faults.push(format!("{name} shrinks to {longest} operations, listed are {listed}"));
        }
        faults
    }
}

impl Matrix {
    /// Everything that keeps the self-test from passing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.rows.iter().flat_map(|row| row.faults(self.seeds)).collect();
        let alarms = self.honest.false_alarms.iter();
        faults.extend(
            alarms.map(|(seed, case, text)| format!("false alarm g1:{seed}:{case}: {text}")),
        );
        faults.extend(
            self.honest.fixed.iter().map(|test| format!("{test} fails on the honest target")),
        );
        if let (count @ 1.., why) = &self.honest.unknown {
            let why = why.as_deref().unwrap_or("no reason");
            faults.push(format!("{count} honest cases could not be judged: {why}"));
        }
        faults.extend(self.honest.missed_goals.iter().map(|goal| format!("never reached: {goal}")));
        if let Some((name, killed)) = self.canary.filter(|(_, killed)| *killed > 0) {
            faults.push(format!("an oracle without checks finds {name} in {killed} seeds"));
        }
        faults.extend(self.second().faults());
        faults
    }
    /// The second judge on all runs that it was shown.
    pub fn second(&self) -> SecondScore {
        let mut all = SecondScore::default();
        self.rows.iter().for_each(|row| all.merge(&row.second));
        all.merge(&self.honest.second);
        all
    }
    /// Bugs that random checking finds, that the baseline misses, that the fixed tests miss.
    pub fn totals(&self) -> (usize, usize, usize) {
        let count = |wanted: &dyn Fn(&MatrixRow) -> bool| {
            self.rows.iter().filter(|row| wanted(row)).count()
        };
        (
            count(&|row| row.random.killed > 0),
            count(&|row| row.baseline_killed == 0),
            count(&|row| row.fixed.is_empty()),
        )
    }
}

/// An oracle without checks.
pub fn no_checks() -> Checks {
    CheckId::ALL.into_iter().fold(Checks::ALL, Checks::without)
}

/// Runs a case and answers its verdict, operations and the step of its first violation.
fn judged(scenario: &Scenario, checks: Checks) -> Result<(Verdict, u64, Option<usize>), SimError> {
    let (mut step, mut failed_at) = (0, None);
    let outcome = run_case(scenario, checks, &mut |event| match event {
        Event::Step { index, .. } => step = index,
        Event::Violation { .. } => failed_at = failed_at.or(Some(step)),
        _ => {}
    })?;
    Ok((outcome.verdict, outcome.ops, failed_at))
}

/// One seed against one bug: the first case that fails with a listed kind, and the first before it
/// that fails otherwise.
fn hunt(
    cases: &dyn Cases,
    bug: Planted,
    checks: Checks,
    (seed, most): (u64, u64),
    stop: &AtomicBool,
) -> Result<(Option<Kill>, Option<Unlisted>), SimError> {
    let (mut spent, mut unlisted) = (0, None);
    for case in 0..most {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut scenario = cases.case(seed, case);
        scenario.header.planted = vec![bug.name().to_owned()];
        let (verdict, ops, _) = judged(&scenario, checks)?;
        spent += ops;
        let Some(violation) = verdict.violation() else { continue };
        if bug.kinds().contains(&violation.kind.name()) {
            return Ok((Some(Kill { case, ops: spent, kind: violation.kind, scenario }), unlisted));
        }
        let (kind, sentence) = (violation.kind, &violation.sentence);
        unlisted.get_or_insert_with(|| Unlisted { seed, case, kind, sentence: sentence.clone() });
    }
    Ok((None, unlisted))
}

/// The case that killed, shortened.
fn shortened(cases: &dyn Cases, kill: &Kill) -> Scenario {
    let mut same_kind = |candidate: &Scenario| {
        let verdict = judged(candidate, Checks::ALL).map(|(verdict, ..)| verdict);
        verdict.is_ok_and(|verdict| verdict.violation().is_some_and(|v| v.kind == kill.kind))
    };
    cases.shrink(&kill.scenario, &mut same_kind)
}

/// Random checking with the full oracle, over all seeds; both judges hear what it finds.
fn random(
    cases: &dyn Cases,
    bug: Planted,
    budget: Budget,
    second: &mut SecondScore,
    stop: &AtomicBool,
) -> Result<RandomScore, SimError> {
    let mut score = RandomScore::default();
    for seed in 1..=budget.seeds {
        let from = (seed, budget.cases);
        let (kill, unlisted) = hunt(cases, bug, Checks::ALL, from, stop)?;
        score.unlisted.extend(unlisted);
        let Some(kill) = kill else { continue };
        let shrunk = shortened(cases, &kill);
        score.killed += 1;
        score.ops.push(kill.ops);
        score.kinds.push(kill.kind);
        score.shrunk.extend(judged(&shrunk, Checks::ALL)?.2);
        let case = format!("g1:{seed}:{} with {}", kill.case, bug.name());
        second.hear(&case, &kill.scenario)?;
        second.hear(&format!("{case}, shrunk"), &shrunk)?;
    }
    score.ops.sort_unstable();
    score.kinds.sort_unstable();
    score.kinds.dedup();
    Ok(score)
}

/// In how many seeds these checks find a bug at all.
fn kills_with(
    cases: &dyn Cases,
    bug: Planted,
    checks: Checks,
    budget: Budget,
    stop: &AtomicBool,
) -> Result<u64, SimError> {
    let mut killed = 0;
    for seed in 1..=budget.seeds {
        let (kill, _) = hunt(cases, bug, checks, (seed, budget.cases), stop)?;
        killed += u64::from(kill.is_some());
    }
    Ok(killed)
}

fn exhaustively(bug: Planted, budget: Budget, stop: &AtomicBool) -> Option<ExploreScore> {
    let Planted::Array(_) = bug else { return None };
    let start = Instant::now();
    let expired = || stop.load(Ordering::Relaxed) || start.elapsed() > budget.explore;
    let limits = Limits {
        depth: budget.explore_depth,
        max_states: u64::MAX,
        // The bugs are spread over the cores already.
        jobs: 1,
        prune: true,
        first_only: true,
        expired: &expired,
    };
    let found = SmallScope::new(&[bug.name()], Checks::ALL).search(&limits);
    let first = found.findings.first();
    Some(ExploreScore {
        found: first.map(|(path, violation)| (path.choices().len(), violation.kind)),
        depth: found.depth,
        needs: out_of_alphabet(bug.name()),
    })
}

fn row(
    cases: &dyn Cases,
    bug: Planted,
    budget: Budget,
    stop: &AtomicBool,
) -> Result<MatrixRow, SimError> {
    let mut second = SecondScore::default();
    if let Some(mut known) = witness(bug.name()) {
        known.header.planted = vec![bug.name().to_owned()];
        second.hear(&format!("the witness of {}", bug.name()), &known)?;
    }
    Ok(MatrixRow {
        name: bug.name(),
        side: bug.side(),
        kinds: bug.kinds(),
        listed_len: bug.witness_len(),
        fixed: score(Some(bug))?.caught_by,
        random: random(cases, bug, budget, &mut second, stop)?,
        baseline_killed: kills_with(cases, bug, Checks::LOWER_BOUND_ONLY, budget, stop)?,
        explore: exhaustively(bug, budget, stop),
        second,
    })
}

/// What one thread saw of the honest target.
#[derive(Default)]
struct HonestPart {
    row: HonestRow,
    coverage: Coverage,
}

impl HonestPart {
    fn case(&mut self, cases: &dyn Cases, seed: u64, case: u64) -> Result<(), SimError> {
        let scenario = cases.case(seed, case);
        let (mut step, mut skipped) = (0, Vec::new());
        let outcome = run_case(&scenario, Checks::ALL, &mut |event| match event {
            Event::Step { index, .. } => step = index,
            // An operation inside another may be skipped alone.
            Event::Skipped { op, .. } if is_step(&scenario, step, &op) => skipped.push(step),
            _ => {}
        })?;
        self.coverage.count_but(&scenario, &skipped);
        if case < JUDGED_TWICE {
            self.row.second.hear(&format!("g1:{seed}:{case}"), &scenario)?;
        }
        self.row.cases += 1;
        self.row.ops += outcome.ops;
        match outcome.verdict {
            Verdict::Pass => {}
            Verdict::Unknown(Reason::NothingCompared) => self.row.nothing_compared += 1,
            Verdict::Unknown(reason) => {
                let (count, why) = &mut self.row.unknown;
                *count += 1;
                why.get_or_insert_with(|| format!("g1:{seed}:{case}: {reason}"));
            }
            Verdict::Fail(violations) => {
                let text = violations.first().map(ToString::to_string).unwrap_or_default();
                self.row.false_alarms.push((seed, case, text));
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: HonestPart) {
        let (row, more) = (&mut self.row, other.row);
        row.cases += more.cases;
        row.ops += more.ops;
        row.nothing_compared += more.nothing_compared;
        row.unknown.0 += more.unknown.0;
        row.unknown.1 = row.unknown.1.take().or(more.unknown.1);
        row.false_alarms.extend(more.false_alarms);
        row.second.merge(&more.second);
        self.coverage.merge(&other.coverage);
    }
}

/// Whether `op` is the whole of that step.
fn is_step(scenario: &Scenario, step: usize, op: &Op) -> bool {
    let whole = scenario.steps.get(step).map(|step| &step.op);
    let inner = match whole {
        Some(Op::On { op, .. }) => Some(op.as_ref()),
        other => other,
    };
    whole == Some(op) || inner == Some(op)
}

/// Cases that are taken at once.
const STRETCH: u64 = 256;
/// Honest cases of each seed that the second judge hears too. All foci of the generator come many
/// times among so many; all cases would take it twice as long as the oracle.
const JUDGED_TWICE: u64 = 256;

/// The same cases, and more, on an honest target: nothing may be found.
fn honest(
    cases: &dyn Cases,
    budget: Budget,
    stop: &AtomicBool,
    tell: &Tell<'_>,
) -> Result<HonestRow, SimError> {
    let Found { caught_by, otherwise, .. } = score(None)?;
    let per_seed = budget.honest_cases.div_ceil(STRETCH);
    let stretches: Vec<(u64, u64)> = (1..=budget.seeds)
        .flat_map(|seed| (0..per_seed).map(move |nth| (seed, nth * STRETCH)))
        .collect();
    let run = |(seed, first): (u64, u64)| -> Result<HonestPart, SimError> {
        let mut part = HonestPart::default();
        for case in first..budget.honest_cases.min(first + STRETCH) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            part.case(cases, seed, case)?;
        }
        tell(Progress::Honest { cases: part.row.cases });
        Ok(part)
    };
    // Parts come in order: what is named first is the same for any number of threads.
    let mut all = HonestPart::default();
    for part in in_order(&stretches, stop, run) {
        all.merge(part?);
    }
    let HonestPart { mut row, coverage } = all;
    row.false_alarms.sort();
    row.fixed = [caught_by, otherwise].concat();
    row.goals = cases.goals().len();
    let missed = cases.goals().iter().filter(|&&goal| coverage.goal(goal) == 0);
    row.missed_goals = missed.map(|goal| goal.words()).collect();
    row.combinations = coverage.reached();
    Ok(row)
}

/// How far the matrix is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// One bug is done.
    Bug {
        /// Its name.
        name: &'static str,
    },
    /// More honest cases are done.
    Honest {
        /// How many.
        cases: u64,
    },
}

/// Who is told.
pub type Tell<'t> = dyn Fn(Progress) + Sync + 't;

/// Fills the matrix for these bugs, several at a time; ends early when `stop` is set.
///
/// # Errors
/// The simulator's, if it cannot be set up.
pub fn matrix(
    bugs: &[Planted],
    cases: &dyn Cases,
    budget: Budget,
    stop: &AtomicBool,
    tell: &Tell<'_>,
) -> Result<Matrix, SimError> {
    let canary = match bugs.first() {
        Some(&bug) => Some((bug.name(), kills_with(cases, bug, no_checks(), budget, stop)?)),
        None => None,
    };
    let one = |bug: Planted| {
        let row = row(cases, bug, budget, stop);
        tell(Progress::Bug { name: bug.name() });
        row
    };
    let rows = in_order(bugs, stop, one).into_iter().collect::<Result<_, _>>()?;
    let honest = honest(cases, budget, stop, tell)?;
    Ok(Matrix { seeds: budget.seeds, rows, honest, canary })
}

#[cfg(test)]
#[path = "selftest_matrix_tests.rs"]
mod tests;
