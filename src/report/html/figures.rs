//! The parts of the page that hold figures: coverage of the model, speed, memory and answers over
//! time, over-reporting, and how the run compares with earlier ones. Not covered: counting any of it.

use super::chart::{Line, chart, clock, short, spark};
use super::{clean, scrolled};
use crate::campaign::check::Totals;
use crate::campaign::run_files::Sample;
use crate::campaign::trend::{Figures, over_report};
use crate::report::Reached;
use crate::report::verdict::{counted, grouped};
use maud::{Markup, html};

/// Groups that lack combinations that are named.
const GROUPS_SHOWN: usize = 25;
const MIB: f64 = 1_048_576.0;

/// What was reached of the model.
pub(super) fn coverage(reached: Option<&Reached>) -> Markup {
    let Some(reached) = reached else {
        return html! {
            p class="alert" { "Not known: the run was killed before it could sum up what its cases reached." }
        };
    };
    let Reached { cases, goals, missed, combinations: (some, all), lacking } = reached;
    let got = goals.saturating_sub(missed.len());
    html! {
        p {
            (counted(*cases, "case", "cases")) " looked at. A goal is a situation that must come up at least once; a combination is an operation in a state of the volume."
        }
        dl class="facts" {
            div { dt { "Goals reached" } dd { (got) " of " (goals) (bar(got, *goals, "goals")) } }
            div { dt { "Combinations reached" } dd { (grouped(*some as u64)) " of " (grouped(*all as u64)) (bar(*some, *all, "combinations")) } }
        }
        @if missed.is_empty() {
            p { "No goal was missed." }
        } @else {
            h3 { "Goals never reached" }
            ul class="plain" { @for goal in missed { li { (goal) } } }
        }
        @if !lacking.is_empty() {
            details {
                summary { (counted(lacking.len() as u64, "group that is", "groups that are")) " not whole" }
                (scrolled("Groups that are not whole, scrolls sideways", &html! {
                    table {
                        caption { "Those that lack most come first" }
                        thead { tr { th scope="col" { "Group" } th scope="col" class="n" { "Reached" } th scope="col" class="n" { "Of" } } }
                        tbody {
                            @for group in lacking.iter().take(GROUPS_SHOWN) {
                                tr { th scope="row" { (group.words) } td class="n" { (group.reached) } td class="n" { (group.of) } }
                            }
                        }
                    }
                }))
                @if lacking.len() > GROUPS_SHOWN { p class="soft" { "and " (lacking.len() - GROUPS_SHOWN) " more" } }
            }
        }
    }
}

fn bar(some: usize, all: usize, what: &str) -> Markup {
    let percent = (some * 100).checked_div(all).unwrap_or(0);
    html! {
        span class="bar" {
            svg role="img" aria-label={ (percent) " % of all " (what) } width="144" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" {
                rect class="fill" width=(percent) height="10" {}
            }
        }
    }
}

/// Speed, memory and answers over time.
pub(super) fn over_time(samples: &[Sample], totals: &Totals, seconds: f64) -> Markup {
    let value = |get: &dyn Fn(&Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        samples.iter().filter_map(|sample| Some((sample.seconds, get(sample)?))).collect()
    };
    let memory = value(&|sample| sample.rss_bytes.map(|bytes| float(bytes) / MIB));
    let open = value(&|sample| sample.descriptors.map(float));
    let (p50, p99) = (value(&|sample| sample.api_p50_ms), value(&|sample| sample.api_p99_ms));
    let no_api = p50.is_empty() && p99.is_empty();
    let line = |name, points| Line { name, points };
    let charts: Vec<Markup> = [
        chart("Throughput", "operations/s", "c-ops", &[line("operations/s", speed(samples))]),
        chart("Memory of this process", "MiB", "c-rss", &[line("resident memory", memory)]),
        chart("Open file descriptors", "descriptors", "c-fds", &[line("descriptors", open)]),
        chart(
            "Answers of the array's API",
            "ms",
            "c-api",
            &[
                line("half of the answers took at most (p50)", p50),
                line("99 of 100 took at most (p99)", p99),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    html! {
        p {
            (counted(totals.ops, "operation", "operations")) " in " (clock(seconds)) ": "
            (short(float(totals.ops) / seconds.max(1e-9))) " a second, "
            (grouped(totals.ops_per_busy_second())) " a second of a core at work; "
            (counted(totals.pages, "page", "pages")) ", " (grouped(totals.taken)) " snapshots taken and "
            (grouped(totals.deleted)) " deleted."
        }
        @if charts.is_empty() {
            p class="soft" { "The run was too short for lines over time." }
        } @else {
            div class="charts" { @for chart in charts { (chart) } }
        }
        @if no_api { p class="soft" { "No call of an array's API was timed: this target was reached in the same process, or the run was too short." } }
    }
}

/// Operations a second between each two samples. A run that goes on counts on, so time never goes
/// back; where it does not pass there is no figure.
fn speed(samples: &[Sample]) -> Vec<(f64, f64)> {
    let pairs = samples.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let seconds = after.seconds - before.seconds;
        let ops = after.operations.checked_sub(before.operations)?;
        (seconds > 0.05).then(|| (after.seconds, float(ops) / seconds))
    });
    pairs.collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(count: u64) -> f64 {
    count as f64
}

/// How much more was reported than had to be.
pub(super) fn over_reporting(totals: &Totals) -> Markup {
    match over_report(totals) {
        Some(factor) => html! {
            p { strong { (format!("{factor:.2}")) } " LBAs reported for each LBA that had to be: "
                (grouped(totals.reported_lbas)) " for " (grouped(totals.must_lbas)) "." }
            p class="soft" { "1.00 is exact. More is extra copying, never loss; an array that tracks whole chunks of 64 LBAs can come to 64. Data written again with the same bytes may be reported and need not be, and the simulator takes every freedom that an array has, so an honest target lies above 1. Counted are diffs of which the model knows what they had to report." }
        },
        None => html! { p { "No diff had to report anything, so there is no factor." } },
    }
}

/// The run among earlier ones.
pub(super) fn trend(figures: &[Figures]) -> Markup {
    if figures.len() < 2 {
        return html! { p class="soft" { "There is no earlier run of the same target, profile and planted bugs in this folder of runs." } };
    }
    let series = |get: &dyn Fn(&Figures) -> f64| figures.iter().map(get).collect::<Vec<f64>>();
    let last = figures.len() - 1;
    let has_api = figures.iter().any(|run| run.api_p50_ms.is_some());
    let or_none = |value: Option<f64>, unit: &str| {
        let decimals = usize::from(value.is_some_and(|value| value < 100.0));
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}{unit}"))
    };
    let (speed, ms) = (|value| or_none(value, ""), |value| or_none(value, " ms"));
    scrolled(
        "Trend, scrolls sideways",
        &html! {
            table {
                caption { "Runs of the same target, profile and planted bugs in this folder of runs, oldest first; the last one is this run" }
                thead { tr {
                    th scope="col" { "Run" } th scope="col" class="n" { "Cases" }
                    th scope="col" class="n" { "Operations/s per core" } th scope="col" class="n" { "Operations/s" }
                    @if has_api { th scope="col" class="n" { "API p50" } th scope="col" class="n" { "API p99" } }
                    th scope="col" class="n" { "Findings" }
                    th scope="col" class="n" { "Over-report" } th scope="col" class="n" { "Exit" }
                } }
                tbody {
                    @for (place, run) in figures.iter().enumerate() {
                        tr class=[(place == last).then_some("now")] {
                            th scope="row" class="nowrap" { (clean(&run.name)) @if place == last { " (this run)" } }
                            td class="n" { (grouped(run.cases)) }
                            td class="n" { (grouped(run.ops_per_core_s)) }
                            td class="n" { (speed(run.wall_ops_per_s)) }
                            @if has_api { td class="n" { (ms(run.api_p50_ms)) } td class="n" { (ms(run.api_p99_ms)) } }
                            td class="n" { (run.findings) }
                            td class="n" { @match run.over_report { Some(factor) => (format!("{factor:.2}")), None => "–" } }
                            td class="n" { @match run.exit_code { Some(code) => (code), None => "killed" } }
                        }
                    }
                    tr {
                        th scope="row" { "Line" }
                        td class="n" { (spark("Cases", "t-cases", &series(&|run| float(run.cases)))) }
                        td class="n" { (spark("Operations a second per core", "t-ops", &series(&|run| float(run.ops_per_core_s)))) }
                        td class="n" { (spark("Operations a second", "t-wall", &series(&|run| run.wall_ops_per_s.unwrap_or(0.0)))) }
                        @if has_api {
                            td class="n" { (spark("API, median in ms", "t-p50", &series(&|run| run.api_p50_ms.unwrap_or(0.0)))) }
                            td class="n" { (spark("API, 99 of 100 in ms", "t-p99", &series(&|run| run.api_p99_ms.unwrap_or(0.0)))) }
                        }
                        td class="n" { (spark("Findings", "t-found", &series(&|run| float(run.findings as u64)))) }
                        td class="n" { (spark("Over-report", "t-over", &series(&|run| run.over_report.unwrap_or(0.0)))) }
                        td {}
                    }
                }
            }
        },
    )
}
