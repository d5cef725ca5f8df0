//! A run of the fixed suite as its folder tells it, read again for reports. Whatever a run that was
//! killed could not write is absent, never made up.
//!
//! Not covered: how the files are written (`crate::report`, `crate::cli`), random runs
//! (`super::run_record`).

use super::record::EVENTS;
use super::run_files::{FolderError, RUN};
use super::store::open_plain;
use serde::Deserialize;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// A `run.json` that is larger than this is none, in bytes.
const RUN_MAX: u64 = 1 << 20;
/// Bytes of all events at most: a suite of a day has some 100 MB.
const EVENTS_MAX: u64 = 4 << 30;
/// A line of `events.jsonl` that is longer than this is skipped, in bytes.
const LINE_MAX: u64 = 16 << 20;

/// What a suite was asked, and on what (`run.json`).
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct SuiteStarted {
    /// The run's id.
    pub run: String,
    /// The command line, without secrets.
    pub arguments: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// Kind of target.
    pub target: String,
    /// Where its control plane answers.
    pub endpoint: String,
    /// The source volume, with its device.
    pub source: String,
    /// The target volume, with its device.
    pub copy: String,
    /// How over-reporting is judged.
    pub policy: String,
    /// How many tests were to run.
    pub tests: usize,
    /// What else the reader must know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What weakens the run.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A test that ended.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct SuiteTest {
    /// Its name.
    pub name: String,
    /// Its place in the suite, from 1.
    pub number: usize,
    /// `pass`, `fail`, `error` or `not_applicable`.
    pub result: String,
    /// How long it took.
    pub seconds: f64,
    /// Kinds of its violations.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Violations with their pictures, then what was seen on the way; a line each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Speed of the timed sync, MiB/s, where the test has one.
    #[serde(default)]
    pub mib_per_s: Option<f64>,
}

/// What is no test and was looked at all the same.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Besides {
    /// `pass`, `fail`, `error` or `not_applicable`.
    #[serde(default)]
    pub result: String,
    /// What was found, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How a suite ended.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct SuiteEnd {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that could not be judged.
    pub errors: usize,
    /// Tests that the target has nothing for.
    pub not_applicable: usize,
    /// How long it took.
    pub seconds: f64,
    /// What the process answered.
    pub exit_code: u8,
}

/// A suite, read again.
#[derive(Clone, PartialEq, Debug)]
pub struct SuiteRun {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was asked.
    pub started: SuiteStarted,
    /// The tests that ended, in order.
    pub tests: Vec<SuiteTest>,
    /// What the handshake found wrong before the first test.
    pub handshake: Vec<Besides>,
    /// The audit after the last test.
    pub audit: Option<Besides>,
    /// How it ended; absent if it was killed.
    pub end: Option<SuiteEnd>,
}

/// Lines of `events.jsonl` as far as a suite's results go; other events pass by.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    TestFinished(SuiteTest),
    HandshakeFinding(Besides),
    AuditFinished(Besides),
    RunFinished(SuiteEnd),
    #[serde(other)]
    Other,
}

impl SuiteRun {
    /// Reads the suite in a folder; `None` if it holds something else.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub fn load(folder: &Path) -> Result<Option<SuiteRun>, FolderError> {
        let path = folder.join(RUN);
        let cannot = |path: &Path, cause| FolderError { path: path.to_owned(), cause };
        let mut text = Vec::new();
        match open_plain(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| file.take(RUN_MAX).read_to_end(&mut text)),
        }
        .map_err(|error| cannot(&path, error))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| cannot(&path, error.into()))?;
        if value.get("event").is_some() || value.get("tests").is_none() {
            return Ok(None);
        }
        let started = serde_json::from_value(value).map_err(|error| cannot(&path, error.into()))?;
        let mut run = SuiteRun {
            folder: folder.to_owned(),
            started,
            tests: Vec::new(),
            handshake: Vec::new(),
            audit: None,
            end: None,
        };
        let events = folder.join(EVENTS);
        run.hear(&events).map_err(|error| cannot(&events, error))?;
        Ok(Some(run))
    }

    /// Picks the results out of all events. A last line that a kill left torn passes by.
    fn hear(&mut self, events: &Path) -> io::Result<()> {
        if !fs::exists(events)? {
            return Ok(());
        }
        // A pipe or a device in its place would be read for ever.
        let mut lines = BufReader::new(open_plain(events)?.take(EVENTS_MAX));
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            match serde_json::from_slice(&line) {
                Ok(Line::TestFinished(test)) => self.tests.push(test),
                Ok(Line::HandshakeFinding(found)) => self.handshake.push(found),
                Ok(Line::AuditFinished(audit)) => self.audit = Some(audit),
                Ok(Line::RunFinished(end)) => self.end = Some(end),
                Ok(Line::Other) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = r#"{"v":1,"run":"r","arguments":["suite"],"version":"0.1.0",
        "target":"simulator","endpoint":"e","source":"s","copy":"c","policy":"exact","tests":2,
        "notes":[],"warnings":[]}"#;

    #[test]
    fn results_are_picked_out_of_all_events_and_a_torn_end_is_no_end() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(SuiteRun::load(folder.path()).expect("nothing is wrong"), None);
        fs::write(folder.path().join(RUN), STARTED).expect("a file");
        let events = concat!(
            r#"{"v":1,"event":"step","index":0,"op":"flush"}"#,
            "\n",
            r#"{"v":1,"event":"test_finished","name":"n","number":1,"result":"fail","seconds":0.5,"kinds":["missed"],"notes":["a"]}"#,
            "\n",
            r#"{"v":1,"event":"run_finished","passed":0,"fai"#,
        );
        fs::write(folder.path().join(EVENTS), events).expect("a file");
        let run = SuiteRun::load(folder.path()).expect("reads").expect("is a suite");
        assert_eq!((run.started.tests, run.tests.len()), (2, 1));
        assert_eq!((run.tests[0].result.as_str(), run.end), ("fail", None));
    }

    #[test]
    fn a_random_run_is_no_suite() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(RUN), r#"{"event":"run_started","seed":1}"#).expect("a file");
        assert_eq!(SuiteRun::load(folder.path()).expect("reads"), None);
    }
}
