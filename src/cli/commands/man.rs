//! `lbaudit man DIR`: the manual pages, one for each command, made of what `--help` says.
//!
//! Not covered: compressing them, and putting them where `man` looks; packages do that.

use crate::cli::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use clap::Args;
use std::path::{Path, PathBuf};

/// Where to.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// The folder; pages that are there already are overwritten.
    pub dir: PathBuf,
}

/// Writes the manual pages of `program` and its commands.
///
/// # Errors
/// If the folder or a page cannot be written.
pub fn run(
    args: &ManArgs,
    program: &clap::Command,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let shown = args.dir.display();
    let failed = |error: std::io::Error| {
        Failure::could_not(format!("manual pages cannot be written to {shown}: {error}"))
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut program = program.clone();
    program.build();
    let pages = write_pages(&program, &args.dir).map_err(failed)?;
    context.ui.print(&format!("{pages} manual pages in {shown}"));
    Ok(Exit::Passed)
}

/// Writes the page of `command` and those of the commands below it; how many.
fn write_pages(command: &clap::Command, dir: &Path) -> std::io::Result<usize> {
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    std::fs::write(dir.join(man.get_filename()), page)?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.map(|below| write_pages(below, dir)).try_fold(1, |sum, pages| Ok(sum + pages?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::args::Form;
    use crate::cli::settings::flags::leaves;
    use crate::cli::stop::Stop;
    use crate::cli::ui::Ui;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page_that_names_its_flags() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("man1");
        let (ui, text) = Ui::captured(Form::Text);
        let mut context = Context { ui, stop: Stop::default() };
        // Twice: pages are overwritten.
        for _ in 0..2 {
            run(&ManArgs { dir: dir.clone() }, &Cli::command(), &mut context).expect("written");
        }
        let files = std::fs::read_dir(&dir).expect("there").count();
        assert!(text.text().contains(&format!("{files} manual pages in ")), "{}", text.text());
        for (command, flags) in leaves(&Cli::command()) {
            let page = std::fs::read_to_string(dir.join(format!("lbaudit-{command}.1")));
            let page = page.expect("a page").replace("\\-", "-");
            for flag in flags.iter().filter(|flag| !flag.hidden) {
                assert!(page.contains(&format!("--{}", flag.name)), "{command}: {}", flag.name);
            }
        }
        let main = std::fs::read_to_string(dir.join("lbaudit.1")).expect("a page");
        assert!(main.contains("lbaudit"), "{main}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let (ui, _) = Ui::captured(Form::Text);
        let mut context = Context { ui, stop: Stop::default() };
        let args = ManArgs { dir: PathBuf::from("/proc/no/such") };
        let failure = run(&args, &Cli::command(), &mut context).expect_err("not there");
        assert_eq!(failure.exit, Exit::CouldNotTest);
    }
}
