//! Tells the records that a second judge needs, where the run is recorded. Not covered: judging
//! them (`crate::judge`), keeping them (whoever listens).

use super::event::Event;
use super::session::{Emit, Halt};
use super::sut::{Recorded, Sut};
use super::transfer::in_pieces;
use crate::array::{BlockDevice, DeviceError};
use crate::block::{
    Diagnosis, Extent, Geometry, Lba, LbaCount, Policy, Role, RunId, Stamp, diagnose,
};
use crate::judge::{Block, Record};
use crate::model::{Model, Value};
use crate::oracle::{Verdict, Violation};
use crate::scenario::{Label, Op};
use std::sync::atomic::AtomicBool;

/// What blocks are read of.
pub(super) struct Place {
    pub(super) run: RunId,
    /// The volume.
    pub(super) role: Role,
    /// The snapshot of it, if not the volume itself.
    pub(super) snap: Option<Label>,
    /// The snapshot that they have to be like, if there is one.
    pub(super) like: Option<Label>,
}

impl Sut<'_> {
    /// Tells a record, which is made only if somebody wants it.
    pub(super) fn tell(&self, emit: Emit<'_>, record: impl FnOnce() -> Record) {
        if self.record != Recorded::Nothing {
            emit(Event::Record(Box::new(record())));
        }
    }

    /// Tells what is to be read at these places; reads them once more for it.
    pub(super) fn tell_blocks(
        &self,
        emit: Emit<'_>,
        device: &dyn BlockDevice,
        place: Place,
        places: impl IntoIterator<Item = Extent>,
    ) -> Result<(), Halt> {
        let Place { run, role, snap, like } = place;
        if self.record != Recorded::Blocks {
            return Ok(());
        }
        let mut blocks = Vec::new();
        for at in places {
            observe(device, at, (run, role), self.waiting.stop, &mut blocks)?;
        }
        emit(Event::Record(Box::new(Record::Seen { role, snap, like, blocks })));
        Ok(())
    }
}

/// The world that a scenario begins in. A volume that this run has touched before counts as one
/// with a past: the recording does not hold that part of it.
pub(super) fn began(model: &Model, sut: &Sut<'_>, policy: Policy) -> Record {
    let shape = |role| {
        let volume = sut.volumes.get(&role)?;
        let block = volume.device().block_size();
        let fresh = model.is_fresh(role) && model.version(role) == 0;
        Some((role, Geometry { block, len: model.len(role)?, fresh }))
    };
    let volumes = Role::ALL.into_iter().filter_map(shape).collect();
    let capabilities = Box::new(sut.array.capabilities());
    Record::Began { volumes, policy, capabilities }
}

/// An operation that took effect, right after the model was told of it. Those that hold others, that
/// are told elsewhere or that change nothing are none.
pub(super) fn applied(role: Role, op: &Op, model: &Model) -> Option<Record> {
    match op {
        Op::Read { .. }
        | Op::Take { .. }
        | Op::Concurrent(_)
        | Op::On { .. }
        | Op::Diff { .. }
        | Op::Sync { .. }
        | Op::SyncChain { .. }
        | Op::Check(_) => None,
        op => {
            Some(Record::Applied { role, op: op.clone(), generation: last_generation(op, model) })
        }
    }
}

/// The number that the blocks of a write carry that the model was just told of.
pub(super) fn last_generation(op: &Op, model: &Model) -> Option<u64> {
    matches!(op, Op::Write { .. }).then(|| model.next_generation() - 1)
}

pub(super) fn violated(violation: &Violation) -> Record {
    let Violation { kind, snap, base, .. } = violation;
    Record::Violated { kind: kind.name().to_owned(), snap: *snap, base: *base }
}

pub(super) fn ended(verdict: &Verdict) -> Record {
    let verdict = match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail(_) => "fail",
        Verdict::Unknown(_) => "unknown",
    };
    Record::Ended { verdict: verdict.to_owned() }
}

/// What reading has shown where the model did not know.
pub(super) fn seen(role: Role, snap: Option<Label>, at: Extent, value: Value) -> Record {
    let block = match value {
        Value::Zero => Block::Zero,
        Value::Stamp { role, generation } => Block::Stamp { role, generation },
        Value::Old(_) => Block::Old,
    };
    Record::Seen { role, snap, like: None, blocks: vec![(at, block)] }
}

/// Reads `at` and says what each block is, equal neighbours together.
fn observe(
    device: &dyn BlockDevice,
    at: Extent,
    by: (RunId, Role),
    stop: &AtomicBool,
    blocks: &mut Vec<(Extent, Block)>,
) -> Result<(), DeviceError> {
    let block_bytes = device.block_size().get();
    in_pieces(device, at, "read", stop, |first, start, buf| {
        device.read_at(start, buf)?;
        for (bytes, lba) in buf.chunks_exact(block_bytes).zip(first.get()..) {
            let Some(here) = Extent::new(Lba::new(lba), LbaCount::new(1)) else { continue };
            let block = name(bytes, here.start(), by);
            match blocks.last_mut() {
                Some((run, last)) if *last == block && run.end() == here.start() => {
                    *run = Extent::between(run.start(), here.end()).unwrap_or(here);
                }
                _ => blocks.push((here, block)),
            }
        }
        Ok(())
    })
}

fn name(bytes: &[u8], lba: Lba, (run, role): (RunId, Role)) -> Block {
    let as_of = |volume| diagnose(bytes, &Stamp { run, volume, lba, generation: u64::MAX });
    let stamp = |role, generation| Block::Stamp { role, generation };
    match as_of(role) {
        Diagnosis::Zero => Block::Zero,
        Diagnosis::Right => stamp(role, u64::MAX),
        Diagnosis::Stale { found } => stamp(role, found),
        // Copied there from another volume.
        Diagnosis::ForeignVolume { volume, .. } => match as_of(volume) {
            Diagnosis::Stale { found } => stamp(volume, found),
            _ => Block::Misplaced,
        },
        own if own.is_of(run) => Block::Misplaced,
        _ => Block::Other,
    }
}
