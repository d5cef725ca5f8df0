//! What a target is and can do: geometry, capabilities, judging policy, and one page of an answer.
//! Not covered: how a target is reached, and what its answers are worth.

use super::bitmap::ChunkBitmap;
use super::units::{BlockSize, Lba, LbaCount};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The shape of one volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Bytes of one LBA.
    pub block: BlockSize,
    /// Size of the volume; the last chunk may be partial.
    pub len: LbaCount,
    /// Whether this run created the volume (then it starts as zeros; otherwise it is unknown).
    pub fresh: bool,
}

/// How far a diff answer may report more than what could have changed (`oracle.md` section 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Every reported LBA must be one that could have changed.
    Exact,
    /// Every 64-LBA chunk with a reported LBA must hold one that could have changed.
    Chunk,
    /// As `Chunk`, with units of this many LBAs aligned from LBA 0.
    Granule(LbaCount),
    /// Over-reporting is measured, never judged.
    ReportOnly,
}

/// What a discard does to contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscardEffect {
    /// Discarded LBAs read as zeros.
    Zero,
    /// Old data or zeros, each LBA for itself.
    OldOrZero,
    /// Anything until it is read.
    Undefined,
    /// The target ignores or refuses discards.
    Ignored,
}

/// When an acknowledged write survives a kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// At the acknowledgement.
    OnAck,
    /// At the next good flush.
    OnFlush,
}

/// What a rollback does to the snapshot chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackKind {
    /// There is none.
    None,
    /// Later snapshots stay in the chain.
    Linear,
    /// The chain forks: pairs across the rollback may be refused.
    Forks,
}

/// What a diff without base of a clone is measured from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloneFullDiff {
    /// From zeros: data inherited from the parent is reported.
    IncludesParent,
    /// From the moment of cloning.
    SinceClone,
    /// Not known: only what both readings agree on is judged.
    Unknown,
}

/// What a target can do and promises (`oracle.md` section 3). Whatever is missing is printed once
/// per run as not testable, never silently passed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// The contents of a snapshot can be read.
    pub snapshot_readable: bool,
    /// What a discard does.
    pub discard: DiscardEffect,
    /// When writes are durable.
    pub durable: Durability,
    /// Whether change tracking survives a kill of the target.
    pub tracking_survives_kill: bool,
    /// What rollback does, if there is one.
    pub rollback: RollbackKind,
    /// What the full diff of a clone holds, if there are clones.
    pub clone_full_diff: Option<CloneFullDiff>,
    /// Whether volumes can be resized.
    pub resize: bool,
    /// Whether an area shrunk away and grown back reads as zeros.
    pub shrink_zeroes: bool,
    /// Whether the target can be restarted and killed.
    pub restart: bool,
    /// Whether volumes can be created and deleted.
    pub volume_lifecycle: bool,
    /// Whether several operations can be in flight together.
    pub concurrent_ops: bool,
    /// Bytes that a write changes all or nothing.
    pub atomic_write_bytes: u32,
    /// Snapshots of one volume that may be in creation at once.
    pub concurrent_snapshots: u32,
    /// LBAs the tracker's answers are rounded to (1 = exact).
    pub granularity: LbaCount,
    /// Ranges of one page at most, if known.
    pub page_limit: Option<u32>,
    /// Whether a diff against a deleted base is refused by the target itself (and not by our code).
    pub refuses_deleted_base: bool,
}

impl Capabilities {
    /// What cannot be tested on this target, for people; empty if everything can.
    pub fn not_testable(&self) -> Vec<&'static str> {
        let discard = match self.discard {
            DiscardEffect::Zero | DiscardEffect::OldOrZero => None,
            DiscardEffect::Undefined => Some("contents after a discard"),
            DiscardEffect::Ignored => Some("discard"),
        };
        let missing = [
            (!self.snapshot_readable, "contents of snapshots"),
            (self.rollback == RollbackKind::None, "rollback"),
            (self.clone_full_diff.is_none(), "clones"),
            (!self.resize, "resize"),
            (!self.restart, "restart and kill"),
            (!self.volume_lifecycle, "creating and deleting volumes"),
            (!self.concurrent_ops, "operations in flight together"),
            (!self.refuses_deleted_base, "refusal of a deleted base"),
        ];
        let missing = missing.into_iter().filter(|(is_missing, _)| *is_missing);
        missing.map(|(_, what)| what).chain(discard).collect()
    }
}

/// The changed LBAs of one chunk, as answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkBits {
    /// First LBA of the range, as sent: it may be unaligned, which the shape law judges.
    pub start: Lba,
    /// Its changed LBAs.
    pub bits: ChunkBitmap,
}

/// One page of a diff answer, decoded but not yet judged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Ranges in the order sent. A range wider than 64 LBAs arrives as several entries.
    pub chunks: Vec<ChunkBits>,
    /// How many ranges the page held on the wire.
    pub ranges: u32,
    /// Where to go on; `None` when this was the last page.
    pub next: Option<Lba>,
    /// Oddities that are legal but worth a note, already escaped for a terminal.
    pub notes: Vec<String>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Exact => f.write_str("exact"),
            Policy::Chunk => f.write_str("chunk"),
            Policy::Granule(lbas) => write!(f, "granule={lbas}"),
            Policy::ReportOnly => f.write_str("report-only"),
        }
    }
}

/// The text names no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a policy: exact, chunk, granule=N (N LBAs, at least 1) or report-only")]
pub struct BadPolicy(String);

impl FromStr for Policy {
    type Err = BadPolicy;
    fn from_str(text: &str) -> Result<Policy, BadPolicy> {
        let granule = || {
            let lbas = text.strip_prefix("granule=")?.parse().ok().filter(|&lbas| lbas > 0)?;
            Some(Policy::Granule(LbaCount::new(lbas)))
        };
        match text {
            "exact" => Ok(Policy::Exact),
            "chunk" => Ok(Policy::Chunk),
            "report-only" => Ok(Policy::ReportOnly),
            _ => granule().ok_or_else(|| BadPolicy(text.to_owned())),
        }
    }
}

#[cfg(test)]
impl Capabilities {
    /// An array that offers everything.
    pub(crate) const fn everything() -> Capabilities {
        Capabilities {
            snapshot_readable: true,
            discard: DiscardEffect::Zero,
            durable: Durability::OnAck,
            tracking_survives_kill: true,
            rollback: RollbackKind::Linear,
            clone_full_diff: Some(CloneFullDiff::IncludesParent),
            resize: true,
            shrink_zeroes: true,
            restart: true,
            volume_lifecycle: true,
            concurrent_ops: true,
            atomic_write_bytes: 4096,
            concurrent_snapshots: 1,
            granularity: LbaCount::new(1),
            page_limit: None,
            refuses_deleted_base: true,
        }
    }

    /// An array that offers no more than snapshots and their diffs.
    pub(crate) const fn bare() -> Capabilities {
        Capabilities {
            snapshot_readable: false,
            rollback: RollbackKind::None,
            clone_full_diff: None,
            resize: false,
            shrink_zeroes: false,
            restart: false,
            volume_lifecycle: false,
            concurrent_ops: false,
            ..Capabilities::everything()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_lacks_is_named_once_and_what_it_has_is_not() {
        let everything = Capabilities::everything();
        assert_eq!(everything.not_testable(), Vec::<&str>::new());
        let nothing = Capabilities {
            snapshot_readable: false,
            discard: DiscardEffect::Undefined,
            rollback: RollbackKind::None,
            clone_full_diff: None,
            resize: false,
            restart: false,
            volume_lifecycle: false,
            concurrent_ops: false,
            refuses_deleted_base: false,
            ..everything.clone()
        };
        let named = nothing.not_testable();
        assert_eq!(named.len(), 9, "{named:?}");
        let forks = Capabilities { discard: DiscardEffect::Ignored, ..everything };
        assert_eq!(forks.not_testable(), ["discard"]);
    }

    #[test]
    fn a_policy_reads_back_what_it_prints() {
        for policy in
            [Policy::Exact, Policy::Chunk, Policy::Granule(LbaCount::new(16)), Policy::ReportOnly]
        {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for bad in ["", "granule", "granule=0", "granule=-1", "Exact"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }
}
