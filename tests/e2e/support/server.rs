//! `sim serve` as a child process, and the flags that name what it serves.

use super::api::Api;
use super::home::{Home, Running, signal_process, wait};
use super::one_with_loops;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::MutexGuard;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the volumes become paths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attach {
    Fuse,
    Loop,
}

/// A simulator; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    rest: Option<JoinHandle<String>>,
    /// The line it printed.
    pub(crate) ready: Value,
    /// The token it printed the path of.
    pub(crate) token: String,
    _loops: Option<MutexGuard<'static, ()>>,
}

/// Which array and volumes; a field that is absent is a flag that is not given.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Option<String>,
    pub(crate) source_uuid: Option<String>,
    pub(crate) target_uuid: Option<String>,
    pub(crate) source_device: Option<String>,
    pub(crate) target_device: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) pins: Vec<String>,
    pub(crate) destroy: Vec<String>,
}

/// The last 12 digits of a UUID: what consent names.
pub(crate) fn tail(uuid: &str) -> String {
    uuid[uuid.len() - 12..].to_owned()
}

impl Server {
    pub(crate) fn start(home: &Home, attach: Attach, flags: &[&str]) -> Server {
        let loops = (attach == Attach::Loop).then(one_with_loops);
        let how = if attach == Attach::Loop { "loop" } else { "fuse" };
        let args = [&["sim", "serve", "--attach", how], flags].concat();
        let deadline = Instant::now() + Duration::from_secs(30);
        let (child, mut stdout, line) = loop {
            let mut command = home.command(&args);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
            let mut child = command.spawn().unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            // Somebody else on this machine may have all loop devices for a moment.
            if !line.is_empty() || attach == Attach::Fuse || Instant::now() > deadline {
                break (child, stdout, line);
            }
            child.wait().unwrap();
            std::thread::sleep(Duration::from_millis(200));
        };
        let ready: Value = serde_json::from_str(&line).expect("the ready line");
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            rest
        });
        let token = fs::read_to_string(ready["jwt_file"].as_str().unwrap()).unwrap();
        let token = token.trim().to_owned();
        Server { child, rest: Some(rest), ready, token, _loops: loops }
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
    /// A text field of the ready line.
    pub(crate) fn text(&self, field: &str) -> String {
        self.ready[field].as_str().unwrap().to_owned()
    }
    /// A text field of one volume: 0 is the source, 1 the target, 2 the neighbour.
    pub(crate) fn volume(&self, index: usize, field: &str) -> String {
        self.ready["volumes"][index][field].as_str().unwrap().to_owned()
    }
    pub(crate) fn device(&self, index: usize) -> PathBuf {
        self.volume(index, "device").into()
    }
    /// Writes sevens to a volume, as somebody else would.
    pub(crate) fn write(&self, index: usize, at: u64, len: usize) {
        use std::os::unix::fs::FileExt as _;
        let device = std::fs::OpenOptions::new().write(true).open(self.device(index)).unwrap();
        device.write_all_at(&vec![7; len], at).unwrap();
        device.sync_all().unwrap();
    }
    pub(crate) fn api(&self) -> Api {
        Api::new(&self.text("endpoint"), &self.text("project"), &self.token)
    }
    /// All flags, with pin and consent.
    pub(crate) fn target(&self) -> Target {
        let (source, target) = (self.volume(0, "uuid"), self.volume(1, "uuid"));
        Target {
            endpoint: Some(self.text("endpoint")),
            destroy: vec![tail(&source), tail(&target)],
            source_uuid: Some(source),
            target_uuid: Some(target),
            source_device: Some(self.volume(0, "device")),
            target_device: Some(self.volume(1, "device")),
            project: None,
            pins: vec![self.text("pin_sha256")],
        }
    }
    /// Runs the program in its original form against this server, with these flags more.
    pub(crate) fn suite(&self, home: &Home, flags: &[&str]) -> Running {
        home.start(&self.target().args(&[], flags), Some(&self.token))
    }
    /// Ends it with this signal; it must end well and have said nothing more.
    pub(crate) fn stop(mut self, signal: Signal) {
        signal_process(&self.child, signal);
        let status = wait(&mut self.child, Duration::from_secs(30)).expect("it ends when told to");
        assert!(status.success(), "sim serve: {status}");
        let rest = self.rest.take().unwrap().join().unwrap();
        assert_eq!(rest, "", "one line when ready, then nothing more");
    }
    /// Ends it without a chance to clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_process(&self.child, Signal::TERM);
            wait(&mut self.child, Duration::from_secs(10));
        }
    }
}

impl Target {
    /// The command line: what comes first, the flags of the target, what comes last.
    pub(crate) fn args(&self, first: &[&str], last: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = first.iter().map(|&arg| arg.to_owned()).collect();
        for (flag, value) in [
            ("--endpoint", &self.endpoint),
            ("--source-uuid", &self.source_uuid),
            ("--target-uuid", &self.target_uuid),
            ("--source-device", &self.source_device),
            ("--target-device", &self.target_device),
            ("--project", &self.project),
        ] {
            if let Some(value) = value {
                args.extend([flag.to_owned(), value.clone()]);
            }
        }
        for (flag, values) in [("--pin-sha256", &self.pins), ("--destroy", &self.destroy)] {
            for value in values {
                args.extend([flag.to_owned(), value.clone()]);
            }
        }
        args.extend(last.iter().map(|&arg| arg.to_owned()));
        args
    }
    /// Without consent, for the commands that do not write.
    pub(crate) fn reading(&self) -> Target {
        Target { destroy: Vec::new(), ..self.clone() }
    }
}
