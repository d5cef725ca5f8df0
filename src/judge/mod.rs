//! A second judge: it reads a recording and says for each answer whether it is right, with one list
//! of touches for each LBA and nothing clever. It shares neither the shadow model nor the oracle
//! with the judge whose verdicts it checks; only names of things (`crate::block`,
//! `crate::scenario`).
//!
//! Judged are both bounds of each diff, what must and must not be refused, equal questions, three
//! answers that hang together, what a sync wrote, and blocks that were read back. What the
//! recording leaves open is named, and never passes for right.
//!
//! Not covered: the form of pages, deadlines, figures and the explicit checks of the fixed suite,
//! which a recording does not hold enough for; volumes of which millions of LBAs are touched.

mod diff;
mod judging;
mod possible;
mod record;
mod verdict;
mod world;

#[cfg(test)]
mod tests;

pub use judging::judge;
pub use record::{Block, RECORDING_VERSION, Record, RecordError, read_records};
pub use verdict::{JudgedKind, Judgement, Remark};
pub use world::TooLarge;
