//! Waiting for what the array does in its own time, shared by the interpreter and by everything
//! that touches the array outside a scenario. It reads, and handles snapshots; nothing else. Not
//! covered: retries of a call; adapters repeat what is safe to repeat.

use super::error::ApiError;
use super::port::{Array, Clock, SnapshotState};
use crate::block::SnapshotUuid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to wait, and who may say stop.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// Deadline for a new snapshot to become Available.
    pub available: Duration,
    /// Deadline for a deleted snapshot to be gone.
    pub gone: Duration,
    /// Set when the user asked to stop; waits end with [`ApiError::Interrupted`].
    pub stop: &'a AtomicBool,
}

/// First pause between two looks; doubled up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Looks until `done` answers something, pausing longer each time.
fn poll<T>(
    clock: &dyn Clock,
    limit: Duration,
    stop: &AtomicBool,
    what: impl Fn() -> String,
    mut done: impl FnMut() -> Result<Option<T>, ApiError>,
) -> Result<T, ApiError> {
    let start = clock.now();
    let mut pause = PAUSE_FIRST;
    loop {
        if let Some(found) = done()? {
            return Ok(found);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(ApiError::Interrupted);
        }
        if clock.now() - start >= limit {
            return Err(ApiError::Late { what: what(), seconds: limit.as_secs() });
        }
        clock.sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits until `snapshot` is Available.
///
/// # Errors
/// [`ApiError::Late`] after the deadline, [`ApiError::Failed`] if the array gave up or the
/// snapshot is on its way out, and whatever looking at it answers (a 404 means it vanished).
pub fn wait_available(
    array: &dyn Array,
    clock: &dyn Clock,
    snapshot: SnapshotUuid,
    waiting: Waiting<'_>,
) -> Result<(), ApiError> {
    let what = || format!("snapshot {snapshot} becoming Available");
    poll(clock, waiting.available, waiting.stop, what, || match array.snapshot_state(snapshot)? {
        SnapshotState::Available => Ok(Some(())),
        SnapshotState::Creating | SnapshotState::Other => Ok(None),
        state @ (SnapshotState::Failed | SnapshotState::Deleting | SnapshotState::Deleted) => {
            Err(ApiError::Failed(format!("snapshot {snapshot} is {state:?} instead of Available")))
        }
    })
}

/// Waits until looking at `snapshot` answers "not found".
///
/// # Errors
/// [`ApiError::Late`] after the deadline, and whatever else looking at it answers.
pub fn wait_gone(
    array: &dyn Array,
    clock: &dyn Clock,
    snapshot: SnapshotUuid,
    waiting: Waiting<'_>,
) -> Result<(), ApiError> {
    let what = || format!("snapshot {snapshot} being gone");
    poll(clock, waiting.gone, waiting.stop, what, || match array.snapshot_state(snapshot) {
        Ok(SnapshotState::Failed) => {
            Err(ApiError::Failed(format!("snapshot {snapshot} is Failed instead of gone")))
        }
        Ok(_) => Ok(None),
        Err(ApiError::NotFound(_)) => Ok(Some(())),
        Err(other) => Err(other),
    })
}

/// Deletes a snapshot and waits until it is gone; one that is gone already is fine.
///
/// # Errors
/// As [`Array::delete_snapshot`] and [`wait_gone`].
pub fn delete_and_wait(
    array: &dyn Array,
    clock: &dyn Clock,
    snapshot: SnapshotUuid,
    waiting: Waiting<'_>,
) -> Result<(), ApiError> {
    match array.delete_snapshot(snapshot) {
        Ok(()) => wait_gone(array, clock, snapshot, waiting),
        Err(ApiError::NotFound(_)) => Ok(()),
        Err(other) => Err(other),
    }
}
