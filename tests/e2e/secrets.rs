//! The token shows nowhere: not in help, in no process list, in no file of any command.

use crate::support::{
    Attach, Finished, HOSTILE, Home, Meddle, Proxy, Server, When, fuse_works, until,
};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

const COMMANDS: [&str; 16] = [
    "suite", "check", "soak", "explore", "replay", "shrink", "selftest", "doctor", "clean", "diff",
    "sync", "audit", "list", "explain", "sim", "",
];

#[test]
fn no_help_and_no_refusal_shows_the_token_of_the_environment() {
    let home = Home::new();
    let token = "eyJoZWxw.eyJjYW5hcnktb2YtaGVscCI6MX0.canary-signature-of-help";
    for command in COMMANDS {
        let words: Vec<&str> = [command, "--help"].into_iter().filter(|w| !w.is_empty()).collect();
        // What is printed is searched for the token when a run ends.
        home.run(&words, Some(token)).assert_code(0);
    }
    for wrong in [&["suite", "--no-such-flag"][..], &["suite", "--endpoint", "x"], &["nothing"]] {
        assert_eq!(home.run(wrong, Some(token)).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn every_command_on_an_array_keeps_the_token_out_of_its_files_and_of_the_process_list() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--plant", "bit63-dropped"]);
    let file = home.path().join("token");
    fs::write(&file, &server.token).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = ["--jwt-file", file.to_str().unwrap()];
    let (all, reading) = (server.target(), server.target().reading());
    let keep = ["--test", "1", "--keep-snapshots", "--junit", "lbaudit-runs/junit.xml"];
    for args in [
        all.args(&["suite"], &[&keep[..], &by_file].concat()),
        all.args(
            &["check"],
            &[&["--cases", "20", "--seed", "1", "--shrink-time", "3s"], &by_file[..]].concat(),
        ),
        reading.args(&["doctor"], &by_file),
        reading.args(&["clean"], &by_file),
    ] {
        let mut command = home.command(&args);
        command.env("LIGHTBITS_JWT", "");
        let mut run = crate::support::Running::spawn(command, Some(&server.token));
        let line = format!("/proc/{}/cmdline", run.pid());
        let seen =
            until("it shows in the process list or has ended", Duration::from_secs(30), || {
                let text = fs::read(&line).unwrap_or_default();
                (!text.is_empty() || run.has_ended()).then_some(text)
            });
        assert!(!String::from_utf8_lossy(&seen).contains(&server.token), "{args:?}");
        let run = run.finish();
        assert!(matches!(run.code, Some(0 | 1 | 4)), "{args:?}: {run}");
    }
    home.assert_no_file_holds(&server.token);
    // Other users of the machine cannot read what a run keeps.
    for folder in home.runs() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{}", entry.path().display());
        }
    }
    server.stop(Signal::TERM);
}

/// Asserts that a text holds nothing of [`HOSTILE`] that somebody obeys, and no token in capitals.
#[track_caller]
fn assert_harmless(what: &str, text: &str, token: &str) {
    for sign in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(!text.contains(sign), "{what} holds {sign:?}");
    }
    for part in token.split('.').skip(1) {
        assert!(!text.contains(&part.to_uppercase()), "{what} shows the token in capitals");
    }
}

#[track_caller]
fn assert_files_are_harmless(folder: &Path, token: &str) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let path = entry.path();
        // `latest` is one of the others.
        if entry.file_type().unwrap().is_symlink() {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            assert_files_are_harmless(&path, token);
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let is_markup = path.extension().is_some_and(|end| end == "html" || end == "xml");
        assert!(!is_markup || !text.contains("<script>alert"), "{}", path.display());
        if path.extension().is_none_or(|end| end != "png") {
            assert_harmless(&path.display().to_string(), &text, token);
        }
    }
}

#[test]
fn hostile_texts_and_an_echoed_token_are_harmless_in_every_command_and_file() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--plant", "bit63-dropped"]);
    let (source, api) = (server.volume(0, "uuid"), server.api());
    server.write(0, 60 * 4096, 2 << 20);
    let twins = ["twin-1", "twin-2"].map(|name| api.take(&source, name));
    let proxy = Proxy::start(&server, Meddle::HostileTexts, When::Always);
    let mut all = server.target();
    all.endpoint = Some(proxy.endpoint.clone());
    all.pins = vec![proxy.pin.clone()];
    let (reading, mut alone) = (all.reading(), all.reading());
    (alone.source_device, alone.target_device, alone.target_uuid) = (None, None, None);
    let few = ["--region", "8MiB", "--seed", "1", "--cases", "12", "--shrink-time", "3s"];
    let newest = ["--snapshot", &twins[1]];
    let run = |args: Vec<String>, codes: &[i32]| -> Finished {
        let run = home.run(&args, Some(&server.token));
        assert!(run.code.is_some_and(|code| codes.contains(&code)), "{args:?}: {run}");
        assert_harmless("standard output", &run.stdout, &server.token);
        assert_harmless("standard error", &run.stderr, &server.token);
        run
    };
    run(reading.args(&["doctor"], &[]), &[0, 2, 3]);
    run(all.args(&["suite"], &["--test", "2", "--keep-snapshots", "--junit", "junit.xml"]), &[1]);
    run(all.args(&["check"], &few), &[1]);
    run(all.args(&["soak"], &few), &[1]);
    for args in [
        &["runs", "list"][..],
        &["runs", "show", "latest"],
        &["report", "latest"],
        &["runs", "trend"],
    ] {
        run(args.iter().map(|&word| word.to_owned()).collect(), &[0, 1]);
    }
    run(all.args(&["sync"], &newest), &[0, 1, 3]);
    run(alone.args(&["audit"], &[]), &[0, 1, 3]);
    run(alone.args(&["audit"], &["--output", "jsonl"]), &[0, 1, 3]);
    for format in ["table", "json", "map"] {
        run(alone.args(&["diff"], &[&newest[..], &["--format", format]].concat()), &[0]);
    }
    // Names that cannot be told apart are not chosen from.
    let both = run(alone.args(&["diff"], &["--snapshot", "twin"]), &[2]);
    assert!(twins.iter().all(|uuid| both.stderr.contains(uuid)), "{both}");
    let mut other = alone.clone();
    other.source_uuid = Some(server.volume(1, "uuid"));
    let wrong = run(other.args(&["diff"], &newest), &[2]);
    assert!(wrong.stderr.contains("is of volume"), "{wrong}");
    run(alone.args(&["clean"], &[]), &[0, 4]);
    run(alone.args(&["clean", "--yes"], &[]), &[0, 4]);
    assert!(proxy.meddled() > 20, "{}", proxy.meddled());
    assert_files_are_harmless(&home.path().join("lbaudit-runs"), &server.token);
    let junit = fs::read_to_string(home.path().join("junit.xml")).unwrap();
    assert!(HOSTILE.contains("<script>alert") && !junit.contains("<script>alert"), "{junit}");
    assert_harmless("junit.xml", &junit, &server.token);
    home.assert_no_file_holds(&server.token);
    drop(proxy);
    server.stop(Signal::TERM);
}

#[test]
fn a_process_with_a_token_leaves_no_core_file_and_is_not_looked_into() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4], "0", "{core}");
    // The memory of a process that is not dumpable belongs to root, whoever runs it.
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs::metadata(format!("/proc/{}/mem", server.pid())).unwrap().uid();
    assert_eq!(owner, 0);
    server.stop(Signal::TERM);
}
