//! Cases on a real array, whose volumes have a past: each begins with a baseline snapshot, keeps to
//! its own place in one region, and leaves no snapshot.
//!
//! Nothing is expected of what was there before. Every case has a shadow model of its own and stamps
//! of its own, so that what an earlier case wrote is as unknown as anything else. One case runs at a
//! time and one snapshot is in the making at a time. Not covered: proving which volume is behind
//! which device (`super::arm`), and snapshots that a killed run leaves (`super::cleanup`).

use super::case::{CaseOutcome, run_on};
use crate::array::{ApiError, Array, BlockDevice, Clock, Waiting, delete_and_wait};
use crate::block::{CHUNK_LBAS, Extent, Geometry, Lba, LbaCount, LbaSet, Role, RunId, VolumeUuid};
use crate::engine::{Event, Ledger, Pipeline, Recorded, Sut, SutVolume};
use crate::model::Model;
use crate::oracle::{Checks, Reason, Verdict};
use crate::scenario::{Label, Op, Scenario, Step};
use crate::sync::{ChecksumMethod, CopyConfig, PipelineBug};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Of so many diffs since creation one stays so; the others are asked since the baseline, where both
/// bounds are known.
const KEPT_FULL: usize = 3;

/// Where cases may write, and the volumes it lies in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    at: Extent,
    shapes: BTreeMap<Role, Geometry>,
}

impl Region {
    /// The region `at` of volumes of these shapes; `None` if it does not lie in each of them.
    pub fn new(at: Extent, shapes: BTreeMap<Role, Geometry>) -> Option<Region> {
        let inside = shapes.values().all(|shape| at.end().get() <= shape.len.get());
        inside.then_some(Region { at, shapes })
    }

    /// A scenario that was drawn for small volumes, moved to the place of that case, after a
    /// baseline snapshot.
    pub fn place(&self, mut scenario: Scenario, case: u64) -> Scenario {
        let lens = scenario.header.volumes.values().map(|shape| shape.len.get());
        let len = lens.max().unwrap_or(1).next_multiple_of(CHUNK_LBAS);
        let places = (self.at.len_lbas().get() / len).max(1);
        let by = LbaCount::new(self.at.start().get() + case % places * len);
        scenario.header.volumes = self.shapes.clone();
        let mut labels = Vec::new();
        for step in &mut scenario.steps {
            step.op.each_mut(&mut |op| {
                labels.extend(taken(op));
                move_by(op, by);
            });
        }
        let baseline = Label(labels.iter().map(|label| label.0).max().map_or(0, |most| most + 1));
        let mut full = 0usize;
        for step in &mut scenario.steps {
            if let Op::Diff { base: base @ None, .. } = &mut step.op {
                full += 1;
                if !full.is_multiple_of(KEPT_FULL) {
                    *base = Some(baseline);
                }
            }
        }
        // A discard may leave anything, but only until it is read.
        let steps = std::mem::take(&mut scenario.steps);
        scenario.steps = steps.into_iter().flat_map(read_after_discard).collect();
        scenario.steps.insert(0, Step::from(Op::Take { label: baseline, wait: true }));
        if let Some(last) = last_alive(&scenario).filter(|last| *last != baseline) {
            let from = Lba::new(0);
            let diff = Op::Diff { snap: last, base: Some(baseline), from, between_pages: None };
            scenario.steps.push(diff.into());
        }
        scenario
    }

    /// Whether a scenario may run here.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, scenario: &Scenario) -> Result<(), String> {
        if scenario.header.volumes != self.shapes {
            return Err("the scenario is of volumes of other sizes".to_owned());
        }
        match footprint(scenario).difference(&LbaSet::from(self.at)) {
            outside if outside.is_empty() => Ok(()),
            outside => Err(format!(
                "the scenario writes {outside}, outside the region of {} LBAs from {}; give --region and --region-at",
                self.at.len_lbas(),
                self.at.start()
            )),
        }
    }
}

fn move_by(op: &mut Op, by: LbaCount) {
    if let Op::Diff { from, .. } = op {
        // From the beginning stays from the beginning.
        if *from > Lba::new(0) {
            *from = *from + by;
        }
    }
    if let Some(at) = op.touches_mut() {
        *at = Extent::new(at.start() + by, at.len_lbas()).unwrap_or(*at);
    }
}

/// The step, and where it discards on the source a read of the same place.
fn read_after_discard(step: Step) -> impl Iterator<Item = Step> {
    let read = match &step.op {
        Op::Discard { at } => Some(Step::from(Op::Read { snap: None, at: *at })),
        _ => None,
    };
    std::iter::once(step).chain(read)
}

fn taken(op: &Op) -> Option<Label> {
    match op {
        Op::Take { label, .. } => Some(*label),
        _ => None,
    }
}

/// The newest snapshot of the source that the scenario leaves.
fn last_alive(scenario: &Scenario) -> Option<Label> {
    let mut alive = Vec::new();
    for step in &scenario.steps {
        match &step.op {
            Op::Take { label, .. } => alive.push(*label),
            Op::Delete { label, .. } => alive.retain(|known| known != label),
            _ => {}
        }
    }
    alive.pop()
}

/// Every LBA that a scenario's operations touch.
pub fn footprint(scenario: &Scenario) -> LbaSet {
    let mut touched = LbaSet::new();
    for step in &scenario.steps {
        step.op.each(&mut |op| op.touches().into_iter().for_each(|at| touched.insert(at)));
    }
    touched
}

/// The stretch that copies keep to: whatever else a volume holds is not copied by a case.
pub fn stretch(touched: &LbaSet) -> LbaSet {
    let ends = touched.runs().first().zip(touched.runs().last());
    let stretch = ends.and_then(|(first, last)| Extent::between(first.start(), last.end()));
    stretch.map(LbaSet::from).unwrap_or_default()
}

/// An array and two armed devices.
pub struct LiveBench<'b> {
    /// The control plane, journalled.
    pub array: &'b dyn Array,
    /// The volumes.
    pub volumes: BTreeMap<Role, (VolumeUuid, &'b dyn BlockDevice)>,
    /// Time.
    pub clock: &'b dyn Clock,
    /// How long to wait, and who may say stop.
    pub waiting: Waiting<'b>,
    /// The run's snapshots.
    pub ledger: &'b Ledger,
    /// Where cases may write.
    pub region: Region,
    /// Held by the case that runs.
    pub turn: Mutex<()>,
}

impl LiveBench<'_> {
    /// Runs one case that was placed in the region, and deletes its snapshots.
    pub fn run(
        &self,
        scenario: &Scenario,
        record: Recorded,
        on_event: &mut dyn FnMut(Event),
    ) -> CaseOutcome {
        if let Err(why) = self.region.admits(scenario) {
            return CaseOutcome::unknown(Reason::Budget(why));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let planted = scenario.header.planted.iter();
        let bugs = planted.filter_map(|name| PipelineBug::from_name(name)).collect();
        let volumes = self.volumes.iter();
        let mut sut = Sut {
            array: self.array,
            volumes: volumes
                .map(|(role, (uuid, device))| (*role, SutVolume::borrowed(*uuid, *device)))
                .collect(),
            clock: self.clock,
            waiting: self.waiting,
            ledger: self.ledger,
            pipeline: Pipeline {
                copy: CopyConfig { bugs, ..CopyConfig::default() },
                checksum: ChecksumMethod::Direct,
                limit_to: Some(stretch(&footprint(scenario))),
                max_full_sync: None,
                strict: false,
            },
            in_memory: false,
            checks: Checks::ALL,
            record,
        };
        let mut model = Model::new(RunId::random(), &self.region.shapes, self.array.capabilities());
        let mut outcome = run_on(scenario, &mut model, &mut sut, on_event);
        if let (Err(error), Verdict::Pass) = (self.clean_up(), &outcome.verdict) {
            let why = format!("after the case: {error}");
            outcome.verdict = Verdict::Unknown(match error {
                ApiError::Interrupted => Reason::Interrupted,
                _ => Reason::Api(why),
            });
        }
        outcome
    }

    /// Deletes what is left of this run's snapshots.
    fn clean_up(&self) -> Result<(), ApiError> {
        for snapshot in self.ledger.live() {
            delete_and_wait(self.array, self.clock, snapshot, self.waiting)?;
            self.ledger.gone(snapshot);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
