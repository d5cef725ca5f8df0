//! One case: a scenario run in process on the world that its header describes, and judged.
//!
//! Not covered: where scenarios come from, what is done about a finding.

use super::cuts::Cuts;
use super::digest::CaseDigest;
use super::inproc::InProcess;
use crate::block::RunId;
use crate::engine::{Event, Recorded, Sut, run};
use crate::model::Model;
use crate::oracle::{Checks, Kind, Reason, Verdict};
use crate::scenario::Scenario;
use crate::sim::SimError;

/// Fixed: a case is the same whoever runs it.
pub(super) const RUN: RunId = RunId::from_u128(1);

/// What a case came to.
#[derive(Clone, Debug)]
pub struct CaseOutcome {
    /// What the oracle says.
    pub verdict: Verdict,
    /// Operations that were run (those skipped not counted).
    pub ops: u64,
    /// Diffs that were answered and judged.
    pub diffs: u64,
    /// Pages of all diffs and syncs.
    pub pages: u64,
    /// LBAs that diffs reported of which the model knows what they had to report, and LBAs that they
    /// had to report.
    pub reported_lbas: (u64, u64),
    /// Snapshots that were taken.
    pub taken: u64,
    /// Snapshots that were deleted.
    pub deleted: u64,
    /// The step that showed the first violation, from 0.
    pub failed_at: Option<usize>,
    /// What happened, in one number: equal for equal cases, whenever and wherever they run.
    pub digest: u64,
}

impl CaseOutcome {
    /// The outcome of a case that could not even begin.
    pub fn unknown(reason: Reason) -> CaseOutcome {
        let verdict = Verdict::Unknown(reason);
        let digest = CaseDigest::default().finish(&verdict);
        let (ops, diffs, pages, taken, deleted) = (0, 0, 0, 0, 0);
        let (reported_lbas, failed_at) = ((0, 0), None);
        CaseOutcome { verdict, ops, diffs, pages, reported_lbas, taken, deleted, failed_at, digest }
    }
    /// The kind of its gravest violation.
    pub fn kind(&self) -> Option<Kind> {
        self.verdict.violation().map(|violation| violation.kind)
    }
}

/// Runs one case with these checks of the oracle.
///
/// # Errors
/// The simulator's, if the header describes no world.
pub fn run_case(
    scenario: &Scenario,
    checks: Checks,
    on_event: &mut dyn FnMut(Event),
) -> Result<CaseOutcome, SimError> {
    run_here(scenario, checks, Recorded::Nothing, on_event)
}

/// As [`run_case`] with the whole oracle, and tells everything that a second judge needs.
///
/// # Errors
/// The simulator's, if the header describes no world.
pub fn record_case(
    scenario: &Scenario,
    on_event: &mut dyn FnMut(Event),
) -> Result<CaseOutcome, SimError> {
    run_here(scenario, Checks::ALL, Recorded::Blocks, on_event)
}

fn run_here(
    scenario: &Scenario,
    checks: Checks,
    record: Recorded,
    on_event: &mut dyn FnMut(Event),
) -> Result<CaseOutcome, SimError> {
    let target = InProcess::of_header(&scenario.header, RUN)?;
    let (mut sut, mut model) = (target.sut(), target.model());
    (sut.checks, sut.record) = (checks, record);
    Ok(run_on(scenario, &mut model, &mut sut, on_event))
}

/// Runs one case on a target that somebody else set up.
pub fn run_on(
    scenario: &Scenario,
    model: &mut Model,
    sut: &mut Sut<'_>,
    on_event: &mut dyn FnMut(Event),
) -> CaseOutcome {
    let (mut ops, mut diffs, mut pages, mut taken, mut deleted) = (0u64, 0, 0, 0, 0);
    let (mut at, mut failed_at, mut reported_lbas) = (0, None, (0u64, 0u64));
    let (mut digest, mut cuts) = (CaseDigest::default(), Cuts::default());
    let verdict = run(scenario, model, sut, &mut |event| {
        match &event {
            Event::Step { index, .. } => {
                ops += 1;
                at = *index;
            }
            Event::Skipped { .. } => ops = ops.saturating_sub(1),
            Event::Diffed { lbas, must, .. } => {
                diffs += 1;
                if let Some(must) = must {
                    reported_lbas.0 += lbas.get();
                    reported_lbas.1 += must.get();
                }
            }
            Event::Page { .. } => pages += 1,
            Event::Taken { .. } => taken += 1,
            Event::Deleted { .. } => deleted += 1,
            Event::Violation { .. } => failed_at = failed_at.or(Some(at)),
            _ => {}
        }
        digest.event(&event);
        cuts.event(&event);
        on_event(event);
    });
    let digest = digest.finish(&verdict);
    let verdict = cuts.explain(verdict);
    CaseOutcome { verdict, ops, diffs, pages, reported_lbas, taken, deleted, failed_at, digest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::scenario::{Header, Label, Op};

    fn write_take_diff(planted: &[&str]) -> CaseOutcome {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = planted.iter().map(|&name| name.to_owned()).collect();
        let ops = [
            Op::Write { at: Extent::lbas(63, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        run_case(&Scenario::new(header, ops), Checks::ALL, &mut |_| ()).expect("sets up")
    }

    #[test]
    fn the_header_alone_decides_what_world_a_case_runs_in() {
        let (honest, planted) = (write_take_diff(&[]), write_take_diff(&["bit63-dropped"]));
        assert_eq!(honest.verdict, Verdict::Pass);
        assert_eq!((honest.ops, honest.diffs, honest.failed_at), (3, 1, None));
        assert_eq!((planted.kind(), planted.failed_at), (Some(Kind::Missed), Some(2)));
        assert_ne!(honest.digest, planted.digest);
        assert_eq!(honest.digest, write_take_diff(&[]).digest, "a case repeats itself");
    }
}
