//! The checks of the oracle by name, and sets of them: the self-test switches each one off in turn
//! and demands that a planted bug then survives; the lower-bound baseline is such a set too.
//!
//! Not covered: the explicit checks of the fixed suite (`crate::scenario::Check`), which are always
//! asked.

/// One check that every answer, copy or state is held against without being asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CheckId {
    /// Every LBA that must be reported is (`oracle.md` section 2).
    Missed,
    /// No LBA is reported that nothing touched (section 2).
    Leaked,
    /// Pages have the form that was agreed (law 3).
    Shape,
    /// What must be refused is not answered (law 1).
    Answered,
    /// What must be answered is not refused (law 1).
    Refused,
    /// Equal questions get equal answers (law 2).
    Repeat,
    /// A diff over two steps lies inside the two diffs together (law 4).
    Triangle,
    /// Blocks read back hold what was written (section 5).
    Content,
    /// The target holds what the sync had to bring (section 5).
    Copied,
    /// A sync writes what its diff names and nothing else (section 5).
    Disturbed,
    /// States that were promised come in time (section 7).
    Liveness,
    /// Writes in flight at a cut are in the diff of the side that shows them (section 4).
    CutLaw,
    /// A walk from an LBA in the middle is the rest of the whole walk (law 2).
    OffsetWalk,
    /// Old data that a diff without base leaves out is zeros (law 5).
    Unreported,
}

impl CheckId {
    /// All checks.
    pub const ALL: [CheckId; 14] = [
        CheckId::Missed,
        CheckId::Leaked,
        CheckId::Shape,
        CheckId::Answered,
        CheckId::Refused,
        CheckId::Repeat,
        CheckId::Triangle,
        CheckId::Content,
        CheckId::Copied,
        CheckId::Disturbed,
        CheckId::Liveness,
        CheckId::CutLaw,
        CheckId::OffsetWalk,
        CheckId::Unreported,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            CheckId::Missed => "missed",
            CheckId::Leaked => "leaked",
            CheckId::Shape => "shape",
            CheckId::Answered => "answered",
            CheckId::Refused => "refused",
            CheckId::Repeat => "repeat",
            CheckId::Triangle => "triangle",
            CheckId::Content => "content",
            CheckId::Copied => "copied",
            CheckId::Disturbed => "disturbed",
            CheckId::Liveness => "liveness",
            CheckId::CutLaw => "cut-law",
            CheckId::OffsetWalk => "offset-walk",
            CheckId::Unreported => "unreported",
        }
    }
}

/// A set of checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checks(u32);

impl Checks {
    /// The full oracle.
    pub const ALL: Checks = Checks((1 << CheckId::ALL.len()) - 1);
    /// What most testers of changed-block tracking do: nothing may be missed, copies must be right.
    pub const LOWER_BOUND_ONLY: Checks = Checks(
        1 << CheckId::Missed as u8 | 1 << CheckId::Content as u8 | 1 << CheckId::Copied as u8,
    );

    /// Whether the check is in the set.
    pub const fn has(self, check: CheckId) -> bool {
        self.0 >> check as u8 & 1 == 1
    }
    /// The set without that check.
    #[must_use]
    pub const fn without(self, check: CheckId) -> Checks {
        Checks(self.0 & !(1 << check as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_not_taken_out() {
        for (place, check) in CheckId::ALL.into_iter().enumerate() {
            assert_eq!(check as usize, place);
            assert!(Checks::ALL.has(check));
            let without = Checks::ALL.without(check);
            assert!(CheckId::ALL.into_iter().all(|other| without.has(other) == (other != check)));
        }
        assert!(Checks::LOWER_BOUND_ONLY.has(CheckId::Missed));
        assert!(!Checks::LOWER_BOUND_ONLY.has(CheckId::Leaked));
    }
}
