//! A run of LBAs: non-empty and half-open. Not covered: sets with gaps ([`crate::block::LbaSet`]).

use super::units::{Lba, LbaCount};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The LBAs `start..start + len`. Never empty (an empty set is `LbaSet::new()`) and its end never
/// overflows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Extent {
    start: Lba,
    len: LbaCount,
}

/// The two numbers do not make an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("extent of {1} LBAs at LBA {0} is empty or runs past 2^64")]
pub struct BadExtent(pub u64, pub u64);

impl Extent {
    /// `len` LBAs from `start` on; `None` if empty or past 2^64.
    pub const fn new(start: Lba, len: LbaCount) -> Option<Extent> {
        if len.get() == 0 || start.checked_add(len).is_none() {
            return None;
        }
        Some(Extent { start, len })
    }
    /// The LBAs from `start` up to, not including, `end`; `None` if there are none.
    pub const fn between(start: Lba, end: Lba) -> Option<Extent> {
        if end.get() <= start.get() {
            return None;
        }
        Some(Extent { start, len: LbaCount::new(end.get() - start.get()) })
    }
    /// Literal LBAs, for tables and tests.
    ///
    /// # Panics
    /// If empty or past 2^64.
    pub const fn lbas(start: u64, len: u64) -> Extent {
        match Extent::new(Lba::new(start), LbaCount::new(len)) {
            Some(extent) => extent,
            None => panic!("an extent holds at least one LBA and ends below 2^64"),
        }
    }
    /// Literal MiB of 4 KiB LBAs, for tables and tests.
    ///
    /// # Panics
    /// If empty or past 2^64.
    pub const fn mib(start_mib: u64, len_mib: u64) -> Extent {
        Extent::lbas(LbaCount::mib(start_mib).get(), LbaCount::mib(len_mib).get())
    }
    /// The first LBA.
    pub const fn start(self) -> Lba {
        self.start
    }
    /// How many LBAs, at least one.
    pub const fn len_lbas(self) -> LbaCount {
        self.len
    }
    /// The first LBA after the extent.
    pub const fn end(self) -> Lba {
        Lba::new(self.start.get() + self.len.get())
    }
    /// The last LBA of the extent.
    pub const fn last(self) -> Lba {
        Lba::new(self.end().get() - 1)
    }
    /// Whether `lba` is one of them.
    pub const fn contains(self, lba: Lba) -> bool {
        self.start.get() <= lba.get() && lba.get() < self.end().get()
    }
    /// Whether every LBA of `other` is one of them.
    pub const fn covers(self, other: Extent) -> bool {
        self.start.get() <= other.start.get() && other.end().get() <= self.end().get()
    }
    /// The LBAs in both; `None` if none.
    pub fn intersect(self, other: Extent) -> Option<Extent> {
        Extent::between(self.start.max(other.start), self.end().min(other.end()))
    }
    /// Whether some LBA is in both.
    pub fn overlaps(self, other: Extent) -> bool {
        self.intersect(other).is_some()
    }
    /// The smallest run of whole `granule`-LBA units, aligned from LBA 0, that covers this.
    ///
    /// # Panics
    /// If `granule` is zero.
    pub fn rounded_out(self, granule: LbaCount) -> Extent {
        let granule = granule.get();
        assert!(granule > 0, "a granule holds at least one LBA");
        let start = self.start.get() / granule * granule;
        let end = self.end().get().div_ceil(granule).saturating_mul(granule);
        Extent { start: Lba::new(start), len: LbaCount::new(end - start) }
    }
    /// This extent cut into pieces of at most `max` LBAs, in order.
    ///
    /// # Panics
    /// If `max` is zero.
    pub fn pieces(self, max: LbaCount) -> impl Iterator<Item = Extent> {
        assert!(max > LbaCount::ZERO, "a piece holds at least one LBA");
        let mut at = self.start;
        std::iter::from_fn(move || {
            let left = self.end() - at;
            let piece = Extent::new(at, left.min(max))?;
            at = piece.end();
            Some(piece)
        })
    }
}

impl TryFrom<(u64, u64)> for Extent {
    type Error = BadExtent;
    fn try_from((start, len): (u64, u64)) -> Result<Extent, BadExtent> {
        Extent::new(Lba::new(start), LbaCount::new(len)).ok_or(BadExtent(start, len))
    }
}

impl From<Extent> for (u64, u64) {
    fn from(extent: Extent) -> (u64, u64) {
        (extent.start.get(), extent.len.get())
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == LbaCount::new(1) {
            write!(f, "LBA {}", self.start)
        } else {
            write!(f, "LBA {}..{}", self.start, self.last())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_or_overflowing_runs_are_not_extents() {
        assert_eq!(Extent::new(Lba::new(3), LbaCount::ZERO), None);
        assert_eq!(Extent::new(Lba::new(u64::MAX), LbaCount::new(1)), None);
        assert_eq!(Extent::between(Lba::new(4), Lba::new(4)), None);
    }

    #[test]
    fn the_golden_write_touches_five_chunks() {
        let out = Extent::lbas(250_912, 256).rounded_out(LbaCount::new(64));
        assert_eq!(out, Extent::lbas(250_880, 320));
        assert_eq!(Extent::mib(980, 1).start(), Lba::new(250_880));
    }

    proptest! {
        #[test]
        fn intersection_holds_exactly_the_common_lbas(a in 0u64..40, n in 1u64..40, b in 0u64..40, m in 1u64..40) {
            let (x, y) = (Extent::lbas(a, n), Extent::lbas(b, m));
            let both = x.intersect(y);
            for lba in (0..100).map(Lba::new) {
                let expected = x.contains(lba) && y.contains(lba);
                prop_assert_eq!(both.is_some_and(|e| e.contains(lba)), expected);
            }
        }

        #[test]
        fn pieces_tile_the_extent(a in 0u64..40, n in 1u64..200, max in 1u64..30) {
            let x = Extent::lbas(a, n);
            let mut at = x.start();
            for piece in x.pieces(LbaCount::new(max)) {
                prop_assert_eq!(piece.start(), at);
                prop_assert!(piece.len_lbas().get() <= max);
                at = piece.end();
            }
            prop_assert_eq!(at, x.end());
        }
    }
}
