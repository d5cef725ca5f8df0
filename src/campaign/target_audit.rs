//! The target over many cases: each case judges what it copied itself, and this keeps a digest of
//! every other piece of the region, so that a stray write of one case is found by a later full read.
//!
//! A piece that a case may have written (its footprint) is read anew when the case is over; all the
//! others must read as before. Not covered: what a piece should hold, which is the case's own model's
//! to say; the source.

use super::live::footprint;
use crate::array::BlockDevice;
use crate::block::{Extent, Lba, LbaCount, LbaSet};
use crate::oracle::{Kind, Violation};
use crate::scenario::Scenario;
use crate::sync::{ChecksumError, Digest, direct};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// LBAs of a piece: 1 MiB of a device's blocks.
const PIECE: u64 = 256;
const PIECE_STEP: usize = 256;

/// Digests of the pieces of a region of the target.
pub struct TargetAudit<'t> {
    target: &'t dyn BlockDevice,
    region: Extent,
    stop: &'t AtomicBool,
    /// A case between two full reads of the target.
    every: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    pieces: BTreeMap<Lba, Digest>,
    cases: u64,
}

impl<'t> TargetAudit<'t> {
    /// Reads nothing yet. A full read follows every `every` cases.
    pub fn new(
        target: &'t dyn BlockDevice,
        region: Extent,
        every: u64,
        stop: &'t AtomicBool,
    ) -> TargetAudit<'t> {
        TargetAudit { target, region, stop, every: every.max(1), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pieces(&self) -> impl Iterator<Item = Extent> {
        let end = self.region.end();
        let starts = (self.region.start().get()..end.get()).step_by(PIECE_STEP);
        starts.filter_map(move |start| {
            let last = Lba::new(start.saturating_add(PIECE)).min(end);
            Extent::between(Lba::new(start), last)
        })
    }

    /// A scenario ran: what it may have written is not known any more.
    pub fn ran(&self, scenario: &Scenario) {
        let touched = footprint(scenario);
        let mut known = self.known();
        known.pieces.retain(|&start, _| {
            let piece = Extent::new(start, LbaCount::new(PIECE));
            piece.is_some_and(|piece| touched.within(piece).is_empty())
        });
    }

    /// A case of the campaign is over. Every so often reads the whole region and answers what is not
    /// as it was; pieces that are not known are learnt.
    ///
    /// # Errors
    /// When the target cannot be read, or the stop flag is set.
    pub fn case_over(&self) -> Result<Option<Violation>, ChecksumError> {
        let mut known = self.known();
        known.cases += 1;
        let full = known.cases.is_multiple_of(self.every);
        let mut strayed = LbaSet::new();
        for piece in self.pieces() {
            let before = known.pieces.get(&piece.start()).copied();
            if before.is_some() && !full {
                continue;
            }
            let now = direct(self.target, piece, self.stop)?;
            if before.is_some_and(|before| before != now) {
                strayed.insert(piece);
            }
            known.pieces.insert(piece.start(), now);
        }
        if strayed.is_empty() {
            return Ok(None);
        }
        let sentence = format!(
            "the target changed within {strayed}, where none of the last {} cases copied",
            self.every.min(known.cases)
        );
        Ok(Some(Violation::new(Kind::Disturbed, sentence).at(strayed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Geometry, Policy, Role};
    use crate::block::{ByteOffset, RunId};
    use crate::campaign::inproc::{InProcess, InProcessConfig};
    use crate::scenario::{Header, Op};
    use crate::sync::PipelineBugs;

    fn writes(at: Extent) -> Scenario {
        let shape = Geometry { block: BlockSize::DEVICE, len: LbaCount::new(4096), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        Scenario::new(Header::new(volumes, Policy::Exact, "a test"), [Op::Write { at }])
    }

    fn put(device: &dyn BlockDevice, lba: u64) {
        let bytes = [7; 4096];
        let at = ByteOffset::new(lba * 4096);
        assert_eq!(device.write_at(at, &bytes).expect("writes"), 4096);
    }

    #[test]
    fn a_stray_write_is_found_by_the_next_full_read_and_a_copy_of_a_case_is_not_one() {
        let config = InProcessConfig {
            len: LbaCount::new(4096),
            block: BlockSize::DEVICE,
            page_limit: 3,
            array_bugs: Vec::new(),
            pipeline_bugs: PipelineBugs::NONE,
        };
        let world = InProcess::new(config, RunId::from_u128(1)).expect("it sets up");
        let sut = world.sut();
        let device = sut.volumes[&Role::Target].device();
        let stop = AtomicBool::new(false);
        let audit = TargetAudit::new(device, Extent::lbas(512, 1000), 3, &stop);
        let over = |write: Option<u64>| {
            if let Some(lba) = write {
                put(device, lba);
                audit.ran(&writes(Extent::lbas(lba, 1)));
            }
            audit.case_over().expect("readable")
        };
        assert_eq!(over(None), None, "learnt");
        assert_eq!(over(Some(600)), None, "its own place");
        put(device, 1100);
        let found = over(Some(601)).expect("the third case reads it all");
        assert_eq!((found.kind, found.extents), (Kind::Disturbed, Extent::lbas(1024, 256).into()));
        // The last piece is short: 1280 to 1512; what lies behind the region is nobody's.
        put(device, 1600);
        assert_eq!((over(None), over(None), over(None)), (None, None, None));
        put(device, 1511);
        assert_eq!((over(None), over(None)), (None, None));
        assert_eq!(over(None).map(|found| found.extents), Some(Extent::lbas(1280, 232).into()));
    }
}
