//! One file a command. Each takes its parsed flags and answers an exit code or one line of failure.
//! Not covered: flags and exit codes, which are one level up.

pub mod audit;
pub mod check;
mod check_live;
mod check_qemu;
pub mod clean;
pub mod diff;
pub mod doctor;
pub mod explore;
mod faults;
mod hunt;
mod judge;
pub mod list;
mod matrix;
pub mod replay;
pub mod selftest;
pub mod serve;
pub mod suite;
pub mod sync;

use super::failure::Failure;
use super::select::nearest_of;

/// Nothing is called so.
fn unknown_bug(name: &str) -> Failure {
    let bugs = list::bugs();
    let near = nearest_of(name, bugs.iter().map(|bug| bug.name));
    let hint = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
    Failure::usage(format!("there is no planted bug `{name}`{hint}; see `lbaudit list bugs`"))
}
