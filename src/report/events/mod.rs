//! The events of `--output jsonl` and of `events.jsonl`, and their fields: the promise to scripts, in
//! one table that `lbaudit list events` and `lbaudit explain EVENT` print. Events and fields are only
//! ever added; a changed meaning raises the version.
//!
//! Not covered: how they are written (each command writes its own, [`super::JsonLines`] those of the
//! suite), and what is JSON without being an event: `run.json` and its neighbours, `selftest --json`
//! and `--faults`, the ready line of `sim serve`.

mod bench;
mod runs;

use serde::Serialize;

/// Version of the lines: their field `v`.
pub const VERSION: u32 = 1;

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// A number; whole unless it says seconds, milliseconds, MiB or a factor.
    Number,
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A list.
    List,
    /// An object.
    Object,
    /// One or the other of these.
    Any,
}

impl Type {
    /// Its name, as JSON spells it here.
    pub const fn name(self) -> &'static str {
        match self {
            Type::Number => "number",
            Type::Text => "text",
            Type::Flag => "flag",
            Type::List => "list",
            Type::Object => "object",
            Type::Any => "any",
        }
    }
}

/// A field of an event. `v` and `event` have all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Whether it may be null or absent.
    pub optional: bool,
    /// What it means.
    pub meaning: &'static str,
}

/// An event of one command. Several commands have events of one name, each with its own fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct EventSpec {
    /// The field `event`.
    pub name: &'static str,
    /// What prints it: commands, or a file of a run's folder.
    pub of: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Its fields besides `v` and `event`.
    pub fields: &'static [Field],
}

const fn event(
    name: &'static str,
    of: &'static str,
    meaning: &'static str,
    fields: &'static [Field],
) -> EventSpec {
    EventSpec { name, of, meaning, fields }
}

const fn field(name: &'static str, kind: Type, meaning: &'static str) -> Field {
    Field { name, kind, optional: false, meaning }
}

const fn number(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::Number, meaning)
}

const fn text(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::Text, meaning)
}

const fn flag(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::Flag, meaning)
}

const fn list(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::List, meaning)
}

const fn object(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::Object, meaning)
}

const fn maybe(field: Field) -> Field {
    Field { optional: true, ..field }
}

const fn any(name: &'static str, meaning: &'static str) -> Field {
    field(name, Type::Any, meaning)
}

const EXIT: Field = number("exit_code", "the exit code");
const SECONDS: Field = number("seconds", "how long it took, in seconds");

/// All of them, those of one command together.
pub fn events() -> impl Iterator<Item = &'static EventSpec> {
    let runs: [&[EventSpec]; 4] = [&runs::RANDOM, &runs::FIXED, &runs::REPLAYS, &runs::ARRAY];
    let bench: [&[EventSpec]; 3] = [&bench::BENCH, &bench::LISTS, &bench::TRACES];
    runs.into_iter().chain(bench).flatten()
}

impl EventSpec {
    /// It at length, for people.
    pub fn lines(&self) -> Vec<String> {
        let head = format!("event {} of {} (v {VERSION})", self.name, self.of);
        let fields = self.fields.iter().map(|field| {
            let kind = format!("{}{}", field.kind.name(), if field.optional { "?" } else { "" });
            format!("  {:<26}{kind:<9}{}", field.name, field.meaning)
        });
        [head, self.meaning.to_owned()].into_iter().chain(fields).collect()
    }
}

#[cfg(test)]
mod tests;
