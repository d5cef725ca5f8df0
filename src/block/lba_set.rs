//! A set of LBAs as sorted, disjoint, non-touching extents.
//!
//! Sized by its runs, never by the volume. Not covered: values attached to LBAs (`crate::model`).

use super::bitmap::ChunkBitmap;
use super::extent::Extent;
use super::units::{CHUNK_LBAS, Lba, LbaCount};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// A set of LBAs. Invariant: `runs` ascend and no two touch or overlap.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Extent>", into = "Vec<Extent>")]
pub struct LbaSet {
    runs: Runs,
}

/// A few runs need no memory of their own: most sets have no more.
type Runs = SmallVec<[Extent; 4]>;

impl LbaSet {
    /// The empty set.
    pub const fn new() -> LbaSet {
        LbaSet { runs: SmallVec::new_const() }
    }
    /// The empty set, with room for that many runs.
    pub fn with_capacity(runs: usize) -> LbaSet {
        LbaSet { runs: Runs::with_capacity(runs) }
    }
    /// The maximal runs, ascending.
    pub fn runs(&self) -> &[Extent] {
        &self.runs
    }
    /// Whether no LBA is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
    /// How many LBAs are in it.
    pub fn count(&self) -> LbaCount {
        self.runs.iter().map(|run| run.len_lbas()).sum()
    }
    /// Whether `lba` is in it.
    pub fn contains(&self, lba: Lba) -> bool {
        let after = self.runs.partition_point(|run| run.end() <= lba);
        self.runs.get(after).is_some_and(|run| run.contains(lba))
    }
    /// Whether every LBA of `extent` is in it.
    pub fn covers(&self, extent: Extent) -> bool {
        let after = self.runs.partition_point(|run| run.end() <= extent.start());
        self.runs.get(after).is_some_and(|run| run.covers(extent))
    }
    /// Whether some LBA of `extent` is in it.
    pub fn overlaps(&self, extent: Extent) -> bool {
        let after = self.runs.partition_point(|run| run.end() <= extent.start());
        self.runs.get(after).is_some_and(|run| run.overlaps(extent))
    }
    /// Adds every LBA of `extent`; appending in ascending order costs amortised O(1).
    pub fn insert(&mut self, extent: Extent) {
        // The usual case of who adds in order.
        if self.runs.last().is_none_or(|last| last.end() < extent.start()) {
            self.runs.push(extent);
            return;
        }
        // Runs that touch count as overlapping here, so that the invariant holds.
        let from = self.runs.partition_point(|run| run.end() < extent.start());
        let to = from + self.runs[from..].partition_point(|run| run.start() <= extent.end());
        if from == to {
            self.runs.insert(from, extent);
            return;
        }
        let start = self.runs[from].start().min(extent.start());
        let end = self.runs[to - 1].end().max(extent.end());
        if let Some(merged) = Extent::between(start, end) {
            self.runs[from] = merged;
            self.runs.drain(from + 1..to);
        }
    }
    /// Adds an extent that starts at or after the start of the last run.
    fn append(&mut self, extent: Extent) {
        if let Some(last) = self.runs.last_mut().filter(|last| extent.start() <= last.end()) {
            *last = Extent::between(last.start(), last.end().max(extent.end())).unwrap_or(*last);
        } else {
            self.runs.push(extent);
        }
    }
    /// Adds the set bits of the chunk at `start`.
    pub fn insert_chunk(&mut self, start: Lba, bits: ChunkBitmap) {
        for extent in bits.extents(start) {
            self.insert(extent);
        }
    }
    /// LBAs in either.
    pub fn union(&self, other: &LbaSet) -> LbaSet {
        let mut merged = LbaSet { runs: Runs::with_capacity(self.runs.len() + other.runs.len()) };
        let (mut ours, mut theirs) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        while let Some(first) = match (ours.peek(), theirs.peek()) {
            (Some(a), Some(b)) if a.start() <= b.start() => ours.next(),
            (_, Some(_)) => theirs.next(),
            (_, None) => ours.next(),
        } {
            merged.append(*first);
        }
        merged
    }
    /// LBAs in both.
    pub fn intersection(&self, other: &LbaSet) -> LbaSet {
        let mut runs = Runs::new();
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.runs.get(i), other.runs.get(j)) {
            runs.extend(a.intersect(*b));
            if a.end() <= b.end() {
                i += 1;
            } else {
                j += 1;
            }
        }
        LbaSet { runs }
    }
    /// LBAs in `self` that are not in `other`.
    pub fn difference(&self, other: &LbaSet) -> LbaSet {
        let mut runs = Runs::new();
        let mut j = 0;
        for run in &self.runs {
            let mut at = run.start();
            while other.runs.get(j).is_some_and(|hole| hole.end() <= at) {
                j += 1;
            }
            let mut k = j;
            while let Some(hole) = other.runs.get(k).filter(|hole| hole.start() < run.end()) {
                runs.extend(Extent::between(at, hole.start()));
                at = at.max(hole.end());
                k += 1;
            }
            runs.extend(Extent::between(at, run.end()));
        }
        LbaSet { runs }
    }
    /// LBAs in it that lie inside `extent`.
    pub fn within(&self, extent: Extent) -> LbaSet {
        let from = self.runs.partition_point(|run| run.end() <= extent.start());
        let inside = self.runs[from..].iter().map_while(|run| run.intersect(extent));
        LbaSet { runs: inside.collect() }
    }
    /// As [`LbaSet::within`], of a set that is not needed any more.
    pub fn into_within(self, extent: Extent) -> LbaSet {
        let inside = match (self.runs.first(), self.runs.last()) {
            (Some(first), Some(last)) => {
                extent.start() <= first.start() && last.end() <= extent.end()
            }
            _ => true,
        };
        if inside { self } else { self.within(extent) }
    }
    /// The smallest set of whole `granule`-LBA units, aligned from LBA 0, that covers it.
    ///
    /// # Panics
    /// If `granule` is zero.
    pub fn rounded_out(&self, granule: LbaCount) -> LbaSet {
        self.runs.iter().map(|run| run.rounded_out(granule)).collect()
    }
    /// The set as chunk bitmaps, ascending, without empty ones.
    pub fn chunks(&self) -> Vec<(Lba, ChunkBitmap)> {
        let mut chunks: Vec<(Lba, ChunkBitmap)> = Vec::new();
        for run in &self.runs {
            let whole = run.rounded_out(LbaCount::new(CHUNK_LBAS));
            for chunk in whole.pieces(LbaCount::new(CHUNK_LBAS)) {
                let bits = ChunkBitmap::of_extent(chunk.start(), *run).bits();
                match chunks.last_mut() {
                    Some((start, last)) if *start == chunk.start() => {
                        *last = ChunkBitmap::from_bits(last.bits() | bits);
                    }
                    _ => chunks.push((chunk.start(), ChunkBitmap::from_bits(bits))),
                }
            }
        }
        chunks
    }
}

impl From<Vec<Extent>> for LbaSet {
    /// Any extents in any order; overlaps are merged.
    fn from(mut extents: Vec<Extent>) -> LbaSet {
        extents.sort_unstable();
        let mut set = LbaSet { runs: Runs::with_capacity(extents.len()) };
        for extent in extents {
            set.append(extent);
        }
        set
    }
}

impl From<LbaSet> for Vec<Extent> {
    fn from(set: LbaSet) -> Vec<Extent> {
        set.runs.into_vec()
    }
}

impl From<Extent> for LbaSet {
    fn from(extent: Extent) -> LbaSet {
        LbaSet { runs: smallvec![extent] }
    }
}

impl FromIterator<Extent> for LbaSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(iter: I) -> LbaSet {
        let mut runs: Runs = iter.into_iter().collect();
        runs.sort_unstable();
        // Joins what touches, in place.
        runs.dedup_by(|next, last| match next.start() <= last.end() {
            true => {
                *last = Extent::between(last.start(), last.end().max(next.end())).unwrap_or(*last);
                true
            }
            false => false,
        });
        LbaSet { runs }
    }
}

impl fmt::Debug for LbaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.runs.iter().map(|run| (run.start().get(), run.end().get())))
            .finish()
    }
}

impl fmt::Display for LbaSet {
    /// At most four runs, then how many more: `LBA 3, LBA 7..9 and 12 more runs`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        if self.runs.is_empty() {
            return f.write_str("no LBA");
        }
        for (i, run) in self.runs.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{run}")?;
        }
        if self.runs.len() > SHOWN {
            write!(f, " and {} more runs", self.runs.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The brute-force twin: one entry an LBA.
    type Naive = BTreeSet<u64>;

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        prop::collection::vec((0u64..300, 1u64..40).prop_map(|(a, n)| Extent::lbas(a, n)), 0..12)
    }

    fn naive(extents: &[Extent]) -> Naive {
        extents.iter().flat_map(|e| e.start().get()..e.end().get()).collect()
    }

    #[track_caller]
    fn check(set: &LbaSet, twin: &Naive) {
        let spelled: Naive = naive(set.runs());
        assert_eq!(&spelled, twin);
        assert_eq!(set.count().get(), twin.len() as u64);
        for pair in set.runs().windows(2) {
            assert!(pair[0].end() < pair[1].start(), "runs touch: {set:?}");
        }
    }

    proptest! {
        #[test]
        fn set_algebra_agrees_with_one_entry_per_lba(a in extents(), b in extents(), w in (0u64..300, 1u64..80)) {
            let (x, y) = (a.iter().copied().collect::<LbaSet>(), b.iter().copied().collect::<LbaSet>());
            let (p, q) = (naive(&a), naive(&b));
            check(&x, &p);
            check(&x.union(&y), &p.union(&q).copied().collect());
            check(&x.intersection(&y), &p.intersection(&q).copied().collect());
            check(&x.difference(&y), &p.difference(&q).copied().collect());
            let window = Extent::lbas(w.0, w.1);
            let inside: Naive = p.iter().copied().filter(|&l| window.contains(Lba::new(l))).collect();
            check(&x.within(window), &inside);
            check(&x.clone().into_within(window), &inside);
            prop_assert_eq!(x.covers(window), inside.len() as u64 == window.len_lbas().get());
            prop_assert_eq!(x.overlaps(window), !inside.is_empty());
        }

        #[test]
        fn inserting_in_any_order_gives_the_same_set(a in extents()) {
            let mut one_by_one = LbaSet::new();
            for extent in &a {
                one_by_one.insert(*extent);
                prop_assert!(one_by_one.covers(*extent));
            }
            prop_assert_eq!(&one_by_one, &LbaSet::from(a.clone()));
            for lba in 0..400 {
                prop_assert_eq!(one_by_one.contains(Lba::new(lba)), naive(&a).contains(&lba));
            }
        }

        #[test]
        fn chunks_carry_exactly_the_same_lbas(a in extents()) {
            let set = LbaSet::from(a);
            let mut back = LbaSet::new();
            let mut last = None;
            for (start, bits) in set.chunks() {
                prop_assert!(!bits.is_empty() && start.bit() == 0);
                prop_assert!(last.is_none_or(|l| l < start));
                last = Some(start);
                back.insert_chunk(start, bits);
            }
            prop_assert_eq!(back, set);
        }

        #[test]
        fn rounding_out_marks_the_granules_that_hold_an_lba(a in extents(), granule in 1u64..20) {
            let set = LbaSet::from(a.clone());
            let twin: Naive = naive(&a).iter().flat_map(|l| l / granule * granule..(l / granule + 1) * granule).collect();
            check(&set.rounded_out(LbaCount::new(granule)), &twin);
        }
    }

    #[test]
    fn a_long_set_is_shown_by_its_first_runs() {
        let set: LbaSet = (0..6).map(|i| Extent::lbas(i * 10, 1 + i)).collect();
        assert_eq!(set.to_string(), "LBA 0, LBA 10..11, LBA 20..22, LBA 30..33 and 2 more runs");
        assert_eq!(LbaSet::new().to_string(), "no LBA");
    }
}
