//! `lbaudit explain NAME`: what a name that this program uses means, and why it matters.
//!
//! Not covered: anything of a real array; it prints what this program knows by itself.

use super::list::{KINDS, OPS, bugs, faults};
use crate::cli::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::nearest_of;
use crate::device::GUARDS;
use crate::engine::PROFILES;
use crate::oracle::Kind;
use crate::report::{EventSpec, events};
use crate::suite::SUITE;
use clap::Args;

/// What to explain.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Any name that `lbaudit list` prints: a test, a planted bug, a kind of violation, a guard, an
    /// operation, a profile, a fault or an event of --output jsonl.
    pub name: String,
}

/// Explains one name, in each of its meanings.
///
/// # Errors
/// If nothing has that name.
pub fn explain(args: &ExplainArgs, context: &mut Context) -> Result<Exit, Failure> {
    let wanted = args.name.strip_prefix("test_").unwrap_or(&args.name);
    let meanings = explanations(wanted);
    if meanings.is_empty() {
        let (bugs, faults) = (bugs(), faults());
        let names = SUITE.iter().map(|spec| spec.name);
        let names = names
            .chain(bugs.iter().map(|bug| bug.name))
            .chain(faults.iter().map(|fault| fault.name.as_str()))
            .chain(KINDS.map(Kind::name))
            .chain(GUARDS.iter().map(|guard| guard.name))
            .chain(OPS.iter().map(|(name, _, _)| *name))
            .chain(PROFILES.iter().map(|profile| profile.name))
            .chain(events().map(|spec| spec.name));
        let near = nearest_of(wanted, names);
        let hint = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
        return Err(Failure::usage(format!(
            "nothing is called `{}`{hint}; see `lbaudit list \
             tests|bugs|checks|guards|ops|profiles|faults|events`",
            args.name
        )));
    }
    for (number, lines) in (0..).zip(meanings) {
        if number > 0 {
            context.ui.print("");
        }
        lines.iter().for_each(|line| context.ui.print(line));
    }
    Ok(Exit::Passed)
}

/// What the name means, a block of lines for each kind of thing that is called so.
fn explanations(name: &str) -> Vec<Vec<String>> {
    let kinds = [of_test, of_bug, of_kind, of_guard, of_op, of_profile, of_fault];
    let events = events().filter(|spec| spec.name == name).map(EventSpec::lines);
    kinds.into_iter().filter_map(|explained| explained(name)).chain(events).collect()
}

fn of_test(name: &str) -> Option<Vec<String>> {
    let (number, spec) = (1..).zip(&SUITE).find(|(_, spec)| spec.name == name)?;
    let mut lines =
        vec![format!("test {number} of {}: {}", SUITE.len(), spec.name), spec.meaning.to_owned()];
    if !spec.footprint.is_empty() {
        let places: Vec<String> = spec.footprint.iter().take(4).map(ToString::to_string).collect();
        let more = spec.footprint.len().saturating_sub(places.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("writes {}{more}", places.join(", ")));
    }
    lines.push(format!("try it: lbaudit suite --test {}", spec.name));
    Some(lines)
}

fn of_bug(name: &str) -> Option<Vec<String>> {
    let bug = bugs().into_iter().find(|bug| bug.name == name)?;
    let mut lines = vec![
        format!("planted bug {} ({} side)", bug.name, bug.side),
        bug.mechanism.to_owned(),
        format!("found as {}", bug.kinds.join(", ")),
    ];
    lines.extend(bug.modelled_on.map(|on| format!("modelled on {on}")));
    lines.extend(bug.witness.map(|witness| format!("shown by {witness}")));
    lines.push(format!("try it: lbaudit check --plant {}", bug.name));
    Some(lines)
}

fn of_kind(name: &str) -> Option<Vec<String>> {
    let kind = KINDS.into_iter().find(|kind| kind.name() == name)?;
    let bugs = bugs();
    let examples = bugs.iter().filter(|bug| bug.kinds.contains(&kind.name())).map(|bug| bug.name);
    let examples: Vec<&str> = examples.take(3).collect();
    let mut lines = vec![
        format!("violation {}", kind.name()),
        at_length(kind).to_owned(),
        format!("what it means: {}", kind.meaning()),
    ];
    if let Some(first) = examples.first() {
        lines.push(format!("planted bugs that show as it: {}", examples.join(", ")));
        lines.push(format!("see one: lbaudit check --plant {first}"));
    }
    Some(lines)
}

/// What has happened when this kind is reported.
const fn at_length(kind: Kind) -> &'static str {
    match kind {
        Kind::Missed => {
            "an LBA changed and the diff does not report it: every backup made from it lacks the \
             change, and nobody notices before a restore"
        }
        Kind::Content => {
            "what was read or copied is not what was written: stale, zero, torn, or of another place"
        }
        Kind::Disturbed => "an operation or a copy changed LBAs that it had nothing to do with",
        Kind::Refusal => {
            "a question without an answer (a deleted base, another volume) got one, or one that has \
             an answer was refused"
        }
        Kind::Malformed => {
            "the answer breaks its own form: ranges doubled, out of order or outside of the volume, \
             pages that do not join"
        }
        Kind::Leaked => {
            "LBAs are reported that nothing changed; how many may be is --policy, and what is too \
             much costs time, not data"
        }
        Kind::Nondeterministic => {
            "the same question got different answers although nothing was written between them"
        }
        Kind::Liveness => {
            "a snapshot did not become Available, or a deleted one did not go, in the time it had"
        }
        Kind::Figure => "a speed, a time or a count is out of its bounds; no data is at stake",
    }
}

fn of_guard(name: &str) -> Option<Vec<String>> {
    let guard = GUARDS.iter().find(|guard| guard.name.eq_ignore_ascii_case(name))?;
    Some(vec![
        format!("guard {} of {}: nothing is written unless it holds", guard.name, GUARDS.len()),
        guard.holds.to_owned(),
        format!("why: {}", guard.why),
        format!("when it refuses: {}", guard.next),
    ])
}

fn of_op(name: &str) -> Option<Vec<String>> {
    let (name, meaning, why) = OPS.into_iter().find(|(op, _, _)| *op == name)?;
    Some(vec![
        format!("operation {name} of scenarios and traces"),
        meaning.to_owned(),
        format!("why: {why}"),
    ])
}

fn of_profile(name: &str) -> Option<Vec<String>> {
    let profile = PROFILES.iter().find(|profile| profile.name == name)?;
    let (least, most) = profile.steps;
    Some(vec![
        format!("profile {} of random checking", profile.name),
        profile.about.to_owned(),
        format!("{least} to {most} operations a case, then those that observe"),
        format!("try it: lbaudit check --profile {}", profile.name),
    ])
}

fn of_fault(name: &str) -> Option<Vec<String>> {
    let fault = faults().into_iter().find(|fault| fault.name == name)?;
    Some(vec![
        format!("fault {} ({} side)", fault.name, fault.side),
        fault.about.to_owned(),
        format!("a run that meets it comes to {}", fault.ends.join(" or ")),
        format!("try it: lbaudit sim serve --fault {}@2", fault.name),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::list::{ListArgs, What, list};
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use clap::{Parser, ValueEnum};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        list: ListArgs,
    }

    #[test]
    fn whatever_a_list_names_is_explained() {
        for kind in What::value_variants() {
            let word = kind.to_possible_value().expect("not hidden");
            let line = ["list", word.get_name(), "--output", "jsonl"];
            let args = Flags::try_parse_from(line).expect("flags").list;
            let (ui, text) = Ui::captured(args.output.output);
            let mut context = Context { ui, stop: Stop::default() };
            list(&args, &mut context).expect("lists");
            let text = text.text();
            assert!(text.lines().count() >= 5, "{kind:?}: {text}");
            for line in text.lines() {
                let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let name = row["name"].as_str().expect("a name");
                let meanings = explanations(name);
                assert!(!meanings.is_empty(), "{kind:?}: {name} is not explained");
                for lines in meanings {
                    assert!(lines.len() > 1 && lines[0].contains(name), "{lines:?}");
                    assert!(lines.iter().all(|line| !line.is_empty()), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn an_event_is_explained_for_each_command_that_prints_it_with_its_fields() {
        let meanings = explanations("run_finished");
        let heads: Vec<&str> = meanings.iter().map(|lines| lines[0].as_str()).collect();
        let of = ["check, soak", "runs merge", "suite", "replay FOLDER"];
        assert_eq!(heads, of.map(|of| format!("event run_finished of {of} (v 1)")));
        assert!(meanings.concat().iter().any(|line| line.starts_with("  digest  ")));
        assert!(explanations("replayed")[0].len() > 5);
    }

    #[test]
    fn a_guard_is_explained_in_either_case_and_nonsense_is_not() {
        assert_eq!(explanations("g7"), explanations("G7"));
        assert!(explanations("G16").is_empty() && explanations("nonsense").is_empty());
    }
}
