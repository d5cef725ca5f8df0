//! A slow, strict reader of diff pages, written from `lightbits-api.md` sections 3 and 9 over a
//! tree of JSON values. Shares nothing with the client's decoder but the JSON syntax.
//!
//! Not covered: fields that nobody knows. Whether one of them may be skipped is a matter of taste,
//! so a page with such a field may be read or refused; but if it is read, then as this reader does.

use crate::block::{BitmapOrder, ChunkBitmap, ChunkBits, Lba};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Most ranges of a page, and chunks they spread over, that the client takes.
const MOST: usize = 1 << 20;
/// As many ranges without a continuation are not believed to be all (section 3).
const FULL: usize = 10_000;

const NEXT: [&str; 3] = ["nextOffsetLBA", "nextLBAOffset", "nextOffsetLba"];
const RANGES: [&str; 1] = ["lbaRanges"];
const START: [&str; 2] = ["lbaStart", "startLBA"];
const END: [&str; 2] = ["lbaEnd", "endLBA"];
const BITMAP: [&str; 1] = ["dataBitMap"];

/// A JSON value; objects keep repeated keys, which `serde_json::Value` would hide.
enum Json {
    Null,
    U64(u64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    /// A boolean, a float, a negative number, or the value of a field that nobody knows.
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Json, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::U64(value))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let known = [&NEXT[..], &RANGES, &START, &END, &BITMAP].concat();
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = if known.contains(&key.as_str()) {
                        map.next_value()?
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        Json::Other
                    };
                    fields.push((key, value));
                }
                Ok(Json::Object(fields))
            }
        }
        de.deserialize_any(Any)
    }
}

/// What this reader makes of a page.
pub(super) struct Read {
    /// The chunks, in the order of the page.
    pub(super) chunks: Vec<ChunkBits>,
    /// Ranges on the wire.
    pub(super) ranges: usize,
    /// Where to go on.
    pub(super) next: Option<u64>,
    /// Whether there were fields that nobody knows.
    pub(super) doubtful: bool,
}

/// Reads a page; `None` if it must be refused.
pub(super) fn read(body: &[u8], order: BitmapOrder, len: Option<u64>) -> Option<Read> {
    let mut tree = serde_json::Deserializer::from_slice(body);
    let Json::Object(fields) = Json::deserialize(&mut tree).ok()? else { return None };
    tree.end().ok()?;
    let error = ["error", "errors", "message", "code"];
    if fields.iter().any(|(key, _)| error.contains(&key.as_str())) {
        return None;
    }
    let unfinished =
        ["next", "marker", "trunc", "partial", "complete", "last", "success", "status"];
    let mut doubtful = unknown(&fields, &[&NEXT, &RANGES], &unfinished)?;
    let (next, ranges) = (one(&fields, &NEXT)?, one(&fields, &RANGES)?);
    if doubtful && next.is_none() && ranges.is_none() {
        return None;
    }
    let next = number(next)?.filter(|&next| next != 0);
    let ranges: &[Json] = match ranges {
        None | Some(Json::Null) => &[],
        Some(Json::List(ranges)) => ranges,
        Some(_) => return None,
    };
    if ranges.len() > MOST || (ranges.len() >= FULL && next.is_none()) {
        return None;
    }
    let mut chunks = Vec::new();
    for range in ranges {
        let Json::Object(fields) = range else { return None };
        let strange = unknown(fields, &[&START, &END, &BITMAP], &["lba", "bit"])?;
        let whole = [&START[..], &END, &BITMAP]
            .iter()
            .all(|names| fields.iter().any(|(key, _)| names.contains(&key.as_str())));
        // The stranger may be the one that is not there.
        if strange && !whole {
            return None;
        }
        doubtful |= strange;
        let start = number(one(fields, &START)?)?.unwrap_or(0);
        let end = number(one(fields, &END)?)?;
        for (start, bits) in range_chunks(start, end, one(fields, &BITMAP)?, order, len)? {
            let start = Lba::new(u64::try_from(start).ok()?);
            chunks.push(ChunkBits { start, bits: ChunkBitmap::from_bits(bits) });
        }
        if chunks.len() > MOST {
            return None;
        }
    }
    Some(Read { chunks, ranges: ranges.len(), next, doubtful })
}

/// Whether there are unknown fields; `None` if one of them may be one that counts.
fn unknown(fields: &[(String, Json)], known: &[&[&str]], vital: &[&str]) -> Option<bool> {
    let known = known.concat();
    let mut strangers = fields.iter().filter(|(key, _)| !known.contains(&key.as_str())).peekable();
    let any = strangers.peek().is_some();
    let harmless = |key: &str| vital.iter().all(|word| !key.to_lowercase().contains(word));
    strangers.all(|(key, _)| harmless(key)).then_some(any)
}

/// The field under any of its names; `None` if it comes twice.
fn one<'j>(fields: &'j [(String, Json)], names: &[&str]) -> Option<Option<&'j Json>> {
    let mut found = fields.iter().filter(|(key, _)| names.contains(&key.as_str()));
    let first = found.next().map(|(_, value)| value);
    found.next().is_none().then_some(first)
}

/// Rules 6 and 7: absent and null are none; a number or a decimal string; nothing else.
fn number(field: Option<&Json>) -> Option<Option<u64>> {
    match field {
        None | Some(Json::Null) => Some(None),
        Some(Json::U64(value)) => Some(Some(*value)),
        Some(Json::Text(text)) => decimal(text).map(Some),
        Some(_) => None,
    }
}

fn decimal(text: &str) -> Option<u64> {
    let value = text.parse::<u64>().ok()?;
    // Printed again it must be the same: no sign, no leading zeros.
    (value.to_string() == text).then_some(value)
}

/// The eight bytes, or any other number of bytes, or a number, or nothing.
enum Bits {
    Missing,
    Value(u64),
    Bytes(Vec<u8>),
}

/// Rule 1.
fn bits_of(field: Option<&Json>) -> Option<Bits> {
    match field {
        None | Some(Json::Null) => Some(Bits::Missing),
        Some(Json::U64(value)) => Some(Bits::Value(*value)),
        Some(Json::List(list)) if list.len() == 8 => {
            let byte = |value: &Json| match value {
                Json::U64(value) => u8::try_from(*value).ok(),
                _ => None,
            };
            list.iter().map(byte).collect::<Option<_>>().map(Bits::Bytes)
        }
        Some(Json::Text(text)) if text.is_empty() => Some(Bits::Missing),
        Some(Json::Text(text)) => match text.strip_prefix("0x") {
            Some(hex) => hex_value(hex).map(Bits::Value),
            None if text.chars().all(|c| c.is_ascii_digit()) => decimal(text).map(Bits::Value),
            None => base64(text).map(Bits::Bytes),
        },
        Some(_) => None,
    }
}

fn hex_value(digits: &str) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.chars().try_fold(0u64, |value, c| Some(value * 16 + u64::from(c.to_digit(16)?)))
}

/// RFC 4648 section 4, padded, canonical.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let plain = text.trim_end_matches('=');
    let pads = text.len() - plain.len();
    if text.is_empty() || !text.len().is_multiple_of(4) || pads > 2 {
        return None;
    }
    let mut bits = Vec::new();
    for c in plain.bytes() {
        let value = ALPHABET.iter().position(|&known| known == c)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let whole = bits.len() / 8 * 8;
    if bits[whole..].iter().any(|&bit| bit) || bits.len() - whole != pads * 2 {
        return None;
    }
    let byte = |bits: &[bool]| bits.iter().fold(0u8, |byte, &bit| byte << 1 | u8::from(bit));
    Some(bits[..whole].chunks(8).map(byte).collect())
}

/// The chunks of a range, with starts that may lie past 2^64.
fn range_chunks(
    start: u64,
    end: Option<u64>,
    field: Option<&Json>,
    order: BitmapOrder,
    len: Option<u64>,
) -> Option<Vec<(u128, u64)>> {
    let first = u128::from(start);
    let (end, len) = (end.map(u128::from), len.map(u128::from));
    match bits_of(field)? {
        Bits::Missing => whole(first, end?, len),
        Bits::Value(bits) => chunk_end_fits(first, end, len).then(|| vec![(first, bits)]),
        Bits::Bytes(bytes) if bytes.len() == 8 => {
            let bits = lbas(&bytes, order).fold(0, |bits, lba| bits | 1 << lba);
            chunk_end_fits(first, end, len).then(|| vec![(first, bits)])
        }
        Bits::Bytes(bytes) => {
            // Rule 3: only if the range is as wide, and only in the order that has a meaning.
            let wide = bytes.len() as u128 * 8;
            let distance = end?.checked_sub(first)?;
            let fits = distance == wide || distance + 1 == wide;
            if wide <= 64 || !fits || order == BitmapOrder::Big {
                return None;
            }
            let mut chunks: Vec<(u128, u64)> =
                (0..wide.div_ceil(64)).map(|nth| (first + nth * 64, 0)).collect();
            for lba in lbas(&bytes, order) {
                chunks.get_mut(lba / 64)?.1 |= 1 << (lba % 64);
            }
            Some(chunks)
        }
    }
}

/// The LBAs that are set, from 0.
fn lbas(bytes: &[u8], order: BitmapOrder) -> impl Iterator<Item = usize> {
    (0..bytes.len() * 8).filter(move |lba| {
        let byte = match order {
            BitmapOrder::Little => lba / 8,
            BitmapOrder::Big => bytes.len() - 1 - lba / 8,
        };
        bytes[byte] >> (lba % 8) & 1 == 1
    })
}

/// Rule 5 for one chunk.
fn chunk_end_fits(start: u128, end: Option<u128>, len: Option<u128>) -> bool {
    let Some(end) = end else { return true };
    let clipped = len.is_some_and(|len| end == len || end + 1 == len);
    end == start + 63 || end == start + 64 || (clipped && (start..start + 64).contains(&end))
}

/// Rule 4: all of the range has changed. Both readings of the end are tried; where both are whole
/// chunks, or end with the volume, the wider one loses nothing.
fn whole(start: u128, end: u128, len: Option<u128>) -> Option<Vec<(u128, u64)>> {
    let distance = end.checked_sub(start)?;
    let fits = |width: u128| {
        width > 0 && (width.is_multiple_of(64) || len.is_some_and(|len| start + width == len))
    };
    let inside = len.is_none_or(|len| start + distance < len);
    let width = match (fits(distance + 1), fits(distance)) {
        (true, false) => distance + 1,
        (true, true) if inside => distance + 1,
        (_, true) => distance,
        (false, false) => return None,
    };
    // More is refused anyway, and would take for ever here.
    if width > MOST as u128 * 64 {
        return None;
    }
    let mut chunks = Vec::new();
    let mut done = 0;
    while done < width {
        let part = (width - done).min(64);
        let bits = (0..part).fold(0u64, |bits, lba| bits | 1 << lba);
        chunks.push((start + done, bits));
        done += part;
    }
    Some(chunks)
}
