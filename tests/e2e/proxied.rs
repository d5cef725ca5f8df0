//! A hostile reverse proxy between program and array: what it takes from the answers must make
//! tests fail, never pass, never look like a refusal or like an array that could not be reached.

use crate::support::{Attach, Finished, Home, Meddle, Proxy, Server, When, fuse_works, loops_work};
use rustix::process::Signal;

/// Two tests whose diffs have several pages of four ranges each.
const TESTS: [&str; 2] = ["full_scan_accuracy", "partial_chunk_bitmap"];

/// Pages with ranges that the handshake asks for: eight ranges of each volume, four to a page.
const OF_HANDSHAKE: usize = 4;

/// Runs [`TESTS`] through a proxy; answers the run and how often the proxy meddled.
fn through(attach: Attach, meddle: Meddle, when: When) -> Option<(Finished, usize)> {
    let works = if attach == Attach::Loop { loops_work() } else { fuse_works() };
    if !works {
        return None;
    }
    let home = Home::new();
    let server = Server::start(&home, attach, &["--page-limit", "4"]);
    let proxy = Proxy::start(&server, meddle, when);
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

/// Asserts how each of [`TESTS`] ended, and that nothing else is claimed.
#[track_caller]
fn assert_results(run: &Finished, results: [&str; 2]) {
    let named = [0, 1].map(|i| (TESTS[i].to_owned(), results[i].to_owned()));
    assert_eq!(run.results(), named, "{run}");
    let last = run.json().pop().unwrap();
    for (field, result) in [("passed", "pass"), ("failed", "fail"), ("errors", "error")] {
        let count = results.iter().filter(|&&one| one == result).count();
        assert_eq!(last[field], count, "{run}");
    }
}

#[track_caller]
fn assert_fails(attach: Attach, meddle: Meddle, when: When, results: [&str; 2]) {
    let Some((run, meddled)) = through(attach, meddle, when) else { return };
    assert!(meddled > 0, "there was something to meddle with: {run}");
    assert!(when == When::Always || meddled == 1, "{meddled}");
    run.assert_code(1);
    assert_results(&run, results);
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.to_lowercase().contains("refused"), "{run}");
    }
    for line in run.json().iter().filter(|line| line["result"] == "fail") {
        assert!(!line["kinds"].as_array().unwrap().is_empty(), "it says what is wrong: {line}");
        assert!(!line["notes"].as_array().unwrap().is_empty(), "in words too: {line}");
    }
}

#[test]
fn dropped_ranges_fail_the_tests_on_files_and_on_block_devices() {
    for attach in [Attach::Fuse, Attach::Loop] {
        assert_fails(attach, Meddle::DropRange, When::Always, ["fail", "fail"]);
    }
}

#[test]
fn flipped_bits_fail_the_tests() {
    assert_fails(Attach::Fuse, Meddle::FlipBit, When::Always, ["fail", "fail"]);
}

#[test]
fn repeated_pages_fail_the_tests() {
    assert_fails(Attach::Fuse, Meddle::RepeatPage, When::Always, ["fail", "fail"]);
}

#[test]
fn ignored_offsets_fail_the_tests() {
    assert_fails(Attach::Fuse, Meddle::IgnoreOffset, When::Always, ["fail", "fail"]);
}

#[test]
fn walks_that_end_early_fail_the_tests() {
    assert_fails(Attach::Fuse, Meddle::EndEarly, When::Always, ["fail", "fail"]);
}

#[test]
fn one_range_dropped_or_one_bit_flipped_in_a_whole_run_fails_that_test_alone() {
    for meddle in [Meddle::DropRange, Meddle::FlipBit] {
        let first_of_the_first_test = When::Only(OF_HANDSHAKE + 1);
        assert_fails(Attach::Fuse, meddle, first_of_the_first_test, ["fail", "pass"]);
    }
}

#[test]
fn a_proxy_that_only_passes_on_changes_nothing() {
    let passed_on = through(Attach::Fuse, Meddle::Nothing, When::Always);
    let Some((run, meddled)) = passed_on else { return };
    assert_eq!(meddled, 0);
    run.assert_code(0);
    assert_results(&run, ["pass", "pass"]);
}

#[test]
fn two_answers_503_before_each_good_one_change_nothing() {
    let delayed = through(Attach::Fuse, Meddle::UnavailableTwice, When::Always);
    let Some((run, meddled)) = delayed else { return };
    assert!(meddled > 50, "only {meddled} calls were answered 503");
    run.assert_code(0);
    assert_results(&run, ["pass", "pass"]);
    assert!(run.stderr.contains("calls had to be repeated"), "it is said: {run}");
}

#[test]
fn a_server_that_echoes_the_token_does_not_get_it_into_any_output() {
    // Every page counts here, and two diffs of the handshake are empty.
    let echoed = through(Attach::Fuse, Meddle::EchoToken, When::From(OF_HANDSHAKE + 3));
    let Some((run, meddled)) = echoed else { return };
    assert!(meddled > 0);
    run.assert_code(3);
    assert_results(&run, ["error", "error"]);
    assert!(run.stdout.contains("not with Bearer [token]"), "{run}");
}
