//! The 20 fixed tests (`suite.md`), as data.

mod notes;
mod result;

pub use notes::{Notes, mib_per_s, note_of, pagination_note, seconds};
pub use result::{Outcome, Phase, SuiteSummary, TestResult};
