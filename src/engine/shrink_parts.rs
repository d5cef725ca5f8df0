//! What the shrinker is made of: how heavy a scenario is, and what would be a little lighter.
//!
//! Not covered: whether a candidate still shows anything (`super::shrink`).

use crate::block::{CHUNK_LBAS, Extent, Freedoms, Lba, LbaCount, Role};
use crate::scenario::{Check, Header, Label, Op, Scenario, Step, SyncSource};
use std::collections::BTreeSet;

/// Lighter is shorter first (steps, then operations inside them), then plainer (kinds, LBAs), then
/// a plainer world. Compared field by field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Weight {
    steps: usize,
    ops: usize,
    frills: u64,
    world: u64,
    lbas: u64,
    places: u64,
    labels: u64,
    len_lbas: u64,
}

/// How heavy a scenario is.
pub(super) fn weight(scenario: &Scenario) -> Weight {
    let mut weight = Weight {
        steps: scenario.steps.len(),
        ops: 0,
        frills: 0,
        world: world_weight(&scenario.header),
        lbas: 0,
        places: 0,
        labels: 0,
        len_lbas: scenario.header.volumes.values().map(|shape| shape.len.get() / 64).sum(),
    };
    for step in &scenario.steps {
        weight.frills += u64::from(step.fault.is_some());
        step.op.each(&mut |op| {
            weight.ops += 1;
            weight.frills += frills(op);
            if let Some(at) = op.touches() {
                weight.lbas = weight.lbas.saturating_add(at.len_lbas().get());
                weight.places = weight.places.saturating_add(at.start().get());
            }
            own_labels(op, &mut |label| weight.labels += u64::from(label.0));
        });
    }
    weight
}

/// What makes an operation more than the plainest of its sort.
fn frills(op: &Op) -> u64 {
    match op {
        Op::Write { .. } | Op::Take { wait: true, .. } | Op::Delete { wait: true, .. } => 0,
        Op::Restart { clean } => u64::from(!clean),
        Op::Take { .. } | Op::Delete { .. } | Op::On { .. } | Op::Concurrent(_) => 1,
        Op::Zero { .. } | Op::Discard { .. } => 1,
        Op::WriteZeroes { .. } | Op::Rewrite { .. } => 2,
        Op::Diff { from, between_pages, .. } => {
            let page = between_pages.as_ref().map_or(0, |(page, _)| 1 + u64::from(*page));
            u64::from(*from != Lba::new(0)) + page
        }
        // What an answer alone shows needs no copy.
        Op::Sync { from, .. } => 1 + u64::from(*from == SyncSource::Live),
        _ => 0,
    }
}

fn world_weight(header: &Header) -> u64 {
    let Freedoms {
        seed: _,
        chunk_rounded,
        elide_same_content,
        late_available,
        late_cut,
        slow_delete,
        uneven_pages,
        repeated_edges,
        omitted_zeros,
        transient_errors,
    } = header.freedoms;
    let freedoms = [
        chunk_rounded,
        elide_same_content,
        late_available,
        late_cut,
        slow_delete,
        uneven_pages,
        repeated_edges,
        omitted_zeros,
        transient_errors,
    ];
    let taken: u64 = freedoms.into_iter().map(u64::from).sum();
    let old = header.volumes.values().any(|shape| !shape.fresh);
    taken
        + u64::from(header.over_https)
        + u64::from(header.page_limit.is_some())
        + u64::from(old)
        + header.volumes.len() as u64
}

/// Calls `change` for each extent and its place among them. Those of explicit checks are left
/// alone: they would say something else.
pub(super) fn each_extent(scenario: &mut Scenario, change: &mut dyn FnMut(&mut Extent, usize)) {
    let mut place = 0;
    for step in &mut scenario.steps {
        step.op.each_mut(&mut |op| {
            if let Some(at) = op.touches_mut() {
                change(at, place);
                place += 1;
            }
        });
    }
}

/// The snapshots that are taken, in order.
pub(super) fn labels_taken(steps: &[Step]) -> Vec<Label> {
    let mut taken = Vec::new();
    for step in steps {
        step.op.each(&mut |op| {
            if let Op::Take { label, .. } = op {
                taken.push(*label);
            }
        });
    }
    taken
}

/// Calls `visit` for each label that the operation itself names.
fn own_labels(op: &Op, visit: &mut dyn FnMut(Label)) {
    match op {
        Op::Take { label, .. }
        | Op::Delete { label, .. }
        | Op::Rollback { label }
        | Op::Clone { label, .. }
        | Op::SyncChain { to: label }
        | Op::Read { snap: Some(label), .. }
        | Op::Check(Check::Gone { label }) => visit(*label),
        Op::Diff { snap, base, .. } | Op::Sync { snap, base, .. } => {
            visit(*snap);
            base.iter().copied().for_each(visit);
        }
        _ => {}
    }
}

/// Calls `change` for each label, those inside included.
pub(super) fn each_label(op: &mut Op, change: &mut dyn FnMut(&mut Label)) {
    op.each_mut(&mut |op| match op {
        Op::Take { label, .. }
        | Op::Delete { label, .. }
        | Op::Rollback { label }
        | Op::Clone { label, .. }
        | Op::SyncChain { to: label }
        | Op::Read { snap: Some(label), .. } => change(label),
        Op::Diff { snap, base, .. } | Op::Sync { snap, base, .. } => {
            change(snap);
            base.iter_mut().for_each(&mut *change);
        }
        Op::Check(Check::Gone { label }) => change(label),
        _ => {}
    });
}

/// Whether every snapshot and volume that is named was made before, and no snapshot twice: anything
/// else would only be skipped.
pub(super) fn is_sensible(scenario: &Scenario) -> bool {
    let mut taken: BTreeSet<Label> = BTreeSet::new();
    let mut volumes: BTreeSet<Role> = scenario.header.volumes.keys().copied().collect();
    let mut sensible = true;
    for step in &scenario.steps {
        step.op.each(&mut |op| match op {
            Op::Take { label, .. } => sensible &= taken.insert(*label),
            Op::Clone { volume, .. } | Op::CreateVolume { volume, .. } => {
                volumes.insert(*volume);
            }
            Op::On { volume, .. } | Op::DeleteVolume { volume } => {
                sensible &= volumes.contains(volume);
            }
            _ => {}
        });
        step.op.each(&mut |op| {
            own_labels(op, &mut |label| sensible &= taken.contains(&label));
        });
    }
    sensible
}

/// Operations that are plainer than this one, the plainest first.
pub(super) fn plainer_ops(op: &Op) -> Vec<Op> {
    let mut plainer = Vec::new();
    match op {
        Op::Take { label, wait: false } => plainer.push(Op::Take { label: *label, wait: true }),
        Op::Delete { label, wait: false } => plainer.push(Op::Delete { label: *label, wait: true }),
        Op::Restart { clean: false } => plainer.push(Op::Restart { clean: true }),
        Op::Rewrite { at } | Op::Zero { at } | Op::Discard { at } => {
            plainer.push(Op::Write { at: *at });
        }
        Op::WriteZeroes { at } => plainer.extend([Op::Write { at: *at }, Op::Zero { at: *at }]),
        Op::On { op, .. } => plainer.push(op.as_ref().clone()),
        Op::Concurrent(ops) => {
            plainer.extend(ops.iter().cloned());
            plainer.extend(without_one(ops).map(Op::Concurrent));
        }
        Op::Diff { snap, base, from, between_pages } => {
            let (snap, base) = (*snap, *base);
            if let Some((_, op)) = between_pages {
                plainer.push(op.as_ref().clone());
                plainer.push(Op::Diff { snap, base, from: *from, between_pages: None });
            }
            if *from != Lba::new(0) {
                let between_pages = between_pages.clone();
                plainer.push(Op::Diff { snap, base, from: Lba::new(0), between_pages });
            }
            if let Some((page, op)) = between_pages.as_ref().filter(|(page, _)| *page > 1) {
                let between_pages = Some((page / 2, op.clone()));
                plainer.push(Op::Diff { snap, base, from: *from, between_pages });
            }
        }
        Op::Sync { snap, base, from, during } => {
            let (snap, base) = (*snap, *base);
            plainer.push(Op::Diff { snap, base, from: Lba::new(0), between_pages: None });
            plainer.extend(during.iter().cloned());
            plainer.extend(without_one(during).map(|during| Op::Sync {
                snap,
                base,
                from: *from,
                during,
            }));
            if *from == SyncSource::Live {
                let (from, during) = (SyncSource::Snapshot, during.clone());
                plainer.push(Op::Sync { snap, base, from, during });
            }
        }
        _ => {}
    }
    // What is inside may be plainer too.
    for (place, inner) in op.inner().iter().enumerate() {
        for new in plainer_ops(inner) {
            let mut outer = op.clone();
            if let Some(slot) = outer.inner_mut().get_mut(place) {
                *slot = new;
            }
            plainer.push(outer);
        }
    }
    plainer
}

fn without_one(ops: &[Op]) -> impl Iterator<Item = Vec<Op>> {
    (0..ops.len()).map(|left_out| {
        let others = ops.iter().enumerate().filter(|(place, _)| *place != left_out);
        others.map(|(_, op)| op.clone()).collect()
    })
}

/// Extents that are plainer than this one, the plainest first: one LBA, fewer LBAs, nearer to 0 (the
/// place inside the chunk kept, which often matters).
pub(super) fn plainer_extents(old: Extent) -> impl Iterator<Item = Extent> {
    let (start, len) = (old.start().get(), old.len_lbas().get());
    let last = start + (len - 1);
    let bit = start % CHUNK_LBAS;
    let whole_chunks = len / CHUNK_LBAS * CHUNK_LBAS;
    let candidates = [
        (0, 1),
        (last % CHUNK_LBAS, 1),
        (bit, 1),
        (last, 1),
        (start, 1),
        (bit, len.min(CHUNK_LBAS)),
        (0, len),
        (bit, len),
        (start, whole_chunks),
        (start, len / 2),
        (start + len / 2, len - len / 2),
        (start, len - 1),
        (start + 1, len - 1),
        (start / 2 / CHUNK_LBAS * CHUNK_LBAS + bit, len),
        (start.saturating_sub(CHUNK_LBAS), len),
        (start / 2, len),
        (start.saturating_sub(1), len),
    ];
    candidates
        .into_iter()
        .filter_map(|(at, len)| Extent::new(Lba::new(at), LbaCount::new(len)))
        .filter(move |new| (new.len_lbas(), new.start()) < (old.len_lbas(), old.start()))
}

/// Headers that describe a plainer world than this one.
pub(super) fn plainer_headers(header: &Header) -> Vec<Header> {
    let mut plainer = Vec::new();
    if !header.freedoms.is_none() {
        plainer.push(Header { freedoms: Freedoms::NONE, ..header.clone() });
    }
    let offs: [fn(&mut Freedoms) -> &mut bool; 9] = [
        |freedoms| &mut freedoms.chunk_rounded,
        |freedoms| &mut freedoms.elide_same_content,
        |freedoms| &mut freedoms.late_available,
        |freedoms| &mut freedoms.late_cut,
        |freedoms| &mut freedoms.slow_delete,
        |freedoms| &mut freedoms.uneven_pages,
        |freedoms| &mut freedoms.repeated_edges,
        |freedoms| &mut freedoms.omitted_zeros,
        |freedoms| &mut freedoms.transient_errors,
    ];
    for off in offs {
        let mut less = header.clone();
        if std::mem::take(off(&mut less.freedoms)) {
            plainer.push(less);
        }
    }
    if header.over_https {
        plainer.push(Header { over_https: false, ..header.clone() });
    }
    if header.page_limit.is_some() {
        plainer.push(Header { page_limit: None, ..header.clone() });
    }
    if header.volumes.values().any(|shape| !shape.fresh) {
        let mut less = header.clone();
        less.volumes.values_mut().for_each(|shape| shape.fresh = true);
        plainer.push(less);
    }
    if header.volumes.contains_key(&Role::Neighbour) {
        let mut less = header.clone();
        less.volumes.remove(&Role::Neighbour);
        plainer.push(less);
    }
    let longest = header.volumes.values().map(|shape| shape.len.get()).max().unwrap_or(0);
    for len in [64, 128, 1024, longest / 2 / CHUNK_LBAS * CHUNK_LBAS] {
        if (1..longest).contains(&len) {
            let mut less = header.clone();
            for shape in less.volumes.values_mut() {
                shape.len = shape.len.min(LbaCount::new(len));
            }
            plainer.push(less);
        }
    }
    plainer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plainer_extents_are_shorter_or_nearer_to_0(at in 0u64..5000, len in 1u64..500) {
            let old = Extent::lbas(at, len);
            for new in plainer_extents(old) {
                prop_assert!((new.len_lbas(), new.start()) < (old.len_lbas(), old.start()));
            }
            prop_assert_eq!(plainer_extents(Extent::lbas(0, 1)).count(), 0);
        }
    }

    #[test]
    fn labels_that_were_never_taken_and_volumes_that_are_not_there_make_no_sense() {
        let header = Header::new(Default::default(), crate::block::Policy::Exact, "a test");
        let take = |label| Op::Take { label: Label(label), wait: true };
        let rollback = |label| Op::Rollback { label: Label(label) };
        let sensible = |ops: Vec<Op>| is_sensible(&Scenario::new(header.clone(), ops));
        assert!(sensible(vec![take(0), rollback(0)]));
        assert!(!sensible(vec![rollback(0), take(0)]));
        assert!(!sensible(vec![take(0), take(0)]));
        assert!(sensible(vec![Op::Concurrent(vec![
            Op::Delete { label: Label(1), wait: false },
            take(1)
        ])]));
        let on = Op::On { volume: Role::Neighbour, op: Box::new(take(2)) };
        assert!(!sensible(vec![on.clone()]));
        let create = Op::CreateVolume { volume: Role::Neighbour, same_id: false };
        assert!(sensible(vec![create, on]));
    }
}
