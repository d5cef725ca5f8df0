//! Contents of one volume and its snapshots: a sparse map of units, copied on write.
//!
//! A unit is 4 LBAs, a sixteenth of the 64-LBA chunk that tracking speaks of. Only units that were
//! written take memory, so a 64 TiB volume costs nothing. A snapshot keeps a unit's old contents
//! when the live unit is first written after its cut. Not covered: what changed (`tracking`), sizes
//! and bounds (`volume`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// LBAs of one unit of storage: small enough that copying one on write is cheap.
const UNIT_LBAS: usize = 4;

/// Contents of one unit; shared between the volume, its snapshots and its clones.
type Unit = Arc<[u8]>;

/// Contents of a volume now and at each of its snapshots.
#[derive(Debug)]
pub(super) struct Store {
    unit_bytes: usize,
    /// What the volume holds; a unit that is missing reads as zeros.
    pub(super) live: BTreeMap<u64, Unit>,
    /// What snapshots still need, in order of their cuts.
    pub(super) kept: Vec<Kept>,
    /// Whether writes leave snapshots alone; only a planted bug says no.
    freezes: bool,
}

/// What was overwritten after one snapshot and before the next; `None` was a hole.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) cut: u64,
    pub(super) units: BTreeMap<u64, Option<Unit>>,
}

/// One stretch of bytes inside one unit.
struct Piece {
    unit: u64,
    inside: std::ops::Range<usize>,
    /// Where the stretch starts in the caller's buffer.
    buf_at: usize,
}

/// The pieces of `len` bytes from byte `at`, unit by unit.
fn pieces(unit_bytes: usize, at: u64, len: usize) -> impl Iterator<Item = Piece> {
    let size = unit_bytes as u64;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let here = at + done as u64;
        // The remainder is less than unit_bytes, which is a usize.
        let start = usize::try_from(here % size).unwrap_or(0);
        let part = (unit_bytes - start).min(len - done);
        let piece = Piece { unit: here / size, inside: start..start + part, buf_at: done };
        done += part;
        Some(piece)
    })
}

impl Store {
    /// An empty volume: all zeros.
    pub(super) fn new(block_bytes: usize, freezes: bool) -> Store {
        Store {
            unit_bytes: block_bytes * UNIT_LBAS,
            live: BTreeMap::new(),
            kept: Vec::new(),
            freezes,
        }
    }

    /// Fills `buf` with what the volume holds from byte `at`.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) {
        // Most of a volume is holes: one pass over what there is, not a search for each unit.
        buf.fill(0);
        let (size, end) = (self.unit_bytes as u64, at + buf.len() as u64);
        for (&unit, bytes) in self.live.range(at / size..end.div_ceil(size)) {
            let start = unit * size;
            let (from, to) = (at.max(start), end.min(start + size));
            // Each is less than the buffer or the unit is long.
            let place = |byte: u64, base: u64| usize::try_from(byte - base).unwrap_or(0);
            buf[place(from, at)..place(to, at)]
                .copy_from_slice(&bytes[place(from, start)..place(to, start)]);
        }
    }

    /// Fills `buf` with what the snapshot cut as number `cut` holds from byte `at`.
    pub(super) fn read_at_cut(&self, cut: u64, at: u64, buf: &mut [u8]) {
        let since = self.since(cut);
        for piece in pieces(self.unit_bytes, at, buf.len()) {
            fill(buf, &piece, self.unit_since(since, piece.unit));
        }
    }

    /// Stores `buf` from byte `at`.
    pub(super) fn write(&mut self, at: u64, buf: &[u8]) {
        for piece in pieces(self.unit_bytes, at, buf.len()) {
            self.keep(piece.unit);
            let new = &buf[piece.buf_at..piece.buf_at + piece.inside.len()];
            let whole = new.len() == self.unit_bytes;
            match self.live.get_mut(&piece.unit) {
                // A shared unit that is wholly overwritten need not be copied first.
                Some(unit) if whole && Arc::strong_count(unit) > 1 => *unit = new_unit(new),
                Some(unit) => Arc::make_mut(unit)[piece.inside].copy_from_slice(new),
                None if whole => {
                    self.live.insert(piece.unit, new_unit(new));
                }
                None => {
                    let mut unit: Unit = std::iter::repeat_n(0, self.unit_bytes).collect();
                    Arc::make_mut(&mut unit)[piece.inside].copy_from_slice(new);
                    self.live.insert(piece.unit, unit);
                }
            }
        }
    }

    /// Makes the bytes `at..end` read as zeros. Takes time by what is stored, not by the range.
    pub(super) fn zero(&mut self, at: u64, end: u64) {
        let size = self.unit_bytes as u64;
        let touched: Vec<u64> =
            self.live.range(at / size..end.div_ceil(size)).map(|(&c, _)| c).collect();
        for unit in touched {
            self.keep(unit);
            let start = usize::try_from(at.saturating_sub(unit * size)).unwrap_or(0);
            let stop = usize::try_from((end - unit * size).min(size)).unwrap_or(self.unit_bytes);
            if start == 0 && stop == self.unit_bytes {
                self.live.remove(&unit);
            } else if let Some(bytes) = self.live.get_mut(&unit) {
                Arc::make_mut(bytes)[start..stop].fill(0);
            }
        }
    }

    /// From here on the present contents belong to the snapshot `cut`; numbers only grow.
    pub(super) fn cut(&mut self, cut: u64) {
        self.kept.push(Kept { cut, units: BTreeMap::new() });
    }

    /// Forgets a snapshot; what older ones need of it is handed down.
    pub(super) fn forget(&mut self, cut: u64) {
        let place = self.since(cut);
        if self.kept.get(place).is_none_or(|kept| kept.cut != cut) {
            return;
        }
        let gone = self.kept.remove(place);
        if let Some(older) = place.checked_sub(1).and_then(|before| self.kept.get_mut(before)) {
            for (unit, bytes) in gone.units {
                older.units.entry(unit).or_insert(bytes);
            }
        }
    }

    /// Puts the volume back to the contents of the snapshot `cut`.
    pub(super) fn roll_back(&mut self, cut: u64) {
        let since = self.since(cut);
        let touched: BTreeSet<u64> =
            self.kept[since..].iter().flat_map(|kept| kept.units.keys().copied()).collect();
        for unit in touched {
            let old = self.unit_since(since, unit).cloned();
            self.keep(unit);
            self.set(unit, old);
        }
    }

    /// A volume of its own with the contents of the snapshot `cut`; units are shared until written.
    pub(super) fn clone_at_cut(&self, cut: u64) -> Store {
        let since = self.since(cut);
        let mut live = self.live.clone();
        let touched = self.kept[since..].iter().flat_map(|kept| kept.units.keys());
        for &unit in touched {
            match self.unit_since(since, unit) {
                Some(bytes) => live.insert(unit, Arc::clone(bytes)),
                None => live.remove(&unit),
            };
        }
        Store { unit_bytes: self.unit_bytes, live, kept: Vec::new(), freezes: self.freezes }
    }

    /// Place of the first snapshot whose number is at least `cut`.
    fn since(&self, cut: u64) -> usize {
        self.kept.partition_point(|kept| kept.cut < cut)
    }

    /// A unit as the snapshot at place `since` holds it.
    pub(super) fn unit_since(&self, since: usize, unit: u64) -> Option<&Unit> {
        let kept = self.kept[since..].iter().find_map(|kept| kept.units.get(&unit));
        kept.map_or_else(|| self.live.get(&unit), Option::as_ref)
    }

    /// Saves a unit for the newest snapshot, unless it has it already.
    fn keep(&mut self, unit: u64) {
        if !self.freezes {
            return;
        }
        if let Some(newest) = self.kept.last_mut() {
            newest.units.entry(unit).or_insert_with(|| self.live.get(&unit).cloned());
        }
    }

    fn set(&mut self, unit: u64, bytes: Option<Unit>) {
        match bytes {
            Some(bytes) => self.live.insert(unit, bytes),
            None => self.live.remove(&unit),
        };
    }
}

fn new_unit(bytes: &[u8]) -> Unit {
    Arc::from(bytes)
}

fn fill(buf: &mut [u8], piece: &Piece, unit: Option<&Unit>) {
    let part = &mut buf[piece.buf_at..piece.buf_at + piece.inside.len()];
    match unit {
        Some(bytes) => part.copy_from_slice(&bytes[piece.inside.clone()]),
        None => part.fill(0),
    }
}
