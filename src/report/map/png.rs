//! The map as a PNG, for CI systems that show pictures and no pages. Drawn dot by dot, in the colours
//! of a light page, with the letters of `super::font`.
//!
//! Not covered: what the cells mean; the picture carries a legend for that.

use super::cell::Cell;
use super::font;
use super::{LbaMap, Row};
use crate::block::CHUNK_LBAS;

/// Width and height of a cell, in dots; the last dot of each is space.
const CELL: (usize, usize) = (13, 19);
/// Dots that a dot of a letter is wide and high.
const SCALE: usize = 2;
/// Width of a letter with the space after it.
const ADVANCE: usize = (font::WIDTH + 1) * SCALE;
/// Space around everything.
const MARGIN: usize = 12;
/// Height of a line of text.
const LINE: usize = 22;
/// Letters of a title at most.
const TITLE: usize = 34;
const WHITE: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [17, 24, 39];

/// Why a map could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a map as PNG: {0}")]
pub struct PngError(#[from] png::EncodingError);

/// The picture's file. `heading` stands above the map.
///
/// # Errors
/// None that is known: kept because the encoder could fail.
pub fn map_png(map: &LbaMap, heading: &str) -> Result<Vec<u8>, PngError> {
    let canvas = drawn(map, heading);
    let mut file = Vec::new();
    let size = |dots: usize| u32::try_from(dots).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut file, size(canvas.width), size(canvas.height));
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&canvas.dots)?;
    Ok(file)
}

struct Canvas {
    width: usize,
    height: usize,
    dots: Vec<u8>,
}

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.dots.iter_mut().skip(at).zip(colour).for_each(|(dot, colour)| *dot = colour);
        }
    }
    fn block(&mut self, (x, y): (usize, usize), (w, h): (usize, usize), colour: [u8; 3]) {
        for (dx, dy) in (0..h).flat_map(|dy| (0..w).map(move |dx| (dx, dy))) {
            self.dot(x + dx, y + dy, colour);
        }
    }
    fn letter(&mut self, (x, y): (usize, usize), letter: char, scale: usize, colour: [u8; 3]) {
        for (column, bits) in font::columns(letter).into_iter().enumerate() {
            for row in (0..font::HEIGHT).filter(|row| bits >> row & 1 == 1) {
                self.block((x + column * scale, y + row * scale), (scale, scale), colour);
            }
        }
    }
    fn text(&mut self, (x, y): (usize, usize), text: &str, colour: [u8; 3]) {
        for (place, letter) in text.chars().enumerate() {
            self.letter((x + place * ADVANCE, y), letter, SCALE, colour);
        }
    }
    fn cell(&mut self, (x, y): (usize, usize), cell: Cell) {
        let (ground, ink) = cell.class().colours();
        self.block((x, y), (CELL.0 - 1, CELL.1 - 1), ground);
        self.letter((x + 1, y + 1), cell.letter(), SCALE, ink);
    }
}

/// Left edge of a column.
fn column_x(left: usize, column: usize) -> usize {
    let per_chunk = usize::try_from(CHUNK_LBAS).unwrap_or(64);
    left + (column + column / per_chunk) * CELL.0
}

/// Where the titles end and the first row begins.
fn origin(map: &LbaMap) -> (usize, usize) {
    let longest = map.rows.iter().map(|row| shown_title(row).chars().count()).max().unwrap_or(0);
    (MARGIN + longest * ADVANCE + ADVANCE, MARGIN + 2 * LINE)
}

fn shown_title(row: &Row) -> String {
    row.title.chars().take(TITLE).collect()
}

fn drawn(map: &LbaMap, heading: &str) -> Canvas {
    let columns = map.chunks.len() * usize::try_from(CHUNK_LBAS).unwrap_or(64);
    let (left, top) = origin(map);
    let width = column_x(left, columns) + MARGIN;
    let legend: Vec<Cell> = map.kinds();
    let (per_line, lines) = legend_lines(&legend, width);
    let bottom = top + map.rows.len() * CELL.1;
    let height = bottom + LINE / 2 + lines * LINE + MARGIN;
    let dots = WHITE.into_iter().cycle().take(width * height * 3).collect();
    let mut canvas = Canvas { width, height, dots };
    let room = width.saturating_sub(2 * MARGIN) / ADVANCE;
    canvas.text((MARGIN, MARGIN), &heading.chars().take(room).collect::<String>(), INK);
    for column in (0..columns).step_by(8) {
        let at = column_x(left, column);
        let lba = map.lba(column).unwrap_or(0).to_string();
        canvas.block((at, top - 6), (1, 5), INK);
        // Long numbers need the room of two.
        if column % 16 == 0 || lba.len() * ADVANCE < 8 * CELL.0 {
            canvas.text((at, top - LINE), &lba, INK);
        }
    }
    for (number, row) in map.rows.iter().enumerate() {
        let y = top + number * CELL.1;
        canvas.text((MARGIN, y + 1), &shown_title(row), INK);
        for (column, cell) in row.cells.iter().enumerate() {
            canvas.cell((column_x(left, column), y), *cell);
        }
    }
    for (place, cell) in legend.into_iter().enumerate() {
        let x = MARGIN + place % per_line * LEGEND;
        let y = bottom + LINE / 2 + place / per_line * LINE;
        canvas.cell((x, y), cell);
        canvas.text((x + 2 * CELL.0, y + 1), &cell.words(), INK);
    }
    canvas
}

/// Width of an entry of the legend.
const LEGEND: usize = 27 * ADVANCE + 2 * CELL.0;

fn legend_lines(legend: &[Cell], width: usize) -> (usize, usize) {
    let per_line = (width.saturating_sub(2 * MARGIN) / LEGEND).max(1);
    (per_line, legend.len().div_ceil(per_line))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::map::cell::Class;

    /// The looks of all cells, as the picture draws them.
    pub(in crate::report::map) fn looks(map: &LbaMap) -> Vec<Vec<(String, char)>> {
        let file = map_png(map, "a heading").expect("encodes");
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let mut dots = vec![0; reader.output_buffer_size().expect("small")];
        let info = reader.next_frame(&mut dots).expect("a picture");
        let width = info.width as usize;
        let dot = |x: usize, y: usize| {
            let at = (y * width + x) * 3;
            [dots[at], dots[at + 1], dots[at + 2]]
        };
        let (left, top) = origin(map);
        let look = |column: usize, row: usize| {
            let (x, y) = (column_x(left, column), top + row * CELL.1);
            // No letter reaches the first dot.
            let ground = dot(x, y);
            let class = Class::ALL.into_iter().find(|class| class.colours().0 == ground);
            let class = class.expect("a colour of a cell");
            let ink = class.colours().1;
            let bits = |column: usize| -> u8 {
                let at = |row: usize| dot(x + 1 + column * SCALE, y + 1 + row * SCALE);
                (0..font::HEIGHT).filter(|&row| at(row) == ink).map(|row| 1u8 << row).sum()
            };
            let drawn: [u8; 5] = std::array::from_fn(bits);
            let letters = Cell::all().into_iter().map(Cell::letter);
            let letter = letters
                .into_iter()
                .find(|&letter| class == Class::Empty || font::columns(letter) == drawn);
            let letter = if class == Class::Empty { ' ' } else { letter.expect("a letter") };
            (class.name().to_owned(), letter)
        };
        let columns = map.rows.first().map_or(0, |row| row.cells.len());
        (0..map.rows.len()).map(|row| (0..columns).map(|c| look(c, row)).collect()).collect()
    }
}
