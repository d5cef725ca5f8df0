//! Bolder candidates of the shrinker: each changes two things at once, where one alone would only
//! make a scenario heavier or not show it any more. All have fewer steps than the original, or as many
//! and plainer ones.
//!
//! Not covered: whether a candidate still shows anything (`super::shrink`).

use super::shrink_parts::{each_extent, each_label, labels_taken};
use crate::block::{CHUNK_LBAS, Extent, Freedoms, Lba, LbaCount, Role};
use crate::scenario::{Fault, Header, Label, Op, Scenario, Step, SyncSource};

/// Longer scenarios are left to the plain candidates first.
const STEPS: usize = 14;
/// Scenarios as short as this are put together anew.
const FEW: usize = 8;
/// Places of the freedoms that are tried.
const SEEDS: u64 = 12;
/// LBAs of one write that stands for two, at most.
const ONE_WRITE: LbaCount = LbaCount::new(4 * CHUNK_LBAS);
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
        found.extend(writes_made_one(scenario).map(|candidate| ("two writes made one", candidate)));
        found.extend(in_flight_together(scenario).map(|candidate| ("two in flight", candidate)));
        let chains = chains_of_two(scenario);
        found.extend(chains.into_iter().map(|candidate| ("a chain of two", candidate)));
        let worlds = in_another_world(scenario);
        found.extend(worlds.into_iter().map(|candidate| ("another world", candidate)));
    }
    if scenario.steps.len() <= FEW {
        let anew = from_scratch(scenario);
        found.extend(anew.into_iter().map(|candidate| ("put together anew", candidate)));
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
    let bases = labels_taken(&scenario.steps).into_iter();
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
    let taken = labels_taken(steps);
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
    let mut found: Vec<Scenario> =
        (0..before).filter_map(|place| moved_into_the_sync(scenario, place)).collect();
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

/// A change made while a sync, which becomes the last step, runs.
fn moved_into_the_sync(scenario: &Scenario, place: usize) -> Option<Scenario> {
    let (last, before) = scenario.steps.split_last()?;
    let (Op::Sync { snap, .. } | Op::SyncChain { to: snap }) = last.op else { return None };
    let change = &before.get(place)?.op;
    let changes = matches!(change, Op::Write { .. } | Op::Zero { .. } | Op::Discard { .. });
    let during = changes.then(|| vec![change.clone()])?;
    let mut steps = without(before, place);
    steps.push(Op::Sync { snap, base: None, from: SyncSource::Snapshot, during }.into());
    Some(with_steps(scenario, steps))
}

/// Steps that only make the world what it could have been from the beginning: a resize whose size
/// the volumes have at once; pages of one range, or freedoms taken elsewhere, with a step left out.
fn in_another_world(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    for (place, step) in scenario.steps.iter().enumerate() {
        if let Op::Resize { len } = step.op {
            let mut candidate = with_steps(scenario, without(&scenario.steps, place));
            for shape in candidate.header.volumes.values_mut() {
                shape.len = shape.len.max(len);
            }
            found.push(candidate);
        }
    }
    let mut headers = Vec::new();
    if scenario.header.page_limit != Some(1) {
        headers.push(Header { page_limit: Some(1), ..scenario.header.clone() });
    }
    if !scenario.header.freedoms.is_none() {
        headers.extend((0..SEEDS).map(|seed| {
            let freedoms = Freedoms { seed, ..scenario.header.freedoms };
            Header { freedoms, ..scenario.header.clone() }
        }));
    }
    let mut fewer: Vec<Scenario> = without_a_base(scenario).collect();
    let dropped = (0..scenario.steps.len()).map(|place| without(&scenario.steps, place));
    fewer.extend(dropped.map(|steps| with_steps(scenario, steps)));
    for header in headers {
        let moved = fewer.iter().map(|less| Scenario { header: header.clone(), ..less.clone() });
        found.extend(moved);
    }
    found
}

/// The shortest things one can do with these extents: a change or two, seen live, in a snapshot, in
/// a copy; a change between two snapshots, the first of which was asked for. All shorter than the
/// original; the last step keeps its fault, at its first call.
fn from_scratch(scenario: &Scenario) -> Vec<Scenario> {
    let fault = scenario.steps.last().and_then(|last| last.fault.clone());
    let fault = fault.map(|fault| Fault { nth: 1, ..fault });
    let mut places = extents(scenario);
    for (nth, &one) in places.clone().iter().enumerate() {
        for &other in &places.clone()[..nth] {
            let (first, second) = (one.min(other), one.max(other));
            let together = Extent::between(first.start(), second.end());
            places.extend(together.filter(|_| first.end() >= second.start()));
        }
    }
    let changes: Vec<Op> = places
        .iter()
        .flat_map(|&at| [Op::Write { at }, Op::Zero { at }, Op::Discard { at }])
        .collect();
    let mut some: Vec<Vec<Op>> = changes.iter().map(|one| vec![one.clone()]).collect();
    let pairs = changes.iter().flat_map(|a| changes.iter().map(|b| vec![a.clone(), b.clone()]));
    some.extend(pairs);
    let take = |label| Op::Take { label: Label(label), wait: true };
    let diff =
        |snap| Op::Diff { snap: Label(snap), base: None, from: Lba::new(0), between_pages: None };
    let (base, from, during) = (None, SyncSource::Snapshot, Vec::new());
    let sync = Op::Sync { snap: Label(0), base, from, during };
    let mut found: Vec<Scenario> = Vec::new();
    for change in some {
        let reads = places.iter().map(|&at| vec![Op::Read { snap: None, at }]);
        let ends = reads.chain([vec![take(0), diff(0)], vec![take(0), sync.clone()]]);
        let mut all: Vec<Vec<Op>> =
            ends.map(|end| change.iter().cloned().chain(end).collect()).collect();
        let asked = [take(0), diff(0)].into_iter().chain(change.clone());
        all.push(asked.chain([take(1), diff(1)]).collect());
        for ops in all.into_iter().filter(|ops| ops.len() < scenario.steps.len()) {
            let mut steps: Vec<Step> = ops.into_iter().map(Step::from).collect();
            if let Some(last) = steps.last_mut() {
                last.fault.clone_from(&fault);
            }
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

/// Two writes in a row made one over both places and what lies between.
fn writes_made_one(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    scenario.steps.windows(2).enumerate().filter_map(|(place, pair)| {
        let [Step { op: Op::Write { at: one }, fault: None }, second] = pair else { return None };
        let Step { op: Op::Write { at: other }, fault: None } = second else { return None };
        let end = one.end().max(other.end());
        let at = Extent::between(one.start().min(other.start()), end)?;
        let mut steps = without(&scenario.steps, place + 1);
        steps[place] = Op::Write { at }.into();
        Some(with_steps(scenario, steps)).filter(|_| at.len_lbas() <= ONE_WRITE)
    })
}

/// Two changes in a row made one step, in flight together: before a kill that may be what matters.
fn in_flight_together(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    let kills = |step: &Step| matches!(step.op, Op::Restart { clean: false });
    let pairs = scenario.steps.iter().any(kills).then(|| scenario.steps.windows(2).enumerate());
    pairs.into_iter().flatten().filter_map(|(place, pair)| {
        let [first, second] = pair else { return None };
        let plain = |step: &Step| step.fault.is_none() && matches!(step.op, Op::Write { .. });
        let both =
            (plain(first) && plain(second)).then(|| vec![first.op.clone(), second.op.clone()])?;
        let mut steps = without(&scenario.steps, place + 1);
        steps[place] = Op::Concurrent(both).into();
        Some(with_steps(scenario, steps))
    })
}

/// A chain of two copies, with a change before each, of any two of the snapshots' names: it is by its
/// name that a chain may go wrong.
fn chains_of_two(scenario: &Scenario) -> Vec<Scenario> {
    let Some(Op::SyncChain { .. }) = scenario.steps.last().map(|step| &step.op) else {
        return Vec::new();
    };
    let at = extents(scenario).first().copied().unwrap_or(Extent::lbas(0, 1));
    let taken = labels_taken(&scenario.steps);
    let pairs = taken
        .iter()
        .enumerate()
        .flat_map(|(place, a)| taken[place + 1..].iter().map(move |b| (*a, *b)));
    let chain = |(a, b): (Label, Label)| {
        let take = |label| Op::Take { label, wait: true };
        let ops = [Op::Write { at }, take(a), Op::Write { at }, take(b), Op::SyncChain { to: b }];
        with_steps(scenario, ops.into_iter().map(Step::from).collect())
    };
    pairs.map(chain).filter(|short| short.steps.len() < scenario.steps.len()).collect()
}

/// One step that does much made a plain change, with another one left out.
fn replaced_and_dropped(scenario: &Scenario) -> Vec<Scenario> {
    let at = extents(scenario).first().copied().unwrap_or(Extent::lbas(0, 1));
    let others = scenario.header.volumes.keys().filter(|&&role| role != Role::Source);
    let on = |&volume: &Role| Op::On { volume, op: Box::new(Op::Write { at: Extent::lbas(0, 1) }) };
    let source = scenario.header.volumes.get(&Role::Source);
    let resize = source.map(|shape| Op::Resize { len: shape.len });
    let changes = [Op::Write { at }, Op::Zero { at }];
    let plain: Vec<Op> = others.map(on).chain(changes).chain(resize).collect();
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
    use crate::engine::testing::{diff, scenario as on, take};

    fn scenario(ops: Vec<Op>) -> Scenario {
        on(128, ops)
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
    fn what_a_resize_makes_of_the_volumes_they_are_from_the_beginning() {
        let resize = Op::Resize { len: LbaCount::new(640) };
        let write = Op::Write { at: Extent::lbas(600, 1) };
        let start = scenario(vec![resize, write.clone(), take(0), diff(0, None)]);
        let wanted = scenario(vec![write, take(0), diff(0, None)]).steps;
        let larger = |candidate: &Scenario| {
            let len = candidate.header.volumes[&Role::Source].len;
            candidate.steps == wanted && len == LbaCount::new(640)
        };
        assert!(bold_candidates(&start).iter().any(|(_, candidate)| larger(candidate)));
    }

    #[test]
    fn a_change_before_a_sync_is_made_while_it_runs() {
        let write = Op::Write { at: Extent::lbas(3, 1) };
        let sync = |during| {
            let (base, from) = (None, SyncSource::Snapshot);
            Op::Sync { snap: Label(0), base, from, during }
        };
        let chain = Op::SyncChain { to: Label(0) };
        let start = scenario(vec![write.clone(), take(0), write.clone(), chain]);
        let wanted = vec![write.clone(), take(0), sync(vec![write])];
        assert!(holds(&bold_candidates(&start), wanted));
    }

    #[test]
    fn a_short_scenario_is_put_together_anew_from_its_extents() {
        let at = |start, len| Extent::lbas(start, len);
        let write = |start| Op::Write { at: at(start, 1) };
        let discard = |start, len| Op::Discard { at: at(start, len) };
        let ops = vec![write(9), take(0), discard(9, 1), discard(10, 1), take(1), diff(1, Some(0))];
        let candidates = bold_candidates(&scenario(ops));
        assert!(holds(&candidates, vec![write(9), discard(10, 1), take(0), diff(0, None)]));
        assert!(holds(&candidates, vec![discard(9, 2), take(0), diff(0, None)]));
        let asked = vec![take(0), diff(0, None), write(9), take(1), diff(1, None)];
        assert!(holds(&candidates, asked));
    }

    #[test]
    fn two_writes_become_one_over_both_or_fly_together_before_a_kill() {
        let write = |start, len| Op::Write { at: Extent::lbas(start, len) };
        let kill = || Op::Restart { clean: false };
        let start = scenario(vec![write(64, 1), write(127, 2), kill(), take(0), diff(0, None)]);
        let candidates = bold_candidates(&start);
        let end = [kill(), take(0), diff(0, None)];
        let with = |first: Op| [vec![first], end.to_vec()].concat();
        assert!(holds(&candidates, with(write(64, 65))));
        assert!(holds(&candidates, with(Op::Concurrent(vec![write(64, 1), write(127, 2)]))));
        let far = scenario(vec![write(0, 1), write(300, 1), take(0), diff(0, None)]);
        let flying =
            |c: &Scenario| matches!(c.steps.first().map(|s| &s.op), Some(Op::Concurrent(_)));
        let candidates = bold_candidates(&far);
        assert!(!holds(&candidates, vec![write(0, 301), take(0), diff(0, None)]), "too large");
        assert!(!candidates.iter().any(|(_, c)| flying(c)), "nothing is killed");
    }

    #[test]
    fn a_chain_is_tried_with_any_two_of_its_names() {
        let write = || Op::Write { at: Extent::lbas(3, 1) };
        let ops = [take(2), Op::Flush, take(9), take(10), write(), Op::SyncChain { to: Label(10) }];
        let candidates = bold_candidates(&scenario(ops.to_vec()));
        let chain = |a, b| vec![write(), take(a), write(), take(b), Op::SyncChain { to: Label(b) }];
        assert!(holds(&candidates, chain(9, 10)) && holds(&candidates, chain(2, 9)));
        assert!(!holds(&candidates, chain(10, 9)), "in the order they were taken");
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
