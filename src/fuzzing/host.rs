//! What this machine says about its devices: sysfs, tables of `/proc`, and the bytes at both ends
//! of a disk. Not covered: who is asked, and what is done about the answer.

use crate::device::host::{Dev, parse_lock_holder, parse_mountinfo, parse_swaps, unescape};
use crate::device::signature::{Signature, look, read_blkid};
use crate::device::sysfs::{disk, heads_with_wwid, is_nvme_head, is_nvme_path};
use crate::engine::Entropy;
use crate::qemu::stale::{start_ticks, unescaped};
use crate::sim::attach::{parse_mount, unescape as unescape_bytes};
use arbitrary::Unstructured;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Attributes of a disk, in the order in which the lines of the input fill them.
const ATTRIBUTES: [&str; 6] =
    ["wwid", "partition", "diskseq", "hidden", "loop/backing_file", "dev"];

/// The first line is the name of a disk, the others are its attributes.
pub(super) fn sysfs(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let name = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    check_name(&name);
    if lines.clone().next().is_none() {
        return;
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let node = root.path().join("block/nvme3n7");
    fs::create_dir_all(node.join("loop")).expect("a folder");
    fs::create_dir_all(root.path().join("dev/block")).expect("a folder");
    symlink(&node, root.path().join("dev/block/259:7")).expect("a link");
    for (attribute, line) in ATTRIBUTES.iter().zip(lines.clone()) {
        fs::write(node.join(attribute), line).expect("an attribute");
    }
    let read = disk(root.path(), Dev { major: 259, minor: 7 }).expect("it is there");
    assert_eq!(read.name, "nvme3n7");
    let backing = read.backing_file.as_deref().map(Path::to_string_lossy);
    for shown in [read.wwid.as_deref(), backing.as_deref()].into_iter().flatten() {
        assert!(!shown.is_empty() && shown.trim() == shown, "{shown:?}");
        assert!(!shown.chars().any(char::is_control), "{shown:?} steers a terminal");
    }
    if let Some(wwid) = &read.wwid {
        let value = wwid.rsplit('.').next().unwrap_or_default();
        assert!(value.chars().any(|c| c != '0' && c != '-'), "{wwid} is no identity");
        assert_eq!(heads_with_wwid(root.path(), wwid), ["nvme3n7"]);
    }
    let given = lines.next().map(|line| String::from_utf8_lossy(line).trim().to_owned());
    let digits = given.as_deref().and_then(|text| text.strip_prefix("uuid.1"));
    let plain = digits.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit() || c == '-'));
    assert!(!plain || read.wwid.is_some(), "an identity is lost");
}

/// `nvme<C>n<N>` is a head, `nvme<C>c<P>n<N>` a path (`lightbits-api.md` section 6).
fn check_name(name: &str) {
    let shape: String = name
        .strip_prefix("nvme")
        .unwrap_or("?")
        .chars()
        .map(|c| if c.is_ascii_digit() { '1' } else { c })
        .fold(String::new(), |mut shape, c| {
            if c != '1' || !shape.ends_with('1') {
                shape.push(c);
            }
            shape
        });
    assert_eq!(is_nvme_head(name), shape == "1n1", "{name}");
    assert_eq!(is_nvme_path(name), shape == "1c1n1", "{name}");
}

/// A table of `/proc`, as each of those that are read.
pub(super) fn proc_tables(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mounts = parse_mountinfo(&text);
    assert!(mounts.len() <= text.lines().count());
    for mount in &mounts {
        let dev = format!(" {} ", mount.dev);
        let spelled = text.lines().any(|line| line.contains(&dev));
        assert!(
            spelled || text.contains('+') || text.contains(":0") || text.contains(" 0"),
            "{mount:?}"
        );
    }
    for node in parse_swaps(&text) {
        assert!(!node.as_os_str().is_empty());
    }
    if let Some(pid) = parse_lock_holder(&text, Dev { major: 8, minor: 1 }, 77) {
        assert!(pid > 0);
        assert!(text.contains("FLOCK") && text.contains("08:01:77"), "{pid} holds nothing");
    }
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Some((_, pid)) = parse_mount(line) {
            assert!(String::from_utf8_lossy(line).contains("lbaudit-sim-"), "{pid} is not ours");
        }
    }
    if let Some(ticks) = start_ticks(&text) {
        assert!(text.contains(&ticks.to_string()) || text.contains('+') || text.contains(" 0"));
    }
    check_escapes(&text);
}

/// Backslash and three octal digits of a byte; anything else stands for itself (proc(5)).
fn check_escapes(text: &str) {
    let bytes = text.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits: Vec<u32> = bytes[at + 1..]
            .iter()
            .take(3)
            .map_while(|&byte| char::from(byte).to_digit(8))
            .collect();
        let value = digits.iter().fold(0, |value, digit| value * 8 + digit);
        match u8::try_from(value) {
            Ok(byte) if bytes[at] == b'\\' && digits.len() == 3 => {
                plain.push(byte);
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    assert_eq!(unescape(text).as_bytes(), plain, "the guards' reader");
    assert_eq!(unescaped(bytes).as_os_str().as_bytes(), plain, "QEMU's reader");
    assert_eq!(unescape_bytes(bytes), plain, "the attachments' reader");
}

/// Signatures that no other bytes can hide: name, offset from the start (or from the end, if
/// negative), bytes. Written from the formats' own documents.
const PLANTS: [(&str, i64, &[u8]); 9] = [
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65_536 + 64, b"_BHRfS_M"),
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM2_member", 512, b"LABELONE"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("gpt", 512, b"EFI PART"),
    ("gpt", -512, b"EFI PART"),
    ("iso9660", 32_769, b"CD001"),
    ("ntfs", 3, b"NTFS    "),
];

/// Bytes at offsets from the start.
type Parts = &'static [(u64, &'static [u8])];

/// Signatures that are believed only with what makes sense beside them: name, and bytes from the start.
const WITH_SENSE: [(&str, Parts); 4] = [
    ("ext4", &[(1024, &[9]), (1028, &[9]), (1080, &[0x53, 0xef]), (1120, &[0x40])]),
    ("ext3", &[(1024, &[9]), (1028, &[9]), (1080, &[0x53, 0xef]), (1116, &[0x04])]),
    ("ext2", &[(1024, &[9]), (1028, &[9]), (1080, &[0x53, 0xef])]),
    ("dos", &[(450, &[0x83]), (458, &[1]), (510, &[0x55, 0xaa])]),
];

/// A device made of a few bytes here and there, with or without a signature; and the same bytes
/// as what `blkid` says.
pub(super) fn signature(bytes: &[u8]) {
    check_blkid(bytes);
    let mut input = Unstructured::new(bytes);
    let size =
        input.pick(&[1u64 << 21, 1 << 20, 1 << 30, 70_000 / 512 * 512, 40_960, 1536, 512, 0]);
    let size = size + input.below(9) * 512;
    let plant = input.chance(1, 2).then(|| input.pick(&PLANTS));
    let mut patches: Vec<(u64, Vec<u8>)> = Vec::new();
    while !input.is_spent() && patches.len() < 32 {
        let near = input.pick(&[0u64, 446, 1024, 1080, 4086, 65_536, 131_072]);
        let near = if input.chance(1, 4) { size.saturating_sub(near) } else { near };
        let len = usize::try_from(input.below(16)).unwrap_or(0);
        patches.push((
            near + input.below(64),
            input.bytes(len.min(input.len())).unwrap_or(&[]).to_vec(),
        ));
    }
    let planted = plant.and_then(|(name, at, magic)| {
        let at = if at < 0 { size.checked_sub(at.unsigned_abs())? } else { at.unsigned_abs() };
        (at + magic.len() as u64 <= size).then(|| patches.push((at, magic.to_vec())))?;
        Some(name)
    });
    let others = patches.len();
    let sensible = WITH_SENSE.get(others % 8).filter(|_| planted.is_none() && size >= 1536);
    patches.extend(
        sensible
            .iter()
            .flat_map(|(_, parts)| parts.iter().map(|(at, bytes)| (*at, bytes.to_vec()))),
    );
    let read = |at: u64, buf: &mut [u8]| {
        buf.fill(0);
        assert!(at + buf.len() as u64 <= size, "a read past the end");
        for (start, part) in &patches {
            for (place, byte) in (*start..).zip(part) {
                let inside = place.checked_sub(at).and_then(|place| usize::try_from(place).ok());
                if let Some(to) = inside.and_then(|place| buf.get_mut(place)) {
                    *to = *byte;
                }
            }
        }
        Ok(())
    };
    let found = look(size, read).expect("nothing fails here");
    check_found(&found, size);
    if let Some(name) = planted {
        assert!(found.iter().any(|found| found.name == name), "{name} is overlooked: {found:?}");
    }
    if let Some((name, _)) = sensible.filter(|_| others == 0) {
        assert_eq!(found.first().map(|found| found.name.as_str()), Some(*name));
    }
    if patches.iter().all(|(_, part)| part.iter().all(|&byte| byte == 0)) {
        assert!(found.is_empty(), "zeros are nobody's: {found:?}");
    }
}

fn check_found(found: &[Signature], size: u64) {
    for pair in found.windows(2) {
        assert!(pair[0].name < pair[1].name, "{found:?} says things twice");
    }
    for signature in found {
        assert!(signature.at_bytes.is_none_or(|at| at < size), "{signature} lies past the end");
        assert!(!signature.to_string().chars().any(char::is_control), "{signature:?}");
    }
}

fn check_blkid(said: &[u8]) {
    let found = read_blkid(said);
    check_found(&found, 0);
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().collect();
    for signature in &found {
        let name = &signature.name;
        let said = lines.iter().any(|line| {
            line.strip_prefix("TYPE=").or_else(|| line.strip_prefix("PTTYPE=")).map(str::trim)
                == Some(name)
        });
        assert!(said && !name.is_empty(), "{name:?} was not said");
    }
}
