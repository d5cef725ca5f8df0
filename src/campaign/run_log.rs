//! `events.jsonl` of a random run: what it says, line by line, and looks at itself every so often.
//!
//! Lines are not synced one by one: a killed run may lose the last of them, and the checkpoint is what
//! counts. Not covered: what an event holds, who reads them (`super::run_files`).

use super::record::EVENTS;
use super::run_files::Sample;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Samples of the first minute lie a second apart, of the first ten minutes ten, then a minute: a
/// month has 43,000 of them, some 12 MB.
const fn pause(elapsed: Duration) -> Duration {
    Duration::from_secs(match elapsed.as_secs() {
        0..60 => 1,
        60..600 => 10,
        _ => 60,
    })
}

/// An event of the file, with the version of its lines.
#[derive(Serialize)]
struct Line<'a, E> {
    v: u32,
    #[serde(flatten)]
    event: &'a E,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "progress")]
struct Progress<'a> {
    #[serde(flatten)]
    sample: &'a Sample,
}

/// The file, open at its end.
#[derive(Debug)]
pub struct RunLog {
    file: File,
    due: Duration,
}

impl RunLog {
    /// Opens the file in a run's folder, or makes it. A last line that a killed run left torn goes.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub fn open(folder: &Path) -> io::Result<RunLog> {
        let path = folder.join(EVENTS);
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
        file.seek(SeekFrom::End(0))?;
        Ok(RunLog { file, due: Duration::ZERO })
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, event: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line { v: 1, event })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Whether it is time to look at the run again, so long after its start.
    pub fn is_due(&self, elapsed: Duration) -> bool {
        elapsed >= self.due
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sample(&mut self, elapsed: Duration, sample: &Sample) -> io::Result<()> {
        self.due = elapsed + pause(elapsed);
        self.add(&Progress { sample })
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_files::samples;
    use super::*;
    use std::fs;

    #[test]
    fn a_log_goes_on_after_its_last_whole_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = RunLog::open(folder.path()).expect("it can be made");
        let sample = Sample { cases: 7, ..Sample::default() };
        log.sample(Duration::ZERO, &sample).expect("writes");
        let path = folder.path().join(EVENTS);
        let mut text = fs::read(&path).expect("reads");
        text.extend(b"{\"v\":1,\"event\":\"prog");
        fs::write(&path, &text).expect("a torn line");
        let mut log = RunLog::open(folder.path()).expect("it opens");
        log.sample(Duration::ZERO, &Sample { cases: 9, ..sample.clone() }).expect("writes");
        let cases: Vec<u64> =
            samples(folder.path()).expect("reads").iter().map(|sample| sample.cases).collect();
        assert_eq!(cases, [7, 9]);
        let text = fs::read_to_string(&path).expect("reads");
        assert!(text.lines().all(|line| line.starts_with("{\"v\":1,\"event\":\"progress\",")));
    }

    #[test]
    fn samples_come_less_often_the_longer_a_run_lasts() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = RunLog::open(folder.path()).expect("it can be made");
        let mut taken = 0u32;
        for second in 0..3600 {
            let elapsed = Duration::from_secs(second);
            if log.is_due(elapsed) {
                log.sample(elapsed, &Sample::default()).expect("writes");
                taken += 1;
            }
        }
        assert_eq!(taken, 60 + 54 + 50);
    }
}
