//! Figures over time as lines, and small ones that stand in a table. Not covered: where the figures
//! come from.

use maud::{Markup, html};
use std::fmt::Write as _;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Points of a line at most.
const POINTS: usize = 240;

/// One line.
pub(super) struct Line<'l> {
    pub(super) name: &'l str,
    /// Seconds and value, by time.
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart of one or two lines; nothing if there are fewer than two points.
pub(super) fn chart(caption: &str, unit: &str, id: &str, lines: &[Line<'_>]) -> Option<Markup> {
    let points = || lines.iter().flat_map(|line| &line.points);
    if lines.iter().all(|line| line.points.len() < 2) {
        return None;
    }
    let end = points().map(|(x, _)| *x).fold(0.0, f64::max).max(1e-9);
    let top = nice(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - 10.0);
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    let described: Vec<String> = lines.iter().map(|line| describe(line, unit)).collect();
    Some(html! {
        figure {
            figcaption { (caption) }
            svg role="img" aria-labelledby={ (id) "-t " (id) "-d" } viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
                title id={ (id) "-t" } { (caption) }
                desc id={ (id) "-d" } { (described.join(". ")) }
                @for part in [0.0, 0.5, 1.0] {
                    line class="grid" x1=(LEFT) x2=(WIDTH - 10.0) y1=(round(y(top * part))) y2=(round(y(top * part))) {}
                    text class="label" x=(LEFT - 6.0) y=(round(y(top * part) + 4.0)) text-anchor="end" { (short(top * part)) }
                }
                text class="label" x=(LEFT) y=(HEIGHT - 8.0) { "0 s" }
                text class="label" x=(WIDTH - 10.0) y=(HEIGHT - 8.0) text-anchor="end" { (clock(end)) }
                @for (number, line) in lines.iter().enumerate() {
                    path class={ "s" (number + 1) } d=(path(&thinned(&line.points), x, y)) {}
                }
            }
            @if lines.len() > 1 {
                ul class="legend" {
                    @for (number, line) in lines.iter().enumerate() {
                        li { svg width="26" height="10" aria-hidden="true" { path class={ "s" (number + 1) } d="M0 5h26" {} } (line.name) }
                    }
                }
            }
            p class="soft" { @for text in &described { (text) ". " } }
        }
    })
}

fn describe(line: &Line<'_>, unit: &str) -> String {
    let values = || line.points.iter().map(|(_, y)| *y);
    let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    match line.points.last() {
        Some((_, last)) => {
            let (min, max, last) = (short(min), short(max), short(*last));
            format!("{}: {min} to {max} {unit}, {last} at the end", line.name)
        }
        None => format!("{}: no figures", line.name),
    }
}

/// At most [`POINTS`] of the points, the first and the last among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let mut kept: Vec<(f64, f64)> = points.iter().copied().step_by(every).collect();
    if let (Some(last), Some(kept_last)) = (points.last(), kept.last_mut())
        && points.len() % every != 1
        && every > 1
    {
        *kept_last = *last;
    }
    kept
}

fn path(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (place, (at, value)) in points.iter().enumerate() {
        let pen = if place == 0 { 'M' } else { 'L' };
        // Writing to a String cannot fail.
        let _ = write!(path, "{pen}{:.1} {:.1}", x(*at), y(*value));
    }
    path
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

/// A number in few letters.
pub(super) fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (unit, letter) in units {
        if value >= unit {
            return format!("{:.1}{letter}", value / unit);
        }
    }
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A time in few letters.
pub(super) fn clock(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s if s >= 10.0 => format!("{s:.0} s"),
        s => format!("{s:.1} s"),
    }
}

/// A line of some values, each as far from the last, for a table's foot.
pub(super) fn spark(name: &str, id: &str, values: &[f64]) -> Markup {
    let top = nice(values.iter().copied().fold(0.0, f64::max));
    let gaps = values.len().saturating_sub(1).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a few dozen places of a picture")]
    let points: Vec<(f64, f64)> =
        values.iter().enumerate().map(|(n, value)| (n as f64 / gaps as f64, *value)).collect();
    let (x, y) = (|at: f64| 4.0 + at * 112.0, |value: f64| 26.0 - value / top * 22.0);
    let words: Vec<String> = values.iter().map(|value| short(*value)).collect();
    html! {
        svg class="spark" role="img" aria-labelledby={ (id) "-t" } viewBox="0 0 120 30" preserveAspectRatio="none" {
            title id={ (id) "-t" } { (name) ", oldest first: " (words.join(", ")) }
            path class="s1" d=(path(&points, x, y)) {}
            @if let Some((at, value)) = points.last() { circle class="d1" cx=(round(x(*at))) cy=(round(y(*value))) r="3" {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_and_figures_are_short() {
        let tops = [0.0, 0.3, 7.0, 20.0, 21.0, 99_000.0].map(nice);
        assert_eq!(tops, [1.0, 0.5, 10.0, 20.0, 50.0, 100_000.0]);
        let words = [0.0, 0.25, 12.0, 1500.0, 2.5e6, 3e9].map(short);
        assert_eq!(words, ["0", "0.25", "12", "1.5k", "2.5M", "3.0G"]);
    }

    #[test]
    fn long_lines_are_thinned_and_keep_their_ends() {
        let points: Vec<(f64, f64)> = (0..10_000u32).map(|n| (f64::from(n), 1.0)).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS);
        assert_eq!((kept[0].0, kept[kept.len() - 1].0), (0.0, 9_999.0));
        assert!(chart("c", "u", "i", &[Line { name: "n", points: vec![(1.0, 1.0)] }]).is_none());
    }
}
