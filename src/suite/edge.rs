//! Tests 8 to 13: edge cases of size, order, alignment and snapshot life. Not covered: how a row is
//! run and judged.

use super::{Phase, Plan, TestSpec};
use crate::block::{ChunkBitmap, ChunkIndex, Extent, LbaCount};
use crate::scenario::{Check, Label};

const fn row(
    name: &'static str,
    footprint: &'static [Extent],
    meaning: &'static str,
    build: fn(&mut Plan),
) -> TestSpec {
    TestSpec { name, phase: Phase::Edge, footprint, meaning, build }
}

const LARGE: Extent = Extent::mib(700, 150);
/// What: one write of 150 MiB.
/// Why: a long contiguous change crosses many chunks and pages; none may be missing between them.
/// A failure means that the API fragments or drops part of a sequential write.
pub(super) const LARGE_CONTIGUOUS_WRITE: TestSpec = row(
    "large_contiguous_write",
    &[LARGE],
    "the API fragments or drops part of a sequential write",
    |p| {
        let base = p.take();
        p.write(LARGE);
        let snap = p.take();
        p.diff(snap, base);
        p.check(Check::ReportedAtLeast { within: LARGE, lbas: LARGE.len_lbas() });
        p.check(Check::Contiguous { within: LARGE });
        p.sync(snap, base);
        p.synced(LARGE);
    },
);

const REWRITTEN: Extent = Extent::mib(860, 20);
/// What: data, then zeros over it, then other data, with a sync after each.
/// Why: databases delete and reuse blocks all day; zeros are data too.
/// A failure means that deleted data comes back, or that new data is missing.
pub(super) const DELETE_REWRITE_CYCLE: TestSpec = row(
    "delete_rewrite_cycle",
    &[REWRITTEN],
    "deleted data comes back, or new data is missing",
    |p| {
        p.write(REWRITTEN);
        let snap1 = p.take();
        p.sync(snap1, None);
        p.synced(REWRITTEN);
        p.zero(REWRITTEN);
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.reported(REWRITTEN);
        p.sync(snap2, snap1);
        p.check(Check::TargetHolds { at: REWRITTEN });
        p.write(REWRITTEN);
        let snap3 = p.take();
        p.diff(snap3, snap2);
        p.reported(REWRITTEN);
        p.sync(snap3, snap2);
        p.check(Check::TargetHolds { at: REWRITTEN });
    },
);

const CHAIN_START_MIB: u64 = 880;
const CHAIN_ROUND_MIB: u64 = 15;
const CHAIN_ROUNDS: u64 = 5;
/// What: five rounds of 15 MiB, a snapshot and an incremental sync after each.
/// Why: a chain of increments is how backups live; each must copy its own round and no more.
/// A failure means that increments lose a round or copy rounds again.
pub(super) const MULTI_SNAPSHOT_CHAIN: TestSpec = row(
    "multi_snapshot_chain",
    &[Extent::mib(CHAIN_START_MIB, CHAIN_ROUND_MIB * CHAIN_ROUNDS)],
    "increments lose a round or copy rounds again",
    |p| chain(p, CHAIN_START_MIB, CHAIN_ROUND_MIB, CHAIN_ROUNDS, Some(100), 100),
);

/// Rounds of write, snapshot and incremental sync, then all checksums. Each sync is held to
/// `each_permille` of its round (if given), all together to `total_permille`.
pub(super) fn chain(
    p: &mut Plan,
    start_mib: u64,
    round_mib: u64,
    rounds: u64,
    each_permille: Option<u16>,
    total_permille: u16,
) {
    let round = |i: u64| Extent::mib(start_mib + i * round_mib, round_mib);
    let snaps: Vec<Label> = std::iter::once(p.take())
        .chain((0..rounds).map(|i| {
            p.write(round(i));
            p.take()
        }))
        .collect();
    for pair in snaps.windows(2) {
        p.sync(pair[1], pair[0]);
        if let Some(permille) = each_permille {
            p.synced_about(LbaCount::mib(round_mib), permille);
        }
    }
    let lbas = LbaCount::mib(round_mib * rounds);
    p.check(Check::SyncedTotalAbout { lbas, tolerance_permille: total_permille });
    for i in 0..rounds {
        p.synced(round(i));
    }
}

const IDEMPOTENT: Extent = Extent::mib(960, 15);
/// What: one snapshot synced twice with the same parameters.
/// Why: a retry after a broken connection must be safe.
/// A failure means that the API is not deterministic or that a retry damages the target.
pub(super) const IDEMPOTENT_SYNC: TestSpec = row(
    "idempotent_sync",
    &[IDEMPOTENT],
    "the API is not deterministic, or a retry damages the target",
    |p| {
        let base = p.take();
        p.write(IDEMPOTENT);
        let snap = p.take();
        p.sync(snap, base);
        p.synced(IDEMPOTENT);
        p.sync(snap, base);
        p.check(Check::SameAsPreviousSync { at: IDEMPOTENT });
        p.synced(IDEMPOTENT);
    },
);

const PARTIAL: Extent = Extent::lbas(250_912, 256);
/// What: 256 LBAs that start in the middle of a chunk.
/// Why: only partial bitmaps show a wrong bit or byte order; full ones look the same either way.
/// A failure means that the first and last blocks of unaligned writes are lost or misplaced.
pub(super) const PARTIAL_CHUNK_BITMAP: TestSpec = row(
    "partial_chunk_bitmap",
    &[PARTIAL],
    "the first and last blocks of unaligned writes are lost or misplaced",
    |p| {
        let base = p.take();
        p.write(PARTIAL);
        let snap = p.take();
        p.diff(snap, base);
        p.check(Check::RangesWithin { within: Extent::lbas(250_880, 320), ranges: 5 });
        let first = PARTIAL.start().chunk().get();
        let bitmaps = [
            ChunkBitmap::run(32, 32),
            ChunkBitmap::FULL,
            ChunkBitmap::FULL,
            ChunkBitmap::FULL,
            ChunkBitmap::run(0, 32),
        ];
        for (chunk, bits) in (first..).zip(bitmaps) {
            p.check(Check::Bits { chunk: ChunkIndex::new(chunk), bits });
        }
        p.sync(snap, base);
        p.synced(PARTIAL);
    },
);

/// What: three snapshots one after the other, their diffs, their deletion.
/// Why: only one snapshot of a volume may be in creation; deleting must really end.
/// A failure means that idle snapshots differ or that deleted ones stay.
pub(super) const RAPID_SNAPSHOTS: TestSpec =
    row("rapid_snapshots", &[], "idle snapshots differ, or deleted ones stay", |p| {
        let snaps = [p.take(), p.take(), p.take()];
        for pair in snaps.windows(2) {
            p.diff(pair[1], pair[0]);
            p.check(Check::EmptyDiff);
        }
        for label in snaps {
            p.delete(label);
        }
        for label in snaps {
            p.check(Check::Gone { label });
        }
    });
