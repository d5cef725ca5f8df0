//! Exit codes, their precedence and their folding into the original suite's. Not covered: ending
//! the process, which `main` does alone.

use crate::suite::{Outcome, SuiteSummary};

/// How the process ends. `cli.md`, "Exit codes", is the contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exit {
    /// All passed, and something was really compared.
    Passed,
    /// A test failed or a violation was found.
    Violation,
    /// Usage, configuration or a refused guard.
    Usage,
    /// It could not be tested: authentication, network, quota, nothing compared.
    CouldNotTest,
    /// The filter selected nothing, or clean-up left something.
    Nothing,
    /// A bug in this tool.
    Bug,
    /// SIGINT, after bounded clean-up.
    Interrupted,
    /// SIGTERM or SIGHUP, after bounded clean-up.
    Terminated,
}

impl Exit {
    /// Every way to end.
    pub const ALL: [Exit; 8] = [
        Exit::Passed,
        Exit::Violation,
        Exit::Usage,
        Exit::CouldNotTest,
        Exit::Nothing,
        Exit::Bug,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::Violation => 1,
            Exit::Usage => 2,
            Exit::CouldNotTest => 3,
            Exit::Nothing => 4,
            Exit::Bug => 5,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }
    /// How much it outweighs others when several hold.
    const fn weight(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::Nothing => 1,
            Exit::CouldNotTest => 2,
            Exit::Usage => 3,
            Exit::Violation => 4,
            Exit::Interrupted | Exit::Terminated => 5,
            Exit::Bug => 6,
        }
    }
    /// The graver of two.
    #[must_use]
    pub const fn or(self, other: Exit) -> Exit {
        if other.weight() > self.weight() { other } else { self }
    }
    /// What the subcommand-less form answers: the original knew 0, 1, 2 and 130 only.
    #[must_use]
    pub const fn folded(self) -> Exit {
        match self {
            Exit::CouldNotTest | Exit::Nothing | Exit::Bug => Exit::Violation,
            Exit::Terminated => Exit::Interrupted,
            Exit::Passed | Exit::Violation | Exit::Usage | Exit::Interrupted => self,
        }
    }
    /// What a suite run comes to; `stopped` is how a signal ended it, if one did.
    pub fn of_suite(summary: &SuiteSummary, stopped: Option<Exit>) -> Exit {
        let (passed, failed, errors, _) = summary.counts();
        let besides = summary.besides();
        let any = |is: fn(&Outcome) -> bool| besides.iter().any(|(_, outcome)| is(outcome));
        let mut exit = if failed > 0 || any(|outcome| matches!(outcome, Outcome::Fail(_))) {
            Exit::Violation
        } else if errors > 0 || passed == 0 || any(|o| matches!(o, Outcome::Error(_))) {
            Exit::CouldNotTest
        } else {
            Exit::Passed
        };
        if !summary.left_behind.is_empty() {
            exit = exit.or(Exit::Nothing);
        }
        if summary.interrupted {
            exit = exit.or(stopped.unwrap_or(Exit::Interrupted));
        }
        if summary.tool_bug { exit.or(Exit::Bug) } else { exit }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> std::process::ExitCode {
        std::process::ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Kind, Violation};
    use crate::suite::TestResult;
    use std::time::Duration;

    #[test]
    fn the_graver_wins_whatever_the_order() {
        let ranks = [
            Exit::Bug,
            Exit::Interrupted,
            Exit::Violation,
            Exit::Usage,
            Exit::CouldNotTest,
            Exit::Nothing,
            Exit::Passed,
        ];
        for (i, graver) in ranks.iter().enumerate() {
            for lighter in &ranks[i..] {
                assert_eq!(graver.or(*lighter), *graver);
                assert_eq!(lighter.or(*graver), *graver);
            }
        }
        assert_eq!(Exit::Terminated.or(Exit::Violation), Exit::Terminated);
    }

    #[test]
    fn the_original_form_knows_four_codes() {
        let folded = Exit::ALL.map(|exit| (exit.code(), exit.folded().code()));
        assert_eq!(
            folded,
            [(0, 0), (1, 1), (2, 2), (3, 1), (4, 1), (5, 1), (130, 130), (143, 130)]
        );
    }

    #[test]
    fn a_suite_that_compared_nothing_did_not_pass() {
        let summary = |outcomes: Vec<Outcome>, interrupted| SuiteSummary {
            results: outcomes
                .into_iter()
                .map(|outcome| TestResult {
                    number: 1,
                    name: "t",
                    outcome,
                    took: Duration::ZERO,
                    notes: Vec::new(),
                    mib_per_s: None,
                })
                .collect(),
            took: Duration::ZERO,
            interrupted,
            ..SuiteSummary::default()
        };
        let fail = || Outcome::Fail(vec![Violation::new(Kind::Missed, "x")]);
        let error = || Outcome::Error("x".to_owned());
        let na = || Outcome::NotApplicable("x".to_owned());
        let exit = |outcomes, interrupted| Exit::of_suite(&summary(outcomes, interrupted), None);
        assert_eq!(exit(vec![Outcome::Pass, na()], false), Exit::Passed);
        assert_eq!(exit(vec![na()], false), Exit::CouldNotTest);
        assert_eq!(exit(vec![], false), Exit::CouldNotTest);
        assert_eq!(exit(vec![Outcome::Pass, error()], false), Exit::CouldNotTest);
        assert_eq!(exit(vec![fail(), error()], false), Exit::Violation);
        assert_eq!(exit(vec![fail()], true), Exit::Interrupted);
        let violation = Violation::new(Kind::Content, "x");
        for (audit, handshake, expected) in [
            (Some(Outcome::Pass), Vec::new(), Exit::Passed),
            (Some(fail()), Vec::new(), Exit::Violation),
            (Some(error()), Vec::new(), Exit::CouldNotTest),
            (Some(error()), vec![violation.clone()], Exit::Violation),
            (None, vec![violation], Exit::Violation),
        ] {
            let summary = SuiteSummary { audit, handshake, ..summary(vec![Outcome::Pass], false) };
            assert_eq!(Exit::of_suite(&summary, None), expected, "{summary:?}");
        }
        let bug = SuiteSummary { tool_bug: true, ..summary(vec![fail()], true) };
        assert_eq!(Exit::of_suite(&bug, None), Exit::Bug);
        let left_behind = vec![crate::block::SnapshotUuid::from_u128(7)];
        let left = SuiteSummary { left_behind, ..summary(vec![Outcome::Pass], false) };
        assert_eq!(Exit::of_suite(&left, None), Exit::Nothing);
        let stopped = Exit::of_suite(&summary(vec![], true), Some(Exit::Terminated));
        assert_eq!(stopped, Exit::Terminated);
    }
}
