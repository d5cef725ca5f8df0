//! `lbaudit explore`: every short sequence of operations, on the simulator in process. Not covered:
//! the search itself (`crate::campaign::explore`).

use crate::campaign::explore::{ScopeReport, SmallScope, describe, out_of_alphabet};
use crate::campaign::selftest::Planted;
use crate::cli::Context;
use crate::cli::args::{ExploreArgs, Form};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::engine::explore::MAX_DEPTH;
use crate::oracle::Checks;
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Explored {
        planted: &'a [String],
        alphabet: &'a [String],
        #[serde(flatten)]
        report: &'a ScopeReport,
    },
    Bug {
        name: &'a str,
        /// Operations of the shortest sequence that shows it.
        length: Option<usize>,
        listed: u32,
        kind: Option<&'a str>,
        /// What its witness needs that the alphabet has not.
        needs: Option<&'a str>,
    },
    /// The last line of one search.
    ExploreFinished {
        states: u64,
        sequences: u64,
        depth: usize,
        complete: bool,
        violations: usize,
        exit_code: u8,
    },
    /// The last line of `--bugs`.
    ExploreBugsFinished { in_alphabet: usize, found: usize, exit_code: u8 },
}

/// Searches and prints.
///
/// # Errors
/// [`Failure`] for an unknown bug or a depth that cannot be searched, and when interrupted.
pub fn run(args: &ExploreArgs, context: &mut Context) -> Result<Exit, Failure> {
    if !(1..=MAX_DEPTH).contains(&args.depth) {
        return Err(Failure::usage(format!("--depth is 1 to {MAX_DEPTH}")));
    }
    for name in &args.plant {
        Planted::from_name(name).ok_or_else(|| super::unknown_bug(name))?;
    }
    if args.bugs { every_bug(args, context) } else { one_search(args, context) }
}

fn search(args: &ExploreArgs, planted: &[&str], context: &Context) -> ScopeReport {
    let (start, time) = (Instant::now(), args.time.0);
    let stop = context.stop.flag();
    let expired = || stop.load(Ordering::Relaxed) || start.elapsed() > time;
    let scope = SmallScope::new(planted, Checks::ALL);
    let limits = SmallScope::limits(args.depth, args.max_states, !planted.is_empty(), &expired);
    scope.report(&limits, &|| start.elapsed())
}

fn interrupted(context: &Context) -> Result<(), Failure> {
    match context.stop.flag().load(Ordering::Relaxed) {
        true => Err(Failure { exit: Exit::Interrupted, message: "interrupted".to_owned() }),
        false => Ok(()),
    }
}

fn one_search(args: &ExploreArgs, context: &mut Context) -> Result<Exit, Failure> {
    let planted: Vec<&str> = args.plant.iter().map(String::as_str).collect();
    let alphabet = describe();
    if context.ui.form == Form::Text {
        alphabet.iter().for_each(|line| context.ui.print(&format!("alphabet  {line}")));
    }
    let report = search(args, &planted, context);
    interrupted(context)?;
    let exit = if !report.findings.is_empty() {
        Exit::Violation
    } else if report.complete {
        Exit::Passed
    } else {
        Exit::CouldNotTest
    };
    match context.ui.form {
        Form::Jsonl => {
            let (planted, alphabet) = (&args.plant, &alphabet);
            context.ui.event(&Line::Explored { planted, alphabet, report: &report });
            context.ui.event(&Line::ExploreFinished {
                states: report.states,
                sequences: report.runs,
                depth: report.depth,
                complete: report.complete,
                violations: report.findings.len(),
                exit_code: exit.code(),
            });
        }
        Form::Text => show(args.depth, &report, context),
    }
    Ok(exit)
}

fn show(asked: usize, report: &ScopeReport, context: &mut Context) {
    let ScopeReport { states, runs, pruned, depth, complete, .. } = report;
    if let Some(finding) = report.findings.first() {
        let ops: Vec<String> = (1..)
            .zip(&finding.ops)
            .map(|(number, op): (u32, _)| format!("{number} {op}"))
            .collect();
        context.ui.print(&format!("VIOLATION {}", finding.violation));
        context.ui.print(&format!("  {}", ops.join("   ")));
    }
    context.ui.print(&format!("states    {states}, {runs} sequences run, {pruned} pruned"));
    let yes = if *complete { "yes" } else { "no" };
    context.ui.print(&format!("depth     {depth} of {asked}, complete {yes}"));
    if let Some(why) = &report.first_unjudged {
        context.ui.print(&format!("unjudged  {} sequences, the first: {why}", report.unjudged));
    }
    let seconds = report.took.as_secs_f64();
    context.ui.print(&format!("time      {seconds:.1} s"));
}

fn every_bug(args: &ExploreArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (mut found, mut inside, start) = (0, 0, Instant::now());
    for bug in Planted::array_side() {
        let report = search(args, &[bug.name()], context);
        interrupted(context)?;
        let needs = out_of_alphabet(bug.name());
        let first = report.findings.first();
        let kind = first.map(|finding| finding.violation.kind.name());
        let listed = kind.is_some_and(|kind| bug.kinds().contains(&kind));
        inside += usize::from(needs.is_none());
        found += usize::from(needs.is_none() && listed);
        let length = first.map(|finding| finding.ops.len());
        match context.ui.form {
            Form::Jsonl => context.ui.event(&Line::Bug {
                name: bug.name(),
                length,
                listed: bug.witness_len(),
                kind,
                needs,
            }),
            Form::Text => {
                let verdict = match (length, kind, needs) {
                    (Some(length), Some(kind), _) => {
                        let odd = if listed { "" } else { " (not a listed kind)" };
                        format!("{length} operations, {kind}{odd}")
                    }
                    (_, _, Some(needs)) => format!("not found: its witness needs {needs}"),
                    _ => format!("not found up to depth {}", report.depth),
                };
                let seconds = report.took.as_secs_f64();
                context.ui.print(&format!("{:<31}{verdict} ({seconds:.1} s)", bug.name()));
            }
        }
    }
    let exit = if found * 10 >= inside * 8 { Exit::Passed } else { Exit::Violation };
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::ExploreBugsFinished {
            in_alphabet: inside,
            found,
            exit_code: exit.code(),
        }),
        Form::Text => {
            let seconds = start.elapsed().as_secs_f64();
            context.ui.print(&format!(
                "{found}/{inside} array bugs whose witness lies in the alphabet found (at least 80 % demanded), {seconds:.0} s"
            ));
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        explore: ExploreArgs,
    }

    fn explore(flags: &[&str]) -> (Result<Exit, Failure>, String) {
        let line = ["explore"].into_iter().chain(flags.iter().copied());
        let args = Flags::try_parse_from(line).expect("flags").explore;
        let (ui, text) = Ui::captured(args.output.output);
        let done = run(&args, &mut Context { ui, stop: Stop::default() });
        (done, text.text())
    }

    #[test]
    fn an_honest_simulator_passes_and_the_space_is_stated() {
        let (done, text) = explore(&["--depth", "2"]);
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        for word in ["alphabet  write", "states    ", " pruned", "depth     2 of 2, complete yes"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn the_last_line_for_scripts_says_what_was_searched() {
        let (done, text) = explore(&["--depth", "1", "--output", "jsonl"]);
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        let last = text.lines().last().expect("a line");
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!((&last["v"], &last["event"]), (&1.into(), &"explore_finished".into()));
        assert_eq!((&last["depth"], &last["complete"]), (&1.into(), &true.into()));
        assert_eq!((&last["violations"], &last["exit_code"]), (&0.into(), &0.into()));
        assert!(last["states"].as_u64() > Some(1) && last["sequences"].as_u64() > Some(1));
    }

    #[test]
    fn a_planted_bug_fails_with_its_shortest_sequence() {
        let (done, text) = explore(&["--depth", "3", "--plant", "bit63-dropped"]);
        assert_eq!(done, Ok(Exit::Violation), "{text}");
        assert!(text.contains("VIOLATION missed"), "{text}");
        assert!(text.contains("1 write 63") && text.contains("2 take s0"), "{text}");
        assert!(text.contains("complete no"), "{text}");
    }

    #[test]
    fn a_search_that_is_cut_short_is_no_pass() {
        let (done, text) = explore(&["--depth", "3", "--max-states", "20"]);
        assert_eq!(done, Ok(Exit::CouldNotTest), "{text}");
        assert!(text.contains("complete no"), "{text}");
    }

    #[test]
    fn unknown_bugs_and_depths_are_usage_errors() {
        for flags in [["--plant", "bit64-dropped"], ["--depth", "99"], ["--depth", "0"]] {
            assert_eq!(explore(&flags).0.expect_err("refused").exit, Exit::Usage, "{flags:?}");
        }
    }
}
