//! Volumes of the simulator as paths that any program can open: FUSE files, or loop block devices
//! on top of them.
//!
//! The order of taking things away is what this file is about: close the loop devices and wait for
//! the kernel to let go, then unmount, then remove the directory. Whatever was left by a process
//! that was killed is found again by the name of its mount ([`stale_attachments`]).
//! Not covered: what the paths are used for, and the guards on opening them.

use super::fuse::{FSNAME_PREFIX, Files, FuseError, FuseMount, unmount_now};
use super::loopdev::{LoopDevice, LoopError, LoopOn, Slot, detach, loops_below, wait_for_detach};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// How volumes become paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachKind {
    /// The best that works here: loop as root, else FUSE, else nothing.
    Auto,
    /// One FUSE file per volume.
    Fuse,
    /// A loop block device on each FUSE file; needs root.
    Loop,
    /// No path: the volumes are reachable only inside this process.
    None,
}

/// Volumes that could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The FUSE side.
    #[error(transparent)]
    Fuse(#[from] FuseError),
    /// The loop side.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The kernel's list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mounts(#[source] std::io::Error),
    /// A stale mount's directory cannot be taken away.
    #[error("cannot remove {path}: {cause}")]
    Remove {
        /// The mount point.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// Volumes with paths; dropping it takes everything away again.
#[derive(Debug)]
pub struct Attachment {
    // Field order is drop order: loops before the mount they stand on.
    loops: Vec<LoopDevice>,
    mount: Option<FuseMount>,
    paths: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Attachment {
    /// Gives every fixed file of `files` a path, in the same order. Under [`AttachKind::Auto`] what did
    /// not work is told in [`Attachment::notes`].
    ///
    /// # Errors
    /// [`AttachError`] when `kind` does not work here (never for `Auto` and `None`); then nothing
    /// is left behind.
    pub fn new(files: impl Into<Files>, kind: AttachKind) -> Result<Attachment, AttachError> {
        let files = files.into();
        match kind {
            AttachKind::None => Ok(Attachment::nowhere(Vec::new())),
            AttachKind::Fuse => Attachment::on_fuse(files),
            AttachKind::Loop => Attachment::on_loops(files),
            AttachKind::Auto => Ok(Attachment::best(files)),
        }
    }

    fn best(files: Files) -> Attachment {
        let mut notes = Vec::new();
        if rustix::process::geteuid().is_root() {
            match Attachment::on_loops(files.clone()) {
                Ok(attached) => return attached,
                Err(error) => notes.push(error.to_string()),
            }
        }
        match Attachment::on_fuse(files) {
            Ok(mounted) => Attachment { notes, ..mounted },
            Err(error) => {
                notes.push(error.to_string());
                Attachment::nowhere(notes)
            }
        }
    }

    fn nowhere(notes: Vec<String>) -> Attachment {
        Attachment { loops: Vec::new(), mount: None, paths: Vec::new(), notes }
    }

    fn on_fuse(files: Files) -> Result<Attachment, AttachError> {
        let names: Vec<String> = files.fixed.iter().map(|file| file.name.clone()).collect();
        let mount = FuseMount::mount(files)?;
        let paths = names.iter().map(|name| mount.dir().join(name)).collect();
        Ok(Attachment { loops: Vec::new(), mount: Some(mount), paths, notes: Vec::new() })
    }

    fn on_loops(files: Files) -> Result<Attachment, AttachError> {
        let slots: Vec<Slot> =
            files.fixed.iter().map(|_| Slot::reserve()).collect::<Result<_, _>>()?;
        let mut mounted = Attachment::on_fuse(files)?;
        for (file, slot) in mounted.paths.iter().zip(slots) {
            mounted.loops.push(LoopDevice::attach(file, slot)?);
        }
        mounted.paths = mounted.loops.iter().map(|device| device.path().to_path_buf()).collect();
        Ok(mounted)
    }

    /// The path of each volume, in the order given; empty when there are none.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What was tried in vain under [`AttachKind::Auto`], for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes everything away: loops, mount, directory. A loop device that somebody holds open does
    /// not keep the mount: that is aborted, and the holder sees errors.
    ///
    /// # Errors
    /// The first of [`AttachError`]; the rest is taken away all the same.
    pub fn detach(mut self) -> Result<(), AttachError> {
        let result = detach(std::mem::take(&mut self.loops)).map_err(AttachError::from);
        match self.mount.take() {
            Some(mount) => result.and(mount.unmount().map_err(AttachError::from)),
            None => result,
        }
    }
}

/// A mount of this tool whose process is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The process that served it.
    pub pid: u32,
    /// Loop devices that stand on its files.
    pub loops: Vec<LoopOn>,
}

/// Everything that killed processes of this tool left attached on this machine.
///
/// # Errors
/// [`AttachError::Mounts`].
pub fn stale_attachments() -> Result<Vec<Stale>, AttachError> {
    let table = std::fs::read("/proc/self/mountinfo").map_err(AttachError::Mounts)?;
    let ours = table.split(|&byte| byte == b'\n').filter_map(parse_mount);
    let dead = ours.filter(|(_, pid)| !serves_fuse(*pid));
    Ok(dead.map(|(mount, pid)| Stale { loops: loops_below(&mount), mount, pid }).collect())
}

/// Takes a stale attachment away: mount, directory, and with them the loop devices, which detach
/// by themselves when the last program that waits on them got its error.
///
/// # Errors
/// [`AttachError`]: usually for want of root.
pub fn clean_stale(stale: &Stale) -> Result<(), AttachError> {
    let fail = |cause| AttachError::Remove { path: stale.mount.clone(), cause };
    unmount_now(&stale.mount).map_err(fail)?;
    std::fs::remove_dir(&stale.mount).map_err(fail)?;
    wait_for_detach(&stale.loops).map_err(AttachError::from)
}

/// Mount point and process id in a line of `/proc/self/mountinfo` (proc(5)), if it is ours:
/// `36 35 0:50 / /tmp/x rw,nodev - fuse lbaudit-sim-4711 rw,user_id=0`.
pub(crate) fn parse_mount(line: &[u8]) -> Option<(PathBuf, u32)> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    // Six fixed fields, then optional ones up to the separator.
    let separator = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let source = std::str::from_utf8(fields.get(separator + 2)?).ok()?;
    let pid = source.strip_prefix(FSNAME_PREFIX)?.parse().ok()?;
    fields.get(separator + 1)?.starts_with(b"fuse").then_some(())?;
    Some((PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))), pid))
}

/// Undoes the octal escapes (`\040`) of mountinfo.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        // Parsing would also take a sign.
        let digits = tail.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) if byte == b'\\' => {
                out.push(decoded);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// Whether the process lives and holds a FUSE connection. One that may not be looked at counts as
/// serving: better to leave a stale mount than to take a live one away.
fn serves_fuse(pid: u32) -> bool {
    let descriptors = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(descriptors) => descriptors,
        Err(error) => return error.kind() != std::io::ErrorKind::NotFound,
    };
    descriptors
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| target == Path::new("/dev/fuse"))
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
