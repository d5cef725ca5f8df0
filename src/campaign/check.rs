//! Runs many cases on several threads and hands their failures on in the order of the cases.
//!
//! Threads take runs of case indices from one counter; what they did is put back in order before
//! anybody sees it. So totals, digest and findings of a campaign that ends by cases or by failures
//! are the same for any number of threads. Cases that an earlier run did are left out. One that could not
//! be judged was not done: it is counted, and a run that goes on does it again. Not covered:
//! what a case is (`source`), what it runs on (`runner`), what is done about a failure
//! (`super::finding`).

use super::case::CaseOutcome;
use super::digest::RunDigest;
use super::part::{Places, Shard};
use crate::engine::Event;
use crate::oracle::{Reason, Verdict};
use crate::scenario::Scenario;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs one scenario on a fresh world and judges it.
pub type Runner<'r> = dyn Fn(&Scenario, &mut dyn FnMut(Event)) -> CaseOutcome + Sync + 'r;
/// The case of an index: a pure function.
pub type Source<'s> = dyn Fn(u64) -> Scenario + Sync + 's;

/// What waits for the collector at most: then the threads wait for it.
const QUEUE: usize = 64;
/// How often the collector looks up when nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// A campaign.
pub struct Campaign<'c> {
    /// The cases.
    pub source: &'c Source<'c>,
    /// What they run on.
    pub runner: &'c Runner<'c>,
    /// Which of them are this run's.
    pub shard: Shard,
    /// How many cases the whole campaign has at most, all shards together.
    pub cases: u64,
    /// How long at most.
    pub time: Option<Duration>,
    /// Threads; at least one.
    pub jobs: usize,
    /// Cases that a thread takes at once: many where they are short.
    pub batch: u64,
    /// Set to end early.
    pub stop: &'c AtomicBool,
}

/// What has been done, and which cases it was.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoFar {
    /// Sums over these cases.
    pub totals: Totals,
    /// The places of these cases in the shard.
    pub done: Places,
}

/// Sums over cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Cases that were done; those that could not be judged are not among them.
    pub cases: u64,
    /// Operations that were run.
    pub ops: u64,
    /// Diffs that were judged.
    pub diffs: u64,
    /// Pages of diffs and syncs.
    pub pages: u64,
    /// LBAs that diffs reported of which the model knows what they had to report.
    pub reported_lbas: u64,
    /// LBAs that these diffs had to report.
    pub must_lbas: u64,
    /// Snapshots that were taken.
    pub taken: u64,
    /// Snapshots that were deleted.
    pub deleted: u64,
    /// Cases with a violation.
    pub failures: u64,
    /// Cases that could not be judged.
    pub unknown: u64,
    /// Cases in which nothing was there to compare.
    pub nothing_compared: u64,
    /// Cases that this tool itself could not run; each is a bug of this tool.
    pub tool_bugs: u64,
    /// What happened, whatever the order.
    pub digest: RunDigest,
    /// Processor time spent in cases, over all threads.
    pub busy: Duration,
}

impl Totals {
    /// Adds other cases.
    pub fn add(&mut self, other: &Totals) {
        self.cases += other.cases;
        self.ops += other.ops;
        self.diffs += other.diffs;
        self.pages += other.pages;
        self.reported_lbas += other.reported_lbas;
        self.must_lbas += other.must_lbas;
        self.taken += other.taken;
        self.deleted += other.deleted;
        self.failures += other.failures;
        self.unknown += other.unknown;
        self.nothing_compared += other.nothing_compared;
        self.tool_bugs += other.tool_bugs;
        self.digest.merge(other.digest);
        self.busy += other.busy;
    }

    fn count(&mut self, case: u64, outcome: &CaseOutcome) {
        if let Verdict::Unknown(reason) = &outcome.verdict
            && !is_judged(&outcome.verdict)
        {
            self.unknown += 1;
            self.tool_bugs += u64::from(matches!(reason, Reason::Tool(_)));
            return;
        }
        self.cases += 1;
        self.ops += outcome.ops;
        self.diffs += outcome.diffs;
        self.pages += outcome.pages;
        self.reported_lbas += outcome.reported_lbas.0;
        self.must_lbas += outcome.reported_lbas.1;
        self.taken += outcome.taken;
        self.deleted += outcome.deleted;
        self.digest.add(case, outcome.digest);
        match &outcome.verdict {
            Verdict::Pass => {}
            Verdict::Fail(_) => self.failures += 1,
            Verdict::Unknown(_) => self.nothing_compared += 1,
        }
    }

    /// For a run that goes on: what could not be judged is done again, and counted then.
    pub fn forget_unjudged(&mut self) {
        (self.unknown, self.tool_bugs) = (0, 0);
    }

    /// Operations a second of processor time; 0 if nothing was done.
    pub fn ops_per_busy_second(&self) -> u64 {
        let micros = self.busy.as_micros().max(1);
        u64::try_from(u128::from(self.ops) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// Whether a case came to something that another run would come to as well. Where nothing was there to
/// compare there is nothing to do again.
const fn is_judged(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Pass | Verdict::Fail(_) | Verdict::Unknown(Reason::NothingCompared))
}

/// A case that needs looking at: a violation, or one that could not be judged.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its number in the campaign.
    pub case: u64,
    /// What was run.
    pub scenario: Scenario,
    /// What it came to.
    pub outcome: CaseOutcome,
}

/// The cases at these places, done now or earlier; the last of them failed, if one did. A case that
/// could not be judged is behind them.
struct Segment {
    places: Range<u64>,
    /// The first place that was not looked at.
    next: u64,
    /// Of those that were done now.
    totals: Totals,
    failure: Option<Box<Failure>>,
}

/// Who is told what happens, in the order of the cases.
pub trait Observer {
    /// Whether a failure that has not been told yet is left to the run that goes on with this one: then
    /// its case was not done, and the campaign ends before it.
    fn leaves_failures(&self) -> bool;
    /// A case failed, or could not be judged. `Break` ends the campaign with this case.
    fn failure(&mut self, failure: Failure, so_far: &SoFar) -> ControlFlow<()>;
    /// Something was done, or a tenth of a second went by. `Break` ends the campaign.
    fn progress(&mut self, so_far: &SoFar) -> ControlFlow<()>;
}

/// Runs what is left of the campaign after `before`, and answers what was done in all.
pub fn run_cases(campaign: &Campaign<'_>, before: SoFar, observer: &mut dyn Observer) -> SoFar {
    let next = AtomicU64::new(before.done.first_missing());
    let earlier = before.done.clone();
    let deadline = campaign.time.and_then(|time| Instant::now().checked_add(time));
    let (sender, receiver) = bounded(QUEUE);
    std::thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            let (sender, next, earlier) = (sender.clone(), &next, &earlier);
            scope.spawn(move || work(campaign, (next, earlier), deadline, &sender));
        }
        drop(sender);
        // Dropping the receiver at the end tells the threads to end.
        collect(before, receiver, observer)
    })
}

fn work(
    campaign: &Campaign<'_>,
    (next, earlier): (&AtomicU64, &Places),
    deadline: Option<Instant>,
    sender: &Sender<Segment>,
) {
    let end = campaign.shard.share(campaign.cases);
    let over = || {
        campaign.stop.load(Ordering::Relaxed)
            || deadline.is_some_and(|deadline| Instant::now() >= deadline)
    };
    loop {
        let first = next.fetch_add(campaign.batch.max(1), Ordering::Relaxed);
        let last = end.min(first.saturating_add(campaign.batch.max(1)));
        if first >= last || over() {
            return;
        }
        let mut segment =
            Segment { places: first..first, next: first, totals: Totals::default(), failure: None };
        let mut started = thread_time();
        for place in first..last {
            if earlier.has(place) {
                (segment.places.end, segment.next) = (place + 1, place + 1);
                continue;
            }
            let case = campaign.shard.case(place);
            let scenario = (campaign.source)(case);
            let outcome = (campaign.runner)(&scenario, &mut |_| ());
            if outcome.verdict == Verdict::Unknown(Reason::Interrupted) {
                break;
            }
            segment.totals.count(case, &outcome);
            segment.next = place + 1;
            segment.places.end += u64::from(is_judged(&outcome.verdict));
            let fine = is_judged(&outcome.verdict) && outcome.verdict.violation().is_none();
            let ends = over();
            if fine && place + 1 < last && !ends {
                continue;
            }
            segment.failure = (!fine).then(|| Box::new(Failure { case, scenario, outcome }));
            segment.totals.busy = thread_time().saturating_sub(started);
            let places = place + 1..place + 1;
            let (next, totals) = (place + 1, Totals::default());
            let following = Segment { places, next, totals, failure: None };
            let done = std::mem::replace(&mut segment, following);
            if sender.send(done).is_err() || ends {
                return;
            }
            // Waiting for the collector is no work.
            started = thread_time();
        }
        segment.totals.busy = thread_time().saturating_sub(started);
        if segment.next > segment.places.start && sender.send(segment).is_err() {
            return;
        }
    }
}

/// Processor time that this thread has used: other programs on the machine do not enter.
fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Puts what the threads did in order, and tells the observer.
fn collect(before: SoFar, receiver: Receiver<Segment>, observer: &mut dyn Observer) -> SoFar {
    let mut expected = before.done.first_missing();
    let mut so_far = before;
    let mut waiting: BTreeMap<u64, Segment> = BTreeMap::new();
    let tell = |segment: Segment, so_far: &mut SoFar, observer: &mut dyn Observer| {
        so_far.totals.add(&segment.totals);
        so_far.done.add(segment.places);
        match segment.failure {
            Some(failure) => observer.failure(*failure, so_far),
            None => ControlFlow::Continue(()),
        }
    };
    loop {
        let mut heard = ControlFlow::Continue(());
        match receiver.recv_timeout(TICK) {
            Ok(segment) => {
                waiting.insert(segment.places.start, segment);
            }
            Err(RecvTimeoutError::Timeout) => heard = observer.progress(&so_far),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while heard.is_continue()
            && let Some(segment) = waiting.remove(&expected)
        {
            if segment.failure.is_some() && observer.leaves_failures() {
                return so_far;
            }
            expected = segment.next;
            heard = tell(segment, &mut so_far, observer);
            if heard.is_continue() {
                heard = observer.progress(&so_far);
            }
        }
        if heard.is_break() {
            return so_far;
        }
    }
    // A campaign that was stopped leaves gaps: cases that were handed out and not run.
    for segment in std::mem::take(&mut waiting).into_values() {
        if segment.failure.is_some() && observer.leaves_failures() {
            continue;
        }
        if tell(segment, &mut so_far, observer).is_break() {
            break;
        }
    }
    so_far
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::campaign::case::run_case;
    use crate::oracle::Checks;
    use crate::scenario::{Header, Label, Op};

    /// Case `n` writes LBA `n mod 64`; with bit 63 dropped every 64th case fails.
    fn source(case: u64) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = vec!["bit63-dropped".to_owned()];
        let ops = [
            Op::Write { at: Extent::lbas(case % 64, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        Scenario::new(header, ops)
    }

    fn in_process(scenario: &Scenario, on_event: &mut dyn FnMut(Event)) -> CaseOutcome {
        run_case(scenario, Checks::ALL, on_event).expect("sets up")
    }

    #[derive(Default)]
    struct Notes {
        failed: Vec<(u64, u64)>,
        at_most: usize,
        /// Failures that are taken before the rest is left.
        takes: Option<usize>,
    }

    impl Observer for Notes {
        fn leaves_failures(&self) -> bool {
            self.takes.is_some_and(|takes| self.failed.len() >= takes)
        }

        fn failure(&mut self, failure: Failure, so_far: &SoFar) -> ControlFlow<()> {
            if failure.outcome.verdict.violation().is_none() {
                return ControlFlow::Continue(());
            }
            assert_eq!(failure.outcome.failed_at, Some(2));
            self.failed.push((failure.case, so_far.totals.cases));
            if self.failed.len() < self.at_most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        }
        fn progress(&mut self, _: &SoFar) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
    }

    fn campaign(jobs: usize, batch: u64, at_most: usize) -> (Totals, Notes) {
        let stop = AtomicBool::new(false);
        let campaign = Campaign {
            source: &source,
            runner: &in_process,
            shard: Shard::WHOLE,
            cases: 300,
            time: None,
            jobs,
            batch,
            stop: &stop,
        };
        let mut notes = Notes { at_most, ..Notes::default() };
        let totals = run_cases(&campaign, SoFar::default(), &mut notes).totals;
        (Totals { busy: Duration::ZERO, ..totals }, notes)
    }

    #[test]
    fn totals_digest_and_failures_are_the_same_for_any_number_of_threads() {
        let (totals, notes) = campaign(1, 1, 99);
        assert_eq!((totals.cases, totals.ops, totals.diffs, totals.failures), (300, 900, 300, 4));
        assert_eq!(notes.failed, [(63, 64), (127, 128), (191, 192), (255, 256)]);
        for (jobs, batch) in [(1, 64), (2, 1), (3, 7), (8, 64)] {
            let (same, again) = campaign(jobs, batch, 99);
            assert_eq!((same, again.failed), (totals, notes.failed.clone()), "{jobs} x {batch}");
        }
    }

    #[test]
    fn a_campaign_that_ends_by_failures_ends_with_the_same_case_on_any_number_of_threads() {
        let (totals, notes) = campaign(1, 64, 2);
        assert_eq!((totals.cases, totals.failures), (128, 2));
        for (jobs, batch) in [(2, 5), (4, 1), (3, 200)] {
            let (same, again) = campaign(jobs, batch, 2);
            assert_eq!((same, again.failed), (totals, notes.failed.clone()), "{jobs} x {batch}");
        }
    }

    #[test]
    fn a_stopped_campaign_tells_what_was_done() {
        let stop = AtomicBool::new(false);
        let runner = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            let outcome = in_process(scenario, on_event);
            if outcome.failed_at.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            outcome
        };
        let campaign = Campaign {
            source: &source,
            runner: &runner,
            shard: Shard::WHOLE,
            cases: u64::MAX,
            time: Some(Duration::from_secs(600)),
            jobs: 2,
            batch: 16,
            stop: &stop,
        };
        let mut notes = Notes { at_most: 99, ..Notes::default() };
        let so_far = run_cases(&campaign, SoFar::default(), &mut notes);
        let totals = so_far.totals;
        assert_eq!(so_far.done.count(), totals.cases);
        assert!(totals.cases >= 16 && !notes.failed.is_empty(), "{totals:?}");
        assert_eq!(totals.ops, totals.cases * 3);
    }

    /// Cases 0..200 on two threads, after `before`.
    fn run_all(runner: &Runner<'_>, before: SoFar, notes: &mut Notes) -> SoFar {
        let stop = AtomicBool::new(false);
        let campaign = Campaign {
            source: &source,
            runner,
            shard: Shard::WHOLE,
            cases: 200,
            time: None,
            jobs: 2,
            batch: 7,
            stop: &stop,
        };
        run_cases(&campaign, before, notes)
    }

    /// What two runs have to have in common.
    fn essence(so_far: &SoFar) -> SoFar {
        SoFar {
            totals: Totals { busy: Duration::ZERO, ..so_far.totals },
            done: so_far.done.clone(),
        }
    }

    #[test]
    fn what_could_not_be_judged_is_not_done_and_done_by_the_run_that_goes_on() {
        let mut notes = Notes { at_most: usize::MAX, ..Notes::default() };
        let whole = run_all(&in_process, SoFar::default(), &mut notes);
        let unwell = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            let first = scenario.steps.first().map(|step| step.op.clone());
            match first {
                Some(Op::Write { at }) if at.start().get() % 5 == 3 => {
                    CaseOutcome::unknown(Reason::Api("away".to_owned()))
                }
                _ => in_process(scenario, on_event),
            }
        };
        let mut notes = Notes { at_most: usize::MAX, ..Notes::default() };
        let mut half = run_all(&unwell, SoFar::default(), &mut notes);
        // LBAs 3, 8, .. 63 of cases 0..64, 64..128, 128..192 and 192..200.
        assert_eq!((half.totals.unknown, half.totals.cases), (3 * 13 + 1, 160));
        assert_eq!(half.done.count(), half.totals.cases);
        assert!(!half.done.has(3) && half.done.has(4));
        half.totals.forget_unjudged();
        let again = run_all(&in_process, half, &mut notes);
        assert_eq!(essence(&again), essence(&whole));
    }

    #[test]
    fn failures_that_are_left_are_of_the_run_that_goes_on() {
        let mut notes = Notes { at_most: usize::MAX, ..Notes::default() };
        let whole = run_all(&in_process, SoFar::default(), &mut notes);
        assert_eq!(whole.totals.failures, 3);
        let mut notes = Notes { at_most: usize::MAX, takes: Some(1), ..Notes::default() };
        let some = run_all(&in_process, SoFar::default(), &mut notes);
        assert_eq!((some.totals.failures, notes.failed.len()), (1, 1));
        assert_eq!(some.done.count(), some.totals.cases);
        let mut notes = Notes { at_most: usize::MAX, ..Notes::default() };
        let again = run_all(&in_process, some, &mut notes);
        assert_eq!(notes.failed.len(), 2, "each once");
        assert_eq!(essence(&again), essence(&whole));
    }
}
