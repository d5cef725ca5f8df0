//! G14: does the device hold something that somebody may still want? Looks for the signatures of
//! file systems, partition tables, volume managers, RAID members and encrypted disks.
//!
//! Two lookers: a table of magics of our own, which reads the first and the last mebibyte, and
//! `blkid -p` where the host has it. Either one finding something is a refusal; the person names
//! what was seen to have it destroyed all the same. Offsets and magics are facts of the formats,
//! as util-linux documents them in its `libblkid` (facts only). Not covered: data without a
//! signature (a database on the bare device), which consent is for.

use super::guards::{Guarded, refuse, shown};
use crate::array::AlignedBuf;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes looked at from either end.
pub const WINDOW_BYTES: u64 = (1 << 20) + (64 << 10);
/// What `blkid` may say at most.
const SAID_MAX_BYTES: u64 = 64 << 10;

/// Something found on a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Signature {
    /// What it is, as `blkid` names it (`ext4`, `crypto_LUKS`, `gpt`); may be foreign text.
    pub name: String,
    /// Where, in bytes from the start; `None` if the looker does not say.
    pub at_bytes: Option<u64>,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.name))?;
        match self.at_bytes {
            Some(at) => write!(f, " at byte {at}"),
            None => Ok(()),
        }
    }
}

/// Where a magic stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// That many bytes from the start.
    Start(u64),
    /// Anywhere in this many steps from a place: first, step, count.
    Steps(u64, u64, u64),
    /// That many bytes before the end.
    End(u64),
    /// As `End`, of the size rounded down to a multiple.
    EndOf(u64, u64),
}

/// One magic: a name, a place, the bytes.
type Magic = (&'static str, Place, &'static [u8]);

use Place::{End, EndOf, Start, Steps};

const KIB: u64 = 1 << 10;
const RAID: &[u8] = &0xa92b_4efc_u32.to_le_bytes();
/// `ub_magic` of a ZFS uberblock, as a little- and as a big-endian machine writes it.
const ZFS_LE: &[u8] = &0x00ba_b10c_u64.to_le_bytes();
const ZFS_BE: &[u8] = &0x00ba_b10c_u64.to_be_bytes();

/// Magics that are long enough to be believed as they stand.
const MAGICS: &[Magic] = &[
    ("xfs", Start(0), b"XFSB"),
    ("btrfs", Start(64 * KIB + 0x40), b"_BHRfS_M"),
    ("LVM2_member", Steps(0, 512, 4), b"LABELONE"),
    ("crypto_LUKS", Start(0), b"LUKS\xba\xbe"),
    ("crypto_LUKS", Start(16 * KIB), b"SKUL\xba\xbe"),
    ("BitLocker", Start(3), b"-FVE-FS-"),
    ("swap", Start(4 * KIB - 10), b"SWAPSPACE2"),
    ("swap", Start(4 * KIB - 10), b"SWAP-SPACE"),
    ("linux_raid_member", Start(0), RAID),
    ("linux_raid_member", Start(4 * KIB), RAID),
    ("linux_raid_member", EndOf(4 * KIB, 8 * KIB), RAID),
    ("linux_raid_member", EndOf(64 * KIB, 64 * KIB), RAID),
    ("zfs_member", Steps(128 * KIB, KIB, 128), ZFS_LE),
    ("zfs_member", Steps(128 * KIB, KIB, 128), ZFS_BE),
    ("gpt", Start(512), b"EFI PART"),
    ("gpt", Start(4 * KIB), b"EFI PART"),
    ("gpt", End(512), b"EFI PART"),
    ("gpt", End(4 * KIB), b"EFI PART"),
    ("vfat", Start(0x52), b"FAT32   "),
    ("vfat", Start(0x36), b"FAT16   "),
    ("vfat", Start(0x36), b"FAT12   "),
    ("ntfs", Start(3), b"NTFS    "),
    ("exfat", Start(3), b"EXFAT   "),
    ("f2fs", Start(KIB), &0xf2f5_2010_u32.to_le_bytes()),
    (
        "bcache",
        Start(4 * KIB + 24),
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    ("iso9660", Start(32 * KIB + 1), b"CD001"),
    ("squashfs", Start(0), b"hsqs"),
    ("reiserfs", Start(64 * KIB + 0x34), b"ReIsEr"),
    ("gfs2", Start(64 * KIB), b"\x01\x16\x19\x70\x00\x00\x00\x01"),
    ("ocfs2", Start(8 * KIB), b"OCFSV2"),
    ("VMFS_volume_member", Start(1 << 20), b"\x0d\xd0\x01\xc0"),
    ("ceph_bluestore", Start(0), b"bluestore block device"),
    ("DM_verity_hash", Start(0), b"verity\0\0"),
    ("DM_integrity", Start(0), b"integrt\0"),
    ("vdo", Start(0), b"dmvdo001"),
];

/// The two ends of a device.
pub struct Ends<'a> {
    /// The first bytes, [`WINDOW_BYTES`] at most.
    pub head: &'a [u8],
    /// The last bytes, as many.
    pub tail: &'a [u8],
    /// Size of the whole device in bytes.
    pub size_bytes: u64,
}

impl Ends<'_> {
    /// The bytes at an offset, if they were read.
    fn at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let from = |window: &'_ [u8], start: u64| -> Option<(usize, usize)> {
            let at = usize::try_from(offset.checked_sub(start)?).ok()?;
            let end = at.checked_add(len)?;
            (end <= window.len()).then_some((at, end))
        };
        if let Some((at, end)) = from(self.head, 0) {
            return self.head.get(at..end);
        }
        let start = self.size_bytes.checked_sub(self.tail.len() as u64)?;
        let (at, end) = from(self.tail, start)?;
        self.tail.get(at..end)
    }

    fn u16_at(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.at(offset, 2)?.try_into().ok()?))
    }
    fn u32_at(&self, offset: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(offset, 4)?.try_into().ok()?))
    }
}

/// Everything the table knows that stands on a device with these ends. Total: any bytes will do.
pub fn find(ends: &Ends<'_>) -> Vec<Signature> {
    let mut found: Vec<Signature> = MAGICS
        .iter()
        .filter_map(|&(name, place, magic)| {
            let at = places(place, ends.size_bytes)
                .find(|at| ends.at(*at, magic.len()).is_some_and(|bytes| bytes == magic))?;
            Some(Signature { name: name.to_owned(), at_bytes: Some(at) })
        })
        .collect();
    found.extend(ext(ends));
    found.extend(dos(ends));
    // A backup GPT and the first one are one thing to a person.
    found.sort();
    found.dedup_by(|next, first| next.name == first.name);
    found
}

/// The offsets that a place means on a device of that size.
fn places(place: Place, size_bytes: u64) -> impl Iterator<Item = u64> {
    let (first, step, count) = match place {
        Start(at) => (Some(at), 0, 1),
        Steps(first, step, count) => (Some(first), step, count),
        End(before) => (size_bytes.checked_sub(before), 0, 1),
        EndOf(granule, before) => ((size_bytes / granule * granule).checked_sub(before), 0, 1),
    };
    first.into_iter().flat_map(move |first| (0..count).map(move |nth| first + nth * step))
}

/// ext2, ext3 and ext4: two bytes of magic, believed only with a superblock that makes sense.
fn ext(ends: &Ends<'_>) -> Option<Signature> {
    const SUPERBLOCK: u64 = KIB;
    let magic = ends.u16_at(SUPERBLOCK + 0x38)?;
    let (inodes, blocks) = (ends.u32_at(SUPERBLOCK)?, ends.u32_at(SUPERBLOCK + 4)?);
    let (log_block, revision) = (ends.u32_at(SUPERBLOCK + 0x18)?, ends.u32_at(SUPERBLOCK + 0x4c)?);
    if magic != 0xef53 || inodes == 0 || blocks == 0 || log_block > 6 || revision > 1 {
        return None;
    }
    let (compat, incompat) = (ends.u32_at(SUPERBLOCK + 0x5c)?, ends.u32_at(SUPERBLOCK + 0x60)?);
    // Extents, 64-bit blocks, flexible groups: only ext4 has them. A journal: ext3.
    let name = match (incompat & 0x2c0 != 0, compat & 0x4 != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    Some(Signature { name: name.to_owned(), at_bytes: Some(SUPERBLOCK + 0x38) })
}

/// A DOS partition table: the boot signature, believed only with an entry that makes sense.
fn dos(ends: &Ends<'_>) -> Option<Signature> {
    const TABLE: u64 = 446;
    if ends.u16_at(510)? != 0xaa55 {
        return None;
    }
    let mut used = 0;
    for entry in (0..4).map(|nth| TABLE + nth * 16) {
        let (boot, kind) = (ends.at(entry, 1)?[0], ends.at(entry + 4, 1)?[0]);
        let sectors = ends.u32_at(entry + 12)?;
        if !matches!(boot, 0 | 0x80) {
            return None;
        }
        used += u32::from(kind != 0 && sectors > 0);
    }
    (used > 0).then(|| Signature { name: "dos".to_owned(), at_bytes: Some(510) })
}

/// Reads both ends of a device through aligned buffers and looks.
///
/// # Errors
/// Whatever `read` answers: what cannot be read cannot be judged.
pub fn look(
    size_bytes: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Vec<Signature>> {
    // Direct reads need whole sectors; a volume's size is a multiple of them.
    let window = WINDOW_BYTES.min(size_bytes);
    let bytes = usize::try_from(window).map_err(io::Error::other)?;
    let (mut head, mut tail) = (AlignedBuf::new(bytes), AlignedBuf::new(bytes));
    read(0, &mut head)?;
    read(size_bytes - window, &mut tail)?;
    Ok(find(&Ends { head: &head, tail: &tail, size_bytes }))
}

/// What `blkid` finds; empty if the host has no `blkid`.
///
/// # Errors
/// If it is there and cannot tell.
pub fn ask_blkid(blkid: Option<&Path>, device: &Path) -> Result<Vec<Signature>, String> {
    let Some(blkid) = blkid else { return Ok(Vec::new()) };
    let mut command = Command::new(blkid);
    command.args(["-p", "-o", "export"]).arg(device);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env("LC_ALL", "C");
    command.env_remove("LIGHTBITS_JWT");
    let cannot = |error: io::Error| format!("{} cannot be run: {error}", blkid.display());
    let mut child = command.spawn().map_err(cannot)?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(SAID_MAX_BYTES).read_to_end(&mut said).map_err(cannot)?;
    }
    let status = child.wait().map_err(cannot)?;
    match status.code() {
        Some(0) => Ok(read_blkid(&said)),
        // Nothing found.
        Some(2) => Ok(Vec::new()),
        // "Ambivalent": several, and it will not choose.
        Some(8) => Ok(vec![Signature { name: "several".to_owned(), at_bytes: None }]),
        _ => Err(format!("{} ended with {status}", blkid.display())),
    }
}

/// Reads what `blkid -o export` says: one `KEY=value` a line. Any bytes will do.
pub fn read_blkid(said: &[u8]) -> Vec<Signature> {
    let text = String::from_utf8_lossy(said);
    let names = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        matches!(key, "TYPE" | "PTTYPE").then(|| value.trim().to_owned())
    });
    let mut found: Vec<Signature> = names
        .filter(|name| !name.is_empty())
        .map(|name| Signature { name, at_bytes: None })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// What stands on a device, as our own table and `blkid` see it.
///
/// # Errors
/// G14 when either cannot look: what was not looked at is not empty.
pub fn on_device(
    path: &Path,
    size_bytes: u64,
    blkid: Option<&Path>,
    read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Guarded<Vec<Signature>> {
    let own = look(size_bytes, read).map_err(|error| error.to_string());
    match own.and_then(|own| Ok((own, ask_blkid(blkid, path)?))) {
        Ok((mut found, blkid)) => {
            for more in blkid {
                if found.iter().all(|known| known.name != more.name) {
                    found.push(more);
                }
            }
            Ok(found)
        }
        Err(why) => refuse!(
            "G14",
            "{} cannot be searched for somebody's data: {why}; mend that first",
            path.display()
        ),
    }
}

/// Which signatures may be destroyed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// Those with these names, each of which the person has typed.
    Named(Vec<String>),
    /// Whatever is there: only for putting back what this tool itself wrote over.
    Whatever,
}

impl Default for Allowed {
    /// Nothing.
    fn default() -> Allowed {
        Allowed::Named(Vec::new())
    }
}

/// G14: nothing stands there that was not named.
///
/// # Errors
/// With everything that was seen, and the flags that name it.
pub fn g14_no_signature(path: &Path, found: &[Signature], allowed: &Allowed) -> Guarded {
    let Allowed::Named(names) = allowed else { return Ok(()) };
    let foreign: Vec<&Signature> =
        found.iter().filter(|signature| !names.contains(&signature.name)).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    let mut flags: Vec<String> =
        foreign.iter().map(|s| format!("--allow-signature {}", shown(&s.name))).collect();
    flags.dedup();
    refuse!(
        "G14",
        "{} holds {}: somebody's data; give another volume, or say {} to have it destroyed",
        path.display(),
        list.join(" and "),
        flags.join(" ")
    )
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
