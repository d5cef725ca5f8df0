//! What the tests of this folder share: a sysfs made of files, and real loop devices.
//!
//! Everything made here is taken away by its own `Drop`, and only that.

use super::guards::Identity;
use super::host::{Dev, Host, block_dev};
use super::ioctl;
use super::medium::Medium;
use super::open::{Identified, Wanted};
use crate::array::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Lba, LbaCount};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A sysfs tree made of plain files.
pub(crate) struct FakeSysfs {
    root: TempDir,
}

/// One device folder of a [`FakeSysfs`].
pub(crate) struct FakeDisk {
    root: PathBuf,
    dir: PathBuf,
}

impl FakeSysfs {
    pub(crate) fn new() -> FakeSysfs {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(root.path().join("dev/block")).expect("folders");
        fs::create_dir_all(root.path().join("block")).expect("folders");
        FakeSysfs { root }
    }
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
    pub(crate) fn disk(&self, name: &str, dev: (u32, u32)) -> FakeDisk {
        FakeDisk::make(self.root(), self.root().join("block").join(name), dev)
    }
    /// The disk that stands for a real device.
    pub(crate) fn disk_of(&self, name: &str, device: &LoopDevice) -> FakeDisk {
        let dev = device.dev();
        self.disk(name, (dev.major, dev.minor))
    }
    /// A machine with this sysfs and its real mounts.
    pub(crate) fn host(&self) -> Host {
        Host { sysfs: self.root().to_owned(), ..Host::default() }
    }
}

impl FakeDisk {
    fn make(root: &Path, dir: PathBuf, (major, minor): (u32, u32)) -> FakeDisk {
        fs::create_dir_all(&dir).expect("a folder");
        let link = root.join("dev/block").join(format!("{major}:{minor}"));
        symlink(&dir, link).expect("a link");
        let disk = FakeDisk { root: root.to_owned(), dir };
        disk.attribute("dev", &format!("{major}:{minor}\n"));
        disk
    }
    pub(crate) fn attribute(&self, name: &str, value: &str) -> &FakeDisk {
        let file = self.dir.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        fs::write(file, value).expect("an attribute");
        self
    }
    pub(crate) fn holder(&self, name: &str) -> &FakeDisk {
        fs::create_dir_all(self.dir.join("holders").join(name)).expect("a holder");
        self
    }
    pub(crate) fn part(&self, name: &str, number: u32, dev: (u32, u32)) -> FakeDisk {
        let part = FakeDisk::make(&self.root, self.dir.join(name), dev);
        part.attribute("partition", &format!("{number}\n"));
        part
    }
}

/// A real loop device on a temporary file; the kernel detaches it when the last opener is gone.
pub(crate) struct LoopDevice {
    path: PathBuf,
    /// Keeps it attached.
    open: File,
    /// `None` for a second device on the file of another one.
    backing: Option<tempfile::NamedTempFile>,
}

impl LoopDevice {
    /// A loop device of `mib` MiB with non-zero contents, or `None` with the reason printed.
    pub(crate) fn attach(mib: u64) -> Option<LoopDevice> {
        LoopDevice::named(mib, "")
    }

    /// As [`LoopDevice::attach`], with `name` in the name of the file behind it.
    pub(crate) fn named(mib: u64, name: &str) -> Option<LoopDevice> {
        if !rustix::process::geteuid().is_root() {
            return skip("loop devices need root");
        }
        let backing = tempfile::Builder::new()
            .prefix(&format!("lbaudit-test-{name}-"))
            .tempfile()
            .expect("a temporary file");
        fill(backing.path(), mib << 20);
        let mut device = LoopDevice::on(backing.path())?;
        device.backing = Some(backing);
        Some(device)
    }
    /// A second loop device on the same file.
    pub(crate) fn again(&self) -> Option<LoopDevice> {
        LoopDevice::on(self.backing.as_ref().expect("the first one").path())
    }
    fn on(backing: &Path) -> Option<LoopDevice> {
        let file = File::options().read(true).write(true).open(backing).expect("the file");
        for _ in 0..50 {
            match try_attach(&file) {
                Ok((path, open)) => {
                    return Some(LoopDevice { path, open, backing: None });
                }
                // Somebody else took the free one first.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return skip(&format!("no loop device to be had: {error}")),
            }
        }
        skip("every free loop device was taken by somebody else")
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn dev(&self) -> Dev {
        block_dev(&self.path).expect("a loop device")
    }
    pub(crate) fn hash(&self) -> String {
        hash(&self.path)
    }
}

impl Drop for LoopDevice {
    /// The kernel keeps the mark when it detaches the device, and whoever gets it next would have it.
    fn drop(&mut self) {
        if ioctl::is_read_only(&self.open).is_ok_and(|read_only| read_only) {
            tool("blockdev", &["--setrw".as_ref(), self.path.as_os_str()]);
        }
    }
}

fn try_attach(backing: &File) -> io::Result<(PathBuf, File)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let path = PathBuf::from(format!("/dev/loop{}", ioctl::loop_get_free(&control)?));
    let device = File::options().read(true).write(true).open(&path)?;
    ioctl::loop_configure(&device, backing, 4096)?;
    Ok((path, device))
}

/// A volume of an array in this process in place of an opened device. Guards are not asked.
pub(crate) fn identified(
    device: Box<dyn BlockDevice + Send>,
    identity: Identity,
    wanted: Wanted,
) -> Identified {
    Identified::unguarded(Box::new(InProcess(device)), identity, wanted)
}

struct InProcess(Box<dyn BlockDevice + Send>);

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a volume of {} LBAs", self.0.len_lbas())
    }
}

fn span((at, len): (u64, u64)) -> (Lba, LbaCount) {
    let block = BlockSize::DEVICE.bytes();
    (Lba::new(at / block), LbaCount::new(len / block))
}

fn io_error(error: DeviceError) -> io::Error {
    io::Error::other(error.to_string())
}

impl Medium for InProcess {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.len_lbas().bytes(BlockSize::DEVICE).get())
    }
    fn disk_seq(&self) -> Option<u64> {
        None
    }
    fn read_some(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(ByteOffset::new(at), buf).map(|()| buf.len()).map_err(io_error)
    }
    fn write_some(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        self.0.write_at(ByteOffset::new(at), buf).map_err(io_error)
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(io_error)
    }
    fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        let (at, len) = span((at, len));
        self.0.write_zeroes(at, len).map_err(io_error)
    }
    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        let (at, len) = span((at, len));
        self.0.discard(at, len).map_err(io_error)
    }
}

/// Bytes that repeat with no LBA, so that a moved block is seen.
pub(crate) fn fill(path: &Path, len: u64) {
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ (at >> 12 & 0xff) as u8).collect();
    fs::write(path, bytes).expect("contents");
}

/// SHA-256 of everything at `path`.
pub(crate) fn hash(path: &Path) -> String {
    let mut file = File::open(path).expect("it opens");
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = io::Read::read(&mut file, &mut buf).expect("it reads");
        if len == 0 {
            return format!("{:x?}", hasher.finalize().as_slice());
        }
        hasher.update(&buf[..len]);
    }
}

pub(crate) fn skip<T>(why: &str) -> Option<T> {
    crate::testing::left_out(&why);
    None
}

/// Runs a system tool; `false`, with the reason printed, if it is missing or fails.
pub(crate) fn tool(name: &str, args: &[&std::ffi::OsStr]) -> bool {
    match std::process::Command::new(name).args(args).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            skip::<()>(&format!("{name}: {why}")).is_some()
        }
        Err(error) => skip::<()>(&format!("{name}: {error}")).is_some(),
    }
}
