//! The program from outside: the real binary, real processes, HTTPS on loopback, FUSE files and
//! loop devices. Every test has a folder, a simulator and a token of its own.
//!
//! What needs root, /dev/fuse or loop devices says why it is left out where they are missing, and
//! never fails for it. Not covered: what a layer can be asked directly; its own tests do.

#![expect(clippy::unwrap_used, reason = "tests stop where something is not as it must be")]

mod auditing;
mod checking;
mod clones;
mod command_line;
mod embedded;
mod faulty;
mod findings;
mod full_disk;
mod killing;
mod proxied;
mod readme;
mod secrets;
mod serving;
mod settings;
mod soaking;
mod stopping;
mod support;
mod wrong_input;
