//! Runs selected tests one after the other on shared volumes, times them, and deletes what they
//! leave. Not covered: which tests are selected, and anything printed.

use super::notes::{Notes, mib_per_s, pagination_note};
use super::result::{Outcome, SuiteSummary, TestResult};
use super::{Plan, TestSpec};
use crate::array::{AlignedBuf, ApiError, Waiting, wait_gone};
use crate::block::{ByteOffset, Geometry, LbaSet, Policy, Role, SnapshotUuid};
use crate::engine::{Event, Sut, allowed_to_fail, precheck, run};
use crate::model::Model;
use crate::oracle::{Reason, Verdict};
use crate::scenario::{Check, Header, Op, Scenario, SyncSource};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a run of the suite needs besides the system under test.
#[derive(Clone, Debug)]
pub struct Options {
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
pub fn scenario_of(spec: &TestSpec, options: &Options) -> Scenario {
    let mut plan = Plan::new(options.source, options.min_mib_per_s);
    (spec.build)(&mut plan);
    let header = Header::new(options.volumes.clone(), options.policy, spec.name);
    Scenario::new(header, plan.into_ops())
}

/// Runs `tests` (with their numbers) in order.
pub fn run_suite(
    tests: &[(usize, &TestSpec)],
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options,
    on: &mut dyn FnMut(Progress),
) -> SuiteSummary {
    let start = sut.clock.now();
    let mut summary = SuiteSummary::default();
    let mut cut_short = false;
    for &(number, spec) in tests {
        if sut.waiting.stop.load(Ordering::Relaxed) {
            break;
        }
        on(Progress::Started { number, name: spec.name });
        let (result, end) = run_test(number, spec, sut, model, options, on);
        summary.tool_bug |= end == End::ToolBug;
        if !options.keep_snapshots {
            sweep(sut, sut.clock.now() + sut.waiting.gone);
        }
        cut_short |= end == End::Budget || (end == End::Unwell && !answers(sut));
        let bad = matches!(result.outcome, Outcome::Fail(_) | Outcome::Error(_));
        let stop = cut_short || (options.fail_fast && bad);
        summary.results.push(result.clone());
        on(Progress::Finished(result));
        if stop {
            break;
        }
    }
    let stopped = sut.waiting.stop.load(Ordering::Relaxed);
    if !stopped && !cut_short {
        summary.audit = audit(sut, model, options, on);
    }
    summary.interrupted = sut.waiting.stop.load(Ordering::Relaxed);
    if !options.keep_snapshots {
        summary.left_behind = finish(sut, options, summary.interrupted);
    }
    summary.took = sut.clock.now().saturating_sub(start);
    summary
}

/// What a test's end means for the run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Ordinary,
    /// This tool contradicted itself.
    ToolBug,
    /// The user's limit ends the run.
    Budget,
    /// Array or device did not do what it should; perhaps they are gone.
    Unwell,
}

fn run_test(
    number: usize,
    spec: &TestSpec,
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options,
    on: &mut dyn FnMut(Progress),
) -> (TestResult, End) {
    let start = sut.clock.now();
    let mut notes = Notes::new();
    let (mut speed, mut pages, mut skipped) = (None, 0, None);
    let scenario = scenario_of(spec, options);
    sut.pipeline.limit_to =
        sut.pipeline.limit_to.take().map(|_| spec.footprint.iter().copied().collect::<LbaSet>());
    let verdict = if let Some(why) = not_applicable(spec, sut) {
        Err(Outcome::NotApplicable(why))
    } else if let Some(why) = allowed_to_fail(&scenario, model) {
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
    let end = match &verdict {
        Ok(Verdict::Unknown(Reason::Tool(_))) => End::ToolBug,
        Ok(Verdict::Unknown(Reason::Budget(_))) => End::Budget,
        Ok(Verdict::Unknown(Reason::Api(_) | Reason::Device(_))) => End::Unwell,
        _ => End::Ordinary,
    };
    let outcome = verdict.map_or_else(|na| na, outcome_of);
    if spec.name == super::resilience::PAGINATION_STRESS.name && pages > 0 {
        notes.say(pagination_note(pages));
    }
    let took = sut.clock.now().saturating_sub(start);
    let notes = notes.into_lines();
    (TestResult { number, name: spec.name, outcome, took, notes, mib_per_s: speed }, end)
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

/// Whether array and devices still answer: if not, the tests to come would only wait in vain.
fn answers(sut: &Sut<'_>) -> bool {
    sut.volumes.values().all(|volume| {
        let mut block = AlignedBuf::new(volume.device().block_size().get());
        let reads = volume.device().read_at(ByteOffset::new(0), &mut block).is_ok();
        reads && sut.array.volume(volume.uuid).is_ok()
    })
}

/// Why this target has nothing to test here, if it has not.
fn not_applicable(spec: &TestSpec, sut: &Sut<'_>) -> Option<String> {
    let own_code = spec.name == super::resilience::DELETED_BASE_SNAPSHOT.name
        && !sut.array.capabilities().refuses_deleted_base;
    own_code.then(|| {
        "this target keeps no snapshots of its own, so the refusal would be our own code".to_owned()
    })
}

/// Asks the array to delete every snapshot of the run that is still there, until `deadline` or
/// until nobody answers any more. What stays is left to [`finish`], which says so.
fn sweep(sut: &Sut<'_>, deadline: Duration) {
    for snapshot in sut.ledger.live() {
        if sut.clock.now() >= deadline {
            break;
        }
        match sut.array.delete_snapshot(snapshot) {
            Err(ApiError::NotFound(_)) => sut.ledger.gone(snapshot),
            Err(ApiError::Transport { .. } | ApiError::Tls(_) | ApiError::Auth(_)) => break,
            Ok(()) | Err(_) => {}
        }
    }
}

/// Waits until the run's snapshots are gone, asking again where that helps; answers what stayed.
fn finish(sut: &Sut<'_>, options: &Options, interrupted: bool) -> Vec<SnapshotUuid> {
    let limit = if interrupted { options.stop_budget } else { sut.waiting.gone };
    let deadline = sut.clock.now() + limit;
    // A second signal ends the process at once; the first one must not end the clean-up.
    let never = AtomicBool::new(false);
    sweep(sut, deadline);
    for snapshot in sut.ledger.live() {
        let left = deadline.saturating_sub(sut.clock.now());
        let waiting = Waiting { available: left, gone: left, stop: &never };
        match wait_gone(sut.array, sut.clock, snapshot, waiting) {
            Ok(()) => sut.ledger.gone(snapshot),
            Err(ApiError::Transport { .. } | ApiError::Tls(_) | ApiError::Auth(_)) => break,
            Err(_) => {}
        }
    }
    sut.ledger.live()
}

/// Compares everything this run copied with the model once more: a sync may have damaged what an
/// earlier one had left right. Whose sync it was is not known, so no test is blamed.
fn audit(
    sut: &mut Sut<'_>,
    model: &mut Model,
    options: &Options,
    on: &mut dyn FnMut(Progress),
) -> Option<Outcome> {
    let copied: LbaSet = model.known(Role::Target).into_iter().map(|(run, _)| run).collect();
    if copied.is_empty() {
        return None;
    }
    let origin = "final audit of the target";
    let header = Header::new(options.volumes.clone(), options.policy, origin);
    let checks = copied.runs().iter().map(|at| Op::Check(Check::TargetAsModelled { at: *at }));
    let scenario = Scenario::new(header, checks);
    Some(outcome_of(run(&scenario, model, sut, &mut |event| on(Progress::Event(event)))))
}
