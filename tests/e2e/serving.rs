//! `sim serve`, `doctor` and `clean` of what a killed server left on this machine.

use crate::support::{
    Api, Attach, Home, Idle, Server, fuse_works, loops_work, on_path, one_that_cleans, until,
};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

#[test]
fn a_server_leaves_nothing_after_either_signal() {
    for (attach, works) in [(Attach::Fuse, fuse_works()), (Attach::Loop, loops_work())] {
        if !works {
            continue;
        }
        for signal in [Signal::TERM, Signal::INT] {
            let home = Home::new();
            let server = Server::start(&home, attach, &["--size", "64MiB", "--neighbour"]);
            for (index, (role, name)) in
                [("source", "vol-src"), ("target", "vol-dst"), ("neighbour", "vol-neighbour")]
                    .into_iter()
                    .enumerate()
            {
                assert_eq!(server.volume(index, "role"), role);
                assert_eq!(server.volume(index, "name"), name);
                let kind = fs::metadata(server.device(index)).unwrap().file_type();
                assert_eq!(kind.is_block_device(), attach == Attach::Loop);
                assert_eq!(kind.is_file(), attach == Attach::Fuse);
            }
            for secret in ["jwt_file", "ca_file"] {
                let mode = fs::metadata(server.text(secret)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{secret}");
            }
            assert!(!home.left_behind().is_empty(), "while it runs, there is something");
            server.stop(signal);
            home.assert_nothing_left();
        }
    }
}

#[test]
fn what_a_killed_server_left_is_listed_and_removed_by_clean() {
    for (attach, works) in [(Attach::Fuse, fuse_works()), (Attach::Loop, loops_work())] {
        if !works {
            continue;
        }
        let _alone = one_that_cleans();
        let home = Home::new();
        let server = Server::start(&home, attach, &["--size", "64MiB"]);
        let pid = server.pid();
        server.kill();
        let mount = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let ours = |line: &&str| line.contains(&format!("lbaudit-sim-{pid} "));
            mounts.lines().find(ours).map(|line| line.split(' ').nth(4).unwrap().to_owned())
        };
        let point = mount().expect("the mount outlives its server");
        let listed = home.run(&["clean"], None);
        listed.assert_code(0);
        assert!(listed.stdout.contains(&point), "{listed}");
        assert!(mount().is_some(), "only listed");
        let removed = home.run(&["clean", "--yes"], None);
        removed.assert_code(0);
        assert!(removed.stdout.contains(&format!("{point}  deleted")), "{removed}");
        assert_eq!(mount(), None);
        assert!(!Path::new(&point).exists());
        // Certificate and token of the killed server stay: they are nobody's secret any more.
        until("the loop devices are free", Duration::from_secs(10), || {
            let left = home.left_behind();
            left.iter().all(|what| what.contains("lbaudit-serve-")).then_some(())
        });
    }
}

#[test]
fn doctor_looks_at_everything_and_writes_nothing() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let api = server.api();
    let idle = Idle::since_now(&api, [server.volume(0, "uuid"), server.volume(1, "uuid")]);
    let args = server.target().reading().args(&["doctor"], &["--output", "jsonl"]);
    let run = home.run(&args, Some(&server.token));
    run.assert_code(0);
    let lines = run.json();
    assert_eq!(lines.last().unwrap()["event"], "doctor_finished");
    assert_eq!(lines.last().unwrap()["failed"], 0, "{run}");
    idle.assert_untouched("doctor");

    let mut swapped = server.target().reading();
    std::mem::swap(&mut swapped.source_device, &mut swapped.target_device);
    let run = home.run(&swapped.args(&["doctor"], &[]), Some(&server.token));
    run.assert_code(2);
    assert!(run.stdout.contains("a run would be refused"), "{run}");
    assert!(home.runs().is_empty());
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn a_token_of_another_server_opens_nothing() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", "64MiB"]);
    let other = Server::start(&home, Attach::Fuse, &["--size", "64MiB"]);
    assert_ne!(server.token, other.token);
    assert_ne!(server.text("pin_sha256"), other.text("pin_sha256"));
    let args = server.target().reading().args(&["clean"], &[]);
    let run = home.run(&args, Some(&other.token));
    run.assert_code(3);
    assert!(run.stderr.contains("401"), "{run}");
    assert_eq!(
        Api::new(&server.text("endpoint"), "default", &server.token).snapshot_names(),
        [""; 0]
    );
    other.stop(Signal::TERM);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn a_diff_of_the_command_line_shows_what_was_written() {
    if !fuse_works() || !on_path("dd") {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", "64MiB"]);
    let (api, volume) = (server.api(), server.volume(0, "uuid"));
    let before = api.take(&volume, "before");
    let file = fs::OpenOptions::new().write(true).open(server.device(0)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![1; 3 * 4096], 5 * 4096).unwrap();
    drop(file);
    let after = api.take(&volume, "after");
    let what = ["--snapshot", &after, "--base", &before, "--output", "jsonl"];
    let run = home.run(&server.target().reading().args(&["diff"], &what), Some(&server.token));
    run.assert_code(0);
    let lines = run.json();
    assert_eq!(lines.last().unwrap()["lbas"], 3, "{run}");
    assert_eq!(lines.last().unwrap()["ranges"], 1, "{run}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
