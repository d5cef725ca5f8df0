//! Whether each check of the oracle counts: for every check there must be a planted bug that only it
//! kills, so that deleting the check lets a bug survive.
//!
//! Two modes: with the shadow model, and by the laws alone, as on volumes that this tool never wrote.
//! Not covered: the explicit checks of the fixed suite, which cannot be switched off.

use super::case::run_case;
use super::selftest::{Planted, in_order};
use super::witness::witness;
use crate::oracle::{CheckId, Checks, Verdict};
use crate::scenario::Scenario;
use crate::sim::SimError;
use std::sync::atomic::AtomicBool;

/// What is left where no model says what must be reported, read and copied, nor on which side of a
/// cut an operation is.
pub const LAWS: Checks = Checks::ALL
    .without(CheckId::Missed)
    .without(CheckId::Leaked)
    .without(CheckId::Content)
    .without(CheckId::Copied)
    .without(CheckId::CutLaw);

/// One check, and the bugs whose witness only it shows to be wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckRow {
    /// The check.
    pub check: CheckId,
    /// Bugs that only it kills among all checks.
    pub alone: Vec<&'static str>,
    /// Bugs that only it kills among the laws; `None` if it is none of them.
    pub alone_of_laws: Option<Vec<&'static str>>,
}

impl CheckRow {
    /// Whether deleting the check would go unnoticed.
    pub fn is_idle(&self) -> bool {
        self.alone.is_empty() || self.alone_of_laws.as_ref().is_some_and(Vec::is_empty)
    }
}

/// A bug, and the checks without any of which it survives: with the model, by the laws.
type Alone = (Planted, Vec<CheckId>, Vec<CheckId>);

fn fails(scenario: &Scenario, checks: Checks) -> Result<bool, SimError> {
    let outcome = run_case(scenario, checks, &mut |_| ())?;
    Ok(matches!(outcome.verdict, Verdict::Fail(_)))
}

/// The checks that these cannot do without: two, if one says what another then needs.
fn needed_checks(scenario: &Scenario, checks: Checks) -> Result<Vec<CheckId>, SimError> {
    let mut needed = Vec::new();
    if fails(scenario, checks)? {
        for check in CheckId::ALL.into_iter().filter(|&check| checks.has(check)) {
            if !fails(scenario, checks.without(check))? {
                needed.push(check);
            }
        }
    }
    Ok(needed)
}

fn alone(bug: Planted) -> Result<Alone, SimError> {
    let Some(mut scenario) = witness(bug.name()) else { return Ok((bug, vec![], vec![])) };
    scenario.header.planted = vec![bug.name().to_owned()];
    Ok((bug, needed_checks(&scenario, Checks::ALL)?, needed_checks(&scenario, LAWS)?))
}

/// The table, in the order of the checks; ends early, with fewer bugs, when `stop` is set.
///
/// # Errors
/// The simulator's, if it cannot be set up.
pub fn oracle_table(stop: &AtomicBool) -> Result<Vec<CheckRow>, SimError> {
    let killed: Vec<Alone> =
        in_order(&Planted::all(), stop, alone).into_iter().collect::<Result<_, _>>()?;
    let rows = CheckId::ALL.into_iter().map(|check| {
        let names = |of: &dyn Fn(&Alone) -> &[CheckId]| {
            let by = killed.iter().filter(|row| of(row).contains(&check));
            by.map(|(bug, ..)| bug.name()).collect::<Vec<_>>()
        };
        CheckRow {
            check,
            alone: names(&|row| &row.1),
            alone_of_laws: LAWS.has(check).then(|| names(&|row| &row.2)),
        }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_any_one_check_lets_a_planted_bug_survive() {
        let table = oracle_table(&AtomicBool::new(false)).expect("sets up");
        assert_eq!(table.len(), CheckId::ALL.len());
        let idle: Vec<&CheckRow> = table.iter().filter(|row| row.is_idle()).collect();
        assert!(idle.is_empty(), "{idle:#?}");
    }

    #[test]
    fn a_check_that_kills_nothing_alone_is_idle() {
        let row = |alone: &[&'static str], laws: Option<&[&'static str]>| CheckRow {
            check: CheckId::Repeat,
            alone: alone.to_vec(),
            alone_of_laws: laws.map(<[_]>::to_vec),
        };
        assert!(!row(&["a"], None).is_idle());
        assert!(!row(&["a"], Some(&["a"])).is_idle());
        assert!(row(&[], None).is_idle());
        assert!(row(&["a"], Some(&[])).is_idle());
    }
}
