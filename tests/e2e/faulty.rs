//! Devices and servers that fail: what a run says of them, and that it never takes them for a wrong
//! answer, nor a wrong answer for them.

use crate::support::{Attach, Finished, Home, Server, fuse_works, loops_work};
use rustix::process::Signal;

/// One test of the suite on a simulator with this fault.
fn suite_with(attach: Attach, fault: &str, test: &str) -> Option<Finished> {
    let works = if attach == Attach::Loop { loops_work() } else { fuse_works() };
    if !works {
        return None;
    }
    let home = Home::new();
    let server = Server::start(&home, attach, &["--fault", fault]);
    let flags = ["--test", test, "--output", "jsonl"];
    let run = home.run(&server.target().args(&["suite"], &flags), Some(&server.token));
    assert_eq!(server.api().snapshot_names(), [""; 0], "{fault}: {run}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
    Some(run)
}

fn result(run: &Finished) -> String {
    let lines = run.json();
    let test = lines.iter().find(|line| line["event"] == "test_finished");
    test.map_or_else(String::new, |test| test["result"].as_str().unwrap().to_owned())
}

#[test]
fn a_device_that_fails_is_no_verdict_on_the_array() {
    for (fault, says) in [
        ("data:eio-write@target:30", "Input/output error"),
        ("data:enospc@target:30", "No space left on device"),
        ("data:eio-flush@target:2+", "Input/output error"),
    ] {
        let run = suite_with(Attach::Loop, fault, "full_sync_checksum");
        let Some(run) = run else { return };
        run.assert_code(3);
        assert_eq!(result(&run), "error", "{fault}: {run}");
        assert!(run.stdout.contains(says), "{fault}: {run}");
    }
    // From the handshake on: nothing is tested at all.
    let Some(run) = suite_with(Attach::Loop, "data:eio-read@source:30+", "full_sync_checksum")
    else {
        return;
    };
    run.assert_code(3);
    assert!(run.stderr.contains("Input/output error"), "{run}");
}

#[test]
fn a_device_that_lies_is_found_by_what_it_holds() {
    for fault in ["data:misdirected@target:30", "data:lost@target:30", "data:torn@target:30"] {
        let run = suite_with(Attach::Loop, fault, "full_sync_checksum");
        let Some(run) = run else { return };
        run.assert_code(1);
        assert_eq!(result(&run), "fail", "{fault}: {run}");
        assert!(run.stdout.contains("content"), "{fault}: {run}");
    }
}

#[test]
fn a_server_that_is_unwell_is_tried_again_and_one_that_stays_so_is_no_verdict() {
    let passing = ["status-503@2", "hang-up@diff:2", "429-seconds@5", "create-reply-lost@5"];
    for fault in passing {
        let Some(run) = suite_with(Attach::Fuse, fault, "full_sync_checksum") else { return };
        run.assert_code(0);
        assert_eq!(result(&run), "pass", "{fault}: {run}");
    }
    // The handshake asks four diffs, and two of the answers hold ranges that could be cut.
    for fault in ["truncated-json@diff:3+", "html@diff:5+", "status-500@diff:5+"] {
        let Some(run) = suite_with(Attach::Fuse, fault, "full_sync_checksum") else { return };
        run.assert_code(3);
        assert_eq!(result(&run), "error", "{fault}: {run}");
    }
    let Some(run) = suite_with(Attach::Fuse, "page-lost@diff:3+", "full_sync_checksum") else {
        return;
    };
    run.assert_code(1);
    assert_eq!(result(&run), "fail", "a page that is left out is data lost: {run}");
}

#[test]
fn faults_that_there_are_not_are_refused_with_what_there_is() {
    let home = Home::new();
    for (fault, says) in [
        ("status-999", "list faults"),
        ("data:eio-write@neighbour:1", "--neighbour"),
        ("status-503@0", "`0` is not the number"),
    ] {
        let run = home.run(&["sim", "serve", "--attach", "none", "--fault", fault], None);
        run.assert_code(2);
        assert!(run.stderr.contains(says), "{fault}: {run}");
    }
    let kinds = home.run(&["list", "faults"], None);
    kinds.assert_code(0);
    assert!(kinds.stdout.lines().count() > 40, "{kinds}");
}
