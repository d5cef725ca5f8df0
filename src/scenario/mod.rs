//! Scenarios: everything a run does, as data. Printed, compared, stored, replayed and shrunk; the
//! only code that executes them is `engine::interp`. Not covered: what is right (`crate::oracle`).

mod check;
mod label;
mod op;
mod trace;

pub use check::Check;
pub use label::{BadLabel, Label};
pub use op::{Fault, Op, Step, SyncSource};
pub use trace::{FORMAT_VERSION, TraceError, read_trace, write_trace};

use crate::block::{CloneFullDiff, Freedoms, Geometry, Policy, Role, RollbackKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A list of operations and the world it starts in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The world it starts in.
    pub header: Header,
    /// What happens, in order. Any list can be run.
    pub steps: Vec<Step>,
}

/// The world a scenario starts in. It cannot name devices, endpoints or commands, so that a trace
/// from a stranger is safe to replay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The volumes and their shapes.
    pub volumes: BTreeMap<Role, Geometry>,
    /// How over-reporting is judged.
    pub policy: Policy,
    /// Planted bugs by name; empty on an honest target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planted: Vec<String>,
    /// Ranges of one page at most on a simulated array; its own default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_limit: Option<u32>,
    /// What rollback does on a simulated array.
    #[serde(default = "linear", skip_serializing_if = "is_linear")]
    pub rollback: RollbackKind,
    /// What the full diff of a clone holds on a simulated array.
    #[serde(default = "includes_parent", skip_serializing_if = "is_includes_parent")]
    pub clone_full_diff: CloneFullDiff,
    /// Whether a simulated array stores what is written. Without it only diffs can be judged, at
    /// full speed.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub contents: bool,
    /// Legal freedoms that a simulated array takes.
    #[serde(default, skip_serializing_if = "Freedoms::is_none")]
    pub freedoms: Freedoms,
    /// Whether the simulated array is asked through its HTTPS server instead of in this process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_https: bool,
    /// Seed that the scenario was drawn from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Where it comes from, for people: a test's name, a finding.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
}

impl Scenario {
    /// A scenario without faults.
    pub fn new(header: Header, ops: impl IntoIterator<Item = Op>) -> Scenario {
        Scenario { header, steps: ops.into_iter().map(Step::from).collect() }
    }
}

impl Header {
    /// The header of an honest target that takes no freedoms.
    pub fn new(volumes: BTreeMap<Role, Geometry>, policy: Policy, origin: &str) -> Header {
        Header {
            volumes,
            policy,
            planted: Vec::new(),
            page_limit: None,
            rollback: linear(),
            clone_full_diff: includes_parent(),
            contents: true,
            freedoms: Freedoms::NONE,
            over_https: false,
            seed: None,
            origin: origin.to_owned(),
        }
    }
}

const fn linear() -> RollbackKind {
    RollbackKind::Linear
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_yes(flag: &bool) -> bool {
    *flag
}

fn is_linear(kind: &RollbackKind) -> bool {
    *kind == linear()
}

const fn includes_parent() -> CloneFullDiff {
    CloneFullDiff::IncludesParent
}

fn is_includes_parent(kind: &CloneFullDiff) -> bool {
    *kind == includes_parent()
}
