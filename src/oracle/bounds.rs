//! The two bounds of a diff: everything that changed is reported, and nothing that could not have.
//! (`oracle.md` section 2.) Not covered: the form of the answer, and whether it may be given.

use super::verdict::{Kind, Picture, Violation};
use crate::block::{CHUNK_LBAS, ChunkBitmap, LbaCount, LbaSet, Policy};
use crate::model::Prediction;
use crate::scenario::Label;

/// Judges the LBAs that `diff(snap, base)` reported.
pub fn judge_bounds(
    (snap, base): (Label, Option<Label>),
    bounds: &Prediction,
    reported: &LbaSet,
    policy: Policy,
) -> Vec<Violation> {
    let asked = match base {
        Some(base) => format!("diff({snap}, base {base})"),
        None => format!("diff({snap}) without base"),
    };
    let mut found = Vec::new();
    let missed = bounds.must.difference(reported);
    if !missed.is_empty() {
        let between =
            base.map_or("since creation".to_owned(), |base| format!("between {base} and {snap}"));
        let mut sentence = format!("{missed} changed {between}, {asked} does not report them");
        if swapped_match(bounds, reported) {
            sentence.push_str("; with the bytes of each bitmap swapped it would be right: if other answers show the same, try --bitmap-order big");
        }
        let picture = picture(&missed, &bounds.must, reported);
        found.push(Violation {
            picture,
            ..Violation::new(Kind::Missed, sentence).about(snap, base).at(missed)
        });
    }
    let leaked = leaked(&bounds.may, reported, policy);
    if !leaked.is_empty() {
        let sentence =
            format!("{asked} reports {leaked} ({}) that nothing touched", leaked.count().words());
        let picture = picture(&leaked, &bounds.may, reported);
        found.push(Violation {
            picture,
            ..Violation::new(Kind::Leaked, sentence).about(snap, base).at(leaked)
        });
    }
    found
}

/// LBAs reported beyond what `policy` allows.
pub fn leaked(may: &LbaSet, reported: &LbaSet, policy: Policy) -> LbaSet {
    match policy {
        Policy::Exact => reported.difference(may),
        Policy::Chunk => reported.difference(&may.rounded_out(LbaCount::new(CHUNK_LBAS))),
        Policy::Granule(lbas) => reported.difference(&may.rounded_out(lbas)),
        Policy::ReportOnly => LbaSet::new(),
    }
}

/// Whether the answer would hold both bounds if each bitmap's bytes stood the other way round.
fn swapped_match(bounds: &Prediction, reported: &LbaSet) -> bool {
    let mut swapped = LbaSet::new();
    for (start, bits) in reported.chunks() {
        swapped.insert_chunk(start, bits.byte_swapped());
    }
    bounds.must.difference(&swapped).is_empty() && swapped.difference(&bounds.may).is_empty()
}

/// The first chunk that `wrong` concerns.
fn picture(wrong: &LbaSet, expected: &LbaSet, reported: &LbaSet) -> Option<Picture> {
    let start = wrong.runs().first()?.start().chunk_start();
    let of = |set: &LbaSet| {
        let chunk = crate::block::Extent::new(start, LbaCount::new(CHUNK_LBAS));
        let inside = chunk.map(|chunk| set.within(chunk).chunks()).unwrap_or_default();
        inside.first().map_or(ChunkBitmap::EMPTY, |(_, bits)| *bits)
    };
    Some(Picture { chunk: start.chunk().get(), expected: of(expected), reported: of(reported) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;
    use proptest::prelude::*;

    fn set(runs: &[(u64, u64)]) -> LbaSet {
        runs.iter().map(|&(at, len)| Extent::lbas(at, len)).collect()
    }

    fn kinds(bounds: &Prediction, reported: &LbaSet, policy: Policy) -> Vec<Kind> {
        let found = judge_bounds((Label(1), Some(Label(0))), bounds, reported, policy);
        found.into_iter().map(|v| v.kind).collect()
    }

    #[test]
    fn one_lba_too_few_is_missed_and_one_too_many_is_leaked() {
        let bounds = Prediction { must: set(&[(64, 8)]), may: set(&[(64, 9)]) };
        assert_eq!(kinds(&bounds, &set(&[(64, 8)]), Policy::Exact), []);
        assert_eq!(kinds(&bounds, &set(&[(64, 9)]), Policy::Exact), []);
        assert_eq!(kinds(&bounds, &set(&[(64, 7)]), Policy::Exact), [Kind::Missed]);
        assert_eq!(kinds(&bounds, &set(&[(64, 10)]), Policy::Exact), [Kind::Leaked]);
        assert_eq!(kinds(&bounds, &set(&[(65, 9)]), Policy::Exact), [Kind::Missed, Kind::Leaked]);
        assert_eq!(kinds(&bounds, &set(&[(64, 64)]), Policy::Chunk), []);
        assert_eq!(kinds(&bounds, &set(&[(64, 65)]), Policy::Chunk), [Kind::Leaked]);
        assert_eq!(kinds(&bounds, &set(&[(64, 16)]), Policy::Granule(LbaCount::new(16))), []);
        assert_eq!(kinds(&bounds, &set(&[(0, 640)]), Policy::ReportOnly), []);
    }

    #[test]
    fn the_sentence_names_lbas_and_the_picture_their_chunk() {
        let bounds = Prediction { must: set(&[(64, 8)]), may: set(&[(64, 8)]) };
        let found =
            judge_bounds((Label(1), Some(Label(0))), &bounds, &LbaSet::new(), Policy::Exact);
        assert_eq!(
            found[0].sentence,
            "LBA 64..71 changed between s0 and s1, diff(s1, base s0) does not report them"
        );
        let picture = found[0].picture.expect("a picture");
        assert_eq!((picture.chunk, picture.expected.bits(), picture.reported.bits()), (1, 0xff, 0));
    }

    #[test]
    fn a_byte_swapped_answer_is_recognised() {
        let bounds = Prediction { must: set(&[(32, 32)]), may: set(&[(32, 32)]) };
        let found = judge_bounds((Label(1), None), &bounds, &set(&[(0, 32)]), Policy::Exact);
        assert!(found[0].sentence.contains("--bitmap-order big"), "{}", found[0].sentence);
    }

    proptest! {
        #[test]
        fn an_answer_between_the_bounds_is_never_a_violation(must in prop::collection::vec((0u64..200, 1u64..20), 0..6), more in prop::collection::vec((0u64..200, 1u64..20), 0..6), extra in prop::collection::vec((0u64..200, 1u64..20), 0..6)) {
            let must = set(&must);
            let may = must.union(&set(&more));
            let reported = must.union(&set(&extra).intersection(&may));
            let bounds = Prediction { must, may };
            for policy in [Policy::Exact, Policy::Chunk, Policy::Granule(LbaCount::new(7))] {
                prop_assert_eq!(kinds(&bounds, &reported, policy), []);
            }
        }
    }
}
