//! The legal freedoms of an honest array (`oracle.md` section 9): where it takes them.
//!
//! Every draw is a pure function of the seed and the place it concerns (chunk, epoch, pair of cuts,
//! offset or call number), so that equal questions get equal answers. What a reader can see of them
//! is data like any other: the oracle must not mind. Not covered: deviations that are not legal
//! (`bugs`).

use super::SimPage;
use super::diff::{Ask, Chunks};
use super::state::mix;
use super::tracking::CHUNK;
use crate::block::Freedoms;
use std::time::Duration;

/// What a draw is for; keeps the draws of different freedoms apart.
#[derive(Clone, Copy)]
enum Of {
    Round = 1,
    Elide,
    Late,
    Cut,
    SlowDelete,
    Page,
    Edge,
    Zeros,
    Refusal,
}

fn draw(freedoms: &Freedoms, of: Of, place: u64, more: u64) -> u64 {
    mix(freedoms.seed ^ mix(place ^ mix(more ^ mix(of as u64))))
}

/// A delay that counts as none for what is "long".
const DELAY_MIN: Duration = Duration::from_millis(10);
/// The longest delay is this power of two times the usual one: 41 s where that is 10 ms, well below
/// any deadline.
const DELAY_DOUBLINGS: u64 = 12;

fn long(usual: Duration, draw: u64) -> Duration {
    let doublings = u32::try_from(draw % (DELAY_DOUBLINGS + 1)).unwrap_or(0);
    usual.max(DELAY_MIN).saturating_mul(1 << doublings)
}

/// How long the snapshot `cut` stays Creating.
pub(super) fn create_delay(freedoms: &Freedoms, cut: u64, usual: Duration) -> Duration {
    if !freedoms.late_available {
        return usual;
    }
    long(usual, draw(freedoms, Of::Late, cut, 0))
}

/// How long the snapshot `cut` stays Deleting.
pub(super) fn delete_delay(freedoms: &Freedoms, cut: u64, usual: Duration) -> Duration {
    if !freedoms.slow_delete {
        return usual;
    }
    long(usual, draw(freedoms, Of::SlowDelete, cut, 0))
}

/// Operations of the volume that still lie before the cut of the snapshot `cut`, unless it becomes
/// Available first.
pub(super) fn ops_before_cut(freedoms: &Freedoms, cut: u64) -> u32 {
    if !freedoms.late_cut {
        return 0;
    }
    u32::try_from(draw(freedoms, Of::Cut, cut, 0) % 4).unwrap_or(0)
}

/// Whether writes of what is there already go untracked in this chunk and epoch.
pub(super) fn elides(freedoms: &Freedoms, chunk: u64, epoch: u64) -> bool {
    freedoms.elide_same_content && draw(freedoms, Of::Elide, chunk, epoch).is_multiple_of(2)
}

/// Whether the call number `call` is refused once, and with which status. Never two calls in a row,
/// so that asking again succeeds. Creating and deleting may also collide with another operation.
pub(super) fn refusal(freedoms: &Freedoms, call: u64, collides: bool) -> Option<u16> {
    if !freedoms.transient_errors || !call.is_multiple_of(2) {
        return None;
    }
    match draw(freedoms, Of::Refusal, call, 0) % 12 {
        0 => Some(429),
        1 => Some(503),
        2 if collides => Some(409),
        _ => None,
    }
}

/// Whether the answer to call number `call` leaves zeros out.
pub(super) fn omits_zeros(freedoms: &Freedoms, call: u64) -> bool {
    freedoms.omitted_zeros && draw(freedoms, Of::Zeros, call, 0).is_multiple_of(2)
}

/// The chunks of an answer, some of them whole. `pair` are the cuts of base and snapshot.
pub(super) fn rounded<'a>(
    freedoms: &'a Freedoms,
    pair: (u64, u64),
    len_lbas: u64,
    changed: &'a mut Chunks<'_>,
) -> impl Iterator<Item = (u64, u64)> + 'a {
    let pair = mix(pair.0) ^ pair.1;
    changed.map(move |(chunk, bits)| {
        let whole = draw(freedoms, Of::Round, chunk, pair).is_multiple_of(2);
        (chunk, if whole { super::diff::below(chunk, len_lbas) } else { bits })
    })
}

/// Takes one page off `changed`, perhaps a short or empty one, perhaps with a next page that begins
/// with the last range of this one.
pub(super) fn cut_page(
    freedoms: &Freedoms,
    ask: Ask,
    pair: (u64, u64),
    changed: &mut Chunks<'_>,
) -> SimPage {
    let here = ask.offset_lba / CHUNK;
    let pair = mix(pair.0) ^ pair.1;
    let mut changed = changed.peekable();
    let uneven = if freedoms.uneven_pages { draw(freedoms, Of::Page, here, pair) } else { 3 };
    let limit = match uneven % 4 {
        0 if changed.peek().is_some_and(|&(chunk, _)| chunk > here) => 0,
        1 => 1 + usize::try_from(uneven >> 8).unwrap_or(0) % ask.limit,
        _ => ask.limit,
    };
    let mut page = super::diff::cut_page(&mut changed, limit);
    let last = page.ranges.last().map(|range| range.start_lba / CHUNK);
    if page.next_offset_lba == 0 && uneven % 4 == 2 {
        // Nothing is left, but this page does not say so.
        let after = (last.unwrap_or(here) + 1) * CHUNK;
        page.next_offset_lba = if after < ask.len_lbas { after } else { 0 };
    }
    let repeats = freedoms.repeated_edges
        && page.next_offset_lba != 0
        && draw(freedoms, Of::Edge, here, pair).is_multiple_of(2);
    // The next page begins with this range again; that is a step forward only if it is not the first
    // chunk that was asked for.
    if repeats && let Some(last) = last.filter(|&last| last > here) {
        page.next_offset_lba = last * CHUNK;
    }
    page
}
