//! The 20 fixed tests (`suite.md`), as data: each row builds a list of operations and checks and
//! does no I/O. `engine::interp` runs them, the oracle judges every diff and sync besides.
//!
//! Not covered: selecting, timing and cleaning up ([`run_suite`]); printing (`crate::report`).

mod edge;
mod notes;
mod plan;
mod resilience;
mod result;
mod runner;

mod sanity;

pub use notes::note_of;
pub use plan::Plan;
pub use result::{Outcome, Phase, SuiteSummary, TestResult};
pub use runner::{Options, Progress, run_suite, scenario_of};

use crate::block::{Extent, LbaCount};

/// LBAs that every volume must have for the suite: 1776 MiB.
pub const MIN_LBAS: LbaCount = LbaCount::mib(1776);

/// One fixed test.
#[derive(Clone, Copy, Debug)]
pub struct TestSpec {
    /// Its frozen name.
    pub name: &'static str,
    /// Its group.
    pub phase: Phase,
    /// The only LBAs it writes, on either volume (full syncs copy the whole answer besides).
    pub footprint: &'static [Extent],
    /// Why a failure matters, in one line, for `explain`.
    pub meaning: &'static str,
    /// Writes its operations down.
    pub build: fn(&mut Plan),
}

/// The suite, in the order it runs.
pub const SUITE: [TestSpec; 20] = [
    sanity::NO_CHANGE_DIFF,
    sanity::FULL_SCAN_ACCURACY,
    sanity::INCREMENTAL_DIFF_ACCURACY,
    sanity::OVERWRITE_SAME_REGION,
    sanity::SCATTERED_WRITES,
    sanity::FULL_SYNC_CHECKSUM,
    sanity::INCREMENTAL_SYNC_CHECKSUM,
    edge::LARGE_CONTIGUOUS_WRITE,
    edge::DELETE_REWRITE_CYCLE,
    edge::MULTI_SNAPSHOT_CHAIN,
    edge::IDEMPOTENT_SYNC,
    edge::PARTIAL_CHUNK_BITMAP,
    edge::RAPID_SNAPSHOTS,
    resilience::DELETED_BASE_SNAPSHOT,
    resilience::PAGINATION_STRESS,
    resilience::PARTIAL_REGION_UPDATE,
    resilience::NON_ADJACENT_SNAPSHOTS,
    resilience::LONG_INCREMENTAL_CHAIN,
    resilience::POINT_IN_TIME_ISOLATION,
    resilience::SYNC_THROUGHPUT_BASELINE,
];
