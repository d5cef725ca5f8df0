//! What a campaign reached and what it never did, in a few lines.
//!
//! Not covered: counting (`crate::engine::Coverage`).

use super::verdict::{plainly, so_many};
use crate::engine::{Coverage, Goal, Group};

/// Goals and groups never reached that are named; the rest are counted.
const SHOWN: usize = 6;

/// What a campaign reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// Cases that were looked at.
    pub cases: u64,
    /// Goals that the campaign's cases can reach.
    pub goals: usize,
    /// Goals that were never reached.
    pub missed: Vec<&'static str>,
    /// Combinations that were reached, and all that the campaign's cases can reach.
    pub combinations: (usize, usize),
    /// Groups that lack combinations, those that lack most first.
    pub lacking: Vec<Group>,
}

impl Reached {
    /// Sums up what was counted.
    pub fn of(coverage: &Coverage) -> Reached {
        let (goals, missed) = coverage.goals();
        Reached {
            cases: coverage.cases(),
            goals,
            missed: missed.into_iter().map(Goal::words).collect(),
            combinations: coverage.reached(),
            lacking: coverage.lacking(),
        }
    }
}

/// The lines about it.
pub fn coverage_lines(reached: &Reached) -> Vec<String> {
    let Reached { cases, goals, missed, combinations: (some, all), lacking } = reached;
    let mut lines = vec![format!(
        "coverage ({} looked at): {} of {goals} goals, {some} of {all} combinations",
        plainly(*cases, "case", "cases"),
        goals.saturating_sub(missed.len())
    )];
    lines.extend(missed.iter().take(SHOWN).map(|goal| format!("  never {goal}")));
    if missed.len() > SHOWN {
        let more = so_many(missed.len() - SHOWN, "more goal", "more goals");
        lines.push(format!("  and {more}"));
    }
    let seldom = lacking.iter().take(SHOWN);
    lines.extend(
        seldom.map(|group| {
            format!("  {} of {} combinations  {}", group.reached, group.of, group.words)
        }),
    );
    if lacking.len() > SHOWN {
        let one = "more group that is not whole";
        let more = so_many(lacking.len() - SHOWN, one, "more groups that are not whole");
        lines.push(format!("  and {more}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_reached_is_named_and_long_lists_are_cut() {
        let group = |words: &str| Group { words: words.to_owned(), reached: 3, of: 35 };
        let reached = Reached {
            cases: 900,
            goals: 48,
            missed: vec!["a write inside a cut"],
            combinations: (5_000, 7_000),
            lacking: (0..8).map(|n| group(&format!("discard {n}"))).collect(),
        };
        let lines = coverage_lines(&reached);
        assert_eq!(
            lines[..3],
            [
                "coverage (900 cases looked at): 47 of 48 goals, 5000 of 7000 combinations",
                "  never a write inside a cut",
                "  3 of 35 combinations  discard 0",
            ]
        );
        assert_eq!(
            lines.last().map(String::as_str),
            Some("  and 2 more groups that are not whole")
        );
        assert_eq!(coverage_lines(&Reached::default()).len(), 1);
    }

    #[test]
    fn a_campaign_without_cases_reached_nothing() {
        let reached = Reached::of(&Coverage::default());
        assert_eq!((reached.missed.len(), reached.combinations.0), (reached.goals, 0));
    }
}
