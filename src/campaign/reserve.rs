//! Room that a run sets aside in its folder and gives up for a finding, for its last checkpoint and for
//! its report, when the disk has no other (`safety.md`: no finding is lost).
//!
//! Not covered: a disk so full that the room cannot be set aside; a run goes on without it, as it did
//! what it could.

use super::store::create_private;
use std::fs;
use std::io;
use std::path::Path;

/// Name of the file that keeps the room.
const FILE: &str = ".reserve";
/// How much: the files of a shrunk finding take some 60 KiB, a report of a few some 150.
const BYTES: u64 = 256 << 10;

/// Sets the room aside.
///
/// # Errors
/// When there is no such room, or the file system cannot promise it.
pub fn set_aside(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    let file = create_private(&path)?;
    let done = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES);
    if done.is_err() {
        // Half of it is no use to anybody.
        fs::remove_file(&path)?;
    }
    Ok(done?)
}

/// Gives the room up, if it was set aside, where less than it is free.
///
/// # Errors
/// When the file system cannot be asked, or the file not be removed.
pub fn give_up_if_short(folder: &Path) -> io::Result<()> {
    let there = rustix::fs::statvfs(folder)?;
    if there.f_bavail.saturating_mul(there.f_frsize) < BYTES { give_up(folder) } else { Ok(()) }
}

/// Gives the room up.
///
/// # Errors
/// When the file cannot be removed.
pub fn give_up(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_set_aside_and_kept_until_it_is_needed() {
        let folder = tempfile::tempdir().expect("a folder");
        give_up(folder.path()).expect("there is nothing to give up");
        set_aside(folder.path()).expect("there is room");
        let file = folder.path().join(FILE);
        assert_eq!(fs::metadata(&file).expect("it is there").len(), BYTES);
        give_up_if_short(folder.path()).expect("there is room still");
        assert!(file.exists());
        assert!(set_aside(folder.path()).is_err(), "once");
        give_up(folder.path()).expect("goes");
        assert!(!file.exists());
    }
}
