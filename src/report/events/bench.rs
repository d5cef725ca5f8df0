//! Events of the self-test and of the lists, and of what happens step by step. Not covered: what a type
//! means ([`super::Type`]).

use super::{EXIT, EventSpec, SECONDS, any, event, flag, list, maybe, number, object, text};

/// The self-test and the search.
pub(super) const BENCH: [EventSpec; 10] = [
    event(
        "explored",
        "explore",
        "a search through all short sequences: what it came to",
        &[
            list("planted", "names of planted bugs"),
            list("alphabet", "the operations it combines"),
            number("states", "distinct states"),
            number("runs", "sequences that were run"),
            number("pruned", "sequences that ended in a known state"),
            number("depth", "all sequences of so many operations were tried"),
            flag("complete", "whether the whole stated space was"),
            list("findings", "what is wrong, shortest sequences first"),
            number("unjudged", "sequences that could not be judged"),
            maybe(text("first_unjudged", "why the first of them could not")),
            SECONDS,
        ],
    ),
    event(
        "explore_finished",
        "explore",
        "the search ended",
        &[
            number("states", "distinct states"),
            number("sequences", "sequences that were run"),
            number("depth", "all sequences of so many operations were tried"),
            flag("complete", "whether the whole stated space was"),
            number("violations", "sequences with a violation"),
            EXIT,
        ],
    ),
    event(
        "bug",
        "explore --bugs",
        "a planted bug was searched for",
        &[
            text("name", "the bug (lbaudit list bugs)"),
            maybe(number("length", "operations of the shortest sequence that shows it")),
            number("listed", "operations of its witness"),
            maybe(text("kind", "kind of violation it shows as")),
            maybe(text("needs", "what its witness needs that the alphabet has not")),
        ],
    ),
    event(
        "explore_bugs_finished",
        "explore --bugs",
        "all planted bugs were searched for",
        &[
            number("in_alphabet", "bugs that the alphabet can show"),
            number("found", "bugs found of them"),
            EXIT,
        ],
    ),
    event(
        "bug",
        "selftest",
        "a row of the kill matrix",
        &[
            text("name", "the bug (lbaudit list bugs)"),
            text("side", "array or pipeline"),
            text("kind", "kind of violation it is mostly found as"),
            list("kinds", "kinds it may be found as"),
            flag("found_by_random", "whether random checking found it"),
            number("seeds_found", "seeds that found it"),
            maybe(number("median_operations", "operations until it was found, in the median")),
            list("found_by_fixed", "fixed tests that find it"),
            flag("found_by_explore", "whether the search through short sequences found it"),
            maybe(number("explore_operations", "operations of the shortest sequence")),
            flag("found_by_lower_bound_only", "whether an oracle of lower bounds alone finds it"),
            maybe(number("shrunk_operations", "most operations after shrinking")),
            number("witness_operations", "operations of its witness"),
            list("first_seen_otherwise", "seeds that first saw it as a kind it is not listed for"),
        ],
    ),
    event(
        "selftest_finished",
        "selftest",
        "the kill matrix is full",
        &[
            number("bugs", "planted bugs"),
            number("found", "bugs that random checking found"),
            number("lower_bound_only_misses", "bugs that lower bounds alone miss"),
            number("fixed_misses", "bugs that the fixed tests miss"),
            number("false_alarms", "violations on the honest target"),
            number("operations_clean", "operations on the honest target"),
            object("second_judge", "what the second judge made of the same runs"),
            list("faults", "what is not as it must be"),
            SECONDS,
            EXIT,
        ],
    ),
    event(
        "bug",
        "selftest --fixed",
        "which fixed tests catch a planted bug",
        &[
            text("name", "the bug (lbaudit list bugs)"),
            text("side", "array or pipeline"),
            list("kinds", "kinds it may be found as"),
            list("found_kinds", "kinds it was found as"),
            list("found_by_fixed", "fixed tests that find it"),
            list("failed_otherwise", "fixed tests that fail with another kind"),
        ],
    ),
    event(
        "test",
        "selftest --fixed",
        "which planted bugs a fixed test catches",
        &[
            number("number", "its number, from 1"),
            text("name", "the test (lbaudit list tests)"),
            list("catches", "the bugs"),
        ],
    ),
    event(
        "selftest_finished",
        "selftest --fixed",
        "all planted bugs met the fixed tests",
        &[
            number("bugs", "planted bugs"),
            number("found", "bugs found"),
            number("empty_rows", "tests that catch none"),
            number("false_alarms", "tests that fail without a bug"),
            EXIT,
        ],
    ),
    event(
        "check",
        "selftest --oracle",
        "a check of the oracle, and the planted bugs that only it kills",
        &[
            text("name", "the check"),
            list("alone_kills", "bugs that only it kills, with the model"),
            maybe(list("alone_of_laws_kills", "bugs that only it kills, without")),
        ],
    ),
];

/// `list`.
pub(super) const LISTS: [EventSpec; 8] = [
    event(
        "test",
        "list tests",
        "a fixed test",
        &[
            number("number", "its number, from 1"),
            text("name", "its name"),
            text("group", "when it runs"),
            text("meaning", "what it proves"),
        ],
    ),
    event(
        "bug",
        "list bugs",
        "a bug that can be planted",
        &[
            text("name", "its name"),
            text("side", "array or pipeline"),
            list("kinds", "kinds it may be found as"),
            number("witness_operations", "operations of its witness"),
        ],
    ),
    event(
        "op",
        "list ops",
        "an operation of scenarios",
        &[text("name", "its name"), text("meaning", "what it does")],
    ),
    event(
        "check",
        "list checks",
        "a kind of violation",
        &[text("name", "its name"), text("meaning", "what it means for data")],
    ),
    event(
        "profile",
        "list profiles",
        "a profile of random checking",
        &[text("name", "its name"), text("meaning", "what it draws")],
    ),
    event(
        "guard",
        "list guards",
        "a guard before the first write",
        &[text("name", "its name"), text("meaning", "what holds where it passes")],
    ),
    event(
        "fault",
        "list faults",
        "a fault that can be injected",
        &[
            text("name", "its name"),
            text("side", "api or data"),
            list("ends", "what a run that meets it may come to"),
        ],
    ),
    event(
        "event",
        "list events",
        "an event and its fields: this table",
        &[
            text("name", "the field event"),
            text("of", "what prints it"),
            text("meaning", "what it says"),
            list("fields", "its fields besides v and event: name, type, optional, meaning"),
        ],
    ),
];

/// What happened, step by step.
pub(super) const TRACES: [EventSpec; 16] = [
    event(
        "step",
        "events.jsonl of suite and findings",
        "a step begins",
        &[
            number("index", "its place in the scenario, from 0"),
            any("op", "what happens, as scenarios spell it: a text or an object"),
        ],
    ),
    event(
        "wrote",
        "events.jsonl of suite and findings",
        "something was written",
        &[
            text("role", "on which volume"),
            text("what", "wrote, zeroed, rewrote or discarded"),
            list("at", "where: the first LBA and how many"),
        ],
    ),
    event(
        "taken",
        "events.jsonl of suite and findings",
        "a snapshot was asked for",
        &[
            text("label", "what it is called in the scenario"),
            text("name", "its name on the array"),
            text("uuid", "its UUID"),
        ],
    ),
    event(
        "available",
        "events.jsonl of suite and findings",
        "a snapshot is Available",
        &[text("label", "what it is called in the scenario")],
    ),
    event(
        "seen",
        "events.jsonl of suite and findings",
        "reading has shown which of several possible contents is there",
        &[
            maybe(text("snap", "in which snapshot; in the volume itself if absent")),
            text("role", "on which volume"),
            list("at", "where: the first LBA and how many"),
            any("value", "what"),
        ],
    ),
    event(
        "deleted",
        "events.jsonl of suite and findings",
        "a snapshot is gone, or on its way",
        &[text("label", "what it is called in the scenario")],
    ),
    event(
        "page",
        "events.jsonl of suite and findings",
        "a page of a diff came in",
        &[number("page", "its number, from 1"), number("ranges", "its ranges")],
    ),
    event(
        "diffed",
        "events.jsonl of suite and findings",
        "a diff was answered and judged",
        &[
            text("snap", "the snapshot"),
            maybe(text("base", "its base; since creation if absent")),
            number("ranges", "ranges"),
            number("pages", "pages"),
            number("lbas", "LBAs set"),
            maybe(number("must", "LBAs that had to be, if the model knows")),
        ],
    ),
    event(
        "refused",
        "events.jsonl of suite and findings",
        "a diff was rightly refused",
        &[
            text("snap", "the snapshot"),
            maybe(text("base", "its base")),
            maybe(number("status", "the HTTP status")),
            text("text", "the server's words"),
        ],
    ),
    event(
        "synced",
        "events.jsonl of suite and findings",
        "a diff was copied and flushed",
        &[
            number("ranges", "ranges"),
            number("pages", "pages"),
            number("lbas", "LBAs copied"),
            object("took", "how long it took, as secs and nanos"),
        ],
    ),
    event(
        "checksummed",
        "events.jsonl of suite and findings",
        "both devices were checksummed",
        &[
            list("at", "where: the first LBA and how many"),
            text("source", "SHA-256 of the source there"),
            text("target", "SHA-256 of the target there"),
        ],
    ),
    event(
        "throughput",
        "events.jsonl of suite and findings",
        "the speed of a copy was measured",
        &[number("bytes", "bytes copied"), object("took", "how long it took, as secs and nanos")],
    ),
    event(
        "skipped",
        "events.jsonl of suite and findings",
        "a step was not run",
        &[
            any("op", "what it was, as scenarios spell it: a text or an object"),
            text("why", "why not"),
        ],
    ),
    event(
        "note",
        "events.jsonl of suite and findings",
        "something worth saying that is no violation",
        &[text("text", "what")],
    ),
    event(
        "violation",
        "events.jsonl of suite and findings",
        "something is wrong",
        &[object("violation", "kind, sentence, snap, base, extents, picture")],
    ),
    event(
        "record",
        "events.jsonl of suite and findings",
        "a fact for the second judge; the fields are those of each kind of fact",
        &[text("record", "which kind of fact")],
    ),
];
