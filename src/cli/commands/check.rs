//! `lbaudit check` and `lbaudit soak`: random checking. Both run cases, look into what fails and
//! report; `check` is bounded and ends with its first finding, `soak` goes on. Here on the
//! simulator. Not covered: QEMU (`super::check_qemu`); findings (`super::hunt`).

use super::drive::drive;
use super::{check_live, check_qemu};
use crate::block::{BlockSize, CHUNK_LBAS, Capabilities, Extent, Lba, Policy, Role, RunId};
use crate::campaign::case::{CaseOutcome, record_case};
use crate::campaign::check::{Runner, Source};
use crate::campaign::live::{footprint, stretch};
use crate::campaign::part::Shard;
use crate::campaign::selftest::Planted;
use crate::campaign::wired::{WiredError, Wires, over_the_wire};
use crate::cli::Context;
use crate::cli::args::{Backend, OrderArg};
use crate::cli::campaign_args::{CampaignArgs, Seed, Transport};
use crate::cli::config::{ConfigError, Seconds};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::nearest_of;
use crate::engine::Event;
use crate::engine::{CaseName, Offers, PROFILES, Profile, Reach, generate};
use crate::lightbits::LightbitsClient;
use crate::oracle::{Checks, Reason};
use crate::report::Again;
use crate::scenario::{Op, Scenario, Step};
use std::time::Duration;

/// Cases of `check` on the simulator if neither cases nor time are given.
const CASES: u64 = 10_000;
/// Cases that a thread takes at once: short ones in process, slow ones over the wire.
const BATCH: u64 = 64;
/// Of so many cases one goes over the wire.
const WIRED_SHARE: u64 = 2000;

/// What the API has no call for: such operations are skipped.
const NOT_OVER_THE_WIRE: Offers = Offers::SNAPSHOT_READS
    .and(Offers::ROLLBACK)
    .and(Offers::CLONES)
    .and(Offers::RESIZE)
    .and(Offers::RESTART)
    .and(Offers::LIFECYCLE)
    .and(Offers::CONCURRENT);

/// Which of the two commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Bounded; ends with its first finding.
    Check,
    /// Goes on after each finding.
    Soak,
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
    pub(super) shard: Shard,
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
        let shard = shard(args.shard.as_deref())?;
        if shard.count() > 1 && args.seed.is_none() {
            return Err(Failure::usage(
                "--shard: shards of one campaign have one seed; give the same --seed to each",
            ));
        }
        if args.resume.is_some() && mode == Mode::Check {
            return Err(Failure::usage(
                "--resume: only `lbaudit soak` goes on with an earlier run",
            ));
        }
        Ok(Job { args, mode, profile, seed, cases, time, jobs, shard })
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
    /// What the campaign's own cases run on: the same, and what else belongs to a case there.
    pub(super) cases: &'g Runner<'g>,
    /// The same, telling records.
    pub(super) recorder: &'g Runner<'g>,
    /// Cases that a thread takes at once.
    pub(super) batch: u64,
    /// Whose calls are measured.
    pub(super) api: Option<&'g LightbitsClient>,
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
        (args.max_requests_per_s.is_some(), "--max-requests-per-s"),
        (args.max_bytes_per_s.is_some(), "--max-bytes-per-s"),
        (args.max_live_snapshots.is_some(), "--max-live-snapshots"),
        (args.audit_every.is_some(), "--audit-every"),
        (args.patience.is_some(), "--patience"),
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
    let folder = super::suite::begun_folder(&args.output.run_dir, RunId::random())?;
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
        cases: &runner,
        recorder: &recorder,
        batch,
        api: None,
        dear: None,
    };
    drive(&job, &ground, &folder, context)
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

/// The part of the campaign that is this run's. `auto` asks whoever started it.
fn shard(wanted: Option<&str>) -> Result<Shard, Failure> {
    match wanted {
        None => Ok(Shard::WHOLE),
        Some("auto") => started_as(|name| std::env::var(name).ok()),
        Some(text) => text.parse().map_err(|error| Failure::usage(format!("--shard: {error}"))),
    }
}

/// The part that Slurm (an array job) or Kubernetes (an Indexed Job) names in the environment.
/// <https://slurm.schedmd.com/job_array.html>,
/// <https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>
fn started_as(environment: impl Fn(&str) -> Option<String>) -> Result<Shard, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--shard auto: {why}; give --shard I/N"));
    let number = |name: &str| environment(name).and_then(|text| text.parse::<u64>().ok());
    let shards = number("LBAUDIT_SHARDS");
    let (index, count) = match (number("SLURM_ARRAY_TASK_ID"), number("JOB_COMPLETION_INDEX")) {
        // Who says how many there are has numbered them from 0, also if only some are run again.
        (Some(index), _) | (None, Some(index)) if shards.is_some() => (index, shards.unwrap_or(0)),
        (Some(task), _) => place_in_array(task, number).map_err(refuse)?,
        (None, Some(_)) => return Err(refuse("JOB_COMPLETION_INDEX needs LBAUDIT_SHARDS")),
        (None, None) => {
            return Err(refuse("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"));
        }
    };
    Shard::new(index, count).ok_or_else(|| refuse("the index is not below the count"))
}

/// Which of how many an array's task is, as far as Slurm says: arrays may begin anywhere and go by
/// steps, but one with gaps, or with a single task, may be what is run again of a larger one.
fn place_in_array(
    task: u64,
    number: impl Fn(&str) -> Option<u64>,
) -> Result<(u64, u64), &'static str> {
    let of_array = |name: &str| number(&format!("SLURM_ARRAY_TASK_{name}"));
    let count = of_array("COUNT").ok_or("SLURM_ARRAY_TASK_COUNT is not set")?;
    let (first, step) = (of_array("MIN").unwrap_or(0), of_array("STEP").unwrap_or(1).max(1));
    let last = count.checked_sub(1).map(|steps| first.saturating_add(steps.saturating_mul(step)));
    if count < 2 || of_array("MAX").is_some_and(|is| Some(is) != last) {
        return Err(
            "of which campaign this array is cannot be told from it: set LBAUDIT_SHARDS, and \
                    number its tasks from 0",
        );
    }
    match task.checked_sub(first) {
        Some(past) if past.is_multiple_of(step) => Ok((past / step, count)),
        _ => Err("the task is none of the array's"),
    }
}

fn random_seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| {
        Failure::could_not(format!("no random numbers for a seed: {error}; give --seed"))
    })
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

    #[test]
    fn slurm_and_kubernetes_say_which_part_it_is() {
        let part = |set: &[(&str, &str)]| {
            let found = started_as(|name| {
                set.iter().find(|(is, _)| *is == name).map(|(_, value)| (*value).to_owned())
            });
            found.map(|shard| shard.to_string()).map_err(|failure| failure.exit)
        };
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(part(&slurm), Ok("3/4".to_owned()));
        let from_one = [&slurm[..], &[("SLURM_ARRAY_TASK_MIN", "1")]].concat();
        assert_eq!(part(&from_one), Ok("2/4".to_owned()));
        let stepped = |task| {
            [
                ("SLURM_ARRAY_TASK_ID", task),
                ("SLURM_ARRAY_TASK_COUNT", "4"),
                ("SLURM_ARRAY_TASK_MIN", "1"),
                ("SLURM_ARRAY_TASK_MAX", "7"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
            ]
        };
        assert_eq!(part(&stepped("5")), Ok("2/4".to_owned()));
        assert_eq!(part(&stepped("4")), Err(Exit::Usage));
        // Tasks 1, 2 and 9; task 2 once more.
        let gaps = [&slurm[..], &[("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_MAX", "9")]];
        assert_eq!(part(&gaps.concat()), Err(Exit::Usage));
        let again = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "1")];
        assert_eq!(part(&again), Err(Exit::Usage));
        let again = [&again[..], &[("LBAUDIT_SHARDS", "4")]].concat();
        assert_eq!(part(&again), Ok("2/4".to_owned()));
        let indexed = [("JOB_COMPLETION_INDEX", "0"), ("LBAUDIT_SHARDS", "6")];
        assert_eq!(part(&indexed), Ok("0/6".to_owned()));
        assert_eq!(part(&indexed[..1]), Err(Exit::Usage), "how many is not known");
        assert_eq!(part(&[("SLURM_ARRAY_TASK_ID", "4"), slurm[1]]), Err(Exit::Usage));
    }

    fn profile_of(name: &str) -> Profile {
        *Profile::by_name(name).expect("a profile")
    }
}
