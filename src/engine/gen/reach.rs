//! What the cases of a campaign can reach at all, of what coverage counts: it follows from what their
//! profile offers and from where they are run. Not covered: what they do reach (`super::coverage`).

use super::coverage_cells::{Bits, Block, Cell, Did, Relation, Upset};
use super::goals::Goal;
use super::profile::{Offers, Profile};
use crate::block::CHUNK_LBAS;
use serde::{Deserialize, Serialize};

const FROZEN: Offers = Offers::SYNCS.and(Offers::SNAPSHOT_READS);

/// What cases can reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    offers: Offers,
    /// Volumes may hold data from before the case.
    past: bool,
    /// The array may report whole chunks.
    rounded: bool,
    /// A volume may be smaller than a chunk before anything is changed.
    short: bool,
    /// Cases lie in whole chunks of larger volumes, and begin with a snapshot.
    placed: bool,
}

impl Reach {
    /// Whatever can happen.
    pub const ALL: Reach =
        Reach { offers: Offers::ALL, past: true, rounded: true, short: true, placed: false };

    /// Of the cases of a profile.
    pub fn of(profile: &Profile) -> Reach {
        let offers = profile.offers;
        let short = |len: &u64| *len < CHUNK_LBAS;
        Reach {
            offers,
            past: profile.fresh != Some(true),
            short: offers.has(Offers::RESIZE) || profile.lens.iter().any(short),
            ..Reach::ALL
        }
    }

    /// On a target that skips operations which need those.
    #[must_use]
    pub const fn without(self, skipped: Offers) -> Reach {
        Reach { offers: self.offers.without(skipped), ..self }
    }

    /// On an array that may not report whole chunks.
    #[must_use]
    pub const fn unrounded(self) -> Reach {
        Reach { rounded: false, ..self }
    }

    /// With every case moved to whole chunks of larger volumes that have a past, after a snapshot.
    #[must_use]
    pub const fn placed(self) -> Reach {
        Reach { past: true, placed: true, ..self }
    }

    /// Whether a combination can be reached.
    pub(super) fn has(self, cell: Cell) -> bool {
        let elsewhere =
            matches!(cell.bits, Bits::Tail) || matches!(cell.relation, Relation::NoSnapshot);
        let lba_0_in_tail = !cell.did.touches()
            && matches!((cell.block, cell.bits), (Block::Untouched, Bits::Tail));
        cell.can_happen()
            && self.offers.has(cell.needs())
            && !(self.placed && elsewhere)
            && (self.short || !lba_0_in_tail)
    }

    /// Whether a goal can be reached.
    pub fn has_goal(self, goal: Goal) -> bool {
        let here = match goal {
            Goal::OldVolumeScanned => self.past,
            Goal::ChunkRounded => self.rounded,
            Goal::TailWritten | Goal::DiscardWhole => !self.placed,
            _ => true,
        };
        here && self.offers.has(goal.needs())
    }

    /// The goals that can be reached.
    pub fn goals(self) -> impl Iterator<Item = Goal> {
        Goal::ALL.iter().copied().filter(move |&goal| self.has_goal(goal))
    }
}

impl Cell {
    /// What a target must offer for that.
    pub(super) const fn needs(self) -> Offers {
        let did = match self.did {
            Did::Discard | Did::WriteZeroes => Offers::DISCARD,
            Did::Read => Offers::READS,
            Did::ReadSnap => Offers::SNAPSHOT_READS,
            Did::Rollback => Offers::ROLLBACK,
            Did::Resize => Offers::RESIZE,
            Did::DiffBetween => Offers::BETWEEN_PAGES,
            Did::Sync => FROZEN,
            Did::SyncLive => Offers::SYNCS,
            Did::Write
            | Did::Rewrite
            | Did::Zero
            | Did::Take
            | Did::Delete
            | Did::Diff
            | Did::DiffFrom => Offers::NONE,
        };
        let relation = match self.relation {
            Relation::InCut => Offers::CONCURRENT,
            Relation::Creating | Relation::Deleting => Offers::UNWAITED,
            Relation::BetweenPages => Offers::BETWEEN_PAGES,
            Relation::Syncing => FROZEN.and(Offers::CONCURRENT),
            Relation::Foreign => Offers::NEIGHBOUR,
            Relation::NoSnapshot
            | Relation::Settled
            | Relation::Full
            | Relation::Adjacent
            | Relation::Far
            | Relation::Reversed
            | Relation::Itself
            | Relation::Gone => Offers::NONE,
        };
        let upset = match self.upset {
            Upset::Nothing => Offers::NONE,
            Upset::Fault => Offers::FAULTS,
            Upset::Restart | Upset::Kill => Offers::RESTART,
            Upset::Rollback => Offers::ROLLBACK,
            Upset::Resize => Offers::RESIZE,
        };
        did.and(relation).and(upset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::coverage::Coverage;
    use super::super::{CaseName, PROFILES, generate};
    use super::*;
    use crate::scenario::Scenario;

    /// Counts cases of a profile as if all of it could be reached.
    fn counted(profile: &Profile, cases: u64) -> Coverage {
        let mut coverage = Coverage::default();
        let case = |case| -> Scenario { generate(profile, CaseName { seed: 11, case }) };
        (0..cases).for_each(|number| coverage.count(&case(number)));
        coverage
    }

    #[test]
    fn no_profile_reaches_what_is_said_to_be_out_of_its_reach() {
        for profile in PROFILES {
            let (coverage, reach) = (counted(profile, 1_500), Reach::of(profile));
            let out = Cell::all().filter(|&cell| !reach.has(cell) && coverage.times(cell) > 0);
            assert_eq!(out.collect::<Vec<_>>(), [], "{}", profile.name);
            let out = |goal: &&Goal| !reach.has_goal(**goal) && coverage.goal(**goal) > 0;
            assert_eq!(Goal::ALL.iter().filter(out).collect::<Vec<_>>(), [] as [&Goal; 0]);
        }
    }

    #[test]
    fn a_profile_without_reads_and_syncs_is_asked_for_none() {
        let bounds = Profile::by_name("bounds").expect("there is one");
        let reach = Reach::of(bounds);
        let reads = |cell: &Cell| {
            matches!(cell.did, Did::Read | Did::ReadSnap | Did::Sync | Did::SyncLive)
                || cell.relation == Relation::Syncing
        };
        assert!(Cell::all().any(|cell| reads(&cell)));
        assert!(!Cell::all().any(|cell| reads(&cell) && reach.has(cell)));
        let words: Vec<&str> = reach.goals().map(Goal::words).collect();
        assert!(!words.iter().any(|words| words.contains("sync")), "{words:?}");
        assert!(words.contains(&Goal::AboveTwoToThe32.words()));
    }

    #[test]
    fn cases_in_a_region_of_an_array_meet_no_partial_chunk_and_no_volume_without_snapshots() {
        let live = Profile::by_name("live").expect("there is one");
        let reach = Reach::of(live).placed();
        assert!(!reach.has_goal(Goal::TailWritten) && reach.has_goal(Goal::OldVolumeScanned));
        let here: Vec<Cell> = Cell::all().filter(|&cell| reach.has(cell)).collect();
        assert!(here.iter().any(|cell| cell.did == Did::SyncLive));
        let bare = |cell: &&Cell| cell.relation == Relation::NoSnapshot || cell.bits == Bits::Tail;
        assert_eq!(here.iter().filter(bare).count(), 0);
    }

    #[test]
    fn what_flags_take_away_is_out_of_reach() {
        let reach = Reach::of(&PROFILES[0]);
        assert_eq!(reach.goals().count(), Goal::ALL.len());
        assert!(!reach.unrounded().has_goal(Goal::ChunkRounded));
        assert!(!reach.without(Offers::RESTART).has_goal(Goal::KillUnflushed));
        assert!(Cell::all().all(|cell| Reach::ALL.has(cell)));
    }

    #[test]
    fn every_goal_and_every_group_that_a_profile_can_reach_is_reached_in_time() {
        let bounds = Profile::by_name("bounds").expect("there is one");
        let mut coverage = Coverage::within(Reach::of(bounds));
        let case = |case| generate(bounds, CaseName { seed: 3, case });
        (0..12_000).for_each(|number| coverage.count(&case(number)));
        assert_eq!(coverage.goals().1, []);
        let never: Vec<_> = coverage.lacking();
        let never: Vec<_> = never.iter().filter(|group| group.reached == 0).collect();
        assert_eq!(never, [] as [&super::super::Group; 0]);
    }
}
