//! What cannot be taken from a file or the environment, with the next step. Not covered: what is
//! only warned about.

use std::path::PathBuf;

/// Settings that cannot be taken; always exit 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The file was found, not named, and belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, and settings may name programs to start: if you trust it, \
         name it by --config; without it: --config /dev/null",
        path.display()
    )]
    Stranger {
        /// Which.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// The file was found, not named, and anybody can write to it.
    #[error(
        "anybody can write to {}, and settings may name programs to start: chmod o-w it, or name \
         it by --config",
        .0.display()
    )]
    OpenToAll(PathBuf),
    /// The file is no such file.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A profile that the file does not have.
    #[error("there is no [profile.{name}] in {}{}", path.display(), meant(near.as_deref()))]
    NoProfile {
        /// What was asked for.
        name: String,
        /// Where.
        path: PathBuf,
        /// The profile of the nearest name, if any is near.
        near: Option<String>,
    },
    /// A profile, and no file that could have it.
    #[error("profile `{0}` was asked for, but there is no lbaudit.toml here or in /etc/lbaudit")]
    NoFile(String),
    /// Consent where none can be given.
    #[error(
        "{place}: consent is not taken from a file or the environment; give --{flag} on the command \
         line each time"
    )]
    Consent {
        /// The flag.
        flag: String,
        /// Where it stood.
        place: String,
    },
    /// The token.
    #[error(
        "{place}: the token does not belong there; give jwt-file or jwt-command, or set LIGHTBITS_JWT"
    )]
    Secret {
        /// Where it stood.
        place: String,
    },
    /// A value that its flag cannot have.
    #[error("{place}: --{flag} takes {wants}")]
    Value {
        /// The flag.
        flag: String,
        /// Where it stood.
        place: String,
        /// What it takes.
        wants: &'static str,
    },
}

/// The end of a message about a name that is not there.
pub(super) fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default()
}
