//! Texts of the server besides diff pages: objects, errors, tokens, dates.
//!
//! Where a twin reads the same JSON as a `serde_json::Value`, repeated keys are left to the decoder,
//! which refuses them. Not covered: the HTTP around them.

use crate::array::{SnapshotState, escape_text};
use crate::campaign::utc::{compact, parse_moment, parse_rfc3339};
use crate::lightbits::Token;
use crate::lightbits::auth::peek_claims;
use crate::lightbits::retry::{RETRY_AFTER_MAX, parse_retry_after};
use crate::lightbits::wire::{
    decode_done, decode_snapshot, decode_snapshots, decode_volume, decode_volumes, error_text,
    is_api_error, is_json_object,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

/// A 64-bit number in either of its forms (`lightbits-api.md` section 9, rule 7).
fn number(value: &Value) -> u64 {
    let text = value.as_str().map(str::to_owned);
    value.as_u64().or_else(|| text.and_then(|text| text.parse().ok())).unwrap_or(0)
}

fn text<'v>(object: &'v Value, name: &str) -> &'v str {
    object[name].as_str().unwrap_or_default()
}

/// A field under the name of the contract or in small letters.
fn uuid(object: &Value) -> String {
    object["UUID"].as_str().or_else(|| object["uuid"].as_str()).unwrap_or_default().to_lowercase()
}

/// The body of a reply as a volume, a snapshot and a list of either.
pub(super) fn api_objects(body: &[u8]) {
    let tree = serde_json::from_slice::<Value>(body).ok();
    if let (Ok(volume), Some(tree)) = (decode_volume(body), &tree) {
        assert_eq!(volume.uuid.to_string(), uuid(tree));
        assert_eq!(volume.name, text(tree, "name"));
        assert_eq!(volume.size_bytes, number(&tree["size"]));
        let sector = number(&tree["sectorSize"]);
        assert_eq!(u64::from(volume.sector_bytes), if sector == 0 { 4096 } else { sector });
        let usable = ["Available", "Updating", "Migrating"].contains(&text(tree, "state"));
        assert_eq!(volume.usable, usable);
        let writable = ["FullyProtected", "Degraded"].contains(&text(tree, "protectionState"));
        assert_eq!(volume.writable, writable);
        let sources = ["sourceSnapshotUUID", "sourceSnapshotName"];
        assert_eq!(volume.is_clone, sources.iter().any(|name| !text(tree, name).is_empty()));
    }
    if let (Ok(snapshot), Some(tree)) = (decode_snapshot(body), &tree) {
        assert_eq!(snapshot.uuid.to_string(), uuid(tree));
        assert_eq!(snapshot.volume.to_string(), text(tree, "sourceVolumeUUID").to_lowercase());
        let bytes = u128::from(snapshot.len.get()) * 4096;
        let size = u128::from(number(&tree["size"]));
        assert!((size..size + 4096).contains(&bytes), "{size} bytes are {} LBAs", snapshot.len);
        let ready = snapshot.state == SnapshotState::Available;
        assert_eq!(ready, text(tree, "state") == "Available");
    }
    if let (Ok(volumes), Some(tree)) = (decode_volumes(body), &tree) {
        assert_eq!(volumes.len(), tree["volumes"].as_array().map_or(0, Vec::len));
    }
    if let (Ok(snapshots), Some(tree)) = (decode_snapshots(body), &tree) {
        assert_eq!(snapshots.len(), tree["snapshots"].as_array().map_or(0, Vec::len));
    }
}

/// The body of an error.
pub(super) fn error_body(body: &[u8]) {
    const SHOWN_MAX: usize = 200;
    let words = error_text(body);
    let whole = String::from_utf8_lossy(body).trim().to_owned();
    // What is no JSON to the tree may be an error body to a reader that skips other fields.
    if let Ok(tree) = serde_json::from_slice::<Value>(body) {
        assert_eq!(is_json_object(body), tree.is_object());
        let fields = ["error", "message"].map(|name| tree[name].as_str());
        let own = words == whole || fields.contains(&Some(words.as_str()));
        assert!(own, "{words:?} is nobody's word");
    }
    if let (Ok(()), Ok(tree)) = (decode_done(body), serde_json::from_slice::<Value>(body)) {
        let says_so = |name| tree.get(name).is_some();
        assert!(!["error", "message", "code"].into_iter().any(says_so), "an error counts as done");
    }
    if is_api_error(body)
        && let Ok(tree) = serde_json::from_slice::<Value>(body)
    {
        assert!(tree["code"].as_u64().is_some_and(|code| code <= 16), "{tree} has no gRPC code");
    }
    assert_eq!(words.trim().is_empty(), whole.is_empty(), "words are lost or made up");
    let shown = escape_text(&words, SHOWN_MAX);
    assert!(!shown.chars().any(char::is_control), "{shown:?} steers a terminal");
    assert!(shown.chars().count() <= SHOWN_MAX + 3, "{shown:?} is too long");
    let harmless = words.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if harmless && words.len() <= SHOWN_MAX {
        assert_eq!(shown, words);
    }
}

/// A token, and the claims in it.
pub(super) fn jwt(bytes: &[u8]) {
    check_claims(bytes);
    let given = String::from_utf8_lossy(bytes);
    let Ok(token) = Token::from_text(&given) else { return };
    let secret = given.trim();
    assert!(secret.bytes().all(|byte| byte.is_ascii_graphic()), "{secret:?} cannot be a header");
    assert!(!format!("{token:?}").chars().any(char::is_control), "claims steer a terminal");
    let _ = token.check_expiry(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    // One that shares letters with the word that is put in its place cannot be told from it.
    if secret.len() < 8 || ["[to", "en]"].iter().any(|end| secret.contains(end)) {
        return;
    }
    let redactor = token.redactor();
    for text in [secret.to_owned(), format!("x{secret}{secret}y"), format!("a {secret}\n.")] {
        let clean = redactor.redact(&text);
        assert!(!redactor.is_in(&clean) && !clean.contains(secret), "{clean:?} keeps {secret:?}");
    }
}

fn check_claims(bytes: &[u8]) {
    let Some(claims) = peek_claims(bytes) else { return };
    let parts: Vec<&[u8]> = bytes.split(|&byte| byte == b'.').collect();
    assert_eq!(parts.len(), 3, "no JWT");
    let middle = String::from_utf8_lossy(parts[1]);
    let Ok(json) = URL_SAFE_NO_PAD.decode(middle.trim_end_matches('=')) else {
        panic!("{middle} is not base64url");
    };
    let Ok(tree) = serde_json::from_slice::<Value>(&json) else { return };
    // By position, a list of claims reads as well; nobody sends one.
    if tree.is_object() {
        assert_eq!(claims.sub.as_deref(), tree["sub"].as_str());
        if let Some(exp) = tree["exp"].as_u64() {
            assert_eq!(claims.exp, Some(exp));
        }
        assert_eq!(claims.exp.is_none(), tree["exp"].is_null());
    }
}

/// A Retry-After header; the bytes are also a moment, put as a date.
pub(super) fn http_date_retry_after(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let wait = parse_retry_after(&header, now);
    assert!(wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX), "{wait:?}");
    let digits = header.trim();
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        let seconds = digits.parse::<u128>().unwrap_or(u128::MAX).min(60);
        assert_eq!(wait.map(|wait| u128::from(wait.as_secs())), Some(seconds), "{digits}");
    } else {
        let later = parse_retry_after(&header, now + Duration::from_secs(10));
        assert_eq!(later.is_some(), wait.is_some());
        assert!(later <= wait, "later is a shorter wait for the same moment");
    }
    let mut moment = [0; 8];
    moment.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    // Dates are spelled with four digits of a year.
    let at = UNIX_EPOCH + Duration::from_secs(u64::from_le_bytes(moment) % 253_402_300_000);
    let date = httpdate::fmt_http_date(at);
    for early in [0, 1, 59, 60, 61, 100_000] {
        let now = at.checked_sub(Duration::from_secs(early)).expect("not that long ago");
        let wait = parse_retry_after(&date, now).expect("a date of its own form");
        assert_eq!(wait.as_secs(), early.min(60), "{date}");
    }
}

/// A moment as the API spells it.
pub(super) fn rfc3339(bytes: &[u8]) {
    let given = String::from_utf8_lossy(bytes);
    check_moment(&given);
    let Some(moment) = parse_rfc3339(&given) else { return };
    let (whole, _) = given.split_once('.').unwrap_or((given.trim_end_matches('Z'), ""));
    let mut numbers = whole.split(['-', 'T', ':']).map(|part| part.parse::<u64>().ok());
    let mut field = || numbers.next().flatten().expect("six numbers");
    let fields = [field(), field(), field(), field(), field(), field()];
    if fields[5] == 60 {
        return; // A leap second has no spelling of its own.
    }
    let [year, month, day, hour, minute, second] = fields;
    let spelled = format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z");
    assert_eq!(compact(moment), spelled, "{given}");
}

/// The same moment however it is spelt: to the second as without a fraction, and the same an offset
/// away.
fn check_moment(given: &str) {
    let Some(moment) = parse_moment(given) else { return };
    let zone = given.trim_end_matches('Z').len().min(given.len());
    match given.strip_suffix('Z') {
        Some(local) if !local.contains('.') => {
            assert_eq!(parse_rfc3339(given), Some(moment), "{given}");
            let east = format!("{}+00:00", &given[..zone]);
            assert_eq!(parse_moment(&east), Some(moment), "{east}");
        }
        Some(local) => {
            let whole = local.split_once('.').map_or(local, |(whole, _)| whole);
            let start = parse_moment(&format!("{whole}Z")).expect("without a fraction too");
            let fraction = moment.duration_since(start).expect("it is later");
            assert!(fraction < Duration::from_secs(1), "{given}");
        }
        None => assert!(given.contains(['+', '-']), "{given} has no zone"),
    }
}
