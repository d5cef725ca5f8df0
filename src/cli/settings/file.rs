//! Reads `lbaudit.toml`: which file, whether it can be trusted, what its tables say. Not covered:
//! which flags there are.

use super::SettingsError;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file of settings is small; more than this is something else.
const MOST_BYTES: u64 = 1 << 20;
/// Others may write.
const WRITABLE_BY_ALL: u32 = 0o002;

/// One value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Text or a number.
    One(OsString),
    /// Several.
    Many(Vec<OsString>),
    /// Yes or no.
    Switch(bool),
    /// Set where no word of a command line is needed for it.
    Elsewhere,
}

/// A table: settings by their flag's long name, and tables for one command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// For every command that has such a flag.
    pub all: BTreeMap<String, Value>,
    /// For the command of that name alone.
    pub of: BTreeMap<String, BTreeMap<String, Value>>,
}

/// A file, read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// `[default]`.
    pub default: Table,
    /// `[profile.NAME]`.
    pub profiles: BTreeMap<String, Table>,
    /// Keys outside of every table.
    pub stray: Vec<String>,
}

/// Who may have written a file that nobody named.
#[derive(Clone, Debug)]
pub struct Places {
    /// Looked at in this order.
    pub files: Vec<PathBuf>,
    /// Users whose files are taken.
    pub owners: Vec<u32>,
}

/// Reads the file that was named.
///
/// # Errors
/// If it cannot be read or is no such file.
pub fn read_named(path: &Path) -> Result<File, SettingsError> {
    let missing = || unreadable(path, "there is no such file");
    parse(path, &text_of(path, None)?.ok_or_else(missing)?)
}

/// Reads the first file that is there.
///
/// # Errors
/// If it is not to be trusted, cannot be read or is no such file.
pub fn read_found(places: &Places) -> Result<Option<(PathBuf, File)>, SettingsError> {
    for path in &places.files {
        if let Some(text) = text_of(path, Some(&places.owners))? {
            return Ok(Some((path.clone(), parse(path, &text)?)));
        }
    }
    Ok(None)
}

fn unreadable(path: &Path, why: impl ToString) -> SettingsError {
    SettingsError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

/// The text, if there is a file; `owners` are those who may own it and be the only ones to write
/// it. It may name programs to start, so a stranger's is not taken just because it lies here.
fn text_of(path: &Path, owners: Option<&[u32]>) -> Result<Option<String>, SettingsError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, error)),
    };
    if let Some(owners) = owners {
        let about = file.metadata().map_err(|error| unreadable(path, error))?;
        if !owners.contains(&about.uid()) {
            return Err(SettingsError::Stranger { path: path.to_owned(), owner: about.uid() });
        }
        if about.mode() & WRITABLE_BY_ALL != 0 {
            return Err(SettingsError::OpenToAll(path.to_owned()));
        }
    }
    let mut text = String::new();
    let read = file.take(MOST_BYTES + 1).read_to_string(&mut text);
    let read = read.map_err(|error| unreadable(path, error))?;
    if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) {
        return Err(unreadable(path, format!("it has more than {MOST_BYTES} bytes")));
    }
    Ok(Some(text))
}

/// What a file of this text says.
///
/// # Errors
/// If it is no TOML, or a table or value cannot be one of ours.
pub fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
    let malformed = |why: String| SettingsError::Malformed { path: path.to_owned(), why };
    let whole: toml::Table =
        text.parse().map_err(|error: toml::de::Error| malformed(in_words(text, &error)))?;
    let mut file = File::default();
    for (key, value) in whole {
        match (key.as_str(), value) {
            ("default", toml::Value::Table(rows)) => {
                file.default = table("default", rows).map_err(malformed)?;
            }
            ("profile", toml::Value::Table(profiles)) => {
                for (name, rows) in profiles {
                    let toml::Value::Table(rows) = rows else {
                        return Err(malformed(format!("profile.{name} is no table")));
                    };
                    let place = format!("profile.{name}");
                    file.profiles.insert(name, table(&place, rows).map_err(malformed)?);
                }
            }
            (key, _) => file.stray.push(key.to_owned()),
        }
    }
    Ok(file)
}

/// Line and reason. Not the line itself: it may hold what should not be printed.
fn in_words(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn table(place: &str, rows: toml::Table) -> Result<Table, String> {
    let mut table = Table::default();
    for (key, value) in rows {
        if let toml::Value::Table(rows) = value {
            let mut of = BTreeMap::new();
            for (inner, value) in rows {
                of.insert(flag_name(&inner), setting(&format!("{place}.{key}.{inner}"), value)?);
            }
            table.of.insert(key, of);
        } else {
            table.all.insert(flag_name(&key), setting(&format!("{place}.{key}"), value)?);
        }
    }
    Ok(table)
}

/// `run_dir` is `run-dir`.
fn flag_name(key: &str) -> String {
    key.replace('_', "-")
}

fn setting(place: &str, value: toml::Value) -> Result<Value, String> {
    let one = |value: toml::Value| match value {
        toml::Value::String(text) => Ok(OsString::from(text)),
        toml::Value::Integer(number) => Ok(number.to_string().into()),
        toml::Value::Float(number) => Ok(number.to_string().into()),
        other => Err(format!("{place} is a {}: give text or a number", other.type_str())),
    };
    match value {
        toml::Value::Boolean(switch) => Ok(Value::Switch(switch)),
        toml::Value::Array(values) => {
            values.into_iter().map(one).collect::<Result<_, _>>().map(Value::Many)
        }
        other => one(other).map(Value::One),
    }
}
