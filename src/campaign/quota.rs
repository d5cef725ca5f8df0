//! A quota of live snapshots: a case on an array that is in production must not have more than so many.
//!
//! Not covered: snapshots of others, and those that a case which could not be judged leaves until the
//! next one is over.

use crate::scenario::{Label, Op, Scenario, Step};
use std::collections::VecDeque;

/// The same scenario with at most `most` snapshots alive at a time, two at least: before one more is
/// taken the oldest goes, but for the very first, which others are compared with. What then still asks
/// for one that is gone is skipped, or refused as it has to be.
#[must_use]
pub fn within_quota(mut scenario: Scenario, most: usize) -> Scenario {
    let most = most.max(2);
    let mut alive: VecDeque<Label> = VecDeque::new();
    let steps = std::mem::take(&mut scenario.steps);
    for step in steps {
        let (taken, deleted) = labels(&step);
        while alive.len() + taken.len() > most && alive.len() > 1 {
            if let Some(label) = alive.remove(1) {
                scenario.steps.push(Op::Delete { label, wait: true }.into());
            }
        }
        alive.extend(taken);
        alive.retain(|label| !deleted.contains(label));
        scenario.steps.push(step);
    }
    scenario
}

/// What a step takes and deletes, in flight together or not.
fn labels(step: &Step) -> (Vec<Label>, Vec<Label>) {
    let (mut taken, mut deleted) = (Vec::new(), Vec::new());
    step.op.each(&mut |op| match op {
        Op::Take { label, .. } => taken.push(*label),
        Op::Delete { label, .. } => deleted.push(*label),
        _ => {}
    });
    (taken, deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CaseName, Profile, generate};

    /// Snapshots that a scenario has alive at most, counting a step's own before its deletes.
    fn most_alive(scenario: &Scenario) -> usize {
        let mut alive: Vec<Label> = Vec::new();
        let mut most = 0;
        for step in &scenario.steps {
            let (taken, deleted) = labels(step);
            alive.extend(taken);
            most = most.max(alive.len());
            alive.retain(|label| !deleted.contains(label));
        }
        most
    }

    #[test]
    fn no_case_has_more_snapshots_than_allowed_and_small_ones_stay_as_they_are() {
        let profile = Profile::by_name("live").expect("a profile");
        let mut changed = 0;
        for case in 0..200 {
            let scenario = generate(profile, CaseName { seed: 1, case });
            // A step that takes several at once needs room for them and for the first.
            let at_once = scenario.steps.iter().map(|step| labels(step).0.len()).max();
            let least = at_once.unwrap_or(0) + 1;
            for most in [2, 3, 5, 99] {
                let within = within_quota(scenario.clone(), most);
                assert!(most_alive(&within) <= most.max(least), "case {case}, {most}");
                if most_alive(&scenario) <= most {
                    assert_eq!(within, scenario);
                }
                changed += usize::from(within != scenario);
            }
        }
        assert!(changed > 20, "only {changed} cases had too many");
    }
}
