//! One volume: its contents and tracking under one lock, and the device that reads and writes it.
//! Not covered: snapshots' names and lives (`super::state`).

use super::bugs::{Bug, BugSet};
use super::store::Store;
use super::tracking::{Moment, Origin, Touch, Tracking};
use super::{SimError, array::Shared};
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
    /// Writes that fail because their tracking record cannot be stored.
    pub(super) failing_records: u32,
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
                failing_records: 0,
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
    /// The array could not store the tracking record, so it did not store the data (EIO).
    #[error("the tracking record cannot be stored")]
    TrackingRecord,
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
    /// [`SimIoError::Deleted`] and [`SimIoError::PastEnd`].
    pub fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<(), SimIoError> {
        self.wait_if_slow(buf.len() as u64);
        let volume = self.cell.read();
        self.lbas(&volume, at, buf.len() as u64)?;
        volume.store.read(at, buf);
        Ok(())
    }

    /// Stores `buf` from byte `at`, wholly, and marks every LBA it touches.
    ///
    /// # Errors
    /// As [`SimDevice::read_bytes`], and [`SimIoError::TrackingRecord`] with nothing stored.
    pub fn write_bytes(&self, at: u64, buf: &[u8]) -> Result<(), SimIoError> {
        self.wait_if_slow(buf.len() as u64);
        let mut volume = self.cell.write();
        let lbas = self.lbas(&volume, at, buf.len() as u64)?;
        if lbas.is_empty() {
            return Ok(());
        }
        volume.reserve_record(self.shared.bugs)?;
        let moment = self.moment(&volume);
        if self.shared.bugs.is_empty() {
            volume.tracking.mark(lbas, Touch::Write, moment);
            volume.store.write(at, buf);
        } else {
            volume.write_planted(self.shared.bugs, self.block(), at, buf, moment);
            drop(volume);
            self.mark_neighbours(lbas);
        }
        Ok(())
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
        let mut volume = self.cell.write();
        if volume.deleted {
            return Err(SimIoError::Deleted);
        }
        volume.tracking.commit();
        Ok(())
    }

    fn erase(&self, at: u64, len_bytes: u64, touch: Touch) -> Result<(), SimIoError> {
        let mut volume = self.cell.write();
        let lbas = self.lbas(&volume, at, len_bytes)?;
        if lbas.is_empty() {
            return Ok(());
        }
        volume.reserve_record(self.shared.bugs)?;
        let moment = self.moment(&volume);
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
        Moment { creating: now < volume.creating_until, deleting: now < volume.deleting_until }
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
        if self.failing_records == 0 {
            return Ok(());
        }
        self.failing_records -= 1;
        if bugs.has(Bug::MetadataIoErrorIgnored) {
            self.tracking.lose_next_record();
            return Ok(());
        }
        Err(SimIoError::TrackingRecord)
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
        let zeros = bugs.has(Bug::ZeroOverDataIgnored) && buf.iter().all(|&byte| byte == 0);
        if zeros {
            for lba in lbas.clone().filter(|&lba| !self.holds_data(block, lba)).collect::<Vec<_>>()
            {
                self.tracking.mark(lba..lba + 1, Touch::Zero, moment);
            }
        } else {
            self.tracking.mark(lbas.clone(), Touch::Write, moment);
        }
        if bugs.has(Bug::AnswerVaries) {
            let mut old = vec![0; buf.len()];
            self.store.read(at, &mut old);
            let blocks = old.chunks(block.get()).zip(buf.chunks(block.get()));
            for (lba, _) in lbas.clone().zip(blocks).filter(|(_, (old, new))| old == new) {
                self.tracking.note_rewritten(lba);
            }
        }
        self.store.write(at, buf);
        if bugs.has(Bug::ContentBitFlippedOnWrite) {
            let last = (lbas.end - 1) * size;
            let mut byte = [0];
            self.store.read(last, &mut byte);
            self.store.write(last, &[byte[0] ^ 1]);
        }
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
            SimIoError::Deleted => std::io::ErrorKind::NotFound,
            SimIoError::PastEnd => std::io::ErrorKind::StorageFull,
            SimIoError::TrackingRecord => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// The volume exists no more.
pub(super) fn no_volume(uuid: VolumeUuid) -> SimError {
    SimError::NotFound(format!("volume {uuid} not found"))
}
