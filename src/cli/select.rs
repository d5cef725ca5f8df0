//! Which of the fixed tests run: names, numbers, globs, groups. Not covered: what the tests are
//! (`crate::suite`).

use crate::suite::Phase;

/// What is known of a test when choosing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestName {
    /// Its place in the suite, from 1.
    pub number: usize,
    /// Its frozen name.
    pub name: &'static str,
    /// Its group.
    pub phase: Phase,
}

/// What the user asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Patterns of tests to run; all if empty.
    pub tests: Vec<String>,
    /// Patterns of tests to leave out.
    pub skip: Vec<String>,
    /// The group to run; all if absent.
    pub group: Option<Phase>,
}

/// Nothing can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A plain name or number that no test has.
    #[error("there is no test `{name}`{}; see `lbaudit list tests`", near.as_ref().map(|near| format!(", did you mean `{near}`")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The test whose name is nearest, if any is near.
        near: Option<&'static str>,
    },
    /// The filter as a whole leaves nothing.
    #[error("the filter selects no test; see `lbaudit list tests`")]
    Nothing,
}

impl Selection {
    /// The numbers of the tests to run, in suite order.
    ///
    /// # Errors
    /// [`SelectError`] for an unknown plain name, and if nothing is left.
    pub fn apply(&self, tests: &[TestName]) -> Result<Vec<usize>, SelectError> {
        for pattern in self.tests.iter().chain(&self.skip) {
            if !is_glob(pattern) && !tests.iter().any(|test| matches(pattern, test)) {
                let name = pattern.clone();
                return Err(SelectError::Unknown { near: nearest(pattern, tests), name });
            }
        }
        let any = |patterns: &[String], test: &TestName| patterns.iter().any(|p| matches(p, test));
        let chosen: Vec<usize> = tests
            .iter()
            .filter(|test| self.tests.is_empty() || any(&self.tests, test))
            .filter(|test| !any(&self.skip, test))
            .filter(|test| self.group.is_none_or(|group| group == test.phase))
            .map(|test| test.number)
            .collect();
        if chosen.is_empty() { Err(SelectError::Nothing) } else { Ok(chosen) }
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// `scattered_writes`, `test_scattered_writes`, `5`, `05` and globs over the names.
fn matches(pattern: &str, test: &TestName) -> bool {
    let plain = pattern.strip_prefix("test_").unwrap_or(pattern);
    // A leading sign would parse as a number too.
    let number = plain.bytes().all(|c| c.is_ascii_digit()).then(|| plain.parse().ok()).flatten();
    number == Some(test.number) || glob(plain.as_bytes(), test.name.as_bytes())
}

/// `*` is any run of characters, `?` is one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, text)| glob(rest, text)),
        Some((c, rest)) => text.split_first().is_some_and(|(d, text)| c == d && glob(rest, text)),
    }
}

/// The name with the fewest edits to `wrong`, if it is near enough to be meant.
fn nearest(wrong: &str, tests: &[TestName]) -> Option<&'static str> {
    nearest_of(wrong.strip_prefix("test_").unwrap_or(wrong), tests.iter().map(|test| test.name))
}

/// The candidate with the fewest edits to `wrong`, if it is near enough to be meant.
pub fn nearest_of<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.map(|name| (edits(wrong, name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len() / 3).then_some(name)
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: [TestName; 4] = [
        TestName { number: 1, name: "no_change_diff", phase: Phase::Sanity },
        TestName { number: 5, name: "scattered_writes", phase: Phase::Sanity },
        TestName { number: 12, name: "partial_chunk_bitmap", phase: Phase::Edge },
        TestName { number: 16, name: "partial_region_update", phase: Phase::Resilience },
    ];

    fn select(tests: &[&str], skip: &[&str]) -> Result<Vec<usize>, SelectError> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Selection { tests: owned(tests), skip: owned(skip), group: None }.apply(&TESTS)
    }

    #[test]
    fn every_spelling_of_a_test_selects_it() {
        for spelling in ["scattered_writes", "test_scattered_writes", "5", "05", "scat*", "s?att*s"]
        {
            assert_eq!(select(&[spelling], &[]), Ok(vec![5]), "{spelling}");
        }
        assert_eq!(select(&[], &[]), Ok(vec![1, 5, 12, 16]));
        assert_eq!(select(&["16", "1"], &[]), Ok(vec![1, 16]), "suite order");
        assert_eq!(select(&["partial_*"], &["*_bitmap"]), Ok(vec![16]));
    }

    #[test]
    fn groups_narrow_the_choice() {
        let edge = Selection { group: Some(Phase::Edge), ..Selection::default() };
        assert_eq!(edge.apply(&TESTS), Ok(vec![12]));
    }

    #[test]
    fn a_wrong_name_is_a_mistake_and_an_empty_glob_is_not() {
        let wrong = select(&["scatered_write"], &[]).expect_err("no such test");
        assert_eq!(
            wrong.to_string(),
            "there is no test `scatered_write`, did you mean `scattered_writes`; see `lbaudit list tests`"
        );
        for unknown in ["21", "0", "+5", "", "zzz"] {
            assert!(
                matches!(select(&[unknown], &[]), Err(SelectError::Unknown { .. })),
                "{unknown}"
            );
        }
        assert!(matches!(select(&[], &["nope"]), Err(SelectError::Unknown { .. })));
        assert_eq!(select(&["zzz*"], &[]), Err(SelectError::Nothing));
        assert_eq!(select(&["5"], &["5"]), Err(SelectError::Nothing));
    }

    #[test]
    fn distances_are_counted_in_single_edits() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), distance);
        }
    }
}
