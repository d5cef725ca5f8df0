//! A device that is only read: a clone of a snapshot, found by its wwid. Nothing can be written
//! through it, so it needs no consent and no handshake. Not covered: devices that are written
//! (`super::open`).

use super::block::size_bytes;
use super::host::Node;
use super::sysfs::{self, find_by_wwid, wwid_of_volume};
use crate::array::{AlignedBuf, DeviceError, ReadBlocks, ReadOnly};
use crate::block::{BlockSize, ByteOffset, LbaCount, VolumeUuid};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read at once: buffers of callers need not be aligned.
const PIECE_BYTES: usize = 1 << 20;

/// An open device of a volume. Every write is refused.
pub type ReadOnlyDevice = ReadOnly<DeviceBlocks>;

/// The blocks of an open device of a volume.
#[derive(Debug)]
pub struct DeviceBlocks {
    file: File,
    path: PathBuf,
    len: LbaCount,
}

impl ReadOnlyDevice {
    /// Opens the device of a volume of `bytes`; `None` while this host has none.
    ///
    /// # Errors
    /// If it cannot be opened, or turns out to be something else once it is open.
    pub fn of_volume(
        sysfs: &Path,
        volume: VolumeUuid,
        bytes: u64,
    ) -> Option<io::Result<ReadOnlyDevice>> {
        let path = find_by_wwid(sysfs, volume)?;
        Some(ReadOnlyDevice::open(sysfs, path, volume, bytes))
    }

    fn open(
        sysfs: &Path,
        path: PathBuf,
        volume: VolumeUuid,
        bytes: u64,
    ) -> io::Result<ReadOnlyDevice> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
        let node = Node::of(&file.metadata()?);
        let wrong = |what: String| io::Error::other(format!("{}: {what}", path.display()));
        let Node::Block(dev) = node else {
            return Err(wrong("it is no block device".to_owned()));
        };
        // The name may have gone to another device since it was found.
        let wwid = sysfs::disk(sysfs, dev)?.wwid;
        if wwid.as_deref() != Some(wwid_of_volume(volume).as_str()) {
            return Err(wrong(format!("it is not volume {volume} any more")));
        }
        let size = size_bytes(&file, &node)?;
        if size != bytes {
            return Err(wrong(format!("it has {size} bytes, the volume {bytes}")));
        }
        let len = LbaCount::new(bytes / BlockSize::DEVICE.bytes());
        Ok(ReadOnly(DeviceBlocks { file, path, len }))
    }
}

impl ReadBlocks for DeviceBlocks {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        self.len
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        let mut piece = AlignedBuf::new(buf.len().min(PIECE_BYTES));
        let mut here = at.get();
        for part in buf.chunks_mut(PIECE_BYTES) {
            let Some(bytes) = piece.get_mut(..part.len()) else {
                return Err(DeviceError::Short { op: "read", at });
            };
            let read = self.file.read_exact_at(bytes, here);
            read.map_err(|source| DeviceError::Io { op: "read", at, source })?;
            part.copy_from_slice(bytes);
            here += part.len() as u64;
        }
        Ok(())
    }
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::BlockDevice as _;
    use crate::device::testing::FakeSysfs;

    const VOLUME: VolumeUuid = VolumeUuid::from_u128(0xc1);

    #[test]
    fn a_volume_without_device_here_is_not_there_yet() {
        let sysfs = FakeSysfs::new();
        assert!(ReadOnlyDevice::of_volume(sysfs.root(), VOLUME, 4096).is_none());
    }

    #[test]
    fn what_is_no_block_device_is_refused_and_nothing_is_written_through_one() {
        let sysfs = FakeSysfs::new();
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 8192]).expect("a file");
        let refused = ReadOnlyDevice::open(sysfs.root(), path.clone(), VOLUME, 8192);
        let refused = refused.expect_err("a file is no device").to_string();
        assert!(refused.contains("no block device"), "{refused}");
        let file = File::open(&path).expect("a file");
        let device = ReadOnly(DeviceBlocks { file, path, len: LbaCount::new(2) });
        let mut bytes = [0; 4096];
        device.read_at(ByteOffset::new(4096), &mut bytes).expect("reads");
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert!(device.read_at(ByteOffset::new(8192), &mut bytes).is_err());
        assert!(device.write_at(ByteOffset::new(0), &bytes).is_err());
        assert!(device.flush().is_err());
    }
}
