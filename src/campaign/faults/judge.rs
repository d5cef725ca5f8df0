//! Whether what a run came to may come of the faults it met.
//!
//! Not covered: running it (`super::rig`).

use super::rig::{Compared, Ended, Ran};
use crate::oracle::{Kind, Reason, Verdict};
use crate::sim::hostile::FaultSpec;
use std::collections::BTreeSet;

/// What must never be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Bad {
    /// It panicked, or found itself in contradiction.
    Panic,
    /// It did not end within its deadline.
    Hang,
    /// It passed with less compared than without faults, or although data was damaged.
    FalsePass,
    /// It blamed the array for what the fault did.
    FalseViolation,
    /// It could not tell, although the fault leaves nothing in doubt.
    FalseDoubt,
    /// It left a snapshot that is in no list.
    Unlisted,
    /// Its message is empty or does not say which call it was.
    Unclear,
}

impl Bad {
    /// All of them, the columns of the grid.
    pub const ALL: [Bad; 7] = [
        Bad::Panic,
        Bad::Hang,
        Bad::FalsePass,
        Bad::FalseViolation,
        Bad::FalseDoubt,
        Bad::Unlisted,
        Bad::Unclear,
    ];
    /// The column's head.
    pub const fn name(self) -> &'static str {
        match self {
            Bad::Panic => "panic",
            Bad::Hang => "hang",
            Bad::FalsePass => "false pass",
            Bad::FalseViolation => "false violation",
            Bad::FalseDoubt => "false doubt",
            Bad::Unlisted => "unlisted",
            Bad::Unclear => "unclear",
        }
    }
}

/// What a run came to, in a word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// Everything compared, everything right.
    Pass,
    /// It could not be told.
    Unknown,
    /// The gravest kind of violation.
    Violation(Kind),
    /// Neither.
    Broken,
}

impl End {
    /// As in the table of faults.
    pub const fn name(self) -> &'static str {
        match self {
            End::Pass => "pass",
            End::Unknown => "unknown",
            End::Violation(kind) => kind.name(),
            End::Broken => "broken",
        }
    }
}

/// A run, judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What it came to.
    pub end: End,
    /// What of that must not be.
    pub bad: Vec<Bad>,
    /// Whether any fault happened at all.
    pub met: bool,
    /// What the run said, or what is bad about it.
    pub words: String,
}

/// Judges one run against an honest one's comparisons.
pub(super) fn judge(ran: &Ran, faults: &[FaultSpec], honest: &Compared) -> Judged {
    let broken = |bad, words: &str| {
        let words = words.to_owned();
        Judged { end: End::Broken, bad: vec![bad], met: true, words }
    };
    match ran {
        Ran::Panicked(words) => broken(Bad::Panic, words),
        Ran::Hung => broken(Bad::Hang, "it did not end within its deadline"),
        Ran::Ended(ended) => judge_ended(ended, faults, honest),
    }
}

/// What a run may come to that met these faults before its verdict; those that met none must pass.
fn allowed(ended: &Ended, faults: &[FaultSpec]) -> BTreeSet<&'static str> {
    let of_wire = ended.met.iter().map(|met| met.fault.row().ends);
    let happened = |spec: &&FaultSpec| {
        ended.met_data.iter().any(|(known, times)| known == *spec && *times > 0)
    };
    let of_data = faults.iter().filter(happened).filter_map(|spec| match spec {
        FaultSpec::Data { fault, .. } => Some(fault.ends()),
        FaultSpec::Api { .. } => None,
    });
    let mut ends: Vec<&[&'static str]> = of_wire.chain(of_data).collect();
    ends.dedup();
    if ends.is_empty() {
        ends.push(&["pass"]);
    }
    let mut all: BTreeSet<&'static str> =
        ends.iter().flat_map(|ends| ends.iter().copied()).collect();
    // Of several faults the first may keep the run from the call that the next would have spoiled,
    // but none makes up for another.
    if !ends.iter().all(|ends| ends.contains(&"pass")) {
        all.remove("pass");
    }
    all
}

fn judge_ended(ended: &Ended, faults: &[FaultSpec], honest: &Compared) -> Judged {
    let ends = allowed(ended, faults);
    let mut bad = Vec::new();
    let (end, words) = match &ended.verdict {
        Verdict::Pass => {
            if !ends.contains("pass") || ended.compared != *honest {
                bad.push(Bad::FalsePass);
            }
            (End::Pass, String::new())
        }
        Verdict::Unknown(reason) => {
            let words = reason.to_string();
            match reason {
                Reason::Tool(_) => bad.push(Bad::Panic),
                _ if !ends.contains("unknown") => bad.push(Bad::FalseDoubt),
                _ if !names_the_call(&words) => bad.push(Bad::Unclear),
                _ => {}
            }
            (End::Unknown, words)
        }
        Verdict::Fail(violations) => {
            // The gravest names the finding; what follows from it is said beside it.
            let kind = violations.first().map_or(Kind::Figure, |found| found.kind);
            let wrongly = !ends.contains(kind.name());
            let words = ended.verdict.violation().map(ToString::to_string).unwrap_or_default();
            if wrongly {
                bad.push(Bad::FalseViolation);
            } else if words.is_empty() {
                bad.push(Bad::Unclear);
            }
            (End::Violation(kind), words)
        }
    };
    if !ended.unlisted.is_empty() {
        bad.push(Bad::Unlisted);
    }
    let at = ended.at.as_ref().map_or_else(String::new, |op| format!("{op}: "));
    let left = match ended.unlisted.join(", ") {
        names if names.is_empty() => names,
        names => format!("; on the array and in no list: {names}"),
    };
    Judged { end, bad, met: ended.met_in_all > 0, words: format!("{at}{words}{left}") }
}

/// Whether a message says what was being done: which call, which transfer, or which snapshot.
fn names_the_call(words: &str) -> bool {
    const NAMES: [&str; 9] = [
        "GET ",
        "POST ",
        "DELETE ",
        "read at byte",
        "write at byte",
        "flush at byte",
        "discard at byte",
        "write-zeroes at byte",
        "snapshot ",
    ];
    NAMES.iter().any(|name| words.contains(name))
}
