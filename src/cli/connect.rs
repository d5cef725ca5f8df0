//! From a checked configuration to a client of an array. Not covered: whether the array answers;
//! the first call finds out.

use super::Context;
use super::config::{Connection, Token as TokenSource};
use super::failure::Failure;
use crate::block::BitmapOrder;
use crate::lightbits::{ClientConfig, LightbitsClient, Timeouts, Token};
use std::time::SystemTime;

/// A client, and what is known of its token.
pub struct Connected {
    /// The client. It sends nothing before its first call.
    pub client: LightbitsClient,
    /// When the token ends, if it says so.
    pub token_expires: Option<SystemTime>,
}

/// What every screen and report says when certificates are not verified.
pub const INSECURE: &str =
    "the server's certificate is not verified (--insecure): whoever answers gets the token";

/// Makes the client, warning of what is unsafe on the way.
///
/// # Errors
/// If there is no usable token, or the configuration cannot work.
pub fn connect(
    connection: &Connection,
    order: BitmapOrder,
    context: &mut Context,
) -> Result<Connected, Failure> {
    if matches!(connection.token, TokenSource::Flag(_)) {
        context.ui.say(
            "warning: --jwt shows the token in the process list; use LIGHTBITS_JWT or --jwt-file",
        );
    }
    // A command may take its time, and so may a pipe.
    let token = context.stop.at_once(|| match &connection.token {
        TokenSource::Environment(secret) | TokenSource::Flag(secret) => Token::from_text(&secret.0),
        TokenSource::File(path) => Token::from_file(path),
        TokenSource::Command(command) => Token::from_command(command),
    })?;
    let token_expires = token.expiry();
    let client = LightbitsClient::connect(ClientConfig {
        endpoints: connection.endpoints.clone(),
        project: connection.project.clone(),
        token,
        tls: connection.tls.clone(),
        bitmap_order: order,
        timeouts: Timeouts::default(),
        stop: context.stop.shared_flag(),
    })?;
    context.ui.keep_out(client.redactor());
    Ok(Connected { client, token_expires })
}
