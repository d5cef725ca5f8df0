//! Reading devices back and judging every block against the shadow model.
//!
//! Not covered: which stretches are to be read; the interpreter decides.

use crate::array::{AlignedBuf, BlockDevice, DeviceError};
use crate::block::{Diagnosis, Extent, Lba, LbaCount, LbaSet, Role, RunId};
use crate::model::{Model, Value, Values};
use crate::oracle::{value_of, wrong_blocks};
use crossbeam::thread;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// LBAs of one read: 1 MiB on devices.
const READ_LBAS: LbaCount = LbaCount::new(256);
/// Below this many pieces threads cost more than they bring.
const THREADED_FROM: usize = 8;
const THREADS: usize = 2;

/// How devices are read back.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// Set to stop.
    pub(super) stop: &'a AtomicBool,
    /// Whether threads bring anything: not in memory, where starting one takes longer.
    pub(super) threads: bool,
}

/// Blocks that are wrong, and what each turned out to be.
pub(super) type WrongBlocks = Vec<(Lba, Diagnosis)>;

/// A stretch and what it may hold.
pub(super) type Tile = (Extent, Values);

/// What the target must hold over `at`, as far as it can still be told: old data of the source is
/// known only by comparing with the source, so only where the source still has it.
pub(super) fn knowable(model: &Model, at: Extent) -> Vec<Tile> {
    let old = Value::Old(Role::Source);
    let source = model.len(Role::Source).and_then(|len| Extent::new(Lba::new(0), len));
    let mut tiles = Vec::new();
    for (tile, values) in model.live(Role::Target, at) {
        if !values.as_slice().is_some_and(|possible| possible.contains(&old)) {
            tiles.push((tile, values));
            continue;
        }
        // The source may have shrunk meanwhile.
        let inside = source.and_then(|source| source.intersect(tile));
        let still = inside.map(|tile| model.live(Role::Source, tile)).unwrap_or_default();
        let unchanged = still.into_iter().filter(|(_, there)| there.certain() == Some(old));
        tiles.extend(unchanged.map(|(part, _)| (part, values.clone())));
    }
    tiles
}

/// Blocks of `device`, the `role` volume, that hold none of the values they may; the first wrong
/// tile's values with them. `twin` is the device that synced data came from.
///
/// # Errors
/// The first error of a device, or [`DeviceError::Interrupted`].
pub(super) fn wrong_in(
    (device, twin): (&dyn BlockDevice, Option<&dyn BlockDevice>),
    tiles: &[Tile],
    (run, role): (RunId, Role),
    Reading { stop, threads }: Reading<'_>,
) -> Result<Option<(Values, WrongBlocks)>, DeviceError> {
    let pieces: Vec<(Extent, &Values)> = tiles
        .iter()
        .filter(|(_, values)| values.as_slice().is_some())
        .flat_map(|(at, values)| at.pieces(READ_LBAS).map(move |piece| (piece, values)))
        .collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, WrongBlocks)>> = Mutex::new(Vec::new());
    let work = || -> Result<(), DeviceError> {
        let mut reader = Reader::new(device, twin);
        while let Some((at, values)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return Err(DeviceError::Interrupted);
            }
            let needs_twin = values.as_slice().is_some_and(|possible| {
                possible.iter().any(|v| matches!(v, Value::Old(owner) if *owner != role))
            });
            let (bytes, twin) = reader.read(*at, needs_twin)?;
            let wrong = wrong_blocks((bytes, twin), *at, values, (run, role, device.block_size()));
            if !wrong.is_empty() {
                let index = pieces.iter().position(|(piece, _)| piece == at).unwrap_or(0);
                found
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push((index, wrong));
            }
        }
        Ok(())
    };
    if !threads || pieces.len() < THREADED_FROM {
        work()?;
    } else {
        let results = thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(|_| work())).collect();
            let mut all = vec![work()];
            all.extend(others.into_iter().map(|other| match other.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            all
        });
        results
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .into_iter()
            .collect::<Result<(), _>>()?;
    }
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(index, _)| *index);
    let values = found
        .first()
        .and_then(|(index, _)| pieces.get(*index))
        .map(|(_, values)| (*values).clone());
    Ok(values.map(|values| (values, found.into_iter().flat_map(|(_, wrong)| wrong).collect())))
}

/// Which one of its several possible values each block of `tiles` holds, as runs. Blocks that hold
/// none of them, or may be more than one, are left out.
///
/// # Errors
/// As [`wrong_in`].
pub(super) fn values_in(
    device: &dyn BlockDevice,
    tiles: &[Tile],
    (run, role): (RunId, Role),
    Reading { stop, .. }: Reading<'_>,
) -> Result<Vec<(Extent, Value)>, DeviceError> {
    let mut reader = Reader::new(device, None);
    let mut seen: Vec<(Extent, Value)> = Vec::new();
    for (tile, values) in tiles {
        let Some(possible @ [_, _, ..]) = values.as_slice() else { continue };
        for at in tile.pieces(READ_LBAS) {
            if stop.load(Ordering::Relaxed) {
                return Err(DeviceError::Interrupted);
            }
            let (bytes, _) = reader.read(at, false)?;
            let blocks = bytes.chunks_exact(device.block_size().get()).zip(at.start().get()..);
            for (block, lba) in blocks {
                let at = Extent::new(Lba::new(lba), LbaCount::new(1));
                let Some((at, value)) =
                    at.zip(value_of(block, Lba::new(lba), possible, (run, role)))
                else {
                    continue;
                };
                match seen.last_mut() {
                    Some((run, last)) if *last == value && run.end() == at.start() => {
                        *run = Extent::between(run.start(), at.end()).unwrap_or(at);
                    }
                    _ => seen.push((at, value)),
                }
            }
        }
    }
    Ok(seen)
}

/// The blocks of zeros among those of `tiles` of which nothing is known.
///
/// # Errors
/// As [`wrong_in`].
pub(super) fn zeros_in(
    device: &dyn BlockDevice,
    tiles: &[Tile],
    stop: &AtomicBool,
) -> Result<LbaSet, DeviceError> {
    let mut zeros = LbaSet::new();
    let mut unknown = tiles.iter().filter(|(_, values)| values.as_slice().is_none()).peekable();
    if unknown.peek().is_none() {
        return Ok(zeros);
    }
    let mut reader = Reader::new(device, None);
    for at in unknown.flat_map(|(tile, _)| tile.pieces(READ_LBAS)) {
        if stop.load(Ordering::Relaxed) {
            return Err(DeviceError::Interrupted);
        }
        let (bytes, _) = reader.read(at, false)?;
        let blocks = bytes.chunks_exact(device.block_size().get()).zip(at.start().get()..);
        let zero = blocks.filter(|(block, _)| block.iter().all(|&byte| byte == 0));
        zero.filter_map(|(_, lba)| Extent::new(Lba::new(lba), LbaCount::new(1)))
            .for_each(|at| zeros.insert(at));
    }
    Ok(zeros)
}

/// Two buffers and the devices they are filled from.
struct Reader<'a> {
    device: &'a dyn BlockDevice,
    twin: Option<&'a dyn BlockDevice>,
    bytes: AlignedBuf,
    twin_bytes: AlignedBuf,
}

impl<'a> Reader<'a> {
    fn new(device: &'a dyn BlockDevice, twin: Option<&'a dyn BlockDevice>) -> Reader<'a> {
        let len = device.block_size().get() * 256;
        Reader { device, twin, bytes: AlignedBuf::new(len), twin_bytes: AlignedBuf::new(len) }
    }

    fn read(
        &mut self,
        at: Extent,
        needs_twin: bool,
    ) -> Result<(&[u8], Option<&[u8]>), DeviceError> {
        let len = fill(self.device, at, &mut self.bytes)?;
        let twin = match self.twin.filter(|_| needs_twin) {
            Some(twin) => {
                fill(twin, at, &mut self.twin_bytes)?;
                Some(&self.twin_bytes[..len])
            }
            None => None,
        };
        Ok((&self.bytes[..len], twin))
    }
}

/// Reads a piece of at most the buffer's size; answers its length in bytes.
fn fill(device: &dyn BlockDevice, at: Extent, buf: &mut AlignedBuf) -> Result<usize, DeviceError> {
    let block = device.block_size();
    let outside =
        || DeviceError::Forbidden { op: "read", at: at.start(), len: at.len_lbas().get() };
    let len = usize::try_from(at.len_lbas().bytes(block).get()).map_err(|_| outside())?;
    let start = at.start().byte_offset(block).ok_or_else(outside)?;
    device.read_at(start, buf.get_mut(..len).ok_or_else(outside)?)?;
    Ok(len)
}
