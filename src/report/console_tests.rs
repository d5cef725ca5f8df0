//! Whole screens against the files in `golden/`.

use super::*;
use crate::block::{ChunkBitmap, Extent, LbaSet, Policy};
use crate::oracle::{Kind, Picture, Violation};
use crate::report::ProgressKind;
use std::path::Path;

fn header(tests: usize) -> RunHeader {
    RunHeader {
        version: "0.1.0".to_owned(),
        target: "array".to_owned(),
        endpoint: "https://192.168.122.247".to_owned(),
        source: "vol-src (/dev/nvme0n1)".to_owned(),
        copy: "vol-dst (/dev/nvme0n2)".to_owned(),
        policy: Policy::Chunk,
        tests,
        remarks: Vec::new(),
        warnings: Vec::new(),
    }
}

fn result(number: usize, name: &'static str, outcome: Outcome, took_ms: u64) -> TestResult {
    let took = Duration::from_millis(took_ms);
    TestResult { number, name, outcome, took, notes: Vec::new(), mib_per_s: None }
}

fn noted(result: TestResult, notes: &[&str]) -> TestResult {
    TestResult { notes: notes.iter().map(|&note| note.to_owned()).collect(), ..result }
}

fn missed() -> Violation {
    let sentence =
        "LBA 250912..250943 differ between s0 and s1, diff(s1, base s0) does not report them";
    let mut violation =
        Violation::new(Kind::Missed, sentence).at(LbaSet::from(Extent::lbas(250_912, 32)));
    violation.picture = Some(Picture {
        chunk: 3920,
        expected: ChunkBitmap::run(32, 32),
        reported: ChunkBitmap::EMPTY,
    });
    violation
}

/// The whole screen of a run with these results.
fn screen(header: &RunHeader, results: Vec<TestResult>, interrupted: bool, style: Style) -> String {
    let took = results.iter().map(|result| result.took).sum();
    let summary = SuiteSummary { results, took, interrupted, ..SuiteSummary::default() };
    screen_of(header, &summary, style)
}

fn screen_of(header: &RunHeader, summary: &SuiteSummary, style: Style) -> String {
    let mut out = Vec::new();
    let progress = Progress::start(ProgressKind::None, Box::new(std::io::sink()));
    let mut console = Console::new(&mut out, progress, style);
    console.begin(header);
    for result in &summary.results {
        console.test_started(result.number, result.name);
        console.test_finished(result);
    }
    let report = Some("lbaudit-runs/20260102T030405Z-0000000000000000".into());
    console.run_finished(summary, &RunEnd { exit_code: 0, report });
    drop(console);
    String::from_utf8(out).expect("the screen is UTF-8")
}

/// Compares with the file, or writes it if `UPDATE_GOLDEN` is set.
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("golden file is there");
    assert_eq!(actual, expected, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}

fn passing() -> Vec<TestResult> {
    vec![
        noted(result(1, "no_change_diff", Outcome::Pass, 3_200), &["diff returned 0 lbaRange(s)"]),
        noted(
            result(2, "full_scan_accuracy", Outcome::Pass, 12_800),
            &[
                "wrote 50 MB at 0 MB",
                "full scan: 47 ranges / 2 page(s) / 12800 LBAs (50.0 MB reported)",
                "synced 47 ranges / 50.0 MB",
                "src=3f8a2c1d7b4e9a02… dst=3f8a2c1d7b4e9a02…",
            ],
        ),
        noted(
            result(20, "sync_throughput_baseline", Outcome::Pass, 28_400),
            &["in 18.3s → 10.9 MB/s"],
        ),
    ]
}

#[test]
fn a_passing_run_on_an_array_looks_as_the_original() {
    golden("passing.txt", &screen(&header(3), passing(), false, Style::default()));
}

#[test]
fn verbose_shows_notes_under_passing_tests() {
    let style = Style { verbose: true, ..Style::default() };
    golden("verbose.txt", &screen(&header(3), passing(), false, style));
}

#[test]
fn a_failing_run_shows_sentence_picture_and_notes() {
    let failing = vec![
        result(1, "no_change_diff", Outcome::Pass, 3_200),
        noted(
            result(12, "partial_chunk_bitmap", Outcome::Fail(vec![missed()]), 1_100),
            &["wrote 1 MB at LBA 250912"],
        ),
        result(
            18,
            "long_incremental_chain",
            Outcome::Fail(vec![
                Violation::new(
                    Kind::Figure,
                    "synced 120.0 MB, expected 100 MB +-5 %"
                );
                7
            ]),
            70_000,
        ),
    ];
    golden("failing.txt", &screen(&header(3), failing, false, Style::default()));
}

#[test]
fn a_simulator_run_says_so_and_errors_are_not_failures() {
    let header = RunHeader {
        target: "simulator".to_owned(),
        endpoint: "https://127.0.0.1:40123".to_owned(),
        source: "vol-src (/dev/loop0)".to_owned(),
        copy: "vol-dst (/dev/loop1)".to_owned(),
        policy: Policy::Exact,
        remarks: vec!["pages of at most 128 ranges, so that paging is exercised".to_owned()],
        warnings: vec!["the server's certificate is not verified (--insecure)".to_owned()],
        ..header(4)
    };
    let no_wire = "its refusal would be this adapter's own code";
    let results = vec![
        result(1, "no_change_diff", Outcome::Pass, 10),
        noted(
            result(
                3,
                "incremental_diff_accuracy",
                Outcome::Error("connection refused".to_owned()),
                900,
            ),
            &["wrote 50 MB at 0 MB"],
        ),
        result(14, "deleted_base_snapshot", Outcome::NotApplicable(no_wire.to_owned()), 0),
    ];
    golden("simulator_errors.txt", &screen(&header, results, false, Style::default()));
}

#[test]
fn a_failed_audit_and_handshake_have_rows_of_their_own_even_if_quiet() {
    let summary = SuiteSummary {
        results: passing(),
        took: Duration::from_millis(44_400),
        handshake: vec![Violation::new(Kind::Leaked, "handshake: LBA 9 is reported")],
        audit: Some(Outcome::Fail(vec![missed()])),
        ..SuiteSummary::default()
    };
    golden("audit_failed.txt", &screen_of(&header(3), &summary, Style::default()));
    let style = Style { quiet: true, ..Style::default() };
    let text = screen_of(&header(3), &summary, style);
    for part in ["final audit of the target   ", "handshake: LBA 9 is reported", "AUDIT FAILED"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let audit = Some(Outcome::Error("read: no route".to_owned()));
    let summary = SuiteSummary { audit, handshake: Vec::new(), ..summary };
    let text = screen_of(&header(3), &summary, style);
    assert!(text.contains("ERROR\n  · could not test: read: no route\n"), "{text}");
    assert!(text.contains("3/3 passed | INCOMPLETE | total 44.4s"), "{text}");
}

#[test]
fn a_finding_beside_the_tests_is_never_all_passed() {
    let line = |audit, handshake| {
        let summary =
            SuiteSummary { results: passing(), audit, handshake, ..SuiteSummary::default() };
        last_line(&summary, 3, Style::default())
    };
    let fail = || Some(Outcome::Fail(vec![missed()]));
    let held = Some(Outcome::Pass);
    assert_eq!(line(held.clone(), vec![]), "3/3 passed | ALL PASSED | total 0.0s");
    assert_eq!(line(fail(), vec![]), "3/3 passed | AUDIT FAILED | total 0.0s");
    assert_eq!(line(held, vec![missed()]), "3/3 passed | HANDSHAKE FAILED | total 0.0s");
    let both = line(fail(), vec![missed()]);
    assert_eq!(both, "3/3 passed | AUDIT FAILED, HANDSHAKE FAILED | total 0.0s");
    let error = line(Some(Outcome::Error("x".to_owned())), vec![]);
    assert_eq!(error, "3/3 passed | INCOMPLETE | total 0.0s");
}

#[test]
fn quiet_prints_only_what_is_not_fine() {
    let style = Style { quiet: true, ..Style::default() };
    let text = screen(&header(3), passing(), false, style);
    assert_eq!(
        text,
        "3/3 passed | ALL PASSED | total 44.4s\n\
         report lbaudit-runs/20260102T030405Z-0000000000000000\n"
    );
}

#[test]
fn colour_changes_no_column() {
    let style = Style { color: true, ..Style::default() };
    let colored = screen(&header(3), passing(), false, style);
    assert!(colored.contains("\x1b[32mPASS\x1b[0m"));
    let stripped = colored.replace("\x1b[32m", "").replace("\x1b[0m", "");
    assert_eq!(stripped, screen(&header(3), passing(), false, Style::default()));
}

#[test]
fn the_result_begins_in_column_49_whatever_the_name() {
    let text = screen(&header(3), passing(), false, Style::default());
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(lines.len(), 3);
    for line in lines {
        assert_eq!(line.find(" PASS"), Some(48), "{line}");
    }
}

#[test]
fn the_last_line_tells_every_ending_apart() {
    let fail = || Outcome::Fail(vec![missed()]);
    let error = || Outcome::Error("x".to_owned());
    let na = || Outcome::NotApplicable("x".to_owned());
    let line = |outcomes: Vec<Outcome>, tests, interrupted| {
        let results = outcomes.into_iter().map(|outcome| result(1, "t", outcome, 0)).collect();
        let summary = SuiteSummary {
            results,
            took: Duration::from_millis(483_700),
            interrupted,
            ..SuiteSummary::default()
        };
        last_line(&summary, tests, Style::default())
    };
    let all = line(vec![Outcome::Pass; 20], 20, false);
    assert_eq!(all, "20/20 passed | ALL PASSED | total 483.7s");
    let some = line([vec![Outcome::Pass; 18], vec![na(), na()]].concat(), 20, false);
    assert_eq!(some, "18/18 passed · 2 not applicable | ALL PASSED | total 483.7s");
    let failed = line([vec![Outcome::Pass; 17], vec![fail(), fail(), fail()]].concat(), 20, false);
    assert_eq!(failed, "17/20 passed | 3 FAILED | total 483.7s");
    let errors = line([vec![Outcome::Pass; 19], vec![error()]].concat(), 20, false);
    assert_eq!(errors, "19/20 passed · 1 could not be tested | INCOMPLETE | total 483.7s");
    let stopped = line(vec![Outcome::Pass; 14], 20, true);
    assert_eq!(stopped, "14/20 passed · 6 not run | INTERRUPTED | total 483.7s");
    assert_eq!(
        line(vec![na()], 1, false),
        "0/0 passed · 1 not applicable | NOTHING TESTED | total 483.7s"
    );
}

#[test]
fn a_closed_output_does_not_end_the_run() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let progress = Progress::start(ProgressKind::None, Box::new(std::io::sink()));
    let mut closed = Closed;
    let mut console = Console::new(&mut closed, progress, Style::default());
    console.begin(&header(1));
    console.test_started(1, "no_change_diff");
    console.test_finished(&result(1, "no_change_diff", Outcome::Pass, 1));
    assert!(console.broken);
}
