//! An array that takes legal freedoms, against the naive twin: whatever it takes, each answer holds
//! what must be reported and nothing that may not, contents and tracking are cut at one moment, and
//! equal questions get equal answers.

use super::twin::{BLOCK, Twin, block, lbas_of};
use super::*;
use crate::array::{Clock, VirtualClock};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const LEN: u64 = 300;
const DELAY: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
enum Op {
    /// Few values, so that same-content writes happen.
    Write {
        at: u64,
        len: u64,
        fill: u8,
    },
    Zero {
        at: u64,
        len: u64,
    },
    Take,
    Delete(prop::sample::Index),
    Rollback(prop::sample::Index),
    Restart,
    Sleep(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let lbas = || (0..LEN, 1..80u64).prop_map(|(at, len)| (at, len.min(LEN - at)));
    prop_oneof![
        8 => (lbas(), 1..3u8).prop_map(|((at, len), fill)| Op::Write { at, len, fill }),
        2 => lbas().prop_map(|(at, len)| Op::Zero { at, len }),
        4 => Just(Op::Take),
        1 => any::<prop::sample::Index>().prop_map(Op::Delete),
        1 => any::<prop::sample::Index>().prop_map(Op::Rollback),
        1 => Just(Op::Restart),
        3 => (0..60_000u64).prop_map(Op::Sleep),
    ]
}

fn freedoms() -> impl Strategy<Value = Freedoms> {
    (any::<u64>(), any::<[bool; 7]>()).prop_map(|(seed, on)| Freedoms {
        seed,
        chunk_rounded: on[0],
        elide_same_content: on[1],
        late_available: on[2],
        late_cut: on[3],
        slow_delete: on[4],
        uneven_pages: on[5],
        repeated_edges: on[6],
        ..Freedoms::NONE
    })
}

/// A snapshot and the moments its cut may have been made at: length of the log and the bytes.
#[derive(Clone)]
struct Taken {
    uuid: SnapshotUuid,
    moments: Vec<(usize, Vec<u8>)>,
}

struct World {
    array: SimArray,
    clock: Arc<VirtualClock>,
    volume: VolumeUuid,
    twin: Twin,
    taken: Vec<Taken>,
    deleted: Vec<SnapshotUuid>,
}

impl World {
    fn new(freedoms: Freedoms, page_limit: u32) -> World {
        let clock = Arc::new(VirtualClock::new());
        let config = SimConfig {
            block: BlockSize::SMALLEST,
            page_limit,
            create_delay: DELAY,
            delete_delay: DELAY,
            freedoms,
            ..SimConfig::default()
        };
        let array = SimArray::new(config, clock.clone());
        let volume = array.create_volume("v", LbaCount::new(LEN), None).unwrap();
        let bytes = vec![0; usize::try_from(LEN).unwrap() * BLOCK];
        let twin = Twin { log: Vec::new(), bytes, snapshots: Vec::new() };
        World { array, clock, volume, twin, taken: Vec::new(), deleted: Vec::new() }
    }

    fn available(&self, snapshot: &Taken) -> bool {
        self.array.snapshot(snapshot.uuid).unwrap().state == SimSnapshotState::Available
    }

    /// A snapshot that is still being made may be cut after the operation that just ended, too.
    fn operated(&mut self) {
        let creating = self.taken.last().is_some_and(|last| !self.available(last));
        let moment = (self.twin.log.len(), self.twin.bytes.clone());
        if let Some(last) = self.taken.last_mut().filter(|_| creating) {
            last.moments.push(moment);
        }
    }

    fn apply(&mut self, number: usize, op: &Op) {
        let size = BLOCK as u64;
        let device = self.array.device(self.volume).unwrap();
        let span = |at: u64, len: u64| {
            usize::try_from(at * size).unwrap()..usize::try_from((at + len) * size).unwrap()
        };
        match *op {
            Op::Write { at, len, fill } => {
                self.twin.bytes[span(at, len)].fill(fill);
                device.write_bytes(at * size, &self.twin.bytes[span(at, len)]).unwrap();
                self.twin.touch(at..at + len);
                self.operated();
            }
            Op::Zero { at, len } => {
                self.twin.bytes[span(at, len)].fill(0);
                device.zero_bytes(at * size, len * size).unwrap();
                self.twin.touch(at..at + len);
                self.operated();
            }
            Op::Take => {
                // One at a time; the array says so itself.
                if let Ok(made) = self.array.create_snapshot(self.volume, format!("s{number}")) {
                    let moments = vec![(self.twin.log.len(), self.twin.bytes.clone())];
                    self.taken.push(Taken { uuid: made.uuid, moments });
                }
            }
            Op::Sleep(millis) => self.clock.sleep(Duration::from_millis(millis)),
            Op::Restart => self.array.restart(false),
            Op::Delete(_) | Op::Rollback(_) if self.taken.is_empty() => {}
            Op::Delete(which) => {
                let place = which.index(self.taken.len());
                if self.available(&self.taken[place]) {
                    let gone = self.taken.remove(place).uuid;
                    self.array.delete_snapshot(gone).unwrap();
                    self.deleted.push(gone);
                }
            }
            Op::Rollback(which) => {
                let to = self.taken[which.index(self.taken.len())].clone();
                // Not while another is being made: its cut is certain then, which this test's list
                // of moments does not know.
                if self.taken.iter().all(|taken| self.available(taken)) {
                    let held = self.held(&to);
                    self.array.rollback(self.volume, to.uuid).unwrap();
                    let since = self.twin.touched(to.moments[0].0, self.twin.log.len(), u64::MAX);
                    self.twin.touch(since.into_iter());
                    self.twin.bytes = held;
                }
            }
        }
    }

    /// What the snapshot holds.
    fn held(&self, snapshot: &Taken) -> Vec<u8> {
        let mut bytes = vec![0xff; self.twin.bytes.len()];
        self.array.read_snapshot(snapshot.uuid, 0, &mut bytes).unwrap();
        bytes
    }

    /// Walks a diff page by page; pages go forward and stay in their windows.
    fn walk(
        &self,
        snap: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: u64,
    ) -> Result<BTreeSet<u64>, TestCaseError> {
        let (mut offset, mut found) = (from, std::collections::BTreeMap::new());
        loop {
            let page = self.array.diff(snap, base, offset).unwrap();
            prop_assert_eq!(&page, &self.array.diff(snap, base, offset).unwrap());
            prop_assert!(page.ranges.len() <= self.array.config().page_limit as usize);
            prop_assert!(page.ranges.is_sorted_by(|a, b| a.start_lba < b.start_lba));
            let next = page.next_offset_lba;
            for range in &page.ranges {
                prop_assert!(range.bits != 0 && range.start_lba.is_multiple_of(64));
                prop_assert!(range.start_lba >= offset / 64 * 64);
                prop_assert!(next == 0 || range.start_lba <= next, "a range after its window");
                let again = found.insert(range.start_lba, range.bits);
                prop_assert!(again.is_none_or(|bits| bits == range.bits), "two bitmaps");
            }
            if next == 0 {
                let ranges = found.into_iter().map(|(start_lba, bits)| SimRange {
                    start_lba,
                    end_lba_inclusive: start_lba + 63,
                    bits,
                });
                let page = SimPage { ranges: ranges.collect(), next_offset_lba: 0 };
                return Ok(lbas_of(&page).into_iter().collect());
            }
            prop_assert!(next > offset && next.is_multiple_of(64) && next < LEN);
            offset = next;
        }
    }

    /// The moments that fit what a snapshot holds: at least one, or data and map were cut apart.
    fn fitting(&self, snapshot: &Taken, held: &[u8]) -> Result<(usize, usize), TestCaseError> {
        let fit = snapshot.moments.iter().filter(|(_, bytes)| bytes == held).map(|(at, _)| *at);
        let (first, last) = (fit.clone().min(), fit.max());
        prop_assert!(first.is_some(), "contents of no moment between the call and Available");
        Ok((first.unwrap(), last.unwrap()))
    }

    fn judge(
        &self,
        answer: &BTreeSet<u64>,
        (then, now): (&[u8], &[u8]),
        log: (usize, usize),
    ) -> Result<(), TestCaseError> {
        let rounded = self.array.config().freedoms.chunk_rounded;
        let may = self.twin.touched(log.0, log.1, LEN);
        let must = (0..LEN).filter(|&lba| block(then, lba) != block(now, lba));
        for lba in must {
            prop_assert!(answer.contains(&lba), "LBA {} is missed", lba);
        }
        let chunks: BTreeSet<u64> = may.iter().map(|lba| lba / 64).collect();
        for lba in answer {
            let legal = may.contains(lba) || (rounded && chunks.contains(&(lba / 64)));
            prop_assert!(legal && *lba < LEN, "LBA {} is leaked", lba);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_freedoms_it_takes_every_answer_lies_between_the_bounds(
        freedoms in freedoms(),
        page_limit in 1u32..6,
        from in 0..LEN,
        ops in prop::collection::vec(op(), 1..50),
    ) {
        let mut world = World::new(freedoms, page_limit);
        for (number, op) in ops.iter().enumerate() {
            world.apply(number, op);
        }
        world.clock.sleep(Duration::from_secs(60));
        for gone in &world.deleted {
            prop_assert_eq!(world.array.snapshot(*gone), None, "not gone after a minute");
        }
        let empty = vec![0; world.twin.bytes.len()];
        for (place, snap) in world.taken.iter().enumerate() {
            let now = world.held(snap);
            let (first, last) = world.fitting(snap, &now)?;
            let full = world.walk(snap.uuid, None, 0)?;
            world.judge(&full, (&empty, &now), (0, last))?;
            let rest = full.iter().copied().filter(|&lba| lba >= from / 64 * 64).collect();
            prop_assert_eq!(world.walk(snap.uuid, None, from)?, rest, "from {}", from);
            for base in &world.taken[..place] {
                let then = world.held(base);
                let since = world.fitting(base, &then)?;
                let answer = world.walk(snap.uuid, Some(base.uuid), 0)?;
                world.judge(&answer, (&then, &now), (since.0.min(first), last))?;
            }
        }
    }
}

/// Runs `shows` over many seeds with the same freedoms.
fn in_some_seed(freedoms: Freedoms, shows: impl Fn(&World) -> bool) -> bool {
    (0..100).any(|seed| shows(&World::new(Freedoms { seed, ..freedoms }, 2)))
}

fn write(world: &World, lba: u64, fill: u8) {
    let device = world.array.device(world.volume).unwrap();
    device.write_bytes(lba * BLOCK as u64, &[fill; BLOCK]).unwrap();
}

fn take(world: &World, name: &str) -> SnapshotUuid {
    let made = world.array.create_snapshot(world.volume, name).unwrap().uuid;
    world.clock.sleep(Duration::from_secs(60));
    made
}

#[test]
fn each_freedom_is_really_taken_and_none_without_leave() {
    type Shows = fn(&World) -> bool;
    let none = Freedoms::NONE;
    let table: [(&str, Freedoms, Shows); 8] = [
        ("chunk_rounded", Freedoms { chunk_rounded: true, ..none }, |world| {
            write(world, 70, 1);
            world.walk(take(world, "a"), None, 0).unwrap().len() == 64
        }),
        ("elide_same_content", Freedoms { elide_same_content: true, ..none }, |world| {
            write(world, 70, 1);
            let base = take(world, "a");
            write(world, 70, 1);
            world.walk(take(world, "b"), Some(base), 0).unwrap().is_empty()
        }),
        ("late_available", Freedoms { late_available: true, ..none }, |world| {
            world.array.create_snapshot(world.volume, "a").unwrap();
            world.clock.sleep(DELAY * 100);
            world.array.snapshots()[0].state == SimSnapshotState::Creating
        }),
        ("late_cut", Freedoms { late_cut: true, ..none }, |world| {
            let snap = world.array.create_snapshot(world.volume, "a").unwrap().uuid;
            write(world, 3, 1);
            world.clock.sleep(DELAY);
            world.walk(snap, None, 0).unwrap() == BTreeSet::from([3])
        }),
        ("slow_delete", Freedoms { slow_delete: true, ..none }, |world| {
            world.array.delete_snapshot(take(world, "a")).unwrap();
            world.clock.sleep(DELAY * 100);
            world.array.snapshots().len() == 1
        }),
        ("an empty page", Freedoms { uneven_pages: true, ..none }, |world| {
            write(world, 70, 1);
            let page = world.array.diff(take(world, "a"), None, 0).unwrap();
            page.ranges.is_empty() && page.next_offset_lba == 64
        }),
        ("a short page", Freedoms { uneven_pages: true, ..none }, |world| {
            write(world, 3, 1);
            write(world, 70, 1);
            let page = world.array.diff(take(world, "a"), None, 0).unwrap();
            page.ranges.len() == 1 && page.next_offset_lba == 64
        }),
        ("repeated_edges", Freedoms { repeated_edges: true, ..none }, |world| {
            [3, 70, 140].iter().for_each(|&lba| write(world, lba, 1));
            let page = world.array.diff(take(world, "a"), None, 0).unwrap();
            page.ranges.last().map(|last| last.start_lba) == Some(page.next_offset_lba)
        }),
    ];
    for (name, freedoms, shows) in table {
        assert!(in_some_seed(freedoms, shows), "{name} is never taken");
        assert!(!in_some_seed(none, shows), "{name} is taken without leave");
    }
}

#[test]
fn an_armed_fault_is_met_once_at_its_call_and_can_be_taken_back() {
    let world = World::new(Freedoms::NONE, 1);
    let device = world.array.device(world.volume).unwrap();
    world.array.arm(world.volume, SimFault::ShortWrite, crate::sim::When::once(2)).unwrap();
    // A single block cannot be shortened and does not count.
    assert_eq!(device.write_some(0, &[1; BLOCK]), Ok(BLOCK));
    assert_eq!(device.write_some(0, &[1; 3 * BLOCK]), Ok(3 * BLOCK));
    assert_eq!(device.write_some(0, &[2; 3 * BLOCK]), Ok(BLOCK));
    assert_eq!(device.write_some(0, &[3; 3 * BLOCK]), Ok(3 * BLOCK));
    assert!(!world.array.disarm(world.volume), "it was met");
    world.array.arm(world.volume, SimFault::Metadata, crate::sim::When::once(1)).unwrap();
    assert_eq!(device.zero_bytes(0, 64), Err(SimIoError::TrackingRecord));
    world.array.arm(world.volume, SimFault::Metadata, crate::sim::When::once(1)).unwrap();
    assert!(world.array.disarm(world.volume), "nothing met it");
    assert_eq!(device.write_bytes(0, &[1; BLOCK]), Ok(()));
    for &fault in SimFault::ALL {
        assert_eq!(SimFault::from_name(fault.name()), Some(fault));
    }
}

#[test]
fn an_array_without_contents_tracks_as_one_with_them() {
    let config = SimConfig { block: BlockSize::SMALLEST, contents: false, ..SimConfig::default() };
    let array = SimArray::new(config, Arc::new(VirtualClock::new()));
    let len = LbaCount::new((64 << 40) / 4096);
    let volume = array.create_volume("v", len, None).unwrap();
    let device = array.device(volume).unwrap();
    device.write_bytes((len.get() - 1) * 64, &[1; 64]).unwrap();
    let snap = array.create_snapshot(volume, "a").unwrap().uuid;
    let page = array.diff(snap, None, 0).unwrap();
    assert_eq!(page.ranges.iter().map(|range| range.bits).collect::<Vec<_>>(), [1 << 63]);
    assert_eq!(device.read_bytes(0, &mut [0]), Err(SimIoError::NoContents));
    assert!(matches!(array.read_snapshot(snap, 0, &mut [0]), Err(SimError::BadRequest(_))));
}
