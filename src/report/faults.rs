//! The grid of the self-test by faults: one line for each kind, the bad columns at the end.
//!
//! Not covered: filling it (`crate::campaign::faults`).

use super::verdict::{plainly, so_many};
use crate::campaign::faults::{Bad, Grid, Row};
use serde::Serialize;

/// Bad runs that are shown in full.
const SHOWN: usize = 20;

/// The grid as scripts read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FaultFigures {
    /// Version of this form.
    pub v: u32,
    /// Kinds of fault.
    pub kinds: usize,
    /// Runs.
    pub runs: u64,
    /// Runs that panicked.
    pub panics: u64,
    /// Runs that did not end.
    pub hangs: u64,
    /// Runs that passed, blamed the array or doubted wrongly: the sum of the three that follow.
    pub false_verdicts: u64,
    /// Runs that passed with less compared than without faults, or although data was damaged.
    pub false_passes: u64,
    /// Runs that blamed the array for the fault.
    pub false_violations: u64,
    /// Runs that could not tell although the fault leaves nothing in doubt.
    pub false_doubts: u64,
    /// Runs that left a snapshot in no list.
    pub unlisted_snapshots: u64,
    /// Runs whose message does not say what was being done.
    pub unclear_messages: u64,
    /// Kinds that never happened.
    pub never_met: Vec<String>,
    /// One for each kind.
    pub rows: Vec<FaultRow>,
}

/// One kind of fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FaultRow {
    /// Its name.
    pub kind: String,
    /// Runs.
    pub runs: u64,
    /// Runs in which it happened.
    pub met: u64,
    /// The last call at which it happened.
    pub calls: u32,
    /// How many runs came to what.
    pub ends: Vec<(&'static str, u64)>,
    /// How many were bad, and how.
    pub bad: Vec<(&'static str, u64)>,
}

/// The grid as figures.
pub fn fault_figures(grid: &Grid) -> FaultFigures {
    let of = |bad| grid.bad(bad);
    let (passes, violations) = (of(Bad::FalsePass), of(Bad::FalseViolation));
    let never = grid.rows.iter().filter(|row| row.met == 0).map(|row| row.kind.clone());
    FaultFigures {
        v: 1,
        kinds: grid.rows.iter().filter(|row| row.kind != "pairs").count(),
        runs: grid.runs(),
        panics: of(Bad::Panic),
        hangs: of(Bad::Hang),
        false_verdicts: passes + violations + of(Bad::FalseDoubt),
        false_passes: passes,
        false_violations: violations,
        false_doubts: of(Bad::FalseDoubt),
        unlisted_snapshots: of(Bad::Unlisted),
        unclear_messages: of(Bad::Unclear),
        never_met: never.collect(),
        rows: grid.rows.iter().map(figures_of).collect(),
    }
}

fn figures_of(row: &Row) -> FaultRow {
    FaultRow {
        kind: row.kind.clone(),
        runs: row.runs,
        met: row.met,
        calls: row.calls,
        ends: row.ends.iter().map(|(end, runs)| (end.name(), *runs)).collect(),
        bad: row.bad.iter().map(|(bad, runs)| (bad.name(), *runs)).collect(),
    }
}

/// The grid as a screen.
pub fn fault_lines(grid: &Grid) -> Vec<String> {
    let heads = "panic hang pass viol doubt unlisted unclear";
    let mut lines =
        vec![format!("{:<22}{:>5}{:>6}  {:<30}bad: {heads}", "fault", "runs", "calls", "came to")];
    for row in &grid.rows {
        let ends: Vec<String> =
            row.ends.iter().map(|(end, runs)| format!("{} {runs}", end.name())).collect();
        let of = |bad| row.bad.get(&bad).copied().unwrap_or(0);
        let bad: Vec<String> = Bad::ALL.iter().map(|bad| of(*bad).to_string()).collect();
        lines.push(format!(
            "{:<22}{:>5}{:>6}  {:<30}{}",
            row.kind,
            row.runs,
            row.calls,
            ends.join(" "),
            bad.join(" ")
        ));
    }
    let shown: Vec<_> = grid.rows.iter().flat_map(|row| &row.shown).collect();
    for (specs, bad, words) in shown.iter().take(SHOWN) {
        lines.push(format!("BAD {}: {specs}: {words}", bad.name()));
    }
    if shown.len() > SHOWN {
        lines.push(format!("and {} more", shown.len() - SHOWN));
    }
    let figures = fault_figures(grid);
    for kind in &figures.never_met {
        lines.push(format!("BAD {kind} never happened: the scenario has no call that can meet it"));
    }
    lines.push(format!(
        "{} · {} · panics {} · hangs {} · false passes {} · false violations {} · false \
         doubts {} · unlisted snapshots {} · unclear messages {}",
        so_many(figures.kinds, "kind", "kinds"),
        plainly(figures.runs, "run", "runs"),
        figures.panics,
        figures.hangs,
        figures.false_passes,
        figures.false_violations,
        figures.false_doubts,
        figures.unlisted_snapshots,
        figures.unclear_messages
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::faults::End;
    use crate::oracle::Kind;

    fn grid() -> Grid {
        let row = |kind: &str, met| Row {
            kind: kind.to_owned(),
            runs: 3,
            met,
            calls: 2,
            ends: [(End::Pass, 1), (End::Violation(Kind::Missed), 2)].into(),
            ..Row::default()
        };
        let mut bad = row("silent", 2);
        bad.bad = [(Bad::FalseViolation, 1)].into();
        bad.shown =
            vec![("silent@2".to_owned(), Bad::FalseViolation, "diff s1: missed".to_owned())];
        Grid { rows: vec![bad, row("html", 0)] }
    }

    #[test]
    fn a_bad_run_is_counted_and_shown_with_what_shows_it_again() {
        let lines = fault_lines(&grid());
        assert_eq!(
            lines[1],
            "silent                    3     2  pass 1 missed 2               0 0 0 1 0 0 0"
        );
        assert_eq!(lines[3], "BAD false violation: silent@2: diff s1: missed");
        assert!(lines[4].starts_with("BAD html never happened"), "{lines:?}");
        assert!(lines[5].starts_with("2 kinds · 6 runs · panics 0"), "{lines:?}");
        assert!(!grid().is_clean());
    }

    #[test]
    fn the_figures_begin_as_scripts_rely_on() {
        let json = serde_json::to_string(&fault_figures(&grid())).expect("encodes");
        let start = r#"{"v":1,"kinds":2,"runs":6,"panics":0,"hangs":0,"false_verdicts":1,"#;
        assert!(json.starts_with(start), "{json}");
        assert!(json.contains(r#""unlisted_snapshots":0"#));
    }
}
