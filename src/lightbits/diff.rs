//! One page of a diff answer: JSON to [`Page`] (`lightbits-api.md` sections 3 and 9).
//!
//! Whatever could lose a change in silence is refused: a continuation field under another name, a
//! full page without continuation, ranges under another name, a bitmap whose width does not fit its
//! range, a range end that fits neither reading. Not covered: whether pages follow each other
//! properly and whether ranges lie inside the volume; `crate::sync` and the oracle judge that, so a
//! page that is legible but wrong comes out as sent.

use super::wire::{Object, U64, Wrong, decimal, decode};
use crate::array::escape_text;
use crate::block::{BitmapOrder, CHUNK_LBAS, ChunkBitmap, ChunkBits, Lba, LbaCount, Page};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Ranges of a page at most (section 3); as many without a continuation are not believed to be all.
pub const FULL_PAGE_RANGES: usize = 10_000;
/// Ranges, and chunks they spread over, that this client takes on one page: bounds its memory.
const PAGE_MAX: usize = 1 << 20;
/// Bytes of a bitmap of one chunk.
const CHUNK_BYTES: usize = 8;

/// Reads one page. `len` is the size of the snapshot, if known: without it no range may end early.
///
/// Total: any bytes may come in.
///
/// # Errors
/// What cannot be read or must not be believed, in words; foreign parts are not escaped.
pub fn decode_diff_page(
    body: &[u8],
    order: BitmapOrder,
    len: Option<LbaCount>,
) -> Result<Page, String> {
    let wire: PageWire = decode(body)?;
    let next = wire.next.filter(|&next| next != 0).map(Lba::new);
    if wire.ranges.len() >= FULL_PAGE_RANGES && next.is_none() {
        return Err(format!(
            "a page of {} ranges without continuation: the walk would end there and lose the rest",
            wire.ranges.len()
        ));
    }
    let ranges = u32::try_from(wire.ranges.len()).map_err(|_| "too many ranges".to_owned())?;
    let mut chunks = Vec::with_capacity(wire.ranges.len());
    for (index, range) in wire.ranges.into_iter().enumerate() {
        push_range(&mut chunks, range, order, len)
            .map_err(|wrong| format!("range {index}: {wrong}"))?;
    }
    Ok(Page { chunks, ranges, next, notes: wire.notes })
}

/// A page as sent.
#[derive(Default)]
struct PageWire {
    next: Option<u64>,
    ranges: Vec<RangeWire>,
    notes: Vec<String>,
}

/// The keys of a page. The unknown ones matter: one of them may be the continuation.
#[derive(serde::Deserialize, Clone, Debug)]
#[serde(field_identifier)]
enum PageKey {
    #[serde(rename = "nextOffsetLBA", alias = "nextLBAOffset", alias = "nextOffsetLba")]
    Next,
    #[serde(rename = "lbaRanges")]
    Ranges,
    Unknown(String),
}

/// A range as sent.
struct RangeWire {
    start: u64,
    end: Option<u64>,
    bits: BitmapWire,
}

/// The keys of a range.
#[derive(serde::Deserialize, Clone, Debug)]
#[serde(field_identifier)]
enum RangeKey {
    #[serde(rename = "lbaStart", alias = "startLBA")]
    Start,
    #[serde(rename = "lbaEnd", alias = "endLBA")]
    End,
    #[serde(rename = "dataBitMap")]
    Bitmap,
    Unknown(String),
}

/// A bitmap as sent (section 9, rules 1, 3 and 4).
#[derive(PartialEq, Eq, Debug, Default)]
enum BitmapWire {
    /// None, null or empty.
    #[default]
    Missing,
    /// A number: bit 0 is its least significant one whatever the byte order.
    Value(u64),
    /// The bytes of one chunk.
    Chunk([u8; CHUNK_BYTES]),
    /// Any other number of bytes.
    Bytes(Vec<u8>),
}

/// Whether a key that is not known may well be one of those that matter, spelt differently.
fn looks_vital(key: &str, words: &[&str]) -> bool {
    let key = key.to_lowercase();
    words.iter().any(|word| key.contains(word))
}

impl<'de> Deserialize<'de> for PageWire {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<PageWire, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = PageWire;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page of a diff")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PageWire, A::Error> {
                read_page(map)
            }
        }
        de.deserialize_map(Form)
    }
}

fn read_page<'de, A: MapAccess<'de>>(mut map: A) -> Result<PageWire, A::Error> {
    const VITAL: [&str; 20] = [
        "next", "range", "lba", "offset", "cursor", "token", "more", "continu", "marker", "trunc",
        "partial", "complete", "last", "final", "done", "end", "page", "result", "total", "count",
    ];
    const OF_ERRORS: [&str; 7] = ["error", "message", "code", "success", "status", "fail", "warn"];
    let mut next: Option<Option<U64>> = None;
    let mut ranges: Option<Option<Ranges>> = None;
    let mut unknown: Vec<String> = Vec::new();
    while let Some(key) = map.next_key()? {
        match key {
            PageKey::Next if next.is_none() => next = Some(map.next_value()?),
            PageKey::Ranges if ranges.is_none() => ranges = Some(map.next_value()?),
            PageKey::Next => return Err(A::Error::duplicate_field("nextOffsetLBA")),
            PageKey::Ranges => return Err(A::Error::duplicate_field("lbaRanges")),
            PageKey::Unknown(key) if looks_vital(&key, &VITAL) => {
                return Err(A::Error::custom(format_args!(
                    "unknown field `{key}`: it may say where to go on, and skipping it could lose \
                     changes"
                )));
            }
            PageKey::Unknown(key) if looks_vital(&key, &OF_ERRORS) => {
                return Err(A::Error::custom(format_args!(
                    "field `{key}`: an error, or a page that is not whole, came with a success status"
                )));
            }
            PageKey::Unknown(key) if unknown.contains(&key) || unknown.len() >= 16 => {
                return Err(A::Error::custom("unknown fields repeated or too many"));
            }
            PageKey::Unknown(key) => {
                map.next_value::<IgnoredAny>()?;
                unknown.push(key);
            }
        }
    }
    if let (None, None, Some(key)) = (&next, &ranges, unknown.first()) {
        return Err(A::Error::custom(format_args!("field `{key}` alone is not a page of a diff")));
    }
    let note = |key: &String| format!("unknown field `{}` in the page", escape_text(key, 60));
    Ok(PageWire {
        next: next.flatten().map(|next| next.0),
        ranges: ranges.flatten().unwrap_or_default().0,
        notes: unknown.iter().map(note).collect(),
    })
}

/// The ranges of a page, at most [`PAGE_MAX`].
#[derive(Default)]
struct Ranges(Vec<RangeWire>);

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Ranges, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Ranges;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ranges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ranges, A::Error> {
                let mut ranges = Vec::new();
                while let Some(Object(range)) = seq.next_element()? {
                    if ranges.len() >= PAGE_MAX {
                        return Err(A::Error::custom(format_args!("more than {PAGE_MAX} ranges")));
                    }
                    ranges.push(range);
                }
                Ok(Ranges(ranges))
            }
        }
        de.deserialize_seq(Form)
    }
}

impl<'de> Deserialize<'de> for RangeWire {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<RangeWire, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = RangeWire;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a range")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RangeWire, A::Error> {
                read_range(map)
            }
        }
        de.deserialize_map(Form)
    }
}

fn read_range<'de, A: MapAccess<'de>>(mut map: A) -> Result<RangeWire, A::Error> {
    const VITAL: [&str; 8] = ["lba", "start", "end", "bit", "offset", "length", "count", "data"];
    let mut start: Option<Option<U64>> = None;
    let mut end: Option<Option<U64>> = None;
    let mut bits: Option<Option<BitmapWire>> = None;
    let mut unknown: Option<String> = None;
    while let Some(key) = map.next_key()? {
        match key {
            RangeKey::Start if start.is_none() => start = Some(map.next_value()?),
            RangeKey::End if end.is_none() => end = Some(map.next_value()?),
            RangeKey::Bitmap if bits.is_none() => bits = Some(map.next_value()?),
            RangeKey::Start => return Err(A::Error::duplicate_field("lbaStart")),
            RangeKey::End => return Err(A::Error::duplicate_field("lbaEnd")),
            RangeKey::Bitmap => return Err(A::Error::duplicate_field("dataBitMap")),
            // Skipping it would read the field it stands for as zero.
            RangeKey::Unknown(key) if looks_vital(&key, &VITAL) => {
                return Err(A::Error::custom(format_args!("unknown field `{key}` in a range")));
            }
            RangeKey::Unknown(key) => {
                map.next_value::<IgnoredAny>()?;
                unknown.get_or_insert(key);
            }
        }
    }
    // A field that is not there is zero; one under another name would be read as zero too.
    if let Some(key) = unknown.filter(|_| start.is_none() || end.is_none() || bits.is_none()) {
        return Err(A::Error::custom(format_args!(
            "unknown field `{key}` in a range that lacks one that is known"
        )));
    }
    Ok(RangeWire {
        start: start.flatten().unwrap_or_default().0,
        end: end.flatten().map(|end| end.0),
        bits: bits.flatten().unwrap_or_default(),
    })
}

impl<'de> Deserialize<'de> for BitmapWire {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<BitmapWire, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = BitmapWire;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a bitmap: base64, 0x hex, an unsigned integer or 8 bytes")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<BitmapWire, E> {
                Ok(BitmapWire::Value(value))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<BitmapWire, E> {
                bitmap_of_text(text)
                    .ok_or_else(|| E::custom(format_args!("`{text}` is no form of a bitmap")))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BitmapWire, A::Error> {
                let mut bytes = [0; CHUNK_BYTES];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = seq
                        .next_element()?
                        .ok_or_else(|| A::Error::invalid_length(index, &"8 bytes"))?;
                }
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::invalid_length(CHUNK_BYTES + 1, &"8 bytes"));
                }
                Ok(BitmapWire::Chunk(bytes))
            }
        }
        de.deserialize_any(Form)
    }
}

/// Rule 1 of section 9, in its order; the forms of an 8-byte value cannot be mistaken for each
/// other.
fn bitmap_of_text(text: &str) -> Option<BitmapWire> {
    if text.is_empty() {
        return Some(BitmapWire::Missing);
    }
    if text.len() == 12 && text.ends_with('=') {
        let mut bytes = [0; CHUNK_BYTES + 1];
        let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
        let chunk = bytes.first_chunk().filter(|_| len == CHUNK_BYTES)?;
        return Some(BitmapWire::Chunk(*chunk));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        // The digits are checked first because parsing would also take a sign.
        let plain = hex.len() <= 16 && hex.bytes().all(|c| c.is_ascii_hexdigit());
        let value = plain.then(|| u64::from_str_radix(hex, 16).ok()).flatten()?;
        return Some(BitmapWire::Value(value));
    }
    if text.bytes().all(|c| c.is_ascii_digit()) {
        return decimal(text).map(BitmapWire::Value);
    }
    STANDARD.decode(text).ok().map(BitmapWire::Bytes)
}

/// Appends the chunks of one range.
fn push_range(
    chunks: &mut Vec<ChunkBits>,
    range: RangeWire,
    order: BitmapOrder,
    len: Option<LbaCount>,
) -> Result<(), Wrong> {
    let RangeWire { start, end, bits } = range;
    match bits {
        BitmapWire::Value(value) => {
            check_end(start, end, CHUNK_LBAS, len)?;
            push(chunks, start, ChunkBitmap::from_bits(value))
        }
        BitmapWire::Chunk(bytes) => {
            check_end(start, end, CHUNK_LBAS, len)?;
            push(chunks, start, ChunkBitmap::from_wire(bytes, order))
        }
        BitmapWire::Bytes(bytes) => push_wide(chunks, start, end, &bytes, order),
        BitmapWire::Missing => push_whole(chunks, start, end, len),
    }
}

fn push(chunks: &mut Vec<ChunkBits>, start: u64, bits: ChunkBitmap) -> Result<(), Wrong> {
    if chunks.len() >= PAGE_MAX {
        return Err(format!("the page spreads over more than {PAGE_MAX} chunks"));
    }
    chunks.push(ChunkBits { start: Lba::new(start), bits });
    Ok(())
}

/// Rule 5: the end of `width` LBAs from `start` may be inclusive, exclusive, or cut at the end of
/// the volume in either reading.
fn check_end(start: u64, end: Option<u64>, width: u64, len: Option<LbaCount>) -> Result<(), Wrong> {
    let Some(end) = end else {
        return Ok(());
    };
    let full = |past: u64| start.checked_add(past) == Some(end);
    let cut = end >= start && end - start < width && ends_volume(end, len);
    if full(width - 1) || full(width) || cut {
        return Ok(());
    }
    Err(format!(
        "lbaEnd {end} fits no reading of {width} LBAs from lbaStart {start}{}",
        match len {
            Some(len) => format!(" in a snapshot of {len} LBAs"),
            None => String::new(),
        }
    ))
}

/// Whether `end` is the last LBA of the volume, or the one after it.
fn ends_volume(end: u64, len: Option<LbaCount>) -> bool {
    len.is_some_and(|len| end == len.get() || end.checked_add(1) == Some(len.get()))
}

/// Rule 3: a bitmap of another width, only if the range is as wide. Its bytes are taken in order of
/// rising LBAs; what big-endian would mean beyond one chunk nobody knows, so it is refused.
fn push_wide(
    chunks: &mut Vec<ChunkBits>,
    start: u64,
    end: Option<u64>,
    bytes: &[u8],
    order: BitmapOrder,
) -> Result<(), Wrong> {
    let bits = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_mul(8);
    let wide = end.and_then(|end| end.checked_sub(start));
    if bits <= CHUNK_LBAS || !wide.is_some_and(|wide| wide == bits || wide + 1 == bits) {
        return Err(format!(
            "a bitmap of {bits} bits does not fit lbaStart {start} and lbaEnd {}",
            end.map_or("absent".to_owned(), |end| end.to_string())
        ));
    }
    if order == BitmapOrder::Big {
        return Err(format!("a bitmap of {bits} bits has no certain meaning in big-endian order"));
    }
    for (index, part) in (0u64..).zip(bytes.chunks(CHUNK_BYTES)) {
        let mut chunk = [0; CHUNK_BYTES];
        chunk.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        let at = start.checked_add(index * CHUNK_LBAS).ok_or("LBAs past 2^64")?;
        push(chunks, at, ChunkBitmap::from_wire(chunk, BitmapOrder::Little))?;
    }
    Ok(())
}

/// Rule 4: without a bitmap the whole range has changed, if its end is certain: at the end of the
/// volume, or whole chunks wide in just one of the two readings.
fn push_whole(
    chunks: &mut Vec<ChunkBits>,
    start: u64,
    end: Option<u64>,
    len: Option<LbaCount>,
) -> Result<(), Wrong> {
    let uncertain = || match end {
        Some(end) => format!("no bitmap, and lbaEnd {end} fits no reading from lbaStart {start}"),
        None => "neither a bitmap nor an lbaEnd".to_owned(),
    };
    let wide = end.and_then(|end| end.checked_sub(start)).ok_or_else(uncertain)?;
    let inside = |width: u64| {
        len.is_none_or(|len| start.checked_add(width).is_some_and(|end| end <= len.get()))
    };
    let cut = |width: u64| len.is_some_and(|len| start.checked_add(width) == Some(len.get()));
    let fits = |width: &u64| *width > 0 && (width.is_multiple_of(CHUNK_LBAS) || cut(*width));
    let inclusive = wide.checked_add(1).filter(fits);
    let exclusive = Some(wide).filter(fits);
    // Where both readings fit, the wider one loses nothing, as long as it ends in the volume.
    let width = inclusive
        .filter(|&width| inside(width) || exclusive.is_none())
        .or(exclusive)
        .ok_or_else(uncertain)?;
    let mut done = 0;
    while done < width {
        let part = (width - done).min(CHUNK_LBAS);
        let bits = ChunkBitmap::run(0, u32::try_from(part).unwrap_or(u32::MAX));
        push(chunks, start.checked_add(done).ok_or("LBAs past 2^64")?, bits)?;
        done += part;
    }
    Ok(())
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
