//! The page of a run of the fixed suite: the verdict, the tests as a table, what failed in full. Not
//! covered: random runs (`super::campaign`).

use super::{Head, clean, page, scrolled};
use crate::campaign::suite_run::{Besides, SuiteRun, SuiteTest};
use crate::report::again::command_line;
use crate::report::verdict::{Colour, Standing, counted};
use crate::suite::SUITE;
use maud::{Markup, html};

/// The page. `alive`: whether the run still goes on.
pub fn suite_page(run: &SuiteRun, alive: bool) -> String {
    let standing = Standing::of(run.end.as_ref().map(|end| end.exit_code), alive);
    let (colour, sentence) = verdict(run);
    let started = &run.started;
    let mut alerts: Vec<String> =
        standing.words().map(|words| format!("This run is {words}.")).into_iter().collect();
    alerts.extend(started.warnings.iter().map(|warning| clean(warning)));
    if started.target == "simulator" {
        alerts.push("The target is the simulator: this says nothing about an array.".to_owned());
    }
    let exit = run
        .end
        .as_ref()
        .map_or_else(|| "none: it did not end".to_owned(), |end| end.exit_code.to_string());
    let facts = vec![
        ("Target", clean(&started.target)),
        ("Endpoint", clean(&started.endpoint)),
        ("Source", clean(&started.source)),
        ("Target volume", clean(&started.copy)),
        ("Over-reporting judged", clean(&started.policy)),
        ("Version", format!("lbaudit {}", clean(&started.version))),
        ("Exit code", exit),
    ];
    let title = format!("{sentence}: lbaudit suite on {}", clean(&started.target));
    let wrong: Vec<&SuiteTest> =
        run.tests.iter().filter(|test| test.result == "fail" || test.result == "error").collect();
    let index = index(&wrong);
    let head = Head { title: &title, colour, sentence: &sentence, alerts, facts, index };
    let sections = [
        ("tests", "The tests".to_owned(), table(run)),
        ("failures", "What is wrong".to_owned(), failures(run, &wrong)),
        ("run", "The run".to_owned(), about(run)),
    ];
    let name = run.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    page(
        &head,
        &sections,
        &html! {
            p { "Made by lbaudit " (env!("CARGO_PKG_VERSION")) " of the run folder " code { (clean(&name)) } "; `lbaudit report` makes it again." }
        },
    )
}

fn verdict(run: &SuiteRun) -> (Colour, String) {
    let count = |result: &str| run.tests.iter().filter(|test| test.result == result).count();
    let (passed, failed, errors) = (count("pass"), count("fail"), count("error"));
    let tests = counted(run.started.tests as u64, "test", "tests");
    let besides = run.handshake.iter().chain(&run.audit).filter(|it| it.result != "pass").count();
    let missing = run.started.tests.saturating_sub(run.tests.len());
    if failed > 0 {
        (Colour::Bad, format!("{failed} of {tests} failed, {passed} passed."))
    } else if besides > 0 {
        let found = counted(besides as u64, "check besides the tests", "checks besides the tests");
        (Colour::Bad, format!("{found} found something wrong; {passed} of {tests} passed."))
    } else if errors > 0 {
        (
            Colour::Unsure,
            format!("{errors} of {tests} could not be judged, {passed} passed: this is no pass."),
        )
    } else if missing > 0 || run.end.is_none() {
        (
            Colour::Unsure,
            format!("{passed} of {tests} passed, {missing} did not run: this is no pass."),
        )
    } else if passed == 0 {
        (Colour::Unsure, "No test applied: this is no pass.".to_owned())
    } else {
        let not = count("not_applicable");
        let not = if not > 0 { format!(", {not} did not apply") } else { String::new() };
        let all =
            if passed == 1 { "The only test".to_owned() } else { format!("All {passed} tests") };
        (Colour::Good, format!("{all} passed{not}."))
    }
}

fn look(result: &str) -> (&'static str, &'static str) {
    match result {
        "pass" => ("is-good", "✓ passed"),
        "fail" => ("is-bad", "✗ failed"),
        "error" => ("is-unsure", "? could not be judged"),
        "not_applicable" => ("soft", "– not applicable"),
        _ => ("soft", "– not run"),
    }
}

fn index(wrong: &[&SuiteTest]) -> Markup {
    html! {
        @if !wrong.is_empty() {
            nav class="index" aria-label="Tests with something wrong" {
                ul { @for test in wrong {
                    li { a href={ "#test-" (test.number) } { (test.number) ". " (clean(&test.name)) } ": " (look(&test.result).1) }
                } }
            }
        }
    }
}

fn table(run: &SuiteRun) -> Markup {
    scrolled(
        "The tests, scrolls sideways",
        &html! {
            table {
                caption { "The 20 fixed tests, what each proves, and what it came to" }
                thead { tr {
                    th scope="col" class="n" { "No." } th scope="col" { "Test" } th scope="col" { "Result" }
                    th scope="col" class="n" { "Seconds" } th scope="col" { "Why it matters" }
                } }
                tbody {
                    @for (number, spec) in (1..).zip(&SUITE) {
                        @let test = run.tests.iter().find(|test| test.number == number);
                        @let (class, word) = look(test.map_or("", |test| test.result.as_str()));
                        tr {
                            td class="n" { (number) }
                            th scope="row" { @match test.filter(|test| test.result == "fail" || test.result == "error") {
                                Some(_) => a href={ "#test-" (number) } { (spec.name) },
                                None => (spec.name),
                            } }
                            td { strong class={ (class) " nowrap" } { (word) } @if let Some(test) = test { @for kind in &test.kinds { " " (clean(kind)) } } }
                            td class="n" { @match test { Some(test) => (format!("{:.2}", test.seconds)), None => "–" } }
                            td { (spec.meaning) }
                        }
                    }
                }
            }
        },
    )
}

fn failures(run: &SuiteRun, wrong: &[&SuiteTest]) -> Markup {
    let besides = run.handshake.iter().map(|found| ("Handshake, before the first test", found));
    let audit = run
        .audit
        .iter()
        .filter(|audit| audit.result != "pass")
        .map(|audit| ("Audit, after the last test", audit));
    let besides: Vec<(&str, &Besides)> = besides.chain(audit).collect();
    html! {
        @if wrong.is_empty() && besides.is_empty() { p { "Nothing was found." } }
        @for test in wrong {
            article class="finding" id={ "test-" (test.number) } aria-labelledby={ "test-" (test.number) "-h" } {
                h3 id={ "test-" (test.number) "-h" } {
                    span class="kind" { @match test.kinds.first() { Some(kind) => (clean(kind)), None => (clean(&test.result)) } }
                    (test.number) ". " (clean(&test.name))
                }
                @if let Some(spec) = test.number.checked_sub(1).and_then(|place| SUITE.get(place)) { p { (spec.meaning) } }
                (notes(&format!("Notes of {}", clean(&test.name)), &test.notes))
                h4 { "Run it again" }
                pre { (clean(&command_line(&["suite".to_owned(), "--test".to_owned(), test.name.clone()]))) }
            }
        }
        @for (title, found) in besides {
            article class="finding" {
                h3 { (title) }
                (notes(title, &found.notes))
            }
        }
    }
}

fn notes(label: &str, notes: &[String]) -> Markup {
    html! {
        div class="scroll wide" tabindex="0" role="group" aria-label={ (label) ", scrolls sideways" } {
            pre { @for note in notes { (clean(note)) "\n" } }
        }
    }
}

fn about(run: &SuiteRun) -> Markup {
    let started = &run.started;
    let notes_of_passes = run.tests.iter().filter(|test| {
        !test.notes.is_empty() && (test.result == "pass" || test.result == "not_applicable")
    });
    html! {
        h3 { "What could not be tested, and what else must be known" }
        @if started.notes.is_empty() { p { "Nothing." } }
        ul class="plain" { @for note in &started.notes { li { (clean(note)) } } }
        details {
            summary { "Notes of the other tests" }
            @for test in notes_of_passes {
                h3 { (test.number) ". " (clean(&test.name)) }
                (notes(&format!("Notes of {}", clean(&test.name)), &test.notes))
            }
        }
        h3 { "Command line" }
        pre { (clean(&command_line(&started.arguments))) }
    }
}
