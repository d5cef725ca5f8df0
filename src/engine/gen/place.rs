//! Where changes go: LBAs at the boundaries where block arithmetic goes wrong, and places that
//! other moves have touched. Not covered: what is done there (`super::change`).

use super::entropy::Entropy;
use super::world::State;
use crate::block::{CHUNK_LBAS, Extent, Lba, LbaCount, Role};

/// Positions inside a chunk where bitmaps go wrong.
const BITS: [u64; 7] = [0, 63, 31, 32, 1, 62, 33];
/// Lengths around bits, half words, chunks and two of them.
const LENS: [u64; 16] = [1, 1, 1, 2, 1, 3, 8, 1, 32, 64, 33, 65, 4, 63, 128, 130];
/// Longest extent on a sparse volume.
const SPARSE_MAX: u64 = 300;

impl State {
    /// `len` LBAs from `start` on, moved and cut to lie inside `role`.
    pub(super) fn fit(&self, role: Role, start: u64, len: u64) -> Extent {
        let end = self.vol(role).len.max(1);
        let start = start.min(end - 1);
        let len = if self.sparse { len.min(SPARSE_MAX) } else { len };
        let len = len.clamp(1, end - start);
        let extent = Extent::new(Lba::new(start), LbaCount::new(len));
        extent.unwrap_or(Extent::lbas(0, 1))
    }

    /// An extent anywhere on `role`, biased towards boundaries.
    pub(super) fn anywhere<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let end = self.vol(role).len.max(1);
        let chunks = end.div_ceil(CHUNK_LBAS);
        let start = match entropy.below(8) {
            0 => entropy.pick(&[0, 0, 1]),
            1 | 2 => entropy.pick(&self.hot),
            3 | 4 => entropy.below(chunks) * CHUNK_LBAS + entropy.pick(&BITS),
            5 => end - 1,
            6 => {
                // Around the first LBA of a later page, if every chunk before is changed.
                let page = self.page_limit * CHUNK_LBAS;
                (page * (1 + entropy.below(3))).saturating_sub(entropy.below(2))
            }
            _ => entropy.below(end),
        };
        let len = entropy.pick(&LENS);
        self.fit(role, start % end, len)
    }

    /// Over the seam of two chunks.
    pub(super) fn seam<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let chunks = self.vol(role).len.div_ceil(CHUNK_LBAS).max(2);
        let seam = (1 + entropy.below(chunks - 1)) * CHUNK_LBAS;
        let before = 1 + entropy.below(2);
        self.fit(role, seam - before, before + entropy.below(3))
    }

    /// At the very end.
    pub(super) fn tail<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let end = self.vol(role).len.max(1);
        let len = entropy.pick(&[1, 1, 2, 40, 70]);
        self.fit(role, end.saturating_sub(len), len)
    }

    /// Where the last change was, or a part of that.
    pub(super) fn again<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let (start, len) = (self.last.start().get(), self.last.len_lbas().get());
        match entropy.below(4) {
            3 => self.fit(role, start + entropy.below(len), 1),
            _ => self.fit(role, start, len),
        }
    }

    /// One LBA inside the last change, not its first.
    pub(super) fn inside<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let len = self.last.len_lbas().get();
        self.fit(role, self.last.start().get() + len / 2 + entropy.below(len.div_ceil(2)), 1)
    }

    /// Shortly after the last change.
    pub(super) fn beside<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        self.fit(role, self.last.end().get() + entropy.pick(&[1, 0, 2, 5]), 1 + entropy.below(2))
    }

    /// From just after the last change's first LBA into the next chunk.
    pub(super) fn around<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let start = self.last.end().get();
        let to_seam = CHUNK_LBAS - start % CHUNK_LBAS;
        self.fit(role, start, to_seam + entropy.pick(&[6, 1, 64, 70]))
    }

    /// More than a chunk.
    pub(super) fn big<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let chunks = self.vol(role).len.div_ceil(CHUNK_LBAS);
        let start = entropy.below(chunks.div_ceil(2)) * CHUNK_LBAS + entropy.pick(&[0, 0, 1, 31]);
        self.fit(role, start, entropy.pick(&[256, 128, 192, 200]))
    }

    /// The whole volume, or half of it.
    pub(super) fn whole<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let len = self.vol(role).len;
        match entropy.below(3) {
            2 => self.fit(role, len / 2, len),
            _ => self.fit(role, 0, len),
        }
    }

    /// Where arithmetic of 32 bits wraps: in LBAs, or in bytes of the smallest block.
    pub(super) fn high<E: Entropy>(&self, entropy: &mut E, role: Role) -> Extent {
        let end = self.vol(role).len;
        let limit = entropy.pick(&[1u64 << 32, 1 << 26]);
        let limit = if limit < end { limit } else { 1 << 26 };
        let start = match entropy.below(4) {
            0 => limit,
            1 => limit - 1,
            _ => limit + entropy.below(150),
        };
        self.fit(role, start, entropy.pick(&[1, 2, 65]))
    }

    /// Above the last grow.
    pub(super) fn above<E: Entropy>(&self, entropy: &mut E) -> Extent {
        let end = self.vol(Role::Source).len;
        let from = self.len_before_grow.min(end - 1);
        let start = match entropy.below(3) {
            0 => end - 1,
            _ => from + entropy.below(end - from),
        };
        self.fit(Role::Source, start, entropy.pick(&[1, 2, 64]))
    }
}
