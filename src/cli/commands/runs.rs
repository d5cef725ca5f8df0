//! `lbaudit runs`: what earlier runs did: list, show, export, prune, trend, merge. Reads run folders
//! and, but for `merge`, `export` and `prune --yes`, changes nothing.
//!
//! Not covered: reports (`lbaudit report`), snapshots that runs left (`lbaudit clean`).

mod merged;
mod old;

use self::merged::merged;
use self::old::{Bounds, export, prune};
use crate::campaign::run_record::{RunError, RunRecord};
use crate::campaign::store::{find_run, is_alive, run_folders};
use crate::campaign::suite_run::SuiteRun;
use crate::campaign::trend::{Figures, name_of};
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::config::{Seconds, Size};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::report::{CampaignEnd, Reached, command_line, end_lines};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to do with earlier runs.
#[derive(Args, Clone, Debug)]
pub struct RunsArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What can be done with earlier runs.
#[derive(Subcommand, Clone, Debug)]
pub enum What {
    /// All runs in --run-dir, oldest first.
    List {
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One run of check or soak: what it was asked, what it came to.
    Show {
        /// A folder, its name, a run's id, or latest.
        run: String,
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// The same figures of all runs of one target and profile, oldest first.
    Trend {
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Pack a run into one file (tar.gz), to send it.
    Export {
        /// A folder, its name, a run's id, or latest.
        run: String,
        /// The file to make.
        file: PathBuf,
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Name, and delete when told to, old runs that found nothing.
    Prune {
        /// Runs that ended longer ago than this (s, m, h).
        #[arg(long, value_name = "TIME", default_value = "720h")]
        older_than: Seconds,
        /// Runs beyond the newest N, however old they are.
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Oldest runs until the rest is smaller than this.
        #[arg(long, value_name = "SIZE")]
        max_disk: Option<Size>,
        /// Those with findings too.
        #[arg(long)]
        findings: bool,
        /// Delete them; without it they are only named.
        #[arg(long)]
        yes: bool,
        /// How.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make one run of the shards of a campaign, of several hosts or processes.
    Merge {
        /// Run folders, or folders with run folders in them.
        #[arg(required = true, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// How; the merged run is made in --run-dir.
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl RunsArgs {
    /// The output flags.
    pub const fn output(&self) -> &OutputArgs {
        match &self.what {
            What::List { output }
            | What::Show { output, .. }
            | What::Trend { output }
            | What::Export { output, .. }
            | What::Prune { output, .. }
            | What::Merge { output, .. } => output,
        }
    }
}

/// A run in a list.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename = "run")]
struct Row {
    #[serde(flatten)]
    figures: Figures,
    /// `going on`, `ended`, `killed`, or the run that goes on with it.
    state: String,
    target: String,
    profile: String,
    planted: Vec<String>,
    shard: Option<String>,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] if there is no such run, or a folder cannot be read or written.
pub fn run(args: &RunsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let root = args.output().run_dir.as_path();
    match &args.what {
        What::List { .. } => list(root, context),
        What::Trend { .. } => trend(root, context),
        What::Show { run, .. } => show(&found(root, run)?, context),
        What::Export { run, file, .. } => export(&found(root, run)?, file, context),
        What::Prune { older_than, keep, max_disk, findings, yes, .. } => {
            let bounds = Bounds {
                older_than: older_than.0,
                keep: *keep,
                bytes: max_disk.as_ref().map(|size| size.0.get()),
                findings: *findings,
            };
            prune(root, &bounds, *yes, context)
        }
        What::Merge { from, .. } => merged(from, root, context),
    }
}

fn found(root: &Path, run: &str) -> Result<PathBuf, Failure> {
    find_run(root, run).map_err(|error| Failure::usage(format!("`{run}`: {error}")))
}

fn cannot(error: impl std::fmt::Display) -> Failure {
    Failure::could_not(error.to_string())
}

/// Every run below the root that can be read; of suites only what their `run.json` says. What cannot
/// be read is said and passed by.
fn rows(root: &Path, context: &mut Context) -> Result<Vec<(Row, PathBuf)>, Failure> {
    let folders = run_folders(root)
        .map_err(|error| cannot(format!("cannot read {}: {error}", root.display())))?;
    let mut rows = Vec::new();
    let mut goes_on: BTreeMap<String, String> = BTreeMap::new();
    for (_, folder) in folders {
        let name = name_of(&folder);
        match RunRecord::load(&folder) {
            Ok(run) => {
                if let Some(earlier) = &run.started.resumes {
                    goes_on.insert(earlier.clone(), name);
                }
                rows.push((row(&run), folder));
            }
            Err(RunError::NotOne(_)) => match SuiteRun::load(&folder) {
                Ok(suite) => rows.push((suite_row(&folder, suite.as_ref()), folder)),
                Err(error) => rows.push((broken(&folder, &error, context), folder)),
            },
            Err(error) => rows.push((broken(&folder, &error, context), folder)),
        }
    }
    for (row, _) in &mut rows {
        if let Some(next) = goes_on.get(&row.figures.name) {
            row.state = format!("goes on as {next}");
        }
    }
    Ok(rows)
}

/// A run that cannot be read, which is said.
fn broken(folder: &Path, error: &dyn std::fmt::Display, context: &mut Context) -> Row {
    context.ui.say(&format!("{}: {error}", name_of(folder)));
    let state = if is_alive(folder) { "going on" } else { "cannot be read" };
    Row { state: state.to_owned(), ..suite_row(folder, None) }
}

/// How a run is doing, by its folder and by what it said at its end.
fn state(folder: &Path, exit_code: Option<u8>) -> String {
    let state = match exit_code {
        _ if is_alive(folder) => "going on",
        Some(_) => "ended",
        None => "killed",
    };
    state.to_owned()
}

fn row(run: &RunRecord) -> Row {
    let kept = &run.checkpoint;
    Row {
        figures: Figures::of(&run.folder, kept, &run.samples),
        state: state(&run.folder, kept.exit_code),
        target: run.started.target.clone(),
        profile: run.started.profile.clone(),
        planted: run.started.planted.clone(),
        shard: match run.started.merged.len() {
            0 => run.started.shard.clone(),
            runs => Some(format!("merged of {runs}")),
        },
        seconds: kept.seconds,
    }
}

/// A suite, whose cases are its tests; or a run of another command, of which only its folder is known.
fn suite_row(folder: &Path, suite: Option<&SuiteRun>) -> Row {
    let end = suite.and_then(|suite| suite.end.as_ref());
    let exit_code = end.map(|end| end.exit_code);
    // One that was killed has no sums, and what it had found counts.
    let results = suite.into_iter().flat_map(|it| &it.tests).map(|test| test.result.as_str());
    Row {
        figures: Figures {
            name: name_of(folder),
            cases: results.clone().filter(|result| ["pass", "fail"].contains(result)).count()
                as u64,
            ops_per_core_s: 0,
            wall_ops_per_s: None,
            api_p50_ms: None,
            api_p99_ms: None,
            mib_per_s: suite.and_then(|suite| suite.tests.iter().find_map(|it| it.mib_per_s)),
            findings: results.filter(|result| *result == "fail").count(),
            over_report: None,
            exit_code,
        },
        state: state(folder, exit_code),
        target: suite.map_or_else(|| "?".to_owned(), |suite| suite.started.target.clone()),
        profile: if suite.is_some() { "suite" } else { "?" }.to_owned(),
        planted: Vec::new(),
        shard: None,
        seconds: end.map_or(0.0, |end| end.seconds),
    }
}

const HEAD: &str = "run                                target     profile  shard      cases  findings  exit  state";

fn line(row: &Row) -> String {
    let exit = row.figures.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    format!(
        "{:<34} {:<10} {:<8} {:<6} {:>9}  {:>8}  {exit:>4}  {}",
        row.figures.name,
        row.target,
        row.profile,
        row.shard.as_deref().unwrap_or("-"),
        row.figures.cases,
        row.figures.findings,
        row.state
    )
}

fn list(root: &Path, context: &mut Context) -> Result<Exit, Failure> {
    let rows = rows(root, context)?;
    match context.ui.form {
        Form::Jsonl => rows.iter().for_each(|(row, _)| context.ui.event(row)),
        Form::Text if rows.is_empty() => {
            context.ui.print(&format!("there is no run in {}", root.display()));
        }
        Form::Text => {
            context.ui.print(HEAD);
            rows.iter().for_each(|(row, _)| context.ui.print(&line(row)));
        }
    }
    Ok(Exit::Passed)
}

fn trend(root: &Path, context: &mut Context) -> Result<Exit, Failure> {
    let rows = rows(root, context)?;
    let mut groups: BTreeMap<(String, String, Vec<String>), Vec<Row>> = BTreeMap::new();
    for (row, _) in rows {
        if row.figures.cases > 0 && !row.state.starts_with("goes on as") {
            let like = (row.target.clone(), row.profile.clone(), row.planted.clone());
            groups.entry(like).or_default().push(row);
        }
    }
    if context.ui.form == Form::Jsonl {
        groups.values().flatten().for_each(|row| context.ui.event(row));
        return Ok(Exit::Passed);
    }
    if groups.is_empty() {
        context.ui.print(&format!("there is no run of check, soak or suite in {}", root.display()));
    }
    for ((target, profile, planted), rows) in &groups {
        let planted = match planted.len() {
            0 => String::new(),
            _ => format!("  planted {}", planted.join(", ")),
        };
        context.ui.print(&format!("target {target}  profile {profile}{planted}"));
        let mut before = None;
        for row in rows {
            context.ui.print(&trend_line(row, before));
            before = speed(row).map_or(before, |(now, _)| Some(now));
        }
    }
    Ok(Exit::Passed)
}

/// The speed that is compared from run to run, and of what it is, if it was measured. In process it is
/// that of the processor, whatever else the machine did; on anything else it is what one waits for.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn speed(row: &Row) -> Option<(f64, &'static str)> {
    let Figures { ops_per_core_s, wall_ops_per_s, mib_per_s, .. } = row.figures;
    match (row.target.as_str(), wall_ops_per_s) {
        ("simulator", Some(_)) => Some((ops_per_core_s as f64, "operations/s per core")),
        (_, Some(per_s)) => Some((per_s, "operations/s")),
        (_, None) => mib_per_s.map(|speed| (speed, "MiB/s copied")),
    }
}

/// A run in a trend; `before` is the speed of the one before.
fn trend_line(row: &Row, before: Option<f64>) -> String {
    let Figures { name, cases, findings, over_report, api_p50_ms, api_p99_ms, .. } = &row.figures;
    let what = if row.profile == "suite" { ["tests", "failed"] } else { ["cases", "findings"] };
    let [cases_are, findings_are] = what;
    let mut line = format!("  {name:<34} {cases:>9} {cases_are}  {findings:>3} {findings_are}");
    if let Some(factor) = over_report {
        line.push_str(&format!("  over-report {factor:.3}"));
    }
    if let Some((speed, of_what)) = speed(row) {
        let decimals = usize::from(speed < 100.0);
        line.push_str(&format!("  {speed:>9.decimals$} {of_what}"));
        if let Some(before) = before.filter(|&before| before > 0.0) {
            line.push_str(&format!(" {:+.0} %", (speed - before) * 100.0 / before));
        }
    }
    if let (Some(p50), Some(p99)) = (api_p50_ms, api_p99_ms) {
        line.push_str(&format!("  API p50 {p50:.1} ms p99 {p99:.1} ms"));
    }
    line
}

fn load(folder: &Path) -> Result<RunRecord, Failure> {
    RunRecord::load(folder).map_err(|error| match error {
        RunError::NotOne(_) => Failure::usage(error.to_string()),
        error => cannot(error),
    })
}

fn show(folder: &Path, context: &mut Context) -> Result<Exit, Failure> {
    if let Some(suite) = SuiteRun::load(folder).map_err(cannot)? {
        return Ok(show_suite(&suite, context));
    }
    let run = load(folder)?;
    if context.ui.form == Form::Jsonl {
        context.ui.event(&run.started);
        // It has a version of its own.
        context.ui.json(&Shown { event: "checkpoint", checkpoint: &run.checkpoint });
        return Ok(Exit::Passed);
    }
    let started = &run.started;
    context.ui.print(&command_line(&started.arguments));
    context.ui.print(&format!(
        "version {}  seed {}  target {}  profile {}",
        started.version, started.seed, started.target, started.profile
    ));
    for (word, value) in [("shard", &started.shard), ("goes on with", &started.resumes)] {
        if let Some(value) = value {
            context.ui.print(&format!("{word} {value}"));
        }
    }
    if !started.merged.is_empty() {
        context.ui.print(&format!("merged of {}", started.merged.join(", ")));
    }
    started.notes.iter().for_each(|note| context.ui.print(&format!("note {note}")));
    end_lines(&end(&run, folder)).iter().for_each(|line| context.ui.print(line));
    for found in &run.findings {
        context.ui.print(&format!("  finding-{}: {}", found.known.number, found.record.shown()));
    }
    for unfinished in &run.unfinished {
        context.ui.print(&format!(
            "  not shrunk, for the run was killed: {} in {}",
            unfinished.violation, unfinished.case
        ));
    }
    Ok(Exit::Passed)
}

/// A suite: what it was asked, its tests, its end.
fn show_suite(suite: &SuiteRun, context: &mut Context) -> Exit {
    if context.ui.form == Form::Jsonl {
        context.ui.event(&suite_row(&suite.folder, Some(suite)));
        return Exit::Passed;
    }
    let started = &suite.started;
    context.ui.print(&command_line(&started.arguments));
    context.ui.print(&format!(
        "version {}  target {}  policy {}  endpoint {}",
        started.version, started.target, started.policy, started.endpoint
    ));
    started.notes.iter().for_each(|note| context.ui.print(&format!("note {note}")));
    for test in &suite.tests {
        let line = format!("{:<48} {:<16} {:>6.1}s", test.name, test.result, test.seconds);
        context.ui.print(&line);
        if test.result != "pass" {
            test.notes.iter().for_each(|note| context.ui.print(&format!("  {note}")));
        }
    }
    context.ui.print(&match &suite.end {
        Some(end) => format!(
            "{} passed, {} failed, {} could not be judged, exit code {}",
            end.passed, end.failed, end.errors, end.exit_code
        ),
        None => "it goes on, or was killed".to_owned(),
    });
    Exit::Passed
}

#[derive(Serialize)]
struct Shown<'a> {
    event: &'a str,
    #[serde(flatten)]
    checkpoint: &'a crate::campaign::run_files::Checkpoint,
}

/// The end of a run as its last screen shows it.
fn end(run: &RunRecord, folder: &Path) -> CampaignEnd {
    let kept = &run.checkpoint;
    let findings = kept.findings.iter();
    CampaignEnd {
        totals: kept.so_far.totals,
        elapsed: Duration::try_from_secs_f64(kept.seconds).unwrap_or_default(),
        findings: findings
            .map(|known| (known.signature.kind, known.operations, known.cases))
            .collect(),
        problems: kept.problems.clone(),
        reached: run.coverage.as_ref().map(Reached::of),
        interrupted: kept.exit_code.is_none_or(|code| code >= 128),
        kept: true,
        // All else that ends so has other words before these.
        incomplete: kept.exit_code == Some(Exit::CouldNotTest.code()),
        folder: folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_shows_what_one_waits_for_where_one_waits() {
        let row = |target: &str, profile: &str, wall, mib_per_s| Row {
            figures: Figures {
                name: "n".to_owned(),
                cases: 3,
                ops_per_core_s: 517,
                wall_ops_per_s: wall,
                api_p50_ms: wall.map(|_| 3.6),
                api_p99_ms: wall.map(|_| 8.25),
                mib_per_s,
                findings: 0,
                over_report: None,
                exit_code: Some(0),
            },
            state: "ended".to_owned(),
            target: target.to_owned(),
            profile: profile.to_owned(),
            planted: Vec::new(),
            shard: None,
            seconds: 1.0,
        };
        let array = trend_line(&row("lightbits", "live", Some(3.3), None), Some(66.0));
        assert!(array.contains("3.3 operations/s -95 %  API p50 3.6 ms p99 8.2 ms"), "{array}");
        let simulator = trend_line(&row("simulator", "default", Some(9.0), None), None);
        assert!(simulator.contains("517 operations/s per core"), "{simulator}");
        let suite = trend_line(&row("lightbits", "suite", None, Some(204.4)), Some(0.0));
        assert!(suite.ends_with("204 MiB/s copied"), "{suite}");
        let untimed = trend_line(&row("lightbits", "suite", None, None), None);
        assert!(untimed.ends_with("3 tests    0 failed"), "{untimed}");
    }
}
