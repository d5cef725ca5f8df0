//! Adapter: the simulated array.

pub mod attach;
pub mod fuse;
pub mod loopdev;
