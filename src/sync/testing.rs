//! A device in memory and an array of prepared answers, for the tests of the pipeline.

use crate::array::{ApiError, Array, BlockDevice, DeviceError, Reply, SnapshotInfo, VolumeInfo};
use crate::block::{
    BlockSize, ByteOffset, Capabilities, Lba, LbaCount, Page, SnapshotName, SnapshotUuid,
    VolumeUuid,
};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks of 64 bytes in memory.
pub(super) struct MemoryDevice {
    bytes: Mutex<Vec<u8>>,
    fail_write_at: Option<u64>,
    fail_read_at: Option<u64>,
    fail_flush: bool,
    write_limit_bytes: usize,
    pub(super) flushes: AtomicU64,
    pub(super) reads: AtomicU64,
}

pub(super) const BLOCK: usize = 64;

impl MemoryDevice {
    /// `len_lbas` zero blocks.
    pub(super) fn new(len_lbas: usize) -> MemoryDevice {
        MemoryDevice {
            bytes: Mutex::new(vec![0; len_lbas * BLOCK]),
            fail_write_at: None,
            fail_read_at: None,
            fail_flush: false,
            write_limit_bytes: usize::MAX,
            flushes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }
    /// Blocks that say where they are, none of them zero.
    pub(super) fn numbered(len_lbas: usize) -> MemoryDevice {
        let device = MemoryDevice::new(len_lbas);
        for (lba, block) in device.lock().chunks_mut(BLOCK).enumerate() {
            block[..8].copy_from_slice(&(lba as u64 + 1).to_le_bytes());
        }
        device
    }
    pub(super) fn failing_write_at(self, lba: u64) -> MemoryDevice {
        MemoryDevice { fail_write_at: Some(lba), ..self }
    }
    pub(super) fn failing_read_at(self, lba: u64) -> MemoryDevice {
        MemoryDevice { fail_read_at: Some(lba), ..self }
    }
    pub(super) fn failing_flush(self) -> MemoryDevice {
        MemoryDevice { fail_flush: true, ..self }
    }
    /// Takes at most this many bytes of every write.
    pub(super) fn taking_at_most(self, bytes: usize) -> MemoryDevice {
        MemoryDevice { write_limit_bytes: bytes, ..self }
    }
    /// One block.
    pub(super) fn block(&self, lba: u64) -> Vec<u8> {
        let start = usize::try_from(lba).expect("a small device") * BLOCK;
        self.lock()[start..start + BLOCK].to_vec()
    }
    pub(super) fn set_block(&self, lba: u64, byte: u8) {
        let start = usize::try_from(lba).expect("a small device") * BLOCK;
        self.lock()[start..start + BLOCK].fill(byte);
    }
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lock().clone()
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().expect("no test panics while it holds the bytes")
    }
}

fn eio(op: &'static str, at: ByteOffset) -> DeviceError {
    DeviceError::Io { op, at, source: io::Error::from_raw_os_error(libc::EIO) }
}

/// Whether `len` bytes from `at` hold block `lba`.
fn hits(lba: Option<u64>, at: ByteOffset, len: usize) -> bool {
    let block = BLOCK as u64;
    lba.is_some_and(|lba| at.get() / block <= lba && lba * block < at.get() + len as u64)
}

fn index(at: ByteOffset) -> usize {
    usize::try_from(at.get()).expect("a small device")
}

impl BlockDevice for MemoryDevice {
    fn block_size(&self) -> BlockSize {
        BlockSize::SMALLEST
    }
    fn len_lbas(&self) -> LbaCount {
        LbaCount::new((self.lock().len() / BLOCK) as u64)
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if hits(self.fail_read_at, at, buf.len()) {
            return Err(eio("read", at));
        }
        let bytes = self.lock();
        let from = bytes.get(index(at)..index(at) + buf.len()).ok_or_else(|| eio("read", at))?;
        buf.copy_from_slice(from);
        Ok(())
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let buf = &buf[..buf.len().min(self.write_limit_bytes)];
        if hits(self.fail_write_at, at, buf.len()) {
            return Err(eio("write", at));
        }
        let mut bytes = self.lock();
        let to = bytes.get_mut(index(at)..index(at) + buf.len()).ok_or_else(|| eio("write", at))?;
        to.copy_from_slice(buf);
        Ok(buf.len())
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        for lba in at.get()..at.get() + len.get() {
            self.set_block(lba, 0);
        }
        Ok(())
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.write_zeroes(at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        if self.fail_flush {
            return Err(eio("flush", ByteOffset::new(0)));
        }
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

/// An array that answers diffs with pages written down beforehand, by requested offset.
pub(super) struct ScriptedArray {
    pages: BTreeMap<u64, Page>,
}

impl ScriptedArray {
    pub(super) fn new(pages: impl IntoIterator<Item = (u64, Page)>) -> ScriptedArray {
        ScriptedArray { pages: pages.into_iter().collect() }
    }
}

fn no_such_call<T>() -> Result<T, ApiError> {
    Err(ApiError::Unsupported("anything but diffs"))
}

impl Array for ScriptedArray {
    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_write_bytes: 64, ..Capabilities::bare() }
    }
    fn volume(&self, _: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        no_such_call()
    }
    fn create_snapshot(&self, _: VolumeUuid, _: SnapshotName) -> Result<SnapshotInfo, ApiError> {
        no_such_call()
    }
    fn snapshot(&self, _: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        no_such_call()
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        no_such_call()
    }
    fn delete_snapshot(&self, _: SnapshotUuid) -> Result<(), ApiError> {
        no_such_call()
    }
    fn diff_page(
        &self,
        _: SnapshotUuid,
        _: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        self.pages.get(&from.get()).cloned().ok_or_else(|| {
            let call = format!("diff from LBA {from}");
            ApiError::Refused(Reply { status: Some(400), text: "no such offset".into(), call })
        })
    }
    fn read_snapshot(&self, _: SnapshotUuid, at: Lba, buf: &mut [u8]) -> Result<(), ApiError> {
        match at.get() {
            // Every block says where it is; block 9 is broken.
            9 => Err(ApiError::Failed("block 9 is gone".into())),
            lba => {
                buf.fill(u8::try_from(lba).unwrap_or(u8::MAX));
                Ok(())
            }
        }
    }
}
