//! `report.html`: one page that holds everything, for people: the verdict first, then what it rests
//! on. No script, nothing that is fetched; readable on a phone, printed, light and dark.
//!
//! All text of others goes through `clean` (what could hide or reorder text is written out) and is
//! escaped by `maud`. Not covered: reading the run's folder (`crate::campaign`), writing the page
//! (`crate::cli`).

mod campaign;
mod chart;
mod figures;
mod finding;
mod suite;
mod timeline;

pub use campaign::{CampaignPage, Shown, campaign_page};
pub use suite::suite_page;

use super::map::Class;
use super::verdict::Colour;
use crate::array::escape_text;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");
/// What a page may do: show itself, nothing more.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// Letters of a foreign text at most.
const TEXT_MAX: usize = 2_000;

/// Foreign text without what could steer, hide or reorder it.
fn clean(text: &str) -> String {
    escape_text(text, TEXT_MAX)
}

impl Colour {
    const fn class(self) -> &'static str {
        match self {
            Colour::Good => "good",
            Colour::Bad => "bad",
            Colour::Unsure => "unsure",
        }
    }
    /// A sign, so that no colour has to be told from another.
    const fn sign(self) -> &'static str {
        match self {
            Colour::Good => "✓",
            Colour::Bad => "✗",
            Colour::Unsure => "?",
        }
    }
    const fn word(self) -> &'static str {
        match self {
            Colour::Good => "Passed",
            Colour::Bad => "Failed",
            Colour::Unsure => "Not proved",
        }
    }
}

/// Head of a page.
struct Head<'h> {
    title: &'h str,
    colour: Colour,
    /// The verdict, in one sentence.
    sentence: &'h str,
    /// What must stand out beside it.
    alerts: Vec<String>,
    facts: Vec<(&'static str, String)>,
    /// Where to find what is wrong, right under the verdict; may be empty.
    index: Markup,
}

/// The colours of cells, for the style sheet.
fn cell_colours() -> String {
    let mut css = String::new();
    for class in Class::ALL {
        let (name, (ground, ink)) = (class.name(), class.colours());
        let hex = |[r, g, b]: [u8; 3]| format!("#{r:02x}{g:02x}{b:02x}");
        // Writing to a String cannot fail.
        let _ = write!(css, ".f-{name}{{fill:{}}}.t-{name}{{fill:{}}}", hex(ground), hex(ink));
    }
    css
}

/// A whole page of these sections: id, heading, what is in it.
fn page(head: &Head<'_>, sections: &[(&str, String, Markup)], footer: &Markup) -> String {
    let dark = "@media (prefers-color-scheme:dark){.f-empty{fill:#1b2432}.f-outside{fill:#0d131d}.t-outside{fill:#94a3b8}.f-must{fill:#cbd5e1}.t-must{fill:#0d131d}.f-may{fill:#475569}.t-may{fill:#fff}}@media print{.f-empty{fill:#f0f2f5}.f-outside{fill:#fff}.t-outside{fill:#6b7281}.f-must{fill:#374151}.t-must{fill:#fff}.f-may{fill:#d1d5db}.t-may{fill:#111827}}";
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                link rel="icon" href="data:,";
                title { (head.title) }
                style { (PreEscaped(STYLE)) (PreEscaped(cell_colours())) (PreEscaped(dark)) }
            }
            body {
                a class="skip" href="#main" { "To the content" }
                header class={ "top " (head.colour.class()) } {
                    p class="eyebrow" { "lbaudit report" }
                    p class="stamp" { span class="sign" aria-hidden="true" { (head.colour.sign()) } " " (head.colour.word()) }
                    h1 { (head.sentence) }
                    (head.index)
                    @for alert in &head.alerts { p class="alert" { (alert) } }
                    dl class="facts" {
                        @for (name, value) in &head.facts { div { dt { (name) } dd { (value) } } }
                    }
                }
                nav aria-label="On this page" {
                    ul { @for (id, heading, _) in sections { li { a href={ "#" (id) } { (heading) } } } }
                }
                main id="main" {
                    (super::map::patterns())
                    @for (id, heading, content) in sections {
                        section id=(id) aria-labelledby={ (id) "-h" } {
                            h2 id={ (id) "-h" } { (heading) }
                            (content)
                        }
                    }
                }
                footer { (footer) }
            }
        }
    }
    .into_string()
}

/// A table that scrolls inside its own box where it is too wide.
fn scrolled(label: &str, content: &Markup) -> Markup {
    html! { div class="scroll" tabindex="0" role="group" aria-label=(label) { (content) } }
}

#[cfg(test)]
mod tests;
