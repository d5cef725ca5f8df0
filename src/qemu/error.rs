//! What can go wrong with a qemu-storage-daemon of our own, with what the user can do about it. Not
//! covered: errors of a call once the daemon runs; those are the port's.

use super::nbd::NbdError;
use super::qmp::QmpError;
use crate::array::ApiError;
use std::io;
use std::path::PathBuf;

/// A qemu-storage-daemon could not be started, or could not be prepared as an array.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// A program cannot be run; the command line maps this to exit code 3.
    #[error(
        "cannot run `{program}`: {cause}; install qemu-storage-daemon 7.2 or later and qemu-img \
         (on Debian the packages qemu-utils and qemu-system-common), or name the daemon with --qsd PATH",
        program = program.display()
    )]
    Missing {
        /// What was to be run.
        program: PathBuf,
        /// Why it did not run.
        cause: io::Error,
    },
    /// The daemon is there but too old, or does not say how old it is.
    #[error(
        "`{program}` is {found}, but 7.2 or later is needed; install a newer qemu-utils or \
         qemu-system-common, or name another daemon with --qsd PATH",
        program = program.display()
    )]
    TooOld {
        /// What was run.
        program: PathBuf,
        /// The version it gave, escaped.
        found: String,
    },
    /// The configuration cannot be served.
    #[error("{0}")]
    Config(String),
    /// The daemon ended or did not open its sockets.
    #[error("qemu-storage-daemon did not start: {cause}; it said: {said}")]
    Start {
        /// What was seen.
        cause: String,
        /// The end of its own output, escaped.
        said: String,
    },
    /// Making the empty image failed.
    #[error("qemu-img could not make an image: {0}")]
    Image(String),
    /// A file operation in the private directory failed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The control socket failed or the daemon refused a command.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The data socket failed.
    #[error(transparent)]
    Nbd(#[from] NbdError),
}

impl From<QmpError> for ApiError {
    fn from(error: QmpError) -> ApiError {
        match error {
            QmpError::Malformed { command, what } => ApiError::Malformed { call: command, what },
            other => ApiError::Failed(other.to_string()),
        }
    }
}

impl From<QemuError> for ApiError {
    fn from(error: QemuError) -> ApiError {
        match error {
            QemuError::Qmp(error) => error.into(),
            QemuError::Nbd(error) => error.into(),
            other => ApiError::Failed(other.to_string()),
        }
    }
}

impl From<NbdError> for ApiError {
    fn from(error: NbdError) -> ApiError {
        match error {
            NbdError::Malformed(what) => {
                ApiError::Malformed { call: "NBD of qemu-storage-daemon".to_owned(), what }
            }
            other => ApiError::Failed(other.to_string()),
        }
    }
}

/// Foreign text, cut and escaped so that a terminal shows it as it is.
pub(super) fn escaped(text: &str) -> String {
    const SHOWN: usize = 300;
    let mut shown: String = text.trim().chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.trim().chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
