//! Run folders: `<root>/<UTC time>-<run id>/`, the link `latest`, and which runs still live.
//!
//! Folders are 0700 and files 0600. A run holds a lock on its folder as long as it lives, and the
//! kernel drops it however the run ends, so that `clean` never takes a live run's snapshots away.
//! Not covered: what is written into the folder (journal, events, findings, reports).

use super::utc;
use crate::block::RunId;
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the journal in a run folder.
pub const JOURNAL: &str = "journal.jsonl";
/// Name of the link to the newest run folder.
pub const LATEST: &str = "latest";
const LOCK: &str = "lock";

/// The folder of the run that is going on. Dropping it lets go of the lock.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    run: RunId,
    _lock: File,
}

/// Creates a new file that only its owner can read and write.
///
/// # Errors
/// When it exists already, or cannot be made.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(path)
}

/// Makes a folder's entries durable.
///
/// # Errors
/// When the folder cannot be synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl RunFolder {
    /// Makes the folder of `run` below `root`, locks it, and points `latest` at it.
    ///
    /// # Errors
    /// When a folder, the lock or the link cannot be made.
    pub fn create(root: &Path, run: RunId, now: SystemTime) -> io::Result<RunFolder> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let name = format!("{}-{run}", utc::compact(now));
        let path = root.join(&name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = create_private(&path.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Two runs may start together: the link is made under a name of its own and moved.
        let link = root.join(format!(".latest-{run}"));
        symlink(&name, &link)?;
        fs::rename(&link, root.join(LATEST))?;
        sync_folder(root)?;
        Ok(RunFolder { path, run, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The run it belongs to.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// Creates a file in the folder, readable by its owner only.
    ///
    /// # Errors
    /// When it exists already, or cannot be made.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        create_private(&self.path.join(name))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Closing is not enough: a program that is just being started has a copy of the descriptor.
        // If it cannot be unlocked, the kernel does it a moment later.
        let _ = rustix::fs::flock(&self._lock, FlockOperation::Unlock);
    }
}

/// What is known about a run by its folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// It goes on.
    Alive,
    /// It ended, well or not.
    Ended,
    /// There is no folder of it here: removed, or the run was somewhere else.
    Unknown,
}

/// The run that a folder's name carries.
pub fn run_of_folder(name: &str) -> Option<RunId> {
    name.rsplit_once('-').and_then(|(_, run)| run.parse().ok())
}

/// The run folders below `root`, oldest first. A root that is not there holds none.
///
/// # Errors
/// When the root cannot be read.
pub fn run_folders(root: &Path) -> io::Result<Vec<(RunId, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let run = entry.file_name().to_str().and_then(run_of_folder);
        // `latest` is a link, and links are nobody's folder.
        if let Some(run) = run.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.push((run, entry.path()));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Whether `run` still goes on, according to the run folders below `root`. When in doubt about a
/// folder that is there, the run counts as alive.
pub fn run_state(root: &Path, run: RunId) -> RunState {
    let folders = match run_folders(root) {
        Ok(folders) => folders,
        Err(_) => return RunState::Unknown,
    };
    let Some((_, folder)) = folders.into_iter().find(|(found, _)| *found == run) else {
        return RunState::Unknown;
    };
    match File::open(folder.join(LOCK)) {
        Ok(lock) => match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => RunState::Ended,
            Err(_) => RunState::Alive,
        },
        // Killed between the folder and the lock: it made nothing yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => RunState::Ended,
        Err(_) => RunState::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_run_folder_is_private_named_by_time_and_run_and_latest() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().join("runs");
        let run = RunId::from_u128(5);
        let now = UNIX_EPOCH + Duration::from_secs(951_782_400);
        let folder = RunFolder::create(&root, run, now).expect("it can be made");
        assert_eq!(folder.path(), root.join("20000229T000000Z-0000000000000005"));
        assert_eq!(
            fs::read_link(root.join(LATEST)).expect("a link"),
            Path::new("20000229T000000Z-0000000000000005")
        );
        folder.create_file("x").expect("a file");
        assert!(folder.create_file("x").is_err(), "files are made once");
        assert_eq!(
            [mode(&root), mode(folder.path()), mode(&folder.path().join("x"))],
            [0o700, 0o700, 0o600]
        );
        let second = RunFolder::create(&root, RunId::from_u128(6), now + Duration::from_secs(1));
        let second = second.expect("it can be made");
        assert_eq!(root.join(fs::read_link(root.join(LATEST)).expect("a link")), second.path());
        let runs: Vec<RunId> =
            run_folders(&root).expect("readable").into_iter().map(|(run, _)| run).collect();
        assert_eq!(runs, [RunId::from_u128(5), RunId::from_u128(6)]);
    }

    #[test]
    fn a_run_lives_as_long_as_it_holds_its_lock() {
        let root = tempfile::tempdir().expect("a folder");
        let run = RunId::from_u128(7);
        assert_eq!(run_state(root.path(), run), RunState::Unknown);
        let folder = RunFolder::create(root.path(), run, UNIX_EPOCH).expect("it can be made");
        assert_eq!(run_state(root.path(), run), RunState::Alive);
        assert_eq!(run_state(root.path(), run), RunState::Alive, "looking takes nothing away");
        assert_eq!(run_state(root.path(), RunId::from_u128(8)), RunState::Unknown);
        let lock = folder.path().join(LOCK);
        let copy = folder._lock.try_clone().expect("as a child has before its program starts");
        drop(folder);
        assert_eq!(run_state(root.path(), run), RunState::Ended);
        drop(copy);
        fs::remove_file(lock).expect("it was there");
        assert_eq!(run_state(root.path(), run), RunState::Ended);
        assert_eq!(run_state(Path::new("/nowhere"), run), RunState::Unknown);
    }
}
