//! From identified to armed: the handshake that proves which volume is behind which device before
//! anything is changed (`safety.md`, "Handshake").
//!
//! It is a scenario like any other: snapshots back to back, the very bytes of a few random LBAs
//! written over themselves, a snapshot, diffs. On a device nobody else writes, no content changes.
//! It decides *identity only*: an answer that is merely wrong is a finding, not a refusal, if the
//! device is proved otherwise. Not covered: arrays that skip identical writes on devices that
//! nothing else identifies; they are refused, because the way round it would change contents.

use crate::array::{Array, BlockDevice, Clock, Waiting};
use crate::block::{CHUNK_LBAS, Extent, Geometry, Lba, LbaCount, LbaSet, Policy, Role};
use crate::device::{Armed, GuardRefusal, HandshakeProof, Identified, Identity};
use crate::engine::{Ledger, Pipeline, Sut, SutVolume, run_answered};
use crate::model::Model;
use crate::oracle::{Checks, Kind, Reason, Verdict, Violation};
use crate::scenario::{Header, Label, Op, Scenario};
use crate::sync::{ChecksumMethod, CopyConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
}

/// Why the devices were not armed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// A guard refused.
    #[error(transparent)]
    Refused(#[from] GuardRefusal),
    /// The handshake could not be held.
    #[error("handshake: {0}")]
    CouldNotTest(Reason),
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
    /// Shapes of the volumes.
    pub volumes: BTreeMap<Role, Geometry>,
}

/// What two diffs say about who is who.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Each device is its volume.
    Right,
    /// Each device is the other volume.
    Swapped,
    /// Both devices show in both volumes: one volume behind two paths.
    OneVolume,
    /// One device is its volume, the other shows nothing; which, for people.
    Half(&'static str),
    /// Nothing shows anywhere: the array skips identical writes, or the devices are others.
    Silent,
    /// LBAs show that nobody wrote; the diffs cannot be trusted to tell.
    Unclear(String),
    /// LBAs show even before anything was written.
    Restless(String),
    /// A diff was not answered as it must be; the findings say how.
    Unanswered(String),
}

/// Reads the answers: `drawn` are the LBAs rewritten on (source, target), `seen` the LBAs reported
/// since. Answers are read in whole chunks if the policy allows no finer reading. Rewrites that do
/// not show are legal (`oracle.md` section 2): what shows decides, and nothing else may show.
pub fn read_answers(
    drawn: (&LbaSet, &LbaSet),
    seen: (&LbaSet, &LbaSet),
    policy: Policy,
) -> Reading {
    let unit = match policy {
        Policy::Exact => LbaCount::new(1),
        Policy::Chunk | Policy::ReportOnly => LbaCount::new(CHUNK_LBAS),
        Policy::Granule(lbas) => lbas,
    };
    let whole = |set: &LbaSet| set.rounded_out(unit);
    let (a, b) = (whole(drawn.0), whole(drawn.1));
    let (src, tgt) = (whole(seen.0), whole(seen.1));
    let within = |seen: &LbaSet, drawn: &LbaSet| seen.difference(drawn).is_empty();
    let shows = |seen: &LbaSet, drawn: &LbaSet| !seen.intersection(drawn).is_empty();
    let mixed = |seen: &LbaSet| within(seen, &a.union(&b)) && shows(seen, &a) && shows(seen, &b);
    let swapped = |set: &LbaSet| {
        set.chunks().into_iter().fold(LbaSet::new(), |mut all, (start, bits)| {
            all.insert_chunk(start, bits.byte_swapped());
            all
        })
    };
    // Whole chunks would hide a wrong byte order, so this is looked at bit by bit, and first.
    let drawn_alone = (drawn.0.clone(), drawn.1.clone());
    let big_endian = drawn_alone != (seen.0.clone(), seen.1.clone())
        && drawn_alone == (swapped(seen.0), swapped(seen.1));
    if big_endian {
        unclear(drawn, seen, "; with swapped bytes they would be right: set --bitmap-order big")
    } else if within(&src, &a) && within(&tgt, &b) {
        match (src.is_empty(), tgt.is_empty()) {
            (false, false) => Reading::Right,
            (false, true) => Reading::Half("target"),
            (true, false) => Reading::Half("source"),
            (true, true) => Reading::Silent,
        }
    } else if within(&src, &b) && within(&tgt, &a) && !src.is_empty() && !tgt.is_empty() {
        Reading::Swapped
    } else if mixed(&src) && mixed(&tgt) {
        Reading::OneVolume
    } else {
        unclear(drawn, seen, "")
    }
}

fn unclear(drawn: (&LbaSet, &LbaSet), seen: (&LbaSet, &LbaSet), hint: &str) -> Reading {
    Reading::Unclear(format!(
        "written were {} on the source and {} on the target, reported are {} and {}{hint}",
        drawn.0, drawn.1, seen.0, seen.1
    ))
}

/// What a reading means for the devices at `one` (source) and `two` (target): a finding and a note
/// if they may be armed. `proved` says that something else identifies both.
///
/// # Errors
/// [`GuardRefusal`] if they are not what they should be, or if nothing says what they are.
fn decide(
    reading: Reading,
    proved: bool,
    (one, two): (&Path, &Path),
) -> Result<(Option<Violation>, Option<String>), GuardRefusal> {
    let (one, two) = (one.display(), two.display());
    let refuse = |guard, message| Err(GuardRefusal { guard, message });
    match reading {
        Reading::Right => Ok((None, None)),
        Reading::Swapped => refuse(
            "G12",
            format!(
                "{one} is the target and {two} is the source: swapped; use --source-device {two} --target-device {one}"
            ),
        ),
        Reading::OneVolume => refuse(
            "G13",
            format!(
                "{one} and {two} are one volume behind two paths: writes to either show in both; give two volumes"
            ),
        ),
        Reading::Half(silent) if !proved => refuse(
            "G12",
            format!(
                "writes to the {silent} show in no diff: a wrong device, or an array that skips identical writes; nothing else identifies {one} and {two}, so they stay untouched"
            ),
        ),
        Reading::Silent if !proved => refuse(
            "G12",
            format!(
                "writes to {one} and {two} show in neither volume's diff: wrong devices, or an array that skips identical writes; nothing else identifies the devices, so they stay untouched"
            ),
        ),
        Reading::Unclear(what) | Reading::Restless(what) | Reading::Unanswered(what) if !proved => {
            refuse(
                "G12",
                format!(
                    "the diffs cannot be trusted to identify {one} and {two}: {what}; nothing else identifies them"
                ),
            )
        }
        Reading::Half(silent) => {
            Ok((None, Some(format!("handshake: identical writes to the {silent} show in no diff"))))
        }
        Reading::Silent => {
            Ok((None, Some("handshake: identical writes show in no diff".to_owned())))
        }
        Reading::Unclear(what) | Reading::Restless(what) => {
            Ok((Some(Violation::new(Kind::Leaked, format!("handshake: {what}"))), None))
        }
        // Its violation is among the scenario's own.
        Reading::Unanswered(_) => Ok((None, None)),
    }
}

impl Handshake<'_> {
    /// Holds the handshake and arms both devices for the first `allowed` LBAs.
    ///
    /// The model goes through it too, so that what it touched is expected later.
    ///
    /// # Errors
    /// [`ArmError`]; no content has changed.
    pub fn arm(
        &self,
        (source, target): (Identified, Identified),
        allowed: LbaCount,
        model: &mut Model,
        policy: Policy,
    ) -> Result<ArmedPair, ArmError> {
        let smaller = source.len_lbas().min(target.len_lbas());
        let (a, b) = draw(smaller)?;
        let pair = (&source, &target);
        let (mut reading, mut findings) = self.hold(pair, (&a, &b), model, policy)?;
        if matches!(reading, Reading::Restless(_)) {
            // A write still on its way may land once, not twice: ask again with fresh snapshots.
            let (again, more) = self.hold(pair, (&a, &b), model, policy)?;
            reading = again;
            findings.extend(more);
        }
        let proved =
            source.identity() != Identity::Undecided && target.identity() != Identity::Undecided;
        let (finding, note) = decide(reading, proved, (source.path(), target.path()))?;
        findings.extend(finding);
        let region = |device: &Identified| {
            let end = allowed.min(device.len_lbas());
            Extent::new(Lba::new(0), end).map(LbaSet::from).unwrap_or_default()
        };
        let (source_region, target_region) = (region(&source), region(&target));
        let proofs = (HandshakeProof::judged(&source), HandshakeProof::judged(&target));
        let source = source.arm(&proofs.0, source_region)?;
        let target = target.arm(&proofs.1, target_region)?;
        Ok(ArmedPair { source, target, findings, notes: note.into_iter().collect() })
    }

    /// Runs the scenario and reads its answers.
    fn hold(
        &self,
        (source, target): (&Identified, &Identified),
        (a, b): (&LbaSet, &LbaSet),
        model: &mut Model,
        policy: Policy,
    ) -> Result<(Reading, Vec<Violation>), ArmError> {
        let ports = (source.handshake_port(a.clone()), target.handshake_port(b.clone()));
        let volumes = BTreeMap::from([
            (Role::Source, SutVolume::borrowed(source.volume(), &ports.0 as &dyn BlockDevice)),
            (Role::Target, SutVolume::borrowed(target.volume(), &ports.1 as &dyn BlockDevice)),
        ]);
        let pipeline = Pipeline {
            copy: CopyConfig::default(),
            checksum: ChecksumMethod::Direct,
            limit_to: None,
            max_full_sync: None,
            strict: false,
        };
        let mut sut = Sut {
            array: self.array,
            volumes,
            clock: self.clock,
            waiting: self.waiting,
            ledger: self.ledger,
            pipeline,
            checks: Checks::ALL,
        };
        let (verdict, answers) = run_answered(&self.scenario(a, b), model, &mut sut, &mut |_| {});
        let findings = match verdict {
            Verdict::Pass => Vec::new(),
            Verdict::Fail(violations) => violations,
            Verdict::Unknown(reason) => return Err(ArmError::CouldNotTest(reason)),
        };
        let of = |snap: u32, base: u32| answers.get(&(Label(snap), Some(Label(base))));
        let idle = (of(1, 0), of(3, 2));
        let reading = match (idle, of(4, 1), of(5, 3)) {
            ((Some(x), Some(y)), Some(src), Some(tgt)) if x.is_empty() && y.is_empty() => {
                read_answers((a, b), (src, tgt), policy)
            }
            ((Some(x), Some(y)), Some(_), Some(_)) => Reading::Restless(format!(
                "with nothing written, {} LBAs of the source and {} of the target are reported: somebody else writes, or the diff invents changes",
                x.count(),
                y.count()
            )),
            _ => Reading::Unanswered(
                findings.first().map_or("no answer".to_owned(), ToString::to_string),
            ),
        };
        Ok((reading, findings))
    }

    fn scenario(&self, a: &LbaSet, b: &LbaSet) -> Scenario {
        let take = |label: u32| Op::Take { label: Label(label), wait: true };
        let on = |op: Op| Op::On { volume: Role::Target, op: Box::new(op) };
        let diff = |snap: u32, base: u32| Op::Diff {
            snap: Label(snap),
            base: Some(Label(base)),
            from: Lba::new(0),
            between_pages: None,
        };
        let mut ops = vec![take(0), take(1), on(take(2)), on(take(3)), diff(1, 0), diff(3, 2)];
        ops.extend(a.runs().iter().map(|at| Op::Rewrite { at: *at }));
        ops.push(Op::Flush);
        ops.extend(b.runs().iter().map(|at| on(Op::Rewrite { at: *at })));
        ops.push(on(Op::Flush));
        ops.extend([take(4), on(take(5)), diff(4, 1), diff(5, 3)]);
        // Identity is read from the answers; over-reporting is the suite's business.
        let header = Header::new(self.volumes.clone(), Policy::ReportOnly, "handshake");
        Scenario::new(header, ops)
    }
}

/// Draws the LBAs for both volumes: no two in one chunk, none near the ends.
fn draw(len: LbaCount) -> Result<(LbaSet, LbaSet), ArmError> {
    let third = len.get() / 3;
    let (low, high) = match len.get() > 3 * ENDS.get() {
        true => (ENDS.get(), len.get() - ENDS.get()),
        false => (third, len.get() - third),
    };
    let mut chunks: BTreeSet<u64> = BTreeSet::new();
    let mut lbas = Vec::new();
    while lbas.len() < 2 * DRAWN {
        let random = getrandom::u64().map_err(ArmError::Random)?;
        let lba = low + random % (high - low).max(1);
        // A volume of less than 32 chunks in its middle would never yield enough.
        let taken = !chunks.insert(lba / CHUNK_LBAS);
        if taken && high - low >= 4 * DRAWN as u64 * CHUNK_LBAS {
            continue;
        }
        lbas.push(Extent::lbas(lba, 1));
    }
    let (a, b) = lbas.split_at(DRAWN);
    let (a, b): (LbaSet, LbaSet) = (a.iter().copied().collect(), b.iter().copied().collect());
    Ok((a.clone(), b.difference(&a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lbas: &[u64]) -> LbaSet {
        lbas.iter().map(|&lba| Extent::lbas(lba, 1)).collect()
    }

    #[test]
    fn drawn_lbas_lie_apart_and_away_from_the_ends() {
        for _ in 0..200 {
            let (a, b) = draw(LbaCount::mib(2048)).expect("random numbers");
            assert_eq!((a.count().get(), b.count().get()), (8, 8));
            let chunks: BTreeSet<u64> =
                a.union(&b).chunks().iter().map(|(at, _)| at.get()).collect();
            assert_eq!(chunks.len(), 16);
            let (first, last) = (LbaCount::mib(65).get(), LbaCount::mib(2048 - 65).get());
            assert!(
                a.union(&b)
                    .runs()
                    .iter()
                    .all(|run| run.start().get() >= first && run.end().get() <= last)
            );
        }
    }

    #[test]
    fn each_constellation_is_read_for_what_it_is() {
        let (a, b) = (set(&[100, 300]), set(&[700, 900]));
        let both = a.union(&b);
        let none = LbaSet::new();
        let read = |src: &LbaSet, tgt: &LbaSet| read_answers((&a, &b), (src, tgt), Policy::Exact);
        assert_eq!(read(&a, &b), Reading::Right);
        assert_eq!(read(&b, &a), Reading::Swapped);
        assert_eq!(read(&both, &both), Reading::OneVolume);
        assert_eq!(read(&none, &none), Reading::Silent);
        for (src, tgt) in [(&both, &b), (&set(&[100, 101]), &b), (&none, &a), (&b, &none)] {
            assert!(matches!(read(src, tgt), Reading::Unclear(_)), "{src:?} {tgt:?}");
        }
    }

    #[test]
    fn rewrites_that_do_not_show_change_no_reading() {
        let (a, b) = (set(&[100, 300]), set(&[700, 900]));
        let (some_a, some_b, none) = (set(&[300]), set(&[700]), LbaSet::new());
        let read = |src: &LbaSet, tgt: &LbaSet| read_answers((&a, &b), (src, tgt), Policy::Exact);
        assert_eq!(read(&some_a, &some_b), Reading::Right);
        assert_eq!(read(&a, &some_b), Reading::Right);
        assert_eq!(read(&some_a, &none), Reading::Half("target"));
        assert_eq!(read(&none, &b), Reading::Half("source"));
        assert_eq!(read(&some_b, &some_a), Reading::Swapped);
        let mixed = set(&[100, 900]);
        assert_eq!(read(&mixed, &mixed), Reading::OneVolume);
    }

    #[test]
    fn what_nobody_wrote_is_leaked_on_proved_devices_and_refused_on_others() {
        let paths = (Path::new("/dev/a"), Path::new("/dev/b"));
        let extra = || [Reading::Unclear("x".into()), Reading::Restless("x".into())];
        for reading in extra() {
            let (finding, note) = decide(reading, true, paths).expect("armed");
            assert_eq!(finding.map(|found| found.kind), Some(Kind::Leaked));
            assert_eq!(note, None);
        }
        for reading in [Reading::Half("target"), Reading::Silent] {
            let (finding, note) = decide(reading, true, paths).expect("armed");
            assert!(
                finding.is_none() && note.is_some_and(|note| note.contains("identical writes"))
            );
        }
        let unproved = [Reading::Half("source"), Reading::Silent, Reading::Unanswered("x".into())];
        for reading in extra().into_iter().chain(unproved) {
            let refused = decide(reading.clone(), false, paths).expect_err("refused");
            assert_eq!(refused.guard, "G12", "{reading:?}");
        }
        for (reading, guard) in [(Reading::Swapped, "G12"), (Reading::OneVolume, "G13")] {
            let refused = decide(reading, true, paths).expect_err("refused whatever else is known");
            assert_eq!(refused.guard, guard);
        }
        assert_eq!(decide(Reading::Right, false, paths), Ok((None, None)));
    }

    #[test]
    fn a_tracker_of_whole_chunks_is_read_in_whole_chunks() {
        let (a, b) = (set(&[100]), set(&[700]));
        let wide = |set: &LbaSet| set.rounded_out(LbaCount::new(64));
        let read = |policy| read_answers((&a, &b), (&wide(&a), &wide(&b)), policy);
        assert_eq!(read(Policy::Chunk), Reading::Right);
        assert!(matches!(read(Policy::Exact), Reading::Unclear(_)));
    }

    #[test]
    fn swapped_bytes_are_pointed_out() {
        let (a, b) = (set(&[64]), set(&[128]));
        for policy in [Policy::Exact, Policy::Chunk] {
            let reading = read_answers((&a, &b), (&set(&[120]), &set(&[184])), policy);
            assert!(matches!(reading, Reading::Unclear(why) if why.contains("--bitmap-order big")));
        }
    }
}
