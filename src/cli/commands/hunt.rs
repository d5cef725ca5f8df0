//! What `check` and `soak` do while cases run: look into what fails, say it once for each cause,
//! show how far they are, and sum up. Not covered: running the cases (`crate::campaign::check`).

use super::process::{descriptors, rss_bytes, threads};
use super::publish::Publisher;
use crate::array::Latencies;
use crate::campaign::check::{Failure as Failed, Observer, SoFar, Totals};
use crate::campaign::finding::{Finding, FindingRecord};
use crate::campaign::investigate::Investigator;
use crate::campaign::nearest::{nearest, witnesses};
use crate::campaign::reserve;
use crate::campaign::run_files::{Checkpoint, Known, Sample};
use crate::campaign::run_log::RunLog;
use crate::campaign::store::{LATEST, RunFolder, UNFINISHED, bytes_in};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::ui::Versioned;
use crate::engine::CaseName;
use crate::lightbits::LightbitsClient;
use crate::oracle::{Kind, Verdict};
use crate::report::{
    Again, CampaignEnd, Reached, StatusDisplay, end_lines, finding_lines, rate, status_line,
};
use serde::Serialize;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Reasons why cases could not be judged that are shown.
const PROBLEMS: usize = 3;

/// What ends a campaign early.
pub(super) struct Limits {
    /// How long it may take.
    pub(super) time: Option<Duration>,
    /// Different findings at most.
    pub(super) findings: Option<u64>,
    /// How large its folder may grow.
    pub(super) disk_bytes: u64,
}

/// Looks into what a campaign brings up.
pub(super) struct Hunt<'h> {
    context: &'h mut Context,
    investigator: &'h Investigator<'h>,
    seed: u64,
    limits: Limits,
    /// Cases in a row that cannot be judged at most.
    patience: Option<u64>,
    /// Cases that could be judged when the last one could not, and how many in a row there were.
    unjudged: (u64, u64),
    /// How a finding is seen once more.
    again: Again,
    /// How the run's folder is spelt in commands.
    latest: PathBuf,
    started: Instant,
    /// How long runs before this one took.
    before: Duration,
    status: StatusDisplay,
    /// How far it is, as the folder keeps it.
    kept: Checkpoint,
    next_checkpoint: Duration,
    log: RunLog,
    publisher: Publisher,
    /// Its last look at itself.
    sampled: Sample,
    /// Whose calls are measured, and what was measured when they were last looked at.
    pub(super) api: Option<&'h LightbitsClient>,
    api_before: Latencies,
    broken: Option<io::Error>,
    /// It ended because no more fits into its folder.
    full: bool,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "finding")]
struct FindingEvent<'a> {
    kind: Kind,
    operations_before: usize,
    operations: usize,
    reproduced: String,
    path: String,
    case: &'a str,
    sentence: &'a str,
    looks_like: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "run_finished")]
struct Finished {
    cases: u64,
    operations: u64,
    operations_per_s: u64,
    operations_per_s_per_core: u64,
    diffs: u64,
    violations: u64,
    findings: usize,
    unknown: u64,
    nothing_compared: u64,
    digest: String,
    seed: u64,
    seconds: f64,
    exit_code: u8,
}

impl<'h> Hunt<'h> {
    /// A hunt that goes on after `kept`.
    pub(super) fn new(
        context: &'h mut Context,
        investigator: &'h Investigator<'h>,
        (seed, limits): (u64, Limits),
        kept: Checkpoint,
        (log, publisher): (RunLog, Publisher),
    ) -> Hunt<'h> {
        let before = Duration::try_from_secs_f64(kept.seconds).unwrap_or_default();
        Hunt {
            status: context.ui.status(),
            context,
            investigator,
            seed,
            limits,
            patience: None,
            unjudged: (0, 0),
            again: Again::on_simulator(),
            latest: investigator.run.to_owned(),
            started: Instant::now(),
            before,
            kept: Checkpoint { exit_code: None, ..kept },
            next_checkpoint: Duration::ZERO,
            log,
            publisher,
            sampled: Sample::default(),
            api: None,
            api_before: Latencies::default(),
            broken: None,
            full: false,
        }
    }

    /// How the folder is spelt in commands: by its link, below `run_dir`.
    pub(super) fn spell_folder(&mut self, run_dir: &Path) {
        self.latest = run_dir.strip_prefix("./").unwrap_or(run_dir).join(LATEST);
    }

    /// Something of the run could not be kept: it does not pass.
    pub(super) fn note_broken(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.broken.get_or_insert(error);
        }
    }

    fn elapsed(&self) -> Duration {
        self.before + self.started.elapsed()
    }

    /// Tells an event: the file always, standard output if it is wanted there.
    fn tell(&mut self, event: &impl Serialize) {
        if let Err(error) = self.log.add(event) {
            self.broken.get_or_insert(error);
        }
        if self.context.ui.form == Form::Jsonl {
            self.context.ui.event(event);
        }
    }

    /// Puts down how far it is.
    fn checkpoint(&mut self, so_far: &SoFar) {
        let elapsed = self.elapsed();
        self.next_checkpoint = elapsed + CHECKPOINT_EVERY;
        self.kept.so_far.clone_from(so_far);
        self.kept.seconds = elapsed.as_secs_f64();
        let line = self.status_line(&so_far.totals);
        self.context.stop.tell_state(line);
        if let Err(error) = self.kept.save(self.investigator.run) {
            self.broken.get_or_insert(error);
        }
    }

    /// How far it is, in one line.
    fn status_line(&self, totals: &Totals) -> String {
        let findings = self.kept.findings.len();
        let rss_mib = rss_bytes().map(|bytes| bytes >> 20);
        let mut line = status_line(self.elapsed(), self.limits.time, totals, findings, rss_mib);
        if let (Some(p50), Some(p99)) = (self.sampled.api_p50_ms, self.sampled.api_p99_ms) {
            line.push_str(&format!("  API p50 {p50:.1} ms p99 {p99:.1} ms"));
        }
        line
    }

    /// What a sample says of the API.
    fn api_sample(&mut self) -> Sample {
        let Some(api) = self.api else { return Sample::default() };
        let now = api.latency().now();
        let since = now.since(&self.api_before);
        let ms = |share| since.quantile(share).map(|took| took.as_secs_f64() * 1e3);
        let sample = Sample {
            api_calls: Some(now.count()),
            api_retries: Some(api.retries()),
            api_p50_ms: ms(0.5),
            api_p99_ms: ms(0.99),
            ..Sample::default()
        };
        self.api_before = now;
        sample
    }

    fn sample(&mut self, totals: &Totals) {
        let elapsed = self.elapsed();
        let sample = Sample {
            seconds: elapsed.as_secs_f64(),
            cases: totals.cases,
            operations: totals.ops,
            diffs: totals.diffs,
            pages: totals.pages,
            taken: totals.taken,
            deleted: totals.deleted,
            unknown: totals.unknown,
            findings: self.kept.findings.len() as u64,
            rss_bytes: rss_bytes(),
            descriptors: descriptors(),
            threads: threads(),
            ..self.api_sample()
        };
        if let Err(error) = self.log.sample(elapsed, &sample) {
            self.broken.get_or_insert(error);
        }
        self.sampled = sample;
    }

    /// Tells others how far it is.
    fn publish(&mut self) {
        if let Err(error) = self.publisher.publish(&self.kept, &self.sampled) {
            self.status.clear();
            self.context.ui.say(&format!("metrics could not be written: {error}"));
        }
    }

    /// For a target that may go away: gives up after `patience` cases in a row that cannot be
    /// judged. `again` is how a finding is seen once more there.
    pub(super) fn on_target(self, patience: u64, again: Again) -> Hunt<'h> {
        Hunt { patience: Some(patience), again, ..self }
    }

    /// Counts a case that could not be judged; answers whether there is no point in going on.
    fn cannot_judge(&mut self, totals: &Totals) -> bool {
        let judged = totals.cases;
        let (last, row) = self.unjudged;
        let row = if row > 0 && last == judged { row + 1 } else { 1 };
        self.unjudged = (judged, row);
        self.patience.is_some_and(|most| row >= most)
    }

    /// A finding of a new cause is shown and kept; another one of a known cause is counted.
    fn found(&mut self, case: u64, finding: &Finding, so_far: &SoFar) -> io::Result<()> {
        self.forget_unfinished(&finding.case)?;
        let signature = finding.signature();
        if let Some(known) = self.kept.findings.iter_mut().find(|it| it.signature == signature) {
            known.cases += 1;
            return finding.forget();
        }
        self.status.clear();
        let (kind, operations) = (finding.violation.kind, finding.operations());
        let near = nearest(&finding.violation, &finding.scenario, &witnesses());
        let event = FindingEvent {
            kind,
            operations_before: finding.operations_before,
            operations,
            reproduced: format!("{}/{}", finding.reproduced, finding.tried),
            path: finding.path.display().to_string(),
            case: &finding.case,
            sentence: &finding.violation.sentence,
            looks_like: near.as_ref().map(|near| near.name),
        };
        self.tell(&event);
        if self.context.ui.form == Form::Text {
            // On a target the command makes a run of its own, and `latest` is that one then.
            let folder = match self.patience {
                Some(_) => finding.path.clone(),
                None => self.latest.join(format!("finding-{}", finding.number)),
            };
            let lines = finding_lines(finding, near.as_ref(), &folder, &self.again);
            lines.iter().for_each(|line| self.context.ui.print(line));
        }
        let number = finding.number;
        self.kept.findings.push(Known { number, case, signature, operations, cases: 1 });
        // A run that is killed now goes on with what it found: before anybody else is told, who may
        // take his time.
        self.checkpoint(so_far);
        let stop = self.context.stop.shared_flag();
        if let Some(why) = self.publisher.found(&Versioned { v: 1, event: &event }, &stop) {
            self.context.ui.say(&why);
        }
        Ok(())
    }

    /// A finding that an earlier run was killed over was looked into anew.
    fn forget_unfinished(&self, case: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.investigator.run)? {
            let entry = entry?;
            let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            let same = |path: &Path| FindingRecord::load(path).is_ok_and(|it| it.case == case);
            if unfinished && same(&entry.path()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Whether there is no room left for findings.
    fn is_full(&mut self) -> io::Result<bool> {
        let (bytes, most) = (bytes_in(self.investigator.run)?, self.limits.disk_bytes);
        if bytes >= most {
            let problem = format!(
                "any more: the run's folder has {bytes} bytes, as many as --max-disk allows"
            );
            self.kept.problems.push(problem);
            self.full = true;
        }
        Ok(bytes >= most)
    }

    /// Sums up.
    pub(super) fn finish(
        mut self,
        so_far: SoFar,
        reached: Option<Reached>,
        folder: &RunFolder,
    ) -> Exit {
        self.status.clear();
        let (elapsed, totals) = (self.elapsed(), so_far.totals);
        let stopped = self.context.stop.exit();
        // What comes now is the last: the summary and the report.
        self.note_broken(reserve::give_up(folder.path()));
        self.sample(&totals);
        // What could not be written down is no pass, and takes nothing from what was found.
        let exit = match self.broken {
            None => exit_of(&totals, stopped, self.full),
            Some(_) => exit_of(&totals, stopped, self.full).or(Exit::CouldNotTest),
        };
        self.kept.exit_code = Some(exit.code());
        self.checkpoint(&so_far);
        self.publish();
        let kept = self.kept.findings.iter();
        let findings = kept.map(|known| (known.signature.kind, known.operations, known.cases));
        let end = CampaignEnd {
            totals,
            elapsed,
            findings: findings.collect(),
            problems: self.kept.problems.clone(),
            reached,
            interrupted: stopped.is_some(),
            kept: self.broken.is_none(),
            incomplete: self.full,
            folder: folder.path().to_owned(),
        };
        self.tell(&Finished {
            cases: totals.cases,
            operations: totals.ops,
            operations_per_s: rate(totals.ops, elapsed),
            operations_per_s_per_core: totals.ops_per_busy_second(),
            diffs: totals.diffs,
            violations: totals.failures,
            findings: end.findings.len(),
            unknown: totals.unknown,
            nothing_compared: totals.nothing_compared,
            digest: totals.digest.to_string(),
            seed: self.seed,
            seconds: elapsed.as_secs_f64(),
            exit_code: exit.code(),
        });
        if self.context.ui.form == Form::Text {
            end_lines(&end).iter().for_each(|line| self.context.ui.print(line));
        }
        match self.broken {
            None => exit,
            Some(error) => {
                let folder = folder.path().display();
                self.context.ui.say(&format!("{folder} could not be written: {error}"));
                exit.or(Exit::CouldNotTest)
            }
        }
    }
}

/// What a campaign comes to. One that had no room for the rest did less than it was asked: no pass.
fn exit_of(totals: &Totals, stopped: Option<Exit>, full: bool) -> Exit {
    let mut exit = match totals {
        totals if totals.failures > 0 => Exit::Violation,
        totals if totals.unknown > 0 || totals.diffs == 0 || full => Exit::CouldNotTest,
        _ => Exit::Passed,
    };
    if totals.tool_bugs > 0 {
        exit = exit.or(Exit::Bug);
    }
    stopped.map_or(exit, |stopped| exit.or(stopped))
}

impl Observer for Hunt<'_> {
    /// Who was asked to stop looks into no further case, each of which takes time; but does not go
    /// without telling that there is one.
    fn leaves_failures(&self) -> bool {
        self.context.stop.exit().is_some() && !self.kept.findings.is_empty()
    }

    fn failure(&mut self, failure: Failed, so_far: &SoFar) -> ControlFlow<()> {
        let case = CaseName { seed: self.seed, case: failure.case }.to_string();
        if let Verdict::Unknown(reason) = &failure.outcome.verdict {
            if self.kept.problems.len() < PROBLEMS {
                self.kept.problems.push(format!("case {case}: {reason}"));
            }
            if self.cannot_judge(&so_far.totals) {
                let row = self.unjudged.1;
                let problem = format!("any more: {row} cases in a row could not be judged");
                self.kept.problems.push(problem);
                return ControlFlow::Break(());
            }
            return ControlFlow::Continue(());
        }
        // Where runs are dear, looking into it takes long: what is known now is said now.
        let found = failure.outcome.verdict.violation();
        if let Some(found) = found.filter(|_| self.patience.is_some()) {
            self.status.clear();
            self.context.ui.say(&format!("found in {case}, being shrunk: {found}"));
        }
        let number = u32::try_from(self.kept.findings.len() + 1).unwrap_or(u32::MAX);
        self.note_broken(reserve::give_up_if_short(self.investigator.run));
        let looked = self.investigator.look_into(number, &case, &failure);
        let done = looked.and_then(|finding| {
            let Some(finding) = finding else { return Ok(false) };
            let before = self.kept.findings.len();
            self.found(failure.case, &finding, so_far)?;
            let is_new = self.kept.findings.len() > before;
            Ok(is_new && self.is_full()?)
        });
        let full = match done {
            Ok(full) => full,
            Err(error) => {
                // Findings that cannot be kept are worth no further cases.
                self.broken.get_or_insert(error);
                true
            }
        };
        let enough =
            self.limits.findings.is_some_and(|most| self.kept.findings.len() as u64 >= most);
        if enough || full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn progress(&mut self, so_far: &SoFar) -> ControlFlow<()> {
        let elapsed = self.elapsed();
        if self.log.is_due(elapsed) {
            self.sample(&so_far.totals);
            if let Err(error) = self.is_full() {
                self.broken.get_or_insert(error);
            }
        }
        if elapsed >= self.next_checkpoint {
            self.checkpoint(so_far);
        }
        if self.publisher.is_due() {
            self.publish();
        }
        if self.status.is_due(elapsed) {
            let line = self.status_line(&so_far.totals);
            self.status.show(elapsed, || line);
        }
        // A run that cannot be kept is worth no further cases.
        if self.full {
            return ControlFlow::Break(());
        }
        if self.broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let clean = Totals { cases: 9, diffs: 5, ..Totals::default() };
        assert_eq!(exit_of(&clean, None, false), Exit::Passed);
        assert_eq!(exit_of(&clean, None, true), Exit::CouldNotTest, "less than was asked");
        assert_eq!(
            exit_of(&Totals::default(), None, false),
            Exit::CouldNotTest,
            "nothing compared"
        );
        assert_eq!(exit_of(&Totals { unknown: 1, ..clean }, None, false), Exit::CouldNotTest);
        let failed = Totals { failures: 1, unknown: 1, ..clean };
        assert_eq!(exit_of(&failed, None, true), Exit::Violation);
        assert_eq!(exit_of(&failed, Some(Exit::Terminated), false), Exit::Terminated);
        let bug = Totals { tool_bugs: 1, ..failed };
        assert_eq!(exit_of(&bug, Some(Exit::Interrupted), false), Exit::Bug);
    }
}
