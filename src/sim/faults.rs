//! Faults that a run injects into the array itself, one at a time and volume.
//!
//! Not covered: faults of network and host.

use super::SimError;
use super::array::SimArray;
use super::volume::Volume;
use super::when::{Countdown, When};
use crate::block::VolumeUuid;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
    /// What a run that meets it may come to, as for a fault of the HTTP side.
    pub const fn ends(self) -> &'static [&'static str] {
        match self {
            SimFault::Metadata => &["pass", "unknown"],
            SimFault::ShortWrite => &["pass"],
        }
    }
    /// What it does, in one line.
    pub const fn about(self) -> &'static str {
        match self {
            SimFault::Metadata => {
                "a change whose tracking record cannot be stored fails, and stores nothing"
            }
            SimFault::ShortWrite => "a write of several blocks takes only the first half of them",
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
    countdown: Countdown,
}

impl Armed {
    /// It as a word that no other fault has; never 0.
    pub(super) fn word(self) -> u64 {
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
        let armed = Some(Armed { fault, countdown: when.countdown() });
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
        let met = armed.countdown.meets();
        if armed.countdown.is_over() {
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
