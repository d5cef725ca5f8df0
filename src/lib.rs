//! Proves whether a storage array's changed-block answers can be trusted.
pub mod array;
pub mod block;
pub mod device;
pub mod sim;
