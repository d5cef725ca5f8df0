//! What GitHub shows of a run: `::error` annotations and a summary in Markdown. Pure text; whether it
//! runs there at all is asked elsewhere.
//!
//! Escaping follows the rules of workflow commands: `%`, CR and LF in the message, `:` and `,` besides
//! in a property. <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>
//! Not covered: where the summary goes (`crate::cli`).

use super::verdict::{Colour, Standing, campaign_verdict, gravest_first, plainly, so_many};
use crate::array::escape_text;
use crate::campaign::run_record::RunRecord;
use crate::campaign::suite_run::SuiteRun;
use std::fmt::Write as _;

/// Annotations at most: GitHub shows no more of one step.
const ANNOTATIONS: usize = 10;
/// Bytes of a summary at most; GitHub refuses one of a MiB.
const SUMMARY_MAX: usize = 1_000_000;
/// Letters of one text at most.
const TEXT_MAX: usize = 1_000;

/// Something wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// In a few words.
    pub title: String,
    /// In full.
    pub text: String,
}

/// What is wrong in a random run.
pub fn campaign_troubles(run: &RunRecord) -> Vec<Trouble> {
    let found = gravest_first(run).into_iter().map(|found| {
        let shown = found.record.shown();
        let (number, cases) = (found.known.number, found.known.cases);
        let title = format!("lbaudit finding-{number}: {} ({})", shown.kind, shown.kind.meaning());
        let operations = so_many(found.known.operations, "operation", "operations");
        let cases = plainly(cases, "case", "cases");
        let text = format!("{}; {operations}, in {cases}", shown.sentence);
        Trouble { title, text }
    });
    let mut troubles: Vec<Trouble> = found.collect();
    let verdict = campaign_verdict(run);
    if troubles.is_empty() && verdict.colour != Colour::Good {
        troubles.push(Trouble { title: "lbaudit".to_owned(), text: verdict.sentence });
    }
    troubles
}

/// What is wrong in a run of the suite.
pub fn suite_troubles(run: &SuiteRun) -> Vec<Trouble> {
    let bad = |result: &str| result == "fail" || result == "error";
    let text =
        |notes: &[String]| notes.first().cloned().unwrap_or_else(|| "see the report".to_owned());
    let tests = run.tests.iter().filter(|test| bad(&test.result)).map(|test| Trouble {
        title: format!("lbaudit {} {}", test.number, test.name),
        text: text(&test.notes),
    });
    let handshake = run
        .handshake
        .iter()
        .map(|found| Trouble { title: "lbaudit handshake".to_owned(), text: text(&found.notes) });
    let audit = run
        .audit
        .iter()
        .filter(|audit| bad(&audit.result))
        .map(|audit| Trouble { title: "lbaudit final audit".to_owned(), text: text(&audit.notes) });
    tests.chain(handshake).chain(audit).collect()
}

/// The annotations, a line each.
pub fn annotations(troubles: &[Trouble]) -> Vec<String> {
    let line = |trouble: &Trouble| {
        let title = property(&escape_text(&trouble.title, TEXT_MAX));
        format!("::error title={title}::{}", data(&escape_text(&trouble.text, TEXT_MAX)))
    };
    let mut lines: Vec<String> = troubles.iter().take(ANNOTATIONS).map(line).collect();
    let more = troubles.len().saturating_sub(ANNOTATIONS);
    if more > 0 && lines.pop().is_some() {
        // The last place is this line's own, so there are at least two.
        let text = format!("{} more are in the report", more + 1);
        lines.push(format!("::error title=lbaudit::{text}"));
    }
    lines
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The summary of a random run.
pub fn campaign_summary(run: &RunRecord) -> String {
    let (verdict, totals) = (campaign_verdict(run), &run.checkpoint.so_far.totals);
    let standing = Standing::of(run.checkpoint.exit_code, false);
    let mut text = format!("## {} {}\n\n", sign(verdict.colour), markdown(&verdict.sentence));
    if let Some(words) = standing.words() {
        add(&mut text, &format!("**This run is {words}.**\n\n"));
    }
    let started = &run.started;
    add(
        &mut text,
        &format!(
            "target {} · seed {} · profile {} · {} · {} judged · {} not judged\n\n",
            markdown(&started.target),
            started.seed,
            markdown(&started.profile),
            plainly(totals.cases, "case", "cases"),
            plainly(totals.diffs, "diff", "diffs"),
            totals.unknown
        ),
    );
    if !run.findings.is_empty() {
        add(
            &mut text,
            "| finding | kind | operations | cases | what is wrong |\n|---|---|---|---|---|\n",
        );
    }
    for found in gravest_first(run) {
        let shown = found.record.shown();
        let row = format!(
            "| {} | {} ({}) | {} | {} | {} |\n",
            found.known.number,
            shown.kind,
            shown.kind.meaning(),
            found.known.operations,
            found.known.cases,
            markdown(&shown.sentence)
        );
        if !add(&mut text, &row) {
            break;
        }
    }
    text
}

/// The summary of a run of the suite.
pub fn suite_summary(run: &SuiteRun) -> String {
    let count = |result: &str| run.tests.iter().filter(|test| test.result == result).count();
    let (passed, failed, errors) = (count("pass"), count("fail"), count("error"));
    let colour = match (failed, errors, run.end.is_some() && passed > 0) {
        (1.., ..) => Colour::Bad,
        (0, 0, true) if suite_troubles(run).is_empty() => Colour::Good,
        (0, 0, true) => Colour::Bad,
        _ => Colour::Unsure,
    };
    let mut text = format!(
        "## {} {passed} of {} passed, {failed} failed, {errors} could not be judged\n\ntarget {} · {}\n\n",
        sign(colour),
        so_many(run.started.tests, "test", "tests"),
        markdown(&run.started.target),
        markdown(&run.started.endpoint)
    );
    add(&mut text, "| no. | test | result | seconds | first note |\n|---|---|---|---|---|\n");
    for test in &run.tests {
        let note = test.notes.first().map(|note| markdown(note)).unwrap_or_default();
        let (name, result) = (markdown(&test.name), markdown(&test.result));
        let row =
            format!("| {} | {name} | {result} | {:.2} | {note} |\n", test.number, test.seconds);
        if !add(&mut text, &row) {
            break;
        }
    }
    for trouble in suite_troubles(run).iter().filter(|it| !it.title.contains(char::is_numeric)) {
        add(
            &mut text,
            &format!("\n**{}**: {}\n", markdown(&trouble.title), markdown(&trouble.text)),
        );
    }
    text
}

const fn sign(colour: Colour) -> &'static str {
    match colour {
        Colour::Good => "✅",
        Colour::Bad => "❌",
        Colour::Unsure => "⚠️",
    }
}

/// Adds a piece, unless the text would become too long; then it says so, once.
fn add(text: &mut String, piece: &str) -> bool {
    let fits = text.len() + piece.len() <= SUMMARY_MAX;
    match fits {
        true => text.push_str(piece),
        // Writing to a String cannot fail.
        false => drop(write!(text, "\nMore is in the report.\n")),
    }
    fits
}

/// Foreign text inside a line or a cell of Markdown: nothing in it is markup.
fn markdown(text: &str) -> String {
    let mut escaped = String::new();
    for c in escape_text(text, TEXT_MAX).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // A mention or a reference would call somebody.
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '|' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(c);
            }
            // So that no address becomes a link.
            ':' => escaped.push_str("&#58;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_escaped_as_workflow_commands_want_it_and_at_most_ten() {
        let trouble =
            |n: usize| Trouble { title: format!("a:b,{n}"), text: "50% \n::error::".to_owned() };
        let one = annotations(&[trouble(1)]);
        assert_eq!(one, ["::error title=a%3Ab%2C1::50%25 \\n::error::"]);
        let many = annotations(&(0..30).map(trouble).collect::<Vec<_>>());
        assert_eq!(many.len(), 10);
        assert_eq!(many[9], "::error title=lbaudit::21 more are in the report");
    }

    #[test]
    fn foreign_text_is_no_markup_in_a_summary() {
        assert_eq!(
            markdown("<b>|@x [a](http://b) `c`\n"),
            "&lt;b&gt;\\|&#64;x \\[a\\]\\(http&#58;//b\\) \\`c\\`\\\\n"
        );
    }

    #[test]
    fn a_summary_stays_below_what_github_takes() {
        let mut text = String::new();
        let piece = "x".repeat(400_000);
        let added: Vec<bool> = (0..4).map(|_| add(&mut text, &piece)).collect();
        assert_eq!(added, [true, true, false, false]);
        assert!(text.len() < 1 << 20 && text.ends_with("More is in the report.\n"));
    }
}
