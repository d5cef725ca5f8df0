//! What a long run tells others while it goes on: a file of metrics, a port for a scraper, a command
//! for each finding. None of them changes a verdict: what fails is said and the run goes on.
//!
//! Not covered: what metrics there are (`crate::report`), events (`crate::campaign::run_log`).

use crate::campaign::run_files::{Checkpoint, Sample, Started};
use crate::campaign::store::replace;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::failure::Failure;
use crate::report::{MetricsForm, metrics};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Name of the metrics in a run's folder.
const METRICS: &str = "metrics.prom";
/// How often metrics are written.
const EVERY: Duration = Duration::from_secs(5);
/// How long the command for a finding may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// How often it is looked at.
const COMMAND_POLL: Duration = Duration::from_millis(50);
/// How long a scraper may take, to ask and to read.
const SCRAPE_TIME: Duration = Duration::from_secs(1);
/// Scrapers that are answered at a time. Those that say nothing hold up the others for a second, and
/// Prometheus waits for ten: it takes eighty of them to be missed.
const SCRAPERS: usize = 8;
/// Bytes of a scraper's request that are looked at.
const REQUEST_MAX: usize = 4096;

/// The port for scrapers.
struct Served {
    /// The metrics as it answers them.
    text: Arc<Mutex<String>>,
    /// Where it listens, its number known.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests let the system choose it"))]
    at: SocketAddr,
}

/// Where a run tells what.
pub(super) struct Publisher {
    started: Started,
    folder: PathBuf,
    file: Option<PathBuf>,
    served: Option<Served>,
    command: Option<String>,
    due: Option<Instant>,
}

impl Publisher {
    /// Opens the port, if one is wanted.
    ///
    /// # Errors
    /// If it cannot be listened on.
    pub(super) fn new(
        args: &CampaignArgs,
        started: Started,
        folder: &Path,
    ) -> Result<Publisher, Failure> {
        let served = args.metrics_listen.map(listen).transpose()?;
        Ok(Publisher {
            started,
            folder: folder.to_owned(),
            file: args.metrics_file.clone(),
            served,
            command: args.on_finding.clone(),
            due: None,
        })
    }

    /// Whether it is time to tell how far the run is.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| Instant::now() >= due)
    }

    /// Tells how far the run is.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn publish(&mut self, kept: &Checkpoint, sample: &Sample) -> io::Result<()> {
        self.due = Instant::now().checked_add(EVERY);
        let text = |form| metrics(form, &self.started, kept, sample, SystemTime::now());
        if let Some(served) = &self.served {
            let text = text(MetricsForm::OpenMetrics);
            *served.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        let file = text(MetricsForm::Prometheus);
        replace(&self.folder, METRICS, file.as_bytes())?;
        match &self.file {
            Some(path) => beside(path, file.as_bytes()),
            None => Ok(()),
        }
    }

    /// Runs the command for a finding, the finding as JSON on its standard input; answers what went
    /// wrong. No shell: the command is split at white space. It does not get the token.
    ///
    /// It is waited for until it ends, `stop` is set, or its time is over; then it goes, with whatever
    /// it started that stayed in its process group. What a terminal sends (Ctrl-C) is for the run, not
    /// for the command.
    pub(super) fn found(&self, finding: &impl Serialize, stop: &AtomicBool) -> Option<String> {
        let command = self.command.as_deref()?;
        let run = || -> io::Result<String> {
            let mut words = command.split_whitespace();
            let program = words.next().ok_or_else(|| io::Error::other("it is empty"))?;
            let child = Command::new(program)
                .args(words)
                .env_remove("LIGHTBITS_JWT")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .process_group(0)
                .spawn()?;
            let mut text = serde_json::to_vec(finding)?;
            text.push(b'\n');
            told(child, &text, stop, COMMAND_TIME)
        };
        let why = run().unwrap_or_else(|error| error.to_string());
        (!why.is_empty()).then(|| format!("--on-finding {command}: {why}"))
    }
}

/// Gives a command its input and waits for it; answers what went wrong.
fn told(mut child: Child, text: &[u8], stop: &AtomicBool, most: Duration) -> io::Result<String> {
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read is fine; a pipe holds more than a finding has.
        let _ = stdin.write_all(text);
    }
    let end = Instant::now() + most;
    loop {
        let why = match child.try_wait()? {
            Some(status) if status.success() => return Ok(String::new()),
            Some(status) => return Ok(format!("it failed ({status})")),
            None if stop.load(Ordering::Relaxed) => {
                "it was ended, for this run is stopping".to_owned()
            }
            None if Instant::now() > end => format!("it took longer than {} s", most.as_secs()),
            None => {
                std::thread::sleep(COMMAND_POLL);
                continue;
            }
        };
        end_group(&mut child)?;
        return Ok(why);
    }
}

/// Ends a command that leads its process group, and all that is still in the group.
fn end_group(child: &mut Child) -> io::Result<()> {
    // It has not been waited for, so its id is nobody else's.
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if group.is_none_or(|group| kill_process_group(group, Signal::KILL).is_err()) {
        child.kill()?;
    }
    child.wait().map(drop)
}

/// Writes a file that others read at any moment: beside its place, then moved. The mode is the usual
/// one, for the collector is another user. Whoever may write to the folder could have put a link where
/// the new file is made: what lies there goes first, and nothing that is there then is written to.
fn beside(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("--metrics-file is no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    let hidden = path.with_file_name(hidden);
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // O_EXCL, which follows no link.
    OpenOptions::new().write(true).create_new(true).open(&hidden)?.write_all(text)?;
    std::fs::rename(&hidden, path)
}

/// Answers scrapers on an address until the process ends, several at a time.
fn listen(at: SocketAddr) -> Result<Served, Failure> {
    let cannot = |error: io::Error| {
        Failure::usage(format!("--metrics-listen {at}: {error}; give another port"))
    };
    let listener = Arc::new(TcpListener::bind(at).map_err(cannot)?);
    let at = listener.local_addr().map_err(cannot)?;
    let text = Arc::new(Mutex::new("# EOF\n".to_owned()));
    for number in 0..SCRAPERS {
        let (listener, served) = (Arc::clone(&listener), Arc::clone(&text));
        let serve = move || {
            loop {
                let Ok((connection, _)) = listener.accept() else {
                    // Out of descriptors, for example: that passes, and asking at once helps nobody.
                    std::thread::sleep(SCRAPE_TIME);
                    continue;
                };
                let text = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A scraper that goes away comes again.
                let _ = answer(connection, &text);
            }
        };
        let thread = std::thread::Builder::new().name(format!("metrics-{number}"));
        thread.spawn(serve).map_err(cannot)?;
    }
    Ok(Served { text, at })
}

/// One request, one answer, one connection: nothing that a scraper sends is kept.
fn answer(mut connection: TcpStream, text: &str) -> io::Result<()> {
    let until = Instant::now() + SCRAPE_TIME;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        connection.set_read_timeout(Some(left))?;
        let read = connection.read(&mut part)?;
        request.extend_from_slice(part.get(..read).unwrap_or_default());
        if read == 0 || request.len() > REQUEST_MAX {
            return Ok(());
        }
    }
    let (status, text) = match request.starts_with(b"GET /metrics ") {
        true => ("200 OK", text),
        false => ("404 Not Found", "only GET /metrics\n"),
    };
    connection.set_write_timeout(Some(SCRAPE_TIME))?;
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        MetricsForm::OpenMetrics.media_type(),
        text.len()
    );
    connection.write_all(response.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_metrics_and_a_stranger_does_not_stop_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let ask = |request: &'static [u8]| {
            let asker = std::thread::spawn(move || {
                let mut asker = TcpStream::connect(at).expect("connects");
                let mut heard = String::new();
                // A refused request may be answered by a reset at any moment.
                let _ = asker.write_all(request);
                let _ = asker.shutdown(std::net::Shutdown::Write);
                let _ = asker.read_to_string(&mut heard);
                heard
            });
            let (connection, _) = listener.accept().expect("somebody asks");
            let _ = answer(connection, "lbaudit_cases_total 3\n# EOF\n");
            asker.join().expect("no panic")
        };
        let heard = ask(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert!(
            heard.contains("openmetrics-text")
                && heard.ends_with("\r\n\r\nlbaudit_cases_total 3\n# EOF\n")
        );
        assert!(ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert_eq!(ask(b"GET /metr"), "");
        assert_eq!(ask(&[b'a'; 20_000]), "");
    }

    #[test]
    fn a_metrics_file_is_whole_and_readable_by_a_collector() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lbaudit.prom");
        for text in ["a 1\n", "a 2\n"] {
            beside(&path, text.as_bytes()).expect("writes");
            assert_eq!(std::fs::read_to_string(&path).expect("reads"), text);
        }
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o400, 0o400);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1);
    }

    #[test]
    fn clients_that_say_nothing_do_not_keep_the_scraper_waiting() {
        let served = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("port 0 is any free one");
        let silent: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(served.at).expect("connects")).collect();
        let ask = || {
            let mut scraper = TcpStream::connect(served.at).expect("connects");
            scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("asks");
            let mut heard = String::new();
            scraper.read_to_string(&mut heard).expect("hears");
            heard
        };
        let began = Instant::now();
        assert!(ask().ends_with("\r\n\r\n# EOF\n"));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(silent);
        // More than there are threads for are a delay, too, and no more.
        let silent: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(served.at).expect("connects")).collect();
        let began = Instant::now();
        assert!(ask().ends_with("\r\n\r\n# EOF\n"));
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        drop(silent);
    }

    #[test]
    fn a_link_where_the_metrics_are_made_leads_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("a.prom"), folder.path().join("precious"));
        std::fs::write(&other, "precious").expect("writes");
        std::os::unix::fs::symlink(&other, folder.path().join(".a.prom.tmp")).expect("links");
        beside(&path, b"a 1\n").expect("writes");
        assert_eq!(std::fs::read_to_string(&other).expect("reads"), "precious");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "a 1\n");
        assert!(!std::fs::symlink_metadata(&path).expect("is there").is_symlink());
    }

    /// What becomes of a command that would sleep for a minute, in a child of its own as well, and how
    /// long that takes.
    fn ended(stop: &AtomicBool, most: Duration) -> (String, Duration) {
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("pid");
        let child = Command::new("sh")
            .args([
                "-c",
                "cat >/dev/null; sleep 60 & echo $! >\"$0.new\"; mv \"$0.new\" \"$0\"; wait",
            ])
            .arg(&note)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        let began = Instant::now();
        let why = std::thread::scope(|scope| {
            let told = scope.spawn(|| told(child, b"{}\n", stop, most));
            let sleeper = loop {
                if let Ok(text) = std::fs::read_to_string(&note) {
                    break text.trim().to_owned();
                }
                assert!(began.elapsed() < Duration::from_secs(20), "it never began");
                std::thread::sleep(Duration::from_millis(5));
            };
            if most > Duration::from_secs(30) {
                stop.store(true, Ordering::Relaxed);
            }
            let why = told.join().expect("no panic").expect("it can be ended");
            // A process that is gone, or dead and not yet collected, has no command line.
            let line = || std::fs::read(format!("/proc/{sleeper}/cmdline")).unwrap_or_default();
            while !line().is_empty() && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(line(), b"", "what it started is still there");
            why
        });
        (why, began.elapsed())
    }

    #[test]
    fn a_command_for_a_finding_goes_with_its_children_when_the_run_stops_or_its_time_is_over() {
        let (why, took) = ended(&AtomicBool::new(false), Duration::from_secs(40));
        assert!(why.contains("stopping") && took < Duration::from_secs(20), "{why} {took:?}");
        let (why, took) = ended(&AtomicBool::new(false), Duration::from_secs(3));
        assert!(
            why.contains("longer than 3 s") && took < Duration::from_secs(20),
            "{why} {took:?}"
        );
    }
}
