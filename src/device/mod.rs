//! Adapter: Linux block devices and the files that stand in for them.

pub mod ioctl;
