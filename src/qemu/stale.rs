//! What a killed run leaves behind: finding it, and taking it away.
//!
//! A private directory is named `lbaudit-qemu-PID-START-XXXXXX` after the process that made it and
//! holds `daemon` with id and start time of its daemon. Id and start time together name a process
//! for ever: ids are used again, but not with the same start time. Not covered: leftovers of
//! another user, and of a simulator.

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PREFIX: &str = "lbaudit-qemu-";
const RECORD: &str = "daemon";
/// How long a leftover daemon may take to end when asked before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A process, named so that nobody else can be meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pid: u32,
    /// Clock ticks between boot and the start of the process (`proc(5)`, stat field 22).
    start_ticks: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub(super) fn current() -> io::Result<Owner> {
        Owner::of(std::process::id())
    }

    fn of(pid: u32) -> io::Result<Owner> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = start_ticks(&stat).ok_or(ErrorKind::InvalidData)?;
        Ok(Owner { pid, start_ticks })
    }

    fn is_alive(self) -> bool {
        Owner::of(self.pid).is_ok_and(|now| now == self)
    }

    /// What names of directories of this process start with.
    pub(super) fn dir_prefix(self) -> String {
        format!("{PREFIX}{}-{}-", self.pid, self.start_ticks)
    }

    fn of_dir_name(name: &str) -> Option<Owner> {
        let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let (start_ticks, _) = rest.split_once('-')?;
        Some(Owner { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that ended and waits to be collected. The
/// name in field 2 may hold anything, so counting starts behind its last parenthesis, with field 3.
pub(crate) fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let ended = matches!(state, "Z" | "X");
    fields.nth(22 - 4).filter(|_| !ended)?.parse().ok()
}

/// Writes down which process serves the directory.
///
/// # Errors
/// The system's.
pub(super) fn record_daemon(dir: &Path, pid: u32) -> io::Result<()> {
    let Owner { pid, start_ticks } = Owner::of(pid)?;
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(dir.join(RECORD))?;
    writeln!(file, "{pid} {start_ticks}")
}

/// What a run that was killed left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// Its private directory.
    pub dir: PathBuf,
    /// Its daemon, if that still runs.
    pub daemon_pid: Option<u32>,
    /// Its exports that are still mounted.
    pub mounts: Vec<PathBuf>,
    daemon: Option<Owner>,
}

/// Finds what killed runs of this user left below `root` (the `work_root` of the configuration).
/// Directories of running processes are never among them.
///
/// # Errors
/// If `root` cannot be listed.
pub fn leftovers(root: &Path) -> io::Result<Vec<Leftover>> {
    let root = fs::canonicalize(root)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(Owner::of_dir_name) else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        let ours = meta.is_dir() && meta.uid() == getuid().as_raw() && !owner.is_alive();
        if ours {
            let dir = entry.path();
            let daemon = recorded_daemon(&dir).filter(|daemon| daemon.is_alive());
            let mounts = mounts_below(&dir);
            found.push(Leftover { daemon_pid: daemon.map(|it| it.pid), dir, mounts, daemon });
        }
    }
    found.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(found)
}

/// Stops the daemon of `leftover`, unmounts its exports and removes its directory.
///
/// # Errors
/// If the directory cannot be removed.
pub fn remove_leftover(leftover: &Leftover) -> io::Result<()> {
    if let Some(daemon) = leftover.daemon {
        stop(daemon);
    }
    unmount_below(&leftover.dir);
    fs::remove_dir_all(&leftover.dir)
}

/// Stops and removes everything [`leftovers`] finds, and answers it.
///
/// # Errors
/// As [`leftovers`] and [`remove_leftover`].
pub fn stop_leftovers(root: &Path) -> io::Result<Vec<Leftover>> {
    let found = leftovers(root)?;
    found.iter().try_for_each(remove_leftover)?;
    Ok(found)
}

fn recorded_daemon(dir: &Path) -> Option<Owner> {
    let text = fs::read_to_string(dir.join(RECORD)).ok()?;
    let (pid, start_ticks) = text.trim().split_once(' ')?;
    Some(Owner { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
}

fn stop(daemon: Owner) {
    let Some(pid) = i32::try_from(daemon.pid).ok().and_then(Pid::from_raw) else { return };
    for signal in [Signal::TERM, Signal::KILL] {
        let start = Instant::now();
        // Checked before each signal: the id may have gone to somebody else meanwhile.
        if !daemon.is_alive() || kill_process(pid, signal).is_err() {
            return;
        }
        while daemon.is_alive() && start.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Unmounts whatever is still mounted below `dir`; what cannot be unmounted stays.
pub(super) fn unmount_below(dir: &Path) {
    for path in mounts_below(dir) {
        if unmount(&path, UnmountFlags::DETACH).is_err() {
            // Without privileges only fuse's own helper may unmount.
            let mut helper = Command::new("fusermount3");
            helper.args(["-u", "-z", "--"]).arg(&path).env_remove("LIGHTBITS_JWT");
            let _ =
                helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Mount points below `dir`, innermost first.
pub(super) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(unescaped)
        .filter(|path| path.starts_with(dir) && path != dir)
        .collect();
    mounts.reverse();
    mounts
}

/// A path of mountinfo, where space, tab, newline and backslash are written as `\ooo`.
pub(crate) fn unescaped(field: &[u8]) -> PathBuf {
    let octal = |digits: &[u8]| {
        // Parsing would also take a sign.
        let digits = Some(digits).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let text = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(text, 8).ok()
    };
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| first == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_process_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(&format!("12 (a) b) {tail}")), Some(4711));
        assert_eq!(start_ticks("12 (a) S 1"), None);
        assert_eq!(start_ticks(&format!("12 (a) Z {tail}")), None, "a zombie is dead");
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn a_directory_name_leads_back_to_its_process() {
        let me = Owner::current().expect("/proc is there");
        let name = format!("{}AbCdEf", me.dir_prefix());
        assert_eq!(Owner::of_dir_name(&name), Some(me));
        assert!(me.is_alive());
        assert!(!Owner { start_ticks: me.start_ticks + 1, ..me }.is_alive());
        for foreign in ["lbaudit-qemu-", "lbaudit-qemu-12-", "other-1-2-x", "lbaudit-qemu-x-2-y"] {
            assert_eq!(Owner::of_dir_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        assert_eq!(unescaped(br"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescaped(br"/a\04"), PathBuf::from(r"/a\04"));
    }

    #[test]
    fn an_escape_is_three_octal_digits_and_a_sign_is_none() {
        assert_eq!(unescaped(br"/a\+12\-12"), PathBuf::from(r"/a\+12\-12"));
    }

    #[test]
    fn only_directories_of_dead_processes_are_leftovers() {
        let root = tempfile::tempdir().expect("temp dir");
        let me = Owner::current().expect("/proc is there");
        let dead = Owner { start_ticks: me.start_ticks + 1, ..me };
        for name in [me.dir_prefix() + "a", dead.dir_prefix() + "b", "lbaudit-other".to_owned()] {
            fs::create_dir(root.path().join(name)).expect("made");
        }
        let removed = stop_leftovers(root.path()).expect("listed and removed");
        let root_path = fs::canonicalize(root.path()).expect("there");
        assert_eq!(removed.len(), 1);
        assert_eq!(removed[0].dir, root_path.join(dead.dir_prefix() + "b"));
        assert!(!removed[0].dir.exists());
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 2);
    }
}
