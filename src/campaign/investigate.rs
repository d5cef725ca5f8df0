//! Looking into a finding: a case that showed a violation is on disk as a whole before anything else
//! is done about it, then shrunk, run again, and named.
//!
//! `finding-N/` appears under its name only when it is complete (it is written beside and renamed),
//! and holds at every moment a `repro.jsonl` that shows the violation: the original first, the
//! shrunk one later, put in its place by a rename. `events.jsonl` is a recording of it, for a second
//! judge. Not covered: screens (`crate::report`).

use super::by_hand::script;
use super::case::CaseOutcome;
use super::check::{Failure, Runner};
use super::finding::{
    BY_HAND, Finding, FindingRecord, Kept, ORIGINAL, REPRO, Shrinking, ShrunkRecord, VIOLATION,
    touching,
};
use super::record::{EVENTS, record as recorded};
use super::stand_in::shorten;
use super::store::{create_private, replace, sync_folder};
use crate::engine::{Event, ShrinkBudget, ShrinkStep, Shrunk, shrink};
use crate::oracle::{Kind, Reason, Verdict, Violation};
use crate::scenario::{Scenario, write_trace};
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a shrunk scenario is run again, to see whether it fails every time.
const AGAIN: u32 = 3;

/// How findings of a run are looked into.
pub struct Investigator<'i> {
    /// The run folder.
    pub run: &'i Path,
    /// What scenarios run on.
    pub runner: &'i Runner<'i>,
    /// The same, telling records: what a finding does is kept for a second judge.
    pub recorder: &'i Runner<'i>,
    /// How long and how often a finding may be shrunk.
    pub budget: ShrinkBudget,
    /// Set to end shrinking early.
    pub stop: &'i AtomicBool,
    /// How often a candidate is run before it counts as not showing the violation: more than once
    /// where runs do not repeat themselves.
    pub tries: u32,
    /// Whether a person can do by hand, with curl and dd, what runs do.
    pub by_hand: bool,
    /// Whether runs are so dear that the simulator shrinks first, if a planted bug explains the
    /// finding there.
    pub stand_in: bool,
}

impl<'i> Investigator<'i> {
    /// Where runs are cheap and repeat themselves. The second runner tells records.
    pub fn new(
        run: &'i Path,
        (runner, recorder): (&'i Runner<'i>, &'i Runner<'i>),
        budget: ShrinkBudget,
        stop: &'i AtomicBool,
    ) -> Investigator<'i> {
        Investigator {
            run,
            runner,
            recorder,
            budget,
            stop,
            tries: 1,
            by_hand: true,
            stand_in: false,
        }
    }

    /// Writes the finding down, shrinks it, runs it again. A case without a violation is none.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn look_into(
        &self,
        number: u32,
        case: &str,
        failure: &Failure,
    ) -> io::Result<Option<Finding>> {
        let Some(found) = failure.outcome.verdict.violation() else { return Ok(None) };
        // Nothing after the step that showed it can matter.
        let mut original = failure.scenario.clone();
        let last = failure.outcome.failed_at.unwrap_or(original.steps.len());
        original.steps.truncate(last.saturating_add(1));
        let operations_before = original.steps.len().saturating_sub(1);
        let mut record = FindingRecord {
            v: 1,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            case: case.to_owned(),
            kind: found.kind,
            meaning: found.kind.meaning().to_owned(),
            violation: found.clone(),
            operations_before,
            touching: touching(&original, found),
            shrunk: None,
        };
        let trace = write_trace(&failure.scenario)?;
        let mut first =
            vec![(ORIGINAL, trace), (VIOLATION, record.text()?), (REPRO, write_trace(&original)?)];
        if self.by_hand {
            first.push((BY_HAND, script(&original, found)));
        }
        let path = self.write_whole(number, &first)?;
        let seen_first = self.keep_events(&path, &original, found.kind, false)?;

        let patient = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            self.run_patiently(scenario, found, on_event)
        };
        let short = match self.stand_in {
            true => shorten(&original, found.kind, &patient, self.stop),
            false => None,
        };
        let start = short.as_ref().unwrap_or(&original);
        let mut log = Vec::new();
        let mut listen = |step: ShrinkStep| log.push(Kept::from(step));
        let (budget, stop) = (self.budget, self.stop);
        let shrunk = shrink_scenario(start, found.kind, budget, &patient, (stop, &mut listen));
        let (scenario, outcomes) = self.confirm(&original, shrunk.scenario, found.kind);
        let again: Vec<&Violation> =
            outcomes.iter().filter_map(|outcome| same(outcome, found.kind)).collect();
        let violation = again.first().map_or_else(|| found.clone(), |&seen| seen.clone());
        let finding = Finding {
            number,
            case: case.to_owned(),
            violation,
            operations_before,
            scenario,
            shrinking: Shrinking {
                runs: shrunk.runs,
                took: shrunk.took,
                finished: shrunk.finished,
            },
            reproduced: u32::try_from(again.len()).unwrap_or(AGAIN),
            tried: AGAIN,
            path,
        };
        record.shrunk = Some(ShrunkRecord {
            operations: finding.operations(),
            runs: finding.shrinking.runs,
            seconds: finding.shrinking.took.as_secs_f64(),
            finished: finding.shrinking.finished,
            reproduced: format!("{}/{}", finding.reproduced, finding.tried),
            log,
            touching: touching(&finding.scenario, &finding.violation),
            violation: finding.violation.clone(),
        });
        replace(&finding.path, REPRO, write_trace(&finding.scenario)?.as_bytes())?;
        // A recording that shows it does not give way to one that does not.
        self.keep_events(&finding.path, &finding.scenario, found.kind, seen_first)?;
        if self.by_hand {
            let script = script(&finding.scenario, &finding.violation);
            replace(&finding.path, BY_HAND, script.as_bytes())?;
        }
        replace(&finding.path, VIOLATION, record.text()?.as_bytes())?;
        Ok(Some(finding))
    }

    /// Runs a scenario until it shows a violation of the kind of `found`, but not more often than
    /// allowed. What earlier runs left on a real volume is another finding, gone with the next write.
    fn run_patiently(
        &self,
        scenario: &Scenario,
        found: &Violation,
        on_event: &mut dyn FnMut(Event),
    ) -> CaseOutcome {
        let mut run = || {
            let mut outcome = (self.runner)(scenario, on_event);
            let shown = outcome.verdict.violation();
            if shown.is_some_and(|shown| shown.older_data && !found.older_data) {
                outcome.verdict = Verdict::Unknown(Reason::NothingCompared);
            }
            outcome
        };
        let mut outcome = run();
        for _ in 1..self.tries {
            if same(&outcome, found.kind).is_some() || self.stop.load(Ordering::Relaxed) {
                break;
            }
            outcome = run();
        }
        outcome
    }

    /// Keeps a recording of what is to be replayed: of a run that shows the violation, if one does.
    /// Where runs do not repeat themselves, a few more are given to it than to a candidate.
    /// Answers whether it shows; if it does not, it is left out where `only_if_shown`.
    fn keep_events(
        &self,
        folder: &Path,
        scenario: &Scenario,
        kind: Kind,
        only_if_shown: bool,
    ) -> io::Result<bool> {
        let mut kept = recorded(scenario, self.recorder)?;
        let most = if self.tries > 1 { self.tries * AGAIN } else { 1 };
        for _ in 1..most {
            if same(&kept.0, kind).is_some() || self.stop.load(Ordering::Relaxed) {
                break;
            }
            kept = recorded(scenario, self.recorder)?;
        }
        let shown = same(&kept.0, kind).is_some();
        if shown || !only_if_shown {
            replace(folder, EVENTS, kept.1.lines())?;
        }
        Ok(shown)
    }

    /// Writes the folder beside its place and moves it there.
    fn write_whole(&self, number: u32, files: &[(&str, String)]) -> io::Result<PathBuf> {
        let beside = self.run.join(format!(".finding-{number}"));
        let path = self.run.join(format!("finding-{number}"));
        DirBuilder::new().mode(0o700).create(&beside)?;
        for (name, text) in files {
            let mut file = create_private(&beside.join(name))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        sync_folder(&beside)?;
        fs::rename(&beside, &path)?;
        sync_folder(self.run)?;
        Ok(path)
    }

    /// Runs the shrunk scenario again, without what follows the step that shows the violation. One
    /// that never fails again gives way to the original.
    fn confirm(
        &self,
        original: &Scenario,
        mut shrunk: Scenario,
        kind: Kind,
    ) -> (Scenario, Vec<CaseOutcome>) {
        let run = |scenario: &Scenario| -> Vec<CaseOutcome> {
            (0..AGAIN).map(|_| (self.runner)(scenario, &mut |_| ())).collect()
        };
        let outcomes = run(&shrunk);
        let seen = outcomes.iter().filter(|outcome| same(outcome, kind).is_some());
        match seen.filter_map(|outcome| outcome.failed_at).max() {
            Some(last) => {
                shrunk.steps.truncate(last.saturating_add(1));
                (shrunk, outcomes)
            }
            None if shrunk != *original => (original.clone(), run(original)),
            None => (shrunk, outcomes),
        }
    }
}

/// Shrinks a scenario for as long as a violation of `kind` shows; `stop` ends it early. `log` hears of
/// every step that was kept.
pub fn shrink_scenario(
    original: &Scenario,
    kind: Kind,
    budget: ShrinkBudget,
    runner: &Runner<'_>,
    (stop, log): (&AtomicBool, &mut dyn FnMut(ShrinkStep)),
) -> Shrunk {
    let mut reproduces = |candidate: &Scenario| {
        // A stopped run shrinks no more: every further candidate is turned down unseen.
        !stop.load(Ordering::Relaxed) && same(&runner(candidate, &mut |_| ()), kind).is_some()
    };
    shrink(original, budget, &mut reproduces, log)
}

/// The gravest violation, if it is of that kind.
fn same(outcome: &CaseOutcome, kind: Kind) -> Option<&Violation> {
    outcome.verdict.violation().filter(|violation| violation.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role};
    use crate::campaign::case::{record_case, run_case};
    use crate::campaign::finding::op_kinds;
    use crate::campaign::record::judge_file;
    use crate::oracle::Checks;
    use crate::scenario::{Header, Label, Op, read_trace};
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    fn at() -> Extent {
        Extent::lbas(64, 8)
    }

    /// Bit 63 is written among much else, and a diff shows that it is not reported.
    fn noisy() -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = vec!["discard-untracked".to_owned()];
        let take = |n| Op::Take { label: Label(n), wait: true };
        let diff = |snap, base| Op::Diff {
            snap: Label(snap),
            base: Some(Label(base)),
            from: Lba::new(0),
            between_pages: None,
        };
        let ops = [
            Op::Flush,
            Op::Write { at: Extent::lbas(0, 4) },
            Op::Write { at: at() },
            take(0),
            Op::Flush,
            Op::Write { at: Extent::lbas(200, 4) },
            take(1),
            diff(1, 0),
            Op::Discard { at: at() },
            take(2),
            diff(2, 1),
            Op::Write { at: Extent::lbas(9, 9) },
        ];
        Scenario::new(header, ops)
    }

    fn in_process(scenario: &Scenario, on_event: &mut dyn FnMut(Event)) -> CaseOutcome {
        run_case(scenario, Checks::ALL, on_event).expect("sets up")
    }

    fn failure() -> Failure {
        let scenario = noisy();
        let outcome = in_process(&scenario, &mut |_| ());
        Failure { case: 17, scenario, outcome }
    }

    fn recorder(scenario: &Scenario, on_event: &mut dyn FnMut(Event)) -> CaseOutcome {
        record_case(scenario, on_event).expect("sets up")
    }

    fn investigator<'i>(
        run: &'i Path,
        runner: &'i Runner<'i>,
        stop: &'i AtomicBool,
    ) -> Investigator<'i> {
        Investigator::new(run, (runner, &recorder), BUDGET, stop)
    }

    const BUDGET: ShrinkBudget = ShrinkBudget { time: Duration::from_secs(60), runs: 10_000 };

    fn read(path: &Path, name: &str) -> String {
        fs::read_to_string(path.join(name)).expect("the file is there")
    }

    #[test]
    fn a_finding_is_shrunk_run_again_and_written_down() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let look = investigator(run.path(), &in_process, &stop);
        let finding = look.look_into(1, "g1:1:17", &failure()).expect("writes").expect("a finding");
        assert_eq!((finding.operations_before, finding.operations()), (10, 4));
        assert_eq!((finding.reproduced, finding.tried), (3, 3));
        assert_eq!(
            op_kinds(&finding.scenario),
            ["write", "take", "discard", "take", "diff"],
            "{finding:?}"
        );
        assert_eq!(read_trace(&read(&finding.path, REPRO)).expect("reads"), finding.scenario);
        assert_eq!(read_trace(&read(&finding.path, ORIGINAL)).expect("reads"), noisy());
        let record: serde_json::Value =
            serde_json::from_str(&read(&finding.path, VIOLATION)).expect("JSON");
        let loaded = FindingRecord::load(&finding.path).expect("reads");
        assert_eq!(loaded.shown(), &finding.violation);
        assert_eq!(record["kind"], "missed");
        assert_eq!(record["shrunk"]["operations"], 4);
        assert_eq!(record["shrunk"]["reproduced"], "3/3");
        let log = record["shrunk"]["log"].as_array().expect("a list");
        let left: Vec<u64> = log.iter().filter_map(|step| step["steps"].as_u64()).collect();
        assert!(left.is_sorted_by(|a, b| a >= b) && left.last() == Some(&5), "{log:?}");
        let touching = record["shrunk"]["touching"].as_array().expect("a list");
        let steps: Vec<u64> = touching.iter().filter_map(|t| t["step"].as_u64()).collect();
        assert_eq!(steps, [1, 3], "the write and the discard: {touching:?}");
        assert!(read(&finding.path, BY_HAND).contains("blkdiscard --offset"));
        let mut names: Vec<String> = fs::read_dir(&finding.path)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [EVENTS, ORIGINAL, REPRO, BY_HAND, VIOLATION],
            "and nothing half-written"
        );
        let judged = judge_file(&finding.path.join(EVENTS)).expect("it can be judged");
        let kinds: Vec<&str> = judged.violations.iter().map(|found| found.kind.name()).collect();
        assert_eq!((kinds, judged.agrees()), (vec!["missed"], true), "{judged:?}");
    }

    #[test]
    fn a_finding_is_whole_on_disk_before_the_first_candidate_is_run() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let seen = Mutex::new(0);
        // What a process that is killed now, or at any later candidate, leaves behind.
        let looking = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            let path = run.path().join("finding-1");
            let repro = read_trace(&read(&path, REPRO)).expect("a whole trace");
            assert_eq!(in_process(&repro, &mut |_| ()).kind(), Some(Kind::Missed));
            assert_eq!(read_trace(&read(&path, ORIGINAL)).expect("a whole trace"), noisy());
            let record: serde_json::Value =
                serde_json::from_str(&read(&path, VIOLATION)).expect("whole");
            assert_eq!(record["operations_before"], 10);
            assert!(read(&path, BY_HAND).ends_with("verdict\n"));
            *seen.lock().expect("no panic") += 1;
            in_process(scenario, on_event)
        };
        let look = investigator(run.path(), &looking, &stop);
        assert!(look.look_into(1, "g1:1:17", &failure()).expect("writes").is_some());
        assert!(*seen.lock().expect("no panic") > 3);
    }

    #[test]
    fn older_data_that_a_candidate_lays_bare_is_not_taken_for_the_finding() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        // A real volume whose old data is missing from every full scan.
        let with_a_past = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            let mut outcome = in_process(scenario, on_event);
            if outcome.kind().is_none() {
                let old = Violation::new(Kind::Missed, "LBA 9 holds something").of_older_data();
                outcome.verdict = Verdict::Fail(vec![old]);
            }
            outcome
        };
        let look = investigator(run.path(), &with_a_past, &stop);
        let finding = look.look_into(1, "g1:1:17", &failure()).expect("writes").expect("a finding");
        assert_eq!(op_kinds(&finding.scenario), ["write", "take", "discard", "take", "diff"]);
        assert!(!finding.violation.older_data, "{finding:?}");
    }

    #[test]
    fn a_stopped_run_keeps_the_finding_as_it_was_found() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(true);
        let look = investigator(run.path(), &in_process, &stop);
        let finding = look.look_into(1, "g1:1:17", &failure()).expect("writes").expect("a finding");
        assert_eq!((finding.operations(), finding.violation.kind), (10, Kind::Missed));
    }

    #[test]
    fn a_flaky_finding_is_kept_and_counted() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let runs = AtomicU32::new(0);
        // Fails every other time.
        let flaky = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            let mut scenario = scenario.clone();
            if runs.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
                scenario.header.planted.clear();
            }
            in_process(&scenario, on_event)
        };
        let look = investigator(run.path(), &flaky, &stop);
        let finding = look.look_into(1, "g1:1:17", &failure()).expect("writes").expect("a finding");
        assert!(finding.reproduced >= 1 && finding.reproduced < finding.tried, "{finding:?}");
    }

    #[test]
    fn findings_of_one_cause_share_a_signature_and_what_passed_is_no_finding() {
        let run = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let look = investigator(run.path(), &in_process, &stop);
        let mut elsewhere = failure();
        for step in &mut elsewhere.scenario.steps {
            match &mut step.op {
                Op::Write { at } | Op::Discard { at } if *at == self::at() => {
                    *at = Extent::lbas(128, 3);
                }
                _ => {}
            }
        }
        elsewhere.outcome = in_process(&elsewhere.scenario, &mut |_| ());
        let first = look.look_into(1, "g1:1:17", &failure()).expect("writes").expect("a finding");
        let second = look.look_into(2, "g1:1:18", &elsewhere).expect("writes").expect("a finding");
        assert_eq!(first.signature(), second.signature());
        second.forget().expect("it can be removed");
        assert!(!run.path().join("finding-2").exists() && first.path.exists());
        let mut fine = failure();
        fine.outcome.verdict = crate::oracle::Verdict::Pass;
        assert!(look.look_into(2, "g1:1:19", &fine).expect("nothing to write").is_none());
    }
}
