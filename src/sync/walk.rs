//! Collects the pages of one diff into one answer, and refuses what no array may answer.
//!
//! The loop goes by `next` alone: a short or an empty page is not the end. Each page must go
//! forward and stay inside the window it was asked for, so a repeated page, an ignored offset or an
//! endless walk is found, never followed (`lightbits-api.md` section 3, "two data-loss traps";
//! `oracle.md` section 6, law 3). As every page advances by a chunk, a volume of `n` chunks ends
//! the walk after `n` pages at most. Not covered: whether the LBAs are the right ones
//! (`crate::oracle`), how a page is decoded (the adapters).

use super::bugs::{PipelineBug, PipelineBugs};
use crate::array::{ApiError, Array};
use crate::block::{
    CHUNK_LBAS, ChunkBitmap, ChunkBits, Extent, Lba, LbaCount, LbaSet, Page, SnapshotUuid,
};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ranges of one page at most (`lightbits-api.md` section 3). A page so full that names no next
/// offset is not believed before the rest was asked for.
const PAGE_RANGES_MAX: u32 = 10_000;

/// What to ask for, and how strictly to read the answer.
#[derive(Clone, Copy, Debug)]
pub struct WalkRequest<'a> {
    /// The snapshot whose changes are asked for.
    pub snapshot: SnapshotUuid,
    /// Since which snapshot; `None` is since creation.
    pub base: Option<SnapshotUuid>,
    /// Where to start; the array rounds it down to a chunk.
    pub from: Lba,
    /// Size of the snapshot.
    pub volume_len: LbaCount,
    /// Whether disorder inside a page and bits past the end of the volume are faults (our
    /// simulator) or notes (a live array, whose contract leaves them open).
    pub strict: bool,
    /// Planted mistakes; none in an honest run.
    pub bugs: PipelineBugs,
    /// Set when the user asked to stop; the walk ends before its next page.
    pub stop: &'a AtomicBool,
}

/// A whole diff answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DiffAnswer {
    /// The LBAs reported.
    pub set: LbaSet,
    /// The chunks reported, ascending, each once; some may have no bit set. Bits past the end of
    /// the volume are removed.
    pub chunks: Vec<ChunkBits>,
    /// Ranges on the wire, over all pages, repeated ones included.
    pub ranges: u64,
    /// Pages fetched.
    pub pages: u32,
    /// What was odd but legal, each thing once.
    pub notes: Vec<String>,
}

/// A walk that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The array refused or failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The array answered what it must not: data for the verdict `malformed`.
    #[error(transparent)]
    Shape(#[from] ShapeFault),
}

/// A rule of shape that one page broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("page {} {rule}", .page.saturating_add(1))]
pub struct ShapeFault {
    /// Which page, from 0; shown from 1.
    pub page: u32,
    /// Which rule, and how it was broken.
    pub rule: ShapeRule,
}

/// The rules that every page must keep, each with what was seen instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShapeRule {
    /// The next offset lies after the one requested.
    NextGoesForward {
        /// What was requested.
        requested: Lba,
        /// What the page named.
        next: Lba,
    },
    /// The next offset is a multiple of 64.
    NextAligned {
        /// What the page named.
        next: Lba,
    },
    /// The next offset lies inside the volume, rounded up to a chunk.
    NextInVolume {
        /// What the page named.
        next: Lba,
        /// Size of the volume.
        volume_len: LbaCount,
    },
    /// A range starts at a multiple of 64.
    RangeAligned {
        /// Where it starts.
        start: Lba,
    },
    /// A range starts at or after the requested offset, rounded down to a chunk.
    RangeAfterRequest {
        /// Where it starts.
        start: Lba,
        /// What was requested.
        requested: Lba,
    },
    /// A range starts at or before the next offset.
    RangeBeforeNext {
        /// Where it starts.
        start: Lba,
        /// What the page named.
        next: Lba,
    },
    /// A range starts inside the volume.
    RangeInVolume {
        /// Where it starts.
        start: Lba,
        /// Size of the volume.
        volume_len: LbaCount,
    },
    /// No bit past the end of the volume is set.
    NoPadBits {
        /// The last chunk.
        start: Lba,
        /// Its bits past the end.
        pad: ChunkBitmap,
    },
    /// Ranges ascend.
    Ascending {
        /// A range that starts before its predecessor.
        start: Lba,
        /// Its predecessor.
        after: Lba,
    },
    /// A chunk that comes twice carries the same bitmap.
    SameBitmap {
        /// The chunk.
        start: Lba,
        /// Its first bitmap.
        first: ChunkBitmap,
        /// Its second.
        again: ChunkBitmap,
    },
    /// A page with fields that nobody knows and without a next offset is the last one.
    OddPageIsLast {
        /// A range that came when the rest was asked for all the same.
        more: Lba,
    },
    /// A full page without a next offset is the last one.
    FullPageIsLast {
        /// A range that came when the rest was asked for all the same.
        more: Lba,
    },
}

impl ShapeFault {
    /// The chunk that shows the fault, if it is about one.
    pub fn extent(&self) -> Option<Extent> {
        let start = match self.rule {
            ShapeRule::NextGoesForward { .. }
            | ShapeRule::NextAligned { .. }
            | ShapeRule::NextInVolume { .. } => return None,
            ShapeRule::RangeAligned { start }
            | ShapeRule::RangeAfterRequest { start, .. }
            | ShapeRule::RangeBeforeNext { start, .. }
            | ShapeRule::RangeInVolume { start, .. }
            | ShapeRule::NoPadBits { start, .. }
            | ShapeRule::Ascending { start, .. }
            | ShapeRule::SameBitmap { start, .. }
            | ShapeRule::OddPageIsLast { more: start }
            | ShapeRule::FullPageIsLast { more: start } => start,
        };
        Extent::new(start, LbaCount::new(CHUNK_LBAS))
    }
}

impl fmt::Display for ShapeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeRule::NextGoesForward { requested, next } => write!(
                f,
                "was requested from LBA {requested} but names LBA {next} as the next offset: the walk does not advance"
            ),
            ShapeRule::NextAligned { next } => {
                write!(f, "names LBA {next} as the next offset, which is no multiple of 64")
            }
            ShapeRule::NextInVolume { next, volume_len } => write!(
                f,
                "names LBA {next} as the next offset, but the volume has {volume_len} LBAs"
            ),
            ShapeRule::RangeAligned { start } => {
                write!(f, "has a range at LBA {start}, which is no multiple of 64")
            }
            ShapeRule::RangeAfterRequest { start, requested } => write!(
                f,
                "was requested from LBA {requested} but has a range before that, at LBA {start}"
            ),
            ShapeRule::RangeBeforeNext { start, next } => write!(
                f,
                "names LBA {next} as the next offset but has a range after that, at LBA {start}"
            ),
            ShapeRule::RangeInVolume { start, volume_len } => {
                write!(f, "has a range at LBA {start}, but the volume has {volume_len} LBAs")
            }
            ShapeRule::NoPadBits { start, pad } => write!(
                f,
                "reports {} LBAs past the end of the volume in its last chunk, at LBA {start}",
                pad.count()
            ),
            ShapeRule::Ascending { start, after } => {
                write!(f, "is not in order: the range at LBA {start} comes after LBA {after}")
            }
            ShapeRule::SameBitmap { start, first, again } => write!(
                f,
                "repeats the chunk at LBA {start} with another bitmap: {:#018x}, then {:#018x}",
                first.bits(),
                again.bits()
            ),
            ShapeRule::OddPageIsLast { more } => write!(
                f,
                "names no next offset under a name that is known, yet there is more, at LBA {more}: a client would stop here"
            ),
            ShapeRule::FullPageIsLast { more } => write!(
                f,
                "is full and names no next offset, yet there is more, at LBA {more}: a client would stop here"
            ),
        }
    }
}

/// Fetches all pages of a diff and joins them.
///
/// `on_page` sees every page as it came, before it is judged, with its number from 0; it may act on
/// the array between two pages.
///
/// # Errors
/// [`WalkError::Api`] with whatever a call answered, [`WalkError::Shape`] if a page breaks a rule.
pub fn walk(
    array: &dyn Array,
    request: &WalkRequest<'_>,
    on_page: &mut dyn FnMut(u32, &Page),
) -> Result<DiffAnswer, WalkError> {
    let mut chunks = Vec::new();
    let mut keep = |fresh: &[ChunkBits]| chunks.extend_from_slice(fresh);
    let answer = walk_streaming(array, request, on_page, &mut keep)?;
    Ok(DiffAnswer { set: chunks_to_set(&chunks), chunks, ..answer })
}

/// As [`walk`], for answers too big to keep: the chunks of each judged page go to `on_chunks`,
/// ascending, each once, and the answer holds none.
///
/// # Errors
/// As [`walk`]; the chunks of the pages before the fault were handed over.
pub fn walk_streaming(
    array: &dyn Array,
    request: &WalkRequest<'_>,
    on_page: &mut dyn FnMut(u32, &Page),
    on_chunks: &mut dyn FnMut(&[ChunkBits]),
) -> Result<DiffAnswer, WalkError> {
    let mut answer = DiffAnswer::default();
    let mut offset = request.from;
    let mut handed = 0;
    loop {
        let mut page = fetch(array, request, offset)?;
        on_page(answer.pages, &page);
        let number = answer.pages;
        let window = Window { request, requested: offset, next: page.next };
        window.add(&mut page, &mut answer).map_err(|rule| ShapeFault { page: number, rule })?;
        answer.pages += 1;
        // The last chunk of the page before stays behind: this page may begin with it again.
        on_chunks(answer.chunks.get(handed..).unwrap_or_default());
        answer.chunks.drain(..answer.chunks.len().saturating_sub(1));
        handed = answer.chunks.len();
        let empty_ends = request.bugs.has(PipelineBug::EmptyPageEndsWalk) && page.chunks.is_empty();
        match page.next.filter(|_| !empty_ends) {
            // The rule says inside the volume *rounded up*; asking from its very end is refused.
            Some(next) if next.get() < request.volume_len.get() => offset = next,
            Some(_) => {
                note(&mut answer.notes, "the last page names the volume's end as next offset");
                break;
            }
            None => {
                confirm_end(array, request, &page, (offset, number))?;
                break;
            }
        }
    }
    answer.chunks.clear();
    Ok(answer)
}

fn fetch(array: &dyn Array, request: &WalkRequest<'_>, from: Lba) -> Result<Page, ApiError> {
    if request.stop.load(Ordering::Relaxed) {
        return Err(ApiError::Interrupted);
    }
    array.diff_page(request.snapshot, request.base, from)
}

/// A full page without a next offset may be one whose next offset got lost on the way, and one with
/// fields that nobody knows may have it there: it is the last page only if nothing comes after it.
fn confirm_end(
    array: &dyn Array,
    request: &WalkRequest<'_>,
    last_page: &Page,
    (requested, number): (Lba, u32),
) -> Result<(), WalkError> {
    // A field that nobody knows may be the next offset under another name.
    let is_odd = !last_page.notes.is_empty();
    let after = match last_page.chunks.last() {
        Some(last) => last.start,
        None if is_odd => requested.chunk_start(),
        None => return Ok(()),
    };
    let after = Lba::new(after.get().saturating_add(CHUNK_LBAS));
    let is_sure = last_page.ranges < PAGE_RANGES_MAX && !is_odd;
    if is_sure || after.get() >= request.volume_len.get() {
        return Ok(());
    }
    let malformed = |rule| ShapeFault { page: number, rule }.into();
    let mut asked = after;
    // Each page must go forward by a chunk at least, so the volume's chunks bound this loop.
    loop {
        let rest = fetch(array, request, asked)?;
        if let Some(chunk) = rest.chunks.first() {
            let more = chunk.start;
            return Err(malformed(match is_odd {
                true => ShapeRule::OddPageIsLast { more },
                false => ShapeRule::FullPageIsLast { more },
            }));
        }
        Window { request, requested: asked, next: rest.next }.check_next().map_err(malformed)?;
        match rest.next {
            // An empty page with a next offset is not the end, here as little as in the walk.
            Some(next) if next.get() < request.volume_len.get() => asked = next,
            _ => return Ok(()),
        }
    }
}

fn chunks_to_set(chunks: &[ChunkBits]) -> LbaSet {
    let mut set = LbaSet::with_capacity(chunks.len());
    for chunk in chunks {
        set.insert_chunk(chunk.start, chunk.bits);
    }
    set
}

/// Adds a note unless it is there already: a hundred pages with one oddity make one note.
fn note(notes: &mut Vec<String>, text: &str) {
    if !notes.iter().any(|known| known == text) {
        notes.push(text.to_owned());
    }
}

/// Where the ranges of one page may lie.
struct Window<'a> {
    request: &'a WalkRequest<'a>,
    requested: Lba,
    next: Option<Lba>,
}

impl Window<'_> {
    /// Checks a page and joins it to the answer; leaves its chunks sorted.
    fn add(&self, page: &mut Page, answer: &mut DiffAnswer) -> Result<(), ShapeRule> {
        self.check_next()?;
        answer.ranges += u64::from(page.ranges);
        for text in &page.notes {
            note(&mut answer.notes, text);
        }
        for chunk in &mut page.chunks {
            self.check_start(chunk.start)?;
            self.cut_pad_bits(chunk, &mut answer.notes)?;
        }
        self.sort(page, &mut answer.notes)?;
        answer.chunks.reserve(page.chunks.len());
        for chunk in &page.chunks {
            match answer.chunks.last() {
                Some(known) if known.start == chunk.start => same_bitmap(*known, *chunk)?,
                _ => answer.chunks.push(*chunk),
            }
        }
        Ok(())
    }

    fn check_next(&self) -> Result<(), ShapeRule> {
        let Some(next) = self.next else { return Ok(()) };
        if next <= self.requested {
            return Err(ShapeRule::NextGoesForward { requested: self.requested, next });
        }
        if next.bit() != 0 {
            return Err(ShapeRule::NextAligned { next });
        }
        let volume_len = self.request.volume_len;
        if next.chunk().get() > volume_len.chunks() {
            return Err(ShapeRule::NextInVolume { next, volume_len });
        }
        Ok(())
    }

    fn check_start(&self, start: Lba) -> Result<(), ShapeRule> {
        let volume_len = self.request.volume_len;
        if start.bit() != 0 {
            return Err(ShapeRule::RangeAligned { start });
        }
        if start < self.requested.chunk_start() {
            return Err(ShapeRule::RangeAfterRequest { start, requested: self.requested });
        }
        // The chunk at the next offset may come with both pages.
        if let Some(next) = self.next.filter(|&next| start > next) {
            return Err(ShapeRule::RangeBeforeNext { start, next });
        }
        if start.get() >= volume_len.get() {
            return Err(ShapeRule::RangeInVolume { start, volume_len });
        }
        Ok(())
    }

    fn cut_pad_bits(
        &self,
        chunk: &mut ChunkBits,
        notes: &mut Vec<String>,
    ) -> Result<(), ShapeRule> {
        let volume_end = Lba::new(self.request.volume_len.get());
        let inside = Extent::between(chunk.start, volume_end)
            .map_or(ChunkBitmap::EMPTY, |rest| ChunkBitmap::of_extent(chunk.start, rest));
        let pad = ChunkBitmap::from_bits(chunk.bits.bits() & !inside.bits());
        if pad.is_empty() {
            return Ok(());
        }
        if self.request.strict {
            return Err(ShapeRule::NoPadBits { start: chunk.start, pad });
        }
        note(notes, "the last chunk has bits past the end of the volume; they were ignored");
        chunk.bits = ChunkBitmap::from_bits(chunk.bits.bits() & inside.bits());
        Ok(())
    }

    fn sort(&self, page: &mut Page, notes: &mut Vec<String>) -> Result<(), ShapeRule> {
        let disorder = page.chunks.windows(2).find_map(|pair| match pair {
            [before, after] if after.start < before.start => {
                Some(ShapeRule::Ascending { start: after.start, after: before.start })
            }
            _ => None,
        });
        let Some(disorder) = disorder else { return Ok(()) };
        if self.request.strict {
            return Err(disorder);
        }
        note(notes, "the ranges of a page are not in order");
        page.chunks.sort_by_key(|chunk| chunk.start);
        Ok(())
    }
}

fn same_bitmap(known: ChunkBits, again: ChunkBits) -> Result<(), ShapeRule> {
    if known.bits == again.bits {
        return Ok(());
    }
    Err(ShapeRule::SameBitmap { start: known.start, first: known.bits, again: again.bits })
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
