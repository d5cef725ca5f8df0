//! The matrix under test: a poor man's generator and shrinker, matrices that were spoilt.

use super::*;
use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
use crate::campaign::generated::Generated;
use crate::campaign::second_judge::Disagreement;
use crate::engine::PROFILES;
use crate::scenario::{Header, Label, Op};

/// A poor man's generator and shrinker: the matrix is under test here, not them.
struct Few;

fn diff(snap: u32, base: Option<u32>) -> Op {
    let base = base.map(Label);
    Op::Diff { snap: Label(snap), base, from: Default::default(), between_pages: None }
}

impl Cases for Few {
    fn case(&self, seed: u64, case: u64) -> Scenario {
        let mut dice = (seed << 32 | case).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        let mut ops = Vec::new();
        for label in 0..3 {
            for _ in 0..=roll(3) {
                let at = Extent::lbas([0, 62, 63, 64][usize::try_from(roll(4)).unwrap()], 1);
                ops.push(match roll(3) {
                    0 => Op::Write { at },
                    1 => Op::Discard { at },
                    _ => Op::Write { at: Extent::lbas(62, 4) },
                });
            }
            ops.push(Op::Take { label: Label(label), wait: true });
            ops.push(diff(label, None));
            ops.extend(label.checked_sub(1).map(|base| diff(label, Some(base))));
        }
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(130), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops)
    }
    fn shrink(
        &self,
        scenario: &Scenario,
        reproduces: &mut dyn FnMut(&Scenario) -> bool,
    ) -> Scenario {
        let (mut best, mut at) = (scenario.clone(), 0);
        while at < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.remove(at);
            if reproduces(&shorter) {
                (best, at) = (shorter, 0);
            } else {
                at += 1;
            }
        }
        best
    }
    fn goals(&self) -> &[Goal] {
        &[]
    }
}

const SMALL: Budget = Budget {
    seeds: 1,
    cases: 30,
    honest_cases: 30,
    explore: Duration::from_secs(60),
    explore_depth: 2,
};

fn fill(names: &[&str]) -> Matrix {
    let bugs: Vec<Planted> =
        names.iter().map(|name| Planted::from_name(name).expect("a bug")).collect();
    matrix(&bugs, &Few, SMALL, &AtomicBool::new(false), &|_| ()).expect("sets up")
}

#[test]
fn bugs_are_found_and_shortened_and_an_honest_target_is_not_accused() {
    let matrix = fill(&["bit63-dropped", "idle-volume-churns", "discard-untracked"]);
    assert_eq!(matrix.honest.false_alarms, []);
    assert_eq!((matrix.honest.cases, &matrix.honest.unknown), (30, &(0, None)));
    assert_eq!((matrix.honest.second.agreed, matrix.second().traces()), (30, 39));
    for row in &matrix.rows {
        assert_eq!(row.random.killed, 1, "{}", row.name);
        assert_eq!(row.random.shrunk.len(), 1, "{}", row.name);
        assert_eq!(row.random.unlisted, [], "{}", row.name);
        assert_eq!((row.second.agreed, row.second.wrong), (3, 3), "{}", row.name);
    }
    assert_eq!(matrix.rows[0].random.longest(), Some(2));
    let explored = matrix.rows[0].explore.as_ref().and_then(|score| score.found);
    assert_eq!(explored, Some((2, Kind::Missed)));
    assert_eq!(matrix.rows[2].explore.as_ref().and_then(|score| score.found), None);
}

#[test]
fn a_bug_that_the_cases_cannot_reach_is_said_to_survive() {
    let matrix = fill(&["delete-never-finishes", "last-partial-run-dropped"]);
    let faults = matrix.faults();
    for name in ["delete-never-finishes", "last-partial-run-dropped"] {
        assert!(faults.contains(&format!("{name} survives")), "{faults:?}");
    }
    assert_eq!(matrix.rows[1].explore, None, "no pipeline in the exhaustive search");
}

#[test]
fn everything_that_is_wrong_with_a_matrix_is_a_fault() {
    let good = fill(&["bit63-dropped"]);
    let spoil = |spoil: &dyn Fn(&mut Matrix)| {
        let mut matrix = good.clone();
        matrix.canary = None;
        spoil(&mut matrix);
        matrix.faults()
    };
    assert_eq!(spoil(&|_| ()), Vec::<String>::new());
    let differs = || Disagreement { case: "g1:1:2".into(), sentence: "no".into() };
    let spoilt: [&dyn Fn(&mut Matrix); 9] = [
        &|m| m.rows[0].second.disagreements.push(differs()),
        &|m| m.honest.second.disagreements.push(differs()),
        &|m| m.rows[0].random.killed = 0,
        &|m| m.rows[0].random.shrunk.push(3),
        &|m| m.honest.false_alarms.push((1, 2, "wolf".into())),
        &|m| m.honest.fixed.push("full-diff"),
        &|m| m.honest.missed_goals.push("a write inside a cut"),
        &|m| m.honest.unknown = (1, Some("no network".into())),
        &|m| m.canary = Some(("bit63-dropped", 1)),
    ];
    for (place, wrong) in spoilt.iter().enumerate() {
        assert_eq!(spoil(wrong).len(), 1, "{place}");
    }
    assert_eq!(spoil(spoilt[0]), ["the judges differ on g1:1:2: no"]);
}

#[test]
fn a_symptom_that_is_not_listed_kills_nothing_and_is_kept_once_for_each_seed() {
    // Swapped bytes of a partial last chunk are bits past the end, before anything is missed.
    let (bug, stop) = (Planted::from_name("bitmap-byte-swapped"), AtomicBool::new(false));
    let cases = Generated::new(PROFILES[0], 1);
    let found = hunt(&cases, bug.expect("planted"), Checks::ALL, (1, 200), &stop);
    let (kill, unlisted) = found.expect("sets up");
    let (kill, unlisted) = (kill.expect("found"), unlisted.expect("seen before"));
    assert_eq!(unlisted.kind, Kind::Malformed);
    assert!(
        unlisted.case < kill.case && bug.is_some_and(|bug| bug.kinds().contains(&kill.kind.name()))
    );
    let symptom = |seed, kind| Unlisted { seed, case: 3, kind, sentence: "odd".into() };
    let unlisted =
        vec![symptom(1, Kind::Leaked), symptom(2, Kind::Content), symptom(4, Kind::Leaked)];
    let score = RandomScore { unlisted, ..RandomScore::default() };
    let seen = BTreeMap::from([(Kind::Leaked, 2), (Kind::Content, 1)]);
    assert_eq!((score.first_seen_as(), score.killed), (seen, 0));
}

#[test]
fn a_median_counts_seeds_without_a_kill_as_never() {
    let score = RandomScore { ops: vec![3, 9], ..RandomScore::default() };
    assert_eq!(score.median_ops(3), Some(9));
    assert_eq!(score.median_ops(1), Some(3));
    assert_eq!(score.median_ops(5), None);
}
