//! Kinds of moves a generator makes: each becomes one step, or a few that belong together. Not
//! covered: where and how big a change is (`super::place`).

use super::profile::Offers;

macro_rules! kinds {
    ($($kind:ident $weight:literal $needs:expr, $what:literal;)*) => {
        /// One kind of move.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(super) enum Kind {
            $(#[doc = $what] $kind,)*
        }
        /// Every kind, with its usual weight and what it needs of the target.
        pub(super) const KINDS: &[(Kind, u8, Offers)] = &[$((Kind::$kind, $weight, $needs),)*];
    };
}

const NONE: Offers = Offers::NONE;
const SYNC: Offers = Offers::SYNCS;
const FROZEN: Offers = Offers::SYNCS.and(Offers::SNAPSHOT_READS);
const DISCARD: Offers = Offers::DISCARD;

kinds! {
    Write 10 NONE, "writes anywhere";
    WriteAgain 3 NONE, "writes where the last change was";
    WriteInside 1 NONE, "writes one LBA inside the last change";
    WriteBeside 2 NONE, "writes a little after the last change, with a gap or without";
    WriteSeam 2 NONE, "writes over a chunk seam";
    WriteTail 2 NONE, "writes the end of the volume";
    WriteBig 1 NONE, "writes more than a chunk";
    WriteHigh 1 NONE, "writes far up, where narrow arithmetic wraps";
    Rewrite 2 NONE, "writes the same bytes where the last change was, or anywhere";
    RewriteAgain 1 NONE, "writes the same bytes where the last change was";
    Zero 2 NONE, "writes zeros anywhere";
    ZeroAgain 2 NONE, "writes zeros where the last change was";
    WriteZeroes 2 DISCARD, "zeroes by command where the last change was, or anywhere";
    Discard 2 DISCARD, "discards anywhere";
    DiscardAgain 2 DISCARD, "discards where the last change was";
    DiscardAround 2 DISCARD, "discards from just after the last change into the next chunk";
    DiscardWhole 1 DISCARD, "discards the whole volume, or a large part";
    Flush 1 NONE, "flushes";
    ReadLive 2 Offers::READS, "reads where the last change was, or anywhere";
    ReadSnap 2 Offers::SNAPSHOT_READS, "reads a snapshot";
    Take 8 NONE, "takes a snapshot and waits for it";
    TakeUnwaited 2 Offers::UNWAITED, "takes a snapshot";
    Delete 2 NONE, "deletes a snapshot and waits until it is gone";
    DeleteMiddle 2 NONE, "deletes a snapshot between two others";
    DeleteOldest 1 NONE, "deletes the oldest snapshot";
    DeleteUnwaited 2 Offers::UNWAITED, "deletes a snapshot";
    Wait 1 Offers::UNWAITED, "waits for everything";
    RaceCut 2 Offers::CONCURRENT, "changes in flight at a cut";
    RaceWrites 2 Offers::CONCURRENT, "changes in flight together, often overlapping";
    DiffNew 6 NONE, "the newest snapshot against the one before";
    DiffFull 4 NONE, "the newest snapshot since creation";
    DiffSkip 3 NONE, "the newest snapshot against one that is not adjacent";
    DiffAny 4 NONE, "any pair";
    DiffReversed 2 NONE, "an older snapshot against a newer one";
    DiffSelf 1 NONE, "a snapshot against itself";
    DiffDeleted 1 NONE, "a snapshot against a deleted one, or a deleted one";
    DiffForeign 1 Offers::NEIGHBOUR, "a snapshot against one of the other volume";
    DiffRelated 1 Offers::CLONES, "a clone's snapshot against its parent's, or the reverse";
    DiffFrom 2 NONE, "a pair from an LBA on";
    DiffInside 1 NONE, "the last question once more, from inside the last change's first chunk";
    DiffBetween 2 Offers::BETWEEN_PAGES, "a pair with an operation between two pages";
    DiffAgain 2 NONE, "the last question once more";
    SyncNew 3 FROZEN, "copies the newest snapshot's changes since the one before";
    SyncFull 2 FROZEN, "copies the newest snapshot";
    SyncAny 2 FROZEN, "copies any pair";
    SyncLive 2 SYNC, "takes a snapshot and copies it from the live volume";
    SyncDuring 1 FROZEN.and(Offers::CONCURRENT), "copies while the source is written";
    SyncAgain 1 SYNC, "repeats the last copy";
    SyncChain 1 FROZEN, "copies every snapshot in turn";
    SyncShort 1 FROZEN.and(Offers::FAULTS), "copies with a short write";
    DirtyTarget 1 SYNC, "writes the target behind the copy's back";
    Rollback 2 Offers::ROLLBACK, "puts the source back to a snapshot";
    MakeClone 2 Offers::CLONES, "makes a clone, or deletes it";
    CloneWrite 2 Offers::CLONES, "changes the clone";
    CloneTake 2 Offers::CLONES, "takes a snapshot of the clone";
    DiffClone 2 Offers::CLONES, "a snapshot of the clone, since creation or since another";
    Grow 2 Offers::RESIZE, "grows the source";
    WriteAbove 1 Offers::RESIZE, "writes above the last grow";
    Shrink 1 Offers::RESIZE, "shrinks the source";
    ShrinkGrow 1 Offers::RESIZE, "shrinks the source and grows it back";
    Restart 1 Offers::RESTART, "restarts the array in order";
    Kill 2 Offers::RESTART, "kills the array";
    NeighbourWrite 2 Offers::NEIGHBOUR, "changes the other volume";
    NeighbourTake 1 Offers::NEIGHBOUR, "takes a snapshot of the other volume";
    DiffNeighbour 1 Offers::NEIGHBOUR, "a snapshot of the other volume";
    ReviveNeighbour 1 Offers::LIFECYCLE.and(Offers::NEIGHBOUR),
        "deletes the other volume and makes it again, often with the same id";
    ReviveSource 1 Offers::LIFECYCLE, "deletes the source and makes it again with the same id";
    WriteFaulty 1 Offers::FAULTS, "writes while tracking records cannot be stored";
}

impl Kind {
    /// Whether it means nothing without a second volume.
    pub(super) const fn needs_neighbour(self) -> bool {
        matches!(
            self,
            Kind::NeighbourWrite
                | Kind::NeighbourTake
                | Kind::DiffNeighbour
                | Kind::DiffForeign
                | Kind::ReviveNeighbour
        )
    }
}
