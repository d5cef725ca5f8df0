//! The second judge in the self-test: runs that the oracle judged are judged again from their
//! records (`crate::judge`), and the two must say the same.
//!
//! Whatever the second judge cannot see is set aside by its name and is no agreement: the form of
//! pages, deadlines, figures and the explicit checks of the fixed suite, of which no recording holds
//! enough. Not covered: choosing the runs (`super::selftest_matrix`).

use super::case::record_case;
use crate::engine::Event;
use crate::judge::{Judgement, Record, Remark, TooLarge, judge};
use crate::scenario::Scenario;
use crate::sim::SimError;
use std::collections::{BTreeMap, BTreeSet};

/// Under this name runs are set aside in which nothing is there to judge.
const NOTHING: &str = "nothing to judge";
/// Under this name runs are set aside that touch more LBAs than the second judge keeps records of.
const TOO_LARGE: &str = "too large";

/// A run on which the two judges differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disagreement {
    /// The run.
    pub case: String,
    /// What each of them says of which step.
    pub sentence: String,
}

/// What the second judge made of the runs it was shown. Each run is agreed on, differed on or set
/// aside, one of the three.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecondScore {
    /// Runs on which both judges say the same.
    pub agreed: u64,
    /// Those of them in which both call something wrong.
    pub wrong: u64,
    /// Runs on which they differ.
    pub disagreements: Vec<Disagreement>,
    /// Runs that show nothing the second judge could have an opinion on: how many, by the kind that
    /// only the oracle sees, or by the reason.
    pub set_aside: BTreeMap<String, u64>,
}

impl SecondScore {
    /// Runs a case once more in process, for both judges, and counts what they say.
    ///
    /// # Errors
    /// The simulator's, if the header describes no world.
    pub fn hear(&mut self, case: &str, scenario: &Scenario) -> Result<(), SimError> {
        let mut records: Vec<Record> = Vec::new();
        record_case(scenario, &mut |event| {
            if let Event::Record(record) = event {
                records.push(*record);
            }
        })?;
        self.count(case, judge(&records));
        Ok(())
    }

    /// Counts one judgement.
    fn count(&mut self, case: &str, judgement: Result<Judgement, TooLarge>) {
        let Ok(judgement) = judgement else { return self.aside(TOO_LARGE) };
        let unseen: BTreeSet<&str> =
            judgement.not_rejudged.iter().map(|remark| remark.kind.as_str()).collect();
        match judgement.disagreements.first() {
            Some(Remark { step, sentence, .. }) => {
                let sentence = format!("step {}: {sentence}", step + 1);
                self.disagreements.push(Disagreement { case: case.to_owned(), sentence });
            }
            None if !judgement.violations.is_empty() => {
                self.agreed += 1;
                self.wrong += 1;
            }
            // That it has nothing to say of these is no praise.
            None if !unseen.is_empty() => unseen.into_iter().for_each(|kind| self.aside(kind)),
            None if !judgement.compared() => self.aside(NOTHING),
            None => self.agreed += 1,
        }
    }

    fn aside(&mut self, name: &str) {
        *self.set_aside.entry(name.to_owned()).or_default() += 1;
    }

    /// Runs that were judged twice.
    pub fn traces(&self) -> u64 {
        self.agreed + self.disagreements.len() as u64
    }

    /// Adds the runs of `other`, behind those that are here.
    pub fn merge(&mut self, other: &SecondScore) {
        self.agreed += other.agreed;
        self.wrong += other.wrong;
        self.disagreements.extend(other.disagreements.iter().cloned());
        for (name, runs) in &other.set_aside {
            *self.set_aside.entry(name.clone()).or_default() += runs;
        }
    }

    /// Everything that keeps a self-test from passing.
    pub fn faults(&self) -> Vec<String> {
        if self.traces() == 0 {
            return vec!["the second judge was shown nothing that it could judge".to_owned()];
        }
        let differs = |Disagreement { case, sentence }: &Disagreement| {
            format!("the judges differ on {case}: {sentence}")
        };
        self.disagreements.iter().map(differs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::witness::witness;

    fn planted(name: &str) -> Scenario {
        let mut scenario = witness(name).expect("has a witness");
        scenario.header.planted = vec![name.to_owned()];
        scenario
    }

    fn heard(name: &str) -> SecondScore {
        let mut score = SecondScore::default();
        score.hear(name, &planted(name)).expect("sets up");
        score
    }

    #[test]
    fn a_run_that_both_call_wrong_is_agreed_on() {
        let score = heard("bit63-dropped");
        assert_eq!((score.traces(), score.agreed, score.wrong), (1, 1, 1));
        assert_eq!(score.faults(), Vec::<String>::new());
        let mut honest = SecondScore::default();
        let mut scenario = planted("bit63-dropped");
        scenario.header.planted.clear();
        honest.hear("honest", &scenario).expect("sets up");
        assert_eq!((honest.agreed, honest.wrong), (1, 0));
    }

    #[test]
    fn what_only_the_oracle_sees_is_set_aside_by_its_kind_and_is_no_agreement() {
        let score = heard("create-never-available");
        assert_eq!((score.traces(), score.agreed), (0, 0));
        assert_eq!(score.set_aside, BTreeMap::from([("liveness".to_owned(), 1)]));
        assert_eq!(score.faults(), ["the second judge was shown nothing that it could judge"]);
    }

    #[test]
    fn a_judge_that_keeps_silent_is_named_with_the_run() {
        let mut records: Vec<Record> = Vec::new();
        record_case(&planted("bit63-dropped"), &mut |event| {
            if let Event::Record(record) = event {
                records.push(*record);
            }
        })
        .expect("sets up");
        let before = records.len();
        records.retain(|record| !matches!(record, Record::Violated { .. }));
        assert!(records.len() < before, "the oracle had said something");
        let mut score = SecondScore::default();
        score.count("g1:1:7 with bit63-dropped", judge(&records));
        assert_eq!((score.traces(), score.agreed), (1, 0));
        let said = "this judge says missed, the recording says nothing wrong";
        assert_eq!(
            score.faults(),
            [format!("the judges differ on g1:1:7 with bit63-dropped: step 3: {said}")]
        );
    }

    #[test]
    fn scores_of_several_threads_add_up() {
        let mut all = heard("bit63-dropped");
        let mut other = heard("create-never-available");
        other.count("empty", Ok(Judgement::default()));
        other.count("huge", Err(TooLarge));
        other.disagreements.push(Disagreement { case: "x".into(), sentence: "y".into() });
        all.merge(&other);
        assert_eq!((all.traces(), all.agreed, all.wrong), (2, 1, 1));
        let names: Vec<&str> = all.set_aside.keys().map(String::as_str).collect();
        assert_eq!(names, ["liveness", NOTHING, TOO_LARGE]);
        assert_eq!(all.faults(), ["the judges differ on x: y"]);
    }
}
