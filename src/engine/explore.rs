//! Exhaustive search over short sequences: every sequence of choices up to a depth is run, and
//! sequences that end in the same state are continued only once.
//!
//! Pure: what a choice is, how a sequence is run and when two states are the same is the
//! [`World`]'s business; so is the clock. Breadth-first, so that the first finding is a shortest
//! one. The result does not depend on the number of threads (but for a search that runs out of
//! time).
//!
//! The crate `stateright` (0.31) does such searches and is not used. It wants a state that can be
//! cloned, hashed and sent to other threads; here a state is a live array behind a port, driven by
//! the one interpreter of this program, and a second transition function beside it could disagree
//! with it. It also takes states whose 64-bit hashes agree for equal, which would silently leave
//! out sequences; here the hash has 128 bits. Not covered: what is searched (`crate::campaign`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Longest sequence that can be searched.
pub const MAX_DEPTH: usize = 14;

/// Sequences handed out before their results are put together.
const ROUND: usize = 2048;
/// Sequences a thread takes at a time.
const PORTION: usize = 16;

/// A sequence of choices, each a number that the world gives a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Path {
    len: u8,
    choices: [u8; MAX_DEPTH],
}

impl Path {
    /// The choices in order.
    pub fn choices(&self) -> &[u8] {
        &self.choices[..usize::from(self.len)]
    }
    /// The sequence with one more choice; none if it would be longer than [`MAX_DEPTH`].
    pub fn then(mut self, choice: u8) -> Option<Path> {
        *self.choices.get_mut(usize::from(self.len))? = choice;
        self.len += 1;
        Some(self)
    }
}

/// What running a sequence came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visit<F> {
    /// Nothing wrong; the number is equal only for states with equal futures.
    State(u128),
    /// Something is wrong; the sequence is not continued.
    Finding(F),
    /// It could not be told; the sequence is not continued, and the search is not complete.
    DeadEnd(String),
}

/// What is searched.
pub trait World: Sync {
    /// What can be wrong.
    type Finding: Send;
    /// Choices that mean something after `path`.
    fn choices(&self, path: &Path) -> Vec<u8>;
    /// Runs a sequence from the beginning.
    fn visit(&self, path: &Path) -> Visit<Self::Finding>;
}

/// How far to search.
pub struct Limits<'a> {
    /// Longest sequence; at most [`MAX_DEPTH`].
    pub depth: usize,
    /// Distinct states at most.
    pub max_states: u64,
    /// Threads.
    pub jobs: usize,
    /// Whether sequences that end in a known state are left alone; switched off only to show that
    /// nothing is lost by it.
    pub prune: bool,
    /// Whether the first finding ends the search.
    pub first_only: bool,
    /// Asked now and then: whether to end the search now.
    pub expired: &'a (dyn Fn() -> bool + Sync),
}

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explored<F> {
    /// Distinct states reached, the first one included.
    pub states: u64,
    /// Sequences that were run.
    pub runs: u64,
    /// Sequences that ended in a known state.
    pub pruned: u64,
    /// Every sequence up to this length was run or is covered by one that was.
    pub depth: usize,
    /// Whether that is the depth asked for and nothing was left out.
    pub complete: bool,
    /// Sequences that showed something wrong, shortest first.
    pub findings: Vec<(Path, F)>,
    /// Sequences that could not be judged, and why the first could not.
    pub dead_ends: (u64, Option<String>),
}

impl<F> Explored<F> {
    fn new() -> Explored<F> {
        Explored {
            states: 1,
            runs: 0,
            pruned: 0,
            depth: 0,
            complete: false,
            findings: Vec::new(),
            dead_ends: (0, None),
        }
    }
}

/// Searches `world`, shortest sequences first.
pub fn explore<W: World>(world: &W, limits: &Limits<'_>) -> Explored<W::Finding> {
    let mut found = Explored::new();
    let mut known: HashSet<u128> = HashSet::new();
    let mut frontier = vec![Path::default()];
    if let Visit::State(start) = world.visit(&Path::default()) {
        known.insert(start);
    }
    let depth = limits.depth.min(MAX_DEPTH);
    for level in 1..=depth {
        let mut next = Vec::new();
        for round in frontier.chunks(ROUND) {
            for (path, visit) in run_round(world, limits, round) {
                found.runs += 1;
                match visit {
                    Visit::State(state) if limits.prune && !known.insert(state) => {
                        found.pruned += 1;
                    }
                    Visit::State(_) => {
                        found.states += 1;
                        if level < depth {
                            next.push(path);
                        }
                    }
                    Visit::Finding(finding) => found.findings.push((path, finding)),
                    Visit::DeadEnd(why) => {
                        found.dead_ends.0 += 1;
                        found.dead_ends.1.get_or_insert(why);
                    }
                }
            }
            let enough = limits.first_only && !found.findings.is_empty();
            if enough || found.states > limits.max_states || (limits.expired)() {
                return found;
            }
        }
        found.depth = level;
        frontier = next;
    }
    found.complete = found.dead_ends.0 == 0;
    found
}

/// Runs every continuation of the sequences of one round, in their order.
fn run_round<W: World>(
    world: &W,
    limits: &Limits<'_>,
    round: &[Path],
) -> Vec<(Path, Visit<W::Finding>)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let portions: Vec<&[Path]> = round.chunks(PORTION).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(portion) = portions.get(index).filter(|_| !(limits.expired)()) else { return };
            let mut visits = Vec::new();
            for path in *portion {
                let continued = world.choices(path).into_iter().filter_map(|c| path.then(c));
                visits.extend(continued.map(|path| (path, world.visit(&path))));
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, visits));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..limits.jobs {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().flat_map(|(_, visits)| visits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that choices add to; wrong at 7, out of reach above 20.
    struct Counter;

    fn sum(path: &Path) -> u32 {
        path.choices().iter().copied().map(u32::from).sum()
    }

    impl World for Counter {
        type Finding = u32;
        fn choices(&self, _: &Path) -> Vec<u8> {
            vec![1, 2, 3]
        }
        fn visit(&self, path: &Path) -> Visit<u32> {
            match sum(path) {
                7 => Visit::Finding(7),
                above @ 21.. => Visit::DeadEnd(format!("{above} is out of reach")),
                other => Visit::State(other.into()),
            }
        }
    }

    fn limits(depth: usize, prune: bool, first_only: bool, jobs: usize) -> Limits<'static> {
        Limits { depth, max_states: u64::MAX, jobs, prune, first_only, expired: &|| false }
    }

    #[test]
    fn a_state_is_continued_once_and_every_state_is_reached() {
        let found = explore(&Counter, &limits(2, true, false, 1));
        // 1 to 6 beside the start; 2 and 3 are reached again by 1+1, 1+2, 2+1, and 4, 5 twice.
        assert_eq!((found.states, found.runs, found.pruned), (7, 12, 6));
        assert!(found.complete && found.depth == 2 && found.findings.is_empty());
        let all = explore(&Counter, &limits(2, false, false, 1));
        assert_eq!((all.states, all.runs, all.pruned), (13, 12, 0));
    }

    #[test]
    fn the_first_finding_is_a_shortest_one_and_is_not_continued() {
        let found = explore(&Counter, &limits(9, true, true, 1));
        let (path, finding) = &found.findings[0];
        assert_eq!((path.choices().len(), *finding), (3, 7));
        assert!(!found.complete && found.depth == 2);
        let all = explore(&Counter, &limits(4, true, false, 1));
        assert!(all.findings.iter().all(|(path, _)| sum(path) == 7));
        assert!(all.complete);
    }

    #[test]
    fn threads_change_nothing() {
        for first_only in [false, true] {
            let one = explore(&Counter, &limits(7, true, first_only, 1));
            assert_eq!(one, explore(&Counter, &limits(7, true, first_only, 3)));
        }
    }

    #[test]
    fn what_was_left_out_is_never_called_complete() {
        let dead = explore(&Counter, &limits(9, false, false, 2));
        assert!(!dead.complete && dead.dead_ends.0 > 0, "{:?}", dead.dead_ends);
        let few = Limits { max_states: 4, ..limits(5, true, false, 1) };
        let few = explore(&Counter, &few);
        assert!(!few.complete && few.depth < 5);
        let late = Limits { expired: &|| true, ..limits(5, true, false, 1) };
        let late = explore(&Counter, &late);
        assert!(!late.complete && late.depth == 0 && late.runs == 0);
    }
}
