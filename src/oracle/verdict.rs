//! What a run comes to. A violation is data, not an error. Not covered: exit codes and how a
//! violation is shown.

use crate::block::{ChunkBitmap, LbaSet};
use crate::scenario::Label;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Kinds of violation, the gravest first: of several, the first that applies names the finding
/// (`oracle.md` section 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A change that had to be reported was not: data loss.
    Missed,
    /// A block holds what it must not.
    Content,
    /// The copy wrote where the diff named nothing.
    Disturbed,
    /// Answered what must be refused, or refused what must be answered.
    Refusal,
    /// The answer breaks its own form.
    Malformed,
    /// More was reported than could have changed.
    Leaked,
    /// The same question got two answers.
    Nondeterministic,
    /// Something that must end does not.
    Liveness,
    /// A figure of the fixed suite is out of bounds (counts, tolerances, speed).
    Figure,
}

impl Kind {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Missed => "missed",
            Kind::Content => "content",
            Kind::Disturbed => "disturbed",
            Kind::Refusal => "refusal",
            Kind::Malformed => "malformed",
            Kind::Leaked => "leaked",
            Kind::Nondeterministic => "nondeterministic",
            Kind::Liveness => "liveness",
            Kind::Figure => "figure",
        }
    }
    /// What it means for somebody's data.
    pub const fn meaning(self) -> &'static str {
        match self {
            Kind::Missed => "data loss",
            Kind::Content => "wrong data",
            Kind::Disturbed => "data overwritten that had not changed",
            Kind::Refusal => "wrong answer instead of an error, or the reverse",
            Kind::Malformed => "answer cannot be trusted",
            Kind::Leaked => "extra copying, no data loss",
            Kind::Nondeterministic => "answer cannot be trusted",
            Kind::Liveness => "stuck snapshots",
            Kind::Figure => "figure out of bounds",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One chunk as it should have been reported and as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// The chunk.
    pub chunk: u64,
    /// LBAs that had to be (or could be) reported.
    pub expected: ChunkBitmap,
    /// LBAs that were.
    pub reported: ChunkBitmap,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Its kind.
    pub kind: Kind,
    /// What is wrong, in one sentence, without the kind.
    pub sentence: String,
    /// The snapshot of the diff or sync it concerns.
    pub snap: Option<Label>,
    /// Its base.
    pub base: Option<Label>,
    /// The LBAs it concerns.
    pub extents: LbaSet,
    /// The first chunk it concerns.
    pub picture: Option<Picture>,
    /// Whether the data it concerns is from before the run: gone with the next write there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub older_data: bool,
}

impl Violation {
    /// A violation that concerns no particular LBA.
    pub fn new(kind: Kind, sentence: impl Into<String>) -> Violation {
        Violation {
            kind,
            sentence: sentence.into(),
            snap: None,
            base: None,
            extents: LbaSet::new(),
            picture: None,
            older_data: false,
        }
    }
    /// The same, about the diff of this pair.
    pub fn about(self, snap: Label, base: Option<Label>) -> Violation {
        Violation { snap: Some(snap), base, ..self }
    }
    /// The same, about these LBAs.
    pub fn at(self, extents: LbaSet) -> Violation {
        Violation { extents, ..self }
    }
    /// The same, about data from before the run.
    pub fn of_older_data(self) -> Violation {
        Violation { older_data: true, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.kind, self.kind.meaning(), self.sentence)
    }
}

/// Why a run could not be judged. Never the array's fault, never a pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The control plane failed: network, authentication, server errors.
    Api(String),
    /// The data plane failed.
    Device(String),
    /// Going on would cost more than the user allowed; the run ends here.
    Budget(String),
    /// The user stopped the run.
    Interrupted,
    /// This tool contradicts itself; always a bug of this tool.
    Tool(String),
    /// Nothing was compared.
    NothingCompared,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Api(why) | Reason::Device(why) | Reason::Budget(why) => f.write_str(why),
            Reason::Interrupted => f.write_str("interrupted"),
            Reason::Tool(why) => write!(f, "bug in this tool: {why}"),
            Reason::NothingCompared => f.write_str("nothing was compared"),
        }
    }
}

/// What a run comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everything that was compared was right, and something was compared.
    Pass,
    /// At least one violation; the gravest first.
    Fail(Vec<Violation>),
    /// It could not be told.
    Unknown(Reason),
}

impl Verdict {
    /// The verdict over these violations.
    pub fn of(mut violations: Vec<Violation>) -> Verdict {
        violations.sort_by_key(|violation| violation.kind);
        if violations.is_empty() { Verdict::Pass } else { Verdict::Fail(violations) }
    }
    /// The gravest violation, if it failed.
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Verdict::Fail(violations) => violations.first(),
            Verdict::Pass | Verdict::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_violation_of_older_data_says_so_and_files_from_before_can_be_read() {
        let plain = Violation::new(Kind::Missed, "LBA 7 changed").about(Label(1), None);
        let text = serde_json::to_string(&plain).expect("encodes");
        assert!(!text.contains("older_data"), "{text}");
        assert_eq!(serde_json::from_str::<Violation>(&text).expect("reads"), plain);
        let older = plain.clone().of_older_data();
        assert_ne!(older, plain);
        let text = serde_json::to_string(&older).expect("encodes");
        assert_eq!(serde_json::from_str::<Violation>(&text).expect("reads"), older);
    }
}
