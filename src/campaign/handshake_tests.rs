//! The handshake over random set-ups on the simulator: devices that are right, swapped, one volume
//! twice or others altogether, proved or not; an honest array, one that skips identical writes, one
//! with each planted bug; somebody else who writes meanwhile.
//!
//! `HANDSHAKES=10000 cargo test --lib random_set_ups` tries more than the usual 50. Not covered: the
//! guards before it (`crate::device`) and real devices (`super::arm`).

use super::arm::{ArmError, ArmedPair, Handshake};
use super::journal::{self, Journal};
use super::testing::reply;
use crate::array::{
    ApiError, Array, BlockDevice, Clock, DeviceError, SnapshotInfo, VirtualClock, VolumeInfo,
    Waiting,
};
use crate::block::{
    BlockSize, ByteOffset, Capabilities, ChunkBitmap, ChunkBits, Extent, Freedoms, Geometry, Lba,
    LbaCount, LbaSet, Page, Policy, Role, RunId, SnapshotName, SnapshotUuid, VolumeUuid,
};
use crate::device::testing::identified;
use crate::device::{Identified, Identity, Wanted};
use crate::engine::{Entropy, Ledger, Seeded};
use crate::model::Model;
use crate::sim::{Bug, SimArray, SimConfig, SimDevice};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const RUN: RunId = RunId::from_u128(0xabc);
const BLOCK: usize = 4096;
/// Source, target, and two that the run has nothing to do with.
const VOLUMES: usize = 4;

/// Which volume is behind the device said to be the source, and behind the other.
type Wiring = [usize; 2];
const RIGHT: Wiring = [0, 1];

/// One set-up.
#[derive(Clone, Debug)]
struct SetUp {
    seed: u64,
    wiring: Wiring,
    /// How far something else says that the devices are the volumes; nothing lies about it.
    identity: Identity,
    bug: Option<Bug>,
    freedoms: Freedoms,
    /// Writes of what is there already do not even reach the tracker.
    skips_identical: bool,
    /// Somebody else writes to the volumes behind the devices at every call with this remainder.
    writer: Option<u64>,
    /// This page of a diff is refused, or has a chunk that lies outside of the volume.
    breaks: Option<(u64, bool)>,
    policy: Policy,
    len: LbaCount,
}

impl SetUp {
    /// Set-up number `n`: each planted bug comes up in turn.
    fn draw(seed: u64, n: u64) -> SetUp {
        let mut draw = Seeded::new(seed, n);
        let wrong = [[1, 0], [0, 0], [1, 1], [2, 2], [0, 2], [2, 1], [2, 3], [1, 2]];
        let wiring = if draw.chance(1, 2) { RIGHT } else { draw.pick(&wrong) };
        // Nothing says of a wrong device that it is the right one: that is what a proof is.
        let proofs = [Identity::Undecided, Identity::Wwid, Identity::BackingName];
        let identity = if wiring == RIGHT { draw.pick(&proofs) } else { Identity::Undecided };
        let bugs = Bug::ALL.len() as u64;
        let bug = draw.chance(3, 5).then(|| Bug::ALL[usize::try_from(n % bugs).expect("few")]);
        let freedoms = Freedoms {
            seed: draw.word(),
            elide_same_content: draw.chance(1, 4),
            late_available: draw.chance(1, 4),
            slow_delete: draw.chance(1, 4),
            uneven_pages: draw.chance(1, 4),
            repeated_edges: draw.chance(1, 4),
            ..Freedoms::NONE
        };
        let more = draw.below(400);
        let lens = [640 + more, 4096, 50_000 + more, (1 << 33) + more];
        SetUp {
            seed: draw.word(),
            wiring,
            identity,
            bug,
            freedoms,
            skips_identical: draw.chance(1, 5),
            writer: draw.chance(1, 6).then(|| draw.below(24)),
            breaks: draw.chance(1, 8).then(|| (draw.below(20), draw.chance(1, 2))),
            policy: draw.pick(&[Policy::Exact, Policy::Exact, Policy::Chunk, Policy::ReportOnly]),
            len: LbaCount::new(draw.pick(&lens)),
        }
    }

    fn proved(&self) -> bool {
        self.identity != Identity::Undecided
    }
    /// Whether the array does nothing that is not legal, and nobody else is there.
    fn is_quiet(&self) -> bool {
        self.bug.is_none() && self.writer.is_none() && self.breaks.is_none()
    }
}

/// What happened on the array, in order.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Happened {
    Wrote(usize, Lba),
    Cut(usize, SnapshotUuid),
}

/// What is seen from outside of the handshake.
#[derive(Default)]
struct Seen {
    happened: Vec<Happened>,
    /// What each LBA held before anybody wrote it.
    before: BTreeMap<(usize, Lba), Vec<u8>>,
    /// What somebody else wrote, and whether the handshake wrote there too.
    foreign: BTreeMap<(usize, Lba), (Vec<u8>, bool)>,
    /// The diffs: what they reported, `None` if one was refused.
    diffs: Vec<((SnapshotUuid, SnapshotUuid), Option<LbaSet>)>,
    calls: u64,
    pages: u64,
}

/// The array with everything that happens on it written down.
#[derive(Clone)]
struct World {
    array: SimArray,
    volumes: [VolumeUuid; VOLUMES],
    set_up: Arc<SetUp>,
    seen: Arc<Mutex<Seen>>,
}

/// The device of one volume: what the handshake reads and writes.
struct Watched {
    world: World,
    volume: usize,
    device: SimDevice,
}

fn offset(lba: Lba) -> ByteOffset {
    ByteOffset::new(lba.get() * BLOCK as u64)
}

fn read(device: &dyn BlockDevice, lba: Lba) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    device.read_at(offset(lba), &mut block).expect("it reads");
    block
}

impl World {
    fn new(set_up: &SetUp) -> (World, Arc<VirtualClock>) {
        let clock = Arc::new(VirtualClock::new());
        let config = SimConfig {
            seed: set_up.seed,
            bugs: set_up.bug.into_iter().collect(),
            freedoms: set_up.freedoms,
            create_delay: Duration::from_millis(2),
            delete_delay: Duration::from_millis(2),
            page_limit: [3, 10_000][usize::from(set_up.seed.is_multiple_of(2))],
            ..SimConfig::default()
        };
        let array = SimArray::new(config, clock.clone());
        let names = ["source", "target", "third", "fourth"];
        let volumes = names.map(|name| array.create_volume(name, set_up.len, None).expect("made"));
        let seen = Arc::default();
        let world = World { array, volumes, set_up: Arc::new(set_up.clone()), seen };
        (world, clock)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }

    fn device(&self, volume: usize) -> SimDevice {
        self.array.device(self.volumes[volume]).expect("it is there")
    }

    fn volume(&self, uuid: VolumeUuid) -> usize {
        self.volumes.iter().position(|one| *one == uuid).expect("one of them")
    }

    /// What was there before: data, holes, snapshots, some of them gone, and a restart.
    fn grow_old(&self, clock: &VirtualClock) {
        let mut draw = Seeded::new(self.set_up.seed, 1);
        let len = self.set_up.len.get();
        for round in 0..draw.below(12) {
            let volume = usize::try_from(draw.below(VOLUMES as u64)).expect("few");
            let (device, at) = (self.device(volume), draw.below(len - 64));
            match draw.below(6) {
                0 => {
                    let name = format!("nightly-{round}");
                    let made = self.array.create_snapshot(self.volumes[volume], &name);
                    let made = made.expect("taken").uuid;
                    clock.sleep(Duration::from_secs(100));
                    // With a planted bug it may never be ready.
                    if draw.chance(1, 2) && self.array.delete_snapshot(made).is_ok() {
                        clock.sleep(Duration::from_secs(100));
                    }
                }
                1 => device.discard_bytes(at * BLOCK as u64, 64 * BLOCK as u64).expect("fine"),
                2 => self.array.restart(draw.chance(1, 2)),
                _ => {
                    let blocks = usize::try_from(1 + draw.below(64)).expect("few");
                    let bytes = u8::try_from(draw.below(256)).expect("a byte");
                    let at = at * BLOCK as u64;
                    device.write_bytes(at, &vec![bytes; blocks * BLOCK]).expect("fine");
                }
            }
        }
    }

    /// Somebody else writes, if this is the call for it.
    fn foreign_write(&self) {
        let call = {
            let mut seen = self.seen();
            seen.calls += 1;
            seen.calls
        };
        let Some(when) = self.set_up.writer.filter(|when| call % 24 == *when) else { return };
        let mut draw = Seeded::new(self.set_up.seed, 2 + call);
        let volume = draw.pick(&self.set_up.wiring);
        // Anywhere, or where the handshake has been.
        let been: Vec<Lba> = self.seen().before.keys().map(|(_, lba)| *lba).collect();
        let lba = match been.is_empty() || draw.chance(1, 2) {
            true => Lba::new(draw.below(self.set_up.len.get())),
            false => draw.pick(&been),
        };
        let block = vec![0x5a ^ u8::try_from(when).expect("small"); BLOCK];
        self.wrote(volume, lba, &block, true);
        self.device(volume).write_bytes(offset(lba).get(), &block).expect("fine");
    }

    /// The answer, unless it is this one's turn to be refused or to lie outside of the volume.
    fn broken(&self, answer: Result<Page, ApiError>) -> Result<Page, ApiError> {
        let mut seen = self.seen();
        seen.pages += 1;
        match self.set_up.breaks {
            Some((page, past_end)) if page + 1 == seen.pages => match past_end {
                false => Err(ApiError::Refused(reply("no such base"))),
                true => answer.map(|mut page| {
                    let start = Lba::new(self.set_up.len.get().next_multiple_of(64));
                    page.chunks.push(ChunkBits { start, bits: ChunkBitmap::from_bits(1) });
                    page
                }),
            },
            _ => answer,
        }
    }

    /// Writes down that a block is about to be written.
    fn wrote(&self, volume: usize, lba: Lba, block: &[u8], foreign: bool) {
        let old = read(&self.device(volume), lba);
        let mut seen = self.seen();
        seen.happened.push(Happened::Wrote(volume, lba));
        seen.before.entry((volume, lba)).or_insert(old);
        if foreign {
            seen.foreign.insert((volume, lba), (block.to_vec(), false));
        } else if let Some((_, ours_too)) = seen.foreign.get_mut(&(volume, lba)) {
            *ours_too = true;
        }
    }

    /// The device said to be the volume of that number, in front of the one that it is.
    fn wired(&self, said: usize) -> Identified {
        let volume = self.set_up.wiring[said];
        let device = Watched { world: self.clone(), volume, device: self.device(volume) };
        let wanted = Wanted {
            path: ["/dev/source", "/dev/target"][said].into(),
            volume: self.volumes[said],
            name: "vol".to_owned(),
            size_bytes: self.set_up.len.bytes(BlockSize::DEVICE).get(),
            sector_bytes: 4096,
            footprint: self.set_up.len,
            counterpart: Some(self.volumes[1 - said]),
        };
        identified(Box::new(device), self.set_up.identity, wanted)
    }
}

impl BlockDevice for Watched {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        self.device.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(at, buf)
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let mut now = vec![0; buf.len()];
        self.device.read_at(at, &mut now)?;
        let first = at.get() / BLOCK as u64;
        for ((lba, new), old) in (first..).zip(buf.chunks(BLOCK)).zip(now.chunks(BLOCK)) {
            if self.world.set_up.skips_identical && new == old {
                continue;
            }
            let lba = Lba::new(lba);
            self.world.wrote(self.volume, lba, new, false);
            assert_eq!(self.device.write_at(offset(lba), new)?, BLOCK, "whole blocks");
        }
        Ok(buf.len())
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        panic!("{len} LBAs at LBA {at} zeroed before anything is armed");
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        panic!("{len} LBAs at LBA {at} discarded before anything is armed");
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

impl Array for World {
    fn capabilities(&self) -> Capabilities {
        self.array.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        Array::volume(&self.array, volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        self.foreign_write();
        let made = Array::create_snapshot(&self.array, volume, name)?;
        self.seen().happened.push(Happened::Cut(self.volume(volume), made.uuid));
        Ok(made)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.foreign_write();
        Array::snapshot(&self.array, snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        Array::snapshots(&self.array)
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        Array::delete_snapshot(&self.array, snapshot)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        self.foreign_write();
        let answer = self.broken(self.array.diff_page(snapshot, base, from));
        let pair = (snapshot, base.expect("the handshake always has one"));
        let mut seen = self.seen();
        if seen.diffs.last().is_none_or(|(last, _)| *last != pair) {
            seen.diffs.push((pair, Some(LbaSet::new())));
        }
        let (_, set) = seen.diffs.last_mut().expect("it was pushed");
        match (&answer, set.as_mut()) {
            (Ok(page), Some(set)) => {
                page.chunks.iter().for_each(|chunk| set.insert_chunk(chunk.start, chunk.bits));
            }
            _ => *set = None,
        }
        answer
    }
}

impl Seen {
    /// Whether a diff that identity was read from was refused, or reported what nobody wrote.
    fn lied(&self, unit: LbaCount) -> bool {
        let cuts: Vec<SnapshotUuid> = self
            .happened
            .iter()
            .filter_map(|one| match one {
                Happened::Cut(_, snapshot) => Some(*snapshot),
                Happened::Wrote(..) => None,
            })
            .collect();
        // The first six are asked again in vain when a write was still on its way.
        let from = if cuts.len() >= 12 { 6 } else { 0 };
        self.diffs.iter().any(|((snapshot, base), reported)| {
            let at = cuts.iter().position(|cut| cut == snapshot).expect("made by the handshake");
            let written = self.written((*snapshot, *base)).rounded_out(unit);
            let right = reported.as_ref().is_some_and(|set| set.difference(&written).is_empty());
            at >= from && !right
        })
    }

    /// What was written to the volume of a snapshot between its base and it.
    fn written(&self, (snapshot, base): (SnapshotUuid, SnapshotUuid)) -> LbaSet {
        let at = |wanted| {
            let is = |one: &Happened| matches!(one, Happened::Cut(_, cut) if *cut == wanted);
            self.happened.iter().position(is).expect("made by the handshake")
        };
        let (from, to) = (at(base), at(snapshot));
        let Happened::Cut(volume, _) = self.happened[to] else { return LbaSet::new() };
        let lbas = self.happened[from..to].iter().filter_map(|one| match one {
            Happened::Wrote(of, lba) if *of == volume => Extent::new(*lba, LbaCount::new(1)),
            _ => None,
        });
        lbas.collect()
    }
}

/// What a handshake came to.
struct Outcome {
    armed: Result<ArmedPair, ArmError>,
    stamped: usize,
    world: World,
}

fn shake(set_up: &SetUp, folder: &Path) -> Outcome {
    let (world, clock) = World::new(set_up);
    world.grow_old(&clock);
    let path = folder.join("journal.jsonl");
    let journal = Journal::create(&path, RUN).expect("a journal");
    let shape = Geometry { block: BlockSize::DEVICE, len: set_up.len, fresh: false };
    let volumes = BTreeMap::from([(Role::Source, shape), (Role::Target, shape)]);
    let mut model = Model::new(RUN, &volumes, world.capabilities());
    let (ledger, stop) = (Ledger::new(RUN), AtomicBool::new(false));
    let patience = Duration::from_secs(180);
    let handshake = Handshake {
        array: &world,
        clock: &*clock,
        waiting: Waiting { available: patience, gone: patience, stop: &stop },
        ledger: &ledger,
        journal: &journal,
        watch: &|_| {},
        volumes,
    };
    let pair = (world.wired(0), world.wired(1));
    let allowed = Extent::new(Lba::new(0), set_up.len).expect("not empty");
    let armed = handshake.arm(pair, allowed, &mut model, set_up.policy);
    assert!(!stop.load(Ordering::Relaxed));
    drop(journal);
    let stamped = journal::read(&path).expect("readable").stamped.len();
    std::fs::remove_file(&path).expect("it was there");
    Outcome { armed, stamped, world }
}

impl Outcome {
    /// What it is called in the table.
    fn word(&self) -> &'static str {
        match &self.armed {
            Ok(pair) if pair.findings.is_empty() => "armed",
            Ok(_) => "armed, finding recorded",
            Err(ArmError::Refused(refusal)) if refusal.guard == "G13" => "refused, one volume",
            Err(ArmError::Refused(refusal)) if refusal.message.contains("swapped") => {
                "refused, swapped"
            }
            Err(ArmError::Refused(_)) => "refused, not identified",
            Err(ArmError::CouldNotTest(_)) => "could not be held",
            Err(_) => "old bytes not put back",
        }
    }

    /// Every byte is what it was, or what somebody else wrote since.
    fn check_contents(&self) {
        let seen = self.world.seen();
        // A medium that stores something else than it is given: that has to be said.
        let lies = self.world.set_up.bug == Some(Bug::ContentBitFlippedOnWrite);
        let said = lies && self.armed.is_err();
        for ((volume, lba), old) in &seen.before {
            let now = read(&self.world.device(*volume), *lba);
            match seen.foreign.get(&(*volume, *lba)) {
                None => assert!(now == *old || said, "LBA {lba} of volume {volume} changed"),
                // Which of two writers was last is not for the handshake to decide.
                Some((_, true)) => {}
                Some((theirs, false)) => {
                    assert!(now == *theirs || lies, "LBA {lba}: a write was lost")
                }
            }
        }
        let touched =
            seen.before.keys().any(|(volume, _)| !self.world.set_up.wiring.contains(volume));
        assert!(!touched, "a volume behind neither device was written");
    }

    fn check(&self) {
        let set_up = &*self.world.set_up;
        let unit = match set_up.policy {
            Policy::Exact => LbaCount::new(1),
            _ => LbaCount::new(64),
        };
        let lied = self.world.seen().lied(unit);
        match &self.armed {
            Ok(pair) => {
                assert_eq!(set_up.wiring, RIGHT, "armed wrongly");
                assert!(!lied || set_up.proved(), "armed by a diff that cannot be trusted");
                assert!(!lied || !pair.findings.is_empty(), "a lie went unrecorded");
                let honest = set_up.is_quiet() && !pair.findings.is_empty();
                assert!(!honest, "a false alarm: {:?}", pair.findings);
            }
            Err(ArmError::Refused(refusal)) => {
                assert!(!set_up.proved(), "proved, and refused all the same: {refusal}");
                let needless = set_up.is_quiet() && set_up.wiring == RIGHT;
                assert!(!needless, "right, honest, and refused all the same: {refusal}");
                // What is written over what it held may show for one of the devices only.
                let plain = set_up.is_quiet() && !set_up.freedoms.elide_same_content;
                let twice = plain && [[0, 0], [1, 1]].contains(&set_up.wiring);
                assert!(!twice || refusal.guard == "G13", "{refusal}");
                let swapped = plain && set_up.wiring == [1, 0];
                let command = "--source-device /dev/target --target-device /dev/source";
                assert!(!swapped || refusal.message.contains(command), "{refusal}");
            }
            // Reads that differ from each other or from what was written: no question of the diff.
            Err(error) => {
                let flips = set_up.bug == Some(Bug::ContentBitFlippedOnWrite);
                assert!(set_up.writer.is_some() || flips, "{error}");
            }
        }
        let put_back = !matches!(self.armed, Err(ArmError::NotRestored { .. }));
        assert_eq!(self.stamped == 0, put_back, "{} volumes hold stamps", self.stamped);
        self.check_contents();
    }
}

/// How many set-ups are tried.
fn wanted() -> u64 {
    std::env::var("HANDSHAKES").map_or(50, |number| number.parse().expect("HANDSHAKES: a number"))
}

#[test]
fn random_set_ups_are_never_armed_wrongly_and_keep_every_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = u64::from(std::process::id());
    let mut table: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for n in 0..wanted() {
        let set_up = SetUp::draw(seed, n);
        let judged = std::panic::catch_unwind(|| {
            let outcome = shake(&set_up, folder.path());
            outcome.check();
            outcome.word()
        });
        let word = judged.unwrap_or_else(|_| panic!("seed {seed}, set-up {n}: {set_up:?}"));
        let wiring = match set_up.wiring {
            RIGHT if set_up.proved() => "right, proved",
            RIGHT => "right",
            [1, 0] => "swapped",
            [one, two] if one == two => "one volume twice",
            _ => "another volume",
        };
        let array = match (set_up.bug, set_up.writer) {
            (_, Some(_)) => "somebody else writes",
            _ if set_up.breaks.is_some() => "a page is broken",
            (Some(_), None) => "planted bug",
            (None, None) => "honest",
        };
        *table.entry((wiring, array, word)).or_default() += 1;
    }
    // Whoever closed stderr does not want to know.
    let say = |line: String| drop(writeln!(std::io::stderr(), "{line}"));
    let number = wanted();
    say(format!("handshake: seed {seed}, {number} set-ups, armed wrongly 0, bytes changed 0"));
    for ((wiring, array, word), count) in table {
        say(format!("{count:>7}  {wiring:<17} {array:<21} {word}"));
    }
}
