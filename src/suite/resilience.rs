//! Tests 14 to 20: refusal, paging, chains, isolation, speed. Not covered: how a row is run and
//! judged.

use super::edge::chain;
use super::{Phase, Plan, TestSpec};
use crate::block::{Extent, LbaCount};
use crate::scenario::Check;

const fn row(
    name: &'static str,
    footprint: &'static [Extent],
    meaning: &'static str,
    build: fn(&mut Plan),
) -> TestSpec {
    TestSpec { name, phase: Phase::Resilience, footprint, meaning, build }
}

/// What: a diff against a base, then the same after the base was deleted.
/// Why: a deleted base must be an error; any answer, even an empty one, would be taken for true.
/// A failure means that an increment against a lost base silently copies nothing.
pub(super) const DELETED_BASE_SNAPSHOT: TestSpec = row(
    "deleted_base_snapshot",
    &[],
    "an increment against a lost base silently copies nothing",
    |p| {
        let snap1 = p.take();
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.delete(snap1);
        p.diff(snap2, snap1);
        p.check(Check::Refused);
    },
);

const PAGED: [Extent; 100] = {
    let mut writes = [Extent::mib(1000, 1); 100];
    let mut i = 0;
    while i < 100 {
        writes[i] = Extent::mib(1000 + 3 * i as u64, 1);
        i += 1;
    }
    writes
};
/// What: 100 writes of 1 MiB, 3 MiB apart, so many ranges that the answer may take several pages.
/// Why: a page dropped or stitched wrongly loses everything it named.
/// A failure means that large diffs lose data at page edges.
pub(super) const PAGINATION_STRESS: TestSpec =
    row("pagination_stress", &PAGED, "large diffs lose data at page edges", |p| {
        let base = p.take();
        for at in PAGED {
            p.write(at);
        }
        let snap = p.take();
        p.diff(snap, base);
        p.check(Check::RangesAtLeast { ranges: 400 });
        let lbas = LbaCount::mib(95);
        p.check(Check::ReportedAtLeast { within: Extent::mib(1000, 298), lbas });
        for at in PAGED {
            p.reported(at);
        }
        p.sync(snap, base);
        for at in PAGED {
            p.synced(at);
        }
    });

const REGION: Extent = Extent::mib(1330, 35);
const MIDDLE: Extent = Extent::mib(1340, 15);
/// What: 35 MiB synced in full, then only its middle overwritten and synced.
/// Why: the unchanged edges must neither be reported nor change on the target.
/// A failure means that the tracker rounds updates outwards or the copy damages their neighbours.
pub(super) const PARTIAL_REGION_UPDATE: TestSpec = row(
    "partial_region_update",
    &[REGION],
    "the tracker rounds updates outwards, or the copy damages their neighbours",
    |p| {
        p.write(REGION);
        let snap1 = p.take();
        p.sync(snap1, None);
        p.synced(REGION);
        p.write(MIDDLE);
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.reported(MIDDLE);
        p.not_reported(Extent::mib(1330, 10));
        p.not_reported(Extent::mib(1355, 10));
        p.sync(snap2, snap1);
        p.synced(REGION);
    },
);

const ROUNDS: [Extent; 3] = [Extent::mib(1370, 20), Extent::mib(1390, 20), Extent::mib(1410, 20)];
/// What: three rounds with a snapshot each; the last diffed directly against the first.
/// Why: skipping snapshots must give the sum of what lies between.
/// A failure means that a backup after a missed one lacks the missed one's changes.
pub(super) const NON_ADJACENT_SNAPSHOTS: TestSpec = row(
    "non_adjacent_snapshots",
    &ROUNDS,
    "a backup after a missed one lacks the missed one's changes",
    |p| {
        let first = p.take();
        let last = ROUNDS.map(|at| {
            p.write(at);
            p.take()
        })[2];
        p.diff(last, first);
        for at in ROUNDS {
            p.reported(at);
        }
        p.sync(last, first);
        for at in ROUNDS {
            p.synced(at);
        }
    },
);

/// What: ten rounds of 10 MiB, walked one increment at a time.
/// Why: a small systematic error adds up over ten steps.
/// A failure means that long chains drift: they lose blocks or copy ever more.
pub(super) const LONG_INCREMENTAL_CHAIN: TestSpec = row(
    "long_incremental_chain",
    &[Extent::mib(1435, 100)],
    "long chains drift: they lose blocks or copy ever more",
    |p| chain(p, 1435, 10, 10, None, 50),
);

const BATCH_A: Extent = Extent::mib(1540, 15);
const BATCH_B: Extent = Extent::mib(1555, 15);
/// What: A between the first two snapshots, B between the last two.
/// Why: a snapshot may hold only what was written before it.
/// A failure means that snapshots are no points in time: increments overlap or leave holes.
pub(super) const POINT_IN_TIME_ISOLATION: TestSpec = row(
    "point_in_time_isolation",
    &[BATCH_A, BATCH_B],
    "snapshots are no points in time: increments overlap or leave holes",
    |p| {
        let snap0 = p.take();
        p.write(BATCH_A);
        let snap1 = p.take();
        p.write(BATCH_B);
        let snap2 = p.take();
        p.diff(snap1, snap0);
        p.reported(BATCH_A);
        p.not_reported(BATCH_B);
        p.diff(snap2, snap1);
        p.reported(BATCH_B);
        p.not_reported(BATCH_A);
    },
);

const TIMED: Extent = Extent::mib(1575, 200);
/// What: 200 MiB and a timed full sync.
/// Why: a floor of 10 MiB/s catches a broken network path or a copy that has become serial.
/// A failure means that syncs will not finish in their window.
pub(super) const SYNC_THROUGHPUT_BASELINE: TestSpec =
    row("sync_throughput_baseline", &[TIMED], "syncs will not finish in their window", |p| {
        p.write(TIMED);
        let snap = p.take();
        p.sync(snap, None);
        let min_mib_per_s = p.min_mib_per_s();
        p.check(Check::Throughput { min_mib_per_s });
        p.reported(TIMED);
        p.synced(TIMED);
    });
