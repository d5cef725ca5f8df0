//! Every planted bug runs its witness: the honest array answers right, the planted one wrong, and
//! wrong in a way the catalogue lists.

use super::*;
use crate::array::{Clock, VirtualClock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

const BLOCK: u64 = 64;
/// Ten chunks and a partial one.
const LEN: u64 = 645;
const DELAY: Duration = Duration::from_millis(10);

/// What a witness looks at in the end.
#[derive(PartialEq, Debug)]
enum Seen {
    /// The LBAs of a diff, and whether a page broke the shape law.
    Diff { lbas: BTreeSet<u64>, malformed: bool },
    /// A refusal with this status.
    Refused(u16),
    /// The first byte of some LBAs.
    Bytes(Vec<u8>),
    /// Whether what was waited for came.
    Came(bool),
    /// How many ranges two equal calls had.
    Ranges(usize, usize),
    /// Time that transfers took.
    Took(Duration),
}

/// What an honest array shows.
fn lbas(lbas: impl IntoIterator<Item = u64>) -> Seen {
    Seen::Diff { lbas: lbas.into_iter().collect(), malformed: false }
}

struct Bench {
    array: SimArray,
    clock: Arc<VirtualClock>,
    source: VolumeUuid,
    neighbour: VolumeUuid,
}

impl Bench {
    fn new(bugs: Vec<Bug>) -> Bench {
        let clock = Arc::new(VirtualClock::new());
        let config = SimConfig {
            block: BlockSize::SMALLEST,
            page_limit: 1,
            create_delay: DELAY,
            delete_delay: DELAY,
            bugs,
            ..SimConfig::default()
        };
        let array = SimArray::new(config, clock.clone());
        let [source, neighbour] = ["source", "neighbour"]
            .map(|name| array.create_volume(name, LbaCount::new(LEN), None).unwrap());
        Bench { array, clock, source, neighbour }
    }

    fn wait(&self) {
        self.clock.sleep(DELAY);
    }
    /// Writes `fill` to LBAs of the source.
    fn w(&self, lbas: Range<u64>, fill: u8) {
        self.w_to(self.source, lbas, fill);
    }
    fn w_to(&self, volume: VolumeUuid, lbas: Range<u64>, fill: u8) {
        let bytes = vec![fill; usize::try_from((lbas.end - lbas.start) * BLOCK).unwrap()];
        self.array.device(volume).unwrap().write_bytes(lbas.start * BLOCK, &bytes).unwrap();
    }
    fn d(&self, lbas: Range<u64>) {
        let len = (lbas.end - lbas.start) * BLOCK;
        self.array.device(self.source).unwrap().discard_bytes(lbas.start * BLOCK, len).unwrap();
    }
    fn resize(&self, len: u64) {
        self.array.resize(self.source, LbaCount::new(len)).unwrap();
    }
    /// Takes a snapshot of the source and waits.
    fn s(&self) -> SnapshotUuid {
        self.s_of(self.source)
    }
    fn s_of(&self, volume: VolumeUuid) -> SnapshotUuid {
        let name =
            format!("s{}", self.array.snapshots().len() + self.clock.now().as_nanos() as usize);
        let made = self.array.create_snapshot(volume, &name).unwrap();
        self.wait();
        made.uuid
    }
    /// Deletes a snapshot and waits.
    fn x(&self, snapshot: SnapshotUuid) {
        self.array.delete_snapshot(snapshot).unwrap();
        self.wait();
    }
    fn diff(&self, snap: SnapshotUuid, base: SnapshotUuid) -> Seen {
        self.walk(snap, Some(base), 0, || ())
    }
    fn full(&self, snap: SnapshotUuid) -> Seen {
        self.walk(snap, None, 0, || ())
    }
    /// Walks all pages; `between` runs after the first.
    fn walk(
        &self,
        snap: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: u64,
        between: impl Fn(),
    ) -> Seen {
        let len = self.array.snapshot(snap).map_or(0, |info| info.len.get());
        let (mut offset, mut malformed) = (from, false);
        let mut chunks = BTreeMap::new();
        loop {
            let page = match self.array.diff(snap, base, offset) {
                Ok(page) => page,
                Err(error) => return Seen::Refused(error.http_status()),
            };
            let next = page.next_offset_lba;
            let window = offset / 64 * 64..if next == 0 { u64::MAX } else { next + 64 };
            for range in page.ranges {
                let again = chunks.insert(range.start_lba, range.bits);
                malformed |= again.is_some_and(|bits| bits != range.bits)
                    || range.start_lba % 64 != 0
                    || !window.contains(&range.start_lba);
                *chunks.get_mut(&range.start_lba).unwrap() |= again.unwrap_or(0);
            }
            if next == 0 {
                break;
            }
            if offset == from {
                between();
            }
            offset = next;
        }
        let set = |(&start, &bits): (&u64, &u64)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| start + bit)
        };
        let lbas: BTreeSet<u64> = chunks.iter().flat_map(set).collect();
        malformed |= lbas.last().is_some_and(|&last| last >= len);
        Seen::Diff { lbas, malformed }
    }
}

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
            b.array.fail_tracking_records(b.source, 1).unwrap();
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
        Bug::SlowDevice,
        |b| {
            let before = b.clock.now();
            b.w(0..100, 1);
            Seen::Took(b.clock.now() - before)
        },
        || Seen::Took(Duration::ZERO),
        "throughput",
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
fn kind(right: &Seen, seen: &Seen) -> &'static str {
    match (right, seen) {
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
        (Seen::Took(_), _) | (Seen::Diff { .. }, _) => "throughput",
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
        assert_eq!(kind(&right, &seen), expected_kind, "{}: {seen:?}", bug.name());
        assert!(bug.spec().kinds.contains(&expected_kind), "{}", bug.name());
        shown.insert(bug);
    }
    let missing: Vec<_> = Bug::ALL.iter().filter(|bug| !shown.contains(bug)).collect();
    assert!(missing.is_empty(), "bugs without a witness: {missing:?}");
}
