//! The port: what every target offers. Adapters implement these traits and nothing above them
//! knows which adapter it talks to.
//!
//! [`Array`] is the control plane, [`BlockDevice`] the data plane, [`Clock`] is time. During a
//! scenario only `engine::interp` and `sync` call them. Not covered: how devices are proved to be
//! the right ones (`crate::device`, `crate::campaign`).

mod buffer;
mod clones;
mod error;
mod escape;
mod facade;
mod latency;
mod pace;
mod port;
mod read_only;

pub use buffer::{AlignedBuf, BUF_ALIGN};
pub use clones::Clones;
pub use error::{ApiError, DeviceError, Reply};
pub use escape::escape_text;
pub use facade::{Waiting, delete_and_wait, wait_available, wait_gone};
pub use latency::{Latencies, Latency};
pub use pace::{Pace, PacedDevice};
pub use port::{
    Array, BlockDevice, Clock, RealClock, SnapshotInfo, SnapshotState, VirtualClock, VolumeInfo,
};
pub use read_only::{ReadBlocks, ReadOnly};
