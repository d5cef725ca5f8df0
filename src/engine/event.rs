//! Everything observable about a run, as data. The engine emits; `crate::report` prints. Not
//! covered: how an event looks to people or scripts.

use crate::block::{ByteLen, Extent, LbaCount, Role, SnapshotName, SnapshotUuid};
use crate::judge::Record;
use crate::model::Value;
use crate::oracle::Violation;
use crate::scenario::{Label, Op};
use serde::Serialize;
use std::time::Duration;

/// What can be observed.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step begins.
    Step {
        /// Its place in the scenario, from 0.
        index: usize,
        /// What happens.
        op: Op,
    },
    /// Something was written (stamped data, zeros, discard, the same bytes again).
    Wrote {
        /// On which volume.
        role: Role,
        /// What: `wrote`, `zeroed`, `rewrote`, `discarded`.
        what: &'static str,
        /// Where.
        at: Extent,
    },
    /// A snapshot was asked for and has a name; its cut lies between here and `Available`.
    Taken {
        /// Its label.
        label: Label,
        /// Its name on the array.
        #[serde(serialize_with = "as_text")]
        name: SnapshotName,
        /// Its identity on the array.
        uuid: SnapshotUuid,
    },
    /// A snapshot has been seen Available.
    Available {
        /// Its label.
        label: Label,
    },
    /// Reading has shown what is there where operations in flight together left several
    /// possibilities.
    Seen {
        /// In which snapshot; in the volume itself if absent.
        snap: Option<Label>,
        /// On which volume.
        role: Role,
        /// Where.
        at: Extent,
        /// What.
        value: Value,
    },
    /// A snapshot is gone (or, unwaited, on its way).
    Deleted {
        /// Its label.
        label: Label,
    },
    /// One page of a diff came in.
    Page {
        /// Its number, from 1.
        page: u32,
        /// Its ranges.
        ranges: u32,
    },
    /// A diff was answered and judged.
    Diffed {
        /// The snapshot.
        snap: Label,
        /// Its base; since creation if absent.
        base: Option<Label>,
        /// Ranges over all pages.
        ranges: u64,
        /// Pages.
        pages: u32,
        /// LBAs set.
        lbas: LbaCount,
        /// LBAs that had to be, if the model knows.
        must: Option<LbaCount>,
    },
    /// A diff was refused, rightly.
    Refused {
        /// The snapshot.
        snap: Label,
        /// Its base.
        base: Option<Label>,
        /// HTTP status, if the target speaks HTTP.
        status: Option<u16>,
        /// The server's words, escaped.
        text: String,
    },
    /// A sync copied and flushed.
    Synced {
        /// Ranges of its diff.
        ranges: u64,
        /// Pages of its diff.
        pages: u32,
        /// LBAs copied.
        lbas: LbaCount,
        /// Diff, copy and final flush together.
        took: Duration,
    },
    /// Both devices were checksummed.
    Checksummed {
        /// Where.
        at: Extent,
        /// SHA-256 of the source there, hex.
        source: String,
        /// SHA-256 of the target there, hex.
        target: String,
    },
    /// A sync's speed was measured (over its 4 KiB blocks).
    Throughput {
        /// Bytes copied.
        bytes: ByteLen,
        /// Diff, copy and final flush together.
        took: Duration,
    },
    /// A step was not run, and why.
    Skipped {
        /// What it was.
        op: Op,
        /// Why.
        why: String,
    },
    /// Something worth saying that is no violation; foreign parts are escaped already.
    Note {
        /// What.
        text: String,
    },
    /// Something is wrong.
    Violation {
        /// What.
        violation: Violation,
    },
    /// A fact for the judge; only where [`super::Sut::record`] asks for it.
    Record(Box<Record>),
}

fn as_text<S: serde::Serializer>(name: &SnapshotName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}
