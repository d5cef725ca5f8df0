//! Scenarios for property tests: proptest draws and shrinks words, the generator reads them. Not
//! covered: shrinking a finding of a campaign (`crate::engine::shrink`).

use super::{PROFILES, Words, generate_from};
use crate::scenario::Scenario;
use proptest::prelude::*;

/// Scenarios of the default profile.
pub(crate) fn scenarios() -> impl Strategy<Value = Scenario> {
    (0u64..256, prop::collection::vec(any::<u64>(), 0..400))
        .prop_map(|(case, words)| generate_from(&PROFILES[0], case, &mut Words::new(&words)))
}
