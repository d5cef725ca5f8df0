//! The screen of a finding: what is wrong, what was expected and reported, the operations that
//! matter, and how to see it again. Not covered: its files (`crate::campaign::finding`).

use super::again::{ENDPOINT, TOKEN};
use super::verdict::{plainly, so_many};
use super::violation::violation_lines;
use crate::campaign::finding::Finding;
use crate::campaign::nearest::Nearest;
use crate::scenario::Step;
use std::path::Path;

/// Where a line of operations is broken.
const COLUMNS: usize = 80;
/// Operations of a finding that are shown; all of them are in its file.
const STEPS_SHOWN: usize = 40;

/// The command that runs a finding's scenario once more on the target it was found on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Again {
    /// What comes before the file.
    pub command: String,
    /// What comes after it: each flag with a space before it, quoted for a shell where it must be.
    pub flags: String,
    /// Whether there is a script beside it for people with curl and dd.
    pub by_hand: bool,
}

impl Again {
    /// On the simulator.
    pub fn on_simulator() -> Again {
        Again { command: "lbaudit replay".to_owned(), flags: String::new(), by_hand: true }
    }
}

/// The lines that show `finding`. `folder` is how its folder is to be spelt; `nearest` the planted
/// bug that it looks like, if there is one; `again` is how it is seen once more.
pub fn finding_lines(
    finding: &Finding,
    nearest: Option<&Nearest>,
    folder: &Path,
    again: &Again,
) -> Vec<String> {
    let mut lines = violation_lines(&finding.violation);
    if let Some(first) = lines.first_mut() {
        first.insert_str(0, "VIOLATION ");
    }
    lines.push(shrunk_line(finding));
    lines.extend(step_lines(&finding.scenario.steps));
    if let Some(nearest) = nearest {
        lines.push(nearest_line(nearest));
    }
    lines.push(format!("  again     {}", again.line(folder)));
    let by_hand = again.by_hand_line(folder, &finding.scenario);
    lines.extend(by_hand.map(|line| {
        // What it needs besides what stands before it.
        let token = match line.starts_with(ENDPOINT) && !line.contains(TOKEN) {
            true => format!(", the token in {TOKEN}"),
            false => String::new(),
        };
        format!("  by hand   {line}        (curl and dd only{token}; asks before it writes)")
    }));
    lines.extend(again.keep_line(folder).map(|line| format!("  keep      {line}")));
    lines
}

fn shrunk_line(finding: &Finding) -> String {
    let (k, n) = (finding.reproduced, finding.tried);
    let flaky = if k < n { "flaky, " } else { "" };
    let shrinking = &finding.shrinking;
    let cut = if shrinking.finished { "" } else { ", not to the end" };
    format!(
        "shrunk {} -> {} ({}, {:.1}s{cut}), {flaky}reproduced {k}/{n}",
        finding.operations_before,
        so_many(finding.operations(), "operation", "operations"),
        plainly(shrinking.runs, "run", "runs"),
        shrinking.took.as_secs_f64(),
    )
}

fn nearest_line(nearest: &Nearest) -> String {
    let Nearest { name, modelled_on, mechanism, others } = nearest;
    let on = modelled_on.map(|on| format!(" ({on})")).unwrap_or_default();
    let or = match others.as_slice() {
        [] => String::new(),
        others => format!("; or {}", others.join(", ")),
    };
    format!("looks like  {name}{on}: {mechanism}{or}")
}

/// Numbered operations, the observing one, which comes last, after `then`.
pub fn step_lines(steps: &[Step]) -> Vec<String> {
    let before = steps.len().saturating_sub(1);
    let word = |(index, step): (usize, &Step)| {
        let fault = match &step.fault {
            Some(fault) => format!(" with {} at call {}", fault.kind, fault.nth),
            None => String::new(),
        };
        match index == before {
            true => format!("then {}{fault}", step.op),
            false => format!("{} {}{fault}", index + 1, step.op),
        }
    };
    let mut words: Vec<String> = steps.iter().enumerate().map(word).collect();
    if words.len() > STEPS_SHOWN + 1 {
        let left_out = words.len() - STEPS_SHOWN - 1;
        words.splice(STEPS_SHOWN / 2..STEPS_SHOWN / 2 + left_out, [format!("({left_out} more)")]);
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + word.chars().count() <= COLUMNS => {
                line.push_str("   ");
                line.push_str(&word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, ChunkBitmap, Extent, Geometry, Lba, LbaCount, Policy, Role};
    use crate::campaign::finding::Shrinking;
    use crate::oracle::{Kind, Picture, Violation};
    use crate::scenario::{Header, Label, Op, Scenario};
    use std::time::Duration;

    fn finding(repeat: usize) -> Finding {
        let at = Extent::lbas(64, 8);
        let take = |n| Op::Take { label: Label(n), wait: true };
        let mut ops = vec![Op::Write { at }; repeat];
        ops.extend([take(0), Op::Discard { at }, take(1)]);
        ops.push(Op::Diff {
            snap: Label(1),
            base: Some(Label(0)),
            from: Lba::new(0),
            between_pages: None,
        });
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(4096), fresh: true };
        let header = Header::new([(Role::Source, shape)].into(), Policy::Exact, "");
        let mut violation = Violation::new(
            Kind::Missed,
            "LBA 64..71 differ between s0 and s1, diff(s1, base s0) does not report them",
        );
        violation.picture = Some(Picture {
            chunk: 1,
            expected: ChunkBitmap::run(0, 8),
            reported: ChunkBitmap::EMPTY,
        });
        Finding {
            number: 1,
            case: "g1:1:17".to_owned(),
            violation,
            operations_before: 214,
            scenario: Scenario::new(header, ops),
            shrinking: Shrinking { runs: 52, took: Duration::from_millis(812), finished: true },
            reproduced: 3,
            tried: 3,
            path: "runs/x/finding-1".into(),
        }
    }

    #[test]
    fn a_finding_is_shown_as_in_the_manual() {
        let nearest = Nearest {
            name: "discard-untracked",
            modelled_on: Some("QEMU, several arrays"),
            mechanism: "discard changes content, tracker is not told",
            others: Vec::new(),
        };
        let folder = Path::new("lbaudit-runs/latest/finding-1");
        let text = finding_lines(&finding(1), Some(&nearest), folder, &Again::on_simulator());
        let text = text.join("\n");
        assert_eq!(text, include_str!("golden/finding.txt").trim_end());
    }

    #[test]
    fn on_an_array_the_line_by_hand_has_its_environment_and_names_the_token() {
        let command = "lbaudit check --scenario".to_owned();
        let flags = " --endpoint https://a --source-uuid 29".to_owned();
        let again = Again { command, flags, by_hand: true };
        let lines = finding_lines(&finding(1), None, Path::new("b h"), &again);
        assert_eq!(
            lines[lines.len() - 2..],
            [
                "  again     lbaudit check --scenario 'b h/repro.jsonl' --endpoint https://a --source-uuid 29",
                "  by hand   LBAUDIT_ENDPOINT=https://a SOURCE_UUID=29 SOURCE_DEVICE=/dev/disk/by-id/nvme-uuid.29 \
                 sh 'b h/repro.sh'        (curl and dd only, the token in LIGHTBITS_JWT; asks before it writes)",
            ]
        );
    }

    #[test]
    fn what_is_flaky_or_not_shrunk_to_the_end_says_so() {
        let mut finding = finding(1);
        finding.reproduced = 1;
        finding.shrinking.finished = false;
        assert_eq!(
            shrunk_line(&finding),
            "shrunk 214 -> 4 operations (52 runs, 0.8s, not to the end), flaky, reproduced 1/3"
        );
    }

    #[test]
    fn long_lists_are_broken_at_operations_and_shortened_in_the_middle() {
        let lines = step_lines(&finding(100).scenario.steps);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
        let text = lines.join("\n");
        assert!(text.contains("(63 more)") && text.contains("102 discard 64+8"), "{text}");
        assert!(text.ends_with("then diff s1 base s0"), "{text}");
    }
}
