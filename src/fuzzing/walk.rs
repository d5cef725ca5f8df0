//! The walk over pages that nobody vouches for, against a slow judge of the same pages.
//!
//! The judge follows `oracle.md` section 6, law 3, and the two traps of `lightbits-api.md` section
//! 3. It says whether the pages may be believed and what they hold; which rule it was that a page
//! broke is not compared. Not covered: decoding pages (`super::diff_page`).

use crate::array::{ApiError, Array, SnapshotInfo, VolumeInfo};
use crate::block::{
    Capabilities, ChunkBitmap, ChunkBits, CloneFullDiff, DiscardEffect, Durability, Lba, LbaCount,
    LbaSet, Page, RollbackKind, SnapshotName, SnapshotUuid, VolumeUuid,
};
use crate::engine::Entropy;
use crate::sync::{DiffAnswer, PipelineBugs, WalkError, WalkRequest, walk as walk_pages};
use arbitrary::Unstructured;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

/// Ranges of a page that may have lost its continuation (`lightbits-api.md` section 3).
const FULL: u32 = 10_000;
/// Largest volume whose pages may go on for ever, in LBAs: each page costs a call.
const ENDLESS_MAX: u64 = 10_000;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Answers diff pages by a function of the call's number and the offset asked for, and keeps them.
struct Pages<F> {
    answer: F,
    served: Mutex<Vec<(Lba, Page)>>,
}

impl<F: Fn(usize, Lba) -> Page + Sync> Pages<F> {
    fn new(answer: F) -> Pages<F> {
        Pages { answer, served: Mutex::new(Vec::new()) }
    }
    fn served(self) -> Vec<(Lba, Page)> {
        self.served.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Fn(usize, Lba) -> Page + Sync> Array for Pages<F> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshot_readable: false,
            discard: DiscardEffect::Undefined,
            durable: Durability::OnAck,
            tracking_survives_kill: false,
            rollback: RollbackKind::None,
            clone_full_diff: None::<CloneFullDiff>,
            resize: false,
            shrink_zeroes: false,
            restart: false,
            volume_lifecycle: false,
            concurrent_ops: false,
            atomic_write_bytes: 512,
            concurrent_snapshots: 1,
            granularity: LbaCount::new(1),
            page_limit: None,
            refuses_deleted_base: false,
        }
    }
    fn volume(&self, _: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        Err(ApiError::Unsupported("volumes"))
    }
    fn create_snapshot(&self, _: VolumeUuid, _: SnapshotName) -> Result<SnapshotInfo, ApiError> {
        Err(ApiError::Unsupported("snapshots"))
    }
    fn snapshot(&self, _: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        Err(ApiError::Unsupported("snapshots"))
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        Err(ApiError::Unsupported("snapshots"))
    }
    fn delete_snapshot(&self, _: SnapshotUuid) -> Result<(), ApiError> {
        Err(ApiError::Unsupported("snapshots"))
    }
    fn diff_page(
        &self,
        _: SnapshotUuid,
        _: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let page = (self.answer)(served.len(), from);
        served.push((from, page.clone()));
        Ok(page)
    }
}

/// The real walk over these pages, then empty ones without a next offset.
pub(super) fn over_pages(
    pages: Vec<Page>,
    volume_len: u64,
    strict: bool,
) -> Result<DiffAnswer, WalkError> {
    over_pages_from(0, pages, volume_len, strict)
}

/// The same, asked for from an LBA on.
pub(super) fn over_pages_from(
    from: u64,
    pages: Vec<Page>,
    volume_len: u64,
    strict: bool,
) -> Result<DiffAnswer, WalkError> {
    let array = Pages::new(move |call, _| pages.get(call).cloned().unwrap_or_default());
    walk_pages(&array, &request(from, volume_len, strict), &mut |_, _| {})
}

fn request(from: u64, volume_len: u64, strict: bool) -> WalkRequest<'static> {
    WalkRequest {
        snapshot: SnapshotUuid::from_u128(2),
        base: Some(SnapshotUuid::from_u128(1)),
        from: Lba::new(from),
        volume_len: LbaCount::new(volume_len),
        strict,
        bugs: PipelineBugs::NONE,
        stop: &GO_ON,
    }
}

/// An LBA that a page names: as it stands, or so far from the offset asked for.
#[derive(Clone, Copy)]
enum Place {
    At(u64),
    After(u64),
}

impl Place {
    fn draw(input: &mut Unstructured<'_>, volume_len: u64) -> Place {
        match input.below(8) {
            // Most pages should be legal, or nothing beyond the first one is ever reached.
            0..=3 => Place::After(input.below(6) * 64),
            4 | 5 => Place::At(input.below(volume_len / 64 + 2).saturating_mul(64)),
            6 => Place::At(input.below(volume_len.saturating_add(70))),
            _ => Place::At(input.word()),
        }
    }
    fn of(self, requested: Lba) -> u64 {
        match self {
            Place::At(lba) => lba,
            Place::After(lbas) => (requested.get() / 64 * 64).saturating_add(lbas),
        }
    }
}

/// A page as drawn.
struct Plan {
    chunks: Vec<(Place, u64)>,
    next: Option<Place>,
    full: bool,
}

impl Plan {
    fn draw(input: &mut Unstructured<'_>, volume_len: u64) -> Plan {
        let chunks =
            (0..input.below(5)).map(|_| (Place::draw(input, volume_len), input.word())).collect();
        let next = input.chance(3, 4).then(|| Place::draw(input, volume_len));
        Plan { chunks, next, full: input.chance(1, 8) }
    }
    fn page(&self, requested: Lba) -> Page {
        let chunks: Vec<ChunkBits> = self
            .chunks
            .iter()
            .map(|&(place, bits)| ChunkBits {
                start: Lba::new(place.of(requested)),
                bits: ChunkBitmap::from_bits(bits),
            })
            .collect();
        let ranges = if self.full { FULL } else { u32::try_from(chunks.len()).unwrap_or(FULL) };
        let next = self.next.map(|place| Lba::new(place.of(requested)));
        Page { chunks, ranges, next, notes: Vec::new() }
    }
}

/// Any pages, once, over and over, or with one that never ends.
pub(super) fn walk(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let strict = input.chance(1, 2);
    let volume_len = match input.below(4) {
        0 => 1000,
        1 => 1 + input.below(ENDLESS_MAX),
        2 => input.below(3),
        _ => input.word(),
    };
    let from = if input.chance(1, 4) { input.below(volume_len.saturating_add(1)) } else { 0 };
    let again = volume_len <= ENDLESS_MAX && input.chance(1, 3);
    let mut plans = Vec::new();
    while !input.is_spent() && plans.len() < 64 {
        plans.push(Plan::draw(&mut input, volume_len));
    }
    let array = Pages::new(|call, requested| {
        let at = if again && !plans.is_empty() { call % plans.len() } else { call };
        plans.get(at).map(|plan| plan.page(requested)).unwrap_or_default()
    });
    let request = request(from, volume_len, strict);
    let mut seen = 0;
    let answer = walk_pages(&array, &request, &mut |number, _| {
        assert_eq!(number, seen, "pages are numbered from 0");
        seen += 1;
    });
    let served = array.served();
    let calls = u128::try_from(served.len()).unwrap_or(u128::MAX);
    assert!(
        calls <= u128::from(volume_len.div_ceil(64)) + 2,
        "{calls} calls for {volume_len} LBAs"
    );
    check(answer, &judge(&served, &request), &request);
}

/// What the slow judge says of the pages that were served.
enum Judged {
    /// This page must not be believed.
    Faulty(u32),
    /// They hold these chunks, that many on the wire, over so many pages.
    Legal(BTreeMap<u64, u64>, u64, u32),
}

fn check(answer: Result<DiffAnswer, WalkError>, judged: &Judged, request: &WalkRequest<'_>) {
    match (answer, judged) {
        (Err(WalkError::Shape(fault)), Judged::Faulty(page)) => {
            assert_eq!(fault.page, *page, "{fault}");
            let chunk = fault.extent().map(|extent| extent.len_lbas().get());
            assert!(chunk.is_none_or(|lbas| lbas == 64), "{fault} is about {chunk:?} LBAs");
        }
        (Ok(answer), Judged::Legal(chunks, ranges, pages)) => {
            let found: Vec<(u64, u64)> =
                answer.chunks.iter().map(|c| (c.start.get(), c.bits.bits())).collect();
            assert!(found.iter().copied().eq(chunks.iter().map(|(&s, &b)| (s, b))), "{found:?}");
            assert_eq!((answer.ranges, answer.pages), (*ranges, *pages));
            let mut set = LbaSet::new();
            for (&start, &bits) in chunks {
                set.insert_chunk(Lba::new(start), ChunkBitmap::from_bits(bits));
            }
            assert_eq!(answer.set, set);
            let last = set.runs().last().map_or(0, |run| run.end().get());
            assert!(
                last <= request.volume_len.get(),
                "reports LBA {last} of {}",
                request.volume_len
            );
        }
        (Ok(answer), Judged::Faulty(page)) => panic!("believed page {page}: {answer:?}"),
        (Err(error), Judged::Legal(..)) => panic!("refused legal pages: {error}"),
        (Err(error), Judged::Faulty(_)) => panic!("{error}"),
    }
}

fn judge(served: &[(Lba, Page)], request: &WalkRequest<'_>) -> Judged {
    let len = u128::from(request.volume_len.get());
    let (mut chunks, mut ranges, mut number) = (BTreeMap::new(), 0, 0);
    let mut pages = served.iter();
    for (requested, page) in pages.by_ref() {
        if !page_is_legal(*requested, page, request, &mut chunks) {
            return Judged::Faulty(number);
        }
        ranges += u64::from(page.ranges);
        let goes_on = page.next.is_some_and(|next| u128::from(next.get()) < len);
        number += 1;
        if !goes_on {
            // What was asked for beyond a full page must be nothing, however many pages it takes.
            let more = pages.as_slice();
            let end = page.chunks.iter().map(|c| u128::from(c.start.get()) + 64).max();
            let lost =
                page.next.is_none() && page.ranges >= FULL && end.is_some_and(|end| end < len);
            assert_eq!(lost, !more.is_empty(), "whether more was asked for after a full page");
            let beyond = more.iter().all(|(requested, page)| {
                page.chunks.is_empty() && next_is_legal(*requested, page, len)
            });
            return if beyond {
                Judged::Legal(chunks, ranges, number)
            } else {
                Judged::Faulty(number - 1)
            };
        }
    }
    panic!("the walk ended after {number} pages, though the last one goes on");
}

fn next_is_legal(requested: Lba, page: &Page, len: u128) -> bool {
    let Some(next) = page.next else { return true };
    let next = u128::from(next.get());
    next > u128::from(requested.get()) && next % 64 == 0 && next <= len.div_ceil(64) * 64
}

/// Judges one page and joins its chunks to the others.
fn page_is_legal(
    requested: Lba,
    page: &Page,
    request: &WalkRequest<'_>,
    chunks: &mut BTreeMap<u64, u64>,
) -> bool {
    let len = request.volume_len.get();
    if !next_is_legal(requested, page, u128::from(len)) {
        return false;
    }
    let starts: Vec<u64> = page.chunks.iter().map(|chunk| chunk.start.get()).collect();
    if request.strict && !starts.is_sorted() {
        return false;
    }
    for chunk in &page.chunks {
        let start = chunk.start.get();
        let window = requested.get() / 64 * 64..=page.next.map_or(u64::MAX, Lba::get);
        if start % 64 != 0 || !window.contains(&start) || start >= len {
            return false;
        }
        let inside =
            (0..64u64).filter(|bit| u128::from(start) + u128::from(*bit) < u128::from(len));
        let mask = inside.fold(0, |mask, bit| mask | 1 << bit);
        if request.strict && chunk.bits.bits() & !mask != 0 {
            return false;
        }
        let bits = chunk.bits.bits() & mask;
        if chunks.insert(start, bits).is_some_and(|known| known != bits) {
            return false;
        }
    }
    true
}
