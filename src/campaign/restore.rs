//! Blocks that a killed run left stamped: found in the journals, and given back what they held.
//!
//! The device goes through every guard again. A block is written only if it holds a stamp of that
//! very run; what somebody wrote since stays. Not covered: runs whose folder is not here; nothing
//! else knows the old bytes.

use super::journal::{self, JournalError, Saved, note_restored};
use super::store::{JOURNAL, RunState, is_own, run_folders, run_state};
use crate::array::VolumeInfo;
use crate::block::{LbaCount, LbaSet, RunId, VolumeUuid};
use crate::device::signature::Allowed;
use crate::device::{Consent, ConsentItem, Host, Identity, Wanted, open_volumes};
use std::io;
use std::path::{Path, PathBuf};

/// Blocks of one volume that a run may have left stamped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StampedBlocks {
    /// The run.
    pub run: RunId,
    /// Whether it goes on: then it puts them back itself.
    pub run_state: RunState,
    /// Its journal.
    pub journal: PathBuf,
    /// Where they are and what they held.
    pub saved: Saved,
}

/// What the journals of some runs say.
#[derive(Debug, Default)]
pub struct Found {
    /// Blocks not known to be put back.
    pub blocks: Vec<StampedBlocks>,
    /// Journals that cannot be believed.
    pub unreadable: Vec<JournalError>,
}

/// What became of the blocks of one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutBack {
    /// They held stamps and hold the old bytes now.
    pub restored: LbaSet,
    /// They hold what somebody wrote since.
    pub kept: LbaSet,
}

/// Looks through the journals of the runs below `root` for blocks of the given volumes, or of all
/// if none is given. Newest run first, and to be put back in that order: what a later run saved may
/// be a stamp of an earlier one.
///
/// # Errors
/// When the run folders cannot be listed.
pub fn stamped_blocks(root: &Path, volumes: &[VolumeUuid]) -> io::Result<Found> {
    let mut found = Found::default();
    let folders = run_folders(root)?.into_iter().filter(|(_, folder)| is_own(folder));
    for (run, folder) in folders.rev() {
        let path = folder.join(JOURNAL);
        match journal::read(&path) {
            Ok(records) => {
                let asked_for =
                    |saved: &Saved| volumes.is_empty() || volumes.contains(&saved.volume);
                let saved = records.stamped.into_iter().filter(asked_for);
                let run_state = run_state(root, run);
                found.blocks.extend(saved.map(|saved| {
                    let journal = path.clone();
                    StampedBlocks { run, run_state, journal, saved }
                }));
            }
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unreadable.push(error),
        }
    }
    Ok(found)
}

/// Gives the blocks back what they held, on `device`, which must be the volume of `info`.
///
/// # Errors
/// Why nothing, or not everything, was put back; a second try is safe.
pub fn put_back(
    host: &Host,
    blocks: &StampedBlocks,
    info: &VolumeInfo,
    device: &Path,
) -> Result<PutBack, String> {
    let StampedBlocks { run, run_state, journal, saved } = blocks;
    if *run_state == RunState::Alive {
        return Err(format!("run {run} goes on and puts them back itself; stop it first"));
    }
    let lbas = saved.blocks.lbas();
    let wanted = Wanted {
        path: device.to_owned(),
        volume: saved.volume,
        name: info.name.clone(),
        size_bytes: info.size_bytes,
        sector_bytes: info.sector_bytes,
        footprint: lbas.runs().last().map_or(LbaCount::ZERO, |run| LbaCount::new(run.end().get())),
        counterpart: None,
    };
    // The run had consent to put the stamps there, and only stamps are written over.
    let uuid = saved.volume.to_string();
    let tail = uuid.get(uuid.len().saturating_sub(12)..).unwrap_or_default().to_owned();
    let consent = Consent::new(vec![ConsentItem::Tail(tail)]).allowing(Allowed::Whatever);
    let opened = open_volumes(host, vec![wanted], &consent).map_err(|error| error.to_string())?;
    let device = opened.first().ok_or("it could not be opened")?;
    let owner = (*run, saved.role);
    let port = device.stamp_port(owner, saved.blocks.clone(), |_| Ok(()));
    let port = port.map_err(|error| error.to_string())?;
    let now = port.look().map_err(|error| error.to_string())?;
    if now.stamped.is_empty() && device.identity() == Identity::Undecided {
        return Err(format!(
            "no stamp of run {run} is on {}, and nothing says that it is volume {uuid}: name the right device, or remove {} if the volume is gone",
            device.path().display(),
            journal.display()
        ));
    }
    port.restore(&now.stamped).map_err(|error| error.to_string())?;
    note_restored(journal, saved.volume)
        .map_err(|error| format!("they were put back, but {}: {error}", journal.display()))?;
    Ok(PutBack { restored: now.stamped, kept: now.other })
}
