//! Adapter: the Lightbits management REST API v2 (`lightbits-api.md`) as an
//! [`Array`](crate::array::Array).
//!
//! Tolerant about the forms an answer may come in, strict about what it means; bounded in time,
//! tries and memory; the token goes only to servers whose certificate is accepted. What is retried:
//! reads freely, snapshot creation and deletion only after asking what happened.
//!
//! Not covered: what an answer means for the array under test (the oracle), how pages follow each
//! other (`crate::sync`), waiting for states (`crate::array`), and every call that this tool must
//! not make: there is no rollback, resize or update here, and the only volumes made and deleted are
//! clones of its snapshots.
//!
//! Code map: `client` (set-up and calls), `snapshots` (create and delete), `clones`, `http` (one try, reads
//! with retries, status classes), `foreign` (server text made harmless), [`retry`] (time), [`wire`] (JSON objects), [`diff`] (JSON of a
//! diff page), [`tls`] (trust), [`auth`] (token).

pub mod auth;
mod client;
mod clones;
pub mod diff;
mod foreign;
mod http;
pub mod retry;
mod snapshots;
pub mod tls;
pub mod wire;

pub use auth::{Redactor, Token, TokenError};
pub use client::{ClientConfig, ConnectError, LightbitsClient};
pub use retry::Timeouts;
pub use tls::{BadFingerprint, Fingerprint, TlsConfig, TlsSetupError};

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
