//! Long runs from outside: killed and gone on with, in shards, on an array that is unwell, and what
//! they tell others meanwhile.

use crate::support::{Attach, Home, Server, loops_work, on_path, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn checkpoint(home: &Home, below: &str) -> Option<Value> {
    let path = home.path().join(below).join("checkpoint.json");
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What is the same for one campaign however it was run: cases, digest, and each finding.
fn essence(home: &Home, below: &str) -> Value {
    let kept = checkpoint(home, below).unwrap();
    let totals = &kept["so_far"]["totals"];
    assert_eq!(totals["unknown"], 0, "{kept}");
    let mut findings = kept["findings"].clone();
    for finding in findings.as_array_mut().unwrap() {
        let folder = home.path().join(below).join(format!("finding-{}", finding["number"]));
        let repro = fs::read_to_string(folder.join("repro.jsonl")).unwrap();
        finding["repro"] = repro.into();
    }
    let coverage = fs::read(home.path().join(below).join("coverage.json")).unwrap();
    let coverage: Value = serde_json::from_slice(&coverage).unwrap();
    serde_json::json!([totals["cases"], totals["ops"], totals["digest"], findings, coverage])
}

fn soak<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["soak", "--seed", "9", "--plant", "bit63-dropped", "--progress", "none"], flags].concat()
}

#[test]
fn a_soak_killed_five_times_ends_as_one_that_was_not() {
    let home = Home::new();
    let (cases, runs) = ("2500", "lbaudit-runs/latest");
    home.run(&soak(&["--cases", cases, "--jobs", "1", "--run-dir", "whole"]), None).assert_code(1);
    let mut run = home.start(&soak(&["--cases", cases, "--jobs", "2"]), None);
    let mut done = 0;
    for kill in 0..5 {
        let more = until("more cases", PATIENCE, || {
            let kept = checkpoint(&home, runs)?;
            let cases = kept["so_far"]["totals"]["cases"].as_u64()?;
            assert!(kept["exit_code"].is_null(), "it ended before it was killed: {kept}");
            (cases > done).then_some(cases)
        });
        assert!(more >= done, "a case was forgotten");
        done = more;
        run.signal(Signal::KILL);
        run.finish();
        let jobs = if kill % 2 == 0 { "1" } else { "2" };
        let resume = ["soak", "--resume", "latest", "--jobs", jobs, "--progress", "none"];
        run = home.start(&resume, None);
        // Until then `latest` is the run that was killed.
        until("the next run's folder", PATIENCE, || {
            (home.runs().len() == kill + 2 && checkpoint(&home, runs).is_some()).then_some(())
        });
    }
    let run = run.finish();
    run.assert_code(1);
    assert!(run.stderr.contains("goes on after"), "{run}");
    assert_eq!(essence(&home, runs), essence(&home, "whole/latest"), "{run}");
    let listed = home.run(&["runs", "list", "--output", "jsonl"], None).json();
    let states: Vec<&str> = listed.iter().filter_map(|line| line["state"].as_str()).collect();
    // Runs of one second are listed in the order of their ids.
    let (gone_on, others): (Vec<&str>, Vec<&str>) =
        states.iter().partition(|state| state.starts_with("goes on as "));
    assert_eq!((gone_on.len(), others), (5, vec!["ended"]), "{states:?}");
    home.assert_nothing_left();
}

#[test]
fn shards_are_merged_to_what_one_host_does() {
    let home = Home::new();
    let cases = ["--cases", "900"];
    home.run(&soak(&[&cases[..], &["--run-dir", "whole"]].concat()), None).assert_code(1);
    for shard in ["0/3", "1/3", "2/3"] {
        let folder = format!("host-{}", &shard[..1]);
        let flags = [&cases[..], &["--shard", shard, "--run-dir", &folder]].concat();
        home.run(&soak(&flags), None);
    }
    let merge = |hosts: &[&str]| home.run(&[&["runs", "merge"], hosts].concat(), None);
    let merged = merge(&["host-0", "host-1", "host-2"]);
    merged.assert_code(1);
    let (one, other) = (essence(&home, "lbaudit-runs/latest"), essence(&home, "whole/latest"));
    assert_eq!(one, other, "{merged}");
    let lacking = merge(&["host-0", "host-2"]);
    assert!(lacking.stderr.contains("shard 1/3 is missing"), "{lacking}");
    let others = merge(&["host-0", "whole"]);
    others.assert_code(2);
    assert!(others.stderr.contains("not of one campaign"), "{others}");
    // An engine retried a shard: the run that did more counts, and no case twice.
    home.run(&soak(&["--cases", "300", "--shard", "1/3", "--run-dir", "host-1"]), None);
    merge(&["host-0", "host-1", "host-2"]).assert_code(1);
    let again = essence(&home, "lbaudit-runs/latest");
    assert_eq!(again, essence(&home, "whole/latest"));
    let none = merge(&["tmp"]);
    none.assert_code(2);
    assert_eq!(home.runs().len(), 3, "what is refused makes no run");
    home.assert_nothing_left();
}

#[test]
fn a_run_whose_folder_is_as_large_as_it_may_be_ends_and_says_so() {
    let home = Home::new();
    let flags = ["--duration", "100s", "--max-disk", "1KiB", "--seed", "1"];
    for (plant, code) in [(&[][..], 3), (&["--plant", "bit63-dropped"], 1)] {
        let run = home.run(&[&["soak"][..], &flags, plant].concat(), None);
        run.assert_code(code);
        assert!(run.took < Duration::from_secs(60), "{run}");
        assert!(run.to_string().contains("as many as --max-disk allows"), "{run}");
    }
    home.assert_nothing_left();
}

#[test]
fn only_the_same_cases_are_gone_on_with() {
    let home = Home::new();
    let run = |flags: &[&str]| home.run(flags, None);
    run(&["soak", "--cases", "64", "--seed", "1"]).assert_code(0);
    for (flags, word) in [
        (&["--plant", "bit63-dropped"][..], "plant is bit63-dropped here"),
        (&["--seed", "2"], "seed is 2 here and 1 there"),
        (&["--shard", "0/2"], "shard is 0/2 here"),
        (&["--profile", "bounds"], "profile is bounds here"),
    ] {
        let refused = run(&[&["soak", "--resume", "latest"], flags].concat());
        refused.assert_code(2);
        assert!(refused.stderr.contains(word), "{word}: {refused}");
        assert_eq!(home.runs().len(), 1, "what is refused leaves no run: {refused}");
    }
    let more = run(&["soak", "--resume", "latest", "--cases", "200", "--output", "jsonl"]);
    more.assert_code(0);
    assert_eq!(more.json().last().unwrap()["cases"], 200, "{more}");
    run(&["check", "--resume", "latest"]).assert_code(2);
    run(&["soak", "--resume", "nothing"]).assert_code(2);
    run(&["soak", "--shard", "4/4"]).assert_code(2);
    run(&["soak", "--shard", "auto"]).assert_code(2);
}

#[test]
fn a_long_run_tells_others_how_far_it_is() {
    let home = Home::new();
    let found = home.path().join("found");
    let command = format!("tee {}", found.display());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = port.to_string();
    let told = ["--metrics-file", "lbaudit.prom", "--metrics-listen", &listen];
    let flags = [&["--duration", "300s", "--on-finding", &command], &told[..]].concat();
    let mut run = home.start(&soak(&flags), Some("a.secret-token.x"));
    let text = until("metrics with a finding", PATIENCE, || {
        assert!(!run.has_ended());
        let text = fs::read_to_string(home.path().join("lbaudit.prom")).ok()?;
        text.contains("lbaudit_findings{kind=\"missed\"}").then_some(text)
    });
    assert!(text.contains("lbaudit_run_info{run=\""), "{text}");
    let mut scraper = TcpStream::connect(port).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut scraped = String::new();
    scraper.read_to_string(&mut scraped).unwrap();
    assert!(scraped.contains("# TYPE lbaudit_cases counter\n"), "{scraped}");
    assert!(scraped.ends_with("# EOF\n"), "{scraped}");
    let finding: Value = serde_json::from_slice(&fs::read(&found).unwrap()).unwrap();
    assert_eq!((&finding["event"], &finding["kind"]), (&"finding".into(), &"missed".into()));
    run.signal(Signal::USR1);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!run.has_ended(), "SIGUSR1 ends nothing");
    run.signal(Signal::INT);
    let run = run.finish();
    run.assert_code(130);
    assert!(run.stderr.contains("cases ") && run.stderr.contains(" s ago)"), "{run}");
    let kept = fs::read_to_string(home.path().join("lbaudit-runs/latest/metrics.prom")).unwrap();
    assert!(kept.contains("lbaudit_exit_code 130"), "{kept}");
    home.assert_nothing_left();
}

#[test]
fn old_runs_are_listed_packed_and_pruned_but_not_those_that_matter() {
    let home = Home::new();
    home.run(&["soak", "--cases", "64", "--seed", "1"], None).assert_code(0);
    // Runs of one second lie in the order of their ids.
    std::thread::sleep(Duration::from_millis(1100));
    home.run(&soak(&["--cases", "300"]), None).assert_code(1);
    let runs = home.runs();
    let list = home.run(&["runs", "list"], None);
    assert_eq!(list.stdout.lines().count(), 3, "{list}");
    let show = home.run(&["runs", "show", "latest"], None);
    assert!(show.stdout.contains("finding-1: missed (data loss)"), "{show}");
    let trend = home.run(&["runs", "trend"], None);
    assert!(trend.stdout.contains("over-report"), "{trend}");
    if on_path("tar") {
        home.run(&["runs", "export", "latest", "run.tgz"], None).assert_code(0);
        home.run(&["runs", "export", "latest", "run.tgz"], None).assert_code(2);
        assert!(fs::metadata(home.path().join("run.tgz")).unwrap().len() > 1000);
    }
    let young = home.run(&["runs", "prune", "--yes"], None);
    assert!(young.stdout.contains("0 of 2 runs"), "{young}");
    let asked = home.run(&["runs", "prune", "--keep", "0"], None);
    assert!(asked.stdout.contains("may go") && asked.stdout.contains("stays"), "{asked}");
    assert_eq!(home.runs(), runs, "nothing goes before it is said so");
    home.run(&["runs", "prune", "--keep", "0", "--yes"], None).assert_code(0);
    assert_eq!(home.runs(), runs[1..], "what found something stays");
    home.run(&["runs", "prune", "--keep", "0", "--yes", "--findings"], None).assert_code(0);
    assert_eq!(home.runs(), Vec::<PathBuf>::new());
}

#[test]
fn an_array_that_is_unwell_is_waited_for_and_the_case_is_run_again() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    // A 403 is not asked again by the client: the case cannot be judged.
    let server = Server::start(&home, Attach::Loop, &["--fault", "status-403@diff:12"]);
    let flags = ["--region", "16MiB", "--output", "jsonl", "--cases", "4", "--seed", "3"];
    let slow = ["--audit-every", "2", "--max-live-snapshots", "3", "--max-requests-per-s", "500"];
    let args = server.target().args(&["soak"], &[&flags[..], &slow].concat());
    let run = home.run(&args, Some(&server.token));
    run.assert_code(0);
    let lines = run.json();
    let last = lines.last().unwrap();
    assert_eq!((&last["cases"], &last["unknown"]), (&4.into(), &0.into()), "{run}");
    assert!(run.stderr.contains("the target is unwell, pausing 5 s"), "{run}");
    assert!(run.stderr.contains("well again after 5 s"), "{run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    home.assert_no_file_holds(&server.token);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn a_soak_that_goes_on_on_an_array_deletes_what_the_killed_one_left_and_asks_for_consent_again() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    let flags = ["--region", "16MiB", "--cases", "9999", "--seed", "3", "--progress", "none"];
    let run = home.start(&server.target().args(&["soak"], &flags), Some(&server.token));
    until("cases and snapshots", PATIENCE, || {
        let kept = checkpoint(&home, "lbaudit-runs/latest")?;
        let some = kept["so_far"]["totals"]["cases"].as_u64()? > 1;
        (some && !server.api().snapshot_names().is_empty()).then_some(())
    });
    run.signal(Signal::KILL);
    run.finish();
    let left = server.api().snapshot_names().len();
    let refused = home.run(&["soak", "--resume", "latest"], Some(&server.token));
    refused.assert_code(2);
    assert!(refused.stderr.contains("--destroy"), "{refused}");
    let args = server.target().args(&["soak", "--resume", "latest"], &["--cases", "1"]);
    let resumed = home.run(&args, Some(&server.token));
    resumed.assert_code(0);
    // One may have come or gone while the run was being killed.
    assert!(
        left == 0 || resumed.stderr.contains("snapshots that the earlier run left"),
        "{resumed}"
    );
    assert_eq!(server.api().snapshot_names(), [""; 0], "{resumed}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

/// A finished run of 64 cases; its folder.
fn finished(home: &Home, flags: &[&str]) -> PathBuf {
    let always = ["soak", "--cases", "64", "--seed", "1"];
    home.run(&[&always[..], flags].concat(), None);
    home.runs().pop().unwrap()
}

#[test]
fn a_run_that_others_could_have_written_is_not_gone_on_with_and_no_command_is_taken_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let marker = home.path().join("was-run");
    let folder = finished(&home, &[]);
    let facts = fs::read_to_string(folder.join("run.json")).unwrap();
    let mut facts: Value = serde_json::from_str(&facts).unwrap();
    let words = facts["arguments"].as_array_mut().unwrap();
    words.extend(["--on-finding", &format!("touch {}", marker.display())].map(Value::from));
    words.extend(["--plant", "bit63-dropped"].map(Value::from));
    fs::write(folder.join("run.json"), facts.to_string()).unwrap();
    let resume = ["soak", "--resume", "latest", "--cases", "900"];
    for mode in [0o777, 0o770] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let refused = home.run(&resume, None);
        refused.assert_code(2);
        assert!(refused.stderr.contains("others can write it"), "{refused}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    // The plant of its command line is not that of its checkpoint.
    home.run(&resume, None).assert_code(2);
    let checkpoint = fs::read_to_string(folder.join("checkpoint.json")).unwrap();
    let with_plant =
        checkpoint.replacen("\"stream\": {", "\"stream\": {\"plant\":\"bit63-dropped\",", 1);
    assert_ne!(checkpoint, with_plant);
    fs::write(folder.join("checkpoint.json"), with_plant).unwrap();
    let resumed = home.run(&resume, None);
    resumed.assert_code(1);
    assert!(!marker.exists(), "{resumed}");
    home.assert_nothing_left();
}

#[test]
fn latest_is_a_run_that_can_be_gone_on_with_however_often_one_is_killed() {
    let home = Home::new();
    finished(&home, &["--plant", "bit63-dropped"]);
    for kill_ms in (0..140).step_by(7) {
        let resume = ["soak", "--resume", "latest", "--cases", "100000", "--progress", "none"];
        let run = home.start(&resume, None);
        std::thread::sleep(Duration::from_millis(kill_ms));
        run.signal(Signal::KILL);
        let run = run.finish();
        assert_eq!(run.code, None, "after {kill_ms} ms: {run}");
        assert!(!run.stderr.contains("cannot"), "after {kill_ms} ms: {run}");
    }
    let refused = home.run(&["soak", "--resume", "latest", "--seed", "2"], None);
    refused.assert_code(2);
    let done =
        checkpoint(&home, "lbaudit-runs/latest").unwrap()["so_far"]["totals"]["cases"].clone();
    let more = (done.as_u64().unwrap() + 1).to_string();
    home.run(&["soak", "--resume", "latest", "--cases", &more], None).assert_code(1);
    home.assert_nothing_left();
}

#[test]
fn old_runs_that_are_not_this_tools_or_hold_an_unlisted_finding_stay() {
    let home = Home::new();
    let folder = finished(&home, &[]);
    let root = folder.parent().unwrap();
    let photos = root.join("photos-2024-0000000000000002");
    let nobodys = root.join("20200101T000000Z-0000000000000003");
    for folder in [&photos, &nobodys] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a"), "b").unwrap();
    }
    // Killed over its first finding: no list knows of it.
    fs::create_dir(folder.join("unfinished-1")).unwrap();
    let prune = ["runs", "prune", "--keep", "0", "--yes"];
    let pruned = home.run(&prune, None);
    pruned.assert_code(0);
    assert!(photos.exists() && nobodys.exists() && folder.exists(), "{pruned}");
    fs::remove_dir(folder.join("unfinished-1")).unwrap();
    home.run(&prune, None).assert_code(0);
    assert!(photos.exists() && nobodys.exists() && !folder.exists());
    assert!(!root.join("latest").is_symlink(), "or to a run that is there");
    home.run(&["runs", "export", "tmp", "x.tgz"], None).assert_code(2);
}

#[test]
fn who_is_asked_to_stop_ends_although_findings_wait_to_be_looked_into() {
    let home = Home::new();
    let run = home.start(&soak(&["--duration", "300s", "--jobs", "2"]), None);
    until("a finding", PATIENCE, || {
        let kept = checkpoint(&home, "lbaudit-runs/latest")?;
        (!kept["findings"].as_array()?.is_empty()).then_some(())
    });
    run.signal(Signal::INT);
    let asked = std::time::Instant::now();
    let run = run.finish();
    run.assert_code(130);
    assert!(asked.elapsed() < Duration::from_secs(6), "{run}");
    let kept = checkpoint(&home, "lbaudit-runs/latest").unwrap();
    assert_eq!(kept["exit_code"], 130, "it ended by itself: {run}");
    assert!(home.path().join("lbaudit-runs/latest/report.html").exists(), "{run}");
    home.assert_nothing_left();
}

#[test]
fn shards_that_do_not_fit_or_were_cut_short_are_said() {
    let home = Home::new();
    home.run(&["soak", "--shard", "0/2", "--cases", "10"], None).assert_code(2);
    let shard = |shard: &str, cases: &str| {
        let flags = ["soak", "--seed", "1", "--shard", shard, "--cases", cases, "--run-dir", "s"];
        home.run(&flags, None).assert_code(0);
    };
    shard("0/2", "400");
    shard("1/2", "800");
    let merged = home.run(&["runs", "merge", "s"], None);
    merged.assert_code(3);
    assert!(merged.stderr.contains("was asked for 800 cases"), "{merged}");
    assert!(merged.stdout.contains("INCOMPLETE"), "{merged}");
    // One that cannot be read keeps no other from being merged.
    let broken = fs::read_dir(home.path().join("s")).unwrap().map(|entry| entry.unwrap().path());
    let broken = broken.filter(|path| !path.is_symlink()).min().unwrap();
    fs::write(broken.join("checkpoint.json"), "{").unwrap();
    let merged = home.run(&["runs", "merge", "s"], None);
    merged.assert_code(3);
    assert!(merged.stderr.contains("checkpoint.json"), "{merged}");
    let listed = home.run(&["runs", "list", "--run-dir", "s"], None);
    assert!(listed.stdout.contains("cannot be read"), "{listed}");
    home.assert_nothing_left();
}

/// The type of a field, as `list events` names it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "flag",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Why a line is not what an entry of the table says, if it is not.
fn differs(spec: &Value, line: &Value) -> Option<String> {
    let fields = spec["fields"].as_array().unwrap();
    for field in fields {
        let (name, value) =
            (field["name"].as_str().unwrap(), &line[field["name"].as_str().unwrap()]);
        let missing = value.is_null();
        let fits = [type_of(value), "any"].contains(&field["type"].as_str().unwrap());
        if (missing && field["optional"] != true) || (!missing && !fits) {
            return Some(format!("{name} is {}", type_of(value)));
        }
    }
    let known = |name: &str| {
        ["v", "event"].contains(&name) || fields.iter().any(|field| field["name"] == name)
    };
    // The facts for the second judge have fields of their own.
    let open = line["event"] == "record";
    let stranger = line.as_object().unwrap().keys().find(|name| !known(name) && !open);
    stranger.map(|name| format!("{name} is not in the table"))
}

#[test]
fn every_line_for_scripts_is_what_the_list_of_events_says() {
    use std::collections::BTreeSet;
    let home = Home::new();
    let table = home.run(&["list", "events", "--output", "jsonl"], None).json();
    let plant = ["--plant", "discard-untracked", "--seed", "1"];
    let check = |first: &str, more: &[&str]| [&[first][..], &plant, more].concat().join(" ");
    let mut lines = Vec::new();
    for (words, code) in [
        ("suite --in-process --test no_change_diff --test full_scan_accuracy".to_owned(), 0),
        (check("check", &[]), 1),
        ("replay lbaudit-runs/latest/finding-1/repro.jsonl".to_owned(), 1),
        ("replay --judge lbaudit-runs/latest/finding-1/events.jsonl".to_owned(), 1),
        (check("soak", &["--cases", "60", "--profile", "torn-cut", "--shard", "0/2"]), -1),
        ("runs list".to_owned(), 0),
        ("runs show latest".to_owned(), -1),
        ("runs prune --keep 0".to_owned(), 0),
        ("report".to_owned(), 0),
        ("doctor".to_owned(), -1),
        ("explore --depth 2".to_owned(), -1),
        ("clean".to_owned(), -1),
    ]
    .into_iter()
    .chain(
        ["tests", "bugs", "ops", "checks", "profiles", "faults", "guards", "events"]
            .map(|what| (format!("list {what}"), 0)),
    ) {
        let line = format!("{words} --output jsonl");
        let run = home.run(&line.split(' ').collect::<Vec<_>>(), None);
        if code >= 0 {
            run.assert_code(code);
        }
        lines.extend(run.json().into_iter().map(|json| (words.clone(), json)));
    }
    for folder in home.runs() {
        for at in ["events.jsonl", "finding-1/events.jsonl"] {
            let text = fs::read_to_string(folder.join(at)).unwrap_or_default();
            lines.extend(text.lines().map(|it| (at.to_owned(), serde_json::from_str(it).unwrap())));
        }
    }
    let mut seen = BTreeSet::new();
    for (from, line) in &lines {
        let name = line["event"].as_str().unwrap();
        let specs: Vec<&Value> = table.iter().filter(|spec| spec["name"] == name).collect();
        let why: Vec<String> = specs.iter().filter_map(|spec| differs(spec, line)).collect();
        assert!(why.len() < specs.len(), "{from}: {line}\n{why:?}");
        seen.insert(name);
    }
    for name in ["run_started", "finding", "run_finished", "progress", "test_finished", "record"] {
        assert!(seen.contains(name), "{seen:?}");
    }
    assert!(seen.len() > 25, "{seen:?}");
}
