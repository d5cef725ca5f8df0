//! The world of a generated case: its header, and what the generator remembers of its volumes and
//! snapshots while it draws. Not covered: what they hold (`crate::model`).

use super::entropy::Entropy;
use super::focus::{Focus, World};
use super::profile::{Offers, Profile};
use crate::block::{
    CHUNK_LBAS, CloneFullDiff, Extent, Freedoms, Geometry, LbaCount, Policy, Role, RollbackKind,
};
use crate::scenario::{Header, Label};
use std::collections::BTreeMap;

/// Snapshots of one case at most.
pub(super) const MAX_SNAPS: usize = 24;
/// The last snapshots are kept for the observing steps.
pub(super) const SPARE_SNAPS: usize = 2;
/// Changed extents that later moves come back to.
const HOT: usize = 4;

/// A snapshot as the generator remembers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snap {
    pub(super) label: Label,
    pub(super) role: Role,
    pub(super) incarnation: u8,
    pub(super) alive: bool,
    pub(super) len: u64,
}

/// A volume as the generator remembers it: its size and which one of its role it is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Vol {
    pub(super) len: u64,
    pub(super) incarnation: u8,
    /// Whether it has changed since its last snapshot.
    pub(super) changed: bool,
}

/// What the generator remembers.
pub(super) struct State {
    vols: [Vol; Role::ALL.len()],
    snaps: [Snap; MAX_SNAPS],
    taken: usize,
    next_label: u32,
    label_jumps: bool,
    /// The source can grow up to here: the target is that long.
    pub(super) max_len: u64,
    /// Size before the last grow.
    pub(super) len_before_grow: u64,
    /// Where the last change was.
    pub(super) last: Extent,
    /// Places that moves come back to.
    pub(super) hot: [u64; HOT],
    /// Ranges of one page at most.
    pub(super) page_limit: u64,
    /// Whether the volumes are too large to be touched whole.
    pub(super) sparse: bool,
    /// Whether some snapshot may not have settled.
    pub(super) unsettled: bool,
    /// The volume on which a snapshot may still be in the making: none other may be taken there.
    pub(super) creating: Option<Role>,
}

/// The place of a role in an array of all.
pub(super) const fn place(role: Role) -> usize {
    match role {
        Role::Source => 0,
        Role::Target => 1,
        Role::Neighbour => 2,
        Role::Clone => 3,
    }
}

impl State {
    pub(super) fn vol(&self, role: Role) -> Vol {
        self.vols[place(role)]
    }
    pub(super) fn vol_mut(&mut self, role: Role) -> &mut Vol {
        &mut self.vols[place(role)]
    }
    /// Whether there is such a volume.
    pub(super) fn exists(&self, role: Role) -> bool {
        self.vol(role).len > 0
    }
    /// Every snapshot taken so far, in order.
    pub(super) fn snaps(&self) -> &[Snap] {
        &self.snaps[..self.taken]
    }
    pub(super) fn has_room(&self, spare: usize) -> bool {
        self.taken + spare < MAX_SNAPS
    }
    /// Remembers a snapshot of `role` and gives it a label.
    pub(super) fn take<E: Entropy>(&mut self, entropy: &mut E, role: Role) -> Label {
        let label = Label(self.next_label);
        let jump = self.label_jumps && entropy.chance(1, 2);
        self.next_label += if jump { 1 + u32::try_from(entropy.below(9)).unwrap_or(0) } else { 1 };
        let Vol { len, incarnation, .. } = self.vol(role);
        self.vol_mut(role).changed = false;
        if let Some(free) = self.snaps.get_mut(self.taken) {
            *free = Snap { label, role, incarnation, alive: true, len };
            self.taken += 1;
        }
        label
    }
    /// Remembers that the `nth` snapshot is gone, and names it.
    pub(super) fn delete(&mut self, nth: usize) -> Label {
        self.snaps[nth].alive = false;
        self.snaps[nth].label
    }
    /// Places of the usable snapshots of a volume that exists, oldest first, and how many.
    pub(super) fn usable(&self, role: Role) -> ([u8; MAX_SNAPS], usize) {
        let incarnation = self.vol(role).incarnation;
        let (mut found, mut count) = ([0; MAX_SNAPS], 0);
        for (snap, at) in self.snaps().iter().zip(0u8..) {
            if snap.alive && snap.role == role && snap.incarnation == incarnation {
                found[count] = at;
                count += 1;
            }
        }
        (found, count)
    }
    /// The usable snapshot `back` places before the newest of that volume.
    pub(super) fn nth_back(&self, role: Role, back: usize) -> Option<usize> {
        let (found, count) = self.usable(role);
        Some(usize::from(found[count.checked_sub(back + 1)?]))
    }
}

/// Draws a case's header and the state it starts with.
pub(super) fn draw<E: Entropy>(
    entropy: &mut E,
    profile: &Profile,
    focus: &Focus,
) -> (Header, State) {
    let offers = profile.offers;
    let sparse = focus.world == World::Sparse && offers.has(Offers::SPARSE);
    let len = match focus.world {
        World::Sparse if sparse && profile.lens[0] < 1 << 32 => {
            entropy.pick(&[(1 << 32) + 200, (1 << 26) + 1000, (1 << 32) + 64 * 9, (1 << 33) + 65])
        }
        World::PartialTail => match entropy.pick(profile.lens) {
            len if len.is_multiple_of(CHUNK_LBAS) => len + 1 + entropy.below(CHUNK_LBAS - 1),
            len => len,
        },
        _ => entropy.pick(profile.lens),
    };
    let resizes = offers.has(Offers::RESIZE) && !sparse;
    let max_len = if resizes { (len * 2).next_power_of_two() + 200 } else { len };
    let fresh = profile.fresh.unwrap_or_else(|| !entropy.chance(1, 5));
    let shape = |len| Geometry { block: profile.block, len: LbaCount::new(len), fresh };
    let mut volumes = BTreeMap::from([(Role::Source, shape(len))]);
    let mut vols = [Vol::default(); Role::ALL.len()];
    vols[place(Role::Source)].len = len;
    volumes.insert(Role::Target, shape(max_len));
    vols[place(Role::Target)].len = max_len;
    let neighbour = focus.motif.iter().any(|kind| kind.needs_neighbour());
    if offers.has(Offers::NEIGHBOUR) && (neighbour || entropy.chance(1, 3)) {
        volumes.insert(Role::Neighbour, shape(len));
        vols[place(Role::Neighbour)].len = len;
    }
    let mut header = Header::new(volumes, Policy::Exact, "");
    // Who reads nothing needs no contents.
    header.contents = [Offers::READS, Offers::SNAPSHOT_READS, Offers::SYNCS]
        .into_iter()
        .any(|reading| offers.has(reading));
    if offers.has(Offers::SIMULATED) {
        simulated(entropy, focus, &mut header);
    }
    let odd = focus.world == World::OddLabels || entropy.chance(1, 8);
    let hot = std::array::from_fn(|_| entropy.below(len));
    let nobody = Snap { label: Label(0), role: Role::Source, incarnation: 0, alive: false, len: 0 };
    let state = State {
        vols,
        snaps: [nobody; MAX_SNAPS],
        taken: 0,
        next_label: if odd { entropy.pick(&[2, 9, 8, 0]) } else { 0 },
        label_jumps: odd,
        max_len,
        len_before_grow: len,
        last: Extent::lbas(0, 1),
        hot,
        page_limit: u64::from(header.page_limit.unwrap_or(128)),
        sparse,
        unsettled: false,
        creating: None,
    };
    (header, state)
}

/// Draws what only a simulated array leaves open.
fn simulated<E: Entropy>(entropy: &mut E, focus: &Focus, header: &mut Header) {
    header.page_limit = match focus.world {
        World::SmallPages => entropy.pick(&[Some(1), Some(2), Some(3)]),
        _ => entropy.pick(&[None, Some(1), Some(2), Some(3), Some(128), None]),
    };
    header.rollback =
        entropy.pick(&[RollbackKind::Linear, RollbackKind::Linear, RollbackKind::Forks]);
    header.clone_full_diff = entropy.pick(&[
        CloneFullDiff::IncludesParent,
        CloneFullDiff::IncludesParent,
        CloneFullDiff::SinceClone,
        CloneFullDiff::Unknown,
    ]);
    let uneven = focus.world == World::UnevenPages;
    if uneven || entropy.chance(1, 2) {
        // One word for all flags: each is taken once in four.
        let word = entropy.word();
        let flag = |nth: u32| (word >> (2 * nth)) & 3 == 3;
        header.freedoms = Freedoms {
            seed: word >> 32,
            chunk_rounded: flag(0),
            elide_same_content: flag(1),
            late_available: flag(2),
            late_cut: flag(3),
            slow_delete: flag(4),
            uneven_pages: uneven || flag(5),
            repeated_edges: flag(6),
            omitted_zeros: flag(7),
            transient_errors: flag(8),
        };
        if header.freedoms.is_none() {
            // One spelling of a world without freedoms: a trace does not keep a seed for nothing.
            header.freedoms = Freedoms::NONE;
        }
        if header.freedoms.chunk_rounded {
            header.policy = Policy::Chunk;
        }
    }
    if uneven && header.page_limit.is_none() {
        header.page_limit = Some(2);
    }
}
