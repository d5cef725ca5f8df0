//! Recordings written by hand, in which the judge must ring and must not.

use super::verdict::JudgedKind as Kind;
use super::*;
use crate::block::{
    BlockSize, Capabilities, CloneFullDiff, Durability, Extent, Geometry, Lba, LbaCount, LbaSet,
    Policy, Role, RollbackKind,
};
use crate::scenario::{Label, Op, SyncSource};

mod laws;

fn everything() -> Capabilities {
    Capabilities::everything()
}

/// A recording in the making.
struct Tape {
    records: Vec<Record>,
    steps: usize,
    writes: u64,
}

impl Tape {
    fn with(fresh: bool, policy: Policy, capabilities: Capabilities) -> Tape {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(200), fresh };
        let volumes =
            [Role::Source, Role::Target, Role::Neighbour].map(|role| (role, shape)).into();
        let capabilities = Box::new(capabilities);
        let records = vec![Record::Began { volumes, policy, capabilities }];
        Tape { records, steps: 0, writes: 0 }
    }
    fn new() -> Tape {
        Tape::with(true, Policy::Exact, everything())
    }
    fn step(&mut self, op: &Op) -> &mut Tape {
        self.records.push(Record::Step { index: self.steps, op: op.clone() });
        self.steps += 1;
        self
    }
    fn applied(&mut self, role: Role, op: Op) -> &mut Tape {
        let generation = matches!(op, Op::Write { .. }).then(|| {
            self.writes += 1;
            self.writes
        });
        self.records.push(Record::Applied { role, op, generation });
        self
    }
    /// A step that was done.
    fn did(&mut self, op: Op) -> &mut Tape {
        self.step(&op).applied(Role::Source, op)
    }
    fn asked(&mut self, role: Role, label: u32) -> &mut Tape {
        self.records.push(Record::Asked { role, label: Label(label) });
        self
    }
    fn available(&mut self, label: u32) -> &mut Tape {
        self.records.push(Record::Available { label: Label(label) });
        self
    }
    fn write(&mut self, at: u64, len: u64) -> &mut Tape {
        self.did(Op::Write { at: Extent::lbas(at, len) })
    }
    fn take(&mut self, label: u32) -> &mut Tape {
        self.step(&take(label)).asked(Role::Source, label).available(label)
    }
    fn ask(&mut self, snap: u32, base: Option<u32>, reported: &[(u64, u64)]) -> &mut Tape {
        let (snap, base) = (Label(snap), base.map(Label));
        self.step(&Op::Diff { snap, base, from: Lba::new(0), between_pages: None });
        let reported = reported.iter().map(|&(at, len)| Extent::lbas(at, len)).collect();
        self.records.push(Record::Answered { snap, base, from: Lba::new(0), reported });
        self
    }
    fn ask_from(&mut self, from: u64, snap: u32, reported: &[(u64, u64)]) -> &mut Tape {
        let (snap, base, from) = (Label(snap), None, Lba::new(from));
        self.step(&Op::Diff { snap, base, from, between_pages: None });
        let reported = reported.iter().map(|&(at, len)| Extent::lbas(at, len)).collect();
        self.records.push(Record::Answered { snap, base, from, reported });
        self
    }
    fn refused(&mut self, snap: u32, base: Option<u32>, pages: u32) -> &mut Tape {
        let (snap, base) = (Label(snap), base.map(Label));
        self.step(&Op::Diff { snap, base, from: Lba::new(0), between_pages: None });
        self.records.push(Record::TurnedDown { snap, base, pages });
        self
    }
    fn violated(&mut self, kind: &str) -> &mut Tape {
        let kind = kind.to_owned();
        self.records.push(Record::Violated { kind, snap: None, base: None });
        self
    }
    fn end(&mut self, verdict: &str) -> &mut Tape {
        self.records.push(Record::Ended { verdict: verdict.to_owned() });
        self
    }
    fn judged(&self) -> Judgement {
        judge(&self.records).expect("small")
    }
    #[track_caller]
    fn rings(&self, kinds: &[Kind]) -> Judgement {
        let judged = self.judged();
        let found: Vec<Kind> = judged.violations.iter().map(|violation| violation.kind).collect();
        assert_eq!(found, kinds, "{judged:#?}");
        judged
    }
    #[track_caller]
    fn is_silent(&self) -> Judgement {
        let judged = self.rings(&[]);
        assert_eq!(judged.unsure, [], "{judged:#?}");
        judged
    }
}

fn take(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}

#[test]
fn a_right_answer_is_right_and_one_lba_less_or_more_is_not() {
    let written = || {
        let mut tape = Tape::new();
        tape.take(0).write(62, 4).take(1);
        tape
    };
    assert_eq!(written().ask(1, Some(0), &[(62, 4)]).is_silent().diffs, 1);
    let missed = written().ask(1, Some(0), &[(62, 3)]).rings(&[Kind::Missed]);
    assert_eq!(
        missed.violations[0].sentence,
        "LBA 65 changed, diff(s1, base s0) does not report it"
    );
    assert_eq!(missed.violations[0].step, 3);
    written().ask(1, Some(0), &[(62, 5)]).rings(&[Kind::Leaked]);
    written().ask(1, Some(0), &[(0, 1)]).rings(&[Kind::Missed, Kind::Leaked]);
    written().ask(1, None, &[(62, 4)]).is_silent();
    written().ask(0, None, &[(62, 1)]).rings(&[Kind::Leaked]);
    written().ask(1, Some(0), &[(62, 4), (200, 1)]).rings(&[Kind::Leaked]);
}

#[test]
fn policies_round_outwards_what_may_be_reported() {
    for (policy, right, wrong) in [
        (Policy::Chunk, (64, 64), (128, 1)),
        (Policy::Granule(LbaCount::new(16)), (64, 16), (80, 1)),
    ] {
        let written = || {
            let mut tape = Tape::with(true, policy, everything());
            tape.take(0).write(70, 1).take(1);
            tape
        };
        written().ask(1, Some(0), &[right]).is_silent();
        written().ask(1, Some(0), &[(70, 1), wrong]).rings(&[Kind::Leaked]);
        written().ask(1, Some(0), &[right, wrong]).rings(&[Kind::Leaked]);
    }
    let mut tape = Tape::with(true, Policy::ReportOnly, everything());
    tape.take(0).write(70, 1).take(1).ask(1, Some(0), &[(0, 200)]).is_silent();
}

#[test]
fn zeros_over_data_must_and_same_contents_may_be_reported() {
    let changed = |op: Op, reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.write(5, 1).take(0).did(op).take(1).ask(1, Some(0), reported);
        tape
    };
    let at = Extent::lbas(5, 1);
    for op in [Op::Zero { at }, Op::WriteZeroes { at }, Op::Discard { at }, Op::Write { at }] {
        changed(op.clone(), &[(5, 1)]).is_silent();
        changed(op, &[]).rings(&[Kind::Missed]);
    }
    changed(Op::Rewrite { at }, &[(5, 1)]).is_silent();
    changed(Op::Rewrite { at }, &[]).is_silent();
}

#[test]
fn what_was_there_before_the_run_is_unknown_and_a_stamp_is_not() {
    let old = |op: Op, base: Option<u32>, reported: &[(u64, u64)]| {
        let mut tape = Tape::with(false, Policy::Exact, everything());
        tape.take(0).did(op).take(1).ask(1, base, reported);
        tape
    };
    let at = Extent::lbas(5, 1);
    old(Op::Write { at }, Some(0), &[]).rings(&[Kind::Missed]);
    old(Op::Write { at }, None, &[(5, 1), (100, 9)]).is_silent();
    let unsure = old(Op::Zero { at }, Some(0), &[]).rings(&[]);
    assert_eq!(
        unsure.unsure[0].sentence,
        "diff(s1, base s0) leaves out LBA 5, which may have changed or not"
    );
    old(Op::Zero { at }, Some(0), &[(5, 1), (6, 1)]).rings(&[Kind::Leaked]);
}

#[test]
fn what_must_be_refused_may_not_be_answered_and_the_reverse() {
    let mut tape = Tape::new();
    tape.take(0).take(1).ask(1, Some(1), &[]).rings(&[Kind::Refusal]);
    let deleted = || {
        let mut tape = Tape::new();
        tape.take(0).take(1).did(Op::Delete { label: Label(0), wait: true });
        tape
    };
    deleted().ask(1, Some(0), &[]).rings(&[Kind::Refusal]);
    deleted().ask(0, None, &[]).rings(&[Kind::Refusal]);
    assert_eq!(deleted().refused(1, Some(0), 0).is_silent().refusals, 1);
    deleted().refused(1, Some(0), 2).rings(&[Kind::Refusal]);
    deleted().refused(1, None, 0).rings(&[Kind::Refusal]);
    let leaving = || {
        let mut tape = Tape::new();
        tape.take(0).write(3, 1).take(1).did(Op::Delete { label: Label(0), wait: false });
        tape
    };
    leaving().refused(1, Some(0), 0).is_silent();
    leaving().ask(1, Some(0), &[(3, 1)]).is_silent();
    leaving().ask(1, Some(0), &[]).rings(&[Kind::Missed]);
    leaving().did(Op::Wait).ask(1, Some(0), &[(3, 1)]).rings(&[Kind::Refusal]);
    let mut foreign = Tape::new();
    foreign.step(&take(0)).asked(Role::Neighbour, 0).available(0);
    foreign.take(1).ask(1, Some(0), &[]).rings(&[Kind::Refusal]);
}

#[test]
fn a_reversed_pair_may_be_refused_and_if_not_must_lose_nothing() {
    let written = || {
        let mut tape = Tape::new();
        tape.take(0).write(3, 1).take(1);
        tape
    };
    written().refused(0, Some(1), 0).is_silent();
    written().ask(0, Some(1), &[(3, 1), (9, 1)]).is_silent();
    written().ask(0, Some(1), &[]).rings(&[Kind::Missed]);
}

#[test]
fn a_base_that_goes_between_two_pages_excuses_either() {
    let (snap, base, from) = (Label(1), Some(Label(0)), Lba::new(0));
    let delete = Op::Delete { label: Label(0), wait: true };
    let between_pages = Some((1, Box::new(delete.clone())));
    let started = || {
        let mut tape = Tape::new();
        tape.take(0).write(3, 1).take(1);
        tape.step(&Op::Diff { snap, base, from, between_pages: between_pages.clone() });
        tape.applied(Role::Source, delete.clone());
        tape
    };
    let mut refused = started();
    refused.records.push(Record::TurnedDown { snap, base, pages: 1 });
    refused.is_silent();
    let mut short = started();
    short.records.push(Record::Answered { snap, base, from, reported: LbaSet::new() });
    short.rings(&[Kind::Missed]);
}

#[test]
fn a_copy_waits_for_its_snapshot_and_its_answer_is_then_held_against_both_bounds() {
    let (snap, base, from) = (Label(1), Some(Label(0)), SyncSource::Snapshot);
    let copied = |during: Vec<Op>, reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.write(3, 1).take(0).write(4, 1);
        tape.step(&Op::Take { label: snap, wait: false }).asked(Role::Source, 1);
        tape.step(&Op::Sync { snap, base, from, during }).available(1);
        let reported = reported.iter().map(|&(at, len)| Extent::lbas(at, len)).collect();
        tape.records.push(Record::Answered { snap, base, from: Lba::new(0), reported });
        tape
    };
    copied(Vec::new(), &[(4, 1)]).is_silent();
    copied(Vec::new(), &[(4, 2)]).rings(&[Kind::Leaked]);
    copied(Vec::new(), &[(5, 1)]).rings(&[Kind::Missed, Kind::Leaked]);
    // One that is taken while the copy goes on says nothing of the question before it.
    copied(vec![take(2)], &[(4, 2)]).asked(Role::Source, 2).available(2).rings(&[Kind::Leaked]);
    // A diff waits for nothing: what comes between two of its pages excuses it.
    let mut early = Tape::new();
    early.take(0).step(&Op::Take { label: snap, wait: false }).asked(Role::Source, 1);
    let between_pages = Some((1, Box::new(Op::Wait)));
    early.step(&Op::Diff { snap, base, from: Lba::new(0), between_pages });
    early.available(1).applied(Role::Source, Op::Wait);
    let reported = LbaSet::from(Extent::lbas(9, 1));
    early.records.push(Record::Answered { snap, base, from: Lba::new(0), reported });
    early.is_silent();
}

#[test]
fn a_walk_from_within_is_the_rest_of_the_whole_one() {
    let written = || {
        let mut tape = Tape::new();
        tape.write(3, 1).write(70, 1).write(140, 1).take(0);
        tape
    };
    written().ask_from(65, 0, &[(70, 1), (140, 1)]).is_silent();
    written().ask_from(65, 0, &[(140, 1)]).rings(&[Kind::Missed]);
    written().ask(0, None, &[(3, 1), (70, 1), (140, 1)]).is_silent();
    let mut twice = Tape::new();
    twice.write(70, 1).did(Op::Rewrite { at: Extent::lbas(70, 1) }).take(0);
    twice.write(9, 1).take(1).did(Op::Rewrite { at: Extent::lbas(70, 1) }).take(2);
    twice.ask(2, Some(1), &[(70, 1)]).ask(2, Some(1), &[]).rings(&[Kind::Nondeterministic]);
    // Its volume is deleted in between: that is something in between.
    let gone = Op::DeleteVolume { volume: Role::Source };
    let mut deleted = Tape::with(true, Policy::Chunk, everything());
    deleted.write(70, 1).take(0).ask(0, None, &[(70, 1)]).did(gone);
    deleted.ask(0, None, &[(64, 8)]).is_silent();
    deleted.ask(0, None, &[(70, 1)]).rings(&[Kind::Nondeterministic]);
}

#[test]
fn a_rollback_touches_what_it_may_move_and_brings_back_what_was_there() {
    let back = |reported: &[(u64, u64)], base: u32| {
        let mut tape = Tape::new();
        tape.write(3, 1).take(0).write(3, 2).take(1);
        tape.did(Op::Rollback { label: Label(0) }).take(2).ask(2, Some(base), reported);
        tape
    };
    back(&[(3, 2)], 1).is_silent();
    back(&[(3, 1)], 1).rings(&[Kind::Missed]);
    back(&[(3, 2), (9, 1)], 1).rings(&[Kind::Leaked]);
    back(&[], 0).is_silent();
    back(&[(3, 2)], 0).is_silent();
    let forks = Capabilities { rollback: RollbackKind::Forks, ..everything() };
    let forked = || {
        let mut tape = Tape::with(true, Policy::Exact, forks.clone());
        tape.take(0).write(3, 1).take(1).did(Op::Rollback { label: Label(0) }).take(2);
        tape
    };
    forked().refused(2, Some(1), 0).is_silent();
    forked().ask(2, Some(1), &[]).rings(&[Kind::Missed]);
    let mut plain = Tape::new();
    plain.take(0).take(1).did(Op::Rollback { label: Label(0) }).take(2);
    plain.refused(2, Some(1), 0).rings(&[Kind::Refusal]);
}

#[test]
fn a_resize_touches_the_area_between_the_two_sizes() {
    let resized = |reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.write(150, 1).take(0);
        tape.did(Op::Resize { len: LbaCount::new(140) });
        tape.did(Op::Resize { len: LbaCount::new(200) });
        tape.take(1).ask(1, Some(0), reported);
        tape
    };
    resized(&[(150, 1)]).is_silent();
    resized(&[(140, 60)]).is_silent();
    resized(&[]).rings(&[Kind::Missed]);
    resized(&[(139, 60)]).rings(&[Kind::Leaked]);
    let short = |reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.write(150, 1).did(Op::Resize { len: LbaCount::new(140) }).take(0);
        tape.ask(0, None, reported);
        tape
    };
    short(&[]).is_silent();
    short(&[(150, 1)]).rings(&[Kind::Leaked]);
}

#[test]
fn a_clone_is_measured_from_zeros_or_from_its_birth_or_nobody_knows() {
    let cloned = |full: CloneFullDiff, reported: &[(u64, u64)]| {
        let clone_full_diff = Some(full);
        let mut tape =
            Tape::with(true, Policy::Exact, Capabilities { clone_full_diff, ..everything() });
        tape.write(3, 1).take(0);
        tape.did(Op::Clone { label: Label(0), volume: Role::Clone });
        let on_clone = Op::Write { at: Extent::lbas(70, 1) };
        tape.step(&on_clone).applied(Role::Clone, on_clone);
        tape.step(&take(1)).asked(Role::Clone, 1).available(1);
        tape.ask(1, None, reported);
        tape
    };
    use CloneFullDiff::{IncludesParent, SinceClone, Unknown};
    cloned(IncludesParent, &[(3, 1), (70, 1)]).is_silent();
    cloned(IncludesParent, &[(70, 1)]).rings(&[Kind::Missed]);
    cloned(SinceClone, &[(70, 1)]).is_silent();
    cloned(SinceClone, &[(3, 1), (70, 1)]).rings(&[Kind::Leaked]);
    cloned(Unknown, &[(3, 1)]).rings(&[Kind::Missed]);
    assert_eq!(cloned(Unknown, &[(70, 1), (90, 1)]).rings(&[]).unsure.len(), 1);
    cloned(Unknown, &[(3, 1), (70, 1)]).is_silent();
}

/// A write and a cut in flight together: s0, then both, then s2.
fn raced() -> Tape {
    let mut tape = Tape::new();
    let write = Op::Write { at: Extent::lbas(7, 1) };
    tape.take(0).step(&Op::Concurrent(vec![take(1), write.clone()]));
    tape.asked(Role::Source, 1).applied(Role::Source, write).available(1).take(2);
    tape
}

#[test]
fn a_write_inside_a_cut_belongs_to_either_side_and_never_to_none() {
    raced().ask(1, Some(0), &[(7, 1)]).is_silent();
    raced().ask(1, Some(0), &[(8, 1)]).rings(&[Kind::Leaked]);
    assert_eq!(raced().ask(1, Some(0), &[]).rings(&[]).unsure.len(), 1, "nobody can tell yet");
    let both = |first: &[(u64, u64)], second: &[(u64, u64)]| {
        let mut tape = raced();
        tape.ask(1, Some(0), first).ask(2, Some(1), second).ask(2, Some(0), &[(7, 1)]);
        tape
    };
    both(&[(7, 1)], &[]).rings(&[]);
    both(&[], &[(7, 1)]).rings(&[]);
    both(&[(7, 1)], &[(7, 1)]).rings(&[]);
    // Neither side has it: the long diff leaks as far as its parts can tell, and they lost it.
    both(&[], &[]).rings(&[Kind::Missed, Kind::Leaked]);
}

#[test]
fn reading_a_snapshot_decides_which_side_a_write_belongs_to() {
    let read = |block: Block, first: &[(u64, u64)], second: &[(u64, u64)]| {
        let mut tape = raced();
        let (role, snap) = (Role::Source, Some(Label(1)));
        let blocks = vec![(Extent::lbas(7, 1), block)];
        tape.records.push(Record::Seen { role, snap, like: None, blocks });
        tape.ask(1, Some(0), first).ask(2, Some(1), second);
        tape
    };
    let stamp = Block::Stamp { role: Role::Source, generation: 1 };
    read(stamp, &[(7, 1)], &[]).is_silent();
    read(Block::Zero, &[], &[(7, 1)]).is_silent();
    // The data in one interval and the map in the other.
    read(stamp, &[], &[(7, 1)]).rings(&[Kind::Missed]);
    read(Block::Zero, &[(7, 1)], &[]).rings(&[Kind::Missed]);
    let foreign = Block::Stamp { role: Role::Source, generation: 9 };
    read(foreign, &[(7, 1)], &[]).rings(&[Kind::Content]);
}

#[test]
fn old_data_that_was_seen_to_be_zeros_stays_old_data_wherever_it_is_brought_back() {
    let at = Extent::lbas(7, 1);
    let seen = |tape: &mut Tape, label: u32, block: Block| {
        let (role, snap, like) = (Role::Source, Some(Label(label)), None);
        tape.records.push(Record::Seen { role, snap, like, blocks: vec![(at, block)] });
    };
    let back = |block: Block| {
        let mut tape = Tape::with(false, Policy::Exact, everything());
        tape.take(0);
        seen(&mut tape, 0, Block::Zero);
        tape.write(7, 1).did(Op::Rollback { label: Label(0) }).take(1);
        seen(&mut tape, 1, block);
        tape
    };
    back(Block::Old).is_silent();
    back(Block::Zero).is_silent();
    back(Block::Zero).ask(1, None, &[]).rings(&[]);
    back(Block::Other).rings(&[Kind::Content]);
    back(Block::Stamp { role: Role::Source, generation: 1 }).rings(&[Kind::Content]);
    // What this run zeroed is no old data, and old data is no block of this run.
    let mut zeroed = Tape::with(false, Policy::Exact, everything());
    zeroed.did(Op::Zero { at }).take(0);
    seen(&mut zeroed, 0, Block::Old);
    zeroed.rings(&[Kind::Content]);
    let mut old = Tape::with(false, Policy::Exact, everything());
    old.take(0);
    seen(&mut old, 0, Block::Other);
    old.is_silent();
    old.take(1);
    seen(&mut old, 1, Block::Misplaced);
    old.rings(&[Kind::Content]);
}

#[test]
fn a_snapshot_that_nobody_waited_for_may_hold_what_came_after() {
    let early = |reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.take(0).step(&Op::Take { label: Label(1), wait: false }).asked(Role::Source, 1);
        tape.write(7, 1).did(Op::Wait).write(9, 1).ask(1, Some(0), reported);
        tape
    };
    early(&[(7, 1)]).is_silent();
    assert_eq!(early(&[]).rings(&[]).unsure.len(), 1);
    early(&[(7, 1), (9, 1)]).rings(&[Kind::Leaked]);
}

#[test]
fn a_failed_write_may_land_at_any_time_and_never_hides_a_change_that_is_certain() {
    let failed = |then: Option<Op>, reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        let op = Op::Write { at: Extent::lbas(7, 1) };
        tape.take(0).step(&op);
        let (role, generation, late) = (Role::Source, Some(77), true);
        tape.records.push(Record::Failed { role, op, generation, late });
        then.into_iter().for_each(|op| {
            tape.did(op);
        });
        tape.take(1).ask(1, Some(0), reported);
        tape
    };
    let at = Extent::lbas(7, 1);
    failed(None, &[(7, 1)]).is_silent();
    assert_eq!(failed(None, &[]).rings(&[]).unsure.len(), 1);
    failed(None, &[(8, 1)]).rings(&[Kind::Leaked]);
    failed(Some(Op::Write { at }), &[]).rings(&[Kind::Missed]);
    // It may land over the zeros.
    assert_eq!(failed(Some(Op::Zero { at }), &[]).rings(&[]).unsure.len(), 1);
    failed(Some(Op::Restart { clean: true }), &[(7, 1)]).is_silent();
}

#[test]
fn what_was_not_flushed_may_be_lost_by_a_kill() {
    let on_flush = Capabilities { durable: Durability::OnFlush, ..everything() };
    let killed = |flush: bool, reported: &[(u64, u64)]| {
        let mut tape = Tape::with(true, Policy::Exact, on_flush.clone());
        tape.take(0).write(7, 1);
        if flush {
            tape.did(Op::Flush);
        }
        tape.did(Op::Restart { clean: false }).take(1).ask(1, Some(0), reported);
        tape
    };
    killed(false, &[(7, 1)]).is_silent();
    assert_eq!(killed(false, &[]).rings(&[]).unsure.len(), 1);
    killed(true, &[]).rings(&[Kind::Missed]);
    let forgets = Capabilities { tracking_survives_kill: false, ..everything() };
    let across = || {
        let mut tape = Tape::with(true, Policy::Exact, forgets.clone());
        tape.take(0).write(7, 1).did(Op::Restart { clean: false }).take(1).take(2);
        tape
    };
    across().refused(1, Some(0), 0).is_silent();
    across().ask(1, Some(0), &[]).rings(&[Kind::Missed]);
    across().refused(2, Some(1), 0).rings(&[Kind::Refusal]);
}

#[test]
fn a_sync_writes_what_its_diff_names_and_brings_what_the_snapshot_held() {
    let synced = |wrote: &[(u64, u64)], target: Block| {
        let mut tape = Tape::new();
        tape.write(3, 1).take(0).write(3, 1);
        let (snap, base, from) = (Label(0), None, SyncSource::Snapshot);
        tape.step(&Op::Sync { snap, base, from, during: Vec::new() });
        let reported: LbaSet = LbaSet::from(Extent::lbas(3, 1));
        tape.records.push(Record::Answered {
            snap,
            base,
            from: Lba::new(0),
            reported: reported.clone(),
        });
        let wrote = wrote.iter().map(|&(at, len)| Extent::lbas(at, len)).collect();
        tape.records.push(Record::Copied { snap, base, from, copied: reported, wrote });
        let blocks = vec![(Extent::lbas(3, 1), target)];
        let (snap, like) = (None, None);
        tape.records.push(Record::Seen { role: Role::Target, snap, like, blocks });
        tape
    };
    let of = |generation| Block::Stamp { role: Role::Source, generation };
    let fine = synced(&[(3, 1)], of(1)).is_silent();
    assert_eq!((fine.diffs, fine.syncs, fine.blocks), (1, 1, 1));
    synced(&[(3, 2)], of(1)).rings(&[Kind::Disturbed]);
    synced(&[(3, 1)], of(2)).rings(&[Kind::Content]);
    synced(&[], Block::Zero).rings(&[Kind::Content]);
    synced(&[(3, 1)], Block::Other).rings(&[Kind::Content]);
    synced(&[(3, 1)], Block::Misplaced).rings(&[Kind::Content]);
    // Beside its answer the target must hold what it held; from the next step on nobody knows.
    let beside = |block: Block| {
        let mut tape = synced(&[(3, 2)], of(1));
        let blocks = vec![(Extent::lbas(4, 1), block)];
        tape.records.push(Record::Seen { role: Role::Target, snap: None, like: None, blocks });
        tape
    };
    beside(Block::Zero).rings(&[Kind::Disturbed]);
    let both = [Kind::Disturbed, Kind::Content];
    beside(of(2)).rings(&both);
    let mut later = beside(of(2));
    later.step(&Op::Wait);
    let blocks = vec![(Extent::lbas(4, 1), of(2))];
    later.records.push(Record::Seen { role: Role::Target, snap: None, like: None, blocks });
    later.rings(&both);
}

#[test]
fn two_judges_that_say_the_same_agree_and_others_do_not() {
    let written = |reported: &[(u64, u64)]| {
        let mut tape = Tape::new();
        tape.take(0).write(62, 4).take(1).ask(1, Some(0), reported);
        tape
    };
    assert!(written(&[(62, 4)]).end("pass").judged().is_clean());
    let same = written(&[(62, 3)]).violated("missed").end("fail").judged();
    assert!(same.agrees() && !same.is_clean());
    let lenient = written(&[(62, 3)]).end("pass").judged();
    assert_eq!(
        lenient.disagreements[0].sentence,
        "this judge says missed, the recording says nothing wrong"
    );
    let strict = written(&[(62, 4)]).violated("leaked").end("fail").judged();
    assert_eq!(
        strict.disagreements[0].sentence,
        "this judge says nothing wrong, the recording says leaked"
    );
    assert!(!written(&[(62, 3)]).violated("leaked").end("fail").judged().agrees());
    let unseen = written(&[(62, 4)]).violated("liveness").end("fail").judged();
    assert!(unseen.agrees() && !unseen.is_clean());
    assert_eq!(unseen.not_rejudged.len(), 1);
    // A page without a shape is no answer, and no business of this judge.
    let mut shapeless = Tape::new();
    shapeless.take(0).step(&Op::Wait).violated("malformed").end("fail");
    assert_eq!((shapeless.judged().agrees(), shapeless.judged().not_rejudged.len()), (true, 1));
    // The same of a later answer of a step whose first one was whole.
    let mut chain = written(&[(62, 4)]);
    let (kind, snap, base) = ("malformed".to_owned(), Some(Label(2)), Some(Label(1)));
    chain.records.push(Record::Violated { kind, snap, base });
    let judged = chain.end("fail").judged();
    assert_eq!((judged.agrees(), judged.not_rejudged.len()), (true, 1));
    // Cut short before the first judge could say anything.
    assert!(written(&[(62, 3)]).judged().agrees());
}

#[test]
fn a_snapshot_that_expired_is_nobodys_wrong_answer() {
    let mut tape = Tape::new();
    tape.take(0).take(1).refused(1, Some(0), 0).end("unknown");
    let judged = tape.rings(&[]);
    assert_eq!((judged.unsure.len(), judged.agrees()), (1, true));
}

#[test]
fn later_scenarios_of_a_recording_find_the_volumes_as_they_were_left() {
    let mut tape = Tape::new();
    tape.write(3, 1).take(0).end("unknown");
    let began = tape.records[0].clone();
    tape.records.push(began);
    tape.take(0).ask(0, None, &[(3, 1)]).is_silent();
    tape.ask(0, None, &[]).rings(&[Kind::Missed, Kind::Nondeterministic]);
    assert_eq!(tape.judged().scenarios, 2);
}

#[test]
fn nothing_compared_is_no_pass() {
    assert!(!Tape::new().write(3, 1).take(0).judged().compared());
}

#[test]
fn records_are_read_back_from_lines_among_others() {
    let mut tape = Tape::new();
    tape.take(0).write(62, 4).take(1).ask(1, Some(0), &[(62, 4)]).violated("missed").end("fail");
    let mut text = String::from("{\"v\":1,\"event\":\"note\",\"text\":\"for people\"}\n");
    for record in &tape.records {
        let mut line = serde_json::to_value(record).expect("encodes");
        line["v"] = 1.into();
        line["event"] = "record".into();
        text.push_str(&format!("{line}\n"));
    }
    assert_eq!(read_records(&text).expect("reads"), tape.records);
    let cut = format!("{text}{{\"v\":1,\"event\":\"rec");
    assert_eq!(read_records(&cut).expect("reads"), tape.records, "a kill leaves half a line");
    let wrong = text.replace("\"answered\"", "\"guessed\"");
    assert!(matches!(read_records(&wrong), Err(RecordError::Line { line: 12, .. })));
    let other = text.replace("\"v\":1", "\"v\":2");
    assert!(matches!(read_records(&other), Err(RecordError::Version { line: 1, found: 2 })));
    assert!(matches!(read_records("{\"v\":1,\"event\":\"x\"}\n"), Err(RecordError::Empty)));
}
