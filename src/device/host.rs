//! What this machine says about its nodes, mounts, swap areas and file locks.
//!
//! Everything is read below two roots that tests replace. Mounts of other mount namespaces are
//! invisible here; that is why mounts only *explain* a refusal and O_EXCL decides it. Not covered:
//! other hosts and containers that use the same volume.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where the facts of this machine are read from.
#[derive(Clone, Debug)]
pub struct Host {
    /// Root of sysfs.
    pub sysfs: PathBuf,
    /// Root of procfs.
    pub proc: PathBuf,
    /// util-linux's `blkid`, if the machine has it.
    pub blkid: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Host {
        // Never by PATH: this runs as root.
        let blkid = ["/usr/sbin/blkid", "/sbin/blkid", "/usr/bin/blkid"].map(PathBuf::from);
        Host {
            sysfs: PathBuf::from("/sys"),
            proc: PathBuf::from("/proc"),
            blkid: blkid.into_iter().find(|path| path.is_file()),
        }
    }
}

/// Number of a device: what a node means, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dev {
    /// Driver.
    pub major: u32,
    /// Device of that driver.
    pub minor: u32,
}

impl Dev {
    /// The number as `stat` packs it.
    pub fn from_raw(raw: u64) -> Dev {
        Dev { major: rustix::fs::major(raw), minor: rustix::fs::minor(raw) }
    }
}

impl fmt::Display for Dev {
    /// As sysfs spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What is behind a path, symlinks followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// A block device.
    Block(Dev),
    /// A regular file.
    File {
        /// The file system it is on.
        fs: Dev,
        /// Its number there.
        inode: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// Anything else, in words.
    Other(&'static str),
}

impl Node {
    /// What these metadata describe.
    pub fn of(meta: &fs::Metadata) -> Node {
        let kind = meta.file_type();
        if kind.is_block_device() {
            Node::Block(Dev::from_raw(meta.rdev()))
        } else if kind.is_file() {
            Node::File { fs: Dev::from_raw(meta.dev()), inode: meta.ino(), size_bytes: meta.len() }
        } else if kind.is_dir() {
            Node::Other("a directory")
        } else if kind.is_char_device() {
            Node::Other("a character device")
        } else {
            Node::Other("neither a block device nor a file")
        }
    }
    /// Whether both are the very same thing (a file may have grown meanwhile).
    pub fn is_same(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Block(a), Node::Block(b)) => a == b,
            (Node::File { fs: a, inode: i, .. }, Node::File { fs: b, inode: j, .. }) => {
                a == b && i == j
            }
            _ => false,
        }
    }
}

/// One mount of this mount namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Device number of the file system.
    pub dev: Dev,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type, for example `ext4` or `fuse`.
    pub fs_type: String,
    /// What it was mounted from, as its file system tells it.
    pub source: String,
    /// Its options, for the user.
    pub options: String,
}

/// Undoes the octal escapes of `/proc` tables (`\040` is a space).
pub(crate) fn unescape(field: &str) -> OsString {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\');
        // Parsing would also take a sign.
        let value = octal
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(value.unwrap_or(byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

fn parse_dev(text: &str) -> Option<Dev> {
    let (major, minor) = text.split_once(':')?;
    Some(Dev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (dev, _root, point, options) = (left.next()?, left.next()?, left.next()?, left.next()?);
    let mut right = right.split(' ');
    Some(Mount {
        dev: parse_dev(dev)?,
        point: unescape(point).into(),
        fs_type: right.next()?.to_owned(),
        source: unescape(right.next()?).to_string_lossy().into_owned(),
        options: options.to_owned(),
    })
}

/// The mounts of a mountinfo table. A line that cannot be read is left out, which is safe: a file
/// is trusted only if its mount *is* found, and whether a device is in use O_EXCL decides.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

/// The nodes of a `/proc/swaps` table.
pub fn parse_swaps(text: &str) -> Vec<PathBuf> {
    let nodes = text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    nodes.map(|node| unescape(node).into()).collect()
}

/// Who holds the flock on a file, according to a `/proc/locks` table.
pub fn parse_lock_holder(text: &str, fs: Dev, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", fs.major, fs.minor);
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        // A waiter's line has an arrow here.
        let flock = fields.next()? == "FLOCK";
        let mut fields = fields.skip(2);
        let pid = fields.next()?.parse().ok()?;
        (flock && fields.next()? == file && pid > 0).then_some(pid)
    })
}

/// The number of the device node at `path`, if it is one.
pub fn block_dev(path: &Path) -> Option<Dev> {
    match Node::of(&fs::metadata(path).ok()?) {
        Node::Block(dev) => Some(dev),
        _ => None,
    }
}

impl Host {
    fn read_proc(&self, name: &str) -> io::Result<String> {
        fs::read(self.proc.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The mounts of this mount namespace.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(parse_mountinfo(&self.read_proc("self/mountinfo")?))
    }

    /// What any of `devs` is mounted as or swapped to, each in words for the user.
    ///
    /// # Errors
    /// When the table of mounts cannot be read.
    pub fn uses_of(&self, devs: &[Dev]) -> io::Result<Vec<String>> {
        let mut uses = Vec::new();
        for mount in self.mounts()? {
            // Some file systems (btrfs) have a number of their own and name their device only.
            let source = mount.source.starts_with('/').then(|| block_dev(mount.source.as_ref()));
            if devs.contains(&mount.dev) || source.flatten().is_some_and(|dev| devs.contains(&dev))
            {
                let (point, fs_type) = (mount.point.display(), &mount.fs_type);
                uses.push(format!("mounted on {point} ({fs_type}, {})", mount.options));
            }
        }
        // Without swap support there is no table.
        for node in parse_swaps(&self.read_proc("swaps").unwrap_or_default()) {
            if block_dev(&node).is_some_and(|dev| devs.contains(&dev)) {
                uses.push(format!("in use as swap ({})", node.display()));
            }
        }
        Ok(uses)
    }

    /// Who holds the flock on this open file, in words: `PID 4121 (lbaudit)`.
    pub fn lock_holder(&self, meta: &fs::Metadata) -> Option<String> {
        let table = self.read_proc("locks").ok()?;
        let pid = parse_lock_holder(&table, Dev::from_raw(meta.dev()), meta.ino())?;
        Some(match self.process_name(pid) {
            Some(name) => format!("PID {pid} ({name})"),
            None => format!("PID {pid}"),
        })
    }

    /// The name of a running process.
    pub fn process_name(&self, pid: u32) -> Option<String> {
        let name = self.read_proc(&format!("{pid}/comm")).ok()?;
        // A process chooses its name itself, so it is foreign text.
        Some(name.trim().chars().filter(|c| c.is_ascii_graphic()).collect())
    }
}

/// Whether the last component of `path` carries `text`.
pub fn file_name_contains(path: &Path, text: &str) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(name).contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
36 35 259:3 / /mnt/my\\040data rw,noatime shared:1 - ext4 /dev/nvme0n1p1 rw,errors=continue
81 35 0:52 / /tmp/sim rw,nosuid - fuse lbaudit-sim-4121 rw,user_id=0
this line is torn
90 35 x:1 / /mnt rw - ext4 /dev/sda rw
";

    #[test]
    fn mounts_are_read_with_their_escapes_and_torn_lines_are_left_out() {
        let mounts = parse_mountinfo(MOUNTINFO);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].dev, Dev { major: 259, minor: 3 });
        assert_eq!(mounts[0].point, Path::new("/mnt/my data"));
        assert_eq!(mounts[0].fs_type, "ext4");
        assert_eq!(mounts[1].source, "lbaudit-sim-4121");
    }

    #[test]
    fn swap_areas_are_read_without_the_head_line() {
        let table = "Filename\t\t\tType\t\tSize\n/dev/zram0   partition\t524284\t0\t100\n";
        assert_eq!(parse_swaps(table), [PathBuf::from("/dev/zram0")]);
        assert!(parse_swaps("").is_empty());
    }

    #[test]
    fn the_holder_of_a_flock_is_found_by_file_and_waiters_do_not_count() {
        let table = "1: FLOCK  ADVISORY  WRITE 4121 00:06:310 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 7 00:06:310 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 99 00:06:311 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:06:312 0 EOF\n";
        let fs = Dev { major: 0, minor: 6 };
        assert_eq!(parse_lock_holder(table, fs, 310), Some(4121));
        assert_eq!(parse_lock_holder(table, fs, 311), None);
        assert_eq!(parse_lock_holder(table, fs, 312), None);
        assert_eq!(parse_lock_holder("", fs, 310), None);
    }

    #[test]
    fn foreign_tables_never_panic() {
        for text in ["-", " - ", "\\", "\\0", "1 2 3:4 - a", "1:", "1: FLOCK", "a\nb\\04\n"] {
            parse_mountinfo(text);
            parse_swaps(text);
            parse_lock_holder(text, Dev { major: 1, minor: 1 }, 1);
        }
        assert_eq!(unescape("a\\0"), OsString::from("a\\0"));
        assert_eq!(unescape("\\134x"), OsString::from("\\x"));
    }

    #[test]
    fn an_escape_is_three_octal_digits_and_a_sign_is_none() {
        for text in ["a\\+12", "\\-12", "\\+0b", "\\ 12", "\\8aa"] {
            assert_eq!(unescape(text), OsString::from(text));
        }
    }
}
