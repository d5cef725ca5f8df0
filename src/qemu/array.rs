//! The array: its configuration, its daemon, its volumes.
//!
//! Not covered: snapshots and diffs, see `super::adapter`.

use super::adapter::State;
use super::daemon::{self, Daemon, Program};
use super::device::{Gate, NbdDevice};
use super::error::QemuError;
use super::qmp::QmpError;
use crate::block::{BlockSize, LbaCount, Role, VolumeUuid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How volumes can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPlane {
    /// As a file on a FUSE mount, whose name carries role and volume UUID.
    Fuse,
    /// Over NBD in this process, by [`NbdDevice`].
    Nbd,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The daemon; `None` looks for `qemu-storage-daemon` on the PATH.
    pub qsd: Option<PathBuf>,
    /// The image tool; `None` looks for `qemu-img` on the PATH.
    pub qemu_img: Option<PathBuf>,
    /// An existing directory with a short path, in which a private one is made and removed again.
    pub work_root: PathBuf,
    /// Size of every volume at start, in LBAs of 4096 bytes.
    pub size: LbaCount,
    /// Whether there is a neighbour volume besides source and target.
    pub neighbour: bool,
    /// How volumes are written; `None` takes FUSE and, where that is missing, NBD.
    pub data_plane: Option<DataPlane>,
    /// Ranges of one diff page at most; at least 1.
    pub page_limit: u32,
    /// A real bug made of real software: bitmap and data are cut in two commands, a few
    /// milliseconds apart, so that writes in between are in the data and in the *next* bitmap.
    pub nonatomic: bool,
    /// For proving that tests fail: before every cut, QEMU is told to clear the active bitmap of
    /// the source, behind the adapter's back.
    pub clear_bitmaps: bool,
}

impl Default for QemuConfig {
    /// Two volumes of 2 GiB below /tmp, pages of 128 ranges, no bug.
    fn default() -> QemuConfig {
        QemuConfig {
            qsd: None,
            qemu_img: None,
            work_root: PathBuf::from("/tmp"),
            size: LbaCount::mib(2048),
            neighbour: false,
            data_plane: None,
            page_limit: 128,
            nonatomic: false,
            clear_bitmaps: false,
        }
    }
}

/// A volume as it was set up.
#[derive(Debug)]
pub(super) struct VolumeSetup {
    pub(super) role: Role,
    pub(super) uuid: VolumeUuid,
    pub(super) len: LbaCount,
    /// Where the FUSE export is, if there is one.
    path: Option<PathBuf>,
}

impl VolumeSetup {
    fn new(role: Role, len: LbaCount) -> VolumeSetup {
        VolumeSetup { role, uuid: VolumeUuid::random(), len, path: None }
    }
    /// Node of the volume's image; also the name of its exports.
    pub(super) fn node(&self) -> &'static str {
        self.role.name()
    }
}

/// An array of qcow2 volumes, served by a qemu-storage-daemon of its own.
///
/// Dropping it stops the daemon, unmounts its exports and removes everything it wrote. Data-plane
/// files and devices must be closed before; afterwards they answer errors.
pub struct QemuArray {
    pub(super) config: QemuConfig,
    pub(super) volumes: Vec<VolumeSetup>,
    data_plane: DataPlane,
    fuse_missing: Option<String>,
    // Dropped in this order: first the sessions, then the daemon with its directory.
    state: Mutex<State>,
    gate: Gate,
    daemon: Daemon,
}

impl QemuArray {
    /// Starts a daemon and makes empty volumes: source, target and, if wanted, a neighbour.
    ///
    /// # Errors
    /// [`QemuError::Missing`] and [`QemuError::TooOld`] when there is no usable QEMU (exit code 3),
    /// and whatever goes wrong while starting it; nothing is left behind then.
    pub fn start(config: QemuConfig) -> Result<QemuArray, QemuError> {
        if config.page_limit == 0 {
            return Err(QemuError::Config("the page limit must be at least 1".to_owned()));
        }
        size_bytes(config.size)?;
        let program = Program::find(config.qsd.as_deref())?;
        let dir = Daemon::private_dir(&config.work_root)?;
        make_template(&config, dir.path(), config.size)?;
        let (daemon, qmp) = Daemon::start(&program, dir)?;
        let mut roles = vec![Role::Source, Role::Target];
        roles.extend(config.neighbour.then_some(Role::Neighbour));
        let volumes = roles.into_iter().map(|role| VolumeSetup::new(role, config.size)).collect();
        let gate = Gate::default();
        let state = State::new(qmp, daemon.dir().to_owned(), Arc::clone(&gate));
        let mut array = QemuArray {
            data_plane: config.data_plane.unwrap_or(DataPlane::Fuse),
            config,
            volumes,
            fuse_missing: None,
            state: Mutex::new(state),
            gate,
            daemon,
        };
        array.add_volumes()?;
        Ok(array)
    }

    /// Takes every volume away, with its snapshots, and makes new, empty ones of these sizes, with
    /// new identities: as good as a new array, and much faster. Devices of the old volumes answer
    /// errors from now on.
    ///
    /// # Errors
    /// When the daemon refuses or is gone; then it is good for nothing more.
    pub fn renew(&mut self, lens: &BTreeMap<Role, LbaCount>) -> Result<(), QemuError> {
        for len in lens.values() {
            make_template(&self.config, self.daemon.dir(), *len)?;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.remove_volumes()?;
        for path in self.volumes.iter().filter_map(|volume| volume.path.as_ref()) {
            fs::remove_file(path).map_err(|source| QemuError::File {
                what: "remove",
                path: path.clone(),
                source,
            })?;
        }
        self.volumes = lens.iter().map(|(role, len)| VolumeSetup::new(*role, *len)).collect();
        self.add_volumes()
    }

    /// Adds an image, a first bitmap and an export for every volume. The bitmap comes before the
    /// export: nothing can be written before it is tracked.
    fn add_volumes(&mut self) -> Result<(), QemuError> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for volume in &mut self.volumes {
            let image = image_path(self.daemon.dir(), volume.node());
            copy_template(self.daemon.dir(), volume.len, &image)?;
            state.command("blockdev-add", &image_node(volume.node(), &image, None))?;
            state.add_volume(volume)?;
            let fuse = self.data_plane == DataPlane::Fuse;
            let path = self.daemon.dir().join(format!("{}-{}", volume.role, volume.uuid));
            match fuse.then(|| export_fuse(state, volume, &path)) {
                Some(Ok(())) => volume.path = Some(path),
                // Without FUSE the first export fails; a later failure is not "FUSE is missing".
                Some(Err(QemuError::Qmp(QmpError::Refused { desc, .. })))
                    if volume.role == Role::Source && self.config.data_plane.is_none() =>
                {
                    self.fuse_missing = Some(desc);
                    self.data_plane = DataPlane::Nbd;
                    export_nbd(state, volume)?;
                }
                Some(Err(error)) => return Err(error),
                None => export_nbd(state, volume)?,
            }
        }
        Ok(())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setup(&self, role: Role) -> Option<&VolumeSetup> {
        self.volumes.iter().find(|volume| volume.role == role)
    }

    /// Identity of the volume of this role, if there is one.
    pub fn volume_uuid(&self, role: Role) -> Option<VolumeUuid> {
        self.setup(role).map(|volume| volume.uuid)
    }

    /// The FUSE file of the volume of this role, named `ROLE-UUID`; `None` on the NBD data plane.
    pub fn device_path(&self, role: Role) -> Option<&Path> {
        self.setup(role)?.path.as_deref()
    }

    /// The volume of this role over NBD; `None` on the FUSE data plane, because QEMU lets only one
    /// of the two write.
    pub fn nbd_device(&self, role: Role) -> Option<NbdDevice> {
        let volume = self.setup(role).filter(|_| self.data_plane == DataPlane::Nbd)?;
        let socket = daemon::nbd_socket(self.daemon.dir());
        Some(NbdDevice::new(socket, volume.node().to_owned(), volume.len, Arc::clone(&self.gate)))
    }

    /// How volumes are written.
    pub fn data_plane(&self) -> DataPlane {
        self.data_plane
    }

    /// Why NBD was taken instead of FUSE, in QEMU's words (escaped), if it was not asked for.
    pub fn fuse_missing(&self) -> Option<&str> {
        self.fuse_missing.as_deref()
    }

    /// Process id of the daemon.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The private directory; gone after the drop.
    pub fn work_dir(&self) -> &Path {
        self.daemon.dir()
    }
}

impl Drop for QemuArray {
    fn drop(&mut self) {
        // The sessions end while the daemon still answers; the daemon is stopped by its own drop.
        self.state().end();
    }
}

/// The size in bytes of a volume that can be served.
fn size_bytes(len: LbaCount) -> Result<u64, QemuError> {
    let bytes = len.get().checked_mul(BlockSize::DEVICE.bytes()).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| {
        QemuError::Config("a volume's size must be at least 1 LBA and below 16 EiB".to_owned())
    })
}

fn template(dir: &Path, len: LbaCount) -> PathBuf {
    dir.join(format!("empty-{}.qcow2", len.get()))
}

/// Makes the empty image of that size, if there is none yet.
fn make_template(config: &QemuConfig, dir: &Path, len: LbaCount) -> Result<(), QemuError> {
    let (path, bytes) = (template(dir, len), size_bytes(len)?);
    if path.exists() {
        return Ok(());
    }
    daemon::make_image(config.qemu_img.as_deref(), &path, bytes)
}

/// The image file of a node.
pub(super) fn image_path(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("{node}.qcow2"))
}

/// Name of the export that a volume is written through.
pub(super) fn volume_export(node: &str) -> String {
    format!("volume-{node}")
}

/// Copies the empty image of that size, which is much faster than making one more.
///
/// # Errors
/// [`QemuError::File`].
pub(super) fn copy_template(dir: &Path, len: LbaCount, to: &Path) -> Result<(), QemuError> {
    let copied = fs::copy(template(dir, len), to);
    copied.map_err(|source| QemuError::File { what: "write", path: to.to_owned(), source })?;
    Ok(())
}

/// A qcow2 node on an image file of the private directory, where the daemon works. Its backing node is given by name, so the image names none.
pub(super) fn image_node(node: &str, image: &Path, backing: Option<&str>) -> Value {
    json!({
        "driver": "qcow2",
        "node-name": node,
        "discard": "unmap",
        "backing": backing,
        "file": {"driver": "file", "filename": image.file_name().and_then(OsStr::to_str), "discard": "unmap"},
    })
}

fn export_fuse(state: &mut State, volume: &VolumeSetup, path: &Path) -> Result<(), QemuError> {
    // The mount point of a FUSE export is a file.
    File::create_new(path).map_err(|source| QemuError::File {
        what: "create",
        path: path.to_owned(),
        source,
    })?;
    let added = state.command(
        "block-export-add",
        &json!({
            "type": "fuse",
            "id": volume_export(volume.node()),
            "node-name": volume.node(),
            "mountpoint": path,
            "writable": true,
            "allow-other": "off",
        }),
    );
    added.map(|_| ()).map_err(QemuError::from)
}

fn export_nbd(state: &mut State, volume: &VolumeSetup) -> Result<(), QemuError> {
    state.command(
        "block-export-add",
        &json!({
            "type": "nbd",
            "id": volume_export(volume.node()),
            "node-name": volume.node(),
            "name": volume.node(),
            "writable": true,
        }),
    )?;
    Ok(())
}
