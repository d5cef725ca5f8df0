//! Bitmaps, sets of LBAs and stamped blocks. Not covered: the pages that bitmaps come in, beyond
//! the least that holds one.

use super::walk::over_pages;
use crate::block::{
    BitmapOrder, ChunkBitmap, ChunkBits, Diagnosis, Extent, Lba, LbaCount, LbaSet, Page, Role,
    RunId, Stamp, diagnose, stamp_block,
};
use crate::engine::Entropy;
use crate::lightbits::diff::decode_diff_page;
use arbitrary::Unstructured;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;

/// Whether bit `lba` of a chunk is set in its eight wire bytes (`lightbits-api.md` section 3 and
/// section 9, rule 2): the slow twin.
fn is_set(wire: [u8; 8], order: BitmapOrder, lba: usize) -> bool {
    let byte = match order {
        BitmapOrder::Little => wire[lba / 8],
        BitmapOrder::Big => wire[7 - lba / 8],
    };
    [1, 2, 4, 8, 16, 32, 64, 128].get(lba % 8).is_some_and(|mask| byte & mask != 0)
}

/// Eight bytes as a bitmap, in the chunk and with the end of the volume that follow.
pub(super) fn bitmap(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let wire: [u8; 8] = input.word().to_le_bytes();
    let start = input.below(1 << 16) * 64;
    let tail = 1 + input.below(64);
    for order in [BitmapOrder::Little, BitmapOrder::Big] {
        let set: Vec<u64> = (0u64..)
            .zip(0..64)
            .filter(|&(_, lba)| is_set(wire, order, lba))
            .map(|(n, _)| n)
            .collect();
        let map = ChunkBitmap::from_wire(wire, order);
        check_bits(map, &set);
        assert_eq!(map.to_wire(order), wire, "the bytes do not come back");
        let mirrored = wire.iter().rev().copied().collect::<Vec<u8>>();
        assert_eq!(map.byte_swapped().to_wire(order).as_slice(), mirrored);
        let picture: String =
            (0..64).map(|lba| if is_set(wire, order, lba) { '#' } else { '.' }).collect();
        assert_eq!(map.to_string(), picture);
        check_json(wire, order, map, start);
        check_tail(map, &set, start, tail);
    }
}

fn check_bits(map: ChunkBitmap, set: &[u64]) {
    let bits: Vec<u64> = (0..64).filter(|lba| map.bits() >> lba & 1 == 1).collect();
    assert_eq!(bits, set, "bits of {map}");
    assert_eq!(map.count().get(), set.len() as u64);
    let mut runs = Vec::new();
    let mut last_end = None;
    for (first, len) in map.runs() {
        assert!(last_end.is_none_or(|end| first > end), "runs of {map} touch");
        last_end = Some(first + len);
        runs.extend((first..first + len).map(u64::from));
    }
    assert_eq!(runs, set, "runs of {map}");
}

/// The bitmap in each form that it may have in JSON (section 9, rule 1).
fn check_json(wire: [u8; 8], order: BitmapOrder, map: ChunkBitmap, start: u64) {
    let list: Vec<String> = wire.iter().map(u8::to_string).collect();
    let forms = [
        format!("\"{}\"", STANDARD.encode(wire)),
        format!("[{}]", list.join(",")),
        map.bits().to_string(),
        format!("\"{}\"", map.bits()),
        format!("\"{:#x}\"", map.bits()),
    ];
    let ranges: Vec<String> = (start..)
        .step_by(64)
        .zip(&forms)
        .map(|(start, form)| format!("{{\"lbaStart\":{start},\"dataBitMap\":{form}}}"))
        .collect();
    let body = format!("{{\"lbaRanges\":[{}]}}", ranges.join(","));
    let page = decode_diff_page(body.as_bytes(), order, None).expect("forms of the contract");
    for (chunk, form) in page.chunks.iter().zip(&forms) {
        assert_eq!(chunk.bits, map, "{form} in {order:?} order");
    }
    assert_eq!(page.chunks.len(), forms.len());
}

/// The chunk as the last one of a volume that ends `tail` LBAs after it begins.
fn check_tail(map: ChunkBitmap, set: &[u64], start: u64, tail: u64) {
    let chunks = vec![ChunkBits { start: Lba::new(start), bits: map }];
    let page = Page { chunks, ranges: 1, next: None, notes: Vec::new() };
    let inside: Vec<u64> = set.iter().filter(|&&lba| lba < tail).map(|lba| start + lba).collect();
    let lenient = over_pages(vec![page.clone()], start + tail, false).expect("legal");
    let read: Vec<u64> = lenient.set.runs().iter().flat_map(|run| numbers(*run)).collect();
    assert_eq!(read, inside, "the last chunk of a volume of {} LBAs", start + tail);
    let strict = over_pages(vec![page], start + tail, true);
    assert_eq!(strict.is_ok(), inside.len() == set.len(), "bits past the end are a fault there");
}

fn numbers(extent: Extent) -> impl Iterator<Item = u64> {
    extent.start().get()..extent.end().get()
}

/// Room for the sets below: small, so that extents meet.
const ROOM: u64 = 300;

/// Operations on two sets, against sets of numbers.
pub(super) fn lba_set(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut sets = [LbaSet::new(), LbaSet::new()];
    let mut twins = [BTreeSet::new(), BTreeSet::new()];
    let mut ops = 0;
    while !input.is_spent() && ops < 64 {
        ops += 1;
        let which = usize::from(input.chance(1, 2));
        let start = input.below(ROOM);
        match input.below(4) {
            0..3 => {
                let extent = Extent::lbas(start, 1 + input.below(80));
                sets[which].insert(extent);
                twins[which].extend(numbers(extent));
            }
            _ => {
                let bits = input.word();
                let chunk = start / 64 * 64;
                sets[which].insert_chunk(Lba::new(chunk), ChunkBitmap::from_bits(bits));
                twins[which].extend((0..64).filter(|lba| bits >> lba & 1 == 1).map(|n| chunk + n));
            }
        }
        check_runs(&sets[which], &twins[which]);
    }
    let ([a, b], [x, y]) = (&sets, &twins);
    check_set(&a.union(b), &x.union(y).copied().collect());
    check_set(&a.intersection(b), &x.intersection(y).copied().collect());
    check_set(&a.difference(b), &x.difference(y).copied().collect());
    let part = Extent::lbas(bytes.len() as u64 % ROOM, 1 + bytes.len() as u64 % 97);
    check_set(
        &a.within(part),
        &x.iter().copied().filter(|&n| part.contains(Lba::new(n))).collect(),
    );
    assert_eq!(a.overlaps(part), numbers(part).any(|n| x.contains(&n)));
    assert_eq!(a.covers(part), numbers(part).all(|n| x.contains(&n)));
    let again: LbaSet = a.chunks().into_iter().fold(LbaSet::new(), |mut set, (start, bits)| {
        set.insert_chunk(start, bits);
        set
    });
    assert_eq!(&again, a, "its chunks make another set");
    let granule = 1 + bytes.len() as u64 % 70;
    let rounded =
        x.iter().flat_map(|n| n / granule * granule..(n / granule + 1) * granule).collect();
    check_set(&a.rounded_out(LbaCount::new(granule)), &rounded);
    let json = serde_json::to_vec(a).expect("sets have a JSON form");
    assert_eq!(&serde_json::from_slice::<LbaSet>(&json).expect("it reads back"), a);
}

/// Each LBA and none other, in runs that do not touch.
fn check_runs(set: &LbaSet, twin: &BTreeSet<u64>) {
    let listed = set.runs().iter().flat_map(|run| numbers(*run));
    assert!(listed.eq(twin.iter().copied()), "{set} is not {twin:?}");
    let apart = set.runs().windows(2).all(|pair| pair[0].end() < pair[1].start());
    assert!(apart, "runs of {set} touch");
}

/// Also whatever else can be asked of a set.
fn check_set(set: &LbaSet, twin: &BTreeSet<u64>) {
    check_runs(set, twin);
    assert_eq!(set.count().get(), twin.len() as u64);
    assert_eq!(set.is_empty(), twin.is_empty());
    assert!((0..ROOM + 80).all(|n| set.contains(Lba::new(n)) == twin.contains(&n)), "{set}");
}

fn draw_stamp(input: &mut Unstructured<'_>) -> Stamp {
    Stamp {
        run: RunId::from_u128(u128::from(input.below(3))),
        volume: input.pick(&Role::ALL),
        lba: Lba::new(input.below(5)),
        generation: input.below(5),
    }
}

fn block_of(stamp: &Stamp, bytes: usize) -> Vec<u8> {
    let mut block = vec![0; bytes];
    stamp_block(stamp, &mut block);
    block
}

/// A stamped block, or half of one, with a few bytes changed: what is it?
pub(super) fn stamp(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let (expected, written) = (draw_stamp(&mut input), draw_stamp(&mut input));
    let len = input.pick(&[64usize, 512, 4096]);
    let mut block = match input.below(3) {
        0 => block_of(&written, len),
        1 => {
            let mut torn = block_of(&written, len);
            let other = block_of(&draw_stamp(&mut input), len);
            let at = usize::try_from(input.below(len as u64)).unwrap_or(0);
            torn[at..].copy_from_slice(&other[at..]);
            torn
        }
        _ => vec![0; len],
    };
    while !input.is_spent() {
        let at = usize::try_from(input.below(len as u64)).unwrap_or(0);
        block[at] = input.below(256).to_le_bytes()[0];
    }
    let found = diagnose(&block, &expected);
    check_diagnosis(&block, &expected, found);
    assert!(!found.to_string().is_empty());
}

/// Makes the block that the diagnosis speaks of and compares.
fn check_diagnosis(block: &[u8], expected: &Stamp, found: Diagnosis) {
    let is = |stamp: Stamp| block == block_of(&stamp, block.len());
    assert_eq!(found == Diagnosis::Right, is(*expected), "{found:?}");
    assert_eq!(found == Diagnosis::Zero, block.iter().all(|&byte| byte == 0), "{found:?}");
    match found {
        Diagnosis::Right | Diagnosis::Zero => {}
        Diagnosis::Stale { found } => assert!(is(Stamp { generation: found, ..*expected })),
        Diagnosis::Misdirected { meant_for, found } => {
            assert!(is(Stamp { lba: meant_for, generation: found, ..*expected }));
            assert_ne!(meant_for, expected.lba);
        }
        Diagnosis::ForeignVolume { volume, meant_for } => {
            assert_ne!(volume, expected.volume);
            let generation = u64::from_le_bytes(block[24..32].try_into().expect("eight bytes"));
            assert!(is(Stamp { volume, lba: meant_for, generation, ..*expected }));
        }
        Diagnosis::Torn { at_byte, found, run_low } => {
            let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight"));
            assert_eq!((word(24), word(8)), (found, run_low));
            let volume = Role::ALL.into_iter().find(|&volume| {
                let stamp = Stamp { volume, ..*expected };
                block_of(&stamp, 64)[4..8] == block[4..8]
            });
            // A header of a volume that does not exist has nothing to compare with.
            if let Some(volume) = volume {
                let run = RunId::from_u128(u128::from(run_low));
                let whole = Stamp { run, volume, lba: Lba::new(word(16)), generation: found };
                let whole = block_of(&whole, block.len());
                let differs = block.iter().zip(&whole).position(|(a, b)| a != b);
                assert_eq!(differs, Some(at_byte));
            }
        }
        Diagnosis::OtherRun { run_low } => assert_ne!(run_low, expected.run.low_u64()),
        Diagnosis::Unknown => {
            for generation in 0..5 {
                assert!(!is(Stamp { generation, ..*expected }), "it is write {generation}");
            }
        }
    }
}
