//! Volumes with a past: data that somebody else wrote before the run.
//!
//! Not covered: snapshots from before the run.

use super::SimError;
use super::array::SimArray;
use super::bugs::Bug;
use super::state::mix;
use super::tracking::Epoch;
use crate::block::VolumeUuid;

/// Stretches of old data at most, and LBAs of each at most: enough to meet, little enough to write
/// for every case.
const STRETCHES: u64 = 12;
const STRETCH_LBAS: u64 = 48;

impl SimArray {
    /// Writes pseudo-random old data to some of a volume, its first and its last LBA included. It
    /// shows in full diffs, like everything that was ever written.
    ///
    /// # Errors
    /// [`SimError::NotFound`].
    pub fn age(&self, volume: VolumeUuid, seed: u64) -> Result<(), SimError> {
        let (device, cell) = (self.device(volume)?, self.cell(volume)?);
        let block = self.config().block;
        let len = device.size_bytes() / block.bytes();
        let stretch = |number: u64| {
            let drawn = mix(seed ^ mix(number));
            match number {
                0 => (0, 1),
                1 => (len - 1, 1),
                _ => (drawn % len, 1 + (drawn >> 32) % STRETCH_LBAS),
            }
        };
        let mut bytes = Vec::new();
        for (start, lbas) in (0..STRETCHES).map(stretch) {
            let end = (start + lbas).min(len);
            bytes.clear();
            for word in start * block.bytes() / 8..end * block.bytes() / 8 {
                bytes.extend_from_slice(&mix(seed ^ word).to_le_bytes());
            }
            device.write_bytes(start * block.bytes(), &bytes).map_err(|error| {
                SimError::BadRequest(format!("old data of volume {volume}: {error}"))
            })?;
        }
        let mut cell = cell.write();
        if cell.tracking.has(Bug::OlderDataForgotten) {
            cell.tracking.current = Epoch::default();
        }
        Ok(())
    }
}
