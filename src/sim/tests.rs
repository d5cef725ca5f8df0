//! The honest array's contract: lives of snapshots, refusals, pages, sizes, and the port.

use super::*;
use crate::array::{ApiError, Array, BlockDevice, Clock, DeviceError, SnapshotState, VirtualClock};
use crate::block::{ByteOffset, ChunkBitmap, Lba, RunId, SnapshotName};
use std::sync::Arc;

const DELAY: Duration = Duration::from_millis(10);

fn array_of(config: SimConfig) -> (SimArray, Arc<VirtualClock>, VolumeUuid) {
    let clock = Arc::new(VirtualClock::new());
    let config = SimConfig { block: BlockSize::SMALLEST, ..config };
    let array = SimArray::new(config, clock.clone());
    let volume = array.create_volume("source", LbaCount::new(645), None).unwrap();
    (array, clock, volume)
}

fn slow() -> SimConfig {
    SimConfig { create_delay: DELAY, delete_delay: DELAY, ..SimConfig::default() }
}

fn write(array: &SimArray, volume: VolumeUuid, lba: u64) {
    array.device(volume).unwrap().write_bytes(lba * 64, &[7; 64]).unwrap();
}

fn take(array: &SimArray, volume: VolumeUuid, name: &str) -> SnapshotUuid {
    array.create_snapshot(volume, name).unwrap().uuid
}

fn starts(page: &SimPage) -> Vec<u64> {
    page.ranges.iter().map(|range| range.start_lba).collect()
}

fn status<T: std::fmt::Debug>(result: Result<T, SimError>) -> u16 {
    result.unwrap_err().http_status()
}

#[test]
fn a_snapshot_is_creating_then_available_then_deleting_then_gone() {
    let (array, clock, volume) = array_of(slow());
    let made = array.create_snapshot(volume, "a").unwrap();
    assert_eq!(made.state, SimSnapshotState::Creating);
    assert_eq!(status(array.delete_snapshot(made.uuid)), 503);
    assert_eq!(status(array.diff(made.uuid, None, 0)), 400);
    clock.sleep(DELAY);
    assert_eq!(array.snapshot(made.uuid).unwrap().state, SimSnapshotState::Available);
    array.delete_snapshot(made.uuid).unwrap();
    assert_eq!(array.snapshots()[0].state, SimSnapshotState::Deleting);
    assert_eq!(status(array.delete_snapshot(made.uuid)), 400);
    assert_eq!(status(array.diff(made.uuid, None, 0)), 404);
    clock.sleep(DELAY);
    assert_eq!(array.snapshot(made.uuid), None);
    assert!(array.snapshots().is_empty());
    assert_eq!(status(array.delete_snapshot(made.uuid)), 404);
}

#[test]
fn one_snapshot_of_a_volume_is_creating_at_a_time() {
    let (array, clock, volume) = array_of(slow());
    let other = array.create_volume("other", LbaCount::new(64), None).unwrap();
    take(&array, volume, "a");
    assert_eq!(status(array.create_snapshot(volume, "b")), 503);
    take(&array, other, "c");
    clock.sleep(DELAY);
    take(&array, volume, "b");
}

#[test]
fn names_are_free_again_when_a_snapshot_is_gone() {
    let (array, clock, volume) = array_of(slow());
    let first = take(&array, volume, "a");
    clock.sleep(DELAY);
    assert_eq!(status(array.create_snapshot(volume, "a")), 409);
    array.delete_snapshot(first).unwrap();
    assert_eq!(status(array.create_snapshot(volume, "a")), 409);
    clock.sleep(DELAY);
    assert_ne!(take(&array, volume, "a"), first);
}

#[test]
fn the_cut_is_made_when_the_snapshot_is_created() {
    let (array, clock, volume) = array_of(slow());
    let before = take(&array, volume, "before");
    write(&array, volume, 3);
    clock.sleep(DELAY);
    let after = take(&array, volume, "after");
    clock.sleep(DELAY);
    assert_eq!(array.diff(before, None, 0).unwrap(), SimPage::default());
    assert_eq!(array.diff(after, Some(before), 0).unwrap().ranges[0].bits, 1 << 3);
    let mut block = [9; 64];
    array.read_snapshot(before, 3 * 64, &mut block).unwrap();
    assert_eq!(block, [0; 64]);
}

#[test]
fn pairs_that_make_no_sense_are_refused() {
    let (array, clock, volume) = array_of(slow());
    let other = array.create_volume("other", LbaCount::new(645), None).unwrap();
    let [a, b] = ["a", "b"].map(|name| {
        let snapshot = take(&array, volume, name);
        clock.sleep(DELAY);
        snapshot
    });
    let foreign = take(&array, other, "foreign");
    clock.sleep(DELAY);
    assert_eq!(array.diff(b, Some(a), 0).unwrap(), SimPage::default());
    assert_eq!(status(array.diff(a, Some(a), 0)), 400);
    assert_eq!(status(array.diff(a, Some(b), 0)), 400);
    assert_eq!(status(array.diff(a, Some(foreign), 0)), 400);
    assert_eq!(status(array.diff(a, Some(SnapshotUuid::from_u128(1)), 0)), 404);
    assert_eq!(status(array.diff(SnapshotUuid::from_u128(1), None, 0)), 404);
    assert_eq!(status(array.diff(b, Some(a), 646)), 400);
    array.delete_snapshot(a).unwrap();
    assert_eq!(status(array.diff(b, Some(a), 0)), 404);
    clock.sleep(DELAY);
    assert_eq!(status(array.diff(b, Some(a), 0)), 404);
}

#[test]
fn pages_hold_at_most_their_limit_and_start_at_the_chunk_of_the_offset() {
    let (array, _, volume) = array_of(SimConfig { page_limit: 2, ..SimConfig::default() });
    for lba in [0, 70, 200, 644] {
        write(&array, volume, lba);
    }
    let snap = take(&array, volume, "a");
    let first = array.diff(snap, None, 0).unwrap();
    assert_eq!((starts(&first), first.next_offset_lba), (vec![0, 64], 192));
    let second = array.diff(snap, None, 192).unwrap();
    assert_eq!((starts(&second), second.next_offset_lba), (vec![192, 640], 0));
    assert_eq!(second.ranges[1].bits, 1 << 4);
    let inside = array.diff(snap, None, 127).unwrap();
    assert_eq!((starts(&inside), inside.next_offset_lba), (vec![64, 192], 640));
}

#[test]
fn a_byte_written_marks_its_whole_lba() {
    let (array, _, volume) = array_of(SimConfig::default());
    let device = array.device(volume).unwrap();
    device.write_bytes(63 * 64 + 63, &[1, 1]).unwrap();
    let page = array.diff(take(&array, volume, "a"), None, 0).unwrap();
    assert_eq!(page.ranges.iter().map(|range| range.bits).collect::<Vec<_>>(), [1 << 63, 1]);
    assert_eq!(device.write_bytes(645 * 64 - 1, &[1, 1]), Err(SimIoError::PastEnd));
    assert_eq!(device.read_bytes(u64::MAX, &mut [0, 0]), Err(SimIoError::PastEnd));
}

#[test]
fn a_64_tib_volume_costs_what_is_written() {
    let clock = Arc::new(VirtualClock::new());
    let array = SimArray::new(SimConfig::default(), clock);
    let lbas = (64 << 40) / 4096;
    let volume = array.create_volume("huge", LbaCount::new(lbas), None).unwrap();
    let device = array.device(volume).unwrap();
    device.write_bytes((lbas - 1) * 4096, &[1; 4096]).unwrap();
    let snap = take(&array, volume, "a");
    device.write_bytes(5 * 4096, &[1; 4096]).unwrap();
    array.resize(volume, LbaCount::new(100)).unwrap();
    array.resize(volume, LbaCount::new(lbas)).unwrap();
    let back = take(&array, volume, "b");
    assert_eq!(starts(&array.diff(snap, None, 0).unwrap()), [lbas - 64]);
    assert_eq!(starts(&array.diff(back, Some(snap), 0).unwrap()), [0, lbas - 64]);
    let mut block = [9; 4096];
    device.read_bytes((lbas - 1) * 4096, &mut block).unwrap();
    assert_eq!(block, [0; 4096]);
}

#[test]
fn a_preloaded_volume_reports_its_pattern_and_later_diffs_do_not() {
    for (preload, second_chunk) in
        [(Preload::Dense, u64::MAX), (Preload::Alternating, 0x5555_5555_5555_5555)]
    {
        let (array, _, volume) = array_of(SimConfig::default());
        array.preload(volume, preload).unwrap();
        let snap = take(&array, volume, "preload");
        let page = array.diff(snap, None, 0).unwrap();
        assert_eq!(page.ranges.len(), 11);
        assert_eq!(page.ranges[1].bits, second_chunk);
        assert_eq!(page.ranges[10].bits, second_chunk & 0b11111);
        write(&array, volume, 70);
        let later = take(&array, volume, "later");
        assert_eq!(starts(&array.diff(later, Some(snap), 0).unwrap()), [64]);
        assert_eq!(status(array.preload(volume, preload)), 409);
    }
}

#[test]
fn a_random_preload_is_the_same_for_the_same_seed() {
    let bits = |seed| {
        let (array, _, volume) = array_of(SimConfig::default());
        array.preload(volume, Preload::Random(seed)).unwrap();
        array.diff(take(&array, volume, "preload"), None, 0).unwrap()
    };
    assert_eq!(bits(1), bits(1));
    assert_ne!(bits(1), bits(2));
}

#[test]
fn a_forking_rollback_refuses_pairs_across_it_only() {
    let config = SimConfig { rollback: RollbackKind::Forks, ..SimConfig::default() };
    let (array, _, volume) = array_of(config);
    let a = take(&array, volume, "a");
    write(&array, volume, 3);
    let dead = take(&array, volume, "dead");
    array.rollback(volume, a).unwrap();
    let new = take(&array, volume, "new");
    assert_eq!(status(array.diff(new, Some(dead), 0)), 400);
    assert_eq!(starts(&array.diff(dead, Some(a), 0).unwrap()), [0]);
    assert!(array.diff(new, Some(a), 0).is_ok());
    let none = SimConfig { rollback: RollbackKind::None, ..SimConfig::default() };
    let (array, _, volume) = array_of(none);
    let a = take(&array, volume, "a");
    assert_eq!(status(array.rollback(volume, a)), 400);
}

#[test]
fn a_clone_reports_what_it_inherited_only_where_configured() {
    for (clone_full_diff, inherited) in
        [(CloneFullDiff::IncludesParent, vec![0, 64]), (CloneFullDiff::SinceClone, vec![64])]
    {
        let (array, _, volume) = array_of(SimConfig { clone_full_diff, ..SimConfig::default() });
        write(&array, volume, 3);
        let clone = array.clone_snapshot(take(&array, volume, "a"), "clone").unwrap();
        assert_eq!(status(array.clone_snapshot(array.snapshots()[0].uuid, "clone")), 409);
        write(&array, clone, 70);
        let snap = take(&array, clone, "b");
        assert_eq!(starts(&array.diff(snap, None, 0).unwrap()), inherited);
        assert!(array.volume(clone).unwrap().source_snapshot.is_some());
    }
}

#[test]
fn a_deleted_volume_leaves_its_snapshots_and_a_reborn_one_starts_anew() {
    let (array, _, volume) = array_of(SimConfig::default());
    write(&array, volume, 3);
    let old = take(&array, volume, "old");
    let device = array.device(volume).unwrap();
    array.delete_volume(volume).unwrap();
    assert_eq!(device.write_bytes(0, &[1]), Err(SimIoError::Deleted));
    assert_eq!(status(array.create_snapshot(volume, "none")), 404);
    assert_eq!(starts(&array.diff(old, None, 0).unwrap()), [0]);
    let again = array.create_volume("source", LbaCount::new(645), Some(volume)).unwrap();
    assert_eq!(again, volume);
    let new = take(&array, volume, "new");
    assert_eq!(array.diff(new, None, 0).unwrap(), SimPage::default());
    assert_eq!(status(array.diff(new, Some(old), 0)), 400);
    assert_eq!(status(array.create_volume("x", LbaCount::new(1), Some(volume))), 409);
    assert_eq!(status(array.create_volume("source", LbaCount::new(1), None)), 409);
    assert_eq!(status(array.create_volume("y", LbaCount::ZERO, None)), 400);
    assert_eq!(status(array.create_volume("y", LbaCount::new(u64::MAX / 64), None)), 400);
}

#[test]
fn a_creating_snapshot_answers_half_when_configured_to() {
    let config = SimConfig { partial_diff_while_creating: true, ..slow() };
    let (array, clock, volume) = array_of(config);
    write(&array, volume, 3);
    write(&array, volume, 70);
    let snap = take(&array, volume, "a");
    assert_eq!(starts(&array.diff(snap, None, 0).unwrap()), [0]);
    clock.sleep(DELAY);
    assert_eq!(starts(&array.diff(snap, None, 0).unwrap()), [0, 64]);
}

#[test]
fn equal_seeds_give_equal_identities_and_others_do_not() {
    let made = |seed| array_of(SimConfig { seed, ..SimConfig::default() }).2;
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
    assert_eq!(made(3).to_string().as_bytes()[14], b'4');
}

#[test]
fn writers_and_snapshots_in_parallel_lose_nothing() {
    let clock = Arc::new(VirtualClock::new());
    let config = SimConfig { block: BlockSize::SMALLEST, ..SimConfig::default() };
    let array = SimArray::new(config, clock);
    let lbas = 64 * 64;
    let volume = array.create_volume("v", LbaCount::new(lbas), None).unwrap();
    let mut snapshots = vec![take(&array, volume, "start")];
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let device = array.device(volume).unwrap();
            scope.spawn(move || {
                for lba in (u64::from(writer)..lbas).step_by(4) {
                    device.write_bytes(lba * 64, &[writer + 1; 64]).unwrap();
                }
            });
        }
        snapshots.extend((0..50).map(|n| take(&array, volume, &format!("s{n}"))));
    });
    snapshots.push(take(&array, volume, "end"));
    let image = |snapshot| {
        let mut bytes = vec![0; usize::try_from(lbas * 64).unwrap()];
        array.read_snapshot(snapshot, 0, &mut bytes).unwrap();
        bytes
    };
    // Every cut is atomic: what differs between two neighbours is exactly what their diff reports,
    // since each LBA is written once.
    for pair in snapshots.windows(2) {
        let (old, new) = (image(pair[0]), image(pair[1]));
        let page = array.diff(pair[1], Some(pair[0]), 0).unwrap();
        let reported = |lba: u64| {
            page.ranges
                .iter()
                .any(|range| range.start_lba == lba / 64 * 64 && range.bits >> (lba % 64) & 1 == 1)
        };
        let blocks = old.chunks(64).zip(new.chunks(64));
        for (lba, (old, new)) in (0..).zip(blocks) {
            assert_eq!(old != new, reported(lba), "LBA {lba}");
        }
    }
    let all: Vec<u8> = (0..lbas).flat_map(|lba| [(lba % 4) as u8 + 1; 64]).collect();
    assert!(image(snapshots[snapshots.len() - 1]) == all);
}

#[test]
fn the_port_answers_as_the_array_does() {
    let (array, clock, volume) = array_of(slow());
    let port: &dyn Array = &array;
    let name = SnapshotName::new(RunId::from_u128(7), 1);
    let device = array.device(volume).unwrap();
    assert_eq!(BlockDevice::len_lbas(&device), LbaCount::new(645));
    assert_eq!(device.write_at(ByteOffset::new(64), &[1; 64]).unwrap(), 64);
    device.write_zeroes(Lba::new(64), LbaCount::new(1)).unwrap();
    device.discard(Lba::new(644), LbaCount::new(1)).unwrap();
    device.flush().unwrap();
    let made = port.create_snapshot(volume, name).unwrap();
    assert_eq!((made.state, made.name), (SnapshotState::Creating, name.to_string()));
    let busy = port.create_snapshot(volume, SnapshotName::new(RunId::from_u128(7), 2));
    assert!(matches!(busy, Err(ApiError::Server(reply, 1)) if reply.status == Some(503)));
    clock.sleep(DELAY);
    let page = port.diff_page(made.uuid, None, Lba::new(0)).unwrap();
    assert_eq!((page.ranges, page.next), (3, None));
    assert_eq!(page.chunks[0].bits, ChunkBitmap::run(1, 1));
    assert_eq!(page.chunks[2].start, Lba::new(640));
    let same = port.diff_page(made.uuid, Some(made.uuid), Lba::new(0));
    assert!(matches!(same, Err(ApiError::Refused(reply)) if reply.status == Some(400)));
    let mut block = [9; 64];
    port.read_snapshot(made.uuid, Lba::new(1), &mut block).unwrap();
    assert_eq!(block, [1; 64]);
    port.delete_snapshot(made.uuid).unwrap();
    clock.sleep(DELAY);
    let gone = port.snapshot(made.uuid);
    assert!(matches!(gone, Err(ApiError::NotFound(reply)) if reply.status == Some(404)));
    let past = device.discard(Lba::new(u64::MAX), LbaCount::new(1));
    assert!(matches!(past, Err(DeviceError::Io { op: "discard", .. })));
    let unknown = port.volume(VolumeUuid::from_u128(1));
    assert!(matches!(unknown, Err(ApiError::NotFound(_))));
    assert_eq!(port.volume(volume).unwrap().size_bytes, 645 * 64);
}
