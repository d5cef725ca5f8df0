//! A small array to run the witnesses of planted bugs on, and what they look at.

use super::*;
use crate::array::{Clock, VirtualClock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

pub(super) const BLOCK: u64 = 64;
/// Ten chunks and a partial one.
pub(super) const LEN: u64 = 645;
pub(super) const DELAY: Duration = Duration::from_millis(10);

/// What a witness looks at in the end.
#[derive(PartialEq, Debug)]
pub(super) enum Seen {
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
pub(super) fn lbas(lbas: impl IntoIterator<Item = u64>) -> Seen {
    Seen::Diff { lbas: lbas.into_iter().collect(), malformed: false }
}

pub(super) struct Bench {
    pub(super) array: SimArray,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) source: VolumeUuid,
    pub(super) neighbour: VolumeUuid,
}

impl Bench {
    pub(super) fn new(bugs: Vec<Bug>) -> Bench {
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

    pub(super) fn wait(&self) {
        self.clock.sleep(DELAY);
    }
    /// Writes `fill` to LBAs of the source.
    pub(super) fn w(&self, lbas: Range<u64>, fill: u8) {
        self.w_to(self.source, lbas, fill);
    }
    pub(super) fn w_to(&self, volume: VolumeUuid, lbas: Range<u64>, fill: u8) {
        let bytes = vec![fill; usize::try_from((lbas.end - lbas.start) * BLOCK).unwrap()];
        self.array.device(volume).unwrap().write_bytes(lbas.start * BLOCK, &bytes).unwrap();
    }
    pub(super) fn d(&self, lbas: Range<u64>) {
        let len = (lbas.end - lbas.start) * BLOCK;
        self.array.device(self.source).unwrap().discard_bytes(lbas.start * BLOCK, len).unwrap();
    }
    pub(super) fn resize(&self, len: u64) {
        self.array.resize(self.source, LbaCount::new(len)).unwrap();
    }
    /// Takes a snapshot of the source and waits.
    pub(super) fn s(&self) -> SnapshotUuid {
        self.s_of(self.source)
    }
    pub(super) fn s_of(&self, volume: VolumeUuid) -> SnapshotUuid {
        let name =
            format!("s{}", self.array.snapshots().len() + self.clock.now().as_nanos() as usize);
        let made = self.array.create_snapshot(volume, &name).unwrap();
        self.wait();
        made.uuid
    }
    /// Deletes a snapshot and waits.
    pub(super) fn x(&self, snapshot: SnapshotUuid) {
        self.array.delete_snapshot(snapshot).unwrap();
        self.wait();
    }
    pub(super) fn diff(&self, snap: SnapshotUuid, base: SnapshotUuid) -> Seen {
        self.walk(snap, Some(base), 0, || ())
    }
    pub(super) fn full(&self, snap: SnapshotUuid) -> Seen {
        self.walk(snap, None, 0, || ())
    }
    /// Walks all pages; `between` runs after the first.
    pub(super) fn walk(
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
