//! A finding as it is kept: a violation, the shortest operations known that show it, and its folder
//! `finding-N/`.
//!
//! Two findings of one cause share a [`Signature`]; a run keeps the first of each. Not covered: how
//! a finding is written down and made shorter (`super::investigate`), screens (`crate::report`).

use crate::block::{Extent, Role};
use crate::engine::ShrinkStep;
use crate::oracle::{Kind, Violation};
use crate::scenario::{Op, Scenario, Step};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The scenario to replay.
pub const REPRO: &str = "repro.jsonl";
/// The whole case as it was drawn.
pub const ORIGINAL: &str = "original.jsonl";
/// What is known about it, a [`FindingRecord`].
pub const VIOLATION: &str = "violation.json";
/// The same operations for a shell.
pub const BY_HAND: &str = "repro.sh";

/// What shrinking made of a finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shrinking {
    /// Runs it took.
    pub runs: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether it ended by itself, not by its budget.
    pub finished: bool,
}

/// A violation, and all that is known about how to see it again.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its number in this run, from 1.
    pub number: u32,
    /// The case it was found in.
    pub case: String,
    /// What is wrong, as the shrunk scenario shows it.
    pub violation: Violation,
    /// Steps before the observing one, as found.
    pub operations_before: usize,
    /// The shortest scenario known that shows it; its last step is the observing one.
    pub scenario: Scenario,
    /// How it was shrunk.
    pub shrinking: Shrinking,
    /// How often of [`Finding::tried`] runs the scenario failed in the same way.
    pub reproduced: u32,
    /// How often it was run again.
    pub tried: u32,
    /// Its folder.
    pub path: PathBuf,
}

/// What two findings of the same cause share: the kind and the kinds of operations that are left.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Its kind.
    pub kind: Kind,
    /// The kinds of operations that change a volume, sorted, each once.
    pub ops: Vec<String>,
}

impl Finding {
    /// Steps before the observing one, after shrinking.
    pub fn operations(&self) -> usize {
        self.scenario.steps.len().saturating_sub(1)
    }
    /// What it shares with findings of the same cause. Extents, labels and how often an operation
    /// is repeated do not count, nor how it was asked and what was in flight together.
    pub fn signature(&self) -> Signature {
        let mut ops = op_kinds(&self.scenario);
        ops.retain(|op| !ASKING.contains(op));
        ops.sort_unstable();
        ops.dedup();
        let ops = ops.into_iter().map(str::to_owned).collect();
        Signature { kind: self.violation.kind, ops }
    }
    /// Removes its folder: it was seen before.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Operations that change no volume, and those that only hold others.
const ASKING: [&str; 9] =
    ["diff", "sync", "sync_chain", "read", "check", "wait", "flush", "on", "concurrent"];

/// The kinds of the operations of a scenario, in order, those inside others included.
pub fn op_kinds(scenario: &Scenario) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    scenario.steps.iter().for_each(|step| step.op.each(&mut |op| kinds.push(op_kind(op))));
    kinds
}

const fn op_kind(op: &Op) -> &'static str {
    match op {
        Op::Write { .. } => "write",
        Op::Rewrite { .. } => "rewrite",
        Op::Zero { .. } => "zero",
        Op::WriteZeroes { .. } => "write_zeroes",
        Op::Discard { .. } => "discard",
        Op::Flush => "flush",
        Op::Read { .. } => "read",
        Op::Take { .. } => "take",
        Op::Delete { .. } => "delete",
        Op::Wait => "wait",
        Op::Concurrent(_) => "concurrent",
        Op::Rollback { .. } => "rollback",
        Op::Resize { .. } => "resize",
        Op::Restart { clean: true } => "restart",
        Op::Restart { clean: false } => "kill",
        Op::Clone { .. } => "clone",
        Op::CreateVolume { .. } => "create_volume",
        Op::DeleteVolume { .. } => "delete_volume",
        Op::On { .. } => "on",
        Op::Diff { base: None, .. } => "full diff",
        Op::Diff { base: Some(_), .. } => "diff",
        Op::Sync { .. } => "sync",
        Op::SyncChain { .. } => "sync_chain",
        Op::Check(_) => "check",
    }
}

/// `violation.json`: what is known about a finding.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FindingRecord {
    /// Version of this form.
    pub v: u32,
    /// Version of the program that found it.
    pub program: String,
    /// The case it was found in.
    pub case: String,
    /// Its kind.
    pub kind: Kind,
    /// What that kind means for a user's data.
    pub meaning: String,
    /// As found; `shrunk` has its own.
    pub violation: Violation,
    /// Steps before the observing one, as found.
    pub operations_before: usize,
    /// The steps that touched the LBAs it concerns.
    pub touching: Vec<Touching>,
    /// What shrinking came to; absent while that goes on, and for ever if the run was killed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<ShrunkRecord>,
}

/// A step that touched what a violation concerns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Touching {
    /// Its number, from 1.
    pub step: usize,
    /// What it did.
    pub operation: String,
}

/// What shrinking came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShrunkRecord {
    /// Steps before the observing one that are left.
    pub operations: usize,
    /// Candidates that were run.
    pub runs: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it ended by itself, not by its budget.
    pub finished: bool,
    /// How often of how many runs the shrunk scenario showed it again, as `3/3`.
    pub reproduced: String,
    /// What made it shorter, step by step; on the target only, if the simulator went ahead.
    pub log: Vec<Kept>,
    /// The steps that touched the LBAs it concerns.
    pub touching: Vec<Touching>,
    /// What is wrong, as the shrunk scenario shows it.
    pub violation: Violation,
}

/// A candidate of the shrinker that was kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What was tried.
    pub what: String,
    /// Steps that are left.
    pub steps: usize,
    /// Candidates run so far.
    pub runs: u64,
}

impl From<ShrinkStep> for Kept {
    fn from(step: ShrinkStep) -> Kept {
        Kept { what: step.what.to_owned(), steps: step.steps, runs: step.runs }
    }
}

impl FindingRecord {
    /// Reads the record in a finding's folder.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub fn load(folder: &Path) -> io::Result<FindingRecord> {
        Ok(serde_json::from_slice(&fs::read(folder.join(VIOLATION))?)?)
    }
    /// What is wrong, by the shortest operations known.
    pub fn shown(&self) -> &Violation {
        self.shrunk.as_ref().map_or(&self.violation, |shrunk| &shrunk.violation)
    }
    /// Its text in the folder.
    pub(super) fn text(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

/// The steps that change what `violation` concerns, on the volume that it concerns: all that change
/// something there, if it concerns no LBA in particular, and whatever moves a whole volume.
pub(super) fn touching(scenario: &Scenario, violation: &Violation) -> Vec<Touching> {
    let concerns =
        |at: Extent| violation.extents.is_empty() || !violation.extents.within(at).is_empty();
    let volume = |op: &Op| match op {
        Op::On { volume, .. } => *volume,
        _ => Role::Source,
    };
    let takes = |step: &&Step, label| {
        let mut taken = false;
        step.op.each(&mut |op| taken |= matches!(op, Op::Take { label: l, .. } if *l == label));
        taken
    };
    // What a copy did to its target may come from either volume.
    let snap = violation.snap.filter(|_| violation.kind != Kind::Content);
    let of = snap.and_then(|label| scenario.steps.iter().find(|step| takes(step, label)));
    let of = of.map(|step| volume(&step.op));
    let mut found = Vec::new();
    for (step, number) in scenario.steps.iter().zip(1..) {
        let mut touches = false;
        step.op.each(&mut |op| {
            touches |= match op {
                Op::Rollback { .. }
                | Op::Resize { .. }
                | Op::CreateVolume { .. }
                | Op::DeleteVolume { .. } => true,
                op => op.changes().is_some_and(concerns),
            };
        });
        if touches && of.is_none_or(|of| of == volume(&step.op)) {
            found.push(Touching { step: number, operation: step.op.to_string() });
        }
    }
    found
}
