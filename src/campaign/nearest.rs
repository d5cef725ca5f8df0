//! Which planted bug a finding looks like.
//!
//! Two steps, both blind to what was planted. First by effect: the bug must be listed for the kind of
//! the violation, and show it, of the same LBAs of the same answer, when it is planted in the simulator
//! and exactly this scenario is run. Then, of those, by shape: the kinds of operations of its witness are compared with those of
//! the scenario (shared ones, each as often as both have it, over all), and the nearest are named. A
//! likeness is a hint for whoever looks for the cause, no proof. Not covered: defects that nobody has
//! planted yet, and findings that no planted bug explains; of those nothing is said.

use super::case::run_case;
use super::finding::op_kinds;
use super::selftest::Planted;
use super::witness::witness;
use crate::oracle::{Checks, Violation};
use crate::scenario::Scenario;

/// A planted bug that a finding looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nearest {
    /// Its name.
    pub name: &'static str,
    /// What really shipped with it, where one thing is known.
    pub modelled_on: Option<&'static str>,
    /// What it does.
    pub mechanism: &'static str,
    /// Other bugs that are equally near.
    pub others: Vec<&'static str>,
}

/// Every planted bug that has a witness, with it.
pub fn witnesses() -> Vec<(Planted, Scenario)> {
    let with = |bug: Planted| Some((bug, witness(bug.name())?));
    Planted::all().into_iter().filter_map(with).collect()
}

/// The planted bug that `scenario`, which shows the violation `found`, looks like. `witnesses` are
/// the known bugs, each with the scenario that shows it.
pub fn nearest(
    found: &Violation,
    scenario: &Scenario,
    witnesses: &[(Planted, Scenario)],
) -> Option<Nearest> {
    let explains = |bug: Planted| {
        let mut planted = scenario.clone();
        planted.header.planted = vec![bug.name().to_owned()];
        // What older data a volume held cannot matter to a bug that is only guessed.
        planted.header.volumes.values_mut().for_each(|shape| shape.fresh = true);
        let outcome = run_case(&planted, Checks::ALL, &mut |_| ());
        // The same LBAs of the same answer, or it is another story.
        let about = |v: &Violation| (v.kind, v.snap, v.base, v.extents.clone());
        outcome.is_ok_and(|outcome| {
            outcome.verdict.violation().is_some_and(|shown| about(shown) == about(found))
        })
    };
    let ops = op_kinds(scenario);
    let mut best: Vec<Planted> = Vec::new();
    let mut best_score = (0, 1);
    for (bug, witness) in witnesses {
        let (shared, all) = score(&ops, &op_kinds(witness));
        let (near, far) = (shared * best_score.1, best_score.0 * all);
        if !bug.kinds().contains(&found.kind.name()) || near < far || !explains(*bug) {
            continue;
        }
        if near > far {
            best.clear();
            best_score = (shared, all);
        }
        best.push(*bug);
    }
    let (first, others) = best.split_first()?;
    let (modelled_on, mechanism) = first.words();
    let others = others.iter().map(|bug| bug.name()).collect();
    Some(Nearest { name: first.name(), modelled_on, mechanism, others })
}

/// How many kinds of operations both lists share, and how many there are in all.
fn score(ours: &[&str], theirs: &[&str]) -> (usize, usize) {
    let mut left = theirs.to_vec();
    let shared = ours
        .iter()
        .filter(|op| match left.iter().position(|other| other == *op) {
            Some(place) => {
                left.swap_remove(place);
                true
            }
            None => false,
        })
        .count();
    (shared, ours.len() + theirs.len() - shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, LbaSet, Policy, Role};
    use crate::oracle::Kind;
    use crate::scenario::{Header, Label, Op};

    fn scenario(ops: Vec<Op>) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops)
    }

    fn over(change: Op, base: Option<Label>) -> Scenario {
        let take = |n| Op::Take { label: Label(n), wait: true };
        let write = Op::Write { at: Extent::lbas(63, 1) };
        let diff = Op::Diff { snap: Label(1), base, from: Lba::new(0), between_pages: None };
        scenario(vec![write, take(0), change, take(1), diff])
    }

    /// LBAs that changed from s0 to s1 and are not reported.
    fn missed(lba: u64, lbas: u64) -> Violation {
        let at = LbaSet::from(Extent::lbas(lba, lbas));
        Violation::new(Kind::Missed, "x").about(Label(1), Some(Label(0))).at(at)
    }

    fn some_witnesses() -> Vec<(Planted, Scenario)> {
        let at = Extent::lbas(63, 1);
        let named = |name: &str, witness| (Planted::from_name(name).expect("planted"), witness);
        vec![
            named("zero-over-data-ignored", over(Op::Zero { at }, Some(Label(0)))),
            named("discard-untracked", over(Op::Discard { at }, Some(Label(0)))),
            named("dirty-dirty-equals-clean", over(Op::Write { at }, Some(Label(0)))),
            named("bit63-dropped", over(Op::Write { at }, Some(Label(0)))),
            named("base-ignored", over(Op::Discard { at }, Some(Label(0)))),
        ]
    }

    #[test]
    fn the_bug_with_the_same_kind_and_operations_is_nearest() {
        let found = over(Op::Discard { at: Extent::lbas(62, 2) }, Some(Label(0)));
        let nearest = nearest(&missed(63, 1), &found, &some_witnesses()).expect("one is near");
        assert_eq!((nearest.name, nearest.others.len()), ("discard-untracked", 0));
    }

    #[test]
    fn of_two_with_the_same_operations_the_one_that_explains_this_scenario_is_named() {
        let write = |lba| over(Op::Write { at: Extent::lbas(lba, 1) }, Some(Label(0)));
        // LBA 63 is written twice, and it is bit 63.
        let both = nearest(&missed(63, 1), &write(63), &some_witnesses()).expect("near");
        assert_eq!((both.name, both.others), ("dirty-dirty-equals-clean", vec!["bit63-dropped"]));
        let mut end = write(127);
        end.steps[0] = Op::Write { at: Extent::lbas(0, 1) }.into();
        let one = nearest(&missed(127, 1), &end, &some_witnesses()).expect("near");
        assert_eq!((one.name, one.others.len()), ("bit63-dropped", 0));
        assert_eq!(nearest(&missed(5, 1), &write(5), &some_witnesses()), None, "nor explained");
        let elsewhere = nearest(&missed(5, 1), &write(63), &some_witnesses());
        assert_eq!(elsewhere, None, "what they show is of another LBA");
    }

    #[test]
    fn what_looks_like_nothing_planted_is_not_named() {
        assert_eq!(nearest(&missed(1, 1), &scenario(vec![Op::Flush]), &some_witnesses()), None);
        let found = over(Op::Discard { at: Extent::lbas(62, 2) }, Some(Label(0)));
        assert_eq!(
            nearest(&Violation::new(Kind::Liveness, "x"), &found, &some_witnesses()),
            None,
            "no bug lists this kind"
        );
    }
}
