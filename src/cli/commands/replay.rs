//! `lbaudit replay`: runs exactly the operations of a file or of a named case once, or a folder of
//! regressions. `lbaudit shrink`: makes a scenario that shows a violation shorter. On the
//! simulator, a replay also on QEMU. Not covered: real arrays (`check --scenario`).

use super::check::{check_planted, draw, profile};
use super::check_qemu;
use crate::campaign::case::{CaseOutcome, record_case};
use crate::campaign::investigate::shrink_scenario;
use crate::campaign::nearest::{nearest, witnesses};
use crate::campaign::record::Recording;
use crate::campaign::replay::{LoadError, contradiction, load, regression, traces_in};
use crate::campaign::store::create_private;
use crate::campaign::wired::{WiredError, Wires};
use crate::cli::Context;
use crate::cli::args::{Backend, Form, OutputArgs};
use crate::cli::config::Seconds;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::engine::{CaseName, Event, ShrinkBudget, ShrinkStep};
use crate::oracle::{Checks, Reason, Verdict};
use crate::report::{step_lines, violation_lines};
use crate::scenario::{Scenario, write_trace};
use crate::sim::SimError;
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Runs that shrinking may take at most, whatever its time.
const SHRINK_RUNS: u64 = 100_000;

/// What to replay.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// A trace, a folder of regressions, or a case's name (g1:SEED:CASE); a recording with --judge.
    #[arg(value_name = "FILE|DIR|CASE")]
    pub what: String,
    /// Plant this bug too (see `lbaudit list bugs`); repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// Judge this recording a second time, by another oracle; nothing is run. A recording is an
    /// events.jsonl of a finding or of the suite, or what --record wrote.
    #[arg(long, conflicts_with_all = ["plant", "record"])]
    pub judge: bool,
    /// Write down what happens, for --judge.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The profile that a named case was drawn by.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub profile: String,
    /// Who plays the array.
    #[arg(long, value_name = "NAME", default_value = "lightbits")]
    pub backend: Backend,
    /// qemu-storage-daemon, if it is not on PATH.
    #[arg(long, value_name = "PATH")]
    pub qsd: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to shrink.
#[derive(Args, Clone, Debug)]
pub struct ShrinkArgs {
    /// A trace that shows a violation.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the shorter one goes [default: FILE with .shrunk.jsonl].
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub shrink_time: Seconds,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Replayed {
        name: &'a str,
        verdict: &'a str,
        kinds: Vec<&'a str>,
        operations: u64,
        diffs: u64,
        notes: Vec<String>,
        digest: String,
    },
    Regression {
        name: &'a str,
        ok: bool,
        notes: String,
    },
    Shrunk {
        operations_before: usize,
        operations: usize,
        runs: u64,
        seconds: f64,
        finished: bool,
        path: String,
    },
    RunFinished {
        regressions: usize,
        failed: usize,
        exit_code: u8,
    },
}

/// Replays.
///
/// # Errors
/// [`Failure`] if there is nothing that can be replayed.
pub fn replay(args: &ReplayArgs, context: &mut Context) -> Result<Exit, Failure> {
    if args.judge {
        return super::judge::run(&args.what, context);
    }
    check_planted(&args.plant)?;
    let path = Path::new(&args.what);
    if path.is_dir() {
        return folder(args, path, context);
    }
    let mut scenario = match args.what.parse::<CaseName>() {
        Ok(name) if !path.exists() => draw(&profile(&args.profile)?, name, None),
        Err(error) if !path.exists() && args.what.contains(':') => {
            return Err(Failure::usage(error.to_string()));
        }
        _ => load(path)?,
    };
    scenario.header.planted.extend(args.plant.iter().cloned());
    refuse_contradiction(&scenario)?;
    let outcome = match (args.backend, &args.record) {
        (Backend::Lightbits, Some(to)) => run_recorded(&scenario, to)?,
        (Backend::Lightbits, None) => run_once(&scenario, context)?,
        (_, Some(_)) => return Err(Failure::usage("--record goes with the simulator only")),
        (backend, None) => check_qemu::replay(&scenario, backend, args.qsd.clone(), context)?,
    };
    let target = match args.backend {
        Backend::Lightbits => "simulator",
        backend => check_qemu::name(backend),
    };
    show((&args.what, target), &scenario, &outcome, context);
    Ok(exit_of(&outcome.verdict))
}

/// A claim that the scenario's own operations contradict would blame an honest array.
fn refuse_contradiction(scenario: &Scenario) -> Result<(), Failure> {
    match contradiction(scenario).map_err(no_world)? {
        None => Ok(()),
        Some(contradiction) => Err(Failure::usage(format!(
            "the scenario contradicts itself: {contradiction}; take that check out"
        ))),
    }
}

fn run_once(scenario: &Scenario, context: &Context) -> Result<CaseOutcome, Failure> {
    let wires = Wires::new(context.stop.shared_flag());
    wires.run(scenario, Checks::ALL, &mut |_| ()).map_err(|error| match error {
        WiredError::World(error) => no_world(error),
        other => Failure::could_not(other.to_string()),
    })
}

/// Runs the scenario and writes down what happens.
fn run_recorded(scenario: &Scenario, to: &Path) -> Result<CaseOutcome, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!(
            "cannot write {}: {error}; give another file with --record",
            to.display()
        ))
    };
    let mut file = create_private(to).map_err(cannot)?;
    let mut recording = Recording::default();
    let mut kept = Ok(());
    let outcome = record_case(scenario, &mut |event| {
        if kept.is_ok() {
            kept = recording.add(&event);
        }
    })
    .map_err(no_world)?;
    kept.and_then(|()| file.write_all(recording.lines())).map_err(cannot)?;
    Ok(outcome)
}

fn no_world(error: SimError) -> Failure {
    Failure::usage(format!("the scenario's header describes no array: {error}"))
}

fn exit_of(verdict: &Verdict) -> Exit {
    match verdict {
        Verdict::Pass => Exit::Passed,
        Verdict::Fail(_) => Exit::Violation,
        Verdict::Unknown(Reason::Tool(_)) => Exit::Bug,
        Verdict::Unknown(_) => Exit::CouldNotTest,
    }
}

fn show(
    (name, target): (&str, &str),
    scenario: &Scenario,
    outcome: &CaseOutcome,
    context: &mut Context,
) {
    let (verdict, kinds, notes) = match &outcome.verdict {
        Verdict::Pass => ("pass", Vec::new(), Vec::new()),
        Verdict::Fail(violations) => (
            "fail",
            violations.iter().map(|violation| violation.kind.name()).collect(),
            violations.iter().flat_map(violation_lines).collect(),
        ),
        Verdict::Unknown(reason) => ("unknown", Vec::new(), vec![reason.to_string()]),
    };
    if context.ui.form == Form::Jsonl {
        context.ui.event(&Line::Replayed {
            name,
            verdict,
            kinds,
            operations: outcome.ops,
            diffs: outcome.diffs,
            notes,
            digest: format!("{:016x}", outcome.digest),
        });
        return;
    }
    let planted = match scenario.header.planted.as_slice() {
        [] => String::new(),
        names => format!("  planted={}", names.join(",")),
    };
    context.ui.print(&format!(
        "lbaudit {}  target={target}  replay={name}{planted}",
        env!("CARGO_PKG_VERSION")
    ));
    let upto = outcome.failed_at.map_or(scenario.steps.len(), |at| at + 1);
    let steps = scenario.steps.get(..upto).unwrap_or(&scenario.steps);
    step_lines(steps).iter().for_each(|line| context.ui.print(line));
    let prefix = match &outcome.verdict {
        Verdict::Fail(_) => "VIOLATION ",
        Verdict::Unknown(_) => "could not judge: ",
        Verdict::Pass => "",
    };
    let indented = |line: &str| line.starts_with(' ');
    for line in &notes {
        let prefix = if indented(line) { "" } else { prefix };
        context.ui.print(&format!("{prefix}{line}"));
    }
    let (ops, diffs) = (outcome.ops, outcome.diffs);
    context.ui.print(&format!("{verdict}: {ops} operations run, {diffs} diffs judged"));
}

/// Replays every regression of a folder.
fn folder(args: &ReplayArgs, path: &Path, context: &mut Context) -> Result<Exit, Failure> {
    if !args.plant.is_empty() || args.record.is_some() {
        return Err(Failure::usage(
            "--plant and --record go with one trace; those of a folder name their own bugs",
        ));
    }
    let cannot =
        |error| Failure::could_not(format!("cannot read the folder {}: {error}", path.display()));
    let paths = traces_in(path).map_err(cannot)?;
    let (mut failed, mut done) = (0, 0);
    for path in &paths {
        if context.stop.flag().load(Ordering::Relaxed) {
            return Err(Failure { exit: Exit::Interrupted, message: "interrupted".to_owned() });
        }
        let replayed = regression(&load(path)?).map_err(no_world)?;
        let wrong = replayed.wrong();
        let (ok, notes) = (wrong.is_none(), wrong.unwrap_or_else(|| replayed.words()));
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match context.ui.form {
            Form::Jsonl => context.ui.event(&Line::Regression { name: &name, ok, notes }),
            Form::Text => {
                let word = if ok { "ok  " } else { "FAIL" };
                context.ui.print(&format!("{word}  {name}  {notes}"));
            }
        }
        failed += usize::from(!ok);
        done += 1;
    }
    let exit = match (done, failed) {
        (0, _) => Exit::Nothing,
        (_, 0) => Exit::Passed,
        _ => Exit::Violation,
    };
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::RunFinished {
            regressions: done,
            failed,
            exit_code: exit.code(),
        }),
        Form::Text => {
            let as_they_should = done - failed;
            context.ui.print(&format!("{as_they_should}/{done} regressions as they should be"));
        }
    }
    Ok(exit)
}

/// Shrinks.
///
/// # Errors
/// [`Failure`] if there is nothing to shrink, or the result cannot be written.
pub fn shrink(args: &ShrinkArgs, context: &mut Context) -> Result<Exit, Failure> {
    let scenario = load(&args.file)?;
    refuse_contradiction(&scenario)?;
    let to = args.to.clone().unwrap_or_else(|| args.file.with_extension("shrunk.jsonl"));
    if to.exists() {
        let to = to.display();
        return Err(Failure::usage(format!(
            "{to} is there already: remove it, or give another name with --to"
        )));
    }
    let outcome = run_once(&scenario, context)?;
    let Some(found) = outcome.verdict.violation() else {
        let file = args.file.display();
        return Err(Failure::could_not(format!(
            "{file} shows no violation, so there is nothing to shrink; see it with `lbaudit replay {file}`"
        )));
    };
    let cannot = |error: std::io::Error| {
        let (to, flag) = (to.display(), "give another with --to");
        Failure::could_not(format!("cannot write {to}: {error}; {flag}"))
    };
    let mut file = create_private(&to).map_err(cannot)?;
    let wires = Wires::new(context.stop.shared_flag());
    let runner = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
        wires
            .run(scenario, Checks::ALL, on_event)
            .unwrap_or_else(|error| CaseOutcome::unknown(Reason::Tool(error.to_string())))
    };
    let budget = ShrinkBudget { time: args.shrink_time.0, runs: SHRINK_RUNS };
    let stop = context.stop.clone();
    let mut say = |ShrinkStep { what, steps, runs }: ShrinkStep| {
        context.ui.say(&format!("{what}: {steps} steps are left after {runs} runs"));
    };
    let listen = (stop.flag(), &mut say as _);
    let shrunk = shrink_scenario(&scenario, found.kind, budget, &runner, listen);
    let trace = write_trace(&shrunk.scenario).map_err(|error| cannot(error.into()))?;
    file.write_all(trace.as_bytes()).map_err(cannot)?;
    let before = scenario.steps.len().saturating_sub(1);
    let operations = shrunk.scenario.steps.len().saturating_sub(1);
    let seconds = shrunk.took.as_secs_f64();
    if context.ui.form == Form::Jsonl {
        context.ui.event(&Line::Shrunk {
            operations_before: before,
            operations,
            runs: shrunk.runs,
            seconds,
            finished: shrunk.finished,
            path: to.display().to_string(),
        });
        return Ok(Exit::Passed);
    }
    let again = run_once(&shrunk.scenario, context)?;
    show((&to.display().to_string(), "simulator"), &shrunk.scenario, &again, context);
    let cut = if shrunk.finished { "" } else { ", not to the end" };
    context.ui.print(&format!(
        "shrunk {before} -> {operations} operations ({} runs, {seconds:.1}s{cut})",
        shrunk.runs
    ));
    let shown = again.verdict.violation().unwrap_or(found);
    if let Some(near) = nearest(shown, &shrunk.scenario, &witnesses()) {
        context.ui.print(&format!("looks like  {}: {}", near.name, near.mechanism));
    }
    Ok(Exit::Passed)
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        Failure::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use crate::scenario::{Check, Header, Label, Op};
    use clap::Parser;
    use std::fs;

    #[derive(Parser)]
    struct Replay {
        #[command(flatten)]
        args: ReplayArgs,
    }

    #[derive(Parser)]
    struct Shrink {
        #[command(flatten)]
        args: ShrinkArgs,
    }

    fn replayed(flags: &[&str]) -> (Result<Exit, Failure>, String) {
        let line = ["replay"].into_iter().chain(flags.iter().copied());
        let args = Replay::try_parse_from(line).expect("flags").args;
        let (ui, text) = Ui::captured(args.output.output);
        (replay(&args, &mut Context { ui, stop: Stop::default() }), text.text())
    }

    fn trace(lba: u64, planted: &[&str]) -> String {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = planted.iter().map(|&name| name.to_owned()).collect();
        let ops = [
            Op::Flush,
            Op::Write { at: Extent::lbas(lba, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        write_trace(&Scenario::new(header, ops)).expect("encodes")
    }

    #[test]
    fn a_file_is_run_once_as_it_is() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("x.jsonl");
        fs::write(&path, trace(63, &[])).expect("a file");
        let file = path.to_str().expect("UTF-8");
        let (done, text) = replayed(&[file]);
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        assert!(text.ends_with("pass: 4 operations run, 1 diffs judged\n"), "{text}");
        let (done, text) = replayed(&[file, "--plant", "bit63-dropped"]);
        assert_eq!(done, Ok(Exit::Violation));
        assert!(text.contains("  1 flush   2 write 63+1   3 take s0   then diff s0\n"), "{text}");
        assert!(text.contains("VIOLATION missed (data loss): ") && text.contains("\n  expected  "));
        let (done, _) = replayed(&[file, "--plant", "bit64-dropped"]);
        assert_eq!(done.expect_err("no such bug").exit, Exit::Usage);
        let (done, _) = replayed(&["nowhere.jsonl"]);
        assert_eq!(done.expect_err("no such file").exit, Exit::Usage);
        let (done, _) = replayed(&["g0:1:1"]);
        assert_eq!(done.expect_err("another generator").exit, Exit::Usage);
    }

    #[test]
    fn a_scenario_that_blames_an_honest_array_is_refused_with_the_check_that_does() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("x.jsonl");
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let header = Header::new([(Role::Source, shape)].into(), Policy::Exact, "a test");
        let claims = |at: Extent| {
            let (snap, from) = (Label(0), Default::default());
            let ops = [
                Op::Write { at: Extent::lbas(5, 1) },
                Op::Take { label: snap, wait: true },
                Op::Diff { snap, base: None, from, between_pages: None },
                Op::Check(Check::Reported { at }),
            ];
            let trace = write_trace(&Scenario::new(header.clone(), ops)).expect("encodes");
            fs::write(&path, trace).expect("a file");
            replayed(&[path.to_str().expect("UTF-8")])
        };
        assert_eq!(claims(Extent::lbas(5, 1)).0, Ok(Exit::Passed));
        let refused = claims(Extent::lbas(5, 2)).0.expect_err("LBA 6 was never written");
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.message.contains("contradicts itself"), "{}", refused.message);
    }

    #[test]
    fn what_was_recorded_is_judged_again_by_the_other_judge() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name).to_str().expect("UTF-8").to_owned();
        let (file, fine, wrong) = (path("x.jsonl"), path("fine.jsonl"), path("wrong.jsonl"));
        fs::write(&file, trace(63, &[])).expect("a file");
        assert_eq!(replayed(&[&file, "--record", &fine]).0, Ok(Exit::Passed));
        let (done, text) = replayed(&["--judge", &fine]);
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        assert!(
            text.ends_with("judged 1 diffs, 0 refusals, 0 syncs, 0 blocks: 0 wrong, 0 not to be told; agrees with the recording\n"),
            "{text}"
        );
        let planted = replayed(&[&file, "--record", &wrong, "--plant", "bit63-dropped"]);
        assert_eq!(planted.0, Ok(Exit::Violation));
        let (done, text) = replayed(&["--judge", &wrong]);
        assert_eq!(done, Ok(Exit::Violation));
        assert!(text.contains("VIOLATION missed: step 4: LBA 63 changed, diff(s0)"), "{text}");
        assert!(text.contains("agrees with the recording\n"), "{text}");
        // The first judge is made to say that all was well.
        let forged: Vec<String> = fs::read_to_string(&wrong)
            .expect("it is there")
            .lines()
            .filter(|line| !line.contains("violat"))
            .map(|line| line.replace("\"verdict\":\"fail\"", "\"verdict\":\"pass\""))
            .collect();
        fs::write(&wrong, forged.join("\n") + "\n").expect("a file");
        let (done, text) = replayed(&["--judge", &wrong]);
        assert_eq!(done, Ok(Exit::Violation));
        assert!(text.contains("this judge says missed, the recording says nothing"), "{text}");
        let (done, _) = replayed(&["--judge", &file]);
        assert_eq!(done.expect_err("a trace is no recording").exit, Exit::Usage);
        let (done, _) = replayed(&[&file, "--record", &fine]);
        assert_eq!(done.expect_err("files are not overwritten").exit, Exit::CouldNotTest);
    }

    #[test]
    fn a_folder_of_regressions_has_a_line_each() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().to_str().expect("UTF-8");
        assert_eq!(replayed(&[folder]).0, Ok(Exit::Nothing));
        fs::write(home.path().join("1.jsonl"), trace(63, &["bit63-dropped"])).expect("a file");
        let (done, text) = replayed(&[folder]);
        assert_eq!(done, Ok(Exit::Passed));
        assert_eq!(
            text,
            "ok    1.jsonl  passes, and with bit63-dropped planted shows missed\n1/1 regressions as they should be\n"
        );
        fs::write(home.path().join("2.jsonl"), trace(62, &["bit63-dropped"])).expect("a file");
        let (done, text) = replayed(&[folder]);
        assert_eq!(done, Ok(Exit::Violation));
        assert!(text.contains("FAIL  2.jsonl  does not show bit63-dropped any more\n"), "{text}");
        assert_eq!(
            replayed(&[folder, "--plant", "bit63-dropped"]).0.expect_err("no").exit,
            Exit::Usage
        );
    }

    #[test]
    fn shrinking_writes_a_shorter_trace_beside_the_first_and_never_over_another() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("x.jsonl");
        fs::write(&path, trace(63, &["bit63-dropped"])).expect("a file");
        let shrunk = || {
            let args = Shrink::try_parse_from(["shrink".as_ref(), path.as_os_str()]);
            let args = args.expect("flags").args;
            let (ui, text) = Ui::captured(args.output.output);
            (shrink(&args, &mut Context { ui, stop: Stop::default() }), text.text())
        };
        let (done, text) = shrunk();
        assert_eq!(done, Ok(Exit::Passed), "{text}");
        assert!(text.contains("shrunk 3 -> 2 operations ("), "{text}");
        let scenario = load(&home.path().join("x.shrunk.jsonl")).expect("reads");
        assert_eq!(scenario.steps.len(), 3);
        assert_eq!(shrunk().0.expect_err("it is there already").exit, Exit::Usage);
        fs::remove_file(home.path().join("x.shrunk.jsonl")).expect("it is there");
        fs::write(&path, trace(5, &[])).expect("a file");
        assert_eq!(shrunk().0.expect_err("nothing to shrink").exit, Exit::CouldNotTest);
    }
}
