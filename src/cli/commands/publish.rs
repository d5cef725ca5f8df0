//! What a long run tells others while it goes on: a file of metrics, a port for a scraper, a command
//! for each finding. None of them changes a verdict: what fails is said and the run goes on.
//!
//! Not covered: what metrics there are (`crate::report`), events (`crate::campaign::run_log`).

use crate::campaign::run_files::{Checkpoint, Sample, Started};
use crate::campaign::store::replace;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::failure::Failure;
use crate::report::{MetricsForm, metrics};
use serde::Serialize;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Name of the metrics in a run's folder.
const METRICS: &str = "metrics.prom";
/// How often metrics are written.
const EVERY: Duration = Duration::from_secs(5);
/// How long the command for a finding may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// How long a scraper may take.
const SCRAPE_TIME: Duration = Duration::from_secs(5);
/// Bytes of a scraper's request that are looked at.
const REQUEST_MAX: usize = 4096;

/// Where a run tells what.
pub(super) struct Publisher {
    started: Started,
    folder: PathBuf,
    file: Option<PathBuf>,
    /// The metrics as the port answers them.
    served: Option<Arc<Mutex<String>>>,
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
            *served.lock().unwrap_or_else(PoisonError::into_inner) = text(MetricsForm::OpenMetrics);
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
    pub(super) fn found(&self, finding: &impl Serialize) -> Option<String> {
        let command = self.command.as_deref()?;
        let run = || -> io::Result<String> {
            let mut words = command.split_whitespace();
            let program = words.next().ok_or_else(|| io::Error::other("it is empty"))?;
            let mut child = Command::new(program)
                .args(words)
                .env_remove("LIGHTBITS_JWT")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            let mut text = serde_json::to_vec(finding)?;
            text.push(b'\n');
            if let Some(mut stdin) = child.stdin.take() {
                // A command that does not read is fine; a pipe holds more than a finding has.
                let _ = stdin.write_all(&text);
            }
            let end = Instant::now() + COMMAND_TIME;
            loop {
                match child.try_wait()? {
                    Some(status) if status.success() => return Ok(String::new()),
                    Some(status) => return Ok(format!("it failed ({status})")),
                    None if Instant::now() > end => {
                        child.kill()?;
                        child.wait()?;
                        return Ok(format!("it took longer than {} s", COMMAND_TIME.as_secs()));
                    }
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        };
        let why = run().unwrap_or_else(|error| error.to_string());
        (!why.is_empty()).then(|| format!("--on-finding {command}: {why}"))
    }
}

/// Writes a file that others read at any moment: beside its place, then moved. The mode is the usual
/// one, for the collector is another user.
fn beside(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("--metrics-file is no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    let hidden = path.with_file_name(hidden);
    std::fs::write(&hidden, text)?;
    std::fs::rename(&hidden, path)
}

/// Answers scrapers on an address until the process ends.
fn listen(at: SocketAddr) -> Result<Arc<Mutex<String>>, Failure> {
    let cannot = |error: io::Error| {
        Failure::usage(format!("--metrics-listen {at}: {error}; give another port"))
    };
    let listener = TcpListener::bind(at).map_err(cannot)?;
    let text = Arc::new(Mutex::new("# EOF\n".to_owned()));
    let served = Arc::clone(&text);
    let serve = move || {
        for connection in listener.incoming().flatten() {
            let text = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A scraper that goes away comes again.
            let _ = answer(connection, &text);
        }
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(cannot)?;
    Ok(text)
}

/// One request, one answer, one connection: nothing that a scraper sends is kept.
fn answer(mut connection: TcpStream, text: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(SCRAPE_TIME))?;
    connection.set_write_timeout(Some(SCRAPE_TIME))?;
    let until = Instant::now() + SCRAPE_TIME;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read(&mut part)?;
        request.extend_from_slice(part.get(..read).unwrap_or_default());
        if read == 0 || request.len() > REQUEST_MAX || Instant::now() > until {
            return Ok(());
        }
    }
    let (status, text) = match request.starts_with(b"GET /metrics ") {
        true => ("200 OK", text),
        false => ("404 Not Found", "only GET /metrics\n"),
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        MetricsForm::OpenMetrics.media_type(),
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_metrics_and_a_stranger_does_not_stop_the_next() {
        let text = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        assert!(text.is_ok(), "port 0 is any free one");
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
}
