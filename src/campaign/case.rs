//! One case: a scenario run in process on the world that its header describes, and judged.
//!
//! Not covered: where scenarios come from, what is done about a finding.

use super::inproc::InProcess;
use crate::block::RunId;
use crate::engine::{Event, run};
use crate::oracle::{Checks, Verdict};
use crate::scenario::Scenario;
use crate::sim::SimError;

/// Fixed: a case is the same whoever runs it.
const RUN: RunId = RunId::from_u128(1);

/// What a case came to.
#[derive(Clone, Debug)]
pub struct CaseOutcome {
    /// What the oracle says.
    pub verdict: Verdict,
    /// Operations that were run (those skipped not counted).
    pub ops: u64,
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
    let target = InProcess::of_header(&scenario.header, RUN)?;
    let (mut sut, mut model) = (target.sut(), target.model());
    sut.checks = checks;
    let mut ops = 0;
    let verdict = run(scenario, &mut model, &mut sut, &mut |event| {
        match &event {
            Event::Step { .. } => ops += 1,
            Event::Skipped { .. } => ops -= 1,
            _ => {}
        }
        on_event(event);
    });
    Ok(CaseOutcome { verdict, ops })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::scenario::{Header, Label, Op};

    fn write_take_diff(planted: &[&str]) -> Verdict {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = planted.iter().map(|&name| name.to_owned()).collect();
        let ops = [
            Op::Write { at: Extent::lbas(63, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        run_case(&Scenario::new(header, ops), Checks::ALL, &mut |_| ()).expect("sets up").verdict
    }

    #[test]
    fn the_header_alone_decides_what_world_a_case_runs_in() {
        assert_eq!(write_take_diff(&[]), Verdict::Pass);
        assert!(matches!(write_take_diff(&["bit63-dropped"]), Verdict::Fail(_)));
    }
}
