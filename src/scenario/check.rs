//! Explicit claims, as data. Every diff and sync is judged without them; they say what the fixed
//! suite promises on top (`suite.md`). Each speaks of the most recent diff or sync. Not covered:
//! how a check is evaluated (`crate::engine`).

use super::label::Label;
use crate::block::{ChunkBitmap, ChunkIndex, Extent, LbaCount};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One claim.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// The diff has no range and no set LBA.
    EmptyDiff,
    /// Every LBA there is in the diff.
    Reported {
        /// Where.
        at: Extent,
    },
    /// No LBA there is in the diff.
    NotReported {
        /// Where.
        at: Extent,
    },
    /// At least so many LBAs are set there.
    ReportedAtLeast {
        /// Where.
        within: Extent,
        /// How many.
        lbas: LbaCount,
    },
    /// So many LBAs are set there, give or take.
    ReportedAbout {
        /// Where.
        within: Extent,
        /// How many.
        lbas: LbaCount,
        /// How many more or less.
        tolerance: LbaCount,
    },
    /// Exactly so many ranges intersect the extent.
    RangesWithin {
        /// Where.
        within: Extent,
        /// How many ranges.
        ranges: u64,
    },
    /// The whole diff has at least so many ranges.
    RangesAtLeast {
        /// How many ranges.
        ranges: u64,
    },
    /// The chunk's bitmap is exactly this.
    Bits {
        /// The chunk.
        chunk: ChunkIndex,
        /// Its bitmap.
        bits: ChunkBitmap,
    },
    /// Over the ranges that intersect the extent, each starts 64 LBAs after the one before.
    Contiguous {
        /// Where.
        within: Extent,
    },
    /// Source and target have the same SHA-256 there.
    Synced {
        /// Where.
        at: Extent,
    },
    /// The target has the SHA-256 of what was written to the source there, now and not earlier.
    TargetHolds {
        /// Where.
        at: Extent,
    },
    /// The last sync wrote nothing there, and the target has the same SHA-256 as at its last
    /// checksum.
    TargetUntouched {
        /// Where.
        at: Extent,
    },
    /// The whole target is, block by block, what the shadow model says there.
    TargetAsModelled {
        /// Where.
        at: Extent,
    },
    /// The last sync copied so many LBAs, give or take.
    SyncedAbout {
        /// How many.
        lbas: LbaCount,
        /// How much more or less, in thousandths.
        tolerance_permille: u16,
    },
    /// All syncs of the scenario together copied so many LBAs, give or take.
    SyncedTotalAbout {
        /// How many.
        lbas: LbaCount,
        /// How much more or less, in thousandths.
        tolerance_permille: u16,
    },
    /// The last two syncs saw the same number of ranges and left the same target contents there.
    SameAsPreviousSync {
        /// Where.
        at: Extent,
    },
    /// The last diff was refused, as one against something that is gone must be.
    Refused,
    /// The snapshot is neither listed nor found.
    Gone {
        /// Which.
        label: Label,
    },
    /// The last sync moved at least so many MiB a second, diff and flush included.
    Throughput {
        /// How many.
        min_mib_per_s: u32,
    },
}

impl Check {
    /// Whether it speaks of a diff's answer alone, so that it can be asked even after a sync that
    /// did not copy.
    pub const fn speaks_of_the_answer(&self) -> bool {
        matches!(
            self,
            Check::EmptyDiff
                | Check::Reported { .. }
                | Check::NotReported { .. }
                | Check::ReportedAtLeast { .. }
                | Check::ReportedAbout { .. }
                | Check::RangesWithin { .. }
                | Check::RangesAtLeast { .. }
                | Check::Bits { .. }
                | Check::Contiguous { .. }
        )
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::EmptyDiff => f.write_str("the diff is empty"),
            Check::Reported { at } => write!(f, "{at} reported"),
            Check::NotReported { at } => write!(f, "{at} not reported"),
            Check::ReportedAtLeast { within, lbas } => {
                write!(f, "at least {lbas} LBAs reported in {within}")
            }
            Check::ReportedAbout { within, lbas, tolerance } => {
                write!(f, "{lbas} +-{tolerance} LBAs reported in {within}")
            }
            Check::RangesWithin { within, ranges } => {
                write!(f, "exactly {ranges} ranges in {within}")
            }
            Check::RangesAtLeast { ranges } => write!(f, "at least {ranges} ranges"),
            Check::Bits { chunk, bits } => write!(f, "chunk {chunk} is {:#018x}", bits.bits()),
            Check::Contiguous { within } => write!(f, "ranges in {within} without a gap"),
            Check::Synced { at } => write!(f, "{at} equal on both devices"),
            Check::TargetHolds { at } => write!(f, "target holds what was written at {at}"),
            Check::TargetUntouched { at } => write!(f, "{at} of the target untouched"),
            Check::TargetAsModelled { at } => write!(f, "{at} of the target as it should be"),
            Check::SyncedAbout { lbas, tolerance_permille } => {
                write!(
                    f,
                    "{lbas} LBAs synced +-{}.{} %",
                    tolerance_permille / 10,
                    tolerance_permille % 10
                )
            }
            Check::SyncedTotalAbout { lbas, tolerance_permille } => {
                write!(
                    f,
                    "{lbas} LBAs synced in all +-{}.{} %",
                    tolerance_permille / 10,
                    tolerance_permille % 10
                )
            }
            Check::SameAsPreviousSync { at } => write!(f, "second sync of {at} like the first"),
            Check::Refused => f.write_str("the diff was refused"),
            Check::Gone { label } => write!(f, "{label} gone"),
            Check::Throughput { min_mib_per_s } => write!(f, "at least {min_mib_per_s} MiB/s"),
        }
    }
}
