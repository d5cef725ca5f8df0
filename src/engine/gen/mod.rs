//! The generator: draws scenarios over the whole alphabet of operations.
//!
//! Every case is a random subset of moves with random weights (swarm), around one focus that the
//! case number alone decides, on places biased towards boundaries; it ends in observing steps. A
//! move that means nothing in the present state (a rollback before any snapshot) is drawn again, so
//! that rare moves get their turn as soon as they can happen. One generator serves three sources of
//! choices ([`Entropy`]): a seeded one for the bulk, a fuzzer's bytes, a property test's words.
//! [`Coverage`] counts what cases reach, and some cases aim at what is seldom reached. Not covered:
//! what is right (`crate::oracle`).

mod aim;
mod bytes;
mod change;
mod coverage;
mod coverage_cells;
mod coverage_walk;
mod entropy;
mod focus;
mod goals;
mod kind;
mod name;
mod observe;
mod place;
mod profile;
mod reach;
mod world;

#[cfg(test)]
mod strategy;
#[cfg(test)]
mod tests;

pub use coverage::{Coverage, CoverageRecord, Group};
pub use entropy::{Entropy, Seeded, Words};
pub use goals::Goal;
pub use name::{BadCaseName, CaseName, GENERATOR_VERSION};
pub use profile::{Offers, PROFILES, Profile};
pub use reach::Reach;

use crate::block::Role;
use crate::scenario::{Label, Op, Scenario, Step, SyncSource};
use focus::Focus;
use kind::{KINDS, Kind};
use world::State;

/// Draws a case: a pure function of the profile and the name.
pub fn generate(profile: &Profile, name: CaseName) -> Scenario {
    let mut entropy = Seeded::new(name.seed, name.case);
    let mut scenario = generate_from(profile, name.case, &mut entropy);
    scenario.header.seed = Some(name.seed);
    scenario.header.origin = format!("{name} {}", profile.name);
    scenario
}

/// Draws a case with the focus of that case number from any source of choices.
pub fn generate_from<E: Entropy>(profile: &Profile, case: u64, entropy: &mut E) -> Scenario {
    let focus = focus::of_case(profile, case);
    let (header, state) = world::draw(entropy, profile, focus);
    let (least, most) = profile.steps;
    let wanted = u64::from(least) + entropy.below(u64::from(most - least) + 1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let steps = Vec::with_capacity(wanted + 16);
    let mut draw = Draw { entropy, profile, state, steps, last_diff: None, last_sync: None };
    if let Some(aim) = aim::of_case(case) {
        draw.aim(aim);
    }
    draw.body(focus, wanted);
    draw.epilogue();
    Scenario { header, steps: draw.steps }
}

/// Name of what cases of that number concentrate on, for reports.
pub fn focus_name(profile: &Profile, case: u64) -> &'static str {
    focus::of_case(profile, case).name
}

/// A move that was made; `None` if it means nothing in the present state.
type Moved = Option<()>;

/// A case in the making.
struct Draw<'d, E> {
    entropy: &'d mut E,
    profile: &'d Profile,
    state: State,
    steps: Vec<Step>,
    last_diff: Option<(Label, Option<Label>)>,
    last_sync: Option<(SyncSource, (Label, Option<Label>))>,
}

/// The moves of one case, each as often as its weight.
struct Swarm {
    moves: [Kind; Swarm::MOST],
    count: usize,
}

impl Swarm {
    const MOST: usize = 512;

    /// A random subset of the moves that the target offers, with random weights.
    fn draw<E: Entropy>(entropy: &mut E, profile: &Profile) -> Swarm {
        let mut swarm = Swarm { moves: [Kind::Write; Swarm::MOST], count: 1 };
        swarm.add(Kind::Take, 1);
        swarm.add(Kind::DiffAny, 1);
        let mut word = 0u64;
        for (nth, &(kind, weight, needs)) in KINDS.iter().enumerate() {
            // Two bits for each kind: off, usual, usual, three times as much.
            if nth.is_multiple_of(32) {
                word = entropy.word();
            }
            let factor = [1, 0, 1, 3][(word & 3) as usize];
            word >>= 2;
            if profile.offers.has(needs) {
                swarm.add(kind, usize::from(weight) * factor);
            }
        }
        swarm
    }

    fn add(&mut self, kind: Kind, times: usize) {
        for free in self.moves.iter_mut().skip(self.count).take(times) {
            *free = kind;
            self.count += 1;
        }
    }

    fn pick<E: Entropy>(&self, entropy: &mut E) -> Kind {
        let at = usize::try_from(entropy.below(self.count as u64)).unwrap_or(0);
        self.moves[at]
    }
}

/// What a burst is made of.
const BURST: [Kind; 8] = [
    Kind::Write,
    Kind::Write,
    Kind::Write,
    Kind::WriteAgain,
    Kind::WriteBeside,
    Kind::WriteSeam,
    Kind::Rewrite,
    Kind::Zero,
];

/// Moves drawn again before a plain write is made instead.
const TRIES: u32 = 6;

impl<E: Entropy> Draw<'_, E> {
    /// The steps before the observing ones.
    fn body(&mut self, focus: &Focus, wanted: usize) {
        let swarm = Swarm::draw(self.entropy, self.profile);
        // Half of the focused cases are little more than their motif.
        let pure = !focus.motif.is_empty() && self.entropy.chance(1, 2);
        let mut motif: &[Kind] = if pure { focus.motif } else { &[] };
        while self.steps.len() < wanted && !self.entropy.is_spent() {
            if motif.is_empty() && self.entropy.chance(if pure { 3 } else { 1 }, 8) {
                motif = focus.motif;
            }
            // Never in the middle of a motif, whose steps belong together.
            if motif.is_empty() || motif.len() == focus.motif.len() {
                self.burst();
            }
            match motif.split_first() {
                Some((&next, rest)) if !self.entropy.chance(1, 10) => {
                    self.make(next);
                    motif = rest;
                }
                _ => self.random(&swarm),
            }
        }
    }

    /// Small changes all over the source, as many as the profile wants between two other moves.
    fn burst(&mut self) {
        let most = u64::from(self.profile.burst);
        if most == 0 {
            return;
        }
        for _ in 0..self.entropy.below(most + 1) {
            let kind = self.entropy.pick(&BURST);
            self.make(kind);
        }
    }

    /// A random move that means something here.
    fn random(&mut self, swarm: &Swarm) {
        for _ in 0..TRIES {
            let kind = swarm.pick(self.entropy);
            if self.make(kind).is_some() {
                return;
            }
        }
        self.change(Kind::Write);
    }

    fn make(&mut self, kind: Kind) -> Moved {
        use Kind::*;
        // A motif may hold moves that this target does not offer.
        let (_, _, needs) = KINDS[kind as usize];
        if !self.profile.offers.has(needs) {
            return None;
        }
        match kind {
            Write | WriteAgain | WriteInside | WriteBeside | WriteSeam | WriteTail | WriteBig
            | WriteHigh | WriteAbove | WriteFaulty | Rewrite | RewriteAgain | Zero | ZeroAgain
            | WriteZeroes | Discard | DiscardAgain | DiscardAround | DiscardWhole => {
                self.change(kind)
            }
            Flush | Take | TakeUnwaited | Delete | DeleteMiddle | DeleteOldest | DeleteUnwaited
            | Wait => self.snapshots(kind),
            RaceCut | RaceWrites => self.race(kind),
            ReadLive | ReadSnap => self.read(kind),
            DiffNew | DiffFull | DiffSkip | DiffAny | DiffReversed | DiffSelf | DiffDeleted
            | DiffForeign | DiffRelated | DiffFrom | DiffInside | DiffBetween | DiffAgain
            | DiffClone | DiffNeighbour => self.diff(kind),
            SyncNew | SyncFull | SyncAny | SyncLive | SyncDuring | SyncAgain | SyncChain
            | SyncShort => self.sync(kind),
            Rollback | Grow | Shrink | ShrinkGrow | Restart | Kill | ReviveSource
            | ReviveNeighbour => self.lifecycle(kind),
            DirtyTarget | MakeClone | CloneWrite | CloneTake | NeighbourWrite | NeighbourTake => {
                self.elsewhere(kind)
            }
        }
    }

    fn push(&mut self, op: Op) -> Moved {
        self.steps.push(Step { op, fault: None });
        Some(())
    }

    fn push_on(&mut self, role: Role, op: Op) -> Moved {
        match role {
            Role::Source => self.push(op),
            volume => self.push(Op::On { volume, op: Box::new(op) }),
        }
    }
}
