//! What a block may hold: sets of possible values, and a map from LBAs to them.
//!
//! Not covered: bytes. A value is compared by what it *is*, never by its contents.

use crate::block::{Extent, Lba, LbaCount, LbaSet, Role};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// One possible value of an LBA (`oracle.md` section 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Value {
    /// All zeros.
    Zero,
    /// Whatever the LBA of this volume held before the run: unknown, but the same all along.
    Old(Role),
    /// The block that write `generation` of this run put there.
    Stamp {
        /// The volume it was written to first (a sync carries it to the target unchanged).
        role: Role,
        /// The write.
        generation: u64,
    },
}

impl Value {
    /// Whether the two can be the same bytes at one LBA. Old data may happen to be zeros, and the
    /// old data of two volumes may happen to agree; a stamp of this run is like nothing else.
    fn may_equal(self, other: Value) -> bool {
        let unknown = |value| matches!(value, Value::Zero | Value::Old(_));
        self == other || (unknown(self) && unknown(other))
    }
}

/// The values an LBA may hold. A certain content is a set of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Values {
    /// Certain.
    One(Value),
    /// One of these: at least two, ascending.
    Several(Box<[Value]>),
    /// Anything: torn, or undefined by the target's own promise.
    Any,
}

impl Values {
    /// The only value, if it is certain.
    pub fn certain(&self) -> Option<Value> {
        match self {
            Values::One(value) => Some(*value),
            Values::Several(_) | Values::Any => None,
        }
    }
    /// The possible values; `None` if anything is.
    pub fn as_slice(&self) -> Option<&[Value]> {
        match self {
            Values::One(value) => Some(std::slice::from_ref(value)),
            Values::Several(values) => Some(values),
            Values::Any => None,
        }
    }
    /// Whether no possible value of one can equal a possible value of the other: then the LBA has
    /// certainly changed.
    pub fn certainly_differ(&self, other: &Values) -> bool {
        match (self.as_slice(), other.as_slice()) {
            (Some(a), Some(b)) => !a.iter().any(|x| b.iter().any(|y| x.may_equal(*y))),
            _ => false,
        }
    }
    /// Either of the two sets.
    pub fn or(&self, other: &Values) -> Values {
        let (Some(a), Some(b)) = (self.as_slice(), other.as_slice()) else { return Values::Any };
        let mut all: Vec<Value> = a.iter().chain(b).copied().collect();
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [one] => Values::One(*one),
            _ => Values::Several(all.into_boxed_slice()),
        }
    }
}

/// Values by LBA: sorted, disjoint runs, and one default for all the rest. Sized by its runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValueMap {
    runs: Vec<(Extent, Values)>,
    rest: Values,
}

impl ValueMap {
    /// Every LBA holds `rest`.
    pub fn new(rest: Values) -> ValueMap {
        ValueMap { runs: Vec::new(), rest }
    }
    /// Every LBA of `at` holds `values` from now on.
    pub fn set(&mut self, at: Extent, values: Values) {
        let from = self.runs.partition_point(|(run, _)| run.end() <= at.start());
        let to = from + self.runs[from..].partition_point(|(run, _)| run.start() < at.end());
        match &mut self.runs[from..to] {
            // Nothing there yet, or just this: no other run is concerned.
            [] => {
                self.runs.insert(from, (at, values));
                return;
            }
            [(run, old)] if *run == at => {
                *old = values;
                return;
            }
            _ => {}
        }
        let mut new: SmallVec<[(Extent, Values); 3]> = SmallVec::new();
        if let Some((run, old)) = self.runs[from..to].first() {
            new.extend(Extent::between(run.start(), at.start()).map(|head| (head, old.clone())));
        }
        new.push((at, values));
        if let Some((run, old)) = self.runs[from..to].last() {
            new.extend(Extent::between(at.end(), run.end()).map(|tail| (tail, old.clone())));
        }
        self.runs.splice(from..to, new);
    }
    /// Every LBA of `at` holds what it may hold already, or one of `values`.
    pub fn or_into(&mut self, at: Extent, values: &Values) {
        let tiles: Vec<(Extent, Values)> =
            self.over(at).map(|(tile, old)| (tile, old.or(values))).collect();
        for (tile, values) in tiles {
            self.set(tile, values);
        }
    }
    /// LBAs of `within` at which the two maps certainly differ.
    pub fn certain_differences(&self, other: &ValueMap, within: &LbaSet) -> LbaSet {
        let mut differ = LbaSet::new();
        for run in within.runs() {
            let (mut ours, mut theirs) = (self.over(*run), other.over(*run));
            let (mut here, mut there) = (ours.next(), theirs.next());
            while let (Some((a, mine)), Some((b, other))) = (&here, &there) {
                if mine.certainly_differ(other)
                    && let Some(both) = a.intersect(*b)
                {
                    differ.insert(both);
                }
                // The shorter tile is done; where both end, both are.
                let (end_a, end_b) = (a.end(), b.end());
                if end_a <= end_b {
                    here = ours.next();
                }
                if end_b <= end_a {
                    there = theirs.next();
                }
            }
        }
        differ
    }
    /// The values over `at`: runs that tile it, in order.
    pub fn over(&self, at: Extent) -> impl Iterator<Item = (Extent, &Values)> {
        let from = self.runs.partition_point(|(run, _)| run.end() <= at.start());
        let mut runs = self.runs[from..].iter();
        let mut next = at.start();
        let mut pending: Option<(Extent, &Values)> = None;
        std::iter::from_fn(move || {
            if let Some(tile) = pending.take() {
                return Some(tile);
            }
            let here = runs.next().and_then(|(run, values)| Some((run.intersect(at)?, values)));
            let Some((part, values)) = here else {
                let gap = Extent::between(next, at.end());
                next = at.end();
                return gap.map(|gap| (gap, &self.rest));
            };
            let gap = Extent::between(next, part.start());
            next = part.end();
            match gap {
                Some(gap) => {
                    pending = Some((part, values));
                    Some((gap, &self.rest))
                }
                None => Some((part, values)),
            }
        })
    }
    /// The values of one LBA.
    pub fn at(&self, lba: Lba) -> &Values {
        let after = self.runs.partition_point(|(run, _)| run.end() <= lba);
        match self.runs.get(after) {
            Some((run, values)) if run.contains(lba) => values,
            _ => &self.rest,
        }
    }
    /// The runs that hold something else than the default, cut at `len`.
    pub fn known(&self, len: LbaCount) -> impl Iterator<Item = (Extent, &Values)> {
        let end = Lba::new(len.get());
        self.runs.iter().filter_map(move |(run, values)| {
            Some((Extent::between(run.start(), run.end().min(end))?, values))
        })
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the brute-force twin indexes a small array")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(generation: u64) -> Values {
        Values::One(Value::Stamp { role: Role::Source, generation })
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_one_entry_per_lba(writes in prop::collection::vec((0u64..60, 1u64..30), 0..20), window in (0u64..60, 1u64..60)) {
            let mut map = ValueMap::new(Values::One(Value::Zero));
            let mut naive = vec![Values::One(Value::Zero); 200];
            for (generation, &(at, len)) in writes.iter().enumerate() {
                map.set(Extent::lbas(at, len), stamp(generation as u64));
                naive[at as usize..(at + len) as usize].fill(stamp(generation as u64));
            }
            let window = Extent::lbas(window.0, window.1);
            let mut next = window.start();
            for (tile, values) in map.over(window) {
                prop_assert_eq!(tile.start(), next);
                for lba in tile.start().get()..tile.end().get() {
                    prop_assert_eq!(values, &naive[lba as usize]);
                    prop_assert_eq!(map.at(Lba::new(lba)), values);
                }
                next = tile.end();
            }
            prop_assert_eq!(next, window.end());
        }
    }

    #[test]
    fn only_certain_changes_count_as_changes() {
        let zero = Values::One(Value::Zero);
        let old = Values::One(Value::Old(Role::Source));
        assert!(stamp(1).certainly_differ(&stamp(2)));
        assert!(stamp(1).certainly_differ(&old) && stamp(1).certainly_differ(&zero));
        assert!(!old.certainly_differ(&zero), "old data may have been zeros");
        assert!(!old.certainly_differ(&old) && !zero.certainly_differ(&zero));
        assert!(!stamp(1).certainly_differ(&Values::Any));
        let either = stamp(1).or(&old);
        assert!(either.certainly_differ(&stamp(2)) && !either.certainly_differ(&stamp(1)));
        assert_eq!(stamp(1).or(&stamp(1)), stamp(1));
    }
}
