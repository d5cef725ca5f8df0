//! I/O on a device that passed the guards: the handshake's first port and the armed device.
//!
//! With the second port (`super::stamping`) the only code of this crate that writes to a device.
//! Positioned I/O with O_DIRECT (callers bring
//! `crate::array::AlignedBuf`); short writes are handed back, a flush is never
//! repeated. Not covered: who may get here (`super::open`), what is written (`crate::engine`) and the
//! calls themselves (`super::medium`).

use super::guards::GuardRefusal;
use super::host::{Host, Node};
use super::medium::Medium;
use super::open::Identified;
use super::sysfs;
use crate::array::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Extent, Lba, LbaCount, LbaSet, VolumeUuid};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub(super) const BLOCK: BlockSize = BlockSize::DEVICE;

/// An exclusively opened device and the marks to know it by again.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) medium: Box<dyn Medium>,
    /// As the user gave it.
    pub(super) path: PathBuf,
    pub(super) host: Host,
    pub(super) node: Node,
    pub(super) size_bytes: u64,
    pub(super) disk_seq: Option<u64>,
    pub(super) wwid: Option<String>,
    /// Set once the device was seen to be another one; nothing is written after that.
    pub(super) changed: AtomicBool,
}

impl Opened {
    pub(super) fn len_lbas(&self) -> LbaCount {
        LbaCount::new(self.size_bytes / BLOCK.bytes())
    }

    /// What is different from when the device was identified, in words.
    fn difference(&self) -> Option<String> {
        match self.medium.size_bytes() {
            Ok(now) if now != self.size_bytes => {
                return Some(format!("it has {now} bytes, it had {}", self.size_bytes));
            }
            Ok(_) => {}
            Err(error) => return Some(format!("its size cannot be read ({error})")),
        }
        let Node::Block(dev) = self.node else { return None };
        match sysfs::disk(&self.host.sysfs, dev) {
            Err(error) => Some(format!("the kernel has no device {dev} any more ({error})")),
            Ok(now) if now.wwid != self.wwid => Some(format!(
                "it says it is {}, it said {}",
                now.wwid.as_deref().unwrap_or("nothing"),
                self.wwid.as_deref().unwrap_or("nothing")
            )),
            Ok(_) if self.disk_seq.is_some() && self.medium.disk_seq() != self.disk_seq => {
                Some("another disk took over its node (diskseq)".to_owned())
            }
            Ok(_) => None,
        }
    }

    /// An I/O error, after a look whether this still is the same device.
    fn failed(&self, op: &'static str, at: ByteOffset, error: io::Error) -> DeviceError {
        let source = match self.difference() {
            None => error,
            Some(difference) => {
                self.changed.store(true, Ordering::Relaxed);
                io::Error::other(format!(
                    "{error}; the device changed: {difference}. nothing more is written to it; \
                     check the connection and start again"
                ))
            }
        };
        DeviceError::Io { op, at, source }
    }

    /// Refuses to write to a device that was seen to be another one.
    fn still_ours(&self, op: &'static str, at: ByteOffset) -> Result<(), DeviceError> {
        if !self.changed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let source = io::Error::other("the device changed earlier in this run; start again");
        Err(DeviceError::Io { op, at, source })
    }

    pub(super) fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let here = ByteOffset::new(at.get().saturating_add(done as u64));
            match self.medium.read_some(here.get(), rest) {
                Ok(0) => return Err(DeviceError::Short { op: "read", at: here }),
                Ok(taken) => done += taken,
                Err(error) => return Err(self.failed("read", here, error)),
            }
        }
        Ok(())
    }

    pub(super) fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        self.still_ours("write", at)?;
        match self.medium.write_some(at.get(), buf) {
            Ok(0) => Err(DeviceError::Short { op: "write", at }),
            Ok(taken) => Ok(taken),
            Err(error) => Err(self.failed("write", at, error)),
        }
    }

    pub(super) fn flush(&self) -> Result<(), DeviceError> {
        self.medium.flush().map_err(|error| self.failed("flush", ByteOffset::new(0), error))
    }

    /// Zeroes or gives back a span by `call`, unless the device cannot.
    fn punch(
        &self,
        op: &'static str,
        span: Extent,
        call: impl FnOnce(u64, u64) -> io::Result<()>,
    ) -> Result<(), DeviceError> {
        let at = ByteOffset::new(span.start().get().saturating_mul(BLOCK.bytes()));
        self.still_ours(op, at)?;
        call(at.get(), span.len_lbas().bytes(BLOCK).get()).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => {
                    DeviceError::Unsupported(op)
                }
                _ => self.failed(op, at, error),
            }
        })
    }
}

pub(super) fn forbidden(op: &'static str, at: Lba, len: u64) -> DeviceError {
    DeviceError::Forbidden { op, at, len }
}

/// The LBAs that `len` bytes at `at` are; forbidden unless they are whole ones.
pub(super) fn whole_lbas(
    op: &'static str,
    at: ByteOffset,
    len: usize,
) -> Result<Extent, DeviceError> {
    let (first, bytes) = (Lba::new(at.get() / BLOCK.bytes()), len as u64);
    let count = LbaCount::new(bytes / BLOCK.bytes());
    let aligned = at.get().is_multiple_of(BLOCK.bytes()) && bytes.is_multiple_of(BLOCK.bytes());
    let extent = Extent::new(first, count).filter(|_| aligned);
    extent.ok_or_else(|| forbidden(op, first, bytes.div_ceil(BLOCK.bytes())))
}

/// Proof that the handshake took place and named this device. Only `campaign::arm` makes one.
#[derive(Debug)]
pub struct HandshakeProof {
    volume: VolumeUuid,
}

impl HandshakeProof {
    /// The proof for `device`; to be made by `campaign::arm` alone, after the handshake's answers
    /// were judged (`safety.md`).
    pub(crate) fn judged(device: &Identified) -> HandshakeProof {
        HandshakeProof { volume: device.volume() }
    }
}

/// The data plane of the handshake: it reads everywhere and writes back, at a few LBAs, the very
/// bytes it last read there. Whatever device is behind it keeps its contents.
#[derive(Debug)]
pub struct HandshakeDevice<'a> {
    opened: &'a Opened,
    allowed: LbaSet,
    /// What was last read, of the allowed LBAs.
    seen: Mutex<HashMap<Lba, Box<[u8]>>>,
}

impl<'a> HandshakeDevice<'a> {
    pub(super) fn new(opened: &'a Opened, allowed: LbaSet) -> HandshakeDevice<'a> {
        HandshakeDevice { opened, allowed, seen: Mutex::default() }
    }
}

impl BlockDevice for HandshakeDevice<'_> {
    fn block_size(&self) -> BlockSize {
        BLOCK
    }
    fn len_lbas(&self) -> LbaCount {
        self.opened.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.opened.read_at(at, buf)?;
        let Ok(extent) = whole_lbas("read", at, buf.len()) else { return Ok(()) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, lba) in buf.chunks_exact(BLOCK.get()).zip(extent.start().get()..) {
            if self.allowed.contains(Lba::new(lba)) {
                seen.insert(Lba::new(lba), block.into());
            }
        }
        Ok(())
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let extent = whole_lbas("write", at, buf.len())?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, lba) in buf.chunks_exact(BLOCK.get()).zip(extent.start().get()..) {
            let lba = Lba::new(lba);
            let same = seen.get(&lba).is_some_and(|read| **read == *block);
            if !same || !self.allowed.contains(lba) {
                return Err(forbidden("write of other bytes than were read", lba, 1));
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

/// A device proved to be the volume, idle and consented to: the only one with real writes.
///
/// Every write, zero and discard is checked against the allowed LBAs and the volume's end. Dropping
/// it gives up the exclusive open and the lock.
#[derive(Debug)]
pub struct Armed {
    opened: Opened,
    allowed: LbaSet,
}

impl Armed {
    /// Arms `opened`; see [`Identified::arm`].
    pub(super) fn new(
        opened: Opened,
        volume: VolumeUuid,
        proof: &HandshakeProof,
        allowed: LbaSet,
    ) -> Result<Armed, GuardRefusal> {
        let refused = |message| GuardRefusal { guard: "G12", message };
        let path = opened.path.display();
        if proof.volume != volume {
            return Err(refused(format!(
                "the handshake spoke for volume {}, {path} is opened as {volume}; start again",
                proof.volume
            )));
        }
        if let Some(difference) = opened.difference() {
            return Err(refused(format!(
                "{path} changed during the handshake: {difference}; start again"
            )));
        }
        Ok(Armed { opened, allowed })
    }

    /// Looks whether this still is the device that was armed: number, size, wwid, diskseq.
    ///
    /// # Errors
    /// When it is not; nothing is written from then on.
    pub fn recheck(&self) -> Result<(), DeviceError> {
        self.still_ours_after(self.opened.difference())
    }

    fn still_ours_after(&self, difference: Option<String>) -> Result<(), DeviceError> {
        let Some(difference) = difference else { return Ok(()) };
        self.opened.changed.store(true, Ordering::Relaxed);
        let source = io::Error::other(format!("the device changed: {difference}; start again"));
        Err(DeviceError::Io { op: "check of the device", at: ByteOffset::new(0), source })
    }

    /// The extent, if it may be written.
    fn allowed(&self, op: &'static str, at: Lba, len: LbaCount) -> Result<Extent, DeviceError> {
        let inside = |extent: &Extent| {
            extent.end().get() <= self.opened.len_lbas().get() && self.allowed.covers(*extent)
        };
        Extent::new(at, len).filter(inside).ok_or_else(|| forbidden(op, at, len.get()))
    }
}

impl BlockDevice for Armed {
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
        // A short write of an O_DIRECT device ends on a sector, so its rest may start inside an
        // LBA: what counts is that every LBA touched is allowed.
        let first = Lba::new(at.get() / BLOCK.bytes());
        let end = at.get().checked_add(buf.len() as u64).map(|end| end.div_ceil(BLOCK.bytes()));
        let touched = end.and_then(|end| Extent::between(first, Lba::new(end)));
        let extent = touched.ok_or_else(|| forbidden("write", first, 0))?;
        self.allowed("write", extent.start(), extent.len_lbas())?;
        self.opened.write_at(at, buf)
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        let span = self.allowed("write-zeroes", at, len)?;
        self.opened.punch("write-zeroes", span, |at, len| self.opened.medium.zero(at, len))
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        let span = self.allowed("discard", at, len)?;
        self.opened.punch("discard", span, |at, len| self.opened.medium.discard(at, len))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.opened.flush()
    }
    fn path(&self) -> Option<&Path> {
        Some(&self.opened.path)
    }
}
