//! The walk of coverage over one scenario: remembers in fixed arrays what each LBA of the source was,
//! and of the snapshots just enough to tell how an operation stands to them.
//!
//! LBAs that are a multiple of 4096 apart share a place, which only volumes that large can notice.
//! Not covered: contents, and every volume's blocks but the source's.

use super::coverage::{Tally, cell};
use super::coverage_cells::{Bits, Block, Did, Relation, Upset};
use super::goals::Goal;
use super::world::place;
use crate::block::{CHUNK_LBAS, Extent, Role};
use crate::scenario::{Header, Label, Op, Scenario, Step, SyncSource};

/// LBAs that are told apart.
const LBAS: usize = 4096;
/// Snapshots that are remembered; a case of the generator has 24 at most.
const SNAPS: usize = 64;

/// What is known of an LBA: valid only in the case that wrote it.
#[derive(Clone, Copy, Default)]
struct Lately {
    case: u32,
    epoch: u16,
    /// In how many epochs it was changed.
    epochs: u8,
    hole: bool,
}

#[derive(Clone, Copy)]
struct Snap {
    label: Label,
    role: Role,
    alive: bool,
    /// Its place among the snapshots of its volume.
    order: u16,
    /// Changes of the source before it.
    changes: u32,
    /// Number of the last rollback and the last resize before it.
    moved: (u16, u16),
    /// Its cut was raced by something in flight.
    raced: bool,
    /// Something was changed while it was in the making.
    late: bool,
    /// The volume's incarnation.
    incarnation: u8,
}

/// The state of a walk; reused for every case.
#[derive(Clone)]
pub(super) struct Walk {
    lbas: Box<[Lately; LBAS]>,
    case: u32,
    snaps: Vec<Snap>,
    now: Now,
}

/// What a case starts with anew.
#[derive(Clone, Copy)]
struct Now {
    len: u64,
    epoch: u16,
    changes: u32,
    unflushed: bool,
    last: Extent,
    last_did: Option<Did>,
    /// Changed chunks, by number modulo 128.
    chunks: u128,
    creating: bool,
    deleting: bool,
    deleted: bool,
    upset: (Upset, u16),
    moved: (u16, u16),
    shrunk: bool,
    grown_from: Option<u64>,
    fault: bool,
    target_dirty: bool,
    clone_written: bool,
    neighbour_at: u16,
    incarnation: [u8; 4],
    last_question: Option<(Label, Option<Label>)>,
    last_sync: Option<(Label, Option<Label>)>,
}

impl Now {
    const fn new(len: u64) -> Now {
        Now {
            len,
            epoch: 0,
            changes: 0,
            unflushed: false,
            last: Extent::lbas(0, 1),
            last_did: None,
            chunks: 0,
            creating: false,
            deleting: false,
            deleted: false,
            upset: (Upset::Nothing, 0),
            moved: (0, 0),
            shrunk: false,
            grown_from: None,
            fault: false,
            target_dirty: false,
            clone_written: false,
            neighbour_at: 0,
            incarnation: [0; 4],
            last_question: None,
            last_sync: None,
        }
    }
}

impl Default for Walk {
    fn default() -> Walk {
        let lbas = Box::new([Lately::default(); LBAS]);
        Walk { lbas, case: 0, snaps: Vec::with_capacity(SNAPS), now: Now::new(0) }
    }
}

fn slot(lba: u64) -> usize {
    usize::try_from(lba % LBAS as u64).unwrap_or(0)
}

impl Walk {
    pub(super) fn run(&mut self, scenario: &Scenario, skipped: &[usize], tally: &mut Tally<'_>) {
        self.case = self.case.wrapping_add(1);
        if self.case == 0 {
            // After 2^32 cases old marks could be taken for new ones.
            *self.lbas = [Lately::default(); LBAS];
            self.case = 1;
        }
        self.snaps.clear();
        let source = scenario.header.volumes.get(&Role::Source);
        self.now = Now::new(source.map_or(0, |shape| shape.len.get()));
        let mut skipped = skipped.iter().copied().peekable();
        for (index, step) in scenario.steps.iter().enumerate() {
            if skipped.next_if_eq(&index).is_none() {
                self.step(&scenario.header, step, tally);
            }
        }
    }

    fn step(&mut self, header: &Header, step: &Step, tally: &mut Tally<'_>) {
        if step.fault.is_some() {
            tally.goal_if(Goal::SyncWithShortWrite, matches!(step.op, Op::Sync { .. }));
            self.now.fault = true;
            let before = self.now.upset;
            self.now.upset = (Upset::Fault, self.now.epoch);
            self.op(header, &step.op, None, tally);
            self.now.upset = before;
        } else {
            self.op(header, &step.op, None, tally);
        }
    }

    fn op(&mut self, header: &Header, op: &Op, around: Option<Relation>, tally: &mut Tally<'_>) {
        match op {
            Op::Write { at } => self.change(header, Did::Write, *at, around, tally),
            Op::Rewrite { at } => self.change(header, Did::Rewrite, *at, around, tally),
            Op::Zero { at } => self.change(header, Did::Zero, *at, around, tally),
            Op::WriteZeroes { at } => self.change(header, Did::WriteZeroes, *at, around, tally),
            Op::Discard { at } => self.change(header, Did::Discard, *at, around, tally),
            Op::Flush => self.now.unflushed = false,
            Op::Read { snap: None, at } => self.count_at(Did::Read, *at, around, tally),
            Op::Read { snap: Some(snap), at } => {
                self.count_at(Did::ReadSnap, *at, around, tally);
                let late = self.snap(*snap).is_some_and(|snap| snap.late || snap.raced);
                tally.goal_if(Goal::LateCutRead, late && header.freedoms.late_cut);
            }
            Op::Take { label, wait } => {
                self.count(Did::Take, around, tally);
                tally.goal_if(Goal::LateAvailable, header.freedoms.late_available);
                self.take(*label, Role::Source, around == Some(Relation::InCut), tally);
                // Whatever was in the making before it has settled.
                self.now.creating = !wait;
            }
            Op::Delete { label, wait } => self.delete(header, *label, *wait, around, tally),
            Op::Wait => (self.now.creating, self.now.deleting) = (false, false),
            Op::Concurrent(ops) => self.together(header, ops, tally),
            Op::Rollback { .. } => {
                self.count(Did::Rollback, around, tally);
                self.now.moved.0 += 1;
                self.now.changes += 1;
                self.now.upset = (Upset::Rollback, self.now.epoch);
            }
            Op::Resize { len } => self.resize(len.get(), around, tally),
            Op::Restart { clean } => self.restart(*clean, tally),
            Op::Clone { .. } => self.now.clone_written = false,
            Op::CreateVolume { volume, .. } => self.now.incarnation[place(*volume)] += 1,
            Op::DeleteVolume { .. } | Op::Check(_) => {}
            Op::On { volume, op } => self.elsewhere(*volume, op, tally),
            Op::Diff { snap, base, from, between_pages } => {
                let did = match (from.get(), between_pages) {
                    (_, Some(_)) => Did::DiffBetween,
                    (0, None) => Did::Diff,
                    _ => Did::DiffFrom,
                };
                let inside = !from.get().is_multiple_of(CHUNK_LBAS) && {
                    let chunk = from.get() / CHUNK_LBAS;
                    self.now.chunks >> (chunk % 128) & 1 == 1
                };
                tally.goal_if(Goal::WalkFromInside, inside);
                self.ask(header, did, (*snap, *base), tally);
                if let Some((_, op)) = between_pages {
                    let change = !matches!(op.as_ref(), Op::Delete { .. } | Op::Take { .. });
                    tally.goal_if(Goal::WriteBetweenPages, change);
                    self.op(header, op, Some(Relation::BetweenPages), tally);
                }
            }
            Op::Sync { snap, base, from, during } => {
                let did = if *from == SyncSource::Live { Did::SyncLive } else { Did::Sync };
                self.ask(header, did, (*snap, *base), tally);
                tally.goal_if(Goal::SyncWithWriters, !during.is_empty());
                tally.goal_if(Goal::TargetDirtied, std::mem::take(&mut self.now.target_dirty));
                let pair = Some((*snap, *base));
                tally.goal_if(Goal::SyncRepeated, self.now.last_sync == pair);
                self.now.last_sync = pair;
                for op in during {
                    self.op(header, op, Some(Relation::Syncing), tally);
                }
            }
            Op::SyncChain { .. } => {
                let alive = |digits: std::ops::Range<u32>| {
                    self.snaps.iter().any(|snap| snap.alive && digits.contains(&snap.label.0))
                };
                tally.goal_if(Goal::ChainOutOfTextOrder, alive(2..10) && alive(10..20));
            }
        }
        self.now.last_did = did_of(op);
    }

    fn snap(&self, label: Label) -> Option<&Snap> {
        self.snaps.iter().rev().find(|snap| snap.label == label)
    }

    fn upset(&self) -> Upset {
        let (upset, epoch) = self.now.upset;
        if self.now.epoch.saturating_sub(epoch) <= 1 { upset } else { Upset::Nothing }
    }

    /// How something that asks about no pair stands to snapshots.
    fn relation(&self, around: Option<Relation>) -> Relation {
        let source = |snap: &Snap| snap.role == Role::Source;
        match around {
            Some(around) => around,
            None if self.now.deleting => Relation::Deleting,
            None if self.now.creating => Relation::Creating,
            None if self.snaps.iter().any(source) => Relation::Settled,
            None => Relation::NoSnapshot,
        }
    }

    fn block(&self, at: Extent) -> Block {
        let lately = self.lbas[slot(at.start().get())];
        match (lately.case == self.case, lately.hole, lately.epoch == self.now.epoch) {
            (false, ..) => Block::Untouched,
            (true, false, true) => Block::Data,
            (true, false, false) => Block::OldData,
            (true, true, true) => Block::Hole,
            (true, true, false) => Block::OldHole,
        }
    }

    fn count_at(&self, did: Did, at: Extent, around: Option<Relation>, tally: &mut Tally<'_>) {
        self.tell(did, at, self.relation(around), tally);
    }

    /// Counts what touches no blocks itself by the last change.
    fn count(&self, did: Did, around: Option<Relation>, tally: &mut Tally<'_>) {
        self.tell(did, self.now.last, self.relation(around), tally);
    }

    fn tell(&self, did: Did, at: Extent, relation: Relation, tally: &mut Tally<'_>) {
        let (block, bits) = (self.block(at), Bits::of(at, self.now.len));
        let cell = cell(did, block, bits, relation, self.upset());
        if cell.can_happen() {
            tally.cell(cell);
        }
    }

    fn change(
        &mut self,
        header: &Header,
        did: Did,
        at: Extent,
        around: Option<Relation>,
        tally: &mut Tally<'_>,
    ) {
        self.count_at(did, at, around, tally);
        let (start, end) = (at.start().get(), at.end().get());
        let now = &mut self.now;
        let tail = Bits::of(at, now.len) == Bits::Tail;
        tally.goal_if(Goal::TailWritten, did == Did::Write && tail);
        let single = at.len_lbas().get() == 1;
        tally.goal_if(Goal::Bit63Alone, did == Did::Write && single && start % CHUNK_LBAS == 63);
        tally.goal_if(Goal::AboveTwoToThe32, did == Did::Write && end > 1 << 32);
        let seam = start / CHUNK_LBAS != (end - 1) / CHUNK_LBAS;
        tally.goal_if(Goal::DiscardOverSeam, did == Did::Discard && seam);
        tally.goal_if(Goal::DiscardWhole, did == Did::Discard && start == 0 && end == now.len);
        tally.goal_if(Goal::WriteWhileCreating, now.creating);
        tally.goal_if(Goal::WriteWhileDeleting, now.deleting);
        tally.goal_if(Goal::ChunkRounded, header.freedoms.chunk_rounded);
        tally.goal_if(Goal::SameIdAgain, now.incarnation[place(Role::Source)] > 0);
        let above = now.grown_from.is_some_and(|len| start >= len);
        tally.goal_if(Goal::WriteAboveGrow, did == Did::Write && above);
        now.changes += 1;
        now.unflushed = true;
        now.last = at;
        if now.creating {
            let newest = self.snaps.iter_mut().rev().find(|snap| snap.role == Role::Source);
            if let Some(snap) = newest {
                snap.late = true;
            }
        }
        self.mark(header, did, at, tally);
    }

    fn mark(&mut self, header: &Header, did: Did, at: Extent, tally: &mut Tally<'_>) {
        let hole = matches!(did, Did::Zero | Did::WriteZeroes | Did::Discard);
        let block = self.block(at);
        tally.goal_if(Goal::HoleRefilled, did == Did::Write && block == Block::Hole);
        let data = matches!(block, Block::Data | Block::OldData);
        let elided = did == Did::Rewrite && data && header.freedoms.elide_same_content;
        tally.goal_if(Goal::ElidedRewrite, elided);
        let (epoch, case) = (self.now.epoch, self.case);
        let mut most = 0;
        let first = at.start().get();
        for lba in (first..at.end().get()).take(LBAS) {
            let lately = &mut self.lbas[slot(lba)];
            if lately.case != case {
                *lately = Lately { case, epoch, epochs: 1, hole };
            } else {
                lately.epochs = lately.epochs.saturating_add(u8::from(lately.epoch != epoch));
                (lately.epoch, lately.hole) = (epoch, hole);
            }
            most = most.max(lately.epochs);
        }
        tally.goal_if(Goal::ThreeEpochs, most >= 3);
        let chunks = first / CHUNK_LBAS..(at.end().get()).div_ceil(CHUNK_LBAS);
        for chunk in chunks.take(128) {
            self.now.chunks |= 1 << (chunk % 128);
        }
    }

    fn take(&mut self, label: Label, role: Role, raced: bool, tally: &mut Tally<'_>) {
        let order = self.snaps.iter().filter(|snap| snap.role == role).count();
        tally.goal_if(Goal::TenSnapshots, order >= 9);
        let snap = Snap {
            label,
            role,
            alive: true,
            order: u16::try_from(order).unwrap_or(u16::MAX),
            changes: self.now.changes,
            moved: self.now.moved,
            raced,
            late: false,
            incarnation: self.now.incarnation[place(role)],
        };
        if self.snaps.len() < SNAPS {
            self.snaps.push(snap);
        }
        if role == Role::Source {
            self.now.epoch = self.now.epoch.saturating_add(1);
        }
    }

    fn delete(
        &mut self,
        header: &Header,
        label: Label,
        wait: bool,
        around: Option<Relation>,
        tally: &mut Tally<'_>,
    ) {
        self.count(Did::Delete, around, tally);
        tally.goal_if(Goal::SlowDelete, header.freedoms.slow_delete);
        tally.goal_if(Goal::DeleteBetweenPages, around == Some(Relation::BetweenPages));
        if let Some(snap) = self.snaps.iter_mut().rev().find(|snap| snap.label == label) {
            snap.alive = false;
        }
        self.now.deleting |= !wait;
        self.now.deleted = true;
    }

    /// Operations in flight together.
    fn together(&mut self, header: &Header, ops: &[Op], tally: &mut Tally<'_>) {
        let cut = ops.iter().any(|op| matches!(op, Op::Take { .. }));
        let around = cut.then_some(Relation::InCut);
        for (place, op) in ops.iter().enumerate() {
            let at = op.changes();
            if cut {
                tally.goal_if(Goal::WriteInCut, matches!(op, Op::Write { .. }));
                tally.goal_if(Goal::DiscardInCut, matches!(op, Op::Discard { .. }));
            }
            let mut others = ops[place + 1..].iter().filter_map(Op::changes);
            let overlaps = at.is_some_and(|at| others.any(|other| other.overlaps(at)));
            tally.goal_if(Goal::OverlapInFlight, overlaps);
            self.op(header, op, around, tally);
        }
    }

    fn resize(&mut self, len: u64, around: Option<Relation>, tally: &mut Tally<'_>) {
        self.count(Did::Resize, around, tally);
        let now = &mut self.now;
        if len > now.len {
            tally.goal_if(Goal::ShrinkThenGrow, now.shrunk);
            now.grown_from = Some(now.len);
        }
        now.shrunk = len < now.len;
        now.len = len;
        now.moved.1 += 1;
        now.changes += 1;
        now.upset = (Upset::Resize, now.epoch);
    }

    fn restart(&mut self, clean: bool, tally: &mut Tally<'_>) {
        let now = &mut self.now;
        tally.goal_if(Goal::RestartAfterDelete, clean && now.deleted);
        tally.goal_if(Goal::FaultThenRestart, now.fault);
        if !clean {
            tally.goal_if(Goal::KillUnflushed, now.unflushed);
            let discarded = now.last_did == Some(Did::Discard);
            tally.goal_if(Goal::KillAfterDiscard, discarded && now.changes > 1);
            tally.goal_if(Goal::KillWhileCreating, now.creating);
        }
        now.unflushed = false;
        now.upset = (if clean { Upset::Restart } else { Upset::Kill }, now.epoch);
    }

    /// On another volume than the source.
    fn elsewhere(&mut self, volume: Role, op: &Op, tally: &mut Tally<'_>) {
        if let Op::Take { label, .. } = op {
            self.take(*label, volume, false, tally);
            return;
        }
        if op.changes().is_none() {
            return;
        }
        tally.goal_if(Goal::SameIdAgain, self.now.incarnation[place(volume)] > 0);
        match volume {
            Role::Clone => self.now.clone_written = true,
            Role::Target => self.now.target_dirty = true,
            Role::Neighbour => self.now.neighbour_at = self.now.epoch + 1,
            Role::Source => {}
        }
    }

    /// A question about a pair.
    fn ask(
        &mut self,
        header: &Header,
        did: Did,
        (snap, base): (Label, Option<Label>),
        tally: &mut Tally<'_>,
    ) {
        let Some(&newer) = self.snap(snap) else { return };
        let older = base.and_then(|base| self.snap(base)).copied();
        let relation = match older {
            _ if !newer.alive => Relation::Gone,
            None => Relation::Full,
            Some(older) if older.label == newer.label => Relation::Itself,
            Some(older) if !older.alive => Relation::Gone,
            Some(older) if (older.role, older.incarnation) != (newer.role, newer.incarnation) => {
                Relation::Foreign
            }
            Some(older) if older.order > newer.order => Relation::Reversed,
            Some(older) if older.order + 1 == newer.order => Relation::Adjacent,
            Some(_) => Relation::Far,
        };
        if newer.role == Role::Source {
            self.tell(did, self.now.last, relation, tally);
            self.source_goals(header, newer, older, relation, tally);
        }
        let own_clone = newer.role == Role::Clone && self.now.clone_written;
        tally.goal_if(Goal::CloneAsked, own_clone);
        tally.goal_if(Goal::DeletedBaseAsked, relation == Relation::Gone && newer.alive);
        tally.goal_if(Goal::ForeignBaseAsked, relation == Relation::Foreign);
        let question = Some((snap, base));
        tally.goal_if(Goal::AskedAgain, self.now.last_question == question);
        self.now.last_question = question;
    }

    fn source_goals(
        &self,
        header: &Header,
        newer: Snap,
        older: Option<Snap>,
        relation: Relation,
        tally: &mut Tally<'_>,
    ) {
        let pages = self.now.chunks.count_ones() > header.page_limit.unwrap_or(u32::MAX);
        if relation == Relation::Full {
            tally.goal_if(Goal::SeveralPages, pages);
            tally.goal_if(Goal::UnevenPages, pages && header.freedoms.uneven_pages);
            tally.goal_if(Goal::RepeatedEdges, pages && header.freedoms.repeated_edges);
            let past = header.volumes.get(&Role::Source).is_some_and(|shape| !shape.fresh);
            tally.goal_if(Goal::OldVolumeScanned, past);
        }
        let Some(older) = older else { return };
        tally.goal_if(Goal::RacedCutAsked, newer.raced || older.raced);
        let between = newer.changes != older.changes;
        tally.goal_if(Goal::ReversedAsked, relation == Relation::Reversed && between);
        if matches!(relation, Relation::Adjacent | Relation::Far) {
            tally.goal_if(Goal::DiffAcrossRollback, newer.moved.0 != older.moved.0);
            tally.goal_if(Goal::DiffAcrossResize, newer.moved.1 != older.moved.1);
            tally.goal_if(Goal::FarBaseAsked, newer.order - older.order >= 4);
            let busy = self.now.neighbour_at.checked_sub(1);
            let inside = |epoch| epoch > older.order && epoch <= newer.order;
            tally.goal_if(Goal::NeighbourBusy, busy.is_some_and(inside));
        }
    }
}

const fn did_of(op: &Op) -> Option<Did> {
    match op {
        Op::Discard { .. } => Some(Did::Discard),
        Op::Write { .. } => Some(Did::Write),
        _ => None,
    }
}
