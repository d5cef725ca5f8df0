//! Tests of `attach`, `fuse` and `loopdev` with real mounts and real loop devices.
//!
//! They need /dev/fuse, those of loop devices root as well; where that is missing they say so and
//! check that attaching is refused and leaves nothing.

use super::*;
use crate::array::{AlignedBuf, RealClock};
use crate::block::{LbaCount, SnapshotUuid};
use crate::device::ioctl;
use crate::device::testing::tool;
use crate::sim::fuse::{ByteVolume, Later, VolumeFile};
use crate::sim::{SimArray, SimConfig, SimIoError, SimRange};
use crate::testing::left_out;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::io::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const BLOCK: u64 = 4096;
const SIZE: u64 = 8 << 20;

/// A volume in memory that writes down what reached it.
struct Recorder {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<(&'static str, u64, u64)>>,
    size: AtomicU64,
}

impl Recorder {
    fn new() -> Arc<Recorder> {
        let bytes = Mutex::new(vec![0; 2 * usize::try_from(SIZE).expect("small")]);
        Arc::new(Recorder { bytes, calls: Mutex::default(), size: AtomicU64::new(SIZE) })
    }
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn note(&self, what: &'static str, at: u64, len: u64) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((what, at, len));
    }
    /// What reached the volume since the last call, without the reads.
    fn take_calls(&self) -> Vec<(&'static str, u64, u64)> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn span(at: u64, len: u64) -> std::ops::Range<usize> {
    let start = usize::try_from(at).expect("small");
    start..start + usize::try_from(len).expect("small")
}

impl ByteVolume for Recorder {
    fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
    fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<(), SimIoError> {
        buf.copy_from_slice(&self.bytes()[span(at, buf.len() as u64)]);
        Ok(())
    }
    fn write_bytes(&self, at: u64, data: &[u8]) -> Result<(), SimIoError> {
        self.note("write", at, data.len() as u64);
        self.bytes()[span(at, data.len() as u64)].copy_from_slice(data);
        Ok(())
    }
    fn discard_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError> {
        self.note("discard", at, len);
        self.bytes()[span(at, len)].fill(0);
        Ok(())
    }
    fn zero_bytes(&self, at: u64, len: u64) -> Result<(), SimIoError> {
        self.note("zero", at, len);
        self.bytes()[span(at, len)].fill(0);
        Ok(())
    }
    fn flush_bytes(&self) -> Result<(), SimIoError> {
        self.note("flush", 0, 0);
        Ok(())
    }
}

fn files(volumes: &[Arc<Recorder>]) -> Vec<VolumeFile> {
    let named = volumes.iter().enumerate();
    named.map(|(i, v)| VolumeFile { name: format!("volume-{i}"), volume: v.clone() }).collect()
}

/// An attachment, or `None` with the reason printed where this machine cannot have one.
fn attach(volumes: &[Arc<Recorder>], kind: AttachKind) -> Option<Attachment> {
    attach_files(files(volumes).into(), kind)
}

fn attach_files(files: Files, kind: AttachKind) -> Option<Attachment> {
    let able = Path::new("/dev/fuse").exists()
        && rustix::process::geteuid().is_root()
        && (kind != AttachKind::Loop || Path::new("/dev/loop-control").exists());
    match Attachment::new(files, kind) {
        Ok(attachment) => Some(attachment),
        Err(error) if able => panic!("{kind:?} should work here: {error}"),
        Err(error) => {
            left_out(&format!("{kind:?} cannot be tested here: {error}"));
            assert!(stale_of_this_process().is_empty(), "a refusal leaves nothing");
            None
        }
    }
}

/// Mounts of this test process. Other tests run beside this one, so only `dir` says whose.
fn stale_of_this_process() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").expect("proc is mounted");
    let ours = table.split(|&byte| byte == b'\n').filter_map(parse_mount);
    ours.filter(|(_, pid)| *pid == std::process::id()).map(|(mount, _)| mount).collect()
}

fn open(path: &Path, flags: i32) -> File {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pattern(len: usize, seed: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::new(len);
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = u8::try_from(i % 251).expect("below 251").wrapping_add(seed);
    }
    buf
}

/// Where an attachment lives: its mount point, and that nothing of it is left afterwards.
fn assert_gone(mount: &Path) {
    assert!(!stale_of_this_process().iter().any(|left| left == mount), "mount left");
    assert!(loops_below(mount).is_empty(), "loop device left");
    assert!(!mount.exists(), "directory left");
}

#[test]
fn what_is_written_to_a_file_reaches_its_volume_and_only_it() {
    let volumes = [Recorder::new(), Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Fuse) else { return };
    let mount = attachment.paths()[0].parent().expect("a directory").to_path_buf();
    let listed: Vec<_> = std::fs::read_dir(&mount)
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(listed, ["volume-0", "volume-1"]);

    for flags in [0, libc::O_DIRECT] {
        let file = open(&attachment.paths()[0], flags);
        let data = pattern(3 << 20, 7);
        file.write_all_at(&data, 5 * BLOCK).expect("written");
        let mut back = AlignedBuf::new(data.len());
        file.read_exact_at(&mut back, 5 * BLOCK).expect("read");
        assert!(*back == *data);
        assert!(volumes[0].bytes()[span(5 * BLOCK, 3 << 20)] == *data);
        let calls = volumes[0].take_calls();
        assert!(calls.iter().all(|(what, _, len)| *what == "write" && *len <= 1 << 20));
        assert_eq!(calls.iter().map(|(_, _, len)| len).sum::<u64>(), 3 << 20);
        assert!(calls.len() <= 4, "the kernel sends big requests: {calls:?}");
    }
    assert!(volumes[1].take_calls().is_empty());
    attachment.detach().expect("detached");
    assert_gone(&mount);
}

#[test]
fn a_file_that_comes_later_is_found_by_its_name_until_it_goes() {
    let late: Arc<Mutex<Vec<VolumeFile>>> = Arc::default();
    let shown = Arc::clone(&late);
    let there = move || shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let later: Later = Arc::new(move |name| {
        there().into_iter().find(|file| file.name == name).map(|file| file.volume)
    });
    let volumes = Files::from(files(&[Recorder::new()])).and_later(later);
    let Some(attachment) = attach_files(volumes, AttachKind::Fuse) else { return };
    let mount = attachment.paths()[0].parent().expect("a directory").to_path_buf();
    let put = |name: &str, byte: u8| {
        let volume = Recorder::new();
        volume.bytes().fill(byte);
        let file = VolumeFile { name: name.to_owned(), volume };
        late.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    };
    let first_byte = |name: &str| {
        let mut byte = [0; 1];
        File::open(mount.join(name)).and_then(|file| file.read_exact_at(&mut byte, 0))?;
        Ok::<u8, std::io::Error>(byte[0])
    };
    assert!(!mount.join("one").exists());
    put("one", 1);
    assert_eq!(first_byte("one").expect("it came"), 1);
    late.lock().unwrap_or_else(PoisonError::into_inner).clear();
    put("two", 2);
    assert_eq!(first_byte("two").expect("it came"), 2);
    assert!(first_byte("one").is_err(), "it went, and what came since is not taken for it");
    assert_eq!(std::fs::read_dir(&mount).expect("readable").count(), 1, "they are not listed");
    attachment.detach().expect("detached");
    assert_gone(&mount);
}

#[test]
fn a_file_ends_where_its_volume_ends_and_grows_with_it() {
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Fuse) else { return };
    let path = &attachment.paths()[0];
    let file = open(path, libc::O_TRUNC);
    assert_eq!(file.metadata().expect("stat").len(), SIZE, "O_TRUNC does not cut a volume");
    assert!(file.set_len(SIZE / 2).is_err());
    assert_eq!(file.write_at(&[1; 8192], SIZE - BLOCK).expect("cut short"), 4096);
    let past = file.write_at(&[1; 8192], SIZE).map_err(|error| error.raw_os_error());
    assert_eq!(past, Err(Some(libc::ENOSPC)));
    assert_eq!(file.read_at(&mut [0; 8192], SIZE - BLOCK).expect("cut short"), 4096);
    assert_eq!(file.read_at(&mut [0; 8192], SIZE).expect("the end"), 0);
    volumes[0].size.store(SIZE + BLOCK, Ordering::Relaxed);
    assert_eq!(file.metadata().expect("stat").len(), SIZE + BLOCK);
    assert_eq!(file.write_at(&[1; 4096], SIZE).expect("in the new part"), 4096);
    let foreign = std::fs::File::create(path.with_file_name("other"));
    assert!(foreign.is_err(), "the directory holds volumes only");
    assert!(std::fs::remove_file(path).is_err());
}

#[test]
fn punching_a_hole_discards_and_zeroing_a_range_zeroes() {
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Fuse) else { return };
    let file = open(&attachment.paths()[0], 0);
    let allocate = |flags, at, len| rustix::fs::fallocate(file.as_fd(), flags, at, len);
    use rustix::fs::FallocateFlags as F;
    use rustix::io::Errno;
    file.write_all_at(&[9; 16384], 0).expect("written");
    allocate(F::PUNCH_HOLE | F::KEEP_SIZE, BLOCK, BLOCK).expect("punched");
    allocate(F::ZERO_RANGE | F::KEEP_SIZE, 2 * BLOCK, BLOCK).expect("zeroed");
    allocate(F::ZERO_RANGE, 3 * BLOCK, BLOCK).expect("zeroed");
    file.sync_data().expect("flushed");
    let calls = volumes[0].take_calls();
    let expected = [
        ("write", 0, 16384),
        ("discard", BLOCK, BLOCK),
        ("zero", 2 * BLOCK, BLOCK),
        ("zero", 3 * BLOCK, BLOCK),
        ("flush", 0, 0),
    ];
    assert_eq!(calls, expected);
    // Only whole blocks, only inside; past the end is cut where the size is to be kept.
    let punch = F::PUNCH_HOLE | F::KEEP_SIZE;
    assert_eq!(allocate(punch, 100, BLOCK), Err(Errno::INVAL));
    assert_eq!(allocate(punch, 0, 100), Err(Errno::INVAL));
    assert_eq!(allocate(F::ZERO_RANGE, SIZE, BLOCK), Err(Errno::NOSPC));
    assert_eq!(allocate(F::empty(), SIZE, BLOCK), Err(Errno::NOSPC));
    assert_eq!(allocate(F::COLLAPSE_RANGE, 0, BLOCK), Err(Errno::OPNOTSUPP));
    assert_eq!(allocate(F::empty(), 0, SIZE), Ok(()));
    assert_eq!(volumes[0].take_calls(), []);
    allocate(punch, SIZE - BLOCK, 4 * BLOCK).expect("punched");
    assert_eq!(volumes[0].take_calls(), [("discard", SIZE - BLOCK, BLOCK)]);
    allocate(punch, SIZE, BLOCK).expect("nothing there");
    assert_eq!(volumes[0].take_calls(), []);
}

#[test]
fn a_loop_device_brings_direct_writes_discards_and_zeroes_to_the_volume() {
    let volumes = [Recorder::new(), Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Loop) else { return };
    let mount = attachment.mount.as_ref().expect("mounted").dir().to_path_buf();
    let path = attachment.paths()[0].clone();
    assert_eq!(loops_below(&mount).len(), 2);
    assert!(
        loops_below(&mount)
            .iter()
            .any(|one| { one.device == path && one.backing == mount.join("volume-0") })
    );
    {
        let device = open(&path, libc::O_DIRECT | libc::O_EXCL);
        assert_eq!(ioctl::size_bytes(&device).expect("size"), SIZE);
        assert_eq!(ioctl::logical_sector_bytes(&device).expect("sector"), 4096);
        let data = pattern(1 << 20, 3);
        volumes[0].take_calls();
        device.write_all_at(&data, 64 * BLOCK).expect("written");
        assert!(volumes[0].bytes()[span(64 * BLOCK, 1 << 20)] == *data, "at once: direct I/O");
        let mut back = AlignedBuf::new(data.len());
        device.read_exact_at(&mut back, 64 * BLOCK).expect("read");
        assert!(*back == *data);
        // O_DIRECT is real: a sector less is refused.
        let odd = device.write_at(&data[..512], 0).map_err(|error| error.raw_os_error());
        assert_eq!(odd, Err(Some(libc::EINVAL)));
        let wrote: u64 = volumes[0].take_calls().iter().map(|(_, _, len)| len).sum();
        assert_eq!(wrote, 1 << 20);

        ioctl::discard(&device, 64 * BLOCK, 3 * BLOCK).expect("discarded");
        ioctl::zero_out(&device, 128 * BLOCK, 2 * BLOCK).expect("zeroed");
        device.sync_all().expect("flushed");
        let calls = volumes[0].take_calls();
        let expected =
            [("discard", 64 * BLOCK, 3 * BLOCK), ("zero", 128 * BLOCK, 2 * BLOCK), ("flush", 0, 0)];
        assert_eq!(calls, expected);
    }
    let others = volumes[1].take_calls();
    assert!(others.iter().all(|(what, ..)| *what == "flush"), "{others:?}");
    attachment.detach().expect("detached");
    assert_gone(&mount);
}

#[test]
fn a_read_only_mark_from_before_is_not_taken_over() {
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Loop) else { return };
    let marked = attachment.paths()[0].clone();
    if !tool("blockdev", &["--setro".as_ref(), marked.as_os_str()]) {
        return;
    }
    assert_eq!(ioctl::is_read_only(open(&marked, 0)).map_err(|e| e.raw_os_error()), Ok(true));
    attachment.detach().expect("detached");
    // The kernel keeps the mark on the node, and gives this node out again sooner or later.
    for _ in 0..3 {
        let Some(attachment) = attach(&volumes, AttachKind::Loop) else { return };
        let device = open(&attachment.paths()[0], 0);
        assert_eq!(ioctl::is_read_only(&device).map_err(|e| e.raw_os_error()), Ok(false));
        drop(device);
        attachment.detach().expect("detached");
    }
}

/// The LBAs that a diff answers, one by one.
fn changed(array: &SimArray, snap: SnapshotUuid, base: SnapshotUuid) -> Vec<u64> {
    let page = array.diff(snap, Some(base), 0).expect("a diff");
    let bits = |range: &SimRange| {
        let SimRange { start_lba, bits, .. } = *range;
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| start_lba + bit)
    };
    page.ranges.iter().flat_map(bits).collect()
}

#[test]
fn what_any_program_does_to_the_device_is_in_the_next_diff() {
    let array = SimArray::new(SimConfig::default(), Arc::new(RealClock::new()));
    let uuid = array.create_volume("v", LbaCount::new(SIZE / BLOCK), None).expect("created");
    let name = format!("source-{uuid}");
    let volume = Arc::new(array.device(uuid).expect("there"));
    let files = vec![VolumeFile { name, volume }];
    // The best this machine has; a file takes discards by `fallocate` instead.
    let attachment = Attachment::new(files, AttachKind::Auto).expect("never fails");
    let Some(path) = attachment.paths().first() else {
        return left_out(&attachment.notes().join("; "));
    };
    let is_block = path.starts_with("/dev");
    let take = |name: &str| array.create_snapshot(uuid, name).expect("taken").uuid;
    let device = open(path, libc::O_DIRECT);
    let first = take("first");
    device.write_all_at(&pattern(4 * 4096, 1), 62 * BLOCK).expect("written");
    let second = take("second");
    assert_eq!(changed(&array, second, first), [62, 63, 64, 65]);
    if is_block {
        ioctl::discard(&device, 64 * BLOCK, BLOCK).expect("discarded");
        ioctl::zero_out(&device, 700 * BLOCK, 2 * BLOCK).expect("zeroed");
    } else {
        use rustix::fs::FallocateFlags as F;
        let allocate = |flags, at, len| rustix::fs::fallocate(device.as_fd(), flags, at, len);
        allocate(F::PUNCH_HOLE | F::KEEP_SIZE, 64 * BLOCK, BLOCK).expect("discarded");
        allocate(F::ZERO_RANGE | F::KEEP_SIZE, 700 * BLOCK, 2 * BLOCK).expect("zeroed");
    }
    let third = take("third");
    assert_eq!(changed(&array, third, second), [64, 700, 701]);
    let mut block = AlignedBuf::new(4096);
    device.read_exact_at(&mut block, 64 * BLOCK).expect("read");
    assert!(block.iter().all(|&byte| byte == 0));
    // A deleted volume is gone for those who still hold it, too.
    array.delete_volume(uuid).expect("deleted");
    assert!(device.write_at(&pattern(4096, 1), 0).is_err());
    drop(device);
    attachment.detach().expect("detached");
}

#[test]
fn dropping_an_attachment_takes_everything_away_even_with_unwritten_pages() {
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Loop) else { return };
    let mount = attachment.mount.as_ref().expect("mounted").dir().to_path_buf();
    // Through the page cache, as an unaware program writes.
    let mut device = open(&attachment.paths()[0], 0);
    device.write_all(&[5; 65536]).expect("written");
    drop(device);
    drop(attachment);
    assert_gone(&mount);
    assert!(volumes[0].bytes()[..65536].iter().all(|&byte| byte == 5), "written back first");
}

#[test]
fn a_program_that_keeps_a_file_open_does_not_keep_the_mount() {
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Fuse) else { return };
    let mount = attachment.mount.as_ref().expect("mounted").dir().to_path_buf();
    // Another program, as its name says: a process that holds a file of its own mount would, while
    // it ends, wait for an answer that only it could give.
    let file = open(&attachment.paths()[0], 0);
    let sleep = std::process::Command::new("sleep").arg("60").stdin(file).spawn();
    let mut holder = sleep.expect("a program that keeps the file");
    attachment.detach().expect("torn down under the holder");
    assert_gone(&mount);
    assert!(holder.try_wait().expect("still a child").is_none(), "it still holds the file");
    holder.kill().expect("stopped");
    holder.wait().expect("reaped");
}

#[test]
fn a_mount_of_a_dead_process_is_found_and_cleaned() {
    let line = b"36 35 0:50 / /tmp/a\\040b\\134c rw,nodev shared:1 - fuse lbaudit-sim-4711 rw,fd=3";
    assert_eq!(parse_mount(line), Some((PathBuf::from("/tmp/a b\\c"), 4711)));
    for foreign in [
        &b"36 35 0:50 / /tmp/x rw - fuse other-4711 rw"[..],
        b"36 35 0:50 / /tmp/x rw - fuse lbaudit-sim-x rw",
        b"36 35 0:50 / /tmp/x rw - ext4 lbaudit-sim-1 rw",
        b"36 35 - fuse lbaudit-sim-1",
        b"-",
        b"",
    ] {
        assert_eq!(parse_mount(foreign), None);
    }
    assert!(!serves_fuse(u32::MAX), "no such process");
    let volumes = [Recorder::new()];
    let Some(attachment) = attach(&volumes, AttachKind::Fuse) else { return };
    assert!(serves_fuse(std::process::id()), "this one serves");
    let mount = attachment.mount.as_ref().expect("mounted").dir().to_path_buf();
    let ours = |stale: &Stale| stale.mount == mount;
    assert!(!stale_attachments().expect("listed").iter().any(ours), "it lives");
    let stale = Stale { mount: mount.clone(), pid: std::process::id(), loops: loops_below(&mount) };
    assert!(stale.loops.is_empty());
    clean_stale(&stale).expect("cleaned");
    drop(attachment);
    assert_gone(&mount);
}

#[test]
fn automatic_attachment_takes_the_best_and_nothing_attaches_nothing() {
    let volumes = [Recorder::new()];
    let attachment = Attachment::new(files(&volumes), AttachKind::Auto).expect("never fails");
    assert!(attachment.paths().len() == 1 || !attachment.notes().is_empty(), "says why not");
    let is_loop = attachment.paths().first().is_some_and(|path| path.starts_with("/dev"));
    if is_loop {
        assert!(rustix::process::geteuid().is_root());
    }
    attachment.detach().expect("detached");
    let nothing = Attachment::new(files(&volumes), AttachKind::None).expect("nothing to do");
    assert!(nothing.paths().is_empty());
    nothing.detach().expect("nothing to do");
}

#[test]
fn an_escape_is_three_octal_digits_and_a_sign_is_none() {
    assert_eq!(unescape(br"/a\040b\134"), br"/a b\");
    assert_eq!(unescape(br"/a\+12\-12\4"), br"/a\+12\-12\4");
}
