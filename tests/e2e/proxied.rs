//! A hostile reverse proxy between program and array: what it takes from the answers must make
//! tests fail, never pass, never look like a refusal or like an array that could not be reached.

use crate::support::{Attach, Finished, Home, Meddle, Proxy, Server, fuse_works};
use rustix::process::Signal;

/// Two tests whose diffs have several pages of four ranges each.
const TESTS: [&str; 2] = ["full_scan_accuracy", "partial_chunk_bitmap"];

/// Runs [`TESTS`] through a proxy; answers the run and how often the proxy meddled.
fn through(meddle: Meddle) -> Option<(Finished, usize)> {
    if !fuse_works() {
        return None;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--page-limit", "4"]);
    let proxy = Proxy::start(&server, meddle);
    let mut target = server.target();
    target.endpoint = Some(proxy.endpoint.clone());
    target.pins = vec![proxy.pin.clone()];
    let flags = ["--test", TESTS[0], "--test", TESTS[1], "--output", "jsonl"];
    let run = home.run(&target.args(&["suite"], &flags), Some(&server.token));
    assert!(proxy.calls() > 10, "the proxy was really between: {run}");
    assert_eq!(server.api().snapshot_names(), [""; 0], "{run}");
    let meddled = proxy.meddled();
    drop(proxy);
    home.assert_no_file_holds(&server.token);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
    Some((run, meddled))
}

#[track_caller]
fn assert_all_tests_fail(meddle: Meddle) {
    let Some((run, meddled)) = through(meddle) else { return };
    assert!(meddled > 0, "{meddle:?}: there was something to meddle with");
    run.assert_code(1);
    let failed = TESTS.map(|name| (name.to_owned(), "fail".to_owned()));
    assert_eq!(run.results(), failed, "{meddle:?}: {run}");
    let lines = run.json();
    let last = lines.last().unwrap();
    let count = |name: &str| last[name].as_u64().unwrap();
    assert_eq!((count("passed"), count("failed"), count("errors")), (0, 2, 0), "{meddle:?}: {run}");
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.to_lowercase().contains("refused"), "{meddle:?}: {run}");
    }
    let finished = lines.iter().filter(|line| line["event"] == "test_finished");
    for line in finished {
        assert!(!line["kinds"].as_array().unwrap().is_empty(), "it says what is wrong: {line}");
        assert!(!line["notes"].as_array().unwrap().is_empty(), "in words too: {line}");
    }
}

#[test]
fn a_dropped_range_fails_the_tests() {
    assert_all_tests_fail(Meddle::DropRange);
}

#[test]
fn a_flipped_bit_fails_the_tests() {
    assert_all_tests_fail(Meddle::FlipBit);
}

#[test]
fn a_repeated_page_fails_the_tests() {
    assert_all_tests_fail(Meddle::RepeatPage);
}

#[test]
fn an_ignored_offset_fails_the_tests() {
    assert_all_tests_fail(Meddle::IgnoreOffset);
}

#[test]
fn a_walk_that_ends_early_fails_the_tests() {
    assert_all_tests_fail(Meddle::EndEarly);
}

#[test]
fn a_proxy_that_only_passes_on_changes_nothing() {
    let Some((run, meddled)) = through(Meddle::Nothing) else { return };
    assert_eq!(meddled, 0);
    run.assert_code(0);
    assert_eq!(run.results(), TESTS.map(|name| (name.to_owned(), "pass".to_owned())), "{run}");
}

#[test]
fn two_answers_503_before_each_good_one_change_nothing() {
    let Some((run, meddled)) = through(Meddle::UnavailableTwice) else { return };
    assert!(meddled > 50, "only {meddled} calls were answered 503");
    run.assert_code(0);
    assert_eq!(run.results(), TESTS.map(|name| (name.to_owned(), "pass".to_owned())), "{run}");
    assert!(run.stderr.contains("calls had to be repeated"), "it is said: {run}");
}
