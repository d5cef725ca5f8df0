//! One volume: its contents and tracking under one lock, and the device that reads and writes it.
//! Not covered: snapshots' names and lives (`super::state`).

use super::bugs::{Bug, BugSet};
use super::faults::{Armed, Doing};
use super::store::Store;
use super::tracking::{CHUNK, Moment, Origin, REWRITE_BUGS, Touch, Tracking};
use super::{SimError, SimFault, array::Shared, legal};
use crate::array::Clock;
use crate::block::{BlockSize, SnapshotUuid, VolumeUuid};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// One incarnation of a volume; snapshots keep it alive after the volume is deleted.
#[derive(Debug)]
pub(super) struct VolumeCell {
    pub(super) uuid: VolumeUuid,
    pub(super) name: String,
    pub(super) source_snapshot: Option<SnapshotUuid>,
    pub(super) created: Duration,
    /// Order of creation.
    pub(super) number: u64,
    state: RwLock<Volume>,
    /// Held during a transfer of a slowed device, which does one at a time.
    turnstile: Mutex<()>,
}

/// What changes about a volume.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) len_lbas: u64,
    pub(super) store: Store,
    pub(super) tracking: Tracking,
    /// Clock time at which its newest snapshot is, and its deleted ones are, done.
    pub(super) creating_until: Duration,
    pub(super) deleting_until: Duration,
    /// The array refuses I/O: the volume was deleted.
    pub(super) deleted: bool,
    /// A fault that one of the next operations meets.
    pub(super) armed: Option<Armed>,
    /// The cut of a snapshot that is still to be made.
    pub(super) pending: Option<PendingCut>,
}

/// A cut that an honest array makes somewhere between the call and the snapshot being Available.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingCut {
    pub(super) cut: u64,
    /// Clock time at which it is made at the latest.
    pub(super) by: Duration,
    /// Operations that still come before it, if they come in time.
    pub(super) ops_left: u32,
}

impl VolumeCell {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Volume> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Volume> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new volume starts with.
#[derive(Debug)]
pub(super) struct NewVolume {
    pub(super) uuid: VolumeUuid,
    pub(super) name: String,
    pub(super) source_snapshot: Option<SnapshotUuid>,
    pub(super) created: Duration,
    pub(super) number: u64,
    pub(super) len_lbas: u64,
    pub(super) store: Store,
    pub(super) origin: Origin,
}

impl NewVolume {
    pub(super) fn build(self, bugs: BugSet) -> VolumeCell {
        VolumeCell {
            uuid: self.uuid,
            name: self.name,
            source_snapshot: self.source_snapshot,
            created: self.created,
            number: self.number,
            state: RwLock::new(Volume {
                len_lbas: self.len_lbas,
                store: self.store,
                tracking: Tracking::new(bugs, self.origin, self.len_lbas),
                creating_until: Duration::ZERO,
                deleting_until: Duration::ZERO,
                deleted: false,
                armed: None,
                pending: None,
            }),
            turnstile: Mutex::new(()),
        }
    }
}

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SimIoError {
    /// The volume was deleted (ENODEV).
    #[error("the volume was deleted")]
    Deleted,
    /// The request reaches past the end (ENOSPC on writes, EINVAL on reads).
    #[error("the request reaches past the end of the volume")]
    PastEnd,
    /// This array stores no contents (EIO).
    #[error("this array stores no contents")]
    NoContents,
    /// The array could not store the tracking record, so it did not store the data (EIO).
    #[error("the tracking record cannot be stored")]
    TrackingRecord,
    /// The medium failed (EIO).
    #[error("input/output error")]
    Medium,
    /// The pool is full (ENOSPC).
    #[error("no space left on device")]
    NoSpace,
    /// The volume cannot be written any more (EROFS).
    #[error("read-only file system")]
    ReadOnly,
    /// The device is gone (ENODEV).
    #[error("no such device")]
    Gone,
}

/// The data plane of one volume. Clones share the volume; any thread may use them.
///
/// Bytes need not be aligned: a write that covers part of an LBA marks all of it as changed.
#[derive(Clone)]
pub struct SimDevice {
    pub(super) shared: Arc<Shared>,
    pub(super) cell: Arc<VolumeCell>,
}

/// How long one LBA takes on a slowed device.
const SLOW_LBA: Duration = Duration::from_micros(800);

impl SimDevice {
    /// Bytes of one LBA.
    pub fn block(&self) -> BlockSize {
        self.shared.config.block
    }

    /// Size of the volume now, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.cell.read().len_lbas * self.block_bytes()
    }

    /// Fills `buf` from byte `at`.
    ///
    /// # Errors
    /// [`SimIoError::Deleted`], [`SimIoError::PastEnd`], and what a fault makes it answer.
    pub fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<(), SimIoError> {
        let read = self.read_some(at, buf)?;
        match buf.get_mut(read..) {
            Some(rest) if !rest.is_empty() => self.read_bytes(at + read as u64, rest),
            _ => Ok(()),
        }
    }

    /// As [`SimDevice::read_bytes`], but answers how many bytes it read: all of them, unless a fault
    /// ([`SimFault::ShortRead`]) leaves the end out.
    ///
    /// # Errors
    /// As [`SimDevice::read_bytes`].
    pub fn read_some(&self, at: u64, buf: &mut [u8]) -> Result<usize, SimIoError> {
        self.wait_if_slow(buf.len() as u64);
        let volume = self.cell.read();
        self.lbas(&volume, at, buf.len() as u64)?;
        if !self.shared.config.contents {
            return Err(SimIoError::NoContents);
        }
        if volume.armed.is_some() {
            drop(volume);
            return self.read_with_fault(at, buf);
        }
        volume.store.read(at, buf);
        Ok(buf.len())
    }

    /// Stores `buf` from byte `at`, wholly, and marks every LBA it touches.
    ///
    /// # Errors
    /// As [`SimDevice::write_some`].
    pub fn write_bytes(&self, at: u64, buf: &[u8]) -> Result<(), SimIoError> {
        let taken = self.write_some(at, buf)?;
        match buf.get(taken..) {
            Some(rest) if !rest.is_empty() => self.write_bytes(at + taken as u64, rest),
            _ => Ok(()),
        }
    }

    /// As [`SimDevice::write_bytes`], but answers how many bytes it took: all of them, unless a
    /// fault ([`SimFault::ShortWrite`]) leaves the end out.
    ///
    /// # Errors
    /// As [`SimDevice::read_bytes`], and [`SimIoError::TrackingRecord`] with nothing stored.
    pub fn write_some(&self, at: u64, buf: &[u8]) -> Result<usize, SimIoError> {
        self.wait_if_slow(buf.len() as u64);
        let mut volume = self.enter(Doing::Change)?;
        let lbas = self.lbas(&volume, at, buf.len() as u64)?;
        if lbas.is_empty() {
            return Ok(buf.len());
        }
        let taken = volume.taken_of(SimFault::ShortWrite, buf.len(), self.block().get());
        let buf = buf.get(..taken).unwrap_or(buf);
        let lbas = self.lbas(&volume, at, buf.len() as u64)?;
        volume.reserve_record(self.shared.bugs)?;
        volume.before_op(self.shared.clock.as_ref());
        let moment = self.moment(&volume);
        if self.shared.bugs.is_empty() {
            self.mark_honestly(&mut volume, lbas, Touch::Write, Some((at, buf)));
            if self.shared.config.contents {
                volume.store_written(at, buf, self.block().get());
            }
        } else {
            volume.write_planted(self.shared.bugs, self.block(), at, buf, moment);
            drop(volume);
            self.mark_neighbours(lbas);
        }
        Ok(taken)
    }

    /// Makes `len_bytes` bytes from byte `at` read as zeros.
    ///
    /// # Errors
    /// As [`SimDevice::write_bytes`].
    pub fn zero_bytes(&self, at: u64, len_bytes: u64) -> Result<(), SimIoError> {
        self.erase(at, len_bytes, Touch::Zero)
    }

    /// Discards `len_bytes` bytes from byte `at`: they read as zeros afterwards.
    ///
    /// # Errors
    /// As [`SimDevice::write_bytes`].
    pub fn discard_bytes(&self, at: u64, len_bytes: u64) -> Result<(), SimIoError> {
        self.erase(at, len_bytes, Touch::Discard)
    }

    /// Makes acknowledged writes durable. They already are; only planted crash bugs need it.
    ///
    /// # Errors
    /// [`SimIoError::Deleted`].
    pub fn flush_bytes(&self) -> Result<(), SimIoError> {
        let mut volume = self.enter(Doing::Flush)?;
        if volume.deleted {
            return Err(SimIoError::Deleted);
        }
        volume.tracking.commit();
        Ok(())
    }

    fn erase(&self, at: u64, len_bytes: u64, touch: Touch) -> Result<(), SimIoError> {
        let mut volume = self.enter(Doing::Change)?;
        let lbas = self.lbas(&volume, at, len_bytes)?;
        if lbas.is_empty() {
            return Ok(());
        }
        volume.reserve_record(self.shared.bugs)?;
        volume.before_op(self.shared.clock.as_ref());
        let moment = self.moment(&volume);
        if self.shared.bugs.is_empty() {
            self.mark_honestly(&mut volume, lbas, touch, None);
            volume.store.zero(at, at + len_bytes);
            return Ok(());
        }
        if touch == Touch::Zero && self.shared.bugs.has(Bug::ZeroOverDataIgnored) {
            let block = self.block();
            for lba in lbas.clone() {
                if !volume.holds_data(block, lba) {
                    volume.tracking.mark(lba..lba + 1, touch, moment);
                }
            }
        } else {
            volume.tracking.mark(lbas.clone(), touch, moment);
        }
        volume.store.zero(at, at + len_bytes);
        drop(volume);
        self.mark_neighbours(lbas);
        Ok(())
    }

    /// The LBAs that a request touches, if the volume has them.
    fn lbas(&self, volume: &Volume, at: u64, len_bytes: u64) -> Result<Range<u64>, SimIoError> {
        if volume.deleted {
            return Err(SimIoError::Deleted);
        }
        let block = self.block_bytes();
        let end = at.checked_add(len_bytes).ok_or(SimIoError::PastEnd)?;
        if end > volume.len_lbas * block {
            return Err(SimIoError::PastEnd);
        }
        Ok(if len_bytes == 0 { 0..0 } else { at / block..end.div_ceil(block) })
    }

    fn block_bytes(&self) -> u64 {
        self.block().bytes()
    }

    fn moment(&self, volume: &Volume) -> Moment {
        if self.shared.bugs.is_empty() {
            return Moment::default();
        }
        let now = self.shared.clock.now();
        // Before its cut a snapshot that is being made changes nothing for a write.
        let creating = now < volume.creating_until && volume.pending.is_none();
        Moment { creating, deleting: now < volume.deleting_until }
    }

    /// Marks the LBAs of an operation; `written` are the bytes, zeros if none.
    fn mark_honestly(
        &self,
        volume: &mut Volume,
        lbas: Range<u64>,
        touch: Touch,
        written: Option<(u64, &[u8])>,
    ) {
        let freedoms = &self.shared.config.freedoms;
        if !freedoms.elide_same_content || !self.shared.config.contents {
            volume.tracking.mark(lbas, touch, Moment::default());
            return;
        }
        let epoch = volume.tracking.links.last().map_or(0, |link| link.cut);
        for lba in lbas {
            let same = legal::elides(freedoms, lba / CHUNK, epoch)
                && volume.holds(self.block(), lba, written);
            if !same {
                volume.tracking.mark(lba..lba + 1, touch, Moment::default());
            }
        }
    }

    /// Planted: the marks also land on every other volume.
    fn mark_neighbours(&self, lbas: Range<u64>) {
        if !self.shared.bugs.has(Bug::NeighbourVolumeLeaks) {
            return;
        }
        for other in self.shared.cells().iter().filter(|cell| !Arc::ptr_eq(cell, &self.cell)) {
            let mut volume = other.write();
            let end = lbas.end.min(volume.len_lbas);
            if lbas.start < end {
                volume.tracking.mark(lbas.start..end, Touch::Write, Moment::default());
            }
        }
    }

    /// Planted: a slowed device does one transfer at a time, slowly.
    fn wait_if_slow(&self, len_bytes: u64) {
        if self.shared.bugs.has(Bug::SlowDevice) {
            let _turn = self.cell.turnstile.lock().unwrap_or_else(PoisonError::into_inner);
            let lbas = u32::try_from(len_bytes.div_ceil(self.block_bytes())).unwrap_or(u32::MAX);
            self.shared.clock.sleep(SLOW_LBA * lbas);
        }
    }
}

impl std::fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDevice").field("volume", &self.cell.uuid).finish_non_exhaustive()
    }
}

impl Volume {
    /// Fails the request if its tracking record cannot be stored, before anything else happens.
    fn reserve_record(&mut self, bugs: BugSet) -> Result<(), SimIoError> {
        if !self.meets(SimFault::Metadata) {
            return Ok(());
        }
        if bugs.has(Bug::MetadataIoErrorIgnored) {
            self.tracking.lose_next_record();
            return Ok(());
        }
        Err(SimIoError::TrackingRecord)
    }

    /// Planted: LBAs of a write that hold its content already and did not change in this epoch.
    fn rewrites(&self, block: BlockSize, at: u64, buf: &[u8]) -> Vec<u64> {
        let mut old = vec![0; buf.len()];
        self.store.read(at, &mut old);
        let blocks = old.chunks(block.get()).zip(buf.chunks(block.get()));
        let same = (at / block.bytes()..).zip(blocks).filter(|(_, (old, new))| old == new);
        same.map(|(lba, _)| lba).filter(|&lba| !self.tracking.changed_now(lba)).collect()
    }

    /// A write as planted bugs see it: the only ones that look at contents.
    fn write_planted(
        &mut self,
        bugs: BugSet,
        block: BlockSize,
        at: u64,
        buf: &[u8],
        moment: Moment,
    ) {
        let size = block.bytes();
        let lbas = at / size..(at + buf.len() as u64).div_ceil(size);
        let same = match bugs.any(REWRITE_BUGS) {
            true => self.rewrites(block, at, buf),
            false => Vec::new(),
        };
        let zeros = bugs.has(Bug::ZeroOverDataIgnored) && buf.iter().all(|&byte| byte == 0);
        if zeros {
            for lba in lbas.clone().filter(|&lba| !self.holds_data(block, lba)).collect::<Vec<_>>()
            {
                self.tracking.mark(lba..lba + 1, Touch::Zero, moment);
            }
        } else {
            self.tracking.mark(lbas.clone(), Touch::Write, moment);
        }
        for lba in same {
            self.tracking.note_rewritten(lba);
        }
        self.store.write(at, buf);
        if bugs.has(Bug::ContentBitFlippedOnWrite) {
            let last = (lbas.end - 1) * size;
            let mut byte = [0];
            self.store.read(last, &mut byte);
            self.store.write(last, &[byte[0] ^ 1]);
        }
    }

    /// Makes the cut that is still to be made, if there is one.
    pub(super) fn cut_pending(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.cut(pending.cut);
        }
    }

    /// As [`Volume::cut_pending`], if it is due.
    pub(super) fn settle(&mut self, now: Duration) {
        if self.pending.is_some_and(|pending| pending.by <= now) {
            self.cut_pending();
        }
    }

    /// Tracking and contents are cut together, under the volume's lock.
    pub(super) fn cut(&mut self, cut: u64) {
        self.tracking.cut(cut, self.len_lbas);
        self.store.cut(cut);
    }

    /// An operation comes: does a cut that is still to be made lie before it?
    fn before_op(&mut self, clock: &dyn Clock) {
        match &mut self.pending {
            None => {}
            Some(pending) if pending.ops_left > 0 && clock.now() < pending.by => {
                pending.ops_left -= 1;
            }
            Some(_) => self.cut_pending(),
        }
    }

    /// Whether an LBA holds already what an operation puts there: the part of `written` (its first
    /// byte and the bytes) that lies in it, or zeros.
    fn holds(&self, block: BlockSize, lba: u64, written: Option<(u64, &[u8])>) -> bool {
        let Some((at, bytes)) = written else { return !self.holds_data(block, lba) };
        let (first, end) = (lba * block.bytes(), (lba + 1) * block.bytes());
        let start = first.max(at);
        let inside = |byte: u64| usize::try_from(byte.saturating_sub(at)).unwrap_or(usize::MAX);
        let part = bytes.get(inside(start)..inside(end).min(bytes.len())).unwrap_or_default();
        let mut old = vec![0; part.len()];
        self.store.read(start, &mut old);
        old == part
    }

    fn holds_data(&self, block: BlockSize, lba: u64) -> bool {
        let mut old = vec![0; block.get()];
        self.store.read(lba * block.bytes(), &mut old);
        old.iter().any(|&byte| byte != 0)
    }
}

impl From<SimIoError> for std::io::Error {
    fn from(error: SimIoError) -> std::io::Error {
        let kind = match error {
            SimIoError::Deleted | SimIoError::Gone => std::io::ErrorKind::NotFound,
            SimIoError::PastEnd | SimIoError::NoSpace => std::io::ErrorKind::StorageFull,
            SimIoError::ReadOnly => std::io::ErrorKind::ReadOnlyFilesystem,
            SimIoError::NoContents | SimIoError::TrackingRecord | SimIoError::Medium => {
                std::io::ErrorKind::Other
            }
        };
        std::io::Error::new(kind, error)
    }
}

/// The volume exists no more.
pub(super) fn no_volume(uuid: VolumeUuid) -> SimError {
    SimError::NotFound(format!("volume {uuid} not found"))
}
