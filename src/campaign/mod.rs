//! Campaigns: what happens around scenarios: run folders, the journal of snapshots, clean-up,
//! preflight, and the simulator a run brings along.
//!
//! Nothing here runs a scenario's operations; what touches the array outside of scenarios goes
//! through `crate::array`'s facade. Not covered: the scenarios themselves (`crate::suite`,
//! `crate::engine`) and how results look (`crate::report`).

pub mod answers;
pub mod arm;
#[cfg(test)]
mod attached_tests;
pub mod audit;
pub mod by_hand;
pub mod case;
pub mod check;
pub mod cleanup;
pub mod clone_cleanup;
pub mod clone_reader;
pub mod covered;
mod cuts;
pub mod digest;
pub mod doctor;
pub mod embedded;
pub mod explore;
pub mod faults;
pub mod finding;
pub mod generated;
#[cfg(test)]
mod handshake_tests;
pub mod inproc;
pub mod investigate;
pub mod journal;
pub mod live;
pub mod merge;
pub mod nearest;
pub mod oracle_table;
pub mod part;
pub mod patience;
pub mod qemu_cases;
pub mod quota;
pub mod record;
pub mod replay;
pub mod reserve;
pub mod restore;
pub mod retold;
pub mod run_files;
pub mod run_log;
pub mod run_record;
pub mod second_judge;
pub mod selftest;
pub mod selftest_matrix;
pub mod stand_in;
pub mod store;
pub mod suite_run;
pub mod target_audit;
#[cfg(test)]
mod testing;
pub mod trend;
pub mod utc;
pub mod wired;
pub mod witness;
