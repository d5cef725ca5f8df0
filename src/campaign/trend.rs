//! How a run compares with others of its kind: the figures of earlier runs in the same folder of runs.
//!
//! Not covered: lists of runs for people (`crate::cli`), how a trend looks (`crate::report`).

use super::check::Totals;
use super::run_files::{Checkpoint, FolderError, Sample, Started, checkpoint, samples, started};
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
    /// Operations a second as the clock goes; absent for suites. On an array this is what shows that it
    /// has become slower: there most time is spent waiting.
    #[serde(rename = "operations_per_s")]
    pub wall_ops_per_s: Option<f64>,
    /// The median of the medians of the API's answers, in milliseconds; absent where there is none.
    pub api_p50_ms: Option<f64>,
    /// The longest that 99 of 100 answers took in any sample, in milliseconds.
    pub api_p99_ms: Option<f64>,
    /// The copy that a suite timed, MiB/s.
    pub mib_per_s: Option<f64>,
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
    pub fn of(folder: &Path, kept: &Checkpoint, samples: &[Sample]) -> Figures {
        let totals = &kept.so_far.totals;
        let of_samples = |value: fn(&Sample) -> Option<f64>| {
            let mut values: Vec<f64> = samples.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let medians = of_samples(|sample| sample.api_p50_ms);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let per_s = totals.ops as f64 / kept.seconds.max(1e-3);
        Figures {
            wall_ops_per_s: Some(per_s),
            api_p50_ms: medians.get(medians.len() / 2).copied(),
            api_p99_ms: of_samples(|sample| sample.api_p99_ms).pop(),
            mib_per_s: None,
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
    found.push(Figures::of(&run.folder, &run.checkpoint, &run.samples));
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
    let Some(kept) = checkpoint(folder)? else { return Ok(None) };
    Ok(Some(Figures::of(folder, &kept, &samples(folder)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_became_slower_is_seen_in_the_clock_and_in_its_answers() {
        let mut kept = Checkpoint::begin(super::super::run_files::Stream::new());
        kept.so_far.totals.ops = 900;
        kept.seconds = 30.0;
        let sample = |p50, p99| Sample { api_p50_ms: p50, api_p99_ms: p99, ..Sample::default() };
        let samples = [
            sample(Some(9.0), Some(30.0)),
            sample(None, None),
            sample(Some(5.0), Some(80.0)),
            sample(Some(7.0), Some(20.0)),
        ];
        let figures = Figures::of(Path::new("x/20260614T120005Z-1"), &kept, &samples);
        assert_eq!(figures.wall_ops_per_s, Some(30.0));
        assert_eq!((figures.api_p50_ms, figures.api_p99_ms), (Some(7.0), Some(80.0)));
        assert_eq!(Figures::of(Path::new("x"), &kept, &[]).api_p50_ms, None);
    }

    #[test]
    fn over_reporting_is_a_ratio_and_nothing_where_nothing_had_to_be_reported() {
        let totals = Totals { reported_lbas: 30, must_lbas: 20, ..Totals::default() };
        assert_eq!(over_report(&totals), Some(1.5));
        assert_eq!(over_report(&Totals::default()), None);
    }
}
