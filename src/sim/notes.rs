//! What the management API keeps about volumes and snapshots and the array itself does not care
//! for: access lists, labels, namespace numbers, versions. Objects made elsewhere get defaults. Not
//! covered: anything that could change a diff.

use super::wire::Label;
use crate::block::{SnapshotUuid, VolumeUuid};
use std::collections::{BTreeMap, BTreeSet};

/// Notes about one volume.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct VolumeNotes {
    pub(super) acl: Vec<String>,
    pub(super) ip_acl: Vec<String>,
    pub(super) labels: Vec<Label>,
    pub(super) compression: bool,
    pub(super) replica_count: u32,
    /// NVMe namespace number, from 1 on, never used twice.
    pub(super) nsid: u32,
    /// Counts changes from 1 on; the ETag.
    pub(super) revision: u64,
}

/// Notes about one snapshot, taken when it was made.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SnapshotNotes {
    pub(super) description: String,
    pub(super) retention: Option<String>,
    /// Those of its volume at that moment.
    pub(super) volume: VolumeNotes,
}

/// All notes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    volumes: BTreeMap<VolumeUuid, VolumeNotes>,
    snapshots: BTreeMap<SnapshotUuid, SnapshotNotes>,
    last_nsid: u32,
}

impl Notes {
    /// Those of a volume, to read or change.
    pub(super) fn volume(&mut self, volume: VolumeUuid) -> &mut VolumeNotes {
        let last_nsid = &mut self.last_nsid;
        self.volumes.entry(volume).or_insert_with(|| {
            *last_nsid += 1;
            VolumeNotes {
                acl: vec!["ALLOW_ANY".to_owned()],
                ip_acl: vec!["ALLOW_ANY".to_owned()],
                labels: Vec::new(),
                compression: false,
                replica_count: 1,
                nsid: *last_nsid,
                revision: 1,
            }
        })
    }

    /// Those of a snapshot of `volume`, to read or change.
    pub(super) fn snapshot(
        &mut self,
        snapshot: SnapshotUuid,
        volume: VolumeUuid,
    ) -> &mut SnapshotNotes {
        let volume = self.volume(volume).clone();
        self.snapshots.entry(snapshot).or_insert_with(|| SnapshotNotes {
            description: String::new(),
            retention: None,
            volume,
        })
    }

    /// Forgets every snapshot but these, so that a long soak does not fill the memory.
    pub(super) fn keep_snapshots(&mut self, alive: &BTreeSet<SnapshotUuid>) {
        self.snapshots.retain(|snapshot, _| alive.contains(snapshot));
    }

    /// Forgets a volume.
    pub(super) fn forget_volume(&mut self, volume: VolumeUuid) {
        self.volumes.remove(&volume);
    }
}
