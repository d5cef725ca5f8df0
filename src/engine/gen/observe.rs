//! Moves that observe: reads, diffs, syncs; and the observing steps at the end of every case. Not
//! covered: what the right answers are (`crate::model`, `crate::oracle`).

use super::entropy::Entropy;
use super::kind::Kind;
use super::profile::Offers;
use super::world::SPARE_SNAPS;
use super::{Draw, Moved};
use crate::block::{CHUNK_LBAS, Lba, Role};
use crate::scenario::{Fault, Label, Op, Step, SyncSource};

type Pair = (Label, Option<Label>);

impl<E: Entropy> Draw<'_, E> {
    fn label(&self, nth: usize) -> Label {
        self.state.snaps()[nth].label
    }

    /// The newest snapshot of `role` against the one `back` places before it.
    fn newest(&self, role: Role, back: usize) -> Option<Pair> {
        let snap = self.label(self.state.nth_back(role, 0)?);
        Some((snap, Some(self.label(self.state.nth_back(role, back)?))))
    }

    fn full(&self, role: Role) -> Option<Pair> {
        Some((self.label(self.state.nth_back(role, 0)?), None))
    }

    /// Any pair in order, of a volume that has snapshots; sometimes without a base.
    pub(super) fn any_pair(&mut self, role: Role) -> Option<Pair> {
        let (found, count) = self.state.usable(role);
        let nth = |n: u64| usize::from(found[usize::try_from(n).unwrap_or(0)]);
        let newer = self.entropy.below(count as u64);
        if count == 0 {
            return None;
        }
        if newer == 0 || self.entropy.chance(1, 5) {
            return Some((self.label(nth(newer)), None));
        }
        let older = self.entropy.below(newer);
        Some((self.label(nth(newer)), Some(self.label(nth(older)))))
    }

    /// A pair that must be refused, or may be.
    fn odd_pair(&mut self, kind: Kind) -> Option<Pair> {
        match kind {
            Kind::DiffReversed => {
                let (newer, older) = self.newest(Role::Source, 1)?;
                Some((older?, Some(newer)))
            }
            Kind::DiffSelf => {
                let (snap, _) = self.any_pair(Role::Source)?;
                Some((snap, Some(snap)))
            }
            Kind::DiffDeleted => {
                let (snap, _) = self.full(Role::Source)?;
                let gone = self.state.snaps().iter().filter(|snap| !snap.alive);
                let count = gone.clone().count() as u64;
                let nth = usize::try_from(self.entropy.below(count)).unwrap_or(0);
                let gone = gone.map(|snap| snap.label).nth(nth)?;
                Some(if self.entropy.chance(1, 4) { (gone, None) } else { (snap, Some(gone)) })
            }
            Kind::DiffForeign => {
                let (own, _) = self.full(Role::Source)?;
                let (other, _) = self.full(Role::Neighbour)?;
                Some(if self.entropy.chance(1, 4) {
                    (other, Some(own))
                } else {
                    (own, Some(other))
                })
            }
            Kind::DiffRelated => {
                let (own, _) = self.full(Role::Source)?;
                let (clone, _) = self.full(Role::Clone)?;
                Some(if self.entropy.chance(1, 3) {
                    (own, Some(clone))
                } else {
                    (clone, Some(own))
                })
            }
            _ => None,
        }
    }

    /// Makes a move that asks for a diff.
    pub(super) fn diff(&mut self, kind: Kind) -> Moved {
        let role = Role::Source;
        let pair = match kind {
            Kind::DiffNew => self.newest(role, 1).or_else(|| self.full(role)),
            Kind::DiffFull => self.full(role),
            Kind::DiffSkip => {
                let (_, count) = self.state.usable(role);
                let back = 2 + self.entropy.below((count as u64).saturating_sub(2));
                self.newest(role, usize::try_from(back).unwrap_or(2))
            }
            Kind::DiffAny => self.any_pair(role),
            Kind::DiffClone => match self.entropy.chance(1, 3) {
                true => self.any_pair(Role::Clone),
                false => self.full(Role::Clone),
            },
            Kind::DiffNeighbour => match self.entropy.chance(1, 3) {
                true => self.any_pair(Role::Neighbour),
                false => self.newest(Role::Neighbour, 1).or_else(|| self.full(Role::Neighbour)),
            },
            Kind::DiffAgain => self.last_diff,
            Kind::DiffFrom => return self.diff_from(),
            Kind::DiffBetween => return self.diff_between(),
            odd => self.odd_pair(odd),
        }?;
        self.last_diff = Some(pair);
        self.push(plain(pair))
    }

    fn diff_from(&mut self) -> Moved {
        let (snap, base) = self.any_pair(Role::Source)?;
        let len = self.state.vol(Role::Source).len;
        // Inside a changed chunk, just behind a seam, anywhere.
        let from = match self.entropy.below(3) {
            0 => self.state.last.start().chunk_start().get() + 1 + self.entropy.below(63),
            1 => self.entropy.below(len.div_ceil(CHUNK_LBAS)) * CHUNK_LBAS + self.entropy.below(2),
            _ => self.entropy.below(len),
        };
        let from = Lba::new(from % len.max(1));
        self.push(Op::Diff { snap, base, from, between_pages: None })
    }

    fn diff_between(&mut self) -> Moved {
        let (found, count) = self.state.usable(Role::Source);
        if count == 0 {
            return None;
        }
        let page = 1 + u32::try_from(self.entropy.below(3) / 2).unwrap_or(0);
        let (pair, op) = if count > 2 && !self.entropy.chance(1, 3) {
            let pair = self.newest(Role::Source, count - 1)?;
            let nth = 1 + usize::try_from(self.entropy.below(count as u64 - 2)).unwrap_or(0);
            let label = self.state.delete(usize::from(found[nth]));
            (pair, Op::Delete { label, wait: true })
        } else {
            let pair = self.any_pair(Role::Source)?;
            let takes = self.entropy.chance(1, 4) && self.state.has_room(SPARE_SNAPS);
            let op = match takes {
                true => {
                    self.settle(Role::Source);
                    let label = self.state.take(self.entropy, Role::Source);
                    Op::Take { label, wait: true }
                }
                false => self.small_change(None),
            };
            (pair, op)
        };
        let between_pages = Some((page, Box::new(op)));
        self.push(Op::Diff { snap: pair.0, base: pair.1, from: Lba::new(0), between_pages })
    }

    /// Makes a move that reads.
    pub(super) fn read(&mut self, kind: Kind) -> Moved {
        let role = Role::Source;
        if !self.state.exists(role) {
            return None;
        }
        let at = match self.entropy.below(3) {
            2 => self.state.anywhere(self.entropy, role),
            _ => self.state.again(self.entropy, role),
        };
        let snap = match kind {
            Kind::ReadSnap => Some(self.any_pair(role)?.0),
            _ => None,
        };
        self.push(Op::Read { snap, at })
    }

    /// Makes a move that copies.
    pub(super) fn sync(&mut self, kind: Kind) -> Moved {
        let role = Role::Source;
        let mut source = SyncSource::Snapshot;
        let mut during = Vec::new();
        let pair = match kind {
            Kind::SyncNew => self.newest(role, 1),
            Kind::SyncFull | Kind::SyncShort => self.full(role),
            Kind::SyncAny => self.any_pair(role),
            Kind::SyncAgain => return self.sync_again(),
            Kind::SyncDuring => {
                let pair = self.any_pair(role)?;
                for _ in 0..=self.entropy.below(2) {
                    let near =
                        self.entropy.chance(1, 2).then(|| self.state.again(self.entropy, role));
                    during.push(self.small_change(near));
                }
                Some(pair)
            }
            Kind::SyncLive => {
                source = SyncSource::Live;
                self.take(role, true, SPARE_SNAPS)?;
                match self.entropy.chance(1, 2) {
                    true => self.newest(role, 1),
                    false => self.full(role),
                }
            }
            Kind::SyncChain => {
                let (to, _) = self.full(role)?;
                return self.push(Op::SyncChain { to });
            }
            _ => None,
        }?;
        self.last_sync = Some((source, pair));
        let nth = 1 + u32::try_from(self.entropy.below(2)).unwrap_or(0);
        let fault =
            (kind == Kind::SyncShort).then(|| Fault { kind: "short-write".to_owned(), nth });
        let op = Op::Sync { snap: pair.0, base: pair.1, from: source, during };
        self.steps.push(Step { op, fault });
        Some(())
    }

    fn sync_again(&mut self) -> Moved {
        let (from, (snap, base)) = self.last_sync?;
        self.push(Op::Sync { snap, base, from, during: Vec::new() })
    }

    /// The observing steps that end every case.
    pub(super) fn epilogue(&mut self) {
        let offers = self.profile.offers;
        if self.state.unsettled {
            self.snapshots(Kind::Wait);
        }
        if self.state.vol(Role::Source).changed || self.state.nth_back(Role::Source, 0).is_none() {
            self.take(Role::Source, true, 0);
        }
        for kind in [Kind::DiffNew, Kind::DiffFull, Kind::DiffSkip, Kind::DiffAny] {
            self.diff(kind);
        }
        for (role, kind) in [(Role::Neighbour, Kind::DiffNeighbour), (Role::Clone, Kind::DiffClone)]
        {
            if self.state.nth_back(role, 0).is_some() {
                self.diff(kind);
            }
        }
        if offers.has(Offers::SNAPSHOT_READS) {
            self.read(Kind::ReadSnap);
        }
        if offers.has(Offers::READS) && self.state.exists(Role::Source) {
            let len = self.state.vol(Role::Source).len;
            let at = self.state.fit(Role::Source, 0, len);
            self.push(Op::Read { snap: None, at });
        }
        if offers.has(Offers::SYNCS) {
            let frozen = offers.has(Offers::SNAPSHOT_READS);
            self.sync(if frozen { Kind::SyncFull } else { Kind::SyncLive });
            if frozen {
                self.sync(Kind::SyncNew);
            }
        }
    }
}

const fn plain((snap, base): Pair) -> Op {
    Op::Diff { snap, base, from: Lba::new(0), between_pages: None }
}
