//! Operations and scenarios that tests of the engine are written in. Not covered: what they show.

use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role};
use crate::scenario::{Header, Label, Op, Scenario};

/// A scenario on new volumes of so many LBAs.
pub(in crate::engine) fn scenario(len: u64, ops: Vec<Op>) -> Scenario {
    let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(len), fresh: true };
    let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
    Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops)
}

pub(in crate::engine) fn write(at: u64, len: u64) -> Op {
    Op::Write { at: Extent::lbas(at, len) }
}

pub(in crate::engine) fn take(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}

pub(in crate::engine) fn diff(snap: u32, base: Option<u32>) -> Op {
    let (snap, base) = (Label(snap), base.map(Label));
    Op::Diff { snap, base, from: Lba::new(0), between_pages: None }
}
