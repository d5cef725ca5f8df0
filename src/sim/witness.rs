//! Every planted bug runs its witness: the honest array answers right, the planted one wrong, and
//! wrong in a way the catalogue lists.

use super::witness_bench::{BLOCK, Bench, LEN, Seen, lbas};
use super::*;
use crate::array::Clock;
use std::collections::BTreeSet;

/// A bug's witness: what it does, what an honest array then shows, and the kind of being wrong.
type Witness = (Bug, fn(&Bench) -> Seen, fn() -> Seen, &'static str);

fn none() -> Seen {
    lbas([])
}

const LOST: &[Witness] = &[
    (
        Bug::GrowAliasesTracking,
        |b| {
            b.resize(64 * 20);
            b.w(1152..1153, 1);
            b.full(b.s())
        },
        || lbas([1152]),
        "missed",
    ),
    (
        Bug::WriteDuringDeleteUntracked,
        |b| {
            let s0 = b.s();
            b.array.delete_snapshot(s0).unwrap();
            b.w(3..4, 1);
            b.full(b.s())
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::RollbackNotAChange,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            let s1 = b.s();
            b.array.rollback(b.source, s0).unwrap();
            b.diff(b.s(), s1)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::CutRaceLosesWrite,
        |b| {
            b.s();
            let s1 = b.array.create_snapshot(b.source, "racing").unwrap().uuid;
            b.w(3..4, 1);
            b.wait();
            b.diff(b.s(), s1)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::DirtyDirtyEqualsClean,
        |b| {
            b.w(3..4, 1);
            let s1 = b.s();
            b.w(3..4, 2);
            b.diff(b.s(), s1)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::DiscardCrashTransientClean,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.d(3..4);
            b.array.restart(false);
            b.diff(b.s(), s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::CloneDropsParentData,
        |b| {
            b.w(0..64, 1);
            let clone = b.array.clone_snapshot(b.s(), "clone").unwrap();
            b.w_to(clone, 5..6, 2);
            b.full(b.s_of(clone))
        },
        || lbas(0..64),
        "missed",
    ),
    (
        Bug::EraLostOnRestart,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            b.array.restart(false);
            b.diff(b.s(), s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::SecondWriteBeforeCommit,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            b.w(3..4, 2);
            b.array.restart(false);
            b.diff(b.s(), s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::RangeClearRoundsOutward,
        |b| {
            b.w(5..6, 1);
            b.d(6..70);
            b.full(b.s())
        },
        || lbas(5..70),
        "missed",
    ),
    (
        Bug::HoleBirthZero,
        |b| {
            b.w(0..256, 1);
            let s0 = b.s();
            b.d(0..256);
            b.w(100..101, 1);
            b.diff(b.s(), s0)
        },
        || lbas(0..256),
        "missed",
    ),
    (
        Bug::RebornIdInherits,
        |b| {
            b.w(3..4, 1);
            b.s();
            b.array.delete_volume(b.source).unwrap();
            b.array.create_volume("again", LbaCount::new(LEN), Some(b.source)).unwrap();
            let s0 = b.s();
            b.w(4..5, 1);
            b.diff(b.s(), s0)
        },
        || lbas([4]),
        "missed",
    ),
    (
        Bug::ShrinkGrowForgets,
        |b| {
            b.w(640..641, 1);
            let s0 = b.s();
            b.resize(100);
            b.resize(LEN);
            b.diff(b.s(), s0)
        },
        || lbas([640]),
        "missed",
    ),
    (
        Bug::LastRangeNotFlushed,
        |b| {
            b.w(LEN - 1..LEN, 1);
            b.full(b.s())
        },
        || lbas([LEN - 1]),
        "missed",
    ),
    (
        Bug::MergeLosesMap,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            let s1 = b.s();
            b.x(s0);
            b.array.restart(true);
            b.full(s1)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::ZeroOverDataIgnored,
        |b| {
            b.w(3..5, 1);
            let s0 = b.s();
            b.w(3..4, 0);
            b.array.device(b.source).unwrap().zero_bytes(4 * BLOCK, BLOCK).unwrap();
            b.diff(b.s(), s0)
        },
        || lbas([3, 4]),
        "missed",
    ),
    (
        Bug::DiscardUntracked,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.d(3..4);
            b.diff(b.s(), s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::ThirdIncrementShift,
        |b| {
            b.array.restart(true);
            b.w(3..4, 1);
            let s1 = b.s();
            b.w(7..8, 1);
            b.diff(b.s(), s1)
        },
        || lbas([7]),
        "missed",
    ),
    (
        Bug::BigVolumeWraps,
        |b| {
            b.resize(1 << 33);
            b.w((1 << 32) + 7..(1 << 32) + 8, 1);
            b.full(b.s())
        },
        || lbas([(1 << 32) + 7]),
        "missed",
    ),
    (
        Bug::FrozenEpochsLostOnKill,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.array.restart(false);
            b.full(s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::Bit63Dropped,
        |b| {
            b.w(63..64, 1);
            b.full(b.s())
        },
        || lbas([63]),
        "missed",
    ),
    (
        Bug::PartialTailChunkLost,
        |b| {
            b.w(LEN - 1..LEN, 1);
            b.full(b.s())
        },
        || lbas([LEN - 1]),
        "missed",
    ),
    (
        Bug::SameBlockTwiceToggles,
        |b| {
            b.w(3..4, 1);
            b.w(3..4, 2);
            b.full(b.s())
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::UnalignedWriteTruncates,
        |b| {
            b.w(63..65, 1);
            b.full(b.s())
        },
        || lbas([63, 64]),
        "missed",
    ),
];

const SHAPE: &[Witness] = &[
    (
        Bug::OffsetInsideChunkShifts,
        |b| {
            b.w(70..71, 1);
            b.walk(b.s(), None, 65, || ())
        },
        || lbas([70]),
        "missed",
    ),
    (Bug::UnsortedPages, two_chunks_and_more, two_chunks_and_more_right, "missed"),
    (
        Bug::ResizeReportsEverything,
        |b| {
            let s0 = b.s();
            b.resize(LEN + 10);
            b.diff(b.s(), s0)
        },
        none,
        "leaked",
    ),
    (
        Bug::LeaksPastEndSnapshot,
        |b| {
            let s0 = b.s();
            let s1 = b.s();
            b.w(3..4, 1);
            b.diff(s1, s0)
        },
        none,
        "leaked",
    ),
    (
        Bug::RangePastEnd,
        |b| {
            b.w(LEN - 1..LEN, 1);
            b.resize(100);
            b.full(b.s())
        },
        none,
        "malformed",
    ),
    (
        Bug::MiddleDeleteBreaksWalk,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            let s1 = b.s();
            b.w(100..101, 1);
            b.walk(b.s(), Some(s0), 0, || b.x(s1))
        },
        || lbas([3, 100]),
        "missed",
    ),
    (
        Bug::SnapshotNotFrozen,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.w(3..4, 2);
            let mut byte = [9];
            b.array.read_snapshot(s0, 3 * BLOCK, &mut byte).unwrap();
            Seen::Bytes(byte.to_vec())
        },
        || Seen::Bytes(vec![1]),
        "content",
    ),
    (Bug::AllocatedMeansEverything, |b| b.full(b.s()), none, "leaked"),
    (
        Bug::IdleVolumeChurns,
        |b| {
            let s0 = b.s();
            b.diff(b.s(), s0)
        },
        none,
        "leaked",
    ),
    (
        Bug::SelfDiffEmpty,
        |b| {
            let s = b.s();
            b.diff(s, s)
        },
        || Seen::Refused(400),
        "refusal",
    ),
    (
        Bug::DeletedBaseAnswers,
        |b| {
            let s0 = b.s();
            let s1 = b.s();
            b.x(s0);
            b.diff(s1, s0)
        },
        || Seen::Refused(404),
        "refusal",
    ),
    (
        Bug::ReversedEndsEmpty,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            b.diff(s0, b.s())
        },
        || Seen::Refused(400),
        "refusal",
    ),
    (
        Bug::ForeignBaseAnswers,
        |b| {
            let s0 = b.s();
            b.diff(s0, b.s_of(b.neighbour))
        },
        || Seen::Refused(400),
        "refusal",
    ),
    (
        Bug::LegalBaseRefused,
        |b| {
            let s0 = b.s();
            b.s();
            b.diff(b.s(), s0)
        },
        none,
        "refusal",
    ),
    (
        Bug::AnswerVaries,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.w(3..4, 1);
            let s1 = b.s();
            let lbas = |seen: Seen| match seen {
                Seen::Diff { lbas, malformed: false } => lbas.len(),
                other => panic!("{other:?}"),
            };
            Seen::Ranges(lbas(b.diff(s1, s0)), lbas(b.diff(s1, s0)))
        },
        || Seen::Ranges(1, 1),
        "nondeterministic",
    ),
    (
        Bug::BaseIgnored,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.diff(b.s(), s0)
        },
        none,
        "leaked",
    ),
    (
        Bug::NearestBaseUsed,
        |b| {
            let s0 = b.s();
            b.w(3..4, 1);
            b.s();
            b.diff(b.s(), s0)
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::DiffCachedPerBase,
        |b| {
            b.full(b.s());
            b.w(3..4, 1);
            b.full(b.s())
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::NeighbourVolumeLeaks,
        |b| {
            let s0 = b.s();
            b.w_to(b.neighbour, 3..4, 1);
            b.diff(b.s(), s0)
        },
        none,
        "leaked",
    ),
    (Bug::LastPageDropped, two_chunks_and_more, two_chunks_and_more_right, "missed"),
    (Bug::PageEdgeSkipsOne, two_chunks_and_more, two_chunks_and_more_right, "missed"),
    (Bug::PageEdgeRepeatsShifted, two_chunks_and_more, two_chunks_and_more_right, "malformed"),
    (
        Bug::BitmapByteSwapped,
        |b| {
            b.w(1..2, 1);
            b.full(b.s())
        },
        || lbas([1]),
        "missed",
    ),
    (
        Bug::DeleteNeverFinishes,
        |b| {
            let s = b.s();
            b.x(s);
            b.clock.sleep(Duration::from_secs(3600));
            Seen::Came(b.array.snapshot(s).is_none() && b.array.snapshots().is_empty())
        },
        || Seen::Came(true),
        "liveness",
    ),
    (
        Bug::CreateNeverAvailable,
        |b| {
            let s = b.s();
            b.clock.sleep(Duration::from_secs(3600));
            let state = b.array.snapshot(s).map(|info| info.state);
            Seen::Came(state == Some(SimSnapshotState::Available))
        },
        || Seen::Came(true),
        "liveness",
    ),
];

const DATA: &[Witness] = &[
    (
        Bug::MetadataIoErrorIgnored,
        |b| {
            let s0 = b.s();
            b.array.arm(b.source, SimFault::Metadata, crate::sim::When::once(1)).unwrap();
            let written = b.array.device(b.source).unwrap().write_bytes(3 * BLOCK, &[1; 64]);
            b.array.restart(true);
            match (written, b.diff(b.s(), s0)) {
                // The write failed: nothing was promised.
                (Err(SimIoError::TrackingRecord), seen) if seen == none() => lbas([3]),
                (_, seen) => seen,
            }
        },
        || lbas([3]),
        "missed",
    ),
    (
        Bug::RewritesOnlyInLongDiffs,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.w(3..4, 1);
            let (s1, s2) = (b.s(), b.s());
            let lbas = |seen: Seen| match seen {
                Seen::Diff { lbas, malformed: false } => lbas.len(),
                other => panic!("{other:?}"),
            };
            Seen::Ranges(lbas(b.diff(s1, s0)), lbas(b.diff(s2, s0)))
        },
        || Seen::Ranges(1, 1),
        "leaked",
    ),
    (
        Bug::InsideWalkElidesRewrites,
        |b| {
            b.w(3..4, 1);
            let s0 = b.s();
            b.w(3..4, 1);
            b.walk(b.s(), Some(s0), 1, || ())
        },
        || lbas([3]),
        "malformed",
    ),
    (
        Bug::OlderDataForgotten,
        |b| {
            b.array.age(b.source, 1).unwrap();
            match b.full(b.s()) {
                Seen::Diff { lbas: all, .. } => {
                    lbas(all.into_iter().filter(|lba| [0, LEN - 1].contains(lba)))
                }
                other => other,
            }
        },
        || lbas([0, LEN - 1]),
        "missed",
    ),
    (
        Bug::SlowDevice,
        |b| {
            let before = b.clock.now();
            b.w(0..100, 1);
            Seen::Took(b.clock.now() - before)
        },
        || Seen::Took(Duration::ZERO),
        "figure",
    ),
    (
        Bug::ContentBitFlippedOnWrite,
        |b| {
            b.w(3..5, 8);
            let mut bytes = vec![0; 128];
            b.array.device(b.source).unwrap().read_bytes(3 * BLOCK, &mut bytes).unwrap();
            Seen::Bytes(vec![bytes[0], bytes[64]])
        },
        || Seen::Bytes(vec![8, 8]),
        "content",
    ),
];

fn two_chunks_and_more(b: &Bench) -> Seen {
    b.w(3..4, 1);
    b.w(66..67, 1);
    b.w(300..301, 1);
    b.full(b.s())
}

fn two_chunks_and_more_right() -> Seen {
    lbas([3, 66, 300])
}

/// The kind of being wrong, the first that applies.
fn kind(bug: Bug, right: &Seen, seen: &Seen) -> &'static str {
    match (right, seen) {
        _ if bug == Bug::RewritesOnlyInLongDiffs => "leaked",
        // Less than the whole walk says, but nothing that changed.
        _ if bug == Bug::InsideWalkElidesRewrites => "malformed",
        (Seen::Diff { lbas: right, .. }, Seen::Diff { lbas, malformed }) => {
            if !right.is_subset(lbas) {
                "missed"
            } else if *malformed {
                "malformed"
            } else {
                "leaked"
            }
        }
        (Seen::Refused(_), _) | (_, Seen::Refused(_)) => "refusal",
        (Seen::Bytes(_), _) => "content",
        (Seen::Came(_), _) => "liveness",
        (Seen::Ranges(..), _) => "nondeterministic",
        (Seen::Took(_), _) | (Seen::Diff { .. }, _) => "figure",
    }
}

#[test]
fn every_bug_shows_in_its_witness_and_the_honest_array_does_not() {
    let mut shown = BTreeSet::new();
    for &(bug, run, right, expected_kind) in [LOST, SHAPE, DATA].concat().iter() {
        let right = right();
        assert_eq!(
            run(&Bench::new(vec![])),
            right,
            "honest array in the witness of {}",
            bug.name()
        );
        let seen = run(&Bench::new(vec![bug]));
        assert_ne!(seen, right, "{} does not show", bug.name());
        assert_eq!(kind(bug, &right, &seen), expected_kind, "{}: {seen:?}", bug.name());
        assert!(bug.spec().kinds.contains(&expected_kind), "{}", bug.name());
        shown.insert(bug);
    }
    let missing: Vec<_> = Bug::ALL.iter().filter(|bug| !shown.contains(bug)).collect();
    assert!(missing.is_empty(), "bugs without a witness: {missing:?}");
}
