//! The handshake on real loop devices (as root) against an array that compares contents, so that
//! it skips every identical write: what is stamped is put back, whatever happens.

use super::*;
use crate::array::{ApiError, SnapshotInfo, VirtualClock, VolumeInfo};
use crate::block::{BlockSize, Capabilities, ChunkBits, Page, RunId, SnapshotName, SnapshotUuid};
use crate::campaign::journal;
use crate::campaign::restore::{PutBack, StampedBlocks, put_back, stamped_blocks};
use crate::campaign::store::{JOURNAL, RunFolder, RunState};
use crate::campaign::testing::TestArray;
use crate::device::testing::{FakeSysfs, LoopDevice, tool};
use crate::device::{Consent, Host, Wanted, open_pair};
use crate::oracle::Kind;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

const MIB: u64 = 4;
const SOURCE: VolumeUuid = VolumeUuid::from_u128(0x2905_1d6a_0000_0000_0000_0000_0000_0001);
const TARGET: VolumeUuid = VolumeUuid::from_u128(0x04aa_8885_0000_0000_0000_0000_0000_0002);

/// What happens when the stamped contents are snapshotted or asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Honest,
    /// Every diff is empty, stamps or not.
    Silent,
    /// The diff leaves one stamp of the source out.
    LeavesOne,
    /// The diffs are refused by a broken array.
    Fails,
    /// The user says stop.
    Interrupts,
}

/// An array whose diffs compare the contents of its volumes, read from their devices.
struct Comparing<'a> {
    known: TestArray,
    devices: [(VolumeUuid, &'a Path); 2],
    contents: Mutex<BTreeMap<SnapshotUuid, Vec<u8>>>,
    then: Then,
    stop: AtomicBool,
    journal: &'a Path,
    /// Called before the n-th snapshot is taken.
    at_snapshot: &'a (dyn Fn(usize) + Sync),
}

impl Comparing<'_> {
    fn changed(&self, snapshot: SnapshotUuid, base: SnapshotUuid) -> LbaSet {
        let contents = self.contents.lock().expect("no panic");
        let pair = contents[&snapshot].chunks(4096).zip(contents[&base].chunks(4096));
        (0..).zip(pair).filter(|(_, (a, b))| a != b).map(|(lba, _)| Extent::lbas(lba, 1)).collect()
    }
}

impl Array for Comparing<'_> {
    fn capabilities(&self) -> Capabilities {
        self.known.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        self.known.volume(volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        let taken = self.contents.lock().expect("no panic").len();
        (self.at_snapshot)(taken);
        let info = self.known.create_snapshot(volume, name)?;
        let (_, device) = self.devices.iter().find(|(uuid, _)| *uuid == volume).expect("known");
        let bytes = std::fs::read(device).expect("it reads");
        self.contents.lock().expect("no panic").insert(info.uuid, bytes);
        Ok(info)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.known.snapshot(snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.known.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        self.known.delete_snapshot(snapshot)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        _from: Lba,
    ) -> Result<Page, ApiError> {
        let mut set = self.changed(snapshot, base.expect("the handshake always has one"));
        if !set.is_empty() {
            let kept = journal::read(self.journal).expect("a journal").stamped;
            assert_eq!(kept.len(), 2, "the old bytes are on disk before a stamp is");
            match self.then {
                Then::Honest => {}
                Then::Silent => set = LbaSet::new(),
                Then::LeavesOne => set = set.runs()[1..].iter().copied().collect(),
                Then::Fails => return Err(ApiError::Failed("broken".to_owned())),
                Then::Interrupts => self.stop.store(true, Ordering::Relaxed),
            }
        }
        let chunks: Vec<_> =
            set.chunks().into_iter().map(|(start, bits)| ChunkBits { start, bits }).collect();
        let ranges = u32::try_from(chunks.len()).expect("few");
        Ok(Page { chunks, ranges, next: None, notes: Vec::new() })
    }
}

/// Two loop devices and a folder for runs.
struct World {
    sysfs: FakeSysfs,
    devices: [LoopDevice; 2],
    root: tempfile::TempDir,
    folder: RunFolder,
}

/// What a handshake came to.
struct Outcome {
    armed: Result<ArmedPair, ArmError>,
    journal: journal::Records,
    model: Model,
}

fn run() -> RunId {
    RunId::from_u128(0xabc)
}

impl World {
    /// `None` where there are no loop devices.
    fn new(proved: bool) -> Option<World> {
        let devices = [LoopDevice::attach(MIB)?, LoopDevice::attach(MIB)?];
        let sysfs = FakeSysfs::new();
        for (name, volume, device) in
            [("nvme0n1", SOURCE, &devices[0]), ("nvme1n1", TARGET, &devices[1])]
        {
            let disk = sysfs.disk_of(name, device);
            if proved {
                disk.attribute("wwid", &crate::device::sysfs::wwid_of_volume(volume));
            }
        }
        let root = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::create(root.path(), run(), UNIX_EPOCH).expect("a folder");
        Some(World { sysfs, devices, root, folder })
    }

    fn host(&self) -> Host {
        self.sysfs.host()
    }

    fn hashes(&self) -> [String; 2] {
        [self.devices[0].hash(), self.devices[1].hash()]
    }

    /// The source behind the first device and the target behind the second, or the other way round.
    fn shake(&self, swapped: bool, then: Then, at_snapshot: &(dyn Fn(usize) + Sync)) -> Outcome {
        let paths = [self.devices[0].path(), self.devices[1].path()];
        let [one, two] = match swapped {
            false => paths,
            true => [paths[1], paths[0]],
        };
        let path = self.folder.path().join(JOURNAL);
        let journal = Journal::create(&path, run()).expect("a journal");
        let array = Comparing {
            known: TestArray::default(),
            devices: [(SOURCE, one), (TARGET, two)],
            contents: Mutex::default(),
            then,
            stop: AtomicBool::new(false),
            journal: &path,
            at_snapshot,
        };
        let tail = |volume: VolumeUuid| volume.to_string()[24..].parse().expect("a tail");
        let consent = Consent::new(vec![tail(SOURCE), tail(TARGET)]);
        let wanted = |path: &Path, volume, counterpart| Wanted {
            path: path.to_owned(),
            volume,
            name: "vol".to_owned(),
            size_bytes: MIB << 20,
            sector_bytes: 4096,
            footprint: LbaCount::mib(MIB),
            counterpart: Some(counterpart),
        };
        let (source, target) = (wanted(paths[0], SOURCE, TARGET), wanted(paths[1], TARGET, SOURCE));
        let opened = open_pair(&self.host(), source, target, &consent).expect("all guards pass");
        let shape = Geometry { block: BlockSize::DEVICE, len: LbaCount::mib(MIB), fresh: false };
        let volumes = BTreeMap::from([(Role::Source, shape), (Role::Target, shape)]);
        let mut model = Model::new(run(), &volumes, array.capabilities());
        let (clock, ledger) = (VirtualClock::new(), Ledger::new(run()));
        let second = Duration::from_secs(1);
        let waiting = Waiting { available: second, gone: second, stop: &array.stop };
        let handshake = Handshake {
            array: &array,
            clock: &clock,
            waiting,
            ledger: &ledger,
            journal: &journal,
            watch: &|_| {},
            volumes,
        };
        let armed = handshake.arm(opened, Extent::mib(0, MIB), &mut model, Policy::Exact);
        Outcome { armed, journal: journal::read(&path).expect("readable"), model }
    }
}

fn nothing(_: usize) {}

#[test]
fn a_device_that_nothing_identifies_is_armed_by_stamps_and_keeps_every_byte() {
    let Some(world) = World::new(false) else { return };
    let before = world.hashes();
    let outcome = world.shake(false, Then::Honest, &nothing);
    let armed = outcome.armed.expect("armed");
    assert!(armed.findings.is_empty() && armed.notes.is_empty(), "{armed:?}");
    drop(armed);
    assert_eq!(world.hashes(), before);
    assert_eq!(outcome.journal.stamped, []);
    // The model knows that the LBAs hold what they held, and that they were touched.
    for role in [Role::Source, Role::Target] {
        let known = outcome.model.known(role);
        let old = crate::model::Values::One(crate::model::Value::Old(role));
        assert!(!known.is_empty() && known.iter().all(|(_, values)| *values == old), "{known:?}");
    }
}

#[test]
fn swapped_devices_are_refused_with_the_right_command_and_keep_every_byte() {
    let Some(world) = World::new(false) else { return };
    let before = world.hashes();
    let outcome = world.shake(true, Then::Honest, &nothing);
    let [one, two] = [world.devices[0].path().display(), world.devices[1].path().display()];
    let refused = outcome.armed.expect_err("swapped").to_string();
    let command = format!("--source-device {two} --target-device {one}");
    assert!(refused.contains("G12") && refused.contains(&command), "{refused}");
    assert_eq!(world.hashes(), before);
    assert_eq!(outcome.journal.stamped, []);
}

#[test]
fn silence_about_stamps_is_missed_on_a_proved_device_and_a_refusal_on_another() {
    let Some(proved) = World::new(true) else { return };
    let before = proved.hashes();
    let armed = proved.shake(false, Then::Silent, &nothing).armed.expect("armed");
    let kinds: Vec<Kind> = armed.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::Missed, Kind::Missed]);
    drop(armed);
    assert_eq!(proved.hashes(), before);
    let Some(unproved) = World::new(false) else { return };
    let before = unproved.hashes();
    let outcome = unproved.shake(false, Then::Silent, &nothing);
    let refused = outcome.armed.expect_err("nothing proves it").to_string();
    assert!(refused.contains("cannot be trusted to identify"), "{refused}");
    assert_eq!(unproved.hashes(), before);
}

#[test]
fn a_stamp_that_is_left_out_is_missed() {
    let Some(world) = World::new(false) else { return };
    let armed = world.shake(false, Then::LeavesOne, &nothing).armed.expect("armed");
    assert!(!armed.findings.is_empty());
    assert!(armed.findings.iter().all(|found| found.kind == Kind::Missed), "{armed:?}");
}

#[test]
fn an_array_that_fails_and_a_user_who_stops_leave_every_byte() {
    for then in [Then::Fails, Then::Interrupts] {
        let Some(world) = World::new(false) else { return };
        let before = world.hashes();
        let outcome = world.shake(false, then, &nothing);
        assert!(outcome.armed.is_err(), "{then:?}");
        assert_eq!(world.hashes(), before, "{then:?}");
        assert_eq!(outcome.journal.stamped, [], "{then:?}");
    }
}

#[test]
fn a_run_that_dies_while_stamps_are_on_the_devices_is_cleaned_up_after() {
    let Some(world) = World::new(false) else { return };
    let before = world.hashes();
    // Six snapshots belong to the first phase, two lie before the stamps.
    let stamped = Mutex::new(false);
    let look = |snapshots: usize| {
        if snapshots == 8 {
            *stamped.lock().expect("no panic") = world.hashes() != before;
            panic!("the thread of the run dies");
        }
    };
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.shake(false, Then::Honest, &look)
    }));
    assert!(died.is_err());
    assert!(*stamped.lock().expect("no panic"), "the stamps were there");
    assert_ne!(world.hashes(), before, "nobody was left to put anything back");
    cleans_up(&world, &before);
}

/// What `clean` does after a killed run: every byte is back, and it is done once.
#[track_caller]
fn cleans_up(world: &World, before: &[String; 2]) {
    let list = || stamped_blocks(world.root.path(), &[]).expect("it lists").blocks;
    let left = list();
    assert_eq!(left.iter().map(|blocks| blocks.saved.volume).collect::<Vec<_>>(), [SOURCE, TARGET]);
    assert!(left.iter().all(|blocks| !blocks.saved.blocks.lbas().is_empty()));
    let put = |blocks: &StampedBlocks| {
        put_back(&world.host(), blocks, &info(blocks.saved.volume), &blocks.saved.device)
    };
    assert!(left[0].run_state == RunState::Alive, "the test holds the run's lock");
    assert!(put(&left[0]).expect_err("it goes on").contains("goes on"));
    for blocks in left {
        let ended = StampedBlocks { run_state: RunState::Ended, ..blocks };
        let other = &world.devices[usize::from(ended.saved.volume == SOURCE)];
        let wrong = put_back(&world.host(), &ended, &info(ended.saved.volume), other.path());
        assert!(wrong.expect_err("the other device").contains("no stamp of run"));
        let short = VolumeInfo { size_bytes: 4096, ..info(ended.saved.volume) };
        let guarded = put_back(&world.host(), &ended, &short, &ended.saved.device);
        assert!(guarded.expect_err("another size").contains("refused G10"));
        let all = ended.saved.blocks.lbas();
        assert_eq!(put(&ended), Ok(PutBack { restored: all, kept: LbaSet::new() }));
    }
    assert_eq!(world.hashes(), *before);
    assert_eq!(list(), []);
}

fn info(uuid: VolumeUuid) -> VolumeInfo {
    VolumeInfo {
        uuid,
        name: "vol".to_owned(),
        size_bytes: MIB << 20,
        sector_bytes: 4096,
        usable: true,
        writable: true,
        is_clone: false,
        clone_of: None,
    }
}

#[test]
fn blocks_of_the_newest_run_come_first() {
    let root = tempfile::tempdir().expect("a folder");
    for (run, second) in [(1, 5), (2, 9)] {
        let (run, when) = (RunId::from_u128(run), UNIX_EPOCH + Duration::from_secs(second));
        let folder = RunFolder::create(root.path(), run, when).expect("a folder");
        let journal = Journal::create(&folder.path().join(JOURNAL), run).expect("a journal");
        let blocks = SavedBlocks::default();
        let saved = Saved { volume: SOURCE, role: Role::Source, device: "/dev/x".into(), blocks };
        journal.save_blocks(saved).expect("kept");
    }
    let found = stamped_blocks(root.path(), &[]).expect("it lists").blocks;
    let runs: Vec<_> = found.iter().map(|blocks| (blocks.run, blocks.run_state)).collect();
    let ended = |run| (RunId::from_u128(run), RunState::Ended);
    assert_eq!(runs, [ended(2), ended(1)]);
    assert_eq!(stamped_blocks(root.path(), &[TARGET]).expect("it lists").blocks, []);
}

#[test]
fn blocks_that_cannot_be_put_back_are_named_and_can_be_later() {
    let Some(world) = World::new(true) else { return };
    let before = world.hashes();
    let path = world.devices[0].path();
    let set = |how: &str| tool("blockdev", &[how.as_ref(), path.as_os_str()]);
    if !set("--setrw") {
        return;
    }
    // The device turns read-only while the stamps are on it.
    let outcome = world.shake(false, Then::Honest, &|snapshots| {
        if snapshots == 8 {
            assert!(set("--setro"));
        }
    });
    let error = outcome.armed.expect_err("it cannot be written").to_string();
    let journal = world.folder.path().join(JOURNAL).display().to_string();
    for part in [&path.display().to_string(), "may hold stamps at LBA", &journal, "clean --yes"] {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
    let volumes: Vec<_> = outcome.journal.stamped.iter().map(|saved| saved.volume).collect();
    assert_eq!(volumes, [SOURCE], "the other one was put back");
    assert!(set("--setrw"));
    let mut left = stamped_blocks(world.root.path(), &[SOURCE]).expect("it lists").blocks;
    let blocks = StampedBlocks { run_state: RunState::Ended, ..left.remove(0) };
    // Somebody writes over one of the stamps meanwhile.
    let (lba, old) = blocks.saved.blocks.iter().next().expect("a block");
    write(path, lba, &[0x5a; 4096]);
    let put = put_back(&world.host(), &blocks, &info(SOURCE), path).expect("put back");
    assert_eq!(put.kept, LbaSet::from(Extent::lbas(lba.get(), 1)));
    assert_eq!(put.restored, blocks.saved.blocks.lbas().difference(&put.kept));
    write(path, lba, old);
    assert_eq!(world.hashes(), before);
    assert_eq!(stamped_blocks(world.root.path(), &[]).expect("it lists").blocks, []);
}

fn write(device: &Path, lba: Lba, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(device).expect("it opens");
    let at = lba.get() * 4096;
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).expect("it writes");
    file.sync_all().expect("it syncs");
}

#[test]
fn drawn_lbas_lie_apart_and_away_from_the_ends() {
    for _ in 0..200 {
        let (a, b) = draw(LbaCount::mib(2048), LbaCount::new(1)).expect("random numbers");
        assert_eq!((a.count().get(), b.count().get()), (8, 8));
        let chunks: BTreeSet<u64> = a.union(&b).chunks().iter().map(|(at, _)| at.get()).collect();
        assert_eq!(chunks.len(), 16);
        let (first, last) = (LbaCount::mib(65).get(), LbaCount::mib(2048 - 65).get());
        assert!(
            a.union(&b)
                .runs()
                .iter()
                .all(|run| run.start().get() >= first && run.end().get() <= last)
        );
    }
}

#[test]
fn what_is_read_in_one_piece_never_holds_lbas_of_both_volumes() {
    for len in (193..2200).step_by(7) {
        for unit in [1, 64, 100, len / 4].map(LbaCount::new) {
            let (a, b) = match draw(LbaCount::new(len), unit) {
                Ok(drawn) => drawn,
                Err(error) => {
                    let middle = len - 2 * (len / 3);
                    assert!(middle <= unit.get().max(CHUNK_LBAS), "{len} {unit}: {error}");
                    assert!(error.to_string().contains("larger"), "{error}");
                    continue;
                }
            };
            let whole = |set: &LbaSet| set.rounded_out(unit.max(LbaCount::new(CHUNK_LBAS)));
            assert!(!a.is_empty() && !b.is_empty());
            assert_eq!(whole(&a).intersection(&whole(&b)), LbaSet::new(), "{len} {unit}");
        }
    }
}
