//! Why a diff had to report what was in flight at a cut: the words a finding needs so that its reader
//! does not take it for a question of timing. Not covered: the law itself (`crate::engine`,
//! `crate::oracle`).

use crate::block::LbaSet;
use crate::engine::Event;
use crate::oracle::{Kind, Verdict, Violation};
use crate::scenario::Label;

/// What was in flight at the cuts of a case, and on which side of them it came out.
#[derive(Default)]
pub(super) struct Cuts(Vec<(Label, LbaSet)>);

impl Cuts {
    /// Remembers what reading a snapshot has decided.
    pub(super) fn event(&mut self, event: &Event) {
        let Event::Seen { snap: Some(label), at, .. } = event else { return };
        match self.0.iter_mut().find(|(known, _)| known == label) {
            Some((_, seen)) => seen.insert(*at),
            None => self.0.push((*label, LbaSet::from(*at))),
        }
    }

    /// The verdict, with words where a missed LBA was in flight at a cut of the diff's two ends.
    pub(super) fn explain(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Fail(violations) if !self.0.is_empty() => {
                Verdict::Fail(violations.into_iter().map(|found| self.words(found)).collect())
            }
            verdict => verdict,
        }
    }

    fn words(&self, mut violation: Violation) -> Violation {
        let ends = [violation.snap, violation.base];
        let at_cut = self.0.iter().find_map(|(label, seen)| {
            let both = seen.intersection(&violation.extents);
            (ends.contains(&Some(*label)) && !both.is_empty()).then_some((label, both))
        });
        if let Some((label, lbas)) = at_cut.filter(|_| violation.kind == Kind::Missed) {
            let words = format!(
                "; {lbas} was in flight at the cut of {label}, whose contents show on which side it came out, and both diffs that meet there must say the same (cut law)"
            );
            violation.sentence.push_str(&words);
        }
        violation
    }
}

#[cfg(test)]
mod tests {
    use crate::campaign::case::run_case;
    use crate::campaign::witness::witness;
    use crate::oracle::{Checks, Kind};

    fn sentence(name: &str) -> (Option<Kind>, String) {
        let mut scenario = witness(name).expect("it has one");
        scenario.header.planted = vec![name.to_owned()];
        let outcome = run_case(&scenario, Checks::ALL, &mut |_| ()).expect("sets up");
        let sentence = outcome.verdict.violation().map(|found| found.sentence.clone());
        (outcome.kind(), sentence.unwrap_or_default())
    }

    #[test]
    fn a_write_lost_at_a_cut_is_explained_and_one_lost_elsewhere_is_not() {
        let (kind, words) = sentence("cut-race-loses-write");
        assert_eq!(kind, Some(Kind::Missed));
        assert!(words.contains("in flight at the cut of s1"), "{words}");
        assert!(words.contains("cut law"), "{words}");
        let (kind, words) = sentence("bit63-dropped");
        assert_eq!(kind, Some(Kind::Missed));
        assert!(!words.contains("cut"), "{words}");
    }
}
