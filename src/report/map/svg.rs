//! The map as SVG for the report: a rectangle for each run of equal cells, filled with a pattern that
//! repeats colour and letter, so that a page of many maps stays small.
//!
//! Patterns are defined once a page (`patterns`) and coloured by its style sheet. Titles of rows are
//! HTML beside the picture, where they stay in sight when it is scrolled. Not covered: that HTML.

use super::cell::{Cell, Class};
use super::{LbaMap, runs};
use crate::block::CHUNK_LBAS;
use maud::{Markup, html};

/// Width of a cell.
pub(super) const CELL_W: usize = 11;
/// Height of a row.
pub(super) const ROW_H: usize = 22;
/// Height of a cell; the rest of a row is space.
const CELL_H: usize = 18;
/// Height of the line with the numbers of LBAs.
pub(super) const HEAD_H: usize = 26;
/// Space between two chunks, in cells.
const GAP: usize = 1;

/// The name of the pattern of a look.
fn pattern(cell: Cell) -> String {
    let (class, letter) = cell.look();
    format!("m-{}-{:x}", class.name(), u32::from(letter))
}

/// Left edge of a column.
fn x(column: usize) -> usize {
    let per_chunk = usize::try_from(CHUNK_LBAS).unwrap_or(64);
    (column + column / per_chunk * GAP) * CELL_W
}

/// The patterns of all cells: once in a page that holds maps.
pub fn patterns() -> Markup {
    let mut done: Vec<(Class, char)> = Vec::new();
    let cells = Cell::all().into_iter().filter(|cell| {
        let look = cell.look();
        let new = !done.contains(&look);
        if new {
            done.push(look);
        }
        new
    });
    let cells: Vec<Cell> = cells.collect();
    html! {
        svg class="defs" width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                @for cell in cells {
                    pattern id=(pattern(cell)) width=(CELL_W) height=(ROW_H) patternUnits="userSpaceOnUse" {
                        rect class={ "f-" (cell.class().name()) } x="0.5" y="2" width=(CELL_W - 1) height=(CELL_H) {}
                        @if cell.letter() != ' ' {
                            text class={ "t-" (cell.class().name()) } x="5.5" y="15" { (cell.letter()) }
                        }
                    }
                }
            }
        }
    }
}

/// The picture. `id` is one that the page has not used yet.
pub fn map_svg(map: &LbaMap, id: &str) -> Markup {
    let columns = map.chunks.len() * usize::try_from(CHUNK_LBAS).unwrap_or(64);
    let (width, height) = (x(columns.saturating_sub(1)) + CELL_W, HEAD_H + map.rows.len() * ROW_H);
    html! {
        svg role="img" aria-labelledby={ (id) "-t " (id) "-d" } width=(width) height=(height)
            viewBox={ "0 0 " (width) " " (height) } {
            title id={ (id) "-t" } { "LBA map of " (map.title()) }
            desc id={ (id) "-d" } {
                @for row in map.rows.iter().filter(|row| row.verdict) {
                    (row.title) ": " (map.words(row)) ". "
                }
            }
            g class="axis" aria-hidden="true" {
                @for column in (0..columns).step_by(8) {
                    @let at = x(column);
                    line x1=(at) y1="20" x2=(at) y2="26" {}
                    text x=(at + 2) y="15" { (map.lba(column).unwrap_or(0)) }
                }
            }
            g transform={ "translate(0 " (HEAD_H) ")" } {
                @for (number, row) in map.rows.iter().enumerate() {
                    @for (first, last, cell) in runs(&row.cells) {
                        rect x=(x(first)) y=(number * ROW_H) width=((last + 1 - first) * CELL_W) height=(ROW_H)
                            fill={ "url(#" (pattern(cell)) ")" } {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The looks of all cells, as the picture draws them.
    pub(in crate::report::map) fn looks(
        svg: &str,
        rows: usize,
        columns: usize,
    ) -> Vec<Vec<(String, char)>> {
        let mut drawn = vec![vec![(String::new(), '\0'); columns]; rows];
        let value = |text: &str, name: &str| {
            let from = text.find(&format!("{name}=\"")).expect("an attribute") + name.len() + 2;
            text[from..].split('"').next().expect("a value").to_owned()
        };
        let body = svg.split("translate(0 ").nth(1).expect("the cells");
        for rect in body.split("<rect").skip(1) {
            let number = |name| value(rect, name).parse::<usize>().expect("a number");
            let (from, len) = (number(" x"), number(" width") / CELL_W);
            let first = (0..columns).find(|&column| x(column) == from).expect("a column");
            let fill = value(rect, "fill");
            let fill = fill.trim_start_matches("url(#m-").trim_end_matches(')');
            let (class, letter) = fill.rsplit_once('-').expect("a class and a letter");
            let letter = u32::from_str_radix(letter, 16).ok().and_then(char::from_u32);
            let row = &mut drawn[number(" y") / ROW_H];
            let look = (class.to_owned(), letter.expect("a letter"));
            row.iter_mut().skip(first).take(len).for_each(|cell| *cell = look.clone());
        }
        drawn
    }
}
