//! The table says what the sources write: a field that is new there must be new here.

use super::*;

/// The sources that write events.
const SOURCES: [&str; 17] = [
    include_str!("../jsonl.rs"),
    include_str!("../../engine/event.rs"),
    include_str!("../../campaign/run_log.rs"),
    include_str!("../../cli/commands/audit.rs"),
    include_str!("../../cli/commands/clean.rs"),
    include_str!("../../cli/commands/diff.rs"),
    include_str!("../../cli/commands/doctor.rs"),
    include_str!("../../cli/commands/explore.rs"),
    include_str!("../../cli/commands/hunt.rs"),
    include_str!("../../cli/commands/judge.rs"),
    include_str!("../../cli/commands/matrix.rs"),
    include_str!("../../cli/commands/replay.rs"),
    include_str!("../../cli/commands/runs.rs"),
    include_str!("../../cli/commands/runs/merged.rs"),
    include_str!("../../cli/commands/runs/old.rs"),
    include_str!("../../cli/commands/selftest.rs"),
    include_str!("../../cli/commands/sync.rs"),
];

/// An event as a source declares it.
#[derive(Debug, Default)]
struct Declared {
    name: String,
    fields: Vec<String>,
    /// Whether the fields of another type are among its own.
    flattens: bool,
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Adds the fields that a piece of a declaration names.
fn add_fields(event: &mut Declared, piece: &str) {
    for part in piece.split(", ") {
        let name = part.split(':').next().unwrap_or_default().trim();
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
        if is_name && part.contains(':') {
            event.fields.push(name.to_owned());
        }
    }
}

/// The events that a source declares, read as rustfmt leaves it.
fn declared(source: &str) -> Vec<Declared> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("#[serde(tag = \"event\"") {
        let item = &source[at..];
        let item = item.split("\n}").next().unwrap_or(item);
        let mut lines = item.lines().map(str::trim);
        let attribute = lines.next().unwrap_or_default();
        let renamed = attribute.split_once("rename = \"").and_then(|(_, it)| it.split('"').next());
        let mut now =
            Declared { name: renamed.unwrap_or_default().to_owned(), ..Declared::default() };
        let mut flattened = false;
        for line in lines.skip_while(|line| !line.ends_with('{')).skip(1) {
            if line.starts_with("//") || line.starts_with("#[") {
                flattened |= line == "#[serde(flatten)]";
                continue;
            }
            if renamed.is_none() && line.starts_with(char::is_uppercase) {
                found.extend((!now.name.is_empty()).then(|| std::mem::take(&mut now)));
                let (name, rest) = line.split_at(line.find([' ', '(', ',']).unwrap_or(line.len()));
                now.name = snake(name);
                now.flattens = rest.starts_with('(');
                add_fields(&mut now, rest.trim_start_matches([' ', '{']));
                continue;
            }
            match std::mem::take(&mut flattened) {
                true => now.flattens = true,
                false => add_fields(&mut now, line),
            }
        }
        found.push(now);
    }
    found
}

#[test]
fn every_event_and_field_that_a_source_declares_is_in_the_table_and_no_others() {
    let mut seen = 0;
    for event in SOURCES.iter().flat_map(|source| declared(source)) {
        let is_it = |spec: &&EventSpec| {
            let names: Vec<&str> = spec.fields.iter().map(|field| field.name).collect();
            let all = event.fields.iter().all(|name| names.contains(&name.as_str()));
            spec.name == event.name && all && (event.flattens || names.len() == event.fields.len())
        };
        assert!(events().any(|spec| is_it(&spec)), "not in the table as it is: {event:?}");
        seen += 1;
    }
    assert!(seen > 55, "only {seen} declarations were found");
}

#[test]
fn declarations_are_read_as_they_stand() {
    let source = "#[derive(Serialize)]\n#[serde(tag = \"event\", rename_all = \"snake_case\")]\nenum Line<'a> {\n    \
                  /// Words.\n    OneThing {\n        a_b: u8,\n        #[serde(flatten)]\n        rest: R,\n    },\n    \
                  Two { c: Option<u8>, d: &'a str },\n    Three(X<'a>),\n}\n\
                  #[serde(tag = \"event\", rename = \"four\")]\nstruct F {\n    e: u8,\n}\n";
    let read: Vec<String> = declared(source)
        .into_iter()
        .map(|it| format!("{} {} {}", it.name, it.fields.join("+"), it.flattens))
        .collect();
    assert_eq!(read, ["one_thing a_b true", "two c+d false", "three  true", "four e false"]);
}

#[test]
fn names_of_fields_are_unique_and_every_entry_says_something() {
    for spec in events() {
        let mut names: Vec<&str> = spec.fields.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), spec.fields.len(), "{}", spec.name);
        assert!(!spec.fields.is_empty() && !spec.of.is_empty() && !spec.meaning.is_empty());
        assert!(spec.fields.iter().all(|field| !field.meaning.is_empty()), "{}", spec.name);
        assert!(spec.lines()[0].contains(spec.name));
    }
}
