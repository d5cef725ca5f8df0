//! Devices that are only read. Not covered: where their blocks come from.

use super::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Lba, LbaCount};
use std::path::Path;

/// Where the blocks of a device that is only read come from.
pub trait ReadBlocks: Sync {
    /// Bytes of one LBA.
    fn block_size(&self) -> BlockSize;
    /// Size of the device.
    fn len_lbas(&self) -> LbaCount;
    /// Fills `buf` from `at`, wholly or with an error.
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError>;
    /// The path an outside program can read it by, if there is one.
    fn path(&self) -> Option<&Path>;
}

/// A device that refuses every change.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnly<R>(pub(crate) R);

impl<R: ReadBlocks> BlockDevice for ReadOnly<R> {
    fn block_size(&self) -> BlockSize {
        self.0.block_size()
    }
    fn len_lbas(&self) -> LbaCount {
        self.0.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read_at(at, buf)
    }
    fn write_at(&self, _: ByteOffset, _: &[u8]) -> Result<usize, DeviceError> {
        Err(DeviceError::Unsupported("writing what is only read"))
    }
    fn write_zeroes(&self, _: Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("zeroing what is only read"))
    }
    fn discard(&self, _: Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("discarding what is only read"))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("flushing what is only read"))
    }
    fn path(&self) -> Option<&Path> {
        self.0.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sevens;

    impl ReadBlocks for Sevens {
        fn block_size(&self) -> BlockSize {
            BlockSize::SMALLEST
        }
        fn len_lbas(&self) -> LbaCount {
            LbaCount::new(2)
        }
        fn read_at(&self, _: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
            buf.fill(7);
            Ok(())
        }
        fn path(&self) -> Option<&Path> {
            Some(Path::new("/sevens"))
        }
    }

    #[test]
    fn it_can_be_read_and_nothing_else() {
        let device = ReadOnly(Sevens);
        let (mut buf, (at, len)) = ([0; 64], (Lba::new(0), LbaCount::new(1)));
        device.read_at(ByteOffset::new(0), &mut buf).expect("it can be read");
        assert_eq!(buf, [7; 64]);
        let refused = [
            device.write_at(ByteOffset::new(0), &buf).map(|_| ()),
            device.write_zeroes(at, len),
            device.discard(at, len),
            device.flush(),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(DeviceError::Unsupported(_))), "{refused:?}");
        }
        assert_eq!((device.len_lbas().get(), device.block_size()), (2, BlockSize::SMALLEST));
        assert_eq!(device.path(), Some(Path::new("/sevens")));
    }
}
