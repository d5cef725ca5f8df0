//! What a campaign comes to, in one sentence and a few words: for pages, CI systems and summaries.
//!
//! Not covered: the last lines of the screen (`super::campaign`), exit codes (`crate::cli`).

use crate::campaign::run_record::{Found, RunRecord};
use crate::oracle::Kind;
use std::collections::BTreeMap;

/// The exit code of a run that did not do what it was asked (`cli.md`).
const COULD_NOT_TEST: u8 = 3;

/// How a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It ended by itself.
    Ended,
    /// A signal ended it, and it had time to answer.
    Interrupted,
    /// It was killed: what it knows is of its last checkpoint.
    Killed,
    /// It still goes on.
    GoesOn,
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// All was right.
    Good,
    /// Something is wrong.
    Bad,
    /// It could not be told.
    Unsure,
}

impl Standing {
    /// Of a run; `alive` tells whether it still holds its lock.
    pub fn of(exit_code: Option<u8>, alive: bool) -> Standing {
        match exit_code {
            Some(130 | 143) => Standing::Interrupted,
            Some(_) => Standing::Ended,
            None if alive => Standing::GoesOn,
            None => Standing::Killed,
        }
    }
    /// In a few words; nothing if there is nothing to say.
    pub const fn words(self) -> Option<&'static str> {
        match self {
            Standing::Ended => None,
            Standing::Interrupted => Some("interrupted before its end"),
            Standing::Killed => Some("killed: this is what its last checkpoint holds"),
            Standing::GoesOn => Some("still going on: this is what its last checkpoint holds"),
        }
    }
}

/// The verdict over a campaign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CampaignVerdict {
    /// What it comes to.
    pub colour: Colour,
    /// In one sentence.
    pub sentence: String,
}

/// A number and a noun, in the plural where it is one.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", grouped(count)),
    }
}

/// The same for screens and files, its digits together.
pub fn plainly(count: impl Into<u64>, one: &str, many: &str) -> String {
    let count = count.into();
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

/// The same for what is counted by its length.
pub fn so_many(count: usize, one: &str, many: &str) -> String {
    plainly(u64::try_from(count).unwrap_or(u64::MAX), one, many)
}

/// The findings of a run, the gravest first; of equal ones the one that was found first.
pub fn gravest_first(run: &RunRecord) -> Vec<&Found> {
    let mut findings: Vec<&Found> = run.findings.iter().collect();
    findings.sort_by_key(|found| (found.record.shown().kind, found.known.number));
    findings
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            // A thin space that no line breaks at.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The verdict over a run.
pub fn campaign_verdict(run: &RunRecord) -> CampaignVerdict {
    let totals = &run.checkpoint.so_far.totals;
    let cases = counted(totals.cases, "case", "cases");
    let diffs = counted(totals.diffs, "diff", "diffs");
    let (colour, sentence) = if totals.tool_bugs > 0 {
        let bugs = counted(totals.tool_bugs, "case shows a bug", "cases show bugs");
        (Colour::Unsure, format!("{bugs} of lbaudit itself: this run proves nothing."))
    } else if !run.findings.is_empty() {
        let count = counted(run.findings.len() as u64, "finding", "findings");
        (Colour::Bad, format!("{count} in {cases}: {}.", kinds(run)))
    } else if totals.failures > 0 || !run.unfinished.is_empty() {
        let seen = totals.failures.max(run.unfinished.len() as u64);
        let seen = counted(seen, "case has a violation", "cases have a violation");
        (Colour::Bad, format!("{seen} that was not looked into to the end."))
    } else if totals.unknown > 0 {
        let unknown = counted(totals.unknown, "case", "cases");
        (
            Colour::Unsure,
            format!("{unknown} could not be judged, beside {cases} that could: this is no pass."),
        )
    } else if totals.diffs == 0 {
        (Colour::Unsure, "Nothing was compared: this is no pass.".to_owned())
    } else if run.checkpoint.exit_code == Some(COULD_NOT_TEST) {
        let seen = format!("No violation in {cases}, {diffs} judged");
        (Colour::Unsure, format!("{seen}, but the run is not complete: this is no pass."))
    } else {
        (Colour::Good, format!("No violation in {cases}, {diffs} judged."))
    };
    CampaignVerdict { colour, sentence }
}

/// `2 missed (data loss), 1 leaked (extra copying, no data loss)`, the gravest first.
fn kinds(run: &RunRecord) -> String {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    run.findings
        .iter()
        .for_each(|found| *counts.entry(found.known.signature.kind).or_default() += 1);
    let words = counts.iter().map(|(kind, count)| format!("{count} {kind} ({})", kind.meaning()));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(counted(1, "case", "cases"), "1 case");
        assert_eq!(counted(0, "case", "cases"), "0 cases");
        assert_eq!(plainly(1u64, "case", "cases"), "1 case");
        assert_eq!(so_many(1_234, "case", "cases"), "1234 cases");
    }

    #[test]
    fn a_run_without_an_exit_code_was_killed_or_goes_on() {
        assert_eq!(Standing::of(None, false), Standing::Killed);
        assert_eq!(Standing::of(None, true), Standing::GoesOn);
        assert_eq!(Standing::of(Some(130), false), Standing::Interrupted);
        assert_eq!(Standing::of(Some(1), false).words(), None);
    }
}
