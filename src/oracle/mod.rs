//! The oracle: one file per property, pure functions over what the model predicts and what came
//! in. It never sees an adapter. Not covered: laws that need readable snapshots of a volume this
//! tool never wrote (audit mode, a later step).

mod verdict;

pub use verdict::{Kind, Picture, Reason, Verdict, Violation};
