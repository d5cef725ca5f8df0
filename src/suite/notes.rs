//! Notes: what happened in a test, in the original suite's words. Pure; which notes are shown is
//! the reporter's business. One MB is 1 MiB here, as everywhere in the original.
//!
//! Not covered: violations, which are data of their own.

use crate::block::{ByteLen, Extent, LBAS_PER_MIB, LbaCount, Role};
use crate::engine::Event;
use std::fmt::Write as _;
use std::time::Duration;

/// Characters of a digest that a note shows.
const DIGEST_SHOWN: usize = 16;

/// So many writes or checksums in a row are told one by one; more become one note.
const TOLD_SINGLY: usize = 3;

/// The note this event leaves in its test, if it is worth one.
pub fn note_of(event: &Event) -> Option<String> {
    Some(match event {
        Event::Wrote { role, what, at } => {
            let place = if *role == Role::Source { String::new() } else { format!(" on {role}") };
            format!("{what} {}{place}", size_at(*at))
        }
        Event::Diffed { ranges: 0, .. } => "diff returned 0 lbaRange(s)".to_owned(),
        Event::Diffed { base, ranges, pages, lbas, .. } => {
            let what = if base.is_none() { "full scan" } else { "diff" };
            let size = megabytes(*lbas);
            format!("{what}: {ranges} ranges / {pages} page(s) / {lbas} LBAs ({size} reported)")
        }
        Event::Refused { status, text, .. } => {
            let status = status.map(|status| format!("{status} ")).unwrap_or_default();
            format!("correctly refused: {status}{text}")
        }
        Event::Synced { ranges, lbas, .. } => {
            format!("synced {ranges} ranges / {}", megabytes(*lbas))
        }
        Event::Checksummed { source, target, .. } => {
            format!("src={} dst={}", short(source), short(target))
        }
        Event::Throughput { bytes, took } => {
            format!("in {} → {:.1} MB/s", seconds(*took), mib_per_s(*bytes, *took))
        }
        Event::Skipped { op, why } => format!("skipped {op}: {why}"),
        Event::Note { text } => text.clone(),
        Event::Step { .. }
        | Event::Taken { .. }
        | Event::Available { .. }
        | Event::Seen { .. }
        | Event::Deleted { .. }
        | Event::Page { .. }
        | Event::Violation { .. }
        | Event::Record(_) => return None,
    })
}

/// What `pagination_stress` says about the pages of its diff.
pub fn pagination_note(pages: u32) -> String {
    if pages > 1 {
        format!("pagination exercised: {pages} pages ✓")
    } else {
        "everything fit in one page: pagination was not exercised".to_owned()
    }
}

/// A duration as the original prints it: `3.2s`.
pub fn seconds(took: Duration) -> String {
    format!("{:.1}s", took.as_secs_f64())
}

/// MiB a second; infinite only if nothing took any time.
pub fn mib_per_s(bytes: ByteLen, took: Duration) -> f64 {
    bytes.as_mib() / took.as_secs_f64()
}

/// Collects the notes of one test in order. A hundred like events in a row become one note.
#[derive(Debug, Default)]
pub struct Notes {
    lines: Vec<String>,
    alike: Vec<Event>,
}

impl Notes {
    /// No notes yet.
    pub fn new() -> Notes {
        Notes::default()
    }
    /// Adds what `event` is worth.
    pub fn observe(&mut self, event: &Event) {
        // Steps stand between the writes of a row and say nothing themselves.
        if matches!(event, Event::Step { .. } | Event::Page { .. }) {
            return;
        }
        if self.alike.last().is_some_and(|last| !are_alike(last, event)) {
            self.flush();
        }
        if matches!(event, Event::Wrote { .. } | Event::Checksummed { .. }) {
            self.alike.push(event.clone());
        } else {
            self.lines.extend(note_of(event));
        }
    }
    /// Adds a note in the test's own words.
    pub fn say(&mut self, text: String) {
        self.flush();
        self.lines.push(text);
    }
    /// The notes, in order.
    pub fn into_lines(mut self) -> Vec<String> {
        self.flush();
        self.lines
    }
    fn flush(&mut self) {
        let alike = std::mem::take(&mut self.alike);
        if alike.len() > TOLD_SINGLY {
            self.lines.extend(together(&alike));
        } else {
            self.lines.extend(alike.iter().filter_map(note_of));
        }
    }
}

/// Whether two events may share a note: writes of one kind and length, or checksums that agree.
fn are_alike(a: &Event, b: &Event) -> bool {
    let agree = |event: &Event| match event {
        Event::Checksummed { source, target, .. } => source == target,
        _ => false,
    };
    match (a, b) {
        (Event::Wrote { role, what, at }, Event::Wrote { role: role2, what: what2, at: at2 }) => {
            (role, what, at.len_lbas()) == (role2, what2, at2.len_lbas())
        }
        _ => agree(a) && agree(b),
    }
}

/// One note for many events that are alike.
fn together(alike: &[Event]) -> Option<String> {
    match (alike.first()?, alike.last()?) {
        (Event::Wrote { what, at: first, .. }, Event::Wrote { at: last, .. }) => Some(format!(
            "{what} {} x {} from {} to {}",
            alike.len(),
            size(first.len_lbas()),
            place(first.start().get()),
            place(last.start().get()),
        )),
        (Event::Checksummed { source, .. }, _) => {
            Some(format!("{} checksums equal, the first src={}", alike.len(), short(source)))
        }
        _ => None,
    }
}

/// `50 MB at 0 MB`, or LBAs where MiB do not fit.
fn size_at(at: Extent) -> String {
    let mut text = size(at.len_lbas());
    // Writing to a String cannot fail.
    let _ = write!(text, " at {}", place(at.start().get()));
    text
}

fn size(lbas: LbaCount) -> String {
    if lbas.get().is_multiple_of(LBAS_PER_MIB) {
        format!("{} MB", lbas.get() / LBAS_PER_MIB)
    } else {
        format!("{lbas} LBAs")
    }
}

fn place(lba: u64) -> String {
    if lba.is_multiple_of(LBAS_PER_MIB) {
        format!("{} MB", lba / LBAS_PER_MIB)
    } else {
        format!("LBA {lba}")
    }
}

fn megabytes(lbas: LbaCount) -> String {
    format!("{:.1} MB", lbas.nominal_bytes().as_mib())
}

fn short(digest: &str) -> String {
    match digest.char_indices().nth(DIGEST_SHOWN) {
        Some((cut, _)) => format!("{}…", &digest[..cut]),
        None => digest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Label;

    fn wrote(at: Extent) -> Event {
        Event::Wrote { role: Role::Source, what: "wrote", at }
    }

    fn checksummed(source: &str, target: &str) -> Event {
        let (source, target) = (source.to_owned(), target.to_owned());
        Event::Checksummed { at: Extent::mib(0, 1), source, target }
    }

    #[test]
    fn notes_read_as_in_the_original() {
        let full = Event::Diffed {
            snap: Label(1),
            base: None,
            ranges: 47,
            pages: 2,
            lbas: LbaCount::new(12_800),
            must: None,
        };
        let empty = Event::Diffed {
            snap: Label(1),
            base: Some(Label(0)),
            ranges: 0,
            pages: 1,
            lbas: LbaCount::ZERO,
            must: None,
        };
        let synced = Event::Synced {
            ranges: 47,
            pages: 2,
            lbas: LbaCount::new(12_800),
            took: Duration::from_secs(1),
        };
        let refused = Event::Refused {
            snap: Label(1),
            base: Some(Label(0)),
            status: Some(404),
            text: "no such snapshot".to_owned(),
        };
        let speed = Event::Throughput {
            bytes: ByteLen::new(200 << 20),
            took: Duration::from_millis(18_300),
        };
        let digest = "3f8a2c1d7b4e9a02ffff";
        for (event, note) in [
            (empty, "diff returned 0 lbaRange(s)"),
            (wrote(Extent::mib(0, 50)), "wrote 50 MB at 0 MB"),
            (wrote(Extent::lbas(250_912, 256)), "wrote 1 MB at LBA 250912"),
            (full, "full scan: 47 ranges / 2 page(s) / 12800 LBAs (50.0 MB reported)"),
            (synced, "synced 47 ranges / 50.0 MB"),
            (checksummed(digest, digest), "src=3f8a2c1d7b4e9a02… dst=3f8a2c1d7b4e9a02…"),
            (refused, "correctly refused: 404 no such snapshot"),
            (speed, "in 18.3s → 10.9 MB/s"),
        ] {
            assert_eq!(note_of(&event).as_deref(), Some(note));
        }
        assert_eq!(note_of(&Event::Deleted { label: Label(0) }), None);
    }

    #[test]
    fn a_hundred_writes_become_one_note_and_three_stay_three() {
        let mut notes = Notes::new();
        for i in 0..100 {
            notes.observe(&wrote(Extent::mib(1000 + 3 * i, 1)));
        }
        for i in 0..3 {
            notes.observe(&wrote(Extent::mib(i, 2)));
        }
        let lines = notes.into_lines();
        assert_eq!(lines[0], "wrote 100 x 1 MB from 1000 MB to 1297 MB");
        assert_eq!(lines[1..], ["wrote 2 MB at 0 MB", "wrote 2 MB at 1 MB", "wrote 2 MB at 2 MB"]);
    }

    #[test]
    fn checksums_that_differ_are_never_folded_away() {
        let mut notes = Notes::new();
        for _ in 0..5 {
            notes.observe(&checksummed("aa", "aa"));
        }
        notes.observe(&checksummed("aa", "bb"));
        notes.say(pagination_note(4));
        let lines = notes.into_lines();
        assert_eq!(
            lines,
            [
                "5 checksums equal, the first src=aa",
                "src=aa dst=bb",
                "pagination exercised: 4 pages ✓"
            ]
        );
    }

    #[test]
    fn digests_are_cut_between_characters() {
        assert_eq!(short("ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ"), "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ…");
        assert_eq!(short("abc"), "abc");
    }
}
