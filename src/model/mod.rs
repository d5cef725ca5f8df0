//! The shadow model: what every volume and snapshot should hold, and what any diff must and may
//! report. Pure; it never sees an adapter, so that its agreement with one means something.
//!
//! [`Model::apply`] is the meaning of each operation, [`Model::predict`] the bounds of a diff. A
//! snapshot whose making has not been waited for is *open*: each operation that comes meanwhile may
//! lie on either side of its cut ([`Model::close`] ends that). Not covered: the order in which
//! operations in flight together took effect; where they overlap any of them may have been last.

mod flight;
mod predict;
mod values;
mod volume;

#[cfg(test)]
pub(crate) mod tests;

pub use predict::{Expected, Prediction};
pub use values::{Value, ValueMap, Values};
pub use volume::Volume;

use crate::block::{
    Capabilities, DiscardEffect, Durability, Extent, Geometry, Lba, LbaCount, LbaSet, Role, RunId,
};
use crate::scenario::{Label, Op};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A snapshot of the model.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of which volume.
    pub role: Role,
    /// What it holds.
    pub contents: Arc<ValueMap>,
    /// Its size.
    pub len: LbaCount,
    /// Whether it has been deleted.
    pub deleted: bool,
    /// Whether it is known to have arrived in its state: Available, or gone. Until then a diff may
    /// be refused or answered.
    pub settled: bool,
    /// LBAs that operations touched while it was being made: their side of the cut is not known.
    pub in_flight: LbaSet,
    /// Whether such operations may still come: it has not been seen Available.
    open: bool,
    rollbacks: u32,
    kills: u32,
    incarnation: u32,
    /// Epochs of the volume that lie before its cut.
    cut: usize,
}

impl Snapshot {
    /// Whether operations may still lie before its cut: it has not been seen Available.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

/// The shadow model of a run.
#[derive(Clone, Debug)]
pub struct Model {
    run: RunId,
    capabilities: Capabilities,
    volumes: BTreeMap<Role, Volume>,
    /// Volumes that were deleted or replaced; their snapshots still answer.
    dead: Vec<Volume>,
    snapshots: BTreeMap<Label, Snapshot>,
    /// Snapshots that are open. Few at any time, mostly none.
    open: Vec<Label>,
    /// Bytes of an LBA, the largest of all volumes.
    block_bytes: u64,
    generation: u64,
    incarnations: u32,
}

impl Model {
    /// The world before the first operation.
    pub fn new(
        run: RunId,
        volumes: &BTreeMap<Role, Geometry>,
        capabilities: Capabilities,
    ) -> Model {
        let block_bytes = volumes.values().map(|shape| shape.block.bytes()).max().unwrap_or(0);
        let mut model = Model {
            run,
            capabilities,
            volumes: BTreeMap::new(),
            dead: Vec::new(),
            snapshots: BTreeMap::new(),
            open: Vec::new(),
            block_bytes,
            generation: 0,
            incarnations: 0,
        };
        for (&role, &shape) in volumes {
            model.begin_volume(Volume::new(role, shape.len, shape.fresh, 0));
        }
        model
    }

    /// Adds a volume; one of the same role that is there already is dead from now on.
    fn begin_volume(&mut self, mut volume: Volume) {
        let survives = self.capabilities.durable == Durability::OnAck;
        volume.unflushed = (!survives).then(Vec::new);
        let role = volume.role;
        self.dead.extend(self.volumes.insert(role, volume));
    }

    /// Forgets the labels of the scenario before: the next one names its snapshots anew. Contents
    /// and history of the volumes stay.
    pub fn begin_scenario(&mut self) {
        self.snapshots.clear();
        self.open.clear();
        self.dead.clear();
    }

    /// The run whose stamps the contents carry.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Generation that the next write will carry.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// A volume, if there is one of that role.
    pub fn volume(&self, role: Role) -> Option<&Volume> {
        self.volumes.get(&role)
    }

    /// Size of a volume.
    pub fn len(&self, role: Role) -> Option<LbaCount> {
        self.volumes.get(&role).map(|volume| volume.len)
    }

    /// What a volume holds now over `at`.
    pub fn live(&self, role: Role, at: Extent) -> Vec<(Extent, Values)> {
        let Some(volume) = self.volumes.get(&role) else { return Vec::new() };
        volume.live.over(at).map(|(tile, values)| (tile, values.clone())).collect()
    }

    /// The volume that a snapshot was taken of, dead or alive.
    fn volume_of(&self, snap: &Snapshot) -> Option<&Volume> {
        let alive = self.volumes.get(&snap.role);
        alive
            .into_iter()
            .chain(&self.dead)
            .find(|volume| (volume.role, volume.incarnation) == (snap.role, snap.incarnation))
    }

    /// Whether two snapshots are of one and the same volume.
    pub fn same_volume(&self, a: Label, b: Label) -> bool {
        let of = |label| self.snapshots.get(&label).map(|snap| (snap.role, snap.incarnation));
        of(a).is_some() && of(a) == of(b)
    }

    /// Snapshots of a volume that have not been seen Available.
    pub fn open_snapshots(&self, role: Role) -> Vec<Label> {
        let of = |label: &&Label| self.snapshots.get(label).is_some_and(|snap| snap.role == role);
        self.open.iter().filter(of).copied().collect()
    }

    /// Every run of a volume that this run has written, zeroed or made uncertain.
    pub fn known(&self, role: Role) -> Vec<(Extent, Values)> {
        let Some(volume) = self.volumes.get(&role) else { return Vec::new() };
        volume.live.known(volume.len).map(|(run, values)| (run, values.clone())).collect()
    }

    /// A snapshot that was taken in this scenario, deleted or not.
    pub fn snapshot(&self, label: Label) -> Option<&Snapshot> {
        self.snapshots.get(&label)
    }

    /// Counts everything that could change a diff of that volume: two equal questions at the same
    /// count must get the same answer.
    pub fn version(&self, role: Role) -> u64 {
        self.volumes.get(&role).map_or(0, |volume| volume.version)
    }

    /// Whether an operation can mean anything here: the labels and volumes it names exist and its
    /// extents lie inside the volume. Otherwise it is skipped.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, role: Role, op: &Op) -> Result<(), String> {
        let there = |role: Role| match self.volumes.get(&role) {
            Some(volume) => Ok(volume),
            None => Err(format!("there is no {role} volume")),
        };
        let inside = |at: &Extent| {
            let volume = there(role)?;
            match volume.whole() {
                Some(whole) if whole.covers(*at) => Ok(()),
                _ => Err(format!("{at} lies outside the {role} volume of {} LBAs", volume.len)),
            }
        };
        let taken = |label: &Label| match self.snapshots.get(label) {
            Some(snap) => Ok(snap),
            None => Err(format!("{label} was never taken")),
        };
        let alive = |label: &Label| match taken(label)?.deleted {
            false => Ok(()),
            true => Err(format!("{label} has been deleted")),
        };
        match op {
            Op::Write { at }
            | Op::Rewrite { at }
            | Op::Zero { at }
            | Op::WriteZeroes { at }
            | Op::Discard { at } => inside(at),
            Op::Read { snap: None, at } => inside(at),
            Op::Read { snap: Some(snap), .. } => alive(snap),
            Op::Take { label, .. } => match self.snapshots.contains_key(label) {
                true => Err(format!("{label} was taken before")),
                false => there(role).map(|_| ()),
            },
            Op::Delete { label, .. } => alive(label),
            Op::Rollback { label } => {
                alive(label)?;
                let (snap, volume) = (taken(label)?, there(role)?);
                match (snap.role, snap.incarnation) == (role, volume.incarnation) {
                    true => Ok(()),
                    false => Err(format!("{label} is not of this {role} volume")),
                }
            }
            Op::Clone { label, volume } => {
                alive(label)?;
                self.absent(*volume)
            }
            Op::Diff { snap, base, .. } | Op::Sync { snap, base, .. } => {
                taken(snap)?;
                base.as_ref().map_or(Ok(()), |base| taken(base).map(|_| ()))
            }
            Op::SyncChain { to } => alive(to),
            Op::On { volume, op } => self.admits(*volume, op),
            Op::DeleteVolume { volume } => there(*volume).map(|_| ()),
            Op::CreateVolume { volume, .. } => self.absent(*volume),
            Op::Resize { .. } | Op::Flush => there(role).map(|_| ()),
            Op::Wait | Op::Concurrent(_) | Op::Restart { .. } | Op::Check(_) => Ok(()),
        }
    }

    fn absent(&self, role: Role) -> Result<(), String> {
        match self.volumes.contains_key(&role) {
            true => Err(format!("there is a {role} volume already")),
            false => Ok(()),
        }
    }

    /// What an operation that succeeded means. Operations that change nothing (reads, diffs,
    /// checks, flushes, waits) mean nothing here; what a sync copied is told by [`Model::synced`].
    pub fn apply(&mut self, role: Role, op: &Op) {
        match op {
            Op::Write { .. } => {
                self.generation += 1;
                self.change(role, op, self.generation);
            }
            Op::Rewrite { .. } | Op::Zero { .. } | Op::WriteZeroes { .. } | Op::Discard { .. } => {
                self.change(role, op, self.generation);
            }
            Op::Take { label, wait } => {
                self.take(role, *label);
                if *wait {
                    self.close(*label);
                }
            }
            Op::Delete { label, wait } => self.delete(*label, *wait),
            Op::Flush => self.flushed(role),
            Op::Wait => {
                for label in std::mem::take(&mut self.open) {
                    self.close(label);
                }
                self.snapshots.values_mut().for_each(|snap| snap.settled = true);
            }
            Op::Rollback { label } => self.rollback(*label),
            Op::Resize { len } => {
                let zeroes = self.capabilities.shrink_zeroes;
                let tail = self.volumes.get_mut(&role).and_then(|vol| vol.resize(*len, zeroes));
                tail.into_iter().for_each(|tail| self.spill(role, tail));
            }
            Op::Restart { clean } => self.restart(*clean),
            Op::Clone { label, volume } => self.clone_volume(*label, *volume),
            Op::CreateVolume { volume, .. } => self.create(*volume),
            Op::DeleteVolume { volume } => self.dead.extend(self.volumes.remove(volume)),
            Op::On { volume, op } => self.apply(*volume, op),
            Op::Read { .. }
            | Op::Concurrent(_)
            | Op::Diff { .. }
            | Op::Sync { .. }
            | Op::SyncChain { .. }
            | Op::Check(_) => {}
        }
    }

    /// What a write, zero or discard that succeeded means. `generation` is the write's.
    fn change(&mut self, role: Role, op: &Op, generation: u64) {
        let Some((at, values)) = self.outcome(role, op, generation) else { return };
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        match (op, values) {
            (Op::Rewrite { .. }, _) => volume.touch(at),
            (_, Some(values)) => volume.put(at, &values),
            // The old contents decide.
            (_, None) => volume.change(at, |old| old.or(&Values::One(Value::Zero))),
        }
        self.spill(role, at);
    }

    /// Where an operation puts what: `None` for the values if they depend on what is there.
    fn outcome(&self, role: Role, op: &Op, generation: u64) -> Option<(Extent, Option<Values>)> {
        let zero = Some(Values::One(Value::Zero));
        Some(match op {
            Op::Write { at } => (*at, Some(Values::One(Value::Stamp { role, generation }))),
            Op::Zero { at } | Op::WriteZeroes { at } => (*at, zero),
            Op::Rewrite { at } => (*at, None),
            Op::Discard { at } => match self.capabilities.discard {
                DiscardEffect::Zero => (*at, zero),
                DiscardEffect::OldOrZero => (*at, None),
                DiscardEffect::Undefined => (*at, Some(Values::Any)),
                DiscardEffect::Ignored => return self.outcome(role, &Op::Rewrite { at: *at }, 0),
            },
            _ => return None,
        })
    }

    /// Operations have touched these LBAs of a volume: a snapshot of it that is being made may show
    /// what they hold now, or not.
    fn spill(&mut self, role: Role, at: Extent) {
        for label in &self.open {
            let Some(snap) = self.snapshots.get_mut(label).filter(|snap| snap.role == role) else {
                continue;
            };
            let Some(volume) = self.volumes.get_mut(&role) else { continue };
            let Some(at) = Extent::new(Lba::new(0), snap.len).and_then(|all| all.intersect(at))
            else {
                continue;
            };
            snap.in_flight.insert(at);
            let contents = Arc::make_mut(&mut snap.contents);
            for (tile, values) in volume.live.over(at) {
                contents.or_into(tile, values);
            }
            // It may have come before the cut as well as after it.
            if let Some(before) = volume.touched.get_mut(snap.cut - 1) {
                before.insert(at);
            }
        }
    }

    /// A snapshot has been seen Available: what comes now is after its cut. Answers the LBAs whose
    /// side of the cut is not known.
    pub fn close(&mut self, label: Label) -> LbaSet {
        self.open.retain(|open| *open != label);
        let Some(snap) = self.snapshots.get_mut(&label) else { return LbaSet::new() };
        if !std::mem::replace(&mut snap.open, false) {
            return LbaSet::new();
        }
        snap.settled = true;
        let mut unsure = LbaSet::new();
        for run in snap.in_flight.runs() {
            let tiles = snap.contents.over(*run);
            let several = tiles.filter(|(_, values)| values.certain().is_none());
            several.for_each(|(tile, _)| unsure.insert(tile));
        }
        unsure
    }

    /// Reading a snapshot has shown what it holds here, for ever.
    pub fn settle_snapshot(&mut self, label: Label, at: Extent, value: Value) {
        if let Some(snap) = self.snapshots.get_mut(&label) {
            Arc::make_mut(&mut snap.contents).set(at, Values::One(value));
        }
    }

    /// Reading a volume has shown what it holds here; not where a write may still land.
    pub fn settle_live(&mut self, role: Role, at: Extent, value: Value) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        if volume.late.iter().all(|(late, _)| late.intersect(at).is_none()) {
            volume.live.set(at, Values::One(value));
        }
    }

    /// A write, zero or discard failed: each LBA holds what it held or the new value (or a mixture,
    /// if the target may tear a block) and may count as touched. If it was not answered it may
    /// still land, at any later time (`oracle.md` section 4).
    pub fn failed(&mut self, role: Role, op: &Op, may_land_later: bool) {
        // A failed write used up its generation: its blocks may turn up.
        self.generation += u64::from(matches!(op, Op::Write { .. }));
        let Some((at, values)) = self.outcome(role, op, self.generation) else { return };
        let torn = u64::from(self.capabilities.atomic_write_bytes) < self.block_bytes;
        let values = match values {
            _ if torn => Values::Any,
            Some(values) => values,
            None => Values::One(Value::Zero),
        };
        let rewrites = matches!(op, Op::Rewrite { .. }) && !torn;
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        match rewrites {
            true => volume.touch(at),
            false => volume.change(at, |old| old.or(&values)),
        }
        if may_land_later && !rewrites {
            volume.late.push((at, values));
        }
        self.spill(role, at);
    }

    /// Blocks of a volume turned out to be wrong: what they hold is not known any more.
    pub fn forget(&mut self, role: Role, at: Extent) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.blur(at);
        }
        self.spill(role, at);
    }

    /// A flush failed: nothing written since the last good one is certain, and flushing again
    /// proves nothing.
    pub fn flush_failed(&mut self, role: Role) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        volume.lose_unflushed();
        if let Some(whole) = volume.whole() {
            self.spill(role, whole);
        }
    }

    /// Whether a volume started as zeros.
    pub fn is_fresh(&self, role: Role) -> bool {
        self.volumes.get(&role).is_some_and(|volume| volume.fresh)
    }

    fn flushed(&mut self, role: Role) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.flushed();
        }
    }

    /// The target stopped and started. A clean stop is a flush; either one fences what was late.
    fn restart(&mut self, clean: bool) {
        let forgets = !clean && !self.capabilities.tracking_survives_kill;
        for volume in self.volumes.values_mut() {
            volume.late.clear();
            volume.kills += u32::from(forgets);
            if clean {
                volume.flushed();
            } else if volume.unflushed.is_some() {
                volume.lose_unflushed();
            }
        }
    }

    /// A sync copied these LBAs from the live source to the target. `held` is what the source may
    /// have held meanwhile, if that is more than it holds now.
    pub fn synced(&mut self, held: Option<&ValueMap>, copied: &LbaSet) {
        for run in copied.runs() {
            let tiles = match held {
                Some(held) => held.over(*run).map(|(tile, v)| (tile, v.clone())).collect(),
                None => self.live(Role::Source, *run),
            };
            for (tile, values) in tiles {
                self.put(Role::Target, tile, &values);
            }
        }
    }

    /// A sync copied these LBAs from a frozen snapshot to the target.
    pub fn synced_from(&mut self, snap: Label, copied: &LbaSet) {
        let Some(contents) = self.snapshots.get(&snap).map(|snap| Arc::clone(&snap.contents))
        else {
            return;
        };
        for run in copied.runs() {
            for (tile, values) in contents.over(*run) {
                self.put(Role::Target, tile, values);
            }
        }
    }

    /// These LBAs were given back what they held when `snap` was taken. They count as touched.
    pub fn put_back(&mut self, snap: Label, at: &LbaSet) {
        let Some(snap) = self.snapshots.get(&snap) else { return };
        let (role, contents) = (snap.role, Arc::clone(&snap.contents));
        for run in at.runs() {
            for (tile, values) in contents.over(*run) {
                self.put(role, tile, values);
            }
        }
    }

    fn put(&mut self, role: Role, at: Extent, values: &Values) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.put(at, values);
        }
        self.spill(role, at);
    }

    /// The call to take a snapshot: it is open until [`Model::close`].
    fn take(&mut self, role: Role, label: Label) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        let snap = Snapshot {
            role,
            contents: Arc::new(volume.live.clone()),
            len: volume.len,
            deleted: false,
            settled: false,
            in_flight: LbaSet::new(),
            open: true,
            rollbacks: volume.rollbacks,
            kills: volume.kills,
            incarnation: volume.incarnation,
            cut: volume.cut(),
        };
        self.snapshots.insert(label, snap);
        self.open.push(label);
    }

    fn delete(&mut self, label: Label, settled: bool) {
        let Some(snap) = self.snapshots.get_mut(&label) else { return };
        snap.deleted = true;
        snap.settled = settled;
        if let Some(volume) = self.volumes.get_mut(&snap.role) {
            volume.version += 1;
        }
    }

    fn rollback(&mut self, label: Label) {
        let Some(snap) = self.snapshots.get(&label) else { return };
        let Some(volume) = self.volumes.get_mut(&snap.role) else { return };
        let (role, contents, cut, len) =
            (snap.role, Arc::clone(&snap.contents), snap.cut, snap.len);
        volume.rollbacks += 1;
        // Every LBA that any operation could have touched since the cut may move back.
        let moved = volume.touched_between(cut, volume.touched.len());
        volume.resize(len, self.capabilities.shrink_zeroes);
        for run in moved.runs() {
            volume.touch(*run);
        }
        volume.live = contents.as_ref().clone();
        if let Some(whole) = volume.whole() {
            let late = std::mem::take(&mut volume.late);
            late.iter().for_each(|(run, values)| volume.mix(*run, whole, values));
            volume.late = late;
            self.spill(role, whole);
        }
    }

    fn clone_volume(&mut self, label: Label, role: Role) {
        let Some(snap) = self.snapshots.get(&label) else { return };
        let Some(parent) = self.volume_of(snap) else { return };
        let incarnation = self.incarnations + 1;
        let mut volume = Volume::new(role, snap.len, parent.fresh, incarnation);
        volume.live = snap.contents.as_ref().clone();
        let inherited = match &parent.parent {
            // A clone of a clone inherits what its parent did.
            Some((_, inherited)) => inherited.union(&parent.touched_between(0, snap.cut)),
            None => parent.touched_between(0, snap.cut),
        };
        volume.parent = Some((Arc::clone(&snap.contents), inherited));
        self.incarnations = incarnation;
        self.begin_volume(volume);
    }

    /// A new volume is as long as the source is, or was.
    fn create(&mut self, role: Role) {
        let Some(len) = self.len_for_new() else { return };
        self.incarnations += 1;
        self.begin_volume(Volume::new(role, len, true, self.incarnations));
    }

    /// Size of a volume that is created now.
    pub fn len_for_new(&self) -> Option<LbaCount> {
        let alive = self.volumes.get(&Role::Source);
        let dead = self.dead.iter().rev().find(|volume| volume.role == Role::Source);
        alive.or(dead).map(|volume| volume.len)
    }
}
