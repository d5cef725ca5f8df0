//! From QEMU's block status to pages of 64-LBA chunks: cutting, and nothing else. Not covered:
//! whether QEMU's answer is right.

use super::nbd::{Nbd, NbdError, SPAN_MAX};
use crate::block::{BlockSize, CHUNK_LBAS, ChunkBits, Extent, Lba, LbaCount, LbaSet, Page};
use std::io::{Read, Write};

/// LBAs asked about at once: as many as QEMU answers in one go when every second one is dirty.
const WINDOW: LbaCount = LbaCount::new(16 << 10);
/// `NBD_STATE_DIRTY` of the `qemu:dirty-bitmap:` contexts (`docs/interop/nbd.rst` of QEMU).
const DIRTY: u32 = 1;

const _: () = assert!(WINDOW.get().is_multiple_of(CHUNK_LBAS));
const _: () = assert!(WINDOW.get() * BlockSize::DEVICE.bytes() <= SPAN_MAX as u64);

/// Collects one page of at most `limit` ranges from the chunk of `from` on, out of a volume of
/// `len`. `dirty` answers which LBAs of an extent are dirty.
///
/// # Errors
/// Those of `dirty`.
pub(super) fn page<E>(
    from: Lba,
    len: LbaCount,
    limit: u32,
    mut dirty: impl FnMut(Extent) -> Result<LbaSet, E>,
) -> Result<Page, E> {
    let end = Lba::new(len.get());
    let mut page = Page::default();
    let Some(rest) = Extent::between(from.chunk_start(), end) else { return Ok(page) };
    for window in rest.pieces(WINDOW) {
        for (start, bits) in dirty(window)?.within(window).chunks() {
            // One range more than fits tells that there is a next page, and where it starts.
            if page.ranges == limit {
                page.next = Some(start);
                return Ok(page);
            }
            page.chunks.push(ChunkBits { start, bits });
            page.ranges += 1;
        }
    }
    Ok(page)
}

/// The LBAs of `window` that the session's bitmap calls dirty, rounded outward to whole LBAs.
///
/// # Errors
/// As [`Nbd::block_status`].
pub(super) fn dirty_lbas<S: Read + Write>(
    session: &mut Nbd<S>,
    window: Extent,
) -> Result<LbaSet, NbdError> {
    let lba_bytes = BlockSize::DEVICE.bytes();
    let end = window.end().get() * lba_bytes;
    let mut at = window.start().get() * lba_bytes;
    let mut dirty = LbaSet::new();
    while at < end {
        // A window never exceeds what one request can name; both are constants above.
        let ask = u32::try_from(end - at).unwrap_or(SPAN_MAX);
        for stretch in session.block_status(at, ask)? {
            let next = at.saturating_add(u64::from(stretch.len_bytes));
            if stretch.flags & DIRTY != 0 {
                let (first, past) = (Lba::new(at / lba_bytes), Lba::new(next.div_ceil(lba_bytes)));
                if let Some(extent) = Extent::between(first, past) {
                    dirty.insert(extent);
                }
            }
            at = next;
        }
    }
    Ok(dirty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn pages(set: &LbaSet, from: u64, len: u64, limit: u32) -> Vec<Page> {
        let mut pages = Vec::new();
        let mut at = Some(Lba::new(from));
        while let Some(from) = at {
            let found = page(from, LbaCount::new(len), limit, |window| {
                Ok::<_, Infallible>(set.within(window))
            });
            let Ok(found) = found;
            at = found.next;
            pages.push(found);
        }
        pages
    }

    proptest! {
        #[test]
        fn pages_of_any_size_carry_exactly_the_dirty_lbas_from_the_chunk_of_the_start(
            runs in prop::collection::vec((0u64..80_000, 1u64..300), 0..30),
            from in 0u64..80_000,
            limit in 1u32..20,
        ) {
            let len = 80_300;
            let set: LbaSet = runs.iter().map(|&(start, len)| Extent::lbas(start, len)).collect();
            let mut seen = LbaSet::new();
            let mut last = None;
            let found = pages(&set, from, len, limit);
            for (number, page) in found.iter().enumerate() {
                prop_assert!(page.ranges <= limit && page.ranges as usize == page.chunks.len());
                prop_assert_eq!(page.next.is_some(), number + 1 < found.len());
                for chunk in &page.chunks {
                    prop_assert!(chunk.start.bit() == 0 && !chunk.bits.is_empty());
                    prop_assert!(last.is_none_or(|last| last < chunk.start));
                    last = Some(chunk.start);
                    seen.insert_chunk(chunk.start, chunk.bits);
                }
            }
            prop_assert_eq!(seen, set.within(Extent::lbas(from / 64 * 64, len - from / 64 * 64)));
        }
    }

    #[test]
    fn a_full_page_without_more_behind_it_is_the_last() {
        let set: LbaSet = (0..4).map(|chunk| Extent::lbas(chunk * 64, 1)).collect();
        let found = pages(&set, 0, 1 << 16, 4);
        assert_eq!(found.len(), 1);
        let found = pages(&set, 0, 1 << 16, 3);
        assert_eq!((found.len(), found[0].next), (2, Some(Lba::new(192))));
    }
}
