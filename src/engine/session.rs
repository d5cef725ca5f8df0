//! What the interpreter remembers of one scenario: labels, answers, checksums. Not covered: what
//! outlives a scenario: the model and the ledger of snapshots do.

use super::event::Event;
use crate::array::{ApiError, DeviceError};
use crate::block::{Extent, Lba, LbaCount, LbaSet, SnapshotUuid, VolumeUuid};
use crate::oracle::{Kind, Reason, Violation};
use crate::scenario::Label;
use crate::sync::{ChecksumError, CopyError, DiffAnswer, Digest, WalkError};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A snapshot and its base.
pub(super) type Pair = (Label, Option<Label>);

/// What the most recent diff (a sync's own included) came to.
#[derive(Debug, Default)]
pub(super) enum LastDiff {
    #[default]
    None,
    Answered {
        pair: Pair,
        answer: DiffAnswer,
    },
    /// Rightly refused.
    Refused,
}

/// What a sync did.
#[derive(Clone, Debug)]
pub(super) struct SyncRecord {
    pub(super) pair: Pair,
    pub(super) ranges: u64,
    /// LBAs that the answer named and the limit allows.
    pub(super) copied: LbaSet,
    /// LBAs that were written, named or not.
    pub(super) wrote: LbaSet,
    pub(super) took: Duration,
}

/// Why a step ended early.
#[derive(Debug)]
pub(super) enum Halt {
    /// Something is wrong.
    Violations(Vec<Violation>),
    /// It cannot be told.
    Unknown(Reason),
    /// The target does not offer it.
    Skip(String),
}

/// The memory of one scenario.
#[derive(Default)]
pub(super) struct Session {
    pub(super) uuids: BTreeMap<Label, SnapshotUuid>,
    /// Labels in the order taken, for chains.
    pub(super) order: Vec<Label>,
    /// Snapshots asked to go whose end was not waited for.
    pub(super) leaving: Vec<Label>,
    pub(super) last_diff: LastDiff,
    pub(super) syncs: Vec<SyncRecord>,
    /// The target's digest by extent, as last taken.
    pub(super) digests: HashMap<Extent, Digest>,
    /// The target's digests as taken for each extent before the last sync.
    pub(super) digests_before: HashMap<Extent, Digest>,
    /// Full answers by pair, with the state of the volume they were given in.
    pub(super) answers: BTreeMap<Pair, (u64, LbaSet)>,
    /// The last answer of each pair that was asked from the middle on: the state of the volume, from
    /// where, and what it reported.
    pub(super) walked: BTreeMap<Pair, (u64, Lba, LbaSet)>,
    /// The volume on which a fault of this step still waits for its operation.
    pub(super) fault: Option<VolumeUuid>,
    /// Whether the fault of this step has happened.
    pub(super) fault_met: bool,
    /// Things compared so far: none is no pass.
    pub(super) compared: u64,
}

impl Session {
    /// LBAs all syncs copied together.
    pub(super) fn synced_total(&self) -> LbaCount {
        self.syncs.iter().map(|sync| sync.copied.count()).sum()
    }
}

pub(super) type Emit<'e> = &'e mut dyn FnMut(Event);

impl From<Violation> for Halt {
    fn from(violation: Violation) -> Halt {
        Halt::Violations(vec![violation])
    }
}

impl From<ApiError> for Halt {
    fn from(error: ApiError) -> Halt {
        match error {
            ApiError::Interrupted => Halt::Unknown(Reason::Interrupted),
            ApiError::Unsupported(what) => Halt::Skip(format!("this target does not offer {what}")),
            // Liveness is the array's promise: a state that never comes is its fault.
            ApiError::Late { .. } => Violation::new(Kind::Liveness, error.to_string()).into(),
            other => Halt::Unknown(Reason::Api(other.to_string())),
        }
    }
}

impl From<DeviceError> for Halt {
    fn from(error: DeviceError) -> Halt {
        match error {
            DeviceError::Interrupted => Halt::Unknown(Reason::Interrupted),
            DeviceError::Unsupported(what) => {
                Halt::Skip(format!("this device does not offer {what}"))
            }
            DeviceError::Forbidden { .. } => Halt::Unknown(Reason::Tool(error.to_string())),
            other => Halt::Unknown(Reason::Device(other.to_string())),
        }
    }
}

impl From<CopyError> for Halt {
    fn from(error: CopyError) -> Halt {
        match error {
            CopyError::Interrupted => Halt::Unknown(Reason::Interrupted),
            other => Halt::Unknown(Reason::Device(other.to_string())),
        }
    }
}

impl From<ChecksumError> for Halt {
    fn from(error: ChecksumError) -> Halt {
        match error {
            ChecksumError::Interrupted => Halt::Unknown(Reason::Interrupted),
            other => Halt::Unknown(Reason::Device(other.to_string())),
        }
    }
}

impl From<WalkError> for Halt {
    fn from(error: WalkError) -> Halt {
        match error {
            WalkError::Api(error) => error.into(),
            WalkError::Shape(fault) => Violation::new(Kind::Malformed, fault.to_string()).into(),
        }
    }
}
