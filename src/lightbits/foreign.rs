//! What is taken from the server as text, made harmless where it is decoded: without the token,
//! escaped, cut. Nothing above this adapter sees the server's own characters.
//!
//! Redaction comes before escaping and before any cut, so that neither can hide the token from it.
//! Not covered: a server that spells the token in a code of its own; it knows the token anyway.

use super::auth::Redactor;
use super::wire::CloneSource;
use crate::array::{SnapshotInfo, VolumeInfo, escape_text};
use crate::block::Page;

/// Characters of a foreign name that are kept; the API's own limit is far below.
const NAME_MAX: usize = 1024;
/// Characters of a foreign note that are kept.
const NOTE_MAX: usize = 400;

/// Something decoded that may hold text of the server.
pub(super) trait Foreign: Sized {
    /// The same with harmless texts.
    fn harmless(self, redactor: &Redactor) -> Self;
}

fn text(text: &str, redactor: &Redactor, max: usize) -> String {
    escape_text(&redactor.redact(text), max)
}

impl Foreign for VolumeInfo {
    fn harmless(mut self, redactor: &Redactor) -> VolumeInfo {
        self.name = text(&self.name, redactor, NAME_MAX);
        self
    }
}

impl Foreign for SnapshotInfo {
    fn harmless(mut self, redactor: &Redactor) -> SnapshotInfo {
        self.name = text(&self.name, redactor, NAME_MAX);
        self.created = self.created.map(|created| text(&created, redactor, NAME_MAX));
        self
    }
}

impl Foreign for Page {
    fn harmless(mut self, redactor: &Redactor) -> Page {
        self.notes.iter_mut().for_each(|note| *note = text(note, redactor, NOTE_MAX));
        self
    }
}

impl<T: Foreign> Foreign for Vec<T> {
    fn harmless(self, redactor: &Redactor) -> Vec<T> {
        self.into_iter().map(|item| item.harmless(redactor)).collect()
    }
}

impl Foreign for () {
    fn harmless(self, _: &Redactor) {}
}

/// It goes back to the array as it came and is never shown.
impl Foreign for CloneSource {
    fn harmless(self, _: &Redactor) -> CloneSource {
        self
    }
}
