//! The `lbaudit` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lbaudit::cli::main()
}
