//! How a run compares with others of its kind: the figures of earlier runs in the same folder of runs.
//!
//! Not covered: lists of runs for people (`crate::cli`), how a trend looks (`crate::report`).

use super::check::Totals;
use super::run_files::{Checkpoint, FolderError, Started, checkpoint, started};
use super::run_record::RunRecord;
use super::store::run_folders;
use serde::Serialize;
use std::path::Path;

/// Runs of a trend at most; the latest are kept.
const RUNS: usize = 20;

/// The figures of one run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// The name of its folder.
    pub name: String,
    /// Cases.
    pub cases: u64,
    /// Operations a second of processor time.
    #[serde(rename = "operations_per_s_per_core")]
    pub ops_per_core_s: u64,
    /// Different findings.
    pub findings: usize,
    /// LBAs reported for each one that had to be; absent if none had to be.
    #[serde(rename = "over_report_factor")]
    pub over_report: Option<f64>,
    /// The exit code; absent if it was killed.
    pub exit_code: Option<u8>,
}

impl Figures {
    /// Those of the run of random checking in `folder`.
    pub fn of(folder: &Path, kept: &Checkpoint) -> Figures {
        let totals = &kept.so_far.totals;
        Figures {
            name: name_of(folder),
            cases: totals.cases,
            ops_per_core_s: totals.ops_per_busy_second(),
            findings: kept.findings.len(),
            over_report: over_report(totals),
            exit_code: kept.exit_code,
        }
    }
}

/// What a run is called: the name of its folder.
pub fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// LBAs reported for each one that had to be; `None` if none had to be.
pub fn over_report(totals: &Totals) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    (totals.must_lbas > 0).then(|| totals.reported_lbas as f64 / totals.must_lbas as f64)
}

/// Runs of the same target, profile and planted bugs below `root`, up to and with `run`, oldest
/// first. Folders that cannot be read pass by: one of them must not cost a report.
pub fn trend(root: &Path, run: &RunRecord) -> Vec<Figures> {
    let own_name = run.folder.file_name().map(ToOwned::to_owned).unwrap_or_default();
    let folders = run_folders(root).unwrap_or_default();
    let earlier = folders.into_iter().filter(|(_, path)| path.file_name() < Some(&own_name));
    let mut found: Vec<Figures> =
        earlier.filter_map(|(_, path)| figures(&path, &run.started).ok().flatten()).collect();
    found.push(Figures::of(&run.folder, &run.checkpoint));
    let older = found.len().saturating_sub(RUNS);
    found.drain(..older);
    found
}

fn figures(folder: &Path, like: &Started) -> Result<Option<Figures>, FolderError> {
    let same = |other: &Started| {
        (&other.target, &other.profile, &other.planted)
            == (&like.target, &like.profile, &like.planted)
    };
    if started(folder)?.is_none_or(|other| !same(&other)) {
        return Ok(None);
    }
    Ok(checkpoint(folder)?.map(|kept| Figures::of(folder, &kept)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_reporting_is_a_ratio_and_nothing_where_nothing_had_to_be_reported() {
        let totals = Totals { reported_lbas: 30, must_lbas: 20, ..Totals::default() };
        assert_eq!(over_report(&totals), Some(1.5));
        assert_eq!(over_report(&Totals::default()), None);
    }
}
