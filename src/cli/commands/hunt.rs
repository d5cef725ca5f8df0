//! What `check` and `soak` do while cases run: look into what fails, say it once for each cause,
//! show how far they are, and sum up. Not covered: running the cases (`crate::campaign::check`).

use crate::campaign::check::{Failure as Failed, Observer, Totals};
use crate::campaign::finding::{Finding, Investigator, Signature};
use crate::campaign::nearest::{nearest, witnesses};
use crate::campaign::store::{LATEST, RunFolder};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::engine::CaseName;
use crate::oracle::{Kind, Verdict};
use crate::report::{
    Again, CampaignEnd, Reached, StatusDisplay, end_lines, finding_lines, rate, status_line,
};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Reasons why cases could not be judged that are shown.
const PROBLEMS: usize = 3;

/// A finding, and in how many cases it was seen.
struct Seen {
    signature: Signature,
    kind: Kind,
    operations: usize,
    cases: u64,
}

/// Looks into what a campaign brings up.
pub(super) struct Hunt<'h> {
    context: &'h mut Context,
    investigator: &'h Investigator<'h>,
    seed: u64,
    time: Option<Duration>,
    /// Different findings at most.
    most: Option<u64>,
    /// Cases in a row that cannot be judged at most.
    patience: Option<u64>,
    /// The last case that could not be judged, and how many in a row there were.
    unjudged: (u64, u64),
    /// How a finding is seen once more.
    again: Again,
    /// How the run's folder is spelt in commands.
    latest: PathBuf,
    started: Instant,
    status: StatusDisplay,
    seen: Vec<Seen>,
    problems: Vec<String>,
    broken: Option<std::io::Error>,
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
    pub(super) fn new(
        context: &'h mut Context,
        investigator: &'h Investigator<'h>,
        seed: u64,
        time: Option<Duration>,
        most: Option<u64>,
        run_dir: &Path,
    ) -> Hunt<'h> {
        let status = context.ui.status();
        let latest = run_dir.strip_prefix("./").unwrap_or(run_dir).join(LATEST);
        let (started, seen, problems) = (Instant::now(), Vec::new(), Vec::new());
        let broken = None;
        let (patience, unjudged, again) = (None, (0, 0), Again::on_simulator());
        Hunt {
            context,
            investigator,
            seed,
            time,
            most,
            patience,
            unjudged,
            again,
            latest,
            started,
            status,
            seen,
            problems,
            broken,
        }
    }

    /// For a target that may go away: gives up after `patience` cases in a row that cannot be
    /// judged. `again` is how a finding is seen once more there.
    pub(super) fn on_target(self, patience: u64, again: Again) -> Hunt<'h> {
        Hunt { patience: Some(patience), again, ..self }
    }

    /// Counts a case that could not be judged; answers whether there is no point in going on.
    fn cannot_judge(&mut self, case: u64) -> bool {
        let (last, row) = self.unjudged;
        let row = if row > 0 && last + 1 == case { row + 1 } else { 1 };
        self.unjudged = (case, row);
        self.patience.is_some_and(|most| row >= most)
    }

    /// A finding of a new cause is shown and kept; another one of a known cause is counted.
    fn found(&mut self, finding: &Finding) -> std::io::Result<()> {
        let signature = finding.signature();
        if let Some(known) = self.seen.iter_mut().find(|seen| seen.signature == signature) {
            known.cases += 1;
            return finding.forget();
        }
        self.status.clear();
        let (kind, operations) = (finding.violation.kind, finding.operations());
        let near = nearest(&finding.violation, &finding.scenario, &witnesses());
        match self.context.ui.form {
            Form::Jsonl => self.context.ui.event(&FindingEvent {
                kind,
                operations_before: finding.operations_before,
                operations,
                reproduced: format!("{}/{}", finding.reproduced, finding.tried),
                path: finding.path.display().to_string(),
                case: &finding.case,
                sentence: &finding.violation.sentence,
                looks_like: near.as_ref().map(|near| near.name),
            }),
            Form::Text => {
                // On a target the command makes a run of its own, and `latest` is that one then.
                let folder = match self.patience {
                    Some(_) => finding.path.clone(),
                    None => self.latest.join(format!("finding-{}", finding.number)),
                };
                let lines = finding_lines(finding, near.as_ref(), &folder, &self.again);
                lines.iter().for_each(|line| self.context.ui.print(line));
            }
        }
        self.seen.push(Seen { signature, kind, operations, cases: 1 });
        Ok(())
    }

    /// Sums up.
    ///
    /// # Errors
    /// If a finding could not be written.
    pub(super) fn finish(
        mut self,
        totals: Totals,
        reached: Option<Reached>,
        folder: &RunFolder,
    ) -> Result<Exit, Failure> {
        self.status.clear();
        let elapsed = self.started.elapsed();
        let stopped = self.context.stop.exit();
        let exit = exit_of(&totals, stopped);
        let findings = self.seen.iter().map(|seen| (seen.kind, seen.operations, seen.cases));
        let end = CampaignEnd {
            totals,
            elapsed,
            findings: findings.collect(),
            problems: std::mem::take(&mut self.problems),
            reached,
            interrupted: stopped.is_some(),
            folder: folder.path().to_owned(),
        };
        match self.context.ui.form {
            Form::Jsonl => self.context.ui.event(&Finished {
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
            }),
            Form::Text => end_lines(&end).iter().for_each(|line| self.context.ui.print(line)),
        }
        match self.broken {
            None => Ok(exit),
            Some(error) => Err(Failure::could_not(format!(
                "a finding could not be written to {}: {error}",
                folder.path().display()
            ))),
        }
    }
}

/// What a campaign comes to.
fn exit_of(totals: &Totals, stopped: Option<Exit>) -> Exit {
    let mut exit = match totals {
        totals if totals.failures > 0 => Exit::Violation,
        totals if totals.unknown > 0 || totals.diffs == 0 => Exit::CouldNotTest,
        _ => Exit::Passed,
    };
    if totals.tool_bugs > 0 {
        exit = exit.or(Exit::Bug);
    }
    stopped.map_or(exit, |stopped| exit.or(stopped))
}

impl Observer for Hunt<'_> {
    fn failure(&mut self, failure: Failed, _: &Totals) -> ControlFlow<()> {
        let case = CaseName { seed: self.seed, case: failure.case }.to_string();
        if let Verdict::Unknown(reason) = &failure.outcome.verdict {
            if self.problems.len() < PROBLEMS {
                self.problems.push(format!("case {case}: {reason}"));
            }
            if self.cannot_judge(failure.case) {
                let row = self.unjudged.1;
                self.problems.push(format!("any more: {row} cases in a row could not be judged"));
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
        let number = u32::try_from(self.seen.len() + 1).unwrap_or(u32::MAX);
        let looked = self.investigator.look_into(number, &case, &failure);
        let done = looked.and_then(|finding| match finding {
            Some(finding) => self.found(&finding),
            None => Ok(()),
        });
        if let Err(error) = done {
            // Findings that cannot be kept are worth no further cases.
            self.broken = Some(error);
            return ControlFlow::Break(());
        }
        let enough = self.most.is_some_and(|most| self.seen.len() as u64 >= most);
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn progress(&mut self, so_far: &Totals) {
        let elapsed = self.started.elapsed();
        let (time, findings) = (self.time, self.seen.len());
        self.status.show(elapsed, || status_line(elapsed, time, so_far, findings, rss_mib()));
    }
}

/// Memory that this process has in use, in MiB.
fn rss_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some((pages * (rustix::param::page_size() as u64)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let clean = Totals { cases: 9, diffs: 5, ..Totals::default() };
        assert_eq!(exit_of(&clean, None), Exit::Passed);
        assert_eq!(exit_of(&Totals::default(), None), Exit::CouldNotTest, "nothing compared");
        assert_eq!(exit_of(&Totals { unknown: 1, ..clean }, None), Exit::CouldNotTest);
        let failed = Totals { failures: 1, unknown: 1, ..clean };
        assert_eq!(exit_of(&failed, None), Exit::Violation);
        assert_eq!(exit_of(&failed, Some(Exit::Terminated)), Exit::Terminated);
        let bug = Totals { tool_bugs: 1, ..failed };
        assert_eq!(exit_of(&bug, Some(Exit::Interrupted)), Exit::Bug);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(rss_mib().is_some_and(|mib| mib > 0));
    }
}
