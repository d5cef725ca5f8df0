//! The interpreter against the simulator: the whole alphabet on an honest one, witnesses of
//! planted bugs, and faults that must never be called violations.

use super::*;
use crate::array::{ApiError, Array, BlockDevice, DeviceError, Reply, SnapshotInfo, VolumeInfo};
use crate::block::{
    BlockSize, ByteOffset, Capabilities, Extent, Lba, LbaCount, LbaSet, Page, Policy, Role, RunId,
    SnapshotName, SnapshotUuid, VolumeUuid,
};
use crate::campaign::inproc::{InProcess, InProcessConfig};
use crate::oracle::{Kind, Reason, Verdict};
use crate::scenario::{Check, Header, Label, Op, Scenario, SyncSource};
use crate::sim::Bug;
use crate::sync::{PipelineBug, PipelineBugs};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

fn config(bugs: &[Bug], pipeline: PipelineBugs) -> InProcessConfig {
    InProcessConfig {
        len: LbaCount::new(1 << 14),
        block: BlockSize::SMALLEST,
        page_limit: 2,
        array_bugs: bugs.to_vec(),
        pipeline_bugs: pipeline,
    }
}

fn target(bugs: &[Bug]) -> InProcess {
    InProcess::new(config(bugs, PipelineBugs::NONE), RunId::from_u128(5)).expect("sets up")
}

fn scenario(target: &InProcess, ops: Vec<Op>) -> Scenario {
    Scenario::new(Header::new(target.shapes(), Policy::Exact, "a test"), ops)
}

fn go(target: &InProcess, ops: Vec<Op>) -> (Verdict, Vec<Event>) {
    let mut events = Vec::new();
    let scenario = scenario(target, ops);
    let verdict =
        run(&scenario, &mut target.model(), &mut target.sut(), &mut |event| events.push(event));
    (verdict, events)
}

fn at(start: u64, len: u64) -> Extent {
    Extent::lbas(start, len)
}
fn w(start: u64, len: u64) -> Op {
    Op::Write { at: at(start, len) }
}
fn s(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}
fn x(label: u32) -> Op {
    Op::Delete { label: Label(label), wait: true }
}
fn d(snap: u32, base: impl Into<Option<u32>>) -> Op {
    let base = base.into().map(Label);
    Op::Diff { snap: Label(snap), base, from: Lba::new(0), between_pages: None }
}
fn y(snap: u32, base: impl Into<Option<u32>>) -> Op {
    let base = base.into().map(Label);
    Op::Sync { snap: Label(snap), base, from: SyncSource::Snapshot, during: Vec::new() }
}
fn on(volume: Role, op: Op) -> Op {
    Op::On { volume, op: Box::new(op) }
}

#[test]
fn a_refusal_where_either_is_right_and_nothing_could_be_wrong_is_no_comparison() {
    let verdict = |last| go(&target(&[]), vec![s(0), w(3, 1), s(1), last]).0;
    assert_eq!(verdict(d(0, 1)), Verdict::Pass, "an answer without LBA 3 would be wrong");
    let (snap, base) = (Label(1), Some(Label(0)));
    let past_the_end = Op::Diff { snap, base, from: Lba::new(u64::MAX), between_pages: None };
    assert_eq!(verdict(past_the_end), Verdict::Unknown(Reason::NothingCompared));
}

#[test]
fn the_whole_alphabet_runs_clean_on_the_honest_simulator() {
    let between = Op::Diff {
        snap: Label(2),
        base: None,
        from: Lba::new(65),
        between_pages: Some((1, Box::new(w(9000, 3)))),
    };
    let ops = vec![
        w(0, 200),
        s(0),
        Op::Rewrite { at: at(3, 4) },
        Op::Zero { at: at(10, 4) },
        Op::WriteZeroes { at: at(70, 10) },
        Op::Discard { at: at(120, 9) },
        w(63, 2),
        Op::Flush,
        Op::Read { snap: None, at: at(0, 300) },
        s(1),
        Op::Read { snap: Some(Label(0)), at: at(0, 300) },
        d(1, 0),
        w(500, 100),
        s(2),
        between,
        d(2, 0),
        d(1, 2),
        y(0, None),
        y(1, 0),
        Op::Check(Check::TargetAsModelled { at: at(0, 1 << 14) }),
        Op::Rollback { label: Label(1) },
        s(3),
        d(3, 2),
        Op::Delete { label: Label(2), wait: false },
        Op::Wait,
        Op::SyncChain { to: Label(3) },
        Op::Resize { len: LbaCount::new((1 << 14) + 70) },
        w(1 << 14, 70),
        Op::Restart { clean: true },
        s(4),
        d(4, 3),
        Op::Restart { clean: false },
        s(5),
        d(5, 4),
        Op::Clone { label: Label(1), volume: Role::Clone },
        on(Role::Clone, w(64, 1)),
        on(Role::Clone, s(6)),
        d(6, None),
        Op::CreateVolume { volume: Role::Neighbour, same_id: false },
        on(Role::Neighbour, w(7, 7)),
        on(Role::Neighbour, s(7)),
        d(7, None),
        d(5, 7),
        Op::DeleteVolume { volume: Role::Neighbour },
        d(5, 4),
    ];
    let total = ops.len();
    let (verdict, events) = go(&target(&[]), ops);
    assert_eq!(verdict, Verdict::Pass);
    let steps = events.iter().filter(|event| matches!(event, Event::Step { .. })).count();
    assert_eq!(steps, total);
    let skipped: Vec<&Event> =
        events.iter().filter(|event| matches!(event, Event::Skipped { .. })).collect();
    assert!(skipped.is_empty(), "{skipped:?}");
    let refused = events.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert_eq!(refused, 2, "reversed ends, foreign base");
}

/// A witness of the catalogue, and the kind it is found as.
fn witnesses() -> Vec<(Bug, Kind, Vec<Op>)> {
    let grown = || Op::Resize { len: LbaCount::new((1 << 14) + 640) };
    vec![
        (
            Bug::DiscardUntracked,
            Kind::Missed,
            vec![w(64, 8), s(0), Op::Discard { at: at(64, 8) }, s(1), d(1, 0)],
        ),
        (
            Bug::RollbackNotAChange,
            Kind::Missed,
            vec![s(0), w(64, 8), s(1), Op::Rollback { label: Label(0) }, s(2), d(2, 1)],
        ),
        (
            Bug::EraLostOnRestart,
            Kind::Missed,
            vec![s(0), w(9, 1), Op::Restart { clean: false }, s(1), d(1, 0)],
        ),
        (
            Bug::MergeLosesMap,
            Kind::Missed,
            vec![w(9, 1), s(0), s(1), x(0), Op::Restart { clean: true }, d(1, None)],
        ),
        (Bug::ResizeReportsEverything, Kind::Leaked, vec![w(0, 4), s(0), grown(), s(1), d(1, 0)]),
        (Bug::SelfDiffEmpty, Kind::Refusal, vec![s(0), d(0, 0)]),
        (Bug::DeletedBaseAnswers, Kind::Refusal, vec![s(0), s(1), x(0), d(1, 0)]),
        (Bug::LegalBaseRefused, Kind::Refusal, vec![s(0), s(1), s(2), d(2, 0)]),
        (Bug::ReversedEndsEmpty, Kind::Missed, vec![s(0), w(3, 1), s(1), d(0, 1)]),
        (
            Bug::SnapshotNotFrozen,
            Kind::Content,
            vec![w(3, 1), s(0), w(3, 1), Op::Read { snap: Some(Label(0)), at: at(0, 8) }],
        ),
        (
            Bug::AnswerVaries,
            Kind::Nondeterministic,
            vec![w(3, 1), s(0), Op::Rewrite { at: at(3, 1) }, s(1), d(1, 0), d(1, 0)],
        ),
        (Bug::DeleteNeverFinishes, Kind::Liveness, vec![s(0), x(0)]),
        (Bug::CreateNeverAvailable, Kind::Liveness, vec![s(0)]),
        (
            Bug::MiddleDeleteBreaksWalk,
            Kind::Missed,
            vec![
                s(0),
                w(0, 200),
                s(1),
                w(300, 200),
                s(2),
                Op::Diff {
                    snap: Label(2),
                    base: Some(Label(0)),
                    from: Lba::new(0),
                    between_pages: Some((1, Box::new(x(1)))),
                },
            ],
        ),
    ]
}

#[test]
fn witnesses_of_planted_bugs_are_found_as_what_they_are_and_pass_on_the_honest_array() {
    for (bug, kind, ops) in witnesses() {
        let (honest, _) = go(&target(&[]), ops.clone());
        assert!(honest.violation().is_none(), "{}: honest array accused: {honest:?}", bug.name());
        let (verdict, _) = go(&target(&[bug]), ops);
        assert_eq!(verdict.violation().map(|v| v.kind), Some(kind), "{}: {verdict:?}", bug.name());
    }
}

#[test]
fn a_chain_applied_in_the_wrong_order_is_found() {
    let ops = || {
        let mut ops = vec![w(5, 1), s(2), w(5, 1), s(10)];
        ops.push(Op::SyncChain { to: Label(10) });
        ops
    };
    assert_eq!(go(&target(&[]), ops()).0, Verdict::Pass);
    let bugs = PipelineBugs::from(PipelineBug::ChainSortedAsText);
    let target = InProcess::new(config(&[], bugs), RunId::from_u128(5)).expect("sets up");
    let (verdict, _) = go(&target, ops());
    assert_eq!(verdict.violation().map(|v| v.kind), Some(Kind::Content), "{verdict:?}");
}

#[test]
fn operations_that_mean_nothing_are_skipped_and_said_so() {
    let far = Op::Write { at: at(1 << 14, 1) };
    let (verdict, events) =
        go(&target(&[]), vec![d(1, 0), x(9), far, Op::Concurrent(vec![w(0, 1), Op::Wait])]);
    assert_eq!(verdict, Verdict::Unknown(Reason::NothingCompared), "nothing compared is no pass");
    let skipped = events.iter().filter(|event| matches!(event, Event::Skipped { .. })).count();
    assert_eq!(skipped, 4, "{events:?}");
}

#[test]
fn an_interrupted_run_is_neither_pass_nor_failure() {
    let target = target(&[]);
    target.stop().store(true, Ordering::Relaxed);
    let (verdict, _) = go(&target, vec![w(0, 1), s(0), d(0, None)]);
    assert_eq!(verdict, Verdict::Unknown(Reason::Interrupted));
}

/// A device on which so many writes succeed, and each lands at `echo` as well.
struct Failing<'a> {
    inner: &'a dyn BlockDevice,
    writes_left: std::sync::atomic::AtomicU32,
    echo: Option<Lba>,
}

impl BlockDevice for Failing<'_> {
    fn block_size(&self) -> BlockSize {
        self.inner.block_size()
    }
    fn len_lbas(&self) -> LbaCount {
        self.inner.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.read_at(at, buf)
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        if self.writes_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let source = io::Error::from_raw_os_error(libc::EIO);
            return Err(DeviceError::Io { op: "write", at, source });
        }
        if let Some(echo) = self.echo {
            let block = self.block_size();
            let offset = echo.byte_offset(block).expect("a small volume");
            self.inner.write_at(offset, &buf[..block.get()])?;
        }
        self.inner.write_at(at, buf)
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.inner.write_zeroes(at, len)
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.inner.discard(at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

#[test]
fn a_device_error_is_unknown_and_what_it_touched_stays_uncertain() {
    let target = target(&[]);
    let mut sut = target.sut();
    let source = sut.volumes.remove(&Role::Source).expect("a source");
    let failing = Failing { inner: source.device(), writes_left: 1.into(), echo: None };
    sut.volumes.insert(Role::Source, SutVolume::borrowed(source.uuid, &failing));
    let mut model = target.model();
    let broken = scenario(&target, vec![w(0, 8), w(64, 8), s(0), d(0, None)]);
    let verdict = run(&broken, &mut model, &mut sut, &mut |_| {});
    assert!(matches!(verdict, Verdict::Unknown(Reason::Device(_))), "{verdict:?}");
    // The failed write may or may not have happened: neither answer may be called wrong.
    let after = scenario(&target, vec![s(0), d(0, None), Op::Read { snap: None, at: at(0, 128) }]);
    failing.writes_left.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(run(&after, &mut model, &mut sut, &mut |_| {}), Verdict::Pass);
}

/// What becomes of a page that was asked for from this LBA.
type Meddling<'a> = &'a (dyn Fn(Lba, Result<Page, ApiError>) -> Result<Page, ApiError> + Sync);

/// A control plane whose diff pages are tampered with.
struct Meddled<'a> {
    inner: &'a dyn Array,
    page: Meddling<'a>,
}

impl Array for Meddled<'_> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        self.inner.volume(volume)
    }
    fn create_snapshot(&self, v: VolumeUuid, name: SnapshotName) -> Result<SnapshotInfo, ApiError> {
        self.inner.create_snapshot(v, name)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.inner.snapshot(snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.inner.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        self.inner.delete_snapshot(snapshot)
    }
    fn diff_page(
        &self,
        s: SnapshotUuid,
        b: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        (self.page)(from, self.inner.diff_page(s, b, from))
    }
}

/// One error for ever.
fn error_of(status: u16) -> ApiError {
    let reply = Reply { status: Some(status), text: "no".to_owned(), call: "GET diff".to_owned() };
    match status {
        400 => ApiError::Refused(reply),
        401 => ApiError::Auth(reply),
        404 => ApiError::NotFound(reply),
        405 => ApiError::NoSuchCall(reply),
        409 => ApiError::Conflict(reply),
        _ => ApiError::Server(reply, 3),
    }
}

#[test]
fn only_a_refusal_of_a_legal_diff_is_held_against_the_array() {
    let inner = target(&[]);
    let judge = |status: u16| {
        let mut sut = inner.sut();
        let always = move |_, _| Err(error_of(status));
        let unwell = Meddled { inner: sut.array, page: &always };
        sut.array = &unwell;
        let scenario = scenario(&inner, vec![w(0, 1), s(0), d(0, None)]);
        run(&scenario, &mut inner.model(), &mut sut, &mut |_| {})
    };
    for status in [400, 404] {
        assert_eq!(judge(status).violation().map(|v| v.kind), Some(Kind::Refusal), "{status}");
    }
    for status in [401, 405, 409, 500, 503] {
        assert!(matches!(judge(status), Verdict::Unknown(Reason::Api(_))), "{status}");
    }
}

/// Answers to diffs of a volume on which LBA 70 was rewritten between the first two of three
/// snapshots: an array may report that or not. Those of `left_out` do not.
fn asked_in_order(questions: Vec<Op>, left_out: &[usize]) -> Option<Kind> {
    let inner = target(&[]);
    let mut sut = inner.sut();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let page = |_, answer| match asked.fetch_add(1, Ordering::Relaxed) {
        nth if left_out.contains(&nth) => Ok(Page::default()),
        _ => answer,
    };
    let varying = Meddled { inner: sut.array, page: &page };
    sut.array = &varying;
    let ops = [w(70, 1), s(0), Op::Rewrite { at: at(70, 1) }, s(1), s(2)];
    let scenario = scenario(&inner, ops.into_iter().chain(questions).collect());
    run(&scenario, &mut inner.model(), &mut sut, &mut |_| {}).violation().map(|v| v.kind)
}

#[test]
fn three_answers_hang_together_in_whichever_order_they_are_given() {
    for (order, halves) in [
        ([d(2, 0), d(1, 0), d(2, 1)], [1, 2]),
        ([d(1, 0), d(2, 1), d(2, 0)], [0, 1]),
        ([d(2, 1), d(2, 0), d(1, 0)], [0, 2]),
    ] {
        assert_eq!(asked_in_order(order.to_vec(), &halves), Some(Kind::Leaked), "{order:?}");
        assert_eq!(asked_in_order(order.to_vec(), &[]), None, "{order:?}");
    }
}

#[test]
fn a_whole_walk_holds_the_part_that_was_asked_before_it_and_after_it() {
    let part = || Op::Diff {
        snap: Label(1),
        base: Some(Label(0)),
        from: Lba::new(65),
        between_pages: None,
    };
    for order in [[part(), d(1, 0)], [d(1, 0), part()]] {
        assert_eq!(asked_in_order(order.to_vec(), &[0]), Some(Kind::Malformed), "{order:?}");
        assert_eq!(asked_in_order(order.to_vec(), &[]), None, "{order:?}");
    }
}

#[test]
fn a_copy_that_lands_far_off_as_well_is_found_after_the_sync() {
    let honest = target(&[]);
    let mut sut = honest.sut();
    let here = honest.sut();
    let mirror = &here.volumes[&Role::Target];
    let end = Lba::new((1 << 14) - 1);
    let echoing = Failing { inner: mirror.device(), writes_left: u32::MAX.into(), echo: Some(end) };
    sut.volumes.insert(Role::Target, SutVolume::borrowed(mirror.uuid, &echoing));
    let ops = vec![w(0, 8), s(0), y(0, None)];
    let verdict = run(&scenario(&honest, ops), &mut honest.model(), &mut sut, &mut |_| {});
    let found = verdict.violation().expect("the last LBA has changed");
    assert_eq!((found.kind, &found.extents), (Kind::Content, &LbaSet::from(at(end.get(), 1))));
}

/// The same volumes, met by a run that knows nothing of their past.
fn stranger(target: &InProcess) -> crate::model::Model {
    let mut shapes = target.shapes();
    shapes.values_mut().for_each(|shape| shape.fresh = false);
    let run = RunId::from_u128(99);
    crate::model::Model::new(run, &shapes, target.array().capabilities())
}

#[test]
fn a_full_scan_that_leaves_out_older_data_is_found_by_reading() {
    let full_scan = |bugs: &[Bug]| {
        let target = target(bugs);
        go(&target, vec![w(0, 640), s(0), d(0, None)]);
        let (mut sut, mut model) = (target.sut(), stranger(&target));
        run(&scenario(&target, vec![s(1), d(1, None)]), &mut model, &mut sut, &mut |_| {})
    };
    assert_eq!(full_scan(&[]), Verdict::Pass);
    let verdict = full_scan(&[Bug::Bit63Dropped]);
    assert_eq!(verdict.violation().map(|v| v.kind), Some(Kind::Missed), "{verdict:?}");
}

#[test]
fn an_answer_that_turns_into_a_refusal_half_way_is_not_rightly_refused() {
    let target = target(&[]);
    let deletes = Some((1, Box::new(x(1))));
    let walk = Op::Diff {
        snap: Label(2),
        base: Some(Label(1)),
        from: Lba::new(0),
        between_pages: deletes,
    };
    // Taken away between two pages: either end of that is legal.
    let (verdict, _) = go(&target, vec![s(1), w(0, 640), s(2), walk]);
    assert_eq!(verdict.violation(), None);
    // Deleted before it was asked for: pages must not come at all.
    let mut sut = target.sut();
    let one_page_first = |from: Lba, answer| match answer {
        Err(ApiError::NotFound(_)) if from == Lba::new(0) => {
            Ok(Page { next: Some(Lba::new(64)), ..Page::default() })
        }
        other => other,
    };
    let late = Meddled { inner: sut.array, page: &one_page_first };
    sut.array = &late;
    let steps = vec![s(3), w(0, 640), s(4), x(3), d(4, 3)];
    let verdict = run(&scenario(&target, steps), &mut target.model(), &mut sut, &mut |_| {});
    assert_eq!(verdict.violation().map(|v| v.kind), Some(Kind::Refusal), "{verdict:?}");
}

#[test]
fn what_was_not_flushed_is_uncertain_once_a_flush_fails() {
    let target = target(&[]);
    let mut model = target.model();
    let write = w(0, 8);
    model.apply(Role::Source, &write);
    model.flush_failed(Role::Source);
    model.apply(Role::Source, &s(0));
    let bounds = model.predict(Label(0), None).expect("it exists");
    assert!(bounds.must.is_empty() && bounds.may.covers(at(0, 8)));
    model.apply(Role::Source, &w(64, 8));
    model.apply(Role::Source, &Op::Flush);
    model.flush_failed(Role::Source);
    model.apply(Role::Source, &s(1));
    let bounds = model.predict(Label(1), None).expect("it exists");
    assert!(bounds.must.covers(at(64, 8)), "a good flush settles what came before it");
}

#[test]
fn a_policy_that_allows_what_a_check_forbids_makes_the_check_inapplicable() {
    let target = target(&[]);
    let ops = vec![s(0), w(0, 1), s(1), d(1, 0), Op::Check(Check::NotReported { at: at(1, 60) })];
    let mut claim = scenario(&target, ops);
    assert_eq!(allowed_to_fail(&claim, &target.model()), None);
    claim.header.policy = Policy::Chunk;
    assert!(allowed_to_fail(&claim, &target.model()).is_some_and(|why| why.contains("chunk")));
}

#[test]
fn a_check_that_no_honest_target_satisfies_is_found_before_any_io() {
    let target = target(&[]);
    let wrong = Op::Check(Check::Reported { at: at(0, 2) });
    let contradiction =
        precheck(&scenario(&target, vec![w(0, 1), s(0), d(0, None), wrong]), &target.model());
    assert_eq!(contradiction.map_err(|c| c.step), Err(3));
    let right = Op::Check(Check::Reported { at: at(0, 1) });
    assert_eq!(
        precheck(&scenario(&target, vec![w(0, 1), s(0), d(0, None), right]), &target.model()),
        Ok(())
    );
}
