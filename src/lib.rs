//! `lbaudit` proves whether a storage array's changed-block answers, and the copies made from
//! them, can be trusted.
//!
//! Not covered: proof of an array's correctness: a pass says that these questions got right
//! answers, no more.
//!
//! # Bird's eye
//!
//! One vocabulary of operations, run by one interpreter against any array, judged by one oracle;
//! everything else feeds it or reports it.
//!
//! ```text
//!  suite (20 rows)                      replayed traces, generated scenarios
//!        \                                       /
//!         +------- Scenario = Vec<Step> --------+
//!                          |
//!                   engine::run  ->  model (what should be)  +  array, device (what is)
//!                          |                  |
//!                       events           oracle -> Verdict
//!                          |                  |
//!                        report, exit code
//! ```
//!
//! # Code map, from the bottom up
//!
//! Each layer uses only those above it in this list.
//!
//! - [`block`]: LBAs, extents, bitmaps, sets, self-describing blocks. Pure.
//! - [`scenario`]: operations, checks, traces. Data, no closures.
//! - [`model`]: the shadow model; what every volume holds, what a diff must and may report.
//! - [`oracle`]: one file per property; verdicts and violations.
//! - [`judge`]: a second judge of recorded runs, which shares nothing with the two above.
//! - [`mod@array`]: the port: control plane, data plane, clock, their errors.
//! - [`sync`]: the copy pipeline under test: page walk, run plan, copy, checksum.
//! - [`lightbits`], [`device`], [`qemu`], [`sim`]: adapters.
//! - [`engine`]: the interpreter.
//! - [`suite`]: the 20 fixed tests as a table, and their runner.
//! - [`campaign`]: run folders, journal, arming, clean-up, preflight, self-test.
//! - [`report`]: console, JSON lines, JUnit. Consumes events.
//! - [`fuzzing`]: one function for each reader of foreign bytes, for `fuzz/` and `tests/corpora.rs`.
//! - [`cli`]: flags, configuration, exit codes.
//!
//! # Invariants
//!
//! The tests of `tidy.rs` that enforce one are named with it; 6 to 8 are kept by types.
//!
//! 1. [`model`] and [`oracle`] never see an adapter, and [`sim`] never sees [`model`],
//!    [`lightbits`] or the bitmap decoder (but for its one glue file): agreement of code with
//!    itself proves nothing (`the_layers_hold`, `no_group_hides_a_layer`,
//!    `the_simulator_shares_nothing_with_its_judges`). [`judge`] shares nothing with [`model`] and
//!    [`oracle`] (`the_second_judge_shares_nothing_with_the_first`).
//! 2. One `match` turns operations into I/O: `engine::interp`. Whatever writes to a device or takes
//!    a snapshot stands in a short list (`only_these_files_write_to_devices_and_take_snapshots`).
//! 3. Only [`report`] and [`cli`] print; only [`cli`] reads the environment or exits
//!    (`only_the_command_line_prints_exits_and_reads_the_environment`).
//! 4. `unsafe` lives in `device/ioctl.rs` (`unsafe_code_has_one_home_and_no_shell_is_started`).
//!    Devices are never memory-mapped (`nothing_is_memory_mapped`).
//! 5. No shell is started anywhere (the same test as for `unsafe`).
//! 6. Only [`device::Armed`] writes to a device, and only inside its allowed region; before that
//!    the handshake's first port lets nothing pass but the very bytes it has just read, and its
//!    second one nothing but stamps and the saved bytes, at a few LBAs kept in the journal.
//! 7. Foreign bytes are decoded into checked types at the border; inside, a wrong value cannot be
//!    expressed.
//! 8. A violation is data. What could not be tested is neither a pass nor the array's fault.

pub mod array;
pub mod block;
pub mod campaign;
pub mod cli;
pub mod device;
pub mod engine;
pub mod fuzzing;
pub mod judge;
pub mod lightbits;
pub mod model;
pub mod oracle;
pub mod qemu;
pub mod report;
pub mod scenario;
pub mod sim;
pub mod suite;
pub mod sync;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tidy;
