//! Random checking of an array whose snapshots are read through clones.

use crate::support::{Attach, Home, Running, Server, loops_work, one_that_cleans, until};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

const VOLUMES: [&str; 2] = ["vol-dst", "vol-src"];

fn check(server: &Server, flags: &[&str]) -> Vec<String> {
    let always = ["--region", "16MiB", "--clones", "--seed", "1", "--output", "jsonl"];
    server.target().args(&["check"], &[&always[..], flags].concat())
}

/// Starts a long campaign and waits until it has a clone.
fn one_with_a_clone(home: &Home, server: &Server) -> Running {
    let mut run = home.start(&check(server, &["--duration", "200s"]), Some(&server.token));
    until("a clone is there", Duration::from_secs(90), || {
        assert!(!run.has_ended(), "the run ended too soon");
        (server.api().volume_names().len() > VOLUMES.len()).then_some(())
    });
    run
}

#[test]
fn an_honest_array_is_clean_through_clones_and_none_of_them_is_left() {
    if !loops_work() {
        return;
    }
    for attach in [Attach::Loop, Attach::Fuse] {
        let home = Home::new();
        let server = Server::start(&home, attach, &[]);
        let run = home.run(&check(&server, &["--cases", "6"]), Some(&server.token));
        run.assert_code(0);
        let lines = run.json();
        assert_eq!(lines[0]["profile"], "live-clones", "{run}");
        assert!(!lines[0]["notes"].to_string().contains("contents of snapshots"), "{run}");
        assert_eq!(lines.last().unwrap()["cases"], 6, "{run}");
        let journal = fs::read_to_string(home.runs()[0].join("journal.jsonl")).unwrap();
        assert!(journal.matches("cloned").count() >= 6, "snapshots were read: {journal}");
        assert_eq!(server.api().volume_names(), VOLUMES, "{run}");
        assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
        server.stop(Signal::TERM);
        home.assert_nothing_left();
    }
}

#[test]
fn a_snapshot_that_is_not_frozen_is_found_through_clones_and_by_nothing_else() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &["--plant", "snapshot-not-frozen"]);
    let flags = ["--cases", "30", "--shrink-time", "20s"];
    let run = home.run(&check(&server, &flags), Some(&server.token));
    run.assert_code(1);
    let lines = run.json();
    let finding = lines.iter().find(|line| line["event"] == "finding").unwrap();
    assert_eq!(finding["kind"], "content", "{run}");
    assert!(finding["operations"].as_u64() < finding["operations_before"].as_u64(), "{run}");
    assert_eq!(server.api().volume_names(), VOLUMES, "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    // As printed for the user: the same flags, and the scenario.
    let trace = format!("{}/repro.jsonl", finding["path"].as_str().unwrap());
    let again = home.run(&check(&server, &["--scenario", &trace]), Some(&server.token));
    again.assert_code(1);
    let without: Vec<String> = check(&server, &["--cases", "6", "--shrink-time", "20s"])
        .into_iter()
        .filter(|flag| flag != "--clones")
        .collect();
    home.run(&without, Some(&server.token)).assert_code(0);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_deletes_clones_with_their_snapshots_and_clean_those_of_a_killed_run() {
    if !loops_work() {
        return;
    }
    let _alone = one_that_cleans();
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let target = server.target().reading();
    let clean = |flags: &[&str]| home.run(&target.args(&["clean"], flags), Some(&server.token));
    let run = one_with_a_clone(&home, &server);
    let pressed = Instant::now();
    run.signal(Signal::INT);
    let run = run.finish();
    run.assert_code(130);
    assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
    assert_eq!(server.api().volume_names(), VOLUMES, "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    let nothing = clean(&[]);
    nothing.assert_code(0);
    assert!(nothing.stdout.contains("nothing is left of earlier runs"), "{nothing}");

    let run = one_with_a_clone(&home, &server);
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code, None, "it had no chance");
    let left = server.api().volume_names();
    assert!(left.len() > VOLUMES.len(), "{left:?}");
    let listed = clean(&[]);
    listed.assert_code(0);
    for name in left.iter().filter(|name| !VOLUMES.contains(&name.as_str())) {
        assert!(listed.stdout.contains(name.as_str()), "{name}: {listed}");
    }
    clean(&["--yes"]).assert_code(0);
    assert_eq!(server.api().volume_names(), VOLUMES);
    assert_eq!(server.api().snapshot_names(), [""; 0]);
    assert!(clean(&[]).stdout.contains("nothing is left of earlier runs"));
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
