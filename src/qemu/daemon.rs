//! The life of one qemu-storage-daemon: found, checked, started as our child, stopped.
//!
//! It dies with us: by `setpriv --pdeathsig` where util-linux has it, and otherwise by
//! [`super::stop_leftovers`] of the next run. It runs in a process group of its own, so that a
//! Ctrl-C reaches this tool first and cleaning up still finds a daemon to talk to. Not covered:
//! what it serves, see `super::adapter`.

use super::error::{QemuError, escaped};
use super::qmp::Qmp;
use super::stale::{self, Owner};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The oldest daemon that takes a bitmap of another node with an export.
const OLDEST: (u32, u32) = (7, 2);
/// How long the daemon may take to open its control socket, to end when told, to end when killed.
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence on a socket of the daemon.
pub(super) const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest path a unix socket can have on Linux, in bytes (`unix(7)`).
const SOCKET_PATH_MAX: usize = 107;

/// How the daemon is run.
#[derive(Clone, Debug)]
pub(super) struct Program {
    qsd: PathBuf,
    /// Whether `setpriv` ties its life to ours.
    tied: bool,
}

impl Program {
    /// Finds the daemon and checks its version.
    ///
    /// # Errors
    /// [`QemuError::Missing`] and [`QemuError::TooOld`].
    pub(super) fn find(qsd: Option<&Path>) -> Result<Program, QemuError> {
        let qsd = qsd.unwrap_or_else(|| Path::new("qemu-storage-daemon")).to_owned();
        let tied = Program { qsd: qsd.clone(), tied: true };
        let program = match tied.command().arg("--version").output() {
            Ok(Output { status, .. }) if status.success() => tied,
            _ => Program { qsd, tied: false },
        };
        let answer = program.command().arg("--version").output();
        let answer =
            answer.map_err(|cause| QemuError::Missing { program: program.qsd.clone(), cause })?;
        let text = String::from_utf8_lossy(&answer.stdout);
        match version(&text) {
            Some(found) if found >= OLDEST => Ok(program),
            _ => {
                let first = text.lines().next().unwrap_or("no qemu-storage-daemon");
                Err(QemuError::TooOld { program: program.qsd, found: escaped(first) })
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = if self.tied {
            let mut command = Command::new("setpriv");
            command.env_remove("LIGHTBITS_JWT");
            command.args(["--pdeathsig", "TERM", "--"]).arg(&self.qsd);
            command
        } else {
            Command::new(&self.qsd)
        };
        command.env_remove("LIGHTBITS_JWT");
        command
    }
}

/// Major and minor version out of `qemu-storage-daemon version 10.0.2 (Debian ...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split_once("qemu-storage-daemon version ")?.1;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Makes an empty qcow2 image with 4 KiB clusters.
///
/// # Errors
/// [`QemuError::Missing`] and [`QemuError::Image`].
pub(super) fn make_image(
    qemu_img: Option<&Path>,
    path: &Path,
    size_bytes: u64,
) -> Result<(), QemuError> {
    let program = qemu_img.unwrap_or_else(|| Path::new("qemu-img"));
    let made = Command::new(program)
        .env_remove("LIGHTBITS_JWT")
        .args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k"])
        .arg(path)
        .arg(size_bytes.to_string())
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => {
            Err(QemuError::Image(escaped(&String::from_utf8_lossy(&stderr))))
        }
        Err(cause) => Err(QemuError::Missing { program: program.to_owned(), cause }),
    }
}

/// The thread that started the child, and what it waits for: to the kernel "the parent died" means
/// that *this thread* ended, so it must live as long as the daemon.
type Keeper = (Sender<()>, JoinHandle<()>);

/// A running daemon and its private directory. Dropping it stops the one, unmounts what is left
/// of its exports and removes the other.
pub(super) struct Daemon {
    child: Child,
    keeper: Option<Keeper>,
    dir: TempDir,
}

impl Daemon {
    /// A new private directory below `root`, mode 0700, named after this very process.
    ///
    /// # Errors
    /// [`QemuError::File`], and [`QemuError::Config`] if sockets in it would have too long a path.
    pub(super) fn private_dir(root: &Path) -> Result<TempDir, QemuError> {
        let root = fs::canonicalize(root).map_err(|source| QemuError::File {
            what: "use",
            path: root.to_owned(),
            source,
        })?;
        let prefix = Owner::current().map_err(|source| QemuError::File {
            what: "read",
            path: PathBuf::from("/proc/self/stat"),
            source,
        })?;
        let dir = tempfile::Builder::new()
            .prefix(&prefix.dir_prefix())
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&root)
            .map_err(|source| QemuError::File {
                what: "make a directory in",
                path: root,
                source,
            })?;
        let len = nbd_socket(dir.path()).as_os_str().len();
        if len > SOCKET_PATH_MAX {
            return Err(QemuError::Config(format!(
                "the working directory {} is too long for unix sockets; choose a shorter one",
                dir.path().display()
            )));
        }
        // `-device`-style option strings split at commas; a path with one cannot be handed over.
        if dir.path().as_os_str().as_encoded_bytes().contains(&b',') {
            return Err(QemuError::Config(format!(
                "the working directory {} has a comma in its name; choose another",
                dir.path().display()
            )));
        }
        Ok(dir)
    }

    /// Starts the daemon in `dir` with an NBD server and a control socket, and opens that.
    ///
    /// # Errors
    /// [`QemuError::Start`] with what the daemon said, and whatever the control socket answers.
    pub(super) fn start(
        program: &Program,
        dir: TempDir,
    ) -> Result<(Daemon, Qmp<UnixStream>), QemuError> {
        let log = log_path(dir.path());
        let out = File::create(&log)
            .and_then(|out| Ok((out.try_clone()?, out)))
            .map_err(|source| QemuError::File { what: "create", path: log, source })?;
        let mut command = program.command();
        command
            .arg("--chardev")
            .arg(joined("socket,id=qmp,server=on,wait=off,path=", &qmp_socket(dir.path())))
            .args(["--monitor", "chardev=qmp", "--nbd-server"])
            .arg(joined("max-connections=0,addr.type=unix,addr.path=", &nbd_socket(dir.path())))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(out.0)
            .stderr(out.1)
            .process_group(0);
        let (child, keeper) = spawn_kept(command)
            .map_err(|cause| QemuError::Missing { program: program.qsd.clone(), cause })?;
        let mut daemon = Daemon { child, keeper: Some(keeper), dir };
        stale::record_daemon(daemon.dir(), daemon.child.id()).map_err(|source| {
            QemuError::File { what: "write to", path: daemon.dir().to_owned(), source }
        })?;
        let stream = daemon.connect()?;
        let qmp = Qmp::open(stream)?;
        Ok((daemon, qmp))
    }

    /// The private directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process id of the daemon.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn connect(&mut self) -> Result<UnixStream, QemuError> {
        let start = Instant::now();
        loop {
            let cause = match open_socket(&qmp_socket(self.dir())) {
                Ok(stream) => return Ok(stream),
                Err(cause) => cause,
            };
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_none() && start.elapsed() < START_LIMIT {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let cause = ended.map_or_else(|| cause.to_string(), |status| status.to_string());
            let said = fs::read(log_path(self.dir())).unwrap_or_default();
            let said = escaped(&String::from_utf8_lossy(&said));
            return Err(QemuError::Start { cause, said });
        }
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) | Err(_) => return true,
                Ok(None) if start.elapsed() >= limit => return false,
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child not yet waited for keeps its id, so the signal cannot reach anybody else.
        if let Ok(None) = self.child.try_wait() {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            if !self.ended_within(STOP_LIMIT) {
                let _ = self.child.kill();
                self.ended_within(STOP_LIMIT);
            }
        }
        stale::unmount_below(self.dir.path());
        if let Some((hold, keeper)) = self.keeper.take() {
            drop(hold);
            let _ = keeper.join();
        }
    }
}

/// Starts `command` from a thread that lives until the sender is dropped.
fn spawn_kept(mut command: Command) -> io::Result<(Child, Keeper)> {
    let (hold, held) = channel::<()>();
    let (started, child) = channel();
    let keeper = std::thread::Builder::new().name("qemu-keeper".to_owned()).spawn(move || {
        let _ = started.send(command.spawn());
        // Nothing is ever sent: this waits for the other end to be dropped.
        let _ = held.recv();
    })?;
    let child = child.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))??;
    Ok((child, (hold, keeper)))
}

/// Connects to a socket of the daemon, with time-outs.
///
/// # Errors
/// The system's.
pub(super) fn open_socket(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
    stream.set_write_timeout(Some(SOCKET_TIMEOUT))?;
    Ok(stream)
}

fn qmp_socket(dir: &Path) -> PathBuf {
    dir.join("qmp.sock")
}

/// The socket of the daemon's NBD server.
pub(super) fn nbd_socket(dir: &Path) -> PathBuf {
    dir.join("nbd.sock")
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("qsd.log")
}

fn joined(options: &str, path: &Path) -> OsString {
    let mut text = OsString::from(options);
    text.push::<&OsStr>(path.as_ref());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line() {
        let debian = "qemu-storage-daemon version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(version(debian), Some((10, 0)));
        assert_eq!(version("qemu-storage-daemon version 7.2.22"), Some((7, 2)));
        for bad in ["", "qemu-img version 10.0.2", "qemu-storage-daemon version x.y"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_daemon_is_told_with_the_packages_and_the_option() {
        let missing = Program::find(Some(Path::new("/nowhere/qemu-storage-daemon")));
        let text = missing.expect_err("there is no such file").to_string();
        for word in ["/nowhere/qemu-storage-daemon", "qemu-utils", "qemu-system-common", "--qsd"] {
            assert!(text.contains(word), "{word} not in: {text}");
        }
    }

    #[test]
    fn a_program_that_is_something_else_is_refused() {
        let other = Program::find(Some(Path::new("true")));
        assert!(matches!(other, Err(QemuError::TooOld { .. })), "{other:?}");
    }
}
