//! Operations in flight together: nobody knows in which order they took effect.
//!
//! Not covered: finding it out. Reading settles it ([`Model::settle_live`],
//! [`Model::settle_snapshot`]).

use super::Model;
use super::values::{Value, Values};
use crate::block::{Extent, LbaSet, Role};
use crate::scenario::Op;
use std::collections::BTreeMap;

/// Stretches and what they may hold.
type Tiles = Vec<(Extent, Values)>;

impl Model {
    /// Operations in flight together have been acknowledged, whatever their order: where two of
    /// them meet either may have been last, and a snapshot taken among them may show any of them or
    /// none. Snapshots stay open until [`Model::close`]. Anything but writes, zeroes, discards and
    /// takes means nothing here.
    ///
    /// Answers the generation that each write carries, in the order of the operations (that of the
    /// last write for others), and the LBAs of each volume where several met.
    pub fn together(&mut self, ops: &[(Role, &Op)]) -> (Vec<u64>, BTreeMap<Role, LbaSet>) {
        for (role, op) in ops {
            if let Op::Take { label, .. } = op {
                self.take(*role, *label);
            }
        }
        // What is there before any of them, where that decides what an operation leaves.
        let before: Vec<Tiles> = ops
            .iter()
            .map(|(role, op)| match self.outcome(*role, op, 0) {
                Some((at, None)) => self.live(*role, at),
                _ => Vec::new(),
            })
            .collect();
        let mut done: Vec<(Role, Extent, Tiles)> = Vec::new();
        let mut met: BTreeMap<Role, LbaSet> = BTreeMap::new();
        let mut generations = Vec::with_capacity(ops.len());
        for ((role, op), mut left) in ops.iter().zip(before) {
            self.generation += u64::from(matches!(op, Op::Write { .. }));
            generations.push(self.generation);
            let Some((at, values)) = self.outcome(*role, op, self.generation) else { continue };
            match (op, values) {
                (_, Some(values)) => left.push((at, values)),
                (Op::Discard { .. }, None) => left.push((at, Values::One(Value::Zero))),
                (_, None) => {}
            }
            for (_, other, _) in done.iter().filter(|(of, ..)| of == role) {
                if let Some(both) = other.intersect(at) {
                    met.entry(*role).or_default().insert(both);
                }
            }
            self.change(*role, op, self.generation);
            done.push((*role, at, left));
        }
        for (role, overlap) in &met {
            let Some(volume) = self.volumes.get_mut(role) else { continue };
            for (_, _, left) in done.iter().filter(|(of, ..)| of == role) {
                for (tile, values) in left {
                    for run in overlap.within(*tile).runs() {
                        volume.live.or_into(*run, values);
                    }
                }
            }
            overlap.runs().iter().for_each(|run| self.spill(*role, *run));
        }
        (generations, met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::model;
    use crate::model::{Value, Values};
    use crate::scenario::Label;

    fn take(label: u32) -> Op {
        Op::Take { label: Label(label), wait: true }
    }
    fn write(start: u64, len: u64) -> Op {
        Op::Write { at: Extent::lbas(start, len) }
    }
    fn stamp(generation: u64) -> Value {
        Value::Stamp { role: Role::Source, generation }
    }
    fn bounds(m: &Model, snap: u32, base: u32) -> (LbaSet, LbaSet) {
        let found = m.predict(Label(snap), Some(Label(base))).expect("both exist");
        (found.must, found.may)
    }

    /// s0, (s1 + write 3), s2
    fn cut_race() -> Model {
        let mut m = model(true);
        m.apply(Role::Source, &take(0));
        m.together(&[(Role::Source, &take(1)), (Role::Source, &write(3, 1))]);
        let unsure = m.close(Label(1));
        assert_eq!(unsure, LbaSet::from(Extent::lbas(3, 1)));
        m.apply(Role::Source, &take(2));
        m
    }

    #[test]
    fn a_write_in_flight_at_a_cut_may_be_on_either_side_and_must_be_on_one() {
        let m = cut_race();
        let (one, none) = (LbaSet::from(Extent::lbas(3, 1)), LbaSet::new());
        assert_eq!(bounds(&m, 1, 0), (none.clone(), one.clone()));
        assert_eq!(bounds(&m, 2, 1), (none, one.clone()));
        assert_eq!(bounds(&m, 2, 0), (one.clone(), one));
    }

    #[test]
    fn what_the_snapshot_shows_decides_which_diff_must_report_the_write() {
        let (one, none) = (LbaSet::from(Extent::lbas(3, 1)), LbaSet::new());
        let mut shown = cut_race();
        shown.settle_snapshot(Label(1), Extent::lbas(3, 1), stamp(1));
        assert_eq!((bounds(&shown, 1, 0).0, bounds(&shown, 2, 1).0), (one.clone(), none.clone()));
        let mut not_shown = cut_race();
        not_shown.settle_snapshot(Label(1), Extent::lbas(3, 1), Value::Zero);
        assert_eq!((bounds(&not_shown, 1, 0).0, bounds(&not_shown, 2, 1).0), (none, one));
    }

    #[test]
    fn where_two_writes_meet_either_may_have_been_last() {
        let mut m = model(true);
        let ops = [write(0, 4), write(2, 4)];
        let (generations, met) = m.together(&[(Role::Source, &ops[0]), (Role::Source, &ops[1])]);
        assert_eq!(generations, [1, 2]);
        assert_eq!(met[&Role::Source], LbaSet::from(Extent::lbas(2, 2)));
        let either = Values::One(stamp(1)).or(&Values::One(stamp(2)));
        let expected = [
            (Extent::lbas(0, 2), Values::One(stamp(1))),
            (Extent::lbas(2, 2), either),
            (Extent::lbas(4, 2), Values::One(stamp(2))),
        ];
        assert_eq!(m.live(Role::Source, Extent::lbas(0, 6)), expected);
        m.settle_live(Role::Source, Extent::lbas(2, 2), stamp(1));
        assert_eq!(
            m.live(Role::Source, Extent::lbas(2, 2)),
            [(Extent::lbas(2, 2), Values::One(stamp(1)))]
        );
    }

    #[test]
    fn bytes_written_back_meanwhile_may_undo_a_write() {
        let mut m = model(true);
        m.apply(Role::Source, &write(2, 1));
        let ops = [write(2, 1), Op::Rewrite { at: Extent::lbas(2, 1) }];
        m.together(&[(Role::Source, &ops[1]), (Role::Source, &ops[0])]);
        let either = Values::One(stamp(1)).or(&Values::One(stamp(2)));
        assert_eq!(m.live(Role::Source, Extent::lbas(2, 1)), [(Extent::lbas(2, 1), either)]);
    }
}
