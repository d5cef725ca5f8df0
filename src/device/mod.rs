//! Adapter: Linux block devices and the files that stand in for them.
//!
//! A path the user named becomes a device that can be written only by going through the states
//! `Candidate -> Exclusive -> Identified -> Armed`, each with its guards (`safety.md`, G1 to G15).
//! The guards are functions over plain facts ([`guards`]); what the facts are is read by
//! [`host`] (mounts, swap, locks) and [`sysfs`] (disks). Sizes and identities of volumes come in as
//! plain values; this layer never talks to an array.
//!
//! Not covered: data that has no signature (consent is asked for all of it); a second host
//! writing the same volume, which no local look can tell: that is what the handshake is for.

mod block;
mod catalogue;
mod consent;
pub mod guards;
pub mod host;
pub mod ioctl;
mod medium;
mod open;
mod reading;
pub mod signature;
mod stamping;
pub mod sysfs;
#[cfg(test)]
pub(crate) mod testing;

pub use block::{Armed, HandshakeDevice, HandshakeProof};
pub use catalogue::{GUARDS, GuardSpec};
pub use consent::{BadConsent, Consent, ConsentItem};
pub use guards::{GuardRefusal, Identity};
pub use host::Host;
pub use open::{Candidate, Exclusive, Identified, ReadProbe, Wanted, open_pair, open_volumes};
pub use reading::{DeviceBlocks, ReadOnlyDevice, volume_told_by};
pub use stamping::{Overwritten, SavedBlocks, StampDevice};
pub use sysfs::find_by_wwid;
