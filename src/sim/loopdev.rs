//! A loop block device on top of a file, with direct I/O, that detaches itself at the last close.
//!
//! Covers attaching, proving that direct I/O is on, and waiting until the device is really free
//! again. Not covered: partitions, read-only loops, following a file that grows.

use crate::device::ioctl;
use rustix::io::DupFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The device that gives out loop devices.
const CONTROL: &str = "/dev/loop-control";
/// How often another program may snatch the free device before this one gives up.
const ATTEMPTS: u32 = 64;
/// How long another program (udev looks at every new disk) may keep the device open.
const DETACH_PATIENCE: Duration = Duration::from_secs(3);
/// Logical sector sizes to try, in bytes. 4096 is the LBA; 512 is what every kernel takes.
const SECTORS: [u32; 2] = [4096, 512];

/// A loop device that could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A file of the loop driver cannot be opened.
    #[error("cannot open {path}: {cause}; loop devices need root and the loop module")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The kernel refused to put the file behind the device.
    #[error("cannot attach {backing} to {device}: {cause}")]
    Attach {
        /// The file.
        backing: PathBuf,
        /// The device.
        device: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No loop device was free for long enough.
    #[error("no free loop device: {0}; `losetup -a` shows who uses them")]
    NoneFree(#[source] io::Error),
    /// Direct I/O is off, so the page cache would stand between device and volume.
    #[error("{0} does not do direct I/O on the volume's file; use --attach fuse")]
    NotDirect(PathBuf),
    /// Something keeps the device.
    #[error("{0} is still attached: another program holds it open; end it and run `lbaudit clean`")]
    Held(PathBuf),
}

/// A descriptor kept free for a loop device, to be taken before the filesystem below is mounted.
///
/// A killed process closes its descriptors from the highest to the lowest. Closing a loop device
/// writes back its dirty pages, through the filesystem: were that still connected, with nobody
/// left to answer, the process would hang for good. So the loop device gets the lower number.
#[derive(Debug)]
pub struct Slot(OwnedFd);

impl Slot {
    /// Takes a descriptor.
    ///
    /// # Errors
    /// [`LoopError::Open`] when this process has too many.
    pub fn reserve() -> Result<Slot, LoopError> {
        open(Path::new("/dev/null")).map(|file| Slot(file.into()))
    }

    /// Moves a configured device here and looks whether it does direct I/O.
    fn hold(self, device: File, path: PathBuf, backing: &Path) -> Result<LoopDevice, LoopError> {
        let backing = backing.to_path_buf();
        let Slot(mut held) = self;
        if let Err(error) = rustix::io::dup3(&device, &mut held, DupFlags::CLOEXEC) {
            return Err(LoopError::Attach { backing, device: path, cause: error.into() });
        }
        drop(device);
        let attached = LoopDevice { held: Some(held), on: LoopOn { device: path, backing } };
        match attribute(attached.path(), "dio").as_deref() {
            Some("1") => Ok(attached),
            _ => Err(LoopError::NotDirect(attached.path().to_path_buf())),
        }
    }
}

/// An attached loop device; dropping it detaches.
#[derive(Debug)]
pub struct LoopDevice {
    /// Holding it open is what keeps the device attached.
    held: Option<OwnedFd>,
    on: LoopOn,
}

impl LoopDevice {
    /// Attaches the file `backing` (absolute) to a free loop device, which `slot` will hold open.
    /// The device does not outlive this process.
    ///
    /// # Errors
    /// [`LoopError`]; then nothing stays attached.
    pub fn attach(backing: &Path, slot: Slot) -> Result<LoopDevice, LoopError> {
        let control = open(Path::new(CONTROL))?;
        let backing_file = open(backing)?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..ATTEMPTS {
            let number = ioctl::loop_get_free(&control).map_err(LoopError::NoneFree)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match configure(&device, &backing_file) {
                Ok(()) => {
                    // A mark that somebody left on this node has outlived what it was put on.
                    if let Err(cause) = ioctl::clear_read_only(&device) {
                        let backing = backing.to_path_buf();
                        return Err(LoopError::Attach { backing, device: path, cause });
                    }
                    return slot.hold(device, path, backing);
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(cause) => {
                    let backing = backing.to_path_buf();
                    return Err(LoopError::Attach { backing, device: path, cause });
                }
            }
        }
        Err(LoopError::NoneFree(last))
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.on.device
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            // Nobody is left to tell; autoclear does the rest.
            let _ = wait_for_detach(std::slice::from_ref(&self.on));
        }
    }
}

/// Closes the devices and waits until the kernel has let go of their files. Closing writes back
/// what others wrote through the page cache: the files must still answer.
///
/// # Errors
/// [`LoopError::Held`]: that one detaches by itself when the other program closes it.
pub fn detach(mut loops: Vec<LoopDevice>) -> Result<(), LoopError> {
    for device in &mut loops {
        drop(device.held.take());
    }
    let waiting: Vec<LoopOn> = loops.iter().map(|device| device.on.clone()).collect();
    wait_for_detach(&waiting)
}

/// Waits until none of `loops` stands on its file any more.
///
/// # Errors
/// [`LoopError::Held`] for the first one that another program holds open.
pub(super) fn wait_for_detach(loops: &[LoopOn]) -> Result<(), LoopError> {
    let deadline = Instant::now() + DETACH_PATIENCE;
    for one in loops {
        // Once unmounted, the path of the file has lost its directory; the name is still there.
        while attribute(&one.device, "backing_file")
            .is_some_and(|file| Path::new(&file).file_name() == one.backing.file_name())
        {
            if Instant::now() > deadline {
                return Err(LoopError::Held(one.device.clone()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// A loop device and the file it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoopOn {
    /// The device node.
    pub device: PathBuf,
    /// The file.
    pub backing: PathBuf,
}

/// The loop devices whose file lies below `dir`.
pub fn loops_below(dir: &Path) -> Vec<LoopOn> {
    let Ok(disks) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found: Vec<LoopOn> = disks
        .filter_map(Result::ok)
        .filter_map(|disk| {
            let device = Path::new("/dev").join(disk.file_name());
            let backing = PathBuf::from(attribute(&device, "backing_file")?);
            backing.starts_with(dir).then_some(LoopOn { device, backing })
        })
        .collect();
    found.sort_by(|a, b| a.device.cmp(&b.device));
    found
}

/// `/sys/block/<device>/loop/<name>` without its line end; `None` on a disk that is no attached
/// loop device.
fn attribute(device: &Path, name: &str) -> Option<String> {
    let path = Path::new("/sys/block").join(device.file_name()?).join("loop").join(name);
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn configure(device: &File, backing: &File) -> io::Result<()> {
    let [first, second] = SECTORS;
    match ioctl::loop_configure(device, backing, first) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            ioctl::loop_configure(device, backing, second)
        }
        other => other,
    }
}

fn open(path: &Path) -> Result<File, LoopError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|cause| LoopError::Open { path: path.to_path_buf(), cause })
}
