//! The screens of a campaign: its first lines, the status line while it runs, the last lines.
//!
//! Times come in as values, so whole screens are golden-tested. Not covered: findings
//! ([`super::finding_lines`]).

use super::verdict::{plainly, so_many};
use super::{ProgressKind, Reached, coverage_lines};
use crate::campaign::check::Totals;
use crate::oracle::Kind;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How often a status line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How often it is redrawn where there is one.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// Back to the first column and clear the line (ECMA-48 EL).
const CLEAR: &str = "\r\x1b[K";

/// What a campaign is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CampaignHeader {
    /// Version of this program.
    pub version: String,
    /// `simulator`, and how it is reached.
    pub target: String,
    /// The seed.
    pub seed: u64,
    /// Version of the generator.
    pub generator: u32,
    /// The profile's name.
    pub profile: String,
    /// How over-reporting is judged, if one way was asked for.
    pub policy: Option<String>,
    /// Planted bugs.
    pub planted: Vec<String>,
    /// Threads.
    pub jobs: usize,
    /// Until when: cases, time.
    pub budget: String,
    /// What cannot be tested here.
    pub notes: Vec<String>,
}

/// The first lines of a campaign.
pub fn header_lines(header: &CampaignHeader) -> Vec<String> {
    let policy = header.policy.as_deref().unwrap_or("drawn for each case");
    let mut lines = vec![
        format!(
            "lbaudit {}  seed={}  target={}  profile={}  generator=g{}",
            header.version, header.seed, header.target, header.profile, header.generator
        ),
        format!("{}  jobs {}  policy {policy}", header.budget, header.jobs),
    ];
    if !header.planted.is_empty() {
        lines.push(format!("planted {}", header.planted.join(", ")));
    }
    lines.extend(header.notes.iter().map(|note| format!("note {note}")));
    lines
}

/// One line that says how far a campaign is.
pub fn status_line(
    elapsed: Duration,
    budget: Option<Duration>,
    totals: &Totals,
    findings: usize,
    rss_mib: Option<u64>,
) -> String {
    let of = budget.map(|budget| format!("/{}", clock(budget))).unwrap_or_default();
    let rss = rss_mib.map(|mib| format!("  rss {mib} MiB")).unwrap_or_default();
    format!(
        "{}{of}  cases {}  ops/s {}  diffs {}  pages {}  snapshots {} made {} deleted{rss}  findings {findings}",
        clock(elapsed),
        totals.cases,
        rate(totals.ops, elapsed),
        totals.diffs,
        totals.pages,
        totals.taken,
        totals.deleted,
    )
}

/// `2h13m05s`, `13m05s`, `5s`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}

/// So many a second.
pub fn rate(count: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// How a campaign ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CampaignEnd {
    /// What was done.
    pub totals: Totals,
    /// How long it took.
    pub elapsed: Duration,
    /// What was found: kind, operations after shrinking, in how many cases it was seen.
    pub findings: Vec<(Kind, usize, u64)>,
    /// Why cases could not be judged; the first few.
    pub problems: Vec<String>,
    /// What its cases reached, if that was counted.
    pub reached: Option<Reached>,
    /// A signal ended it.
    pub interrupted: bool,
    /// All of it could be written down; if not, it ended early and proves nothing.
    pub kept: bool,
    /// It did less than it was asked: its folder was full, or shards are missing.
    pub incomplete: bool,
    /// The run's folder.
    pub folder: PathBuf,
}

/// The last lines of a campaign.
pub fn end_lines(end: &CampaignEnd) -> Vec<String> {
    let totals = &end.totals;
    let mut lines = vec![
        "─".repeat(70),
        format!(
            "{}, {}, {} judged in {}",
            plainly(totals.cases, "case", "cases"),
            plainly(totals.ops, "operation", "operations"),
            plainly(totals.diffs, "diff", "diffs"),
            crate::suite::seconds(end.elapsed)
        ),
        format!(
            "{} operations/s, {} per core at work",
            rate(totals.ops, end.elapsed),
            totals.ops_per_busy_second()
        ),
    ];
    if totals.nothing_compared > 0 {
        let cases = plainly(totals.nothing_compared, "case", "cases");
        lines.push(format!("{cases} had nothing to compare"));
    }
    lines.extend(end.problems.iter().map(|problem| format!("could not judge {problem}")));
    lines.extend(end.reached.as_ref().map(coverage_lines).unwrap_or_default());
    let mut findings: Vec<_> = (1u32..).zip(&end.findings).collect();
    findings.sort_by_key(|(_, (kind, _, _))| *kind);
    for (number, (kind, operations, seen)) in findings {
        let operations = so_many(*operations, "operation", "operations");
        let cases = plainly(*seen, "case", "cases");
        lines.push(format!("finding-{number}  {kind} with {operations}, in {cases}"));
    }
    lines.push(format!("digest {}", totals.digest));
    let cut = if end.interrupted { "INTERRUPTED | " } else { "" };
    let verdict = match (end.findings.len(), totals.failures) {
        (0, 0) if totals.unknown > 0 => {
            format!("{} NOT JUDGED", plainly(totals.unknown, "CASE", "CASES"))
        }
        (0, 0) if !end.kept => "COULD NOT BE KEPT".to_owned(),
        (0, 0) if totals.diffs == 0 => "NOTHING COMPARED".to_owned(),
        (0, 0) if end.incomplete => "INCOMPLETE, NO VIOLATION SO FAR".to_owned(),
        (0, 0) => "NO VIOLATION".to_owned(),
        (0, failures) => {
            format!("{} WITH A VIOLATION, NOT LOOKED INTO", plainly(failures, "CASE", "CASES"))
        }
        (findings, _) => so_many(findings, "FINDING", "FINDINGS"),
    };
    lines.push(format!("{cut}{verdict} | report {}", end.folder.display()));
    lines
}

/// The status line on a terminal, or a line a minute elsewhere.
pub struct StatusDisplay {
    kind: ProgressKind,
    out: Box<dyn Write + Send>,
    due: Duration,
    drawn: bool,
}

impl StatusDisplay {
    /// A display on `out`; errors of `out` are ignored, for it is decoration.
    pub fn new(kind: ProgressKind, out: Box<dyn Write + Send>) -> StatusDisplay {
        let due = if matches!(kind, ProgressKind::Lines) { LINE_EVERY } else { REDRAW_EVERY };
        StatusDisplay { kind, out, due, drawn: false }
    }
    /// Whether it is time to show a line.
    pub fn is_due(&self, elapsed: Duration) -> bool {
        elapsed >= self.due && !matches!(self.kind, ProgressKind::None)
    }
    /// Shows the line if it is time to; `line` is only made then.
    pub fn show(&mut self, elapsed: Duration, line: impl FnOnce() -> String) {
        if elapsed < self.due {
            return;
        }
        let text = match self.kind {
            ProgressKind::None => return,
            ProgressKind::Lines => {
                self.due = elapsed + LINE_EVERY;
                format!("{}\n", line())
            }
            ProgressKind::Spinner { columns } => {
                self.due = elapsed + REDRAW_EVERY;
                self.drawn = true;
                // A line that wraps cannot be redrawn.
                let line: String = line().chars().take(columns.saturating_sub(1)).collect();
                format!("{CLEAR}{line}")
            }
        };
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = self.out.write_all(CLEAR.as_bytes()).and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn totals() -> Totals {
        Totals {
            cases: 200_000,
            ops: 8_000_000,
            diffs: 900_000,
            pages: 950_000,
            taken: 24_482,
            deleted: 24_479,
            busy: Duration::from_secs(16),
            ..Totals::default()
        }
    }

    fn end() -> CampaignEnd {
        CampaignEnd {
            totals: totals(),
            elapsed: Duration::from_secs(8),
            findings: Vec::new(),
            problems: Vec::new(),
            reached: Some(Reached {
                cases: 20_000,
                goals: 48,
                missed: vec!["a kill right after a discard of data"],
                combinations: (6_000, 7_000),
                lacking: Vec::new(),
            }),
            interrupted: false,
            kept: true,
            incomplete: false,
            folder: "lbaudit-runs/x".into(),
        }
    }

    fn header() -> CampaignHeader {
        CampaignHeader {
            version: "0.1.0".to_owned(),
            target: "simulator".to_owned(),
            seed: 1,
            generator: 1,
            profile: "default".to_owned(),
            policy: None,
            planted: vec!["discard-untracked".to_owned()],
            jobs: 2,
            budget: "200000 cases".to_owned(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_clean_campaign_is_shown_so() {
        let screen = [header_lines(&header()), end_lines(&end())].concat().join("\n");
        assert_eq!(screen, include_str!("golden/campaign.txt").trim_end());
    }

    #[test]
    fn the_last_line_says_what_the_run_is_worth() {
        let last = |end: &CampaignEnd| end_lines(end).pop().expect("a line");
        let findings = vec![(Kind::Missed, 4, 31), (Kind::Leaked, 2, 1)];
        let found = CampaignEnd { findings, ..end() };
        assert_eq!(last(&found), "2 FINDINGS | report lbaudit-runs/x");
        let lines = end_lines(&found);
        assert!(lines.contains(&"finding-1  missed with 4 operations, in 31 cases".to_owned()));
        assert!(lines.contains(&"finding-2  leaked with 2 operations, in 1 case".to_owned()));
        let incomplete = CampaignEnd { incomplete: true, ..end() };
        assert_eq!(last(&incomplete), "INCOMPLETE, NO VIOLATION SO FAR | report lbaudit-runs/x");
        let nothing = CampaignEnd { totals: Totals::default(), interrupted: true, ..end() };
        assert_eq!(last(&nothing), "INTERRUPTED | NOTHING COMPARED | report lbaudit-runs/x");
        let unknown = CampaignEnd { totals: Totals { unknown: 3, ..totals() }, ..end() };
        assert_eq!(last(&unknown), "3 CASES NOT JUDGED | report lbaudit-runs/x");
    }

    #[test]
    fn one_is_no_plural_and_the_gravest_finding_comes_first() {
        let one = Totals { cases: 1, ops: 1, diffs: 1, unknown: 1, ..Totals::default() };
        let lines = end_lines(&CampaignEnd { totals: one, ..end() });
        assert!(lines[1].starts_with("1 case, 1 operation, 1 diff judged in"), "{lines:?}");
        assert!(lines.last().expect("a line").starts_with("1 CASE NOT JUDGED |"), "{lines:?}");
        let findings = vec![(Kind::Leaked, 1, 1), (Kind::Missed, 2, 3)];
        let lines = end_lines(&CampaignEnd { findings, ..end() });
        let found: Vec<&String> = lines.iter().filter(|it| it.starts_with("finding-")).collect();
        let grave = "finding-2  missed with 2 operations, in 3 cases";
        assert_eq!(found, [grave, "finding-1  leaked with 1 operation, in 1 case"]);
    }

    #[test]
    fn the_status_says_how_far_a_run_is() {
        let line = status_line(
            Duration::from_secs(7985),
            Some(Duration::from_secs(28_800)),
            &totals(),
            1,
            Some(96),
        );
        assert_eq!(
            line,
            "2h13m05s/8h00m00s  cases 200000  ops/s 1001  diffs 900000  pages 950000  snapshots 24482 made 24479 deleted  rss 96 MiB  findings 1"
        );
    }

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

    fn shown(kind: ProgressKind, seconds: &[u64]) -> String {
        let sink = Sink::default();
        let mut display = StatusDisplay::new(kind, Box::new(sink.clone()));
        for &at in seconds {
            display.show(Duration::from_secs(at), || format!("at {at}"));
        }
        display.clear();
        display.clear();
        String::from_utf8(sink.0.lock().expect("no writer panics").clone()).expect("UTF-8")
    }

    #[test]
    fn without_a_terminal_there_is_a_plain_line_a_minute() {
        assert_eq!(shown(ProgressKind::Lines, &[1, 59, 61, 62, 100, 122]), "at 61\nat 122\n");
        assert_eq!(shown(ProgressKind::None, &[1, 61]), "");
    }

    #[test]
    fn on_a_terminal_one_line_is_redrawn_and_taken_away() {
        let text = shown(ProgressKind::Spinner { columns: 4 }, &[1, 10]);
        assert_eq!(text, format!("{CLEAR}at {CLEAR}at {CLEAR}"), "and never wraps");
    }
}
