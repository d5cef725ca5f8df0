//! Random checking from outside: against an array with devices, on QEMU, over HTTPS.

use crate::support::{Attach, Home, Server, left_out, loops_work, on_path, tail, until};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A short campaign on the array of `server`.
fn check(server: &Server, flags: &[&str]) -> Vec<String> {
    let flags = [&["--region", "16MiB", "--output", "jsonl"], flags].concat();
    server.target().args(&["check"], &flags)
}

fn qemu_works() -> bool {
    let works = on_path("qemu-storage-daemon") && on_path("qemu-img");
    if !works {
        left_out("there is no qemu-storage-daemon");
    }
    works
}

fn last(lines: &[Value]) -> &Value {
    lines.last().unwrap()
}

/// The second judge finds the same in what was recorded of a finding.
fn judged_again(home: &Home, finding: &Value) {
    let events = format!("{}/events.jsonl", finding["path"].as_str().unwrap());
    let judged = home.run(&["replay", "--judge", &events], None);
    judged.assert_code(1);
    assert!(judged.stdout.contains(finding["kind"].as_str().unwrap()), "{judged}");
    assert!(judged.stdout.contains("agrees with the recording"), "{judged}");
}

/// The script for people without this program comes to the same.
fn by_hand(home: &Home, server: &Server, finding: &Value, wanted: i32) {
    if !on_path("curl") || !on_path("blkdiscard") {
        return left_out("there is no curl or no blkdiscard");
    }
    let (source, target) = (server.volume(0, "uuid"), server.volume(1, "uuid"));
    let mut script = Command::new("sh")
        .arg(format!("{}/repro.sh", finding["path"].as_str().unwrap()))
        .current_dir(home.path())
        .env("LBAUDIT_ENDPOINT", server.text("endpoint"))
        .env("LIGHTBITS_JWT", &server.token)
        .env("CURL_OPTIONS", "--insecure")
        .envs([("SOURCE_UUID", &source), ("SOURCE_DEVICE", &server.volume(0, "device"))])
        .envs([("TARGET_UUID", &target), ("TARGET_DEVICE", &server.volume(1, "device"))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let consent = format!("{}\n{}\n", tail(&source), tail(&target));
    script.stdin.take().unwrap().write_all(consent.as_bytes()).unwrap();
    let done = script.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(wanted), "{said}");
    assert!(!said.contains(&server.token), "{said}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{said}");
}

#[test]
fn an_honest_array_is_clean_and_no_snapshot_is_left() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let run = home.run(&check(&server, &["--cases", "8", "--seed", "1"]), Some(&server.token));
    run.assert_code(0);
    let lines = run.json();
    assert_eq!(lines[0]["target"], "lightbits", "{run}");
    assert_eq!(lines[0]["profile"], "live", "{run}");
    assert_eq!(last(&lines)["cases"], 8, "{run}");
    assert_eq!(last(&lines)["violations"], 0, "{run}");
    assert!(last(&lines)["diffs"].as_u64().unwrap() > 8, "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    home.assert_no_file_holds(&server.token);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn planted_bugs_of_an_array_are_found_shrunk_and_seen_again_by_the_printed_command() {
    if !loops_work() {
        return;
    }
    for bug in ["discard-untracked", "bit63-dropped"] {
        let home = Home::new();
        let server = Server::start(&home, Attach::Loop, &["--plant", bug]);
        let flags = ["--cases", "60", "--seed", "1", "--shrink-time", "20s"];
        let run = home.run(&check(&server, &flags), Some(&server.token));
        run.assert_code(1);
        let lines = run.json();
        let finding = lines.iter().find(|line| line["event"] == "finding").unwrap();
        assert_eq!(finding["kind"], "missed", "{run}");
        assert!(finding["operations"].as_u64() < finding["operations_before"].as_u64(), "{run}");
        assert_eq!(finding["reproduced"], "3/3", "{run}");
        assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
        judged_again(&home, finding);
        by_hand(&home, &server, finding, 1);
        let trace = format!("{}/repro.jsonl", finding["path"].as_str().unwrap());
        let again = check(&server, &["--scenario", &trace]);
        let again = home.run(&again, Some(&server.token));
        again.assert_code(1);
        assert_eq!(last(&again.json())["cases"], 1, "{again}");
        server.stop(Signal::TERM);
        home.assert_nothing_left();
    }
}

#[test]
fn without_consent_or_with_flags_that_do_not_fit_nothing_is_done() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let target = server.target();
    let run = |args: &[String]| home.run(args, Some(&server.token));
    let unasked = run(&target.reading().args(&["check"], &["--cases", "1"]));
    unasked.assert_code(2);
    assert!(unasked.stderr.contains("--destroy"), "{unasked}");
    for (flags, word) in [
        (&["--plant", "bit63-dropped"][..], "sim serve --plant"),
        (&["--jobs", "2"], "one case runs at a time"),
        (&["--profile", "bounds"], "take live"),
        (&["--region", "4MiB"], "8MiB"),
        (&["--region", "5000"], "256KiB"),
        (&["--region", "64MiB", "--region-at", "1TiB"], "give a larger volume"),
        (&["--backend", "qemu"], "--backend"),
        (&["--transport", "http"], "--transport"),
    ] {
        let refused = run(&target.args(&["check"], flags));
        refused.assert_code(2);
        assert!(refused.stderr.contains(word), "{word}: {refused}");
    }
    for flag in ["--region", "--region-at", "--snapshot-timeout", "--scenario"] {
        let value = if flag == "--snapshot-timeout" { "5s" } else { "64MiB" };
        let refused = home.run(&["check", flag, value], None);
        refused.assert_code(2);
        assert!(refused.stderr.contains("--endpoint"), "{refused}");
    }
    assert_eq!(server.api().snapshot_names(), [""; 0]);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_on_an_array_deletes_every_snapshot_within_ten_seconds() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let args = check(&server, &["--duration", "120s", "--seed", "1"]);
    let mut run = home.start(&args, Some(&server.token));
    // The handshake takes six; more come only with the first cases.
    let mut seen = std::collections::BTreeSet::new();
    until("cases take snapshots", Duration::from_secs(60), || {
        assert!(!run.has_ended(), "the run ended too soon");
        seen.extend(server.api().snapshot_names());
        (seen.len() > 8 && !server.api().snapshot_names().is_empty()).then_some(())
    });
    let pressed = Instant::now();
    run.signal(Signal::INT);
    let run = run.finish();
    run.assert_code(130);
    assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn qemu_is_clean_and_its_non_atomic_cut_is_found() {
    if !qemu_works() {
        return;
    }
    let home = Home::new();
    let flags = ["check", "--seed", "1", "--output", "jsonl", "--shrink-time", "20s"];
    let run = home.run(&[&flags[..], &["--backend", "qemu", "--cases", "12"]].concat(), None);
    run.assert_code(0);
    let lines = run.json();
    assert_eq!((&lines[0]["target"], &last(&lines)["cases"]), (&"qemu".into(), &12.into()));
    let racing = [&flags[..], &["--backend", "qemu-nonatomic", "--cases", "300"]].concat();
    let run = home.run(&racing, None);
    run.assert_code(1);
    let lines = run.json();
    let finding = lines.iter().find(|line| line["event"] == "finding").unwrap();
    assert_eq!(finding["kind"], "missed", "{run}");
    judged_again(&home, finding);
    home.assert_nothing_left();
}

#[test]
fn ctrl_c_on_qemu_leaves_no_daemon_and_a_missing_one_is_said() {
    let home = Home::new();
    let missing = ["check", "--backend", "qemu", "--qsd", "/nowhere/qemu-storage-daemon"];
    let missing = home.run(&missing, None);
    missing.assert_code(3);
    assert!(missing.stderr.contains("/nowhere/qemu-storage-daemon"), "{missing}");
    if !qemu_works() {
        return;
    }
    let mut run = home.start(&["soak", "--backend", "qemu", "--seed", "1"], None);
    until("a daemon runs", Duration::from_secs(60), || {
        assert!(!run.has_ended(), "the run ended too soon");
        (!home.left_behind().iter().all(|left| left.contains("lbaudit"))).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    let pressed = Instant::now();
    run.signal(Signal::INT);
    let run = run.finish();
    run.assert_code(130);
    assert!(pressed.elapsed() < Duration::from_secs(10), "{run}");
    home.assert_nothing_left();
}

#[test]
fn cases_over_https_have_the_same_digest_on_any_number_of_threads() {
    let home = Home::new();
    let digest = |flags: &[&str]| {
        let flags = [&["check", "--seed", "1", "--output", "jsonl"], flags].concat();
        let run = home.run(&flags, None);
        run.assert_code(0);
        let lines = run.json();
        (last(&lines)["digest"].clone(), last(&lines)["operations"].clone(), lines[0].to_string())
    };
    for flags in [&["--transport", "http", "--cases", "24"][..], &["--cases", "2001"]] {
        let one = digest(&[flags, &["--jobs", "1"]].concat());
        let three = digest(&[flags, &["--jobs", "3"]].concat());
        assert_eq!((&one.0, &one.1), (&three.0, &three.1), "{flags:?}");
        assert!(flags.len() > 2 || one.2.contains("1 case in 2000"), "it is said: {}", one.2);
    }
    let none = digest(&["--cases", "2001", "--transport", "inproc"]);
    assert!(!none.2.contains("2000"), "{}", none.2);
    assert_ne!(none.0, digest(&["--cases", "2001"]).0, "two cases go over the wire");
}

#[test]
fn coverage_speaks_only_of_what_the_cases_can_reach() {
    let home = Home::new();
    for (flags, goals, words) in [
        (&["--cases", "200"][..], 48, &[][..]),
        (&["--cases", "200", "--profile", "bounds"], 42, &["sync", "read"]),
        (&["--cases", "200", "--policy", "exact"], 47, &["reports whole chunks"]),
        (&["--cases", "8", "--transport", "http"], 29, &["kill", "rollback", "resize", "clone"]),
    ] {
        let run = home.run(&[&["check", "--seed", "1"], flags].concat(), None);
        run.assert_code(0);
        let said: Vec<&str> =
            run.stdout.lines().skip_while(|line| !line.starts_with("coverage (")).collect();
        assert!(said[0].contains(&format!(" of {goals} goals, ")), "{run}");
        for line in said.iter().filter(|line| line.starts_with("  ")) {
            assert!(!words.iter().any(|word| line.contains(word)), "{line}: {run}");
        }
    }
}
