//! The HTTP side under a fault script: every fault of network, proxy and server that a client must
//! survive, each by name, at the Nth call that can meet it, once or for ever.
//!
//! A fault is one of a table ([`ApiFault`]) and is named on a command line by a [`FaultSpec`]. The
//! script stands between the sockets and the honest calls: it answers instead of a call, bends the
//! answer to it, or remembers what later answers must show. Nothing of it is random. Not covered:
//! lies about what changed; those are planted bugs of the array (`super::bugs`).

mod body;
mod kinds;
mod script;
mod spec;
mod twist;

pub(super) use body::{Answer, Carried, Delivery, Socket, Stream};
pub use kinds::{ApiFault, ApiFaultRow, Meets};
pub use script::MetFault;
pub(super) use script::Script;
pub use spec::{BadSpec, FaultSpec};
