//! What the control plane remembers: volumes, snapshots and their lives, and which pairs may be
//! asked. Not covered: contents and what changed; each volume keeps that itself.

use super::bugs::{Bug, BugSet};
use super::volume::{VolumeCell, no_volume};
use super::{SimError, SimSnapshotInfo, SimSnapshotState};
use crate::block::{LbaCount, SnapshotUuid, VolumeUuid};
use std::sync::Arc;
use std::time::Duration;

/// Volumes, snapshots and what numbers them.
#[derive(Default)]
pub(super) struct State {
    /// In order of creation. There are few: a list is quicker than any map.
    pub(super) volumes: Vec<Arc<VolumeCell>>,
    /// In order of their cuts; those that are gone are dropped when the next one is made.
    pub(super) snapshots: Vec<Snapshot>,
    /// Rollbacks that fork: the snapshot gone back to and the first number after the rollback.
    pub(super) forks: Vec<Fork>,
    /// Numbers everything this array ever made: volumes, snapshots, identities.
    pub(super) last_number: u64,
    /// How many snapshots were made, and how many epochs dead volumes had (planted bugs).
    pub(super) snapshots_made: u64,
    pub(super) dead_epochs: Vec<(VolumeUuid, usize)>,
}

/// After a forking rollback, a volume's snapshots cut after `to` and before `at` are on a dead branch.
pub(super) struct Fork {
    pub(super) volume_number: u64,
    pub(super) to: u64,
    pub(super) at: u64,
}

pub(super) struct Snapshot {
    pub(super) uuid: SnapshotUuid,
    pub(super) name: String,
    pub(super) cell: Arc<VolumeCell>,
    /// Its number: cuts are ordered by it.
    pub(super) cut: u64,
    pub(super) len_lbas: u64,
    pub(super) created: Duration,
    pub(super) available_at: Duration,
    /// Set once it is deleted: when it will be gone.
    pub(super) gone_at: Option<Duration>,
}

/// Longer than any run: what never happens is due then.
pub(super) const NEVER: Duration = Duration::MAX;

/// Spreads the bits of a number (the finaliser of splitmix64).
pub(super) const fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A random-looking version 4 UUID, equal for equal seeds and calls.
    pub(super) fn identity(&mut self, seed: u64) -> u128 {
        let number = self.number();
        let (high, low) = (mix(seed ^ mix(number)), mix(seed ^ mix(!number)));
        let bits = u128::from(high) << 64 | u128::from(low);
        bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62
    }

    pub(super) fn volume(&self, uuid: VolumeUuid) -> Result<&Arc<VolumeCell>, SimError> {
        self.volumes.iter().find(|cell| cell.uuid == uuid).ok_or_else(|| no_volume(uuid))
    }

    /// A snapshot that is not gone.
    pub(super) fn snapshot(
        &self,
        uuid: SnapshotUuid,
        now: Duration,
    ) -> Result<&Snapshot, SimError> {
        let found = self.snapshots.iter().rev().find(|snapshot| snapshot.uuid == uuid);
        found
            .filter(|snapshot| !snapshot.is_gone(now))
            .ok_or_else(|| SimError::NotFound(format!("snapshot {uuid} not found")))
    }

    /// A snapshot that answers diffs and reads.
    pub(super) fn usable(&self, uuid: SnapshotUuid, now: Duration) -> Result<&Snapshot, SimError> {
        let snapshot = self.snapshot(uuid, now)?;
        match snapshot.state(now) {
            SimSnapshotState::Available | SimSnapshotState::Creating => Ok(snapshot),
            SimSnapshotState::Deleting => {
                Err(SimError::NotFound(format!("snapshot {uuid} is being deleted")))
            }
        }
    }

    pub(super) fn drop_gone(&mut self, now: Duration) {
        self.snapshots.retain(|snapshot| !snapshot.is_gone(now));
    }

    /// Whether a forking rollback lies between the two cuts.
    pub(super) fn straddles_fork(&self, base: &Snapshot, snap: &Snapshot) -> bool {
        let dead = |fork: &Fork| {
            fork.volume_number == snap.cell.number
                && (fork.to + 1..fork.at).contains(&base.cut)
                && fork.at < snap.cut
        };
        self.forks.iter().any(dead)
    }
}

impl Snapshot {
    pub(super) fn is_gone(&self, now: Duration) -> bool {
        self.gone_at.is_some_and(|at| at <= now)
    }

    pub(super) fn state(&self, now: Duration) -> SimSnapshotState {
        if self.gone_at.is_some() {
            SimSnapshotState::Deleting
        } else if now < self.available_at {
            SimSnapshotState::Creating
        } else {
            SimSnapshotState::Available
        }
    }

    pub(super) fn info(&self, now: Duration, block_bytes: u64) -> SimSnapshotInfo {
        SimSnapshotInfo {
            uuid: self.uuid,
            name: self.name.clone(),
            state: self.state(now),
            volume: self.cell.uuid,
            volume_name: self.cell.name.clone(),
            len: LbaCount::new(self.len_lbas),
            size_bytes: self.len_lbas * block_bytes,
            created: self.created,
        }
    }
}

impl State {
    /// Planted: every fourth snapshot, the first included.
    pub(super) fn takes_stuck_turn(&mut self) -> bool {
        self.snapshots_made += 1;
        self.snapshots_made % 4 == 1
    }
}

/// Why a base cannot be used, and whether a planted bug answers an empty page instead.
pub(super) struct Refusal {
    pub(super) error: SimError,
    pub(super) planted: bool,
}

/// The cut of the base, if the pair may be asked; `None` when a planted bug takes it for no base.
pub(super) fn base_cut(
    state: &State,
    bugs: BugSet,
    snapshot: &Snapshot,
    base: SnapshotUuid,
    now: Duration,
) -> Result<Option<u64>, Refusal> {
    let refuse = |why: &str, planted: bool| {
        let error =
            SimError::BadRequest(format!("base {base} of snapshot {}: {why}", snapshot.uuid));
        Err(Refusal { error, planted })
    };
    let found = match state.usable(base, now) {
        Ok(found) => found,
        Err(_) if bugs.has(Bug::DeletedBaseAnswers) => return Ok(None),
        Err(error) => return Err(Refusal { error, planted: false }),
    };
    if found.uuid == snapshot.uuid {
        return refuse("the same snapshot", bugs.has(Bug::SelfDiffEmpty));
    }
    if !Arc::ptr_eq(&found.cell, &snapshot.cell) {
        return refuse("not on the same chain", bugs.has(Bug::ForeignBaseAnswers));
    }
    if found.cut > snapshot.cut {
        return refuse("newer than the snapshot", bugs.has(Bug::ReversedEndsEmpty));
    }
    if state.straddles_fork(found, snapshot) {
        return refuse("not on the same chain", false);
    }
    if found.state(now) == SimSnapshotState::Creating {
        return refuse("still being created", false);
    }
    Ok(Some(found.cut))
}
