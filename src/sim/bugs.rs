//! The planted bugs of the array side, each modelled on one that really shipped.
//!
//! The table is the catalogue of `bugs.md`; the deviations themselves sit where the honest code does
//! it right. Not covered: bugs of the copy pipeline and lies of the HTTP side.

/// A planted bug and what is known about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BugSpec {
    /// The bug.
    pub bug: Bug,
    /// Its stable name.
    pub name: &'static str,
    /// What really shipped with it.
    pub modelled_on: &'static str,
    /// What it does, in one line.
    pub mechanism: &'static str,
    /// The kinds of violation it may be found as.
    pub kinds: &'static [&'static str],
    /// The shortest sequence that shows it, in the notation of `bugs.md`.
    pub witness: &'static str,
    /// Steps of the witness before the observing one.
    pub witness_len: u32,
}

macro_rules! bugs {
    ($($bug:ident $name:literal $kinds:tt $len:literal $modelled_on:literal, $witness:literal, $mechanism:literal;)*) => {
        /// A planted bug of the simulated array.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Bug {
            $(#[doc = $mechanism] $bug,)*
        }

        impl Bug {
            /// All planted bugs, in the order of the catalogue.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            const SPECS: &[BugSpec] = &[$(BugSpec {
                bug: Bug::$bug,
                name: $name,
                modelled_on: $modelled_on,
                mechanism: $mechanism,
                kinds: &$kinds,
                witness: $witness,
                witness_len: $len,
            },)*];
        }
    };
}

bugs! {
    GrowAliasesTracking "grow-aliases-tracking" ["missed"] 3 "VMware KB 2090639",
        "grow; w above; s; D(s)",
        "growing past a power-of-two limit doubles the granularity but keeps the old indices";
    WriteDuringDeleteUntracked "write-during-delete-untracked" ["missed"] 4 "VMware KB 2136854",
        "s0; x s0 (no wait); w; s1; D(s1)",
        "while a snapshot is Deleting, writes reach the disk but not the tracker";
    RollbackNotAChange "rollback-not-a-change" ["missed"] 5 "VMware CBT after revert",
        "s0; w; s1; rollback s0; s2; D(s2,s1)",
        "rollback restores data without marking what moved back";
    CutRaceLosesWrite "cut-race-loses-write" ["missed"] 3 "Ceph tracker 61472, 61616",
        "s0; (s1 + w); s2; cut law",
        "a write while a snapshot is Creating is in the next epoch's data and this epoch's map";
    DirtyDirtyEqualsClean "dirty-dirty-equals-clean" ["missed"] 4 "Ceph fast-diff, PR 4593",
        "w X; s1; w X; s2; D(s2,s1)",
        "one state bit: dirty in the base's epoch and again later compares equal";
    DiscardCrashTransientClean "discard-crash-transient-clean" ["missed"] 6 "Ceph OBJECT_PENDING",
        "w; s0; d; kill; s1; read; D",
        "a crash after a discard freezes a transient state that diff takes for clean";
    CloneDropsParentData "clone-drops-parent-data" ["missed"] 5 "Ceph PR 12218, 32403",
        "w chunk; s0; clone; w 1 on clone; s1; D(s1)",
        "the first diff of a clone leaves out parent data of a chunk the clone touched";
    EraLostOnRestart "era-lost-on-restart" ["missed"] 4 "Linux dm-era de89afc1",
        "s0; w; kill; s1; D(s1,s0)",
        "after a kill the current epoch's write set is not reloaded";
    SecondWriteBeforeCommit "second-write-before-commit" ["missed"] 4 "Linux dm-era",
        "s0; (w X + w X); kill; s1; D",
        "a second write to a block is acknowledged before the first one's bit is on the disk";
    MetadataIoErrorIgnored "metadata-io-error-ignored" ["missed"] 4 "DRBD 6719fb03",
        "s0; w with metadata fault; restart; s1; D",
        "failure to store the tracking record does not stop the write";
    RangeClearRoundsOutward "range-clear-rounds-outward" ["missed"] 3 "QEMU hbitmap_reset",
        "w 5; d 6..70; s; D(s)",
        "a discard clears the current epoch's bits of every chunk it touches";
    HoleBirthZero "hole-birth-zero" ["missed"] 5 "OpenZFS 4050",
        "w 1 MiB; s0; d 1 MiB; w 1 inside; s1; D",
        "a big discard partly refilled: the remaining hole is not reported";
    RebornIdInherits "reborn-id-inherits" ["missed"] 7 "OpenZFS 4230",
        "w; s0; delete volume; create same id; s0'; w; s1'; D(s1',s0')",
        "a volume re-created with the same id inherits the old epoch counter";
    ShrinkGrowForgets "shrink-grow-forgets" ["missed"] 5 "OpenZFS 4996",
        "w end; s0; shrink; grow; s1; D",
        "a region shrunk away and grown back is a hole but not reported";
    LastRangeNotFlushed "last-range-not-flushed" ["missed"] 2 "thin-provisioning-tools 25",
        "w last LBA; s; D(s)",
        "the final range of the walk is never emitted";
    MergeLosesMap "merge-loses-map" ["missed"] 5 "SPDK 1291",
        "w; s0; s1; x s0; restart; D(s1)",
        "deleting a snapshot merges data but not its map; visible after a restart";
    ZeroOverDataIgnored "zero-over-data-ignored" ["missed"] 4 "VirtualBox 850",
        "w; s0; z; s1; D",
        "the tracker ignores zero-fill over data";
    DiscardUntracked "discard-untracked" ["missed"] 4 "QEMU, several arrays",
        "w; s0; d; s1; D",
        "discard changes content, the tracker is not told";
    ThirdIncrementShift "third-increment-shift" ["missed", "leaked"] 5 "Macrium 7.1",
        "restart; w; s1; w; s2; D(s2,s1)",
        "right for one increment after a restart, shifted from the second on";
    BigVolumeWraps "big-volume-wraps" ["missed", "leaked"] 2 "blksnap 46",
        "w above 2^32; s; D(s)",
        "LBA arithmetic in 32 bits: LBAs from 2^32 on alias";
    FrozenEpochsLostOnKill "frozen-epochs-lost-on-kill" ["missed"] 3 "QEMU persistent bitmaps",
        "w; s0; kill; D(s0)",
        "after a kill the answer for older snapshots is an empty success";
    Bit63Dropped "bit63-dropped" ["missed"] 2 "generic",
        "w 63; s; D(s)",
        "bit 63 of a chunk is never set";
    PartialTailChunkLost "partial-tail-chunk-lost" ["missed"] 2 "generic",
        "w last; s; D(s)",
        "the last chunk of a volume that is not a multiple of 64 LBAs is skipped";
    SameBlockTwiceToggles "same-block-twice-toggles" ["missed"] 3 "generic",
        "w X; w X; s; D(s)",
        "the tracker XORs instead of ORs";
    UnalignedWriteTruncates "unaligned-write-truncates" ["missed"] 2 "generic",
        "w 63..65; s; D(s)",
        "a write across a chunk seam loses its tail or head LBA";
    OffsetInsideChunkShifts "offset-inside-chunk-shifts" ["missed", "leaked", "malformed"] 2
        "Ceph PR 44483",
        "w; s; D(s) from 65",
        "a walk from inside a chunk returns everything shifted";
    UnsortedPages "unsorted-pages" ["malformed", "missed"] 3 "Ceph PR 45601",
        "w; w; s; D(s)",
        "a page carries a range from outside its window";
    ResizeReportsEverything "resize-reports-everything" ["leaked"] 3 "Ceph PR 41657",
        "s0; grow; s1; D",
        "after a resize every block counts as new";
    LeaksPastEndSnapshot "leaks-past-end-snapshot" ["leaked"] 3 "Ceph 9a1ab951",
        "s0; s1; w; D(s1,s0)",
        "changes after the snapshot appear in its diff";
    RangePastEnd "range-past-end" ["malformed", "leaked"] 3 "wyng 56",
        "w end; shrink; s; D(s)",
        "after a shrink, ranges run past the end";
    MiddleDeleteBreaksWalk "middle-delete-breaks-walk" ["missed"] 5 "Ceph PR 38539",
        "s0; w; s1; w; s2; D(s2,s0) with x s1 between pages",
        "deleting a middle snapshot between two pages loses pages";
    SnapshotNotFrozen "snapshot-not-frozen" ["content"] 3 "blksnap 105",
        "w; s0; w; Read s0",
        "writes after the cut show in the snapshot";
    AllocatedMeansEverything "allocated-means-everything" ["leaked"] 1 "hostpath CSI PR 579",
        "s; D(s)",
        "a full scan reports the whole volume";
    IdleVolumeChurns "idle-volume-churns" ["leaked"] 2 "blksnap 97",
        "s0; s1; D(s1,s0)",
        "the tracker counts its own metadata writes";
    SelfDiffEmpty "self-diff-empty" ["refusal"] 1 "contract",
        "s; D(s,s)",
        "a diff of a snapshot against itself succeeds with nothing";
    DeletedBaseAnswers "deleted-base-answers" ["refusal"] 3 "original test 14",
        "s0; s1; x s0; D(s1,s0)",
        "a deleted base is treated as no base";
    ReversedEndsEmpty "reversed-ends-empty" ["refusal", "missed"] 3 "contract",
        "s0; w; s1; D(s0,s1)",
        "a base newer than the snapshot succeeds with nothing";
    ForeignBaseAnswers "foreign-base-answers" ["refusal"] 2 "ceph-csi 6202",
        "s0; s0 on neighbour; D",
        "a base of another volume succeeds with nothing";
    LegalBaseRefused "legal-base-refused" ["refusal"] 3 "contract",
        "s0; s1; s2; D(s2,s0)",
        "a non-adjacent base is refused";
    AnswerVaries "answer-varies" ["nondeterministic"] 5 "generic",
        "w; s0; rewrite; s1; D; D",
        "some equal answers leave out same-content rewrites and carry an empty range";
    BaseIgnored "base-ignored" ["leaked"] 3 "generic",
        "w; s0; s1; D(s1,s0)",
        "the base is ignored";
    NearestBaseUsed "nearest-base-used" ["missed"] 4 "virtnbdbackup 33",
        "s0; w; s1; s2; D(s2,s0)",
        "the base is replaced by the nearest snapshot before";
    DiffCachedPerBase "diff-cached-per-base" ["missed", "leaked"] 4 "generic",
        "s0; D(s0); w; s1; D(s1)",
        "answers are cached by base only";
    NeighbourVolumeLeaks "neighbour-volume-leaks" ["leaked"] 3 "generic",
        "s0; w on neighbour; s1; D",
        "writes to another volume appear";
    LastPageDropped "last-page-dropped" ["missed"] 3 "generic",
        "w; w; s; D(s)",
        "the walk ends one page early";
    PageEdgeSkipsOne "page-edge-skips-one" ["missed"] 3 "generic",
        "w; w; s; D(s)",
        "the next offset is one chunk too far";
    PageEdgeRepeatsShifted "page-edge-repeats-shifted" ["malformed", "leaked", "missed"] 3 "generic",
        "w; w; s; D(s)",
        "the repeated edge range carries a shifted bitmap";
    BitmapByteSwapped "bitmap-byte-swapped" ["missed", "leaked"] 2 "encoding",
        "w 1 LBA; s; D(s)",
        "the 8 bytes of a bitmap come in the other order";
    DeleteNeverFinishes "delete-never-finishes" ["liveness"] 2 "liveness",
        "s; x s; Wait",
        "a deleted snapshot stays in the listing";
    CreateNeverAvailable "create-never-available" ["liveness"] 1 "liveness",
        "s",
        "the first snapshot and every fourth after it stay Creating";
    RewritesOnlyInLongDiffs "rewrites-only-in-long-diffs" ["leaked"] 7 "generic",
        "w X; s0; rewrite X; s1; s2; D(s1,s0); D(s2,s1); D(s2,s0)",
        "diffs of neighbours leave out same-content rewrites, longer ones report them";
    InsideWalkElidesRewrites "inside-walk-elides-rewrites" ["malformed"] 5 "generic",
        "w; s0; rewrite; s1; D(s1,s0); D(s1,s0) from 1",
        "a walk from inside a chunk leaves out same-content rewrites";
    OlderDataForgotten "older-data-forgotten" ["missed"] 1 "VMware CBT on a disk in use",
        "s; D(s) on a volume with a past",
        "what was written before tracking was switched on is in no full scan";
    SlowDevice "slow-device" ["figure"] 2 "throttled volume",
        "w; s; timed Y",
        "each LBA read or written takes 0.8 ms, one transfer at a time";
    ContentBitFlippedOnWrite "content-bit-flipped-on-write" ["content"] 1 "misbehaving media",
        "w; read",
        "one bit of the last LBA of each write is flipped";
}

impl Bug {
    /// Everything known about it.
    pub const fn spec(self) -> &'static BugSpec {
        &Bug::SPECS[self as usize]
    }
    /// The stable name.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }
    /// The bug of that name.
    pub fn from_name(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// A set of planted bugs; asking it costs next to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct BugSet(u64);

const _: () = assert!(Bug::ALL.len() <= 64);

impl BugSet {
    pub(super) const fn of(bugs: &[Bug]) -> BugSet {
        let mut set = 0;
        let mut place = 0;
        while place < bugs.len() {
            set |= 1 << bugs[place] as u64;
            place += 1;
        }
        BugSet(set)
    }
    pub(super) const fn any(self, of: BugSet) -> bool {
        self.0 & of.0 != 0
    }
    pub(super) const fn has(self, bug: Bug) -> bool {
        self.0 >> bug as u64 & 1 == 1
    }
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_unique_and_read_back() {
        for (place, &bug) in Bug::ALL.iter().enumerate() {
            assert_eq!(bug as usize, place);
            assert_eq!(bug.spec().bug, bug);
            assert_eq!(Bug::from_name(bug.name()), Some(bug));
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(bug.name().chars().all(kebab), "{}", bug.name());
        }
        assert_eq!(Bug::from_name("no-such-bug"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = BugSet::of(&[Bug::SlowDevice, Bug::GrowAliasesTracking]);
        assert!(set.has(Bug::SlowDevice) && set.has(Bug::GrowAliasesTracking));
        assert!(!set.has(Bug::BaseIgnored) && !set.is_empty());
        assert!(BugSet::of(&[]).is_empty());
    }
}
