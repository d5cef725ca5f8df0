//! The folder of one test: the program runs in it, keeps its temporary files in it, and must leave
//! nothing there but run folders.

use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No run of a test takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until `there` answers something.
pub(crate) fn until<T>(what: &str, patience: Duration, mut there: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The folder of one test.
pub(crate) struct Home {
    dir: TempDir,
}

/// A run that has ended.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// A run that goes on; dropping it kills it.
pub(crate) struct Running {
    child: Child,
    streams: Option<[JoinHandle<String>; 2]>,
    started: Instant,
    secrets: Vec<String>,
}

impl Home {
    pub(crate) fn new() -> Home {
        let dir = tempfile::Builder::new().prefix("lbaudit-e2e-").tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Home { dir }
    }
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
    /// Where the program keeps temporary files.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.path().join("tmp")
    }
    /// The folders of the runs, oldest first.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path().join("lbaudit-runs")) else { return Vec::new() };
        let folders =
            entries.map(|entry| entry.unwrap()).filter(|e| e.file_type().unwrap().is_dir());
        let mut found: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
        found.sort();
        found
    }
    /// The program, or the one that `E2E_PROGRAM` names, with nothing of the tester's environment
    /// that it looks at.
    pub(crate) fn command(&self, args: &[impl AsRef<str>]) -> Command {
        let built = env!("CARGO_BIN_EXE_lbaudit").into();
        let mut command = Command::new(std::env::var_os("E2E_PROGRAM").unwrap_or(built));
        for (name, _) in std::env::vars_os() {
            let ours = name.to_string_lossy().starts_with("LBAUDIT_");
            if ours || name == "LIGHTBITS_JWT" {
                command.env_remove(name);
            }
        }
        command.args(args.iter().map(AsRef::as_ref));
        command.current_dir(self.path()).env("TMPDIR", self.tmp());
        command
    }
    /// Runs it to its end, with this token in the environment.
    pub(crate) fn run(&self, args: &[impl AsRef<str>], token: Option<&str>) -> Finished {
        self.start(args, token).finish()
    }
    /// Starts it with this token in the environment.
    pub(crate) fn start(&self, args: &[impl AsRef<str>], token: Option<&str>) -> Running {
        let mut command = self.command(args);
        if let Some(token) = token {
            command.env("LIGHTBITS_JWT", token);
        }
        Running::spawn(command, token)
    }
    /// What of this test is mounted, attached, running, or lying in the temporary folder.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let here = self.path().display().to_string();
        let mut found = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|l| l.contains(&here)).map(|l| format!("mount {l}")));
        for disk in fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok) {
            let file = fs::read_to_string(disk.path().join("loop/backing_file"));
            if let Some(file) = file.ok().filter(|file| file.contains(&here)) {
                found.push(format!("{} on {file}", disk.file_name().display()));
            }
        }
        let variable = format!("TMPDIR={}", self.tmp().display());
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment.split(|&b| b == 0).any(|entry| entry == variable.as_bytes()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                found.push(format!("process {} {name}", process.file_name().display()));
            }
        }
        for entry in fs::read_dir(self.tmp()).unwrap().filter_map(Result::ok) {
            found.push(entry.path().display().to_string());
        }
        found
    }
    /// Asserts that nothing is left but run folders.
    pub(crate) fn assert_nothing_left(&self) {
        let left = self.left_behind();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
    /// Asserts that no file of any run holds the token or a part of it.
    pub(crate) fn assert_no_file_holds(&self, token: &str) {
        let mut folders = self.runs();
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                assert_no_secret(&entry.path().display().to_string(), &text, token);
                files += 1;
            }
        }
        assert!(files > 0, "there is no run folder with files");
    }
}

/// Asserts that neither the token nor its claims or signature stand in a text.
fn assert_no_secret(what: &str, text: &str, token: &str) {
    let parts = token.split('.').skip(1).filter(|part| part.len() >= 8);
    for secret in std::iter::once(token).chain(parts) {
        assert!(!text.contains(secret), "{what} shows the token");
    }
}

impl Running {
    pub(crate) fn spawn(mut command: Command, token: Option<&str>) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let streams = Some([read_all(stdout), read_all(stderr)]);
        let secrets = token.into_iter().map(str::to_owned).collect();
        Running { child, streams, started: Instant::now(), secrets }
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(&self.child, signal);
    }
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
    /// Waits for the end, and looks for the token in what was printed.
    pub(crate) fn finish(mut self) -> Finished {
        let status = wait(&mut self.child, PATIENCE);
        let took = self.started.elapsed();
        let [stdout, stderr] = self.streams.take().unwrap().map(|stream| stream.join().unwrap());
        let status = status.unwrap_or_else(|| {
            panic!("not finished within {PATIENCE:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
        });
        for secret in &self.secrets {
            assert_no_secret("standard output", &stdout, secret);
            assert_no_secret("standard error", &stderr, secret);
        }
        Finished { code: status.code(), stdout, stderr, took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already: nothing is to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn signal_process(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    // Gone already is what the caller wants, or sees at the next wait.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits for the end of a child; kills it when it does not come.
pub(super) fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Finished {
    /// Asserts the exit code, showing everything if it is another.
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Finished {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
    /// The lines of `--output jsonl`.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}"))
        };
        let lines: Vec<Value> = self.stdout.lines().map(parse).collect();
        assert!(lines.iter().all(|line| line["v"] == 1), "every line has its version: {self}");
        lines
    }
    /// `name` and `result` of every test that finished.
    #[track_caller]
    pub(crate) fn results(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let finished = |line: &&Value| line["event"] == "test_finished";
        let lines = self.json();
        let tests = lines.iter().filter(finished);
        tests.map(|line| (text(&line["name"]), text(&line["result"]))).collect()
    }
    /// The last line of standard output that says how the suite ended.
    #[track_caller]
    pub(crate) fn verdict(&self) -> &str {
        let found = self.stdout.lines().rev().find(|line| line.contains(" passed"));
        found.unwrap_or_else(|| panic!("no verdict: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { code, stdout, stderr, took } = self;
        write!(f, "exit {code:?} after {took:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
