//! Moves that change something: contents, snapshots, volumes, the array itself. Not covered:
//! whether a move is possible at that moment; the model decides that when it runs.

use super::entropy::Entropy;
use super::kind::Kind;
use super::world::SPARE_SNAPS;
use super::{Draw, Moved};
use crate::block::{CHUNK_LBAS, Extent, LbaCount, Role};
use crate::scenario::{Fault, Op, Step};

impl<E: Entropy> Draw<'_, E> {
    /// Makes a move that changes the contents of the source.
    pub(super) fn change(&mut self, kind: Kind) -> Moved {
        let role = Role::Source;
        if !self.state.exists(role) {
            return None;
        }
        let (state, entropy) = (&self.state, &mut *self.entropy);
        let mixed = |entropy: &mut E| match entropy.chance(1, 2) {
            true => state.again(entropy, role),
            false => state.anywhere(entropy, role),
        };
        let op = match kind {
            Kind::Write | Kind::WriteFaulty => Op::Write { at: state.anywhere(entropy, role) },
            Kind::WriteAgain => Op::Write { at: state.again(entropy, role) },
            Kind::WriteInside => Op::Write { at: state.inside(entropy, role) },
            Kind::WriteBeside => Op::Write { at: state.beside(entropy, role) },
            Kind::WriteSeam => Op::Write { at: state.seam(entropy, role) },
            Kind::WriteTail => Op::Write { at: state.tail(entropy, role) },
            Kind::WriteBig => Op::Write { at: state.big(entropy, role) },
            Kind::WriteHigh if state.sparse => Op::Write { at: state.high(entropy, role) },
            Kind::WriteAbove if state.vol(role).len > state.len_before_grow => {
                Op::Write { at: state.above(entropy) }
            }
            Kind::Rewrite => Op::Rewrite { at: mixed(entropy) },
            Kind::RewriteAgain => Op::Rewrite { at: state.last },
            Kind::Zero => Op::Zero { at: state.anywhere(entropy, role) },
            Kind::ZeroAgain => Op::Zero { at: state.again(entropy, role) },
            Kind::WriteZeroes => Op::WriteZeroes { at: mixed(entropy) },
            Kind::Discard => Op::Discard { at: state.anywhere(entropy, role) },
            Kind::DiscardAgain => Op::Discard { at: state.again(entropy, role) },
            Kind::DiscardAround => Op::Discard { at: state.around(entropy, role) },
            Kind::DiscardWhole => Op::Discard { at: state.whole(entropy, role) },
            _ => return None,
        };
        if let Some(at) = op.changes() {
            self.state.last = at;
        }
        self.state.vol_mut(role).changed = true;
        let fault =
            (kind == Kind::WriteFaulty).then(|| Fault { kind: "metadata".to_owned(), nth: 1 });
        self.steps.push(Step { op, fault });
        Some(())
    }

    /// One small change of the source's contents, to be put inside another operation.
    pub(super) fn small_change(&mut self, near: Option<Extent>) -> Op {
        let role = Role::Source;
        let at = near.unwrap_or_else(|| self.state.anywhere(self.entropy, role));
        self.state.last = at;
        self.state.vol_mut(role).changed = true;
        match self.entropy.below(6) {
            4 => Op::Zero { at },
            5 if self.profile.offers.has(super::Offers::DISCARD) => Op::Discard { at },
            _ => Op::Write { at },
        }
    }

    /// Takes a snapshot.
    pub(super) fn take(&mut self, role: Role, wait: bool, spare: usize) -> Moved {
        if !self.state.exists(role) || !self.state.has_room(spare) {
            return None;
        }
        self.settle(role);
        let label = self.state.take(self.entropy, role);
        if !wait {
            self.state.unsettled = true;
            self.state.creating = Some(role);
        }
        self.push_on(role, Op::Take { label, wait })
    }

    /// Waits if a snapshot of `role` may still be in the making: an array makes one at a time.
    pub(super) fn settle(&mut self, role: Role) {
        if self.state.creating == Some(role) {
            (self.state.creating, self.state.unsettled) = (None, false);
            self.push(Op::Wait);
        }
    }

    /// Deletes the `nth` snapshot.
    pub(super) fn delete(&mut self, nth: usize, wait: bool) -> Moved {
        let role = self.state.snaps()[nth].role;
        let label = self.state.delete(nth);
        self.state.unsettled |= !wait;
        self.push_on(role, Op::Delete { label, wait })
    }

    /// Makes a move on snapshots: takes, deletes, waits.
    pub(super) fn snapshots(&mut self, kind: Kind) -> Moved {
        let (found, count) = self.state.usable(Role::Source);
        let at = |nth: usize| usize::from(found[nth]);
        match kind {
            Kind::Take => self.take(Role::Source, true, SPARE_SNAPS),
            Kind::TakeUnwaited => self.take(Role::Source, false, SPARE_SNAPS),
            Kind::Delete | Kind::DeleteUnwaited if count > 0 => {
                let nth = usize::try_from(self.entropy.below(count as u64)).unwrap_or(0);
                self.delete(at(nth), kind == Kind::Delete)
            }
            Kind::DeleteMiddle if count > 2 => {
                let nth = usize::try_from(self.entropy.below(count as u64 - 2)).unwrap_or(0);
                self.delete(at(count - 2 - nth), true)
            }
            Kind::DeleteOldest if count > 1 => self.delete(at(0), true),
            Kind::Wait if self.state.unsettled => {
                (self.state.creating, self.state.unsettled) = (None, false);
                self.push(Op::Wait)
            }
            Kind::Flush => self.push(Op::Flush),
            _ => None,
        }
    }

    /// Puts several operations in flight together.
    pub(super) fn race(&mut self, kind: Kind) -> Moved {
        if !self.state.exists(Role::Source) {
            return None;
        }
        let mut ops = Vec::with_capacity(3);
        let first = self.small_change(None);
        let near = first.changes();
        ops.push(first);
        if kind == Kind::RaceCut {
            if !self.state.has_room(SPARE_SNAPS) {
                return None;
            }
            self.settle(Role::Source);
            if self.entropy.chance(1, 3) {
                let more = self.small_change(None);
                ops.push(more);
            }
            let label = self.state.take(self.entropy, Role::Source);
            self.state.vol_mut(Role::Source).changed = true;
            let place = usize::try_from(self.entropy.below(ops.len() as u64 + 1)).unwrap_or(0);
            ops.insert(place, Op::Take { label, wait: true });
        } else {
            for _ in 0..=self.entropy.below(2) {
                let near = near.filter(|_| !self.entropy.chance(1, 4));
                let other = self.small_change(near);
                ops.push(other);
            }
        }
        self.push(Op::Concurrent(ops))
    }

    /// Makes a move on whole volumes or the array.
    pub(super) fn lifecycle(&mut self, kind: Kind) -> Moved {
        match kind {
            Kind::Rollback => {
                let (found, count) = self.state.usable(Role::Source);
                let nth = usize::try_from(self.entropy.below(count as u64)).unwrap_or(0);
                let snap = *self.state.snaps().get(usize::from(found[nth]))?;
                if count == 0 {
                    return None;
                }
                let source = self.state.vol_mut(Role::Source);
                (source.len, source.changed) = (snap.len, true);
                self.push(Op::Rollback { label: snap.label })
            }
            Kind::Grow | Kind::Shrink | Kind::ShrinkGrow => self.resize(kind),
            Kind::Restart => self.push(Op::Restart { clean: true }),
            Kind::Kill => self.push(Op::Restart { clean: false }),
            Kind::ReviveSource if !self.state.sparse => self.revive(Role::Source),
            Kind::ReviveNeighbour if !self.state.sparse => self.revive(Role::Neighbour),
            _ => None,
        }
    }

    fn resize(&mut self, kind: Kind) -> Moved {
        let (len, max) = (self.state.vol(Role::Source).len, self.state.max_len);
        if self.state.sparse || len < 2 {
            return None;
        }
        let smaller = |entropy: &mut E| {
            match entropy.below(4) {
                0 => len / 2,
                1 => (len - 1) / CHUNK_LBAS * CHUNK_LBAS,
                2 => len - 1,
                _ => 1 + entropy.below(len - 1),
            }
            .max(1)
        };
        let to = if kind == Kind::Grow {
            // Past the next power of two of chunks, into the same chunk, a chunk more.
            let past = (len.div_ceil(CHUNK_LBAS).next_power_of_two() + 1) * CHUNK_LBAS;
            self.entropy.pick(&[past, len + 1, len + CHUNK_LBAS, len + 33]).min(max)
        } else {
            smaller(self.entropy)
        };
        if to == len {
            return None;
        }
        self.push(Op::Resize { len: LbaCount::new(to) })?;
        self.state.len_before_grow = len.min(to);
        let source = self.state.vol_mut(Role::Source);
        (source.len, source.changed) = (to, true);
        if kind == Kind::ShrinkGrow {
            self.push(Op::Resize { len: LbaCount::new(len) })?;
            self.state.vol_mut(Role::Source).len = len;
        }
        Some(())
    }

    /// Deletes a volume and makes it again.
    fn revive(&mut self, volume: Role) -> Moved {
        if !self.state.exists(volume) || self.state.vol(volume).incarnation == u8::MAX {
            return None;
        }
        self.push(Op::DeleteVolume { volume })?;
        let same_id = volume == Role::Source || !self.entropy.chance(1, 4);
        // A volume that is made again is as long as the source was.
        let len = self.state.vol(Role::Source).len;
        self.push(Op::CreateVolume { volume, same_id })?;
        let vol = self.state.vol_mut(volume);
        (vol.len, vol.changed) = (len, true);
        vol.incarnation += 1;
        Some(())
    }

    /// Makes a move on the clone or the neighbour.
    pub(super) fn elsewhere(&mut self, kind: Kind) -> Moved {
        match kind {
            Kind::MakeClone => self.make_clone(),
            Kind::CloneWrite => self.change_on(Role::Clone),
            Kind::NeighbourWrite => self.change_on(Role::Neighbour),
            Kind::DirtyTarget => self.change_on(Role::Target),
            Kind::CloneTake => self.take(Role::Clone, true, SPARE_SNAPS),
            Kind::NeighbourTake => self.take(Role::Neighbour, true, SPARE_SNAPS),
            _ => None,
        }
    }

    fn make_clone(&mut self) -> Moved {
        let vol = self.state.vol(Role::Clone);
        if vol.incarnation == u8::MAX {
            return None;
        }
        if vol.len > 0 {
            // One clone at a time: sometimes the old one goes.
            if !self.entropy.chance(1, 3) {
                return None;
            }
            self.state.vol_mut(Role::Clone).len = 0;
            return self.push(Op::DeleteVolume { volume: Role::Clone });
        }
        let back = usize::try_from(self.entropy.below(3) / 2).unwrap_or(0);
        let snap = self.state.snaps()[self.state.nth_back(Role::Source, back)?];
        let clone = self.state.vol_mut(Role::Clone);
        (clone.len, clone.changed) = (snap.len, true);
        clone.incarnation += 1;
        self.push(Op::Clone { label: snap.label, volume: Role::Clone })
    }

    /// A change on another volume than the source.
    fn change_on(&mut self, role: Role) -> Moved {
        if !self.state.exists(role) {
            return None;
        }
        let at = match self.entropy.chance(1, 2) {
            true => self.state.again(self.entropy, role),
            false => self.state.anywhere(self.entropy, role),
        };
        self.state.vol_mut(role).changed = true;
        let op = match self.entropy.below(6) {
            4 => Op::Zero { at },
            5 if self.profile.offers.has(super::Offers::DISCARD) => Op::Discard { at },
            _ => Op::Write { at },
        };
        self.push_on(role, op)
    }
}
