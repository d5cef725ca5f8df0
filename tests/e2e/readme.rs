//! The README's commands, each run as it stands there, but for placeholders and for how long it takes.
//!
//! What CI runs word for word is not run again here; that CI does is looked up. Not covered: commands of
//! other programs (cargo, Slurm, Kubernetes, packages), which CI or nobody runs; `Limits` in the README
//! says which.

use crate::support::{Attach, Home, Server, left_out, loops_work, until};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What `.ci/run` takes out of the README and runs.
const IN_CI: [&str; 8] = [
    "lbaudit replay regressions/",
    "lbaudit selftest",
    "lbaudit selftest --fixed",
    "lbaudit selftest --faults --quick",
    "lbaudit selftest --faults --pairs 500",
    "lbaudit suite --plant bit63-dropped",
    "target/release/lbaudit sim serve --attach loop",
    // In CI as steps of their own, with the same flags.
    "lbaudit check --seed 1 --cases 200000",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README's command lines that begin with this program, without comments; continued lines joined.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).unwrap().replace("\\\n", "");
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
            continue;
        }
        let line = line.split("  #").next().unwrap_or(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours = matches!(words.first(), Some(&"lbaudit" | &"target/release/lbaudit"));
        // The first line of a screen begins with the version.
        if inside && ours && !line.starts_with("lbaudit 0") {
            found.push(words.join(" "));
        }
    }
    found
}

/// A run with findings, for the commands that look at one.
fn home_with_a_finding() -> Home {
    let home = Home::new();
    home.run(&["check", "--plant", "discard-untracked", "--seed", "1"], None).assert_code(1);
    home
}

/// Runs a line to its end, or until it has done something if it goes on for hours.
fn run(home: &Home, line: &str, codes: &[i32]) {
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let mut running = home.start(&words, None);
    let lasting = line.contains("soak") && !line.contains("--cases");
    if lasting {
        let checkpoint = home.path().join("lbaudit-runs/latest/checkpoint.json");
        let began = std::time::Instant::now();
        until("cases", Duration::from_secs(60), || {
            let some =
                fs::read_to_string(&checkpoint).is_ok_and(|it| !it.contains("\"cases\": 0,"));
            (running.has_ended() || (some && began.elapsed() > Duration::from_secs(2)))
                .then_some(())
        });
        running.signal(Signal::INT);
    }
    let done = running.finish();
    let code = done.code.unwrap_or(-1);
    assert!(codes.contains(&code), "{line}: exit {code}\n{done}");
}

#[test]
fn every_command_of_the_readme_is_run_here_or_in_ci() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let home = home_with_a_finding();
    let mut unknown = Vec::new();
    let mut ran = 0;
    for line in commands() {
        if IN_CI.contains(&line.as_str()) {
            let words = line.split(' ').take(3).collect::<Vec<_>>().join(" ");
            let named = ci.contains(&words) || ci.contains("random_checking 200000");
            assert!(named, "CI does not run {line}");
            continue;
        }
        let codes: &[i32] = match line.as_str() {
            "lbaudit check" | "lbaudit list profiles" | "lbaudit list bugs" => &[0],
            "lbaudit list faults" | "lbaudit runs list" | "lbaudit runs show latest" => &[0],
            "lbaudit runs trend" | "lbaudit report latest" | "lbaudit replay g1:1:17" => &[0],
            "lbaudit selftest --oracle" => &[0],
            "target/release/lbaudit clean" | "target/release/lbaudit clean --yes" => continue,
            "lbaudit check --plant bit63-dropped" => &[1],
            "lbaudit replay lbaudit-runs/latest/finding-1/repro.jsonl"
            | "lbaudit replay --judge lbaudit-runs/latest/finding-1/events.jsonl" => {
                // `latest` is another run by now: this one has a finding again.
                run(&home, "lbaudit check --plant discard-untracked --seed 1", &[1]);
                &[1]
            }
            other if other.contains("--shard") || other.contains("runs prune") => &[0],
            "lbaudit runs merge host-0 host-1" => &[0],
            other if other.starts_with("lbaudit soak") => &[130],
            other if other.contains(" FILE") => {
                let found = "lbaudit-runs/latest/finding-1/repro.jsonl";
                run(&home, "lbaudit check --plant discard-untracked --seed 1", &[1]);
                let other = other.replace("--shrink-time 10m", "--shrink-time 5s");
                let kept = if other.contains("--record") { "kept.jsonl" } else { found };
                // A recorded case passes, a shrunk one shows its violation.
                run(&home, &other.replace("FILE", kept), &[0, 1]);
                ran += 1;
                continue;
            }
            // Placeholders of an array: the next tests, and CI with a second process.
            other if other.contains("--endpoint") || other.contains("sim serve") => continue,
            other if other.starts_with("lbaudit explore") => {
                // Deeper takes minutes; the full CI goes all the way.
                run(&home, &format!("{other} --depth 2"), &[0, 1]);
                ran += 1;
                continue;
            }
            other => {
                unknown.push(other.to_owned());
                continue;
            }
        };
        run(&home, &line, codes);
        ran += 1;
    }
    assert_eq!(unknown, Vec::<String>::new(), "commands that nobody runs");
    assert!(ran >= 20, "{ran} commands");
}

#[test]
fn the_readmes_audit_and_faulty_server_work_on_an_array() {
    let lines = commands();
    let audits: Vec<&String> = lines.iter().filter(|line| line.contains("lbaudit audit")).collect();
    assert_eq!(audits.len(), 2, "{audits:?}");
    assert!(lines.iter().any(|line| line.contains("sim serve --fault truncated-json@diff:2")));
    if !loops_work() {
        return left_out("no loop devices");
    }
    let home = Home::new();
    let faults = ["--fault", "truncated-json@diff:2", "--fault", "data:eio-write@target:10+"];
    Server::start(&home, Attach::Loop, &faults).stop(Signal::TERM);
    let server = Server::start(&home, Attach::Loop, &["--preload", "random:1"]);
    for line in audits {
        let flags: Vec<&str> = line
            .split(' ')
            .skip_while(|word| *word != "UUID")
            .skip(1)
            .map(|word| if word == "10m" { "1s" } else { word })
            .collect();
        let target = server.target().reading();
        let endpoint = target.args(&["audit"], &flags);
        // The README names the source alone.
        let drop = ["--target-uuid", "--target-device", "--source-device"];
        let mut args: Vec<String> = Vec::new();
        let mut words = endpoint.into_iter();
        while let Some(word) = words.next() {
            if drop.contains(&word.as_str()) {
                words.next();
            } else {
                args.push(word);
            }
        }
        let done = home.run(&args, Some(&server.token));
        // One snapshot alone has nothing that it can be held against.
        assert!(matches!(done.code, Some(0 | 3)), "{line}: {done}");
    }
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
