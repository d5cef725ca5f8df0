//! Digests: of what happened in one case, and of a whole campaign whatever order its cases ran in.
//!
//! Two runs of the same program with the same seed have the same digest, on any number of threads.
//! Times, speeds and names that the array gave do not enter. Not covered: comparing versions; the
//! digest of another version may differ.

use crate::engine::Event;
use crate::oracle::Verdict;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// A fast hash of words, the same on every machine. Not for secrets.
#[derive(Clone, Copy, Debug)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn write_isize(&mut self, word: isize) {
        self.write_usize(word.cast_unsigned());
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Collects what happens in one case.
#[derive(Clone, Copy, Debug)]
pub struct CaseDigest(Mixer);

impl Default for CaseDigest {
    fn default() -> CaseDigest {
        CaseDigest(Mixer(0x6c62_6175_6469_7431))
    }
}

impl CaseDigest {
    /// Adds an event.
    pub fn event(&mut self, event: &Event) {
        let to = &mut self.0;
        match event {
            Event::Step { index, op } => (1u8, index, op).hash(to),
            Event::Wrote { role, what, at } => (2u8, role, what, at).hash(to),
            Event::Taken { label, .. } => (3u8, label).hash(to),
            Event::Deleted { label } => (4u8, label).hash(to),
            Event::Available { label } => (12u8, label).hash(to),
            // Which of two operations in flight together was last, and which side of a cut one lies
            // on, is the target's to choose; a simulated one chooses by its seed.
            Event::Seen { snap, role, at, value } => (13u8, snap, role, at, value).hash(to),
            Event::Page { page, ranges } => (5u8, page, ranges).hash(to),
            // What had to be reported is not what was done.
            Event::Diffed { snap, base, ranges, pages, lbas, must: _ } => {
                (6u8, snap, base, ranges, pages, lbas.get()).hash(to);
            }
            Event::Refused { snap, base, status, .. } => (7u8, snap, base, status).hash(to),
            Event::Synced { ranges, pages, lbas, .. } => {
                (8u8, ranges, pages, lbas.get()).hash(to);
            }
            Event::Checksummed { at, source, target } => (9u8, at, source, target).hash(to),
            Event::Skipped { op, .. } => (10u8, op).hash(to),
            Event::Violation { violation } => {
                (11u8, violation.kind, &violation.sentence).hash(to);
            }
            // Speeds are times; notes may hold names that the array gave; a recorded case is the same
            // case.
            Event::Throughput { .. } | Event::Note { .. } | Event::Record(_) => {}
        }
    }

    /// The digest of the case, its verdict included.
    pub fn finish(mut self, verdict: &Verdict) -> u64 {
        let word: u8 = match verdict {
            Verdict::Pass => 12,
            Verdict::Fail(_) => 13,
            Verdict::Unknown(_) => 14,
        };
        word.hash(&mut self.0);
        self.0.finish()
    }
}

/// The digest of a campaign: a sum over its cases, so that their order does not matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunDigest([u64; 4]);

impl RunDigest {
    /// Adds a case by its index.
    pub fn add(&mut self, case: u64, digest: u64) {
        let mut sha = Sha256::new();
        sha.update(case.to_le_bytes());
        sha.update(digest.to_le_bytes());
        let bytes = sha.finalize();
        for (lane, chunk) in self.0.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut word = [0u8; 8];
            word.copy_from_slice(chunk);
            *lane = lane.wrapping_add(u64::from_le_bytes(word));
        }
    }
    /// Adds all cases of another part of the campaign.
    pub fn merge(&mut self, other: RunDigest) {
        for (lane, more) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(more);
        }
    }
}

/// The text is no digest of a campaign.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits")]
pub struct BadDigest;

impl FromStr for RunDigest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<RunDigest, BadDigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadDigest);
        }
        let mut lanes = [0; 4];
        for (lane, digits) in lanes.iter_mut().zip(digits.chunks_exact(16)) {
            let digits = std::str::from_utf8(digits).map_err(|_| BadDigest)?;
            *lane = u64::from_str_radix(digits, 16).map_err(|_| BadDigest)?.swap_bytes();
        }
        Ok(RunDigest(lanes))
    }
}

impl Serialize for RunDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunDigest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for RunDigest {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|lane| write!(f, "{:016x}", lane.swap_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Extent, LbaCount};
    use crate::scenario::{Label, Op};
    use std::time::Duration;

    fn digest(events: &[Event]) -> u64 {
        let mut digest = CaseDigest::default();
        events.iter().for_each(|event| digest.event(event));
        digest.finish(&Verdict::Pass)
    }

    fn synced(took: Duration) -> Event {
        Event::Synced { ranges: 1, pages: 1, lbas: LbaCount::new(3), took }
    }

    #[test]
    fn what_happened_counts_and_how_long_it_took_does_not() {
        let write = |lba| Event::Step { index: 0, op: Op::Write { at: Extent::lbas(lba, 1) } };
        assert_eq!(digest(&[write(3)]), digest(&[write(3)]));
        assert_ne!(digest(&[write(3)]), digest(&[write(4)]));
        assert_ne!(digest(&[write(3)]), digest(&[]));
        let gone = Event::Deleted { label: Label(0) };
        assert_ne!(digest(&[write(3), gone.clone()]), digest(&[gone, write(3)]));
        assert_eq!(digest(&[synced(Duration::ZERO)]), digest(&[synced(Duration::from_secs(1))]));
        let failed = CaseDigest::default().finish(&Verdict::Fail(Vec::new()));
        assert_ne!(failed, digest(&[]), "the verdict counts");
    }

    #[test]
    fn the_order_of_cases_does_not_matter_and_which_case_did_what_does() {
        let run = |cases: &[(u64, u64)]| {
            let mut digest = RunDigest::default();
            cases.iter().for_each(|(case, value)| digest.add(*case, *value));
            digest
        };
        let whole = run(&[(0, 7), (1, 8), (2, 9)]);
        assert_eq!(whole, run(&[(2, 9), (0, 7), (1, 8)]));
        assert_ne!(whole, run(&[(0, 8), (1, 7), (2, 9)]));
        assert_ne!(whole, run(&[(0, 7), (1, 8)]));
        let mut merged = run(&[(1, 8)]);
        merged.merge(run(&[(2, 9), (0, 7)]));
        assert_eq!(merged, whole);
        assert_eq!(whole.to_string().len(), 64);
        assert_eq!(whole.to_string().parse(), Ok(whole));
        for text in ["", "+", &whole.to_string()[1..], &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<RunDigest>(), Err(BadDigest), "{text}");
        }
    }
}
