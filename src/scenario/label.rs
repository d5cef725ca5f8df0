//! Names of snapshots inside a scenario. Not covered: their names on an array
//! ([`crate::block::SnapshotName`]).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Name of a snapshot inside a scenario, chosen when it is taken (`s0`, `s1`, ...), so that
/// removing an operation never renames the rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(pub u32);

/// The text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no snapshot label (s0, s1, ...)")]
pub struct BadLabel(String);

impl FromStr for Label {
    type Err = BadLabel;
    fn from_str(text: &str) -> Result<Label, BadLabel> {
        let number = text.strip_prefix('s').and_then(|digits| digits.parse().ok());
        // Printing again refuses `s+1` and `s01`.
        number
            .map(Label)
            .filter(|label| label.to_string() == text)
            .ok_or_else(|| BadLabel(text.to_owned()))
    }
}

impl TryFrom<String> for Label {
    type Error = BadLabel;
    fn try_from(text: String) -> Result<Label, BadLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.to_string()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back_and_other_spellings_do_not() {
        assert_eq!("s12".parse(), Ok(Label(12)));
        for bad in ["s", "12", "s01", "s+1", "S1", "s-1", "s99999999999"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
