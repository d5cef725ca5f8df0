use super::*;
use crate::array::VirtualClock;
use crate::block::{BitmapOrder, ByteOffset, LbaCount, RunId};
use crate::campaign::cleanup::Runs;
use crate::campaign::clone_cleanup::{delete_leftover, leftover_clones};
use crate::campaign::journal::{Journal, Journalled, read};
use crate::campaign::store::{JOURNAL, RunFolder};
use crate::lightbits::{ClientConfig, Fingerprint, LightbitsClient, Timeouts, TlsConfig, Token};
use crate::sim::server::{RunningServer, ServerConfig, start};
use crate::sim::{SimArray, SimConfig};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::UNIX_EPOCH;

const LEN: u64 = 100;

/// A simulator behind HTTPS, and a journal.
struct World {
    array: SimArray,
    source: VolumeUuid,
    client: LightbitsClient,
    journal: Journal,
    dir: tempfile::TempDir,
    _server: RunningServer,
}

fn world() -> World {
    let config = SimConfig { block: BlockSize::DEVICE, ..SimConfig::default() };
    let array = SimArray::new(config, Arc::new(VirtualClock::new()));
    let source = array.create_volume("vol-src", LbaCount::new(LEN), None).expect("made");
    let server = start(array.clone(), ServerConfig::default()).expect("a server");
    let client = LightbitsClient::connect(ClientConfig {
        endpoints: vec![server.endpoint()],
        project: "default".to_owned(),
        token: Token::from_text(&server.token).expect("a token"),
        tls: TlsConfig {
            ca_file: None,
            pins: vec![server.pin_sha256.parse::<Fingerprint>().expect("a pin")],
            insecure: false,
        },
        bitmap_order: BitmapOrder::Little,
        timeouts: Timeouts::default(),
        stop: Arc::default(),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::create(&path(&dir), RunId::from_u128(9)).expect("a journal");
    World { array, source, client: client.expect("a client"), journal, dir, _server: server }
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("journal.jsonl")
}

fn name(seq: u32) -> SnapshotName {
    SnapshotName::new(RunId::from_u128(9), seq)
}

impl World {
    fn write(&self, byte: u8) {
        let device = self.array.device(self.source).expect("a device");
        let bytes = vec![byte; BlockSize::DEVICE.get()];
        BlockDevice::write_at(&device, ByteOffset::new(0), &bytes).expect("written");
    }

    /// Calls `test` with a reader whose host gets a clone's device after `late` looks.
    fn with_reader(&self, late: u32, test: impl FnOnce(&CloneReader<'_>, &AtomicBool, &Ledger)) {
        let (clock, stop) = (VirtualClock::new(), AtomicBool::new(false));
        let ledger = Ledger::new(RunId::from_u128(9));
        let looks = AtomicU32::new(0);
        let open = |volume: VolumeUuid, bytes: u64| {
            if looks.fetch_add(1, Ordering::Relaxed) < late {
                return None;
            }
            assert_eq!(bytes, LEN * 4096);
            // The clone's data plane, as a host with its namespace would have it.
            let device: Device = Box::new(self.array.device(volume).expect("the clone is there"));
            Some(Ok(device))
        };
        let patience = Duration::from_secs(5);
        let waiting = Waiting { available: patience, gone: patience, stop: &stop };
        let array = Journalled::new(&self.client, &self.journal);
        let clones = JournalledClones::new(&self.client, &self.journal);
        let reader = CloneReader::new((&array, clones), &open, &ledger, (&clock, waiting));
        test(&reader, &stop, &ledger);
    }

    fn clones(&self) -> usize {
        self.array.volumes().iter().filter(|volume| volume.source_snapshot.is_some()).count()
    }
}

fn first(reader: &CloneReader<'_>, snapshot: SnapshotUuid) -> Result<u8, ApiError> {
    let mut bytes = vec![0; BlockSize::DEVICE.get()];
    reader.read_snapshot(snapshot, Lba::new(0), &mut bytes)?;
    assert!(bytes.iter().all(|&byte| byte == bytes[0]));
    Ok(bytes[0])
}

#[test]
fn a_snapshot_is_read_through_one_clone_which_goes_before_it() {
    let world = world();
    world.with_reader(3, |reader, _, ledger| {
        assert!(reader.capabilities().snapshot_readable);
        world.write(1);
        let old = reader.create_snapshot(world.source, ledger.next_name()).expect("taken").uuid;
        world.write(2);
        let new = reader.create_snapshot(world.source, ledger.next_name()).expect("taken").uuid;
        for _ in 0..2 {
            let both = (first(reader, old).expect("read"), first(reader, new).expect("read"));
            assert_eq!(both, (1, 2));
        }
        assert_eq!((world.clones(), world.journal.open_clones().len()), (2, 2));
        reader.delete_snapshot(old).expect("deleted");
        assert_eq!((world.clones(), world.journal.open_clones().len()), (1, 1));
        assert_eq!(first(reader, new).expect("read"), 2);
        reader.delete_snapshot(new).expect("deleted");
        assert_eq!((world.clones(), world.journal.open_clones().len()), (0, 0));
    });
    let records = read(&path(&world.dir)).expect("a journal");
    assert!(records.clones.is_empty(), "{records:?}");
}

#[test]
fn a_clone_without_device_is_said_and_deleted_all_the_same() {
    let world = world();
    world.with_reader(u32::MAX, |reader, stop, ledger| {
        let taken = reader.create_snapshot(world.source, ledger.next_name()).expect("taken").uuid;
        let error = first(reader, taken).expect_err("this host has no device").to_string();
        assert!(error.contains("no device with its wwid"), "{error}");
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(first(reader, taken), Err(ApiError::Interrupted)));
        assert_eq!(world.clones(), 1, "one clone a snapshot, however often it is tried");
        reader.delete_snapshot(taken).expect("deleted");
        assert_eq!(world.clones(), 0);
    });
}

#[test]
fn a_clone_that_a_killed_run_left_is_listed_and_deleted_and_nothing_else_is() {
    let world = world();
    let taken = world.client.create_snapshot(world.source, name(1)).expect("taken");
    let clones = JournalledClones::new(&world.client, &world.journal);
    let ours = clones.make_clone(&taken, name(2)).expect("made");
    // Somebody else's clone, and somebody else's volume with a name like ours.
    let theirs = world.array.clone_snapshot(taken.uuid, "nightly").expect("made");
    world.array.create_volume(&name(3).to_string(), LbaCount::new(9), None).expect("made");
    let alike = world.array.clone_snapshot(taken.uuid, &name(4).to_string()).expect("made");
    let records = read(&path(&world.dir)).expect("a journal");
    assert_eq!(records.clones.get(&name(2)), Some(&Some(ours.uuid)));

    let runs = Runs { root: world.dir.path(), own: None, delete_unknown: true };
    let found = leftover_clones(&world.client, runs).expect("a list");
    assert_eq!(
        found.iter().map(|left| (left.volume, left.name)).collect::<Vec<_>>(),
        [(ours.uuid, name(2)), (alike, name(4))]
    );
    let unsure = Runs { delete_unknown: false, ..runs };
    let kept = delete_leftover(&world.client, unsure, &found[0]).expect_err("it may go on");
    assert!(kept.contains("may go on elsewhere"), "{kept}");
    let lost = delete_leftover(&world.client, runs, &found[0]).expect_err("its name is not enough");
    assert!(lost.contains("no journal"), "{lost}");
    let folder = RunFolder::create(world.dir.path(), name(2).run(), UNIX_EPOCH).expect("a folder");
    std::fs::copy(path(&world.dir), folder.path().join(JOURNAL)).expect("the journal");
    drop(folder);
    delete_leftover(&world.client, runs, &found[0]).expect("deleted");
    let kept = delete_leftover(&world.client, runs, &found[1]).expect_err("not in the journal");
    assert!(kept.contains("no journal"), "{kept}");
    assert!(world.array.volume(ours.uuid).is_none());
    assert!(world.array.volume(theirs).is_some() && world.array.volume(alike).is_some());
}

#[test]
fn only_clones_of_this_run_with_their_own_name_are_deleted() {
    let world = world();
    let taken = world.client.create_snapshot(world.source, name(1)).expect("taken");
    let clones = JournalledClones::new(&world.client, &world.journal);
    let made = clones.make_clone(&taken, name(2)).expect("made");
    let again = clones.make_clone(&taken, name(2));
    assert!(matches!(again, Err(ApiError::Conflict(_))), "{again:?}");
    assert!(matches!(clones.delete_clone(made.uuid, name(3)), Err(ApiError::Journal(_))));
    let other = world.client.delete_clone(made.uuid, name(3));
    assert!(matches!(other, Err(ApiError::Conflict(_))), "{other:?}");
    let own = world.client.delete_clone(world.source, name(2));
    assert!(matches!(own, Err(ApiError::Conflict(_))), "no clone: {own:?}");
    assert!(world.array.volume(world.source).is_some());
    clones.delete_clone(made.uuid, name(2)).expect("deleted");
    world.client.delete_clone(made.uuid, name(2)).expect("gone already");
    assert_eq!(world.clones(), 0);
}
