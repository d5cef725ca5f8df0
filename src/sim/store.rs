//! Contents of one volume and its snapshots: a sparse map of 64-LBA chunks, copied on write.
//!
//! Only chunks that were written take memory, so a 64 TiB volume costs nothing. A snapshot keeps a
//! chunk's old contents when the live chunk is first written after its cut. Not covered: what
//! changed (`tracking`), sizes and bounds (`volume`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Contents of one chunk; shared between the volume, its snapshots and its clones.
type Chunk = Arc<Box<[u8]>>;

/// Contents of a volume now and at each of its snapshots.
#[derive(Debug)]
pub(super) struct Store {
    chunk_bytes: usize,
    /// What the volume holds; a chunk that is missing reads as zeros.
    live: BTreeMap<u64, Chunk>,
    /// What snapshots still need, in order of their cuts.
    kept: Vec<Kept>,
    /// Whether writes leave snapshots alone; only a planted bug says no.
    freezes: bool,
}

/// What was overwritten after one snapshot and before the next; `None` was a hole.
#[derive(Debug)]
struct Kept {
    cut: u64,
    chunks: BTreeMap<u64, Option<Chunk>>,
}

/// One stretch of bytes inside one chunk.
struct Piece {
    chunk: u64,
    inside: std::ops::Range<usize>,
    /// Where the stretch starts in the caller's buffer.
    buf_at: usize,
}

/// The pieces of `len` bytes from byte `at`, chunk by chunk.
fn pieces(chunk_bytes: usize, at: u64, len: usize) -> impl Iterator<Item = Piece> {
    let size = chunk_bytes as u64;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let here = at + done as u64;
        // The remainder is less than chunk_bytes, which is a usize.
        let start = usize::try_from(here % size).unwrap_or(0);
        let part = (chunk_bytes - start).min(len - done);
        let piece = Piece { chunk: here / size, inside: start..start + part, buf_at: done };
        done += part;
        Some(piece)
    })
}

impl Store {
    /// An empty volume: all zeros.
    pub(super) fn new(block_bytes: usize, freezes: bool) -> Store {
        Store { chunk_bytes: block_bytes * 64, live: BTreeMap::new(), kept: Vec::new(), freezes }
    }

    /// Fills `buf` with what the volume holds from byte `at`.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) {
        for piece in pieces(self.chunk_bytes, at, buf.len()) {
            fill(buf, &piece, self.live.get(&piece.chunk));
        }
    }

    /// Fills `buf` with what the snapshot cut as number `cut` holds from byte `at`.
    pub(super) fn read_at_cut(&self, cut: u64, at: u64, buf: &mut [u8]) {
        let since = self.since(cut);
        for piece in pieces(self.chunk_bytes, at, buf.len()) {
            fill(buf, &piece, self.chunk_since(since, piece.chunk));
        }
    }

    /// Stores `buf` from byte `at`.
    pub(super) fn write(&mut self, at: u64, buf: &[u8]) {
        for piece in pieces(self.chunk_bytes, at, buf.len()) {
            self.keep(piece.chunk);
            let new = &buf[piece.buf_at..piece.buf_at + piece.inside.len()];
            let whole = new.len() == self.chunk_bytes;
            match self.live.get_mut(&piece.chunk) {
                // A shared chunk that is wholly overwritten need not be copied first.
                Some(chunk) if whole && Arc::strong_count(chunk) > 1 => *chunk = new_chunk(new),
                Some(chunk) => Arc::make_mut(chunk)[piece.inside].copy_from_slice(new),
                None if whole => {
                    self.live.insert(piece.chunk, new_chunk(new));
                }
                None => {
                    let mut chunk = vec![0; self.chunk_bytes].into_boxed_slice();
                    chunk[piece.inside].copy_from_slice(new);
                    self.live.insert(piece.chunk, Arc::new(chunk));
                }
            }
        }
    }

    /// Makes the bytes `at..end` read as zeros. Takes time by what is stored, not by the range.
    pub(super) fn zero(&mut self, at: u64, end: u64) {
        let size = self.chunk_bytes as u64;
        let touched: Vec<u64> =
            self.live.range(at / size..end.div_ceil(size)).map(|(&c, _)| c).collect();
        for chunk in touched {
            self.keep(chunk);
            let start = usize::try_from(at.saturating_sub(chunk * size)).unwrap_or(0);
            let stop = usize::try_from((end - chunk * size).min(size)).unwrap_or(self.chunk_bytes);
            if start == 0 && stop == self.chunk_bytes {
                self.live.remove(&chunk);
            } else if let Some(bytes) = self.live.get_mut(&chunk) {
                Arc::make_mut(bytes)[start..stop].fill(0);
            }
        }
    }

    /// From here on the present contents belong to the snapshot `cut`; numbers only grow.
    pub(super) fn cut(&mut self, cut: u64) {
        self.kept.push(Kept { cut, chunks: BTreeMap::new() });
    }

    /// Forgets a snapshot; what older ones need of it is handed down.
    pub(super) fn forget(&mut self, cut: u64) {
        let place = self.since(cut);
        if self.kept.get(place).is_none_or(|kept| kept.cut != cut) {
            return;
        }
        let gone = self.kept.remove(place);
        if let Some(older) = place.checked_sub(1).and_then(|before| self.kept.get_mut(before)) {
            for (chunk, bytes) in gone.chunks {
                older.chunks.entry(chunk).or_insert(bytes);
            }
        }
    }

    /// Puts the volume back to the contents of the snapshot `cut`.
    pub(super) fn roll_back(&mut self, cut: u64) {
        let since = self.since(cut);
        let touched: BTreeSet<u64> =
            self.kept[since..].iter().flat_map(|kept| kept.chunks.keys().copied()).collect();
        for chunk in touched {
            let old = self.chunk_since(since, chunk).cloned();
            self.keep(chunk);
            self.set(chunk, old);
        }
    }

    /// A volume of its own with the contents of the snapshot `cut`; chunks are shared until written.
    pub(super) fn clone_at_cut(&self, cut: u64) -> Store {
        let since = self.since(cut);
        let mut live = self.live.clone();
        let touched = self.kept[since..].iter().flat_map(|kept| kept.chunks.keys());
        for &chunk in touched {
            match self.chunk_since(since, chunk) {
                Some(bytes) => live.insert(chunk, Arc::clone(bytes)),
                None => live.remove(&chunk),
            };
        }
        Store { chunk_bytes: self.chunk_bytes, live, kept: Vec::new(), freezes: self.freezes }
    }

    /// Place of the first snapshot whose number is at least `cut`.
    fn since(&self, cut: u64) -> usize {
        self.kept.partition_point(|kept| kept.cut < cut)
    }

    /// A chunk as the snapshot at place `since` holds it.
    fn chunk_since(&self, since: usize, chunk: u64) -> Option<&Chunk> {
        let kept = self.kept[since..].iter().find_map(|kept| kept.chunks.get(&chunk));
        kept.map_or_else(|| self.live.get(&chunk), Option::as_ref)
    }

    /// Saves a chunk for the newest snapshot, unless it has it already.
    fn keep(&mut self, chunk: u64) {
        if !self.freezes {
            return;
        }
        if let Some(newest) = self.kept.last_mut() {
            newest.chunks.entry(chunk).or_insert_with(|| self.live.get(&chunk).cloned());
        }
    }

    fn set(&mut self, chunk: u64, bytes: Option<Chunk>) {
        match bytes {
            Some(bytes) => self.live.insert(chunk, bytes),
            None => self.live.remove(&chunk),
        };
    }
}

fn new_chunk(bytes: &[u8]) -> Chunk {
    Arc::new(bytes.into())
}

fn fill(buf: &mut [u8], piece: &Piece, chunk: Option<&Chunk>) {
    let part = &mut buf[piece.buf_at..piece.buf_at + piece.inside.len()];
    match chunk {
        Some(bytes) => part.copy_from_slice(&bytes[piece.inside.clone()]),
        None => part.fill(0),
    }
}
