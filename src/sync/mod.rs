//! The copy pipeline under test: diff pages -> one answer -> runs -> copy -> checksum.
//!
//! [`walk`] collects the pages of a diff and refuses what no array may answer, [`plan`] turns the
//! answer into runs, [`copy()`] moves them, [`digest`] proves the result, [`WriteLogged`] remembers
//! every LBA that was written. [`PipelineBug`] plants one mistake each, so that the oracle can be
//! shown to see it. Not covered: whether an answer is *right* (`crate::oracle`), when a sync
//! happens (`crate::engine`), and whether a device may be written at all (`crate::campaign`).

mod bugs;
mod checksum;
mod copy;
mod plan;
mod snapshot_source;
#[cfg(test)]
mod testing;
mod walk;
mod write_log;

pub use bugs::{BadPipelineBug, PipelineBug, PipelineBugs, chain_order};
pub use checksum::{
    BadDigest, ChecksumError, ChecksumMethod, Digest, digest, direct, external, pair,
};
pub use copy::{CopyConfig, CopyError, CopyReport, DEFAULT_WORKERS, Side, copy};
pub use plan::{RUN_LBAS_MAX, plan};
pub use snapshot_source::{SnapshotBlocks, SnapshotSource};
pub use walk::{DiffAnswer, ShapeFault, ShapeRule, WalkError, WalkRequest, walk, walk_streaming};
pub use write_log::WriteLogged;
