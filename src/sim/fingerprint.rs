//! A simulated array as words that are equal exactly when its future is: whatever is asked or done
//! next, two arrays with equal words answer alike.
//!
//! Everything the array remembers goes in, also what only planted bugs look at. Every struct is
//! taken apart by name, so that a field that is added later does not compile until it is dealt
//! with. Renamed are: numbers of cuts and volumes (only their order counts) and clock times (only
//! what is still to come counts). Left out are: what numbers and identities are made of, identities
//! and names of snapshots, times of creation; they are shown but decide nothing.
//! Not covered: what blocks mean; the caller names them.

use super::array::SimArray;
use super::state::{Fork, NEVER, Snapshot, State};
use super::tracking::{Epoch, Link, Masks, Origin, Planted, Preload, Tracking};
use super::volume::{PendingCut, Volume, VolumeCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Gives a block that is not all zeros a name: equal for blocks that mean the same, never 0.
pub type NameBlock<'n> = &'n mut dyn FnMut(u64, &[u8]) -> u64;

/// What is collected, and what it takes to rename.
struct Words<'n> {
    words: Vec<u64>,
    ranks: BTreeMap<u64, u64>,
    now: Duration,
    block_bytes: usize,
    name: NameBlock<'n>,
}

impl SimArray {
    /// Everything that decides about the array's future, as words. `name` is told the LBA and the
    /// bytes of each block that is not zero, in an order that depends on the state alone.
    pub fn fingerprint(&self, name: NameBlock<'_>) -> Vec<u64> {
        let now = self.clock().now();
        let block_bytes = self.config().block.get();
        let mut words = Words {
            words: Vec::with_capacity(256),
            ranks: BTreeMap::new(),
            now,
            block_bytes,
            name,
        };
        self.with_state(|state| words.state(state));
        words.words
    }
}

impl Words<'_> {
    fn put(&mut self, word: u64) {
        self.words.push(word);
    }

    fn count(&mut self, count: usize) {
        self.put(count as u64);
    }

    /// A number of a cut or a volume, as its place among all of them.
    fn rank(&mut self, number: u64) {
        let rank = self.ranks.get(&number).copied().unwrap_or(number);
        self.put(rank);
    }

    /// How long it is until then; the past is all the same.
    fn until(&mut self, then: Duration) {
        let left = match then {
            NEVER => u64::MAX,
            then => u64::try_from(then.saturating_sub(self.now).as_nanos()).unwrap_or(u64::MAX),
        };
        self.put(left);
    }

    fn state(&mut self, state: &State) {
        let State { volumes, snapshots, forks, last_number: _, snapshots_made, dead_epochs } =
            state;
        let mut alive: Vec<&Snapshot> =
            snapshots.iter().filter(|snapshot| !snapshot.is_gone(self.now)).collect();
        alive.sort_by_key(|snapshot| snapshot.cut);
        let mut cells: BTreeMap<u64, &Arc<VolumeCell>> =
            volumes.iter().map(|cell| (cell.number, cell)).collect();
        cells.extend(alive.iter().map(|snapshot| (snapshot.cell.number, &snapshot.cell)));
        self.rank_all(&cells, &alive, forks);
        self.count(cells.len());
        for (number, cell) in &cells {
            self.put(u64::from(volumes.iter().any(|live| live.uuid == cell.uuid)));
            self.rank(*number);
            self.cell(cell);
        }
        self.count(alive.len());
        alive.into_iter().for_each(|snapshot| self.snapshot(snapshot));
        self.count(forks.len());
        for Fork { volume_number, to, at } in forks {
            [*volume_number, *to, *at].into_iter().for_each(|number| self.rank(number));
        }
        self.put(*snapshots_made);
        let dead: BTreeMap<_, _> = dead_epochs.iter().copied().collect();
        self.count(dead.len());
        for (uuid, epochs) in dead {
            self.identity(uuid.as_u128());
            self.count(epochs);
        }
    }

    /// Finds the place of every number that is mentioned anywhere.
    fn rank_all(
        &mut self,
        cells: &BTreeMap<u64, &Arc<VolumeCell>>,
        alive: &[&Snapshot],
        forks: &[Fork],
    ) {
        let mut numbers: BTreeSet<u64> = cells.keys().copied().collect();
        numbers.extend(alive.iter().map(|snapshot| snapshot.cut));
        numbers.extend(forks.iter().flat_map(|fork| [fork.volume_number, fork.to, fork.at]));
        for cell in cells.values() {
            let volume = cell.read();
            let planted = &volume.tracking.planted;
            numbers.extend(volume.pending.map(|pending| pending.cut));
            numbers.extend(volume.tracking.links.iter().map(|link| link.cut));
            numbers.extend(volume.store.kept.iter().map(|kept| kept.cut));
            numbers.extend(planted.answers.keys().flatten());
            numbers.extend(planted.walks.keys().flat_map(|(base, snap)| base.iter().chain([snap])));
        }
        self.ranks = numbers.into_iter().zip(0..).collect();
    }

    fn identity(&mut self, uuid: u128) {
        self.words.extend(
            uuid.to_le_bytes()
                .chunks_exact(8)
                .map(|half| half.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        );
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        let Snapshot { uuid: _, name: _, cell, cut, len_lbas, created: _, available_at, gone_at } =
            snapshot;
        self.rank(cell.number);
        self.rank(*cut);
        self.put(*len_lbas);
        self.until(*available_at);
        self.put(u64::from(gone_at.is_some()));
        self.until(gone_at.unwrap_or_default());
    }

    fn cell(&mut self, cell: &VolumeCell) {
        self.identity(cell.uuid.as_u128());
        self.put(u64::from(cell.source_snapshot.is_some()));
        let volume = cell.read();
        let Volume {
            len_lbas,
            store: _,
            tracking,
            creating_until,
            deleting_until,
            deleted,
            armed,
            pending,
        } = &*volume;
        self.put(*len_lbas);
        self.until(*creating_until);
        self.until(*deleting_until);
        self.put(u64::from(*deleted));
        self.put(armed.map_or(0, |armed| armed.word()));
        self.put(u64::from(pending.is_some()));
        if let Some(PendingCut { cut, by, ops_left }) = pending {
            self.rank(*cut);
            self.until(*by);
            self.put(u64::from(*ops_left));
        }
        self.store(&volume);
        self.tracking(tracking);
    }

    /// What the volume and each snapshot hold, not how it is stored: a unit of zeros is a unit that
    /// is missing, and a unit that a snapshot keeps without need is not kept.
    fn store(&mut self, volume: &Volume) {
        let store = &volume.store;
        for (unit, bytes) in &store.live {
            self.unit(*unit, Some(bytes), None);
        }
        self.put(u64::MAX);
        for (place, kept) in store.kept.iter().enumerate() {
            self.rank(kept.cut);
            for (unit, bytes) in &kept.units {
                let later = store.unit_since(place + 1, *unit).map(|bytes| &**bytes);
                self.unit(*unit, bytes.as_ref().map(|bytes| &**bytes), later);
            }
            self.put(u64::MAX);
        }
    }

    /// Blocks of a unit, unless they are what would be read without it.
    fn unit(&mut self, unit: u64, bytes: Option<&[u8]>, otherwise: Option<&[u8]>) {
        let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let same = match (bytes, otherwise) {
            (Some(here), Some(there)) => here == there,
            (Some(one), None) | (None, Some(one)) => zeros(one),
            (None, None) => true,
        };
        if same {
            return;
        }
        self.put(unit);
        let blocks = bytes.unwrap_or_default().chunks(self.block_bytes);
        let lbas = blocks.len() as u64;
        for (place, block) in (0..).zip(blocks).filter(|(_, block)| !zeros(block)) {
            let name = (self.name)(unit * lbas + place, block);
            self.words.extend([place, name]);
        }
        self.put(u64::MAX);
    }

    fn tracking(&mut self, tracking: &Tracking) {
        let Tracking { bugs: _, origin, links, current, planted } = tracking;
        let Origin { masks, preload } = origin;
        self.masks(masks);
        self.put(u64::from(preload.is_some()));
        if let Some((preload, end)) = preload {
            let (kind, seed) = match *preload {
                Preload::Dense => (1, 0),
                Preload::Alternating => (2, 0),
                Preload::Random(seed) => (3, seed),
            };
            self.words.extend([kind, seed, *end]);
        }
        self.count(links.len());
        for Link { cut, epoch, walk_broken } in links {
            self.rank(*cut);
            self.put(u64::from(*walk_broken));
            self.epoch(epoch);
        }
        self.epoch(current);
        self.planted(planted);
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let Epoch { masks, unsaved, everything, rewritten } = epoch;
        self.masks(masks);
        self.masks(unsaved);
        self.put(u64::from(*everything));
        self.masks(rewritten);
    }

    /// Chunks without bits count too: only a planted bug keeps them apart, but it might.
    fn masks(&mut self, masks: &Masks) {
        self.count(masks.len());
        for (chunk, bits) in masks {
            self.put(*chunk);
            self.put(*bits);
        }
    }

    fn planted(&mut self, planted: &Planted) {
        let Planted {
            inherited_epochs,
            made_for_chunks,
            outgrown,
            hole,
            cuts_since_restart,
            answers,
            walks,
            record_fails,
        } = planted;
        self.count(*inherited_epochs);
        self.put(*made_for_chunks);
        self.put(u64::from(*outgrown) | u64::from(*record_fails) << 1);
        self.put(u64::from(hole.is_some()));
        self.words.extend(hole.iter().flat_map(|hole| [hole.start, hole.end]));
        self.put(cuts_since_restart.map_or(u64::MAX, u64::from));
        self.count(answers.len());
        for (base, masks) in answers {
            self.base(*base);
            self.masks(masks);
        }
        self.count(walks.len());
        for ((base, snap), count) in walks {
            self.base(*base);
            self.rank(*snap);
            self.put(*count);
        }
    }

    fn base(&mut self, base: Option<u64>) {
        match base {
            Some(base) => self.rank(base),
            None => self.put(u64::MAX),
        }
    }
}
