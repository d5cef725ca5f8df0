//! Scenarios out of bytes, and traces. Not covered: findings and how they are shrunk.

use crate::block::Role;
use crate::campaign::case::{record_case, run_case};
use crate::engine::{Entropy, Event, PROFILES, generate_from};
use crate::judge::{Record, judge};
use crate::oracle::Checks;
use crate::scenario::{Op, Scenario, read_trace, write_trace};
use crate::sim::Bug;
use crate::sync::PipelineBug;
use arbitrary::Unstructured;

/// First bytes below this plant nothing.
const HONEST: u8 = 128;
/// First bytes below this also have the second judge hear the case, which costs as much again.
const HEARD: u8 = 32;

/// The first byte chooses the planted bug or none, the second the focus, the others the moves.
pub(super) fn scenario(bytes: &[u8]) {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut input = Unstructured::new(rest);
    let case = input.below(256);
    let mut scenario = generate_from(&PROFILES[0], case, &mut input);
    if *first >= HONEST {
        scenario.header.planted = vec![bug_name(usize::from(*first - HONEST)).to_owned()];
        let outcome = run_case(&scenario, Checks::ALL, &mut |_| ());
        assert!(outcome.is_ok(), "a drawn header describes a world");
        return;
    }
    let mut records: Vec<Record> = Vec::new();
    let outcome = if *first < HEARD {
        record_case(&scenario, &mut |event| {
            if let Event::Record(record) = event {
                records.push(*record);
            }
        })
    } else {
        run_case(&scenario, Checks::ALL, &mut |_| ())
    };
    let outcome = outcome.expect("a drawn header describes a world");
    if let Some(violation) = outcome.verdict.violation() {
        panic!("an honest array is called wrong: {violation:?}\n{}", shown(&scenario));
    }
    // Cases with more LBAs than the second judge keeps are not for it.
    if let Ok(judgement) = judge(&records) {
        assert!(judgement.violations.is_empty(), "{judgement:?}\n{}", shown(&scenario));
        assert!(judgement.disagreements.is_empty(), "{judgement:?}\n{}", shown(&scenario));
    }
}

/// The bugs of the array, then those of the pipeline, over and over.
fn bug_name(which: usize) -> &'static str {
    let array = Bug::ALL.iter().map(|bug| bug.name());
    let pipeline = PipelineBug::ALL.iter().map(|bug| bug.name());
    let names: Vec<&'static str> = array.chain(pipeline).collect();
    names[which % names.len()]
}

fn shown(scenario: &Scenario) -> String {
    write_trace(scenario).unwrap_or_else(|error| error.to_string())
}

/// A trace file; one of a small world is also run.
pub(super) fn trace(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(scenario) = read_trace(text) else { return };
    let again = write_trace(&scenario).expect("what was read has a form");
    assert_eq!(read_trace(&again).expect("it reads back"), scenario);
    if is_small(&scenario) {
        // A stranger's trace may ask for what makes no sense; that is no reason to panic.
        let _ = run_case(&scenario, Checks::ALL, &mut |_| ());
    }
}

/// Whether a scenario costs next to nothing to run.
fn is_small(scenario: &Scenario) -> bool {
    const LBAS: u64 = 4096;
    let mut ops = 0;
    let mut lbas = 0u64;
    let mut large = !scenario.header.volumes.contains_key(&Role::Source);
    for step in &scenario.steps {
        step.op.each(&mut |op| {
            ops += 1;
            lbas = lbas.saturating_add(op.touches().map_or(0, |at| at.len_lbas().get()));
            large |= matches!(op, Op::Resize { len } if len.get() > LBAS);
        });
    }
    let volumes = scenario.header.volumes.values();
    !large
        && ops <= 64
        && lbas <= 4 * LBAS
        && volumes.map(|shape| shape.len.get()).max() <= Some(LBAS)
}
