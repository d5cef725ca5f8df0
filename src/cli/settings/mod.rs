//! Settings that a user need not repeat: `lbaudit.toml` and the variables `LBAUDIT_<FLAG>`.
//!
//! Both become words of the command line, put in front of the user's own, and only for flags that
//! the user did not give; so one parser judges them all, and a file can say nothing that a flag
//! could not. Flag beats variable beats `[profile.X.COMMAND]`, `[profile.X]`, `[default.COMMAND]`,
//! `[default]`. A value also gives way to a stronger one of a flag that excludes it. Consent and
//! the token itself are refused. Not covered: what values mean; reading the environment, which
//! [`crate::cli`] does.

pub mod error;
pub mod file;
pub mod flags;

use super::select::nearest_of;
use clap::Args;
pub use error::SettingsError;
use error::meant;
use file::{Places, Table, Value};
use flags::{CONSENT, Flag, Named, SECRET};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Where settings come from besides flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings (every flag: also LBAUDIT_FLAG, or a key of the file)")]
pub struct SettingsArgs {
    /// Settings file; /dev/null for none [default: ./lbaudit.toml, /etc/lbaudit/lbaudit.toml].
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Profile of that file: its table profile.NAME counts before the table default.
    #[arg(long, value_name = "NAME", global = true)]
    pub config_profile: Option<String>,
}

/// What the process is surrounded by.
#[derive(Clone, Debug)]
pub struct Around {
    /// The variables of the environment.
    pub variables: Vec<(OsString, OsString)>,
    /// Where a file may be found.
    pub places: Places,
}

/// A command line, completed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Completed {
    /// The words.
    pub words: Vec<OsString>,
    /// What the user should know of the file.
    pub warnings: Vec<String>,
    /// Which flags come from the file, a line for each table.
    pub from_file: Vec<String>,
    /// Which flags come from the environment.
    pub from_environment: Option<String>,
}

/// Values of one origin, the strongest origin first.
struct Layer {
    origin: String,
    values: BTreeMap<String, Value>,
}

/// Completes a command line.
///
/// # Errors
/// [`SettingsError`] if the file or a variable says what cannot be taken.
pub fn complete(
    words: Vec<OsString>,
    root: &clap::Command,
    around: &Around,
) -> Result<Completed, SettingsError> {
    let lossy: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let known: Vec<Option<&str>> = lossy.iter().map(|word| Some(word.as_str())).collect();
    // What is not understood is left to the parser's own message, and help is always given.
    let (Some(named), false) = (flags::named(root, &known), asks_for_help(&known)) else {
        return Ok(Completed { words, ..Completed::default() });
    };
    let mut flags = flags::flags_of(named.command);
    let own = own_words(&known);
    if own.iter().any(|word| *word == RESUME || word.starts_with(&format!("{RESUME}="))) {
        flags.retain(|flag| WITH_RESUME.contains(&flag.name.as_str()));
    }
    if flags.is_empty() {
        return Ok(Completed { words, ..Completed::default() });
    }
    let given: BTreeSet<&str> = flags
        .iter()
        .filter(|flag| own.iter().any(|word| flag.is_spelt(word)))
        .map(|flag| flag.name.as_str())
        .collect();
    // The simulator's server is not the client whose settings these are.
    let is_server = named.name == SERVER;
    let mut layers =
        if is_server { Vec::new() } else { vec![variables(&flags, &around.variables)?] };
    let mut warnings = Vec::new();
    if let Some((path, file)) = settings_file(&own, around)? {
        warnings = check(root, &path, &file)?;
        layers.extend(tables(&own, around, &named, &path, &file)?);
    }
    let (tokens, mut origins) = merged(&flags, &given, &layers)?;
    let from_environment = match origins.first() {
        Some(first) if first.starts_with(ENVIRONMENT) => Some(origins.remove(0)),
        _ => None,
    };
    let behind = named.behind;
    let mut words = words;
    words.splice(behind..behind, tokens);
    Ok(Completed { words, warnings, from_file: origins, from_environment })
}

/// Who goes on with an earlier run has that run's flags, whatever the settings say by now.
const RESUME: &str = "--resume";
/// But where that run is, what it may not keep, and how this one looks.
const WITH_RESUME: [&str; 7] =
    ["run-dir", "jwt-file", "jwt-command", "output", "color", "progress", "quiet"];

/// Where variables come from.
const ENVIRONMENT: &str = "the environment";

/// The command that plays the array.
const SERVER: &str = "sim-serve";

fn asks_for_help(words: &[Option<&str>]) -> bool {
    own_words(words).iter().any(|word| ["-h", "--help", "-V", "--version"].contains(word))
}

/// The words that can be flags.
fn own_words<'a>(words: &[Option<&'a str>]) -> Vec<&'a str> {
    words.iter().skip(1).map(|word| word.unwrap_or_default()).take_while(|w| *w != "--").collect()
}

/// The value of a flag that says where settings are.
fn settings_flag<'a>(own: &'a [&'a str], around: &'a Around, name: &str) -> Option<&'a OsStr> {
    let spelt = format!("--{name}");
    let mut found = None;
    for (at, word) in own.iter().enumerate() {
        match word.strip_prefix(&spelt) {
            Some("") => found = own.get(at + 1).map(OsStr::new),
            Some(rest) if rest.starts_with('=') => found = rest.get(1..).map(OsStr::new),
            _ => {}
        }
    }
    let variable = format!("LBAUDIT_{}", name.to_uppercase().replace('-', "_"));
    let around =
        around.variables.iter().find(|(key, value)| *key == *variable && !value.is_empty());
    found.or_else(|| around.map(|(_, value)| value.as_os_str()))
}

fn settings_file(
    own: &[&str],
    around: &Around,
) -> Result<Option<(PathBuf, file::File)>, SettingsError> {
    let named = settings_flag(own, around, "config").map(PathBuf::from);
    let found = match named {
        Some(path) => file::read_named(&path).map(|file| Some((path, file)))?,
        None => file::read_found(&around.places)?,
    };
    match settings_flag(own, around, "config-profile") {
        Some(profile) if found.is_none() => {
            Err(SettingsError::NoFile(profile.to_string_lossy().into_owned()))
        }
        _ => Ok(found),
    }
}

/// What the file says that nobody can take, and what nobody understands.
fn check(
    root: &clap::Command,
    path: &std::path::Path,
    file: &file::File,
) -> Result<Vec<String>, SettingsError> {
    let commands = flags::leaves(root);
    let names: BTreeSet<&str> = commands
        .iter()
        .flat_map(|(_, flags)| flags.iter().map(|flag| flag.name.as_str()))
        .collect();
    let shown = path.display();
    let mut warnings: Vec<String> = file
        .stray
        .iter()
        .map(|key| format!("{shown}: `{key}` stands outside of [default] and [profile.NAME], so nothing reads it"))
        .collect();
    let near =
        |wrong: &str, names: &BTreeSet<&str>| meant(nearest_of(wrong, names.iter().copied()));
    let mut key = |place: &str, name: &str| {
        let place = format!("{shown} [{place}]");
        if CONSENT.contains(&name) {
            return Err(SettingsError::Consent { flag: name.to_owned(), place });
        }
        if name == SECRET {
            return Err(SettingsError::Secret { place });
        }
        if !names.contains(name) {
            warnings.push(format!("{place}: no command has a flag --{name}{}", near(name, &names)));
        }
        Ok(())
    };
    let profiles = file.profiles.iter().map(|(name, table)| (format!("profile.{name}"), table));
    let mut unknown = Vec::new();
    for (place, table) in std::iter::once(("default".to_owned(), &file.default)).chain(profiles) {
        table.all.keys().try_for_each(|name| key(&place, name))?;
        for (command, rows) in &table.of {
            if !commands.iter().any(|(name, _)| name == command) {
                let names = commands.iter().map(|(name, _)| name.as_str()).collect();
                let near = near(command, &names);
                unknown.push(format!("{shown} [{place}.{command}]: no command `{command}`{near}"));
            }
            rows.keys().try_for_each(|name| key(&format!("{place}.{command}"), name))?;
        }
    }
    warnings.extend(unknown);
    Ok(warnings)
}

/// The variables that stand for flags of this command.
fn variables(flags: &[Flag], around: &[(OsString, OsString)]) -> Result<Layer, SettingsError> {
    let mut values = BTreeMap::new();
    for flag in flags {
        let name = flag.variable();
        let Some((_, text)) = around.iter().find(|(key, text)| *key == *name && !text.is_empty())
        else {
            continue;
        };
        if CONSENT.contains(&flag.name.as_str()) {
            return Err(SettingsError::Consent { flag: flag.name.clone(), place: name });
        }
        if flag.name == SECRET {
            return Err(SettingsError::Secret { place: name });
        }
        let value = match text.to_str() {
            Some(text) if !flag.takes_value => Value::Switch(switch(text).ok_or_else(|| {
                SettingsError::Value { flag: flag.name.clone(), place: name, wants: YES_OR_NO }
            })?),
            Some(text) if flag.repeats => {
                Value::Many(text.split(',').map(OsString::from).collect())
            }
            _ => Value::One(text.clone()),
        };
        values.insert(flag.name.clone(), value);
    }
    if around.iter().any(|(key, text)| *key == *"LIGHTBITS_JWT" && !text.is_empty()) {
        // Nothing to add to the line, but stronger than any file's way to a token.
        values.insert(SECRET.to_owned(), Value::Elsewhere);
    }
    Ok(Layer { origin: ENVIRONMENT.to_owned(), values })
}

const YES_OR_NO: &str = "no value: give true or false";

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The tables of the file that count for this command, the strongest first.
fn tables(
    own: &[&str],
    around: &Around,
    named: &Named<'_>,
    path: &std::path::Path,
    file: &file::File,
) -> Result<Vec<Layer>, SettingsError> {
    let mut chosen: Vec<(String, &Table)> = Vec::new();
    if let Some(name) = settings_flag(own, around, "config-profile") {
        let name = name.to_string_lossy();
        let profile = file.profiles.get(&*name).ok_or_else(|| SettingsError::NoProfile {
            near: nearest_of(&name, file.profiles.keys().map(String::as_str)).map(str::to_owned),
            name: name.clone().into_owned(),
            path: path.to_owned(),
        })?;
        chosen.push((format!("profile.{name}"), profile));
    }
    chosen.push(("default".to_owned(), &file.default));
    let mut layers = Vec::new();
    for (place, table) in chosen {
        let shown = path.display();
        if let Some(values) = table.of.get(&named.name) {
            let origin = format!("{shown} [{place}.{}]", named.name);
            layers.push(Layer { origin, values: values.clone() });
        }
        if named.name != SERVER {
            layers.push(Layer { origin: format!("{shown} [{place}]"), values: table.all.clone() });
        }
    }
    Ok(layers)
}

/// The words that the layers add, and where they come from.
fn merged(
    flags: &[Flag],
    given: &BTreeSet<&str>,
    layers: &[Layer],
) -> Result<(Vec<OsString>, Vec<String>), SettingsError> {
    // What is said already, and what of it excludes others: a plain "no" does not.
    let (mut said, mut stands) = (given.clone(), given.clone());
    let (mut tokens, mut origins) = (Vec::new(), Vec::new());
    for layer in layers {
        let free = |flag: &&Flag| {
            !said.contains(flag.name.as_str())
                && !flag.rivals.iter().any(|rival| stands.contains(rival.as_str()))
        };
        let rows = flags
            .iter()
            .filter(free)
            .filter_map(|flag| layer.values.get(&flag.name).map(|value| (flag, value)));
        let rows: Vec<(&Flag, &Value)> = rows.collect();
        let mut named = Vec::new();
        for (flag, value) in rows {
            let words = words_for(flag, value, &layer.origin)?;
            said.insert(&flag.name);
            if !words.is_empty() {
                named.push(flag.name.as_str());
            }
            if !words.is_empty() || *value == Value::Elsewhere {
                stands.insert(&flag.name);
            }
            tokens.extend(words);
        }
        if !named.is_empty() {
            origins.push(format!("{}: {}", layer.origin, named.join(", ")));
        }
    }
    Ok((tokens, origins))
}

/// A value as the user would have typed it.
fn words_for(flag: &Flag, value: &Value, place: &str) -> Result<Vec<OsString>, SettingsError> {
    let refuse = |wants| {
        let (flag, place) = (flag.name.clone(), place.to_owned());
        Err(SettingsError::Value { flag, place, wants })
    };
    let typed = |text: &OsString| {
        let mut word = OsString::from(format!("--{}=", flag.name));
        word.push(text);
        word
    };
    match value {
        Value::Elsewhere => Ok(Vec::new()),
        Value::Switch(_) if flag.takes_value => refuse("a value, not true or false"),
        Value::Switch(true) => Ok(vec![format!("--{}", flag.name).into()]),
        Value::Switch(false) => Ok(Vec::new()),
        Value::One(_) | Value::Many(_) if !flag.takes_value => refuse(YES_OR_NO),
        Value::One(text) => Ok(vec![typed(text)]),
        Value::Many(texts) if flag.repeats => Ok(texts.iter().map(typed).collect()),
        Value::Many(_) => refuse("one value, not a list"),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
