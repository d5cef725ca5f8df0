//! The journal of one run: which snapshots and clones it was about to make, made, and saw gone; and
//! the bytes that the handshake was about to put stamps over.
//!
//! Append-only lines of JSON, each with its own CRC-32, mode 0600. The intent is on disk before
//! the array is asked, so that after any crash every snapshot of the run is either gone or listed
//! (`safety.md`, promise 2). [`Journalled`] keeps the journal around any [`Array`].
//! Not covered: snapshots whose journal was lost; [`super::cleanup`] finds those by their names.

use super::store::{create_private, open_plain, sync_folder};
use crate::array::{ApiError, Array, Clones, SnapshotInfo, SnapshotState, VolumeInfo};
use crate::block::{
    Capabilities, Lba, LbaCount, Page, Role, RunId, SnapshotName, SnapshotUuid, VolumeUuid,
};
use crate::device::SavedBlocks;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a journal that are read at most; a soak of months writes less.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// One thing worth remembering. Strict: an unknown field or event is an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// First line: whose journal this is.
    Run {
        /// Version of the format.
        v: u32,
        /// The run.
        #[serde(with = "as_text")]
        run: RunId,
        /// Its process.
        pid: u32,
    },
    /// The array is about to be asked for this snapshot.
    Intent {
        /// The name it will have.
        #[serde(with = "as_text")]
        name: SnapshotName,
        /// The volume it is taken of.
        volume: VolumeUuid,
    },
    /// The array answered.
    Created {
        /// The name.
        #[serde(with = "as_text")]
        name: SnapshotName,
        /// The identity the array gave it.
        snapshot: SnapshotUuid,
    },
    /// The array said that it is gone, after a look.
    Deleted {
        /// The identity.
        snapshot: SnapshotUuid,
    },
    /// The array is about to be asked for a clone, a volume.
    CloneIntent {
        /// The name it will have.
        #[serde(with = "as_text")]
        name: SnapshotName,
        /// The snapshot it is made of.
        snapshot: SnapshotUuid,
    },
    /// The array answered.
    Cloned {
        /// The name.
        #[serde(with = "as_text")]
        name: SnapshotName,
        /// The volume.
        volume: VolumeUuid,
    },
    /// The array said that the clone is gone, after a look.
    CloneGone {
        /// The volume.
        volume: VolumeUuid,
    },
    /// These blocks are about to be stamped; this is what they hold.
    Saved(Saved),
    /// They hold it again, or somebody else wrote there since.
    Restored {
        /// The volume.
        volume: VolumeUuid,
    },
}

/// Blocks of one volume before the handshake put stamps over them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The volume.
    pub volume: VolumeUuid,
    /// Its role in the run, which its stamps carry.
    pub role: Role,
    /// The device it was reached by, as the user gave it, but absolute.
    pub device: PathBuf,
    /// The bytes.
    #[serde(with = "as_blocks")]
    pub blocks: SavedBlocks,
}

/// The version of the format this code writes and reads.
const VERSION: u32 = 1;

/// Serde for types that have a text form only.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }
    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Serde for saved blocks: LBA and Base64 of the bytes.
mod as_blocks {
    use crate::block::Lba;
    use crate::device::SavedBlocks;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(blocks: &SavedBlocks, to: S) -> Result<S::Ok, S::Error> {
        let text: BTreeMap<u64, String> =
            blocks.iter().map(|(lba, bytes)| (lba.get(), STANDARD.encode(bytes))).collect();
        text.serialize(to)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SavedBlocks, D::Error> {
        let mut blocks = SavedBlocks::default();
        for (lba, text) in BTreeMap::<u64, String>::deserialize(from)? {
            let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
            if !blocks.insert(Lba::new(lba), &bytes) {
                return Err(de::Error::custom("a saved block is not one block long"));
            }
        }
        Ok(blocks)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// CRC-32 of the entry's JSON as this code writes it.
    crc32: u32,
    entry: Entry,
}

/// CRC-32 (IEEE 802.3), bit by bit: a journal line is short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let crc32 = crc32(&serde_json::to_vec(entry)?);
    let mut line = serde_json::to_vec(&Line { crc32, entry: entry.clone() })?;
    line.push(b'\n');
    Ok(line)
}

fn decode(line: &[u8]) -> Result<Entry, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let again = serde_json::to_vec(&line.entry).map_err(|error| error.to_string())?;
    if crc32(&again) == line.crc32 { Ok(line.entry) } else { Err("wrong checksum".to_owned()) }
}

/// A journal being written.
#[derive(Debug)]
pub struct Journal {
    run: RunId,
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// After a failed write the last line may be torn, so nothing may follow it.
    broken: Option<String>,
    /// Snapshots this run made and did not yet see gone.
    open: BTreeMap<SnapshotUuid, SnapshotName>,
    /// Clones likewise.
    clones: BTreeMap<VolumeUuid, SnapshotName>,
}

impl Journal {
    /// Starts the journal of `run` at `path`, which must not exist.
    ///
    /// # Errors
    /// When the file cannot be made durable.
    pub fn create(path: &Path, run: RunId) -> io::Result<Journal> {
        let file = create_private(path)?;
        let inner = Mutex::new(Inner {
            file,
            broken: None,
            open: BTreeMap::new(),
            clones: BTreeMap::new(),
        });
        let journal = Journal { run, path: path.to_owned(), inner };
        journal.lock().append(&Entry::Run { v: VERSION, run, pid: std::process::id() })?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(journal)
    }

    /// The run it belongs to.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what blocks hold that are about to be stamped; on disk when it returns.
    ///
    /// # Errors
    /// When it cannot be made durable: then nothing may be stamped.
    pub fn save_blocks(&self, saved: Saved) -> io::Result<()> {
        self.lock().append(&Entry::Saved(saved))
    }

    /// Notes that the saved blocks of `volume` hold their bytes again.
    ///
    /// # Errors
    /// When it cannot be written; then they stay listed, which is harmless.
    pub fn blocks_restored(&self, volume: VolumeUuid) -> io::Result<()> {
        self.lock().append(&Entry::Restored { volume })
    }

    /// Snapshots this run made and did not yet see gone.
    pub fn open_snapshots(&self) -> Vec<(SnapshotUuid, SnapshotName)> {
        self.lock().open.iter().map(|(uuid, name)| (*uuid, *name)).collect()
    }

    /// Clones this run made and did not yet see gone.
    pub fn open_clones(&self) -> Vec<(VolumeUuid, SnapshotName)> {
        self.lock().clones.iter().map(|(uuid, name)| (*uuid, *name)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Appends one line and waits until it is on disk.
    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(why) = &self.broken {
            return Err(io::Error::other(format!("the journal failed earlier: {why}")));
        }
        let line = encode(entry)?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.inspect_err(|error| self.broken = Some(error.to_string()))
    }
}

/// A snapshot that a journal knows of and that it did not see gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// The volume it was taken of.
    pub volume: VolumeUuid,
    /// Its identity; `None` if the run died before the array answered, so that it may not exist.
    pub uuid: Option<SnapshotUuid>,
}

/// What a journal says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Records {
    /// Whose journal it is; `None` if the run died before its first line was whole.
    pub run: Option<RunId>,
    /// Snapshots that may still exist, in the order they were asked for.
    pub open: Vec<OpenSnapshot>,
    /// Everything it ever meant to make: the names, and the identity where the array told one.
    pub named: BTreeMap<(SnapshotName, VolumeUuid), Option<SnapshotUuid>>,
    /// Clones that may still exist, with their volume where the array told it.
    pub clones: BTreeMap<SnapshotName, Option<VolumeUuid>>,
    /// Blocks that were about to be stamped and are not known to be put back.
    pub stamped: Vec<Saved>,
    /// Whether the last line was torn, and left out.
    pub torn: bool,
}

/// A journal that cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// A line that is not the last one is damaged.
    #[error(
        "{path}: line {line} is damaged ({why}); snapshots are still found by their names, with \
         `lbaudit clean`"
    )]
    Damaged {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a journal. A torn last line is what a crash leaves, and is ignored.
///
/// # Errors
/// When the file cannot be read, or any other line is damaged.
pub fn read(path: &Path) -> Result<Records, JournalError> {
    let shown = || path.display().to_string();
    let bytes = read_file(path).map_err(|source| JournalError::Io { path: shown(), source })?;
    parse(&bytes).map_err(|(line, why)| JournalError::Damaged { path: shown(), line, why })
}

/// The bytes of what must be a plain file of bounded size: what else bears the name could keep a
/// reader waiting, or lead it elsewhere.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_plain(path)?;
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {} MiB", JOURNAL_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

/// Reads a journal's bytes; the error is the number of a damaged line and what is wrong with it.
///
/// # Errors
/// When a line before the last is damaged.
pub fn parse(bytes: &[u8]) -> Result<Records, (usize, String)> {
    let mut records = Records::default();
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        // Without its line end the CRC may fit and the line may still not have been synced.
        let entry = match line.strip_suffix(b"\n") {
            Some(whole) => decode(whole),
            None => Err("no line end".to_owned()),
        };
        match entry {
            Ok(entry) => records.add(entry).map_err(|why| (number, why))?,
            Err(_) if lines.peek().is_none() => records.torn = true,
            Err(why) => return Err((number, why)),
        }
    }
    Ok(records)
}

/// Notes in the journal of a run that has ended that nothing of its stamps is left on `volume`.
///
/// # Errors
/// When the journal cannot be read or written.
pub fn note_restored(path: &Path, volume: VolumeUuid) -> io::Result<()> {
    let bytes = read_file(path)?;
    let torn = parse(&bytes).map_err(|(_, why)| io::Error::other(why))?.torn;
    let mut file = File::options().append(true).open(path)?;
    if torn {
        // What a crash left of the last line says nothing, and nothing may follow it.
        let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let end = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at as u64 + 1);
        file.set_len(end)?;
    }
    file.write_all(&encode(&Entry::Restored { volume })?)?;
    file.sync_data()
}

impl Records {
    /// Whether the run meant to make this snapshot: its name, of this volume, and of this identity
    /// if the array told one.
    pub fn names(&self, name: SnapshotName, volume: VolumeUuid, snapshot: SnapshotUuid) -> bool {
        self.named.get(&(name, volume)).is_some_and(|told| told.is_none_or(|uuid| uuid == snapshot))
    }

    fn add(&mut self, entry: Entry) -> Result<(), String> {
        match entry {
            Entry::Run { v, .. } if v != VERSION => return Err(format!("unknown version {v}")),
            Entry::Run { .. } if self.run.is_some() => return Err("a second start".to_owned()),
            Entry::Run { run, .. } => self.run = Some(run),
            Entry::Intent { name, volume } => {
                self.open.push(OpenSnapshot { name, volume, uuid: None });
                self.named.insert((name, volume), None);
            }
            Entry::Created { name, snapshot } => {
                let open = self.open.iter_mut().rfind(|open| open.name == name);
                let open = open.ok_or_else(|| format!("{name} was made without intent"))?;
                open.uuid = Some(snapshot);
                self.named.insert((name, open.volume), Some(snapshot));
            }
            Entry::Deleted { snapshot } => self.open.retain(|open| open.uuid != Some(snapshot)),
            Entry::CloneIntent { name, .. } => drop(self.clones.insert(name, None)),
            Entry::Cloned { name, volume } => {
                let known = self.clones.get_mut(&name);
                *known.ok_or_else(|| format!("{name} was cloned without intent"))? = Some(volume);
            }
            Entry::CloneGone { volume } => self.clones.retain(|_, open| *open != Some(volume)),
            Entry::Saved(saved) => self.stamped.push(saved),
            Entry::Restored { volume } => self.stamped.retain(|saved| saved.volume != volume),
        }
        Ok(())
    }
}

/// An array with a journal around the life of its snapshots. Everything else goes straight through.
///
/// The intent is durable before the array is asked; if it cannot be, the array is not asked
/// ([`ApiError::Journal`]). Only snapshots made through it are deleted through it.
pub struct Journalled<'a> {
    array: &'a dyn Array,
    journal: &'a Journal,
}

impl<'a> Journalled<'a> {
    /// Keeps `journal` around `array`.
    pub fn new(array: &'a dyn Array, journal: &'a Journal) -> Journalled<'a> {
        Journalled { array, journal }
    }

    fn is_ours(&self, info: &SnapshotInfo) -> bool {
        info.name.parse().is_ok_and(|name: SnapshotName| name.run() == self.journal.run)
    }

    /// Notes that `snapshot` is gone, once, if it is one of ours.
    fn saw_gone(&self, snapshot: SnapshotUuid) {
        let mut journal = self.journal.lock();
        if journal.open.remove(&snapshot).is_some() {
            // If this fails the snapshot stays listed, which is harmless, and the next intent
            // fails loudly.
            let _ = journal.append(&Entry::Deleted { snapshot });
        }
    }
}

impl Array for Journalled<'_> {
    fn capabilities(&self) -> Capabilities {
        self.array.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        self.array.volume(volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        let intent = self.journal.lock().append(&Entry::Intent { name, volume });
        intent.map_err(|error| ApiError::Journal(error.to_string()))?;
        let made = self.array.create_snapshot(volume, name)?;
        let mut journal = self.journal.lock();
        journal.open.insert(made.uuid, name);
        // The intent is on disk, so a failure loses nothing: the snapshot is listed by its name.
        // The next intent fails loudly.
        let _ = journal.append(&Entry::Created { name, snapshot: made.uuid });
        Ok(made)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        let answer = self.array.snapshot(snapshot);
        match &answer {
            Err(ApiError::NotFound(_)) => self.saw_gone(snapshot),
            Ok(info) if info.state == SnapshotState::Deleted => self.saw_gone(snapshot),
            _ => {}
        }
        answer
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.array.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        let known = self.journal.lock().open.contains_key(&snapshot);
        // Not known: gone already, or made by a call whose answer was lost. Its name tells.
        if !known && !self.is_ours(&self.array.snapshot(snapshot)?) {
            return Err(ApiError::Journal(format!(
                "snapshot {snapshot} was not made by this run; `lbaudit clean` handles others"
            )));
        }
        self.array.delete_snapshot(snapshot)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        self.array.diff_page(snapshot, base, from)
    }
    fn read_snapshot(
        &self,
        snapshot: SnapshotUuid,
        at: Lba,
        buf: &mut [u8],
    ) -> Result<(), ApiError> {
        self.array.read_snapshot(snapshot, at, buf)
    }
    fn rollback(&self, volume: VolumeUuid, to: SnapshotUuid) -> Result<(), ApiError> {
        self.array.rollback(volume, to)
    }
    fn resize(&self, volume: VolumeUuid, len: LbaCount) -> Result<(), ApiError> {
        self.array.resize(volume, len)
    }
    fn restart(&self, clean: bool) -> Result<(), ApiError> {
        self.array.restart(clean)
    }
    fn clone_snapshot(&self, snapshot: SnapshotUuid) -> Result<VolumeUuid, ApiError> {
        self.array.clone_snapshot(snapshot)
    }
    fn create_volume(
        &self,
        len: LbaCount,
        uuid: Option<VolumeUuid>,
    ) -> Result<VolumeUuid, ApiError> {
        self.array.create_volume(len, uuid)
    }
    fn delete_volume(&self, volume: VolumeUuid) -> Result<(), ApiError> {
        self.array.delete_volume(volume)
    }
}

/// Clones with a journal around their life. Only clones made through it are deleted through it.
pub struct JournalledClones<'a> {
    clones: &'a dyn Clones,
    journal: &'a Journal,
}

impl<'a> JournalledClones<'a> {
    /// Keeps `journal` around `clones`.
    pub fn new(clones: &'a dyn Clones, journal: &'a Journal) -> JournalledClones<'a> {
        JournalledClones { clones, journal }
    }

    /// Notes that a clone is gone, once.
    pub fn saw_gone(&self, volume: VolumeUuid) {
        let mut journal = self.journal.lock();
        if journal.clones.remove(&volume).is_some() {
            // If this fails the clone stays listed, which is harmless.
            let _ = journal.append(&Entry::CloneGone { volume });
        }
    }
}

impl Clones for JournalledClones<'_> {
    fn make_clone(&self, of: &SnapshotInfo, name: SnapshotName) -> Result<VolumeInfo, ApiError> {
        let intent = Entry::CloneIntent { name, snapshot: of.uuid };
        let intent = self.journal.lock().append(&intent);
        intent.map_err(|error| ApiError::Journal(error.to_string()))?;
        let made = self.clones.make_clone(of, name)?;
        let mut journal = self.journal.lock();
        journal.clones.insert(made.uuid, name);
        // As with snapshots: the intent is on disk, so a failure loses nothing.
        let _ = journal.append(&Entry::Cloned { name, volume: made.uuid });
        Ok(made)
    }
    fn clones(&self) -> Result<Vec<VolumeInfo>, ApiError> {
        self.clones.clones()
    }
    fn delete_clone(&self, volume: VolumeUuid, name: SnapshotName) -> Result<(), ApiError> {
        let known = self.journal.lock().clones.get(&volume) == Some(&name);
        if !known {
            return Err(ApiError::Journal(format!(
                "clone {volume} was not made by this run; `lbaudit clean` handles others"
            )));
        }
        self.clones.delete_clone(volume, name)
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
