//! What blocks must hold, and what a wrong one turns out to be. Not covered: blocks whose value
//! nobody knows; the caller compares those with their source.

use super::verdict::{Kind, Violation};
use crate::block::{BlockSize, Diagnosis, Extent, Lba, LbaSet, Role, RunId, Stamp, diagnose};
use crate::model::{Value, Values};

/// Which blocks of `bytes`, read at `at` of the `role` volume, are none of the values they may be.
///
/// `twin` holds the same LBAs of the volume the data came from, for values only it can tell.
/// Where anything goes every block passes; old data without a twin must at least not be ours.
pub fn wrong_blocks(
    (bytes, twin): (&[u8], Option<&[u8]>),
    at: Extent,
    values: &Values,
    (run, role, block): (RunId, Role, BlockSize),
) -> Vec<(Lba, Diagnosis)> {
    let Some(possible) = values.as_slice() else { return Vec::new() };
    let mut wrong = Vec::new();
    let mut twins = twin.map(|twin| twin.chunks_exact(block.get()));
    for (found, lba) in bytes.chunks_exact(block.get()).zip(at.start().get()..) {
        let lba = Lba::new(lba);
        let twin = twins.as_mut().and_then(Iterator::next);
        if !possible.iter().any(|value| holds(found, twin, lba, *value, (run, role))) {
            wrong.push((lba, name_it(found, lba, possible, run, role)));
        }
    }
    wrong
}

/// Whether all bytes are zero; by the cache line, which compilers turn into a few instructions.
fn is_zero(block: &[u8]) -> bool {
    block.chunks(64).all(|line| line.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Whether a block of the `role` volume can be that value.
fn holds(
    found: &[u8],
    twin: Option<&[u8]>,
    lba: Lba,
    value: Value,
    (run, role): (RunId, Role),
) -> bool {
    match value {
        Value::Zero => is_zero(found),
        Value::Old(owner) => {
            // Old data of its own volume has no twin: all that is known is that it is not ours.
            let twin = twin.filter(|_| owner != role);
            twin.is_none_or(|twin| twin == found) && !is_of_this_run(found, run)
        }
        Value::Stamp { role, generation } => {
            let expected = Stamp { run, volume: role, lba, generation };
            diagnose(found, &expected) == Diagnosis::Right
        }
    }
}

/// Which of its possible values a block of the `role` volume holds; `None` if it is none of them, or
/// cannot be told (old data may be zeros).
pub fn value_of(
    found: &[u8],
    lba: Lba,
    possible: &[Value],
    (run, role): (RunId, Role),
) -> Option<Value> {
    let mut fitting =
        possible.iter().copied().filter(|value| holds(found, None, lba, *value, (run, role)));
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first)
}

/// Whether the block is one that this run wrote somewhere, whole or torn.
fn is_of_this_run(block: &[u8], run: RunId) -> bool {
    let nowhere =
        Stamp { run, volume: Role::Source, lba: Lba::new(u64::MAX), generation: u64::MAX };
    diagnose(block, &nowhere).is_of(run)
}

/// What the wrong block is, seen from the value that belongs there.
fn name_it(found: &[u8], lba: Lba, possible: &[Value], run: RunId, role: Role) -> Diagnosis {
    let (volume, generation) = match possible.last() {
        Some(Value::Stamp { role, generation }) => (*role, *generation),
        // Syncs carry the source's blocks to the target: that is where its blocks are at home.
        Some(Value::Zero | Value::Old(_)) | None if role == Role::Target => {
            (Role::Source, u64::MAX)
        }
        Some(Value::Zero | Value::Old(_)) | None => (role, u64::MAX),
    };
    diagnose(found, &Stamp { run, volume, lba, generation })
}

/// Says in one violation that blocks of the `role` volume are wrong. `wrong` is not empty.
pub fn content_violation(
    role: Role,
    wrong: &[(Lba, Diagnosis)],
    expected: &Values,
    when: &str,
) -> Option<Violation> {
    let (first, diagnosis) = wrong.first()?;
    let belongs = match expected.as_slice() {
        Some([Value::Zero]) => "zeros".to_owned(),
        Some([Value::Old(owner)]) => format!("what the {owner} volume held before"),
        Some([Value::Stamp { generation, .. }]) => format!("the block of write {generation}"),
        Some(several) => format!("one of {} values", several.len()),
        None => "anything".to_owned(),
    };
    let lbas: LbaSet = wrong
        .iter()
        .filter_map(|(lba, _)| Extent::new(*lba, crate::block::LbaCount::new(1)))
        .collect();
    let sentence = format!(
        "{lbas} of the {role} volume {when}: LBA {first} must hold {belongs} and holds {diagnosis}"
    );
    Some(Violation::new(Kind::Content, sentence).at(lbas))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::stamp_block;

    const RUN: RunId = RunId::from_u128(77);
    const AT: Extent = Extent::lbas(10, 3);

    fn written(generation: u64) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 64];
        for (block, lba) in bytes.chunks_exact_mut(64).zip(10..) {
            stamp_block(
                &Stamp { run: RUN, volume: Role::Source, lba: Lba::new(lba), generation },
                block,
            );
        }
        bytes
    }

    fn wrong(bytes: &[u8], twin: Option<&[u8]>, value: Value) -> Vec<(Lba, Diagnosis)> {
        wrong_blocks(
            (bytes, twin),
            AT,
            &Values::One(value),
            (RUN, Role::Target, BlockSize::SMALLEST),
        )
    }

    #[test]
    fn right_blocks_pass_and_each_wrong_one_is_named() {
        let stamp = |generation| Value::Stamp { role: Role::Source, generation };
        assert_eq!(wrong(&written(5), None, stamp(5)), []);
        let stale = wrong(&written(4), None, stamp(5));
        assert_eq!(stale.len(), 3);
        assert_eq!(stale[0], (Lba::new(10), Diagnosis::Stale { found: 4 }));
        let mut one_zeroed = written(5);
        one_zeroed[64..128].fill(0);
        assert_eq!(wrong(&one_zeroed, None, stamp(5)), [(Lba::new(11), Diagnosis::Zero)]);
        assert_eq!(wrong(&[0; 192], None, Value::Zero), []);
        assert_eq!(wrong(&written(5), None, Value::Zero).len(), 3);
    }

    #[test]
    fn old_data_is_compared_with_its_source_or_must_at_least_not_be_ours() {
        let old = vec![9u8; 192];
        assert_eq!(wrong(&old, Some(&old), Value::Old(Role::Source)), []);
        assert_eq!(wrong(&[8; 192], Some(&old), Value::Old(Role::Source)).len(), 3);
        assert_eq!(wrong(&old, None, Value::Old(Role::Target)), []);
        assert_eq!(wrong(&written(5), None, Value::Old(Role::Target)).len(), 3);
    }

    #[test]
    fn the_sentence_says_what_belongs_there_and_what_is_there() {
        let expected = Values::One(Value::Stamp { role: Role::Source, generation: 5 });
        let found = content_violation(
            Role::Target,
            &wrong(&written(4), None, Value::Zero),
            &Values::One(Value::Zero),
            "after the sync",
        );
        assert_eq!(
            found.expect("wrong").sentence,
            "LBA 10..12 of the target volume after the sync: LBA 10 must hold zeros and holds this place's block of write 4"
        );
        assert_eq!(content_violation(Role::Target, &[], &expected, "x"), None);
    }
}
