//! The original suite's screen: 70-column rules, dots to column 48, a table with notes, one last
//! line that says it all. Whole screens are golden-tested (`golden/`, `UPDATE_GOLDEN=1` rewrites).
//!
//! Errors of the output (a closed pipe) end the printing, never the run: it still has to clean up.
//! Not covered: what is judged and how a run ends; that comes in as data.

use super::spinner::Progress;
use super::violation::violation_lines;
use super::{Reporter, RunEnd, RunHeader};
use crate::engine::Event;
use crate::suite::{Outcome, SuiteSummary, TestResult, seconds};
use std::io::Write;
use std::time::Duration;

const COLUMNS: usize = 70;
/// Dots fill up to here; the result begins one column later.
const DOTS_TO: usize = 48;
/// Width of the table's first two columns; the last is right-aligned at [`COLUMNS`].
const NAME_COLUMNS: usize = 49;
const RESULT_COLUMNS: usize = 10;
/// Violations of one test that are shown; all of them are in the machine-readable reports.
const VIOLATIONS_SHOWN: usize = 5;
/// What the table calls the audit after the last test.
const AUDIT: &str = "final audit of the target";

/// How the screen looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Results in colour.
    pub color: bool,
    /// Notes also under passing tests.
    pub verbose: bool,
    /// Only what is not fine, and the last line.
    pub quiet: bool,
}

#[derive(Clone, Copy)]
enum Ink {
    Plain,
    Red,
    Green,
    Yellow,
    Dim,
}

impl Style {
    fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Red => 31,
            Ink::Green => 32,
            Ink::Yellow => 33,
            Ink::Dim => 2,
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The screen of one suite run.
pub struct Console<'w> {
    out: &'w mut dyn Write,
    progress: Progress,
    style: Style,
    tests: usize,
    started: usize,
    broken: bool,
}

impl<'w> Console<'w> {
    /// A screen on `out`, with `progress` shown beside it.
    pub fn new(out: &'w mut dyn Write, progress: Progress, style: Style) -> Console<'w> {
        Console { out, progress, style, tests: 0, started: 0, broken: false }
    }
    fn print(&mut self, lines: &[String]) {
        if self.broken {
            return;
        }
        let mut text = lines.join("\n");
        text.push('\n');
        self.broken = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).is_err();
    }
    /// `[1/20] no_change_diff ..........................`
    fn prefix(&self, name: &str) -> String {
        let head = format!("[{}/{}] {name} ", self.started, self.tests);
        let dots = DOTS_TO.saturating_sub(head.chars().count()).max(3);
        format!("{head}{} ", ".".repeat(dots))
    }
    fn table(&self, summary: &SuiteSummary) -> Vec<String> {
        let mut lines = vec![row("TEST", "RESULT", Ink::Plain, "DURATION", self.style), rule('─')];
        for result in &summary.results {
            let (word, ink) = word(&result.outcome);
            if self.style.quiet && matches!(result.outcome, Outcome::Pass) {
                continue;
            }
            lines.push(row(result.name, word, ink, &seconds(result.took), self.style));
            let notes = shown_notes(result, self.style.verbose);
            lines.extend(notes.into_iter().map(|note| format!("  · {note}")));
        }
        for (name, outcome) in summary.besides() {
            let (word, ink) = word(&outcome);
            let title = if name == "final_audit" { AUDIT } else { name };
            lines.push(row(title, word, ink, "", self.style).trim_end().to_owned());
            lines.extend(reasons(&outcome).into_iter().map(|line| format!("  · {line}")));
        }
        lines
    }
}

impl Reporter for Console<'_> {
    fn begin(&mut self, header: &RunHeader) {
        self.tests = header.tests;
        if self.style.quiet {
            let warnings = header.warnings.clone();
            warnings.iter().for_each(|warning| self.print(std::slice::from_ref(warning)));
            return;
        }
        let plural = if header.tests == 1 { "" } else { "s" };
        let mut lines = vec![
            rule('═'),
            format!("Lightbits sync — sanity tests ({} test{plural})", header.tests),
            format!("endpoint {}", header.endpoint),
            format!("source {}", header.source),
            format!("target {}", header.copy),
        ];
        if header.target != "array" {
            lines.push(format!("target {}", header.target));
        }
        lines.extend(header.remarks.iter().map(|remark| format!("note {remark}")));
        let red = |warning: &String| self.style.paint(Ink::Red, &format!("WARNING {warning}"));
        lines.extend(header.warnings.iter().map(red));
        lines.push(rule('═'));
        self.print(&lines);
    }
    fn test_started(&mut self, _number: usize, name: &str) {
        self.started += 1;
        self.progress.begin(&self.prefix(name), name);
    }
    fn event(&mut self, event: &Event) {
        self.progress.event(event);
    }
    fn test_finished(&mut self, result: &TestResult) {
        self.progress.end();
        let (word, ink) = word(&result.outcome);
        if self.style.quiet && matches!(ink, Ink::Green | Ink::Dim) {
            return;
        }
        let how = match &result.outcome {
            Outcome::Pass | Outcome::Fail(_) => seconds(result.took),
            Outcome::Error(why) => format!("could not test: {why}"),
            Outcome::NotApplicable(why) => format!("not applicable: {why}"),
        };
        let line = format!("{}{} ({how})", self.prefix(result.name), self.style.paint(ink, word));
        self.print(&[line]);
    }
    fn run_finished(&mut self, summary: &SuiteSummary, end: &RunEnd) {
        self.progress.end();
        let mut lines = Vec::new();
        let all_fine = summary.besides().is_empty()
            && summary.results.iter().all(|r| matches!(r.outcome, Outcome::Pass));
        if !(self.style.quiet && all_fine) {
            lines.push(rule('═'));
            lines.extend(self.table(summary));
            lines.push(rule('─'));
        }
        lines.push(last_line(summary, self.tests, self.style));
        if !self.style.quiet {
            lines.push(rule('═'));
        }
        if let Some(path) = &end.report {
            lines.push(format!("report {}", path.display()));
        }
        self.print(&lines);
    }
}

fn rule(mark: char) -> String {
    std::iter::repeat_n(mark, COLUMNS).collect()
}

fn row(name: &str, result: &str, ink: Ink, took: &str, style: Style) -> String {
    let pad = " ".repeat(RESULT_COLUMNS.saturating_sub(result.len()));
    let last = COLUMNS - NAME_COLUMNS - RESULT_COLUMNS;
    format!("{name:<NAME_COLUMNS$}{}{pad}{took:>last$}", style.paint(ink, result))
}

fn word(outcome: &Outcome) -> (&'static str, Ink) {
    match outcome {
        Outcome::Pass => ("PASS", Ink::Green),
        Outcome::Fail(_) => ("FAIL", Ink::Red),
        Outcome::Error(_) => ("ERROR", Ink::Yellow),
        Outcome::NotApplicable(_) => ("N/A", Ink::Dim),
    }
}

/// What stands under a test in the table: its violations or reason always; its notes under
/// failing tests always, under passing ones when asked for.
fn shown_notes(result: &TestResult, verbose: bool) -> Vec<String> {
    if matches!(result.outcome, Outcome::Pass) && !verbose {
        return Vec::new();
    }
    let mut lines = reasons(&result.outcome);
    lines.extend(result.notes.iter().cloned());
    lines
}

/// Why it did not pass: the first violations, or the reason.
fn reasons(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    match outcome {
        Outcome::Pass => {}
        Outcome::Fail(violations) => {
            lines.extend(violations.iter().take(VIOLATIONS_SHOWN).flat_map(violation_lines));
            if let Some(more) = violations.len().checked_sub(VIOLATIONS_SHOWN).filter(|&n| n > 0) {
                lines.push(format!("and {more} more violations"));
            }
        }
        Outcome::Error(why) => lines.push(format!("could not test: {why}")),
        Outcome::NotApplicable(why) => lines.push(format!("not applicable: {why}")),
    }
    lines
}

/// `20/20 passed | ALL PASSED | total 483.7s`
fn last_line(summary: &SuiteSummary, tests: usize, style: Style) -> String {
    let (passed, failed, errors, not_applicable) = summary.counts();
    let not_run = tests.saturating_sub(summary.results.len());
    let mut tally = format!("{passed}/{} passed", tests.saturating_sub(not_applicable));
    for (count, what) in
        [(errors, "could not be tested"), (not_applicable, "not applicable"), (not_run, "not run")]
    {
        if count > 0 {
            tally.push_str(&format!(" · {count} {what}"));
        }
    }
    let mut found = Vec::new();
    if failed > 0 {
        found.push(format!("{failed} FAILED"));
    }
    let audit_failed = matches!(summary.audit, Some(Outcome::Fail(_)));
    found.extend(audit_failed.then(|| "AUDIT FAILED".to_owned()));
    found.extend((!summary.handshake.is_empty()).then(|| "HANDSHAKE FAILED".to_owned()));
    let unaudited = !matches!(summary.audit, None | Some(Outcome::Pass));
    let (verdict, ink) = if !found.is_empty() {
        (found.join(", "), Ink::Red)
    } else if summary.interrupted {
        ("INTERRUPTED".to_owned(), Ink::Yellow)
    } else if errors > 0 || not_run > 0 || unaudited {
        ("INCOMPLETE".to_owned(), Ink::Yellow)
    } else if passed == 0 {
        ("NOTHING TESTED".to_owned(), Ink::Yellow)
    } else {
        ("ALL PASSED".to_owned(), Ink::Green)
    };
    let total = total(summary.took);
    format!("{tally} | {} | {total}", style.paint(ink, &verdict))
}

fn total(took: Duration) -> String {
    format!("total {}", seconds(took))
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
