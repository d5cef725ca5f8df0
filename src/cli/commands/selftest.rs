//! `lbaudit selftest`: whether the alarm rings. Here: `--fixed`, the table of planted bugs and the
//! fixed tests that catch them.
//!
//! Not covered: the kill matrix (`super::matrix`), faults (`super::faults`), running the cases (`crate::campaign::selftest`).

use crate::campaign::oracle_table::{CheckRow, oracle_table};
use crate::campaign::selftest::{BugScore, Planted, empty_rows, score, table};
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::report::oracle_lines;
use crate::sim::SimError;
use crate::suite::SUITE;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// What to test.
#[derive(Args, Clone, Debug)]
pub struct SelftestArgs {
    /// Only the 20 fixed tests: which of them catch which bug.
    #[arg(long, conflicts_with_all = ["seeds", "json", "cases", "explore_full"])]
    pub fixed: bool,
    /// Only the checks of the oracle: which bugs each of them kills that no other does.
    #[arg(long, conflicts_with_all = ["fixed", "bug", "seeds", "json", "cases", "explore_full"])]
    pub oracle: bool,
    /// Only the faults: each at every call of one scenario, which must end rightly each time.
    #[arg(long, conflicts_with_all = ["fixed", "oracle", "bug", "seeds", "cases", "explore_full"])]
    pub faults: bool,
    /// With --faults: only this kind; repeatable.
    #[arg(long, value_name = "KIND", requires = "faults")]
    pub fault: Vec<String>,
    /// With --faults: some of the calls only, in less than a minute.
    #[arg(long, requires = "faults")]
    pub quick: bool,
    /// With --faults: this many random pairs of faults besides.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "faults")]
    pub pairs: u32,
    /// With --faults: what the pairs are drawn from.
    #[arg(long, value_name = "S", default_value_t = 1, requires = "faults")]
    pub pair_seed: u64,
    /// Only this bug; repeatable.
    #[arg(long, value_name = "NAME")]
    pub bug: Vec<String>,
    /// Seeds of random checking.
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Cases of one seed at most, for each bug; ten times as many on the honest target.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub cases: u64,
    /// Also write the matrix to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Search each bug exhaustively to the end of its scope, not for a second only.
    #[arg(long)]
    pub explore_full: bool,
    /// Where the table goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Bug {
        name: &'a str,
        side: &'a str,
        kinds: &'a [&'a str],
        found_kinds: Vec<&'a str>,
        found_by_fixed: &'a [&'a str],
        failed_otherwise: &'a [&'a str],
    },
    Test {
        number: usize,
        name: &'a str,
        catches: Vec<&'a str>,
    },
    SelftestFinished {
        bugs: usize,
        found: usize,
        empty_rows: usize,
        false_alarms: usize,
        exit_code: u8,
    },
}

/// Plants, runs, prints.
///
/// # Errors
/// [`Failure`] for an unknown bug, or if the simulator cannot be set up.
pub fn run(args: &SelftestArgs, context: &mut Context) -> Result<Exit, Failure> {
    match args {
        SelftestArgs { faults: true, .. } => super::faults::run(args, context),
        SelftestArgs { fixed: true, .. } => fixed(args, context),
        SelftestArgs { oracle: true, .. } => oracle(context),
        _ => super::matrix::run(args, context),
    }
}

/// One check of the oracle as scripts read it.
#[derive(Serialize)]
#[serde(tag = "event", rename = "check")]
struct CheckLine<'a> {
    name: &'a str,
    alone_kills: &'a [&'a str],
    alone_of_laws_kills: Option<&'a [&'a str]>,
}

fn oracle(context: &mut Context) -> Result<Exit, Failure> {
    let table = oracle_table(context.stop.flag())
        .map_err(|error| Failure::could_not(format!("cannot set up the simulator: {error}")))?;
    if let Some(interrupted) = interrupted(context) {
        return Err(interrupted);
    }
    match context.ui.form {
        Form::Text => oracle_lines(&table).iter().for_each(|line| context.ui.print(line)),
        Form::Jsonl => table.iter().for_each(|row| {
            context.ui.event(&CheckLine {
                name: row.check.name(),
                alone_kills: &row.alone,
                alone_of_laws_kills: row.alone_of_laws.as_deref(),
            });
        }),
    }
    let idle = table.iter().any(CheckRow::is_idle);
    Ok(if idle { Exit::Violation } else { Exit::Passed })
}

/// The bugs that are asked for: all, if none is named.
pub(super) fn wanted(names: &[String]) -> Result<Vec<Planted>, Failure> {
    let named = |name: &String| Planted::from_name(name).ok_or_else(|| super::unknown_bug(name));
    if names.is_empty() { Ok(Planted::all()) } else { names.iter().map(named).collect() }
}

/// A self-test that a signal ended.
pub(super) fn interrupted(context: &Context) -> Option<Failure> {
    let stopped = context.stop.flag().load(Ordering::Relaxed);
    let exit = context.stop.exit().unwrap_or(Exit::Interrupted);
    stopped.then(|| Failure { exit, message: "interrupted".to_owned() })
}

fn fixed(args: &SelftestArgs, context: &mut Context) -> Result<Exit, Failure> {
    let all = args.bug.is_empty();
    let bugs = wanted(&args.bug)?;
    let cannot =
        |error: SimError| Failure::could_not(format!("cannot set up the simulator: {error}"));
    let honest = score(None).map_err(cannot)?;
    let false_alarms = honest.caught_by.len() + honest.otherwise.len();
    let scores = table(&bugs, context.stop.flag()).map_err(cannot)?;
    if let Some(interrupted) = interrupted(context) {
        return Err(interrupted);
    }
    scores.iter().for_each(|score| show_bug(score, context));
    let empty = if all { empty_rows(&scores) } else { Vec::new() };
    if all {
        (1..).zip(&SUITE).for_each(|(number, spec)| show_test(number, spec.name, &scores, context));
    }
    let found = scores.iter().filter(|score| !score.found.caught_by.is_empty()).count();
    let missing = if all { !empty.is_empty() } else { found < scores.len() };
    let exit = if missing || false_alarms > 0 { Exit::Violation } else { Exit::Passed };
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::SelftestFinished {
            bugs: scores.len(),
            found,
            empty_rows: empty.len(),
            false_alarms,
            exit_code: exit.code(),
        }),
        Form::Text => {
            context.ui.print(&format!(
                "{found}/{} planted bugs caught by the fixed tests · {} tests that catch none · {false_alarms} false alarms",
                scores.len(),
                empty.len()
            ));
            for name in empty {
                context.ui.print(&format!("no planted bug makes {name} fail"));
            }
        }
    }
    Ok(exit)
}

fn show_bug(score: &BugScore, context: &mut Context) {
    let BugScore { bug, found } = score;
    let found_kinds: Vec<&str> = found.kinds.iter().map(|kind| kind.name()).collect();
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::Bug {
            name: bug.name(),
            side: bug.side(),
            kinds: bug.kinds(),
            found_kinds,
            found_by_fixed: &found.caught_by,
            failed_otherwise: &found.otherwise,
        }),
        Form::Text => {
            let numbers: Vec<String> = (1..)
                .zip(&SUITE)
                .filter(|(_, spec)| found.caught_by.contains(&spec.name))
                .map(|(number, _): (usize, _)| number.to_string())
                .collect();
            let tests = match numbers.as_slice() {
                [] => "not by the fixed tests".to_owned(),
                numbers => format!("tests {}", numbers.join(" ")),
            };
            let kinds = found_kinds.join(", ");
            let line = format!("{:<31}{:<10}{kinds:<28} {tests}", bug.name(), bug.side());
            context.ui.print(line.trim_end());
        }
    }
}

fn show_test(number: usize, name: &'static str, scores: &[BugScore], context: &mut Context) {
    let caught = scores.iter().filter(|score| score.found.caught_by.contains(&name));
    let catches: Vec<&str> = caught.map(|score| score.bug.name()).collect();
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::Test { number, name, catches }),
        Form::Text => {
            context.ui.print(&format!("{number:>2} {name:<27} catches {}", catches.len()))
        }
    }
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
        selftest: SelftestArgs,
    }

    fn selftest(flags: &[&str]) -> (Result<Exit, Failure>, String) {
        let line = ["selftest", "--fixed"].into_iter().chain(flags.iter().copied());
        let args = Flags::try_parse_from(line).expect("flags").selftest;
        let (ui, text) = Ui::captured(args.output.output);
        let done = run(&args, &mut Context { ui, stop: Stop::default() });
        (done, text.text())
    }

    #[test]
    fn a_bug_the_suite_catches_is_shown_with_its_tests() {
        let (done, text) = selftest(&["--bug", "bitmap-byte-swapped"]);
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        let line = text.lines().next().expect("a line");
        assert!(line.starts_with("bitmap-byte-swapped") && line.contains(" 12"), "{line}");
        assert!(text.ends_with("1/1 planted bugs caught by the fixed tests · 0 tests that catch none · 0 false alarms\n"));
    }

    #[test]
    fn unknown_bugs_are_named_with_a_neighbour() {
        let (done, _) = selftest(&["--bug", "bitmap-byte-swaped"]);
        let failure = done.expect_err("no such bug");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("did you mean `bitmap-byte-swapped`"));
    }
}
