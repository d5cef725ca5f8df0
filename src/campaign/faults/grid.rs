//! Every kind of fault at every call, and random pairs of them: the grid.
//!
//! Not covered: how it is printed (`crate::report`).

use super::judge::{Bad, End, Judged, judge};
use super::rig::{Compared, FaultRig, Ran, RigError, Wrapper};
use crate::block::Role;
use crate::engine::{Entropy as _, Seeded};
use crate::sim::hostile::{ApiFault, FaultSpec};
use crate::sim::{SimFault, When};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Calls that the quick form lets fail: the first ones, then fewer and fewer.
const QUICK_CALLS: [u32; 6] = [1, 2, 4, 9, 18, 33];
/// No scenario has so many calls: one that seems to has a fault that never stops happening.
const CALLS_MAX: u32 = 1000;
/// Calls that a random pair falls on.
const PAIR_CALLS: u64 = 40;

/// What to run.
#[derive(Clone, Debug)]
pub struct GridConfig {
    /// Faults by name, those of the data plane as `data:NAME`; all, if empty.
    pub kinds: Vec<String>,
    /// Only some of the calls, and for ever only from the second.
    pub quick: bool,
    /// Random pairs of faults besides.
    pub pairs: u32,
    /// What pairs are drawn from.
    pub seed: u64,
    /// Deadline of each run.
    pub deadline: Duration,
    /// Runs at once.
    pub jobs: usize,
    /// For tests of the grid itself.
    pub wrapper: Option<Wrapper>,
}

impl Default for GridConfig {
    /// Everything, without pairs.
    fn default() -> GridConfig {
        GridConfig {
            kinds: Vec::new(),
            quick: false,
            pairs: 0,
            seed: 1,
            deadline: Duration::from_secs(30),
            // Most of a run's time it waits.
            jobs: 2 * std::thread::available_parallelism().map_or(1, usize::from),
            wrapper: None,
        }
    }
}

/// One kind of fault over all its calls.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// Its name, or `pairs`.
    pub kind: String,
    /// Runs.
    pub runs: u64,
    /// Runs in which a fault happened.
    pub met: u64,
    /// The last call at which it still happened.
    pub calls: u32,
    /// How many runs came to what.
    pub ends: BTreeMap<End, u64>,
    /// How many were bad, and how.
    pub bad: BTreeMap<Bad, u64>,
    /// The bad runs, each as the specs that show it again, what was bad, and what it said.
    pub shown: Vec<(String, Bad, String)>,
}

impl Row {
    fn add(&mut self, faults: &[FaultSpec], judged: Judged) {
        self.runs += 1;
        self.met += u64::from(judged.met);
        *self.ends.entry(judged.end).or_default() += 1;
        for bad in judged.bad {
            *self.bad.entry(bad).or_default() += 1;
            let specs: Vec<String> = faults.iter().map(ToString::to_string).collect();
            self.shown.push((specs.join(" "), bad, judged.words.clone()));
        }
    }
    fn join(&mut self, other: Row) {
        self.runs += other.runs;
        self.met += other.met;
        self.calls = self.calls.max(other.calls);
        for (end, runs) in other.ends {
            *self.ends.entry(end).or_default() += runs;
        }
        for (bad, runs) in other.bad {
            *self.bad.entry(bad).or_default() += runs;
        }
        self.shown.extend(other.shown);
    }
}

/// All kinds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grid {
    /// One line for each kind that was run, in the order of the tables; then the pairs.
    pub rows: Vec<Row>,
}

impl Grid {
    /// Runs that were bad in this way.
    pub fn bad(&self, bad: Bad) -> u64 {
        self.rows.iter().filter_map(|row| row.bad.get(&bad)).sum()
    }
    /// Runs in all.
    pub fn runs(&self) -> u64 {
        self.rows.iter().map(|row| row.runs).sum()
    }
    /// Whether no run was bad and every kind happened at least once.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.bad.is_empty() && row.met > 0)
    }
}

/// Why there is no grid.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// No such kind.
    #[error("no fault is called `{0}`; see `lbaudit list faults`")]
    Kind(String),
    /// The self-test cannot go on.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// Without any fault it does not pass: then it says nothing about faults.
    #[error("without a fault the scenario does not pass: {0}")]
    Honest(String),
}

/// A kind of fault and where it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Subject {
    Api(ApiFault),
    Data(SimFault, Role),
}

impl Subject {
    fn all() -> impl Iterator<Item = Subject> {
        let data = SimFault::ALL.iter().flat_map(|fault| {
            [Role::Source, Role::Target].map(|volume| Subject::Data(*fault, volume))
        });
        ApiFault::ALL.iter().map(|fault| Subject::Api(*fault)).chain(data)
    }
    fn at(self, when: When) -> FaultSpec {
        match self {
            Subject::Api(fault) => FaultSpec::Api { fault, call: None, when },
            Subject::Data(fault, volume) => FaultSpec::Data { fault, volume, when },
        }
    }
    fn name(self) -> String {
        self.at(When::once(1)).kind()
    }
}

/// The kinds that are asked for.
fn wanted(names: &[String]) -> Result<Vec<Subject>, GridError> {
    let all: Vec<Subject> = Subject::all().collect();
    for name in names {
        if !all.iter().any(|subject| subject.name() == *name) {
            return Err(GridError::Kind(name.clone()));
        }
    }
    Ok(all.into_iter().filter(|s| names.is_empty() || names.contains(&s.name())).collect())
}

/// One stretch of work: a kind at every call, or some pairs.
#[derive(Clone, Debug)]
enum Job {
    Calls { subject: Subject, for_ever: bool },
    Pairs(Vec<[FaultSpec; 2]>),
}

/// Runs it all; `on_row` hears of each kind as it is done. Ends early, with fewer rows, when `stop`
/// is set.
///
/// # Errors
/// [`GridError`].
pub fn fail_the_nth(
    config: &GridConfig,
    stop: &AtomicBool,
    on_row: &(dyn Fn(&Row) + Sync),
) -> Result<Grid, GridError> {
    let subjects = wanted(&config.kinds)?;
    let honest = honest(config)?;
    let mut jobs: Vec<(usize, Job)> = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        for for_ever in [false, true] {
            jobs.push((index, Job::Calls { subject: *subject, for_ever }));
        }
    }
    let pairs = draw_pairs(&subjects, config.pairs, config.seed);
    jobs.extend(pairs.chunks(8).map(|some| (subjects.len(), Job::Pairs(some.to_vec()))));

    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Row)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<RigError>> = Mutex::new(None);
    let work = || {
        let mut bench = Bench { config, honest: &honest, rig: None };
        while let Some((index, job)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match bench.run(job, stop) {
                Ok(row) => {
                    on_row(&row);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((*index, row));
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..config.jobs.max(1) {
            scope.spawn(work);
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    Ok(collect(done.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What is compared when nothing fails.
fn honest(config: &GridConfig) -> Result<Compared, GridError> {
    let ran = Arc::new(FaultRig::new(config.deadline, config.wrapper)?).run(&[])?;
    let Ran::Ended(ended) = &ran else { return Err(GridError::Honest(format!("{ran:?}"))) };
    let judged = judge(&ran, &[], &ended.compared);
    match (judged.end, judged.bad.is_empty()) {
        (End::Pass, true) => Ok(ended.compared.clone()),
        _ => Err(GridError::Honest(judged.words)),
    }
}

fn collect(mut done: Vec<(usize, Row)>) -> Grid {
    done.sort_by_key(|(index, _)| *index);
    let mut rows: Vec<Row> = Vec::new();
    for (_, row) in done {
        match rows.iter_mut().find(|known| known.kind == row.kind) {
            Some(known) => known.join(row),
            None => rows.push(row),
        }
    }
    for row in &mut rows {
        row.shown.sort();
    }
    Grid { rows }
}

/// One worker and its server.
struct Bench<'a> {
    config: &'a GridConfig,
    honest: &'a Compared,
    rig: Option<Arc<FaultRig>>,
}

impl Bench<'_> {
    fn run(&mut self, job: &Job, stop: &AtomicBool) -> Result<Row, RigError> {
        match job {
            Job::Calls { subject, for_ever } => {
                let mut row = Row { kind: subject.name(), ..Row::default() };
                for nth in calls(self.config.quick, *for_ever) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let faults = [subject.at(When { nth, for_ever: *for_ever })];
                    let judged = self.once(&faults)?;
                    let met = judged.met;
                    row.add(&faults, judged);
                    if !met {
                        break;
                    }
                    row.calls = nth;
                }
                Ok(row)
            }
            Job::Pairs(pairs) => {
                let mut row = Row { kind: "pairs".to_owned(), ..Row::default() };
                for faults in pairs {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let judged = self.once(faults)?;
                    row.add(faults, judged);
                }
                Ok(row)
            }
        }
    }

    fn once(&mut self, faults: &[FaultSpec]) -> Result<Judged, RigError> {
        let rig = match &self.rig {
            Some(rig) => Arc::clone(rig),
            None => {
                let rig = Arc::new(FaultRig::new(self.config.deadline, self.config.wrapper)?);
                Arc::clone(self.rig.insert(rig))
            }
        };
        let ran = rig.run(faults)?;
        if matches!(ran, Ran::Hung) {
            self.rig = None;
        }
        Ok(judge(&ran, faults, self.honest))
    }
}

/// The calls that fail, one run each, until the fault no longer happens.
fn calls(quick: bool, for_ever: bool) -> Vec<u32> {
    match (quick, for_ever) {
        (false, _) => (1..CALLS_MAX).collect(),
        (true, false) => QUICK_CALLS.to_vec(),
        (true, true) => vec![2],
    }
}

fn draw_pairs(subjects: &[Subject], pairs: u32, seed: u64) -> Vec<[FaultSpec; 2]> {
    let mut entropy = Seeded::new(seed, 0);
    let mut one = || {
        let index = usize::try_from(entropy.below(subjects.len() as u64)).unwrap_or(0);
        let nth = u32::try_from(1 + entropy.below(PAIR_CALLS)).unwrap_or(1);
        let for_ever = entropy.chance(1, 4);
        subjects.get(index).map(|subject| subject.at(When { nth, for_ever }))
    };
    let mut drawn = Vec::new();
    while drawn.len() < usize::try_from(pairs).unwrap_or(0) {
        let (Some(first), Some(second)) = (one(), one()) else { return drawn };
        // A volume holds one fault at a time.
        let volume = |spec: &FaultSpec| match spec {
            FaultSpec::Data { volume, .. } => Some(*volume),
            FaultSpec::Api { .. } => None,
        };
        if volume(&first).is_none() || volume(&first) != volume(&second) {
            drawn.push([first, second]);
        }
    }
    drawn
}
