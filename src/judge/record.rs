//! The vocabulary of a recording: what was done and what was answered, without a word about whether
//! it is right. The engine writes it on request, the judge reads it.
//!
//! Not covered: raw pages and bytes. A recording holds the LBAs that a whole answer named and what
//! blocks turned out to be, as the rest of the program decoded them.

use crate::block::{Capabilities, Extent, Geometry, Lba, LbaSet, Policy, Role};
use crate::scenario::{Label, Op, SyncSource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the lines that hold a recording.
pub const RECORDING_VERSION: u64 = 1;

/// One fact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A scenario begins. Volumes that an earlier scenario of the same recording used are as that
    /// one left them; labels are new.
    Began {
        /// The volumes and their shapes.
        volumes: BTreeMap<Role, Geometry>,
        /// How over-reporting is judged.
        policy: Policy,
        /// What the target can do and promises.
        capabilities: Box<Capabilities>,
    },
    /// A step begins.
    Step {
        /// Its place in the scenario, from 0.
        index: usize,
        /// What is to be done.
        op: Op,
    },
    /// An operation took effect and was acknowledged. Of taking a snapshot [`Record::Asked`] tells.
    Applied {
        /// On which volume.
        role: Role,
        /// Which; of those that hold others only the inner ones count.
        op: Op,
        /// The number that the blocks of a write carry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
    },
    /// A snapshot was asked for.
    Asked {
        /// Of which volume.
        role: Role,
        /// Its label.
        label: Label,
    },
    /// A snapshot has been seen Available: what is asked for from now on is after its cut.
    Available {
        /// Its label.
        label: Label,
    },
    /// A write, zero or discard failed: each of its LBAs holds what it held or what it was to get.
    Failed {
        /// On which volume.
        role: Role,
        /// Which.
        op: Op,
        /// The number that the blocks of a write carry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Whether it may still land, at any later time.
        late: bool,
    },
    /// A flush failed: what was not durable before may be lost, and another flush proves nothing.
    FlushFailed {
        /// On which volume.
        role: Role,
    },
    /// Nobody knows what these LBAs hold, and they may have been touched.
    Forgotten {
        /// On which volume.
        role: Role,
        /// Where.
        at: Extent,
    },
    /// A diff was answered, all pages of it.
    Answered {
        /// The snapshot.
        snap: Label,
        /// Its base; since creation if absent.
        base: Option<Label>,
        /// The LBA that the walk was started from.
        from: Lba,
        /// The LBAs it named.
        reported: LbaSet,
    },
    /// A diff was refused.
    TurnedDown {
        /// The snapshot.
        snap: Label,
        /// Its base.
        base: Option<Label>,
        /// Pages that had been answered before.
        pages: u32,
    },
    /// A sync copied.
    Copied {
        /// The snapshot.
        snap: Label,
        /// Its base.
        base: Option<Label>,
        /// Where it read.
        from: SyncSource,
        /// The LBAs it had to bring.
        copied: LbaSet,
        /// The LBAs of the target that were written.
        wrote: LbaSet,
    },
    /// Blocks were read back.
    Seen {
        /// Of which volume.
        role: Role,
        /// Of which snapshot; live if absent.
        snap: Option<Label>,
        /// The snapshot that they have to be like, if it is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        like: Option<Label>,
        /// What they turned out to be, in order.
        blocks: Vec<(Extent, Block)>,
    },
    /// The oracle of the run called something wrong.
    Violated {
        /// The name of the kind.
        kind: String,
        /// The snapshot concerned.
        snap: Option<Label>,
        /// Its base.
        base: Option<Label>,
    },
    /// The scenario ended.
    Ended {
        /// `pass`, `fail` or `unknown`.
        verdict: String,
    },
}

/// What a block that was read turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Block {
    /// All zeros.
    Zero,
    /// The block of this place that the so-manieth write of the run put on that volume.
    Stamp {
        /// The volume it was written to first.
        role: Role,
        /// The number that it carries.
        generation: u64,
    },
    /// Whatever was there before the run, zeros or not.
    Old,
    /// A block of this run that belongs elsewhere, or half of one.
    Misplaced,
    /// Anything else.
    Other,
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A line is not what it must be.
    #[error("line {line}: {source}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// Another version of the format.
    #[error("line {line} has version {found}, this program reads {RECORDING_VERSION}")]
    Version {
        /// Which, from 1.
        line: usize,
        /// Its version.
        found: u64,
    },
    /// There is nothing to judge in it.
    #[error(
        "no line of it is a record; make one with `lbaudit replay --record FILE`, or give the events.jsonl of a finding"
    )]
    Empty,
}

/// The records among the lines of an `events.jsonl`; the others are for people and left out. A last
/// line without an end is what a kill left of one, and left out too.
///
/// # Errors
/// [`RecordError`] with the line that is wrong.
pub fn read_records(text: &str) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (line, number) in whole.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let wrong = |source| RecordError::Line { line: number, source };
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).map_err(wrong)?;
        match fields.remove("v").and_then(|v| v.as_u64()) {
            Some(RECORDING_VERSION) => {}
            other => {
                return Err(RecordError::Version { line: number, found: other.unwrap_or(0) });
            }
        }
        let event = fields.remove("event");
        if event.as_ref().and_then(|event| event.as_str()) == Some("record") {
            records.push(serde_json::from_value(fields.into()).map_err(wrong)?);
        }
    }
    if records.is_empty() { Err(RecordError::Empty) } else { Ok(records) }
}
