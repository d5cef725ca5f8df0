//! The faults of the HTTP side, as a table: what each does, which calls can meet it, and what a
//! client may make of it.
//!
//! Not covered: how each is done (`super::script`, `super::twist`, `super::body`).

use super::super::routes::Call;

/// What is known about a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiFaultRow {
    /// The fault.
    pub fault: ApiFault,
    /// Its stable name.
    pub name: &'static str,
    /// Which calls can meet it.
    pub meets: Meets,
    /// What a run that meets it may come to: `pass` (with everything compared), `unknown`, or the
    /// name of a kind of violation. Anything else is a false verdict.
    pub ends: &'static [&'static str],
    /// What it does, in one line.
    pub about: &'static str,
}

/// Which calls a fault can meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meets {
    /// Every call.
    Any,
    /// Calls that are answered with a JSON object that is not empty.
    Object,
    /// Diffs.
    Diff,
    /// Creations of snapshots.
    Create,
    /// Deletions of snapshots.
    Delete,
}

impl Meets {
    /// Whether a call can meet such a fault, as far as the call alone tells.
    pub(super) const fn call(self, call: Call) -> bool {
        match self {
            Meets::Any | Meets::Object => true,
            Meets::Diff => matches!(call, Call::Diff),
            Meets::Create => matches!(call, Call::CreateSnapshot),
            Meets::Delete => matches!(call, Call::DeleteSnapshot),
        }
    }
}

macro_rules! api_faults {
    ($($fault:ident $name:literal $meets:ident $ends:tt $about:literal;)*) => {
        /// What the HTTP side does wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ApiFault {
            $(#[doc = $about] $fault,)*
        }

        impl ApiFault {
            /// All of them, in the order of the table.
            pub const ALL: &[ApiFault] = &[$(ApiFault::$fault,)*];

            const ROWS: &[ApiFaultRow] = &[$(ApiFaultRow {
                fault: ApiFault::$fault,
                name: $name,
                meets: Meets::$meets,
                ends: &$ends,
                about: $about,
            },)*];
        }
    };
}

api_faults! {
    Status500 "status-500" Any ["pass", "unknown"]
        "answers 500 and does nothing";
    Status502 "status-502" Any ["pass", "unknown"]
        "answers 502 as a proxy does, with a page of HTML, and does nothing";
    Status503 "status-503" Any ["pass", "unknown"]
        "answers 503 and does nothing";
    Status504 "status-504" Any ["pass", "unknown"]
        "answers 504 and does nothing";
    Status408 "status-408" Any ["pass", "unknown"]
        "answers 408 and does nothing";
    Limit "429" Any ["pass", "unknown"]
        "answers 429 without Retry-After and does nothing";
    LimitSeconds "429-seconds" Any ["pass", "unknown"]
        "answers 429 with Retry-After: 1";
    LimitDate "429-date" Any ["pass", "unknown"]
        "answers 429 with Retry-After: the date two seconds from now";
    LimitNegative "429-negative" Any ["pass", "unknown"]
        "answers 429 with Retry-After: -5";
    LimitAbsurd "429-absurd" Any ["pass", "unknown"]
        "answers 429 with Retry-After: 1000000000";
    Unauthorized "status-401" Any ["unknown"]
        "answers 401: the token expired in the middle of the run";
    Forbidden "status-403" Any ["unknown"]
        "answers 403: the role was taken away in the middle of the run";
    Refused "refused" Any ["pass", "unknown"]
        "breaks the connection and refuses new ones, for 30 ms or for ever";
    HangUp "hang-up" Any ["pass", "unknown"]
        "ends the connection instead of answering, and does nothing";
    Silent "silent" Any ["pass", "unknown"]
        "does the call and never answers";
    Reset "reset" Object ["pass", "unknown"]
        "does the call and resets the connection in the middle of the body";
    CutShort "cut-short" Object ["pass", "unknown"]
        "does the call and ends the connection before Content-Length is reached";
    Trickle "trickle" Object ["pass", "unknown"]
        "does the call and sends a byte of its answer every 100 ms";
    Redirect "redirect" Any ["unknown"]
        "answers 307 to the same path on another host";
    Html "html" Any ["unknown"]
        "answers 200 with a log-in page and does nothing";
    ErrorBody "error-body" Any ["unknown"]
        "answers 200 with the body of an error and does nothing";
    NoContent "no-content" Object ["unknown"]
        "does the call and answers 204 without a body";
    EmptyBody "empty-body" Object ["unknown"]
        "does the call and answers 200 with an empty body";
    WrongType "wrong-type" Object ["pass"]
        "does the call and sends its JSON as application/octet-stream";
    Oversized "oversized" Object ["pass", "unknown"]
        "does the call and answers 1 GiB of one string";
    Bomb "bomb" Object ["unknown"]
        "does the call and answers half a megabyte of gzip that unpacks to 80 MiB";
    Truncated "truncated-json" Object ["unknown"]
        "does the call and sends half of its JSON as if it were all";
    Invalid "invalid-json" Object ["unknown"]
        "does the call and sends JSON with a bare word where a value belongs";
    Trailing "trailing-bytes" Object ["unknown"]
        "does the call and sends a second object after its JSON";
    NotUtf8 "not-utf8" Object ["unknown"]
        "does the call and sends a string that is not UTF-8";
    Deep "deep-nesting" Object ["pass", "unknown"]
        "does the call and adds a member of 100,000 nested lists";
    DuplicateKeys "duplicate-keys" Object ["unknown"]
        "does the call and sends every member of its JSON twice";
    Negative "number-negative" Object ["unknown"]
        "does the call and sends a size or an LBA of -1";
    TooBig "number-2-64" Object ["unknown"]
        "does the call and sends a size or an LBA of 2^64";
    Fraction "number-fraction" Object ["unknown"]
        "does the call and sends a size or an LBA of 64.5";
    NumbersBare "u64-as-number" Object ["pass"]
        "does the call and sends 64-bit integers as numbers";
    NumbersQuoted "u32-as-string" Object ["pass"]
        "does the call and sends 32-bit integers as strings, like the 64-bit ones";
    ZerosAbsent "zeros-absent" Object ["pass"]
        "does the call and leaves out fields that are zero, false or empty, as profile A does";
    PageRepeated "page-repeated" Diff ["malformed"]
        "answers the next page of a diff with the page before it";
    OffsetRepeated "offset-repeated" Diff ["malformed"]
        "names the offset that was asked for as the next one";
    OffsetCycle "offset-cycle" Diff ["pass", "malformed"]
        "names an earlier offset as the next one, so that the walk goes in a circle";
    EndlessPages "endless-pages" Diff ["pass", "malformed"]
        "names a next offset on every page, the last one too";
    EmptyPage "empty-page" Diff ["pass"]
        "puts an empty page with a next offset before a page of ranges";
    PageLost "page-lost" Diff ["missed"]
        "leaves the ranges of a page out and goes on after it";
    Unsorted "unsorted" Diff ["malformed"]
        "sends the ranges of a page in reverse";
    Overlapping "overlapping" Diff ["malformed"]
        "sends a range twice, the second time with another bitmap";
    Misaligned "misaligned" Diff ["unknown", "malformed"]
        "sends a range that starts beside a multiple of 64";
    PastEnd "past-end" Diff ["malformed"]
        "adds a range that lies outside of the volume";
    NextRenamed "next-renamed" Diff ["unknown"]
        "spells the continuation `nextPageOffset`";
    BitmapShort "bitmap-short" Diff ["unknown"]
        "sends a bitmap of 7 bytes";
    Expired "snapshot-expired" Diff ["unknown", "pass"]
        "deletes the snapshot before answering its diff";
    CreateReplyLost "create-reply-lost" Create ["pass", "unknown"]
        "takes the snapshot and ends the connection without a word";
    CreateCommitted500 "create-committed-500" Create ["pass", "unknown"]
        "takes the snapshot and answers 500";
    Busy400 "busy-400" Create ["pass", "unknown"]
        "answers 400: another snapshot of the volume is being created";
    Busy409 "busy-409" Create ["pass", "unknown"]
        "answers 409: another snapshot of the volume is being created";
    Busy412 "busy-412" Create ["pass", "unknown"]
        "answers 412: another snapshot of the volume is being created";
    Busy500 "busy-500" Create ["pass", "unknown"]
        "answers 500: another snapshot of the volume is being created";
    Busy503 "busy-503" Create ["pass", "unknown"]
        "answers 503: another snapshot of the volume is being created";
    StuckCreating "stuck-creating" Create ["liveness"]
        "takes a snapshot that stays in state Creating";
    Failed "failed-state" Create ["unknown"]
        "takes a snapshot that ends in state Failed";
    SlowDelete "slow-delete" Delete ["pass"]
        "shows a deleted snapshot as Deleting for 30 more looks";
    LostDelete "lost-delete" Delete ["pass", "liveness"]
        "answers that a snapshot is being deleted, and keeps it";
    DeleteReplyLost "delete-reply-lost" Delete ["pass", "unknown"]
        "deletes the snapshot and ends the connection without a word";
}

impl ApiFault {
    /// What is known about it.
    pub fn row(self) -> &'static ApiFaultRow {
        // The table has its rows in the order of the variants.
        &ApiFault::ROWS[self as usize]
    }
    /// Its stable name.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The fault of that name.
    pub fn from_name(name: &str) -> Option<ApiFault> {
        ApiFault::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fault_has_a_row_of_its_own_and_a_name_that_leads_back_to_it() {
        let names: BTreeSet<&str> = ApiFault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), ApiFault::ALL.len());
        assert!(names.len() >= 40, "{}", names.len());
        for &fault in ApiFault::ALL {
            let row = fault.row();
            assert_eq!((row.fault, ApiFault::from_name(row.name)), (fault, Some(fault)));
            assert!(!row.ends.is_empty() && !row.about.is_empty(), "{}", row.name);
        }
        assert_eq!(ApiFault::from_name("nonsense"), None);
    }
}
