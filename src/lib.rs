//! Proves whether a storage array's changed-block answers can be trusted.

pub mod array;
pub mod block;
pub mod campaign;
pub mod cli;
pub mod device;
pub mod engine;
pub mod lightbits;
pub mod model;
pub mod oracle;
pub mod qemu;
pub mod report;
pub mod scenario;
pub mod sim;
pub mod suite;
pub mod sync;
