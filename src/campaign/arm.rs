//! From identified to armed: the handshake that proves which volume is behind which device before
//! anything is changed (`safety.md`, "Handshake").
//!
//! It is a scenario like any other: snapshots back to back, the very bytes of a few random LBAs
//! written over themselves, a snapshot, diffs. On a device nobody else writes, no content changes.
//! If no diff shows those writes, stamps are written instead, and the old bytes put back.
//! It decides *identity only*: an answer that is merely wrong is a finding, not a refusal, if the
//! device is proved otherwise. Not covered: how answers are read (`super::answers`), and blocks that
//! a killed run left stamped (`super::restore`).

use super::answers::{Phase, Reading, decide, missed, read_answers, unit_of};
use super::journal::{Journal, Saved};
use crate::array::{Array, BlockDevice, Clock, DeviceError, Waiting};
use crate::block::{
    CHUNK_LBAS, Extent, Geometry, Lba, LbaCount, LbaSet, Policy, Role, RunId, VolumeUuid,
};
use crate::device::{
    Armed, GuardRefusal, HandshakeProof, Identified, Identity, SavedBlocks, StampDevice,
};
use crate::engine::{Answers, Event, Ledger, Pipeline, Recorded, Sut, SutVolume, run_answered};
use crate::model::Model;
use crate::oracle::{CheckId, Checks, Reason, Verdict, Violation};
use crate::scenario::{Header, Label, Op, Scenario};
use crate::sync::{ChecksumMethod, CopyConfig};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// LBAs written on each volume.
const DRAWN: usize = 8;
/// LBAs at both ends that are never drawn: 65 MiB hold every superblock and its copies.
const ENDS: LbaCount = LbaCount::mib(65);

/// Two armed devices and what the handshake found wrong on the way.
#[derive(Debug)]
pub struct ArmedPair {
    /// The volume that is written and snapshotted.
    pub source: Armed,
    /// The volume that syncs copy to.
    pub target: Armed,
    /// Wrong answers seen on devices that are proved otherwise.
    pub findings: Vec<Violation>,
    /// What was odd but legal.
    pub notes: Vec<String>,
    /// LBAs of the source that the handshake wrote: they hold what they held.
    pub rewritten: LbaSet,
}

/// Why the devices were not armed. They hold what they held, but for [`ArmError::NotRestored`].
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// A guard refused.
    #[error(transparent)]
    Refused(#[from] GuardRefusal),
    /// The handshake could not be held.
    #[error("handshake: {0}")]
    CouldNotTest(Reason),
    /// The old bytes could not be kept, so nothing was stamped; or it could not be noted that they
    /// are back.
    #[error("handshake: the journal cannot be written: {0}; free some space and start again")]
    Journal(io::Error),
    /// Old bytes could not be put back.
    #[error(
        "handshake: {} may hold stamps at {at} in place of what was there: {source}; the old bytes are in {}, and `lbaudit clean --yes` puts them back",
        .path.display(), .journal.display()
    )]
    NotRestored {
        /// The device.
        path: PathBuf,
        /// The LBAs.
        at: Box<LbaSet>,
        /// The file that has the old bytes.
        journal: PathBuf,
        /// What went wrong.
        source: DeviceError,
    },
    /// No random numbers.
    #[error("handshake: no random numbers: {0}")]
    Random(getrandom::Error),
}

/// What the handshake runs on.
pub struct Handshake<'a> {
    /// The control plane.
    pub array: &'a dyn Array,
    /// Time.
    pub clock: &'a dyn Clock,
    /// How long to wait, and who may say stop.
    pub waiting: Waiting<'a>,
    /// The run's snapshots.
    pub ledger: &'a Ledger,
    /// Keeps what is about to be stamped.
    pub journal: &'a Journal,
    /// Sees what happens meanwhile.
    pub watch: &'a dyn Fn(&Event),
    /// Shapes of the volumes.
    pub volumes: BTreeMap<Role, Geometry>,
}

/// A device for each of the two roles.
type Pair<'d> = (&'d Identified, &'d Identified);
/// The LBAs written on each of the two.
type Drawn<'d> = (&'d LbaSet, &'d LbaSet);
/// What the answers say of identity, and what is wrong with them.
type Read = (Reading, Vec<Violation>);

impl Handshake<'_> {
    /// Holds the handshake and arms both devices for the LBAs of `allowed` that they have.
    ///
    /// The model goes through it too, so that what it touched is expected later.
    ///
    /// # Errors
    /// [`ArmError`]; the contents are as they were, but for [`ArmError::NotRestored`].
    pub fn arm(
        &self,
        (source, target): (Identified, Identified),
        allowed: Extent,
        model: &mut Model,
        policy: Policy,
    ) -> Result<ArmedPair, ArmError> {
        let smaller = source.len_lbas().min(target.len_lbas());
        let (a, b) = draw(smaller, unit_of(policy))?;
        let (pair, drawn) = ((&source, &target), (&a, &b));
        let (mut reading, mut findings) = self.rewrite(pair, drawn, model, policy)?;
        if matches!(reading, Reading::Restless(_)) {
            // A write still on its way may land once, not twice: ask again with fresh snapshots.
            let (again, more) = self.rewrite(pair, drawn, model, policy)?;
            reading = again;
            findings.extend(more);
        }
        let proved =
            source.identity() != Identity::Undecided && target.identity() != Identity::Undecided;
        // An array that leaves identical writes out may leave out those of one volume only.
        let ask_again = match reading {
            Reading::Silent => true,
            Reading::Half(_) => !proved,
            _ => false,
        };
        let mut phase = Phase::Rewritten;
        if ask_again {
            phase = Phase::Stamped;
            let (again, more) = self.stamp(pair, drawn, model, policy)?;
            reading = again;
            findings.extend(more);
        }
        let (finding, note) = decide(reading, phase, proved, (source.path(), target.path()))?;
        findings.extend(finding);
        let region = |device: &Identified| {
            let whole = Extent::new(Lba::new(0), device.len_lbas());
            whole.and_then(|whole| whole.intersect(allowed)).map(LbaSet::from).unwrap_or_default()
        };
        let (source_region, target_region) = (region(&source), region(&target));
        let proofs = (HandshakeProof::judged(&source), HandshakeProof::judged(&target));
        let source = source.arm(&proofs.0, source_region)?;
        let target = target.arm(&proofs.1, target_region)?;
        let notes = note.into_iter().collect();
        Ok(ArmedPair { source, target, findings, notes, rewritten: a })
    }

    /// Writes what is there already over itself and reads what the diffs say.
    fn rewrite(
        &self,
        (source, target): Pair<'_>,
        drawn: Drawn<'_>,
        model: &mut Model,
        policy: Policy,
    ) -> Result<Read, ArmError> {
        let ports =
            (source.handshake_port(drawn.0.clone()), target.handshake_port(drawn.1.clone()));
        let mut ops =
            vec![take(0), take(1), on_target(take(2)), on_target(take(3)), diff(1, 0), diff(3, 2)];
        ops.extend(write_each(drawn, |at| Op::Rewrite { at }));
        ops.extend([take(4), on_target(take(5)), diff(4, 1), diff(5, 3)]);
        let volumes = [(source.volume(), &ports.0 as _), (target.volume(), &ports.1 as _)];
        let (verdict, answers) = self.run(volumes, ops, Checks::ALL, model);
        let findings = findings(verdict)?;
        let of = |snap: u32, base: u32| answers.get(&(Label(snap), Some(Label(base))));
        let idle = (of(1, 0), of(3, 2));
        let reading = match (idle, of(4, 1), of(5, 3)) {
            ((Some(x), Some(y)), Some(src), Some(tgt)) if x.is_empty() && y.is_empty() => {
                read_answers(drawn, (src, tgt), policy)
            }
            ((Some(x), Some(y)), Some(_), Some(_)) => Reading::Restless(format!(
                "with nothing written, {} LBAs of the source and {} of the target are reported: somebody else writes, or the diff invents changes",
                x.count(),
                y.count()
            )),
            _ => unanswered(&findings),
        };
        Ok((reading, findings))
    }

    /// Writes stamps, reads what the diffs say, and puts back what was there, whatever happened.
    /// The old bytes are in the journal before the first stamp is on a device.
    fn stamp(
        &self,
        (source, target): Pair<'_>,
        drawn: Drawn<'_>,
        model: &mut Model,
        policy: Policy,
    ) -> Result<Read, ArmError> {
        let read = |device: &Identified, at| {
            let cannot = |error: DeviceError| Reason::Device(error.to_string());
            device.save_blocks(at).map_err(|error| ArmError::CouldNotTest(cannot(error)))
        };
        let (old_source, old_target) = (read(source, drawn.0)?, read(target, drawn.1)?);
        let ports = (
            self.stamp_port(source, (model.run(), Role::Source), old_source)?,
            self.stamp_port(target, (model.run(), Role::Target), old_target)?,
        );
        let mut ops = vec![take(0), on_target(take(1))];
        ops.extend(write_each(drawn, |at| Op::Write { at }));
        ops.extend([take(2), on_target(take(3)), diff(2, 0), diff(3, 1)]);
        let volumes = [(source.volume(), &ports.0 as _), (target.volume(), &ports.1 as _)];
        // A diff that misses stamps must not keep the other one from being asked.
        let checks = Checks::ALL.without(CheckId::Missed);
        let (verdict, answers) = self.run(volumes, ops, checks, model);
        let back =
            [self.put_back(source, &ports.0, drawn.0), self.put_back(target, &ports.1, drawn.1)];
        for failed in back {
            failed?;
        }
        for (role, snap, at) in [(Role::Source, 0, drawn.0), (Role::Target, 1, drawn.1)] {
            model.put_back(Label(snap), at);
            model.apply(role, &Op::Flush);
        }
        let mut findings = findings(verdict)?;
        let of = |snap: u32, base: u32| answers.get(&(Label(snap), Some(Label(base))));
        let reading = match (of(2, 0), of(3, 1)) {
            (Some(src), Some(tgt)) => {
                findings.extend(missed("source", drawn.0, src));
                findings.extend(missed("target", drawn.1, tgt));
                read_answers(drawn, (src, tgt), policy)
            }
            _ => unanswered(&findings),
        };
        Ok((reading, findings))
    }

    fn stamp_port<'d>(
        &self,
        device: &'d Identified,
        owner: (RunId, Role),
        old: SavedBlocks,
    ) -> Result<StampDevice<'d>, ArmError> {
        let keep = |blocks: &SavedBlocks| {
            let (volume, role, blocks) = (device.volume(), owner.1, blocks.clone());
            let device = std::path::absolute(device.path())?;
            self.journal.save_blocks(Saved { volume, role, device, blocks })
        };
        device.stamp_port(owner, old, keep).map_err(ArmError::Journal)
    }

    fn put_back(
        &self,
        device: &Identified,
        port: &StampDevice<'_>,
        at: &LbaSet,
    ) -> Result<(), ArmError> {
        port.restore(at).map_err(|source| ArmError::NotRestored {
            path: device.path().to_owned(),
            at: Box::new(at.clone()),
            journal: self.journal.path().to_owned(),
            source,
        })?;
        self.journal.blocks_restored(device.volume()).map_err(ArmError::Journal)
    }

    /// Runs the operations on the two volumes. Identity is read from the answers; over-reporting
    /// is the suite's business.
    fn run(
        &self,
        [source, target]: [(VolumeUuid, &dyn BlockDevice); 2],
        ops: Vec<Op>,
        checks: Checks,
        model: &mut Model,
    ) -> (Verdict, Answers) {
        let header = Header::new(self.volumes.clone(), Policy::ReportOnly, "handshake");
        let pipeline = Pipeline {
            copy: CopyConfig::default(),
            checksum: ChecksumMethod::Direct,
            limit_to: None,
            max_full_sync: None,
            strict: false,
        };
        let mut sut = Sut {
            in_memory: false,
            array: self.array,
            volumes: BTreeMap::from([
                (Role::Source, SutVolume::borrowed(source.0, source.1)),
                (Role::Target, SutVolume::borrowed(target.0, target.1)),
            ]),
            clock: self.clock,
            waiting: self.waiting,
            ledger: self.ledger,
            pipeline,
            checks,
            record: Recorded::Nothing,
        };
        let scenario = Scenario::new(header, ops);
        run_answered(&scenario, model, &mut sut, &mut |event| (self.watch)(&event))
    }
}

fn take(label: u32) -> Op {
    Op::Take { label: Label(label), wait: true }
}

fn on_target(op: Op) -> Op {
    Op::On { volume: Role::Target, op: Box::new(op) }
}

fn diff(snap: u32, base: u32) -> Op {
    Op::Diff { snap: Label(snap), base: Some(Label(base)), from: Lba::new(0), between_pages: None }
}

/// Writes to the drawn LBAs of both volumes, and flushes.
fn write_each((a, b): Drawn<'_>, write: fn(Extent) -> Op) -> Vec<Op> {
    let mut ops: Vec<Op> = a.runs().iter().map(|at| write(*at)).collect();
    ops.push(Op::Flush);
    ops.extend(b.runs().iter().map(|at| on_target(write(*at))));
    ops.push(on_target(Op::Flush));
    ops
}

fn findings(verdict: Verdict) -> Result<Vec<Violation>, ArmError> {
    match verdict {
        Verdict::Pass => Ok(Vec::new()),
        Verdict::Fail(violations) => Ok(violations),
        Verdict::Unknown(reason) => Err(ArmError::CouldNotTest(reason)),
    }
}

fn unanswered(findings: &[Violation]) -> Reading {
    Reading::Unanswered(findings.first().map_or("no answer".to_owned(), ToString::to_string))
}

/// Draws the LBAs for both volumes, none near the ends. `unit` is what the diffs are read in: one of
/// each volume never lie in the same unit, or swapped devices would look right; two of one volume
/// only if the volume is too small for anything else.
fn draw(len: LbaCount, unit: LbaCount) -> Result<(LbaSet, LbaSet), ArmError> {
    let (third, unit) = (len.get() / 3, unit.get().max(CHUNK_LBAS));
    let (low, high) = match len.get() > 3 * ENDS.get() {
        true => (ENDS.get(), len.get() - ENDS.get()),
        false => (third, len.get() - third),
    };
    let (first, units) = (low / unit, high.div_ceil(unit) - low / unit);
    if units < 2 {
        return Err(ArmError::Refused(GuardRefusal {
            guard: "G12",
            message: format!(
                "volumes of {len} LBAs cannot be told apart by diffs that are read in units of {unit} LBAs; give larger ones, or a finer --policy"
            ),
        }));
    }
    let random = |n: u64| getrandom::u64().map(|word| word % n).map_err(ArmError::Random);
    let roomy = units >= 4 * DRAWN as u64;
    let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
    let mut drawn = [LbaSet::new(), LbaSet::new()];
    let mut turns = 0;
    while turns < 2 * DRAWN {
        // By turns, so that each has a unit of its own even if there are only two.
        let own = turns % 2;
        let chosen = first + random(units)?;
        if owners.get(&chosen).is_some_and(|owner| *owner != own || roomy) {
            continue;
        }
        owners.insert(chosen, own);
        let (start, end) = (low.max(chosen * unit), high.min((chosen + 1) * unit));
        drawn[own].insert(Extent::lbas(start + random(end - start)?, 1));
        turns += 1;
    }
    let [a, b] = drawn;
    Ok((a, b))
}

#[cfg(test)]
#[path = "arm_tests.rs"]
mod tests;
