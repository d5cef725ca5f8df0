//! Old runs: packed into a file to send them, or named and, when told to, deleted. A run that goes on,
//! found something or may have left something on an array stays.
//!
//! Not covered: what they left on arrays and devices (`lbaudit clean`).

use super::{Row, cannot, rows};
use crate::campaign::journal;
use crate::campaign::store::{
    JOURNAL, LATEST, LOCK, believe, bytes_in, create_private, finding_folders, link_latest,
    run_folders, run_of_folder, take_lock,
};
use crate::cli::Context;
use crate::cli::args::Form;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

pub(super) fn export(folder: &Path, file: &Path, context: &mut Context) -> Result<Exit, Failure> {
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already", file.display())));
    }
    let parts = folder.parent().zip(folder.file_name());
    let parts = parts.filter(|(_, name)| name.to_str().and_then(run_of_folder).is_some());
    let (parent, name) = parts.ok_or_else(|| Failure::usage("that is no run folder"))?;
    let mut hidden = file.as_os_str().to_owned();
    hidden.push(".part");
    // Readable by its owner only, as what is in it, and through no link that somebody put there.
    let out = create_private(Path::new(&hidden))
        .map_err(|error| cannot(format!("{}: {error}", Path::new(&hidden).display())))?;
    let mut tar = Command::new("tar");
    tar.env_remove("LIGHTBITS_JWT");
    tar.arg("--create").arg("--gzip").arg("--file").arg("-").arg("--directory").arg(parent);
    tar.stdout(out);
    // A folder cannot begin with a dash: its name begins with a date.
    let status = tar.arg("--exclude=.*").arg("--").arg(name).status();
    let status = status.map_err(|error| cannot(format!("cannot run tar: {error}")))?;
    let packed = match status.success() {
        true => fs::rename(&hidden, file).map_err(cannot),
        false => Err(cannot(format!("tar failed ({status})"))),
    };
    packed.inspect_err(|_| drop(fs::remove_file(&hidden)))?;
    context.ui.print(&format!("{} has {}", file.display(), folder.display()));
    Ok(Exit::Passed)
}

/// Which runs may go.
pub(super) struct Bounds {
    pub(super) older_than: Duration,
    pub(super) keep: Option<usize>,
    pub(super) bytes: Option<u64>,
    pub(super) findings: bool,
}

/// A run that may go, or why it stays.
#[derive(Serialize)]
#[serde(tag = "event", rename = "pruned")]
struct Pruned {
    name: String,
    bytes: u64,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'static str>,
}

pub(super) fn prune(
    root: &Path,
    bounds: &Bounds,
    yes: bool,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let rows = rows(root, context)?;
    let count = rows.len();
    let sizes: Vec<u64> = rows.iter().map(|(_, path)| bytes_in(path).unwrap_or(0)).collect();
    let mut left: u64 = sizes.iter().sum();
    let (mut named, mut failed) = (0, 0);
    for (at, ((row, folder), bytes)) in rows.iter().zip(&sizes).enumerate() {
        let age = fs::metadata(folder).and_then(|it| it.modified());
        let age = age
            .map_or(Duration::ZERO, |at| SystemTime::now().duration_since(at).unwrap_or_default());
        let too_many = bounds.keep.is_some_and(|keep| count - at > keep);
        let too_large = bounds.bytes.is_some_and(|most| left > most);
        if age < bounds.older_than && !too_many && !too_large {
            continue;
        }
        let kept = stays(row, folder, bounds);
        let mut deleted = false;
        if kept.is_none() {
            left = left.saturating_sub(*bytes);
            if yes {
                match remove(folder) {
                    Ok(()) => deleted = true,
                    Err(error) => {
                        failed += 1;
                        context.ui.say(&format!("{}: {error}", folder.display()));
                    }
                }
            }
        }
        named += 1;
        let pruned = Pruned { name: row.figures.name.clone(), bytes: *bytes, deleted, kept };
        match context.ui.form {
            Form::Jsonl => context.ui.event(&pruned),
            Form::Text => {
                let what = kept.unwrap_or(if deleted { "deleted" } else { "may go" });
                context.ui.print(&format!(
                    "{:<34} {:>9} KiB  {what}",
                    row.figures.name,
                    bytes >> 10
                ));
            }
        }
    }
    if yes {
        let mut folders = run_folders(root).map_err(cannot)?.into_iter().map(|(_, folder)| folder);
        let newest = folders.rfind(|folder| is_this_tools(folder));
        let latest_is_gone = fs::symlink_metadata(root.join(LATEST)).is_ok()
            && fs::metadata(root.join(LATEST)).is_err();
        if latest_is_gone {
            let newest = newest.as_deref().and_then(Path::file_name).map(Path::new);
            link_latest(root, newest).map_err(cannot)?;
        }
    }
    if context.ui.form == Form::Text {
        let hint = if yes || named == 0 { "" } else { "; add --yes to delete what may go" };
        context.ui.print(&format!("{named} of {count} runs are old or too many{hint}"));
    }
    Ok(if failed > 0 { Exit::Nothing } else { Exit::Passed })
}

/// Deletes a run's folder. Its lock is held meanwhile, so that nobody goes on with it.
fn remove(folder: &Path) -> std::io::Result<()> {
    let _lock = take_lock(folder)
        .ok_or_else(|| std::io::Error::other("its lock is held, or it has none"))?;
    fs::remove_dir_all(folder)
}

/// Why a run stays although it is old. Whatever its list says: a finding that it was killed over is in
/// its folder, and what has no lock of a run in a folder of this user is none of this tool's.
fn stays(row: &Row, folder: &Path, bounds: &Bounds) -> Option<&'static str> {
    let open = || {
        if !folder.join(JOURNAL).is_symlink() && !folder.join(JOURNAL).exists() {
            return None;
        }
        // One that cannot be read may name the only copy of somebody's blocks.
        let left = journal::read(&folder.join(JOURNAL)).map_or(true, |journal| {
            !journal.open.is_empty() || !journal.clones.is_empty() || !journal.stamped.is_empty()
        });
        left.then_some(
            "stays: its journal names what it may have left, or cannot be read; see `lbaudit clean`",
        )
    };
    match row.state.as_str() {
        "going on" => Some("stays: it goes on"),
        _ if !is_this_tools(folder) => Some("stays: it is no run of this user"),
        _ if !bounds.findings && found_something(row, folder) => {
            Some("stays: it found something; see --findings")
        }
        _ => open(),
    }
}

/// Whether a run of this user made the folder, as far as it tells.
fn is_this_tools(folder: &Path) -> bool {
    believe(folder).is_ok() && folder.join(LOCK).is_file()
}

/// Whether there is anything that somebody may want to see: unreadable counts as such.
fn found_something(row: &Row, folder: &Path) -> bool {
    let violation = [Exit::Violation, Exit::Bug].map(Exit::code);
    row.figures.findings > 0
        || row.figures.exit_code.is_some_and(|code| violation.contains(&code))
        || finding_folders(folder).map_or(true, |found| !found.is_empty())
}
