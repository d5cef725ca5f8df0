//! `lbaudit suite` without a target: the embedded simulator, in process, and QEMU.

use crate::support::{Home, fuse_works, left_out, on_path, one_with_loops};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

/// A user who may mount nothing.
const NOBODY: u32 = 65534;

#[test]
fn the_suite_passes_twenty_of_twenty_and_writes_a_junit_file() {
    let _loops = one_with_loops();
    let home = Home::new();
    let run = home.run(&["suite", "--junit", "results.xml"], None);
    run.assert_code(0);
    assert!(run.verdict().starts_with("20/20 passed | ALL PASSED | total "), "{run}");
    assert!(run.stderr.contains("target=simulator"), "{run}");
    assert!(run.stdout.contains("simulator"), "the screen says so too: {run}");
    if fuse_works() {
        assert!(run.stdout.contains("https://127.0.0.1:"), "over HTTPS: {run}");
    }
    let xml = fs::read_to_string(home.path().join("results.xml")).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&xml).expect("a JUnit file");
    assert_eq!((report.tests, report.failures, report.errors), (20, 0, 0));
    let own = fs::read_to_string(home.runs().last().unwrap().join("junit.xml")).unwrap();
    assert_eq!(own, xml);
    home.assert_nothing_left();
}

#[test]
fn a_planted_bug_is_found_and_said_in_every_form() {
    let _loops = one_with_loops();
    let home = Home::new();
    let args = ["suite", "--plant", "bit63-dropped", "--test", "2", "--test", "13", "--junit", "j"];
    let run = home.run(&[&args[..], &["--output", "jsonl"]].concat(), None);
    run.assert_code(1);
    let expected = [("full_scan_accuracy", "fail"), ("rapid_snapshots", "pass")];
    assert_eq!(run.results(), expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "{run}");
    let lines = run.json();
    let failed = lines.iter().find(|line| line["result"] == "fail").unwrap();
    assert_eq!(failed["kinds"][0], "missed", "{run}");
    assert_eq!(failed["number"], 2);
    assert!(failed["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let last = lines.last().unwrap();
    let fields = ["event", "passed", "failed", "errors", "not_applicable", "exit_code"];
    let wanted: [Value; 6] =
        ["run_finished".into(), 1.into(), 1.into(), 0.into(), 0.into(), 1.into()];
    assert_eq!(fields.map(|field| last[field].clone()), wanted, "{run}");
    let xml = fs::read_to_string(home.path().join("j")).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&xml).expect("a JUnit file");
    assert_eq!((report.tests, report.failures), (2, 1));
    assert!(xml.contains(r#"type="missed""#), "{xml}");

    let screen = home.run(&["suite", "--plant", "bit63-dropped", "--test", "2"], None);
    screen.assert_code(1);
    assert!(screen.stdout.contains("[1/1] full_scan_accuracy "), "{screen}");
    assert!(screen.stdout.contains(" FAIL ("), "{screen}");
    assert!(screen.stdout.contains("data loss"), "{screen}");
    assert!(screen.verdict().starts_with("0/1 passed"), "{screen}");
    home.assert_nothing_left();
}

#[test]
fn a_bug_of_the_pipeline_is_found_too() {
    let home = Home::new();
    let names = home.run(&["list", "bugs", "--output", "jsonl"], None);
    names.assert_code(0);
    let lines = names.json();
    let named = |name: &str| lines.iter().any(|line| line["name"] == name);
    assert!(named("bit63-dropped") && named("chunk-for-lba"), "{names}");
    let run =
        home.run(&["suite", "--in-process", "--plant", "chunk-for-lba", "--test", "12"], None);
    run.assert_code(1);
    let early = ["suite", "--plant", "reads-before-available", "--test", "3", "--output", "jsonl"];
    let run = home.run(&early, None);
    run.assert_code(1);
    let lines = run.json();
    let test = lines.iter().find(|line| line["event"] == "test_finished").unwrap();
    assert_eq!(test["kinds"][0], "missed", "{run}");
    home.assert_nothing_left();
}

#[test]
fn who_may_not_mount_gets_volumes_in_the_process_and_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        return left_out("only root can become somebody who may not mount");
    }
    let home = Home::new();
    for folder in [home.path(), &home.tmp()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = home.command(&["suite", "--test", "12", "--test", "5"]);
    command.uid(NOBODY).gid(NOBODY);
    let probe = home.command(&["--version"]).uid(NOBODY).gid(NOBODY).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return left_out("the program lies where nobody else may run it");
    }
    let run = crate::support::Running::spawn(command, None).finish();
    run.assert_code(0);
    assert!(run.verdict().starts_with("2/2 passed | ALL PASSED"), "{run}");
    let told = run.stderr.contains("in-process volumes are used");
    assert!(told || run.stdout.contains("https://127.0.0.1:"), "one or the other: {run}");
    home.assert_nothing_left();
}

#[test]
fn qemus_own_tracker_passes_but_for_the_one_test_that_is_not_its_business() {
    if !on_path("qemu-storage-daemon") {
        return left_out("qemu-storage-daemon is not there (Debian: qemu-utils)");
    }
    let home = Home::new();
    let run = home.run(&["suite", "--backend", "qemu", "--output", "jsonl"], None);
    run.assert_code(0);
    let lines = run.json();
    let last = lines.last().unwrap();
    let count = |field: &str| last[field].as_u64().unwrap();
    assert_eq!((count("failed"), count("errors")), (0, 0), "{run}");
    assert!(count("not_applicable") <= 1, "{run}");
    assert_eq!(count("passed") + count("not_applicable"), 20, "{run}");
    for line in lines.iter().filter(|line| line["result"] == "not_applicable") {
        assert_eq!(line["name"], "deleted_base_snapshot", "{line}");
        let reason = line["notes"][0].as_str().unwrap();
        assert!(reason.starts_with("not applicable: this target"), "{reason}");
    }
    home.assert_nothing_left();
}

#[test]
fn a_missing_qemu_is_said_and_is_exit_3() {
    let home = Home::new();
    let run = home.run(&["suite", "--backend", "qemu", "--qsd", "/nonexistent/qsd"], None);
    run.assert_code(3);
    assert!(run.stderr.contains("/nonexistent/qsd"), "{run}");
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
    home.assert_nothing_left();
}
