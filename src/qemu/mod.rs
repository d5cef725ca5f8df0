//! Adapter: a changed-block tracker that nobody here wrote, QEMU's dirty bitmaps.
//!
//! [`QemuArray`] starts a qemu-storage-daemon of its own (Debian's qemu-utils or
//! qemu-system-common, 7.2 or later) and serves qcow2 volumes with it. A snapshot is one QMP
//! transaction: a backup job without copying (fleecing) keeps the old contents readable, and the
//! active dirty bitmap is frozen and replaced by a new one at the same point in time. A diff is
//! the frozen bitmaps in between, merged *by QEMU* and read over NBD block status. The adapter only
//! cuts the answer into chunks; it never writes down what was written.
//!
//! Not covered: rollback, clones, resizing, restarts (a kill loses QEMU's bitmaps), and proving
//! that a path is the right volume (`crate::device`).

mod adapter;
mod array;
mod daemon;
mod device;
mod error;
pub(crate) mod nbd;
mod pages;
pub(crate) mod qmp;
pub(crate) mod stale;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod testio;
#[cfg(test)]
mod tests;

pub use array::{DataPlane, QemuArray, QemuConfig};
pub use device::NbdDevice;
pub use error::QemuError;
pub use nbd::NbdError;
pub use qmp::QmpError;
pub use stale::{Leftover, leftovers, remove_leftover, stop_leftovers};
