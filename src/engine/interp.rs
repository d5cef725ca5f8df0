//! THE interpreter: the only place where an operation becomes I/O.
//!
//! It is total: any list of operations runs. An operation that means nothing here (a label never
//! taken, an extent outside the volume) or that the target does not offer is skipped and said so.
//! Every diff and sync is judged by the oracle; explicit checks come on top. It stops at the first
//! step with a violation, but still asks the checks of the same answer that follow it directly.
//! Operations in flight together are in [`super::together`], copies in [`super::syncing`]. Not
//! covered: what is right (`crate::oracle`).

use super::checks::evaluate;
use super::event::Event;
use super::recording::{self, Place};
use super::session::{Emit, Halt, LastDiff, Pair, Session};
use super::sut::{DeviceHandle, Recorded, Sut, SutVolume};
use super::transfer::{rewrite, write_stamped, write_zeros};
use super::verify::{Tile, WrongBlocks, wrong_in, zeros_in};
use crate::array::{ApiError, BlockDevice, DeviceError, wait_available, wait_gone};
use crate::block::{
    BlockSize, Capabilities, Extent, Lba, LbaCount, LbaSet, Policy, Role, RunId, SnapshotName,
    SnapshotUuid,
};
use crate::judge::Record;
use crate::model::{Model, Value, Values};
use crate::oracle::{CheckId, Reason, Verdict, Violation, content_violation};
use crate::scenario::{Fault, Label, Op, Scenario};
use crate::sync::{PipelineBug, SnapshotSource};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

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
pub type Answers = BTreeMap<(Label, Option<Label>), LbaSet>;

/// As [`run`], and gives the answers out besides.
pub fn run_answered(
    scenario: &Scenario,
    model: &mut Model,
    sut: &mut Sut<'_>,
    on_event: &mut dyn FnMut(Event),
) -> (Verdict, Answers) {
    model.begin_scenario();
    let mut interp = Interp {
        capabilities: sut.array.capabilities(),
        model,
        sut,
        policy: scenario.header.policy,
        session: Session::default(),
    };
    let mut violations: Vec<Violation> = Vec::new();
    interp.sut.tell(on_event, || recording::began(interp.model, interp.sut, interp.policy));
    for (index, step) in scenario.steps.iter().enumerate() {
        let also_asked = matches!(&step.op, Op::Check(check) if check.speaks_of_the_answer());
        if !violations.is_empty() && !also_asked {
            break;
        }
        on_event(Event::Step { index, op: step.op.clone() });
        interp.sut.tell(on_event, || Record::Step { index, op: step.op.clone() });
        let done = match &step.fault {
            Some(fault) => interp.with_fault(fault, &step.op, on_event),
            None => interp.exec(Role::Source, &step.op, on_event),
        };
        match done {
            Ok(()) => {}
            Err(Halt::Skip(why)) => on_event(Event::Skipped { op: step.op.clone(), why }),
            // What is known to be wrong stays wrong, whatever fails afterwards.
            Err(Halt::Unknown(_)) if !violations.is_empty() => break,
            Err(Halt::Unknown(reason)) => {
                let verdict = Verdict::Unknown(reason);
                interp.sut.tell(on_event, || recording::ended(&verdict));
                return (verdict, Answers::new());
            }
            Err(Halt::Violations(found)) => {
                for violation in &found {
                    on_event(Event::Violation { violation: violation.clone() });
                    interp.sut.tell(on_event, || recording::violated(violation));
                }
                violations.extend(found);
            }
        }
    }
    let answers = std::mem::take(&mut interp.session.answers)
        .into_iter()
        .map(|(pair, (_, set))| (pair, set))
        .collect();
    let verdict = match violations.is_empty() && interp.session.compared == 0 {
        true => Verdict::Unknown(Reason::NothingCompared),
        false => Verdict::of(violations),
    };
    interp.sut.tell(on_event, || recording::ended(&verdict));
    (verdict, answers)
}

pub(super) struct Interp<'i, 'a> {
    pub(super) model: &'i mut Model,
    pub(super) sut: &'i mut Sut<'a>,
    pub(super) policy: Policy,
    pub(super) capabilities: Capabilities,
    pub(super) session: Session,
}

pub(super) type Done = Result<(), Halt>;

impl Interp<'_, '_> {
    pub(super) fn exec(&mut self, role: Role, op: &Op, emit: Emit<'_>) -> Done {
        if self.sut.waiting.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Halt::Unknown(Reason::Interrupted));
        }
        self.model.admits(role, op).map_err(Halt::Skip)?;
        let done = match op {
            Op::Write { at } => self.change(role, op, *at, "wrote", emit),
            Op::Rewrite { at } => self.change(role, op, *at, "rewrote", emit),
            Op::Zero { at } | Op::WriteZeroes { at } => self.change(role, op, *at, "zeroed", emit),
            Op::Discard { at } => self.change(role, op, *at, "discarded", emit),
            Op::Flush => self.flush(role, emit),
            Op::Read { snap, at } => self.read(role, *snap, *at, emit),
            Op::Take { label, wait } => self.take(role, *label, *wait, emit),
            Op::Delete { label, wait } => self.delete(*label, *wait, emit),
            Op::Wait => self.settle(emit),
            Op::Concurrent(ops) => self.together(role, ops, emit),
            Op::Rollback { label } => {
                self.close_cuts(role, emit)?;
                let (volume, to) = (self.volume(role)?.uuid, self.uuid(*label)?);
                self.sut.array.rollback(volume, to)?;
                self.applied(role, op)
            }
            Op::Resize { len } => {
                self.close_cuts(role, emit)?;
                self.sut.array.resize(self.volume(role)?.uuid, *len)?;
                self.applied(role, op)
            }
            Op::Restart { clean } => {
                self.sut.array.restart(*clean)?;
                self.applied(role, op)
            }
            Op::Clone { label, volume } => {
                self.close_cut(*label, emit)?;
                let made = self.sut.array.clone_snapshot(self.uuid(*label)?)?;
                self.adopt(*volume, made)?;
                self.applied(role, op)
            }
            Op::CreateVolume { volume, same_id } => {
                let len = self.model.len_for_new().unwrap_or(LbaCount::ZERO);
                let id = self.sut.volumes.get(volume).map(|v| v.uuid).filter(|_| *same_id);
                let made = self.sut.array.create_volume(len, id)?;
                self.adopt(*volume, made)?;
                self.applied(role, op)
            }
            Op::DeleteVolume { volume } => {
                self.close_cuts(*volume, emit)?;
                self.sut.array.delete_volume(self.volume(*volume)?.uuid)?;
                self.applied(role, op)
            }
            Op::On { volume, op } => self.exec(*volume, op, emit),
            Op::Diff { snap, base, from, between_pages } => {
                let between = between_pages.as_ref().map(|(page, op)| (*page, op.as_ref()));
                self.diff((*snap, *base), *from, between, emit)
            }
            Op::Sync { snap, base, from, during } => self.sync((*snap, *base), *from, during, emit),
            Op::SyncChain { to } => self.sync_chain(*to, emit),
            Op::Check(check) => {
                let asked = evaluate(check, self.sut, self.model, &mut self.session, emit);
                // What was skipped or could not be told has not been compared.
                if matches!(asked, Ok(()) | Err(Halt::Violations(_))) {
                    self.session.compared += 1;
                }
                asked
            }
        };
        if done.is_ok()
            && self.sut.record != Recorded::Nothing
            && let Some(record) = recording::applied(role, op, self.model)
        {
            self.sut.tell(emit, || record);
        }
        done
    }

    pub(super) fn applied(&mut self, role: Role, op: &Op) -> Done {
        self.model.apply(role, op);
        Ok(())
    }

    /// Runs an operation that meets a fault. What fails because of that fault has told nothing about
    /// the target: the run goes on.
    fn with_fault(&mut self, fault: &Fault, op: &Op, emit: Emit<'_>) -> Done {
        let victim = match op {
            Op::On { volume, .. } => *volume,
            Op::Sync { .. } | Op::SyncChain { .. } => Role::Target,
            _ => Role::Source,
        };
        let volume = self.volume(victim)?.uuid;
        self.sut.array.arm_fault(volume, &fault.kind, fault.nth)?;
        self.session.fault = Some(volume);
        let done = self.exec(Role::Source, op, emit);
        let met = self.fault_was_met();
        self.session.fault = None;
        self.session.fault_met = false;
        match done {
            Err(Halt::Unknown(reason)) if met && reason != Reason::Interrupted => {
                emit(Event::Note { text: format!("injected fault {}: {reason}", fault.kind) });
                Ok(())
            }
            done => done,
        }
    }

    /// Whether the fault that this step carries has happened.
    pub(super) fn fault_was_met(&mut self) -> bool {
        if let Some(volume) = self.session.fault.take() {
            self.session.fault_met = !self.sut.array.disarm_fault(volume);
        }
        self.session.fault_met
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
        let stamp = (self.model.run(), role, self.model.next_generation());
        match perform(self.device(role)?, op, stamp, self.sut.waiting.stop) {
            Ok(()) => {
                self.model.apply(role, op);
                emit(Event::Wrote { role, what, at });
                Ok(())
            }
            Err(error @ DeviceError::Unsupported(_)) => Err(error.into()),
            Err(error) => {
                // A fault of ours is over; nobody knows when a real one is.
                let late = !self.fault_was_met();
                self.model.failed(role, op, late);
                let generation = recording::last_generation(op, self.model);
                self.sut.tell(emit, || Record::Failed { role, op: op.clone(), generation, late });
                Err(error.into())
            }
        }
    }

    fn flush(&mut self, role: Role, emit: Emit<'_>) -> Done {
        match self.device(role)?.flush() {
            Ok(()) => self.applied(role, &Op::Flush),
            Err(error) => {
                self.model.flush_failed(role);
                self.sut.tell(emit, || Record::FlushFailed { role });
                Err(error.into())
            }
        }
    }

    fn read(&mut self, role: Role, snap: Option<Label>, at: Extent, emit: Emit<'_>) -> Done {
        let run = self.model.run();
        if !self.sut.checks.has(CheckId::Content) {
            return Err(Halt::Skip("contents are not judged".to_owned()));
        }
        let Some(label) = snap else {
            let tiles = self.model.live(role, at);
            let device = self.device(role)?;
            let found = wrong_in((device, None), &tiles, (run, role), self.sut.reading())?;
            let place = Place { run, role, snap: None, like: None };
            self.sut.tell_blocks(emit, device, place, [at])?;
            self.session.compared += 1;
            content(role, found, "now")?;
            return self.settle_unknown(role, &tiles, emit);
        };
        self.close_cut(label, emit)?;
        let Some(snapshot) = self.model.snapshot(label) else { return Ok(()) };
        let (owner, len) = (snapshot.role, snapshot.len);
        let over = |run: Extent| snapshot.contents.over(run).map(|(e, v)| (e, v.clone())).collect();
        let inside = Extent::new(Lba::new(0), len).and_then(|whole| whole.intersect(at));
        let tiles: Vec<Tile> = inside.map(over).unwrap_or_default();
        let device = self.frozen(label)?;
        let found = wrong_in((&device, None), &tiles, (run, owner), self.sut.reading())?;
        let place = Place { run, role: owner, snap, like: None };
        self.sut.tell_blocks(emit, &device, place, inside)?;
        self.session.compared += 1;
        content(owner, found, &format!("in snapshot {label}"))
    }

    /// What was not known at all and reads as zeros holds zeros from now on: a discard may leave
    /// anything, but only until it is read.
    fn settle_unknown(&mut self, role: Role, tiles: &[Tile], emit: Emit<'_>) -> Done {
        let zeros = zeros_in(self.device(role)?, tiles, self.sut.waiting.stop)?;
        for at in zeros.runs().iter().copied() {
            let value = Value::Zero;
            self.model.settle_live(role, at, value);
            emit(Event::Seen { snap: None, role, at, value });
        }
        Ok(())
    }

    /// A snapshot as a device that can be read, if this target offers that.
    pub(super) fn frozen(&self, label: Label) -> Result<SnapshotSource<'_>, Halt> {
        if !self.capabilities.snapshot_readable {
            return Err(Halt::Skip("this target does not offer reading a snapshot".to_owned()));
        }
        let uuid = self.uuid(label)?;
        let Some(snapshot) = self.model.snapshot(label) else {
            return Err(Halt::Skip(format!("{label} was never taken")));
        };
        // Its volume may be gone; any other has blocks of the same size.
        let device = self.sut.volumes.get(&snapshot.role).or(self.sut.volumes.values().next());
        let block = device.map_or(BlockSize::DEVICE, |volume| volume.device().block_size());
        Ok(SnapshotSource::new(self.sut.array, uuid, block, snapshot.len))
    }

    fn take(&mut self, role: Role, label: Label, wait: bool, emit: Emit<'_>) -> Done {
        // An array makes one at a time of each volume.
        self.close_cuts(role, emit)?;
        self.ask_for_snapshot(role, label, emit)?;
        self.model.apply(role, &Op::Take { label, wait: false });
        if wait {
            self.close_cut(label, emit)?;
        }
        Ok(())
    }

    /// The call that takes a snapshot, and nothing more: it is not waited for.
    pub(super) fn ask_for_snapshot(&mut self, role: Role, label: Label, emit: Emit<'_>) -> Done {
        let name = self.sut.ledger.next_name();
        let made = self.sut.array.create_snapshot(self.volume(role)?.uuid, name)?;
        self.took((role, label), name, made.uuid, emit);
        Ok(())
    }

    /// The books of a snapshot that was asked for.
    pub(super) fn took(
        &mut self,
        (role, label): (Role, Label),
        name: SnapshotName,
        uuid: SnapshotUuid,
        emit: Emit<'_>,
    ) {
        self.sut.ledger.made(uuid);
        self.session.uuids.insert(label, uuid);
        self.session.order.push(label);
        emit(Event::Taken { label, name, uuid });
        self.sut.tell(emit, || Record::Asked { role, label });
    }

    /// Waits until a snapshot is Available: what comes then is after its cut. Then looks on which
    /// side of it the operations that came meanwhile are.
    pub(super) fn close_cut(&mut self, label: Label, emit: Emit<'_>) -> Done {
        let Some(snapshot) = self.model.snapshot(label).filter(|snap| snap.is_open()) else {
            return Ok(());
        };
        let role = snapshot.role;
        let waits = !self.sut.pipeline.copy.bugs.has(PipelineBug::ReadsBeforeAvailable);
        if waits {
            let uuid = self.uuid(label)?;
            let waited = wait_available(self.sut.array, self.sut.clock, uuid, self.sut.waiting);
            self.in_time(waited)?;
            emit(Event::Available { label });
        }
        self.sut.tell(emit, || Record::Available { label });
        let unsure = self.model.close(label);
        if unsure.is_empty() || !waits {
            return Ok(());
        }
        self.settle_cut(role, label, &unsure, emit)
    }

    /// As [`Interp::close_cut`], for every snapshot of a volume.
    pub(super) fn close_cuts(&mut self, role: Role, emit: Emit<'_>) -> Done {
        for label in self.model.open_snapshots(role) {
            self.close_cut(label, emit)?;
        }
        Ok(())
    }

    /// What a wait came to; a state that never comes is a violation, if that is judged.
    fn in_time(&self, waited: Result<(), ApiError>) -> Done {
        match waited {
            Err(ApiError::Late { .. }) if !self.sut.checks.has(CheckId::Liveness) => {
                Err(Halt::Skip("liveness is not judged".to_owned()))
            }
            waited => Ok(waited?),
        }
    }

    fn delete(&mut self, label: Label, wait: bool, emit: Emit<'_>) -> Done {
        self.close_cut(label, emit)?;
        let uuid = self.uuid(label)?;
        match self.sut.array.delete_snapshot(uuid) {
            Ok(()) | Err(ApiError::NotFound(_)) => {}
            Err(other) => return Err(other.into()),
        }
        self.model.apply(Role::Source, &Op::Delete { label, wait });
        if wait {
            self.wait_until_gone(uuid)?;
        } else {
            self.session.leaving.push(label);
        }
        emit(Event::Deleted { label });
        Ok(())
    }

    fn wait_until_gone(&mut self, uuid: SnapshotUuid) -> Done {
        let waited = wait_gone(self.sut.array, self.sut.clock, uuid, self.sut.waiting);
        self.in_time(waited)?;
        self.sut.ledger.gone(uuid);
        Ok(())
    }

    /// Waits for every snapshot that was made or deleted without waiting.
    fn settle(&mut self, emit: Emit<'_>) -> Done {
        for label in std::mem::take(&mut self.session.leaving) {
            self.wait_until_gone(self.uuid(label)?)?;
            emit(Event::Deleted { label });
        }
        for role in Role::ALL {
            self.close_cuts(role, emit)?;
        }
        self.applied(Role::Source, &Op::Wait)
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

/// What one operation on a data plane does. `stamp` is what written blocks say of themselves.
pub(super) fn perform(
    device: &dyn BlockDevice,
    op: &Op,
    stamp: (RunId, Role, u64),
    stop: &AtomicBool,
) -> Result<(), DeviceError> {
    match op {
        Op::Write { at } => write_stamped(device, *at, stamp, stop),
        Op::Rewrite { at } => rewrite(device, *at, stop),
        Op::Zero { at } => write_zeros(device, *at, stop),
        Op::WriteZeroes { at } => device.write_zeroes(at.start(), at.len_lbas()),
        Op::Discard { at } => device.discard(at.start(), at.len_lbas()),
        _ => Err(DeviceError::Unsupported("this operation")),
    }
}

type Wrong = Option<(Values, WrongBlocks)>;

pub(super) fn content(role: Role, found: Wrong, when: &str) -> Done {
    match found.and_then(|(values, wrong)| content_violation(role, &wrong, &values, when)) {
        Some(violation) => Err(violation.into()),
        None => Ok(()),
    }
}
