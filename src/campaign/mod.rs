//! Campaigns: what happens around scenarios.

pub mod embedded;
pub mod inproc;
