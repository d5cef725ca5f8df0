//! Moving bytes of one operation to a device, in pieces, with short writes continued. Not covered:
//! which operation it was and whether it may be done.

use crate::array::{AlignedBuf, BlockDevice, DeviceError};
use crate::block::{ByteOffset, Extent, Lba, LbaCount, Role, RunId, Stamp, stamp_block};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// LBAs of one request: 1 MiB on devices.
const REQUEST_LBAS: LbaCount = LbaCount::new(256);

/// Calls `piece` for each stretch of `at` with a buffer of its size and its byte offset.
pub(super) fn in_pieces(
    device: &dyn BlockDevice,
    at: Extent,
    op: &'static str,
    stop: &AtomicBool,
    mut piece: impl FnMut(Lba, ByteOffset, &mut [u8]) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let block = device.block_size();
    let mut buf = AlignedBuf::new(
        block.get() * usize::try_from(REQUEST_LBAS.min(at.len_lbas()).get()).unwrap_or(1),
    );
    for part in at.pieces(REQUEST_LBAS) {
        if stop.load(Ordering::Relaxed) {
            return Err(DeviceError::Interrupted);
        }
        let outside =
            || DeviceError::Forbidden { op, at: part.start(), len: part.len_lbas().get() };
        let start = part.start().byte_offset(block).ok_or_else(outside)?;
        let len = usize::try_from(part.len_lbas().bytes(block).get()).map_err(|_| outside())?;
        piece(part.start(), start, buf.get_mut(..len).ok_or_else(outside)?)?;
    }
    Ok(())
}

/// Writes all of `buf`, continuing short writes.
fn write_all(device: &dyn BlockDevice, at: ByteOffset, buf: &[u8]) -> Result<(), DeviceError> {
    let mut done = 0;
    while done < buf.len() {
        let here = ByteOffset::new(at.get() + done as u64);
        match device.write_at(here, &buf[done..])? {
            0 => return Err(DeviceError::Short { op: "write", at: here }),
            taken => done += taken,
        }
    }
    Ok(())
}

/// Writes stamped blocks over `at`.
pub(super) fn write_stamped(
    device: &dyn BlockDevice,
    at: Extent,
    (run, volume, generation): (RunId, Role, u64),
    stop: &AtomicBool,
) -> Result<(), DeviceError> {
    if !device.keeps_contents() {
        return write_anything(device, at);
    }
    let block = device.block_size().get();
    in_pieces(device, at, "write", stop, |first, start, buf| {
        for (bytes, lba) in buf.chunks_exact_mut(block).zip(first.get()..) {
            stamp_block(&Stamp { run, volume, lba: Lba::new(lba), generation }, bytes);
        }
        write_all(device, start, buf)
    })
}

/// Writes over `at` where nobody keeps what is written.
fn write_anything(device: &dyn BlockDevice, at: Extent) -> Result<(), DeviceError> {
    static BYTES: [u8; 4096] = [0; 4096];
    let block = device.block_size();
    let most = LbaCount::new((BYTES.len() / block.get()).max(1) as u64);
    for part in at.pieces(most) {
        let outside =
            || DeviceError::Forbidden { op: "write", at: part.start(), len: part.len_lbas().get() };
        let start = part.start().byte_offset(block).ok_or_else(outside)?;
        let len = usize::try_from(part.len_lbas().bytes(block).get()).map_err(|_| outside())?;
        write_all(device, start, BYTES.get(..len).ok_or_else(outside)?)?;
    }
    Ok(())
}

/// Writes zero bytes over `at`.
pub(super) fn write_zeros(
    device: &dyn BlockDevice,
    at: Extent,
    stop: &AtomicBool,
) -> Result<(), DeviceError> {
    if !device.keeps_contents() {
        return write_anything(device, at);
    }
    in_pieces(device, at, "write", stop, |_, start, buf| write_all(device, start, buf))
}

/// Reads `at` twice and, if both reads agree, writes the very same bytes back and reads them again.
///
/// # Errors
/// Whatever the device answers, and an error when two reads differ: somebody else is writing.
pub(super) fn rewrite(
    device: &dyn BlockDevice,
    at: Extent,
    stop: &AtomicBool,
) -> Result<(), DeviceError> {
    if !device.keeps_contents() {
        return write_anything(device, at);
    }
    let most = REQUEST_LBAS.min(at.len_lbas());
    let mut again =
        AlignedBuf::new(device.block_size().get() * usize::try_from(most.get()).unwrap_or(1));
    in_pieces(device, at, "rewrite", stop, |_, start, buf| {
        let again = &mut again[..buf.len()];
        let same = |a: &[u8], b: &[u8]| {
            let foreign =
                || io::Error::other("two reads differ: somebody else is writing this volume");
            if a == b {
                Ok(())
            } else {
                Err(DeviceError::Io { op: "read", at: start, source: foreign() })
            }
        };
        device.read_at(start, buf)?;
        device.read_at(start, again)?;
        same(buf, again)?;
        write_all(device, start, buf)?;
        device.read_at(start, again)?;
        same(buf, again)
    })
}
