//! Fail the Nth call: one scenario, run again and again with one more call failing each time, for
//! every kind of fault, until a run ends in which the fault no longer happens.
//!
//! The scenario runs through the HTTPS server and client like a real array's, on volumes in this
//! process, with virtual time for the array's waits and shortened pauses in the client. Each run is
//! judged by what its fault may lead to, a column of the fault's own table. Not covered: faults of
//! this process (kill, full disk), and of real devices.

mod grid;
mod judge;
mod rig;
mod scenario;
#[cfg(test)]
mod tests;

pub use grid::{Grid, GridConfig, GridError, Row, fail_the_nth};
pub use judge::{Bad, End, Judged};
pub use rig::{Compared, Ended, FaultRig, Ran, RigError, Wrapper};
pub use scenario::canonical;
