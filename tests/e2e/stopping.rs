//! Ctrl-C, kill -9, and two runs at once.

use crate::support::{
    Attach, Home, Meddle, Proxy, Running, Server, When, fuse_works, loops_work, one_that_cleans,
    one_with_loops, until,
};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

/// Waits until the only run of `home` has begun to write for a test, after its handshake.
fn until_it_writes(home: &Home, run: &mut Running) {
    until("the run writes", Duration::from_secs(60), || {
        assert!(!run.has_ended(), "the run ended too soon");
        let events = fs::read_to_string(home.runs().first()?.join("events.jsonl")).ok()?;
        events.contains(r#""event":"wrote""#).then_some(())
    });
}

#[test]
fn ctrl_c_in_test_15_ends_in_ten_seconds_and_leaves_nothing() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let mut run = server.suite(&home, &["--test", "15"]);
    until_it_writes(&home, &mut run);
    assert!(!server.api().snapshot_names().is_empty(), "there is something to clean up");
    let pressed = Instant::now();
    run.signal(Signal::INT);
    let run = run.finish();
    run.assert_code(130);
    assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
    assert!(!run.stdout.contains("ALL PASSED"), "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    // The devices are free again at once.
    server.suite(&home, &["--test", "12"]).finish().assert_code(0);
    server.stop(Signal::INT);
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_on_the_embedded_simulator_takes_its_server_mounts_and_loops_away() {
    if !fuse_works() {
        return;
    }
    let _loops = one_with_loops();
    let home = Home::new();
    let mut run = home.start(&["suite", "--test", "pagination_stress"], None);
    until_it_writes(&home, &mut run);
    assert!(!home.left_behind().is_empty(), "it has a server and volumes");
    let pressed = Instant::now();
    run.signal(Signal::INT);
    run.finish().assert_code(130);
    assert!(pressed.elapsed() < Duration::from_secs(10));
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_while_the_array_is_mute_ends_in_ten_seconds_and_says_what_is_left() {
    if !fuse_works() {
        return;
    }
    let _alone = one_that_cleans();
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    for command in ["suite", "check", "soak"] {
        // Past the handshake, in which 50 calls are made.
        let proxy = Proxy::start(&server, Meddle::Mute, When::From(60));
        let mut target = server.target();
        (target.endpoint, target.pins) = (Some(proxy.endpoint.clone()), vec![proxy.pin.clone()]);
        let last: &[&str] = if command == "suite" { &["--test", "13"] } else { &["--seed", "5"] };
        let mut run = home.start(&target.args(&[command], last), Some(&server.token));
        until("the array falls silent", Duration::from_secs(60), || {
            assert!(!run.has_ended(), "the run ended too soon");
            (proxy.meddled() > 0).then_some(())
        });
        let pressed = Instant::now();
        run.signal(Signal::INT);
        let run = run.finish();
        run.assert_code(130);
        assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
        let left = server.api().snapshot_names();
        assert!(!left.is_empty(), "{command} could delete nothing: {run}");
        assert!(run.stderr.contains("lbaudit clean --yes"), "{run}");
        drop(proxy);
        let clean = |flags: &[&str]| {
            let args = server.target().reading().args(&["clean"], flags);
            home.run(&args, Some(&server.token))
        };
        let listed = clean(&[]);
        assert!(left.iter().all(|name| listed.stdout.contains(name.as_str())), "{listed}");
        clean(&["--yes"]).assert_code(0);
        assert_eq!(server.api().snapshot_names(), [""; 0]);
    }
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_while_a_device_stands_still_ends_in_ten_seconds_and_leaves_nothing() {
    if !fuse_works() {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    for attach in [Attach::Fuse].into_iter().chain(root.then_some(Attach::Loop)) {
        let home = Home::new();
        // Every operation from this one on takes seconds; the handshake has some sixty.
        let server = Server::start(&home, attach, &["--fault", "data:stall@source:90+"]);
        let mut run = server.suite(&home, &["--test", "15"]);
        until_it_writes(&home, &mut run);
        // Long enough to meet it.
        std::thread::sleep(Duration::from_secs(1));
        let pressed = Instant::now();
        run.signal(Signal::INT);
        let run = run.finish();
        run.assert_code(130);
        assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
        let told = run.stderr.contains("lbaudit clean --yes");
        assert!(told || server.api().snapshot_names().is_empty(), "gone, or said: {run}");
        server.stop(Signal::TERM);
        home.assert_nothing_left();
    }
}

#[test]
fn sigterm_ends_with_143_and_with_130_in_the_originals_form() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    for (first, code) in [(&["suite"][..], 143), (&[], 130)] {
        let home = Home::new();
        let args = server.target().args(first, &["--test", "15"]);
        let mut run = home.start(&args, Some(&server.token));
        until_it_writes(&home, &mut run);
        run.signal(Signal::TERM);
        run.finish().assert_code(code);
        assert_eq!(server.api().snapshot_names(), [""; 0]);
        home.assert_nothing_left();
    }
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn what_a_killed_run_left_is_listed_and_removed_by_clean() {
    if !fuse_works() {
        return;
    }
    let _alone = one_that_cleans();
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let api = server.api();
    let mut run = server.suite(&home, &["--test", "15"]);
    until_it_writes(&home, &mut run);
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code, None, "it had no chance");
    let left = api.snapshot_names();
    assert!(!left.is_empty());

    let target = server.target().reading();
    let clean = |flags: &[&str]| home.run(&target.args(&["clean"], flags), Some(&server.token));
    let listed = clean(&[]);
    listed.assert_code(0);
    assert!(left.iter().all(|name| listed.stdout.contains(name.as_str())), "{listed}");
    assert!(listed.stdout.contains("run ended"), "{listed}");
    assert_eq!(api.snapshot_names(), left, "only listed");
    let removed = clean(&["--yes"]);
    removed.assert_code(0);
    assert_eq!(api.snapshot_names(), [""; 0], "{removed}");
    assert!(clean(&[]).stdout.contains("nothing is left of earlier runs"));
    // A journal that cannot be read may name the only copy of somebody's blocks: also a pipe, which
    // nobody waits for.
    let journal = home.runs()[0].join("journal.jsonl");
    std::fs::remove_file(&journal).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&journal).status().unwrap().success());
    for flags in [&[][..], &["--yes"]] {
        let unread = clean(flags);
        unread.assert_code(4);
        assert!(!unread.stdout.contains("nothing is left"), "{unread}");
        assert!(unread.took < Duration::from_secs(20), "{unread}");
    }
    std::fs::remove_file(&journal).unwrap();
    server.suite(&home, &["--test", "12"]).finish().assert_code(0);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn the_embedded_server_does_not_outlive_a_killed_run() {
    if !fuse_works() {
        return;
    }
    let _loops = one_with_loops();
    let home = Home::new();
    let mut run = home.start(&["suite", "--test", "pagination_stress"], None);
    until_it_writes(&home, &mut run);
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code, None);
    until("the server takes everything away", Duration::from_secs(20), || {
        home.left_behind().is_empty().then_some(())
    });
}

#[test]
fn the_second_of_two_runs_on_one_pair_is_refused_and_the_first_unharmed() {
    if !loops_work() {
        return;
    }
    for attach in [Attach::Loop, Attach::Fuse] {
        let home = Home::new();
        let server = Server::start(&home, attach, &[]);
        let mut first = server.suite(&home, &["--test", "pagination_stress", "--test", "12"]);
        until_it_writes(&home, &mut first);
        let second = server.suite(&home, &["--test", "12"]).finish();
        assert!(!first.has_ended(), "the first still runs: {second}");
        second.assert_code(2);
        assert_eq!(second.stdout, "", "{second}");
        assert!(second.stderr.contains("refused G"), "{second}");
        assert!(second.stderr.contains(&format!("{}", first.pid())), "who has it: {second}");
        let first = first.finish();
        first.assert_code(0);
        assert!(first.verdict().starts_with("2/2 passed | ALL PASSED"), "{first}");
        server.stop(Signal::TERM);
        home.assert_nothing_left();
    }
}

#[test]
fn ctrl_c_ends_a_wait_for_the_token() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let pipe = home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display().to_string();
    for source in [["--jwt-file", &pipe], ["--jwt-command", "sleep 6"]] {
        let args = server.target().reading().args(&["doctor"], &source);
        let mut run = home.start(&args, None);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!run.has_ended(), "it waits for {source:?}");
        let asked = Instant::now();
        run.signal(Signal::INT);
        until("it ends", Duration::from_secs(3), || run.has_ended().then_some(()));
        assert!(asked.elapsed() < Duration::from_secs(3), "{source:?}");
        // The command still has its streams.
        run.finish().assert_code(130);
    }
    server.stop(Signal::TERM);
}
