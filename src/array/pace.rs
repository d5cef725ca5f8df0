//! Rate caps: so much a second and no more, for targets that are in production.
//!
//! A [`Pace`] lends time slots; who asks for one waits until it begins. Nothing is saved up, so a
//! pause is no licence for a burst. Not covered: what is counted; [`PacedDevice`] counts bytes, the
//! client its calls.

use super::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Lba, LbaCount};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How quickly a wait notices the stop flag.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// So much a second.
#[derive(Debug)]
pub struct Pace {
    per_s: NonZeroU64,
    /// When the next slot begins.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// `per_s` a second.
    pub const fn new(per_s: NonZeroU64) -> Pace {
        Pace { per_s, next: Mutex::new(None) }
    }

    /// When `amount` may begin if asked at `now`; what comes after it begins so much later.
    fn reserve(&self, amount: u64, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = next.map_or(now, |next| next.max(now));
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_s.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *next = begins.checked_add(takes).or(Some(begins));
        begins
    }

    /// Waits until `amount` may begin; a stop ends the wait, and what then begins is the end.
    pub fn wait(&self, amount: u64, stop: &AtomicBool) {
        let begins = self.reserve(amount, Instant::now());
        loop {
            let left = begins.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(left.min(STOP_CHECK));
        }
    }
}

/// A device that moves only so many bytes a second, reads and writes together. Zeroing and discarding
/// count as what they cover.
pub struct PacedDevice<'d> {
    inner: &'d dyn BlockDevice,
    pace: &'d Pace,
    stop: &'d AtomicBool,
}

impl<'d> PacedDevice<'d> {
    /// The same device, slower. Several devices may share a pace.
    pub const fn new(
        inner: &'d dyn BlockDevice,
        pace: &'d Pace,
        stop: &'d AtomicBool,
    ) -> PacedDevice<'d> {
        PacedDevice { inner, pace, stop }
    }

    fn wait(&self, bytes: u64) {
        self.pace.wait(bytes, self.stop);
    }

    fn wait_lbas(&self, len: LbaCount) {
        self.wait(len.get().saturating_mul(self.block_size().bytes()));
    }
}

impl BlockDevice for PacedDevice<'_> {
    fn block_size(&self) -> BlockSize {
        self.inner.block_size()
    }
    fn len_lbas(&self) -> LbaCount {
        self.inner.len_lbas()
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.wait(buf.len() as u64);
        self.inner.read_at(at, buf)
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        self.wait(buf.len() as u64);
        self.inner.write_at(at, buf)
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.wait_lbas(len);
        self.inner.write_zeroes(at, len)
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.wait_lbas(len);
        self.inner.discard(at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }
    fn keeps_contents(&self) -> bool {
        self.inner.keeps_contents()
    }
    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(per_s: u64) -> Pace {
        Pace::new(NonZeroU64::new(per_s).expect("not zero"))
    }

    proptest! {
        #[test]
        fn no_second_holds_more_than_was_allowed(
            per_s in 1u32..1000,
            asked in prop::collection::vec((0u64..3000, 1u32..400), 1..40),
        ) {
            let (pace, start) = (pace(per_s.into()), Instant::now());
            let mut now = start;
            let mut begun: Vec<(Instant, u32)> = Vec::new();
            for (pause_ms, amount) in asked {
                now += Duration::from_millis(pause_ms);
                begun.push((pace.reserve(amount.into(), now), amount));
            }
            // Between the beginnings of any two, no more was done than the time between allows.
            for (at, (first, _)) in begun.iter().enumerate() {
                let mut done = 0u32;
                for (last, amount) in &begun[at..] {
                    let allowed = last.duration_since(*first).as_secs_f64() * f64::from(per_s);
                    prop_assert!(f64::from(done) <= allowed + 1e-3, "{done} in {allowed}");
                    done += amount;
                }
            }
        }
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let (pace, stop) = (pace(1), AtomicBool::new(true));
        pace.wait(3600, &stop);
        // Without the stop this one would begin in an hour.
        pace.wait(1, &stop);
        assert!(pace.reserve(1, Instant::now()) > Instant::now() + Duration::from_secs(3000));
    }
}
