//! What the cases of a campaign concentrate on, in turn: rare shapes of operation sequences, so
//! that none is starved. The case number alone picks one. Not covered: the moves themselves and how
//! often others happen.

use super::kind::Kind::{self, *};
use super::profile::{Offers, Profile};

/// What the world of a focus must be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum World {
    /// Whatever is drawn.
    Any,
    /// Pages of one to three ranges.
    SmallPages,
    /// Larger than 2^32 LBAs, or than 2^32 bytes.
    Sparse,
    /// Labels whose order as text is another one.
    OddLabels,
    /// Short and empty pages.
    UnevenPages,
    /// A last chunk that is not whole.
    PartialTail,
}

/// One focus.
pub(super) struct Focus {
    /// Its name, printed with what a run never reached.
    pub(super) name: &'static str,
    /// Its world.
    pub(super) world: World,
    /// Moves that are made in this order, again and again, with others in between.
    pub(super) motif: &'static [Kind],
    needs: Offers,
}

const fn focus(name: &'static str, needs: Offers, motif: &'static [Kind]) -> Focus {
    Focus { name, world: World::Any, motif, needs }
}

const fn on(world: World, focus: Focus) -> Focus {
    Focus { world, ..focus }
}

const NONE: Offers = Offers::NONE;
const DISCARD: Offers = Offers::DISCARD;
const FROZEN: Offers = Offers::SYNCS.and(Offers::SNAPSHOT_READS);
const SIMULATED: Offers = Offers::SIMULATED;

/// All focuses. Sparse volumes come last: they are the slowest.
pub(super) const FOCUSES: &[Focus] = &[
    focus("anything", NONE, &[]),
    focus("increment", NONE, &[Write, Take, DiffNew]),
    focus("same block twice", NONE, &[Write, WriteAgain, Take, DiffFull]),
    focus("same block in two epochs", NONE, &[Write, Take, WriteAgain, Take, DiffNew]),
    focus("discard of data", DISCARD, &[Write, Take, DiscardAgain, Take, DiffNew]),
    focus("zeros over data", NONE, &[Write, Take, ZeroAgain, Take, DiffNew]),
    focus("same content", NONE, &[Write, Take, Rewrite, Take, DiffNew, DiffAgain]),
    focus(
        "same content, asked in steps",
        NONE,
        &[Write, Take, RewriteAgain, Take, DiffNew, Take, DiffNew, DiffSkip],
    ),
    focus(
        "same content, from inside",
        NONE,
        &[Write, Take, RewriteAgain, Take, DiffNew, DiffInside],
    ),
    focus("discard beside data", DISCARD, &[Write, DiscardAround, Take, DiffFull]),
    focus(
        "hole partly refilled",
        DISCARD,
        &[WriteBig, Take, DiscardAgain, WriteInside, Take, DiffNew],
    ),
    on(World::PartialTail, focus("end of the volume", NONE, &[WriteTail, Take, DiffFull])),
    focus("chunk seam", NONE, &[WriteSeam, Take, DiffFull]),
    focus("middle delete", NONE, &[Take, Write, Take, Write, Take, DeleteMiddle, DiffSkip]),
    on(
        World::SmallPages,
        focus(
            "middle delete between pages",
            Offers::BETWEEN_PAGES,
            &[Take, Write, Take, WriteBig, Take, DiffBetween],
        ),
    ),
    focus("write while deleting", Offers::UNWAITED, &[Take, DeleteUnwaited, Write, Take, DiffFull]),
    focus(
        "delete and restart",
        Offers::RESTART,
        &[Write, Take, Take, DeleteOldest, Restart, DiffFull],
    ),
    focus("rollback", Offers::ROLLBACK, &[Take, Write, Take, Rollback, Take, DiffNew]),
    focus("clone", Offers::CLONES, &[WriteBig, Take, MakeClone, CloneWrite, CloneTake, DiffClone]),
    focus("grow", Offers::RESIZE, &[Take, Grow, WriteAbove, Take, DiffNew, DiffFull]),
    focus("shrink", Offers::RESIZE, &[WriteTail, Shrink, Take, DiffFull]),
    focus("shrink and grow", Offers::RESIZE, &[WriteTail, Take, ShrinkGrow, Take, DiffNew]),
    focus("kill", Offers::RESTART, &[Take, Write, Kill, Take, DiffNew]),
    focus(
        "kill after a discard",
        Offers::RESTART.and(DISCARD),
        &[Write, Take, DiscardAgain, Kill, Take, ReadLive, DiffNew],
    ),
    focus("kill with snapshots", Offers::RESTART, &[Write, Take, Kill, DiffFull]),
    focus(
        "kill after overlapping writes",
        Offers::RESTART.and(Offers::CONCURRENT),
        &[Take, RaceWrites, Kill, Take, DiffNew],
    ),
    focus(
        "increments after restart",
        Offers::RESTART,
        &[Restart, Write, Take, Write, Take, DiffNew],
    ),
    focus(
        "fault while tracking",
        Offers::FAULTS.and(Offers::RESTART),
        &[Take, WriteFaulty, Restart, Take, DiffNew],
    ),
    focus("cut race", Offers::CONCURRENT, &[Take, RaceCut, Take, DiffNew, DiffSkip]),
    focus("frozen contents", Offers::SNAPSHOT_READS, &[Write, Take, WriteAgain, ReadSnap]),
    focus("later changes", NONE, &[Take, Take, Write, DiffNew]),
    focus("idle", NONE, &[Take, Take, DiffNew]),
    focus("deleted base", NONE, &[Take, Take, DeleteOldest, DiffDeleted, DiffSelf]),
    focus("reversed", NONE, &[Take, Write, Take, DiffReversed]),
    focus("foreign base", Offers::NEIGHBOUR, &[Take, NeighbourTake, DiffForeign]),
    focus("far base", NONE, &[Take, Write, Take, Take, DiffSkip]),
    focus("neighbour", Offers::NEIGHBOUR, &[Take, NeighbourWrite, Take, DiffNew]),
    focus("diff from inside a chunk", NONE, &[Write, WriteSeam, Take, DiffFrom]),
    on(
        World::SmallPages,
        focus("many pages", NONE, &[Write, WriteSeam, Write, WriteTail, Take, DiffFull]),
    ),
    focus("same base twice", NONE, &[Take, DiffFull, Write, Take, DiffFull]),
    focus(
        "neighbour made again",
        Offers::LIFECYCLE.and(Offers::NEIGHBOUR),
        &[
            NeighbourWrite,
            NeighbourTake,
            ReviveNeighbour,
            NeighbourTake,
            NeighbourWrite,
            NeighbourTake,
            DiffNeighbour,
        ],
    ),
    focus(
        "source made again",
        Offers::LIFECYCLE,
        &[Write, Take, ReviveSource, Take, Write, Take, DiffNew],
    ),
    focus("delete and wait", Offers::UNWAITED, &[Take, DeleteUnwaited, Wait, DiffFull]),
    focus("second sync", FROZEN, &[Write, Take, SyncFull, ZeroAgain, Take, SyncNew]),
    focus("sync while writing", FROZEN.and(Offers::CONCURRENT), &[Write, Take, SyncDuring]),
    focus("early sync", FROZEN.and(Offers::UNWAITED), &[Write, TakeUnwaited, SyncFull]),
    focus("sync with a fault", FROZEN.and(Offers::FAULTS), &[WriteBig, Take, SyncShort]),
    on(World::OddLabels, focus("chain", FROZEN, &[Write, Take, WriteAgain, Take, SyncChain])),
    focus("gaps in a sync", FROZEN, &[Write, WriteBeside, Take, SyncFull]),
    focus("dirty target", FROZEN, &[Write, Take, DirtyTarget, SyncFull, SyncAgain]),
    on(World::UnevenPages, focus("uneven pages", SIMULATED, &[Write, WriteSeam, Take, DiffFull])),
    on(
        World::UnevenPages,
        focus("uneven pages in a sync", SIMULATED.and(FROZEN), &[Write, Take, SyncFull]),
    ),
    focus("live sync", Offers::SYNCS, &[Write, SyncLive, SyncAgain]),
    on(World::Sparse, focus("far up", Offers::SPARSE, &[WriteHigh, Take, DiffFull])),
    on(
        World::Sparse,
        focus("sync from far up", Offers::SPARSE.and(FROZEN), &[WriteHigh, Take, SyncFull]),
    ),
];

/// The focus of that case under a profile.
pub(super) fn of_case(profile: &Profile, case: u64) -> &'static Focus {
    let named = |name| profile.focuses.is_empty() || profile.focuses.contains(&name);
    let fits = |focus: &&Focus| profile.offers.has(focus.needs) && named(focus.name);
    let count = FOCUSES.iter().filter(fits).count() as u64;
    let at = usize::try_from(case % count.max(1)).unwrap_or(0);
    FOCUSES.iter().filter(fits).nth(at).unwrap_or(&FOCUSES[0])
}
