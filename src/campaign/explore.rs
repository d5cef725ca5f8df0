//! Exhaustive checking in a small scope: every short sequence over a small alphabet of operations,
//! on the simulator in process. After each step every pair of snapshots is asked, reversed, self
//! and deleted ones included, and contents are read; that is judged but does not count as a step.
//!
//! Each sequence is run from the beginning by the interpreter, on a fresh simulator. Sequences that
//! end in the same state are continued once. A state is everything the future depends on: the
//! simulator (what planted bugs hide included), the shadow model, and the answers that laws compare
//! with. LBAs are not interchangeable here: bugs live at bit 63 and at the ends of chunks.
//!
//! Not covered: other volumes, operations in flight together, operations between two pages, faults,
//! legal freedoms. The search itself is `crate::engine::explore`.

use super::inproc::InProcess;
use crate::block::{
    BlockSize, Diagnosis, Extent, Geometry, Lba, LbaCount, Policy, Role, RunId, Stamp, diagnose,
};
use crate::engine::explore::{Explored, Limits, Path, Visit, World, explore};
use crate::engine::{Answers, run_answered};
use crate::model::Model;
use crate::oracle::{Checks, Reason, Verdict, Violation};
use crate::scenario::{Header, Label, Op, Scenario};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::time::Duration;

/// Fixed: a search is the same whoever runs it.
const RUN: RunId = RunId::from_u128(1);
/// LBAs of the volume at the start: one chunk and two more LBAs.
pub const START_LBAS: LbaCount = LbaCount::new(66);
/// LBAs after `grow`: more than two chunks.
pub const GROWN_LBAS: LbaCount = LbaCount::new(130);
/// LBAs after `shrink`: one chunk.
pub const SHRUNK_LBAS: LbaCount = LbaCount::new(64);
/// Snapshots of one sequence at most.
pub const LABELS: u32 = 3;
/// Extents that are written, zeroed and discarded: first LBA and length.
pub const EXTENTS: [(u64, u64); 5] = [(0, 1), (62, 1), (63, 1), (64, 1), (62, 4)];
/// A walk that starts inside a chunk starts here.
const INSIDE_CHUNK: Lba = Lba::new(63);

/// One letter of the alphabet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Letter {
    Write(u64, u64),
    Zero(u64, u64),
    Discard(u64, u64),
    /// Takes the next snapshot: names of snapshots mean nothing but their order.
    Take,
    Delete(u32),
    /// Deletes without waiting until it is gone.
    StartDelete(u32),
    Rollback(u32),
    Resize(LbaCount),
    Restart(bool),
}

/// The alphabet, in the order of its numbers.
fn alphabet() -> Vec<Letter> {
    let mut letters = Vec::new();
    for make in [Letter::Write, Letter::Zero, Letter::Discard] {
        letters.extend(EXTENTS.map(|(start, len)| make(start, len)));
    }
    letters.push(Letter::Take);
    for make in [Letter::Delete, Letter::StartDelete, Letter::Rollback] {
        letters.extend((0..LABELS).map(make));
    }
    letters.extend([GROWN_LBAS, SHRUNK_LBAS].map(Letter::Resize));
    letters.extend([true, false].map(Letter::Restart));
    letters
}

/// What a sequence has done to labels so far.
#[derive(Clone, Copy, Default)]
struct Labels {
    taken: u32,
    deleted: u32,
}

impl Labels {
    fn lives(self, label: u32) -> bool {
        label < self.taken && self.deleted >> label & 1 == 0
    }
    /// Whether a letter means anything now.
    fn admit(self, letter: Letter) -> bool {
        match letter {
            Letter::Take => self.taken < LABELS,
            Letter::Delete(label) | Letter::StartDelete(label) | Letter::Rollback(label) => {
                self.lives(label)
            }
            _ => true,
        }
    }
    fn after(mut self, letter: Letter) -> Labels {
        match letter {
            Letter::Take => self.taken += 1,
            Letter::Delete(label) | Letter::StartDelete(label) => self.deleted |= 1 << label,
            _ => {}
        }
        self
    }
}

impl Letter {
    fn op(self, labels: Labels) -> Op {
        let at = Extent::lbas;
        match self {
            Letter::Write(start, len) => Op::Write { at: at(start, len) },
            Letter::Zero(start, len) => Op::Zero { at: at(start, len) },
            Letter::Discard(start, len) => Op::Discard { at: at(start, len) },
            Letter::Take => Op::Take { label: Label(labels.taken), wait: true },
            Letter::Delete(label) => Op::Delete { label: Label(label), wait: true },
            Letter::StartDelete(label) => Op::Delete { label: Label(label), wait: false },
            Letter::Rollback(label) => Op::Rollback { label: Label(label) },
            Letter::Resize(len) => Op::Resize { len },
            Letter::Restart(clean) => Op::Restart { clean },
        }
    }
}

/// The alphabet for people, a line for each kind of operation.
pub fn describe() -> Vec<String> {
    let extents: Vec<String> =
        EXTENTS.iter().map(|&(start, len)| Extent::lbas(start, len).to_string()).collect();
    vec![
        format!("write, zero, discard at {}", extents.join(", ")),
        format!("take, delete, delete without waiting, rollback with {LABELS} labels"),
        format!("grow {START_LBAS} -> {GROWN_LBAS} LBAs, shrink to {SHRUNK_LBAS}"),
        "restart, kill".to_owned(),
        "after each step: every diff (full, all ordered pairs, self, deleted), from LBA 63,"
            .to_owned(),
        "and reads of every snapshot and of the volume at both ends of the alphabet".to_owned(),
    ]
}

/// Bugs whose witness needs what the alphabet has not, and what that is.
const OUT_OF_ALPHABET: [(&str, &str); 11] = [
    ("cut-race-loses-write", "operations in flight together"),
    ("clone-drops-parent-data", "clones"),
    ("metadata-io-error-ignored", "faults"),
    ("hole-birth-zero", "discards of more than a chunk"),
    ("reborn-id-inherits", "deleting and creating volumes"),
    ("big-volume-wraps", "LBAs of 2^32 and more"),
    ("middle-delete-breaks-walk", "an operation between two pages"),
    ("foreign-base-answers", "a second volume"),
    ("neighbour-volume-leaks", "a second volume"),
    ("answer-varies", "same-content rewrites"),
    ("slow-device", "a timed sync"),
];

/// What the witness of a bug needs that the alphabet has not; none if it lies in the alphabet.
pub fn out_of_alphabet(bug: &str) -> Option<&'static str> {
    OUT_OF_ALPHABET.iter().find(|(name, _)| *name == bug).map(|(_, needs)| *needs)
}

/// What is looked at after each step.
fn observations(labels: Labels, ops: &mut Vec<Op>) {
    let ends = [Extent::lbas(0, 1), Extent::lbas(62, 4)];
    let diff = |snap, base, from| Op::Diff { snap, base, from, between_pages: None };
    let all = || (0..labels.taken).map(Label);
    for snap in all() {
        ops.push(diff(snap, None, Lba::new(0)));
        ops.push(diff(snap, None, INSIDE_CHUNK));
        ops.extend(all().map(|base| diff(snap, Some(base), Lba::new(0))));
        if labels.lives(snap.0) {
            ops.extend(ends.map(|at| Op::Read { snap: Some(snap), at }));
        }
    }
    ops.extend(ends.map(|at| Op::Read { snap: None, at }));
}

/// A sequence that shows something wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScopeFinding {
    /// Its counted operations.
    pub ops: Vec<Op>,
    /// What is wrong.
    pub violation: Violation,
}

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScopeReport {
    /// Distinct states.
    pub states: u64,
    /// Sequences that were run.
    pub runs: u64,
    /// Sequences that ended in a known state.
    pub pruned: u64,
    /// Every sequence of so many operations was run, or is covered by one that was.
    pub depth: usize,
    /// Whether the whole stated space was.
    pub complete: bool,
    /// What is wrong, shortest sequences first.
    pub findings: Vec<ScopeFinding>,
    /// Sequences that could not be judged.
    pub unjudged: u64,
    /// Why the first of them could not.
    pub first_unjudged: Option<String>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// What is searched: these operations on a simulator with these planted bugs.
pub struct SmallScope {
    letters: Vec<Letter>,
    header: Header,
    checks: Checks,
}

impl SmallScope {
    /// The search's world with these bugs planted (by name) and these checks of the oracle.
    pub fn new(planted: &[&str], checks: Checks) -> SmallScope {
        let shape = Geometry { block: BlockSize::SMALLEST, len: START_LBAS, fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let header = Header {
            planted: planted.iter().map(|&name| name.to_owned()).collect(),
            // Paging is at work as soon as two chunks are reported.
            page_limit: Some(1),
            ..Header::new(volumes, Policy::Exact, "explore")
        };
        SmallScope { letters: alphabet(), header, checks }
    }

    /// Limits on every core of this machine.
    pub fn limits<'l>(
        depth: usize,
        max_states: u64,
        first_only: bool,
        expired: &'l (dyn Fn() -> bool + Sync),
    ) -> Limits<'l> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Limits { depth, max_states, jobs, prune: true, first_only, expired }
    }

    /// Searches it.
    pub fn search(&self, limits: &Limits<'_>) -> Explored<Box<Violation>> {
        explore(self, limits)
    }

    /// Searches it and says what came of it; `elapsed` tells the time since the start.
    pub fn report(&self, limits: &Limits<'_>, elapsed: &dyn Fn() -> Duration) -> ScopeReport {
        let explored = self.search(limits);
        let finding = |(path, violation): (Path, Box<Violation>)| ScopeFinding {
            ops: self.ops(&path),
            violation: *violation,
        };
        ScopeReport {
            states: explored.states,
            runs: explored.runs,
            pruned: explored.pruned,
            depth: explored.depth,
            complete: explored.complete,
            findings: explored.findings.into_iter().map(finding).collect(),
            unjudged: explored.dead_ends.0,
            first_unjudged: explored.dead_ends.1,
            took: elapsed(),
        }
    }

    fn letters<'p>(&'p self, path: &'p Path) -> impl Iterator<Item = Letter> + 'p {
        path.choices().iter().filter_map(|choice| self.letters.get(usize::from(*choice)).copied())
    }

    /// The counted operations of a sequence.
    pub fn ops(&self, path: &Path) -> Vec<Op> {
        let mut labels = Labels::default();
        let op = |letter: Letter| {
            let op = letter.op(labels);
            labels = labels.after(letter);
            op
        };
        self.letters(path).map(op).collect()
    }

    /// The sequence with everything that is looked at in between.
    pub fn scenario(&self, path: &Path) -> Scenario {
        let (mut ops, mut labels) = (Vec::new(), Labels::default());
        for letter in self.letters(path) {
            ops.push(letter.op(labels));
            labels = labels.after(letter);
            observations(labels, &mut ops);
        }
        Scenario::new(self.header.clone(), ops)
    }
}

impl World for SmallScope {
    type Finding = Box<Violation>;

    fn choices(&self, path: &Path) -> Vec<u8> {
        let labels = self.letters(path).fold(Labels::default(), Labels::after);
        (0..)
            .zip(&self.letters)
            .filter(|(_, letter)| labels.admit(**letter))
            .map(|(n, _)| n)
            .collect()
    }

    fn visit(&self, path: &Path) -> Visit<Box<Violation>> {
        let target = match InProcess::of_header(&self.header, RUN) {
            Ok(target) => target,
            Err(error) => return Visit::DeadEnd(error.to_string()),
        };
        let (mut sut, mut model) = (target.sut(), target.model());
        sut.checks = self.checks;
        let (verdict, answers) =
            run_answered(&self.scenario(path), &mut model, &mut sut, &mut |_| ());
        match verdict {
            Verdict::Fail(violations) => match violations.into_iter().next() {
                Some(violation) => Visit::Finding(Box::new(violation)),
                None => Visit::DeadEnd("a failure without a violation".to_owned()),
            },
            Verdict::Pass | Verdict::Unknown(Reason::NothingCompared) => {
                Visit::State(state(&target, &model, &answers))
            }
            Verdict::Unknown(reason) => Visit::DeadEnd(reason.to_string()),
        }
    }
}

/// Everything the future of a sequence depends on, as one number. Writes are numbered by where
/// they are first met, so that it does not count in which order equal contents came about.
fn state(target: &InProcess, model: &Model, answers: &Answers) -> u128 {
    let mut names = Names::default();
    let mut hasher = Sha256::new();
    for word in target.array().fingerprint(&mut |lba, block| names.of_block(lba, block)) {
        hasher.update(word.to_le_bytes());
    }
    let mut text =
        Text { names: &mut names, text: String::with_capacity(4096), field: Field::Plain };
    // Writing into a string does not fail.
    let _ = write!(text, "{model:?}");
    let mut sorted: Vec<_> = answers.iter().collect();
    sorted.sort_by_key(|(pair, _)| **pair);
    for (pair, set) in sorted {
        let _ = write!(text, "{pair:?}{set:?}");
    }
    hasher.update(text.text.as_bytes());
    let digest = hasher.finalize();
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Numbers of writes, renamed by where they are first met.
#[derive(Default)]
struct Names {
    generations: HashMap<u64, u64>,
}

impl Names {
    fn of(&mut self, generation: u64) -> u64 {
        let next = self.generations.len() as u64 + 1;
        *self.generations.entry(generation).or_insert(next)
    }

    /// A whole block of this volume goes by its write; anything else by its bytes.
    fn of_block(&mut self, lba: u64, block: &[u8]) -> u64 {
        let expected =
            Stamp { run: RUN, volume: Role::Source, lba: Lba::new(lba), generation: u64::MAX };
        match diagnose(block, &expected) {
            Diagnosis::Stale { found } => self.of(found),
            _ => {
                let digest = Sha256::digest(block);
                let bits = digest.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
                // Far away from the small numbers of writes.
                bits | 1 << 63
            }
        }
    }
}

/// What the digits to come belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Plain,
    /// Inside a stamp.
    Stamp,
    Generation,
    /// A counter that only ever tells whether something changed since the last look; everything was
    /// looked at after the last step.
    Counter,
}

/// Takes the model's debug form, in which no field can be forgotten, and renames the numbers of
/// writes in it. Were that form to change, states would be told apart that are equal: slower, never
/// wrong.
struct Text<'n> {
    names: &'n mut Names,
    text: String,
    field: Field,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        match (self.field, part) {
            (_, "Stamp") => self.field = Field::Stamp,
            (Field::Stamp, "generation") => self.field = Field::Generation,
            (Field::Plain, "generation" | "version") => self.field = Field::Counter,
            (Field::Generation | Field::Counter, ": ") => {}
            (Field::Counter, _) => {
                self.field = Field::Plain;
                return Ok(());
            }
            (Field::Generation, _) => {
                self.field = Field::Plain;
                return match part.parse() {
                    Ok(generation) => write!(self.text, "{}", self.names.of(generation)),
                    Err(_) => self.text.write_str(part),
                };
            }
            (Field::Stamp | Field::Plain, _) => {}
        }
        self.text.write_str(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::selftest::Planted;
    use std::collections::BTreeSet;

    fn search(bug: &str, depth: usize, prune: bool) -> Explored<Box<Violation>> {
        let limits = SmallScope::limits(depth, u64::MAX, true, &|| false);
        SmallScope::new(&[bug], Checks::ALL).search(&Limits { prune, ..limits })
    }

    fn path(choices: &[u8]) -> Path {
        choices.iter().fold(Path::default(), |path, &choice| path.then(choice).expect("short"))
    }

    /// The number of the state that a sequence of letters ends in.
    fn state_after(planted: &[&str], letters: &[Letter]) -> u128 {
        let scope = SmallScope::new(planted, Checks::ALL);
        let number = |letter: &Letter| scope.letters.iter().position(|own| own == letter);
        let numbers: Vec<u8> = letters
            .iter()
            .map(|letter| u8::try_from(number(letter).expect("in the alphabet")).expect("small"))
            .collect();
        match scope.visit(&path(&numbers)) {
            Visit::State(state) => state,
            other => panic!("{letters:?}: {other:?}"),
        }
    }

    #[test]
    fn pruning_loses_no_bug_and_no_operation_of_a_shortest_sequence() {
        for bug in Planted::array_side() {
            let (pruned, all) = (search(bug.name(), 2, true), search(bug.name(), 2, false));
            assert!(pruned.runs < all.runs || !all.findings.is_empty(), "{}", bug.name());
            let first = |found: &Explored<Box<Violation>>| {
                found.findings.first().map(|(path, found)| (path.choices().len(), found.kind))
            };
            assert_eq!(first(&pruned), first(&all), "{}", bug.name());
        }
        // One bug of each sort that hides something for several steps.
        for bug in ["same-block-twice-toggles", "leaks-past-end-snapshot", "grow-aliases-tracking"]
        {
            let (pruned, all) = (search(bug, 3, true), search(bug, 3, false));
            let length = |found: &Explored<Box<Violation>>| {
                found.findings.first().map(|(path, _)| path.choices().len())
            };
            assert!(length(&all).is_some(), "{bug}");
            assert_eq!(length(&pruned), length(&all), "{bug}");
        }
    }

    #[test]
    fn the_order_of_writes_elsewhere_is_forgotten_and_their_places_are_not() {
        let (zero, last) = (Letter::Write(0, 1), Letter::Write(63, 1));
        assert_eq!(state_after(&[], &[zero, last]), state_after(&[], &[last, zero]));
        assert_eq!(state_after(&[], &[zero]), state_after(&[], &[zero, zero]));
        let different: [&[Letter]; 8] = [
            &[],
            &[zero],
            &[last],
            &[Letter::Take],
            &[Letter::Zero(0, 1)],
            &[zero, Letter::Take],
            &[Letter::Take, zero],
            &[Letter::Resize(GROWN_LBAS)],
        ];
        let states: BTreeSet<u128> =
            different.iter().map(|letters| state_after(&[], letters)).collect();
        assert_eq!(states.len(), different.len());
    }

    #[test]
    fn what_a_planted_bug_hides_tells_states_apart() {
        let twice = [Letter::Write(0, 1), Letter::Write(0, 1)];
        for (bug, differs) in [
            ("bit63-dropped", false),
            ("same-block-twice-toggles", true),
            ("second-write-before-commit", true),
        ] {
            let once = state_after(&[bug], &twice[..1]);
            assert_eq!(once != state_after(&[bug], &twice), differs, "{bug}");
        }
        let (take, discard) = (Letter::Take, Letter::Discard(0, 1));
        let bug = ["discard-crash-transient-clean"];
        let zeroed = state_after(&bug, &[take, Letter::Zero(0, 1)]);
        assert_ne!(zeroed, state_after(&bug, &[take, discard]));
        assert_eq!(
            state_after(&[], &[take, Letter::Zero(0, 1)]),
            state_after(&[], &[take, discard]),
            "an honest array forgets by what a block became zero"
        );
    }

    #[test]
    fn the_honest_simulator_shows_nothing_and_nothing_is_left_unjudged() {
        let limits = SmallScope::limits(3, u64::MAX, false, &|| false);
        let found = SmallScope::new(&[], Checks::ALL).search(&limits);
        assert_eq!(found.dead_ends, (0, None));
        assert!(found.complete && found.findings.is_empty(), "{:?}", found.findings);
        assert!(found.pruned > found.states, "pruning is at work");
    }

    #[test]
    fn names_out_of_the_alphabet_are_planted_bugs() {
        for (name, _) in OUT_OF_ALPHABET {
            assert!(Planted::from_name(name).is_some(), "{name}");
        }
    }
}
