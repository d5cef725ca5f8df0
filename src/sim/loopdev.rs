//! A loop block device on top of a file, with direct I/O, that detaches itself at the last close.
//!
//! Covers attaching, proving that direct I/O is on, and waiting until the device is really free
//! again. Not covered: partitions, read-only loops, following a file that grows.

use crate::device::ioctl;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The device that gives out loop devices.
const CONTROL: &str = "/dev/loop-control";
/// How often another program may snatch the free device before this one gives up.
const ATTEMPTS: u32 = 64;
/// How long another program (udev looks at every new disk) may keep the device open.
const DETACH_PATIENCE: Duration = Duration::from_secs(5);
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

/// An attached loop device; dropping it detaches.
#[derive(Debug)]
pub struct LoopDevice {
    /// Holding it open is what keeps the device attached.
    file: Option<File>,
    path: PathBuf,
    backing: PathBuf,
}

impl LoopDevice {
    /// Attaches the file `backing` (absolute) to a free loop device. The device does not outlive
    /// this process.
    ///
    /// # Errors
    /// [`LoopError`]; then nothing stays attached.
    pub fn attach(backing: &Path) -> Result<LoopDevice, LoopError> {
        let control = open(Path::new(CONTROL))?;
        let backing_file = open(backing)?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..ATTEMPTS {
            let number = ioctl::loop_get_free(&control).map_err(LoopError::NoneFree)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match configure(&device, &backing_file) {
                Ok(()) => {
                    let attached =
                        LoopDevice { file: Some(device), path, backing: backing.to_path_buf() };
                    return match attached.sysfs("dio").as_deref() {
                        Some("1") => Ok(attached),
                        _ => Err(LoopError::NotDirect(attached.path.clone())),
                    };
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
        &self.path
    }

    /// Closes the device and waits until the kernel has let go of the file.
    ///
    /// # Errors
    /// [`LoopError::Held`]: it detaches by itself when the other program closes it.
    pub fn detach(mut self) -> Result<(), LoopError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LoopError> {
        // The close writes back what others wrote through the page cache; the file below must
        // still answer.
        if self.file.take().is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + DETACH_PATIENCE;
        while self.is_attached() {
            if Instant::now() > deadline {
                return Err(LoopError::Held(self.path.clone()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether the device still stands on our file (and not on a later user's).
    fn is_attached(&self) -> bool {
        self.sysfs("backing_file").is_some_and(|file| Path::new(&file) == self.backing)
    }

    fn sysfs(&self, attribute: &str) -> Option<String> {
        loop_attribute(Path::new(self.path.file_name()?), attribute)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Nobody is left to tell; autoclear does the rest.
        let _ = self.end();
    }
}

/// Takes the file away from every loop device that stands on one below `dir`, and names them.
///
/// # Errors
/// [`LoopError::Open`] and [`LoopError::Attach`], after all were tried.
pub fn detach_below(dir: &Path) -> Result<(), LoopError> {
    let mut result = Ok(());
    for path in loops_below(dir) {
        let cleared = open(&path).and_then(|device| {
            ioctl::loop_clear(&device).or_else(|cause| match cause.raw_os_error() {
                // Detached meanwhile.
                Some(libc::ENXIO) => Ok(()),
                _ => Err(LoopError::Attach { backing: dir.to_path_buf(), device: path, cause }),
            })
        });
        if cleared.is_err() {
            result = cleared;
        }
    }
    result
}

/// The loop devices whose file lies below `dir`.
pub fn loops_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(disks) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found: Vec<PathBuf> = disks
        .filter_map(|disk| Some(disk.ok()?.file_name()))
        .filter(|disk| {
            loop_attribute(Path::new(disk), "backing_file")
                .is_some_and(|file| Path::new(&file).starts_with(dir))
        })
        .map(|disk| Path::new("/dev").join(disk))
        .collect();
    found.sort();
    found
}

/// `/sys/block/<disk>/loop/<attribute>` without its line end; `None` on a disk that is no attached
/// loop device.
fn loop_attribute(disk: &Path, attribute: &str) -> Option<String> {
    let path = Path::new("/sys/block").join(disk).join("loop").join(attribute);
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
