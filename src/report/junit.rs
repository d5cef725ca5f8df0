//! The JUnit file for CI systems: one suite, one case a test, the kind of a violation as its type.
//! Not covered: single checks inside a test; a case is a whole test.

use super::violation::violation_lines;
use super::{RunEnd, RunHeader};
use crate::suite::{Outcome, SuiteSummary, TestResult};
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

/// The whole file.
///
/// # Errors
/// None that is known: every text is cleaned of what XML cannot hold first. Kept because the
/// encoder could fail.
pub fn junit(
    header: &RunHeader,
    summary: &SuiteSummary,
    end: &RunEnd,
) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new("lbaudit suite");
    let policy = header.policy.to_string();
    let exit_code = end.exit_code.to_string();
    for (name, value) in [
        ("version", header.version.as_str()),
        ("target", &header.target),
        ("endpoint", &header.endpoint),
        ("source", &header.source),
        ("copy", &header.copy),
        ("policy", &policy),
        ("exit_code", &exit_code),
    ] {
        suite.add_property(Property::new(name, clean(value)));
    }
    for remark in header.warnings.iter().chain(&header.remarks) {
        suite.add_property(Property::new("remark", clean(remark)));
    }
    suite.set_time(summary.took);
    suite.add_test_cases(summary.results.iter().map(case));
    for (name, outcome) in summary.besides() {
        let mut case = TestCase::new(name, status(&outcome));
        case.set_classname("lbaudit.suite");
        suite.add_test_case(case);
    }
    let mut report = Report::new("lbaudit");
    report.set_time(summary.took);
    report.add_test_suite(suite);
    report.to_string()
}

fn status(outcome: &Outcome) -> TestCaseStatus {
    match outcome {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Fail(violations) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            if let Some(first) = violations.first() {
                status.set_type(first.kind.name());
                status.set_message(clean(&first.to_string()));
            }
            let lines: Vec<String> = violations.iter().flat_map(violation_lines).collect();
            status.set_description(clean(&lines.join("\n")));
            status
        }
        Outcome::Error(why) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(clean(&format!("could not test: {why}")));
            status
        }
        Outcome::NotApplicable(why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(clean(&format!("not applicable: {why}")));
            status
        }
    }
}

fn case(result: &TestResult) -> TestCase {
    let mut case = TestCase::new(result.name, status(&result.outcome));
    case.set_classname("lbaudit.suite");
    case.set_time(result.took);
    if let Some(speed) = result.mib_per_s {
        case.add_property(Property::new("mib_per_s", format!("{speed:.1}")));
    }
    if !result.notes.is_empty() {
        case.set_system_out(clean(&result.notes.join("\n")));
    }
    case
}

/// The text without what XML 1.0 cannot hold (its `Char` production), which would make the whole
/// file unreadable.
pub(super) fn clean(text: &str) -> String {
    let is_char = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(is_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Policy;
    use crate::oracle::{Kind, Violation};
    use proptest::prelude::*;
    use std::time::Duration;

    fn header(text: &str) -> RunHeader {
        RunHeader {
            version: "0.1.0".to_owned(),
            target: "simulator".to_owned(),
            endpoint: text.to_owned(),
            source: text.to_owned(),
            copy: text.to_owned(),
            policy: Policy::Exact,
            tests: 1,
            remarks: vec![text.to_owned()],
            warnings: Vec::new(),
        }
    }

    fn summary(outcome: Outcome, note: &str) -> SuiteSummary {
        let took = Duration::from_millis(120);
        let notes = vec![note.to_owned()];
        let name = "no_change_diff";
        let result = TestResult { number: 1, name, outcome, took, notes, mib_per_s: Some(10.93) };
        SuiteSummary { results: vec![result], took, ..SuiteSummary::default() }
    }

    #[test]
    fn a_failure_carries_its_kind_and_sentence() {
        let outcome = Outcome::Fail(vec![Violation::new(Kind::Missed, "LBA 3 is <lost>")]);
        let end = RunEnd { exit_code: 1, report: None };
        let xml = junit(&header("https://a"), &summary(outcome, "a note"), &end).expect("encodes");
        for part in [
            r#"<property name="policy" value="exact"/>"#,
            r#"<property name="target" value="simulator"/>"#,
            r#"type="missed""#,
            r#"message="missed (data loss): LBA 3 is &lt;lost&gt;""#,
            r#"failures="1""#,
            "<system-out>a note</system-out>",
            r#"<property name="mib_per_s" value="10.9"/>"#,
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
    }

    #[test]
    fn errors_and_not_applicable_are_not_failures() {
        let end = RunEnd { exit_code: 3, report: None };
        let xml = |outcome| junit(&header("x"), &summary(outcome, "n"), &end).expect("encodes");
        let error = xml(Outcome::Error("no route".to_owned()));
        assert!(error.contains(r#"<error message="could not test: no route""#), "{error}");
        let skipped = xml(Outcome::NotApplicable("no wire".to_owned()));
        assert!(skipped.contains(r#"<skipped message="not applicable: no wire""#), "{skipped}");
    }

    #[test]
    fn the_audit_and_the_handshake_are_cases_only_when_something_is_wrong() {
        let end = RunEnd { exit_code: 1, report: None };
        let fine = SuiteSummary { audit: Some(Outcome::Pass), ..summary(Outcome::Pass, "n") };
        let xml = junit(&header("x"), &fine, &end).expect("encodes");
        assert!(xml.contains(r#"tests="1""#) && !xml.contains("final_audit"), "{xml}");
        let wrong = SuiteSummary {
            audit: Some(Outcome::Error("no route".to_owned())),
            handshake: vec![Violation::new(Kind::Leaked, "LBA 9")],
            ..fine
        };
        let xml = junit(&header("x"), &wrong, &end).expect("encodes");
        for part in [
            r#"tests="3""#,
            r#"failures="1""#,
            r#"errors="1""#,
            r#"<testcase name="handshake" classname="lbaudit.suite">"#,
            r#"type="leaked""#,
            r#"<testcase name="final_audit" classname="lbaudit.suite">"#,
            r#"message="could not test: no route""#,
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
    }

    proptest! {
        #[test]
        fn any_text_makes_a_file_that_reads_back(text: String, raw in proptest::collection::vec(0u32..0x11_0000, 0..40)) {
            let odd: String = raw.into_iter().filter_map(char::from_u32).collect();
            let text = text + &odd + "\0\u{b}\u{ffff}\u{1b}[31m]]>";
            let end = RunEnd { exit_code: 3, report: None };
            let xml = junit(&header(&text), &summary(Outcome::Error(text.clone()), &text), &end);
            let xml = xml.expect("encodes");
            prop_assert!(Report::deserialize_from_str(&xml).is_ok(), "{xml}");
        }
    }
}
