//! `lbaudit check` and `lbaudit soak`: random checking on the simulator. Both run cases, look into
//! what fails and report; `check` is bounded and ends with its first finding, `soak` goes on.
//! Not covered: QEMU and real arrays; findings (`super::hunt`).

use super::hunt::Hunt;
use crate::block::{Policy, RunId};
use crate::campaign::case::{CaseOutcome, record_case, run_case};
use crate::campaign::check::{Campaign, Runner, run_cases};
use crate::campaign::covered::covered;
use crate::campaign::finding::Investigator;
use crate::campaign::selftest::Planted;
use crate::campaign::wired::{over_the_wire, run_wired};
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs};
use crate::cli::config::Seconds;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::nearest_of;
use crate::engine::Event;
use crate::engine::ShrinkBudget;
use crate::engine::{CaseName, GENERATOR_VERSION, PROFILES, Profile, generate};
use crate::oracle::{Checks, Reason};
use crate::report::{CampaignHeader, Reached, header_lines};
use crate::scenario::Scenario;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Cases of `check` if neither cases nor time are given.
const CASES: u64 = 10_000;
/// Cases that a thread takes at once: short ones in process, slow ones over the wire.
const BATCH: u64 = 64;
/// Runs that shrinking may take at most, whatever its time.
const SHRINK_RUNS: u64 = 100_000;

/// Random checking.
#[derive(Args, Clone, Debug)]
pub struct CampaignArgs {
    /// Seed, decimal or 0x...: the same seed gives the same cases [default: drawn and printed].
    #[arg(long, value_name = "S")]
    pub seed: Option<Seed>,
    /// How many cases [default of check: 10000, or until --duration is over].
    #[arg(long, value_name = "N")]
    pub cases: Option<u64>,
    /// How long (s, m, h).
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Seconds>,
    /// Operations of a case at most, not counting those that observe at its end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ops: Option<u32>,
    /// What to draw (see `lbaudit list profiles`).
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub profile: String,
    /// How over-reporting is judged: exact, chunk, granule=N, report-only [default: drawn for each
    /// case, as its array may do].
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Plant this bug (see `lbaudit list bugs`); repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// How the simulator is reached.
    #[arg(long, value_name = "HOW", default_value = "inproc")]
    pub transport: Transport,
    /// Threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// End after so many different findings [default: 1 for check, no end for soak].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_failures: Option<u64>,
    /// How long one finding may be shrunk.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub shrink_time: Seconds,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u64);

/// The text is no seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no seed: give a number below 2^64, decimal or 0x...")]
pub struct BadSeed(String);

impl FromStr for Seed {
    type Err = BadSeed;
    fn from_str(text: &str) -> Result<Seed, BadSeed> {
        let seed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        seed.map(Seed).map_err(|_| BadSeed(text.to_owned()))
    }
}

/// How the simulator is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Transport {
    /// As a value in this process.
    #[default]
    Inproc,
    /// Through its HTTPS server, with a connection for each case.
    Http,
}

/// Which of the two commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Bounded; ends with its first finding.
    Check,
    /// Goes on after each finding.
    Soak,
}

/// The first event of a campaign.
#[derive(Serialize)]
#[serde(tag = "event", rename = "run_started")]
struct Started<'a> {
    version: &'a str,
    seed: u64,
    generator: u32,
    target: &'a str,
    profile: &'a str,
    policy: Option<&'a str>,
    planted: &'a [String],
    jobs: usize,
    cases: Option<u64>,
    seconds: Option<f64>,
}

/// Runs a campaign.
///
/// # Errors
/// [`Failure`] for flags that make none, and if its folder cannot be made or written.
pub fn run(args: &CampaignArgs, mode: Mode, context: &mut Context) -> Result<Exit, Failure> {
    let mut profile = profile(&args.profile)?;
    if let Some(ops) = args.ops {
        profile.steps = (profile.steps.0.min(ops), ops);
    }
    check_planted(&args.plant)?;
    let seed = args.seed.map_or_else(random_seed, |Seed(seed)| Ok(seed))?;
    let time = args.duration.map(|Seconds(time)| time);
    let cases = args.cases.or((mode == Mode::Check && time.is_none()).then_some(CASES));
    let jobs = match args.jobs {
        Some(jobs) => usize::try_from(jobs).unwrap_or(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let folder = super::suite::folder(&args.output.run_dir, RunId::random())?;
    let header = header(args, seed, jobs, cases, time);
    begin(&header, cases, time, &folder, context)?;

    let source = |case| scenario_of(args, &profile, CaseName { seed, case });
    let in_process = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        run_case(scenario, Checks::ALL, on_event)
            .unwrap_or_else(|error| CaseOutcome::unknown(Reason::Tool(error.to_string())))
    };
    let stop = context.stop.clone();
    let flag: Arc<AtomicBool> = stop.shared_flag();
    let over_https = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        run_wired(scenario, Checks::ALL, &flag, on_event)
            .unwrap_or_else(|error| CaseOutcome::unknown(Reason::Api(error.to_string())))
    };
    let recorder = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        record_case(scenario, on_event)
            .unwrap_or_else(|error| CaseOutcome::unknown(Reason::Tool(error.to_string())))
    };
    let (runner, batch): (&Runner<'_>, u64) = match args.transport {
        Transport::Inproc => (&in_process, BATCH),
        Transport::Http => (&over_https, 1),
    };
    let budget = ShrinkBudget { time: args.shrink_time.0, runs: SHRINK_RUNS };
    let (run, stop_flag) = (folder.path(), stop.flag());
    let investigator = Investigator { run, runner, recorder: &recorder, budget, stop: stop_flag };
    let campaign = Campaign {
        source: &source,
        runner,
        first: 0,
        cases: cases.unwrap_or(u64::MAX),
        time,
        jobs,
        batch,
        stop: stop.flag(),
    };
    let most = args.max_failures.or((mode == Mode::Check).then_some(1));
    let mut hunt = Hunt::new(context, &investigator, seed, time, most, &args.output.run_dir);
    let totals = run_cases(&campaign, &mut hunt);
    let reached = Reached::of(&covered(&source, campaign.first, totals.cases));
    hunt.finish(totals, Some(reached), &folder)
}

/// The scenario of a case as the flags want it.
pub(super) fn scenario_of(args: &CampaignArgs, profile: &Profile, name: CaseName) -> Scenario {
    let mut scenario = generate(profile, name);
    if let Some(policy) = args.policy {
        scenario.header.policy = policy;
        // What the policy forbids is no freedom of an honest array.
        let whole_chunks = match policy {
            Policy::Chunk | Policy::ReportOnly => true,
            Policy::Granule(lbas) => lbas.get() % 64 == 0,
            Policy::Exact => false,
        };
        scenario.header.freedoms.chunk_rounded &= whole_chunks;
    }
    scenario.header.planted.extend(args.plant.iter().cloned());
    match args.transport {
        Transport::Inproc => scenario,
        Transport::Http => over_the_wire(&scenario),
    }
}

/// The profile of that name; `default` is the first of all.
pub(super) fn profile(name: &str) -> Result<Profile, Failure> {
    let named = match name {
        "default" => PROFILES.first(),
        name => Profile::by_name(name),
    };
    named.copied().ok_or_else(|| {
        let near = nearest_of(name, PROFILES.iter().map(|profile| profile.name));
        let hint = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
        Failure::usage(format!("there is no profile `{name}`{hint}; see `lbaudit list profiles`"))
    })
}

/// Refuses names of bugs that there are not.
pub(super) fn check_planted(names: &[String]) -> Result<(), Failure> {
    match names.iter().find(|name| Planted::from_name(name).is_none()) {
        Some(name) => Err(super::unknown_bug(name)),
        None => Ok(()),
    }
}

fn random_seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| {
        Failure::could_not(format!("no random numbers for a seed: {error}; give --seed"))
    })
}

fn header(
    args: &CampaignArgs,
    seed: u64,
    jobs: usize,
    cases: Option<u64>,
    time: Option<Duration>,
) -> CampaignHeader {
    let budget = match (cases, time) {
        (Some(cases), Some(time)) => format!("{cases} cases or {} s", time.as_secs()),
        (Some(cases), None) => format!("{cases} cases"),
        (None, Some(time)) => format!("{} s", time.as_secs()),
        (None, None) => "until stopped".to_owned(),
    };
    let (target, notes) = match args.transport {
        Transport::Inproc => ("simulator", Vec::new()),
        Transport::Http => (
            "simulator over https",
            vec!["not testable here: contents of snapshots, rollback, clones, resize, restart and kill, creating and deleting volumes, operations in flight together".to_owned()],
        ),
    };
    CampaignHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: target.to_owned(),
        seed,
        generator: GENERATOR_VERSION,
        profile: args.profile.clone(),
        policy: args.policy.map(|policy| policy.to_string()),
        planted: args.plant.clone(),
        jobs,
        budget,
        notes,
    }
}

/// Says what will run, on the screen and in the run's folder.
fn begin(
    header: &CampaignHeader,
    cases: Option<u64>,
    time: Option<Duration>,
    folder: &crate::campaign::store::RunFolder,
    context: &mut Context,
) -> Result<(), Failure> {
    let started = Started {
        version: &header.version,
        seed: header.seed,
        generator: header.generator,
        target: &header.target,
        profile: &header.profile,
        policy: header.policy.as_deref(),
        planted: &header.planted,
        jobs: header.jobs,
        cases,
        seconds: time.map(|time| time.as_secs_f64()),
    };
    match context.ui.form {
        Form::Jsonl => context.ui.event(&started),
        Form::Text => header_lines(header).iter().for_each(|line| context.ui.print(line)),
    }
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!("cannot write {}: {error}", folder.path().display()))
    };
    let text = serde_json::to_string_pretty(&started).map_err(|error| cannot(error.into()))?;
    let mut file = folder.create_file("run.json").map_err(cannot)?;
    writeln!(file, "{text}").map_err(cannot)
}
