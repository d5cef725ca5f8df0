//! One volume of the shadow model: what it holds now, and which LBAs each epoch could have touched.
//! An epoch ends when a snapshot is taken, so any pair of snapshots can be asked for; a map of the
//! *last* writer could not answer that. Not covered: snapshots, and what an operation means
//! (`super::Model`).

use super::values::{Value, ValueMap, Values};
use crate::block::{Extent, Lba, LbaCount, LbaSet, Role};

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    pub(super) len: LbaCount,
    pub(super) fresh: bool,
    pub(super) live: ValueMap,
    /// LBAs that operations could have touched, by epoch; the last one is open.
    pub(super) touched: Vec<LbaSet>,
    /// LBAs written since the last good flush.
    pub(super) unflushed: LbaSet,
    /// LBAs whose failed writes may still land, at any later time, over anything.
    pub(super) unfenced: LbaSet,
    /// Rollbacks so far: pairs across one may be related or not.
    pub(super) rollbacks: u32,
    /// Which volume of this role it is: a volume that was deleted and made again is another one.
    pub(super) incarnation: u32,
    /// Counts everything that could change a diff of this volume.
    pub(super) version: u64,
}

impl Volume {
    pub(super) fn new(role: Role, len: LbaCount, fresh: bool, incarnation: u32) -> Volume {
        let start = if fresh { Value::Zero } else { Value::Old(role) };
        Volume {
            len,
            fresh,
            live: ValueMap::new(Values::One(start)),
            touched: vec![LbaSet::new()],
            unflushed: LbaSet::new(),
            unfenced: LbaSet::new(),
            rollbacks: 0,
            incarnation,
            version: 0,
        }
    }

    /// The whole volume; `None` if it has no LBA.
    pub(super) fn whole(&self) -> Option<Extent> {
        Extent::new(Lba::new(0), self.len)
    }

    pub(super) fn touch(&mut self, at: Extent) {
        self.version += 1;
        self.unflushed.insert(at);
        if let Some(open) = self.touched.last_mut() {
            open.insert(at);
        }
    }

    pub(super) fn put(&mut self, at: Extent, values: &Values) {
        self.touch(at);
        self.live.set(at, values.clone());
        for late in self.unfenced.within(at).runs() {
            self.live.set(*late, Values::Any);
        }
    }

    /// The LBAs hold anything from now on, and may count as touched.
    pub(super) fn blur(&mut self, at: Extent) {
        self.put(at, &Values::Any);
    }

    /// Changes each run of values over `at`.
    pub(super) fn change(&mut self, at: Extent, change: impl Fn(&Values) -> Values) {
        self.touch(at);
        let tiles: Vec<(Extent, Values)> =
            self.live.over(at).into_iter().map(|(tile, old)| (tile, change(old))).collect();
        for (tile, values) in tiles {
            self.live.set(tile, values);
        }
    }

    /// Closes the open epoch and answers how many are closed now.
    pub(super) fn cut(&mut self) -> usize {
        self.version += 1;
        self.touched.push(LbaSet::new());
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
    /// it, reads as zeros.
    pub(super) fn resize(&mut self, len: LbaCount, zeroes: bool) {
        let (short, long) = (self.len.min(len), self.len.max(len));
        if let Some(tail) = Extent::between(Lba::new(short.get()), Lba::new(long.get())) {
            self.put(tail, &if zeroes { Values::One(Value::Zero) } else { Values::Any });
        }
        self.len = len;
    }
}
