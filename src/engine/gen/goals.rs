//! "Sometimes" goals: what every campaign of some length must have done at least once. Not covered:
//! noticing that one was reached (`super::coverage`).

macro_rules! goals {
    ($($goal:ident $words:literal,)*) => {
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
        }
    };
}

goals! {
    WriteInCut "a write inside a cut",
    DiscardInCut "a discard inside a cut",
    OverlapInFlight "overlapping changes in flight together",
    RacedCutAsked "a diff of which one end was cut while something was in flight",
    LateCutRead "a read of a snapshot whose cut came late",
    DiffAcrossRollback "a diff across a rollback",
    DiffAcrossResize "a diff across a resize",
    TailWritten "a write into a partial last chunk",
    Bit63Alone "a write of bit 63 alone",
    SeveralPages "an answer of several pages",
    DiscardOverSeam "a discard over a chunk seam",
    DiscardWhole "a discard of the whole volume",
    HoleRefilled "a write into a hole of the same epoch",
    KillUnflushed "a kill with changes that were not flushed",
    KillAfterDiscard "a kill right after a discard of data",
    KillWhileCreating "a kill while a snapshot is in the making",
    WriteWhileCreating "a write while a snapshot is in the making",
    WriteWhileDeleting "a write while a snapshot is going",
    RestartAfterDelete "a restart after a delete",
    DeleteBetweenPages "a delete of a middle snapshot between two pages",
    WriteBetweenPages "a change between two pages",
    TargetDirtied "a sync onto a target that somebody else wrote",
    SyncRepeated "the same sync twice",
    SyncWithWriters "a sync while the source is written",
    SyncWithShortWrite "a sync with a short write",
    FaultThenRestart "a restart after a tracking record could not be stored",
    ChainOutOfTextOrder "a chain of syncs over labels of one and of two digits",
    ThreeEpochs "a block changed in three epochs",
    WriteAboveGrow "a write above a grow",
    ShrinkThenGrow "a shrink and a grow between two snapshots",
    CloneAsked "a diff of a clone that was written",
    SameIdAgain "a write on a volume made again with the same id",
    AboveTwoToThe32 "a write above LBA 2^32",
    WalkFromInside "a walk from inside a changed chunk",
    ReversedAsked "a reversed pair with changes between its ends",
    DeletedBaseAsked "a diff against a deleted base",
    ForeignBaseAsked "a diff against another volume's snapshot",
    FarBaseAsked "a diff over four snapshots or more",
    TenSnapshots "ten snapshots of one volume",
    NeighbourBusy "a write on the neighbour between two snapshots",
    OldVolumeScanned "a full scan of a volume with a past",
    AskedAgain "the same question twice in a row",
    ElidedRewrite "the same content again where an array may leave that out",
    ChunkRounded "a change on an array that reports whole chunks",
    SlowDelete "a delete on an array that takes its time",
    LateAvailable "a take on an array that takes its time",
    UnevenPages "a walk over short and empty pages",
    RepeatedEdges "a walk over pages that repeat a range",
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
