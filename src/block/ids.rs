//! Names of things on the array: volumes, snapshots, this tool's runs. Each its own type. Not
//! covered: whether anything of that name exists.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The identifier with these 128 bits.
            pub const fn from_u128(bits: u128) -> $name {
                $name(Uuid::from_u128(bits))
            }
            /// The 128 bits.
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
            /// A new random identifier.
            pub fn random() -> $name {
                $name(Uuid::new_v4())
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<$name, uuid::Error> {
                text.parse().map($name)
            }
        }
        impl fmt::Display for $name {
            /// Lower case with hyphens, as the API and sysfs spell it.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
uuid_type!(
    /// Identity of a volume on the array.
    VolumeUuid
);
uuid_type!(
    /// Identity of a snapshot on the array.
    SnapshotUuid
);

/// Which volume of a scenario is meant.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The volume that is written and snapshotted.
    #[default]
    Source,
    /// The volume that syncs copy to.
    Target,
    /// A bystander whose changes must stay its own.
    Neighbour,
    /// A clone of one of the source's snapshots.
    Clone,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Source, Role::Target, Role::Neighbour, Role::Clone];
    /// The name in traces and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Target => "target",
            Role::Neighbour => "neighbour",
            Role::Clone => "clone",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identity of one run of this tool: 80 random bits, never used twice, carried by every snapshot
/// name and every written block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u128);

/// The text is not a run id or snapshot name of this tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name this tool gives")]
pub struct BadName(String);

/// Crockford's base 32: no letter that is read as a digit.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RUN_ID_CHARS: usize = 16;

impl RunId {
    /// The run id with the low 80 of these bits.
    pub const fn from_u128(bits: u128) -> RunId {
        RunId(bits & ((1 << 80) - 1))
    }
    /// The 80 bits.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
    /// The low 64 of the 80 bits: what fits into a block's stamp.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn low_u64(self) -> u64 {
        self.0 as u64
    }
    /// The digits of its text.
    fn chars(self) -> [u8; RUN_ID_CHARS] {
        std::array::from_fn(|place| {
            BASE32[(self.0 >> ((RUN_ID_CHARS - 1 - place) * 5) & 31) as usize]
        })
    }
    /// A new random run id.
    pub fn random() -> RunId {
        // A version-4 UUID has six fixed bits; two of them, rotated, leave none.
        RunId::from_u128(Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(40))
    }
}

fn base32_value(c: u8) -> Option<u128> {
    BASE32.iter().position(|&b| b == c).map(|value| value as u128)
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names are made for every snapshot of every case: in one go, not by the character.
        f.write_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

impl FromStr for RunId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<RunId, BadName> {
        let bits = text.bytes().try_fold(0u128, |bits, c| Some(bits << 5 | base32_value(c)?));
        match bits {
            Some(bits) if text.len() == RUN_ID_CHARS => Ok(RunId(bits)),
            _ => Err(BadName(text.to_owned())),
        }
    }
}

/// Name of a snapshot of this tool: `tsync-<run id>-<sequence>-<check>`. The check character makes
/// a look-alike name of somebody else unlikely to be taken for ours (`safety.md`, promise 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName {
    run: RunId,
    seq: u32,
}

impl SnapshotName {
    /// What every snapshot name of this tool starts with.
    pub const PREFIX: &str = "tsync-";

    /// The name of the run's snapshot number `seq`.
    pub const fn new(run: RunId, seq: u32) -> SnapshotName {
        SnapshotName { run, seq }
    }
    /// The run that gave the name.
    pub const fn run(self) -> RunId {
        self.run
    }
    /// Its number inside the run.
    pub const fn seq(self) -> u32 {
        self.seq
    }
    /// The check character of a run id's digits and a number's.
    fn check(run: &[u8], seq: &[u8]) -> u8 {
        // Any digit or swap of two digits changes a position-weighted sum modulo a prime.
        let text = run.iter().chain(seq);
        let sum = text.zip(1u32..).fold(0u32, |sum, (&c, place)| sum + u32::from(c) * place);
        BASE32[(sum % 31) as usize]
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One name for every snapshot of every case: put together by hand, written in one go.
        const DIGITS_MAX: usize = 10;
        let (mut digits, mut from, mut seq) = ([b'0'; DIGITS_MAX], DIGITS_MAX, self.seq);
        loop {
            from -= 1;
            digits[from] = b"0123456789"[(seq % 10) as usize];
            seq /= 10;
            if seq == 0 {
                break;
            }
        }
        let (run, seq) = (self.run.chars(), &digits[from..]);
        let check = [SnapshotName::check(&run, seq)];
        let parts: [&[u8]; 6] = [Self::PREFIX.as_bytes(), &run, b"-", seq, b"-", &check];
        let mut text = [0u8; Self::PREFIX.len() + RUN_ID_CHARS + 1 + DIGITS_MAX + 2];
        let mut len = 0;
        for part in parts {
            text[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        f.write_str(std::str::from_utf8(&text[..len]).unwrap_or_default())
    }
}

impl FromStr for SnapshotName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<SnapshotName, BadName> {
        let bad = || BadName(text.to_owned());
        let mut parts = text.strip_prefix(Self::PREFIX).ok_or_else(bad)?.split('-');
        let (run, seq, check, end) = (parts.next(), parts.next(), parts.next(), parts.next());
        let name = SnapshotName {
            run: run.and_then(|run| run.parse().ok()).ok_or_else(bad)?,
            seq: seq.and_then(|seq| seq.parse().ok()).ok_or_else(bad)?,
        };
        // Printing again refuses `+1`, leading zeros and a wrong check character in one go.
        if check.is_some() && end.is_none() && name.to_string() == text {
            Ok(name)
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_read_back_and_a_changed_character_is_not_ours(bits: u128, seq: u32, at: prop::sample::Index) {
            let name = SnapshotName::new(RunId::from_u128(bits), seq);
            let text = name.to_string();
            prop_assert_eq!(text.parse(), Ok(name));
            let at = at.index(text.len());
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'7' { b'8' } else { b'7' };
            let other = String::from_utf8(other).expect("ascii stays ascii");
            prop_assert!(other.parse::<SnapshotName>().is_err(), "{} passed for {}", other, text);
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for foreign in
            ["tsync-1732300000-snap1", "tsync-", "nightly", "tsync-0000000000000000-1", ""]
        {
            assert!(foreign.parse::<SnapshotName>().is_err(), "{foreign}");
        }
    }

    #[test]
    fn two_runs_never_share_an_id() {
        assert_ne!(RunId::random(), RunId::random());
    }
}
