//! `check` and `soak` on QEMU's own change tracker: which daemon, which profiles, what is dear.
//! Not covered: how a case runs there (`crate::campaign::qemu_cases`).

use super::check::{Dear, Ground, Job, Mode};
use super::drive::drive;
use crate::block::{BlockSize, LbaCount, Policy, RunId};
use crate::campaign::by_hand::shell_word;
use crate::campaign::case::CaseOutcome;
use crate::campaign::qemu_cases::QemuBench;
use crate::cli::Context;
use crate::cli::args::Backend;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::config::ConfigError;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::engine::{Event, Profile, Recorded};
use crate::qemu::QemuConfig;
use crate::report::Again;
use crate::scenario::Scenario;
use crate::sim::Bug;
use std::path::PathBuf;

/// Cases of `check` if neither cases nor time are given.
const CASES: u64 = 500;
/// Ranges of one page, few enough that small volumes have several.
const PAGE_LIMIT: u32 = 3;
/// Candidates that shrinking one finding may run.
const SHRINK_RUNS: u64 = 300;
/// How often a candidate is run where the violation is a race.
const RACE_TRIES: u32 = 4;
/// Cases in a row that cannot be judged before there is no point in going on.
const PATIENCE: u64 = 5;

/// The daemon that a backend means.
pub(super) fn config(backend: Backend, qsd: Option<PathBuf>) -> QemuConfig {
    QemuConfig {
        qsd,
        nonatomic: backend == Backend::QemuNonatomic,
        clear_bitmaps: backend == Backend::QemuCleared,
        work_root: std::env::temp_dir(),
        // Every case has volumes of its own; these are never used.
        size: LbaCount::new(64),
        page_limit: PAGE_LIMIT,
        ..QemuConfig::default()
    }
}

/// The backend as its flag spells it.
pub(super) const fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Lightbits => "lightbits",
        Backend::Qemu => "qemu",
        Backend::QemuNonatomic => "qemu-nonatomic",
        Backend::QemuCleared => "qemu-cleared",
    }
}

/// Runs a campaign.
///
/// # Errors
/// [`Failure`] for flags that make none, without a usable QEMU, and if its folder cannot be written.
pub(super) fn run(args: &CampaignArgs, mode: Mode, context: &mut Context) -> Result<Exit, Failure> {
    let job = Job::new(args, mode, "qemu-racing", CASES)?;
    refuse(args, &job.profile)?;
    let stop = context.stop.clone();
    let bench = QemuBench::start(config(args.backend, args.qsd.clone()), stop.flag())
        .map_err(|error| Failure::could_not(error.to_string()))?;
    let folder = super::suite::begun_folder(&args.output.run_dir, RunId::random())?;
    let source = |case| job.scenario(case);
    let runner = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        bench.run(scenario, Recorded::Nothing, on_event)
    };
    let recorder = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        bench.run(scenario, Recorded::Blocks, on_event)
    };
    let tries = if args.backend == Backend::QemuNonatomic { RACE_TRIES } else { 1 };
    let mut notes = vec![format!("pages of at most {PAGE_LIMIT} ranges")];
    let untestable = bench.capabilities().not_testable();
    if !untestable.is_empty() {
        notes.push(format!("not testable here: {}", untestable.join(", ")));
    }
    let qsd =
        args.qsd.as_ref().map(|qsd| format!(" --qsd {}", shell_word(&qsd.display().to_string())));
    let flags = format!(" --backend {}{}", name(args.backend), qsd.unwrap_or_default());
    let again = Again { command: "lbaudit replay".to_owned(), flags, by_hand: false };
    let ground = Ground {
        target: name(args.backend).to_owned(),
        policy: Some(Policy::Exact),
        notes,
        capabilities: Some(bench.capabilities()),
        source: &source,
        reach: job.reach(),
        runner: &runner,
        cases: &runner,
        recorder: &recorder,
        batch: 1,
        api: None,
        dear: Some(Dear { runs: SHRINK_RUNS, tries, patience: PATIENCE, again }),
    };
    drive(&job, &ground, &folder, context)
}

/// Runs one scenario once.
///
/// # Errors
/// [`Failure`] without a usable QEMU.
pub(super) fn replay(
    scenario: &Scenario,
    backend: Backend,
    qsd: Option<PathBuf>,
    context: &Context,
) -> Result<CaseOutcome, Failure> {
    let bench = QemuBench::start(config(backend, qsd), context.stop.flag())
        .map_err(|error| Failure::could_not(error.to_string()))?;
    Ok(bench.run(scenario, Recorded::Nothing, &mut |_| ()))
}

/// Refuses what has no meaning on QEMU.
fn refuse(args: &CampaignArgs, profile: &Profile) -> Result<(), Failure> {
    if args.transport.is_some() {
        return Err(ConfigError::Both("--transport", "--backend").into());
    }
    if let Some(bug) = args.plant.iter().find(|name| Bug::from_name(name).is_some()) {
        return Err(Failure::usage(format!(
            "`{bug}` is a bug of the simulated array; on --backend {} only bugs of the pipeline can be planted",
            name(args.backend)
        )));
    }
    let offered = Profile::by_name("qemu-racing").map(|racing| racing.offers);
    let fits = offered.is_some_and(|offered| offered.has(profile.offers));
    if !fits || profile.block != BlockSize::DEVICE {
        return Err(Failure::usage(format!(
            "profile `{}` draws what QEMU does not offer; take qemu or qemu-racing",
            profile.name
        )));
    }
    Ok(())
}
