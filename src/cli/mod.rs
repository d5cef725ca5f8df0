//! The command line: reads the environment, runs one command, answers its exit code.
//!
//! No other layer reads the environment, ends the process or (with `crate::report`) prints.

pub mod args;
pub mod config;
pub mod exit;
pub mod select;
pub mod stop;
pub mod ui;

pub use exit::Exit;
