//! The control plane's calls on volumes and snapshots: diffs, rollback, resize, restart, clones.
//!
//! Not covered: what is remembered between calls (`state`), the answer itself (`diff`).

use super::bugs::{Bug, BugSet};
use super::diff::Ask;
use super::state::{Fork, NEVER, Refusal, Snapshot, State, base_cut};
use super::store::Store;
use super::tracking::{CHUNK, Origin, Preload};
use super::volume::{NewVolume, PendingCut, SimDevice, VolumeCell, no_volume};
use super::{
    SimConfig, SimError, SimPage, SimSnapshotInfo, SimSnapshotState, SimVolumeInfo, legal,
};
use crate::array::Clock;
use crate::block::{CloneFullDiff, LbaCount, RollbackKind, SnapshotUuid, VolumeUuid};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated array. Clones are handles on the same array; any thread may use them.
#[derive(Clone)]
pub struct SimArray {
    shared: Arc<Shared>,
}

/// Everything behind the handles. Lock order: `state`, then one volume.
pub(super) struct Shared {
    pub(super) config: SimConfig,
    pub(super) bugs: BugSet,
    pub(super) clock: Arc<dyn Clock + Send + Sync>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every volume there is.
    pub(super) fn cells(&self) -> Vec<Arc<VolumeCell>> {
        self.state().volumes.clone()
    }

    fn block_bytes(&self) -> u64 {
        self.config.block.bytes()
    }
}

impl SimArray {
    /// An array without volumes. `clock` decides when delayed things happen.
    pub fn new(config: SimConfig, clock: Arc<dyn Clock + Send + Sync>) -> SimArray {
        let bugs = BugSet::of(&config.bugs);
        SimArray { shared: Arc::new(Shared { config, bugs, clock, state: Mutex::default() }) }
    }

    /// How this array behaves.
    pub fn config(&self) -> &SimConfig {
        &self.shared.config
    }

    /// The time that delays are measured by.
    pub fn clock(&self) -> &Arc<dyn Clock + Send + Sync> {
        &self.shared.clock
    }

    /// A volume that exists.
    pub(super) fn cell(&self, uuid: VolumeUuid) -> Result<Arc<VolumeCell>, SimError> {
        self.shared.state().volume(uuid).cloned()
    }

    /// Looks at everything behind the handles.
    pub(super) fn with_state(&self, look: impl FnOnce(&State)) {
        look(&self.shared.state());
    }

    /// A volume name that is not in use.
    pub(super) fn free_name(&self, kind: &str) -> String {
        let number = self.shared.state().number();
        format!("{kind}-{number}")
    }

    /// Creates a volume of zeros. `uuid` asks for that identity, which must not be in use.
    ///
    /// # Errors
    /// [`SimError::Conflict`] when the name or the identity is taken, [`SimError::BadRequest`] when
    /// the size is zero or has 2^64 bytes or more.
    pub fn create_volume(
        &self,
        name: &str,
        len: LbaCount,
        uuid: Option<VolumeUuid>,
    ) -> Result<VolumeUuid, SimError> {
        let mut state = self.shared.state();
        check_len(len, self.shared.block_bytes())?;
        if state.volumes.iter().any(|cell| cell.name == name) {
            return Err(SimError::Conflict(format!("volume name `{name}` is in use")));
        }
        let made = state.identity(self.shared.config.seed);
        let uuid = uuid.unwrap_or(VolumeUuid::from_u128(made));
        if state.volume(uuid).is_ok() {
            return Err(SimError::Conflict(format!("volume {uuid} exists")));
        }
        let freezes = !self.shared.bugs.has(Bug::SnapshotNotFrozen);
        let new = NewVolume {
            uuid,
            name: name.to_owned(),
            source_snapshot: None,
            created: self.shared.clock.now(),
            number: state.number(),
            len_lbas: len.get(),
            store: Store::new(self.shared.config.block.get(), freezes),
            origin: Origin::default(),
        };
        let cell = new.build(self.shared.bugs);
        let dead = state.dead_epochs.iter().rev().find(|(dead, _)| *dead == uuid);
        if let Some(&(_, epochs)) = dead {
            cell.write().tracking.inherit_epochs(epochs);
        }
        state.volumes.push(Arc::new(cell));
        Ok(uuid)
    }

    /// One volume.
    pub fn volume(&self, uuid: VolumeUuid) -> Option<SimVolumeInfo> {
        let cell = self.cell(uuid).ok()?;
        Some(self.volume_info(&cell))
    }

    /// Every volume, oldest first.
    pub fn volumes(&self) -> Vec<SimVolumeInfo> {
        self.shared.cells().iter().map(|cell| self.volume_info(cell)).collect()
    }

    fn volume_info(&self, cell: &VolumeCell) -> SimVolumeInfo {
        let len_lbas = cell.read().len_lbas;
        SimVolumeInfo {
            uuid: cell.uuid,
            name: cell.name.clone(),
            len: LbaCount::new(len_lbas),
            size_bytes: len_lbas * self.shared.block_bytes(),
            block: self.shared.config.block,
            source_snapshot: cell.source_snapshot,
            created: cell.created,
        }
    }

    /// Deletes a volume; its snapshots stay and still answer (`lightbits-api.md` section 4).
    ///
    /// # Errors
    /// [`SimError::NotFound`].
    pub fn delete_volume(&self, uuid: VolumeUuid) -> Result<(), SimError> {
        let mut state = self.shared.state();
        let place = state.volumes.iter().position(|cell| cell.uuid == uuid);
        let cell = state.volumes.remove(place.ok_or_else(|| no_volume(uuid))?);
        let mut volume = cell.write();
        volume.cut_pending();
        volume.deleted = true;
        if self.shared.bugs.has(Bug::RebornIdInherits) {
            state.dead_epochs.push((uuid, volume.tracking.links.len()));
        }
        Ok(())
    }

    /// The data plane of a volume.
    ///
    /// # Errors
    /// [`SimError::NotFound`].
    pub fn device(&self, volume: VolumeUuid) -> Result<SimDevice, SimError> {
        let cell = self.cell(volume)?;
        Ok(SimDevice { shared: Arc::clone(&self.shared), cell })
    }

    /// Marks a pattern of LBAs as written before the first snapshot, without contents.
    ///
    /// # Errors
    /// [`SimError::NotFound`], and [`SimError::Conflict`] when the volume has snapshots already.
    pub fn preload(&self, volume: VolumeUuid, preload: Preload) -> Result<(), SimError> {
        let cell = self.cell(volume)?;
        let mut volume = cell.write();
        volume.cut_pending();
        if !volume.tracking.links.is_empty() {
            return Err(SimError::Conflict("a volume with snapshots cannot be preloaded".into()));
        }
        volume.tracking.origin.preload = Some((preload, volume.len_lbas));
        Ok(())
    }

    /// Cuts a snapshot now; it is Available after the configured delay.
    ///
    /// # Errors
    /// [`SimError::NotFound`]; [`SimError::Conflict`] when the name is in use; [`SimError::Busy`]
    /// while another snapshot of the volume is Creating.
    pub fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: impl Into<String>,
    ) -> Result<SimSnapshotInfo, SimError> {
        let name = name.into();
        let shared = &*self.shared;
        let now = shared.clock.now();
        let mut state = shared.state();
        let cell = Arc::clone(state.volume(volume)?);
        state.drop_gone(now);
        if state.snapshots.iter().any(|snapshot| snapshot.name == name) {
            return Err(SimError::Conflict(format!("snapshot name `{name}` is in use")));
        }
        let mut locked = cell.write();
        if now < locked.creating_until {
            return Err(SimError::Busy(format!(
                "another snapshot of volume {volume} is being created"
            )));
        }
        let uuid = SnapshotUuid::from_u128(state.identity(shared.config.seed));
        let cut = state.number();
        let len_lbas = locked.len_lbas;
        let freedoms = &shared.config.freedoms;
        let done = now + legal::create_delay(freedoms, cut, shared.config.create_delay);
        // The one before is Available, so its cut is due.
        locked.cut_pending();
        match legal::ops_before_cut(freedoms, cut) {
            ops_left if ops_left > 0 && now < done => {
                locked.pending = Some(PendingCut { cut, by: done, ops_left });
            }
            _ => locked.cut(cut),
        }
        locked.creating_until = done;
        let stuck = shared.bugs.has(Bug::CreateNeverAvailable) && state.takes_stuck_turn();
        let available_at = if stuck { NEVER } else { locked.creating_until };
        drop(locked);
        let snapshot =
            Snapshot { uuid, name, cell, cut, len_lbas, created: now, available_at, gone_at: None };
        let info = snapshot.info(now, shared.block_bytes());
        state.snapshots.push(snapshot);
        Ok(info)
    }

    /// One snapshot that is not gone.
    pub fn snapshot(&self, uuid: SnapshotUuid) -> Option<SimSnapshotInfo> {
        let now = self.shared.clock.now();
        let state = self.shared.state();
        Some(state.snapshot(uuid, now).ok()?.info(now, self.shared.block_bytes()))
    }

    /// Where a snapshot that is not gone is in its life.
    pub fn state_of(&self, uuid: SnapshotUuid) -> Option<SimSnapshotState> {
        let now = self.shared.clock.now();
        Some(self.shared.state().snapshot(uuid, now).ok()?.state(now))
    }

    /// Every snapshot that is not gone, those being deleted included, oldest first.
    pub fn snapshots(&self) -> Vec<SimSnapshotInfo> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        state.drop_gone(now);
        state
            .snapshots
            .iter()
            .map(|snapshot| snapshot.info(now, self.shared.block_bytes()))
            .collect()
    }

    /// Starts deleting a snapshot; it is gone after the configured delay.
    ///
    /// # Errors
    /// [`SimError::NotFound`] once it is gone, [`SimError::BadRequest`] while it is Deleting,
    /// [`SimError::Busy`] while it is Creating (`lightbits-api.md` section 4).
    pub fn delete_snapshot(&self, uuid: SnapshotUuid) -> Result<(), SimError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let mut state = shared.state();
        match state.snapshot(uuid, now)?.state(now) {
            SimSnapshotState::Available => {}
            SimSnapshotState::Creating => {
                return Err(SimError::Busy(format!("snapshot {uuid} is being created")));
            }
            SimSnapshotState::Deleting => {
                return Err(SimError::BadRequest(format!("snapshot {uuid} is being deleted")));
            }
        }
        let Some(snapshot) = state.snapshots.iter_mut().find(|snapshot| snapshot.uuid == uuid)
        else {
            return Ok(());
        };
        let delay = shared.config.delete_delay;
        let done = now + legal::delete_delay(&shared.config.freedoms, snapshot.cut, delay);
        let stays = shared.bugs.has(Bug::DeleteNeverFinishes);
        snapshot.gone_at = Some(if stays { NEVER } else { done });
        let mut volume = snapshot.cell.write();
        volume.settle(now);
        volume.deleting_until = volume.deleting_until.max(done);
        volume.store.forget(snapshot.cut);
        volume.tracking.forget(snapshot.cut);
        Ok(())
    }

    /// One page of the LBAs that changed between the cuts of `base` (or creation) and `snap`, from
    /// the chunk that holds `offset_lba`.
    ///
    /// # Errors
    /// [`SimError::NotFound`] for a snapshot that is unknown, gone or Deleting;
    /// [`SimError::BadRequest`] for a base that is not an older snapshot of the same chain, for a
    /// snapshot still Creating and for an offset past the end.
    pub fn diff(
        &self,
        snap: SnapshotUuid,
        base: Option<SnapshotUuid>,
        offset_lba: u64,
    ) -> Result<SimPage, SimError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let state = shared.state();
        let snapshot = state.usable(snap, now)?;
        let creating = snapshot.state(now) == SimSnapshotState::Creating;
        if creating && !shared.config.partial_diff_while_creating {
            return Err(SimError::BadRequest(format!("snapshot {snap} is being created")));
        }
        let base_cut = match base {
            None => None,
            Some(base) => match base_cut(&state, shared.bugs, snapshot, base, now) {
                Ok(cut) => cut,
                // Planted: what must be refused is answered with nothing.
                Err(Refusal { planted: true, .. }) => return Ok(SimPage::default()),
                Err(Refusal { error, .. }) => return Err(error),
            },
        };
        if offset_lba > snapshot.len_lbas {
            return Err(SimError::BadRequest(format!(
                "offset {offset_lba} is past the end of snapshot {snap}"
            )));
        }
        let (cell, cut, len_lbas) = (Arc::clone(&snapshot.cell), snapshot.cut, snapshot.len_lbas);
        // From here on other control calls may run; the volume's own lock keeps its chain whole.
        let mut volume = cell.write();
        drop(state);
        volume.settle(now);
        if creating {
            // Only a client that does not wait sees this: it gets an answer at any price.
            volume.cut_pending();
        }
        let tracking = &mut volume.tracking;
        let place = |cut: u64| {
            let gone = || SimError::NotFound(format!("snapshot {snap} is gone"));
            tracking.place(cut).ok_or_else(gone)
        };
        let limit = usize::try_from(shared.config.page_limit.max(1)).unwrap_or(usize::MAX);
        let ask = Ask {
            snap: place(cut)?,
            base: base_cut.map(place).transpose()?,
            offset_lba,
            limit,
            len_lbas,
        };
        if shared.bugs.has(Bug::LegalBaseRefused)
            && ask.base.is_some_and(|base| base + 1 < ask.snap)
        {
            return Err(SimError::BadRequest(format!("base of snapshot {snap} is not adjacent")));
        }
        let mut page = tracking.page(ask, &shared.config.freedoms);
        if creating {
            page.ranges.truncate(page.ranges.len() / 2);
            page.next_offset_lba = 0;
        }
        Ok(page)
    }

    /// Fills `buf` with what the snapshot holds from byte `at`.
    ///
    /// # Errors
    /// [`SimError::NotFound`], and [`SimError::BadRequest`] while it is Creating or past its end.
    pub fn read_snapshot(
        &self,
        uuid: SnapshotUuid,
        at: u64,
        buf: &mut [u8],
    ) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let state = self.shared.state();
        let snapshot = state.usable(uuid, now)?;
        if snapshot.state(now) == SimSnapshotState::Creating {
            return Err(SimError::BadRequest(format!("snapshot {uuid} is being created")));
        }
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > snapshot.len_lbas * self.shared.block_bytes()) {
            return Err(SimError::BadRequest(format!("read past the end of snapshot {uuid}")));
        }
        if !self.shared.config.contents {
            return Err(SimError::BadRequest("this array stores no contents".into()));
        }
        let (cell, cut) = (Arc::clone(&snapshot.cell), snapshot.cut);
        // A cut that is due and not made yet is now: nothing came since.
        let volume = cell.read();
        drop(state);
        volume.store.read_at_cut(cut, at, buf);
        Ok(())
    }

    /// Puts a volume back to the contents and size of one of its snapshots.
    ///
    /// # Errors
    /// [`SimError::NotFound`]; [`SimError::BadRequest`] when the snapshot is not one of this
    /// volume's, is not Available, or this array has no rollback.
    pub fn rollback(&self, volume: VolumeUuid, to: SnapshotUuid) -> Result<(), SimError> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        let cell = Arc::clone(state.volume(volume)?);
        let snapshot = state.usable(to, now)?;
        let fits = Arc::ptr_eq(&snapshot.cell, &cell)
            && snapshot.state(now) == SimSnapshotState::Available;
        if !fits || self.shared.config.rollback == RollbackKind::None {
            return Err(SimError::BadRequest(format!(
                "volume {volume} cannot be rolled back to snapshot {to}"
            )));
        }
        let (cut, len_lbas) = (snapshot.cut, snapshot.len_lbas);
        let mut locked = cell.write();
        locked.cut_pending();
        locked.store.roll_back(cut);
        locked.tracking.roll_back(cut);
        locked.len_lbas = len_lbas;
        if self.shared.config.rollback == RollbackKind::Forks {
            let at = state.number();
            state.forks.push(Fork { volume_number: cell.number, to: cut, at });
        }
        Ok(())
    }

    /// Grows or shrinks a volume; what is shrunk away reads as zeros when it grows back.
    ///
    /// # Errors
    /// [`SimError::NotFound`], and [`SimError::BadRequest`] as for creating.
    pub fn resize(&self, volume: VolumeUuid, len: LbaCount) -> Result<(), SimError> {
        let block_bytes = self.shared.block_bytes();
        check_len(len, block_bytes)?;
        let cell = self.cell(volume)?;
        let mut locked = cell.write();
        locked.cut_pending();
        let (old, new) = (locked.len_lbas, len.get());
        if old == new {
            return Ok(());
        }
        locked.tracking.resize(old, new);
        locked.store.zero(new.min(old) * block_bytes, old * block_bytes);
        locked.len_lbas = new;
        Ok(())
    }

    /// Stops and starts the array: cleanly, or as after a kill. Everything acknowledged survives.
    pub fn restart(&self, clean: bool) {
        let state = self.shared.state();
        let snapshot_cells = state.snapshots.iter().map(|snapshot| &snapshot.cell);
        let mut cells: Vec<_> = state.volumes.iter().chain(snapshot_cells).collect();
        // A volume restarts once, however many snapshots hold it; deleted ones restart too.
        cells.sort_by_key(|cell| cell.number);
        cells.dedup_by_key(|cell| cell.number);
        for cell in cells {
            let mut volume = cell.write();
            volume.cut_pending();
            volume.tracking.restart(clean);
        }
    }

    /// Makes a new volume of a snapshot's size and contents and answers its identity.
    ///
    /// # Errors
    /// [`SimError::NotFound`]; [`SimError::BadRequest`] while it is Creating;
    /// [`SimError::Conflict`] when the name is in use.
    pub fn clone_snapshot(&self, from: SnapshotUuid, name: &str) -> Result<VolumeUuid, SimError> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let mut state = shared.state();
        if state.volumes.iter().any(|cell| cell.name == name) {
            return Err(SimError::Conflict(format!("volume name `{name}` is in use")));
        }
        let snapshot = state.usable(from, now)?;
        if snapshot.state(now) == SimSnapshotState::Creating {
            return Err(SimError::BadRequest(format!("snapshot {from} is being created")));
        }
        let (parent, cut, len_lbas) = (Arc::clone(&snapshot.cell), snapshot.cut, snapshot.len_lbas);
        let mut locked = parent.write();
        locked.settle(now);
        let place = locked.tracking.place(cut);
        let origin = match (shared.config.clone_full_diff, place) {
            (CloneFullDiff::SinceClone, _) | (_, None) => Origin::default(),
            (CloneFullDiff::IncludesParent | CloneFullDiff::Unknown, Some(place)) => {
                locked.tracking.origin_of_clone(place, len_lbas)
            }
        };
        let store = locked.store.clone_at_cut(cut);
        drop(locked);
        let uuid = VolumeUuid::from_u128(state.identity(shared.config.seed));
        let new = NewVolume {
            uuid,
            name: name.to_owned(),
            source_snapshot: Some(from),
            created: now,
            number: state.number(),
            len_lbas,
            store,
            origin,
        };
        state.volumes.push(Arc::new(new.build(shared.bugs)));
        Ok(uuid)
    }
}

fn check_len(len: LbaCount, block_bytes: u64) -> Result<(), SimError> {
    // One chunk of slack keeps `64 * chunk` and byte arithmetic inside 64 bits everywhere.
    let bytes = len.get().checked_add(CHUNK).and_then(|lbas| lbas.checked_mul(block_bytes));
    if len == LbaCount::ZERO || bytes.is_none() {
        return Err(SimError::BadRequest(format!("a volume cannot have {len} LBAs")));
    }
    Ok(())
}
