//! A snapshot as a device to copy from. It can only be read. Not covered: targets whose snapshots
//! cannot be read; there the live device is copied.

use crate::array::{ApiError, Array, DeviceError, ReadBlocks, ReadOnly};
use crate::block::{BlockSize, ByteOffset, Lba, LbaCount, SnapshotUuid};
use std::io;
use std::path::Path;

/// A snapshot; every change is refused.
pub type SnapshotSource<'a> = ReadOnly<SnapshotBlocks<'a>>;

/// Reads a snapshot through [`Array::read_snapshot`].
#[derive(Clone, Copy)]
pub struct SnapshotBlocks<'a> {
    array: &'a dyn Array,
    snapshot: SnapshotUuid,
    block: BlockSize,
    len: LbaCount,
}

impl<'a> SnapshotSource<'a> {
    /// `snapshot`, `len` LBAs of `block` bytes.
    pub fn new(
        array: &'a dyn Array,
        snapshot: SnapshotUuid,
        block: BlockSize,
        len: LbaCount,
    ) -> SnapshotSource<'a> {
        ReadOnly(SnapshotBlocks { array, snapshot, block, len })
    }
}

impl ReadBlocks for SnapshotBlocks<'_> {
    fn block_size(&self) -> BlockSize {
        self.block
    }
    fn len_lbas(&self) -> LbaCount {
        self.len
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        let lba = Lba::new(at.get() / self.block.bytes());
        self.array.read_snapshot(self.snapshot, lba, buf).map_err(|error| match error {
            ApiError::Interrupted => DeviceError::Interrupted,
            ApiError::Unsupported(what) => DeviceError::Unsupported(what),
            other => DeviceError::Io { op: "read", at, source: io::Error::other(other) },
        })
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::BlockDevice as _;
    use crate::sync::testing::ScriptedArray;

    #[test]
    fn a_snapshot_can_be_read_and_nothing_else() {
        let array = ScriptedArray::new([]);
        let (len, id) = (LbaCount::new(10), SnapshotUuid::from_u128(1));
        let source = SnapshotSource::new(&array, id, BlockSize::SMALLEST, len);
        let mut buf = [0; 64];
        source.read_at(ByteOffset::new(3 * 64), &mut buf).expect("block 3 can be read");
        assert_eq!(buf, [3; 64]);
        let broken = source.read_at(ByteOffset::new(9 * 64), &mut buf);
        assert!(matches!(broken, Err(DeviceError::Io { op: "read", .. })), "{broken:?}");
        assert!(source.flush().is_err() && source.path().is_none());
        assert_eq!((source.len_lbas(), source.block_size()), (len, BlockSize::SMALLEST));
    }
}
