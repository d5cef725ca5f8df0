//! Which cases a run does of a campaign: a shard of them, but for those that an earlier run did.
//!
//! A campaign's cases are numbered from 0. Shard `I/N` does those whose number leaves `I` when
//! divided by `N`: the shards of one `N` are disjoint, and together they are the campaign. Within a
//! shard, cases go by their *place*, from 0 without gaps. Not covered: what a case is (its number
//! and the seed say it), who starts the shards.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A part of a campaign that one host or process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    index: u64,
    count: u64,
}

/// The text is no shard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no shard: give I/N, the I-th of N counted from 0, for example 0/4")]
pub struct BadShard(String);

impl Shard {
    /// The whole campaign.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Shard `index` of `count`, counted from 0.
    pub const fn new(index: u64, count: u64) -> Option<Shard> {
        if index < count { Some(Shard { index, count }) } else { None }
    }
    /// How many shards there are.
    pub const fn count(self) -> u64 {
        self.count
    }
    /// The number of the case at a place of this shard; places past 2^64 cases give the last one.
    pub const fn case(self, place: u64) -> u64 {
        place.saturating_mul(self.count).saturating_add(self.index)
    }
    /// How many of a campaign's first `cases` cases are this shard's.
    pub const fn share(self, cases: u64) -> u64 {
        cases.saturating_sub(self.index).div_ceil(self.count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = BadShard;
    fn from_str(text: &str) -> Result<Shard, BadShard> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(index, count)| index.parse().ok().zip(count.parse().ok()));
        let shard = parts.and_then(|(index, count)| Shard::new(index, count));
        shard.ok_or_else(|| BadShard(text.to_owned()))
    }
}

/// Places of cases that were done: sorted, disjoint, not touching.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places(Vec<Range<u64>>);

impl Places {
    /// Adds the places of a range, whichever of them are in already.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|have| have.end < range.start);
        let to = self.0.partition_point(|have| have.start <= range.end);
        let touched = self.0.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(range.start, |first| first.start.min(range.start));
        let end = touched.last().map_or(range.end, |last| last.end.max(range.end));
        self.0.splice(from..to, std::iter::once(start..end));
    }
    /// Whether a place is in.
    pub fn has(&self, place: u64) -> bool {
        let from = self.0.partition_point(|have| have.end <= place);
        self.0.get(from).is_some_and(|have| have.start <= place)
    }
    /// The first place that is not in.
    pub fn first_missing(&self) -> u64 {
        self.0.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }
    /// How many are in.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
    /// All that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().cloned().flatten()
    }
}

impl Serialize for Places {
    /// As pairs `[first, end)`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|range| (range.start, range.end)))
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Places, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut places = Places::default();
        let mut last = 0;
        for (start, end) in pairs {
            if start >= end || start < last {
                return Err(serde::de::Error::custom(format_args!(
                    "[{start},{end}] is no range of places behind {last}"
                )));
            }
            places.add(start..end);
            last = end;
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn shards_are_read_strictly() {
        assert_eq!("0/1".parse(), Ok(Shard::WHOLE));
        assert_eq!("3/4".parse::<Shard>().map(|shard| shard.to_string()), Ok("3/4".to_owned()));
        for text in ["4/4", "0/0", "1", "", "/", "-1/4", "a/b", "1/2/3"] {
            assert_eq!(text.parse::<Shard>(), Err(BadShard(text.to_owned())));
        }
    }

    #[test]
    fn places_are_read_strictly() {
        for text in ["[[5,3]]", "[[3,3]]", "[[0,4],[3,9]]", "[[4,6],[0,2]]", "[[0]]", "[[-1,2]]"] {
            assert!(serde_json::from_str::<Places>(text).is_err(), "{text}");
        }
        let read: Places = serde_json::from_str("[[0,2],[4,6]]").expect("reads");
        assert_eq!(read.count(), 4);
    }

    proptest! {
        #[test]
        fn shards_are_disjoint_and_together_the_campaign(cases in 0u64..300, count in 1u64..9) {
            let mut all: Vec<u64> = (0..count)
                .filter_map(|index| Shard::new(index, count))
                .flat_map(|shard| (0..shard.share(cases)).map(move |place| shard.case(place)))
                .collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..cases).collect::<Vec<u64>>());
        }

        #[test]
        fn places_are_a_set(ranges in prop::collection::vec((0u64..60, 0u64..12), 0..12)) {
            let (mut places, mut twin) = (Places::default(), BTreeSet::new());
            for (start, len) in ranges {
                places.add(start..start + len);
                twin.extend(start..start + len);
            }
            prop_assert_eq!(places.count(), twin.len() as u64);
            prop_assert!(places.iter().eq(twin.iter().copied()));
            prop_assert!((0..80).all(|place| places.has(place) == twin.contains(&place)));
            prop_assert_eq!(Some(places.first_missing()), (0..100).find(|at| !twin.contains(at)));
            prop_assert!(places.0.windows(2).all(|pair| pair[0].end < pair[1].start));
            let text = serde_json::to_string(&places).expect("encodes");
            prop_assert_eq!(serde_json::from_str::<Places>(&text).expect("reads"), places);
        }
    }
}
