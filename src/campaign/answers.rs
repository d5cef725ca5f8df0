//! What the handshake's two diffs say about who is who, and what that means for the devices.
//!
//! Pure: sets of LBAs in, a verdict on identity out. Not covered: whether the diffs are right in
//! general; that is the suite's business.

use crate::block::{CHUNK_LBAS, LbaCount, LbaSet, Policy};
use crate::device::GuardRefusal;
use crate::oracle::{Kind, Violation};
use std::path::Path;

/// What two diffs say about who is who.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Each device is its volume.
    Right,
    /// Each device is the other volume.
    Swapped,
    /// Both devices show in one of the volumes, or in both: one volume behind two paths.
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

/// How finely answers are read under a policy.
pub(super) const fn unit_of(policy: Policy) -> LbaCount {
    match policy {
        Policy::Exact => LbaCount::new(1),
        Policy::Chunk | Policy::ReportOnly => LbaCount::new(CHUNK_LBAS),
        Policy::Granule(lbas) => lbas,
    }
}

/// Reads the answers: `drawn` are the LBAs rewritten on (source, target), `seen` the LBAs reported
/// since. Answers are read in whole chunks if the policy allows no finer reading. Rewrites that do
/// not show are legal (`oracle.md` section 2): what shows decides, and nothing else may show.
pub fn read_answers(
    drawn: (&LbaSet, &LbaSet),
    seen: (&LbaSet, &LbaSet),
    policy: Policy,
) -> Reading {
    let unit = unit_of(policy);
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
    } else if mixed(&src) && (tgt.is_empty() || mixed(&tgt)) || src.is_empty() && mixed(&tgt) {
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

/// What was written before the diffs were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The bytes that were there already; an array may leave such writes out of its diffs.
    Rewritten,
    /// Stamps, which no diff may leave out. They were replaced by the old bytes since.
    Stamped,
}

impl Phase {
    /// What a device that shows nothing may be, and what became of it.
    fn silence(self) -> &'static str {
        match self {
            Phase::Rewritten => {
                "a wrong device, or an array that skips identical writes; it stays untouched"
            }
            Phase::Stamped => {
                "a wrong device, or diffs that cannot be trusted to identify it; what it held was put back"
            }
        }
    }
}

/// What a reading means for the devices at `one` (source) and `two` (target): a finding and a note
/// if they may be armed. `proved` says that something else identifies both.
///
/// # Errors
/// [`GuardRefusal`] if they are not what they should be, or if nothing says what they are.
pub(super) fn decide(
    reading: Reading,
    phase: Phase,
    proved: bool,
    (one, two): (&Path, &Path),
) -> Result<(Option<Violation>, Option<String>), GuardRefusal> {
    let (one, two) = (one.display(), two.display());
    let refuse = |guard, message| Err(GuardRefusal { guard, message });
    let leaked =
        |what: String| Ok((Some(Violation::new(Kind::Leaked, format!("handshake: {what}"))), None));
    match reading {
        Reading::Right => Ok((None, None)),
        // Each device itself says that it is its volume, so it is the diffs that are wrong.
        Reading::Swapped if proved => {
            leaked(format!("the diffs of {one} and {two} report the writes to the other one"))
        }
        Reading::OneVolume if proved => {
            leaked(format!("one diff reports the writes to both {one} and {two}"))
        }
        Reading::Swapped => refuse(
            "G12",
            format!(
                "{one} is the target and {two} is the source: swapped; use --source-device {two} --target-device {one}"
            ),
        ),
        Reading::OneVolume => refuse(
            "G13",
            format!(
                "{one} and {two} are one volume behind two paths: writes to both show in one diff; give two volumes"
            ),
        ),
        Reading::Half(silent) if !proved => refuse(
            "G12",
            format!(
                "writes to the {silent} show in no diff: {}; nothing else identifies {one} and {two}",
                phase.silence()
            ),
        ),
        Reading::Silent if !proved => refuse(
            "G12",
            format!(
                "writes to {one} and {two} show in neither volume's diff: each is {}; nothing else identifies them",
                phase.silence()
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
        // What stamps do not show is missed, and a finding already: see [`missed`].
        Reading::Half(_) | Reading::Silent if phase == Phase::Stamped => Ok((None, None)),
        Reading::Half(silent) => {
            Ok((None, Some(format!("handshake: identical writes to the {silent} show in no diff"))))
        }
        Reading::Silent => {
            Ok((None, Some("handshake: identical writes show in no diff".to_owned())))
        }
        Reading::Unclear(what) | Reading::Restless(what) => leaked(format!(
            "{what}; if anybody else writes to these volumes, that is why: stop it first"
        )),
        // Its violation is among the scenario's own.
        Reading::Unanswered(_) => Ok((None, None)),
    }
}

/// Stamps that a volume's diff does not report: new contents, so they had to be.
pub(super) fn missed(volume: &str, stamped: &LbaSet, seen: &LbaSet) -> Option<Violation> {
    let missed = stamped.difference(seen);
    let sentence =
        format!("handshake: {missed} of the {volume} were stamped, its diff does not report them");
    (!missed.is_empty()).then(|| Violation::new(Kind::Missed, sentence).at(missed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;

    fn set(lbas: &[u64]) -> LbaSet {
        lbas.iter().map(|&lba| Extent::lbas(lba, 1)).collect()
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
        assert_eq!(read(&both, &none), Reading::OneVolume);
        assert_eq!(read(&none, &both), Reading::OneVolume);
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
            let (finding, note) = decide(reading, Phase::Rewritten, true, paths).expect("armed");
            assert_eq!(finding.map(|found| found.kind), Some(Kind::Leaked));
            assert_eq!(note, None);
        }
        for reading in [Reading::Half("target"), Reading::Silent] {
            let (finding, note) = decide(reading, Phase::Rewritten, true, paths).expect("armed");
            assert!(
                finding.is_none() && note.is_some_and(|note| note.contains("identical writes"))
            );
        }
        let unproved = [Reading::Half("source"), Reading::Silent, Reading::Unanswered("x".into())];
        for reading in extra().into_iter().chain(unproved) {
            let refused = decide(reading.clone(), Phase::Rewritten, false, paths);
            let refused = refused.expect_err("refused");
            assert_eq!(refused.guard, "G12", "{reading:?}");
        }
        for (reading, guard) in [(Reading::Swapped, "G12"), (Reading::OneVolume, "G13")] {
            let refused = decide(reading.clone(), Phase::Rewritten, false, paths);
            assert_eq!(refused.expect_err("refused").guard, guard);
            // Two proofs against two diffs: the diffs lie.
            let (finding, _) = decide(reading, Phase::Rewritten, true, paths).expect("armed");
            assert_eq!(finding.map(|found| found.kind), Some(Kind::Leaked));
        }
        assert_eq!(decide(Reading::Right, Phase::Rewritten, false, paths), Ok((None, None)));
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

    #[test]
    fn stamps_that_no_diff_reports_are_missed_on_proved_devices_and_refused_on_others() {
        let paths = (Path::new("/dev/a"), Path::new("/dev/b"));
        for reading in [Reading::Half("target"), Reading::Silent] {
            assert_eq!(decide(reading.clone(), Phase::Stamped, true, paths), Ok((None, None)));
            let refused = decide(reading, Phase::Stamped, false, paths).expect_err("refused");
            assert!(refused.message.contains("cannot be trusted"), "{refused}");
            assert!(refused.message.contains("was put back"), "{refused}");
        }
        let found = missed("source", &set(&[100, 300]), &set(&[300])).expect("one is missed");
        assert_eq!((found.kind, found.extents), (Kind::Missed, set(&[100])));
        assert_eq!(missed("source", &set(&[100]), &set(&[100, 300])), None);
    }
}
