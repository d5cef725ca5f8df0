//! `lbaudit completions SHELL`: what a shell needs to complete this program's command lines.
//!
//! Not covered: putting it where the shell looks; packages do that.

use crate::cli::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use clap::Args;
use clap_complete::Shell;

/// Which shell.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Prints the completions of `program`.
///
/// # Errors
/// If standard output takes no more.
pub fn run(
    args: &CompletionsArgs,
    program: &mut clap::Command,
    context: &mut Context,
) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where it cannot write.
    let mut text = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(args.shell, program, name, &mut text);
    // What was lost is told at the end, by whoever watches the output.
    let _ = context.ui.out().write_all(&text);
    Ok(Exit::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::args::Form;
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use clap::{CommandFactory, ValueEnum};

    #[test]
    fn every_shell_learns_the_commands_and_flags() {
        for shell in Shell::value_variants() {
            let (ui, text) = Ui::captured(Form::Text);
            let mut context = Context { ui, stop: Stop::default() };
            let args = CompletionsArgs { shell: *shell };
            run(&args, &mut Cli::command(), &mut context).expect("printed");
            let text = text.text();
            for word in ["lbaudit", "soak", "serve", "max-full-sync", "config-profile"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
