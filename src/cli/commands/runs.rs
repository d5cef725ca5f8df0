//! `lbaudit runs`: what earlier runs did: list, show, export, prune, trend, merge. Reads run folders
//! and, but for `merge`, `export` and `prune --yes`, changes nothing.
//!
//! Not covered: reports (`lbaudit report`), snapshots that runs left (`lbaudit clean`).

use crate::block::RunId;
use crate::campaign::journal;
use crate::campaign::merge::{MergeError, gather, merge};
use crate::campaign::run_files::RUN;
use crate::campaign::run_record::{RunError, RunRecord};
use crate::campaign::store::{JOURNAL, RunState, bytes_in, find_run, run_folders, run_state};
use crate::campaign::trend::over_report;
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::config::{Seconds, Size};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::report::{CampaignEnd, Reached, end_lines, rate};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

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
    name: String,
    /// `going on`, `ended`, `killed`, or the run that goes on with it.
    state: String,
    target: String,
    profile: String,
    shard: Option<String>,
    cases: u64,
    findings: usize,
    exit_code: Option<u8>,
    seconds: f64,
    operations_per_s_per_core: u64,
    over_report_factor: Option<f64>,
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
    for (id, folder) in folders {
        let name = folder.file_name().map(|it| it.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        match RunRecord::load(&folder) {
            Ok(run) => {
                if let Some(earlier) = &run.started.resumes {
                    goes_on.insert(earlier.clone(), name.clone());
                }
                rows.push((row(&run, name, run_state(root, id)), folder));
            }
            Err(RunError::NotOne(_)) => {
                rows.push((suite_row(&folder, name, run_state(root, id)), folder));
            }
            Err(error) => context.ui.say(&format!("{name}: {error}")),
        }
    }
    for (row, _) in &mut rows {
        if let Some(next) = goes_on.get(&row.name) {
            row.state = format!("goes on as {next}");
        }
    }
    Ok(rows)
}

fn row(run: &RunRecord, name: String, state: RunState) -> Row {
    let kept = &run.checkpoint;
    let totals = &kept.so_far.totals;
    let state = match (state, kept.exit_code) {
        (RunState::Alive, _) => "going on",
        (_, Some(_)) => "ended",
        (_, None) => "killed",
    };
    Row {
        name,
        state: state.to_owned(),
        target: run.started.target.clone(),
        profile: run.started.profile.clone(),
        shard: match run.started.merged.len() {
            0 => run.started.shard.clone(),
            runs => Some(format!("merged of {runs}")),
        },
        cases: totals.cases,
        findings: kept.findings.len(),
        exit_code: kept.exit_code,
        seconds: kept.seconds,
        operations_per_s_per_core: totals.ops_per_busy_second(),
        over_report_factor: over_report(totals),
    }
}

/// A run of another command: its `run.json`, if it has one, names the target.
fn suite_row(folder: &Path, name: String, state: RunState) -> Row {
    let text = fs::read_to_string(folder.join(RUN)).unwrap_or_default();
    let facts: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let word = |key: &str| facts.get(key).and_then(|word| word.as_str()).unwrap_or("?").to_owned();
    let events = fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    let last = events.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let last: serde_json::Value = last.unwrap_or_default();
    let number = |key: &str| last.get(key).and_then(serde_json::Value::as_u64);
    let exit_code = number("exit_code").and_then(|code| u8::try_from(code).ok());
    let state = match (state, exit_code) {
        (RunState::Alive, _) => "going on",
        (_, Some(_)) => "ended",
        (_, None) => "killed",
    };
    let failed = number("failed").and_then(|failed| usize::try_from(failed).ok());
    Row {
        name,
        state: state.to_owned(),
        target: word("target"),
        profile: "suite".to_owned(),
        shard: None,
        cases: number("passed").unwrap_or(0) + number("failed").unwrap_or(0),
        findings: failed.unwrap_or(0),
        exit_code,
        seconds: last.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(0.0),
        operations_per_s_per_core: 0,
        over_report_factor: None,
    }
}

const HEAD: &str = "run                                target     profile  shard      cases  findings  exit  state";

fn line(row: &Row) -> String {
    let exit = row.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    format!(
        "{:<34} {:<10} {:<8} {:<6} {:>9}  {:>8}  {exit:>4}  {}",
        row.name,
        row.target,
        row.profile,
        row.shard.as_deref().unwrap_or("-"),
        row.cases,
        row.findings,
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
    let mut groups: BTreeMap<(String, String), Vec<Row>> = BTreeMap::new();
    for (row, _) in rows {
        if row.profile != "suite" && row.cases > 0 && !row.state.starts_with("goes on") {
            groups.entry((row.target.clone(), row.profile.clone())).or_default().push(row);
        }
    }
    if context.ui.form == Form::Jsonl {
        groups.values().flatten().for_each(|row| context.ui.event(row));
        return Ok(Exit::Passed);
    }
    if groups.is_empty() {
        context.ui.print(&format!("there is no run of check or soak in {}", root.display()));
    }
    for ((target, profile), rows) in &groups {
        context.ui.print(&format!("target {target}  profile {profile}"));
        let mut before: Option<u64> = None;
        for row in rows {
            let speed = row.operations_per_s_per_core;
            let change = before.filter(|&before| before > 0).map_or_else(String::new, |before| {
                let (now, before) = (i128::from(speed), i128::from(before));
                format!("{:+} %", (now - before) * 100 / before)
            });
            let factor =
                row.over_report_factor.map_or_else(|| "-".to_owned(), |it| format!("{it:.3}"));
            context.ui.print(&format!(
                "  {:<34} {:>9} cases  {:>3} findings  {speed:>9} operations/s per core {change:>7}  over-report {factor}",
                row.name, row.cases, row.findings
            ));
            before = Some(speed);
        }
    }
    Ok(Exit::Passed)
}

fn load(folder: &Path) -> Result<RunRecord, Failure> {
    RunRecord::load(folder).map_err(|error| match error {
        RunError::NotOne(_) => Failure::usage(error.to_string()),
        error => cannot(error),
    })
}

fn show(folder: &Path, context: &mut Context) -> Result<Exit, Failure> {
    let run = load(folder)?;
    if context.ui.form == Form::Jsonl {
        context.ui.event(&run.started);
        context.ui.event(&Shown { event: "checkpoint", checkpoint: &run.checkpoint });
        return Ok(Exit::Passed);
    }
    let started = &run.started;
    context.ui.print(&format!("lbaudit {}", started.arguments.join(" ")));
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
        folder: folder.to_owned(),
    }
}

fn export(folder: &Path, file: &Path, context: &mut Context) -> Result<Exit, Failure> {
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already", file.display())));
    }
    let parts = folder.parent().zip(folder.file_name());
    let (parent, name) = parts.ok_or_else(|| Failure::usage("that is no run folder"))?;
    let mut tar = Command::new("tar");
    tar.env_remove("LIGHTBITS_JWT");
    tar.arg("--create").arg("--gzip").arg("--file").arg(file).arg("--directory").arg(parent);
    // A folder cannot begin with a dash: its name begins with a date.
    let status = tar.arg("--").arg(name).status();
    let status = status.map_err(|error| cannot(format!("cannot run tar: {error}")))?;
    if !status.success() {
        return Err(cannot(format!("tar failed ({status})")));
    }
    context.ui.print(&format!("{} has {}", file.display(), folder.display()));
    Ok(Exit::Passed)
}

/// Which runs may go.
struct Bounds {
    older_than: Duration,
    keep: Option<usize>,
    bytes: Option<u64>,
    findings: bool,
}

/// A run that may go, or why it stays.
#[derive(Serialize)]
#[serde(tag = "event", rename = "pruned")]
struct Pruned {
    name: String,
    bytes: u64,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'static str>,
}

fn prune(root: &Path, bounds: &Bounds, yes: bool, context: &mut Context) -> Result<Exit, Failure> {
    let rows = rows(root, context)?;
    let count = rows.len();
    let sizes: Vec<u64> = rows.iter().map(|(_, path)| bytes_in(path).unwrap_or(0)).collect();
    let mut left: u64 = sizes.iter().sum();
    let (mut named, mut failed) = (0, 0);
    for (at, ((row, folder), bytes)) in rows.iter().zip(&sizes).enumerate() {
        let age = fs::metadata(folder).and_then(|it| it.modified());
        let age = age
            .map_or(Duration::ZERO, |at| SystemTime::now().duration_since(at).unwrap_or_default());
        let too_many = bounds.keep.is_some_and(|keep| count - at > keep);
        let too_large = bounds.bytes.is_some_and(|most| left > most);
        if age < bounds.older_than && !too_many && !too_large {
            continue;
        }
        let kept = stays(row, folder, bounds);
        let mut deleted = false;
        if kept.is_none() {
            left = left.saturating_sub(*bytes);
            if yes {
                match fs::remove_dir_all(folder) {
                    Ok(()) => deleted = true,
                    Err(error) => {
                        failed += 1;
                        context.ui.say(&format!("{}: {error}", folder.display()));
                    }
                }
            }
        }
        named += 1;
        let pruned = Pruned { name: row.name.clone(), bytes: *bytes, deleted, kept };
        match context.ui.form {
            Form::Jsonl => context.ui.event(&pruned),
            Form::Text => {
                let what = kept.unwrap_or(if deleted { "deleted" } else { "may go" });
                context.ui.print(&format!("{:<34} {:>9} KiB  {what}", row.name, bytes >> 10));
            }
        }
    }
    if context.ui.form == Form::Text {
        let hint = if yes || named == 0 { "" } else { "; add --yes to delete what may go" };
        context.ui.print(&format!("{named} of {count} runs are old or too many{hint}"));
    }
    Ok(if failed > 0 { Exit::Nothing } else { Exit::Passed })
}

/// Why a run stays although it is old.
fn stays(row: &Row, folder: &Path, bounds: &Bounds) -> Option<&'static str> {
    let open = || {
        let journal = journal::read(&folder.join(JOURNAL)).ok()?;
        let left =
            !journal.open.is_empty() || !journal.clones.is_empty() || !journal.stamped.is_empty();
        left.then_some("stays: its journal names what it may have left; see `lbaudit clean`")
    };
    match row.state.as_str() {
        "going on" => Some("stays: it goes on"),
        _ if row.findings > 0 && !bounds.findings => {
            Some("stays: it found something; see --findings")
        }
        _ => open(),
    }
}

fn merged(from: &[PathBuf], root: &Path, context: &mut Context) -> Result<Exit, Failure> {
    let wrong = |error: MergeError| match error {
        MergeError::Io(_) | MergeError::Run(_) => cannot(error),
        _ => Failure::usage(error.to_string()),
    };
    let runs = gather(from).map_err(wrong)?;
    // Refused before a folder is made.
    let folder = super::suite::folder(root, RunId::random())?;
    let done = merge(&runs, &folder).map_err(wrong);
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
        done.checkpoint.save(folder.path())
    };
    write().map_err(|error| cannot(format!("{}: {error}", folder.path().display())))?;
    let run = load(folder.path())?;
    let end = CampaignEnd { interrupted: false, ..end(&run, folder.path()) };
    // A report that cannot be written changes no verdict.
    if let Err(failure) = super::report::write_report(folder.path()) {
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
