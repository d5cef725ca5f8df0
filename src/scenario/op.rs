//! The one vocabulary of operations. Not covered: what an operation does (`crate::engine`) and
//! means (`crate::model`).

use super::check::Check;
use super::label::Label;
use crate::block::{Extent, Lba, LbaCount, Role};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a sync reads from (`oracle.md` section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncSource {
    /// The frozen contents of the snapshot.
    Snapshot,
    /// The live source device: right only while nobody writes.
    #[default]
    Live,
}

/// One operation. Without [`Op::On`] it speaks of the source volume.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Writes new stamped blocks.
    Write {
        /// Where.
        at: Extent,
    },
    /// Reads what is there and writes the very same bytes back.
    Rewrite {
        /// Where.
        at: Extent,
    },
    /// Writes zero bytes like any other data.
    Zero {
        /// Where.
        at: Extent,
    },
    /// Zeroes by the device's own command.
    WriteZeroes {
        /// Where.
        at: Extent,
    },
    /// Tells the device that nothing of value is there.
    Discard {
        /// Where.
        at: Extent,
    },
    /// Makes acknowledged writes durable.
    Flush,
    /// Reads and judges contents, live or of a snapshot.
    Read {
        /// The snapshot; live if absent.
        snap: Option<Label>,
        /// Where.
        at: Extent,
    },
    /// Takes a snapshot.
    Take {
        /// Its name in this scenario.
        label: Label,
        /// Whether to wait until it is Available.
        wait: bool,
    },
    /// Deletes a snapshot.
    Delete {
        /// Which.
        label: Label,
        /// Whether to wait until it is gone.
        wait: bool,
    },
    /// Waits until every snapshot that is being made or deleted has settled.
    Wait,
    /// Operations in flight together.
    Concurrent(Vec<Op>),
    /// Puts the volume back to a snapshot.
    Rollback {
        /// Which.
        label: Label,
    },
    /// Grows or, by force, shrinks the volume.
    Resize {
        /// The new size.
        len: LbaCount,
    },
    /// Restarts the target: cleanly, or as after a kill.
    Restart {
        /// Whether it may shut down in order.
        clean: bool,
    },
    /// Makes a new volume out of a snapshot.
    Clone {
        /// The snapshot.
        label: Label,
        /// What the new volume is called in this scenario.
        volume: Role,
    },
    /// Creates an empty volume.
    CreateVolume {
        /// What it is called in this scenario.
        volume: Role,
        /// Whether it gets the identity of its predecessor again.
        same_id: bool,
    },
    /// Deletes a volume; its snapshots stay.
    DeleteVolume {
        /// Which.
        volume: Role,
    },
    /// Another operation, on another volume.
    On {
        /// That volume.
        volume: Role,
        /// What happens there.
        op: Box<Op>,
    },
    /// Asks for a diff, page by page.
    Diff {
        /// The snapshot.
        snap: Label,
        /// Against which; since creation if absent.
        base: Option<Label>,
        /// From which LBA on.
        #[serde(default)]
        from: Lba,
        /// An operation after this many pages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        between_pages: Option<(u32, Box<Op>)>,
    },
    /// Copies a diff from the source to the target volume.
    Sync {
        /// The snapshot.
        snap: Label,
        /// Against which; since creation if absent.
        base: Option<Label>,
        /// Where the data is read.
        #[serde(default)]
        from: SyncSource,
        /// Operations that run meanwhile.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        during: Vec<Op>,
    },
    /// Syncs every snapshot up to this one, each on the one before.
    SyncChain {
        /// The last one.
        to: Label,
    },
    /// An explicit claim, on top of what every diff and sync is judged by.
    Check(Check),
}

impl Op {
    /// Where it changes contents itself, if it does.
    pub const fn changes(&self) -> Option<Extent> {
        match self {
            Op::Write { at }
            | Op::Rewrite { at }
            | Op::Zero { at }
            | Op::WriteZeroes { at }
            | Op::Discard { at } => Some(*at),
            _ => None,
        }
    }

    /// Where it changes or reads contents itself, if it does.
    pub const fn touches(&self) -> Option<Extent> {
        match self {
            Op::Read { at, .. } => Some(*at),
            op => op.changes(),
        }
    }

    /// The same, to be moved.
    pub const fn touches_mut(&mut self) -> Option<&mut Extent> {
        match self {
            Op::Write { at }
            | Op::Rewrite { at }
            | Op::Zero { at }
            | Op::WriteZeroes { at }
            | Op::Discard { at }
            | Op::Read { at, .. } => Some(at),
            _ => None,
        }
    }

    /// The operations directly inside it.
    pub fn inner(&self) -> &[Op] {
        match self {
            Op::Concurrent(ops) | Op::Sync { during: ops, .. } => ops,
            Op::On { op, .. } | Op::Diff { between_pages: Some((_, op)), .. } => {
                std::slice::from_ref(op)
            }
            _ => &[],
        }
    }

    /// The same, to be changed.
    pub fn inner_mut(&mut self) -> &mut [Op] {
        match self {
            Op::Concurrent(ops) | Op::Sync { during: ops, .. } => ops,
            Op::On { op, .. } | Op::Diff { between_pages: Some((_, op)), .. } => {
                std::slice::from_mut(op)
            }
            _ => &mut [],
        }
    }

    /// Calls `visit` for the operation and then for all inside it.
    pub fn each<'o>(&'o self, visit: &mut dyn FnMut(&'o Op)) {
        visit(self);
        self.inner().iter().for_each(|op| op.each(visit));
    }

    /// The same, to change them.
    pub fn each_mut(&mut self, visit: &mut dyn FnMut(&mut Op)) {
        visit(self);
        self.inner_mut().iter_mut().for_each(|op| op.each_mut(visit));
    }
}

/// A fault that the run itself injects. The kinds are those of a simulated array's data plane; a
/// target that knows none skips a step that carries one.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which, by its stable name.
    pub kind: String,
    /// At which call of the step, counted from 1.
    pub nth: u32,
}

/// An operation and the fault it meets, if any.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What happens.
    pub op: Op,
    /// What goes wrong meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

impl From<Op> for Step {
    fn from(op: Op) -> Step {
        Step { op, fault: None }
    }
}

/// `64+8`: an extent as the screens spell it.
struct Short(Extent);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.0.start(), self.0.len_lbas())
    }
}

fn pair(f: &mut fmt::Formatter<'_>, what: &str, snap: Label, base: Option<Label>) -> fmt::Result {
    write!(f, "{what} {snap}")?;
    base.map_or(Ok(()), |base| write!(f, " base {base}"))
}

impl fmt::Display for Op {
    /// A few words, as in a finding's list of operations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unwaited = |wait: &bool| if *wait { "" } else { " (no wait)" };
        match self {
            Op::Write { at } => write!(f, "write {}", Short(*at)),
            Op::Rewrite { at } => write!(f, "rewrite {}", Short(*at)),
            Op::Zero { at } => write!(f, "zero {}", Short(*at)),
            Op::WriteZeroes { at } => write!(f, "write-zeroes {}", Short(*at)),
            Op::Discard { at } => write!(f, "discard {}", Short(*at)),
            Op::Flush => f.write_str("flush"),
            Op::Read { snap: None, at } => write!(f, "read {}", Short(*at)),
            Op::Read { snap: Some(snap), at } => write!(f, "read {snap} {}", Short(*at)),
            Op::Take { label, wait } => write!(f, "take {label}{}", unwaited(wait)),
            Op::Delete { label, wait } => write!(f, "delete {label}{}", unwaited(wait)),
            Op::Wait => f.write_str("wait"),
            Op::Concurrent(ops) => {
                let ops: Vec<String> = ops.iter().map(Op::to_string).collect();
                write!(f, "({})", ops.join(" + "))
            }
            Op::Rollback { label } => write!(f, "rollback {label}"),
            Op::Resize { len } => write!(f, "resize {len}"),
            Op::Restart { clean: true } => f.write_str("restart"),
            Op::Restart { clean: false } => f.write_str("kill"),
            Op::Clone { label, volume } => write!(f, "clone {label} as {volume}"),
            Op::CreateVolume { volume, same_id: false } => write!(f, "create {volume}"),
            Op::CreateVolume { volume, same_id: true } => {
                write!(f, "create {volume} with the same id")
            }
            Op::DeleteVolume { volume } => write!(f, "delete volume {volume}"),
            Op::On { volume, op } => write!(f, "on {volume}: {op}"),
            Op::Diff { snap, base, from, between_pages } => {
                pair(f, "diff", *snap, *base)?;
                if *from > Lba::new(0) {
                    write!(f, " from {from}")?;
                }
                match between_pages {
                    Some((page, op)) => write!(f, " with {op} after page {page}"),
                    None => Ok(()),
                }
            }
            Op::Sync { snap, base, during, .. } => {
                pair(f, "sync", *snap, *base)?;
                during.iter().try_for_each(|op| write!(f, " during {op}"))
            }
            Op::SyncChain { to } => write!(f, "sync chain to {to}"),
            Op::Check(check) => write!(f, "check {check}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_inside_others_are_visited_after_what_holds_them() {
        let write = |at| Op::Write { at: Extent::lbas(at, 1) };
        let read = Op::Read { snap: None, at: Extent::lbas(3, 1) };
        let on = Op::On { volume: Role::Neighbour, op: Box::new(write(2)) };
        let between_pages = Some((1, Box::new(read.clone())));
        let (snap, base, from) = (Label(1), None, Lba::new(0));
        let diff = Op::Diff { snap, base, from, between_pages };
        let from = SyncSource::Live;
        let sync = Op::Sync { snap, base, from, during: vec![Op::Concurrent(vec![write(1), on])] };
        let mut all = Op::Concurrent(vec![sync, diff, Op::Flush]);
        let (mut places, mut changed) = (Vec::new(), Vec::new());
        all.each(&mut |op| {
            places.extend(op.touches());
            changed.extend(op.changes());
        });
        assert_eq!(places, [1, 2, 3].map(|at| Extent::lbas(at, 1)));
        assert_eq!(changed, places[..2], "a read changes nothing");
        all.each_mut(&mut |op| {
            if let Some(at) = op.touches_mut() {
                *at = Extent::lbas(9, 2);
            }
        });
        let mut moved = 0;
        all.each(&mut |op| moved += u32::from(op.touches() == Some(Extent::lbas(9, 2))));
        assert_eq!(moved, 3);
    }

    #[test]
    fn operations_print_as_on_the_findings_screen() {
        let diff = Op::Diff {
            snap: Label(1),
            base: Some(Label(0)),
            from: Lba::default(),
            between_pages: None,
        };
        assert_eq!(diff.to_string(), "diff s1 base s0");
        assert_eq!(Op::Discard { at: Extent::lbas(64, 8) }.to_string(), "discard 64+8");
        let racing = Op::Concurrent(vec![
            Op::Take { label: Label(1), wait: true },
            Op::Write { at: Extent::lbas(0, 1) },
        ]);
        assert_eq!(racing.to_string(), "(take s1 + write 0+1)");
    }
}
