//! How a fault is named on a command line: `KIND@[WHERE:]N[+]`.
//!
//! `status-503@4` is the 4th call that can meet it; `truncated-json@diff:2+` is the 2nd diff and
//! every later one; `data:eio-write@target:1` is the 1st write of the target volume. Without `@`
//! the first one is meant, without WHERE any call, or the source volume. A call meets one fault at
//! most, of several the one given first, and does not count for the others. Not covered: what the
//! kinds are (`super::kinds`, `super::super::faults`).

use super::super::SimFault;
use super::super::routes::Call;
use super::super::when::When;
use super::kinds::ApiFault;
use crate::block::Role;
use std::fmt;
use std::str::FromStr;

/// What `data:` stands before.
const DATA: &str = "data:";
/// The volumes that there are when a server starts, the one that is meant by default first.
const ROLES: [Role; 3] = [Role::Source, Role::Target, Role::Neighbour];

/// One fault and when it happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultSpec {
    /// Of the HTTP side.
    Api {
        /// Which.
        fault: ApiFault,
        /// Only calls of this kind; any if absent.
        call: Option<Call>,
        /// At which of them.
        when: When,
    },
    /// Of a volume's data plane.
    Data {
        /// Which.
        fault: SimFault,
        /// Of which volume.
        volume: Role,
        /// At which of the operations that can meet it.
        when: When,
    },
}

/// A text that names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSpec {
    /// No such kind.
    #[error("no fault is called `{0}`; see `lbaudit list faults`")]
    Kind(String),
    /// No such call, or no call of that kind can meet the fault.
    #[error("`{kind}` cannot meet `{place}`; give one of {known}")]
    Place {
        /// The fault.
        kind: String,
        /// What was given.
        place: String,
        /// What could be.
        known: String,
    },
    /// The number is none.
    #[error("`{0}` is not the number of a call; give 1, 2, ... or 3+ for the 3rd and all later")]
    Number(String),
}

impl FaultSpec {
    /// The name of its kind; a data plane's begins with `data:`.
    pub fn kind(&self) -> String {
        match self {
            FaultSpec::Api { fault, .. } => fault.name().to_owned(),
            FaultSpec::Data { fault, .. } => format!("{DATA}{}", fault.name()),
        }
    }
    /// When it happens.
    pub fn when(&self) -> When {
        match self {
            FaultSpec::Api { when, .. } | FaultSpec::Data { when, .. } => *when,
        }
    }
}

impl FromStr for FaultSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<FaultSpec, BadSpec> {
        let (kind, at) = text.split_once('@').unwrap_or((text, "1"));
        let (place, number) = match at.rsplit_once(':') {
            Some((place, number)) => (Some(place), number),
            None => (None, at),
        };
        let digits = number.strip_suffix('+').unwrap_or(number);
        let nth = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let nth: Option<u32> = nth.filter(|&nth| nth > 0);
        let nth = nth.ok_or_else(|| BadSpec::Number(number.to_owned()))?;
        let when = When { nth, for_ever: number.ends_with('+') };
        let no_place = |known: Vec<String>| BadSpec::Place {
            kind: kind.to_owned(),
            place: place.unwrap_or_default().to_owned(),
            known: known.join(", "),
        };
        let unknown = || BadSpec::Kind(kind.to_owned());
        if let Some(name) = kind.strip_prefix(DATA) {
            let fault = SimFault::from_name(name).ok_or_else(unknown)?;
            let named = |place| ROLES.into_iter().find(|role| role.to_string() == place);
            let volume = place.map_or(Some(Role::Source), named);
            let known = || ROLES.iter().map(ToString::to_string).collect();
            let volume = volume.ok_or_else(|| no_place(known()))?;
            return Ok(FaultSpec::Data { fault, volume, when });
        }
        let fault = ApiFault::from_name(kind).ok_or_else(unknown)?;
        let can = || Call::ALL.iter().copied().filter(move |call| fault.row().meets.call(*call));
        let call = match place {
            None => None,
            Some(place) => match can().find(|call| call.name() == place) {
                Some(call) => Some(call),
                None => return Err(no_place(can().map(|call| call.name().to_owned()).collect())),
            },
        };
        Ok(FaultSpec::Api { fault, call, when })
    }
}

impl fmt::Display for FaultSpec {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.when();
        match self {
            FaultSpec::Api { fault, call: None, .. } => write!(f, "{}@{when}", fault.name()),
            FaultSpec::Api { fault, call: Some(call), .. } => {
                write!(f, "{}@{}:{when}", fault.name(), call.name())
            }
            FaultSpec::Data { volume, .. } => write!(f, "{}@{volume}:{when}", self.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_names_kind_place_and_number_and_prints_as_it_is_read() {
        let read = |text: &str| text.parse::<FaultSpec>();
        assert_eq!(
            read("truncated-json@diff:2+"),
            Ok(FaultSpec::Api {
                fault: ApiFault::Truncated,
                call: Some(Call::Diff),
                when: When::from(2)
            })
        );
        for (text, shown) in [
            ("status-503", "status-503@1"),
            ("status-503@7", "status-503@7"),
            ("429@list-snapshots:1+", "429@list-snapshots:1+"),
            ("unsorted@diff:3", "unsorted@diff:3"),
            ("data:short-write@2", "data:short-write@source:2"),
            ("data:metadata@target:1", "data:metadata@target:1"),
        ] {
            assert_eq!(read(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_names_no_fault_is_refused_with_what_there_is() {
        let refused = |text: &str| text.parse::<FaultSpec>().expect_err(text).to_string();
        assert!(refused("nonsense@1").contains("`nonsense`; see `lbaudit list faults`"));
        assert!(refused("data:nonsense").contains("`data:nonsense`"));
        for text in ["unsorted@", "unsorted@0", "unsorted@x", "unsorted@-1", "unsorted@diff:"] {
            assert!(refused(text).contains("not the number of a call"), "{text}");
        }
        assert!(refused("unsorted@get-volume:1").ends_with("give one of diff"));
        assert!(refused("data:metadata@clone:1").ends_with("source, target, neighbour"));
    }
}
