//! The interpreter, the system under test as it sees it, and the events it emits.
//!
//! Not covered: where scenarios come from (`crate::suite`), and how devices come to be writable.

mod answer;
mod checks;
mod event;
pub mod explore;
mod interp;
mod precheck;
mod session;
mod sut;
mod transfer;
mod verify;

#[cfg(test)]
mod tests;

pub use event::Event;
pub use interp::{Answers, run, run_answered};
pub use precheck::{Contradiction, allowed_to_fail, precheck};
pub use sut::{DeviceHandle, Ledger, Pipeline, Sut, SutVolume};
