//! Faults of a volume's data plane, one at a time and volume: in the middle of a scenario, or from
//! the start of a server, where a real block device fails by them.
//!
//! What damages data does so below the tracker: the array says what changed, and the medium holds
//! something else. Behind a loop device the kernel takes a short write for a whole one, so that
//! there `short-write` loses data. Not covered: faults of the wire (`super::hostile`).

use super::SimError;
use super::array::SimArray;
use super::volume::{SimDevice, SimIoError, Volume};
use super::when::{Countdown, When};
use crate::block::VolumeUuid;
use std::sync::RwLockWriteGuard;
use std::time::Duration;

/// How long a stalled operation stands still, in the array's time.
const STALL: Duration = Duration::from_secs(3);

macro_rules! faults {
    ($($fault:ident $name:literal $ends:tt $about:literal;)*) => {
        /// What goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum SimFault {
            $(#[doc = $about] $fault,)*
        }

        impl SimFault {
            /// All faults.
            pub const ALL: &[SimFault] = &[$(SimFault::$fault,)*];

            /// The stable name, as in a step of a scenario.
            pub const fn name(self) -> &'static str {
                match self { $(SimFault::$fault => $name,)* }
            }
            /// What it does, in one line.
            pub const fn about(self) -> &'static str {
                match self { $(SimFault::$fault => $about,)* }
            }
            /// What a run that meets it may come to, as for a fault of the HTTP side.
            pub const fn ends(self) -> &'static [&'static str] {
                match self { $(SimFault::$fault => &$ends,)* }
            }
        }
    };
}

faults! {
    Metadata "metadata" ["unknown"]
        "a change whose tracking record cannot be stored fails, and stores nothing";
    ShortWrite "short-write" ["pass"]
        "a write of several blocks takes only the first half of them";
    ShortRead "short-read" ["pass"]
        "a read of several blocks answers only the first half of them";
    EioRead "eio-read" ["unknown"]
        "a read fails with EIO";
    EioWrite "eio-write" ["unknown"]
        "a write, zero-fill or discard fails with EIO and stores nothing";
    EioFlush "eio-flush" ["unknown"]
        "a flush fails with EIO";
    NoSpace "enospc" ["unknown"]
        "a write, zero-fill or discard fails with ENOSPC: the pool is full";
    ReadOnly "erofs" ["unknown"]
        "a write, zero-fill or discard fails with EROFS";
    Stall "stall" ["pass"]
        "an operation stands still for three seconds of the array's time";
    Vanish "vanish" ["unknown"]
        "the device is gone: this operation and every later one fails with ENODEV";
    Torn "torn" ["content"]
        "the last block of a write is stored by half; tracked and acknowledged";
    Lost "lost" ["content"]
        "a write is tracked and acknowledged, and not stored";
    Misdirected "misdirected" ["content"]
        "a write is tracked and acknowledged, and stored beside its place";
    Stale "stale" ["content"]
        "a read answers what was there at the newest snapshot, or zeros if there is none";
}

impl SimFault {
    /// The fault of that name.
    pub fn from_name(name: &str) -> Option<SimFault> {
        SimFault::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// How it refuses an operation, if it does.
    const fn refusal(self, doing: Doing) -> Option<SimIoError> {
        match (self, doing) {
            (SimFault::EioRead, Doing::Read)
            | (SimFault::EioWrite, Doing::Change)
            | (SimFault::EioFlush, Doing::Flush) => Some(SimIoError::Medium),
            (SimFault::NoSpace, Doing::Change) => Some(SimIoError::NoSpace),
            (SimFault::ReadOnly, Doing::Change) => Some(SimIoError::ReadOnly),
            (SimFault::Vanish, _) => Some(SimIoError::Gone),
            _ => None,
        }
    }
}

/// What an operation does, as far as faults tell operations apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Read,
    /// A write, zero-fill or discard.
    Change,
    Flush,
}

/// A fault that waits for its operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    fault: SimFault,
    countdown: Countdown,
    /// How often it happened.
    met: u32,
}

impl Armed {
    /// It as a word that no other fault has; 0 once it is over.
    pub(super) fn word(self) -> u64 {
        if self.countdown.is_over() {
            return 0;
        }
        (self.fault as u64 + 1) << 40 | self.countdown.word()
    }
}

impl SimArray {
    /// Lets the operations from now on that can meet `fault` meet it as `when` says; it takes the
    /// place of one that was armed before.
    ///
    /// # Errors
    /// [`SimError::NotFound`].
    pub fn arm(&self, volume: VolumeUuid, fault: SimFault, when: When) -> Result<(), SimError> {
        let armed = Some(Armed { fault, countdown: when.countdown(), met: 0 });
        self.cell(volume)?.write().armed = armed;
        Ok(())
    }

    /// Takes back a fault that was armed and answers whether no operation had met it yet. A volume
    /// that is gone takes its fault with it.
    pub fn disarm(&self, volume: VolumeUuid) -> bool {
        let armed = self.cell(volume).ok().and_then(|cell| cell.write().armed.take());
        armed.is_some_and(|armed| armed.met == 0)
    }

    /// How often the fault of a volume has happened since it was armed.
    pub fn faults_met(&self, volume: VolumeUuid) -> u32 {
        self.cell(volume).ok().and_then(|cell| cell.read().armed).map_or(0, |armed| armed.met)
    }
}

impl SimDevice {
    /// The volume, for an operation that no fault refuses. One that stalls does so without holding
    /// others up.
    pub(super) fn enter(&self, doing: Doing) -> Result<RwLockWriteGuard<'_, Volume>, SimIoError> {
        let mut volume = self.cell.write();
        if volume.armed.is_none() {
            return Ok(volume);
        }
        if volume.meets(SimFault::Stall) {
            drop(volume);
            self.shared.clock.sleep(STALL);
            volume = self.cell.write();
        }
        volume.refuses(doing).map_or(Ok(volume), Err)
    }

    /// A read of a volume on which a fault is armed.
    pub(super) fn read_with_fault(&self, at: u64, buf: &mut [u8]) -> Result<usize, SimIoError> {
        let mut volume = self.enter(Doing::Read)?;
        let taken = volume.taken_of(SimFault::ShortRead, buf.len(), self.block().get());
        let buf = buf.get_mut(..taken).unwrap_or_default();
        volume.store.read(at, buf);
        let mut old = vec![0; buf.len()];
        if let Some(cut) = volume.tracking.links.last().map(|link| link.cut) {
            volume.store.read_at_cut(cut, at, &mut old);
        }
        if old != buf && volume.meets(SimFault::Stale) {
            buf.copy_from_slice(&old);
        }
        Ok(taken)
    }
}

impl Volume {
    /// Whether the operation at hand, which could meet `fault`, does.
    pub(super) fn meets(&mut self, fault: SimFault) -> bool {
        let Some(armed) = self.armed.as_mut().filter(|armed| armed.fault == fault) else {
            return false;
        };
        let met = armed.countdown.meets();
        if met {
            armed.met = armed.met.saturating_add(1);
            if fault == SimFault::Vanish {
                armed.countdown = When::from(1).countdown();
            }
        }
        met
    }

    /// The error by which a fault refuses an operation, if it does.
    fn refuses(&mut self, doing: Doing) -> Option<SimIoError> {
        let fault = self.armed?.fault;
        let error = fault.refusal(doing)?;
        self.meets(fault).then_some(error)
    }

    /// Stores what was written, or what a fault leaves of it. A fault that would leave everything as
    /// it should be is not met.
    pub(super) fn store_written(&mut self, at: u64, buf: &[u8], block_bytes: usize) {
        let kept = buf.len().saturating_sub(block_bytes / 2);
        let fault = self.armed.map(|armed| armed.fault);
        let damaged = match fault {
            Some(SimFault::Lost | SimFault::Misdirected) => 0,
            Some(SimFault::Torn) => kept,
            _ => return self.store.write(at, buf),
        };
        let mut old = vec![0; buf.len()];
        self.store.read(at, &mut old);
        let beside = self.beside(at, buf.len() as u64, block_bytes as u64);
        let would_show = old.get(damaged..) != buf.get(damaged..);
        let fault = fault.filter(|fault| *fault != SimFault::Misdirected || beside.is_some());
        match fault.filter(|fault| would_show && self.meets(*fault)) {
            Some(SimFault::Torn) => self.store.write(at, buf.get(..kept).unwrap_or_default()),
            Some(SimFault::Misdirected) => self.store.write(beside.unwrap_or(at), buf),
            Some(_) => {}
            None => self.store.write(at, buf),
        }
    }

    /// Where a write that misses its place lands: after it, or before it at the end of the volume.
    fn beside(&self, at: u64, len: u64, block_bytes: u64) -> Option<u64> {
        let after = at.checked_add(len)?;
        match after.checked_add(len)? <= self.len_lbas * block_bytes {
            true => Some(after),
            false => at.checked_sub(len),
        }
    }

    /// How many of `len_bytes` an operation takes that `fault` could shorten.
    pub(super) fn taken_of(
        &mut self,
        fault: SimFault,
        len_bytes: usize,
        block_bytes: usize,
    ) -> usize {
        let blocks = len_bytes / block_bytes;
        if blocks < 2 || !self.meets(fault) {
            return len_bytes;
        }
        blocks / 2 * block_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{Clock, VirtualClock};
    use crate::block::{BlockSize, LbaCount};
    use crate::sim::SimConfig;
    use std::sync::Arc;

    const BLOCK: usize = 64;

    struct Rig {
        array: SimArray,
        volume: VolumeUuid,
        device: SimDevice,
        clock: Arc<VirtualClock>,
    }

    fn rig(fault: SimFault, when: When) -> Rig {
        let clock = Arc::new(VirtualClock::new());
        let config = SimConfig { block: BlockSize::SMALLEST, ..SimConfig::default() };
        let array = SimArray::new(config, clock.clone());
        let volume = array.create_volume("v", LbaCount::new(640), None).expect("made");
        let device = array.device(volume).expect("there");
        array.arm(volume, fault, when).expect("armed");
        Rig { array, volume, device, clock }
    }

    impl Rig {
        fn block(&self, lba: u64) -> [u8; BLOCK] {
            let mut block = [0; BLOCK];
            self.device.read_bytes(lba * BLOCK as u64, &mut block).expect("read");
            block
        }
        fn write(&self, lba: u64, blocks: usize, byte: u8) -> Result<(), SimIoError> {
            self.device.write_bytes(lba * BLOCK as u64, &vec![byte; blocks * BLOCK])
        }
    }

    #[test]
    fn errors_come_at_the_operation_they_are_of_and_leave_everything_as_it_was() {
        let read = |rig: &Rig| rig.device.read_bytes(0, &mut [0; BLOCK]);
        let flush = |rig: &Rig| rig.device.flush_bytes();
        let write = |rig: &Rig| rig.write(0, 1, 7);
        let discard = |rig: &Rig| rig.device.discard_bytes(0, 64);
        type Operation<'a> = &'a dyn Fn(&Rig) -> Result<(), SimIoError>;
        let table: [(SimFault, SimIoError, Operation<'_>, Operation<'_>); 6] = [
            (SimFault::EioRead, SimIoError::Medium, &read, &write),
            (SimFault::EioWrite, SimIoError::Medium, &write, &read),
            (SimFault::EioFlush, SimIoError::Medium, &flush, &write),
            (SimFault::NoSpace, SimIoError::NoSpace, &write, &read),
            (SimFault::ReadOnly, SimIoError::ReadOnly, &discard, &flush),
            (SimFault::Metadata, SimIoError::TrackingRecord, &discard, &read),
        ];
        for (fault, error, meets, does_not) in table {
            let rig = rig(fault, When::once(2));
            assert_eq!((meets(&rig), does_not(&rig)), (Ok(()), Ok(())), "{fault:?}");
            assert_eq!(rig.array.faults_met(rig.volume), 0);
            assert_eq!(meets(&rig), Err(error), "{fault:?}");
            assert_eq!((meets(&rig), rig.array.faults_met(rig.volume)), (Ok(()), 1));
        }
        let rig = rig(SimFault::EioWrite, When::once(1));
        assert_eq!(rig.write(3, 1, 9), Err(SimIoError::Medium));
        assert_eq!(rig.block(3), [0; BLOCK]);
        let snapshot = rig.array.create_snapshot(rig.volume, "s").expect("taken");
        let page = rig.array.diff(snapshot.uuid, None, 0).expect("answered");
        assert_eq!(page.ranges, [], "what was refused is no change");
    }

    #[test]
    fn a_device_that_vanished_stays_away_and_one_that_stalls_goes_on() {
        let gone = rig(SimFault::Vanish, When::once(2));
        assert_eq!(gone.write(0, 1, 1), Ok(()));
        for _ in 0..3 {
            assert_eq!(gone.device.flush_bytes(), Err(SimIoError::Gone));
            assert_eq!(gone.device.read_bytes(0, &mut [0]), Err(SimIoError::Gone));
        }
        let slow = rig(SimFault::Stall, When::once(2));
        assert_eq!((slow.write(0, 1, 1), slow.clock.now()), (Ok(()), Duration::ZERO));
        assert_eq!((slow.write(0, 1, 2), slow.clock.now()), (Ok(()), STALL));
        assert_eq!(slow.block(0), [2; BLOCK]);
    }

    #[test]
    fn damage_is_acknowledged_and_tracked_at_the_place_that_was_meant() {
        for (fault, expected) in [
            (SimFault::Lost, [(10, [0; BLOCK]), (11, [0; BLOCK]), (12, [0; BLOCK])]),
            (SimFault::Misdirected, [(10, [0; BLOCK]), (12, [5; BLOCK]), (13, [5; BLOCK])]),
        ] {
            let rig = rig(fault, When::once(1));
            assert_eq!(rig.write(10, 2, 0), Ok(()), "zeros over zeros: nothing to damage");
            assert_eq!(rig.array.faults_met(rig.volume), 0);
            assert_eq!(rig.write(10, 2, 5), Ok(()));
            assert_eq!(rig.array.faults_met(rig.volume), 1);
            for (lba, bytes) in expected {
                assert_eq!(rig.block(lba), bytes, "{fault:?} at LBA {lba}");
            }
            let snapshot = rig.array.create_snapshot(rig.volume, "s").expect("taken");
            let page = rig.array.diff(snapshot.uuid, None, 0).expect("answered");
            let bits: Vec<u64> = page.ranges.iter().map(|range| range.bits).collect();
            assert_eq!(bits, [0b11 << 10], "{fault:?}");
        }
        let torn = rig(SimFault::Torn, When::once(1));
        assert_eq!(torn.write(10, 2, 5), Ok(()));
        assert_eq!(torn.block(10), [5; BLOCK]);
        let half = torn.block(11);
        assert_eq!((&half[..32], &half[32..]), (&[5; 32][..], &[0; 32][..]));
    }

    #[test]
    fn a_stale_read_shows_the_newest_snapshot_and_a_short_one_half() {
        let stale = rig(SimFault::Stale, When::once(2));
        assert_eq!(stale.write(0, 1, 1), Ok(()));
        assert_eq!(stale.block(9), [0; BLOCK], "the same then and now: it does not count");
        assert_eq!(stale.block(0), [1; BLOCK]);
        stale.array.create_snapshot(stale.volume, "s").expect("taken");
        assert_eq!(stale.write(0, 1, 2), Ok(()));
        assert_eq!([stale.block(0), stale.block(0)], [[1; BLOCK], [2; BLOCK]]);
        let short = rig(SimFault::ShortRead, When::once(1));
        let mut three = [9; 3 * BLOCK];
        assert_eq!(short.device.read_some(0, &mut three), Ok(BLOCK));
        assert_eq!(short.device.read_some(0, &mut three), Ok(3 * BLOCK));
        assert!(short.device.read_bytes(0, &mut three).is_ok() && three == [0; 3 * BLOCK]);
    }

    #[test]
    fn names_lead_back_to_faults() {
        for &fault in SimFault::ALL {
            assert_eq!(SimFault::from_name(fault.name()), Some(fault));
            assert!(!fault.ends().is_empty() && !fault.about().is_empty());
        }
        assert_eq!(SimFault::from_name("nonsense"), None);
    }
}
