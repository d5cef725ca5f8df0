//! Aims: a quarter of the cases begin by making one combination of coverage on purpose, each in its
//! turn, so that what random drawing seldom reaches is reached as well.
//!
//! Which one is a function of the case number alone: a case stays the same whatever other cases have
//! reached before, on any number of threads. Not covered: combinations of questions; what is changed
//! here is asked about by the steps that follow.

use super::coverage_cells::{Bits, Block, Cell, Did, Relation, Upset};
use super::entropy::Entropy;
use super::kind::Kind;
use super::profile::Offers;
use super::world::{SPARE_SNAPS, State};
use super::{Draw, Moved};
use crate::block::{CHUNK_LBAS, Extent, Lba, Role};
use crate::scenario::{Fault, Op, Step, SyncSource};

/// One case in so many begins with an aim.
const EVERY: u64 = 4;

const DIDS: &[Did] = &[Did::Write, Did::Discard, Did::Zero, Did::Rewrite, Did::WriteZeroes];
const RELATIONS: &[Relation] = &[
    Relation::Settled,
    Relation::NoSnapshot,
    Relation::InCut,
    Relation::Creating,
    Relation::Deleting,
    Relation::BetweenPages,
    Relation::Syncing,
];
/// How many aims there are, those that cannot happen included.
const AIMS: u64 =
    (DIDS.len() * RELATIONS.len() * Bits::ALL.len() * Block::ALL.len() * Upset::ALL.len()) as u64;
/// Has no divisor in common with [`AIMS`]: neighbours in turn are far apart, all get theirs.
const STRIDE: u64 = 3191;

/// What that case aims at, if it does.
pub(super) fn of_case(case: u64) -> Option<Cell> {
    if case % EVERY != EVERY - 1 {
        return None;
    }
    let mut number = (case / EVERY % AIMS) * STRIDE % AIMS;
    let mut digit = |base: usize| {
        let digit = number % base as u64;
        number /= base as u64;
        usize::try_from(digit).unwrap_or(0)
    };
    let cell = Cell {
        did: DIDS[digit(DIDS.len())],
        bits: Bits::ALL[digit(Bits::ALL.len())],
        relation: RELATIONS[digit(RELATIONS.len())],
        block: Block::ALL[digit(Block::ALL.len())],
        upset: Upset::ALL[digit(Upset::ALL.len())],
    };
    cell.can_happen().then_some(cell)
}

impl State {
    /// An extent of that class, if the source has one.
    fn of_class<E: Entropy>(&self, entropy: &mut E, bits: Bits) -> Option<Extent> {
        let len = self.vol(Role::Source).len;
        let (chunks, tail) = (len / CHUNK_LBAS, len % CHUNK_LBAS);
        let start = entropy.below(chunks) * CHUNK_LBAS;
        let more = entropy.below(4);
        let (start, len) = match bits {
            Bits::Tail if tail > 0 => {
                let at = entropy.below(tail);
                (len - tail + at, 1 + entropy.below(tail - at))
            }
            Bits::Tail => return None,
            Bits::Seam if chunks > 1 => {
                let seam = (1 + entropy.below(chunks - 1)) * CHUNK_LBAS;
                (seam - 1 - more, 2 + more + entropy.below(2))
            }
            _ if chunks == 0 || bits == Bits::Seam => return None,
            Bits::Bit0 => (start, 1 + more),
            Bits::Bit63 => (start + CHUNK_LBAS - 1 - more, 1 + more),
            Bits::HalfWord => (start + 31 - more, 2 + more),
            Bits::Inner => (start + 33 + 5 * more, 1 + more),
            Bits::Whole | Bits::Seam => (start, CHUNK_LBAS),
        };
        let extent = self.fit(Role::Source, start, len);
        (Bits::of(extent, self.vol(Role::Source).len) == bits).then_some(extent)
    }
}

const fn op_of(did: Did, at: Extent) -> Op {
    match did {
        Did::Rewrite => Op::Rewrite { at },
        Did::Zero => Op::Zero { at },
        Did::WriteZeroes => Op::WriteZeroes { at },
        Did::Discard => Op::Discard { at },
        _ => Op::Write { at },
    }
}

impl<E: Entropy> Draw<'_, E> {
    /// Makes that combination, if this target and this volume have it, and asks about it.
    pub(super) fn aim(&mut self, cell: Cell) -> Moved {
        if self.state.sparse || !self.profile.offers.has(cell.needs()) {
            return None;
        }
        let old = matches!(cell.block, Block::OldData | Block::OldHole);
        if cell.relation == Relation::NoSnapshot {
            self.upset(cell.upset);
        }
        let at = self.state.of_class(self.entropy, cell.bits)?;
        if old {
            self.prepare(cell.block, at);
        }
        if cell.relation != Relation::NoSnapshot {
            self.take(Role::Source, true, SPARE_SNAPS)?;
            self.upset(cell.upset);
        }
        match cell.relation {
            Relation::Creating => self.take(Role::Source, false, SPARE_SNAPS)?,
            Relation::Deleting => {
                self.take(Role::Source, true, SPARE_SNAPS)?;
                let oldest = self.state.nth_back(Role::Source, 1)?;
                self.delete(oldest, false)?;
            }
            _ => {}
        }
        // A resize may have cut it off.
        if at.end().get() > self.state.vol(Role::Source).len {
            return None;
        }
        if !old {
            self.prepare(cell.block, at);
        }
        self.act(cell, at)?;
        if self.state.unsettled {
            self.snapshots(Kind::Wait);
        }
        self.take(Role::Source, true, SPARE_SNAPS)?;
        self.diff(Kind::DiffNew)?;
        self.diff(Kind::DiffFull)
    }

    fn upset(&mut self, upset: Upset) -> Moved {
        match upset {
            Upset::Nothing | Upset::Fault => None,
            Upset::Restart => self.lifecycle(Kind::Restart),
            Upset::Kill => self.lifecycle(Kind::Kill),
            Upset::Rollback => self.lifecycle(Kind::Rollback),
            Upset::Resize => {
                let kind = if self.entropy.chance(1, 2) { Kind::Shrink } else { Kind::Grow };
                self.lifecycle(kind)
            }
        }
    }

    /// Makes the block what it is to be before.
    fn prepare(&mut self, block: Block, at: Extent) {
        if block != Block::Untouched {
            self.state.last = at;
            self.push(Op::Write { at });
        }
        if matches!(block, Block::Hole | Block::OldHole) {
            let discards = self.profile.offers.has(Offers::DISCARD) && self.entropy.chance(1, 2);
            self.push(if discards { Op::Discard { at } } else { Op::Zero { at } });
        }
    }

    /// The change itself, in its surroundings.
    fn act(&mut self, cell: Cell, at: Extent) -> Moved {
        let op = op_of(cell.did, at);
        self.state.last = at;
        self.state.vol_mut(Role::Source).changed = true;
        match cell.relation {
            Relation::InCut => {
                self.settle(Role::Source);
                let label = self.state.take(self.entropy, Role::Source);
                self.state.vol_mut(Role::Source).changed = true;
                let mut ops = vec![op, Op::Take { label, wait: true }];
                if self.entropy.chance(1, 2) {
                    ops.reverse();
                }
                self.push(Op::Concurrent(ops))
            }
            Relation::BetweenPages => {
                let (snap, base) = self.any_pair(Role::Source)?;
                let between_pages = Some((1, Box::new(op)));
                self.push(Op::Diff { snap, base, from: Lba::new(0), between_pages })
            }
            Relation::Syncing => {
                let (snap, base) = self.any_pair(Role::Source)?;
                let (from, during) = (SyncSource::Snapshot, vec![op]);
                self.push(Op::Sync { snap, base, from, during })
            }
            _ => {
                let metadata = || Fault { kind: "metadata".to_owned(), nth: 1 };
                let fault = (cell.upset == Upset::Fault).then(metadata);
                self.steps.push(Step { op, fault });
                Some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::coverage::Coverage;
    use super::super::{CaseName, PROFILES, Profile, generate};
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_combination_of_a_change_gets_its_turn() {
        let aims: HashSet<Cell> = (0..AIMS * EVERY).filter_map(of_case).collect();
        let changes = Cell::all().filter(|cell| cell.did.changes());
        let without: Vec<Cell> = changes.filter(|cell| !aims.contains(cell)).collect();
        assert_eq!(without, []);
    }

    #[test]
    fn what_a_case_aims_at_is_mostly_reached() {
        let profile = Profile::by_name("small").expect("there is one");
        let mut reached = 0;
        let aimed = (0..8_000).filter_map(|case| Some((case, of_case(case)?)));
        let aimed: Vec<(u64, Cell)> = aimed.collect();
        for (case, cell) in &aimed {
            let mut coverage = Coverage::default();
            coverage.count(&generate(profile, CaseName { seed: 2, case: *case }));
            reached += usize::from(coverage.times(*cell) > 0);
        }
        assert!(reached * 10 > aimed.len() * 6, "{reached} of {}", aimed.len());
    }

    #[test]
    fn aims_reach_more_than_chance_does() {
        let (mut aimed, mut others) = (Coverage::default(), Coverage::default());
        for case in 0..6_000 {
            let aims = of_case(case).is_some();
            let coverage = if aims { &mut aimed } else { &mut others };
            coverage.count(&generate(&PROFILES[0], CaseName { seed: 3, case }));
        }
        let only_aimed = |cell: &Cell| aimed.times(*cell) > 0 && others.times(*cell) == 0;
        let more = Cell::all().filter(|cell| cell.did.changes()).filter(only_aimed).count();
        assert!(aimed.cases() * 3 <= others.cases(), "a third as many cases");
        assert!(more > 200, "{more}");
    }
}
