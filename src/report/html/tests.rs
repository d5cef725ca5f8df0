//! Pages made of runs as they are read from folders.

use super::*;
use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role};
use crate::campaign::finding::{FindingRecord, Signature};
use crate::campaign::retold::Retold;
use crate::campaign::run_files::{Checkpoint, Known, Sample, Started, Stream};
use crate::campaign::run_record::{Found, RunRecord};
use crate::campaign::suite_run::{SuiteEnd, SuiteRun, SuiteStarted, SuiteTest};
use crate::campaign::trend::Figures;
use crate::oracle::{Kind, Violation};
use crate::report::campaign_junit;
use crate::report::map::map_of;
use crate::report::verdict::gravest_first;
use crate::scenario::{Header, Label, Op, Scenario};
use std::path::Path;

const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}\u{1b}[31m http://x";

fn found(number: u32) -> Found {
    let at = Extent::lbas(64, 8);
    let take = |n| Op::Take { label: Label(n), wait: true };
    let (snap, base) = (Label(1), Some(Label(0)));
    let diff = Op::Diff { snap, base, from: Lba::new(0), between_pages: None };
    let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(4096), fresh: true };
    let header = Header::new([(Role::Source, shape)].into(), Policy::Exact, "");
    let violation =
        Violation::new(Kind::Missed, HOSTILE).about(snap, base).at([at].into_iter().collect());
    let signature = Signature { kind: Kind::Missed, ops: vec!["discard".to_owned()] };
    Found {
        known: Known { number, case: 4, signature, operations: 4, cases: 2 },
        record: FindingRecord {
            v: 1,
            program: "0.1.0".to_owned(),
            case: "g1:1:4".to_owned(),
            kind: Kind::Missed,
            meaning: Kind::Missed.meaning().to_owned(),
            violation,
            operations_before: 9,
            touching: Vec::new(),
            shrunk: None,
        },
        scenario: Scenario::new(
            header,
            [Op::Write { at }, take(0), Op::Discard { at }, take(1), diff],
        ),
        folder: format!("runs/x/finding-{number}").into(),
    }
}

/// A run that was killed: no exit code, no coverage.
fn killed(findings: u32) -> RunRecord {
    let mut checkpoint = Checkpoint::begin(Stream::new());
    checkpoint.so_far.totals.cases = 9;
    checkpoint.so_far.totals.diffs = 20;
    checkpoint.so_far.totals.failures = u64::from(findings);
    let sample = |n: u32| Sample {
        seconds: f64::from(n),
        operations: u64::from(n) * 100,
        rss_bytes: Some(1 << 20),
        ..Sample::default()
    };
    RunRecord {
        folder: "runs/x".into(),
        started: Started {
            event: "run_started".to_owned(),
            run: "x".to_owned(),
            arguments: vec!["soak".to_owned(), HOSTILE.to_owned()],
            version: "0.1.0".to_owned(),
            seed: 1,
            generator: 1,
            target: "lightbits".to_owned(),
            profile: "live".to_owned(),
            policy: None,
            planted: Vec::new(),
            jobs: 1,
            cases: None,
            seconds: None,
            notes: vec![HOSTILE.to_owned()],
            capabilities: None,
            shard: Some("0/4".to_owned()),
            resumes: Some("earlier".to_owned()),
            merged: vec!["a".to_owned(), "b".to_owned()],
        },
        checkpoint,
        coverage: None,
        findings: (1..=findings).map(found).collect(),
        unfinished: vec![found(99).record],
        samples: (0..5).map(sample).collect(),
    }
}

fn page_of(run: &RunRecord) -> String {
    let shown = |found: &Found| Shown {
        retold: Retold { by_hand: true, ..Retold::default() },
        map: map_of(found.record.shown(), &found.scenario, &[]),
    };
    let shown: Vec<Shown> =
        gravest_first(run).into_iter().take(CampaignPage::DRAWN).map(shown).collect();
    let figures = |cases| Figures {
        name: "n".to_owned(),
        cases,
        ops_per_core_s: 5,
        wall_ops_per_s: Some(9.0),
        api_p50_ms: None,
        api_p99_ms: None,
        mib_per_s: None,
        findings: 0,
        over_report: None,
        exit_code: None,
    };
    let trend = [figures(1), figures(2)];
    let folder = Path::new("lbaudit-runs/x");
    campaign_page(&CampaignPage { run, alive: false, shown: &shown, trend: &trend, folder })
}

/// Nothing in it runs or is fetched.
fn assert_inert(page: &str) {
    for part in ["<script", "<img", "<iframe", "src=", "@import", "onload=", "javascript:"] {
        assert!(!page.contains(part), "{part}");
    }
    for (at, _) in page.match_indices("href=\"#") {
        let to = page[at + 7..].split('"').next().expect("an end");
        assert!(page.contains(&format!(" id=\"{to}\"")), "there is no {to} on the page");
    }
    for (at, _) in page.match_indices("href=\"") {
        let to = &page[at + 6..];
        assert!(to.starts_with('#') || to.starts_with("data:,"), "{}", &to[..20]);
    }
    for (at, _) in page.match_indices("url(") {
        assert!(page[at + 4..].starts_with('#'), "{}", &page[at..at + 20]);
    }
    assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
    assert!(
        !page.contains('\u{202e}') && !page.contains('\u{1b}'),
        "what hides text is written out"
    );
}

#[test]
fn a_killed_runs_page_says_so_and_holds_what_is_known() {
    let page = page_of(&killed(1));
    assert_inert(&page);
    for part in [
        "1 finding in 9 cases: 1 missed (data loss).",
        "This run is killed: this is what its last checkpoint holds.",
        "none: it was killed",
        "This is only part 0/4 of a campaign.",
        "Goes on with",
        "2 runs",
        "Not known: the run was killed before it could sum up",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "\\u{202e}\\u{1b}[31m",
        "lbaudit check --scenario lbaudit-runs/x/finding-1/repro.jsonl",
        "sh lbaudit-runs/x/finding-1/repro.sh",
        "LBA map of chunk 1",
        "discard 64..71",
        "Not looked into to the end",
        "Throughput",
        "No call of an array's API was timed",
        "(this run)",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("regressions/"), "regressions are replayed on the simulator");
}

#[test]
fn headings_come_in_order_and_ids_once() {
    let page = page_of(&killed(3));
    let mut last = 0;
    for (at, _) in
        page.match_indices("<h").filter(|(at, _)| page.as_bytes()[at + 2].is_ascii_digit())
    {
        let level = page.as_bytes()[at + 2] - b'0';
        assert!(level <= last + 1, "{}", &page[at..at + 60]);
        last = level;
    }
    let mut ids: Vec<&str> = page
        .match_indices(" id=\"")
        .filter_map(|(at, _)| page[at + 5..].split('"').next())
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    assert!(all > 60, "{all}");
}

#[test]
fn the_gravest_finding_comes_first_and_an_index_stands_right_under_the_verdict() {
    let mut run = killed(3);
    for (found, kind) in run.findings.iter_mut().zip([Kind::Liveness, Kind::Leaked, Kind::Missed]) {
        found.record.violation.kind = kind;
        found.known.signature.kind = kind;
    }
    let page = page_of(&run);
    let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("no {part}"));
    for places in [
        [
            "</h1>",
            "href=\"#finding-3\"",
            "href=\"#finding-2\"",
            "href=\"#finding-1\"",
            "<dl class=\"facts\"",
        ],
        ["<main", "id=\"finding-3\"", "id=\"finding-2\"", "id=\"finding-1\"", "</main>"],
    ] {
        let places: Vec<usize> = places.into_iter().map(at).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
    assert!(!page_of(&killed(0)).contains("class=\"index\""));
}

#[test]
fn commands_of_a_folder_with_any_name_can_be_copied() {
    let mut run = killed(1);
    run.started.arguments =
        ["soak", "--source-uuid", "29", "--endpoint", "https://a;b"].map(str::to_owned).into();
    let shown = [Shown { retold: Retold { by_hand: true, ..Retold::default() }, map: None }];
    let page = campaign_page(&CampaignPage {
        run: &run,
        alive: false,
        shown: &shown,
        trend: &[],
        folder: Path::new("b h/$(id)"),
    });
    for part in [
        "lbaudit check --scenario 'b h/$(id)/finding-1/repro.jsonl' --source-uuid 29 --endpoint 'https://a;b'",
        "LBAUDIT_ENDPOINT='https://a;b' SOURCE_UUID=29 SOURCE_DEVICE=/dev/disk/by-id/nvme-uuid.29 sh 'b h/$(id)/finding-1/repro.sh'",
        "lbaudit soak --source-uuid 29 --endpoint 'https://a;b'",
    ] {
        assert!(page.contains(&part.replace('\'', "&#39;")) || page.contains(part), "{part}");
    }
}

#[test]
fn a_page_of_two_hundred_findings_stays_small_and_names_them_all() {
    let page = page_of(&killed(200));
    assert!(page.len() < 5 << 20, "{} bytes", page.len());
    assert_eq!(page.matches("class=\"map\"").count(), CampaignPage::DRAWN);
    assert!(page.contains("180 further findings"));
    assert!(page.contains("<th scope=\"row\">200</th>"));
}

#[test]
fn a_campaigns_junit_has_a_case_a_finding_and_attaches_its_picture() {
    let attached = |path: &Path| Some(path.display().to_string());
    let xml = campaign_junit(&killed(2), &attached).expect("encodes");
    for part in [
        r#"tests="3""#,
        r#"failures="2""#,
        r#"type="missed""#,
        r#"name="missed: discard""#,
        "[[ATTACHMENT|runs/x/finding-1/map.png]]",
        r#"name="no violation in the other cases""#,
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
    let mut nothing = killed(0);
    nothing.unfinished.clear();
    nothing.checkpoint.so_far.totals.diffs = 0;
    let xml = campaign_junit(&nothing, &|_| None).expect("encodes");
    assert!(xml.contains(r#"errors="1""#) && xml.contains("Nothing was compared"), "{xml}");
}

#[test]
fn a_suites_page_has_all_twenty_rows_and_the_notes_of_what_failed() {
    let test = SuiteTest {
        name: "full_scan_accuracy".to_owned(),
        number: 2,
        result: "fail".to_owned(),
        seconds: 0.5,
        kinds: vec!["missed".to_owned()],
        notes: vec![HOSTILE.to_owned()],
        mib_per_s: None,
    };
    let mut run = SuiteRun {
        folder: "runs/s".into(),
        started: SuiteStarted {
            run: "s".to_owned(),
            arguments: vec!["suite".to_owned()],
            version: "0.1.0".to_owned(),
            target: "array".to_owned(),
            endpoint: HOSTILE.to_owned(),
            source: "a".to_owned(),
            copy: "b".to_owned(),
            policy: "chunk".to_owned(),
            tests: 1,
            notes: Vec::new(),
            warnings: vec!["the certificate is not verified".to_owned()],
        },
        tests: vec![test],
        handshake: Vec::new(),
        audit: None,
        end: Some(SuiteEnd {
            passed: 0,
            failed: 1,
            errors: 0,
            not_applicable: 0,
            seconds: 1.0,
            exit_code: 1,
        }),
    };
    let page = suite_page(&run, false);
    assert_inert(&page);
    assert!(page.contains("1 of 1 test failed, 0 passed."));
    assert!(page.contains("the certificate is not verified"));
    assert_eq!(page.matches("– not run").count(), 19);
    (run.end, run.tests) = (None, Vec::new());
    let page = suite_page(&run, false);
    assert!(
        page.contains("1 did not run: this is no pass.") && page.contains("This run is killed")
    );
}
