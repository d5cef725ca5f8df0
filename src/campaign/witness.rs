//! The witness of every planted bug, as a scenario: the fewest operations that show it (`bugs.md`).
//!
//! The scenarios plant nothing themselves: whoever runs one puts the bug's name into its header, or
//! leaves it out and sees the honest array pass. Not covered: finding these by chance, and shrinking
//! to them.

use crate::block::{BlockSize, Extent, Freedoms, Geometry, Lba, LbaCount, Policy, Role};
use crate::scenario::{Check, Fault, Header, Label, Op, Scenario, Step, SyncSource};

/// Ten chunks and a partial one.
const LEN: u64 = 645;
/// The last LBA.
const LAST: u64 = LEN - 1;
/// A volume that has LBAs from 2^32 on.
const BIG_LEN: u64 = (1 << 32) + LEN;
/// A volume whose byte offsets pass 2^32.
const WIDE_LEN: u64 = (1 << 26) + LEN;
/// Draws an empty first page for the witness that needs one.
const EMPTY_PAGE_SEED: u64 = 3;

fn w(start: u64, lbas: u64) -> Op {
    Op::Write { at: Extent::lbas(start, lbas) }
}
fn z(start: u64, lbas: u64) -> Op {
    Op::Zero { at: Extent::lbas(start, lbas) }
}
fn d(start: u64, lbas: u64) -> Op {
    Op::Discard { at: Extent::lbas(start, lbas) }
}
fn read(snap: Option<u32>, start: u64, lbas: u64) -> Op {
    Op::Read { snap: snap.map(Label), at: Extent::lbas(start, lbas) }
}
fn s(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}
fn s_unwaited(label: u32) -> Op {
    Op::Take { label: Label(label), wait: false }
}
fn x(label: u32) -> Op {
    Op::Delete { label: Label(label), wait: true }
}
fn x_unwaited(label: u32) -> Op {
    Op::Delete { label: Label(label), wait: false }
}
fn on(volume: Role, op: Op) -> Op {
    Op::On { volume, op: Box::new(op) }
}
fn resize(lbas: u64) -> Op {
    Op::Resize { len: LbaCount::new(lbas) }
}
fn kill() -> Op {
    Op::Restart { clean: false }
}
fn restart() -> Op {
    Op::Restart { clean: true }
}
/// D(snap, base)
fn diff(snap: u32, base: u32) -> Op {
    let (snap, base) = (Label(snap), Some(Label(base)));
    Op::Diff { snap, base, from: Lba::new(0), between_pages: None }
}
/// D(snap)
fn full(snap: u32) -> Op {
    Op::Diff { snap: Label(snap), base: None, from: Lba::new(0), between_pages: None }
}
/// Y(snap, base), from the snapshot
fn sync(snap: u32, base: Option<u32>, during: Vec<Op>) -> Op {
    Op::Sync { snap: Label(snap), base: base.map(Label), from: SyncSource::Snapshot, during }
}
fn y(snap: u32) -> Op {
    sync(snap, None, Vec::new())
}

/// The witness of the planted bug of this name, on an honest target; `None` if there is no such bug.
pub fn witness(name: &str) -> Option<Scenario> {
    let found = lost(name).or_else(|| shape(name)).or_else(|| life(name));
    let ops = found.or_else(|| pipeline(name))?;
    let len = match name {
        "big-volume-wraps" => BIG_LEN,
        "seek-overflow-32bit" => WIDE_LEN,
        _ => LEN,
    };
    let fresh = name != "older-data-forgotten";
    let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(len), fresh };
    let volumes = [Role::Source, Role::Target, Role::Neighbour].map(|role| (role, shape)).into();
    let origin = format!("witness of {name}");
    let mut header = Header { page_limit: Some(1), ..Header::new(volumes, Policy::Exact, &origin) };
    if name == "empty-page-ends-walk" {
        header.freedoms = Freedoms { seed: EMPTY_PAGE_SEED, uneven_pages: true, ..Freedoms::NONE };
    }
    let mut scenario = Scenario::new(header, ops);
    match name {
        "metadata-io-error-ignored" => fault(&mut scenario.steps, 1, "metadata"),
        "short-write-ignored" => fault(&mut scenario.steps, 2, "short-write"),
        _ => {}
    }
    Some(scenario)
}

fn fault(steps: &mut [Step], step: usize, kind: &str) {
    if let Some(step) = steps.get_mut(step) {
        step.fault = Some(Fault { kind: kind.to_owned(), nth: 1 });
    }
}

/// Bugs of the array that lose changes.
fn lost(name: &str) -> Option<Vec<Op>> {
    Some(match name {
        "grow-aliases-tracking" => vec![resize(1280), w(1152, 1), s(0), full(0)],
        "write-during-delete-untracked" => vec![s(0), x_unwaited(0), w(3, 1), s(1), full(1)],
        "rollback-not-a-change" => {
            let back = Op::Rollback { label: Label(0) };
            vec![s(0), w(3, 1), s(1), back, s(2), diff(2, 1)]
        }
        "cut-race-loses-write" => {
            vec![s(0), Op::Concurrent(vec![s(1), w(3, 1)]), s(2), diff(2, 1)]
        }
        "dirty-dirty-equals-clean" => vec![w(3, 1), s(1), w(3, 1), s(2), diff(2, 1)],
        "discard-crash-transient-clean" => {
            vec![w(3, 1), s(0), d(3, 1), kill(), s(1), read(None, 3, 1), diff(1, 0)]
        }
        "clone-drops-parent-data" => {
            let clone = Op::Clone { label: Label(0), volume: Role::Clone };
            vec![w(0, 64), s(0), clone, on(Role::Clone, w(5, 1)), on(Role::Clone, s(1)), full(1)]
        }
        "era-lost-on-restart" => vec![s(0), w(3, 1), kill(), s(1), diff(1, 0)],
        "second-write-before-commit" => {
            vec![s(0), Op::Concurrent(vec![w(3, 1), w(3, 1)]), kill(), s(1), diff(1, 0)]
        }
        "metadata-io-error-ignored" => vec![s(0), w(3, 1), restart(), s(1), diff(1, 0)],
        "range-clear-rounds-outward" => vec![w(5, 1), d(6, 64), s(0), full(0)],
        "hole-birth-zero" => vec![w(0, 256), s(0), d(0, 256), w(100, 1), s(1), diff(1, 0)],
        "reborn-id-inherits" => {
            // On the neighbour: without its source volume a scenario cannot go on.
            let other = |op: Op| on(Role::Neighbour, op);
            let dead = Op::DeleteVolume { volume: Role::Neighbour };
            let reborn = Op::CreateVolume { volume: Role::Neighbour, same_id: true };
            let before = [other(w(3, 1)), other(s(0)), dead, reborn];
            let after = [other(s(1)), other(w(4, 1)), other(s(2)), diff(2, 1)];
            before.into_iter().chain(after).collect()
        }
        "shrink-grow-forgets" => {
            vec![w(640, 1), s(0), resize(100), resize(LEN), s(1), diff(1, 0)]
        }
        "last-range-not-flushed" | "partial-tail-chunk-lost" => vec![w(LAST, 1), s(0), full(0)],
        "merge-loses-map" => vec![w(3, 1), s(0), s(1), x(0), restart(), full(1)],
        "zero-over-data-ignored" => vec![w(3, 1), s(0), z(3, 1), s(1), diff(1, 0)],
        "discard-untracked" => vec![w(3, 1), s(0), d(3, 1), s(1), diff(1, 0)],
        "third-increment-shift" => vec![restart(), w(3, 1), s(1), w(7, 1), s(2), diff(2, 1)],
        "big-volume-wraps" => vec![w((1 << 32) + 7, 1), s(0), full(0)],
        "frozen-epochs-lost-on-kill" => vec![w(3, 1), s(0), kill(), full(0)],
        "bit63-dropped" => vec![w(63, 1), s(0), full(0)],
        "same-block-twice-toggles" => vec![w(3, 1), w(3, 1), s(0), full(0)],
        "unaligned-write-truncates" => vec![w(63, 2), s(0), full(0)],
        "bitmap-byte-swapped" => vec![w(1, 1), s(0), full(0)],
        _ => return None,
    })
}

/// Bugs of the array that put changes in the wrong place, or answer in a wrong shape.
fn shape(name: &str) -> Option<Vec<Op>> {
    Some(match name {
        "offset-inside-chunk-shifts" => {
            let from = Lba::new(65);
            let inside = Op::Diff { snap: Label(0), base: None, from, between_pages: None };
            vec![w(70, 1), s(0), inside]
        }
        "unsorted-pages" => vec![w(3, 1), w(128, 129), s(0), full(0)],
        "last-page-dropped" | "page-edge-skips-one" | "page-edge-repeats-shifted" => {
            vec![w(3, 1), w(66, 1), s(0), full(0)]
        }
        "resize-reports-everything" => vec![s(0), resize(LEN + 10), s(1), diff(1, 0)],
        "leaks-past-end-snapshot" => vec![s(0), s(1), w(3, 1), diff(1, 0)],
        "range-past-end" => vec![w(LAST, 1), resize(100), s(0), full(0)],
        "middle-delete-breaks-walk" => {
            let between_pages = Some((1, Box::new(x(1))));
            let (snap, base) = (Label(2), Some(Label(0)));
            let walk = Op::Diff { snap, base, from: Lba::new(0), between_pages };
            vec![s(0), w(3, 1), s(1), w(100, 1), s(2), walk]
        }
        "allocated-means-everything" => vec![s(0), full(0)],
        "idle-volume-churns" => vec![s(0), s(1), diff(1, 0)],
        "base-ignored" => vec![w(3, 1), s(0), s(1), diff(1, 0)],
        "nearest-base-used" => vec![s(0), w(3, 1), s(1), s(2), diff(2, 0)],
        "diff-cached-per-base" => vec![s(0), full(0), w(3, 1), s(1), full(1)],
        "neighbour-volume-leaks" => {
            vec![s(0), on(Role::Neighbour, w(3, 1)), s(1), diff(1, 0)]
        }
        "answer-varies" => {
            let same = Op::Rewrite { at: Extent::lbas(3, 1) };
            vec![w(3, 1), s(0), same, s(1), diff(1, 0), diff(1, 0)]
        }
        _ => return None,
    })
}

/// Bugs of the array about refusals, lives of snapshots, contents and speed.
fn life(name: &str) -> Option<Vec<Op>> {
    Some(match name {
        "snapshot-not-frozen" => vec![w(3, 1), s(0), w(3, 1), read(Some(0), 3, 1)],
        "rewrites-only-in-long-diffs" => {
            let same = Op::Rewrite { at: Extent::lbas(3, 1) };
            let asked = [diff(1, 0), diff(2, 1), diff(2, 0)];
            [w(3, 1), s(0), same, s(1), s(2)].into_iter().chain(asked).collect()
        }
        "inside-walk-elides-rewrites" => {
            let same = Op::Rewrite { at: Extent::lbas(3, 1) };
            let (snap, base) = (Label(1), Some(Label(0)));
            let inside = Op::Diff { snap, base, from: Lba::new(1), between_pages: None };
            vec![w(3, 1), s(0), same, s(1), diff(1, 0), inside]
        }
        "older-data-forgotten" => vec![s(0), full(0)],
        "self-diff-empty" => vec![s(0), diff(0, 0)],
        "deleted-base-answers" => vec![s(0), s(1), x(0), diff(1, 0)],
        "reversed-ends-empty" => vec![s(0), w(3, 1), s(1), diff(0, 1)],
        "foreign-base-answers" => vec![s(0), on(Role::Neighbour, s(1)), diff(0, 1)],
        "legal-base-refused" => vec![s(0), s(1), s(2), diff(2, 0)],
        // In the next two the waiting itself is judged; the diff after it is for honest targets, where
        // a run that compares nothing is no pass.
        "delete-never-finishes" => vec![s(0), x_unwaited(0), Op::Wait, full(0)],
        "create-never-available" => vec![s(0), full(0)],
        "slow-device" => {
            vec![w(3, 64), s(0), y(0), Op::Check(Check::Throughput { min_mib_per_s: 10 })]
        }
        "content-bit-flipped-on-write" => vec![w(3, 1), read(None, 3, 1)],
        _ => return None,
    })
}

/// Bugs of the copy pipeline.
fn pipeline(name: &str) -> Option<Vec<Op>> {
    Some(match name {
        "skips-zero-blocks" => {
            vec![w(3, 1), s(0), y(0), z(3, 1), s(1), sync(1, Some(0), Vec::new())]
        }
        "seek-overflow-32bit" => vec![w((1 << 26) + 7, 1), s(0), y(0)],
        "short-write-ignored" => vec![w(3, 2), s(0), y(0)],
        "last-partial-run-dropped" => vec![w(3, 2), s(0), y(0)],
        "run-coalesce-over-gap" => vec![w(0, 1), w(2, 1), s(0), y(0)],
        "empty-page-ends-walk" => vec![w(70, 1), s(0), y(0)],
        "chain-sorted-as-text" => {
            vec![w(3, 1), s(2), w(3, 1), s(10), Op::SyncChain { to: Label(10) }]
        }
        "live-source-torn" => vec![w(3, 1), s(0), sync(0, None, vec![w(3, 1)])],
        "reads-before-available" => vec![w(3, 1), s_unwaited(0), y(0)],
        "chunk-for-lba" => vec![w(64, 1), s(0), y(0)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::case::run_case;
    use super::super::selftest::Planted;
    use super::*;
    use crate::engine::Event;
    use crate::oracle::{Checks, Verdict};
    use crate::scenario::{read_trace, write_trace};
    use crate::sim::Bug;
    use crate::sync::PipelineBug;

    /// The verdict, and the index of the last step that was run.
    fn run(scenario: &Scenario) -> (Verdict, usize) {
        let mut last = 0;
        let outcome = run_case(scenario, Checks::ALL, &mut |event| {
            if let Event::Step { index, .. } = event {
                last = index;
            }
        });
        (outcome.expect("sets up").verdict, last)
    }

    fn witness_len(bug: Planted) -> usize {
        match bug {
            Planted::Array(bug) => bug.spec().witness_len as usize,
            Planted::Pipeline(bug) => bug.witness_len() as usize,
        }
    }

    #[test]
    fn every_bug_has_a_witness_that_reads_back_from_its_trace() {
        for bug in Planted::all() {
            let scenario = witness(bug.name()).unwrap_or_else(|| panic!("none for {}", bug.name()));
            let text = write_trace(&scenario).expect("writes");
            assert_eq!(read_trace(&text).expect("reads"), scenario);
        }
        assert_eq!(Bug::ALL.len() + PipelineBug::ALL.len(), Planted::all().len());
        assert_eq!(witness("no-such-bug"), None);
    }

    #[test]
    fn every_witness_passes_on_the_honest_target_and_fails_as_listed_with_its_bug() {
        let mut wrong = Vec::new();
        for bug in Planted::all() {
            let mut scenario = witness(bug.name()).expect("has a witness");
            let (honest, _) = run(&scenario);
            if honest != Verdict::Pass {
                wrong.push(format!("{}: honest {honest:?}", bug.name()));
            }
            scenario.header.planted = vec![bug.name().to_owned()];
            let (planted, at) = run(&scenario);
            // A check speaks of the step before it.
            let checks = matches!(scenario.steps[at].op, Op::Check(_));
            let steps_before = at - usize::from(checks);
            match &planted {
                Verdict::Fail(found)
                    if found.first().is_some_and(|v| bug.kinds().contains(&v.kind.name()))
                        && steps_before <= witness_len(bug) => {}
                other => wrong.push(format!("{}: step {at}, {other:?}", bug.name())),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
