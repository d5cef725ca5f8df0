//! What a finding leaves on disk, whatever becomes of the run.

use crate::support::{Home, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn read(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a JSONL file that ends as it should.
fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = read(folder, name);
    assert!(text.ends_with('\n'), "{name} was cut off");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_that_is_killed_while_it_shrinks_leaves_its_finding_whole() {
    let home = Home::new();
    // Over HTTPS a candidate takes tens of milliseconds, and this finding has 124 operations.
    let flags = ["--seed", "4", "--ops", "2000", "--cases", "2", "--jobs", "1"];
    let how = ["check", "--plant", "discard-untracked", "--transport", "http"];
    let mut run = home.start(&[&how[..], &flags].concat(), None);
    // The recording is the last that is written before the first candidate runs.
    let finding = until("shrinking begins", Duration::from_secs(120), || {
        assert!(!run.has_ended(), "the run ended too soon");
        let finding = home.runs().first()?.join("finding-1");
        finding.join("events.jsonl").exists().then_some(finding)
    });
    run.signal(Signal::KILL);
    let run = run.finish();
    assert_eq!(run.code, None, "it had no chance: {run}");
    assert!(!run.stdout.contains("shrunk"), "{run}");

    let violation: Value = serde_json::from_str(&read(&finding, "violation.json")).unwrap();
    assert_eq!(violation.get("shrunk"), None, "it was killed before it had done shrinking");
    assert_eq!(violation["kind"], "missed", "{violation}");
    let before = violation["operations_before"].as_u64().unwrap();
    assert!(before > 20, "there was something to shrink: {violation}");
    // A header, the operations, and the one that shows it.
    assert_eq!(lines(&finding, "repro.jsonl").len() as u64, before + 2);
    assert!(lines(&finding, "original.jsonl").len() as u64 >= before + 2);
    assert!(!lines(&finding, "events.jsonl").is_empty());
    let script = finding.join("repro.sh");
    let sentence = violation["violation"]["sentence"].as_str().unwrap();
    let said = read(&finding, "repro.sh");
    let words = said.lines().find(|line| line.starts_with("say 'What was found"));
    assert!(words.unwrap().contains(sentence), "{said}");
    assert!(Command::new("sh").arg("-n").arg(script).status().unwrap().success());

    for trace in ["original.jsonl", "repro.jsonl"] {
        let trace = finding.join(trace).display().to_string();
        let again = home.run(&["replay", &trace, "--output", "jsonl"], None);
        again.assert_code(1);
        let replayed = again.json();
        let kinds = replayed[0]["kinds"].as_array().unwrap();
        assert_eq!(kinds.first(), Some(&violation["kind"]), "{again}");
    }
    let judged = finding.join("events.jsonl").display().to_string();
    home.run(&["replay", "--judge", &judged], None).assert_code(1);
    home.assert_nothing_left();
}
