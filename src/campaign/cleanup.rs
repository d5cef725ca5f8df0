//! Snapshots that this tool left behind: finding them, and deleting exactly them.
//!
//! They are found by name, so a lost journal loses nothing: a [`SnapshotName`] carries the run and a
//! check character. Before each delete the array is asked again, and only a snapshot that still has
//! our name and still is of the same volume is deleted; where the run's journal is here, it must
//! name the snapshot too. Snapshots of a run that goes on stay.
//! Not covered: mounts and loop devices (they belong to the simulator).

use super::journal;
use super::store::{JOURNAL, RunState, is_own, run_folders, run_state};
use super::utc;
use crate::array::{
    ApiError, Array, Clock, SnapshotState, Waiting, delete_and_wait, escape_text, wait_gone,
};
use crate::block::{RunId, SnapshotName, SnapshotUuid, VolumeUuid};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Where runs are looked up, and which of them may be cleaned.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    /// The folder of run folders.
    pub root: &'a Path,
    /// The run that asks: its snapshots may go although it lives.
    pub own: Option<RunId>,
    /// Whether snapshots of runs without a folder here may go. Such a run may have been started in
    /// another folder or on another host and may still live.
    pub delete_unknown: bool,
}

impl Runs<'_> {
    /// Whether `run` goes on.
    pub fn state(&self, run: RunId) -> RunState {
        run_state(self.root, run)
    }

    /// Why a snapshot of `run` must stay, if it must.
    pub(super) fn keeps(&self, run: RunId) -> Option<String> {
        match self.state(run) {
            _ if self.own == Some(run) => None,
            RunState::Ended => None,
            RunState::Alive => Some(format!("run {run} goes on; stop it first")),
            RunState::Unknown if self.delete_unknown => None,
            RunState::Unknown => Some(format!(
                "run {run} has no folder in {}: it may go on elsewhere; name that folder, or ask \
                 to delete snapshots of unknown runs",
                self.root.display()
            )),
        }
    }

    /// The journal of a run, if it can be read and is that run's.
    fn journal(&self, run: RunId) -> Option<(PathBuf, journal::Records)> {
        let folders = run_folders(self.root).ok()?;
        let (_, folder) = folders.into_iter().find(|(found, _)| *found == run)?;
        let path = Some(folder).filter(|folder| is_own(folder))?.join(JOURNAL);
        let records = journal::read(&path).ok().filter(|records| records.run == Some(run))?;
        Some((path, records))
    }

    /// Whether the run's journal says that it made this clone and did not see it gone: that it was
    /// about to, if it died before the array told which volume it is.
    pub(super) fn made_clone(&self, name: SnapshotName, volume: VolumeUuid) -> bool {
        self.journal(name.run()).is_some_and(|(_, records)| {
            records.clones.get(&name).is_some_and(|made| made.is_none_or(|made| made == volume))
        })
    }

    /// Why the journal of the run that `leftover` is named after speaks against deleting it. A
    /// journal that is lost or damaged says nothing: then the name decides.
    fn denies(&self, leftover: &Leftover) -> Option<String> {
        let run = leftover.name.run();
        let (path, records) = self.journal(run)?;
        let named = records.names(leftover.name, leftover.volume, leftover.snapshot);
        (!named).then(|| {
            format!(
                "run {run} did not make it, says {}: somebody else gave it that name; delete it by other means if it may go",
                path.display()
            )
        })
    }
}

/// A snapshot of this tool on the array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// Its identity.
    pub snapshot: SnapshotUuid,
    /// Its name, with the run that gave it.
    pub name: SnapshotName,
    /// The volume it was taken of.
    pub volume: VolumeUuid,
    /// Where it is in its life.
    pub state: SnapshotState,
    /// How old it is, if the array tells.
    pub age: Option<Duration>,
    /// Whether its run goes on.
    pub run_state: RunState,
}

/// A snapshot that is still there, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotDeleted {
    /// The snapshot.
    pub leftover: Leftover,
    /// Why it was left, with the next step.
    pub why: String,
}

/// The snapshots of this tool on the array: of the given volumes, or of all if none is given,
/// sorted by run and number.
///
/// # Errors
/// When the array does not list its snapshots.
pub fn leftovers(
    array: &dyn Array,
    volumes: &[VolumeUuid],
    runs: Runs<'_>,
    now: SystemTime,
) -> Result<Vec<Leftover>, ApiError> {
    let mut found = Vec::new();
    for info in array.snapshots()? {
        let Ok(name) = info.name.parse::<SnapshotName>() else { continue };
        let asked_for = volumes.is_empty() || volumes.contains(&info.volume);
        if !asked_for || info.state == SnapshotState::Deleted {
            continue;
        }
        let created = info.created.as_deref().and_then(utc::parse_rfc3339);
        found.push(Leftover {
            snapshot: info.uuid,
            name,
            volume: info.volume,
            state: info.state,
            age: created.and_then(|created| now.duration_since(created).ok()),
            run_state: runs.state(name.run()),
        });
    }
    found.sort_by_key(|leftover| (leftover.name, leftover.snapshot));
    found.dedup_by_key(|leftover| leftover.snapshot);
    Ok(found)
}

/// The snapshots of one run only.
///
/// # Errors
/// As [`leftovers`].
pub fn leftovers_of_run(
    array: &dyn Array,
    run: RunId,
    runs: Runs<'_>,
    now: SystemTime,
) -> Result<Vec<Leftover>, ApiError> {
    let mut found = leftovers(array, &[], runs, now)?;
    found.retain(|leftover| leftover.name.run() == run);
    Ok(found)
}

/// Deletes these snapshots one after the other and waits until each is gone. Answers those that are
/// still there; a second call with the rest is safe.
pub fn delete(
    array: &dyn Array,
    clock: &dyn Clock,
    waiting: Waiting<'_>,
    runs: Runs<'_>,
    leftovers: &[Leftover],
) -> Vec<NotDeleted> {
    let mut left = Vec::new();
    for leftover in leftovers {
        let outcome = if waiting.stop.load(Ordering::Relaxed) {
            Err("interrupted; run `lbaudit clean` again".to_owned())
        } else {
            delete_one(array, clock, waiting, runs, leftover)
        };
        left.extend(outcome.err().map(|why| NotDeleted { leftover: leftover.clone(), why }));
    }
    left
}

fn delete_one(
    array: &dyn Array,
    clock: &dyn Clock,
    waiting: Waiting<'_>,
    runs: Runs<'_>,
    leftover: &Leftover,
) -> Result<(), String> {
    // Asked now, not when it was listed: a run may have started since.
    if let Some(why) = runs.keeps(leftover.name.run()).or_else(|| runs.denies(leftover)) {
        return Err(why);
    }
    let info = match array.snapshot(leftover.snapshot) {
        Err(ApiError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(format!("it could not be looked at, so it was left: {error}")),
        Ok(info) => info,
    };
    let ours = info.uuid == leftover.snapshot
        && info.volume == leftover.volume
        && info.name.parse() == Ok(leftover.name);
    if !ours {
        return Err(format!(
            "the array now shows it as `{}` of volume {}: not what was listed, so it was left",
            escape_text(&info.name, 200),
            info.volume
        ));
    }
    let gone = match info.state {
        SnapshotState::Deleted => Ok(()),
        SnapshotState::Deleting => wait_gone(array, clock, leftover.snapshot, waiting),
        _ => delete_and_wait(array, clock, leftover.snapshot, waiting),
    };
    gone.map_err(|error| format!("{error}; run `lbaudit clean` again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::VirtualClock;
    use crate::campaign::store::RunFolder;
    use crate::campaign::testing::TestArray;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;
    use std::time::UNIX_EPOCH;

    const VOLUME: VolumeUuid = VolumeUuid::from_u128(1);
    const OTHER: VolumeUuid = VolumeUuid::from_u128(2);

    fn any_run(root: &Path) -> Runs<'_> {
        Runs { root, own: None, delete_unknown: true }
    }

    fn nowhere() -> &'static Path {
        Path::new("/nowhere")
    }

    fn list(array: &TestArray, volumes: &[VolumeUuid], runs: Runs<'_>) -> Vec<Leftover> {
        let now = UNIX_EPOCH + Duration::from_secs(951_782_400 + 90);
        leftovers(array, volumes, runs, now).expect("it lists")
    }

    fn delete_all(array: &TestArray, runs: Runs<'_>, leftovers: &[Leftover]) -> Vec<NotDeleted> {
        let stop = AtomicBool::new(false);
        let second = Duration::from_secs(1);
        let waiting = Waiting { available: second, gone: second, stop: &stop };
        delete(array, &VirtualClock::new(), waiting, runs, leftovers)
    }

    #[test]
    fn our_snapshots_are_listed_by_name_run_volume_and_age_without_any_journal() {
        let array = TestArray::default();
        let (one, two) = (RunId::from_u128(1), RunId::from_u128(2));
        array.put(&SnapshotName::new(two, 1).to_string(), VOLUME);
        array.put(&SnapshotName::new(one, 2).to_string(), VOLUME);
        array.put(&SnapshotName::new(one, 3).to_string(), OTHER);
        array.put("nightly", VOLUME);
        let all = list(&array, &[], any_run(nowhere()));
        let seen: Vec<_> = all.iter().map(|l| (l.name.run(), l.name.seq(), l.volume)).collect();
        assert_eq!(seen, [(one, 2, VOLUME), (one, 3, OTHER), (two, 1, VOLUME)]);
        assert_eq!(all[0].age, Some(Duration::from_secs(90)));
        assert_eq!(all[0].run_state, RunState::Unknown);
        assert_eq!(list(&array, &[VOLUME], any_run(nowhere())).len(), 2);
        let of_run = leftovers_of_run(&array, one, any_run(nowhere()), UNIX_EPOCH);
        let of_run = of_run.expect("it lists");
        assert_eq!(of_run.len(), 2);
        assert_eq!(of_run[0].age, None, "a moment in the future has no age");
    }

    #[test]
    fn a_live_runs_snapshots_stay_and_an_ended_runs_go() {
        let root = tempfile::tempdir().expect("a folder");
        let (alive, ended, lost) = (RunId::from_u128(1), RunId::from_u128(2), RunId::from_u128(3));
        let _lives = RunFolder::create(root.path(), alive, UNIX_EPOCH).expect("a folder");
        drop(RunFolder::create(root.path(), ended, UNIX_EPOCH).expect("a folder"));
        let array = TestArray::default();
        for run in [alive, ended, lost] {
            array.put(&SnapshotName::new(run, 1).to_string(), VOLUME);
        }
        let runs = Runs { root: root.path(), own: None, delete_unknown: false };
        let found = list(&array, &[], runs);
        let states: Vec<RunState> = found.iter().map(|l| l.run_state).collect();
        assert_eq!(states, [RunState::Alive, RunState::Ended, RunState::Unknown]);
        let left = delete_all(&array, runs, &found);
        assert_eq!(left.iter().map(|l| l.leftover.name.run()).collect::<Vec<_>>(), [alive, lost]);
        assert!(left[0].why.contains("goes on; stop it"), "{}", left[0].why);
        assert_eq!(array.inner().snapshots.len(), 2);
        let left = delete_all(&array, any_run(root.path()), &found);
        assert_eq!(left.len(), 1, "the live run's stays whatever is asked");
        let own = Runs { own: Some(alive), ..runs };
        assert!(delete_all(&array, own, &found[..1]).is_empty(), "a run may clean up after itself");
        assert!(array.names().is_empty());
    }

    #[test]
    fn a_journal_that_is_there_must_name_the_snapshot() {
        use crate::campaign::journal::{Journal, Journalled};
        let root = tempfile::tempdir().expect("a folder");
        let run = RunId::from_u128(1);
        let folder = RunFolder::create(root.path(), run, UNIX_EPOCH).expect("a folder");
        let path = folder.path().join(JOURNAL);
        let journal = Journal::create(&path, run).expect("a journal");
        let array = TestArray::default();
        let name = |seq| SnapshotName::new(run, seq);
        let ours = Journalled::new(&array, &journal).create_snapshot(VOLUME, name(1));
        ours.expect("made");
        // The same name on another volume, a name never given, and a second one of our name.
        array.put(&name(1).to_string(), OTHER);
        array.put(&name(2).to_string(), VOLUME);
        array.put(&name(1).to_string(), VOLUME);
        drop(folder);
        let runs = Runs { root: root.path(), own: None, delete_unknown: false };
        let found = list(&array, &[], runs);
        let left = delete_all(&array, runs, &found);
        assert_eq!((found.len(), left.len()), (4, 3));
        assert!(left.iter().all(|left| left.why.contains("did not make it")), "{left:?}");
        assert_eq!(array.inner().snapshots.len(), 3);
        std::fs::write(&path, "damaged\ndamaged\n").expect("written");
        assert_eq!(delete_all(&array, runs, &left_over(&left)), [], "a lost one says nothing");
    }

    fn left_over(left: &[NotDeleted]) -> Vec<Leftover> {
        left.iter().map(|left| left.leftover.clone()).collect()
    }

    #[test]
    fn what_changed_since_it_was_listed_is_left_alone() {
        let array = TestArray::default();
        let name = SnapshotName::new(RunId::from_u128(1), 1);
        for change in 0..3 {
            let uuid = array.put(&name.to_string(), VOLUME);
            let found = list(&array, &[], any_run(nowhere()));
            let mut inner = array.inner();
            let info = inner.snapshots.get_mut(&uuid).expect("it is there");
            match change {
                0 => info.name = "nightly\u{1b}[2J".to_owned(),
                1 => info.volume = OTHER,
                _ => info.name = SnapshotName::new(RunId::from_u128(1), 2).to_string(),
            }
            drop(inner);
            let left = delete_all(&array, any_run(nowhere()), &found);
            assert_eq!(left.len(), 1);
            assert!(left[0].why.contains("not what was listed"), "{}", left[0].why);
            assert!(!left[0].why.contains('\u{1b}'), "foreign text reaches no terminal");
            assert!(array.inner().snapshots.contains_key(&uuid));
            array.inner().snapshots.clear();
        }
        assert!(array.inner().calls.iter().all(|call| !call.starts_with("delete")));
    }

    #[test]
    fn a_snapshot_that_is_gone_already_is_fine_and_a_stuck_one_is_reported() {
        let array = TestArray::default();
        let name = SnapshotName::new(RunId::from_u128(1), 1);
        array.put(&name.to_string(), VOLUME);
        let found = list(&array, &[], any_run(nowhere()));
        array.inner().slow_delete = true;
        for _ in 0..2 {
            let left = delete_all(&array, any_run(nowhere()), &found);
            assert!(left[0].why.contains("did not happen within 1 s"), "{}", left[0].why);
        }
        let deletes = array.inner().calls.iter().filter(|c| c.starts_with("delete")).count();
        assert_eq!(deletes, 1, "one that is Deleting is only waited for");
        array.inner().snapshots.clear();
        assert!(delete_all(&array, any_run(nowhere()), &found).is_empty());
    }

    #[test]
    fn after_a_stop_nothing_more_is_deleted_and_all_is_reported() {
        let array = TestArray::default();
        array.put(&SnapshotName::new(RunId::from_u128(1), 1).to_string(), VOLUME);
        let found = list(&array, &[], any_run(nowhere()));
        let stop = AtomicBool::new(true);
        let second = Duration::from_secs(1);
        let waiting = Waiting { available: second, gone: second, stop: &stop };
        let left = delete(&array, &VirtualClock::new(), waiting, any_run(nowhere()), &found);
        assert!(left[0].why.contains("interrupted"));
        assert_eq!(array.names().len(), 1);
    }

    /// Names near ours: one character changed, added, removed, or another case.
    fn look_alike() -> impl Strategy<Value = String> {
        let near =
            (any::<u128>(), any::<u32>(), any::<prop::sample::Index>(), 0..4u8, any::<char>());
        let near = near.prop_map(|(run, seq, at, how, c)| {
            let ours = SnapshotName::new(RunId::from_u128(run), seq).to_string();
            let at = at.index(ours.len());
            match how {
                0 => format!("{}{c}{}", &ours[..at], &ours[at + 1..]),
                1 => format!("{}{c}{}", &ours[..at], &ours[at..]),
                2 => format!("{}{}", &ours[..at], &ours[at + 1..]),
                _ => ours.to_uppercase(),
            }
        });
        prop_oneof![
            near,
            "tsync-[0-9a-z]{16}-[0-9]{1,3}",
            "tsync-[0-9]{10}-snap[0-9]",
            "[a-zA-Z0-9_.-]{1,30}",
        ]
    }

    proptest! {
        #[test]
        fn no_foreign_snapshot_is_ever_deleted(
            foreign in prop::collection::vec(look_alike(), 0..12),
            ours in prop::collection::vec((0u128..3, 0u32..50), 0..6),
        ) {
            let array = TestArray::default();
            let ours: std::collections::BTreeSet<String> = ours
                .into_iter()
                .map(|(run, seq)| SnapshotName::new(RunId::from_u128(run), seq).to_string())
                .collect();
            for name in &ours {
                array.put(name, VOLUME);
            }
            // A changed character may by chance give a name of the grammar: that one is ours.
            let mut foreign: Vec<String> =
                foreign.into_iter().filter(|name| name.parse::<SnapshotName>().is_err()).collect();
            for name in &foreign {
                array.put(name, VOLUME);
            }
            let found = list(&array, &[], any_run(nowhere()));
            prop_assert_eq!(found.len(), ours.len());
            prop_assert!(delete_all(&array, any_run(nowhere()), &found).is_empty());
            foreign.sort();
            prop_assert_eq!(array.names(), foreign);
        }
    }
}
