//! Faults that a run injects into the array itself, one at a time and volume.
//!
//! Not covered: faults of network and host.

use super::SimError;
use super::array::SimArray;
use super::volume::Volume;
use crate::block::VolumeUuid;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SimFault {
    /// The tracking record of a write, zero-fill or discard cannot be stored: an honest array fails
    /// the operation and stores nothing.
    Metadata,
    /// A write takes only the first half of its blocks, at least one. Writes of one block are not
    /// counted.
    ShortWrite,
}

impl SimFault {
    /// All faults.
    pub const ALL: [SimFault; 2] = [SimFault::Metadata, SimFault::ShortWrite];

    /// The stable name, as in a step of a scenario.
    pub const fn name(self) -> &'static str {
        match self {
            SimFault::Metadata => "metadata",
            SimFault::ShortWrite => "short-write",
        }
    }
    /// The fault of that name.
    pub fn from_name(name: &str) -> Option<SimFault> {
        SimFault::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// A fault that waits for its operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    fault: SimFault,
    /// Operations that are left, the one it meets included.
    left: u32,
}

impl Armed {
    /// It as a word that no other fault has; never 0.
    pub(super) fn word(self) -> u64 {
        (self.fault as u64 + 1) << 32 | u64::from(self.left)
    }
}

impl SimArray {
    /// Lets the `nth` operation from now on (counted from 1) that can meet `fault` meet it; it takes
    /// the place of one that was armed before.
    ///
    /// # Errors
    /// [`SimError::NotFound`].
    pub fn arm(&self, volume: VolumeUuid, fault: SimFault, nth: u32) -> Result<(), SimError> {
        let armed = Some(Armed { fault, left: nth.max(1) });
        self.cell(volume)?.write().armed = armed;
        Ok(())
    }

    /// Takes back a fault that was armed and answers whether no operation had met it yet. A volume
    /// that is gone takes its fault with it.
    pub fn disarm(&self, volume: VolumeUuid) -> bool {
        self.cell(volume).is_ok_and(|cell| cell.write().armed.take().is_some())
    }
}

impl Volume {
    /// Whether the operation at hand, which could meet `fault`, does.
    pub(super) fn meets(&mut self, fault: SimFault) -> bool {
        let Some(armed) = self.armed.as_mut().filter(|armed| armed.fault == fault) else {
            return false;
        };
        armed.left -= 1;
        let met = armed.left == 0;
        if met {
            self.armed = None;
        }
        met
    }

    /// How many of `len_bytes` a write takes.
    pub(super) fn taken_of(&mut self, len_bytes: usize, block_bytes: usize) -> usize {
        let blocks = len_bytes / block_bytes;
        if blocks < 2 || !self.meets(SimFault::ShortWrite) {
            return len_bytes;
        }
        blocks / 2 * block_bytes
    }
}
