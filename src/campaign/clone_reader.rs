//! An array whose snapshots are read through clones: each snapshot that is read gets a volume made of
//! it, which this host sees as a device, and which goes before the snapshot does.
//!
//! Everything else goes straight to the array behind. Not covered: clones as volumes of a scenario;
//! nothing is ever written to one.

use super::journal::JournalledClones;
use crate::array::{ApiError, Array, BlockDevice, Clock, Clones as _, Waiting};
use crate::array::{SnapshotInfo, VolumeInfo};
use crate::block::{BlockSize, Capabilities, Lba, Page, SnapshotName, SnapshotUuid, VolumeUuid};
use crate::engine::Ledger;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a clone is looked at while it is being made, and while it goes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a deleted clone is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// Opens the device of a volume of so many bytes for reading; `None` while this host has none.
pub type OpenDevice<'o> = dyn Fn(VolumeUuid, u64) -> Option<io::Result<Device>> + Sync + 'o;
/// A device that is only read.
pub type Device = Box<dyn BlockDevice + Send>;

/// A clone of this run.
struct Made {
    volume: VolumeUuid,
    name: SnapshotName,
    /// Once this host has it.
    device: Option<Arc<Device>>,
}

/// An array and the clones its snapshots are read through.
pub struct CloneReader<'a> {
    array: &'a dyn Array,
    clones: JournalledClones<'a>,
    open: &'a OpenDevice<'a>,
    ledger: &'a Ledger,
    clock: &'a dyn Clock,
    waiting: Waiting<'a>,
    made: Mutex<BTreeMap<SnapshotUuid, Made>>,
}

impl<'a> CloneReader<'a> {
    /// Reads snapshots of `array` through `clones`, named like the ledger's snapshots.
    pub fn new(
        (array, clones): (&'a dyn Array, JournalledClones<'a>),
        open: &'a OpenDevice<'a>,
        ledger: &'a Ledger,
        (clock, waiting): (&'a dyn Clock, Waiting<'a>),
    ) -> CloneReader<'a> {
        CloneReader { array, clones, open, ledger, clock, waiting, made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<SnapshotUuid, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device of the clone of `snapshot`, which is made if it is not there.
    fn device(&self, snapshot: SnapshotUuid) -> Result<Arc<Device>, ApiError> {
        // Held while waiting: who else reads the same snapshot needs the same clone.
        let mut made = self.made();
        if let Some(device) = made.get(&snapshot).and_then(|made| made.device.clone()) {
            return Ok(device);
        }
        let clone = match made.entry(snapshot) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let name = self.ledger.next_name();
                let volume = self.clones.make_clone(&self.array.snapshot(snapshot)?, name)?.uuid;
                place.insert(Made { volume, name, device: None })
            }
        };
        let device = Arc::new(self.wait_for(clone.volume)?);
        clone.device = Some(Arc::clone(&device));
        Ok(device)
    }

    /// Waits until a clone is usable and this host has its device.
    fn wait_for(&self, volume: VolumeUuid) -> Result<Device, ApiError> {
        let deadline = self.clock.now() + self.waiting.available;
        loop {
            if self.waiting.stop.load(Ordering::Relaxed) {
                return Err(ApiError::Interrupted);
            }
            let info = self.array.volume(volume)?;
            let opened = if info.usable { (self.open)(volume, info.size_bytes) } else { None };
            match opened {
                Some(Ok(device)) => return Ok(device),
                Some(Err(error)) => {
                    return Err(ApiError::Failed(format!("the device of clone {volume}: {error}")));
                }
                None if self.clock.now() >= deadline => {
                    let state = if info.usable { "usable" } else { "not usable" };
                    return Err(ApiError::Failed(format!(
                        "clone {volume} is {state} and no device with its wwid is on this host after {} s; connect it (nvme connect-all), or leave --clones out",
                        self.waiting.available.as_secs()
                    )));
                }
                None => self.clock.sleep(LOOK_EVERY),
            }
        }
    }

    /// Deletes the clone of a snapshot, if there is one, and looks whether it is gone.
    fn delete_clone(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        let Some(Made { volume, name, device }) = self.made().remove(&snapshot) else {
            return Ok(());
        };
        drop(device);
        if let Err(error) = self.clones.delete_clone(volume, name) {
            self.made().insert(snapshot, Made { volume, name, device: None });
            return Err(error);
        }
        // Who was asked to stop looks once and goes on: there are more of them.
        let patience = match self.waiting.stop.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => GONE_WITHIN,
        };
        let deadline = self.clock.now() + patience;
        loop {
            match self.array.volume(volume) {
                Err(ApiError::NotFound(_)) => {
                    self.clones.saw_gone(volume);
                    return Ok(());
                }
                // It is on its way; the journal keeps it until somebody sees it gone.
                _ if self.clock.now() >= deadline => return Ok(()),
                _ => self.clock.sleep(LOOK_EVERY),
            }
        }
    }
}

impl Array for CloneReader<'_> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { snapshot_readable: true, ..self.array.capabilities() }
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        self.array.volume(volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        self.array.create_snapshot(volume, name)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.array.snapshot(snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.array.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        // Whatever becomes of the clone, the snapshot goes.
        let clone = self.delete_clone(snapshot);
        self.array.delete_snapshot(snapshot).and(clone)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        self.array.diff_page(snapshot, base, from)
    }
    fn read_snapshot(
        &self,
        snapshot: SnapshotUuid,
        at: Lba,
        buf: &mut [u8],
    ) -> Result<(), ApiError> {
        let device = self.device(snapshot)?;
        let outside = || ApiError::Failed(format!("{at} lies outside any volume"));
        let offset = at.byte_offset(BlockSize::DEVICE).ok_or_else(outside)?;
        let read = device.read_at(offset, buf);
        read.map_err(|error| ApiError::Failed(format!("reading a clone: {error}")))
    }
}

#[cfg(test)]
#[path = "clone_reader_tests.rs"]
mod tests;
