//! A random run as its folder tells it, read again: for reports, lists and merging. Whatever a run
//! that was killed could not write is absent, never made up.
//!
//! Not covered: how the files look (`super::run_files`), runs of the fixed suite.

use super::finding::{FindingRecord, REPRO};
use super::replay::load;
use super::run_files::{
    Checkpoint, FolderError, Known, Sample, Started, checkpoint, coverage, samples, started,
};
use super::store::finding_folders;
use crate::engine::Coverage;
use crate::scenario::Scenario;
use std::io;
use std::path::{Path, PathBuf};

/// A finding of a run, read again.
#[derive(Clone, Debug)]
pub struct Found {
    /// How it stands in the checkpoint.
    pub known: Known,
    /// What its folder knows of it.
    pub record: FindingRecord,
    /// The shortest scenario known that shows it; its last step is the observing one.
    pub scenario: Scenario,
    /// Its folder.
    pub folder: PathBuf,
}

/// A run, read again.
#[derive(Clone)]
pub struct RunRecord {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was asked.
    pub started: Started,
    /// How far it came.
    pub checkpoint: Checkpoint,
    /// What its cases reached; absent if it was killed.
    pub coverage: Option<Coverage>,
    /// What it found, in order.
    pub findings: Vec<Found>,
    /// Findings that it, or a run it goes on with, was killed over; they have not been shrunk.
    pub unfinished: Vec<FindingRecord>,
    /// Looks at it while it went on, in order.
    pub samples: Vec<Sample>,
}

/// Why a folder is no run that can be read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file of it.
    #[error(transparent)]
    File(#[from] FolderError),
    /// It is no run of random checking, or was killed before it began.
    #[error("{} holds no run of `check` or `soak`", .0.display())]
    NotOne(PathBuf),
    /// A finding in it.
    #[error("cannot read the finding in {}: {why}", folder.display())]
    Finding {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
}

impl RunRecord {
    /// Reads the run in a folder.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn load(folder: &Path) -> Result<RunRecord, RunError> {
        let not_one = || RunError::NotOne(folder.to_owned());
        let started = started(folder)?.ok_or_else(not_one)?;
        let checkpoint = checkpoint(folder)?.ok_or_else(not_one)?;
        let found = checkpoint.findings.iter().map(|known| found(folder, known));
        Ok(RunRecord {
            findings: found.collect::<Result<_, _>>()?,
            folder: folder.to_owned(),
            started,
            coverage: coverage(folder)?,
            unfinished: unfinished(folder, &checkpoint)?,
            samples: samples(folder)?,
            checkpoint,
        })
    }
}

fn found(run: &Path, known: &Known) -> Result<Found, RunError> {
    let folder = run.join(format!("finding-{}", known.number));
    let cannot = |why: String| RunError::Finding { folder: folder.clone(), why };
    let record = FindingRecord::load(&folder).map_err(|error| cannot(error.to_string()))?;
    let scenario = load(&folder.join(REPRO)).map_err(|error| cannot(error.to_string()))?;
    Ok(Found { known: known.clone(), record, scenario, folder })
}

/// Findings in folders that the checkpoint does not know.
fn unfinished(run: &Path, checkpoint: &Checkpoint) -> Result<Vec<FindingRecord>, RunError> {
    let known = |number: u32| checkpoint.findings.iter().any(|known| known.number == number);
    let cannot = |cause: io::Error| FolderError { path: run.to_owned(), cause };
    let mut found = Vec::new();
    for (folder, number) in finding_folders(run).map_err(cannot)? {
        if !number.is_some_and(known) {
            // Half of one was written: nobody saw it whole.
            found.extend(FindingRecord::load(&folder).ok());
        }
    }
    found.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(found)
}
