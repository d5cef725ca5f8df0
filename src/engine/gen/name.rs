//! Names of cases: `g1:SEED:CASE` is the whole of what a generated case depends on, apart from its
//! profile. Not covered: the profile, which is named beside it.

use std::fmt;
use std::str::FromStr;

/// Version of the generator: it changes whenever any seed gives another scenario than before, so
/// that an old name is refused and never replays something else.
pub const GENERATOR_VERSION: u32 = 1;

/// Name of one generated case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CaseName {
    /// Seed of the campaign.
    pub seed: u64,
    /// Number of the case in it, from 0; it alone decides the case's focus.
    pub case: u64,
}

/// The text names no case of this generator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCaseName {
    /// It is spelled otherwise.
    #[error("`{0}` is not the name of a generated case (g{GENERATOR_VERSION}:SEED:CASE)")]
    NotAName(String),
    /// It was drawn by another generator.
    #[error(
        "`{name}` was drawn by generator version {version}, this program has version \
         {GENERATOR_VERSION} and would draw another case: replay its trace file instead"
    )]
    Version {
        /// The whole name.
        name: String,
        /// Its version.
        version: u32,
    },
}

impl FromStr for CaseName {
    type Err = BadCaseName;
    fn from_str(text: &str) -> Result<CaseName, BadCaseName> {
        let parse = || {
            let mut parts = text.strip_prefix('g')?.split(':');
            let version: u32 = parts.next()?.parse().ok()?;
            let seed = parts.next()?.parse().ok()?;
            let case = parts.next()?.parse().ok()?;
            let name = CaseName { seed, case };
            // Printing again refuses `g1:+1:02` and whatever follows.
            (name.spelled(version) == text).then_some((version, name))
        };
        match parse() {
            Some((GENERATOR_VERSION, name)) => Ok(name),
            Some((version, _)) => Err(BadCaseName::Version { name: text.to_owned(), version }),
            None => Err(BadCaseName::NotAName(text.to_owned())),
        }
    }
}

impl CaseName {
    fn spelled(self, version: u32) -> String {
        format!("g{version}:{}:{}", self.seed, self.case)
    }
}

impl fmt::Display for CaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{GENERATOR_VERSION}:{}:{}", self.seed, self.case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_other_versions_are_refused() {
        let name = CaseName { seed: u64::MAX, case: 17 };
        assert_eq!(name.to_string(), "g1:18446744073709551615:17");
        assert_eq!(name.to_string().parse(), Ok(name));
        let other = "g2:1:3".parse::<CaseName>();
        assert_eq!(other, Err(BadCaseName::Version { name: "g2:1:3".to_owned(), version: 2 }));
        for bad in ["", "g1", "g1:1", "g1:1:2:3", "g1:01:2", "g1:+1:2", "1:2:3", "g:1:2"] {
            assert_eq!(bad.parse::<CaseName>(), Err(BadCaseName::NotAName(bad.to_owned())));
        }
    }
}
