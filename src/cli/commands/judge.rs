//! `lbaudit replay --judge FILE`: has the second judge look at a recording. Not covered: judging
//! (`crate::judge`), making recordings ([`super::replay`]).

use crate::campaign::record::{JudgeError, judge_file};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::judge::{Judgement, Remark};
use serde::Serialize;
use std::path::Path;

/// Remarks of one sort that are shown.
const SHOWN: usize = 20;

#[derive(Serialize)]
#[serde(tag = "event", rename = "judged")]
struct Judged<'j> {
    name: &'j str,
    agrees: bool,
    exit_code: u8,
    #[serde(flatten)]
    judgement: &'j Judgement,
}

/// Judges a recording.
///
/// # Errors
/// [`Failure`] for a file that holds none.
pub(super) fn run(name: &str, context: &mut Context) -> Result<Exit, Failure> {
    let judgement = judge_file(Path::new(name)).map_err(|error| match error {
        JudgeError::TooLarge(_) => Failure::could_not(format!("{name}: {error}")),
        error => Failure::usage(format!("{name}: {error}")),
    })?;
    let exit = exit_of(&judgement);
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Judged {
            name,
            agrees: judgement.agrees(),
            exit_code: exit.code(),
            judgement: &judgement,
        }),
        Form::Text => lines(name, &judgement).iter().for_each(|line| context.ui.print(line)),
    }
    Ok(exit)
}

/// A violation that this judge sees counts whatever the recording says; one that only the recording
/// has, and that this judge could see, is a bug of one of the two.
fn exit_of(judgement: &Judgement) -> Exit {
    if !judgement.violations.is_empty() {
        Exit::Violation
    } else if !judgement.agrees() {
        Exit::Bug
    } else if !judgement.compared() || !judgement.not_rejudged.is_empty() {
        Exit::CouldNotTest
    } else {
        Exit::Passed
    }
}

fn lines(name: &str, judgement: &Judgement) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![format!("lbaudit {version}  judge={name}")];
    let place = |remark_scenario: usize, step: usize| match judgement.scenarios {
        0 | 1 => format!("step {}", step + 1),
        _ => format!("scenario {}, step {}", remark_scenario + 1, step + 1),
    };
    let wrong = judgement.violations.iter().map(|remark| {
        let Remark { scenario, step, kind, sentence, .. } = remark;
        format!("VIOLATION {kind}: {}: {sentence}", place(*scenario, *step))
    });
    push(&mut lines, wrong);
    let unsure = judgement.unsure.iter().map(|remark| {
        format!("cannot tell  {}: {}", place(remark.scenario, remark.step), remark.sentence)
    });
    push(&mut lines, unsure);
    let unseen = judgement.not_rejudged.iter().map(|remark| {
        let place = place(remark.scenario, remark.step);
        format!("not judged again  {place}: {}", remark.kind)
    });
    push(&mut lines, unseen);
    let disagreements = judgement.disagreements.iter().map(|remark| {
        format!("DISAGREE  {}: {}", place(remark.scenario, remark.step), remark.sentence)
    });
    push(&mut lines, disagreements);
    let Judgement { diffs, refusals, syncs, blocks, violations, unsure, .. } = judgement;
    let agrees = match (judgement.agrees(), judgement.not_rejudged.is_empty()) {
        (false, _) => "disagrees with the recording",
        (true, false) => "agrees with the recording as far as it can see",
        (true, true) => "agrees with the recording",
    };
    lines.push(format!(
        "judged {diffs} diffs, {refusals} refusals, {syncs} syncs, {blocks} blocks: {} wrong, {} not to be told; {agrees}",
        violations.len(),
        unsure.len()
    ));
    lines
}

/// The first of them, and how many more there are.
fn push(lines: &mut Vec<String>, more: impl ExactSizeIterator<Item = String>) {
    let hidden = more.len().saturating_sub(SHOWN);
    lines.extend(more.take(SHOWN));
    if hidden > 0 {
        lines.push(format!("... and {hidden} more"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::JudgedKind;

    fn remark<K>(kind: K, sentence: &str) -> Remark<K> {
        let (snap, base) = (None, None);
        Remark { scenario: 0, step: 3, kind, snap, base, sentence: sentence.to_owned() }
    }

    #[test]
    fn exit_codes_tell_right_wrong_torn_and_nothing_apart() {
        let clean = Judgement { scenarios: 1, diffs: 2, ..Judgement::default() };
        assert_eq!(exit_of(&clean), Exit::Passed);
        assert_eq!(exit_of(&Judgement::default()), Exit::CouldNotTest);
        let unseen = vec![remark("malformed".to_owned(), "")];
        assert_eq!(
            exit_of(&Judgement { not_rejudged: unseen, ..clean.clone() }),
            Exit::CouldNotTest
        );
        let disagreements = vec![remark((), "")];
        let torn = Judgement { disagreements, ..clean.clone() };
        assert_eq!(exit_of(&torn), Exit::Bug);
        let violations = vec![remark(JudgedKind::Missed, "")];
        assert_eq!(exit_of(&Judgement { violations, ..torn }), Exit::Violation);
    }

    #[test]
    fn every_remark_is_shown_with_its_step_and_the_last_line_sums_up() {
        let judgement = Judgement {
            scenarios: 1,
            diffs: 2,
            violations: vec![remark(JudgedKind::Missed, "LBA 7 changed")],
            unsure: (0..22).map(|_| remark((), "LBA 8 may have")).collect(),
            disagreements: vec![remark((), "one says this")],
            ..Judgement::default()
        };
        let lines = lines("x.jsonl", &judgement);
        assert_eq!(lines[1], "VIOLATION missed: step 4: LBA 7 changed");
        assert_eq!(lines[2], "cannot tell  step 4: LBA 8 may have");
        assert_eq!(lines[22], "... and 2 more");
        assert_eq!(lines[23], "DISAGREE  step 4: one says this");
        assert_eq!(
            lines[24],
            "judged 2 diffs, 0 refusals, 0 syncs, 0 blocks: 1 wrong, 22 not to be told; disagrees with the recording"
        );
    }
}
