//! The traits of the port and the plain records they exchange. Not covered: who implements them
//! (the adapters) and what an answer means (`crate::oracle`).

use super::error::{ApiError, DeviceError};
use crate::block::{
    BlockSize, ByteOffset, Capabilities, Lba, LbaCount, Page, SnapshotName, SnapshotUuid,
    VolumeUuid,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Life of a snapshot (`lightbits-api.md` section 4). A state the API may add later reads as
/// `Other` and counts as "not ready".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotState {
    /// Being made; it must not be used yet.
    Creating,
    /// Ready.
    Available,
    /// Being removed.
    Deleting,
    /// Removed, shown only in listings that ask for everything.
    Deleted,
    /// The array gave up.
    Failed,
    /// Anything else.
    Other,
}

/// A snapshot as the array shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its identity.
    pub uuid: SnapshotUuid,
    /// Its name as sent; foreign text, escape before showing.
    pub name: String,
    /// Where it is in its life.
    pub state: SnapshotState,
    /// The volume it was taken of.
    pub volume: VolumeUuid,
    /// Size of the volume when it was taken.
    pub len: LbaCount,
    /// When it was made, as sent, if known.
    pub created: Option<String>,
}

/// A volume as the array shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// Its identity.
    pub uuid: VolumeUuid,
    /// Its name as sent; foreign text, escape before showing.
    pub name: String,
    /// Its size in bytes, which need not be a multiple of anything but 4096.
    pub size_bytes: u64,
    /// Bytes of a sector of its devices.
    pub sector_bytes: u32,
    /// Whether the array says it can be used now (Available, Updating, Migrating).
    pub usable: bool,
    /// Whether the array says it can be written now.
    pub writable: bool,
    /// Whether it was made from a snapshot: then a diff without base is not to be trusted.
    pub is_clone: bool,
    /// The snapshot it was made from, where the array names it by its UUID.
    pub clone_of: Option<SnapshotUuid>,
}

/// Control plane of one array. All calls are synchronous and may be made from several threads.
///
/// Every call answers [`ApiError`] when the target refuses, cannot be reached or answers what
/// cannot be read. Adapters retry what is safe to retry themselves; what they return is final.
pub trait Array: Sync {
    /// What this target can do and promises.
    fn capabilities(&self) -> Capabilities;

    /// One volume.
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError>;

    /// Starts making a snapshot; the answer may still be `Creating`.
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError>;

    /// One snapshot; [`ApiError::NotFound`] when it is gone.
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError>;

    /// Where a snapshot is in its life; [`ApiError::NotFound`] when it is gone.
    fn snapshot_state(&self, snapshot: SnapshotUuid) -> Result<SnapshotState, ApiError> {
        self.snapshot(snapshot).map(|info| info.state)
    }

    /// Every snapshot of the project, those being deleted included.
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError>;

    /// Starts deleting a snapshot.
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError>;

    /// One page of the diff of `snapshot` against `base` (or creation), from the chunk of `from`.
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError>;

    /// Reads a snapshot's contents at an LBA into `buf` (whole blocks).
    fn read_snapshot(
        &self,
        _snapshot: SnapshotUuid,
        _at: Lba,
        _buf: &mut [u8],
    ) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("reading a snapshot"))
    }
    /// Puts a volume back to one of its snapshots.
    fn rollback(&self, _volume: VolumeUuid, _to: SnapshotUuid) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("rollback"))
    }
    /// Grows or, by force, shrinks a volume.
    fn resize(&self, _volume: VolumeUuid, _len: LbaCount) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("resize"))
    }
    /// Restarts the target: cleanly, or as after a kill.
    fn restart(&self, _clean: bool) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("restart"))
    }
    /// Makes a new volume out of a snapshot and answers its identity.
    fn clone_snapshot(&self, _snapshot: SnapshotUuid) -> Result<VolumeUuid, ApiError> {
        Err(ApiError::Unsupported("clone"))
    }
    /// Creates an empty volume; `uuid` asks for that very identity again.
    fn create_volume(
        &self,
        _len: LbaCount,
        _uuid: Option<VolumeUuid>,
    ) -> Result<VolumeUuid, ApiError> {
        Err(ApiError::Unsupported("creating a volume"))
    }
    /// Data plane of a volume that [`Array::clone_snapshot`] or [`Array::create_volume`] made.
    fn device(&self, _volume: VolumeUuid) -> Option<Box<dyn BlockDevice>> {
        None
    }
    /// Lets the `nth` operation on a volume that can meet the fault of this name meet it, counted
    /// from 1.
    fn arm_fault(&self, _volume: VolumeUuid, _kind: &str, _nth: u32) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("that fault"))
    }
    /// Takes a fault back and answers whether it had not happened yet.
    fn disarm_fault(&self, _volume: VolumeUuid) -> bool {
        false
    }
    /// Deletes a volume; its snapshots stay.
    fn delete_volume(&self, _volume: VolumeUuid) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("deleting a volume"))
    }
}

/// Data plane of one volume: positioned I/O in whole blocks, usable from several threads.
///
/// Offsets and lengths are multiples of [`BlockDevice::block_size`]; buffers handed to an
/// O_DIRECT device must be aligned as [`super::AlignedBuf`] is.
pub trait BlockDevice: Sync {
    /// Bytes of one LBA.
    fn block_size(&self) -> BlockSize;
    /// Size of the volume.
    fn len_lbas(&self) -> LbaCount;
    /// Fills `buf` from `at`, wholly or with an error.
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes from `at` and answers how many bytes were taken: at least one, perhaps fewer than
    /// given (a short write is legal; the caller continues it).
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError>;
    /// Makes `len` LBAs from `at` read as zeros by the device's own command.
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError>;
    /// Tells the device that `len` LBAs from `at` hold nothing of value.
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError>;
    /// Makes every acknowledged write durable. A failed flush proves nothing and is never repeated.
    fn flush(&self) -> Result<(), DeviceError>;
    /// Whether it keeps what is written. One that does not cannot be read, and only says which LBAs
    /// were touched.
    fn keeps_contents(&self) -> bool {
        true
    }
    /// The path an outside program can read this device by, if there is one.
    fn path(&self) -> Option<&Path>;
}

/// Time as a run sees it: real on devices, virtual in the simulator, where waiting costs nothing.
pub trait Clock: Sync {
    /// Time since some fixed moment of this run; never goes back.
    fn now(&self) -> Duration;
    /// Lets `time` pass.
    fn sleep(&self, time: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock that reads zero now.
    pub fn new() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A clock that moves only when somebody sleeps on it.
#[derive(Debug, Default)]
pub struct VirtualClock {
    nanos: AtomicU64,
}

impl VirtualClock {
    /// A clock that reads zero.
    pub fn new() -> VirtualClock {
        VirtualClock::default()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
    fn sleep(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
