//! What is shown while a test runs: a braille spinner on a terminal, a line every 30 s elsewhere.
//!
//! Everything goes to one writer (standard error), which is written only while the lock is held, so
//! that the drawing thread and [`Progress::end`] never mix their lines. Not covered: whether there
//! is a terminal (`crate::cli`).

use crate::engine::Event;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgressKind {
    /// One line, redrawn; needs a terminal of this many columns.
    Spinner {
        /// Width of the terminal.
        columns: usize,
    },
    /// A line every 30 seconds.
    Lines,
    /// Nothing.
    None,
}

const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const REDRAW: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Back to the first column and clear the line (ECMA-48 EL).
const CLEAR: &str = "\r\x1b[K";

/// What is going on.
struct Current {
    /// What stands in front of the spinner.
    prefix: String,
    name: String,
    activity: String,
    started: Instant,
}

struct State {
    out: Box<dyn Write + Send>,
    current: Option<Current>,
    /// Frames or heartbeats drawn so far.
    tick: usize,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Progress is decoration: a panic elsewhere must not turn into a second one here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The progress display. Its thread ends when this is dropped.
pub struct Progress {
    kind: ProgressKind,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts showing progress on `out`; errors of `out` are ignored, for it is decoration.
    pub fn start(kind: ProgressKind, out: Box<dyn Write + Send>) -> Progress {
        let state = State { out, current: None, tick: 0, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let thread = (kind != ProgressKind::None)
            .then(|| {
                let shared = Arc::clone(&shared);
                let name = "progress".to_owned();
                std::thread::Builder::new().name(name).spawn(move || draw(kind, &shared)).ok()
            })
            .flatten();
        Progress { kind, shared, thread }
    }
    /// A test begins.
    pub fn begin(&self, prefix: &str, name: &str) {
        let (prefix, name, activity) = (prefix.to_owned(), name.to_owned(), String::new());
        let mut state = self.shared.lock();
        state.current = Some(Current { prefix, name, activity, started: Instant::now() });
        state.tick = 0;
        self.shared.wake.notify_all();
    }
    /// Something happened in it.
    pub fn event(&self, event: &Event) {
        if self.kind == ProgressKind::None {
            return;
        }
        if let (Some(activity), Some(current)) =
            (activity_of(event), self.shared.lock().current.as_mut())
        {
            current.activity = activity;
        }
    }
    /// The test ended; its line is gone when this returns.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        if state.current.take().is_some() && matches!(self.kind, ProgressKind::Spinner { .. }) {
            let _ = state.out.write_all(CLEAR.as_bytes()).and_then(|()| state.out.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the drawing thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn draw(kind: ProgressKind, shared: &Shared) {
    let mut state = shared.lock();
    while !state.stop {
        let wait = if state.current.is_none() { HEARTBEAT } else { REDRAW };
        let (woken, _) =
            shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        let Some(current) = &state.current else { continue };
        let elapsed = current.started.elapsed();
        let text = match kind {
            ProgressKind::Spinner { columns } => frame(current, elapsed, state.tick, columns),
            ProgressKind::Lines if elapsed >= HEARTBEAT * due(state.tick) => {
                heartbeat(current, elapsed)
            }
            ProgressKind::Lines | ProgressKind::None => continue,
        };
        state.tick += 1;
        let _ = state.out.write_all(text.as_bytes()).and_then(|()| state.out.flush());
    }
}

/// Heartbeat number `tick` is due after so many periods.
fn due(tick: usize) -> u32 {
    u32::try_from(tick).unwrap_or(u32::MAX - 1) + 1
}

fn frame(current: &Current, elapsed: Duration, tick: usize, columns: usize) -> String {
    let spin = FRAMES[tick % FRAMES.len()];
    let took = crate::suite::seconds(elapsed);
    let line = match current.activity.as_str() {
        "" => format!("{}{spin} {took}", current.prefix),
        activity => format!("{}{spin} {took} · {activity}", current.prefix),
    };
    // A line that wraps cannot be redrawn.
    let line: String = line.chars().take(columns.saturating_sub(1)).collect();
    format!("{CLEAR}{line}")
}

fn heartbeat(current: &Current, elapsed: Duration) -> String {
    let Current { name, activity, .. } = current;
    let doing = if activity.is_empty() { String::new() } else { format!(" ({activity})") };
    format!("… {name} running {}s{doing}\n", elapsed.as_secs())
}

/// What the run is doing now, in a few words, if this event says it.
fn activity_of(event: &Event) -> Option<String> {
    match event {
        Event::Step { op, .. } => Some(op.to_string()),
        Event::Page { page, .. } => Some(format!("diff page {page}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;
    use crate::scenario::Op;

    /// A writer whose text can be looked at afterwards.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("UTF-8")
        }
    }

    fn current(activity: &str) -> Current {
        let (prefix, name) = ("[2/20] full_scan ... ".to_owned(), "full_scan".to_owned());
        Current { prefix, name, activity: activity.to_owned(), started: Instant::now() }
    }

    #[test]
    fn frames_turn_and_never_wrap() {
        let took = Duration::from_millis(2_140);
        let line = frame(&current("diff page 2"), took, 2, 80);
        assert_eq!(line, format!("{CLEAR}[2/20] full_scan ... ⠹ 2.1s · diff page 2"));
        let narrow = frame(&current("diff page 2"), took, 12, 10);
        assert_eq!(narrow, format!("{CLEAR}[2/20] fu"));
    }

    #[test]
    fn a_heartbeat_is_a_plain_line() {
        let line = heartbeat(&current("sync s1"), Duration::from_secs(61));
        assert_eq!(line, "… full_scan running 61s (sync s1)\n");
        assert!(!line.contains('\x1b'));
        assert_eq!([due(0), due(1)], [1, 2]);
    }

    #[test]
    fn the_spinner_draws_while_a_test_runs_and_clears_its_line() {
        let sink = Sink::default();
        let progress =
            Progress::start(ProgressKind::Spinner { columns: 80 }, Box::new(sink.clone()));
        progress.begin("[1/20] no_change_diff ", "no_change_diff");
        progress.event(&Event::Step { index: 0, op: Op::Write { at: Extent::lbas(0, 8) } });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !sink.text().contains("write 0+8") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        progress.end();
        let drawn = sink.text();
        assert!(drawn.contains("write 0+8") && drawn.ends_with(CLEAR), "{drawn:?}");
        drop(progress);
        assert_eq!(sink.text(), drawn, "nothing is drawn after the end");
    }

    #[test]
    fn without_a_display_nothing_is_written() {
        let sink = Sink::default();
        let progress = Progress::start(ProgressKind::None, Box::new(sink.clone()));
        progress.begin("", "x");
        progress.end();
        drop(progress);
        assert_eq!(sink.text(), "");
    }
}
