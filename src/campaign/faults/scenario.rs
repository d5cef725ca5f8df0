//! The scenario that every run of the self-test by faults repeats. Not covered: running it.

use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role};
use crate::scenario::{Header, Label, Op, Scenario, SyncSource};

/// Ten chunks: several pages for each diff, a few milliseconds for each run.
const LEN: LbaCount = LbaCount::new(640);
/// Ranges of a page: diffs have one, two and three pages.
const PAGE_LIMIT: u32 = 3;

/// Some 40 calls of API and data plane: snapshots taken and deleted, diffs of several pages with and
/// without base, one that must be refused, three syncs, everything that was written read back.
pub fn canonical() -> Scenario {
    let shape = Geometry { block: BlockSize::DEVICE, len: LEN, fresh: true };
    let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
    let mut header = Header::new(volumes, Policy::Exact, "fail the Nth call");
    header.page_limit = Some(PAGE_LIMIT);
    header.over_https = true;

    let whole = || Extent::lbas(0, LEN.get());
    let write = |start, lbas| Op::Write { at: Extent::lbas(start, lbas) };
    let read = || Op::Read { snap: None, at: whole() };
    let take = |label| Op::Take { label: Label(label), wait: true };
    let delete = |label| Op::Delete { label: Label(label), wait: true };
    let diff = |snap, base: Option<u32>| {
        let (from, between_pages) = (Lba::new(0), None);
        Op::Diff { snap: Label(snap), base: base.map(Label), from, between_pages }
    };
    let sync = |snap, base: Option<u32>| {
        let (from, during) = (SyncSource::Live, Vec::new());
        Op::Sync { snap: Label(snap), base: base.map(Label), from, during }
    };
    let on_target = |op| Op::On { volume: Role::Target, op: Box::new(op) };
    let ops = [
        write(3, 70),
        read(),
        Op::Flush,
        take(0),
        write(130, 10),
        write(320, 200),
        read(),
        take(1),
        diff(1, Some(0)),
        diff(1, None),
        sync(1, None),
        write(66, 1),
        Op::WriteZeroes { at: Extent::lbas(330, 20) },
        read(),
        take(2),
        sync(2, Some(1)),
        on_target(read()),
        diff(2, Some(0)),
        delete(1),
        // Refused: its base is gone.
        diff(2, Some(1)),
        write(600, 40),
        Op::Flush,
        read(),
        take(3),
        sync(3, Some(2)),
        on_target(read()),
        read(),
        delete(0),
    ];
    Scenario::new(header, ops)
}
