//! Plants every bug in turn and sees which of the 20 fixed tests catch it, in process. A test
//! catches a bug if the gravest of its violations is of a kind that the catalogue names; any other
//! failure is noted too.
//!
//! Not covered: lies of the HTTP side (they need the wire), random checking.

use super::inproc::{InProcess, InProcessConfig};
use crate::block::{BlockSize, LbaCount, RunId};
use crate::oracle::Kind;
use crate::sim::{Bug, SimError};
use crate::suite::{Outcome, SUITE, run_suite};
use crate::sync::{PipelineBug, PipelineBugs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A bug of either side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Of the simulated array.
    Array(Bug),
    /// Of the pipeline.
    Pipeline(PipelineBug),
}

impl Planted {
    /// Both catalogues.
    pub fn all() -> Vec<Planted> {
        Planted::array_side().chain(PipelineBug::ALL.into_iter().map(Planted::Pipeline)).collect()
    }
    /// The catalogue of the array.
    pub fn array_side() -> impl Iterator<Item = Planted> {
        Bug::ALL.iter().copied().map(Planted::Array)
    }
    /// The bug of this name.
    pub fn from_name(name: &str) -> Option<Planted> {
        let pipeline = || PipelineBug::from_name(name).map(Planted::Pipeline);
        Bug::from_name(name).map(Planted::Array).or_else(pipeline)
    }
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Planted::Array(bug) => bug.name(),
            Planted::Pipeline(bug) => bug.name(),
        }
    }
    /// `array` or `pipeline`.
    pub const fn side(self) -> &'static str {
        match self {
            Planted::Array(_) => "array",
            Planted::Pipeline(_) => "pipeline",
        }
    }
    /// What really shipped with it, where one thing is known, and what it does.
    pub const fn words(self) -> (Option<&'static str>, &'static str) {
        match self {
            Planted::Array(bug) => (Some(bug.spec().modelled_on), bug.spec().mechanism),
            Planted::Pipeline(bug) => (None, bug.description()),
        }
    }
    /// Steps of its listed witness before the observing one.
    pub const fn witness_len(self) -> u32 {
        match self {
            Planted::Array(bug) => bug.spec().witness_len,
            Planted::Pipeline(bug) => bug.witness_len(),
        }
    }
    /// Names of the kinds it may be found as.
    pub fn kinds(self) -> &'static [&'static str] {
        match self {
            Planted::Array(bug) => bug.spec().kinds,
            Planted::Pipeline(bug) => bug.kinds(),
        }
    }
}

/// What the suite said of one target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Tests that failed as the catalogue says.
    pub caught_by: Vec<&'static str>,
    /// Tests that failed otherwise, or could not be run.
    pub otherwise: Vec<&'static str>,
    /// The kinds seen, the gravest first.
    pub kinds: Vec<Kind>,
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BugScore {
    /// The bug.
    pub bug: Planted,
    /// What the suite said.
    pub found: Found,
}

/// Runs each test alone, on a fresh target with this bug (without one, on an honest target), so
/// that what one test spoils is not held against the next.
///
/// # Errors
/// The simulator's, if it cannot be set up.
pub fn score(bug: Option<Planted>) -> Result<Found, SimError> {
    let expected = bug.map_or(&[][..], Planted::kinds);
    let mut found = Found::default();
    for test in (1..).zip(&SUITE) {
        let target = InProcess::new(with(bug), RUN)?;
        let options = target.suite_options();
        let (mut sut, mut model) = (target.sut(), target.model());
        let summary = run_suite(&[test], &mut sut, &mut model, &options, &mut |_| ());
        for result in &summary.results {
            match &result.outcome {
                Outcome::Pass | Outcome::NotApplicable(_) => {}
                // The gravest kind is the finding's name: that one must be listed.
                Outcome::Fail(violations) => {
                    let kind = violations.first().map(|violation| violation.kind);
                    let listed = kind.is_some_and(|kind| expected.contains(&kind.name()));
                    let list = if listed { &mut found.caught_by } else { &mut found.otherwise };
                    list.push(result.name);
                    found.kinds.extend(kind);
                }
                Outcome::Error(_) => found.otherwise.push(result.name),
            }
        }
    }
    found.kinds.sort_unstable();
    found.kinds.dedup();
    Ok(found)
}

/// Fixed, so that every run of the self-test sees the same.
const RUN: RunId = RunId::from_u128(1);

fn with(bug: Option<Planted>) -> InProcessConfig {
    let (array_bugs, pipeline_bugs) = match bug {
        None => (Vec::new(), PipelineBugs::NONE),
        Some(Planted::Array(bug)) => (vec![bug], PipelineBugs::NONE),
        Some(Planted::Pipeline(bug)) => (Vec::new(), PipelineBugs::NONE.with(bug)),
    };
    let (len, block) = (LbaCount::mib(2048), BlockSize::SMALLEST);
    InProcessConfig { len, block, page_limit: 128, array_bugs, pipeline_bugs }
}

/// Scores all of `bugs`, several at a time, in their order; ends early when `stop` is set.
///
/// # Errors
/// The first that [`score`] answered.
pub fn table(bugs: &[Planted], stop: &AtomicBool) -> Result<Vec<BugScore>, SimError> {
    let scored = |bug| score(Some(bug)).map(|found| BugScore { bug, found });
    in_order(bugs, stop, scored).into_iter().collect()
}

/// Does the same with each of `items` on every core; results come in their order. Ends early, with
/// fewer results, when `stop` is set.
pub(super) fn in_order<T: Copy + Sync, R: Send>(
    items: &[T],
    stop: &AtomicBool,
    each: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&item) = items.get(index) else { return };
            let result = each(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The fixed tests that no bug of the table makes fail.
pub fn empty_rows(scores: &[BugScore]) -> Vec<&'static str> {
    let caught = |name: &&str| scores.iter().any(|score| score.found.caught_by.contains(name));
    SUITE.iter().map(|spec| spec.name).filter(|name| !caught(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_test_is_made_to_fail_by_a_planted_bug_and_none_by_an_honest_target() {
        assert_eq!(score(None), Ok(Found::default()));
        let scores = table(&Planted::all(), &AtomicBool::new(false)).expect("sets up");
        assert_eq!(scores.len(), Planted::all().len());
        assert_eq!(empty_rows(&scores), Vec::<&str>::new());
        let caught = scores.iter().filter(|score| !score.found.caught_by.is_empty()).count();
        assert!(caught >= 24, "only {caught} planted bugs are caught by the fixed suite");
        for BugScore { bug, found } in &scores {
            let unlisted = found.kinds.iter().find(|kind| !bug.kinds().contains(&kind.name()));
            assert_eq!(unlisted, None, "{}", bug.name());
        }
    }

    #[test]
    fn names_lead_to_bugs_of_both_sides() {
        for bug in Planted::all() {
            assert_eq!(Planted::from_name(bug.name()), Some(bug));
        }
        assert_eq!(Planted::from_name("nonsense"), None);
    }
}
