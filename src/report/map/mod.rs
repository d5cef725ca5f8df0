//! The LBA map of a finding: what was done in each epoch, what had to be reported, what was, and the
//! difference, LBA by LBA. One model, drawn as SVG for the report (`svg`) and as PNG for CI systems
//! (`png`).
//!
//! Not covered: how it is made of a recording (`build`); violations that concern no LBA have no map.

mod build;
mod cell;
mod font;
mod history;
mod png;
mod svg;

pub use build::map_of;
pub use cell::{Cell, Class};
pub use png::{PngError, map_png};
pub use svg::{Fold, map_svg, patterns};

use crate::block::CHUNK_LBAS;
use crate::report::verdict::plainly;
use std::fmt::Write as _;

/// Chunks of a map at most; how many more there are is said.
const CHUNKS_SHOWN: usize = 4;
/// Rows of epochs at most; those in the middle are left out.
const EPOCHS_SHOWN: usize = 16;

/// A row of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it shows.
    pub title: String,
    /// Whether it is part of the answer that is judged, not of what led to it.
    pub verdict: bool,
    /// A cell for each LBA of the chunks shown.
    pub cells: Vec<Cell>,
}

/// A map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LbaMap {
    /// The chunks it shows, ascending.
    pub chunks: Vec<u64>,
    /// Chunks concerned that it does not show.
    pub more_chunks: u64,
    /// Its rows, from the first epoch to the difference.
    pub rows: Vec<Row>,
}

impl LbaMap {
    /// The LBA that a column stands for.
    pub fn lba(&self, column: usize) -> Option<u64> {
        let per_chunk = usize::try_from(CHUNK_LBAS).ok()?;
        let chunk = self.chunks.get(column / per_chunk)?;
        Some(chunk * CHUNK_LBAS + (column % per_chunk) as u64)
    }

    /// What a row shows, in words: `write 64..71; discard 70`.
    pub fn words(&self, row: &Row) -> String {
        let mut words = String::new();
        for (first, last, cell) in runs(&row.cells) {
            let (Some(first), Some(last)) = (self.lba(first), self.lba(last)) else { continue };
            if matches!(cell, Cell::Empty) {
                continue;
            }
            let separator = if words.is_empty() { "" } else { "; " };
            let place = if first == last { format!("{first}") } else { format!("{first}..{last}") };
            // Writing to a String cannot fail.
            let _ = write!(words, "{separator}{} {place}", cell.words());
        }
        if words.is_empty() { "nothing".to_owned() } else { words }
    }

    /// The kinds of cells that it shows, each once, for the legend.
    pub fn kinds(&self) -> Vec<Cell> {
        let mut kinds: Vec<Cell> = Vec::new();
        for cell in self.rows.iter().flat_map(|row| &row.cells) {
            let kind = cell.kind();
            if kind != Cell::Empty && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.sort_unstable();
        kinds
    }

    /// Which chunks it shows, in words.
    pub fn title(&self) -> String {
        let chunks: Vec<String> = self.chunks.iter().map(u64::to_string).collect();
        let s = if chunks.len() == 1 { "" } else { "s" };
        let more = match self.more_chunks {
            0 => String::new(),
            more => format!(" and {}", plainly(more, "more chunk", "more chunks")),
        };
        format!("chunk{s} {}{more}", chunks.join(", "))
    }
}

/// Equal neighbours of a row together: first and last column, and the cell. A run never crosses a
/// chunk's edge.
pub(super) fn runs(cells: &[Cell]) -> Vec<(usize, usize, Cell)> {
    let mut runs: Vec<(usize, usize, Cell)> = Vec::new();
    for (column, &cell) in cells.iter().enumerate() {
        match runs.last_mut() {
            Some((_, last, run)) if *run == cell && !(column as u64).is_multiple_of(CHUNK_LBAS) => {
                *last = column;
            }
            _ => runs.push((column, column, cell)),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
