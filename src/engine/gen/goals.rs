//! "Sometimes" goals: what every campaign of some length must have done at least once. Not covered:
//! noticing that one was reached (`super::coverage`).

use super::profile::Offers;

macro_rules! goals {
    ($($goal:ident $needs:expr, $words:literal;)*) => {
        /// What random checking must reach now and then.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Goal {
            $(#[doc = $words] $goal,)*
        }
        impl Goal {
            /// All of them.
            pub const ALL: &[Goal] = &[$(Goal::$goal,)*];
            /// What it is, in words.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Goal::$goal => $words,)*
                }
            }
            /// What a target must offer for it.
            pub(super) const fn needs(self) -> Offers {
                match self {
                    $(Goal::$goal => $needs,)*
                }
            }
        }
    };
}

const NONE: Offers = Offers::NONE;
const CONCURRENT: Offers = Offers::CONCURRENT;
const DISCARD: Offers = Offers::DISCARD;
const FROZEN: Offers = Offers::SYNCS.and(Offers::SNAPSHOT_READS);
const RESTART: Offers = Offers::RESTART;
const SIMULATED: Offers = Offers::SIMULATED;
const UNWAITED: Offers = Offers::UNWAITED;

goals! {
    WriteInCut CONCURRENT, "a write inside a cut";
    DiscardInCut CONCURRENT.and(DISCARD), "a discard inside a cut";
    OverlapInFlight CONCURRENT, "overlapping changes in flight together";
    RacedCutAsked CONCURRENT, "a diff of which one end was cut while something was in flight";
    LateCutRead SIMULATED.and(Offers::SNAPSHOT_READS), "a read of a snapshot whose cut came late";
    DiffAcrossRollback Offers::ROLLBACK, "a diff across a rollback";
    DiffAcrossResize Offers::RESIZE, "a diff across a resize";
    TailWritten NONE, "a write into a partial last chunk";
    Bit63Alone NONE, "a write of bit 63 alone";
    SeveralPages SIMULATED, "an answer of several pages";
    DiscardOverSeam DISCARD, "a discard over a chunk seam";
    DiscardWhole DISCARD, "a discard of the whole volume";
    HoleRefilled NONE, "a write into a hole of the same epoch";
    KillUnflushed RESTART, "a kill with changes that were not flushed";
    KillAfterDiscard RESTART.and(DISCARD), "a kill right after a discard of data";
    KillWhileCreating RESTART.and(UNWAITED), "a kill while a snapshot is in the making";
    WriteWhileCreating UNWAITED, "a write while a snapshot is in the making";
    WriteWhileDeleting UNWAITED, "a write while a snapshot is going";
    RestartAfterDelete RESTART, "a restart after a delete";
    DeleteBetweenPages Offers::BETWEEN_PAGES, "a delete of a middle snapshot between two pages";
    WriteBetweenPages Offers::BETWEEN_PAGES, "a change between two pages";
    TargetDirtied Offers::SYNCS, "a sync onto a target that somebody else wrote";
    SyncRepeated Offers::SYNCS, "the same sync twice";
    SyncWithWriters FROZEN.and(CONCURRENT), "a sync while the source is written";
    SyncWithShortWrite FROZEN.and(Offers::FAULTS), "a sync with a short write";
    FaultThenRestart RESTART.and(Offers::FAULTS), "a restart after a tracking record could not be stored";
    ChainOutOfTextOrder FROZEN, "a chain of syncs over labels of one and of two digits";
    ThreeEpochs NONE, "a block changed in three epochs";
    WriteAboveGrow Offers::RESIZE, "a write above a grow";
    ShrinkThenGrow Offers::RESIZE, "a shrink and a grow between two snapshots";
    CloneAsked Offers::CLONES, "a diff of a clone that was written";
    SameIdAgain Offers::LIFECYCLE, "a write on a volume made again with the same id";
    AboveTwoToThe32 Offers::SPARSE, "a write above LBA 2^32";
    WalkFromInside NONE, "a walk from inside a changed chunk";
    ReversedAsked NONE, "a reversed pair with changes between its ends";
    DeletedBaseAsked NONE, "a diff against a deleted base";
    ForeignBaseAsked Offers::NEIGHBOUR, "a diff against another volume's snapshot";
    FarBaseAsked NONE, "a diff over four snapshots or more";
    TenSnapshots NONE, "ten snapshots of one volume";
    NeighbourBusy Offers::NEIGHBOUR, "a write on the neighbour between two snapshots";
    OldVolumeScanned NONE, "a full scan of a volume with a past";
    AskedAgain NONE, "the same question twice in a row";
    ElidedRewrite SIMULATED, "the same content again where an array may leave that out";
    ChunkRounded SIMULATED, "a change on an array that reports whole chunks";
    SlowDelete SIMULATED, "a delete on an array that takes its time";
    LateAvailable SIMULATED, "a take on an array that takes its time";
    UnevenPages SIMULATED, "a walk over short and empty pages";
    RepeatedEdges SIMULATED, "a walk over pages that repeat a range";
}

const _: () = assert!(Goal::ALL.len() <= 64);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_goals_are_called_the_same() {
        let words: BTreeSet<&str> = Goal::ALL.iter().map(|goal| goal.words()).collect();
        assert_eq!(words.len(), Goal::ALL.len());
        for (place, &goal) in Goal::ALL.iter().enumerate() {
            assert_eq!(goal as usize, place);
        }
    }
}
