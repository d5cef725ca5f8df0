//! The oracle: one file per property, pure functions over what the model predicts and what came
//! in. It never sees an adapter. Not covered: laws that need readable snapshots of a volume this
//! tool never wrote (audit mode, a later step).

mod bounds;
mod check_id;
mod content;
mod laws;
mod verdict;

pub use bounds::{judge_bounds, leaked};
pub use check_id::{CheckId, Checks};
pub use content::{content_violation, value_of, wrong_blocks};
pub use laws::{
    asked, judge_answered, judge_cut, judge_gone_middle, judge_offset_walk, judge_refused,
    judge_repeat, judge_triangle,
};
pub use verdict::{Kind, Picture, Reason, Verdict, Violation};
