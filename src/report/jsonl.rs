//! Machine-readable results: one object a line (`cli.md`, "Stable for scripts"). Fields are only
//! ever added; a changed meaning raises `v`; all are in the table of [`super::events`]. Not covered:
//! events of other commands, which print their own lines in the same form.

use super::violation::violation_lines;
use super::{Reporter, RunEnd, RunHeader, VERSION};
use crate::engine::Event;
use crate::suite::{Outcome, SuiteSummary, TestResult};
use serde::Serialize;
use std::io::Write;

/// Writes one line for each test and one for the run. A closed output ends the writing, not the run.
pub struct JsonLines<'w> {
    out: &'w mut dyn Write,
    with_events: bool,
    broken: Option<std::io::Error>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    RunStarted {
        version: &'a str,
        target: &'a str,
        endpoint: &'a str,
        source: &'a str,
        copy: &'a str,
        policy: String,
        tests: usize,
        notes: Vec<&'a str>,
    },
    TestFinished {
        name: &'a str,
        number: usize,
        result: &'static str,
        seconds: f64,
        kinds: Vec<&'static str>,
        notes: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        mib_per_s: Option<f64>,
    },
    HandshakeFinding {
        kind: &'static str,
        notes: Vec<String>,
    },
    AuditFinished {
        result: &'static str,
        kinds: Vec<&'static str>,
        notes: Vec<String>,
    },
    RunFinished {
        passed: usize,
        failed: usize,
        errors: usize,
        not_applicable: usize,
        seconds: f64,
        exit_code: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        report: Option<String>,
    },
}

#[derive(Serialize)]
struct Versioned<L> {
    v: u32,
    #[serde(flatten)]
    line: L,
}

impl<'w> JsonLines<'w> {
    /// Lines on `out`.
    pub fn new(out: &'w mut dyn Write) -> JsonLines<'w> {
        JsonLines { out, with_events: false, broken: None }
    }
    /// Lines on `out`, everything that happens in the tests among them.
    pub fn with_events(out: &'w mut dyn Write) -> JsonLines<'w> {
        JsonLines { out, with_events: true, broken: None }
    }
    fn print(&mut self, line: impl Serialize) {
        if self.broken.is_some() {
            return;
        }
        let encoded = serde_json::to_string(&Versioned { v: VERSION, line });
        let written = encoded.map_err(std::io::Error::from).and_then(|text| {
            self.out.write_all(text.as_bytes())?;
            self.out.write_all(b"\n")?;
            self.out.flush()
        });
        self.broken = written.err();
    }
    /// Why lines are missing, if some are.
    pub fn failure(&self) -> Option<&std::io::Error> {
        self.broken.as_ref()
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail(_) => "fail",
        Outcome::Error(_) => "error",
        Outcome::NotApplicable(_) => "not_applicable",
    }
}

fn kinds(outcome: &Outcome) -> Vec<&'static str> {
    outcome.kinds().iter().map(|kind| kind.name()).collect()
}

/// What a line says besides its result: violations or the reason.
fn notes(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Pass => Vec::new(),
        Outcome::Fail(violations) => violations.iter().flat_map(violation_lines).collect(),
        Outcome::Error(why) => vec![format!("could not test: {why}")],
        Outcome::NotApplicable(why) => vec![format!("not applicable: {why}")],
    }
}

impl Reporter for JsonLines<'_> {
    fn begin(&mut self, header: &RunHeader) {
        let notes = header.warnings.iter().chain(&header.remarks).map(String::as_str).collect();
        self.print(Line::RunStarted {
            version: &header.version,
            target: &header.target,
            endpoint: &header.endpoint,
            source: &header.source,
            copy: &header.copy,
            policy: header.policy.to_string(),
            tests: header.tests,
            notes,
        });
    }
    fn test_started(&mut self, _number: usize, _name: &str) {}
    fn event(&mut self, event: &Event) {
        if self.with_events {
            self.print(event);
        }
    }
    fn test_finished(&mut self, result: &TestResult) {
        self.print(Line::TestFinished {
            name: result.name,
            number: result.number,
            result: word(&result.outcome),
            seconds: result.took.as_secs_f64(),
            kinds: kinds(&result.outcome),
            notes: [notes(&result.outcome), result.notes.clone()].concat(),
            mib_per_s: result.mib_per_s,
        });
    }
    fn run_finished(&mut self, summary: &SuiteSummary, end: &RunEnd) {
        for finding in &summary.handshake {
            let (kind, notes) = (finding.kind.name(), violation_lines(finding));
            self.print(Line::HandshakeFinding { kind, notes });
        }
        if let Some(audit) = &summary.audit {
            let (result, kinds, notes) = (word(audit), kinds(audit), notes(audit));
            self.print(Line::AuditFinished { result, kinds, notes });
        }
        let (passed, failed, errors, not_applicable) = summary.counts();
        self.print(Line::RunFinished {
            passed,
            failed,
            errors,
            not_applicable,
            seconds: summary.took.as_secs_f64(),
            exit_code: end.exit_code,
            report: end.report.as_ref().map(|path| path.display().to_string()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Kind, Violation};
    use std::time::Duration;

    #[test]
    fn lines_are_exactly_those_scripts_rely_on() {
        let mut out = Vec::new();
        let mut lines = JsonLines::new(&mut out);
        let violation = Violation::new(Kind::Missed, "LBA 3 is not reported");
        let result = TestResult {
            number: 1,
            name: "no_change_diff",
            outcome: Outcome::Fail(vec![violation]),
            took: Duration::from_millis(120),
            notes: vec!["diff returned 0 lbaRange(s)".to_owned()],
            mib_per_s: None,
        };
        lines.test_finished(&result);
        let summary = SuiteSummary {
            results: vec![result],
            took: Duration::from_millis(6_100),
            ..SuiteSummary::default()
        };
        lines.run_finished(&summary, &RunEnd { exit_code: 1, report: None });
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                r#"{"v":1,"event":"test_finished","name":"no_change_diff","number":1,"result":"fail","seconds":0.12,"kinds":["missed"],"notes":["missed (data loss): LBA 3 is not reported","diff returned 0 lbaRange(s)"]}"#,
                r#"{"v":1,"event":"run_finished","passed":0,"failed":1,"errors":0,"not_applicable":0,"seconds":6.1,"exit_code":1}"#,
            ]
        );
    }

    #[test]
    fn the_audit_and_the_handshake_have_lines_of_their_own_before_the_last() {
        let summary = SuiteSummary {
            handshake: vec![Violation::new(Kind::Leaked, "LBA 9")],
            audit: Some(Outcome::Fail(vec![Violation::new(Kind::Disturbed, "LBA 3")])),
            ..SuiteSummary::default()
        };
        let mut out = Vec::new();
        JsonLines::new(&mut out).run_finished(&summary, &RunEnd { exit_code: 1, report: None });
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let (leaked, disturbed) =
            (summary.handshake[0].to_string(), Violation::new(Kind::Disturbed, "LBA 3"));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                format!(r#"{{"v":1,"event":"handshake_finding","kind":"leaked","notes":["{leaked}"]}}"#),
                format!(r#"{{"v":1,"event":"audit_finished","result":"fail","kinds":["disturbed"],"notes":["{disturbed}"]}}"#),
                r#"{"v":1,"event":"run_finished","passed":0,"failed":0,"errors":0,"not_applicable":0,"seconds":0.0,"exit_code":1}"#.to_owned(),
            ]
        );
        let fine = SuiteSummary { audit: Some(Outcome::Pass), ..SuiteSummary::default() };
        let mut out = Vec::new();
        JsonLines::new(&mut out).run_finished(&fine, &RunEnd { exit_code: 0, report: None });
        let pass = br#"{"v":1,"event":"audit_finished","result":"pass","kinds":[],"notes":[]}"#;
        assert!(out.starts_with(pass), "{}", String::from_utf8_lossy(&out));
    }
}
