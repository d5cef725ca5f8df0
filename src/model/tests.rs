//! The model against a second, naive one: a record per LBA and snapshot, brute force.

#![expect(clippy::cast_possible_truncation, reason = "the brute-force twin indexes arrays of 96")]

use super::*;
use crate::block::{BlockSize, Lba};
use proptest::prelude::*;

const LEN: u64 = 96;

pub(crate) fn everything() -> Capabilities {
    Capabilities { concurrent_ops: false, ..Capabilities::everything() }
}

pub(crate) fn model(fresh: bool) -> Model {
    let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(LEN), fresh };
    let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
    Model::new(RunId::from_u128(1), &volumes, everything())
}

/// Per LBA: the value now, and every operation that touched it by time. Per snapshot: a full copy.
struct Naive {
    fresh: bool,
    now: Vec<Value>,
    touched_at: Vec<Vec<usize>>,
    time: usize,
    generation: u64,
    snaps: BTreeMap<Label, (usize, Vec<Value>)>,
}

impl Naive {
    fn new(fresh: bool) -> Naive {
        let start = if fresh { Value::Zero } else { Value::Old(Role::Source) };
        let lbas = LEN as usize;
        Naive {
            fresh,
            now: vec![start; lbas],
            touched_at: vec![Vec::new(); lbas],
            time: 0,
            generation: 0,
            snaps: BTreeMap::new(),
        }
    }

    fn touch(&mut self, at: Extent, value: Option<Value>) {
        for lba in at.start().get()..at.end().get() {
            self.touched_at[lba as usize].push(self.time);
            if let Some(value) = value {
                self.now[lba as usize] = value;
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        self.time += 1;
        match op {
            Op::Write { at } => {
                self.generation += 1;
                let generation = self.generation;
                self.touch(*at, Some(Value::Stamp { role: Role::Source, generation }));
            }
            Op::Rewrite { at } => self.touch(*at, None),
            Op::Zero { at } | Op::Discard { at } => self.touch(*at, Some(Value::Zero)),
            Op::Take { label, .. } => {
                self.snaps.insert(*label, (self.time, self.now.clone()));
            }
            Op::Rollback { label } => {
                let (cut, contents) = self.snaps[label].clone();
                for lba in 0..LEN as usize {
                    if self.touched_at[lba].iter().any(|&t| t > cut) {
                        self.touched_at[lba].push(self.time);
                    }
                }
                self.now = contents;
            }
            other => panic!("the naive model does not know {other}"),
        }
    }

    fn bounds(&self, snap: Label, base: Option<Label>) -> (Vec<u64>, Vec<u64>) {
        let (upto, contents) = &self.snaps[&snap];
        let (from, then) = match base {
            Some(base) => (self.snaps[&base].0, self.snaps[&base].1.clone()),
            None => (0, vec![Value::Zero; LEN as usize]),
        };
        let same = |a: Value, b: Value| {
            a == b || !matches!((a, b), (Value::Stamp { .. }, _) | (_, Value::Stamp { .. }))
        };
        let lbas = || 0..LEN;
        let must = lbas().filter(|&l| !same(contents[l as usize], then[l as usize])).collect();
        let may = lbas().filter(|&l| {
            let between = |&t: &usize| from < t && t <= *upto;
            (base.is_none() && !self.fresh) || self.touched_at[l as usize].iter().any(between)
        });
        (must, may.collect())
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || (0..LEN, 1u64..40).prop_map(|(a, n)| Extent::lbas(a, n.min(LEN - a)));
    let op = prop_oneof![
        4 => at().prop_map(|at| Op::Write { at }),
        1 => at().prop_map(|at| Op::Rewrite { at }),
        2 => at().prop_map(|at| Op::Zero { at }),
        1 => at().prop_map(|at| Op::Discard { at }),
        3 => (0u32..6).prop_map(|l| Op::Take { label: Label(l), wait: true }),
        1 => (0u32..6).prop_map(|l| Op::Rollback { label: Label(l) }),
    ];
    prop::collection::vec(op, 0..40)
}

fn lbas(set: &LbaSet) -> Vec<u64> {
    set.runs().iter().flat_map(|run| run.start().get()..run.end().get()).collect()
}

proptest! {
    #[test]
    fn bounds_agree_with_a_record_per_lba(ops in ops(), fresh: bool) {
        let (mut model, mut naive) = (model(fresh), Naive::new(fresh));
        for op in &ops {
            if model.admits(Role::Source, op).is_ok() {
                model.apply(Role::Source, op);
                naive.apply(op);
            }
        }
        let labels: Vec<Label> = naive.snaps.keys().copied().collect();
        for &snap in &labels {
            let bases = labels.iter().copied().filter(|b| naive.snaps[b].0 < naive.snaps[&snap].0).map(Some).chain([None]);
            for base in bases {
                let bounds = model.predict(snap, base).expect("both exist");
                let (must, may) = naive.bounds(snap, base);
                prop_assert_eq!(lbas(&bounds.must), must, "must of {} against {:?}", snap, base);
                prop_assert_eq!(lbas(&bounds.may), may, "may of {} against {:?}", snap, base);
                prop_assert_eq!(model.expected(snap, base), Expected::Answer);
            }
        }
    }
}

fn take(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}

#[test]
fn a_write_over_unknown_data_must_be_reported_but_a_zero_only_may() {
    let mut m = model(false);
    m.apply(Role::Source, &take(0));
    m.apply(Role::Source, &Op::Write { at: Extent::lbas(0, 2) });
    m.apply(Role::Source, &Op::Zero { at: Extent::lbas(8, 2) });
    m.apply(Role::Source, &take(1));
    let bounds = m.predict(Label(1), Some(Label(0))).expect("both exist");
    assert_eq!(lbas(&bounds.must), [0, 1]);
    assert_eq!(lbas(&bounds.may), [0, 1, 8, 9]);
}

#[test]
fn a_failed_write_may_have_happened() {
    let mut m = model(true);
    m.apply(Role::Source, &take(0));
    m.failed(Role::Source, &Op::Write { at: Extent::lbas(4, 1) }, false);
    m.apply(Role::Source, &take(1));
    let bounds = m.predict(Label(1), Some(Label(0))).expect("both exist");
    assert_eq!((lbas(&bounds.must), lbas(&bounds.may)), (vec![], vec![4]));
}

#[test]
fn pairs_that_make_no_sense_are_to_be_refused() {
    let mut m = model(true);
    for op in [take(0), take(1), Op::Delete { label: Label(0), wait: true }] {
        m.apply(Role::Source, &op);
    }
    m.apply(Role::Target, &take(7));
    assert!(matches!(m.expected(Label(1), Some(Label(0))), Expected::Refusal(_)));
    assert!(matches!(m.expected(Label(1), Some(Label(1))), Expected::Refusal(_)));
    assert!(matches!(m.expected(Label(1), Some(Label(7))), Expected::Refusal(_)));
    m.apply(Role::Source, &take(2));
    assert!(matches!(m.expected(Label(1), Some(Label(2))), Expected::Either(_)));
    assert_eq!(m.expected(Label(2), Some(Label(1))), Expected::Answer);
}

#[test]
fn a_sync_carries_the_source_values_to_the_target() {
    let mut m = model(false);
    m.apply(Role::Source, &Op::Write { at: Extent::lbas(0, 4) });
    m.synced(None, &LbaSet::from(Extent::lbas(2, 4)));
    let target = m.live(Role::Target, Extent::lbas(0, 8));
    let stamp = Values::One(Value::Stamp { role: Role::Source, generation: 1 });
    let (source, own) =
        (Values::One(Value::Old(Role::Source)), Values::One(Value::Old(Role::Target)));
    let expected = [
        (Extent::lbas(0, 2), own.clone()),
        (Extent::lbas(2, 2), stamp),
        (Extent::lbas(4, 2), source),
        (Extent::lbas(6, 2), own),
    ];
    assert_eq!(target, expected);
    assert_eq!(
        m.volume(Role::Target).map(|v| v.live.at(Lba::new(9)).certain()),
        Some(Some(Value::Old(Role::Target)))
    );
}
