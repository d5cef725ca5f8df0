//! One volume of the shadow model: what it holds now, and which LBAs each epoch could have touched.
//! An epoch ends when a snapshot is taken, so any pair of snapshots can be asked for; a map of the
//! *last* writer could not answer that. Not covered: snapshots, and what an operation means
//! (`super::Model`).

use super::values::{Value, ValueMap, Values};
use crate::block::{Extent, Lba, LbaCount, LbaSet, Role};
use std::sync::Arc;

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    pub(super) role: Role,
    pub(super) len: LbaCount,
    pub(super) fresh: bool,
    pub(super) live: ValueMap,
    /// LBAs that operations could have touched, by epoch; the last one is open.
    pub(super) touched: Vec<LbaSet>,
    /// What a clone began with, and the LBAs that its parent could have touched by then.
    pub(super) parent: Option<(Arc<ValueMap>, LbaSet)>,
    /// LBAs touched since the last good flush.
    pub(super) since_flush: LbaSet,
    /// What each LBA held or got since then, where that decides what a crash leaves.
    pub(super) unflushed: Option<Vec<(Extent, Values)>>,
    /// Writes that failed and may still land, at any later time, over anything.
    pub(super) late: Vec<(Extent, Values)>,
    /// Rollbacks so far: pairs across one may be related or not.
    pub(super) rollbacks: u32,
    /// Kills so far that tracking need not have survived.
    pub(super) kills: u32,
    /// Which volume it is: a volume that was deleted and made again is another one.
    pub(super) incarnation: u32,
    /// Counts everything that could change a diff of this volume.
    pub(super) version: u64,
}

impl Volume {
    pub(super) fn new(role: Role, len: LbaCount, fresh: bool, incarnation: u32) -> Volume {
        let start = if fresh { Value::Zero } else { Value::Old(role) };
        Volume {
            role,
            len,
            fresh,
            live: ValueMap::new(Values::One(start)),
            touched: vec![LbaSet::new()],
            parent: None,
            since_flush: LbaSet::new(),
            unflushed: None,
            late: Vec::new(),
            rollbacks: 0,
            kills: 0,
            incarnation,
            version: 0,
        }
    }

    /// What it holds now.
    pub fn contents(&self) -> &ValueMap {
        &self.live
    }

    /// The whole volume; `None` if it has no LBA.
    pub(super) fn whole(&self) -> Option<Extent> {
        Extent::new(Lba::new(0), self.len)
    }

    pub(super) fn touch(&mut self, at: Extent) {
        self.version += 1;
        self.since_flush.insert(at);
        if let Some(open) = self.touched.last_mut() {
            open.insert(at);
        }
    }

    pub(super) fn put(&mut self, at: Extent, values: &Values) {
        self.touch(at);
        if let Some(unflushed) = &mut self.unflushed {
            let before = self.live.over(at).map(|(tile, old)| (tile, old.clone()));
            unflushed.extend(before);
            unflushed.push((at, values.clone()));
        }
        self.live.set(at, values.clone());
        if !self.late.is_empty() {
            let late = std::mem::take(&mut self.late);
            late.iter().for_each(|(run, values)| self.mix(*run, at, values));
            self.late = late;
        }
    }

    /// The LBAs hold anything from now on, and may count as touched.
    pub(super) fn blur(&mut self, at: Extent) {
        self.put(at, &Values::Any);
    }

    /// Changes each run of values over `at`.
    pub(super) fn change(&mut self, at: Extent, change: impl Fn(&Values) -> Values) {
        let tiles: Vec<(Extent, Values)> =
            self.live.over(at).map(|(tile, old)| (tile, change(old))).collect();
        for (tile, values) in tiles {
            self.put(tile, &values);
        }
    }

    /// The LBAs of `run` that lie in `at` hold what they do or one of `values`.
    pub(super) fn mix(&mut self, run: Extent, at: Extent, values: &Values) {
        let Some(both) = run.intersect(at) else { return };
        self.live.or_into(both, values);
    }

    /// A crash, or a flush that failed: what was not durable is old or new, each LBA for itself.
    pub(super) fn lose_unflushed(&mut self) {
        let Some(unflushed) = self.unflushed.take() else {
            // It promised durability at once and broke that promise: anything may be there.
            self.since_flush.clone().runs().iter().for_each(|run| self.blur(*run));
            return;
        };
        for (at, values) in &unflushed {
            self.touch(*at);
            self.live.or_into(*at, values);
        }
        // Flushing again proves nothing: a set stays one until it is written over or read.
        self.unflushed = Some(Vec::new());
    }

    /// Everything acknowledged is durable.
    pub(super) fn flushed(&mut self) {
        self.since_flush = LbaSet::new();
        if let Some(unflushed) = &mut self.unflushed {
            unflushed.clear();
        }
    }

    /// Closes the open epoch and answers how many are closed now.
    pub(super) fn cut(&mut self) -> usize {
        self.version += 1;
        // What may still land may do so in any epoch to come.
        self.touched.push(self.late.iter().map(|(at, _)| *at).collect());
        self.touched.len() - 1
    }

    /// LBAs touched in the closed epochs `from..to`.
    pub(super) fn touched_between(&self, from: usize, to: usize) -> LbaSet {
        match self.touched.get(from..to) {
            Some([one]) => one.clone(),
            Some(epochs) => epochs.iter().flat_map(LbaSet::runs).copied().collect(),
            None => LbaSet::new(),
        }
    }

    /// Changes the size: the area between the two sizes is touched and, where the target promises
    /// it, reads as zeros. Answers that area.
    pub(super) fn resize(&mut self, len: LbaCount, zeroes: bool) -> Option<Extent> {
        let (short, long) = (self.len.min(len), self.len.max(len));
        let tail = Extent::between(Lba::new(short.get()), Lba::new(long.get()));
        if let Some(tail) = tail {
            self.put(tail, &if zeroes { Values::One(Value::Zero) } else { Values::Any });
        }
        self.len = len;
        tail
    }
}
