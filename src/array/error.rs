//! Errors of the port: what a target refused or failed to do, told apart by what it means.
//!
//! None of them is a violation by itself; `crate::oracle` decides what an error means for the
//! array. Not covered: errors of set-up (TLS, tokens, daemons), which belong to the adapters.

use crate::block::{ByteOffset, Lba};
use std::fmt;
use std::io;

/// What the server said, kept for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// HTTP status, if the target speaks HTTP.
    pub status: Option<u16>,
    /// The server's own words, escaped and cut to a line.
    pub text: String,
    /// What the call was, for example `GET snapshots/diff/2905..`.
    pub call: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{} answered {status}: {}", self.call, self.text),
            None => write!(f, "{}: {}", self.call, self.text),
        }
    }
}

/// A control-plane call that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The thing is not there (404 with a readable error).
    #[error("{0}")]
    NotFound(Reply),
    /// The target understood and refused (400, 422).
    #[error("{0}")]
    Refused(Reply),
    /// Such a name exists already, or the state forbids it (409, 412).
    #[error("{0}")]
    Conflict(Reply),
    /// The server does not know the call (404 or 405 without a readable error).
    #[error("{0}; this server does not offer that call, check the endpoint and its version")]
    NoSuchCall(Reply),
    /// The token is missing, expired, wrong or not allowed to do this (401, 403).
    #[error("{0}; check the token (expiry, project, role) and --project")]
    Auth(Reply),
    /// The server stayed busy or broken through all retries (408, 429, 5xx).
    #[error("{0}; gave up after {tries} tries", tries = .1)]
    Server(Reply, u32),
    /// No connection, broken connection or no answer in time.
    #[error("{call}: {cause}; gave up after {tries} tries, check --endpoint and the network")]
    Transport {
        /// What was asked.
        call: String,
        /// What went wrong.
        cause: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The server's certificate was not accepted.
    #[error("{0}")]
    Tls(String),
    /// The answer could not be read as what the contract promises.
    #[error("{call}: answer cannot be read: {what}")]
    Malformed {
        /// What was asked.
        call: String,
        /// What is wrong with the answer, escaped.
        what: String,
    },
    /// A state did not come in time.
    #[error("{what} did not happen within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: u64,
    },
    /// The array reports that it failed (state Failed).
    #[error("{0}")]
    Failed(String),
    /// This target has no such operation.
    #[error("this target does not offer {0}")]
    Unsupported(&'static str),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// This tool could not keep its own books (journal, state files), so it did not act.
    #[error("cannot record what is about to be done, so it was not done: {0}")]
    Journal(String),
}

impl ApiError {
    /// Whether the target itself said no to this very request (and not to everything).
    pub fn is_refusal(&self) -> bool {
        matches!(self, ApiError::NotFound(_) | ApiError::Refused(_) | ApiError::Conflict(_))
    }
}

/// A data-plane call that failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The operating system answered an error.
    #[error("{op} at byte {at}: {source}")]
    Io {
        /// `read`, `write`, `flush`, `discard` or `write-zeroes`.
        op: &'static str,
        /// Where.
        at: ByteOffset,
        /// The error.
        source: io::Error,
    },
    /// Nothing is moving: a read or write ended early twice without progress.
    #[error("{op} at byte {at} ended early")]
    Short {
        /// `read` or `write`.
        op: &'static str,
        /// Where.
        at: ByteOffset,
    },
    /// The request lies outside what this run may touch. Always a bug of this tool.
    #[error("{op} of {len} LBAs at LBA {at} lies outside the allowed region")]
    Forbidden {
        /// What was tried.
        op: &'static str,
        /// Where.
        at: Lba,
        /// How many LBAs.
        len: u64,
    },
    /// The device has no such command.
    #[error("the device does not offer {0}")]
    Unsupported(&'static str),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}
