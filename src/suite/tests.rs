//! The table against its specification, and against the honest simulator in process.

use super::*;
use crate::block::{BlockSize, Lba, LbaSet, RunId};
use crate::campaign::inproc::{InProcess, InProcessConfig};
use crate::engine::precheck;
use crate::oracle::{Kind, Violation};
use crate::sim::Bug;
use crate::sync::PipelineBugs;

fn honest() -> InProcessConfig {
    InProcessConfig {
        len: LbaCount::mib(2048),
        block: BlockSize::SMALLEST,
        page_limit: 128,
        array_bugs: Vec::new(),
        pipeline_bugs: PipelineBugs::NONE,
    }
}

fn run_in_process(config: InProcessConfig, numbers: &[usize]) -> SuiteSummary {
    let target = InProcess::new(config, RunId::from_u128(3)).expect("sets up");
    run_on(&target, numbers)
}

fn run_on(target: &InProcess, numbers: &[usize]) -> SuiteSummary {
    let tests: Vec<(usize, &TestSpec)> = numbers.iter().map(|n| (*n, &SUITE[n - 1])).collect();
    run_suite(&tests, &mut target.sut(), &mut target.model(), &target.suite_options(), &mut |_| {})
}

fn all() -> Vec<usize> {
    (1..=20).collect()
}

#[track_caller]
fn check_passed(summary: &SuiteSummary, tests: usize) {
    for result in &summary.results {
        assert_eq!(result.outcome, Outcome::Pass, "{}: {:?}", result.name, result.notes);
    }
    assert_eq!(summary.counts(), (tests, 0, 0, 0));
    assert!(summary.left_behind.is_empty() && !summary.tool_bug);
}

#[test]
fn names_are_unique_and_footprints_disjoint_but_for_the_one_known_overlap() {
    let mut seen: Vec<(&str, Extent)> = Vec::new();
    for spec in &SUITE {
        for &at in spec.footprint {
            for &(other, taken) in &seen {
                let known =
                    (other, spec.name) == ("full_scan_accuracy", "incremental_diff_accuracy");
                assert!(known || !at.overlaps(taken), "{} and {other} share {at}", spec.name);
            }
            assert!(at.end() <= Lba::new(MIN_LBAS.get()), "{} ends past {MIN_LBAS}", spec.name);
        }
        assert!(seen.iter().all(|(name, _)| *name != spec.name), "{} twice", spec.name);
        seen.extend(spec.footprint.iter().map(|at| (spec.name, *at)));
    }
    let end = SUITE.iter().flat_map(|spec| spec.footprint).map(|at| at.end()).max();
    assert_eq!(end, Some(Lba::new(LbaCount::mib(1775).get())));
}

#[test]
fn every_test_writes_exactly_its_footprint() {
    let target = InProcess::new(honest(), RunId::from_u128(1)).expect("sets up");
    for spec in &SUITE {
        let scenario = scenario_of(spec, &target.suite_options());
        let written: LbaSet = scenario
            .steps
            .iter()
            .filter_map(|step| match &step.op {
                crate::scenario::Op::Write { at } | crate::scenario::Op::Zero { at } => Some(*at),
                _ => None,
            })
            .collect();
        assert_eq!(written, spec.footprint.iter().copied().collect(), "{}", spec.name);
        precheck(&scenario, &target.model()).unwrap_or_else(|c| panic!("{}: {c}", spec.name));
    }
}

#[test]
fn all_20_pass_on_the_honest_simulator_and_again_on_its_used_volumes() {
    let target = InProcess::new(honest(), RunId::from_u128(2)).expect("sets up");
    check_passed(&run_on(&target, &all()), 20);
    // A second run by somebody who knows nothing of the first.
    let mut shapes = target.shapes();
    shapes.values_mut().for_each(|shape| shape.fresh = false);
    let capabilities = crate::array::Array::capabilities(target.array());
    let mut model = crate::model::Model::new(RunId::from_u128(9), &shapes, capabilities);
    let tests: Vec<(usize, &TestSpec)> = (1..=20).zip(&SUITE).collect();
    let summary =
        run_suite(&tests, &mut target.sut(), &mut model, &target.suite_options(), &mut |_| {});
    check_passed(&summary, 20);
}

#[test]
fn every_test_passes_alone_and_in_reverse_order() {
    for number in 1..=20 {
        check_passed(&run_in_process(honest(), &[number]), 1);
    }
    let backwards: Vec<usize> = (1..=20).rev().collect();
    check_passed(&run_in_process(honest(), &backwards), 20);
}

#[test]
fn a_planted_bug_fails_the_test_made_for_it_with_its_kind() {
    let config = InProcessConfig { array_bugs: vec![Bug::Bit63Dropped], ..honest() };
    let summary = run_in_process(config, &[12]);
    let violations: &[Violation] = match &summary.results[0].outcome {
        Outcome::Fail(violations) => violations,
        other => panic!("expected a failure, got {other:?}"),
    };
    assert_eq!(violations[0].kind, Kind::Missed);
    assert!(violations.iter().any(|v| v.sentence.contains("chunk 3920")), "{violations:#?}");
}
