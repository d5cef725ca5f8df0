//! The interpreter and what it emits.

mod event;

pub use event::Event;
