//! The simulator as a child process: this same program as `sim serve`, which ends with its parent.
//!
//! A process of its own keeps the data plane honest (the kernel, not a function call, lies between
//! the suite and the volumes) and takes mounts and loop devices away even when the suite is killed.
//! The child stops at the end of its standard input, which comes however this process ends.
//!
//! Not covered: the child's side (`crate::sim::serve`), and talking to the server.

use crate::sim::attach::{clean_stale, stale_attachments};
use crate::sim::serve::Ready;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the child may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to end once told to, before it is told again.
const END_WITHIN: Duration = Duration::from_secs(2);
/// And how long after that, before it is killed.
const END_AFTER_SIGNAL: Duration = Duration::from_secs(6);
/// How much of its messages is kept, in bytes.
const MESSAGES_MAX: usize = 16 << 10;
/// A ready line is shorter than this, in bytes.
const READY_LINE_MAX: u64 = 64 << 10;

/// An embedded simulator that could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The program cannot be run again.
    #[error("cannot start {exe}: {cause}")]
    Start {
        /// The program.
        exe: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It ended instead of becoming ready.
    #[error("the embedded simulator ended at start ({status}): {messages}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it wrote to standard error.
        messages: String,
    },
    /// It did not become ready in time; it was stopped.
    #[error("the embedded simulator was not ready within {seconds} s: {messages}")]
    Late {
        /// How long was waited, in seconds.
        seconds: u64,
        /// What it wrote to standard error.
        messages: String,
    },
    /// It said something else than that it is ready; it was stopped.
    #[error("the embedded simulator's first line cannot be read ({cause}): {line}")]
    Unreadable {
        /// The line, escaped.
        line: String,
        /// Why.
        cause: serde_json::Error,
    },
    /// It did not end by itself, or not well.
    #[error("the embedded simulator did not end well ({status}): {messages}")]
    BadEnd {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        messages: String,
    },
    /// The operating system lost track of it.
    #[error("cannot wait for the embedded simulator: {0}")]
    Wait(#[source] io::Error),
}

/// A running simulator; dropping it stops it.
#[derive(Debug)]
pub struct Embedded {
    process: Process,
    ready: Ready,
}

/// The child, ready or not; dropping it ends it.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Its end is the child's sign to stop.
    stdin: Option<ChildStdin>,
    messages: Arc<Mutex<String>>,
    /// Collects the messages; taken once the child has ended.
    drain: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Runs `<exe> sim serve --with-parent <args>` and waits until it is ready.
    ///
    /// Call it from a thread that lives as long as the server is needed: the kernel also stops the
    /// child when the thread that started it ends.
    ///
    /// # Errors
    /// [`EmbeddedError`]; then no child is left.
    pub fn start(exe: &Path, args: &[OsString]) -> Result<Embedded, EmbeddedError> {
        Embedded::start_within(exe, args, READY_WITHIN)
    }

    fn start_within(
        exe: &Path,
        args: &[OsString],
        within: Duration,
    ) -> Result<Embedded, EmbeddedError> {
        let (mut process, first_line) = Process::spawn(exe, args)?;
        // Whatever is answered but `Ok`: dropping the process ends it.
        match first_line.recv_timeout(within) {
            Ok(line) if !line.is_empty() => match serde_json::from_str(&line) {
                Ok(ready) => Ok(Embedded { process, ready }),
                Err(cause) => {
                    Err(EmbeddedError::Unreadable { line: line.escape_debug().to_string(), cause })
                }
            },
            Err(RecvTimeoutError::Timeout) => {
                process.end()?;
                let messages = process.messages();
                Err(EmbeddedError::Late { seconds: within.as_secs(), messages })
            }
            // Its output ended without a line.
            _ => {
                let status = process.end()?;
                Err(EmbeddedError::Ended { status, messages: process.messages() })
            }
        }
    }

    /// What the server said when it was ready: endpoint, token, volumes.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What the child wrote to standard error so far, shortened: for example why volumes are not
    /// attached as asked.
    pub fn messages(&self) -> String {
        self.process.messages()
    }

    /// Stops the child and waits for its end. One that does not end is killed, and what it left
    /// attached is taken away.
    ///
    /// # Errors
    /// [`EmbeddedError::BadEnd`] when it had to be killed or could not take everything away.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        let status = self.process.end()?;
        if status.success() {
            return Ok(());
        }
        self.remove_folder();
        Err(EmbeddedError::BadEnd { status, messages: self.messages() })
    }

    /// Removes what a killed child could not: its certificate and token.
    fn remove_folder(&self) {
        for file in [&self.ready.ca_file, &self.ready.jwt_file] {
            let _ = std::fs::remove_file(file);
        }
        if let Some(folder) = self.ready.jwt_file.parent() {
            // Only an empty folder goes.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Process {
    /// Starts the child; its first line comes through the channel.
    fn spawn(exe: &Path, args: &[OsString]) -> Result<(Process, Receiver<String>), EmbeddedError> {
        let mut child = Command::new(exe)
            .args(["sim", "serve", "--with-parent"])
            .args(args)
            // The token of a real cluster is none of its business.
            .env_remove("LIGHTBITS_JWT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C goes to the whole foreground group; the devices must outlive our clean-up.
            .process_group(0)
            .spawn()
            .map_err(|cause| EmbeddedError::Start { exe: exe.to_path_buf(), cause })?;
        let (sender, receiver) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || pass_first_line(stdout, &sender));
        }
        let messages = Arc::new(Mutex::new(String::new()));
        let drain = child.stderr.take().map(|stderr| drain(stderr, Arc::clone(&messages)));
        let stdin = child.stdin.take();
        Ok((Process { child, stdin, messages, drain }, receiver))
    }

    fn messages(&self) -> String {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned()
    }

    /// Ends the child if it still runs.
    fn end(&mut self) -> Result<ExitStatus, EmbeddedError> {
        let status = self.end_process().map_err(EmbeddedError::Wait)?;
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
        if !status.success() {
            self.clean_up_after();
        }
        Ok(status)
    }

    fn end_process(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        if let Some(status) = self.wait(END_WITHIN)? {
            return Ok(status);
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // ESRCH: it ended just now.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        if let Some(status) = self.wait(END_AFTER_SIGNAL)? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }

    fn wait(&mut self, time: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + time;
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || Instant::now() > deadline {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes away what a killed child left attached.
    fn clean_up_after(&self) {
        for stale in stale_attachments().unwrap_or_default() {
            if stale.pid == self.child.id() {
                // `lbaudit clean` finds and names what stays.
                let _ = clean_stale(&stale);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.drain.is_some() {
            let _ = self.end();
        }
    }
}

/// Passes on the first line of `stdout`, without its end; an empty one when there is none. The
/// rest is read and dropped, so that the child never waits for a reader.
fn pass_first_line(stdout: impl Read, sender: &Sender<String>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    let _ = stdout.by_ref().take(READY_LINE_MAX).read_until(b'\n', &mut line);
    // The receiver may have given up.
    let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
    let _ = io::copy(&mut stdout, &mut io::sink());
}

/// Collects the lines of `stderr`, up to [`MESSAGES_MAX`]; what is beyond is read and dropped.
fn drain(stderr: impl Read + Send + 'static, messages: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MESSAGES_MAX.saturating_sub(messages.len());
            let kept = line.len().min(room);
            messages.push_str(&String::from_utf8_lossy(line.get(..kept).unwrap_or_default()));
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that stands in for this one: test binaries have no command line of ours.
    fn program(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let (text, path) = (dir.path().join("text"), dir.path().join("program"));
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&text, PermissionsExt::from_mode(0o700)).expect("executable");
        // Written by another process: a child that some other test is just starting has a copy of
        // what this one holds open, and what is open for writing cannot be run.
        let copied = Command::new("cp").args([&text, &path]).status().expect("cp runs");
        assert!(copied.success());
        (dir, path)
    }

    const READY: &str = r#"{"v":1,"endpoint":"https://127.0.0.1:1","pin_sha256":"ab","ca_file":"/nonexistent/ca","jwt_file":"/nonexistent/jwt","project":"default","volumes":[]}"#;

    #[test]
    fn a_child_that_says_it_is_ready_is_stopped_by_the_end_of_its_input() {
        let (_dir, exe) = program(&format!(
            "test \"$*\" = 'sim serve --with-parent --size 1' || exit 9\necho note >&2\necho '{READY}'\ncat"
        ));
        let embedded = Embedded::start(&exe, &["--size".into(), "1".into()]).expect("started");
        assert_eq!(embedded.ready().endpoint, "https://127.0.0.1:1");
        let started = Instant::now();
        let messages = Arc::clone(&embedded.process.messages);
        embedded.stop().expect("ended well");
        assert!(started.elapsed() < END_WITHIN, "no signal was needed");
        assert_eq!(messages.lock().expect("not poisoned").as_str(), "note\n");
    }

    #[test]
    fn a_child_that_fails_or_says_something_else_is_reported_with_its_words() {
        let (_dir, exe) = program("echo 'no such flag' >&2; exit 2");
        let error = Embedded::start(&exe, &[]).expect_err("it ended");
        assert!(
            matches!(&error, EmbeddedError::Ended { status, messages }
            if status.code() == Some(2) && messages == "no such flag"),
            "{error}"
        );
        let (_dir, exe) = program("echo '{\"v\":1}'; cat");
        let error = Embedded::start(&exe, &[]).expect_err("not a ready line");
        assert!(matches!(error, EmbeddedError::Unreadable { .. }), "{error}");
        let error = Embedded::start(Path::new("/nonexistent/program"), &[]).expect_err("missing");
        assert!(matches!(error, EmbeddedError::Start { .. }), "{error}");
    }

    #[test]
    fn a_child_that_is_not_ready_in_time_is_ended() {
        let (_dir, exe) = program("echo waiting >&2; exec cat");
        let within = Duration::from_millis(300);
        let error = Embedded::start_within(&exe, &[], within).expect_err("late");
        assert!(matches!(&error, EmbeddedError::Late { messages, .. } if messages == "waiting"));
    }

    #[test]
    fn a_child_that_ignores_the_end_of_its_input_gets_a_signal() {
        let (_dir, exe) = program(&format!("echo '{READY}'\nexec sleep 30"));
        let embedded = Embedded::start(&exe, &[]).expect("started");
        let error = embedded.stop().expect_err("ended by a signal");
        assert!(matches!(&error, EmbeddedError::BadEnd { status, .. } if !status.success()));
    }
}
