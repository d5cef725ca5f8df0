//! The changed-block answer: epochs ORed, cut at the snapshot's end, cut into pages.
//!
//! Not covered: which pairs may be asked at all (`array`).

use super::bugs::{Bug, BugSet};
use super::tracking::{CHUNK, Epoch, Masks, Origin, Preload, Tracking};
use super::{SimPage, SimRange, legal};
use crate::block::Freedoms;
use std::collections::btree_map;
use std::ops::Range;

/// Bugs that spoil the answer itself; they look at all of it for every page.
const ANSWER_BUGS: BugSet = BugSet::of(&[
    Bug::AnswerVaries,
    Bug::BaseIgnored,
    Bug::BitmapByteSwapped,
    Bug::DiffCachedPerBase,
    Bug::DirtyDirtyEqualsClean,
    Bug::InsideWalkElidesRewrites,
    Bug::LastPageDropped,
    Bug::LastRangeNotFlushed,
    Bug::LeaksPastEndSnapshot,
    Bug::MiddleDeleteBreaksWalk,
    Bug::NearestBaseUsed,
    Bug::OffsetInsideChunkShifts,
    Bug::PageEdgeRepeatsShifted,
    Bug::PageEdgeSkipsOne,
    Bug::PartialTailChunkLost,
    Bug::RangePastEnd,
    Bug::RewritesOnlyInLongDiffs,
    Bug::UnsortedPages,
]);

/// Chunks with changes, ascending.
pub(super) type Chunks<'a> = dyn Iterator<Item = (u64, u64)> + 'a;

/// How much of a volume "everything" is at most.
const EVERYTHING_LBAS: u64 = 1 << 16;

/// How far past the end of a shrunk volume the bug `range-past-end` looks: this many sizes.
const PAST_END_SIZES: u64 = 1 << 10;

/// One page that is asked for; the snapshots are known to be in the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Place of the snapshot in the chain.
    pub(super) snap: usize,
    /// Place of the base, before the snapshot's; none means creation.
    pub(super) base: Option<usize>,
    /// Where the page starts, as sent.
    pub(super) offset_lba: u64,
    /// Ranges of one page at most, at least 1.
    pub(super) limit: usize,
    /// Size of the snapshot.
    pub(super) len_lbas: u64,
}

/// Chunks with bits, ascending.
enum Source<'a> {
    Masks(btree_map::Range<'a, u64, u64>),
    Pattern { preload: Preload, chunks: Range<u64>, end_lba: u64 },
}

impl Iterator for Source<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        match self {
            Source::Masks(masks) => masks.next().map(|(&chunk, &bits)| (chunk, bits)),
            Source::Pattern { preload, chunks, end_lba } => {
                chunks.next().map(|chunk| (chunk, preload.bits(chunk) & below(chunk, *end_lba)))
            }
        }
    }
}

/// The bits of a chunk that lie before `end_lba`.
pub(super) fn below(chunk: u64, end_lba: u64) -> u64 {
    match end_lba.saturating_sub(chunk * CHUNK) {
        0 => 0,
        lbas if lbas >= CHUNK => u64::MAX,
        lbas => u64::MAX >> (CHUNK - lbas),
    }
}

/// The OR of several sources up to an LBA, chunk by chunk; chunks without bits are left out.
pub(super) struct Changed<'a> {
    sources: Vec<Source<'a>>,
    /// The next chunk and bits of each source, chunks apart so that finding the least is quick.
    chunks: Vec<u64>,
    bits: Vec<u64>,
    end_lba: u64,
}

/// The next chunk of a source that has none.
const EXHAUSTED: u64 = u64::MAX;

impl<'a> Changed<'a> {
    fn new(end_lba: u64, sources: usize) -> Changed<'a> {
        Changed {
            sources: Vec::with_capacity(sources),
            chunks: Vec::with_capacity(sources),
            bits: Vec::with_capacity(sources),
            end_lba,
        }
    }

    fn add(&mut self, mut source: Source<'a>) {
        if let Some((chunk, bits)) = source.next() {
            self.chunks.push(chunk);
            self.bits.push(bits);
            self.sources.push(source);
        }
    }

    fn add_masks(&mut self, masks: &'a Masks, from: u64) {
        self.add(Source::Masks(masks.range(from..)));
    }

    fn add_pattern(&mut self, preload: Preload, from: u64, end_lba: u64) {
        let chunks = from..end_lba.div_ceil(CHUNK);
        self.add(Source::Pattern { preload, chunks, end_lba });
    }

    /// Takes one chunk off every source that has it.
    fn take(&mut self, chunk: u64) -> u64 {
        let mut taken = 0;
        for place in 0..self.chunks.len() {
            if self.chunks[place] == chunk {
                taken |= self.bits[place];
                (self.chunks[place], self.bits[place]) =
                    self.sources[place].next().unwrap_or((EXHAUSTED, 0));
            }
        }
        taken
    }
}

impl Iterator for Changed<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        loop {
            let chunk = self.chunks.iter().copied().min().unwrap_or(EXHAUSTED);
            if chunk >= self.end_lba.div_ceil(CHUNK) {
                return None;
            }
            let bits = self.take(chunk) & below(chunk, self.end_lba);
            if bits != 0 {
                return Some((chunk, bits));
            }
        }
    }
}

impl Tracking {
    /// Everything that was ever marked, from chunk `from` up to `end_lba`.
    pub(super) fn ever(&self, from: u64, end_lba: u64) -> Changed<'_> {
        let epochs = self.links.iter().map(|link| &link.epoch).chain([&self.current]);
        self.changed(epochs, true, from, end_lba)
    }

    /// What a clone of the snapshot at place `snap` inherits: all that an empty volume has not.
    pub(super) fn origin_of_clone(&self, snap: usize, len_lbas: u64) -> Origin {
        let epochs = self.links[..=snap].iter().map(|link| &link.epoch);
        let own = self.changed(epochs, false, 0, len_lbas);
        let mut inherited = Changed::new(len_lbas, 1);
        inherited.add_masks(&self.origin.masks, 0);
        let mut masks: Masks = inherited.collect();
        for (chunk, bits) in own {
            *masks.entry(chunk).or_default() |= bits;
        }
        let preload = self.origin.preload.map(|(preload, end)| (preload, end.min(len_lbas)));
        Origin { masks, preload }
    }

    fn changed<'a>(
        &'a self,
        epochs: impl Iterator<Item = &'a Epoch>,
        origin: bool,
        from: u64,
        end_lba: u64,
    ) -> Changed<'a> {
        // The origin, its pattern and "everything" besides the epochs.
        let mut changed = Changed::new(end_lba, epochs.size_hint().0 + 3);
        let mut everything = origin && self.bugs.has(Bug::AllocatedMeansEverything);
        for epoch in epochs {
            everything |= epoch.everything;
            changed.add_masks(&epoch.masks, from);
        }
        if origin {
            changed.add_masks(&self.origin.masks, from);
            if let Some((preload, end_lba)) = self.origin.preload {
                changed.add_pattern(preload, from, end_lba);
            }
        }
        if everything {
            // Of a sparse volume a part will do: all of it would be 2^26 ranges and more.
            changed.add_pattern(Preload::Dense, from, end_lba.min(EVERYTHING_LBAS));
        }
        changed
    }

    /// One page of what changed after the base's cut (or since creation) up to the snapshot's cut.
    pub(super) fn page(&mut self, ask: Ask, freedoms: &Freedoms) -> SimPage {
        if !self.bugs.any(ANSWER_BUGS) {
            let first = ask.base.map_or(0, |base| base + 1);
            let from = ask.offset_lba / CHUNK;
            if let (Some(_), [link]) = (ask.base, &self.links[first..=ask.snap])
                && !link.epoch.everything
            {
                // The commonest question, about neighbours: nothing to be ORed.
                let masks = link.epoch.masks.range(from..);
                let mut changed = masks
                    .map(|(&chunk, &bits)| (chunk, bits & below(chunk, ask.len_lbas)))
                    .filter(|&(_, bits)| bits != 0);
                return self.shaped(ask, freedoms, &mut changed);
            }
            let epochs = self.links[first..=ask.snap].iter().map(|link| &link.epoch);
            let mut changed = self.changed(epochs, ask.base.is_none(), from, ask.len_lbas);
            return self.shaped(ask, freedoms, &mut changed);
        }
        self.planted_page(ask, freedoms)
    }

    /// One page off `changed`, in the shape that the freedoms give it.
    fn shaped(&self, ask: Ask, freedoms: &Freedoms, changed: &mut Chunks<'_>) -> SimPage {
        if freedoms.is_none() {
            return cut_page(changed, ask.limit);
        }
        let cut = |place: usize| self.links.get(place).map_or(0, |link| link.cut);
        let pair = (ask.base.map_or(0, cut), cut(ask.snap));
        if !freedoms.chunk_rounded {
            return legal::cut_page(freedoms, ask, pair, changed);
        }
        let mut rounded = legal::rounded(freedoms, pair, ask.len_lbas, changed);
        legal::cut_page(freedoms, ask, pair, &mut rounded)
    }

    /// As the honest page, with every deviation a planted bug makes there.
    fn planted_page(&mut self, ask: Ask, freedoms: &Freedoms) -> SimPage {
        if self.walk_was_broken(ask) {
            return SimPage::default();
        }
        let (from, offset_in_chunk) = (ask.offset_lba / CHUNK, ask.offset_lba % CHUNK);
        let whole = self.planted_answer(ask);
        let mut rest = whole.range(from..).map(|(&chunk, &bits)| (chunk, bits));
        let page = self.shaped(ask, freedoms, &mut rest);
        let mut page = self.planted_edges(ask, page, &whole);
        for range in &mut page.ranges {
            if self.bugs.has(Bug::OffsetInsideChunkShifts) {
                range.start_lba += offset_in_chunk;
                range.end_lba_inclusive += offset_in_chunk;
            }
            if self.bugs.has(Bug::BitmapByteSwapped) {
                range.bits = range.bits.swap_bytes();
            }
        }
        page
    }

    /// Planted: whether a snapshot inside the asked span was deleted since the walk's first page.
    fn walk_was_broken(&mut self, ask: Ask) -> bool {
        if !self.bugs.has(Bug::MiddleDeleteBreaksWalk) {
            return false;
        }
        let first = ask.base.map_or(0, |base| base + 1);
        let span = &mut self.links[first..=ask.snap];
        if ask.offset_lba < CHUNK {
            span.iter_mut().for_each(|link| link.walk_broken = false);
        }
        span.iter().any(|link| link.walk_broken)
    }

    /// The whole answer as planted bugs see it.
    fn planted_answer(&mut self, ask: Ask) -> Masks {
        let bugs = self.bugs;
        let key = ask.base.map(|base| self.links[base].cut);
        if bugs.has(Bug::DiffCachedPerBase)
            && let Some(cached) = self.planted.answers.get(&key)
        {
            return cached.clone();
        }
        let nearest = ask.base.and_then(|_| ask.snap.checked_sub(1));
        let base = if bugs.has(Bug::BaseIgnored) {
            None
        } else if bugs.has(Bug::NearestBaseUsed) {
            nearest
        } else {
            ask.base
        };
        let first = base.map_or(0, |base| base + 1);
        let past_end = bugs.has(Bug::LeaksPastEndSnapshot);
        let last = if past_end { self.links.len() } else { ask.snap + 1 };
        let epochs = self.links[first..last].iter().map(|link| &link.epoch);
        let epochs = epochs.chain(past_end.then_some(&self.current));
        let sizes = if bugs.has(Bug::RangePastEnd) { PAST_END_SIZES } else { 1 };
        let end_lba = ask.len_lbas.saturating_mul(sizes);
        let mut answer: Masks = self.changed(epochs, base.is_none(), 0, end_lba).collect();
        let base_epoch = base.map(|base| &self.links[base].epoch);
        if let Some(base_epoch) = base_epoch.filter(|_| bugs.has(Bug::DirtyDirtyEqualsClean)) {
            clear(&mut answer, &base_epoch.masks);
        }
        let varies = bugs.has(Bug::AnswerVaries) && self.answer_varies(ask);
        let short = bugs.has(Bug::RewritesOnlyInLongDiffs) && last - first == 1;
        let inside =
            bugs.has(Bug::InsideWalkElidesRewrites) && !ask.offset_lba.is_multiple_of(CHUNK);
        if base.is_some() && (varies || short || inside) {
            let epochs = self.links[first..last].iter().map(|link| &link.epoch);
            elide_rewrites(&mut answer, epochs);
        }
        if varies {
            let end = ask.len_lbas.div_ceil(CHUNK);
            if let Some(unchanged) = (0..end).find(|chunk| !answer.contains_key(chunk)) {
                answer.insert(unchanged, 0);
            }
        }
        if bugs.has(Bug::PartialTailChunkLost) && !ask.len_lbas.is_multiple_of(CHUNK) {
            answer.remove(&(ask.len_lbas / CHUNK));
        }
        if bugs.has(Bug::LastRangeNotFlushed) {
            answer.pop_last();
        }
        if bugs.has(Bug::DiffCachedPerBase) {
            self.planted.answers.insert(key, answer.clone());
        }
        answer
    }

    /// Planted: whether this is the second, fifth, eighth ... walk over this very pair.
    fn answer_varies(&mut self, ask: Ask) -> bool {
        let pair = (ask.base.map(|base| self.links[base].cut), self.links[ask.snap].cut);
        let walks = self.planted.walks.entry(pair).or_default();
        *walks += u64::from(ask.offset_lba < CHUNK);
        *walks % 3 == 2
    }

    /// Planted: what goes wrong between two pages.
    fn planted_edges(&self, ask: Ask, page: SimPage, whole: &Masks) -> SimPage {
        let mut page = page;
        let next = page.next_offset_lba;
        if next == 0 {
            return page;
        }
        let left = whole.range(next / CHUNK..);
        if self.bugs.has(Bug::UnsortedPages)
            && let (Some(range_here), Some((&chunk, &bits))) =
                (page.ranges.last_mut(), left.clone().last())
        {
            *range_here = range(chunk, bits);
        }
        if self.bugs.has(Bug::PageEdgeRepeatsShifted)
            && let Some((&chunk, &bits)) = left.clone().next()
        {
            page.ranges.push(range(chunk, bits << 1));
        }
        if self.bugs.has(Bug::PageEdgeSkipsOne) {
            page.next_offset_lba = if next + CHUNK < ask.len_lbas { next + CHUNK } else { 0 };
        }
        if self.bugs.has(Bug::LastPageDropped) && left.count() <= ask.limit {
            page.next_offset_lba = 0;
        }
        page
    }
}

/// Planted: takes out of an answer what was only rewritten.
fn elide_rewrites<'e>(answer: &mut Masks, epochs: impl Iterator<Item = &'e Epoch>) {
    let (mut rewritten, mut really) = (Masks::new(), Masks::new());
    for epoch in epochs {
        let of = |all: &mut Masks, more: &Masks| {
            more.iter().for_each(|(&chunk, bits)| *all.entry(chunk).or_default() |= bits);
        };
        of(&mut rewritten, &epoch.rewritten);
        of(&mut really, &epoch.really_changed());
    }
    clear(&mut rewritten, &really);
    clear(answer, &rewritten);
}

/// Takes the bits of `what` out of an answer; chunks left without bits go.
fn clear(answer: &mut Masks, what: &Masks) {
    for (chunk, bits) in what {
        if let Some(left) = answer.get_mut(chunk) {
            *left &= !bits;
            if *left == 0 {
                answer.remove(chunk);
            }
        }
    }
}

/// Takes one page off `changed`.
pub(super) fn cut_page(changed: &mut dyn Iterator<Item = (u64, u64)>, limit: usize) -> SimPage {
    let mut page = SimPage::default();
    // Most pages of a small volume hold a few ranges.
    page.ranges.reserve(limit.min(16));
    for (chunk, bits) in changed {
        if page.ranges.len() == limit {
            page.next_offset_lba = chunk * CHUNK;
            break;
        }
        page.ranges.push(range(chunk, bits));
    }
    page
}

fn range(chunk: u64, bits: u64) -> SimRange {
    let start_lba = chunk * CHUNK;
    SimRange { start_lba, end_lba_inclusive: start_lba + (CHUNK - 1), bits }
}
