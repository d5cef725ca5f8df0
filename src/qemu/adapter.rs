//! The control plane: snapshots and diffs by QMP, as [`Array`] wants them.
//!
//! Each volume has a chain of dirty bitmaps. The newest records; the others are frozen, one for
//! each snapshot, and hold what was written between the snapshot before it and itself. A diff is
//! the union of the frozen bitmaps in between. Deleting a snapshot adds its bitmap to the next one
//! in the chain, so that the unions over the remaining snapshots stay what they were. Not covered:
//! the daemon's life (`super::daemon`) and its wire (`super::qmp`, `super::nbd`).

use super::array::{QemuArray, VolumeSetup, copy_template, image_node, image_path, volume_export};
use super::daemon::{SOCKET_TIMEOUT, nbd_socket};
use super::device::{Gate, Sessions, open_session, pass};
use super::error::QemuError;
use super::nbd::Nbd;
use super::pages;
use super::qmp::{Qmp, QmpError};
use crate::array::{ApiError, Array, Reply, SnapshotInfo, SnapshotState, VolumeInfo};
use crate::block::{
    BlockSize, Capabilities, DiscardEffect, Durability, Lba, LbaCount, Page, Role, RollbackKind,
    SnapshotName, SnapshotUuid, VolumeUuid,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How far apart the two cuts of the non-atomic variant are.
const NONATOMIC_GAP: Duration = Duration::from_millis(5);
/// Merged diffs kept for walks in progress; the oldest gives way.
const VIEWS_MAX: usize = 4;

/// What the daemon was told, under one lock: QMP answers one command at a time anyway.
pub(super) struct State {
    qmp: Option<Qmp<UnixStream>>,
    dir: PathBuf,
    gate: Gate,
    chains: Vec<Chain>,
    views: Vec<View>,
    /// Makes names of nodes, jobs, bitmaps and exports unique.
    serial: u64,
}

/// One volume with its snapshots, oldest first.
struct Chain {
    volume: VolumeUuid,
    node: &'static str,
    /// Size of the volume.
    len: LbaCount,
    /// The bitmap that records now.
    active: String,
    snapshots: Vec<Snapshot>,
    /// An image made ready for the next snapshot, so that its cut comes soon after it is asked for.
    spare: Option<String>,
}

struct Snapshot {
    uuid: SnapshotUuid,
    name: String,
    /// Frozen: what was written since the snapshot before this one, or since creation.
    bitmap: String,
    /// Node and job that keep the contents.
    node: String,
    /// Sessions on the export of `node`, made when somebody reads it.
    reader: Option<Arc<Sessions>>,
}

/// A diff that QEMU merged, open for its pages.
struct View {
    snapshot: SnapshotUuid,
    base: Option<SnapshotUuid>,
    volume_node: &'static str,
    /// Name of the merged bitmap and of its export.
    name: String,
    session: Nbd<UnixStream>,
}

/// Where a snapshot stands: in which chain, and at which place of it.
type Place = (usize, usize);

impl State {
    pub(super) fn new(qmp: Qmp<UnixStream>, dir: PathBuf, gate: Gate) -> State {
        State { qmp: Some(qmp), dir, gate, chains: Vec::new(), views: Vec::new(), serial: 0 }
    }

    /// Sends one QMP command.
    ///
    /// # Errors
    /// As [`Qmp::command`]; also after [`State::end`].
    pub(super) fn command(&mut self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        let gate = Arc::clone(&self.gate);
        let _alone = pass(&gate);
        self.qmp()?.command(name, arguments)
    }

    fn qmp(&mut self) -> Result<&mut Qmp<UnixStream>, QmpError> {
        self.qmp.as_mut().ok_or_else(|| QmpError::Late("anything after the end".to_owned()))
    }

    /// Sends a command and waits for the event that says it is done.
    fn command_until(
        &mut self,
        name: &str,
        arguments: &Value,
        event: (&str, &[(&str, &str)]),
    ) -> Result<(), QmpError> {
        let gate = Arc::clone(&self.gate);
        let _alone = pass(&gate);
        let qmp = self.qmp()?;
        qmp.forget_events();
        qmp.command(name, arguments)?;
        qmp.wait_event(event.0, event.1, SOCKET_TIMEOUT)
    }

    fn transaction(&mut self, actions: &[Value]) -> Result<(), QmpError> {
        self.command("transaction", &json!({"actions": actions})).map(|_| ())
    }

    /// Closes every session and tells the daemon to end.
    pub(super) fn end(&mut self) {
        self.views.clear();
        self.chains.clear();
        // Whether it listens or not, it is stopped by signal next.
        let _ = self.command("quit", &json!({}));
        self.qmp = None;
    }

    /// Starts tracking a new volume.
    ///
    /// # Errors
    /// As [`Qmp::command`].
    pub(super) fn add_volume(&mut self, volume: &VolumeSetup) -> Result<(), QmpError> {
        let active = self.unique("b");
        let (node, len) = (volume.node(), volume.len);
        self.command("block-dirty-bitmap-add", &bitmap_add(node, &active))?;
        let (snapshots, spare) = (Vec::new(), None);
        self.chains.push(Chain { volume: volume.uuid, node, len, active, snapshots, spare });
        Ok(())
    }

    /// Takes every volume away, with its snapshots, exports, bitmaps and images.
    ///
    /// # Errors
    /// The first refusal; then this daemon is good for nothing more.
    pub(super) fn remove_volumes(&mut self) -> Result<(), QemuError> {
        while !self.views.is_empty() {
            self.close_view(0)?;
        }
        for chain in std::mem::take(&mut self.chains) {
            for snapshot in chain.snapshots {
                self.remove_snapshot(snapshot)?;
            }
            if let Some(spare) = chain.spare {
                self.remove_node(&spare)?;
            }
            self.remove_export(&volume_export(chain.node))?;
            self.remove_node(chain.node)?;
        }
        Ok(())
    }

    fn unique(&mut self, what: &str) -> String {
        self.serial += 1;
        // Short: QEMU takes commands in byte by byte.
        format!("{what}{}", self.serial)
    }

    fn chain(&self, volume: VolumeUuid) -> Result<usize, ApiError> {
        let found = self.chains.iter().position(|chain| chain.volume == volume);
        found.ok_or_else(|| ApiError::NotFound(reply("volume", "no such volume")))
    }

    fn place(&self, snapshot: SnapshotUuid, call: &str) -> Result<Place, ApiError> {
        let place = self.chains.iter().enumerate().find_map(|(chain, it)| {
            Some((chain, it.snapshots.iter().position(|it| it.uuid == snapshot)?))
        });
        place.ok_or_else(|| {
            ApiError::NotFound(reply(call, &format!("there is no snapshot {snapshot}")))
        })
    }

    /// Adds an empty image that can keep the contents of chain `at`, and names its node.
    fn prepare(&mut self, at: usize) -> Result<String, ApiError> {
        let (volume_node, len) = (self.chains[at].node, self.chains[at].len);
        let node = self.unique("s");
        let image = image_path(&self.dir, &node);
        copy_template(&self.dir, len, &image)?;
        self.command("blockdev-add", &image_node(&node, &image, Some(volume_node)))?;
        Ok(node)
    }

    /// Cuts a snapshot of chain `at`: data and bitmap at the same point in time.
    fn take(&mut self, at: usize, name: String, nonatomic: bool) -> Result<SnapshotUuid, ApiError> {
        let (volume_node, frozen) = (self.chains[at].node, self.chains[at].active.clone());
        let node = match self.chains[at].spare.take() {
            Some(node) => node,
            None => self.prepare(at)?,
        };
        let active = self.unique("b");
        let data = json!({"type": "blockdev-backup", "data": {
            "job-id": node, "device": volume_node, "target": node, "sync": "none"}});
        let freeze = json!({"type": "block-dirty-bitmap-disable", "data": {
            "node": volume_node, "name": frozen}});
        let record =
            json!({"type": "block-dirty-bitmap-add", "data": bitmap_add(volume_node, &active)});
        let cut = if nonatomic {
            self.transaction(&[freeze, record]).and_then(|()| {
                std::thread::sleep(NONATOMIC_GAP);
                self.transaction(&[data])
            })
        } else {
            self.transaction(&[data, freeze, record])
        };
        if let Err(error) = cut {
            // Best effort: the refusal is what the caller needs to know.
            let _ = self.remove_node(&node);
            return Err(error.into());
        }
        let uuid = SnapshotUuid::random();
        let chain = &mut self.chains[at];
        chain.active = active;
        chain.snapshots.push(Snapshot { uuid, name, bitmap: frozen, node, reader: None });
        // If this fails, the next snapshot says why.
        self.chains[at].spare = self.prepare(at).ok();
        Ok(uuid)
    }

    fn delete(&mut self, (at, nth): Place) -> Result<(), ApiError> {
        let uuid = self.chains[at].snapshots[nth].uuid;
        while let Some(view) =
            self.views.iter().position(|view| view.snapshot == uuid || view.base == Some(uuid))
        {
            self.close_view(view)?;
        }
        // Out of the books first: a half-deleted snapshot must not be offered again.
        let chain = &mut self.chains[at];
        let gone = chain.snapshots.remove(nth);
        let volume_node = chain.node;
        let heir = chain.snapshots.get(nth).map_or(&chain.active, |next| &next.bitmap).clone();
        self.transaction(&[
            json!({"type": "block-dirty-bitmap-merge", "data": {
                "node": volume_node, "target": heir, "bitmaps": [gone.bitmap]}}),
            json!({"type": "block-dirty-bitmap-remove", "data": {
                "node": volume_node, "name": gone.bitmap}}),
        ])?;
        self.remove_snapshot(gone).map_err(ApiError::from)
    }

    /// Stops keeping the contents of a snapshot that is in no chain any more.
    fn remove_snapshot(&mut self, gone: Snapshot) -> Result<(), QemuError> {
        if gone.reader.is_some() {
            drop(gone.reader);
            self.remove_export(&gone.node)?;
        }
        self.command_until(
            "block-job-cancel",
            &json!({"device": gone.node}),
            ("JOB_STATUS_CHANGE", &[("id", &gone.node), ("status", "null")]),
        )?;
        self.remove_node(&gone.node)
    }

    /// Closes an image and removes its file.
    fn remove_node(&mut self, node: &str) -> Result<(), QemuError> {
        self.command("blockdev-del", &json!({"node-name": node}))?;
        let image = image_path(&self.dir, node);
        fs::remove_file(&image).map_err(|source| QemuError::File {
            what: "remove",
            path: image,
            source,
        })
    }

    /// Checks a pair and answers where its snapshot stands and after which place its diff starts.
    fn pair(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
    ) -> Result<(Place, usize), ApiError> {
        const CALL: &str = "diff";
        let (at, nth) = self.place(snapshot, CALL)?;
        let Some(base) = base else { return Ok(((at, nth), 0)) };
        let (base_at, base_nth) = self.place(base, CALL)?;
        let refused = |text: &str| Err(ApiError::Refused(reply(CALL, text)));
        if base_at != at {
            return refused("snapshot and base are of different volumes");
        }
        match base_nth {
            same if same == nth => refused("snapshot and base are the same"),
            later if later > nth => refused("the base is newer than the snapshot"),
            earlier => Ok(((at, nth), earlier + 1)),
        }
    }

    /// Has QEMU merge the bitmaps of a diff and opens the result.
    fn open_view(
        &mut self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
    ) -> Result<usize, ApiError> {
        let ((at, nth), first) = self.pair(snapshot, base)?;
        if self.views.len() == VIEWS_MAX {
            self.close_view(0)?;
        }
        let name = self.unique("d");
        let Chain { node: volume_node, snapshots, len, .. } = &self.chains[at];
        let (volume_node, len) = (*volume_node, *len);
        let node = snapshots[nth].node.clone();
        let parts: Vec<&str> = snapshots[first..=nth].iter().map(|it| it.bitmap.as_str()).collect();
        let merge = [
            json!({"type": "block-dirty-bitmap-add", "data": {
                "node": volume_node, "name": name, "granularity": BlockSize::DEVICE.bytes(),
                "disabled": true}}),
            json!({"type": "block-dirty-bitmap-merge", "data": {
                "node": volume_node, "target": name, "bitmaps": parts}}),
        ];
        self.transaction(&merge)?;
        // The snapshot's node carries the export because QEMU lets only one export write a volume.
        let export = json!({"type": "nbd", "id": name, "name": name, "node-name": node,
            // Found in the volume, behind the snapshot.
            "bitmaps": [name]});
        let opened =
            self.command("block-export-add", &export).map_err(ApiError::from).and_then(|_| {
                let context = format!("qemu:dirty-bitmap:{name}");
                let socket = nbd_socket(&self.dir);
                Ok(open_session(&socket, &name, Some(&context), len)?)
            });
        match opened {
            Ok(session) => {
                self.views.push(View { snapshot, base, volume_node, name, session });
                Ok(self.views.len() - 1)
            }
            Err(error) => {
                // Best effort: the first error is what the caller needs to know.
                let _ = self.remove_export(&name);
                let _ = self.remove_bitmap(volume_node, &name);
                Err(error)
            }
        }
    }

    fn close_view(&mut self, view: usize) -> Result<(), QmpError> {
        let View { volume_node, name, session, .. } = self.views.remove(view);
        drop(session);
        self.remove_export(&name)?;
        self.remove_bitmap(volume_node, &name)?;
        Ok(())
    }

    fn remove_export(&mut self, id: &str) -> Result<(), QmpError> {
        self.command_until(
            "block-export-del",
            &json!({"id": id, "mode": "hard"}),
            ("BLOCK_EXPORT_DELETED", &[("id", id)]),
        )
    }

    fn remove_bitmap(&mut self, node: &str, name: &str) -> Result<(), QmpError> {
        self.command("block-dirty-bitmap-remove", &json!({"node": node, "name": name})).map(|_| ())
    }

    /// Sessions on the contents of a snapshot, exported when first asked for.
    fn reader(&mut self, (at, nth): Place) -> Result<Arc<Sessions>, QmpError> {
        if let Some(reader) = &self.chains[at].snapshots[nth].reader {
            return Ok(Arc::clone(reader));
        }
        let node = self.chains[at].snapshots[nth].node.clone();
        let export = json!({"type": "nbd", "id": node, "name": node, "node-name": node});
        self.command("block-export-add", &export)?;
        let len = self.chains[at].len;
        let reader =
            Arc::new(Sessions::new(nbd_socket(&self.dir), node, len, Arc::clone(&self.gate)));
        self.chains[at].snapshots[nth].reader = Some(Arc::clone(&reader));
        Ok(reader)
    }
}

fn bitmap_add(node: &str, name: &str) -> Value {
    json!({"node": node, "name": name, "granularity": BlockSize::DEVICE.bytes()})
}

fn reply(call: &str, text: &str) -> Reply {
    Reply { status: None, text: text.to_owned(), call: call.to_owned() }
}

fn info(chain: &Chain, snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        uuid: snapshot.uuid,
        name: snapshot.name.clone(),
        state: SnapshotState::Available,
        volume: chain.volume,
        len: chain.len,
        created: None,
    }
}

impl QemuArray {
    /// What any such array offers.
    pub fn offers(page_limit: u32) -> Capabilities {
        Capabilities {
            snapshot_readable: true,
            discard: DiscardEffect::Zero,
            durable: Durability::OnFlush,
            tracking_survives_kill: false,
            rollback: RollbackKind::None,
            clone_full_diff: None,
            resize: false,
            shrink_zeroes: false,
            restart: false,
            volume_lifecycle: false,
            concurrent_ops: true,
            atomic_write_bytes: 512,
            concurrent_snapshots: 1,
            granularity: LbaCount::new(1),
            page_limit: Some(page_limit),
            // The refusal would be our own code, not QEMU's.
            refuses_deleted_base: false,
        }
    }

    /// Tells QEMU to forget everything that the active bitmap of a volume recorded, and tells
    /// nobody else: the next snapshot's diffs will lack LBAs. For proving that tests fail.
    ///
    /// # Errors
    /// When there is no such volume, or the daemon refuses.
    pub fn corrupt_bitmap(&self, role: Role) -> Result<(), QemuError> {
        let mut state = self.state();
        let Some(chain) = state.chains.iter().find(|chain| chain.node == role.name()) else {
            return Err(QemuError::Config(format!("this array has no {role} volume")));
        };
        let active = json!({"node": chain.node, "name": chain.active});
        state.command("block-dirty-bitmap-clear", &active)?;
        Ok(())
    }
}

impl Array for QemuArray {
    fn capabilities(&self) -> Capabilities {
        QemuArray::offers(self.config.page_limit)
    }

    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        let found = self.volumes.iter().find(|it| it.uuid == volume);
        let found =
            found.ok_or_else(|| ApiError::NotFound(reply("volume", "there is no such volume")))?;
        Ok(VolumeInfo {
            uuid: volume,
            name: found.role.name().to_owned(),
            size_bytes: found.len.bytes(BlockSize::DEVICE).get(),
            sector_bytes: 512,
            usable: true,
            writable: true,
            is_clone: false,
            clone_of: None,
        })
    }

    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        let mut state = self.state();
        let at = state.chain(volume)?;
        let name = name.to_string();
        if state.chains.iter().flat_map(|chain| &chain.snapshots).any(|it| it.name == name) {
            let text = format!("there is a snapshot {name} already");
            return Err(ApiError::Conflict(reply("create snapshot", &text)));
        }
        if self.config.clear_bitmaps && state.chains[at].node == Role::Source.name() {
            let active = json!({"node": state.chains[at].node, "name": state.chains[at].active});
            state.command("block-dirty-bitmap-clear", &active)?;
        }
        let uuid = state.take(at, name, self.config.nonatomic)?;
        let (at, nth) = state.place(uuid, "create snapshot")?;
        Ok(info(&state.chains[at], &state.chains[at].snapshots[nth]))
    }

    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        let state = self.state();
        let (at, nth) = state.place(snapshot, "get snapshot")?;
        Ok(info(&state.chains[at], &state.chains[at].snapshots[nth]))
    }

    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        let state = self.state();
        let all =
            state.chains.iter().flat_map(|chain| chain.snapshots.iter().map(move |it| (chain, it)));
        Ok(all.map(|(chain, it)| info(chain, it)).collect())
    }

    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        let mut state = self.state();
        let place = state.place(snapshot, "delete snapshot")?;
        state.delete(place)
    }

    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        let mut state = self.state();
        let ((at, _), _) = state.pair(snapshot, base)?;
        let len = state.chains[at].len;
        if from.get() >= len.get() {
            return Err(ApiError::Refused(reply("diff", "the offset lies past the volume's end")));
        }
        let open =
            state.views.iter().position(|view| view.snapshot == snapshot && view.base == base);
        // A walk that starts anew asks QEMU anew; later pages come from the same merge.
        let view = match open {
            Some(view) if from != Lba::new(0) && !state.views[view].session.is_broken() => view,
            Some(view) => {
                state.close_view(view)?;
                state.open_view(snapshot, base)?
            }
            None => state.open_view(snapshot, base)?,
        };
        let session = &mut state.views[view].session;
        let limit = self.config.page_limit;
        let page = pages::page(from, len, limit, |part| pages::dirty_lbas(session, part))?;
        if page.next.is_none() {
            state.close_view(view)?;
        }
        Ok(page)
    }

    fn read_snapshot(
        &self,
        snapshot: SnapshotUuid,
        at: Lba,
        buf: &mut [u8],
    ) -> Result<(), ApiError> {
        let (reader, len) = {
            let mut state = self.state();
            let place = state.place(snapshot, "read snapshot")?;
            (state.reader(place)?, state.chains[place.0].len)
        };
        let lbas = LbaCount::new((buf.len() as u64).div_ceil(BlockSize::DEVICE.bytes()));
        let inside = at.checked_add(lbas).is_some_and(|end| end.get() <= len.get());
        match at.byte_offset(BlockSize::DEVICE).filter(|_| inside) {
            Some(offset) => reader.read(offset.get(), buf).or_else(|error| {
                // Deleted while it was read: that is the news, not the broken session.
                self.state().place(snapshot, "read snapshot")?;
                Err(error.into())
            }),
            None => Err(ApiError::Refused(reply("read snapshot", "past the volume's end"))),
        }
    }
}
