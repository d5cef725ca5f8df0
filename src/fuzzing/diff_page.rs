//! Pages of a diff as bytes: the client's decoder against a slow reader, and what becomes of a page
//! in the end. Not covered: several pages of one answer (`super::walk`).

use super::diff_reader;
use super::walk::over_pages_from;
use crate::block::{BitmapOrder, ChunkBits, LbaCount, LbaSet, Page};
use crate::lightbits::diff::decode_diff_page;
use std::fmt;

/// How a page is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Order of the bytes of a bitmap.
    pub order: BitmapOrder,
    /// Size of the snapshot, in LBAs.
    pub volume_len: u64,
    /// The LBA from which on the page was asked for.
    pub from: u64,
    /// Whether the rules for our own simulator hold, and not those for a live array.
    pub strict: bool,
}

/// What becomes of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is not believed, for this reason.
    Refused(String),
    /// These LBAs have changed.
    Read(LbaSet),
}

impl fmt::Display for Outcome {
    /// All runs, unlike an [`LbaSet`], which shows the first few.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Refused(why) => write!(f, "refused: {why}"),
            Outcome::Read(set) if set.is_empty() => f.write_str("read: nothing"),
            Outcome::Read(set) => {
                let run =
                    |run: &crate::block::Extent| format!("{}+{}", run.start(), run.len_lbas());
                let runs: Vec<String> = set.runs().iter().map(run).collect();
                write!(f, "read: {}", runs.join(" "))
            }
        }
    }
}

/// What the client makes of an answer whose first page has this body and whose further pages, if
/// it asks for them, are empty.
pub fn outcome(body: &[u8], asked: Asked) -> Outcome {
    let page = match decode_diff_page(body, asked.order, Some(LbaCount::new(asked.volume_len))) {
        Ok(page) => page,
        Err(why) => return Outcome::Refused(why),
    };
    match over_pages_from(asked.from, vec![page], asked.volume_len, asked.strict) {
        Ok(answer) => Outcome::Read(answer.set),
        Err(why) => Outcome::Refused(why.to_string()),
    }
}

/// The size of the snapshot whose pages the fuzzer makes: its last chunk is a partial one.
const VOLUME_LEN: u64 = 1000;

/// The body of a diff page, in both byte orders, with and without a known size.
pub(super) fn diff_page(body: &[u8]) {
    for order in [BitmapOrder::Little, BitmapOrder::Big] {
        for len in [None, Some(VOLUME_LEN)] {
            compare(body, order, len);
        }
        let asked = Asked { order, volume_len: VOLUME_LEN, from: 0, strict: false };
        let page = decode_diff_page(body, order, Some(LbaCount::new(VOLUME_LEN)));
        if let (Outcome::Read(set), Ok(page)) = (outcome(body, asked), page) {
            check_set(&set, &page.chunks);
        }
    }
}

/// What is read in the end are the bits of the page that lie inside the volume.
fn check_set(set: &LbaSet, chunks: &[ChunkBits]) {
    let mut lbas: Vec<u64> = chunks
        .iter()
        .flat_map(|chunk| {
            (0..64u64)
                .filter(|bit| chunk.bits.bits() >> bit & 1 == 1)
                .filter_map(|bit| chunk.start.get().checked_add(bit))
        })
        .filter(|&lba| lba < VOLUME_LEN)
        .collect();
    lbas.sort_unstable();
    lbas.dedup();
    let read = set.runs().iter().flat_map(|run| run.start().get()..run.end().get());
    assert!(read.eq(lbas.iter().copied()), "{set} was read, {lbas:?} was sent");
}

fn compare(body: &[u8], order: BitmapOrder, len: Option<u64>) {
    let fast = decode_diff_page(body, order, len.map(LbaCount::new));
    let slow = diff_reader::read(body, order, len);
    match (fast, slow) {
        (Ok(page), Some(slow)) => check_page(&page, &slow),
        (Ok(page), None) => panic!("read what must be refused ({order:?}, {len:?}): {page:?}"),
        (Err(why), Some(slow)) => assert!(slow.doubtful, "refused a legal page: {why}"),
        (Err(why), None) => assert!(!why.is_empty()),
    }
}

fn check_page(page: &Page, slow: &diff_reader::Read) {
    assert_eq!(page.chunks, slow.chunks);
    assert_eq!(usize::try_from(page.ranges).ok(), Some(slow.ranges));
    assert_eq!(page.next.map(crate::block::Lba::get), slow.next);
    assert!(slow.doubtful || page.notes.is_empty(), "{:?}", page.notes);
    let controls = page.notes.iter().any(|note| note.chars().any(char::is_control));
    assert!(!controls, "a note that steers a terminal: {:?}", page.notes);
}
