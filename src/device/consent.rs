//! G15: consent to destroy, given for each volume by name and never in general. Not covered: asking
//! a person, which is the command line's business.

use super::guards::{Guarded, refuse, shown, size_text};
use super::signature::Allowed;
use crate::block::VolumeUuid;
use std::str::FromStr;

/// Characters of a volume's UUID that a script repeats to consent.
const TAIL_CHARS: usize = 12;

/// Consent to overwrite one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsentItem {
    /// The last 12 characters of the volume's UUID, lower case (`--destroy`).
    Tail(String),
    /// The volume's name, typed by a person.
    Name(String),
}

/// The text is no consent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{}` is not the end of a volume UUID; give its last 12 characters, for each volume that may \
     be overwritten",
    shown(.0)
)]
pub struct BadConsent(String);

impl FromStr for ConsentItem {
    type Err = BadConsent;
    /// Reads the value of `--destroy`.
    fn from_str(text: &str) -> Result<ConsentItem, BadConsent> {
        let hex = text.len() == TAIL_CHARS && text.bytes().all(|c| c.is_ascii_hexdigit());
        if hex {
            Ok(ConsentItem::Tail(text.to_ascii_lowercase()))
        } else {
            Err(BadConsent(text.to_owned()))
        }
    }
}

impl ConsentItem {
    fn covers(&self, volume: VolumeUuid, name: &str) -> bool {
        match self {
            ConsentItem::Tail(tail) => volume.to_string().ends_with(tail.as_str()),
            ConsentItem::Name(typed) => !typed.is_empty() && typed == name,
        }
    }
}

/// Everything the user consented to. The empty one consents to nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Consent {
    items: Vec<ConsentItem>,
    signatures: Allowed,
}

impl Consent {
    /// Consent to what is listed.
    pub fn new(items: Vec<ConsentItem>) -> Consent {
        Consent { items, signatures: Allowed::default() }
    }

    /// And what may stand on them and be destroyed (G14).
    pub fn allowing(self, signatures: Allowed) -> Consent {
        Consent { signatures, ..self }
    }

    /// What may stand on the volumes and be destroyed.
    pub fn signatures(&self) -> &Allowed {
        &self.signatures
    }

    /// G15: every volume (identity, name, size in bytes) is consented to.
    ///
    /// # Errors
    /// Listing the volumes that would be overwritten without consent, and the flags to give it.
    pub fn g15_given(&self, volumes: &[(VolumeUuid, &str, u64)]) -> Guarded {
        let missing = |&&(volume, name, _): &&(VolumeUuid, &str, u64)| {
            !self.items.iter().any(|item| item.covers(volume, name))
        };
        let missing: Vec<_> = volumes.iter().filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.iter().map(|(volume, name, bytes)| {
            format!("{} {volume} ({}, {bytes} bytes)", shown(name), size_text(*bytes))
        });
        let flags = missing.iter().map(|(volume, _, _)| {
            let text = volume.to_string();
            format!("--destroy {}", text.get(text.len() - TAIL_CHARS..).unwrap_or_default())
        });
        refuse!(
            "G15",
            "no consent to overwrite {}; all data on them would be lost. if that is meant, add: {}",
            list.collect::<Vec<_>>().join(" and "),
            flags.collect::<Vec<_>>().join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: VolumeUuid = VolumeUuid::from_u128(0x2905_1d6a_0000_4000_8000_0123_4567_89ab);
    const TARGET: VolumeUuid = VolumeUuid::from_u128(0x04aa_8885_0000_4000_8000_ba98_7654_3210);

    fn volumes() -> [(VolumeUuid, &'static str, u64); 2] {
        [(SOURCE, "vol-src", 2 << 30), (TARGET, "vol-dst", (2 << 30) + 4096)]
    }

    fn tails(tails: &[&str]) -> Consent {
        Consent::new(tails.iter().map(|tail| tail.parse().expect("a tail")).collect())
    }

    #[test]
    fn missing_consent_lists_the_volumes_with_their_bytes_and_the_flags() {
        let refusal = Consent::default().g15_given(&volumes()).expect_err("nothing was given");
        assert_eq!(refusal.guard, "G15");
        assert_eq!(
            refusal.to_string(),
            "refused G15: no consent to overwrite vol-src 29051d6a-0000-4000-8000-0123456789ab \
             (2 GiB, 2147483648 bytes) and vol-dst 04aa8885-0000-4000-8000-ba9876543210 \
             (2097156 KiB, 2147487744 bytes); all data on them would be lost. if that is meant, \
             add: --destroy 0123456789ab --destroy ba9876543210"
        );
    }

    #[test]
    fn consent_to_one_volume_is_not_consent_to_the_other() {
        let refusal = tails(&["0123456789AB"]).g15_given(&volumes()).expect_err("one is missing");
        assert!(!refusal.message.contains("vol-src"), "{refusal}");
        assert!(refusal.message.contains("vol-dst"), "{refusal}");
    }

    #[test]
    fn both_tails_or_both_names_consent() {
        assert_eq!(tails(&["0123456789ab", "ba9876543210"]).g15_given(&volumes()), Ok(()));
        let names = ["vol-src", "vol-dst"].map(|name| ConsentItem::Name(name.to_owned()));
        assert_eq!(Consent::new(names.to_vec()).g15_given(&volumes()), Ok(()));
        let wrong = ["vol", ""].map(|name| ConsentItem::Name(name.to_owned()));
        assert!(Consent::new(wrong.to_vec()).g15_given(&volumes()).is_err());
    }

    #[test]
    fn anything_but_twelve_hex_digits_is_no_consent() {
        for bad in ["", "yes", "0123456789a", "0123456789abc", "0123456789ag", "ääääää"] {
            assert!(bad.parse::<ConsentItem>().is_err(), "{bad}");
        }
    }
}
