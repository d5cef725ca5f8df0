//! What coverage counts: combinations of operation, state of the block, position of its bits,
//! relation to snapshots, and what has upset the array lately. Which of them can happen at all, and
//! what they are called. Not covered: finding them in a scenario (`super::coverage`).

use crate::block::{CHUNK_LBAS, Extent};

macro_rules! dimension {
    ($(#[$about:meta])* $name:ident { $($item:ident $words:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $(#[doc = $words] $item,)*
        }
        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$item,)*];
            /// In words.
            pub const fn words(self) -> &'static str {
                match self {
                    $($name::$item => $words,)*
                }
            }
        }
    };
}

dimension! {
    /// What is done.
    Did {
        Write "write",
        Rewrite "rewrite",
        Zero "zero",
        WriteZeroes "write-zeroes",
        Discard "discard",
        Read "read",
        ReadSnap "read of a snapshot",
        Take "take",
        Delete "delete",
        Rollback "rollback",
        Resize "resize",
        Diff "diff",
        DiffFrom "diff from an LBA",
        DiffBetween "diff with an operation between pages",
        Sync "sync",
        SyncLive "sync from live",
    }
}

dimension! {
    /// What the block was before: the first of those that are changed, or, when nothing is changed,
    /// the one that was changed last.
    Block {
        Untouched "untouched",
        Data "written in this epoch",
        OldData "written in an earlier epoch",
        Hole "zeroed in this epoch",
        OldHole "zeroed in an earlier epoch",
    }
}

dimension! {
    /// Where the extent lies in its chunk.
    Bits {
        Bit0 "bit 0",
        Bit63 "bit 63",
        HalfWord "bits 31 and 32",
        Inner "inside a chunk",
        Whole "whole chunks",
        Seam "over a seam",
        Tail "in a partial last chunk",
    }
}

dimension! {
    /// How the operation stands to snapshots: its surroundings, or the pair it asks about.
    Relation {
        NoSnapshot "before any snapshot",
        Settled "with all snapshots settled",
        InCut "in flight at a cut",
        Creating "while a snapshot is in the making",
        Deleting "while a snapshot is going",
        BetweenPages "between two pages",
        Syncing "during a sync",
        Full "since creation",
        Adjacent "of neighbours",
        Far "of a pair that is not adjacent",
        Reversed "of a reversed pair",
        Itself "of a snapshot with itself",
        Gone "with a deleted snapshot",
        Foreign "with another volume's snapshot",
    }
}

dimension! {
    /// What upset the array in this epoch or the one before.
    Upset {
        Nothing "undisturbed",
        Fault "with a fault",
        Restart "after a restart",
        Kill "after a kill",
        Rollback "after a rollback",
        Resize "after a resize",
    }
}

/// One combination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cell {
    /// What is done.
    pub did: Did,
    /// What the block was.
    pub block: Block,
    /// Where it lies.
    pub bits: Bits,
    /// How that stands to snapshots.
    pub relation: Relation,
    /// What went before.
    pub upset: Upset,
}

const RELATIONS: usize = Relation::ALL.len();
const UPSETS: usize = Upset::ALL.len();
const BLOCKS: usize = Block::ALL.len();
const BITS: usize = Bits::ALL.len();

/// How many combinations can be written down, possible or not.
pub(super) const CELLS: usize = Did::ALL.len() * BLOCKS * BITS * RELATIONS * UPSETS;
/// How many groups of combinations there are.
pub(super) const GROUPS: usize = Did::ALL.len() * RELATIONS * UPSETS;

impl Did {
    /// Whether it changes contents.
    pub const fn changes(self) -> bool {
        matches!(self, Did::Write | Did::Rewrite | Did::Zero | Did::WriteZeroes | Did::Discard)
    }
    /// Whether it touches blocks itself.
    pub const fn touches(self) -> bool {
        self.changes() || matches!(self, Did::Read | Did::ReadSnap)
    }
    /// Whether it asks about a pair of snapshots.
    pub const fn asks(self) -> bool {
        matches!(self, Did::Diff | Did::DiffFrom | Did::DiffBetween | Did::Sync | Did::SyncLive)
    }
}

impl Cell {
    /// Its place in an array of all.
    pub(super) const fn place(self) -> usize {
        self.group() * BLOCKS * BITS + self.block as usize * BITS + self.bits as usize
    }
    /// Its group: the same operation, relation and upset.
    pub(super) const fn group(self) -> usize {
        (self.did as usize * RELATIONS + self.relation as usize) * UPSETS + self.upset as usize
    }
    /// All that can happen.
    pub fn all() -> impl Iterator<Item = Cell> {
        let blocks = || {
            Block::ALL.iter().flat_map(|&block| Bits::ALL.iter().map(move |&bits| (block, bits)))
        };
        let around = || {
            Relation::ALL
                .iter()
                .flat_map(|&relation| Upset::ALL.iter().map(move |&upset| (relation, upset)))
        };
        Did::ALL
            .iter()
            .flat_map(move |&did| around().map(move |(relation, upset)| (did, relation, upset)))
            .flat_map(move |(did, relation, upset)| {
                blocks().map(move |(block, bits)| Cell { did, block, bits, relation, upset })
            })
            .filter(|cell| cell.can_happen())
    }

    /// Whether the generator's alphabet has such a thing.
    pub fn can_happen(self) -> bool {
        let Cell { did, block, bits, relation, upset } = self;
        use Relation::*;
        let fits = match did {
            Did::Write | Did::Zero | Did::Discard => !relation.is_pair(),
            Did::Rewrite | Did::WriteZeroes | Did::Read => {
                matches!(relation, NoSnapshot | Settled | Creating | Deleting)
            }
            Did::ReadSnap => matches!(relation, Settled | Creating | Deleting),
            // An array makes one snapshot of a volume at a time: the interpreter waits for the one
            // in the making before it asks for another.
            Did::Take => matches!(relation, NoSnapshot | Settled | InCut | Deleting | BetweenPages),
            Did::Delete => matches!(relation, Settled | Creating | Deleting | BetweenPages),
            Did::Rollback => matches!(relation, Settled | Creating | Deleting),
            Did::Resize => matches!(relation, NoSnapshot | Settled | Creating | Deleting),
            Did::Diff => relation.is_pair(),
            Did::DiffFrom | Did::DiffBetween | Did::Sync => {
                matches!(relation, Full | Adjacent | Far)
            }
            Did::SyncLive => matches!(relation, Full | Adjacent),
        };
        // Older than this epoch means that a snapshot was taken.
        let old = matches!(block, Block::OldData | Block::OldHole);
        let fits = fits && !(old && relation == NoSnapshot);
        // What touches no block itself goes by the last change: where that was, something is. Before
        // the first it goes by LBA 0.
        let first = matches!(bits, Bits::Bit0 | Bits::Tail);
        let fits = fits && (did.touches() || block != Block::Untouched || first);
        let faulty = matches!(did, Did::Write if matches!(relation, NoSnapshot | Settled))
            || matches!(did, Did::Sync if relation == Full);
        let rolled = upset == Upset::Rollback && relation == NoSnapshot;
        fits && !rolled && (upset != Upset::Fault || faulty)
    }

    /// Its group in words: the operation, its relation to snapshots, the upset.
    pub(super) fn group_words(self) -> String {
        let words = format!("{}, {}", self.did.words(), self.relation.words());
        match self.upset {
            Upset::Nothing => words,
            upset => format!("{words}, {}", upset.words()),
        }
    }
}

impl Relation {
    /// Whether it speaks of a pair of snapshots.
    pub const fn is_pair(self) -> bool {
        matches!(
            self,
            Relation::Full
                | Relation::Adjacent
                | Relation::Far
                | Relation::Reversed
                | Relation::Itself
                | Relation::Gone
                | Relation::Foreign
        )
    }
}

impl Bits {
    /// The class of an extent on a volume of `len` LBAs; the rarest that holds.
    pub(super) const fn of(at: Extent, len: u64) -> Bits {
        let (start, end) = (at.start().get(), at.end().get());
        let (first, last) = (start % CHUNK_LBAS, (end - 1) % CHUNK_LBAS);
        let whole_end = len / CHUNK_LBAS * CHUNK_LBAS;
        if end > whole_end && whole_end < len {
            Bits::Tail
        } else if first == 0 && last == CHUNK_LBAS - 1 {
            Bits::Whole
        } else if start / CHUNK_LBAS != (end - 1) / CHUNK_LBAS {
            Bits::Seam
        } else if last == CHUNK_LBAS - 1 {
            Bits::Bit63
        } else if first == 0 {
            Bits::Bit0
        } else if first <= 32 && last >= 31 {
            Bits::HalfWord
        } else {
            Bits::Inner
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_combination_has_a_place_of_its_own() {
        let places: BTreeSet<usize> = Cell::all().map(Cell::place).collect();
        assert_eq!(places.len(), Cell::all().count());
        assert!(places.last().is_some_and(|&last| last < CELLS));
        assert!(Cell::all().all(|cell| cell.group() < GROUPS));
        assert!(places.len() > 5_000, "{}", places.len());
    }

    #[test]
    fn extents_fall_into_the_rarest_class_that_holds() {
        let class = |start, len| Bits::of(Extent::lbas(start, len), 200);
        assert_eq!(class(0, 1), Bits::Bit0);
        assert_eq!(class(63, 1), Bits::Bit63);
        assert_eq!(class(60, 4), Bits::Bit63);
        assert_eq!(class(31, 1), Bits::HalfWord);
        assert_eq!(class(32, 1), Bits::HalfWord);
        assert_eq!(class(20, 20), Bits::HalfWord);
        assert_eq!(class(33, 5), Bits::Inner);
        assert_eq!(class(64, 128), Bits::Whole);
        assert_eq!(class(63, 2), Bits::Seam);
        assert_eq!(class(199, 1), Bits::Tail);
        assert_eq!(class(190, 3), Bits::Tail);
        assert_eq!(Bits::of(Extent::lbas(128, 64), 192), Bits::Whole);
    }

    #[test]
    fn what_cannot_happen_is_no_goal() {
        let cell = Cell {
            did: Did::Diff,
            block: Block::Data,
            bits: Bits::Bit63,
            relation: Relation::Adjacent,
            upset: Upset::Kill,
        };
        assert!(cell.can_happen());
        assert!(!Cell { relation: Relation::InCut, ..cell }.can_happen());
        assert!(!Cell { upset: Upset::Fault, ..cell }.can_happen());
        assert!(!Cell { did: Did::Write, ..cell }.can_happen());
        let first = Cell { block: Block::Untouched, ..cell };
        assert!(!first.can_happen(), "bit 63 was changed last, and nothing was changed yet");
        assert!(Cell { bits: Bits::Bit0, ..first }.can_happen());
        let take = Cell { did: Did::Take, relation: Relation::Deleting, ..cell };
        assert!(take.can_happen());
        assert!(!Cell { relation: Relation::Creating, ..take }.can_happen(), "one at a time");
        assert_eq!(cell.group_words(), "diff, of neighbours, after a kill");
    }
}
