//! The table of the oracle's checks and the planted bugs that only they kill.
//!
//! Not covered: filling it (`crate::campaign::oracle_table`).

use super::verdict::so_many;
use crate::campaign::oracle_table::CheckRow;

/// Bugs that are named for a check; the rest are counted.
const SHOWN: usize = 2;

fn names(names: &[&str]) -> String {
    match names {
        [] => "NONE".to_owned(),
        names if names.len() > SHOWN => {
            format!("{} +{}", names[..SHOWN].join(" "), names.len() - SHOWN)
        }
        names => names.join(" "),
    }
}

/// The table as a screen.
pub fn oracle_lines(table: &[CheckRow]) -> Vec<String> {
    let mut lines = vec![format!("{:<12} mode   planted bugs that only this check kills", "check")];
    for row in table {
        lines.push(format!("{:<12} model  {}", row.check.name(), names(&row.alone)));
        let laws = row.alone_of_laws.as_ref();
        lines.extend(laws.map(|laws| format!("{:<12} laws   {}", "", names(laws))));
    }
    let idle = table.iter().filter(|row| row.is_idle()).count();
    lines.push(match idle {
        0 => {
            let checks = so_many(table.len(), "check", "checks");
            format!("{checks}, each kills a bug that no other kills")
        }
        idle => format!("{idle} of {} checks kill nothing that others do not", table.len()),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::CheckId;

    #[test]
    fn every_check_has_a_line_and_the_idle_ones_are_counted() {
        let table = [
            CheckRow {
                check: CheckId::Missed,
                alone: vec!["bit63-dropped", "big-volume-wraps", "last-page-dropped"],
                alone_of_laws: None,
            },
            CheckRow {
                check: CheckId::Repeat,
                alone: vec!["answer-varies"],
                alone_of_laws: Some(Vec::new()),
            },
        ];
        assert_eq!(
            oracle_lines(&table),
            [
                "check        mode   planted bugs that only this check kills",
                "missed       model  bit63-dropped big-volume-wraps +1",
                "repeat       model  answer-varies",
                "             laws   NONE",
                "1 of 2 checks kill nothing that others do not",
            ]
        );
        let last = oracle_lines(&table[..1]).pop();
        assert_eq!(last.as_deref(), Some("1 check, each kills a bug that no other kills"));
    }
}
