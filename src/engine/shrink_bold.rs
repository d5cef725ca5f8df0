//! Bolder candidates of the shrinker: each changes two things at once, where one alone would only
//! make a scenario heavier or not show it any more. All have fewer steps than the original, or as many
//! and plainer ones.
//!
//! Not covered: whether a candidate still shows anything (`super::shrink`).

use super::shrink_parts::{each_extent, each_label, each_op};
use crate::block::{Extent, Lba, Role};
use crate::scenario::{Label, Op, Scenario, Step, SyncSource};

/// Longer scenarios are left to the plain candidates first.
const STEPS: usize = 14;
/// Snapshots and extents that new observing steps speak of.
const KNOWN: usize = 4;

/// Every bold candidate.
pub(super) fn bold_candidates(scenario: &Scenario) -> Vec<(&'static str, Scenario)> {
    let mut found: Vec<(&'static str, Scenario)> =
        without_a_base(scenario).map(|candidate| ("base left out", candidate)).collect();
    if scenario.steps.len() <= STEPS {
        let observed = observed_otherwise(scenario);
        found.extend(observed.into_iter().map(|candidate| ("plainer observation", candidate)));
        let replaced = replaced_and_dropped(scenario);
        found.extend(replaced.into_iter().map(|candidate| ("plainer step", candidate)));
    }
    found
}

fn with_steps(scenario: &Scenario, steps: Vec<Step>) -> Scenario {
    Scenario { header: scenario.header.clone(), steps }
}

fn names(op: &Op, label: Label) -> bool {
    let mut found = false;
    each_label(&mut op.clone(), &mut |named| found |= *named == label);
    found
}

/// Without one of the snapshots: what it was a base of is asked since creation instead.
fn without_a_base(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    let bases = labels(scenario).into_iter();
    bases.map(|gone| {
        let mut steps = scenario.steps.clone();
        for step in &mut steps {
            if let Op::Diff { base, .. } | Op::Sync { base, .. } = &mut step.op
                && *base == Some(gone)
            {
                *base = None;
            }
        }
        steps.retain(|step| !names(&step.op, gone));
        with_steps(scenario, steps)
    })
}

/// The snapshots that are taken, in order.
fn labels(scenario: &Scenario) -> Vec<Label> {
    labels_of(&scenario.steps)
}

fn labels_of(steps: &[Step]) -> Vec<Label> {
    let mut taken = Vec::new();
    for step in steps {
        each_op(&step.op, &mut |op| {
            if let Op::Take { label, .. } = op {
                taken.push(*label);
            }
        });
    }
    taken
}

/// The extents of all operations, the latest first.
fn extents(scenario: &Scenario) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    each_extent(&mut scenario.clone(), &mut |at, _| {
        found.retain(|known| known != at);
        found.insert(0, *at);
    });
    found.truncate(KNOWN);
    found
}

/// The plainest steps that could show something after `steps`.
fn observers(steps: &[Step], extents: &[Extent]) -> Vec<Op> {
    let mut found: Vec<Op> = extents.iter().map(|&at| Op::Read { snap: None, at }).collect();
    let taken = labels_of(steps);
    let newest = &taken[taken.len().saturating_sub(KNOWN)..];
    let diff = |snap, base| Op::Diff { snap, base, from: Lba::new(0), between_pages: None };
    for (place, &snap) in newest.iter().enumerate() {
        found.push(diff(snap, None));
        found.extend(newest[..place].iter().map(|&base| diff(snap, Some(base))));
        found.extend(extents.iter().map(|&at| Op::Read { snap: Some(snap), at }));
        let (base, from, during) = (None, SyncSource::Snapshot, Vec::new());
        found.push(Op::Sync { snap, base, from, during });
    }
    found
}

/// Another last step, with one of the steps before it left out, or some of the last.
fn observed_otherwise(scenario: &Scenario) -> Vec<Scenario> {
    let extents = extents(scenario);
    let Some(before) = scenario.steps.len().checked_sub(1) else { return Vec::new() };
    let mut prefixes: Vec<Vec<Step>> = Vec::new();
    for len in (before.saturating_sub(3)..=before).rev() {
        prefixes.push(scenario.steps[..len].to_vec());
        prefixes.extend((0..len).map(|left_out| without(&scenario.steps[..len], left_out)));
    }
    let mut found = Vec::new();
    for prefix in prefixes {
        for op in observers(&prefix, &extents) {
            let mut steps = prefix.clone();
            steps.push(op.into());
            found.push(with_steps(scenario, steps));
        }
    }
    found.sort_by_key(|candidate| candidate.steps.len());
    found
}

fn without(steps: &[Step], left_out: usize) -> Vec<Step> {
    let others = steps.iter().enumerate().filter(|(place, _)| *place != left_out);
    others.map(|(_, step)| step.clone()).collect()
}

/// One step that does much made a plain write, with another one left out.
fn replaced_and_dropped(scenario: &Scenario) -> Vec<Scenario> {
    let at = extents(scenario).first().copied().unwrap_or(Extent::lbas(0, 1));
    let others = scenario.header.volumes.keys().filter(|&&role| role != Role::Source);
    let on = |&volume: &Role| Op::On { volume, op: Box::new(Op::Write { at: Extent::lbas(0, 1) }) };
    let plain: Vec<Op> = others.map(on).chain([Op::Write { at }]).collect();
    let mut found = Vec::new();
    for place in 0..scenario.steps.len() {
        if !does_much(&scenario.steps[place].op) {
            continue;
        }
        for op in &plain {
            let mut steps = scenario.steps.clone();
            steps[place] = op.clone().into();
            let dropped = (0..steps.len()).filter(|&other| other != place);
            found.extend(dropped.map(|other| with_steps(scenario, without(&steps, other))));
        }
    }
    found
}

const fn does_much(op: &Op) -> bool {
    matches!(
        op,
        Op::Sync { .. }
            | Op::SyncChain { .. }
            | Op::Rollback { .. }
            | Op::Resize { .. }
            | Op::Concurrent(_)
            | Op::Clone { .. }
            | Op::CreateVolume { .. }
            | Op::DeleteVolume { .. }
            | Op::Diff { between_pages: Some(_), .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Geometry, LbaCount, Policy};
    use crate::scenario::Header;

    fn scenario(ops: Vec<Op>) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(128), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops)
    }

    fn take(label: u32) -> Op {
        Op::Take { label: Label(label), wait: true }
    }

    fn diff(snap: u32, base: Option<u32>) -> Op {
        let (snap, base) = (Label(snap), base.map(Label));
        Op::Diff { snap, base, from: Lba::new(0), between_pages: None }
    }

    fn holds(candidates: &[(&str, Scenario)], ops: Vec<Op>) -> bool {
        let steps = scenario(ops).steps;
        candidates.iter().any(|(_, candidate)| candidate.steps == steps)
    }

    #[test]
    fn a_base_goes_together_with_its_snapshot() {
        let write = Op::Write { at: Extent::lbas(63, 1) };
        let start = scenario(vec![take(0), write.clone(), take(1), diff(1, Some(0))]);
        let candidates = bold_candidates(&start);
        assert!(holds(&candidates, vec![write, take(1), diff(1, None)]));
    }

    #[test]
    fn a_snapshot_is_read_instead_of_copied_after_more_steps() {
        let write = Op::Write { at: Extent::lbas(3, 1) };
        let rollback = Op::Rollback { label: Label(0) };
        let (base, from, during) = (None, SyncSource::Snapshot, Vec::new());
        let sync = Op::Sync { snap: Label(1), base, from, during };
        let start = scenario(vec![take(0), write.clone(), rollback, take(1), sync]);
        let read = Op::Read { snap: Some(Label(0)), at: Extent::lbas(3, 1) };
        assert!(holds(&bold_candidates(&start), vec![take(0), write, read]));
    }

    #[test]
    fn a_step_that_does_much_becomes_a_write_and_another_goes() {
        let write = Op::Write { at: Extent::lbas(0, 1) };
        let (base, from, during) = (None, SyncSource::Snapshot, Vec::new());
        let sync = Op::Sync { snap: Label(0), base, from, during };
        let start = scenario(vec![write.clone(), take(0), sync, take(1), diff(1, Some(0))]);
        let on = Op::On { volume: Role::Target, op: Box::new(write) };
        let wanted = vec![take(0), on, take(1), diff(1, Some(0))];
        assert!(holds(&bold_candidates(&start), wanted));
    }

    #[test]
    fn no_candidate_has_more_steps() {
        let ops = vec![take(0), Op::Flush, take(1), diff(1, Some(0))];
        let start = scenario(ops);
        let candidates = bold_candidates(&start);
        assert!(candidates.len() > 10);
        assert!(candidates.iter().all(|(_, c)| c.steps.len() <= start.steps.len()));
        assert!(bold_candidates(&scenario(Vec::new())).is_empty());
    }
}
