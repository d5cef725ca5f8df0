//! What the judge knows of the volumes: for each LBA the list of everything that ever touched it,
//! with the time it was asked for and the time it was acknowledged. What an LBA holds at a cut is
//! worked out from that list each time it is asked for (`oracle.md`, sections 1 to 4).
//!
//! Not covered: volumes of which a recording touches more than [`LBAS_MAX`] LBAs.

use super::possible::{Possible, Value};
use crate::block::{
    BlockSize, Capabilities, CloneFullDiff, DiscardEffect, Durability, Extent, Geometry, LbaCount,
    Role,
};
use crate::scenario::{Label, Op};
use std::collections::BTreeMap;

/// Counts operations. What is in flight together has the same time.
pub(super) type Time = u64;

/// Later than everything.
const NEVER: Time = Time::MAX;

/// LBAs with a record of their own, over all volumes, at most.
pub(super) const LBAS_MAX: usize = 1 << 23;

/// The recording is too large for a judge of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {LBAS_MAX} LBAs are touched, too many for a judge with a record for each")]
pub struct TooLarge;

/// Something that touched one LBA.
#[derive(Clone, Debug)]
pub(super) struct Touch {
    invoked: Time,
    acked: Time,
    /// What it left there; nothing new if absent.
    leaves: Option<Possible>,
    /// Whether it certainly took place.
    certain: bool,
    /// Whether it stands for what a clone took over from its parent.
    inherited: bool,
    /// Whether it is none, but what reading showed.
    read: bool,
}

impl Touch {
    /// Something that took place at `now` for certain.
    fn at(now: Time, leaves: Option<Possible>) -> Touch {
        let (invoked, acked) = (now, now);
        Touch { invoked, acked, leaves, certain: true, inherited: false, read: false }
    }
}

/// The moment at which a snapshot was cut lies between the two, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) from: Time,
    pub(super) to: Time,
}

impl Touch {
    /// Acknowledged before the snapshot was asked for.
    fn surely_in(&self, cut: Cut) -> bool {
        self.acked < cut.from
    }
    /// Asked for after the snapshot was there.
    fn surely_out(&self, cut: Cut) -> bool {
        self.invoked > cut.to
    }
}

/// A volume, alive or not.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    role: Role,
    pub(super) len: u64,
    pub(super) fresh: bool,
    pub(super) is_clone: bool,
    block: BlockSize,
    initial: Possible,
    lbas: BTreeMap<u64, Vec<Touch>>,
    /// Of rollbacks, when.
    pub(super) rollbacks: Vec<Time>,
    flushed: Time,
    /// Counts what could change an answer about it.
    pub(super) version: u64,
}

impl Volume {
    fn new(number: usize, role: Role, shape: Geometry) -> Volume {
        let initial = if shape.fresh { Value::Zero } else { Value::Old(number) };
        Volume {
            role,
            len: shape.len.get(),
            fresh: shape.fresh,
            is_clone: false,
            block: shape.block,
            initial: Possible::one(initial),
            lbas: BTreeMap::new(),
            rollbacks: Vec::new(),
            flushed: 0,
            version: 0,
        }
    }

    fn touches(&self, lba: u64) -> &[Touch] {
        self.lbas.get(&lba).map_or(&[], Vec::as_slice)
    }

    /// The LBAs that were ever touched.
    pub(super) fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.lbas.keys().copied()
    }

    /// What the LBA may hold at a cut: what any operation left that could be the last one before
    /// it. An operation is not the last one if another was asked for after it was acknowledged, and
    /// certainly took place before the cut.
    pub(super) fn contents(&self, lba: u64, cut: Cut) -> Possible {
        let could: Vec<&Touch> = self
            .touches(lba)
            .iter()
            .filter(|touch| touch.leaves.is_some() && !touch.surely_out(cut))
            .collect();
        let sure = |touch: &&&Touch| touch.certain && touch.surely_in(cut);
        let last = could.iter().filter(sure).map(|touch| touch.invoked).max();
        let mut all = match last {
            None => Some(self.initial.clone()),
            Some(_) => None,
        };
        for touch in could {
            if last.is_none_or(|last| last <= touch.acked)
                && let Some(leaves) = &touch.leaves
            {
                all = Some(all.map_or_else(|| leaves.clone(), |all| all.or(leaves)));
            }
        }
        all.unwrap_or(Possible::ANYTHING)
    }

    /// Whether anything could have touched the LBA after the one cut (since creation if absent) and
    /// before the other.
    pub(super) fn could_be_touched(
        &self,
        lba: u64,
        since: Option<Cut>,
        cut: Cut,
        full: CloneFullDiff,
    ) -> bool {
        let inherits = since.is_none() && full != CloneFullDiff::SinceClone;
        let counts = |touch: &&Touch| !touch.read && (inherits || !touch.inherited);
        self.touches(lba).iter().filter(counts).any(|touch| {
            !since.is_some_and(|since| touch.surely_in(since)) && !touch.surely_out(cut)
        })
    }

    /// What the LBA held when the volume came into being as a clone.
    pub(super) fn at_birth(&self, lba: u64) -> Possible {
        let taken_over = self.touches(lba).iter().find(|touch| touch.inherited);
        taken_over.and_then(|touch| touch.leaves.clone()).unwrap_or_else(|| self.initial.clone())
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Of which volume, by number.
    pub(super) volume: usize,
    pub(super) cut: Cut,
    pub(super) len: u64,
    pub(super) deleted: bool,
    /// Whether it is known to be where it was to go: Available, or gone.
    pub(super) settled: bool,
    /// What reading it showed.
    seen: BTreeMap<u64, Possible>,
}

impl Snapshot {
    /// The LBAs that reading it showed.
    pub(super) fn known(&self) -> impl Iterator<Item = u64> + '_ {
        self.seen.keys().copied()
    }
}

/// Everything there is.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) capabilities: Capabilities,
    pub(super) volumes: Vec<Volume>,
    pub(super) roles: BTreeMap<Role, usize>,
    pub(super) snapshots: BTreeMap<Label, Snapshot>,
    /// Labels in the order taken.
    pub(super) order: Vec<Label>,
    /// Of kills of the target, when.
    pub(super) kills: Vec<Time>,
    now: Time,
    /// Whether what is done now is in flight together.
    together: bool,
    /// LBAs of a volume that the step wrote without being allowed to.
    strays: Vec<(usize, Vec<u64>)>,
    unnumbered: u64,
    records: usize,
}

fn each(at: Extent) -> std::ops::Range<u64> {
    at.start().get()..at.end().get()
}

impl World {
    pub(super) fn new(volumes: &BTreeMap<Role, Geometry>, capabilities: Capabilities) -> World {
        let made = (0..).zip(volumes);
        let made = made.map(|(number, (role, shape))| Volume::new(number, *role, *shape));
        World {
            capabilities,
            volumes: made.collect(),
            roles: volumes.keys().copied().zip(0..).collect(),
            snapshots: BTreeMap::new(),
            order: Vec::new(),
            kills: Vec::new(),
            now: 0,
            together: false,
            strays: Vec::new(),
            unnumbered: 0,
            records: 0,
        }
    }

    /// Another scenario on the same volumes: labels are named anew.
    pub(super) fn begin_again(&mut self) -> Result<(), TooLarge> {
        self.forget_strays()?;
        self.snapshots.clear();
        self.order.clear();
        self.together = false;
        Ok(())
    }

    /// A step begins; what it holds may be in flight together.
    pub(super) fn begin_step(&mut self, together: bool) -> Result<(), TooLarge> {
        self.together = false;
        self.forget_strays()?;
        self.tick();
        self.together = together;
        Ok(())
    }

    /// What a copy wrote beside its answer was held against what was there before; from then on
    /// nobody knows what it left.
    fn forget_strays(&mut self) -> Result<(), TooLarge> {
        let strays = std::mem::take(&mut self.strays);
        let mut each = strays.into_iter();
        each.try_for_each(|(volume, lbas)| {
            self.touch_all(volume, lbas, |_, _| Some(Possible::ANYTHING))
        })
    }

    fn tick(&mut self) -> Time {
        if !self.together {
            self.now += 1;
        }
        self.now
    }

    pub(super) fn of_role(&self, role: Role) -> Option<&Volume> {
        self.volumes.get(*self.roles.get(&role)?)
    }

    /// The number of blocks of a write, one that no write has if it has none.
    fn number(&mut self, generation: Option<u64>) -> u64 {
        generation.unwrap_or_else(|| {
            self.unnumbered += 1;
            u64::MAX - self.unnumbered
        })
    }

    /// What a snapshot holds at an LBA.
    pub(super) fn contents(&self, snapshot: &Snapshot, lba: u64) -> Possible {
        if let Some(seen) = snapshot.seen.get(&lba) {
            return seen.clone();
        }
        self.volumes
            .get(snapshot.volume)
            .map_or(Possible::ANYTHING, |volume| volume.contents(lba, snapshot.cut))
    }

    /// What a volume may hold now.
    pub(super) fn live(&self, role: Role, lba: u64) -> Possible {
        let now = Cut { from: self.now + u64::from(!self.together), to: NEVER };
        self.of_role(role).map_or(Possible::ANYTHING, |volume| volume.contents(lba, now))
    }

    fn touch(&mut self, volume: usize, lba: u64, touch: Touch) -> Result<(), TooLarge> {
        let Some(volume) = self.volumes.get_mut(volume) else { return Ok(()) };
        let touches = volume.lbas.entry(lba).or_insert_with(|| {
            self.records += 1;
            Vec::with_capacity(1)
        });
        touches.push(touch);
        if self.records > LBAS_MAX { Err(TooLarge) } else { Ok(()) }
    }

    /// Something certain happened to these LBAs now; `leaves` tells what it left at each.
    fn touch_all(
        &mut self,
        volume: usize,
        lbas: impl IntoIterator<Item = u64>,
        leaves: impl Fn(&World, u64) -> Option<Possible>,
    ) -> Result<(), TooLarge> {
        let now = self.tick();
        if let Some(volume) = self.volumes.get_mut(volume) {
            volume.version += 1;
        }
        for lba in lbas {
            let leaves = leaves(self, lba);
            self.touch(volume, lba, Touch::at(now, leaves))?;
        }
        Ok(())
    }

    /// An operation took effect.
    pub(super) fn apply(
        &mut self,
        role: Role,
        op: &Op,
        generation: Option<u64>,
    ) -> Result<(), TooLarge> {
        let own = self.roles.get(&role).copied().unwrap_or(usize::MAX);
        match op {
            Op::Write { at } => {
                let block = Possible::one(Value::Write(self.number(generation)));
                self.touch_all(own, each(*at), |_, _| Some(block.clone()))
            }
            Op::Rewrite { at } => {
                // It read and wrote back what somebody else may have replaced meanwhile.
                let together = self.together;
                self.touch_all(own, each(*at), |world, lba| together.then(|| world.live(role, lba)))
            }
            Op::Zero { at } | Op::WriteZeroes { at } => {
                self.touch_all(own, each(*at), |_, _| Some(Possible::one(Value::Zero)))
            }
            Op::Discard { at } => {
                let effect = self.capabilities.discard;
                self.touch_all(own, each(*at), |world, lba| match effect {
                    DiscardEffect::Zero => Some(Possible::one(Value::Zero)),
                    DiscardEffect::OldOrZero => {
                        Some(world.live(role, lba).or(&Possible::one(Value::Zero)))
                    }
                    DiscardEffect::Undefined => Some(Possible::ANYTHING),
                    DiscardEffect::Ignored => None,
                })
            }
            Op::Delete { label, wait } => {
                self.delete(*label, *wait);
                Ok(())
            }
            Op::Wait => {
                self.settle();
                Ok(())
            }
            Op::Flush => {
                let now = self.tick();
                if let Some(volume) = self.volumes.get_mut(own) {
                    volume.flushed = now;
                }
                Ok(())
            }
            Op::Rollback { label } => self.roll_back(*label),
            Op::Resize { len } => self.resize(own, len.get()),
            Op::Restart { clean } => self.restart(*clean),
            Op::Clone { label, volume } => self.clone_volume(*label, *volume),
            Op::CreateVolume { volume, .. } => {
                self.create(*volume);
                Ok(())
            }
            Op::DeleteVolume { volume } => {
                self.tick();
                let gone = self.roles.remove(volume);
                if let Some(volume) = gone.and_then(|own| self.volumes.get_mut(own)) {
                    volume.version += 1;
                }
                Ok(())
            }
            // They hold others, which are told one by one, are told of otherwise, or change nothing.
            Op::Take { .. }
            | Op::On { .. }
            | Op::Concurrent(_)
            | Op::Read { .. }
            | Op::Diff { .. }
            | Op::Sync { .. }
            | Op::SyncChain { .. }
            | Op::Check(_) => Ok(()),
        }
    }

    /// An operation failed: it took place at each LBA or not, and if it is late it may yet do so at
    /// any time, until something keeps it from that.
    pub(super) fn fail(
        &mut self,
        role: Role,
        op: &Op,
        generation: Option<u64>,
        late: bool,
    ) -> Result<(), TooLarge> {
        let invoked = self.tick();
        let Some(own) = self.roles.get(&role).copied() else { return Ok(()) };
        let Some(volume) = self.volumes.get_mut(own) else { return Ok(()) };
        volume.version += 1;
        let whole = u64::from(self.capabilities.atomic_write_bytes) >= volume.block.get() as u64;
        let zero = Some(Possible::one(Value::Zero));
        let (at, leaves) = match op {
            Op::Write { at } => (at, Some(Possible::one(Value::Write(self.number(generation))))),
            Op::Zero { at } | Op::WriteZeroes { at } => (at, zero),
            Op::Rewrite { at } => (at, None),
            Op::Discard { at } => match self.capabilities.discard {
                DiscardEffect::Zero | DiscardEffect::OldOrZero => (at, zero),
                DiscardEffect::Undefined => (at, Some(Possible::ANYTHING)),
                DiscardEffect::Ignored => (at, None),
            },
            _ => return Ok(()),
        };
        // A block that is written in parts may be torn.
        let leaves = if whole { leaves } else { Some(Possible::ANYTHING) };
        // Bytes that are there already change nothing whenever they come.
        let acked = if late && leaves.is_some() { NEVER } else { invoked };
        for lba in each(*at) {
            let leaves = leaves.clone();
            let touch = Touch { acked, certain: false, ..Touch::at(invoked, leaves) };
            self.touch(own, lba, touch)?;
        }
        Ok(())
    }

    /// Nobody knows what these LBAs hold.
    pub(super) fn forget(&mut self, role: Role, at: Extent) -> Result<(), TooLarge> {
        let Some(own) = self.roles.get(&role).copied() else { return Ok(()) };
        self.touch_all(own, each(at), |_, _| Some(Possible::ANYTHING))
    }

    /// A snapshot is asked for; it is cut at any time from now on.
    pub(super) fn ask_for(&mut self, role: Role, label: Label) {
        let from = self.tick();
        let Some(volume) = self.roles.get(&role).copied() else { return };
        let Some(of) = self.volumes.get_mut(volume) else { return };
        of.version += 1;
        let (len, deleted, settled, seen) = (of.len, false, false, BTreeMap::new());
        let cut = Cut { from, to: NEVER };
        self.snapshots.insert(label, Snapshot { volume, cut, len, deleted, settled, seen });
        self.order.push(label);
    }

    /// A snapshot is Available: what comes from now on is after its cut.
    pub(super) fn available(&mut self, label: Label) {
        if let Some(snapshot) = self.snapshots.get_mut(&label) {
            snapshot.settled = true;
            snapshot.cut.to = snapshot.cut.to.min(self.now);
        }
        self.now += 1;
    }

    fn delete(&mut self, label: Label, settled: bool) {
        self.tick();
        let Some(snapshot) = self.snapshots.get_mut(&label) else { return };
        (snapshot.deleted, snapshot.settled) = (true, settled);
        if let Some(volume) = self.volumes.get_mut(snapshot.volume) {
            volume.version += 1;
        }
    }

    /// Everything that was on its way has arrived.
    fn settle(&mut self) {
        let now = self.tick();
        for snapshot in self.snapshots.values_mut() {
            snapshot.settled = true;
            snapshot.cut.to = snapshot.cut.to.min(now);
        }
    }

    /// Whatever could have been done since the snapshot is taken back.
    fn roll_back(&mut self, label: Label) -> Result<(), TooLarge> {
        let Some(snapshot) = self.snapshots.get(&label).cloned() else { return Ok(()) };
        let Some(volume) = self.volumes.get(snapshot.volume) else { return Ok(()) };
        let mut moved: Vec<u64> = volume
            .touched()
            .filter(|lba| volume.touches(*lba).iter().any(|touch| !touch.surely_in(snapshot.cut)))
            .collect();
        moved.extend(volume.len.min(snapshot.len)..volume.len.max(snapshot.len));
        moved.sort_unstable();
        moved.dedup();
        let zeroes = self.capabilities.shrink_zeroes;
        self.touch_all(snapshot.volume, moved, |world, lba| {
            Some(match lba < snapshot.len {
                true => world.contents(&snapshot, lba),
                false => gone(zeroes),
            })
        })?;
        let now = self.now;
        if let Some(volume) = self.volumes.get_mut(snapshot.volume) {
            volume.len = snapshot.len;
            volume.rollbacks.push(now);
        }
        Ok(())
    }

    fn resize(&mut self, own: usize, len: u64) -> Result<(), TooLarge> {
        let Some(volume) = self.volumes.get(own) else { return Ok(()) };
        let (short, long) = (volume.len.min(len), volume.len.max(len));
        if long - short > LBAS_MAX as u64 {
            return Err(TooLarge);
        }
        let zeroes = self.capabilities.shrink_zeroes;
        self.touch_all(own, short..long, |_, _| Some(gone(zeroes)))?;
        if let Some(volume) = self.volumes.get_mut(own) {
            volume.len = len;
        }
        Ok(())
    }

    /// What was not yet acknowledged will not come any more; what was not yet durable may be lost.
    fn restart(&mut self, clean: bool) -> Result<(), TooLarge> {
        let now = self.tick();
        for volume in &mut self.volumes {
            let open = |touch: &&mut Touch| touch.acked == NEVER;
            let touches = volume.lbas.values_mut().flatten();
            touches.filter(open).for_each(|touch| touch.acked = now);
        }
        let all = self.volumes.iter_mut();
        if clean {
            all.for_each(|volume| volume.flushed = now);
            return Ok(());
        }
        self.kills.push(now);
        if self.capabilities.durable == Durability::OnAck {
            return Ok(());
        }
        (0..self.volumes.len()).try_for_each(|number| self.lose_unflushed(number))
    }

    /// A flush failed.
    pub(super) fn flush_failed(&mut self, role: Role) -> Result<(), TooLarge> {
        self.tick();
        match self.roles.get(&role).copied() {
            Some(own) => self.lose_unflushed(own),
            None => Ok(()),
        }
    }

    /// Each LBA holds what it held at the last good flush or anything that it got since; anything at
    /// all if it was promised to be durable at once.
    fn lose_unflushed(&mut self, number: usize) -> Result<(), TooLarge> {
        let now = self.now;
        let broken = self.capabilities.durable == Durability::OnAck;
        let Some(volume) = self.volumes.get_mut(number) else { return Ok(()) };
        volume.version += 1;
        let flushed = Cut { from: volume.flushed + 1, to: volume.flushed };
        let may_be_lost: Vec<(u64, Possible)> = volume
            .lbas
            .iter()
            .filter(|(_, touches)| touches.iter().any(|touch| !touch.surely_in(flushed)))
            .map(|(lba, touches)| {
                let since = touches.iter().filter(|touch| !touch.surely_in(flushed));
                let leaves = since.filter_map(|touch| touch.leaves.as_ref());
                (*lba, leaves.fold(volume.contents(*lba, flushed), Possible::or))
            })
            .collect();
        // Flushing again proves nothing: what is not certain now stays so.
        volume.flushed = now;
        for (lba, values) in may_be_lost {
            let leaves = Some(if broken { Possible::ANYTHING } else { values });
            self.touch(number, lba, Touch::at(now, leaves))?;
        }
        Ok(())
    }

    fn clone_volume(&mut self, label: Label, role: Role) -> Result<(), TooLarge> {
        let now = self.tick();
        let Some(snapshot) = self.snapshots.get(&label).cloned() else { return Ok(()) };
        let Some(parent) = self.volumes.get(snapshot.volume) else { return Ok(()) };
        let shape =
            Geometry { block: parent.block, len: LbaCount::new(snapshot.len), fresh: parent.fresh };
        let mut made = Volume::new(self.volumes.len(), role, shape);
        (made.is_clone, made.initial, made.flushed) = (true, parent.initial.clone(), now);
        let before = |lba: &u64| {
            let touches = parent.touches(*lba);
            *lba < snapshot.len && touches.iter().any(|touch| !touch.surely_out(snapshot.cut))
        };
        let taken_over: Vec<u64> = parent.touched().filter(before).collect();
        let number = self.volumes.len();
        self.volumes.push(made);
        self.roles.insert(role, number);
        for lba in taken_over {
            let leaves = Some(self.contents(&snapshot, lba));
            self.touch(number, lba, Touch { inherited: true, ..Touch::at(now, leaves) })?;
        }
        Ok(())
    }

    /// A new volume is as long as the source is, or was.
    fn create(&mut self, role: Role) {
        self.tick();
        let source = self.volumes.iter().rev().find(|volume| volume.role == Role::Source);
        let like = self.of_role(Role::Source).or(source);
        let Some((len, block)) = like.map(|volume| (volume.len, volume.block)) else { return };
        let number = self.volumes.len();
        let shape = Geometry { block, len: LbaCount::new(len), fresh: true };
        self.volumes.push(Volume::new(number, role, shape));
        self.roles.insert(role, number);
    }

    /// A sync brought these LBAs to the target, and wrote those others besides.
    pub(super) fn copied(
        &mut self,
        from: Option<Label>,
        copied: &[u64],
        strays: &[u64],
    ) -> Result<(), TooLarge> {
        let Some(target) = self.roles.get(&Role::Target).copied() else { return Ok(()) };
        let source = from.and_then(|label| self.snapshots.get(&label).cloned());
        self.touch_all(target, copied.iter().copied(), |world, lba| {
            Some(match &source {
                Some(snapshot) => world.contents(snapshot, lba),
                None => world.live(Role::Source, lba),
            })
        })?;
        if !strays.is_empty() {
            self.strays.push((target, strays.to_vec()));
        }
        Ok(())
    }

    /// A block of a snapshot was read: that is what it holds and will ever hold.
    pub(super) fn seen_in(&mut self, label: Label, lba: u64, value: Value) {
        if let Some(snapshot) = self.snapshots.get_mut(&label) {
            snapshot.seen.insert(lba, Possible::one(value));
        }
    }

    /// Blocks of a volume are about to be told that were read now.
    pub(super) fn begin_reading(&mut self) {
        self.now += 1;
    }

    /// A block of a volume was read. Where a request may still land it tells nothing about later.
    pub(super) fn seen_live(&mut self, role: Role, lba: u64, value: Value) -> Result<(), TooLarge> {
        let Some(own) = self.roles.get(&role).copied() else { return Ok(()) };
        let now = self.now;
        let Some(volume) = self.volumes.get(own) else { return Ok(()) };
        let open = volume.touches(lba).iter().any(|touch| touch.acked == NEVER);
        let known =
            volume.contents(lba, Cut { from: now, to: NEVER }).is_surely(&Possible::one(value));
        if open || known || volume.touches(lba).is_empty() {
            return Ok(());
        }
        self.touch(own, lba, Touch { read: true, ..Touch::at(now, Some(Possible::one(value))) })
    }
}

/// What an LBA holds that was given up and taken back.
fn gone(zeroes: bool) -> Possible {
    if zeroes { Possible::one(Value::Zero) } else { Possible::ANYTHING }
}
