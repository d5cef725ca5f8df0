//! The system under test as the interpreter sees it: the port, the pipeline's settings, and the
//! ledger of snapshots this run made. Not covered: how devices come to be writable
//! (`crate::device`, `crate::campaign`).

use super::verify::Reading;
use crate::array::{Array, BlockDevice, Clock, Waiting};
use crate::block::{LbaCount, LbaSet, Role, RunId, SnapshotName, SnapshotUuid, VolumeUuid};
use crate::oracle::Checks;
use crate::sync::{ChecksumMethod, CopyConfig};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The data plane of one volume.
pub enum DeviceHandle<'a> {
    /// Somebody else owns it.
    Borrowed(&'a dyn BlockDevice),
    /// A volume made during the run.
    Owned(Box<dyn BlockDevice>),
}

/// One volume under test.
pub struct SutVolume<'a> {
    /// Its identity on the array.
    pub uuid: VolumeUuid,
    /// Its data plane.
    pub device: DeviceHandle<'a>,
}

impl SutVolume<'_> {
    /// A volume whose device somebody else owns.
    pub fn borrowed(uuid: VolumeUuid, device: &dyn BlockDevice) -> SutVolume<'_> {
        SutVolume { uuid, device: DeviceHandle::Borrowed(device) }
    }
    /// Its data plane.
    pub fn device(&self) -> &dyn BlockDevice {
        match &self.device {
            DeviceHandle::Borrowed(device) => *device,
            DeviceHandle::Owned(device) => device.as_ref(),
        }
    }
}

/// How the pipeline under test runs.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Workers and planted pipeline bugs.
    pub copy: CopyConfig,
    /// How checksums are taken.
    pub checksum: ChecksumMethod,
    /// Copy only these LBAs of an answer; every report says so.
    pub limit_to: Option<LbaSet>,
    /// A full sync of more LBAs than this stops before copying.
    pub max_full_sync: Option<LbaCount>,
    /// Whether disorder inside a page and pad bits are violations (simulator) or notes (live).
    pub strict: bool,
}

/// What is told for a second judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recorded {
    /// Nothing.
    #[default]
    Nothing,
    /// What was done and what was answered.
    Answers,
    /// And what was read back, for which it is read twice.
    Blocks,
}

/// Everything a scenario runs against.
pub struct Sut<'a> {
    /// The control plane.
    pub array: &'a dyn Array,
    /// The volumes by role.
    pub volumes: BTreeMap<Role, SutVolume<'a>>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// How long to wait, and who may say stop.
    pub waiting: Waiting<'a>,
    /// The run's snapshots.
    pub ledger: &'a Ledger,
    /// How the pipeline runs.
    pub pipeline: Pipeline,
    /// Whether the volumes are in this process's memory. Then operations in flight together are sent
    /// in the order listed, which time that does not pass makes just as good, and the whole target
    /// is read back after each sync; from devices only what was copied and the chunks beside it.
    pub in_memory: bool,
    /// What the oracle looks at: everything, but in the self-test of the oracle.
    pub checks: Checks,
    /// What is told besides for a second judge (`crate::judge`).
    pub record: Recorded,
}

impl Sut<'_> {
    /// How its devices are read back.
    pub(super) fn reading(&self) -> Reading<'_> {
        Reading { stop: self.waiting.stop, threads: !self.in_memory }
    }
}

/// Names and list of the snapshots a run makes. A name is never given twice.
#[derive(Debug)]
pub struct Ledger {
    run: RunId,
    next: AtomicU32,
    live: Mutex<Vec<SnapshotUuid>>,
}

impl Ledger {
    /// An empty ledger of `run`.
    pub fn new(run: RunId) -> Ledger {
        Ledger { run, next: AtomicU32::new(1), live: Mutex::new(Vec::new()) }
    }
    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// A name that was never given before.
    pub fn next_name(&self) -> SnapshotName {
        SnapshotName::new(self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
    /// Snapshots made and not known to be gone, in the order made.
    pub fn live(&self) -> Vec<SnapshotUuid> {
        self.list().clone()
    }
    /// Remembers a snapshot that was made.
    pub fn made(&self, snapshot: SnapshotUuid) {
        self.list().push(snapshot);
    }
    /// Forgets a snapshot that is gone.
    pub fn gone(&self, snapshot: SnapshotUuid) {
        self.list().retain(|live| *live != snapshot);
    }
    fn list(&self) -> MutexGuard<'_, Vec<SnapshotUuid>> {
        // A panic elsewhere must not keep the clean-up from its list.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
