use super::*;
use crate::block::{BlockSize, Policy};
use crate::campaign::inproc::{InProcess, InProcessConfig};
use crate::engine::{CaseName, Profile, generate};
use crate::oracle::Kind;
use crate::scenario::Header;
use crate::sim::Bug;
use crate::sync::PipelineBugs;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const LEN: LbaCount = LbaCount::new(40_000);
const REGION: Extent = Extent::lbas(640, 8192);

fn shapes() -> BTreeMap<Role, Geometry> {
    let shape = Geometry { block: BlockSize::DEVICE, len: LEN, fresh: false };
    [(Role::Source, shape), (Role::Target, shape)].into()
}

fn region() -> Region {
    Region::new(REGION, shapes()).expect("it lies in the volumes")
}

fn drawn(case: u64) -> Scenario {
    let profile = Profile { lens: &[2048], ..*Profile::by_name("live").expect("a profile") };
    generate(&profile, CaseName { seed: 3, case })
}

/// Runs cases on a simulator whose volumes somebody has written before; answers the outcomes and how
/// many snapshots are left.
fn run_cases(bugs: &[Bug], cases: std::ops::Range<u64>) -> (Vec<CaseOutcome>, usize) {
    let config = InProcessConfig {
        len: LEN,
        block: BlockSize::DEVICE,
        page_limit: 3,
        array_bugs: bugs.to_vec(),
        pipeline_bugs: PipelineBugs::NONE,
    };
    let target = InProcess::new(config, RunId::from_u128(1)).expect("it sets up");
    let sut = target.sut();
    for volume in sut.volumes.values() {
        target.array().age(volume.uuid, 5).expect("it has a past");
    }
    let ledger = Ledger::new(RunId::from_u128(2));
    let stop = AtomicBool::new(false);
    let patience = Duration::from_secs(60);
    let volumes = sut.volumes.iter().map(|(role, v)| (*role, (v.uuid, v.device())));
    let bench = LiveBench {
        array: sut.array,
        volumes: volumes.collect(),
        clock: sut.clock,
        waiting: Waiting { available: patience, gone: patience, stop: &stop },
        ledger: &ledger,
        region: region(),
        turn: Mutex::new(()),
    };
    let run = |case| bench.run(&region().place(drawn(case), case), Recorded::Nothing, &mut |_| ());
    let outcomes = cases.map(run).collect();
    (outcomes, target.array().snapshots().len())
}

#[test]
fn cases_on_volumes_with_a_past_pass_and_leave_no_snapshot() {
    let (outcomes, left) = run_cases(&[], 0..25);
    for (case, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.verdict, Verdict::Pass, "case {case}");
        assert!(outcome.diffs > 0 && outcome.taken > 1, "case {case}: {outcome:?}");
    }
    assert_eq!(left, 0);
}

#[test]
fn planted_bugs_are_found_on_volumes_with_a_past() {
    for (bug, kind) in [(Bug::DiscardUntracked, Kind::Missed), (Bug::Bit63Dropped, Kind::Missed)] {
        let (outcomes, left) = run_cases(&[bug], 0..25);
        let found = outcomes.iter().filter(|outcome| outcome.kind() == Some(kind)).count();
        assert!(found > 0, "{} in none of {} cases", bug.name(), outcomes.len());
        assert_eq!(left, 0);
    }
}

#[test]
fn a_placed_case_begins_with_a_baseline_keeps_to_its_place_and_ends_with_a_diff_against_it() {
    for case in 0..40 {
        let drawn = drawn(case);
        let longest = drawn.header.volumes.values().map(|shape| shape.len.get()).max();
        let len = longest.expect("volumes").next_multiple_of(64);
        let placed = region().place(drawn, case);
        let Some(Op::Take { label: baseline, wait: true }) = placed.steps.first().map(|s| &s.op)
        else {
            panic!("no baseline: {placed:?}")
        };
        assert_eq!(region().admits(&placed), Ok(()));
        let place = Extent::lbas(640 + case % (8192 / len) * len, len);
        assert!(!footprint(&placed).is_empty(), "case {case}");
        assert!(footprint(&placed).difference(&LbaSet::from(place)).is_empty(), "case {case}");
        let last = placed.steps.last().map(|step| &step.op);
        let against = |op: &Op| matches!(op, Op::Diff { base: Some(base), .. } if base == baseline);
        assert!(last.is_some_and(against), "case {case}: {last:?}");
        let takes = placed.steps.iter().filter(|s| taken(&s.op) == Some(*baseline)).count();
        assert_eq!(takes, 1, "its label is its own");
    }
}

#[test]
fn what_lies_outside_the_region_or_is_of_other_volumes_is_not_run() {
    let write = |at, lbas| {
        let header = Header::new(shapes(), Policy::Chunk, "a test");
        Scenario::new(header, [Op::Write { at: Extent::lbas(at, lbas) }])
    };
    assert_eq!(region().admits(&write(640, 8192)), Ok(()));
    for outside in [write(639, 1), write(640, 8193), write(39_999, 1)] {
        let why = region().admits(&outside).expect_err("outside");
        assert!(why.contains("--region"), "{why}");
    }
    let mut other = write(640, 1);
    other.header.volumes.remove(&Role::Target);
    assert!(region().admits(&other).is_err());
    assert_eq!(Region::new(Extent::lbas(39_000, 1001), shapes()), None);
}
