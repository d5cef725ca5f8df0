//! Moves runs from one device to another with a pool of workers and flushes the target at the end.
//!
//! Workers take runs from one shared counter, so I/O goes out in ascending order with several
//! requests in flight: on scattered runs the queue depth decides the speed (`performance.md`, part
//! A). Nothing outside the plan is written. Not covered: which LBAs to copy (`plan.rs`), and
//! whether the copy is right (`checksum.rs` and the oracle).

use super::bugs::{PipelineBug, PipelineBugs};
use super::plan::RUN_LBAS_MAX;
use crate::array::{AlignedBuf, BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Extent, Lba, LbaCount};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Workers that keep a device busy without crowding two cores.
pub const DEFAULT_WORKERS: usize = 8;

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyConfig {
    /// Runs in flight at once. With 1 (or 0) the calling thread copies and no thread is started.
    pub workers: usize,
    /// Planted mistakes; none in an honest run.
    pub bugs: PipelineBugs,
}

impl Default for CopyConfig {
    fn default() -> CopyConfig {
        CopyConfig { workers: DEFAULT_WORKERS, bugs: PipelineBugs::NONE }
    }
}

/// What a finished copy did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyReport {
    /// LBAs read and written: all of the plan.
    pub lbas: LbaCount,
    /// Runs of the plan.
    pub runs: usize,
}

/// The device that is read or the one that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one read.
    Source,
    /// The one written.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// A copy that did not finish. The target holds some of the runs; which, only reading it tells.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source could not be read.
    #[error("copying: source: {0}")]
    Read(#[source] DeviceError),
    /// The target could not be written.
    #[error("copying: target: {0}")]
    Write(#[source] DeviceError),
    /// The target could not be flushed: nothing is known to be durable.
    #[error("copying: target: {0}; nothing copied is known to be durable")]
    Flush(#[source] DeviceError),
    /// A run ends past the end of a device. Found before anything is written.
    #[error("cannot copy {run}: the {side} has only {len} LBAs")]
    Outside {
        /// The device that is too small.
        side: Side,
        /// The first run that does not fit.
        run: Extent,
        /// Size of that device.
        len: LbaCount,
    },
    /// The devices do not agree on what one LBA is. Found before anything is written.
    #[error("source and target differ in block size: {source_bytes} and {target_bytes} bytes")]
    BlockSizes {
        /// Bytes of one LBA of the source.
        source_bytes: BlockSize,
        /// Bytes of one LBA of the target.
        target_bytes: BlockSize,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Copies `plan` from `source` to the same LBAs of `target`, then flushes `target`.
///
/// `progress` counts LBAs as they are written; `stop` ends the copy between two runs.
///
/// # Errors
/// The first error that any worker met; the others stop at their next run.
pub fn copy(
    plan: &[Extent],
    source: &dyn BlockDevice,
    target: &dyn BlockDevice,
    config: &CopyConfig,
    progress: Option<&AtomicU64>,
    stop: &AtomicBool,
) -> Result<CopyReport, CopyError> {
    let block = common_block_size(source, target)?;
    must_fit(plan, Side::Source, source)?;
    must_fit(plan, Side::Target, target)?;
    let job = Job {
        plan,
        source,
        target,
        block,
        bugs: config.bugs,
        progress,
        stop,
        next_run: AtomicUsize::new(0),
        halted: AtomicBool::new(false),
        first_error: Mutex::new(None),
    };
    job.run(config.workers.min(plan.len()));
    if let Some(error) = job.first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    target.flush().map_err(|error| or_interrupted(error, CopyError::Flush))?;
    Ok(CopyReport { lbas: plan.iter().map(|run| run.len_lbas()).sum(), runs: plan.len() })
}

fn common_block_size(
    source: &dyn BlockDevice,
    target: &dyn BlockDevice,
) -> Result<BlockSize, CopyError> {
    let (source_bytes, target_bytes) = (source.block_size(), target.block_size());
    if source_bytes == target_bytes {
        Ok(source_bytes)
    } else {
        Err(CopyError::BlockSizes { source_bytes, target_bytes })
    }
}

fn must_fit(plan: &[Extent], side: Side, device: &dyn BlockDevice) -> Result<(), CopyError> {
    let len = device.len_lbas();
    let fits = |run: &Extent| {
        run.end().get() <= len.get() && run.end().byte_offset(device.block_size()).is_some()
    };
    match plan.iter().find(|run| !fits(run)) {
        None => Ok(()),
        Some(&run) => Err(CopyError::Outside { side, run, len }),
    }
}

fn or_interrupted(error: DeviceError, wrap: fn(DeviceError) -> CopyError) -> CopyError {
    match error {
        DeviceError::Interrupted => CopyError::Interrupted,
        other => wrap(other),
    }
}

/// One copy under way, shared by its workers.
struct Job<'a> {
    plan: &'a [Extent],
    source: &'a dyn BlockDevice,
    target: &'a dyn BlockDevice,
    block: BlockSize,
    bugs: PipelineBugs,
    progress: Option<&'a AtomicU64>,
    stop: &'a AtomicBool,
    next_run: AtomicUsize,
    halted: AtomicBool,
    first_error: Mutex<Option<CopyError>>,
}

impl Job<'_> {
    /// Copies everything with `workers` threads, the calling one included.
    fn run(&self, workers: usize) {
        let scope = crossbeam::thread::scope(|scope| {
            for _ in 1..workers {
                // A thread that cannot be started only makes the copy slower.
                if scope.builder().spawn(|_| self.work()).is_err() {
                    break;
                }
            }
            self.work();
        });
        if let Err(panic) = scope {
            std::panic::resume_unwind(panic);
        }
    }

    /// Copies runs until there are none left or somebody failed.
    fn work(&self) {
        let longest = self.plan.iter().map(|run| run.len_lbas()).max().unwrap_or_default();
        let mut buf = AlignedBuf::new(byte_len(longest.min(RUN_LBAS_MAX), self.block));
        while !self.halted.load(Ordering::Relaxed) {
            let Some(run) = self.plan.get(self.next_run.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            if let Err(error) = self.copy_run(*run, &mut buf) {
                self.halted.store(true, Ordering::Relaxed);
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                return;
            }
        }
    }

    fn copy_run(&self, run: Extent, buf: &mut [u8]) -> Result<(), CopyError> {
        for piece in run.pieces(RUN_LBAS_MAX) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CopyError::Interrupted);
            }
            let buf = &mut buf[..byte_len(piece.len_lbas(), self.block)];
            let from = self.offset(piece.start())?;
            self.source
                .read_at(from, buf)
                .map_err(|error| or_interrupted(error, CopyError::Read))?;
            self.write_piece(self.target_offset(piece.start())?, buf)
                .map_err(|error| or_interrupted(error, CopyError::Write))?;
            if let Some(progress) = self.progress {
                progress.fetch_add(piece.len_lbas().get(), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn offset(&self, lba: Lba) -> Result<ByteOffset, CopyError> {
        // `must_fit` has shown that every run has byte offsets.
        lba.byte_offset(self.block).ok_or(CopyError::Read(DeviceError::Forbidden {
            op: "read",
            at: lba,
            len: 1,
        }))
    }

    fn target_offset(&self, lba: Lba) -> Result<ByteOffset, CopyError> {
        let offset = self.offset(lba)?;
        if self.bugs.has(PipelineBug::SeekOverflow32Bit) {
            return Ok(ByteOffset::new(offset.get() & u64::from(u32::MAX)));
        }
        Ok(offset)
    }

    fn write_piece(&self, at: ByteOffset, buf: &[u8]) -> Result<(), DeviceError> {
        if self.bugs.has(PipelineBug::SkipsZeroBlocks) {
            for part in non_zero_parts(buf, self.block.get()) {
                self.write_all(ByteOffset::new(at.get() + part.start as u64), &buf[part])?;
            }
            return Ok(());
        }
        self.write_all(at, buf)
    }

    /// Writes all of `buf`, going on after short writes from the last whole block taken.
    fn write_all(&self, at: ByteOffset, buf: &[u8]) -> Result<(), DeviceError> {
        let mut done = 0;
        let mut stalled = false;
        while done < buf.len() {
            let at = ByteOffset::new(at.get() + done as u64);
            let taken = self.target.write_at(at, &buf[done..])?;
            if self.bugs.has(PipelineBug::ShortWriteIgnored) {
                return Ok(());
            }
            // O_DIRECT wants whole blocks; a block taken in part is written again as a whole.
            let whole = taken / self.block.get() * self.block.get();
            if whole > buf.len() - done || (whole == 0 && stalled) {
                return Err(DeviceError::Short { op: "write", at });
            }
            stalled = whole == 0;
            done += whole;
        }
        Ok(())
    }
}

fn byte_len(len: LbaCount, block: BlockSize) -> usize {
    // At most `RUN_LBAS_MAX` blocks: far below any `usize`.
    usize::try_from(len.bytes(block).get()).unwrap_or(usize::MAX)
}

/// The byte ranges of `buf` between its zero blocks.
fn non_zero_parts(buf: &[u8], block: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (index, bytes) in buf.chunks(block).enumerate() {
        let (start, end) = (index * block, index * block + bytes.len());
        if bytes.iter().all(|&byte| byte == 0) {
            continue;
        }
        match parts.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => parts.push(start..end),
        }
    }
    parts
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
