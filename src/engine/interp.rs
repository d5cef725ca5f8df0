//! THE interpreter: the only place where an operation becomes I/O.
//!
//! It is total: any list of operations runs. An operation that means nothing here (a label never
//! taken, an extent outside the volume) or that the target does not offer is skipped and said so.
//! Every diff and sync is judged by the oracle; explicit checks come on top. It stops at the first
//! step with a violation, but still asks the checks of the same answer that follow it directly.
//! Not covered: operations in flight together, which no target of this step offers.

use super::checks::evaluate;
use super::event::Event;
use super::session::{Emit, Halt, LastDiff, Pair, Session, SyncRecord};
use super::sut::{DeviceHandle, Sut, SutVolume};
use super::transfer::{rewrite, write_stamped, write_zeros};
use super::verify::{Tile, WrongBlocks, knowable, wrong_in};
use crate::array::{ApiError, BlockDevice, DeviceError, wait_available, wait_gone};
use crate::block::{CHUNK_LBAS, Extent, Lba, LbaCount, LbaSet, Policy, Role};
use crate::model::{Model, Values};
use crate::oracle::{Kind, Reason, Verdict, Violation, content_violation};
use crate::scenario::{Label, Op, Scenario, SyncSource};
use crate::sync::{PipelineBug, SnapshotSource, WriteLogged, chain_order, copy, plan};
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

pub(super) struct Interp<'i, 'a> {
    pub(super) model: &'i mut Model,
    pub(super) sut: &'i mut Sut<'a>,
    pub(super) policy: Policy,
    pub(super) session: Session,
}

pub(super) type Done = Result<(), Halt>;

impl Interp<'_, '_> {
    pub(super) fn exec(&mut self, role: Role, op: &Op, emit: Emit<'_>) -> Done {
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

    pub(super) fn volume(&self, role: Role) -> Result<&SutVolume<'_>, Halt> {
        self.sut.volumes.get(&role).ok_or_else(|| Halt::Skip(format!("there is no {role} volume")))
    }

    pub(super) fn device(&self, role: Role) -> Result<&dyn BlockDevice, Halt> {
        self.volume(role).map(SutVolume::device)
    }

    pub(super) fn uuid(&self, label: Label) -> Result<crate::block::SnapshotUuid, Halt> {
        self.session
            .uuids
            .get(&label)
            .copied()
            .ok_or_else(|| Halt::Skip(format!("{label} was never taken")))
    }
}

type Wrong = Option<(Values, WrongBlocks)>;

fn content(role: Role, found: Wrong, when: &str) -> Done {
    match found.and_then(|(values, wrong)| content_violation(role, &wrong, &values, when)) {
        Some(violation) => Err(violation.into()),
        None => Ok(()),
    }
}
