//! From the chunks of an answer to the runs to copy.
//!
//! Runs that truly touch are joined across chunk and page edges and then split at [`RUN_LBAS_MAX`];
//! an LBA that was not reported is never in a run. Not covered: moving the bytes (`copy.rs`).

use super::bugs::{PipelineBug, PipelineBugs};
use crate::block::{ChunkBits, Extent, Lba, LbaCount, LbaSet};

/// LBAs of one run at most: 256 KiB of 4 KiB blocks, large enough for full speed and small enough
/// to keep several workers busy (`performance.md`, part A).
pub const RUN_LBAS_MAX: LbaCount = LbaCount::new(64);

/// Gap, in LBAs, that the planted `run-coalesce-over-gap` jumps: what some tools merge to save
/// seeks.
const PLANTED_GAP_LBAS: LbaCount = LbaCount::new(512);

/// The runs to copy for these chunks, ascending: exactly the LBAs reported, of them only those in
/// `limit_to` if given.
pub fn plan(chunks: &[ChunkBits], limit_to: Option<&LbaSet>, bugs: PipelineBugs) -> Vec<Extent> {
    let mut set = LbaSet::new();
    for chunk in chunks {
        set.insert_chunk(chunk_base(chunk.start, bugs), chunk.bits);
    }
    if let Some(footprint) = limit_to {
        set = set.intersection(footprint);
    }
    if bugs.has(PipelineBug::RunCoalesceOverGap) {
        set = merged_over_gaps(&set);
    }
    let mut runs: Vec<Extent> =
        set.runs().iter().flat_map(|run| run.pieces(RUN_LBAS_MAX)).collect();
    if bugs.has(PipelineBug::LastPartialRunDropped)
        && let Some(last) = runs.pop()
    {
        runs.extend(Extent::between(last.start(), last.last()));
    }
    runs
}

/// Where the bits of a chunk count from.
fn chunk_base(start: Lba, bugs: PipelineBugs) -> Lba {
    if bugs.has(PipelineBug::ChunkForLba) { Lba::new(start.chunk().get()) } else { start }
}

/// The set with small gaps filled.
fn merged_over_gaps(set: &LbaSet) -> LbaSet {
    let gaps = set.runs().windows(2).filter_map(|pair| match pair {
        [left, right] => Extent::between(left.end(), right.start()),
        _ => None,
    });
    let small = gaps.filter(|gap| gap.len_lbas() <= PLANTED_GAP_LBAS).collect();
    set.union(&small)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::ChunkBitmap;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn chunk(index: u64, bits: u64) -> ChunkBits {
        ChunkBits { start: Lba::new(index * 64), bits: ChunkBitmap::from_bits(bits) }
    }

    /// The brute-force twin: one LBA at a time, a run grows while it may.
    fn naive(lbas: &BTreeSet<u64>) -> Vec<Extent> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &lba in lbas {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == lba && *len < 64 => *len += 1,
                _ => runs.push((lba, 1)),
            }
        }
        runs.into_iter().map(|(start, len)| Extent::lbas(start, len)).collect()
    }

    fn lbas_of(runs: &[Extent]) -> BTreeSet<u64> {
        runs.iter().flat_map(|run| run.start().get()..run.end().get()).collect()
    }

    /// Bitmaps as they occur: full, empty, one run, anything.
    fn bitmap() -> impl Strategy<Value = u64> {
        prop_oneof![
            3 => Just(u64::MAX),
            1 => Just(0),
            2 => (0u32..64, 1u32..65).prop_map(|(at, len)| ChunkBitmap::run(at, len).bits()),
            1 => any::<u64>(),
        ]
    }

    fn chunks() -> impl Strategy<Value = Vec<ChunkBits>> {
        prop::collection::btree_map(0u64..12, bitmap(), 0..10)
            .prop_map(|map| map.into_iter().map(|(index, bits)| chunk(index, bits)).collect())
    }

    proptest! {
        #[test]
        fn runs_are_what_one_lba_at_a_time_gives(chunks in chunks(), limit in prop::option::of((0u64..700, 1u64..300))) {
            let footprint = limit.map(|(start, len)| LbaSet::from(Extent::lbas(start, len)));
            let wanted = chunks
                .iter()
                .flat_map(|c| (0..64).filter(|bit| c.bits.bits() >> bit & 1 == 1).map(|bit| c.start.get() + bit))
                .filter(|&lba| limit.is_none_or(|(start, len)| start <= lba && lba < start + len))
                .collect();
            prop_assert_eq!(plan(&chunks, footprint.as_ref(), PipelineBugs::NONE), naive(&wanted));
        }

        #[test]
        fn the_gap_bug_only_adds_and_the_tail_bug_only_drops(chunks in chunks()) {
            let honest = lbas_of(&plan(&chunks, None, PipelineBugs::NONE));
            let merged = lbas_of(&plan(&chunks, None, PipelineBug::RunCoalesceOverGap.into()));
            prop_assert!(merged.is_superset(&honest));
            let short = lbas_of(&plan(&chunks, None, PipelineBug::LastPartialRunDropped.into()));
            prop_assert!(short.is_subset(&honest));
            prop_assert_eq!(honest.len() - short.len(), usize::from(!honest.is_empty()));
        }
    }

    #[test]
    fn a_contiguous_area_is_joined_across_chunks_and_split_at_256_kib() {
        let upper = 0xffff_ffff_0000_0000;
        let runs =
            plan(&[chunk(0, upper), chunk(1, u64::MAX), chunk(3, 1)], None, PipelineBugs::NONE);
        assert_eq!(runs, [Extent::lbas(32, 64), Extent::lbas(96, 32), Extent::lbas(192, 1)]);
    }

    #[test]
    fn the_planted_bugs_go_wrong_on_their_witnesses() {
        let gap = plan(&[chunk(0, 0b101)], None, PipelineBug::RunCoalesceOverGap.into());
        assert_eq!(gap, [Extent::lbas(0, 3)]);
        let aliased = plan(&[chunk(1, 1)], None, PipelineBug::ChunkForLba.into());
        assert_eq!(aliased, [Extent::lbas(1, 1)]);
        let tail = plan(&[chunk(0, 1)], None, PipelineBug::LastPartialRunDropped.into());
        assert_eq!(tail, []);
    }
}
