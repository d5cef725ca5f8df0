//! The interpreter, the system under test as it sees it, and the events it emits.
//!
//! Not covered: where scenarios come from (`crate::suite`), and how devices come to be writable.

mod answer;
mod checks;
mod event;
pub mod explore;
mod r#gen;
mod interp;
mod precheck;
mod recording;
mod session;
mod shrink;
mod shrink_bold;
mod shrink_parts;
mod sut;
mod syncing;
mod together;
mod transfer;
mod verify;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use r#gen::{
    BadCaseName, CaseName, Coverage, CoverageRecord, Entropy, GENERATOR_VERSION, Goal, Group,
    Offers, PROFILES, Profile, Reach, Seeded, Words, focus_name, generate, generate_from,
};
pub use interp::{Answers, run, run_answered};
pub use precheck::{Contradiction, allowed_to_fail, foretold, precheck};
pub use shrink::{ShrinkBudget, ShrinkStep, Shrunk, reproduced_k_of_n, shrink};
pub use sut::{DeviceHandle, Ledger, Pipeline, Recorded, Sut, SutVolume};
