//! Which flags a command has, as its parser knows them: the one list of what may stand in a file or
//! in the environment. Not covered: values and where they come from.

use std::collections::BTreeSet;

/// Consent, given on the command line each time; never in a file or the environment.
pub const CONSENT: [&str; 3] = ["destroy", "allow-signature", "yes"];

/// Holds the token itself.
pub const SECRET: &str = "jwt";

/// Flags that say where settings come from.
pub const OF_SETTINGS: [&str; 2] = ["config", "config-profile"];

/// Flags that exclude each other without clap's knowing it.
const RIVALS: [(&str, &str); 5] = [
    ("jwt", "jwt-file"),
    ("jwt", "jwt-command"),
    ("jwt-file", "jwt-command"),
    ("insecure", "pin-sha256"),
    ("insecure", "ca-file"),
];

/// One flag of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// Its long name, without the hyphens in front.
    pub name: String,
    /// Other spellings on the command line, hyphens included.
    pub spellings: Vec<String>,
    /// Whether it takes a value.
    pub takes_value: bool,
    /// Whether help leaves it out.
    pub hidden: bool,
    /// Whether it may be given several times.
    pub repeats: bool,
    /// Long names of the flags that it excludes.
    pub rivals: BTreeSet<String>,
}

impl Flag {
    /// The variable that stands for it.
    pub fn variable(&self) -> String {
        format!("LBAUDIT_{}", self.name.to_uppercase().replace('-', "_"))
    }
    /// Whether this word of a command line is the flag, with or without a value.
    pub fn is_spelt(&self, word: &str) -> bool {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        self.spellings.iter().any(|spelling| match spelling.strip_prefix('-') {
            // Short flags come in bundles: `-qv`.
            Some(short) if !short.starts_with('-') => {
                word.starts_with('-') && !word.starts_with("--") && word.contains(short)
            }
            _ => spelling == name,
        })
    }
}

/// The flags of a command that can be set elsewhere, or are refused there.
pub fn flags_of(command: &clap::Command) -> Vec<Flag> {
    let long = |arg: &clap::Arg| arg.get_long().map(str::to_owned);
    let settable = |arg: &&clap::Arg| {
        long(arg).is_some_and(|name| {
            !OF_SETTINGS.contains(&name.as_str()) && !["help", "version"].contains(&name.as_str())
        })
    };
    let excluded = |arg: &clap::Arg| -> BTreeSet<String> {
        command.get_arg_conflicts_with(arg).into_iter().filter_map(long).collect()
    };
    let mut flags = Vec::new();
    for arg in command.get_arguments().filter(settable) {
        let name = long(arg).unwrap_or_default();
        let mut rivals = excluded(arg);
        let back = command.get_arguments().filter(|other| excluded(other).contains(&name));
        rivals.extend(back.filter_map(long));
        for (one, two) in RIVALS {
            rivals.extend((one == name).then(|| two.to_owned()));
            rivals.extend((two == name).then(|| one.to_owned()));
        }
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let mut spellings: Vec<String> =
            aliases.into_iter().chain([name.as_str()]).map(|name| format!("--{name}")).collect();
        spellings.extend(arg.get_short().map(|short| format!("-{short}")));
        flags.push(Flag {
            spellings,
            takes_value: arg.get_action().takes_values(),
            hidden: arg.is_hide_set(),
            repeats: matches!(arg.get_action(), clap::ArgAction::Append),
            rivals,
            name,
        });
    }
    flags
}

/// A command, the words of the line that name it, and how far those reach.
pub struct Named<'a> {
    /// The command.
    pub command: &'a clap::Command,
    /// Its name, as tables of a file are called: `soak`, `sim-serve`.
    pub name: String,
    /// The index of the first word behind its name.
    pub behind: usize,
}

/// The command that a line names, if it names one that is a leaf.
pub fn named<'a>(root: &'a clap::Command, words: &[Option<&str>]) -> Option<Named<'a>> {
    let (mut command, mut at) = (root, 1);
    let mut names = Vec::new();
    while command.has_subcommands() {
        at = behind_settings(words, at);
        command = command.find_subcommand((*words.get(at)?)?)?;
        names.push(command.get_name());
        at += 1;
    }
    Some(Named { command, name: names.join("-"), behind: at })
}

/// The index of the first word from `at` on that is not of a flag that says where settings are.
pub fn behind_settings(words: &[Option<&str>], mut at: usize) -> usize {
    while let Some(Some(word)) = words.get(at) {
        let Some(rest) = OF_SETTINGS.iter().find_map(|name| {
            let rest = word.strip_prefix("--")?.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('=')).then_some(rest)
        }) else {
            break;
        };
        at += if rest.is_empty() { 2 } else { 1 };
    }
    at.min(words.len())
}

/// All commands that do something, with their flags.
pub fn leaves(root: &clap::Command) -> Vec<(String, Vec<Flag>)> {
    let mut found = Vec::new();
    for command in root.get_subcommands() {
        if command.has_subcommands() {
            let below = leaves(command).into_iter();
            found.extend(
                below.map(|(name, flags)| (format!("{}-{name}", command.get_name()), flags)),
            );
        } else {
            found.push((command.get_name().to_owned(), flags_of(command)));
        }
    }
    found
}
