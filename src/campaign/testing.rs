//! An in-memory control plane for the tests of this folder: snapshots with names and lives, calls
//! that can be made to fail. It keeps no contents and answers empty diffs.

use crate::array::{ApiError, Array, Reply, SnapshotInfo, SnapshotState, VolumeInfo};
use crate::block::{Capabilities, Lba, LbaCount, Page, SnapshotName, SnapshotUuid, VolumeUuid};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// A call that is to fail.
pub(crate) type Fault = fn() -> ApiError;

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) volumes: BTreeMap<VolumeUuid, VolumeInfo>,
    pub(crate) snapshots: BTreeMap<SnapshotUuid, SnapshotInfo>,
    /// Everything that was asked, in order: `create NAME`, `delete UUID`, `get UUID`.
    pub(crate) calls: Vec<String>,
    /// A create stores the snapshot and then answers this: the reply was lost.
    pub(crate) lose_create_reply: Option<Fault>,
    pub(crate) fail_delete: Option<Fault>,
    pub(crate) fail_volume: Option<Fault>,
    pub(crate) fail_diff: Option<Fault>,
    /// A deleted snapshot stays Deleting.
    pub(crate) slow_delete: bool,
}

#[derive(Default)]
pub(crate) struct TestArray {
    inner: Mutex<Inner>,
}

pub(crate) fn reply(text: &str) -> Reply {
    Reply { status: Some(404), text: text.to_owned(), call: "GET".to_owned() }
}

impl TestArray {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test thread panics with it")
    }
    /// Puts a snapshot there that this tool need not have made.
    pub(crate) fn put(&self, name: &str, volume: VolumeUuid) -> SnapshotUuid {
        let uuid = SnapshotUuid::random();
        let info = SnapshotInfo {
            uuid,
            name: name.to_owned(),
            state: SnapshotState::Available,
            volume,
            len: LbaCount::mib(1),
            created: Some("2000-02-29T00:00:00Z".to_owned()),
        };
        self.inner().snapshots.insert(uuid, info);
        uuid
    }
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.inner().snapshots.values().map(|info| info.name.clone()).collect();
        names.sort();
        names
    }
}

impl Array for TestArray {
    fn capabilities(&self) -> Capabilities {
        Capabilities::bare()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        let inner = self.inner();
        if let Some(fault) = inner.fail_volume {
            return Err(fault());
        }
        inner.volumes.get(&volume).cloned().ok_or_else(|| ApiError::NotFound(reply("no volume")))
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        self.inner().calls.push(format!("create {name}"));
        let uuid = self.put(&name.to_string(), volume);
        let inner = self.inner();
        match inner.lose_create_reply {
            Some(fault) => Err(fault()),
            None => Ok(inner.snapshots[&uuid].clone()),
        }
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        let mut inner = self.inner();
        inner.calls.push(format!("get {snapshot}"));
        let found = inner.snapshots.get(&snapshot).cloned();
        found.ok_or_else(|| ApiError::NotFound(reply("no snapshot")))
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        Ok(self.inner().snapshots.values().cloned().collect())
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        let mut inner = self.inner();
        inner.calls.push(format!("delete {snapshot}"));
        if let Some(fault) = inner.fail_delete {
            return Err(fault());
        }
        if inner.slow_delete {
            let found = inner.snapshots.get_mut(&snapshot);
            return found
                .map(|info| info.state = SnapshotState::Deleting)
                .ok_or_else(|| ApiError::NotFound(reply("no snapshot")));
        }
        let gone = inner.snapshots.remove(&snapshot).map(|_| ());
        gone.ok_or_else(|| ApiError::NotFound(reply("no snapshot")))
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        _base: Option<SnapshotUuid>,
        _from: Lba,
    ) -> Result<Page, ApiError> {
        let inner = self.inner();
        match inner.fail_diff {
            Some(fault) => Err(fault()),
            None if inner.snapshots.contains_key(&snapshot) => Ok(Page::default()),
            None => Err(ApiError::NotFound(reply("no snapshot"))),
        }
    }
}
