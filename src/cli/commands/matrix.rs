//! `lbaudit selftest` without `--fixed`: the kill matrix, printed and written as JSON.
//!
//! Not covered: filling it (`crate::campaign::selftest_matrix`), what it looks like
//! (`crate::report`).

use super::selftest::{SelftestArgs, interrupted, wanted};
use crate::campaign::generated::Generated;
use crate::campaign::selftest_matrix::{Budget, Matrix, Progress, matrix};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::engine::PROFILES;
use crate::report::{
    BugFigures, SecondFigures, bug_figures, matrix_figures, matrix_lines, second_figures,
};
use serde::Serialize;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time of one exhaustive search, unless it is wanted in full.
const EXPLORE: Duration = Duration::from_secs(1);
/// Depth of one exhaustive search.
const EXPLORE_DEPTH: usize = 5;
/// Cases on the honest target for each one on a planted bug.
const HONEST_FACTOR: u64 = 10;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Bug(BugFigures<'a>),
    SelftestFinished {
        bugs: usize,
        found: usize,
        lower_bound_only_misses: usize,
        fixed_misses: usize,
        false_alarms: usize,
        operations_clean: u64,
        second_judge: SecondFigures,
        faults: &'a [String],
        seconds: f64,
        exit_code: u8,
    },
}

/// Fills the matrix, prints it and writes it down.
///
/// # Errors
/// [`Failure`] for an unknown bug, if the simulator cannot be set up, if the file cannot be written,
/// and when a signal ended it.
pub(super) fn run(args: &SelftestArgs, context: &mut Context) -> Result<Exit, Failure> {
    let bugs = wanted(&args.bug)?;
    let honest_cases = args.cases.saturating_mul(HONEST_FACTOR);
    let budget = Budget {
        seeds: args.seeds,
        cases: args.cases,
        honest_cases,
        explore: if args.explore_full { Duration::MAX } else { EXPLORE },
        explore_depth: EXPLORE_DEPTH,
    };
    let cases = Generated::new(PROFILES[0], honest_cases.saturating_mul(args.seeds));
    let started = Instant::now();
    let status = Mutex::new((context.ui.status(), 0usize, 0u64));
    let tell = |progress: Progress| {
        let mut shown = status.lock().unwrap_or_else(PoisonError::into_inner);
        let (display, done, honest) = &mut *shown;
        match progress {
            Progress::Bug { .. } => *done += 1,
            Progress::Honest { cases } => *honest += cases,
        }
        let (done, honest, all) = (*done, *honest, bugs.len());
        let line = || format!("bugs {done}/{all}  honest cases {honest}");
        display.show(started.elapsed(), line);
    };
    let filled = matrix(&bugs, &cases, budget, context.stop.flag(), &tell);
    status.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
    if let Some(interrupted) = interrupted(context) {
        return Err(interrupted);
    }
    let matrix = filled
        .map_err(|error| Failure::could_not(format!("cannot set up the simulator: {error}")))?;
    let (faults, exit) = outcome(&matrix);
    show(&matrix, &faults, started.elapsed(), exit, context);
    args.json.as_deref().map_or(Ok(()), |file| write(&matrix, file))?;
    Ok(exit)
}

/// What is wrong with a matrix, and what the program ends with: any fault fails the self-test.
fn outcome(matrix: &Matrix) -> (Vec<String>, Exit) {
    let faults = matrix.faults();
    let exit = if faults.is_empty() { Exit::Passed } else { Exit::Violation };
    (faults, exit)
}

fn show(matrix: &Matrix, faults: &[String], took: Duration, exit: Exit, context: &mut Context) {
    if context.ui.form == Form::Text {
        matrix_lines(matrix).iter().for_each(|line| context.ui.print(line));
        context.ui.say(&format!("took {}", crate::suite::seconds(took)));
        return;
    }
    for row in &matrix.rows {
        context.ui.event(&Line::Bug(bug_figures(row, matrix.seeds)));
    }
    let (found, lower_bound_only_misses, fixed_misses) = matrix.totals();
    context.ui.event(&Line::SelftestFinished {
        bugs: matrix.rows.len(),
        found,
        lower_bound_only_misses,
        fixed_misses,
        false_alarms: matrix.honest.false_alarms.len() + matrix.honest.fixed.len(),
        operations_clean: matrix.honest.ops,
        second_judge: second_figures(&matrix.second()),
        faults,
        seconds: took.as_secs_f64(),
        exit_code: exit.code(),
    });
}

fn write(matrix: &Matrix, file: &Path) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!("cannot write {}: {error}", file.display()))
    };
    let text = serde_json::to_string_pretty(&matrix_figures(matrix))
        .map_err(|error| cannot(error.into()))?;
    std::fs::write(file, text + "\n").map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::super::selftest::SelftestArgs;
    use super::*;
    use crate::campaign::second_judge::{Disagreement, SecondScore};
    use crate::campaign::selftest_matrix::HonestRow;
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use clap::Parser;
    use std::sync::atomic::Ordering;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        selftest: SelftestArgs,
    }

    fn selftest(flags: &[&str], stop: Stop) -> (Result<Exit, Failure>, String) {
        let line = ["selftest"].into_iter().chain(flags.iter().copied());
        let args = Flags::try_parse_from(line).expect("flags").selftest;
        let (ui, text) = Ui::captured(args.output.output);
        let done = super::super::selftest::run(&args, &mut Context { ui, stop });
        (done, text.text())
    }

    #[test]
    fn the_matrix_of_one_bug_is_printed_and_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("matrix.json");
        let path = file.to_str().expect("UTF-8");
        let few = ["--bug", "bit63-dropped", "--seeds", "1", "--cases", "9", "--json", path];
        let (done, text) = selftest(&few, Stop::default());
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        assert!(text.contains("random checking finds 1 of 1 planted bugs"), "{text}");
        let written = std::fs::read_to_string(&file).expect("written");
        let json: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(json["bugs"][0]["shrunk_operations"], 2);
        assert_eq!(json["false_alarms"], 0);
        // The witness, what was found and what is left of it, and the 90 honest cases.
        assert_eq!(json["second_judge"]["traces"], 93, "{text}");
        assert_eq!(json["second_judge"]["agreements"], 93);
        assert!(text.contains("second judge: 93 traces, agrees on all"), "{text}");
    }

    #[test]
    fn a_bug_that_survives_fails_the_self_test() {
        let few = ["--bug", "slow-device", "--bug", "big-volume-wraps", "--seeds", "1"];
        let (done, text) = selftest(&[&few[..], &["--cases", "1"]].concat(), Stop::default());
        assert_eq!(done, Ok(Exit::Violation), "{text}");
        assert!(text.contains("FAULT big-volume-wraps survives"), "{text}");
        assert!(!text.contains("slow-device survives"), "the fixed suite finds it: {text}");
    }

    #[test]
    fn one_run_on_which_the_judges_differ_fails_the_self_test() {
        let agreed = SecondScore { agreed: 1, ..SecondScore::default() };
        let mut matrix = Matrix {
            seeds: 1,
            rows: Vec::new(),
            honest: HonestRow { second: agreed, ..HonestRow::default() },
            canary: None,
        };
        assert_eq!(outcome(&matrix), (Vec::new(), Exit::Passed));
        let (case, sentence) = ("g1:1:5".to_owned(), "step 3: one says no".to_owned());
        matrix.honest.second.disagreements.push(Disagreement { case, sentence });
        let (faults, exit) = outcome(&matrix);
        assert_eq!(faults, ["the judges differ on g1:1:5: step 3: one says no"]);
        assert_eq!((exit, exit.code()), (Exit::Violation, 1));
    }

    #[test]
    fn a_stopped_self_test_says_so_at_once() {
        let stop = Stop::default();
        stop.flag().store(true, Ordering::Relaxed);
        let (done, _) = selftest(&["--bug", "bit63-dropped"], stop);
        assert_eq!(done.expect_err("stopped").exit, Exit::Interrupted);
    }

    #[test]
    fn fixed_takes_no_flags_of_the_matrix() {
        assert!(Flags::try_parse_from(["selftest", "--fixed", "--seeds", "2"]).is_err());
        assert!(Flags::try_parse_from(["selftest", "--seeds", "0"]).is_err());
    }
}
