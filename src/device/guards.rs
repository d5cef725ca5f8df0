//! The guards G1 to G13: each a function from plain facts to "go on" or a refusal.
//!
//! A refusal says what was seen, the evidence, and the next step. Nothing here touches a device;
//! [`super::Candidate`] and its followers gather the facts and call these in order. Not covered:
//! G14 (`super::signature`), G15 (`super::consent`), and what only the array can tell.

use super::host::{Dev, Mount, Node, file_name_contains};
use super::sysfs::{Disk, is_nvme_path, wwid_of_volume};
use crate::block::{BlockSize, LbaCount, VolumeUuid};
use std::path::Path;

/// A guard said no: exit code 2, and nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("refused {guard}: {message}")]
pub struct GuardRefusal {
    /// Which guard, for example `G1` (`safety.md`).
    pub guard: &'static str,
    /// What was seen, the evidence and the next step.
    pub message: String,
}

/// What every guard answers.
pub type Guarded<T = ()> = Result<T, GuardRefusal>;

pub(super) fn refused<T>(guard: &'static str, message: String) -> Guarded<T> {
    Err(GuardRefusal { guard, message })
}

/// Refuses with a formatted message.
macro_rules! refuse {
    ($guard:literal, $($message:tt)+) => {
        crate::device::guards::refused($guard, format!($($message)+))
    };
}
pub(super) use refuse;

/// A size for people: exact, in the largest binary unit that divides it.
pub fn size_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

/// What the simulator's mounts are named, followed by the process that serves them.
pub const SIM_MOUNT_PREFIX: &str = "lbaudit-sim-";

/// The process that serves a simulator's mount.
pub fn sim_mount_pid(mount: &Mount) -> Option<u32> {
    mount.source.strip_prefix(SIM_MOUNT_PREFIX)?.parse().ok()
}

fn is_fuse(mount: &Mount) -> bool {
    mount.fs_type == "fuse" || mount.fs_type.starts_with("fuse.")
}

/// Whether `file` is itself the mount: qemu-storage-daemon mounts each export over one file.
fn is_export(mount: &Mount, file: &Path) -> bool {
    mount.point == file && mount.source == "/dev/fuse"
}

/// Whether a file lies in a simulator's mount whose process runs, or is an export of a storage daemon.
/// Only the table of mounts is looked at: a file system whose server stalls would hang whoever asks it.
pub fn is_served(mounts: &[Mount], file: &Path, runs: impl Fn(u32) -> bool) -> bool {
    let above = mounts.iter().filter(|mount| file.starts_with(&mount.point));
    // Of several mounts on one point the last is on top.
    let mount = above.max_by_key(|mount| mount.point.as_os_str().len());
    mount
        .filter(|mount| is_fuse(mount))
        .is_some_and(|mount| is_export(mount, file) || sim_mount_pid(mount).is_some_and(&runs))
}

/// G1: a block device, or a file that a simulator or storage daemon serves for this very volume.
///
/// `mount` is where a file lies; `server_runs` whether the process named by a simulator's mount is
/// there.
///
/// # Errors
/// Everything else, above all the regular file that a typo under `/dev` makes.
pub fn g1_kind(
    path: &Path,
    resolved: &Path,
    node: &Node,
    mount: Option<&Mount>,
    server_runs: bool,
    volume: VolumeUuid,
) -> Guarded {
    let shown = path.display();
    let size_bytes = match node {
        Node::Block(_) => return Ok(()),
        Node::Other(what) => {
            return refuse!("G1", "{shown} is {what}; give the block device of the volume");
        }
        Node::File { size_bytes, .. } => *size_bytes,
    };
    let size = size_text(size_bytes);
    let served = mount.filter(|mount| is_fuse(mount));
    let Some(mount) = served.filter(|m| sim_mount_pid(m).is_some() || is_export(m, resolved))
    else {
        let advice = if path.starts_with("/dev") {
            "a typo under /dev makes files; remove it"
        } else {
            "only block devices are written; give the device of the volume"
        };
        return refuse!("G1", "{shown} is a regular file ({size}). {advice}");
    };
    if let Some(pid) = sim_mount_pid(mount)
        && !server_runs
    {
        return refuse!(
            "G1",
            "{shown} belongs to a simulator that is gone (process {pid}); `lbaudit clean` removes \
             its mount"
        );
    }
    if !file_name_contains(resolved, &volume.to_string()) {
        return refuse!(
            "G1",
            "{shown} is a served file, but its name does not carry the volume's UUID {volume}; \
             give the file of that volume"
        );
    }
    Ok(())
}

/// G2: not a hidden node of one path of a multipath device.
///
/// # Errors
/// With the name of the node to use.
pub fn g2_not_a_path(disk: &Disk) -> Guarded {
    if !is_nvme_path(&disk.name) && !disk.hidden {
        return Ok(());
    }
    let head = disk.name.split_once('c').and_then(|(subsystem, rest)| {
        let namespace = rest.find('n').and_then(|at| rest.get(at..))?;
        Some(format!("; use /dev/{subsystem}{namespace}"))
    });
    let head = head.unwrap_or_default();
    refuse!("G2", "{} is one path of a multipath device{head}", disk.name)
}

/// G3: a whole disk without partitions. `uses` is what it or a partition of it is in use as.
///
/// # Errors
/// With the partitions found.
pub fn g3_whole_disk(disk: &Disk, uses: &[String]) -> Guarded {
    let name = &disk.name;
    if let Some((number, parent)) = &disk.partition {
        return refuse!(
            "G3",
            "{name} is partition {number} of {parent}; a volume's LBAs start at the disk, so give \
             /dev/{parent} once nothing on it is needed"
        );
    }
    if disk.parts.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = disk.parts.iter().map(|(name, _)| name.as_str()).collect();
    let uses = if uses.is_empty() { String::new() } else { format!(" ({})", uses.join(", ")) };
    refuse!(
        "G3",
        "{name} has {} partition(s): {}{uses}; this disk holds somebody's data: give another \
         volume, or remove them (wipefs)",
        names.len(),
        names.join(", ")
    )
}

/// G4: nothing stands on it (dm, md, LVM, multipath; loop devices on a served file).
///
/// # Errors
/// With the holders.
pub fn g4_no_holders(name: &str, holders: &[String]) -> Guarded {
    if holders.is_empty() {
        return Ok(());
    }
    refuse!(
        "G4",
        "{name} is held by {}; this tool writes only to the array's own namespace: give the device \
         that stands on it, or take it down first (multipath -f, vgchange -an, mdadm --stop, \
         losetup -d)",
        holders.join(", ")
    )
}

/// G5: no second head device of the same namespace (native multipath switched off).
///
/// # Errors
/// With both names.
pub fn g5_no_twin(name: &str, wwid: &str, heads: &[String]) -> Guarded {
    let Some(twin) = heads.iter().find(|head| *head != name) else {
        return Ok(());
    };
    refuse!(
        "G5",
        "{name} and {twin} both say {wwid}: native NVMe multipath is off, and writes through two \
         paths can pass each other; switch it on (nvme_core.multipath=Y)"
    )
}

/// G5: no second loop device on the same file. The kernel keeps two apart: an exclusive open, a lock
/// and a mount of one say nothing of the other.
///
/// # Errors
/// With both names.
pub fn g5_no_second_loop(name: &str, file: &Path, loops: &[String]) -> Guarded {
    let Some(other) = loops.iter().find(|found| *found != name) else {
        return Ok(());
    };
    refuse!(
        "G5",
        "{name} and {other} stand on one file, {}: whoever uses the other would be overwritten; \
         detach it (losetup -d /dev/{other})",
        file.display()
    )
}

/// G6: neither mounted nor swap. It only explains: whether a device is free G7 decides.
///
/// # Errors
/// With every use found.
pub fn g6_not_in_use(path: &Path, uses: &[String]) -> Guarded {
    if uses.is_empty() {
        return Ok(());
    }
    refuse!(
        "G6",
        "{} is {}; it holds somebody's data, so give another volume",
        path.display(),
        uses.join(" and ")
    )
}

/// G9: writable (opening a read-only device for writing succeeds all the same).
///
/// # Errors
/// When the kernel says read-only.
pub fn g9_writable(path: &Path, read_only: bool) -> Guarded {
    if !read_only {
        return Ok(());
    }
    refuse!(
        "G9",
        "{} is read-only; see the volume's protection state on the array, then `blockdev --setrw`",
        path.display()
    )
}

/// G10: exactly the volume's size, and room for what the run writes.
///
/// # Errors
/// With both sizes.
pub fn g10_size(
    path: &Path,
    device_bytes: u64,
    volume_name: &str,
    volume_bytes: u64,
    footprint: LbaCount,
) -> Guarded {
    if device_bytes != volume_bytes {
        return refuse!(
            "G10",
            "{} has {device_bytes} bytes, volume {} has {volume_bytes}: not the same thing, or \
             resized and not rescanned (nvme ns-rescan)",
            path.display(),
            shown(volume_name)
        );
    }
    let needed = footprint.bytes(BlockSize::DEVICE).get();
    if device_bytes < needed {
        return refuse!(
            "G10",
            "{} has {}, this run touches the first {}; give a larger volume",
            path.display(),
            size_text(device_bytes),
            size_text(needed)
        );
    }
    Ok(())
}

/// G11: whole LBAs can be written at once.
///
/// # Errors
/// With the sector sizes, in bytes.
pub fn g11_sectors(path: &Path, logical_bytes: u32, volume_sector_bytes: u32) -> Guarded {
    let lba_bytes = u32::from(BlockSize::DEVICE);
    if logical_bytes > 0 && lba_bytes.is_multiple_of(logical_bytes) {
        return Ok(());
    }
    refuse!(
        "G11",
        "{} has logical sectors of {logical_bytes} bytes, the volume says {volume_sector_bytes} \
         and one LBA has {lba_bytes}: single LBAs cannot be written; give a volume with smaller \
         sectors",
        path.display()
    )
}

/// How far a device has been shown to be the volume before anything is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Its wwid is the volume's UUID.
    Wwid,
    /// A served file, it itself or the one behind it, carries the volume's UUID in its name.
    BackingName,
    /// Nothing was found either way: the handshake alone decides.
    Undecided,
}

/// G12: the device says that it is the volume.
///
/// `backing` is the file behind a loop device, or the served file itself. `counterpart` is the
/// other volume of this run, for the most likely mistake.
///
/// # Errors
/// When the device says that it is something else. A device that says nothing passes as
/// [`Identity::Undecided`]. Whether a name is to be believed is the caller's to know ([`is_served`]).
pub fn g12_identity(
    path: &Path,
    wwid: Option<&str>,
    backing: Option<&Path>,
    volume: VolumeUuid,
    counterpart: Option<VolumeUuid>,
) -> Guarded<Identity> {
    let device = path.display();
    let swapped = |found: VolumeUuid| {
        refuse!(
            "G12",
            "{device} is volume {found}, you said {volume}: source and target are swapped, so swap \
             --source-device and --target-device (or the two UUIDs)"
        )
    };
    if let Some(wwid) = wwid {
        if wwid.eq_ignore_ascii_case(&wwid_of_volume(volume)) {
            return Ok(Identity::Wwid);
        }
        return match counterpart {
            Some(other) if wwid.eq_ignore_ascii_case(&wwid_of_volume(other)) => swapped(other),
            _ => refuse!(
                "G12",
                "{device} says it is {wwid}, volume {volume} would say {}: another volume; leave \
                 the device flags out to have it found by its UUID",
                wwid_of_volume(volume)
            ),
        };
    }
    let carries =
        |uuid: VolumeUuid| backing.is_some_and(|b| file_name_contains(b, &uuid.to_string()));
    match counterpart {
        _ if carries(volume) => Ok(Identity::BackingName),
        Some(other) if carries(other) => swapped(other),
        _ => Ok(Identity::Undecided),
    }
}

/// What is known about one of two devices when they are told apart.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The path as given.
    pub path: &'a Path,
    /// What is behind it.
    pub node: &'a Node,
    /// Its world wide identity.
    pub wwid: Option<&'a str>,
    /// The file behind a loop device, or the served file itself.
    pub backing: Option<&'a Path>,
    /// The volume it is said to be.
    pub volume: VolumeUuid,
}

/// G13: two devices of one run are two things, by number, identity, backing file and volume.
///
/// # Errors
/// With what they share.
pub fn g13_two_things(one: Told<'_>, two: Told<'_>) -> Guarded {
    let (a, b) = (one.path.display(), two.path.display());
    if one.volume == two.volume {
        return refuse!("G13", "{a} and {b} are both said to be volume {}; give two", one.volume);
    }
    if one.node.is_same(two.node) {
        return refuse!("G13", "{a} and {b} are the same device; give the device of each volume");
    }
    if let Some(wwid) = one.wwid
        && two.wwid.is_some_and(|other| other.eq_ignore_ascii_case(wwid))
    {
        return refuse!("G13", "{a} and {b} both say {wwid}: one volume; give two");
    }
    if let Some(file) = one.backing
        && two.backing == Some(file)
    {
        return refuse!("G13", "{a} and {b} stand on one file, {}; give two", file.display());
    }
    Ok(())
}

/// Foreign text without control characters, for a message.
pub(super) fn shown(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// The numbers of a disk and its partitions: what a mount can name.
pub(super) fn numbers(dev: Dev, disk: &Disk) -> Vec<Dev> {
    std::iter::once(dev).chain(disk.parts.iter().filter_map(|(_, dev)| *dev)).collect()
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
