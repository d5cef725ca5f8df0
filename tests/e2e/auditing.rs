//! `audit`: the laws on snapshots that somebody else made, without a write.

use crate::support::{Attach, Home, Idle, Server, fuse_works};
use rustix::process::Signal;
use serde_json::Value;

/// A server with what a run left, and the flags that read it.
fn with_snapshots(home: &Home, flags: &[&str]) -> (Server, Vec<String>) {
    let server = Server::start(home, Attach::Fuse, flags);
    let args = server.target().args(&["suite"], &["--test", "4", "--keep-snapshots"]);
    let run = home.run(&args, Some(&server.token));
    assert!(matches!(run.code, Some(0 | 1)), "{run}");
    let mut target = server.target().reading();
    (target.source_device, target.target_device, target.target_uuid) = (None, None, None);
    let args = target.args(&["audit"], &["--output", "jsonl"]);
    (server, args)
}

#[test]
fn an_honest_array_passes_and_nothing_is_written_or_taken() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let (server, args) = with_snapshots(&home, &[]);
    let api = server.api();
    let before = api.snapshot_names();
    assert!(before.len() > 1, "{before:?}");
    let idle = Idle::since_now(&api, [server.volume(0, "uuid"), server.volume(1, "uuid")]);
    let run = home.run(&args, Some(&server.token));
    run.assert_code(0);
    idle.assert_untouched("audit");
    let now: Vec<String> =
        api.snapshot_names().into_iter().filter(|name| before.contains(name)).collect();
    assert_eq!(now, before, "{run}");
    home.assert_no_file_holds(&server.token);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn an_array_that_answers_what_it_must_refuse_fails() {
    if !fuse_works() {
        return;
    }
    for bug in ["self-diff-empty", "foreign-base-answers"] {
        let home = Home::new();
        let (server, args) = with_snapshots(&home, &["--plant", bug]);
        let run = home.run(&args, Some(&server.token));
        run.assert_code(1);
        let lines = run.json();
        let kind = |line: &&Value| line["event"] == "violation";
        let found = lines.iter().find(kind).unwrap();
        assert_eq!(found["violation"]["kind"], "refusal", "{bug}: {run}");
        server.stop(Signal::TERM);
    }
}

#[test]
fn snapshots_of_its_own_are_deleted_again() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--preload", "random:5"]);
    let mut target = server.target().reading();
    (target.source_device, target.target_device, target.target_uuid) = (None, None, None);
    let run = home.run(&target.args(&["audit"], &["--snapshots", "3"]), Some(&server.token));
    run.assert_code(0);
    assert_eq!(server.api().snapshot_names(), ["preload"], "{run}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
