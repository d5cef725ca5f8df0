//! What the second judge says, beside what the first one said. Not covered: how it is shown.

use crate::scenario::Label;
use serde::Serialize;
use std::fmt;

/// Kinds of violation that a recording shows, by the names that the first judge uses, the gravest
/// first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgedKind {
    /// A change that had to be reported was not.
    Missed,
    /// A block holds what it must not.
    Content,
    /// The copy wrote where the diff named nothing.
    Disturbed,
    /// Answered what must be refused, or refused what must be answered.
    Refusal,
    /// A walk from within is not the rest of the whole one.
    Malformed,
    /// More was reported than could have changed.
    Leaked,
    /// The same question got two answers.
    Nondeterministic,
}

impl JudgedKind {
    /// All of them.
    pub const ALL: [JudgedKind; 7] = [
        JudgedKind::Missed,
        JudgedKind::Content,
        JudgedKind::Disturbed,
        JudgedKind::Refusal,
        JudgedKind::Malformed,
        JudgedKind::Leaked,
        JudgedKind::Nondeterministic,
    ];
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            JudgedKind::Missed => "missed",
            JudgedKind::Content => "content",
            JudgedKind::Disturbed => "disturbed",
            JudgedKind::Refusal => "refusal",
            JudgedKind::Malformed => "malformed",
            JudgedKind::Leaked => "leaked",
            JudgedKind::Nondeterministic => "nondeterministic",
        }
    }
    pub(super) fn from_name(name: &str) -> Option<JudgedKind> {
        JudgedKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for JudgedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that the judge calls wrong, or cannot tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Remark<K> {
    /// The scenario of the recording, from 0.
    pub scenario: usize,
    /// Its step, from 0.
    pub step: usize,
    /// Which kind.
    pub kind: K,
    /// The snapshot concerned.
    pub snap: Option<Label>,
    /// Its base.
    pub base: Option<Label>,
    /// In one sentence.
    pub sentence: String,
}

/// What the judge makes of a recording.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Judgement {
    /// Scenarios in the recording.
    pub scenarios: usize,
    /// Answers that were held against both bounds.
    pub diffs: u64,
    /// Refusals that were judged.
    pub refusals: u64,
    /// Copies whose writes were judged.
    pub syncs: u64,
    /// Blocks read back that were judged.
    pub blocks: u64,
    /// What is wrong, in the order found.
    pub violations: Vec<Remark<JudgedKind>>,
    /// What cannot be told: neither right nor wrong.
    pub unsure: Vec<Remark<()>>,
    /// What the first judge called wrong and this one cannot see in a recording (form of pages,
    /// deadlines, figures, explicit checks), by the names of the kinds.
    pub not_rejudged: Vec<Remark<String>>,
    /// Where the two judges differ.
    pub disagreements: Vec<Remark<()>>,
}

impl Judgement {
    /// Whether anything was there to judge.
    pub fn compared(&self) -> bool {
        self.diffs + self.refusals + self.syncs + self.blocks > 0
    }
    /// Whether the two judges agree wherever both can see.
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }
    /// Whether nothing is wrong, by either judge.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.not_rejudged.is_empty() && self.agrees()
    }
}
