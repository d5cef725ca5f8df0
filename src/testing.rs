//! What tests of several layers share. Not covered: what belongs to one layer.

use std::io::Write as _;

/// Says aloud that this machine cannot run a test: also where the test harness keeps back what
/// tests print that pass, so that none looks as if it had run.
pub(crate) fn left_out(why: &dyn std::fmt::Display) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "left out: {test}: {why}");
}
