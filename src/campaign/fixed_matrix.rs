//! Which planted bug each of the 20 fixed tests catches: the proof that every test can fail, and
//! for the right reason. Runs in process, each test on a fresh simulator.
//!
//! Not covered: random checking, and lies that only HTTP can tell.

use super::inproc::{InProcess, InProcessConfig};
use crate::block::{BlockSize, LbaCount, RunId};
use crate::oracle::Kind;
use crate::sim::{Bug, SimError};
use crate::suite::{Outcome, SUITE, TestSpec, run_suite};
use crate::sync::{PipelineBug, PipelineBugs};
use std::time::Duration;

/// Ranges of one page: small, so that paging is exercised on small answers too.
pub const PAGE_LIMIT: u32 = 128;

/// A planted bug of either side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Of the simulated array.
    Array(Bug),
    /// Of the copy pipeline.
    Pipeline(PipelineBug),
}

impl Planted {
    /// The whole catalogue.
    pub fn all() -> Vec<Planted> {
        let array = Bug::ALL.iter().copied().map(Planted::Array);
        array.chain(PipelineBug::ALL.into_iter().map(Planted::Pipeline)).collect()
    }
    /// The bug of this stable name.
    pub fn from_name(name: &str) -> Option<Planted> {
        Planted::all().into_iter().find(|planted| planted.name() == name)
    }
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Planted::Array(bug) => bug.name(),
            Planted::Pipeline(bug) => bug.name(),
        }
    }
    /// `array` or `pipeline`.
    pub fn side(self) -> &'static str {
        match self {
            Planted::Array(_) => "array",
            Planted::Pipeline(_) => "pipeline",
        }
    }
    /// The kinds of violation it may be found as.
    pub fn kinds(self) -> &'static [&'static str] {
        match self {
            Planted::Array(bug) => bug.spec().kinds,
            Planted::Pipeline(bug) => bug.kinds(),
        }
    }
}

/// How one test met one bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// It passed: the bug escaped it.
    Escaped,
    /// It failed, and this is the gravest kind.
    Caught(Kind),
    /// It could not be tested.
    Unknown,
}

/// A bug and how each test met it, in suite order.
#[derive(Clone, Debug)]
pub struct Row {
    /// The bug; none for the honest baseline.
    pub planted: Option<Planted>,
    /// One cell a test.
    pub cells: [Cell; SUITE.len()],
}

impl Row {
    /// Numbers of the tests that caught it, from 1.
    pub fn caught_by(&self) -> Vec<usize> {
        let caught = |cell: &Cell| matches!(cell, Cell::Caught(_));
        (1..).zip(&self.cells).filter(|(_, cell)| caught(cell)).map(|(number, _)| number).collect()
    }
    /// Kinds that the bug was caught as and that its catalogue entry does not list.
    pub fn unlisted_kinds(&self) -> Vec<Kind> {
        let Some(planted) = self.planted else { return Vec::new() };
        let mut kinds: Vec<Kind> = self
            .cells
            .iter()
            .filter_map(|cell| match cell {
                Cell::Caught(kind) if !planted.kinds().contains(&kind.name()) => Some(*kind),
                Cell::Caught(_) | Cell::Escaped | Cell::Unknown => None,
            })
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// Runs all 20 tests, each alone, with `planted` (or on the honest simulator).
///
/// # Errors
/// The simulator's, if it cannot be set up.
pub fn row(planted: Option<Planted>) -> Result<Row, SimError> {
    let mut cells = [Cell::Unknown; SUITE.len()];
    for (cell, (number, spec)) in cells.iter_mut().zip((1..).zip(&SUITE)) {
        *cell = meet(planted, number, spec)?;
    }
    Ok(Row { planted, cells })
}

fn meet(planted: Option<Planted>, number: usize, spec: &TestSpec) -> Result<Cell, SimError> {
    let config = InProcessConfig {
        len: LbaCount::mib(2048),
        block: BlockSize::SMALLEST,
        page_limit: PAGE_LIMIT,
        array_bugs: match planted {
            Some(Planted::Array(bug)) => vec![bug],
            Some(Planted::Pipeline(_)) | None => Vec::new(),
        },
        pipeline_bugs: match planted {
            Some(Planted::Pipeline(bug)) => PipelineBugs::from(bug),
            Some(Planted::Array(_)) | None => PipelineBugs::NONE,
        },
    };
    let target = InProcess::new(config, RunId::from_u128(1))?;
    // What is left at the end is not looked at, so nobody waits for it.
    let mut options = target.suite_options();
    options.keep_snapshots = true;
    options.stop_budget = Duration::ZERO;
    let summary =
        run_suite(&[(number, spec)], &mut target.sut(), &mut target.model(), &options, &mut |_| {});
    Ok(match summary.results.first().map(|result| &result.outcome) {
        Some(Outcome::Pass) => Cell::Escaped,
        Some(Outcome::Fail(found)) => found.first().map_or(Cell::Unknown, |v| Cell::Caught(v.kind)),
        Some(Outcome::Error(_) | Outcome::NotApplicable(_)) | None => Cell::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_test_catches_a_bug_as_what_it_is_and_the_honest_array_none() {
        let honest = row(None).expect("sets up");
        assert_eq!(honest.cells, [Cell::Escaped; 20]);
        let rows: Vec<Row> =
            Planted::all().into_iter().map(|p| row(Some(p)).expect("sets up")).collect();
        for row in &rows {
            assert_eq!(row.unlisted_kinds(), [], "{:?}: {:?}", row.planted, row.cells);
        }
        for number in 1..=SUITE.len() {
            let catchers = rows.iter().filter(|row| row.caught_by().contains(&number)).count();
            assert!(catchers > 0, "no planted bug makes {} fail", SUITE[number - 1].name);
        }
        let caught = rows.iter().filter(|row| !row.caught_by().is_empty()).count();
        assert!(caught >= 24, "only {caught} planted bugs are caught by some fixed test");
    }
}
