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

/// What is left where no model says what must be reported, read and copied.
pub const LAWS: Checks = Checks::ALL
    .without(CheckId::Missed)
    .without(CheckId::Leaked)
    .without(CheckId::Content)
    .without(CheckId::Copied);

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

/// A bug, and the check that alone kills it: with the model, by the laws.
type Alone = (Planted, Option<CheckId>, Option<CheckId>);

fn fails(scenario: &Scenario, checks: Checks) -> Result<bool, SimError> {
    let outcome = run_case(scenario, checks, &mut |_| ())?;
    Ok(matches!(outcome.verdict, Verdict::Fail(_)))
}

/// The check without which these would find nothing wrong any more.
fn only_check(scenario: &Scenario, checks: Checks) -> Result<Option<CheckId>, SimError> {
    if !fails(scenario, checks)? {
        return Ok(None);
    }
    for check in CheckId::ALL.into_iter().filter(|&check| checks.has(check)) {
        if !fails(scenario, checks.without(check))? {
            return Ok(Some(check));
        }
    }
    Ok(None)
}

fn alone(bug: Planted) -> Result<Alone, SimError> {
    let Some(mut scenario) = witness(bug.name()) else { return Ok((bug, None, None)) };
    scenario.header.planted = vec![bug.name().to_owned()];
    Ok((bug, only_check(&scenario, Checks::ALL)?, only_check(&scenario, LAWS)?))
}

/// The table, in the order of the checks; ends early, with fewer bugs, when `stop` is set.
///
/// # Errors
/// The simulator's, if it cannot be set up.
pub fn oracle_table(stop: &AtomicBool) -> Result<Vec<CheckRow>, SimError> {
    let killed: Vec<Alone> =
        in_order(&Planted::all(), stop, alone).into_iter().collect::<Result<_, _>>()?;
    let rows = CheckId::ALL.into_iter().map(|check| {
        let names = |of: &dyn Fn(&Alone) -> Option<CheckId>| {
            let by = killed.iter().filter(|row| of(row) == Some(check));
            by.map(|(bug, ..)| bug.name()).collect::<Vec<_>>()
        };
        CheckRow {
            check,
            alone: names(&|row| row.1),
            alone_of_laws: LAWS.has(check).then(|| names(&|row| row.2)),
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
