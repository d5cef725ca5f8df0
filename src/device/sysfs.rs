//! What sysfs says about disks: name, parts, holders, identity; and finding a disk by its volume.
//!
//! All strings are the kernel's or the device's own, so foreign. Nothing is opened but sysfs files.
//! Not covered: whether the volume behind a name is the right one; only the array can say that.

use super::host::Dev;
use crate::block::VolumeUuid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One block device as sysfs shows it. Absent attributes are `None` or empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Disk {
    /// Kernel name, for example `nvme0n1`.
    pub name: String,
    /// Partition number and the name of its disk, if this is a partition.
    pub partition: Option<(u32, String)>,
    /// Names and numbers of its partitions.
    pub parts: Vec<(String, Option<Dev>)>,
    /// Devices built on top of it or of a partition of it (dm, md, LVM, multipath).
    pub holders: Vec<String>,
    /// Whether the kernel hides the node: one path of a multipath device.
    pub hidden: bool,
    /// World wide identity; all-zero ones count as absent.
    pub wwid: Option<String>,
    /// The file behind a loop device.
    pub backing_file: Option<PathBuf>,
    /// Sequence number of the disk.
    pub disk_seq: Option<u64>,
}

/// One attribute, trimmed, without control characters (it may be shown on a terminal); `None` if
/// it is absent, empty or unreadable.
fn attribute(dir: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(dir.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().replace(char::is_control, "?");
    (!text.is_empty()).then_some(text)
}

/// The names in a sysfs folder, sorted.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn dev_of(dir: &Path) -> Option<Dev> {
    let text = attribute(dir, "dev")?;
    let (major, minor) = text.split_once(':')?;
    Some(Dev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// An identity of zeros only is a device that was never given one (blivet issue 1221).
fn wwid_of(dir: &Path) -> Option<String> {
    let wwid = attribute(dir, "wwid")?;
    let value = wwid.rsplit('.').next().unwrap_or_default();
    value.bytes().any(|c| c != b'0' && c != b'-').then_some(wwid)
}

fn last_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What sysfs says about the device with this number.
///
/// # Errors
/// When sysfs has no such device.
pub fn disk(sysfs: &Path, dev: Dev) -> io::Result<Disk> {
    let dir = fs::canonicalize(sysfs.join("dev/block").join(dev.to_string()))?;
    let partition = attribute(&dir, "partition").map(|number| {
        (number.parse().unwrap_or_default(), dir.parent().map(last_name).unwrap_or_default())
    });
    let parts: Vec<PathBuf> = names_in(&dir)
        .into_iter()
        .map(|name| dir.join(name))
        .filter(|part| part.join("partition").exists())
        .collect();
    let holders = std::iter::once(&dir).chain(&parts);
    let holders = holders.flat_map(|dir| names_in(&dir.join("holders"))).collect();
    Ok(Disk {
        name: last_name(&dir),
        partition,
        parts: parts.iter().map(|part| (last_name(part), dev_of(part))).collect(),
        holders,
        hidden: attribute(&dir, "hidden").is_some_and(|flag| flag != "0"),
        wwid: wwid_of(&dir),
        backing_file: attribute(&dir, "loop/backing_file").map(PathBuf::from),
        disk_seq: attribute(&dir, "diskseq").and_then(|seq| seq.parse().ok()),
    })
}

/// Whether `name` is a head node of an NVMe namespace (`nvme0n1`), and not one of its paths
/// (`nvme0c1n1`) or partitions (`nvme0n1p1`).
pub fn is_nvme_head(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let parts = name.strip_prefix("nvme").and_then(|rest| rest.split_once('n'));
    parts.is_some_and(|(controller, namespace)| number(controller) && number(namespace))
}

/// Whether `name` is one path of a multipath NVMe namespace (`nvme0c1n1`).
pub fn is_nvme_path(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let parts = name.strip_prefix("nvme").and_then(|rest| rest.split_once('c'));
    // Without the subsystem's number, what is left reads like a head's name.
    parts.is_some_and(|(subsystem, rest)| number(subsystem) && is_nvme_head(&format!("nvme{rest}")))
}

/// The head nodes whose wwid is `wwid`, sorted.
pub fn heads_with_wwid(sysfs: &Path, wwid: &str) -> Vec<String> {
    let block = sysfs.join("block");
    let mut heads = names_in(&block);
    heads.retain(|name| {
        is_nvme_head(name)
            && wwid_of(&block.join(name)).is_some_and(|found| found.eq_ignore_ascii_case(wwid))
    });
    heads
}

/// The wwid that the namespace of `volume` has (`lightbits-api.md` section 6).
pub fn wwid_of_volume(volume: VolumeUuid) -> String {
    format!("uuid.{volume}")
}

/// The node of the NVMe namespace of `volume`, found by its wwid. Only head nodes count.
pub fn find_by_wwid(sysfs: &Path, volume: VolumeUuid) -> Option<PathBuf> {
    let heads = heads_with_wwid(sysfs, &wwid_of_volume(volume));
    heads.first().map(|name| Path::new("/dev").join(name))
}

/// The loop devices that stand on `file`, sorted.
pub fn loops_on(sysfs: &Path, file: &Path) -> Vec<String> {
    let block = sysfs.join("block");
    let mut loops = names_in(&block);
    loops.retain(|name| {
        attribute(&block.join(name), "loop/backing_file")
            .is_some_and(|back| Path::new(&back) == file)
    });
    loops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::FakeSysfs;

    #[test]
    fn head_nodes_are_told_from_paths_and_partitions() {
        for head in ["nvme0n1", "nvme12n345"] {
            assert!(is_nvme_head(head) && !is_nvme_path(head), "{head}");
        }
        for path in ["nvme0c1n1", "nvme0c12n3"] {
            assert!(is_nvme_path(path) && !is_nvme_head(path), "{path}");
        }
        for other in ["nvme0n1p1", "nvme0", "nvmen1", "sda", "nvme0c1n1p1", "nvme0n", "nvme0cn1x"] {
            assert!(!is_nvme_head(other) && !is_nvme_path(other), "{other}");
        }
    }

    #[test]
    fn a_volume_is_found_by_its_wwid_on_the_head_node_only() {
        let fake = FakeSysfs::new();
        let volume = VolumeUuid::from_u128(0x2905_1d6a);
        let wwid = wwid_of_volume(volume);
        fake.disk("nvme0c0n1", (259, 1)).attribute("wwid", &wwid);
        assert_eq!(find_by_wwid(fake.root(), volume), None);
        fake.disk("nvme0n1", (259, 2)).attribute("wwid", "uuid.04aa8885");
        fake.disk("nvme0n2", (259, 3)).attribute("wwid", &format!("{wwid}\n"));
        fake.disk("sda", (8, 0)).attribute("wwid", &wwid);
        assert_eq!(find_by_wwid(fake.root(), volume), Some(PathBuf::from("/dev/nvme0n2")));
        assert_eq!(find_by_wwid(Path::new("/nowhere"), volume), None);
    }

    #[test]
    fn a_disk_is_read_with_its_parts_holders_and_identity() {
        let fake = FakeSysfs::new();
        let disk_dir = fake.disk("nvme0n1", (259, 2));
        disk_dir.attribute("wwid", "uuid.1").attribute("diskseq", "17").holder("dm-3");
        disk_dir.part("nvme0n1p1", 1, (259, 4)).holder("md0");
        let read = disk(fake.root(), Dev { major: 259, minor: 2 }).expect("it is there");
        assert_eq!(read.name, "nvme0n1");
        assert_eq!(read.parts, [("nvme0n1p1".into(), Some(Dev { major: 259, minor: 4 }))]);
        assert_eq!(read.holders, ["dm-3", "md0"]);
        assert_eq!((read.wwid.as_deref(), read.disk_seq), (Some("uuid.1"), Some(17)));
        assert!(!read.hidden && read.partition.is_none());
        let part = disk(fake.root(), Dev { major: 259, minor: 4 }).expect("it is there");
        assert_eq!(part.partition, Some((1, "nvme0n1".into())));
        assert!(disk(fake.root(), Dev { major: 1, minor: 1 }).is_err());
    }

    #[test]
    fn an_identity_of_zeros_is_none() {
        let fake = FakeSysfs::new();
        let dir = fake.disk("nvme0n1", (259, 2));
        dir.attribute("wwid", "uuid.00000000-0000-0000-0000-000000000000");
        let read = disk(fake.root(), Dev { major: 259, minor: 2 }).expect("it is there");
        assert_eq!(read.wwid, None);
    }
}
