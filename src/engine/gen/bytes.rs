//! Scenarios out of a fuzzer's bytes. Not covered: a fuzz target of its own; those live outside of
//! this crate.

use super::profile::PROFILES;
use super::{Entropy, generate_from};
use crate::scenario::Scenario;
use arbitrary::{Arbitrary, Unstructured};

/// The first byte picks the focus, the others make the choices; whatever is missing is the simplest
/// choice. Any bytes make a scenario, and its header plants nothing.
impl<'a> Arbitrary<'a> for Scenario {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Scenario> {
        let case = bytes.below(256);
        Ok(generate_from(&PROFILES[0], case, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Op;
    use proptest::prelude::*;

    #[test]
    fn no_bytes_make_a_small_scenario_that_observes() {
        let scenario = Scenario::arbitrary(&mut Unstructured::new(&[])).expect("total");
        assert!(scenario.steps.len() <= 10, "{:?}", scenario.steps);
        assert!(scenario.steps.iter().any(|step| matches!(step.op, Op::Diff { .. })));
    }

    proptest! {
        #[test]
        fn equal_bytes_make_equal_scenarios(bytes: Vec<u8>) {
            let draw = || Scenario::arbitrary(&mut Unstructured::new(&bytes)).expect("total");
            prop_assert_eq!(draw(), draw());
        }
    }
}
