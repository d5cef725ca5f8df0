//! The array simulator: volumes, snapshots and changed-block tracking as an array keeps them.
//!
//! Every write, zero-fill and discard sets bits per 64-LBA chunk in the current epoch at the moment
//! it arrives; a snapshot closes the epoch; a diff is the OR of epochs. Contents are never compared
//! to find changes. Raw 64-bit masks are used throughout: sharing bitmap code with the checker would
//! let an error in it cancel out. Planted [`Bug`]s are small deviations at the one place where the
//! honest code does it right.
//!
//! [`server`] serves it over HTTPS with the management API's own JSON ([`wire`]), tokens ([`jwt`])
//! and certificate ([`tls`]); [`attach`] gives its volumes paths (FUSE files, loop devices), [`serve`]
//! is both as a process.
//!
//! [`SimConfig::freedoms`] makes it take what an honest array may take (`legal`).
//!
//! [`hostile`] is what goes wrong on the wire, [`SimFault`] what goes wrong on a device.
//!
//! Not covered: faults of the host that the array runs on.

mod array;
pub mod attach;
mod bugs;
mod calls;
mod diff;
mod faults;
mod fingerprint;
pub mod fuse;
pub mod hostile;
pub mod jwt;
mod legal;
pub mod loopdev;
mod notes;
mod past;
mod port;
mod routes;
pub mod serve;
pub mod server;
mod state;
mod store;
pub mod tls;
mod tracking;
mod volume;
mod when;
pub mod wire;

#[cfg(test)]
mod legal_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
#[cfg(test)]
mod witness;
#[cfg(test)]
mod witness_bench;

pub use array::SimArray;
pub use bugs::{Bug, BugSpec};
pub use faults::SimFault;
pub use fingerprint::NameBlock;
pub use routes::Call as ApiCall;
pub use tracking::Preload;
pub use volume::{SimDevice, SimIoError};
pub use when::When;

use crate::block::{
    BlockSize, CloneFullDiff, Freedoms, LbaCount, RollbackKind, SnapshotUuid, VolumeUuid,
};
use std::time::Duration;

/// How a simulated array behaves. All fields are plain data; change what differs from the default.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Bytes of one LBA of every volume.
    pub block: BlockSize,
    /// Ranges of one diff page at most (at least 1 is used).
    pub page_limit: u32,
    /// How long a new snapshot stays Creating.
    pub create_delay: Duration,
    /// How long a deleted snapshot stays Deleting.
    pub delete_delay: Duration,
    /// What the diff without base of a clone is measured from. `Unknown` acts as `IncludesParent`.
    pub clone_full_diff: CloneFullDiff,
    /// What rollback does to the snapshot chain.
    pub rollback: RollbackKind,
    /// Whether a diff of a snapshot still Creating answers the first half of its ranges instead of
    /// refusing: what a client that does not wait for Available deserves.
    pub partial_diff_while_creating: bool,
    /// What identities are derived from: equal seeds and calls give equal UUIDs.
    pub seed: u64,
    /// Planted bugs; empty means honest.
    pub bugs: Vec<Bug>,
    /// Legal freedoms that it takes.
    pub freedoms: Freedoms,
    /// Whether it stores what is written. Without contents it only tracks: reading is refused, and
    /// bugs and freedoms that look at contents do nothing.
    pub contents: bool,
}

impl Default for SimConfig {
    /// An honest array of 4 KiB blocks: 10,000 ranges a page (`lightbits-api.md` section 3), no
    /// delays, linear rollback, clones that report what they inherited.
    fn default() -> SimConfig {
        SimConfig {
            block: BlockSize::DEVICE,
            page_limit: 10_000,
            create_delay: Duration::ZERO,
            delete_delay: Duration::ZERO,
            clone_full_diff: CloneFullDiff::IncludesParent,
            rollback: RollbackKind::Linear,
            partial_diff_while_creating: false,
            seed: 0,
            bugs: Vec::new(),
            freedoms: Freedoms::NONE,
            contents: true,
        }
    }
}

/// Why the simulated array did not do as told; each carries its words for the user.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SimError {
    /// No such volume or snapshot (404).
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense (400).
    #[error("{0}")]
    BadRequest(String),
    /// The name or identity is taken (409).
    #[error("{0}")]
    Conflict(String),
    /// Another operation runs; try again later (503).
    #[error("{0}")]
    Busy(String),
}

impl SimError {
    /// The HTTP status the management API answers this with.
    pub const fn http_status(&self) -> u16 {
        match self {
            SimError::NotFound(_) => 404,
            SimError::BadRequest(_) => 400,
            SimError::Conflict(_) => 409,
            SimError::Busy(_) => 503,
        }
    }
}

/// Where a snapshot is in its life; one that is gone is not shown at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SimSnapshotState {
    /// Its cut is made, but it cannot be used yet.
    Creating,
    /// Ready.
    Available,
    /// Being removed; it answers nothing any more.
    Deleting,
}

/// A snapshot as the array shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimSnapshotInfo {
    /// Its identity.
    pub uuid: SnapshotUuid,
    /// Its name, unique among snapshots that are not gone.
    pub name: String,
    /// Where it is in its life.
    pub state: SimSnapshotState,
    /// The volume it was taken of.
    pub volume: VolumeUuid,
    /// The name of that volume.
    pub volume_name: String,
    /// Size of the volume when it was taken.
    pub len: LbaCount,
    /// The same in bytes.
    pub size_bytes: u64,
    /// Clock time of its cut.
    pub created: Duration,
}

/// A volume as the array shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimVolumeInfo {
    /// Its identity.
    pub uuid: VolumeUuid,
    /// Its name, unique among volumes.
    pub name: String,
    /// Its size now.
    pub len: LbaCount,
    /// The same in bytes; the last 64-LBA chunk may be partial.
    pub size_bytes: u64,
    /// Bytes of one LBA.
    pub block: BlockSize,
    /// The snapshot it was cloned from, if it is a clone.
    pub source_snapshot: Option<SnapshotUuid>,
    /// Clock time of its creation.
    pub created: Duration,
}

/// The changed LBAs of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimRange {
    /// First LBA of the chunk (a multiple of 64 when honest).
    pub start_lba: u64,
    /// Last LBA of the chunk: `start_lba + 63`.
    pub end_lba_inclusive: u64,
    /// Bit `i` is LBA `start_lba + i`, bit 0 least significant.
    pub bits: u64,
}

/// One page of a diff.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SimPage {
    /// Chunks with changes, ascending.
    pub ranges: Vec<SimRange>,
    /// Where the next page starts; 0 when this was the last.
    pub next_offset_lba: u64,
}
