//! The cases of the kill matrix: drawn by the generator, shortened by the shrinker, as a campaign's
//! are. Not covered: running them (`super::selftest_matrix`).

use super::selftest_matrix::Cases;
use crate::engine::{CaseName, Goal, Profile, Reach, ShrinkBudget, generate, shrink};
use crate::scenario::Scenario;
use std::time::Duration;

/// Runs that shrinking one kill may take: this ends it, not the time, so that the result is the same
/// on any machine.
const SHRINK_RUNS: u64 = 30_000;
/// Beyond this the machine is not fit for a self-test.
const SHRINK_TIME: Duration = Duration::from_secs(600);
/// Fewer honest cases than this need not reach every goal.
const ENOUGH_FOR_GOALS: u64 = 5_000;

/// Cases of a profile.
#[derive(Clone, Debug)]
pub struct Generated {
    profile: Profile,
    goals: Vec<Goal>,
}

impl Generated {
    /// Those of `profile`, of which `cases` will run on an honest target.
    pub fn new(profile: Profile, cases: u64) -> Generated {
        let asked = cases >= ENOUGH_FOR_GOALS;
        let goals = Reach::of(&profile).goals().filter(|_| asked).collect();
        Generated { profile, goals }
    }
}

impl Cases for Generated {
    fn case(&self, seed: u64, case: u64) -> Scenario {
        generate(&self.profile, CaseName { seed, case })
    }
    fn shrink(
        &self,
        scenario: &Scenario,
        reproduces: &mut dyn FnMut(&Scenario) -> bool,
    ) -> Scenario {
        let budget = ShrinkBudget { time: SHRINK_TIME, runs: SHRINK_RUNS };
        shrink(scenario, budget, reproduces, &mut |_| ()).scenario
    }
    fn goals(&self) -> &[Goal] {
        &self.goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::selftest::Planted;
    use crate::campaign::selftest_matrix::{Budget, matrix};
    use crate::engine::PROFILES;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_generator_finds_a_bug_and_the_shrinker_brings_it_to_its_listed_length() {
        let bug = Planted::from_name("bit63-dropped").expect("planted");
        let budget = Budget {
            seeds: 1,
            cases: 200,
            honest_cases: 10,
            explore: Duration::ZERO,
            explore_depth: 1,
        };
        let cases = Generated::new(PROFILES[0], budget.honest_cases);
        let stop = AtomicBool::new(false);
        let matrix = matrix(&[bug], &cases, budget, &stop, &|_| ()).expect("sets up");
        let row = &matrix.rows[0];
        assert_eq!((row.random.killed, row.random.longest()), (1, Some(2)), "{row:?}");
        assert_eq!(matrix.canary, Some(("bit63-dropped", 0)));
    }
}
