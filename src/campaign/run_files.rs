//! The files of a random run, as they are written and as they are read again: `run.json`,
//! `checkpoint.json`, `coverage.json` and the samples in `events.jsonl`.
//!
//! The checkpoint is put in place whole and durably, so that a run that was killed at any moment
//! goes on from one that is true (`soak --resume`). Not covered: findings (`super::finding`), the
//! journal of snapshots (`super::journal`), the fixed suite's files (`crate::report`).

use super::check::SoFar;
use super::finding::Signature;
use super::store::replace;
use crate::block::Capabilities;
use crate::engine::{Coverage, CoverageRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of what a run was asked.
pub const RUN: &str = "run.json";
/// Name of how far it is.
pub const CHECKPOINT: &str = "checkpoint.json";
/// Name of what its cases reached.
pub const COVERAGE: &str = "coverage.json";
/// A file of a run that is larger than this is not read, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// What makes the cases of a run what they are: flags by name. Runs whose streams are equal but for
/// `shard` are parts of one campaign.
pub type Stream = BTreeMap<String, String>;

/// The key of a [`Stream`] that names the shard.
pub const SHARD: &str = "shard";
/// What it names in a run that was merged of several.
pub const MERGED: &str = "merged";
/// Version of `checkpoint.json`.
const VERSION: u32 = 1;

/// What a run was asked, and on what (`run.json`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Always `run_started`.
    pub event: String,
    /// The run's id.
    pub run: String,
    /// The command line, without secrets.
    pub arguments: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// The seed.
    pub seed: u64,
    /// Version of the generator.
    pub generator: u32,
    /// What was tested.
    pub target: String,
    /// What was drawn.
    pub profile: String,
    /// How over-reporting is judged, if one way was asked for.
    pub policy: Option<String>,
    /// Planted bugs.
    pub planted: Vec<String>,
    /// Threads.
    pub jobs: usize,
    /// Cases of the whole campaign at most.
    pub cases: Option<u64>,
    /// How long at most, in seconds.
    pub seconds: Option<f64>,
    /// What cannot be tested here, and whatever else must be known.
    pub notes: Vec<String>,
    /// What the target can be tested for, if every case has the same.
    pub capabilities: Option<Capabilities>,
    /// Which part of the campaign, as `I/N`.
    #[serde(default)]
    pub shard: Option<String>,
    /// The run that this one goes on with.
    #[serde(default)]
    pub resumes: Option<String>,
    /// The runs that this one was merged of.
    #[serde(default)]
    pub merged: Vec<String>,
}

/// A finding that a run has: the first of its cause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its number: its folder is `finding-N`.
    pub number: u32,
    /// The case it was found in.
    pub case: u64,
    /// What it shares with others of the same cause.
    pub signature: Signature,
    /// Operations before the observing one, after shrinking.
    pub operations: usize,
    /// In how many cases it was seen.
    pub cases: u64,
}

/// How far a run is (`checkpoint.json`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Version of this form.
    pub v: u32,
    /// What makes its cases what they are.
    pub stream: Stream,
    /// How long it ran, in seconds, what it goes on with included.
    pub seconds: f64,
    /// Which cases were done, and what they came to.
    pub so_far: SoFar,
    /// What was found, in the order of finding.
    pub findings: Vec<Known>,
    /// Why cases could not be judged; the first few.
    pub problems: Vec<String>,
    /// The exit code, once the run has ended by itself or by a signal that it could answer.
    pub exit_code: Option<u8>,
}

impl Checkpoint {
    /// Nothing was done yet.
    pub fn begin(stream: Stream) -> Checkpoint {
        Checkpoint {
            v: VERSION,
            stream,
            seconds: 0.0,
            so_far: SoFar::default(),
            findings: Vec::new(),
            problems: Vec::new(),
            exit_code: None,
        }
    }
    /// Puts it into a run's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        replace(folder, CHECKPOINT, &text(self)?)
    }
}

/// One look at a run that goes on: a line of `events.jsonl`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// How long the run has been going, in seconds.
    pub seconds: f64,
    /// Cases so far.
    pub cases: u64,
    /// Operations so far.
    pub operations: u64,
    /// Diffs so far.
    pub diffs: u64,
    /// Pages so far.
    pub pages: u64,
    /// Snapshots taken so far.
    pub taken: u64,
    /// Snapshots deleted so far.
    pub deleted: u64,
    /// Cases so far that could not be judged.
    pub unknown: u64,
    /// Different findings so far.
    pub findings: u64,
    /// Memory of this process, in bytes.
    pub rss_bytes: Option<u64>,
    /// Its open file descriptors.
    pub descriptors: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Calls of the array's API so far; absent where there is none.
    #[serde(default)]
    pub api_calls: Option<u64>,
    /// Calls that had to be repeated so far.
    #[serde(default)]
    pub api_retries: Option<u64>,
    /// Median of the API's answers since the last sample, in milliseconds.
    #[serde(default)]
    pub api_p50_ms: Option<f64>,
    /// 99 of 100 answers since the last sample took no longer, in milliseconds.
    #[serde(default)]
    pub api_p99_ms: Option<f64>,
}

/// A line of `events.jsonl` as far as samples go; other events pass by.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Progress(Sample),
    #[serde(other)]
    Other,
}

/// Why a run's folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {cause}", path.display())]
pub struct FolderError {
    /// What could not be read.
    pub path: PathBuf,
    /// Why.
    pub cause: io::Error,
}

fn text(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// A file of the folder; `None` if it is not there.
fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
    let path = folder.join(name);
    let look = |path: &Path| match fs::metadata(path) {
        Ok(file) if !file.is_file() => Err(io::Error::other("it is no file")),
        Ok(file) if file.len() > FILE_MAX => {
            Err(io::Error::other("it is larger than any of these"))
        }
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    look(&path).map_err(|cause| FolderError { path, cause })
}

fn json<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> Result<Option<T>, FolderError> {
    let Some(bytes) = read(folder, name)? else { return Ok(None) };
    let path = || folder.join(name);
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| FolderError { path: path(), cause: error.into() })
}

/// Reads `run.json`; `None` if there is none, or it is another command's.
///
/// # Errors
/// When it cannot be read.
pub fn started(folder: &Path) -> Result<Option<Started>, FolderError> {
    let value: Option<serde_json::Value> = json(folder, RUN)?;
    let value = value.filter(|value| value.get("event").is_some_and(|is| is == "run_started"));
    let parsed = value.map(serde_json::from_value).transpose();
    parsed.map_err(|error| FolderError { path: folder.join(RUN), cause: error.into() })
}

/// Reads `checkpoint.json`; `None` if there is none.
///
/// # Errors
/// When it cannot be read.
pub fn checkpoint(folder: &Path) -> Result<Option<Checkpoint>, FolderError> {
    let kept: Option<Checkpoint> = json(folder, CHECKPOINT)?;
    match kept.as_ref().and_then(contradiction) {
        None => Ok(kept),
        Some(why) => {
            Err(FolderError { path: folder.join(CHECKPOINT), cause: io::Error::other(why) })
        }
    }
}

/// What in a checkpoint cannot be. Going on with it would count cases twice or leave some out.
fn contradiction(kept: &Checkpoint) -> Option<String> {
    let SoFar { totals, done } = &kept.so_far;
    if kept.v != VERSION {
        return Some(format!("it is of version {}, this program writes {VERSION}", kept.v));
    }
    // Of a merged run only the cases without a gap are known one by one.
    let is_merged = kept.stream.get(SHARD).is_some_and(|shard| shard == MERGED);
    let fits = if is_merged { done.count() <= totals.cases } else { done.count() == totals.cases };
    (!fits).then(|| format!("it counts {} cases and names {}", totals.cases, done.count()))
}

/// Writes `coverage.json`.
///
/// # Errors
/// When it cannot be written.
pub fn save_coverage(folder: &Path, coverage: &Coverage) -> io::Result<()> {
    replace(folder, COVERAGE, &text(&coverage.record())?)
}

/// Reads `coverage.json`; `None` if there is none, as for a run that was killed.
///
/// # Errors
/// When it cannot be read.
pub fn coverage(folder: &Path) -> Result<Option<Coverage>, FolderError> {
    let record: Option<CoverageRecord> = json(folder, COVERAGE)?;
    Ok(record.as_ref().map(Coverage::of_record))
}

/// Reads the samples in `events.jsonl`, in order. What is no sample passes by, and so does a last
/// line that a killed run left torn.
///
/// # Errors
/// When it cannot be read.
pub fn samples(folder: &Path) -> Result<Vec<Sample>, FolderError> {
    let bytes = read(folder, super::record::EVENTS)?.unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    let parsed = lines.filter_map(|line| match serde_json::from_slice(line) {
        Ok(Line::Progress(sample)) => Some(sample),
        Ok(Line::Other) | Err(_) => None,
    });
    Ok(parsed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CaseName, PROFILES, Reach, generate};
    use crate::oracle::Kind;

    #[test]
    fn a_checkpoint_reads_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(checkpoint(folder.path()).expect("nothing is wrong"), None);
        let stream = Stream::from([("seed".to_owned(), "7".to_owned())]);
        let mut kept = Checkpoint::begin(stream);
        kept.so_far.done.add(3..9);
        kept.so_far.totals.cases = 6;
        kept.so_far.totals.digest.add(3, 99);
        kept.seconds = 1.5;
        let signature = Signature { kind: Kind::Missed, ops: vec!["discard".to_owned()] };
        kept.findings.push(Known { number: 1, case: 4, signature, operations: 4, cases: 2 });
        kept.save(folder.path()).expect("writes");
        kept.exit_code = Some(1);
        kept.save(folder.path()).expect("writes over the old one");
        assert_eq!(checkpoint(folder.path()).expect("reads"), Some(kept.clone()));
        let kept = checkpoint(folder.path()).expect("reads").expect("is there");
        let wrong = [
            Checkpoint { v: 2, ..kept.clone() },
            Checkpoint { so_far: SoFar { totals: kept.so_far.totals, ..SoFar::default() }, ..kept },
        ];
        for (wrong, why) in wrong.iter().zip(["version 2", "6 cases and names 0"]) {
            wrong.save(folder.path()).expect("writes");
            let error = checkpoint(folder.path()).expect_err("a contradiction").to_string();
            assert!(error.contains(why), "{error}");
        }
        fs::write(folder.path().join(CHECKPOINT), "{").expect("a file");
        let error = checkpoint(folder.path()).expect_err("torn").to_string();
        assert!(error.contains("checkpoint.json"), "{error}");
    }

    #[test]
    fn coverage_reads_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut reached = Coverage::within(Reach::of(&PROFILES[0]));
        (0..20).for_each(|case| reached.count(&generate(&PROFILES[0], CaseName { seed: 1, case })));
        save_coverage(folder.path(), &reached).expect("writes");
        let read = coverage(folder.path()).expect("reads").expect("is there");
        assert_eq!(read.record(), reached.record());
        assert_eq!((read.reached(), read.goals()), (reached.reached(), reached.goals()));
    }

    #[test]
    fn samples_are_picked_out_of_all_events() {
        let folder = tempfile::tempdir().expect("a folder");
        let sample = Sample { seconds: 1.0, cases: 3, ..Sample::default() };
        let line = serde_json::json!({"v": 1, "event": "progress", "seconds": 1.0, "cases": 3,
            "operations": 0, "diffs": 0, "pages": 0, "taken": 0, "deleted": 0, "unknown": 0,
            "findings": 0});
        let text =
            format!("{{\"v\":1,\"event\":\"finding\",\"kind\":\"missed\"}}\n{line}\n{{\"v\"");
        fs::write(folder.path().join("events.jsonl"), text).expect("a file");
        assert_eq!(samples(folder.path()).expect("reads"), [sample]);
    }
}
