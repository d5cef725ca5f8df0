//! The token shows nowhere: not in help, in no process list, in no file of any command.

use crate::support::{Attach, Home, Server, fuse_works, until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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
