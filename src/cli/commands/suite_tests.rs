//! The whole command on in-process volumes, and what must be refused before anything is opened.

use super::*;
use crate::cli::stop::Stop;
use crate::cli::ui::{Captured, Ui};
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    suite: SuiteArgs,
}

/// Runs the command with these flags in a folder of its own.
fn suite(flags: &[&str]) -> (Result<Exit, Failure>, String, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let run_dir = dir.path().join("runs").display().to_string();
    let line = ["suite", "--run-dir", &run_dir].into_iter().chain(flags.iter().copied());
    let args = Line::try_parse_from(line).expect("flags have the right shape").suite;
    let (ui, text): (Ui, Captured) = Ui::captured(args.output.output);
    let mut context = Context { ui, stop: Stop::default() };
    let done = run(&args, None, &mut context);
    (done, text.text(), dir)
}

#[test]
fn chosen_tests_pass_in_process_and_leave_a_run_folder() {
    let (done, text, dir) = suite(&["--in-process", "--test", "12", "--test", "no_change_diff"]);
    assert_eq!(done, Ok(Exit::Passed), "{text}");
    for part in [
        "Lightbits sync — sanity tests (2 tests)",
        "target simulator",
        "[1/2] no_change_diff ........................... PASS (",
        "[2/2] partial_chunk_bitmap ..................... PASS (",
        "2/2 passed | ALL PASSED | total ",
        "pages of at most 128 ranges",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("not testable here"), "{text}");
    let latest = dir.path().join("runs/latest");
    let events = std::fs::read_to_string(latest.join("events.jsonl")).expect("events");
    assert!(events.lines().all(|line| line.starts_with(r#"{"v":1,"event":""#)), "{events}");
    assert!(events.lines().last().is_some_and(|line| line.contains(r#""event":"run_finished""#)));
    let xml = std::fs::read_to_string(latest.join("junit.xml")).expect("a JUnit file");
    assert!(xml.contains(r#"tests="2""#) && xml.contains(r#"name="target" value="simulator""#));
    assert!(std::fs::read_to_string(latest.join("run.json")).is_ok());
}

#[test]
fn a_planted_bug_fails_its_test_with_sentence_and_picture() {
    let (done, text, _dir) = suite(&["--in-process", "--test", "12", "--plant", "bit63-dropped"]);
    assert_eq!(done, Ok(Exit::Violation), "{text}");
    for part in [
        "FAIL (",
        "missed (data loss): ",
        "  expected  ",
        "  reported  ",
        "1 FAILED",
        "planted: bit63-dropped",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_report_that_cannot_be_written_hides_no_violation() {
    let junit = ["--junit", "/nonexistent/junit.xml", "--in-process", "--test", "12"];
    let (done, text, _dir) = suite(&[&junit[..], &["--plant", "bit63-dropped"]].concat());
    assert_eq!(done, Ok(Exit::Violation), "{text}");
    assert!(text.contains("cannot write /nonexistent/junit.xml"), "{text}");
    let (done, text, _dir) = suite(&junit);
    assert_eq!(done, Ok(Exit::CouldNotTest), "{text}");
}

#[test]
fn json_lines_end_with_the_run() {
    let (done, text, _dir) =
        suite(&["--in-process", "--test", "1", "--output", "jsonl", "--progress", "none"]);
    assert_eq!(done, Ok(Exit::Passed), "{text}");
    let json: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = json.last().expect("a line");
    assert_eq!((last["event"].as_str(), last["passed"].as_u64()), (Some("run_finished"), Some(1)));
    assert_eq!(json[json.len() - 2]["result"], "pass");
}

#[test]
fn wrong_choices_are_refused_before_anything_is_opened() {
    for (flags, exit, words) in [
        (&["--test", "scatered_writes"][..], Exit::Usage, "did you mean `scattered_writes`"),
        (&["--test", "zzz*"], Exit::Nothing, "selects no test"),
        (&["--plant", "nonsense"], Exit::Usage, "no planted bug"),
        (&["--in-process", "--checksum", "external"], Exit::Usage, "--checksum external"),
        (&["--endpoint", "https://a"], Exit::Usage, "--source-uuid and --target-uuid missing"),
    ] {
        let (done, _, dir) = suite(flags);
        let failure = done.expect_err("refused");
        assert_eq!(failure.exit, exit, "{flags:?}: {}", failure.message);
        assert!(failure.message.contains(words), "{flags:?}: {}", failure.message);
        assert!(!dir.path().join("runs").exists(), "{flags:?} left a run folder");
    }
}

#[test]
fn a_dry_run_lists_and_does_nothing() {
    let (done, text, dir) = suite(&["--dry-run", "--group", "edge"]);
    assert_eq!(done, Ok(Exit::Passed));
    assert_eq!(text.lines().filter(|line| line.contains("writes ")).count(), 6, "{text}");
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn the_clean_up_command_never_holds_the_token() {
    let connection = Connection {
        endpoints: vec!["https://a".to_owned()],
        project: "other".to_owned(),
        token: Token::Flag(crate::cli::config::Secret("canary".to_owned())),
        tls: TlsConfig { insecure: true, ..TlsConfig::default() },
    };
    let uuid = crate::block::VolumeUuid::from_u128;
    let volumes =
        Volumes { source: uuid(1), target: uuid(2), source_device: None, target_device: None };
    let command = clean_command(&connection, &volumes, Path::new("/runs"));
    assert!(command.starts_with("lbaudit clean --yes --endpoint https://a --source-uuid 0"));
    assert!(command.contains("--run-dir /runs"));
    assert!(command.ends_with("--project other --insecure") && !command.contains("canary"));
}
