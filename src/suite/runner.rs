//! Runs selected tests one after the other on shared volumes, times them, and deletes what they
//! leave. Not covered: which tests are selected, and anything printed.

use super::notes::{Notes, mib_per_s, pagination_note};
use super::result::{Outcome, SuiteSummary, TestResult};
use super::{Plan, TestSpec};
use crate::array::{ApiError, Waiting, wait_gone};
use crate::block::{Extent, Geometry, Lba, LbaSet, Policy, Role, SnapshotUuid};
use crate::engine::{Event, Sut, precheck, run};
use crate::model::Model;
use crate::oracle::{Reason, Verdict, Violation};
use crate::scenario::{Check, Header, Op, Scenario, SyncSource};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a run of the suite needs besides the system under test.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Shapes of the volumes, for the scenarios' headers.
    pub volumes: BTreeMap<Role, Geometry>,
    /// How over-reporting is judged.
    pub policy: Policy,
    /// Where syncs read from.
    pub source: SyncSource,
    /// Floor of the timed sync, MiB/s.
    pub min_mib_per_s: u32,
    /// Leave the snapshots on the array.
    pub keep_snapshots: bool,
    /// Stop at the first test that fails or cannot be tested.
    pub fail_fast: bool,
    /// Set when even the clean-up is to stop.
    pub leave_now: &'a AtomicBool,
    /// How long the clean-up may take in all once the user asked to stop.
    pub stop_budget: Duration,
}

/// What the runner tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A test begins.
    Started {
        /// Its place in the suite, from 1.
        number: usize,
        /// Its name.
        name: &'static str,
    },
    /// Something happened inside it.
    Event(Event),
    /// It ended.
    Finished(TestResult),
}

/// The scenario of a test, exactly as it will run.
pub fn scenario_of(spec: &TestSpec, options: &Options<'_>) -> Scenario {
    let mut plan = Plan::new(options.source, options.min_mib_per_s);
    (spec.build)(&mut plan);
    let header = Header {
        volumes: options.volumes.clone(),
        policy: options.policy,
        planted: Vec::new(),
        seed: None,
        origin: spec.name.to_owned(),
    };
    Scenario::new(header, plan.into_ops())
}

/// Runs `tests` (with their numbers) in order.
pub fn run_suite(
    tests: &[(usize, &TestSpec)],
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options<'_>,
    on: &mut dyn FnMut(Progress),
) -> SuiteSummary {
    let start = sut.clock.now();
    let mut summary = SuiteSummary::default();
    for &(number, spec) in tests {
        if sut.waiting.stop.load(Ordering::Relaxed) {
            break;
        }
        on(Progress::Started { number, name: spec.name });
        let (result, tool_bug) = run_test(number, spec, sut, model, options, on);
        summary.tool_bug |= tool_bug;
        if !options.keep_snapshots {
            sweep(sut);
        }
        let stop =
            options.fail_fast && matches!(result.outcome, Outcome::Fail(_) | Outcome::Error(_));
        summary.results.push(result.clone());
        on(Progress::Finished(result));
        if stop {
            break;
        }
    }
    if !sut.waiting.stop.load(Ordering::Relaxed) {
        audit(sut, model, options, &mut summary, on);
    }
    summary.interrupted = sut.waiting.stop.load(Ordering::Relaxed);
    if !options.keep_snapshots {
        summary.left_behind = finish(sut, options, summary.interrupted);
    }
    summary.took = sut.clock.now().saturating_sub(start);
    summary
}

fn run_test(
    number: usize,
    spec: &TestSpec,
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options<'_>,
    on: &mut dyn FnMut(Progress),
) -> (TestResult, bool) {
    let start = sut.clock.now();
    let mut notes = Notes::new();
    let (mut speed, mut pages, mut skipped) = (None, 0, None);
    let scenario = scenario_of(spec, options);
    sut.pipeline.limit_to =
        sut.pipeline.limit_to.take().map(|_| spec.footprint.iter().copied().collect::<LbaSet>());
    let verdict = if let Some(why) = not_applicable(spec, sut) {
        Err(Outcome::NotApplicable(why))
    } else if let Err(contradiction) = precheck(&scenario, model) {
        Ok(Verdict::Unknown(Reason::Tool(contradiction.to_string())))
    } else {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            run(&scenario, model, sut, &mut |event| {
                notes.observe(&event);
                match &event {
                    Event::Throughput { bytes, took } => speed = Some(mib_per_s(*bytes, *took)),
                    Event::Diffed { pages: fetched, .. } => pages = pages.max(*fetched),
                    Event::Skipped { op, why } => {
                        skipped.get_or_insert_with(|| format!("{op} could not be run: {why}"));
                    }
                    _ => {}
                }
                on(Progress::Event(event));
            })
        }));
        Ok(ran.unwrap_or_else(|panic| {
            Verdict::Unknown(Reason::Tool(format!("panic: {}", panic_text(panic.as_ref()))))
        }))
    };
    // A fixed test that left something out has not tested what its name says.
    let verdict = match (verdict, skipped) {
        (Ok(Verdict::Pass), Some(why)) => Ok(Verdict::Unknown(Reason::Tool(why))),
        (verdict, _) => verdict,
    };
    let tool_bug = matches!(verdict, Ok(Verdict::Unknown(Reason::Tool(_))));
    let outcome = verdict.map_or_else(|na| na, outcome_of);
    if spec.name == super::resilience::PAGINATION_STRESS.name && pages > 0 {
        notes.say(pagination_note(pages));
    }
    let took = sut.clock.now().saturating_sub(start);
    let notes = notes.into_lines();
    (TestResult { number, name: spec.name, outcome, took, notes, mib_per_s: speed }, tool_bug)
}

fn outcome_of(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Pass => Outcome::Pass,
        Verdict::Fail(violations) => Outcome::Fail(violations),
        Verdict::Unknown(reason) => Outcome::Error(reason.to_string()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

/// Why this target has nothing to test here, if it has not.
fn not_applicable(spec: &TestSpec, sut: &Sut<'_>) -> Option<String> {
    let own_code = spec.name == super::resilience::DELETED_BASE_SNAPSHOT.name
        && !sut.array.capabilities().refuses_deleted_base;
    own_code.then(|| {
        "this target keeps no snapshots of its own, so the refusal would be our own code".to_owned()
    })
}

/// Asks the array to delete every snapshot of the run that is still there. Failures are left to
/// [`finish`], which says what stayed.
fn sweep(sut: &Sut<'_>) {
    for snapshot in sut.ledger.live() {
        if let Err(ApiError::NotFound(_)) = sut.array.delete_snapshot(snapshot) {
            sut.ledger.gone(snapshot);
        }
    }
}

/// Waits until the run's snapshots are gone, asking again where that helps; answers what stayed.
fn finish(sut: &Sut<'_>, options: &Options<'_>, interrupted: bool) -> Vec<SnapshotUuid> {
    let limit = if interrupted { options.stop_budget } else { sut.waiting.gone };
    let deadline = sut.clock.now() + limit;
    sweep(sut);
    for snapshot in sut.ledger.live() {
        let left = deadline.saturating_sub(sut.clock.now());
        let waiting = Waiting { available: left, gone: left, stop: options.leave_now };
        if wait_gone(sut.array, sut.clock, snapshot, waiting).is_ok() {
            sut.ledger.gone(snapshot);
        }
    }
    sut.ledger.live()
}

/// Compares the whole modelled target once more; a late finding goes to the last test that synced.
fn audit(
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options<'_>,
    summary: &mut SuiteSummary,
    on: &mut dyn FnMut(Progress),
) {
    let synced = |result: &&mut TestResult| {
        matches!(result.outcome, Outcome::Pass)
            && result.notes.iter().any(|n| n.starts_with("synced"))
    };
    let Some(last) = summary.results.iter_mut().rev().find(synced) else { return };
    let Some(whole) = model.len(Role::Target).and_then(|len| Extent::new(Lba::new(0), len)) else {
        return;
    };
    let header = Header {
        volumes: options.volumes.clone(),
        policy: options.policy,
        planted: Vec::new(),
        seed: None,
        origin: "final audit of the target".to_owned(),
    };
    let scenario = Scenario::new(header, [Op::Check(Check::TargetAsModelled { at: whole })]);
    let verdict = run(&scenario, model, sut, &mut |event| on(Progress::Event(event)));
    let since = |violation: Violation| Violation {
        sentence: format!(
            "{} (found by the final audit; any sync since that LBA was last checked may have done it)",
            violation.sentence
        ),
        ..violation
    };
    match verdict {
        Verdict::Pass => {}
        Verdict::Fail(violations) => {
            last.outcome = Outcome::Fail(violations.into_iter().map(since).collect())
        }
        Verdict::Unknown(reason) => {
            last.outcome = Outcome::Error(format!("final audit of the target: {reason}"))
        }
    }
}
