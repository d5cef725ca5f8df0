//! The page of a random run. Not covered: its parts (`super::finding`, `super::figures`), suites
//! (`super::suite`).

use super::{Head, clean, figures, finding, page};
use crate::array::escape_text;
use crate::campaign::retold::Retold;
use crate::campaign::run_files::Started;
use crate::campaign::run_record::{Found, RunRecord};
use crate::campaign::trend::Figures;
use crate::report::Reached;
use crate::report::again::command_line;
use crate::report::finding::Again;
use crate::report::map::LbaMap;
use crate::report::verdict::{Standing, campaign_verdict, counted, gravest_first, grouped};
use maud::{Markup, html};
use std::path::Path;

/// Findings that are drawn; more of them are listed.
const DRAWN: usize = 20;
/// Letters of a finding's sentence in the index.
const SENTENCE: usize = 140;

/// A finding with what its folder tells besides.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What its folder tells.
    pub retold: Retold,
    /// Its map, if it concerns LBAs.
    pub map: Option<LbaMap>,
}

/// What a page is made of.
pub struct CampaignPage<'p> {
    /// The run.
    pub run: &'p RunRecord,
    /// Whether it still goes on.
    pub alive: bool,
    /// Its findings, the gravest first; as many as are to be drawn.
    pub shown: &'p [Shown],
    /// Earlier runs and this one.
    pub trend: &'p [Figures],
    /// How its folder is spelt in commands.
    pub folder: &'p Path,
}

impl CampaignPage<'_> {
    /// Findings that a page draws at most.
    pub const DRAWN: usize = DRAWN;
}

/// The page.
pub fn campaign_page(of: &CampaignPage<'_>) -> String {
    let run = of.run;
    let standing = Standing::of(run.checkpoint.exit_code, of.alive);
    let verdict = campaign_verdict(run);
    let reached = run.coverage.as_ref().map(Reached::of);
    let totals = &run.checkpoint.so_far.totals;
    let sections = [
        ("findings", "Findings".to_owned(), findings(of)),
        ("coverage", "What was covered".to_owned(), figures::coverage(reached.as_ref())),
        (
            "speed",
            "Speed".to_owned(),
            figures::over_time(&run.samples, totals, run.checkpoint.seconds),
        ),
        ("over-report", "Over-reporting".to_owned(), figures::over_reporting(totals)),
        ("trend", "Trend".to_owned(), figures::trend(of.trend)),
        ("run", "The run".to_owned(), about(run)),
    ];
    let title = format!(
        "{}: lbaudit {} on {}",
        verdict.sentence,
        kind_of_run(&run.started),
        clean(&run.started.target)
    );
    let head = Head {
        title: &title,
        colour: verdict.colour,
        sentence: &verdict.sentence,
        alerts: alerts(run, standing),
        facts: facts(run, standing),
        index: index(of),
    };
    let name = of.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    page(
        &head,
        &sections,
        &html! {
            p { "Made by lbaudit " (env!("CARGO_PKG_VERSION")) " of the run folder " code { (clean(&name)) } "; `lbaudit report` makes it again." }
        },
    )
}

fn kind_of_run(started: &Started) -> &str {
    match started.arguments.first().map(String::as_str) {
        Some("check") => "check",
        _ => "soak",
    }
}

fn alerts(run: &RunRecord, standing: Standing) -> Vec<String> {
    let started = &run.started;
    let mut alerts = Vec::new();
    if let Some(words) = standing.words() {
        alerts.push(format!("This run is {words}."));
    }
    if started.arguments.iter().any(|word| word == "--insecure") {
        alerts.push("The server's certificate was not verified (--insecure).".to_owned());
    }
    if !started.planted.is_empty() {
        let bugs = clean(&started.planted.join(", "));
        alerts.push(format!("Bugs were planted on purpose: {bugs}."));
    }
    if let Some(shard) = &started.shard {
        alerts.push(format!("This is only part {} of a campaign.", clean(shard)));
    }
    if started.target.starts_with("simulator") && started.planted.is_empty() {
        alerts.push("The target is the simulator: this says nothing about an array.".to_owned());
    }
    alerts
}

fn facts(run: &RunRecord, standing: Standing) -> Vec<(&'static str, String)> {
    let (started, totals) = (&run.started, &run.checkpoint.so_far.totals);
    let exit = match (run.checkpoint.exit_code, standing) {
        (Some(code), _) => code.to_string(),
        (None, Standing::GoesOn) => "none yet".to_owned(),
        (None, _) => "none: it was killed".to_owned(),
    };
    let mut facts = vec![
        ("Target", clean(&started.target)),
        ("Seed", started.seed.to_string()),
        ("Profile", clean(&started.profile)),
        (
            "Over-reporting judged",
            clean(started.policy.as_deref().unwrap_or("as drawn for each case")),
        ),
        ("Cases", grouped(totals.cases)),
        ("Diffs judged", grouped(totals.diffs)),
        ("Not judged", grouped(totals.unknown)),
        ("Nothing to compare", counted(totals.nothing_compared, "case", "cases")),
        (
            "Version",
            format!("lbaudit {}, generator g{}", clean(&started.version), started.generator),
        ),
        ("Exit code", exit),
    ];
    if let Some(earlier) = &started.resumes {
        facts.push(("Goes on with", clean(earlier)));
    }
    if !started.merged.is_empty() {
        facts.push(("Merged of", counted(started.merged.len() as u64, "run", "runs")));
    }
    facts
}

/// The findings, each a link to where it is told in full.
fn index(of: &CampaignPage<'_>) -> Markup {
    let findings = gravest_first(of.run);
    let shown = of.shown.len().min(DRAWN);
    let rest = findings.len().saturating_sub(shown);
    html! {
        @if !findings.is_empty() {
            nav class="index" aria-label="Findings, the gravest first" {
                ul {
                    @for found in findings.into_iter().take(shown) {
                        @let (number, violation) = (found.known.number, found.record.shown());
                        li {
                            a href={ "#finding-" (number) } {
                                "Finding " (number) ": " (violation.kind) " (" (violation.kind.meaning()) ")"
                            }
                            " " (escape_text(&violation.sentence, SENTENCE))
                        }
                    }
                    @if rest > 0 {
                        li { a href="#further" { (counted(rest as u64, "further finding", "further findings")) } }
                    }
                }
            }
        }
    }
}

fn findings(of: &CampaignPage<'_>) -> Markup {
    let run = of.run;
    let all = gravest_first(run);
    let drawn: Vec<(&Found, &Shown)> = all.iter().copied().zip(of.shown).take(DRAWN).collect();
    let rest = all.get(drawn.len()..).unwrap_or_default();
    html! {
        @if run.findings.is_empty() { p { "No case showed a violation that was looked into." } }
        @if run.findings.len() > 1 {
            p { "A finding stands for all cases of one cause: the same kind of violation with the same kinds of operations left after shrinking. The gravest come first." }
        }
        @for (found, shown) in drawn {
            @let folder = of.folder.join(format!("finding-{}", found.known.number));
            @let again = Again::of_run(&run.started, shown.retold.by_hand);
            (finding::drawn(found, &shown.retold, shown.map.as_ref(), (&folder, &again)))
        }
        @if !rest.is_empty() { (finding::listed(rest)) }
        @if !run.unfinished.is_empty() { (finding::unfinished(&run.unfinished)) }
        @if !run.checkpoint.problems.is_empty() {
            h3 { "Cases that could not be judged" }
            ul class="plain" { @for problem in &run.checkpoint.problems { li { (clean(problem)) } } }
        }
    }
}

fn about(run: &RunRecord) -> Markup {
    let started = &run.started;
    let untestable =
        started.capabilities.as_ref().map(|known| known.not_testable()).unwrap_or_default();
    html! {
        h3 { "What could not be tested, and what else must be known" }
        @if untestable.is_empty() && started.notes.is_empty() { p { "Nothing." } }
        ul class="plain" {
            @if !untestable.is_empty() { li { "not testable on this target: " (untestable.join(", ")) } }
            @for note in &started.notes { li { (clean(note)) } }
        }
        h3 { "Command line" }
        pre { (clean(&command_line(&started.arguments))) }
        h3 { "Digest" }
        p { code { (run.checkpoint.so_far.totals.digest) } }
        p class="soft" { "Equal for every run of the same cases on the same target, whatever the order, the number of threads and the parts." }
        @if !started.merged.is_empty() {
            h3 { "Merged of these runs" }
            ul class="plain" { @for run in &started.merged { li { (clean(run)) } } }
        }
    }
}
