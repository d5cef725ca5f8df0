//! `lbaudit list KIND` and `lbaudit explain NAME`: what there is, and what it means.
//!
//! Not covered: anything of a real array; it prints what this program knows by itself.

use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::nearest_of;
use crate::engine::PROFILES;
use crate::oracle::Kind;
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
}

/// What to explain.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A test, a planted bug, a kind of violation, a profile or a fault.
    pub name: String,
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

const KINDS: [Kind; 9] = [
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

/// The vocabulary of scenarios, as traces spell it.
const OPS: [(&str, &str); 20] = [
    ("write", "writes new stamped blocks"),
    ("rewrite", "reads what is there and writes the very same bytes back"),
    ("zero", "writes zero bytes like any other data"),
    ("write_zeroes", "zeroes by the device's own command"),
    ("discard", "tells the device that nothing of value is there"),
    ("flush", "makes acknowledged writes durable"),
    ("read", "reads and judges contents, live or of a snapshot"),
    ("take", "takes a snapshot"),
    ("delete", "deletes a snapshot"),
    ("wait", "waits until every snapshot has settled"),
    ("concurrent", "operations in flight together"),
    ("rollback", "puts the volume back to a snapshot"),
    ("resize", "grows or, by force, shrinks the volume"),
    ("restart", "restarts the target: cleanly, or as after a kill"),
    ("clone", "makes a new volume out of a snapshot"),
    ("create_volume", "creates an empty volume"),
    ("delete_volume", "deletes a volume; its snapshots stay"),
    ("diff", "asks for a diff, page by page, and judges it"),
    ("sync", "copies a diff from the source to the target, and judges the copy"),
    ("sync_chain", "syncs every snapshot up to one, each on the one before"),
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
            for (name, meaning) in OPS {
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
        What::Faults => {
            for fault in faults() {
                let text = format!("{:<23}{}", fault.name, fault.about);
                show(context, "fault", fault, &text);
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

/// Explains one name.
///
/// # Errors
/// If nothing has that name.
pub fn explain(args: &ExplainArgs, context: &mut Context) -> Result<Exit, Failure> {
    let wanted = args.name.strip_prefix("test_").unwrap_or(&args.name);
    let lines = explanation(wanted).ok_or_else(|| {
        let tests = SUITE.iter().map(|spec| spec.name);
        let (bugs, faults) = (bugs(), faults());
        let names = tests
            .chain(bugs.iter().map(|bug| bug.name))
            .chain(faults.iter().map(|fault| fault.name.as_str()))
            .chain(KINDS.map(Kind::name))
            .chain(PROFILES.iter().map(|profile| profile.name));
        let near = nearest_of(wanted, names);
        let hint = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
        Failure::usage(format!(
            "nothing is called `{}`{hint}; see `lbaudit list tests|bugs|checks|profiles|faults`",
            args.name
        ))
    })?;
    for line in lines {
        context.ui.print(&line);
    }
    Ok(Exit::Passed)
}

fn explanation(name: &str) -> Option<Vec<String>> {
    let test = (1..).zip(&SUITE).find(|(_, spec)| spec.name == name).map(|(number, spec)| {
        let mut lines = vec![
            format!("test {number} of {}: {}", SUITE.len(), spec.name),
            spec.meaning.to_owned(),
        ];
        if !spec.footprint.is_empty() {
            let places: Vec<String> =
                spec.footprint.iter().take(4).map(ToString::to_string).collect();
            let more = spec.footprint.len().saturating_sub(places.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("writes {}{more}", places.join(", ")));
        }
        lines
    });
    let bug = || {
        bugs().into_iter().find(|bug| bug.name == name).map(|bug| {
            let mut lines = vec![
                format!("planted bug {} ({} side)", bug.name, bug.side),
                bug.mechanism.to_owned(),
                format!("found as {}", bug.kinds.join(", ")),
            ];
            lines.extend(bug.modelled_on.map(|on| format!("modelled on {on}")));
            lines.extend(bug.witness.map(|witness| format!("shown by {witness}")));
            lines.push(format!("try it: lbaudit check --plant {}", bug.name));
            lines
        })
    };
    let kind = || {
        KINDS.into_iter().find(|kind| kind.name() == name).map(|kind| {
            vec![format!("violation {}", kind.name()), format!("what it means: {}", kind.meaning())]
        })
    };
    let profile = || {
        PROFILES.iter().find(|profile| profile.name == name).map(|profile| {
            let (least, most) = profile.steps;
            vec![
                format!("profile {} of random checking", profile.name),
                profile.about.to_owned(),
                format!("{least} to {most} operations a case, then those that observe"),
                format!("try it: lbaudit check --profile {}", profile.name),
            ]
        })
    };
    let fault = || {
        faults().into_iter().find(|fault| fault.name == name).map(|fault| {
            vec![
                format!("fault {} ({} side)", fault.name, fault.side),
                fault.about.to_owned(),
                format!("a run that meets it comes to {}", fault.ends.join(" or ")),
                format!("try it: lbaudit sim serve --fault {}@2", fault.name),
            ]
        })
    };
    test.or_else(bug).or_else(kind).or_else(profile).or_else(fault)
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
    fn tests_bugs_and_kinds_are_explained() {
        for name in ["partial_chunk_bitmap", "chunk-for-lba", "missed", "bounds"] {
            let lines = explanation(name).expect("known");
            assert!(lines[0].contains(name) && lines.len() > 1, "{lines:?}");
        }
        assert_eq!(explanation("nonsense"), None);
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
            assert!(explanation(&fault.name).is_some_and(|lines| lines.len() == 4));
        }
    }

    #[test]
    fn every_operation_of_the_vocabulary_is_listed() {
        use crate::scenario::{Label, Op};
        let spelled = serde_json::to_value(Op::SyncChain { to: Label(1) }).expect("encodes");
        let name = spelled.as_object().and_then(|map| map.keys().next()).cloned();
        assert!(OPS.iter().any(|(op, _)| Some(*op) == name.as_deref()), "{name:?}");
    }
}
