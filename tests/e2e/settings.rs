//! `lbaudit.toml`, the environment, and what the program says about itself.

use crate::support::Home;
use std::fs;

const FILE: &str = r#"
[default]
in-process = true
test = ["no_change_diff", "12"]

[profile.one]
test = "scattered_writes"

[profile.none]
test = "no_such_*"

[profile.wrong]
test = "no_such_test"
"#;

fn home_with(text: &str) -> Home {
    let home = Home::new();
    fs::write(home.path().join("lbaudit.toml"), text).unwrap();
    home
}

#[test]
fn the_original_form_reads_the_file_too_and_keeps_its_exit_codes() {
    let home = home_with(FILE);
    for (line, code, verdict) in [
        (&["--fail-fast"][..], 0, "2/2 passed | ALL PASSED"),
        (&["--config-profile", "one"], 0, "1/1 passed | ALL PASSED"),
        (&["--config-profile", "one", "--test", "1", "--test", "5"], 0, "2/2 passed"),
        (&["--config-profile", "none"], 1, ""),
        (&["suite", "--config-profile", "none"], 4, ""),
        (&["--config-profile", "wrong"], 2, ""),
        (&["--config-profile", "nobody"], 2, ""),
    ] {
        let run = home.run(line, None);
        run.assert_code(code);
        assert!(run.stdout.contains(verdict), "{line:?}: {run}");
    }
    let run = home.run(&["suite", "--config-profile", "one"], None);
    assert!(run.stderr.contains("taken from lbaudit.toml [profile.one]: test"), "{run}");
    assert!(run.stderr.contains("taken from lbaudit.toml [default]: in-process"), "{run}");
    // Runs of one second lie in the order of their ids.
    let kept = home.runs().into_iter().map(|run| fs::read_to_string(run.join("run.json")).unwrap());
    let kept: Vec<String> = kept.collect();
    let has = kept.iter().any(|kept| kept.contains("--test=scattered_writes"));
    assert!(has, "what was carried out is kept: {kept:?}");
    home.assert_nothing_left();
}

#[test]
fn the_environment_is_stronger_than_the_file_and_weaker_than_a_flag() {
    let home = home_with(FILE);
    for (flags, test) in [(&[][..], "rapid_snapshots"), (&["--test=1"][..], "no_change_diff")] {
        let mut command = home.command(&[&["suite"], flags].concat());
        command.env("LBAUDIT_TEST", "rapid_*");
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains(&format!("[1/1] {test} ")), "{said}");
    }
}

#[test]
fn consent_in_the_file_ends_the_run_before_it_begins() {
    let home = home_with("[default]\ndestroy = [\"bd382af936d1\"]\n");
    let run = home.run(&["suite", "--in-process"], None);
    run.assert_code(2);
    assert!(run.stdout.is_empty() && run.stderr.contains("give --destroy on the"), "{run}");
    assert!(home.runs().is_empty());
    let run = home.run(&["suite", "--in-process", "--test=1", "--config", "/dev/null"], None);
    run.assert_code(0);
}

#[test]
fn completions_and_manual_pages_come_out_of_the_program() {
    let home = Home::new();
    let run = home.run(&["completions", "bash"], None);
    run.assert_code(0);
    assert!(run.stdout.contains("_lbaudit()"), "{run}");
    let run = home.run(&["man", "man1"], None);
    run.assert_code(0);
    assert!(run.stdout.ends_with("manual pages in man1\n"), "{run}");
    assert!(home.path().join("man1/lbaudit-soak.1").is_file());
    let run = home.run(&["explain", "G7"], None);
    assert!(run.stdout.starts_with("guard G7 of 15"), "{run}");
}
