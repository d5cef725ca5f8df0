//! How a command fails: one line for the user and the exit code that goes with it. Not covered:
//! violations, which are results and not failures.

use super::config::ConfigError;
use super::exit::Exit;
use super::select::SelectError;
use crate::array::ApiError;
use crate::campaign::embedded::EmbeddedError;
use crate::device::GuardRefusal;
use crate::lightbits::{ConnectError, TokenError};
use crate::sim::serve::ServeError;
use crate::sim::server;
use crate::sync::WalkError;

/// A command that could not do its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What went wrong and what to do, for one line on standard error.
    pub message: String,
}

impl Failure {
    /// Something the user has to change.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, message: message.into() }
    }
    /// Something outside of this tool that did not work.
    pub fn could_not(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::CouldNotTest, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Failure {
        let exit = match error {
            SelectError::Unknown { .. } => Exit::Usage,
            SelectError::Nothing => Exit::Nothing,
        };
        Failure { exit, message: error.to_string() }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        let exit = match error {
            ApiError::Interrupted => Exit::Interrupted,
            _ => Exit::CouldNotTest,
        };
        Failure { exit, message: error.to_string() }
    }
}

impl From<WalkError> for Failure {
    fn from(error: WalkError) -> Failure {
        match error {
            WalkError::Api(error) => error.into(),
            WalkError::Shape(fault) => {
                let message = format!("malformed answer: {fault}");
                Failure { exit: Exit::Violation, message }
            }
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Failure {
        let exit = match error {
            // Authentication, not usage: the same command line worked yesterday.
            TokenError::Expired { .. } | TokenError::Command { .. } => Exit::CouldNotTest,
            _ => Exit::Usage,
        };
        Failure { exit, message: error.to_string() }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::Token(error) => error.into(),
            ConnectError::Http(_) => Failure::could_not(error.to_string()),
            _ => Failure::usage(error.to_string()),
        }
    }
}

impl From<GuardRefusal> for Failure {
    fn from(refusal: GuardRefusal) -> Failure {
        Failure::usage(refusal.to_string())
    }
}

impl From<EmbeddedError> for Failure {
    fn from(error: EmbeddedError) -> Failure {
        Failure::could_not(error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Failure {
        match error {
            ServeError::Size(_)
            | ServeError::NoVolume(_)
            | ServeError::Server(server::ServeError::NotLoopback(_)) => {
                Failure::usage(error.to_string())
            }
            _ => Failure::could_not(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Reply;

    #[test]
    fn failures_carry_the_exit_code_of_the_manual() {
        let reply =
            Reply { status: Some(401), text: "no".to_owned(), call: "GET volumes".to_owned() };
        assert_eq!(Failure::from(ApiError::Auth(reply)).exit, Exit::CouldNotTest);
        assert_eq!(Failure::from(ApiError::Interrupted).exit, Exit::Interrupted);
        assert_eq!(Failure::from(ConfigError::NoToken).exit, Exit::Usage);
        assert_eq!(Failure::from(SelectError::Nothing).exit, Exit::Nothing);
        assert_eq!(Failure::from(TokenError::Empty).exit, Exit::Usage);
        let expired = TokenError::Expired { at: "then".to_owned(), ago: 3 };
        assert_eq!(Failure::from(ConnectError::Token(expired)).exit, Exit::CouldNotTest);
        assert_eq!(Failure::from(ServeError::Size(1)).exit, Exit::Usage);
        let abroad = server::ServeError::NotLoopback(([192, 0, 2, 1], 443).into());
        assert_eq!(Failure::from(ServeError::Server(abroad)).exit, Exit::Usage);
    }
}
