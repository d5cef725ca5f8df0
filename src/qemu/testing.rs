//! For tests that need QEMU. Not covered: starting it (`super::adapter`).

use super::QemuError;
use crate::testing::left_out;

/// What was started; `None`, and said aloud, where there is no QEMU. Nothing else excuses.
pub(crate) fn unless_missing<T>(started: Result<T, QemuError>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error @ (QemuError::Missing { .. } | QemuError::TooOld { .. })) => {
            left_out(&error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}
