//! The planted bugs of the pipeline: each one a mistake that really shipped in some copy tool.
//!
//! A bug is a name and a flag. The mistake itself sits at the one place where the honest code is
//! right, behind `bugs.has(..)`. Not covered: bugs of the array (`crate::sim`).

use std::fmt;
use std::str::FromStr;

/// One mistake of the pipeline (`bugs.md`, "Pipeline side"). Names are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PipelineBug {
    /// Zero blocks are not written, so old data stays on the target.
    SkipsZeroBlocks,
    /// The target offset (LBA x block size) is computed in 32 bits.
    SeekOverflow32Bit,
    /// A short write is not continued.
    ShortWriteIgnored,
    /// The tail of the last run is not copied.
    LastPartialRunDropped,
    /// Neighbouring runs are merged over an unchanged gap.
    RunCoalesceOverGap,
    /// An empty page with a next offset is taken for the end of the walk.
    EmptyPageEndsWalk,
    /// A chain of snapshots is applied in the order of their names as text.
    ChainSortedAsText,
    /// The live source is read although the snapshot was asked for.
    LiveSourceTorn,
    /// The diff is asked for before the snapshot is Available.
    ReadsBeforeAvailable,
    /// The index of a chunk is used where its first LBA is meant.
    ChunkForLba,
}

/// What is known about one bug, besides its mechanism.
struct Entry {
    bug: PipelineBug,
    name: &'static str,
    description: &'static str,
    kinds: &'static [&'static str],
    witness_len: u32,
}

/// The table of `bugs.md`, in its order.
const TABLE: [Entry; 10] = [
    Entry {
        bug: PipelineBug::SkipsZeroBlocks,
        name: "skips-zero-blocks",
        description: "zero blocks are not written; old data stays on the target",
        kinds: &["content"],
        witness_len: 5,
    },
    Entry {
        bug: PipelineBug::SeekOverflow32Bit,
        name: "seek-overflow-32bit",
        description: "the target offset in bytes is computed in 32 bits",
        kinds: &["content", "disturbed"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::ShortWriteIgnored,
        name: "short-write-ignored",
        description: "a short write is not continued (needs the short-write fault)",
        kinds: &["content"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::LastPartialRunDropped,
        name: "last-partial-run-dropped",
        description: "the tail of the last run is not copied",
        kinds: &["content"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::RunCoalesceOverGap,
        name: "run-coalesce-over-gap",
        description: "neighbouring runs are merged over an unchanged gap",
        kinds: &["disturbed"],
        witness_len: 3,
    },
    Entry {
        bug: PipelineBug::EmptyPageEndsWalk,
        name: "empty-page-ends-walk",
        description: "an empty page with a next offset is taken for the end",
        kinds: &["missed", "content"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::ChainSortedAsText,
        name: "chain-sorted-as-text",
        description: "a chain is applied in text order: s10 before s2",
        kinds: &["content"],
        witness_len: 4,
    },
    Entry {
        bug: PipelineBug::LiveSourceTorn,
        name: "live-source-torn",
        description: "the live source is read though the snapshot was asked for",
        kinds: &["content"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::ReadsBeforeAvailable,
        name: "reads-before-available",
        description: "the diff is read before the snapshot is Available",
        kinds: &["missed", "content"],
        witness_len: 2,
    },
    Entry {
        bug: PipelineBug::ChunkForLba,
        name: "chunk-for-lba",
        description: "a chunk's index is used where its first LBA is meant",
        kinds: &["content", "disturbed"],
        witness_len: 2,
    },
];

impl PipelineBug {
    /// All bugs, in the order of the catalogue.
    pub const ALL: [PipelineBug; TABLE.len()] = {
        let mut all = [PipelineBug::SkipsZeroBlocks; TABLE.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].bug;
            i += 1;
        }
        all
    };

    const fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }
    /// The stable name of `--plant`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }
    /// The bug of this name.
    pub fn from_name(name: &str) -> Option<PipelineBug> {
        TABLE.iter().find(|entry| entry.name == name).map(|entry| entry.bug)
    }
    /// What goes wrong, in one line.
    pub const fn description(self) -> &'static str {
        self.entry().description
    }
    /// Names of the kinds of violation it may show as.
    pub const fn kinds(self) -> &'static [&'static str] {
        self.entry().kinds
    }
    /// Steps of the shortest scenario that shows it, the observing step not counted.
    pub const fn witness_len(self) -> u32 {
        self.entry().witness_len
    }
}

impl fmt::Display for PipelineBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no bug of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a bug of the pipeline")]
pub struct BadPipelineBug(String);

impl FromStr for PipelineBug {
    type Err = BadPipelineBug;
    fn from_str(text: &str) -> Result<PipelineBug, BadPipelineBug> {
        PipelineBug::from_name(text).ok_or_else(|| BadPipelineBug(text.to_owned()))
    }
}

/// The bugs planted in one run; normally none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PipelineBugs(u16);

impl PipelineBugs {
    /// The honest pipeline.
    pub const NONE: PipelineBugs = PipelineBugs(0);

    /// These and `bug`.
    pub const fn with(self, bug: PipelineBug) -> PipelineBugs {
        PipelineBugs(self.0 | 1 << bug as u8)
    }
    /// Whether `bug` is planted.
    pub const fn has(self, bug: PipelineBug) -> bool {
        self.0 >> bug as u8 & 1 == 1
    }
}

impl From<PipelineBug> for PipelineBugs {
    fn from(bug: PipelineBug) -> PipelineBugs {
        PipelineBugs::NONE.with(bug)
    }
}

impl FromIterator<PipelineBug> for PipelineBugs {
    fn from_iter<I: IntoIterator<Item = PipelineBug>>(bugs: I) -> PipelineBugs {
        bugs.into_iter().fold(PipelineBugs::NONE, PipelineBugs::with)
    }
}

/// The order in which the snapshots of a chain are applied, given in the order they were taken:
/// that very order. Sorting names as text puts `s10` before `s2`.
pub fn chain_order<T: fmt::Display>(taken: Vec<T>, bugs: PipelineBugs) -> Vec<T> {
    let mut order = taken;
    if bugs.has(PipelineBug::ChainSortedAsText) {
        order.sort_by_key(T::to_string);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Kind;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_names_are_unique() {
        for (index, bug) in PipelineBug::ALL.into_iter().enumerate() {
            assert_eq!(bug as usize, index);
            assert_eq!(bug.name().parse(), Ok(bug));
            assert!(!bug.kinds().is_empty() && bug.witness_len() > 0);
            assert!(!bug.description().is_empty());
        }
        let names: BTreeSet<_> = PipelineBug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), PipelineBug::ALL.len());
        assert!("skips".parse::<PipelineBug>().is_err());
    }

    #[test]
    fn every_kind_named_is_one_the_oracle_gives() {
        let given = [Kind::Missed, Kind::Content, Kind::Disturbed].map(Kind::name);
        for bug in PipelineBug::ALL {
            for kind in bug.kinds() {
                assert!(given.contains(kind), "{bug}: {kind}");
            }
        }
    }

    #[test]
    fn a_set_has_exactly_the_bugs_put_in() {
        let two: PipelineBugs =
            [PipelineBug::ChunkForLba, PipelineBug::SkipsZeroBlocks].into_iter().collect();
        for bug in PipelineBug::ALL {
            assert!(!PipelineBugs::NONE.has(bug));
            assert!(PipelineBugs::from(bug).has(bug));
            let expected = matches!(bug, PipelineBug::ChunkForLba | PipelineBug::SkipsZeroBlocks);
            assert_eq!(two.has(bug), expected);
        }
    }

    #[test]
    fn a_chain_keeps_the_order_it_was_taken_in() {
        let taken = vec!["s1", "s2", "s10"];
        assert_eq!(chain_order(taken.clone(), PipelineBugs::NONE), taken);
        let planted = PipelineBugs::from(PipelineBug::ChainSortedAsText);
        assert_eq!(chain_order(taken, planted), ["s1", "s10", "s2"]);
    }
}
