//! Patience with an array that is unwell: a long run pauses, keeps its place and tries the same case
//! again, until it can be judged or patience is at its end.
//!
//! Not covered: single calls, which are repeated for seconds below (`crate::lightbits`), and what a
//! case that could not be judged means (`super::check`).

use super::case::CaseOutcome;
use crate::array::Clock;
use crate::oracle::{Reason, Verdict};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_secs(5);
/// Pauses double up to this.
const LONGEST: Duration = Duration::from_secs(300);
/// How quickly a pause notices the stop flag.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// How long to be patient, by which clock, and who may say stop.
pub struct Patience<'p> {
    /// How long one case may wait for the array to be well again.
    pub most: Duration,
    /// Time.
    pub clock: &'p dyn Clock,
    /// Set to end a pause early.
    pub stop: &'p AtomicBool,
    /// Told of every pause, and of its end.
    pub say: &'p (dyn Fn(&str) + Sync),
    /// Whether it is at its end: until a case can be judged again, none is waited for.
    pub spent: AtomicBool,
}

impl Patience<'_> {
    /// Runs a case until it can be judged. One that cannot be after all that time is answered so.
    pub fn with(&self, mut run: impl FnMut() -> CaseOutcome) -> CaseOutcome {
        let began = self.clock.now();
        let mut pause = FIRST;
        let mut paused = false;
        loop {
            let outcome = run();
            let waited = self.clock.now().saturating_sub(began);
            let why = match &outcome.verdict {
                Verdict::Unknown(reason @ (Reason::Api(_) | Reason::Device(_))) => reason,
                _ => {
                    self.spent.store(false, Ordering::Relaxed);
                    if paused {
                        (self.say)(&format!("well again after {} s", waited.as_secs()));
                    }
                    return outcome;
                }
            };
            if waited + pause > self.most {
                self.spent.store(true, Ordering::Relaxed);
            }
            if self.spent.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed) {
                return outcome;
            }
            (self.say)(&format!("the target is unwell, pausing {} s: {why}", pause.as_secs()));
            paused = true;
            self.pause(pause);
            pause = (pause * 2).min(LONGEST);
            if self.stop.load(Ordering::Relaxed) {
                return CaseOutcome::unknown(Reason::Interrupted);
            }
        }
    }

    fn pause(&self, time: Duration) {
        let began = self.clock.now();
        while self.clock.now().saturating_sub(began) < time && !self.stop.load(Ordering::Relaxed) {
            self.clock.sleep(STOP_CHECK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::VirtualClock;
    use std::sync::Mutex;

    fn unwell() -> CaseOutcome {
        CaseOutcome::unknown(Reason::Api("503".to_owned()))
    }

    /// Runs a case that is unwell so many times; answers what it came to, how often it ran, what was
    /// said and how long it took.
    fn run(ill: u32, most_s: u64) -> (CaseOutcome, u32, Vec<String>, u64) {
        let (clock, stop, said) = (VirtualClock::new(), AtomicBool::new(false), Mutex::default());
        let say = |text: &str| -> () {
            let said: &Mutex<Vec<String>> = &said;
            said.lock().expect("no panic").push(text.to_owned());
        };
        let most = Duration::from_secs(most_s);
        let patience =
            Patience { most, clock: &clock, stop: &stop, say: &say, spent: AtomicBool::new(false) };
        let mut runs = 0;
        let outcome = patience.with(|| {
            runs += 1;
            if runs <= ill { unwell() } else { CaseOutcome::unknown(Reason::NothingCompared) }
        });
        let said = said.into_inner().expect("no panic");
        (outcome, runs, said, clock.now().as_secs())
    }

    #[test]
    fn a_case_is_tried_again_after_ever_longer_pauses() {
        let (outcome, runs, said, took) = run(3, 3600);
        assert_eq!(outcome.verdict, Verdict::Unknown(Reason::NothingCompared));
        assert_eq!((runs, took), (4, 5 + 10 + 20));
        assert_eq!(said[0], "the target is unwell, pausing 5 s: 503");
        assert_eq!(said[3], "well again after 35 s");
        assert_eq!(run(0, 3600).2, Vec::<String>::new(), "a well array is not talked about");
    }

    #[test]
    fn patience_ends() {
        let (outcome, runs, _, took) = run(u32::MAX, 3600);
        assert_eq!(outcome.verdict, unwell().verdict);
        assert!(took <= 3600 && took > 3000 && runs < 30, "{runs} runs in {took} s");
        assert_eq!(run(u32::MAX, 0).1, 1);
        let (clock, stop) = (VirtualClock::new(), AtomicBool::new(false));
        let (most, spent) = (Duration::from_secs(99), AtomicBool::new(true));
        let patience = Patience { most, clock: &clock, stop: &stop, say: &|_| (), spent };
        patience.with(unwell);
        assert_eq!(clock.now(), Duration::ZERO, "the next case is not waited for");
        patience.with(|| CaseOutcome::unknown(Reason::NothingCompared));
        patience.with(unwell);
        assert!(clock.now() > Duration::from_secs(30), "after one that could be judged it is");
    }

    #[test]
    fn a_stop_ends_the_pause() {
        let (clock, stop) = (VirtualClock::new(), AtomicBool::new(false));
        let say = |_: &str| stop.store(true, Ordering::Relaxed);
        let (most, spent) = (Duration::from_secs(99), AtomicBool::new(false));
        let patience = Patience { most, clock: &clock, stop: &stop, say: &say, spent };
        let outcome = patience.with(unwell);
        assert_eq!(outcome.verdict, Verdict::Unknown(Reason::Interrupted));
    }
}
