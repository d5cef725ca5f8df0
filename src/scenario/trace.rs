//! Scenarios as files: JSON lines, the header first, then one step a line, so that a trace reads
//! and diffs line by line. Strict: an unknown field, version or extra byte is an error with its
//! line. A trace holds values, never bare seeds, and cannot name devices, endpoints or commands.
//! Not covered: running what was read.

use super::{Header, Scenario, Step};
use crate::block::Freedoms;
use serde::{Deserialize, Serialize};

/// Version of the trace format this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Steps of one trace at most: more than any run records, few enough to refuse a bomb.
const MAX_STEPS: usize = 1_000_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    v: u32,
    scenario: Header,
}

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// There is no header.
    #[error("trace is empty: its first line must be the header")]
    Empty,
    /// A line is not what it should be.
    #[error("trace line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// Another version of the format.
    #[error("trace has format version {0}, this program reads {FORMAT_VERSION}")]
    Version(u32),
    /// More steps than a trace may have.
    #[error("trace has more than {MAX_STEPS} steps")]
    TooLong,
}

/// Reads a trace.
///
/// # Errors
/// [`TraceError`] with the line that is wrong.
pub fn read_trace(text: &str) -> Result<Scenario, TraceError> {
    let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let at = |line| move |source| TraceError::Line { line, source };
    let (first, number) = lines.next().ok_or(TraceError::Empty)?;
    let mut first: FirstLine = serde_json::from_str(first).map_err(at(number))?;
    if first.scenario.freedoms.is_none() {
        // A seed that nothing is drawn from is no part of the world: it has one spelling.
        first.scenario.freedoms = Freedoms::NONE;
    }
    if first.v != FORMAT_VERSION {
        return Err(TraceError::Version(first.v));
    }
    let mut steps = Vec::new();
    for (line, number) in lines {
        if steps.len() == MAX_STEPS {
            return Err(TraceError::TooLong);
        }
        steps.push(serde_json::from_str::<Step>(line).map_err(at(number))?);
    }
    Ok(Scenario { header: first.scenario, steps })
}

/// Writes a trace; [`read_trace`] gives the same scenario back.
///
/// # Errors
/// None that is known: every value of a scenario has a JSON form. Kept because the encoder could.
pub fn write_trace(scenario: &Scenario) -> Result<String, serde_json::Error> {
    let first = FirstLine { v: FORMAT_VERSION, scenario: scenario.header.clone() };
    let mut text = serde_json::to_string(&first)?;
    for step in &scenario.steps {
        text.push('\n');
        text.push_str(&serde_json::to_string(step)?);
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::scenario::{Check, Label, Op};

    fn scenario() -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(4096), fresh: true };
        let header = Header {
            planted: vec!["discard-untracked".to_owned()],
            seed: Some(u64::MAX),
            ..Header::new([(Role::Source, shape)].into(), Policy::Exact, "a test")
        };
        let diff = Op::Diff {
            snap: Label(1),
            base: Some(Label(0)),
            from: Default::default(),
            between_pages: None,
        };
        let at = Extent::lbas(64, 8);
        let check = Op::Check(Check::Reported { at });
        Scenario::new(
            header,
            [Op::Write { at }, Op::Take { label: Label(0), wait: true }, diff, check],
        )
    }

    #[test]
    fn a_trace_reads_back_as_the_same_scenario() {
        let text = write_trace(&scenario()).expect("encodes");
        assert_eq!(read_trace(&text).expect("decodes"), scenario());
        assert_eq!(text.lines().nth(1), Some(r#"{"op":{"write":{"at":[64,8]}}}"#));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let text = write_trace(&scenario()).expect("encodes");
        let wrong = text.replace(r#""at":[64,8]"#, r#""at":[64,0]"#);
        assert!(matches!(read_trace(&wrong), Err(TraceError::Line { line: 2, .. })));
        let wrong = text.replace("{\"v\":1", "{\"v\":9");
        assert!(matches!(read_trace(&wrong), Err(TraceError::Version(9))));
        assert!(matches!(read_trace("\n"), Err(TraceError::Empty)));
        let extra = text.replace(r#"{"op":{"write""#, r#"{"device":"/dev/sda","op":{"write""#);
        assert!(read_trace(&extra).is_err());
    }
}
