//! How answers hang together, and what a judge cannot hold in memory. Not covered: the bounds.

use super::*;

#[test]
fn three_answers_hang_together_in_whichever_order_they_are_given() {
    let answers = [(2, Some(0), &[(3, 1)][..]), (1, Some(0), &[]), (2, Some(1), &[])];
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2]] {
        let told = |policy| {
            let mut tape = Tape::with(true, policy, everything());
            // Whether a block was touched that is what it was before, an array may say or not.
            tape.write(3, 1).take(0).did(Op::Rewrite { at: Extent::lbas(3, 1) }).take(1).take(2);
            for place in order {
                let (snap, base, reported) = answers[place];
                tape.ask(snap, base, reported);
            }
            tape
        };
        told(Policy::Exact).rings(&[Kind::Leaked]);
        told(Policy::Chunk).is_silent();
    }
}

#[test]
fn what_the_middle_has_no_room_for_is_no_matter_of_three_answers() {
    let mut tape = Tape::new();
    tape.write(150, 1).take(0).did(Op::Resize { len: LbaCount::new(100) }).take(1);
    tape.did(Op::Resize { len: LbaCount::new(200) }).take(2);
    // It differs from s0 to s2, was past the end of s1, and is zeros as if it had never been.
    tape.ask(1, Some(0), &[]).ask(2, Some(1), &[]).ask(2, Some(0), &[(150, 1)]).is_silent();
}

#[test]
fn a_recording_that_would_fill_the_memory_is_refused() {
    let whole = Extent::between(Lba::new(0), Lba::new(u64::MAX)).expect("not empty");
    let mut tape = Tape::new();
    tape.write(3, 1).take(0);
    let (snap, base, from) = (Label(0), None, Lba::new(0));
    let answered = Record::Answered { snap, base, from, reported: LbaSet::from(whole) };
    let copied = Record::Copied {
        snap,
        base,
        from: SyncSource::Snapshot,
        copied: LbaSet::from(whole),
        wrote: LbaSet::from(whole),
    };
    let blocks = vec![(whole, Block::Zero), (whole, Block::Other)];
    let seen = Record::Seen { role: Role::Source, snap: None, like: None, blocks };
    for record in [answered, copied, seen] {
        let records = tape.records.iter().chain([&record]);
        assert_eq!(judge(records).map(|_| ()), Err(TooLarge), "{record:?}");
    }
}

#[test]
fn a_whole_walk_holds_the_part_that_was_asked_before_it() {
    let told = |part: &[(u64, u64)], between: Option<Op>| {
        let mut tape = Tape::new();
        tape.write(70, 1).take(0).did(Op::Rewrite { at: Extent::lbas(70, 1) }).take(1);
        let (snap, base, from) = (Label(1), Some(Label(0)), Lba::new(65));
        tape.step(&Op::Diff { snap, base, from, between_pages: None });
        let reported = part.iter().map(|&(at, len)| Extent::lbas(at, len)).collect();
        tape.records.push(Record::Answered { snap, base, from, reported });
        between.into_iter().for_each(|op| {
            tape.did(op);
        });
        tape.ask(1, Some(0), &[(70, 1)]);
        tape
    };
    told(&[(70, 1)], None).is_silent();
    told(&[], None).rings(&[Kind::Malformed]);
    told(&[], Some(Op::Write { at: Extent::lbas(9, 1) })).is_silent();
}
