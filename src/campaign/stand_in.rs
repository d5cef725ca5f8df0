//! The simulator as a stand-in for a target whose runs are dear: if one of its planted bugs shows
//! the same kind of violation in the same scenario, the scenario is shrunk there, for next to
//! nothing, and what is left is tried on the target.
//!
//! What the target does not show is thrown away, so a wrong guess costs a run and proves nothing.
//! Not covered: shrinking on the target itself ([`super::finding`]).

use super::case::run_case;
use super::check::Runner;
use super::investigate::shrink_scenario;
use super::selftest::Planted;
use crate::engine::{Event, ShrinkBudget};
use crate::oracle::{Checks, Kind, Reason};
use crate::scenario::Scenario;
use crate::sim::Bug;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How much shrinking on the simulator may cost, for each bug.
const BUDGET: ShrinkBudget = ShrinkBudget { time: Duration::from_secs(5), runs: 20_000 };
/// Planted bugs whose shrunk scenarios are tried on the target at most.
const GUESSES: usize = 4;

/// A shorter scenario that shows `kind` on the target too; `None` if the simulator helps nothing.
/// `runner` is the target.
pub fn shorten(
    original: &Scenario,
    kind: Kind,
    runner: &Runner<'_>,
    stop: &AtomicBool,
) -> Option<Scenario> {
    let simulated = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        run_case(scenario, Checks::ALL, on_event).unwrap_or_else(|error| {
            super::case::CaseOutcome::unknown(Reason::Tool(error.to_string()))
        })
    };
    let mut tried: Vec<Scenario> = Vec::new();
    for bug in Bug::ALL {
        let listed =
            Planted::from_name(bug.name()).is_some_and(|bug| bug.kinds().contains(&kind.name()));
        if !listed || tried.len() == GUESSES {
            continue;
        }
        let planted = on_simulator(original, bug.name());
        if simulated(&planted, &mut |_| ()).kind() != Some(kind) {
            continue;
        }
        let shrunk =
            shrink_scenario(&planted, kind, BUDGET, &simulated, (stop, &mut |_| ())).scenario;
        let candidate = on_target(original, shrunk);
        if tried.contains(&candidate) {
            continue;
        }
        if runner(&candidate, &mut |_| ()).kind() == Some(kind) {
            return Some(candidate);
        }
        tried.push(candidate);
    }
    None
}

/// The scenario as the simulator runs it with that bug. Its volumes are new: what older data they
/// held cannot matter to a bug that is only guessed.
fn on_simulator(scenario: &Scenario, bug: &str) -> Scenario {
    let mut planted = scenario.clone();
    planted.header.planted.push(bug.to_owned());
    planted.header.volumes.values_mut().for_each(|shape| shape.fresh = true);
    planted
}

/// What was shrunk on the simulator, in the world of the original.
fn on_target(original: &Scenario, shrunk: Scenario) -> Scenario {
    Scenario { header: original.header.clone(), ..shrunk }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role};
    use crate::campaign::case::CaseOutcome;
    use crate::scenario::{Header, Label, Op};
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    fn noisy() -> Scenario {
        let shape = Geometry { block: BlockSize::DEVICE, len: LbaCount::new(512), fresh: false };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let take = |n| Op::Take { label: Label(n), wait: true };
        let write = |at, lbas| Op::Write { at: Extent::lbas(at, lbas) };
        let diff = |snap, base| Op::Diff {
            snap: Label(snap),
            base: Some(Label(base)),
            from: Lba::new(0),
            between_pages: None,
        };
        let mut ops = vec![take(9)];
        ops.extend((0..20).map(|n| write(n * 9, 3)));
        ops.extend([take(0), write(300, 4), take(1), diff(1, 0)]);
        ops.extend([Op::Discard { at: Extent::lbas(18, 20) }, take(2), diff(2, 1)]);
        Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops)
    }

    /// A target with a real bug, which counts its runs.
    fn target(runs: &AtomicU32, bug: &str, scenario: &Scenario) -> CaseOutcome {
        runs.fetch_add(1, Ordering::Relaxed);
        let broken = on_simulator(scenario, bug);
        run_case(&broken, Checks::ALL, &mut |_| ()).expect("it sets up")
    }

    #[test]
    fn what_a_planted_bug_explains_is_shrunk_with_a_handful_of_runs_of_the_target() {
        let (runs, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        let runner = |scenario: &Scenario, _: &mut dyn FnMut(Event)| {
            target(&runs, "discard-untracked", scenario)
        };
        let short = shorten(&noisy(), Kind::Missed, &runner, &stop).expect("the bug is planted");
        assert!(short.steps.len() <= 5, "{short:?}");
        assert_eq!(short.header, noisy().header, "the world is the target's");
        assert!((1..=4).contains(&runs.load(Ordering::Relaxed)), "{runs:?}");
    }

    #[test]
    fn what_the_target_does_not_show_is_thrown_away() {
        let (runs, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        let runner = |_: &Scenario, _: &mut dyn FnMut(Event)| {
            runs.fetch_add(1, Ordering::Relaxed);
            CaseOutcome::unknown(Reason::NothingCompared)
        };
        assert_eq!(shorten(&noisy(), Kind::Missed, &runner, &stop), None);
        assert!(runs.load(Ordering::Relaxed) > 0, "it was tried");
    }
}
