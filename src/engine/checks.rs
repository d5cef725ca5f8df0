//! Evaluating explicit checks against what the scenario has seen, with checksums where a check
//! speaks of contents. Not covered: what every diff and sync is judged by anyway (`super::interp`).

use super::event::Event;
use super::session::{Emit, Halt, LastDiff, Session, SyncRecord};
use super::sut::Sut;
use super::verify::{knowable, wrong_in};
use crate::array::{ApiError, SnapshotState};
use crate::block::{
    BlockSize, CHUNK_LBAS, ChunkBitmap, ChunkIndex, Extent, Lba, LbaCount, LbaSet, Role, RunId,
    Stamp, stamp_block,
};
use crate::model::{Model, Value};
use crate::oracle::{Kind, Picture, Violation, content_violation};
use crate::scenario::{Check, Label};
use crate::sync::{DiffAnswer, Digest, digest, pair};

/// Asks one check.
pub(super) fn evaluate(
    check: &Check,
    sut: &Sut<'_>,
    model: &Model,
    session: &mut Session,
    emit: Emit<'_>,
) -> Result<(), Halt> {
    match check {
        Check::Synced { at } => synced(*at, sut, session, emit),
        Check::TargetHolds { at } => target_holds(*at, sut, model, session),
        Check::TargetUntouched { at } => target_untouched(*at, sut, session),
        Check::TargetAsModelled { at } => {
            let tiles = knowable(model, *at);
            let devices = (device(sut, Role::Target)?, Some(device(sut, Role::Source)?));
            let found = wrong_in(devices, &tiles, (model.run(), Role::Target), sut.reading())?;
            fail(
                found.and_then(|(v, wrong)| {
                    content_violation(Role::Target, &wrong, &v, "in the end")
                }),
            )
        }
        Check::SameAsPreviousSync { at } => same_as_previous(*at, sut, session),
        Check::Gone { label } => gone(*label, sut, session),
        Check::Throughput { min_mib_per_s } => {
            throughput(*min_mib_per_s, last_sync(session)?, emit)
        }
        Check::SyncedAbout { lbas, tolerance_permille } => about(
            "the sync copied",
            last_sync(session)?.copied.count(),
            *lbas,
            permille(*lbas, *tolerance_permille),
            Kind::Figure,
        ),
        Check::SyncedTotalAbout { lbas, tolerance_permille } => about(
            "the syncs together copied",
            session.synced_total(),
            *lbas,
            permille(*lbas, *tolerance_permille),
            Kind::Figure,
        ),
        Check::Refused => match &session.last_diff {
            LastDiff::Refused => Ok(()),
            LastDiff::Answered { .. } => fail(Some(Violation::new(
                Kind::Refusal,
                "the diff was answered; it must be refused with 404 or 400",
            ))),
            LastDiff::None => nothing_asked(),
        },
        _ => match &session.last_diff {
            LastDiff::Answered { answer, pair: (snap, base) } => {
                of_answer(check, answer).map_err(|halt| match halt {
                    Halt::Violations(v) => {
                        Halt::Violations(v.into_iter().map(|v| v.about(*snap, *base)).collect())
                    }
                    other => other,
                })
            }
            LastDiff::Refused | LastDiff::None => nothing_asked(),
        },
    }
}

fn fail(violation: Option<Violation>) -> Result<(), Halt> {
    violation.map_or(Ok(()), |violation| Err(violation.into()))
}

/// A check that speaks of a diff or sync that never was.
fn nothing_asked() -> Result<(), Halt> {
    Err(Halt::Skip("there is no answer to check".to_owned()))
}

fn device<'s>(sut: &'s Sut<'_>, role: Role) -> Result<&'s dyn crate::array::BlockDevice, Halt> {
    sut.volumes
        .get(&role)
        .map(|v| v.device())
        .ok_or_else(|| Halt::Skip(format!("there is no {role} volume")))
}

fn last_sync(session: &Session) -> Result<&SyncRecord, Halt> {
    session.syncs.last().ok_or_else(|| Halt::Skip("there was no sync".to_owned()))
}

fn permille(lbas: LbaCount, permille: u16) -> LbaCount {
    LbaCount::new(lbas.get().saturating_mul(u64::from(permille)) / 1000)
}

/// `got` is `want`, give or take `tolerance`; `few` is the kind of having too few.
fn about(
    what: &str,
    got: LbaCount,
    want: LbaCount,
    tolerance: LbaCount,
    few: Kind,
) -> Result<(), Halt> {
    let off = got.get().abs_diff(want.get());
    if off <= tolerance.get() {
        return Ok(());
    }
    let kind = match got < want {
        true => few,
        false if few == Kind::Missed => Kind::Leaked,
        false => few,
    };
    fail(Some(Violation::new(kind, format!("{what} {got} LBAs, expected {want} +-{tolerance}"))))
}

/// The checks that speak of an answer alone.
fn of_answer(check: &Check, answer: &DiffAnswer) -> Result<(), Halt> {
    let set = &answer.set;
    match check {
        Check::EmptyDiff if set.is_empty() && answer.ranges == 0 => Ok(()),
        Check::EmptyDiff => {
            let sentence = format!(
                "the diff must be empty and has {} ranges with {} LBAs",
                answer.ranges,
                set.count()
            );
            fail(Some(Violation::new(Kind::Leaked, sentence).at(set.clone())))
        }
        Check::Reported { at } => {
            let missing = LbaSet::from(*at).difference(set);
            none_of(&missing, Kind::Missed, &format!("{at} was written, not reported of it"))
        }
        Check::NotReported { at } => none_of(
            &set.within(*at),
            Kind::Leaked,
            &format!("{at} was not written, reported of it"),
        ),
        Check::ReportedAtLeast { within, lbas } => {
            let got = set.within(*within).count();
            if got >= *lbas {
                return Ok(());
            }
            let sentence =
                format!("only {got} LBAs are reported in {within}, at least {lbas} were written");
            fail(Some(
                Violation::new(Kind::Missed, sentence).at(LbaSet::from(*within).difference(set)),
            ))
        }
        Check::ReportedAbout { within, lbas, tolerance } => about(
            &format!("in {within} the diff reports"),
            set.within(*within).count(),
            *lbas,
            *tolerance,
            Kind::Missed,
        ),
        Check::RangesWithin { within, ranges } => {
            let got = ranges_in(answer, *within).count() as u64;
            let kind = if got > *ranges { Kind::Leaked } else { Kind::Missed };
            let sentence =
                format!("the diff has {got} ranges in {within}, exactly {ranges} were touched");
            fail((got != *ranges).then(|| Violation::new(kind, sentence)))
        }
        Check::RangesAtLeast { ranges } => {
            let sentence =
                format!("the diff has {} ranges, at least {ranges} were touched", answer.ranges);
            fail((answer.ranges < *ranges).then(|| Violation::new(Kind::Missed, sentence)))
        }
        Check::Bits { chunk, bits } => exact_bits(*chunk, *bits, answer),
        Check::Contiguous { within } => {
            let starts: Vec<Lba> = ranges_in(answer, *within).collect();
            let gap = starts
                .windows(2)
                .find(|pair| pair[0].checked_add(LbaCount::new(CHUNK_LBAS)) != Some(pair[1]));
            let sentence = |pair: &[Lba]| {
                format!(
                    "ranges in {within} are not contiguous: after LBA {} comes LBA {}",
                    pair[0], pair[1]
                )
            };
            fail(gap.map(|pair| Violation::new(Kind::Missed, sentence(pair))))
        }
        _ => Ok(()),
    }
}

/// Starts of the ranges that intersect `within`.
fn ranges_in(answer: &DiffAnswer, within: Extent) -> impl Iterator<Item = Lba> {
    let meets = move |start: Lba| {
        Extent::new(start, LbaCount::new(CHUNK_LBAS)).is_some_and(|chunk| chunk.overlaps(within))
    };
    answer.chunks.iter().map(|chunk| chunk.start).filter(move |start| meets(*start))
}

fn none_of(wrong: &LbaSet, kind: Kind, what: &str) -> Result<(), Halt> {
    if wrong.is_empty() {
        return Ok(());
    }
    fail(Some(
        Violation::new(kind, format!("{what}: {wrong} ({})", wrong.count().words()))
            .at(wrong.clone()),
    ))
}

/// Test 12: bit by bit, whatever the policy; over-reporting and swapped bytes are told apart.
fn exact_bits(chunk: ChunkIndex, expected: ChunkBitmap, answer: &DiffAnswer) -> Result<(), Halt> {
    let Some(start) = chunk.first_lba() else { return Ok(()) };
    let found =
        answer.chunks.iter().find(|c| c.start == start).map_or(ChunkBitmap::EMPTY, |c| c.bits);
    if found == expected {
        return Ok(());
    }
    let lacks = expected.bits() & !found.bits() != 0;
    let kind = if lacks { Kind::Missed } else { Kind::Leaked };
    let hint = match (lacks, found == expected.byte_swapped()) {
        (_, true) => "bitmaps are big-endian: set --bitmap-order big",
        (true, false) => "data loss",
        (false, false) => "over-reporting, no data loss",
    };
    let sentence = format!(
        "chunk {chunk} (LBA {start}) is {:#018x}, must be {:#018x}: {hint}",
        found.bits(),
        expected.bits()
    );
    let mut at = LbaSet::new();
    at.insert_chunk(start, ChunkBitmap::from_bits(found.bits() ^ expected.bits()));
    let picture = Some(Picture { chunk: chunk.get(), expected, reported: found });
    fail(Some(Violation { picture, ..Violation::new(kind, sentence).at(at) }))
}

/// Takes both checksums, the two devices at once.
fn both(at: Extent, sut: &Sut<'_>) -> Result<(Digest, Digest), Halt> {
    let (source, target) = (device(sut, Role::Source)?, device(sut, Role::Target)?);
    let of = |device| digest(sut.pipeline.checksum, device, at, sut.waiting.stop);
    let (source, target) = pair(|| of(source), || of(target));
    Ok((source?, target?))
}

fn target_digest(at: Extent, sut: &Sut<'_>) -> Result<Digest, Halt> {
    Ok(digest(sut.pipeline.checksum, device(sut, Role::Target)?, at, sut.waiting.stop)?)
}

fn synced(at: Extent, sut: &Sut<'_>, session: &mut Session, emit: Emit<'_>) -> Result<(), Halt> {
    let (source, target) = both(at, sut)?;
    emit(Event::Checksummed { at, source: source.to_string(), target: target.to_string() });
    session.digests.insert(at, target);
    let sentence = || {
        format!(
            "{at} differs: SHA-256 of the source is {}, of the target {}",
            source.short(),
            target.short()
        )
    };
    fail((source != target).then(|| Violation::new(Kind::Content, sentence()).at(LbaSet::from(at))))
}

/// SHA-256 of what the model says `at` of the target holds; `None` where it cannot know.
fn expected_digest(at: Extent, model: &Model, block: BlockSize) -> Option<Digest> {
    let tiles = model.live(Role::Target, at);
    let values: Option<Vec<(Extent, Value)>> =
        tiles.iter().map(|(e, v)| Some((*e, v.certain()?))).collect();
    let values = values?;
    if values.iter().any(|(_, value)| matches!(value, Value::Old(_))) {
        return None;
    }
    let run = model.run();
    let blocks = values.into_iter().flat_map(|(run_of, value)| {
        (run_of.start().get()..run_of.end().get())
            .map(move |lba| the_block(Lba::new(lba), value, run, block))
    });
    Some(Digest::of(blocks))
}

fn the_block(lba: Lba, value: Value, run: RunId, block: BlockSize) -> Vec<u8> {
    let mut bytes = vec![0; block.get()];
    if let Value::Stamp { role, generation } = value {
        stamp_block(&Stamp { run, volume: role, lba, generation }, &mut bytes);
    }
    bytes
}

fn target_holds(
    at: Extent,
    sut: &Sut<'_>,
    model: &Model,
    session: &mut Session,
) -> Result<(), Halt> {
    let block = device(sut, Role::Target)?.block_size();
    let Some(expected) = expected_digest(at, model, block) else {
        return Err(Halt::Skip(format!("nobody knows what {at} of the target must hold")));
    };
    let found = target_digest(at, sut)?;
    let earlier = session.digests.insert(at, found);
    let old = if earlier == Some(found) { ", as it was before" } else { "" };
    let sentence = || {
        format!(
            "{at} of the target has SHA-256 {}{old}; what was written last has {}",
            found.short(),
            expected.short()
        )
    };
    fail(
        (found != expected).then(|| Violation::new(Kind::Content, sentence()).at(LbaSet::from(at))),
    )
}

fn target_untouched(at: Extent, sut: &Sut<'_>, session: &mut Session) -> Result<(), Halt> {
    let touched = last_sync(session)?.wrote.within(at);
    if !touched.is_empty() {
        let sentence = format!("the sync wrote {touched} of the target, which had not changed");
        return fail(Some(Violation::new(Kind::Disturbed, sentence).at(touched)));
    }
    let Some(before) = session.digests_before.get(&at).copied() else {
        return Err(Halt::Skip(format!("no checksum of {at} was taken before the sync")));
    };
    let now = target_digest(at, sut)?;
    let sentence = || {
        format!(
            "{at} of the target changed during the sync: SHA-256 was {}, is {}",
            before.short(),
            now.short()
        )
    };
    fail((now != before).then(|| Violation::new(Kind::Disturbed, sentence()).at(LbaSet::from(at))))
}

fn same_as_previous(at: Extent, sut: &Sut<'_>, session: &mut Session) -> Result<(), Halt> {
    let [.., first, second] = session.syncs.as_slice() else {
        return Err(Halt::Skip("there were no two syncs".to_owned()));
    };
    if (first.ranges, &first.copied) != (second.ranges, &second.copied) {
        let sentence = format!(
            "the same sync had {} ranges the first time and {} the second",
            first.ranges, second.ranges
        );
        return fail(Some(Violation::new(Kind::Nondeterministic, sentence)));
    }
    let Some(before) = session.digests_before.get(&at).copied() else {
        return Err(Halt::Skip(format!("no checksum of {at} was taken after the first sync")));
    };
    let now = target_digest(at, sut)?;
    let sentence = || {
        format!(
            "{at} of the target differs after the second sync: SHA-256 was {}, is {}",
            before.short(),
            now.short()
        )
    };
    fail((now != before).then(|| Violation::new(Kind::Content, sentence()).at(LbaSet::from(at))))
}

fn gone(label: Label, sut: &Sut<'_>, session: &Session) -> Result<(), Halt> {
    let Some(uuid) = session.uuids.get(&label).copied() else {
        return Err(Halt::Skip(format!("{label} was never taken")));
    };
    match sut.array.snapshot(uuid) {
        Err(ApiError::NotFound(_)) => {}
        Ok(info) => {
            let sentence =
                format!("{label} was deleted and is still found, in state {:?}", info.state);
            return fail(Some(Violation::new(Kind::Liveness, sentence)));
        }
        Err(other) => return Err(other.into()),
    }
    let listed = sut
        .array
        .snapshots()?
        .into_iter()
        .any(|info| info.uuid == uuid && info.state != SnapshotState::Deleted);
    let sentence = || format!("{label} was deleted and is still listed");
    fail(listed.then(|| Violation::new(Kind::Liveness, sentence())))
}

#[expect(clippy::cast_precision_loss, reason = "a speed for people")]
fn throughput(min_mib_per_s: u32, sync: &SyncRecord, emit: Emit<'_>) -> Result<(), Halt> {
    let bytes = sync.copied.count().nominal_bytes();
    emit(Event::Throughput { bytes, took: sync.took });
    let mib_per_s = bytes.get() as f64 / f64::from(1 << 20) / sync.took.as_secs_f64();
    let sentence =
        || format!("the sync ran at {mib_per_s:.1} MB/s, at least {min_mib_per_s} are required");
    fail((mib_per_s < f64::from(min_mib_per_s)).then(|| Violation::new(Kind::Figure, sentence())))
}
