//! `check` and `soak` on a real array: guards, consent and handshake as in the suite, cases in one
//! region, every snapshot deleted at the end. Not covered: how a case runs there
//! (`crate::campaign::live`).

use super::check::{Dear, Ground, Job, Mode, scenario_of};
use super::drive::drive;
use super::suite::{begun_folder, clean_command};
use crate::array::{Array, BlockDevice, Pace, PacedDevice, RealClock, Waiting};
use crate::block::{BitmapOrder, BlockSize, Extent, Lba, LbaCount, Policy, Role, RunId};
use crate::campaign::by_hand::shell_word;
use crate::campaign::case::CaseOutcome;
use crate::campaign::check::Runner;
use crate::campaign::cleanup::{Runs, delete, leftovers_of_run};
use crate::campaign::clone_reader::{CloneReader, Device};
use crate::campaign::journal::{Journal, Journalled, JournalledClones};
use crate::campaign::live::{LiveBench, Region};
use crate::campaign::patience::Patience;
use crate::campaign::quota::within_quota;
use crate::campaign::replay::load;
use crate::campaign::store::run_of_folder;
use crate::campaign::target_audit::TargetAudit;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::config::{ConfigError, Connection, Size, Token, Volumes};
use crate::cli::connect::{INSECURE, connect};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::{Context, volumes};
use crate::device::{Host, ReadOnlyDevice};
use crate::engine::{CaseName, Event, Ledger, Profile, Recorded};
use crate::lightbits::LightbitsClient;
use crate::model::Model;
use crate::oracle::{Reason, Verdict};
use crate::report::Again;
use crate::scenario::Scenario;
use crate::sim::Bug;
use crate::sync::ChecksumError;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// Cases of `check` if neither cases nor time are given.
const CASES: u64 = 50;
/// How much of the volumes is written, if it is not said.
const REGION: LbaCount = LbaCount::mib(64);
/// How long a snapshot may take, if it is not said.
const PATIENCE: Duration = Duration::from_secs(180);
/// Candidates that shrinking one finding may run.
const SHRINK_RUNS: u64 = 100;
/// How often a candidate is run: an array's answers need not repeat themselves.
const TRIES: u32 = 1;
/// Cases in a row that cannot be judged before there is no point in going on.
const GIVE_UP_AFTER: u64 = 3;
/// Cases of a soak between two full reads of the target's region.
const AUDIT_EVERY: u64 = 100;
/// How long a soak waits for an array that is unwell.
const UNWELL: Duration = Duration::from_secs(3600);

/// Runs a campaign. `given` is the first flag that names the target.
///
/// # Errors
/// [`Failure`] if it did not come to a single case.
pub(super) fn run(
    args: &CampaignArgs,
    mode: Mode,
    given: &'static str,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let wanted = args.target.volumes()?;
    let connection = args.target.connection(env_token, &["--source-uuid", "--target-uuid"])?;
    let mut job = Job::new(args, mode, richest(args), CASES)?;
    refuse(args, &job.profile, given)?;
    let at = region(args)?;
    job.profile.lens = lens(at.len_lbas())?;
    job.jobs = 1;
    let loaded = args.scenario.as_deref().map(load).transpose()?;
    if loaded.is_some() {
        job.cases = Some(1);
    }
    on_array(&job, (&connection, &wanted), at, loaded, context)
}

/// The profile of everything that the target offers.
const fn richest(args: &CampaignArgs) -> &'static str {
    if args.clones { "live-clones" } else { "live" }
}

/// The part of the volumes that is written.
fn region(args: &CampaignArgs) -> Result<Extent, Failure> {
    let lbas = |size: Size, flag: &str| {
        let bytes = size.0.get();
        let chunk = BlockSize::DEVICE.bytes() * crate::block::CHUNK_LBAS;
        match bytes.is_multiple_of(chunk) {
            true => Ok(LbaCount::new(bytes / BlockSize::DEVICE.bytes())),
            false => Err(Failure::usage(format!("{flag} must be a multiple of 256KiB"))),
        }
    };
    let len = args.region.map_or(Ok(REGION), |size| lbas(size, "--region"))?;
    let start = args.region_at.map_or(Ok(LbaCount::ZERO), |size| lbas(size, "--region-at"))?;
    Extent::new(Lba::new(start.get()), len)
        .ok_or_else(|| Failure::usage("--region must be at least 8MiB"))
}

/// Sizes that cases may be drawn for in a region of that size.
fn lens(region: LbaCount) -> Result<&'static [u64], Failure> {
    match region.get() {
        // Some cases add a partial chunk.
        8256.. => Ok(&[4096, 8192, 2048]),
        4160.. => Ok(&[4096, 2048]),
        2112.. => Ok(&[2048]),
        2048.. => Ok(&[1024]),
        _ => Err(Failure::usage("--region must be at least 8MiB")),
    }
}

/// Refuses what has no meaning on an array.
fn refuse(args: &CampaignArgs, profile: &Profile, given: &'static str) -> Result<(), Failure> {
    if args.transport.is_some() {
        return Err(ConfigError::Both("--transport", given).into());
    }
    if args.jobs.is_some_and(|jobs| jobs > 1) {
        return Err(Failure::usage(
            "--jobs: on an array one case runs at a time, for one snapshot is in the making at a time",
        ));
    }
    if let Some(bug) = args.plant.iter().find(|name| Bug::from_name(name).is_some()) {
        return Err(Failure::usage(format!(
            "`{bug}` is a bug of the simulated array: plant it with `lbaudit sim serve --plant {bug}`, or run without target flags"
        )));
    }
    let offered = Profile::by_name(richest(args)).map(|live| live.offers);
    let fits = offered.is_some_and(|offered| offered.has(profile.offers));
    if !fits || profile.block != BlockSize::DEVICE {
        return Err(Failure::usage(format!(
            "profile `{}` draws what an array does not offer; take {}",
            profile.name,
            richest(args)
        )));
    }
    Ok(())
}

fn on_array(
    job: &Job<'_>,
    (connection, wanted): (&Connection, &Volumes),
    at: Extent,
    loaded: Option<Scenario>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let args = job.args;
    let order = args.bitmap_order.order().unwrap_or(BitmapOrder::Little);
    let client = connect(connection, order, context)?.client;
    if let Some(per_s) = args.max_requests_per_s {
        client.keep_pace(Pace::new(per_s));
    }
    let footprint = LbaCount::new(at.end().get());
    let opened = volumes::open(&client, wanted, &args.consent, footprint, &mut context.ui)?;
    let shapes = volumes::shapes(&opened.infos, false);
    let region = Region::new(at, shapes.clone())
        .ok_or_else(|| Failure::usage("the region does not lie in both volumes: see --region"))?;
    let run_id = RunId::random();
    let folder = begun_folder(&args.output.run_dir, run_id)?;
    let journal = Journal::create(&folder.path().join("journal.jsonl"), run_id)
        .map_err(|error| Failure::could_not(format!("cannot keep a journal: {error}")))?;
    let plain = Journalled::new(&client, &journal);
    let (clock, ledger, stop) = (RealClock::new(), Ledger::new(run_id), context.stop.clone());
    let clean = clean_command(connection, wanted, &args.output.run_dir);
    stop.on_second(clean.clone());
    let limit = args.snapshot_timeout.map_or(PATIENCE, |time| time.0);
    let waiting = Waiting { available: limit, gone: limit, stop: stop.flag() };
    let (sysfs, source_path) = (Host::default().sysfs, opened.source.path().to_owned());
    let open = |volume, bytes| {
        let opened = ReadOnlyDevice::of_volume(&sysfs, volume, bytes)
            .or_else(|| ReadOnlyDevice::beside(&sysfs, &source_path, volume, bytes))?;
        Some(opened.map(|device| Box::new(device) as Device))
    };
    let clones = JournalledClones::new(&client, &journal);
    let reader = CloneReader::new((&plain, clones), &open, &ledger, (&clock, waiting));
    let array: &dyn Array = if args.clones { &reader } else { &plain };
    let port = volumes::RunPort {
        array,
        clock: &clock,
        waiting,
        ledger: &ledger,
        journal: &journal,
        region: Some(at),
    };
    if let Some(earlier) = &args.resume {
        sweep_earlier(Path::new(earlier), &client, (&clock, waiting), context);
    }
    let mut notes = vec![
        format!(
            "{} as {}",
            connection.endpoints.join(", "),
            volumes::title(&opened.infos[0], &opened.source)
        ),
        format!("writes {} LBAs from {}", at.len_lbas(), at.start()),
        format!("not testable here: {}", array.capabilities().not_testable().join(", ")),
    ];
    notes.extend(connection.tls.insecure.then(|| INSECURE.to_owned()));
    // The handshake's writes are of its own model: each case begins with what is unknown.
    let mut model = Model::new(run_id, &shapes, array.capabilities());
    let policy = args.policy.unwrap_or(Policy::Chunk);
    let armed =
        volumes::arm(&port, opened, shapes, &mut model, policy, &context.stop, &context.ui)?;
    notes.extend(armed.notes.iter().cloned());
    notes.extend(armed.findings.iter().map(|finding| format!("handshake: {finding}")));
    let pace = args.max_bytes_per_s.and_then(|size| NonZeroU64::new(size.0.get())).map(Pace::new);
    let paced = |device| pace.as_ref().map(|pace| PacedDevice::new(device, pace, stop.flag()));
    let (source_paced, target_paced) = (paced(&armed.source), paced(&armed.target));
    let source_device = source_paced.as_ref().map_or(&armed.source as &dyn BlockDevice, |it| it);
    let target_device = target_paced.as_ref().map_or(&armed.target as &dyn BlockDevice, |it| it);
    let bench = LiveBench {
        array,
        volumes: BTreeMap::from([
            (Role::Source, (wanted.source, source_device)),
            (Role::Target, (wanted.target, target_device)),
        ]),
        clock: &clock,
        waiting,
        ledger: &ledger,
        region,
        turn: Mutex::new(()),
    };
    let source = |case| match &loaded {
        Some(scenario) => scenario.clone(),
        None => {
            let name = CaseName { seed: job.seed, case };
            let mut scenario = bench.region.place(scenario_of(args, &job.profile, name), case);
            scenario.header.policy = policy;
            match args.max_live_snapshots.and_then(|most| usize::try_from(most).ok()) {
                Some(most) => within_quota(scenario, most),
                None => scenario,
            }
        }
    };
    let every = args.audit_every.unwrap_or(AUDIT_EVERY);
    let audit = TargetAudit::new(target_device, at, every, stop.flag());
    let runner = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        audit.ran(scenario);
        bench.run(scenario, Recorded::Nothing, on_event)
    };
    let recorder = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        audit.ran(scenario);
        bench.run(scenario, Recorded::Blocks, on_event)
    };
    let say = |text: &str| drop(writeln!(std::io::stderr(), "{text}"));
    let long = Patience {
        most: args.patience.map_or(UNWELL, |time| time.0),
        clock: &clock,
        stop: stop.flag(),
        say: &say,
        spent: AtomicBool::new(false),
    };
    let soaked = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        long.with(|| audited(runner(scenario, on_event), &audit))
    };
    let cases: &Runner<'_> = if job.mode == Mode::Soak { &soaked } else { &runner };
    let again = Again {
        command: "lbaudit check --scenario".to_owned(),
        flags: again_flags(job, connection, wanted, at),
        by_hand: true,
    };
    // A scenario that was given is to be seen once more, not made shorter.
    let runs = if loaded.is_some() { 0 } else { SHRINK_RUNS };
    let dear = Dear { runs, tries: TRIES, patience: GIVE_UP_AFTER, again };
    let ground = Ground {
        target: "lightbits".to_owned(),
        policy: Some(policy),
        notes,
        capabilities: Some(array.capabilities()),
        source: &source,
        reach: job.reach().placed(),
        runner: &runner,
        cases,
        recorder: &recorder,
        batch: 1,
        api: Some(&client),
        dear: Some(dear),
    };
    let exit = drive(job, &ground, &folder, context);
    volumes::sweep(&port);
    if client.retries() > 0 {
        context.ui.say(&format!("note: {} calls had to be repeated", client.retries()));
    }
    let left = ledger.live().len() + journal.open_clones().len();
    if left > 0 {
        context.ui.say(&format!(
            "{left} snapshots and clones of this run are on the array; to delete them: {clean}"
        ));
    }
    let exit = exit?;
    let exit = if armed.findings.is_empty() { exit } else { exit.or(Exit::Violation) };
    Ok(if left > 0 { exit.or(Exit::Nothing) } else { exit })
}

/// Deletes what the run that this one goes on with left: it was killed, or it would have done so.
fn sweep_earlier(
    folder: &Path,
    client: &LightbitsClient,
    (clock, waiting): (&RealClock, Waiting<'_>),
    context: &mut Context,
) {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some(run), Some(root)) = (run_of_folder(name), folder.parent()) else { return };
    let runs = Runs { root, own: None, delete_unknown: false };
    let found = leftovers_of_run(client, run, runs, SystemTime::now());
    let said = match found {
        Err(error) => format!("what the earlier run left was not looked for: {error}"),
        Ok(found) if found.is_empty() => return,
        Ok(found) => {
            let left = delete(client, clock, waiting, runs, &found).len();
            format!(
                "deleted {} of {} snapshots that the earlier run left",
                found.len() - left,
                found.len()
            )
        }
    };
    context.ui.say(&said);
}

/// The outcome of a case of a soak, with what the whole target has to say.
fn audited(mut outcome: CaseOutcome, audit: &TargetAudit<'_>) -> CaseOutcome {
    if outcome.verdict != Verdict::Pass {
        return outcome;
    }
    match audit.case_over() {
        Ok(None) => {}
        Ok(Some(violation)) => outcome.verdict = Verdict::Fail(vec![violation]),
        Err(ChecksumError::Interrupted) => {
            outcome.verdict = Verdict::Unknown(Reason::Interrupted);
        }
        Err(error) => outcome.verdict = Verdict::Unknown(Reason::Device(error.to_string())),
    }
    outcome
}

/// The flags that run a finding's scenario again on this array. They never hold the token.
fn again_flags(job: &Job<'_>, connection: &Connection, wanted: &Volumes, at: Extent) -> String {
    let mut flags = String::new();
    let mut add = |flag: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = write!(flags, " {flag} {}", shell_word(&value.to_string()));
    };
    connection.endpoints.iter().for_each(|endpoint| add("--endpoint", endpoint));
    if connection.project != "default" {
        add("--project", &connection.project);
    }
    connection.tls.pins.iter().for_each(|pin| add("--pin-sha256", pin));
    if let Some(path) = &connection.tls.ca_file {
        add("--ca-file", &path.display());
    }
    if let Token::File(path) = &connection.token {
        add("--jwt-file", &path.display());
    }
    if let Some(policy) = job.args.policy {
        add("--policy", &policy);
    }
    for (uuid, device, (uuid_flag, device_flag)) in [
        (wanted.source, &wanted.source_device, ("--source-uuid", "--source-device")),
        (wanted.target, &wanted.target_device, ("--target-uuid", "--target-device")),
    ] {
        add(uuid_flag, &uuid);
        if let Some(device) = device {
            add(device_flag, &device.display());
        }
    }
    let bytes = |lbas: u64| lbas * BlockSize::DEVICE.bytes();
    add("--region", &bytes(at.len_lbas().get()));
    if at.start() > Lba::new(0) {
        add("--region-at", &bytes(at.start().get()));
    }
    for bug in &job.args.plant {
        add("--plant", bug);
    }
    for (is_given, flag) in
        [(job.args.clones, " --clones"), (connection.tls.insecure, " --insecure")]
    {
        if is_given {
            flags.push_str(flag);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_drawn_for_sizes_that_fit_the_region() {
        for mib in [8, 15, 16, 31, 32, 64, 4096] {
            let region = LbaCount::mib(mib);
            let lens = lens(region).expect("large enough");
            assert!(lens.iter().all(|len| *len + 64 <= region.get()), "{mib} MiB: {lens:?}");
        }
        assert!(lens(LbaCount::new(2047)).is_err());
    }
}
