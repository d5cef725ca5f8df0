//! Operations in flight together: on the simulator one after the other in virtual time that does not
//! pass, elsewhere by a thread each. The model is told beforehand that any order is possible, and
//! afterwards, by reading, what came of it.
//!
//! Not covered: what an operation does (`super::interp::perform`), and operations other than writes,
//! zeroes, discards and takes; those are skipped.

use super::event::Event;
use super::interp::{Done, Interp, content, perform};
use super::recording::{self, Place};
use super::session::{Emit, Halt};
use super::verify::{Tile, WrongBlocks, values_in, wrong_in};
use crate::array::{BlockDevice, DeviceError};
use crate::block::{Extent, LbaCount, LbaSet, Role};
use crate::judge::Record;
use crate::model::{ValueMap, Values};
use crate::oracle::CheckId;
use crate::scenario::{Label, Op};
use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Duration;

/// Operations on data planes that are under way, as the model knows them already.
pub(super) struct Flights<'o> {
    ops: Vec<(Role, &'o Op, u64)>,
    /// LBAs on which several of them meet.
    met: BTreeMap<Role, LbaSet>,
    /// Operations that failed: place and error. Filled by whoever flies them.
    failed: Mutex<Vec<(usize, DeviceError)>>,
}

/// How the I/O of one operation is spread over time.
#[derive(Clone, Copy)]
struct Pace {
    /// Pieces that it is done in at most.
    pieces: u64,
    /// The pause after each.
    pause: Duration,
}

/// All of it at once.
const AT_ONCE: Pace = Pace { pieces: 1, pause: Duration::ZERO };
/// So that some of it is in flight whenever the cut is made.
const ACROSS_A_CUT: Pace = Pace { pieces: 16, pause: Duration::from_micros(200) };

/// The volume and the plain operation behind any number of `On`.
fn plain(role: Role, op: &Op) -> (Role, &Op) {
    match op {
        Op::On { volume, op } => plain(*volume, op),
        op => (role, op),
    }
}

const fn what(op: &Op) -> &'static str {
    match op {
        Op::Write { .. } => "wrote",
        Op::Rewrite { .. } => "rewrote",
        Op::Discard { .. } => "discarded",
        _ => "zeroed",
    }
}

impl Interp<'_, '_> {
    /// Operations in flight together, takes among them.
    pub(super) fn together(&mut self, role: Role, ops: &[Op], emit: Emit<'_>) -> Done {
        if !self.capabilities.concurrent_ops {
            return Err(Halt::Skip("this target runs one operation at a time".to_owned()));
        }
        let ops = self.admitted(role, ops, true, emit);
        // One snapshot of a volume is made at a time; the rest of them have their turn later.
        let takes: Vec<(Role, Label)> = ops
            .iter()
            .filter_map(|(role, op)| match op {
                Op::Take { label, .. } => Some((*role, *label)),
                _ => None,
            })
            .collect();
        for (role, _) in &takes {
            self.close_cuts(*role, emit)?;
        }
        let flights = self.model_together(&ops);
        let asked = if !self.sut.in_memory {
            self.fly_by_threads(&flights, &takes, emit)?
        } else {
            self.fly_in_order(&ops, &flights, emit)?
        };
        // Only now: a cut is over when its snapshot is Available.
        let landed = self.land(flights, emit);
        for label in asked {
            self.close_cut(label, emit)?;
        }
        landed
    }

    /// The operations that mean something here, plain.
    fn admitted<'o>(
        &self,
        role: Role,
        ops: &'o [Op],
        takes: bool,
        emit: Emit<'_>,
    ) -> Vec<(Role, &'o Op)> {
        let mut admitted: Vec<(Role, &Op)> = Vec::with_capacity(ops.len());
        for op in ops {
            let (role, op) = plain(role, op);
            let second = |op: &Op| {
                matches!(op, Op::Take { .. })
                    && admitted.iter().any(|(r, o)| *r == role && matches!(o, Op::Take { .. }))
            };
            let why = match op {
                Op::Take { .. } if takes && !second(op) => self.model.admits(role, op).err(),
                _ if op.changes().is_some() => self
                    .volume(role)
                    .err()
                    .and_then(|halt| match halt {
                        Halt::Skip(why) => Some(why),
                        _ => None,
                    })
                    .or_else(|| self.model.admits(role, op).err()),
                _ => Some("it cannot be in flight together with others".to_owned()),
            };
            match why {
                None => admitted.push((role, op)),
                Some(why) => emit(Event::Skipped { op: op.clone(), why }),
            }
        }
        admitted
    }

    fn model_together<'o>(&mut self, ops: &[(Role, &'o Op)]) -> Flights<'o> {
        let (generations, met) = self.model.together(ops);
        let all = ops.iter().zip(generations).map(|((role, op), by)| (*role, *op, by));
        let ops = all.filter(|(_, op, _)| op.changes().is_some()).collect();
        Flights { ops, met, failed: Mutex::default() }
    }

    /// Tells the model of operations that will be under way during a copy, and answers what the
    /// source may hold meanwhile, where that is more than what it holds then. Writes to the target
    /// are the copy's own business and are skipped.
    pub(super) fn launch<'o>(
        &mut self,
        ops: &'o [Op],
        emit: Emit<'_>,
    ) -> (Flights<'o>, Option<ValueMap>) {
        if ops.is_empty() {
            let (ops, met) = (Vec::new(), BTreeMap::new());
            return (Flights { ops, met, failed: Mutex::default() }, None);
        }
        let admitted = match self.capabilities.concurrent_ops {
            true => self.admitted(Role::Source, ops, false, emit),
            false => {
                let why = "this target runs one operation at a time".to_owned();
                ops.iter().for_each(|op| emit(Event::Skipped { op: op.clone(), why: why.clone() }));
                Vec::new()
            }
        };
        let ops: Vec<(Role, &Op)> =
            admitted.into_iter().filter(|(role, _)| *role != Role::Target).collect();
        let before = self.model.volume(Role::Source).map(|volume| volume.contents().clone());
        let flights = self.model_together(&ops);
        let now = self.model.volume(Role::Source).map(|volume| volume.contents().clone());
        let held = before.zip(now).map(|(before, mut held)| {
            for (_, op, _) in flights.ops.iter().filter(|(role, ..)| *role == Role::Source) {
                for (tile, values) in op.changes().into_iter().flat_map(|at| before.over(at)) {
                    held.or_into(tile, values);
                }
            }
            held
        });
        (flights, held)
    }

    /// Does `work` while the operations are under way.
    pub(super) fn meanwhile<T>(
        &self,
        flights: &Flights<'_>,
        work: impl FnOnce() -> T,
    ) -> Result<T, Halt> {
        if flights.ops.is_empty() {
            return Ok(work());
        }
        let devices = self.devices_of(flights)?;
        if self.sut.in_memory {
            (0..flights.ops.len()).for_each(|place| self.fly(flights, &devices, place, AT_ONCE));
            return Ok(work());
        }
        let start = Barrier::new(2);
        Ok(std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                (0..flights.ops.len())
                    .for_each(|place| self.fly(flights, &devices, place, AT_ONCE));
            });
            start.wait();
            work()
        }))
    }

    fn devices_of(&self, flights: &Flights<'_>) -> Result<Vec<&dyn BlockDevice>, Halt> {
        flights.ops.iter().map(|(role, ..)| self.device(*role)).collect()
    }

    /// One operation's I/O.
    fn fly(&self, flights: &Flights<'_>, devices: &[&dyn BlockDevice], place: usize, pace: Pace) {
        let (Some((role, op, generation)), Some(device)) =
            (flights.ops.get(place), devices.get(place))
        else {
            return;
        };
        let Some(at) = op.changes() else { return };
        let stamp = (self.model.run(), *role, *generation);
        let mut op = (*op).clone();
        for piece in at.pieces(LbaCount::new(at.len_lbas().get().div_ceil(pace.pieces))) {
            op.touches_mut().into_iter().for_each(|at| *at = piece);
            if let Err(error) = perform(*device, &op, stamp, self.sut.waiting.stop) {
                let mut failed = flights.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((place, error));
                return;
            }
            if !pace.pause.is_zero() {
                std::thread::sleep(pace.pause);
            }
        }
    }

    /// All of them in the order listed; a snapshot's call comes at its place, its end after all.
    fn fly_in_order(
        &mut self,
        ops: &[(Role, &Op)],
        flights: &Flights<'_>,
        emit: Emit<'_>,
    ) -> Result<Vec<Label>, Halt> {
        let (mut place, mut asked) = (0, Vec::new());
        for (role, op) in ops {
            if let Op::Take { label, .. } = op {
                self.ask_for_snapshot(*role, *label, emit)?;
                asked.push(*label);
            } else {
                let devices = self.devices_of(flights)?;
                self.fly(flights, &devices, place, AT_ONCE);
                place += 1;
            }
        }
        Ok(asked)
    }

    /// A thread for each; the snapshots are asked for meanwhile.
    fn fly_by_threads(
        &mut self,
        flights: &Flights<'_>,
        takes: &[(Role, Label)],
        emit: Emit<'_>,
    ) -> Result<Vec<Label>, Halt> {
        let start = Barrier::new(flights.ops.len() + 1);
        let named: Vec<_> = takes
            .iter()
            .map(|(role, label)| {
                Ok((self.volume(*role)?.uuid, *label, self.sut.ledger.next_name()))
            })
            .collect::<Result<_, Halt>>()?;
        let devices = self.devices_of(flights)?;
        let this = &*self;
        let made: Vec<_> = std::thread::scope(|scope| {
            for place in 0..flights.ops.len() {
                let (start, devices) = (&start, &devices);
                scope.spawn(move || {
                    start.wait();
                    this.fly(flights, devices, place, ACROSS_A_CUT);
                });
            }
            start.wait();
            let array = this.sut.array;
            named.iter().map(|(volume, _, name)| array.create_snapshot(*volume, *name)).collect()
        });
        let mut asked = Vec::new();
        for (((_, label, name), made), (role, _)) in named.into_iter().zip(made).zip(takes) {
            self.took((*role, label), name, made?.uuid, emit);
            asked.push(label);
        }
        Ok(asked)
    }

    /// They are over: says so, and finds out by reading what is there where several met.
    pub(super) fn land(&mut self, flights: Flights<'_>, emit: Emit<'_>) -> Done {
        let failed = flights.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (place, (role, op, by)) in flights.ops.iter().enumerate() {
            let (Some(at), role) = (op.changes(), *role) else { continue };
            if failed.iter().all(|(which, _)| *which != place) {
                emit(Event::Wrote { role, what: what(op), at });
                let generation = matches!(op, Op::Write { .. }).then_some(*by);
                let op = || (*op).clone();
                self.sut.tell(emit, || Record::Applied { role, op: op(), generation });
            } else {
                self.model.forget(role, at);
                self.sut.tell(emit, || Record::Forgotten { role, at });
            }
        }
        match failed.into_iter().next() {
            // A fault of ours hit one of them: its LBAs may hold anything, the rest is as it was.
            Some((_, error)) if self.fault_was_met() => {
                emit(Event::Note { text: format!("injected fault: {error}") });
                Ok(())
            }
            Some((_, error)) => Err(error.into()),
            None => {
                flights.met.iter().try_for_each(|(role, met)| self.settle_met(*role, met, emit))
            }
        }
    }

    /// Which of several operations was last, LBA for LBA.
    fn settle_met(&mut self, role: Role, met: &LbaSet, emit: Emit<'_>) -> Done {
        if !self.sut.checks.has(CheckId::Content) {
            return Ok(());
        }
        let tiles: Vec<Tile> =
            met.runs().iter().flat_map(|run| self.model.live(role, *run)).collect();
        let by = (self.model.run(), role);
        let device = self.device(role)?;
        let wrong = match wrong_in((device, None), &tiles, by, self.sut.reading()) {
            // A target without contents has none to settle.
            Err(DeviceError::Unsupported(_)) => return Ok(()),
            wrong => wrong?,
        };
        let place = Place { run: by.0, role, snap: None, like: None };
        self.tell_wrong(emit, device, place, wrong.as_ref())?;
        content(role, wrong, "after operations in flight together")?;
        let seen = values_in(device, &tiles, by, self.sut.reading())?;
        for (at, value) in seen {
            self.model.settle_live(role, at, value);
            emit(Event::Seen { snap: None, role, at, value });
            self.sut.tell(emit, || recording::seen(role, None, at, value));
        }
        Ok(())
    }

    /// Tells what is where nothing of the like may be: what settles nothing would stay unsaid.
    fn tell_wrong(
        &self,
        emit: Emit<'_>,
        device: &dyn BlockDevice,
        place: Place,
        wrong: Option<&(Values, WrongBlocks)>,
    ) -> Done {
        let lbas = wrong.iter().flat_map(|(_, blocks)| blocks);
        let places = lbas.filter_map(|(lba, _)| Extent::new(*lba, LbaCount::new(1)));
        match wrong {
            Some(_) => self.sut.tell_blocks(emit, device, place, places),
            None => Ok(()),
        }
    }

    /// On which side of a cut the operations are that were in flight at it: what the snapshot shows
    /// is in it, and so must its diffs say (`oracle.md` section 4).
    pub(super) fn settle_cut(
        &mut self,
        role: Role,
        label: Label,
        unsure: &LbaSet,
        emit: Emit<'_>,
    ) -> Done {
        if !self.capabilities.snapshot_readable || !self.sut.checks.has(CheckId::CutLaw) {
            return Ok(());
        }
        let Some(snapshot) = self.model.snapshot(label) else { return Ok(()) };
        let over = |run: &Extent| {
            let tiles = snapshot.contents.over(*run);
            tiles.map(|(tile, values)| (tile, values.clone())).collect::<Vec<Tile>>()
        };
        let tiles: Vec<Tile> = unsure.runs().iter().flat_map(over).collect();
        let by = (self.model.run(), role);
        let frozen = self.frozen(label)?;
        let wrong = wrong_in((&frozen, None), &tiles, by, self.sut.reading())?;
        let place = Place { run: by.0, role, snap: Some(label), like: None };
        self.tell_wrong(emit, &frozen, place, wrong.as_ref())?;
        content(role, wrong, &format!("in snapshot {label}, in flight at its cut"))?;
        let seen = values_in(&frozen, &tiles, by, self.sut.reading())?;
        self.session.compared += 1;
        for (at, value) in seen {
            self.model.settle_snapshot(label, at, value);
            emit(Event::Seen { snap: Some(label), role, at, value });
            self.sut.tell(emit, || recording::seen(role, Some(label), at, value));
        }
        Ok(())
    }
}
