//! The shadow model: what every volume and snapshot should hold, and what any diff must and may
//! report. Pure; it never sees an adapter, so that its agreement with one means something.
//!
//! [`Model::apply`] is the meaning of each operation, [`Model::predict`] the bounds of a diff.
//! Not covered yet: operations in flight together (`Op::Concurrent`), which no target of this step
//! offers, and cuts that race with writes.

mod predict;
mod values;
mod volume;

#[cfg(test)]
pub(crate) mod tests;

pub use predict::{Expected, Prediction};
pub use values::{Value, ValueMap, Values};
pub use volume::Volume;

use crate::block::{Capabilities, DiscardEffect, Extent, Geometry, LbaCount, LbaSet, Role, RunId};
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
    rollbacks: u32,
    incarnation: u32,
    /// Epochs of the volume that lie before its cut.
    cut: usize,
}

/// The shadow model of a run.
#[derive(Clone, Debug)]
pub struct Model {
    run: RunId,
    capabilities: Capabilities,
    volumes: BTreeMap<Role, Volume>,
    snapshots: BTreeMap<Label, Snapshot>,
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
        let volumes = volumes
            .iter()
            .map(|(&role, &shape)| (role, Volume::new(role, shape.len, shape.fresh, 0)))
            .collect();
        Model {
            run,
            capabilities,
            volumes,
            snapshots: BTreeMap::new(),
            generation: 0,
            incarnations: 0,
        }
    }

    /// Forgets the labels of the scenario before: the next one names its snapshots anew. Contents
    /// and history of the volumes stay.
    pub fn begin_scenario(&mut self) {
        self.snapshots.clear();
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
        volume.live.over(at).into_iter().map(|(tile, values)| (tile, values.clone())).collect()
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
        let volume = self.volumes.get(&role).ok_or_else(|| format!("there is no {role} volume"))?;
        let inside = |at: &Extent| match volume.whole() {
            Some(whole) if whole.covers(*at) => Ok(()),
            _ => Err(format!("{at} lies outside the {role} volume of {} LBAs", volume.len)),
        };
        let taken = |label: &Label| match self.snapshots.contains_key(label) {
            true => Ok(()),
            false => Err(format!("{label} was never taken")),
        };
        match op {
            Op::Write { at }
            | Op::Rewrite { at }
            | Op::Zero { at }
            | Op::WriteZeroes { at }
            | Op::Discard { at } => inside(at),
            Op::Read { snap: None, at } => inside(at),
            Op::Read { snap: Some(snap), .. } => taken(snap),
            Op::Take { label, .. } => match self.snapshots.contains_key(label) {
                true => Err(format!("{label} was taken before")),
                false => Ok(()),
            },
            Op::Delete { label, .. } | Op::Rollback { label } | Op::Clone { label, .. } => {
                taken(label)
            }
            Op::Diff { snap, base, .. } | Op::Sync { snap, base, .. } => {
                taken(snap)?;
                base.as_ref().map_or(Ok(()), taken)
            }
            Op::SyncChain { to } => taken(to),
            Op::On { volume, op } => self.admits(*volume, op),
            Op::DeleteVolume { volume } => match self.volumes.contains_key(volume) {
                true => Ok(()),
                false => Err(format!("there is no {volume} volume")),
            },
            Op::Flush
            | Op::Wait
            | Op::Concurrent(_)
            | Op::Resize { .. }
            | Op::Restart { .. }
            | Op::CreateVolume { .. }
            | Op::Check(_) => Ok(()),
        }
    }

    /// What an operation that succeeded means. Operations that change nothing (reads, diffs,
    /// checks, flushes, waits) mean nothing here; what a sync copied is told by [`Model::synced`].
    pub fn apply(&mut self, role: Role, op: &Op) {
        let zero = Values::One(Value::Zero);
        match op {
            Op::Write { at } => {
                self.generation += 1;
                let stamp = Value::Stamp { role, generation: self.generation };
                self.put(role, *at, &Values::One(stamp));
            }
            Op::Rewrite { at } => self.touch(role, *at),
            Op::Zero { at } | Op::WriteZeroes { at } => self.put(role, *at, &zero),
            Op::Discard { at } => self.discard(role, *at),
            Op::Take { label, wait } => self.take(role, *label, *wait),
            Op::Delete { label, wait } => self.delete(*label, *wait),
            Op::Flush => self.flushed(role),
            Op::Wait => self.snapshots.values_mut().for_each(|snap| snap.settled = true),
            Op::Rollback { label } => self.rollback(*label),
            Op::Resize { len } => {
                let zeroes = self.capabilities.shrink_zeroes;
                if let Some(volume) = self.volumes.get_mut(&role) {
                    volume.resize(*len, zeroes);
                }
            }
            Op::Clone { label, volume } => self.clone_volume(*label, *volume),
            Op::CreateVolume { volume, .. } => self.create(role, *volume),
            Op::DeleteVolume { volume } => {
                self.volumes.remove(volume);
            }
            Op::On { volume, op } => self.apply(*volume, op),
            Op::Read { .. }
            | Op::Concurrent(_)
            | Op::Restart { .. }
            | Op::Diff { .. }
            | Op::Sync { .. }
            | Op::SyncChain { .. }
            | Op::Check(_) => {}
        }
    }

    /// A write, zero or discard failed half-way: the LBAs hold what they held, the new value, or a
    /// mixture, may count as touched, and the request may still land later (`oracle.md` section 4).
    pub fn unsettle(&mut self, role: Role, at: Extent) {
        // A failed write used up its generation: its blocks may turn up.
        self.generation += 1;
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.unfenced.insert(at);
            volume.blur(at);
        }
    }

    /// Blocks of a volume turned out to be wrong: what they hold is not known any more.
    pub fn forget(&mut self, role: Role, at: Extent) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.blur(at);
        }
    }

    /// A flush failed: nothing written since the last good one is certain, and flushing again
    /// proves nothing.
    pub fn flush_failed(&mut self, role: Role) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        for run in volume.unflushed.clone().runs() {
            volume.blur(*run);
        }
    }

    /// Whether a volume started as zeros.
    pub fn is_fresh(&self, role: Role) -> bool {
        self.volumes.get(&role).is_some_and(|volume| volume.fresh)
    }

    fn flushed(&mut self, role: Role) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.unflushed = LbaSet::new();
        }
    }

    /// A sync copied these LBAs from the live source to the target.
    pub fn synced(&mut self, copied: &LbaSet) {
        for run in copied.runs() {
            let tiles = self.live(Role::Source, *run);
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
    }

    fn touch(&mut self, role: Role, at: Extent) {
        if let Some(volume) = self.volumes.get_mut(&role) {
            volume.touch(at);
        }
    }

    fn discard(&mut self, role: Role, at: Extent) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        let zero = Values::One(Value::Zero);
        match self.capabilities.discard {
            DiscardEffect::Zero => volume.put(at, &zero),
            DiscardEffect::OldOrZero => volume.change(at, |old| old.or(&zero)),
            DiscardEffect::Undefined => volume.put(at, &Values::Any),
            DiscardEffect::Ignored => volume.touch(at),
        }
    }

    fn take(&mut self, role: Role, label: Label, settled: bool) {
        let Some(volume) = self.volumes.get_mut(&role) else { return };
        let contents = Arc::new(volume.live.clone());
        let (len, incarnation, rollbacks) = (volume.len, volume.incarnation, volume.rollbacks);
        let cut = volume.cut();
        let deleted = false;
        let snap = Snapshot { role, contents, len, deleted, settled, rollbacks, incarnation, cut };
        self.snapshots.insert(label, snap);
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
        volume.rollbacks += 1;
        // Every LBA that any operation could have touched since the cut may move back.
        let moved = volume.touched_between(snap.cut, volume.touched.len());
        volume.resize(snap.len, self.capabilities.shrink_zeroes);
        for run in moved.runs() {
            volume.touch(*run);
        }
        volume.live = snap.contents.as_ref().clone();
    }

    fn clone_volume(&mut self, label: Label, role: Role) {
        let Some(snap) = self.snapshots.get(&label) else { return };
        let Some(parent) = self.volumes.get(&snap.role) else { return };
        self.incarnations += 1;
        let mut volume = Volume::new(role, snap.len, parent.fresh, self.incarnations);
        volume.live = snap.contents.as_ref().clone();
        volume.touched = vec![parent.touched_between(0, snap.cut)];
        self.volumes.insert(role, volume);
    }

    fn create(&mut self, like: Role, role: Role) {
        let Some(len) = self.volumes.get(&like).or(self.volumes.get(&Role::Source)).map(|v| v.len)
        else {
            return;
        };
        self.incarnations += 1;
        self.volumes.insert(role, Volume::new(role, len, true, self.incarnations));
    }
}
