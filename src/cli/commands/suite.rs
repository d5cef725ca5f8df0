//! `lbaudit suite`: opens the target, runs the chosen tests, reports, cleans up.
//!
//! Not covered: what the tests do (`crate::suite`) and how results look (`crate::report`).

use super::report::after_suite;
use crate::array::{Array, RealClock, Waiting};
use crate::block::{BitmapOrder, BlockSize, Geometry, LbaCount, LbaSet, Role, RunId};
use crate::campaign::by_hand::shell_word;
use crate::campaign::embedded::Embedded;
use crate::campaign::inproc::{InProcess, InProcessConfig};
use crate::campaign::journal::{Journal, Journalled};
use crate::campaign::store::RunFolder;
use crate::cli::args::{ConsentArgs, Form, SuiteArgs};
use crate::cli::config::{Connection, QemuVariant, SuiteConfig, Target, Token, Volumes};
use crate::cli::connect::{INSECURE, connect};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::select::TestName;
use crate::cli::{Context, volumes};
use crate::device::ConsentItem;
use crate::engine::{Ledger, Pipeline, Recorded, Sut, SutVolume};
use crate::lightbits::{Fingerprint, TlsConfig};
use crate::model::Model;
use crate::oracle::{Checks, Violation};
use crate::qemu::{DataPlane, QemuArray, QemuConfig};
use crate::report::{Console, JsonLines, Reporter, RunEnd, RunHeader, junit};
use crate::scenario::SyncSource;
use crate::sim::Bug;
use crate::suite::{MIN_LBAS, Options, Progress, SUITE, SuiteSummary, TestSpec, run_suite};
use crate::sync::{ChecksumMethod, CopyConfig, PipelineBug, PipelineBugs};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// Size of the volumes of targets that this process makes.
const OWN_VOLUME: LbaCount = LbaCount::mib(2048);

/// Everything that is settled before a target is opened.
struct Job<'a> {
    args: &'a SuiteArgs,
    config: SuiteConfig,
    tests: Vec<(usize, &'static TestSpec)>,
    array_bugs: Vec<Bug>,
    pipeline_bugs: PipelineBugs,
}

/// What a target says of itself in headers.
struct Facts {
    endpoint: String,
    source: String,
    copy: String,
    remarks: Vec<String>,
    warnings: Vec<String>,
    /// What the handshake found wrong.
    findings: Vec<Violation>,
    /// Volumes that this run made itself: they start as zeros.
    shapes: BTreeMap<Role, Geometry>,
}

/// Runs the suite.
///
/// # Errors
/// [`Failure`] if it did not come to a single test.
pub fn run(
    args: &SuiteArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let config = SuiteConfig::new(args, env_token)?;
    let chosen = config.selection.apply(&test_names())?;
    let tests: Vec<_> = (1..).zip(&SUITE).filter(|(number, _)| chosen.contains(number)).collect();
    let (array_bugs, pipeline_bugs) = plants(&config)?;
    let job = Job { args, config, tests, array_bugs, pipeline_bugs };
    if job.config.dry_run {
        return Ok(dry_run(&job, context));
    }
    match job.config.target.clone() {
        Target::Embedded { in_process: true, page_limit } => in_process(&job, page_limit, context),
        Target::Embedded { in_process: false, page_limit } => embedded(&job, page_limit, context),
        Target::Array { connection, volumes, consent } => {
            on_array(&job, &connection, &volumes, &consent, None, context)
        }
        Target::Qemu { qsd, variant } => {
            let config = QemuConfig {
                qsd,
                nonatomic: variant == QemuVariant::Nonatomic,
                clear_bitmaps: variant == QemuVariant::Cleared,
                work_root: std::env::temp_dir(),
                size: OWN_VOLUME,
                data_plane: Some(DataPlane::Nbd),
                page_limit: job.args.page_limit,
                ..QemuConfig::default()
            };
            on_qemu(&job, config, context)
        }
    }
}

/// The tests as the selection sees them.
pub fn test_names() -> Vec<TestName> {
    let name = |(number, spec): (usize, &'static TestSpec)| TestName {
        number,
        name: spec.name,
        phase: spec.phase,
    };
    (1..).zip(&SUITE).map(name).collect()
}

/// The planted bugs by side.
fn plants(config: &SuiteConfig) -> Result<(Vec<Bug>, PipelineBugs), Failure> {
    let (mut array, mut pipeline) = (Vec::new(), PipelineBugs::NONE);
    for name in &config.plant {
        match (Bug::from_name(name), PipelineBug::from_name(name)) {
            (Some(bug), _) if matches!(config.target, Target::Embedded { .. }) => array.push(bug),
            (Some(_), _) => {
                return Err(Failure::usage(format!(
                    "`{name}` is a bug of the simulated array: plant it with `lbaudit sim serve --plant {name}`, or run without target flags"
                )));
            }
            (None, Some(bug)) => pipeline = pipeline.with(bug),
            (None, None) => return Err(super::unknown_bug(name)),
        }
    }
    Ok((array, pipeline))
}

fn dry_run(job: &Job<'_>, context: &mut Context) -> Exit {
    for (number, spec) in &job.tests {
        let mib: u64 = spec.footprint.iter().map(|at| at.len_lbas().get()).sum::<u64>() / 256;
        context
            .ui
            .print(&format!("{number:>2}  {:<28}writes {mib} MB: {}", spec.name, spec.meaning));
    }
    let target = job.config.target.name();
    context
        .ui
        .say(&format!("dry run: {} tests on target={target}, nothing was done", job.tests.len()));
    Exit::Passed
}

/// In this process: no server, no devices, virtual time.
fn in_process(job: &Job<'_>, page_limit: u32, context: &mut Context) -> Result<Exit, Failure> {
    let run_id = RunId::random();
    let config = InProcessConfig {
        len: OWN_VOLUME,
        block: BlockSize::DEVICE,
        page_limit,
        array_bugs: job.array_bugs.clone(),
        pipeline_bugs: job.pipeline_bugs,
    };
    if job.config.external_checksum {
        return Err(Failure::usage(
            "--checksum external reads devices, and in-process volumes have none: leave it out",
        ));
    }
    let target = InProcess::new(config, run_id)
        .map_err(|error| Failure::could_not(format!("cannot set up the simulator: {error}")))?;
    let folder = folder(&job.args.output.run_dir, run_id)?;
    let facts = Facts {
        endpoint: "in process (no server, virtual time)".to_owned(),
        source: "vol-src (in process)".to_owned(),
        copy: "vol-dst (in process)".to_owned(),
        remarks: vec![pages_remark(page_limit)],
        warnings: Vec::new(),
        findings: Vec::new(),
        shapes: target.shapes(),
    };
    let stop = context.stop.clone();
    let mut sut = target.sut();
    sut.waiting = waiting(job, stop.flag());
    sut.pipeline = pipeline(job, true);
    drive(job, &folder, facts, &mut sut, &mut target.model(), context)
}

fn pages_remark(page_limit: u32) -> String {
    format!("pages of at most {page_limit} ranges, so that paging is exercised (--page-limit)")
}

/// A simulator as a child process, over HTTPS, with its volumes attached.
fn embedded(job: &Job<'_>, page_limit: u32, context: &mut Context) -> Result<Exit, Failure> {
    let exe = std::env::current_exe()
        .map_err(|error| Failure::could_not(format!("cannot find this program: {error}")))?;
    let mut flags: Vec<OsString> = vec!["--page-limit".into(), page_limit.to_string().into()];
    for bug in &job.array_bugs {
        flags.extend(["--plant".into(), bug.name().into()]);
    }
    if job.pipeline_bugs.has(PipelineBug::ReadsBeforeAvailable) {
        // Who does not wait must get what shows it; a refusal would stop the bug by itself.
        flags.push("--partial-while-creating".into());
    }
    let server = Embedded::start(&exe, &flags)?;
    let ready = server.ready().clone();
    let volume = |role| ready.volumes.iter().find(|volume| volume.role == role);
    let found = volume(Role::Source).zip(volume(Role::Target)).and_then(|(source, target)| {
        source.device.as_ref().zip(target.device.as_ref()).map(|devices| (source, target, devices))
    });
    let Some((source, target, devices)) = found else {
        let why = server.messages();
        server.stop()?;
        context.ui.say(&format!(
            "volumes cannot be attached here, so in-process volumes are used: {why}"
        ));
        return in_process(job, page_limit, context);
    };
    let pin = ready.pin_sha256.parse::<Fingerprint>().map_err(|error| Failure {
        exit: Exit::Bug,
        message: format!("the embedded simulator's fingerprint: {error}"),
    })?;
    let connection = Connection {
        endpoints: vec![ready.endpoint.clone()],
        project: ready.project.clone(),
        token: Token::File(ready.jwt_file.clone()),
        tls: TlsConfig { ca_file: None, pins: vec![pin], insecure: false },
    };
    let tail = |uuid: crate::block::VolumeUuid| {
        let text = uuid.to_string();
        ConsentItem::Tail(text.get(text.len() - 12..).unwrap_or_default().to_owned())
    };
    let consent = ConsentArgs {
        destroy: vec![tail(source.uuid), tail(target.uuid)],
        ..ConsentArgs::default()
    };
    let volumes = Volumes {
        source: source.uuid,
        target: target.uuid,
        source_device: Some(devices.0.clone()),
        target_device: Some(devices.1.clone()),
    };
    let ran = on_array(job, &connection, &volumes, &consent, Some(page_limit), context);
    let stopped = server.stop();
    Ok(after_all(ran?, stopped.map_err(Failure::from), context))
}

/// Anything that speaks the REST API. `own_pages` is the page limit of a simulator that this
/// process started itself.
fn on_array(
    job: &Job<'_>,
    connection: &Connection,
    wanted: &Volumes,
    consent: &ConsentArgs,
    own_pages: Option<u32>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let config = &job.config;
    let order = config.bitmap_order.unwrap_or(BitmapOrder::Little);
    let client = connect(connection, order, context)?.client;
    let opened = volumes::open(&client, wanted, consent, MIN_LBAS, &mut context.ui)?;
    let shapes = volumes::shapes(&opened.infos, own_pages.is_some());
    let run_id = RunId::random();
    let folder = folder(&job.args.output.run_dir, run_id)?;
    let journal = Journal::create(&folder.path().join("journal.jsonl"), run_id)
        .map_err(|error| Failure::could_not(format!("cannot keep a journal: {error}")))?;
    let array = Journalled::new(&client, &journal);
    let (clock, ledger, stop) = (RealClock::new(), Ledger::new(run_id), context.stop.clone());
    let runs = job.args.output.run_dir.as_path();
    if own_pages.is_none() {
        stop.on_second(clean_command(connection, wanted, runs));
    }
    let mut model = Model::new(run_id, &shapes, array.capabilities());
    let mut facts = Facts {
        endpoint: connection.endpoints.join(", "),
        source: volumes::title(&opened.infos[0], &opened.source),
        copy: volumes::title(&opened.infos[1], &opened.target),
        remarks: own_pages.map(pages_remark).into_iter().collect(),
        warnings: connection.tls.insecure.then(|| INSECURE.to_owned()).into_iter().collect(),
        findings: Vec::new(),
        shapes: shapes.clone(),
    };
    let waits = waiting(job, stop.flag());
    let port = volumes::RunPort {
        array: &array,
        clock: &clock,
        waiting: waits,
        ledger: &ledger,
        journal: &journal,
        region: None,
    };
    let (policy, ui) = (config.policy, &context.ui);
    let armed = volumes::arm(&port, opened, shapes, &mut model, policy, &context.stop, ui)?;
    facts.findings = armed.findings;
    facts.remarks.extend(armed.notes);
    let mut sut = Sut {
        array: &array,
        volumes: BTreeMap::from([
            (Role::Source, SutVolume::borrowed(wanted.source, &armed.source)),
            (Role::Target, SutVolume::borrowed(wanted.target, &armed.target)),
        ]),
        clock: &clock,
        waiting: waiting(job, stop.flag()),
        ledger: &ledger,
        pipeline: pipeline(job, own_pages.is_some()),
        in_memory: false,
        checks: Checks::ALL,
        record: Recorded::Answers,
    };
    let exit = drive(job, &folder, facts, &mut sut, &mut model, context);
    if exit.is_err() {
        // It came to no test, so nothing else deletes the handshake's snapshots.
        volumes::sweep(&port);
    }
    // However it ended: who leaves snapshots says so.
    if client.retries() > 0 {
        context.ui.say(&format!("note: {} calls had to be repeated", client.retries()));
    }
    if !ledger.live().is_empty() {
        let (left, command) = (ledger.live().len(), clean_command(connection, wanted, runs));
        context.ui.say(&format!(
            "{left} snapshots of this run are on the array; to delete them: {command}"
        ));
    }
    exit
}

/// QEMU's own tracker.
fn on_qemu(job: &Job<'_>, config: QemuConfig, context: &mut Context) -> Result<Exit, Failure> {
    if job.config.external_checksum {
        return Err(Failure::usage(
            "--checksum external reads devices, and QEMU's volumes are reached over NBD: leave it out",
        ));
    }
    let page_limit = config.page_limit;
    let array = QemuArray::start(config).map_err(|error| Failure::could_not(error.to_string()))?;
    let missing =
        || Failure { exit: Exit::Bug, message: "QEMU has no source and target".to_owned() };
    let volume = |role| array.volume_uuid(role).zip(array.nbd_device(role));
    let (source, target) = volume(Role::Source).zip(volume(Role::Target)).ok_or_else(missing)?;
    let run_id = RunId::random();
    let folder = folder(&job.args.output.run_dir, run_id)?;
    let shape = Geometry { block: BlockSize::DEVICE, len: OWN_VOLUME, fresh: true };
    let shapes = BTreeMap::from([(Role::Source, shape), (Role::Target, shape)]);
    let (clock, ledger, stop) = (RealClock::new(), Ledger::new(run_id), context.stop.clone());
    let mut model = Model::new(run_id, &shapes, array.capabilities());
    let facts = Facts {
        endpoint: format!("qemu-storage-daemon, process {}", array.daemon_pid()),
        source: format!("vol-src (NBD, {})", source.0),
        copy: format!("vol-dst (NBD, {})", target.0),
        remarks: vec![pages_remark(page_limit)],
        warnings: Vec::new(),
        findings: Vec::new(),
        shapes,
    };
    let mut sut = Sut {
        array: &array,
        volumes: BTreeMap::from([
            (Role::Source, SutVolume::borrowed(source.0, &source.1)),
            (Role::Target, SutVolume::borrowed(target.0, &target.1)),
        ]),
        clock: &clock,
        waiting: waiting(job, stop.flag()),
        ledger: &ledger,
        pipeline: pipeline(job, true),
        in_memory: false,
        checks: Checks::ALL,
        record: Recorded::Answers,
    };
    drive(job, &folder, facts, &mut sut, &mut model, context)
}

fn waiting<'a>(job: &Job<'_>, stop: &'a AtomicBool) -> Waiting<'a> {
    let (available, gone) = (job.config.available_timeout, job.config.delete_timeout);
    Waiting { available, gone, stop }
}

fn pipeline(job: &Job<'_>, strict: bool) -> Pipeline {
    let config = &job.config;
    let checksum = match config.external_checksum {
        true => ChecksumMethod::External,
        false => ChecksumMethod::Direct,
    };
    Pipeline {
        copy: CopyConfig { bugs: job.pipeline_bugs, ..CopyConfig::default() },
        checksum,
        // The runner puts each test's own footprint here.
        limit_to: config.limit_to_footprint.then(LbaSet::new),
        max_full_sync: Some(LbaCount::new(config.max_full_sync.get() / BlockSize::DEVICE.bytes())),
        strict,
    }
}

pub(super) fn folder(root: &Path, run: RunId) -> Result<RunFolder, Failure> {
    RunFolder::create(root, run, SystemTime::now()).map_err(|error| no_folder(root, &error))
}

/// As [`folder`], but `latest` stays where it is for now.
///
/// # Errors
/// When it cannot be made.
pub(super) fn begun_folder(root: &Path, run: RunId) -> Result<RunFolder, Failure> {
    RunFolder::begin(root, run, SystemTime::now()).map_err(|error| no_folder(root, &error))
}

fn no_folder(root: &Path, error: &std::io::Error) -> Failure {
    let root = root.display();
    Failure::could_not(format!("cannot make a run folder in {root}: {error}; give --run-dir"))
}

/// The command that removes what this run may leave. It never holds the token.
pub(super) fn clean_command(connection: &Connection, volumes: &Volumes, runs: &Path) -> String {
    let mut command = "lbaudit clean --yes".to_owned();
    let mut add = |flag: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = write!(command, " {flag} {}", shell_word(&value.to_string()));
    };
    for endpoint in &connection.endpoints {
        add("--endpoint", endpoint);
    }
    add("--source-uuid", &volumes.source);
    add("--target-uuid", &volumes.target);
    // Without its journal a run's blocks cannot be put back.
    add("--run-dir", &runs.display());
    if connection.project != "default" {
        add("--project", &connection.project);
    }
    for pin in &connection.tls.pins {
        add("--pin-sha256", pin);
    }
    if let Some(path) = &connection.tls.ca_file {
        add("--ca-file", &path.display());
    }
    // Where the token is, never the token.
    if let Token::File(path) = &connection.token {
        add("--jwt-file", &path.display());
    }
    if connection.tls.insecure {
        command.push_str(" --insecure");
    }
    command
}

/// Runs the tests, tells every reporter, and leaves the run's files.
fn drive(
    job: &Job<'_>,
    folder: &RunFolder,
    facts: Facts,
    sut: &mut Sut<'_>,
    model: &mut Model,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let config = &job.config;
    let header = header(job, &facts, sut);
    if !context.ui.style.quiet {
        let RunHeader { version, target, policy, .. } = &header;
        let run = folder.run();
        context.ui.say(&format!("lbaudit {version}  target={target}  policy={policy}  run={run}"));
    }
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!("cannot write to {}: {error}", folder.path().display()))
    };
    write_run_json(folder, &header).map_err(cannot)?;
    let mut events = std::io::BufWriter::new(folder.create_file("events.jsonl").map_err(cannot)?);
    let mut log = JsonLines::with_events(&mut events);
    let progress = context.ui.progress();
    let (form, style, stop) = (context.ui.form, context.ui.style, context.stop.clone());
    let out = context.ui.out();
    let mut screen: Box<dyn Reporter + '_> = match form {
        Form::Text => Box::new(Console::new(out, progress, style)),
        Form::Jsonl => Box::new(JsonLines::new(out)),
    };
    let options = Options {
        volumes: facts.shapes,
        policy: config.policy,
        source: match sut.array.capabilities().snapshot_readable {
            true => SyncSource::Snapshot,
            false => SyncSource::Live,
        },
        min_mib_per_s: config.min_mib_per_s,
        keep_snapshots: config.keep_snapshots,
        fail_fast: config.fail_fast,
        stop_budget: volumes::STOP_BUDGET,
    };
    let mut reporters: [&mut dyn Reporter; 2] = [&mut *screen, &mut log];
    reporters.iter_mut().for_each(|reporter| reporter.begin(&header));
    let mut summary = run_suite(&job.tests, sut, model, &options, &mut |progress| {
        for reporter in &mut reporters {
            match &progress {
                Progress::Started { number, name } => reporter.test_started(*number, name),
                Progress::Event(event) => reporter.event(event),
                Progress::Finished(result) => reporter.test_finished(result),
            }
        }
    });
    summary.handshake = facts.findings;
    let exit = Exit::of_suite(&summary, stop.exit());
    let report = Some(folder.path().to_path_buf());
    let mut end = RunEnd { exit_code: job.seen_exit(exit).code(), report };
    let written = write_junit(job, folder, &header, &summary, &end);
    let written = written.and_then(|()| {
        log.failure().map_or(Ok(()), |error| {
            let folder = folder.path().display();
            Err(Failure::could_not(format!("{folder}/events.jsonl is not whole: {error}")))
        })
    });
    let graver = written.as_ref().err().map_or(exit, |failure| exit.or(failure.exit));
    end.exit_code = job.seen_exit(graver).code();
    screen.run_finished(&summary, &end);
    log.run_finished(&summary, &end);
    drop(screen);
    after_suite(folder.path(), job.args.html.as_deref(), context);
    Ok(after_all(exit, written, context))
}

/// What a run comes to if something failed after its tests: the failure is said, and outweighs
/// `exit` only if it is graver. What the tests found is never lost over it.
fn after_all(exit: Exit, late: Result<(), Failure>, context: &mut Context) -> Exit {
    match late {
        Ok(()) => exit,
        Err(failure) => {
            context.ui.say(&failure.message);
            exit.or(failure.exit)
        }
    }
}

impl Job<'_> {
    /// The exit as the shell will see it.
    fn seen_exit(&self, exit: Exit) -> Exit {
        if self.args.folded { exit.folded() } else { exit }
    }
}

fn header(job: &Job<'_>, facts: &Facts, sut: &Sut<'_>) -> RunHeader {
    let config = &job.config;
    let mut remarks = facts.remarks.clone();
    if !config.plant.is_empty() {
        remarks.push(format!("planted: {}", config.plant.join(", ")));
    }
    if config.limit_to_footprint {
        remarks
            .push("full syncs copy only the tests' own regions (--limit-to-footprint)".to_owned());
    }
    let untestable = sut.array.capabilities().not_testable();
    if !untestable.is_empty() {
        remarks.push(format!("not testable here: {}", untestable.join(", ")));
    }
    let found = facts.findings.iter().map(|finding| format!("handshake: {finding}"));
    RunHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: config.target.name().to_owned(),
        endpoint: facts.endpoint.clone(),
        source: facts.source.clone(),
        copy: facts.copy.clone(),
        policy: config.policy,
        tests: job.tests.len(),
        remarks,
        warnings: facts.warnings.iter().cloned().chain(found).collect(),
    }
}

fn write_run_json(folder: &RunFolder, header: &RunHeader) -> std::io::Result<()> {
    let facts = serde_json::json!({
        "v": 1,
        "run": folder.run().to_string(),
        "arguments": super::own_arguments(),
        "version": header.version,
        "target": header.target,
        "endpoint": header.endpoint,
        "source": header.source,
        "copy": header.copy,
        "policy": header.policy.to_string(),
        "tests": header.tests,
        "notes": header.remarks,
        "warnings": header.warnings,
    });
    writeln!(folder.create_file("run.json")?, "{facts:#}")
}

fn write_junit(
    job: &Job<'_>,
    folder: &RunFolder,
    header: &RunHeader,
    summary: &SuiteSummary,
    end: &RunEnd,
) -> Result<(), Failure> {
    let xml = junit(header, summary, end)
        .map_err(|error| Failure { exit: Exit::Bug, message: format!("JUnit: {error}") })?;
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::could_not(format!("cannot write {}: {error}", path.display()))
    };
    let own = folder.path().join("junit.xml");
    let mut file = folder.create_file("junit.xml").map_err(|error| cannot(&own, error))?;
    file.write_all(xml.as_bytes()).map_err(|error| cannot(&own, error))?;
    match &job.args.junit {
        Some(path) => std::fs::write(path, &xml).map_err(|error| cannot(path, error)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "suite_tests.rs"]
mod tests;
