//! What a row of the suite writes its operations into. Not covered: running it.

use crate::block::{Extent, Lba, LbaCount};
use crate::scenario::{Check, Label, Op, SyncSource};

/// The operations of one test, in the making.
#[derive(Debug)]
pub struct Plan {
    ops: Vec<Op>,
    labels: u32,
    source: SyncSource,
    min_mib_per_s: u32,
}

impl Plan {
    /// An empty plan for a target whose syncs read from `source`.
    pub fn new(source: SyncSource, min_mib_per_s: u32) -> Plan {
        Plan { ops: Vec::new(), labels: 0, source, min_mib_per_s }
    }
    /// The finished list.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }
    /// The speed the timed sync must reach.
    pub(super) fn min_mib_per_s(&self) -> u32 {
        self.min_mib_per_s
    }
    pub(super) fn write(&mut self, at: Extent) {
        self.ops.push(Op::Write { at });
    }
    pub(super) fn zero(&mut self, at: Extent) {
        self.ops.push(Op::Zero { at });
    }
    /// Takes a snapshot and waits for it. Writes before it are flushed first: what is not durable
    /// need not be in it.
    pub(super) fn take(&mut self) -> Label {
        if matches!(self.ops.last(), Some(Op::Write { .. } | Op::Zero { .. })) {
            self.ops.push(Op::Flush);
        }
        let label = Label(self.labels);
        self.labels += 1;
        self.ops.push(Op::Take { label, wait: true });
        label
    }
    pub(super) fn delete(&mut self, label: Label) {
        self.ops.push(Op::Delete { label, wait: true });
    }
    pub(super) fn diff(&mut self, snap: Label, base: impl Into<Option<Label>>) {
        self.ops.push(Op::Diff { snap, base: base.into(), from: Lba::new(0), between_pages: None });
    }
    pub(super) fn sync(&mut self, snap: Label, base: impl Into<Option<Label>>) {
        self.ops.push(Op::Sync { snap, base: base.into(), from: self.source, during: Vec::new() });
    }
    pub(super) fn check(&mut self, check: Check) {
        self.ops.push(Op::Check(check));
    }
    pub(super) fn reported(&mut self, at: Extent) {
        self.check(Check::Reported { at });
    }
    pub(super) fn not_reported(&mut self, at: Extent) {
        self.check(Check::NotReported { at });
    }
    pub(super) fn synced(&mut self, at: Extent) {
        self.check(Check::Synced { at });
    }
    /// The region's own size, give or take `tolerance_permille`, was copied.
    pub(super) fn synced_about(&mut self, lbas: LbaCount, tolerance_permille: u16) {
        self.check(Check::SyncedAbout { lbas, tolerance_permille });
    }
}
