//! The honest array against a naive twin: a log of touched LBAs and one plain copy of the bytes for
//! each snapshot.

use super::*;
use crate::array::VirtualClock;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const BLOCK: usize = 64;
const MAX_LBAS: u64 = 400;

#[derive(Clone, Debug)]
enum Op {
    Write { at_byte: u64, len_bytes: u64, fill: u8 },
    Zero { at: u64, len: u64 },
    Discard { at: u64, len: u64 },
    Take,
    Delete(prop::sample::Index),
    Rollback(prop::sample::Index),
    Resize(u64),
    Restart(bool),
    Clone(prop::sample::Index),
}

fn op() -> impl Strategy<Value = Op> {
    let lbas = (0..MAX_LBAS, 1..150u64);
    let bytes = BLOCK as u64;
    prop_oneof![
        6 => (0..MAX_LBAS * bytes, 1..100 * bytes, 1u8..).prop_map(|(at_byte, len_bytes, fill)| {
            Op::Write { at_byte, len_bytes, fill }
        }),
        1 => lbas.clone().prop_map(|(at, len)| Op::Zero { at, len }),
        2 => lbas.prop_map(|(at, len)| Op::Discard { at, len }),
        4 => Just(Op::Take),
        2 => any::<prop::sample::Index>().prop_map(Op::Delete),
        1 => any::<prop::sample::Index>().prop_map(Op::Rollback),
        1 => (1..MAX_LBAS).prop_map(Op::Resize),
        1 => any::<bool>().prop_map(Op::Restart),
        1 => any::<prop::sample::Index>().prop_map(Op::Clone),
    ]
}

/// One snapshot as the twin remembers it.
#[derive(Clone)]
pub(super) struct TwinSnapshot {
    uuid: SnapshotUuid,
    /// Length of the log at its cut.
    log_len: usize,
    pub(super) bytes: Vec<u8>,
}

/// A log of the LBAs each operation touched, and the bytes as they are.
pub(super) struct Twin {
    pub(super) log: Vec<BTreeSet<u64>>,
    pub(super) bytes: Vec<u8>,
    pub(super) snapshots: Vec<TwinSnapshot>,
}

impl Twin {
    pub(super) fn touched(&self, from: usize, to: usize, end: u64) -> BTreeSet<u64> {
        self.log[from..to].iter().flatten().copied().filter(|&lba| lba < end).collect()
    }
    fn len(&self) -> u64 {
        (self.bytes.len() / BLOCK) as u64
    }
    pub(super) fn touch(&mut self, lbas: impl Iterator<Item = u64>) {
        self.log.push(lbas.collect());
    }
    fn resize(&mut self, len: u64) {
        let ends = self.len().min(len)..self.len().max(len);
        let ever = self.touched(0, self.log.len(), u64::MAX);
        self.touch(ever.into_iter().filter(|lba| ends.contains(lba)));
        self.bytes.resize(usize::try_from(len).unwrap() * BLOCK, 0);
    }
}

pub(super) fn lbas_of(page: &SimPage) -> Vec<u64> {
    let set = |range: &SimRange| {
        let (start, bits) = (range.start_lba, range.bits);
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| start + bit)
    };
    page.ranges.iter().flat_map(set).collect()
}

/// Walks a diff from an LBA on, checking the shape of every page.
fn walk(
    array: &SimArray,
    snap: SnapshotUuid,
    base: Option<SnapshotUuid>,
    from: u64,
) -> Result<BTreeSet<u64>, TestCaseError> {
    let (mut offset, mut found) = (from, BTreeSet::new());
    loop {
        let page = array.diff(snap, base, offset).unwrap();
        prop_assert!(page.ranges.len() <= array.config().page_limit as usize);
        prop_assert!(page.ranges.is_sorted_by(|a, b| a.start_lba < b.start_lba));
        for range in &page.ranges {
            prop_assert!(range.bits != 0 && range.start_lba % 64 == 0);
            prop_assert!(range.start_lba >= offset / 64 * 64);
            prop_assert_eq!(range.end_lba_inclusive, range.start_lba + 63);
        }
        found.extend(lbas_of(&page));
        if page.next_offset_lba == 0 {
            return Ok(found);
        }
        prop_assert!(page.next_offset_lba > offset && page.next_offset_lba.is_multiple_of(64));
        offset = page.next_offset_lba;
    }
}

/// One block of an image; past its end there are zeros.
pub(super) fn block(image: &[u8], lba: u64) -> [u8; BLOCK] {
    let at = usize::try_from(lba).unwrap() * BLOCK;
    image.get(at..at + BLOCK).map_or([0; BLOCK], |bytes| bytes.try_into().unwrap())
}

fn read_all(array: &SimArray, snapshot: &TwinSnapshot) -> Vec<u8> {
    let mut bytes = vec![0xff; snapshot.bytes.len()];
    array.read_snapshot(snapshot.uuid, 0, &mut bytes).unwrap();
    bytes
}

/// Does one operation to both; clones are checked at once.
fn apply(
    array: &SimArray,
    volume: VolumeUuid,
    twin: &mut Twin,
    number: usize,
    op: &Op,
) -> Result<(), TestCaseError> {
    let device = array.device(volume).unwrap();
    let size = BLOCK as u64;
    match *op {
        Op::Write { at_byte, len_bytes, fill } => {
            let end = (at_byte + len_bytes).min(twin.bytes.len() as u64);
            if at_byte < end {
                let span = usize::try_from(at_byte).unwrap()..usize::try_from(end).unwrap();
                twin.bytes[span.clone()].fill(fill);
                device.write_bytes(at_byte, &twin.bytes[span]).unwrap();
                twin.touch(at_byte / size..end.div_ceil(size));
            }
        }
        Op::Zero { at, len } | Op::Discard { at, len } => {
            let end = (at + len).min(twin.len());
            if at < end {
                let span =
                    usize::try_from(at * size).unwrap()..usize::try_from(end * size).unwrap();
                twin.bytes[span].fill(0);
                twin.touch(at..end);
                let bytes = (end - at) * size;
                match op {
                    Op::Zero { .. } => device.zero_bytes(at * size, bytes).unwrap(),
                    _ => device.discard_bytes(at * size, bytes).unwrap(),
                }
            }
        }
        Op::Take => {
            let uuid = array.create_snapshot(volume, format!("s{number}")).unwrap().uuid;
            let (log_len, bytes) = (twin.log.len(), twin.bytes.clone());
            twin.snapshots.push(TwinSnapshot { uuid, log_len, bytes });
        }
        Op::Resize(len) => {
            array.resize(volume, LbaCount::new(len)).unwrap();
            twin.resize(len);
        }
        Op::Restart(clean) => array.restart(clean),
        Op::Delete(_) | Op::Rollback(_) | Op::Clone(_) if twin.snapshots.is_empty() => {}
        Op::Delete(which) => {
            let gone = twin.snapshots.remove(which.index(twin.snapshots.len()));
            array.delete_snapshot(gone.uuid).unwrap();
            prop_assert_eq!(array.snapshot(gone.uuid), None);
        }
        Op::Rollback(which) => {
            let to = twin.snapshots[which.index(twin.snapshots.len())].clone();
            array.rollback(volume, to.uuid).unwrap();
            let since = twin.touched(to.log_len, twin.log.len(), u64::MAX);
            twin.touch(since.into_iter());
            twin.bytes = to.bytes;
        }
        Op::Clone(which) => {
            let from = &twin.snapshots[which.index(twin.snapshots.len())];
            let clone = array.clone_snapshot(from.uuid, &format!("c{number}")).unwrap();
            let mut bytes = vec![0xff; from.bytes.len()];
            array.device(clone).unwrap().read_bytes(0, &mut bytes).unwrap();
            prop_assert!(bytes == from.bytes, "contents of a clone");
            let snap = array.create_snapshot(clone, format!("sc{number}")).unwrap().uuid;
            let end = (from.bytes.len() / BLOCK) as u64;
            prop_assert_eq!(walk(array, snap, None, 0)?, twin.touched(0, from.log_len, end));
            // Writing the clone must not reach the parent, which is compared in the end.
            array.device(clone).unwrap().write_bytes(0, &[0xee; BLOCK]).unwrap();
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_pair_and_every_content_is_what_a_write_log_says(
        len in 1..MAX_LBAS,
        page_limit in 1u32..6,
        from in 0u64..MAX_LBAS,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let config = SimConfig { block: BlockSize::SMALLEST, page_limit, ..SimConfig::default() };
        let array = SimArray::new(config, Arc::new(VirtualClock::new()));
        let volume = array.create_volume("v", LbaCount::new(len), None).unwrap();
        let bytes = vec![0; usize::try_from(len).unwrap() * BLOCK];
        let mut twin = Twin { log: Vec::new(), bytes, snapshots: Vec::new() };
        for (number, op) in ops.iter().enumerate() {
            apply(&array, volume, &mut twin, number, op)?;
        }
        let mut live = vec![0xff; twin.bytes.len()];
        array.device(volume).unwrap().read_bytes(0, &mut live).unwrap();
        prop_assert!(live == twin.bytes, "live contents");
        for (place, snap) in twin.snapshots.iter().enumerate() {
            prop_assert!(read_all(&array, snap) == snap.bytes, "contents of snapshot {}", place);
            let end = (snap.bytes.len() / BLOCK) as u64;
            let full = twin.touched(0, snap.log_len, end);
            prop_assert_eq!(walk(&array, snap.uuid, None, 0)?, full.clone());
            if from <= end {
                let later = full.into_iter().filter(|&lba| lba >= from / 64 * 64).collect();
                prop_assert_eq!(walk(&array, snap.uuid, None, from)?, later);
            }
            for base in &twin.snapshots[..place] {
                let right = twin.touched(base.log_len, snap.log_len, end);
                let differs = |&lba: &u64| block(&base.bytes, lba) != block(&snap.bytes, lba);
                let unlike: BTreeSet<u64> = (0..end).filter(differs).collect();
                prop_assert!(unlike.is_subset(&right), "the log misses {:?}", unlike);
                prop_assert_eq!(walk(&array, snap.uuid, Some(base.uuid), 0)?, right);
            }
        }
    }
}
