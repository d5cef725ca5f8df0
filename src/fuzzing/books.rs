//! What this program wrote and reads again after anything may have happened to it: journals,
//! recordings, names. Not covered: that they are durable.

use crate::block::{RunId, SnapshotName, SnapshotUuid, VolumeUuid};
use crate::campaign::journal::{Records, parse};
use crate::campaign::store::run_of_folder;
use crate::engine::CaseName;
use crate::judge::{Record, RecordError, judge, read_records};
use std::fmt::Display;
use std::str::FromStr;

/// The bytes of a journal.
pub(super) fn journal(bytes: &[u8]) {
    let Ok(records) = parse(bytes) else {
        check_prefixes(bytes);
        return;
    };
    if records.torn {
        // Without its last line it is whole, and says the same.
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let whole = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        assert_eq!(untorn(parse(&bytes[..whole])), Some(untorn_of(&records)));
    } else {
        for end in ["{", "{\"crc32\":1,\"entry\"", "\u{0}\n", "\n"] {
            let torn = [bytes, end.as_bytes()].concat();
            let again = parse(&torn).expect("only the last line is torn");
            assert!(again.torn, "the end {end:?} went unseen");
            assert_eq!(untorn_of(&again), untorn_of(&records));
        }
    }
    for open in &records.open {
        assert!(records.named.contains_key(&(open.name, open.volume)), "{open:?} is not named");
    }
}

fn untorn_of(records: &Records) -> Records {
    Records { torn: false, ..records.clone() }
}

fn untorn(parsed: Result<Records, (usize, String)>) -> Option<Records> {
    parsed.ok().filter(|records| !records.torn)
}

/// A damaged line is named, and everything before it can still be read.
fn check_prefixes(bytes: &[u8]) {
    let Err((line, why)) = parse(bytes) else { return };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    assert!((1..=lines.len()).contains(&line), "line {line} of {}", lines.len());
    assert!(!why.is_empty());
    let before = lines[..line - 1].concat();
    assert!(parse(&before).is_ok_and(|records| !records.torn), "a line before {line} is damaged");
}

/// The lines of an `events.jsonl`.
pub(super) fn recording(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let records = match read_records(text) {
        Ok(records) => records,
        Err(RecordError::Line { line, .. } | RecordError::Version { line, .. }) => {
            assert!((1..=text.lines().count()).contains(&line), "line {line}");
            return;
        }
        Err(RecordError::Empty) => return,
    };
    let again: String = records.iter().map(line_of).collect();
    assert_eq!(read_records(&again).expect("records read back"), records);
    if let Ok(judgement) = judge(&records) {
        let began = records.iter().filter(|r| matches!(r, Record::Began { .. })).count();
        assert!(judgement.scenarios <= began.max(1), "{judgement:?}");
        let answered = records.iter().filter(|r| matches!(r, Record::Answered { .. })).count();
        assert!(judgement.diffs <= answered as u64, "{judgement:?}");
    }
}

fn line_of(record: &Record) -> String {
    let mut fields = serde_json::to_value(record).expect("records have a form");
    fields["v"] = crate::judge::RECORDING_VERSION.into();
    fields["event"] = "record".into();
    format!("{fields}\n")
}

/// A text as each kind of name; what is taken is spelled again as it came.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    spelled_again::<SnapshotName>(text);
    spelled_again::<RunId>(text);
    spelled_again::<CaseName>(text);
    if let Ok(uuid) = text.parse::<VolumeUuid>() {
        let spelled = uuid.to_string();
        assert_eq!(spelled.parse::<VolumeUuid>().ok(), Some(uuid));
        assert_eq!(text.parse::<SnapshotUuid>().map(|u| u.as_u128()).ok(), Some(uuid.as_u128()));
        let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
        assert!(digits(&text.to_lowercase()).ends_with(&digits(&spelled)), "{text} is not {uuid}");
    }
    if let Ok(name) = text.parse::<SnapshotName>() {
        let run = name.run().to_string();
        assert_eq!(text, format!("tsync-{run}-{}-{}", name.seq(), &text[text.len() - 1..]));
    }
    if let Some(run) = run_of_folder(text) {
        assert!(text.contains(&run.to_string()), "{text} is not a folder of {run}");
    }
}

fn spelled_again<T: FromStr + Display>(text: &str) {
    if let Ok(name) = text.parse::<T>() {
        assert_eq!(name.to_string(), text);
    }
}
