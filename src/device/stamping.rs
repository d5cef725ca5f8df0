//! The handshake's second port: it puts stamped blocks on a few LBAs whose bytes were saved first,
//! and puts those bytes back.
//!
//! It is handed out only after the saved bytes were kept where a crash does not lose them, and
//! writes nothing else than stamps of one run and the saved bytes, each at its own LBA. Not covered:
//! where the bytes are kept (`crate::campaign::journal`).

use super::block::{BLOCK, Opened, forbidden, whole_lbas};
use crate::array::{AlignedBuf, BlockDevice, DeviceError};
use crate::block::{
    BlockSize, ByteOffset, Diagnosis, Extent, Lba, LbaCount, LbaSet, Role, RunId, Stamp, diagnose,
};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What some LBAs of a device held before anything was put over them: whole device blocks.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SavedBlocks {
    blocks: BTreeMap<Lba, Box<[u8]>>,
}

impl SavedBlocks {
    /// Adds the bytes of one LBA; `false`, and nothing added, unless it is one whole block.
    pub fn insert(&mut self, lba: Lba, bytes: &[u8]) -> bool {
        let whole = bytes.len() == BLOCK.get();
        if whole {
            self.blocks.insert(lba, bytes.into());
        }
        whole
    }
    /// The bytes by LBA, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Lba, &[u8])> {
        self.blocks.iter().map(|(lba, bytes)| (*lba, bytes.as_ref()))
    }
    /// The LBAs.
    pub fn lbas(&self) -> LbaSet {
        self.blocks.keys().filter_map(|lba| Extent::new(*lba, LbaCount::new(1))).collect()
    }
    /// Reads the LBAs of `at`, twice.
    pub(super) fn read(opened: &Opened, at: &LbaSet) -> Result<SavedBlocks, DeviceError> {
        let mut saved = SavedBlocks::default();
        let mut again = AlignedBuf::new(BLOCK.get());
        for lba in at.runs().iter().flat_map(|run| run.start().get()..run.end().get()) {
            let (first, lba) = (read_one(opened, Lba::new(lba))?, Lba::new(lba));
            opened.read_at(offset(lba), &mut again)?;
            if first[..] != again[..] {
                let source = io::Error::other("two reads differ: somebody else writes here");
                return Err(DeviceError::Io { op: "read", at: offset(lba), source });
            }
            saved.insert(lba, &first);
        }
        Ok(saved)
    }
}

fn offset(lba: Lba) -> ByteOffset {
    ByteOffset::new(lba.get().saturating_mul(BLOCK.bytes()))
}

fn read_one(opened: &Opened, lba: Lba) -> Result<AlignedBuf, DeviceError> {
    let mut buf = AlignedBuf::new(BLOCK.get());
    opened.read_at(offset(lba), &mut buf)?;
    Ok(buf)
}

/// The LBAs of [`SavedBlocks`] by what they hold now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Overwritten {
    /// The saved bytes.
    pub saved: LbaSet,
    /// A block that this run stamped, whole or torn.
    pub stamped: LbaSet,
    /// Something else: somebody wrote here since.
    pub other: LbaSet,
}

/// The data plane that stamps: at the LBAs whose bytes were saved it writes stamps of one run and
/// volume, or those very bytes; everything else is [`DeviceError::Forbidden`].
#[derive(Debug)]
pub struct StampDevice<'a> {
    opened: &'a Opened,
    owner: (RunId, Role),
    saved: SavedBlocks,
}

impl<'a> StampDevice<'a> {
    pub(super) fn new(
        opened: &'a Opened,
        owner: (RunId, Role),
        saved: SavedBlocks,
    ) -> StampDevice<'a> {
        StampDevice { opened, owner, saved }
    }

    fn diagnose(&self, lba: Lba, block: &[u8]) -> Diagnosis {
        let (run, volume) = self.owner;
        diagnose(block, &Stamp { run, volume, lba, generation: 0 })
    }

    /// Whether `block` is a whole stamp of this run and volume for `lba`.
    fn is_stamp(&self, lba: Lba, block: &[u8]) -> bool {
        matches!(self.diagnose(lba, block), Diagnosis::Right | Diagnosis::Stale { .. })
    }

    /// What the LBAs hold now.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn look(&self) -> Result<Overwritten, DeviceError> {
        let mut found = Overwritten::default();
        for (lba, bytes) in self.saved.iter() {
            let now = read_one(self.opened, lba)?;
            let torn = match self.diagnose(lba, &now) {
                Diagnosis::Torn { run_low, .. } => run_low == self.owner.0.low_u64(),
                _ => false,
            };
            let set = match now[..] == *bytes {
                true => &mut found.saved,
                false if torn || self.is_stamp(lba, &now) => &mut found.stamped,
                false => &mut found.other,
            };
            if let Some(at) = Extent::new(lba, LbaCount::new(1)) {
                set.insert(at);
            }
        }
        Ok(found)
    }

    /// Writes the saved bytes of `at` back, flushes, and reads them again. An LBA that fails keeps
    /// none of the others from being put back.
    ///
    /// # Errors
    /// The first failure; an LBA that reads back other bytes is one.
    pub fn restore(&self, at: &LbaSet) -> Result<(), DeviceError> {
        let wanted = || self.saved.iter().filter(|(lba, _)| at.contains(*lba));
        let mut first: Result<(), DeviceError> = Ok(());
        for (lba, bytes) in wanted() {
            first = first.and(self.put(lba, bytes));
        }
        first = first.and(self.opened.flush());
        for (lba, bytes) in wanted() {
            first = first.and(read_one(self.opened, lba).and_then(|now| match now[..] == *bytes {
                true => Ok(()),
                false => {
                    let source = io::Error::other("other bytes are read than were put back");
                    Err(DeviceError::Io { op: "read", at: offset(lba), source })
                }
            }));
        }
        first
    }

    /// Writes one block, continuing short writes.
    fn put(&self, lba: Lba, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut buf = AlignedBuf::new(bytes.len());
        buf.copy_from_slice(bytes);
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
            let here = ByteOffset::new(offset(lba).get().saturating_add(done as u64));
            done += self.opened.write_at(here, rest)?;
        }
        Ok(())
    }
}

impl BlockDevice for StampDevice<'_> {
    fn block_size(&self) -> BlockSize {
        BLOCK
    }
    fn len_lbas(&self) -> LbaCount {
        self.opened.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.opened.read_at(at, buf)
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let extent = whole_lbas("write", at, buf.len())?;
        for (block, lba) in buf.chunks_exact(BLOCK.get()).zip(extent.start().get()..) {
            let lba = Lba::new(lba);
            let saved = self.saved.blocks.get(&lba);
            let may = saved.is_some_and(|saved| **saved == *block || self.is_stamp(lba, block));
            if !may {
                return Err(forbidden("write of neither a stamp nor the saved bytes", lba, 1));
            }
        }
        self.opened.write_at(at, buf)
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        Err(forbidden("write-zeroes before arming", at, len.get()))
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        Err(forbidden("discard before arming", at, len.get()))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.opened.flush()
    }
    fn path(&self) -> Option<&Path> {
        Some(&self.opened.path)
    }
}
