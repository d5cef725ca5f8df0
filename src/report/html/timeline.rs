//! The operations of a finding on a line: each step a numbered stop, snapshots as lines across it,
//! the observing step marked. Not covered: the steps in words, which stand below it as a list.

use crate::report::map::Cell;
use crate::report::verdict::counted;
use crate::scenario::{Op, Step};
use maud::{Markup, html};

/// Steps that are drawn; those in the middle are left out of the picture.
const SHOWN: usize = 40;
/// Space of a step.
const STEP_W: usize = 44;
const HEIGHT: usize = 96;
/// Where the line runs.
const TRACK_Y: usize = 52;
const MARGIN: usize = 26;

enum Stop<'s> {
    Step(usize, &'s Op),
    LeftOut(usize),
}

/// The picture. `id` is one that the page has not used yet.
pub(super) fn timeline(steps: &[Step], id: &str) -> Markup {
    let stops = stops(steps);
    let width = MARGIN * 2 + stops.len().saturating_sub(1) * STEP_W + 20;
    let last = steps.len();
    html! {
        svg role="img" aria-labelledby={ (id) "-t " (id) "-d" } width=(width) height=(HEIGHT)
            viewBox={ "0 0 " (width) " " (HEIGHT) } {
            title id={ (id) "-t" } { "Time line of " (counted(steps.len() as u64, "step", "steps")) }
            desc id={ (id) "-d" } { "The same steps are listed below. The last one is where the violation shows." }
            line class="track" x1=(MARGIN) y1=(TRACK_Y) x2=(width - MARGIN) y2=(TRACK_Y) {}
            @for (place, stop) in stops.iter().enumerate() {
                @let x = MARGIN + place * STEP_W;
                @match stop {
                    Stop::LeftOut(count) => {
                        text class="label" x=(x) y=(TRACK_Y + 30) text-anchor="middle" { "…" (count) " more" }
                    }
                    Stop::Step(number, op) => {
                        @if let Some(label) = taken(op) {
                            line class="snap" x1=(x) y1="18" x2=(x) y2=(HEIGHT - 20) {}
                            text class="label link" x=(x) y="13" text-anchor="middle" { (label) }
                        }
                        @if *number == last {
                            path class="judge" d={ "M" (x) " " (TRACK_Y - 13) "l13 13l-13 13l-13 -13z" } {}
                            text class="judge-t" x=(x) y=(TRACK_Y + 4) text-anchor="middle" { "!" }
                        } @else {
                            @let cell = cell(op);
                            rect class={ "f-" (cell.class().name()) } x=(x - 9) y=(TRACK_Y - 9) width="18" height="18" rx="3" {}
                            text class={ "t-" (cell.class().name()) } x=(x) y=(TRACK_Y + 4) text-anchor="middle" { (letter(op)) }
                        }
                        text class="label strong" x=(x) y=(HEIGHT - 8) text-anchor="middle" {
                            @if *number == last { "then" } @else { (number) }
                        }
                    }
                }
            }
        }
    }
}

fn stops(steps: &[Step]) -> Vec<Stop<'_>> {
    let all: Vec<Stop<'_>> = (1..).zip(steps).map(|(n, step)| Stop::Step(n, &step.op)).collect();
    if all.len() <= SHOWN + 1 {
        return all;
    }
    let left_out = all.len() - SHOWN - 1;
    let mut all = all;
    all.splice(SHOWN / 2..SHOWN / 2 + left_out, [Stop::LeftOut(left_out)]);
    all
}

/// The snapshot that is taken by it, or in it.
fn taken(op: &Op) -> Option<String> {
    let mut label = None;
    op.each(&mut |op| {
        if let Op::Take { label: taken, .. } = op {
            label.get_or_insert(*taken);
        }
    });
    label.map(|label| label.to_string())
}

fn cell(op: &Op) -> Cell {
    match op {
        Op::On { op, .. } => cell(op),
        Op::Write { .. } => Cell::Write,
        Op::Rewrite { .. } => Cell::Rewrite,
        Op::Zero { .. } | Op::WriteZeroes { .. } => Cell::Zero,
        Op::Discard { .. } => Cell::Discard,
        Op::Rollback { .. } => Cell::Rollback,
        Op::Resize { .. } => Cell::Resize,
        _ => Cell::May,
    }
}

/// The letter of a step: as in the map where it is there, else its own.
fn letter(op: &Op) -> char {
    match op {
        Op::On { op, .. } => letter(op),
        Op::Take { .. } => 'T',
        Op::Delete { .. } => 'X',
        Op::Diff { .. } => 'd',
        Op::Sync { .. } | Op::SyncChain { .. } => 'C',
        Op::Read { .. } => 'r',
        Op::Concurrent(_) => '&',
        Op::Restart { .. } => 'K',
        Op::Flush => 'F',
        Op::Wait => '.',
        Op::Clone { .. } | Op::CreateVolume { .. } | Op::DeleteVolume { .. } => 'V',
        Op::Check(_) => '?',
        op => cell(op).letter(),
    }
}
