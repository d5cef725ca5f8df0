//! Units of block addressing, each its own type so that they cannot be mixed.
//!
//! One LBA is one tracked block. On devices it is 4096 bytes (`lightbits-api.md` section 3); the
//! in-process simulator uses smaller blocks, so bytes are only reached through a [`BlockSize`].
//! Not covered: sets and ranges of LBAs, see [`crate::block::Extent`] and [`crate::block::LbaSet`].

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// LBAs described by one 64-bit bitmap of the diff answer.
pub const CHUNK_LBAS: u64 = 64;
/// Bytes of one LBA on the wire and on every device.
pub const LBA_BYTES: u64 = 4096;
/// LBAs in one MiB of device (the "MB" of the original suite).
pub const LBAS_PER_MIB: u64 = (1 << 20) / LBA_BYTES;

const _: () = assert!(CHUNK_LBAS == u64::BITS as u64);

/// Index of a tracked block from the start of its volume.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lba(u64);

/// A number of LBAs.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LbaCount(u64);

/// Index of a 64-LBA chunk from the start of its volume.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ChunkIndex(u64);

/// Distance in bytes from the start of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ByteOffset(u64);

/// A number of bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteLen(u64);

/// Bytes of one LBA: a power of two of at least 64 (the smallest block that can carry a stamp).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BlockSize(u32);

impl Lba {
    /// The LBA with this index.
    pub const fn new(index: u64) -> Lba {
        Lba(index)
    }
    /// The index itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The chunk that holds this LBA.
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 / CHUNK_LBAS)
    }
    /// Position inside the chunk, `0..64`; bit 0 is the least significant.
    pub const fn bit(self) -> u32 {
        (self.0 % CHUNK_LBAS) as u32
    }
    /// The first LBA of the chunk that holds this one.
    pub const fn chunk_start(self) -> Lba {
        Lba(self.0 - self.0 % CHUNK_LBAS)
    }
    /// Where this LBA starts on a device with blocks of `size`; `None` past 2^64 bytes.
    pub const fn byte_offset(self, size: BlockSize) -> Option<ByteOffset> {
        match self.0.checked_mul(size.0 as u64) {
            Some(bytes) => Some(ByteOffset(bytes)),
            None => None,
        }
    }
    /// The LBA `len` further on; `None` past 2^64.
    pub const fn checked_add(self, len: LbaCount) -> Option<Lba> {
        match self.0.checked_add(len.0) {
            Some(index) => Some(Lba(index)),
            None => None,
        }
    }
}

impl LbaCount {
    /// No LBA at all.
    pub const ZERO: LbaCount = LbaCount(0);
    /// This many LBAs.
    pub const fn new(count: u64) -> LbaCount {
        LbaCount(count)
    }
    /// The LBAs in this many MiB of 4 KiB blocks.
    pub const fn mib(mib: u64) -> LbaCount {
        LbaCount(mib * LBAS_PER_MIB)
    }
    /// `1 LBA`, `7 LBAs`.
    pub fn words(self) -> String {
        let s = if self.0 == 1 { "" } else { "s" };
        format!("{} LBA{s}", self.0)
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Their bytes on a device with blocks of `size`; saturates at 2^64 - 1.
    pub const fn bytes(self, size: BlockSize) -> ByteLen {
        ByteLen(self.0.saturating_mul(size.0 as u64))
    }
    /// Bytes at the 4 KiB of a real device, whatever the block size of this run: the figure that
    /// notes and tolerances speak of. Saturates at 2^64 - 1.
    pub const fn nominal_bytes(self) -> ByteLen {
        ByteLen(self.0.saturating_mul(LBA_BYTES))
    }
    /// Chunks needed to hold this many LBAs.
    pub const fn chunks(self) -> u64 {
        self.0.div_ceil(CHUNK_LBAS)
    }
}

impl ChunkIndex {
    /// The chunk with this index.
    pub const fn new(index: u64) -> ChunkIndex {
        ChunkIndex(index)
    }
    /// The index itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Its first LBA; `None` past 2^64.
    pub const fn first_lba(self) -> Option<Lba> {
        match self.0.checked_mul(CHUNK_LBAS) {
            Some(index) => Some(Lba(index)),
            None => None,
        }
    }
}

impl ByteOffset {
    /// This many bytes from the start.
    pub const fn new(bytes: u64) -> ByteOffset {
        ByteOffset(bytes)
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl ByteLen {
    /// This many bytes.
    pub const fn new(bytes: u64) -> ByteLen {
        ByteLen(bytes)
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The bytes in MiB, for figures shown to people.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people, one decimal is shown")]
    pub fn as_mib(self) -> f64 {
        self.0 as f64 / f64::from(1 << 20)
    }
}

/// The number is not a legal [`BlockSize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block size {0} is not a power of two of at least 64")]
pub struct BadBlockSize(pub u32);

impl BlockSize {
    /// The 4096 bytes of every real device.
    pub const DEVICE: BlockSize = BlockSize(4096);
    /// The smallest block, used in process where contents matter but bytes cost time.
    pub const SMALLEST: BlockSize = BlockSize(64);
    /// The size in bytes.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
    /// The size in bytes, for offset arithmetic.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = BadBlockSize;
    fn try_from(bytes: u32) -> Result<BlockSize, BadBlockSize> {
        if bytes >= 64 && bytes.is_power_of_two() {
            Ok(BlockSize(bytes))
        } else {
            Err(BadBlockSize(bytes))
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.0
    }
}

impl Add<LbaCount> for Lba {
    type Output = Lba;
    /// # Panics
    /// On overflow; foreign numbers go through [`Lba::checked_add`].
    fn add(self, len: LbaCount) -> Lba {
        Lba(self.0 + len.0)
    }
}

impl Sub for Lba {
    type Output = LbaCount;
    /// # Panics
    /// If `other` lies after `self`.
    fn sub(self, other: Lba) -> LbaCount {
        LbaCount(self.0 - other.0)
    }
}

impl Add for LbaCount {
    type Output = LbaCount;
    fn add(self, other: LbaCount) -> LbaCount {
        LbaCount(self.0 + other.0)
    }
}

impl AddAssign for LbaCount {
    fn add_assign(&mut self, other: LbaCount) {
        self.0 += other.0;
    }
}

impl std::iter::Sum for LbaCount {
    fn sum<I: Iterator<Item = LbaCount>>(iter: I) -> LbaCount {
        iter.fold(LbaCount::ZERO, Add::add)
    }
}

macro_rules! display_as_number {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display_as_number!(Lba, LbaCount, ChunkIndex, ByteOffset, ByteLen, BlockSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lba_250912_is_bit_32_of_chunk_3920_at_980_mib_and_128_kib() {
        let lba = Lba::new(250_912);
        assert_eq!(lba.chunk(), ChunkIndex::new(3920));
        assert_eq!(lba.bit(), 32);
        assert_eq!(lba.chunk_start(), Lba::new(250_880));
        assert_eq!(
            Lba::new(250_880).byte_offset(BlockSize::DEVICE),
            Some(ByteOffset::new(980 << 20))
        );
    }

    #[test]
    fn arithmetic_at_the_end_of_the_number_line_answers_none() {
        assert_eq!(Lba::new(u64::MAX).checked_add(LbaCount::new(1)), None);
        assert_eq!(Lba::new(u64::MAX).byte_offset(BlockSize::DEVICE), None);
        assert_eq!(ChunkIndex::new(u64::MAX).first_lba(), None);
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_64() {
        assert_eq!(BlockSize::try_from(4096), Ok(BlockSize::DEVICE));
        assert_eq!(BlockSize::try_from(64), Ok(BlockSize::SMALLEST));
        for bad in [0, 1, 32, 63, 65, 4095] {
            assert_eq!(BlockSize::try_from(bad), Err(BadBlockSize(bad)));
        }
    }

    #[test]
    fn a_count_rounds_up_to_chunks() {
        assert_eq!(LbaCount::new(0).chunks(), 0);
        assert_eq!(LbaCount::new(1).chunks(), 1);
        assert_eq!(LbaCount::new(64).chunks(), 1);
        assert_eq!(LbaCount::new(65).chunks(), 2);
        assert_eq!(LbaCount::mib(50), LbaCount::new(12_800));
    }
}
