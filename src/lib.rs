//! Proves whether a storage array's changed-block answers can be trusted.

pub mod array;
pub mod block;
pub mod cli;
pub mod device;
pub mod engine;
pub mod model;
pub mod oracle;
pub mod report;
pub mod scenario;
pub mod suite;
pub mod campaign;
pub mod sync;
pub mod lightbits;
pub mod qemu;
pub mod sim;
