//! The command line: reads the environment, runs one command, answers its exit code.
//!
//! No other layer reads the environment, ends the process or (with `crate::report`) prints.
//! Arguments go through three stages: shapes ([`args`]), a checked configuration ([`config`]), the
//! command itself ([`commands`]). Not covered: what the commands do; each has its file.

pub mod args;
pub mod campaign_args;
pub mod commands;
pub mod config;
pub mod connect;
pub mod exit;
pub mod failure;
pub mod github;
pub mod select;
pub mod settings;
pub mod stop;
pub mod ui;
pub mod volumes;

pub use exit::Exit;
pub use failure::Failure;

use args::OutputArgs;
use campaign_args::CampaignArgs;
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};
use commands::{
    audit, check, clean, completions, diff, doctor, drive, explain, explore, list, man, replay,
    report, runs, selftest, serve, suite, sync,
};
use settings::Around;
use settings::file::Places;
use settings::flags::behind_settings;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use stop::Stop;
use ui::{Surroundings, Ui};

/// What every command may use.
pub struct Context {
    /// The user's side.
    pub ui: Ui,
    /// Whether the user asked to stop.
    pub stop: Stop,
}

/// Proves whether a storage array's changed-block answers can be trusted.
#[derive(Parser, Debug)]
#[command(name = "lbaudit", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    settings: settings::SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The 20 fixed tests; without target flags on an embedded simulator.
    Suite(Box<args::SuiteArgs>),
    /// Random checking, bounded: ends with its first finding. Without target flags on a simulator.
    Check(Box<CampaignArgs>),
    /// Random checking for hours: goes on after each finding.
    Soak(Box<CampaignArgs>),
    /// Run exactly the operations of a file, a folder or a named case once.
    Replay(replay::ReplayArgs),
    /// Make a scenario that shows a violation shorter.
    Shrink(replay::ShrinkArgs),
    /// Preflight: looks at everything a run needs and opens nothing for writing.
    Doctor(Box<doctor::DoctorArgs>),
    /// List, and delete when told to, what earlier runs left.
    Clean(Box<clean::CleanArgs>),
    /// One diff answer.
    Diff(Box<diff::DiffArgs>),
    /// Replay one diff from the source device to the target device.
    Sync(Box<sync::SyncArgs>),
    /// The laws on snapshots that are there already; writes nothing.
    Audit(Box<audit::AuditArgs>),
    /// Every short sequence of operations on the simulator, exhaustively.
    Explore(args::ExploreArgs),
    /// Build the report of a run again, of its folder alone.
    Report(report::ReportArgs),
    /// Plant every bug and see which tests catch it.
    Selftest(selftest::SelftestArgs),
    /// What earlier runs did: list, show, export, prune, trend, merge.
    Runs(runs::RunsArgs),
    /// The simulated array.
    Sim {
        #[command(subcommand)]
        command: SimCommand,
    },
    /// List tests, bugs, faults, ops, checks, guards or profiles.
    List(list::ListArgs),
    /// What a name means that `list` prints, and why it matters.
    Explain(explain::ExplainArgs),
    /// The completions of a shell, on standard output.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages into a folder.
    Man(man::ManArgs),
}

#[derive(Subcommand, Debug)]
enum SimCommand {
    /// Serve it over HTTPS with attached volumes until a signal.
    Serve(Box<serve::ServeArgs>),
}

/// What no arguments at all answer.
const SHORT_HELP: &str = "\
lbaudit proves whether a storage array's changed-block answers, and the copies
made from them, can be trusted.

  lbaudit suite                  the 20 tests on an embedded simulator
  lbaudit check --cases 20000    random checking on the same simulator
  lbaudit doctor --endpoint ...  look at an array and two volumes, write nothing

lbaudit --help lists the commands, lbaudit suite --help the flags.
";

/// Runs the program with the arguments and environment of this process.
pub fn main() -> ExitCode {
    keep_memory_private();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
        let payload = panic.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let words = payload.downcast_ref::<&str>().copied().or(owned).unwrap_or("no words");
        let line =
            format!("bug in lbaudit{}: {words}; please report it", place.unwrap_or_default());
        // There is nowhere left to complain if standard error is closed.
        let _ = writeln!(std::io::stderr(), "{line}");
    }));
    let args: Vec<OsString> = std::env::args_os().collect();
    let exit = std::panic::catch_unwind(|| run(args)).unwrap_or(Exit::Bug);
    exit.into()
}

/// Whether this is the original's form: flags without a subcommand. Where settings come from may be
/// said in front of one.
fn is_original_form(args: &[OsString]) -> bool {
    let words: Vec<Option<&str>> = args.iter().map(|word| word.to_str()).collect();
    match words.get(behind_settings(&words, 1)) {
        Some(first) => first.is_some_and(|first| {
            first.starts_with('-') && !matches!(first, "-h" | "--help" | "-V" | "--version")
        }),
        None => words.len() > 1,
    }
}

/// The environment, and where a settings file may be found.
fn around() -> Around {
    let mut owners = vec![0, rustix::process::geteuid().as_raw()];
    // Who became root by sudo is still who may write the file.
    if owners.contains(&0) && owners[1] == 0 {
        owners.extend(std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok()));
    }
    let files = SETTINGS_FILES.map(Into::into).to_vec();
    Around { variables: std::env::vars_os().collect(), places: Places { files, owners } }
}

/// Where a settings file is looked for.
const SETTINGS_FILES: [&str; 2] = ["lbaudit.toml", "/etc/lbaudit/lbaudit.toml"];

fn run(mut args: Vec<OsString>) -> Exit {
    if args.len() < 2 {
        let _ = std::io::stderr().write_all(SHORT_HELP.as_bytes());
        return Exit::Usage;
    }
    let folded = is_original_form(&args);
    if folded {
        args.insert(1, "suite".into());
    }
    let completed = match settings::complete(args, &Cli::command(), &around()) {
        Ok(completed) => completed,
        Err(error) => {
            say(&error.to_string());
            return Exit::Usage;
        }
    };
    completed.warnings.iter().for_each(|warning| say(warning));
    if !completed.words.iter().any(|word| *word == *"-q" || *word == *"--quiet") {
        completed.from_file.iter().for_each(|place| say(&format!("taken from {place}")));
    }
    let parsed = Cli::try_parse_from(&completed.words);
    let exit = match parsed.map(|cli| with_earlier_flags(cli, &completed.words)) {
        Ok(Ok(mut cli)) => {
            commands::remember(&completed.words);
            if let Command::Suite(args) = &mut cli.command {
                args.folded = folded;
            }
            execute(cli.command)
        }
        Ok(Err(failure)) => finish(Err(failure), &mut Ui::plain(), &Stop::default()),
        Err(error) => {
            // Help and version are results, mistakes are not; clap knows which is which.
            if !error.use_stderr() {
                let _ = error.print();
                return Exit::Passed;
            }
            let _ = std::io::stderr().write_all(without_tokens(&error.to_string()).as_bytes());
            Exit::Usage
        }
    };
    // A flag that a message names need not be one that the user typed.
    if exit == Exit::Usage {
        completed.from_environment.iter().for_each(|place| say(&format!("taken from {place}")));
    }
    if folded { exit.folded() } else { exit }
}

/// A line of standard error.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "lbaudit: {line}");
}

/// A mistake repeats the word that was wrong, which may be the token: long words without the look of a
/// path or flag are not shown.
fn without_tokens(text: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "._-+/=".contains(c);
    let looks = |word: &str| {
        let dots = word.matches('.').count();
        let is_jwt = dots == 2 && word.split('.').all(|part| part.len() >= 8);
        let mixed = word.contains(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
            && word.contains(|c: char| c.is_ascii_digit());
        is_jwt || (word.len() >= 40 && mixed && !word.contains('/'))
    };
    text.split_inclusive(|c| !is_of_token(c))
        .map(|piece| {
            let word = piece.trim_end_matches(|c| !is_of_token(c));
            let rest = piece.get(word.len()..).unwrap_or_default();
            if looks(word) { format!("[token]{rest}") } else { piece.to_owned() }
        })
        .collect()
}

/// Keeps memory, in which the token stands, out of core files and away from other processes of the
/// same user. A system that refuses this is no reason not to run.
fn keep_memory_private() {
    use rustix::process::{
        DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit,
    };
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(0);
    let _ = setrlimit(Resource::Core, limit);
}

/// A run that goes on with an earlier one has that one's flags too. What a campaign's folder keeps of
/// its command line is settled here.
fn with_earlier_flags(mut cli: Cli, line: &[OsString]) -> Result<Cli, Failure> {
    let (Command::Check(args) | Command::Soak(args)) = &mut cli.command else { return Ok(cli) };
    let words = || line.iter().map(|word| word.to_string_lossy().into_owned());
    let plain: Vec<String> = words().skip(1).collect();
    let Some(full) = drive::resumed(args, &plain)? else {
        args.arguments = commands::arguments(words());
        return Ok(cli);
    };
    let full: Vec<String> = std::iter::once("lbaudit".to_owned()).chain(full).collect();
    // Of a flag that was given then and now, the one that is given now counts.
    let command = Cli::command().args_override_self(true);
    let mut cli = command
        .try_get_matches_from(&full)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| Failure::usage(format!("the flags of the earlier run: {error}")))?;
    if let Command::Check(args) | Command::Soak(args) = &mut cli.command {
        args.arguments = commands::arguments(full);
    }
    Ok(cli)
}

fn execute(command: Command) -> Exit {
    let token = std::env::var("LIGHTBITS_JWT").ok();
    match &command {
        Command::Suite(args) => {
            with(&args.output, args.verbose, |context| suite::run(args, token, context))
        }
        Command::Check(args) => with(&args.output, false, |context| {
            check::run(args, check::Mode::Check, token, context)
        }),
        Command::Soak(args) => {
            with(&args.output, false, |context| check::run(args, check::Mode::Soak, token, context))
        }
        Command::Replay(args) => with(&args.output, false, |context| replay::replay(args, context)),
        Command::Shrink(args) => with(&args.output, false, |context| replay::shrink(args, context)),
        Command::Doctor(args) => {
            with(&args.output, false, |context| doctor::run(args, token, context))
        }
        Command::Clean(args) => {
            with(&args.output, false, |context| clean::run(args, token, context))
        }
        Command::Diff(args) => with(&args.output, false, |context| diff::run(args, token, context)),
        Command::Sync(args) => with(&args.output, false, |context| sync::run(args, token, context)),
        Command::Audit(args) => {
            with(&args.output, false, |context| audit::run(args, token, context))
        }
        Command::Explore(args) => with(&args.output, false, |context| explore::run(args, context)),
        Command::Report(args) => with(&args.output, false, |context| report::run(args, context)),
        Command::Selftest(args) => {
            with(&args.output, false, |context| selftest::run(args, context))
        }
        Command::Runs(args) => with(args.output(), false, |context| runs::run(args, context)),
        Command::List(args) => with(&args.output, false, |context| list::list(args, context)),
        // These have no output flags, and the server listens to signals itself.
        Command::Explain(args) => {
            let mut context = plain();
            let done = explain::explain(args, &mut context);
            finish(done, &mut context.ui, &Stop::default())
        }
        Command::Completions(args) => {
            let mut context = plain();
            let done = completions::run(args, &mut Cli::command(), &mut context);
            finish(done, &mut context.ui, &Stop::default())
        }
        Command::Man(args) => {
            let mut context = plain();
            let done = man::run(args, &Cli::command(), &mut context);
            finish(done, &mut context.ui, &Stop::default())
        }
        Command::Sim { command: SimCommand::Serve(args) } => {
            let mut context = plain();
            let done = serve::run(args, &mut context);
            finish(done, &mut context.ui, &Stop::default())
        }
    }
}

/// Runs a command with signals heard and output as its flags want it.
fn with(
    output: &OutputArgs,
    verbose: bool,
    command: impl FnOnce(&mut Context) -> Result<Exit, Failure>,
) -> Exit {
    let stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            let failure = Failure::could_not(format!("cannot listen to signals: {error}"));
            return finish(Err(failure), &mut Ui::plain(), &Stop::default());
        }
    };
    let ui = Ui::standard(output, Surroundings::look(), verbose);
    let mut context = Context { ui, stop: stop.clone() };
    let done = command(&mut context);
    finish(done, &mut context.ui, &stop)
}

fn plain() -> Context {
    Context { ui: Ui::plain(), stop: Stop::default() }
}

/// One line for a failure; an interrupted command ends as its signal says. Results that could not be
/// written are no results.
fn finish(done: Result<Exit, Failure>, ui: &mut Ui, stop: &Stop) -> Exit {
    let done = match (done, ui.lost()) {
        (Ok(exit), Some(why)) => {
            let message = format!("results could not be written to standard output: {why}");
            Err(Failure { exit: exit.or(Exit::CouldNotTest), message })
        }
        (done, _) => done,
    };
    done.unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr(), "lbaudit: {}", failure.message);
        match failure.exit {
            Exit::Interrupted => stop.exit().unwrap_or(Exit::Interrupted),
            other => other,
        }
    })
}

#[cfg(test)]
mod deploy_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        std::iter::once("lbaudit").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn the_parser_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_without_a_subcommand_are_the_originals_form() {
        assert!(is_original_form(&args("--endpoint https://a")));
        assert!(is_original_form(&args("--test 12")));
        assert!(is_original_form(&args("--config f --test 12")));
        assert!(is_original_form(&args("--config=f")));
        for line in [
            "--config f check",
            "--config-profile p --config=f --help",
            "",
            "suite --test 12",
            "--help",
            "-h",
            "--version",
            "-V",
            "list bugs",
        ] {
            assert!(!is_original_form(&args(line)), "{line}");
        }
    }

    #[test]
    fn no_help_shows_a_token() {
        let mut command = Cli::command();
        let names: Vec<String> =
            command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names {
            let help = command
                .find_subcommand_mut(&name)
                .map(|sub| sub.render_long_help().to_string())
                .unwrap_or_default();
            assert!(!help.contains("[env: LIGHTBITS_JWT"), "{name}: {help}");
        }
    }

    #[test]
    fn a_mistake_does_not_repeat_a_token() {
        let jwt = "eyJhbGciOiJI.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        let opaque = "canaryTOKEN0123456789abcdefghijklmnopqrstuvwxyz";
        for token in [jwt, opaque] {
            let text = without_tokens(&format!("unexpected argument '{token}' found\nUsage: x"));
            assert_eq!(text, "unexpected argument '[token]' found\nUsage: x");
        }
        let plain = "invalid value 'https://10.0.0.1:443' for '--source-uuid <UUID>': no UUID\n";
        assert_eq!(without_tokens(plain), plain);
    }

    #[test]
    fn the_short_help_has_three_examples() {
        assert_eq!(SHORT_HELP.lines().filter(|line| line.starts_with("  lbaudit")).count(), 3);
    }
}
