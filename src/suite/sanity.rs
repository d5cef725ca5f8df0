//! Tests 1 to 7: the diff and the copy in straightforward cases. Not covered: how a row is run and
//! judged.

use super::{Phase, Plan, TestSpec};
use crate::block::{Extent, Lba, LbaCount};
use crate::scenario::Check;

const fn row(
    name: &'static str,
    footprint: &'static [Extent],
    meaning: &'static str,
    build: fn(&mut Plan),
) -> TestSpec {
    TestSpec { name, phase: Phase::Sanity, footprint, meaning, build }
}

/// What: two snapshots with no write between them.
/// Why: the simplest question with only one right answer, zero ranges.
/// A failure means that the tracker invents changes or leaks them from elsewhere.
pub(super) const NO_CHANGE_DIFF: TestSpec =
    row("no_change_diff", &[], "the tracker invents changes or leaks them from elsewhere", |p| {
        let snap1 = p.take();
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.check(Check::EmptyDiff);
    });

const FULL_SCAN: Extent = Extent::mib(0, 50);
/// What: 50 MiB written, a diff without base, a full sync.
/// Why: a first backup copies what the full scan names, so it must name every written LBA.
/// A failure means that a first backup silently lacks data.
pub(super) const FULL_SCAN_ACCURACY: TestSpec =
    row("full_scan_accuracy", &[FULL_SCAN], "a first backup silently lacks data", |p| {
        p.write(FULL_SCAN);
        let snap = p.take();
        p.diff(snap, None);
        p.check(Check::ReportedAtLeast { within: FULL_SCAN, lbas: FULL_SCAN.len_lbas() });
        p.reported(FULL_SCAN);
        p.sync(snap, None);
        p.synced(FULL_SCAN);
    });

const INCREMENTAL_A: Extent = Extent::mib(0, 50);
const INCREMENTAL_B: Extent = Extent::mib(200, 50);
/// What: A, a snapshot, B, a snapshot; the diff of the second against the first.
/// Why: the core of incremental backup is that B is in it and A is not.
/// A failure means that increments lose data or copy everything again.
pub(super) const INCREMENTAL_DIFF_ACCURACY: TestSpec = row(
    "incremental_diff_accuracy",
    &[INCREMENTAL_A, INCREMENTAL_B],
    "increments lose data or copy everything again",
    |p| {
        p.write(INCREMENTAL_A);
        let snap1 = p.take();
        p.write(INCREMENTAL_B);
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.reported(INCREMENTAL_B);
        p.not_reported(INCREMENTAL_A);
        p.sync(snap2, snap1);
        p.synced(INCREMENTAL_B);
    },
);

const OVERWRITTEN: Extent = Extent::mib(300, 30);
/// What: pattern A, a snapshot, pattern B over it, a snapshot.
/// Why: an overwrite in place changes no allocation, only contents.
/// A failure means that changed files are restored with their old contents.
pub(super) const OVERWRITE_SAME_REGION: TestSpec = row(
    "overwrite_same_region",
    &[OVERWRITTEN],
    "changed files are restored with their old contents",
    |p| {
        p.write(OVERWRITTEN);
        let snap1 = p.take();
        p.write(OVERWRITTEN);
        let snap2 = p.take();
        p.diff(snap2, snap1);
        p.reported(OVERWRITTEN);
        p.sync(snap2, snap1);
        p.synced(OVERWRITTEN);
        p.check(Check::TargetHolds { at: OVERWRITTEN });
    },
);

const SCATTERED: [Extent; 10] = {
    let mut writes = [Extent::mib(400, 1); 10];
    let mut i = 0;
    while i < 10 {
        writes[i] = Extent::mib(400 + 10 * i as u64, 1);
        i += 1;
    }
    writes
};
/// Half a MiB: what chunk alignment may add at each edge of a write.
const EDGE: LbaCount = LbaCount::new(128);
/// What: ten single MiB with nine MiB between them.
/// Why: sparse changes are what an incremental copy saves on; the gaps must not come along.
/// A failure means that writes are lost between others or that the copy grows with the gaps.
pub(super) const SCATTERED_WRITES: TestSpec = row(
    "scattered_writes",
    &SCATTERED,
    "writes are lost between others, or the copy grows with the gaps",
    |p| {
        let base = p.take();
        for at in SCATTERED {
            p.write(at);
        }
        let snap = p.take();
        p.diff(snap, base);
        for at in SCATTERED {
            p.reported(at);
        }
        for pair in SCATTERED.windows(2) {
            let end = Lba::new(pair[1].start().get() - EDGE.get());
            if let Some(gap) = Extent::between(pair[0].end() + EDGE, end) {
                p.not_reported(gap);
            }
        }
        let lbas = LbaCount::mib(10);
        let tolerance = LbaCount::new(10 * EDGE.get());
        p.check(Check::ReportedAbout { within: Extent::mib(0, 1776), lbas, tolerance });
        p.sync(snap, base);
        for at in SCATTERED {
            p.synced(at);
        }
    },
);

const FULL_SYNC: Extent = Extent::mib(500, 80);
/// What: 80 MiB, a snapshot, a full sync.
/// Why: diff, decoding, offsets and device I/O must work together byte for byte.
/// A failure means a wrong offset or a cut-off write in the copy.
pub(super) const FULL_SYNC_CHECKSUM: TestSpec =
    row("full_sync_checksum", &[FULL_SYNC], "a wrong offset or a cut-off write in the copy", |p| {
        p.write(FULL_SYNC);
        let snap = p.take();
        p.sync(snap, None);
        p.synced(FULL_SYNC);
    });

const ROUND_1: Extent = Extent::mib(600, 50);
const ROUND_2: Extent = Extent::mib(650, 50);
/// What: a full sync of one region, then an incremental sync of its neighbour.
/// Why: an increment must add to the target without touching what is right already.
/// A failure means that the copy clobbers data that had not changed.
pub(super) const INCREMENTAL_SYNC_CHECKSUM: TestSpec = row(
    "incremental_sync_checksum",
    &[ROUND_1, ROUND_2],
    "the copy clobbers data that had not changed",
    |p| {
        p.write(ROUND_1);
        let snap1 = p.take();
        p.sync(snap1, None);
        p.synced(ROUND_1);
        p.write(ROUND_2);
        let snap2 = p.take();
        p.sync(snap2, snap1);
        p.synced(ROUND_2);
        p.check(Check::TargetUntouched { at: ROUND_1 });
        p.synced(ROUND_1);
    },
);
