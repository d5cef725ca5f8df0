//! One finding on the page: what is wrong and for whom, the map, the time line, the steps, how to see
//! it again. Not covered: making the map (`crate::report::map`).

use super::timeline::timeline;
use super::{clean, scrolled};
use crate::campaign::finding::{FindingRecord, REPRO, ShrunkRecord};
use crate::campaign::retold::Retold;
use crate::campaign::run_record::Found;
use crate::report::again::TOKEN;
use crate::report::finding::Again;
use crate::report::map::{Cell, Fold, LbaMap, map_svg};
use crate::report::verdict::counted;
use crate::scenario::{Scenario, Step};
use maud::{Markup, html};
use std::path::Path;

/// Steps of a finding that are listed; all of them are in its file.
const STEPS_SHOWN: usize = 200;

/// A finding whose picture is drawn.
pub(super) fn drawn(
    found: &Found,
    retold: &Retold,
    map: Option<&LbaMap>,
    (folder, again): (&Path, &Again),
) -> Markup {
    let number = found.known.number;
    let id = format!("finding-{number}");
    let record = &found.record;
    let shown = record.shown();
    html! {
        article class="finding" id=(id) aria-labelledby={ (id) "-h" } {
            h3 id={ (id) "-h" } {
                span class="kind" { (shown.kind) }
                "Finding " (number) ": " (shown.kind.meaning())
            }
            p class="sentence" { (clean(&shown.sentence)) }
            p class="soft" {
                "First in case " code { (clean(&record.case)) } ", seen in "
                (counted(found.known.cases, "case", "cases")) "."
                @if let Some(shrunk) = &record.shrunk { " " (shrinking(record, shrunk)) }
                @if let Some(near) = &retold.nearest {
                    " Looks like " code { (near.name) }
                    @if let Some(on) = near.modelled_on { " (" (on) ")" }
                    ": " (near.mechanism) "."
                }
            }
            @match map {
                Some(map) => (map_block(map, &id)),
                None => p class="soft" { "It concerns no LBA in particular, so there is no map." },
            }
            h4 { "What happened" }
            (scrolled("Time line of the steps, scrolls sideways", &timeline(&found.scenario.steps, &format!("{id}-line"))))
            (steps(&found.scenario.steps))
            @if let Some(shrunk) = record.shrunk.as_ref().filter(|shrunk| !shrunk.log.is_empty()) {
                (shrink_log(shrunk))
            }
            h4 { "See it again" }
            (commands(folder, again, &found.scenario))
        }
    }
}

fn shrinking(record: &FindingRecord, shrunk: &ShrunkRecord) -> String {
    let cut = if shrunk.finished { "" } else { ", not to the end" };
    let flaky = match shrunk.reproduced.split_once('/') {
        Some((shown, tried)) if shown != tried => " It does not show every time.",
        _ => "",
    };
    format!(
        "Shrunk from {} to {} in {} ({:.1} s{cut}), reproduced {}.{flaky}",
        record.operations_before,
        counted(shrunk.operations as u64, "operation", "operations"),
        counted(shrunk.runs, "run", "runs"),
        shrunk.seconds,
        clean(&shrunk.reproduced)
    )
}

fn map_block(map: &LbaMap, id: &str) -> Markup {
    let counts = map.rows.iter().any(|row| row.title.ends_with('*'));
    html! {
        h4 { "LBA map, " (map.title()) }
        // One of the two is shown, as the screen or the paper has room.
        div class="map" {
            (map_svg(map, Fold::Wide, &format!("{id}-map")))
            (map_svg(map, Fold::Narrow, &format!("{id}-fold")))
        }
        (legend(&map.kinds()))
        @if counts { p class="soft" { "* what was done between these snapshots counts towards the answer." } }
        @if map.more_chunks > 0 {
            p class="soft" { (counted(map.more_chunks, "more chunk is", "more chunks are")) " concerned and not shown." }
        }
        details {
            summary { "The map in words" }
            (scrolled("The map in words, scrolls sideways", &html! {
                table {
                    caption { "LBAs of each row of the map" }
                    thead { tr { th scope="col" { "Row" } th scope="col" { "LBAs" } } }
                    tbody {
                        @for row in &map.rows { tr { th scope="row" { (row.title) } td { (map.words(row)) } } }
                    }
                }
            }))
        }
    }
}

fn legend(kinds: &[Cell]) -> Markup {
    html! {
        ul class="legend" aria-label="Signs of the map" {
            @for cell in kinds {
                li {
                    svg width="13" height="20" aria-hidden="true" {
                        rect class={ "f-" (cell.class().name()) } x="1" y="1" width="11" height="18" {}
                        text class={ "t-" (cell.class().name()) } x="6.5" y="14" text-anchor="middle" font-weight="700" { (cell.letter()) }
                    }
                    @match cell {
                        Cell::Holds(_) => "data of the write with that number",
                        cell => (cell.words()),
                    }
                }
            }
        }
    }
}

fn steps(steps: &[Step]) -> Markup {
    let last = steps.len();
    let left_out = last.saturating_sub(STEPS_SHOWN);
    html! {
        ol class="steps" {
            @for (number, step) in (1..).zip(steps).filter(|(number, _)| *number <= STEPS_SHOWN || *number == last) {
                li value=(number) {
                    @if number == last { strong { "then " (step.op) } } @else { (step.op) }
                    @if let Some(fault) = &step.fault { " with " (clean(&fault.kind)) " at call " (fault.nth) }
                }
            }
        }
        @if left_out > 1 { p class="soft" { (counted(left_out as u64 - 1, "more step is", "more steps are")) " in " code { (REPRO) } "." } }
    }
}

fn shrink_log(shrunk: &ShrunkRecord) -> Markup {
    html! {
        details {
            summary { "What shrinking did (" (counted(shrunk.log.len() as u64, "step", "steps")) ")" }
            (scrolled("What shrinking did, scrolls sideways", &html! {
                table {
                    caption { "Each cut that still showed the violation" }
                    thead { tr { th scope="col" { "Cut" } th scope="col" class="n" { "Steps left" } th scope="col" class="n" { "Runs so far" } } }
                    tbody {
                        @for kept in shrunk.log.iter().take(STEPS_SHOWN) {
                            tr { td { (clean(&kept.what)) } td class="n" { (kept.steps) } td class="n" { (kept.runs) } }
                        }
                    }
                }
            }))
        }
    }
}

/// The commands, in words that need no shell knowledge.
pub(super) fn commands(folder: &Path, again: &Again, scenario: &Scenario) -> Markup {
    html! {
        dl class="again" {
            dt { "Run it again" }
            dd { pre { (clean(&again.line(folder))) } }
            @if let Some(line) = again.by_hand_line(folder, scenario) {
                dt {
                    "By hand, with curl and dd only; asks before it writes"
                    @if !line.contains(TOKEN) { ". " (TOKEN) " must hold a token; it names what else it lacks." }
                }
                dd { pre { (clean(&line)) } }
            }
            @if let Some(line) = again.keep_line(folder) {
                dt { "Keep it as a regression" }
                dd { pre { (clean(&line)) } }
            }
        }
    }
}

/// Findings beyond those that are drawn, a row each.
pub(super) fn listed(found: &[&Found]) -> Markup {
    scrolled(
        "Further findings, scrolls sideways",
        &html! {
            table id="further" {
                caption { "Further findings, without maps: their folders hold everything" }
                thead { tr { th scope="col" { "Finding" } th scope="col" { "Kind" } th scope="col" { "What is wrong" } th scope="col" class="n" { "Operations" } th scope="col" class="n" { "Cases" } } }
                tbody {
                    @for found in found {
                        @let shown = found.record.shown();
                        tr {
                            th scope="row" { (found.known.number) }
                            td { (shown.kind) " (" (shown.kind.meaning()) ")" }
                            td { (clean(&shown.sentence)) }
                            td class="n" { (found.known.operations) }
                            td class="n" { (found.known.cases) }
                        }
                    }
                }
            }
        },
    )
}

/// Findings that nobody has looked into to the end.
pub(super) fn unfinished(records: &[FindingRecord]) -> Markup {
    html! {
        h3 { "Not looked into to the end" }
        p { "The run was killed over these; a run that goes on with it looks into them anew." }
        ul class="plain" {
            @for record in records {
                li {
                    strong { (record.kind) } ", case " code { (clean(&record.case)) } ", "
                    (counted(record.operations_before as u64, "operation", "operations")) ": "
                    (clean(&record.violation.sentence))
                }
            }
        }
    }
}
