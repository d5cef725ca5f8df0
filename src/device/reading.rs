//! A device that is only read: a clone of a snapshot, found by its wwid, by its name where volumes
//! are files, or named by the user. Nothing can be written through it, so it needs no consent and no
//! handshake. Not covered: devices that are written (`super::open`).

use super::guards::is_served;
use super::host::{Host, Node};
use super::medium::size_bytes;
use super::sysfs::{self, find_by_wwid, wwid_of_volume};
use crate::array::{AlignedBuf, DeviceError, ReadBlocks, ReadOnly};
use crate::block::{BlockSize, ByteOffset, LbaCount, Role, VolumeUuid};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read at once: buffers of callers need not be aligned.
const PIECE_BYTES: usize = 1 << 20;
/// Characters of a UUID, with which the name of a served file ends.
const UUID_CHARS: usize = 36;

/// An open device of a volume. Every write is refused.
pub type ReadOnlyDevice = ReadOnly<DeviceBlocks>;

/// The volume that a device says to be: by its wwid, or by the name of the file that a simulator or a
/// storage daemon serves, be it `path` itself or behind it. `None` if it says nothing that counts: any
/// other file may have any name.
pub fn volume_told_by(host: &Host, path: &Path) -> Option<VolumeUuid> {
    let file = match Node::of(&std::fs::metadata(path).ok()?) {
        Node::Block(dev) => {
            let disk = sysfs::disk(&host.sysfs, dev).ok()?;
            if let Some(wwid) = disk.wwid {
                return wwid.strip_prefix("uuid.")?.parse().ok();
            }
            disk.backing_file?
        }
        Node::File { .. } => path.canonicalize().ok()?,
        Node::Other(_) => return None,
    };
    let runs = |pid| host.process_name(pid).is_some();
    let name = file
        .file_name()?
        .to_str()
        .filter(|_| host.mounts().is_ok_and(|mounts| is_served(&mounts, &file, runs)))?;
    name.get(name.len().checked_sub(UUID_CHARS)?..)?.parse().ok()
}

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
        Some(ReadOnlyDevice::open(path, bytes, |node| {
            let Node::Block(dev) = *node else { return Err("it is no block device".to_owned()) };
            // The name may have gone to another device since it was found.
            match sysfs::disk(sysfs, dev).map_err(|error| error.to_string())?.wwid {
                Some(wwid) if wwid == wwid_of_volume(volume) => Ok(()),
                _ => Err(format!("it is not volume {volume} any more")),
            }
        }))
    }

    /// Opens the file of a clone of `bytes`, where volumes are files: it lies beside the file that is
    /// the device at `path`, or is behind it. `None` while there is none.
    ///
    /// # Errors
    /// If it cannot be opened, or turns out to be something else once it is open.
    pub fn beside(
        sysfs: &Path,
        path: &Path,
        volume: VolumeUuid,
        bytes: u64,
    ) -> Option<io::Result<ReadOnlyDevice>> {
        let file = match Node::of(&std::fs::metadata(path).ok()?) {
            Node::File { .. } => path.canonicalize().ok()?,
            Node::Block(dev) => sysfs::disk(sysfs, dev).ok()?.backing_file?,
            Node::Other(_) => return None,
        };
        let clone = file.parent()?.join(format!("{}-{volume}", Role::Clone));
        clone.exists().then(|| {
            ReadOnlyDevice::open(clone, bytes, |node| match node {
                Node::File { .. } => Ok(()),
                _ => Err("it is no file".to_owned()),
            })
        })
    }

    /// Opens the device or served file that the user names as holding an image of `bytes`.
    ///
    /// # Errors
    /// If it cannot be opened, or has another size.
    pub fn at(path: PathBuf, bytes: u64) -> io::Result<ReadOnlyDevice> {
        ReadOnlyDevice::open(path, bytes, |node| match node {
            Node::Other(what) => Err(format!("it is {what}")),
            Node::Block(_) | Node::File { .. } => Ok(()),
        })
    }

    /// Opens what is there; `fits` says what it must be.
    fn open(
        path: PathBuf,
        bytes: u64,
        fits: impl Fn(&Node) -> Result<(), String>,
    ) -> io::Result<ReadOnlyDevice> {
        let wrong = |what: String| io::Error::other(format!("{}: {what}", path.display()));
        // Before it is opened, for the better words; after that, to be sure.
        fits(&Node::of(&std::fs::metadata(&path)?)).map_err(wrong)?;
        // Not blocking: a FIFO must be refused, not waited for.
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
        let node = Node::of(&file.metadata()?);
        fits(&node).map_err(wrong)?;
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
    use crate::device::testing::{FakeSysfs, LoopDevice};

    const VOLUME: VolumeUuid = VolumeUuid::from_u128(0xc1);

    #[test]
    fn a_volume_without_device_here_is_not_there_yet() {
        let sysfs = FakeSysfs::new();
        assert!(ReadOnlyDevice::of_volume(sysfs.root(), VOLUME, 4096).is_none());
    }

    #[test]
    fn a_device_tells_its_volume_by_its_wwid_and_a_file_only_if_it_is_served() {
        let (sysfs, dir) = (FakeSysfs::new(), tempfile::tempdir().expect("a folder"));
        let file = dir.path().join(format!("clone-{VOLUME}"));
        std::fs::write(&file, [0; 4096]).expect("a file");
        let (proc, pid) = (dir.path().join("proc"), std::process::id());
        std::fs::create_dir_all(proc.join("self")).expect("folders");
        std::fs::create_dir_all(proc.join(pid.to_string())).expect("folders");
        std::fs::write(proc.join(format!("{pid}/comm")), "lbaudit\n").expect("a name");
        let served = |by: u32| {
            let point = dir.path().canonicalize().expect("a folder");
            let line = format!("1 2 0:99 / {} rw - fuse lbaudit-sim-{by} rw\n", point.display());
            std::fs::write(proc.join("self/mountinfo"), line).expect("a table");
            Host { proc: proc.clone(), ..sysfs.host() }
        };
        assert_eq!(volume_told_by(&sysfs.host(), &file), None, "anybody may choose a name");
        assert_eq!(volume_told_by(&served(pid), &file), Some(VOLUME));
        assert_eq!(volume_told_by(&served(u32::MAX), &file), None, "nobody serves it");
        for name in [
            "clone",
            "clone-04aa8885-0000-0000-0000-00000000000g",
            "ü04aa8885-0000-0000-0000-00000000000",
        ] {
            let file = dir.path().join(name);
            std::fs::write(&file, [0; 4096]).expect("a file");
            assert_eq!(volume_told_by(&served(pid), &file), None, "{name}");
        }
        assert_eq!(volume_told_by(&served(pid), dir.path()), None);
        let Some(device) = LoopDevice::named(1, &VOLUME.to_string()) else { return };
        let disk = sysfs.disk_of("nvme0n1", &device);
        assert_eq!(volume_told_by(&sysfs.host(), device.path()), None);
        disk.attribute("wwid", &wwid_of_volume(VOLUME));
        assert_eq!(volume_told_by(&sysfs.host(), device.path()), Some(VOLUME));
        disk.attribute("wwid", "eui.0025385b21404ce3");
        assert_eq!(volume_told_by(&sysfs.host(), device.path()), None);
    }

    #[test]
    fn a_clone_that_is_a_file_lies_beside_its_source_and_nothing_is_written_through_it() {
        let sysfs = FakeSysfs::new();
        let dir = tempfile::tempdir().expect("a folder");
        let source = dir.path().join("source");
        std::fs::write(&source, [0; 4096]).expect("a file");
        let beside = |bytes| ReadOnlyDevice::beside(sysfs.root(), &source, VOLUME, bytes);
        assert!(beside(8192).is_none(), "there is no clone yet");
        let clone = dir.path().join(format!("clone-{VOLUME}"));
        std::fs::write(&clone, vec![7; 8192]).expect("a file");
        let refused = beside(4096).expect("it is there").expect_err("of another size").to_string();
        assert!(refused.contains("it has 8192 bytes"), "{refused}");
        let node = |node: &Node| match node {
            Node::Block(_) => Ok(()),
            _ => Err("no block device".to_owned()),
        };
        let refused = ReadOnlyDevice::open(clone, 8192, node).expect_err("a file").to_string();
        assert!(refused.contains("no block device"), "{refused}");
        let device = DeviceBlocks {
            file: File::open(dir.path().join(format!("clone-{VOLUME}"))).expect("a file"),
            path: source.clone(),
            len: LbaCount::new(2),
        };
        let (mut bytes, device) = ([0; 4096], ReadOnly(device));
        device.read_at(ByteOffset::new(4096), &mut bytes).expect("reads");
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert!(device.read_at(ByteOffset::new(8192), &mut bytes).is_err());
        assert!(device.write_at(ByteOffset::new(0), &bytes).is_err());
        std::fs::create_dir(dir.path().join("folder")).expect("a folder");
        let nowhere = dir.path().join("folder");
        assert!(ReadOnlyDevice::beside(sysfs.root(), &nowhere, VOLUME, 8192).is_none());
    }
}
