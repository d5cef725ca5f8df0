//! Clones of snapshots, where that is the only way to read one. Kept apart from [`super::Array`], so
//! that no scenario can make or delete a volume by them. Not covered: finding a clone's device.

use super::error::ApiError;
use super::port::{SnapshotInfo, VolumeInfo};
use crate::block::{SnapshotName, VolumeUuid};

/// What this tool may do with volumes: make one of a snapshot, and delete one it made.
pub trait Clones: Sync {
    /// Makes a volume of a snapshot, reachable by whoever may reach the volume it was taken of. It
    /// may not be usable yet.
    ///
    /// # Errors
    /// As the calls of [`super::Array`].
    fn make_clone(&self, of: &SnapshotInfo, name: SnapshotName) -> Result<VolumeInfo, ApiError>;

    /// Every volume of the project that was made of a snapshot.
    ///
    /// # Errors
    /// As the calls of [`super::Array`].
    fn clones(&self) -> Result<Vec<VolumeInfo>, ApiError>;

    /// Starts deleting a clone, if the volume still is one and still has this name.
    ///
    /// # Errors
    /// As the calls of [`super::Array`]; [`ApiError::Conflict`] if it is something else.
    fn delete_clone(&self, volume: VolumeUuid, name: SnapshotName) -> Result<(), ApiError>;
}
