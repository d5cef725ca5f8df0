//! One FUSE filesystem with one flat directory: every volume is a regular file of the volume's size.
//! Volumes that come and go (clones) are found by their names and not listed.
//!
//! Reads, writes, fsync and fallocate on a file go straight to its [`ByteVolume`], without the page
//! cache in between, so what the tracker of the simulator counts is what arrived. The file behaves
//! like a block device: it does not grow by writing, is not cut by `O_TRUNC`, takes hole punching as
//! discard and zeroing as write-zeroes.
//!
//! Not covered: creating, renaming or removing files, permissions other than the owner's, and
//! anything about loop devices (`super::loopdev`).

use super::{SimDevice, SimIoError};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::mount::UnmountFlags;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Start of the name that `/proc/self/mountinfo` shows as the source of such a mount; the process
/// id follows.
pub const FSNAME_PREFIX: &str = "lbaudit-sim-";

/// Unit of the files, in bytes: the LBA of every device this tool attaches.
const BLOCK_BYTES: u64 = 4096;
/// Largest request asked of the kernel, in bytes.
const MAX_REQUEST_BYTES: u32 = 1 << 20;
/// Requests the kernel may have under way without a waiting process (those of a loop device).
const MAX_BACKGROUND: u16 = 64;
/// Threads that answer the kernel.
const WORKERS: usize = 4;
/// Inode of the directory; the files follow.
const ROOT: u64 = 1;
/// Names do not change, attributes (the size) may at any time.
const NAME_TTL: Duration = Duration::from_secs(60);
const ATTR_TTL: Duration = Duration::ZERO;
/// How long a busy mount is waited for before it is torn down by force.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(2);
/// How long the worker threads may take to end after that.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);

/// A volume as a file needs it: positioned I/O of any alignment.
pub trait ByteVolume: Send + Sync + 'static {
    /// Size now, in bytes.
    fn size_bytes(&self) -> u64;
    /// Fills `buf` from byte `at`; the span lies inside the volume.
    ///
    /// # Errors
    /// The volume's.
    fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<(), SimIoError>;
    /// As [`ByteVolume::read_bytes`], but may answer that it read less.
    ///
    /// # Errors
    /// The volume's.
    fn read_some(&self, at: u64, buf: &mut [u8]) -> Result<usize, SimIoError> {
        self.read_bytes(at, buf).map(|()| buf.len())
    }
    /// Writes all of `data` at byte `at`; the span lies inside the volume.
    ///
    /// # Errors
    /// The volume's.
    fn write_bytes(&self, at: u64, data: &[u8]) -> Result<(), SimIoError>;
    /// As [`ByteVolume::write_bytes`], but may answer that it took less.
    ///
    /// # Errors
    /// The volume's.
    fn write_some(&self, at: u64, data: &[u8]) -> Result<usize, SimIoError> {
        self.write_bytes(at, data).map(|()| data.len())
    }
    /// Discards whole blocks inside the volume, counted in bytes.
    ///
    /// # Errors
    /// The volume's.
    fn discard_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError>;
    /// Zeroes whole blocks inside the volume, counted in bytes.
    ///
    /// # Errors
    /// The volume's.
    fn zero_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError>;
    /// Makes acknowledged writes durable.
    ///
    /// # Errors
    /// The volume's.
    fn flush_bytes(&self) -> Result<(), SimIoError>;
}

impl ByteVolume for SimDevice {
    fn size_bytes(&self) -> u64 {
        SimDevice::size_bytes(self)
    }
    fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<(), SimIoError> {
        SimDevice::read_bytes(self, at, buf)
    }
    fn read_some(&self, at: u64, buf: &mut [u8]) -> Result<usize, SimIoError> {
        SimDevice::read_some(self, at, buf)
    }
    fn write_some(&self, at: u64, data: &[u8]) -> Result<usize, SimIoError> {
        SimDevice::write_some(self, at, data)
    }
    fn write_bytes(&self, at: u64, data: &[u8]) -> Result<(), SimIoError> {
        SimDevice::write_bytes(self, at, data)
    }
    fn discard_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError> {
        SimDevice::discard_bytes(self, at, len)
    }
    fn zero_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError> {
        SimDevice::zero_bytes(self, at, len)
    }
    fn flush_bytes(&self) -> Result<(), SimIoError> {
        SimDevice::flush_bytes(self)
    }
}

/// A file to show: its name and what it holds.
#[derive(Clone)]
pub struct VolumeFile {
    /// Name in the directory.
    pub name: String,
    /// The contents.
    pub volume: Arc<dyn ByteVolume>,
}

/// Answers what there is now under a name that is none of the fixed files.
pub type Later = Arc<dyn Fn(&str) -> Option<Arc<dyn ByteVolume>> + Send + Sync>;

/// What a directory holds: files from the beginning, and those that come and go.
#[derive(Clone)]
pub struct Files {
    pub(super) fixed: Vec<VolumeFile>,
    later: Option<Later>,
}

impl Files {
    /// With files that come and go besides.
    #[must_use]
    pub fn and_later(self, later: Later) -> Files {
        Files { later: Some(later), ..self }
    }
}

impl From<Vec<VolumeFile>> for Files {
    fn from(fixed: Vec<VolumeFile>) -> Files {
        Files { fixed, later: None }
    }
}

/// A mount that could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// No FUSE filesystem can be mounted here.
    #[error("cannot mount a FUSE filesystem: {0}; is /dev/fuse there and may this user use it?")]
    Mount(#[source] io::Error),
    /// The directory to mount on cannot be made.
    #[error("cannot make a directory to mount on: {0}")]
    Directory(#[source] io::Error),
    /// The mount or its directory is still there.
    #[error("{path} could not be unmounted: {cause}; end what uses it, then run `lbaudit clean`")]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The mounted directory; dropping it unmounts and removes it.
#[derive(Debug)]
pub struct FuseMount {
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl FuseMount {
    /// Mounts `files` on a fresh directory of the temporary folder.
    ///
    /// # Errors
    /// [`FuseError::Directory`] and [`FuseError::Mount`]; then nothing is left behind.
    pub fn mount(files: Files) -> Result<FuseMount, FuseError> {
        let dir = tempfile::Builder::new()
            .prefix(FSNAME_PREFIX)
            .tempdir()
            .and_then(|dir| dir.path().canonicalize().map(|path| (dir, path)));
        let (dir, path) = dir.map_err(FuseError::Directory)?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("{FSNAME_PREFIX}{}", std::process::id())),
            MountOption::NoExec,
            MountOption::NoAtime,
        ];
        config.n_threads = Some(WORKERS);
        config.clone_fd = true;
        let session = Session::new(Directory::new(files), &path, &config)
            .and_then(Session::spawn)
            .map_err(FuseError::Mount)?;
        // From here on the directory is removed by hand: removing it recursively, as `TempDir`
        // does, is nothing to do to a mount.
        let _kept = dir.keep();
        Ok(FuseMount { dir: path, session: Some(session) })
    }

    /// The directory, absolute and without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts, waits for the workers and removes the directory. A mount that stays in use is
    /// torn down under its users, who see errors from then on.
    ///
    /// # Errors
    /// [`FuseError::Unmount`].
    pub fn unmount(mut self) -> Result<(), FuseError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), FuseError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let fail = |cause| FuseError::Unmount { path: self.dir.clone(), cause };
        match unmount_patiently(&self.dir) {
            // Not root: dropping the session has the system's helper unmount.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => other.map_err(fail)?,
        }
        join(workers(session)).map_err(fail)?;
        std::fs::remove_dir(&self.dir).map_err(fail)
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        // Nobody is left to tell; `clean` finds what stays.
        let _ = self.end();
    }
}

/// Drops the rest of the session, which unmounts what is still mounted, and keeps its thread.
fn workers(session: BackgroundSession) -> JoinHandle<io::Result<()>> {
    session.guard
}

/// Waits, with an end, for the thread that leads the workers.
fn join(leader: JoinHandle<io::Result<()>>) -> io::Result<()> {
    let deadline = Instant::now() + JOIN_PATIENCE;
    while !leader.is_finished() {
        if Instant::now() > deadline {
            return Err(io::Error::other("the FUSE workers did not end in time"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // How the loop ended does not matter any more: the mount is gone.
    let _ = leader.join();
    Ok(())
}

/// Unmounts `dir`; one that stays busy is aborted and detached.
pub(super) fn unmount_patiently(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + UNMOUNT_PATIENCE;
    loop {
        match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::BUSY) => return unmount_now(dir),
            // Somebody else was faster.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Aborts the connection (all requests under way fail) and detaches the mount.
pub(super) fn unmount_now(dir: &Path) -> io::Result<()> {
    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::FORCE | UnmountFlags::DETACH;
    Ok(rustix::mount::unmount(dir, flags)?)
}

/// The filesystem. Inode of fixed file `i` = `i + 2`; those of later ones are used once.
struct Directory {
    files: Files,
    found: RwLock<Found>,
}

/// The later files that were looked up, by inode.
struct Found {
    next: u64,
    files: BTreeMap<u64, VolumeFile>,
}

thread_local! {
    /// What a worker reads into before it answers: kept, as a megabyte would else be cleared anew
    /// for every request.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Directory {
    fn new(files: Files) -> Directory {
        let next = ROOT + 1 + files.fixed.len() as u64;
        Directory { files, found: RwLock::new(Found { next, files: BTreeMap::new() }) }
    }

    fn volume(&self, ino: INodeNo) -> Result<Arc<dyn ByteVolume>, Errno> {
        let index = ino.0.checked_sub(ROOT + 1).and_then(|index| usize::try_from(index).ok());
        if let Some(file) = index.and_then(|index| self.files.fixed.get(index)) {
            return Ok(Arc::clone(&file.volume));
        }
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        found.files.get(&ino.0).map(|file| Arc::clone(&file.volume)).ok_or(Errno::ENOENT)
    }

    /// The inode behind a name.
    fn inode(&self, name: &OsStr) -> Option<u64> {
        let fixed = self.entries().skip(2).find(|(_, _, file)| OsStr::new(file) == name);
        fixed.map(|(ino, ..)| ino).or_else(|| self.later(name.to_str()?))
    }

    /// The inode of a file that came later, if it is there now.
    fn later(&self, name: &str) -> Option<u64> {
        let later = self.files.later.as_ref()?;
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        // What has gone since is not kept: it may be large.
        found.files.retain(|_, file| later(&file.name).is_some());
        if let Some((ino, _)) = found.files.iter().find(|(_, file)| file.name == name) {
            return Some(*ino);
        }
        let (ino, volume) = (found.next, later(name)?);
        found.next += 1;
        found.files.insert(ino, VolumeFile { name: name.to_owned(), volume });
        Some(ino)
    }

    /// All fixed entries of the directory, with inode numbers.
    fn entries(&self) -> impl Iterator<Item = (u64, FileType, &str)> {
        let dots = [(ROOT, FileType::Directory, "."), (ROOT, FileType::Directory, "..")];
        let files = self.files.fixed.iter().map(|file| (FileType::RegularFile, file.name.as_str()));
        let files = (ROOT + 1..).zip(files).map(|(ino, (kind, name))| (ino, kind, name));
        dots.into_iter().chain(files)
    }

    fn attributes(&self, request: &Request, ino: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, perm, size) = match ino.0 {
            ROOT => (FileType::Directory, 0o700, 0),
            _ => (FileType::RegularFile, 0o600, self.volume(ino)?.size_bytes()),
        };
        Ok(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: request.uid(),
            gid: request.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn read(&self, ino: INodeNo, at: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let volume = self.volume(ino)?;
        let len = clip(volume.size_bytes(), at, buf.len());
        let buf = &mut buf[..len];
        if len == 0 {
            return Ok(0);
        }
        volume.read_some(at, buf).map_err(errno)
    }

    fn write(&self, ino: INodeNo, at: u64, data: &[u8]) -> Result<u32, Errno> {
        let volume = self.volume(ino)?;
        let len = clip(volume.size_bytes(), at, data.len());
        if len == 0 && !data.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let taken = volume.write_some(at, &data[..len]).map_err(errno)?;
        u32::try_from(taken).map_err(|_| Errno::EINVAL)
    }

    /// As `fallocate` on a block device: whole blocks; past the end is cut off when the size is to
    /// be kept, and refused else.
    fn allocate(&self, ino: INodeNo, at: u64, len: u64, mode: i32) -> Result<(), Errno> {
        let volume = self.volume(ino)?;
        let size = volume.size_bytes();
        let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        if end > size && !keep_size {
            return Err(Errno::ENOSPC);
        }
        let len = end.min(size).saturating_sub(at);
        let what = mode & !libc::FALLOC_FL_KEEP_SIZE;
        if what == 0 || len == 0 {
            return if what & !(PUNCH | ZERO) == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) };
        }
        if !at.is_multiple_of(BLOCK_BYTES) || !len.is_multiple_of(BLOCK_BYTES) {
            return Err(Errno::EINVAL);
        }
        match what {
            PUNCH => volume.discard_bytes(at, len).map_err(errno),
            ZERO => volume.zero_bytes(at, len).map_err(errno),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// How many of `len` bytes from `at` lie inside `size`.
fn clip(size: u64, at: u64, len: usize) -> usize {
    usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(len)
}

/// What a program that uses the file gets to see of a volume's error.
fn errno(error: SimIoError) -> Errno {
    match error {
        SimIoError::Deleted | SimIoError::Gone => Errno::ENODEV,
        SimIoError::PastEnd | SimIoError::NoSpace => Errno::ENOSPC,
        SimIoError::ReadOnly => Errno::EROFS,
        SimIoError::NoContents | SimIoError::TrackingRecord | SimIoError::Medium => Errno::EIO,
    }
}

impl Filesystem for Directory {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused =
            |limit: u32| io::Error::other(format!("FUSE takes no more than {limit} bytes"));
        config.set_max_write(MAX_REQUEST_BYTES).map_err(refused)?;
        config
            .set_max_background(MAX_BACKGROUND)
            .map_err(|_| io::Error::other("FUSE takes fewer requests"))?;
        // Without it (old kernels) a loop device gets one request at a time: slower, not wrong.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = if parent.0 == ROOT { self.inode(name) } else { None };
        let attributes = match found {
            Some(ino) => self.attributes(request, INodeNo(ino)),
            None => Err(Errno::ENOENT),
        };
        match attributes {
            Ok(attr) => reply.entry_with_ttls(&NAME_TTL, &ATTR_TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(request, ino) {
            Ok(attr) => reply.attr(&ATTR_TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    /// Cutting to nothing is what `O_TRUNC` asks for: ignored, as a block device does. Times are
    /// not kept. Everything else is refused.
    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes_owner = mode.is_some() || uid.is_some() || gid.is_some();
        match self.attributes(request, ino) {
            Ok(_) if changes_owner => reply.error(Errno::EPERM),
            Ok(attr) if size.is_some_and(|size| size != 0 && size != attr.size) => {
                reply.error(Errno::EINVAL);
            }
            Ok(attr) => reply.attr(&ATTR_TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        match self.volume(ino) {
            Ok(_) => reply.opened(FileHandle(0), flags),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let len = usize::try_from(size).unwrap_or(0);
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            match Directory::read(self, ino, offset, &mut buffer[..len]) {
                Ok(got) => reply.data(&buffer[..got]),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match Directory::write(self, ino, offset, data) {
            Ok(len) => reply.written(len),
            Err(error) => reply.error(error),
        }
    }

    /// Sent at every close; says nothing about durability.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let done = self.volume(ino).and_then(|volume| volume.flush_bytes().map_err(errno));
        answer(done, reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.allocate(ino, offset, length, mode), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if ino.0 != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (offset.saturating_add(1)..).zip(self.entries().skip(skip))
        {
            if reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    /// A loop device takes the block size as its discard granularity.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let fixed = &self.files.fixed;
        let blocks = fixed.iter().map(|file| file.volume.size_bytes() / BLOCK_BYTES).sum();
        let files = fixed.len() as u64;
        reply.statfs(blocks, 0, 0, files, 0, 4096, 255, 4096);
    }

    fn ioctl(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
