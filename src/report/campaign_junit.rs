//! The JUnit file of a campaign: one failed case for each finding, one passed case that says how much
//! was found in order, or an error if nothing could be tested. Pictures are attached by the line that
//! Jenkins (junit-attachments plugin) and GitLab read.
//!
//! Not covered: suites (`super::junit`).

use super::junit::clean;
use super::verdict::{Colour, Standing, campaign_verdict, plainly};
use super::violation::violation_lines;
use crate::campaign::run_record::{Found, RunRecord};
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
};
use std::path::Path;
use std::time::Duration;

/// Name of a finding's picture in its folder.
pub const MAP: &str = "map.png";

/// The whole file. `attached` spells the path of a picture for whoever reads the file; `None` if it is
/// not there.
///
/// # Errors
/// None that is known: every text is cleaned of what XML cannot hold first.
pub fn campaign_junit(
    run: &RunRecord,
    attached: &dyn Fn(&Path) -> Option<String>,
) -> Result<String, SerializeError> {
    let (started, kept) = (&run.started, &run.checkpoint);
    let took = Duration::try_from_secs_f64(kept.seconds).unwrap_or_default();
    let mut suite = TestSuite::new("lbaudit campaign");
    let exit_code = kept.exit_code.map_or_else(|| "none".to_owned(), |code| code.to_string());
    for (name, value) in [
        ("version", started.version.clone()),
        ("target", started.target.clone()),
        ("seed", started.seed.to_string()),
        ("profile", started.profile.clone()),
        ("digest", kept.so_far.totals.digest.to_string()),
        ("exit_code", exit_code),
    ] {
        suite.add_property(Property::new(name, clean(&value)));
    }
    for remark in &started.notes {
        suite.add_property(Property::new("remark", clean(remark)));
    }
    suite.set_time(took);
    suite.add_test_cases(run.findings.iter().map(|found| finding(found, attached)));
    suite.add_test_case(summary(run, took));
    let mut report = Report::new("lbaudit");
    report.set_time(took);
    report.add_test_suite(suite);
    report.to_string()
}

/// `missed: discard+write`: the same for the same cause in every run, so that CI systems see it again.
fn name(found: &Found) -> String {
    let signature = &found.known.signature;
    match signature.ops.as_slice() {
        [] => signature.kind.to_string(),
        ops => format!("{}: {}", signature.kind, ops.join("+")),
    }
}

fn finding(found: &Found, attached: &dyn Fn(&Path) -> Option<String>) -> TestCase {
    let shown = found.record.shown();
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_type(shown.kind.name());
    status.set_message(clean(&shown.to_string()));
    let mut lines = violation_lines(shown);
    lines.extend(super::finding::step_lines(&found.scenario.steps));
    status.set_description(clean(&lines.join("\n")));
    let mut case = TestCase::new(clean(&name(found)), status);
    case.set_classname("lbaudit.campaign");
    let number = found.known.number;
    let cases = plainly(found.known.cases, "case", "cases");
    let mut out = format!("finding-{number}, in {cases}, first in {}", found.record.case);
    if let Some(path) = attached(&found.folder.join(MAP)) {
        out.push_str(&format!("\n[[ATTACHMENT|{path}]]"));
    }
    case.set_system_out(clean(&out));
    case
}

/// The case that says how much was in order, or why nothing is known.
fn summary(run: &RunRecord, took: Duration) -> TestCase {
    let totals = &run.checkpoint.so_far.totals;
    let verdict = campaign_verdict(run);
    let standing = Standing::of(run.checkpoint.exit_code, false);
    let nothing_known = matches!(verdict.colour, Colour::Unsure);
    let unseen = run.findings.is_empty() && matches!(verdict.colour, Colour::Bad);
    let status = match (nothing_known, unseen) {
        (true, _) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            let problems = &run.checkpoint.problems;
            status.set_message(clean(&format!("could not test: {}", verdict.sentence)));
            status.set_description(clean(&problems.join("\n")));
            status
        }
        (_, true) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(clean(&verdict.sentence));
            status
        }
        _ => TestCaseStatus::success(),
    };
    let right = totals.cases - totals.failures.min(totals.cases);
    let mut case = TestCase::new("no violation in the other cases", status);
    case.set_classname("lbaudit.campaign");
    case.set_time(took);
    let cut = standing.words().map(|words| format!("; {words}")).unwrap_or_default();
    case.set_system_out(clean(&format!(
        "no violation in {right} of {}, {} judged{cut}",
        plainly(totals.cases, "case", "cases"),
        plainly(totals.diffs, "diff", "diffs")
    )));
    case
}
