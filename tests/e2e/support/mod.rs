//! What the tests share: a folder per test, the program in it, a simulator, a small REST client and
//! a proxy that meddles. None of it uses this program's client or bitmap code.

mod api;
mod home;
mod proxy;
mod server;

pub(crate) use api::{Api, Idle};
pub(crate) use home::{Finished, Home, Running, until};
pub(crate) use proxy::{HOSTILE, Meddle, Proxy, When};
pub(crate) use server::{Attach, Server, Target, tail};

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says aloud why a test is left out: the test harness keeps back what tests print that pass, but
/// not this.
pub(crate) fn left_out(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    say(&format!("left out: {test}: {why}"));
}

/// Says figures of a test that passes.
pub(crate) fn say(text: &str) {
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn opens(path: &str) -> bool {
    OpenOptions::new().read(true).write(true).open(path).is_ok()
}

/// Whether FUSE file systems can be mounted here.
pub(crate) fn fuse_works() -> bool {
    let works = opens("/dev/fuse");
    if !works {
        left_out("/dev/fuse cannot be opened");
    }
    works
}

/// Whether loop devices can be attached here.
pub(crate) fn loops_work() -> bool {
    let works = fuse_works() && rustix::process::geteuid().is_root() && opens("/dev/loop-control");
    if !works {
        left_out("loop devices need root and /dev/loop-control");
    }
    works
}

/// Whether a program is on the path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()])
        .any(|dir| dir.join(program).is_file())
}

/// A machine has few loop devices, so tests with them go one after the other.
pub(crate) fn one_with_loops() -> MutexGuard<'static, ()> {
    static LOOPS: Mutex<()> = Mutex::new(());
    LOOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `clean` looks at the whole machine, so tests that leave something on purpose, and those that
/// clean, go one after the other.
pub(crate) fn one_that_cleans() -> MutexGuard<'static, ()> {
    static CLEANING: Mutex<()> = Mutex::new(());
    CLEANING.lock().unwrap_or_else(PoisonError::into_inner)
}
