//! Legal freedoms of a simulated array, as data (`oracle.md` section 9): what an honest array may
//! do although it makes life harder for whoever reads its answers.
//!
//! Not covered: taking them (`crate::sim`); what they allow is judged like anything else.

use serde::{Deserialize, Serialize};

/// The freedoms an array takes in one case, drawn once per case. Where each is taken is a pure
/// function of `seed` and the place (chunk and epoch pair), so that equal questions get equal
/// answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Freedoms {
    /// Decides where the freedoms are taken.
    pub seed: u64,
    /// Reports some changed chunks whole (legal under the policy `chunk` only).
    pub chunk_rounded: bool,
    /// Leaves out some LBAs that were written with what they held already.
    pub elide_same_content: bool,
    /// A new snapshot stays Creating for long.
    pub late_available: bool,
    /// The cut of a snapshot lies anywhere between the call and its being Available.
    pub late_cut: bool,
    /// A deleted snapshot stays Deleting for long.
    pub slow_delete: bool,
    /// Some pages are short or empty and still name a next one.
    pub uneven_pages: bool,
    /// Some pages repeat the last range of the page before.
    pub repeated_edges: bool,
    /// Fields that are zero are left out (on the wire only).
    pub omitted_zeros: bool,
    /// Some calls are answered 429, 503 or 409 once before they succeed (on the wire only).
    pub transient_errors: bool,
}

impl Freedoms {
    /// Takes none.
    pub const NONE: Freedoms = Freedoms {
        seed: 0,
        chunk_rounded: false,
        elide_same_content: false,
        late_available: false,
        late_cut: false,
        slow_delete: false,
        uneven_pages: false,
        repeated_edges: false,
        omitted_zeros: false,
        transient_errors: false,
    };

    /// Whether it takes none.
    pub fn is_none(&self) -> bool {
        Freedoms { seed: 0, ..*self } == Freedoms::NONE
    }
}
