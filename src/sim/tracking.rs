//! Changed-block tracking of one volume: bits per 64-LBA chunk and epoch, set as writes arrive.
//!
//! An epoch is the time between two cuts. Asking what changed between two snapshots is the OR of the
//! epochs after the older cut up to the newer one; see `diff`. Not covered: contents (`store`).

use super::bugs::{Bug, BugSet};
use std::collections::BTreeMap;
use std::ops::Range;

/// LBAs of one chunk.
pub(super) const CHUNK: u64 = 64;

/// Changed LBAs by chunk; bit `i` of chunk `c` is LBA `64 c + i`.
pub(super) type Masks = BTreeMap<u64, u64>;

/// LBAs marked as written before the first snapshot, without contents: for volumes too big to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preload {
    /// Every LBA.
    Dense,
    /// Every second LBA, starting with LBA 0.
    Alternating,
    /// Each LBA or not, by this seed.
    Random(u64),
}

impl Preload {
    /// The marked LBAs of one chunk.
    pub(super) fn bits(self, chunk: u64) -> u64 {
        match self {
            Preload::Dense => u64::MAX,
            Preload::Alternating => 0x5555_5555_5555_5555,
            Preload::Random(seed) => super::state::mix(seed ^ super::state::mix(chunk)),
        }
    }
}

/// What reached the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Touch {
    Write,
    Zero,
    Discard,
}

/// Bugs that tell same-content rewrites from changes.
pub(super) const REWRITE_BUGS: BugSet =
    BugSet::of(&[Bug::AnswerVaries, Bug::RewritesOnlyInLongDiffs, Bug::InsideWalkElidesRewrites]);

/// What else goes on with the volume's snapshots; only planted bugs look at it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Moment {
    /// A snapshot is still Creating.
    pub(super) creating: bool,
    /// A snapshot is still Deleting.
    pub(super) deleting: bool,
}

/// What changed between two cuts.
#[derive(Default, Debug)]
pub(super) struct Epoch {
    pub(super) masks: Masks,
    /// Bits that planted bugs fail to write down; a restart drops them.
    pub(super) unsaved: Masks,
    /// Planted: every LBA counts as changed.
    pub(super) everything: bool,
    /// Planted: LBAs that were written with what they held already, and not changed otherwise.
    pub(super) rewritten: Masks,
}

impl Epoch {
    /// Planted: what changed and was not only rewritten.
    pub(super) fn really_changed(&self) -> Masks {
        let mut masks = self.masks.clone();
        subtract(&mut masks, &self.rewritten);
        masks
    }
}

/// A snapshot's place in the chain: the epoch that its cut closed.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) cut: u64,
    pub(super) epoch: Epoch,
    /// Planted: a snapshot before this one was deleted since a walk began.
    pub(super) walk_broken: bool,
}

/// Which LBAs a volume held when it was created.
#[derive(Clone, Default, Debug)]
pub(super) struct Origin {
    /// A clone's inheritance.
    pub(super) masks: Masks,
    /// A preloaded volume's pattern and the LBA it ends before.
    pub(super) preload: Option<(Preload, u64)>,
}

/// The tracker of one volume.
#[derive(Debug)]
pub(super) struct Tracking {
    pub(super) bugs: BugSet,
    pub(super) origin: Origin,
    pub(super) links: Vec<Link>,
    pub(super) current: Epoch,
    pub(super) planted: Planted,
}

/// What planted bugs remember; an honest tracker never looks here.
#[derive(Default, Debug)]
pub(super) struct Planted {
    /// Epochs of a dead volume of the same identity.
    pub(super) inherited_epochs: usize,
    /// Chunks the tracker was made for, and whether the volume has outgrown them.
    pub(super) made_for_chunks: u64,
    pub(super) outgrown: bool,
    /// The last big discard of this epoch.
    pub(super) hole: Option<Range<u64>>,
    pub(super) cuts_since_restart: Option<u32>,
    /// Answers by base, and the number of walks begun by base and snapshot.
    pub(super) answers: BTreeMap<Option<u64>, Masks>,
    pub(super) walks: BTreeMap<(Option<u64>, u64), u64>,
    /// One-shot: the next tracking record cannot be stored.
    pub(super) record_fails: bool,
}

/// The bits that the LBAs of `lbas` have, chunk by chunk.
pub(super) fn chunk_masks(lbas: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let chunks = if lbas.is_empty() { 0..0 } else { lbas.start / CHUNK..lbas.end.div_ceil(CHUNK) };
    chunks.map(move |chunk| {
        let first = lbas.start.saturating_sub(chunk * CHUNK);
        let end = (lbas.end - chunk * CHUNK).min(CHUNK);
        (chunk, (u64::MAX << first) & (u64::MAX >> (CHUNK - end)))
    })
}

fn merge(into: &mut Masks, from: &Masks) {
    for (&chunk, &bits) in from {
        *into.entry(chunk).or_default() |= bits;
    }
}

fn subtract(from: &mut Masks, what: &Masks) {
    for (chunk, bits) in what {
        if let Some(left) = from.get_mut(chunk) {
            *left &= !bits;
        }
    }
}

impl Tracking {
    /// The tracker of a new volume of `len_lbas`.
    pub(super) fn new(bugs: BugSet, origin: Origin, len_lbas: u64) -> Tracking {
        let made_for_chunks = len_lbas.div_ceil(CHUNK).next_power_of_two();
        let planted = Planted { made_for_chunks, ..Planted::default() };
        Tracking { bugs, origin, links: Vec::new(), current: Epoch::default(), planted }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bugs.has(bug)
    }

    /// Notes that something reached these LBAs.
    pub(super) fn mark(&mut self, lbas: Range<u64>, touch: Touch, moment: Moment) {
        if self.bugs.is_empty() {
            for (chunk, bits) in chunk_masks(lbas) {
                *self.current.masks.entry(chunk).or_default() |= bits;
            }
        } else {
            self.mark_planted(lbas, touch, moment);
        }
    }

    /// As [`Tracking::mark`], with every deviation a planted bug makes there.
    fn mark_planted(&mut self, lbas: Range<u64>, touch: Touch, moment: Moment) {
        let discard = touch == Touch::Discard;
        if !self.current.rewritten.is_empty() {
            subtract(&mut self.current.rewritten, &chunk_masks(lbas.clone()).collect());
        }
        let untracked = (discard && self.has(Bug::DiscardUntracked))
            || (moment.deleting && self.has(Bug::WriteDuringDeleteUntracked));
        if untracked {
            return;
        }
        if self.has(Bug::DiscardCrashTransientClean) {
            self.current.unsaved.clear();
        }
        if discard && self.has(Bug::RangeClearRoundsOutward) {
            for (chunk, _) in chunk_masks(lbas.clone()) {
                self.current.masks.remove(&chunk);
            }
        }
        if self.has(Bug::HoleBirthZero) {
            self.refill_hole(&lbas, discard);
        }
        let lost = std::mem::take(&mut self.planted.record_fails)
            || (discard && self.has(Bug::DiscardCrashTransientClean));
        let lbas = self.misplaced(lbas);
        for (chunk, bits) in chunk_masks(lbas) {
            self.record_planted(chunk, bits, lost, moment);
        }
    }

    /// Sets one chunk's bits, with the deviations that concern single bits and epochs.
    fn record_planted(&mut self, chunk: u64, bits: u64, lost: bool, moment: Moment) {
        let bugs = self.bugs;
        let bits = if bugs.has(Bug::Bit63Dropped) { bits & (u64::MAX >> 1) } else { bits };
        // The granularity doubled, the indices of the old one stayed.
        let chunk = if self.planted.outgrown { chunk / 2 } else { chunk };
        if bugs.has(Bug::CloneDropsParentData) {
            self.origin.masks.remove(&chunk);
        }
        let Some(epoch) = self.epoch_of_write(moment) else { return };
        let mask = epoch.masks.entry(chunk).or_default();
        let again = *mask & bits;
        let lost = if lost { bits & !*mask } else { 0 };
        if bugs.has(Bug::SameBlockTwiceToggles) {
            *mask ^= bits;
        } else {
            *mask |= bits;
        }
        let reacked = if bugs.has(Bug::SecondWriteBeforeCommit) { again } else { 0 };
        if lost | reacked != 0 {
            *epoch.unsaved.entry(chunk).or_default() |= lost | reacked;
        }
    }

    /// Which epoch a write belongs to: the current one. None: it looks older than any snapshot.
    fn epoch_of_write(&mut self, moment: Moment) -> Option<&mut Epoch> {
        let inherited = self.has(Bug::RebornIdInherits)
            && (1..=self.planted.inherited_epochs).contains(&self.links.len());
        if inherited {
            return None;
        }
        let newest = moment.creating && self.has(Bug::CutRaceLosesWrite);
        match self.links.last_mut().filter(|_| newest) {
            Some(link) => Some(&mut link.epoch),
            None => Some(&mut self.current),
        }
    }

    /// The LBAs a planted bug takes a write for.
    fn misplaced(&self, lbas: Range<u64>) -> Range<u64> {
        let mut lbas = lbas;
        if self.has(Bug::BigVolumeWraps) {
            let len = lbas.end - lbas.start;
            let start = lbas.start & u64::from(u32::MAX);
            lbas = start..start + len;
        }
        let crosses = lbas.start / CHUNK != (lbas.end - 1) / CHUNK;
        if crosses && self.has(Bug::UnalignedWriteTruncates) {
            if !lbas.end.is_multiple_of(CHUNK) {
                lbas.end -= 1;
            } else if !lbas.start.is_multiple_of(CHUNK) {
                lbas.start += 1;
            }
        }
        let shifted = self.planted.cuts_since_restart.is_some_and(|cuts| cuts > 0);
        if shifted && self.has(Bug::ThirdIncrementShift) {
            lbas = lbas.start + 1..lbas.end + 1;
        }
        lbas
    }

    /// Planted: a write into a big discarded hole makes the tracker forget the hole.
    fn refill_hole(&mut self, lbas: &Range<u64>, discard: bool) {
        if discard {
            self.planted.hole = (lbas.end - lbas.start > CHUNK).then(|| lbas.clone());
        } else if let Some(hole) = self.planted.hole.clone()
            && hole.start <= lbas.start
            && lbas.end <= hole.end
        {
            subtract(&mut self.current.masks, &chunk_masks(hole).collect());
            self.planted.hole = None;
        }
    }

    /// Planted: whether an LBA changed in this epoch, and was not only rewritten.
    pub(super) fn changed_now(&self, lba: u64) -> bool {
        let bit =
            |masks: &Masks| masks.get(&(lba / CHUNK)).copied().unwrap_or(0) >> (lba % CHUNK) & 1;
        bit(&self.current.masks) & !bit(&self.current.rewritten) == 1
    }

    /// Planted: remembers LBAs that were written with what they held already.
    pub(super) fn note_rewritten(&mut self, lba: u64) {
        *self.current.rewritten.entry(lba / CHUNK).or_default() |= 1 << (lba % CHUNK);
    }

    /// Closes the epoch: the snapshot `cut` of a volume of `len_lbas` is made here.
    pub(super) fn cut(&mut self, cut: u64, len_lbas: u64) {
        self.commit();
        self.planted.hole = None;
        if let Some(cuts) = &mut self.planted.cuts_since_restart {
            *cuts += 1;
        }
        let epoch = std::mem::take(&mut self.current);
        self.links.push(Link { cut, epoch, walk_broken: false });
        if self.has(Bug::IdleVolumeChurns) && len_lbas > 0 {
            // The tracker's own record of the cut, at the end of the volume.
            self.mark(len_lbas - 1..len_lbas, Touch::Write, Moment::default());
        }
    }

    /// Forgets a snapshot; its changes now belong to the next one.
    pub(super) fn forget(&mut self, cut: u64) {
        let Some(place) = self.place(cut) else { return };
        let gone = self.links.remove(place).epoch;
        let (merge_lost, walk_breaks) =
            (self.has(Bug::MergeLosesMap), self.has(Bug::MiddleDeleteBreaksWalk));
        let next = match self.links.get_mut(place) {
            Some(link) => {
                link.walk_broken = walk_breaks;
                &mut link.epoch
            }
            None => &mut self.current,
        };
        if merge_lost {
            let mut lost = gone.masks.clone();
            subtract(&mut lost, &next.masks);
            merge(&mut next.unsaved, &lost);
        }
        if !gone.rewritten.is_empty() || !next.rewritten.is_empty() {
            let really = [gone.really_changed(), next.really_changed()];
            merge(&mut next.rewritten, &gone.rewritten);
            really.iter().for_each(|masks| subtract(&mut next.rewritten, masks));
        }
        merge(&mut next.masks, &gone.masks);
        next.everything |= gone.everything;
    }

    /// The volume goes back to the snapshot `cut`: whatever changed since changes again.
    pub(super) fn roll_back(&mut self, cut: u64) {
        if self.has(Bug::RollbackNotAChange) {
            return;
        }
        self.current.rewritten.clear();
        let after = self.links.partition_point(|link| link.cut <= cut);
        for link in &self.links[after..] {
            merge(&mut self.current.masks, &link.epoch.masks);
        }
    }

    /// The size changes: what was ever written between the two sizes comes or goes.
    pub(super) fn resize(&mut self, old_lbas: u64, new_lbas: u64) {
        self.current.rewritten.clear();
        let planted = &mut self.planted;
        let outgrows = new_lbas.div_ceil(CHUNK) > planted.made_for_chunks;
        planted.outgrown |= outgrows && self.bugs.has(Bug::GrowAliasesTracking);
        self.current.everything |= self.has(Bug::ResizeReportsEverything);
        if self.has(Bug::ShrinkGrowForgets) {
            return;
        }
        let (start, end) = (old_lbas.min(new_lbas), old_lbas.max(new_lbas));
        let inside = |chunk: u64| {
            let first = start.max(chunk * CHUNK);
            chunk_masks(first..end.min((chunk + 1) * CHUNK)).next().map_or(0, |(_, bits)| bits)
        };
        let moved: Vec<(u64, u64)> = self
            .ever(start / CHUNK, end)
            .map(|(chunk, bits)| (chunk, bits & inside(chunk)))
            .filter(|&(_, bits)| bits != 0)
            .collect();
        for (chunk, bits) in moved {
            *self.current.masks.entry(chunk).or_default() |= bits;
        }
    }

    /// The array stops and starts again. Honest tracking is durable with each acknowledged write.
    pub(super) fn restart(&mut self, clean: bool) {
        self.planted.cuts_since_restart = Some(0);
        if clean {
            self.commit();
        } else {
            if self.has(Bug::EraLostOnRestart) {
                self.current = Epoch::default();
            }
            if self.has(Bug::FrozenEpochsLostOnKill) {
                self.links.iter_mut().for_each(|link| link.epoch = Epoch::default());
            }
        }
        let frozen = self.links.iter_mut().map(|link| &mut link.epoch);
        for epoch in frozen.chain([&mut self.current]) {
            let unsaved = std::mem::take(&mut epoch.unsaved);
            subtract(&mut epoch.masks, &unsaved);
        }
    }

    /// A flush, a cut or a clean stop: what two crash bugs leave in memory reaches the disk.
    pub(super) fn commit(&mut self) {
        if self.has(Bug::SecondWriteBeforeCommit) || self.has(Bug::DiscardCrashTransientClean) {
            self.current.unsaved.clear();
        }
    }

    /// The next record cannot be stored (planted bug only: the honest array fails the write).
    pub(super) fn lose_next_record(&mut self) {
        self.planted.record_fails = true;
    }

    /// A dead volume of the same identity had this many epochs.
    pub(super) fn inherit_epochs(&mut self, epochs: usize) {
        self.planted.inherited_epochs = epochs;
    }

    /// Where the snapshot `cut` is in the chain.
    pub(super) fn place(&self, cut: u64) -> Option<usize> {
        self.links.binary_search_by_key(&cut, |link| link.cut).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_golden_write_sets_upper_half_three_full_lower_half() {
        let masks: Vec<_> = chunk_masks(250_912..251_168).collect();
        assert_eq!(
            masks,
            [
                (3920, 0xffff_ffff_0000_0000),
                (3921, u64::MAX),
                (3922, u64::MAX),
                (3923, u64::MAX),
                (3924, 0x0000_0000_ffff_ffff),
            ]
        );
    }

    proptest! {
        #[test]
        fn masks_hold_exactly_the_lbas_of_the_range(start in 0u64..200, len in 0u64..200) {
            let lbas = start..start + len;
            let masks: Masks = chunk_masks(lbas.clone()).collect();
            for lba in 0..500 {
                let set = masks.get(&(lba / CHUNK)).is_some_and(|bits| bits >> (lba % CHUNK) & 1 == 1);
                prop_assert_eq!(set, lbas.contains(&lba));
            }
            prop_assert!(masks.values().all(|&bits| bits != 0));
        }
    }
}
