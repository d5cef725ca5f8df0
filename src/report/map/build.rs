//! Makes the map of a finding out of what its folder tells. What the recording and the violation do
//! not agree on is not shown: then the violation's own picture is.
//!
//! Not covered: what happened (`super::history`), drawing it.

use super::cell::Cell;
use super::history::{Answer, Epoch, History, Reading};
use super::{CHUNKS_SHOWN, EPOCHS_SHOWN, LbaMap, Row};
use crate::block::{CHUNK_LBAS, Extent, LbaCount, LbaSet, Policy, Role};
use crate::judge::Record;
use crate::model::Prediction;
use crate::oracle::{Kind, Violation, leaked};
use crate::report::verdict::so_many;
use crate::scenario::{Label, Scenario};

/// Answers that are shown where one is wrong by what others say.
const ANSWERS_SHOWN: usize = 4;

/// The map of a violation that `scenario` shows; `None` if it concerns no LBA. `records` tell of one
/// run of the scenario, and may be empty.
pub fn map_of(violation: &Violation, scenario: &Scenario, records: &[Record]) -> Option<LbaMap> {
    let (chunks, more_chunks) = chunks_of(violation)?;
    let history = match records {
        [] => History::of_steps(&scenario.steps),
        records => History::of(records),
    };
    let canvas = Canvas { chunks: &chunks };
    let reading = history.reading(violation);
    let about = violation.snap.and_then(|label| history.of.get(&label).copied());
    let role = about.unwrap_or(Role::Source);
    let mut rows = epoch_rows(&history, role, violation, &canvas);
    match reading {
        Some(reading) => rows.extend(content_rows(&history, reading, &canvas)),
        None => rows.extend(claim_rows(&history, violation, scenario.header.policy, &canvas)),
    }
    // What lies past the end of the volume is no place.
    if let Some(&len) = history.lens.get(&role) {
        rows.iter_mut().for_each(|row| canvas.cut_at(len, row));
    }
    Some(LbaMap { chunks, more_chunks, rows })
}

/// The first chunks that a violation concerns, and how many more there are.
fn chunks_of(violation: &Violation) -> Option<(Vec<u64>, u64)> {
    let mut chunks: Vec<u64> = Vec::new();
    let (mut all, mut last) = (0, None);
    for run in violation.extents.runs() {
        let (first, end) = (run.start().chunk().get(), run.last().chunk().get());
        let first = if last == Some(first) { first + 1 } else { first };
        if first <= end {
            all += end - first + 1;
            let room = CHUNKS_SHOWN - chunks.len();
            chunks.extend((first..=end).take(room));
        }
        last = Some(end);
    }
    if let (Some(picture), true) = (&violation.picture, chunks.is_empty()) {
        (chunks, all) = (vec![picture.chunk], 1);
    }
    let more = all.saturating_sub(chunks.len() as u64);
    (!chunks.is_empty()).then_some((chunks, more))
}

/// The columns that a map has.
struct Canvas<'c> {
    chunks: &'c [u64],
}

impl Canvas<'_> {
    fn places(&self) -> impl Iterator<Item = (usize, Extent)> {
        let per_chunk = usize::try_from(CHUNK_LBAS).unwrap_or(64);
        let chunk = |chunk: &u64| Extent::lbas(chunk * CHUNK_LBAS, CHUNK_LBAS);
        (0..).step_by(per_chunk).zip(self.chunks.iter().map(chunk))
    }
    fn paint(&self, done: impl IntoIterator<Item = (Extent, Cell)>) -> Vec<Cell> {
        let width = usize::try_from(CHUNK_LBAS).unwrap_or(64) * self.chunks.len();
        let mut cells = vec![Cell::Empty; width];
        for (at, cell) in done {
            for (column, chunk) in self.places() {
                let Some(both) = chunk.intersect(at) else { continue };
                let offset = both.start().get() - chunk.start().get();
                let first = column + usize::try_from(offset).unwrap_or(0);
                let len = usize::try_from(both.len_lbas().get()).unwrap_or(0);
                cells.iter_mut().skip(first).take(len).for_each(|it| *it = cell);
            }
        }
        cells
    }
    fn set(&self, set: &LbaSet, cell: Cell) -> Vec<Cell> {
        self.paint(set.runs().iter().map(|at| (*at, cell)))
    }
    fn cut_at(&self, len: u64, row: &mut Row) {
        for (column, chunk) in self.places() {
            for (cell, lba) in
                row.cells.iter_mut().skip(column).zip(chunk.start().get()..chunk.end().get())
            {
                if lba >= len && *cell == Cell::Empty {
                    *cell = Cell::Outside;
                }
            }
        }
    }
}

fn verdict(title: impl Into<String>, cells: Vec<Cell>) -> Row {
    Row { title: title.into(), verdict: true, cells }
}

fn epoch_rows(
    history: &History,
    role: Role,
    violation: &Violation,
    canvas: &Canvas<'_>,
) -> Vec<Row> {
    let epochs = history.epochs.get(&role).map_or(&[][..], Vec::as_slice);
    let mut after: Option<Label> = None;
    let mut counts = violation.snap.is_some() && violation.base.is_none();
    let mut rows = Vec::new();
    for epoch in epochs {
        let empty = epoch.done.is_empty() && epoch.notes.is_empty();
        // The open end of a history says nothing unless something happened there.
        if !(epoch.until.is_none() && empty && !rows.is_empty()) {
            let title = epoch_title(role, after, epoch, counts);
            let cells = canvas.paint(epoch.done.iter().copied());
            rows.push(Row { title, verdict: false, cells });
        }
        after = epoch.until;
        counts = match after {
            Some(label) if violation.base == Some(label) => true,
            Some(label) if violation.snap == Some(label) => false,
            _ => counts,
        };
    }
    if rows.len() > EPOCHS_SHOWN {
        let half = EPOCHS_SHOWN / 2;
        let left_out = rows.len() - EPOCHS_SHOWN;
        let title = so_many(left_out, "more epoch", "more epochs");
        let row = Row { title, verdict: false, cells: canvas.paint([]) };
        rows.splice(half..half + left_out, [row]);
    }
    rows
}

fn epoch_title(role: Role, after: Option<Label>, epoch: &Epoch, counts: bool) -> String {
    let mut title = match (after, epoch.until) {
        (None, Some(until)) => format!("before {until}"),
        (Some(after), Some(until)) => format!("{after} to {until}"),
        (Some(after), None) => format!("after {after}"),
        (None, None) => "whole run".to_owned(),
    };
    if role != Role::Source {
        title = format!("{role}: {title}");
    }
    if !epoch.notes.is_empty() {
        title = format!("{title} ({})", epoch.notes.join(", "));
    }
    if counts { format!("{title} *") } else { title }
}

/// Expected, answered, and the difference.
fn claim_rows(
    history: &History,
    violation: &Violation,
    policy: Policy,
    canvas: &Canvas<'_>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    if violation.kind == Kind::Disturbed
        && let Some(copy) = history.copies.last()
    {
        rows.push(verdict("had to be copied", canvas.set(&copy.had_to, Cell::Must)));
        rows.push(verdict("written to the target", canvas.set(&copy.wrote, Cell::Copied)));
        let expected = canvas.set(&copy.had_to, Cell::Must);
        rows.push(difference(&expected, &canvas.set(&copy.wrote, Cell::Reported)));
        return rows;
    }
    let answers: Vec<&Answer> = history
        .answers
        .iter()
        .filter(|answer| violation.snap == Some(answer.pair.0) && violation.base == answer.pair.1)
        .collect();
    let answer = answers.last().copied();
    if let (Kind::Nondeterministic, [.., first, last]) = (violation.kind, answers.as_slice()) {
        let cells = [first, last].map(|answer| canvas.set(&answer.reported, Cell::Reported));
        rows.push(verdict("answered first", cells[0].clone()));
        rows.push(verdict("answered later", cells[1].clone()));
        rows.push(difference(&as_expected(&cells[0]), &cells[1]));
        return rows;
    }
    let expected = answer.and_then(|answer| predicted(history, violation, answer, policy, canvas));
    let shown = expected.zip(answer.map(|answer| canvas.set(&answer.reported, Cell::Reported)));
    let Some((expected, reported)) = shown.or_else(|| pictured(violation, canvas)) else {
        // Wrong by what other answers say: they are shown beside it.
        let others = history.answers.len().saturating_sub(ANSWERS_SHOWN);
        for Answer { pair: (snap, base), reported, .. } in history.answers.iter().skip(others) {
            let base = base.map_or_else(|| "no base".to_owned(), |base| format!("base {base}"));
            let cells = canvas.set(reported, Cell::Reported);
            rows.push(verdict(format!("diff({snap}, {base})"), cells));
        }
        let wrong = match violation.kind {
            Kind::Missed => Cell::Missed,
            Kind::Leaked | Kind::Disturbed => Cell::Extra,
            _ => Cell::Wrong,
        };
        rows.push(verdict("difference", canvas.set(&violation.extents, wrong)));
        return rows;
    };
    let difference = difference(&expected, &reported);
    rows.push(verdict("expected", expected));
    rows.push(verdict("reported", reported));
    rows.push(difference);
    rows
}

fn as_expected(cells: &[Cell]) -> Vec<Cell> {
    let must = |cell: &Cell| if *cell == Cell::Reported { Cell::Must } else { *cell };
    cells.iter().map(must).collect()
}

/// What the model says of an answer, if that explains the violation.
fn predicted(
    history: &History,
    violation: &Violation,
    answer: &Answer,
    policy: Policy,
    canvas: &Canvas<'_>,
) -> Option<Vec<Cell>> {
    let (snap, base) = answer.pair;
    let Prediction { must, may } = history.model.as_ref()?.predict(snap, base)?;
    // A walk from within owes nothing before the chunk it starts in.
    let rest = |set: &LbaSet| -> LbaSet {
        let first = answer.from.chunk_start();
        let from = set.runs().iter().filter(|run| run.end() > first);
        from.filter_map(|run| Extent::between(run.start().max(first), run.end())).collect()
    };
    let (must, may) = (rest(&must), rest(&may));
    let wrong = match violation.kind {
        Kind::Missed => must.difference(&answer.reported),
        Kind::Leaked => leaked(&may, &answer.reported, policy),
        _ => return None,
    };
    if wrong != violation.extents {
        return None;
    }
    let allowed = match policy {
        Policy::Exact => may,
        Policy::Chunk => may.rounded_out(LbaCount::new(CHUNK_LBAS)),
        Policy::Granule(lbas) => may.rounded_out(lbas),
        Policy::ReportOnly => may.union(&answer.reported),
    };
    let may = allowed.runs().iter().map(|at| (*at, Cell::May));
    let must = must.runs().iter().map(|at| (*at, Cell::Must));
    Some(canvas.paint(may.chain(must)))
}

/// What the violation's own picture says of its chunk.
fn pictured(violation: &Violation, canvas: &Canvas<'_>) -> Option<(Vec<Cell>, Vec<Cell>)> {
    let picture = violation.picture.as_ref()?;
    let start = crate::block::ChunkIndex::new(picture.chunk).first_lba()?;
    let expected = if violation.kind == Kind::Leaked { Cell::May } else { Cell::Must };
    let paint = |bits: crate::block::ChunkBitmap, cell| {
        canvas.paint(bits.extents(start).map(|at| (at, cell)))
    };
    Some((paint(picture.expected, expected), paint(picture.reported, Cell::Reported)))
}

/// What had to be against what is.
fn difference(expected: &[Cell], reported: &[Cell]) -> Row {
    let cell = |(expected, reported): (&Cell, &Cell)| {
        let there = *reported == Cell::Reported;
        match (expected, there) {
            (Cell::Must, true) | (Cell::May, true) => Cell::Agreed,
            (Cell::Must, false) => Cell::Missed,
            (_, true) => Cell::Extra,
            (_, false) => Cell::Empty,
        }
    };
    verdict("difference", expected.iter().zip(reported).map(cell).collect())
}

impl History {
    /// The last blocks read that a violation of contents is about.
    fn reading(&self, violation: &Violation) -> Option<&Reading> {
        let about = |reading: &&Reading| {
            reading.found.iter().any(|(at, _)| violation.extents.overlaps(*at))
        };
        let content = violation.kind == Kind::Content;
        content.then(|| self.readings.iter().rev().find(about)).flatten()
    }
}

fn content_rows(history: &History, reading: &Reading, canvas: &Canvas<'_>) -> Vec<Row> {
    let place = match reading.snap {
        Some(snap) if reading.role == Role::Source => snap.to_string(),
        _ => format!("the {}", reading.role),
    };
    let mut rows = Vec::new();
    if reading.role == Role::Target
        && let Some(copy) = history.copies.last()
    {
        rows.push(verdict("written to the target", canvas.set(&copy.wrote, Cell::Copied)));
    }
    let expected = canvas.paint(reading.expected.iter().copied());
    let found = canvas.paint(reading.found.iter().copied());
    let cell = |(expected, found): (&Cell, &Cell)| match (expected, found) {
        (_, Cell::Empty) | (Cell::Empty, _) => Cell::Empty,
        (Cell::HoldsSeveral, _) => Cell::Empty,
        (expected, found) if expected == found => Cell::Agreed,
        // Old data may be zeros.
        (Cell::HoldsOld, Cell::HoldsZero | Cell::HoldsOther) => Cell::Agreed,
        _ => Cell::Wrong,
    };
    let wrong = expected.iter().zip(&found).map(cell).collect();
    rows.push(verdict(format!("{place} must hold"), expected));
    rows.push(verdict(format!("{place} holds"), found));
    rows.push(verdict("difference", wrong));
    rows
}
