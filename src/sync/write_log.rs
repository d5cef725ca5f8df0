//! Remembers which LBAs were written, so that a stray write is seen even when its bytes are equal.
//!
//! What was *attempted* is recorded, before it is done: a write that failed may have landed all the
//! same. Not covered: what was written (contents are judged by reading them back).

use crate::array::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Extent, Lba, LbaCount, LbaSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A device whose writes, zeroings and discards are recorded.
pub struct WriteLogged<'a> {
    inner: &'a dyn BlockDevice,
    log: Mutex<LbaSet>,
}

impl<'a> WriteLogged<'a> {
    /// `inner` with an empty log.
    pub fn new(inner: &'a dyn BlockDevice) -> WriteLogged<'a> {
        WriteLogged { inner, log: Mutex::new(LbaSet::new()) }
    }
    /// Every LBA some operation tried to change since the last call, or since the beginning.
    pub fn take_log(&self) -> LbaSet {
        std::mem::take(&mut *self.log())
    }
    fn log(&self) -> MutexGuard<'_, LbaSet> {
        // A panic elsewhere cannot leave the set half changed in a way that hides a write.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn record(&self, extent: Option<Extent>) {
        if let Some(extent) = extent {
            self.log().insert(extent);
        }
    }
}

/// The blocks that `len` bytes from `at` touch.
fn touched(at: ByteOffset, len: usize, block: BlockSize) -> Option<Extent> {
    let len = u64::try_from(len).ok().filter(|&len| len > 0)?;
    let end = at.get().checked_add(len)?;
    let first = Lba::new(at.get() / block.bytes());
    Extent::between(first, Lba::new(end.div_ceil(block.bytes())))
}

impl BlockDevice for WriteLogged<'_> {
    fn block_size(&self) -> BlockSize {
        self.inner.block_size()
    }
    fn len_lbas(&self) -> LbaCount {
        self.inner.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.read_at(at, buf)
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        self.record(touched(at, buf.len(), self.block_size()));
        self.inner.write_at(at, buf)
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.record(Extent::new(at, len));
        self.inner.write_zeroes(at, len)
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.record(Extent::new(at, len));
        self.inner.discard(at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }
    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::testing::MemoryDevice;

    fn at_lba(lba: u64) -> ByteOffset {
        ByteOffset::new(lba * 64)
    }

    #[test]
    fn every_kind_of_change_is_logged_and_reads_are_not() {
        let device = MemoryDevice::new(100);
        let logged = WriteLogged::new(&device);
        assert!(logged.write_at(at_lba(3), &[1; 128]).is_ok());
        assert!(logged.write_zeroes(Lba::new(10), LbaCount::new(2)).is_ok());
        assert!(logged.discard(Lba::new(12), LbaCount::new(1)).is_ok());
        assert!(logged.read_at(at_lba(50), &mut [0; 64]).is_ok());
        assert!(logged.flush().is_ok());
        let expected = LbaSet::from(vec![Extent::lbas(3, 2), Extent::lbas(10, 3)]);
        assert_eq!(logged.take_log(), expected);
        assert_eq!(logged.take_log(), LbaSet::new());
    }

    #[test]
    fn an_equal_rewrite_and_a_failed_write_are_logged_too() {
        let device = MemoryDevice::new(100).failing_write_at(7);
        let logged = WriteLogged::new(&device);
        assert!(logged.write_at(at_lba(5), &[0; 64]).is_ok());
        assert!(logged.write_at(at_lba(7), &[0; 64]).is_err());
        let expected = LbaSet::from(vec![Extent::lbas(5, 1), Extent::lbas(7, 1)]);
        assert_eq!(logged.take_log(), expected);
    }

    #[test]
    fn a_write_off_the_block_grid_counts_for_every_block_it_touches() {
        assert_eq!(touched(ByteOffset::new(63), 2, BlockSize::SMALLEST), Some(Extent::lbas(0, 2)));
        assert_eq!(touched(ByteOffset::new(64), 0, BlockSize::SMALLEST), None);
        assert_eq!(touched(ByteOffset::new(u64::MAX), 2, BlockSize::SMALLEST), None);
    }
}
