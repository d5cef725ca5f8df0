//! The shards of a campaign made one run, with the exit code that one run would have had.
//!
//! Not covered: what may be merged, and how (`crate::campaign::merge`).

use super::{cannot, end, load};
use crate::block::RunId;
use crate::campaign::merge::{MergeError, gather, merge};
use crate::campaign::run_files::RUN;
use crate::campaign::run_record::RunRecord;
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::commands::report::write_report;
use crate::cli::commands::suite;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::report::{CampaignEnd, end_lines, rate};
use serde::Serialize;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(super) fn merged(
    from: &[PathBuf],
    root: &Path,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let wrong = |error: MergeError| match error {
        MergeError::Io(_) | MergeError::Run(_) => cannot(error),
        _ => Failure::usage(error.to_string()),
    };
    let (runs, unreadable) = gather(from).map_err(wrong)?;
    // Refused before a folder is made.
    let folder = suite::begun_folder(root, RunId::random())?;
    let done = merge(&runs, &unreadable, &folder).map_err(wrong);
    let mut done = done.inspect_err(|_| drop(fs::remove_dir_all(folder.path())))?;
    let codes = runs.iter().filter_map(|run| run.checkpoint.exit_code);
    let exits = codes.filter_map(|code| Exit::ALL.into_iter().find(|exit| exit.code() == code));
    let mut exit = exits.fold(Exit::Passed, Exit::or);
    for lacking in &done.lacking {
        context.ui.say(&format!("note {lacking}"));
        exit = exit.or(Exit::CouldNotTest);
    }
    done.checkpoint.exit_code = Some(exit.code());
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(&done.started)?;
        writeln!(folder.create_file(RUN)?, "{text}")?;
        done.checkpoint.save(folder.path())?;
        folder.point_latest()
    };
    write().map_err(|error| cannot(format!("{}: {error}", folder.path().display())))?;
    let run = load(folder.path())?;
    let end = end(&run, folder.path());
    // A report that cannot be written changes no verdict.
    if let Err(failure) = write_report(folder.path()) {
        context.ui.say(&failure.message);
    }
    match context.ui.form {
        Form::Text => {
            context.ui.print(&format!("merged {} runs", runs.len()));
            end_lines(&end).iter().for_each(|line| context.ui.print(line));
        }
        Form::Jsonl => context.ui.event(&MergeFinished::of(&run, &end, exit)),
    }
    Ok(exit)
}

/// As the last line of `check` and `soak`.
#[derive(Serialize)]
#[serde(tag = "event", rename = "run_finished")]
struct MergeFinished {
    runs: usize,
    cases: u64,
    operations: u64,
    operations_per_s: u64,
    diffs: u64,
    violations: u64,
    findings: usize,
    unknown: u64,
    digest: String,
    seed: u64,
    seconds: f64,
    exit_code: u8,
    path: String,
}

impl MergeFinished {
    fn of(run: &RunRecord, end: &CampaignEnd, exit: Exit) -> MergeFinished {
        let totals = &end.totals;
        MergeFinished {
            runs: run.started.merged.len(),
            cases: totals.cases,
            operations: totals.ops,
            operations_per_s: rate(totals.ops, end.elapsed),
            diffs: totals.diffs,
            violations: totals.failures,
            findings: end.findings.len(),
            unknown: totals.unknown,
            digest: totals.digest.to_string(),
            seed: run.started.seed,
            seconds: end.elapsed.as_secs_f64(),
            exit_code: exit.code(),
            path: end.folder.display().to_string(),
        }
    }
}
