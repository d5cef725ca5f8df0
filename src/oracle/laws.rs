//! Laws that need no model (`oracle.md` section 6): what must be refused, what must be answered
//! twice alike, and how three answers hang together. Not covered: the bounds of a diff
//! (`super::bounds`) and contents (`super::content`).

use super::verdict::{Kind, Violation};
use crate::block::{Extent, Lba, LbaCount, LbaSet};
use crate::model::Expected;
use crate::scenario::Label;

/// The words for a question.
pub fn asked(snap: Label, base: Option<Label>) -> String {
    match base {
        Some(base) => format!("diff({snap}, base {base})"),
        None => format!("diff({snap}) without base"),
    }
}

/// Law 1: a diff that was answered although it must be refused. `question` says which, and may name
/// snapshots that have no label.
pub fn judge_answered(question: &str, expected: &Expected, reported: &LbaSet) -> Option<Violation> {
    let Expected::Refusal(why) = expected else { return None };
    let with = if reported.is_empty() {
        "with nothing".to_owned()
    } else {
        format!("with {} LBAs", reported.count())
    };
    let sentence = format!("{question} was answered {with} although {why}; it must be refused");
    Some(Violation::new(Kind::Refusal, sentence))
}

/// Law 1, the other way: a diff that was refused although it is to be answered. `said` is the
/// target's answer, escaped.
pub fn judge_refused(
    (snap, base): (Label, Option<Label>),
    expected: &Expected,
    said: &str,
) -> Option<Violation> {
    let Expected::Answer = expected else { return None };
    let sentence =
        format!("{} was refused although both snapshots are there: {said}", asked(snap, base));
    Some(Violation::new(Kind::Refusal, sentence).about(snap, base))
}

/// Law 2: the same question, with no operation on the volume in between, gets the same answer.
pub fn judge_repeat(
    (snap, base): (Label, Option<Label>),
    first: &LbaSet,
    again: &LbaSet,
) -> Option<Violation> {
    let differs = first.difference(again).union(&again.difference(first));
    if differs.is_empty() {
        return None;
    }
    let sentence = format!(
        "{} was asked twice with nothing in between and differs in {differs}",
        asked(snap, base)
    );
    Some(Violation::new(Kind::Nondeterministic, sentence).about(snap, base).at(differs))
}

/// Law 4: what changed from a to c changed from a to b or from b to c. Only exact answers can be
/// held to it; of others it is worth a note. Where the middle has no LBAs nothing is asked: what was
/// shrunk away and grown back is in neither short answer's range, or of no value to either.
pub fn judge_triangle(
    (snap, base): (Label, Option<Label>),
    (middle, middle_len): (Label, LbaCount),
    (long, first, second): (&LbaSet, &LbaSet, &LbaSet),
) -> Option<Violation> {
    let inside = Extent::new(Lba::new(0), middle_len)?;
    let extra = long.within(inside).difference(first).difference(second);
    if extra.is_empty() {
        return None;
    }
    let sentence = format!(
        "{} reports {extra}, which neither {} nor {} reports",
        asked(snap, base),
        asked(middle, base),
        asked(snap, Some(middle))
    );
    Some(Violation::new(Kind::Leaked, sentence).about(snap, base).at(extra))
}

/// Law 4 over a deleted snapshot: the diff across `middle` still holds what it held while that was
/// there. Only exact answers can be held to it: others may have reported too much before.
pub fn judge_gone_middle(
    (snap, base): (Label, Option<Label>),
    middle: Label,
    then: &LbaSet,
    now: &LbaSet,
) -> Option<Violation> {
    let lost = then.difference(now);
    if lost.is_empty() {
        return None;
    }
    let sentence = format!(
        "{} reported {lost} before {middle} was deleted and does not report it after",
        asked(snap, base)
    );
    Some(Violation::new(Kind::Missed, sentence).about(snap, base).at(lost))
}

/// Law 2, from the middle: a walk that starts inside a chunk begins with that chunk and is the rest
/// of the whole walk.
pub fn judge_offset_walk(
    (snap, base): (Label, Option<Label>),
    from: Lba,
    whole: &LbaSet,
    walked: &LbaSet,
) -> Option<Violation> {
    let rest = Extent::between(from.chunk_start(), Lba::new(u64::MAX));
    let rest = rest.map(|rest| whole.within(rest)).unwrap_or_default();
    let differs = rest.difference(walked).union(&walked.difference(&rest));
    if differs.is_empty() {
        return None;
    }
    let sentence = format!(
        "{} from LBA {from} on is not the rest of the whole answer: it differs in {differs}",
        asked(snap, base)
    );
    Some(Violation::new(Kind::Malformed, sentence).about(snap, base).at(differs))
}

/// The cut law where snapshots cannot be read: `must` changed from base to snap in operations that
/// were in flight at the cut of `middle`; one of the two diffs beside it must have each LBA.
pub fn judge_cut(
    (snap, base): (Label, Option<Label>),
    middle: Label,
    must: &LbaSet,
    (before, after): (&LbaSet, &LbaSet),
) -> Option<Violation> {
    let missed = must.difference(before).difference(after);
    if missed.is_empty() {
        return None;
    }
    let sentence = format!(
        "{missed} changed in operations in flight at the cut of {middle}, and neither {} nor {} reports them",
        asked(middle, base),
        asked(snap, Some(middle))
    );
    Some(Violation::new(Kind::Missed, sentence).about(snap, base).at(missed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;

    const PAIR: (Label, Option<Label>) = (Label(1), Some(Label(0)));

    fn set(at: u64, len: u64) -> LbaSet {
        LbaSet::from(Extent::lbas(at, len))
    }

    #[test]
    fn even_an_empty_answer_against_a_deleted_base_is_a_violation() {
        let must_refuse = Expected::Refusal("the base has been deleted");
        let question = asked(PAIR.0, PAIR.1);
        let found = judge_answered(&question, &must_refuse, &LbaSet::new()).expect("a violation");
        assert_eq!(found.kind, Kind::Refusal);
        assert_eq!(
            found.sentence,
            "diff(s1, base s0) was answered with nothing although the base has been deleted; it must be refused"
        );
        assert_eq!(judge_answered(&question, &Expected::Either("reversed"), &set(0, 1)), None);
        assert_eq!(judge_refused(PAIR, &must_refuse, "404"), None);
        assert!(judge_refused(PAIR, &Expected::Answer, "400 not on the same chain").is_some());
    }

    #[test]
    fn two_answers_to_one_question_must_agree() {
        assert_eq!(judge_repeat(PAIR, &set(3, 4), &set(3, 4)), None);
        let found = judge_repeat(PAIR, &set(3, 4), &set(4, 4)).expect("a violation");
        assert_eq!((found.kind, found.extents.count().get()), (Kind::Nondeterministic, 2));
    }

    #[test]
    fn a_walk_from_the_middle_is_the_rest_of_the_whole_walk() {
        let whole = set(3, 80);
        let from = |lba, walked| judge_offset_walk(PAIR, Lba::new(lba), &whole, &walked);
        assert_eq!(from(70, set(64, 19)), None);
        assert_eq!(from(1, set(3, 80)), None);
        let found = from(70, set(70, 13)).expect("a violation");
        assert_eq!((found.kind, found.extents), (Kind::Malformed, set(64, 6)));
        assert!(from(70, set(64, 20)).is_some(), "one too many");
    }

    #[test]
    fn what_was_in_flight_at_a_cut_is_on_one_side_of_it() {
        let law = |before, after| {
            judge_cut((Label(2), Some(Label(0))), Label(1), &set(4, 2), (&before, &after))
        };
        assert_eq!(law(set(4, 2), LbaSet::new()), None);
        assert_eq!(law(set(4, 1), set(5, 1)), None);
        let found = law(set(4, 1), LbaSet::new()).expect("a violation");
        assert_eq!((found.kind, found.extents), (Kind::Missed, set(5, 1)));
    }

    #[test]
    fn the_diff_across_a_deleted_snapshot_keeps_what_it_held() {
        let law = |now| judge_gone_middle(PAIR, Label(7), &set(4, 2), &now);
        assert_eq!(law(set(4, 2)), None);
        assert_eq!(law(set(0, 64)), None, "more is no loss");
        let found = law(set(5, 1)).expect("a violation");
        assert_eq!((found.kind, found.extents), (Kind::Missed, set(4, 1)));
    }

    #[test]
    fn a_long_diff_may_not_hold_more_than_its_parts() {
        let (first, second) = (set(0, 4), set(8, 4));
        let law = |long: LbaSet| {
            let middle = (Label(1), LbaCount::new(64));
            judge_triangle((Label(2), Some(Label(0))), middle, (&long, &first, &second))
        };
        assert_eq!(law(set(200, 5)), None, "there the middle has no LBAs");
        assert_eq!(law(set(8, 4)), None);
        assert_eq!(law(set(8, 5)).map(|found| found.extents), Some(set(12, 1)));
    }
}
