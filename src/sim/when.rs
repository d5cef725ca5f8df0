//! When a fault happens: the one place that says which call it is, on the wire and on a device.
//!
//! Not covered: which calls a fault can meet, and what it does to them.

use std::fmt;

/// At the Nth call that can meet the fault, once or from then on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct When {
    /// Which of those calls, counted from 1; 0 counts as 1.
    pub nth: u32,
    /// Whether every later one meets it too.
    pub for_ever: bool,
}

impl When {
    /// At the Nth call and no other.
    pub const fn once(nth: u32) -> When {
        When { nth, for_ever: false }
    }
    /// At the Nth call and every later one.
    pub const fn from(nth: u32) -> When {
        When { nth, for_ever: true }
    }
    pub(super) fn countdown(self) -> Countdown {
        Countdown { left: self.nth.max(1), for_ever: self.for_ever }
    }
}

impl fmt::Display for When {
    /// `3`, or `3+` for ever.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.nth, if self.for_ever { "+" } else { "" })
    }
}

/// A [`When`] under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Countdown {
    /// Calls that are left, the one that meets the fault included; 0 when it is over.
    left: u32,
    for_ever: bool,
}

impl Countdown {
    /// Counts a call that can meet the fault, and answers whether it does.
    pub(super) fn meets(&mut self) -> bool {
        match (self.left, self.for_ever) {
            (0, _) => false,
            (1, true) => true,
            (left, _) => {
                self.left = left - 1;
                self.left == 0
            }
        }
    }
    /// Whether no call will meet it any more.
    pub(super) fn is_over(self) -> bool {
        self.left == 0
    }
    /// It as a number that no other state has.
    pub(super) fn word(self) -> u64 {
        u64::from(self.for_ever) << 32 | u64::from(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(when: When) -> Vec<u32> {
        let mut countdown = when.countdown();
        (1..=6).filter(|_| countdown.meets()).collect()
    }

    #[test]
    fn a_fault_meets_its_call_once_or_from_there_on() {
        assert_eq!(met(When::once(3)), [3]);
        assert_eq!(met(When::from(3)), [3, 4, 5, 6]);
        assert_eq!(met(When::once(0)), [1], "there is no call before the first");
        assert_eq!(met(When::once(7)), [0; 0]);
        let mut countdown = When::once(1).countdown();
        assert!(!countdown.is_over() && countdown.meets() && countdown.is_over());
    }
}
