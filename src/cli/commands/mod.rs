//! One file a command. Each takes its parsed flags and answers an exit code or one line of failure.
//! Not covered: flags and exit codes, which are one level up.

pub mod audit;
pub mod check;
mod check_live;
mod check_qemu;
pub mod clean;
pub mod completions;
pub mod diff;
pub mod doctor;
pub mod drive;
pub mod explain;
pub mod explore;
mod faults;
mod hunt;
mod judge;
pub mod list;
pub mod man;
mod matrix;
mod process;
mod publish;
pub mod replay;
pub mod report;
pub mod runs;
pub mod selftest;
pub mod serve;
pub mod suite;
pub mod sync;

use super::failure::Failure;
use super::select::nearest_of;
use std::ffi::OsString;
use std::sync::OnceLock;

/// Nothing is called so.
fn unknown_bug(name: &str) -> Failure {
    let bugs = list::bugs();
    let near = nearest_of(name, bugs.iter().map(|bug| bug.name));
    let hint = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
    Failure::usage(format!("there is no planted bug `{name}`{hint}; see `lbaudit list bugs`"))
}

/// Flags whose value is a secret, or tells how to get one.
const SECRET: [&str; 2] = ["--jwt", "--jwt-command"];

/// The command line without the program and without secrets, as run folders keep it.
pub(super) fn arguments(line: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut hide = false;
    let mut kept = |word: String| match word.split_once('=') {
        _ if std::mem::take(&mut hide) => "***".to_owned(),
        Some((flag, _)) if SECRET.contains(&flag) => format!("{flag}=***"),
        _ => {
            hide = SECRET.contains(&word.as_str());
            word
        }
    };
    line.into_iter().skip(1).map(&mut kept).collect()
}

/// The command line of this process, completed from file and environment.
static LINE: OnceLock<Vec<OsString>> = OnceLock::new();

/// Remembers the command line that is carried out, which may say more than was typed.
pub fn remember(line: &[OsString]) {
    LINE.get_or_init(|| line.to_vec());
}

/// The command line that is carried out, as [`arguments`] keeps it.
pub(super) fn own_arguments() -> Vec<String> {
    let line = LINE.get_or_init(|| std::env::args_os().collect());
    arguments(line.iter().map(|word| word.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_command_line_holds_no_secret() {
        let kept = |line: &str| arguments(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(
            kept(
                "lbaudit suite --jwt canary --test 12 --jwt=canary --jwt-command canary --jwt-file f"
            ),
            "suite --jwt *** --test 12 --jwt=*** --jwt-command *** --jwt-file f"
        );
        assert_eq!(kept("lbaudit"), "");
        assert_eq!(kept("lbaudit suite --jwt"), "suite --jwt");
    }
}
