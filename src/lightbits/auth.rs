//! The bearer token: where it comes from, what it says about itself, and keeping it out of sight.
//!
//! The token lives in memory only. Nothing here verifies its signature: that is the server's
//! business; the claims are read only to refuse an expired token before any call. Not covered:
//! renewing a token during a run.

use crate::array::escape_text;
use base64::Engine;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Error, Visitor};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest token taken, in bytes; servers refuse header lines well below this.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Parts of a token shorter than this are not looked for in texts: they would match ordinary words.
const REDACTED_PART_MIN: usize = 8;
/// So many characters of the token in a row are enough of it to be removed, wherever they stand in it.
const REDACTED_RUN_MIN: usize = 16;
/// What stands where the token was.
const REDACTED: &str = "[token]";

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty; give one with --jwt-file, --jwt-command or LIGHTBITS_JWT")]
    Empty,
    /// Longer than any server takes.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes; is this the right file or command?")]
    TooLong,
    /// Holds what cannot stand in a header.
    #[error("the token holds white space or characters that are not printable ASCII")]
    BadCharacter,
    /// The file could not be read.
    #[error("cannot read the token file {path}: {cause}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Others than the owner may read the file.
    #[error(
        "the token file {path} can be read by others (mode {mode:03o}); run chmod 600 on it, and \
         replace the token if others use this machine"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The command could not be run, or failed.
    #[error("the token command `{command}` {cause}")]
    Command {
        /// Its program and arguments.
        command: String,
        /// Why.
        cause: String,
    },
    /// The token's own expiry time has passed.
    #[error("the token expired at {at} ({ago} s ago); get a new one, nothing was sent")]
    Expired {
        /// When, as HTTP date.
        at: String,
        /// Seconds since then.
        ago: u64,
    },
}

/// A bearer token. It has no `Display`; `Debug` shows only what its claims say about it.
#[derive(Clone)]
pub struct Token {
    text: Arc<str>,
    claims: Claims,
}

/// What a token says about itself, unverified. Missing or unreadable claims are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Whom the token was given to; foreign text, escape before showing.
    #[serde(default)]
    pub sub: Option<String>,
    /// When it expires, in seconds since 1970 UTC.
    #[serde(default, deserialize_with = "numeric_date")]
    pub exp: Option<u64>,
}

impl Token {
    /// The token in `text`, surrounding white space ignored (`lightbits-api.md` section 5).
    ///
    /// # Errors
    /// If it is empty, too long or cannot stand in a header.
    pub fn from_text(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        if !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::BadCharacter);
        }
        let claims = peek_claims(text.as_bytes()).unwrap_or_default();
        Ok(Token { text: text.into(), claims })
    }

    /// The token in a file that only its owner may read.
    ///
    /// # Errors
    /// As [`Token::from_text`], and if the file cannot be read or others may read it.
    pub fn from_file(path: &Path) -> Result<Token, TokenError> {
        // Who mistook the flag gave the token itself.
        let shown = if path.as_os_str().len() > 40 && path.components().count() == 1 {
            PathBuf::from("[hidden, it may be the token itself]")
        } else {
            path.to_owned()
        };
        let unreadable = |cause| TokenError::File { path: shown.clone(), cause };
        let file = File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        // A pipe (`<(command)`, /dev/stdin) has no readers to fear; its mode says nothing.
        if meta.is_file() && meta.mode() & 0o077 != 0 {
            return Err(TokenError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o777 });
        }
        let text = read_bounded(file).map_err(unreadable)?;
        Token::from_text(&text)
    }

    /// The token that a command prints. `command` is split at white space and executed directly,
    /// without a shell: quotes and variables mean nothing.
    ///
    /// # Errors
    /// As [`Token::from_text`], and if the command cannot be run or fails.
    pub fn from_command(command: &str) -> Result<Token, TokenError> {
        let failed =
            |cause: String| TokenError::Command { command: escape_text(command, 200), cause };
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| failed("is empty".to_owned()))?;
        let mut child = Command::new(program)
            .args(words)
            .env_remove("LIGHTBITS_JWT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("cannot be run: {e}")))?;
        let out = child.stdout.take().map(read_bounded);
        let status = child.wait().map_err(|e| failed(format!("cannot be awaited: {e}")))?;
        if !status.success() {
            return Err(failed(format!("failed ({status}); its own messages are above")));
        }
        let text = out
            .unwrap_or_else(|| Ok(String::new()))
            .map_err(|e| failed(format!("cannot be read: {e}")))?;
        Token::from_text(&text)
    }

    /// When the token says it expires; `None` if it does not say.
    pub fn expiry(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.claims.exp?))
    }

    /// Refuses a token that says it has expired by `now`.
    ///
    /// # Errors
    /// [`TokenError::Expired`].
    pub fn check_expiry(&self, now: SystemTime) -> Result<(), TokenError> {
        match self.expiry() {
            Some(at) if at <= now => Err(TokenError::Expired {
                at: http_date(at),
                ago: now.duration_since(at).map_or(0, |ago| ago.as_secs()),
            }),
            _ => Ok(()),
        }
    }

    /// Removes this token, and each of its parts, from texts.
    pub fn redactor(&self) -> Redactor {
        let parts = self.text.split('.').filter(|part| part.len() >= REDACTED_PART_MIN);
        let mut secrets: Vec<String> =
            std::iter::once(&*self.text).chain(parts).map(str::to_owned).collect();
        // The longest first, so that no piece of the whole token is left standing.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let folded = self.text.to_ascii_lowercase();
        let mut pieces: Vec<[u8; REDACTED_RUN_MIN]> = folded
            .as_bytes()
            .windows(REDACTED_RUN_MIN)
            .filter_map(|run| run.try_into().ok())
            .collect();
        pieces.sort_unstable();
        pieces.dedup();
        Redactor { secrets: secrets.into(), pieces: pieces.into() }
    }

    /// The text for the Authorization header, and nothing else.
    pub(super) fn header_text(&self) -> String {
        format!("Bearer {}", self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sub = escape_text(self.claims.sub.as_deref().unwrap_or("?"), 60);
        match self.expiry() {
            Some(at) => write!(f, "jwt(sub={sub}, exp={})", http_date(at)),
            None => write!(f, "jwt(sub={sub}, exp=?)"),
        }
    }
}

/// Removes a token and its parts from any text on its way to a screen, log or file.
#[derive(Clone)]
pub struct Redactor {
    secrets: Arc<[String]>,
    /// Every run of [`REDACTED_RUN_MIN`] characters of the token in lower case, sorted: what a cut or
    /// a change of case leaves of it.
    pieces: Arc<[[u8; REDACTED_RUN_MIN]]>,
}

impl Redactor {
    /// Whether the token, one of its parts or a long piece of it stands in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        self.secrets.iter().any(|secret| text.contains(secret))
            || text.as_bytes().windows(REDACTED_RUN_MIN).any(|run| self.is_piece(run))
    }

    /// `text` without the token, without each of its parts and without long pieces of it.
    pub fn redact(&self, text: &str) -> String {
        let whole = self
            .secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED));
        let mut clean = String::with_capacity(whole.len());
        let (mut kept, mut at) = (0, 0);
        while let Some(run) = whole.as_bytes().get(at..at + REDACTED_RUN_MIN) {
            if !self.is_piece(run) {
                at += 1;
                continue;
            }
            // Tokens are ASCII, so a piece begins and ends between characters.
            clean.push_str(whole.get(kept..at).unwrap_or_default());
            clean.push_str(REDACTED);
            kept = at + REDACTED_RUN_MIN;
            while whole
                .as_bytes()
                .get(kept + 1 - REDACTED_RUN_MIN..=kept)
                .is_some_and(|run| self.is_piece(run))
            {
                kept += 1;
            }
            at = kept;
        }
        clean.push_str(whole.get(kept..).unwrap_or_default());
        clean
    }

    fn is_piece(&self, run: &[u8]) -> bool {
        let folded = run.iter().map(u8::to_ascii_lowercase);
        self.pieces.binary_search_by(|piece| piece.iter().copied().cmp(folded.clone())).is_ok()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// Reads what a JWT claims, without verifying anything; `None` if it is no JWT.
///
/// Total and bounded: any bytes may come in.
pub fn peek_claims(token: &[u8]) -> Option<Claims> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split(|&c| c == b'.');
    let (_header, claims, _signature, None) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let json = LENIENT.decode(claims).ok()?;
    serde_json::from_slice(&json).ok()
}

/// A JWT NumericDate (RFC 7519 section 2): a number of seconds, perhaps with a fraction.
fn numeric_date<'de, D: serde::Deserializer<'de>>(de: D) -> Result<Option<u64>, D::Error> {
    struct NumericDate;
    impl Visitor<'_> for NumericDate {
        type Value = Option<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("seconds since 1970")
        }
        fn visit_u64<E: Error>(self, seconds: u64) -> Result<Option<u64>, E> {
            Ok(Some(seconds))
        }
        fn visit_i64<E: Error>(self, seconds: i64) -> Result<Option<u64>, E> {
            // Before 1970 is as expired as 1970.
            Ok(Some(u64::try_from(seconds).unwrap_or(0)))
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "float casts saturate, and a fraction of a second does not matter"
        )]
        fn visit_f64<E: Error>(self, seconds: f64) -> Result<Option<u64>, E> {
            Ok(Some(seconds as u64))
        }
        fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }
    }
    de.deserialize_any(NumericDate)
}

/// `at` as HTTP date; httpdate panics past the year 9999, so such a date is put in words.
fn http_date(at: SystemTime) -> String {
    const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) if since <= YEAR_9999 => httpdate::fmt_http_date(at),
        _ => "a time past the year 9999".to_owned(),
    }
}

/// Reads a token's worth of text; one byte more proves that there was too much.
fn read_bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX as u64 + 256).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
