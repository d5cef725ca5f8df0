//! What a diff must and may report, and whether it may be answered at all (`oracle.md` section 2
//! and law 1 of section 6). Not covered: judging an answer against it (`crate::oracle`).

use super::Model;
use super::values::{Value, Values};
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
        let Some(label) = base else {
            return match self.capabilities.clone_full_diff {
                Some(CloneFullDiff::Unknown) if current.role == Role::Clone => {
                    Expected::Either("what a clone's full diff holds is not known")
                }
                _ => Expected::Answer,
            };
        };
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
        } else {
            Expected::Answer
        }
    }

    /// The bounds of the diff of `snap` against `base`; `None` where the model cannot tell (a base
    /// of another volume, a label never taken).
    pub fn predict(&self, snap: Label, base: Option<Label>) -> Option<Prediction> {
        let current = self.snapshots.get(&snap)?;
        let volume =
            self.volumes.get(&current.role).filter(|v| v.incarnation == current.incarnation)?;
        let end = Lba::new(current.len.get());
        let whole = Extent::between(Lba::new(0), end)?;
        let includes_parent =
            self.capabilities.clone_full_diff == Some(CloneFullDiff::IncludesParent);
        let (from, since) = match base {
            // Measured from an unknown or another beginning: not judged yet.
            None if current.role == Role::Clone && !includes_parent => return None,
            None => (0, None),
            Some(label) => {
                let base = self.snapshots.get(&label)?;
                if (base.role, base.incarnation) != (current.role, current.incarnation) {
                    return None;
                }
                (base.cut, Some(base))
            }
        };
        let (first, last) = (from.min(current.cut), from.max(current.cut));
        let mut may = volume.touched_between(first, last).within(whole);
        let mut must = LbaSet::new();
        for run in may.runs() {
            for (tile, now) in current.contents.over(*run) {
                match since {
                    None if now.certainly_differ(&Values::One(Value::Zero)) => must.insert(tile),
                    None => {}
                    Some(base) => {
                        for (part, then) in base.contents.over(tile) {
                            if now.certainly_differ(then) {
                                must.insert(part);
                            }
                        }
                    }
                }
            }
        }
        // A write that failed may land at any time, so its LBAs may always show and never must.
        let late = volume.unfenced.within(whole);
        (must, may) = (must.difference(&late), may.union(&late));
        if since.is_none() && !volume.fresh {
            // Somebody else may have written anything before this run.
            may = LbaSet::from(whole);
        }
        Some(Prediction { must, may })
    }
}
