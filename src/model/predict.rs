//! What a diff must and may report, and whether it may be answered at all (`oracle.md` section 2
//! and law 1 of section 6). Not covered: judging an answer against it (`crate::oracle`).

use super::values::{Value, ValueMap, Values};
use super::volume::Volume;
use super::{Model, Snapshot};
use crate::block::{CloneFullDiff, Extent, Lba, LbaSet, Role, RollbackKind};
use crate::scenario::Label;

/// Both bounds of one diff.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// LBAs that have certainly changed: leaving one out is data loss.
    pub must: LbaSet,
    /// LBAs that could have changed: naming any other is over-reporting.
    pub may: LbaSet,
}

/// Whether a diff is to be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// It is.
    Answer,
    /// It must be refused, and why.
    Refusal(&'static str),
    /// Both are legal; an answer must still report what must be reported.
    Either(&'static str),
}

impl Model {
    /// Whether the diff of `snap` against `base` is to be answered.
    pub fn expected(&self, snap: Label, base: Option<Label>) -> Expected {
        let Some(current) = self.snapshots.get(&snap) else {
            return Expected::Refusal("the snapshot was never taken");
        };
        if !current.settled {
            return Expected::Either("the snapshot is still being made or deleted");
        }
        if current.deleted {
            return Expected::Refusal("the snapshot has been deleted");
        }
        let Some(label) = base else { return Expected::Answer };
        if label == snap {
            return Expected::Refusal("the snapshot is its own base");
        }
        let Some(base) = self.snapshots.get(&label) else {
            return Expected::Refusal("the base was never taken");
        };
        if !base.settled {
            Expected::Either("the base is still being made or deleted")
        } else if base.deleted {
            Expected::Refusal("the base has been deleted")
        } else if (base.role, base.incarnation) != (current.role, current.incarnation) {
            match base.role == Role::Clone || current.role == Role::Clone {
                true => Expected::Either("the two are related by cloning"),
                false => Expected::Refusal("the base is of another volume"),
            }
        } else if base.cut > current.cut {
            Expected::Either("the base is newer than the snapshot")
        } else if base.rollbacks != current.rollbacks
            && self.capabilities.rollback == RollbackKind::Forks
        {
            Expected::Either("the chain forks at a rollback between the two")
        } else if base.kills != current.kills {
            Expected::Either("tracking need not survive the kill between the two")
        } else {
            Expected::Answer
        }
    }

    /// The bounds of the diff of `snap` against `base`; `None` where the model cannot tell (a base
    /// of another volume, a label never taken).
    pub fn predict(&self, snap: Label, base: Option<Label>) -> Option<Prediction> {
        let current = self.snapshots.get(&snap)?;
        let volume = self.volume_of(current)?;
        let whole = Extent::new(Lba::new(0), current.len)?;
        let Some(label) = base else { return Some(self.since_creation(current, volume, whole)) };
        let base = self.snapshots.get(&label)?;
        if (base.role, base.incarnation) != (current.role, current.incarnation) {
            return self.of_relatives(current, base, whole);
        }
        let (first, last) = (base.cut.min(current.cut), base.cut.max(current.cut));
        let may = volume.touched_between(first, last).into_within(whole);
        let must = current.contents.certain_differences(&base.contents, &may);
        Some(Prediction { must, may })
    }

    /// The bounds of a diff without base.
    fn since_creation(&self, current: &Snapshot, volume: &Volume, whole: Extent) -> Prediction {
        let own = volume.touched_between(0, current.cut).into_within(whole);
        let anything = || LbaSet::from(whole);
        let zeros = ValueMap::new(Values::One(Value::Zero));
        let Some((began, inherited)) = &volume.parent else {
            let must = current.contents.certain_differences(&zeros, &own);
            // Somebody else may have written anything before this run.
            return Prediction { must, may: if volume.fresh { own } else { anything() } };
        };
        let all = own.union(&inherited.within(whole));
        let from_zero = || current.contents.certain_differences(&zeros, &all);
        let from_parent = || current.contents.certain_differences(began, &own);
        match self.capabilities.clone_full_diff {
            Some(CloneFullDiff::SinceClone) => Prediction { must: from_parent(), may: own },
            Some(CloneFullDiff::IncludesParent) => {
                Prediction { must: from_zero(), may: if volume.fresh { all } else { anything() } }
            }
            Some(CloneFullDiff::Unknown) | None => {
                Prediction { must: from_zero().intersection(&from_parent()), may: anything() }
            }
        }
    }

    /// The bounds of a diff between a clone and its parent, if it is answered at all: what certainly
    /// differs must be there. `None` for volumes that are no relatives.
    fn of_relatives(
        &self,
        current: &Snapshot,
        base: &Snapshot,
        whole: Extent,
    ) -> Option<Prediction> {
        let touched = |snap: &Snapshot| {
            let volume = self.volume_of(snap)?;
            let own = volume.touched_between(0, snap.cut);
            Some(match &volume.parent {
                Some((_, inherited)) => own.union(inherited),
                None => own,
            })
        };
        let relatives = [current, base]
            .into_iter()
            .any(|snap| self.volume_of(snap).is_some_and(|volume| volume.parent.is_some()));
        if !relatives {
            return None;
        }
        let all = touched(current)?.union(&touched(base)?).within(whole);
        let must = current.contents.certain_differences(&base.contents, &all);
        Some(Prediction { must, may: LbaSet::from(whole) })
    }
}
