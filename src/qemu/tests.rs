//! The adapter against a real qemu-storage-daemon. Where there is none, each test says so and ends.

use super::testing::unless_missing;
use super::*;
use crate::array::{AlignedBuf, ApiError, Array, BlockDevice, DeviceError};
use crate::block::{
    BlockSize, ByteOffset, Extent, Lba, LbaCount, LbaSet, Role, RunId, SnapshotName, SnapshotUuid,
    VolumeUuid,
};
use crate::testing::left_out;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BLOCK: u64 = BlockSize::DEVICE.bytes();
/// 64 MiB and a last chunk of 32 LBAs.
const LEN: LbaCount = LbaCount::new(16_416);

/// A FUSE file, opened as the device layer opens it.
struct FuseFile(File);

impl FuseFile {
    fn open(path: &Path) -> FuseFile {
        let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag");
        let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path);
        FuseFile(file.expect("an export can be opened"))
    }
    fn allocate(&self, mode: FallocateFlags, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        let mode = mode | FallocateFlags::KEEP_SIZE;
        fallocate(&self.0, mode, at.get() * BLOCK, len.get() * BLOCK).map_err(|source| {
            let at = ByteOffset::new(at.get() * BLOCK);
            DeviceError::Io { op: "fallocate", at, source: source.into() }
        })
    }
}

fn io(op: &'static str, at: ByteOffset) -> impl Fn(std::io::Error) -> DeviceError {
    move |source| DeviceError::Io { op, at, source }
}

impl BlockDevice for FuseFile {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        LEN
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read_exact_at(buf, at.get()).map_err(io("read", at))
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        self.0.write_at(buf, at.get()).map_err(io("write", at))
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.allocate(FallocateFlags::ZERO_RANGE, at, len)
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.allocate(FallocateFlags::PUNCH_HOLE, at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.0.sync_all().map_err(io("flush", ByteOffset::new(0)))
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

/// Starts an array, or says why not: only a missing QEMU or FUSE excuses.
fn start(config: QemuConfig) -> Option<QemuArray> {
    let fuse = config.data_plane == Some(DataPlane::Fuse);
    match QemuArray::start(config) {
        Err(QemuError::Qmp(QmpError::Refused { command, desc, .. }))
            if fuse && command == "block-export-add" =>
        {
            left_out(&format!("no FUSE on this machine: {desc}"));
            None
        }
        started => unless_missing(started),
    }
}

fn small(plane: DataPlane) -> QemuConfig {
    QemuConfig { size: LEN, data_plane: Some(plane), page_limit: 3, ..QemuConfig::default() }
}

fn device(array: &QemuArray, role: Role) -> Box<dyn BlockDevice> {
    match array.device_path(role) {
        Some(path) => Box::new(FuseFile::open(path)),
        None => Box::new(array.nbd_device(role).expect("one of the two planes")),
    }
}

fn uuid(array: &QemuArray, role: Role) -> VolumeUuid {
    array.volume_uuid(role).expect("the volume is there")
}

fn take(array: &QemuArray, role: Role) -> SnapshotUuid {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = SnapshotName::new(RunId::from_u128(7), NUMBER.fetch_add(1, Ordering::Relaxed));
    array.create_snapshot(uuid(array, role), name).expect("a snapshot").uuid
}

fn write(device: &dyn BlockDevice, extent: Extent, byte: u8) {
    let mut buf = AlignedBuf::new(usize::try_from(extent.len_lbas().get() * BLOCK).expect("small"));
    buf.fill(byte);
    let at = extent.start().byte_offset(BlockSize::DEVICE).expect("small");
    assert_eq!(device.write_at(at, &buf).expect("written"), buf.len());
}

fn diff(array: &QemuArray, snapshot: SnapshotUuid, base: Option<SnapshotUuid>) -> LbaSet {
    let mut set = LbaSet::new();
    let mut from = Some(Lba::new(0));
    while let Some(at) = from {
        let page = array.diff_page(snapshot, base, at).expect("a page");
        assert!(page.next.is_none_or(|next| next > at));
        for chunk in page.chunks {
            set.insert_chunk(chunk.start, chunk.bits);
        }
        from = page.next;
    }
    set
}

fn set(extents: &[Extent]) -> LbaSet {
    extents.iter().copied().collect()
}

/// The first byte of each LBA of a snapshot, after checking that the LBA is full of it.
fn contents(array: &QemuArray, snapshot: SnapshotUuid) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(LEN.get() * BLOCK).expect("small")];
    array.read_snapshot(snapshot, Lba::new(0), &mut all).expect("read");
    let first = |block: &[u8]| {
        assert!(block.iter().all(|&byte| byte == block[0]), "a torn LBA");
        block[0]
    };
    all.chunks(BlockSize::DEVICE.get()).map(first).collect()
}

/// What was done so far, one entry an LBA: its byte, and the epochs in which it was touched.
struct Log {
    bytes: Vec<u8>,
    epochs: Vec<LbaSet>,
}

impl Log {
    fn new() -> Log {
        let len = usize::try_from(LEN.get()).expect("small");
        Log { bytes: vec![0; len], epochs: vec![LbaSet::new()] }
    }
    fn touch(&mut self, extent: Extent, byte: u8) {
        for lba in extent.start().get()..extent.end().get() {
            self.bytes[usize::try_from(lba).expect("small")] = byte;
        }
        self.epochs.last_mut().expect("never empty").insert(extent);
    }
    /// Ends the epoch and answers the bytes at its end.
    fn cut(&mut self) -> Vec<u8> {
        self.epochs.push(LbaSet::new());
        self.bytes.clone()
    }
    /// LBAs touched in the epochs `from..to`.
    fn between(&self, from: usize, to: usize) -> LbaSet {
        self.epochs[from..to].iter().fold(LbaSet::new(), |all, epoch| all.union(epoch))
    }
}

/// Three rounds of every kind of write, one snapshot after each; a last one that nobody snapshots.
fn three_rounds(array: &QemuArray) -> (Log, Vec<(SnapshotUuid, Vec<u8>)>) {
    let source = device(array, Role::Source);
    let mut log = Log::new();
    let mut taken = Vec::new();
    for round in 0..4u8 {
        let shift = u64::from(round);
        for (number, extent) in (1u8..).zip([
            Extent::lbas(shift, 1),
            Extent::lbas(60 + shift * 2, 9),
            Extent::lbas(5_000, 1 + shift),
            Extent::lbas(9_000 + shift * 700, 900),
            Extent::lbas(LEN.get() - 1 - shift, 1),
        ]) {
            let byte = round * 10 + number;
            write(source.as_ref(), extent, byte);
            log.touch(extent, byte);
        }
        let same = Extent::lbas(5_000, 1);
        write(source.as_ref(), same, round * 10 + 3);
        log.touch(same, round * 10 + 3);
        let (gone, zeroed) = (Extent::lbas(9_003 + shift * 650, 70), Extent::lbas(9_100, 1));
        source.discard(gone.start(), gone.len_lbas()).expect("discarded");
        log.touch(gone, 0);
        source.write_zeroes(zeroed.start(), zeroed.len_lbas()).expect("zeroed");
        log.touch(zeroed, 0);
        let hole = Extent::lbas(14_000 + shift, 1);
        source.discard(hole.start(), hole.len_lbas()).expect("discarded");
        log.touch(hole, 0);
        if round < 3 {
            taken.push((take(array, Role::Source), log.cut()));
        }
    }
    (log, taken)
}

/// All diffs of snapshots whose epochs ended as given are exactly what the log says.
fn assert_diffs_exact(array: &QemuArray, log: &Log, taken: &[(usize, SnapshotUuid)]) {
    for (i, &(end, snapshot)) in taken.iter().enumerate() {
        assert_eq!(diff(array, snapshot, None), log.between(0, end), "from creation to {end}");
        for &(start, base) in &taken[..i] {
            let expected = log.between(start, end);
            assert_eq!(diff(array, snapshot, Some(base)), expected, "from {start} to {end}");
        }
    }
}

fn diffs_and_contents_are_exact(plane: DataPlane) {
    let Some(array) = start(small(plane)) else { return };
    let (log, taken) = three_rounds(&array);
    let ends: Vec<_> = taken.iter().enumerate().map(|(i, it)| (i + 1, it.0)).collect();
    assert_diffs_exact(&array, &log, &ends);
    for (snapshot, bytes) in &taken {
        assert!(contents(&array, *snapshot) == *bytes, "contents of a snapshot moved");
    }
    assert_eq!(diff(&array, take(&array, Role::Target), None), LbaSet::new());

    array.delete_snapshot(taken[1].0).expect("deleted");
    assert!(matches!(array.snapshot(taken[1].0), Err(ApiError::NotFound(_))));
    assert_diffs_exact(&array, &log, &[ends[0], ends[2]]);
    array.delete_snapshot(taken[0].0).expect("deleted");
    assert_diffs_exact(&array, &log, &ends[2..]);
    assert!(contents(&array, taken[2].0) == taken[2].1, "contents of a snapshot moved");

    // The newest goes: its bitmap is inherited by the one that records now.
    array.delete_snapshot(taken[2].0).expect("deleted");
    let last = take(&array, Role::Source);
    assert_diffs_exact(&array, &log, &[(4, last)]);
    assert!(contents(&array, last) == log.bytes, "contents differ from what was written");
}

#[test]
fn diffs_and_contents_are_exact_over_fuse_also_after_snapshots_were_deleted() {
    diffs_and_contents_are_exact(DataPlane::Fuse);
}

#[test]
fn diffs_and_contents_are_exact_over_nbd_also_after_snapshots_were_deleted() {
    diffs_and_contents_are_exact(DataPlane::Nbd);
}

#[test]
fn what_must_be_refused_is_refused() {
    let Some(array) = start(small(DataPlane::Nbd)) else { return };
    let (a, b) = (take(&array, Role::Source), take(&array, Role::Source));
    let foreign = take(&array, Role::Target);
    let zero = Lba::new(0);
    for (snapshot, base) in [(b, b), (a, b), (b, foreign), (foreign, a)] {
        let answer = array.diff_page(snapshot, Some(base), zero);
        assert!(matches!(answer, Err(ApiError::Refused(_))), "{answer:?}");
    }
    let past = array.diff_page(b, Some(a), Lba::new(LEN.get()));
    assert!(matches!(past, Err(ApiError::Refused(_))), "{past:?}");
    array.delete_snapshot(a).expect("deleted");
    for (snapshot, base) in [(b, Some(a)), (a, None)] {
        let answer = array.diff_page(snapshot, base, zero);
        assert!(matches!(answer, Err(ApiError::NotFound(_))), "{answer:?}");
    }
    assert!(matches!(array.delete_snapshot(a), Err(ApiError::NotFound(_))));
    let nobody = VolumeUuid::random();
    assert!(matches!(array.volume(nobody), Err(ApiError::NotFound(_))));
    let name = SnapshotName::new(RunId::from_u128(8), 1);
    assert!(matches!(array.create_snapshot(nobody, name), Err(ApiError::NotFound(_))));
    array.create_snapshot(uuid(&array, Role::Source), name).expect("a new name");
    let again = array.create_snapshot(uuid(&array, Role::Source), name);
    assert!(matches!(again, Err(ApiError::Conflict(_))), "{again:?}");
    assert_eq!(array.snapshots().expect("a list").len(), 3);
    let mut buf = [0; 8192];
    let past = array.read_snapshot(b, Lba::new(LEN.get() - 1), &mut buf);
    assert!(matches!(past, Err(ApiError::Refused(_))), "{past:?}");
}

#[test]
fn pages_can_be_walked_from_anywhere_and_in_turns() {
    let Some(array) = start(small(DataPlane::Nbd)) else { return };
    let source = device(&array, Role::Source);
    let base = take(&array, Role::Source);
    for chunk in 0..10 {
        write(source.as_ref(), Extent::lbas(chunk * 128 + 5, 1), 1);
    }
    let snapshot = take(&array, Role::Source);
    let page = |base, from| array.diff_page(snapshot, base, Lba::new(from)).expect("a page");
    let starts = |page: &crate::block::Page| {
        page.chunks.iter().map(|chunk| chunk.start.get()).collect::<Vec<_>>()
    };
    let first = page(Some(base), 0);
    assert_eq!((starts(&first), first.next), (vec![0, 128, 256], Some(Lba::new(384))));
    let other = page(None, 330);
    assert_eq!((starts(&other), other.next), (vec![384, 512, 640], Some(Lba::new(768))));
    // Another walk, another snapshot and a delete in between do not disturb this one.
    array.delete_snapshot(take(&array, Role::Source)).expect("deleted");
    let second = page(Some(base), 384 + 63);
    assert_eq!((starts(&second), second.next), (vec![384, 512, 640], Some(Lba::new(768))));
    let last = page(Some(base), 1152);
    assert_eq!((starts(&last), last.next), (vec![1152], None));
}

#[test]
fn a_bitmap_cleared_behind_the_adapters_back_loses_lbas() {
    let Some(array) = start(small(DataPlane::Nbd)) else { return };
    let source = device(&array, Role::Source);
    let base = take(&array, Role::Source);
    write(source.as_ref(), Extent::lbas(100, 10), 1);
    array.corrupt_bitmap(Role::Source).expect("cleared");
    write(source.as_ref(), Extent::lbas(200, 1), 2);
    let snapshot = take(&array, Role::Source);
    assert_eq!(diff(&array, snapshot, Some(base)), set(&[Extent::lbas(200, 1)]));
    assert_eq!(contents(&array, snapshot)[105], 1);
    assert!(array.corrupt_bitmap(Role::Clone).is_err());
    drop(source);
    drop(array);

    let config = QemuConfig { clear_bitmaps: true, ..small(DataPlane::Nbd) };
    let Some(array) = start(config) else { return };
    write(device(&array, Role::Source).as_ref(), Extent::lbas(100, 10), 1);
    write(device(&array, Role::Target).as_ref(), Extent::lbas(100, 10), 1);
    assert_eq!(diff(&array, take(&array, Role::Source), None), LbaSet::new());
    let target = diff(&array, take(&array, Role::Target), None);
    assert_eq!(target, set(&[Extent::lbas(100, 10)]));
}

/// LBAs that differ between neighbouring snapshots but are not in their diff, summed over `cuts`
/// snapshots taken while a thread writes.
fn missed_under_load(nonatomic: bool, cuts: u32) -> Option<u64> {
    let array = start(QemuConfig { nonatomic, page_limit: 128, ..small(DataPlane::Nbd) })?;
    let source = device(&array, Role::Source);
    let stop = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each pass writes every 7th LBA once, with a byte of its own.
            let lbas = (0..LEN.get()).step_by(7).cycle();
            for (number, lba) in (0u64..).zip(lbas) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let byte = u8::try_from(number / (LEN.get() / 7) % 250 + 1).expect("below 256");
                write(source.as_ref(), Extent::lbas(lba, 1), byte);
            }
        });
        let mut missed = 0;
        let mut base: Option<(SnapshotUuid, Vec<u8>)> = None;
        for _ in 0..cuts {
            std::thread::sleep(Duration::from_millis(20));
            let snapshot = take(&array, Role::Source);
            let now = contents(&array, snapshot);
            if let Some((base, before)) = base {
                let reported = diff(&array, snapshot, Some(base));
                let differs = (0u64..).zip(before.iter().zip(&now)).filter(|(_, (a, b))| a != b);
                missed += differs.filter(|(lba, _)| !reported.contains(Lba::new(*lba))).count();
                array.delete_snapshot(base).expect("deleted");
            }
            base = Some((snapshot, now));
        }
        stop.store(true, Ordering::Relaxed);
        missed
    });
    Some(missed as u64)
}

#[test]
fn cutting_under_load_misses_nothing_and_the_non_atomic_variant_does() {
    if let Some(missed) = missed_under_load(false, 8) {
        assert_eq!(missed, 0);
    }
    if let Some(missed) = missed_under_load(true, 8) {
        assert!(missed > 0, "the planted bug does nothing");
    }
}

#[test]
fn a_dropped_array_leaves_no_process_no_mount_and_no_directory() {
    for plane in [DataPlane::Fuse, DataPlane::Nbd] {
        let Some(array) = start(QemuConfig { neighbour: true, ..small(plane) }) else { continue };
        let (pid, dir) = (array.daemon_pid(), array.work_dir().to_owned());
        take(&array, Role::Source);
        let mounts = if plane == DataPlane::Fuse { 3 } else { 0 };
        assert_eq!(stale::mounts_below(&dir).len(), mounts);
        for role in [Role::Source, Role::Target, Role::Neighbour] {
            let Some(path) = array.device_path(role) else { continue };
            let name = path.file_name().and_then(|name| name.to_str()).expect("plain text");
            assert_eq!(name, format!("{role}-{}", uuid(&array, role)));
            let len = std::fs::metadata(path).expect("there").len();
            assert_eq!(len, LEN.get() * BLOCK);
        }
        // Even with a file still open: the mount must go all the same.
        let open = device(&array, Role::Source);
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(array);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the daemon runs on");
        assert_eq!(stale::mounts_below(&dir), Vec::<std::path::PathBuf>::new());
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert!(open.flush().is_err(), "a device outlived its array");
    }
}

#[test]
fn what_a_killed_run_leaves_is_found_and_taken_away() {
    let root = tempfile::tempdir().expect("a directory");
    let config = QemuConfig { work_root: root.path().to_owned(), ..small(DataPlane::Fuse) };
    let Some(array) = start(config) else { return };
    assert_eq!(leftovers(root.path()).expect("listed"), [], "a living run is no leftover");
    // The state a SIGKILL leaves: daemon and mounts live, the process in the name does not.
    let dir = array.work_dir().to_owned();
    let name = dir.file_name().and_then(|name| name.to_str()).expect("plain text");
    let parts: Vec<_> = name.split('-').collect();
    let dead = dir.with_file_name(format!("{}-{}-{}-1-x", parts[0], parts[1], parts[2]));
    std::fs::rename(&dir, &dead).expect("renamed");
    let found = stop_leftovers(root.path()).expect("removed");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].daemon_pid, Some(array.daemon_pid()));
    assert_eq!(found[0].mounts.len(), 2);
    assert!(!dead.exists());
    assert_eq!(stale::mounts_below(root.path()), Vec::<std::path::PathBuf>::new());
    let status = array.volume(uuid(&array, Role::Source));
    assert!(status.is_ok(), "what needs no daemon still answers");
    let name = SnapshotName::new(RunId::from_u128(9), 1);
    assert!(array.create_snapshot(uuid(&array, Role::Source), name).is_err(), "but nothing else");
}

#[test]
fn a_configuration_that_cannot_be_served_is_refused_in_words() {
    let long = tempfile::Builder::new().prefix(&"x".repeat(80)).tempdir().expect("a directory");
    let Some(array) = start(small(DataPlane::Nbd)) else { return };
    drop(array);
    for (config, word) in [
        (QemuConfig { size: LbaCount::ZERO, ..QemuConfig::default() }, "size"),
        (QemuConfig { page_limit: 0, ..QemuConfig::default() }, "page limit"),
        (QemuConfig { work_root: long.path().to_owned(), ..QemuConfig::default() }, "shorter"),
        (QemuConfig { work_root: "/nowhere".into(), ..QemuConfig::default() }, "/nowhere"),
        (QemuConfig { qemu_img: Some("/nowhere/q".into()), ..QemuConfig::default() }, "qemu-utils"),
    ] {
        let answer = QemuArray::start(config).map(|_| ());
        let text = answer.expect_err("cannot be served").to_string();
        assert!(text.contains(word), "{word} not in: {text}");
    }
}

#[test]
fn many_snapshots_alive_together_keep_their_contents() {
    let Some(array) = start(small(DataPlane::Fuse)) else { return };
    let source = device(&array, Role::Source);
    let mut taken = Vec::new();
    let mut log = Log::new();
    let began = Instant::now();
    for round in 1..=12u8 {
        let extent = Extent::lbas(u64::from(round) * 16, 64);
        write(source.as_ref(), extent, round);
        log.touch(extent, round);
        taken.push((take(&array, Role::Source), log.cut()));
    }
    // Generous: a snapshot takes a few milliseconds; a minute means that something hangs.
    assert!(began.elapsed() < Duration::from_secs(60));
    // Deleted from the middle outward, so that jobs end in another order than they began.
    for nth in [6, 5, 7, 0, 11] {
        let (gone, _) = &taken[nth];
        array.delete_snapshot(*gone).expect("deleted");
        write(source.as_ref(), Extent::lbas(500 + nth as u64, 1), 200);
    }
    for (nth, (snapshot, bytes)) in taken.iter().enumerate() {
        if ![6, 5, 7, 0, 11].contains(&nth) {
            assert!(contents(&array, *snapshot) == *bytes, "snapshot {nth} moved");
        }
    }
}

#[test]
fn sessions_opened_while_snapshots_are_cut_do_not_stall_the_daemon() {
    let Some(array) = start(small(DataPlane::Nbd)) else { return };
    let began = Instant::now();
    for round in 0..20u64 {
        // A device without sessions yet: each writer opens one, in the middle of the cut.
        let source = device(&array, Role::Source);
        let snapshot = std::thread::scope(|scope| {
            for writer in 0..3 {
                let source = source.as_ref();
                scope.spawn(move || write(source, Extent::lbas(round * 64 + writer, 1), 1));
            }
            take(&array, Role::Source)
        });
        array.delete_snapshot(snapshot).expect("deleted");
    }
    // The daemon gives no answer for 30 s if it stalls.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}
