//! A recording gone through once: what each epoch of each volume was, what was answered, what was
//! read, and what the model makes of it.
//!
//! Operations in flight together are given to the model together, as the engine does. Not covered:
//! what is shown of it (`super::build`); the second judge, who goes through recordings by himself.

use super::cell::Cell;
use crate::block::{Extent, Lba, LbaSet, Role, RunId};
use crate::judge::{Block, Record};
use crate::model::{Model, Value, Values};
use crate::scenario::{Label, Op, Step, SyncSource};
use std::collections::BTreeMap;

/// What happened to a volume between two snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Epoch {
    /// The snapshot that ended it.
    pub(super) until: Option<Label>,
    /// What was done, in order; later ones cover earlier ones.
    pub(super) done: Vec<(Extent, Cell)>,
    /// What happened to the volume as a whole.
    pub(super) notes: Vec<&'static str>,
}

/// Blocks that were read, and what they could hold.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) role: Role,
    pub(super) snap: Option<Label>,
    pub(super) found: Vec<(Extent, Cell)>,
    pub(super) expected: Vec<(Extent, Cell)>,
}

/// A diff that was answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) pair: (Label, Option<Label>),
    pub(super) from: Lba,
    pub(super) reported: LbaSet,
}

/// A copy that was made.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) had_to: LbaSet,
    pub(super) wrote: LbaSet,
}

/// The whole of it.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) model: Option<Model>,
    pub(super) epochs: BTreeMap<Role, Vec<Epoch>>,
    pub(super) of: BTreeMap<Label, Role>,
    pub(super) lens: BTreeMap<Role, u64>,
    pub(super) answers: Vec<Answer>,
    pub(super) readings: Vec<Reading>,
    pub(super) copies: Vec<Copy>,
    /// Numbers that blocks of writes carry, in the order of the writes.
    generations: Vec<u64>,
    /// Whether what the step holds is in flight together, and what has been done of it.
    together: Option<Vec<(Role, Op)>>,
}

impl History {
    /// Of a recording.
    pub(super) fn of(records: &[Record]) -> History {
        let mut history = History::default();
        records.iter().for_each(|record| history.hear(record));
        history.land();
        history
    }

    /// Of operations alone, where there is no recording: nothing was answered, nothing is known.
    pub(super) fn of_steps(steps: &[Step]) -> History {
        let mut history = History::default();
        steps.iter().for_each(|step| history.step(Role::Source, &step.op));
        history
    }

    fn step(&mut self, role: Role, op: &Op) {
        match op {
            Op::On { volume, op } => self.step(*volume, op),
            Op::Take { label, .. } => self.cut(role, *label),
            Op::Concurrent(ops) | Op::Sync { during: ops, .. } => {
                ops.iter().for_each(|op| self.step(role, op));
            }
            op => self.paint(role, op),
        }
    }

    fn hear(&mut self, record: &Record) {
        match record {
            Record::Began { volumes, capabilities, .. } => {
                let capabilities = capabilities.as_ref().clone();
                self.model = Some(Model::new(RunId::from_u128(0), volumes, capabilities));
                let lens = volumes.iter().map(|(role, shape)| (*role, shape.len.get()));
                self.lens = lens.collect();
            }
            Record::Step { op, .. } => {
                self.land();
                self.together = holds_several(op).then(Vec::new);
            }
            Record::Applied { role, op, generation } => self.applied(*role, op, *generation),
            Record::Asked { role, label } => {
                self.cut(*role, *label);
                self.tell(*role, Op::Take { label: *label, wait: false });
            }
            Record::Available { label } => {
                self.land();
                self.with(|model| drop(model.close(*label)));
            }
            Record::Failed { role, op, generation, late } => {
                self.land();
                self.generations.extend(generation);
                self.with(|model| model.failed(*role, op, *late));
                let at = op.changes();
                self.mark(*role, at.map(|at| (at, Cell::Unsure)));
            }
            Record::FlushFailed { role } => {
                self.land();
                self.with(|model| model.flush_failed(*role));
                self.note(*role, "a flush failed");
            }
            Record::Forgotten { role, at } => {
                self.land();
                self.with(|model| model.forget(*role, *at));
                self.mark(*role, [(*at, Cell::Unsure)]);
            }
            Record::Answered { snap, base, from, reported } => {
                let (pair, from) = ((*snap, *base), *from);
                self.answers.push(Answer { pair, from, reported: reported.clone() });
            }
            Record::Copied { snap, from, copied, wrote, .. } => {
                self.land();
                self.copies.push(Copy { had_to: copied.clone(), wrote: wrote.clone() });
                self.with(|model| match from {
                    SyncSource::Snapshot => model.synced_from(*snap, copied),
                    SyncSource::Live => model.synced(None, copied),
                });
                self.mark(Role::Target, wrote.runs().iter().map(|at| (*at, Cell::Copied)));
            }
            Record::Seen { role, snap, like, blocks } => self.seen(*role, *snap, *like, blocks),
            Record::TurnedDown { .. } | Record::Violated { .. } | Record::Ended { .. } => {}
        }
    }

    fn with(&mut self, change: impl FnOnce(&mut Model)) {
        if let Some(model) = &mut self.model {
            change(model);
        }
    }

    /// Tells the model of an operation, or keeps it until those in flight together are known.
    fn tell(&mut self, role: Role, op: Op) {
        match &mut self.together {
            Some(flying) => flying.push((role, op)),
            None => self.with(|model| model.apply(role, &op)),
        }
    }

    /// What was in flight together has been acknowledged.
    fn land(&mut self) {
        let Some(flying) = self.together.as_mut().map(std::mem::take) else { return };
        if !flying.is_empty() {
            let ops: Vec<(Role, &Op)> = flying.iter().map(|(role, op)| (*role, op)).collect();
            self.with(|model| drop(model.together(&ops)));
        }
    }

    fn applied(&mut self, role: Role, op: &Op, generation: Option<u64>) {
        self.generations.extend(generation);
        self.tell(role, op.clone());
        self.paint(role, op);
    }

    fn epochs_of(&mut self, role: Role) -> &mut Vec<Epoch> {
        let epochs = self.epochs.entry(role).or_default();
        if epochs.is_empty() {
            epochs.push(Epoch::default());
        }
        epochs
    }

    fn mark(&mut self, role: Role, done: impl IntoIterator<Item = (Extent, Cell)>) {
        if let Some(open) = self.epochs_of(role).last_mut() {
            open.done.extend(done);
        }
    }

    fn note(&mut self, role: Role, note: &'static str) {
        if let Some(open) = self.epochs_of(role).last_mut()
            && !open.notes.contains(&note)
        {
            open.notes.push(note);
        }
    }

    fn cut(&mut self, role: Role, label: Label) {
        self.of.insert(label, role);
        let epochs = self.epochs_of(role);
        if let Some(open) = epochs.last_mut() {
            open.until = Some(label);
        }
        epochs.push(Epoch::default());
    }

    fn paint(&mut self, role: Role, op: &Op) {
        let cell = match op {
            Op::Write { .. } => Cell::Write,
            Op::Rewrite { .. } => Cell::Rewrite,
            Op::Zero { .. } | Op::WriteZeroes { .. } => Cell::Zero,
            Op::Discard { .. } => Cell::Discard,
            Op::Rollback { label } => {
                let back = self.since(role, *label);
                self.note(role, "rolled back");
                return self.mark(role, back.into_iter().map(|at| (at, Cell::Rollback)));
            }
            Op::Resize { len } => {
                let old = self.lens.insert(role, len.get()).unwrap_or(len.get());
                let (short, long) = (old.min(len.get()), old.max(len.get()));
                self.note(role, "resized");
                let tail = Extent::between(Lba::new(short), Lba::new(long));
                return self.mark(role, tail.map(|tail| (tail, Cell::Resize)));
            }
            Op::Restart { clean } => {
                let note = if *clean { "restarted" } else { "killed" };
                let roles: Vec<Role> = self.epochs.keys().copied().collect();
                return roles.into_iter().for_each(|role| self.note(role, note));
            }
            Op::CreateVolume { volume, .. } => return self.note(*volume, "created anew"),
            Op::Clone { volume, .. } => return self.note(*volume, "cloned"),
            Op::DeleteVolume { volume } => return self.note(*volume, "deleted"),
            _ => return,
        };
        self.mark(role, op.changes().map(|at| (at, cell)));
    }

    /// What was touched since a snapshot was taken.
    fn since(&self, role: Role, label: Label) -> Vec<Extent> {
        let epochs = self.epochs.get(&role).map_or(&[][..], Vec::as_slice);
        let after =
            epochs.iter().position(|epoch| epoch.until == Some(label)).map_or(0, |at| at + 1);
        let done = epochs.get(after..).unwrap_or_default().iter().flat_map(|epoch| &epoch.done);
        done.map(|(at, _)| *at).collect()
    }

    /// The so-manieth write whose blocks carry that number.
    fn holds(&self, generation: u64) -> Cell {
        let place = self.generations.iter().position(|&carried| carried == generation);
        match place.and_then(|place| u32::try_from(place + 1).ok()) {
            Some(write) => Cell::Holds(write),
            None => Cell::HoldsMisplaced,
        }
    }

    fn seen(
        &mut self,
        role: Role,
        snap: Option<Label>,
        like: Option<Label>,
        blocks: &[(Extent, Block)],
    ) {
        self.land();
        let found = blocks.iter().map(|(at, block)| {
            let cell = match block {
                Block::Zero => Cell::HoldsZero,
                Block::Stamp { generation, .. } => self.holds(*generation),
                Block::Old => Cell::HoldsOld,
                Block::Misplaced => Cell::HoldsMisplaced,
                Block::Other => Cell::HoldsOther,
            };
            (*at, cell)
        });
        let found: Vec<(Extent, Cell)> = found.collect();
        let mut expected = Vec::new();
        if let Some(model) = &self.model {
            for (at, _) in blocks {
                let tiles = match snap.or(like) {
                    Some(label) => model.snapshot(label).map_or_else(Vec::new, |snap| {
                        snap.contents.over(*at).map(|(at, held)| (at, held.clone())).collect()
                    }),
                    None => model.live(role, *at),
                };
                expected.extend(tiles.into_iter().map(|(at, values)| (at, expected_cell(&values))));
            }
        }
        self.readings.push(Reading { role, snap: snap.or(like), found, expected });
    }
}

/// The model counts writes from 1, as the report does.
fn expected_cell(values: &Values) -> Cell {
    match values.certain() {
        None => Cell::HoldsSeveral,
        Some(Value::Zero) => Cell::HoldsZero,
        Some(Value::Old(_)) => Cell::HoldsOld,
        Some(Value::Stamp { generation, .. }) => {
            u32::try_from(generation).map_or(Cell::HoldsSeveral, Cell::Holds)
        }
    }
}

/// Whether what an operation holds is in flight together.
fn holds_several(op: &Op) -> bool {
    match op {
        Op::Concurrent(_) => true,
        Op::Sync { during, .. } => !during.is_empty(),
        Op::On { op, .. } => holds_several(op),
        _ => false,
    }
}
