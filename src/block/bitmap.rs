//! The 64-LBA bitmap of the diff answer: bytes in both orders, bits, runs.
//!
//! Bit `i` is LBA `start + i`, bit 0 least significant (`lightbits-api.md` section 3). Not covered:
//! the JSON forms the eight bytes come in; they are decoded at the border of each adapter.

use super::extent::Extent;
use super::units::{CHUNK_LBAS, Lba, LbaCount};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which LBAs of one chunk are meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkBitmap(u64);

/// Order of the eight bytes of a bitmap on the wire (`lightbits-api.md` section 9, rule 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BitmapOrder {
    /// Byte `k` carries LBAs `8k..8k+8`.
    #[default]
    Little,
    /// Byte `k` carries LBAs `56-8k..64-8k`.
    Big,
}

impl ChunkBitmap {
    /// No LBA.
    pub const EMPTY: ChunkBitmap = ChunkBitmap(0);
    /// All 64 LBAs.
    pub const FULL: ChunkBitmap = ChunkBitmap(u64::MAX);

    /// The LBAs whose bits are set in `bits`.
    pub const fn from_bits(bits: u64) -> ChunkBitmap {
        ChunkBitmap(bits)
    }
    /// The bits themselves.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Bits `first..first + len`, cut at 64.
    pub const fn run(first: u32, len: u32) -> ChunkBitmap {
        if first >= 64 || len == 0 {
            return ChunkBitmap::EMPTY;
        }
        let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
        ChunkBitmap(ones << first)
    }
    /// Reads eight wire bytes.
    pub const fn from_wire(bytes: [u8; 8], order: BitmapOrder) -> ChunkBitmap {
        ChunkBitmap(match order {
            BitmapOrder::Little => u64::from_le_bytes(bytes),
            BitmapOrder::Big => u64::from_be_bytes(bytes),
        })
    }
    /// The eight wire bytes.
    pub const fn to_wire(self, order: BitmapOrder) -> [u8; 8] {
        match order {
            BitmapOrder::Little => self.0.to_le_bytes(),
            BitmapOrder::Big => self.0.to_be_bytes(),
        }
    }
    /// The same bitmap read with the eight bytes in the other order.
    pub const fn byte_swapped(self) -> ChunkBitmap {
        ChunkBitmap(self.0.swap_bytes())
    }
    /// Whether no LBA is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many LBAs are set.
    pub const fn count(self) -> LbaCount {
        LbaCount::new(self.0.count_ones() as u64)
    }
    /// The set LBAs as maximal runs `(first bit, length)`, ascending.
    pub fn runs(self) -> impl Iterator<Item = (u32, u32)> {
        let mut rest = self.0;
        let mut at = 0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let skip = rest.trailing_zeros();
            rest >>= skip;
            let len = rest.trailing_ones();
            let first = at + skip;
            // A shift by 64 is not defined; a full chunk ends the walk.
            rest = if len == 64 { 0 } else { rest >> len };
            at = first + len;
            Some((first, len))
        })
    }
    /// The set LBAs of the chunk that starts at `start`, as extents; runs past 2^64 are left out.
    pub fn extents(self, start: Lba) -> impl Iterator<Item = Extent> {
        self.runs().filter_map(move |(first, len)| {
            let first = start.checked_add(LbaCount::new(u64::from(first)))?;
            Extent::new(first, LbaCount::new(u64::from(len)))
        })
    }
    /// The bits of the chunk at `chunk_start` that lie inside `extent`.
    pub fn of_extent(chunk_start: Lba, extent: Extent) -> ChunkBitmap {
        // The very last chunk has 63 LBAs here: no extent holds LBA 2^64 - 1.
        let end = chunk_start.get().saturating_add(CHUNK_LBAS);
        let chunk = Extent::between(chunk_start, Lba::new(end));
        chunk.and_then(|chunk| chunk.intersect(extent)).map_or(ChunkBitmap::EMPTY, |part| {
            ChunkBitmap::run(bit_index(part.start() - chunk_start), bit_index(part.len_lbas()))
        })
    }
}

/// A distance inside one chunk as a bit number.
fn bit_index(len: LbaCount) -> u32 {
    u32::try_from(len.get()).unwrap_or(u32::MAX)
}

impl fmt::Debug for ChunkBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkBitmap({:#018x})", self.0)
    }
}

impl fmt::Display for ChunkBitmap {
    /// 64 characters, bit 0 first: `#` set, `.` clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in 0..64 {
            f.write_str(if self.0 >> bit & 1 == 1 { "#" } else { "." })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_very_last_chunk_holds_what_an_extent_can_hold_of_it() {
        let start = Lba::new(u64::MAX - 63);
        let all = Extent::between(Lba::new(0), Lba::new(u64::MAX)).expect("not empty");
        assert_eq!(ChunkBitmap::of_extent(start, all), ChunkBitmap::run(0, 63));
        let one = Extent::new(start + LbaCount::new(5), LbaCount::new(1)).expect("inside");
        assert_eq!(ChunkBitmap::of_extent(start, one), ChunkBitmap::run(5, 1));
        assert_eq!(ChunkBitmap::of_extent(start, Extent::lbas(0, 64)), ChunkBitmap::EMPTY);
    }

    #[test]
    fn bits_32_to_63_are_the_literal_wire_bytes() {
        let upper = ChunkBitmap::run(32, 32);
        assert_eq!(upper.to_wire(BitmapOrder::Little), [0, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(upper.to_wire(BitmapOrder::Big), [255, 255, 255, 255, 0, 0, 0, 0]);
        let one = ChunkBitmap::run(1, 1);
        assert_eq!(one.to_wire(BitmapOrder::Little), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(one.to_wire(BitmapOrder::Big), [0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn the_golden_write_sets_upper_half_three_full_lower_half() {
        let write = Extent::lbas(250_912, 256);
        let bits = |chunk: u64| ChunkBitmap::of_extent(Lba::new(chunk * 64), write);
        assert_eq!(bits(3919), ChunkBitmap::EMPTY);
        assert_eq!(bits(3920), ChunkBitmap::from_bits(0xffff_ffff_0000_0000));
        assert_eq!([bits(3921), bits(3922), bits(3923)], [ChunkBitmap::FULL; 3]);
        assert_eq!(bits(3924), ChunkBitmap::from_bits(0x0000_0000_ffff_ffff));
        assert_eq!(bits(3925), ChunkBitmap::EMPTY);
    }

    proptest! {
        #[test]
        fn runs_are_the_set_bits_and_maximal(bits: u64) {
            let mut seen = 0u64;
            let mut last_end = None;
            for (first, len) in ChunkBitmap::from_bits(bits).runs() {
                prop_assert!(last_end.is_none_or(|end| first > end), "runs touch or go back");
                for bit in first..first + len {
                    seen |= 1 << bit;
                }
                last_end = Some(first + len);
            }
            prop_assert_eq!(seen, bits);
        }

        #[test]
        fn both_byte_orders_round_trip_and_mirror_each_other(bits: u64) {
            let map = ChunkBitmap::from_bits(bits);
            for order in [BitmapOrder::Little, BitmapOrder::Big] {
                prop_assert_eq!(ChunkBitmap::from_wire(map.to_wire(order), order), map);
            }
            let crossed = ChunkBitmap::from_wire(map.to_wire(BitmapOrder::Big), BitmapOrder::Little);
            prop_assert_eq!(crossed, map.byte_swapped());
            for lba in 0..64usize {
                let set = map.to_wire(BitmapOrder::Little)[lba / 8] >> (lba % 8) & 1 == 1;
                prop_assert_eq!(set, bits >> lba & 1 == 1);
            }
        }

        #[test]
        fn the_picture_has_one_character_a_bit(bits: u64) {
            let picture = ChunkBitmap::from_bits(bits).to_string();
            prop_assert_eq!(picture.len(), 64);
            for (bit, mark) in picture.chars().enumerate() {
                prop_assert_eq!(mark == '#', bits >> bit & 1 == 1);
            }
        }
    }
}
