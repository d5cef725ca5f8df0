//! Run folders: `<root>/<UTC time>-<run id>/`, the link `latest`, and which runs still live.
//!
//! Folders are 0700 and files 0600. A run holds a lock on its folder as long as it lives, and the
//! kernel drops it however the run ends, so that `clean` never takes a live run's snapshots away.
//! Not covered: what is written into the folder (journal, events, findings, reports).

use super::utc;
use crate::block::RunId;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the journal in a run folder.
pub const JOURNAL: &str = "journal.jsonl";
/// Name of the link to the newest run folder.
pub const LATEST: &str = "latest";
/// How the folder of a finding begins that a run was killed over and another one goes on with.
pub const UNFINISHED: &str = "unfinished-";
/// Name of the file that a run holds a lock on as long as it lives.
pub const LOCK: &str = "lock";

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

/// Opens for reading what must be a plain file: whatever else bears its name could keep a reader
/// waiting, or lead it elsewhere.
///
/// # Errors
/// When it is something else, or cannot be opened.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no plain file")),
    }
}

/// Makes a folder's entries durable.
///
/// # Errors
/// When the folder cannot be synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts a file in place of another of that name, durably: there is a whole one at any moment.
///
/// # Errors
/// When it cannot be written.
pub fn replace(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!(".{name}"));
    // A killed run may have left one half-written.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_private(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(name))?;
    sync_folder(folder)
}

impl RunFolder {
    /// Makes the folder of `run` below `root`, locks it, and points `latest` at it.
    ///
    /// # Errors
    /// When a folder, the lock or the link cannot be made.
    pub fn create(root: &Path, run: RunId, now: SystemTime) -> io::Result<RunFolder> {
        let folder = RunFolder::begin(root, run, now)?;
        folder.point_latest()?;
        Ok(folder)
    }

    /// Makes the folder of `run` below `root` and locks it. `latest` stays where it is until
    /// [`RunFolder::point_latest`]: whoever goes on with the latest run needs one that can be gone on
    /// with.
    ///
    /// # Errors
    /// When a folder or the lock cannot be made.
    pub fn begin(root: &Path, run: RunId, now: SystemTime) -> io::Result<RunFolder> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let name = format!("{}-{run}", utc::compact(now));
        let path = root.join(&name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = create_private(&path.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        sync_folder(root)?;
        Ok(RunFolder { path, run, _lock: lock })
    }

    /// Points `latest` at this folder.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn point_latest(&self) -> io::Result<()> {
        let (Some(root), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        link_latest(root, Some(Path::new(name)))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The run it belongs to.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// Takes the folder away again, before anything was kept in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
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

/// Points `latest` below `root` at the folder of that name, or at nothing.
///
/// # Errors
/// When the link cannot be made or removed.
pub fn link_latest(root: &Path, name: Option<&Path>) -> io::Result<()> {
    let latest = root.join(LATEST);
    match name {
        Some(name) => {
            // Two runs may start together: the link is made under a name of its own and moved.
            let link = root.join(format!(".latest-{}", name.display()));
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => symlink(name, &link)?,
            }
            fs::rename(&link, latest)?;
        }
        None => fs::remove_file(latest)?,
    }
    sync_folder(root)
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

/// The run that a folder's name carries: `20260614T120005Z-` and the run's id. Names of another form are
/// somebody else's.
pub fn run_of_folder(name: &str) -> Option<RunId> {
    let (time, run) = name.split_once('-')?;
    let is_time = time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    is_time.then_some(run)?.parse().ok()
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

/// The run folder that a person means: a path, `latest`, a folder's name or a run's id below `root`.
///
/// # Errors
/// When there is none.
pub fn find_run(root: &Path, wanted: &str) -> io::Result<PathBuf> {
    let named = root.join(wanted);
    let given = [Path::new(wanted), &named].into_iter().find(|path| path.is_dir());
    if let Some(path) = given {
        // `latest` is a link to a folder that says by its name what it is.
        return fs::canonicalize(path);
    }
    let by_id = run_folders(root)?.into_iter().find(|(run, _)| run.to_string() == wanted);
    by_id.map(|(_, path)| path).ok_or_else(|| {
        let root = root.display();
        io::Error::other(format!("there is no such run in {root}; see `lbaudit runs list`"))
    })
}

/// Copies what a run that goes on with another keeps of it: its events, the folders of its findings,
/// and under `unfinished-N` findings that it was killed over.
///
/// # Errors
/// When something cannot be read or written.
pub fn carry_over(from: &Path, to: &Path, findings: &[u32]) -> io::Result<()> {
    let events = from.join(super::record::EVENTS);
    if events.exists() {
        let mut copy = create_private(&to.join(super::record::EVENTS))?;
        copy.write_all(&fs::read(events)?)?;
    }
    let mut unfinished = 0;
    for (path, kept) in finding_folders(from)? {
        let known = kept.filter(|number| findings.contains(number));
        let name = match known {
            Some(number) => format!("finding-{number}"),
            // A run may be killed over one finding again and again: numbers are given anew.
            None => {
                unfinished += 1;
                format!("{UNFINISHED}{unfinished}")
            }
        };
        copy_folder(&path, &to.join(name))?;
    }
    if let Some(number) = findings.iter().find(|it| !to.join(format!("finding-{it}")).is_dir()) {
        return Err(io::Error::other(format!("{} has no finding-{number}", from.display())));
    }
    sync_folder(to)
}

/// The folders of findings in a run's folder, by name: those that it had shown with their numbers, and
/// those that it was killed over without.
///
/// # Errors
/// When the folder cannot be read.
pub fn finding_folders(run: &Path) -> io::Result<Vec<(PathBuf, Option<u32>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = |prefix| name.to_str()?.strip_prefix(prefix)?.parse::<u32>().ok();
        let (kept, unfinished) = (number("finding-"), number(UNFINISHED));
        if (kept.is_some() || unfinished.is_some()) && entry.file_type()?.is_dir() {
            found.push((entry.path(), kept));
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder of files.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let mut copy = create_private(&to.join(entry.file_name()))?;
            copy.write_all(&fs::read(entry.path())?)?;
            copy.sync_all()?;
        }
    }
    sync_folder(to)
}

/// Bytes of all files in a folder and the folders in it, but for hidden ones, which are there for a
/// moment or to keep room.
///
/// # Errors
/// When it cannot be read.
pub fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        bytes += match kind.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// Whether a run folder is believed: this user's or root's, and nobody else can write into it. Where
/// others can, anybody could say by a folder that snapshots and blocks are this tool's.
pub fn is_own(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|it| {
        let owner = [0, rustix::process::geteuid().as_raw()].contains(&it.uid());
        it.is_dir() && owner && it.mode() & 0o022 == 0
    })
}

/// Whether what a run's folder says may be done: it and the files that say it are this user's or root's,
/// and nobody else can write them.
///
/// # Errors
/// If not, with the file.
pub fn believe(folder: &Path) -> io::Result<()> {
    let refuse = |path: &Path| {
        let path = path.display();
        io::Error::other(format!(
            "{path} is somebody else's, or others can write it: what it says is not done"
        ))
    };
    if !is_own(folder) {
        return Err(refuse(folder));
    }
    for name in [super::run_files::RUN, super::run_files::CHECKPOINT] {
        let path = folder.join(name);
        let owners = [0, rustix::process::geteuid().as_raw()];
        match fs::symlink_metadata(&path) {
            Ok(it) if it.is_file() && owners.contains(&it.uid()) && it.mode() & 0o022 == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(refuse(&path)),
        }
    }
    Ok(())
}

/// The lock of a run that has ended, to keep others from going on with it or deleting it meanwhile;
/// `None` if it still goes on, somebody else has it, or it has none.
pub fn take_lock(folder: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let lock = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(LOCK)).ok()?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok().map(|()| lock)
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
    if !is_own(&folder) {
        return RunState::Unknown;
    }
    match File::open(folder.join(LOCK)) {
        Ok(lock) => match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => RunState::Ended,
            Err(_) => RunState::Alive,
        },
        // Killed between the folder and the lock it made nothing; or somebody made that folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => RunState::Unknown,
        Err(_) => RunState::Alive,
    }
}

/// Whether the run of this folder still goes on; a folder of another name is no run.
pub fn is_alive(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let run = run_of_folder(name).zip(folder.parent());
    run.is_some_and(|(run, root)| run_state(root, run) == RunState::Alive)
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
    fn a_run_is_found_by_path_name_id_and_as_the_latest() {
        let root = tempfile::tempdir().expect("a folder");
        let run = RunId::from_u128(9);
        let folder = RunFolder::create(root.path(), run, UNIX_EPOCH).expect("it can be made");
        let path = fs::canonicalize(folder.path()).expect("it is there");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let as_path = path.to_str().expect("a path");
        for wanted in [LATEST, name, &run.to_string(), as_path] {
            assert_eq!(find_run(root.path(), wanted).expect("found"), path, "{wanted}");
        }
        assert!(find_run(root.path(), "nothing").is_err());
    }

    #[test]
    fn findings_are_carried_over_and_unknown_ones_under_another_name() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, to) = (root.path().join("a"), root.path().join("b"));
        for name in ["finding-1", "finding-2", "unfinished-7", "other"] {
            fs::create_dir_all(from.join(name)).expect("a folder");
            fs::write(from.join(name).join("repro.jsonl"), name).expect("a file");
        }
        fs::write(from.join("events.jsonl"), "{}\n").expect("a file");
        fs::create_dir(&to).expect("a folder");
        carry_over(&from, &to, &[1]).expect("copies");
        let read = |name: &str| fs::read_to_string(to.join(name).join("repro.jsonl")).ok();
        assert_eq!(read("finding-1").as_deref(), Some("finding-1"));
        assert_eq!(read("unfinished-1").as_deref(), Some("finding-2"));
        assert_eq!(read("unfinished-2").as_deref(), Some("unfinished-7"));
        assert_eq!((read("finding-2"), read("other")), (None, None));
        assert_eq!(bytes_in(&to).expect("reads"), 3 + 9 + 9 + 12);
        // Killed over the same finding once more: two folders of one number.
        fs::create_dir(from.join("unfinished-2")).expect("a folder");
        fs::write(from.join("unfinished-9"), "no folder").expect("a file");
        let third = root.path().join("c");
        fs::create_dir(&third).expect("a folder");
        carry_over(&from, &third, &[1]).expect("copies");
        assert_eq!(finding_folders(&third).expect("reads").len(), 4);
        let lacking = carry_over(&from, &root.path().join("c"), &[1, 5]);
        assert!(lacking.is_err(), "what was found and is not there is not forgotten");
    }

    #[test]
    fn only_names_of_a_time_and_a_run_are_run_folders() {
        let name = "20260614T120005Z-0000000000000002";
        assert_eq!(run_of_folder(name), Some(RunId::from_u128(2)));
        for name in [
            "photos-2024-0000000000000002",
            "build-0000000000000002",
            "20260614T120005Z-x-0000000000000002",
            "20260614 120005Z-0000000000000002",
            "-0000000000000002",
            "latest",
        ] {
            assert_eq!(run_of_folder(name), None, "{name}");
        }
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::create(root.path(), RunId::from_u128(3), UNIX_EPOCH);
        let folder = folder.expect("it can be made");
        believe(folder.path()).expect("nothing is in it yet");
        folder.create_file("run.json").expect("a file");
        believe(folder.path()).expect("its own");
        let set = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode));
        set(&folder.path().join("run.json"), 0o666).expect("changes");
        assert!(believe(folder.path()).is_err());
        set(&folder.path().join("run.json"), 0o600).expect("changes");
        set(folder.path(), 0o777).expect("changes");
        assert!(believe(folder.path()).is_err());
        set(folder.path(), 0o700).expect("changes");
        symlink("/etc/passwd", folder.path().join("checkpoint.json")).expect("a link");
        assert!(believe(folder.path()).is_err());
    }

    #[test]
    fn one_alone_goes_on_with_a_run() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::create(root.path(), RunId::from_u128(4), UNIX_EPOCH);
        let folder = folder.expect("it can be made");
        assert!(take_lock(folder.path()).is_none(), "it goes on");
        let path = folder.path().to_owned();
        drop(folder);
        let held = take_lock(&path).expect("it has ended");
        assert!(take_lock(&path).is_none(), "somebody has it");
        assert!(is_alive(&path));
        drop(held);
        assert!(take_lock(&path).is_some());
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
        let mode = |mode| {
            let path = lock.parent().expect("a folder");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        for writable in [0o720, 0o702, 0o777] {
            mode(writable);
            assert_eq!(run_state(root.path(), run), RunState::Unknown, "{writable:o}");
        }
        mode(0o700);
        drop(copy);
        fs::remove_file(lock).expect("it was there");
        assert_eq!(run_state(root.path(), run), RunState::Unknown, "an empty folder says nothing");
        assert_eq!(run_state(Path::new("/nowhere"), run), RunState::Unknown);
    }
}
