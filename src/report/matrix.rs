//! The kill matrix of the self-test, as a screen and as the file for scripts (`cli.md`).
//!
//! Not covered: filling it (`crate::campaign::selftest_matrix`).

use crate::campaign::selftest_matrix::{Matrix, MatrixRow};
use crate::suite::SUITE;
use serde::Serialize;

/// Fixed tests that are named by number in one line; the rest are counted.
const TESTS_SHOWN: usize = 4;

/// One bug as scripts read it.
#[derive(Serialize)]
pub struct BugFigures<'m> {
    name: &'m str,
    side: &'m str,
    kind: &'m str,
    kinds: &'m [&'m str],
    found_by_random: bool,
    seeds_found: u64,
    median_operations: Option<u64>,
    found_by_fixed: &'m [&'m str],
    found_by_explore: bool,
    explore_operations: Option<usize>,
    found_by_lower_bound_only: bool,
    shrunk_operations: Option<usize>,
    witness_operations: u32,
}

/// The matrix as scripts read it: the content of `--json FILE`.
#[derive(Serialize)]
pub struct MatrixFigures<'m> {
    v: u32,
    seeds: u64,
    bugs: Vec<BugFigures<'m>>,
    false_alarms: usize,
    operations_clean: u64,
    faults: Vec<String>,
}

/// One bug for scripts.
pub fn bug_figures(row: &MatrixRow, seeds: u64) -> BugFigures<'_> {
    let found = row.explore.as_ref().and_then(|explore| explore.found);
    BugFigures {
        name: row.name,
        side: row.side,
        kind: kind_of(row),
        kinds: row.kinds,
        found_by_random: row.random.killed > 0,
        seeds_found: row.random.killed,
        median_operations: row.random.median_ops(seeds),
        found_by_fixed: &row.fixed,
        found_by_explore: found.is_some(),
        explore_operations: found.map(|(operations, _)| operations),
        found_by_lower_bound_only: row.baseline_killed > 0,
        shrunk_operations: row.random.longest(),
        witness_operations: row.listed_len,
    }
}

/// The whole matrix for scripts.
pub fn matrix_figures(matrix: &Matrix) -> MatrixFigures<'_> {
    MatrixFigures {
        v: 1,
        seeds: matrix.seeds,
        bugs: matrix.rows.iter().map(|row| bug_figures(row, matrix.seeds)).collect(),
        false_alarms: matrix.honest.false_alarms.len() + matrix.honest.fixed.len(),
        operations_clean: matrix.honest.ops,
        faults: matrix.faults(),
    }
}

/// The kind it was found as first, or the first it is listed for.
fn kind_of(row: &MatrixRow) -> &'static str {
    let found = row.random.kinds.first().map(|kind| kind.name());
    found.or(row.kinds.first().copied()).unwrap_or("none")
}

/// The matrix as a screen of at most 100 columns.
pub fn matrix_lines(matrix: &Matrix) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<29} {:<16} {:>6} {:>6} {:>6} {:>6} {:>7}  fixed 20",
        "bug", "kind", "random", "ops", "length", "lower", "explore"
    )];
    lines.extend(matrix.rows.iter().map(|row| row_line(row, matrix.seeds)));
    lines.push("─".repeat(96));
    lines.extend(sums(matrix));
    lines
}

fn row_line(row: &MatrixRow, seeds: u64) -> String {
    let dash = || "-".to_owned();
    let of = |killed: u64| match killed {
        0 => "no".to_owned(),
        killed => format!("{killed}/{seeds}"),
    };
    let median = row.random.median_ops(seeds).map_or_else(dash, |ops| ops.to_string());
    let longest = row.random.longest().map_or_else(dash, |longest| longest.to_string());
    let length = format!("{longest}/{}", row.listed_len);
    let explore = match row.explore.as_ref() {
        None => dash(),
        Some(score) => score.found.map_or_else(|| "no".to_owned(), |(ops, _)| ops.to_string()),
    };
    let line = format!(
        "{:<29} {:<16} {:>6} {median:>6} {length:>6} {:>6} {explore:>7}  {}",
        row.name,
        kind_of(row),
        of(row.random.killed),
        of(row.baseline_killed),
        tests(&row.fixed),
    );
    line.trim_end().to_owned()
}

/// Numbers of the fixed tests: the first few, and how many more.
fn tests(names: &[&str]) -> String {
    let numbers = (1usize..).zip(&SUITE).filter(|(_, spec)| names.contains(&spec.name));
    let numbers: Vec<String> = numbers.map(|(number, _)| number.to_string()).collect();
    match numbers.get(..TESTS_SHOWN) {
        _ if numbers.is_empty() => "no".to_owned(),
        Some(first) if numbers.len() > TESTS_SHOWN => {
            format!("{} +{}", first.join(" "), numbers.len() - TESTS_SHOWN)
        }
        _ => numbers.join(" "),
    }
}

fn sums(matrix: &Matrix) -> Vec<String> {
    let (random, baseline, fixed) = matrix.totals();
    let (all, honest) = (matrix.rows.len(), &matrix.honest);
    let (reached, combinations) = honest.combinations;
    let mut lines = vec![
        format!(
            "random checking finds {random} of {all} planted bugs · lower bounds alone miss {baseline} · the fixed 20 miss {fixed}"
        ),
        format!(
            "honest target: {} cases, {} operations, {} false alarms",
            honest.cases,
            honest.ops,
            honest.false_alarms.len() + honest.fixed.len()
        ),
        format!(
            "coverage: {} of {} goals, {reached} of {combinations} combinations reached",
            honest.goals - honest.missed_goals.len().min(honest.goals),
            honest.goals
        ),
    ];
    lines.extend(matrix.canary.map(|(name, found)| {
        format!(
            "canary: an oracle without checks finds {name} in {found} of {} seeds",
            matrix.seeds
        )
    }));
    let faults = matrix.faults();
    lines.extend(faults.iter().map(|fault| format!("FAULT {fault}")));
    lines.push(match faults.len() {
        0 => "SELF-TEST PASSED".to_owned(),
        1 => "SELF-TEST FAILED | 1 fault".to_owned(),
        faults => format!("SELF-TEST FAILED | {faults} faults"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::selftest_matrix::{ExploreScore, HonestRow, RandomScore};
    use crate::oracle::Kind;

    fn row(name: &'static str, side: &'static str, kinds: &'static [&'static str]) -> MatrixRow {
        MatrixRow {
            name,
            side,
            kinds,
            listed_len: 4,
            fixed: Vec::new(),
            random: RandomScore::default(),
            baseline_killed: 0,
            explore: None,
        }
    }

    fn matrix() -> Matrix {
        let lost = MatrixRow {
            fixed: SUITE.iter().skip(1).take(7).map(|spec| spec.name).collect(),
            random: RandomScore {
                killed: 5,
                ops: vec![9, 31, 37, 40, 1204],
                kinds: vec![Kind::Missed],
                unlisted: Vec::new(),
                shrunk: vec![4, 3, 4, 4, 4],
            },
            baseline_killed: 5,
            explore: Some(ExploreScore { found: Some((4, Kind::Missed)), depth: 3, needs: None }),
            ..row("write-during-delete-untracked", "array", &["missed"])
        };
        let surviving = MatrixRow {
            explore: Some(ExploreScore { found: None, depth: 3, needs: None }),
            ..row("answer-varies", "array", &["nondeterministic"])
        };
        let copied = MatrixRow {
            fixed: vec!["no_change_diff"],
            random: RandomScore {
                killed: 3,
                ops: vec![1, 2, 3],
                kinds: vec![Kind::Content],
                unlisted: Vec::new(),
                shrunk: vec![2],
            },
            ..row("chunk-for-lba", "pipeline", &["content", "disturbed"])
        };
        let honest = HonestRow {
            cases: 50_000,
            ops: 2_345_678,
            goals: 48,
            missed_goals: vec!["a write inside a cut"],
            combinations: (5_000, 9_000),
            ..HonestRow::default()
        };
        let canary = Some(("write-during-delete-untracked", 0));
        Matrix { seeds: 5, rows: vec![lost, surviving, copied], honest, canary }
    }

    #[test]
    fn the_screen_is_stable_and_fits() {
        let screen = matrix_lines(&matrix());
        assert!(screen.iter().take(5).all(|line| line.chars().count() <= 100));
        assert_eq!(screen.join("\n"), include_str!("golden/matrix.txt").trim_end());
    }

    #[test]
    fn scripts_read_every_figure_by_its_stable_name() {
        let matrix = matrix();
        let file = serde_json::to_value(matrix_figures(&matrix)).expect("encodes");
        assert_eq!(
            file["bugs"][0],
            serde_json::json!({
                "name": "write-during-delete-untracked",
                "side": "array",
                "kind": "missed",
                "kinds": ["missed"],
                "found_by_random": true,
                "seeds_found": 5,
                "median_operations": 37,
                "found_by_fixed": matrix.rows[0].fixed,
                "found_by_explore": true,
                "explore_operations": 4,
                "found_by_lower_bound_only": true,
                "shrunk_operations": 4,
                "witness_operations": 4,
            })
        );
        let survivor = &file["bugs"][1];
        assert_eq!(survivor["found_by_random"], false);
        assert_eq!(survivor["median_operations"], serde_json::Value::Null);
        assert_eq!((&file["v"], &file["false_alarms"]), (&1.into(), &0.into()));
        assert_eq!(file["operations_clean"], 2_345_678);
    }

    #[test]
    fn a_matrix_without_faults_passes() {
        let mut good = matrix();
        good.rows.remove(1);
        good.honest.missed_goals.clear();
        assert_eq!(matrix_lines(&good).pop().as_deref(), Some("SELF-TEST PASSED"));
    }
}
