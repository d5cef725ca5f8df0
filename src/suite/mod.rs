//! The 20 fixed tests (`suite.md`), as data.

mod result;

pub use result::{Outcome, Phase, SuiteSummary, TestResult};
