//! Recordings: what happened in a run as lines of JSON, for people and for the second judge.
//!
//! Not covered: judging them (`crate::judge`), recordings of the fixed suite (`crate::report`).

use super::case::CaseOutcome;
use super::check::Runner;
use crate::engine::Event;
use crate::judge::{Judgement, Record, RecordError, TooLarge, judge, read_records};
use crate::scenario::Scenario;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;

/// Name of a recording in a folder.
pub const EVENTS: &str = "events.jsonl";
/// Version of its lines.
const VERSION: u32 = 1;
/// A recording larger than this is not read, in bytes.
const RECORDING_MAX: u64 = 4 << 30;

#[derive(Serialize)]
struct Line<'e> {
    v: u32,
    #[serde(flatten)]
    event: &'e Event,
}

/// Collects the lines of a recording.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    lines: Vec<u8>,
}

impl Recording {
    /// Adds an event.
    ///
    /// # Errors
    /// None that is known: every event has a JSON form. Kept because the encoder could.
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, &Line { v: VERSION, event })?;
        self.lines.push(b'\n');
        Ok(())
    }
    /// Its lines.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }
}

/// Runs a scenario once more and records it. The runner must be one that tells records.
///
/// # Errors
/// If an event cannot be encoded.
pub fn record(scenario: &Scenario, runner: &Runner<'_>) -> io::Result<(CaseOutcome, Recording)> {
    let mut recording = Recording::default();
    let mut kept = Ok(());
    let outcome = runner(scenario, &mut |event| {
        if kept.is_ok() {
            kept = recording.add(&event);
        }
    });
    kept.map(|()| (outcome, recording))
}

/// A recording that cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The file.
    #[error("cannot read it: {0}")]
    File(#[from] io::Error),
    /// It is too large to be one.
    #[error("it has {0} bytes, more than any recording")]
    Bytes(u64),
    /// What is in it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It touches too much.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Judges a recording that was kept in a file.
///
/// # Errors
/// [`JudgeError`].
pub fn judge_file(path: &Path) -> Result<Judgement, JudgeError> {
    let bytes = fs::metadata(path)?.len();
    if bytes > RECORDING_MAX {
        return Err(JudgeError::Bytes(bytes));
    }
    Ok(judge(&read_records(&fs::read_to_string(path)?)?)?)
}

/// Runs a scenario, and has the second judge look at the same run.
///
/// # Errors
/// [`TooLarge`].
pub fn judged_twice(
    scenario: &Scenario,
    runner: &Runner<'_>,
) -> Result<(CaseOutcome, Judgement), TooLarge> {
    let mut records: Vec<Record> = Vec::new();
    let outcome = runner(scenario, &mut |event| {
        if let Event::Record(record) = event {
            records.push(*record);
        }
    });
    Ok((outcome, judge(&records)?))
}

#[cfg(test)]
mod tests {
    use super::super::case::record_case;
    use super::super::nearest::witnesses;
    use super::super::selftest::Planted;
    use super::*;
    use crate::engine::{CaseName, PROFILES, generate};
    use crate::judge::JudgedKind;
    use crate::oracle::Verdict;

    fn twice(scenario: &Scenario) -> (CaseOutcome, Judgement) {
        let run = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            record_case(scenario, on_event).expect("sets up")
        };
        judged_twice(scenario, &run).expect("small")
    }

    /// Both judges on generated cases; with bugs planted, a different one in each case.
    #[track_caller]
    fn agree_on(profile: &str, cases: u64, planted: bool) -> (u64, u64, u64) {
        let profile = PROFILES.iter().find(|known| known.name == profile).expect("a profile");
        let bugs = Planted::all();
        let (mut diffs, mut blocks, mut violations) = (0, 0, 0);
        for case in 0..cases {
            let mut scenario = generate(profile, CaseName { seed: 7, case });
            if planted {
                let bug = bugs[usize::try_from(case).expect("small") % bugs.len()];
                scenario.header.planted = vec![bug.name().to_owned()];
            }
            let (outcome, judgement) = twice(&scenario);
            assert!(
                judgement.agrees(),
                "g1:7:{case} {:?}: {:#?}\n{:?}\n{:#?}",
                scenario.header.planted,
                judgement.disagreements,
                outcome.verdict,
                judgement.violations
            );
            assert!(planted || judgement.violations.is_empty(), "g1:7:{case}");
            diffs += judgement.diffs;
            blocks += judgement.blocks;
            violations += judgement.violations.len() as u64;
        }
        (diffs, blocks, violations)
    }

    #[test]
    fn both_judges_agree_on_generated_cases_of_an_honest_array() {
        let (diffs, blocks, violations) = agree_on("all", 300, false);
        assert!(diffs > 1_000 && blocks > 1_000 && violations == 0, "{diffs}, {blocks}");
        for profile in ["bounds", "contents", "small"] {
            agree_on(profile, 100, false);
        }
    }

    #[test]
    fn both_judges_agree_on_generated_cases_with_bugs_planted() {
        let (_, _, violations) = agree_on("all", 400, true);
        assert!(violations > 50, "{violations} violations");
        for profile in ["bounds", "contents", "small"] {
            agree_on(profile, 120, true);
        }
    }

    #[test]
    fn both_judges_agree_on_the_witness_of_every_planted_bug() {
        let (mut seen, mut not_seen) = (0, Vec::new());
        for (bug, mut witness) in witnesses() {
            witness.header.planted = vec![bug.name().to_owned()];
            let (outcome, judgement) = twice(&witness);
            assert!(judgement.agrees(), "{}: {judgement:#?}", bug.name());
            let Verdict::Fail(violations) = &outcome.verdict else { continue };
            let name = violations[0].kind.name();
            match JudgedKind::ALL.iter().any(|kind| kind.name() == name) {
                _ if !judgement.violations.is_empty() => seen += 1,
                // The form of a page is in no recording.
                true if name != "malformed" => not_seen.push(bug.name()),
                _ => {}
            }
        }
        assert!(seen > 30, "only {seen} witnesses are judged again");
        assert_eq!(not_seen, Vec::<&str>::new(), "both judges can see these");
    }

    #[test]
    fn lines_read_back_as_the_records_that_were_told() {
        let profile = PROFILES.first().expect("a profile");
        let scenario = generate(profile, CaseName { seed: 7, case: 3 });
        let mut told = Vec::new();
        let mut recording = Recording::default();
        let run = |scenario: &Scenario, on_event: &mut dyn FnMut(Event)| {
            record_case(scenario, on_event).expect("sets up")
        };
        run(&scenario, &mut |event| {
            recording.add(&event).expect("encodes");
            if let Event::Record(record) = event {
                told.push(*record);
            }
        });
        let text = String::from_utf8(recording.lines().to_vec()).expect("JSON is UTF-8");
        assert_eq!(read_records(&text).expect("reads"), told);
        assert!(told.len() > 10);
        let (_, again) = record(&scenario, &run).expect("encodes");
        assert_eq!(again.lines(), recording.lines(), "a recording repeats itself");
    }
}
