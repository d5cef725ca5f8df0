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

#[test]
fn what_is_no_device_of_a_clone_is_refused_and_not_waited_for() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let (server, args) = with_snapshots(&home, &[]);
    // Opening it for reading would wait for somebody who writes.
    let pipe = home.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let source = server.device(0);
    for (path, flags, says) in [
        (pipe.as_path(), &[][..], "neither a block device nor a file"),
        (source.as_path(), &["--clones-unwritten"], "no clone of a known snapshot"),
    ] {
        let image = ["--source-clone-device", path.to_str().unwrap()].map(str::to_owned);
        let flags = flags.iter().map(|&flag| flag.to_owned());
        let args: Vec<String> = args.iter().cloned().chain(image).chain(flags).collect();
        let run = home.run(&args, Some(&server.token));
        run.assert_code(2);
        assert!(run.stderr.contains(says), "{run}");
        assert!(run.took < std::time::Duration::from_secs(20), "{run}");
    }
    server.stop(Signal::TERM);
}

#[test]
fn an_image_that_its_volume_proves_is_held_against_the_array() {
    if !fuse_works() {
        return;
    }
    for (bug, unproved, proved) in [(None, 0, 0), (Some("bit63-dropped"), 3, 1)] {
        let home = Home::new();
        let plant: Vec<&str> = bug.iter().flat_map(|bug| ["--plant", bug]).collect();
        let flags = [&["--size", "64MiB"][..], &plant].concat();
        let server = Server::start(&home, Attach::Fuse, &flags);
        let (api, source) = (server.api(), server.volume(0, "uuid"));
        // Bit 63 of a chunk, and one beside it.
        server.write(0, 62 * 4096, 8192);
        let snapshot = api.take(&source, "nightly");
        let clone = api.clone_of(&snapshot, "clone-of-nightly");
        let image = server.device(0).with_file_name(format!("clone-{clone}"));
        let mut target = server.target().reading();
        (target.source_device, target.target_device, target.target_uuid) = (None, None, None);
        let image = ["--source-clone-device", image.to_str().unwrap()];
        let run = |flags: &[&str]| {
            let args = target.args(&["audit"], &[&image[..], flags].concat());
            home.run(&args, Some(&server.token))
        };
        run(&[]).assert_code(unproved);
        let held = run(&["--clones-unwritten"]);
        held.assert_code(proved);
        assert_eq!(held.stdout.contains("not zeros"), bug.is_some(), "{held}");
        server.stop(Signal::TERM);
    }
}

#[test]
fn a_sync_tells_what_is_no_copy_of_its_snapshot() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", "64MiB"]);
    let (api, source) = (server.api(), server.volume(0, "uuid"));
    server.write(0, 0, 64 << 12);
    let first = api.take(&source, "first");
    let sync = |snapshot: &str, flags: &[&str]| {
        let flags = [&["--snapshot", snapshot], flags].concat();
        home.run(&server.target().args(&["sync"], &flags), Some(&server.token))
    };
    let copied = sync("first", &[]);
    copied.assert_code(0);
    assert!(copied.stdout.contains("if it was blank before"), "{copied}");
    server.write(0, 10 << 12, 4 << 12);
    let late = sync("first", &[]);
    late.assert_code(3);
    assert!(late.stdout.contains("NOT A COPY OF THE SNAPSHOT"), "{late}");
    api.take(&source, "second");
    sync("second", &["--base", "first"]).assert_code(0);
    // What a clone's first diff leaves out nobody knows.
    let clone = api.clone_of(&first, "a-clone");
    let device = server.device(0).with_file_name(format!("clone-{clone}"));
    api.take(&clone, "of-the-clone");
    let mut target = server.target();
    let tail = crate::support::tail(&clone);
    (target.source_uuid, target.source_device) = (Some(clone), Some(device.display().to_string()));
    target.destroy.push(tail);
    let args = target.args(&["sync"], &["--snapshot", "of-the-clone"]);
    let refused = home.run(&args, Some(&server.token));
    refused.assert_code(2);
    assert!(refused.stderr.contains("is a clone"), "{refused}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
