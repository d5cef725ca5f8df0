//! How this process talks to its user: streams, colour, progress. Only here is the environment
//! asked about terminals. Not covered: what the screens hold (`crate::report`).

use super::args::{Form, OutputArgs, ProgressArg, When};
use crate::lightbits::Redactor;
use crate::report::{Progress, ProgressKind, StatusDisplay, Style};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Width where none is known.
const COLUMNS: usize = 80;

/// What is known of the surroundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// Standard output is a terminal.
    pub stdout_terminal: bool,
    /// Standard error is a terminal of this many columns.
    pub stderr_columns: Option<usize>,
    /// NO_COLOR is set (and not empty, as no-color.org wants it).
    pub no_color: bool,
    /// A CI system runs this: its pseudo-terminals are not looked at live.
    pub ci: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn look() -> Surroundings {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stderr = std::io::stderr();
        let width = || tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let columns = || Some(width()).filter(|&columns| columns > 0).unwrap_or(COLUMNS);
        Surroundings {
            stdout_terminal: std::io::stdout().is_terminal() && !dumb,
            stderr_columns: (stderr.is_terminal() && !dumb).then(columns),
            no_color: is_set("NO_COLOR"),
            ci: is_set("CI") || is_set("GITHUB_ACTIONS"),
        }
    }
    fn progress(self, wanted: ProgressArg) -> ProgressKind {
        match (wanted, self.stderr_columns) {
            (ProgressArg::None, _) => ProgressKind::None,
            (ProgressArg::Auto, Some(columns)) if !self.ci => ProgressKind::Spinner { columns },
            (ProgressArg::Spinner, Some(columns)) => ProgressKind::Spinner { columns },
            // Cursor codes never go to a file or pipe, even when asked for.
            (ProgressArg::Auto | ProgressArg::Spinner | ProgressArg::Lines, _) => {
                ProgressKind::Lines
            }
        }
    }
    fn color(self, wanted: When) -> bool {
        match wanted {
            When::Always => true,
            When::Never => false,
            When::Auto => self.stdout_terminal && !self.no_color,
        }
    }
}

/// An event as scripts read it (`cli.md`, "Stable for scripts"). Fields are only ever added; a
/// changed meaning raises `v`.
#[derive(Serialize)]
pub struct Versioned<'a, E> {
    /// The version.
    pub v: u32,
    /// The event.
    #[serde(flatten)]
    pub event: &'a E,
}

/// Why results did not reach whoever wanted them, if they did not.
type Lost = Arc<Mutex<Option<String>>>;

/// Standard output, which remembers that something could not be written. Who closed it wanted no
/// more; a full disk loses a result.
struct Watched<W> {
    inner: W,
    lost: Lost,
}

impl<W> Watched<W> {
    fn watch<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted)
        {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.get_or_insert_with(|| error.to_string());
        }
        done
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes);
        self.watch(done)
    }
    fn flush(&mut self) -> io::Result<()> {
        let done = self.inner.flush();
        self.watch(done)
    }
}

/// The user's side of a command.
pub struct Ui {
    out: Box<dyn Write + Send>,
    lost: Lost,
    err: Box<dyn Write + Send>,
    /// Form of the results.
    pub form: Form,
    /// How screens look.
    pub style: Style,
    progress: ProgressKind,
    redactor: Option<Redactor>,
}

impl Ui {
    /// Standard output and error of this process.
    pub fn standard(args: &OutputArgs, around: Surroundings, verbose: bool) -> Ui {
        let progress = if args.quiet { ProgressKind::None } else { around.progress(args.progress) };
        let style = Style { color: around.color(args.color), verbose, quiet: args.quiet };
        let lost = Lost::default();
        let out = Box::new(Watched { inner: io::stdout(), lost: Arc::clone(&lost) });
        let err = Box::new(io::stderr());
        Ui { out, lost, err, form: args.output, style, progress, redactor: None }
    }
    /// Standard output and error, plain, for commands without output flags.
    pub fn plain() -> Ui {
        let lost = Lost::default();
        let out = Box::new(Watched { inner: io::stdout(), lost: Arc::clone(&lost) });
        let err = Box::new(io::stderr());
        let (form, style, progress) = (Form::Text, Style::default(), ProgressKind::None);
        Ui { out, lost, err, form, style, progress, redactor: None }
    }
    /// Both streams into one text that a test can look at.
    #[cfg(test)]
    pub(crate) fn captured(form: Form) -> (Ui, Captured) {
        let text = Captured::default();
        let (out, err) = (Box::new(text.clone()), Box::new(text.clone()));
        let (style, progress) = (Style::default(), ProgressKind::None);
        let lost = Lost::default();
        (Ui { out, lost, err, form, style, progress, redactor: None }, text)
    }
    /// From now on keeps a token out of every line. What servers say has gone through the same where
    /// it was decoded; this is for what reached a line on any other way.
    pub fn keep_out(&mut self, redactor: Redactor) {
        self.redactor = Some(redactor);
    }
    fn clean<'a>(&self, line: &'a str) -> Cow<'a, str> {
        match &self.redactor {
            Some(redactor) if redactor.is_in(line) => redactor.redact(line).into(),
            _ => line.into(),
        }
    }
    /// Why results were lost, if some were.
    pub fn lost(&mut self) -> Option<String> {
        // What a closed output does not take was not wanted.
        let _ = self.out.flush();
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Where results go.
    pub fn out(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.out
    }
    /// A progress display on standard error.
    pub fn progress(&self) -> Progress {
        Progress::start(self.progress, Box::new(std::io::stderr()))
    }
    /// A status line on standard error.
    pub fn status(&self) -> StatusDisplay {
        StatusDisplay::new(self.progress, Box::new(std::io::stderr()))
    }
    /// One line of results. A closed output is not an error of the run.
    pub fn print(&mut self, line: &str) {
        let line = self.clean(line);
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
    /// One machine-readable event, with the version of these lines before it.
    pub fn event(&mut self, event: &impl Serialize) {
        self.json(&Versioned { v: 1, event });
    }
    /// One line of results as JSON.
    pub fn json(&mut self, line: &impl Serialize) {
        match serde_json::to_string(line) {
            Ok(text) => self.print(&text),
            Err(error) => self.say(&format!("cannot encode a result: {error}")),
        }
    }
    /// Asks a person; `None` if there is no terminal to ask on, or nothing was answered.
    pub fn ask(&mut self, question: &str) -> Option<String> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        write!(self.err, "{question}").and_then(|()| self.err.flush()).ok()?;
        let mut answer = String::new();
        stdin.read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())
    }
    /// One line beside the results: progress, warnings, mistakes.
    pub fn say(&mut self, line: &str) {
        let line = self.clean(line);
        let _ = writeln!(self.err, "{line}");
    }
}

/// What a [`Ui`] of a test wrote.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("UTF-8")
    }
}

#[cfg(test)]
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_loses_results_and_a_closed_output_wanted_none() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lost_to = |kind| {
            let (mut ui, _) = Ui::captured(Form::Text);
            ui.out = Box::new(Watched { inner: Fails(kind), lost: Arc::clone(&ui.lost) });
            ui.print("a result");
            ui.lost().is_some()
        };
        assert!(lost_to(io::ErrorKind::StorageFull));
        assert!(!lost_to(io::ErrorKind::BrokenPipe));
        assert_eq!(Ui::captured(Form::Text).0.lost(), None);
    }

    #[test]
    fn cursor_codes_go_to_terminals_only() {
        let piped = Surroundings::default();
        for wanted in [ProgressArg::Auto, ProgressArg::Spinner, ProgressArg::Lines] {
            assert_eq!(piped.progress(wanted), ProgressKind::Lines);
        }
        assert_eq!(piped.progress(ProgressArg::None), ProgressKind::None);
        let terminal = Surroundings { stderr_columns: Some(100), ..piped };
        assert_eq!(terminal.progress(ProgressArg::Auto), ProgressKind::Spinner { columns: 100 });
        let ci = Surroundings { ci: true, ..terminal };
        assert_eq!(ci.progress(ProgressArg::Auto), ProgressKind::Lines);
    }

    #[test]
    fn colour_needs_a_terminal_without_no_color_unless_forced() {
        let terminal = Surroundings { stdout_terminal: true, ..Surroundings::default() };
        assert!(terminal.color(When::Auto));
        assert!(!Surroundings { no_color: true, ..terminal }.color(When::Auto));
        assert!(!Surroundings::default().color(When::Auto));
        assert!(Surroundings::default().color(When::Always));
        assert!(!terminal.color(When::Never));
    }
}
