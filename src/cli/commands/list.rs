//! `lbaudit list KIND`: what there is, in one line each.
//!
//! Not covered: what one of them means at length (`super::explain`); anything of a real array.

use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::device::GUARDS;
use crate::engine::PROFILES;
use crate::oracle::Kind;
use crate::report::events;
use crate::sim::hostile::ApiFault;
use crate::sim::{Bug, SimFault};
use crate::suite::SUITE;
use crate::sync::PipelineBug;
use clap::{Args, ValueEnum};
use serde::Serialize;

/// What to list.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// What to list.
    pub kind: What,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What can be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum What {
    /// The 20 fixed tests.
    Tests,
    /// The bugs that can be planted.
    Bugs,
    /// The operations of a scenario.
    Ops,
    /// The kinds of violation.
    Checks,
    /// The profiles of random checking.
    Profiles,
    /// The faults that `sim serve --fault` injects.
    Faults,
    /// The guards that a device passes before anything is written to it.
    Guards,
    /// The events of `--output jsonl` and `events.jsonl`, and their fields.
    Events,
}

/// A planted bug of either side, as `list bugs` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct BugRow {
    /// Its stable name.
    pub name: &'static str,
    /// `array` or `pipeline`.
    pub side: &'static str,
    /// The kinds it may be found as.
    pub kinds: &'static [&'static str],
    /// Steps of its witness before the observing one.
    pub witness_operations: u32,
    /// What it does.
    #[serde(skip)]
    pub mechanism: &'static str,
    /// What really shipped with it, where one thing is known.
    #[serde(skip)]
    pub modelled_on: Option<&'static str>,
    /// What shows it, in the notation of `bugs.md`.
    #[serde(skip)]
    pub witness: Option<&'static str>,
}

/// Both catalogues.
pub fn bugs() -> Vec<BugRow> {
    let array = Bug::ALL.iter().map(|bug| {
        let spec = bug.spec();
        BugRow {
            name: spec.name,
            side: "array",
            kinds: spec.kinds,
            witness_operations: spec.witness_len,
            mechanism: spec.mechanism,
            modelled_on: Some(spec.modelled_on),
            witness: Some(spec.witness),
        }
    });
    let pipeline = PipelineBug::ALL.iter().map(|bug| BugRow {
        name: bug.name(),
        side: "pipeline",
        kinds: bug.kinds(),
        witness_operations: bug.witness_len(),
        mechanism: bug.description(),
        modelled_on: None,
        witness: None,
    });
    array.chain(pipeline).collect()
}

/// The kinds of violation, the gravest first.
pub(super) const KINDS: [Kind; 9] = [
    Kind::Missed,
    Kind::Content,
    Kind::Disturbed,
    Kind::Refusal,
    Kind::Malformed,
    Kind::Leaked,
    Kind::Nondeterministic,
    Kind::Liveness,
    Kind::Figure,
];

/// The vocabulary of scenarios, as traces spell it: what each does, and why it is drawn.
pub(super) const OPS: [(&str, &str, &str); 20] = [
    ("write", "writes new stamped blocks", "the change that every tracker must see"),
    (
        "rewrite",
        "reads what is there and writes the very same bytes back",
        "an array may skip writes that change nothing, and may report them: neither may lose a change",
    ),
    (
        "zero",
        "writes zero bytes like any other data",
        "zeros are data; a tracker that takes them for a hole loses them",
    ),
    (
        "write_zeroes",
        "zeroes by the device's own command",
        "goes another way through target and tracker than data does",
    ),
    (
        "discard",
        "tells the device that nothing of value is there",
        "changes contents without a write: several shipped trackers were never told",
    ),
    (
        "flush",
        "makes acknowledged writes durable",
        "what is acknowledged and flushed has to outlive a kill",
    ),
    (
        "read",
        "reads and judges contents, live or of a snapshot",
        "a diff can be right and the contents wrong",
    ),
    (
        "take",
        "takes a snapshot",
        "the cut between two epochs, where changes get lost or counted twice",
    ),
    (
        "delete",
        "deletes a snapshot",
        "what a deleted snapshot tracked has to go to its neighbour, not away",
    ),
    (
        "wait",
        "waits until every snapshot has settled",
        "an answer about a snapshot that is still settling proves nothing",
    ),
    (
        "concurrent",
        "operations in flight together",
        "a cut with writes in flight may take each of them or not, but tracker and data must agree",
    ),
    (
        "rollback",
        "puts the volume back to a snapshot",
        "everything that went back has changed, although nobody wrote it",
    ),
    (
        "resize",
        "grows or, by force, shrinks the volume",
        "growth is new and zero; a shrunk tail must not come back",
    ),
    (
        "restart",
        "restarts the target: cleanly, or as after a kill",
        "trackers live in memory, and some forget",
    ),
    (
        "clone",
        "makes a new volume out of a snapshot",
        "a clone shares blocks with its origin; writes must reach one of them only",
    ),
    (
        "create_volume",
        "creates an empty volume",
        "a volume that was not there before has no changes of others",
    ),
    (
        "delete_volume",
        "deletes a volume; its snapshots stay",
        "snapshots outlive their volume, and their diffs must too",
    ),
    ("diff", "asks for a diff, page by page, and judges it", "the answer that all this is about"),
    (
        "sync",
        "copies a diff from the source to the target, and judges the copy",
        "an increment that is right on paper must also be copied right",
    ),
    (
        "sync_chain",
        "syncs every snapshot up to one, each on the one before",
        "small errors of increments add up, and show at the end",
    ),
];

/// A row of JSON output.
#[derive(Serialize)]
struct Line<'a, T> {
    event: &'a str,
    #[serde(flatten)]
    row: T,
}

#[derive(Serialize)]
struct TestRow {
    number: usize,
    name: &'static str,
    group: String,
    meaning: &'static str,
}

#[derive(Serialize)]
struct NamedRow<'a> {
    name: &'a str,
    meaning: &'a str,
}

/// A fault, as `list faults` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct FaultRow {
    /// Its name, as a SPEC begins.
    pub name: String,
    /// `api` or `data`.
    pub side: &'static str,
    /// What a run that meets it may come to.
    pub ends: &'static [&'static str],
    /// What it does.
    #[serde(skip)]
    pub about: &'static str,
}

/// The faults of both sides.
pub fn faults() -> Vec<FaultRow> {
    let api = ApiFault::ALL.iter().map(|fault| {
        let row = fault.row();
        FaultRow { name: row.name.to_owned(), side: "api", ends: row.ends, about: row.about }
    });
    let data = SimFault::ALL.iter().map(|fault| FaultRow {
        name: format!("data:{}", fault.name()),
        side: "data",
        ends: fault.ends(),
        about: fault.about(),
    });
    api.chain(data).collect()
}

/// Lists.
///
/// # Errors
/// None.
pub fn list(args: &ListArgs, context: &mut Context) -> Result<Exit, Failure> {
    match args.kind {
        What::Tests => {
            for (number, spec) in (1..).zip(&SUITE) {
                let group = format!("{:?}", spec.phase).to_lowercase();
                let row = TestRow { number, name: spec.name, group, meaning: spec.meaning };
                let text = format!("{number:>2}  {:<28}{:<12}{}", row.name, row.group, row.meaning);
                show(context, "test", row, &text);
            }
        }
        What::Bugs => {
            for bug in bugs() {
                let kinds = bug.kinds.join(", ");
                let text = format!("{:<31}{:<10}{kinds:<20} {}", bug.name, bug.side, bug.mechanism);
                show(context, "bug", bug, &text);
            }
        }
        What::Ops => {
            for (name, meaning, _) in OPS {
                show(context, "op", NamedRow { name, meaning }, &format!("{name:<15}{meaning}"));
            }
        }
        What::Checks => {
            for kind in KINDS {
                let row = NamedRow { name: kind.name(), meaning: kind.meaning() };
                let text = format!("{:<18}{}", row.name, row.meaning);
                show(context, "check", row, &text);
            }
        }
        What::Profiles => {
            for profile in PROFILES {
                let row = NamedRow { name: profile.name, meaning: profile.about };
                let text = format!("{:<18}{}", row.name, row.meaning);
                show(context, "profile", row, &text);
            }
        }
        What::Guards => {
            for guard in &GUARDS {
                let row = NamedRow { name: guard.name, meaning: guard.holds };
                let text = format!("{:<5}{}", row.name, row.meaning);
                show(context, "guard", row, &text);
            }
        }
        What::Faults => {
            for fault in faults() {
                let text = format!("{:<23}{}", fault.name, fault.about);
                show(context, "fault", fault, &text);
            }
        }
        What::Events => {
            for spec in events() {
                let text = format!("{:<23}{:<40}{}", spec.name, spec.of, spec.meaning);
                show(context, "event", spec, &text);
            }
        }
    }
    Ok(Exit::Passed)
}

fn show(context: &mut Context, event: &str, row: impl Serialize, text: &str) {
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line { event, row }),
        Form::Text => context.ui.print(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ui::Versioned;

    #[test]
    fn both_catalogues_are_listed_and_every_kind_is_one_of_ours() {
        let bugs = bugs();
        assert!(bugs.len() >= 24, "{} bugs", bugs.len());
        assert!(bugs.iter().any(|bug| bug.side == "pipeline"));
        let mut names: Vec<&str> = bugs.iter().map(|bug| bug.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), bugs.len(), "names are unique over both sides");
        for bug in &bugs {
            for kind in bug.kinds {
                assert!(KINDS.iter().any(|known| known.name() == *kind), "{}: {kind}", bug.name);
            }
        }
    }

    #[test]
    fn a_bug_line_is_what_scripts_rely_on() {
        let row = bugs().into_iter().find(|bug| bug.name == "discard-untracked").expect("planted");
        let line = serde_json::to_string(&Versioned { v: 1, event: &Line { event: "bug", row } })
            .expect("encodes");
        assert_eq!(
            line,
            r#"{"v":1,"event":"bug","name":"discard-untracked","side":"array","kinds":["missed"],"witness_operations":4}"#
        );
    }

    #[test]
    fn faults_of_both_sides_are_listed_and_end_as_something_we_know() {
        let faults = faults();
        assert!(faults.iter().any(|fault| fault.side == "data"));
        for fault in &faults {
            let known = |end: &&str| {
                ["pass", "unknown"].contains(end) || KINDS.iter().any(|kind| kind.name() == *end)
            };
            assert!(fault.ends.iter().all(known), "{}: {:?}", fault.name, fault.ends);
        }
    }

    #[test]
    fn every_operation_of_the_vocabulary_is_listed() {
        use crate::scenario::{Label, Op};
        let spelled = serde_json::to_value(Op::SyncChain { to: Label(1) }).expect("encodes");
        let name = spelled.as_object().and_then(|map| map.keys().next()).cloned();
        assert!(OPS.iter().any(|(op, _, _)| Some(*op) == name.as_deref()), "{name:?}");
    }
}
