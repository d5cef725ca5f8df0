//! `lbaudit report`, and the report that every `check`, `soak` and `suite` leaves at its end:
//! `report.html`, the pictures of findings, and `junit.xml` of a random run, all made of the run's
//! folder alone.
//!
//! Not covered: what is in them (`crate::report`), what a CI system is told besides
//! (`crate::cli::github`).

use crate::campaign::retold::retold;
use crate::campaign::run_files::started;
use crate::campaign::run_record::{Found, RunRecord};
use crate::campaign::store::{find_run, is_alive, replace};
use crate::campaign::suite_run::SuiteRun;
use crate::campaign::trend::trend;
use crate::cli::Context;
use crate::cli::args::OutputArgs;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::github;
use crate::report::MAP;
use crate::report::campaign_junit;
use crate::report::html::{CampaignPage, Shown, campaign_page, suite_page};
use crate::report::map::{map_of, map_png};
use crate::report::verdict::gravest_first;
use clap::Args;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the page in a run folder.
const REPORT: &str = "report.html";
const JUNIT: &str = "junit.xml";

/// Builds the report of a run again.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// The run: a folder, its name, its id, or latest.
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,
    /// Also write the page here.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write the JUnit file here; of random runs only.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] if there is no such run, or its report cannot be written.
pub fn run(args: &ReportArgs, context: &mut Context) -> Result<Exit, Failure> {
    let folder = find_run(&args.output.run_dir, &args.run)
        .map_err(|error| Failure::usage(format!("cannot find the run `{}`: {error}", args.run)))?;
    let written = write_report(&folder)?;
    copies(&written, args.html.as_deref(), args.junit.as_deref())?;
    let path = written.page.display().to_string();
    match context.ui.form {
        crate::cli::args::Form::Jsonl => {
            context.ui.json(&serde_json::json!({"v": 1, "event": "report_written", "path": path}));
        }
        crate::cli::args::Form::Text => context.ui.print(&format!("report {path}")),
    }
    Ok(Exit::Passed)
}

/// What was written into a run's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// The JUnit file, if the folder is one of a random run. Suites write their own.
    pub junit: Option<PathBuf>,
}

/// Writes the report of the run in a folder, whatever kind of run it is, and whether it ended or not.
/// What is there already gives way.
///
/// # Errors
/// [`Failure`] if the folder holds no run, or cannot be written.
pub fn write_report(folder: &Path) -> Result<Written, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::could_not(error.to_string());
    let random = started(folder).map_err(|error| unreadable(&error))?.is_some();
    if random {
        let run = RunRecord::load(folder).map_err(|error| unreadable(&error))?;
        return write_campaign(folder, &run);
    }
    let suite = SuiteRun::load(folder).map_err(|error| unreadable(&error))?;
    let suite = suite.ok_or_else(|| {
        Failure::usage(format!("{} holds no run of check, soak or suite", folder.display()))
    })?;
    let page = suite_page(&suite, is_alive(folder));
    put(folder, REPORT, page.as_bytes())?;
    Ok(Written { page: folder.join(REPORT), junit: None })
}

fn write_campaign(folder: &Path, run: &RunRecord) -> Result<Written, Failure> {
    let drawn = gravest_first(run).into_iter().take(CampaignPage::DRAWN);
    let shown = drawn.map(show).collect::<Result<Vec<Shown>, Failure>>()?;
    let figures = folder.parent().map(|root| trend(root, run)).unwrap_or_default();
    let spelt = spelt(folder);
    let alive = is_alive(folder);
    let page =
        campaign_page(&CampaignPage { run, alive, shown: &shown, trend: &figures, folder: &spelt });
    let attached = |path: &Path| path.is_file().then(|| github::attachment(path));
    let junit = campaign_junit(run, &attached)
        .map_err(|error| Failure { exit: Exit::Bug, message: format!("JUnit: {error}") })?;
    put(folder, JUNIT, junit.as_bytes())?;
    put(folder, REPORT, page.as_bytes())?;
    Ok(Written { page: folder.join(REPORT), junit: Some(folder.join(JUNIT)) })
}

/// What is drawn of a finding; its picture goes into its folder.
fn show(found: &Found) -> Result<Shown, Failure> {
    let retold = retold(found);
    let violation = found.record.shown();
    let map = map_of(violation, &found.scenario, &retold.records);
    if let Some(map) = &map {
        let heading = format!(
            "finding-{}  {} ({})  {}",
            found.known.number,
            violation.kind,
            violation.kind.meaning(),
            map.title()
        );
        let picture = map_png(map, &heading)
            .map_err(|error| Failure { exit: Exit::Bug, message: error.to_string() })?;
        put(&found.folder, MAP, &picture)?;
    }
    Ok(Shown { retold, map })
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    replace(folder, name, bytes).map_err(|error| cannot(&folder.join(name), &error))
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::could_not(format!("cannot write {}: {error}", path.display()))
}

/// The files where the flags want them, too.
fn copies(written: &Written, html: Option<&Path>, junit: Option<&Path>) -> Result<(), Failure> {
    let copy = |from: &Path, to: &Path| {
        std::fs::read(from)
            .and_then(|bytes| std::fs::write(to, bytes))
            .map_err(|error| cannot(to, &error))
    };
    if let Some(to) = html {
        copy(&written.page, to)?;
    }
    match (junit, &written.junit) {
        (None, _) => Ok(()),
        (Some(to), Some(from)) => copy(from, to),
        (Some(_), None) => Err(Failure::usage(
            "--junit: a suite wrote its junit.xml when it ran; it is in its folder",
        )),
    }
}

/// How a folder is spelt in commands: from where the user is, if it lies below.
fn spelt(folder: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let below = folder.strip_prefix(&here).or_else(|_| folder.strip_prefix("."));
    below.unwrap_or(folder).to_path_buf()
}

/// What is left to do when a random run has ended, well or not: its report, and what a CI system is
/// told. A report that cannot be written is said and changes no verdict; one that was asked for by a
/// flag outweighs it if it is graver.
pub(super) fn after_campaign(
    args: &CampaignArgs,
    folder: &Path,
    exit: Exit,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let written = match write_report(folder) {
        Ok(written) => written,
        Err(failure) => {
            context.ui.say(&format!("no report: {}", failure.message));
            let asked = args.html.is_some() || args.junit.is_some();
            return Ok(if asked { exit.or(failure.exit) } else { exit });
        }
    };
    if !context.ui.style.quiet {
        context.ui.say(&format!("report {}", spelt(&written.page).display()));
    }
    github::tell_campaign(folder, &mut context.ui);
    match copies(&written, args.html.as_deref(), args.junit.as_deref()) {
        Ok(()) => Ok(exit),
        Err(failure) => {
            context.ui.say(&failure.message);
            Ok(exit.or(failure.exit))
        }
    }
}

/// The same for a suite.
pub(super) fn after_suite(folder: &Path, html: Option<&Path>, context: &mut Context) {
    let written = write_report(folder).and_then(|written| copies(&written, html, None));
    if let Err(failure) = written {
        context.ui.say(&format!("no report: {}", failure.message));
    }
    github::tell_suite(folder, &mut context.ui);
}
