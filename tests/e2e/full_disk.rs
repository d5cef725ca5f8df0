//! A disk that fills up under the run folder: nothing passes, nothing is done on the array that the
//! journal does not say, and a finding that cannot be kept is said.

use crate::support::{
    Attach, Finished, Home, Meddle, Proxy, Server, When, fuse_works, left_out, one_that_cleans,
};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A file system of so many pages of 4 KiB; unmounted by its own drop.
struct SmallDisk {
    point: PathBuf,
}

const NO_SPACE: &str = "No space left on device";

impl SmallDisk {
    /// `None`, with the reason printed, where there is none.
    fn new(home: &Home, pages: u32) -> Option<SmallDisk> {
        if !rustix::process::geteuid().is_root() {
            left_out("a file system can be mounted by root only");
            return None;
        }
        let point = home.path().join("small");
        fs::create_dir_all(&point).unwrap();
        let size = format!("size={}k,mode=700", 4 * pages);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&point);
        match mount.output() {
            Ok(output) if output.status.success() => Some(SmallDisk { point }),
            other => {
                left_out(&format!("no small file system: {other:?}"));
                None
            }
        }
    }
    fn runs(&self) -> String {
        self.point.join("runs").display().to_string()
    }
    /// The file of that name of the only run.
    fn file(&self, name: &str) -> Option<String> {
        let runs = fs::read_dir(self.point.join("runs")).ok()?;
        let mut folders = runs.map(|entry| entry.unwrap().path()).filter(|path| !path.is_symlink());
        fs::read_to_string(folders.next()?.join(name)).ok()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.point).status().unwrap();
        assert!(done.success(), "the file system stays: {done}");
    }
}

/// Both streams of a run.
fn said(run: &Finished) -> String {
    format!("{}{}", run.stdout, run.stderr)
}

#[test]
fn a_suite_whose_disk_fills_up_never_passes_and_leaves_no_snapshot() {
    if !fuse_works() {
        return;
    }
    let _alone = one_that_cleans();
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let mut full = 0;
    for pages in 1..40 {
        let Some(disk) = SmallDisk::new(&home, pages) else { return };
        let flags = ["--test", "12", "--test", "13", "--run-dir", &disk.runs()];
        let run = home.run(&server.target().args(&["suite"], &flags), Some(&server.token));
        assert_eq!(server.api().snapshot_names(), [""; 0], "{pages} pages: {run}");
        if run.code == Some(0) {
            let last = disk.file("events.jsonl").unwrap().lines().last().map(str::to_owned);
            assert!(last.unwrap().contains(r#""event":"run_finished""#), "all of it: {run}");
            assert!(disk.file("junit.xml").unwrap().contains("</testsuites>"), "{run}");
            break;
        }
        full += 1;
        run.assert_code(3);
        assert!(run.stderr.contains(NO_SPACE), "{pages} pages: {run}");
    }
    assert!((3..39).contains(&full), "the disk was full in {full} runs, and then it was not");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn what_the_journal_cannot_keep_is_not_asked_of_the_array() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    // One page for `run.json`, and too few for the journal.
    for pages in 2..6 {
        let Some(disk) = SmallDisk::new(&home, pages) else { return };
        let proxy = Proxy::start(&server, Meddle::Nothing, When::Always);
        let mut target = server.target();
        (target.endpoint, target.pins) = (Some(proxy.endpoint.clone()), vec![proxy.pin.clone()]);
        let runs = disk.runs();
        let flags = ["--region", "8MiB", "--seed", "5", "--cases", "20", "--run-dir", &runs];
        let run = home.run(&target.args(&["check"], &flags), Some(&server.token));
        run.assert_code(3);
        // Whichever file was full first.
        let journal = said(&run).contains("journal");
        let file =
            ["could not be written", "cannot write"].iter().any(|it| said(&run).contains(it));
        assert!(journal || file, "{run}");
        assert!(said(&run).contains(NO_SPACE), "{run}");
        assert_eq!(server.api().snapshot_names(), [""; 0], "{pages} pages: {run}");
        let journal = disk.file("journal.jsonl").unwrap();
        let whole = journal.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let intended: BTreeSet<String> = whole
            .filter_map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["entry"]["intent"]["name"].as_str().map(str::to_owned)
            })
            .collect();
        let asked: BTreeSet<String> =
            proxy.bodies("POST").iter().map(|body| name_in(body)).collect();
        assert!(asked.len() >= 6, "the handshake at least: {run}");
        assert!(asked.is_subset(&intended), "{asked:#?} {intended:#?}");
    }
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

fn name_in(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_finding_that_cannot_be_kept_is_said_and_is_no_pass() {
    let home = Home::new();
    let (mut lost, mut kept) = (0, 0);
    // Of the larger ones a part is set aside for findings.
    for pages in (1..40).step_by(3).chain((72..110).step_by(9)) {
        let Some(disk) = SmallDisk::new(&home, pages) else { return };
        let flags = ["--seed", "1", "--cases", "200", "--jobs", "1", "--shrink-time", "2s"];
        let plant = ["check", "--plant", "discard-untracked", "--transport", "inproc"];
        let run = home.run(&[&plant[..], &flags, &["--run-dir", &disk.runs()]].concat(), None);
        match run.code {
            Some(3) => {
                lost += 1;
                assert!(run.stderr.contains(NO_SPACE), "{run}");
                assert!(!run.stdout.contains("NO VIOLATION"), "{run}");
            }
            // It was seen, and that could not be written down.
            Some(1) if disk.file("finding-1/repro.jsonl").is_none() => {
                lost += 1;
                assert!(pages < 72, "there is room that was set aside: {run}");
                assert!(run.stderr.contains(NO_SPACE), "{run}");
            }
            code => {
                kept += 1;
                assert_eq!(code, Some(1), "{run}");
                let trace = disk.file("finding-1/repro.jsonl").unwrap();
                assert!(trace.ends_with('\n'), "{trace}");
            }
        }
    }
    assert!(lost > 2 && kept > 2, "{lost} lost, {kept} kept");
    home.assert_nothing_left();
}
