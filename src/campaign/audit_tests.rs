//! The audit under test: worlds that scenarios leave behind, with every bug planted in turn.

use super::*;
use crate::campaign::case::RUN;
use crate::campaign::inproc::InProcess;
use crate::campaign::selftest::Planted;
use crate::campaign::witness::witness;
use crate::engine::run;
use crate::scenario::Scenario;
use crate::sync::SnapshotSource;

/// What a scenario leaves on a simulated array, with nobody judging it on the way.
fn world(scenario: &Scenario) -> InProcess {
    let world = InProcess::of_header(&scenario.header, RUN).expect("sets up");
    let (mut sut, mut model) = (world.sut(), world.model());
    sut.checks = CheckId::ALL.into_iter().fold(Checks::ALL, Checks::without);
    let quiet = Scenario {
        header: scenario.header.clone(),
        steps: scenario.steps.iter().filter(|step| is_change(&step.op)).cloned().collect(),
    };
    run(&quiet, &mut model, &mut sut, &mut |_| ());
    drop(sut);
    world
}

/// What an audit finds has been left by operations that change something.
fn is_change(op: &crate::scenario::Op) -> bool {
    use crate::scenario::Op;
    !matches!(op, Op::Diff { .. } | Op::Sync { .. } | Op::SyncChain { .. } | Op::Check(_))
}

/// An audit of everything, of an array whose history is known.
fn plan<'a>(
    array: &'a dyn Array,
    snapshots: &'a [SnapshotInfo],
    stop: &'a AtomicBool,
) -> Audit<'a> {
    Audit {
        array,
        snapshots,
        foreign: None,
        policy: Policy::Exact,
        checks: Checks::ALL,
        strict: true,
        images: BTreeMap::new(),
        one_chain: true,
        images_proved: true,
        since_clone: false,
        chain: None,
        doomed: None,
        runs_kept: RUNS_KEPT,
        stop,
    }
}

fn audited(scenario: &Scenario, checks: Checks, with_images: bool) -> Result<Audited, Reason> {
    let world = world(scenario);
    let array: &dyn Array = world.array();
    let source = world.sut().volumes[&crate::block::Role::Source].uuid;
    let all = array.snapshots().expect("listed");
    let (own, other): (Vec<SnapshotInfo>, Vec<SnapshotInfo>) = all
        .into_iter()
        .filter(|info| info.state == SnapshotState::Available)
        .partition(|info| info.volume == source);
    let block = world.shapes()[&crate::block::Role::Source].block;
    let devices: Vec<_> =
        own.iter().map(|info| SnapshotSource::new(array, info.uuid, block, info.len)).collect();
    let images = devices.iter().map(|device| device as &dyn BlockDevice).enumerate();
    let audit = Audit {
        foreign: other.first().map(|info| info.uuid),
        policy: scenario.header.policy,
        checks,
        images: if with_images { images.collect() } else { BTreeMap::new() },
        ..plan(array, &own, world.stop())
    };
    match audit.run() {
        (done, None) => Ok(done),
        (_, Some(reason)) => Err(reason),
    }
}

fn planted(name: &str) -> Scenario {
    let mut scenario = witness(name).expect("has a witness");
    scenario.header.planted = vec![name.to_owned()];
    scenario
}

fn finds(scenario: &Scenario, checks: Checks, with_images: bool) -> bool {
    audited(scenario, checks, with_images).is_ok_and(|done| !done.violations.is_empty())
}

/// As [`audited`] without images, with the snapshot before the last one for the audit to delete.
fn audited_with_doomed(scenario: &Scenario, runs_kept: usize) -> Audited {
    let world = world(scenario);
    let sut = world.sut();
    let source = sut.volumes[&crate::block::Role::Source].uuid;
    let mut own = sut.array.snapshots().expect("listed");
    own.retain(|info| info.volume == source && info.state == SnapshotState::Available);
    let place = own.len() - 2;
    let audit = Audit {
        doomed: Some(Doomed { place, clock: sut.clock, waiting: sut.waiting }),
        runs_kept,
        ..plan(sut.array, &own, world.stop())
    };
    let (done, ended) = audit.run();
    assert_eq!(ended, None);
    let left = sut.array.snapshots().expect("listed");
    assert!(left.iter().all(|info| info.uuid != own[place].uuid), "{left:?}");
    assert!(
        own.iter().enumerate().all(|(at, info)| at == place || left.contains(info)),
        "{left:?}"
    );
    done
}

/// Four snapshots with a write before each.
fn four_snapshots(planted: &[&str]) -> Scenario {
    use crate::scenario::{Op, Step};
    let mut scenario = witness("bit63-dropped").expect("has one");
    scenario.header.planted = planted.iter().map(|&name| name.to_owned()).collect();
    let ops = (0..4).flat_map(|n| {
        let at = Extent::lbas(2 * u64::from(n), 1);
        [Op::Write { at }, Op::Write { at: Extent::lbas(64 + 4 * u64::from(n), 1) }]
            .into_iter()
            .chain([Op::Take { label: Label(n), wait: true }])
    });
    scenario.steps = ops.map(Step::from).collect();
    scenario
}

#[test]
fn a_base_that_the_audit_itself_deleted_must_be_refused() {
    let honest = audited_with_doomed(&four_snapshots(&[]), RUNS_KEPT);
    assert_eq!((&honest.violations[..], &honest.notes[..]), (&[][..], &[][..]));
    let wrong = audited_with_doomed(&four_snapshots(&["deleted-base-answers"]), RUNS_KEPT);
    let why = "the base has been deleted";
    let found = wrong.violations.iter().find(|v| v.sentence.contains(why)).expect("found");
    assert_eq!(found.kind, Kind::Refusal);
    assert!(honest.refused > wrong.refused, "{honest:?} {wrong:?}");
}

#[test]
fn answers_too_long_to_keep_are_still_held_to_their_repetition_and_said_not_to_be_compared() {
    let few = audited_with_doomed(&four_snapshots(&[]), 1);
    assert_eq!(few.violations, []);
    let notes: Vec<&String> =
        few.notes.iter().filter(|note| note.contains("more than 1 run(s)")).collect();
    assert!(notes.len() > 3, "{few:?}");
    // What is beyond the runs that were kept differs: it can be told that it does, not where.
    let walked = |lba: u64, tail: u8| Walked {
        set: LbaSet::from(Extent::lbas(lba, 1)),
        is_whole: false,
        digest: [tail; 32],
    };
    assert_eq!(repeated((1, None), &walked(3, 1), &walked(3, 1)), None);
    let found = repeated((1, None), &walked(3, 1), &walked(3, 2)).expect("a violation");
    assert_eq!(found.kind, Kind::Nondeterministic);
    assert!(found.sentence.contains("behind its first 1 run(s)"), "{found:?}");
    let found = repeated((1, None), &walked(3, 1), &walked(4, 2)).expect("a violation");
    assert_eq!(found.extents.count().get(), 2, "{found:?}");
}

/// An array that stops answering after so many calls for pages.
struct Fails<'a>(&'a dyn Array, std::sync::atomic::AtomicUsize);

impl Array for Fails<'_> {
    fn capabilities(&self) -> crate::block::Capabilities {
        self.0.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<crate::array::VolumeInfo, ApiError> {
        self.0.volume(volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: crate::block::SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        self.0.create_snapshot(volume, name)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.0.snapshot(snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.0.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        self.0.delete_snapshot(snapshot)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<crate::block::Page, ApiError> {
        match self.1.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(ApiError::Interrupted),
            _ => self.0.diff_page(snapshot, base, from),
        }
    }
}

#[test]
fn what_was_found_is_told_also_if_the_rest_could_not_be_asked() {
    let scenario = planted("answer-varies");
    let world = world(&scenario);
    let mut own = Array::snapshots(world.array()).expect("listed");
    own.retain(|info| info.state == SnapshotState::Available && info.volume == own_volume(&world));
    let with = |array: &dyn Array, chain: Option<&[SnapshotUuid]>| {
        let audit = Audit { chain, ..plan(array, &own, world.stop()) };
        audit.run()
    };
    let (whole, ended) = with(world.array(), None);
    assert!(ended.is_none() && !whole.violations.is_empty(), "{whole:#?}");
    let cut = (1..200).map(|calls| with(&Fails(world.array(), calls.into()), None));
    let kept = cut.filter(|(done, ended)| ended.is_some() && !done.violations.is_empty()).count();
    assert!(kept > 0, "some calls after the contradiction");
    // Somebody deletes a snapshot meanwhile: nothing that changes then is the array's fault.
    let other = [SnapshotUuid::from_u128(1)];
    let (done, _) = with(world.array(), Some(&other));
    assert_eq!(
        done.violations.iter().find(|v| v.kind == Kind::Nondeterministic),
        None,
        "{done:#?}"
    );
    assert!(done.changed > 0, "{done:#?}");
}

/// Small volumes only: an image is read block by block.
fn is_small(scenario: &Scenario) -> bool {
    scenario.header.volumes.values().all(|shape| shape.len.get() < 1 << 16)
}

#[test]
fn an_honest_array_is_not_accused_whatever_was_done_to_it() {
    let (mut answered, mut refused, mut compared) = (0, 0, 0);
    for bug in Planted::all() {
        let Some(scenario) = witness(bug.name()).filter(is_small) else { continue };
        let done = audited(&scenario, Checks::ALL, true).expect("an in-process array answers");
        assert_eq!(done.violations, [], "{}", bug.name());
        answered += done.answered;
        refused += done.refused;
        compared += done.compared;
    }
    assert!(answered > 300 && refused > 100 && compared > 300, "{answered} {refused} {compared}");
}

#[test]
fn deleting_any_one_law_lets_a_planted_bug_survive() {
    let mut alone: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for bug in Planted::all() {
        let Some(_) = witness(bug.name()).filter(is_small) else { continue };
        let scenario = planted(bug.name());
        if !finds(&scenario, Checks::ALL, true) {
            continue;
        }
        for check in AUDIT_CHECKS {
            if !finds(&scenario, Checks::ALL.without(check), true) {
                alone.entry(check.name()).or_default().push(bug.name());
            }
        }
    }
    for check in AUDIT_CHECKS {
        assert!(
            alone.contains_key(check.name()),
            "{} is idle; found alone: {alone:#?}",
            check.name()
        );
    }
}

#[test]
fn without_an_image_a_change_that_every_answer_leaves_out_is_not_seen_and_with_one_it_is() {
    let scenario = planted("bit63-dropped");
    assert!(!finds(&scenario, Checks::ALL, false));
    let done = audited(&scenario, Checks::ALL, true).expect("it answers");
    assert_eq!(done.violations.first().map(|v| v.kind), Some(Kind::Missed));
    assert!(done.violations[0].extents.contains(Lba::new(63)), "{:?}", done.violations);
    assert!(done.blocks_read > 0);
}

#[test]
fn where_nobody_knows_the_history_a_refused_pair_is_a_note_and_an_unproved_image_no_proof() {
    let scenario = planted("bit63-dropped");
    let world = world(&scenario);
    let array: &dyn Array = world.array();
    let mut own = array.snapshots().expect("listed");
    own.retain(|info| info.state == SnapshotState::Available && info.volume == own_volume(&world));
    let block = world.shapes()[&crate::block::Role::Source].block;
    let devices: Vec<_> =
        own.iter().map(|info| SnapshotSource::new(array, info.uuid, block, info.len)).collect();
    // Newest first: an honest array refuses every pair.
    own.push(own[0].clone());
    let audit = |one_chain, images_proved| {
        let images = devices.iter().map(|device| device as &dyn BlockDevice).enumerate();
        let audit = Audit {
            images: images.collect(),
            one_chain,
            images_proved,
            ..plan(array, &own, world.stop())
        };
        let (done, ended) = audit.run();
        assert_eq!(ended, None);
        done
    };
    let refused = |done: &Audited| done.violations.iter().any(|v| v.kind == Kind::Refusal);
    let missed = |done: &Audited| done.violations.iter().any(|v| v.kind == Kind::Missed);
    let strict = audit(true, true);
    assert!(refused(&strict) && missed(&strict), "{strict:#?}");
    let careful = audit(false, false);
    assert!(!refused(&careful) && !missed(&careful), "{careful:#?}");
    assert!(careful.notes.iter().any(|note| note.starts_with("refused: ")), "{careful:#?}");
    assert!(careful.unproved > 0, "{careful:#?}");
}

fn own_volume(world: &InProcess) -> VolumeUuid {
    world.sut().volumes[&crate::block::Role::Source].uuid
}

#[test]
fn a_volume_without_snapshots_shows_nothing() {
    let mut scenario = witness("bit63-dropped").expect("has one");
    scenario.steps.clear();
    assert_eq!(audited(&scenario, Checks::ALL, true), Ok(Audited::default()));
}

#[test]
fn who_asks_to_stop_is_obeyed_and_nothing_is_called_wrong() {
    let scenario = witness("bit63-dropped").expect("has one");
    let world = world(&scenario);
    world.stop().store(true, Ordering::Relaxed);
    let own = Array::snapshots(world.array()).expect("listed");
    let audit = plan(world.array(), &own, world.stop());
    assert_eq!(audit.run(), (Audited::default(), Some(Reason::Interrupted)));
}

#[test]
fn as_many_snapshots_are_taken_as_were_allowed_and_all_are_in_the_ledger() {
    let scenario = Scenario { steps: Vec::new(), ..witness("bit63-dropped").expect("has one") };
    let world = world(&scenario);
    let sut = world.sut();
    let source = sut.volumes[&crate::block::Role::Source].uuid;
    let port = (sut.array, sut.clock, sut.waiting);
    let before = sut.clock.now();
    take(port, sut.ledger, source, (3, Duration::from_secs(60))).expect("taken");
    assert!(sut.clock.now() - before >= Duration::from_secs(120), "time between them");
    assert_eq!(sut.ledger.live().len(), 3);
    let all = sut.array.snapshots().expect("listed");
    assert!(all.iter().all(|info| info.state == SnapshotState::Available), "{all:?}");
    world.stop().store(true, Ordering::Relaxed);
    let stopped = take(port, sut.ledger, source, (2, Duration::from_secs(60)));
    assert!(matches!(stopped, Err(ApiError::Interrupted)), "{stopped:?}");
}

#[test]
fn a_walk_from_the_middle_starts_inside_the_volume() {
    let set: LbaSet = [Extent::lbas(3, 1), Extent::lbas(640, 5)].into_iter().collect();
    assert_eq!(inside(&set, LbaCount::new(645)), [Lba::new(33), Lba::new(644)]);
    assert_eq!(inside(&LbaSet::new(), LbaCount::new(645)), []);
}
