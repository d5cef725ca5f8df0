//! Judging one answer, LBA by LBA (`oracle.md`, sections 2, 3 and 6).
//!
//! Not covered: the form of the pages that an answer came in.

use super::possible::{Possible, Value};
use super::world::{Snapshot, Volume, World};
use crate::block::{CHUNK_LBAS, CloneFullDiff, Policy, RollbackKind};
use crate::scenario::Label;
use std::collections::BTreeSet;

/// A snapshot and its base; since creation if absent.
pub(super) type Pair = (Label, Option<Label>);

/// Whether a diff is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Duty {
    Answer,
    Refuse(&'static str),
    /// Either is legal, but an answer must lose nothing.
    Either(&'static str),
}

/// One answer against what is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Weighed {
    /// LBAs that have certainly changed and are not reported.
    pub(super) missed: Vec<u64>,
    /// LBAs that are reported beyond what the policy allows.
    pub(super) leaked: Vec<u64>,
    /// LBAs that are not reported and may have changed: nobody can tell.
    pub(super) unsure: Vec<u64>,
}

impl World {
    /// Whether the diff of this pair is to be answered now.
    pub(super) fn duty(&self, (snap, base): Pair) -> Duty {
        let Some(newer) = self.snapshots.get(&snap) else {
            return Duty::Refuse("the snapshot was never taken");
        };
        if !newer.settled {
            return Duty::Either("the snapshot is on its way");
        }
        if newer.deleted {
            return Duty::Refuse("the snapshot is deleted");
        }
        let is_clone = |snapshot: &Snapshot| {
            self.volumes.get(snapshot.volume).is_some_and(|volume| volume.is_clone)
        };
        let Some(label) = base else {
            return Duty::Answer;
        };
        if label == snap {
            return Duty::Refuse("the snapshot is its own base");
        }
        let Some(older) = self.snapshots.get(&label) else {
            return Duty::Refuse("the base was never taken");
        };
        if !older.settled {
            Duty::Either("the base is on its way")
        } else if older.deleted {
            Duty::Refuse("the base is deleted")
        } else if older.volume != newer.volume {
            match is_clone(older) || is_clone(newer) {
                true => Duty::Either("a clone and its relatives"),
                false => Duty::Refuse("the base is of another volume"),
            }
        } else if older.cut.from > newer.cut.from {
            Duty::Either("the base is the newer one")
        } else if self.forks_between(older, newer) {
            Duty::Either("a rollback forks the chain between them")
        } else {
            let between = |kill: &u64| older.cut.from < *kill && *kill < newer.cut.from;
            let lost = !self.capabilities.tracking_survives_kill;
            match lost && self.kills.iter().any(between) {
                true => Duty::Either("tracking does not survive the kill in between"),
                false => Duty::Answer,
            }
        }
    }

    fn forks_between(&self, older: &Snapshot, newer: &Snapshot) -> bool {
        let between = |at: &u64| older.cut.from < *at && *at < newer.cut.from;
        self.capabilities.rollback == RollbackKind::Forks
            && self
                .volumes
                .get(newer.volume)
                .is_some_and(|volume| volume.rollbacks.iter().any(between))
    }

    /// What the diff is measured from at an LBA. Two readings of a clone's full diff give two.
    fn beginnings(&self, volume: &Volume, base: Option<&Snapshot>, lba: u64) -> Vec<Possible> {
        match base {
            Some(base) => vec![self.contents(base, lba)],
            None if !volume.is_clone => vec![Possible::one(Value::Zero)],
            None => match self.capabilities.clone_full_diff {
                Some(CloneFullDiff::SinceClone) => vec![volume.at_birth(lba)],
                Some(CloneFullDiff::Unknown) | None => {
                    vec![Possible::one(Value::Zero), volume.at_birth(lba)]
                }
                Some(CloneFullDiff::IncludesParent) => vec![Possible::one(Value::Zero)],
            },
        }
    }

    /// Holds an answer against every LBA that was ever touched or is reported, from `first` on.
    /// `None` if there is nothing to hold it against.
    pub(super) fn weigh(
        &self,
        (snap, base): Pair,
        duty: Duty,
        first: u64,
        reported: &BTreeSet<u64>,
        policy: Policy,
    ) -> Option<Weighed> {
        let newer = self.snapshots.get(&snap)?;
        let volume = self.volumes.get(newer.volume)?;
        let older = match base {
            Some(base) => Some(self.snapshots.get(&base)?),
            None => None,
        };
        if let Some(older) = older.filter(|older| older.volume != newer.volume) {
            return self.weigh_relatives(older, newer, first, reported);
        }
        let (since, upto) = match older {
            // A reversed pair is measured between the same two cuts.
            Some(older) if older.cut.from > newer.cut.from => (Some(newer.cut), older.cut),
            older => (older.map(|older| older.cut), newer.cut),
        };
        let full = self.capabilities.clone_full_diff.unwrap_or(CloneFullDiff::Unknown);
        let anything = older.is_none()
            && (!(volume.fresh || volume.is_clone && full == CloneFullDiff::SinceClone)
                || volume.is_clone && full == CloneFullDiff::Unknown);
        let may = |lba: u64| {
            lba < newer.len && (anything || volume.could_be_touched(lba, since, upto, full))
        };
        let mut weighed = Weighed::default();
        let asked = |lba: &u64| *lba >= first && *lba < newer.len && !reported.contains(lba);
        let known = newer.known().chain(older.into_iter().flat_map(Snapshot::known));
        let lbas: BTreeSet<u64> = volume.touched().chain(known).filter(asked).collect();
        for lba in lbas {
            let now = self.contents(newer, lba);
            let before = self.beginnings(volume, older, lba);
            let differs = |before: &Possible| match older {
                Some(_) => now.changed_since(before),
                None => now.differs_from(before),
            };
            if before.iter().all(differs) {
                weighed.missed.push(lba);
            } else if may(lba) && !before.iter().all(|before| now.is_surely(before)) {
                weighed.unsure.push(lba);
            }
        }
        if duty == Duty::Answer {
            weighed.leaked = leaked(reported, policy, newer.len, &may);
        }
        Some(weighed)
    }

    /// A clone and a relative of it: what certainly differs must be there, whatever came about how.
    fn weigh_relatives(
        &self,
        older: &Snapshot,
        newer: &Snapshot,
        first: u64,
        reported: &BTreeSet<u64>,
    ) -> Option<Weighed> {
        let (one, two) = (self.volumes.get(older.volume)?, self.volumes.get(newer.volume)?);
        if !one.is_clone && !two.is_clone {
            return None;
        }
        let differs = |lba: &u64| {
            *lba >= first
                && *lba < newer.len
                && !reported.contains(lba)
                && self.contents(newer, *lba).changed_since(&self.contents(older, *lba))
        };
        let lbas: BTreeSet<u64> = one.touched().chain(two.touched()).filter(differs).collect();
        Some(Weighed { missed: lbas.into_iter().collect(), ..Weighed::default() })
    }

    /// LBAs that the two answers together must hold and do not: whichever of the two intervals an
    /// operation in flight at the middle cut belongs to, one of them has it (`oracle.md`, section 4).
    pub(super) fn lost_between(
        &self,
        (first, middle, last): (Option<Label>, Label, Label),
        both: &BTreeSet<u64>,
    ) -> Vec<u64> {
        let of = |label| self.snapshots.get(&label);
        let (Some(middle), Some(last)) = (of(middle), of(last)) else { return Vec::new() };
        let first = match first {
            Some(first) => match of(first) {
                Some(first) => Some(first),
                None => return Vec::new(),
            },
            None => None,
        };
        let Some(volume) = self.volumes.get(last.volume) else { return Vec::new() };
        let before =
            |one: &Snapshot, two: &Snapshot| one.volume == two.volume && one.cut.to < two.cut.from;
        let in_order =
            before(middle, last) && first.map_or(!volume.is_clone, |first| before(first, middle));
        if !in_order {
            return Vec::new();
        }
        let shortest = first.map_or(u64::MAX, |first| first.len).min(middle.len).min(last.len);
        let changed = |lba: &u64| {
            *lba < shortest
                && !both.contains(lba)
                && self
                    .beginnings(volume, first, *lba)
                    .iter()
                    .all(|before| self.contents(last, *lba).changed_since(before))
        };
        volume.touched().filter(changed).collect()
    }
}

/// LBAs that are reported beyond what `policy` allows.
fn leaked(
    reported: &BTreeSet<u64>,
    policy: Policy,
    len: u64,
    may: &dyn Fn(u64) -> bool,
) -> Vec<u64> {
    let unit = match policy {
        Policy::ReportOnly => return Vec::new(),
        Policy::Exact => 1,
        Policy::Chunk => CHUNK_LBAS,
        Policy::Granule(lbas) => lbas.get().max(1),
    };
    // Units are looked at once, however many of their LBAs are reported.
    let mut last: Option<(u64, bool)> = None;
    let mut excused = |lba: u64| {
        let start = lba / unit * unit;
        match last {
            Some((known, excused)) if known == start => excused,
            _ => {
                let excused = (start..start.saturating_add(unit)).any(may);
                last = Some((start, excused));
                excused
            }
        }
    };
    reported.iter().copied().filter(|lba| *lba >= len || !excused(*lba)).collect()
}
