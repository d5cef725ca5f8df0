//! Finds, before any I/O, checks that the shadow model contradicts. In the fixed suite such a check
//! is a bug of the suite; without this, a wrong table would blame an honest array. Not covered:
//! checks of contents, which only the run itself can tell.

use crate::block::{CHUNK_LBAS, Extent, Lba, LbaCount, LbaSet, Policy, Role};
use crate::model::{Expected, Model, Prediction, Value, Values};
use crate::scenario::{Check, Label, Op, Scenario, SyncSource};

/// A check that cannot hold even on an honest target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}, check {check}: {why}")]
pub struct Contradiction {
    /// Its place in the scenario, from 0.
    pub step: usize,
    /// The check.
    pub check: Check,
    /// Why it cannot hold.
    pub why: String,
}

/// What the dry run remembers.
#[derive(Default)]
struct Seen {
    diff: Option<(Label, Option<Label>)>,
    syncs: Vec<Prediction>,
    checksummed: Vec<Extent>,
}

/// Runs the scenario on a copy of the model alone and looks at every check.
///
/// # Errors
/// The first check that the model does not imply.
pub fn precheck(scenario: &Scenario, model: &Model) -> Result<(), Contradiction> {
    check_all(scenario, model, Policy::Exact)
}

/// Why an honest target may fail the scenario under its own policy: over-reporting that the policy
/// allows looks like an error to one of its checks. Bit-exact checks (test 12) are meant that way.
pub fn allowed_to_fail(scenario: &Scenario, model: &Model) -> Option<String> {
    let policy = scenario.header.policy;
    let contradiction = check_all(scenario, model, policy).err()?;
    precheck(scenario, model).ok()?;
    Some(format!("the policy {policy} allows what `{}` forbids", contradiction.check))
}

fn check_all(scenario: &Scenario, model: &Model, policy: Policy) -> Result<(), Contradiction> {
    let mut model = model.clone();
    model.begin_scenario();
    let mut seen = Seen::default();
    for (step, op) in scenario.steps.iter().map(|step| &step.op).enumerate() {
        match op {
            Op::Check(check) => {
                implied(check, &model, &mut seen, policy).map_err(|why| Contradiction {
                    step,
                    check: *check,
                    why,
                })?;
            }
            Op::Diff { snap, base, .. } => seen.diff = Some((*snap, *base)),
            Op::Sync { snap, base, from, .. } => {
                seen.diff = Some((*snap, *base));
                if let Some(bounds) = predicted(&model, *snap, *base, policy) {
                    // The least that a legal answer makes the pipeline copy.
                    match from {
                        SyncSource::Live => model.synced(None, &bounds.must),
                        SyncSource::Snapshot => model.synced_from(*snap, &bounds.must),
                    }
                    seen.syncs.push(bounds);
                }
            }
            other => model.apply(Role::Source, other),
        }
    }
    Ok(())
}

/// What any honest array must and may answer to the diff that the scenario ends with, wherever it is
/// run: reports may be rounded to chunks. `None` if it ends otherwise, need not be answered, or depends
/// on what was in flight, on a clone or on a fault.
pub fn foretold(scenario: &Scenario, model: &Model) -> Option<Prediction> {
    let (last, before) = scenario.steps.split_last()?;
    let (Op::Diff { snap, base, between_pages: None, .. }, None) = (&last.op, &last.fault) else {
        return None;
    };
    let mut model = model.clone();
    model.begin_scenario();
    for step in before {
        let mut plain = step.fault.is_none();
        step.op.each(&mut |op| {
            plain &= match op {
                Op::Concurrent(_) | Op::Take { wait: false, .. } | Op::Clone { .. } => false,
                Op::Sync { during, .. } => during.is_empty(),
                Op::Diff { between_pages, .. } => between_pages.is_none(),
                _ => true,
            };
        });
        match &step.op {
            _ if !plain => return None,
            Op::Diff { .. } | Op::Sync { .. } | Op::SyncChain { .. } => {}
            Op::Read { .. } | Op::Check(_) => {}
            other => model.apply(Role::Source, other),
        }
    }
    let answered = model.expected(*snap, *base) == Expected::Answer;
    predicted(&model, *snap, *base, Policy::Chunk).filter(|_| answered)
}

/// The bounds as the policy widens them.
fn predicted(
    model: &Model,
    snap: Label,
    base: Option<Label>,
    policy: Policy,
) -> Option<Prediction> {
    let Prediction { must, may } = model.predict(snap, base)?;
    let may = match policy {
        Policy::Exact => may,
        Policy::Chunk => may.rounded_out(LbaCount::new(CHUNK_LBAS)),
        Policy::Granule(lbas) => may.rounded_out(lbas),
        Policy::ReportOnly => Extent::new(Lba::new(0), model.snapshot(snap)?.len)?.into(),
    };
    Some(Prediction { must, may })
}

fn need(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

/// Whether an honest target always satisfies the check.
fn implied(check: &Check, model: &Model, seen: &mut Seen, policy: Policy) -> Result<(), String> {
    if check.speaks_of_the_answer() {
        let (snap, base) = seen.diff.ok_or("there is no diff before it")?;
        let exact = matches!(check, Check::Bits { .. } | Check::RangesWithin { .. });
        let policy = if exact { Policy::Exact } else { policy };
        let bounds =
            predicted(model, snap, base, policy).ok_or("the model cannot tell this diff")?;
        return implied_by_bounds(check, &bounds);
    }
    let same = |at: Extent| model.live(Role::Source, at) == model.live(Role::Target, at);
    match check {
        Check::Synced { at } => {
            seen.checksummed.push(*at);
            need(same(*at), "the syncs before it need not make it equal")
        }
        Check::TargetHolds { at } => {
            let values = model.live(Role::Target, *at);
            let ours = |values: &Values| {
                matches!(values.certain(), Some(Value::Zero | Value::Stamp { .. }))
            };
            let certain = values.iter().all(|(_, values)| ours(values));
            need(certain && same(*at), "the syncs before it need not bring it there")
        }
        Check::TargetUntouched { at } | Check::SameAsPreviousSync { at } => {
            need(seen.checksummed.contains(at), "no checksum of it was taken before")?;
            let last = seen.syncs.last().ok_or("there is no sync before it")?;
            let repeated = matches!(check, Check::SameAsPreviousSync { .. });
            need(repeated || !last.may.overlaps(*at), "the sync may write it")
        }
        Check::SyncedAbout { lbas, tolerance_permille } => {
            about(seen.syncs.last().into_iter(), *lbas, *tolerance_permille)
        }
        Check::SyncedTotalAbout { lbas, tolerance_permille } => {
            about(seen.syncs.iter(), *lbas, *tolerance_permille)
        }
        Check::Throughput { .. } => need(!seen.syncs.is_empty(), "there is no sync before it"),
        Check::Refused => {
            let (snap, base) = seen.diff.ok_or("there is no diff before it")?;
            let refused = matches!(model.expected(snap, base), Expected::Refusal(_));
            need(refused, "the diff is to be answered")
        }
        Check::Gone { label } => {
            need(model.snapshot(*label).is_some_and(|snap| snap.deleted), "it is not deleted")
        }
        _ => Ok(()),
    }
}

/// Whether every answer between the bounds satisfies the check.
fn implied_by_bounds(check: &Check, bounds: &Prediction) -> Result<(), String> {
    let Prediction { must, may } = bounds;
    let ranges = |set: &LbaSet, within: Extent| {
        set.within(within).rounded_out(LbaCount::new(CHUNK_LBAS)).count().chunks()
    };
    match check {
        Check::EmptyDiff => need(may.is_empty(), "something may have changed"),
        Check::Reported { at } => need(must.covers(*at), "not all of it must be reported"),
        Check::NotReported { at } => need(!may.overlaps(*at), "some of it may be reported"),
        Check::ReportedAtLeast { within, lbas } => {
            need(must.within(*within).count() >= *lbas, "fewer LBAs must be reported")
        }
        Check::ReportedAbout { within, lbas, tolerance } => {
            let near = |set: &LbaSet| {
                set.within(*within).count().get().abs_diff(lbas.get()) <= tolerance.get()
            };
            need(near(must) && near(may), "more or fewer LBAs may be reported")
        }
        Check::RangesWithin { within, ranges: wanted } => {
            let both = [must, may].map(|set| ranges(set, *within));
            need(both == [*wanted; 2], "more or fewer ranges may be reported")
        }
        Check::RangesAtLeast { ranges } => {
            need(must.chunks().len() as u64 >= *ranges, "fewer ranges must be reported")
        }
        Check::Bits { chunk, bits } => {
            let start = chunk.first_lba().ok_or("there is no such chunk")?;
            let of = |set: &LbaSet| {
                set.chunks().iter().find(|(at, _)| *at == start).map_or(0, |(_, bits)| bits.bits())
            };
            need([of(must), of(may)] == [bits.bits(); 2], "other bits may be reported")
        }
        Check::Contiguous { within } => need(must.covers(*within), "gaps are legal there"),
        _ => Ok(()),
    }
}

fn about<'b>(
    syncs: impl Iterator<Item = &'b Prediction>,
    lbas: LbaCount,
    permille: u16,
) -> Result<(), String> {
    let (must, may) = syncs
        .fold((0, 0), |(must, may), b| (must + b.must.count().get(), may + b.may.count().get()));
    let near = |got: u64| got.abs_diff(lbas.get()) * 1000 <= lbas.get() * u64::from(permille);
    if near(must) && near(may) {
        Ok(())
    } else {
        Err(format!("between {must} and {may} LBAs may be copied"))
    }
}
