//! Reporters: they consume headers, events and results, and print. Nothing here decides anything.
//!
//! [`Console`] is the original suite's screen, [`JsonLines`] its machine-readable twin, [`junit`]
//! the file for CI, [`html`] the page for people. Not covered: writing files, and reading a run's
//! folder (`crate::campaign`).

mod again;
mod campaign;
mod campaign_junit;
mod console;
mod coverage;
mod events;
mod faults;
mod finding;
pub mod github;
pub mod html;
mod jsonl;
mod junit;
pub mod map;
mod matrix;
mod metrics;
mod oracle;
mod spinner;
pub mod verdict;
mod violation;

pub use again::command_line;
pub use campaign::{
    CampaignEnd, CampaignHeader, StatusDisplay, end_lines, header_lines, rate, status_line,
};
pub use campaign_junit::{MAP, campaign_junit};
pub use console::{Console, Style};
pub use coverage::{Reached, coverage_lines};
pub use events::{EventSpec, Field, Type, VERSION, events};
pub use faults::{FaultFigures, FaultRow, fault_figures, fault_lines};
pub use finding::{Again, finding_lines, step_lines};
pub use jsonl::JsonLines;
pub use junit::junit;
pub use matrix::{
    BugFigures, MatrixFigures, Otherwise, SecondFigures, bug_figures, matrix_figures, matrix_lines,
    second_figures,
};
pub use metrics::{MetricsForm, metrics};
pub use oracle::oracle_lines;
pub use spinner::{Progress, ProgressKind};
pub use violation::violation_lines;

use crate::block::Policy;
use crate::engine::Event;
use crate::suite::{SuiteSummary, TestResult};
use std::path::PathBuf;

/// What a run is about, as every report says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunHeader {
    /// Version of this program.
    pub version: String,
    /// Kind of target: `simulator`, `qemu` or `array`.
    pub target: String,
    /// Where its control plane answers.
    pub endpoint: String,
    /// The source volume, with its device.
    pub source: String,
    /// The target volume, with its device.
    pub copy: String,
    /// How over-reporting is judged.
    pub policy: Policy,
    /// How many tests will run.
    pub tests: usize,
    /// What else the reader must know: page limit, missing capabilities.
    pub remarks: Vec<String>,
    /// What weakens the run and must stand out: TLS not verified.
    pub warnings: Vec<String>,
}

/// How a run ended, for reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunEnd {
    /// What the process will answer.
    pub exit_code: u8,
    /// Where the run's files are, if there are any.
    pub report: Option<PathBuf>,
}

/// Somebody who is told what happens.
pub trait Reporter {
    /// A run begins.
    fn begin(&mut self, header: &RunHeader);
    /// A test begins.
    fn test_started(&mut self, number: usize, name: &str);
    /// Something happened in the running test.
    fn event(&mut self, event: &Event);
    /// A test ended.
    fn test_finished(&mut self, result: &TestResult);
    /// The run ended.
    fn run_finished(&mut self, summary: &SuiteSummary, end: &RunEnd);
}
