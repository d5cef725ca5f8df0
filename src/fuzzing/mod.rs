//! Every reader of foreign bytes under a fuzzer: one function for each, from bytes to a panic if a
//! promise is broken.
//!
//! The same functions are called by the fuzz targets in `fuzz/`, which hold no logic, and by
//! `tests/corpora.rs`, which replays every kept input on any toolchain. A target asserts more than
//! the absence of a panic: a slow twin, a round trip, or bounds. Twins are written from the
//! specifications, not from the code they check. Not covered: what only a socket, a device or a
//! process can get wrong; the misbehaving server and the fault layer are for that.
//!
//! A find becomes a file in `corpora/<target>/` and a test of its own beside the mended code.

mod blocks;
mod books;
mod cases;
mod diff_page;
mod diff_reader;
mod host;
mod qemu;
mod replies;
mod walk;

pub use diff_page::{Asked, Outcome, outcome};

/// One thing that reads foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzz target, and of its folder in `corpora/`.
    pub name: &'static str,
    /// What reads the bytes, and what is asserted.
    pub about: &'static str,
    /// Lets it read these; panics if it does not keep its promise.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "bitmap",
        about: "a chunk's bitmap in every JSON form and both byte orders = bit by bit",
        run: blocks::bitmap,
    },
    Target {
        name: "lba_set",
        about: "operations on sets of LBAs = a set of numbers",
        run: blocks::lba_set,
    },
    Target {
        name: "stamp",
        about: "what a block that was read is said to be = the block made anew",
        run: blocks::stamp,
    },
    Target {
        name: "diff_page",
        about: "a page of a diff = a slow reader of the same JSON",
        run: diff_page::diff_page,
    },
    Target {
        name: "walk",
        about: "any pages: the walk ends, and refuses what its rules forbid and nothing else",
        run: walk::walk,
    },
    Target {
        name: "api_objects",
        about: "volumes and snapshots = the fields of the JSON",
        run: replies::api_objects,
    },
    Target {
        name: "error_body",
        about: "the server's words are its own, and harmless on a terminal",
        run: replies::error_body,
    },
    Target {
        name: "jwt",
        about: "claims = the JSON of the middle part; no text keeps a piece of the token",
        run: replies::jwt,
    },
    Target {
        name: "http_date_retry_after",
        about: "a wait is bounded, a date reads back",
        run: replies::http_date_retry_after,
    },
    Target {
        name: "rfc3339",
        about: "a moment of the API is spelled again as it came",
        run: replies::rfc3339,
    },
    Target {
        name: "scenario",
        about: "an honest simulator never violates, to either judge; a planted bug never panics",
        run: cases::scenario,
    },
    Target {
        name: "trace",
        about: "a trace reads back as it was written, and a small one runs",
        run: cases::trace,
    },
    Target {
        name: "recording",
        about: "records read back, and the second judge hears any of them to the end",
        run: books::recording,
    },
    Target {
        name: "journal",
        about: "a torn end loses its own line and nothing before it",
        run: books::journal,
    },
    Target {
        name: "names",
        about: "a name that is taken for ours is spelled as we spell it",
        run: books::names,
    },
    Target {
        name: "sysfs",
        about: "a disk as sysfs shows it: printable, with an identity or without",
        run: host::sysfs,
    },
    Target {
        name: "proc_tables",
        about: "mounts, swaps, locks, process times: three readers of one escape agree",
        run: host::proc_tables,
    },
    Target {
        name: "signature",
        about: "a planted file system is found, wherever the device ends",
        run: host::signature,
    },
    Target {
        name: "nbd",
        about: "a read is answered exactly once for every byte, or not at all",
        run: qemu::nbd,
    },
    Target {
        name: "qmp",
        about: "an answer is the one to this command, a refusal is printable",
        run: qemu::qmp,
    },
];

/// Runs the target of that name.
///
/// # Panics
/// If there is none, or if the target found something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(bytes);
}
