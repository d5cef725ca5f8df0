//! What a finding's folder tells besides its record: the recording of the shrunk scenario, whether
//! there is a script for people, and the planted bug that it looks like.
//!
//! Not covered: writing any of it (`super::investigate`), drawing it (`crate::report`).

use super::finding::BY_HAND;
use super::nearest::{Nearest, nearest, witnesses};
use super::record::EVENTS;
use super::run_record::Found;
use crate::judge::{Record, read_records};
use std::fs;

/// A recording larger than this is not drawn, in bytes.
const RECORDING_MAX: u64 = 32 << 20;

/// What a finding's folder tells besides its record.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Retold {
    /// What was done and answered when the shrunk scenario ran; empty if there is no recording that
    /// can be read.
    pub records: Vec<Record>,
    /// Whether there is a script for people with curl and dd.
    pub by_hand: bool,
    /// The planted bug that it looks like.
    pub nearest: Option<Nearest>,
}

/// Reads it. What is missing or torn is left out.
pub fn retold(found: &Found) -> Retold {
    let events = found.folder.join(EVENTS);
    let small = fs::metadata(&events).is_ok_and(|file| file.len() <= RECORDING_MAX);
    let text = small.then(|| fs::read_to_string(&events).ok()).flatten();
    let records = text.and_then(|text| read_records(&text).ok()).unwrap_or_default();
    let by_hand = found.folder.join(BY_HAND).is_file();
    let nearest = nearest(found.record.shown(), &found.scenario, &witnesses());
    Retold { records, by_hand, nearest }
}
