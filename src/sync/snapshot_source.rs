//! A snapshot as a device to copy from. It can only be read. Not covered: targets whose snapshots
//! cannot be read; there the live device is copied.

use crate::array::{ApiError, Array, BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Lba, LbaCount, SnapshotUuid};
use std::io;
use std::path::Path;

/// Reads a snapshot through [`Array::read_snapshot`]; every change is refused.
#[derive(Clone, Copy)]
pub struct SnapshotSource<'a> {
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
        SnapshotSource { array, snapshot, block, len }
    }
}

impl BlockDevice for SnapshotSource<'_> {
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
    fn write_at(&self, _at: ByteOffset, _buf: &[u8]) -> Result<usize, DeviceError> {
        Err(DeviceError::Unsupported("writing a snapshot"))
    }
    fn write_zeroes(&self, _at: Lba, _len: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("zeroing a snapshot"))
    }
    fn discard(&self, _at: Lba, _len: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("discarding a snapshot"))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("flushing a snapshot"))
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(source.write_at(ByteOffset::new(0), &buf).is_err());
        assert!(source.write_zeroes(Lba::new(0), len).is_err());
        assert!(source.discard(Lba::new(0), len).is_err());
        assert!(source.flush().is_err() && source.path().is_none());
        assert_eq!((source.len_lbas(), source.block_size()), (len, BlockSize::SMALLEST));
    }
}
