//! Clones that this tool left behind: finding them by name, and deleting exactly them.
//!
//! A clone carries a name of this tool, with the run in it, the run's journal says that it was made, and
//! the array shows that it was made of a snapshot. Clones of a run that goes on stay, and so do those
//! whose journal is lost. Not covered: snapshots (`super::cleanup`).

use super::cleanup::Runs;
use super::store::RunState;
use crate::array::{ApiError, Clones};
use crate::block::{SnapshotName, VolumeUuid};

/// A clone of this tool on the array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftoverClone {
    /// The volume.
    pub volume: VolumeUuid,
    /// Its name, with the run that gave it.
    pub name: SnapshotName,
    /// Whether its run goes on.
    pub run_state: RunState,
}

/// The clones of this tool on the array, sorted by run and number.
///
/// # Errors
/// When the array does not list its volumes.
pub fn leftover_clones(array: &dyn Clones, runs: Runs<'_>) -> Result<Vec<LeftoverClone>, ApiError> {
    let mut found: Vec<LeftoverClone> = array
        .clones()?
        .into_iter()
        .filter_map(|info| {
            let name: SnapshotName = info.name.parse().ok()?;
            Some(LeftoverClone { volume: info.uuid, name, run_state: runs.state(name.run()) })
        })
        .collect();
    found.sort_by_key(|clone| (clone.name, clone.volume));
    Ok(found)
}

/// Deletes one of them.
///
/// # Errors
/// Why it is still there, with the next step.
pub fn delete_leftover(
    array: &dyn Clones,
    runs: Runs<'_>,
    clone: &LeftoverClone,
) -> Result<(), String> {
    // Asked now, not when it was listed: a run may have started since.
    if let Some(why) = runs.keeps(clone.name.run()) {
        return Err(why);
    }
    // A clone is a volume: its name alone is never enough.
    if !runs.made_clone(clone.name, clone.volume) {
        return Err(format!(
            "no journal in {} says that run {} made it; look at it, and delete it by other means",
            runs.root.display(),
            clone.name.run()
        ));
    }
    array
        .delete_clone(clone.volume, clone.name)
        .map_err(|error| format!("{error}; run `lbaudit clean` again"))
}
