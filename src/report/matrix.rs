//! The kill matrix of the self-test, as a screen and as the file for scripts (`cli.md`).
//!
//! Not covered: filling it (`crate::campaign::selftest_matrix`).

use super::verdict::{plainly, so_many};
use crate::campaign::second_judge::{Disagreement, SecondScore};
use crate::campaign::selftest_matrix::{Matrix, MatrixRow, RandomScore};
use crate::oracle::Kind;
use crate::suite::SUITE;
use serde::Serialize;
use std::collections::BTreeMap;

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
    first_seen_otherwise: Vec<Otherwise<'m>>,
}

/// In how many seeds a bug was first seen as a kind that it is not listed for, as scripts read it.
#[derive(Serialize)]
pub struct Otherwise<'m> {
    kind: &'m str,
    seeds: u64,
    case: String,
    sentence: &'m str,
}

/// What the second judge made of the same runs, as scripts read it.
#[derive(Serialize)]
pub struct SecondFigures {
    traces: u64,
    agreements: u64,
    both_wrong: u64,
    disagreements: Vec<Differs>,
    set_aside: BTreeMap<String, u64>,
}

/// A run on which the judges differ, as scripts read it.
#[derive(Serialize)]
struct Differs {
    case: String,
    sentence: String,
}

/// The matrix as scripts read it: the content of `--json FILE`.
#[derive(Serialize)]
pub struct MatrixFigures<'m> {
    v: u32,
    seeds: u64,
    bugs: Vec<BugFigures<'m>>,
    false_alarms: usize,
    operations_clean: u64,
    second_judge: SecondFigures,
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
        first_seen_otherwise: otherwise(&row.random),
    }
}

/// The kinds that are not listed, each with its first case.
fn otherwise(random: &RandomScore) -> Vec<Otherwise<'_>> {
    let with_case = |(kind, seeds): (Kind, u64)| {
        let first = random.unlisted.iter().find(|symptom| symptom.kind == kind)?;
        let case = format!("g1:{}:{}", first.seed, first.case);
        Some(Otherwise { kind: kind.name(), seeds, case, sentence: &first.sentence })
    };
    random.first_seen_as().into_iter().filter_map(with_case).collect()
}

/// What the second judge made of all runs, for scripts.
pub fn second_figures(score: &SecondScore) -> SecondFigures {
    let differs = |Disagreement { case, sentence }: &Disagreement| Differs {
        case: case.clone(),
        sentence: sentence.clone(),
    };
    SecondFigures {
        traces: score.traces(),
        agreements: score.agreed,
        both_wrong: score.wrong,
        disagreements: score.disagreements.iter().map(differs).collect(),
        set_aside: score.set_aside.clone(),
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
        second_judge: second_figures(&matrix.second()),
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
    lines.extend(footnotes(matrix));
    lines.extend(sums(matrix));
    lines
}

/// Bugs that were first seen as a kind they are not listed for: that is no kill, and is not hidden.
fn footnotes(matrix: &Matrix) -> impl Iterator<Item = String> + '_ {
    matrix.rows.iter().flat_map(|row| {
        otherwise(&row.random).into_iter().map(|Otherwise { kind, seeds, case, .. }| {
            format!(
                "{}: {seeds} of {} seeds first seen as {kind}, not listed ({case})",
                row.name, matrix.seeds
            )
        })
    })
}

/// What the second judge made of the same runs, in one line.
fn second_line(score: &SecondScore) -> String {
    let verdict = match score.disagreements.len() {
        0 => "agrees on all".to_owned(),
        several => format!("differs on {several}"),
    };
    let aside: Vec<String> =
        score.set_aside.iter().map(|(name, runs)| format!("{name} {runs}")).collect();
    let aside = match aside.is_empty() {
        true => String::new(),
        false => format!(" · not its to judge: {}", aside.join(", ")),
    };
    format!("second judge: {} traces, {verdict}{aside}", score.traces())
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
            "honest target: {}, {}, {}",
            plainly(honest.cases, "case", "cases"),
            plainly(honest.ops, "operation", "operations"),
            so_many(honest.false_alarms.len() + honest.fixed.len(), "false alarm", "false alarms")
        ),
        format!(
            "coverage: {} of {} goals, {reached} of {combinations} combinations reached",
            honest.goals - honest.missed_goals.len().min(honest.goals),
            honest.goals
        ),
        second_line(&matrix.second()),
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
    use crate::campaign::selftest_matrix::{ExploreScore, HonestRow, Unlisted};

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
            second: SecondScore { agreed: 11, wrong: 11, ..SecondScore::default() },
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
        let symptom = |seed| Unlisted {
            seed,
            case: 17,
            kind: Kind::Nondeterministic,
            sentence: "diff(s1) has two answers".to_owned(),
        };
        let copied = MatrixRow {
            fixed: vec!["no_change_diff"],
            random: RandomScore {
                killed: 3,
                ops: vec![1, 2, 3],
                kinds: vec![Kind::Content],
                unlisted: vec![symptom(2), symptom(5)],
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
            second: SecondScore {
                agreed: 1_270,
                disagreements: vec![Disagreement {
                    case: "g1:3:88".to_owned(),
                    sentence: "step 4: this judge says leaked, the recording says nothing wrong"
                        .to_owned(),
                }],
                set_aside: [("liveness".to_owned(), 4), ("malformed".to_owned(), 9)].into(),
                ..SecondScore::default()
            },
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
                "first_seen_otherwise": [],
            })
        );
        assert_eq!(
            file["bugs"][2]["first_seen_otherwise"],
            serde_json::json!([{
                "kind": "nondeterministic",
                "seeds": 2,
                "case": "g1:2:17",
                "sentence": "diff(s1) has two answers",
            }])
        );
        assert_eq!(
            file["second_judge"],
            serde_json::json!({
                "traces": 1304,
                "agreements": 1303,
                "both_wrong": 33,
                "disagreements": [{
                    "case": "g1:3:88",
                    "sentence": "step 4: this judge says leaked, the recording says nothing wrong",
                }],
                "set_aside": {"liveness": 4, "malformed": 9},
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
        good.rows[1].random.killed = good.seeds;
        good.honest.missed_goals.clear();
        good.honest.second.disagreements.clear();
        assert_eq!(matrix_lines(&good).pop().as_deref(), Some("SELF-TEST PASSED"));
    }
}
