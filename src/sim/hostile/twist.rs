//! What a fault makes of an honest answer: its JSON and its pages bent, one way for each kind.
//!
//! Not covered: faults that need no honest answer, or change what is done (`super::script`).

use super::body::{Answer, Delivery, bomb};
use super::kinds::ApiFault;
use serde_json::{Map, Value, json};

/// LBAs of one range.
const CHUNK: u64 = 64;
/// 64-bit integers, which the API writes as strings.
const WIDE: [&str; 7] = [
    "size",
    "lbaStart",
    "lbaEnd",
    "nextOffsetLBA",
    "logicalUsedStorage",
    "physicalUsedStorage",
    "capacity",
];
/// 32-bit integers, which it writes as numbers.
const NARROW: [&str; 4] = ["replicaCount", "nsid", "sectorSize", "rebuildProgress"];

/// What a diff was asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// From where, rounded down to a chunk.
    pub(super) offset_lba: u64,
    /// Size of the snapshot.
    pub(super) len_lbas: u64,
    /// The page that a diff was answered with before.
    pub(super) previous: Option<Vec<u8>>,
}

/// The answer as `fault` leaves it; `None` if this one cannot meet it.
pub(super) fn twist(fault: ApiFault, honest: &Answer, asked: &Asked) -> Option<Answer> {
    let text = std::str::from_utf8(&honest.body).ok()?;
    if !text.starts_with('{') || text == "{}" {
        return None;
    }
    let with = |body: Vec<u8>| Some(answer_like(honest, body));
    let delivered = |delivery| {
        let (status, content_type) = (honest.status, honest.content_type);
        let body = honest.body.clone();
        Some(Answer { status, content_type, headers: Vec::new(), body, delivery })
    };
    match fault {
        ApiFault::Reset => return delivered(Delivery::Reset),
        ApiFault::CutShort => return delivered(Delivery::CutShort),
        ApiFault::Trickle => return delivered(Delivery::Trickle),
        ApiFault::Oversized => return delivered(Delivery::Oversized),
        ApiFault::Bomb => return with(bomb()).map(|a| a.with_header("content-encoding", "gzip")),
        ApiFault::NoContent => return with(Vec::new()).map(|a| Answer { status: 204, ..a }),
        ApiFault::EmptyBody => return with(Vec::new()),
        ApiFault::Truncated => return with(text.as_bytes()[..text.len() / 2].to_vec()),
        _ => {}
    }
    // The words of an error are nobody's contract: what follows bends answers only.
    if honest.status != 200 {
        return None;
    }
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    match fault {
        ApiFault::WrongType => {
            return with(honest.body.clone())
                .map(|a| Answer { content_type: "application/octet-stream", ..a });
        }
        ApiFault::Invalid => return with(text.replacen(':', ":bare", 1).into_bytes()),
        ApiFault::Trailing => return with(format!("{text}{{}}").into_bytes()),
        ApiFault::NotUtf8 => {
            let at = text.find(":\"")? + 2;
            let (before, after) = text.split_at(at);
            return with([before.as_bytes(), &[0xff, 0xfe], after.as_bytes()].concat());
        }
        ApiFault::Deep => {
            let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
            return with(format!("{{{inside},\"remark\":{open}{close}}}").into_bytes());
        }
        ApiFault::DuplicateKeys => return with(format!("{{{inside},{inside}}}").into_bytes()),
        // A first page follows none of its own walk.
        ApiFault::PageRepeated if asked.offset_lba == 0 => return None,
        ApiFault::PageRepeated => {
            return with(asked.previous.clone().filter(|previous| *previous != honest.body)?);
        }
        _ => {}
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    bend(fault, value.as_object_mut()?, asked)?;
    let body = match fault {
        // 2^64 is no number of serde_json's, but it is one of JSON's.
        ApiFault::TooBig => value.to_string().replace(TOO_BIG_MARK, TOO_BIG),
        _ => value.to_string(),
    };
    with(body.into_bytes())
}

const TOO_BIG: &str = "\"18446744073709551616\"";
const TOO_BIG_MARK: &str = "\"<2^64>\"";

fn answer_like(honest: &Answer, body: Vec<u8>) -> Answer {
    let (status, content_type) = (honest.status, honest.content_type);
    Answer { status, content_type, headers: Vec::new(), body, delivery: Delivery::Whole }
}

/// Changes the members of an answer; `None` if there is nothing to change.
fn bend(fault: ApiFault, body: &mut Map<String, Value>, asked: &Asked) -> Option<()> {
    match fault {
        ApiFault::Negative => spoil_number(body, json!("-1")),
        ApiFault::TooBig => spoil_number(body, json!("<2^64>")),
        ApiFault::Fraction => spoil_number(body, json!(64.5)),
        ApiFault::NumbersBare => each_member(body, &mut |key, value| {
            let number = value.as_str().filter(|_| WIDE.contains(&key))?.parse::<u64>().ok()?;
            Some(json!(number))
        }),
        ApiFault::NumbersQuoted => each_member(body, &mut |key, value| {
            let number = value.as_u64().filter(|_| NARROW.contains(&key))?;
            Some(json!(number.to_string()))
        }),
        ApiFault::ZerosAbsent => leave_zeros_out(body),
        _ => bend_page(fault, body, asked),
    }
}

/// Puts `bad` in the place of a size or an LBA.
fn spoil_number(body: &mut Map<String, Value>, bad: Value) -> Option<()> {
    let first = body.get_mut("lbaRanges").and_then(Value::as_array_mut).and_then(|r| r.first_mut());
    match first.and_then(Value::as_object_mut) {
        Some(range) => drop(range.insert("lbaStart".to_owned(), bad)),
        None => drop(body.insert("size".to_owned(), bad).filter(|old| old.is_string())?),
    }
    Some(())
}

/// Replaces every member, at any depth, that `change` has something for.
fn each_member(
    object: &mut Map<String, Value>,
    change: &mut dyn FnMut(&str, &Value) -> Option<Value>,
) -> Option<()> {
    let mut changed = None;
    for (key, value) in object.iter_mut() {
        if let Some(new) = change(key, value) {
            *value = new;
            changed = Some(());
        }
        let inner: Vec<&mut Map<String, Value>> = match value {
            Value::Object(inner) => vec![inner],
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).collect(),
            _ => Vec::new(),
        };
        for object in inner {
            changed = each_member(object, change).or(changed);
        }
    }
    changed
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "0",
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) | Value::Bool(true) => false,
    }
}

fn leave_zeros_out(object: &mut Map<String, Value>) -> Option<()> {
    let before = object.len();
    object.retain(|_, value| !is_zero(value));
    let mut changed = (object.len() < before).then_some(());
    for value in object.values_mut() {
        for item in value.as_array_mut().into_iter().flatten() {
            changed = item.as_object_mut().and_then(leave_zeros_out).or(changed);
        }
    }
    changed
}

/// A member of 64 bits as the API writes it, zero if absent.
fn wide(object: &Map<String, Value>, key: &str) -> u64 {
    object.get(key).and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Bends a page of a diff.
fn bend_page(fault: ApiFault, page: &mut Map<String, Value>, asked: &Asked) -> Option<()> {
    let next = wide(page, "nextOffsetLBA");
    let mut ranges: Vec<Value> = page.get("lbaRanges")?.as_array()?.clone();
    if fault == ApiFault::EndlessPages && ranges.is_empty() && next == 0 {
        let next = (asked.offset_lba + CHUNK).to_string();
        page.insert("nextOffsetLBA".to_owned(), json!(next));
        return Some(());
    }
    let start_of = |range: &Value| range.as_object().map_or(0, |range| wide(range, "lbaStart"));
    let (first, last) = (start_of(ranges.first()?), start_of(ranges.last()?));
    let mut go_on_at = |lba: u64| {
        page.insert("nextOffsetLBA".to_owned(), json!(lba.to_string()));
    };
    match fault {
        ApiFault::OffsetRepeated if asked.offset_lba > 0 => go_on_at(asked.offset_lba),
        ApiFault::OffsetCycle if asked.offset_lba > CHUNK => go_on_at(CHUNK),
        ApiFault::OffsetCycle => go_on_at(last + CHUNK),
        ApiFault::EndlessPages if next == 0 => go_on_at(last + CHUNK),
        ApiFault::EmptyPage if first > asked.offset_lba => {
            ranges.clear();
            go_on_at(first);
        }
        ApiFault::PageLost => ranges.clear(),
        ApiFault::Unsorted if ranges.len() > 1 => ranges.reverse(),
        ApiFault::Overlapping => ranges.insert(0, with_other_bits(ranges.first()?)?),
        ApiFault::Misaligned => {
            set(ranges.first_mut()?, "lbaStart", (first + 1).to_string())?;
        }
        ApiFault::PastEnd => {
            let mut outside = ranges.last()?.clone();
            let start = asked.len_lbas.next_multiple_of(CHUNK) + CHUNK;
            set(&mut outside, "lbaStart", start.to_string())?;
            set(&mut outside, "lbaEnd", (start + CHUNK - 1).to_string())?;
            ranges.push(outside);
        }
        ApiFault::NextRenamed if next > 0 => {
            let next = page.remove("nextOffsetLBA")?;
            page.insert("nextPageOffset".to_owned(), next);
        }
        ApiFault::BitmapShort => {
            set(ranges.first_mut()?, "dataBitMap", "/////////w==".to_owned())?;
        }
        _ => return None,
    }
    page.insert("lbaRanges".to_owned(), Value::Array(ranges));
    Some(())
}

fn set(range: &mut Value, key: &str, text: String) -> Option<()> {
    range.as_object_mut()?.insert(key.to_owned(), Value::String(text));
    Some(())
}

/// The same range with the bits of LBA 0 to 7 of its chunk turned over.
fn with_other_bits(range: &Value) -> Option<Value> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut other = range.clone();
    let bitmap = other.as_object()?.get("dataBitMap")?.as_str()?;
    let mut bytes = STANDARD.decode(bitmap).ok()?;
    *bytes.first_mut()? ^= 0xff;
    set(&mut other, "dataBitMap", STANDARD.encode(bytes))?;
    Some(other)
}

#[cfg(test)]
#[path = "twist_tests.rs"]
mod tests;
