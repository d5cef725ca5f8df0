//! `lbaudit check` and `lbaudit soak`: random checking. Both run cases, look into what fails and
//! report; `check` is bounded and ends with its first finding, `soak` goes on. Here on the
//! simulator. Not covered: QEMU (`super::check_qemu`); findings (`super::hunt`).

use super::hunt::Hunt;
use super::{check_live, check_qemu};
use crate::block::{BlockSize, CHUNK_LBAS, Capabilities, Extent, Lba, Policy, Role, RunId};
use crate::campaign::case::{CaseOutcome, record_case};
use crate::campaign::check::{Campaign, Runner, Source, run_cases};
use crate::campaign::covered::covered;
use crate::campaign::finding::Investigator;
use crate::campaign::live::{footprint, stretch};
use crate::campaign::selftest::Planted;
use crate::campaign::store::RunFolder;
use crate::campaign::wired::{WiredError, Wires, over_the_wire};
use crate::cli::Context;
use crate::cli::args::{Backend, ConsentArgs, Form, OrderArg, OutputArgs, TargetArgs};
use crate::cli::config::{ConfigError, Seconds, Size};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::nearest_of;
use crate::engine::Event;
use crate::engine::ShrinkBudget;
use crate::engine::{CaseName, GENERATOR_VERSION, Offers, PROFILES, Profile, Reach, generate};
use crate::oracle::{Checks, Reason};
use crate::report::{Again, CampaignHeader, Reached, header_lines};
use crate::scenario::{Op, Scenario, Step};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Cases of `check` on the simulator if neither cases nor time are given.
const CASES: u64 = 10_000;
/// Cases that a thread takes at once: short ones in process, slow ones over the wire.
const BATCH: u64 = 64;
/// Of so many cases one goes over the wire.
const WIRED_SHARE: u64 = 2000;
/// Runs that shrinking may take at most, whatever its time.
const SHRINK_RUNS: u64 = 100_000;

/// What the API has no call for: such operations are skipped.
const NOT_OVER_THE_WIRE: Offers = Offers::SNAPSHOT_READS
    .and(Offers::ROLLBACK)
    .and(Offers::CLONES)
    .and(Offers::RESIZE)
    .and(Offers::RESTART)
    .and(Offers::LIFECYCLE)
    .and(Offers::CONCURRENT);

const ON_AN_ARRAY: &str = "On an array";

/// Random checking.
#[derive(Args, Clone, Debug)]
pub struct CampaignArgs {
    /// Seed, decimal or 0x...: the same seed gives the same cases [default: drawn and printed].
    #[arg(long, value_name = "S")]
    pub seed: Option<Seed>,
    /// How many cases [default of check: 10000, or until --duration is over].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub cases: Option<u64>,
    /// How long (s, m, h).
    #[arg(long, value_name = "TIME", value_parser = Seconds::not_zero)]
    pub duration: Option<Seconds>,
    /// Operations of a case at most, not counting those that observe at its end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ops: Option<u32>,
    /// What to draw (see `lbaudit list profiles`) [default: everything that the target offers].
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub profile: String,
    /// Which target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What may be destroyed there.
    #[command(flatten, next_help_heading = ON_AN_ARRAY)]
    pub consent: ConsentArgs,
    /// How much of the volumes is written [default: 64MiB].
    #[arg(long, value_name = "SIZE", help_heading = ON_AN_ARRAY)]
    pub region: Option<Size>,
    /// Where that part begins [default: 0].
    #[arg(long, value_name = "SIZE", help_heading = ON_AN_ARRAY)]
    pub region_at: Option<Size>,
    /// Read snapshots through clones: volumes made of them, and deleted again, by this run.
    #[arg(long, help_heading = ON_AN_ARRAY)]
    pub clones: bool,
    /// Run exactly this trace, once.
    #[arg(long, value_name = "FILE", help_heading = ON_AN_ARRAY)]
    pub scenario: Option<PathBuf>,
    /// How long a snapshot may take to become Available, or to be gone [default: 180s].
    #[arg(long, value_name = "TIME", help_heading = ON_AN_ARRAY, value_parser = Seconds::not_zero)]
    pub snapshot_timeout: Option<Seconds>,
    /// Order of the bytes of a bitmap.
    #[arg(long, value_name = "ORDER", default_value = "auto", help_heading = ON_AN_ARRAY)]
    pub bitmap_order: OrderArg,
    /// Who plays the array.
    #[arg(long, value_name = "NAME", default_value = "lightbits")]
    pub backend: Backend,
    /// qemu-storage-daemon, if it is not on PATH.
    #[arg(long, value_name = "PATH")]
    pub qsd: Option<PathBuf>,
    /// How over-reporting is judged: exact, chunk, granule=N, report-only [default: drawn for each
    /// case, as its array may do].
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Plant this bug (see `lbaudit list bugs`); repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// How the simulator is reached [default: in this process, but for one case in 2000].
    #[arg(long, value_name = "HOW")]
    pub transport: Option<Transport>,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// As a value in this process, every case.
    Inproc,
    /// Through its HTTPS server, every case.
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
    run: String,
    arguments: Vec<String>,
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
    notes: &'a [String],
    /// What the target can be tested for, if every case has the same.
    capabilities: Option<&'a Capabilities>,
}

/// What is settled before a target is opened.
pub(super) struct Job<'a> {
    pub(super) args: &'a CampaignArgs,
    pub(super) mode: Mode,
    pub(super) profile: Profile,
    pub(super) seed: u64,
    pub(super) cases: Option<u64>,
    pub(super) time: Option<Duration>,
    pub(super) jobs: usize,
}

impl Job<'_> {
    /// `profile` is taken if none was named, `cases` bounds a check that nothing else bounds.
    pub(super) fn new<'a>(
        args: &'a CampaignArgs,
        mode: Mode,
        default_profile: &str,
        cases: u64,
    ) -> Result<Job<'a>, Failure> {
        let named = match args.profile.as_str() {
            "default" => default_profile,
            named => named,
        };
        let mut profile = profile(named)?;
        if let Some(ops) = args.ops {
            profile.steps = (profile.steps.0.min(ops), ops);
        }
        check_planted(&args.plant)?;
        let seed = args.seed.map_or_else(random_seed, |Seed(seed)| Ok(seed))?;
        let time = args.duration.map(|Seconds(time)| time);
        let bounded = mode == Mode::Check && time.is_none();
        let cases = args.cases.or(bounded.then_some(cases));
        let jobs = match args.jobs {
            Some(jobs) => usize::try_from(jobs).unwrap_or(1),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Job { args, mode, profile, seed, cases, time, jobs })
    }
    /// What its cases can reach on a target that skips nothing.
    pub(super) fn reach(&self) -> Reach {
        let reach = Reach::of(&self.profile);
        match self.args.policy {
            Some(policy) if !allows_whole_chunks(policy) => reach.unrounded(),
            _ => reach,
        }
    }
    /// The scenario of a case.
    pub(super) fn scenario(&self, case: u64) -> Scenario {
        scenario_of(self.args, &self.profile, CaseName { seed: self.seed, case })
    }
}

/// What cases run on.
pub(super) struct Ground<'g> {
    /// Its name.
    pub(super) target: String,
    /// How over-reporting is judged, if nothing was said and it is not drawn for each case.
    pub(super) policy: Option<Policy>,
    /// What it cannot test, and whatever else must be known of it.
    pub(super) notes: Vec<String>,
    /// What can be tested, if every case has the same.
    pub(super) capabilities: Option<Capabilities>,
    pub(super) source: &'g Source<'g>,
    /// What its cases can reach.
    pub(super) reach: Reach,
    pub(super) runner: &'g Runner<'g>,
    /// The same, telling records.
    pub(super) recorder: &'g Runner<'g>,
    /// Cases that a thread takes at once.
    pub(super) batch: u64,
    /// Set if its runs are dear.
    pub(super) dear: Option<Dear>,
}

/// What is different on a target whose runs are dear and need not repeat themselves.
pub(super) struct Dear {
    /// Runs that shrinking one finding may take at most.
    pub(super) runs: u64,
    /// How often a candidate is run before it counts as not showing the violation.
    pub(super) tries: u32,
    /// Cases in a row that cannot be judged before the campaign ends.
    pub(super) patience: u64,
    /// How a finding is seen once more.
    pub(super) again: Again,
}

/// Runs a campaign.
///
/// # Errors
/// [`Failure`] for flags that make none, and if its folder cannot be made or written.
pub fn run(
    args: &CampaignArgs,
    mode: Mode,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    match (args.backend, args.target.first_given()) {
        (Backend::Lightbits, Some(given)) => check_live::run(args, mode, given, env_token, context),
        (Backend::Lightbits, None) => {
            refuse_array_flags(args)?;
            on_simulator(args, mode, context)
        }
        (_, Some(given)) => Err(ConfigError::Both("--backend", given).into()),
        (_, None) => {
            refuse_array_flags(args)?;
            check_qemu::run(args, mode, context)
        }
    }
}

/// Flags that only mean something on an array, without one.
fn refuse_array_flags(args: &CampaignArgs) -> Result<(), Failure> {
    let given = [
        (args.region.is_some(), "--region"),
        (args.region_at.is_some(), "--region-at"),
        (args.clones, "--clones"),
        (args.scenario.is_some(), "--scenario"),
        (args.snapshot_timeout.is_some(), "--snapshot-timeout"),
        (args.bitmap_order != OrderArg::Auto, "--bitmap-order"),
    ];
    let given = given.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag));
    match args.consent.first_given().or(given) {
        Some(given) => {
            Err(ConfigError::Incomplete { given, missing: "--endpoint".to_owned() }.into())
        }
        None => Ok(()),
    }
}

fn on_simulator(args: &CampaignArgs, mode: Mode, context: &mut Context) -> Result<Exit, Failure> {
    let job = Job::new(args, mode, "default", CASES)?;
    let source = |case| job.scenario(case);
    let wires = Wires::new(context.stop.shared_flag());
    let runner = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        wires.run(scenario, Checks::ALL, on_event).unwrap_or_else(|error| {
            CaseOutcome::unknown(match error {
                WiredError::World(error) => Reason::Tool(error.to_string()),
                other => Reason::Api(other.to_string()),
            })
        })
    };
    let untestable = "contents of snapshots, rollback, clones, resize, restart and kill, creating and deleting volumes, operations in flight together";
    let mut reach = job.reach();
    let (target, batch, notes) = match args.transport {
        Some(Transport::Inproc) => ("simulator", BATCH, Vec::new()),
        Some(Transport::Http) => {
            reach = reach.without(NOT_OVER_THE_WIRE);
            ("simulator over https", 1, vec![format!("not testable here: {untestable}")])
        }
        None => (
            "simulator",
            BATCH,
            vec![format!("1 case in {WIRED_SHARE} goes through JSON and HTTPS (--transport)")],
        ),
    };
    let target = target.to_owned();
    let folder = super::suite::folder(&args.output.run_dir, RunId::random())?;
    let recorder = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        record_case(scenario, on_event)
            .unwrap_or_else(|error| CaseOutcome::unknown(Reason::Tool(error.to_string())))
    };
    let ground = Ground {
        target,
        policy: None,
        notes,
        capabilities: None,
        source: &source,
        reach,
        runner: &runner,
        recorder: &recorder,
        batch,
        dear: None,
    };
    drive(&job, &ground, &folder, context)
}

/// Runs the cases of a job on a ground, looks into what fails and reports.
///
/// # Errors
/// If the run's folder cannot be written.
pub(super) fn drive(
    job: &Job<'_>,
    ground: &Ground<'_>,
    folder: &RunFolder,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let args = job.args;
    begin((&header(job, ground), ground.capabilities.as_ref()), job, folder, context)?;
    let stop = context.stop.clone();
    let runs = ground.dear.as_ref().map_or(SHRINK_RUNS, |dear| dear.runs);
    let budget = ShrinkBudget { time: args.shrink_time.0, runs };
    let runners = (ground.runner, ground.recorder);
    let mut investigator = Investigator::new(folder.path(), runners, budget, stop.flag());
    if let Some(dear) = &ground.dear {
        (investigator.tries, investigator.stand_in) = (dear.tries, true);
        investigator.by_hand = dear.again.by_hand;
    }
    let campaign = Campaign {
        source: ground.source,
        runner: ground.runner,
        first: 0,
        cases: job.cases.unwrap_or(u64::MAX),
        time: job.time,
        jobs: job.jobs,
        batch: ground.batch,
        stop: stop.flag(),
    };
    let most = args.max_failures.or((job.mode == Mode::Check).then_some(1));
    let mut hunt =
        Hunt::new(context, &investigator, job.seed, job.time, most, &args.output.run_dir);
    if let Some(dear) = &ground.dear {
        hunt = hunt.on_target(dear.patience, dear.again.clone());
    }
    let totals = run_cases(&campaign, &mut hunt);
    let reached = Reached::of(&covered(ground.source, campaign.first, totals.cases, ground.reach));
    hunt.finish(totals, Some(reached), folder)
}

/// The scenario of a case as the flags want it.
pub(super) fn scenario_of(args: &CampaignArgs, profile: &Profile, name: CaseName) -> Scenario {
    let mut scenario = draw(profile, name, args.transport);
    if let Some(policy) = args.policy {
        scenario.header.policy = policy;
        // What the policy forbids is no freedom of an honest array.
        scenario.header.freedoms.chunk_rounded &= allows_whole_chunks(policy);
    }
    scenario.header.planted.extend(args.plant.iter().cloned());
    scenario
}

/// Whether an honest array may round changes out to whole chunks.
const fn allows_whole_chunks(policy: Policy) -> bool {
    match policy {
        Policy::Chunk | Policy::ReportOnly => true,
        Policy::Granule(lbas) => lbas.get() % CHUNK_LBAS == 0,
        Policy::Exact => false,
    }
}

/// Draws a case and decides how it goes to the simulator: by its number alone, if nothing was said.
pub(super) fn draw(profile: &Profile, name: CaseName, transport: Option<Transport>) -> Scenario {
    let mut scenario = generate(profile, name);
    if profile.block == BlockSize::DEVICE {
        scenario.steps.extend(target_read_back(&scenario));
    }
    let wired = match transport {
        Some(Transport::Inproc) => false,
        Some(Transport::Http) => true,
        // A target that is no simulator is reached in its own way.
        None => profile.offers.has(Offers::SIMULATED) && name.case.is_multiple_of(WIRED_SHARE),
    };
    if wired { over_the_wire(&scenario) } else { scenario }
}

/// Reading back what the copies of a case made of the target: on a device only the surroundings of
/// each copy are read after it. A new volume is read as a whole, one with a past where the case was.
fn target_read_back(scenario: &Scenario) -> Option<Step> {
    let shape = scenario.header.volumes.get(&Role::Target)?;
    let mut copies = false;
    for step in &scenario.steps {
        step.op.each(&mut |op| copies |= matches!(op, Op::Sync { .. } | Op::SyncChain { .. }));
    }
    let at = match shape.fresh {
        true => Extent::new(Lba::new(0), shape.len),
        false => stretch(&footprint(scenario)).runs().first().copied(),
    };
    let at = at.filter(|_| copies)?;
    let read = Op::Read { snap: None, at };
    Some(Op::On { volume: Role::Target, op: Box::new(read) }.into())
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

fn header(job: &Job<'_>, ground: &Ground<'_>) -> CampaignHeader {
    let args = job.args;
    let budget = match (job.cases, job.time) {
        (Some(cases), Some(time)) => format!("{cases} cases or {} s", time.as_secs()),
        (Some(cases), None) => format!("{cases} cases"),
        (None, Some(time)) => format!("{} s", time.as_secs()),
        (None, None) => "until stopped".to_owned(),
    };
    let mut notes = ground.notes.clone();
    if let Some(dear) = &ground.dear {
        let seconds = args.shrink_time.0.as_secs();
        notes.push(format!(
            "shrinking a finding takes at most {seconds} s and {} candidates on the target, each run up to {} times",
            dear.runs, dear.tries
        ));
    }
    CampaignHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: ground.target.clone(),
        seed: job.seed,
        generator: GENERATOR_VERSION,
        profile: match args.profile.as_str() {
            "default" if ground.dear.is_none() => args.profile.clone(),
            _ => job.profile.name.to_owned(),
        },
        policy: args.policy.or(ground.policy).map(|policy| policy.to_string()),
        planted: args.plant.clone(),
        jobs: job.jobs,
        budget,
        notes,
    }
}

/// Says what will run, on the screen and in the run's folder.
fn begin(
    (header, capabilities): (&CampaignHeader, Option<&Capabilities>),
    job: &Job<'_>,
    folder: &RunFolder,
    context: &mut Context,
) -> Result<(), Failure> {
    let started = Started {
        run: folder.run().to_string(),
        arguments: super::own_arguments(),
        version: &header.version,
        seed: header.seed,
        generator: header.generator,
        target: &header.target,
        profile: &header.profile,
        policy: header.policy.as_deref(),
        planted: &header.planted,
        jobs: header.jobs,
        cases: job.cases,
        seconds: job.time.map(|time| time.as_secs_f64()),
        notes: &header.notes,
        capabilities,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_on_devices_that_copied_ends_by_reading_the_target() {
        let mut read = 0;
        for (profile, case) in
            ["qemu", "live"].into_iter().flat_map(|p| (0..60).map(move |c| (p, c)))
        {
            let profile = profile_of(profile);
            let name = CaseName { seed: 1, case };
            let (plain, drawn) = (generate(&profile, name), draw(&profile, name, None));
            assert_eq!(drawn.steps[..plain.steps.len()], plain.steps);
            let Some(Op::On { volume: Role::Target, op }) = drawn.steps.last().map(|s| &s.op)
            else {
                panic!("{drawn:?}")
            };
            let Op::Read { snap: None, at } = op.as_ref() else { panic!("{op:?}") };
            let len = drawn.header.volumes[&Role::Target].len;
            assert!(profile.fresh == Some(false) || at.len_lbas() == len, "all of a new volume");
            assert!(at.end().get() <= len.get());
            read += 1;
        }
        assert_eq!(read, 120, "each of them copies");
        let mut still = generate(&profile_of("qemu"), CaseName { seed: 1, case: 1 });
        still.steps.retain(|step| !matches!(step.op, Op::Sync { .. } | Op::SyncChain { .. }));
        assert_eq!(target_read_back(&still), None, "nothing was copied");
        let simulated = profile_of("all");
        let name = CaseName { seed: 1, case: 1 };
        assert_eq!(draw(&simulated, name, None), generate(&simulated, name));
    }

    fn profile_of(name: &str) -> Profile {
        *Profile::by_name(name).expect("a profile")
    }
}
