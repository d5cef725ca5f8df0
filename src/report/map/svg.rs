//! The map as SVG for the report: a rectangle for each run of equal cells, filled with a pattern that
//! repeats colour and letter, so that a page of many maps stays small.
//!
//! A map is folded into blocks, so that it never has to be scrolled sideways, and the titles of rows
//! are inside the picture: whatever size it is shown at, each stays beside its row. Patterns are
//! defined once a page (`patterns`) and coloured by its style sheet. Not covered: which of the two
//! folds is shown, which is the style sheet's business.

use super::cell::{Cell, Class};
use super::{LbaMap, Row, runs};
use maud::{Markup, html};

/// Width of a cell.
const CELL_W: usize = 11;
/// Height of a row.
const ROW_H: usize = 22;
/// Height of a cell; the rest of a row is space.
const CELL_H: usize = 18;
/// Height of the line with the numbers of LBAs.
const HEAD_H: usize = 26;
/// Space between two blocks.
const GAP: usize = 10;
/// Width of a letter; letters are all of one width.
const LETTER_W: usize = 7;

/// How a map is broken into blocks, below each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// A chunk a block, the titles beside the rows: for screens and paper.
    Wide,
    /// Half a chunk a block, the titles above the rows: for phones.
    Narrow,
}

impl Fold {
    /// LBAs of a block.
    const fn columns(self) -> usize {
        match self {
            Fold::Wide => 64,
            Fold::Narrow => 32,
        }
    }
    /// Where the cells begin: what is left of them is for titles.
    const fn left(self) -> usize {
        match self {
            Fold::Wide => 200,
            Fold::Narrow => 0,
        }
    }
    /// Where the cells of a row begin: what is above them is for its title.
    const fn above(self) -> usize {
        match self {
            Fold::Wide => 0,
            Fold::Narrow => 15,
        }
    }
    const fn width(self) -> usize {
        self.left() + self.columns() * CELL_W
    }
    /// Letters of a title at most.
    const fn letters(self) -> usize {
        match self {
            Fold::Wide => self.left() / LETTER_W,
            Fold::Narrow => self.width() / LETTER_W,
        }
    }
    const fn class(self) -> &'static str {
        match self {
            Fold::Wide => "wide",
            Fold::Narrow => "narrow",
        }
    }
    fn block_height(self, rows: usize) -> usize {
        HEAD_H + rows * (ROW_H + self.above())
    }
}

/// The name of the pattern of a look.
fn pattern(cell: Cell) -> String {
    let (class, letter) = cell.look();
    format!("m-{}-{:x}", class.name(), u32::from(letter))
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
pub fn map_svg(map: &LbaMap, fold: Fold, id: &str) -> Markup {
    let columns = map.rows.first().map_or(0, |row| row.cells.len());
    let blocks = columns.div_ceil(fold.columns());
    let block = fold.block_height(map.rows.len());
    let (width, height) = (fold.width(), blocks * (block + GAP));
    html! {
        svg class=(fold.class()) role="img" aria-labelledby={ (id) "-t " (id) "-d" } width=(width)
            height=(height) viewBox={ "0 0 " (width) " " (height) } {
            title id={ (id) "-t" } { "LBA map of " (map.title()) }
            desc id={ (id) "-d" } {
                @for row in map.rows.iter().filter(|row| row.verdict) {
                    (row.title) ": " (map.words(row)) ". "
                }
            }
            @for number in 0..blocks {
                @let first = number * fold.columns();
                @let top = number * (block + GAP);
                g class="axis" aria-hidden="true" transform={ "translate(" (fold.left()) " " (top) ")" } {
                    (axis(map, first, (columns - first).min(fold.columns())))
                }
                @for (place, row) in map.rows.iter().enumerate() {
                    (row_at(row, first, fold, top + HEAD_H + place * (ROW_H + fold.above())))
                }
            }
        }
    }
}

/// The numbers of LBAs above a block, as far apart as they are wide.
fn axis(map: &LbaMap, first: usize, columns: usize) -> Markup {
    let letters = map.lba(first + columns.saturating_sub(1)).unwrap_or(0).to_string().len();
    let step = if (letters + 1) * LETTER_W > 8 * CELL_W { 16 } else { 8 };
    html! {
        @for column in (0..columns).step_by(step) {
            @let at = column * CELL_W;
            line x1=(at) y1="20" x2=(at) y2="26" {}
            text x=(at + 2) y="15" { (map.lba(first + column).unwrap_or(0)) }
        }
    }
}

/// A row's title and its cells of a block, which begins with column `first`.
fn row_at(row: &Row, first: usize, fold: Fold, top: usize) -> Markup {
    let cells = row.cells.get(first..).unwrap_or_default();
    let cells = cells.get(..fold.columns()).unwrap_or(cells);
    // With titles above, they stand closer to their row than to the one before.
    let title_at = if fold.above() > 0 { top + fold.above() - 2 } else { top + 15 };
    html! {
        text class={ "label" @if row.verdict { " strong" } } x="0" y=(title_at) { (short(&row.title, fold.letters())) }
        g class="cells" transform={ "translate(" (fold.left()) " " (top + fold.above()) ")" } {
            @for (from, to, cell) in runs(cells) {
                rect x=(from * CELL_W) y="0" width=((to + 1 - from) * CELL_W) height=(ROW_H)
                    fill={ "url(#" (pattern(cell)) ")" } {}
            }
        }
    }
}

/// A title that fits, its star kept; the map in words, below the picture, has all of it.
fn short(title: &str, letters: usize) -> String {
    if title.chars().count() <= letters {
        return title.to_owned();
    }
    let end = if title.ends_with(" *") { "… *" } else { "…" };
    let kept = letters.saturating_sub(end.chars().count());
    title.chars().take(kept).chain(end.chars()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The looks of all cells, as the picture draws them.
    pub(in crate::report::map) fn looks(
        svg: &str,
        fold: Fold,
        rows: usize,
        columns: usize,
    ) -> Vec<Vec<(String, char)>> {
        let mut drawn = vec![vec![(String::new(), '\0'); columns]; rows];
        let value = |text: &str, name: &str| {
            let from = text.find(&format!("{name}=\"")).expect("an attribute") + name.len() + 2;
            text[from..].split('"').next().expect("a value").to_owned()
        };
        for (place, group) in svg.split("<g class=\"cells\"").skip(1).enumerate() {
            let (block, row) = (place / rows, place % rows);
            let cells = group.split("</g>").next().expect("the cells");
            for rect in cells.split("<rect").skip(1) {
                let number = |name| value(rect, name).parse::<usize>().expect("a number");
                let (from, len) = (number(" x") / CELL_W, number(" width") / CELL_W);
                assert_eq!(number(" y") % ROW_H, 0, "or the pattern would be cut");
                let fill = value(rect, "fill");
                let fill = fill.trim_start_matches("url(#m-").trim_end_matches(')');
                let (class, letter) = fill.rsplit_once('-').expect("a class and a letter");
                let letter = u32::from_str_radix(letter, 16).ok().and_then(char::from_u32);
                let look = (class.to_owned(), letter.expect("a letter"));
                let first = block * fold.columns() + from;
                drawn[row].iter_mut().skip(first).take(len).for_each(|cell| *cell = look.clone());
            }
        }
        drawn
    }

    fn map_of(chunks: &[u64], title: &str) -> LbaMap {
        let cells = vec![Cell::Empty; chunks.len() * 64];
        let row = Row { title: title.to_owned(), verdict: true, cells };
        LbaMap { chunks: chunks.to_vec(), more_chunks: 0, rows: vec![row.clone(), row] }
    }

    #[test]
    fn no_fold_is_wider_than_what_it_is_for_and_each_row_has_its_title_in_the_picture() {
        let map = map_of(&[0, 7], "expected");
        for (fold, blocks, width) in [(Fold::Wide, 2, 904), (Fold::Narrow, 4, 352)] {
            let svg = map_svg(&map, fold, "m").into_string();
            assert!(svg.contains(&format!("width=\"{width}\"")), "{svg}");
            assert_eq!(svg.matches(">expected</text>").count(), blocks * map.rows.len());
            assert_eq!(svg.matches(">448</text>").count(), 1, "chunk 7 begins a block");
        }
    }

    #[test]
    fn a_long_title_is_cut_and_large_numbers_do_not_touch() {
        let svg = map_svg(&map_of(&[1 << 34], &"title ".repeat(20)), Fold::Wide, "m").into_string();
        assert!(svg.contains("title title title title tit…</text>"), "{svg}");
        assert_eq!(short("s0 to s1 (restart) *", 12), "s0 to s1 … *");
        let first = 1u64 << 40;
        assert!(svg.contains(&format!(">{}</text>", first + 16)));
        assert!(!svg.contains(&format!(">{}</text>", first + 8)));
    }
}
