//! What a test and a whole suite run come to: plain records for the reporters. Not covered: how
//! they look.

use crate::block::SnapshotUuid;
use crate::oracle::{Kind, Violation};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Group of a test.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Tests 1 to 7.
    Sanity,
    /// Tests 8 to 13.
    Edge,
    /// Tests 14 to 20.
    Resilience,
}

/// How a test ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Everything held.
    Pass,
    /// The array or the pipeline is wrong.
    Fail(Vec<Violation>),
    /// It could not be tested, and why: never the array's fault.
    Error(String),
    /// The target has nothing to test here, and why.
    NotApplicable(String),
}

/// One test of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct TestResult {
    /// Its place in the suite, from 1.
    pub number: usize,
    /// Its frozen name.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What was seen on the way, for people.
    pub notes: Vec<String>,
    /// Speed of the timed sync, MiB/s, where the test has one.
    pub mib_per_s: Option<f64>,
}

impl Outcome {
    /// Kinds of its violations, the gravest first, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        let Outcome::Fail(violations) = self else { return Vec::new() };
        let mut kinds: Vec<Kind> = violations.iter().map(|violation| violation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl TestResult {
    /// Kinds of its violations, the gravest first, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        self.outcome.kinds()
    }
}

/// A whole run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SuiteSummary {
    /// Results in the order run.
    pub results: Vec<TestResult>,
    /// How long it took.
    pub took: Duration,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Whether this tool contradicted itself.
    pub tool_bug: bool,
    /// What the handshake found wrong before the first test, on devices proved otherwise.
    pub handshake: Vec<Violation>,
    /// What a last look at everything this run copied came to; absent if nothing was copied or the
    /// run was stopped. It is told apart from the tests: whose sync did it is not known.
    pub audit: Option<Outcome>,
    /// Snapshots of the run that could not be deleted.
    pub left_behind: Vec<SnapshotUuid>,
}

impl SuiteSummary {
    /// What the handshake and the final audit came to besides the tests, under the names reports
    /// give them; only what did not pass.
    pub fn besides(&self) -> Vec<(&'static str, Outcome)> {
        let handshake = (!self.handshake.is_empty())
            .then(|| ("handshake", Outcome::Fail(self.handshake.clone())));
        let audit = self.audit.clone().filter(|audit| *audit != Outcome::Pass);
        handshake.into_iter().chain(audit.map(|audit| ("final_audit", audit))).collect()
    }
    /// How many passed, failed, could not be tested, are not applicable.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let count =
            |is: fn(&Outcome) -> bool| self.results.iter().filter(|r| is(&r.outcome)).count();
        (
            count(|o| matches!(o, Outcome::Pass)),
            count(|o| matches!(o, Outcome::Fail(_))),
            count(|o| matches!(o, Outcome::Error(_))),
            count(|o| matches!(o, Outcome::NotApplicable(_))),
        )
    }
}
