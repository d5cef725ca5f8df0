//! The journal against crashes, torn lines and lost answers.

use super::*;
use crate::array::{VirtualClock, Waiting, delete_and_wait};
use crate::campaign::testing::TestArray;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

const VOLUME: VolumeUuid = VolumeUuid::from_u128(1);

fn run() -> RunId {
    RunId::from_u128(0xabc)
}

fn name(seq: u32) -> SnapshotName {
    SnapshotName::new(run(), seq)
}

fn started() -> (TempDir, PathBuf, Journal) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::create(&path, run()).expect("it can be made");
    (folder, path, journal)
}

fn delete(array: &dyn Array, snapshot: SnapshotUuid) -> Result<(), ApiError> {
    let stop = AtomicBool::new(false);
    let second = Duration::from_secs(1);
    let waiting = Waiting { available: second, gone: second, stop: &stop };
    delete_and_wait(array, &VirtualClock::new(), snapshot, waiting)
}

#[test]
fn crc32_is_the_one_of_ieee_802_3() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn every_life_of_a_snapshot_reads_back() {
    let (_folder, path, journal) = started();
    let array = TestArray::default();
    let kept = Journalled::new(&array, &journal);
    let one = kept.create_snapshot(VOLUME, name(1)).expect("made").uuid;
    let two = kept.create_snapshot(VOLUME, name(2)).expect("made").uuid;
    delete(&kept, one).expect("deleted");
    let records = read(&path).expect("readable");
    assert_eq!(records.run, Some(run()));
    assert_eq!(records.open, [OpenSnapshot { name: name(2), volume: VOLUME, uuid: Some(two) }]);
    assert!(!records.torn);
    assert_eq!(journal.open_snapshots(), [(two, name(2))]);
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(Journal::create(&path, run()).is_err(), "a journal is never written over");
}

#[test]
fn a_line_has_exactly_this_form() {
    let (_folder, path, journal) = started();
    journal.lock().append(&Entry::Intent { name: name(7), volume: VOLUME }).expect("written");
    let text = fs::read_to_string(path).expect("readable");
    let second = text.lines().nth(1).expect("a second line");
    assert_eq!(
        second,
        format!(
            "{{\"crc32\":{},\"entry\":{{\"intent\":{{\"name\":\"{}\",\"volume\":\"{VOLUME}\"}}}}}}",
            crc32(
                &serde_json::to_vec(&Entry::Intent { name: name(7), volume: VOLUME })
                    .expect("json")
            ),
            name(7)
        )
    );
}

#[test]
fn a_crash_after_the_intent_leaves_it_listed_without_identity() {
    let (_folder, path, journal) = started();
    let array = TestArray::default();
    array.inner().lose_create_reply = Some(|| ApiError::Failed("lost".into()));
    let kept = Journalled::new(&array, &journal);
    assert!(kept.create_snapshot(VOLUME, name(1)).is_err());
    let records = read(&path).expect("readable");
    assert_eq!(records.open, [OpenSnapshot { name: name(1), volume: VOLUME, uuid: None }]);
    // The snapshot is there; found by its name it can be deleted through the journal.
    let (uuid, _) = array.inner().snapshots.pop_first().expect("it was made");
    assert!(matches!(delete(&kept, uuid), Ok(())), "gone already is fine");
    let uuid = array.put(&name(1).to_string(), VOLUME);
    delete(&kept, uuid).expect("ours by name");
    assert!(array.names().is_empty());
}

#[test]
fn the_intent_is_on_disk_before_the_array_is_asked() {
    /// Reads the journal at the very moment of the call.
    struct Looks<'a>(&'a TestArray, &'a Path);
    impl Array for Looks<'_> {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
            self.0.volume(volume)
        }
        fn create_snapshot(
            &self,
            v: VolumeUuid,
            n: SnapshotName,
        ) -> Result<SnapshotInfo, ApiError> {
            let records = read(self.1).expect("readable");
            let last = records.open.last().expect("an intent");
            assert_eq!((last.name, last.volume, last.uuid), (n, v, None));
            self.0.create_snapshot(v, n)
        }
        fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
            self.0.snapshot(snapshot)
        }
        fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
            self.0.snapshots()
        }
        fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
            self.0.delete_snapshot(snapshot)
        }
        fn diff_page(
            &self,
            snapshot: SnapshotUuid,
            base: Option<SnapshotUuid>,
            from: Lba,
        ) -> Result<Page, ApiError> {
            self.0.diff_page(snapshot, base, from)
        }
    }
    let (_folder, path, journal) = started();
    let array = TestArray::default();
    let looks = Looks(&array, &path);
    Journalled::new(&looks, &journal).create_snapshot(VOLUME, name(1)).expect("made");
    assert_eq!(array.names(), [name(1).to_string()]);
}

#[test]
fn without_a_journal_the_array_is_not_asked() {
    let run = run();
    // Every write to /dev/full answers "no space left".
    let file = File::options().write(true).open("/dev/full").expect("Linux has it");
    let inner =
        Mutex::new(Inner { file, broken: None, open: BTreeMap::new(), clones: BTreeMap::new() });
    let journal = Journal { run, path: PathBuf::new(), inner };
    let array = TestArray::default();
    let kept = Journalled::new(&array, &journal);
    for _ in 0..2 {
        let answer = kept.create_snapshot(VOLUME, name(1));
        assert!(matches!(answer, Err(ApiError::Journal(_))), "{answer:?}");
    }
    assert!(array.inner().calls.is_empty());
}

#[test]
fn after_a_failed_write_nothing_is_appended() {
    let (_folder, path, journal) = started();
    journal.lock().broken = Some("no space".to_owned());
    let array = TestArray::default();
    let answer = Journalled::new(&array, &journal).create_snapshot(VOLUME, name(1));
    assert!(answer.is_err_and(|error| error.to_string().contains("no space")));
    assert!(read(&path).expect("readable").open.is_empty());
}

#[test]
fn a_snapshot_of_somebody_else_is_never_deleted_through_the_journal() {
    let (_folder, _path, journal) = started();
    let array = TestArray::default();
    let other = SnapshotName::new(RunId::from_u128(9), 1).to_string();
    let kept = Journalled::new(&array, &journal);
    for foreign in ["nightly", "tsync-0000000000000abc-1-x", &other] {
        let uuid = array.put(foreign, VOLUME);
        assert!(matches!(kept.delete_snapshot(uuid), Err(ApiError::Journal(_))), "{foreign}");
    }
    assert_eq!(array.inner().snapshots.len(), 3);
    assert!(array.inner().calls.iter().all(|call| !call.starts_with("delete")));
}

/// A journal of a few lives, and after each line what exists on the array at most.
fn sample() -> (Vec<u8>, Vec<BTreeSet<SnapshotName>>) {
    let uuid = |n: u128| SnapshotUuid::from_u128(n);
    let entries = [
        Entry::Run { v: 1, run: run(), pid: 1 },
        Entry::Intent { name: name(1), volume: VOLUME },
        Entry::Created { name: name(1), snapshot: uuid(1) },
        Entry::Intent { name: name(2), volume: VOLUME },
        Entry::Created { name: name(2), snapshot: uuid(2) },
        Entry::Deleted { snapshot: uuid(1) },
        Entry::Intent { name: name(3), volume: VOLUME },
    ];
    let mut bytes = Vec::new();
    let mut alive = BTreeSet::new();
    let mut after = vec![alive.clone()];
    for entry in &entries {
        bytes.extend(encode(entry).expect("json"));
        match entry {
            Entry::Intent { name, .. } => drop(alive.insert(*name)),
            Entry::Deleted { .. } => drop(alive.remove(&name(1))),
            _ => {}
        }
        after.push(alive.clone());
    }
    (bytes, after)
}

#[test]
fn every_prefix_of_a_journal_lists_every_snapshot_that_may_exist() {
    let (bytes, after) = sample();
    for len in 0..=bytes.len() {
        let prefix = &bytes[..len];
        let records = parse(prefix).expect("a prefix is what a crash leaves");
        let whole = prefix.iter().filter(|&&byte| byte == b'\n').count();
        let listed: BTreeSet<SnapshotName> = records.open.iter().map(|open| open.name).collect();
        assert_eq!(listed, after[whole], "prefix of {len} bytes");
        assert_eq!(records.torn, prefix.last().is_some_and(|&byte| byte != b'\n'));
    }
}

/// What the whole lines of a journal say may exist: names, and volumes with stamps on them. Reads
/// the JSON by hand.
fn may_exist(bytes: &[u8]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut uuids, mut stamped) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let text =
            |event: &str, field: &str| line["entry"][event][field].as_str().map(str::to_owned);
        names.extend(text("intent", "name"));
        uuids.extend(text("created", "snapshot").zip(text("created", "name")));
        if let Some(name) = text("deleted", "snapshot").and_then(|uuid| uuids.remove(&uuid)) {
            names.remove(&name);
        }
        stamped.extend(text("saved", "volume"));
        if let Some(volume) = text("restored", "volume") {
            stamped.remove(&volume);
        }
    }
    (names, stamped)
}

#[test]
fn a_journal_that_a_run_wrote_is_read_whatever_byte_it_is_cut_at() {
    let (_folder, path, journal) = started();
    let array = TestArray::default();
    let kept = Journalled::new(&array, &journal);
    let take = |seq| kept.create_snapshot(VOLUME, name(seq)).expect("made").uuid;
    let (one, _two) = (take(1), take(2));
    journal.save_blocks(saved(VOLUME)).expect("kept");
    delete(&kept, one).expect("deleted");
    array.inner().lose_create_reply = Some(|| ApiError::Failed("lost".into()));
    assert!(kept.create_snapshot(VOLUME, name(3)).is_err());
    array.inner().lose_create_reply = None;
    journal.blocks_restored(VOLUME).expect("noted");
    let (four, _five) = (take(4), take(5));
    delete(&kept, four).expect("deleted");
    drop(journal);
    let bytes = fs::read(&path).expect("readable");
    assert!(bytes.iter().filter(|&&byte| byte == b'\n').count() > 10);
    for len in 0..=bytes.len() {
        let cut = &bytes[..len];
        fs::write(&path, cut).expect("written");
        let records = read(&path).expect("a cut is what a crash leaves");
        let listed: BTreeSet<String> = records.open.iter().map(|o| o.name.to_string()).collect();
        let stamped: BTreeSet<String> =
            records.stamped.iter().map(|saved| saved.volume.to_string()).collect();
        assert_eq!((listed, stamped), may_exist(cut), "cut at byte {len}");
        assert_eq!(records.torn, cut.last().is_some_and(|&byte| byte != b'\n'));
    }
    let left: BTreeSet<String> = array.names().into_iter().collect();
    let (listed, stamped) = may_exist(&bytes);
    assert!(left.is_subset(&listed) && stamped.is_empty(), "{left:?} {listed:?}");
    assert_eq!(left.len(), 3, "the one whose answer was lost is there too");
}

#[test]
fn a_flipped_bit_is_damage_or_a_torn_last_line_and_never_believed() {
    let (bytes, _) = sample();
    let whole = parse(&bytes).expect("readable");
    let last_line = bytes[..bytes.len() - 1].iter().rposition(|&byte| byte == b'\n').expect("many");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match parse(&damaged) {
                Err(_) => {}
                Ok(records) => {
                    assert!(records.torn && at >= last_line, "byte {at} bit {bit}: {records:?}");
                    assert_ne!(records.open, whole.open);
                }
            }
        }
    }
}

#[test]
fn unknown_versions_events_and_fields_are_refused() {
    let good = encode(&Entry::Run { v: 1, run: run(), pid: 1 }).expect("json");
    let refused = |first: &[u8]| parse(&[first, &good].concat()).is_err();
    let run_again = encode(&Entry::Run { v: 2, run: run(), pid: 1 }).expect("json");
    assert!(refused(&run_again), "another version");
    assert!(refused(&good), "a second start");
    let made = Entry::Created { name: name(1), snapshot: SnapshotUuid::from_u128(1) };
    assert!(refused(&encode(&made).expect("json")), "made without intent");
    let text = String::from_utf8(good.clone()).expect("text");
    for (from, to) in [("\"pid\"", "\"x\":1,\"pid\""), ("\"run\":{", "\"ran\":{"), ("crc32", "crc")]
    {
        assert!(refused(text.replace(from, to).as_bytes()), "{from} -> {to}");
    }
}

fn saved(volume: VolumeUuid) -> Saved {
    let mut blocks = SavedBlocks::default();
    assert!(blocks.insert(Lba::new(300), &[7; 4096]));
    assert!(!blocks.insert(Lba::new(301), &[7; 512]), "not a whole block");
    Saved { volume, role: Role::Target, device: "/dev/nvme0n1".into(), blocks }
}

#[test]
fn saved_blocks_stay_listed_until_they_are_put_back() {
    let (_folder, path, journal) = started();
    let other = VolumeUuid::from_u128(2);
    journal.save_blocks(saved(VOLUME)).expect("kept");
    journal.save_blocks(saved(other)).expect("kept");
    assert_eq!(read(&path).expect("readable").stamped, [saved(VOLUME), saved(other)]);
    journal.blocks_restored(VOLUME).expect("noted");
    assert_eq!(read(&path).expect("readable").stamped, [saved(other)]);
    drop(journal);
    // A later `clean` notes it too, also behind a torn line.
    let mut bytes = fs::read(&path).expect("readable");
    bytes.extend_from_slice(b"{\"crc32\":1");
    fs::write(&path, bytes).expect("written");
    note_restored(&path, other).expect("noted");
    let records = read(&path).expect("readable");
    assert_eq!((records.stamped, records.torn), (Vec::new(), false));
}

#[test]
fn a_saved_block_of_another_length_is_not_believed() {
    let line = |blocks: &str| {
        let entry = format!(
            "{{\"saved\":{{\"volume\":\"{VOLUME}\",\"role\":\"source\",\"device\":\"/dev/x\",\"blocks\":{blocks}}}}}"
        );
        let text = format!("{{\"crc32\":{},\"entry\":{entry}}}", crc32(entry.as_bytes()));
        decode(text.as_bytes())
    };
    assert!(line("{}").is_ok());
    assert!(line("{\"3\":\"AAAA\"}").expect_err("three bytes").contains("one block long"));
    assert!(line("{\"3\":\"!\"}").is_err());
}

#[test]
fn what_is_no_plain_file_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo");
    // No child process is started for it: one that forks holds the locks of other tests for a moment.
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RWXU, 0).expect("made");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/zero", &link).expect("linked");
    for path in [fifo.as_path(), link.as_path(), Path::new("/dev/zero"), folder.path()] {
        assert!(matches!(read(path), Err(JournalError::Io { .. })), "{}", path.display());
    }
}
