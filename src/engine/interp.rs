//! THE interpreter: the only place where an operation becomes I/O.
//!
//! It is total: any list of operations runs. An operation that means nothing here (a label never
//! taken, an extent outside the volume) or that the target does not offer is skipped and said so.
//! Every diff and sync is judged by the oracle; explicit checks come on top. It stops at the first
//! step with a violation, but still asks the checks of the same answer that follow it directly. Not covered: operations in flight together, which no target of this step offers.

use super::checks::evaluate;
use super::event::Event;
use super::session::{Emit, Halt, LastDiff, Pair, Session, SyncRecord};
use super::sut::{DeviceHandle, Sut, SutVolume};
use super::transfer::{rewrite, write_stamped, write_zeros};
use super::verify::{Tile, WrongBlocks, knowable, wrong_in};
use crate::array::{ApiError, BlockDevice, DeviceError, SnapshotState, wait_available, wait_gone};
use crate::block::{CHUNK_LBAS, Extent, Lba, LbaCount, LbaSet, Policy, Role};
use crate::model::{Expected, Model, Prediction, Value, Values};
use crate::oracle::{
    Kind, Reason, Verdict, Violation, content_violation, judge_answered, judge_bounds,
    judge_refused, judge_repeat, judge_triangle,
};
use crate::scenario::{Label, Op, Scenario, SyncSource};
use crate::sync::{
    DiffAnswer, PipelineBug, SnapshotSource, WalkError, WalkRequest, WriteLogged, chain_order,
    copy, plan, walk,
};
use std::collections::{BTreeMap, HashMap};

/// Runs a scenario against the target and judges it.
///
/// The model is carried on: several scenarios may run on the same volumes, each with its own
/// labels. Snapshots that the scenario leaves behind stay in the ledger for the caller to delete.
pub fn run(
    scenario: &Scenario,
    model: &mut Model,
    sut: &mut Sut<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Verdict {
    run_answered(scenario, model, sut, on_event).0
}

/// The LBAs that each fully answered diff of a scenario reported, by snapshot and base.
pub type Answers = HashMap<(Label, Option<Label>), LbaSet>;

/// As [`run`], and gives the answers out besides.
pub fn run_answered(
    scenario: &Scenario,
    model: &mut Model,
    sut: &mut Sut<'_>,
    on_event: &mut dyn FnMut(Event),
) -> (Verdict, Answers) {
    model.begin_scenario();
    let mut interp =
        Interp { model, sut, policy: scenario.header.policy, session: Session::default() };
    let mut violations: Vec<Violation> = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let also_asked = matches!(&step.op, Op::Check(check) if check.speaks_of_the_answer());
        if !violations.is_empty() && !also_asked {
            break;
        }
        on_event(Event::Step { index, op: step.op.clone() });
        let done = match &step.fault {
            Some(_) => Err(Halt::Skip("this target injects no faults".to_owned())),
            None => interp.exec(Role::Source, &step.op, on_event),
        };
        match done {
            Ok(()) => {}
            Err(Halt::Skip(why)) => on_event(Event::Skipped { op: step.op.clone(), why }),
            // What is known to be wrong stays wrong, whatever fails afterwards.
            Err(Halt::Unknown(_)) if !violations.is_empty() => break,
            Err(Halt::Unknown(reason)) => return (Verdict::Unknown(reason), Answers::new()),
            Err(Halt::Violations(found)) => {
                for violation in &found {
                    on_event(Event::Violation { violation: violation.clone() });
                }
                violations.extend(found);
            }
        }
    }
    let answers = interp.session.answers.drain().map(|(pair, (_, set))| (pair, set)).collect();
    let verdict = match violations.is_empty() && interp.session.compared == 0 {
        true => Verdict::Unknown(Reason::NothingCompared),
        false => Verdict::of(violations),
    };
    (verdict, answers)
}

struct Interp<'i, 'a> {
    model: &'i mut Model,
    sut: &'i mut Sut<'a>,
    policy: Policy,
    session: Session,
}

type Done = Result<(), Halt>;

impl Interp<'_, '_> {
    fn exec(&mut self, role: Role, op: &Op, emit: Emit<'_>) -> Done {
        if self.sut.waiting.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Halt::Unknown(Reason::Interrupted));
        }
        self.model.admits(role, op).map_err(Halt::Skip)?;
        match op {
            Op::Write { at } => self.change(role, op, *at, "wrote", emit),
            Op::Rewrite { at } => self.change(role, op, *at, "rewrote", emit),
            Op::Zero { at } | Op::WriteZeroes { at } => self.change(role, op, *at, "zeroed", emit),
            Op::Discard { at } => self.change(role, op, *at, "discarded", emit),
            Op::Flush => self.flush(role),
            Op::Read { snap, at } => self.read(role, *snap, *at),
            Op::Take { label, wait } => self.take(role, *label, *wait, emit),
            Op::Delete { label, wait } => self.delete(*label, *wait, emit),
            Op::Wait => self.settle(emit),
            Op::Concurrent(_) => {
                Err(Halt::Skip("this target runs one operation at a time".to_owned()))
            }
            Op::Rollback { label } => {
                let (volume, to) = (self.volume(role)?.uuid, self.uuid(*label)?);
                self.sut.array.rollback(volume, to)?;
                self.applied(role, op)
            }
            Op::Resize { len } => {
                self.sut.array.resize(self.volume(role)?.uuid, *len)?;
                self.applied(role, op)
            }
            Op::Restart { clean } => {
                self.sut.array.restart(*clean)?;
                self.applied(role, op)
            }
            Op::Clone { label, volume } => {
                let made = self.sut.array.clone_snapshot(self.uuid(*label)?)?;
                self.adopt(*volume, made)?;
                self.applied(role, op)
            }
            Op::CreateVolume { volume, same_id } => {
                let len = self.model.len(role).unwrap_or(LbaCount::ZERO);
                let id = self.sut.volumes.get(volume).map(|v| v.uuid).filter(|_| *same_id);
                let made = self.sut.array.create_volume(len, id)?;
                self.adopt(*volume, made)?;
                self.applied(role, op)
            }
            Op::DeleteVolume { volume } => {
                self.sut.array.delete_volume(self.volume(*volume)?.uuid)?;
                self.applied(role, op)
            }
            Op::On { volume, op } => self.exec(*volume, op, emit),
            Op::Diff { snap, base, from, between_pages } => {
                let between = between_pages.as_ref().map(|(page, op)| (*page, op.as_ref()));
                self.diff((*snap, *base), *from, between, emit)
            }
            Op::Sync { snap, base, from, during } if during.is_empty() => {
                self.sync((*snap, *base), *from, emit)
            }
            Op::Sync { .. } => {
                Err(Halt::Skip("this target runs one operation at a time".to_owned()))
            }
            Op::SyncChain { to } => self.sync_chain(*to, emit),
            Op::Check(check) => {
                let asked = evaluate(check, self.sut, self.model, &mut self.session, emit);
                // What was skipped or could not be told has not been compared.
                if matches!(asked, Ok(()) | Err(Halt::Violations(_))) {
                    self.session.compared += 1;
                }
                asked
            }
        }
    }

    fn applied(&mut self, role: Role, op: &Op) -> Done {
        self.model.apply(role, op);
        Ok(())
    }

    /// Writes, zeroes or discards; a failure leaves the LBAs unsettled in the model.
    fn change(
        &mut self,
        role: Role,
        op: &Op,
        at: Extent,
        what: &'static str,
        emit: Emit<'_>,
    ) -> Done {
        let (run, generation) = (self.model.run(), self.model.next_generation());
        let device = self.device(role)?;
        let stop = self.sut.waiting.stop;
        let result = match op {
            Op::Write { .. } => write_stamped(device, at, (run, role, generation), stop),
            Op::Rewrite { .. } => rewrite(device, at, stop),
            Op::Zero { .. } => write_zeros(device, at, stop),
            Op::WriteZeroes { .. } => device.write_zeroes(at.start(), at.len_lbas()),
            _ => device.discard(at.start(), at.len_lbas()),
        };
        match result {
            Ok(()) => {
                self.model.apply(role, op);
                emit(Event::Wrote { role, what, at });
                Ok(())
            }
            Err(error @ DeviceError::Unsupported(_)) => Err(error.into()),
            Err(error) => {
                self.model.unsettle(role, at);
                Err(error.into())
            }
        }
    }

    fn flush(&mut self, role: Role) -> Done {
        match self.device(role)?.flush() {
            Ok(()) => self.applied(role, &Op::Flush),
            Err(error) => {
                self.model.flush_failed(role);
                Err(error.into())
            }
        }
    }

    fn read(&mut self, role: Role, snap: Option<Label>, at: Extent) -> Done {
        self.session.compared += 1;
        let stop = self.sut.waiting.stop;
        let run = self.model.run();
        let Some(label) = snap else {
            let tiles = self.model.live(role, at);
            let found = wrong_in((self.device(role)?, None), &tiles, (run, role), stop)?;
            return content(role, found, "now");
        };
        let uuid = self.uuid(label)?;
        let Some(snapshot) = self.model.snapshot(label) else { return Ok(()) };
        let (owner, len) = (snapshot.role, snapshot.len);
        let over = |run: Extent| {
            snapshot.contents.over(run).into_iter().map(|(e, v)| (e, v.clone())).collect()
        };
        let inside = Extent::new(Lba::new(0), len).and_then(|whole| whole.intersect(at));
        let tiles: Vec<Tile> = inside.map(over).unwrap_or_default();
        let device =
            SnapshotSource::new(self.sut.array, uuid, self.device(owner)?.block_size(), len);
        let found = wrong_in((&device, None), &tiles, (run, owner), stop)?;
        content(owner, found, &format!("in snapshot {label}"))
    }

    fn take(&mut self, role: Role, label: Label, wait: bool, emit: Emit<'_>) -> Done {
        let name = self.sut.ledger.next_name();
        let made = self.sut.array.create_snapshot(self.volume(role)?.uuid, name)?;
        self.sut.ledger.made(made.uuid);
        self.session.uuids.insert(label, made.uuid);
        self.session.order.push(label);
        self.model.apply(role, &Op::Take { label, wait });
        if wait && !self.sut.pipeline.copy.bugs.has(PipelineBug::ReadsBeforeAvailable) {
            wait_available(self.sut.array, self.sut.clock, made.uuid, self.sut.waiting)?;
        }
        emit(Event::Taken { label, name, uuid: made.uuid });
        Ok(())
    }

    fn delete(&mut self, label: Label, wait: bool, emit: Emit<'_>) -> Done {
        let uuid = self.uuid(label)?;
        match self.sut.array.delete_snapshot(uuid) {
            Ok(()) | Err(ApiError::NotFound(_)) => {}
            Err(other) => return Err(other.into()),
        }
        self.model.apply(Role::Source, &Op::Delete { label, wait });
        if wait {
            wait_gone(self.sut.array, self.sut.clock, uuid, self.sut.waiting)?;
            self.sut.ledger.gone(uuid);
        } else {
            self.session.leaving.push(label);
        }
        emit(Event::Deleted { label });
        Ok(())
    }

    /// Waits for every snapshot that was made or deleted without waiting.
    fn settle(&mut self, emit: Emit<'_>) -> Done {
        for label in std::mem::take(&mut self.session.leaving) {
            let uuid = self.uuid(label)?;
            wait_gone(self.sut.array, self.sut.clock, uuid, self.sut.waiting)?;
            self.sut.ledger.gone(uuid);
            emit(Event::Deleted { label });
        }
        for label in self.session.order.clone() {
            if self.model.snapshot(label).is_some_and(|snap| !snap.deleted) {
                wait_available(
                    self.sut.array,
                    self.sut.clock,
                    self.uuid(label)?,
                    self.sut.waiting,
                )?;
            }
        }
        Ok(())
    }

    fn diff(&mut self, pair: Pair, from: Lba, between: Option<(u32, &Op)>, emit: Emit<'_>) -> Done {
        match self.ask(pair, from, between, emit)? {
            Some(answer) => {
                self.session.last_diff = LastDiff::Answered { pair, answer };
                Ok(())
            }
            None => {
                self.session.last_diff = LastDiff::Refused;
                Ok(())
            }
        }
    }

    /// Walks the pages of a diff and judges the answer; `None` if it was rightly refused.
    fn ask(
        &mut self,
        pair: Pair,
        from: Lba,
        between: Option<(u32, &Op)>,
        emit: Emit<'_>,
    ) -> Result<Option<DiffAnswer>, Halt> {
        let (snap, base) = pair;
        self.session.last_diff = LastDiff::None;
        let expected = self.model.expected(snap, base);
        let owner = self.model.snapshot(snap).map_or(Role::Source, |snapshot| snapshot.role);
        let version = self.model.version(owner);
        let request = WalkRequest {
            snapshot: self.uuid(snap)?,
            base: base.map(|base| self.uuid(base)).transpose()?,
            from,
            volume_len: self.model.snapshot(snap).map_or(LbaCount::ZERO, |snapshot| snapshot.len),
            strict: self.sut.pipeline.strict,
            bugs: self.sut.pipeline.copy.bugs,
            stop: self.sut.waiting.stop,
        };
        let array = self.sut.array;
        let mut inner: Done = Ok(());
        let mut pages = 0;
        let walked = walk(array, &request, &mut |_, page| {
            pages += 1;
            emit(Event::Page { page: pages, ranges: page.ranges });
            if let Some((_, op)) = between.filter(|(after, _)| *after == pages) {
                inner = self.exec(owner, op, emit);
            }
        });
        inner?;
        // An operation between two pages may have taken an end of the diff away.
        let expected = match self.model.expected(snap, base) {
            after if after == expected => expected,
            _ => Expected::Either("an operation between two pages changed what is to be answered"),
        };
        match walked {
            Ok(answer) => {
                self.session.compared += 1;
                let found = self.judge(pair, from, &expected, version, &answer, emit)?;
                if found.is_empty() {
                    Ok(Some(answer))
                } else {
                    // The checks that follow may still speak of this answer.
                    self.session.last_diff = LastDiff::Answered { pair, answer };
                    Err(Halt::Violations(found))
                }
            }
            Err(WalkError::Api(error @ (ApiError::NotFound(_) | ApiError::Refused(_)))) => {
                self.refused(pair, &expected, pages, error, emit).map(|()| None)
            }
            Err(other) => Err(match Halt::from(other) {
                Halt::Violations(found) => {
                    Halt::Violations(found.into_iter().map(|v| v.about(snap, base)).collect())
                }
                other => other,
            }),
        }
    }

    /// A diff was refused after `pages` pages: rightly, wrongly, or because somebody took an end of
    /// it away meanwhile.
    fn refused(
        &mut self,
        pair: Pair,
        expected: &Expected,
        pages: u32,
        error: ApiError,
        emit: Emit<'_>,
    ) -> Done {
        let (snap, base) = pair;
        let (ApiError::NotFound(reply) | ApiError::Refused(reply)) = error else {
            return Err(error.into());
        };
        if let (Expected::Refusal(why), true) = (expected, pages > 0) {
            let sentence = format!(
                "the diff of {snap} was answered with {pages} pages and then refused, although {why}"
            );
            self.session.compared += 1;
            return Err(Violation::new(Kind::Refusal, sentence).about(snap, base).into());
        }
        if let Some(violation) = judge_refused(pair, expected, &reply.to_string()) {
            // A snapshot that expired, or that somebody else deleted, is nobody's wrong answer.
            for label in [Some(snap), base].into_iter().flatten() {
                let info = self.sut.array.snapshot(self.uuid(label)?)?;
                if info.state != SnapshotState::Available {
                    let why = format!("{label} is {:?} now; {reply}", info.state);
                    return Err(Halt::Unknown(Reason::Api(why)));
                }
            }
            self.session.compared += 1;
            return Err(violation.into());
        }
        self.session.compared += 1;
        emit(Event::Refused { snap, base, status: reply.status, text: reply.text });
        Ok(())
    }

    /// Everything the oracle has to say about an answer.
    fn judge(
        &mut self,
        pair: Pair,
        from: Lba,
        expected: &Expected,
        version: u64,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Vec<Violation>, Halt> {
        let (snap, base) = pair;
        emit(Event::Diffed {
            snap,
            base,
            ranges: answer.ranges,
            pages: answer.pages,
            lbas: answer.set.count(),
        });
        for note in &answer.notes {
            emit(Event::Note { text: note.clone() });
        }
        let mut found: Vec<Violation> =
            judge_answered(pair, expected, &answer.set).into_iter().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        if let Some(bounds) = self.model.predict(snap, base) {
            let asked = Extent::between(from.chunk_start(), Lba::new(u64::MAX));
            let inside = |set: &LbaSet| asked.map(|asked| set.within(asked)).unwrap_or_default();
            let bounds = Prediction { must: inside(&bounds.must), may: inside(&bounds.may) };
            // A reversed pair may be answered in any sense that loses nothing.
            let policy =
                if *expected == Expected::Answer { self.policy } else { Policy::ReportOnly };
            found.extend(judge_bounds(pair, &bounds, &answer.set, policy));
        }
        if from == Lba::new(0) {
            found.extend(self.judge_among_answers(pair, version, answer));
            self.session.answers.insert(pair, (version, answer.set.clone()));
            if base.is_none() {
                found.extend(self.judge_unreported(snap, answer, emit)?);
            }
        }
        Ok(found)
    }

    /// Law 5 on a volume with a past: what a diff without base leaves out reads as zeros. Looks at
    /// old data only, which the model cannot know; a sample, spread evenly.
    fn judge_unreported(
        &self,
        snap: Label,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Option<Violation>, Halt> {
        let Some(snapshot) = self.model.snapshot(snap) else { return Ok(None) };
        let (role, old) = (snapshot.role, Values::One(Value::Old(snapshot.role)));
        let whole = Extent::new(Lba::new(0), snapshot.len);
        let Some(whole) = whole.filter(|_| role == Role::Source && !self.model.is_fresh(role))
        else {
            return Ok(None);
        };
        if self.sut.array.volume(self.volume(role)?.uuid)?.is_clone {
            return Ok(None);
        }
        let device = self.device(role)?;
        // Live data stands for the snapshot only where nobody wrote since.
        let same = |at: Extent| {
            let then = snapshot.contents.over(at).iter().all(|(_, values)| **values == old);
            then && self.model.live(role, at).iter().all(|(_, values)| *values == old)
        };
        let left_out = LbaSet::from(whole).difference(&answer.set);
        let sample: Vec<Extent> = evenly(&left_out, SAMPLED_LBAS).filter(|at| same(*at)).collect();
        let tiles: Vec<Tile> = sample.iter().map(|at| (*at, Values::One(Value::Zero))).collect();
        let found =
            wrong_in((device, None), &tiles, (self.model.run(), role), self.sut.waiting.stop)?;
        if !sample.is_empty() {
            let text = format!("{} unreported LBAs of older data sampled", sample.len());
            emit(Event::Note { text });
        }
        Ok(found.map(|(_, wrong)| {
            let lbas: LbaSet = wrong.iter().filter_map(|(lba, _)| Extent::new(*lba, LbaCount::new(1))).collect();
            let sentence = format!("{lbas} hold data from before this run, diff({snap}) without base does not report them");
            Violation::new(Kind::Missed, sentence).about(snap, None).at(lbas)
        }))
    }

    /// Laws 2 and 4: this answer among the others of the scenario.
    fn judge_among_answers(&self, pair: Pair, version: u64, answer: &DiffAnswer) -> Vec<Violation> {
        let (snap, base) = pair;
        let mut found = Vec::new();
        let of = |pair: Pair| self.session.answers.get(&pair);
        if let Some((_, before)) = of(pair).filter(|(at, _)| *at == version) {
            found.extend(judge_repeat(pair, before, &answer.set));
        }
        for middle in self.session.order.iter().copied() {
            if let (Some((_, first)), Some((_, second))) =
                (of((middle, base)), of((snap, Some(middle))))
            {
                found.extend(judge_triangle(
                    pair,
                    middle,
                    (&answer.set, first, second),
                    self.policy,
                ));
            }
        }
        found
    }

    fn sync(&mut self, pair: Pair, from: SyncSource, emit: Emit<'_>) -> Done {
        let (snap, base) = pair;
        let start = self.sut.clock.now();
        let Some(answer) = self.ask(pair, Lba::new(0), None, emit)? else {
            self.session.last_diff = LastDiff::Refused;
            return Ok(());
        };
        let limit = self.sut.pipeline.limit_to.clone();
        let copied = limit
            .as_ref()
            .map_or_else(|| answer.set.clone(), |limit| answer.set.intersection(limit));
        if let Some(max) =
            self.sut.pipeline.max_full_sync.filter(|max| base.is_none() && copied.count() > *max)
        {
            let (has, may) = (copied.count().nominal_bytes(), max.nominal_bytes());
            let why = format!(
                "a full sync would copy {has} bytes, more than --max-full-sync {may}; use an emptier volume or --limit-to-footprint"
            );
            return Err(Halt::Unknown(Reason::Budget(why)));
        }
        let runs = plan(&answer.chunks, limit.as_ref(), self.sut.pipeline.copy.bugs);
        let (wrote, result) = self.copy(snap, from, &runs)?;
        let took = self.sut.clock.now().saturating_sub(start);
        match from {
            SyncSource::Live => self.model.synced(&copied),
            SyncSource::Snapshot => self.model.synced_from(snap, &copied),
        }
        if let Err(error) = result {
            for run in copied.runs() {
                self.model.unsettle(Role::Target, *run);
            }
            return Err(error.into());
        }
        emit(Event::Synced {
            ranges: answer.ranges,
            pages: answer.pages,
            lbas: copied.count(),
            took,
        });
        let stray = wrote.difference(&copied);
        let record = SyncRecord { pair, ranges: answer.ranges, copied, wrote, took };
        let mut found: Vec<Violation> = Vec::new();
        if !stray.is_empty() {
            let sentence = format!(
                "the sync of {snap} wrote {stray} of the target, which its diff does not name"
            );
            found.push(Violation::new(Kind::Disturbed, sentence).about(snap, base).at(stray));
        }
        found.extend(self.verify_copied(&record)?.map(|violation| violation.about(snap, base)));
        // What is known to be wrong is said once; later scenarios must not stumble over it again.
        for run in found.iter().flat_map(|violation| violation.extents.runs()) {
            self.model.forget(Role::Target, *run);
        }
        self.session.last_diff = LastDiff::Answered { pair, answer };
        self.session.digests_before = self.session.digests.clone();
        self.session.syncs.push(record);
        if found.is_empty() { Ok(()) } else { Err(Halt::Violations(found)) }
    }

    /// Copies `runs` and answers which LBAs of the target were written.
    fn copy(
        &self,
        snap: Label,
        from: SyncSource,
        runs: &[Extent],
    ) -> Result<(LbaSet, Result<(), crate::sync::CopyError>), Halt> {
        let target = WriteLogged::new(self.device(Role::Target)?);
        let live = self.device(Role::Source)?;
        let len = self.model.snapshot(snap).map_or(LbaCount::ZERO, |snapshot| snapshot.len);
        let frozen = SnapshotSource::new(self.sut.array, self.uuid(snap)?, live.block_size(), len);
        let torn = self.sut.pipeline.copy.bugs.has(PipelineBug::LiveSourceTorn);
        let source: &dyn BlockDevice =
            if from == SyncSource::Live || torn { live } else { &frozen };
        let result =
            copy(runs, source, &target, &self.sut.pipeline.copy, None, self.sut.waiting.stop);
        Ok((target.take_log(), result.map(|_| ())))
    }

    /// Reads the copied LBAs and the chunks beside them back from the target.
    fn verify_copied(&self, record: &SyncRecord) -> Result<Option<Violation>, Halt> {
        let Some(whole) =
            self.model.len(Role::Target).and_then(|len| Extent::new(Lba::new(0), len))
        else {
            return Ok(None);
        };
        let chunk = LbaCount::new(CHUNK_LBAS);
        let beside = |run: &Extent| {
            let out = run.rounded_out(chunk);
            let start = Lba::new(out.start().get().saturating_sub(CHUNK_LBAS));
            Extent::between(start, out.end() + chunk)?.intersect(whole)
        };
        let around: LbaSet = record.copied.runs().iter().filter_map(beside).collect();
        let tiles: Vec<Tile> =
            around.runs().iter().flat_map(|run| knowable(self.model, *run)).collect();
        let devices = (self.device(Role::Target)?, Some(self.device(Role::Source)?));
        let found =
            wrong_in(devices, &tiles, (self.model.run(), Role::Target), self.sut.waiting.stop)?;
        let when = format!("after the sync of {}", record.pair.0);
        Ok(found
            .and_then(|(values, wrong)| content_violation(Role::Target, &wrong, &values, &when)))
    }

    fn sync_chain(&mut self, to: Label, emit: Emit<'_>) -> Done {
        let alive = |label: &Label| self.model.snapshot(*label).is_some_and(|snap| !snap.deleted);
        let upto = self.session.order.iter().position(|label| *label == to).map_or(0, |at| at + 1);
        let taken: Vec<Label> = self.session.order[..upto].iter().copied().filter(alive).collect();
        let bases: BTreeMap<Label, Label> = taken.windows(2).map(|w| (w[1], w[0])).collect();
        let mut copied = LbaSet::new();
        for snap in chain_order(taken, self.sut.pipeline.copy.bugs) {
            self.sync((snap, bases.get(&snap).copied()), SyncSource::Snapshot, emit)?;
            copied =
                self.session.syncs.last().map_or(copied.clone(), |sync| copied.union(&sync.copied));
        }
        self.verify_chain(to, &copied)
    }

    /// After a chain the target holds the last snapshot wherever something was copied.
    fn verify_chain(&self, to: Label, copied: &LbaSet) -> Done {
        let Some(snapshot) = self.model.snapshot(to) else { return Ok(()) };
        let whole = Extent::new(Lba::new(0), snapshot.len);
        let inside = whole.map(|whole| copied.within(whole)).unwrap_or_default();
        let tiles: Vec<Tile> = inside
            .runs()
            .iter()
            .flat_map(|run| snapshot.contents.over(*run))
            .map(|(e, v)| (e, v.clone()))
            .collect();
        let devices = (self.device(Role::Target)?, None);
        let found =
            wrong_in(devices, &tiles, (self.model.run(), Role::Target), self.sut.waiting.stop)?;
        content(Role::Target, found, &format!("after the chain to {to}"))
    }

    /// Takes over a volume that the array has just made.
    fn adopt(&mut self, role: Role, uuid: crate::block::VolumeUuid) -> Done {
        let device = self
            .sut
            .array
            .device(uuid)
            .ok_or_else(|| Halt::Skip(format!("the new {role} volume cannot be reached")))?;
        self.sut.volumes.insert(role, SutVolume { uuid, device: DeviceHandle::Owned(device) });
        Ok(())
    }

    fn volume(&self, role: Role) -> Result<&SutVolume<'_>, Halt> {
        self.sut.volumes.get(&role).ok_or_else(|| Halt::Skip(format!("there is no {role} volume")))
    }

    fn device(&self, role: Role) -> Result<&dyn BlockDevice, Halt> {
        self.volume(role).map(SutVolume::device)
    }

    fn uuid(&self, label: Label) -> Result<crate::block::SnapshotUuid, Halt> {
        self.session
            .uuids
            .get(&label)
            .copied()
            .ok_or_else(|| Halt::Skip(format!("{label} was never taken")))
    }
}

/// LBAs of old data that a full scan left out and that are read to see whether they are zeros.
const SAMPLED_LBAS: u64 = 1024;

/// At most `most` single LBAs of `set`, spread evenly over it.
fn evenly(set: &LbaSet, most: u64) -> impl Iterator<Item = Extent> {
    let step = set.count().get().div_ceil(most).max(1);
    let mut before: u64 = 0;
    set.runs().iter().flat_map(move |run| {
        let skip = before.next_multiple_of(step) - before;
        before += run.len_lbas().get();
        let lbas = run.start().get() + skip..run.end().get();
        lbas.step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .filter_map(|lba| Extent::new(Lba::new(lba), LbaCount::new(1)))
    })
}

type Wrong = Option<(Values, WrongBlocks)>;

fn content(role: Role, found: Wrong, when: &str) -> Done {
    match found.and_then(|(values, wrong)| content_violation(role, &wrong, &values, when)) {
        Some(violation) => Err(violation.into()),
        None => Ok(()),
    }
}
