//! Signals: the first asks the run to stop and clean up, the second leaves at once. So does the
//! clock: whatever hangs, the process ends within 10 s of the first. Not covered: what is cleaned
//! up; each command does that itself when its flag is set. SIGUSR1 asks how far the command is.

use super::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after the first signal the process ends, whatever hangs: an array that answers
/// nothing, a device that stalls. The bounded clean-up ends earlier where it can.
const PATIENCE: Duration = Duration::from_millis(9_500);

/// Whether, and by which signal, this process was asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    flag: Arc<AtomicBool>,
    signal: AtomicI32,
    /// What removes what an impatient user leaves behind.
    cleanup: Mutex<Option<String>>,
    /// Nothing has begun, and what is waited for looks at no flag: the first signal ends the process.
    at_once: AtomicBool,
    /// How far the command is, and since when that is known.
    state: Mutex<Option<(Instant, String)>>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM, SIGHUP and SIGUSR1 from now on.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Stop> {
        let stop = Stop::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
        let heard = stop.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    // Losing a message on a closed standard error is fine.
                    drop(writeln!(std::io::stderr(), "{}", heard.state()));
                    continue;
                }
                if heard.shared.at_once.load(Ordering::Relaxed) {
                    heard.shared.signal.store(signal, Ordering::Relaxed);
                    heard.leave("");
                }
                if heard.exit().is_none() {
                    heard.limit_patience();
                }
                heard.hear(signal);
            }
        })?;
        Ok(stop)
    }
    /// The flag that waits and copies look at.
    pub fn flag(&self) -> &AtomicBool {
        &self.shared.flag
    }
    /// The same flag, for those who keep it.
    pub fn shared_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.flag)
    }
    /// How the run ends if a signal ended it.
    pub fn exit(&self) -> Option<Exit> {
        match self.shared.signal.load(Ordering::Relaxed) {
            0 => None,
            SIGINT => Some(Exit::Interrupted),
            _ => Some(Exit::Terminated),
        }
    }
    /// While `waits` runs, which looks at no flag, the first signal ends the process. Nothing may have
    /// begun that has to be ended well.
    pub fn at_once<T>(&self, waits: impl FnOnce() -> T) -> T {
        self.shared.at_once.store(true, Ordering::Relaxed);
        let done = waits();
        self.shared.at_once.store(false, Ordering::Relaxed);
        done
    }
    /// From now on something is left behind if this process leaves at once; this removes it.
    pub fn on_second(&self, cleanup: String) {
        *self.shared.cleanup.lock().unwrap_or_else(PoisonError::into_inner) = Some(cleanup);
    }
    /// How far the command is: SIGUSR1 prints it.
    pub fn tell_state(&self, state: String) {
        let mut kept = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((Instant::now(), state));
    }
    fn state(&self) -> String {
        match &*self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((since, state)) => format!("{state}  ({} s ago)", since.elapsed().as_secs()),
            None => "this command says nothing of how far it is, or not yet".to_owned(),
        }
    }
    fn hear(&self, signal: i32) {
        let first =
            self.shared.signal.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        // Losing a message on a closed standard error is fine; failing over it is not.
        let say = |text: &str| drop(writeln!(std::io::stderr(), "{text}"));
        let cleanup = self.shared.cleanup.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if first.is_ok() {
            self.shared.flag.store(true, Ordering::Relaxed);
            if cleanup.is_some() {
                say("stopping: deleting this run's snapshots (once more to leave them)");
            }
            return;
        }
        self.leave("left at once");
    }
    /// Ends the process after [`PATIENCE`], whatever it is doing.
    fn limit_patience(&self) {
        let late = self.clone();
        let watch = move || {
            std::thread::sleep(PATIENCE);
            late.leave("gave up waiting");
        };
        // Without the watch a second signal still ends the process.
        drop(std::thread::Builder::new().name("patience".to_owned()).spawn(watch));
    }
    /// Ends the process now, saying how to remove what is left.
    fn leave(&self, why: &str) -> ! {
        let cleanup = self.shared.cleanup.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(command) = cleanup {
            // Losing a message on a closed standard error is fine; failing over it is not.
            drop(writeln!(std::io::stderr(), "{why}; to remove what is left: {command}"));
        }
        std::process::exit(i32::from(self.exit().unwrap_or(Exit::Interrupted).code()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_sets_the_flag_and_names_the_exit() {
        let stop = Stop::default();
        assert_eq!(stop.exit(), None);
        stop.hear(SIGTERM);
        assert!(stop.flag().load(Ordering::Relaxed));
        assert_eq!(stop.exit(), Some(Exit::Terminated));
        let stop = Stop::default();
        stop.hear(SIGINT);
        assert_eq!(stop.exit(), Some(Exit::Interrupted));
        assert_eq!(stop.state(), "this command says nothing of how far it is, or not yet");
        stop.tell_state("7 cases".to_owned());
        assert_eq!(stop.state(), "7 cases  (0 s ago)");
    }
}
